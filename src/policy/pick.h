/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing an origin address out of a set. Pure: the caller brings the set, the client and the turn. */
#pragma once

#include "base/addr.h"

enum { PICK_MAX = 64 }; /* addresses of one name that are used; one bit of a mask each */

enum pick_method { PICK_ROUND_ROBIN, PICK_SOURCE_HASH };

enum { PICK_OK, PICK_E_NONE };

/**
 * pick_origin() - choose an address that was not tried yet
 * @origins, @count: the set, at most PICK_MAX
 * @method:          PICK_SOURCE_HASH: highest random weight over client and address, so the same client gets the same
 * address on every worker and node and after a restart, and losing an address moves only its own clients
 * @turn:            PICK_ROUND_ROBIN: grows by one with each flow
 * @tried:           bit i: address i was tried for this flow and failed
 *
 * Return: PICK_OK; PICK_E_NONE when the set is empty or all were tried.
 */
MUST_CHECK int pick_origin(const struct ip *origins, unsigned int count, enum pick_method method,
	const struct ip *client, uint32_t turn, uint64_t tried, unsigned int *ret_index);
