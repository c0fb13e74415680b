/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets the way the edge wants them: non-blocking, close-on-exec, one family each. */
#pragma once

#include "base/addr.h"

/**
 * sock_new() - a socket
 * @family: AF_INET or AF_INET6 (which then carries IPv6 only)
 * @type:   SOCK_STREAM or SOCK_DGRAM
 *
 * Return: the fd; -errno.
 */
MUST_CHECK int sock_new(int family, int type);

/** sock_set() - set an int option. Return: 0; -errno. */
MUST_CHECK int sock_set(int fd, int level, int option, int value);

/** sock_bind() - Return: 0; -errno. */
MUST_CHECK int sock_bind(int fd, const struct addr *a);

/** sock_local() - which of our addresses a socket has. Return: 0; -errno. */
MUST_CHECK int sock_local(int fd, struct addr *ret_addr);

/** sock_buffers() - ask for receive and send buffers of @bytes each; less is no error */
void sock_buffers(int fd, int bytes);

/** sock_close() - close and, with @reset, answer the peer of a TCP connection with RST instead of FIN */
void sock_close(int fd, bool reset);

/** sock_error() - take the pending error off a socket. Return: errno, or 0. */
int sock_error(int fd);
