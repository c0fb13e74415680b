/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/rule_state.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

struct rule_state *rule_state_new(const char *id, unsigned int workers)
{
	size_t size = sizeof(struct rule_state) + workers * sizeof(struct rule_stats);
	struct rule_state *s = aligned_alloc(64, (size + 63) / 64 * 64);

	if (!s)
		return NULL;
	memset(s, 0, size);
	atomic_init(&s->refs, 1);
	s->workers = workers;
	s->key = hash_bytes(id, strlen(id), 0);
	memccpy(s->id, id, 0, sizeof(s->id) - 1);
	return s;
}

struct rule_state *rule_state_ref(struct rule_state *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

struct rule_state *rule_state_unref(struct rule_state *s)
{
	if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
		free(s);
	return NULL;
}
