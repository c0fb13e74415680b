/* SPDX-License-Identifier: Apache-2.0 */
#include "io/sock.h"
#include "base/error.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int sock_new(int family, int type)
{
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? fault(-errno) : fd;
}

int sock_set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? fault(-errno) : 0;
}

int sock_bind(int fd, const struct addr *a)
{
	union sockaddr_any sa;
	socklen_t length = addr_to_sockaddr(a, &sa);

	return bind(fd, &sa.sa, length) < 0 ? fault(-errno) : 0;
}

int sock_local(int fd, struct addr *ret_addr)
{
	union sockaddr_any sa;
	socklen_t length = sizeof(sa);

	if (getsockname(fd, &sa.sa, &length) < 0)
		return fault(-errno);
	*ret_addr = addr_from_sockaddr(&sa);
	return 0;
}

void sock_buffers(int fd, int bytes)
{
	static const int options[][2] = { { SO_RCVBUFFORCE, SO_RCVBUF }, { SO_SNDBUFFORCE, SO_SNDBUF } };

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (setsockopt(fd, SOL_SOCKET, options[i][0], &bytes, sizeof(bytes)) < 0)
			setsockopt(fd, SOL_SOCKET, options[i][1], &bytes, sizeof(bytes));
}

void sock_close(int fd, bool reset)
{
	if (fd < 0)
		return;
	if (reset)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1, .l_linger = 0 },
			sizeof(struct linger));
	close(fd);
}

int sock_error(int fd)
{
	int error = 0;
	socklen_t length = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		return errno;
	return error;
}
