/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "base/clock.h"
#include "base/prefix_set.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_VERDICT = -1 };

static struct ip ip_of(const char *text)
{
	struct ip ip;

	assert_int_equal(ip_parse(text, strlen(text), &ip), 0);
	return ip;
}

static struct prefix_item item_of(const char *text, uint8_t verdict)
{
	struct prefix_item item = { .verdict = verdict };

	assert_int_equal(prefix_parse(text, strlen(text), &item.prefix), 0);
	return item;
}

static struct prefix_set *set_of(const struct prefix_item *items, size_t count)
{
	struct prefix_set *set = NULL;

	assert_int_equal(prefix_set_new(items, count, &set), 0);
	return set;
}

static int find_ip(const struct prefix_set *set, const struct ip *ip)
{
	uint8_t verdict = 123;
	int r = prefix_set_find(set, ip, &verdict);

	if (r == PREFIX_SET_OK)
		return verdict;
	assert_int_equal(r, PREFIX_SET_E_NONE);
	assert_int_equal(verdict, 123);
	return NO_VERDICT;
}

static int find(const struct prefix_set *set, const char *text)
{
	struct ip ip = ip_of(text);

	return find_ip(set, &ip);
}

/* What prefix_set_find() has to say, one prefix after the other. */
static int find_slowly(const struct prefix_item *items, size_t count, const struct ip *ip)
{
	int verdict = NO_VERDICT, bits = -1;

	for (size_t i = 0; i < count; i++) {
		const struct prefix_item *item = &items[i];

		if (!prefix_has(&item->prefix, ip) || item->prefix.bits < bits)
			continue;
		verdict = item->prefix.bits == bits ? MAX(verdict, item->verdict) : item->verdict;
		bits = item->prefix.bits;
	}
	return verdict;
}

/* --- by hand --- */

static void test_an_empty_set_has_no_verdict(void **state)
{
	struct prefix_set *set = set_of(NULL, 0);

	(void)state;
	assert_int_equal(find(set, "0.0.0.0"), NO_VERDICT);
	assert_int_equal(find(set, "255.255.255.255"), NO_VERDICT);
	assert_int_equal(find(set, "::"), NO_VERDICT);
	assert_int_equal(find(set, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), NO_VERDICT);
	prefix_set_free(set);
	prefix_set_free(NULL);
}

struct question {
	const char *ip;
	int verdict;
};

static void ask(const struct prefix_set *set, const struct question *questions, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (find(set, questions[i].ip) != questions[i].verdict)
			fail_msg("%s: %d, expected %d", questions[i].ip, find(set, questions[i].ip),
				questions[i].verdict);
}

static void test_the_longest_prefix_decides(void **state)
{
	const struct prefix_item items[] = {
		item_of("10.1.2.3", 4),
		item_of("10.0.0.0/8", 1),
		item_of("10.1.0.0/16", 2),
		item_of("10.1.2.0/24", 1),
		item_of("2001:db8::/32", 10),
		item_of("2001:db8:0:1::/64", 11),
		item_of("2001:db8:0:1:8000::/65", 12),
		item_of("2001:db8:0:1::1", 13),
		item_of("2001:db8:0:1:ffff:ffff:ffff:ffff", 14),
	};
	static const struct question questions[] = {
		{ "9.255.255.255", NO_VERDICT },
		{ "10.0.0.0", 1 },
		{ "10.1.0.0", 2 },
		{ "10.1.1.255", 2 },
		{ "10.1.2.0", 1 },
		{ "10.1.2.2", 1 },
		{ "10.1.2.3", 4 },
		{ "10.1.2.4", 1 },
		{ "10.1.2.255", 1 },
		{ "10.1.3.0", 2 },
		{ "10.1.255.255", 2 },
		{ "10.2.0.0", 1 },
		{ "10.255.255.255", 1 },
		{ "11.0.0.0", NO_VERDICT },
		{ "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", NO_VERDICT },
		{ "2001:db8::", 10 },
		{ "2001:db8:0:0:ffff:ffff:ffff:ffff", 10 },
		{ "2001:db8:0:1::", 11 },
		{ "2001:db8:0:1::1", 13 },
		{ "2001:db8:0:1::2", 11 },
		{ "2001:db8:0:1:7fff:ffff:ffff:ffff", 11 },
		{ "2001:db8:0:1:8000::", 12 },
		{ "2001:db8:0:1:ffff:ffff:ffff:fffe", 12 },
		{ "2001:db8:0:1:ffff:ffff:ffff:ffff", 14 },
		{ "2001:db8:0:2::", 10 },
		{ "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 10 },
		{ "2001:db9::", NO_VERDICT },
	};
	struct prefix_set *set = set_of(items, ARRAY_SIZE(items));

	(void)state;
	ask(set, questions, ARRAY_SIZE(questions));
	prefix_set_free(set);
}

static void test_the_ends_of_the_address_space_belong_to_it(void **state)
{
	const struct prefix_item items[] = {
		item_of("0.0.0.0", 1),
		item_of("255.255.255.255", 2),
		item_of("::", 3),
		item_of("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 4),
		item_of("8000::/1", 5),
		item_of("128.0.0.0/1", 6),
	};
	static const struct question questions[] = {
		{ "0.0.0.0", 1 },
		{ "0.0.0.1", NO_VERDICT },
		{ "127.255.255.255", NO_VERDICT },
		{ "128.0.0.0", 6 },
		{ "255.255.255.254", 6 },
		{ "255.255.255.255", 2 },
		{ "::", 3 },
		{ "::1", NO_VERDICT },
		{ "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NO_VERDICT },
		{ "8000::", 5 },
		{ "ffff:ffff:ffff:fffe:ffff:ffff:ffff:ffff", 5 },
		{ "ffff:ffff:ffff:ffff::", 5 },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 5 },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 4 },
	};
	struct prefix_set *set = set_of(items, ARRAY_SIZE(items));

	(void)state;
	ask(set, questions, ARRAY_SIZE(questions));
	prefix_set_free(set);
}

static void test_a_prefix_of_length_0_is_its_whole_family_and_nothing_of_the_other(void **state)
{
	const struct prefix_item v4 = item_of("0.0.0.0/0", 1), v6 = item_of("::/0", 2), both[] = { v6, v4 };
	struct prefix_set *set = set_of(&v4, 1);

	(void)state;
	assert_int_equal(find(set, "0.0.0.0"), 1);
	assert_int_equal(find(set, "192.0.2.1"), 1);
	assert_int_equal(find(set, "255.255.255.255"), 1);
	assert_int_equal(find(set, "::1"), NO_VERDICT);
	prefix_set_free(set);
	set = set_of(&v6, 1);
	assert_int_equal(find(set, "::"), 2);
	assert_int_equal(find(set, "2001:db8::1"), 2);
	assert_int_equal(find(set, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 2);
	assert_int_equal(find(set, "192.0.2.1"), NO_VERDICT);
	assert_int_equal(find(set, "::ffff:192.0.2.1"), NO_VERDICT);
	prefix_set_free(set);
	set = set_of(both, 2);
	assert_int_equal(find(set, "192.0.2.1"), 1);
	assert_int_equal(find(set, "::fffe:192.0.2.1"), 2);
	prefix_set_free(set);
}

static void test_of_equal_prefixes_the_higher_verdict_holds_in_any_order(void **state)
{
	static const uint8_t orders[][3] = { { 1, 2, 3 }, { 1, 3, 2 }, { 2, 1, 3 }, { 2, 3, 1 }, { 3, 1, 2 },
		{ 3, 2, 1 } };
	static const char *const texts[] = { "10.0.0.0/8", "0.0.0.0/0", "10.0.0.1", "2001:db8::/32", "2001:db8::1" };

	(void)state;
	for (size_t t = 0; t < ARRAY_SIZE(texts); t++) {
		for (size_t o = 0; o < ARRAY_SIZE(orders); o++) {
			struct prefix_item items[3];
			struct prefix_set *set;

			for (size_t i = 0; i < 3; i++)
				items[i] = item_of(texts[t], orders[o][i]);
			set = set_of(items, 3);
			assert_int_equal(find_ip(set, &items[0].prefix.ip), 3);
			prefix_set_free(set);
		}
	}
}

static void test_what_is_no_prefix_or_verdict_is_refused(void **state)
{
	struct prefix_item good = item_of("10.0.0.0/8", PREFIX_VERDICT_MAX), bad[4] = { good, good, good, good };
	struct prefix_set *set = NULL;

	(void)state;
	bad[0].verdict = PREFIX_VERDICT_MAX + 1;
	bad[1].prefix.bits = 129;
	bad[2].prefix.bits = 95;	/* an IPv4 address has 96 bits in front */
	bad[3].prefix.ip.bytes[15] = 1; /* 10.0.0.1/8 */
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct prefix_item items[] = { good, bad[i] };

		assert_int_equal(prefix_set_new(items, 2, &set), -EINVAL);
		assert_null(set);
	}
	assert_int_equal(prefix_set_new(&good, (size_t)1 << 31, &set), -E2BIG);
	assert_null(set);
	set = set_of(&good, 1);
	assert_int_equal(find(set, "10.2.3.4"), PREFIX_VERDICT_MAX);
	prefix_set_free(set);
}

static void test_neighbours_of_one_verdict_take_no_more_room_than_one(void **state)
{
	struct prefix_item items[256], whole = item_of("10.0.0.0/16", 1);
	struct prefix_set *set, *one = set_of(&whole, 1);

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(items); i++) {
		items[i] = item_of("10.0.0.0/24", 1);
		items[i].prefix.ip.bytes[14] = (uint8_t)i;
	}
	set = set_of(items, ARRAY_SIZE(items));
	assert_int_equal(prefix_set_bytes(set), prefix_set_bytes(one));
	assert_int_equal(find(set, "10.0.255.255"), 1);
	assert_int_equal(find(set, "10.1.0.0"), NO_VERDICT);
	prefix_set_free(set);
	prefix_set_free(one);
}

/* --- against one prefix after the other --- */

/* Prefixes of @base lengths and longer ones within those, so that most are nested; half of the bytes are 0 or 255. */
static struct prefix_item random_item(struct test_random *random, bool v4, const struct prefix_item *items, size_t made)
{
	struct prefix_item item = { .verdict = (uint8_t)test_below(random, 4) };
	unsigned int from = v4 ? 96 : 0, bits = from + test_below(random, 129 - from);

	for (size_t i = 0; i < 16; i++) {
		static const uint8_t extremes[] = { 0, 255 };

		item.prefix.ip.bytes[i] =
			test_below(random, 2) ? extremes[test_below(random, 2)] : (uint8_t)test_random(random);
	}
	if (made && test_below(random, 4)) {
		const struct prefix *around = &items[test_below(random, (uint32_t)made)].prefix;

		if (ip_is_v4(&around->ip) == v4) {
			for (size_t i = 0; i < around->bits / 8u; i++)
				item.prefix.ip.bytes[i] = around->ip.bytes[i];
			bits = around->bits + test_below(random, 20);
			bits = MIN(128u, bits);
		}
	}
	if (v4)
		item.prefix.ip = ip_from_v4(item.prefix.ip.bytes + 12);
	item.prefix.ip = ip_mask(&item.prefix.ip, bits);
	item.prefix.bits = (uint8_t)bits;
	if (!v4 && ip_is_v4(&item.prefix.ip))
		item.prefix.ip.bytes[0] = 1;
	return item;
}

/* The address one before or after. */
static struct ip ip_step(struct ip ip, int step)
{
	for (size_t i = 16; i-- > 0;) {
		ip.bytes[i] = (uint8_t)(ip.bytes[i] + step);
		if (ip.bytes[i] != (step > 0 ? 0 : 255))
			break;
	}
	return ip;
}

static struct ip prefix_last(const struct prefix *p)
{
	struct ip last = p->ip;

	for (unsigned int bit = p->bits; bit < 128; bit++)
		last.bytes[bit / 8] |= (uint8_t)(0x80u >> bit % 8);
	return last;
}

static void compare(const struct prefix_set *set, const struct prefix_item *items, size_t count, struct ip ip)
{
	int found = find_ip(set, &ip), expected = find_slowly(items, count, &ip);
	char text[ADDR_TEXT_SIZE];

	if (found == expected)
		return;
	ip_format(&ip, text);
	fail_msg("%s in a set of %zu: %d, expected %d", text, count, found, expected);
}

/* At every place where a verdict may change, one before, one after, and at random ones. */
static void test_random_nested_prefixes_agree_with_a_linear_search(void **state)
{
	enum { SETS = 400, ITEMS_MAX = 300 };
	static struct prefix_item items[ITEMS_MAX];
	struct test_random random = { 1 };

	(void)state;
	for (unsigned int s = 0; s < SETS; s++) {
		size_t count = s < 40 ? s : test_below(&random, s % 4 ? 60 : ITEMS_MAX);
		uint32_t v4_share = test_below(&random, 5);
		struct prefix_set *set;

		for (size_t i = 0; i < count; i++)
			items[i] = random_item(&random, test_below(&random, 4) < v4_share, items, i);
		set = set_of(items, count);
		for (size_t i = 0; i < count; i++) {
			struct ip first = items[i].prefix.ip, last = prefix_last(&items[i].prefix);

			compare(set, items, count, first);
			compare(set, items, count, last);
			compare(set, items, count, ip_step(first, -1));
			compare(set, items, count, ip_step(last, 1));
			compare(set, items, count,
				random_item(&random, test_below(&random, 2), items, count).prefix.ip);
		}
		prefix_set_free(set);
	}
}

/* Sizes around those at which a node or a layer is full. */
static void test_every_size_of_tree_finds_its_first_and_last(void **state)
{
	enum { COUNT_MAX = 800 };
	static struct prefix_item items[COUNT_MAX];

	(void)state;
	for (unsigned int i = 0; i < COUNT_MAX; i++) {
		items[i] = item_of("0.0.0.0", 1);
		items[i].prefix.ip.bytes[14] = (uint8_t)(i >> 7);
		items[i].prefix.ip.bytes[15] = (uint8_t)(i << 1 | 1); /* every other address */
	}
	for (size_t count = 0; count <= COUNT_MAX; count++) {
		struct prefix_set *set = set_of(items, count);

		for (size_t i = 0; i < count; i += count < 100 ? 1 : 37) {
			assert_int_equal(find_ip(set, &items[i].prefix.ip), 1);
			struct ip after = ip_step(items[i].prefix.ip, 1);
			assert_int_equal(find_ip(set, &after), NO_VERDICT);
		}
		if (count < COUNT_MAX)
			assert_int_equal(find_ip(set, &items[count].prefix.ip), NO_VERDICT);
		if (count)
			assert_int_equal(find_ip(set, &items[count - 1].prefix.ip), 1);
		prefix_set_free(set);
	}
}

/* --- a million --- */

enum { MILLION = 1000000, LOOKUPS = 200000 };

struct kind {
	const char *within;
	unsigned int from, to; /* bits, as in struct prefix */
};

static struct prefix_item big_item(struct test_random *random, const struct kind *kind, const struct prefix *within)
{
	struct prefix_item item = { .verdict = (uint8_t)test_below(random, 2) };
	uint64_t halves[2] = { test_random(random), test_random(random) };
	struct ip *ip = &item.prefix.ip, front;

	memcpy(ip, halves, sizeof(*ip));
	item.prefix.bits = (uint8_t)(kind->from + test_below(random, kind->to - kind->from + 1));
	*ip = ip_mask(ip, item.prefix.bits);
	front = ip_mask(ip, within->bits);
	for (size_t i = 0; i < 16; i++)
		ip->bytes[i] = (uint8_t)(ip->bytes[i] ^ front.bytes[i] ^ within->ip.bytes[i]);
	return item;
}

static void try_a_million(const struct kind *a, const struct kind *b)
{
	struct prefix_item *items = malloc(MILLION * sizeof(*items));
	struct ip *asked = malloc(LOOKUPS * sizeof(*asked));
	struct prefix within_a = item_of(a->within, 0).prefix, within_b = item_of(b->within, 0).prefix;
	struct test_random random = { a->from };
	struct prefix_set *set;
	nsec_t start, built, looked;
	unsigned int found = 0;

	assert_non_null(items);
	assert_non_null(asked);
	for (size_t i = 0; i < MILLION; i++)
		items[i] = i % 2 ? big_item(&random, a, &within_a) : big_item(&random, b, &within_b);
	for (size_t i = 0; i < LOOKUPS; i++) {
		asked[i] = items[test_below(&random, MILLION)].prefix.ip;
		if (i % 2)
			asked[i].bytes[15] = (uint8_t)test_random(&random);
	}
	start = clock_now();
	set = set_of(items, MILLION);
	built = clock_now();
	for (size_t i = 0; i < LOOKUPS; i++) {
		uint8_t verdict;

		found += prefix_set_find(set, &asked[i], &verdict) == PREFIX_SET_OK;
	}
	looked = clock_now();
	print_message("%-13s /%-3u to /%-3u  %3.0f ms to build, %3.0f ns a lookup, %4.1f bytes a prefix\n", a->within,
		a->from, a->to, (double)(built - start) / 1e6, (double)(looked - built) / LOOKUPS,
		(double)prefix_set_bytes(set) / MILLION);
	assert_true(found >= LOOKUPS / 2);
	assert_true(prefix_set_bytes(set) <= 40 * (size_t)MILLION);
	for (size_t i = 0; i < 3; i++)
		compare(set, items, MILLION, asked[i]);
	prefix_set_free(set);
	free(items);
	free(asked);
}

/* The time is said and not judged: it is the machine's. */
static void test_a_million_prefixes_stay_small_and_agree_with_a_linear_search(void **state)
{
	static const struct kind kinds[] = {
		{ "0.0.0.0/0", 128, 128 },
		{ "2000::/4", 48, 128 },
		{ "2001:db8::/64", 128, 128 },
	};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
		try_a_million(&kinds[k], &kinds[k]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_empty_set_has_no_verdict),
		cmocka_unit_test(test_the_longest_prefix_decides),
		cmocka_unit_test(test_the_ends_of_the_address_space_belong_to_it),
		cmocka_unit_test(test_a_prefix_of_length_0_is_its_whole_family_and_nothing_of_the_other),
		cmocka_unit_test(test_of_equal_prefixes_the_higher_verdict_holds_in_any_order),
		cmocka_unit_test(test_what_is_no_prefix_or_verdict_is_refused),
		cmocka_unit_test(test_neighbours_of_one_verdict_take_no_more_room_than_one),
		cmocka_unit_test(test_random_nested_prefixes_agree_with_a_linear_search),
		cmocka_unit_test(test_every_size_of_tree_finds_its_first_and_last),
		cmocka_unit_test(test_a_million_prefixes_stay_small_and_agree_with_a_linear_search),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
