/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of origins. Each name in use is looked up (c-ares, both families), again when its TTL is over, and after a
 * failure again soon; a failing resolver changes nothing, so the last good answer stays. A name that nobody but the
 * resolver holds any more is forgotten when its next lookup is due. Lives in the main thread, which the owner of the
 * names (edge/pools.c) is told in.
 */
#pragma once

#include "config/settings.h"
#include "io/loop.h"

struct resolver;

enum { NAME_ADDRESSES_MAX = 64 }; /* addresses of one name that are used */

/* The addresses of a name at one time. */
struct name_answer {
	unsigned int count;		   /* 1..NAME_ADDRESSES_MAX */
	struct ip ips[NAME_ADDRESSES_MAX]; /* in a fixed order */
};

struct name {
	unsigned int refs;
	const struct name_answer *answer; /* the last good one; NULL until the first has come */
	char text[];
};

struct resolver_stats {
	uint64_t lookups;
	uint64_t failures;
	unsigned int names;
	unsigned int unresolved; /* names without any answer yet */
};

/** resolver_new() - Return: 0; -ENOMEM; -EIO when c-ares can't start. */
MUST_CHECK int resolver_new(struct loop *loop, struct resolver **ret_resolver);

/** resolver_tell() - whom to tell that a name has another answer than before */
void resolver_tell(struct resolver *r, void (*changed)(void *owner, struct name *name), void *owner);

/** resolver_configure() - servers and times from a new configuration; lookups under way go on */
void resolver_configure(struct resolver *r, const struct node_settings *settings);

/**
 * resolver_name() - the name object for a text, made and looked up if it is new
 * @text: lower case, no trailing dot
 *
 * Return: a reference for the caller, for name_unref(); NULL when memory is out.
 */
struct name *resolver_name(struct resolver *r, const char *text);

/** name_unref() - NULL is accepted */
void name_unref(struct name *n);

/** resolver_stats() - for metrics; main thread */
struct resolver_stats resolver_stats(const struct resolver *r);

/** resolver_free() - NULL is accepted */
void resolver_free(struct resolver *r);
