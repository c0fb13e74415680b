/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/mounts.h"
#include "base/error.h"

#include <errno.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>

int mounts_find(const char *type, char *ret_path, size_t size)
{
	FILE *f = setmntent("/proc/mounts", "re");
	int r = MOUNTS_E_NONE;
	char line[4096];
	struct mntent entry;

	if (!f)
		return fault(-errno);
	while (r == MOUNTS_E_NONE && getmntent_r(f, &entry, line, sizeof(line))) {
		if (strcmp(entry.mnt_type, type) != 0 || strlen(entry.mnt_dir) >= size)
			continue;
		memccpy(ret_path, entry.mnt_dir, 0, size);
		r = MOUNTS_OK;
	}
	endmntent(f);
	return r;
}
