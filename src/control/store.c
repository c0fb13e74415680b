/* SPDX-License-Identifier: Apache-2.0 */
/* What all implementations of the store share: their arguments are checked here, so that limits are the same. */
#include "control/store.h"
#include "base/error.h"
#include "base/key_map.h"

#include <string.h>

const char *store_outcome_text(int outcome)
{
	static const char *const texts[] = {
		[STORE_OK] = "done",
#define OUTCOME(id, help) [STORE_E_##id] = (help),
#include "tables/store_outcome.def"
	};

	return outcome >= 0 && (size_t)outcome < ARRAY_SIZE(texts) ? texts[outcome] : "unknown";
}

/* The length of a key, or 0 when it is none. */
static size_t key_length(const char *key)
{
	size_t n = strnlen(key, STORE_KEY_MAX + 1);

	if (n < 2 || n > STORE_KEY_MAX || key[0] != '/' || key[n - 1] == '/')
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (key[i] <= ' ' || key[i] > '~' || (key[i] == '/' && key[i + 1] == '/'))
			return 0;
	}
	return n;
}

bool store_key_valid(const char *key)
{
	return key_length(key) != 0;
}

static bool prefix_valid(const char *prefix)
{
	size_t n = strnlen(prefix, STORE_KEY_MAX + 1);
	char key[STORE_KEY_MAX];

	if (n == 0 || n > STORE_KEY_MAX || prefix[n - 1] != '/')
		return false;
	if (n == 1)
		return true;
	memcpy(key, prefix, n - 1);
	key[n - 1] = '\0';
	return store_key_valid(key);
}

static int check_writes(const struct store_transaction *t)
{
	struct key_map keys = { 0 };
	size_t bytes = 0;
	int r = STORE_OK;

	for (size_t i = 0; i < t->write_count && r == STORE_OK; i++) {
		const struct store_write *w = &t->writes[i];
		size_t length = key_length(w->key);
		uint32_t other;

		if (length == 0) {
			r = STORE_E_BAD_KEY;
		} else if (w->value && w->length > STORE_VALUE_MAX) {
			r = STORE_E_VALUE_TOO_LONG;
		} else {
			bytes += length + (w->value ? w->length : 0);
			r = key_map_put(&keys, w->key, length, (uint32_t)i, &other);
			if (r == KEY_MAP_E_EXISTS)
				r = STORE_E_DUPLICATE;
		}
	}
	if (r == STORE_OK && bytes > STORE_TRANSACTION_BYTES_MAX)
		r = STORE_E_TOO_LARGE;
	key_map_free(&keys);
	return r;
}

static int check_transaction(const struct store_transaction *t)
{
	if (t->condition_count > STORE_CONDITIONS_MAX || t->write_count > STORE_WRITES_MAX)
		return STORE_E_TOO_MANY;
	for (size_t i = 0; i < t->condition_count; i++) {
		if (!store_key_valid(t->conditions[i].key))
			return STORE_E_BAD_KEY;
	}
	return check_writes(t);
}

void store_close(struct store *store)
{
	if (store)
		store->ops->close(store);
}

int store_get(struct store *store, const char *key, struct store_page *ret_page)
{
	struct store_page page = { 0 };
	int r;

	if (!store_key_valid(key))
		return STORE_E_BAD_KEY;
	r = store->ops->get(store, key, &page);
	if (r)
		store_page_free(&page);
	else
		*ret_page = page;
	return r;
}

int store_list(struct store *store, const struct store_query *query, struct store_page *ret_page)
{
	struct store_query q = *query;
	struct store_page page = { 0 };
	int r;

	if (!prefix_valid(q.prefix) || (q.after && !store_key_valid(q.after)))
		return STORE_E_BAD_KEY;
	if (q.limit > STORE_PAGE_ITEMS_MAX)
		return STORE_E_TOO_MANY;
	if (q.limit == 0)
		q.limit = STORE_PAGE_ITEMS_MAX;
	r = store->ops->list(store, &q, &page);
	if (r)
		store_page_free(&page);
	else
		*ret_page = page;
	return r;
}

int store_commit(struct store *store, const struct store_transaction *transaction, uint64_t *ret_revision,
	struct store_conflict *ret_conflict)
{
	struct store_conflict conflict;
	int r = check_transaction(transaction);

	if (r)
		return r;
	r = store->ops->commit(store, transaction, ret_revision, &conflict);
	if (r == STORE_E_CONFLICT && ret_conflict)
		*ret_conflict = conflict;
	return r;
}

int store_compact(struct store *store, uint64_t revision)
{
	return store->ops->compact(store, revision);
}

int store_status(struct store *store, struct store_status *ret_status)
{
	return store->ops->status(store, ret_status);
}

int store_watch_open(struct store *store, const char *prefix, uint64_t since, struct store_watch **ret_watch)
{
	if (!prefix_valid(prefix))
		return STORE_E_BAD_KEY;
	return store->ops->watch_open(store, prefix, since, ret_watch);
}

int store_watch_next(struct store_watch *watch, struct store_changes *ret_changes)
{
	struct store_changes changes = { 0 };
	int r = watch->store->ops->watch_next(watch, &changes);

	if (r)
		store_changes_free(&changes);
	else
		*ret_changes = changes;
	return r;
}

void store_watch_close(struct store_watch *watch)
{
	if (watch)
		watch->store->ops->watch_close(watch);
}

void store_page_free(struct store_page *page)
{
	arena_free(&page->arena);
	*page = (struct store_page){ 0 };
}

void store_changes_free(struct store_changes *changes)
{
	arena_free(&changes->arena);
	*changes = (struct store_changes){ 0 };
}
