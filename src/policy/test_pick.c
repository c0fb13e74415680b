/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "policy/pick.h"

#include <string.h>

static struct ip v4(uint32_t number)
{
	return ip_from_v4((uint8_t[]){
		(uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number });
}

/* 10.0.0.1, 10.0.0.2, … */
static void make_origins(struct ip *origins, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		origins[i] = v4(0x0a000001u + i);
}

static unsigned int round_robin(unsigned int count, uint32_t turn, uint64_t tried)
{
	struct ip origins[PICK_MAX], client = v4(1);
	unsigned int at = PICK_MAX;

	make_origins(origins, count);
	assert_int_equal(pick_origin(origins, count, PICK_ROUND_ROBIN, &client, turn, tried, &at), PICK_OK);
	assert_in_range(at, 0, count - 1);
	return at;
}

static unsigned int by_hash(const struct ip *origins, unsigned int count, const struct ip *client, uint64_t tried)
{
	unsigned int at = PICK_MAX;

	assert_int_equal(pick_origin(origins, count, PICK_SOURCE_HASH, client, 0, tried, &at), PICK_OK);
	assert_in_range(at, 0, count - 1);
	return at;
}

static void test_an_empty_or_exhausted_set_gives_none(void **state)
{
	struct ip origins[PICK_MAX], client = v4(1);

	(void)state;
	make_origins(origins, PICK_MAX);
	for (enum pick_method method = PICK_ROUND_ROBIN; method <= PICK_SOURCE_HASH; method++) {
		unsigned int at = 4711;

		assert_int_equal(pick_origin(origins, 0, method, &client, 5, 0, &at), PICK_E_NONE);
		assert_int_equal(pick_origin(origins, 1, method, &client, 5, 1, &at), PICK_E_NONE);
		assert_int_equal(pick_origin(origins, 3, method, &client, 5, 7, &at), PICK_E_NONE);
		assert_int_equal(pick_origin(origins, PICK_MAX, method, &client, 5, UINT64_MAX, &at), PICK_E_NONE);
		assert_int_equal(at, 4711);
	}
}

static void test_round_robin_gives_each_address_its_exact_share(void **state)
{
	(void)state;
	for (unsigned int count = 1; count <= PICK_MAX; count++) {
		unsigned int picked[PICK_MAX] = { 0 };

		for (uint32_t turn = 1000; turn < 1000 + 7 * count; turn++)
			picked[round_robin(count, turn, 0)]++;
		for (unsigned int i = 0; i < count; i++)
			assert_int_equal(picked[i], 7);
	}
}

/* Until every address was tried, each attempt finds another one, wherever the turn stands. */
static void test_every_address_is_tried_once(void **state)
{
	static const uint32_t turns[] = { 0, 1, 2, 63, 64, UINT32_MAX / 2, UINT32_MAX - 63, UINT32_MAX - 1,
		UINT32_MAX };
	struct ip origins[PICK_MAX], client = v4(1);

	(void)state;
	make_origins(origins, PICK_MAX);
	for (size_t t = 0; t < ARRAY_SIZE(turns); t++) {
		for (unsigned int count = 1; count <= PICK_MAX; count++) {
			uint64_t tried = 0, tried_by_hash = 0;

			for (unsigned int attempt = 0; attempt < count; attempt++) {
				unsigned int at = round_robin(count, turns[t], tried);

				assert_false(tried >> at & 1);
				tried |= UINT64_C(1) << at;
				at = by_hash(origins, count, &client, tried_by_hash);
				assert_false(tried_by_hash >> at & 1);
				tried_by_hash |= UINT64_C(1) << at;
			}
		}
	}
}

static void test_round_robin_goes_on_to_the_next_address_after_a_failure(void **state)
{
	(void)state;
	assert_int_equal(round_robin(4, 6, 0), 2);
	assert_int_equal(round_robin(4, 6, 1 << 2), 3);
	assert_int_equal(round_robin(4, 6, 1 << 2 | 1 << 3), 0);
	assert_int_equal(round_robin(4, 6, 1 << 2 | 1 << 3 | 1 << 0), 1);
}

/* --- source hash --- */

enum { CLIENTS = 10000 };

/* Half of them neighbours in IPv4, half in IPv6: what a hash has to spread is regular. */
static struct ip client_of(unsigned int i)
{
	struct ip ip = { .bytes = { 0x20, 0x01, 0x0d, 0xb8, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i,
				 0, [15] = 1 } };

	return i % 2 ? ip : v4(0xc0000200u + i);
}

/* Chi square of @counts against an even share; @skip gets nothing. */
static double chi_square(const unsigned int *counts, unsigned int count, unsigned int skip)
{
	double total = 0, expected, sum = 0;
	unsigned int shares = count - (skip < count);

	for (unsigned int i = 0; i < count; i++)
		total += counts[i];
	expected = total / shares;
	for (unsigned int i = 0; i < count; i++)
		if (i != skip)
			sum += (counts[i] - expected) * (counts[i] - expected) / expected;
	return sum;
}

/* The value that chi square exceeds by chance once in a thousand times. */
static const struct {
	unsigned int origins;
	double chi, chi_without_one;
} sizes[] = {
	{ 2, 10.83, 0.01 },
	{ 3, 13.82, 10.83 },
	{ 5, 18.47, 16.27 },
	{ 10, 27.88, 26.12 },
	{ 64, 103.44, 102.17 },
};

static void test_clients_are_spread_evenly(void **state)
{
	struct ip origins[PICK_MAX];

	(void)state;
	make_origins(origins, PICK_MAX);
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		unsigned int picked[PICK_MAX] = { 0 };

		for (unsigned int i = 0; i < CLIENTS; i++) {
			struct ip client = client_of(i);

			picked[by_hash(origins, sizes[s].origins, &client, 0)]++;
		}
		assert_true(chi_square(picked, sizes[s].origins, UINT32_MAX) < sizes[s].chi);
	}
}

static void test_a_client_gets_the_same_address_whatever_the_order_of_the_set(void **state)
{
	enum { COUNT = 10 };
	struct test_random random = { 6 };
	struct ip origins[COUNT], shuffled[COUNT];

	(void)state;
	make_origins(origins, COUNT);
	memcpy(shuffled, origins, sizeof(origins));
	for (unsigned int i = 0; i < 2000; i++) {
		struct ip client = client_of(i), swap;
		unsigned int a = test_below(&random, COUNT), b = test_below(&random, COUNT);

		swap = shuffled[a];
		shuffled[a] = shuffled[b];
		shuffled[b] = swap;
		a = by_hash(origins, COUNT, &client, 0);
		b = by_hash(shuffled, COUNT, &client, 0);
		assert_true(ip_equal(&origins[a], &shuffled[b]));
	}
}

/* Nodes and releases must choose alike, so these may never change. */
static void test_the_choice_is_the_same_in_every_release(void **state)
{
	static const unsigned int expected[] = { 0, 2, 0, 2, 1, 2, 0, 4, 2, 4, 2, 2, 2, 1, 2, 1, 4, 1, 1, 0, 2, 0, 2, 3,
		2, 3, 1, 4, 1, 1, 4, 3 };
	struct ip origins[5];

	(void)state;
	make_origins(origins, ARRAY_SIZE(origins));
	for (unsigned int i = 0; i < ARRAY_SIZE(expected); i++) {
		struct ip client = client_of(i);

		assert_int_equal(by_hash(origins, ARRAY_SIZE(origins), &client, 0), expected[i]);
	}
}

static void test_losing_an_address_moves_its_own_clients_only_and_spreads_them(void **state)
{
	struct ip origins[PICK_MAX], left[PICK_MAX];

	(void)state;
	make_origins(origins, PICK_MAX);
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		unsigned int count = sizes[s].origins, lost = count / 2, moved[PICK_MAX] = { 0 };

		memcpy(left, origins, sizeof(left));
		memmove(left + lost, left + lost + 1, (count - lost - 1) * sizeof(*left));
		for (unsigned int i = 0; i < CLIENTS; i++) {
			struct ip client = client_of(i);
			unsigned int before = by_hash(origins, count, &client, 0);
			unsigned int after = by_hash(left, count - 1, &client, 0);

			if (before == lost)
				moved[after]++;
			else
				assert_true(ip_equal(&origins[before], &left[after]));
		}
		assert_true(chi_square(moved, count - 1, UINT32_MAX) < sizes[s].chi_without_one);
	}
}

/* Restoring is losing, backwards; adding an address takes clients for it alone. */
static void test_a_new_address_takes_its_share_and_moves_no_other_client(void **state)
{
	struct ip origins[PICK_MAX];
	unsigned int taken = 0;

	(void)state;
	make_origins(origins, PICK_MAX);
	for (unsigned int i = 0; i < CLIENTS; i++) {
		struct ip client = client_of(i);
		unsigned int before = by_hash(origins, 9, &client, 0), after = by_hash(origins, 10, &client, 0);

		taken += after == 9;
		if (after != 9)
			assert_int_equal(before, after);
	}
	assert_in_range(taken, CLIENTS / 10 - 100, CLIENTS / 10 + 100);
}

static void test_an_address_that_was_tried_is_as_good_as_lost(void **state)
{
	struct ip origins[10], left[10];

	(void)state;
	make_origins(origins, 10);
	memcpy(left, origins, sizeof(left));
	memmove(left + 3, left + 4, 6 * sizeof(*left));
	for (unsigned int i = 0; i < 2000; i++) {
		struct ip client = client_of(i);
		unsigned int a = by_hash(origins, 10, &client, 1 << 3), b = by_hash(left, 9, &client, 0);

		assert_true(ip_equal(&origins[a], &left[b]));
	}
}

static void test_the_turn_does_not_matter_to_a_hash(void **state)
{
	struct ip origins[10];

	(void)state;
	make_origins(origins, 10);
	for (uint32_t turn = 0; turn < 1000; turn++) {
		struct ip client = client_of(1);
		unsigned int at;

		assert_int_equal(pick_origin(origins, 10, PICK_SOURCE_HASH, &client, turn, 0, &at), PICK_OK);
		assert_int_equal(at, by_hash(origins, 10, &client, 0));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_empty_or_exhausted_set_gives_none),
		cmocka_unit_test(test_round_robin_gives_each_address_its_exact_share),
		cmocka_unit_test(test_every_address_is_tried_once),
		cmocka_unit_test(test_round_robin_goes_on_to_the_next_address_after_a_failure),
		cmocka_unit_test(test_clients_are_spread_evenly),
		cmocka_unit_test(test_a_client_gets_the_same_address_whatever_the_order_of_the_set),
		cmocka_unit_test(test_the_choice_is_the_same_in_every_release),
		cmocka_unit_test(test_losing_an_address_moves_its_own_clients_only_and_spreads_them),
		cmocka_unit_test(test_a_new_address_takes_its_share_and_moves_no_other_client),
		cmocka_unit_test(test_an_address_that_was_tried_is_as_good_as_lost),
		cmocka_unit_test(test_the_turn_does_not_matter_to_a_hash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
