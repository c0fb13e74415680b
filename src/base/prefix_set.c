/* SPDX-License-Identifier: Apache-2.0 */
#include "base/prefix_set.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 u128;

enum {
	NODE_KEYS = 8,		       /* of 8 bytes: a cache line */
	NODE_CHILDREN = NODE_KEYS + 1, /* key i is the smallest one below child i + 1 */
	LAYERS_MAX = 12,	       /* 9^11 leaves and more */
	LINE = 64,
	NONE = PREFIX_VERDICT_MAX + 1,
	ITEMS_MAX = 1 << 30, /* so that places are counted in 32 bits */
};

/* An address as a number. IPv4 stands in the upper 32 bits. */
static u128 number_of(const struct ip *ip)
{
	uint64_t high, low;

	memcpy(&high, ip->bytes, 8);
	memcpy(&low, ip->bytes + 8, 8);
	high = __builtin_bswap64(high);
	low = __builtin_bswap64(low);
	return ip_is_v4(ip) ? (u128)low << 96 : (u128)high << 64 | low;
}

/* Places where the verdict changes, of one family. The first key is 0, unused ones at a layer's end are UINT64_MAX. */
struct tree {
	uint64_t *keys;	   /* upper halves, all layers, leaves first; a leaf is NODE_KEYS of them in order */
	uint8_t *verdicts; /* at key i: from the last place with that upper half on */
	uint32_t *runs;	   /* key i's lower halves are lows[runs[i]] to lows[runs[i + 1] - 1]; none: it is 0 */
	uint64_t *lows;	   /* NULL as well as runs when every lower half is 0 */
	uint8_t *low_verdicts;
	size_t layer_at[LAYERS_MAX];
	uint32_t count; /* of keys, at least one */
	unsigned int layers;
	size_t bytes;
};

struct prefix_set {
	struct tree v4, v6;
};

/* --- looking up --- */

/* How many keys of a node are not greater than @key. */
static inline size_t node_rank(const uint64_t *node, uint64_t key)
{
	size_t rank = 0;

	for (size_t i = 0; i < NODE_KEYS; i++)
		rank += node[i] <= key;
	return rank;
}

/* The last key that is not greater than @key. */
static inline size_t tree_search(const struct tree *t, uint64_t key)
{
	size_t node = 0;

	if (key == UINT64_MAX)
		return t->count - 1; /* it would be found in what fills up the nodes */
	for (unsigned int layer = t->layers - 1; layer > 0; layer--)
		node = node * NODE_CHILDREN + node_rank(t->keys + t->layer_at[layer] + node * NODE_KEYS, key);
	return node * NODE_KEYS + node_rank(t->keys + node * NODE_KEYS, key) - 1;
}

static uint8_t tree_find(const struct tree *t, u128 number)
{
	uint64_t high = (uint64_t)(number >> 64), low = (uint64_t)number;
	size_t at = tree_search(t, high), length;
	const uint64_t *run;

	if (!t->runs || t->keys[at] != high || t->runs[at] == t->runs[at + 1])
		return t->verdicts[at];
	run = t->lows + t->runs[at];
	length = t->runs[at + 1] - t->runs[at];
	if (low < run[0])
		return t->verdicts[at - 1]; /* there is one: the first key's run would begin with 0 */
	while (length > 1) {		    /* run[0] <= low; without branches that depend on the data */
		size_t half = length / 2;

		run += run[half] <= low ? half : 0;
		length -= half;
	}
	return t->low_verdicts[run - t->lows];
}

int prefix_set_find(const struct prefix_set *set, const struct ip *ip, uint8_t *ret_verdict)
{
	uint8_t verdict = tree_find(ip_is_v4(ip) ? &set->v4 : &set->v6, number_of(ip));

	if (verdict == NONE)
		return PREFIX_SET_E_NONE;
	*ret_verdict = verdict;
	return PREFIX_SET_OK;
}

/* --- building --- */

/* A prefix of the family at hand, in two halves so that it takes 24 bytes. */
struct range {
	uint64_t high, low;
	uint8_t bits; /* 0-128, IPv4 0-32 */
	uint8_t verdict;
};

struct place {
	uint64_t high, low;
};

/* Where the verdict changes, in order; no two neighbours have the same place or verdict. */
struct places {
	struct place *at;
	uint8_t *verdicts;
	size_t count;
};

static u128 range_start(const struct range *r)
{
	return (u128)r->high << 64 | r->low;
}

static u128 range_end(const struct range *r)
{
	return range_start(r) | (r->bits == 128 ? 0 : ~(u128)0 >> r->bits);
}

/* Before those that it holds comes the shorter prefix, and of equal ones first the verdict that wins. */
static int range_order(const void *va, const void *vb)
{
	const struct range *a = va, *b = vb;

	if (a->high != b->high)
		return a->high < b->high ? -1 : 1;
	if (a->low != b->low)
		return a->low < b->low ? -1 : 1;
	if (a->bits != b->bits)
		return a->bits < b->bits ? -1 : 1;
	return b->verdict - a->verdict;
}

/* From @start on it is @verdict; @start is not before the last one. */
static void places_add(struct places *p, u128 start, uint8_t verdict)
{
	struct place place = { .high = (uint64_t)(start >> 64), .low = (uint64_t)start };

	if (p->count && p->at[p->count - 1].high == place.high && p->at[p->count - 1].low == place.low)
		p->count--;
	if (p->count && p->verdicts[p->count - 1] == verdict)
		return;
	p->at[p->count] = place;
	p->verdicts[p->count++] = verdict;
}

/* @ranges are in order; @p has room for two places each, and one. */
static void places_fill(struct places *p, const struct range *ranges, size_t count)
{
	const struct range *open[129]; /* around the place at hand, each within the one before */
	size_t depth = 0;

	places_add(p, 0, NONE);
	for (size_t i = 0; i <= count; i++) {
		const struct range *r = i < count ? &ranges[i] : NULL;

		while (depth && (!r || range_end(open[depth - 1]) < range_start(r))) {
			u128 end = range_end(open[--depth]);

			if (end != ~(u128)0)
				places_add(p, end + 1, depth ? open[depth - 1]->verdict : (uint8_t)NONE);
		}
		if (!r || (depth && open[depth - 1]->bits == r->bits && range_start(open[depth - 1]) == range_start(r)))
			continue;
		places_add(p, range_start(r), r->verdict);
		open[depth++] = r;
	}
}

/* Zeroed, or NULL; counted in @bytes. */
static void *take(size_t count, size_t size, size_t *bytes)
{
	size_t length = (count * size + LINE - 1) / LINE * LINE;
	void *memory = aligned_alloc(LINE, length);

	if (memory) {
		memset(memory, 0, length);
		*bytes += length;
	}
	return memory;
}

static void tree_deinit(struct tree *t)
{
	free(t->keys);
	free(t->verdicts);
	free(t->runs);
	free(t->lows);
	free(t->low_verdicts);
}

/* The inner layers, from the leaves that are filled in. */
static void tree_fill_layers(struct tree *t, size_t leaves)
{
	size_t below = 1; /* leaves below a child */

	for (unsigned int layer = 1; layer < t->layers; layer++) {
		size_t nodes = (leaves + below * NODE_CHILDREN - 1) / (below * NODE_CHILDREN);

		for (size_t node = 0; node < nodes; node++) {
			for (size_t i = 0; i < NODE_KEYS; i++) {
				size_t leaf = (node * NODE_CHILDREN + i + 1) * below;

				t->keys[t->layer_at[layer] + node * NODE_KEYS + i] =
					leaf < leaves ? t->keys[leaf * NODE_KEYS] : UINT64_MAX;
			}
		}
		below *= NODE_CHILDREN;
	}
}

/* Room for @count keys and the layers over them. */
static int tree_take_keys(struct tree *t, size_t count, size_t *ret_leaves)
{
	size_t nodes = (count + NODE_KEYS - 1) / NODE_KEYS, total = nodes;

	*ret_leaves = nodes;
	t->layers = 1;
	while (nodes > 1) {
		nodes = (nodes + NODE_CHILDREN - 1) / NODE_CHILDREN;
		ASSERT(t->layers < LAYERS_MAX);
		t->layer_at[t->layers++] = total * NODE_KEYS;
		total += nodes;
	}
	t->keys = take(total * NODE_KEYS, sizeof(*t->keys), &t->bytes);
	t->verdicts = take(count, 1, &t->bytes);
	return t->keys && t->verdicts ? 0 : fault(-ENOMEM);
}

static int tree_fill(struct tree *t, const struct places *p)
{
	size_t keys = 0, lows = 0, leaves, key = 0, low = 0, end;
	int r;

	for (size_t i = 0; i < p->count; i = end) {
		for (end = i + 1; end < p->count && p->at[end].high == p->at[i].high; end++)
			;
		keys++;
		lows += end - i > 1 || p->at[i].low ? end - i : 0;
	}
	r = tree_take_keys(t, keys, &leaves);
	if (r)
		return r;
	if (lows) {
		t->runs = take(keys + 1, sizeof(*t->runs), &t->bytes);
		t->lows = take(lows, sizeof(*t->lows), &t->bytes);
		t->low_verdicts = take(lows, 1, &t->bytes);
		if (!t->runs || !t->lows || !t->low_verdicts)
			return fault(-ENOMEM);
	}
	for (size_t i = 0; i < p->count; i = end) {
		for (end = i + 1; end < p->count && p->at[end].high == p->at[i].high; end++)
			;
		t->keys[key] = p->at[i].high;
		t->verdicts[key] = p->verdicts[end - 1];
		for (size_t j = i; (end - i > 1 || p->at[i].low) && j < end; j++, low++) {
			t->lows[low] = p->at[j].low;
			t->low_verdicts[low] = p->verdicts[j];
		}
		key++;
		if (t->runs)
			t->runs[key] = (uint32_t)low;
	}
	for (; key < leaves * NODE_KEYS; key++)
		t->keys[key] = UINT64_MAX;
	t->count = (uint32_t)keys;
	tree_fill_layers(t, leaves);
	return 0;
}

/* The ranges of one family. */
static size_t ranges_fill(struct range *ranges, const struct prefix_item *items, size_t count, bool v4)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		const struct prefix *p = &items[i].prefix;
		u128 number = number_of(&p->ip);

		if (ip_is_v4(&p->ip) == v4)
			ranges[n++] = (struct range){
				.high = (uint64_t)(number >> 64),
				.low = (uint64_t)number,
				.bits = (uint8_t)(p->bits - (v4 ? 96 : 0)),
				.verdict = items[i].verdict,
			};
	}
	return n;
}

static int tree_init(struct tree *t, const struct prefix_item *items, size_t count, bool v4)
{
	struct range *ranges = malloc((count + 1) * sizeof(*ranges));
	size_t n = ranges ? ranges_fill(ranges, items, count, v4) : 0;
	struct places p = { .at = malloc((2 * n + 1) * sizeof(*p.at)), .verdicts = malloc(2 * n + 1) };
	int r;

	if (ranges && p.at && p.verdicts) {
		qsort(ranges, n, sizeof(*ranges), range_order);
		places_fill(&p, ranges, n);
		r = tree_fill(t, &p);
	} else {
		r = fault(-ENOMEM);
	}
	free(ranges);
	free(p.at);
	free(p.verdicts);
	return r;
}

static bool item_valid(const struct prefix_item *item)
{
	const struct prefix *p = &item->prefix;
	struct ip masked;

	if (item->verdict > PREFIX_VERDICT_MAX || p->bits > 128)
		return false;
	masked = ip_mask(&p->ip, p->bits);
	return ip_equal(&masked, &p->ip);
}

int prefix_set_new(const struct prefix_item *items, size_t count, struct prefix_set **ret_set)
{
	struct prefix_set *set;
	int r;

	if (count > ITEMS_MAX)
		return fault(-E2BIG);
	for (size_t i = 0; i < count; i++)
		if (!item_valid(&items[i]))
			return fault(-EINVAL);
	set = calloc(1, sizeof(*set));
	if (!set)
		return fault(-ENOMEM);
	r = tree_init(&set->v4, items, count, true);
	if (r == 0)
		r = tree_init(&set->v6, items, count, false);
	if (r) {
		prefix_set_free(set);
		return r;
	}
	*ret_set = set;
	return 0;
}

void prefix_set_free(struct prefix_set *set)
{
	if (!set)
		return;
	tree_deinit(&set->v4);
	tree_deinit(&set->v6);
	free(set);
}

size_t prefix_set_bytes(const struct prefix_set *set)
{
	return sizeof(*set) + set->v4.bytes + set->v6.bytes;
}
