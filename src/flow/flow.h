/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What TCP flows and UDP sessions have in common: who, under which rule, how much, and how it ended; and the
 * environment that a worker gives them. Everything here belongs to one worker's thread, but for what struct
 * node_state and the rule states share over all of them.
 */
#pragma once

#include "base/list.h"
#include "base/log.h"
#include "base/slab.h"
#include "config/snapshot.h"
#include "flow/pool.h"
#include "flow/rule_state.h"
#include "io/loop.h"
#include "policy/limit.h"
#include "policy/persist.h"

struct flow_log;
struct udp_table;
struct fastpath;
struct toa_send;
struct flow;

/* Shared by all workers: the ceilings of the node, and who uses how much of them. */
struct node_state {
	struct client_table clients;
	struct persist_table persist;
	struct mailbox *main;				    /* of the main thread */
	void (*origin_failed)(struct mail *mail, void *to); /* deliver of a struct mail_failed */
	uint64_t hash_key;
	unsigned int workers;
	struct toa_send *toa; /* gives connections to origins the option of pass mode toa; NULL: it can't be had */
	uint32_t fd_max;      /* file descriptors that flows may use, all workers together */
	_Alignas(64) _Atomic uint32_t fds;
	_Atomic uint32_t flows;
	struct log_limit refusals[END_N];
};

enum {
	RELAY_BUFFER_SIZE = 4 << 20, /* measured: added cost falls with every doubling up to here */
	CHUNK_SIZE = 16 << 10,
	CHUNK_POOL_BYTES = 64 << 20, /* a worker keeps at most this much for slow readers */
};

/* A worker's environment for its flows. */
struct flow_env {
	struct loop loop;
	unsigned int worker;
	struct snapshot *snapshot;
	struct node_state *node;
	struct flow_log *log;
	uint8_t *scratch; /* RELAY_BUFFER_SIZE bytes that every callback may use, and must not expect anything of */
	struct slab tcp_flows;
	struct slab chunks;
	struct list flows; /* struct flow.all: all flows of this worker */
	uint64_t next_number;
	struct udp_table *udp;
	struct fastpath *fastpath; /* shared by the workers; NULL: UDP stays in user space */
	struct list fast_sessions; /* struct udp_session.fast: those that the kernel carries */
	struct timer fast_timer;   /* reads their counters */
	struct tcp_fast *tcp_fast; /* NULL: TCP stays in user space */
	counter tcp_fast_flows;	   /* that the kernel carries now */
	uint32_t route_changes;	   /* how often they have changed */
	int route_fd;		   /* for route_lookup() */
	int route_watch_fd;
	struct source routes; /* routes have changed */
	bool routes_changed;  /* since the last sweep */
	bool stopping;	      /* no new flows */
	counter counters[COUNTER_N];
	counter dropped[DROP_N]; /* datagrams of no rule */
	counter refused[END_N];	 /* connections of no rule, or before one was looked for */
};

/* What differs between TCP flows and UDP sessions. */
struct flow_kind {
	void (*end_now)(struct flow *flow, enum end_reason why); /* ends and frees it */
	void (*look_at_time)(struct flow *flow);		 /* time-outs have changed: let the timer look again */
};

struct flow {
	struct list all;
	struct flow_env *env;
	struct snapshot_rule *rule;
	const struct flow_kind *kind;
	struct addr client;
	struct addr edge;
	struct addr origin;	   /* all zero until one is chosen */
	struct endpoint *endpoint; /* that origin; a reference and one of its flows; NULL while it has none */
	nsec_t start;		   /* monotonic */
	uint64_t number;	   /* unique over the worker's life */
	counter bytes_in;	   /* from the client, headers of ours not counted */
	counter bytes_out;	   /* to the client */
	uint64_t datagrams_in;
	uint64_t datagrams_out;
	uint32_t connect_us;   /* of the connection to the origin */
	uint32_t client_slot;  /* CLIENT_NONE until admitted */
	uint32_t persist_slot; /* PERSIST_NONE unless session persistence holds the client */
	uint16_t rule_port;    /* edge port under which the rule has it; differs from edge.port behind a balancer */
	uint8_t fds;	       /* file descriptors accounted for */
	bool connected;	       /* connect_us means something */
	bool draining;	       /* its rule is gone: the flow itself holds a reference to its snapshot */
};

/** flow_stats() - this worker's counters of the flow's rule */
static inline struct rule_stats *flow_stats(const struct flow *f)
{
	return &f->rule->state->stats[f->env->worker];
}

/**
 * node_admit() - take room on the node for one more flow
 * @fds:         file descriptors it needs
 * @ret_refused: on refusal, the limit that was met
 *
 * Return: true when there was room; give it back with node_leave().
 */
MUST_CHECK bool node_admit(struct flow_env *env, uint32_t fds, enum end_reason *ret_refused);

/** node_say_full() - a message, once in a while, that the node's limit @why refuses connections */
void node_say_full(struct flow_env *env, enum end_reason why);

/** node_leave() - the room taken by node_admit() */
void node_leave(struct flow_env *env, uint32_t fds);

/**
 * flow_init() - a flow that has room on the node, but is not admitted by its rule yet
 * @fds: as given to node_admit(); flow_finish() gives it back
 */
void flow_init(struct flow *f, struct flow_env *env, struct snapshot_rule *rule, const struct addr *client,
	const struct addr *edge, uint32_t fds, const struct flow_kind *kind);

/**
 * flow_admit() - count the flow against the limits of its rule and client
 * @ret_refused: on refusal, the limit that was met
 *
 * Return: true when it may go on.
 */
MUST_CHECK bool flow_admit(struct flow *f, enum end_reason *ret_refused);

/**
 * flow_finish() - the end of every flow: counters, the log line, and what it held given back
 * @side: who caused it; for END_DONE the side that closed first, else END_SIDE_FIRST to take it from the table
 */
void flow_finish(struct flow *f, enum end_reason why, enum end_side side);

/**
 * flow_move() - a new snapshot is in force: go on under its rule for this port, or begin to drain
 * @next: the new snapshot
 *
 * Return: true when the flow drains (it did already, or does now).
 */
bool flow_move(struct flow *f, struct snapshot *next);

/** flow_in(), flow_out() - count payload bytes from and to the client */
static inline void flow_in(struct flow *f, uint64_t bytes)
{
	counter_add(&f->bytes_in, bytes);
	counter_add(&flow_stats(f)->bytes_in, bytes);
}

static inline void flow_out(struct flow *f, uint64_t bytes)
{
	counter_add(&f->bytes_out, bytes);
	counter_add(&flow_stats(f)->bytes_out, bytes);
}

/** env_count() - count an event of the worker */
static inline void env_count(struct flow_env *env, enum counter_id id)
{
	counter_add(&env->counters[id], 1);
}
