/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing with linear probing, at most half full. */
#include "base/key_map.h"
#include "base/error.h"
#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct key_map_slot {
	uint64_t hash;
	const char *key; /* NULL: free */
	size_t length;
	uint32_t value;
};

enum { KEY_MAP_SIZE_MIN = 64 };

/* The slot of a key, or the free one where it belongs. The map has a free one. */
static struct key_map_slot *slot_of(const struct key_map *map, uint64_t hash, const void *key, size_t length)
{
	size_t i = hash & (map->size - 1);

	for (;; i = (i + 1) & (map->size - 1)) {
		struct key_map_slot *slot = &map->slots[i];

		if (!slot->key || (slot->hash == hash && slot->length == length && memcmp(slot->key, key, length) == 0))
			return slot;
	}
}

static int grow(struct key_map *map)
{
	size_t size = map->size ? map->size * 2 : KEY_MAP_SIZE_MIN;
	struct key_map_slot *slots = calloc(size, sizeof(*slots));

	if (!slots)
		return fault(-ENOMEM);
	if (!map->size)
		map->hash_key = hash_new_key();
	for (size_t i = 0; i < map->size; i++) {
		size_t to = map->slots[i].hash & (size - 1);

		if (!map->slots[i].key)
			continue;
		while (slots[to].key)
			to = (to + 1) & (size - 1);
		slots[to] = map->slots[i];
	}
	free(map->slots);
	map->slots = slots;
	map->size = size;
	return 0;
}

int key_map_put(struct key_map *map, const void *key, size_t length, uint32_t value, uint32_t *ret_value)
{
	struct key_map_slot *slot;
	uint64_t hash;
	char *copy;
	int r;

	if (map->count * 2 >= map->size) {
		r = grow(map);
		if (r)
			return r;
	}
	hash = hash_bytes(key, length, map->hash_key);
	slot = slot_of(map, hash, key, length);
	if (slot->key) {
		*ret_value = slot->value;
		return KEY_MAP_E_EXISTS;
	}
	copy = arena_strndup(&map->arena, key, length);
	if (!copy)
		return fault(-ENOMEM);
	*slot = (struct key_map_slot){ .hash = hash, .key = copy, .length = length, .value = value };
	map->count++;
	return KEY_MAP_OK;
}

bool key_map_get(const struct key_map *map, const void *key, size_t length, uint32_t *ret_value)
{
	const struct key_map_slot *slot;

	if (!map->size)
		return false;
	slot = slot_of(map, hash_bytes(key, length, map->hash_key), key, length);
	if (!slot->key)
		return false;
	*ret_value = slot->value;
	return true;
}

void key_map_free(struct key_map *map)
{
	arena_free(&map->arena);
	free(map->slots);
	*map = (struct key_map){ 0 };
}
