/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of rules and of the node. tables/setting.def holds a row for each; this file turns the rows into the
 * two structs, and settings.c into parser, defaults, checks and writer. To add an option, add a row.
 */
#pragma once

#include "base/addr.h"
#include "base/arena.h"
#include "base/text.h"

enum protocol { PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_N };

enum ppv2_mode { PPV2_MODE_FIRST, PPV2_MODE_UNTIL_REPLY, PPV2_MODE_EVERY };
enum switch_state { SWITCH_OFF, SWITCH_ON };
enum algorithm { ALGORITHM_ROUND_ROBIN, ALGORITHM_LEAST_CONNECTIONS, ALGORITHM_SOURCE_HASH };
enum all_down { ALL_DOWN_USE_ALL, ALL_DOWN_REFUSE };
enum check_type { CHECK_TYPE_OFF, CHECK_TYPE_TCP, CHECK_TYPE_UDP };
enum spp_answers { SPP_ANSWERS_LENIENT, SPP_ANSWERS_STRICT, SPP_ANSWERS_EDGEONE };

enum {
	PREFIX_LIST_MAX = 64,
	SERVER_LIST_MAX = 8,
	WORD_MAX = 63,
	PAYLOAD_MAX = 256,
	CONNECT_TRIES_MAX = 16,
};

struct prefix_list {
	const struct prefix *items; /* in the arena given to setting_parse() */
	size_t count;
};

struct server_list {
	struct addr items[SERVER_LIST_MAX];
	size_t count;
};

struct payload {
	uint16_t length;
	uint8_t bytes[PAYLOAD_MAX]; /* zero behind length */
};

#define SETTING_FIELD_MSEC(name)	int64_t name##_ms;
#define SETTING_FIELD_COUNT(name)	uint32_t name;
#define SETTING_FIELD_PREFIXES(name)	struct prefix_list name;
#define SETTING_FIELD_WORD(name)	char name[WORD_MAX + 1];
#define SETTING_FIELD_SERVERS(name)	struct server_list name;
#define SETTING_FIELD_PPV2_MODE(name)	enum ppv2_mode name;
#define SETTING_FIELD_SPP_ANSWERS(name) enum spp_answers name;
#define SETTING_FIELD_SWITCH(name)	enum switch_state name;
#define SETTING_FIELD_PAYLOAD(name)	struct payload name;
#define SETTING_FIELD_ALGORITHM(name)	enum algorithm name;
#define SETTING_FIELD_ALL_DOWN(name)	enum all_down name;
#define SETTING_FIELD_CHECK_TYPE(name)	enum check_type name;

struct rule_settings {
#define RULE_SETTING(name, type, ...) SETTING_FIELD_##type(name)
#include "tables/setting.def"
};

struct node_settings {
#define NODE_SETTING(name, type, ...) SETTING_FIELD_##type(name)
#include "tables/setting.def"
};

struct group_settings {
#define GROUP_SETTING(name, type, ...) SETTING_FIELD_##type(name)
#include "tables/setting.def"
};

struct check_settings {
#define CHECK_SETTING(name, type, ...) SETTING_FIELD_##type(name)
#include "tables/setting.def"
};

struct origin_settings {
#define ORIGIN_SETTING(name, type, ...) SETTING_FIELD_##type(name)
#include "tables/setting.def"
};

enum rule_setting_id {
#define RULE_SETTING(name, ...) RULE_SETTING_##name,
#include "tables/setting.def"
	RULE_SETTING_N
};

enum node_setting_id {
#define NODE_SETTING(name, ...) NODE_SETTING_##name,
#include "tables/setting.def"
	NODE_SETTING_N
};

enum group_setting_id {
#define GROUP_SETTING(name, ...) GROUP_SETTING_##name,
#include "tables/setting.def"
	GROUP_SETTING_N
};

enum check_setting_id {
#define CHECK_SETTING(name, ...) CHECK_SETTING_##name,
#include "tables/setting.def"
	CHECK_SETTING_N
};

enum origin_setting_id {
#define ORIGIN_SETTING(name, ...) ORIGIN_SETTING_##name,
#include "tables/setting.def"
	ORIGIN_SETTING_N
};

/* The structs that settings are in: struct rule_settings for SETTING_SCOPE_RULE, and so on. */
enum setting_scope {
	SETTING_SCOPE_RULE,
	SETTING_SCOPE_NODE,
	SETTING_SCOPE_GROUP,
	SETTING_SCOPE_CHECK,
	SETTING_SCOPE_ORIGIN,
	SETTING_SCOPE_N
};

/* Which settings were given by the user rather than defaulted: bit i is the id of the scope's enum. */
typedef uint32_t setting_mask;
_Static_assert(RULE_SETTING_N <= 32 && NODE_SETTING_N <= 32, "setting_mask has a bit for every setting");

/**
 * setting_defaults() - fill in the defaults of the table
 * @protocol:     of the rule; it makes no difference in other scopes
 * @ret_settings: the struct of the scope
 */
void setting_defaults(enum setting_scope scope, enum protocol protocol, void *ret_settings);

/** setting_count() - how many settings a scope has: ids are below */
unsigned int setting_count(enum setting_scope scope);

/**
 * setting_find() - the id of a setting by its name, in any letter case
 *
 * Return: the id (an enum rule_setting_id, node_setting_id …), or -1 if the scope has none of that name.
 */
int setting_find(enum setting_scope scope, const char *name, size_t length);

/** setting_name() - its name; @id must be valid for the scope */
const char *setting_name(enum setting_scope scope, unsigned int id);

enum setting_form { SETTING_FORM_TEXT, SETTING_FORM_TIME, SETTING_FORM_NUMBER, SETTING_FORM_SWITCH, SETTING_FORM_LIST };

/** setting_form() - how a value is written where there is more than text; of a LIST the parts are joined by ',' */
enum setting_form setting_form(enum setting_scope scope, unsigned int id);

/** setting_expected() - append what a value must be, for people: "a number from 1 to 16" */
void setting_expected(enum setting_scope scope, unsigned int id, struct text *out);

/** setting_carried_by() - whether a rule of @protocol can have the setting */
bool setting_carried_by(unsigned int rule_setting_id, enum protocol protocol);

/**
 * setting_parse() - read a value into the struct of its scope
 * @settings: the struct of the scope
 * @arena:    takes lists; must live as long as @settings
 * @ret_why:  on -EINVAL, what was expected: "a time from 10ms to 10m"; written whole or cut
 *
 * Return: 0; -EINVAL (@settings is untouched); -ENOMEM.
 */
MUST_CHECK int setting_parse(enum setting_scope scope, unsigned int id, const char *value, size_t length,
	struct arena *arena, void *settings, struct text *ret_why);

/** setting_format() - append the value as setting_parse() reads it */
void setting_format(enum setting_scope scope, unsigned int id, const void *settings, struct text *out);

/** setting_copy() - copy one field from one struct of the scope to another; lists are shared, not copied */
void setting_copy(enum setting_scope scope, unsigned int id, const void *from, void *to);

/** setting_equal() - whether two structs of the scope have the same value for a setting */
bool setting_equal(enum setting_scope scope, unsigned int id, const void *a, const void *b);

/** settings_document() - append docs/reference/settings.md */
void settings_document(struct text *out);
