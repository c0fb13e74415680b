/* SPDX-License-Identifier: Apache-2.0 */
/* Keyed hashing for tables whose keys a stranger chooses. The key is drawn at start, so collisions can't be prepared.
 */
#pragma once

#include "base/macros.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/** hash_bytes() - 64 well-mixed bits of @length bytes under @key */
static inline uint64_t hash_bytes(const void *bytes, size_t length, uint64_t key)
{
	return XXH3_64bits_withSeed(bytes, length, key);
}

/** hash_new_key() - a key from the kernel's random source */
uint64_t hash_new_key(void);
