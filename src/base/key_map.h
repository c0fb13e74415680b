/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds numbers by keys of any bytes, for checks over many objects: names, ids, addresses. It is keyed, so that whoever
 * chooses the keys can't make it slow. An all-zero map is an empty one.
 */
#pragma once

#include "base/arena.h"

struct key_map {
	struct arena arena; /* of the keys */
	struct key_map_slot *slots;
	size_t size; /* a power of two, or 0 */
	size_t count;
	uint64_t hash_key;
};

enum { KEY_MAP_OK, KEY_MAP_E_EXISTS };

/**
 * key_map_put() - add a key, which is copied
 * @ret_value: on KEY_MAP_E_EXISTS, what the key has; it keeps it
 *
 * Return: KEY_MAP_OK; KEY_MAP_E_EXISTS; -ENOMEM.
 */
MUST_CHECK int key_map_put(struct key_map *map, const void *key, size_t length, uint32_t value, uint32_t *ret_value);

/** key_map_get() - what a key has; false (and @ret_value untouched) when it is not there */
bool key_map_get(const struct key_map *map, const void *key, size_t length, uint32_t *ret_value);

/** key_map_free() - the map is empty then and may be used again */
void key_map_free(struct key_map *map);
