/* SPDX-License-Identifier: Apache-2.0 */
/* The wheel against a list of deadlines, on a simulated clock. */
#include "base/test.h"
#include "io/timer.h"

#include <string.h>

#define TICK   (TIMER_TICK_MS * NSEC_PER_MSEC)
#define SECOND NSEC_PER_SEC
#define HOUR   (3600 * NSEC_PER_SEC)

enum { TIMERS = 300 };

struct model_timer {
	struct timer timer;
	struct world *world;
	bool running;
	nsec_t deadline; /* not before the start */
	unsigned int fired;
};

struct world {
	struct timers wheel;
	struct model_timer timers[TIMERS];
	struct test_random random;
	nsec_t now;
	unsigned int restart_percent; /* of the timers that fire */
	unsigned int fired;
};

static void fire(struct timer *timer);

static void world_init(struct world *w, uint64_t seed, nsec_t now)
{
	memset(w, 0, sizeof(*w));
	w->now = now;
	w->random.state = seed;
	timers_init(&w->wheel, now);
	for (size_t i = 0; i < TIMERS; i++) {
		w->timers[i].world = w;
		timer_init(&w->timers[i].timer, fire);
	}
}

static void start(struct model_timer *t, nsec_t at)
{
	t->running = true;
	t->deadline = MAX(at, t->world->now);
	timer_start(&t->world->wheel, &t->timer, at);
}

static void stop(struct model_timer *t)
{
	t->running = false;
	timer_stop(&t->timer);
}

/* A delay of any size: a few ticks as often as days; now and then none, or a time in the past. */
static nsec_t random_delay(struct world *w)
{
	static const nsec_t sizes[] = { TICK, 64 * TICK, 5 * SECOND, 600 * SECOND, 3 * HOUR, 36 * HOUR, 100 * HOUR };
	nsec_t size = sizes[test_below(&w->random, ARRAY_SIZE(sizes))];

	if (test_below(&w->random, 20) == 0)
		return -(nsec_t)test_below(&w->random, 2) * size;
	return (nsec_t)(test_random(&w->random) % (uint64_t)size);
}

static struct model_timer *random_timer(struct world *w)
{
	return &w->timers[test_below(&w->random, TIMERS)];
}

static void fire(struct timer *timer)
{
	struct model_timer *t = CONTAINER_OF(timer, struct model_timer, timer);
	struct world *w = t->world;

	assert_true(t->running);
	assert_false(timer_running(timer));
	assert_true(t->deadline <= w->now); /* never early */
	t->running = false;
	t->fired++;
	w->fired++;
	if (test_below(&w->random, 100) < w->restart_percent)
		start(t, w->now + random_delay(w));
	if (test_below(&w->random, 100) < w->restart_percent / 4)
		stop(random_timer(w));
	if (test_below(&w->random, 100) < w->restart_percent / 4)
		start(random_timer(w), w->now + random_delay(w));
}

/* When the timer has to have fired, at the latest. */
static nsec_t latest(const struct model_timer *t)
{
	return t->deadline + TICK;
}

static void check_timers(const struct world *w)
{
	for (size_t i = 0; i < TIMERS; i++) {
		const struct model_timer *t = &w->timers[i];

		assert_int_equal(timer_running(&t->timer), t->running);
		if (t->running && latest(t) <= w->now)
			fail_msg("timer %zu is %.1f ms late", i, (double)(w->now - t->deadline) / 1e6);
	}
}

static void check_next(const struct world *w)
{
	int next = timers_next(&w->wheel, w->now);
	nsec_t first = INT64_MAX;

	for (size_t i = 0; i < TIMERS; i++)
		if (w->timers[i].running)
			first = MIN(first, latest(&w->timers[i]));
	if (first == INT64_MAX)
		return;
	if (next < 0 || w->now + next * NSEC_PER_MSEC >= first + NSEC_PER_MSEC)
		fail_msg("next in %d ms, but a timer has to fire within %.1f", next, (double)(first - w->now) / 1e6);
}

static void run_at(struct world *w, nsec_t now)
{
	w->now = now;
	timers_run(&w->wheel, now);
	check_timers(w);
	check_next(w);
}

static void random_operations(struct world *w)
{
	for (uint32_t n = test_below(&w->random, 4); n; n--) {
		if (test_below(&w->random, 3))
			start(random_timer(w), w->now + random_delay(w));
		else
			stop(random_timer(w));
	}
}

/* --- one timer --- */

static void test_a_timer_fires_at_its_deadline_or_up_to_one_tick_later(void **state)
{
	static const nsec_t delays[] = { 0, 1, TICK - 1, TICK, TICK + 1, 63 * TICK, 64 * TICK, 65 * TICK, 4095 * TICK,
		4096 * TICK, 4097 * TICK, 262143 * TICK, 262144 * TICK, 262145 * TICK, 24 * HOUR };
	static const nsec_t starts[] = { 0, 1, TICK - 1, TICK, 63 * TICK, 64 * TICK, 4095 * TICK, 4096 * TICK + 5,
		262143 * TICK, 4711 * HOUR + 123456789 };
	static struct world w;

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(starts); s++) {
		for (size_t d = 0; d < ARRAY_SIZE(delays); d++) {
			struct model_timer *t = &w.timers[0];

			world_init(&w, 0, starts[s]);
			start(t, w.now + delays[d]);
			run_at(&w, w.now + delays[d] - (delays[d] > 0));
			assert_int_equal(t->fired, delays[d] == 0 && starts[s] % TICK == 0);
			run_at(&w, starts[s] + delays[d] + TICK);
			assert_int_equal(t->fired, 1);
			assert_int_equal(timers_next(&w.wheel, w.now), -1);
		}
	}
}

static void test_a_deadline_in_the_past_fires_with_the_next_tick(void **state)
{
	static const nsec_t past[] = { 0, 1, TICK, 100 * TICK, 10 * HOUR, 2000 * HOUR };
	static struct world w;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(past); i++) {
		world_init(&w, 0, 1000 * HOUR);
		run_at(&w, w.now + 12345 * TICK);
		start(&w.timers[0], w.now - past[i]);
		run_at(&w, w.now + TICK);
		assert_int_equal(w.timers[0].fired, 1);
	}
}

static void test_a_stopped_timer_does_not_fire(void **state)
{
	static struct world w;

	(void)state;
	world_init(&w, 0, HOUR);
	stop(&w.timers[0]); /* never started */
	start(&w.timers[0], w.now + SECOND);
	stop(&w.timers[0]);
	stop(&w.timers[0]);
	run_at(&w, w.now + HOUR);
	assert_int_equal(w.timers[0].fired, 0);
}

static void test_a_timer_that_is_started_again_fires_once_at_the_new_time(void **state)
{
	static struct world w;
	nsec_t begin = HOUR;

	(void)state;
	world_init(&w, 0, begin);
	start(&w.timers[0], begin + SECOND);
	start(&w.timers[0], begin + 10 * SECOND);
	run_at(&w, begin + 9 * SECOND);
	assert_int_equal(w.timers[0].fired, 0);
	start(&w.timers[0], begin + 9 * SECOND + TICK);
	run_at(&w, begin + 20 * SECOND);
	assert_int_equal(w.timers[0].fired, 1);
}

static void test_the_time_may_stand_still(void **state)
{
	static struct world w;

	(void)state;
	world_init(&w, 0, HOUR);
	start(&w.timers[0], w.now + SECOND);
	for (int i = 0; i < 100; i++)
		run_at(&w, HOUR);
	assert_int_equal(w.timers[0].fired, 0);
	for (int i = 0; i < 100; i++)
		run_at(&w, HOUR + SECOND + TICK);
	assert_int_equal(w.timers[0].fired, 1);
}

/* --- what may happen while timers fire --- */

static void restart_in_the_past(struct timer *timer)
{
	struct model_timer *t = CONTAINER_OF(timer, struct model_timer, timer);

	t->fired++;
	if (t->fired < 100)
		timer_start(&t->world->wheel, timer, t->world->now - SECOND);
}

/* It neither fires for ever in one run, nor is it forgotten until the wheel has turned. */
static void test_a_timer_that_restarts_itself_in_the_past_fires_with_each_tick(void **state)
{
	static struct world w;
	nsec_t begin = HOUR;

	(void)state;
	world_init(&w, 0, begin);
	timer_init(&w.timers[0].timer, restart_in_the_past);
	timer_start(&w.wheel, &w.timers[0].timer, begin);
	for (unsigned int tick = 0; tick < 100; tick++) {
		w.now = begin + tick * TICK;
		timers_run(&w.wheel, w.now);
		assert_int_equal(w.timers[0].fired, tick + 1);
		assert_in_range(timers_next(&w.wheel, w.now) + 1, 0, TIMER_TICK_MS + 1);
	}
}

static void stop_the_next(struct timer *timer)
{
	struct model_timer *t = CONTAINER_OF(timer, struct model_timer, timer);

	t->fired++;
	timer_stop(&t[1].timer);
}

static void count(struct timer *timer)
{
	CONTAINER_OF(timer, struct model_timer, timer)->fired++;
}

static void test_a_timer_may_stop_another_that_is_due_with_it(void **state)
{
	static struct world w;

	(void)state;
	world_init(&w, 0, HOUR);
	timer_init(&w.timers[0].timer, stop_the_next);
	for (size_t i = 1; i < 4; i++)
		timer_init(&w.timers[i].timer, count);
	for (size_t i = 0; i < 4; i++)
		timer_start(&w.wheel, &w.timers[i].timer, HOUR + SECOND);
	timers_run(&w.wheel, HOUR + 2 * SECOND);
	assert_int_equal(w.timers[0].fired, 1);
	assert_int_equal(w.timers[1].fired, 0);
	assert_int_equal(w.timers[2].fired, 1);
	assert_int_equal(w.timers[3].fired, 1);
}

/* --- many timers, for hours --- */

static void test_random_timers_keep_their_deadlines_whatever_the_steps(void **state)
{
	static const nsec_t steps[] = { NSEC_PER_MSEC, TICK, 100 * NSEC_PER_MSEC, 3 * SECOND, 60 * SECOND, HOUR,
		40 * HOUR };
	static struct world w;

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		world_init(&w, seed, (nsec_t)(seed * 977 * HOUR + seed));
		w.restart_percent = (unsigned int)(seed % 3 * 40);
		for (int i = 0; i < 1500; i++) {
			nsec_t step = steps[test_below(&w.random, seed % 2 ? 7 : 5)];

			random_operations(&w);
			check_next(&w);
			run_at(&w, w.now + (nsec_t)(test_random(&w.random) % (uint64_t)step));
		}
		assert_true(w.fired > 300);
	}
}

/* As the event loop does it: sleep as long as timers_next() says, which may be late by the rest of a
 * millisecond. */
static void test_whoever_sleeps_until_the_next_timer_is_never_late(void **state)
{
	static struct world w;
	nsec_t begin = 5 * HOUR + 12345;
	unsigned int turns = 0;

	(void)state;
	world_init(&w, 7, begin);
	w.restart_percent = 80;
	while (w.now < begin + 200 * HOUR && turns < 20000) {
		int next;

		random_operations(&w);
		next = timers_next(&w.wheel, w.now);
		if (next < 0 || next > 60000)
			next = 60000; /* something else wakes the loop */
		run_at(&w, w.now + next * NSEC_PER_MSEC);
		turns++;
	}
	assert_true(w.fired > 5000);
}

/* Also where the deadline's slot is the one that the wheel stands at, to be reached after a whole turn. */
static void test_a_quiet_wheel_is_woken_once_for_each_level(void **state)
{
	static const nsec_t delays[] = { 40 * TICK, 60 * TICK, 1000 * TICK, 4095 * TICK, 262143 * TICK, 24 * HOUR,
		16777215 * TICK };
	static struct world w;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
		for (unsigned int begin = 0; begin < 10000; begin += 77) {
			unsigned int wakes = 0;

			world_init(&w, 0, begin * TICK);
			start(&w.timers[0], w.now + delays[i]);
			for (; w.timers[0].fired == 0; wakes++)
				run_at(&w, w.now + timers_next(&w.wheel, w.now) * NSEC_PER_MSEC);
			assert_in_range(wakes, 1, TIMER_LEVELS);
		}
	}
}

static void test_every_tick_of_an_hour_has_its_timer(void **state)
{
	enum { TICKS = 3600 * 1000 / TIMER_TICK_MS };
	static struct world w;
	nsec_t begin = 3 * HOUR;

	(void)state;
	world_init(&w, 0, begin);
	timer_init(&w.timers[0].timer, count);
	timer_init(&w.timers[1].timer, count);
	timer_start(&w.wheel, &w.timers[1].timer, begin + HOUR);
	for (unsigned int tick = 1; tick <= TICKS; tick++) {
		timer_start(&w.wheel, &w.timers[0].timer, begin + tick * TICK);
		timers_run(&w.wheel, begin + tick * TICK);
		assert_int_equal(w.timers[0].fired, tick);
		assert_int_equal(w.timers[1].fired, tick == TICKS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_timer_fires_at_its_deadline_or_up_to_one_tick_later),
		cmocka_unit_test(test_a_deadline_in_the_past_fires_with_the_next_tick),
		cmocka_unit_test(test_a_stopped_timer_does_not_fire),
		cmocka_unit_test(test_a_timer_that_is_started_again_fires_once_at_the_new_time),
		cmocka_unit_test(test_the_time_may_stand_still),
		cmocka_unit_test(test_a_timer_that_restarts_itself_in_the_past_fires_with_each_tick),
		cmocka_unit_test(test_a_timer_may_stop_another_that_is_due_with_it),
		cmocka_unit_test(test_random_timers_keep_their_deadlines_whatever_the_steps),
		cmocka_unit_test(test_whoever_sleeps_until_the_next_timer_is_never_late),
		cmocka_unit_test(test_a_quiet_wheel_is_woken_once_for_each_level),
		cmocka_unit_test(test_every_tick_of_an_hour_has_its_timer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
