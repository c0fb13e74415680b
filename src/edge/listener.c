/* SPDX-License-Identifier: Apache-2.0 */
#include "edge/listener.h"
#include "base/error.h"
#include "io/sock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096, UDP_BUFFER_BYTES = 8 << 20 };

static int set_tcp(int fd)
{
	int r;

	/* what is set here, accepted connections inherit */
	r = sock_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (r == 0)
		r = sock_set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	return r;
}

static int set_udp(int fd, bool v4)
{
	int r;

	sock_buffers(fd, UDP_BUFFER_BYTES);
	if (v4)
		r = sock_set(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, 1);
	else
		r = sock_set(fd, IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1);
	return r;
}

int listener_open(enum protocol protocol, const struct addr *local)
{
	bool v4 = ip_is_v4(&local->ip);
	int fd = sock_new(v4 ? AF_INET : AF_INET6, protocol == PROTOCOL_TCP ? SOCK_STREAM : SOCK_DGRAM);
	int r = 0;

	if (fd < 0)
		return fd;
	if (!v4)
		r = sock_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	/* REUSEADDR for TCP, so that old connections in TIME_WAIT do not keep a port from us; not for UDP, where it
	 * would share */
	if (r == 0 && protocol == PROTOCOL_TCP)
		r = sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r == 0)
		r = sock_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (r == 0)
		r = protocol == PROTOCOL_TCP ? set_tcp(fd) : set_udp(fd, v4);
	if (r == 0)
		r = sock_bind(fd, local);
	if (r == 0 && protocol == PROTOCOL_TCP && listen(fd, BACKLOG) < 0)
		r = fault(-errno);
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

int bound_sockets_add(struct bound_sockets *s, struct bound_socket socket)
{
	if ((s->count & (s->count - 1)) == 0) { /* room doubles at each power of two */
		struct bound_socket *items = reallocarray(s->items, s->count ? s->count * 2 : 1, sizeof(*items));

		if (!items)
			return fault(-ENOMEM);
		s->items = items;
	}
	s->items[s->count++] = socket;
	return 0;
}

void bound_sockets_free(struct bound_sockets *s)
{
	free(s->items);
	*s = (struct bound_sockets){ 0 };
}

void bound_sockets_close(struct bound_sockets *s)
{
	for (size_t i = 0; i < s->count; i++)
		close(s->items[i].fd);
	bound_sockets_free(s);
}
