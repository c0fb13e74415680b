/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origins that a rule's flows may go to: those of its origin group, or the addresses of the one origin that the
 * rule names itself.
 *
 * The main thread (edge/pools.c) makes a view: which addresses take new flows now, with what weight and by which
 * algorithm. A view never changes. It is mailed to every worker, and each worker keeps its own pointer to the view it
 * was given last, with its own place in the turn, so nothing here is locked. What changes more often than the
 * configuration and the answers of DNS stands in the endpoints: whether an address is up, and how many flows it has.
 */
#pragma once

#include "base/addr.h"
#include "base/clock.h"
#include "base/list.h"
#include "config/config.h"
#include "io/mailbox.h"

#include <stdatomic.h>

struct flow;

enum { POOL_MEMBERS_MAX = 1024 };

/* An address that flows go to, for as long as it belongs to its pool or has flows. Shared by all workers. */
struct endpoint {
	_Atomic uint32_t refs;
	uint32_t id;	  /* from the address: the same in every run */
	struct addr addr; /* port 0: the origin port of the rule */
	_Alignas(64) _Atomic uint32_t flows;
	_Atomic uint32_t failures; /* of flows, one after the other */
	_Atomic uint64_t flows_total;
	_Atomic bool down;
	_Atomic bool reported;	  /* the main thread knows of the failures already */
	_Atomic nsec_t recovered; /* when it came up again last; 0: it never was down */
	_Atomic nsec_t leaves;	  /* when its flows have to be over, since it was taken out; 0: it is in */
};

struct pool_member {
	struct endpoint *endpoint; /* a reference */
	uint32_t weight;	   /* never 0 */
};

struct pool_view {
	_Atomic uint32_t refs;
	enum algorithm algorithm;
	enum all_down all_down;
	nsec_t slow_start;	/* 0: none */
	uint32_t passive_fails; /* 0: failures of flows mean nothing */
	unsigned int count;
	uint32_t maglev_size;
	uint16_t *maglev; /* for source_hash, else NULL */
	struct pool_member members[];
};

/* What one worker has of a pool. */
struct pool_slot {
	struct pool_view *view; /* NULL until the first one has come */
	int64_t *turns;		/* by member: state of the smooth round robin */
	uint32_t *weights;	/* by member: for use within one choice */
	uint32_t turn;
	struct list waiting; /* TCP flows (tcp_flow.waiting) that wait for the first view */
};

struct pool {
	_Atomic uint32_t refs;
	unsigned int workers;
	uint64_t key;		  /* from the group's name, or from the origin: for session persistence */
	const char *group;	  /* name; NULL for an origin that a rule names itself. Points behind slots. */
	struct pool_slot slots[]; /* by worker; only that worker may touch it */
};

/** pool_new() - with one reference, no view yet. Return: NULL when memory is out. */
struct pool *pool_new(const char *group, uint64_t key, unsigned int workers);

/** pool_ref() - Return: @p. */
struct pool *pool_ref(struct pool *p);

/** pool_unref() - from any thread; NULL is accepted. Return: NULL. */
struct pool *pool_unref(struct pool *p);

/** endpoint_new() - with one reference. Return: NULL when memory is out. */
struct endpoint *endpoint_new(const struct addr *addr);

/** endpoint_ref() - Return: @e. */
struct endpoint *endpoint_ref(struct endpoint *e);

/** endpoint_unref() - from any thread; NULL is accepted. Return: NULL. */
struct endpoint *endpoint_unref(struct endpoint *e);

/**
 * pool_view_new() - a view, with one reference
 * @group:   its settings; NULL for an origin that a rule names itself, which has @algorithm and no others
 * @members: endpoints and weights, at most POOL_MEMBERS_MAX; references are taken
 *
 * Return: 0; -ENOMEM.
 */
MUST_CHECK int pool_view_new(const struct origin_group *group, enum algorithm algorithm,
	const struct pool_member *members, unsigned int count, struct pool_view **ret_view);

/** pool_view_same() - whether pool_view_new() would make an equal view */
bool pool_view_same(const struct pool_view *v, const struct origin_group *group, enum algorithm algorithm,
	const struct pool_member *members, unsigned int count);

/** pool_view_ref() - Return: @v. */
struct pool_view *pool_view_ref(struct pool_view *v);

/** pool_view_unref() - from any thread; NULL is accepted. Return: NULL. */
struct pool_view *pool_view_unref(struct pool_view *v);

/* What a worker needs to take a new view. Made by the main thread, so that the worker can't fail. */
struct pool_news {
	struct pool *pool;	/* a reference */
	struct pool_view *view; /* a reference */
	int64_t *turns;
	uint32_t *weights;
};

/** pool_news_init() - references are taken. Return: 0; -ENOMEM (nothing is held). */
MUST_CHECK int pool_news_init(struct pool_news *n, struct pool *pool, struct pool_view *view);

/** pool_take_news() - the worker's slot has the new view; @n is empty then. Flows that wait are woken. */
void pool_take_news(struct pool_news *n, unsigned int worker);

/** pool_news_deinit() - of news that nobody took; empty ones are accepted */
void pool_news_deinit(struct pool_news *n);

/* Origins that were tried for a flow and failed, by struct endpoint.id. */
struct tried {
	const uint32_t *ids;
	unsigned int count;
};

enum { POOL_OK, POOL_E_WAIT, POOL_E_EMPTY, POOL_E_ALL_TRIED, POOL_E_ALL_DOWN };

/**
 * pool_pick() - choose an origin for a flow, and count the flow on it
 *
 * Gives back the origin that the flow had before. With session persistence on, a client that is remembered gets the
 * same origin as long as it is one of the pool, is up and was not tried; what is chosen instead is remembered.
 *
 * Return: POOL_OK: flow->endpoint and flow->origin are set; POOL_E_WAIT: the pool has no view yet; POOL_E_EMPTY: it has
 * no origin that takes new flows; POOL_E_ALL_TRIED; POOL_E_ALL_DOWN: and the group says to refuse then.
 */
MUST_CHECK int pool_pick(struct flow *flow, struct tried tried);

/** pool_use() - the flow has @endpoint now, and no other; a reference is taken */
void pool_use(struct flow *flow, struct endpoint *endpoint);

/** pool_leave() - the flow has no origin any more; harmless when it has none */
void pool_leave(struct flow *flow);

/** pool_forget() - the flow ends: pool_leave(), and the client is remembered from now on */
void pool_forget(struct flow *flow);

/** pool_failed() - the flow's origin refused it, did not answer or is unreachable: enough of these mark it down */
void pool_failed(struct flow *flow);

/* worker -> main (struct node_state.origin_failed): flows to this origin fail, one after the other. Freed by the main
 * thread. */
struct mail_failed {
	struct mail mail;
	struct endpoint *endpoint; /* a reference */
	enum protocol protocol;
};

/** pool_count() - how many origins of the flow's pool take new flows */
unsigned int pool_count(const struct flow *flow);

/** pool_has_up() - whether any of them is up */
bool pool_has_up(const struct flow *flow);

/** pool_worked() - the flow's origin answered */
static inline void pool_worked(struct endpoint *e)
{
	if (atomic_load_explicit(&e->failures, memory_order_relaxed))
		atomic_store_explicit(&e->failures, 0, memory_order_relaxed);
}

/** endpoint_is_down() - whether new flows should go elsewhere, and UDP sessions move */
static inline bool endpoint_is_down(const struct endpoint *e)
{
	return atomic_load_explicit(&e->down, memory_order_relaxed);
}
