/* SPDX-License-Identifier: Apache-2.0 */
/* Loading the steer program and telling it which ports are the edge's. */
#pragma once

#include "base/addr.h"
#include "config/settings.h"

struct steer;

/* One bound socket of each SO_REUSEPORT group; -1 where a family is not there. IPv4 at 0, IPv6 at 1. */
struct steer_sockets {
	int fd[PROTOCOL_N][2];
	uint16_t port[PROTOCOL_N][2];
};

/**
 * steer_open() - load the program into this network namespace; it hears nothing until a port is set
 * @addresses, @count: local addresses to listen on; 0 for all
 * @ret_why:           on failure, one line for people
 *
 * Return: 0; -errno (typically -EPERM without CAP_BPF and CAP_NET_ADMIN).
 */
MUST_CHECK int steer_open(const struct steer_sockets *sockets, const struct ip *addresses, size_t count,
	struct text *ret_why, struct steer **ret_steer);

/** steer_set() - a port belongs to the edge, or no longer. Takes effect at once, needs no right. */
void steer_set(struct steer *s, enum protocol protocol, uint16_t port, bool ours);

/** steer_close() - detach; every port is as if we had never been there. NULL is accepted. */
void steer_close(struct steer *s);
