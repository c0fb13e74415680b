/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IP lists in the form that clients are looked up in. The allow and deny lists of a proxy or a rule become one set, in
 * which the longest prefix that has the client decides, and deny at equal length. A client that no prefix has is
 * allowed, unless there is an allow list. Never changes once made; proxies, rules and snapshots with the same lists
 * share it.
 */
#pragma once

#include "base/prefix_set.h"
#include "config/config.h"

#include <stdatomic.h>

struct access_set {
	_Atomic uint32_t refs;
	bool otherwise_allowed; /* a client that no prefix has */
	uint64_t hash;		/* of the lists' contents */
	size_t count;		/* prefixes given */
	struct prefix_set *prefixes;
};

/* The sets that there are, so that lists which stay the same are not built anew. An all-zero cache is an empty one. */
struct access_cache {
	struct access_set **sets; /* a reference each */
	size_t count;
	size_t room;
};

/**
 * access_set_get() - the set of @access: one that the cache has, or a new one
 * @ret_set: a new reference; NULL when @access has no lists, and everybody is allowed
 *
 * Return: 0; -ENOMEM.
 */
MUST_CHECK int access_set_get(struct access_cache *cache, const struct access *access, struct access_set **ret_set);

/** access_set_unref() - from any thread; NULL is accepted. Return: NULL. */
struct access_set *access_set_unref(struct access_set *s);

/** access_allows() - whether a client may come in; NULL allows everybody */
bool access_allows(const struct access_set *s, const struct ip *client);

/** access_cache_sweep() - let go of sets that only the cache refers to */
void access_cache_sweep(struct access_cache *cache);

/** access_cache_deinit() - an all-zero cache is accepted */
void access_cache_deinit(struct access_cache *cache);
