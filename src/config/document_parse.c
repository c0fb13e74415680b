/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a configuration document, object by object. A wrong member is noted with its path and the others are still
 * looked at, so that one run shows everything. What concerns several rules is done when all are known.
 */
#include "base/error.h"
#include "config/check.h"
#include "config/document_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- access --- */

static void read_access_list(struct reader *rd, const struct place *at, const json_t *json,
	const struct ip_list *const **ret_lists, size_t *ret_count)
{
	const struct ip_list **lists;
	size_t n, count = 0;

	if (!json || json_array_size(json) == 0)
		return;
	n = reader_bounded(rd, at, json, ACCESS_LISTS_MAX, "lists");
	lists = reader_take(rd, n, sizeof(*lists));
	if (!lists)
		return;
	for (size_t i = 0; i < n; i++) {
		const struct place item = { at, NULL, i };
		const json_t *name = json_array_get(json, i);
		const struct ip_list *list;
		uint32_t index;
		size_t same;

		if (!json_is_string(name)) {
			reader_wrong(rd, &item, "%s: expected the name of an IP list", reader_type_name(name));
			continue;
		}
		if (!reader_resolve(
			    rd, &item, KIND_IP_LIST, name, json_string_value(name), json_string_length(name), &index))
			continue;
		list = &rd->config->ip_lists[index];
		for (same = 0; same < count && lists[same] != list; same++)
			;
		if (same < count)
			reader_wrong(rd, &item, "\"%s\": expected each list once", list->name);
		else
			lists[count++] = list;
	}
	*ret_lists = lists;
	*ret_count = count;
}

static void read_access(
	struct reader *rd, const struct place *at, const json_t *allow, const json_t *deny, struct access *ret)
{
	read_access_list(rd, &(struct place){ at, "allow", 0 }, allow, &ret->allow, &ret->allow_count);
	read_access_list(rd, &(struct place){ at, "deny", 0 }, deny, &ret->deny, &ret->deny_count);
}

/* --- IP lists --- */

static void wrong_prefix(struct reader *rd, const struct place *at, const json_t *json, int r)
{
	char found_bytes[300], prefix_bytes[PREFIX_TEXT_SIZE];
	struct text found = text_fixed(found_bytes, sizeof(found_bytes));
	const char *text = json_string_value(json), *slash;
	struct prefix prefix;

	reader_describe(json, &found);
	slash = r == -ERANGE ? strchr(text, '/') : NULL;
	if (slash && ip_parse(text, (size_t)(slash - text), &prefix.ip) == 0) {
		unsigned int bits = (unsigned int)strtoul(slash + 1, NULL, 10) + (ip_is_v4(&prefix.ip) ? 96 : 0);

		prefix = (struct prefix){ .ip = ip_mask(&prefix.ip, bits), .bits = (uint8_t)bits };
		prefix_format(&prefix, prefix_bytes);
		reader_wrong(rd, at, "%s: expected no bit set behind the prefix, as in %s", found_bytes, prefix_bytes);
		return;
	}
	reader_wrong(rd, at, "%s: expected an address or a prefix such as 10.0.0.0/8 or 2001:db8::/32", found_bytes);
}

static void read_entries(struct reader *rd, const struct place *at, const json_t *json, struct ip_list *list)
{
	size_t count = json_array_size(json);
	struct prefix *items;

	rd->entry_count += count;
	if (rd->entry_count > IP_LIST_ENTRIES_MAX) {
		if (rd->entry_count - count <= IP_LIST_ENTRIES_MAX)
			reader_wrong(rd, at, "%zu entries in all lists up to here: expected at most %d",
				rd->entry_count, IP_LIST_ENTRIES_MAX);
		return;
	}
	items = reader_take(rd, count, sizeof(*items));
	if (!items)
		return;
	for (size_t i = 0; i < count; i++) {
		const json_t *item = json_array_get(json, i);
		int r = json_is_string(item)
			? prefix_parse(json_string_value(item), json_string_length(item), &items[i])
			: -EINVAL;

		if (r)
			wrong_prefix(rd, &(struct place){ at, NULL, i }, item, r);
	}
	list->items = items;
	list->count = count;
	ip_list_finish(list);
}

static void read_ip_list(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret)
{
	struct ip_list *list = ret;
	struct members m;

	reader_object(rd, at, json, SCHEMA_IP_LIST, NULL, &m);
	list->name = reader_name(rd, at, KIND_IP_LIST, index, m.of[MEMBER_IP_LIST_name]);
	if (m.of[MEMBER_IP_LIST_entries])
		read_entries(rd, &(struct place){ at, "entries", 0 }, m.of[MEMBER_IP_LIST_entries], list);
}

/* --- groups --- */

/* One origin of a group as a key: the group, the port, and the name or the address. */
static int claim_origin(
	struct reader *rd, uint32_t group, const struct origin *origin, uint32_t index, uint32_t *ret_other)
{
	char key[sizeof(group) + sizeof(origin->port) + NAME_MAX_LENGTH + 1];
	size_t length = origin->host.name ? strlen(origin->host.name) : sizeof(origin->host.ip);

	memcpy(key, &group, sizeof(group));
	memcpy(key + sizeof(group), &origin->port, sizeof(origin->port));
	key[sizeof(group) + sizeof(origin->port)] = origin->host.name != NULL;
	memcpy(key + sizeof(group) + sizeof(origin->port) + 1,
		origin->host.name ? origin->host.name : (const char *)origin->host.ip.bytes, length);
	return key_map_put(&rd->origins, key, sizeof(group) + sizeof(origin->port) + 1 + length, index, ret_other);
}

static void read_origin(struct reader *rd, const struct place *at, const json_t *json, size_t group, size_t index,
	struct origin *origin)
{
	struct target target = { &origin->settings, &origin->given, PROTOCOL_N };
	const json_t *address, *port;
	struct port_range range = { 0 };
	struct field_fault why;
	struct members m;
	bool ok = true;
	uint32_t other;
	int r;

	reader_object(rd, at, json, SCHEMA_ORIGIN, &target, &m);
	address = m.of[MEMBER_ORIGIN_address];
	port = m.of[MEMBER_ORIGIN_port];
	if (port)
		ok = reader_field_ok(rd, field_port(json_integer_value(port), UINT16_MAX, &range, &why),
			&(struct place){ at, "port", 0 }, &why);
	origin->port = range.first;
	if (!address)
		return;
	r = field_host(json_string_value(address), json_string_length(address), HOST_FORM_MEMBER, &rd->config->arena,
		&origin->host, &why);
	if (!reader_field_ok(rd, r, &(struct place){ at, "address", 0 }, &why) || !ok)
		return;
	r = claim_origin(rd, (uint32_t)group, origin, (uint32_t)index, &other);
	if (r < 0)
		rd->out_of_memory = true;
	else if (r == KEY_MAP_E_EXISTS && port)
		reader_wrong(rd, at, "\"%s\" port %u: expected each origin once in a group (origins[%u] is the same)",
			json_string_value(address), origin->port, other);
	else if (r == KEY_MAP_E_EXISTS)
		reader_wrong(rd, at, "\"%s\": expected each origin once in a group (origins[%u] is the same)",
			json_string_value(address), other);
}

static void read_origins(
	struct reader *rd, const struct place *at, const json_t *json, size_t group_index, struct origin_group *group)
{
	struct origin defaults = { 0 }, *origins;
	size_t n = reader_bounded(rd, at, json, GROUP_ORIGINS_MAX, "origins");

	rd->origin_count += n;
	if (rd->origin_count > ORIGINS_MAX) {
		if (rd->origin_count - n <= ORIGINS_MAX)
			reader_wrong(rd, at, "%zu origins in all groups up to here: expected at most %d",
				rd->origin_count, ORIGINS_MAX);
		return;
	}
	origins = reader_take(rd, n, sizeof(*origins));
	if (!origins)
		return;
	setting_defaults(SETTING_SCOPE_ORIGIN, PROTOCOL_TCP, &defaults.settings);
	for (size_t i = 0; i < n; i++) {
		const struct place item = { at, NULL, i };
		const json_t *origin = json_array_get(json, i);

		origins[i] = defaults;
		if (reader_is_object(rd, &item, origin))
			read_origin(rd, &item, origin, group_index, i, &origins[i]);
	}
	group->origins = origins;
	group->origin_count = n;
}

static void read_check(struct reader *rd, const struct place *at, const json_t *json, struct origin_group *group)
{
	static const enum check_setting_id of_udp[] = { CHECK_SETTING_send, CHECK_SETTING_expect };
	struct target target = { &group->check, &group->check_given, PROTOCOL_N };
	struct members m;

	reader_object(rd, at, json, SCHEMA_CHECK, &target, &m);
	for (size_t i = 0; i < ARRAY_SIZE(of_udp); i++) {
		const struct place member = { at, setting_name(SETTING_SCOPE_CHECK, of_udp[i]), 0 };
		struct text word = text_fixed((char[16]){ 0 }, 16);

		if (!(group->check_given & 1u << of_udp[i]) || group->check.type == CHECK_TYPE_UDP ||
			(json_object_get(json, "type") && !(group->check_given & 1u << CHECK_SETTING_type)))
			continue;
		setting_format(SETTING_SCOPE_CHECK, CHECK_SETTING_type, &group->check, &word);
		reader_wrong(rd, &member, "with a check of type %s: expected it with type udp only", word.bytes);
	}
}

/* A check needs a port to go to. */
static void check_origin_ports(
	struct reader *rd, const struct place *at, const json_t *origins, const struct origin_group *group)
{
	const struct place list = { at, "origins", 0 };

	if (group->check.type == CHECK_TYPE_OFF || group->check.port)
		return;
	for (size_t i = 0; i < group->origin_count; i++) {
		const struct place item = { &list, NULL, i };
		const json_t *origin = json_array_get(origins, i);

		if (json_is_object(origin) && !json_object_get(origin, "port"))
			reader_wrong(rd, &(struct place){ &item, "port", 0 },
				"missing: expected a port, or health_check.port");
	}
}

static void read_group(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret)
{
	struct origin_group *group = ret;
	struct target target = { &group->settings, &group->given, PROTOCOL_N };
	struct members m;

	setting_defaults(SETTING_SCOPE_GROUP, PROTOCOL_TCP, &group->settings);
	setting_defaults(SETTING_SCOPE_CHECK, PROTOCOL_TCP, &group->check);
	reader_object(rd, at, json, SCHEMA_GROUP, &target, &m);
	group->name = reader_name(rd, at, KIND_GROUP, index, m.of[MEMBER_GROUP_name]);
	if (m.of[MEMBER_GROUP_health_check])
		read_check(rd, &(struct place){ at, "health_check", 0 }, m.of[MEMBER_GROUP_health_check], group);
	if (m.of[MEMBER_GROUP_origins])
		read_origins(rd, &(struct place){ at, "origins", 0 }, m.of[MEMBER_GROUP_origins], index, group);
	check_origin_ports(rd, at, m.of[MEMBER_GROUP_origins], group);
}

/* --- proxies --- */

static void read_proxy(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret)
{
	struct proxy *proxy = ret;
	struct members m;

	reader_object(rd, at, json, SCHEMA_PROXY, NULL, &m);
	proxy->name = reader_name(rd, at, KIND_PROXY, index, m.of[MEMBER_PROXY_name]);
	read_access(rd, at, m.of[MEMBER_PROXY_allow], m.of[MEMBER_PROXY_deny], &proxy->access);
}

/* --- rules --- */

/* A port or a range, as a number or as text. */
static int read_range(const json_t *json, unsigned int max, struct port_range *ret, struct field_fault *why)
{
	char found_bytes[300];
	struct text found = text_fixed(found_bytes, sizeof(found_bytes));

	if (json_is_integer(json))
		return field_port(json_integer_value(json), max, ret, why);
	if (json_is_string(json))
		return field_range(json_string_value(json), json_string_length(json), max, ret, why);
	reader_describe(json, &found);
	return field_wrong(why, NULL, " ", "a port or a range such as 80 or \"80-90\"", "%s", found_bytes);
}

static bool read_protocol(struct reader *rd, const struct place *at, const json_t *json, struct rule *rule)
{
	const char *text = json_string_value(json);
	size_t length = json_string_length(json);

	if (!text)
		return false;
	if (length == 3 && strncasecmp(text, "tcp", 3) == 0)
		rule->protocol = PROTOCOL_TCP;
	else if (length == 3 && strncasecmp(text, "udp", 3) == 0)
		rule->protocol = PROTOCOL_UDP;
	else {
		reader_wrong(rd, &(struct place){ at, "protocol", 0 }, FIELD_QUOTED ": expected tcp or udp",
			FIELD_QUOTE(text, length));
		return false;
	}
	return true;
}

/* A wrong entry is left as 0-0. False if there is one. */
static bool read_edge_ports(
	struct reader *rd, const struct place *at, const json_t *json, bool protocol_ok, struct rule *rule)
{
	size_t max = rd->profile->entries_max ? rd->profile->entries_max : DOCUMENT_VALUES_MAX + 1;
	size_t count = reader_bounded(rd, at, json, max, "entries");
	struct port_range *ranges = reader_take(rd, count, sizeof(*ranges));
	bool ok = count == json_array_size(json);

	if (!ranges)
		return false;
	if (count == 0) {
		reader_wrong(rd, at, "an empty list: expected ports or ranges");
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		struct port_range range;
		struct field_fault why;
		int r = read_range(json_array_get(json, i), rd->profile->port_max, &range, &why);

		if (r == FIELD_OK && protocol_ok)
			r = field_reserved(rd->profile, rule->protocol, range, NULL, &why);
		if (r == FIELD_OK)
			ranges[i] = range;
		else
			ok = reader_field_ok(rd, r, &(struct place){ at, NULL, i }, &why);
	}
	rule->edge_ports = (struct port_list){ .items = ranges, .count = count };
	return ok;
}

static void read_origin_of_rule(struct reader *rd, const struct place *at, const json_t *json, struct rule *rule)
{
	const struct place member = { at, "origin", 0 };
	const char *text = json_string_value(json);
	size_t length = json_string_length(json);
	struct field_fault why;
	uint32_t index;
	int r;

	if (!text)
		return;
	if (field_names_group(text, length)) {
		if (reader_resolve(rd, &member, KIND_GROUP, json, text + 3, length - 3, &index))
			rule->group = &rd->config->groups[index];
		return;
	}
	r = field_host(text, length, HOST_FORM_DOCUMENT, &rd->config->arena, &rule->origin, &why);
	reader_field_ok(rd, r, &member, &why);
}

static void read_persistence(struct reader *rd, const struct place *at, const json_t *json, struct rule *rule)
{
	struct field_fault why;

	if (json_is_boolean(json))
		rule->persistence = json_is_true(json);
	else if (json)
		reader_field_ok(rd,
			field_switch(json_string_value(json), json_string_length(json), &rule->persistence, &why),
			&(struct place){ at, "persistence", 0 }, &why);
}

static void read_rule_id(struct reader *rd, const struct place *at, const json_t *json, bool edge_ok, struct rule *rule)
{
	struct field_fault why;

	if (!json) {
		if (edge_ok)
			rule_make_id(rule, rule->id);
	} else if (reader_field_ok(rd, field_rule_id(json_string_value(json), json_string_length(json), &why),
			   &(struct place){ at, "id", 0 }, &why)) {
		memcpy(rule->id, json_string_value(json), json_string_length(json));
	}
}

/* The members of a rule that may be left out, beside its settings. */
static void read_optional(
	struct reader *rd, const struct place *at, const struct members *m, enum protocol protocol, struct rule *rule)
{
	const json_t *proxy = m->of[MEMBER_RULE_proxy], *pass = m->of[MEMBER_RULE_pass], *tag = m->of[MEMBER_RULE_tag];
	struct field_fault why;
	uint32_t index;

	if (proxy &&
		reader_resolve(rd, &(struct place){ at, "proxy", 0 }, KIND_PROXY, proxy, json_string_value(proxy),
			json_string_length(proxy), &index))
		rule->proxy = &rd->config->proxies[index];
	read_persistence(rd, at, m->of[MEMBER_RULE_persistence], rule);
	if (pass)
		reader_field_ok(rd,
			field_pass(json_string_value(pass), json_string_length(pass), protocol, &rule->pass, &why),
			&(struct place){ at, "pass", 0 }, &why);
	if (tag)
		reader_field_ok(rd,
			field_tag(
				json_string_value(tag), json_string_length(tag), &rd->config->arena, &rule->tag, &why),
			&(struct place){ at, "tag", 0 }, &why);
	read_access(rd, at, m->of[MEMBER_RULE_allow], m->of[MEMBER_RULE_deny], &rule->access);
}

static void read_rule(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret)
{
	struct rule *rule = ret;
	struct target target = { &rule->settings, &rule->given, PROTOCOL_N };
	const json_t *edge_ports, *origin_port;
	struct members m, settings;
	struct field_fault why;
	bool protocol_ok, edge_ok = false;

	(void)index;
	reader_object(rd, at, json, SCHEMA_RULE, NULL, &m);
	protocol_ok = read_protocol(rd, at, m.of[MEMBER_RULE_protocol], rule);
	if (protocol_ok)
		target.protocol = rule->protocol;
	edge_ports = m.of[MEMBER_RULE_edge_ports];
	if (edge_ports)
		edge_ok = read_edge_ports(rd, &(struct place){ at, "edge_ports", 0 }, edge_ports, protocol_ok, rule);
	if (!protocol_ok) /* nobody knows whose ports they are */
		rule->edge_ports.count = 0;
	read_origin_of_rule(rd, at, m.of[MEMBER_RULE_origin], rule);
	origin_port = m.of[MEMBER_RULE_origin_port];
	if (origin_port) {
		int r = read_range(origin_port, UINT16_MAX, &rule->origin_ports, &why);

		if (r == FIELD_OK && edge_ok && protocol_ok)
			r = field_origin_ports(&rule->edge_ports, rule->origin_ports, &why);
		reader_field_ok(rd, r, &(struct place){ at, "origin_port", 0 }, &why);
	}
	read_optional(rd, at, &m, target.protocol, rule);
	if (m.of[MEMBER_RULE_settings])
		reader_object(rd, &(struct place){ at, "settings", 0 }, m.of[MEMBER_RULE_settings],
			SCHEMA_RULE_SETTINGS, &target, &settings);
	read_rule_id(rd, at, m.of[MEMBER_RULE_id], edge_ok && protocol_ok, rule);
}

/* --- the document --- */

/* Reads a list of objects into an array. @ret_all: whether it is all there is. */
static void *read_list(struct reader *rd, const struct members *m, enum schema_member_id member, size_t max,
	const char *what, size_t size,
	void (*read)(struct reader *rd, const struct place *at, const json_t *json, size_t index, void *ret),
	size_t *ret_count, bool *ret_all)
{
	const struct place at = { NULL, schema_members[member].name, 0 };
	const json_t *json = m->of[member];
	size_t count;
	char *items;

	*ret_count = 0;
	*ret_all = !m->seen[member] || (json && json_array_size(json) <= max);
	if (!json)
		return NULL;
	count = reader_bounded(rd, &at, json, max, what);
	items = reader_take(rd, count, size);
	for (size_t i = 0; items && i < count && !rd->out_of_memory; i++) {
		const struct place item = { &at, NULL, i };
		const json_t *object = json_array_get(json, i);

		if (reader_is_object(rd, &item, object))
			read(rd, &item, object, i, items + i * size);
	}
	*ret_count = items ? count : 0;
	return items;
}

/* Elements that are no objects have no name. */
static void read_lists(struct reader *rd, const struct members *m)
{
	struct config *c = rd->config;
	struct ip_list *lists;
	struct origin_group *groups;
	struct proxy *proxies;
	bool all;

	lists = read_list(rd, m, MEMBER_DOCUMENT_ip_lists, IP_LISTS_MAX, "lists", sizeof(*lists), read_ip_list,
		&c->ip_list_count, &rd->known[KIND_IP_LIST]);
	for (size_t i = 0; i < c->ip_list_count; i++)
		lists[i].name = lists[i].name ? lists[i].name : "";
	c->ip_lists = lists;
	groups = read_list(rd, m, MEMBER_DOCUMENT_origin_groups, GROUPS_MAX, "groups", sizeof(*groups), read_group,
		&c->group_count, &rd->known[KIND_GROUP]);
	for (size_t i = 0; i < c->group_count; i++)
		groups[i].name = groups[i].name ? groups[i].name : "";
	c->groups = groups;
	proxies = read_list(rd, m, MEMBER_DOCUMENT_proxies, PROXIES_MAX, "proxies", sizeof(*proxies), read_proxy,
		&c->proxy_count, &rd->known[KIND_PROXY]);
	for (size_t i = 0; i < c->proxy_count; i++)
		proxies[i].name = proxies[i].name ? proxies[i].name : "";
	c->proxies = proxies;
	c->rules = read_list(rd, m, MEMBER_DOCUMENT_rules, rd->profile->rules_max, "rules", sizeof(*c->rules),
		read_rule, &c->rule_count, &all);
	if (!c->rules)
		c->rules = reader_take(rd, 1, sizeof(*c->rules));
}

static void read_version(struct reader *rd, const json_t *json)
{
	json_int_t version = json_integer_value(json);

	if (version < 0 || version > DOCUMENT_VERSION_MAX)
		reader_wrong(rd, &(struct place){ NULL, "version", 0 }, "%" JSON_INTEGER_FORMAT ": expected 0-%" PRId64,
			version, DOCUMENT_VERSION_MAX);
	else
		rd->config->version = (uint64_t)version;
}

/* Of a document that is something else, or that has been damaged, nothing more is worth saying. */
static bool is_ours(struct reader *rd, const json_t *json)
{
	const json_t *schema = json_object_get(json, "schema"), *checksum = json_object_get(json, "checksum");
	char expected[DOCUMENT_CHECKSUM_SIZE];

	if (json_is_integer(schema) && json_integer_value(schema) != DOCUMENT_SCHEMA) {
		reader_wrong(rd, &(struct place){ NULL, "schema", 0 }, "%" JSON_INTEGER_FORMAT ": expected %d",
			json_integer_value(schema), DOCUMENT_SCHEMA);
		return false;
	}
	if (json_is_string(checksum)) {
		const char *found = json_string_value(checksum);
		size_t length = json_string_length(checksum);

		json_checksum(json, expected);
		if (strcmp(found, expected) != 0) {
			reader_wrong(rd, &(struct place){ NULL, "checksum", 0 }, "%.*s%s: expected %s",
				FIELD_QUOTE(found, length), expected);
			return false;
		}
	}
	return true;
}

static void read_document(struct reader *rd, const json_t *json)
{
	struct target node = { &rd->config->node, &rd->config->node_given, PROTOCOL_N };
	struct target defaults = { &rd->config->rule_defaults, &rd->config->rule_defaults_given, PROTOCOL_N };
	struct members m, inner;

	setting_defaults(SETTING_SCOPE_NODE, PROTOCOL_TCP, &rd->config->node);
	if (!is_ours(rd, json))
		return;
	reader_object(rd, NULL, json, SCHEMA_DOCUMENT, NULL, &m);
	if (m.of[MEMBER_DOCUMENT_version])
		read_version(rd, m.of[MEMBER_DOCUMENT_version]);
	if (m.of[MEMBER_DOCUMENT_node])
		reader_object(
			rd, &(struct place){ NULL, "node", 0 }, m.of[MEMBER_DOCUMENT_node], SCHEMA_NODE, &node, &inner);
	if (m.of[MEMBER_DOCUMENT_rule_defaults])
		reader_object(rd, &(struct place){ NULL, "rule_defaults", 0 }, m.of[MEMBER_DOCUMENT_rule_defaults],
			SCHEMA_RULE_DEFAULTS, &defaults, &inner);
	read_lists(rd, &m);
}

static int read_whole(struct reader *rd, const char *text, size_t length)
{
	json_t *json;
	int r = json_read(text, length, &json, rd->problems);

	if (r)
		return r;
	reader_init(rd);
	read_document(rd, json);
	json_decref(json);
	if (rd->out_of_memory)
		return fault(-ENOMEM);
	r = check_rules(NULL, rd->config, rd->problems);
	if (r)
		return r;
	return rd->problems->count || rd->problems->left_out ? DOCUMENT_E_WRONG : DOCUMENT_OK;
}

int document_parse(const char *text, size_t length, const struct limits_profile *profile, struct config *ret_config,
	struct problems *problems)
{
	struct config config = { 0 };
	struct reader rd = { .profile = profile, .problems = problems, .config = &config };
	int r = read_whole(&rd, text, length);

	reader_deinit(&rd);
	if (r) {
		config_free(&config);
		return r;
	}
	rules_apply_defaults(&config);
	*ret_config = config;
	return DOCUMENT_OK;
}
