/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "base/key_map.h"

#include <string.h>

static void test_a_key_keeps_its_first_value(void **state)
{
	struct key_map map = { 0 };
	uint32_t value = 4711;

	(void)state;
	assert_false(key_map_get(&map, "a", 1, &value));
	assert_int_equal(key_map_put(&map, "a", 1, 1, &value), KEY_MAP_OK);
	assert_int_equal(value, 4711);
	assert_int_equal(key_map_put(&map, "a", 1, 2, &value), KEY_MAP_E_EXISTS);
	assert_int_equal(value, 1);
	assert_true(key_map_get(&map, "a", 1, &value));
	assert_int_equal(value, 1);
	key_map_free(&map);
	assert_false(key_map_get(&map, "a", 1, &value));
	key_map_free(&map);
}

static void test_keys_are_bytes_of_any_length(void **state)
{
	static const struct {
		const char *key;
		size_t length;
	} keys[] = { { "", 0 }, { "\0", 1 }, { "\0\0", 2 }, { "a", 1 }, { "A", 1 }, { "a\0", 2 }, { "\xff", 1 } };
	struct key_map map = { 0 };
	uint32_t value;

	(void)state;
	for (uint32_t i = 0; i < ARRAY_SIZE(keys); i++)
		assert_int_equal(key_map_put(&map, keys[i].key, keys[i].length, i, &value), KEY_MAP_OK);
	for (uint32_t i = 0; i < ARRAY_SIZE(keys); i++) {
		assert_true(key_map_get(&map, keys[i].key, keys[i].length, &value));
		assert_int_equal(value, i);
	}
	key_map_free(&map);
}

static void test_a_hundred_thousand_keys_are_found(void **state)
{
	enum { KEYS = 100000 };
	struct key_map map = { 0 };
	uint32_t value;

	(void)state;
	for (uint32_t i = 0; i < KEYS; i++)
		assert_int_equal(key_map_put(&map, &i, sizeof(i), ~i, &value), KEY_MAP_OK);
	assert_int_equal(map.count, KEYS);
	for (uint32_t i = 0; i < 2 * KEYS; i++) {
		assert_int_equal(key_map_get(&map, &i, sizeof(i), &value), i < KEYS);
		if (i < KEYS)
			assert_int_equal(value, ~i);
	}
	key_map_free(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_key_keeps_its_first_value),
		cmocka_unit_test(test_keys_are_bytes_of_any_length),
		cmocka_unit_test(test_a_hundred_thousand_keys_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
