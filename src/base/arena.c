/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BLOCK_SIZE = 64 * 1024 };

struct arena_block {
	struct arena_block *next;
	size_t used;
	size_t size;
	alignas(max_align_t) uint8_t bytes[];
};

void *arena_alloc(struct arena *a, size_t size)
{
	struct arena_block *b = a->blocks;
	size_t align = alignof(max_align_t);
	void *at;

	if (size > SIZE_MAX / 2)
		return NULL;
	size = (size + align - 1) / align * align;
	if (!b || b->size - b->used < size) {
		size_t block_size = MAX(size, (size_t)ARENA_BLOCK_SIZE);

		b = calloc(1, sizeof(*b) + block_size);
		if (!b)
			return NULL;
		b->size = block_size;
		b->next = a->blocks;
		a->blocks = b;
	}
	at = b->bytes + b->used;
	b->used += size;
	a->used_bytes += size;
	return at;
}

char *arena_strndup(struct arena *a, const char *text, size_t length)
{
	char *copy = arena_alloc(a, length + 1);

	if (copy)
		memcpy(copy, text, length);
	return copy;
}

void arena_join(struct arena *to, struct arena *from)
{
	struct arena_block **end = &to->blocks;

	while (*end)
		end = &(*end)->next;
	*end = from->blocks;
	to->used_bytes += from->used_bytes;
	*from = (struct arena){ 0 };
}

void arena_free(struct arena *a)
{
	while (a->blocks) {
		struct arena_block *next = a->blocks->next;

		free(a->blocks);
		a->blocks = next;
	}
	a->used_bytes = 0;
}
