/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets. With steering there is one for each worker, protocol and family, made at start, and the steer
 * program decides which ports it hears; without, there is one for each worker, protocol, address and port, made and
 * closed as rules come and go.
 */
#pragma once

#include "config/rules.h"

struct bound_socket {
	int fd;
	enum protocol protocol;
	bool v4;
	uint16_t port; /* the edge port; 0 when steered */
};

struct bound_sockets {
	struct bound_socket *items;
	size_t count;
};

/**
 * listener_open() - make one listening socket, member of the SO_REUSEPORT group of its address
 * @local:   address and port to bind; port 0 lets the kernel choose
 *
 * Return: the fd; -errno.
 */
MUST_CHECK int listener_open(enum protocol protocol, const struct addr *local);

/** bound_sockets_add() - takes over @socket.fd on success. Return: 0; -ENOMEM. */
MUST_CHECK int bound_sockets_add(struct bound_sockets *s, struct bound_socket socket);

/** bound_sockets_close() - close all of them and free the list */
void bound_sockets_close(struct bound_sockets *s);

/** bound_sockets_free() - free the list only: the sockets have got another owner */
void bound_sockets_free(struct bound_sockets *s);
