/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded reading and writing of wire bytes. A reader or writer that runs out of room fails for good: ok becomes
 * false and stays so, and later calls do nothing. So a codec may do all its steps and look at ok once. No pointer is
 * ever cast onto wire bytes.
 */
#pragma once

#include "base/macros.h"

#include <string.h>

struct buf_reader {
	const uint8_t *pos;
	const uint8_t *end;
	bool ok;
};

struct buf_writer {
	uint8_t *pos;
	uint8_t *end;
	bool ok;
};

static inline struct buf_reader buf_reader(const void *bytes, size_t length)
{
	return (struct buf_reader){ .pos = bytes, .end = (const uint8_t *)bytes + length, .ok = true };
}

static inline size_t buf_left(const struct buf_reader *r)
{
	return (size_t)(r->end - r->pos);
}

/** buf_take() - the next @n bytes in place, or NULL (and ok = false) if fewer are left */
static inline const uint8_t *buf_take(struct buf_reader *r, size_t n)
{
	const uint8_t *at = r->pos;

	if (!r->ok || buf_left(r) < n) {
		r->ok = false;
		return NULL;
	}
	r->pos += n;
	return at;
}

/** buf_u8() - read a byte; 0 when there is none */
static inline uint8_t buf_u8(struct buf_reader *r)
{
	const uint8_t *at = buf_take(r, 1);

	return at ? *at : 0;
}

/** buf_be16() - read a big-endian 16-bit number into host order; 0 when there is none */
static inline uint16_t buf_be16(struct buf_reader *r)
{
	const uint8_t *at = buf_take(r, 2);

	return at ? (uint16_t)((unsigned int)at[0] << 8 | at[1]) : 0;
}

/** buf_bytes() - copy @n bytes out; @out is untouched when fewer are left */
static inline void buf_bytes(struct buf_reader *r, void *out, size_t n)
{
	const uint8_t *at = buf_take(r, n);

	if (at)
		memcpy(out, at, n);
}

static inline struct buf_writer buf_writer(void *bytes, size_t size)
{
	return (struct buf_writer){ .pos = bytes, .end = (uint8_t *)bytes + size, .ok = true };
}

/** buf_put() - append @n bytes */
static inline void buf_put(struct buf_writer *w, const void *bytes, size_t n)
{
	if (!w->ok || (size_t)(w->end - w->pos) < n) {
		w->ok = false;
		return;
	}
	memcpy(w->pos, bytes, n);
	w->pos += n;
}

/** buf_put_u8() - append a byte */
static inline void buf_put_u8(struct buf_writer *w, uint8_t value)
{
	buf_put(w, &value, 1);
}

/** buf_put_be16() - append a number, most significant byte first */
static inline void buf_put_be16(struct buf_writer *w, uint16_t value)
{
	buf_put(w, (uint8_t[]){ (uint8_t)(value >> 8), (uint8_t)value }, 2);
}
