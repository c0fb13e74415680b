/* SPDX-License-Identifier: Apache-2.0 */
#include "config/access.h"
#include "base/error.h"
#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>

enum { ALLOW = 1, DENY = 2 }; /* of equal prefixes the higher one holds */

static uint64_t hash_lists(const struct ip_list *const *lists, size_t count, uint64_t seed)
{
	for (size_t i = 0; i < count; i++)
		seed = hash_bytes(&lists[i]->hash, sizeof(lists[i]->hash), seed + 1);
	return seed;
}

static size_t count_lists(const struct ip_list *const *lists, size_t count)
{
	size_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += lists[i]->count;
	return sum;
}

static struct prefix_item *put_lists(
	struct prefix_item *at, const struct ip_list *const *lists, size_t count, uint8_t verdict)
{
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < lists[i]->count; j++)
			*at++ = (struct prefix_item){ .prefix = lists[i]->items[j], .verdict = verdict };
	return at;
}

static int build(const struct access *access, struct access_set *s)
{
	struct prefix_item *items = malloc(MAX(s->count, (size_t)1) * sizeof(*items)), *at;
	int r;

	if (!items)
		return fault(-ENOMEM);
	at = put_lists(items, access->allow, access->allow_count, ALLOW);
	put_lists(at, access->deny, access->deny_count, DENY);
	r = prefix_set_new(items, s->count, &s->prefixes);
	free(items);
	return r;
}

static int cache_add(struct access_cache *cache, struct access_set *s)
{
	if (cache->count == cache->room) {
		size_t room = MAX(cache->room * 2, (size_t)16);
		struct access_set **sets = realloc(cache->sets, room * sizeof(struct access_set *));

		if (!sets)
			return fault(-ENOMEM);
		cache->sets = sets;
		cache->room = room;
	}
	cache->sets[cache->count++] = s;
	return 0;
}

static struct access_set *access_set_ref(struct access_set *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

int access_set_get(struct access_cache *cache, const struct access *access, struct access_set **ret_set)
{
	uint64_t hash =
		hash_lists(access->deny, access->deny_count, hash_lists(access->allow, access->allow_count, 0) + 1);
	size_t count = count_lists(access->allow, access->allow_count) + count_lists(access->deny, access->deny_count);
	bool otherwise_allowed = access->allow_count == 0;
	struct access_set *s;
	int r;

	if (access->allow_count + access->deny_count == 0) {
		*ret_set = NULL;
		return 0;
	}
	for (size_t i = 0; i < cache->count; i++) {
		s = cache->sets[i];
		if (s->hash == hash && s->count == count && s->otherwise_allowed == otherwise_allowed) {
			*ret_set = access_set_ref(s);
			return 0;
		}
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return fault(-ENOMEM);
	atomic_init(&s->refs, 1);
	s->hash = hash;
	s->count = count;
	s->otherwise_allowed = otherwise_allowed;
	r = build(access, s);
	if (r == 0)
		r = cache_add(cache, s);
	if (r) {
		access_set_unref(s);
		return r;
	}
	*ret_set = access_set_ref(s);
	return 0;
}

struct access_set *access_set_unref(struct access_set *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	prefix_set_free(s->prefixes);
	free(s);
	return NULL;
}

bool access_allows(const struct access_set *s, const struct ip *client)
{
	uint8_t verdict;

	if (!s)
		return true;
	if (prefix_set_find(s->prefixes, client, &verdict) != PREFIX_SET_OK)
		return s->otherwise_allowed;
	return verdict == ALLOW;
}

void access_cache_sweep(struct access_cache *cache)
{
	size_t kept = 0;

	for (size_t i = 0; i < cache->count; i++) {
		if (atomic_load(&cache->sets[i]->refs) == 1)
			access_set_unref(cache->sets[i]);
		else
			cache->sets[kept++] = cache->sets[i];
	}
	cache->count = kept;
}

void access_cache_deinit(struct access_cache *cache)
{
	for (size_t i = 0; i < cache->count; i++)
		access_set_unref(cache->sets[i]);
	free(cache->sets);
	*cache = (struct access_cache){ 0 };
}
