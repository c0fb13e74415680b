/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "base/error.h"
#include "base/hash.h"
#include "policy/persist.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

/* Any time will do; this one has odd digits. */
#define NOW INT64_C(4711000000123)
#define TTL (600 * NSEC_PER_SEC)

/* A key that the table looks for from @home on. */
static uint64_t key_at(uint32_t home, uint32_t client)
{
	return (uint64_t)client << 32 | home;
}

static struct persist_table table_of(uint32_t slots)
{
	struct persist_table t;

	assert_int_equal(persist_init(&t, slots), 0);
	return t;
}

/* A flow of a client that is known to have @origin. */
static uint32_t acquire_known(struct persist_table *t, uint64_t key, nsec_t now, uint32_t origin)
{
	uint32_t slot = PERSIST_NONE, found = 4711;

	assert_int_equal(persist_acquire(t, key, now, &found, &slot), PERSIST_OK);
	assert_int_equal(found, origin);
	return slot;
}

/* A flow of a client that has no origin; @how is PERSIST_NEW or PERSIST_EVICTED. */
static uint32_t acquire_new(struct persist_table *t, uint64_t key, nsec_t now, int how)
{
	uint32_t slot = PERSIST_NONE, untouched = 4711;

	assert_int_equal(persist_acquire(t, key, now, &untouched, &slot), how);
	assert_int_equal(untouched, 4711);
	assert_in_range(slot, 0, t->mask);
	return slot;
}

static void assert_full(struct persist_table *t, uint64_t key, nsec_t now)
{
	uint32_t slot = 4711, origin = 4711;

	assert_int_equal(persist_acquire(t, key, now, &origin, &slot), PERSIST_E_FULL);
	assert_int_equal(slot, 4711);
	assert_int_equal(origin, 4711);
}

/* A client that came, was given @origin, and left. */
static uint32_t visit(struct persist_table *t, uint64_t key, nsec_t now, nsec_t ttl, uint32_t origin, int how)
{
	uint32_t slot = acquire_new(t, key, now, how);

	persist_set(t, slot, origin);
	persist_release(t, slot, now, ttl);
	return slot;
}

static void test_a_client_keeps_its_origin(void **state)
{
	static const uint32_t origins[] = { 0, 1, 7, UINT32_MAX };
	struct persist_table t = table_of(64);

	(void)state;
	for (uint32_t i = 0; i < ARRAY_SIZE(origins); i++) {
		uint64_t key = key_at(60, i);
		uint32_t slot = visit(&t, key, NOW, TTL, origins[i], PERSIST_NEW);

		for (int flow = 0; flow < 5; flow++)
			assert_int_equal(acquire_known(&t, key, NOW + flow, origins[i]), slot);
	}
	persist_deinit(&t);
}

static void test_a_choice_is_forgotten_exactly_after_its_time(void **state)
{
	static const nsec_t ttls[] = { 1, 1000, NSEC_PER_SEC, 86400 * NSEC_PER_SEC };
	struct persist_table t = table_of(64);

	(void)state;
	for (uint32_t i = 0; i < ARRAY_SIZE(ttls); i++) {
		uint64_t key = key_at(0, i);
		uint32_t slot = visit(&t, key, NOW, ttls[i], 5, PERSIST_NEW);

		persist_release(&t, acquire_known(&t, key, NOW + ttls[i] - 1, 5), NOW, ttls[i]);
		assert_int_equal(acquire_new(&t, key, NOW + ttls[i], PERSIST_NEW), slot);
	}
	persist_deinit(&t);
}

static void test_a_time_of_zero_remembers_while_flows_run(void **state)
{
	struct persist_table t = table_of(64);
	uint32_t slot = acquire_new(&t, key_at(0, 1), NOW, PERSIST_NEW);

	(void)state;
	persist_set(&t, slot, 5);
	acquire_known(&t, key_at(0, 1), NOW, 5);
	persist_release(&t, slot, NOW, 0);
	acquire_known(&t, key_at(0, 1), NOW, 5);
	persist_release(&t, slot, NOW, 0);
	persist_release(&t, slot, NOW, 0);
	acquire_new(&t, key_at(0, 1), NOW, PERSIST_NEW);
	persist_deinit(&t);
}

static void test_a_client_with_a_running_flow_is_never_forgotten(void **state)
{
	struct persist_table t = table_of(64);
	uint64_t key = key_at(0, 1);
	uint32_t slot = acquire_new(&t, key, NOW, PERSIST_NEW);

	(void)state;
	persist_set(&t, slot, 5);
	assert_int_equal(acquire_known(&t, key, NOW, 5), slot);
	persist_release(&t, slot, NOW, 1); /* one of two */
	for (int64_t year = 1; year <= 10; year++) {
		assert_int_equal(acquire_known(&t, key, NOW + year * 365 * 86400 * NSEC_PER_SEC, 5), slot);
		persist_release(&t, slot, NOW, 1);
	}
	for (uint32_t other = 2; other < 2 + 3 * PERSIST_WINDOW; other++) /* nor does it make room */
		assert_int_not_equal(visit(&t, key_at(0, other), NOW, TTL, 9,
					     other < 1 + PERSIST_WINDOW ? PERSIST_NEW : PERSIST_EVICTED),
			slot);
	acquire_known(&t, key, NOW, 5);
	persist_deinit(&t);
}

static void test_the_time_begins_with_the_end_of_the_last_flow(void **state)
{
	struct persist_table t = table_of(64);
	uint64_t key = key_at(0, 1);
	uint32_t slot = acquire_new(&t, key, NOW, PERSIST_NEW);

	(void)state;
	persist_set(&t, slot, 5);
	acquire_known(&t, key, NOW, 5);
	persist_release(&t, slot, NOW + 10, 1000 * TTL);
	persist_release(&t, slot, NOW + 20, TTL); /* a reload has made it shorter */
	acquire_known(&t, key, NOW + 20 + TTL - 1, 5);
	persist_release(&t, slot, NOW + 20, TTL);
	acquire_new(&t, key, NOW + 20 + TTL, PERSIST_NEW);
	persist_deinit(&t);
}

static void test_a_replaced_choice_sticks(void **state)
{
	struct persist_table t = table_of(64);
	uint64_t key = key_at(0, 1);
	uint32_t slot = visit(&t, key, NOW, TTL, 5, PERSIST_NEW);

	(void)state;
	acquire_known(&t, key, NOW, 5);
	persist_set(&t, slot, 6); /* 5 was down */
	acquire_known(&t, key, NOW, 6);
	persist_release(&t, slot, NOW, TTL);
	persist_release(&t, slot, NOW, TTL);
	acquire_known(&t, key, NOW + TTL - 1, 6);
	persist_deinit(&t);
}

static void test_a_client_that_was_given_no_origin_holds_no_place(void **state)
{
	struct persist_table t = table_of(64);
	uint32_t slot = acquire_new(&t, key_at(0, 1), NOW, PERSIST_NEW);

	(void)state;
	assert_int_equal(acquire_new(&t, key_at(0, 1), NOW, PERSIST_NEW), slot); /* still none */
	persist_release(&t, slot, NOW, TTL);
	persist_release(&t, slot, NOW, TTL);
	for (uint32_t other = 2; other < 2 + PERSIST_WINDOW; other++)
		acquire_new(&t, key_at(0, other), NOW, PERSIST_NEW);
	persist_deinit(&t);
}

static void test_what_a_place_held_before_is_nobodys_choice(void **state)
{
	struct persist_table t = table_of(16);
	uint32_t slot, expected = visit(&t, key_at(0, 0), NOW, 1, 5, PERSIST_NEW);

	(void)state;
	for (uint32_t i = 1; i < 1000; i++) { /* more than there are turns */
		slot = visit(&t, key_at(0, i % 3), NOW + i, 1, 5, PERSIST_NEW);
		assert_int_equal(slot, expected);
		slot = visit(&t, key_at(0, i % 3), NOW + i + 1, 0, 5, PERSIST_NEW); /* and of the same client */
		assert_int_equal(slot, expected);
	}
	persist_deinit(&t);
}

static void test_a_full_window_refuses_one_more_client_until_one_leaves(void **state)
{
	struct persist_table t = table_of(64);
	uint32_t slots[PERSIST_WINDOW];

	(void)state;
	for (uint32_t client = 0; client < PERSIST_WINDOW; client++) {
		slots[client] = acquire_new(&t, key_at(55, client), NOW, PERSIST_NEW); /* around the end */
		persist_set(&t, slots[client], client);
	}
	assert_full(&t, key_at(55, 1000), NOW);
	assert_full(&t, key_at(55, 1000), NOW + 1000 * TTL);
	acquire_known(&t, key_at(55, 7), NOW, 7);	     /* one that is known is still served */
	acquire_new(&t, key_at(56, 1001), NOW, PERSIST_NEW); /* and one whose window reaches further */
	persist_release(&t, slots[3], NOW, TTL);
	assert_int_equal(acquire_new(&t, key_at(55, 1000), NOW, PERSIST_EVICTED), slots[3]);
	assert_full(&t, key_at(55, 3), NOW);
	persist_deinit(&t);
}

static void test_who_would_be_forgotten_soonest_makes_room(void **state)
{
	static const uint8_t order[PERSIST_WINDOW] = { 7, 3, 12, 0, 15, 1, 9, 4, 14, 2, 6, 11, 5, 13, 10, 8 };
	struct persist_table t = table_of(64);
	uint32_t slots[PERSIST_WINDOW];

	(void)state;
	for (uint32_t i = 0; i < PERSIST_WINDOW; i++)
		slots[order[i]] = visit(&t, key_at(0, i), NOW, TTL + order[i], i, PERSIST_NEW);
	for (uint32_t i = 0; i < PERSIST_WINDOW; i++)
		assert_int_equal(acquire_new(&t, key_at(0, 100 + i), NOW, PERSIST_EVICTED), slots[i]);
	assert_full(&t, key_at(0, 200), NOW);
	persist_deinit(&t);
}

static void test_a_forgotten_client_makes_room_before_a_remembered_one(void **state)
{
	struct persist_table t = table_of(64);
	uint32_t forgotten = 0, slot;

	(void)state;
	for (uint32_t i = 0; i < PERSIST_WINDOW; i++) {
		slot = visit(&t, key_at(0, i), NOW, i == 9 ? 100 : 200 + i, i, PERSIST_NEW);
		forgotten = i == 9 ? slot : forgotten;
	}
	assert_int_equal(acquire_new(&t, key_at(0, 100), NOW + 100, PERSIST_NEW), forgotten);
	acquire_new(&t, key_at(0, 101), NOW + 100, PERSIST_EVICTED);
	persist_deinit(&t);
}

static void test_a_client_keeps_its_place_when_one_before_it_becomes_free(void **state)
{
	struct persist_table t = table_of(64);
	uint32_t second;

	(void)state;
	visit(&t, key_at(0, 1), NOW, 1, 5, PERSIST_NEW);
	second = visit(&t, key_at(0, 2), NOW, TTL, 6, PERSIST_NEW);
	assert_int_equal(acquire_known(&t, key_at(0, 2), NOW + 1, 6), second);
	persist_deinit(&t);
}

static void test_flows_are_counted_to_the_limit_and_no_further(void **state)
{
	struct persist_table t = table_of(64);
	uint32_t slot = acquire_new(&t, key_at(0, 1), NOW, PERSIST_NEW);

	(void)state;
	persist_set(&t, slot, 5);
	atomic_fetch_add(&t.slots[slot].word, PERSIST_FLOWS_MAX - 2);
	acquire_known(&t, key_at(0, 1), NOW, 5);
	assert_full(&t, key_at(0, 1), NOW);
	persist_release(&t, slot, NOW, TTL);
	acquire_known(&t, key_at(0, 1), NOW, 5);
	persist_deinit(&t);
}

static void test_few_are_forgotten_early_while_the_table_is_not_full(void **state)
{
	enum { SLOTS = 1 << 16 };
	static const struct {
		unsigned int percent, at_most; /* evictions in a thousand clients */
	} cases[] = { { 25, 1 }, { 50, 2 }, { 75, 40 }, { 100, 200 } };

	(void)state;
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		struct persist_table t = table_of(SLOTS);
		uint32_t clients = SLOTS / 100 * cases[c].percent, evicted = 0;

		for (uint64_t i = 0; i < clients; i++) {
			uint32_t origin, slot;
			int r = persist_acquire(&t, hash_bytes(&i, sizeof(i), 1), NOW, &origin, &slot);

			assert_true(r == PERSIST_NEW || r == PERSIST_EVICTED);
			evicted += r == PERSIST_EVICTED;
			persist_set(&t, slot, 1);
			persist_release(&t, slot, NOW, TTL + (nsec_t)i);
		}
		print_message("%u clients in %u places: %u forgotten early\n", clients, SLOTS, evicted);
		assert_true(evicted <= (uint64_t)clients * cases[c].at_most / 1000);
		persist_deinit(&t);
	}
}

/* Against a list of clients, with room enough that none is evicted. */
static void test_a_random_life_agrees_with_a_simple_list(void **state)
{
	enum { CLIENTS = 300, STEPS = 200000, FLOWS_MAX = 4 };
	static struct {
		uint32_t flows, origin;
		bool chosen;
		nsec_t expires;
		uint32_t slot;
	} list[CLIENTS];
	struct persist_table t = table_of(4096);
	struct test_random random = { 5 };
	nsec_t now = NOW;

	(void)state;
	for (int step = 0; step < STEPS; step++) {
		uint64_t i = test_below(&random, CLIENTS);
		uint32_t origin = 4711, slot = PERSIST_NONE;

		now += test_below(&random, 1000);
		if (test_below(&random, 2) && list[i].flows < FLOWS_MAX) {
			bool known = list[i].chosen && (list[i].flows || now < list[i].expires);
			int r = persist_acquire(&t, hash_bytes(&i, sizeof(i), 2), now, &origin, &slot);

			assert_int_equal(r, known ? PERSIST_OK : PERSIST_NEW);
			assert_int_equal(origin, known ? list[i].origin : 4711);
			if (list[i].flows)
				assert_int_equal(slot, list[i].slot);
			list[i].slot = slot;
			list[i].flows++;
			list[i].chosen = known;
			if (test_below(&random, 4) == 0 || !known) {
				list[i].chosen = test_below(&random, 8) || known;
				list[i].origin = (uint32_t)test_random(&random);
				if (list[i].chosen)
					persist_set(&t, slot, list[i].origin);
			}
		} else if (list[i].flows) {
			nsec_t ttl = test_below(&random, 300000);

			persist_release(&t, list[i].slot, now, ttl);
			list[i].flows--;
			list[i].expires = now + ttl;
		}
	}
	persist_deinit(&t);
}

/* --- many threads --- */

enum { THREADS = 4, ROUNDS = 30000, HELD_MAX = 12 };

/* Each client's origins are its number and 1000 more each time, so that a choice of another is recognised. */
struct crowd {
	struct persist_table table;
	uint32_t clients;
	_Atomic unsigned int known, new, evicted, full;
};

struct member {
	pthread_t thread;
	struct crowd *crowd;
	uint64_t seed;
};

static void *come_and_go(void *arg)
{
	struct member *m = arg;
	struct crowd *c = m->crowd;
	struct test_random random = { m->seed };
	uint32_t held[HELD_MAX], count = 0;

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t client = test_below(&random, c->clients), origin = client, slot;

		if (count < HELD_MAX && test_below(&random, 2)) {
			int r = persist_acquire(&c->table, key_at(9, client + 1), NOW + i, &origin, &slot);

			ASSERT(origin % 1000 == client); /* cmocka's own are for its thread */
			atomic_fetch_add(r == PERSIST_OK       ? &c->known
					: r == PERSIST_NEW     ? &c->new
					: r == PERSIST_EVICTED ? &c->evicted
							       : &c->full,
				1);
			if (r != PERSIST_E_FULL) {
				if (r != PERSIST_OK || test_below(&random, 10) == 0)
					persist_set(&c->table, slot, client + 1000 * test_below(&random, 1000));
				held[count++] = slot;
			}
		} else if (count) {
			persist_release(&c->table, held[--count], NOW + i, test_below(&random, 100));
		}
		if (i % 64 == 0)
			sched_yield();
	}
	while (count)
		persist_release(&c->table, held[--count], NOW, 0);
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
	for (uint32_t i = 0; i <= c->table.mask; i++) /* no flow is lost or counted twice */
		assert_int_equal(atomic_load(&c->table.slots[i].word) & PERSIST_FLOWS_MAX, 0);
	persist_deinit(&c->table);
}

static void test_threads_never_see_the_choice_of_another_client(void **state)
{
	struct crowd few = { .table = table_of(64), .clients = 5 }, many = { .table = table_of(16), .clients = 40 };

	(void)state;
	run_crowd(&few);
	assert_true(few.known > 1000 && few.full == 0 && few.evicted == 0);
	run_crowd(&many);
	assert_true(many.known > 1000 && many.new + many.evicted > 1000 && many.full > 100);
}

struct newcomer {
	pthread_t thread;
	struct persist_table *table;
	pthread_barrier_t *barrier;
	uint32_t slots[1000];
	unsigned int known;
};

/* All threads meet each client together, one place away from its neighbours. */
static void *meet_new_clients(void *arg)
{
	struct newcomer *n = arg;

	for (uint32_t client = 0; client < ARRAY_SIZE(n->slots); client++) {
		uint32_t origin = client;

		if (client % 8 == 0)
			pthread_barrier_wait(n->barrier);
		n->known += persist_acquire(n->table, key_at(client * 64, client), NOW, &origin, &n->slots[client]) ==
			PERSIST_OK;
		ASSERT(origin == client);
		persist_set(n->table, n->slots[client], client);
	}
	return NULL;
}

static void test_threads_that_meet_a_new_client_share_one_place(void **state)
{
	static struct newcomer newcomers[THREADS];
	struct persist_table t = table_of(65536);
	pthread_barrier_t barrier;

	(void)state;
	assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
	for (size_t i = 0; i < THREADS; i++) {
		newcomers[i] = (struct newcomer){ .table = &t, .barrier = &barrier };
		assert_int_equal(pthread_create(&newcomers[i].thread, NULL, meet_new_clients, &newcomers[i]), 0);
	}
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(newcomers[i].thread, NULL), 0);
	for (size_t client = 0; client < ARRAY_SIZE(newcomers[0].slots); client++) {
		for (size_t i = 1; i < THREADS; i++)
			assert_int_equal(newcomers[i].slots[client], newcomers[0].slots[client]);
		assert_int_equal(atomic_load(&t.slots[newcomers[0].slots[client]].word) & PERSIST_FLOWS_MAX, THREADS);
	}
	pthread_barrier_destroy(&barrier);
	persist_deinit(&t);
}

static void test_a_zeroed_table_can_be_taken_down(void **state)
{
	struct persist_table t = { 0 };

	(void)state;
	persist_deinit(&t);
	assert_null(t.slots);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_client_keeps_its_origin),
		cmocka_unit_test(test_a_choice_is_forgotten_exactly_after_its_time),
		cmocka_unit_test(test_a_time_of_zero_remembers_while_flows_run),
		cmocka_unit_test(test_a_client_with_a_running_flow_is_never_forgotten),
		cmocka_unit_test(test_the_time_begins_with_the_end_of_the_last_flow),
		cmocka_unit_test(test_a_replaced_choice_sticks),
		cmocka_unit_test(test_a_client_that_was_given_no_origin_holds_no_place),
		cmocka_unit_test(test_what_a_place_held_before_is_nobodys_choice),
		cmocka_unit_test(test_a_full_window_refuses_one_more_client_until_one_leaves),
		cmocka_unit_test(test_who_would_be_forgotten_soonest_makes_room),
		cmocka_unit_test(test_a_forgotten_client_makes_room_before_a_remembered_one),
		cmocka_unit_test(test_a_client_keeps_its_place_when_one_before_it_becomes_free),
		cmocka_unit_test(test_flows_are_counted_to_the_limit_and_no_further),
		cmocka_unit_test(test_few_are_forgotten_early_while_the_table_is_not_full),
		cmocka_unit_test(test_a_random_life_agrees_with_a_simple_list),
		cmocka_unit_test(test_threads_never_see_the_choice_of_another_client),
		cmocka_unit_test(test_threads_that_meet_a_new_client_share_one_place),
		cmocka_unit_test(test_a_zeroed_table_can_be_taken_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
