/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building text. A text is either fixed (a caller's array, which it never outgrows) or growing (heap, up to a
 * ceiling). When something does not fit, ok becomes false and stays so; what was written before is kept and
 * NUL-terminated.
 */
#pragma once

#include "base/macros.h"

struct text {
	char *bytes;
	size_t length;
	size_t size; /* room, terminating NUL included */
	size_t max;  /* growing: ceiling of size; fixed: 0 */
	bool ok;
};

/** text_fixed() - a text in @bytes of @size (at least 1) bytes */
struct text text_fixed(char *bytes, size_t size);

/** text_growing() - a text on the heap that never takes more than @max bytes; free with text_free() */
struct text text_growing(size_t max);

/** text_free() - free a growing text */
void text_free(struct text *t);

/** text_put() - append bytes */
void text_put(struct text *t, const char *bytes, size_t length);

/** text_str() - append a NUL-terminated string */
void text_str(struct text *t, const char *string);

/** text_u64() - append a decimal number */
void text_u64(struct text *t, uint64_t number);

/** text_printf() - append formatted text */
PRINTF(2, 3) void text_printf(struct text *t, const char *format, ...);

/** text_json() - append a JSON string with its quotes; invalid UTF-8 becomes U+FFFD, so the result is always JSON */
void text_json(struct text *t, const char *string, size_t length);

/**
 * utf8_next() - the length of the first character
 *
 * Return: 1-4; 0 when @length is 0 or the bytes are not well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms).
 */
size_t utf8_next(const char *bytes, size_t length);

/**
 * utf8_printable() - utf8_next() for text that people will see: 0 for control characters (U+0000-1F, U+007F-9F) too,
 * which a terminal would obey
 */
size_t utf8_printable(const char *bytes, size_t length);
