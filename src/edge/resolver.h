/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of origins. Each name in use is looked up (c-ares, both families), again when its TTL is over, and after a
 * failure again soon; a failing resolver changes nothing, so the last good answer stays. A name that nobody but the
 * resolver holds any more is forgotten when its next lookup is due. Answers go to the workers by
 * mail. Lives in the main thread.
 */
#pragma once

#include "config/settings.h"
#include "flow/name.h"
#include "io/loop.h"

struct resolver;
struct worker;

struct resolver_stats {
	uint64_t lookups;
	uint64_t failures;
	unsigned int names;
	unsigned int unresolved; /* names without any answer yet */
};

/** resolver_new() - Return: 0; -ENOMEM; -EIO when c-ares can't start. */
MUST_CHECK int resolver_new(struct loop *loop, unsigned int workers, struct resolver **ret_resolver);

/** resolver_workers() - to whom answers go; until then they are kept */
void resolver_workers(struct resolver *r, struct worker **workers);

/** resolver_configure() - servers and times from a new configuration; lookups under way go on */
void resolver_configure(struct resolver *r, const struct node_settings *settings);

/**
 * resolver_name() - the name object for a text, made and looked up if it is new
 * @text: lower case, no trailing dot
 *
 * Return: a reference for the caller; NULL when memory is out.
 */
struct name *resolver_name(struct resolver *r, const char *text);

/** resolver_stats() - for metrics; main thread */
struct resolver_stats resolver_stats(const struct resolver *r);

/** resolver_free() - NULL is accepted */
void resolver_free(struct resolver *r);
