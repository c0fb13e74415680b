/* SPDX-License-Identifier: Apache-2.0 */
/* A UDP session, for udp_flow.c, which carries it, and udp_fast.c, which lets the kernel carry it. */
#pragma once

#include "bpf/fastpath/fastpath.h"
#include "flow/flow.h"
#include "flow/udp_reply.h"

enum { SESSION_TRIED_MAX = 8 };

/* A session's place on the kernel's fast path. */
struct udp_fast {
	struct list node; /* in flow_env.fast_sessions while the kernel carries the session */
	bool observed;	  /* the program looks whether its packets come by */
	bool refused;	  /* it can't be carried: not asked again */
	nsec_t since;
	uint64_t observed_from;	   /* datagrams of the client when that began */
	struct addr local;	   /* of the session's socket */
	struct fast_counters seen; /* what has been taken over into the flow's counters */
};

struct udp_session {
	struct flow flow;
	struct source source;
	struct timer timer;
	struct grave grave;
	struct udp_session *hash_next;
	uint64_t hash;
	struct udp_reply *reply;
	struct udp_fast fast;
	uint32_t tried[SESSION_TRIED_MAX]; /* origins that it had, by struct endpoint.id */
	uint8_t tried_count;
	nsec_t last_activity;
	int fd;		    /* connected to the origin */
	uint8_t read_size;  /* datagrams to ask for at once */
	uint32_t read_turn; /* of the loop, in which one was read */
	bool answered;	    /* by the present origin */
	bool announced;	    /* the present origin has got a PROXY header */
	bool unreachable;   /* ICMP says that the present origin is not there */
	bool no_gso;	    /* the path refuses segmentation */
	bool ended;
	/* within one batch from a listener: */
	uint8_t batch_first;
	uint8_t batch_last;
	uint8_t batch_count; /* 0: not in the batch */
	struct udp_session *batch_next;
};

/**
 * udp_fast_consider() - datagrams of the client went through user space: maybe the kernel can carry the next ones
 * @pause: how long nothing had moved before them
 */
void udp_fast_consider(struct udp_session *s, nsec_t pause);

/** udp_fast_leave() - take the session back to user space and its last counts over; harmless when it is here */
void udp_fast_leave(struct udp_session *s);

/** udp_fast_sync() - take over what the kernel has counted: bytes, datagrams, last activity */
void udp_fast_sync(struct udp_session *s);

/** udp_session_index() - a number below the worker's limit of sessions that no other session of the worker has */
uint32_t udp_session_index(const struct udp_session *s);
