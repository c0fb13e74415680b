/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a rules file. A line is cut into words, each knowing its column; a rule takes its fields from them one by
 * one. A wrong field is noted and the others are still looked at, so that one run shows everything. What concerns
 * several lines (defaults, ports claimed twice) is done after the last line.
 */
#include "base/error.h"
#include "base/hash.h"
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
	struct config *set;
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

/* For messages: a word as it was written, but never long enough to flood the reader. */
#define WORD_FMT     "\"%.*s%s\""
#define WORD_ARGS(w) (int)MIN((w).length, (size_t)60), (w).text, (w).length > 60 ? "…" : ""

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

/* --- numbers and ports --- */

static bool parse_port(struct word w, unsigned long *ret_port)
{
	unsigned long n = 0;

	if (w.length == 0 || w.length > 9)
		return false;
	for (size_t i = 0; i < w.length; i++) {
		if (w.text[i] < '0' || w.text[i] > '9')
			return false;
		n = n * 10 + (unsigned long)(w.text[i] - '0');
	}
	*ret_port = n;
	return true;
}

/* A port or FIRST-LAST within 1..@max. Notes what is wrong. */
static bool parse_range(struct parse *p, struct word w, unsigned int max, const char *what, struct port_range *ret)
{
	const char *dash = w.length ? memchr(w.text, '-', w.length) : NULL;
	struct word first = w, last = w;
	unsigned long a, b;

	if (dash) {
		first.length = (size_t)(dash - w.text);
		last.text = dash + 1;
		last.length = w.length - first.length - 1;
	}
	if (!parse_port(first, &a) || !parse_port(last, &b)) {
		wrong(p, w.text, "%s " WORD_FMT ", expected a port or a range such as 80 or 80-90", what, WORD_ARGS(w));
		return false;
	}
	if (a < 1 || a > max || b < 1 || b > max) {
		bool first_bad = a < 1 || a > max;

		wrong(p, first_bad ? first.text : last.text, "%s %lu, expected 1-%u", what, first_bad ? a : b, max);
		return false;
	}
	if (a > b) {
		wrong(p, w.text, "%s range %lu-%lu, expected the lower port first", what, a, b);
		return false;
	}
	*ret = (struct port_range){ .first = (uint16_t)a, .last = (uint16_t)b };
	return true;
}

static bool check_reserved(struct parse *p, const struct rule *rule, struct word w, struct port_range range)
{
	for (const uint16_t *port = p->profile->reserved[rule->protocol]; *port; port++) {
		if (*port >= range.first && *port <= range.last) {
			wrong(p, w.text, "%s port %u, expected a port that the profile \"%s\" does not reserve",
				protocol_name(rule->protocol), *port, p->profile->name);
			return false;
		}
	}
	return true;
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
		if (parse_range(p, w, p->profile->port_max, "edge port", &ranges[count]) &&
			check_reserved(p, rule, w, ranges[count]))
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

static bool label_ok(const char *label, size_t length)
{
	if (length == 0 || length > 63 || label[0] == '-' || label[length - 1] == '-')
		return false;
	for (size_t i = 0; i < length; i++) {
		char c = label[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
			    c == '_'))
			return false;
	}
	return true;
}

/* A host name (RFC 1123, and '_' since DNS has such names) whose last label is not a number. */
static bool name_ok(struct word w)
{
	const char *label = w.text, *end = w.text + w.length;

	if (w.length && end[-1] == '.')
		end--;
	if (end == label || end - label > NAME_MAX_LENGTH)
		return false;
	for (;;) {
		const char *dot = memchr(label, '.', (size_t)(end - label));
		const char *label_end = dot ? dot : end;

		if (!label_ok(label, (size_t)(label_end - label)))
			return false;
		if (!dot)
			break;
		label = dot + 1;
	}
	for (const char *c = label; c < end; c++)
		if (*c < '0' || *c > '9')
			return true;
	return false;
}

static bool parse_origin_ip(struct parse *p, struct word w, struct word ip_text, struct rule *rule)
{
	static const struct ip any_v6;
	struct ip ip;
	bool multicast;

	if (ip_parse(ip_text.text, ip_text.length, &ip) || (w.text != ip_text.text && ip_is_v4(&ip)))
		return false;
	multicast = ip_is_v4(&ip) ? ip.bytes[12] >= 224 : ip.bytes[0] == 0xff;
	if (multicast || ip_equal(&ip, &any_v6) || (ip_is_v4(&ip) && ip.bytes[12] == 0)) {
		wrong(p, w.text, "origin " WORD_FMT ", expected the address of one host", WORD_ARGS(w));
		return true;
	}
	rule->origin.ip = ip;
	return true;
}

static bool parse_origin_name(struct parse *p, struct word w, struct rule *rule)
{
	char *name;

	if (!name_ok(w))
		return false;
	if (w.text[w.length - 1] == '.')
		w.length--;
	name = arena_strndup(&p->set->arena, w.text, w.length);
	if (!name) {
		p->out_of_memory = true;
		return true;
	}
	for (char *c = name; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c + ('a' - 'A'));
	rule->origin.name = name;
	return true;
}

static void parse_origin(struct parse *p, struct rule *rule)
{
	struct word w = next_word(p);
	struct word inside = { w.text + 1, w.length - 2 };
	struct ip ip;

	if (w.length == 0) {
		wrong(p, w.text, "no origin, expected an address, a name or og:NAME");
	} else if (w.length >= 3 && strncasecmp(w.text, "og:", 3) == 0) {
		wrong(p, w.text,
			"origin " WORD_FMT ": origin groups are not available yet, expected an address or a name",
			WORD_ARGS(w));
	} else if (w.text[0] == '[') {
		if (w.length < 2 || w.text[w.length - 1] != ']' || !parse_origin_ip(p, w, inside, rule))
			wrong(p, w.text, "origin " WORD_FMT ", expected an IPv6 address in brackets", WORD_ARGS(w));
	} else if (memchr(w.text, ':', w.length)) {
		if (ip_parse(w.text, w.length, &ip) == 0)
			wrong(p, w.text, "origin " WORD_FMT ", expected brackets around an IPv6 address", WORD_ARGS(w));
		else
			wrong(p, w.text,
				"origin " WORD_FMT
				", expected an address or a name; the origin port is a field of its own",
				WORD_ARGS(w));
	} else if (!parse_origin_ip(p, w, w, rule) && !parse_origin_name(p, w, rule)) {
		wrong(p, w.text,
			"origin " WORD_FMT ", expected an IPv4 address, an IPv6 address in brackets, a name or og:NAME",
			WORD_ARGS(w));
	}
}

static void parse_origin_ports(struct parse *p, struct rule *rule, bool edge_ports_ok)
{
	struct word w = next_word(p);
	unsigned int length, edge_length;

	if (w.length == 0) {
		wrong(p, w.text, "no origin port, expected a port or a range");
		return;
	}
	if (!parse_range(p, w, UINT16_MAX, "origin port", &rule->origin_ports) || !edge_ports_ok)
		return;
	length = rule->origin_ports.last - rule->origin_ports.first + 1u;
	edge_length = rule->edge_ports.items[0].last - rule->edge_ports.items[0].first + 1u;
	if (length > 1 && (rule->edge_ports.count != 1 || length != edge_length))
		wrong(p, w.text,
			"origin port range of %u, expected one port, or one edge range of the same length (found %zu "
			"%s of %u)",
			length, rule->edge_ports.count, rule->edge_ports.count == 1 ? "entry" : "entries, the first",
			edge_length);
}

/* --- words and options --- */

static void parse_persistence(struct parse *p, struct rule *rule)
{
	struct word w = next_word(p);

	if (word_is(w, "on"))
		rule->persistence = true;
	else if (w.length == 0)
		wrong(p, w.text, "no session persistence, expected on or off");
	else if (!word_is(w, "off"))
		wrong(p, w.text, "session persistence " WORD_FMT ", expected on or off", WORD_ARGS(w));
}

static void parse_pass(struct parse *p, struct rule *rule, bool protocol_ok)
{
	static const struct {
		const char *word;
		bool carried[PROTOCOL_N];
		bool available;
	} modes[] = {
#define PASS_MODE(id, word, tcp, udp, available) [PASS_##id] = { word, { tcp, udp }, available },
#include "tables/pass_mode.def"
	};
	struct word w = next_word(p);
	size_t mode;

	for (mode = 0; mode < PASS_N; mode++)
		if (word_is(w, modes[mode].word))
			break;
	if (mode == PASS_N) {
		if (w.length == 0)
			wrong(p, w.text, "no pass mode, expected toa, ppv1, ppv2, spp or off");
		else
			wrong(p, w.text, "pass mode " WORD_FMT ", expected toa, ppv1, ppv2, spp or off", WORD_ARGS(w));
		return;
	}
	if (protocol_ok && !modes[mode].carried[rule->protocol]) {
		wrong(p, w.text, "pass mode \"%s\" carries %s only, expected %s for %s", modes[mode].word,
			protocol_name(rule->protocol == PROTOCOL_TCP ? PROTOCOL_UDP : PROTOCOL_TCP),
			rule->protocol == PROTOCOL_TCP ? "off, ppv1, ppv2 or toa" : "off, ppv2 or spp",
			protocol_name(rule->protocol));
		return;
	}
	if (!modes[mode].available) {
		wrong(p, w.text, "pass mode \"%s\" is not available yet, expected off, ppv1 or ppv2", modes[mode].word);
		return;
	}
	rule->pass = (enum pass_mode)mode;
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

/* One NAME=VALUE into @settings. @protocol: of the rule, or PROTOCOL_N where it does not matter. */
static void parse_option(struct parse *p, enum setting_scope scope, struct word w, size_t name_length,
	enum protocol protocol, void *settings, setting_mask *given)
{
	const char *value = w.text + name_length + 1;
	char why_bytes[256];
	struct text why = text_fixed(why_bytes, sizeof(why_bytes));
	struct word name = { w.text, name_length }, value_word = { value, w.length - name_length - 1 };
	int id = setting_find(scope, w.text, name_length);
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
	if (protocol != PROTOCOL_N && !setting_carried_by((unsigned int)id, protocol)) {
		wrong(p, w.text, "option %s on a %s rule, expected it on %s rules only",
			setting_name(scope, (unsigned int)id), protocol_name(protocol),
			protocol_name(protocol == PROTOCOL_TCP ? PROTOCOL_UDP : PROTOCOL_TCP));
		return;
	}
	r = setting_parse(scope, (unsigned int)id, value, value_word.length, &p->set->arena, settings, &why);
	if (r == -ENOMEM)
		p->out_of_memory = true;
	else if (r)
		wrong(p, value, "%s " WORD_FMT ", expected %s", setting_name(scope, (unsigned int)id),
			WORD_ARGS(value_word), why.bytes);
}

/* --- tag --- */

/* @tag: unquoted text. Notes what is wrong with it at @at. */
static void store_tag(struct parse *p, const char *at, const char *tag, size_t length, struct rule *rule)
{
	size_t characters = 0;

	for (size_t i = 0; i < length;) {
		size_t n = utf8_printable(tag + i, length - i);

		if (n == 0) {
			wrong(p, at, "tag with a byte 0x%02x, expected UTF-8 text without control characters",
				(unsigned char)tag[i]);
			return;
		}
		i += n;
		characters++;
	}
	if (characters < 1 || characters > RULE_TAG_MAX) {
		wrong(p, at, "tag of %zu characters, expected 1-%d", characters, RULE_TAG_MAX);
		return;
	}
	rule->tag = arena_strndup(&p->set->arena, tag, length);
	if (!rule->tag)
		p->out_of_memory = true;
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

static void make_id(struct rule *rule)
{
	static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
	uint64_t hash =
		hash_bytes(rule->edge_ports.items, rule->edge_ports.count * sizeof(struct port_range), rule->protocol);

	memcpy(rule->id, "rule-", 5);
	for (size_t i = 5; i < 15; i++, hash >>= 5)
		rule->id[i] = digits[hash & 31];
}

static void parse_rule(struct parse *p)
{
	struct rule rule = { .line = p->line };
	bool edge_ok, protocol_ok;

	if (p->set->rule_count == p->profile->rules_max) {
		wrong(p, p->at, "rule %zu, expected at most %u rules", p->set->rule_count + 1, p->profile->rules_max);
		p->set->rule_count++; /* said once: later lines are past the limit too */
		return;
	}
	if (p->set->rule_count > p->profile->rules_max)
		return;
	edge_ok = parse_protocol_and_ports(p, &rule);
	protocol_ok = rule.edge_ports.items != NULL;
	parse_origin(p, &rule);
	parse_origin_ports(p, &rule, edge_ok);
	parse_persistence(p, &rule);
	parse_pass(p, &rule, protocol_ok);
	parse_options_and_tag(p, &rule, protocol_ok);
	make_id(&rule);
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

/* --- after the last line --- */

static void apply_defaults(struct config *set)
{
	for (size_t i = 0; i < set->rule_count; i++) {
		struct rule *rule = &set->rules[i];
		struct rule_settings settings;

		setting_defaults(SETTING_SCOPE_RULE, rule->protocol, &settings);
		for (unsigned int id = 0; id < RULE_SETTING_N; id++) {
			if (rule->given & 1u << id)
				setting_copy(SETTING_SCOPE_RULE, id, &rule->settings, &settings);
			else if (set->rule_defaults_given & 1u << id && setting_carried_by(id, rule->protocol))
				setting_copy(SETTING_SCOPE_RULE, id, &set->rule_defaults, &settings);
		}
		rule->settings = settings;
	}
}

/* owner[port] is the rule's index + 1, or 0 while nobody has it. An entry is said to be wrong once. */
static void claim_entry(struct parse *p, size_t index, size_t entry, uint16_t *owner)
{
	const struct rule *rule = &p->set->rules[index];
	struct port_range range = rule->edge_ports.items[entry];
	bool said = false;

	for (unsigned int port = range.first; port <= range.last; port++) {
		if (owner[port] == 0) {
			owner[port] = (uint16_t)(index + 1);
			continue;
		}
		if (said)
			continue;
		said = true;
		if (owner[port] == index + 1)
			problem_add(p->problems, rule->line, rule->edge_columns[entry],
				"%s port %u, expected each port once in a rule", protocol_name(rule->protocol), port);
		else
			problem_add(p->problems, rule->line, rule->edge_columns[entry],
				"%s port %u already belongs to the rule on line %u", protocol_name(rule->protocol),
				port, p->set->rules[owner[port] - 1].line);
		if (p->problems->left_out) /* what this entry takes from later ones would not be said any more */
			return;
	}
}

static int check_ports(struct parse *p)
{
	uint16_t *owners = calloc((size_t)PROTOCOL_N << 16, sizeof(*owners));

	if (!owners)
		return fault(-ENOMEM);
	for (size_t i = 0; i < p->set->rule_count; i++)
		for (size_t entry = 0; entry < p->set->rules[i].edge_ports.count; entry++)
			claim_entry(p, i, entry, owners + ((size_t)p->set->rules[i].protocol << 16));
	free(owners);
	return 0;
}

int rules_parse(const char *text, size_t length, const struct limits_profile *profile, struct config *ret_set,
	struct problems *problems)
{
	struct config set = { 0 };
	struct parse p = { .profile = profile, .problems = problems, .set = &set };
	int r = 0;

	if (length > RULES_TEXT_MAX) {
		problem_add(problems, 1, 1, "a file of %zu bytes, expected at most %d", length, RULES_TEXT_MAX);
		return RULES_E_WRONG;
	}
	setting_defaults(SETTING_SCOPE_NODE, PROTOCOL_TCP, &set.node);
	set.rules = take(&p, (profile->rules_max + 1u) * sizeof(*set.rules));
	if (!p.out_of_memory)
		parse_lines(&p, text, length);
	set.rule_count = MIN(set.rule_count, (size_t)profile->rules_max);
	if (!p.out_of_memory)
		r = check_ports(&p);
	if (p.out_of_memory)
		r = fault(-ENOMEM);
	if (r == 0 && (problems->count || problems->left_out)) {
		problems_sort(problems);
		r = RULES_E_WRONG;
	}
	if (r) {
		config_free(&set);
		return r;
	}
	apply_defaults(&set);
	*ret_set = set;
	return RULES_OK;
}
