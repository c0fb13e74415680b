/* SPDX-License-Identifier: Apache-2.0 */
#include "config/field.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* --- messages --- */

size_t field_shown(const char *text, size_t length)
{
	size_t shown = MIN(length, (size_t)FIELD_SHOWN_MAX);

	if (shown < length)
		while (shown && ((unsigned char)text[shown] & 0xc0) == 0x80)
			shown--;
	return shown;
}

int field_wrong(
	struct field_fault *why, const char *at, const char *link, const char *expected, const char *format, ...)
{
	va_list args;

	why->at = at;
	why->link = link;
	snprintf(why->expected, sizeof(why->expected), "%s", expected);
	va_start(args, format);
	vsnprintf(why->found, sizeof(why->found), format, args);
	va_end(args);
	return FIELD_E_WRONG;
}

void field_message_text(const struct field_fault *why, const char *what, struct text *out)
{
	if (why->link)
		text_printf(out, "%s%s", what, why->link);
	text_printf(out, "%s, expected %s", why->found, why->expected);
}

void field_message_document(const struct field_fault *why, struct text *out)
{
	text_printf(out, "%s: expected %s", why->found, why->expected);
}

static bool text_is(const char *text, size_t length, const char *what)
{
	return length == strlen(what) && strncasecmp(text, what, length) == 0;
}

/* --- ports --- */

static bool parse_number(const char *text, size_t length, unsigned long *ret_number)
{
	unsigned long n = 0;

	if (length == 0 || length > 9)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		n = n * 10 + (unsigned long)(text[i] - '0');
	}
	*ret_number = n;
	return true;
}

static int outside(struct field_fault *why, const char *at, int64_t number, unsigned int max)
{
	char expected[32];

	snprintf(expected, sizeof(expected), "1-%u", max);
	return field_wrong(why, at, " ", expected, "%" PRId64, number);
}

int field_range(
	const char *text, size_t length, unsigned int max, struct port_range *ret_range, struct field_fault *why)
{
	const char *dash = length ? memchr(text, '-', length) : NULL;
	const char *first = text, *last = text;
	size_t first_length = length, last_length = length;
	unsigned long a, b;

	if (dash) {
		first_length = (size_t)(dash - text);
		last = dash + 1;
		last_length = length - first_length - 1;
	}
	if (!parse_number(first, first_length, &a) || !parse_number(last, last_length, &b))
		return field_wrong(why, text, " ", "a port or a range such as 80 or 80-90", FIELD_QUOTED,
			FIELD_QUOTE(text, length));
	if (a < 1 || a > max)
		return outside(why, first, (int64_t)a, max);
	if (b < 1 || b > max)
		return outside(why, last, (int64_t)b, max);
	if (a > b)
		return field_wrong(why, text, " range ", "the lower port first", "%lu-%lu", a, b);
	*ret_range = (struct port_range){ .first = (uint16_t)a, .last = (uint16_t)b };
	return FIELD_OK;
}

int field_port(int64_t number, unsigned int max, struct port_range *ret_range, struct field_fault *why)
{
	if (number < 1 || number > max)
		return outside(why, NULL, number, max);
	*ret_range = (struct port_range){ .first = (uint16_t)number, .last = (uint16_t)number };
	return FIELD_OK;
}

int field_reserved(const struct limits_profile *profile, enum protocol protocol, struct port_range range,
	const char *at, struct field_fault *why)
{
	for (const uint16_t *port = profile->reserved[protocol]; *port; port++) {
		char expected[80];

		if (*port < range.first || *port > range.last)
			continue;
		snprintf(expected, sizeof(expected), "a port that the profile \"%s\" does not reserve", profile->name);
		return field_wrong(why, at, NULL, expected, "%s port %u", protocol_name(protocol), *port);
	}
	return FIELD_OK;
}

int field_origin_ports(const struct port_list *edge_ports, struct port_range origin_ports, struct field_fault *why)
{
	unsigned int length = origin_ports.last - origin_ports.first + 1u;
	unsigned int edge_length = edge_ports->items[0].last - edge_ports->items[0].first + 1u;
	char expected[160];

	if (length == 1 || (edge_ports->count == 1 && length == edge_length))
		return FIELD_OK;
	snprintf(expected, sizeof(expected), "one port, or one edge range of the same length (found %zu %s of %u)",
		edge_ports->count, edge_ports->count == 1 ? "entry" : "entries, the first", edge_length);
	return field_wrong(why, NULL, " ", expected, "range of %u", length);
}

/* --- origin --- */

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool label_ok(const char *label, size_t length)
{
	if (length == 0 || length > 63 || label[0] == '-' || label[length - 1] == '-')
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_alnum(label[i]) && label[i] != '-' && label[i] != '_')
			return false;
	return true;
}

/* A host name (RFC 1123, and '_' since DNS has such names) whose last label is not a number. */
static bool name_ok(const char *text, size_t length)
{
	const char *label = text, *end = text + length;

	if (length && end[-1] == '.')
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

static bool is_one_host(const struct ip *ip)
{
	static const struct ip any_v6;

	if (ip_is_v4(ip))
		return ip->bytes[12] != 0 && ip->bytes[12] < 224;
	return ip->bytes[0] != 0xff && !ip_equal(ip, &any_v6);
}

static int store_ip(const struct ip *ip, const char *text, size_t length, struct host *ret, struct field_fault *why)
{
	if (!is_one_host(ip))
		return field_wrong(why, text, " ", "the address of one host", FIELD_QUOTED, FIELD_QUOTE(text, length));
	*ret = (struct host){ .ip = *ip };
	return FIELD_OK;
}

static int store_name(const char *text, size_t length, struct arena *arena, struct host *ret)
{
	char *name;

	if (text[length - 1] == '.')
		length--;
	name = arena_strndup(arena, text, length);
	if (!name)
		return fault(-ENOMEM);
	for (char *c = name; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c + ('a' - 'A'));
	*ret = (struct host){ .name = name };
	return FIELD_OK;
}

bool field_names_group(const char *text, size_t length)
{
	return length >= 3 && strncasecmp(text, "og:", 3) == 0;
}

int field_host(const char *text, size_t length, enum host_form form, struct arena *arena, struct host *ret_host,
	struct field_fault *why)
{
	static const char *const forms[] = {
		[HOST_FORM_TEXT] = "an IPv4 address, an IPv6 address in brackets, a name or og:NAME",
		[HOST_FORM_DOCUMENT] = "an IPv4 address, an IPv6 address, a name or og:NAME",
		[HOST_FORM_MEMBER] = "an IPv4 address, an IPv6 address or a name",
	};
	static const char *const ports[] = {
		[HOST_FORM_TEXT] = "an address or a name; the origin port is a field of its own",
		[HOST_FORM_DOCUMENT] = "an address, a name or og:NAME; origin_port is a member of its own",
		[HOST_FORM_MEMBER] = "an address or a name; port is a member of its own",
	};
	const char *expected = forms[form];
	struct ip ip;

	if (length && text[0] == '[') {
		if (length >= 2 && text[length - 1] == ']' && ip_parse(text + 1, length - 2, &ip) == 0 &&
			!ip_is_v4(&ip))
			return store_ip(&ip, text, length, ret_host, why);
		expected = "an IPv6 address in brackets";
	} else if (ip_parse(text, length, &ip) == 0) {
		bool v6 = memchr(text, ':', length) != NULL;

		if (!v6 || (form != HOST_FORM_TEXT && !ip_is_v4(&ip)))
			return store_ip(&ip, text, length, ret_host, why);
		if (form == HOST_FORM_TEXT)
			expected = "brackets around an IPv6 address";
	} else if (length && memchr(text, ':', length)) {
		if (form != HOST_FORM_MEMBER || !field_names_group(text, length))
			expected = ports[form];
	} else if (name_ok(text, length)) {
		return store_name(text, length, arena, ret_host);
	}
	return field_wrong(why, text, " ", expected, FIELD_QUOTED, FIELD_QUOTE(text, length));
}

/* --- words --- */

int field_pass(
	const char *text, size_t length, enum protocol protocol, enum pass_mode *ret_pass, struct field_fault *why)
{
	static const struct {
		const char *word;
		bool carried[PROTOCOL_N];
	} modes[] = {
#define PASS_MODE(id, word, tcp, udp) [PASS_##id] = { word, { tcp, udp } },
#include "tables/pass_mode.def"
	};
	size_t mode;

	for (mode = 0; mode < PASS_N; mode++)
		if (text_is(text, length, modes[mode].word))
			break;
	if (mode == PASS_N)
		return field_wrong(
			why, text, " ", "toa, ppv1, ppv2, spp or off", FIELD_QUOTED, FIELD_QUOTE(text, length));
	if (protocol != PROTOCOL_N && !modes[mode].carried[protocol])
		return field_wrong(why, text, " ",
			protocol == PROTOCOL_TCP ? "off, ppv1, ppv2 or toa for tcp" : "off, ppv2 or spp for udp",
			"\"%s\" carries %s only", modes[mode].word,
			protocol_name(protocol == PROTOCOL_TCP ? PROTOCOL_UDP : PROTOCOL_TCP));
	*ret_pass = (enum pass_mode)mode;
	return FIELD_OK;
}

int field_switch(const char *text, size_t length, bool *ret_on, struct field_fault *why)
{
	bool on = text_is(text, length, "on");

	if (!on && !text_is(text, length, "off"))
		return field_wrong(why, text, " ", "on or off", FIELD_QUOTED, FIELD_QUOTE(text, length));
	*ret_on = on;
	return FIELD_OK;
}

int field_tag(const char *text, size_t length, struct arena *arena, const char **ret_tag, struct field_fault *why)
{
	size_t characters = 0;
	char expected[16];
	char *tag;

	for (size_t i = 0; i < length;) {
		size_t n = utf8_printable(text + i, length - i);

		if (n == 0)
			return field_wrong(why, text, " with ", "UTF-8 text without control characters",
				"a byte 0x%02x", (unsigned char)text[i]);
		i += n;
		characters++;
	}
	if (characters < 1 || characters > RULE_TAG_MAX) {
		snprintf(expected, sizeof(expected), "1-%d", RULE_TAG_MAX);
		return field_wrong(why, text, " of ", expected, "%zu characters", characters);
	}
	tag = arena_strndup(arena, text, length);
	if (!tag)
		return fault(-ENOMEM);
	*ret_tag = tag;
	return FIELD_OK;
}

int field_carried(unsigned int rule_setting_id, enum protocol protocol, struct field_fault *why)
{
	char expected[40];

	if (protocol == PROTOCOL_N || setting_carried_by(rule_setting_id, protocol))
		return FIELD_OK;
	snprintf(expected, sizeof(expected), "it on %s rules only",
		protocol_name(protocol == PROTOCOL_TCP ? PROTOCOL_UDP : PROTOCOL_TCP));
	return field_wrong(why, NULL, " ", expected, "on a %s rule", protocol_name(protocol));
}

/* Letters, digits and . _ - */
static bool is_plain(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (!is_alnum(text[i]) && text[i] != '.' && text[i] != '_' && text[i] != '-')
			return false;
	return true;
}

int field_object_name(const char *text, size_t length, struct field_fault *why)
{
	char expected[100];

	if (length >= 1 && length <= OBJECT_NAME_MAX && is_plain(text, length) && is_alnum(text[0]) &&
		is_alnum(text[length - 1]))
		return FIELD_OK;
	snprintf(expected, sizeof(expected),
		"1 to %d characters of A-Z a-z 0-9 . _ -, a letter or digit first and last", OBJECT_NAME_MAX);
	return field_wrong(why, text, " ", expected, FIELD_QUOTED, FIELD_QUOTE(text, length));
}

int field_rule_id(const char *text, size_t length, struct field_fault *why)
{
	char expected[100];

	if (length > 5 && length < RULE_ID_SIZE && memcmp(text, "rule-", 5) == 0 && is_plain(text, length))
		return FIELD_OK;
	snprintf(expected, sizeof(expected), "rule- and 1 to %d characters of A-Z a-z 0-9 . _ -", RULE_ID_SIZE - 1 - 5);
	return field_wrong(why, text, " ", expected, FIELD_QUOTED, FIELD_QUOTE(text, length));
}
