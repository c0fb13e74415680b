/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a rule set as the text that rules_parse.c reads. */
#include "config/rules.h"

#include <string.h>

static void format_given(enum setting_scope scope, setting_mask given, const void *settings, struct text *out)
{
	for (unsigned int id = 0; id < 32; id++) {
		if (!(given & 1u << id))
			continue;
		text_printf(out, " %s=", setting_name(scope, id));
		setting_format(scope, id, settings, out);
	}
}

static void format_range(struct port_range range, struct text *out)
{
	text_u64(out, range.first);
	if (range.last == range.first)
		return;
	text_put(out, "-", 1);
	text_u64(out, range.last);
}

/* A plain tag must not be taken for a comment, a quoted tag or an option, and its blanks must survive. */
static bool tag_needs_quotes(const char *tag)
{
	size_t length = strlen(tag);
	size_t word = strcspn(tag, " ");
	const char *equals = memchr(tag, '=', word);

	return tag[0] == '#' || tag[0] == '"' || tag[0] == ' ' || tag[length - 1] == ' ' || strstr(tag, "  ") ||
		(equals && equals > tag);
}

static void format_tag(const char *tag, struct text *out)
{
	text_put(out, " ", 1);
	if (!tag_needs_quotes(tag)) {
		text_str(out, tag);
		return;
	}
	text_put(out, "\"", 1);
	for (const char *c = tag; *c; c++) {
		if (*c == '"' || *c == '\\')
			text_put(out, "\\", 1);
		text_put(out, c, 1);
	}
	text_put(out, "\"", 1);
}

static void format_rule(const struct rule *rule, struct text *out)
{
	char ip[ADDR_TEXT_SIZE];

	text_printf(out, "%s:", protocol_name(rule->protocol));
	for (size_t i = 0; i < rule->edge_ports.count; i++) {
		if (i)
			text_put(out, ";", 1);
		format_range(rule->edge_ports.items[i], out);
	}
	if (rule->group) {
		text_printf(out, " og:%s ", rule->group->name);
	} else if (rule->origin.name) {
		text_printf(out, " %s ", rule->origin.name);
	} else {
		bool v4 = ip_is_v4(&rule->origin.ip);

		ip_format(&rule->origin.ip, ip);
		text_printf(out, v4 ? " %s " : " [%s] ", ip);
	}
	format_range(rule->origin_ports, out);
	text_printf(out, " %s %s", rule->persistence ? "on" : "off", pass_mode_name(rule->pass));
	format_given(SETTING_SCOPE_RULE, rule->given, &rule->settings, out);
	if (rule->tag)
		format_tag(rule->tag, out);
	text_put(out, "\n", 1);
}

void rules_format(const struct config *set, struct text *out)
{
	if (set->node_given) {
		text_str(out, "set node");
		format_given(SETTING_SCOPE_NODE, set->node_given, &set->node, out);
		text_put(out, "\n", 1);
	}
	if (set->rule_defaults_given) {
		text_str(out, "set rule");
		format_given(SETTING_SCOPE_RULE, set->rule_defaults_given, &set->rule_defaults, out);
		text_put(out, "\n", 1);
	}
	for (size_t i = 0; i < set->rule_count; i++)
		format_rule(&set->rules[i], out);
}
