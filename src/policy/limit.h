/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits that hold over all workers, without locks.
 *
 * A rate is one number, the "theoretical arrival time" of GCRA: each event moves it on by 1/rate, and an event is
 * refused when it would lie more than one second ahead of now. So a burst of one second's worth is allowed, and a
 * number that lies in the past means exactly the same as a fresh one.
 *
 * Clients are counted in a table of fixed size. A slot's word holds a fingerprint of the client's key (39 bits, keyed
 * hash) and its number of flows (24 bits), so that finding, counting and taking over a slot are one compare-and-swap
 * each. A client without flows whose rate lies in the past is as good as unknown: its slot may be taken by another.
 * Two clients that share place and fingerprint (chance 2^-39 a pair and window) share their limits. When two workers
 * meet a new client at the same instant, it may get two slots until both are idle, and so up to twice its limit.
 */
#pragma once

#include "base/addr.h"
#include "base/clock.h"

#include <stdatomic.h>

struct rate {
	_Atomic nsec_t arrival;
};

/** rate_take() - count an event. @per_s: events a second, 0 = no limit. Return: false when it is over the limit. */
MUST_CHECK bool rate_take(struct rate *rate, uint32_t per_s, nsec_t now);

struct client_slot {
	_Atomic uint64_t word;
	struct rate rate;
};

struct client_table {
	struct client_slot *slots;
	uint32_t mask;
};

enum { LIMIT_OK, LIMIT_E_FLOWS, LIMIT_E_RATE, LIMIT_E_FULL };

enum { CLIENT_WINDOW = 64, CLIENT_FLOWS_MAX = (1 << 24) - 1, CLIENT_NONE = UINT32_MAX };

/** client_table_init() - @slots: a power of two, at least CLIENT_WINDOW. Return: 0; -ENOMEM. */
MUST_CHECK int client_table_init(struct client_table *t, uint32_t slots);

/** client_table_deinit() - an all-zero table is accepted */
void client_table_deinit(struct client_table *t);

/**
 * client_key() - what a client is counted under: its IPv4 address or IPv6 /64, together with the rule
 * @rule_key: differs from rule to rule
 * @hash_key: from hash_new_key()
 */
uint64_t client_key(const struct ip *client, uint64_t rule_key, uint64_t hash_key);

/**
 * client_acquire() - count a new flow of a client
 * @max_flows, @per_s: its limits; 0 = none
 * @ret_slot:          on LIMIT_OK, for client_release() at the flow's end
 *
 * Return: LIMIT_OK; LIMIT_E_FLOWS; LIMIT_E_RATE; LIMIT_E_FULL when all places for this client are taken by others.
 */
MUST_CHECK int client_acquire(
	struct client_table *t, uint64_t key, uint32_t max_flows, uint32_t per_s, nsec_t now, uint32_t *ret_slot);

/** client_release() - a flow counted in @slot has ended */
void client_release(struct client_table *t, uint32_t slot);
