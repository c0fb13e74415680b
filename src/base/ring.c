/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ring.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int ring_init(struct ring *r, size_t size)
{
	void *bytes;

	ASSERT(size && (size & (size - 1)) == 0);
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bytes == MAP_FAILED)
		return fault(-ENOMEM);
	r->bytes = bytes;
	r->size = size;
	atomic_init(&r->head, 0);
	atomic_init(&r->tail, 0);
	return 0;
}

void ring_deinit(struct ring *r)
{
	if (r->bytes)
		munmap(r->bytes, r->size);
	r->bytes = NULL;
}

bool ring_write(struct ring *r, const void *bytes, size_t length)
{
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	size_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	size_t at = head & (r->size - 1);
	size_t first = MIN(length, r->size - at);

	if (length > r->size - (head - tail))
		return false;
	memcpy(r->bytes + at, bytes, first);
	memcpy(r->bytes, (const uint8_t *)bytes + first, length - first);
	atomic_store_explicit(&r->head, head + length, memory_order_release);
	return true;
}

size_t ring_peek(struct ring *r, const uint8_t **ret_bytes)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	size_t head = atomic_load_explicit(&r->head, memory_order_acquire);
	size_t at = tail & (r->size - 1);

	*ret_bytes = r->bytes + at;
	return MIN(head - tail, r->size - at);
}

void ring_skip(struct ring *r, size_t length)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	atomic_store_explicit(&r->tail, tail + length, memory_order_release);
}
