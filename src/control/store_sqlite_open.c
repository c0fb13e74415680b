/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening the SQLite store: one process at a time, only files that are ours and of a version that we know, and only
 * when all that is stored has been looked at and is whole. Whoever is refused is told what was found.
 */
#include "control/store_sqlite_row.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

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
	int r = sq_translate(c->db, rc);

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
		sq_read_witness(o->st->lock_fd, ret_witnessed, &pid);
		return refuse(o, STORE_E_LOCKED,
			"process %ld has the store open; one process uses it at a time, so end that one first", pid);
	}
	sq_read_witness(o->st->lock_fd, ret_witnessed, &pid);
	sq_witness(o->st, *ret_witnessed); /* with our number, for whoever comes second */
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
	int rc = sq_prepare(c);

	return rc == SQLITE_OK ? 0 : refuse_rc(o, c, rc, "reading its tables");
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
	sqlite3_stmt *s = sq_statement(c, STATEMENT_ALL);
	uint64_t sum = 0;
	struct row row;
	int r;

	while ((r = sq_step(c, s)) == STEP_ROW) {
		r = sq_read_row(c, s, &row);
		if (r == STORE_E_CORRUPT)
			return refuse(o, r, "revision %" PRIu64 " of \"%.100s\" is damaged; restore a backup",
				sq_id_revision(sq_column_number(s, 0)), (const char *)sqlite3_column_text(s, 1));
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
			return refuse(o, sq_translate(NULL, error), "checking it: %.150s", found);
		return refuse(o, STORE_E_CORRUPT, "it is damaged: %.150s; restore a backup", found);
	}
	r = sq_read_meta(c, ret_meta);
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
		sq_witness(st, meta.revision);
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
	if (!sqlite3_threadsafe()) {
		free(st);
		return refuse(&opening, fault(-ENOTSUP), "this SQLite was built for one thread only");
	}
	st->store.ops = &sq_ops;
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
		sq_close(&st->store);
		return r;
	}
	*ret_store = &st->store;
	return 0;
}
