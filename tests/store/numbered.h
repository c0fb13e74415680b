/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbered transactions: the n-th writes n to several keys, with padding whose length and bytes follow from n, and
 * deletes another. So what is stored tells which transaction was the last, and whether any is there in part.
 */
#pragma once

#include "base/test.h"
#include "control/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBERED_KEYS = 4, NUMBERED_LOG = 16, NUMBERED_PADDING_MAX = 3000 };

static inline size_t numbered_value(uint64_t n, unsigned int key, char *out)
{
	size_t length = (size_t)snprintf(out, 24, "%" PRIu64 " ", n);
	size_t padding = (size_t)((n * 7919 + key * 104729) % NUMBERED_PADDING_MAX);

	memset(out + length, 'a' + (int)((n + key) % 26), padding);
	return length + padding;
}

/* The number of the last transaction; 0 when there was none. Fails the test when one is there in part. */
static inline uint64_t numbered_last(struct store *store)
{
	struct store_page page = { 0 };
	char expected[NUMBERED_PADDING_MAX + 32];
	uint64_t n;

	assert_int_equal(store_list(store, &(struct store_query){ .prefix = "/n/" }, &page), 0);
	if (page.count == 0) {
		store_page_free(&page);
		return 0;
	}
	assert_int_equal(page.count, NUMBERED_KEYS);
	n = strtoull(page.items[0].value, NULL, 10);
	for (unsigned int i = 0; i < NUMBERED_KEYS; i++) {
		size_t length = numbered_value(n, i, expected);

		assert_int_equal(page.items[i].length, length);
		assert_memory_equal(page.items[i].value, expected, length);
		assert_int_equal(page.items[i].revision, page.items[0].revision);
	}
	store_page_free(&page);
	/* of the log there is what the last transactions wrote; the next place is empty */
	assert_int_equal(store_list(store, &(struct store_query){ .prefix = "/log/" }, &page), 0);
	assert_int_equal(page.count, n < NUMBERED_LOG ? n : NUMBERED_LOG - 1);
	for (size_t i = 0; i < page.count; i++) {
		uint64_t wrote = strtoull(page.items[i].value, NULL, 10);

		assert_true(wrote <= n && wrote + NUMBERED_LOG > n);
		assert_int_equal(wrote % NUMBERED_LOG, strtoull(page.items[i].key + 5, NULL, 10));
	}
	store_page_free(&page);
	return n;
}

/* Carry out transaction @n. Return: as store_commit(). */
MUST_CHECK static inline int numbered_commit(struct store *store, uint64_t n)
{
	char keys[NUMBERED_KEYS + 2][32];
	static _Thread_local char values[NUMBERED_KEYS][NUMBERED_PADDING_MAX + 32];
	char number[24];
	struct store_write writes[NUMBERED_KEYS + 2];
	struct store_transaction t = { .writes = writes, .write_count = NUMBERED_KEYS + 2 };
	uint64_t revision;

	for (unsigned int i = 0; i < NUMBERED_KEYS; i++) {
		snprintf(keys[i], sizeof(keys[i]), "/n/%u", i);
		writes[i] = (struct store_write){ keys[i], values[i], numbered_value(n, i, values[i]) };
	}
	snprintf(number, sizeof(number), "%" PRIu64, n);
	snprintf(keys[NUMBERED_KEYS], sizeof(keys[0]), "/log/%02u", (unsigned int)(n % NUMBERED_LOG));
	snprintf(keys[NUMBERED_KEYS + 1], sizeof(keys[0]), "/log/%02u", (unsigned int)((n + 1) % NUMBERED_LOG));
	writes[NUMBERED_KEYS] = (struct store_write){ keys[NUMBERED_KEYS], number, strlen(number) };
	writes[NUMBERED_KEYS + 1] = (struct store_write){ keys[NUMBERED_KEYS + 1], NULL, 0 };
	return store_commit(store, &t, &revision, NULL);
}
