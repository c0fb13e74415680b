/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/stats.h"

const struct end_row end_rows[END_N] = {
#define END(id, w, s, c, l, h)                                                                                         \
	[END_##id] = { .word = w, .help = h, .side = END_SIDE_##s, .close = END_CLOSE_##c, .logged = l },
#include "tables/end_reason.def"
};

const struct named_row drop_rows[DROP_N] = {
#define DROP(id, w, h) [DROP_##id] = { w, h },
#include "tables/drop.def"
};

const struct named_row counter_rows[COUNTER_N] = {
#define COUNTER(id, n, h) [COUNTER_##id] = { n, h },
#include "tables/counter.def"
};

const uint32_t connect_bucket_us[CONNECT_BUCKETS] = { 500, 1000, 2500, 5000, 10000, 25000, 100000, 250000, 1000000,
	5000000 };

const char *end_side_name(enum end_side side)
{
	static const char *const names[] = { "client", "origin", "edge", "first" };

	return names[side];
}

void rule_stats_connected(struct rule_stats *s, uint64_t connect_us)
{
	size_t bucket = 0;

	while (bucket < CONNECT_BUCKETS && connect_us > connect_bucket_us[bucket])
		bucket++;
	counter_add(&s->connects[bucket], 1);
	counter_add(&s->connect_sum_us, connect_us);
}
