/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slab.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(at, n)	ASAN_POISON_MEMORY_REGION((at), (n))
#define UNPOISON(at, n) ASAN_UNPOISON_MEMORY_REGION((at), (n))
#else
#define POISON(at, n)	((void)(at), (void)(n))
#define UNPOISON(at, n) ((void)(at), (void)(n))
#endif

enum {
	SLAB_ALIGN = 16,
	SLAB_TRIM_BYTES = 1 << 20, /* less than this is not worth a system call and new page faults */
};

int slab_init(struct slab *s, size_t item_size, uint32_t max_items)
{
	size_t size = MAX((item_size + SLAB_ALIGN - 1) / SLAB_ALIGN * SLAB_ALIGN, (size_t)SLAB_ALIGN);
	void *base;

	base = mmap(NULL, size * MAX(max_items, 1u), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return fault(-ENOMEM);
	*s = (struct slab){ .base = base, .item_size = size, .max_items = max_items };
	POISON(base, size * max_items);
	return 0;
}

void slab_deinit(struct slab *s)
{
	if (s->base) {
		UNPOISON(s->base, s->item_size * s->max_items);
		munmap(s->base, s->item_size * MAX(s->max_items, 1u));
	}
	*s = (struct slab){ 0 };
}

void *slab_take(struct slab *s)
{
	void *item = s->free_list;

	if (item) {
		UNPOISON(item, s->item_size);
		memcpy(&s->free_list, item, sizeof(void *));
		s->free_count--;
		return item;
	}
	if (s->fresh == s->max_items)
		return NULL;
	item = s->base + s->item_size * s->fresh++;
	UNPOISON(item, s->item_size);
	return item;
}

void slab_give(struct slab *s, void *item)
{
	size_t at = (size_t)((uint8_t *)item - s->base);

	ASSERT(at % s->item_size == 0 && at / s->item_size < s->fresh);
	memcpy(item, &s->free_list, sizeof(void *));
	s->free_list = item;
	s->free_count++;
	POISON(item, s->item_size);
	if (s->free_count == s->fresh && s->fresh * s->item_size >= SLAB_TRIM_BYTES) {
		UNPOISON(s->base, s->item_size * s->fresh);
		madvise(s->base, s->item_size * s->fresh, MADV_DONTNEED);
		POISON(s->base, s->item_size * s->fresh);
		s->fresh = 0;
		s->free_count = 0;
		s->free_list = NULL;
	}
}
