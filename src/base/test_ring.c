/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ring.h"
#include "base/test.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

static void read_all(struct ring *r, char *out, size_t length)
{
	size_t at = 0;

	while (at < length) {
		const uint8_t *bytes;
		size_t n = ring_peek(r, &bytes);

		assert_true(n > 0 && n <= length - at);
		memcpy(out + at, bytes, n);
		ring_skip(r, n);
		at += n;
	}
}

static void test_bytes_come_out_as_they_went_in(void **state)
{
	const uint8_t *bytes;
	struct ring r;
	char out[16];

	(void)state;
	assert_int_equal(ring_init(&r, 16), 0);
	assert_int_equal(ring_peek(&r, &bytes), 0);
	assert_true(ring_write(&r, "hello ", 6));
	assert_true(ring_write(&r, "world", 5));
	assert_int_equal(ring_peek(&r, &bytes), 11);
	read_all(&r, out, 11);
	assert_memory_equal(out, "hello world", 11);
	assert_int_equal(ring_peek(&r, &bytes), 0);
	ring_deinit(&r);
}

static void test_a_write_that_does_not_fit_writes_nothing(void **state)
{
	const uint8_t *bytes;
	struct ring r;
	char out[16];

	(void)state;
	assert_int_equal(ring_init(&r, 16), 0);
	assert_false(ring_write(&r, "0123456789abcdefg", 17));
	assert_true(ring_write(&r, "0123456789", 10));
	assert_false(ring_write(&r, "abcdefg", 7));
	assert_int_equal(ring_peek(&r, &bytes), 10);
	assert_true(ring_write(&r, "abcdef", 6)); /* full to the last byte */
	assert_false(ring_write(&r, "x", 1));
	assert_true(ring_write(&r, "", 0));
	read_all(&r, out, 16);
	assert_memory_equal(out, "0123456789abcdef", 16);
	ring_deinit(&r);
}

static void test_a_write_over_the_wrap_is_read_in_two_pieces(void **state)
{
	const uint8_t *bytes;
	struct ring r;
	char out[16];

	(void)state;
	assert_int_equal(ring_init(&r, 16), 0);
	assert_true(ring_write(&r, "xxxxxxxxxxxx", 12));
	ring_skip(&r, 12);
	assert_true(ring_write(&r, "0123456789", 10));
	assert_int_equal(ring_peek(&r, &bytes), 4);
	assert_memory_equal(bytes, "0123", 4);
	read_all(&r, out, 10);
	assert_memory_equal(out, "0123456789", 10);
	ring_deinit(&r);
}

static void test_the_counts_may_wrap_too(void **state)
{
	const uint8_t *bytes;
	struct ring r;
	char out[16];

	(void)state;
	assert_int_equal(ring_init(&r, 16), 0);
	atomic_store(&r.head, SIZE_MAX - 4);
	atomic_store(&r.tail, SIZE_MAX - 4);
	assert_int_equal(ring_peek(&r, &bytes), 0);
	assert_true(ring_write(&r, "0123456789", 10));
	assert_false(ring_write(&r, "abcdefg", 7));
	assert_true(ring_write(&r, "abcdef", 6));
	read_all(&r, out, 16);
	assert_memory_equal(out, "0123456789abcdef", 16);
	ring_deinit(&r);
}

/* --- two threads: records of 1 to 61 bytes, the first says how many, the others what they must be --- */

enum { RECORDS = 200000, RING_SIZE = 1024 };

static size_t make_record(struct test_random *random, uint8_t out[static 64])
{
	size_t length = test_below(random, 61) + 1;
	uint8_t value = (uint8_t)test_random(random);

	memset(out, value, length);
	out[0] = (uint8_t)length;
	return length;
}

static void *write_records(void *arg)
{
	struct test_random random = { 3 };
	struct ring *r = arg;

	for (int i = 0; i < RECORDS; i++) {
		uint8_t record[64];
		size_t length = make_record(&random, record);

		while (!ring_write(r, record, length))
			sched_yield();
	}
	return NULL;
}

static void test_a_reading_thread_gets_what_a_writing_thread_wrote(void **state)
{
	struct test_random random = { 3 };
	pthread_t writer;
	struct ring r;

	(void)state;
	assert_int_equal(ring_init(&r, RING_SIZE), 0);
	assert_int_equal(pthread_create(&writer, NULL, write_records, &r), 0);
	for (int i = 0; i < RECORDS; i++) {
		uint8_t expected[64], got[64];
		size_t length = make_record(&random, expected), at = 0;

		while (at < length) {
			const uint8_t *bytes;
			size_t there = ring_peek(&r, &bytes), n = MIN(there, length - at);

			if (n == 0)
				sched_yield();
			memcpy(got + at, bytes, n);
			ring_skip(&r, n);
			at += n;
		}
		assert_memory_equal(got, expected, length);
	}
	assert_int_equal(pthread_join(writer, NULL), 0);
	ring_deinit(&r);
}

/* The reader sees a record whole as soon as it sees its first byte: lines are never cut. */
static void *write_pairs(void *arg)
{
	struct ring *r = arg;

	for (uint32_t i = 0; i < RECORDS; i++)
		while (!ring_write(r, (uint32_t[]){ i, ~i }, 8))
			sched_yield();
	return NULL;
}

static void test_a_write_appears_whole(void **state)
{
	pthread_t writer;
	uint32_t i = 0;
	struct ring r;

	(void)state;
	assert_int_equal(ring_init(&r, RING_SIZE), 0); /* a multiple of 8: no pair lies over the wrap */
	assert_int_equal(pthread_create(&writer, NULL, write_pairs, &r), 0);
	while (i < RECORDS) {
		const uint8_t *bytes;
		size_t n = ring_peek(&r, &bytes);

		if (n == 0)
			sched_yield();
		assert_int_equal(n % 8, 0);
		for (size_t at = 0; at < n; at += 8, i++)
			assert_memory_equal(bytes + at, ((uint32_t[]){ i, ~i }), 8);
		ring_skip(&r, n);
	}
	assert_int_equal(pthread_join(writer, NULL), 0);
	ring_deinit(&r);
}

static void test_a_zeroed_ring_can_be_taken_down(void **state)
{
	struct ring r = { 0 };

	(void)state;
	ring_deinit(&r);
	assert_null(r.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_come_out_as_they_went_in),
		cmocka_unit_test(test_a_write_that_does_not_fit_writes_nothing),
		cmocka_unit_test(test_a_write_over_the_wrap_is_read_in_two_pieces),
		cmocka_unit_test(test_the_counts_may_wrap_too),
		cmocka_unit_test(test_a_reading_thread_gets_what_a_writing_thread_wrote),
		cmocka_unit_test(test_a_write_appears_whole),
		cmocka_unit_test(test_a_zeroed_ring_can_be_taken_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
