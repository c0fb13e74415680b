/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of configuration. The file is read and checked whole; when anything is wrong, nothing changes. Otherwise a
 * snapshot is made and mailed to the workers, and the ports follow: those that no rule has any more refuse new
 * connections before the workers switch, new ones are opened when all have.
 */
#pragma once

#include "edge/edge.h"

/**
 * apply_first() - the configuration at start: makes the listening sockets, the steer program, and e->snapshot
 * @ret_sockets: by worker, for worker_new()
 * @out:         receives what is wrong, a line each
 *
 * Return: RULES_OK; RULES_E_WRONG; -errno.
 */
MUST_CHECK int apply_first(struct edge *e, struct bound_sockets *ret_sockets, struct text *out);

/** apply_open_ports() - all workers run: let steered traffic in */
void apply_open_ports(struct edge *e);

/**
 * apply_reload() - read the rules file again and apply it
 * @waiter: told when it is done, or refused; NULL for nobody
 */
void apply_reload(struct edge *e, struct reload_waiter *waiter);

/** apply_close_ports() - the process stops: refuse new TCP connections */
void apply_close_ports(struct edge *e);

/** apply_deinit() - the workers have ended */
void apply_deinit(struct edge *e);
