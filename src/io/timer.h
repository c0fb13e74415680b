/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coarse timers: a wheel of four levels of 64 slots, ticks of 8 ms, up to 37 hours ahead. Starting and stopping are
 * O(1); a timer fires at its deadline or up to one tick later, never before. The wheel has no clock of its own:
 * callers bring the time, so tests run on a simulated one.
 */
#pragma once

#include "base/clock.h"
#include "base/list.h"

enum {
	TIMER_LEVELS = 4,
	TIMER_SLOT_BITS = 6,
	TIMER_SLOTS = 1 << TIMER_SLOT_BITS,
	TIMER_TICK_MS = 8,
};

struct timer {
	struct list node;
	uint64_t due; /* tick */
	void (*fire)(struct timer *timer);
};

struct timers {
	uint64_t tick;	   /* everything due before this tick has fired */
	uint64_t earliest; /* what is started is due at this tick or later: tick, or the first one after timers_run()
			      while it runs */
	uint64_t used[TIMER_LEVELS]; /* bit i: slot i has timers */
	struct list slots[TIMER_LEVELS][TIMER_SLOTS];
};

/** timers_init() - an empty wheel that starts at @now */
void timers_init(struct timers *ts, nsec_t now);

/** timer_init() - @fire is called with the timer stopped; it may start it again or free what it is part of */
void timer_init(struct timer *t, void (*fire)(struct timer *timer));

/** timer_start() - (re)start for a time; a time in the past fires at the next tick, never in the timers_run() that runs
 */
void timer_start(struct timers *ts, struct timer *t, nsec_t at);

/** timer_stop() - harmless when it is not running */
void timer_stop(struct timer *t);

/** timer_running() - whether it is started and has not fired yet */
static inline bool timer_running(const struct timer *t)
{
	return !list_empty(&t->node);
}

/** timers_run() - fire everything due at @now */
void timers_run(struct timers *ts, nsec_t now);

/**
 * timers_next() - how long to wait for the next timers_run()
 *
 * Return: milliseconds from @now; 0 when something is due; -1 when no timer runs. It may be earlier than any timer
 * is due (a slot of a higher level has to be sorted out then), never later.
 */
int timers_next(const struct timers *ts, nsec_t now);
