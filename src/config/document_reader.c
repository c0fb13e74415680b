/* SPDX-License-Identifier: Apache-2.0 */
#include "config/document_reader.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct {
	const char *expected; /* in faults of those who name one */
	enum schema_member_id member;
} kinds[KIND_N] = {
	[KIND_IP_LIST] = { "an IP list of the configuration document", MEMBER_DOCUMENT_ip_lists },
	[KIND_GROUP] = { "a group of the configuration document", MEMBER_DOCUMENT_origin_groups },
	[KIND_PROXY] = { "a proxy of the configuration document", MEMBER_DOCUMENT_proxies },
};

enum { SUGGESTIONS_MAX = 20, SUGGESTION_DISTANCE = 2, PATH_MAX_LENGTH = 400 };

/* --- faults --- */

static void put_place(const struct place *at, struct text *out)
{
	if (!at)
		return;
	put_place(at->up, out);
	if (at->name)
		text_printf(out, "%s%.*s%s", at->up ? "." : "", (int)field_shown(at->name, strlen(at->name)), at->name,
			strlen(at->name) > FIELD_SHOWN_MAX ? "…" : "");
	else
		text_printf(out, "[%zu]", at->index);
}

void reader_wrong(struct reader *rd, const struct place *at, const char *format, ...)
{
	char path_bytes[PATH_MAX_LENGTH], bytes[1024];
	struct text path = text_fixed(path_bytes, sizeof(path_bytes));
	va_list args;

	if (rd->problems->count < PROBLEMS_MAX) {
		put_place(at, &path);
		va_start(args, format);
		vsnprintf(bytes, sizeof(bytes), format, args);
		va_end(args);
	} else {
		bytes[0] = 0; /* only counted */
	}
	problem_add_at(rd->problems, path_bytes, "%s", bytes);
}

/* Notes what a check found, or that memory is out. True if all is well. */
bool reader_field_ok(struct reader *rd, int r, const struct place *at, const struct field_fault *why)
{
	char bytes[1024];
	struct text message = text_fixed(bytes, sizeof(bytes));

	if (r == -ENOMEM)
		rd->out_of_memory = true;
	if (r != FIELD_E_WRONG)
		return r == FIELD_OK;
	field_message_document(why, &message);
	reader_wrong(rd, at, "%s", bytes);
	return false;
}

/* What a value is, for people; of a text or a number, the value. */
void reader_describe(const json_t *json, struct text *out)
{
	switch (json_typeof(json)) {
	case JSON_OBJECT:
		text_str(out, "an object");
		break;
	case JSON_ARRAY:
		text_str(out, "a list");
		break;
	case JSON_STRING:
		text_printf(out, FIELD_QUOTED, FIELD_QUOTE(json_string_value(json), json_string_length(json)));
		break;
	case JSON_INTEGER:
		text_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(json));
		break;
	case JSON_REAL:
		text_printf(out, "%.9g", json_real_value(json));
		break;
	case JSON_TRUE:
		text_str(out, "true");
		break;
	case JSON_FALSE:
		text_str(out, "false");
		break;
	case JSON_NULL:
		text_str(out, "null");
		break;
	}
}

/* For a value of a wrong type: "text", "a number" rather than the value. */
const char *reader_type_name(const json_t *json)
{
	static const char *const names[] = {
		[JSON_OBJECT] = "an object",
		[JSON_ARRAY] = "a list",
		[JSON_STRING] = "text",
		[JSON_INTEGER] = "a number",
		[JSON_REAL] = "a number",
		[JSON_TRUE] = "true",
		[JSON_FALSE] = "false",
		[JSON_NULL] = "null",
	};

	return names[json_typeof(json)];
}

void *reader_take(struct reader *rd, size_t count, size_t size)
{
	void *at = arena_alloc(&rd->config->arena, MAX(count, (size_t)1) * size);

	if (!at)
		rd->out_of_memory = true;
	return at;
}

/* --- settings --- */

/* The elements of a list with commas between; false with a fault at the element that is no text. */
static bool join_list(struct reader *rd, const struct place *at, enum setting_scope scope, unsigned int id,
	const json_t *list, struct text *out)
{
	char expected_bytes[256];
	struct text expected = text_fixed(expected_bytes, sizeof(expected_bytes));

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *item = json_array_get(list, i);

		if (!json_is_string(item)) {
			reader_wrong(rd, &(struct place){ at, NULL, i }, "%s: expected text", reader_type_name(item));
			return false;
		}
		text_put(out, i ? "," : "", i ? 1 : 0);
		text_put(out, json_string_value(item), json_string_length(item));
		if (!out->ok) {
			setting_expected(scope, id, &expected);
			reader_wrong(rd, at, "%zu entries: expected %s", json_array_size(list), expected_bytes);
			return false;
		}
	}
	return true;
}

/* Which element of a list is wrong, or that it is their number. */
static void blame_element(struct reader *rd, const struct place *at, enum setting_scope scope, unsigned int id,
	const json_t *list, const char *expected)
{
	union {
		struct rule_settings rule;
		struct node_settings node;
	} scratch;
	char why_bytes[256], found_bytes[300];
	bool any = false;

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *item = json_array_get(list, i);
		struct text why = text_fixed(why_bytes, sizeof(why_bytes));
		struct text found = text_fixed(found_bytes, sizeof(found_bytes));
		const char *value = json_string_value(item);
		size_t length = json_string_length(item);

		if (!memchr(value, ',', length) &&
			setting_parse(scope, id, value, length, &rd->config->arena, &scratch, &why) == 0)
			continue;
		any = true;
		reader_describe(item, &found);
		reader_wrong(rd, &(struct place){ at, NULL, i }, "%s: expected %s", found_bytes, expected);
	}
	if (!any)
		reader_wrong(rd, at, "%zu entries: expected %s", json_array_size(list), expected);
}

static void parse_setting(struct reader *rd, const struct place *at, enum setting_scope scope, unsigned int id,
	const json_t *json, struct target *target, const char *value, size_t length)
{
	char why_bytes[256], found_bytes[300];
	struct text why = text_fixed(why_bytes, sizeof(why_bytes));
	struct text found = text_fixed(found_bytes, sizeof(found_bytes));
	int r = setting_parse(scope, id, value, length, &rd->config->arena, target->settings, &why);

	if (r == 0)
		*target->given |= 1u << id;
	else if (r == -ENOMEM)
		rd->out_of_memory = true;
	else if (json_is_array(json))
		blame_element(rd, at, scope, id, json, why_bytes);
	else {
		reader_describe(json, &found);
		reader_wrong(rd, at, "%s: expected %s", found_bytes, why_bytes);
	}
}

static void read_setting(struct reader *rd, const struct place *at, enum setting_scope scope, unsigned int id,
	const json_t *json, struct target *target)
{
	enum setting_form form = setting_form(scope, id);
	char joined_bytes[8192], number[24], found_bytes[300], expected_bytes[256];
	struct text found = text_fixed(found_bytes, sizeof(found_bytes));
	struct text expected = text_fixed(expected_bytes, sizeof(expected_bytes));
	struct field_fault why;

	if (scope == SETTING_SCOPE_RULE && !reader_field_ok(rd, field_carried(id, target->protocol, &why), at, &why))
		return;
	if (json_is_string(json)) {
		parse_setting(rd, at, scope, id, json, target, json_string_value(json), json_string_length(json));
	} else if (json_is_integer(json) && (form == SETTING_FORM_NUMBER || form == SETTING_FORM_TIME)) {
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(json));
		parse_setting(rd, at, scope, id, json, target, number, strlen(number));
	} else if (json_is_boolean(json) && form == SETTING_FORM_SWITCH) {
		const char *word = json_is_true(json) ? "on" : "off";

		parse_setting(rd, at, scope, id, json, target, word, strlen(word));
	} else if (json_is_array(json) && form == SETTING_FORM_LIST) {
		struct text joined = text_fixed(joined_bytes, sizeof(joined_bytes));

		if (join_list(rd, at, scope, id, json, &joined))
			parse_setting(rd, at, scope, id, json, target, joined.bytes, joined.length);
	} else {
		reader_describe(json, &found);
		setting_expected(scope, id, &expected);
		reader_wrong(rd, at, "%s: expected %s", found_bytes, expected_bytes);
	}
}

/* --- objects --- */

static bool type_ok(enum member_type type, const json_t *json)
{
	switch (type) {
	case MEMBER_NUMBER:
		return json_is_integer(json);
	case MEMBER_TEXT:
		return json_is_string(json);
	case MEMBER_LIST:
		return json_is_array(json);
	case MEMBER_OBJECT:
		return json_is_object(json);
	case MEMBER_SWITCH:
		return json_is_boolean(json) || json_is_string(json);
	case MEMBER_PORTS:
		return json_is_integer(json) || json_is_string(json);
	}
	return false;
}

static void take_member(
	struct reader *rd, const struct place *at, const struct schema_member *row, json_t *json, struct members *ret)
{
	size_t i = (size_t)(row - schema_members);
	char found_bytes[300];
	struct text found = text_fixed(found_bytes, sizeof(found_bytes));

	ret->seen[i] = true;
	if (type_ok(row->type, json)) {
		ret->of[i] = json;
		return;
	}
	if (json_is_real(json))
		reader_describe(json, &found);
	else
		text_str(&found, reader_type_name(json));
	reader_wrong(rd, at, "%s: expected %s", found_bytes, schema_type_text(row->type));
}

static void unknown_member(struct reader *rd, const struct place *at, enum schema_object_id object)
{
	enum setting_scope scope = schema_objects[object].scope;
	char known_bytes[512];
	struct text known = text_fixed(known_bytes, sizeof(known_bytes));
	const char *separator = "";

	for (size_t i = rd->first[object]; i < rd->end[object]; i++, separator = ", ")
		text_printf(&known, "%s%s", separator, schema_members[i].name);
	for (unsigned int id = 0; scope != SETTING_SCOPE_N && id < setting_count(scope); id++, separator = ", ")
		text_printf(&known, "%s%s", separator, setting_name(scope, id));
	reader_wrong(rd, at, "unknown member: expected one of %s", known_bytes);
}

static const struct schema_member *member_find(
	const struct reader *rd, enum schema_object_id object, const char *name, size_t length)
{
	for (size_t i = rd->first[object]; i < rd->end[object]; i++) {
		const struct schema_member *row = &schema_members[i];

		if (row->name_length == length && memcmp(row->name, name, length) == 0)
			return row;
	}
	return NULL;
}

/* JSON tells letter case apart, so a setting in two cases would be two members. */
static int setting_find_exactly(enum setting_scope scope, const char *name, size_t length)
{
	int id = scope == SETTING_SCOPE_N ? -1 : setting_find(scope, name, length);

	return id >= 0 && memcmp(setting_name(scope, (unsigned int)id), name, length) == 0 ? id : -1;
}

/* The members of an object: settings go to @target at once (NULL: it has none), all others to @ret. */
void reader_object(struct reader *rd, const struct place *at, const json_t *json, enum schema_object_id object,
	struct target *target, struct members *ret)
{
	enum setting_scope scope = schema_objects[object].scope;
	json_t *members = (json_t *)json, *value;
	const char *name;
	size_t length;

	memset(ret, 0, sizeof(*ret));
	json_object_keylen_foreach(members, name, length, value)
	{
		const struct place member = { at, name, 0 };
		const struct schema_member *row = member_find(rd, object, name, length);
		int id;

		if (row) {
			take_member(rd, &member, row, value, ret);
			continue;
		}
		id = setting_find_exactly(scope, name, length);
		if (id >= 0)
			read_setting(rd, &member, scope, (unsigned int)id, value, target);
		else
			unknown_member(rd, &member, object);
	}
	for (size_t i = rd->first[object]; i < rd->end[object]; i++) {
		const struct place member = { at, schema_members[i].name, 0 };

		if (!ret->seen[i] && !schema_members[i].default_text)
			reader_wrong(rd, &member, "missing: expected %s", schema_type_text(schema_members[i].type));
	}
}

/* An element of a list that must be an object. */
bool reader_is_object(struct reader *rd, const struct place *at, const json_t *json)
{
	if (json_is_object(json))
		return true;
	reader_wrong(rd, at, "%s: expected an object", reader_type_name(json));
	return false;
}

/* How many elements of a list are read: what is past @max is refused, once. */
size_t reader_bounded(struct reader *rd, const struct place *at, const json_t *list, size_t max, const char *what)
{
	size_t count = json_array_size(list);

	if (count <= max)
		return count;
	reader_wrong(rd, at, "%zu %s: expected at most %zu", count, what, max);
	return max;
}

/* --- names --- */

static const char *name_of(const struct config *config, enum kind kind, size_t index)
{
	switch (kind) {
	case KIND_IP_LIST:
		return config->ip_lists[index].name;
	case KIND_GROUP:
		return config->groups[index].name;
	case KIND_PROXY:
		return config->proxies[index].name;
	case KIND_N:
		break;
	}
	return NULL;
}

static size_t count_of(const struct config *config, enum kind kind)
{
	switch (kind) {
	case KIND_IP_LIST:
		return config->ip_list_count;
	case KIND_GROUP:
		return config->group_count;
	case KIND_PROXY:
		return config->proxy_count;
	case KIND_N:
		break;
	}
	return 0;
}

/* The name of the object at @index of its kind; "" when it has none that could be named. */
const char *reader_name(struct reader *rd, const struct place *at, enum kind kind, size_t index, const json_t *json)
{
	const struct place member = { at, "name", 0 };
	char folded[OBJECT_NAME_MAX];
	const char *name = json_string_value(json);
	size_t length = json_string_length(json);
	struct field_fault why;
	uint32_t other;
	int r;

	if (!name || !reader_field_ok(rd, field_object_name(name, length, &why), &member, &why))
		return "";
	config_fold_name(name, length, folded);
	r = key_map_put(&rd->names[kind], folded, length, (uint32_t)index, &other);
	if (r == KEY_MAP_E_EXISTS)
		reader_wrong(rd, &member, "\"%s\": expected a name that no other has (%s[%u] has it)", name,
			schema_members[kinds[kind].member].name, other);
	name = arena_strndup(&rd->config->arena, name, length);
	if (r < 0 || !name)
		rd->out_of_memory = true;
	return name ? name : "";
}

/* How many characters must be changed, added or left out to make one name of another; more than SUGGESTION_DISTANCE
 * is only said to be more. */
static unsigned int distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned char row[OBJECT_NAME_MAX + 1], corner, above;

	if (MAX(a_length, b_length) - MIN(a_length, b_length) > SUGGESTION_DISTANCE)
		return SUGGESTION_DISTANCE + 1;
	for (size_t j = 0; j <= b_length; j++)
		row[j] = (unsigned char)j;
	for (size_t i = 1; i <= a_length; i++) {
		corner = row[0];
		row[0] = (unsigned char)i;
		for (size_t j = 1; j <= b_length; j++) {
			above = row[j];
			row[j] = (unsigned char)MIN(
				MIN(above + 1, row[j - 1] + 1), corner + (strncasecmp(&a[i - 1], &b[j - 1], 1) != 0));
			corner = above;
		}
	}
	return row[b_length];
}

/* Of all names of a kind the one that was probably meant, or NULL. Looking for it takes long, so it is not always done.
 */
static const char *suggest(struct reader *rd, enum kind kind, const char *name, size_t length)
{
	unsigned int best = SUGGESTION_DISTANCE + 1;
	const char *found = NULL;

	if (length > OBJECT_NAME_MAX || length < 2 || rd->suggestions == SUGGESTIONS_MAX)
		return NULL;
	rd->suggestions++;
	for (size_t i = 0; i < count_of(rd->config, kind); i++) {
		const char *candidate = name_of(rd->config, kind, i);
		unsigned int d = distance(name, length, candidate, strlen(candidate));

		if (d < best && d < length) {
			best = d;
			found = candidate;
		}
	}
	return found;
}

/* The index of what is named; false, with a fault, if nothing is. @written: the name as it stands in the document. */
bool reader_resolve(struct reader *rd, const struct place *at, enum kind kind, const json_t *written, const char *name,
	size_t length, uint32_t *ret_index)
{
	char folded[OBJECT_NAME_MAX], found_bytes[300];
	struct text found = text_fixed(found_bytes, sizeof(found_bytes));
	const char *near;

	if (length <= sizeof(folded)) {
		config_fold_name(name, length, folded);
		if (key_map_get(&rd->names[kind], folded, length, ret_index))
			return true;
	}
	if (!rd->known[kind])
		return false;
	reader_describe(written, &found);
	near = suggest(rd, kind, name, length);
	if (near)
		reader_wrong(rd, at, "%s: expected %s (there is none of that name; is it \"%s\"?)", found_bytes,
			kinds[kind].expected, near);
	else
		reader_wrong(rd, at, "%s: expected %s (there is none of that name)", found_bytes, kinds[kind].expected);
	return false;
}

/* --- the reader --- */

/* Members of an object stand together in the table. */
void reader_init(struct reader *rd)
{
	for (size_t i = 0; i < MEMBER_N; i++) {
		enum schema_object_id object = schema_members[i].object;

		if (rd->end[object] == 0)
			rd->first[object] = i;
		ASSERT(rd->end[object] == 0 || rd->end[object] == i);
		rd->end[object] = i + 1;
	}
}

void reader_deinit(struct reader *rd)
{
	for (enum kind kind = 0; kind < KIND_N; kind++)
		key_map_free(&rd->names[kind]);
	key_map_free(&rd->origins);
}
