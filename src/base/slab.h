/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of objects of one size with a fixed ceiling. The address range of the ceiling is reserved at start, memory
 * is touched only as objects come into use, and an object never moves. A freed object is the next one handed out, so
 * a load that comes and goes stays in the same pages. When the last object is given back, the pages go back to the
 * kernel. One thread owns a slab.
 */
#pragma once

#include "base/macros.h"

struct slab {
	uint8_t *base;
	size_t item_size;
	uint32_t max_items;
	uint32_t fresh;	     /* items at and after this index were never handed out (since the last trim) */
	uint32_t free_count; /* length of the free list */
	void *free_list;
};

/**
 * slab_init() - reserve room for @max_items objects
 * @item_size: rounded up to a multiple of 16, at least 16
 *
 * Return: 0; -ENOMEM.
 */
MUST_CHECK int slab_init(struct slab *s, size_t item_size, uint32_t max_items);

/** slab_deinit() - give the address range back; a zeroed slab is accepted */
void slab_deinit(struct slab *s);

/** slab_take() - an object, contents undefined; NULL when all are in use */
void *slab_take(struct slab *s);

/** slab_give() - take back an object of this slab */
void slab_give(struct slab *s, void *item);

/** slab_in_use() - how many objects are handed out */
static inline uint32_t slab_in_use(const struct slab *s)
{
	return s->fresh - s->free_count;
}

/** slab_left() - how many more slab_take() would hand out */
static inline uint32_t slab_left(const struct slab *s)
{
	return s->max_items - slab_in_use(s);
}
