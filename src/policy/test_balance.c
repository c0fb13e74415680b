/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "base/clock.h"
#include "policy/balance.h"

#include <stdio.h>
#include <string.h>

enum { MEMBERS_MAX = 100, CLIENTS = 100000 };

/* Chi square of @counts against shares by weight. */
static double chi_square(const unsigned int *counts, const uint32_t *weights, unsigned int count)
{
	double total = 0, total_weight = 0, sum = 0;

	for (unsigned int i = 0; i < count; i++) {
		total += counts[i];
		total_weight += weights[i];
	}
	for (unsigned int i = 0; i < count; i++) {
		double expected = total * weights[i] / total_weight;

		if (weights[i])
			sum += (counts[i] - expected) * (counts[i] - expected) / expected;
		else
			assert_int_equal(counts[i], 0);
	}
	return sum;
}

/* The value that chi square exceeds by chance once in a thousand times (p = 0.001), by members. */
static const struct {
	unsigned int members;
	double chi;
} sizes[] = {
	{ 3, 13.82 },
	{ 5, 18.47 },
	{ 10, 27.88 },
	{ 50, 85.35 },
	{ 100, 148.23 },
};

static unsigned int round_robin(int64_t *current, const uint32_t *weights, unsigned int count)
{
	unsigned int at = 4711;

	assert_int_equal(balance_round_robin(current, weights, count, &at), BALANCE_OK);
	assert_in_range(at, 0, count - 1);
	assert_true(weights[at] > 0);
	return at;
}

static unsigned int least(const uint32_t *flows, const uint32_t *weights, unsigned int count, uint32_t turn)
{
	unsigned int at = 4711;

	assert_int_equal(balance_least(flows, weights, count, turn, &at), BALANCE_OK);
	assert_in_range(at, 0, count - 1);
	assert_true(weights[at] > 0);
	return at;
}

static void test_without_a_usable_member_there_is_none(void **state)
{
	static const uint32_t weights[4] = { 0 }, flows[4] = { 0 };
	static const uint64_t ids[4] = { 1, 2, 3, 4 };
	static uint16_t table[1021];
	int64_t current[4] = { 0 };
	unsigned int at = 4711;

	(void)state;
	for (unsigned int count = 0; count <= 4; count += 2) {
		assert_int_equal(balance_round_robin(current, weights, count, &at), BALANCE_E_NONE);
		assert_int_equal(balance_least(flows, weights, count, 5, &at), BALANCE_E_NONE);
		maglev_build(table, ARRAY_SIZE(table), ids, weights, count);
		assert_int_equal(maglev_find(table, ARRAY_SIZE(table), 7, 0), MAGLEV_NONE);
		assert_int_equal(maglev_pick(table, ARRAY_SIZE(table), 7, weights, &at), BALANCE_E_NONE);
	}
	maglev_build(table, ARRAY_SIZE(table), ids, (const uint32_t[]){ 1, 1, 1, 1 }, 4);
	assert_int_equal(maglev_pick(table, ARRAY_SIZE(table), 7, weights, &at), BALANCE_E_NONE); /* all went later */
	assert_int_equal(at, 4711);
}

/* --- smooth weighted round robin --- */

static void test_round_robin_mixes_as_nginx_does(void **state)
{
	static const struct {
		uint32_t weights[3];
		const char *order;
	} cases[] = {
		{ { 1, 1, 1 }, "abcabc" },
		{ { 5, 1, 1 }, "aabacaaaabacaa" },
		{ { 1, 2, 7 }, "cbccaccbcc" },
		{ { 0, 1, 2 }, "cbccbc" },
		{ { 0, 3, 0 }, "bbbb" },
	};

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		int64_t current[3] = { 0 };
		char order[16] = { 0 };

		for (size_t i = 0; i < strlen(cases[c].order); i++)
			order[i] = (char)('a' + round_robin(current, cases[c].weights, 3));
		assert_string_equal(order, cases[c].order);
	}
}

static uint32_t sum_of(const uint32_t *weights, unsigned int count)
{
	uint32_t sum = 0;

	for (unsigned int i = 0; i < count; i++)
		sum += weights[i];
	return sum;
}

static void test_round_robin_gives_exact_shares_and_nobody_runs_ahead(void **state)
{
	struct test_random random = { 1 };

	(void)state;
	for (unsigned int pool = 0; pool < 200; pool++) {
		uint32_t weights[20], picked[20] = { 0 }, total, count = 1 + test_below(&random, 20);
		uint32_t runs[20] = { 0 }, run = 0;
		int64_t current[20] = { 0 };
		unsigned int last = 20;

		for (unsigned int i = 0; i < count; i++)
			weights[i] = test_below(&random, pool % 2 ? 4 : 100);
		weights[0] += 1;
		total = sum_of(weights, count);
		for (uint32_t turn = 1; turn <= 3 * total; turn++) {
			unsigned int at = round_robin(current, weights, count);

			picked[at]++;
			run = at == last ? run + 1 : 1;
			runs[at] = MAX(runs[at], run);
			last = at;
			for (unsigned int i = 0; i < count; i++) /* less than one turn more than its share */
				assert_true((int64_t)picked[i] * total < (int64_t)turn * weights[i] + total);
			for (unsigned int i = 0; turn % total == 0 && i < count; i++)
				assert_int_equal(picked[i], turn / total * weights[i]);
		}
		for (unsigned int i = 0; i < count; i++) {
			uint32_t others = total - weights[i];

			if (others) /* runs of an even length would be as many as there are turns of others */
				assert_in_range(runs[i], 0, 2 * ((weights[i] + others - 1) / others));
		}
	}
}

static void test_round_robin_spreads_a_lost_members_turns_by_weight(void **state)
{
	uint32_t weights[4] = { 3, 1, 2, 2 };
	unsigned int picked[4] = { 0 };
	int64_t current[4] = { 0 };

	(void)state;
	for (unsigned int i = 0; i < 1003; i++) /* leave anywhere */
		round_robin(current, weights, 4);
	weights[2] = 0;
	for (unsigned int i = 0; i < 6000; i++)
		picked[round_robin(current, weights, 4)]++;
	assert_in_range(picked[0], 2998, 3002);
	assert_in_range(picked[1], 998, 1002);
	assert_in_range(picked[3], 1998, 2002);
	weights[2] = 2;
	memset(picked, 0, sizeof(picked));
	for (unsigned int i = 0; i < 8000; i++)
		picked[round_robin(current, weights, 4)]++;
	assert_in_range(picked[2], 1998, 2002); /* and nothing is made up for */
}

/* As in a slow start after all were down: 1/256 of the weights before. */
static void test_round_robin_does_not_carry_turns_over_to_much_smaller_weights(void **state)
{
	uint32_t large[3] = { 256 * 3, 256 * 2, 256 * 5 }, small[3] = { 3, 2, 5 };

	(void)state;
	for (unsigned int turns = 0; turns < 10; turns++) {
		unsigned int picked[3] = { 0 };
		int64_t current[3] = { 0 };

		for (unsigned int i = 0; i < turns; i++)
			round_robin(current, large, 3);
		for (unsigned int i = 0; i < 100; i++)
			picked[round_robin(current, small, 3)]++;
		assert_in_range(picked[0], 26, 34);
		assert_in_range(picked[1], 16, 24);
		assert_in_range(picked[2], 46, 54);
	}
}

static void test_round_robin_takes_the_largest_weights(void **state)
{
	uint32_t weights[MEMBERS_MAX];
	int64_t current[MEMBERS_MAX] = { 0 };

	(void)state;
	for (unsigned int i = 0; i < MEMBERS_MAX; i++)
		weights[i] = UINT32_MAX;
	for (unsigned int i = 0; i < 10 * MEMBERS_MAX; i++)
		assert_int_equal(round_robin(current, weights, MEMBERS_MAX), i % MEMBERS_MAX);
}

/* --- least connections --- */

static void test_least_takes_the_smallest_load_by_weight(void **state)
{
	static const struct {
		uint32_t flows[3], weights[3];
		unsigned int expected;
	} cases[] = {
		{ { 5, 4, 6 }, { 1, 1, 1 }, 1 }, { { 5, 4, 6 }, { 1, 0, 1 }, 0 },
		{ { 5, 4, 6 }, { 1, 1, 2 }, 2 },		    /* 6, 5, 3.5 */
		{ { 0, 0, 0 }, { 1, 2, 7 }, 2 },		    /* the first flow to the strongest */
		{ { 1, 3, 12 }, { 1, 2, 7 }, 2 },		    /* 2, 2, 1.86 */
		{ { 1, 2, 13 }, { 1, 2, 7 }, 1 },		    /* 2, 1.5, 2 */
		{ { 99999999, 100000000, 7 }, { 333, 333, 0 }, 0 }, /* equal in float */
		{ { UINT32_MAX, UINT32_MAX - 1, UINT32_MAX }, { UINT32_MAX, UINT32_MAX, UINT32_MAX - 1 }, 1 },
		{ { UINT32_MAX, 0, UINT32_MAX }, { UINT32_MAX, 1, UINT32_MAX - 1 }, 1 }, /* equal in float */
	};

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++)
		for (uint32_t turn = 0; turn < 3; turn++)
			assert_int_equal(least(cases[c].flows, cases[c].weights, 3, turn), cases[c].expected);
}

static void test_least_lets_equal_members_take_turns_wherever_they_stand(void **state)
{
	static const uint32_t flows[8] = { 3, 1, 3, 9, 9, 9, 1, 3 }, weights[8] = { 2, 1, 2, 1, 1, 1, 0, 2 };
	unsigned int picked[8] = { 0 };

	(void)state;
	/* loads are 2, 2, 2, 10, 10, 10, -, 2 */
	for (uint32_t turn = 0; turn < 400; turn++)
		picked[least(flows, weights, 8, turn)]++;
	assert_int_equal(picked[0], 100);
	assert_int_equal(picked[1], 100);
	assert_int_equal(picked[2], 100);
	assert_int_equal(picked[7], 100);
}

static void test_least_keeps_loads_within_one_flow_of_each_other(void **state)
{
	struct test_random random = { 3 };
	uint32_t weights[10], flows[10] = { 0 };

	(void)state;
	for (unsigned int i = 0; i < 10; i++)
		weights[i] = 1 + test_below(&random, 9);
	for (uint32_t turn = 0; turn < 20000; turn++) {
		flows[least(flows, weights, 10, turn)]++;
		for (unsigned int i = 0; i < 10; i++) /* no flow was better placed elsewhere when it came */
			for (unsigned int j = 0; j < 10; j++)
				assert_true((uint64_t)flows[i] * weights[j] <= (flows[j] + 1ull) * weights[i]);
	}
}

static void test_shares_under_random_lives_of_flows_are_by_weight(void **state)
{
	struct test_random random = { 4 };

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		unsigned int count = sizes[s].members, by_turn[MEMBERS_MAX] = { 0 }, by_load[MEMBERS_MAX] = { 0 };
		uint32_t weights[MEMBERS_MAX], flows[MEMBERS_MAX] = { 0 };
		int64_t current[MEMBERS_MAX] = { 0 };
		static uint16_t running[5000];

		for (unsigned int i = 0; i < count; i++)
			weights[i] = 1 + test_below(&random, 5);
		for (uint32_t turn = 0; turn < CLIENTS; turn++) {
			uint32_t place = test_below(&random, ARRAY_SIZE(running));
			unsigned int at;

			if (turn >= ARRAY_SIZE(running))
				flows[running[place]]--; /* ends at random */
			else
				place = turn;
			by_turn[round_robin(current, weights, count)]++;
			at = least(flows, weights, count, turn);
			by_load[at]++;
			flows[at]++;
			running[place] = (uint16_t)at;
		}
		assert_true(chi_square(by_turn, weights, count) < sizes[s].chi);
		assert_true(chi_square(by_load, weights, count) < sizes[s].chi);
	}
}

/* --- Maglev --- */

static uint16_t whole[MAGLEV_SIZE_MAX], other[MAGLEV_SIZE_MAX];

static const uint32_t ones[MAGLEV_MEMBERS_MAX] = { [0 ... MAGLEV_MEMBERS_MAX - 1] = 1 };

static void make_ids(uint64_t *ids, unsigned int count, uint64_t seed)
{
	struct test_random random = { seed };

	for (unsigned int i = 0; i < count; i++)
		ids[i] = test_random(&random);
}

static unsigned int pick(const uint16_t *table, uint32_t size, uint64_t key, const uint32_t *weights)
{
	unsigned int at = 4711;

	assert_int_equal(maglev_pick(table, size, key, weights, &at), BALANCE_OK);
	assert_true(weights[at] > 0);
	return at;
}

static void test_sizes_are_primes_that_suit_the_members(void **state)
{
	(void)state;
	for (unsigned int count = 0; count <= MAGLEV_MEMBERS_MAX; count++) {
		uint32_t size = maglev_size(count);

		for (uint32_t d = 2; d * d <= size; d++)
			assert_int_not_equal(size % d, 0);
		assert_true(size >= count * 1000 || size == MAGLEV_SIZE_MAX);
		assert_true(size >= count * 64);
	}
	assert_int_equal(maglev_size(1), 1021);
	assert_int_equal(maglev_size(4), 4093);
	assert_int_equal(maglev_size(5), 8191);
	assert_int_equal(maglev_size(33), MAGLEV_SIZE_MAX);
}

static void test_maglev_shares_are_within_one_entry_when_equal(void **state)
{
	uint64_t ids[MEMBERS_MAX];

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		unsigned int count = sizes[s].members, entries[MEMBERS_MAX] = { 0 };
		uint32_t size = maglev_size(count);

		make_ids(ids, count, s);
		maglev_build(whole, size, ids, ones, count);
		for (uint32_t i = 0; i < size; i++)
			entries[whole[i]]++;
		for (unsigned int i = 0; i < count; i++)
			assert_in_range(entries[i], size / count, size / count + 1);
	}
}

static void test_maglev_shares_follow_weights(void **state)
{
	static const struct {
		uint32_t weights[5];
		unsigned int count;
	} cases[] = {
		{ { 1, 2, 7 }, 3 },
		{ { 100, 200, 700 }, 3 },
		{ { 1000000000, 2000000000, 4000000000 }, 3 },
		{ { 1, 0, 3, 0, 1 }, 5 },
		{ { 256, 1, 256, 128, 256 }, 5 },
		{ { 0, 0, 9, 0, 0 }, 5 },
	};
	uint64_t ids[5];

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		uint32_t size = maglev_size(cases[c].count);
		unsigned int entries[5] = { 0 };
		double total = 0;

		make_ids(ids, 5, c);
		maglev_build(whole, size, ids, cases[c].weights, cases[c].count);
		for (uint32_t i = 0; i < size; i++)
			entries[whole[i]]++;
		for (unsigned int i = 0; i < cases[c].count; i++)
			total += cases[c].weights[i];
		for (unsigned int i = 0; i < cases[c].count; i++) {
			double expected = size * (cases[c].weights[i] / total);

			assert_true(entries[i] >= expected * 0.99 - 2 && entries[i] <= expected * 1.01 + 2);
			if (cases[c].weights[i] == 0)
				assert_int_equal(entries[i], 0);
		}
	}
}

static void test_clients_are_spread_by_weight(void **state)
{
	struct test_random random = { 6 };
	uint64_t ids[MEMBERS_MAX];

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		unsigned int count = sizes[s].members, picked[MEMBERS_MAX] = { 0 }, later[MEMBERS_MAX] = { 0 };
		uint32_t size = maglev_size(count), weights[MEMBERS_MAX];

		make_ids(ids, count, s);
		for (unsigned int i = 0; i < count; i++)
			weights[i] = 1 + test_below(&random, 5);
		maglev_build(whole, size, ids, weights, count);
		for (uint64_t client = 0; client < CLIENTS; client++) { /* neighbours: the hash has to spread them */
			picked[pick(whole, size, client, weights)]++;
			later[maglev_find(whole, size, client, 3)]++;
		}
		assert_true(chi_square(picked, weights, count) < sizes[s].chi);
		assert_true(chi_square(later, weights, count) < sizes[s].chi);
	}
}

static void test_the_order_of_members_does_not_matter(void **state)
{
	uint64_t ids[MEMBERS_MAX], shuffled[MEMBERS_MAX];
	uint32_t weights[MEMBERS_MAX], shuffled_weights[MEMBERS_MAX], size = maglev_size(MEMBERS_MAX);
	struct test_random random = { 7 };

	(void)state;
	make_ids(ids, MEMBERS_MAX, 1);
	for (unsigned int i = 0; i < MEMBERS_MAX; i++)
		weights[i] = test_below(&random, 4);
	memcpy(shuffled, ids, sizeof(ids));
	memcpy(shuffled_weights, weights, sizeof(weights));
	for (unsigned int i = 0; i < 1000; i++) {
		unsigned int a = test_below(&random, MEMBERS_MAX), b = test_below(&random, MEMBERS_MAX);
		uint64_t id = shuffled[a];
		uint32_t weight = shuffled_weights[a];

		shuffled[a] = shuffled[b];
		shuffled[b] = id;
		shuffled_weights[a] = shuffled_weights[b];
		shuffled_weights[b] = weight;
	}
	maglev_build(whole, size, ids, weights, MEMBERS_MAX);
	maglev_build(other, size, shuffled, shuffled_weights, MEMBERS_MAX);
	for (uint32_t i = 0; i < size; i++)
		assert_int_equal(ids[whole[i]], shuffled[other[i]]);
}

/* Nodes and releases must choose alike, so these may never change. */
static void test_the_choice_is_the_same_in_every_release(void **state)
{
	static const unsigned int expected[] = { 4, 2, 4, 2, 1, 2, 0, 1, 1, 1, 4, 3, 1, 1, 4, 2, 4, 3, 3, 0, 4, 2, 0, 4,
		1, 2, 1, 0, 1, 3, 2, 2, 1, 2, 2, 2, 3, 1, 2, 1 };
	static const uint64_t ids[] = { 11, 22, 33, 44, 55 };
	static const uint32_t weights[] = { 1, 2, 3, 1, 1 };

	(void)state;
	maglev_build(whole, maglev_size(5), ids, weights, 5);
	for (unsigned int i = 0; i < ARRAY_SIZE(expected); i++)
		assert_int_equal(pick(whole, maglev_size(5), i, weights), expected[i]);
}

/* How many entries of others than @lost changed, in parts of the table. */
static double moved_of_others(uint32_t size, unsigned int lost)
{
	uint32_t moved = 0;

	for (uint32_t i = 0; i < size; i++) {
		assert_int_not_equal(other[i], lost);
		moved += whole[i] != lost && whole[i] != other[i];
	}
	return (double)moved / size;
}

static void test_a_table_without_a_member_moves_hardly_any_client_of_others(void **state)
{
	enum { POOLS = 12 };
	uint64_t ids[MEMBERS_MAX];
	uint32_t weights[MEMBERS_MAX];

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		unsigned int count = sizes[s].members;
		uint32_t size = maglev_size(count);
		double sum = 0, worst = 0;

		for (unsigned int pool = 0; pool < POOLS; pool++) {
			unsigned int lost = pool * 7 % count;
			double moved;

			make_ids(ids, count, pool);
			memcpy(weights, ones, sizeof(weights));
			maglev_build(whole, size, ids, weights, count);
			weights[lost] = 0;
			maglev_build(other, size, ids, weights, count);
			moved = moved_of_others(size, lost);
			sum += moved;
			worst = MAX(worst, moved);
			weights[lost] = 1; /* and when it is back, so is every client */
			maglev_build(other, size, ids, weights, count);
			assert_memory_equal(whole, other, size * sizeof(*whole));
		}
		print_message("%u members, one lost: moved %.2f %% of others' clients, at most %.2f %%\n", count,
			sum / POOLS * 100, worst * 100);
		assert_true(sum / POOLS < 0.01);
		assert_true(worst < 0.015);
	}
}

static void test_skipping_a_member_moves_its_own_clients_only_and_spreads_them(void **state)
{
	uint64_t ids[MEMBERS_MAX];
	uint32_t weights[MEMBERS_MAX];

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		unsigned int count = sizes[s].members, lost = count / 2, moved[MEMBERS_MAX] = { 0 }, sum = 0;
		uint32_t size = maglev_size(count);

		make_ids(ids, count, 1);
		memcpy(weights, ones, sizeof(weights));
		maglev_build(whole, size, ids, weights, count);
		weights[lost] = 0;
		for (uint64_t client = 0; client < CLIENTS; client++) {
			unsigned int before = pick(whole, size, client, ones),
				     after = pick(whole, size, client, weights);

			if (before == lost) {
				moved[after]++;
				sum++;
			} else {
				assert_int_equal(before, after);
			}
		}
		assert_true(sum > CLIENTS / count * 9 / 10 && sum < CLIENTS / count * 11 / 10);
		assert_true(chi_square(moved, weights, count) < sizes[s].chi);
	}
}

/* Whatever is skipped meanwhile, a client is never moved from a member to another that was usable before. */
static void test_each_client_has_one_order_of_all_members(void **state)
{
	enum { COUNT = 100 };
	uint64_t ids[COUNT];
	uint32_t size = maglev_size(COUNT);

	(void)state;
	make_ids(ids, COUNT, 2);
	maglev_build(whole, size, ids, ones, COUNT);
	for (uint64_t client = 0; client < 200; client++) {
		uint32_t weights[COUNT], rank[COUNT];
		struct test_random random = { client };

		memcpy(weights, ones, sizeof(weights));
		for (unsigned int i = 0; i < COUNT; i++) { /* lose the best one, again and again, until none is left */
			unsigned int at = pick(whole, size, client, weights);

			weights[at] = 0;
			rank[at] = i;
		}
		for (unsigned int trial = 0; trial < 20; trial++) {
			unsigned int usable = 1 + test_below(&random, COUNT), best, at;

			memset(weights, 0, sizeof(weights));
			for (unsigned int i = 0; i < usable; i++)
				weights[test_below(&random, COUNT)] = 1;
			at = pick(whole, size, client, weights);
			best = at;
			for (unsigned int i = 0; i < COUNT; i++)
				if (weights[i] && rank[i] < rank[best])
					best = i;
			assert_int_equal(at, best);
		}
	}
}

static void test_a_full_pool_is_built_and_every_member_has_a_share(void **state)
{
	static uint64_t ids[MAGLEV_MEMBERS_MAX];
	static unsigned int entries[MAGLEV_MEMBERS_MAX];
	nsec_t start;

	(void)state;
	make_ids(ids, MAGLEV_MEMBERS_MAX, 5);
	maglev_build(whole, MAGLEV_SIZE_MAX, ids, ones, MAGLEV_MEMBERS_MAX);
	for (uint32_t i = 0; i < MAGLEV_SIZE_MAX; i++)
		entries[whole[i]]++;
	for (unsigned int i = 0; i < MAGLEV_MEMBERS_MAX; i++)
		assert_in_range(entries[i], 64, 65);
	start = clock_now();
	maglev_build(whole, maglev_size(MEMBERS_MAX), ids, ones, MEMBERS_MAX);
	print_message("a table of %u for %u members is built in %.2f ms\n", maglev_size(MEMBERS_MAX), MEMBERS_MAX,
		(double)(clock_now() - start) / 1e6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_a_usable_member_there_is_none),
		cmocka_unit_test(test_round_robin_mixes_as_nginx_does),
		cmocka_unit_test(test_round_robin_gives_exact_shares_and_nobody_runs_ahead),
		cmocka_unit_test(test_round_robin_spreads_a_lost_members_turns_by_weight),
		cmocka_unit_test(test_round_robin_does_not_carry_turns_over_to_much_smaller_weights),
		cmocka_unit_test(test_round_robin_takes_the_largest_weights),
		cmocka_unit_test(test_least_takes_the_smallest_load_by_weight),
		cmocka_unit_test(test_least_lets_equal_members_take_turns_wherever_they_stand),
		cmocka_unit_test(test_least_keeps_loads_within_one_flow_of_each_other),
		cmocka_unit_test(test_shares_under_random_lives_of_flows_are_by_weight),
		cmocka_unit_test(test_sizes_are_primes_that_suit_the_members),
		cmocka_unit_test(test_maglev_shares_are_within_one_entry_when_equal),
		cmocka_unit_test(test_maglev_shares_follow_weights),
		cmocka_unit_test(test_clients_are_spread_by_weight),
		cmocka_unit_test(test_the_order_of_members_does_not_matter),
		cmocka_unit_test(test_the_choice_is_the_same_in_every_release),
		cmocka_unit_test(test_a_table_without_a_member_moves_hardly_any_client_of_others),
		cmocka_unit_test(test_skipping_a_member_moves_its_own_clients_only_and_spreads_them),
		cmocka_unit_test(test_each_client_has_one_order_of_all_members),
		cmocka_unit_test(test_a_full_pool_is_built_and_every_member_has_a_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
