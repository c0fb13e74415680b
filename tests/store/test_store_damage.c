/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SQLite store's own promises: who may open what, the bounds of history and of the whole, and damaged files, which
 * are refused or hold exactly what was acknowledged, and never give anything else.
 */
#include "numbered.h"
#include "sqlite_help.h"

#include <errno.h>
#include <sqlite3.h>
#include <sys/wait.h>

enum { DAMAGES = 150, TRANSACTIONS = 40 };

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	place_make(p);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	place_remove(*state);
	free(*state);
	return 0;
}

static struct store *open_plainly(const struct place *p)
{
	return must_open(&(struct store_sqlite_options){ .path = p->path });
}

static void expect_refused(const char *path, int expected, const char *reason_has)
{
	struct store_sqlite_options options = { .path = path };
	char reason[STORE_REASON_SIZE] = "";
	struct store *store;
	int r = store_sqlite_open(&options, &store, reason);

	if (r != expected || !strstr(reason, reason_has) || !strstr(reason, path))
		fail_msg("%d, expected %d, \"%s\", expected something with \"%s\"", r, expected, reason, reason_has);
}

static int put(struct store *store, const char *key, const char *value, size_t length)
{
	struct store_write w = { key, value, length };
	uint64_t revision;

	return store_commit(store, &(struct store_transaction){ .writes = &w, .write_count = 1 }, &revision, NULL);
}

/* Change a database by SQL, as another program. */
static void run_sql(const char *path, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Who may open what */

static void test_second_opening_is_refused(void **state)
{
	struct place *p = *state;
	struct store *store = open_plainly(p);
	char pid[32];
	int status;
	pid_t child;

	snprintf(pid, sizeof(pid), "process %d has", getpid());
	expect_refused(p->path, STORE_E_LOCKED, pid);
	child = fork();
	if (child == 0) {
		struct store_sqlite_options options = { .path = p->path };
		char reason[STORE_REASON_SIZE] = "";
		struct store *other;

		_exit(store_sqlite_open(&options, &other, reason) == STORE_E_LOCKED && strstr(reason, pid) ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(numbered_commit(store, 1), 0); /* the refused ones took no lock away */
	store_close(store);
	store = open_plainly(p);
	assert_int_equal(numbered_last(store), 1);
	store_close(store);
}

static void test_newer_schema_is_refused(void **state)
{
	struct place *p = *state;

	store_close(open_plainly(p));
	run_sql(p->path, "PRAGMA user_version = 2");
	expect_refused(p->path, STORE_E_NEWER, "version 2, this program knows versions up to 1");
	run_sql(p->path, "PRAGMA user_version = 1");
	store_close(open_plainly(p));
}

static void test_foreign_files_are_refused_and_left_alone(void **state)
{
	static const char text[] = "This is a letter, and no database at all. It is longer than a header of SQLite's, "
				   "which has 100 bytes, so that nobody can say there was too little to look at.\n";
	struct place *p = *state;
	char path[260];
	size_t size, again;
	char *before, *after;

	snprintf(path, sizeof(path), "%s/letter", p->folder);
	write_file(path, text, strlen(text));
	expect_refused(path, STORE_E_FOREIGN, "not a SQLite database");
	after = read_file(path, &size);
	assert_int_equal(size, strlen(text));
	assert_memory_equal(after, text, size);
	free(after);

	snprintf(path, sizeof(path), "%s/other.db", p->folder);
	run_sql(path, "CREATE TABLE cat (name TEXT); INSERT INTO cat VALUES ('Mimi')");
	before = read_file(path, &size);
	expect_refused(path, STORE_E_FOREIGN, "another program");
	after = read_file(path, &again);
	assert_int_equal(size, again);
	assert_memory_equal(before, after, size);
	free(before);
	free(after);

	expect_refused("/dev/null/store.db", -ENOTDIR, "Not a directory");
	expect_refused("/nonexistent/store.db", -ENOENT, "No such file");
	snprintf(path, sizeof(path), "%s/folder", p->folder);
	assert_int_equal(mkdir(path, 0700), 0);
	expect_refused(path, -EISDIR, "Is a directory");
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink(p->path, path), 0);
	expect_refused(path, -ELOOP, "symbolic link");
}

static void test_files_are_for_their_owner_only(void **state)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", ".lock" };
	struct place *p = *state;
	mode_t mask = umask(0);
	struct store *store = open_plainly(p);
	struct stat st;

	assert_int_equal(numbered_commit(store, 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char path[260];

		snprintf(path, sizeof(path), "%s%s", p->path, suffixes[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	store_close(store);
	umask(mask);
}

static void test_another_program_that_locks_the_database_is_waited_for(void **state)
{
	struct place *p = *state;
	struct store *store = must_open(&(struct store_sqlite_options){ .path = p->path, .busy_timeout_ms = 20 });
	sqlite3 *db;

	assert_int_equal(numbered_commit(store, 1), 0);
	assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(numbered_commit(store, 2), -EBUSY);
	assert_int_equal(numbered_last(store), 1);
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(numbered_commit(store, 2), 0);
	sqlite3_close(db);
	store_close(store);
}

/* Bounds */

static void test_store_holds_so_many_bytes_and_no_more(void **state)
{
	struct place *p = *state;
	struct store *store = must_open(&(struct store_sqlite_options){ .path = p->path, .live_bytes = 100 });
	struct store_status status;
	char value[100] = "";

	assert_int_equal(put(store, "/a", value, 48), 0);
	assert_int_equal(put(store, "/b", value, 49), STORE_E_FULL);
	assert_int_equal(put(store, "/b", value, 48), 0);
	assert_int_equal(put(store, "/b", value, 49), STORE_E_FULL);
	assert_int_equal(put(store, "/b", value, 47), 0);
	assert_int_equal(store_status(store, &status), 0);
	assert_int_equal(status.live_bytes, 99);
	assert_int_equal(put(store, "/a", NULL, 0), 0);
	store_close(store);
	/* a smaller bound later: what makes it smaller is taken */
	store = must_open(&(struct store_sqlite_options){ .path = p->path, .live_bytes = 10 });
	assert_int_equal(put(store, "/b", value, 48), STORE_E_FULL);
	assert_int_equal(put(store, "/b", value, 40), 0);
	assert_int_equal(put(store, "/b", NULL, 0), 0);
	store_close(store);
}

static void test_history_is_bounded_by_revisions(void **state)
{
	enum { KEEP = 50, SLACK = 256 };
	struct place *p = *state;
	struct store *store = must_open(&(struct store_sqlite_options){ .path = p->path, .history_revisions = KEEP });
	struct store_status status;
	uint64_t most = 0;

	for (uint64_t n = 1; n <= 1000; n++) {
		assert_int_equal(numbered_commit(store, n), 0);
		assert_int_equal(store_status(store, &status), 0);
		assert_true(status.revision - status.compacted <= KEEP + SLACK);
		assert_true(n < KEEP || status.revision - status.compacted >= KEEP);
		most = MAX(most, status.revision - status.compacted);
	}
	assert_true(status.compacted > 0 && most > KEEP);
	assert_int_equal(numbered_last(store), 1000);
	store_close(store);
	store = open_plainly(p);
	assert_int_equal(numbered_last(store), 1000);
	store_close(store);
}

static void test_history_is_bounded_by_bytes(void **state)
{
	enum { BYTES = 50000, TRANSACTION_BYTES = 5 * (NUMBERED_PADDING_MAX + 100) };
	struct place *p = *state;
	struct store *store = must_open(&(struct store_sqlite_options){ .path = p->path, .history_bytes = BYTES });
	struct store_status status;

	for (uint64_t n = 1; n <= 200; n++) {
		assert_int_equal(numbered_commit(store, n), 0);
		assert_int_equal(store_status(store, &status), 0);
		assert_true(status.superseded_bytes <= BYTES + TRANSACTION_BYTES);
	}
	assert_true(status.compacted > 0 && status.compacted < status.revision);
	assert_int_equal(numbered_last(store), 200);
	store_close(store);
}

/* Damage */

static void test_lost_transactions_are_noticed(void **state)
{
	struct place *p = *state;
	struct place copy;
	char path[260];
	struct store *store = open_plainly(p);

	place_make(&copy);
	for (uint64_t n = 1; n <= 10; n++)
		assert_int_equal(numbered_commit(store, n), 0);
	copy_store(p, &copy);
	/* the log is lost whole: SQLite alone would not mind */
	snprintf(path, sizeof(path), "%s-wal", copy.path);
	assert_int_equal(unlink(path), 0);
	expect_refused(copy.path, STORE_E_CORRUPT, "at revision 0, but 10 had been acknowledged");
	/* who wants to go on without them says so */
	snprintf(path, sizeof(path), "%s.lock", copy.path);
	assert_int_equal(unlink(path), 0);
	store_close(store);
	store = open_plainly(&copy);
	assert_int_equal(numbered_last(store), 0);
	store_close(store);
	place_remove(&copy);
}

/*
 * Open what has been damaged. It may be refused. If it is not, it must hold @expected, or when @fewer, whole
 * transactions up to a number that is not more. Return: whether it was refused.
 */
static bool try_damaged(const struct place *p, uint64_t expected, bool fewer)
{
	struct store_sqlite_options options = { .path = p->path };
	char reason[STORE_REASON_SIZE] = "";
	struct store *store;
	uint64_t last;
	int r = store_sqlite_open(&options, &store, reason);

	if (r) {
		assert_non_null(strstr(reason, p->path));
		return true;
	}
	last = numbered_last(store);
	if (fewer)
		assert_true(last <= expected);
	else
		assert_int_equal(last, expected);
	store_close(store);
	return false;
}

/* Change bytes of a file: a bit, a sector of garbage, a sector of zeros, or the end cut off. */
static void damage(const char *path, struct test_random *random)
{
	size_t size, at, n;
	char *bytes = read_file(path, &size);

	at = (size_t)(test_random(random) % size);
	n = MIN(size - at, 512);
	switch (test_below(random, 4)) {
	case 0:
		bytes[at] = (char)(bytes[at] ^ 1 << test_below(random, 8));
		break;
	case 1:
		for (size_t i = 0; i < n; i++)
			bytes[at + i] = (char)test_below(random, 256);
		break;
	case 2:
		memset(bytes + at, 0, n);
		break;
	default:
		size = at;
	}
	write_file(path, bytes, size);
	free(bytes);
}

static void damage_often(const struct place *p, const char *suffix, bool without_lock_file)
{
	struct test_random random = { 99 };
	struct place copy;
	unsigned int refused = 0;

	place_make(&copy);
	for (unsigned int i = 0; i < DAMAGES; i++) {
		char path[260];

		copy_store(p, &copy);
		snprintf(path, sizeof(path), "%s%s", copy.path, suffix);
		damage(path, &random);
		if (without_lock_file) {
			snprintf(path, sizeof(path), "%s.lock", copy.path);
			assert_int_equal(unlink(path), 0);
		}
		refused += try_damaged(&copy, TRANSACTIONS, without_lock_file);
	}
	printf("store.db%s damaged %d times%s, refused %u times\n", suffix, DAMAGES,
		without_lock_file ? " without the lock file" : "", refused);
	assert_true(without_lock_file || refused > 0);
	place_remove(&copy);
}

static void test_damaged_log_is_refused_or_complete(void **state)
{
	struct place *p = *state;
	struct store *store = open_plainly(p);

	for (uint64_t n = 1; n <= TRANSACTIONS; n++)
		assert_int_equal(numbered_commit(store, n), 0);
	damage_often(p, "-wal", false);
	damage_often(p, "-wal", true);
	store_close(store);
}

static void test_damaged_database_is_refused_or_complete(void **state)
{
	struct place *p = *state;
	struct store *store = open_plainly(p);

	for (uint64_t n = 1; n <= TRANSACTIONS; n++)
		assert_int_equal(numbered_commit(store, n), 0);
	store_close(store); /* everything is in the database then */
	damage_often(p, "", false);
}

static void test_damaged_lock_file_does_not_matter(void **state)
{
	struct place *p = *state;
	struct test_random random = { 5 };
	char path[260];
	struct store *store = open_plainly(p);

	for (uint64_t n = 1; n <= TRANSACTIONS; n++)
		assert_int_equal(numbered_commit(store, n), 0);
	store_close(store);
	snprintf(path, sizeof(path), "%s.lock", p->path);
	for (int i = 0; i < 50; i++) {
		damage(path, &random);
		assert_false(try_damaged(p, TRANSACTIONS, false));
	}
}

/* A page is replaced by what it was before: it looks right, and only the whole is wrong. */
static void test_older_pages_are_noticed(void **state)
{
	enum { PAGE = 4096 };
	struct place *p = *state;
	struct place copy;
	size_t old_size, new_size;
	char *old_bytes, *new_bytes;
	unsigned int tried = 0;

	for (int round = 0; round < 2; round++) {
		struct store *store = open_plainly(p);

		for (uint64_t n = round ? TRANSACTIONS : 1; n <= (round ? 2 : 1) * TRANSACTIONS; n++)
			assert_int_equal(numbered_commit(store, n), 0);
		store_close(store);
		if (!round)
			old_bytes = read_file(p->path, &old_size);
	}
	new_bytes = read_file(p->path, &new_size);
	place_make(&copy);
	for (size_t at = 0; at < old_size; at += PAGE) {
		char *bytes;

		if (memcmp(old_bytes + at, new_bytes + at, PAGE) == 0)
			continue;
		bytes = malloc(new_size);
		memcpy(bytes, new_bytes, new_size);
		memcpy(bytes + at, old_bytes + at, PAGE);
		place_empty(&copy);
		write_file(copy.path, bytes, new_size);
		free(bytes);
		/* in the first page only counters differ */
		assert_true(try_damaged(&copy, 2 * TRANSACTIONS, false) || at == 0);
		tried++;
	}
	assert_true(tried > 2);
	free(old_bytes);
	free(new_bytes);
	place_remove(&copy);
}

/* Bytes change below a store that is open. */
static void test_damage_while_open_is_never_served(void **state)
{
	struct place *p = *state;
	static char value[20000];
	struct store *store = open_plainly(p);
	struct store_page page;
	size_t size;
	char *bytes;
	int found = 0, fd;

	memset(value, 'q', sizeof(value));
	assert_int_equal(put(store, "/a", value, sizeof(value)), 0);
	assert_int_equal(put(store, "/b", "1", 1), 0);
	store_close(store);
	store = open_plainly(p);
	bytes = read_file(p->path, &size);
	/* closing this would let go of SQLite's locks in this process */
	fd = open(p->path, O_WRONLY | O_CLOEXEC);
	for (size_t at = 0; at < size; at += 4096) {
		if (memcmp(bytes + at + 2000, "qqqq", 4) == 0) {
			assert_int_equal(pwrite(fd, "X", 1, (off_t)at + 2001), 1);
			found++;
		}
	}
	assert_true(found > 2);
	free(bytes);
	assert_int_equal(store_get(store, "/a", &page), STORE_E_CORRUPT);
	assert_int_equal(store_list(store, &(struct store_query){ .prefix = "/" }, &page), STORE_E_CORRUPT);
	assert_int_equal(store_get(store, "/b", &page), 0);
	store_page_free(&page);
	assert_int_equal(put(store, "/b", "2", 1), 0);
	store_close(store);
	close(fd);
	expect_refused(p->path, STORE_E_CORRUPT, "\"/a\" is damaged");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_second_opening_is_refused),
		TEST(test_newer_schema_is_refused),
		TEST(test_foreign_files_are_refused_and_left_alone),
		TEST(test_files_are_for_their_owner_only),
		TEST(test_another_program_that_locks_the_database_is_waited_for),
		TEST(test_store_holds_so_many_bytes_and_no_more),
		TEST(test_history_is_bounded_by_revisions),
		TEST(test_history_is_bounded_by_bytes),
		TEST(test_lost_transactions_are_noticed),
		TEST(test_damaged_log_is_refused_or_complete),
		TEST(test_damaged_database_is_refused_or_complete),
		TEST(test_damaged_lock_file_does_not_matter),
		TEST(test_older_pages_are_noticed),
		TEST(test_damage_while_open_is_never_served),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
