/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/persist.h"
#include "base/error.h"

#include <errno.h>
#include <sys/mman.h>

enum { FLOW_BITS = 24, TURN_BITS = 8, FINGERPRINT_AT = FLOW_BITS + TURN_BITS };

#define FLOWS_OF(word)	     ((uint32_t)((word)&PERSIST_FLOWS_MAX))
#define FINGERPRINT_OF(word) ((word) >> FINGERPRINT_AT)
#define FORGOTTEN	     INT64_MIN /* before any time */

int persist_init(struct persist_table *t, uint32_t slots)
{
	void *memory;

	ASSERT(slots >= PERSIST_WINDOW && (slots & (slots - 1)) == 0);
	memory = mmap(NULL, slots * sizeof(*t->slots), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return fault(-ENOMEM);
	*t = (struct persist_table){ .slots = memory, .mask = slots - 1 };
	return 0;
}

void persist_deinit(struct persist_table *t)
{
	if (t->slots)
		munmap(t->slots, (t->mask + 1ul) * sizeof(*t->slots));
	*t = (struct persist_table){ 0 };
}

/* Who has a place, as its choice names it: 24 bits of the fingerprint and the turn, which is never 0. */
static uint32_t owner_of(uint64_t word)
{
	return (uint32_t)(word >> FLOW_BITS);
}

/* The word of a place that was @old and is given to a client with its first flow. */
static uint64_t word_taken(uint64_t old, uint64_t fingerprint)
{
	uint64_t turn = (old >> FLOW_BITS) & ((1u << TURN_BITS) - 1);

	turn = turn == (1u << TURN_BITS) - 1 ? 1 : turn + 1;
	return fingerprint << FINGERPRINT_AT | turn << FLOW_BITS | 1;
}

/* Until when an idle place is kept for its client, or FORGOTTEN. */
static nsec_t slot_kept(const struct persist_slot *slot, uint64_t word, nsec_t now)
{
	nsec_t expires = word ? atomic_load_explicit(&slot->expires, memory_order_relaxed) : FORGOTTEN;

	return expires > now ? expires : FORGOTTEN;
}

static bool slot_swap(struct persist_slot *slot, uint64_t old, uint64_t new)
{
	return atomic_compare_exchange_strong_explicit(
		&slot->word, &old, new, memory_order_acq_rel, memory_order_relaxed);
}

int persist_acquire(struct persist_table *t, uint64_t key, nsec_t now, uint32_t *ret_origin, uint32_t *ret_slot)
{
	uint64_t fingerprint = key >> 32, word, next, idle_word, choice;
	uint32_t home = (uint32_t)key & t->mask, idle_at;
	struct persist_slot *slot;
	nsec_t kept, idle_kept;

again:
	idle_at = PERSIST_NONE;
	idle_word = 0;
	idle_kept = FORGOTTEN;
	for (uint32_t i = 0; i < PERSIST_WINDOW; i++) {
		uint32_t at = (home + i) & t->mask;

		slot = &t->slots[at];
		word = atomic_load_explicit(&slot->word, memory_order_acquire); /* before its expires */
		kept = FLOWS_OF(word) ? now : slot_kept(slot, word, now);
		if (word && FINGERPRINT_OF(word) == fingerprint) {
			if (FLOWS_OF(word) == PERSIST_FLOWS_MAX)
				return PERSIST_E_FULL;
			next = kept == FORGOTTEN ? word_taken(word, fingerprint) : word + 1;
			if (!slot_swap(slot, word, next))
				goto again;
			*ret_slot = at;
			choice = atomic_load_explicit(&slot->choice, memory_order_relaxed);
			if ((uint32_t)choice != owner_of(next))
				return PERSIST_NEW;
			*ret_origin = (uint32_t)(choice >> 32);
			return PERSIST_OK;
		}
		if (FLOWS_OF(word) == 0 && (idle_at == PERSIST_NONE || kept < idle_kept)) {
			idle_at = at;
			idle_word = word;
			idle_kept = kept;
		}
		if (word == 0)
			break; /* the client can't be further on: it would have taken this place */
	}
	if (idle_at == PERSIST_NONE)
		return PERSIST_E_FULL;
	if (!slot_swap(&t->slots[idle_at], idle_word, word_taken(idle_word, fingerprint)))
		goto again;
	*ret_slot = idle_at;
	return idle_kept == FORGOTTEN ? PERSIST_NEW : PERSIST_EVICTED;
}

void persist_set(struct persist_table *t, uint32_t slot, uint32_t origin)
{
	struct persist_slot *s = &t->slots[slot];
	uint64_t word = atomic_load_explicit(&s->word, memory_order_relaxed);

	ASSERT(FLOWS_OF(word) > 0); /* so fingerprint and turn can't change */
	atomic_store_explicit(&s->choice, (uint64_t)origin << 32 | owner_of(word), memory_order_relaxed);
}

int persist_origin(const struct persist_table *t, uint32_t slot, uint32_t *ret_origin)
{
	const struct persist_slot *s = &t->slots[slot];
	uint64_t choice = atomic_load_explicit(&s->choice, memory_order_relaxed);

	if ((uint32_t)choice != owner_of(atomic_load_explicit(&s->word, memory_order_relaxed)))
		return PERSIST_NEW;
	*ret_origin = (uint32_t)(choice >> 32);
	return PERSIST_OK;
}

void persist_release(struct persist_table *t, uint32_t slot, nsec_t now, nsec_t ttl)
{
	struct persist_slot *s = &t->slots[slot];
	uint64_t word = atomic_load_explicit(&s->word, memory_order_relaxed);
	uint64_t choice = atomic_load_explicit(&s->choice, memory_order_relaxed);

	ASSERT(ttl >= 0);
	atomic_store_explicit(
		&s->expires, (uint32_t)choice == owner_of(word) ? now + ttl : FORGOTTEN, memory_order_relaxed);
	word = atomic_fetch_sub_explicit(&s->word, 1, memory_order_release); /* after its expires */
	ASSERT(FLOWS_OF(word) > 0);
}
