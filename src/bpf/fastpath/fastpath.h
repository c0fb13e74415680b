/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel fast path for established UDP sessions: loading the program, and telling it which sessions to carry. Any
 * worker may call it for sessions of its own slots; nothing here is shared but the kernel's maps.
 */
#pragma once

#include "base/addr.h"
#include "base/text.h"
#include "bpf/shared.h"

struct fastpath;

struct fastpath_session {
	struct addr client;
	struct addr edge;	/* where the client writes to */
	struct addr local;	/* where the session's own socket writes from */
	struct addr origin;	/* all four of one family */
	uint32_t slot;		/* 0..FAST_SESSIONS_MAX-1, nobody else's */
	uint32_t out_to_origin; /* interfaces; both 0 when client and origin are on this machine */
	uint32_t out_to_client;
	uint32_t max_to_origin; /* longest IP packets, when they leave by an interface */
	uint32_t max_to_client;
	bool observe; /* only see whether its packets come by */
};

/**
 * fastpath_open() - load the program, attach it to loopback and every Ethernet device that is up, and try it on
 * loopback
 * @ret_why: on failure, one line for people
 *
 * Return: 0; -errno (-EPERM without rights, -EINVAL on kernels before 6.6, -EIO when the trial failed).
 */
MUST_CHECK int fastpath_open(struct text *ret_why, struct fastpath **ret_fastpath);

/** fastpath_close() - detach; NULL is accepted */
void fastpath_close(struct fastpath *fp);

/** fastpath_add() - carry a session from now on; its counters begin at 0. Return: 0; -errno (-E2BIG: the map is full).
 */
MUST_CHECK int fastpath_add(struct fastpath *fp, const struct fastpath_session *session);

/** fastpath_update() - the session leaves by other interfaces now, or is carried now; its counters go on. Return: 0;
 * -errno. */
MUST_CHECK int fastpath_update(struct fastpath *fp, const struct fastpath_session *session);

/** fastpath_remove() - its datagrams come to user space again; the counters stand still. Harmless when it is not there.
 */
void fastpath_remove(struct fastpath *fp, const struct fastpath_session *session);

/** fastpath_counters() - what the program has counted of a slot; read with relaxed atomics, it goes on counting */
const struct fast_counters *fastpath_counters(const struct fastpath *fp, uint32_t slot);
