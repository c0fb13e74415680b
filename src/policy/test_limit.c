/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "policy/limit.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

/* Any time will do; this one has odd digits. */
#define NOW INT64_C(4711000000123)

static unsigned int take_until_refused(struct rate *rate, uint32_t per_s, nsec_t now)
{
	unsigned int n = 0;

	while (rate_take(rate, per_s, now))
		n++;
	return n;
}

/* --- rates --- */

static void test_a_burst_is_one_seconds_worth(void **state)
{
	static const uint32_t rates[] = { 1, 2, 3, 7, 10, 99, 1000, 65536 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct rate rate = { 0 };
		unsigned int n = take_until_refused(&rate, rates[i], NOW);

		/* steps are whole nanoseconds, rounded down */
		assert_in_range(n, rates[i], rates[i] + rates[i] / 10000);
		assert_false(rate_take(&rate, rates[i], NOW));
	}
}

static void test_after_a_burst_one_more_is_allowed_each_step(void **state)
{
	enum { PER_S = 100 };
	nsec_t step = NSEC_PER_SEC / PER_S;
	struct rate rate = { 0 };

	(void)state;
	assert_int_equal(take_until_refused(&rate, PER_S, NOW), PER_S);
	for (int i = 1; i <= 1000; i++) {
		assert_false(rate_take(&rate, PER_S, NOW + i * step - 1));
		assert_true(rate_take(&rate, PER_S, NOW + i * step));
		assert_false(rate_take(&rate, PER_S, NOW + i * step));
	}
}

static void test_a_steady_stream_at_the_rate_is_never_refused(void **state)
{
	static const uint32_t rates[] = { 1, 3, 100, 1000, 10000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct rate rate = { 0 };

		for (int64_t event = 0; event < 20000; event++)
			assert_true(rate_take(&rate, rates[i], NOW + event * NSEC_PER_SEC / rates[i]));
	}
}

static void test_of_a_stream_that_is_too_fast_the_rate_gets_through(void **state)
{
	enum { PER_S = 1000, SECONDS = 20, TIMES = 5 };
	struct test_random random = { 4 };
	struct rate rate = { 0 };
	unsigned int passed = 0;

	(void)state;
	for (int64_t event = 0; event < PER_S * SECONDS * TIMES; event++) {
		nsec_t jitter = test_below(&random, 500000);

		passed += rate_take(&rate, PER_S, NOW + event * NSEC_PER_SEC / PER_S / TIMES + jitter);
	}
	assert_in_range(passed, PER_S * SECONDS, PER_S * SECONDS + PER_S); /* and the burst */
}

static void test_idle_time_is_not_saved_up(void **state)
{
	struct rate rate = { 0 };

	(void)state;
	assert_int_equal(take_until_refused(&rate, 50, NOW), 50);
	assert_int_equal(take_until_refused(&rate, 50, NOW + 3600 * NSEC_PER_SEC), 50);
	assert_int_equal(take_until_refused(&rate, 50, NOW + 3600 * NSEC_PER_SEC + NSEC_PER_SEC / 2), 25);
}

static void test_a_rate_of_zero_is_no_limit(void **state)
{
	struct rate rate = { 0 };

	(void)state;
	for (int i = 0; i < 100000; i++)
		assert_true(rate_take(&rate, 0, NOW));
	assert_int_equal(take_until_refused(&rate, 5, NOW), 5); /* and nothing was counted */
}

static void test_refused_events_do_not_count(void **state)
{
	struct rate rate = { 0 };

	(void)state;
	assert_int_equal(take_until_refused(&rate, 10, NOW), 10);
	for (int i = 0; i < 1000; i++)
		assert_false(rate_take(&rate, 10, NOW));
	assert_true(rate_take(&rate, 10, NOW + NSEC_PER_SEC / 10));
}

enum { THREADS = 4 };

struct taker {
	pthread_t thread;
	struct rate *rate;
	unsigned int taken;
};

static void *take_at_once(void *arg)
{
	struct taker *t = arg;

	t->taken = take_until_refused(t->rate, 50000, NOW);
	return NULL;
}

static void test_threads_share_one_burst(void **state)
{
	struct taker takers[THREADS];
	struct rate rate = { 0 };
	unsigned int sum = 0;

	(void)state;
	for (size_t i = 0; i < THREADS; i++) {
		takers[i] = (struct taker){ .rate = &rate };
		assert_int_equal(pthread_create(&takers[i].thread, NULL, take_at_once, &takers[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(takers[i].thread, NULL), 0);
		sum += takers[i].taken;
	}
	assert_int_equal(sum, 50000);
}

/* --- clients --- */

/* A key that the table looks for from @home on. */
static uint64_t key_at(uint32_t home, uint32_t client)
{
	return (uint64_t)(client * 2 + 1) << 24 | home;
}

static int acquire(struct client_table *t, uint64_t key, uint32_t max_flows)
{
	uint32_t slot;

	return client_acquire(t, key, max_flows, 0, NOW, &slot);
}

static struct client_table table_of(uint32_t slots)
{
	struct client_table t;

	assert_int_equal(client_table_init(&t, slots), 0);
	return t;
}

static void test_a_client_gets_its_limit_and_not_one_more(void **state)
{
	static const uint32_t limits[] = { 1, 2, 100 };
	struct client_table t = table_of(64);

	(void)state;
	for (uint32_t i = 0; i < ARRAY_SIZE(limits); i++) {
		uint64_t key = key_at(5, i);
		uint32_t slot = CLIENT_NONE, untouched = 4711;

		for (uint32_t flow = 0; flow < limits[i]; flow++)
			assert_int_equal(client_acquire(&t, key, limits[i], 0, NOW, &slot), LIMIT_OK);
		assert_int_equal(client_acquire(&t, key, limits[i], 0, NOW, &untouched), LIMIT_E_FLOWS);
		assert_int_equal(untouched, 4711);
		client_release(&t, slot);
		assert_int_equal(client_acquire(&t, key, limits[i], 0, NOW, &slot), LIMIT_OK);
		assert_int_equal(client_acquire(&t, key, limits[i], 0, NOW, &slot), LIMIT_E_FLOWS);
	}
	client_table_deinit(&t);
}

static void test_no_limit_still_ends_where_counting_does(void **state)
{
	struct client_table t = table_of(64);
	uint64_t key = key_at(0, 1);
	uint32_t slot;

	(void)state;
	for (int i = 0; i < 20000; i++)
		assert_int_equal(client_acquire(&t, key, 0, 0, NOW, &slot), LIMIT_OK);
	atomic_fetch_add(&t.slots[slot].word, CLIENT_FLOWS_MAX - 20000 - 1); /* all but one of 2^24 - 1 */
	assert_int_equal(acquire(&t, key, 0), LIMIT_OK);
	assert_int_equal(acquire(&t, key, 0), LIMIT_E_FLOWS);
	client_table_deinit(&t);
}

static void test_a_lowered_limit_holds_for_new_flows(void **state)
{
	struct client_table t = table_of(64);
	uint64_t key = key_at(0, 1);

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(acquire(&t, key, 10), LIMIT_OK);
	assert_int_equal(acquire(&t, key, 5), LIMIT_E_FLOWS);
	assert_int_equal(acquire(&t, key, 11), LIMIT_OK);
	client_table_deinit(&t);
}

static void test_a_client_over_its_rate_is_refused_and_no_flow_is_counted(void **state)
{
	struct client_table t = table_of(64);
	uint64_t key = key_at(0, 1);
	uint32_t slot;

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_int_equal(client_acquire(&t, key, 7, 5, NOW, &slot), LIMIT_OK);
	assert_int_equal(client_acquire(&t, key, 7, 5, NOW, &slot), LIMIT_E_RATE);
	for (int i = 5; i < 7; i++)
		assert_int_equal(client_acquire(&t, key, 7, 5, NOW + NSEC_PER_SEC, &slot), LIMIT_OK);
	assert_int_equal(client_acquire(&t, key, 7, 5, NOW + 2 * NSEC_PER_SEC, &slot), LIMIT_E_FLOWS);
	client_table_deinit(&t);
}

/* A client may not get a fresh rate by leaving: its place is kept until its rate lies in the past. */
static void test_a_rate_outlives_the_clients_flows(void **state)
{
	struct client_table t = table_of(64);
	uint64_t key = key_at(0, 1);
	uint32_t slot;

	(void)state;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(client_acquire(&t, key, 0, 5, NOW, &slot), LIMIT_OK);
		client_release(&t, slot);
	}
	for (uint32_t other = 2; other < 2 + CLIENT_WINDOW - 1; other++)
		assert_int_equal(client_acquire(&t, key_at(0, other), 0, 0, NOW, &slot), LIMIT_OK);
	assert_int_equal(client_acquire(&t, key_at(0, 100), 0, 0, NOW, &slot), LIMIT_E_FULL);
	assert_int_equal(client_acquire(&t, key, 0, 5, NOW, &slot), LIMIT_E_RATE);
	assert_int_equal(client_acquire(&t, key_at(0, 100), 0, 0, NOW + NSEC_PER_SEC - 1, &slot), LIMIT_E_FULL);
	assert_int_equal(client_acquire(&t, key_at(0, 100), 0, 0, NOW + NSEC_PER_SEC, &slot), LIMIT_OK);
	client_table_deinit(&t);
}

static void test_a_full_window_refuses_one_more_client_until_one_leaves(void **state)
{
	struct client_table t = table_of(256);
	uint32_t slots[CLIENT_WINDOW], slot;

	(void)state;
	for (uint32_t client = 0; client < CLIENT_WINDOW; client++)
		assert_int_equal(client_acquire(&t, key_at(200, client), 0, 0, NOW, &slots[client]), LIMIT_OK);
	assert_int_equal(client_acquire(&t, key_at(200, 1000), 0, 0, NOW, &slot), LIMIT_E_FULL);
	assert_int_equal(acquire(&t, key_at(200, 7), 0), LIMIT_OK);    /* one that is known is still served */
	assert_int_equal(acquire(&t, key_at(201, 1001), 0), LIMIT_OK); /* and one whose window reaches further */
	client_release(&t, slots[63]);
	assert_int_equal(client_acquire(&t, key_at(200, 1000), 0, 0, NOW, &slot), LIMIT_OK);
	assert_int_equal(slot, slots[63]);
	client_table_deinit(&t);
}

static void test_a_place_that_is_taken_over_counts_from_the_beginning(void **state)
{
	struct client_table t = table_of(64);
	uint32_t slot, again;

	(void)state;
	assert_int_equal(client_acquire(&t, key_at(0, 1), 2, 3, NOW, &slot), LIMIT_OK);
	client_release(&t, slot);
	assert_int_equal(client_acquire(&t, key_at(0, 2), 2, 3, NOW + NSEC_PER_SEC, &again), LIMIT_OK);
	assert_int_equal(again, slot);
	assert_int_equal(client_acquire(&t, key_at(0, 2), 2, 3, NOW + NSEC_PER_SEC, &again), LIMIT_OK);
	assert_int_equal(client_acquire(&t, key_at(0, 2), 2, 3, NOW + NSEC_PER_SEC, &again), LIMIT_E_FLOWS);
	assert_int_equal(client_acquire(&t, key_at(0, 1), 2, 3, NOW + NSEC_PER_SEC, &again), LIMIT_OK);
	assert_int_not_equal(again, slot);
	client_table_deinit(&t);
}

/* A free place in front of a client's own is not taken while it has one. */
static void test_a_client_keeps_its_place_when_one_before_it_becomes_free(void **state)
{
	struct client_table t = table_of(64);
	uint32_t first, second, again;

	(void)state;
	assert_int_equal(client_acquire(&t, key_at(0, 1), 0, 0, NOW, &first), LIMIT_OK);
	assert_int_equal(client_acquire(&t, key_at(0, 2), 2, 0, NOW, &second), LIMIT_OK);
	client_release(&t, first);
	assert_int_equal(client_acquire(&t, key_at(0, 2), 2, 0, NOW, &again), LIMIT_OK);
	assert_int_equal(again, second);
	assert_int_equal(client_acquire(&t, key_at(0, 2), 2, 0, NOW, &again), LIMIT_E_FLOWS);
	client_table_deinit(&t);
}

static void test_a_random_life_agrees_with_a_simple_count(void **state)
{
	enum { CLIENTS = 400, MAX_FLOWS = 5, STEPS = 100000 };
	static uint32_t slots[CLIENTS][MAX_FLOWS];
	static uint32_t flows[CLIENTS];
	struct client_table t = table_of(4096);
	uint64_t hash_key = 42;
	struct test_random random = { 5 };

	(void)state;
	for (int step = 0; step < STEPS; step++) {
		uint32_t client = test_below(&random, CLIENTS);
		struct ip ip = ip_from_v4(&client);
		uint64_t key = client_key(&ip, 1, hash_key);

		if (test_below(&random, 100) < 55) {
			uint32_t slot;
			int r = client_acquire(&t, key, MAX_FLOWS, 0, NOW + step, &slot);

			assert_int_equal(r, flows[client] == MAX_FLOWS ? LIMIT_E_FLOWS : LIMIT_OK);
			if (r == LIMIT_OK)
				slots[client][flows[client]++] = slot;
		} else if (flows[client]) {
			client_release(&t, slots[client][--flows[client]]);
		}
	}
	client_table_deinit(&t);
}

static uint64_t key_of(const char *text, uint64_t rule_key, uint64_t hash_key)
{
	struct ip ip;

	assert_int_equal(ip_parse(text, strlen(text), &ip), 0);
	return client_key(&ip, rule_key, hash_key);
}

static void test_a_client_is_an_ipv4_address_or_an_ipv6_64_of_one_rule(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} cases[] = {
		{ "192.0.2.1", "192.0.2.1", true },
		{ "192.0.2.1", "::ffff:192.0.2.1", true },
		{ "192.0.2.1", "192.0.2.2", false },
		{ "192.0.2.1", "193.0.2.1", false },
		{ "2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff", true },
		{ "2001:db8:1:2::1", "2001:db8:1:3::1", false },
		{ "2001:db8:1:2::1", "2001:db9:1:2::1", false },
		{ "::1", "0.0.0.1", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(key_of(cases[i].a, 1, 2) == key_of(cases[i].b, 1, 2), cases[i].same);
	assert_int_not_equal(key_of("192.0.2.1", 1, 2), key_of("192.0.2.1", 2, 2));
	assert_int_not_equal(key_of("192.0.2.1", 1, 2), key_of("192.0.2.1", 1, 3));
}

/* --- many threads --- */

enum { SHARED_CLIENTS = 3, SHARED_LIMIT = 5, ROUNDS = 40000, HELD_MAX = 12 };

struct crowd {
	struct client_table table;
	_Atomic uint32_t flows[SHARED_CLIENTS]; /* added to after the table did, and taken from before */
	_Atomic uint32_t most;			/* that any client had at a time */
	_Atomic unsigned int admitted, refused;
};

struct member {
	pthread_t thread;
	struct crowd *crowd;
	uint64_t seed;
};

static void note_flow(struct crowd *c, uint32_t client)
{
	uint32_t now = atomic_fetch_add(&c->flows[client], 1) + 1, most = atomic_load(&c->most);

	while (now > most && !atomic_compare_exchange_weak(&c->most, &most, now))
		;
}

/* Holds up to HELD_MAX flows at a time, of random clients. */
static void *come_and_go(void *arg)
{
	struct member *m = arg;
	struct crowd *c = m->crowd;
	struct test_random random = { m->seed };
	struct {
		uint32_t client, slot;
	} held[HELD_MAX];
	uint32_t count = 0;

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t client = test_below(&random, SHARED_CLIENTS), slot;

		if (count < HELD_MAX && test_below(&random, 2)) {
			if (client_acquire(&c->table, key_at(9, client), SHARED_LIMIT, 0, NOW, &slot) == LIMIT_OK) {
				note_flow(c, client);
				held[count].client = client;
				held[count++].slot = slot;
				atomic_fetch_add(&c->admitted, 1);
			} else {
				atomic_fetch_add(&c->refused, 1);
			}
		} else if (count) {
			count--;
			atomic_fetch_sub(&c->flows[held[count].client], 1);
			client_release(&c->table, held[count].slot);
		}
		if (i % 64 == 0)
			sched_yield();
	}
	while (count) {
		count--;
		atomic_fetch_sub(&c->flows[held[count].client], 1);
		client_release(&c->table, held[count].slot);
	}
	return NULL;
}

static void run_crowd(struct crowd *c)
{
	struct member members[THREADS];

	for (uint64_t i = 0; i < THREADS; i++) {
		members[i] = (struct member){ .crowd = c, .seed = i };
		assert_int_equal(pthread_create(&members[i].thread, NULL, come_and_go, &members[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(members[i].thread, NULL), 0);
	assert_true(c->admitted > 1000 && c->refused > 1000);
}

static unsigned int flows_in(const struct client_table *t)
{
	unsigned int sum = 0;

	for (uint32_t i = 0; i <= t->mask; i++)
		sum += (unsigned int)(atomic_load(&t->slots[i].word) & CLIENT_FLOWS_MAX);
	return sum;
}

static void test_threads_together_never_exceed_the_limit_of_a_known_client(void **state)
{
	struct crowd c = { .table = table_of(64) };

	(void)state;
	for (uint32_t client = 0; client < SHARED_CLIENTS; client++) { /* one flow each that stays */
		assert_int_equal(acquire(&c.table, key_at(9, client), SHARED_LIMIT), LIMIT_OK);
		note_flow(&c, client);
	}
	run_crowd(&c);
	assert_int_equal(c.most, SHARED_LIMIT);
	assert_int_equal(flows_in(&c.table), SHARED_CLIENTS);
	client_table_deinit(&c.table);
}

/* Clients that leave altogether and come back at the same instant may get a second place; see limit.h. */
static void test_threads_lose_no_flow_of_clients_that_come_and_go(void **state)
{
	struct crowd c = { .table = table_of(64) };

	(void)state;
	run_crowd(&c);
	assert_in_range(c.most, SHARED_LIMIT, 2 * SHARED_LIMIT);
	assert_int_equal(flows_in(&c.table), 0);
	client_table_deinit(&c.table);
}

struct newcomer {
	pthread_t thread;
	struct client_table *table;
	pthread_barrier_t *barrier;
	unsigned int admitted[1000];
};

/* All threads meet each client together, and each asks for as much as one client may have. */
static void *meet_new_clients(void *arg)
{
	struct newcomer *n = arg;

	for (uint32_t client = 0; client < ARRAY_SIZE(n->admitted); client++) {
		if (client % 8 == 0)
			pthread_barrier_wait(n->barrier);
		for (int i = 0; i < SHARED_LIMIT; i++)
			n->admitted[client] += acquire(n->table, key_at(client * 64, client), SHARED_LIMIT) == LIMIT_OK;
	}
	return NULL;
}

static void test_threads_that_meet_a_new_client_admit_its_limit_together(void **state)
{
	static struct newcomer newcomers[THREADS];
	struct client_table t = table_of(65536);
	pthread_barrier_t barrier;

	(void)state;
	assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
	for (size_t i = 0; i < THREADS; i++) {
		newcomers[i] = (struct newcomer){ .table = &t, .barrier = &barrier };
		assert_int_equal(pthread_create(&newcomers[i].thread, NULL, meet_new_clients, &newcomers[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(newcomers[i].thread, NULL), 0);
	for (size_t client = 0; client < ARRAY_SIZE(newcomers[0].admitted); client++) {
		unsigned int sum = 0;

		for (size_t i = 0; i < THREADS; i++)
			sum += newcomers[i].admitted[client];
		assert_int_equal(sum, SHARED_LIMIT);
	}
	pthread_barrier_destroy(&barrier);
	client_table_deinit(&t);
}

static void test_a_zeroed_table_can_be_taken_down(void **state)
{
	struct client_table t = { 0 };

	(void)state;
	client_table_deinit(&t);
	assert_null(t.slots);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_burst_is_one_seconds_worth),
		cmocka_unit_test(test_after_a_burst_one_more_is_allowed_each_step),
		cmocka_unit_test(test_a_steady_stream_at_the_rate_is_never_refused),
		cmocka_unit_test(test_of_a_stream_that_is_too_fast_the_rate_gets_through),
		cmocka_unit_test(test_idle_time_is_not_saved_up),
		cmocka_unit_test(test_a_rate_of_zero_is_no_limit),
		cmocka_unit_test(test_refused_events_do_not_count),
		cmocka_unit_test(test_threads_share_one_burst),
		cmocka_unit_test(test_a_client_gets_its_limit_and_not_one_more),
		cmocka_unit_test(test_no_limit_still_ends_where_counting_does),
		cmocka_unit_test(test_a_lowered_limit_holds_for_new_flows),
		cmocka_unit_test(test_a_client_over_its_rate_is_refused_and_no_flow_is_counted),
		cmocka_unit_test(test_a_rate_outlives_the_clients_flows),
		cmocka_unit_test(test_a_full_window_refuses_one_more_client_until_one_leaves),
		cmocka_unit_test(test_a_place_that_is_taken_over_counts_from_the_beginning),
		cmocka_unit_test(test_a_client_keeps_its_place_when_one_before_it_becomes_free),
		cmocka_unit_test(test_a_random_life_agrees_with_a_simple_count),
		cmocka_unit_test(test_a_client_is_an_ipv4_address_or_an_ipv6_64_of_one_rule),
		cmocka_unit_test(test_threads_together_never_exceed_the_limit_of_a_known_client),
		cmocka_unit_test(test_threads_lose_no_flow_of_clients_that_come_and_go),
		cmocka_unit_test(test_threads_that_meet_a_new_client_admit_its_limit_together),
		cmocka_unit_test(test_a_zeroed_table_can_be_taken_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
