/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is built up piece by piece and freed whole. An all-zero arena is an empty one. */
#pragma once

#include "base/macros.h"

struct arena_block;

struct arena {
	struct arena_block *blocks;
	size_t used_bytes; /* handed out, over all blocks */
};

/** arena_alloc() - @size zeroed bytes, aligned for any type; NULL when memory is out. Lives until arena_free(). */
void *arena_alloc(struct arena *a, size_t size);

/** arena_strndup() - a NUL-terminated copy of @length bytes; NULL when memory is out */
char *arena_strndup(struct arena *a, const char *text, size_t length);

/** arena_join() - @from's memory lives as long as @to from now on; @from is empty then */
void arena_join(struct arena *to, struct arena *from);

/** arena_free() - free everything; the arena is empty then and may be used again */
void arena_free(struct arena *a);
