/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"
#include "base/test.h"

#include <stdalign.h>
#include <string.h>

static void test_memory_is_zeroed_and_aligned(void **state)
{
	static const size_t sizes[] = { 1, 2, 15, 16, 17, 63, 1000, 65535, 65536, 65537, 1 << 20, 3 };
	struct arena a = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *at = arena_alloc(&a, sizes[i]);

		assert_non_null(at);
		assert_int_equal((uintptr_t)at % alignof(max_align_t), 0);
		for (size_t b = 0; b < sizes[i]; b++)
			assert_int_equal(at[b], 0);
		memset(at, 0xff, sizes[i]); /* what is handed out next must be zero still */
	}
	arena_free(&a);
}

static void test_pieces_do_not_overlap(void **state)
{
	enum { PIECES = 3000 };
	static struct {
		uint8_t *at;
		size_t size;
	} pieces[PIECES];
	struct test_random random = { 1 };
	struct arena a = { 0 };

	(void)state;
	for (size_t i = 0; i < PIECES; i++) {
		pieces[i].size = test_below(&random, i % 100 ? 200 : 100000) + 1;
		pieces[i].at = arena_alloc(&a, pieces[i].size);
		assert_non_null(pieces[i].at);
		memset(pieces[i].at, (int)(i & 0xff), pieces[i].size);
	}
	for (size_t i = 0; i < PIECES; i++) {
		assert_int_equal(pieces[i].at[0], i & 0xff);
		assert_memory_equal(pieces[i].at, pieces[i].at + 1, pieces[i].size - 1);
	}
	arena_free(&a);
}

static void test_the_arena_knows_how_much_it_handed_out(void **state)
{
	struct arena a = { 0 };

	(void)state;
	assert_int_equal(a.used_bytes, 0);
	assert_non_null(arena_alloc(&a, 1));
	assert_non_null(arena_alloc(&a, 32));
	assert_int_equal(a.used_bytes, alignof(max_align_t) + 32);
	arena_free(&a);
	assert_int_equal(a.used_bytes, 0);
}

static void test_an_impossible_size_is_refused_and_nothing_is_lost(void **state)
{
	struct arena a = { 0 };
	char *before, *after;

	(void)state;
	before = arena_strndup(&a, "before", 6);
	assert_null(arena_alloc(&a, SIZE_MAX));
	assert_null(arena_alloc(&a, SIZE_MAX / 2 + 1));
	after = arena_strndup(&a, "after", 5);
	assert_string_equal(before, "before");
	assert_string_equal(after, "after");
	arena_free(&a);
}

static void test_a_copy_ends_where_its_length_says(void **state)
{
	struct arena a = { 0 };

	(void)state;
	assert_string_equal(arena_strndup(&a, "example.net:80", 11), "example.net");
	assert_string_equal(arena_strndup(&a, "x", 0), "");
	arena_free(&a);
}

static void test_an_arena_can_be_used_again_after_it_was_freed(void **state)
{
	struct arena a = { 0 };

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_non_null(arena_alloc(&a, 100000));
		assert_non_null(arena_alloc(&a, 10));
		arena_free(&a);
		assert_null(a.blocks);
	}
	arena_free(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory_is_zeroed_and_aligned),
		cmocka_unit_test(test_pieces_do_not_overlap),
		cmocka_unit_test(test_the_arena_knows_how_much_it_handed_out),
		cmocka_unit_test(test_an_impossible_size_is_refused_and_nothing_is_lost),
		cmocka_unit_test(test_a_copy_ends_where_its_length_says),
		cmocka_unit_test(test_an_arena_can_be_used_again_after_it_was_freed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
