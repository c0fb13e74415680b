/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/test.h"

#include <string.h>

static void test_numbers_are_read_most_significant_byte_first(void **state)
{
	static const uint8_t bytes[] = { 0x12, 0x34, 0x56, 0xff, 0xfe };
	struct buf_reader r = buf_reader(bytes, sizeof(bytes));

	(void)state;
	assert_int_equal(buf_be16(&r), 0x1234);
	assert_int_equal(buf_u8(&r), 0x56);
	assert_int_equal(buf_be16(&r), 0xfffe);
	assert_int_equal(buf_left(&r), 0);
	assert_true(r.ok);
}

static void test_a_short_read_fails_and_takes_nothing(void **state)
{
	static const uint8_t bytes[] = { 1, 2, 3 };
	struct buf_reader r = buf_reader(bytes, sizeof(bytes));
	uint8_t out[4] = { 9, 9, 9, 9 };

	(void)state;
	buf_bytes(&r, out, 4);
	assert_memory_equal(out, "\x09\x09\x09\x09", 4);
	assert_false(r.ok);
	assert_int_equal(buf_left(&r), 3);
}

static void test_a_reader_that_failed_stays_failed(void **state)
{
	static const uint8_t bytes[] = { 1, 2, 3 };
	struct buf_reader r = buf_reader(bytes, 1);
	uint8_t out = 9;

	(void)state;
	assert_int_equal(buf_be16(&r), 0);
	assert_false(r.ok);
	assert_int_equal(buf_u8(&r), 0);
	buf_bytes(&r, &out, 1);
	assert_int_equal(out, 9);
	assert_null(buf_take(&r, 0));
	assert_false(r.ok);
}

static void test_an_empty_reader_gives_nothing(void **state)
{
	struct buf_reader r = buf_reader("", 0);

	(void)state;
	assert_non_null(buf_take(&r, 0));
	assert_true(r.ok);
	assert_int_equal(buf_u8(&r), 0);
	assert_false(r.ok);
}

static void test_bytes_are_taken_in_place_up_to_the_last(void **state)
{
	static const uint8_t bytes[] = { 1, 2, 3, 4 };
	struct buf_reader r = buf_reader(bytes, sizeof(bytes));

	(void)state;
	assert_ptr_equal(buf_take(&r, 3), bytes);
	assert_ptr_equal(buf_take(&r, 1), bytes + 3);
	assert_null(buf_take(&r, 1));
}

static void test_a_huge_length_is_a_short_read(void **state)
{
	static const uint8_t bytes[] = { 1, 2, 3, 4 };
	struct buf_reader r = buf_reader(bytes, sizeof(bytes));

	(void)state;
	assert_null(buf_take(&r, SIZE_MAX));
	assert_false(r.ok);
}

static void test_numbers_are_written_most_significant_byte_first(void **state)
{
	uint8_t bytes[6];
	struct buf_writer w = buf_writer(bytes, sizeof(bytes));

	(void)state;
	buf_put_be16(&w, 0x1234);
	buf_put_u8(&w, 0x56);
	buf_put_be16(&w, 0xfffe);
	buf_put(&w, "x", 1);
	assert_true(w.ok);
	assert_ptr_equal(w.pos, bytes + 6);
	assert_memory_equal(bytes, "\x12\x34\x56\xff\xfex", 6);
}

static void test_a_writer_writes_whole_or_not_at_all_and_stays_failed(void **state)
{
	uint8_t bytes[4] = { 9, 9, 9, 9 };
	struct buf_writer w = buf_writer(bytes, 3);

	(void)state;
	buf_put_be16(&w, 0x0102);
	buf_put_be16(&w, 0x0304);
	assert_false(w.ok);
	buf_put_u8(&w, 5); /* would fit, but something before it is missing */
	assert_memory_equal(bytes, "\x01\x02\x09\x09", 4);
	assert_ptr_equal(w.pos, bytes + 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers_are_read_most_significant_byte_first),
		cmocka_unit_test(test_a_short_read_fails_and_takes_nothing),
		cmocka_unit_test(test_a_reader_that_failed_stays_failed),
		cmocka_unit_test(test_an_empty_reader_gives_nothing),
		cmocka_unit_test(test_bytes_are_taken_in_place_up_to_the_last),
		cmocka_unit_test(test_a_huge_length_is_a_short_read),
		cmocka_unit_test(test_numbers_are_written_most_significant_byte_first),
		cmocka_unit_test(test_a_writer_writes_whole_or_not_at_all_and_stays_failed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
