/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/pick.h"
#include "base/hash.h"

static uint64_t weight_of(const struct ip *client, const struct ip *origin)
{
	struct ip pair[2] = { *client, *origin };

	return hash_bytes(pair, sizeof(pair), 0); /* no secret key: every node must choose alike */
}

int pick_origin(const struct ip *origins, unsigned int count, enum pick_method method, const struct ip *client,
	uint32_t turn, uint64_t tried, unsigned int *ret_index)
{
	unsigned int best = PICK_MAX;
	uint64_t best_weight = 0;

	for (unsigned int i = 0; i < count; i++) {
		unsigned int at = method == PICK_ROUND_ROBIN ? (turn % count + i) % count : i;
		uint64_t weight;

		if (tried & UINT64_C(1) << at)
			continue;
		if (method == PICK_ROUND_ROBIN) {
			best = at;
			break;
		}
		weight = weight_of(client, &origins[at]);
		if (best == PICK_MAX || weight > best_weight) {
			best = at;
			best_weight = weight;
		}
	}
	if (best == PICK_MAX)
		return PICK_E_NONE;
	*ret_index = best;
	return PICK_OK;
}
