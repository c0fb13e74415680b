/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "config/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The table once more, as plain data to test against. */
enum type { MSEC, COUNT, PREFIXES, WORD, SERVERS, PPV2_MODE, SPP_ANSWERS, SWITCH };
enum { TCP = 1 << PROTOCOL_TCP, UDP = 1 << PROTOCOL_UDP, BOTH = TCP | UDP };

static const struct row {
	enum setting_scope scope;
	unsigned int id;
	const char *name;
	enum type type;
	unsigned int protocols;
	int64_t min, max;
	const char *zero;
} rows[] = {
#define RULE_SETTING(n, type, protocols, min, max, zero, ...)                                                          \
	{ SETTING_SCOPE_RULE, RULE_SETTING_##n, #n, type, protocols, min, max, zero },
#define NODE_SETTING(n, type, min, max, zero, ...)                                                                     \
	{ SETTING_SCOPE_NODE, NODE_SETTING_##n, #n, type, BOTH, min, max, zero },
#include "tables/setting.def"
};

union settings {
	struct rule_settings rule;
	struct node_settings node;
};

struct fixture {
	struct arena arena;
	union settings settings;
	char why[256];
};

static int setup(void **state)
{
	static struct fixture f;

	f = (struct fixture){ 0 };
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	arena_free(&f->arena);
	return 0;
}

static int parse(struct fixture *f, enum setting_scope scope, unsigned int id, const char *value)
{
	struct text why = text_fixed(f->why, sizeof(f->why));
	int r = setting_parse(scope, id, value, strlen(value), &f->arena, &f->settings, &why);

	assert_true(why.ok);
	assert_int_equal(f->why[0] != 0, r == -EINVAL);
	return r;
}

static void assert_written(const struct fixture *f, enum setting_scope scope, unsigned int id, const char *expected)
{
	char out[64 * PREFIX_TEXT_SIZE];
	struct text t = text_fixed(out, sizeof(out));

	setting_format(scope, id, &f->settings, &t);
	assert_true(t.ok);
	assert_string_equal(out, expected);
}

static void test_a_setting_is_found_by_its_name_in_any_letter_case(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char upper[64] = { 0 };

		for (size_t c = 0; rows[i].name[c]; c++)
			upper[c] = (char)(rows[i].name[c] >= 'a' ? rows[i].name[c] - ('a' - 'A') : rows[i].name[c]);
		assert_int_equal(setting_find(rows[i].scope, rows[i].name, strlen(rows[i].name)), rows[i].id);
		assert_int_equal(setting_find(rows[i].scope, upper, strlen(upper)), rows[i].id);
		assert_string_equal(setting_name(rows[i].scope, rows[i].id), rows[i].name);
	}
}

static void test_other_names_are_not_found(void **state)
{
	static const struct {
		enum setting_scope scope;
		const char *name;
	} cases[] = {
		{ SETTING_SCOPE_RULE, "" },
		{ SETTING_SCOPE_RULE, "idle" },
		{ SETTING_SCOPE_RULE, "idle_timeout_ms" },
		{ SETTING_SCOPE_RULE, "idle_timeouts" },
		{ SETTING_SCOPE_RULE, "resolvers" },
		{ SETTING_SCOPE_NODE, "idle_timeout" },
		{ SETTING_SCOPE_NODE, "name " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(setting_find(cases[i].scope, cases[i].name, strlen(cases[i].name)), -1);
	assert_int_equal(setting_find(SETTING_SCOPE_RULE, "idle_timeout", 11), -1);
}

static void test_a_setting_is_carried_by_the_protocols_of_its_row(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].scope != SETTING_SCOPE_RULE)
			continue;
		assert_int_equal(setting_carried_by(rows[i].id, PROTOCOL_TCP), (rows[i].protocols & TCP) != 0);
		assert_int_equal(setting_carried_by(rows[i].id, PROTOCOL_UDP), (rows[i].protocols & UDP) != 0);
	}
}

static void test_defaults_are_what_the_rows_say(void **state)
{
	struct rule_settings tcp, udp;
	struct node_settings node;

	(void)state;
	setting_defaults(SETTING_SCOPE_RULE, PROTOCOL_TCP, &tcp);
	setting_defaults(SETTING_SCOPE_RULE, PROTOCOL_UDP, &udp);
	setting_defaults(SETTING_SCOPE_NODE, PROTOCOL_TCP, &node);
	assert_int_equal(tcp.connect_timeout_ms, 5000);
	assert_int_equal(tcp.connect_tries, 3);
	assert_int_equal(tcp.idle_timeout_ms, 3600000);
	assert_int_equal(udp.idle_timeout_ms, 60000);
	assert_int_equal(udp.ppv2_mode, PPV2_MODE_FIRST);
	assert_int_equal(udp.spp_answers, SPP_ANSWERS_LENIENT);
	assert_int_equal(tcp.accept_proxy.count, 0);
	assert_int_equal(tcp.client_max_flows, 10000);
	assert_int_equal(node.max_flows, 100000);
	assert_int_equal(node.resolvers.count, 0);
	assert_int_equal(node.udp_fast_path, SWITCH_ON);
	assert_int_equal(node.tcp_fast_path, SWITCH_ON);
	assert_int_equal(node.tcp_fast_path_after, 262144);
	assert_string_equal(node.name, "");
}

/* Every default can be written down and read again. Lists and words default to nothing, which cannot be
 * written. */
static void test_defaults_lie_within_their_own_limits(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		for (unsigned int p = PROTOCOL_TCP; p < PROTOCOL_N; p++) {
			union settings before;
			char value[64];
			struct text t = text_fixed(value, sizeof(value));

			if (!(rows[i].protocols & 1u << p) || rows[i].type == PREFIXES || rows[i].type == WORD ||
				rows[i].type == SERVERS)
				continue;
			if (rows[i].scope == SETTING_SCOPE_RULE)
				setting_defaults(SETTING_SCOPE_RULE, (enum protocol)p, &f->settings.rule);
			else
				setting_defaults(SETTING_SCOPE_NODE, PROTOCOL_TCP, &f->settings.node);
			setting_format(rows[i].scope, rows[i].id, &f->settings, &t);
			before = f->settings;
			if (parse(f, rows[i].scope, rows[i].id, value))
				fail_msg("%s=%s: expected %s", rows[i].name, value, f->why);
			assert_true(setting_equal(rows[i].scope, rows[i].id, &before, &f->settings));
		}
	}
}

static void parse_number(struct fixture *f, const struct row *row, int64_t number, int expected)
{
	char value[32];

	snprintf(value, sizeof(value), "%" PRId64 "%s", number, row->type == MSEC ? "ms" : "");
	if (parse(f, row->scope, row->id, value) != expected)
		fail_msg("%s=%s: expected %d", row->name, value, expected);
}

static void test_numbers_end_at_their_limits(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].type != MSEC && rows[i].type != COUNT)
			continue;
		parse_number(*state, &rows[i], rows[i].min, 0);
		parse_number(*state, &rows[i], rows[i].max, 0);
		if (rows[i].min > 1)
			parse_number(*state, &rows[i], rows[i].min - 1, -EINVAL);
		parse_number(*state, &rows[i], rows[i].max + 1, -EINVAL);
		parse_number(*state, &rows[i], 0, rows[i].zero ? 0 : -EINVAL);
	}
}

static void test_times_are_written_with_the_largest_unit_that_fits(void **state)
{
	static const struct {
		const char *value;
		int64_t ms;
		const char *written;
	} cases[] = {
		{ "1000ms", 1000, "1s" },
		{ "1001ms", 1001, "1001ms" },
		{ "1s", 1000, "1s" },
		{ "90s", 90000, "90s" },
		{ "60S", 60000, "1m" },
		{ "120m", 7200000, "2h" },
		{ "90M", 5400000, "90m" },
		{ "24h", 86400000, "24h" },
		{ "0001H", 3600000, "1h" },
		{ "5000Ms", 5000, "5s" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(parse(f, SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, cases[i].value), 0);
		assert_int_equal(f->settings.rule.idle_timeout_ms, cases[i].ms);
		assert_written(f, SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, cases[i].written);
	}
}

static void test_zero_may_have_a_unit_or_none(void **state)
{
	static const char *const zeros[] = { "0", "0s", "0ms", "0h", "000" };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(zeros); i++) {
		f->settings.rule.keepalive_ms = 4711;
		assert_int_equal(parse(f, SETTING_SCOPE_RULE, RULE_SETTING_keepalive, zeros[i]), 0);
		assert_int_equal(f->settings.rule.keepalive_ms, 0);
		assert_written(f, SETTING_SCOPE_RULE, RULE_SETTING_keepalive, "0s");
	}
	assert_int_equal(parse(f, SETTING_SCOPE_RULE, RULE_SETTING_max_flows, "0"), 0);
	assert_written(f, SETTING_SCOPE_RULE, RULE_SETTING_max_flows, "0");
}

static void test_enumerations_take_their_words_in_any_letter_case(void **state)
{
	static const struct {
		enum setting_scope scope;
		unsigned int id;
		const char *value, *written;
	} cases[] = {
		{ SETTING_SCOPE_RULE, RULE_SETTING_ppv2_mode, "first", "first" },
		{ SETTING_SCOPE_RULE, RULE_SETTING_ppv2_mode, "Until_Reply", "until_reply" },
		{ SETTING_SCOPE_RULE, RULE_SETTING_ppv2_mode, "EVERY", "every" },
		{ SETTING_SCOPE_RULE, RULE_SETTING_spp_answers, "lenient", "lenient" },
		{ SETTING_SCOPE_RULE, RULE_SETTING_spp_answers, "strict", "strict" },
		{ SETTING_SCOPE_RULE, RULE_SETTING_spp_answers, "EdgeOne", "edgeone" },
		{ SETTING_SCOPE_NODE, NODE_SETTING_udp_fast_path, "Off", "off" },
		{ SETTING_SCOPE_NODE, NODE_SETTING_udp_fast_path, "on", "on" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(parse(*state, cases[i].scope, cases[i].id, cases[i].value), 0);
		assert_written(*state, cases[i].scope, cases[i].id, cases[i].written);
	}
}

static void test_lists_are_separated_by_commas(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(
		parse(f, SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.0/8,2001:DB8::/32,192.0.2.1"), 0);
	assert_int_equal(f->settings.rule.accept_proxy.count, 3);
	assert_written(f, SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.0/8,2001:db8::/32,192.0.2.1/32");

	assert_int_equal(parse(f, SETTING_SCOPE_NODE, NODE_SETTING_resolvers, "127.0.0.1,[2001:db8::1]:5353,::1"), 0);
	assert_int_equal(f->settings.node.resolvers.count, 3);
	assert_written(f, SETTING_SCOPE_NODE, NODE_SETTING_resolvers, "127.0.0.1:53,[2001:db8::1]:5353,[::1]:53");
}

/* "item,item,…" */
static void repeat(const char *item, size_t times, struct text *out)
{
	out->length = 0;
	for (size_t i = 0; i < times; i++)
		text_printf(out, "%s%s", i ? "," : "", item);
}

static void test_lists_and_words_end_at_their_limits(void **state)
{
	static const struct {
		enum setting_scope scope;
		unsigned int id;
		const char *item;
		size_t max;
	} lists[] = {
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "192.0.2.0/24", PREFIX_LIST_MAX },
		{ SETTING_SCOPE_NODE, NODE_SETTING_resolvers, "192.0.2.1", SERVER_LIST_MAX },
	};
	struct text value = text_growing(10000);
	char word[WORD_MAX + 2];

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		repeat(lists[i].item, lists[i].max, &value);
		assert_int_equal(parse(*state, lists[i].scope, lists[i].id, value.bytes), 0);
		repeat(lists[i].item, lists[i].max + 1, &value);
		assert_int_equal(parse(*state, lists[i].scope, lists[i].id, value.bytes), -EINVAL);
	}
	text_free(&value);
	memset(word, 'x', sizeof(word));
	word[WORD_MAX + 1] = 0;
	assert_int_equal(parse(*state, SETTING_SCOPE_NODE, NODE_SETTING_name, word), -EINVAL);
	word[WORD_MAX] = 0;
	assert_int_equal(parse(*state, SETTING_SCOPE_NODE, NODE_SETTING_name, word), 0);
	assert_written(*state, SETTING_SCOPE_NODE, NODE_SETTING_name, word);
}

static void test_a_shorter_word_leaves_nothing_of_a_longer_one(void **state)
{
	static const union settings zero;
	union settings expected = zero;
	struct fixture *f = *state;

	memcpy(expected.node.name, "ab", 2);
	assert_int_equal(parse(f, SETTING_SCOPE_NODE, NODE_SETTING_name, "a-much-longer.name"), 0);
	assert_int_equal(parse(f, SETTING_SCOPE_NODE, NODE_SETTING_name, "ab"), 0);
	assert_true(setting_equal(SETTING_SCOPE_NODE, NODE_SETTING_name, &f->settings, &expected));
}

#define WHY_IDLE    "a time with its unit (500ms, 3s, 5m, 1h) from 1s to 24h"
#define WHY_KEEP    WHY_IDLE ", or 0 (off)"
#define WHY_TRIES   "a number from 1 to 16"
#define WHY_FLOWS   "a number from 1 to 10000000, or 0 (no limit but the node's)"
#define WHY_MODE    "first, until_reply, every"
#define WHY_SWITCH  "off, on"
#define WHY_PREFIX  "1 to 64 prefixes such as 10.0.0.0/8,2001:db8::/32, no bit set behind a prefix"
#define WHY_SERVERS "1 to 8 addresses such as 127.0.0.1,[2001:db8::1]:5353"
#define WHY_NAME    "1 to 63 characters of a-z A-Z 0-9 . _ -"

static void test_a_wrong_value_is_refused_with_what_was_expected_and_changes_nothing(void **state)
{
	static const struct {
		enum setting_scope scope;
		unsigned int id;
		const char *value, *why;
	} cases[] = {
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "5", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "0", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "0s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "5d", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "5 s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "5ss", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "5s5s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "-5s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "+5s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "1.5s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "0x5s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "25h", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "1099511627776h", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "1099511627777ms", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "99999999999999999999999999s", WHY_IDLE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_keepalive, "5", WHY_KEEP },
		{ SETTING_SCOPE_RULE, RULE_SETTING_keepalive, "off", WHY_KEEP },
		{ SETTING_SCOPE_RULE, RULE_SETTING_connect_tries, "0", WHY_TRIES },
		{ SETTING_SCOPE_RULE, RULE_SETTING_connect_tries, "3s", WHY_TRIES },
		{ SETTING_SCOPE_RULE, RULE_SETTING_connect_tries, "three", WHY_TRIES },
		{ SETTING_SCOPE_RULE, RULE_SETTING_max_flows, "-1", WHY_FLOWS },
		{ SETTING_SCOPE_RULE, RULE_SETTING_max_flows, "4294967296", WHY_FLOWS },
		{ SETTING_SCOPE_RULE, RULE_SETTING_max_flows, "4294967297", WHY_FLOWS },
		{ SETTING_SCOPE_RULE, RULE_SETTING_ppv2_mode, "", WHY_MODE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_ppv2_mode, "firs", WHY_MODE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_ppv2_mode, "firsts", WHY_MODE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_ppv2_mode, "strict", WHY_MODE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_ppv2_mode, "0", WHY_MODE },
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "", WHY_PREFIX },
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, ",", WHY_PREFIX },
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.0/8,", WHY_PREFIX },
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, ",10.0.0.0/8", WHY_PREFIX },
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.0/8,,10.0.0.0/8", WHY_PREFIX },
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.1/8", WHY_PREFIX },
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.0/8;10.0.0.0/8", WHY_PREFIX },
		{ SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "0", WHY_PREFIX },
		{ SETTING_SCOPE_NODE, NODE_SETTING_resolvers, "", WHY_SERVERS },
		{ SETTING_SCOPE_NODE, NODE_SETTING_resolvers, "dns.example", WHY_SERVERS },
		{ SETTING_SCOPE_NODE, NODE_SETTING_resolvers, "127.0.0.1:70000", WHY_SERVERS },
		{ SETTING_SCOPE_NODE, NODE_SETTING_resolvers, "127.0.0.1:0", WHY_SERVERS },
		{ SETTING_SCOPE_NODE, NODE_SETTING_resolvers, "127.0.0.1,", WHY_SERVERS },
		{ SETTING_SCOPE_NODE, NODE_SETTING_udp_fast_path, "yes", WHY_SWITCH },
		{ SETTING_SCOPE_NODE, NODE_SETTING_udp_fast_path, "1", WHY_SWITCH },
		{ SETTING_SCOPE_NODE, NODE_SETTING_name, "", WHY_NAME },
		{ SETTING_SCOPE_NODE, NODE_SETTING_name, "a b", WHY_NAME },
		{ SETTING_SCOPE_NODE, NODE_SETTING_name, "a\"b", WHY_NAME },
		{ SETTING_SCOPE_NODE, NODE_SETTING_name, "b\xc3\xbc", WHY_NAME },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		union settings before;

		memset(&f->settings, 0x5a, sizeof(f->settings));
		before = f->settings;
		if (parse(f, cases[i].scope, cases[i].id, cases[i].value) != -EINVAL)
			fail_msg("%s=%s is accepted", setting_name(cases[i].scope, cases[i].id), cases[i].value);
		assert_string_equal(f->why, cases[i].why);
		assert_memory_equal(&f->settings, &before, sizeof(before));
	}
}

static void test_a_value_ends_where_its_length_says(void **state)
{
	struct fixture *f = *state;
	struct text why = text_fixed(f->why, sizeof(f->why));

	assert_int_equal(setting_parse(SETTING_SCOPE_RULE, RULE_SETTING_idle_timeout, "5s tag", 2, &f->arena,
				 &f->settings, &why),
		0);
	assert_int_equal(f->settings.rule.idle_timeout_ms, 5000);
}

/* One value for each type, and another one that differs. */
static void test_one_field_is_copied_and_compared_and_no_other(void **state)
{
	static const struct {
		unsigned int id;
		const char *value, *other;
	} cases[] = {
		{ RULE_SETTING_idle_timeout, "5s", "6s" },
		{ RULE_SETTING_connect_tries, "2", "3" },
		{ RULE_SETTING_accept_proxy, "10.0.0.0/8,::1", "10.0.0.0/8,::2" },
		{ RULE_SETTING_ppv2_mode, "every", "first" },
		{ RULE_SETTING_spp_answers, "strict", "edgeone" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		union settings a, b;

		memset(&f->settings, 0, sizeof(f->settings));
		assert_int_equal(parse(f, SETTING_SCOPE_RULE, cases[i].id, cases[i].value), 0);
		a = f->settings;
		assert_int_equal(parse(f, SETTING_SCOPE_RULE, cases[i].id, cases[i].other), 0);
		b = f->settings;
		assert_false(setting_equal(SETTING_SCOPE_RULE, cases[i].id, &a, &b));
		for (size_t other = 0; other < ARRAY_SIZE(cases); other++)
			if (other != i)
				assert_true(setting_equal(SETTING_SCOPE_RULE, cases[other].id, &a, &b));
		setting_copy(SETTING_SCOPE_RULE, cases[i].id, &a, &b);
		assert_memory_equal(&a, &b, sizeof(a));
	}
}

static void test_lists_of_the_same_prefixes_are_equal_wherever_they_lie(void **state)
{
	struct fixture *f = *state;
	union settings a;

	assert_int_equal(parse(f, SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.0/8,::1"), 0);
	a = f->settings;
	assert_int_equal(parse(f, SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.0/8,::1"), 0);
	assert_ptr_not_equal(a.rule.accept_proxy.items, f->settings.rule.accept_proxy.items);
	assert_true(setting_equal(SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, &a, &f->settings));
	assert_int_equal(parse(f, SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, "10.0.0.0/8"), 0);
	assert_false(setting_equal(SETTING_SCOPE_RULE, RULE_SETTING_accept_proxy, &a, &f->settings));
}

static void test_the_document_has_a_line_for_every_setting(void **state)
{
	struct text t = text_growing(1 << 20);

	(void)state;
	settings_document(&t);
	assert_true(t.ok);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char start[80];

		snprintf(start, sizeof(start), "\n| `%s` | ", rows[i].name);
		if (!strstr(t.bytes, start))
			fail_msg("%s is not documented", rows[i].name);
	}
	text_free(&t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_setting_is_found_by_its_name_in_any_letter_case),
		TEST(test_other_names_are_not_found),
		TEST(test_a_setting_is_carried_by_the_protocols_of_its_row),
		TEST(test_defaults_are_what_the_rows_say),
		TEST(test_defaults_lie_within_their_own_limits),
		TEST(test_numbers_end_at_their_limits),
		TEST(test_times_are_written_with_the_largest_unit_that_fits),
		TEST(test_zero_may_have_a_unit_or_none),
		TEST(test_enumerations_take_their_words_in_any_letter_case),
		TEST(test_lists_are_separated_by_commas),
		TEST(test_lists_and_words_end_at_their_limits),
		TEST(test_a_shorter_word_leaves_nothing_of_a_longer_one),
		TEST(test_a_wrong_value_is_refused_with_what_was_expected_and_changes_nothing),
		TEST(test_a_value_ends_where_its_length_says),
		TEST(test_one_field_is_copied_and_compared_and_no_other),
		TEST(test_lists_of_the_same_prefixes_are_equal_wherever_they_lie),
		TEST(test_the_document_has_a_line_for_every_setting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
