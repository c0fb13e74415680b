/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables: "version" has a row for each version of each item, in the order in which they were written; a deletion is a
 * row without a value. "meta" has one row about all. A row of version never changes; compaction deletes those that were
 * superseded. So the newest row of a key is the item, the rows above an id are the changes since, and the newest row of
 * each key up to an id is what the store held then.
 *
 * Damage: SQLite notices a broken structure, but not wrong bytes within it, nor a page that is an older state of
 * itself. Each row therefore has a checksum, which every read compares, and meta has the sum of all rows' checksums,
 * which is compared at open. SQLite drops, without a word, transactions in the write-ahead log behind a damaged place.
 * The revision of the last acknowledged transaction is therefore also written to the lock file: a store that is behind
 * it is not opened. That file is written without waiting for the disk, so after a power cut it may be behind, which is
 * harmless.
 *
 * A commit that fails in its last step may have reached the disk nevertheless: nobody sees it now, but a crash would
 * bring it back. The log is emptied then ("settled"); while that fails too, the outcome is STORE_E_UNSURE, and nothing
 * is read before it has been settled.
 *
 * Threads: one connection writes, under write_lock; READERS_N connections read, each lent to one call at a time under
 * readers_lock. watches_lock guards the list of watches. Order: write_lock, then watches_lock; readers_lock is held
 * alone.
 */
#include "control/store_sqlite.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/list.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	READERS_N = 4,
	SCHEMA_VERSION = 1,	     /* user_version */
	APPLICATION_ID = 0x54644373, /* "TdCs" */
	ORDINAL_BITS = 12,	     /* an id is a revision, and the place among the writes of its transaction */
	ORDINAL_MAX = (1 << ORDINAL_BITS) - 1,
	ROW_OVERHEAD = 64,	 /* bytes that a row of history counts beside its key and value */
	COMPACT_REVISIONS = 256, /* history is let go in steps of as many */
	COMPACT_ROWS = 8192,	 /* or of so many rows, which is more than a transaction adds */
	LOCK_TEXT_SIZE = 96,
};

_Static_assert(STORE_WRITES_MAX <= ORDINAL_MAX + 1, "an ordinal for each write");

#define STATEMENTS(S)                                                                                                  \
	S(BEGIN_READ, "BEGIN")                                                                                         \
	S(BEGIN_WRITE, "BEGIN IMMEDIATE")                                                                              \
	S(COMMIT, "COMMIT")                                                                                            \
	S(ROLLBACK, "ROLLBACK")                                                                                        \
	S(META,                                                                                                        \
		"SELECT revision, compacted, live_bytes, superseded_bytes, rows_sum, checksum FROM meta WHERE one = "  \
		"1")                                                                                                   \
	S(SET_META,                                                                                                    \
		"UPDATE meta SET revision = ?1, compacted = ?2, live_bytes = ?3, superseded_bytes = ?4, "              \
		"rows_sum = ?5, checksum = ?6 WHERE one = 1")                                                          \
	S(GET, "SELECT id, key, created, checksum, value FROM version WHERE key = ?1 ORDER BY id DESC LIMIT 1")        \
	S(LIST,                                                                                                        \
		"SELECT id, key, created, checksum, value FROM version AS v WHERE key > ?1 AND key < ?2 AND id <= ?3 " \
		"AND NOT EXISTS (SELECT 1 FROM version AS n WHERE n.key = v.key AND n.id > v.id AND n.id <= ?3) "      \
		"ORDER BY key")                                                                                        \
	S(CHANGES, "SELECT id, key, created, checksum, value FROM version WHERE id > ?1 ORDER BY id")                  \
	S(ALL, "SELECT id, key, created, checksum, value FROM version ORDER BY id")                                    \
	S(HEAD,                                                                                                        \
		"SELECT id, created, checksum, length(value) FROM version WHERE key = ?1 AND id < ?2 "                 \
		"ORDER BY id DESC LIMIT 1")                                                                            \
	S(INSERT, "INSERT INTO version (id, key, created, checksum, value) VALUES (?1, ?2, ?3, ?4, ?5)")               \
	S(NEXT, "SELECT id, key, created, checksum FROM version WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT 1")       \
	S(DELETE, "DELETE FROM version WHERE id = ?1")

enum statement {
#define STATEMENT(id, sql) STATEMENT_##id,
	STATEMENTS(STATEMENT)
#undef STATEMENT
		STATEMENT_N
};

static const char *const statement_sql[STATEMENT_N] = {
#define STATEMENT(id, sql) [STATEMENT_##id] = (sql),
	STATEMENTS(STATEMENT)
#undef STATEMENT
};

static const char schema_sql[] =
	"BEGIN IMMEDIATE;"
	/* id: revision << 12 | place in the transaction; created: a revision, 0 for a deletion, which has no value */
	"CREATE TABLE version (id INTEGER PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL,"
	" checksum INTEGER NOT NULL, value BLOB);"
	"CREATE INDEX version_key ON version (key);"
	"CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL,"
	" compacted INTEGER NOT NULL, live_bytes INTEGER NOT NULL, superseded_bytes INTEGER NOT NULL,"
	" rows_sum INTEGER NOT NULL, checksum INTEGER NOT NULL);"
	"INSERT INTO meta VALUES (1, 0, 0, 0, 0, 0, 0);"
	"PRAGMA application_id = 0x54644373;"
	"PRAGMA user_version = 1;"
	"COMMIT;";

struct connection {
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENT_N];
};

struct meta {
	uint64_t revision;
	uint64_t compacted;
	uint64_t live_bytes;
	uint64_t superseded_bytes;
	uint64_t rows_sum;
};

struct sqlite_store {
	struct store store;
	struct store_sqlite_options options;
	int lock_fd;
	pthread_mutex_t write_lock;
	struct connection writer;
	_Atomic bool unsettled; /* a commit that failed may come back after a crash */
	pthread_mutex_t readers_lock;
	pthread_cond_t reader_back;
	struct connection readers[READERS_N];
	unsigned int readers_lent; /* bit i: readers[i] */
	pthread_mutex_t watches_lock;
	struct list watches;
	size_t watch_count;
};

struct sqlite_watch {
	struct store_watch watch;
	struct list node;
	uint64_t told; /* every change up to this revision */
	bool too_late;
};

/* A row of version. Pointers are SQLite's, until the statement steps. */
struct row {
	uint64_t id;
	const char *key;
	size_t key_length;
	uint64_t created;
	uint64_t checksum;
	const char *value;
	size_t length;
};

static struct sqlite_store *of(struct store *store)
{
	return CONTAINER_OF(store, struct sqlite_store, store);
}

/* A result of SQLite's, as a result of ours. */
static int translate_at(sqlite3 *db, int rc, const char *file, int line)
{
	int primary = rc & 0xff;
	int err;

	if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
		return STORE_E_CORRUPT;
	if (primary == SQLITE_FULL)
		err = ENOSPC;
	else if (primary == SQLITE_NOMEM || rc == SQLITE_IOERR_NOMEM)
		err = ENOMEM;
	else if (primary == SQLITE_BUSY || primary == SQLITE_LOCKED)
		err = EBUSY;
	else if (primary == SQLITE_READONLY)
		err = EROFS;
	else if ((primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN) && db && sqlite3_system_errno(db) == ENOSPC)
		err = ENOSPC;
	else
		err = EIO;
	return fault_at(-err, file, line);
}
#define translate(db, rc) translate_at((db), (rc), __FILE__, __LINE__)

/* Checksums */

static uint64_t mix(uint64_t sum, uint64_t number)
{
	uint8_t bytes[8];

	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(number >> 8 * i);
	return hash_bytes(bytes, sizeof(bytes), sum);
}

static uint64_t row_checksum(const struct row *row)
{
	uint64_t sum = hash_bytes(row->key, row->key_length, mix(row->id, row->created));

	return row->value ? hash_bytes(row->value, row->length, sum) : sum;
}

static uint64_t meta_checksum(const struct meta *m)
{
	return mix(mix(mix(mix(m->revision, m->compacted), m->live_bytes), m->superseded_bytes), m->rows_sum);
}

static uint64_t row_bytes(size_t key_length, size_t length)
{
	return key_length + length + ROW_OVERHEAD;
}

/* Ids */

static uint64_t id_revision(uint64_t id)
{
	return id >> ORDINAL_BITS;
}

/* The last id that a row of this revision can have. */
static uint64_t id_last(uint64_t revision)
{
	return revision << ORDINAL_BITS | ORDINAL_MAX;
}

/* Statements: reset when they come, so that none stays in the middle of a table after a failure. */

static sqlite3_stmt *statement(struct connection *c, enum statement which)
{
	sqlite3_reset(c->statements[which]);
	return c->statements[which];
}

static void bind_number(sqlite3_stmt *s, int index, uint64_t number)
{
	/* fails only for an index that does not exist, or while the statement runs */
	ASSERT(sqlite3_bind_int64(s, index, (sqlite3_int64)number) == SQLITE_OK);
}

static void bind_key(sqlite3_stmt *s, int index, const char *key, size_t length)
{
	ASSERT(sqlite3_bind_text(s, index, key, (int)length, SQLITE_STATIC) == SQLITE_OK);
}

static uint64_t column_number(sqlite3_stmt *s, int column)
{
	return (uint64_t)sqlite3_column_int64(s, column);
}

/* What step() answers beside faults and STORE_E_CORRUPT. */
enum { STEP_ROW = 1000, STEP_DONE };

static int step(struct connection *c, sqlite3_stmt *s)
{
	int rc = sqlite3_step(s);

	if (rc == SQLITE_ROW)
		return STEP_ROW;
	if (rc == SQLITE_DONE)
		return STEP_DONE;
	rc = translate(c->db, rc);
	sqlite3_reset(s);
	return rc;
}

/* Run a statement that returns no rows. */
static int run(struct connection *c, sqlite3_stmt *s)
{
	int r = step(c, s);

	if (r == STEP_ROW || r == STEP_DONE) {
		sqlite3_reset(s);
		return 0;
	}
	return r;
}

static int run_plain(struct connection *c, enum statement which)
{
	return run(c, statement(c, which));
}

/* Drop a transaction, whatever became of it: SQLite ends some by itself when they fail. */
static void roll_back(struct connection *c)
{
	if (!sqlite3_get_autocommit(c->db) && run_plain(c, STATEMENT_ROLLBACK)) {
		/* it is over nevertheless: what could not be undone on disk is not in the log's index */
	}
}

static int read_meta(struct connection *c, struct meta *ret_meta)
{
	sqlite3_stmt *s = statement(c, STATEMENT_META);
	int r = step(c, s);
	struct meta m;
	uint64_t checksum;

	if (r != STEP_ROW)
		return r == STEP_DONE ? STORE_E_CORRUPT : r;
	m = (struct meta){
		.revision = column_number(s, 0),
		.compacted = column_number(s, 1),
		.live_bytes = column_number(s, 2),
		.superseded_bytes = column_number(s, 3),
		.rows_sum = column_number(s, 4),
	};
	checksum = column_number(s, 5);
	sqlite3_reset(s);
	/* a store that has just been made has zeros */
	if (checksum != (m.revision == 0 ? 0 : meta_checksum(&m)))
		return STORE_E_CORRUPT;
	*ret_meta = m;
	return 0;
}

static int write_meta(struct connection *c, const struct meta *m)
{
	sqlite3_stmt *s = statement(c, STATEMENT_SET_META);

	bind_number(s, 1, m->revision);
	bind_number(s, 2, m->compacted);
	bind_number(s, 3, m->live_bytes);
	bind_number(s, 4, m->superseded_bytes);
	bind_number(s, 5, m->rows_sum);
	bind_number(s, 6, meta_checksum(m));
	return run(c, s);
}

/* The row that a statement stands at; columns id, key, created, checksum, value. */
static int read_row(struct connection *c, sqlite3_stmt *s, struct row *ret_row)
{
	struct row row = { .id = column_number(s, 0), .created = column_number(s, 2), .checksum = column_number(s, 3) };

	if (sqlite3_column_type(s, 1) != SQLITE_TEXT)
		return STORE_E_CORRUPT;
	row.key = (const char *)sqlite3_column_text(s, 1);
	row.key_length = (size_t)sqlite3_column_bytes(s, 1);
	if (!row.key)
		return translate(c->db, sqlite3_errcode(c->db));
	if (sqlite3_column_type(s, 4) != SQLITE_NULL) {
		row.value = sqlite3_column_blob(s, 4);
		row.length = (size_t)sqlite3_column_bytes(s, 4);
		if (!row.value && (sqlite3_errcode(c->db) & 0xff) == SQLITE_NOMEM)
			return fault(-ENOMEM);
		if (!row.value)
			row.value = ""; /* what SQLite gives for no bytes */
	}
	if (row.checksum != row_checksum(&row) || (row.created == 0) != (row.value == NULL))
		return STORE_E_CORRUPT;
	*ret_row = row;
	return 0;
}

/* Items of a page or of changes, in its arena. */
struct items {
	struct arena *arena;
	struct store_item *items;
	size_t count;
	size_t room;
	size_t bytes;
};

static int add_item(struct items *to, const struct row *row)
{
	struct store_item item = { .length = row->length, .revision = id_revision(row->id), .created = row->created };

	if (to->count == to->room) {
		size_t room = to->room ? to->room * 2 : 8;
		struct store_item *items = arena_alloc(to->arena, room * sizeof(*items));

		if (!items)
			return fault(-ENOMEM);
		if (to->count)
			memcpy(items, to->items, to->count * sizeof(*items));
		to->items = items;
		to->room = room;
	}
	item.key = arena_strndup(to->arena, row->key, row->key_length);
	if (row->value)
		item.value = arena_strndup(to->arena, row->value, row->length);
	if (!item.key || (row->value && !item.value))
		return fault(-ENOMEM);
	to->items[to->count++] = item;
	to->bytes += row->key_length + row->length;
	return 0;
}

/* The lock file */

static uint64_t lock_checksum(uint64_t revision, long pid)
{
	return mix(mix(APPLICATION_ID, revision), (uint64_t)pid);
}

/* Note the newest acknowledged revision. What fails here costs only the notice of a loss that has not happened. */
static void witness(struct sqlite_store *st, uint64_t revision)
{
	char text[LOCK_TEXT_SIZE];
	long pid = (long)getpid();
	int n = snprintf(text, sizeof(text), "revision %020" PRIu64 " pid %010ld check %016" PRIx64 "\n", revision, pid,
		lock_checksum(revision, pid));

	if (pwrite(st->lock_fd, text, (size_t)n, 0) != n) {
		/* an older revision stays, or none that can be read */
	}
}

/* What the lock file says; zeros when it says nothing that can be understood. */
static void read_witness(int fd, uint64_t *ret_revision, long *ret_pid)
{
	char text[LOCK_TEXT_SIZE] = "";
	uint64_t revision = 0, check = 0;
	long pid = 0;

	*ret_revision = 0;
	*ret_pid = 0;
	if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
		return;
	if (sscanf(text, "revision %" SCNu64 " pid %ld check %" SCNx64, &revision, &pid, &check) != 3)
		return;
	if (check != lock_checksum(revision, pid))
		return;
	*ret_revision = revision;
	*ret_pid = pid;
}

/* Readers */

static int settle(struct sqlite_store *st)
{
	sqlite3 *db = st->writer.db;
	sqlite3_file *log = NULL;
	int rc;

	if (!st->unsettled)
		return 0;
	/* it moves what was committed to the database and cuts the log to nothing; that must reach the disk too */
	rc = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_file_control(db, NULL, SQLITE_FCNTL_JOURNAL_POINTER, &log);
	if (rc == SQLITE_OK && log && log->pMethods)
		rc = log->pMethods->xSync(log, SQLITE_SYNC_FULL);
	if (rc != SQLITE_OK)
		return translate(db, rc);
	st->unsettled = false;
	return 0;
}

/* Lend a connection and begin a transaction, so that all reads see the same state. */
static int begin_read(struct sqlite_store *st, struct connection **ret_c, struct meta *ret_meta)
{
	struct connection *c;
	unsigned int i = 0;
	int r = 0;

	if (st->unsettled) {
		pthread_mutex_lock(&st->write_lock);
		r = settle(st);
		pthread_mutex_unlock(&st->write_lock);
		if (r)
			return r;
	}
	pthread_mutex_lock(&st->readers_lock);
	while (st->readers_lent == (1U << READERS_N) - 1)
		pthread_cond_wait(&st->reader_back, &st->readers_lock);
	while (st->readers_lent & 1U << i)
		i++;
	st->readers_lent |= 1U << i;
	pthread_mutex_unlock(&st->readers_lock);

	c = &st->readers[i];
	*ret_c = c;
	r = run_plain(c, STATEMENT_BEGIN_READ);
	return r ? r : read_meta(c, ret_meta);
}

/* @c may be NULL: begin_read() failed before it lent one */
static void end_read(struct sqlite_store *st, struct connection *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < STATEMENT_N; i++)
		sqlite3_reset(c->statements[i]);
	roll_back(c);
	pthread_mutex_lock(&st->readers_lock);
	st->readers_lent &= ~(1U << (c - st->readers));
	pthread_cond_signal(&st->reader_back);
	pthread_mutex_unlock(&st->readers_lock);
}

static int sqlite_get(struct store *store, const char *key, struct store_page *page)
{
	struct sqlite_store *st = of(store);
	struct items items = { .arena = &page->arena };
	struct connection *c = NULL;
	struct meta meta;
	struct row row;
	sqlite3_stmt *s;
	int r = begin_read(st, &c, &meta);

	if (r)
		goto out;
	s = statement(c, STATEMENT_GET);
	bind_key(s, 1, key, strlen(key));
	r = step(c, s);
	if (r == STEP_DONE)
		r = STORE_E_ABSENT;
	if (r != STEP_ROW)
		goto out;
	r = read_row(c, s, &row);
	if (r)
		goto out;
	r = row.value ? add_item(&items, &row) : STORE_E_ABSENT;
	if (r)
		goto out;
	page->items = items.items;
	page->count = 1;
	page->revision = meta.revision;
out:
	end_read(st, c);
	return r;
}

static int sqlite_list(struct store *store, const struct store_query *query, struct store_page *page)
{
	struct sqlite_store *st = of(store);
	struct items items = { .arena = &page->arena };
	char end[STORE_KEY_MAX + 1];
	size_t prefix_length = strlen(query->prefix);
	const char *after = query->prefix;
	struct connection *c = NULL;
	struct meta meta;
	struct row row;
	uint64_t at;
	sqlite3_stmt *s;
	int r = begin_read(st, &c, &meta);

	if (r)
		goto out;
	at = query->revision ? query->revision : meta.revision;
	r = at > meta.revision ? STORE_E_FUTURE : at < meta.compacted ? STORE_E_COMPACTED : 0;
	if (r)
		goto out;
	/* all keys below a prefix are less than the prefix with '0', the character behind '/', at its end */
	memcpy(end, query->prefix, prefix_length);
	end[prefix_length - 1] = '/' + 1;
	if (query->after && strcmp(query->after, after) > 0)
		after = query->after;
	s = statement(c, STATEMENT_LIST);
	bind_key(s, 1, after, strlen(after));
	bind_key(s, 2, end, prefix_length);
	bind_number(s, 3, id_last(at));
	while ((r = step(c, s)) == STEP_ROW) {
		/* a deletion has no value; what it is is looked at before whether there is room */
		r = read_row(c, s, &row);
		if (r)
			goto out;
		if (!row.value)
			continue;
		if (items.count == query->limit || items.bytes >= STORE_PAGE_BYTES_MAX) {
			page->more = true;
			r = STEP_DONE;
			break;
		}
		r = add_item(&items, &row);
		if (r)
			goto out;
	}
	if (r != STEP_DONE)
		goto out;
	page->items = items.items;
	page->count = items.count;
	page->revision = at;
	r = 0;
out:
	end_read(st, c);
	return r;
}

static int sqlite_status(struct store *store, struct store_status *ret_status)
{
	struct sqlite_store *st = of(store);
	struct connection *c = NULL;
	struct meta meta;
	int r = begin_read(st, &c, &meta);

	end_read(st, c);
	if (r)
		return r;
	*ret_status = (struct store_status){
		.revision = meta.revision,
		.compacted = meta.compacted,
		.live_bytes = meta.live_bytes,
		.superseded_bytes = meta.superseded_bytes,
	};
	return 0;
}

/* Writing */

/* The newest version of a key that is older than @before. */
struct head {
	uint64_t id; /* 0: there is none */
	uint64_t created;
	uint64_t checksum;
	size_t length;
};

static int find_head(struct connection *c, const char *key, size_t length, uint64_t before, struct head *ret_head)
{
	sqlite3_stmt *s = statement(c, STATEMENT_HEAD);
	struct head head = { 0 };
	int r;

	bind_key(s, 1, key, length);
	bind_number(s, 2, before);
	r = step(c, s);
	if (r == STEP_ROW) {
		head = (struct head){
			.id = column_number(s, 0),
			.created = column_number(s, 1),
			.checksum = column_number(s, 2),
			.length = (size_t)sqlite3_column_int64(s, 3),
		};
	} else if (r != STEP_DONE) {
		return r;
	}
	sqlite3_reset(s);
	*ret_head = head;
	return 0;
}

static int find_newest(struct connection *c, const char *key, struct head *ret_head)
{
	return find_head(c, key, strlen(key), INT64_MAX, ret_head);
}

static int check_conditions(
	struct connection *c, const struct store_transaction *t, struct store_conflict *ret_conflict)
{
	for (size_t i = 0; i < t->condition_count; i++) {
		struct head head;
		uint64_t revision;
		int r = find_newest(c, t->conditions[i].key, &head);

		if (r)
			return r;
		revision = head.created ? id_revision(head.id) : 0;
		if (revision != t->conditions[i].revision) {
			*ret_conflict = (struct store_conflict){ .index = i, .revision = revision };
			return STORE_E_CONFLICT;
		}
	}
	return 0;
}

static int insert(struct connection *c, struct meta *meta, const struct row *row)
{
	sqlite3_stmt *s = statement(c, STATEMENT_INSERT);
	uint64_t checksum = row_checksum(row);
	int rc = SQLITE_OK;

	bind_number(s, 1, row->id);
	bind_key(s, 2, row->key, row->key_length);
	bind_number(s, 3, row->created);
	bind_number(s, 4, checksum);
	if (!row->value)
		rc = sqlite3_bind_null(s, 5);
	else if (row->length == 0)
		rc = sqlite3_bind_zeroblob(s, 5, 0);
	else
		rc = sqlite3_bind_blob(s, 5, row->value, (int)row->length, SQLITE_STATIC);
	if (rc != SQLITE_OK)
		return translate(c->db, rc);
	meta->rows_sum += checksum;
	return run(c, s);
}

/* Carry out a write as row @id; @ret_changed says whether there was anything to do. */
static int apply_write(
	struct connection *c, struct meta *meta, const struct store_write *w, uint64_t id, bool *ret_changed)
{
	struct row row = { .id = id, .key = w->key, .key_length = strlen(w->key) };
	struct head head;
	int r = find_newest(c, w->key, &head);

	if (r)
		return r;
	*ret_changed = w->value || head.created;
	if (!*ret_changed)
		return 0;
	if (head.created) {
		meta->live_bytes -= row.key_length + head.length;
		meta->superseded_bytes += row_bytes(row.key_length, head.length);
	}
	if (w->value) {
		row.value = w->value;
		row.length = w->length;
		row.created = head.created ? head.created : id_revision(id);
		meta->live_bytes += row.key_length + row.length;
	} else {
		meta->superseded_bytes += row_bytes(row.key_length, 0);
	}
	return insert(c, meta, &row);
}

static int apply_writes(
	struct sqlite_store *st, const struct store_transaction *t, struct meta *meta, bool *ret_changed)
{
	uint64_t live_before = meta->live_bytes;
	uint64_t id = (meta->revision + 1) << ORDINAL_BITS;
	bool changed = false;

	for (size_t i = 0; i < t->write_count; i++) {
		bool did;
		int r = apply_write(&st->writer, meta, &t->writes[i], id + i, &did);

		if (r)
			return r;
		changed |= did;
	}
	/* what makes a full store smaller is welcome, even when it stays too full */
	if (meta->live_bytes > st->options.live_bytes && meta->live_bytes > live_before)
		return STORE_E_FULL;
	meta->revision += changed;
	*ret_changed = changed;
	return 0;
}

/* Make the transaction of the writer last. */
static int commit(struct sqlite_store *st)
{
	struct connection *c = &st->writer;
	sqlite3_stmt *s = statement(c, STATEMENT_COMMIT);
	int rc = sqlite3_step(s);
	int r;

	if (rc == SQLITE_DONE) {
		sqlite3_reset(s);
		return 0;
	}
	r = translate(c->db, rc);
	sqlite3_reset(s);
	roll_back(c);
	/* without room in the log for all of it, its end is not there; without the lock, nothing is */
	if (rc == SQLITE_FULL || (rc & 0xff) == SQLITE_BUSY)
		return r;
	st->unsettled = true;
	return settle(st) ? STORE_E_UNSURE : r;
}

static int delete_row(struct connection *c, struct meta *meta, uint64_t id, uint64_t checksum, uint64_t bytes)
{
	sqlite3_stmt *s = statement(c, STATEMENT_DELETE);

	bind_number(s, 1, id);
	meta->rows_sum -= checksum;
	meta->superseded_bytes -= bytes;
	return run(c, s);
}

/*
 * Within a transaction: let go what is superseded at @until, whole revisions, until @bytes of history are left (unless
 * that is 0) or COMPACT_ROWS have been looked at. It gets at least one revision further.
 */
static int compact_rows(struct connection *c, struct meta *meta, uint64_t until, uint64_t bytes)
{
	uint64_t id = id_last(meta->compacted);
	size_t rows = 0;

	for (;; rows++) {
		sqlite3_stmt *s = statement(c, STATEMENT_NEXT);
		char key[STORE_KEY_MAX];
		size_t key_length;
		uint64_t created, checksum;
		struct head head;
		int r;

		bind_number(s, 1, id);
		bind_number(s, 2, id_last(until));
		r = step(c, s);
		if (r == STEP_DONE) {
			meta->compacted = until;
			sqlite3_reset(s);
			return 0;
		}
		if (r != STEP_ROW)
			return r;
		/* the step may end between two revisions; the one that begins here is whole in the store */
		if (id_revision(column_number(s, 0)) != id_revision(id)) {
			meta->compacted = id_revision(column_number(s, 0)) - 1;
			if (rows >= COMPACT_ROWS || (bytes && meta->superseded_bytes <= bytes)) {
				sqlite3_reset(s);
				return 0;
			}
		}
		id = column_number(s, 0);
		key_length = (size_t)sqlite3_column_bytes(s, 1);
		if (key_length > sizeof(key))
			return STORE_E_CORRUPT;
		memcpy(key, sqlite3_column_text(s, 1), key_length);
		created = column_number(s, 2);
		checksum = column_number(s, 3);
		sqlite3_reset(s);

		r = find_head(c, key, key_length, id, &head);
		if (!r && head.id)
			r = delete_row(c, meta, head.id, head.checksum, row_bytes(key_length, head.length));
		if (!r && !created)
			r = delete_row(c, meta, id, checksum, row_bytes(key_length, 0));
		if (r)
			return r;
	}
}

static int compact_until(struct sqlite_store *st, struct meta *meta, uint64_t until, uint64_t bytes)
{
	struct meta after = *meta;
	int r = run_plain(&st->writer, STATEMENT_BEGIN_WRITE);

	if (!r)
		r = compact_rows(&st->writer, &after, until, bytes);
	if (!r)
		r = write_meta(&st->writer, &after);
	if (!r)
		r = commit(st);
	else
		roll_back(&st->writer);
	if (!r)
		*meta = after;
	return r;
}

/* After a commit: keep history within its bounds. A failure is no failure of that commit; the next one tries again. */
static void bound_history(struct sqlite_store *st, struct meta *meta)
{
	int r = 0;

	if (meta->revision - meta->compacted >= st->options.history_revisions + COMPACT_REVISIONS)
		r = compact_until(st, meta, meta->revision - st->options.history_revisions, 0);
	if (!r && meta->superseded_bytes > st->options.history_bytes)
		r = compact_until(st, meta, meta->revision, st->options.history_bytes);
	(void)r;
}

static void wake_watches(struct sqlite_store *st)
{
	pthread_mutex_lock(&st->watches_lock);
	list_for_each (node, &st->watches) {
		struct sqlite_watch *w = CONTAINER_OF(node, struct sqlite_watch, node);

		/* EAGAIN: it counts more wakings than anybody can have slept through, and is readable */
		if (eventfd_write(w->watch.fd, 1) < 0)
			ASSERT(errno == EAGAIN);
	}
	pthread_mutex_unlock(&st->watches_lock);
}

static int sqlite_commit(struct store *store, const struct store_transaction *t, uint64_t *ret_revision,
	struct store_conflict *ret_conflict)
{
	struct sqlite_store *st = of(store);
	struct connection *c = &st->writer;
	bool changed = false;
	struct meta meta;
	int r;

	pthread_mutex_lock(&st->write_lock);
	r = settle(st);
	if (!r)
		r = run_plain(c, STATEMENT_BEGIN_WRITE);
	if (!r)
		r = read_meta(c, &meta);
	if (!r)
		r = check_conditions(c, t, ret_conflict);
	if (!r)
		r = apply_writes(st, t, &meta, &changed);
	if (!r && changed)
		r = write_meta(c, &meta);
	if (!r && changed)
		r = commit(st);
	else
		roll_back(c);
	if (!r) {
		*ret_revision = meta.revision;
		if (changed) {
			witness(st, meta.revision);
			wake_watches(st);
			bound_history(st, &meta);
		}
	}
	pthread_mutex_unlock(&st->write_lock);
	return r;
}

static int sqlite_compact(struct store *store, uint64_t revision)
{
	struct sqlite_store *st = of(store);
	struct connection *c = NULL;
	struct meta meta;
	int r;

	pthread_mutex_lock(&st->write_lock);
	r = settle(st);
	if (!r) {
		r = begin_read(st, &c, &meta);
		end_read(st, c);
	}
	if (!r && revision > meta.revision)
		r = STORE_E_FUTURE;
	if (!r && revision < meta.compacted)
		r = STORE_E_COMPACTED;
	while (!r && meta.compacted < revision)
		r = compact_until(st, &meta, revision, 0);
	pthread_mutex_unlock(&st->write_lock);
	return r;
}

/* Watches */

static int sqlite_watch_open(struct store *store, const char *prefix, uint64_t since, struct store_watch **ret_watch)
{
	struct sqlite_store *st = of(store);
	struct sqlite_watch *w;
	struct connection *c = NULL;
	struct meta meta;
	int r = begin_read(st, &c, &meta);

	end_read(st, c);
	if (!r && since > meta.revision)
		r = STORE_E_FUTURE;
	if (!r && since < meta.compacted)
		r = STORE_E_COMPACTED;
	if (r)
		return r;
	w = calloc(1, sizeof(*w));
	if (!w)
		return fault(-ENOMEM);
	/* readable at first: there may be changes already */
	w->watch.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->watch.fd < 0) {
		r = fault(-errno);
		free(w);
		return r;
	}
	w->watch.store = store;
	memcpy(w->watch.prefix, prefix, strlen(prefix) + 1);
	w->told = since;
	pthread_mutex_lock(&st->watches_lock);
	if (st->watch_count < STORE_WATCHES_MAX) {
		list_add(&st->watches, &w->node);
		st->watch_count++;
	} else {
		r = STORE_E_TOO_MANY;
	}
	pthread_mutex_unlock(&st->watches_lock);
	if (r) {
		close(w->watch.fd);
		free(w);
		return r;
	}
	*ret_watch = &w->watch;
	return 0;
}

static int sqlite_watch_next(struct store_watch *watch, struct store_changes *changes)
{
	struct sqlite_watch *w = CONTAINER_OF(watch, struct sqlite_watch, watch);
	struct sqlite_store *st = of(watch->store);
	struct items items = { .arena = &changes->arena };
	size_t prefix_length = strlen(watch->prefix);
	struct connection *c = NULL;
	uint64_t told = w->told;
	struct meta meta;
	struct row row;
	sqlite3_stmt *s;
	eventfd_t wakings;
	int r;

	if (w->too_late)
		return STORE_E_COMPACTED;
	/* before looking, so that what comes after the look wakes again */
	if (eventfd_read(watch->fd, &wakings) < 0)
		ASSERT(errno == EAGAIN);
	r = begin_read(st, &c, &meta);
	if (r)
		goto out;
	if (told < meta.compacted) {
		w->too_late = true;
		r = STORE_E_COMPACTED;
		goto out;
	}
	s = statement(c, STATEMENT_CHANGES);
	bind_number(s, 1, id_last(told));
	while ((r = step(c, s)) == STEP_ROW) {
		uint64_t revision = id_revision(column_number(s, 0));
		const char *key = (const char *)sqlite3_column_text(s, 1);

		/* only between two revisions */
		if (revision != told && (items.count >= STORE_PAGE_ITEMS_MAX || items.bytes >= STORE_PAGE_BYTES_MAX))
			break;
		told = revision;
		if (key && strncmp(key, watch->prefix, prefix_length) != 0)
			continue;
		r = read_row(c, s, &row);
		if (!r)
			r = add_item(&items, &row);
		if (r)
			goto out;
	}
	if (r == STEP_DONE)
		told = meta.revision;
	else if (r != STEP_ROW)
		goto out;
	w->told = told;
	changes->items = items.items;
	changes->count = items.count;
	changes->revision = told;
	r = items.count ? 0 : STORE_E_NOTHING_NEW;
out:
	end_read(st, c);
	return r;
}

static void sqlite_watch_close(struct store_watch *watch)
{
	struct sqlite_watch *w = CONTAINER_OF(watch, struct sqlite_watch, watch);
	struct sqlite_store *st = of(watch->store);

	pthread_mutex_lock(&st->watches_lock);
	list_del(&w->node);
	st->watch_count--;
	pthread_mutex_unlock(&st->watches_lock);
	close(watch->fd);
	free(w);
}

/* Opening and closing */

static void connection_close(struct connection *c)
{
	for (size_t i = 0; i < STATEMENT_N; i++)
		sqlite3_finalize(c->statements[i]);
	sqlite3_close(c->db);
	*c = (struct connection){ 0 };
}

static void sqlite_close(struct store *store)
{
	struct sqlite_store *st = of(store);

	ASSERT(list_empty(&st->watches));
	for (size_t i = 0; i < READERS_N; i++)
		connection_close(&st->readers[i]);
	/* the last connection moves the log into the database and removes it */
	connection_close(&st->writer);
	if (st->lock_fd >= 0)
		close(st->lock_fd);
	pthread_mutex_destroy(&st->write_lock);
	pthread_mutex_destroy(&st->readers_lock);
	pthread_mutex_destroy(&st->watches_lock);
	pthread_cond_destroy(&st->reader_back);
	free(st);
}

static const struct store_ops sqlite_ops = {
	.name = "sqlite",
	.close = sqlite_close,
	.get = sqlite_get,
	.list = sqlite_list,
	.commit = sqlite_commit,
	.compact = sqlite_compact,
	.status = sqlite_status,
	.watch_open = sqlite_watch_open,
	.watch_next = sqlite_watch_next,
	.watch_close = sqlite_watch_close,
};

/* What is needed to say why a store was not opened. */
struct opening {
	struct sqlite_store *st;
	const char *path;
	char *reason;
};

PRINTF(3, 4) static int refuse(const struct opening *o, int outcome, const char *format, ...)
{
	char why[STORE_REASON_SIZE];
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	snprintf(o->reason, STORE_REASON_SIZE, "%.200s: %.290s", o->path, why);
	return outcome;
}

/* A failure of SQLite's at open. */
static int refuse_rc(const struct opening *o, const struct connection *c, int rc, const char *doing)
{
	int r = translate(c->db, rc);

	if ((rc & 0xff) == SQLITE_NOTADB)
		return refuse(o, STORE_E_FOREIGN, "it is not a SQLite database, or its first page is damaged");
	return refuse(o, r, "%s: %s", doing, c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(rc));
}

static int take_lock(const struct opening *o, uint64_t *ret_witnessed)
{
	char path[PATH_MAX];
	long pid;
	int r;

	if ((size_t)snprintf(path, sizeof(path), "%s.lock", o->path) >= sizeof(path))
		return refuse(o, fault(-ENAMETOOLONG), "the path is too long");
	o->st->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (o->st->lock_fd < 0) {
		r = fault(-errno);
		return refuse(o, r, "opening the lock file %s: %s", path, strerrordesc_np(-r));
	}
	if (flock(o->st->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		r = -errno;
		if (r != -EWOULDBLOCK)
			return refuse(o, fault(r), "locking %s: %s", path, strerrordesc_np(-r));
		read_witness(o->st->lock_fd, ret_witnessed, &pid);
		return refuse(o, STORE_E_LOCKED,
			"process %ld has the store open; one process uses it at a time, so end that one first", pid);
	}
	read_witness(o->st->lock_fd, ret_witnessed, &pid);
	return 0;
}

/* Made before SQLite opens it: what is in it is for its owner only, and SQLite gives its other files the same mode. */
static int make_file(const struct opening *o)
{
	int fd = open(o->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;
	int r;

	if (fd < 0) {
		r = fault(-errno);
		return refuse(o, r, "opening it: %s", strerrordesc_np(-r));
	}
	r = fstat(fd, &st) < 0 ? fault(-errno) : 0;
	close(fd);
	if (r)
		return refuse(o, r, "looking at it: %s", strerrordesc_np(-r));
	if (!S_ISREG(st.st_mode))
		return refuse(o, STORE_E_FOREIGN, "it is not a regular file");
	return 0;
}

static int connection_open(const struct opening *o, struct connection *c)
{
	const struct store_sqlite_options *options = &o->st->options;
	int rc = sqlite3_open_v2(
		o->path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, options->vfs);

	if (rc == SQLITE_OK)
		rc = sqlite3_extended_result_codes(c->db, 1);
	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(c->db, options->busy_timeout_ms);
	if (rc == SQLITE_OK)
		rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(c->db, "PRAGMA cell_size_check = ON; PRAGMA synchronous = FULL;", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return refuse_rc(o, c, rc, "opening it");
	return 0;
}

static int connection_prepare(const struct opening *o, struct connection *c)
{
	for (size_t i = 0; i < STATEMENT_N; i++) {
		int rc = sqlite3_prepare_v3(
			c->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &c->statements[i], NULL);

		if (rc != SQLITE_OK)
			return refuse_rc(o, c, rc, "reading its tables");
	}
	return 0;
}

/* The first column of a query's first row, as a number. */
static int query_number(struct connection *c, const char *sql, int64_t *ret_number)
{
	sqlite3_stmt *s;
	int rc = sqlite3_prepare_v2(c->db, sql, -1, &s, NULL);

	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(s);
	if (rc == SQLITE_ROW) {
		*ret_number = sqlite3_column_int64(s, 0);
		rc = SQLITE_OK;
	}
	sqlite3_finalize(s);
	return rc;
}

/* The same, as text. */
static int query_text(struct connection *c, const char *sql, char *ret_text, size_t size)
{
	sqlite3_stmt *s;
	int rc = sqlite3_prepare_v2(c->db, sql, -1, &s, NULL);

	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(s);
	if (rc == SQLITE_ROW) {
		const unsigned char *text = sqlite3_column_text(s, 0);

		snprintf(ret_text, size, "%s", text ? (const char *)text : "");
		rc = text ? SQLITE_OK : SQLITE_NOMEM;
	}
	sqlite3_finalize(s);
	return rc;
}

/* Whether the file is ours, of a version that we know. Nothing is written before that is clear. */
static int check_kind(const struct opening *o, struct connection *c, bool *ret_new)
{
	int64_t application = 0, version = 0, objects = 0;
	int rc = query_number(c, "PRAGMA application_id", &application);

	if (rc == SQLITE_OK)
		rc = query_number(c, "PRAGMA user_version", &version);
	if (rc == SQLITE_OK)
		rc = query_number(c, "SELECT count(*) FROM sqlite_schema", &objects);
	if (rc != SQLITE_OK)
		return refuse_rc(o, c, rc, "reading its kind");
	*ret_new = application == 0 && version == 0 && objects == 0;
	if (*ret_new)
		return 0;
	if (application != APPLICATION_ID)
		return refuse(o, STORE_E_FOREIGN, "it is a SQLite database of another program");
	if (version > SCHEMA_VERSION)
		return refuse(o, STORE_E_NEWER,
			"it has schema version %" PRId64 ", this program knows versions up to %d", version,
			SCHEMA_VERSION);
	if (version < 1 || objects == 0)
		return refuse(o, STORE_E_CORRUPT, "it has schema version %" PRId64 " and %" PRId64 " tables", version,
			objects);
	return 0;
}

static int set_up_log(const struct opening *o, struct connection *c)
{
	char mode[16] = "";
	int rc = query_text(c, "PRAGMA journal_mode = WAL", mode, sizeof(mode));

	if (rc == SQLITE_OK)
		rc = sqlite3_wal_autocheckpoint(c->db, o->st->options.checkpoint_pages);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(c->db, "PRAGMA journal_size_limit = 16777216", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return refuse_rc(o, c, rc, "beginning a write-ahead log");
	if (strcmp(mode, "wal") != 0)
		return refuse(o, fault(-ENOTSUP), "SQLite can't keep a write-ahead log there (it says \"%s\")", mode);
	return 0;
}

static int check_rows(const struct opening *o, struct connection *c, uint64_t rows_sum)
{
	sqlite3_stmt *s = statement(c, STATEMENT_ALL);
	uint64_t sum = 0;
	struct row row;
	int r;

	while ((r = step(c, s)) == STEP_ROW) {
		r = read_row(c, s, &row);
		if (r == STORE_E_CORRUPT)
			return refuse(o, r, "revision %" PRIu64 " of \"%.100s\" is damaged; restore a backup",
				id_revision(column_number(s, 0)), (const char *)sqlite3_column_text(s, 1));
		if (r)
			break;
		sum += row.checksum;
	}
	if (r != STEP_DONE)
		return refuse(o, r, "reading it: %s", sqlite3_errmsg(c->db));
	if (sum != rows_sum)
		return refuse(o, STORE_E_CORRUPT, "items are missing, or older than they should be; restore a backup");
	return 0;
}

static int check_all(const struct opening *o, struct connection *c, uint64_t witnessed, struct meta *ret_meta)
{
	char found[160] = "";
	int rc = query_text(c, "PRAGMA integrity_check(1)", found, sizeof(found));
	int r;

	if (rc != SQLITE_OK)
		return refuse_rc(o, c, rc, "checking it");
	if (strcmp(found, "ok") != 0) {
		const char *code = strstr(found, "error code=");
		int error = code ? (int)strtol(code + strlen("error code="), NULL, 10) & 0xff : SQLITE_CORRUPT;

		for (char *at = found; (at = strchr(at, '\n'));)
			*at = ' ';
		/* what could not be read need not be damaged */
		if (error == SQLITE_IOERR || error == SQLITE_NOMEM)
			return refuse(o, translate(NULL, error), "checking it: %.150s", found);
		return refuse(o, STORE_E_CORRUPT, "it is damaged: %.150s; restore a backup", found);
	}
	r = read_meta(c, ret_meta);
	if (r)
		return refuse(o, r, "its table meta is damaged or can't be read: %s", sqlite3_errmsg(c->db));
	if (ret_meta->revision < witnessed)
		return refuse(o, STORE_E_CORRUPT,
			"it is at revision %" PRIu64 ", but %" PRIu64 " had been acknowledged; restore a newer backup, "
			"or remove its .lock file to go on without what is lost",
			ret_meta->revision, witnessed);
	return check_rows(o, c, ret_meta->rows_sum);
}

static int open_all(const struct opening *o)
{
	struct sqlite_store *st = o->st;
	struct connection *c = &st->writer;
	uint64_t witnessed = 0;
	bool new_store = false;
	struct meta meta;
	int r = take_lock(o, &witnessed);

	if (!r)
		r = make_file(o);
	if (!r)
		r = connection_open(o, c);
	if (!r)
		r = check_kind(o, c, &new_store);
	if (!r)
		r = set_up_log(o, c);
	if (!r && new_store) {
		int rc = sqlite3_exec(c->db, schema_sql, NULL, NULL, NULL);

		if (rc != SQLITE_OK)
			r = refuse_rc(o, c, rc, "making its tables");
	}
	if (!r)
		r = connection_prepare(o, c);
	if (!r)
		r = check_all(o, c, witnessed, &meta);
	for (size_t i = 0; i < READERS_N && !r; i++) {
		r = connection_open(o, &st->readers[i]);
		if (!r)
			r = connection_prepare(o, &st->readers[i]);
	}
	if (!r)
		witness(st, meta.revision);
	return r;
}

int store_sqlite_open(
	const struct store_sqlite_options *options, struct store **ret_store, char ret_reason[static STORE_REASON_SIZE])
{
	struct sqlite_store *st = calloc(1, sizeof(*st));
	struct opening opening = { .st = st, .path = options->path, .reason = ret_reason };
	int r;

	if (!st)
		return refuse(&opening, fault(-ENOMEM), "out of memory");
	st->store.ops = &sqlite_ops;
	st->options = *options;
	st->options.path = NULL;
	if (!st->options.history_revisions)
		st->options.history_revisions = STORE_SQLITE_HISTORY_REVISIONS;
	if (!st->options.history_bytes)
		st->options.history_bytes = STORE_SQLITE_HISTORY_BYTES;
	if (!st->options.live_bytes)
		st->options.live_bytes = STORE_SQLITE_LIVE_BYTES;
	if (!st->options.checkpoint_pages)
		st->options.checkpoint_pages = STORE_SQLITE_CHECKPOINT_PAGES;
	if (!st->options.busy_timeout_ms)
		st->options.busy_timeout_ms = STORE_SQLITE_BUSY_TIMEOUT_MS;
	st->lock_fd = -1;
	list_init(&st->watches);
	pthread_mutex_init(&st->write_lock, NULL);
	pthread_mutex_init(&st->readers_lock, NULL);
	pthread_mutex_init(&st->watches_lock, NULL);
	pthread_cond_init(&st->reader_back, NULL);
	r = open_all(&opening);
	if (r) {
		sqlite_close(&st->store);
		return r;
	}
	*ret_store = &st->store;
	return 0;
}
