/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a rules file. A line is cut into words, each knowing its column; a rule takes its fields from them one by
 * one. A wrong field is noted and the others are still looked at, so that one run shows everything. What concerns
 * several lines (defaults, ports claimed twice) is done after the last line.
 */
#include "base/error.h"
#include "base/key_map.h"
#include "config/check.h"
#include "config/field.h"
#include "config/rules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct word {
	const char *text;
	size_t length;
};

struct parse {
	const struct limits_profile *profile;
	struct problems *problems;
	const struct config *base; /* or NULL */
	struct key_map groups;	   /* of the base, by name in lower case */
	struct config *set;
	size_t rules_max; /* that the base leaves of the profile's */
	unsigned int line;
	const char *line_start;
	const char *line_end;
	const char *at;	       /* the rest of the line begins here */
	const char *column_at; /* column_of() was last asked for this place in the line, */
	unsigned int column;   /* and this was the answer */
	bool out_of_memory;
};

/*
 * Columns count characters: bytes that continue a UTF-8 character don't. Counting goes on from the last answer, since a
 * line may have millions of entries.
 */
static unsigned int column_of(struct parse *p, const char *at)
{
	if (at < p->column_at) {
		p->column_at = p->line_start;
		p->column = 1;
	}
	for (; p->column_at < at; p->column_at++)
		p->column += ((unsigned char)*p->column_at & 0xc0) != 0x80;
	return p->column;
}

#define wrong(p, at, ...) problem_add((p)->problems, (p)->line, column_of((p), (at)), __VA_ARGS__)

#define WORD_FMT     FIELD_QUOTED
#define WORD_ARGS(w) FIELD_QUOTE((w).text, (w).length)

/* Notes what a check of the field @what, which begins at @at, found; or that memory is out. True if all is well. */
static bool field_ok(struct parse *p, int r, const char *what, const char *at, const struct field_fault *why)
{
	char bytes[1024];
	struct text message = text_fixed(bytes, sizeof(bytes));

	if (r == -ENOMEM)
		p->out_of_memory = true;
	if (r != FIELD_E_WRONG)
		return r == FIELD_OK;
	field_message_text(why, what, &message);
	wrong(p, why->at ? why->at : at, "%s", bytes);
	return false;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool word_is(struct word w, const char *what)
{
	return w.length == strlen(what) && strncasecmp(w.text, what, w.length) == 0;
}

static void skip_blanks(struct parse *p)
{
	while (p->at < p->line_end && is_blank(*p->at))
		p->at++;
}

/* The next word; empty at the end of the line. */
static struct word next_word(struct parse *p)
{
	struct word w;

	skip_blanks(p);
	w.text = p->at;
	while (p->at < p->line_end && !is_blank(*p->at))
		p->at++;
	w.length = (size_t)(p->at - w.text);
	return w;
}

static void *take(struct parse *p, size_t size)
{
	void *at = arena_alloc(&p->set->arena, size);

	if (!at)
		p->out_of_memory = true;
	return at;
}

/* --- ports --- */

static bool parse_entry(struct parse *p, enum protocol protocol, struct word w, struct port_range *ret)
{
	struct field_fault why;
	int r = field_range(w.text, w.length, p->profile->port_max, ret, &why);

	if (r == FIELD_OK)
		r = field_reserved(p->profile, protocol, *ret, w.text, &why);
	return field_ok(p, r, "edge port", w.text, &why);
}

/* "80;443;8000-8010" into rule->edge_ports. */
static bool parse_edge_ports(struct parse *p, struct word list, struct rule *rule)
{
	const char *end = list.text + list.length;
	unsigned int *columns;
	struct port_range *ranges;
	size_t max = 1, count = 0;
	bool ok = true;

	for (const char *c = list.text; c < end; c++)
		max += *c == ';' || *c == ',';
	if (p->profile->entries_max && max > p->profile->entries_max) {
		wrong(p, list.text, "%zu edge port entries, expected at most %u", max, p->profile->entries_max);
		return false;
	}
	ranges = take(p, max * sizeof(*ranges));
	columns = take(p, max * sizeof(*columns));
	if (!ranges || !columns)
		return false;
	for (const char *at = list.text;;) {
		struct word w = { .text = at };

		while (at < end && *at != ';' && *at != ',')
			at++;
		w.length = (size_t)(at - w.text);
		if (parse_entry(p, rule->protocol, w, &ranges[count]))
			columns[count++] = column_of(p, w.text);
		else
			ok = false;
		if (at == end)
			break;
		at++;
	}
	rule->edge_ports = (struct port_list){ .items = ranges, .count = count };
	rule->edge_columns = columns;
	return ok;
}

static bool parse_protocol_and_ports(struct parse *p, struct rule *rule)
{
	struct word w = next_word(p), protocol = w, ports = w;
	const char *colon = memchr(w.text, ':', w.length);

	if (colon) {
		protocol.length = (size_t)(colon - w.text);
		ports.text = colon + 1;
		ports.length = w.length - protocol.length - 1;
	}
	if (word_is(protocol, "tcp")) {
		rule->protocol = PROTOCOL_TCP;
	} else if (word_is(protocol, "udp")) {
		rule->protocol = PROTOCOL_UDP;
	} else {
		wrong(p, w.text, "protocol " WORD_FMT ", expected tcp:PORTS or udp:PORTS", WORD_ARGS(protocol));
		return false;
	}
	if (!colon) {
		wrong(p, w.text + w.length, "no edge ports, expected ':' and ports after \"%s\"",
			protocol_name(rule->protocol));
		return false;
	}
	return parse_edge_ports(p, ports, rule);
}

/* --- origin --- */

/* "og:NAME" */
static void parse_group(struct parse *p, struct word w, struct rule *rule)
{
	char name[OBJECT_NAME_MAX];
	uint32_t index;

	if (w.length - 3 <= sizeof(name)) {
		config_fold_name(w.text + 3, w.length - 3, name);
		if (key_map_get(&p->groups, name, w.length - 3, &index)) {
			rule->group = &p->base->groups[index];
			return;
		}
	}
	wrong(p, w.text,
		"origin " WORD_FMT ", expected a group of the configuration document (there is none of that name)",
		WORD_ARGS(w));
}

static void parse_origin(struct parse *p, struct rule *rule)
{
	struct word w = next_word(p);
	struct field_fault why;

	if (w.length == 0)
		wrong(p, w.text, "no origin, expected an address, a name or og:NAME");
	else if (field_names_group(w.text, w.length))
		parse_group(p, w, rule);
	else
		field_ok(p, field_host(w.text, w.length, HOST_FORM_TEXT, &p->set->arena, &rule->origin, &why), "origin",
			w.text, &why);
}

static void parse_origin_ports(struct parse *p, struct rule *rule, bool edge_ports_ok)
{
	struct word w = next_word(p);
	struct field_fault why;
	int r;

	if (w.length == 0) {
		wrong(p, w.text, "no origin port, expected a port or a range");
		return;
	}
	r = field_range(w.text, w.length, UINT16_MAX, &rule->origin_ports, &why);
	if (r == FIELD_OK && edge_ports_ok)
		r = field_origin_ports(&rule->edge_ports, rule->origin_ports, &why);
	field_ok(p, r, "origin port", w.text, &why);
}

/* --- words and options --- */

static void parse_persistence(struct parse *p, struct rule *rule)
{
	struct word w = next_word(p);
	struct field_fault why;

	if (w.length == 0)
		wrong(p, w.text, "no session persistence, expected on or off");
	else
		field_ok(p, field_switch(w.text, w.length, &rule->persistence, &why), "session persistence", w.text,
			&why);
}

static void parse_pass(struct parse *p, struct rule *rule, bool protocol_ok)
{
	struct word w = next_word(p);
	struct field_fault why;
	int r;

	if (w.length == 0) {
		wrong(p, w.text, "no pass mode, expected toa, ppv1, ppv2, spp or off");
		return;
	}
	rule->pass_column = column_of(p, w.text);
	r = field_pass(w.text, w.length, protocol_ok ? rule->protocol : PROTOCOL_N, &rule->pass, &why);
	field_ok(p, r, "pass mode", w.text, &why);
}

/* Whether a word is written like an option: letters, digits and '_' up to a '='. */
static bool looks_like_option(struct word w, size_t *ret_name_length)
{
	size_t i = 0;

	while (i < w.length &&
		(w.text[i] == '_' || (w.text[i] >= '0' && w.text[i] <= '9') || (w.text[i] >= 'a' && w.text[i] <= 'z') ||
			(w.text[i] >= 'A' && w.text[i] <= 'Z')))
		i++;
	*ret_name_length = i;
	return i > 0 && i < w.length && w.text[i] == '=';
}

/* Whether a "set" option stands in the document too. A rule's own options are no concern of the document. */
static bool given_in_base(const struct parse *p, enum setting_scope scope, unsigned int id, const setting_mask *given)
{
	if (!p->base)
		return false;
	if (scope == SETTING_SCOPE_NODE)
		return p->base->node_given & 1u << id;
	return given == &p->set->rule_defaults_given && p->base->rule_defaults_given & 1u << id;
}

/* One NAME=VALUE into @settings. @protocol: of the rule, or PROTOCOL_N where it does not matter. */
static void parse_option(struct parse *p, enum setting_scope scope, struct word w, size_t name_length,
	enum protocol protocol, void *settings, setting_mask *given)
{
	const char *value = w.text + name_length + 1;
	char why_bytes[256], what[80];
	struct text expected = text_fixed(why_bytes, sizeof(why_bytes));
	struct word name = { w.text, name_length }, value_word = { value, w.length - name_length - 1 };
	int id = setting_find(scope, w.text, name_length);
	struct field_fault why;
	int r;

	if (id < 0) {
		wrong(p, w.text,
			"option " WORD_FMT ", expected one of docs/reference/settings.md (write a tag that looks like "
			"an option in quotes)",
			WORD_ARGS(name));
		return;
	}
	if (*given & 1u << id) {
		wrong(p, w.text, "option %s, expected it once", setting_name(scope, (unsigned int)id));
		return;
	}
	*given |= 1u << id;
	if (given_in_base(p, scope, (unsigned int)id, given)) {
		wrong(p, w.text, "option %s, expected it here or in the configuration document, not in both",
			setting_name(scope, (unsigned int)id));
		return;
	}
	snprintf(what, sizeof(what), "option %s", setting_name(scope, (unsigned int)id));
	if (scope == SETTING_SCOPE_RULE &&
		!field_ok(p, field_carried((unsigned int)id, protocol, &why), what, w.text, &why))
		return;
	r = setting_parse(scope, (unsigned int)id, value, value_word.length, &p->set->arena, settings, &expected);
	if (r == -ENOMEM)
		p->out_of_memory = true;
	else if (r)
		wrong(p, value, "%s " WORD_FMT ", expected %s", setting_name(scope, (unsigned int)id),
			WORD_ARGS(value_word), expected.bytes);
}

/* --- tag --- */

/* @tag: unquoted text. Notes what is wrong with it at @at. */
static void store_tag(struct parse *p, const char *at, const char *tag, size_t length, struct rule *rule)
{
	struct field_fault why;
	int r = field_tag(tag, length, &p->set->arena, &rule->tag, &why);

	why.at = NULL; /* the tag may be a copy: the place is where it begins in the line */
	field_ok(p, r, "tag", at, &why);
}

static void parse_quoted_tag(struct parse *p, struct rule *rule)
{
	const char *start = p->at, *c = p->at + 1;
	char *tag = take(p, (size_t)(p->line_end - p->at));
	size_t length = 0;

	if (!tag)
		return;
	while (c < p->line_end && *c != '"') {
		if (*c == '\\') {
			if (c + 1 == p->line_end || (c[1] != '"' && c[1] != '\\')) {
				wrong(p, c, "'\\' in a quoted tag, expected \\\" or \\\\");
				return;
			}
			c++;
		}
		tag[length++] = *c++;
	}
	if (c == p->line_end) {
		wrong(p, start, "tag without a closing quote, expected '\"' at its end");
		return;
	}
	p->at = c + 1;
	skip_blanks(p);
	if (p->at < p->line_end && *p->at != '#') {
		wrong(p, p->at, "text after a quoted tag, expected the end of the line");
		return;
	}
	store_tag(p, start, tag, length, rule);
}

/* The rest of the line: words joined by one blank each. */
static void parse_plain_tag(struct parse *p, struct rule *rule)
{
	const char *start = p->at;
	char *tag = take(p, (size_t)(p->line_end - p->at) + 1);
	size_t length = 0;

	if (!tag)
		return;
	for (struct word w = next_word(p); w.length; w = next_word(p)) {
		if (length)
			tag[length++] = ' ';
		memcpy(tag + length, w.text, w.length);
		length += w.length;
	}
	store_tag(p, start, tag, length, rule);
}

static void parse_options_and_tag(struct parse *p, struct rule *rule, bool protocol_ok)
{
	for (;;) {
		size_t name_length;
		struct word w;
		const char *before;

		skip_blanks(p);
		if (p->at == p->line_end || *p->at == '#')
			return;
		if (*p->at == '"') {
			parse_quoted_tag(p, rule);
			return;
		}
		before = p->at;
		w = next_word(p);
		if (!looks_like_option(w, &name_length)) {
			p->at = before;
			parse_plain_tag(p, rule);
			return;
		}
		parse_option(p, SETTING_SCOPE_RULE, w, name_length, protocol_ok ? rule->protocol : PROTOCOL_N,
			&rule->settings, &rule->given);
	}
}

/* --- lines --- */

static void parse_rule(struct parse *p)
{
	size_t base_count = p->base ? p->base->rule_count : 0;
	struct rule rule = { .line = p->line };
	bool edge_ok, protocol_ok;

	if (p->set->rule_count == p->rules_max) {
		wrong(p, p->at, "rule %zu, expected at most %u rules%s", base_count + p->set->rule_count + 1,
			p->profile->rules_max, base_count ? ", those of the configuration document included" : "");
		p->set->rule_count++; /* said once: later lines are past the limit too */
		return;
	}
	if (p->set->rule_count > p->rules_max)
		return;
	edge_ok = parse_protocol_and_ports(p, &rule);
	protocol_ok = rule.edge_ports.items != NULL;
	parse_origin(p, &rule);
	parse_origin_ports(p, &rule, edge_ok);
	parse_persistence(p, &rule);
	parse_pass(p, &rule, protocol_ok);
	parse_options_and_tag(p, &rule, protocol_ok);
	if (edge_ok)
		rule_make_id(&rule, rule.id);
	p->set->rules[p->set->rule_count++] = rule;
}

static void parse_set(struct parse *p)
{
	struct word scope_word = next_word(p);
	enum setting_scope scope;
	unsigned int options = 0;

	if (word_is(scope_word, "rule")) {
		scope = SETTING_SCOPE_RULE;
	} else if (word_is(scope_word, "node")) {
		scope = SETTING_SCOPE_NODE;
	} else {
		wrong(p, scope_word.text, "set " WORD_FMT ", expected \"set rule\" or \"set node\"",
			WORD_ARGS(scope_word));
		return;
	}
	for (;;) {
		struct word w = next_word(p);
		size_t name_length;

		if (w.length == 0 || w.text[0] == '#')
			break;
		options++;
		if (!looks_like_option(w, &name_length))
			wrong(p, w.text, WORD_FMT ", expected OPTION=VALUE", WORD_ARGS(w));
		else if (scope == SETTING_SCOPE_RULE)
			parse_option(p, scope, w, name_length, PROTOCOL_N, &p->set->rule_defaults,
				&p->set->rule_defaults_given);
		else
			parse_option(p, scope, w, name_length, PROTOCOL_N, &p->set->node, &p->set->node_given);
	}
	if (options == 0)
		wrong(p, p->line_end, "set without an option, expected OPTION=VALUE");
}

static void parse_line(struct parse *p)
{
	struct word first;

	skip_blanks(p);
	if (p->at == p->line_end || *p->at == '#')
		return;
	if (memchr(p->at, 0, (size_t)(p->line_end - p->at))) {
		wrong(p, p->at, "a NUL byte in the line, expected text");
		return;
	}
	first = next_word(p);
	if (word_is(first, "set")) {
		parse_set(p);
		return;
	}
	p->at = first.text;
	parse_rule(p);
}

static void parse_lines(struct parse *p, const char *text, size_t length)
{
	const char *end = text + length;

	if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3;
	while (text < end && !p->out_of_memory) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));

		p->line++;
		p->line_start = p->at = p->column_at = text;
		p->column = 1;
		p->line_end = newline ? newline : end;
		if (p->line_end > text && p->line_end[-1] == '\r')
			p->line_end--;
		parse_line(p);
		text = newline ? newline + 1 : end;
	}
}

/* --- the whole --- */

static int find_groups(struct parse *p)
{
	for (size_t i = 0; p->base && i < p->base->group_count; i++) {
		const char *name = p->base->groups[i].name;
		char folded[OBJECT_NAME_MAX];
		uint32_t other;
		int r;

		config_fold_name(name, strlen(name), folded);
		r = key_map_put(&p->groups, folded, strlen(name), (uint32_t)i, &other);
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_whole(struct parse *p, const char *text, size_t length)
{
	int r = find_groups(p);

	if (r)
		return r;
	setting_defaults(SETTING_SCOPE_NODE, PROTOCOL_TCP, &p->set->node);
	p->set->rules = take(p, (p->rules_max + 1) * sizeof(*p->set->rules));
	if (!p->out_of_memory)
		parse_lines(p, text, length);
	if (p->out_of_memory)
		return fault(-ENOMEM);
	p->set->rule_count = MIN(p->set->rule_count, p->rules_max);
	r = check_rules(p->base, p->set, p->problems);
	if (r)
		return r;
	return p->problems->count || p->problems->left_out ? RULES_E_WRONG : RULES_OK;
}

int rules_parse(const char *text, size_t length, const struct limits_profile *profile, const struct config *base,
	struct config *ret_set, struct problems *problems)
{
	struct config set = { 0 };
	size_t base_count = base ? base->rule_count : 0;
	struct parse p = { .profile = profile, .problems = problems, .base = base, .set = &set };
	int r;

	if (length > RULES_TEXT_MAX) {
		problem_add(problems, 1, 1, "a file of %zu bytes, expected at most %d", length, RULES_TEXT_MAX);
		return RULES_E_WRONG;
	}
	p.rules_max = profile->rules_max - MIN(base_count, (size_t)profile->rules_max);
	r = parse_whole(&p, text, length);
	key_map_free(&p.groups);
	if (r) {
		problems_sort(problems);
		config_free(&set);
		return r;
	}
	rules_apply_defaults(&set);
	*ret_set = set;
	return RULES_OK;
}
