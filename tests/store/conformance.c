/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance suite of the store: each promise of control/store.h, through its functions only. Revisions are
 * compared with each other, never with numbers: an implementation may leave some out, and begin anywhere.
 */
#include "conformance.h"
#include "base/test.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct store_maker *maker;

struct fixture {
	void *place;
	struct store *store;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->place = maker->place_new();
	f->store = maker->open(f->place);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	store_close(f->store);
	maker->place_free(f->place);
	free(f);
	return 0;
}

static struct store *store_in(void **state)
{
	return ((struct fixture *)*state)->store;
}

static struct store *reopen(void **state)
{
	struct fixture *f = *state;

	store_close(f->store);
	f->store = maker->open(f->place);
	return f->store;
}

/* Short forms */

static int try_write(struct store *s, const char *key, const void *value, size_t length, uint64_t *ret_revision)
{
	struct store_write w = { .key = key, .value = value, .length = length };
	struct store_transaction t = { .writes = &w, .write_count = 1 };

	return store_commit(s, &t, ret_revision, NULL);
}

static uint64_t put(struct store *s, const char *key, const char *value)
{
	uint64_t revision = 0;

	assert_int_equal(try_write(s, key, value, strlen(value), &revision), 0);
	return revision;
}

static uint64_t put_number(struct store *s, const char *key, uint64_t number)
{
	char value[24];

	snprintf(value, sizeof(value), "%" PRIu64, number);
	return put(s, key, value);
}

static uint64_t drop(struct store *s, const char *key)
{
	uint64_t revision = 0;

	assert_int_equal(try_write(s, key, NULL, 0, &revision), 0);
	return revision;
}

static uint64_t revision_of(struct store *s)
{
	struct store_status status;

	assert_int_equal(store_status(s, &status), 0);
	return status.revision;
}

static void expect_item(const struct store_item *item, const char *key, const char *value)
{
	assert_string_equal(item->key, key);
	if (!value) {
		assert_null(item->value);
		return;
	}
	assert_non_null(item->value);
	assert_int_equal(item->length, strlen(value));
	assert_string_equal(item->value, value);
}

static void expect(struct store *s, const char *key, const char *value)
{
	struct store_page page = { 0 };
	int r = store_get(s, key, &page);

	if (!value) {
		assert_int_equal(r, STORE_E_ABSENT);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(page.count, 1);
	expect_item(&page.items[0], key, value);
	store_page_free(&page);
}

/* The keys of a list, joined by spaces. */
static void expect_list(struct store *s, const char *prefix, uint64_t revision, const char *keys)
{
	struct store_page page = { 0 };
	struct store_query q = { .prefix = prefix, .revision = revision };
	char joined[1024] = "";
	size_t used = 0;

	assert_int_equal(store_list(s, &q, &page), 0);
	assert_false(page.more);
	for (size_t i = 0; i < page.count; i++)
		used += (size_t)snprintf(joined + used, sizeof(joined) - used, "%s%s", i ? " " : "", page.items[i].key);
	assert_string_equal(joined, keys);
	store_page_free(&page);
}

static struct store_watch *watch(struct store *s, const char *prefix, uint64_t since)
{
	struct store_watch *w = NULL;

	assert_int_equal(store_watch_open(s, prefix, since, &w), 0);
	return w;
}

static bool readable(struct store_watch *w, int timeout_ms)
{
	struct pollfd p = { .fd = store_watch_fd(w), .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1;
}

/* The next changes, waiting for them. */
static struct store_changes changes(struct store_watch *w)
{
	struct store_changes c = { 0 };

	for (;;) {
		int r = store_watch_next(w, &c);

		if (r == 0)
			return c;
		assert_int_equal(r, STORE_E_NOTHING_NEW);
		assert_true(readable(w, 10000));
	}
}

/* Plain reading and writing */

static void test_new_store_is_empty(void **state)
{
	struct store *s = store_in(state);
	struct store_watch *w = watch(s, "/", revision_of(s));
	struct store_changes c = { 0 };

	expect(s, "/a", NULL);
	expect_list(s, "/", 0, "");
	assert_int_equal(store_watch_next(w, &c), STORE_E_NOTHING_NEW);
	store_watch_close(w);
}

static void test_put_gives_value_and_revisions(void **state)
{
	struct store *s = store_in(state);
	struct store_page page;
	uint64_t first = put(s, "/a", "one"), second = put(s, "/b", "two"), third = put(s, "/a", "three");

	assert_true(first < second && second < third);
	assert_int_equal(store_get(s, "/a", &page), 0);
	expect_item(&page.items[0], "/a", "three");
	assert_int_equal(page.items[0].revision, third);
	assert_int_equal(page.items[0].created, first);
	assert_true(page.revision >= third);
	store_page_free(&page);
	expect(s, "/b", "two");
}

static void test_values_are_any_bytes(void **state)
{
	struct store *s = store_in(state);
	char value[512];
	struct store_page page;
	uint64_t revision;

	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (char)i;
	assert_int_equal(try_write(s, "/bytes", value, sizeof(value), &revision), 0);
	assert_int_equal(try_write(s, "/empty", "", 0, &revision), 0);
	assert_int_equal(store_get(s, "/bytes", &page), 0);
	assert_int_equal(page.items[0].length, sizeof(value));
	assert_memory_equal(page.items[0].value, value, sizeof(value));
	assert_int_equal(page.items[0].value[sizeof(value)], 0);
	store_page_free(&page);
	expect(s, "/empty", "");
	expect_list(s, "/", 0, "/bytes /empty");
}

static void test_same_value_again_is_a_change(void **state)
{
	struct store *s = store_in(state);
	uint64_t first = put(s, "/a", "x");

	assert_true(put(s, "/a", "x") > first);
}

static void test_deleted_key_is_absent_and_comes_to_be_anew(void **state)
{
	struct store *s = store_in(state);
	uint64_t first = put(s, "/a", "x"), gone = drop(s, "/a"), again;
	struct store_page page;

	assert_true(gone > first);
	expect(s, "/a", NULL);
	expect_list(s, "/", 0, "");
	again = put(s, "/a", "y");
	assert_int_equal(store_get(s, "/a", &page), 0);
	assert_int_equal(page.items[0].created, again);
	assert_int_equal(page.items[0].revision, again);
	store_page_free(&page);
}

static void test_deleting_an_absent_key_changes_nothing(void **state)
{
	struct store *s = store_in(state);
	uint64_t before = put(s, "/a", "x");

	assert_int_equal(drop(s, "/b"), before);
	assert_int_equal(revision_of(s), before);
}

static void test_outputs_are_untouched_on_failure(void **state)
{
	struct store *s = store_in(state);
	struct store_page page = { .count = 77 };
	struct store_changes c = { .count = 77 };
	struct store_conflict conflict = { .index = 77, .revision = 77 };
	struct store_condition condition = { "/a", 1 };
	struct store_transaction t = { .conditions = &condition, .condition_count = 1 };
	struct store_watch *w = watch(s, "/", revision_of(s)), *none = w;
	uint64_t revision = 77, future = revision_of(s) + 1000;

	assert_int_equal(store_get(s, "/a", &page), STORE_E_ABSENT);
	assert_int_equal(store_get(s, "a", &page), STORE_E_BAD_KEY);
	assert_int_equal(store_list(s, &(struct store_query){ "/", NULL, future, 0 }, &page), STORE_E_FUTURE);
	assert_int_equal(store_watch_next(w, &c), STORE_E_NOTHING_NEW);
	assert_int_equal(store_watch_open(s, "/", future, &none), STORE_E_FUTURE);
	assert_int_equal(store_commit(s, &t, &revision, NULL), STORE_E_CONFLICT);
	condition.key = "//";
	assert_int_equal(store_commit(s, &t, &revision, &conflict), STORE_E_BAD_KEY);
	assert_int_equal(page.count, 77);
	assert_int_equal(c.count, 77);
	assert_int_equal(conflict.index, 77);
	assert_int_equal(revision, 77);
	assert_ptr_equal(none, w);
	store_watch_close(w);
}

/* Limits */

static void test_keys_are_paths(void **state)
{
	static const char *const good[] = { "/a", "/a/b", "/sites/zone-1/proxies/sid-2", "/.", "/..", "/%",
		"/~!\"'\\" };
	static const char *const bad[] = { "", "/", "a", "a/b", "/a/", "//", "//a", "/a//b", "/a b", " /a", "/a\n",
		"/\x7f", "/\xc3\xa4", "/\x01" };
	struct store *s = store_in(state);
	uint64_t revision;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		put(s, good[i], good[i]);
		expect(s, good[i], good[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct store_page page;
		struct store_condition condition = { bad[i], 0 };
		struct store_transaction t = { .conditions = &condition, .condition_count = 1 };

		assert_int_equal(try_write(s, bad[i], "x", 1, &revision), STORE_E_BAD_KEY);
		assert_int_equal(try_write(s, bad[i], NULL, 0, &revision), STORE_E_BAD_KEY);
		assert_int_equal(store_get(s, bad[i], &page), STORE_E_BAD_KEY);
		assert_int_equal(store_commit(s, &t, &revision, NULL), STORE_E_BAD_KEY);
		assert_int_equal(
			store_list(s, &(struct store_query){ .prefix = "/", .after = bad[i] }, &page), STORE_E_BAD_KEY);
	}
}

static void test_prefixes_end_with_a_slash(void **state)
{
	static const char *const bad[] = { "", "a", "/a", "a/", "//", "/a//", "/a b/" };
	struct store *s = store_in(state);
	struct store_page page;
	struct store_watch *w;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(store_list(s, &(struct store_query){ .prefix = bad[i] }, &page), STORE_E_BAD_KEY);
		assert_int_equal(store_watch_open(s, bad[i], 0, &w), STORE_E_BAD_KEY);
	}
}

static void test_key_length_is_limited(void **state)
{
	struct store *s = store_in(state);
	char key[STORE_KEY_MAX + 2] = "/";
	struct store_page page;
	struct store_watch *w;
	uint64_t revision;

	memset(key + 1, 'k', STORE_KEY_MAX - 1);
	put(s, key, "x");
	expect(s, key, "x");
	key[STORE_KEY_MAX] = 'k';
	assert_int_equal(try_write(s, key, "x", 1, &revision), STORE_E_BAD_KEY);
	assert_int_equal(store_get(s, key, &page), STORE_E_BAD_KEY);

	key[STORE_KEY_MAX] = '\0';
	key[STORE_KEY_MAX - 1] = '/';
	expect_list(s, key, 0, "");
	store_watch_close(watch(s, key, revision_of(s)));
	key[STORE_KEY_MAX - 1] = 'k';
	key[STORE_KEY_MAX] = '/';
	assert_int_equal(store_list(s, &(struct store_query){ .prefix = key }, &page), STORE_E_BAD_KEY);
	assert_int_equal(store_watch_open(s, key, 0, &w), STORE_E_BAD_KEY);
}

static void test_value_length_is_limited(void **state)
{
	struct store *s = store_in(state);
	char *value = malloc(STORE_VALUE_MAX + 1);
	struct store_page page;
	uint64_t revision;

	memset(value, 'v', STORE_VALUE_MAX + 1);
	assert_int_equal(try_write(s, "/a", value, STORE_VALUE_MAX, &revision), 0);
	assert_int_equal(try_write(s, "/b", value, STORE_VALUE_MAX + 1, &revision), STORE_E_VALUE_TOO_LONG);
	assert_int_equal(store_get(s, "/a", &page), 0);
	assert_int_equal(page.items[0].length, STORE_VALUE_MAX);
	assert_memory_equal(page.items[0].value, value, STORE_VALUE_MAX);
	store_page_free(&page);
	expect(s, "/b", NULL);
	free(value);
}

/* Writes to /many/00000 and so on. */
struct many {
	struct store_write *writes;
	struct store_condition *conditions;
	char (*keys)[32];
};

static struct many many_new(size_t count, const char *value, size_t length)
{
	struct many m = { calloc(count, sizeof(*m.writes)), calloc(count, sizeof(*m.conditions)),
		calloc(count, sizeof(*m.keys)) };

	for (size_t i = 0; i < count; i++) {
		snprintf(m.keys[i], sizeof(m.keys[i]), "/many/%05zu", i);
		m.writes[i] = (struct store_write){ m.keys[i], value, length };
		m.conditions[i] = (struct store_condition){ m.keys[i], 0 };
	}
	return m;
}

static void many_free(struct many *m)
{
	free(m->writes);
	free(m->conditions);
	free(m->keys);
}

static void test_transaction_size_is_limited(void **state)
{
	struct store *s = store_in(state);
	struct many m = many_new(STORE_WRITES_MAX + 1, "x", 1);
	struct store_transaction t = { .writes = m.writes, .write_count = STORE_WRITES_MAX + 1 };
	uint64_t before = revision_of(s), revision;

	assert_int_equal(store_commit(s, &t, &revision, NULL), STORE_E_TOO_MANY);
	t.write_count = 0;
	t.conditions = m.conditions;
	t.condition_count = STORE_CONDITIONS_MAX + 1;
	assert_int_equal(store_commit(s, &t, &revision, NULL), STORE_E_TOO_MANY);
	expect_list(s, "/", 0, "");
	assert_int_equal(revision_of(s), before);

	t.condition_count = STORE_CONDITIONS_MAX;
	t.write_count = STORE_WRITES_MAX;
	assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	expect(s, m.keys[STORE_WRITES_MAX - 1], "x");
	many_free(&m);
}

static void test_transaction_bytes_are_limited(void **state)
{
	enum { N = 8 };
	struct store *s = store_in(state);
	char *value = calloc(1, STORE_VALUE_MAX);
	struct many m = many_new(N + 1, value, STORE_VALUE_MAX);
	struct store_transaction t = { .writes = m.writes, .write_count = N };
	size_t key_length = strlen(m.keys[0]);
	uint64_t revision;

	_Static_assert((size_t)N * STORE_VALUE_MAX == STORE_TRANSACTION_BYTES_MAX, "values fill a transaction");
	m.writes[0].length = STORE_VALUE_MAX - N * key_length + 1;
	assert_int_equal(store_commit(s, &t, &revision, NULL), STORE_E_TOO_LARGE);
	expect_list(s, "/", 0, "");
	m.writes[0].length--;
	assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	many_free(&m);
	free(value);
}

static void test_key_twice_in_a_transaction_is_refused(void **state)
{
	struct store *s = store_in(state);
	struct store_write writes[] = { { "/a", "1", 1 }, { "/b", "2", 1 }, { "/a", NULL, 0 } };
	struct store_transaction t = { .writes = writes, .write_count = ARRAY_SIZE(writes) };
	uint64_t revision;

	assert_int_equal(store_commit(s, &t, &revision, NULL), STORE_E_DUPLICATE);
	expect_list(s, "/", 0, "");
}

static void test_watches_are_limited(void **state)
{
	struct store *s = store_in(state);
	struct store_watch **watches = calloc(STORE_WATCHES_MAX, sizeof(*watches));
	struct store_watch *more;
	uint64_t since = revision_of(s);

	for (size_t i = 0; i < STORE_WATCHES_MAX; i++)
		watches[i] = watch(s, "/", since);
	assert_int_equal(store_watch_open(s, "/", since, &more), STORE_E_TOO_MANY);
	store_watch_close(watches[0]);
	watches[0] = watch(s, "/", since);
	put(s, "/a", "x");
	for (size_t i = 0; i < STORE_WATCHES_MAX; i++) {
		struct store_changes c = changes(watches[i]);

		assert_int_equal(c.count, 1);
		store_changes_free(&c);
		store_watch_close(watches[i]);
	}
	free(watches);
}

/* Transactions */

static void test_conflict_names_the_first_key_that_differs(void **state)
{
	struct store *s = store_in(state);
	uint64_t a = put(s, "/a", "1"), b = put(s, "/b", "1"), revision = 0;
	struct store_write writes[] = { { "/a", "2", 1 }, { "/b", "2", 1 }, { "/c", "2", 1 } };
	struct {
		struct store_condition conditions[3];
		int expected;
		size_t index;
		uint64_t revision;
	} cases[] = {
		{ { { "/a", a }, { "/b", b }, { "/c", 1 } }, STORE_E_CONFLICT, 2, 0 },
		{ { { "/a", a }, { "/b", 0 }, { "/c", 1 } }, STORE_E_CONFLICT, 1, b },
		{ { { "/a", 0 }, { "/b", 0 }, { "/c", 1 } }, STORE_E_CONFLICT, 0, a },
		{ { { "/a", b }, { "/b", b }, { "/c", 0 } }, STORE_E_CONFLICT, 0, a },
		{ { { "/c", 0 }, { "/b", b }, { "/a", a + 1000 } }, STORE_E_CONFLICT, 2, a },
		{ { { "/a", a }, { "/a", a }, { "/a", 0 } }, STORE_E_CONFLICT, 2, a },
		{ { { "/a", a }, { "/b", b }, { "/c", 0 } }, 0, 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct store_transaction t = { cases[i].conditions, 3, writes, ARRAY_SIZE(writes) };
		struct store_conflict conflict = { 0 };

		assert_int_equal(store_commit(s, &t, &revision, &conflict), cases[i].expected);
		if (cases[i].expected) {
			assert_int_equal(conflict.index, cases[i].index);
			assert_int_equal(conflict.revision, cases[i].revision);
			expect(s, "/a", "1");
			expect(s, "/c", NULL);
			assert_int_equal(revision_of(s), b);
		}
	}
	expect(s, "/a", "2");
	expect(s, "/c", "2");
	assert_true(revision > b);
}

static void test_deleted_key_is_absent_to_conditions(void **state)
{
	struct store *s = store_in(state);
	uint64_t a = put(s, "/a", "1"), revision;
	struct store_condition condition = { "/a", a };
	struct store_write write = { "/b", "1", 1 };
	struct store_transaction t = { &condition, 1, &write, 1 };
	struct store_conflict conflict;

	drop(s, "/a");
	assert_int_equal(store_commit(s, &t, &revision, &conflict), STORE_E_CONFLICT);
	assert_int_equal(conflict.revision, 0);
	condition.revision = 0;
	assert_int_equal(store_commit(s, &t, &revision, &conflict), 0);
}

static void test_conditions_alone_change_nothing(void **state)
{
	struct store *s = store_in(state);
	uint64_t a = put(s, "/a", "1"), revision = 0;
	struct store_condition condition = { "/a", a };
	struct store_transaction t = { .conditions = &condition, .condition_count = 1 };

	assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	assert_int_equal(revision, a);
	assert_int_equal(revision_of(s), a);
	assert_int_equal(store_commit(s, &(struct store_transaction){ 0 }, &revision, NULL), 0);
	assert_int_equal(revision, a);
}

static void test_transaction_has_one_revision(void **state)
{
	struct store *s = store_in(state);
	struct store_write writes[] = { { "/c", "1", 1 }, { "/a", "1", 1 }, { "/gone", NULL, 0 }, { "/b", "1", 1 } };
	struct store_transaction t = { .writes = writes, .write_count = ARRAY_SIZE(writes) };
	struct store_page page;
	struct store_changes c;
	struct store_watch *w;
	uint64_t before = put(s, "/gone", "1"), revision = 0;

	assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	assert_int_equal(store_list(s, &(struct store_query){ .prefix = "/" }, &page), 0);
	assert_int_equal(page.count, 3);
	assert_int_equal(page.revision, revision);
	for (size_t i = 0; i < page.count; i++)
		assert_int_equal(page.items[i].revision, revision);
	store_page_free(&page);
	w = watch(s, "/", before);
	c = changes(w);
	assert_int_equal(c.count, 4);
	assert_int_equal(c.revision, revision);
	for (size_t i = 0; i < c.count; i++) {
		expect_item(&c.items[i], writes[i].key, writes[i].value);
		assert_int_equal(c.items[i].revision, revision);
		assert_int_equal(c.items[i].created, writes[i].value ? revision : 0);
	}
	store_changes_free(&c);
	store_watch_close(w);
}

/* Lists */

static void test_list_takes_what_is_below_the_prefix(void **state)
{
	static const char *const keys[] = { "/a", "/a/1", "/a/1/x", "/a/10", "/a/2", "/a-b", "/a-b/1", "/a.b/1",
		"/a0/1", "/ab", "/b/1", "/~/~" };
	struct store *s = store_in(state);

	for (size_t i = ARRAY_SIZE(keys); i-- > 0;)
		put(s, keys[i], "x");
	expect_list(s, "/", 0, "/a /a-b /a-b/1 /a.b/1 /a/1 /a/1/x /a/10 /a/2 /a0/1 /ab /b/1 /~/~");
	expect_list(s, "/a/", 0, "/a/1 /a/1/x /a/10 /a/2");
	expect_list(s, "/a/1/", 0, "/a/1/x");
	expect_list(s, "/a-b/", 0, "/a-b/1");
	expect_list(s, "/c/", 0, "");
	expect_list(s, "/~/", 0, "/~/~");
}

static void test_list_goes_on_after_a_key(void **state)
{
	struct store *s = store_in(state);
	struct store_page page;
	struct {
		const char *after;
		size_t count;
		const char *first;
	} cases[] = { { NULL, 3, "/a/1" }, { "/a/1", 2, "/a/2" }, { "/a/11", 2, "/a/2" }, { "/a/3", 0, NULL },
		{ "/a", 3, "/a/1" }, { "/A", 3, "/a/1" }, { "/b", 0, NULL }, { "/z", 0, NULL } };

	put(s, "/a/1", "x");
	put(s, "/a/2", "x");
	put(s, "/a/3", "x");
	put(s, "/b", "x");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct store_query q = { .prefix = "/a/", .after = cases[i].after };

		assert_int_equal(store_list(s, &q, &page), 0);
		assert_int_equal(page.count, cases[i].count);
		if (page.count)
			assert_string_equal(page.items[0].key, cases[i].first);
		store_page_free(&page);
	}
}

static void test_pages_are_limited(void **state)
{
	struct store *s = store_in(state);
	struct many m = many_new(STORE_PAGE_ITEMS_MAX + 1, "x", 1);
	struct store_transaction t = { .writes = m.writes, .write_count = STORE_PAGE_ITEMS_MAX + 1 };
	struct store_query q = { .prefix = "/", .limit = STORE_PAGE_ITEMS_MAX + 1 };
	struct store_page page;
	uint64_t revision;

	assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	assert_int_equal(store_list(s, &q, &page), STORE_E_TOO_MANY);
	for (q.limit = 0; q.limit <= STORE_PAGE_ITEMS_MAX; q.limit += STORE_PAGE_ITEMS_MAX) {
		assert_int_equal(store_list(s, &q, &page), 0);
		assert_int_equal(page.count, STORE_PAGE_ITEMS_MAX);
		assert_true(page.more);
		store_page_free(&page);
	}
	drop(s, m.keys[STORE_PAGE_ITEMS_MAX]); /* exactly full: no more */
	q.limit = 0;
	assert_int_equal(store_list(s, &q, &page), 0);
	assert_int_equal(page.count, STORE_PAGE_ITEMS_MAX);
	assert_false(page.more);
	store_page_free(&page);
	q.limit = 1;
	assert_int_equal(store_list(s, &q, &page), 0);
	assert_int_equal(page.count, 1);
	assert_true(page.more);
	store_page_free(&page);
	many_free(&m);
}

/* Read all pages; the number of items, which must be /many/00000 and so on with @value first in each. */
static size_t walk(struct store *s, size_t limit, uint64_t revision, char value)
{
	struct store_query q = { .prefix = "/many/", .limit = limit, .revision = revision };
	char after[STORE_KEY_MAX + 1];
	char expected[32];
	size_t count = 0;

	for (bool more = true; more;) {
		struct store_page page;

		assert_int_equal(store_list(s, &q, &page), 0);
		assert_true(page.count <= (limit ? limit : STORE_PAGE_ITEMS_MAX));
		assert_true(!page.more || page.count);
		for (size_t i = 0; i < page.count; i++) {
			snprintf(expected, sizeof(expected), "/many/%05zu", count++);
			assert_string_equal(page.items[i].key, expected);
			assert_int_equal(page.items[i].value[0], value);
		}
		if (q.revision)
			assert_int_equal(page.revision, q.revision);
		q.revision = page.revision;
		more = page.more;
		if (more) {
			memcpy(after, page.items[page.count - 1].key, strlen(page.items[page.count - 1].key) + 1);
			q.after = after;
		}
		store_page_free(&page);
	}
	return count;
}

static void test_pages_are_bounded_in_bytes(void **state)
{
	enum { N = 6 };
	struct store *s = store_in(state);
	char *value = calloc(1, STORE_VALUE_MAX);
	struct many m = many_new(N, value, STORE_VALUE_MAX);
	struct store_transaction t = { .writes = m.writes, .write_count = N };
	struct store_page page;
	uint64_t revision;

	assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	assert_int_equal(store_list(s, &(struct store_query){ .prefix = "/" }, &page), 0);
	assert_true(page.count && page.count <= STORE_PAGE_BYTES_MAX / STORE_VALUE_MAX + 1);
	assert_true(page.more);
	store_page_free(&page);
	assert_int_equal(walk(s, 0, 0, 0), N);
	many_free(&m);
	free(value);
}

static void test_big_list_is_whole(void **state)
{
	enum { N = 5 * STORE_WRITES_MAX };
	struct store *s = store_in(state);
	struct many m = many_new(N, "a", 1);
	uint64_t revision = 0;

	for (size_t i = 0; i < N; i += STORE_WRITES_MAX) {
		struct store_transaction t = { .writes = m.writes + i, .write_count = STORE_WRITES_MAX };

		assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	}
	assert_int_equal(walk(s, 0, 0, 'a'), N);
	assert_int_equal(walk(s, 777, 0, 'a'), N);
	many_free(&m);
}

static void test_list_is_consistent_at_its_revision(void **state)
{
	enum { N = 100 };
	struct store *s = store_in(state);
	struct many m = many_new(N, "a", 1);
	struct store_transaction t = { .writes = m.writes, .write_count = N };
	uint64_t old = 0, revision;

	assert_int_equal(store_commit(s, &t, &old, NULL), 0);
	for (size_t i = 0; i < N; i++) {
		m.writes[i].value = i % 3 ? "b" : NULL;
		m.writes[i].length = i % 3 ? 1 : 0;
	}
	assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	put(s, "/many/00000x", "new");
	assert_int_equal(walk(s, 7, old, 'a'), N);
	drop(s, "/many/00001");
	assert_int_equal(walk(s, 1, old, 'a'), N);
	many_free(&m);
}

static void test_past_and_future_of_lists(void **state)
{
	struct store *s = store_in(state);
	uint64_t one = put(s, "/a", "1"), two = put(s, "/b", "1"), three = drop(s, "/a"), four = put(s, "/c", "1");
	struct store_page page;

	expect_list(s, "/", one, "/a");
	expect_list(s, "/", two, "/a /b");
	expect_list(s, "/", three, "/b");
	expect_list(s, "/", four, "/b /c");
	assert_int_equal(
		store_list(s, &(struct store_query){ .prefix = "/", .revision = four + 1 }, &page), STORE_E_FUTURE);
}

/* Compaction */

static void test_compaction_keeps_the_present(void **state)
{
	struct store *s = store_in(state);
	uint64_t one = put(s, "/a", "1"), two, three, four;
	struct store_status status;
	struct store_page page;

	put(s, "/b", "1");
	two = put(s, "/a", "2");
	three = drop(s, "/b");
	four = put(s, "/a", "3");
	assert_int_equal(store_compact(s, four + 1), STORE_E_FUTURE);
	assert_int_equal(store_compact(s, three), 0);
	assert_int_equal(store_status(s, &status), 0);
	assert_int_equal(status.compacted, three);
	assert_int_equal(status.revision, four);
	expect_list(s, "/", three, "/a");
	expect(s, "/a", "3");
	expect(s, "/b", NULL);
	assert_int_equal(store_get(s, "/a", &page), 0);
	assert_int_equal(page.items[0].created, one);
	store_page_free(&page);
	assert_int_equal(
		store_list(s, &(struct store_query){ .prefix = "/", .revision = two }, &page), STORE_E_COMPACTED);
	assert_int_equal(store_compact(s, two), STORE_E_COMPACTED);
	assert_int_equal(store_compact(s, three), 0);
	assert_int_equal(store_compact(s, four), 0);
	expect(s, "/a", "3");
	s = reopen(state);
	expect_list(s, "/", 0, "/a");
	assert_int_equal(revision_of(s), four);
	assert_int_equal(
		store_list(s, &(struct store_query){ .prefix = "/", .revision = three }, &page), STORE_E_COMPACTED);
}

static void test_deleted_keys_leave_nothing_behind_compaction(void **state)
{
	struct store *s = store_in(state);
	struct store_status before, after;

	assert_int_equal(store_status(s, &before), 0);
	for (int i = 0; i < 50; i++) {
		put(s, "/a", "1");
		drop(s, "/a");
	}
	assert_int_equal(store_compact(s, revision_of(s)), 0);
	assert_int_equal(store_status(s, &after), 0);
	assert_int_equal(after.live_bytes, before.live_bytes);
	assert_int_equal(after.superseded_bytes, before.superseded_bytes);
	expect(s, "/a", NULL);
	put(s, "/a", "2");
	expect(s, "/a", "2");
}

/* Watches */

static void test_watch_tells_changes_in_order(void **state)
{
	struct store *s = store_in(state);
	struct store_watch *w = watch(s, "/", revision_of(s));
	struct store_changes c;
	uint64_t one = put(s, "/a", "1"), two = put(s, "/b", "2"), three = drop(s, "/a"), four = put(s, "/b", "3");
	const uint64_t revisions[] = { one, two, three, four }, created[] = { one, two, 0, two };
	const char *const keys[] = { "/a", "/b", "/a", "/b" }, *const values[] = { "1", "2", NULL, "3" };

	for (size_t told = 0; told < 4;) {
		c = changes(w);
		for (size_t i = 0; i < c.count; i++, told++) {
			expect_item(&c.items[i], keys[told], values[told]);
			assert_int_equal(c.items[i].revision, revisions[told]);
			assert_int_equal(c.items[i].created, created[told]);
		}
		store_changes_free(&c);
	}
	assert_int_equal(store_watch_next(w, &c), STORE_E_NOTHING_NEW);
	store_watch_close(w);
}

static void test_watch_tells_only_what_is_below_its_prefix(void **state)
{
	struct store *s = store_in(state);
	struct store_watch *w = watch(s, "/a/", revision_of(s));
	struct store_changes c = { 0 };

	put(s, "/a", "no");
	put(s, "/a-b/1", "no");
	put(s, "/a0/1", "no");
	put(s, "/a/1", "yes");
	put(s, "/b/a/1", "no");
	c = changes(w);
	assert_int_equal(c.count, 1);
	expect_item(&c.items[0], "/a/1", "yes");
	store_changes_free(&c);
	assert_int_equal(store_watch_next(w, &c), STORE_E_NOTHING_NEW);
	store_watch_close(w);
}

static void test_watch_wakes_by_edges(void **state)
{
	struct store *s = store_in(state);
	struct store_watch *w = watch(s, "/", revision_of(s));
	struct store_changes c = { 0 };

	for (int i = 0; i < 100; i++) {
		assert_int_equal(store_watch_next(w, &c), STORE_E_NOTHING_NEW);
		put(s, "/a", "1");
		assert_true(readable(w, 10000));
		c = changes(w);
		assert_int_equal(c.count, 1);
		store_changes_free(&c);
	}
	store_watch_close(w);
}

static void test_watch_begins_in_the_past(void **state)
{
	struct store *s = store_in(state);
	uint64_t one = put(s, "/a", "1"), two = put(s, "/a", "2"), three = put(s, "/a", "3");
	struct store_watch *w = watch(s, "/", one), *none;
	struct store_changes c = changes(w);

	assert_int_equal(c.items[0].revision, two);
	store_changes_free(&c);
	store_watch_close(w);
	assert_int_equal(store_watch_open(s, "/", three + 1, &none), STORE_E_FUTURE);
	assert_int_equal(store_compact(s, two), 0);
	assert_int_equal(store_watch_open(s, "/", one, &none), STORE_E_COMPACTED);
	w = watch(s, "/", two);
	c = changes(w);
	assert_int_equal(c.count, 1);
	assert_int_equal(c.items[0].revision, three);
	store_changes_free(&c);
	store_watch_close(w);
}

static void test_watch_that_comes_too_late_is_told_so(void **state)
{
	struct store *s = store_in(state);
	struct store_watch *w;
	struct store_changes c = { 0 };

	put(s, "/a", "1");
	w = watch(s, "/", revision_of(s));
	for (int i = 0; i < 10; i++)
		put(s, "/a", "2");
	assert_int_equal(store_compact(s, revision_of(s)), 0);
	/* an implementation that pushes may have brought them already; one that lost them must say so */
	for (size_t told = 0;;) {
		int r = store_watch_next(w, &c);

		if (r == STORE_E_COMPACTED)
			break;
		assert_int_equal(r, 0);
		told += c.count;
		store_changes_free(&c);
		if (told == 10) {
			store_watch_close(w);
			return;
		}
	}
	put(s, "/a", "3");
	assert_int_equal(store_watch_next(w, &c), STORE_E_COMPACTED);
	store_watch_close(w);
}

static void test_idle_watch_is_not_too_late(void **state)
{
	struct store *s = store_in(state);
	struct store_watch *w = watch(s, "/quiet/", revision_of(s));
	struct store_changes c = { 0 };

	for (int i = 0; i < 10; i++)
		put(s, "/loud/1", "2");
	assert_int_equal(store_watch_next(w, &c), STORE_E_NOTHING_NEW);
	assert_int_equal(store_compact(s, revision_of(s)), 0);
	assert_int_equal(store_watch_next(w, &c), STORE_E_NOTHING_NEW);
	put(s, "/quiet/1", "1");
	c = changes(w);
	assert_int_equal(c.count, 1);
	store_changes_free(&c);
	store_watch_close(w);
}

static void test_batches_hold_whole_transactions(void **state)
{
	enum { N = 2500, ROUNDS = 3 };
	struct store *s = store_in(state);
	struct many m = many_new(N, "x", 1);
	struct store_transaction t = { .writes = m.writes, .write_count = N };
	struct store_watch *w = watch(s, "/", revision_of(s));
	uint64_t revision;

	for (int i = 0; i < ROUNDS; i++)
		assert_int_equal(store_commit(s, &t, &revision, NULL), 0);
	for (size_t told = 0; told < (size_t)N * ROUNDS;) {
		struct store_changes c = changes(w);

		assert_int_equal(c.count % N, 0);
		assert_true(c.count <= STORE_PAGE_ITEMS_MAX + STORE_WRITES_MAX);
		assert_int_equal(c.revision, c.items[c.count - 1].revision);
		told += c.count;
		store_changes_free(&c);
	}
	store_watch_close(w);
	many_free(&m);
}

static void test_batches_are_bounded_in_bytes(void **state)
{
	enum { N = 12 };
	struct store *s = store_in(state);
	char *value = calloc(1, STORE_VALUE_MAX);
	struct store_watch *w = watch(s, "/", revision_of(s));
	uint64_t revision;

	for (int i = 0; i < N; i++)
		assert_int_equal(try_write(s, "/a", value, STORE_VALUE_MAX, &revision), 0);
	for (size_t told = 0; told < N;) {
		struct store_changes c = changes(w);

		assert_true(c.count <= STORE_PAGE_BYTES_MAX / STORE_VALUE_MAX + 1);
		told += c.count;
		store_changes_free(&c);
	}
	store_watch_close(w);
	free(value);
}

/* Reopening */

static void test_everything_is_there_after_reopening(void **state)
{
	struct store *s = store_in(state);
	uint64_t one = put(s, "/a", "1"), two = put(s, "/a", "2"), three = drop(s, "/a"), four;
	struct store_watch *w;
	struct store_changes c;

	s = reopen(state);
	assert_int_equal(revision_of(s), three);
	expect_list(s, "/", one, "/a");
	expect_list(s, "/", 0, "");
	w = watch(s, "/", one);
	c = changes(w);
	assert_int_equal(c.items[0].revision, two);
	assert_true(c.revision <= three);
	store_changes_free(&c);
	store_watch_close(w);
	four = put(s, "/a", "4");
	assert_true(four > three);
	for (int i = 0; i < 5; i++) {
		s = reopen(state);
		assert_int_equal(revision_of(s), four);
		expect(s, "/a", "4");
	}
}

/* Several threads */

enum { THREADS = 4, THREAD_COMMITS = 150, LOAD_COMMITS = 500 };

struct worker {
	struct store *store;
	unsigned int number;
	_Atomic bool *stop;
	uint64_t failures;
	uint64_t done;
};

/* Add 1 to /counter, by compare and swap, and note it below /log. */
static void *count_up(void *arg)
{
	struct worker *w = arg;

	for (unsigned int i = 0; i < THREAD_COMMITS;) {
		struct store_page page = { 0 };
		char value[24], key[48];
		uint64_t at = 0, number = 0, revision;
		int r = store_get(w->store, "/counter", &page);

		if (r != 0 && r != STORE_E_ABSENT) {
			w->failures++;
			return NULL;
		}
		if (r == 0) {
			at = page.items[0].revision;
			number = strtoull(page.items[0].value, NULL, 10);
			store_page_free(&page);
		}
		snprintf(value, sizeof(value), "%" PRIu64, number + 1);
		snprintf(key, sizeof(key), "/log/%u/%u", w->number, i);
		struct store_condition condition = { "/counter", at };
		struct store_write writes[] = { { "/counter", value, strlen(value) }, { key, value, strlen(value) },
			{ "/twin", value, strlen(value) } };
		struct store_transaction t = { &condition, 1, writes, ARRAY_SIZE(writes) };

		r = store_commit(w->store, &t, &revision, NULL);
		if (r == 0)
			i++;
		else if (r == STORE_E_CONFLICT)
			w->done++; /* lost a race */
		else
			w->failures++;
		if (w->failures)
			return NULL;
	}
	return NULL;
}

/* /counter and /twin are always equal, and never go back. */
static void *read_twins(void *arg)
{
	struct worker *w = arg;
	uint64_t last = 0, last_revision = 0;

	while (!*w->stop) {
		struct store_page page = { 0 };
		const char *counter = NULL, *twin = NULL;
		uint64_t number = 0;

		if (store_list(w->store, &(struct store_query){ .prefix = "/", .limit = 1 }, &page)) {
			w->failures++;
			break;
		}
		if (page.count)
			counter = page.items[0].value;
		uint64_t at = page.revision;
		struct store_page rest = { 0 };

		if (counter &&
			store_list(w->store, &(struct store_query){ .prefix = "/", .after = "/log0", .revision = at },
				&rest)) {
			w->failures++;
			store_page_free(&page);
			break;
		}
		if (rest.count)
			twin = rest.items[0].value;
		if (counter) {
			number = strtoull(counter, NULL, 10);
			w->failures += !twin || strcmp(counter, twin) != 0 || number < last || at < last_revision;
			last = number;
			last_revision = at;
		}
		w->done++;
		store_page_free(&page);
		store_page_free(&rest);
	}
	return NULL;
}

static void test_threads_read_and_write_at_once(void **state)
{
	struct store *s = store_in(state);
	_Atomic bool stop = false;
	struct worker writers[THREADS], readers[THREADS];
	pthread_t write_threads[THREADS], read_threads[THREADS];
	struct store_watch *w = watch(s, "/", revision_of(s));
	uint64_t next = 1, told = 0, last_revision = 0;
	char expected[32];

	for (unsigned int i = 0; i < THREADS; i++) {
		writers[i] = (struct worker){ .store = s, .number = i };
		readers[i] = (struct worker){ .store = s, .stop = &stop };
		assert_int_equal(pthread_create(&write_threads[i], NULL, count_up, &writers[i]), 0);
		assert_int_equal(pthread_create(&read_threads[i], NULL, read_twins, &readers[i]), 0);
	}
	/* meanwhile the watch sees every number once and in order, in transactions of three */
	while (told < 3 * THREADS * THREAD_COMMITS) {
		struct store_changes c = changes(w);

		assert_int_equal(c.count % 3, 0);
		for (size_t i = 0; i < c.count; i += 3) {
			snprintf(expected, sizeof(expected), "%" PRIu64, next++);
			expect_item(&c.items[i], "/counter", expected);
			expect_item(&c.items[i + 2], "/twin", expected);
			assert_string_equal(c.items[i + 1].value, expected);
			assert_true(c.items[i].revision > last_revision);
			assert_int_equal(c.items[i + 1].revision, c.items[i].revision);
			assert_int_equal(c.items[i + 2].revision, c.items[i].revision);
			last_revision = c.items[i].revision;
		}
		told += c.count;
		store_changes_free(&c);
	}
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(write_threads[i], NULL);
	stop = true;
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(read_threads[i], NULL);
		assert_int_equal(writers[i].failures, 0);
		assert_int_equal(readers[i].failures, 0);
		assert_true(readers[i].done > 0);
	}
	snprintf(expected, sizeof(expected), "%d", THREADS * THREAD_COMMITS);
	expect(s, "/counter", expected);
	store_watch_close(w);
}

static void *write_numbers(void *arg)
{
	struct worker *w = arg;

	for (uint64_t i = 0; i < LOAD_COMMITS; i++) {
		char key[32];

		snprintf(key, sizeof(key), "/load/%" PRIu64, i % 10);
		put_number(w->store, key, i);
	}
	return NULL;
}

static void test_list_and_watch_from_its_revision_miss_nothing(void **state)
{
	struct store *s = store_in(state);
	struct worker writer = { .store = s };
	uint64_t seen[10] = { 0 }, before = revision_of(s);
	pthread_t thread;
	struct store_watch *w;
	struct store_page page;

	assert_int_equal(pthread_create(&thread, NULL, write_numbers, &writer), 0);
	while (revision_of(s) == before)
		;
	assert_int_equal(store_list(s, &(struct store_query){ .prefix = "/load/" }, &page), 0);
	for (size_t i = 0; i < page.count; i++)
		seen[page.items[i].key[6] - '0'] = strtoull(page.items[i].value, NULL, 10) + 1;
	w = watch(s, "/load/", page.revision);
	store_page_free(&page);
	/* the list may have had everything already */
	while (seen[(LOAD_COMMITS - 1) % 10] != LOAD_COMMITS) {
		struct store_changes c = changes(w);

		for (size_t i = 0; i < c.count; i++) {
			size_t which = (size_t)(c.items[i].key[6] - '0');
			uint64_t number = strtoull(c.items[i].value, NULL, 10);

			/* what it had before was the number ten less */
			assert_int_equal(number, seen[which] ? seen[which] + 9 : which);
			seen[which] = number + 1;
		}
		store_changes_free(&c);
	}
	pthread_join(thread, NULL);
	store_watch_close(w);
}

/* A model: random transactions, compared with arrays at every revision. */

enum { MODEL_KEYS = 24, MODEL_STEPS = 400 };

struct model {
	uint64_t revision;
	uint32_t values[MODEL_KEYS]; /* 0: absent */
	uint64_t revisions[MODEL_KEYS];
	uint64_t created[MODEL_KEYS];
};

static void model_key(unsigned int i, char ret_key[static 24])
{
	snprintf(ret_key, 24, "/m/%c/%u", 'a' + (char)(i % 3), i);
}

static void model_compare_item(const struct model *m, const struct store_item *item)
{
	unsigned int i = (unsigned int)strtoul(item->key + 5, NULL, 10);
	char value[12];

	snprintf(value, sizeof(value), "%u", m->values[i]);
	assert_int_equal(item->revision, m->revisions[i]);
	assert_int_equal(item->created, m->created[i]);
	assert_string_equal(item->value, value);
}

static void model_compare(struct store *s, const struct model *m, struct test_random *random)
{
	struct store_query q = { .prefix = "/m/", .revision = m->revision, .limit = 1 + test_below(random, 12) };
	char after[24];
	size_t count = 0, expected = 0;

	for (bool more = true; more;) {
		struct store_page page;

		assert_int_equal(store_list(s, &q, &page), 0);
		for (size_t i = 0; i < page.count; i++)
			model_compare_item(m, &page.items[i]);
		count += page.count;
		more = page.more;
		if (more) {
			snprintf(after, sizeof(after), "%s", page.items[page.count - 1].key);
			q.after = after;
		}
		store_page_free(&page);
	}
	for (unsigned int i = 0; i < MODEL_KEYS; i++)
		expected += m->values[i] != 0;
	assert_int_equal(count, expected);
}

/* One random transaction; @after is @before changed by it. Return: whether it changed anything. */
static bool model_step(struct store *s, const struct model *before, struct model *after, struct test_random *random)
{
	struct store_condition conditions[4];
	struct store_write writes[6];
	char condition_keys[4][24], keys[6][24], values[6][12];
	size_t condition_count = test_below(random, 5), write_count = 0, wrong = SIZE_MAX;
	struct store_conflict conflict;
	bool changed = false;
	uint64_t revision = 0;
	int r;

	*after = *before;
	for (size_t i = 0; i < condition_count; i++) {
		unsigned int key = test_below(random, MODEL_KEYS);

		model_key(key, condition_keys[i]);
		conditions[i] = (struct store_condition){ condition_keys[i], before->revisions[key] };
		if (test_below(random, 10) == 0) {
			conditions[i].revision++;
			wrong = MIN(wrong, i);
		}
	}
	for (unsigned int key = test_below(random, 6); key < MODEL_KEYS && write_count < 6;
		key += 1 + test_below(random, 8)) {
		uint32_t value = test_below(random, 3) ? 1 + test_below(random, 100000) : 0;

		model_key(key, keys[write_count]);
		snprintf(values[write_count], sizeof(values[0]), "%u", value);
		writes[write_count] = (struct store_write){ keys[write_count], value ? values[write_count] : NULL,
			strlen(values[write_count]) };
		write_count++;
		changed |= value || before->values[key];
		after->values[key] = value;
	}
	r = store_commit(s, &(struct store_transaction){ conditions, condition_count, writes, write_count }, &revision,
		&conflict);
	if (wrong != SIZE_MAX) {
		assert_int_equal(r, STORE_E_CONFLICT);
		assert_int_equal(conflict.index, wrong);
		assert_int_equal(conflict.revision, conditions[wrong].revision - 1);
		*after = *before;
		return false;
	}
	assert_int_equal(r, 0);
	assert_true(changed ? revision > before->revision : revision == before->revision);
	for (size_t i = 0; i < write_count; i++) {
		unsigned int key = (unsigned int)strtoul(keys[i] + 5, NULL, 10);

		if (!after->values[key])
			after->revisions[key] = after->created[key] = 0;
		else
			after->revisions[key] = revision;
		if (after->values[key] && !before->values[key])
			after->created[key] = revision;
	}
	after->revision = revision;
	return changed;
}

static void test_random_transactions_do_as_a_model(void **state)
{
	struct store *s = store_in(state);
	struct test_random random = { 20261121 };
	struct model *models = calloc(MODEL_STEPS + 1, sizeof(*models));
	struct model replayed = { 0 };
	size_t newest = 0, oldest = 0;
	uint64_t told = models[0].revision = revision_of(s);
	struct store_watch *w = watch(s, "/m/", told);

	for (int i = 0; i < MODEL_STEPS; i++) {
		newest += model_step(s, &models[newest], &models[newest + 1], &random);
		model_compare(s, &models[newest], &random);
		if (newest > oldest + 1)
			model_compare(
				s, &models[oldest + 1 + test_below(&random, (uint32_t)(newest - oldest))], &random);
		if (test_below(&random, 20) == 0 && newest > oldest + 2 && told == models[newest - 1].revision) {
			oldest += 1 + test_below(&random, (uint32_t)(newest - oldest - 1));
			oldest = MIN(oldest, newest - 1);
			assert_int_equal(store_compact(s, models[oldest].revision), 0);
		}
		if (test_below(&random, 50) == 0) {
			store_watch_close(w);
			s = reopen(state);
			w = watch(s, "/m/", told);
		}
		while (told < models[newest].revision) {
			struct store_changes c = changes(w);

			for (size_t j = 0; j < c.count; j++) {
				unsigned int key = (unsigned int)strtoul(c.items[j].key + 5, NULL, 10);

				assert_true(c.items[j].revision > told);
				replayed.values[key] =
					c.items[j].value ? (uint32_t)strtoul(c.items[j].value, NULL, 10) : 0;
			}
			told = c.revision;
			store_changes_free(&c);
		}
		assert_memory_equal(replayed.values, models[newest].values, sizeof(replayed.values));
	}
	assert_true(oldest > 0 && newest > MODEL_STEPS / 3);
	store_watch_close(w);
	free(models);
}

int store_conformance(const struct store_maker *of)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_new_store_is_empty),
		TEST(test_put_gives_value_and_revisions),
		TEST(test_values_are_any_bytes),
		TEST(test_same_value_again_is_a_change),
		TEST(test_deleted_key_is_absent_and_comes_to_be_anew),
		TEST(test_deleting_an_absent_key_changes_nothing),
		TEST(test_outputs_are_untouched_on_failure),
		TEST(test_keys_are_paths),
		TEST(test_prefixes_end_with_a_slash),
		TEST(test_key_length_is_limited),
		TEST(test_value_length_is_limited),
		TEST(test_transaction_size_is_limited),
		TEST(test_transaction_bytes_are_limited),
		TEST(test_key_twice_in_a_transaction_is_refused),
		TEST(test_watches_are_limited),
		TEST(test_conflict_names_the_first_key_that_differs),
		TEST(test_deleted_key_is_absent_to_conditions),
		TEST(test_conditions_alone_change_nothing),
		TEST(test_transaction_has_one_revision),
		TEST(test_list_takes_what_is_below_the_prefix),
		TEST(test_list_goes_on_after_a_key),
		TEST(test_pages_are_limited),
		TEST(test_pages_are_bounded_in_bytes),
		TEST(test_big_list_is_whole),
		TEST(test_list_is_consistent_at_its_revision),
		TEST(test_past_and_future_of_lists),
		TEST(test_compaction_keeps_the_present),
		TEST(test_deleted_keys_leave_nothing_behind_compaction),
		TEST(test_watch_tells_changes_in_order),
		TEST(test_watch_tells_only_what_is_below_its_prefix),
		TEST(test_watch_wakes_by_edges),
		TEST(test_watch_begins_in_the_past),
		TEST(test_watch_that_comes_too_late_is_told_so),
		TEST(test_idle_watch_is_not_too_late),
		TEST(test_batches_hold_whole_transactions),
		TEST(test_batches_are_bounded_in_bytes),
		TEST(test_everything_is_there_after_reopening),
		TEST(test_threads_read_and_write_at_once),
		TEST(test_list_and_watch_from_its_revision_miss_nothing),
		TEST(test_random_transactions_do_as_a_model),
	};
#undef TEST

	/* a failed test may leave a watch open, and end in an assertion: let what it printed be seen */
	setvbuf(stdout, NULL, _IOLBF, 0);
	maker = of;
	return cmocka_run_group_tests_name(of->name, tests, NULL, NULL);
}
