/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration documents: what is accepted and what it means, every refusal with its path, the limits and one more,
 * parse(format(x)) = x, and what becomes of damaged ones. JSON stands here with ' for ".
 */
#include "base/test.h"
#include "config/document.h"
#include "config/rules.h"
#include "config/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define X10(s)	s s s s s s s s s s
#define X50(s)	X10(s) X10(s) X10(s) X10(s) X10(s)
#define NAME_50 X50("n")

static char *quoted(const char *text, size_t length)
{
	char *json = malloc(length + 1);

	assert_non_null(json);
	for (size_t i = 0; i < length; i++)
		json[i] = text[i] == '\'' ? '"' : text[i];
	json[length] = 0;
	return json;
}

static const struct limits_profile *profile(const char *name)
{
	const struct limits_profile *p = limits_profile_find(name);

	assert_non_null(p);
	return p;
}

/* Every problem on a line, as problems_format() writes it for the file x. */
static void assert_bytes_refused(const char *json, size_t length, const char *profile_name, const char *expected)
{
	struct config config = { .rule_count = 4711 };
	struct problems problems = { 0 };
	struct text got = text_growing(1 << 24);
	int r = document_parse(json, length, profile(profile_name), &config, &problems);

	text_str(&got, "");
	problems_format(&problems, "x", &got);
	if (r != DOCUMENT_E_WRONG)
		fail_msg("%.*s: %d, expected a refusal", (int)MIN(length, (size_t)1000), json, r);
	if (strcmp(got.bytes, expected) != 0)
		fail_msg("%.*s\ngot      %sexpected %s", (int)MIN(length, (size_t)1000), json, got.bytes, expected);
	assert_int_equal(config.rule_count, 4711);
	problems_free(&problems);
	text_free(&got);
}

static void assert_refused(const char *text, const char *profile_name, const char *expected)
{
	char *json = quoted(text, strlen(text));

	assert_bytes_refused(json, strlen(json), profile_name, expected);
	free(json);
}

static struct config parse_bytes(const char *json, size_t length, const char *profile_name)
{
	struct problems problems = { 0 };
	struct config config;

	if (document_parse(json, length, profile(profile_name), &config, &problems) != DOCUMENT_OK) {
		struct text why = text_growing(1 << 20);

		problems_format(&problems, "x", &why);
		fail_msg("%.*s\n%s", (int)MIN(length, (size_t)1000), json, why.bytes);
	}
	assert_int_equal(problems.count, 0);
	return config;
}

static struct config parse(const char *text)
{
	char *json = quoted(text, strlen(text));
	struct config config = parse_bytes(json, strlen(json), "open");

	free(json);
	return config;
}

static char *format(const struct config *config)
{
	struct text t = text_growing(DOCUMENT_MAX + 1);

	document_format(config, &t);
	assert_true(t.ok);
	return t.bytes;
}

/* --- equality --- */

static void assert_settings_equal(
	enum setting_scope scope, setting_mask given_a, const void *a, setting_mask given_b, const void *b)
{
	assert_int_equal(given_a, given_b);
	for (unsigned int id = 0; id < setting_count(scope); id++)
		assert_true(setting_equal(scope, id, a, b));
}

static void assert_access_equal(const struct access *a, const struct access *b)
{
	assert_int_equal(a->allow_count, b->allow_count);
	assert_int_equal(a->deny_count, b->deny_count);
	for (size_t i = 0; i < a->allow_count; i++)
		assert_string_equal(a->allow[i]->name, b->allow[i]->name);
	for (size_t i = 0; i < a->deny_count; i++)
		assert_string_equal(a->deny[i]->name, b->deny[i]->name);
}

static void assert_groups_equal(const struct origin_group *a, const struct origin_group *b)
{
	assert_string_equal(a->name, b->name);
	assert_settings_equal(SETTING_SCOPE_GROUP, a->given, &a->settings, b->given, &b->settings);
	assert_settings_equal(SETTING_SCOPE_CHECK, a->check_given, &a->check, b->check_given, &b->check);
	assert_int_equal(a->origin_count, b->origin_count);
	for (size_t i = 0; i < a->origin_count; i++) {
		assert_true(host_equal(&a->origins[i].host, &b->origins[i].host));
		assert_int_equal(a->origins[i].port, b->origins[i].port);
		assert_settings_equal(SETTING_SCOPE_ORIGIN, a->origins[i].given, &a->origins[i].settings,
			b->origins[i].given, &b->origins[i].settings);
	}
}

static void assert_rules_equal(const struct rule *a, const struct rule *b)
{
	assert_string_equal(a->id, b->id);
	assert_int_equal(a->protocol, b->protocol);
	assert_int_equal(a->pass, b->pass);
	assert_int_equal(a->persistence, b->persistence);
	assert_int_equal(a->edge_ports.count, b->edge_ports.count);
	assert_memory_equal(a->edge_ports.items, b->edge_ports.items, a->edge_ports.count * sizeof(struct port_range));
	assert_string_equal(a->group ? a->group->name : "", b->group ? b->group->name : "");
	if (!a->group)
		assert_true(host_equal(&a->origin, &b->origin));
	assert_memory_equal(&a->origin_ports, &b->origin_ports, sizeof(a->origin_ports));
	assert_string_equal(a->tag ? a->tag : "", b->tag ? b->tag : "");
	assert_string_equal(a->proxy ? a->proxy->name : "", b->proxy ? b->proxy->name : "");
	assert_access_equal(&a->access, &b->access);
	assert_settings_equal(SETTING_SCOPE_RULE, a->given, &a->settings, b->given, &b->settings);
}

static void assert_configs_equal(const struct config *a, const struct config *b)
{
	assert_int_equal(a->version, b->version);
	assert_settings_equal(SETTING_SCOPE_NODE, a->node_given, &a->node, b->node_given, &b->node);
	assert_settings_equal(SETTING_SCOPE_RULE, a->rule_defaults_given, &a->rule_defaults, b->rule_defaults_given,
		&b->rule_defaults);
	assert_int_equal(a->ip_list_count, b->ip_list_count);
	for (size_t i = 0; i < a->ip_list_count; i++) {
		assert_string_equal(a->ip_lists[i].name, b->ip_lists[i].name);
		assert_int_equal(a->ip_lists[i].count, b->ip_lists[i].count);
		for (size_t k = 0; k < a->ip_lists[i].count; k++) {
			assert_true(ip_equal(&a->ip_lists[i].items[k].ip, &b->ip_lists[i].items[k].ip));
			assert_int_equal(a->ip_lists[i].items[k].bits, b->ip_lists[i].items[k].bits);
		}
	}
	assert_int_equal(a->group_count, b->group_count);
	for (size_t i = 0; i < a->group_count; i++)
		assert_groups_equal(&a->groups[i], &b->groups[i]);
	assert_int_equal(a->proxy_count, b->proxy_count);
	for (size_t i = 0; i < a->proxy_count; i++) {
		assert_string_equal(a->proxies[i].name, b->proxies[i].name);
		assert_access_equal(&a->proxies[i].access, &b->proxies[i].access);
	}
	assert_int_equal(a->rule_count, b->rule_count);
	for (size_t i = 0; i < a->rule_count; i++)
		assert_rules_equal(&a->rules[i], &b->rules[i]);
}

static void assert_round_trip(const struct config *config)
{
	char *written = format(config), *again;
	struct config second = parse_bytes(written, strlen(written), "open");

	assert_configs_equal(config, &second);
	again = format(&second);
	assert_string_equal(written, again);
	config_free(&second);
	free(written);
	free(again);
}

/* --- what is accepted --- */

#define DOC(members)   "{'schema': 1, " members "}"
#define RULE(more)     "{'protocol': 'tcp', 'edge_ports': [80], 'origin': '10.0.0.1', 'origin_port': 80" more "}"
#define RULES(rules)   DOC("'rules': [" rules "]")
#define GROUP(members) DOC("'origin_groups': [{'name': 'g', " members "}]")
#define ORIGINS(list)  GROUP("'origins': [" list "]")

static void test_the_example_of_the_reference_is_what_it_says(void **state)
{
	const char *example = schema_example();
	struct config c = parse_bytes(example, strlen(example), "open");

	(void)state;
	assert_int_equal(c.version, 12);
	assert_int_equal(c.node.max_flows, 200000);
	assert_int_equal(c.node.resolvers.count, 2);
	assert_int_equal(c.node_given, 1u << NODE_SETTING_max_flows | 1u << NODE_SETTING_resolvers);
	assert_int_equal(c.rule_defaults.idle_timeout_ms, 300000);
	assert_int_equal(c.ip_list_count, 2);
	assert_string_equal(c.ip_lists[0].name, "office");
	assert_int_equal(c.ip_lists[0].count, 2);
	assert_int_equal(c.ip_lists[0].items[0].bits, 104);
	assert_int_equal(c.group_count, 2);
	assert_int_equal(c.groups[0].settings.algorithm, ALGORITHM_SOURCE_HASH);
	assert_int_equal(c.groups[0].settings.all_down, ALL_DOWN_USE_ALL);
	assert_int_equal(c.groups[0].settings.slow_start_ms, 30000);
	assert_int_equal(c.groups[0].settings.passive_fails, 5);
	assert_int_equal(c.groups[0].check.type, CHECK_TYPE_UDP);
	assert_int_equal(c.groups[0].check.interval_ms, 2000);
	assert_int_equal(c.groups[0].check.timeout_ms, 2000);
	assert_int_equal(c.groups[0].check.send.length, 4);
	assert_memory_equal(c.groups[0].check.expect.bytes, "pong", 4);
	assert_int_equal(c.groups[0].origin_count, 3);
	assert_int_equal(c.groups[0].origins[0].settings.weight, 10);
	assert_int_equal(c.groups[0].origins[0].settings.enabled, SWITCH_ON);
	assert_int_equal(c.groups[0].origins[1].settings.enabled, SWITCH_OFF);
	assert_string_equal(c.groups[0].origins[2].host.name, "spare.example.net");
	assert_int_equal(c.groups[0].origins[2].port, 7001);
	assert_int_equal(c.groups[1].origins[0].port, 0);
	assert_int_equal(c.groups[1].origins[0].settings.weight, 100);
	assert_int_equal(c.proxy_count, 1);
	assert_int_equal(c.proxies[0].access.deny_count, 1);
	assert_ptr_equal(c.proxies[0].access.deny[0], &c.ip_lists[1]);
	assert_int_equal(c.rule_count, 3);
	assert_string_equal(c.rules[0].id, "rule-game");
	assert_ptr_equal(c.rules[0].group, &c.groups[0]);
	assert_true(c.rules[0].persistence);
	assert_int_equal(c.rules[0].pass, PASS_SPP);
	assert_string_equal(c.rules[0].tag, "the game");
	assert_null(c.rules[0].proxy);
	assert_int_equal(c.rules[0].settings.idle_timeout_ms, 300000);
	assert_int_equal(c.rules[0].settings.client_max_flows, 200);
	assert_int_equal(c.rules[0].line, 0);
	assert_null(c.rules[0].edge_columns);
	assert_ptr_equal(c.rules[1].proxy, &c.proxies[0]);
	assert_int_equal(c.rules[1].edge_ports.count, 3);
	assert_int_equal(c.rules[1].edge_ports.items[2].last, 8010);
	assert_int_equal(c.rules[2].settings.idle_timeout_ms, 12 * 3600000);
	assert_int_equal(c.rules[2].settings.max_flows, 20);
	assert_ptr_equal(c.rules[2].access.allow[0], &c.ip_lists[0]);
	assert_round_trip(&c);
	config_free(&c);
}

/* A document, and what of it is written again, without the checksum. */
static void test_values_are_written_in_their_plain_form(void **state)
{
	static const struct {
		const char *text, *written;
	} cases[] = {
		{ "{'schema': 1}", "{\n  'schema': 1\n}\n" },
		{ "\xef\xbb\xbf{'schema':1}", "{\n  'schema': 1\n}\n" },
		{ DOC("'version': 0"), "{\n  'schema': 1\n}\n" },
		{ DOC("'version': 9007199254740991"), "{\n  'schema': 1,\n  'version': 9007199254740991\n}\n" },
		{ DOC("'rules': [], 'proxies': [], 'ip_lists': [], 'origin_groups': [], 'node': {}, "
		      "'rule_defaults': {}"),
			"{\n  'schema': 1\n}\n" },
#define WRITTEN(member, object) "{\n  'schema': 1,\n  '" member "': [\n    " object "]\n}\n"
		{ RULES("{'protocol': 'TCP', 'edge_ports': ['80-80', 443, '0081'], 'origin': '[2001:DB8::1]', "
			"'origin_port': '80', 'persistence': 'ON', 'pass': 'PPV2'}"),
			WRITTEN("rules",
				"{'protocol': 'tcp', 'edge_ports': [80, 443, 81], 'origin': '2001:db8::1', "
				"'origin_port': 80, 'persistence': true, 'pass': 'ppv2'}") },
		{ RULES("{'protocol': 'udp', 'edge_ports': ['90-99'], 'origin': '2001:db8::1', "
			"'origin_port': '80-89', 'id': 'rule-x.Y_z-1', 'tag': '\\u00fc\\\\\\\" #', "
			"'settings': {'answers': '5', 'idle_timeout': '90S'}}"),
			WRITTEN("rules",
				"{'id': 'rule-x.Y_z-1', 'protocol': 'udp', 'edge_ports': ['90-99'], 'origin': "
				"'2001:db8::1', 'origin_port': '80-89', 'persistence': false, 'pass': 'off', 'tag': "
				"'\xc3\xbc\\\\\\\" #', 'settings': {'idle_timeout': '90s', 'answers': 5}}") },
		{ RULES("{'protocol': 'tcp', 'edge_ports': [1], 'origin': 'Web.Example.', 'origin_port': 1, "
			"'persistence': false, 'settings': {'accept_proxy': '10.0.0.0/8,::1', 'keepalive': 0}}"),
			WRITTEN("rules",
				"{'protocol': 'tcp', 'edge_ports': [1], 'origin': 'web.example', 'origin_port': 1, "
				"'persistence': false, 'pass': 'off', 'settings': {'keepalive': '0s', "
				"'accept_proxy': ['10.0.0.0/8', '::1/128']}}") },
		{ DOC("'node': {'name': 'edge-1', 'udp_fast_path': 'off', 'resolvers': ['127.0.0.1'], 'max_flows': "
		      "'07'}"),
			"{\n  'schema': 1,\n  'node': {'name': 'edge-1', 'max_flows': 7, 'resolvers': "
			"['127.0.0.1:53'], 'udp_fast_path': false}\n}\n" },
		{ DOC("'ip_lists': [{'name': 'A.b', 'entries': ['1.2.3.4', '1.2.3.4/32', '::/0', '0.0.0.0/0', "
		      "'::1']}]"),
			WRITTEN("ip_lists",
				"{'name': 'A.b', 'entries': ['1.2.3.4', '1.2.3.4', '::/0', '0.0.0.0/0', '::1']}") },
		{ GROUP("'origins': []"), WRITTEN("origin_groups", "{'name': 'g', 'origins': []}") },
		{ GROUP("'health_check': {'type': 'udp', 'port': 53, 'send': 'a b', 'expect': 'HEX:00ff'}, "
			"'origins': [{'address': 'a', 'weight': 0, 'enabled': true}, {'address': 'a', 'port': 1}]"),
			WRITTEN("origin_groups",
				"{'name': 'g', 'health_check': {'type': 'udp', 'port': 53, 'send': 'hex:612062', "
				"'expect': 'hex:00ff'}, 'origins': [\n      {'address': 'a', 'weight': 0, "
				"'enabled': true},\n      {'address': 'a', 'port': 1}]}") },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config config = parse(cases[i].text);
		char *written = format(&config), *expected = quoted(cases[i].written, strlen(cases[i].written));
		char *sum = strstr(written, ",\n  \"checksum\"");

		assert_non_null(sum);
		memmove(sum, sum + 50, strlen(sum + 50) + 1);
		assert_string_equal(written, expected);
		assert_round_trip(&config);
		free(written);
		free(expected);
		config_free(&config);
	}
}

static void test_defaults_reach_the_rules_that_can_carry_them(void **state)
{
	struct config c =
		parse(DOC("'rule_defaults': {'answers': 3, 'connect_tries': 9, 'idle_timeout': '2m'}, 'rules': [" RULE(
			", 'settings': {'idle_timeout': '5m'}") ", {'protocol': 'udp', 'edge_ports': [80], 'origin': "
								"'a', "
								"'origin_port': 1}]"));

	(void)state;
	assert_int_equal(c.rules[0].settings.idle_timeout_ms, 300000);
	assert_int_equal(c.rules[0].settings.connect_tries, 9);
	assert_int_equal(c.rules[0].settings.answers, 0);
	assert_int_equal(c.rules[1].settings.idle_timeout_ms, 120000);
	assert_int_equal(c.rules[1].settings.answers, 3);
	assert_int_equal(c.rules[1].given, 0);
	config_free(&c);
}

/* Two of the fields make the same id as in a rules file. */
static void test_an_id_is_made_as_for_a_line_of_text(void **state)
{
	struct config c = parse(RULES(RULE("")));

	(void)state;
	assert_string_equal(c.rules[0].id, "rule-jmqtsape9a");
	config_free(&c);
}

/* --- refusals --- */

#define WHY_RANGE    ": expected a port or a range such as 80 or 80-90\n"
#define WHY_NAME     ": expected 1 to 50 characters of A-Z a-z 0-9 . _ -, a letter or digit first and last\n"
#define WHY_IDLE     ": expected a time with its unit (500ms, 3s, 5m, 1h) from 1s to 24h\n"
#define WHY_PREFIX   ": expected an address or a prefix such as 10.0.0.0/8 or 2001:db8::/32\n"
#define WHY_PREFIXES ": expected 1 to 64 prefixes such as 10.0.0.0/8,2001:db8::/32, no bit set behind a prefix\n"
#define WHY_ID	     ": expected rule- and 1 to 26 characters of A-Z a-z 0-9 . _ -\n"
#define WHY_ORIGIN   ": expected an IPv4 address, an IPv6 address, a name or og:NAME\n"
#define WHY_MEMBER   ": expected an IPv4 address, an IPv6 address or a name\n"
#define NONE_LIST    ": expected an IP list of the configuration document (there is none of that name)\n"
#define NONE_GROUP   ": expected a group of the configuration document (there is none of that name)\n"

static void test_every_wrong_member_is_refused_with_its_path(void **state)
{
	static const struct {
		const char *text, *problems;
	} cases[] = {
		/* the document */
		{ "{}", "x: schema: missing: expected a whole number\n" },
		{ "{'schema': 2, 'x': 1}", "x: schema: 2: expected 1\n" },
		{ "{'schema': 0}", "x: schema: 0: expected 1\n" },
		{ "{'schema': '1'}", "x: schema: text: expected a whole number\n" },
		{ "{'schema': 1.5}", "x: schema: 1.5: expected a whole number\n" },
		{ "{'schema': 1.0}", "x: schema: 1: expected a whole number\n" },
		{ DOC("'Rules': []"),
			"x: Rules: unknown member: expected one of schema, version, checksum, node, rule_defaults, "
			"ip_lists, origin_groups, proxies, rules\n" },
		{ DOC("'a b\\nc': []"),
			"x: a b?c: unknown member: expected one of schema, version, checksum, node, rule_defaults, "
			"ip_lists, origin_groups, proxies, rules\n" },
		{ DOC("'" X50("k") X10("k") "k': []"),
			"x: " X50("k") X10("k") "\xe2\x80\xa6: unknown member: expected one of schema, version, "
						"checksum, node, rule_defaults, ip_lists, origin_groups, proxies, "
						"rules\n" },
		{ DOC("'version': -1"), "x: version: -1: expected 0-9007199254740991\n" },
		{ DOC("'version': 9007199254740992"), "x: version: 9007199254740992: expected 0-9007199254740991\n" },
		{ DOC("'checksum': 5"), "x: checksum: a number: expected text\n" },
		{ DOC("'node': []"), "x: node: a list: expected an object\n" },
		{ DOC("'rules': {}"), "x: rules: an object: expected a list\n" },
		{ DOC("'rules': null"), "x: rules: null: expected a list\n" },
		{ DOC("'rules': 'all'"), "x: rules: text: expected a list\n" },
		{ DOC("'rules': [5, true, [], null]"),
			"x: rules[0]: a number: expected an object\nx: rules[1]: true: expected an object\n"
			"x: rules[2]: a list: expected an object\nx: rules[3]: null: expected an object\n" },
		{ DOC("'ip_lists': [false], 'proxies': ['a'], 'origin_groups': [1.5]"),
			"x: ip_lists[0]: false: expected an object\nx: origin_groups[0]: a number: expected an object\n"
			"x: proxies[0]: text: expected an object\n" },
		/* settings */
		{ DOC("'node': {'max_flows': 0}"), "x: node.max_flows: 0: expected a number from 1 to 1000000\n" },
		{ DOC("'node': {'max_flows': -5}"), "x: node.max_flows: -5: expected a number from 1 to 1000000\n" },
		{ DOC("'node': {'max_flows': 1.5}"), "x: node.max_flows: 1.5: expected a number from 1 to 1000000\n" },
		{ DOC("'node': {'max_flows': 9223372036854775807}"),
			"x: node.max_flows: 9223372036854775807: expected a number from 1 to 1000000\n" },
		{ DOC("'node': {'max_flows': true}"),
			"x: node.max_flows: true: expected a number from 1 to 1000000\n" },
		{ DOC("'node': {'max_flows': null}"),
			"x: node.max_flows: null: expected a number from 1 to 1000000\n" },
		{ DOC("'origin_groups': [{'name': 'g', 'origins': [{'address': '10.0.0.1', 'Weight': 5}]}]"),
			"x: origin_groups[0].origins[0].Weight: unknown member: expected one of address, port, weight, "
			"enabled\n" },
		{ DOC("'node': {'name': 5}"), "x: node.name: 5: expected 1 to 63 characters of a-z A-Z 0-9 . _ -\n" },
		{ DOC("'node': {'name': ''}"),
			"x: node.name: \"\": expected 1 to 63 characters of a-z A-Z 0-9 . _ -\n" },
		{ DOC("'node': {'udp_fast_path': 1}"), "x: node.udp_fast_path: 1: expected off, on\n" },
		{ DOC("'node': {'udp_fast_path': 'yes'}"), "x: node.udp_fast_path: \"yes\": expected off, on\n" },
		{ DOC("'node': {'resolvers': ['127.0.0.1', 'x', 5]}"),
			"x: node.resolvers[2]: a number: expected text\n" },
		{ DOC("'node': {'resolvers': ['127.0.0.1', 'x', '::1', '1.1.1.1,2.2.2.2']}"),
			"x: node.resolvers[1]: \"x\": expected 1 to 8 addresses such as "
			"127.0.0.1,[2001:db8::1]:5353\n"
			"x: node.resolvers[3]: \"1.1.1.1,2.2.2.2\": expected 1 to 8 addresses such as "
			"127.0.0.1,[2001:db8::1]:5353\n" },
		{ DOC("'node': {'resolvers': []}"),
			"x: node.resolvers: 0 entries: expected 1 to 8 addresses such as "
			"127.0.0.1,[2001:db8::1]:5353\n" },
		{ DOC("'node': {'resolvers': ['1.1.1.1','1.1.1.1','1.1.1.1','1.1.1.1','1.1.1.1','1.1.1.1','1.1.1.1',"
		      "'1.1.1.1','1.1.1.1']}"),
			"x: node.resolvers: 9 entries: expected 1 to 8 addresses such as "
			"127.0.0.1,[2001:db8::1]:5353\n" },
		{ DOC("'node': {'resolvers': {}}"),
			"x: node.resolvers: an object: expected 1 to 8 addresses such as "
			"127.0.0.1,[2001:db8::1]:5353\n" },
		{ DOC("'rule_defaults': {'idle_timeout': 5}"), "x: rule_defaults.idle_timeout: 5" WHY_IDLE },
		{ DOC("'rule_defaults': {'idle_timeout': 0}"), "x: rule_defaults.idle_timeout: 0" WHY_IDLE },
		{ DOC("'rule_defaults': {'idle_timeout': '5'}"), "x: rule_defaults.idle_timeout: \"5\"" WHY_IDLE },
		{ DOC("'rule_defaults': {'idle_timeout': ['5s']}"), "x: rule_defaults.idle_timeout: a list" WHY_IDLE },
		{ DOC("'rule_defaults': {'accept_proxy': ['10.0.0.1/8', '1.2.3.4']}"),
			"x: rule_defaults.accept_proxy[0]: \"10.0.0.1/8\"" WHY_PREFIXES },
		/* IP lists */
		{ DOC("'ip_lists': [{}]"),
			"x: ip_lists[0].name: missing: expected text\nx: ip_lists[0].entries: missing: expected a "
			"list\n" },
		{ DOC("'ip_lists': [{'name': 'a', 'entries': ['10.0.0', '10.1.2.3/8', '2001:db8::1/32', 5, '', null, "
		      "'::ffff:1.2.3.4/0', '1.2.3.4/33']}]"),
			"x: ip_lists[0].entries[0]: \"10.0.0\"" WHY_PREFIX
			"x: ip_lists[0].entries[1]: \"10.1.2.3/8\": expected no bit set behind the prefix, as in "
			"10.0.0.0/8\n"
			"x: ip_lists[0].entries[2]: \"2001:db8::1/32\": expected no bit set behind the prefix, as in "
			"2001:db8::/32\n"
			"x: ip_lists[0].entries[3]: 5" WHY_PREFIX "x: ip_lists[0].entries[4]: \"\"" WHY_PREFIX
			"x: ip_lists[0].entries[5]: null" WHY_PREFIX
			"x: ip_lists[0].entries[6]: \"::ffff:1.2.3.4/0\": expected no bit set behind the prefix, as in "
			"0.0.0.0/0\n"
			"x: ip_lists[0].entries[7]: \"1.2.3.4/33\"" WHY_PREFIX },
		{ DOC("'ip_lists': [{'name': 'a', 'entries': []}, {'name': 'A', 'entries': []}]"),
			"x: ip_lists[1].name: \"A\": expected a name that no other has (ip_lists[0] has it)\n" },
		/* names */
		{ DOC("'proxies': [{'name': ''}, {'name': '-a'}, {'name': 'a.'}, {'name': 'a b'}, {'name': "
		      "'\xc3\xbc'}, {'name': '" NAME_50 "n'}, {'name': 5}, {'name': '" NAME_50 "'}]"),
			"x: proxies[0].name: \"\"" WHY_NAME "x: proxies[1].name: \"-a\"" WHY_NAME
			"x: proxies[2].name: \"a.\"" WHY_NAME "x: proxies[3].name: \"a b\"" WHY_NAME
			"x: proxies[4].name: \"\xc3\xbc\"" WHY_NAME "x: proxies[5].name: \"" NAME_50 "n\"" WHY_NAME
			"x: proxies[6].name: a number: expected text\n" },
		{ DOC("'proxies': [{'name': 'b'}, {'name': 'B'}], 'origin_groups': [{'name': 'b', 'origins': []}, "
		      "{'name': 'b', 'origins': []}]"),
			"x: origin_groups[1].name: \"b\": expected a name that no other has (origin_groups[0] has it)\n"
			"x: proxies[1].name: \"B\": expected a name that no other has (proxies[0] has it)\n" },
		/* groups */
		{ DOC("'origin_groups': [{'algorythm': 'x'}]"),
			"x: origin_groups[0].algorythm: unknown member: expected one of name, health_check, origins, "
			"algorithm, all_down, slow_start, passive_fails\n"
			"x: origin_groups[0].name: missing: expected text\n"
			"x: origin_groups[0].origins: missing: expected a list\n" },
		{ GROUP("'algorithm': 'random', 'origins': []"),
			"x: origin_groups[0].algorithm: \"random\": expected round_robin, least_connections, "
			"source_hash\n" },
		{ GROUP("'slow_start': 30, 'origins': []"),
			"x: origin_groups[0].slow_start: 30: expected a time with its unit (500ms, 3s, 5m, 1h) from 1s "
			"to 1h, or 0 (off)\n" },
		{ ORIGINS("{}, 5, {'address': 5}, {'address': ''}, {'address': 'og:x'}, {'address': '1.2.3.4:80'}, "
			  "{'address': '0.0.0.0'}, {'address': '[1.2.3.4]'}"),
			"x: origin_groups[0].origins[0].address: missing: expected text\n"
			"x: origin_groups[0].origins[1]: a number: expected an object\n"
			"x: origin_groups[0].origins[2].address: a number: expected text\n"
			"x: origin_groups[0].origins[3].address: \"\"" WHY_MEMBER
			"x: origin_groups[0].origins[4].address: \"og:x\"" WHY_MEMBER
			"x: origin_groups[0].origins[5].address: \"1.2.3.4:80\": expected an address or a name; port "
			"is "
			"a member of its own\n"
			"x: origin_groups[0].origins[6].address: \"0.0.0.0\": expected the address of one host\n"
			"x: origin_groups[0].origins[7].address: \"[1.2.3.4]\": expected an IPv6 address in "
			"brackets\n" },
		{ ORIGINS("{'address': 'a', 'port': 0}, {'address': 'a', 'port': 65536}, {'address': 'a', 'port': "
			  "'80'}"),
			"x: origin_groups[0].origins[0].port: 0: expected 1-65535\n"
			"x: origin_groups[0].origins[1].port: 65536: expected 1-65535\n"
			"x: origin_groups[0].origins[2].port: text: expected a whole number\n" },
		{ ORIGINS("{'address': 'a', 'weight': 101}, {'address': 'b', 'enabled': 'maybe'}, {'address': 'c', "
			  "'wait': 1}"),
			"x: origin_groups[0].origins[0].weight: 101: expected a number from 1 to 100, or 0 (takes no "
			"new "
			"flow)\n"
			"x: origin_groups[0].origins[1].enabled: \"maybe\": expected off, on\n"
			"x: origin_groups[0].origins[2].wait: unknown member: expected one of address, port, weight, "
			"enabled\n" },
		{ ORIGINS("{'address': 'A.example'}, {'address': 'a.example.'}, {'address': '::1', 'port': 5}, "
			  "{'address': '[0::1]', 'port': 5}, {'address': '::1', 'port': 6}"),
			"x: origin_groups[0].origins[1]: \"a.example.\": expected each origin once in a group "
			"(origins[0] is the same)\n"
			"x: origin_groups[0].origins[3]: \"[0::1]\" port 5: expected each origin once in a group "
			"(origins[2] is the same)\n" },
		/* health checks */
		{ GROUP("'health_check': {'type': 'http', 'send': 'x'}, 'origins': [{'address': 'a'}]"),
			"x: origin_groups[0].health_check.type: \"http\": expected off, tcp, udp\n" },
		{ GROUP("'health_check': {'type': 'tcp', 'port': 65536}, 'origins': []"),
			"x: origin_groups[0].health_check.port: 65536: expected a number from 1 to 65535, or 0 (the "
			"origin's own)\n" },
		{ GROUP("'health_check': {'type': 'tcp'}, 'origins': [{'address': 'a', 'port': 1}, {'address': 'b'}, "
			"5]"),
			"x: origin_groups[0].origins[2]: a number: expected an object\n"
			"x: origin_groups[0].origins[1].port: missing: expected a port, or health_check.port\n" },
		{ GROUP("'health_check': {'type': 'udp', 'port': 0}, 'origins': [{'address': 'b'}]"),
			"x: origin_groups[0].origins[0].port: missing: expected a port, or health_check.port\n" },
		{ GROUP("'health_check': {'type': 'tcp', 'send': 'a', 'expect': 'b'}, 'origins': []"),
			"x: origin_groups[0].health_check.send: with a check of type tcp: expected it with type udp "
			"only\n"
			"x: origin_groups[0].health_check.expect: with a check of type tcp: expected it with type udp "
			"only\n" },
		{ GROUP("'health_check': {'send': 'a'}, 'origins': []"),
			"x: origin_groups[0].health_check.send: with a check of type off: expected it with type udp "
			"only\n" },
		{ GROUP("'health_check': {'type': 'udp', 'send': 'hex:0', 'expect': 5}, 'origins': []"),
			"x: origin_groups[0].health_check.send: \"hex:0\": expected 1 to 256 bytes as text, or as "
			"hex:… "
			"with two digits a byte\n"
			"x: origin_groups[0].health_check.expect: 5: expected 1 to 256 bytes as text, or as hex:… with "
			"two digits a byte\n" },
		/* references */
		{ DOC("'proxies': [{'name': 'p', 'allow': ['office', 5, ''], 'deny': 'x'}]"),
			"x: proxies[0].deny: text: expected a list\nx: proxies[0].allow[0]: \"office\"" NONE_LIST
			"x: proxies[0].allow[1]: a number: expected the name of an IP list\n"
			"x: proxies[0].allow[2]: \"\"" NONE_LIST },
		{ DOC("'ip_lists': [{'name': 'office', 'entries': []}], 'proxies': [{'name': 'p', 'allow': ['ofice', "
		      "'OFFICE', 'office'], 'deny': ['office']}]"),
			"x: proxies[0].allow[0]: \"ofice\": expected an IP list of the configuration document (there "
			"is "
			"none of that name; is it \"office\"?)\n"
			"x: proxies[0].allow[2]: \"office\": expected each list once\n" },
		{ RULES(RULE(", 'proxy': 'login', 'allow': ['x'], 'deny': ['y']")),
			"x: rules[0].proxy: \"login\": expected a proxy of the configuration document (there is none "
			"of "
			"that name)\n"
			"x: rules[0].allow[0]: \"x\"" NONE_LIST "x: rules[0].deny[0]: \"y\"" NONE_LIST },
		{ DOC("'ip_lists': 5, 'proxies': [{'name': 'p', 'allow': ['x']}]"),
			"x: ip_lists: a number: expected a list\n" },
		{ DOC("'origin_groups': [{'name': 'game', 'origins': []}], 'rules': [{'protocol': 'tcp', 'edge_ports': "
		      "[1], 'origin': 'OG:gmae', 'origin_port': 1}, {'protocol': 'tcp', 'edge_ports': [2], 'origin': "
		      "'og:other', 'origin_port': 1}, {'protocol': 'tcp', 'edge_ports': [3], 'origin': 'og:', "
		      "'origin_port': 1}, {'protocol': 'tcp', 'edge_ports': [4], 'origin': 'og:" NAME_50
		      "n', 'origin_port': 1}]"),
			"x: rules[0].origin: \"OG:gmae\": expected a group of the configuration document (there is "
			"none "
			"of that name; is it \"game\"?)\n"
			"x: rules[1].origin: \"og:other\"" NONE_GROUP "x: rules[2].origin: \"og:\"" NONE_GROUP
			"x: rules[3].origin: \"og:" NAME_50 "n\"" NONE_GROUP },
		/* rules */
		{ RULES("{}"),
			"x: rules[0].protocol: missing: expected text\nx: rules[0].edge_ports: missing: expected a "
			"list\n"
			"x: rules[0].origin: missing: expected text\n"
			"x: rules[0].origin_port: missing: expected a port, or a range as text\n" },
		{ RULES(RULE(", 'id': 'x'")), "x: rules[0].id: \"x\"" WHY_ID },
		{ RULES(RULE(", 'id': 'rule-'")), "x: rules[0].id: \"rule-\"" WHY_ID },
		{ RULES(RULE(", 'id': 'rule-\xc3\xbc'")), "x: rules[0].id: \"rule-\xc3\xbc\"" WHY_ID },
		{ RULES(RULE(", 'id': 'rule-" X10("i") X10("i") "1234567'")),
			"x: rules[0].id: \"rule-" X10("i") X10("i") "1234567\"" WHY_ID },
		{ RULES("{'protocol': 'sctp', 'edge_ports': [80], 'origin': 'a', 'origin_port': '90-91', 'pass': "
			"'ppv1', "
			"'settings': {'answers': 1}}"),
			"x: rules[0].protocol: \"sctp\": expected tcp or udp\n" },
		{ RULES("{'protocol': 'tcp', 'edge_ports': [], 'origin': 'a', 'origin_port': 1}"),
			"x: rules[0].edge_ports: an empty list: expected ports or ranges\n" },
		{ RULES("{'protocol': 'tcp', 'edge_ports': [0, 70000, -5, '70000', '1-70000', '9-8', 'http', '', "
			"'80;81', "
			"443.5, true, null, {}, [1]], 'origin': 'a', 'origin_port': 1}"),
			"x: rules[0].edge_ports[0]: 0: expected 1-65535\n"
			"x: rules[0].edge_ports[1]: 70000: expected 1-65535\n"
			"x: rules[0].edge_ports[2]: -5: expected 1-65535\n"
			"x: rules[0].edge_ports[3]: 70000: expected 1-65535\n"
			"x: rules[0].edge_ports[4]: 70000: expected 1-65535\n"
			"x: rules[0].edge_ports[5]: 9-8: expected the lower port first\n"
			"x: rules[0].edge_ports[6]: \"http\"" WHY_RANGE "x: rules[0].edge_ports[7]: \"\"" WHY_RANGE
			"x: rules[0].edge_ports[8]: \"80;81\"" WHY_RANGE
			"x: rules[0].edge_ports[9]: 443.5: expected a port or a range such as 80 or \"80-90\"\n"
			"x: rules[0].edge_ports[10]: true: expected a port or a range such as 80 or \"80-90\"\n"
			"x: rules[0].edge_ports[11]: null: expected a port or a range such as 80 or \"80-90\"\n"
			"x: rules[0].edge_ports[12]: an object: expected a port or a range such as 80 or \"80-90\"\n"
			"x: rules[0].edge_ports[13]: a list: expected a port or a range such as 80 or \"80-90\"\n" },
		{ RULES("{'protocol': 'tcp', 'edge_ports': [1], 'origin': '1.2.3.4:80', 'origin_port': 0}"),
			"x: rules[0].origin: \"1.2.3.4:80\": expected an address, a name or og:NAME; origin_port is a "
			"member of its own\n"
			"x: rules[0].origin_port: 0: expected 1-65535\n" },
		{ RULES("{'protocol': 'tcp', 'edge_ports': [1], 'origin': 'a..b', 'origin_port': 'x'}"),
			"x: rules[0].origin: \"a..b\"" WHY_ORIGIN "x: rules[0].origin_port: \"x\"" WHY_RANGE },
		{ RULES("{'protocol': 'tcp', 'edge_ports': [1], 'origin': '[::1', 'origin_port': true}"),
			"x: rules[0].origin_port: true: expected a port, or a range as text\n"
			"x: rules[0].origin: \"[::1\": expected an IPv6 address in brackets\n" },
		{ RULES("{'protocol': 'tcp', 'edge_ports': [1], 'origin': 'ff02::1', 'origin_port': 1}"),
			"x: rules[0].origin: \"ff02::1\": expected the address of one host\n" },
		{ RULES("{'protocol': 'tcp', 'edge_ports': ['80-82'], 'origin': 'a', 'origin_port': '90-91'}"),
			"x: rules[0].origin_port: range of 2: expected one port, or one edge range of the same length "
			"(found 1 entry of 3)\n" },
		{ RULES("{'protocol': 'tcp', 'edge_ports': [80, 81], 'origin': 'a', 'origin_port': '90-91'}"),
			"x: rules[0].origin_port: range of 2: expected one port, or one edge range of the same length "
			"(found 2 entries, the first of 1)\n" },
		{ RULES(RULE(", 'persistence': 'yes'")), "x: rules[0].persistence: \"yes\": expected on or off\n" },
		{ RULES(RULE(", 'persistence': 1")),
			"x: rules[0].persistence: a number: expected true, false, \"on\" or \"off\"\n" },
		{ RULES(RULE(", 'pass': 'none'")),
			"x: rules[0].pass: \"none\": expected toa, ppv1, ppv2, spp or off\n" },
		{ RULES(RULE(", 'pass': 'spp'")),
			"x: rules[0].pass: \"spp\" carries udp only: expected off, ppv1, ppv2 or toa for tcp\n" },
		{ RULES(RULE(", 'pass': 'toa', 'settings': {'toa_kind_v4': 30, 'toa_in_syn': 'yes'}")),
			"x: rules[0].settings.toa_kind_v4: 30: expected a number from 128 to 254\n"
			"x: rules[0].settings.toa_in_syn: \"yes\": expected off, on\n" },
		{ RULES(RULE(", 'tag': ''")), "x: rules[0].tag: 0 characters: expected 1-50\n" },
		{ RULES(RULE(", 'tag': '" X50("\xe2\x82\xac") "x'")),
			"x: rules[0].tag: 51 characters: expected 1-50\n" },
		{ RULES(RULE(", 'tag': 'a\\nb'")),
			"x: rules[0].tag: a byte 0x0a: expected UTF-8 text without control characters\n" },
		{ RULES(RULE(", 'settings': {'answers': 3, 'idle_timeout': 7}")),
			"x: rules[0].settings.answers: on a tcp rule: expected it on udp rules only\n"
			"x: rules[0].settings.idle_timeout: 7" WHY_IDLE },
		{ RULES(RULE(", 'idle_timeout': '5m'")),
			"x: rules[0].idle_timeout: unknown member: expected one of id, proxy, protocol, edge_ports, "
			"origin, origin_port, persistence, pass, tag, allow, deny, settings\n" },
		/* over rules */
		{ RULES(RULE("") ", " RULE("")),
			"x: rules[1].edge_ports[0]: tcp port 80: expected a port that no other rule has (it belongs to "
			"rules[0])\n" },
		{ RULES("{'protocol': 'tcp', 'edge_ports': ['70-90', 75, 'x', 90], 'origin': 'a', 'origin_port': 1}"),
			"x: rules[0].edge_ports[2]: \"x\"" WHY_RANGE
			"x: rules[0].edge_ports[1]: tcp port 75: expected each port once in a rule\n"
			"x: rules[0].edge_ports[3]: tcp port 90: expected each port once in a rule\n" },
		{ RULES(RULE(", 'id': 'rule-a'") ", {'protocol': 'udp', 'edge_ports': [80], 'origin': 'a', "
						 "'origin_port': 1, 'id': 'rule-a'}"),
			"x: rules[1].id: \"rule-a\": expected an id that no other rule has (it belongs to "
			"rules[0])\n" },
		{ RULES("{'id': 'rule-a', 'protocol': 'tcp', 'edge_ports': [], 'origin': 'a', 'origin_port': 1}, "
			"{'id': "
			"'rule-a', 'protocol': 'tcp', 'edge_ports': [], 'origin': 'a', 'origin_port': 1}"),
			"x: rules[0].edge_ports: an empty list: expected ports or ranges\n"
			"x: rules[1].edge_ports: an empty list: expected ports or ranges\n"
			"x: rules[1].id: \"rule-a\": expected an id that no other rule has (it belongs to "
			"rules[0])\n" },
		{ RULES(RULE(", 'id': 'rule-a'") ", " RULE(", 'id': 'rule-a'")),
			"x: rules[1].edge_ports[0]: tcp port 80: expected a port that no other rule has (it belongs to "
			"rules[0])\n"
			"x: rules[1].id: \"rule-a\": expected an id that no other rule has (it belongs to "
			"rules[0])\n" },
		{ RULES("{'id': 'rule-jmqtsape9a', 'protocol': 'udp', 'edge_ports': [80], 'origin': 'a', "
			"'origin_port': "
			"1}, " RULE("")),
			"x: rules[1].id: \"rule-jmqtsape9a\" (made from the edge ports): expected an id that no other "
			"rule has (it belongs to rules[0])\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_refused(cases[i].text, "open", cases[i].problems);
}

static void test_what_is_no_json_is_refused_with_line_and_column(void **state)
{
#define BYTES(s) s, sizeof(s) - 1
	static const struct {
		const char *text;
		size_t length;
		const char *problems;
	} cases[] = {
		{ BYTES(""), "x:1:1: no JSON: '[' or '{' expected near end of file\n" },
		{ BYTES("{"), "x:1:1: no JSON: string or '}' expected near end of file\n" },
		{ BYTES("[]"), "x: a list: expected an object\n" },
		{ BYTES("5"), "x:1:1: no JSON: '[' or '{' expected near '5'\n" },
		{ BYTES("{\n \"schema\": 1,\n}"), "x:3:1: no JSON: string or '}' expected near '}'\n" },
		{ BYTES("{\"schema\": 1} x"), "x:1:15: no JSON: end of file expected near 'x'\n" },
		{ BYTES("{\"schema\": 01}"), "x:1:12: no JSON: invalid token near '0'\n" },
		{ BYTES("{\"schema\": 1, \"schema\": 1}"),
			"x:1:22: no JSON: duplicate object key near '\"schema\"'\n" },
		{ BYTES("{\"schema\": 99999999999999999999}"),
			"x:1:31: no JSON: too big integer near '99999999999999999999'\n" },
		{ BYTES("{\"schema\": 1e999}"), "x:1:16: no JSON: real number overflow near '1e999'\n" },
		{ BYTES("{\"schema\": 1\0}"), "x:1:13: a NUL byte: expected text\n" },
		{ BYTES("{\"schema\\u0000\": 1}"),
			"x:1:15: no JSON: NUL byte in object key not supported near '\"schema\\u0000\"'\n" },
		{ BYTES("{\"\\ud800\": 1}"), "x:1:9: no JSON: invalid Unicode '\\uD800' near '\"\\ud800\"'\n" },
		{ BYTES("{\"\xff\": 1}"), "x:1:2: no JSON: unable to decode byte 0xff near '\"'\n" },
		{ BYTES("{\"a\nb\": 1}"), "x:1:3: no JSON: unexpected newline near '\"a'\n" },
		{ BYTES("{'schema': 1}"), "x:1:2: no JSON: string or '}' expected near '''\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_bytes_refused(cases[i].text, cases[i].length, "open", cases[i].problems);
}

static void test_a_profile_limits_ports_entries_and_rules(void **state)
{
	static const struct {
		const char *text, *problems;
	} cases[] = {
		{ RULES("{'protocol': 'tcp', 'edge_ports': [65000, 3943, '3944-3950', 1], 'origin': 'a', "
			"'origin_port': 1}"),
			"x: rules[0].edge_ports[0]: 65000: expected 1-64999\n"
			"x: rules[0].edge_ports[1]: tcp port 3943: expected a port that the profile \"edgeone\" does "
			"not "
			"reserve\n"
			"x: rules[0].edge_ports[2]: tcp port 3944: expected a port that the profile \"edgeone\" does "
			"not "
			"reserve\n" },
		{ RULES("{'protocol': 'udp', 'edge_ports': [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21], "
			"'origin': 'a', 'origin_port': 1}"),
			"x: rules[0].edge_ports: 21 entries: expected at most 20\n" },
	};
	struct text t = text_growing(1 << 20);
	char *json;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_refused(cases[i].text, "edgeone", cases[i].problems);
	text_str(&t, "{'schema': 1, 'rules': [");
	for (int i = 1; i <= 31; i++)
		text_printf(&t, "%s{'protocol': 'tcp', 'edge_ports': [%d], 'origin': 'a', 'origin_port': 1}",
			i > 1 ? "," : "", i);
	text_str(&t, "]}");
	json = quoted(t.bytes, t.length);
	assert_bytes_refused(json, t.length, "esa", "x: rules: 31 rules: expected at most 30\n");
	free(json);
	text_free(&t);
}

/* --- limits --- */

/* A document that repeats @item, in which %u is the number from 0, between @head and @tail. */
static char *repeated(const char *head, const char *item, unsigned int count, const char *tail)
{
	struct text t = text_growing(DOCUMENT_MAX + 1);
	char *json;

	text_str(&t, head);
	for (unsigned int i = 0; i < count; i++) {
		const char *number = strchr(item, '#');

		text_str(&t, i ? "," : "");
		text_put(&t, item, number ? (size_t)(number - item) : strlen(item));
		if (number) {
			text_u64(&t, i);
			text_str(&t, number + 1);
		}
	}
	text_str(&t, tail);
	assert_true(t.ok);
	json = quoted(t.bytes, t.length);
	text_free(&t);
	return json;
}

#define UNKNOWN_X                                                                                                      \
	"x: x: unknown member: expected one of schema, version, checksum, node, rule_defaults, ip_lists, "             \
	"origin_groups, proxies, rules\n"

static void test_each_limit_holds_and_one_more_is_refused(void **state)
{
	static const struct {
		const char *head, *item, *tail;
		unsigned int max;
		const char *problems;
		const char *most; /* what is said of one less: "" nothing, NULL not looked at */
	} cases[] = {
		{ "{'schema':1,'ip_lists':[", "{'name':'l#','entries':[]}", "]}", IP_LISTS_MAX,
			"x: ip_lists: 1001 lists: expected at most 1000\n", "" },
		{ "{'schema':1,'origin_groups':[", "{'name':'g#','origins':[]}", "]}", GROUPS_MAX,
			"x: origin_groups: 2001 groups: expected at most 2000\n", "" },
		{ "{'schema':1,'proxies':[", "{'name':'p#'}", "]}", PROXIES_MAX,
			"x: proxies: 2001 proxies: expected at most 2000\n", "" },
		{ "{'schema':1,'rules':[", "{'protocol':'udp','edge_ports':['3#'],'origin':'a','origin_port':1}", "]}",
			RULES_MAX, "x: rules: 2001 rules: expected at most 2000\n", "" },
		{ "{'schema':1,'origin_groups':[{'name':'g','origins':[", "{'address':'h#'}", "]}]}", GROUP_ORIGINS_MAX,
			"x: origin_groups[0].origins: 1001 origins: expected at most 1000\n", "" },
		{ "{'schema':1,'ip_lists':[{'name':'a','entries':[", "'::1'", "]}]}", IP_LIST_ENTRIES_MAX,
			"x: ip_lists[0].entries: 1048577 entries in all lists up to here: expected at most 1048576\n",
			"" },
		{ "{'schema':1,'x':[", "1", "]}", DOCUMENT_VALUES_MAX, "x: 4194305 commas: expected at most 4194304\n",
			NULL },
		{ "{'schema':1,'x':[", "[]", "]}", DOCUMENT_OBJECTS_MAX - 2,
			"x: 262145 lists and objects: expected at most 262144\n", UNKNOWN_X },
		{ "{'schema':1,'x':{", "'k#':1", "}}", DOCUMENT_MEMBERS_MAX - 2,
			"x: 1048577 members: expected at most 1048576\n", UNKNOWN_X },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *json = repeated(cases[i].head, cases[i].item, cases[i].max + 1, cases[i].tail);

		assert_bytes_refused(json, strlen(json), "open", cases[i].problems);
		free(json);
		if (!cases[i].most)
			continue;
		json = repeated(cases[i].head, cases[i].item, cases[i].max, cases[i].tail);
		if (*cases[i].most) {
			assert_bytes_refused(json, strlen(json), "open", cases[i].most);
		} else {
			struct config config = parse_bytes(json, strlen(json), "open");

			config_free(&config);
		}
		free(json);
	}
}

static void test_all_groups_together_have_at_most_100000_origins(void **state)
{
	struct text t = text_growing(1 << 24);
	struct config config;
	char *json;

	(void)state;
	text_str(&t, "{'schema':1,'origin_groups':[");
	for (int group = 0; group < 100; group++) {
		text_printf(&t, "%s{'name':'g%d','origins':[", group ? "," : "", group);
		for (int i = 0; i < GROUP_ORIGINS_MAX; i++)
			text_printf(&t, "%s{'address':'h%d'}", i ? "," : "", i);
		text_str(&t, "]}");
	}
	json = quoted(t.bytes, t.length);
	free(json);
	text_str(&t, "]}");
	json = quoted(t.bytes, t.length);
	config = parse_bytes(json, t.length, "open");
	config_free(&config);
	free(json);
	t.length -= 2;
	text_str(&t, ",{'name':'one','origins':[{'address':'a'}]},{'name':'two','origins':[{'address':'a'}]}]}");
	json = quoted(t.bytes, t.length);
	assert_bytes_refused(json, t.length, "open",
		"x: origin_groups[100].origins: 100001 origins in all groups up to here: expected at most 100000\n");
	free(json);
	text_free(&t);
}

static void test_a_rule_names_at_most_64_lists(void **state)
{
	struct text t = text_growing(1 << 20);

	(void)state;
	for (unsigned int count = 64; count <= 65; count++) {
		char *json;

		t.length = 0;
		text_str(&t, "{'schema':1,'ip_lists':[");
		for (unsigned int i = 0; i < count; i++)
			text_printf(&t, "%s{'name':'l%u','entries':[]}", i ? "," : "", i);
		text_str(&t, "],'proxies':[{'name':'p','deny':[");
		for (unsigned int i = 0; i < count; i++)
			text_printf(&t, "%s'l%u'", i ? "," : "", i);
		text_str(&t, "]}]}");
		json = quoted(t.bytes, t.length);
		if (count == 64) {
			struct config config = parse_bytes(json, t.length, "open");

			assert_int_equal(config.proxies[0].access.deny_count, 64);
			assert_round_trip(&config);
			config_free(&config);
		} else {
			assert_bytes_refused(
				json, t.length, "open", "x: proxies[0].deny: 65 lists: expected at most 64\n");
		}
		free(json);
	}
	text_free(&t);
}

/* 26 characters behind "rule-", 50 of a tag, 253 of a name: the most that fits. */
static void test_the_longest_texts_are_kept(void **state)
{
#define LABEL_50 X50("l") "."
	struct config c = parse(RULES(
		"{'protocol': 'tcp', 'edge_ports': [80], 'origin_port': 80, 'origin': '" LABEL_50 LABEL_50 LABEL_50
			LABEL_50 X10("m") X10("m") X10("m") X10("m") "123456789', 'id': 'rule-" X10("i")
				X10("i") "123456', "
					 "'tag': '" X50("\xe2\x82\xac") "'}"));

	(void)state;
	assert_int_equal(strlen(c.rules[0].id), RULE_ID_SIZE - 1);
	assert_int_equal(strlen(c.rules[0].origin.name), NAME_MAX_LENGTH);
	assert_int_equal(strlen(c.rules[0].tag), 3 * RULE_TAG_MAX);
	assert_round_trip(&c);
	config_free(&c);
	assert_refused(RULES("{'protocol': 'tcp', 'edge_ports': [80], 'origin_port': 80, 'origin': '" LABEL_50 LABEL_50
				       LABEL_50 LABEL_50 X10("m") X10("m") X10("m") X10("m") "1234567890'}"),
		"open", "x: rules[0].origin: \"" LABEL_50 "lllllllll\xe2\x80\xa6\"" WHY_ORIGIN);
}

static void test_nesting_is_bounded(void **state)
{
	(void)state;
	assert_refused("{'schema': 1, 'x':\n " X10("[") "[[[[[" X10("]") "]]]]]}", "open",
		"x: x: unknown member: expected one of schema, version, checksum, node, rule_defaults, ip_lists, "
		"origin_groups, proxies, rules\n");
	assert_refused("{'schema': 1, 'x':\n " X10("[") "[[[[[[" X10("]") "]]]]]]}", "open",
		"x:2:17: lists and objects within each other: expected at most 16 levels\n");
	/* brackets within texts are none */
	assert_refused("{'schema': '\\'" X50("[") "'}", "open", "x: schema: text: expected a whole number\n");
}

static void test_a_document_of_100_mb_is_refused_unread(void **state)
{
	size_t length = 100000000;
	char *json = malloc(length);
	struct problems problems = { 0 };
	char checksum[DOCUMENT_CHECKSUM_SIZE] = "x";
	struct config config;

	(void)state;
	assert_non_null(json);
	memset(json, '[', length);
	assert_bytes_refused(json, length, "open", "x: 100000000 bytes: expected at most 67108864\n");
	assert_bytes_refused(json, DOCUMENT_MAX + 1, "open", "x: 67108865 bytes: expected at most 67108864\n");
	assert_int_equal(document_checksum(json, length, checksum, &problems), DOCUMENT_E_WRONG);
	assert_string_equal(checksum, "x");
	problems_free(&problems);
	memset(json, ' ', DOCUMENT_MAX);
	memcpy(json, "{\"schema\":1}", 12);
	config = parse_bytes(json, DOCUMENT_MAX, "open");
	config_free(&config);
	free(json);
}

static void test_ten_thousand_faults_are_kept_and_the_others_counted(void **state)
{
	char *json = repeated("{'schema':1,'ip_lists':[{'name':'a','entries':[", "'x'", 100000, "]}]}");
	struct text out = text_growing(1 << 24);
	struct problems problems = { 0 };
	struct config config;

	(void)state;
	assert_int_equal(document_parse(json, strlen(json), profile("open"), &config, &problems), DOCUMENT_E_WRONG);
	assert_int_equal(problems.count, PROBLEMS_MAX);
	assert_int_equal(problems.left_out, 100000 - PROBLEMS_MAX);
	problems_format(&problems, "x", &out);
	assert_non_null(strstr(out.bytes, "\nx: and 90000 more errors\n"));
	problems_free(&problems);
	text_free(&out);
	free(json);
}

/* --- checksum --- */

static void test_the_checksum_is_over_what_a_document_says(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} cases[] = {
		{ "{'a': 1, 'b': [true, null, 'x']}", "{'a':1,\n\t'b':[true,null,'x']}\r\n", true },
		{ "{'a': 'x'}", "{'\\u0061': '\\u0078'}", true },
		{ "{'a': 1}", "{'checksum': 'whatever', 'a': 1}", true },
		{ "{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}", false },
		{ "{'a': 1}", "{'a': '1'}", false },
		{ "{'a': 1}", "{'a': 1.0}", false },
		{ "{'a': 1}", "{'a': -1}", false },
		{ "{'a': ['x', 'y']}", "{'a': ['xy']}", false },
		{ "{'a': [], 'b': 1}", "{'a': ['b', 1]}", false },
		{ "{'a': {'checksum': 1}}", "{'a': {}}", false },
		{ "{'a': true}", "{'a': false}", false },
		{ "{'a': null}", "{'a': false}", false },
		{ "{'a': [[]]}", "{'a': [{}]}", false },
		{ "{}", "{'a': {}}", false },
	};
	struct problems problems = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *a = quoted(cases[i].a, strlen(cases[i].a)), *b = quoted(cases[i].b, strlen(cases[i].b));
		char sum_a[DOCUMENT_CHECKSUM_SIZE], sum_b[DOCUMENT_CHECKSUM_SIZE];

		assert_int_equal(document_checksum(a, strlen(a), sum_a, &problems), DOCUMENT_OK);
		assert_int_equal(document_checksum(b, strlen(b), sum_b, &problems), DOCUMENT_OK);
		assert_int_equal(strlen(sum_a), 32);
		assert_int_equal(strcmp(sum_a, sum_b) == 0, cases[i].same);
		free(a);
		free(b);
	}
}

/* Other programs compute it too: it may never change. The bytes are "{s" 6 "schema" "i" 1 "}", lengths in 8 bytes. */
static void test_the_checksum_of_a_document_never_changes(void **state)
{
	static const char text[] = "{\"schema\": 1}";
	char checksum[DOCUMENT_CHECKSUM_SIZE];
	struct problems problems = { 0 };

	(void)state;
	assert_int_equal(document_checksum(text, strlen(text), checksum, &problems), DOCUMENT_OK);
	assert_string_equal(checksum, "0609fd0cb7f23e5add4364d407153d33");
}

static void test_a_wrong_checksum_is_refused_and_nothing_else_said(void **state)
{
	(void)state;
	assert_refused("{'schema': 1, 'checksum': '1234', 'rules': 5}", "open",
		"x: checksum: 1234: expected 8770ae685865d1d3899ee044df3e711c\n");
	assert_refused(
		"{'schema': 1, 'checksum': ''}", "open", "x: checksum: : expected 0609fd0cb7f23e5add4364d407153d33\n");
}

static void test_an_upper_case_checksum_is_another_text(void **state)
{
	(void)state;
	assert_refused("{'schema': 1, 'checksum': '0609FD0CB7F23E5ADD4364D407153D33'}", "open",
		"x: checksum: 0609FD0CB7F23E5ADD4364D407153D33: expected 0609fd0cb7f23e5add4364d407153d33\n");
}

/* --- damage --- */

static char *written_example(void)
{
	const char *example = schema_example();
	struct config config = parse_bytes(example, strlen(example), "open");
	char *written = format(&config);

	config_free(&config);
	return written;
}

/* Memory of its own size, so that a read behind the end is noticed. */
static int parse_copy(const char *json, size_t length)
{
	char *copy = malloc(MAX(length, (size_t)1));
	struct problems problems = { 0 };
	struct config config;
	int r;

	assert_non_null(copy);
	memcpy(copy, json, length);
	r = document_parse(copy, length, profile("open"), &config, &problems);
	if (r == DOCUMENT_OK)
		config_free(&config);
	else
		assert_true(problems.count > 0);
	problems_free(&problems);
	free(copy);
	return r;
}

static void test_a_document_cut_anywhere_is_refused(void **state)
{
	char *json = written_example();
	size_t length = strlen(json);

	(void)state;
	assert_int_equal(json[length - 1], '\n');
	for (size_t cut = 0; cut < length - 1; cut++)
		assert_int_equal(parse_copy(json, cut), DOCUMENT_E_WRONG);
	assert_int_equal(parse_copy(json, length - 1), DOCUMENT_OK);
	assert_int_equal(parse_copy(json, length), DOCUMENT_OK);
	free(json);
}

static void test_every_single_wrong_bit_is_refused(void **state)
{
	char *json = written_example();
	size_t length = strlen(json);

	(void)state;
	for (size_t bit = 0; bit < length * 8; bit++) {
		json[bit / 8] = (char)(json[bit / 8] ^ (char)(1 << bit % 8));
		if (parse_copy(json, length) != DOCUMENT_E_WRONG)
			fail_msg("bit %zu of byte %zu is not noticed", bit % 8, bit / 8);
		json[bit / 8] = (char)(json[bit / 8] ^ (char)(1 << bit % 8));
	}
	assert_int_equal(parse_copy(json, length), DOCUMENT_OK);
	free(json);
}

/* --- random documents --- */

struct model {
	struct test_random random;
	struct text text;
	unsigned int lists, groups, proxies;
	unsigned int next_port[PROTOCOL_N];
};

static bool chance(struct model *m, uint32_t percent)
{
	return test_below(&m->random, 100) < percent;
}

static void put_choice(struct model *m, const char *member, const char *const *values, size_t count)
{
	text_printf(&m->text, ", '%s': %s", member, values[test_below(&m->random, (uint32_t)count)]);
}

#define MAYBE(m, percent, member, ...)                                                                                 \
	do {                                                                                                           \
		static const char *const values[] = { __VA_ARGS__ };                                                   \
		if (chance(m, percent))                                                                                \
			put_choice(m, member, values, ARRAY_SIZE(values));                                             \
	} while (0)

static void put_access(struct model *m)
{
	static const char *const members[] = { "allow", "deny" };

	for (size_t i = 0; i < 2; i++) {
		if (m->lists == 0 || chance(m, 60))
			continue;
		text_printf(&m->text, ", '%s': ['l%u'", members[i], test_below(&m->random, m->lists));
		text_str(&m->text, "]");
	}
}

static void put_group(struct model *m, unsigned int index)
{
	static const char *const addresses[] = { "10.0.0.%u", "2001:db8::%x", "[fd00::%x]", "Host-%u.example." };
	bool checked = chance(m, 50);
	uint32_t origins = test_below(&m->random, 6);

	text_printf(&m->text, "%s{'name': '%c%u'", index ? "," : "", chance(m, 50) ? 'g' : 'G', index);
	MAYBE(m, 50, "algorithm", "'round_robin'", "'least_connections'", "'SOURCE_HASH'");
	MAYBE(m, 30, "all_down", "'use_all'", "'refuse'");
	MAYBE(m, 30, "slow_start", "0", "'30s'", "'1500ms'");
	MAYBE(m, 30, "passive_fails", "0", "1", "'1000'");
	if (checked) {
		bool udp = chance(m, 50);

		text_printf(&m->text, ", 'health_check': {'type': '%s', 'port': %u", udp ? "udp" : "tcp",
			test_below(&m->random, 65535) + 1);
		MAYBE(m, 30, "interval", "'100ms'", "'1h'");
		MAYBE(m, 30, "timeout", "'10ms'", "'1m'");
		MAYBE(m, 30, "rise", "1", "100");
		MAYBE(m, 30, "fall", "'1'", "100");
		if (udp) {
			MAYBE(m, 50, "send", "'ping'", "'hex:00ff10'", "'two words'", "'\\u0001\\\"\\\\'",
				"'\xc3\xbc'");
			MAYBE(m, 50, "expect", "'pong'", "'HEX:68657823'", "' '");
		}
		text_str(&m->text, "}");
	}
	text_str(&m->text, ", 'origins': [");
	for (unsigned int i = 0; i < origins; i++) {
		text_printf(&m->text, "%s{'address': '", i ? ", " : "");
		text_printf(&m->text, addresses[test_below(&m->random, 4)], i + 1);
		text_str(&m->text, "'");
		MAYBE(m, 60, "port", "1", "65535", "80");
		MAYBE(m, 60, "weight", "0", "1", "'100'");
		MAYBE(m, 30, "enabled", "true", "false", "'on'", "'off'");
		text_str(&m->text, "}");
	}
	text_str(&m->text, "]}");
}

static void put_rule(struct model *m, unsigned int index)
{
	enum protocol protocol = chance(m, 50) ? PROTOCOL_TCP : PROTOCOL_UDP;
	unsigned int first = m->next_port[protocol] + test_below(&m->random, 5);
	unsigned int length = chance(m, 50) ? 1 : test_below(&m->random, 100) + 1;

	m->next_port[protocol] = first + length + 1;
	text_printf(&m->text, "%s{'protocol': '%s', 'edge_ports': ['%u-%u'", index ? "," : "",
		protocol == PROTOCOL_TCP ? "tcp" : "UDP", first, first + length - 1);
	if (chance(m, 30)) {
		text_printf(&m->text, ", %u], 'origin_port': 9", first + length);
	} else if (chance(m, 30)) {
		text_printf(&m->text, "], 'origin_port': '1000-%u'", 1000 + length - 1);
	} else {
		text_str(&m->text, "], 'origin_port': '0080'");
	}
	if (m->groups && chance(m, 50))
		text_printf(&m->text, ", 'origin': '%s:G%u'", chance(m, 50) ? "og" : "OG",
			test_below(&m->random, m->groups));
	else
		MAYBE(m, 100, "origin", "'1.2.3.4'", "'[2001:DB8::1]'", "'::1'", "'A.example'");
	if (chance(m, 20))
		text_printf(&m->text, ", 'id': 'rule-given.%u'", index);
	if (m->proxies && chance(m, 50))
		text_printf(&m->text, ", 'proxy': 'P%u'", test_below(&m->random, m->proxies));
	MAYBE(m, 50, "persistence", "true", "false", "'on'", "'OFF'");
	MAYBE(m, 50, "tag", "'web'", "' # '", "'\\\"\\\\'", "'\xe2\x82\xac \\u00fc'", "'a=b'");
	MAYBE(m, 30, "pass", "'off'", "'ppv2'");
	put_access(m);
	text_str(&m->text, ", 'settings': {'max_flows': 5");
	MAYBE(m, 50, "idle_timeout", "'5m'", "'1500ms'");
	MAYBE(m, 30, "client_max_flows", "0", "'7'", "10000000");
	if (protocol == PROTOCOL_TCP) {
		MAYBE(m, 30, "keepalive", "0", "'1h'");
		MAYBE(m, 30, "accept_proxy", "['10.0.0.0/8', '::1']", "'::/0'", "'1.2.3.4,::2'");
	} else {
		MAYBE(m, 30, "ppv2_mode", "'first'", "'until_reply'", "'EVERY'");
		MAYBE(m, 30, "spp_answers", "'lenient'", "'edgeone'");
	}
	text_str(&m->text, "}}");
}

static void make_document(struct model *m, uint64_t seed)
{
	uint32_t rules;

	*m = (struct model){ .random = { seed }, .text = text_growing(1 << 20), .next_port = { 1, 1 } };
	text_str(&m->text, "{'schema': 1");
	MAYBE(m, 50, "version", "0", "1", "9007199254740991");
	MAYBE(m, 50, "node", "{}", "{'name': 'edge-1', 'udp_fast_path': false}",
		"{'resolvers': '127.0.0.1,[::1]:5353', 'max_flows': '9', 'resolve_min': '2s'}");
	MAYBE(m, 50, "rule_defaults", "{}", "{'idle_timeout': '2m', 'answers': 3}",
		"{'accept_proxy': ['10.0.0.0/8'], 'max_flows': 0}");
	m->lists = test_below(&m->random, 5);
	m->groups = test_below(&m->random, 5);
	m->proxies = test_below(&m->random, 5);
	text_str(&m->text, ", 'ip_lists': [");
	for (unsigned int i = 0; i < m->lists; i++) {
		text_printf(&m->text, "%s{'name': 'L%u', 'entries': [", i ? "," : "", i);
		for (uint32_t n = test_below(&m->random, 5), k = 0; k < n; k++)
			text_printf(&m->text, "%s'10.%u.0.0/16', '2001:db8::%x'", k ? "," : "", k, k);
		text_str(&m->text, "]}");
	}
	text_str(&m->text, "], 'origin_groups': [");
	for (unsigned int i = 0; i < m->groups; i++)
		put_group(m, i);
	text_str(&m->text, "], 'proxies': [");
	for (unsigned int i = 0; i < m->proxies; i++) {
		text_printf(&m->text, "%s{'name': 'p%u'", i ? "," : "", i);
		put_access(m);
		text_str(&m->text, "}");
	}
	text_str(&m->text, "], 'rules': [");
	rules = test_below(&m->random, 20);
	for (unsigned int i = 0; i < rules; i++)
		put_rule(m, i);
	text_str(&m->text, "]}");
}

static void test_what_is_written_is_read_as_it_was(void **state)
{
	enum { SEEDS = 1000 };
	static struct model m;

	(void)state;
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct config config;

		make_document(&m, seed);
		assert_true(m.text.ok);
		config = parse(m.text.bytes);
		assert_round_trip(&config);
		config_free(&config);
		text_free(&m.text);
	}
}

/* --- with rules of a text --- */

static struct config parse_text(const char *text, const struct config *base)
{
	struct problems problems = { 0 };
	struct config rules;

	if (rules_parse(text, strlen(text), profile("open"), base, &rules, &problems) != RULES_OK)
		fail_msg("%s: %s", text, problems.items[0].message);
	return rules;
}

static void test_rules_of_a_text_join_a_document(void **state)
{
	struct config c = parse(
		DOC("'version': 3, 'node': {'max_flows': 9}, 'rule_defaults': {'idle_timeout': '2m'}, "
		    "'origin_groups': [{'name': 'Game', 'origins': [{'address': 'a'}]}], 'rules': [" RULE("") "]"));
	struct config rules = parse_text("set node name=edge\nset rule max_flows=7\nudp:80 OG:GAME 90 off spp x\n"
					 "tcp:81 b 1 off off idle_timeout=3m\n",
		&c);
	struct text text = text_growing(1 << 16);

	(void)state;
	assert_int_equal(config_join(&c, &rules), 0);
	assert_null(rules.rules);
	assert_int_equal(rules.rule_count, 0);
	assert_int_equal(c.rule_count, 3);
	assert_int_equal(c.version, 3);
	assert_int_equal(c.node.max_flows, 9);
	assert_string_equal(c.node.name, "edge");
	assert_ptr_equal(c.rules[1].group, &c.groups[0]);
	assert_int_equal(c.rules[1].line, 3);
	assert_int_equal(c.rules[0].settings.max_flows, 7); /* defaults of either reach all */
	assert_int_equal(c.rules[1].settings.max_flows, 7);
	assert_int_equal(c.rules[1].settings.idle_timeout_ms, 120000);
	assert_int_equal(c.rules[2].settings.idle_timeout_ms, 180000);
	assert_round_trip(&c);
	rules_format(&c, &text);
	assert_string_equal(text.bytes,
		"set node name=edge max_flows=9\nset rule idle_timeout=2m max_flows=7\ntcp:80 10.0.0.1 80 off off\n"
		"udp:80 og:Game 90 off spp x\ntcp:81 b 1 off off idle_timeout=3m\n");
	text_free(&text);
	config_free(&c);
}

static void test_what_text_and_document_both_have_is_refused(void **state)
{
	struct config c =
		parse(DOC("'node': {'max_flows': 9}, 'rule_defaults': {'idle_timeout': '2m'}, 'rules': [" RULE(
			"") ", {'id': "
			    "'rule-aawm8zry0p', 'protocol': 'udp', 'edge_ports': [90, '100-200'], 'origin': 'a', "
			    "'origin_port': 1}]"));
	static const char text[] = "set node max_flows=9\n"
				   "set rule idle_timeout=1m max_flows=4\n"
				   "tcp:79;80 a 1 off off idle_timeout=1m\n"
				   "udp:150 a 1 off off\n"
				   "udp:79 og:game 1 off off\n"
				   "tcp:81 a 1 off off\n";
	struct problems problems = { 0 };
	struct text got = text_growing(1 << 16);
	struct config rules;

	(void)state;
	assert_int_equal(rules_parse(text, strlen(text), profile("open"), &c, &rules, &problems), RULES_E_WRONG);
	problems_format(&problems, "x", &got);
	assert_string_equal(got.bytes,
		"x:1:10: option max_flows, expected it here or in the configuration document, not in both\n"
		"x:2:10: option idle_timeout, expected it here or in the configuration document, not in both\n"
		"x:3:8: tcp port 80 already belongs to rules[0] of the configuration document\n"
		"x:4:5: udp port 150 already belongs to rules[1] of the configuration document\n"
		"x:5:8: origin \"og:game\", expected a group of the configuration document (there is none of that "
		"name)\n"
		"x:6:5: id rule-aawm8zry0p, made from the edge ports, already belongs to rules[1] of the configuration "
		"document\n");
	problems_free(&problems);
	text_free(&got);
	config_free(&c);
}

static void test_a_text_has_the_rules_that_the_document_leaves(void **state)
{
	struct config c = parse(RULES(RULE("")));
	struct problems problems = { 0 };
	struct text t = text_growing(1 << 20);
	struct config rules;

	(void)state;
	for (unsigned int i = 1; i <= 29; i++)
		text_printf(&t, "udp:%u a 1 off off\n", i);
	assert_int_equal(rules_parse(t.bytes, t.length, profile("esa"), &c, &rules, &problems), RULES_OK);
	config_free(&rules);
	text_str(&t, "udp:30 a 1 off off\n");
	assert_int_equal(rules_parse(t.bytes, t.length, profile("esa"), &c, &rules, &problems), RULES_E_WRONG);
	assert_int_equal(problems.count, 1);
	assert_int_equal(problems.items[0].line, 30);
	assert_string_equal(problems.items[0].message,
		"rule 31, expected at most 30 rules, those of the configuration document included");
	problems_free(&problems);
	text_free(&t);
	config_free(&c);
}

static void test_joining_nothing_changes_nothing(void **state)
{
	struct config c = parse("{'schema': 1}"), rules = parse_text("# nothing\n", &c);

	(void)state;
	assert_int_equal(config_join(&c, &rules), 0);
	assert_int_equal(c.rule_count, 0);
	assert_round_trip(&c);
	config_free(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_example_of_the_reference_is_what_it_says),
		cmocka_unit_test(test_values_are_written_in_their_plain_form),
		cmocka_unit_test(test_defaults_reach_the_rules_that_can_carry_them),
		cmocka_unit_test(test_an_id_is_made_as_for_a_line_of_text),
		cmocka_unit_test(test_every_wrong_member_is_refused_with_its_path),
		cmocka_unit_test(test_what_is_no_json_is_refused_with_line_and_column),
		cmocka_unit_test(test_a_profile_limits_ports_entries_and_rules),
		cmocka_unit_test(test_each_limit_holds_and_one_more_is_refused),
		cmocka_unit_test(test_all_groups_together_have_at_most_100000_origins),
		cmocka_unit_test(test_a_rule_names_at_most_64_lists),
		cmocka_unit_test(test_the_longest_texts_are_kept),
		cmocka_unit_test(test_nesting_is_bounded),
		cmocka_unit_test(test_a_document_of_100_mb_is_refused_unread),
		cmocka_unit_test(test_ten_thousand_faults_are_kept_and_the_others_counted),
		cmocka_unit_test(test_the_checksum_is_over_what_a_document_says),
		cmocka_unit_test(test_the_checksum_of_a_document_never_changes),
		cmocka_unit_test(test_a_wrong_checksum_is_refused_and_nothing_else_said),
		cmocka_unit_test(test_an_upper_case_checksum_is_another_text),
		cmocka_unit_test(test_a_document_cut_anywhere_is_refused),
		cmocka_unit_test(test_every_single_wrong_bit_is_refused),
		cmocka_unit_test(test_what_is_written_is_read_as_it_was),
		cmocka_unit_test(test_rules_of_a_text_join_a_document),
		cmocka_unit_test(test_what_text_and_document_both_have_is_refused),
		cmocka_unit_test(test_a_text_has_the_rules_that_the_document_leaves),
		cmocka_unit_test(test_joining_nothing_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
