/* SPDX-License-Identifier: Apache-2.0 */
#include "config/json.h"
#include "base/error.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* --- bounds --- */

struct scan {
	const char *text;
	size_t objects, members, values;
	unsigned int depth;
	const char *too_deep; /* the first bracket that is */
};

/*
 * Counts without understanding: a text ends at the next quote that is not escaped. Of a document that is no JSON the
 * counts may be anything; it is refused either way.
 */
static void scan(struct scan *s, size_t length)
{
	const char *end = s->text + length;
	bool in_text = false;

	for (const char *c = s->text; c < end; c++) {
		switch (*c) {
		case '\\':
			c++;
			break;
		case '"':
			in_text = !in_text;
			break;
		case ',':
			s->values++;
			break;
		case ':':
			s->members += !in_text;
			break;
		case '{':
		case '[':
			if (in_text)
				break;
			s->objects++;
			s->depth++;
			if (s->depth > DOCUMENT_NESTING_MAX && !s->too_deep)
				s->too_deep = c;
			break;
		case '}':
		case ']':
			if (!in_text && s->depth)
				s->depth--;
			break;
		}
	}
}

static void place_of(const char *text, const char *at, unsigned int *ret_line, unsigned int *ret_column)
{
	*ret_line = *ret_column = 1;
	for (; text < at; text++) {
		if (*text == '\n') {
			++*ret_line;
			*ret_column = 1;
		} else {
			*ret_column += ((unsigned char)*text & 0xc0) != 0x80;
		}
	}
}

static int check_bounds(const char *text, size_t length, struct problems *problems)
{
	struct scan s = { .text = text };
	unsigned int line, column;
	const char *nul;

	if (length > DOCUMENT_MAX) {
		problem_add_at(problems, "", "%zu bytes: expected at most %d", length, DOCUMENT_MAX);
		return DOCUMENT_E_WRONG;
	}
	nul = memchr(text, 0, length); /* the JSON library skips it behind a number */
	if (nul) {
		place_of(text, nul, &line, &column);
		problem_add(problems, line, column, "a NUL byte: expected text");
		return DOCUMENT_E_WRONG;
	}
	scan(&s, length);
	if (s.too_deep) {
		place_of(text, s.too_deep, &line, &column);
		problem_add(problems, line, column, "lists and objects within each other: expected at most %d levels",
			DOCUMENT_NESTING_MAX);
		return DOCUMENT_E_WRONG;
	}
	if (s.objects > DOCUMENT_OBJECTS_MAX) {
		problem_add_at(
			problems, "", "%zu lists and objects: expected at most %d", s.objects, DOCUMENT_OBJECTS_MAX);
		return DOCUMENT_E_WRONG;
	}
	if (s.members > DOCUMENT_MEMBERS_MAX) {
		problem_add_at(problems, "", "%zu members: expected at most %d", s.members, DOCUMENT_MEMBERS_MAX);
		return DOCUMENT_E_WRONG;
	}
	if (s.values > DOCUMENT_VALUES_MAX) {
		problem_add_at(problems, "", "%zu commas: expected at most %d", s.values, DOCUMENT_VALUES_MAX);
		return DOCUMENT_E_WRONG;
	}
	return DOCUMENT_OK;
}

int json_read(const char *text, size_t length, json_t **ret_json, struct problems *problems)
{
	json_error_t error;
	json_t *json;
	int r;

	if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		length -= 3;
	}
	r = check_bounds(text, length, problems);
	if (r)
		return r;
	json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
	if (!json) {
		if (json_error_code(&error) == json_error_out_of_memory)
			return fault(-ENOMEM);
		problem_add(problems, (unsigned int)MAX(error.line, 1), (unsigned int)MAX(error.column, 1),
			"no JSON: %s", error.text);
		return DOCUMENT_E_WRONG;
	}
	if (!json_is_object(json)) {
		problem_add_at(problems, "", "a list: expected an object");
		json_decref(json);
		return DOCUMENT_E_WRONG;
	}
	*ret_json = json;
	return DOCUMENT_OK;
}

/* --- checksum --- */

void json_sum_init(struct json_sum *sum)
{
	XXH3_INITSTATE(&sum->state);
	XXH3_128bits_reset(&sum->state);
}

void json_sum_mark(struct json_sum *sum, char mark)
{
	XXH3_128bits_update(&sum->state, &mark, 1);
}

static void put_marked(struct json_sum *sum, char mark, uint64_t number)
{
	char bytes[9] = { mark };

	memcpy(bytes + 1, &(uint64_t){ htole64(number) }, 8);
	XXH3_128bits_update(&sum->state, bytes, sizeof(bytes));
}

void json_sum_text(struct json_sum *sum, const char *text, size_t length)
{
	put_marked(sum, 's', length);
	XXH3_128bits_update(&sum->state, text, length);
}

void json_sum_number(struct json_sum *sum, int64_t number)
{
	put_marked(sum, 'i', (uint64_t)number);
}

void json_sum_final(const struct json_sum *sum, char ret_checksum[static DOCUMENT_CHECKSUM_SIZE])
{
	XXH128_hash_t hash = XXH3_128bits_digest(&sum->state);
	struct text t = text_fixed(ret_checksum, DOCUMENT_CHECKSUM_SIZE);

	text_printf(&t, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64, (uint64_t)hash.low64);
}

static void sum_value(struct json_sum *sum, const json_t *json, bool whole);

static void sum_members(struct json_sum *sum, const json_t *json, bool whole)
{
	json_t *object = (json_t *)json, *value;
	const char *name;
	size_t length;

	json_object_keylen_foreach(object, name, length, value)
	{
		if (whole && strcmp(name, "checksum") == 0)
			continue;
		json_sum_text(sum, name, length);
		sum_value(sum, value, false);
	}
}

/* Recursion is bounded by DOCUMENT_NESTING_MAX. */
static void sum_value(struct json_sum *sum, const json_t *json, bool whole)
{
	double real;
	uint64_t bits;

	switch (json_typeof(json)) {
	case JSON_OBJECT:
		json_sum_mark(sum, '{');
		sum_members(sum, json, whole);
		json_sum_mark(sum, '}');
		break;
	case JSON_ARRAY:
		json_sum_mark(sum, '[');
		for (size_t i = 0; i < json_array_size(json); i++)
			sum_value(sum, json_array_get(json, i), false);
		json_sum_mark(sum, ']');
		break;
	case JSON_STRING:
		json_sum_text(sum, json_string_value(json), json_string_length(json));
		break;
	case JSON_INTEGER:
		json_sum_number(sum, json_integer_value(json));
		break;
	case JSON_REAL:
		real = json_real_value(json);
		memcpy(&bits, &real, sizeof(bits));
		put_marked(sum, 'r', bits);
		break;
	case JSON_TRUE:
		json_sum_mark(sum, 't');
		break;
	case JSON_FALSE:
		json_sum_mark(sum, 'f');
		break;
	case JSON_NULL:
		json_sum_mark(sum, 'n');
		break;
	}
}

void json_checksum(const json_t *json, char ret_checksum[static DOCUMENT_CHECKSUM_SIZE])
{
	struct json_sum sum;

	json_sum_init(&sum);
	sum_value(&sum, json, true);
	json_sum_final(&sum, ret_checksum);
}

int document_checksum(
	const char *text, size_t length, char ret_checksum[static DOCUMENT_CHECKSUM_SIZE], struct problems *problems)
{
	json_t *json;
	int r = json_read(text, length, &json, problems);

	if (r)
		return r;
	json_checksum(json, ret_checksum);
	json_decref(json);
	return DOCUMENT_OK;
}
