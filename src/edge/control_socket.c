/* SPDX-License-Identifier: Apache-2.0 */
#include "edge/control_socket.h"
#include "base/error.h"
#include "config/document.h"
#include "config/rules.h"
#include "edge/apply.h"
#include "edge/status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	CONTROL_CLIENTS_MAX = 16,
	CONTROL_LINE_MAX = 128,
	CONTROL_TIMEOUT_MS = 10000,    /* to send a line, and again to read the answer */
	CONTROL_ANSWER_MAX = 65 << 20, /* more than a document can be */
};

struct client {
	struct source source;
	struct timer timer;
	struct grave grave;
	struct list node; /* control_socket.clients */
	struct control_socket *control;
	struct reload_waiter waiter;
	struct text answer;
	size_t sent;
	size_t line_length;
	int fd;
	bool answering;
	bool waiting; /* for a reload: freed only when it has told us */
	char line[CONTROL_LINE_MAX];
};

struct control_socket {
	struct edge *edge;
	struct source source;
	int fd;
	unsigned int client_count;
	struct list clients;
	struct sockaddr_un name;
};

static void bury_client(struct grave *grave)
{
	free(CONTAINER_OF(grave, struct client, grave));
}

static void client_close(struct client *c)
{
	if (c->fd >= 0) {
		close(c->fd);
		c->fd = -1;
		timer_stop(&c->timer);
		loop_forget(&c->source);
		text_free(&c->answer);
		c->control->client_count--;
	}
	if (c->waiting)
		return;
	list_del(&c->node);
	loop_bury(&c->control->edge->loop, &c->grave, bury_client);
}

static void client_timeout(struct timer *timer)
{
	client_close(CONTAINER_OF(timer, struct client, timer));
}

static void arm(struct client *c)
{
	struct loop *loop = &c->control->edge->loop;

	timer_start(&loop->timers, &c->timer, clock_now() + CONTROL_TIMEOUT_MS * NSEC_PER_MSEC);
}

static void send_answer(struct client *c)
{
	while (c->sent < c->answer.length) {
		ssize_t n = send(c->fd, c->answer.bytes + c->sent, c->answer.length - c->sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			break;
		c->sent += (size_t)n;
	}
	client_close(c);
}

static void answer(struct client *c)
{
	if (c->fd < 0)
		return;
	if (!c->answer.ok) {
		text_free(&c->answer);
		c->answer = text_growing(CONTROL_ANSWER_MAX);
		text_str(&c->answer, "error the answer is too long\n");
	}
	c->answering = true;
	arm(c);
	send_answer(c);
}

static void reload_told(struct reload_waiter *waiter, bool applied, const char *text)
{
	struct client *c = CONTAINER_OF(waiter, struct client, waiter);

	c->waiting = false;
	if (c->fd < 0) {
		client_close(c); /* the client did not wait */
		return;
	}
	text_str(&c->answer, applied ? "ok " : "error refused, the old rules stay in force\n");
	text_str(&c->answer, text);
	answer(c);
}

static void command_reload(struct client *c)
{
	c->waiting = true;
	c->waiter.told = reload_told;
	timer_stop(&c->timer);
	apply_reload(c->control->edge, &c->waiter);
}

static void command_status(struct client *c)
{
	status_json(c->control->edge, &c->answer);
	answer(c);
}

static void command_rules(struct client *c)
{
	rules_format(&c->control->edge->snapshot->config, &c->answer);
	answer(c);
}

static void command_config(struct client *c)
{
	document_format(&c->control->edge->snapshot->config, &c->answer);
	answer(c);
}

static void run_command(struct client *c)
{
	static const struct {
		const char *name;
		void (*run)(struct client *c);
	} commands[] = {
		{ "reload", command_reload },
		{ "status", command_status },
		{ "rules", command_rules },
		{ "config", command_config },
	};

	c->line[strcspn(c->line, "\r\n")] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcasecmp(c->line, commands[i].name) == 0) {
			commands[i].run(c);
			return;
		}
	}
	text_printf(&c->answer, "error command \"%s\", expected reload, status, rules or config\n", c->line);
	answer(c);
}

static void read_command(struct client *c)
{
	while (c->fd >= 0 && !c->answering && !c->waiting) {
		ssize_t n = recv(c->fd, c->line + c->line_length, CONTROL_LINE_MAX - 1 - c->line_length, 0);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			client_close(c);
			return;
		}
		c->line_length += (size_t)n;
		c->line[c->line_length] = 0;
		if (memchr(c->line, '\n', c->line_length)) {
			run_command(c);
		} else if (c->line_length == CONTROL_LINE_MAX - 1) {
			text_printf(&c->answer, "error a line of %d bytes or more, expected a command\n",
				CONTROL_LINE_MAX - 1);
			answer(c);
		}
	}
}

static void client_ready(struct source *source, uint32_t events)
{
	struct client *c = CONTAINER_OF(source, struct client, source);

	(void)events;
	if (c->fd < 0)
		return;
	if (c->answering)
		send_answer(c);
	else
		read_command(c);
}

static void client_new(struct control_socket *control, int fd)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c || control->client_count == CONTROL_CLIENTS_MAX) {
		free(c);
		close(fd);
		return;
	}
	c->control = control;
	c->fd = fd;
	c->answer = text_growing(CONTROL_ANSWER_MAX);
	source_init(&c->source, client_ready);
	timer_init(&c->timer, client_timeout);
	list_init(&c->waiter.node);
	list_add(&control->clients, &c->node);
	control->client_count++;
	arm(c);
	if (loop_add(&control->edge->loop, fd, &c->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP))
		client_close(c);
}

static void listener_ready(struct source *source, uint32_t events)
{
	struct control_socket *control = CONTAINER_OF(source, struct control_socket, source);
	int fd;

	(void)events;
	while ((fd = accept4(control->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
		client_new(control, fd);
}

/* A path left behind by a process that is gone is taken over; one that somebody listens on is not. */
static int bind_path(struct control_socket *control)
{
	const struct sockaddr *name = (const struct sockaddr *)&control->name;
	int probe;

	if (bind(control->fd, name, sizeof(control->name)) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return fault(-errno);
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (probe < 0)
		return fault(-errno);
	if (connect(probe, name, sizeof(control->name)) == 0 || errno != ECONNREFUSED) {
		close(probe);
		return fault(-EADDRINUSE);
	}
	close(probe);
	unlink(control->name.sun_path);
	return bind(control->fd, name, sizeof(control->name)) < 0 ? fault(-errno) : 0;
}

int control_socket_open(struct edge *e, const char *path, struct control_socket **ret_socket)
{
	struct control_socket *control;
	mode_t old_mask;
	int r;

	if (strlen(path) >= sizeof(control->name.sun_path))
		return fault(-ENAMETOOLONG);
	control = calloc(1, sizeof(*control));
	if (!control)
		return fault(-ENOMEM);
	control->edge = e;
	list_init(&control->clients);
	control->name.sun_family = AF_UNIX;
	memcpy(control->name.sun_path, path, strlen(path));
	control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	r = control->fd < 0 ? fault(-errno) : 0;
	if (r == 0) {
		old_mask = umask(0177);
		r = bind_path(control);
		umask(old_mask);
	}
	if (r) {
		if (control->fd >= 0)
			close(control->fd);
		free(control);
		return r;
	}
	source_init(&control->source, listener_ready);
	if (listen(control->fd, CONTROL_CLIENTS_MAX) < 0)
		r = fault(-errno);
	if (r == 0)
		r = loop_add(&e->loop, control->fd, &control->source, EPOLLIN);
	if (r)
		control_socket_close(control);
	else
		*ret_socket = control;
	return r;
}

void control_socket_close(struct control_socket *control)
{
	if (!control)
		return;
	while (!list_empty(&control->clients)) {
		struct client *c = CONTAINER_OF(control->clients.next, struct client, node);

		c->waiting = false;
		list_del(&c->waiter.node);
		client_close(c);
	}
	loop_forget(&control->source);
	close(control->fd);
	unlink(control->name.sun_path);
	free(control);
}
