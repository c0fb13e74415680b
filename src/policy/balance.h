/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharing flows among the members of a pool: the algorithms, over arrays that the caller keeps. Pure.
 *
 * Weights are relative. A weight of 0 means "not now": the member is down, drained or already tried, and gets nothing.
 * In all arrays of a pool, member i is at index i.
 */
#pragma once

#include "base/macros.h"

enum { BALANCE_OK, BALANCE_E_NONE };

/**
 * balance_round_robin() - smooth weighted round robin, as nginx does it
 * @current: state of the members, int64_t[@count], zero at the beginning, of one thread; may be kept when weights
 * change
 * @weights: uint32_t[@count]
 *
 * With constant weights each member gets exactly its weight out of every sum(weights) turns, and they are mixed: 5:1:1
 * gives a a b a c a a. Threads that each have a state of their own all begin with the heaviest member; if that matters,
 * let thread n take n turns ahead. A member that is behind or ahead when weights change makes up for two turns at the
 * most. O(@count).
 *
 * Source: nginx, ngx_http_upstream_get_peer(), "smooth weighted round-robin balancing" (2012).
 *
 * Return: BALANCE_OK; BALANCE_E_NONE when all weights are 0.
 */
MUST_CHECK int balance_round_robin(
	int64_t *current, const uint32_t *weights, unsigned int count, unsigned int *ret_index);

/**
 * balance_least() - weighted least connections: the member with the smallest (flows + 1) / weight
 * @flows:   uint32_t[@count], running flows of each member
 * @weights: uint32_t[@count]
 * @turn:    grows by one with each flow; members that are equal take turns
 *
 * Compared exactly, without rounding. O(@count).
 *
 * Return: BALANCE_OK; BALANCE_E_NONE when all weights are 0.
 */
MUST_CHECK int balance_least(
	const uint32_t *flows, const uint32_t *weights, unsigned int count, uint32_t turn, unsigned int *ret_index);

/*
 * Maglev: a table of which every member owns a share in proportion to its weight, looked up by the hash of the client.
 * Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4;
 * weights by the relative frequency of turns, as suggested there.
 *
 * Members are known by an id that stays the same over nodes, restarts and changes of the pool, such as a hash of the
 * address; the order of the arrays does not matter to who owns what. All seeds are fixed: every node and release has to
 * choose alike.
 *
 * Two ways to lose a member. Skipping keeps the table and sets the weight to 0 for maglev_pick(): exactly the clients
 * of that member move, and they come back with it. This is for members that are down for now. Building the table anew
 * without it also moves a few others, since turns shift: with equal weights and the sizes of maglev_size(), about one
 * client in two hundred (test_balance.c measures; with the 100 entries for each member of the paper it would be one in
 * fifty). When the heaviest member goes or comes, more.
 */

enum {
	MAGLEV_NONE = UINT16_MAX, /* in a table: no member has a weight */
	MAGLEV_MEMBERS_MAX = 1024,
	MAGLEV_SIZE_MAX = 65537,
};

/**
 * maglev_size() - entries of a table for @count members: a prime, 1000 or more for each member
 * @count: at most MAGLEV_MEMBERS_MAX; from 33 on it is MAGLEV_SIZE_MAX, no less than 64 for each
 */
uint32_t maglev_size(unsigned int count);

/**
 * maglev_build() - fill a table
 * @table:   uint16_t[@size], receives indexes into @ids, or MAGLEV_NONE everywhere when no member has a weight
 * @size:    of maglev_size(), for this pool or a bigger one
 * @ids:     uint64_t[@count], no two alike
 * @weights: uint32_t[@count]
 * @count:   at most MAGLEV_MEMBERS_MAX
 *
 * A member whose share is less than one entry may get none. O(@size log @size) when weights are alike, O(@size *
 * @count) when one outweighs all others; without allocation.
 */
void maglev_build(uint16_t *table, uint32_t size, const uint64_t *ids, const uint32_t *weights, unsigned int count);

/**
 * maglev_find() - the member of a client
 * @key:     hash of the client, the same on every node
 * @attempt: 0, and one more each time that the answer can't be used: the next choice of this client
 *
 * Choices of later attempts may repeat earlier ones.
 *
 * Return: an index, or MAGLEV_NONE.
 */
uint16_t maglev_find(const uint16_t *table, uint32_t size, uint64_t key, unsigned int attempt);

/**
 * maglev_pick() - the first choice of a client that can be used
 * @weights: uint32_t, as many as the table was built with; 0 is skipped. Other values do not matter here
 *
 * Each client has an order of all members, and gets the first usable one: while a member is skipped, its clients are
 * spread over the others, and no other client moves.
 *
 * Return: BALANCE_OK; BALANCE_E_NONE when the table holds no usable member.
 */
MUST_CHECK int maglev_pick(
	const uint16_t *table, uint32_t size, uint64_t key, const uint32_t *weights, unsigned int *ret_index);
