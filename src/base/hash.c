/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"
#include "base/error.h"

#include <sys/random.h>

uint64_t hash_new_key(void)
{
	uint64_t key;

	/* 8 bytes come whole or not at all once the pool is ready, and GRND_NONBLOCK is not asked for */
	ASSERT(getrandom(&key, sizeof(key), 0) == sizeof(key));
	return key;
}
