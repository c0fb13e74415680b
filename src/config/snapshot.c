/* SPDX-License-Identifier: Apache-2.0 */
#include "config/snapshot.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

static void fill_ports(struct snapshot *s, size_t index)
{
	const struct rule *rule = &s->config.rules[index];

	for (size_t i = 0; i < rule->edge_ports.count; i++)
		for (unsigned int port = rule->edge_ports.items[i].first; port <= rule->edge_ports.items[i].last;
			port++)
			s->rule_at[rule->protocol][port] = (uint16_t)(index + 1);
}

int snapshot_new(struct config *set, uint64_t version, void (*release_rule)(struct snapshot_rule *rule),
	struct snapshot **ret_snapshot)
{
	struct snapshot *s = calloc(1, sizeof(*s));

	if (!s)
		return fault(-ENOMEM);
	s->rules = arena_alloc(&set->arena, MAX(set->rule_count, (size_t)1) * sizeof(*s->rules));
	if (!s->rules) {
		free(s);
		return fault(-ENOMEM);
	}
	atomic_init(&s->refs, 1);
	s->version = version;
	s->release_rule = release_rule;
	s->config = *set;
	*set = (struct config){ 0 };
	for (size_t i = 0; i < s->config.rule_count; i++) {
		s->rules[i] = (struct snapshot_rule){ .rule = &s->config.rules[i], .snapshot = s };
		fill_ports(s, i);
	}
	*ret_snapshot = s;
	return 0;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

struct snapshot *snapshot_unref(struct snapshot *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (size_t i = 0; i < s->config.rule_count; i++)
		s->release_rule(&s->rules[i]);
	config_free(&s->config);
	free(s);
	return NULL;
}
