/* SPDX-License-Identifier: Apache-2.0 */
/* What the readers and writers of a configuration share: names of things, limits profiles, questions about a rule. */
#include "config/config.h"
#include "base/error.h"
#include "base/hash.h"
#include "config/check.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

const char *protocol_name(enum protocol protocol)
{
	return protocol == PROTOCOL_TCP ? "tcp" : "udp";
}

const char *pass_mode_name(enum pass_mode mode)
{
	static const char *const names[] = {
#define PASS_MODE(id, word, ...) [PASS_##id] = word,
#include "tables/pass_mode.def"
	};

	return names[mode];
}

const struct limits_profile *limits_profile_find(const char *name)
{
	static const uint16_t none[] = { 0 };
	static const uint16_t edgeone_tcp[] = { 3943, 3944, 6088, 36000, 56000, 0 };
	static const uint16_t edgeone_udp[] = { 4789, 4790, 6080, 61708, 0 };
	static const struct limits_profile profiles[] = {
		{ "open", 65535, 0, RULES_MAX, { none, none } },
		{ "edgeone", 64999, 20, 2000, { edgeone_tcp, edgeone_udp } },
		{ "esa", 65535, 0, 30, { none, none } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(profiles); i++)
		if (strcmp(profiles[i].name, name) == 0)
			return &profiles[i];
	return NULL;
}

void config_fold_name(const char *name, size_t length, char *ret_folded)
{
	for (size_t i = 0; i < length; i++)
		ret_folded[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + ('a' - 'A') : name[i]);
}

static void add_settings(enum setting_scope scope, setting_mask given, const void *from, void *to)
{
	for (unsigned int id = 0; id < setting_count(scope); id++)
		if (given & 1u << id)
			setting_copy(scope, id, from, to);
}

int config_join(struct config *document, struct config *rules)
{
	size_t count = document->rule_count + rules->rule_count;
	struct rule *all = arena_alloc(&document->arena, MAX(count, (size_t)1) * sizeof(*all));

	if (!all)
		return fault(-ENOMEM);
	if (document->rule_count)
		memcpy(all, document->rules, document->rule_count * sizeof(*all));
	if (rules->rule_count)
		memcpy(all + document->rule_count, rules->rules, rules->rule_count * sizeof(*all));
	document->rules = all;
	document->rule_count = count;
	add_settings(SETTING_SCOPE_NODE, rules->node_given, &rules->node, &document->node);
	document->node_given |= rules->node_given;
	add_settings(SETTING_SCOPE_RULE, rules->rule_defaults_given, &rules->rule_defaults, &document->rule_defaults);
	document->rule_defaults_given |= rules->rule_defaults_given;
	arena_join(&document->arena, &rules->arena);
	*rules = (struct config){ 0 };
	rules_apply_defaults(document);
	return 0;
}

const struct origin_group *config_group(const struct config *config, const char *name, size_t length)
{
	for (size_t i = 0; i < config->group_count; i++) {
		const struct origin_group *group = &config->groups[i];

		if (strlen(group->name) == length && strncasecmp(group->name, name, length) == 0)
			return group;
	}
	return NULL;
}

bool host_equal(const struct host *a, const struct host *b)
{
	if (a->name && b->name)
		return strcmp(a->name, b->name) == 0;
	return !a->name && !b->name && ip_equal(&a->ip, &b->ip);
}

bool rule_same_forwarding(const struct rule *a, const struct rule *b, uint16_t edge_port)
{
	bool same_origin;

	if (a->group && b->group)
		same_origin = strcmp(a->group->name, b->group->name) == 0;
	else
		same_origin = !a->group && !b->group && host_equal(&a->origin, &b->origin);
	return same_origin && a->protocol == b->protocol && a->pass == b->pass &&
		rule_origin_port(a, edge_port) == rule_origin_port(b, edge_port);
}

void ip_list_finish(struct ip_list *list)
{
	list->hash = hash_bytes(list->items, list->count * sizeof(*list->items), 0);
}

void config_free(struct config *config)
{
	arena_free(&config->arena);
	*config = (struct config){ 0 };
}
