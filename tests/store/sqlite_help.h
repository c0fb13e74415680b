/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the SQLite store share. */
#pragma once

#include "place.h"
#include "control/store_sqlite.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

static inline struct store *must_open(const struct store_sqlite_options *options)
{
	char reason[STORE_REASON_SIZE] = "";
	struct store *store = NULL;
	int r = store_sqlite_open(options, &store, reason);

	if (r)
		fail_msg("open: %d: %s", r, reason);
	return store;
}

/* A whole file; the caller frees it. */
static inline char *read_file(const char *path, size_t *ret_size)
{
	FILE *in = fopen(path, "r");
	struct stat st;
	char *bytes;

	assert_non_null(in);
	assert_int_equal(fstat(fileno(in), &st), 0);
	bytes = malloc((size_t)st.st_size + 1);
	assert_int_equal(fread(bytes, 1, (size_t)st.st_size, in), st.st_size);
	fclose(in);
	*ret_size = (size_t)st.st_size;
	return bytes;
}

static inline void write_file(const char *path, const char *bytes, size_t size)
{
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(fwrite(bytes, 1, size, out), size);
	assert_int_equal(fclose(out), 0);
}

/* Copy the files as they are now, as a killed process would leave them; the index in PATH-shm is made anew. */
static inline void copy_store(const struct place *from, const struct place *to)
{
	static const char *const suffixes[] = { "", "-wal", ".lock" };

	place_empty(to);
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char path[260];
		size_t size;
		char *bytes;

		snprintf(path, sizeof(path), "%s%s", from->path, suffixes[i]);
		if (access(path, F_OK) != 0)
			continue;
		bytes = read_file(path, &size);
		snprintf(path, sizeof(path), "%s%s", to->path, suffixes[i]);
		write_file(path, bytes, size);
		free(bytes);
	}
}
