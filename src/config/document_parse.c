/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a configuration document. Each object is walked along the rows of its kind: what is known, what is missing,
 * what type it has; then its members are read one by one. A wrong member is noted with its path and the others are
 * still looked at, so that one run shows everything. Names are resolved by maps, since groups and lists may be many.
 */
#include "base/error.h"
#include "base/key_map.h"
#include "config/check.h"
#include "config/document.h"
#include "config/field.h"
#include "config/json.h"
#include "config/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Objects that others name. */
enum kind { KIND_IP_LIST, KIND_GROUP, KIND_PROXY, KIND_N };

static const struct {
	const char *word;     /* in faults of the list itself */
	const char *expected; /* in faults of those who name one */
	enum schema_member_id member;
	size_t max;
} kinds[KIND_N] = {
	[KIND_IP_LIST] = { "lists", "an IP list of the configuration document", MEMBER_DOCUMENT_ip_lists,
		IP_LISTS_MAX },
	[KIND_GROUP] = { "groups", "a group of the configuration document", MEMBER_DOCUMENT_origin_groups, GROUPS_MAX },
	[KIND_PROXY] = { "proxies", "a proxy of the configuration document", MEMBER_DOCUMENT_proxies, PROXIES_MAX },
};

enum { SUGGESTIONS_MAX = 20, SUGGESTION_DISTANCE = 2, PATH_MAX_LENGTH = 400 };

struct reader {
	const struct limits_profile *profile;
	struct problems *problems;
	struct config *config;
	struct key_map names[KIND_N]; /* in lower case, to the index of the object */
	bool known[KIND_N];	      /* whether all of the kind were read, so that others are unknown */
	struct key_map origins;	      /* of all groups */
	size_t origin_count;
	size_t entry_count; /* of IP lists */
	unsigned int suggestions;
	size_t first[SCHEMA_N], end[SCHEMA_N]; /* members of each object */
	bool out_of_memory;
};

/* A place in the document: a chain of frames on the stack, made into text only when something is wrong. */
struct place {
	const struct place *up;
	const char *name; /* NULL: an element of a list */
	size_t index;
};

struct members {
	json_t *of[MEMBER_N];
	bool seen[MEMBER_N]; /* maybe with a wrong value */
};

/* Where the settings of an object go. */
struct target {
	void *settings;
	setting_mask *given;
	enum protocol protocol; /* of the rule, or PROTOCOL_N */
};

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

static PRINTF(3, 4) void wrong(struct reader *rd, const struct place *at, const char *format, ...)
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
static bool field_ok(struct reader *rd, int r, const struct place *at, const struct field_fault *why)
{
	char bytes[1024];
	struct text message = text_fixed(bytes, sizeof(bytes));

	if (r == -ENOMEM)
		rd->out_of_memory = true;
	if (r != FIELD_E_WRONG)
		return r == FIELD_OK;
	field_message_document(why, &message);
	wrong(rd, at, "%s", bytes);
	return false;
}

/* What a value is, for people; of a text or a number, the value. */
static void describe(const json_t *json, struct text *out)
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
static const char *type_name(const json_t *json)
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

static void *take(struct reader *rd, size_t count, size_t size)
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
			wrong(rd, &(struct place){ at, NULL, i }, "%s: expected text", type_name(item));
			return false;
		}
		text_put(out, i ? "," : "", i ? 1 : 0);
		text_put(out, json_string_value(item), json_string_length(item));
		if (!out->ok) {
			setting_expected(scope, id, &expected);
			wrong(rd, at, "%zu entries: expected %s", json_array_size(list), expected_bytes);
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
		describe(item, &found);
		wrong(rd, &(struct place){ at, NULL, i }, "%s: expected %s", found_bytes, expected);
	}
	if (!any)
		wrong(rd, at, "%zu entries: expected %s", json_array_size(list), expected);
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
		describe(json, &found);
		wrong(rd, at, "%s: expected %s", found_bytes, why_bytes);
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

	if (scope == SETTING_SCOPE_RULE && !field_ok(rd, field_carried(id, target->protocol, &why), at, &why))
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
		describe(json, &found);
		setting_expected(scope, id, &expected);
		wrong(rd, at, "%s: expected %s", found_bytes, expected_bytes);
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
		describe(json, &found);
	else
		text_str(&found, type_name(json));
	wrong(rd, at, "%s: expected %s", found_bytes, schema_type_text(row->type));
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
	wrong(rd, at, "unknown member: expected one of %s", known_bytes);
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
static void read_object(struct reader *rd, const struct place *at, const json_t *json, enum schema_object_id object,
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
			wrong(rd, &member, "missing: expected %s", schema_type_text(schema_members[i].type));
	}
}

/* An element of a list that must be an object. */
static bool is_object(struct reader *rd, const struct place *at, const json_t *json)
{
	if (json_is_object(json))
		return true;
	wrong(rd, at, "%s: expected an object", type_name(json));
	return false;
}

/* How many elements of a list are read: what is past @max is refused, once. */
static size_t bounded(struct reader *rd, const struct place *at, const json_t *list, size_t max, const char *what)
{
	size_t count = json_array_size(list);

	if (count <= max)
		return count;
	wrong(rd, at, "%zu %s: expected at most %zu", count, what, max);
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
static const char *read_name(
	struct reader *rd, const struct place *at, enum kind kind, size_t index, const json_t *json)
{
	const struct place member = { at, "name", 0 };
	char folded[OBJECT_NAME_MAX];
	const char *name = json_string_value(json);
	size_t length = json_string_length(json);
	struct field_fault why;
	uint32_t other;
	int r;

	if (!name || !field_ok(rd, field_object_name(name, length, &why), &member, &why))
		return "";
	config_fold_name(name, length, folded);
	r = key_map_put(&rd->names[kind], folded, length, (uint32_t)index, &other);
	if (r == KEY_MAP_E_EXISTS)
		wrong(rd, &member, "\"%s\": expected a name that no other has (%s[%u] has it)", name,
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
static bool resolve(struct reader *rd, const struct place *at, enum kind kind, const json_t *written, const char *name,
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
	describe(written, &found);
	near = suggest(rd, kind, name, length);
	if (near)
		wrong(rd, at, "%s: expected %s (there is none of that name; is it \"%s\"?)", found_bytes,
			kinds[kind].expected, near);
	else
		wrong(rd, at, "%s: expected %s (there is none of that name)", found_bytes, kinds[kind].expected);
	return false;
}

static void read_access_list(struct reader *rd, const struct place *at, const json_t *json,
	const struct ip_list *const **ret_lists, size_t *ret_count)
{
	const struct ip_list **lists;
	size_t n, count = 0;

	if (!json || json_array_size(json) == 0)
		return;
	n = bounded(rd, at, json, ACCESS_LISTS_MAX, "lists");
	lists = take(rd, n, sizeof(*lists));
	if (!lists)
		return;
	for (size_t i = 0; i < n; i++) {
		const struct place item = { at, NULL, i };
		const json_t *name = json_array_get(json, i);
		const struct ip_list *list;
		uint32_t index;
		size_t same;

		if (!json_is_string(name)) {
			wrong(rd, &item, "%s: expected the name of an IP list", type_name(name));
			continue;
		}
		if (!resolve(rd, &item, KIND_IP_LIST, name, json_string_value(name), json_string_length(name), &index))
			continue;
		list = &rd->config->ip_lists[index];
		for (same = 0; same < count && lists[same] != list; same++)
			;
		if (same < count)
			wrong(rd, &item, "\"%s\": expected each list once", list->name);
		else
			lists[count++] = list;
	}
	*ret_lists = lists;
	*ret_count = count;
}

static void read_access(
	struct reader *rd, const struct place *at, const json_t *allow, const json_t *deny, struct access *ret)
{
	read_access_list(rd, &(struct place){ at, "allow", 0 }, allow, &ret->allow, &ret->allow_count);
	read_access_list(rd, &(struct place){ at, "deny", 0 }, deny, &ret->deny, &ret->deny_count);
}

/* --- IP lists --- */

static void wrong_prefix(struct reader *rd, const struct place *at, const json_t *json, int r)
{
	char found_bytes[300], prefix_bytes[PREFIX_TEXT_SIZE];
	struct text found = text_fixed(found_bytes, sizeof(found_bytes));
	const char *text = json_string_value(json), *slash;
	struct prefix prefix;

	describe(json, &found);
	slash = r == -ERANGE ? strchr(text, '/') : NULL;
	if (slash && ip_parse(text, (size_t)(slash - text), &prefix.ip) == 0) {
		unsigned int bits = (unsigned int)strtoul(slash + 1, NULL, 10) + (ip_is_v4(&prefix.ip) ? 96 : 0);

		prefix = (struct prefix){ .ip = ip_mask(&prefix.ip, bits), .bits = (uint8_t)bits };
		prefix_format(&prefix, prefix_bytes);
		wrong(rd, at, "%s: expected no bit set behind the prefix, as in %s", found_bytes, prefix_bytes);
		return;
	}
	wrong(rd, at, "%s: expected an address or a prefix such as 10.0.0.0/8 or 2001:db8::/32", found_bytes);
}

static void read_entries(struct reader *rd, const struct place *at, const json_t *json, struct ip_list *list)
{
	size_t count = json_array_size(json);
	struct prefix *items;

	rd->entry_count += count;
	if (rd->entry_count > IP_LIST_ENTRIES_MAX) {
		if (rd->entry_count - count <= IP_LIST_ENTRIES_MAX)
			wrong(rd, at, "%zu entries in all lists up to here: expected at most %d", rd->entry_count,
				IP_LIST_ENTRIES_MAX);
		return;
	}
	items = take(rd, count, sizeof(*items));
	if (!items)
		return;
	for (size_t i = 0; i < count; i++) {
		const json_t *item = json_array_get(json, i);
		int r = json_is_string(item)
			? prefix_parse(json_string_value(item), json_string_length(item), &items[i])
			: -EINVAL;

		if (r)
			wrong_prefix(rd, &(struct place){ at, NULL, i }, item, r);
	}
	list->items = items;
	list->count = count;
	ip_list_finish(list);
}

static void read_ip_list(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret)
{
	struct ip_list *list = ret;
	struct members m;

	read_object(rd, at, json, SCHEMA_IP_LIST, NULL, &m);
	list->name = read_name(rd, at, KIND_IP_LIST, index, m.of[MEMBER_IP_LIST_name]);
	if (m.of[MEMBER_IP_LIST_entries])
		read_entries(rd, &(struct place){ at, "entries", 0 }, m.of[MEMBER_IP_LIST_entries], list);
}

/* --- groups --- */

/* One origin of a group as a key: the group, the port, and the name or the address. */
static int claim_origin(
	struct reader *rd, uint32_t group, const struct origin *origin, uint32_t index, uint32_t *ret_other)
{
	char key[sizeof(group) + sizeof(origin->port) + NAME_MAX_LENGTH + 1];
	size_t length = origin->host.name ? strlen(origin->host.name) : sizeof(origin->host.ip);

	memcpy(key, &group, sizeof(group));
	memcpy(key + sizeof(group), &origin->port, sizeof(origin->port));
	key[sizeof(group) + sizeof(origin->port)] = origin->host.name != NULL;
	memcpy(key + sizeof(group) + sizeof(origin->port) + 1,
		origin->host.name ? origin->host.name : (const char *)origin->host.ip.bytes, length);
	return key_map_put(&rd->origins, key, sizeof(group) + sizeof(origin->port) + 1 + length, index, ret_other);
}

static void read_origin(struct reader *rd, const struct place *at, const json_t *json, size_t group, size_t index,
	struct origin *origin)
{
	struct target target = { &origin->settings, &origin->given, PROTOCOL_N };
	const json_t *address, *port;
	struct port_range range = { 0 };
	struct field_fault why;
	struct members m;
	bool ok = true;
	uint32_t other;
	int r;

	read_object(rd, at, json, SCHEMA_ORIGIN, &target, &m);
	address = m.of[MEMBER_ORIGIN_address];
	port = m.of[MEMBER_ORIGIN_port];
	if (port)
		ok = field_ok(rd, field_port(json_integer_value(port), UINT16_MAX, &range, &why),
			&(struct place){ at, "port", 0 }, &why);
	origin->port = range.first;
	if (!address)
		return;
	r = field_host(json_string_value(address), json_string_length(address), HOST_FORM_MEMBER, &rd->config->arena,
		&origin->host, &why);
	if (!field_ok(rd, r, &(struct place){ at, "address", 0 }, &why) || !ok)
		return;
	r = claim_origin(rd, (uint32_t)group, origin, (uint32_t)index, &other);
	if (r < 0)
		rd->out_of_memory = true;
	else if (r == KEY_MAP_E_EXISTS && port)
		wrong(rd, at, "\"%s\" port %u: expected each origin once in a group (origins[%u] is the same)",
			json_string_value(address), origin->port, other);
	else if (r == KEY_MAP_E_EXISTS)
		wrong(rd, at, "\"%s\": expected each origin once in a group (origins[%u] is the same)",
			json_string_value(address), other);
}

static void read_origins(
	struct reader *rd, const struct place *at, const json_t *json, size_t group_index, struct origin_group *group)
{
	struct origin defaults = { 0 }, *origins;
	size_t n = bounded(rd, at, json, GROUP_ORIGINS_MAX, "origins");

	rd->origin_count += n;
	if (rd->origin_count > ORIGINS_MAX) {
		if (rd->origin_count - n <= ORIGINS_MAX)
			wrong(rd, at, "%zu origins in all groups up to here: expected at most %d", rd->origin_count,
				ORIGINS_MAX);
		return;
	}
	origins = take(rd, n, sizeof(*origins));
	if (!origins)
		return;
	setting_defaults(SETTING_SCOPE_ORIGIN, PROTOCOL_TCP, &defaults.settings);
	for (size_t i = 0; i < n; i++) {
		const struct place item = { at, NULL, i };
		const json_t *origin = json_array_get(json, i);

		origins[i] = defaults;
		if (is_object(rd, &item, origin))
			read_origin(rd, &item, origin, group_index, i, &origins[i]);
	}
	group->origins = origins;
	group->origin_count = n;
}

static void read_check(struct reader *rd, const struct place *at, const json_t *json, struct origin_group *group)
{
	static const enum check_setting_id of_udp[] = { CHECK_SETTING_send, CHECK_SETTING_expect };
	struct target target = { &group->check, &group->check_given, PROTOCOL_N };
	struct members m;

	read_object(rd, at, json, SCHEMA_CHECK, &target, &m);
	for (size_t i = 0; i < ARRAY_SIZE(of_udp); i++) {
		const struct place member = { at, setting_name(SETTING_SCOPE_CHECK, of_udp[i]), 0 };
		struct text word = text_fixed((char[16]){ 0 }, 16);

		if (!(group->check_given & 1u << of_udp[i]) || group->check.type == CHECK_TYPE_UDP ||
			(json_object_get(json, "type") && !(group->check_given & 1u << CHECK_SETTING_type)))
			continue;
		setting_format(SETTING_SCOPE_CHECK, CHECK_SETTING_type, &group->check, &word);
		wrong(rd, &member, "with a check of type %s: expected it with type udp only", word.bytes);
	}
}

/* A check needs a port to go to. */
static void check_origin_ports(
	struct reader *rd, const struct place *at, const json_t *origins, const struct origin_group *group)
{
	const struct place list = { at, "origins", 0 };

	if (group->check.type == CHECK_TYPE_OFF || group->check.port)
		return;
	for (size_t i = 0; i < group->origin_count; i++) {
		const struct place item = { &list, NULL, i };
		const json_t *origin = json_array_get(origins, i);

		if (json_is_object(origin) && !json_object_get(origin, "port"))
			wrong(rd, &(struct place){ &item, "port", 0 },
				"missing: expected a port, or health_check.port");
	}
}

static void read_group(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret)
{
	struct origin_group *group = ret;
	struct target target = { &group->settings, &group->given, PROTOCOL_N };
	struct members m;

	setting_defaults(SETTING_SCOPE_GROUP, PROTOCOL_TCP, &group->settings);
	setting_defaults(SETTING_SCOPE_CHECK, PROTOCOL_TCP, &group->check);
	read_object(rd, at, json, SCHEMA_GROUP, &target, &m);
	group->name = read_name(rd, at, KIND_GROUP, index, m.of[MEMBER_GROUP_name]);
	if (m.of[MEMBER_GROUP_health_check])
		read_check(rd, &(struct place){ at, "health_check", 0 }, m.of[MEMBER_GROUP_health_check], group);
	if (m.of[MEMBER_GROUP_origins])
		read_origins(rd, &(struct place){ at, "origins", 0 }, m.of[MEMBER_GROUP_origins], index, group);
	check_origin_ports(rd, at, m.of[MEMBER_GROUP_origins], group);
}

/* --- proxies --- */

static void read_proxy(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret)
{
	struct proxy *proxy = ret;
	struct members m;

	read_object(rd, at, json, SCHEMA_PROXY, NULL, &m);
	proxy->name = read_name(rd, at, KIND_PROXY, index, m.of[MEMBER_PROXY_name]);
	read_access(rd, at, m.of[MEMBER_PROXY_allow], m.of[MEMBER_PROXY_deny], &proxy->access);
}

/* --- rules --- */

/* A port or a range, as a number or as text. */
static int read_range(const json_t *json, unsigned int max, struct port_range *ret, struct field_fault *why)
{
	char found_bytes[300];
	struct text found = text_fixed(found_bytes, sizeof(found_bytes));

	if (json_is_integer(json))
		return field_port(json_integer_value(json), max, ret, why);
	if (json_is_string(json))
		return field_range(json_string_value(json), json_string_length(json), max, ret, why);
	describe(json, &found);
	return field_wrong(why, NULL, " ", "a port or a range such as 80 or \"80-90\"", "%s", found_bytes);
}

static bool read_protocol(struct reader *rd, const struct place *at, const json_t *json, struct rule *rule)
{
	const char *text = json_string_value(json);
	size_t length = json_string_length(json);

	if (!text)
		return false;
	if (length == 3 && strncasecmp(text, "tcp", 3) == 0)
		rule->protocol = PROTOCOL_TCP;
	else if (length == 3 && strncasecmp(text, "udp", 3) == 0)
		rule->protocol = PROTOCOL_UDP;
	else {
		wrong(rd, &(struct place){ at, "protocol", 0 }, FIELD_QUOTED ": expected tcp or udp",
			FIELD_QUOTE(text, length));
		return false;
	}
	return true;
}

/* A wrong entry is left as 0-0. False if there is one. */
static bool read_edge_ports(
	struct reader *rd, const struct place *at, const json_t *json, bool protocol_ok, struct rule *rule)
{
	size_t max = rd->profile->entries_max ? rd->profile->entries_max : DOCUMENT_VALUES_MAX + 1;
	size_t count = bounded(rd, at, json, max, "entries");
	struct port_range *ranges = take(rd, count, sizeof(*ranges));
	bool ok = count == json_array_size(json);

	if (!ranges)
		return false;
	if (count == 0) {
		wrong(rd, at, "an empty list: expected ports or ranges");
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		struct port_range range;
		struct field_fault why;
		int r = read_range(json_array_get(json, i), rd->profile->port_max, &range, &why);

		if (r == FIELD_OK && protocol_ok)
			r = field_reserved(rd->profile, rule->protocol, range, NULL, &why);
		if (r == FIELD_OK)
			ranges[i] = range;
		else
			ok = field_ok(rd, r, &(struct place){ at, NULL, i }, &why);
	}
	rule->edge_ports = (struct port_list){ .items = ranges, .count = count };
	return ok;
}

static void read_origin_of_rule(struct reader *rd, const struct place *at, const json_t *json, struct rule *rule)
{
	const struct place member = { at, "origin", 0 };
	const char *text = json_string_value(json);
	size_t length = json_string_length(json);
	struct field_fault why;
	uint32_t index;
	int r;

	if (!text)
		return;
	if (field_names_group(text, length)) {
		if (resolve(rd, &member, KIND_GROUP, json, text + 3, length - 3, &index))
			rule->group = &rd->config->groups[index];
		return;
	}
	r = field_host(text, length, HOST_FORM_DOCUMENT, &rd->config->arena, &rule->origin, &why);
	field_ok(rd, r, &member, &why);
}

static void read_persistence(struct reader *rd, const struct place *at, const json_t *json, struct rule *rule)
{
	struct field_fault why;

	if (json_is_boolean(json))
		rule->persistence = json_is_true(json);
	else if (json)
		field_ok(rd, field_switch(json_string_value(json), json_string_length(json), &rule->persistence, &why),
			&(struct place){ at, "persistence", 0 }, &why);
}

static void read_rule_id(struct reader *rd, const struct place *at, const json_t *json, bool edge_ok, struct rule *rule)
{
	struct field_fault why;

	if (!json) {
		if (edge_ok)
			rule_make_id(rule, rule->id);
	} else if (field_ok(rd, field_rule_id(json_string_value(json), json_string_length(json), &why),
			   &(struct place){ at, "id", 0 }, &why)) {
		memcpy(rule->id, json_string_value(json), json_string_length(json));
	}
}

/* The members of a rule that may be left out, beside its settings. */
static void read_optional(
	struct reader *rd, const struct place *at, const struct members *m, enum protocol protocol, struct rule *rule)
{
	const json_t *proxy = m->of[MEMBER_RULE_proxy], *pass = m->of[MEMBER_RULE_pass], *tag = m->of[MEMBER_RULE_tag];
	struct field_fault why;
	uint32_t index;

	if (proxy &&
		resolve(rd, &(struct place){ at, "proxy", 0 }, KIND_PROXY, proxy, json_string_value(proxy),
			json_string_length(proxy), &index))
		rule->proxy = &rd->config->proxies[index];
	read_persistence(rd, at, m->of[MEMBER_RULE_persistence], rule);
	if (pass)
		field_ok(rd, field_pass(json_string_value(pass), json_string_length(pass), protocol, &rule->pass, &why),
			&(struct place){ at, "pass", 0 }, &why);
	if (tag)
		field_ok(rd,
			field_tag(
				json_string_value(tag), json_string_length(tag), &rd->config->arena, &rule->tag, &why),
			&(struct place){ at, "tag", 0 }, &why);
	read_access(rd, at, m->of[MEMBER_RULE_allow], m->of[MEMBER_RULE_deny], &rule->access);
}

static void read_rule(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret)
{
	struct rule *rule = ret;
	struct target target = { &rule->settings, &rule->given, PROTOCOL_N };
	const json_t *edge_ports, *origin_port;
	struct members m, settings;
	struct field_fault why;
	bool protocol_ok, edge_ok = false;

	(void)index;
	read_object(rd, at, json, SCHEMA_RULE, NULL, &m);
	protocol_ok = read_protocol(rd, at, m.of[MEMBER_RULE_protocol], rule);
	if (protocol_ok)
		target.protocol = rule->protocol;
	edge_ports = m.of[MEMBER_RULE_edge_ports];
	if (edge_ports)
		edge_ok = read_edge_ports(rd, &(struct place){ at, "edge_ports", 0 }, edge_ports, protocol_ok, rule);
	if (!protocol_ok) /* nobody knows whose ports they are */
		rule->edge_ports.count = 0;
	read_origin_of_rule(rd, at, m.of[MEMBER_RULE_origin], rule);
	origin_port = m.of[MEMBER_RULE_origin_port];
	if (origin_port) {
		int r = read_range(origin_port, UINT16_MAX, &rule->origin_ports, &why);

		if (r == FIELD_OK && edge_ok && protocol_ok)
			r = field_origin_ports(&rule->edge_ports, rule->origin_ports, &why);
		field_ok(rd, r, &(struct place){ at, "origin_port", 0 }, &why);
	}
	read_optional(rd, at, &m, target.protocol, rule);
	if (m.of[MEMBER_RULE_settings])
		read_object(rd, &(struct place){ at, "settings", 0 }, m.of[MEMBER_RULE_settings], SCHEMA_RULE_SETTINGS,
			&target, &settings);
	read_rule_id(rd, at, m.of[MEMBER_RULE_id], edge_ok && protocol_ok, rule);
}

/* --- the document --- */

/* Reads a list of objects into an array. @ret_all: whether it is all there is. */
static void *read_list(struct reader *rd, const struct members *m, enum schema_member_id member, size_t max,
	const char *what, size_t size,
	void (*read)(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret),
	size_t *ret_count, bool *ret_all)
{
	const struct place at = { NULL, schema_members[member].name, 0 };
	const json_t *json = m->of[member];
	size_t count;
	char *items;

	*ret_count = 0;
	*ret_all = !m->seen[member] || (json && json_array_size(json) <= max);
	if (!json)
		return NULL;
	count = bounded(rd, &at, json, max, what);
	items = take(rd, count, size);
	for (size_t i = 0; items && i < count && !rd->out_of_memory; i++) {
		const struct place item = { &at, NULL, i };
		const json_t *object = json_array_get(json, i);

		if (is_object(rd, &item, object))
			read(rd, &item, object, i, items + i * size);
	}
	*ret_count = items ? count : 0;
	return items;
}

/* Elements that are no objects have no name. */
static void read_lists(struct reader *rd, const struct members *m)
{
	struct config *c = rd->config;
	struct ip_list *lists;
	struct origin_group *groups;
	struct proxy *proxies;
	bool all;

	lists = read_list(rd, m, MEMBER_DOCUMENT_ip_lists, IP_LISTS_MAX, "lists", sizeof(*lists), read_ip_list,
		&c->ip_list_count, &rd->known[KIND_IP_LIST]);
	for (size_t i = 0; i < c->ip_list_count; i++)
		lists[i].name = lists[i].name ? lists[i].name : "";
	c->ip_lists = lists;
	groups = read_list(rd, m, MEMBER_DOCUMENT_origin_groups, GROUPS_MAX, "groups", sizeof(*groups), read_group,
		&c->group_count, &rd->known[KIND_GROUP]);
	for (size_t i = 0; i < c->group_count; i++)
		groups[i].name = groups[i].name ? groups[i].name : "";
	c->groups = groups;
	proxies = read_list(rd, m, MEMBER_DOCUMENT_proxies, PROXIES_MAX, "proxies", sizeof(*proxies), read_proxy,
		&c->proxy_count, &rd->known[KIND_PROXY]);
	for (size_t i = 0; i < c->proxy_count; i++)
		proxies[i].name = proxies[i].name ? proxies[i].name : "";
	c->proxies = proxies;
	c->rules = read_list(rd, m, MEMBER_DOCUMENT_rules, rd->profile->rules_max, "rules", sizeof(*c->rules),
		read_rule, &c->rule_count, &all);
	if (!c->rules)
		c->rules = take(rd, 1, sizeof(*c->rules));
}

static void read_version(struct reader *rd, const json_t *json)
{
	json_int_t version = json_integer_value(json);

	if (version < 0 || version > DOCUMENT_VERSION_MAX)
		wrong(rd, &(struct place){ NULL, "version", 0 }, "%" JSON_INTEGER_FORMAT ": expected 0-%" PRId64,
			version, DOCUMENT_VERSION_MAX);
	else
		rd->config->version = (uint64_t)version;
}

/* Of a document that is something else, or that has been damaged, nothing more is worth saying. */
static bool is_ours(struct reader *rd, const json_t *json)
{
	const json_t *schema = json_object_get(json, "schema"), *checksum = json_object_get(json, "checksum");
	char expected[DOCUMENT_CHECKSUM_SIZE];

	if (json_is_integer(schema) && json_integer_value(schema) != DOCUMENT_SCHEMA) {
		wrong(rd, &(struct place){ NULL, "schema", 0 }, "%" JSON_INTEGER_FORMAT ": expected %d",
			json_integer_value(schema), DOCUMENT_SCHEMA);
		return false;
	}
	if (json_is_string(checksum)) {
		const char *found = json_string_value(checksum);
		size_t length = json_string_length(checksum);

		json_checksum(json, expected);
		if (strcmp(found, expected) != 0) {
			wrong(rd, &(struct place){ NULL, "checksum", 0 }, "%.*s%s: expected %s",
				FIELD_QUOTE(found, length), expected);
			return false;
		}
	}
	return true;
}

static void read_document(struct reader *rd, const json_t *json)
{
	struct target node = { &rd->config->node, &rd->config->node_given, PROTOCOL_N };
	struct target defaults = { &rd->config->rule_defaults, &rd->config->rule_defaults_given, PROTOCOL_N };
	struct members m, inner;

	setting_defaults(SETTING_SCOPE_NODE, PROTOCOL_TCP, &rd->config->node);
	if (!is_ours(rd, json))
		return;
	read_object(rd, NULL, json, SCHEMA_DOCUMENT, NULL, &m);
	if (m.of[MEMBER_DOCUMENT_version])
		read_version(rd, m.of[MEMBER_DOCUMENT_version]);
	if (m.of[MEMBER_DOCUMENT_node])
		read_object(
			rd, &(struct place){ NULL, "node", 0 }, m.of[MEMBER_DOCUMENT_node], SCHEMA_NODE, &node, &inner);
	if (m.of[MEMBER_DOCUMENT_rule_defaults])
		read_object(rd, &(struct place){ NULL, "rule_defaults", 0 }, m.of[MEMBER_DOCUMENT_rule_defaults],
			SCHEMA_RULE_DEFAULTS, &defaults, &inner);
	read_lists(rd, &m);
}

/* Members of an object stand together in the table. */
static void find_members(struct reader *rd)
{
	for (size_t i = 0; i < MEMBER_N; i++) {
		enum schema_object_id object = schema_members[i].object;

		if (rd->end[object] == 0)
			rd->first[object] = i;
		ASSERT(rd->end[object] == 0 || rd->end[object] == i);
		rd->end[object] = i + 1;
	}
}

static int read_whole(struct reader *rd, const char *text, size_t length)
{
	json_t *json;
	int r = json_read(text, length, &json, rd->problems);

	if (r)
		return r;
	find_members(rd);
	read_document(rd, json);
	json_decref(json);
	if (rd->out_of_memory)
		return fault(-ENOMEM);
	r = check_rules(NULL, rd->config, rd->problems);
	if (r)
		return r;
	return rd->problems->count || rd->problems->left_out ? DOCUMENT_E_WRONG : DOCUMENT_OK;
}

int document_parse(const char *text, size_t length, const struct limits_profile *profile, struct config *ret_config,
	struct problems *problems)
{
	struct config config = { 0 };
	struct reader rd = { .profile = profile, .problems = problems, .config = &config };
	int r = read_whole(&rd, text, length);

	for (enum kind kind = 0; kind < KIND_N; kind++)
		key_map_free(&rd.names[kind]);
	key_map_free(&rd.origins);
	if (r) {
		config_free(&config);
		return r;
	}
	rules_apply_defaults(&config);
	*ret_config = config;
	return DOCUMENT_OK;
}
