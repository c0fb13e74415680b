/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "config/rules.h"
#include "config/snapshot.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct config parse(const char *text)
{
	struct problems problems = { 0 };
	struct config set;

	assert_int_equal(rules_parse(text, strlen(text), limits_profile_find("open"), NULL, &set, &problems), RULES_OK);
	return set;
}

/* release_rule has no argument of its own to count in. */
static _Atomic unsigned int released;

static void count_release(struct snapshot_rule *rule)
{
	assert_non_null(rule->rule);
	assert_non_null(rule->snapshot);
	atomic_fetch_add(&released, 1);
}

static struct snapshot *snapshot_of(const char *text, uint64_t version)
{
	struct config set = parse(text);
	struct snapshot *s;

	atomic_store(&released, 0);
	assert_int_equal(snapshot_new(&set, version, count_release, &s), 0);
	assert_null(set.rules); /* taken over */
	assert_int_equal(set.rule_count, 0);
	return s;
}

#define OK " 1.2.3.4 80 off off\n"

static void test_every_edge_port_leads_to_its_rule_and_no_other_port_does(void **state)
{
	static const struct {
		enum protocol protocol;
		unsigned int first, last;
		size_t rule;
	} owned[] = {
		{ PROTOCOL_TCP, 1, 1, 0 },
		{ PROTOCOL_TCP, 80, 80, 1 },
		{ PROTOCOL_TCP, 443, 443, 1 },
		{ PROTOCOL_TCP, 8000, 8010, 1 },
		{ PROTOCOL_TCP, 65000, 65535, 2 },
		{ PROTOCOL_UDP, 80, 8005, 3 },
	};
	struct snapshot *s = snapshot_of("tcp:1" OK "tcp:80;443;8000-8010" OK "tcp:65000-65535" OK "udp:80-8005" OK, 7);

	(void)state;
	assert_int_equal(s->version, 7);
	for (enum protocol p = PROTOCOL_TCP; p < PROTOCOL_N; p++) {
		for (unsigned int port = 0; port <= UINT16_MAX; port++) {
			const struct snapshot_rule *expected = NULL;

			for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
				if (owned[i].protocol == p && port >= owned[i].first && port <= owned[i].last)
					expected = &s->rules[owned[i].rule];
			if (snapshot_find(s, p, (uint16_t)port) != expected)
				fail_msg("%s port %u", protocol_name(p), port);
		}
	}
	snapshot_unref(s);
}

static void test_each_rule_of_the_set_stands_in_the_snapshot(void **state)
{
	struct snapshot *s = snapshot_of("tcp:1" OK "udp:1" OK, 1);

	(void)state;
	assert_int_equal(s->config.rule_count, 2);
	for (size_t i = 0; i < s->config.rule_count; i++) {
		assert_ptr_equal(s->rules[i].rule, &s->config.rules[i]);
		assert_ptr_equal(s->rules[i].snapshot, s);
		assert_null(s->rules[i].state);
		assert_null(s->rules[i].pool);
	}
	snapshot_unref(s);
}

static void test_two_thousand_rules_are_found(void **state)
{
	struct text t = text_growing(1 << 20);
	struct snapshot *s;

	(void)state;
	for (unsigned int i = 0; i < RULES_MAX; i++)
		text_printf(&t, "udp:%u" OK, i + 1);
	s = snapshot_of(t.bytes, 1);
	text_free(&t);
	for (unsigned int i = 0; i < RULES_MAX; i++)
		assert_ptr_equal(snapshot_find(s, PROTOCOL_UDP, (uint16_t)(i + 1)), &s->rules[i]);
	assert_null(snapshot_find(s, PROTOCOL_UDP, RULES_MAX + 1));
	snapshot_unref(s);
	assert_int_equal(released, RULES_MAX);
}

static void test_rules_are_released_with_the_last_reference_and_not_before(void **state)
{
	struct snapshot *s = snapshot_of("tcp:1" OK "tcp:2" OK "tcp:3" OK, 1);

	(void)state;
	assert_ptr_equal(snapshot_ref(s), s);
	assert_ptr_equal(snapshot_ref(s), s);
	assert_null(snapshot_unref(s));
	assert_null(snapshot_unref(s));
	assert_int_equal(released, 0);
	assert_non_null(snapshot_find(s, PROTOCOL_TCP, 2));
	assert_null(snapshot_unref(s));
	assert_int_equal(released, 3);
}

static void test_a_snapshot_without_rules_finds_none(void **state)
{
	struct snapshot *s = snapshot_of("", 1);

	(void)state;
	assert_null(snapshot_find(s, PROTOCOL_TCP, 80));
	assert_null(snapshot_find(s, PROTOCOL_UDP, 0));
	snapshot_unref(s);
	assert_int_equal(released, 0);
}

static void test_letting_go_of_nothing_is_harmless(void **state)
{
	(void)state;
	assert_null(snapshot_unref(NULL));
}

static void *take_and_let_go(void *arg)
{
	struct snapshot *s = arg;

	for (int i = 0; i < 20000; i++) {
		struct snapshot *mine = snapshot_ref(s);

		if (!snapshot_find(mine, PROTOCOL_TCP, 1))
			abort();
		snapshot_unref(mine);
	}
	snapshot_unref(s);
	return NULL;
}

static void test_threads_may_let_go_in_any_order(void **state)
{
	struct snapshot *s = snapshot_of("tcp:1" OK, 1);
	pthread_t threads[4];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_and_let_go, snapshot_ref(s)), 0);
	snapshot_unref(s);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(released, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_edge_port_leads_to_its_rule_and_no_other_port_does),
		cmocka_unit_test(test_each_rule_of_the_set_stands_in_the_snapshot),
		cmocka_unit_test(test_two_thousand_rules_are_found),
		cmocka_unit_test(test_rules_are_released_with_the_last_reference_and_not_before),
		cmocka_unit_test(test_a_snapshot_without_rules_finds_none),
		cmocka_unit_test(test_letting_go_of_nothing_is_harmless),
		cmocka_unit_test(test_threads_may_let_go_in_any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
