/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: a unix stream socket, mode 0600. A client writes one line and reads the answer until the end of
 * the stream. Commands: "reload", "status", "rules". The first word of the answer to reload is "ok" or "error".
 */
#pragma once

#include "edge/edge.h"

struct control_socket;

/** control_socket_open() - Return: 0; -errno (-EADDRINUSE: another process listens there). */
MUST_CHECK int control_socket_open(struct edge *e, const char *path, struct control_socket **ret_socket);

/** control_socket_close() - answers that are under way are cut, the path is removed; NULL is accepted */
void control_socket_close(struct control_socket *c);
