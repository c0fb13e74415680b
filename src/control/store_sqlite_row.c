/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the SQLite store, the statements that get at them, and the checksums and the witness that tell of damage. */
#include "control/store_sqlite_row.h"
#include "base/hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOCK_TEXT_SIZE = 96 };

static const char *const statement_sql[STATEMENT_N] = {
#define STATEMENT(id, sql) [STATEMENT_##id] = (sql),
	STATEMENTS(STATEMENT)
#undef STATEMENT
};

int sq_translate_at(sqlite3 *db, int rc, const char *file, int line)
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
/* Checksums */

static uint64_t mix(uint64_t sum, uint64_t number)
{
	uint8_t bytes[8];

	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(number >> 8 * i);
	return hash_bytes(bytes, sizeof(bytes), sum);
}

uint64_t sq_row_checksum(const struct row *row)
{
	uint64_t sum = hash_bytes(row->key, row->key_length, mix(row->id, row->created));

	return row->value ? hash_bytes(row->value, row->length, sum) : sum;
}

static uint64_t meta_checksum(const struct meta *m)
{
	return mix(mix(mix(mix(m->revision, m->compacted), m->live_bytes), m->superseded_bytes), m->rows_sum);
}

int sq_prepare(struct connection *c)
{
	for (size_t i = 0; i < STATEMENT_N; i++) {
		int rc = sqlite3_prepare_v3(
			c->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &c->statements[i], NULL);

		if (rc != SQLITE_OK)
			return rc;
	}
	return SQLITE_OK;
}

void sq_connection_close(struct connection *c)
{
	for (size_t i = 0; i < STATEMENT_N; i++)
		sqlite3_finalize(c->statements[i]);
	sqlite3_close(c->db);
	*c = (struct connection){ 0 };
}

int sq_step(struct connection *c, sqlite3_stmt *s)
{
	int rc = sqlite3_step(s);

	if (rc == SQLITE_ROW)
		return STEP_ROW;
	if (rc == SQLITE_DONE)
		return STEP_DONE;
	rc = sq_translate(c->db, rc);
	sqlite3_reset(s);
	return rc;
}

int sq_run(struct connection *c, sqlite3_stmt *s)
{
	int r = sq_step(c, s);

	if (r == STEP_ROW || r == STEP_DONE) {
		sqlite3_reset(s);
		return 0;
	}
	return r;
}

int sq_run_plain(struct connection *c, enum statement which)
{
	return sq_run(c, sq_statement(c, which));
}

void sq_roll_back(struct connection *c)
{
	if (!sqlite3_get_autocommit(c->db) && sq_run_plain(c, STATEMENT_ROLLBACK)) {
		/* it is over nevertheless: what could not be undone on disk is not in the log's index */
	}
}

int sq_read_meta(struct connection *c, struct meta *ret_meta)
{
	sqlite3_stmt *s = sq_statement(c, STATEMENT_META);
	int r = sq_step(c, s);
	struct meta m;
	uint64_t checksum;

	if (r != STEP_ROW)
		return r == STEP_DONE ? STORE_E_CORRUPT : r;
	m = (struct meta){
		.revision = sq_column_number(s, 0),
		.compacted = sq_column_number(s, 1),
		.live_bytes = sq_column_number(s, 2),
		.superseded_bytes = sq_column_number(s, 3),
		.rows_sum = sq_column_number(s, 4),
	};
	checksum = sq_column_number(s, 5);
	sqlite3_reset(s);
	/* a store that has just been made has zeros */
	if (checksum != (m.revision == 0 ? 0 : meta_checksum(&m)))
		return STORE_E_CORRUPT;
	*ret_meta = m;
	return 0;
}

int sq_write_meta(struct connection *c, const struct meta *m)
{
	sqlite3_stmt *s = sq_statement(c, STATEMENT_SET_META);

	sq_bind_number(s, 1, m->revision);
	sq_bind_number(s, 2, m->compacted);
	sq_bind_number(s, 3, m->live_bytes);
	sq_bind_number(s, 4, m->superseded_bytes);
	sq_bind_number(s, 5, m->rows_sum);
	sq_bind_number(s, 6, meta_checksum(m));
	return sq_run(c, s);
}

int sq_read_row(struct connection *c, sqlite3_stmt *s, struct row *ret_row)
{
	struct row row = {
		.id = sq_column_number(s, 0), .created = sq_column_number(s, 2), .checksum = sq_column_number(s, 3)
	};

	if (sqlite3_column_type(s, 1) != SQLITE_TEXT)
		return STORE_E_CORRUPT;
	row.key = (const char *)sqlite3_column_text(s, 1);
	row.key_length = (size_t)sqlite3_column_bytes(s, 1);
	if (!row.key)
		return sq_translate(c->db, sqlite3_errcode(c->db));
	if (sqlite3_column_type(s, 4) != SQLITE_NULL) {
		row.value = sqlite3_column_blob(s, 4);
		row.length = (size_t)sqlite3_column_bytes(s, 4);
		if (!row.value && (sqlite3_errcode(c->db) & 0xff) == SQLITE_NOMEM)
			return fault(-ENOMEM);
		if (!row.value)
			row.value = ""; /* what SQLite gives for no bytes */
	}
	if (row.checksum != sq_row_checksum(&row) || (row.created == 0) != (row.value == NULL))
		return STORE_E_CORRUPT;
	*ret_row = row;
	return 0;
}

/* The lock file */

static uint64_t lock_checksum(uint64_t revision, long pid)
{
	return mix(mix(APPLICATION_ID, revision), (uint64_t)pid);
}

void sq_witness(struct sqlite_store *st, uint64_t revision)
{
	char text[LOCK_TEXT_SIZE];
	long pid = (long)getpid();
	int n = snprintf(text, sizeof(text), "revision %020" PRIu64 " pid %010ld check %016" PRIx64 "\n", revision, pid,
		lock_checksum(revision, pid));

	if (pwrite(st->lock_fd, text, (size_t)n, 0) != n) {
		/* an older revision stays, or none that can be read */
	}
}

void sq_read_witness(int fd, uint64_t *ret_revision, long *ret_pid)
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
