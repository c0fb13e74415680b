/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP sessions. A session is everything between one client address and port and one edge address and port; it has a
 * connected socket of its own towards the origin, so that answers and ICMP errors are its own, and keeps its origin
 * for its whole life (unless that origin is unreachable or down and its pool has another one).
 *
 * Datagrams go in batches: what one recvmmsg() on a listener brings is grouped by session, and each group leaves with
 * one system call, as one GSO send where the sizes allow. Answers are gathered over a turn of the loop and leave
 * together. An answer must come from the address and port that the client wrote to: it is sent from a socket bound to
 * that port ("reply socket") with the address in a control message.
 */
#pragma once

#include "flow/flow.h"

struct udp_listener {
	struct source source;
	struct flow_env *env;
	int fd;
};

/** udp_table_new() - @max_sessions: of this worker. Return: 0; -ENOMEM. */
MUST_CHECK int udp_table_new(struct flow_env *env, uint32_t max_sessions);

/** udp_table_free() - all sessions have ended; closes the reply sockets */
void udp_table_free(struct flow_env *env);

/** udp_listener_ready() - the callback of a listener's source */
void udp_listener_ready(struct source *source, uint32_t events);

/** udp_flush() - send the answers gathered so far; at the end of each turn */
void udp_flush(struct flow_env *env);

/** udp_fast_sweep() - fire of flow_env.fast_timer (udp_fast.c) */
void udp_fast_sweep(struct timer *timer);

/** udp_fast_routes_ready() - the callback of flow_env.routes (udp_fast.c) */
void udp_fast_routes_ready(struct source *source, uint32_t events);

/** udp_origin_down() - sessions with @endpoint come back from the fast path, so that they move when the client goes on
 */
void udp_origin_down(struct flow_env *env, const struct endpoint *endpoint);

/** udp_reply_lend() - plain binds: answers from @port leave by this listener's socket, which stays the caller's */
void udp_reply_lend(struct flow_env *env, int family, uint16_t port, int fd);

/** udp_reply_revoke() - the socket lent for @port is about to be closed */
void udp_reply_revoke(struct flow_env *env, int family, uint16_t port, int fd);
