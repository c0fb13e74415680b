/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "config/access.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LISTS_MAX = 4, ENTRIES_MAX = 8 };

/* Lists written as text: prefixes with spaces between. */
struct lists {
	struct ip_list lists[LISTS_MAX];
	const struct ip_list *pointers[LISTS_MAX];
	struct prefix entries[LISTS_MAX][ENTRIES_MAX];
	size_t count;
};

static void read_lists(const char *const *texts, struct lists *l)
{
	*l = (struct lists){ 0 };
	for (; l->count < LISTS_MAX && texts[l->count]; l->count++) {
		struct ip_list *list = &l->lists[l->count];
		const char *at = texts[l->count];

		list->name = "list";
		list->items = l->entries[l->count];
		while (*at) {
			size_t length = strcspn(at, " ");

			assert_true(list->count < ENTRIES_MAX);
			assert_int_equal(prefix_parse(at, length, &l->entries[l->count][list->count++]), 0);
			at += length + (at[length] == ' ');
		}
		ip_list_finish(list);
		l->pointers[l->count] = list;
	}
}

static struct ip ip_of(const char *text)
{
	struct ip ip;

	assert_int_equal(ip_parse(text, strlen(text), &ip), 0);
	return ip;
}

/* A set of the lists, whose arrays may go away afterwards. */
static struct access_set *get(struct access_cache *cache, const char *const *allow, const char *const *deny)
{
	struct lists allowed, denied;
	struct access access;
	struct access_set *set;

	read_lists(allow, &allowed);
	read_lists(deny, &denied);
	access = (struct access){ allowed.pointers, denied.pointers, allowed.count, denied.count };
	assert_int_equal(access_set_get(cache, &access, &set), 0);
	return set;
}

#define LISTS(...)                                                                                                     \
	(const char *const[LISTS_MAX + 1])                                                                             \
	{                                                                                                              \
		__VA_ARGS__                                                                                            \
	}
#define NONE LISTS(NULL)

static const struct {
	const char *what;
	const char *allow[LISTS_MAX + 1], *deny[LISTS_MAX + 1];
	const char *in[8], *out[8];
} verdicts[] = {
	{ "no lists", { 0 }, { 0 }, { "10.1.2.3", "2001:db8::1", "0.0.0.0", "::" }, { 0 } },
	{ "an allow list shuts out everybody else", { "10.0.0.0/8 2001:db8::/32" }, { 0 },
		{ "10.0.0.0", "10.255.255.255", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff" },
		{ "9.255.255.255", "11.0.0.0", "2001:db9::", "2001:db7::1", "::a00:1" } },
	{ "a deny list lets in everybody else", { 0 }, { "10.0.0.0/8" },
		{ "9.255.255.255", "11.0.0.0", "2001:db8::1", "::" }, { "10.0.0.0", "10.255.255.255" } },
	{ "deny wins at equal length", { "10.0.0.0/8 192.0.2.1 2001:db8::/32" },
		{ "10.0.0.0/8 192.0.2.1 2001:db8::/32" }, { 0 },
		{ "10.1.1.1", "192.0.2.1", "2001:db8::1", "192.0.2.2" } },
	{ "in whatever order", { "10.1.0.0/16", "10.0.0.0/8" }, { "10.2.0.0/16", "10.0.0.0/8" }, { "10.1.0.1" },
		{ "10.0.0.1", "10.2.0.1", "11.0.0.1" } },
	{ "the longest wins, four deep", { "10.0.0.0/8 10.1.2.0/24" }, { "10.1.0.0/16 10.1.2.3" },
		{ "10.0.0.1", "10.1.2.2", "10.1.2.4" }, { "10.1.0.1", "10.1.3.0", "10.1.2.3", "11.1.1.1" } },
	{ "a longer allow in a deny without an allow for the rest", { "10.1.0.0/16" }, { "10.0.0.0/8" }, { "10.1.0.0" },
		{ "10.2.0.0", "8.8.8.8" } },
	{ "everybody of one family", { "0.0.0.0/0" }, { "127.0.0.0/8" }, { "1.1.1.1", "255.255.255.255" },
		{ "127.0.0.1", "::1", "2001:db8::1" } },
	{ "longer than /64", { "2001:db8::/64" }, { "2001:db8::8/125 2001:db8::1" }, { "2001:db8::2", "2001:db8::10" },
		{ "2001:db8::1", "2001:db8::8", "2001:db8::f" } },
	{ "lists are joined", { "10.0.0.0/8", "", "192.0.2.0/24" }, { "10.1.1.1", "192.0.2.9" },
		{ "10.1.1.2", "192.0.2.1" }, { "10.1.1.1", "192.0.2.9", "8.8.8.8" } },
	{ "an empty allow list allows nobody", { "" }, { 0 }, { 0 }, { "10.0.0.1", "::1", "0.0.0.0" } },
	{ "an empty deny list denies nobody", { 0 }, { "" }, { "10.0.0.1", "::1" }, { 0 } },
};

static void test_who_is_let_in(void **state)
{
	struct access_cache cache = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(verdicts); i++) {
		struct access_set *set = get(&cache, verdicts[i].allow, verdicts[i].deny);

		for (int allowed = 0; allowed < 2; allowed++) {
			const char *const *ips = allowed ? verdicts[i].in : verdicts[i].out;

			for (; *ips; ips++) {
				struct ip ip = ip_of(*ips);

				if (access_allows(set, &ip) != (bool)allowed)
					fail_msg("%s: %s should be %s", verdicts[i].what, *ips, allowed ? "in" : "out");
			}
		}
		access_set_unref(set);
	}
	access_cache_deinit(&cache);
}

static void test_without_lists_there_is_no_set(void **state)
{
	struct access_cache cache = { 0 };

	(void)state;
	assert_null(get(&cache, NONE, NONE));
	assert_int_equal(cache.count, 0);
	assert_null(access_set_unref(NULL));
	access_cache_deinit(&cache);
}

static void test_equal_lists_share_a_set_whatever_their_names(void **state)
{
	struct access_cache cache = { 0 };
	struct access_set *one = get(&cache, LISTS("10.0.0.0/8", "192.0.2.1"), LISTS("10.1.0.0/16"));
	struct access_set *two = get(&cache, LISTS("10.0.0.0/8", "192.0.2.1"), LISTS("10.1.0.0/16"));

	(void)state;
	assert_ptr_equal(one, two);
	assert_int_equal(cache.count, 1);
	assert_int_equal(one->refs, 3); /* the cache's too */
	access_set_unref(one);
	access_set_unref(two);
	access_cache_deinit(&cache);
}

static void test_lists_that_differ_in_anything_share_nothing(void **state)
{
	static const struct {
		const char *allow[LISTS_MAX + 1], *deny[LISTS_MAX + 1];
	} differ[] = {
		{ { "10.0.0.0/8" }, { 0 } }, { { 0 }, { "10.0.0.0/8" } }, { { "10.0.0.0/8" }, { "10.0.0.0/8" } },
		{ { "10.0.0.0/9" }, { 0 } }, { { "10.0.0.0/8", "10.0.0.0/8" }, { 0 } },
		{ { "10.0.0.0/8", "11.0.0.0/8" }, { 0 } }, { { "10.0.0.0/8" }, { "11.0.0.0/8" } },
		{ { "11.0.0.0/8" }, { "10.0.0.0/8" } }, { { 0 }, { "10.0.0.0/8", "11.0.0.0/8" } }, { { "" }, { 0 } },
		{ { 0 }, { "" } }, { { "" }, { "" } }, { { "" }, { "10.0.0.0/8" } },
		{ { "::a00:0/104" }, { 0 } }, /* the bits of 10.0.0.0/8, but no IPv4 address */
	};
	struct access_cache cache = { 0 };
	struct access_set *sets[ARRAY_SIZE(differ)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(differ); i++)
		sets[i] = get(&cache, differ[i].allow, differ[i].deny);
	assert_int_equal(cache.count, ARRAY_SIZE(differ));
	for (size_t i = 0; i < ARRAY_SIZE(differ); i++) {
		for (size_t j = 0; j < i; j++)
			assert_ptr_not_equal(sets[i], sets[j]);
		access_set_unref(sets[i]);
	}
	access_cache_deinit(&cache);
}

static void test_a_sweep_lets_go_of_what_nobody_uses_and_keeps_the_rest(void **state)
{
	struct access_cache cache = { 0 };
	struct access_set *sets[40], *again;
	struct ip last = ip_of("10.0.39.1");
	char text[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) { /* more than there is room for at first */
		snprintf(text, sizeof(text), "10.0.%zu.0/24", i);
		sets[i] = get(&cache, LISTS(text), NONE);
	}
	access_cache_sweep(&cache);
	assert_int_equal(cache.count, ARRAY_SIZE(sets));
	for (size_t i = 0; i < ARRAY_SIZE(sets); i += 2)
		access_set_unref(sets[i]);
	assert_int_equal(cache.count, ARRAY_SIZE(sets)); /* a reload that fails has lost nothing */
	access_cache_sweep(&cache);
	assert_int_equal(cache.count, ARRAY_SIZE(sets) / 2);
	assert_true(access_allows(sets[39], &last));
	again = get(&cache, LISTS("10.0.39.0/24"), NONE);
	assert_ptr_equal(again, sets[39]);
	access_set_unref(again);
	again = get(&cache, LISTS("10.0.38.0/24"), NONE);
	assert_int_equal(cache.count, ARRAY_SIZE(sets) / 2 + 1); /* made anew */
	access_cache_deinit(&cache);
	access_cache_sweep(&cache);
	assert_int_equal(cache.count, 0);
	last = ip_of("10.0.38.1");
	assert_true(access_allows(again, &last)); /* sets outlive the cache */
	access_set_unref(again);
	for (size_t i = 1; i < ARRAY_SIZE(sets); i += 2)
		access_set_unref(sets[i]);
}

static void *look_up_and_let_go(void *arg)
{
	struct access_set *set = arg;
	struct ip in = ip_of("10.1.2.3"), out = ip_of("10.2.2.3");

	for (int i = 0; i < 50000; i++)
		if (!access_allows(set, &in) || access_allows(set, &out))
			abort();
	access_set_unref(set);
	return NULL;
}

static void test_threads_look_up_while_the_owner_sweeps_and_may_let_go_last(void **state)
{
	struct access_cache cache = { 0 };
	pthread_t threads[4];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, look_up_and_let_go,
					 get(&cache, LISTS("10.0.0.0/8"), LISTS("10.2.0.0/16"))),
			0);
	for (int i = 0; i < 1000; i++) {
		access_cache_sweep(&cache);
		access_set_unref(get(&cache, LISTS("10.0.0.0/8"), LISTS("10.2.0.0/16")));
	}
	access_cache_deinit(&cache); /* whoever is still looking has a reference */
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_is_let_in),
		cmocka_unit_test(test_without_lists_there_is_no_set),
		cmocka_unit_test(test_equal_lists_share_a_set_whatever_their_names),
		cmocka_unit_test(test_lists_that_differ_in_anything_share_nothing),
		cmocka_unit_test(test_a_sweep_lets_go_of_what_nobody_uses_and_keeps_the_rest),
		cmocka_unit_test(test_threads_look_up_while_the_owner_sweeps_and_may_let_go_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
