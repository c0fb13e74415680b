/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session persistence: which origin a client was given, so that its later flows go there too. One table for all
 * workers, of fixed size, without locks.
 *
 * A client is looked for in PERSIST_WINDOW places from its key's home on. A place is three atomic words: one holds a
 * fingerprint of the key (32 bits), a turn (8 bits) that changes each time the place is given away, and the number of
 * running flows (24 bits), so that finding, counting and taking a place are one compare-and-swap each; one holds the
 * origin together with the fingerprint and turn for which it was chosen, so that what an earlier owner left is never
 * taken for a choice; one says until when the choice is remembered once no flow is running.
 *
 * A place with running flows is never given away. When a new client finds no place that is unused or forgotten, the
 * idle client of the window that would be forgotten soonest makes room. When the clients that are remembered fill half
 * of the places, this happens to one in two thousand; at three quarters to one in seventy (test_persist.c measures).
 *
 * What may go wrong, and is harmless: two clients with one home and fingerprint (chance 2^-32 a pair and window) share
 * a choice. When two workers meet a new client at the same instant they may choose differently, then the later choice
 * stays; or find two places for it, then the first is used from then on and the other is forgotten in its time.
 * When the last two flows of a client end at the same instant, either's time counts.
 */
#pragma once

#include "base/clock.h"

#include <stdatomic.h>

struct persist_slot {
	_Atomic uint64_t word;
	_Atomic uint64_t choice;
	_Atomic nsec_t expires;
};
_Static_assert(sizeof(struct persist_slot) == 24, "a place takes 24 bytes");

struct persist_table {
	struct persist_slot *slots;
	uint32_t mask;
};

enum { PERSIST_OK, PERSIST_NEW, PERSIST_EVICTED, PERSIST_E_FULL };

enum { PERSIST_WINDOW = 16, PERSIST_FLOWS_MAX = (1 << 24) - 1, PERSIST_NONE = UINT32_MAX };

/** persist_init() - @slots: a power of two, at least PERSIST_WINDOW; memory is used as places are. Return: 0; -ENOMEM.
 */
MUST_CHECK int persist_init(struct persist_table *t, uint32_t slots);

/** persist_deinit() - an all-zero table is accepted */
void persist_deinit(struct persist_table *t);

/**
 * persist_acquire() - count a new flow of a client, and tell where it belongs
 * @key:        keyed hash of the client, as of client_key()
 * @ret_origin: written on PERSIST_OK only
 * @ret_slot:   written unless PERSIST_E_FULL; for persist_set(), and for persist_release() at the flow's end
 *
 * Return: PERSIST_OK: the client has an origin;
 * PERSIST_NEW: it has none (any more): choose one and tell by persist_set();
 * PERSIST_EVICTED: as PERSIST_NEW, and another client was forgotten before its time: to be counted;
 * PERSIST_E_FULL: nothing was counted, this flow goes without persistence: all places for this client are held by
 * clients with running flows, or it has PERSIST_FLOWS_MAX flows.
 */
MUST_CHECK int persist_acquire(
	struct persist_table *t, uint64_t key, nsec_t now, uint32_t *ret_origin, uint32_t *ret_slot);

/**
 * persist_set() - set or replace the origin of a client
 * @slot: held by a running flow of the client
 *
 * Flows that begin from now on get it; the last call counts.
 */
void persist_set(struct persist_table *t, uint32_t slot, uint32_t origin);

/**
 * persist_origin() - what is chosen now for the client of a place, which another of its flows may have changed
 * @slot: of persist_acquire()
 *
 * Return: PERSIST_OK; PERSIST_NEW when there is no choice yet.
 */
MUST_CHECK int persist_origin(const struct persist_table *t, uint32_t slot, uint32_t *ret_origin);

/**
 * persist_release() - a flow counted in @slot has ended
 * @ttl: ns, 0 or more: if it was the last, the choice is remembered while the time is less than @now + @ttl. Without a
 * choice the place is free at once
 */
void persist_release(struct persist_table *t, uint32_t slot, nsec_t now, nsec_t ttl);
