/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel fast path for established UDP sessions and long-lived TCP flows: loading the program, and telling it which
 * ones to carry. Any worker may call it for its own slots; nothing here is shared but the kernel's maps.
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
 * @tcp_workers: for how many workers it carries TCP, too; 0: not at all
 * @ret_why: on failure, one line for people
 *
 * Return: 0; -errno (-EPERM without rights, -EINVAL on kernels before 6.6, -EIO when the trial failed).
 */
MUST_CHECK int fastpath_open(unsigned int tcp_workers, struct text *ret_why, struct fastpath **ret_fastpath);

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

/* --- TCP --- */

/** fastpath_tcp_state() - "on", or why it carries no TCP; a kernel that lacks something for TCP may still carry UDP */
const char *fastpath_tcp_state(const struct fastpath *fp);

/**
 * fastpath_tcp_watch() - see how far both directions of a flow are; its counters begin at 0
 * @session:    its observe is ignored
 * @generation: not the one that the slot had before
 * @worker:     whose ring hears of the end
 *
 * Return: 0; -errno.
 */
MUST_CHECK int fastpath_tcp_watch(
	struct fastpath *fp, const struct fastpath_session *session, uint32_t generation, uint32_t worker);

/** fastpath_tcp_update() - the flow leaves by other interfaces now. Return: 0; -errno. */
MUST_CHECK int fastpath_tcp_update(struct fastpath *fp, const struct fastpath_session *session, uint32_t generation);

/* What user space knows at the moment of the flip, by the direction in which bytes go. */
struct fastpath_tcp_facts {
	uint64_t received[2]; /* bytes that the socket which hears the direction has got, when all of them are passed on
			       */
	uint32_t now[2];      /* TCP_TIMESTAMP of the socket that speaks in the direction; 0: no time stamps */
	uint8_t scale_in[2];  /* window scale of the end that speaks */
	uint8_t scale_out[2]; /* and the one that we told the end that hears */
};

/**
 * fastpath_tcp_flip() - carry a watched flow, if nothing of it is under way
 *
 * Return: enum fast_tcp_flip_result; -errno.
 */
MUST_CHECK int fastpath_tcp_flip(struct fastpath *fp, const struct fastpath_session *session, uint32_t generation,
	const struct fastpath_tcp_facts *facts);

/** fastpath_tcp_remove() - forget a flow, watched or carried; harmless to the next flow of the same addresses */
void fastpath_tcp_remove(struct fastpath *fp, const struct fastpath_session *session, uint32_t generation);

/** fastpath_tcp_counters() - as fastpath_counters() */
const struct fast_tcp_counters *fastpath_tcp_counters(const struct fastpath *fp, uint32_t slot);

/* The sequence numbers with which the edge could speak to an end. */
struct fastpath_tcp_position {
	uint32_t seq;
	uint32_t ack;
	uint32_t timestamp; /* not older than any that the end has seen */
};

/** fastpath_tcp_position() - where a carried flow is; @ret by the direction towards the end. Return: 0; -errno. */
MUST_CHECK int fastpath_tcp_position(
	struct fastpath *fp, const struct fastpath_session *session, struct fastpath_tcp_position ret[2]);

/**
 * fastpath_tcp_probe() - ask an end of a carried flow for a sign of life: it confirms once more what it has got
 * @direction: FAST_TO_ORIGIN, FAST_TO_CLIENT: towards which end. The answer counts in the packets of the other
 * direction.
 *
 * Return: 0; -errno: not sent.
 */
MUST_CHECK int fastpath_tcp_probe(struct fastpath *fp, const struct fastpath_session *session, uint32_t direction);

/**
 * fastpath_tcp_unconfirmed() - whether the end that a direction leads to has not confirmed everything
 *
 * Return: 1, 0; -errno.
 */
MUST_CHECK int fastpath_tcp_unconfirmed(
	struct fastpath *fp, const struct fastpath_session *session, uint32_t direction);

/** fastpath_tcp_ring() - becomes readable (level-triggered) when something has happened to flows of a worker */
int fastpath_tcp_ring(const struct fastpath *fp, unsigned int worker);

/** fastpath_tcp_events() - hand all that has happened to @told, in the worker's thread */
void fastpath_tcp_events(struct fastpath *fp, unsigned int worker,
	void (*told)(void *context, uint32_t slot, uint32_t generation), void *context);
