/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rule has that outlives a change of configuration: its limits' present state and its counters. A rule with the
 * same id in the next snapshot goes on with the same state, so that nothing is forgotten over a reload.
 */
#pragma once

#include "config/config.h"
#include "flow/stats.h"
#include "policy/limit.h"

struct rule_state {
	_Atomic uint32_t refs;
	char id[RULE_ID_SIZE];
	uint64_t key;			      /* differs from rule to rule: part of client_key() */
	_Alignas(64) _Atomic uint32_t active; /* over all workers */
	struct rate rate;
	unsigned int workers;
	struct rule_stats stats[]; /* by worker */
};

/** rule_state_new() - with one reference. Return: NULL when memory is out. */
struct rule_state *rule_state_new(const char *id, unsigned int workers);

/** rule_state_ref() - Return: @s. */
struct rule_state *rule_state_ref(struct rule_state *s);

/** rule_state_unref() - from any thread; NULL is accepted. Return: NULL. */
struct rule_state *rule_state_unref(struct rule_state *s);
