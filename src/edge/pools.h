/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread's side of flow/pool.h: which origins there are. It makes the views that workers choose from, anew
 * with each change of configuration and each new answer of DNS, has their addresses checked, and sees to it that the
 * flows of origins that were taken out end with the drain time.
 */
#pragma once

#include "edge/resolver.h"
#include "flow/pool.h"
#include "policy/health.h"

struct pools;
struct worker;
struct node_state;

/** pools_new() - @node: with the number of workers. Return: 0; -ENOMEM. */
MUST_CHECK int pools_new(
	struct loop *loop, struct node_state *node, struct resolver *resolver, struct pools **ret_pools);

/** pools_workers() - the workers that views go to from now on; before, they are put in place directly */
void pools_workers(struct pools *p, struct worker **workers);

/**
 * pools_prepare() - first step of a change: take note of what @config says of each pool
 *
 * Return: 0: pools_commit() or pools_abort() has to follow; -ENOMEM (as after pools_abort()).
 */
MUST_CHECK int pools_prepare(struct pools *p, const struct config *config);

/** pools_of() - the pool of a rule, between pools_prepare() and the end of the change. Return: a new reference. */
struct pool *pools_of(struct pools *p, const struct rule *rule);

/** pools_commit() - the change holds: mail the views. @drain: how long flows of origins taken out may go on */
void pools_commit(struct pools *p, nsec_t drain);

/** pools_abort() - it does not */
void pools_abort(struct pools *p);

/** pools_origin_failed() - flows to an origin fail. Takes @m and frees it. */
void pools_origin_failed(struct pools *p, struct mail_failed *m);

/* An origin of a group, as it is now. */
struct origin_status {
	const char *group;
	struct addr addr; /* port 0: the rule's */
	bool enabled;	  /* takes new flows; else those that it has drain */
	bool checked;
	bool down;
	enum health_reason reason; /* why it is as it is */
	nsec_t since;		   /* when it became so */
	nsec_t latency;		   /* of the last check that succeeded; 0: none has */
	uint64_t probes;
	uint64_t probes_failed;
	uint64_t changes; /* of its state */
	uint32_t flows;
	uint64_t flows_total;
};

/** pools_each() - call @each with every origin of every group; from any thread, which must not call back */
void pools_each(struct pools *p, void (*each)(const struct origin_status *s, void *arg), void *arg);

/** pools_free() - the workers have ended; NULL is accepted */
void pools_free(struct pools *p);
