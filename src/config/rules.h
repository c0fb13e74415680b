/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forwarding rules as the user gave them, read from and written as text (docs/rules-file.md). A rule set is plain
 * data in one arena; snapshot.h makes of it what the workers look things up in.
 */
#pragma once

#include "base/addr.h"
#include "base/arena.h"
#include "config/problem.h"
#include "config/settings.h"

enum pass_mode {
#define PASS_MODE(id, ...) PASS_##id,
#include "tables/pass_mode.def"
	PASS_N
};

enum {
	RULES_MAX = 2000,
	RULES_TEXT_MAX = 16 << 20, /* bytes of a rules file */
	RULE_TAG_MAX = 50,	   /* characters */
	RULE_ID_SIZE = sizeof("rule-0123456789"),
	NAME_MAX_LENGTH = 253,
};

struct port_range {
	uint16_t first;
	uint16_t last;
};

struct port_list {
	const struct port_range *items;
	size_t count;
};

struct rule {
	char id[RULE_ID_SIZE]; /* made from protocol and edge ports: the same rule keeps it over reloads and restarts */
	enum protocol protocol;
	enum pass_mode pass;
	bool persistence;
	struct port_list edge_ports;	/* in the order given, none overlapping */
	const char *origin_name;	/* lower case, no trailing dot; NULL when the origin is an address */
	struct ip origin_ip;		/* when origin_name is NULL */
	struct port_range origin_ports; /* one port, or as long as the one edge range */
	const char *tag;		/* NULL when there is none */
	struct rule_settings settings;
	setting_mask given;		  /* settings that the rule itself gives */
	unsigned int line;		  /* where it was read, from 1 */
	const unsigned int *edge_columns; /* and where in the line each of edge_ports, in characters from 1 */
};

struct rule_set {
	struct arena arena;
	struct rule *rules;
	size_t count;
	struct rule_settings rule_defaults; /* "set rule": only the fields in rule_defaults_given mean anything */
	setting_mask rule_defaults_given;
	struct node_settings node;
	setting_mask node_given;
};

struct limits_profile {
	const char *name;
	uint16_t port_max;
	uint16_t entries_max; /* edge port entries a rule; 0 = any number */
	uint16_t rules_max;
	const uint16_t *reserved[PROTOCOL_N]; /* ports, 0-terminated */
};

/** limits_profile_find() - "open", "edgeone" or "esa"; NULL for any other name */
const struct limits_profile *limits_profile_find(const char *name);

enum { RULES_OK, RULES_E_WRONG };

/**
 * rules_parse() - read rules from text
 * @text, @length: the whole file
 * @ret_set:       on RULES_OK, owned by the caller: rules_free()
 * @problems:      receives every fault, sorted, when the answer is RULES_E_WRONG
 *
 * Return: RULES_OK; RULES_E_WRONG; -ENOMEM.
 */
MUST_CHECK int rules_parse(const char *text, size_t length, const struct limits_profile *profile,
	struct rule_set *ret_set, struct problems *problems);

/** rules_format() - append the text of a rule set; rules_parse() makes an equal set of it */
void rules_format(const struct rule_set *set, struct text *out);

/** rules_free() - an all-zero set is accepted, and is left behind */
void rules_free(struct rule_set *set);

/** protocol_name() - "tcp" or "udp" */
const char *protocol_name(enum protocol protocol);

/** pass_mode_name() - as in the rules file */
const char *pass_mode_name(enum pass_mode mode);

/** rule_origin_port() - where an edge port of the rule goes; @edge_port must be one of its edge ports */
static inline uint16_t rule_origin_port(const struct rule *rule, uint16_t edge_port)
{
	if (rule->origin_ports.first == rule->origin_ports.last)
		return rule->origin_ports.first;
	return (uint16_t)(rule->origin_ports.first + (edge_port - rule->edge_ports.items[0].first));
}

/** rule_same_forwarding() - whether a flow of @a may go on under @b: same origin, origin port for @edge_port, and
 * header */
bool rule_same_forwarding(const struct rule *a, const struct rule *b, uint16_t edge_port);
