/* SPDX-License-Identifier: Apache-2.0 */
#include "config/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/key_map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 64 };

struct check {
	const struct config *base, *config;
	size_t base_count;
	struct problems *problems;
};

/* Rules are counted through: those of the base come first. */
static const struct rule *rule_at(const struct check *c, size_t index)
{
	return index < c->base_count ? &c->base->rules[index] : &c->config->rules[index - c->base_count];
}

/* What a rule is called in a fault of another: "the rule on line 4", "rules[3]". */
static void name_rule(const struct check *c, size_t index, bool at_line, char out[static PATH_SIZE])
{
	const struct rule *rule = rule_at(c, index);

	if (rule->line)
		snprintf(out, PATH_SIZE, "the rule on line %u", rule->line);
	else
		snprintf(out, PATH_SIZE, "rules[%zu]%s", index, at_line ? " of the configuration document" : "");
}

static void port_taken(const struct check *c, size_t index, size_t entry, unsigned int port, size_t by)
{
	const struct rule *rule = rule_at(c, index);
	const char *protocol = protocol_name(rule->protocol);
	char other[PATH_SIZE], path[PATH_SIZE];

	name_rule(c, by, rule->line != 0, other);
	snprintf(path, sizeof(path), "rules[%zu].edge_ports[%zu]", index, entry);
	if (rule->line && by == index)
		problem_add(c->problems, rule->line, rule->edge_columns[entry],
			"%s port %u, expected each port once in a rule", protocol, port);
	else if (rule->line)
		problem_add(c->problems, rule->line, rule->edge_columns[entry], "%s port %u already belongs to %s",
			protocol, port, other);
	else if (by == index)
		problem_add_at(c->problems, path, "%s port %u: expected each port once in a rule", protocol, port);
	else
		problem_add_at(c->problems, path,
			"%s port %u: expected a port that no other rule has (it belongs to %s)", protocol, port, other);
}

/* owner[port] is the rule's index + 1, or 0 while nobody has it. An entry is said to be wrong once. */
static void claim_entry(const struct check *c, size_t index, size_t entry, uint16_t *owner)
{
	struct port_range range = rule_at(c, index)->edge_ports.items[entry];
	bool said = false;

	if (range.first == 0)
		return;
	for (unsigned int port = range.first; port <= range.last; port++) {
		if (owner[port] == 0) {
			owner[port] = (uint16_t)(index + 1);
			continue;
		}
		if (said)
			continue;
		said = true;
		port_taken(c, index, entry, port, owner[port] - 1u);
		if (c->problems->left_out) /* what this entry takes from later ones would not be said any more */
			return;
	}
}

static int check_ports(const struct check *c)
{
	uint16_t *owners = calloc((size_t)PROTOCOL_N << 16, sizeof(*owners));

	if (!owners)
		return fault(-ENOMEM);
	for (size_t i = 0; i < c->base_count + c->config->rule_count; i++)
		for (size_t entry = 0; entry < rule_at(c, i)->edge_ports.count; entry++)
			claim_entry(c, i, entry, owners + ((size_t)rule_at(c, i)->protocol << 16));
	free(owners);
	return 0;
}

/* Two rules with the same ports have the same made id; of them it is said that they have the same ports. */
static bool same_by_ports(const struct rule *a, const struct rule *b)
{
	char made[RULE_ID_SIZE];

	if (a->edge_ports.count == 0 || a->protocol != b->protocol || a->edge_ports.count != b->edge_ports.count ||
		memcmp(a->edge_ports.items, b->edge_ports.items, a->edge_ports.count * sizeof(struct port_range)) != 0)
		return false;
	rule_make_id(a, made);
	return strcmp(made, a->id) == 0;
}

static void id_taken(const struct check *c, size_t index, size_t by)
{
	const struct rule *rule = rule_at(c, index);
	char other[PATH_SIZE], path[PATH_SIZE], made[RULE_ID_SIZE];

	name_rule(c, by, rule->line != 0, other);
	snprintf(path, sizeof(path), "rules[%zu].id", index);
	rule_make_id(rule, made);
	if (rule->line)
		problem_add(c->problems, rule->line, rule->edge_columns[0],
			"id %s, made from the edge ports, already belongs to %s", rule->id, other);
	else
		problem_add_at(c->problems, path, "\"%s\"%s: expected an id that no other rule has (it belongs to %s)",
			rule->id, strcmp(made, rule->id) == 0 ? " (made from the edge ports)" : "", other);
}

static int check_ids(const struct check *c)
{
	struct key_map ids = { 0 };
	int r = 0;

	for (size_t i = 0; i < c->base_count + c->config->rule_count && r >= 0; i++) {
		const char *id = rule_at(c, i)->id;
		uint32_t by;

		if (!*id)
			continue;
		r = key_map_put(&ids, id, strlen(id), (uint32_t)i, &by);
		if (r == KEY_MAP_E_EXISTS && !same_by_ports(rule_at(c, i), rule_at(c, by)))
			id_taken(c, i, by);
	}
	key_map_free(&ids);
	return r < 0 ? r : 0;
}

int check_rules(const struct config *base, const struct config *config, struct problems *problems)
{
	struct check c = {
		.base = base,
		.config = config,
		.base_count = base ? base->rule_count : 0,
		.problems = problems,
	};
	int r = check_ports(&c);

	return r ? r : check_ids(&c);
}

void check_toa(const struct config *config, const char *why, struct problems *problems)
{
	static const char message[] =
		"%s\"toa\" cannot be sent here (%s)%s expected another pass mode, toa_required=off, "
		"or the rights of docs/operation.md";
	char path[PATH_SIZE];

	for (size_t i = 0; i < config->rule_count; i++) {
		const struct rule *rule = &config->rules[i];

		if (rule->pass != PASS_TOA || !rule->settings.toa_required)
			continue;
		snprintf(path, sizeof(path), "rules[%zu].pass", i);
		if (rule->line)
			problem_add(problems, rule->line, rule->pass_column, message, "pass mode ", why, ",");
		else
			problem_add_at(problems, path, message, "", why, ":");
	}
}

void rule_make_id(const struct rule *rule, char ret_id[static RULE_ID_SIZE])
{
	static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
	uint64_t hash =
		hash_bytes(rule->edge_ports.items, rule->edge_ports.count * sizeof(struct port_range), rule->protocol);

	memset(ret_id, 0, RULE_ID_SIZE);
	memcpy(ret_id, "rule-", 5);
	for (size_t i = 5; i < 15; i++, hash >>= 5)
		ret_id[i] = digits[hash & 31];
}

void rules_apply_defaults(struct config *config)
{
	for (size_t i = 0; i < config->rule_count; i++) {
		struct rule *rule = &config->rules[i];
		struct rule_settings settings;

		setting_defaults(SETTING_SCOPE_RULE, rule->protocol, &settings);
		for (unsigned int id = 0; id < RULE_SETTING_N; id++) {
			if (rule->given & 1u << id)
				setting_copy(SETTING_SCOPE_RULE, id, &rule->settings, &settings);
			else if (config->rule_defaults_given & 1u << id && setting_carried_by(id, rule->protocol))
				setting_copy(SETTING_SCOPE_RULE, id, &config->rule_defaults, &settings);
		}
		rule->settings = settings;
	}
}
