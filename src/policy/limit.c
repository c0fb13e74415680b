/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/limit.h"
#include "base/error.h"
#include "base/hash.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum { FLOW_BITS = 24 };

#define FLOWS_OF(word)	     ((uint32_t)((word)&CLIENT_FLOWS_MAX))
#define FINGERPRINT_OF(word) ((word) >> FLOW_BITS)

bool rate_take(struct rate *rate, uint32_t per_s, nsec_t now)
{
	nsec_t arrival = atomic_load_explicit(&rate->arrival, memory_order_relaxed);
	nsec_t next;

	if (per_s == 0)
		return true;
	do {
		next = MAX(arrival, now) + NSEC_PER_SEC / per_s;
		if (next - now > NSEC_PER_SEC)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&rate->arrival, &arrival, next, memory_order_relaxed, memory_order_relaxed));
	return true;
}

int client_table_init(struct client_table *t, uint32_t slots)
{
	void *memory;

	ASSERT(slots >= CLIENT_WINDOW && (slots & (slots - 1)) == 0);
	memory = mmap(NULL, slots * sizeof(*t->slots), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return fault(-ENOMEM);
	*t = (struct client_table){ .slots = memory, .mask = slots - 1 };
	return 0;
}

void client_table_deinit(struct client_table *t)
{
	if (t->slots)
		munmap(t->slots, (t->mask + 1ul) * sizeof(*t->slots));
	*t = (struct client_table){ 0 };
}

uint64_t client_key(const struct ip *client, uint64_t rule_key, uint64_t hash_key)
{
	struct {
		struct ip ip;
		uint64_t rule_key;
	} key = { .ip = ip_is_v4(client) ? *client : ip_mask(client, 64), .rule_key = rule_key };

	return hash_bytes(&key, sizeof(key), hash_key);
}

static bool slot_idle(const struct client_slot *slot, uint64_t word, nsec_t now)
{
	return FLOWS_OF(word) == 0 && atomic_load_explicit(&slot->rate.arrival, memory_order_relaxed) <= now;
}

/* The slot of a client with its flow already counted in, or LIMIT_E_FLOWS or LIMIT_E_FULL. */
static int slot_claim(struct client_table *t, uint64_t key, uint32_t max_flows, nsec_t now, uint32_t *ret_slot)
{
	uint64_t fingerprint = key >> FLOW_BITS | 1; /* never 0: a word of 0 was never used */
	uint32_t home = (uint32_t)key & t->mask;
	uint64_t free_word, word;
	uint32_t free_at;

again:
	free_at = CLIENT_NONE;
	free_word = 0;
	for (uint32_t i = 0; i < CLIENT_WINDOW; i++) {
		uint32_t at = (home + i) & t->mask;

		word = atomic_load_explicit(&t->slots[at].word, memory_order_relaxed);
		if (FINGERPRINT_OF(word) == fingerprint) {
			if (FLOWS_OF(word) >= (max_flows ? max_flows : (uint32_t)CLIENT_FLOWS_MAX))
				return LIMIT_E_FLOWS;
			if (!atomic_compare_exchange_strong_explicit(
				    &t->slots[at].word, &word, word + 1, memory_order_relaxed, memory_order_relaxed))
				goto again;
			*ret_slot = at;
			return LIMIT_OK;
		}
		if (free_at == CLIENT_NONE && slot_idle(&t->slots[at], word, now)) {
			free_at = at;
			free_word = word;
		}
		if (word == 0)
			break; /* the client can't be further on: it would have taken this place */
	}
	if (free_at == CLIENT_NONE)
		return LIMIT_E_FULL;
	if (!atomic_compare_exchange_strong_explicit(&t->slots[free_at].word, &free_word, fingerprint << FLOW_BITS | 1,
		    memory_order_relaxed, memory_order_relaxed))
		goto again;
	*ret_slot = free_at;
	return LIMIT_OK;
}

int client_acquire(
	struct client_table *t, uint64_t key, uint32_t max_flows, uint32_t per_s, nsec_t now, uint32_t *ret_slot)
{
	uint32_t slot;
	int r = slot_claim(t, key, max_flows, now, &slot);

	if (r)
		return r;
	if (!rate_take(&t->slots[slot].rate, per_s, now)) {
		client_release(t, slot);
		return LIMIT_E_RATE;
	}
	*ret_slot = slot;
	return LIMIT_OK;
}

void client_release(struct client_table *t, uint32_t slot)
{
	uint64_t word = atomic_fetch_sub_explicit(&t->slots[slot].word, 1, memory_order_relaxed);

	ASSERT(FLOWS_OF(word) > 0);
}
