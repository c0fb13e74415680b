/* SPDX-License-Identifier: Apache-2.0 */
#include "io/loop.h"
#include "base/error.h"

#include <errno.h>
#include <unistd.h>

enum { LOOP_BATCH = 256 };

int loop_init(struct loop *l)
{
	*l = (struct loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC), .now = clock_now() };
	if (l->epoll_fd < 0)
		return fault(-errno);
	list_init(&l->again);
	timers_init(&l->timers, l->now);
	return 0;
}

static void bury_all(struct loop *l)
{
	while (l->graves) {
		struct grave *g = l->graves;

		l->graves = g->next;
		g->bury(g);
	}
}

void loop_deinit(struct loop *l)
{
	bury_all(l);
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	l->epoll_fd = -1;
}

void source_init(struct source *s, void (*ready)(struct source *source, uint32_t events))
{
	s->ready = ready;
	list_init(&s->again);
}

int loop_add(struct loop *l, int fd, struct source *s, uint32_t events)
{
	return loop_add_level(l, fd, s, events | EPOLLET);
}

int loop_add_level(struct loop *l, int fd, struct source *s, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = s };

	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? fault(-errno) : 0;
}

void loop_again(struct loop *l, struct source *s)
{
	if (list_empty(&s->again))
		list_add(&l->again, &s->again);
}

void loop_forget(struct source *s)
{
	list_del(&s->again);
}

void loop_bury(struct loop *l, struct grave *g, void (*bury)(struct grave *grave))
{
	g->bury = bury;
	g->next = l->graves;
	l->graves = g;
}

/* Calls those who asked before this turn; who asks meanwhile waits for the next, so that nobody starves. */
static void run_again(struct loop *l)
{
	struct list asked;

	if (list_empty(&l->again))
		return;
	asked = l->again;
	asked.next->prev = &asked;
	asked.prev->next = &asked;
	list_init(&l->again);
	while (!list_empty(&asked)) {
		struct source *s = CONTAINER_OF(asked.next, struct source, again);

		list_del(&s->again);
		s->ready(s, 0);
	}
}

int loop_turn(struct loop *l, int timeout_ms)
{
	struct epoll_event events[LOOP_BATCH];
	int next = timers_next(&l->timers, clock_now());
	int n;

	if (!list_empty(&l->again))
		timeout_ms = 0;
	else if (next >= 0 && (timeout_ms < 0 || next < timeout_ms))
		timeout_ms = next;
	n = epoll_wait(l->epoll_fd, events, LOOP_BATCH, timeout_ms);
	if (n < 0 && errno != EINTR)
		return fault(-errno);
	l->now = clock_now();
	l->turn++;
	run_again(l);
	for (int i = 0; i < n; i++) {
		struct source *s = events[i].data.ptr;

		s->ready(s, events[i].events);
	}
	timers_run(&l->timers, l->now);
	bury_all(l);
	if (l->turn_done)
		l->turn_done(l);
	return 0;
}

int loop_run(struct loop *l)
{
	int r = 0;

	while (r == 0 && !l->stopped)
		r = loop_turn(l, -1);
	return r;
}
