/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text into rules_parse(), under every limits profile. What must hold:
 *   - a refusal names at least one problem; they are sorted, lie within the text, and say something that can
 * be shown
 *   - what is accepted keeps the limits, and no port belongs to two rules
 *   - it can be written and read again, and is written alike then
 */
#include "base/error.h"
#include "config/rules.h"

#include <string.h>

enum { FUZZ_RULES_MAX = 40 };

static void check_message(const char *message)
{
	size_t left = strlen(message);

	ASSERT(left > 0);
	while (left) {
		size_t n = utf8_printable(message, left);

		ASSERT(n > 0);
		message += n;
		left -= n;
	}
}

static void check_problems(const struct problems *problems, const char *text, size_t length)
{
	size_t lines = 1;

	for (size_t i = 0; i < length; i++)
		lines += text[i] == '\n';
	ASSERT(problems->count > 0 && problems->count <= PROBLEMS_MAX);
	ASSERT(problems->left_out == 0 || problems->count == PROBLEMS_MAX);
	for (size_t i = 0; i < problems->count; i++) {
		const struct problem *p = &problems->items[i], *before = i ? p - 1 : NULL;

		ASSERT(p->line >= 1 && p->line <= lines);
		ASSERT(p->column >= 1 && p->column <= length + 1);
		if (before)
			ASSERT(before->line < p->line || (before->line == p->line && before->column <= p->column));
		check_message(p->message);
	}
}

static bool in_range(struct port_range range, unsigned int max)
{
	return range.first >= 1 && range.first <= range.last && range.last <= max;
}

static void check_rule(const struct rule *rule, const struct limits_profile *profile, uint8_t *owned)
{
	ASSERT(rule->edge_ports.count >= 1);
	ASSERT(profile->entries_max == 0 || rule->edge_ports.count <= profile->entries_max);
	for (size_t i = 0; i < rule->edge_ports.count; i++) {
		struct port_range range = rule->edge_ports.items[i];

		ASSERT(in_range(range, profile->port_max));
		for (unsigned int port = range.first; port <= range.last; port++) {
			ASSERT(!(owned[port] & 1u << rule->protocol));
			owned[port] |= (uint8_t)(1u << rule->protocol);
			ASSERT(rule_origin_port(rule, (uint16_t)port) >= 1);
		}
		for (const uint16_t *port = profile->reserved[rule->protocol]; *port; port++)
			ASSERT(*port < range.first || *port > range.last);
	}
	ASSERT(in_range(rule->origin_ports, UINT16_MAX));
	ASSERT(!rule->origin.name || (*rule->origin.name && strlen(rule->origin.name) <= NAME_MAX_LENGTH));
	if (rule->tag)
		check_message(rule->tag);
	for (unsigned int id = 0; id < RULE_SETTING_N; id++)
		ASSERT(!(rule->given & 1u << id) || setting_carried_by(id, rule->protocol));
}

static void check_rules(const struct config *set, const struct limits_profile *profile)
{
	static uint8_t owned[1 << 16]; /* by port: bit i, protocol i */

	memset(owned, 0, sizeof(owned));
	ASSERT(set->rule_count <= profile->rules_max);
	for (size_t i = 0; i < set->rule_count; i++)
		check_rule(&set->rules[i], profile, owned);
}

/* Writes the set, reads that, writes it again. */
static void check_round_trip(const struct config *set, const struct limits_profile *profile)
{
	struct text first = text_growing(RULES_TEXT_MAX), second = text_growing(RULES_TEXT_MAX);
	struct problems problems = { 0 };
	struct config again;

	text_str(&first, "");
	text_str(&second, "");
	rules_format(set, &first);
	ASSERT(first.ok);
	ASSERT(rules_parse(first.bytes, first.length, profile, NULL, &again, &problems) == RULES_OK);
	ASSERT(again.rule_count == set->rule_count);
	for (size_t i = 0; i < set->rule_count; i++)
		ASSERT(memcmp(again.rules[i].id, set->rules[i].id, RULE_ID_SIZE) == 0);
	rules_format(&again, &second);
	ASSERT(second.ok && first.length == second.length && memcmp(first.bytes, second.bytes, first.length) == 0);
	config_free(&again);
	text_free(&first);
	text_free(&second);
}

static void check_profile(const char *text, size_t length, const char *name)
{
	struct limits_profile profile = *limits_profile_find(name);
	struct config set = { .rule_count = SIZE_MAX };
	struct problems problems = { 0 };
	int r;

	/* room for 2000 rules would take most of the time */
	profile.rules_max = MIN(profile.rules_max, FUZZ_RULES_MAX);
	r = rules_parse(text, length, &profile, NULL, &set, &problems);
	if (r == RULES_OK) {
		ASSERT(problems.count == 0 && problems.left_out == 0);
		check_rules(&set, &profile);
		check_round_trip(&set, &profile);
		config_free(&set);
	} else {
		ASSERT(r == RULES_E_WRONG && set.rule_count == SIZE_MAX);
		check_problems(&problems, text, length);
	}
	problems_free(&problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	const char *text = (const char *)bytes;

	check_profile(text, length, "open");
	check_profile(text, length, "edgeone");
	check_profile(text, length, "esa");
	return 0;
}
