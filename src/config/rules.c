/* SPDX-License-Identifier: Apache-2.0 */
/* What rules_parse.c and rules_format.c share: names of things, limits profiles, and questions about a rule. */
#include "config/rules.h"

#include <string.h>

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

bool rule_same_forwarding(const struct rule *a, const struct rule *b, uint16_t edge_port)
{
	bool same_origin;

	if (a->origin_name && b->origin_name)
		same_origin = strcmp(a->origin_name, b->origin_name) == 0;
	else
		same_origin = !a->origin_name && !b->origin_name && ip_equal(&a->origin_ip, &b->origin_ip);
	return same_origin && a->protocol == b->protocol && a->pass == b->pass &&
		rule_origin_port(a, edge_port) == rule_origin_port(b, edge_port);
}

void rules_free(struct rule_set *set)
{
	arena_free(&set->arena);
	*set = (struct rule_set){ 0 };
}
