/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where control keeps its objects: a map from keys to values with revisions, behind which stands SQLite on one machine
 * (store_sqlite.h) or another implementation of struct store_ops. All of them pass tests/store/conformance.c.
 *
 * Keys are paths: '/' and a name, once or several times, as /sites/zone-1/proxies/sid-2. Values are bytes; what they
 * mean (JSON documents) is not the store's business. A prefix is "/" for everything, or a key and '/' for all that is
 * below it.
 *
 * Every transaction that changes anything gives the store a new revision, which is greater than all before, also over
 * restarts; it need not be the next number. The revision of an item is that of the transaction that last wrote it.
 * Reads see whole transactions only, and every one that was acknowledged before the read began.
 *
 * History: the store can still tell what it held and what changed at past revisions, until it compacts them. Who comes
 * too late is answered STORE_E_COMPACTED, never with a part.
 *
 * All calls may come from any thread. Exceptions: a watch belongs to one thread at a time, and store_close() to the
 * last.
 *
 * Results: 0 done; <0 a fault of this call, nothing has been changed, and later calls may work again (-ENOSPC: the disk
 * is full; -EIO; -ENOMEM; -EBUSY: another program kept the database locked; others of the implementation's system
 * calls); >0 one of enum store_outcome. Every call may answer STORE_E_CORRUPT; the others are named where they can
 * come.
 */
#pragma once

#include "base/arena.h"

enum store_outcome {
	STORE_OK,
#define OUTCOME(id, ...) STORE_E_##id,
#include "tables/store_outcome.def"
};

/* Limits, and what is answered beyond them. */
enum {
	STORE_KEY_MAX = 256,		       /* bytes of a key or prefix: STORE_E_BAD_KEY */
	STORE_VALUE_MAX = 1 << 20,	       /* bytes: STORE_E_VALUE_TOO_LONG */
	STORE_CONDITIONS_MAX = 4096,	       /* of a transaction: STORE_E_TOO_MANY */
	STORE_WRITES_MAX = 4096,	       /* of a transaction: STORE_E_TOO_MANY */
	STORE_TRANSACTION_BYTES_MAX = 8 << 20, /* keys and values that it writes: STORE_E_TOO_LARGE */
	STORE_PAGE_ITEMS_MAX = 1000,	       /* asked of store_list(): STORE_E_TOO_MANY */
	STORE_PAGE_BYTES_MAX = 4 << 20, /* a page or batch with as much takes no further item: more is said to come */
	STORE_WATCHES_MAX = 1000,	/* open at a time: STORE_E_TOO_MANY */
};

struct store {
	const struct store_ops *ops;
};

struct store_item {
	const char *key;
	const char *value; /* a NUL follows, which is not counted; NULL: it was deleted (in changes only) */
	size_t length;
	uint64_t revision; /* that last wrote it */
	uint64_t created;  /* revision at which it came to be; 0 when it was deleted */
};

/* Items in the order of their keys' bytes. */
struct store_page {
	struct arena arena;
	struct store_item *items;
	size_t count;
	uint64_t revision; /* what all of it is true at; the pages after it are asked for with this */
	bool more;	   /* there are items behind the last */
};

/* Changes in the order of their revisions, those of one revision in the order of the transaction's writes. */
struct store_changes {
	struct arena arena;
	struct store_item *items;
	size_t count;
	uint64_t revision; /* every change up to here has been told */
};

struct store_query {
	const char *prefix;
	const char *after; /* NULL, or the last key of the page before */
	uint64_t revision; /* 0: the newest; or that of the first page */
	size_t limit;	   /* items, 1 to STORE_PAGE_ITEMS_MAX; 0 stands for the most */
};

struct store_condition {
	const char *key;
	uint64_t revision; /* of the item; 0: there is none */
};

struct store_write {
	const char *key;
	const char *value; /* NULL: delete; of an absent key that changes nothing */
	size_t length;
};

struct store_transaction {
	const struct store_condition *conditions;
	size_t condition_count;
	const struct store_write *writes;
	size_t write_count;
};

struct store_conflict {
	size_t index;	   /* of the first condition that does not hold */
	uint64_t revision; /* of its key now; 0: there is none */
};

struct store_status {
	uint64_t revision;	   /* of the newest transaction, or what the store began with */
	uint64_t compacted;	   /* the oldest revision that can be asked about */
	uint64_t live_bytes;	   /* keys and values that the store holds now; 0 when that is not known */
	uint64_t superseded_bytes; /* and those of history; the same */
};

struct store_watch {
	struct store *store;
	int fd;
	char prefix[STORE_KEY_MAX + 1];
};

/*
 * What an implementation provides. Arguments have been checked: keys, prefixes and limits are valid, @limit is not 0,
 * no key is written twice. Pages and changes are all-zero when they come, and freed by the caller on failure.
 */
struct store_ops {
	const char *name;
	void (*close)(struct store *store);
	int (*get)(struct store *store, const char *key, struct store_page *page);
	int (*list)(struct store *store, const struct store_query *query, struct store_page *page);
	int (*commit)(struct store *store, const struct store_transaction *transaction, uint64_t *ret_revision,
		struct store_conflict *ret_conflict);
	int (*compact)(struct store *store, uint64_t revision);
	int (*status)(struct store *store, struct store_status *ret_status);
	int (*watch_open)(struct store *store, const char *prefix, uint64_t since, struct store_watch **ret_watch);
	int (*watch_next)(struct store_watch *watch, struct store_changes *changes);
	void (*watch_close)(struct store_watch *watch);
};

/** store_outcome_text() - what an outcome means, for people */
const char *store_outcome_text(int outcome);

/** store_key_valid() - whether @key is a path of at most STORE_KEY_MAX bytes of printable ASCII without spaces */
bool store_key_valid(const char *key);

/** store_close() - all watches must have been closed; NULL is accepted */
void store_close(struct store *store);

/**
 * store_get() - the newest value of a key
 * @ret_page: one item; store_page_free()
 *
 * Return: 0; -errno; STORE_E_ABSENT; STORE_E_BAD_KEY.
 */
MUST_CHECK int store_get(struct store *store, const char *key, struct store_page *ret_page);

/**
 * store_list() - a page of the items below a prefix
 * @ret_page: store_page_free()
 *
 * A list is read by calling again with @query->after the last key and @query->revision the page's revision, as long as
 * the page says that there is more. All pages together are what the store held at that revision. A page may have fewer
 * items than asked for and still say that there are more, but has at least one then.
 *
 * Return: 0; -errno; STORE_E_COMPACTED; STORE_E_FUTURE; STORE_E_BAD_KEY; STORE_E_TOO_MANY.
 */
MUST_CHECK int store_list(struct store *store, const struct store_query *query, struct store_page *ret_page);

/**
 * store_commit() - carry out all writes of a transaction if all its conditions hold, else nothing
 * @ret_revision: the store's revision after it; unchanged by a transaction that changes nothing
 * @ret_conflict: on STORE_E_CONFLICT; may be NULL
 *
 * When it returns 0, the transaction survives a crash of the program and of the machine. A put of the value that a key
 * already has is a change.
 *
 * Return: 0; -errno; STORE_E_CONFLICT; STORE_E_UNSURE; STORE_E_BAD_KEY; STORE_E_VALUE_TOO_LONG; STORE_E_TOO_MANY;
 * STORE_E_TOO_LARGE; STORE_E_DUPLICATE; STORE_E_FULL.
 */
MUST_CHECK int store_commit(struct store *store, const struct store_transaction *transaction, uint64_t *ret_revision,
	struct store_conflict *ret_conflict);

/**
 * store_compact() - let go what is known of revisions before @revision; implementations also do so by themselves
 *
 * Return: 0; -errno; STORE_E_FUTURE; STORE_E_COMPACTED when it is behind what has been compacted already.
 */
MUST_CHECK int store_compact(struct store *store, uint64_t revision);

/** store_status() - Return: 0; -errno. */
MUST_CHECK int store_status(struct store *store, struct store_status *ret_status);

/**
 * store_watch_open() - hear of changes below a prefix
 * @since:     the first change told is the first one after this revision: give it that of a list
 * @ret_watch: store_watch_close()
 *
 * Return: 0; -errno; STORE_E_COMPACTED; STORE_E_FUTURE; STORE_E_BAD_KEY; STORE_E_TOO_MANY.
 */
MUST_CHECK int store_watch_open(
	struct store *store, const char *prefix, uint64_t since, struct store_watch **ret_watch);

/** store_watch_fd() - becomes readable when store_watch_next() may have something; for loop_add(). The watch's own. */
static inline int store_watch_fd(const struct store_watch *watch)
{
	return watch->fd;
}

/**
 * store_watch_next() - the next changes: of whole transactions, each once, in order
 * @ret_changes: at least one; store_changes_free()
 *
 * It never waits. After STORE_E_NOTHING_NEW the descriptor becomes readable (as an edge too) when there is more; who
 * stops before that must call again without being told. A fault loses nothing: the next call goes on where the last one
 * that succeeded had come to. The descriptor may become readable for nothing.
 *
 * Return: 0; -errno; STORE_E_NOTHING_NEW; STORE_E_COMPACTED when the watch came too late, and from then on always.
 */
MUST_CHECK int store_watch_next(struct store_watch *watch, struct store_changes *ret_changes);

/** store_watch_close() - NULL is accepted */
void store_watch_close(struct store_watch *watch);

/** store_page_free() - an all-zero page is accepted, and is left behind */
void store_page_free(struct store_page *page);

/** store_changes_free() - all-zero changes are accepted, and are left behind */
void store_changes_free(struct store_changes *changes);
