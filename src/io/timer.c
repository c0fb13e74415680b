/* SPDX-License-Identifier: Apache-2.0 */
#include "io/timer.h"

#define TICK (TIMER_TICK_MS * NSEC_PER_MSEC)

/* Ticks until the wheel of @level has turned once. */
#define SPAN(level) (UINT64_C(1) << (TIMER_SLOT_BITS * ((level) + 1)))

void timers_init(struct timers *ts, nsec_t now)
{
	*ts = (struct timers){ .tick = (uint64_t)(now / TICK), .earliest = (uint64_t)(now / TICK) };
	for (int level = 0; level < TIMER_LEVELS; level++)
		for (int slot = 0; slot < TIMER_SLOTS; slot++)
			list_init(&ts->slots[level][slot]);
}

void timer_init(struct timer *t, void (*fire)(struct timer *timer))
{
	list_init(&t->node);
	t->due = 0;
	t->fire = fire;
}

static unsigned int slot_of(uint64_t tick, int level)
{
	return tick >> (TIMER_SLOT_BITS * level) & (TIMER_SLOTS - 1);
}

/* Puts a timer where its due tick belongs, seen from ts->tick. */
static void place(struct timers *ts, struct timer *t)
{
	uint64_t due = t->due, ahead = due - ts->tick;
	unsigned int slot;
	int level = 0;

	while (level < TIMER_LEVELS - 1 && ahead >= SPAN(level))
		level++;
	if (ahead >= SPAN(level))
		due = ts->tick + SPAN(level) - 1; /* beyond the wheel: looked at again when it comes round */
	slot = slot_of(due, level);
	list_add(&ts->slots[level][slot], &t->node);
	ts->used[level] |= UINT64_C(1) << slot;
}

void timer_start(struct timers *ts, struct timer *t, nsec_t at)
{
	uint64_t due = at <= 0 ? 0 : ((uint64_t)at + TICK - 1) / TICK;

	timer_stop(t);
	t->due = MAX(due, ts->earliest);
	place(ts, t);
}

void timer_stop(struct timer *t)
{
	list_del(&t->node);
}

/* Takes a slot's timers off and marks it empty. */
static void take_slot(struct timers *ts, int level, unsigned int slot, struct list *ret_list)
{
	struct list *head = &ts->slots[level][slot];

	list_init(ret_list);
	ts->used[level] &= ~(UINT64_C(1) << slot);
	if (list_empty(head))
		return;
	*ret_list = *head;
	ret_list->next->prev = ret_list;
	ret_list->prev->next = ret_list;
	list_init(head);
}

/* When a lower wheel has turned once, the next slot of the wheel above is spread over it. */
static void cascade(struct timers *ts)
{
	for (int level = 1; level < TIMER_LEVELS && slot_of(ts->tick, level - 1) == 0; level++) {
		struct list due;

		take_slot(ts, level, slot_of(ts->tick, level), &due);
		while (!list_empty(&due)) {
			struct timer *t = CONTAINER_OF(due.next, struct timer, node);

			list_del(&t->node);
			place(ts, t);
		}
	}
}

/* The first tick after ts->tick at which something may have to be done, or UINT64_MAX when no timer is placed. */
static uint64_t next_tick(const struct timers *ts)
{
	uint64_t next = UINT64_MAX;

	for (int level = 0; level < TIMER_LEVELS; level++) {
		unsigned int now = slot_of(ts->tick, level);
		uint64_t ring = ts->used[level] >> now | (now ? ts->used[level] << (TIMER_SLOTS - now) : 0);
		uint64_t base = ts->tick >> (TIMER_SLOT_BITS * level);
		uint64_t ahead;

		if (ring == 0)
			continue;
		/* above level 0, a timer in the current slot has gone round: its slot comes again after a whole turn */
		if (level > 0 && (ring & ~UINT64_C(1)) == 0)
			ahead = TIMER_SLOTS;
		else
			ahead = (uint64_t)__builtin_ctzll(level > 0 ? ring & ~UINT64_C(1) : ring);
		next = MIN(next, (base + ahead) << (TIMER_SLOT_BITS * level));
	}
	return next;
}

void timers_run(struct timers *ts, nsec_t now)
{
	uint64_t target = (uint64_t)(now / TICK);

	/* else a timer that restarts itself would land in the slot that is being emptied, and wait for a turn of the
	 * wheel */
	ts->earliest = MAX(ts->earliest, target + 1);
	while (ts->tick <= target) {
		struct list due;

		take_slot(ts, 0, slot_of(ts->tick, 0), &due);
		while (!list_empty(&due)) {
			struct timer *t = CONTAINER_OF(due.next, struct timer, node);

			list_del(&t->node);
			if (t->due > ts->tick)
				place(ts, t);
			else
				t->fire(t);
		}
		/* skip what is empty, in one step */
		ts->tick = MAX(ts->tick + 1, MIN(next_tick(ts), target + 1));
		cascade(ts);
	}
}

int timers_next(const struct timers *ts, nsec_t now)
{
	uint64_t next = next_tick(ts);
	nsec_t at;

	if (next == UINT64_MAX)
		return -1;
	at = (nsec_t)next * TICK;
	return at <= now ? 0 : (int)MIN((at - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC, (nsec_t)INT32_MAX);
}
