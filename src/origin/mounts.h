/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/macros.h"

enum { MOUNTS_OK, MOUNTS_E_NONE };

/**
 * mounts_find() - where the first file system of a kind is mounted
 * @type:     as in /proc/mounts, such as "cgroup2"
 * @ret_path: receives the folder, NUL-terminated; on failure it is untouched
 *
 * Return: MOUNTS_OK; MOUNTS_E_NONE when there is none, or its path does not fit; -errno.
 */
MUST_CHECK int mounts_find(const char *type, char *ret_path, size_t size);
