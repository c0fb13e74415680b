/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot is one whole configuration in the form that workers look things up in. It never changes once it is
 * published. Each worker that serves it and each flow that still runs under a rule which a newer snapshot no longer
 * has holds a reference; with the last one it is freed, its rules' states and pools with it.
 */
#pragma once

#include "config/access.h"

#include <stdatomic.h>

struct rule_state; /* flow/rule_state.h: limits and counters, shared by the snapshots that have the rule */
struct pool;	   /* flow/pool.h: the origins that the rule's flows may go to */
struct snapshot;

struct snapshot_rule {
	const struct rule *rule;
	struct snapshot *snapshot;
	struct rule_state *state;     /* a counted reference */
	struct pool *pool;	      /* a counted reference */
	struct access_set *access[2]; /* of the proxy and of the rule: a client has to be let in by both */
	uint64_t proxy_key;	      /* differs from proxy to proxy: session persistence is by proxy */
};

struct snapshot {
	_Atomic uint32_t refs;
	uint64_t version;
	struct config config;
	struct snapshot_rule *rules; /* set.rule_count of them */
	/* called before the memory goes, to let go of states and pools */
	void (*release_rule)(struct snapshot_rule *rule);
	uint16_t rule_at[PROTOCOL_N][1 << 16]; /* by edge port: index into rules + 1, or 0 */
};

/**
 * snapshot_new() - build the lookup tables over a rule set
 * @set:          taken over (left all-zero) on success
 * @release_rule: see struct snapshot; states and pools start as NULL
 *
 * Return: 0, with one reference held by the caller; -ENOMEM.
 */
MUST_CHECK int snapshot_new(struct config *set, uint64_t version, void (*release_rule)(struct snapshot_rule *rule),
	struct snapshot **ret_snapshot);

/** snapshot_ref() - one more reference. Return: @s. */
struct snapshot *snapshot_ref(struct snapshot *s);

/** snapshot_unref() - let go of a reference, from any thread; NULL is accepted. Return: NULL. */
struct snapshot *snapshot_unref(struct snapshot *s);

/** snapshot_find() - the rule that has an edge port, or NULL */
static inline struct snapshot_rule *snapshot_find(const struct snapshot *s, enum protocol protocol, uint16_t port)
{
	uint16_t index = s->rule_at[protocol][port];

	return index ? &s->rules[index - 1] : NULL;
}
