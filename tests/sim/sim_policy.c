/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_policy [FIRST_SEED [SEEDS]] - origins that fail and recover and clients that come and go, on a virtual clock.
 *
 * Puts together what src/policy decides about pools of origins (balance, persist, health) in the way a flow asks for
 * it, and checks after each step what must hold whatever happens. A seed gives a pool, its settings and the whole
 * course of events, so a failure is repeated by its seed. Invariants are CHECKs; each says in its text what it stands
 * for.
 *
 * The course: an origin's truth (alive) changes at random times; probes find it out as health_next() has them, and
 * their results take a while; a flow that is given a dead origin fails to connect, tells health, and tries another.
 */
#include "base/clock.h"
#include "base/hash.h"
#include "policy/balance.h"
#include "policy/health.h"
#include "policy/persist.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ORIGINS_MAX = 16,
	CLIENTS = 150,
	WORKERS = 2, /* each with its own round robin */
	FLOWS_MAX = 4096,
	EVENTS_MAX = FLOWS_MAX + 4 * ORIGINS_MAX,
	ATTEMPTS = 3,
	PERSIST_SLOTS = 4096, /* enough that no client is evicted */
	NO_ORIGIN = UINT32_MAX,
};

#define BEGIN	 (1000 * NSEC_PER_SEC)
#define DURATION (150 * NSEC_PER_SEC)

enum method { ROUND_ROBIN, LEAST, SOURCE_HASH, METHODS };

enum event_kind { EVENT_LIFE, EVENT_PROBE, EVENT_RESULT, EVENT_CLIENT, EVENT_FLOW_END };

struct event {
	nsec_t time;
	enum event_kind kind;
	uint32_t index; /* of an origin or a flow */
};

struct origin {
	uint64_t id;
	uint32_t weight;
	struct health health;
	bool alive;
	nsec_t alive_since; /* or dead since */
	nsec_t up_since;    /* as seen from outside; valid when it was down before */
	bool was_down;
	double expected; /* turns of round robin during the slow start at hand, and those it got */
	uint32_t got;
};

struct client {
	uint64_t key;
	/* what persistence has to remember of it */
	uint32_t origin;
	uint32_t flows;
	nsec_t expires;
};

struct flow {
	uint32_t client, origin, slot;
};

struct sim {
	uint64_t seed, random;
	nsec_t now;

	/* settings */
	unsigned int count;
	enum method method;
	struct health_policy policy;
	nsec_t interval, probe_max, ttl;
	bool persistent, use_all;

	struct origin origins[ORIGINS_MAX];
	uint32_t flows[ORIGINS_MAX]; /* running */
	int64_t current[WORKERS][ORIGINS_MAX];
	uint16_t table[MAGLEV_SIZE_MAX];
	uint32_t table_size;
	struct persist_table persist;

	struct client clients[CLIENTS];
	struct flow running[FLOWS_MAX];
	uint32_t idle[FLOWS_MAX]; /* indexes into running */
	uint32_t idle_count;
	struct event events[EVENTS_MAX]; /* a heap, the earliest first */
	uint32_t event_count;
	uint32_t turn;
	uint64_t served, refused, failed, moved;
	double ramp_expected, ramp_got; /* sums of finished slow starts */
};

#define CHECK(s, condition, what)                                                                                      \
	do {                                                                                                           \
		if (UNLIKELY(!(condition)))                                                                            \
			check_failed((s), #condition, (what), __LINE__);                                               \
	} while (0)

static _Noreturn void check_failed(const struct sim *s, const char *condition, const char *what, int line)
{
	fprintf(stderr,
		"sim_policy %llu 1: at %.6f s: %s: %s does not hold (line %d)\n"
		"method %d, %u origins, rise %u, fall %u, passive_fall %u, interval %.1f s, slow_start %.1f s\n",
		(unsigned long long)s->seed, (double)(s->now - BEGIN) / 1e9, what, condition, line, (int)s->method,
		s->count, s->policy.rise, s->policy.fall, s->policy.passive_fall, (double)s->interval / 1e9,
		(double)s->policy.slow_start / 1e9);
	exit(1);
}

static uint64_t rnd(struct sim *s)
{
	s->random++;
	return hash_bytes(&s->random, sizeof(s->random), s->seed);
}

static uint32_t below(struct sim *s, uint32_t limit)
{
	return (uint32_t)(rnd(s) % limit);
}

/* 1 ns to twice @mean. */
static nsec_t around(struct sim *s, nsec_t mean)
{
	return 1 + (nsec_t)(rnd(s) % (uint64_t)(2 * mean));
}

/* --- events --- */

static void event_swap(struct event *a, struct event *b)
{
	struct event swap = *a;

	*a = *b;
	*b = swap;
}

static void event_add(struct sim *s, nsec_t time, enum event_kind kind, uint32_t index)
{
	uint32_t at = s->event_count++;

	CHECK(s, at < EVENTS_MAX, "room for events");
	s->events[at] = (struct event){ .time = time, .kind = kind, .index = index };
	for (; at && s->events[(at - 1) / 2].time > s->events[at].time; at = (at - 1) / 2)
		event_swap(&s->events[at], &s->events[(at - 1) / 2]);
}

static struct event event_take(struct sim *s)
{
	struct event first = s->events[0];
	uint32_t at = 0;

	s->events[0] = s->events[--s->event_count];
	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child + 1 < s->event_count && s->events[child + 1].time < s->events[child].time)
			child++;
		if (child >= s->event_count || s->events[at].time <= s->events[child].time)
			return first;
		event_swap(&s->events[at], &s->events[child]);
		at = child;
	}
}

/* --- health --- */

/* The latest that @probes results in a row are known after the truth has changed. */
static nsec_t notice_max(const struct sim *s, uint32_t probes)
{
	return probes * s->interval + s->interval / 5 + s->probe_max;
}

static void check_health(const struct sim *s, const struct origin *o)
{
	nsec_t since = s->now - o->alive_since;

	CHECK(s, o->alive || since <= notice_max(s, s->policy.fall) || !health_is_up(&o->health),
		"an origin that died is noticed within fall intervals");
	CHECK(s, !o->alive || since <= notice_max(s, s->policy.rise) || health_is_up(&o->health),
		"an origin that lives is used after rise intervals");
}

/* The share by the time since its recovery, from outside. */
static double share_exact(const struct sim *s, const struct origin *o)
{
	if (!o->was_down || s->now - o->up_since >= s->policy.slow_start)
		return 1;
	return (double)(s->now - o->up_since) / (double)s->policy.slow_start;
}

static uint32_t share_of(const struct sim *s, const struct origin *o)
{
	uint32_t share = health_share(&o->health, &s->policy, s->now);
	double exact = share_exact(s, o) * HEALTH_SHARE_FULL;

	CHECK(s, !health_is_up(&o->health) || (share <= MAX(exact, 1) && share > exact - 1.001),
		"the share follows the ramp of the slow start");
	return share;
}

/* The end of a slow start, by its time or by another failure. */
static void slow_start_end(struct sim *s, struct origin *o)
{
	double off = o->got - o->expected, most = 3 * WORKERS + o->expected / 50;

	CHECK(s, off <= most && off >= -most, "round robin gives what the ramp says");
	s->ramp_expected += o->expected;
	s->ramp_got += o->got;
	o->got = 0;
	o->expected = 0;
}

static void health_changed(struct sim *s, struct origin *o)
{
	slow_start_end(s, o);
	if (health_is_up(&o->health))
		o->up_since = s->now;
	else
		o->was_down = true;
}

static void on_life(struct sim *s, struct origin *o, uint32_t index)
{
	o->alive = !o->alive;
	o->alive_since = s->now;
	event_add(s, s->now + around(s, (o->alive ? 40 : 15) * NSEC_PER_SEC), EVENT_LIFE, index);
}

static void on_probe(struct sim *s, struct origin *o, uint32_t index)
{
	event_add(s, s->now + 1 + (nsec_t)(rnd(s) % (uint64_t)s->probe_max), EVENT_RESULT, index);
	event_add(s, health_next(s->interval, o->id, s->now), EVENT_PROBE, index);
}

static void on_result(struct sim *s, struct origin *o)
{
	bool was_up = health_is_up(&o->health);
	bool changed = health_probe(&o->health, &s->policy, o->alive ? HEALTH_OK : HEALTH_CONNECT_TIMEOUT, 1, s->now);

	CHECK(s, changed == (was_up != health_is_up(&o->health)), "a change is told");
	CHECK(s, !changed || health_is_up(&o->health) == o->alive, "a change is towards the truth");
	if (changed)
		health_changed(s, o);
}

/* --- flows --- */

static unsigned int pick_round_robin(struct sim *s, const uint32_t *weights)
{
	unsigned int at = 0;
	double total = 0;

	if (balance_round_robin(s->current[below(s, WORKERS)], weights, s->count, &at))
		return NO_ORIGIN;
	for (unsigned int i = 0; i < s->count; i++)
		total += weights[i];
	for (unsigned int i = 0; i < s->count; i++) {
		struct origin *o = &s->origins[i];

		if (!health_is_up(&o->health) || share_exact(s, o) >= 1)
			continue;
		o->expected += weights[i] / total;
		o->got += i == at;
	}
	return at;
}

/* A choice by the pool's method out of those with a weight, or NO_ORIGIN. */
static unsigned int pick(struct sim *s, const struct client *c, const uint32_t *weights)
{
	unsigned int at = NO_ORIGIN, home = NO_ORIGIN;
	uint32_t all[ORIGINS_MAX];
	int r;

	switch (s->method) {
	case ROUND_ROBIN:
		return pick_round_robin(s, weights);
	case LEAST:
		r = balance_least(s->flows, weights, s->count, s->turn++, &at);
		return r ? NO_ORIGIN : at;
	case SOURCE_HASH:
		for (unsigned int i = 0; i < s->count; i++)
			all[i] = 1;
		if (maglev_pick(s->table, s->table_size, c->key, weights, &at))
			return NO_ORIGIN;
		r = maglev_pick(s->table, s->table_size, c->key, all, &home);
		CHECK(s, r == 0 && (at == home || weights[home] == 0), "a lost origin moves its own clients only");
		return at;
	case METHODS:
		break;
	}
	abort();
}

/* Weights of the moment. Return: false when no flow may go anywhere. */
static bool weigh(const struct sim *s, uint32_t *weights, bool *ret_all_down)
{
	bool all_down = true;

	for (unsigned int i = 0; i < s->count; i++) {
		weights[i] = s->origins[i].weight * share_of(s, &s->origins[i]);
		CHECK(s, (weights[i] > 0) == health_is_up(&s->origins[i].health), "who is up has a weight");
		all_down = all_down && weights[i] == 0;
	}
	for (unsigned int i = 0; all_down && s->use_all && i < s->count; i++)
		weights[i] = s->origins[i].weight;
	*ret_all_down = all_down;
	return !all_down || s->use_all;
}

/* Where the client belongs by persistence, or NO_ORIGIN; its flow is counted. */
static uint32_t remember(struct sim *s, struct client *c, uint32_t *ret_slot)
{
	bool known = c->origin != NO_ORIGIN && (c->flows || s->now < c->expires);
	uint32_t origin = NO_ORIGIN;
	int r = persist_acquire(&s->persist, c->key, s->now, &origin, ret_slot);

	CHECK(s, r == PERSIST_OK || r == PERSIST_NEW, "there is room for every client");
	CHECK(s, (r == PERSIST_OK) == known, "a client is remembered for its time and no longer");
	CHECK(s, origin == (known ? c->origin : NO_ORIGIN), "a client keeps its last choice");
	c->origin = origin;
	c->flows++;
	return origin;
}

static void forget(struct sim *s, struct client *c, uint32_t slot)
{
	persist_release(&s->persist, slot, s->now, s->ttl);
	c->flows--;
	c->expires = s->now + s->ttl;
}

/* Whether the flow is connected with origin @at; health learns of it. */
static bool try_origin(struct sim *s, unsigned int at, bool all_down)
{
	struct origin *o = &s->origins[at];

	CHECK(s, all_down || health_is_up(&o->health), "no flow to an origin that is known to be down");
	CHECK(s, all_down || o->alive || s->now - o->alive_since <= notice_max(s, s->policy.fall),
		"no flow to an origin that died fall intervals ago");
	if (o->alive) {
		health_passive_ok(&o->health);
		return true;
	}
	if (health_passive(&o->health, &s->policy, HEALTH_PASSIVE_CONNECT, s->now))
		health_changed(s, o);
	s->failed++;
	return false;
}

/* The origin that a new flow of @c ends up with, or NO_ORIGIN. */
static unsigned int connect_flow(struct sim *s, struct client *c, uint32_t slot, uint32_t remembered)
{
	uint32_t weights[ORIGINS_MAX];
	bool tried[ORIGINS_MAX] = { false }, all_down;

	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		unsigned int at;

		if (!weigh(s, weights, &all_down)) {
			s->refused++;
			return NO_ORIGIN;
		}
		for (unsigned int i = 0; i < s->count; i++)
			weights[i] = tried[i] ? 0 : weights[i];
		if (attempt == 0 && remembered != NO_ORIGIN && weights[remembered])
			at = remembered;
		else
			at = pick(s, c, weights);
		if (at == NO_ORIGIN)
			return NO_ORIGIN; /* tried all */
		CHECK(s, weights[at] > 0, "a choice is out of the usable");
		if (try_origin(s, at, all_down)) {
			s->moved += remembered != NO_ORIGIN && at != remembered;
			if (s->persistent && at != remembered) {
				persist_set(&s->persist, slot, at);
				c->origin = at;
			}
			return at;
		}
		tried[at] = true;
	}
	return NO_ORIGIN;
}

static void on_client(struct sim *s)
{
	uint32_t index = below(s, CLIENTS), slot = PERSIST_NONE, remembered = NO_ORIGIN, flow;
	struct client *c = &s->clients[index];
	unsigned int at;

	event_add(s, s->now + around(s, 30 * NSEC_PER_MSEC), EVENT_CLIENT, 0);
	for (unsigned int i = 0; i < s->count; i++) {
		struct origin *o = &s->origins[i];

		check_health(s, o);
		if (o->expected > 0 && share_exact(s, o) >= 1)
			slow_start_end(s, o);
	}
	if (s->idle_count == 0)
		return;
	if (s->persistent)
		remembered = remember(s, c, &slot);
	at = connect_flow(s, c, slot, remembered);
	if (at == NO_ORIGIN) {
		if (s->persistent)
			forget(s, c, slot);
		return;
	}
	s->served++;
	s->flows[at]++;
	flow = s->idle[--s->idle_count];
	s->running[flow] = (struct flow){ .client = index, .origin = at, .slot = slot };
	event_add(s, s->now + around(s, below(s, 10) ? NSEC_PER_SEC : 20 * NSEC_PER_SEC), EVENT_FLOW_END, flow);
}

static void on_flow_end(struct sim *s, uint32_t index)
{
	struct flow *f = &s->running[index];

	s->flows[f->origin]--;
	if (s->persistent)
		forget(s, &s->clients[f->client], f->slot);
	s->idle[s->idle_count++] = index;
}

/* --- a run --- */

static void sim_init(struct sim *s, uint64_t seed)
{
	uint64_t ids[ORIGINS_MAX];
	uint32_t weights[ORIGINS_MAX];

	memset(s, 0, sizeof(*s));
	s->seed = seed;
	s->now = BEGIN;
	s->count = 1 + below(s, ORIGINS_MAX);
	s->method = (enum method)below(s, METHODS);
	s->policy = (struct health_policy){
		.rise = 1 + below(s, 3),
		.fall = 1 + below(s, 3),
		.passive_fall = below(s, 4),
		.slow_start = below(s, 3) * 10 * NSEC_PER_SEC,
	};
	s->interval = (1 + below(s, 5)) * NSEC_PER_SEC;
	s->probe_max = s->interval / 2;
	s->ttl = below(s, 20) * NSEC_PER_SEC;
	s->persistent = below(s, 2);
	s->use_all = below(s, 2);
	for (unsigned int i = 0; i < s->count; i++) {
		struct origin *o = &s->origins[i];

		o->id = ids[i] = rnd(s);
		o->weight = weights[i] = 1 + below(s, 5);
		o->alive = below(s, 8);
		o->alive_since = s->now;
		health_init(&o->health, s->now);
		event_add(s, s->now + around(s, 40 * NSEC_PER_SEC), EVENT_LIFE, i);
		event_add(s, health_next(s->interval, o->id, s->now), EVENT_PROBE, i);
	}
	s->table_size = maglev_size(s->count);
	maglev_build(s->table, s->table_size, ids, weights, s->count);
	for (unsigned int i = 0; i < CLIENTS; i++)
		s->clients[i] = (struct client){ .key = rnd(s), .origin = NO_ORIGIN };
	for (uint32_t i = 0; i < FLOWS_MAX; i++)
		s->idle[s->idle_count++] = i;
	event_add(s, s->now + 1, EVENT_CLIENT, 0);
	if (persist_init(&s->persist, PERSIST_SLOTS))
		abort();
}

static void sim_event(struct sim *s, const struct event *e)
{
	bool over = s->now >= BEGIN + DURATION; /* only what runs is brought to its end */

	switch (e->kind) {
	case EVENT_LIFE:
		if (!over)
			on_life(s, &s->origins[e->index], e->index);
		break;
	case EVENT_PROBE:
		if (!over)
			on_probe(s, &s->origins[e->index], e->index);
		break;
	case EVENT_RESULT:
		on_result(s, &s->origins[e->index]);
		break;
	case EVENT_CLIENT:
		if (!over)
			on_client(s);
		break;
	case EVENT_FLOW_END:
		on_flow_end(s, e->index);
		break;
	}
}

static void sim_run(struct sim *s)
{
	while (s->event_count) {
		struct event e = event_take(s);

		CHECK(s, e.time >= s->now, "time goes on");
		s->now = e.time;
		sim_event(s, &e);
	}
	for (unsigned int i = 0; i < s->count; i++)
		CHECK(s, s->flows[i] == 0, "no flow is left");
	for (uint32_t i = 0; i < PERSIST_SLOTS; i++)
		CHECK(s, (atomic_load(&s->persist.slots[i].word) & PERSIST_FLOWS_MAX) == 0, "no place is held");
	persist_deinit(&s->persist);
}

/* Two thousand origins are probed every 5 s from a random time on; a reload changes that to 3 s. */
static void check_stampede(struct sim *s)
{
	enum { TARGETS = 2000, BUCKETS = 500, AT_MOST = 20 /* in 10 ms; 4 or 7 are expected */ };
	static const nsec_t intervals[] = { 5 * NSEC_PER_SEC, 3 * NSEC_PER_SEC };
	nsec_t begin = s->now + (nsec_t)(rnd(s) % (uint64_t)(86400 * NSEC_PER_SEC));

	for (size_t i = 0; i < ARRAY_SIZE(intervals); i++) {
		uint16_t counts[BUCKETS] = { 0 };
		nsec_t span = (nsec_t)BUCKETS * 10 * NSEC_PER_MSEC;

		for (uint64_t target = 0; target < TARGETS; target++) {
			uint64_t seed = hash_bytes(&target, sizeof(target), s->seed);
			nsec_t at = health_next(intervals[i], seed, begin);

			CHECK(s, at - begin <= intervals[i] * 12 / 10, "the first probe comes within an interval");
			for (; at < begin + span; at = health_next(intervals[i], seed, at))
				counts[(at - begin) / (10 * NSEC_PER_MSEC)]++;
		}
		for (size_t b = 0; b < BUCKETS; b++)
			CHECK(s, counts[b] <= AT_MOST + (i ? 5 : 0), "probes do not stampede");
		begin += span;
	}
}

int main(int argc, char **argv)
{
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1,
		 seeds = argc > 2 ? strtoull(argv[2], NULL, 10) : 250;
	uint64_t served = 0, refused = 0, failed = 0, moved = 0, down = 0;
	double ramp_expected = 0, ramp_got = 0;
	static struct sim s;
	nsec_t begin = clock_now();

	for (uint64_t seed = first; seed < first + seeds; seed++) {
		sim_init(&s, seed);
		sim_run(&s);
		if (seed % 10 == 0)
			check_stampede(&s);
		served += s.served;
		refused += s.refused;
		failed += s.failed;
		moved += s.moved;
		ramp_expected += s.ramp_expected;
		ramp_got += s.ramp_got;
		for (unsigned int i = 0; i < s.count; i++)
			down += s.origins[i].health.went_down;
	}
	printf("%llu seeds: %llu flows served, %llu refused, %llu connects failed, %llu clients moved, %llu times "
	       "down; "
	       "%.2f s\n",
		(unsigned long long)seeds, (unsigned long long)served, (unsigned long long)refused,
		(unsigned long long)failed, (unsigned long long)moved, (unsigned long long)down,
		(double)(clock_now() - begin) / 1e9);
	if (ramp_expected > 10000 && (ramp_got > ramp_expected * 1.02 || ramp_got < ramp_expected * 0.98)) {
		fprintf(stderr, "in slow starts %.0f turns, expected %.0f\n", ramp_got, ramp_expected);
		return 1;
	}
	return 0;
}
