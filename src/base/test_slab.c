/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slab.h"
#include "base/test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void test_the_ceiling_holds_and_one_more_is_refused(void **state)
{
	enum { ITEMS = 100 };
	void *items[ITEMS];
	struct slab s;

	(void)state;
	assert_int_equal(slab_init(&s, 40, ITEMS), 0);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ITEMS; i++) {
			assert_int_equal(slab_in_use(&s), i);
			assert_int_equal(slab_left(&s), ITEMS - i);
			items[i] = slab_take(&s);
			assert_non_null(items[i]);
		}
		assert_null(slab_take(&s));
		assert_int_equal(slab_left(&s), 0);
		for (size_t i = 0; i < ITEMS; i++)
			slab_give(&s, items[i]);
	}
	assert_int_equal(slab_in_use(&s), 0);
	slab_deinit(&s);
}

static void test_objects_are_aligned_and_large_enough(void **state)
{
	static const size_t sizes[] = { 1, 8, 15, 16, 17, 100, 4096, 5000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *first, *second;
		struct slab s;

		assert_int_equal(slab_init(&s, sizes[i], 2), 0);
		first = slab_take(&s);
		second = slab_take(&s);
		assert_int_equal((uintptr_t)first % 16, 0);
		assert_int_equal((uintptr_t)second % 16, 0);
		assert_true((size_t)(second - first) >= sizes[i]);
		memset(first, 1, sizes[i]);
		memset(second, 2, sizes[i]);
		assert_int_equal(first[0], 1);
		slab_give(&s, first);
		slab_give(&s, second);
		slab_deinit(&s);
	}
}

static void test_the_object_freed_last_is_handed_out_next(void **state)
{
	void *a, *b, *c;
	struct slab s;

	(void)state;
	assert_int_equal(slab_init(&s, 64, 10), 0);
	a = slab_take(&s);
	b = slab_take(&s);
	c = slab_take(&s);
	slab_give(&s, a);
	slab_give(&s, b);
	assert_ptr_equal(slab_take(&s), b);
	assert_ptr_equal(slab_take(&s), a);
	slab_give(&s, a);
	slab_give(&s, b);
	slab_give(&s, c);
	slab_deinit(&s);
}

static void test_live_objects_keep_their_contents_through_random_use(void **state)
{
	enum { ITEMS = 500, STEPS = 20000 };
	static struct {
		uint32_t *at;
		uint32_t value;
	} live[ITEMS];
	struct test_random random = { 2 };
	uint32_t count = 0;
	struct slab s;

	(void)state;
	assert_int_equal(slab_init(&s, 48, ITEMS), 0);
	for (uint32_t step = 0; step < STEPS; step++) {
		if (test_below(&random, 100) < (step / 2000 % 2 ? 40u : 60u)) {
			uint32_t *item = slab_take(&s);

			assert_int_equal(item == NULL, count == ITEMS);
			if (!item)
				continue;
			for (int i = 0; i < 12; i++)
				item[i] = step;
			live[count].at = item;
			live[count++].value = step;
		} else if (count) {
			uint32_t i = test_below(&random, count);

			for (int word = 0; word < 12; word++)
				assert_int_equal(live[i].at[word], live[i].value);
			slab_give(&s, live[i].at);
			live[i] = live[--count];
		}
		assert_int_equal(slab_in_use(&s), count);
	}
	while (count)
		slab_give(&s, live[--count].at);
	slab_deinit(&s);
}

static size_t resident_bytes(const struct slab *s, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = bytes / page, resident = 0;
	unsigned char *map = calloc(pages, 1);

	assert_non_null(map);
	assert_int_equal(mincore(s->base, bytes, map), 0);
	for (size_t i = 0; i < pages; i++)
		resident += map[i] & 1;
	free(map);
	return resident * page;
}

static void test_the_pages_go_back_when_the_last_object_does(void **state)
{
	enum { ITEMS = 512, SIZE = 8192 };
	static void *items[ITEMS];
	struct slab s;

	(void)state;
	assert_int_equal(slab_init(&s, SIZE, ITEMS), 0);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ITEMS; i++) {
			items[i] = slab_take(&s);
			assert_non_null(items[i]);
			memset(items[i], 0xff, SIZE);
		}
		assert_int_equal(resident_bytes(&s, ITEMS * SIZE), ITEMS * SIZE);
		for (size_t i = 0; i + 1 < ITEMS; i++)
			slab_give(&s, items[i]);
		assert_int_equal(resident_bytes(&s, ITEMS * SIZE), ITEMS * SIZE);
		slab_give(&s, items[ITEMS - 1]);
		assert_int_equal(resident_bytes(&s, ITEMS * SIZE), 0);
	}
	slab_deinit(&s);
}

static void test_a_slab_of_no_objects_gives_none(void **state)
{
	struct slab s;

	(void)state;
	assert_int_equal(slab_init(&s, 64, 0), 0);
	assert_null(slab_take(&s));
	assert_int_equal(slab_left(&s), 0);
	slab_deinit(&s);
}

static void test_a_zeroed_slab_can_be_taken_down(void **state)
{
	struct slab s = { 0 };

	(void)state;
	slab_deinit(&s);
	assert_null(s.base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_ceiling_holds_and_one_more_is_refused),
		cmocka_unit_test(test_objects_are_aligned_and_large_enough),
		cmocka_unit_test(test_the_object_freed_last_is_handed_out_next),
		cmocka_unit_test(test_live_objects_keep_their_contents_through_random_use),
		cmocka_unit_test(test_the_pages_go_back_when_the_last_object_does),
		cmocka_unit_test(test_a_slab_of_no_objects_gives_none),
		cmocka_unit_test(test_a_zeroed_slab_can_be_taken_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
