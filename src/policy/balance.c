/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/balance.h"
#include "base/error.h"
#include "base/hash.h"

#include <stdlib.h>

int balance_round_robin(int64_t *current, const uint32_t *weights, unsigned int count, unsigned int *ret_index)
{
	unsigned int best = count;
	int64_t total = 0;

	for (unsigned int i = 0; i < count; i++)
		total += weights[i];
	for (unsigned int i = 0; i < count; i++) {
		if (weights[i] == 0)
			continue;
		/* What is left from larger weights would be worth hundreds of turns now. Constant ones stay within. */
		current[i] = MIN(current[i], 2 * total);
		current[i] = MAX(current[i], -2 * total);
		current[i] += weights[i];
		if (best == count || current[i] > current[best])
			best = i;
	}
	if (best == count)
		return BALANCE_E_NONE;
	current[best] -= total;
	*ret_index = best;
	return BALANCE_OK;
}

/* How (flows + 1) / weight of a stands to that of b: negative when it is smaller. Both products fit 64 bits. */
static int load_order(const uint32_t *flows, const uint32_t *weights, unsigned int a, unsigned int b)
{
	uint64_t of_a = (flows[a] + UINT64_C(1)) * weights[b], of_b = (flows[b] + UINT64_C(1)) * weights[a];

	return (of_a > of_b) - (of_a < of_b);
}

int balance_least(
	const uint32_t *flows, const uint32_t *weights, unsigned int count, uint32_t turn, unsigned int *ret_index)
{
	unsigned int best = count, equal = 0, at;

	for (unsigned int i = 0; i < count; i++) {
		int order;

		if (weights[i] == 0)
			continue;
		order = best == count ? -1 : load_order(flows, weights, i, best);
		if (order < 0) {
			best = i;
			equal = 1;
		} else if (order == 0) {
			equal++;
		}
	}
	if (best == count)
		return BALANCE_E_NONE;
	/* The turn counts among equals only. To begin the search at a place that rotates would favour who stands behind
	 * a gap. */
	at = best;
	for (unsigned int skip = turn % equal; skip; skip--) {
		do {
			at++;
		} while (weights[at] == 0 || load_order(flows, weights, at, best) != 0);
	}
	*ret_index = at;
	return BALANCE_OK;
}

/* --- Maglev --- */

enum { ATTEMPTS = 16 };

/* Fixed for ever: nodes and releases choose alike. */
#define OFFSET_SEED UINT64_C(0x7469646567617465)
#define SKIP_SEED   UINT64_C(0x6d61676c65760001)
#define FIND_SEED   UINT64_C(0x6d61676c65760002)

uint32_t maglev_size(unsigned int count)
{
	static const uint32_t primes[] = { 1021, 2039, 4093, 8191, 16381, 32749, MAGLEV_SIZE_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(primes); i++)
		if (primes[i] >= count * 1000u)
			return primes[i];
	return MAGLEV_SIZE_MAX;
}

/* A member that fills the table. Its order of preference over the places is place, place + skip, … */
struct owner {
	uint64_t id;
	uint64_t credit; /* in weight; a turn costs as much as the heaviest member has */
	uint32_t weight;
	uint32_t place, skip;
	uint16_t index;
};

static int owner_order(const void *va, const void *vb)
{
	const struct owner *a = va, *b = vb;

	return (a->id > b->id) - (a->id < b->id);
}

static unsigned int owners_fill(struct owner *owners, uint32_t size, const uint64_t *ids, const uint32_t *weights,
	unsigned int count, uint32_t *ret_heaviest)
{
	unsigned int n = 0;

	*ret_heaviest = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (weights[i] == 0)
			continue;
		owners[n++] = (struct owner){
			.id = ids[i],
			.weight = weights[i],
			.place = (uint32_t)(hash_bytes(&ids[i], sizeof(*ids), OFFSET_SEED) % size),
			.skip = (uint32_t)(hash_bytes(&ids[i], sizeof(*ids), SKIP_SEED) % (size - 1)) + 1,
			.index = (uint16_t)i,
		};
		*ret_heaviest = MAX(*ret_heaviest, weights[i]);
	}
	qsort(owners, n, sizeof(*owners), owner_order); /* who has the first turn must not depend on the array */
	return n;
}

void maglev_build(uint16_t *table, uint32_t size, const uint64_t *ids, const uint32_t *weights, unsigned int count)
{
	struct owner owners[MAGLEV_MEMBERS_MAX];
	uint32_t heaviest, filled = 0;
	unsigned int n;

	ASSERT(count <= MAGLEV_MEMBERS_MAX && size > 2);
	for (uint32_t i = 0; i < size; i++)
		table[i] = MAGLEV_NONE;
	n = owners_fill(owners, size, ids, weights, count, &heaviest);
	while (n) {
		for (unsigned int i = 0; i < n; i++) {
			struct owner *o = &owners[i];

			o->credit += o->weight;
			if (o->credit < heaviest)
				continue;
			o->credit -= heaviest;
			while (table[o->place] != MAGLEV_NONE) {
				o->place += o->skip;
				o->place -= o->place >= size ? size : 0;
			}
			table[o->place] = o->index;
			if (++filled == size)
				return;
		}
	}
}

static uint32_t place_of(uint32_t size, uint64_t key, unsigned int attempt)
{
	return (uint32_t)(hash_bytes(&key, sizeof(key), FIND_SEED + attempt) % size);
}

uint16_t maglev_find(const uint16_t *table, uint32_t size, uint64_t key, unsigned int attempt)
{
	return table[place_of(size, key, attempt)];
}

int maglev_pick(const uint16_t *table, uint32_t size, uint64_t key, const uint32_t *weights, unsigned int *ret_index)
{
	uint32_t place = 0;

	for (unsigned int attempt = 0; attempt < ATTEMPTS; attempt++) {
		place = place_of(size, key, attempt);
		if (table[place] == MAGLEV_NONE)
			return BALANCE_E_NONE;
		if (weights[table[place]]) {
			*ret_index = table[place];
			return BALANCE_OK;
		}
	}
	/* nearly all are skipped: whoever owns the next place */
	for (uint32_t i = 0; i < size; i++) {
		place = place + 1 < size ? place + 1 : 0;
		if (weights[table[place]]) {
			*ret_index = table[place];
			return BALANCE_OK;
		}
	}
	return BALANCE_E_NONE;
}
