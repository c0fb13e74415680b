/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole configuration as plain data in one arena: what the user gave, checked, with defaults filled in, and every
 * name that one object has for another replaced by a pointer. It is read from JSON (document.h), from rules text
 * (rules.h), or from both; snapshot.h makes of it what the workers look things up in.
 */
#pragma once

#include "base/addr.h"
#include "base/arena.h"
#include "config/settings.h"

enum pass_mode {
#define PASS_MODE(id, ...) PASS_##id,
#include "tables/pass_mode.def"
	PASS_N
};

enum {
	RULES_MAX = 2000,
	PROXIES_MAX = 2000,
	GROUPS_MAX = 2000,
	GROUP_ORIGINS_MAX = 1000,
	ORIGINS_MAX = 100000, /* over all groups */
	IP_LISTS_MAX = 1000,
	IP_LIST_ENTRIES_MAX = 1 << 20, /* over all lists */
	ACCESS_LISTS_MAX = 64,	       /* lists that one rule or proxy names */
	RULE_TAG_MAX = 50,	       /* characters */
	RULE_ID_SIZE = 32,
	NAME_MAX_LENGTH = 253,
	OBJECT_NAME_MAX = 50, /* characters of a proxy's, a group's or a list's name */
};

struct port_range {
	uint16_t first;
	uint16_t last;
};

struct port_list {
	const struct port_range *items;
	size_t count;
};

/* Where an origin is. */
struct host {
	const char *name; /* lower case, no trailing dot; NULL when it is given by its address */
	struct ip ip;	  /* when name is NULL */
};

struct ip_list {
	const char *name;
	const struct prefix *items; /* in the order given */
	size_t count;
	uint64_t hash; /* of the items: ip_list_finish() */
};

/* Who may use a proxy or a rule. With neither list: everybody. */
struct access {
	const struct ip_list *const *allow;
	const struct ip_list *const *deny;
	size_t allow_count;
	size_t deny_count;
};

struct origin {
	struct host host;
	uint16_t port; /* 0: the rule's origin port */
	struct origin_settings settings;
	setting_mask given;
};

struct origin_group {
	const char *name;
	const struct origin *origins;
	size_t origin_count;
	struct group_settings settings;
	struct check_settings check;
	setting_mask given;
	setting_mask check_given;
};

struct proxy {
	const char *name;
	struct access access;
};

struct rule {
	char id[RULE_ID_SIZE]; /* unless given, made from protocol and edge ports: the same over reloads and restarts */
	enum protocol protocol;
	enum pass_mode pass;
	bool persistence;
	struct port_list edge_ports;	  /* in the order given, none overlapping */
	const struct origin_group *group; /* or NULL, and then */
	struct host origin;
	struct port_range origin_ports; /* one port, or as long as the one edge range */
	const char *tag;		/* NULL when there is none */
	const struct proxy *proxy;	/* NULL for a rule of a rules file that belongs to none */
	struct access access;
	struct rule_settings settings;
	setting_mask given;	  /* settings that the rule itself gives */
	unsigned int line;	  /* where it was read, from 1; 0 when it was not read from lines */
	unsigned int pass_column; /* and where in the line the pass mode is, in characters from 1 */
	const unsigned int
		*edge_columns; /* and where in the line each of edge_ports, in characters from 1; else NULL */
};

struct config {
	struct arena arena;
	uint64_t version; /* as given in the document; 0: none */
	struct rule *rules;
	size_t rule_count;
	const struct proxy *proxies;
	size_t proxy_count;
	const struct origin_group *groups;
	size_t group_count;
	const struct ip_list *ip_lists;
	size_t ip_list_count;
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

/** ip_list_finish() - all items are there: note their hash, which many rules ask for */
void ip_list_finish(struct ip_list *list);

/** config_free() - an all-zero configuration is accepted, and is left behind */
void config_free(struct config *config);

/**
 * config_join() - add the rules and settings of a text to a document
 * @document: owns everything then
 * @rules:    read by rules_parse() with @document as the base; left all-zero on success
 *
 * Defaults for rules ("set rule", rule_defaults) of either reach the rules of both.
 *
 * Return: 0; -ENOMEM, and neither has changed.
 */
MUST_CHECK int config_join(struct config *document, struct config *rules);

/** config_fold_name() - a name of an object as it is compared: in lower case; @ret_folded has @length bytes, no NUL */
void config_fold_name(const char *name, size_t length, char *ret_folded);

/** config_group() - the origin group of a name, in any letter case, or NULL */
const struct origin_group *config_group(const struct config *config, const char *name, size_t length);

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

/** host_equal() - whether two hosts are given by the same name or address */
bool host_equal(const struct host *a, const struct host *b);

/** rule_same_forwarding() - whether a flow of @a may go on under @b: same origin or group, origin port for
 * @edge_port, and header */
bool rule_same_forwarding(const struct rule *a, const struct rule *b, uint16_t edge_port);
