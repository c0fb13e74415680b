/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/health.h"
#include "base/error.h"
#include "base/hash.h"

static const struct {
	const char *word, *help;
} reasons[] = {
#define HEALTH(id, word, help) { word, help },
#include "tables/health_reason.def"
};

const char *health_reason_word(enum health_reason reason)
{
	ASSERT(reason < HEALTH_REASONS);
	return reasons[reason].word;
}

const char *health_reason_help(enum health_reason reason)
{
	ASSERT(reason < HEALTH_REASONS);
	return reasons[reason].help;
}

const char *health_state_word(enum health_state state)
{
	static const char *const words[] = { [HEALTH_ASSUMED] = "assumed", [HEALTH_UP] = "up", [HEALTH_DOWN] = "down" };

	ASSERT(state < ARRAY_SIZE(words));
	return words[state];
}

void health_init(struct health *h, nsec_t now)
{
	*h = (struct health){ .since = now };
}

/* The only place where the state changes. */
static void health_move(struct health *h, enum health_state to, enum health_reason reason, nsec_t now)
{
	bool was_up = health_is_up(h);

	h->state = to;
	h->reason = reason;
	if (health_is_up(h) == was_up)
		return;
	h->since = now;
	h->good_row = 0;
	h->failed_row = 0;
	h->passive_row = 0;
	if (was_up) {
		h->went_down++;
	} else {
		h->went_up++;
		h->recovered = true;
	}
}

static void count_row(uint32_t *row)
{
	*row += *row < UINT32_MAX;
}

bool health_probe(
	struct health *h, const struct health_policy *policy, enum health_reason reason, nsec_t latency, nsec_t now)
{
	bool was_up = health_is_up(h);

	h->last = reason;
	h->checked = now;
	if (reason == HEALTH_OK) {
		h->probes_ok++;
		h->latency = latency;
		h->failed_row = 0;
		count_row(&h->good_row);
		if (was_up || h->good_row >= policy->rise)
			health_move(h, HEALTH_UP, HEALTH_OK, now);
		return health_is_up(h) != was_up;
	}
	h->probes_failed++;
	if (reason == HEALTH_FAULT)
		return false;
	h->good_row = 0;
	count_row(&h->failed_row);
	if (!was_up || h->failed_row >= policy->fall)
		health_move(h, HEALTH_DOWN, reason, now);
	return health_is_up(h) != was_up;
}

bool health_passive(struct health *h, const struct health_policy *policy, enum health_reason reason, nsec_t now)
{
	h->last = reason;
	h->passive_failed++;
	if (policy->passive_fall == 0 || !health_is_up(h))
		return false;
	count_row(&h->passive_row);
	if (h->passive_row < policy->passive_fall)
		return false;
	health_move(h, HEALTH_DOWN, reason, now);
	return true;
}

void health_passive_ok(struct health *h)
{
	h->passive_row = 0;
}

uint32_t health_share(const struct health *h, const struct health_policy *policy, nsec_t now)
{
	nsec_t up_for = MAX(now - h->since, 0);

	if (!health_is_up(h))
		return 0;
	if (!h->recovered || up_for >= policy->slow_start)
		return HEALTH_SHARE_FULL;
	return (uint32_t)MAX(up_for * HEALTH_SHARE_FULL / policy->slow_start, 1);
}

/* The time of an origin's probe number @k. */
static nsec_t probe_time(nsec_t interval, uint64_t seed, int64_t k)
{
	struct {
		uint64_t seed;
		int64_t k;
	} key = { seed, k };
	uint64_t span = (uint64_t)interval;
	nsec_t offset = (nsec_t)(hash_bytes(&seed, sizeof(seed), 0) % span);
	nsec_t jitter = (nsec_t)(hash_bytes(&key, sizeof(key), 1) % (span / 5 + 1)) - interval / 10;

	return k * interval + offset + jitter;
}

nsec_t health_next(nsec_t interval, uint64_t seed, nsec_t now)
{
	int64_t k;

	ASSERT(interval >= 10 && now >= 0);
	k = now / interval - 2; /* surely not after now: offset and jitter are less than two intervals */
	while (probe_time(interval, seed, k) <= now)
		k++;
	return probe_time(interval, seed, k);
}
