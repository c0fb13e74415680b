/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the SQLite store: what store_sqlite.c (reading, writing, watching), store_sqlite_open.c and store_sqlite_row.c
 * (rows, statements and checksums) know of each other. Nobody else includes this.
 */
#pragma once

#include "base/error.h"
#include "base/list.h"
#include "control/store_sqlite.h"

#include <pthread.h>
#include <sqlite3.h>

enum {
	READERS_N = 4,
	SCHEMA_VERSION = 1,	     /* user_version */
	APPLICATION_ID = 0x54644373, /* "TdCs" */
	ORDINAL_BITS = 12,	     /* an id is a revision, and the place among the writes of its transaction */
	ORDINAL_MAX = (1 << ORDINAL_BITS) - 1,
	ROW_OVERHEAD = 64,	 /* bytes that a row of history counts beside its key and value */
	COMPACT_REVISIONS = 256, /* history is let go in steps of as many */
	COMPACT_ROWS = 8192,	 /* or of so many rows, which is more than a transaction adds */
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
	S(NEWEST, "SELECT max(id) FROM version WHERE key > ?1 AND key < ?2 AND id <= ?3 GROUP BY key ORDER BY key")    \
	S(ROW, "SELECT id, key, created, checksum, value FROM version WHERE id = ?1")                                  \
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

static inline struct sqlite_store *sq_of(struct store *store)
{
	return CONTAINER_OF(store, struct sqlite_store, store);
}

static inline uint64_t sq_row_bytes(size_t key_length, size_t length)
{
	return key_length + length + ROW_OVERHEAD;
}

/* Ids */

static inline uint64_t sq_id_revision(uint64_t id)
{
	return id >> ORDINAL_BITS;
}

/* The last id that a row of this revision can have. */
static inline uint64_t sq_id_last(uint64_t revision)
{
	return revision << ORDINAL_BITS | ORDINAL_MAX;
}

/* Statements: reset when they come, so that none stays in the middle of a table after a failure. */

static inline sqlite3_stmt *sq_statement(struct connection *c, enum statement which)
{
	sqlite3_reset(c->statements[which]);
	return c->statements[which];
}

static inline void sq_bind_number(sqlite3_stmt *s, int index, uint64_t number)
{
	/* fails only for an index that does not exist, or while the statement runs */
	ASSERT(sqlite3_bind_int64(s, index, (sqlite3_int64)number) == SQLITE_OK);
}

static inline void sq_bind_key(sqlite3_stmt *s, int index, const char *key, size_t length)
{
	ASSERT(sqlite3_bind_text(s, index, key, (int)length, SQLITE_STATIC) == SQLITE_OK);
}

static inline uint64_t sq_column_number(sqlite3_stmt *s, int column)
{
	return (uint64_t)sqlite3_column_int64(s, column);
}

/* What sq_step() answers beside faults and STORE_E_CORRUPT. */
enum { STEP_ROW = 1000, STEP_DONE };

/** sq_translate_at() - a result of SQLite's, as a result of ours: -errno or STORE_E_CORRUPT; @db may be NULL */
int sq_translate_at(sqlite3 *db, int rc, const char *file, int line);
#define sq_translate(db, rc) sq_translate_at((db), (rc), __FILE__, __LINE__)

/** sq_row_checksum() - over everything that a row has */
uint64_t sq_row_checksum(const struct row *row);

/** sq_prepare() - all statements of a connection. Return: a result of SQLite's. */
int sq_prepare(struct connection *c);

/** sq_connection_close() - an all-zero connection is accepted, and is left behind */
void sq_connection_close(struct connection *c);

/** sq_step() - step to a row. Return: STEP_ROW; STEP_DONE; -errno; STORE_E_CORRUPT, and the statement is reset. */
MUST_CHECK int sq_step(struct connection *c, sqlite3_stmt *s);

/** sq_run() - run a statement that returns no rows. Return: 0; -errno; STORE_E_CORRUPT. */
MUST_CHECK int sq_run(struct connection *c, sqlite3_stmt *s);

/** sq_run_plain() - the same for one without parameters */
MUST_CHECK int sq_run_plain(struct connection *c, enum statement which);

/** sq_roll_back() - drop the transaction, if there still is one: SQLite ends some by itself when they fail */
void sq_roll_back(struct connection *c);

/** sq_read_meta() - Return: 0; -errno; STORE_E_CORRUPT. */
MUST_CHECK int sq_read_meta(struct connection *c, struct meta *ret_meta);

/** sq_write_meta() - Return: 0; -errno; STORE_E_CORRUPT. */
MUST_CHECK int sq_write_meta(struct connection *c, const struct meta *m);

/**
 * sq_read_row() - the row that a statement with the columns id, key, created, checksum, value stands at
 *
 * Return: 0; -errno; STORE_E_CORRUPT when it is not as it was written.
 */
MUST_CHECK int sq_read_row(struct connection *c, sqlite3_stmt *s, struct row *ret_row);

/** sq_witness() - note the newest acknowledged revision; a failure costs only the notice of a loss */
void sq_witness(struct sqlite_store *st, uint64_t revision);

/** sq_read_witness() - what a lock file says; zeros when it says nothing that can be understood */
void sq_read_witness(int fd, uint64_t *ret_revision, long *ret_pid);

/** sq_close() - of struct store_ops; also of a store that is half open */
void sq_close(struct store *store);

extern const struct store_ops sq_ops;
