/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "base/hash.h"
#include "policy/health.h"

#include <stdlib.h>
#include <string.h>

/* Any time will do; this one has odd digits. */
#define NOW INT64_C(4711000000123)

/*
 * Events of a story, one second apart: '+' good probe, '-' refused probe, 'x' probe that the edge could not send,
 * 'c' failed connect of a flow, 'u' ICMP unreachable of a session, 'o' good flow.
 */
static bool happen(struct health *h, const struct health_policy *policy, char event, nsec_t now)
{
	switch (event) {
	case '+':
		return health_probe(h, policy, HEALTH_OK, 5 * NSEC_PER_MSEC, now);
	case '-':
		return health_probe(h, policy, HEALTH_CONNECT_REFUSED, 0, now);
	case 'x':
		return health_probe(h, policy, HEALTH_FAULT, 0, now);
	case 'c':
		return health_passive(h, policy, HEALTH_PASSIVE_CONNECT, now);
	case 'u':
		return health_passive(h, policy, HEALTH_PASSIVE_UNREACHABLE, now);
	default:
		assert_int_equal(event, 'o');
		health_passive_ok(h);
		return false;
	}
}

static char letter_of(const struct health *h)
{
	static const char letters[] = { [HEALTH_ASSUMED] = 'a', [HEALTH_UP] = 'U', [HEALTH_DOWN] = 'D' };

	return letters[h->state];
}

static void test_stories_end_as_they_should(void **state)
{
	static const struct {
		uint32_t rise, fall, passive_fall;
		const char *events, *states; /* the state after each event: a, U, D */
	} stories[] = {
		/* probes */
		{ 2, 3, 0, "+", "U" },
		{ 2, 3, 0, "--", "aa" },
		{ 2, 3, 0, "---", "aaD" },
		{ 2, 3, 0, "+---", "UUUD" },
		{ 2, 3, 0, "--+--+---", "aaUUUUUUD" },
		{ 2, 3, 0, "---++", "aaDDU" },
		{ 2, 3, 0, "---+-++", "aaDDDDU" },
		{ 2, 3, 0, "---++--+---", "aaDDUUUUUUD" },
		{ 3, 1, 0, "-+++-+++", "DDDUDDDU" },
		{ 1, 1, 0, "-+-+", "DUDU" },
		{ 0, 0, 0, "-+-+", "DUDU" }, /* as 1 and 1 */
		{ 2, 2, 0, "-----------++", "aDDDDDDDDDDDU" },
		/* what the edge could not do says nothing */
		{ 2, 3, 0, "xxxxxx", "aaaaaa" },
		{ 2, 3, 0, "-x-x-", "aaaaD" },
		{ 2, 3, 0, "---+x+", "aaDDDU" },
		{ 2, 3, 0, "---xx++", "aaDDDDU" },
		/* flows, when they count */
		{ 2, 3, 0, "cccccuuuuu", "aaaaaaaaaa" },
		{ 2, 3, 2, "c", "a" },
		{ 2, 3, 2, "cc", "aD" },
		{ 2, 3, 2, "cu", "aD" },
		{ 2, 3, 2, "cococo", "aaaaaa" },
		{ 2, 3, 2, "uoucoccc", "aaaDDDDD" },
		{ 2, 3, 3, "coccocc+c", "aaaaaaaUD" }, /* a good probe does not take back what flows see */
		{ 2, 3, 2, "cco++", "aDDDU" },	       /* good flows raise nothing */
		{ 2, 3, 2, "cc+c+", "aDDDU" },	       /* late failures of flows do not count against probes */
		{ 2, 3, 2, "cc++c", "aDDUU" },	       /* nor after it is up again */
		{ 2, 3, 2, "cc++cc", "aDDUUD" },
		{ 2, 3, 1, "+c-+-++", "UDDDDDU" },
		/* both together are two counts */
		{ 2, 3, 3, "-c-c-", "aaaaD" },
		{ 2, 3, 3, "-c-cc", "aaaaD" },
		{ 2, 3, 3, "--cc", "aaaa" },
		{ 2, 3, 3, "--cc++--cc", "aaaaUUUUDD" },
	};

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(stories); s++) {
		struct health_policy policy = { stories[s].rise, stories[s].fall, stories[s].passive_fall, 0 };
		nsec_t since = NOW;
		struct health h;

		health_init(&h, NOW);
		assert_true(health_is_up(&h));
		for (size_t i = 0; stories[s].events[i]; i++) {
			nsec_t now = NOW + (nsec_t)(i + 1) * NSEC_PER_SEC;
			bool was_up = health_is_up(&h), changed = happen(&h, &policy, stories[s].events[i], now);

			if (letter_of(&h) != stories[s].states[i])
				fail_msg("story %zu, %s: %c after event %zu, expected %c", s, stories[s].events,
					letter_of(&h), i, stories[s].states[i]);
			assert_int_equal(changed, health_is_up(&h) != was_up);
			since = changed ? now : since;
			assert_int_equal(h.since, since);
			assert_int_equal(h.reason == HEALTH_OK, health_is_up(&h));
			assert_true(h.good_row == 0 || h.failed_row == 0);
		}
		assert_int_equal(h.went_down - h.went_up, !health_is_up(&h));
	}
}

static void test_the_latest_finding_explains_why_it_is_down(void **state)
{
	struct health_policy policy = { .rise = 2, .fall = 2, .passive_fall = 2 };
	struct health h;

	(void)state;
	health_init(&h, NOW);
	assert_false(health_probe(&h, &policy, HEALTH_OK, 7, NOW + 1));
	assert_int_equal(h.latency, 7);
	assert_false(health_probe(&h, &policy, HEALTH_CONNECT_TIMEOUT, 0, NOW + 2));
	assert_int_equal(h.reason, HEALTH_OK);
	assert_int_equal(h.last, HEALTH_CONNECT_TIMEOUT);
	assert_true(health_probe(&h, &policy, HEALTH_NO_ANSWER, 0, NOW + 3));
	assert_int_equal(h.reason, HEALTH_NO_ANSWER);
	assert_int_equal(h.latency, 7);
	assert_int_equal(h.checked, NOW + 3);
	assert_false(health_probe(&h, &policy, HEALTH_WRONG_ANSWER, 0, NOW + 4));
	assert_int_equal(h.reason, HEALTH_WRONG_ANSWER);
	assert_int_equal(h.since, NOW + 3);
	assert_false(health_probe(&h, &policy, HEALTH_FAULT, 0, NOW + 5));
	assert_int_equal(h.reason, HEALTH_WRONG_ANSWER);
	assert_int_equal(h.last, HEALTH_FAULT);
	assert_false(health_probe(&h, &policy, HEALTH_OK, 8, NOW + 6));
	assert_int_equal(h.reason, HEALTH_WRONG_ANSWER);
	assert_true(health_probe(&h, &policy, HEALTH_OK, 9, NOW + 7));
	assert_int_equal(h.reason, HEALTH_OK);
	assert_int_equal(h.latency, 9);
	assert_false(health_passive(&h, &policy, HEALTH_PASSIVE_CONNECT, NOW + 8));
	assert_true(health_passive(&h, &policy, HEALTH_PASSIVE_UNREACHABLE, NOW + 9));
	assert_int_equal(h.reason, HEALTH_PASSIVE_UNREACHABLE);
	assert_int_equal(h.probes_ok, 3);
	assert_int_equal(h.probes_failed, 4);
	assert_int_equal(h.passive_failed, 2);
	assert_int_equal(h.went_down, 2);
	assert_int_equal(h.went_up, 1);
}

static void test_a_policy_that_changes_holds_for_the_next_event(void **state)
{
	struct health_policy policy = { .rise = 9, .fall = 9 };
	struct health h;

	(void)state;
	health_init(&h, NOW);
	for (int i = 0; i < 5; i++)
		assert_false(happen(&h, &policy, '-', NOW));
	policy.fall = 3;
	assert_true(happen(&h, &policy, '-', NOW));
	for (int i = 0; i < 5; i++)
		assert_false(happen(&h, &policy, '+', NOW));
	policy.rise = 3;
	assert_true(happen(&h, &policy, '+', NOW));
}

/* --- slow start --- */

static void test_an_origin_that_was_never_down_has_its_full_share(void **state)
{
	struct health_policy policy = { .rise = 1, .fall = 1, .slow_start = 60 * NSEC_PER_SEC };
	struct health h;

	(void)state;
	health_init(&h, NOW);
	assert_int_equal(health_share(&h, &policy, NOW), HEALTH_SHARE_FULL);
	happen(&h, &policy, '+', NOW);
	assert_int_equal(health_share(&h, &policy, NOW + 1), HEALTH_SHARE_FULL);
}

static void test_the_share_of_a_recovered_origin_grows_linearly_from_1(void **state)
{
	static const nsec_t slow_starts[] = { 1, 255, 256, 1000, 60 * NSEC_PER_SEC, 86400 * NSEC_PER_SEC };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(slow_starts); i++) {
		struct health_policy policy = { .rise = 1, .fall = 1, .slow_start = slow_starts[i] };
		uint32_t before = 1;
		struct health h;

		health_init(&h, NOW);
		happen(&h, &policy, '-', NOW);
		assert_int_equal(health_share(&h, &policy, NOW), 0);
		happen(&h, &policy, '+', NOW);
		assert_int_equal(health_share(&h, &policy, NOW - 1), 1); /* a clock that was read earlier */
		assert_int_equal(health_share(&h, &policy, NOW), 1);
		for (int64_t step = 0; step < 1000; step++) {
			nsec_t up_for = slow_starts[i] / 1000 * step;
			uint32_t share = health_share(&h, &policy, NOW + up_for);
			double exact = (double)up_for / (double)slow_starts[i] * HEALTH_SHARE_FULL;

			assert_true(share >= before);
			assert_true(share <= MAX(exact, 1.0) && share > exact - 1.001);
			before = share;
		}
		assert_true(health_share(&h, &policy, NOW + slow_starts[i] - 1) < HEALTH_SHARE_FULL);
		assert_int_equal(health_share(&h, &policy, NOW + slow_starts[i]), HEALTH_SHARE_FULL);
		assert_int_equal(health_share(&h, &policy, INT64_MAX), HEALTH_SHARE_FULL);
		policy.slow_start = 0;
		assert_int_equal(health_share(&h, &policy, NOW), HEALTH_SHARE_FULL);
	}
}

/* --- when to probe --- */

static void test_probes_lie_an_interval_apart_and_never_drift(void **state)
{
	static const nsec_t intervals[] = { 10, 1000, NSEC_PER_SEC, 5 * NSEC_PER_SEC, 3600 * NSEC_PER_SEC };
	enum { PROBES = 2000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(intervals); i++) {
		nsec_t interval = intervals[i], first = health_next(interval, i, NOW), before = first,
		       least = INT64_MAX, most = 0;

		assert_in_range(first - NOW, 1, interval * 12 / 10);
		for (int64_t n = 1; n < PROBES; n++) {
			nsec_t next = health_next(interval, i, before);

			least = MIN(least, next - before);
			most = MAX(most, next - before);
			assert_int_equal(health_next(interval, i, next - 1), next); /* a timer that was early */
			assert_true(llabs(next - first - n * interval) <= interval / 5);
			before = next;
		}
		assert_in_range(least, interval * 8 / 10, interval * 9 / 10);
		assert_in_range(most, interval * 11 / 10, interval * 12 / 10);
	}
	assert_in_range(health_next(NSEC_PER_SEC, 1, 0), 1, NSEC_PER_SEC * 12 / 10);
}

enum { ORIGINS = 2000, BUCKETS = 500 };

/* Chi square of counts in buckets against an even spread. */
static double chi_square(const unsigned int *counts, double expected)
{
	double sum = 0;

	for (size_t i = 0; i < BUCKETS; i++)
		sum += (counts[i] - expected) * (counts[i] - expected) / expected;
	return sum;
}

static void test_two_thousand_origins_start_spread_and_stay_so(void **state)
{
	static const int64_t rounds[] = { 0, 1, 10, 1000, 100000 };
	nsec_t interval = 5 * NSEC_PER_SEC, bucket = interval / BUCKETS; /* 10 ms */

	(void)state;
	for (size_t r = 0; r < ARRAY_SIZE(rounds); r++) {
		unsigned int counts[BUCKETS] = { 0 };

		for (uint64_t origin = 0; origin < ORIGINS; origin++) {
			uint64_t seed = hash_bytes(&origin, sizeof(origin), 0);
			nsec_t from = NOW + rounds[r] * interval, at;

			for (at = health_next(interval, seed, from); at <= from + interval;
				at = health_next(interval, seed, at))
				counts[(at - from - 1) / bucket]++;
		}
		for (size_t i = 0; i < BUCKETS; i++) /* 4 are expected; more than 18 by chance in one of 200,000 */
			assert_in_range(counts[i], 0, 18);
		assert_true(chi_square(counts, (double)ORIGINS / BUCKETS) < 603.0); /* p = 0.001 at 499 */
	}
}

static void test_origins_that_are_probed_together_part_again(void **state)
{
	nsec_t interval = 5 * NSEC_PER_SEC;
	unsigned int met = 0, again = 0;

	(void)state;
	for (uint64_t a = 0; a < 300; a++)
		for (uint64_t b = a + 1; b < 300; b++) {
			nsec_t of_a = health_next(interval, a, NOW), of_b = health_next(interval, b, NOW);

			if (llabs(of_a - of_b) > 10 * NSEC_PER_MSEC)
				continue;
			met++;
			of_a = health_next(interval, a, of_a);
			of_b = health_next(interval, b, of_b);
			again += llabs(of_a - of_b) <= 10 * NSEC_PER_MSEC;
		}
	assert_true(met > 50);
	assert_true(again < met / 10);
}

static void test_words_are_those_of_the_table(void **state)
{
	(void)state;
	assert_string_equal(health_reason_word(HEALTH_OK), "ok");
	assert_string_equal(health_reason_word(HEALTH_PASSIVE_UNREACHABLE), "passive_unreachable");
	for (enum health_reason reason = 0; reason < HEALTH_REASONS; reason++)
		assert_true(strlen(health_reason_help(reason)) > 10);
	assert_string_equal(health_state_word(HEALTH_ASSUMED), "assumed");
	assert_string_equal(health_state_word(HEALTH_UP), "up");
	assert_string_equal(health_state_word(HEALTH_DOWN), "down");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stories_end_as_they_should),
		cmocka_unit_test(test_the_latest_finding_explains_why_it_is_down),
		cmocka_unit_test(test_a_policy_that_changes_holds_for_the_next_event),
		cmocka_unit_test(test_an_origin_that_was_never_down_has_its_full_share),
		cmocka_unit_test(test_the_share_of_a_recovered_origin_grows_linearly_from_1),
		cmocka_unit_test(test_probes_lie_an_interval_apart_and_never_drift),
		cmocka_unit_test(test_two_thousand_origins_start_spread_and_stay_so),
		cmocka_unit_test(test_origins_that_are_probed_together_part_again),
		cmocka_unit_test(test_words_are_those_of_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
