/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text text_fixed(char *bytes, size_t size)
{
	bytes[0] = 0;
	return (struct text){ .bytes = bytes, .size = size, .ok = true };
}

struct text text_growing(size_t max)
{
	return (struct text){ .max = max, .ok = true };
}

void text_free(struct text *t)
{
	if (t->max)
		free(t->bytes);
	*t = (struct text){ 0 };
}

/* Room for @more bytes and a NUL, or false. */
static bool text_reserve(struct text *t, size_t more)
{
	size_t need = t->length + more + 1, size = t->size;
	char *bytes;

	if (!t->ok)
		return false;
	if (need <= t->size)
		return true;
	if (need > t->max) {
		t->ok = false;
		return false;
	}
	while (size < need)
		size = size ? size * 2 : 256;
	size = MIN(size, t->max);
	bytes = realloc(t->bytes, size);
	if (!bytes) {
		t->ok = false;
		return false;
	}
	t->bytes = bytes;
	t->size = size;
	return true;
}

void text_put(struct text *t, const char *bytes, size_t length)
{
	if (!text_reserve(t, length))
		return;
	memcpy(t->bytes + t->length, bytes, length);
	t->length += length;
	t->bytes[t->length] = 0;
}

void text_str(struct text *t, const char *string)
{
	text_put(t, string, strlen(string));
}

void text_u64(struct text *t, uint64_t number)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	text_put(t, digits + at, sizeof(digits) - at);
}

void text_printf(struct text *t, const char *format, ...)
{
	char line[512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (n < 0)
		return;
	if ((size_t)n < sizeof(line)) {
		text_put(t, line, (size_t)n);
		return;
	}
	if (!text_reserve(t, (size_t)n))
		return;
	va_start(args, format);
	vsnprintf(t->bytes + t->length, (size_t)n + 1, format, args);
	va_end(args);
	t->length += (size_t)n;
}

size_t utf8_next(const char *bytes, size_t length)
{
	const uint8_t *b = (const uint8_t *)bytes;
	uint8_t low = 0x80, high = 0xbf; /* range of the second byte */
	size_t n;

	if (length == 0)
		return 0;
	if (b[0] < 0x80)
		return 1;
	if (b[0] >= 0xc2 && b[0] <= 0xdf)
		n = 2;
	else if (b[0] >= 0xe0 && b[0] <= 0xef)
		n = 3;
	else if (b[0] >= 0xf0 && b[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (b[0] == 0xe0)
		low = 0xa0;
	else if (b[0] == 0xed)
		high = 0x9f;
	else if (b[0] == 0xf0)
		low = 0x90;
	else if (b[0] == 0xf4)
		high = 0x8f;
	if (length < n || b[1] < low || b[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if (b[i] < 0x80 || b[i] > 0xbf)
			return 0;
	return n;
}

size_t utf8_printable(const char *bytes, size_t length)
{
	size_t n = utf8_next(bytes, length);
	const uint8_t *b = (const uint8_t *)bytes;

	if (n == 1 && (b[0] < 0x20 || b[0] == 0x7f))
		return 0;
	if (n == 2 && b[0] == 0xc2 && b[1] < 0xa0)
		return 0;
	return n;
}

void text_json(struct text *t, const char *string, size_t length)
{
	size_t at = 0;

	text_put(t, "\"", 1);
	while (at < length) {
		size_t n = utf8_next(string + at, length - at);
		unsigned char c = (unsigned char)string[at];

		if (n == 0) {
			text_put(t, "\xef\xbf\xbd", 3);
			at++;
			continue;
		}
		if (c == '"' || c == '\\') {
			text_put(t, "\\", 1);
			text_put(t, string + at, 1);
		} else if (c < 0x20) {
			text_printf(t, "\\u%04x", c);
		} else {
			text_put(t, string + at, n);
		}
		at += n;
	}
	text_put(t, "\"", 1);
}
