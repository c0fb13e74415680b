/* SPDX-License-Identifier: Apache-2.0 */
#include "config/settings.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum setting_type {
	TYPE_MSEC,
	TYPE_COUNT,
	TYPE_PREFIXES,
	TYPE_WORD,
	TYPE_SERVERS,
	TYPE_PPV2_MODE,
	TYPE_SPP_ANSWERS,
	TYPE_SWITCH,
	TYPE_PAYLOAD,
	TYPE_ALGORITHM,
	TYPE_ALL_DOWN,
	TYPE_CHECK_TYPE
};

enum { CARRIED_TCP = 1 << PROTOCOL_TCP, CARRIED_UDP = 1 << PROTOCOL_UDP, CARRIED_BOTH = CARRIED_TCP | CARRIED_UDP };

struct setting_row {
	const char *name;
	const char *help;
	const char *zero; /* what the value 0 means; NULL where it is not allowed */
	enum setting_type type;
	unsigned int carried_by;
	int64_t min, max;
	int64_t default_value[PROTOCOL_N]; /* of the scalar types; lists and words default to empty */
	size_t offset;
	size_t size;
};

#define FIELD_MSEC(name)	name##_ms
#define FIELD_COUNT(name)	name
#define FIELD_PREFIXES(name)	name
#define FIELD_WORD(name)	name
#define FIELD_SERVERS(name)	name
#define FIELD_PPV2_MODE(name)	name
#define FIELD_SPP_ANSWERS(name) name
#define FIELD_SWITCH(name)	name
#define FIELD_PAYLOAD(name)	name
#define FIELD_ALGORITHM(name)	name
#define FIELD_ALL_DOWN(name)	name
#define FIELD_CHECK_TYPE(name)	name

#define FIELD_OF(scope, type, name)                                                                                    \
	.offset = offsetof(struct scope, FIELD_##type(name)), .size = sizeof(((struct scope *)0)->FIELD_##type(name))

static const struct setting_row rule_rows[] = {
#define RULE_SETTING(n, t, p, lo, hi, z, tcp, udp, h)                                                                  \
	{ .name = #n,                                                                                                  \
		.type = TYPE_##t,                                                                                      \
		.carried_by = CARRIED_##p,                                                                             \
		.min = lo,                                                                                             \
		.max = hi,                                                                                             \
		.zero = z,                                                                                             \
		.default_value = { tcp, udp },                                                                         \
		.help = h,                                                                                             \
		FIELD_OF(rule_settings, t, n) },
#include "tables/setting.def"
};

#define DEFAULT_MSEC(d)	      (d)
#define DEFAULT_COUNT(d)      (d)
#define DEFAULT_SWITCH(d)     (d)
#define DEFAULT_ALGORITHM(d)  (d)
#define DEFAULT_ALL_DOWN(d)   (d)
#define DEFAULT_CHECK_TYPE(d) (d)
#define DEFAULT_SERVERS(d)    0
#define DEFAULT_WORD(d)	      0
#define DEFAULT_PAYLOAD(d)    0

#define ROW(scope, n, t, lo, hi, z, d, h)                                                                              \
	{ .name = #n,                                                                                                  \
		.type = TYPE_##t,                                                                                      \
		.carried_by = CARRIED_BOTH,                                                                            \
		.min = lo,                                                                                             \
		.max = hi,                                                                                             \
		.zero = z,                                                                                             \
		.default_value = { DEFAULT_##t(d), DEFAULT_##t(d) },                                                   \
		.help = h,                                                                                             \
		FIELD_OF(scope, t, n) },

static const struct setting_row node_rows[] = {
#define NODE_SETTING(n, t, lo, hi, z, d, h) ROW(node_settings, n, t, lo, hi, z, d, h)
#include "tables/setting.def"
};

static const struct setting_row group_rows[] = {
#define GROUP_SETTING(n, t, lo, hi, z, d, h) ROW(group_settings, n, t, lo, hi, z, d, h)
#include "tables/setting.def"
};

static const struct setting_row check_rows[] = {
#define CHECK_SETTING(n, t, lo, hi, z, d, h) ROW(check_settings, n, t, lo, hi, z, d, h)
#include "tables/setting.def"
};

static const struct setting_row origin_rows[] = {
#define ORIGIN_SETTING(n, t, lo, hi, z, d, h) ROW(origin_settings, n, t, lo, hi, z, d, h)
#include "tables/setting.def"
};

static const struct {
	const struct setting_row *rows;
	unsigned int count;
	size_t size; /* of the struct */
} scopes[SETTING_SCOPE_N] = {
	[SETTING_SCOPE_RULE] = { rule_rows, ARRAY_SIZE(rule_rows), sizeof(struct rule_settings) },
	[SETTING_SCOPE_NODE] = { node_rows, ARRAY_SIZE(node_rows), sizeof(struct node_settings) },
	[SETTING_SCOPE_GROUP] = { group_rows, ARRAY_SIZE(group_rows), sizeof(struct group_settings) },
	[SETTING_SCOPE_CHECK] = { check_rows, ARRAY_SIZE(check_rows), sizeof(struct check_settings) },
	[SETTING_SCOPE_ORIGIN] = { origin_rows, ARRAY_SIZE(origin_rows), sizeof(struct origin_settings) },
};

static const struct setting_word {
	enum setting_type type;
	int value;
	const char *word;
	const char *help;
} words[] = {
#define WORD_OF(enumeration, id, text, h) { TYPE_##enumeration, enumeration##_##id, text, h },
#include "tables/setting.def"
};

static const struct {
	const char *unit;
	int64_t ms;
} time_units[] = { { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 } };

static const struct setting_row *row_of(enum setting_scope scope, unsigned int id)
{
	ASSERT(id < scopes[scope].count);
	return &scopes[scope].rows[id];
}

static void *field_of(const struct setting_row *row, void *settings)
{
	return (char *)settings + row->offset;
}

static void store_scalar(const struct setting_row *row, int64_t value, void *settings)
{
	switch (row->type) {
	case TYPE_MSEC:
		memcpy(field_of(row, settings), &value, sizeof(value));
		break;
	case TYPE_COUNT:
	case TYPE_PPV2_MODE:
	case TYPE_SPP_ANSWERS:
	case TYPE_SWITCH:
	case TYPE_ALGORITHM:
	case TYPE_ALL_DOWN:
	case TYPE_CHECK_TYPE:
		memcpy(field_of(row, settings), &(uint32_t){ (uint32_t)value }, sizeof(uint32_t));
		break;
	case TYPE_PREFIXES:
	case TYPE_WORD:
	case TYPE_SERVERS:
	case TYPE_PAYLOAD:
		break;
	}
}

static int64_t load_scalar(const struct setting_row *row, const void *settings)
{
	const char *field = (const char *)settings + row->offset;
	int64_t ms;
	uint32_t count;

	if (row->type == TYPE_MSEC) {
		memcpy(&ms, field, sizeof(ms));
		return ms;
	}
	memcpy(&count, field, sizeof(count));
	return count;
}

void setting_defaults(enum setting_scope scope, enum protocol protocol, void *ret_settings)
{
	memset(ret_settings, 0, scopes[scope].size);
	for (unsigned int i = 0; i < scopes[scope].count; i++)
		store_scalar(&scopes[scope].rows[i], scopes[scope].rows[i].default_value[protocol], ret_settings);
}

unsigned int setting_count(enum setting_scope scope)
{
	return scopes[scope].count;
}

int setting_find(enum setting_scope scope, const char *name, size_t length)
{
	for (unsigned int i = 0; i < scopes[scope].count; i++) {
		const char *row_name = scopes[scope].rows[i].name;

		if (strlen(row_name) == length && strncasecmp(row_name, name, length) == 0)
			return (int)i;
	}
	return -1;
}

const char *setting_name(enum setting_scope scope, unsigned int id)
{
	return row_of(scope, id)->name;
}

bool setting_carried_by(unsigned int rule_setting_id, enum protocol protocol)
{
	return row_of(SETTING_SCOPE_RULE, rule_setting_id)->carried_by & 1u << protocol;
}

enum setting_form setting_form(enum setting_scope scope, unsigned int id)
{
	switch (row_of(scope, id)->type) {
	case TYPE_MSEC:
		return SETTING_FORM_TIME;
	case TYPE_COUNT:
		return SETTING_FORM_NUMBER;
	case TYPE_SWITCH:
		return SETTING_FORM_SWITCH;
	case TYPE_PREFIXES:
	case TYPE_SERVERS:
		return SETTING_FORM_LIST;
	case TYPE_WORD:
	case TYPE_PPV2_MODE:
	case TYPE_SPP_ANSWERS:
	case TYPE_PAYLOAD:
	case TYPE_ALGORITHM:
	case TYPE_ALL_DOWN:
	case TYPE_CHECK_TYPE:
		break;
	}
	return SETTING_FORM_TEXT;
}

/* --- writing --- */

static void format_ms(int64_t ms, struct text *out)
{
	size_t i = 0;

	while (ms == 0 ? strcmp(time_units[i].unit, "s") != 0 : ms % time_units[i].ms != 0)
		i++;
	text_printf(out, "%" PRId64 "%s", ms / time_units[i].ms, time_units[i].unit);
}

static void format_word(enum setting_type type, int64_t value, struct text *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].type == type && words[i].value == value)
			text_str(out, words[i].word);
}

static void format_prefixes(const struct prefix_list *list, struct text *out)
{
	char prefix[PREFIX_TEXT_SIZE];

	for (size_t i = 0; i < list->count; i++) {
		prefix_format(&list->items[i], prefix);
		text_printf(out, "%s%s", i ? "," : "", prefix);
	}
}

static void format_servers(const struct server_list *list, struct text *out)
{
	char server[ADDR_TEXT_SIZE];

	for (size_t i = 0; i < list->count; i++) {
		addr_format(&list->items[i], server);
		text_printf(out, "%s%s", i ? "," : "", server);
	}
}

/* Text where every byte can be written as it is, else hex:… */
static void format_payload(const struct payload *payload, struct text *out)
{
	bool plain = payload->length < 4 || memcmp(payload->bytes, "hex:", 4) != 0;

	for (size_t i = 0; i < payload->length; i++)
		plain = plain && payload->bytes[i] > ' ' && payload->bytes[i] < 0x7f;
	if (plain) {
		text_put(out, (const char *)payload->bytes, payload->length);
		return;
	}
	text_str(out, "hex:");
	for (size_t i = 0; i < payload->length; i++)
		text_printf(out, "%02x", payload->bytes[i]);
}

void setting_format(enum setting_scope scope, unsigned int id, const void *settings, struct text *out)
{
	const struct setting_row *row = row_of(scope, id);
	const void *field = (const char *)settings + row->offset;

	switch (row->type) {
	case TYPE_MSEC:
		format_ms(load_scalar(row, settings), out);
		break;
	case TYPE_COUNT:
		text_u64(out, (uint64_t)load_scalar(row, settings));
		break;
	case TYPE_PPV2_MODE:
	case TYPE_SPP_ANSWERS:
	case TYPE_SWITCH:
	case TYPE_ALGORITHM:
	case TYPE_ALL_DOWN:
	case TYPE_CHECK_TYPE:
		format_word(row->type, load_scalar(row, settings), out);
		break;
	case TYPE_PREFIXES:
		format_prefixes(field, out);
		break;
	case TYPE_WORD:
		text_str(out, field);
		break;
	case TYPE_SERVERS:
		format_servers(field, out);
		break;
	case TYPE_PAYLOAD:
		format_payload(field, out);
		break;
	}
}

/* What a value of the row must be, for people: "a time from 10ms to 10m (500ms, 3s, 5m, 1h), or 0". */
static void describe_expected(const struct setting_row *row, struct text *out)
{
	const char *separator = "";

	switch (row->type) {
	case TYPE_MSEC:
		text_str(out, "a time with its unit (500ms, 3s, 5m, 1h) from ");
		format_ms(row->min, out);
		text_str(out, " to ");
		format_ms(row->max, out);
		break;
	case TYPE_COUNT:
		text_printf(out, "a number from %" PRId64 " to %" PRId64, row->min, row->max);
		break;
	case TYPE_PREFIXES:
		text_printf(out, "1 to %d prefixes such as 10.0.0.0/8,2001:db8::/32, no bit set behind a prefix",
			PREFIX_LIST_MAX);
		break;
	case TYPE_WORD:
		text_printf(out, "1 to %d characters of a-z A-Z 0-9 . _ -", WORD_MAX);
		break;
	case TYPE_SERVERS:
		text_printf(out, "1 to %d addresses such as 127.0.0.1,[2001:db8::1]:5353", SERVER_LIST_MAX);
		break;
	case TYPE_PAYLOAD:
		text_printf(out, "1 to %d bytes as text, or as hex:… with two digits a byte", PAYLOAD_MAX);
		break;
	case TYPE_PPV2_MODE:
	case TYPE_SPP_ANSWERS:
	case TYPE_SWITCH:
	case TYPE_ALGORITHM:
	case TYPE_ALL_DOWN:
	case TYPE_CHECK_TYPE:
		for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
			if (words[i].type != row->type)
				continue;
			text_printf(out, "%s%s", separator, words[i].word);
			separator = ", ";
		}
		break;
	}
	if (row->zero)
		text_printf(out, ", or 0 (%s)", row->zero);
}

void setting_expected(enum setting_scope scope, unsigned int id, struct text *out)
{
	describe_expected(row_of(scope, id), out);
}

/* --- reading --- */

/* Digits into a number of at most @max; -EINVAL for anything else. @ret_used: how many digits there were. */
static int parse_digits(const char *value, size_t length, int64_t max, int64_t *ret_number, size_t *ret_used)
{
	int64_t n = 0;
	size_t i;

	for (i = 0; i < length && value[i] >= '0' && value[i] <= '9'; i++) {
		n = n * 10 + (value[i] - '0');
		if (n > max)
			return -EINVAL;
	}
	if (i == 0)
		return -EINVAL;
	*ret_number = n;
	*ret_used = i;
	return 0;
}

static int parse_scalar(const struct setting_row *row, const char *value, size_t length, int64_t *ret)
{
	int64_t n, factor = 1;
	size_t used;
	int r;

	r = parse_digits(value, length, INT64_C(1) << 40, &n, &used);
	if (r)
		return r;
	if (row->zero && n == 0 && used == length) {
		*ret = 0;
		return 0;
	}
	if (row->type == TYPE_MSEC) {
		factor = 0;
		for (size_t i = 0; i < ARRAY_SIZE(time_units); i++)
			if (length - used == strlen(time_units[i].unit) &&
				strncasecmp(value + used, time_units[i].unit, length - used) == 0)
				factor = time_units[i].ms;
	} else if (used != length) {
		return -EINVAL;
	}
	n *= factor;
	if (factor == 0 || ((n < row->min || n > row->max) && !(row->zero && n == 0)))
		return -EINVAL;
	*ret = n;
	return 0;
}

static int parse_word_of(enum setting_type type, const char *value, size_t length, int64_t *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (words[i].type == type && strlen(words[i].word) == length &&
			strncasecmp(words[i].word, value, length) == 0) {
			*ret = words[i].value;
			return 0;
		}
	}
	return -EINVAL;
}

/* Calls @item for each part between commas; an empty part is -EINVAL. */
static int parse_list(const char *value, size_t length, size_t max, void *list,
	int (*item)(const char *text, size_t length, size_t index, void *list), size_t *ret_count)
{
	size_t at = 0, count = 0;

	for (;;) {
		const char *comma = memchr(value + at, ',', length - at);
		size_t end = comma ? (size_t)(comma - value) : length;

		if (end == at || count == max || item(value + at, end - at, count, list))
			return -EINVAL;
		count++;
		if (!comma)
			break;
		at = end + 1;
	}
	*ret_count = count;
	return 0;
}

static int parse_prefix_item(const char *text, size_t length, size_t index, void *list)
{
	struct prefix *prefixes = list;

	return prefix_parse(text, length, &prefixes[index]);
}

static int parse_server_item(const char *text, size_t length, size_t index, void *list)
{
	struct addr *servers = list;
	int r = addr_parse(text, length, 53, &servers[index]);

	return r == 0 && servers[index].port == 0 ? -EINVAL : r;
}

static int parse_prefixes(const char *value, size_t length, struct arena *arena, struct prefix_list *ret)
{
	struct prefix found[PREFIX_LIST_MAX], *items;
	size_t count;
	int r;

	r = parse_list(value, length, PREFIX_LIST_MAX, found, parse_prefix_item, &count);
	if (r)
		return r;
	items = arena_alloc(arena, count * sizeof(*items));
	if (!items)
		return fault(-ENOMEM);
	memcpy(items, found, count * sizeof(*items));
	*ret = (struct prefix_list){ .items = items, .count = count };
	return 0;
}

static int parse_servers(const char *value, size_t length, struct server_list *ret)
{
	struct server_list found = { 0 };
	int r;

	r = parse_list(value, length, SERVER_LIST_MAX, found.items, parse_server_item, &found.count);
	if (r)
		return r;
	*ret = found;
	return 0;
}

static int parse_word(const char *value, size_t length, char ret[static WORD_MAX + 1])
{
	if (length == 0 || length > WORD_MAX)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		char c = value[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
			    c == '_' || c == '-'))
			return -EINVAL;
	}
	memset(ret, 0, WORD_MAX + 1);
	memcpy(ret, value, length);
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int parse_payload(const char *value, size_t length, struct payload *ret)
{
	struct payload found = { 0 };

	if (length < 4 || strncasecmp(value, "hex:", 4) != 0) {
		if (length == 0 || length > PAYLOAD_MAX)
			return -EINVAL;
		found.length = (uint16_t)length;
		memcpy(found.bytes, value, length);
		*ret = found;
		return 0;
	}
	if (length == 4 || length % 2 != 0 || (length - 4) / 2 > PAYLOAD_MAX)
		return -EINVAL;
	for (size_t i = 4; i < length; i += 2) {
		int high = hex_digit(value[i]), low = hex_digit(value[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		found.bytes[found.length++] = (uint8_t)(high << 4 | low);
	}
	*ret = found;
	return 0;
}

int setting_parse(enum setting_scope scope, unsigned int id, const char *value, size_t length, struct arena *arena,
	void *settings, struct text *ret_why)
{
	const struct setting_row *row = row_of(scope, id);
	void *field = field_of(row, settings);
	int64_t scalar = 0;
	int r = -EINVAL;

	switch (row->type) {
	case TYPE_MSEC:
	case TYPE_COUNT:
		r = parse_scalar(row, value, length, &scalar);
		break;
	case TYPE_PPV2_MODE:
	case TYPE_SPP_ANSWERS:
	case TYPE_SWITCH:
	case TYPE_ALGORITHM:
	case TYPE_ALL_DOWN:
	case TYPE_CHECK_TYPE:
		r = parse_word_of(row->type, value, length, &scalar);
		break;
	case TYPE_PREFIXES:
		r = parse_prefixes(value, length, arena, field);
		break;
	case TYPE_WORD:
		r = parse_word(value, length, field);
		break;
	case TYPE_SERVERS:
		r = parse_servers(value, length, field);
		break;
	case TYPE_PAYLOAD:
		r = parse_payload(value, length, field);
		break;
	}
	if (r == -EINVAL)
		describe_expected(row, ret_why);
	if (r == 0)
		store_scalar(row, scalar, settings);
	return r;
}

void setting_copy(enum setting_scope scope, unsigned int id, const void *from, void *to)
{
	const struct setting_row *row = row_of(scope, id);

	memcpy(field_of(row, to), (const char *)from + row->offset, row->size);
}

bool setting_equal(enum setting_scope scope, unsigned int id, const void *a, const void *b)
{
	const struct setting_row *row = row_of(scope, id);
	const void *fa = (const char *)a + row->offset, *fb = (const char *)b + row->offset;

	if (row->type == TYPE_PREFIXES) {
		const struct prefix_list *la = fa, *lb = fb;

		return la->count == lb->count &&
			(la->count == 0 || memcmp(la->items, lb->items, la->count * sizeof(*la->items)) == 0);
	}
	return memcmp(fa, fb, row->size) == 0;
}

static bool has_default(const struct setting_row *row)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].type == row->type)
			return true;
	return row->type == TYPE_MSEC || row->type == TYPE_COUNT;
}

static void document_default(enum setting_scope scope, unsigned int id, enum protocol protocol, struct text *out)
{
	union {
		struct rule_settings rule;
		struct node_settings node;
		struct group_settings group;
		struct check_settings check;
		struct origin_settings origin;
	} settings;

	setting_defaults(scope, protocol, &settings);
	if (has_default(row_of(scope, id)))
		setting_format(scope, id, &settings, out);
	else
		text_str(out, "none");
}

static void document_rows(enum setting_scope scope, const char *title, struct text *out)
{
	bool of_rule = scope == SETTING_SCOPE_RULE;

	text_printf(out, "\n## %s\n\n| option | %svalue | default | what it does |\n| --- | %s--- | --- | --- |\n",
		title, of_rule ? "of | " : "", of_rule ? "--- | " : "");
	for (unsigned int i = 0; i < scopes[scope].count; i++) {
		const struct setting_row *row = row_of(scope, i);

		text_printf(out, "| `%s` | ", row->name);
		if (of_rule)
			text_printf(out, "%s | ",
				row->carried_by == CARRIED_TCP		 ? "tcp"
					: row->carried_by == CARRIED_UDP ? "udp"
									 : "tcp, udp");
		describe_expected(row, out);
		text_str(out, " | ");
		document_default(scope, i, row->carried_by == CARRIED_UDP ? PROTOCOL_UDP : PROTOCOL_TCP, out);
		if (row->carried_by == CARRIED_BOTH &&
			row->default_value[PROTOCOL_TCP] != row->default_value[PROTOCOL_UDP]) {
			text_str(out, "; udp ");
			document_default(scope, i, PROTOCOL_UDP, out);
		}
		text_printf(out, " | %s |\n", row->help);
	}
}

static void document_words(struct text *out)
{
	text_str(out, "\n## Words\n\n| option | word | means |\n| --- | --- | --- |\n");
	for (unsigned int scope = 0; scope < SETTING_SCOPE_N; scope++)
		for (unsigned int i = 0; i < scopes[scope].count; i++)
			for (size_t w = 0; w < ARRAY_SIZE(words); w++)
				if (words[w].type == scopes[scope].rows[i].type && words[w].type != TYPE_SWITCH)
					text_printf(out, "| `%s` | `%s` | %s |\n", scopes[scope].rows[i].name,
						words[w].word, words[w].help);
}

void settings_document(struct text *out)
{
	text_str(out,
		"# Settings\n\nMade from tables/setting.def by `make docs`. How they are written in a rules file: "
		"[rules-file.md](../rules-file.md); in a configuration document: [snapshot.md](snapshot.md).\n");
	document_rows(SETTING_SCOPE_RULE, "Of a rule", out);
	document_rows(SETTING_SCOPE_NODE, "Of the node", out);
	document_rows(SETTING_SCOPE_GROUP, "Of an origin group", out);
	document_rows(SETTING_SCOPE_CHECK, "Of a group's health check", out);
	document_rows(SETTING_SCOPE_ORIGIN, "Of an origin of a group", out);
	document_words(out);
}
