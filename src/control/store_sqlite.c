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
 * readers_lock. watches_lock guards the list of watches. Order: write_lock, then one of the other two.
 */
#include "control/store_sqlite_row.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

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
	struct store_item item = {
		.length = row->length, .revision = sq_id_revision(row->id), .created = row->created
	};

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
		return sq_translate(db, rc);
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
	r = sq_run_plain(c, STATEMENT_BEGIN_READ);
	return r ? r : sq_read_meta(c, ret_meta);
}

/* @c may be NULL: begin_read() failed before it lent one */
static void end_read(struct sqlite_store *st, struct connection *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < STATEMENT_N; i++)
		sqlite3_reset(c->statements[i]);
	sq_roll_back(c);
	pthread_mutex_lock(&st->readers_lock);
	st->readers_lent &= ~(1U << (c - st->readers));
	pthread_cond_signal(&st->reader_back);
	pthread_mutex_unlock(&st->readers_lock);
}

static int sqlite_get(struct store *store, const char *key, struct store_page *page)
{
	struct sqlite_store *st = sq_of(store);
	struct items items = { .arena = &page->arena };
	struct connection *c = NULL;
	struct meta meta;
	struct row row;
	sqlite3_stmt *s;
	int r = begin_read(st, &c, &meta);

	if (r)
		goto out;
	s = sq_statement(c, STATEMENT_GET);
	sq_bind_key(s, 1, key, strlen(key));
	r = sq_step(c, s);
	if (r == STEP_DONE)
		r = STORE_E_ABSENT;
	if (r != STEP_ROW)
		goto out;
	r = sq_read_row(c, s, &row);
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
	struct sqlite_store *st = sq_of(store);
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
	s = sq_statement(c, STATEMENT_NEWEST);
	sq_bind_key(s, 1, after, strlen(after));
	sq_bind_key(s, 2, end, prefix_length);
	sq_bind_number(s, 3, sq_id_last(at));
	while ((r = sq_step(c, s)) == STEP_ROW) {
		sqlite3_stmt *at_id = sq_statement(c, STATEMENT_ROW);

		sq_bind_number(at_id, 1, sq_column_number(s, 0));
		r = sq_step(c, at_id);
		if (r == STEP_DONE)
			r = STORE_E_CORRUPT; /* the index has what the table has not */
		if (r == STEP_ROW)
			r = sq_read_row(c, at_id, &row);
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
	struct sqlite_store *st = sq_of(store);
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
	sqlite3_stmt *s = sq_statement(c, STATEMENT_HEAD);
	struct head head = { 0 };
	int r;

	sq_bind_key(s, 1, key, length);
	sq_bind_number(s, 2, before);
	r = sq_step(c, s);
	if (r == STEP_ROW) {
		head = (struct head){
			.id = sq_column_number(s, 0),
			.created = sq_column_number(s, 1),
			.checksum = sq_column_number(s, 2),
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
		revision = head.created ? sq_id_revision(head.id) : 0;
		if (revision != t->conditions[i].revision) {
			*ret_conflict = (struct store_conflict){ .index = i, .revision = revision };
			return STORE_E_CONFLICT;
		}
	}
	return 0;
}

static int insert(struct connection *c, struct meta *meta, const struct row *row)
{
	sqlite3_stmt *s = sq_statement(c, STATEMENT_INSERT);
	uint64_t checksum = sq_row_checksum(row);
	int rc = SQLITE_OK;

	sq_bind_number(s, 1, row->id);
	sq_bind_key(s, 2, row->key, row->key_length);
	sq_bind_number(s, 3, row->created);
	sq_bind_number(s, 4, checksum);
	if (!row->value)
		rc = sqlite3_bind_null(s, 5);
	else if (row->length == 0)
		rc = sqlite3_bind_zeroblob(s, 5, 0);
	else
		rc = sqlite3_bind_blob(s, 5, row->value, (int)row->length, SQLITE_STATIC);
	if (rc != SQLITE_OK)
		return sq_translate(c->db, rc);
	meta->rows_sum += checksum;
	return sq_run(c, s);
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
		meta->superseded_bytes += sq_row_bytes(row.key_length, head.length);
	}
	if (w->value) {
		row.value = w->value;
		row.length = w->length;
		row.created = head.created ? head.created : sq_id_revision(id);
		meta->live_bytes += row.key_length + row.length;
	} else {
		meta->superseded_bytes += sq_row_bytes(row.key_length, 0);
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
	sqlite3_stmt *s = sq_statement(c, STATEMENT_COMMIT);
	int rc = sqlite3_step(s);
	int r;

	if (rc == SQLITE_DONE) {
		sqlite3_reset(s);
		return 0;
	}
	r = sq_translate(c->db, rc);
	sqlite3_reset(s);
	sq_roll_back(c);
	/* without room in the log for all of it, its end is not there; without the lock, nothing is */
	if (rc == SQLITE_FULL || (rc & 0xff) == SQLITE_BUSY)
		return r;
	st->unsettled = true;
	return settle(st) ? STORE_E_UNSURE : r;
}

static int delete_row(struct connection *c, struct meta *meta, uint64_t id, uint64_t checksum, uint64_t bytes)
{
	sqlite3_stmt *s = sq_statement(c, STATEMENT_DELETE);

	sq_bind_number(s, 1, id);
	meta->rows_sum -= checksum;
	meta->superseded_bytes -= bytes;
	return sq_run(c, s);
}

/*
 * Within a transaction: let go what is superseded at @until, whole revisions, until @bytes of history are left (unless
 * that is 0) or COMPACT_ROWS have been looked at. It gets at least one revision further.
 */
static int compact_rows(struct connection *c, struct meta *meta, uint64_t until, uint64_t bytes)
{
	uint64_t id = sq_id_last(meta->compacted);
	size_t rows = 0;

	for (;; rows++) {
		sqlite3_stmt *s = sq_statement(c, STATEMENT_NEXT);
		char key[STORE_KEY_MAX];
		size_t key_length;
		uint64_t created, checksum;
		struct head head;
		int r;

		sq_bind_number(s, 1, id);
		sq_bind_number(s, 2, sq_id_last(until));
		r = sq_step(c, s);
		if (r == STEP_DONE) {
			meta->compacted = until;
			sqlite3_reset(s);
			return 0;
		}
		if (r != STEP_ROW)
			return r;
		/* the step may end between two revisions; the one that begins here is whole in the store */
		if (sq_id_revision(sq_column_number(s, 0)) != sq_id_revision(id)) {
			meta->compacted = sq_id_revision(sq_column_number(s, 0)) - 1;
			if (rows >= COMPACT_ROWS || (bytes && meta->superseded_bytes <= bytes)) {
				sqlite3_reset(s);
				return 0;
			}
		}
		id = sq_column_number(s, 0);
		key_length = (size_t)sqlite3_column_bytes(s, 1);
		if (key_length > sizeof(key))
			return STORE_E_CORRUPT;
		memcpy(key, sqlite3_column_text(s, 1), key_length);
		created = sq_column_number(s, 2);
		checksum = sq_column_number(s, 3);
		sqlite3_reset(s);

		r = find_head(c, key, key_length, id, &head);
		if (!r && head.id)
			r = delete_row(c, meta, head.id, head.checksum, sq_row_bytes(key_length, head.length));
		if (!r && !created)
			r = delete_row(c, meta, id, checksum, sq_row_bytes(key_length, 0));
		if (r)
			return r;
	}
}

static int compact_until(struct sqlite_store *st, struct meta *meta, uint64_t until, uint64_t bytes)
{
	struct meta after = *meta;
	int r = sq_run_plain(&st->writer, STATEMENT_BEGIN_WRITE);

	if (!r)
		r = compact_rows(&st->writer, &after, until, bytes);
	if (!r)
		r = sq_write_meta(&st->writer, &after);
	if (!r)
		r = commit(st);
	else
		sq_roll_back(&st->writer);
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
	struct sqlite_store *st = sq_of(store);
	struct connection *c = &st->writer;
	bool changed = false;
	struct meta meta;
	int r;

	pthread_mutex_lock(&st->write_lock);
	r = settle(st);
	if (!r)
		r = sq_run_plain(c, STATEMENT_BEGIN_WRITE);
	if (!r)
		r = sq_read_meta(c, &meta);
	if (!r)
		r = check_conditions(c, t, ret_conflict);
	if (!r)
		r = apply_writes(st, t, &meta, &changed);
	if (!r && changed)
		r = sq_write_meta(c, &meta);
	if (!r && changed)
		r = commit(st);
	else
		sq_roll_back(c);
	if (!r) {
		*ret_revision = meta.revision;
		if (changed) {
			sq_witness(st, meta.revision);
			wake_watches(st);
			bound_history(st, &meta);
		}
	}
	pthread_mutex_unlock(&st->write_lock);
	return r;
}

static int sqlite_compact(struct store *store, uint64_t revision)
{
	struct sqlite_store *st = sq_of(store);
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
	struct sqlite_store *st = sq_of(store);
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
	struct sqlite_store *st = sq_of(watch->store);
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
	s = sq_statement(c, STATEMENT_CHANGES);
	sq_bind_number(s, 1, sq_id_last(told));
	while ((r = sq_step(c, s)) == STEP_ROW) {
		uint64_t revision = sq_id_revision(sq_column_number(s, 0));
		const char *key = (const char *)sqlite3_column_text(s, 1);

		/* only between two revisions */
		if (revision != told && (items.count >= STORE_PAGE_ITEMS_MAX || items.bytes >= STORE_PAGE_BYTES_MAX))
			break;
		told = revision;
		if (key && strncmp(key, watch->prefix, prefix_length) != 0)
			continue;
		r = sq_read_row(c, s, &row);
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
	struct sqlite_store *st = sq_of(watch->store);

	pthread_mutex_lock(&st->watches_lock);
	list_del(&w->node);
	st->watch_count--;
	pthread_mutex_unlock(&st->watches_lock);
	close(watch->fd);
	free(w);
}

/* Closing */

void sq_close(struct store *store)
{
	struct sqlite_store *st = sq_of(store);

	ASSERT(list_empty(&st->watches));
	for (size_t i = 0; i < READERS_N; i++)
		sq_connection_close(&st->readers[i]);
	/* the last connection moves the log into the database and removes it */
	sq_connection_close(&st->writer);
	if (st->lock_fd >= 0)
		close(st->lock_fd);
	pthread_mutex_destroy(&st->write_lock);
	pthread_mutex_destroy(&st->readers_lock);
	pthread_mutex_destroy(&st->watches_lock);
	pthread_cond_destroy(&st->reader_back);
	free(st);
}

const struct store_ops sq_ops = {
	.name = "sqlite",
	.close = sq_close,
	.get = sqlite_get,
	.list = sqlite_list,
	.commit = sqlite_commit,
	.compact = sqlite_compact,
	.status = sqlite_status,
	.watch_open = sqlite_watch_open,
	.watch_next = sqlite_watch_next,
	.watch_close = sqlite_watch_close,
};
