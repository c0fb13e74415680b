/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance suite over SQLite. */
#include "conformance.h"
#include "place.h"
#include "control/store_sqlite.h"

static void *sqlite_place_new(void)
{
	struct place *p = calloc(1, sizeof(*p));

	place_make(p);
	return p;
}

static struct store *sqlite_open(void *place)
{
	struct place *p = place;
	struct store_sqlite_options options = { .path = p->path };
	char reason[STORE_REASON_SIZE] = "";
	struct store *store = NULL;
	int r = store_sqlite_open(&options, &store, reason);

	if (r)
		fail_msg("%d: %s", r, reason);
	return store;
}

static void sqlite_place_free(void *place)
{
	place_remove(place);
	free(place);
}

int main(void)
{
	static const struct store_maker maker = { "sqlite", sqlite_place_new, sqlite_open, sqlite_place_free };

	return store_conformance(&maker);
}
