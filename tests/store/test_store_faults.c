/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite store when the disk fails: an I/O error at every operation of a transaction, no room, and power cuts.
 * Every time a transaction is there as a whole or not at all, what was acknowledged is there, and the store goes on
 * when the disk does.
 */
#include "fault_vfs.h"
#include "numbered.h"
#include "sqlite_help.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>

enum { FILL_MAX = 5000, CUT_TRANSACTIONS = 60 };

static const struct fault_plan no_faults;
static uint64_t unsure; /* commits so far whose outcome could not be found out */

static struct store_sqlite_options options_of(const struct place *p, const char *vfs)
{
	/* small bounds, so that checkpoints and compactions meet the faults too */
	return (struct store_sqlite_options){
		.path = p->path, .vfs = vfs, .checkpoint_pages = 20, .history_revisions = 8, .busy_timeout_ms = 100
	};
}

static struct store *open_in(const struct place *p, const char *vfs)
{
	struct store_sqlite_options options = options_of(p, vfs);

	return must_open(&options);
}

static uint64_t last_after_crash(const struct place *place, const struct place *copy)
{
	struct store *store;
	uint64_t last;

	copy_store(place, copy);
	store = open_in(copy, FAULT_VFS);
	last = numbered_last(store);
	store_close(store);
	return last;
}

/*
 * Transaction @n with faults from the @at-th operation on. Return: whether the fault was reached. The store must be at
 * n - 1, and is then at the number in @ret_last.
 */
static bool commit_with_fault(const struct place *place, const struct place *copy, struct store *store,
	const struct fault_plan *plan, uint64_t n, uint64_t *ret_last)
{
	struct store_page page = { 0 };
	uint64_t expected, last;
	bool reached;
	int r;

	fault_set(plan);
	r = numbered_commit(store, n);
	reached = fault_counted() >= plan->at;
	if (r == STORE_E_UNSURE) {
		/* nothing is read before it is clear what became of it */
		unsure++;
		assert_true(plan->count > 1);
		assert_true(store_get(store, "/n/0", &page) < 0);
	}
	fault_set(&no_faults);
	assert_true(r <= 0 || r == STORE_E_UNSURE);
	assert_true(r == 0 || reached);
	last = numbered_last(store);
	expected = r ? n - 1 : n;
	assert_int_equal(last, expected);
	/* what failed does not come back, and what was acknowledged does */
	assert_int_equal(last_after_crash(place, copy), expected);
	*ret_last = last;
	return reached;
}

static uint64_t fail_everywhere(const struct fault_plan *kind)
{
	struct place place, copy;
	uint64_t n = 30, cases = 0;
	struct store *store;

	place_make(&place);
	place_make(&copy);
	store = open_in(&place, FAULT_VFS);
	for (uint64_t i = 1; i <= n; i++)
		assert_int_equal(numbered_commit(store, i), 0);
	/* a transaction has more or fewer operations with the state of log and history: several rounds */
	for (int round = 0; round < 3; round++) {
		struct fault_plan plan = *kind;

		for (plan.at = 1; commit_with_fault(&place, &copy, store, &plan, n + 1, &n); plan.at++)
			cases++;
		assert_int_equal(numbered_commit(store, ++n), 0);
	}
	store_close(store);
	store = open_in(&place, NULL);
	assert_int_equal(numbered_last(store), n);
	store_close(store);
	place_remove(&place);
	place_remove(&copy);
	return cases;
}

static void test_every_operation_of_a_commit_may_fail(void **state)
{
	const struct fault_plan kinds[] = {
		{ .operations = FAULT_CHANGES, .count = 1 },
		{ .operations = FAULT_CHANGES, .count = 1, .torn = true },
		{ .operations = FAULT_CHANGES, .count = 1000 },
		{ .operations = FAULT_CHANGES, .count = 1000, .torn = true },
		{ .operations = FAULT_WRITE, .count = 1, .full = true },
		{ .operations = FAULT_WRITE, .count = 1000, .full = true, .torn = true },
		{ .operations = FAULT_SYNC, .count = 1 },
		{ .operations = FAULT_SYNC, .count = 1000 },
		{ .operations = FAULT_READ, .count = 1 },
		{ .operations = FAULT_READ, .count = 1000 },
		{ .operations = FAULT_SHM, .count = 1000 },
		{ .operations = FAULT_ALL, .count = 1 },
		{ .operations = FAULT_ALL, .count = 1000 },
	};
	uint64_t cases = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		cases += fail_everywhere(&kinds[i]);
	printf("%" PRIu64 " failed operations, %" PRIu64 " of them left it open what became of the commit\n", cases,
		unsure);
	assert_true(cases > 100 && unsure > 0);
}

static void test_reading_fails_for_that_call_only(void **state)
{
	struct place place;
	struct fault_plan plan = { .operations = FAULT_READ | FAULT_SHM, .at = 1, .count = 1 };
	struct store *store;
	uint64_t failed = 0;

	(void)state;
	place_make(&place);
	store = open_in(&place, FAULT_VFS);
	for (uint64_t i = 1; i <= 50; i++)
		assert_int_equal(numbered_commit(store, i), 0);
	for (bool reached = true; reached; plan.at++) {
		struct store_page page = { 0 };
		int r;

		store_close(store); /* so that nothing is cached */
		store = open_in(&place, FAULT_VFS);
		fault_set(&plan);
		r = store_list(store, &(struct store_query){ .prefix = "/" }, &page);
		reached = fault_counted() >= plan.at;
		fault_set(&no_faults);
		store_page_free(&page);
		assert_true(r <= 0);
		failed += r < 0;
		assert_int_equal(numbered_last(store), 50);
	}
	assert_true(failed > 2);
	store_close(store);
	place_remove(&place);
}

static void test_opening_fails_or_works(void **state)
{
	struct place place, copy;
	struct fault_plan plan = { .operations = FAULT_ALL, .count = 1 };
	struct store_sqlite_options options;
	char reason[STORE_REASON_SIZE];
	struct store *store;
	uint64_t failed = 0;

	(void)state;
	place_make(&place);
	place_make(&copy);
	/* an empty place, and one whose process was killed */
	for (uint64_t last = 0; last <= 40; last += 40) {
		store = open_in(&place, NULL);
		for (uint64_t i = 1; i <= last; i++)
			assert_int_equal(numbered_commit(store, i), 0);
		plan.at = 1;
		for (bool reached = true; reached; plan.at++) {
			int r;

			if (last)
				copy_store(&place, &copy);
			else
				place_empty(&copy);
			options = options_of(&copy, FAULT_VFS);
			fault_set(&plan);
			reason[0] = '\0';
			struct store *opened = NULL;

			r = store_sqlite_open(&options, &opened, reason);
			reached = fault_counted() >= plan.at;
			fault_set(&no_faults);
			if (r == 0) {
				assert_int_equal(numbered_last(opened), last);
				store_close(opened);
			} else {
				if (r > 0)
					fail_msg("operation %" PRIu64 ": %d: %s", plan.at, r, reason);
				assert_non_null(strstr(reason, copy.path));
				failed++;
			}
			opened = open_in(&copy, FAULT_VFS);
			assert_int_equal(numbered_last(opened), last);
			assert_int_equal(numbered_commit(opened, last + 1), 0);
			store_close(opened);
		}
		store_close(store);
	}
	assert_true(failed > 20);
	place_remove(&place);
	place_remove(&copy);
}

/* Commit until the disk is full. Return: the last that was acknowledged. */
static uint64_t fill(struct store *store, uint64_t n)
{
	int r = 0;

	for (int i = 0; i < FILL_MAX; i++) {
		r = numbered_commit(store, n + 1);
		if (r)
			break;
		n++;
	}
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(numbered_last(store), n);
	return n;
}

static void test_full_disk_fails_commits_until_there_is_room(void **state)
{
	struct place place, copy;
	struct store_sqlite_options options;
	struct store *store;
	uint64_t n = 0;

	(void)state;
	place_make(&place);
	place_make(&copy);
	options = options_of(&place, FAULT_VFS);
	/* with all of history kept, there is no end to what it needs */
	options.history_revisions = UINT32_MAX;
	options.history_bytes = UINT32_MAX;
	store = must_open(&options);
	for (uint64_t room = 1000; room < 60000; room += 1777) {
		fault_set(&(struct fault_plan){ .bounded = true, .room_bytes = room });
		n = fill(store, n);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(numbered_commit(store, n + 1), -ENOSPC);
			assert_int_equal(numbered_last(store), n);
		}
		assert_int_equal(last_after_crash(&place, &copy), n);
		fault_set(&no_faults);
		assert_int_equal(numbered_commit(store, ++n), 0);
		assert_int_equal(numbered_last(store), n);
	}
	store_close(store);
	store = open_in(&place, NULL);
	assert_int_equal(numbered_last(store), n);
	store_close(store);
	place_remove(&place);
	place_remove(&copy);
}

/* The same on a real file system of 2 MiB, which another file fills. */
static void test_full_file_system(void **state)
{
	struct place place;
	struct store_sqlite_options options;
	struct store *store;
	char filler[260];
	uint64_t n = 0;

	(void)state;
	place_make(&place);
	/* a name space of its own: the mount is gone with this process */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("tidegate-test", place.folder, "tmpfs", 0, "size=2m") < 0) {
		print_message("no right to mount (%s): only the simulated full disk is tested\n", strerror(errno));
		place_remove(&place);
		skip();
	}
	options = (struct store_sqlite_options){ .path = place.path, .checkpoint_pages = 20, .history_bytes = 1 << 18 };
	snprintf(filler, sizeof(filler), "%s/filler", place.folder);
	store = must_open(&options);
	for (int round = 0; round < 5; round++) {
		static char zeros[1 << 16];
		FILE *out = fopen(filler, "w");

		while (fwrite(zeros, 1, sizeof(zeros), out) == sizeof(zeros))
			;
		fclose(out);
		n = fill(store, n);
		for (int i = 0; i < 3; i++)
			assert_int_equal(numbered_commit(store, n + 1), -ENOSPC);
		if (round == 3) {
			/* a full disk at the start: refused or opened, and nothing is lost */
			char reason[STORE_REASON_SIZE] = "";

			store_close(store);
			if (store_sqlite_open(&options, &store, reason) != 0) {
				assert_non_null(strstr(reason, place.path));
				assert_int_equal(unlink(filler), 0);
				store = must_open(&options);
			}
			assert_int_equal(numbered_last(store), n);
		}
		unlink(filler);
		for (int i = 0; i < 5; i++)
			assert_int_equal(numbered_commit(store, ++n), 0);
	}
	store_close(store);
	store = must_open(&options);
	assert_int_equal(numbered_last(store), n);
	store_close(store);
	place_empty(&place);
	assert_int_equal(umount(place.folder), 0);
	place_remove(&place);
}

/* Power cuts */

struct cutting {
	struct place cut;
	struct test_random random;
	uint64_t acknowledged;
	uint64_t cuts;
	uint64_t one_more;
	bool busy;
};

static void maybe_cut(void *arg)
{
	struct cutting *c = arg;
	struct store *store;
	uint64_t last;

	if (c->busy || test_below(&c->random, 3) != 0)
		return;
	c->busy = true;
	place_empty(&c->cut);
	fault_power_cut(c->cut.folder, &c->random);
	store = open_in(&c->cut, FAULT_VFS);
	last = numbered_last(store);
	if (last != c->acknowledged && last != c->acknowledged + 1)
		fail_msg("%" PRIu64 " is there, %" PRIu64 " was acknowledged", last, c->acknowledged);
	c->one_more += last != c->acknowledged;
	c->cuts++;
	store_close(store);
	c->busy = false;
}

static void test_power_cut_loses_nothing_that_was_acknowledged(void **state)
{
	struct cutting c = { .random = { 4711 } };
	struct place place;
	struct store *store;

	(void)state;
	place_make(&place);
	place_make(&c.cut);
	fault_record(place.folder);
	store = open_in(&place, FAULT_VFS);
	fault_set(&(struct fault_plan){ .before = maybe_cut, .arg = &c });
	for (uint64_t n = 1; n <= CUT_TRANSACTIONS; n++) {
		assert_int_equal(numbered_commit(store, n), 0);
		c.acknowledged = n;
	}
	fault_set(&no_faults);
	store_close(store);
	fault_record("");
	printf("%" PRIu64 " power cuts, after %" PRIu64 " of them the transaction at hand was there\n", c.cuts,
		c.one_more);
	assert_true(c.cuts > 100);
	place_remove(&place);
	place_remove(&c.cut);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_operation_of_a_commit_may_fail),
		cmocka_unit_test(test_reading_fails_for_that_call_only),
		cmocka_unit_test(test_opening_fails_or_works),
		cmocka_unit_test(test_full_disk_fails_commits_until_there_is_room),
		cmocka_unit_test(test_full_file_system),
		cmocka_unit_test(test_power_cut_loses_nothing_that_was_acknowledged),
	};

	fault_vfs_register();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
