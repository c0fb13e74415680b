/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An immutable set of prefixes with a small verdict each, for lists of allowed and denied addresses with up to millions
 * of entries. The longest prefix that holds an address decides. Once made it is only read, by any number of threads.
 *
 * Prefixes are flattened into disjoint intervals: N prefixes have at most 2N + 1 places where the verdict changes, and
 * the answer is the last such place that is not behind the address. The upper 64 bits of these places form a static
 * B+ tree of nodes of one cache line (8 keys, 9 children, no pointers: a child's place is computed), so a million
 * prefixes are 7 lines deep, of which the upper five stay in the cache. Places that differ in the lower 64 bits only,
 * that is prefixes longer than /64, are searched in a sorted run behind their key. An IPv4 address is the upper half of
 * a key of its own tree, so it never needs a run. Compare poptrie (Asai, Ohara, SIGCOMM 2015) and DXR (Zec, Rizzo,
 * Mikuc, CCR 2012), which save a line or two for IPv4 but need tables of fixed size that small lists would pay for.
 *
 * Memory for each prefix, when no two neighbours agree: 20 bytes for IPv4 and for IPv6 up to /64 (2 keys of 8, an
 * eighth of that for inner nodes, 2 verdicts), 8 more for the latter in a set that has longer ones, and 32 to 40 for
 * these. Nested and adjacent prefixes of one verdict need less. Building takes up to 100 bytes a prefix more, given
 * back then.
 */
#pragma once

#include "base/addr.h"

enum { PREFIX_VERDICT_MAX = 254 };

struct prefix_item {
	struct prefix prefix; /* of addr.h: bits behind the prefix are zero */
	uint8_t verdict;      /* 0 to PREFIX_VERDICT_MAX, what it means is the caller's */
};

struct prefix_set;

enum { PREFIX_SET_OK, PREFIX_SET_E_NONE };

/**
 * prefix_set_new() - make a set
 * @items, @count: in any order, copied; may be empty. Of equal prefixes the highest verdict holds, so a list where deny
 * is to win gives deny the higher number
 * @ret_set: for prefix_set_free()
 *
 * Time is that of sorting @items.
 *
 * Return: 0; -EINVAL for a verdict or a number of bits out of range, or bits behind the prefix; -E2BIG for more than
 * 2^30 items; -ENOMEM.
 */
MUST_CHECK int prefix_set_new(const struct prefix_item *items, size_t count, struct prefix_set **ret_set);

/** prefix_set_free() - NULL is accepted */
void prefix_set_free(struct prefix_set *set);

/**
 * prefix_set_find() - the verdict of the longest prefix that has @ip, as prefix_has() tells: IPv4 addresses lie in IPv4
 * prefixes only
 *
 * Return: PREFIX_SET_OK; PREFIX_SET_E_NONE when no prefix has it.
 */
MUST_CHECK int prefix_set_find(const struct prefix_set *set, const struct ip *ip, uint8_t *ret_verdict);

/** prefix_set_bytes() - memory that the set holds */
size_t prefix_set_bytes(const struct prefix_set *set);
