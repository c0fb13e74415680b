/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of two configurations. JSON stands here with ' for ". */
#include "base/test.h"
#include "config/diff.h"
#include "config/document.h"

#include <stdlib.h>
#include <string.h>

static struct config parse(const char *text)
{
	struct problems problems = { 0 };
	struct config config;
	char *json = strdup(text);

	assert_non_null(json);
	for (char *c = json; *c; c++)
		*c = *c == '\'' ? '"' : *c;
	if (document_parse(json, strlen(json), limits_profile_find("open"), &config, &problems) != DOCUMENT_OK)
		fail_msg("%s\n%s: %s", json, problems.items[0].path, problems.items[0].message);
	free(json);
	return config;
}

static void assert_diff(const struct config *old, const struct config *new, const char *expected)
{
	struct text out = text_growing(1 << 20);

	text_str(&out, "");
	assert_int_equal(config_diff(old, new, &out), 0);
	assert_string_equal(out.bytes, expected);
	text_free(&out);
}

#define DOC(members)	 "{'schema': 1, " members "}"
#define GROUP(members)	 DOC("'origin_groups': [{'name': 'game', " members "}]")
#define ORIGINS(origins) GROUP("'origins': [" origins "]")
#define RULE(more)	 "{'protocol': 'tcp', 'edge_ports': [80], 'origin': '10.0.0.1', 'origin_port': 80" more "}"
#define RULES(rules)	 DOC("'rules': [" rules "]")
#define LISTS(more)                                                                                                    \
	DOC("'ip_lists': [{'name': 'a', 'entries': []}, {'name': 'b', 'entries': []}], 'proxies': [{'name': 'p'" more  \
	    "}]")

static void test_each_difference_is_told(void **state)
{
	static const struct {
		const char *old, *new, *expected;
	} cases[] = {
		{ "{'schema': 1}", "{'schema': 1, 'version': 7}", "" },
		{ DOC("'node': {'max_flows': 5}"), DOC("'node': {'max_flows': 7, 'name': 'edge'}"),
			"~ node: name none → edge, max_flows 5 → 7\n" },
		{ DOC("'node': {'resolvers': ['::1']}"), "{'schema': 1}", "~ node: resolvers [::1]:53 → none\n" },
		{ DOC("'rule_defaults': {'idle_timeout': '1m'}"),
			DOC("'rule_defaults': {'idle_timeout': '5m', 'answers': 3}"),
			"~ rule defaults: idle_timeout 1m → 5m, answers 0 → 3\n" },
		/* a default reaches many rules and is told once */
		{ RULES(RULE("")), DOC("'rule_defaults': {'connect_tries': 5}, 'rules': [" RULE("") "]"),
			"~ rule defaults: connect_tries 3 → 5\n" },
		/* IP lists */
		{ "{'schema': 1}", DOC("'ip_lists': [{'name': 'office', 'entries': ['::1']}]"),
			"+ ip list office: 1 entry\n" },
		{ DOC("'ip_lists': [{'name': 'office', 'entries': []}]"), "{'schema': 1}",
			"- ip list office: 0 entries\n" },
		{ DOC("'ip_lists': [{'name': 'office', 'entries': ['10.0.0.0/8', '::1', '1.2.3.4']}]"),
			DOC("'ip_lists': [{'name': 'OFFICE', 'entries': ['10.0.0.0/8', '10.0.0.0/9', '::1', '::2']}]"),
			"~ ip list OFFICE: 3 → 4 entries (2 added, 1 removed)\n" },
		{ DOC("'ip_lists': [{'name': 'a', 'entries': ['::1', '::2']}]"),
			DOC("'ip_lists': [{'name': 'a', 'entries': ['::2', '::1']}]"), "" },
		{ DOC("'ip_lists': [{'name': 'a', 'entries': ['::1']}]"),
			DOC("'ip_lists': [{'name': 'a', 'entries': ['::1', '::1']}]"),
			"~ ip list a: 1 → 2 entries (1 added, 0 removed)\n" },
		/* groups */
		{ "{'schema': 1}", ORIGINS("{'address': 'a'}, {'address': 'b'}"), "+ group game: 2 origins\n" },
		{ ORIGINS("{'address': 'a'}"), "{'schema': 1}", "- group game: 1 origin\n" },
		{ ORIGINS(""), GROUP("'algorithm': 'source_hash', 'slow_start': '30s', 'origins': []"),
			"~ group game: algorithm round_robin → source_hash, slow_start 0s → 30s\n" },
		{ ORIGINS(""), GROUP("'health_check': {'type': 'udp', 'send': 'ping'}, 'origins': []"),
			"~ health check of group game: type off → udp, send none → ping\n" },
		{ ORIGINS("{'address': '10.0.0.1', 'port': 80}, {'address': '::1'}, {'address': 'c', 'port': 1}"),
			ORIGINS("{'address': 'c', 'port': 2}, {'address': '10.0.0.1', 'port': 80, 'weight': 5, "
				"'enabled': "
				"false}, {'address': '::1', 'port': 9}"),
			"- origin ::1 of group game\n- origin c:1 of group game\n+ origin c:2 of group game\n"
			"~ origin 10.0.0.1:80 of group game: weight 100 → 5, enabled on → off\n"
			"+ origin [::1]:9 of group game\n" },
		/* proxies */
		{ "{'schema': 1}", DOC("'proxies': [{'name': 'login'}]"), "+ proxy login\n" },
		{ DOC("'proxies': [{'name': 'login'}]"), "{'schema': 1}", "- proxy login\n" },
		{ LISTS(", 'allow': ['a']"), LISTS(", 'allow': ['a', 'b'], 'deny': ['b']"),
			"~ proxy p: allow a → a;b, deny none → b\n" },
		/* rules */
		{ RULES(RULE("")),
			RULES("{'protocol': 'udp', 'edge_ports': [53, '80-90'], 'origin': '::1', 'origin_port': 1}"),
			"- rule rule-jmqtsape9a tcp:80 → 10.0.0.1:80\n+ rule rule-8b0t3ptc0g udp:53;80-90 → "
			"[::1]:1\n" },
		{ RULES("{'id': 'rule-a', 'protocol': 'tcp', 'edge_ports': ['80-81'], 'origin': 'a', 'origin_port': "
			"'90-91'}"),
			DOC("'origin_groups': [{'name': 'g', 'origins': []}], 'proxies': [{'name': 'p'}], 'ip_lists': "
			    "[{'name': 'l', 'entries': []}], 'rules': [{'id': 'rule-a', 'protocol': 'tcp', "
			    "'edge_ports': "
			    "[80], 'origin': 'og:g', 'origin_port': 90, 'persistence': true, 'pass': 'ppv1', 'tag': "
			    "'new', "
			    "'proxy': 'p', 'allow': ['l'], 'settings': {'idle_timeout': '5m'}}]"),
			"+ ip list l: 0 entries\n+ group g: 0 origins\n+ proxy p\n"
			"~ rule rule-a: edge ports tcp:80-81 → tcp:80, origin a:90-91 → og:g:90, persistence off → on, "
			"pass "
			"off → ppv1, tag none → new, proxy none → p, allow none → l, idle_timeout 1h → 5m\n" },
		{ RULES(RULE(", 'settings': {'idle_timeout': '1m'}")),
			RULES(RULE(", 'settings': {'idle_timeout': '5m'}")),
			"~ rule rule-jmqtsape9a: idle_timeout 1m → 5m\n" },
		/* given now, but as it was */
		{ RULES(RULE("")), RULES(RULE(", 'settings': {'idle_timeout': '1h'}")), "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config old = parse(cases[i].old), new = parse(cases[i].new);

		assert_diff(&old, &new, cases[i].expected);
		assert_diff(&old, &old, "");
		assert_diff(&new, &new, "");
		config_free(&old);
		config_free(&new);
	}
}

static struct config many_rules(unsigned int count)
{
	struct text t = text_growing(1 << 20);
	struct config config;

	text_str(&t, "{'schema': 1, 'rules': [");
	for (unsigned int i = 1; i <= count; i++)
		text_printf(&t, "%s{'protocol': 'tcp', 'edge_ports': [%u], 'origin': 'a', 'origin_port': 1}",
			i > 1 ? "," : "", i);
	text_str(&t, "]}");
	config = parse(t.bytes);
	text_free(&t);
	return config;
}

static void test_a_hundred_lines_are_told_and_the_others_counted(void **state)
{
	struct config none = many_rules(0), hundred = many_rules(100), all = many_rules(2000);
	struct text out = text_growing(1 << 20);
	size_t lines = 0;

	(void)state;
	assert_int_equal(config_diff(&none, &hundred, &out), 0);
	assert_null(strstr(out.bytes, "more"));
	out.length = 0;
	assert_int_equal(config_diff(&all, &none, &out), 0);
	for (size_t i = 0; i < out.length; i++)
		lines += out.bytes[i] == '\n';
	assert_int_equal(lines, DIFF_LINES_MAX + 1);
	assert_string_equal(strrchr(out.bytes, '\n') - strlen("… and 1900 more"), "… and 1900 more\n");
	text_free(&out);
	config_free(&none);
	config_free(&hundred);
	config_free(&all);
}

static void test_long_values_are_cut(void **state)
{
	struct text t = text_growing(1 << 20), out = text_growing(1 << 20);
	struct config none = many_rules(0), config;

	(void)state;
	text_str(&t, "{'schema': 1, 'rules': [{'protocol': 'udp', 'edge_ports': [1");
	for (unsigned int i = 2; i <= 60000; i++)
		text_printf(&t, ",%u", i);
	text_str(&t, "], 'origin': 'a', 'origin_port': 1}]}");
	config = parse(t.bytes);
	assert_int_equal(config_diff(&none, &config, &out), 0);
	assert_true(out.length < 200);
	assert_non_null(strstr(out.bytes, "… → a:1\n"));
	text_free(&t);
	text_free(&out);
	config_free(&none);
	config_free(&config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_difference_is_told),
		cmocka_unit_test(test_a_hundred_lines_are_told_and_the_others_counted),
		cmocka_unit_test(test_long_values_are_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
