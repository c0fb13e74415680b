/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders for the stores of tests, removed with what is in them: below $TMPDIR, or else in memory, where syncing costs
 * nothing. What a killed process wrote is in the kernel there as well as on a disk.
 */
#pragma once

#include "base/test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct place {
	char folder[200];
	char path[240]; /* of the store */
};

static inline void place_set(struct place *p, const char *folder)
{
	snprintf(p->folder, sizeof(p->folder), "%s", folder);
	snprintf(p->path, sizeof(p->path), "%s/store.db", p->folder);
}

static inline void place_make(struct place *p)
{
	const char *tmp = getenv("TMPDIR");
	char folder[200];

	snprintf(folder, sizeof(folder), "%s/tidegate-store-XXXXXX",
		tmp					? tmp
			: access("/dev/shm", W_OK) == 0 ? "/dev/shm"
							: "/tmp");
	assert_non_null(mkdtemp(folder));
	place_set(p, folder);
}

/* Remove the files but not the folder. */
static inline void place_empty(const struct place *p)
{
	DIR *d = opendir(p->folder);
	struct dirent *e;

	assert_non_null(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
	}
	closedir(d);
}

static inline void place_remove(const struct place *p)
{
	place_empty(p);
	assert_int_equal(rmdir(p->folder), 0);
}
