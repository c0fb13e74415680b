/* SPDX-License-Identifier: Apache-2.0 */
#include "edge/metrics.h"
#include "base/error.h"
#include "edge/status.h"
#include "io/sock.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	METRICS_CLIENTS_MAX = 16,
	METRICS_TIMEOUT_S = 10,
	METRICS_TEXT_MAX = 256 << 20,
	METRICS_REQUEST_MEMORY = 16 << 10,
};

struct metrics {
	struct edge *edge;
	struct MHD_Daemon *daemon; /* NULL until metrics_start() */
	int fd;
};

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned int status, const char *type, char *body,
	size_t length, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(length, body, mode);
	enum MHD_Result result;

	if (!response) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(body);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result respond_text(struct MHD_Connection *connection, unsigned int status, const char *text)
{
	return respond(connection, status, "text/plain", (char *)(uintptr_t)text, strlen(text), MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *upload, size_t *upload_size, void **state)
{
	struct metrics *m = arg;
	struct text body;

	(void)version;
	(void)upload;
	(void)upload_size;
	(void)state;
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return respond_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "expected GET\n");
	if (strcmp(url, "/healthz") == 0)
		return respond_text(connection, MHD_HTTP_OK, "ok\n");
	if (strcmp(url, "/metrics") != 0)
		return respond_text(connection, MHD_HTTP_NOT_FOUND, "expected /metrics or /healthz\n");
	body = text_growing(METRICS_TEXT_MAX);
	status_prometheus(m->edge, &body);
	if (!body.ok) {
		text_free(&body);
		return respond_text(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	}
	return respond(
		connection, MHD_HTTP_OK, "text/plain; version=0.0.4", body.bytes, body.length, MHD_RESPMEM_MUST_FREE);
}

/* Our own socket, so that a failure to bind has a reason. */
static int open_socket(const struct addr *local)
{
	int fd = sock_new(addr_family(local), SOCK_STREAM);
	int r;

	if (fd < 0)
		return fd;
	r = sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r == 0)
		r = sock_bind(fd, local);
	if (r == 0 && listen(fd, METRICS_CLIENTS_MAX) < 0)
		r = fault(-errno);
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

int metrics_open(struct edge *e, const struct addr *local, struct metrics **ret_metrics)
{
	struct metrics *m = calloc(1, sizeof(*m));

	if (!m)
		return fault(-ENOMEM);
	m->edge = e;
	m->fd = open_socket(local);
	if (m->fd < 0) {
		int r = m->fd;

		free(m);
		return r;
	}
	*ret_metrics = m;
	return 0;
}

int metrics_start(struct metrics *m)
{
	m->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL, 0, NULL, NULL, handle, m,
		MHD_OPTION_LISTEN_SOCKET, m->fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned int)METRICS_CLIENTS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int)METRICS_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)METRICS_REQUEST_MEMORY, MHD_OPTION_END);
	return m->daemon ? 0 : fault(-EIO);
}

void metrics_close(struct metrics *m)
{
	if (!m)
		return;
	if (m->daemon)
		MHD_stop_daemon(m->daemon); /* closes the socket */
	else
		close(m->fd);
	free(m);
}
