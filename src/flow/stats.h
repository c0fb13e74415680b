/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting. Each number has one writing thread (its worker) and any number of readers, so an addition is a relaxed
 * load and store, not a locked instruction. The words of reasons and the help of counters come from tables/.
 */
#pragma once

#include "base/macros.h"

#include <stdatomic.h>

typedef _Atomic uint64_t counter;

/** counter_add() - by the one writing thread */
static inline void counter_add(counter *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

/** counter_get() - from any thread */
static inline uint64_t counter_get(const counter *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

enum end_reason {
#define END(id, ...) END_##id,
#include "tables/end_reason.def"
	END_N
};

enum end_side { END_SIDE_CLIENT, END_SIDE_ORIGIN, END_SIDE_EDGE, END_SIDE_FIRST };

enum end_close { END_CLOSE_FIN, END_CLOSE_RST };

struct end_row {
	const char *word;
	const char *help;
	enum end_side side;
	enum end_close close;
	bool logged;
};

/* by enum end_reason */
extern const struct end_row end_rows[END_N];

/** end_side_name() - "client", "origin" or "edge" */
const char *end_side_name(enum end_side side);

enum drop_reason {
#define DROP(id, ...) DROP_##id,
#include "tables/drop.def"
	DROP_N
};

struct named_row {
	const char *word;
	const char *help;
};

/* by enum drop_reason */
extern const struct named_row drop_rows[DROP_N];

enum counter_id {
#define COUNTER(id, ...) COUNTER_##id,
#include "tables/counter.def"
	COUNTER_N
};

/* by enum counter_id; word is the metric's name */
extern const struct named_row counter_rows[COUNTER_N];

/* Upper bounds of the connect time histogram, in microseconds; one more bucket takes the rest. */
enum { CONNECT_BUCKETS = 10 };
extern const uint32_t connect_bucket_us[CONNECT_BUCKETS];

/* What one worker counts of one rule. */
struct rule_stats {
	_Alignas(64) counter flows; /* admitted */
	counter active;
	counter bytes_in; /* from clients */
	counter bytes_out;
	counter datagrams_in;
	counter datagrams_out;
	counter connect_sum_us;
	counter connects[CONNECT_BUCKETS + 1]; /* not cumulative */
	counter ended[END_N];		       /* refusals included */
	counter dropped[DROP_N];
	uint32_t turn; /* for round robin */
};

/** rule_stats_connected() - note how long a connection to the origin took */
void rule_stats_connected(struct rule_stats *s, uint64_t connect_us);
