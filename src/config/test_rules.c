/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing rules: what is accepted and what it means, every refusal with its place,
 * import(export(x)) = x. */
#include "base/test.h"
#include "config/check.h"
#include "config/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(s) .text = s, .length = sizeof(s) - 1

#define OK	 " 1.2.3.4 80 off off"
#define TWENTY	 "1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;20"
#define X10(s)	 s s s s s s s s s s
#define X50(s)	 X10(s) X10(s) X10(s) X10(s) X10(s)
#define X60(s)	 X50(s) X10(s)
#define LABEL_63 X60("a") "aaa"

static const struct limits_profile *profile(const char *name)
{
	const struct limits_profile *p = limits_profile_find(name);

	assert_non_null(p);
	return p;
}

/* Every problem as "LINE:COLUMN: message", one a line, with @file in front. */
static void assert_refused_with(const char *text, size_t length, const char *profile_name, const char *expected)
{
	struct config set = { .rule_count = 4711 };
	struct problems problems = { 0 };
	struct text got = text_growing(1 << 20);
	int r = rules_parse(text, length, profile(profile_name), NULL, &set, &problems);

	text_str(&got, "");
	problems_format(&problems, "x", &got);
	if (r != RULES_E_WRONG)
		fail_msg("%.*s: %d, expected a refusal", (int)length, text, r);
	assert_string_equal(got.bytes, expected);
	assert_int_equal(set.rule_count, 4711);
	problems_free(&problems);
	text_free(&got);
}

static struct config parse_in(const char *text, size_t length, const char *profile_name)
{
	struct problems problems = { 0 };
	struct config set;

	if (rules_parse(text, length, profile(profile_name), NULL, &set, &problems) != RULES_OK) {
		struct text why = text_growing(1 << 20);

		problems_format(&problems, "x", &why);
		fail_msg("%.*s\n%s", (int)length, text, why.bytes);
	}
	assert_int_equal(problems.count, 0);
	return set;
}

static struct config parse(const char *text)
{
	return parse_in(text, strlen(text), "open");
}

static char *format(const struct config *set)
{
	struct text t = text_growing(RULES_TEXT_MAX);

	text_str(&t, "");
	rules_format(set, &t);
	assert_true(t.ok);
	return t.bytes;
}

/* --- what is accepted --- */

/* A line, and how export writes it. */
static void test_a_good_line_is_written_in_its_plain_form(void **state)
{
	static const struct {
		const char *text;
		size_t length;
		const char *written;
	} cases[] = {
		{ TEXT("tcp:22 10.0.0.5 22 off off"), "tcp:22 10.0.0.5 22 off off\n" },
		{ TEXT("TCP:22 10.0.0.5 22 OFF Off"), "tcp:22 10.0.0.5 22 off off\n" },
		{ TEXT("udp:53\tdns.Example.NET.\t53  on \t ppv2"), "udp:53 dns.example.net 53 on ppv2\n" },
		{ TEXT("  tcp:80;443,8000-8010 web 8080 off ppv1  "), "tcp:80;443;8000-8010 web 8080 off ppv1\n" },
		{ TEXT("udp:3000-4000 [2001:DB8::7] 5000-6000 off spp"),
			"udp:3000-4000 [2001:db8::7] 5000-6000 off spp\n" },
		{ TEXT("tcp:1 1.2.3.4 65535 off ppv2"), "tcp:1 1.2.3.4 65535 off ppv2\n" },
		{ TEXT("tcp:1 1.2.3.4 2 off TOA toa_kind_v6=0253 toa_in_syn=OFF toa_required=on"),
			"tcp:1 1.2.3.4 2 off toa toa_in_syn=off toa_kind_v6=253 toa_required=on\n" },
		{ TEXT("tcp:65535 223.0.0.1 1 off off"), "tcp:65535 223.0.0.1 1 off off\n" },
		{ TEXT("tcp:1-65535" OK), "tcp:1-65535" OK "\n" },
		{ TEXT("tcp:1-65535 1.2.3.4 1-65535 off off"), "tcp:1-65535 1.2.3.4 1-65535 off off\n" },
		{ TEXT("tcp:80-80 1.2.3.4 81-81 off off"), "tcp:80 1.2.3.4 81 off off\n" },
		{ TEXT("tcp:80;81 1.2.3.4 90-90 off off"), "tcp:80;81 1.2.3.4 90 off off\n" },
		{ TEXT("tcp:0080 1.2.3.4 000000080 off off"), "tcp:80" OK "\n" },
		{ TEXT("tcp:443;80" OK), "tcp:443;80" OK "\n" }, /* the order stays */
		/* origins */
		{ TEXT("tcp:80 _sip._tcp.example 80 off off"), "tcp:80 _sip._tcp.example 80 off off\n" },
		{ TEXT("tcp:80 1.2.3.a 80 off off"), "tcp:80 1.2.3.a 80 off off\n" },
		{ TEXT("tcp:80 xn--bro-hoa 80 off off"), "tcp:80 xn--bro-hoa 80 off off\n" },
		{ TEXT("tcp:80 " LABEL_63 " 80 off off"), "tcp:80 " LABEL_63 " 80 off off\n" },
		{ TEXT("tcp:80 " LABEL_63 "." LABEL_63 "." LABEL_63 "." X60("b") "b. 80 off off"),
			"tcp:80 " LABEL_63 "." LABEL_63 "." LABEL_63 "." X60("b") "b 80 off off\n" },
		{ TEXT("tcp:80 [::1] 80 off off"), "tcp:80 [::1] 80 off off\n" },
		{ TEXT("tcp:80 223.255.255.255 80 off off"), "tcp:80 223.255.255.255 80 off off\n" },
		/* options */
		{ TEXT("tcp:80" OK " Idle_Timeout=90S max_flows=7"), "tcp:80" OK " idle_timeout=90s max_flows=7\n" },
		{ TEXT("tcp:80" OK " max_flows=7 idle_timeout=90000ms x"),
			"tcp:80" OK " idle_timeout=90s max_flows=7 x\n" },
		{ TEXT("udp:80" OK " answers=0 ppv2_mode=EVERY"), "udp:80" OK " answers=0 ppv2_mode=every\n" },
		{ TEXT("tcp:80" OK " accept_proxy=10.0.0.0/8,::1"), "tcp:80" OK " accept_proxy=10.0.0.0/8,::1/128\n" },
		/* tags */
		{ TEXT("tcp:80" OK " web"), "tcp:80" OK " web\n" },
		{ TEXT("tcp:80" OK "  the \t Web   server "), "tcp:80" OK " the Web server\n" },
		{ TEXT("tcp:80" OK " \"plain\""), "tcp:80" OK " plain\n" },
		{ TEXT("tcp:80" OK " \"two  blanks\""), "tcp:80" OK " \"two  blanks\"\n" },
		{ TEXT("tcp:80" OK " \" around \""), "tcp:80" OK " \" around \"\n" },
		{ TEXT("tcp:80" OK " \" \""), "tcp:80" OK " \" \"\n" },
		{ TEXT("tcp:80" OK " \"#1\""), "tcp:80" OK " \"#1\"\n" },
		{ TEXT("tcp:80" OK " \"say \\\"hi\\\" \\\\o/\""), "tcp:80" OK " say \"hi\" \\o/\n" },
		{ TEXT("tcp:80" OK " \"\\\"hi\\\" \\\\o/\""), "tcp:80" OK " \"\\\"hi\\\" \\\\o/\"\n" },
		{ TEXT("tcp:80" OK " \"idle_timeout=5s\""), "tcp:80" OK " \"idle_timeout=5s\"\n" },
		{ TEXT("tcp:80" OK " web idle_timeout=5s"), "tcp:80" OK " web idle_timeout=5s\n" },
		{ TEXT("tcp:80" OK " =5s"), "tcp:80" OK " =5s\n" },
		{ TEXT("tcp:80" OK " a#b #c"), "tcp:80" OK " a#b #c\n" },
		{ TEXT("tcp:80" OK " a\"b"), "tcp:80" OK " a\"b\n" },
		{ TEXT("tcp:80" OK " back\\slash"), "tcp:80" OK " back\\slash\n" },
		{ TEXT("tcp:80" OK " gr\xc3\xbc\xc3\x9f \xe2\x82\xac"),
			"tcp:80" OK " gr\xc3\xbc\xc3\x9f \xe2\x82\xac\n" },
		{ TEXT("tcp:80" OK " " X50("x")), "tcp:80" OK " " X50("x") "\n" },
		{ TEXT("tcp:80" OK " " X50("\xe2\x82\xac")), "tcp:80" OK " " X50("\xe2\x82\xac") "\n" },
		{ TEXT("tcp:80" OK " \"" X50("\\\\") "\""), "tcp:80" OK " " X50("\\") "\n" },
		/* comments and blank lines */
		{ TEXT("tcp:80" OK " #web"), "tcp:80" OK "\n" },
		{ TEXT("tcp:80" OK " # web"), "tcp:80" OK "\n" },
		{ TEXT("tcp:80" OK " max_flows=7 # web"), "tcp:80" OK " max_flows=7\n" },
		{ TEXT("tcp:80" OK " \"web\" # server"), "tcp:80" OK " web\n" },
		{ TEXT("tcp:80" OK " \"web\"# server"), "tcp:80" OK " web\n" },
		{ TEXT(""), "" },
		{ TEXT("\n \n\t\n# nothing\n   # at all\n#\0\n"), "" },
		/* line ends and the byte order mark */
		{ TEXT("tcp:80" OK "\r\nudp:80" OK "\r\n"), "tcp:80" OK "\nudp:80" OK "\n" },
		{ TEXT("tcp:80" OK " web\r\n\r\n"), "tcp:80" OK " web\n" },
		{ TEXT("tcp:80" OK "\r"), "tcp:80" OK "\n" },
		{ TEXT("\xef\xbb\xbftcp:80" OK), "tcp:80" OK "\n" },
		{ TEXT("\xef\xbb\xbf"), "" },
		/* settings of the file: node, then defaults, then rules */
		{ TEXT("tcp:80" OK "\nSet Rule max_flows=5 # five\nset node name=Edge-1"),
			"set node name=Edge-1\nset rule max_flows=5\ntcp:80" OK "\n" },
		{ TEXT("set rule max_flows=5\nset rule idle_timeout=5m"), "set rule idle_timeout=5m max_flows=5\n" },
		{ TEXT("set node resolvers=127.0.0.1,[::1]:5353 max_flows=9"),
			"set node max_flows=9 resolvers=127.0.0.1:53,[::1]:5353\n" },
		{ TEXT("set rule connect_timeout=1s answers=2\nudp:80" OK),
			"set rule connect_timeout=1s answers=2\nudp:80" OK "\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config set = parse_in(cases[i].text, cases[i].length, "open");
		char *written = format(&set);

		assert_string_equal(written, cases[i].written);
		free(written);
		config_free(&set);
	}
}

static void test_a_rule_has_what_its_line_says(void **state)
{
	struct config set = parse("# one\nudp:3000-4000 [2001:db8::7] 5000-6000 on spp idle_timeout=5m the game\n"
				  "  tcp:80;443 Web.Example.net 8080 off ppv1\n");
	const struct rule *a = &set.rules[0], *b = &set.rules[1];
	char ip[ADDR_TEXT_SIZE];

	(void)state;
	assert_int_equal(set.rule_count, 2);
	assert_int_equal(a->protocol, PROTOCOL_UDP);
	assert_int_equal(a->pass, PASS_SPP);
	assert_true(a->persistence);
	assert_int_equal(a->edge_ports.count, 1);
	assert_null(a->origin.name);
	ip_format(&a->origin.ip, ip);
	assert_string_equal(ip, "2001:db8::7");
	assert_int_equal(a->origin_ports.first, 5000);
	assert_int_equal(a->origin_ports.last, 6000);
	assert_string_equal(a->tag, "the game");
	assert_int_equal(a->settings.idle_timeout_ms, 300000);
	assert_int_equal(a->given, 1u << RULE_SETTING_idle_timeout);
	assert_int_equal(a->line, 2);
	assert_int_equal(a->edge_columns[0], 5);

	assert_int_equal(b->protocol, PROTOCOL_TCP);
	assert_int_equal(b->pass, PASS_PPV1);
	assert_false(b->persistence);
	assert_int_equal(b->edge_ports.count, 2);
	assert_int_equal(b->edge_ports.items[1].first, 443);
	assert_string_equal(b->origin.name, "web.example.net");
	assert_null(b->tag);
	assert_int_equal(b->given, 0);
	assert_int_equal(b->line, 3);
	assert_int_equal(b->edge_columns[0], 7);
	assert_int_equal(b->edge_columns[1], 10);
	config_free(&set);
}

static void test_a_rule_takes_its_own_option_then_the_files_then_the_default(void **state)
{
	struct config set = parse("tcp:1" OK " idle_timeout=1m\ntcp:2" OK "\nudp:3" OK "\n"
				  "set rule idle_timeout=2m connect_tries=9 answers=4\n");

	(void)state;
	assert_int_equal(set.rules[0].settings.idle_timeout_ms, 60000);
	assert_int_equal(set.rules[1].settings.idle_timeout_ms, 120000);
	assert_int_equal(set.rules[1].settings.connect_timeout_ms, 5000);
	assert_int_equal(set.rules[1].settings.connect_tries, 9);
	assert_int_equal(set.rules[1].settings.answers, 0); /* udp's */
	assert_int_equal(set.rules[2].settings.connect_tries, 0);
	assert_int_equal(set.rules[2].settings.answers, 4);
	assert_int_equal(set.rules[1].given, 0);
	config_free(&set);
}

static void test_edge_ports_of_a_range_are_mapped_by_offset(void **state)
{
	struct config set = parse("udp:3000-4000 a 5000-6000 off off\ntcp:80;443;8000-8010 a 9000 off off\n"
				  "tcp:1000-1009 a 65526-65535 off off\n");

	(void)state;
	assert_int_equal(rule_origin_port(&set.rules[0], 3000), 5000);
	assert_int_equal(rule_origin_port(&set.rules[0], 3050), 5050);
	assert_int_equal(rule_origin_port(&set.rules[0], 4000), 6000);
	assert_int_equal(rule_origin_port(&set.rules[1], 80), 9000);
	assert_int_equal(rule_origin_port(&set.rules[1], 8010), 9000);
	assert_int_equal(rule_origin_port(&set.rules[2], 1009), 65535);
	config_free(&set);
}

static void test_flows_go_on_under_a_rule_that_forwards_alike(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} cases[] = {
		{ "tcp:80-90 a 80 off off", "tcp:85 A. 80 on off max_flows=7 tag", true },
		{ "tcp:80-90 a 80-90 off off", "tcp:80-90 a 85 off off", true }, /* asked for edge port 85 */
		{ "tcp:80-90 a 80-90 off off", "tcp:80-90 a 81-91 off off", false },
		{ "tcp:85 a 80 off off", "tcp:85 b 80 off off", false },
		{ "tcp:85 a 80 off off", "tcp:85 1.2.3.4 80 off off", false },
		{ "tcp:85 1.2.3.4 80 off off", "tcp:85 1.2.3.4 80 off off", true },
		{ "tcp:85 1.2.3.4 80 off off", "tcp:85 1.2.3.5 80 off off", false },
		{ "tcp:85 a 80 off off", "tcp:85 a 80 off ppv1", false },
		{ "tcp:85 a 80 off off", "udp:85 a 80 off off", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config a = parse(cases[i].a), b = parse(cases[i].b);

		assert_int_equal(rule_same_forwarding(&a.rules[0], &b.rules[0], 85), cases[i].same);
		assert_int_equal(rule_same_forwarding(&b.rules[0], &a.rules[0], 85), cases[i].same);
		config_free(&a);
		config_free(&b);
	}
}

/* --- ids --- */

/* These stand in people's dashboards: they may never change. */
static void test_ids_are_made_from_protocol_and_edge_ports_alone(void **state)
{
	static const struct {
		const char *line, *id;
	} cases[] = {
		{ "tcp:80" OK, "rule-jmqtsape9a" },
		{ "TCP:80 other.example 99 on ppv2 max_flows=5 tag", "rule-jmqtsape9a" },
		{ "\n\n  tcp:80-80" OK, "rule-jmqtsape9a" },
		{ "udp:80" OK, "rule-94yb06tb12" },
		{ "tcp:81" OK, "rule-aawm8zry0p" },
		{ "tcp:80;443" OK, "rule-ge0ech7z7z" },
		{ "tcp:80,443" OK, "rule-ge0ech7z7z" },
		{ "tcp:80-443" OK, "rule-2byya6v8hf" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config set = parse(cases[i].line);

		assert_string_equal(set.rules[0].id, cases[i].id);
		config_free(&set);
	}
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(((const struct rule *)a)->id, ((const struct rule *)b)->id);
}

static void test_two_thousand_rules_have_different_ids(void **state)
{
	struct text t = text_growing(1 << 20);
	struct config set;

	(void)state;
	for (unsigned int i = 0; i < RULES_MAX; i++)
		text_printf(&t, "%s:%u" OK "\n", i % 2 ? "udp" : "tcp", i / 2 + 1);
	set = parse(t.bytes);
	text_free(&t);
	qsort(set.rules, set.rule_count, sizeof(*set.rules), compare_ids);
	for (size_t i = 0; i + 1 < set.rule_count; i++)
		assert_string_not_equal(set.rules[i].id, set.rules[i + 1].id);
	config_free(&set);
}

/* --- refusals --- */

#define WHY_RANGE    ", expected a port or a range such as 80 or 80-90\n"
#define WHY_ORIGIN   ", expected an IPv4 address, an IPv6 address in brackets, a name or og:NAME\n"
#define WHY_BRACKETS ", expected an IPv6 address in brackets\n"
#define WHY_OWN	     ", expected an address or a name; the origin port is a field of its own\n"
#define WHY_HOST     ", expected the address of one host\n"
#define WHY_GROUP    ", expected a group of the configuration document (there is none of that name)\n"
#define WHY_LENGTH   ", expected one port, or one edge range of the same length "
#define WHY_PASS     ", expected toa, ppv1, ppv2, spp or off\n"
#define WHY_IDLE     ", expected a time with its unit (500ms, 3s, 5m, 1h) from 1s to 24h\n"
#define WHY_FLOWS    ", expected a number from 1 to 10000000, or 0 (no limit but the node's)\n"
#define WHY_OPTION   ", expected one of docs/reference/settings.md (write a tag that looks like an option in quotes)\n"
#define WHY_TAG	     ", expected UTF-8 text without control characters\n"
#define WHY_SET	     ", expected \"set rule\" or \"set node\"\n"
#define NO_ORIGIN    "no origin, expected an address, a name or og:NAME\n"
#define NO_PORT	     "no origin port, expected a port or a range\n"
#define NO_ON_OFF    "no session persistence, expected on or off\n"
#define NO_PASS	     "no pass mode" WHY_PASS

static void test_every_malformed_line_is_refused_with_its_place(void **state)
{
	static const struct {
		const char *text;
		size_t length;
		const char *problems;
	} cases[] = {
		/* protocol */
		{ TEXT("80" OK), "x:1:1: protocol \"80\", expected tcp:PORTS or udp:PORTS\n" },
		{ TEXT("sctp:80" OK), "x:1:1: protocol \"sctp\", expected tcp:PORTS or udp:PORTS\n" },
		{ TEXT(":80" OK), "x:1:1: protocol \"\", expected tcp:PORTS or udp:PORTS\n" },
		{ TEXT("tcp" OK), "x:1:4: no edge ports, expected ':' and ports after \"tcp\"\n" },
		/* edge ports */
		{ TEXT("tcp:" OK), "x:1:5: edge port \"\"" WHY_RANGE },
		{ TEXT("tcp:a" OK), "x:1:5: edge port \"a\"" WHY_RANGE },
		{ TEXT("tcp:8.5" OK), "x:1:5: edge port \"8.5\"" WHY_RANGE },
		{ TEXT("tcp:+80" OK), "x:1:5: edge port \"+80\"" WHY_RANGE },
		{ TEXT("tcp:80-" OK), "x:1:5: edge port \"80-\"" WHY_RANGE },
		{ TEXT("tcp:-80" OK), "x:1:5: edge port \"-80\"" WHY_RANGE },
		{ TEXT("tcp:80-a" OK), "x:1:5: edge port \"80-a\"" WHY_RANGE },
		{ TEXT("tcp:80-90-99" OK), "x:1:5: edge port \"80-90-99\"" WHY_RANGE },
		{ TEXT("tcp:80:" OK), "x:1:5: edge port \"80:\"" WHY_RANGE },
		{ TEXT("tcp:80;;90" OK), "x:1:8: edge port \"\"" WHY_RANGE },
		{ TEXT("tcp:80,,90" OK), "x:1:8: edge port \"\"" WHY_RANGE },
		{ TEXT("tcp:80;" OK), "x:1:8: edge port \"\"" WHY_RANGE },
		{ TEXT("tcp:;80" OK), "x:1:5: edge port \"\"" WHY_RANGE },
		{ TEXT("tcp:1000000000" OK), "x:1:5: edge port \"1000000000\"" WHY_RANGE },
		{ TEXT("tcp:0" OK), "x:1:5: edge port 0, expected 1-65535\n" },
		{ TEXT("tcp:65536" OK), "x:1:5: edge port 65536, expected 1-65535\n" },
		{ TEXT("tcp:999999999" OK), "x:1:5: edge port 999999999, expected 1-65535\n" },
		{ TEXT("tcp:0-80" OK), "x:1:5: edge port 0, expected 1-65535\n" },
		{ TEXT("tcp:80-70000" OK), "x:1:8: edge port 70000, expected 1-65535\n" },
		{ TEXT("tcp:90-80" OK), "x:1:5: edge port range 90-80, expected the lower port first\n" },
		{ TEXT("tcp:0;70000;a;80" OK),
			"x:1:5: edge port 0, expected 1-65535\n"
			"x:1:7: edge port 70000, expected 1-65535\n"
			"x:1:13: edge port \"a\"" WHY_RANGE },
		/* origin */
		{ TEXT("tcp:80 og:game 80 off off"), "x:1:8: origin \"og:game\"" WHY_GROUP },
		{ TEXT("tcp:80 OG: 80 off off"), "x:1:8: origin \"OG:\"" WHY_GROUP },
		{ TEXT("tcp:80 [::1 80 off off"), "x:1:8: origin \"[::1\"" WHY_BRACKETS },
		{ TEXT("tcp:80 [] 80 off off"), "x:1:8: origin \"[]\"" WHY_BRACKETS },
		{ TEXT("tcp:80 [ 80 off off"), "x:1:8: origin \"[\"" WHY_BRACKETS },
		{ TEXT("tcp:80 [1.2.3.4] 80 off off"), "x:1:8: origin \"[1.2.3.4]\"" WHY_BRACKETS },
		{ TEXT("tcp:80 [::ffff:1.2.3.4] 80 off off"), "x:1:8: origin \"[::ffff:1.2.3.4]\"" WHY_BRACKETS },
		{ TEXT("tcp:80 [fe80::1%eth0] 80 off off"), "x:1:8: origin \"[fe80::1%eth0]\"" WHY_BRACKETS },
		{ TEXT("tcp:80 [::1]:80 80 off off"), "x:1:8: origin \"[::1]:80\"" WHY_BRACKETS },
		{ TEXT("tcp:80 [a.example] 80 off off"), "x:1:8: origin \"[a.example]\"" WHY_BRACKETS },
		{ TEXT("tcp:80 ::1 80 off off"), "x:1:8: origin \"::1\", expected brackets around an IPv6 address\n" },
		{ TEXT("tcp:80 1.2.3.4:80 80 off off"), "x:1:8: origin \"1.2.3.4:80\"" WHY_OWN },
		{ TEXT("tcp:80 host:80 80 off off"), "x:1:8: origin \"host:80\"" WHY_OWN },
		{ TEXT("tcp:80 :80 80 off off"), "x:1:8: origin \":80\"" WHY_OWN },
		{ TEXT("tcp:80 256.1.1.1 80 off off"), "x:1:8: origin \"256.1.1.1\"" WHY_ORIGIN },
		{ TEXT("tcp:80 1.2.3 80 off off"), "x:1:8: origin \"1.2.3\"" WHY_ORIGIN },
		{ TEXT("tcp:80 1.2.3.4. 80 off off"), "x:1:8: origin \"1.2.3.4.\"" WHY_ORIGIN },
		{ TEXT("tcp:80 -a.example 80 off off"), "x:1:8: origin \"-a.example\"" WHY_ORIGIN },
		{ TEXT("tcp:80 a-.example 80 off off"), "x:1:8: origin \"a-.example\"" WHY_ORIGIN },
		{ TEXT("tcp:80 a..b 80 off off"), "x:1:8: origin \"a..b\"" WHY_ORIGIN },
		{ TEXT("tcp:80 .a 80 off off"), "x:1:8: origin \".a\"" WHY_ORIGIN },
		{ TEXT("tcp:80 . 80 off off"), "x:1:8: origin \".\"" WHY_ORIGIN },
		{ TEXT("tcp:80 a.. 80 off off"), "x:1:8: origin \"a..\"" WHY_ORIGIN },
		{ TEXT("tcp:80 a/b 80 off off"), "x:1:8: origin \"a/b\"" WHY_ORIGIN },
		{ TEXT("tcp:80 b\xc3\xbcro 80 off off"), "x:1:8: origin \"b\xc3\xbcro\"" WHY_ORIGIN },
		{ TEXT("tcp:80 " LABEL_63 "a 80 off off"), "x:1:8: origin \"" X60("a") "\xe2\x80\xa6\"" WHY_ORIGIN },
		{ TEXT("tcp:80 " LABEL_63 "." LABEL_63 "." LABEL_63 "." X60("b") "bb 80 off off"),
			"x:1:8: origin \"" X60("a") "\xe2\x80\xa6\"" WHY_ORIGIN },
		{ TEXT("tcp:80 0.0.0.0 80 off off"), "x:1:8: origin \"0.0.0.0\"" WHY_HOST },
		{ TEXT("tcp:80 0.1.2.3 80 off off"), "x:1:8: origin \"0.1.2.3\"" WHY_HOST },
		{ TEXT("tcp:80 224.0.0.1 80 off off"), "x:1:8: origin \"224.0.0.1\"" WHY_HOST },
		{ TEXT("tcp:80 255.255.255.255 80 off off"), "x:1:8: origin \"255.255.255.255\"" WHY_HOST },
		{ TEXT("tcp:80 [::] 80 off off"), "x:1:8: origin \"[::]\"" WHY_HOST },
		{ TEXT("tcp:80 [ff02::1] 80 off off"), "x:1:8: origin \"[ff02::1]\"" WHY_HOST },
		/* origin port */
		{ TEXT("tcp:80 1.2.3.4 0 off off"), "x:1:16: origin port 0, expected 1-65535\n" },
		{ TEXT("tcp:80 1.2.3.4 65536 off off"), "x:1:16: origin port 65536, expected 1-65535\n" },
		{ TEXT("tcp:80 1.2.3.4 http off off"), "x:1:16: origin port \"http\"" WHY_RANGE },
		{ TEXT("tcp:80 1.2.3.4 80;81 off off"), "x:1:16: origin port \"80;81\"" WHY_RANGE },
		{ TEXT("tcp:80 1.2.3.4 90-80 off off"),
			"x:1:16: origin port range 90-80, expected the lower port first\n" },
		{ TEXT("tcp:80 1.2.3.4 80-81 off off"),
			"x:1:16: origin port range of 2" WHY_LENGTH "(found 1 entry of 1)\n" },
		{ TEXT("tcp:80-82 1.2.3.4 80-81 off off"),
			"x:1:19: origin port range of 2" WHY_LENGTH "(found 1 entry of 3)\n" },
		{ TEXT("tcp:80;81 1.2.3.4 80-81 off off"),
			"x:1:19: origin port range of 2" WHY_LENGTH "(found 2 entries, the first of 1)\n" },
		{ TEXT("tcp:80-81;90 1.2.3.4 80-81 off off"),
			"x:1:22: origin port range of 2" WHY_LENGTH "(found 2 entries, the first of 2)\n" },
		{ TEXT("tcp:80-89 1.2.3.4 65530-65539 off off"), "x:1:25: origin port 65539, expected 1-65535\n" },
		/* persistence and pass mode */
		{ TEXT("tcp:80 1.2.3.4 80 yes off"), "x:1:19: session persistence \"yes\", expected on or off\n" },
		{ TEXT("tcp:80 1.2.3.4 80 off none"), "x:1:23: pass mode \"none\"" WHY_PASS },
		{ TEXT("tcp:80 1.2.3.4 80 off of"), "x:1:23: pass mode \"of\"" WHY_PASS },
		{ TEXT("tcp:80 1.2.3.4 80 off offf"), "x:1:23: pass mode \"offf\"" WHY_PASS },
		{ TEXT("udp:80 1.2.3.4 80 off toa"),
			"x:1:23: pass mode \"toa\" carries tcp only, expected off, ppv2 or spp for udp\n" },
		{ TEXT("udp:80 1.2.3.4 80 off ppv1"),
			"x:1:23: pass mode \"ppv1\" carries tcp only, expected off, ppv2 or spp for udp\n" },
		{ TEXT("tcp:80 1.2.3.4 80 off spp"),
			"x:1:23: pass mode \"spp\" carries udp only, expected off, ppv1, ppv2 or toa for "
			"tcp\n" },
		/* fields that are missing */
		{ TEXT("tcp"),
			"x:1:4: no edge ports, expected ':' and ports after \"tcp\"\nx:1:4: " NO_ORIGIN
			"x:1:4: " NO_PORT "x:1:4: " NO_ON_OFF "x:1:4: " NO_PASS },
		{ TEXT("tcp:80"), "x:1:7: " NO_ORIGIN "x:1:7: " NO_PORT "x:1:7: " NO_ON_OFF "x:1:7: " NO_PASS },
		{ TEXT("tcp:80 a"), "x:1:9: " NO_PORT "x:1:9: " NO_ON_OFF "x:1:9: " NO_PASS },
		{ TEXT("tcp:80 a 80"), "x:1:12: " NO_ON_OFF "x:1:12: " NO_PASS },
		{ TEXT("tcp:80 a 80 off"), "x:1:16: " NO_PASS },
		{ TEXT("tcp:80 a 80 off  \r\n"), "x:1:18: " NO_PASS },
		{ TEXT("tcp:80 a 80 off # pass"), "x:1:17: pass mode \"#\"" WHY_PASS },
		/* options */
		{ TEXT("tcp:80" OK " idle_timeout=5"), "x:1:40: idle_timeout \"5\"" WHY_IDLE },
		{ TEXT("tcp:80" OK " idle_timeout="), "x:1:40: idle_timeout \"\"" WHY_IDLE },
		{ TEXT("tcp:80" OK " idle_timeout=5s=5s"), "x:1:40: idle_timeout \"5s=5s\"" WHY_IDLE },
		{ TEXT("tcp:80" OK " idle_timeout= 5s"), "x:1:40: idle_timeout \"\"" WHY_IDLE },
		{ TEXT("tcp:80" OK " idle=5s"), "x:1:27: option \"idle\"" WHY_OPTION },
		{ TEXT("tcp:80" OK " x=1 tag"), "x:1:27: option \"x\"" WHY_OPTION },
		{ TEXT("tcp:80" OK " resolvers=127.0.0.1"), "x:1:27: option \"resolvers\"" WHY_OPTION },
		{ TEXT("tcp:80" OK " idle_timeout=5s IDLE_TIMEOUT=6s"),
			"x:1:43: option idle_timeout, expected it once\n" },
		{ TEXT("tcp:80" OK " idle_timeout=x idle_timeout=6s"),
			"x:1:40: idle_timeout \"x\"" WHY_IDLE "x:1:42: option idle_timeout, expected it once\n" },
		{ TEXT("tcp:80" OK " answers=3"),
			"x:1:27: option answers on a tcp rule, expected it on udp rules only\n" },
		{ TEXT("udp:80" OK " connect_tries=3 max_flows=x web"),
			"x:1:27: option connect_tries on a udp rule, expected it on tcp rules only\n"
			"x:1:53: max_flows \"x\"" WHY_FLOWS },
		/* tags */
		{ TEXT("tcp:80" OK " \""), "x:1:27: tag without a closing quote, expected '\"' at its end\n" },
		{ TEXT("tcp:80" OK " \"x"), "x:1:27: tag without a closing quote, expected '\"' at its end\n" },
		{ TEXT("tcp:80" OK " \"x\\\""), "x:1:27: tag without a closing quote, expected '\"' at its end\n" },
		{ TEXT("tcp:80" OK " \"x\\n\""), "x:1:29: '\\' in a quoted tag, expected \\\" or \\\\\n" },
		{ TEXT("tcp:80" OK " \"x\\"), "x:1:29: '\\' in a quoted tag, expected \\\" or \\\\\n" },
		{ TEXT("tcp:80" OK " \"x\" y"), "x:1:31: text after a quoted tag, expected the end of the line\n" },
		{ TEXT("tcp:80" OK " \"x\"y"), "x:1:30: text after a quoted tag, expected the end of the line\n" },
		{ TEXT("tcp:80" OK " \"\""), "x:1:27: tag of 0 characters, expected 1-50\n" },
		{ TEXT("tcp:80" OK " " X50("x") "y"), "x:1:27: tag of 51 characters, expected 1-50\n" },
		{ TEXT("tcp:80" OK " " X50("\xe2\x82\xac") "y"), "x:1:27: tag of 51 characters, expected 1-50\n" },
		{ TEXT("tcp:80" OK " \"" X50("x") " \""), "x:1:27: tag of 51 characters, expected 1-50\n" },
		{ TEXT("tcp:80" OK " a\x01"), "x:1:27: tag with a byte 0x01" WHY_TAG },
		{ TEXT("tcp:80" OK " a\x7f"), "x:1:27: tag with a byte 0x7f" WHY_TAG },
		{ TEXT("tcp:80" OK " \"a\tb\""), "x:1:27: tag with a byte 0x09" WHY_TAG },
		{ TEXT("tcp:80" OK " a\xc2\x9b"), "x:1:27: tag with a byte 0xc2" WHY_TAG },
		{ TEXT("tcp:80" OK " a\xff"), "x:1:27: tag with a byte 0xff" WHY_TAG },
		{ TEXT("tcp:80" OK " a\xc3"), "x:1:27: tag with a byte 0xc3" WHY_TAG },
		{ TEXT("tcp:80" OK " \"\xed\xa0\x80\""), "x:1:27: tag with a byte 0xed" WHY_TAG },
		/* set */
		{ TEXT("set"), "x:1:4: set \"\"" WHY_SET },
		{ TEXT("set foo x=1"), "x:1:5: set \"foo\"" WHY_SET },
		{ TEXT("set rule=5"), "x:1:5: set \"rule=5\"" WHY_SET },
		{ TEXT("set rule"), "x:1:9: set without an option, expected OPTION=VALUE\n" },
		{ TEXT("set node # none"), "x:1:16: set without an option, expected OPTION=VALUE\n" },
		{ TEXT("set rule idle_timeout"), "x:1:10: \"idle_timeout\", expected OPTION=VALUE\n" },
		{ TEXT("set rule idle_timeout=5s web"), "x:1:26: \"web\", expected OPTION=VALUE\n" },
		{ TEXT("set rule idle_timeout=5"), "x:1:23: idle_timeout \"5\"" WHY_IDLE },
		{ TEXT("set rule max_flows=5 max_flows=6"), "x:1:22: option max_flows, expected it once\n" },
		{ TEXT("set rule idle_timeout=1m\nset rule idle_timeout=2m"),
			"x:2:10: option idle_timeout, expected it once\n" },
		{ TEXT("set rule resolvers=127.0.0.1"), "x:1:10: option \"resolvers\"" WHY_OPTION },
		{ TEXT("set node idle_timeout=5s"), "x:1:10: option \"idle_timeout\"" WHY_OPTION },
		{ TEXT("set node max_flows=0"), "x:1:20: max_flows \"0\", expected a number from 1 to 1000000\n" },
		/* bytes that are no text */
		{ TEXT("tcp:8\0" OK), "x:1:1: a NUL byte in the line, expected text\n" },
		{ TEXT("# fine\n  \0"), "x:2:3: a NUL byte in the line, expected text\n" },
		{ TEXT("tcp:80 a 80 off off\r\r\n"), "x:1:17: pass mode \"off?\"" WHY_PASS },
		{ TEXT("tcp:80 \xff\xfe 80 off off"), "x:1:8: origin \"?\?\"" WHY_ORIGIN },
		{ TEXT("tcp:80 a\033[2J 80 off off"), "x:1:8: origin \"a?[2J\"" WHY_ORIGIN },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_refused_with(cases[i].text, cases[i].length, "open", cases[i].problems);
}

static void test_every_wrong_line_is_reported_in_the_order_of_the_file(void **state)
{
	static const char text[] = "tcp:80" OK "\n"
				   "tcp:0" OK "\n"
				   "tcp:81" OK "\n"
				   "tcp:80 1.2.3.4 0 maybe off max_flows=x \"x\n"
				   "sett rule x=1\n";

	(void)state;
	assert_refused_with(text, strlen(text), "open",
		"x:2:5: edge port 0, expected 1-65535\n"
		"x:4:5: tcp port 80 already belongs to the rule on line 1\n"
		"x:4:16: origin port 0, expected 1-65535\n"
		"x:4:18: session persistence \"maybe\", expected on or off\n"
		"x:4:38: max_flows \"x\"" WHY_FLOWS "x:4:40: tag without a closing quote, expected '\"' at its end\n"
		"x:5:1: protocol \"sett\", expected tcp:PORTS or udp:PORTS\n"
		"x:5:11: origin port \"x=1\"" WHY_RANGE "x:5:14: " NO_ON_OFF "x:5:14: " NO_PASS);
}

static void test_columns_count_characters(void **state)
{
	static const struct {
		const char *text;
		size_t length;
		const char *problems;
	} cases[] = {
		{ TEXT("tcp:80 \xc3\xbc\xe2\x82\xac 0 off off"),
			"x:1:8: origin \"\xc3\xbc\xe2\x82\xac\"" WHY_ORIGIN
			"x:1:11: origin port 0, expected 1-65535\n" },
		{ TEXT("tcp:80" OK " max_flows=\xf0\x9f\x8c\x8a idle_timeout=5"),
			"x:1:37: max_flows \"\xf0\x9f\x8c\x8a\"" WHY_FLOWS "x:1:52: idle_timeout \"5\"" WHY_IDLE },
		{ TEXT("\xef\xbb\xbftcp:0" OK), "x:1:5: edge port 0, expected 1-65535\n" },
		{ TEXT("\t tcp:0\t1.2.3.4\t0\toff\toff"),
			"x:1:7: edge port 0, expected 1-65535\nx:1:17: origin port 0, expected 1-65535\n" },
		{ TEXT("\r\n# \xc3\xbc\r\ntcp:0" OK "\r\n"), "x:3:5: edge port 0, expected 1-65535\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_refused_with(cases[i].text, cases[i].length, "open", cases[i].problems);
}

static void test_a_port_belongs_to_one_rule_per_protocol(void **state)
{
	static const struct {
		const char *text;
		size_t length;
		const char *problems;
	} cases[] = {
		{ TEXT("tcp:80" OK "\ntcp:80" OK), "x:2:5: tcp port 80 already belongs to the rule on line 1\n" },
		{ TEXT("udp:80" OK "\n\nudp:70-90" OK), "x:3:5: udp port 80 already belongs to the rule on line 1\n" },
		{ TEXT("tcp:70-90" OK "\ntcp:60;80" OK "\ntcp:90-99" OK),
			"x:2:8: tcp port 80 already belongs to the rule on line 1\n"
			"x:3:5: tcp port 90 already belongs to the rule on line 1\n" },
		/* the rest of a wrong range is claimed too */
		{ TEXT("tcp:80" OK "\ntcp:80-90" OK "\ntcp:85" OK),
			"x:2:5: tcp port 80 already belongs to the rule on line 1\n"
			"x:3:5: tcp port 85 already belongs to the rule on line 2\n" },
		{ TEXT("tcp:80;80" OK), "x:1:8: tcp port 80, expected each port once in a rule\n" },
		{ TEXT("tcp:80-90;85-95" OK), "x:1:11: tcp port 85, expected each port once in a rule\n" },
		{ TEXT("tcp:80;90;80;90" OK),
			"x:1:11: tcp port 80, expected each port once in a rule\n"
			"x:1:14: tcp port 90, expected each port once in a rule\n" },
	};
	struct config set;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_refused_with(cases[i].text, cases[i].length, "open", cases[i].problems);
	set = parse("tcp:53" OK "\nudp:53" OK);
	assert_int_equal(set.rule_count, 2);
	config_free(&set);
}

/* --- limits --- */

static void test_each_profile_has_its_own_ports(void **state)
{
	static const struct {
		const char *profile, *text, *problems; /* NULL: accepted */
	} cases[] = {
		{ "open", "tcp:65535;3943" OK, NULL },
		{ "esa", "tcp:65535;3943" OK, NULL },
		{ "edgeone", "tcp:1;64999 1.2.3.4 65535 off off", NULL },
		{ "edgeone", "tcp:65000" OK, "x:1:5: edge port 65000, expected 1-64999\n" },
		{ "edgeone", "tcp:64990-65000" OK, "x:1:11: edge port 65000, expected 1-64999\n" },
		{ "edgeone", "udp:65535" OK, "x:1:5: edge port 65535, expected 1-64999\n" },
#define RESERVED(protocol, port)                                                                                       \
	{ "edgeone", protocol ":80;" port OK,                                                                          \
		"x:1:8: " protocol " port " port ", expected a port that the profile \"edgeone\" does not reserve\n" }
		RESERVED("tcp", "3943"),
		RESERVED("tcp", "3944"),
		RESERVED("tcp", "6088"),
		RESERVED("tcp", "36000"),
		RESERVED("tcp", "56000"),
		RESERVED("udp", "4789"),
		RESERVED("udp", "4790"),
		RESERVED("udp", "6080"),
		RESERVED("udp", "61708"),
		{ "edgeone", "udp:3943;3944;6088;36000;56000" OK, NULL },
		{ "edgeone", "tcp:4789;4790;6080;61708" OK, NULL },
		{ "edgeone", "tcp:3942;3945-6087;6089-35999" OK, NULL },
		{ "edgeone", "tcp:80;6000-7000" OK,
			"x:1:8: tcp port 6088, expected a port that the profile \"edgeone\" does not "
			"reserve\n" },
		{ "edgeone", "tcp:6088-6090" OK,
			"x:1:5: tcp port 6088, expected a port that the profile \"edgeone\" does not "
			"reserve\n" },
		{ "edgeone", "udp:61000-61708 1.2.3.4 1000-1708 off off",
			"x:1:5: udp port 61708, expected a port that the profile \"edgeone\" does not "
			"reserve\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t length = strlen(cases[i].text);
		struct config set;

		if (cases[i].problems) {
			assert_refused_with(cases[i].text, length, cases[i].profile, cases[i].problems);
			continue;
		}
		set = parse_in(cases[i].text, length, cases[i].profile);
		config_free(&set);
	}
}

static void test_edgeone_takes_20_entries_a_rule_and_the_others_any_number(void **state)
{
	static const char twenty[] = "tcp:" TWENTY OK, twenty_one[] = "tcp:" TWENTY ";21" OK,
			  ranges[] = "udp:" TWENTY ",21-30" OK;
	static const char *const any[] = { "open", "esa" };
	struct config set;

	(void)state;
	set = parse_in(twenty, strlen(twenty), "edgeone");
	assert_int_equal(set.rules[0].edge_ports.count, 20);
	config_free(&set);
	assert_refused_with(
		twenty_one, strlen(twenty_one), "edgeone", "x:1:5: 21 edge port entries, expected at most 20\n");
	assert_refused_with(ranges, strlen(ranges), "edgeone", "x:1:5: 21 edge port entries, expected at most 20\n");
	for (size_t i = 0; i < ARRAY_SIZE(any); i++) {
		set = parse_in(twenty_one, strlen(twenty_one), any[i]);
		assert_int_equal(set.rules[0].edge_ports.count, 21);
		config_free(&set);
	}
}

static void test_every_port_may_be_an_entry_of_its_own(void **state)
{
	struct text t = text_growing(1 << 20);
	struct config set;

	(void)state;
	text_str(&t, "tcp:1");
	for (unsigned int port = 2; port <= 65535; port++)
		text_printf(&t, ";%u", port);
	text_str(&t, OK);
	set = parse(t.bytes);
	assert_int_equal(set.rules[0].edge_ports.count, 65535);
	assert_int_equal(set.rules[0].edge_columns[65534], strlen(t.bytes) - strlen(OK) - 4);
	config_free(&set);
	text_free(&t);
}

static void test_a_profile_has_a_number_of_rules_and_one_more_is_refused(void **state)
{
	static const struct {
		const char *profile;
		unsigned int rules_max;
	} cases[] = { { "open", 2000 }, { "edgeone", 2000 }, { "esa", 30 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct text t = text_growing(1 << 20);
		char expected[160];
		struct config set;

		for (unsigned int rule = 1; rule <= cases[i].rules_max; rule++)
			text_printf(&t, "tcp:%u" OK "\n", rule);
		set = parse_in(t.bytes, t.length, cases[i].profile);
		assert_int_equal(set.rule_count, cases[i].rules_max);
		config_free(&set);
		/* said once, and lines that are no rules still count */
		text_str(&t, " tcp:3000" OK "\ntcp:3001" OK "\nset rule x\n");
		snprintf(expected, sizeof(expected),
			"x:%u:2: rule %u, expected at most %u rules\nx:%u:10: \"x\", expected OPTION=VALUE\n",
			cases[i].rules_max + 1, cases[i].rules_max + 1, cases[i].rules_max, cases[i].rules_max + 3);
		assert_refused_with(t.bytes, t.length, cases[i].profile, expected);
		text_free(&t);
	}
}

static void test_only_three_profiles_are_known(void **state)
{
	static const char *const others[] = { "", "Open", "open ", "edge", "edgeone2", "ESA" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_null(limits_profile_find(others[i]));
}

static void test_a_file_has_at_most_16_mib(void **state)
{
	size_t max = 16 << 20;
	char *text = malloc(max + 1);
	struct config set;

	(void)state;
	assert_non_null(text);
	memset(text, '#', max + 1);
	set = parse_in(text, max, "open");
	assert_int_equal(set.rule_count, 0);
	config_free(&set);
	assert_refused_with(text, max + 1, "open", "x:1:1: a file of 16777217 bytes, expected at most 16777216\n");
	free(text);
}

/* Lines of a wrong file are counted beyond the ceiling, and a long line does not take long. */
static void test_ten_thousand_problems_are_kept_and_the_others_counted(void **state)
{
	struct problems problems = { 0 };
	struct text t = text_growing(1 << 24), out = text_growing(1 << 24);
	struct config set;

	(void)state;
	text_str(&t, "tcp:");
	for (int i = 0; i < 1000000; i++)
		text_str(&t, "1;");
	text_str(&t, "1" OK);
	assert_int_equal(rules_parse(t.bytes, t.length, profile("open"), NULL, &set, &problems), RULES_E_WRONG);
	assert_int_equal(problems.count, PROBLEMS_MAX);
	assert_int_equal(problems.left_out, 1000000 - PROBLEMS_MAX);
	problems_format(&problems, "x", &out);
	assert_non_null(strstr(out.bytes, "\nx: and 990000 more errors\n"));
	problems_free(&problems);
	assert_null(problems.items);
	text_free(&t);
	text_free(&out);
}

/* --- import(export(x)) = x, over random rule sets --- */

/* What the generator wrote, to compare with what was read. */
struct model_rule {
	struct port_range edge[8];
	size_t edge_count;
	enum protocol protocol;
	enum pass_mode pass;
	bool persistence;
	struct port_range origin_ports;
	const char *origin; /* as export writes it */
	setting_mask given;
	const char *values[RULE_SETTING_N]; /* as export writes them */
	char tag[RULE_TAG_MAX * 4 + 1];	    /* "" for none */
	unsigned int line;
};

enum { MODEL_RULES_MAX = 40 };

struct model {
	struct model_rule rules[MODEL_RULES_MAX];
	size_t count;
	unsigned int next_port[PROTOCOL_N];
	struct test_random random;
	struct text text;
};

static bool chance(struct model *m, uint32_t percent)
{
	return test_below(&m->random, 100) < percent;
}

static void put_blank(struct model *m)
{
	static const char *const blanks[] = { " ", " ", "  ", "\t", " \t " };

	text_str(&m->text, blanks[test_below(&m->random, ARRAY_SIZE(blanks))]);
}

/* Letter case does not matter. */
static void put_any_case(struct model *m, const char *word)
{
	bool mix = chance(m, 20);

	for (; *word; word++) {
		bool letter = *word >= 'a' && *word <= 'z';

		text_put(&m->text, &(char){ letter && mix && chance(m, 50) ? (char)(*word - ('a' - 'A')) : *word }, 1);
	}
}

static void put_range(struct model *m, struct port_range r)
{
	text_printf(&m->text, "%s%u", chance(m, 10) ? "0" : "", r.first);
	if (r.last != r.first || chance(m, 10))
		text_printf(&m->text, "-%u", r.last);
}

static void make_edge_ports(struct model *m, struct model_rule *r)
{
	size_t count = chance(m, 50) ? 1 : test_below(&m->random, 8) + 1;

	r->protocol = chance(m, 50) ? PROTOCOL_TCP : PROTOCOL_UDP;
	for (size_t i = 0; i < count; i++) {
		unsigned int first = m->next_port[r->protocol] + test_below(&m->random, 5);
		unsigned int last = first + (chance(m, 30) ? test_below(&m->random, 100) : 0);
		size_t at = test_below(&m->random, (uint32_t)i + 1);

		m->next_port[r->protocol] = last + 1;
		r->edge[i] = r->edge[at]; /* in any order */
		r->edge[at] = (struct port_range){ (uint16_t)first, (uint16_t)last };
	}
	r->edge_count = count;
	put_any_case(m, protocol_name(r->protocol));
	text_str(&m->text, ":");
	for (size_t i = 0; i < count; i++) {
		if (i)
			text_str(&m->text, chance(m, 80) ? ";" : ",");
		put_range(m, r->edge[i]);
	}
}

static void make_origin(struct model *m, struct model_rule *r)
{
	static const struct {
		const char *written, *exported;
	} origins[] = {
		{ "10.0.0.5", "10.0.0.5" },
		{ "web.example.net", "web.example.net" },
		{ "web.example.net.", "web.example.net" },
		{ "x", "x" },
		{ "_sip._tcp.example", "_sip._tcp.example" },
		{ "[2001:db8::7]", "[2001:db8::7]" },
		{ "[2001:db8:0:0:0:0:0:7]", "[2001:db8::7]" },
		{ "[::1]", "[::1]" },
		{ "set", "set" },
		{ "tcp", "tcp" },
	};
	size_t i = test_below(&m->random, ARRAY_SIZE(origins));

	put_any_case(m, origins[i].written);
	r->origin = origins[i].exported;
	put_blank(m);
	r->origin_ports.first = (uint16_t)(test_below(&m->random, 60000) + 1);
	r->origin_ports.last = r->origin_ports.first;
	if (r->edge_count == 1 && chance(m, 50))
		r->origin_ports.last = (uint16_t)(r->origin_ports.first + (r->edge[0].last - r->edge[0].first));
	put_range(m, r->origin_ports);
}

static void make_pass(struct model *m, struct model_rule *r)
{
	static const enum pass_mode modes[PROTOCOL_N][4] = { { PASS_OFF, PASS_PPV1, PASS_PPV2, PASS_TOA },
		{ PASS_OFF, PASS_PPV2, PASS_SPP, PASS_SPP } };

	r->persistence = chance(m, 50);
	put_any_case(m, r->persistence ? "on" : "off");
	put_blank(m);
	r->pass = modes[r->protocol][test_below(&m->random, 4)];
	put_any_case(m, pass_mode_name(r->pass));
}

static void make_options(struct model *m, struct model_rule *r)
{
	static const struct {
		enum rule_setting_id id;
		const char *value, *exported;
	} options[] = {
		{ RULE_SETTING_connect_timeout, "250ms", "250ms" },
		{ RULE_SETTING_connect_timeout, "2000ms", "2s" },
		{ RULE_SETTING_connect_tries, "16", "16" },
		{ RULE_SETTING_idle_timeout, "24h", "24h" },
		{ RULE_SETTING_idle_timeout, "120s", "2m" },
		{ RULE_SETTING_keepalive, "0", "0s" },
		{ RULE_SETTING_unanswered_timeout, "1m", "1m" },
		{ RULE_SETTING_answers, "1", "1" },
		{ RULE_SETTING_ppv2_mode, "until_reply", "until_reply" },
		{ RULE_SETTING_ppv2_mode, "first", "first" },
		{ RULE_SETTING_spp_answers, "edgeone", "edgeone" },
		{ RULE_SETTING_accept_proxy, "::/0,0.0.0.0/0,192.0.2.1", "::/0,0.0.0.0/0,192.0.2.1/32" },
		{ RULE_SETTING_accept_proxy_timeout, "1s", "1s" },
		{ RULE_SETTING_max_flows, "10000000", "10000000" },
		{ RULE_SETTING_max_flows, "0", "0" },
		{ RULE_SETTING_new_flows_per_s, "007", "7" },
		{ RULE_SETTING_client_max_flows, "1", "1" },
		{ RULE_SETTING_client_new_flows_per_s, "0", "0" },
		{ RULE_SETTING_toa_in_syn, "off", "off" },
		{ RULE_SETTING_toa_kind_v4, "254", "254" },
	};

	for (uint32_t n = test_below(&m->random, 6); n; n--) {
		size_t i = test_below(&m->random, ARRAY_SIZE(options));

		if (r->given & 1u << options[i].id || !setting_carried_by(options[i].id, r->protocol))
			continue;
		r->given |= 1u << options[i].id;
		r->values[options[i].id] = options[i].exported;
		put_blank(m);
		put_any_case(m, setting_name(SETTING_SCOPE_RULE, options[i].id));
		text_str(&m->text, "=");
		put_any_case(m, options[i].value);
	}
}

static void make_tag(struct model *m, struct model_rule *r)
{
	static const char *const pieces[] = { "web", "Game", "#", "\"", "\\", "=", " ", "  ", "a=b", "max_flows=1",
		"\xc3\xbc", "\xe2\x82\xac", "\xf0\x9f\x8c\x8a", "set", "tcp:80", ";" };
	struct text tag = text_fixed(r->tag, sizeof(r->tag));

	put_blank(m);
	text_str(&m->text, "\"");
	for (uint32_t n = test_below(&m->random, 4) + 1; n; n--) {
		const char *piece = pieces[test_below(&m->random, ARRAY_SIZE(pieces))];

		text_str(&tag, piece);
		text_printf(&m->text, "%s%s", *piece == '"' || *piece == '\\' ? "\\" : "", piece);
	}
	text_str(&m->text, "\"");
}

static void put_line_end(struct model *m, unsigned int *line)
{
	text_str(&m->text, chance(m, 20) ? "\r\n" : "\n");
	(*line)++;
	while (chance(m, 10)) {
		text_str(&m->text, chance(m, 50) ? "\n" : " # tcp:1 nothing\r\n");
		(*line)++;
	}
}

static void make_model(struct model *m, uint64_t seed)
{
	unsigned int line = 1;

	*m = (struct model){ .next_port = { 1, 1 }, .random = { seed }, .text = text_growing(1 << 20) };
	text_str(&m->text, chance(m, 10) ? "\xef\xbb\xbf" : "");
	m->count = test_below(&m->random, MODEL_RULES_MAX + 1);
	for (size_t i = 0; i < m->count; i++) {
		struct model_rule *r = &m->rules[i];

		r->line = line;
		if (chance(m, 10))
			put_blank(m);
		make_edge_ports(m, r);
		put_blank(m);
		make_origin(m, r);
		put_blank(m);
		make_pass(m, r);
		make_options(m, r);
		if (chance(m, 60))
			make_tag(m, r);
		if (chance(m, 20))
			text_str(&m->text, " # why");
		put_line_end(m, &line);
	}
	if (chance(m, 50))
		text_str(&m->text, "set node max_flows=1000 name=edge-1 resolvers=[2001:db8::1]:5353,127.0.0.1");
}

static void assert_model_rule(const struct rule *got, const struct model_rule *expected)
{
	char origin[ADDR_TEXT_SIZE + 2] = "[";

	assert_int_equal(got->line, expected->line);
	assert_int_equal(got->protocol, expected->protocol);
	assert_int_equal(got->edge_ports.count, expected->edge_count);
	assert_memory_equal(got->edge_ports.items, expected->edge, expected->edge_count * sizeof(expected->edge[0]));
	assert_memory_equal(&got->origin_ports, &expected->origin_ports, sizeof(got->origin_ports));
	assert_int_equal(got->persistence, expected->persistence);
	assert_int_equal(got->pass, expected->pass);
	assert_int_equal(got->given, expected->given);
	if (got->origin.name) {
		assert_string_equal(got->origin.name, expected->origin);
	} else {
		bool v4 = ip_is_v4(&got->origin.ip);

		memcpy(origin + 1 + ip_format(&got->origin.ip, origin + 1), v4 ? "" : "]", 2 - v4);
		assert_string_equal(v4 ? origin + 1 : origin, expected->origin);
	}
	for (unsigned int id = 0; id < RULE_SETTING_N; id++) {
		char value[128];
		struct text t = text_fixed(value, sizeof(value));

		if (!(expected->given & 1u << id))
			continue;
		setting_format(SETTING_SCOPE_RULE, id, &got->settings, &t);
		assert_string_equal(value, expected->values[id]);
	}
	assert_string_equal(got->tag ? got->tag : "", expected->tag);
}

/* All that a rule means; line and columns may differ. */
static void assert_rules_equal(const struct rule *a, const struct rule *b)
{
	assert_string_equal(a->id, b->id);
	assert_int_equal(a->protocol, b->protocol);
	assert_int_equal(a->pass, b->pass);
	assert_int_equal(a->persistence, b->persistence);
	assert_int_equal(a->edge_ports.count, b->edge_ports.count);
	assert_memory_equal(a->edge_ports.items, b->edge_ports.items, a->edge_ports.count * sizeof(struct port_range));
	assert_string_equal(a->origin.name ? a->origin.name : "", b->origin.name ? b->origin.name : "");
	assert_true(ip_equal(&a->origin.ip, &b->origin.ip));
	assert_memory_equal(&a->origin_ports, &b->origin_ports, sizeof(a->origin_ports));
	assert_string_equal(a->tag ? a->tag : "", b->tag ? b->tag : "");
	assert_int_equal(a->given, b->given);
	for (unsigned int id = 0; id < RULE_SETTING_N; id++)
		assert_true(setting_equal(SETTING_SCOPE_RULE, id, &a->settings, &b->settings));
}

static void assert_sets_equal(const struct config *a, const struct config *b)
{
	assert_int_equal(a->rule_count, b->rule_count);
	assert_int_equal(a->node_given, b->node_given);
	assert_int_equal(a->rule_defaults_given, b->rule_defaults_given);
	for (unsigned int id = 0; id < NODE_SETTING_N; id++)
		assert_true(setting_equal(SETTING_SCOPE_NODE, id, &a->node, &b->node));
	for (size_t i = 0; i < a->rule_count; i++)
		assert_rules_equal(&a->rules[i], &b->rules[i]);
}

static void test_what_is_exported_is_imported_as_it_was(void **state)
{
	enum { SEEDS = 1000 };
	static struct model m;

	(void)state;
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct config first, second;
		char *exported, *again;

		make_model(&m, seed);
		assert_true(m.text.ok);
		first = parse_in(m.text.bytes, m.text.length, "open");
		assert_int_equal(first.rule_count, m.count);
		for (size_t i = 0; i < m.count; i++)
			assert_model_rule(&first.rules[i], &m.rules[i]);
		exported = format(&first);
		second = parse(exported);
		assert_sets_equal(&first, &second);
		again = format(&second);
		assert_string_equal(exported, again);
		free(exported);
		free(again);
		config_free(&first);
		config_free(&second);
		text_free(&m.text);
	}
}

/* Defaults of the file are exported as such, and each rule with what it gives itself only. */
static void test_defaults_of_the_file_are_exported_and_imported(void **state)
{
	struct config first =
		parse("set rule idle_timeout=2m accept_proxy=10.0.0.0/8 answers=3 client_max_flows=0\n"
		      "tcp:1" OK "\nudp:1" OK " answers=0\ntcp:2" OK " accept_proxy=::1 idle_timeout=2m\n");
	char *exported = format(&first);
	struct config second = parse(exported);

	(void)state;
	assert_string_equal(exported,
		"set rule idle_timeout=2m answers=3 accept_proxy=10.0.0.0/8 client_max_flows=0\n"
		"tcp:1" OK "\nudp:1" OK " answers=0\ntcp:2" OK " idle_timeout=2m accept_proxy=::1/128\n");
	assert_sets_equal(&first, &second);
	free(exported);
	config_free(&first);
	config_free(&second);
}

static void test_toa_is_refused_at_its_place_where_it_cannot_be_sent(void **state)
{
	static const char expected[] =
		"x:2:16: pass mode \"toa\" cannot be sent here (no reason), expected another pass mode, "
		"toa_required=off, or the rights of docs/operation.md\n";
	struct config set = parse("tcp:1 a 2 off off\ntcp:3 b 4 on   toa\ntcp:5 a 6 off toa toa_required=off\n");
	struct text got = text_growing(1 << 20);
	struct problems problems = { 0 };

	(void)state;
	check_toa(&set, "no reason", &problems);
	problems_format(&problems, "x", &got);
	assert_string_equal(got.bytes, expected);
	text_free(&got);
	problems_free(&problems);
	config_free(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_good_line_is_written_in_its_plain_form),
		cmocka_unit_test(test_a_rule_has_what_its_line_says),
		cmocka_unit_test(test_a_rule_takes_its_own_option_then_the_files_then_the_default),
		cmocka_unit_test(test_edge_ports_of_a_range_are_mapped_by_offset),
		cmocka_unit_test(test_flows_go_on_under_a_rule_that_forwards_alike),
		cmocka_unit_test(test_ids_are_made_from_protocol_and_edge_ports_alone),
		cmocka_unit_test(test_two_thousand_rules_have_different_ids),
		cmocka_unit_test(test_every_malformed_line_is_refused_with_its_place),
		cmocka_unit_test(test_every_wrong_line_is_reported_in_the_order_of_the_file),
		cmocka_unit_test(test_columns_count_characters),
		cmocka_unit_test(test_toa_is_refused_at_its_place_where_it_cannot_be_sent),
		cmocka_unit_test(test_a_port_belongs_to_one_rule_per_protocol),
		cmocka_unit_test(test_each_profile_has_its_own_ports),
		cmocka_unit_test(test_edgeone_takes_20_entries_a_rule_and_the_others_any_number),
		cmocka_unit_test(test_every_port_may_be_an_entry_of_its_own),
		cmocka_unit_test(test_a_profile_has_a_number_of_rules_and_one_more_is_refused),
		cmocka_unit_test(test_only_three_profiles_are_known),
		cmocka_unit_test(test_a_file_has_at_most_16_mib),
		cmocka_unit_test(test_ten_thousand_problems_are_kept_and_the_others_counted),
		cmocka_unit_test(test_what_is_exported_is_imported_as_it_was),
		cmocka_unit_test(test_defaults_of_the_file_are_exported_and_imported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
