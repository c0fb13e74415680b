/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/udp_reply.h"
#include "base/error.h"
#include "io/sock.h"

#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORTS = 1 << 16, REPLY_BUFFER_BYTES = 4 << 20 };

int udp_replies_init(struct udp_replies *r)
{
	*r = (struct udp_replies){ 0 };
	list_init(&r->idle);
	for (int v4 = 0; v4 < 2; v4++) {
		void *table = mmap(NULL, PORTS * sizeof(void *), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (table == MAP_FAILED)
			return fault(-ENOMEM);
		r->by_port[v4] = table;
	}
	return 0;
}

static void reply_free(struct udp_replies *r, struct udp_reply *reply)
{
	list_del(&reply->idle);
	r->by_port[reply->v4][reply->port] = NULL;
	if (!reply->lent) {
		close(reply->fd);
		r->own_count--;
	}
	free(reply);
}

void udp_replies_deinit(struct udp_replies *r)
{
	for (int v4 = 0; v4 < 2; v4++) {
		if (!r->by_port[v4])
			continue;
		for (unsigned int port = 0; port < PORTS; port++)
			if (r->by_port[v4][port])
				reply_free(r, r->by_port[v4][port]);
		munmap(r->by_port[v4], PORTS * sizeof(void *));
		r->by_port[v4] = NULL;
	}
}

/* A socket that can send from @edge and never receives anything. */
static int socket_for(const struct addr *edge)
{
	bool v4 = ip_is_v4(&edge->ip);
	/* bound to a link-local address, a socket reaches that link only */
	struct addr local = edge->scope_id ? (struct addr){ .port = edge->port } : *edge;
	struct sock_filter drop_all[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog filter = { .len = ARRAY_SIZE(drop_all), .filter = drop_all };
	int fd = sock_new(v4 ? AF_INET : AF_INET6, SOCK_DGRAM);
	int r;

	if (fd < 0)
		return fd;
	r = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0 ? fault(-errno) : 0;
	if (r == 0)
		r = sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r == 0)
		r = sock_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (r == 0 && !v4)
		r = sock_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (r == 0)
		r = sock_bind(fd, &local);
	if (r) {
		close(fd);
		return r;
	}
	sock_buffers(fd, REPLY_BUFFER_BYTES);
	return fd;
}

static int reply_new(struct udp_replies *r, const struct addr *edge, int lent_fd, struct udp_reply **ret_reply)
{
	struct udp_reply *reply = calloc(1, sizeof(*reply));

	if (!reply)
		return fault(-ENOMEM);
	*reply = (struct udp_reply){
		.fd = lent_fd,
		.port = edge->port,
		.v4 = ip_is_v4(&edge->ip),
		.lent = lent_fd >= 0,
	};
	list_init(&reply->idle);
	if (!reply->lent) {
		reply->fd = socket_for(edge);
		if (reply->fd < 0) {
			int error = reply->fd;

			free(reply);
			return error;
		}
		r->own_count++;
	}
	r->by_port[reply->v4][reply->port] = reply;
	*ret_reply = reply;
	return 0;
}

int udp_reply_get(struct udp_replies *r, const struct addr *edge, struct udp_reply **ret_reply)
{
	struct udp_reply *reply = r->by_port[ip_is_v4(&edge->ip)][edge->port];
	int error;

	if (!reply) {
		error = reply_new(r, edge, -1, &reply);
		if (error)
			return error;
	} else if (!list_empty(&reply->idle)) {
		list_del(&reply->idle);
		r->idle_count--;
	}
	reply->sessions++;
	*ret_reply = reply;
	return 0;
}

void udp_reply_put(struct udp_replies *r, struct udp_reply *reply)
{
	if (--reply->sessions)
		return;
	if (reply->lent) {
		if (reply->fd < 0)
			reply_free(r, reply);
		return;
	}
	list_add(&r->idle, &reply->idle);
	if (++r->idle_count > UDP_REPLIES_IDLE_MAX) {
		r->idle_count--;
		reply_free(r, CONTAINER_OF(r->idle.next, struct udp_reply, idle));
	}
}

int udp_reply_set_lent(struct udp_replies *r, bool v4, uint16_t port, int fd)
{
	struct addr any = { .port = port };
	struct udp_reply *reply = r->by_port[v4][port];

	if (v4)
		any.ip = ip_from_v4((uint8_t[4]){ 0 });
	if (reply && fd < 0 && reply->sessions == 0) {
		reply_free(r, reply);
		return 0;
	}
	if (reply) {
		reply->fd = fd; /* sessions that are left send into nothing until they end */
		return 0;
	}
	return fd < 0 ? 0 : reply_new(r, &any, fd, &reply);
}
