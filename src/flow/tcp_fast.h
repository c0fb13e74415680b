/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel fast path of TCP flows, see tcp_fast.c. The relay asks tcp_fast_owns() before it moves a byte, and calls
 * tcp_fast_consider() after each turn of a flow that has carried enough.
 */
#pragma once

#include "flow/tcp_flow.h"

/**
 * tcp_fast_new() - a worker's part of the fast path, as env->tcp_fast
 * @fastpath: whose fastpath_tcp_state() is "on"
 *
 * Return: 0; -errno.
 */
MUST_CHECK int tcp_fast_new(struct flow_env *env, struct fastpath *fastpath);

/** tcp_fast_free() - after the worker's flows have ended; harmless without tcp_fast_new() */
void tcp_fast_free(struct flow_env *env);

/** tcp_fast_begin() - a flow begins to relay */
void tcp_fast_begin(struct tcp_flow *f);

/** tcp_fast_count() - the relay has read bytes of a flow */
static inline void tcp_fast_count(struct tcp_flow *f, uint64_t bytes)
{
	/* small pieces cost as much as a page: the system calls count, not the copying */
	f->carried += MAX(bytes, (uint64_t)4096);
}

/** tcp_fast_due() - whether tcp_fast_consider() has something to do */
static inline bool tcp_fast_due(const struct tcp_flow *f)
{
	return f->carried >= f->fast_due || f->fast;
}

/** tcp_fast_consider() - a turn of the relay is over: maybe the kernel can carry the flow from here on */
void tcp_fast_consider(struct tcp_flow *f);

/** tcp_fast_owns() - whether the relay must leave the flow's bytes alone and call tcp_fast_run() instead */
bool tcp_fast_owns(const struct tcp_flow *f);

/** tcp_fast_run() - instead of the relay. Return: STEP_END; STEP_NEXT: nothing to end it, look at the timer. */
enum step tcp_fast_run(struct tcp_flow *f);

/** tcp_fast_close() - the flow ends: if the kernel carried it, close both sockets and return true */
bool tcp_fast_close(struct tcp_flow *f);
