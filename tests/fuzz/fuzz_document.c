/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes into document_parse(), under two limits profiles. What must hold:
 *   - a refusal names at least one problem; each has a place in the text or a path, and says something that can be
 * shown
 *   - what is accepted keeps the limits; names lead to objects of the configuration; no port belongs to two rules
 *   - it can be written and read again, and is written alike then
 *   - what is written and then damaged in a bit is refused
 */
#include "base/error.h"
#include "config/document.h"

#include <string.h>

enum { FUZZ_DOCUMENT_MAX = 1 << 24 };

static void check_text(const char *text)
{
	size_t left = strlen(text);

	while (left) {
		size_t n = utf8_printable(text, left);

		ASSERT(n > 0);
		text += n;
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
		const struct problem *p = &problems->items[i];

		ASSERT(p->path ? p->line == 0 : p->line >= 1 && p->line <= lines);
		ASSERT(p->path || (p->column >= 1 && p->column <= length + 1));
		if (p->path)
			check_text(p->path);
		ASSERT(*p->message);
		check_text(p->message);
	}
}

static void check_access(const struct config *config, const struct access *access)
{
	ASSERT(access->allow_count <= ACCESS_LISTS_MAX && access->deny_count <= ACCESS_LISTS_MAX);
	for (size_t i = 0; i < access->allow_count; i++)
		ASSERT(access->allow[i] >= config->ip_lists &&
			access->allow[i] < config->ip_lists + config->ip_list_count);
	for (size_t i = 0; i < access->deny_count; i++)
		ASSERT(access->deny[i] >= config->ip_lists &&
			access->deny[i] < config->ip_lists + config->ip_list_count);
}

static void check_group(const struct config *config, const struct origin_group *group)
{
	ASSERT(config_group(config, group->name, strlen(group->name)) == group);
	ASSERT(group->origin_count <= GROUP_ORIGINS_MAX);
	for (size_t i = 0; i < group->origin_count; i++) {
		const struct origin *origin = &group->origins[i];

		ASSERT(!origin->host.name || *origin->host.name);
		ASSERT(group->check.type == CHECK_TYPE_OFF || group->check.port || origin->port);
		ASSERT(origin->settings.weight <= 100);
	}
}

static void check_rule(
	const struct config *config, const struct rule *rule, const struct limits_profile *profile, uint8_t *owned)
{
	ASSERT(rule->line == 0 && rule->edge_ports.count >= 1 && strlen(rule->id) > 5);
	for (size_t i = 0; i < rule->edge_ports.count; i++) {
		struct port_range range = rule->edge_ports.items[i];

		ASSERT(range.first >= 1 && range.first <= range.last && range.last <= profile->port_max);
		for (unsigned int port = range.first; port <= range.last; port++) {
			ASSERT(!(owned[port] & 1u << rule->protocol));
			owned[port] |= (uint8_t)(1u << rule->protocol);
			ASSERT(rule_origin_port(rule, (uint16_t)port) >= 1);
		}
	}
	ASSERT(!rule->group || (rule->group >= config->groups && rule->group < config->groups + config->group_count));
	ASSERT(!rule->proxy || (rule->proxy >= config->proxies && rule->proxy < config->proxies + config->proxy_count));
	check_access(config, &rule->access);
	if (rule->tag)
		check_text(rule->tag);
	for (unsigned int id = 0; id < RULE_SETTING_N; id++)
		ASSERT(!(rule->given & 1u << id) || setting_carried_by(id, rule->protocol));
}

static void check_config(const struct config *config, const struct limits_profile *profile)
{
	static uint8_t owned[1 << 16]; /* by port: bit i, protocol i */

	memset(owned, 0, sizeof(owned));
	ASSERT(config->rule_count <= profile->rules_max);
	for (size_t i = 0; i < config->group_count; i++)
		check_group(config, &config->groups[i]);
	for (size_t i = 0; i < config->proxy_count; i++)
		check_access(config, &config->proxies[i].access);
	for (size_t i = 0; i < config->rule_count; i++)
		check_rule(config, &config->rules[i], profile, owned);
}

/* Writes the configuration, reads that, writes it again; and damages what was written, in a bit that @seed chooses. */
static void check_round_trip(const struct config *config, const struct limits_profile *profile, size_t seed)
{
	struct text first = text_growing(FUZZ_DOCUMENT_MAX), second = text_growing(FUZZ_DOCUMENT_MAX);
	struct problems problems = { 0 };
	struct config again;

	document_format(config, &first);
	ASSERT(first.ok);
	ASSERT(document_parse(first.bytes, first.length, profile, &again, &problems) == DOCUMENT_OK);
	ASSERT(again.rule_count == config->rule_count && again.group_count == config->group_count);
	for (size_t i = 0; i < config->rule_count; i++)
		ASSERT(memcmp(again.rules[i].id, config->rules[i].id, RULE_ID_SIZE) == 0);
	document_format(&again, &second);
	ASSERT(second.ok && first.length == second.length && memcmp(first.bytes, second.bytes, first.length) == 0);
	config_free(&again);
	seed %= first.length * 8;
	first.bytes[seed / 8] = (char)(first.bytes[seed / 8] ^ (char)(1 << seed % 8));
	ASSERT(document_parse(first.bytes, first.length, profile, &again, &problems) == DOCUMENT_E_WRONG);
	problems_free(&problems);
	text_free(&first);
	text_free(&second);
}

static void check_profile(const char *text, size_t length, const char *name)
{
	const struct limits_profile *profile = limits_profile_find(name);
	struct config config = { .rule_count = SIZE_MAX };
	struct problems problems = { 0 };
	size_t seed = 0;
	int r;

	for (size_t i = 0; i < length; i++)
		seed = seed * 31 + (unsigned char)text[i];
	r = document_parse(text, length, profile, &config, &problems);
	if (r == DOCUMENT_OK) {
		ASSERT(problems.count == 0 && problems.left_out == 0);
		check_config(&config, profile);
		check_round_trip(&config, profile, seed);
		config_free(&config);
	} else {
		ASSERT(r == DOCUMENT_E_WRONG && config.rule_count == SIZE_MAX);
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
	return 0;
}
