/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A TCP flow: the client's connection, the one to the origin, and what goes between them. It walks through the stages
 * of tables/stage.def; each is one function, in the file that the table names. tcp_flow.c drives them.
 *
 * The loop is edge-triggered, so a side remembers what it was told: `readable` until a read comes back short,
 * `writable` until a write does. An idle flow holds this struct and two sockets, and no buffer.
 */
#pragma once

#include "flow/flow.h"

enum tcp_stage {
#define STAGE(id, ...) TCP_STAGE_##id,
#include "tables/stage.def"
	TCP_STAGE_N
};

/* What a stage answers. */
enum step {
	STEP_NEXT,   /* done: on to the next stage */
	STEP_REPICK, /* this origin address failed before a byte was sent: try another */
	STEP_WAIT,   /* the loop or a timer will call again */
	STEP_END,    /* tcp_end() has said why */
	STEP_GONE,   /* the flow is freed: touch nothing */
};

enum side_id { SIDE_CLIENT, SIDE_ORIGIN, SIDE_N };

struct chunk;

struct tcp_side {
	struct source source;
	struct chunk *pending; /* bytes that wait to be written to this side, oldest first */
	struct chunk *pending_last;
	int fd;
	bool readable;
	bool writable;
	bool half_closed; /* the kernel has said that the peer's FIN is here: a short read is the last one */
	bool urgent;	  /* urgent data was seen: reads stop at its mark, so a short read means nothing */
	bool eof;	  /* all the peer's bytes were read */
	bool shut;	  /* our FIN is sent */
	bool failed;	  /* the kernel reports an error */
};

struct tcp_flow {
	struct flow flow;
	struct tcp_side side[SIDE_N];
	struct timer timer; /* of the present stage: PROXY header, connect, keep-alive and idle */
	struct grave grave;
	struct list waiting; /* in pool_slot.waiting while the origin's name has no answer */
	union {
		/* until the origin is connected: those that failed, by struct endpoint.id; as many as tries */
		uint32_t tried[CONNECT_TRIES_MAX - 1];
		/* from then on (tcp_fast.c) */
		struct {
			uint64_t carried;  /* by the relay, with a minimum for each read */
			uint64_t fast_due; /* what it must be for the next attempt at the kernel's fast path */
			nsec_t fast_not_before;
			struct tcp_fast_slot *fast; /* its place there; NULL: none */
		};
	};
	nsec_t last_activity;
	nsec_t connect_start;
	uint8_t stage;	      /* enum tcp_stage */
	uint8_t end;	      /* enum end_reason, from tcp_end() */
	uint8_t end_side;     /* enum end_side */
	uint8_t first_eof;    /* enum side_id: who closed first; SIDE_N: nobody yet */
	uint8_t tries;	      /* connection attempts made */
	uint8_t last_failure; /* enum end_reason: of the last attempt */
	uint8_t fast_attempts;
	bool toa; /* the connection to the origin was given the option of pass mode toa */
	bool keepalive_set;
	bool timed_out; /* the timer has fired and the stage has not looked yet */
};

/**
 * tcp_flow_start() - take over a connection that was accepted for a port of @rule
 * @fd:   the client's connection; the flow owns it from now on
 * @edge: which of our addresses it came to
 *
 * Room on the node was taken by node_admit(env, TCP_FLOW_FDS). On any failure the connection is answered with RST and
 * counted.
 */
void tcp_flow_start(
	struct flow_env *env, struct snapshot_rule *rule, int fd, const struct addr *client, const struct addr *edge);

enum {
	TCP_FLOW_FDS = 2,
	KEEPALIVE_PROBES = 4, /* a peer that answers none is lost; */
	KEEPALIVE_PART = 4,   /* they are this part of the setting apart, and a second at least */
};

/** tcp_flow_wake() - the pool that a flow waits for has a view; @waiting is its tcp_flow.waiting */
void tcp_flow_wake(struct list *waiting);

/** tcp_end() - note why the flow ends; @side as in flow_finish(). Return: STEP_END. */
enum step tcp_end(struct tcp_flow *f, enum end_reason why, enum end_side side);

/** tcp_end_of_error() - the reason for a socket error of a side during relay or announce. Return: STEP_END. */
enum step tcp_end_of_error(struct tcp_flow *f, enum side_id side, int error);

/** tcp_timer() - (re)start the flow's timer for @ms from now */
void tcp_timer(struct tcp_flow *f, int64_t ms);

/** side_watch() - put a side's fd into the loop. Return: 0; -errno. */
MUST_CHECK int side_watch(struct tcp_flow *f, enum side_id side, int fd);

/** side_keep() - keep bytes that a side did not take; false when the pool has no room for them */
MUST_CHECK bool side_keep(struct tcp_flow *f, enum side_id side, const uint8_t *bytes, size_t length);

/** relay_flush() - write what is kept for a side, as far as it takes it. Return: 0; -errno. */
MUST_CHECK int relay_flush(struct tcp_flow *f, enum side_id side);

/** relay_count() - bytes of a side were taken over */
void relay_count(struct tcp_flow *f, enum side_id from, size_t bytes);

/** side_drop_pending() - free what is kept */
void side_drop_pending(struct tcp_flow *f, enum side_id side);

/* The stages. */
#define STAGE(id, function, ...) enum step function(struct tcp_flow *f);
#include "tables/stage.def"
