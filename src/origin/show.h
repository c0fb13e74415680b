/* SPDX-License-Identifier: Apache-2.0 */
/* What status and stats print. */
#pragma once

#include "bpf/toa_recv/toa_recv.h"
#include "origin/options.h"

/** show_status() - @format: text or JSON */
void show_status(const struct toa_recv_status *status, enum format format, struct text *out);

/** show_is_attached() - whether every hook that was wanted is attached where it was wanted */
bool show_is_attached(const struct toa_recv_status *status);

/**
 * show_stats() - the counters of each processor
 * @counters, @count: of all possible processors
 * @online:           a flag for each: text leaves out those that are not, as the kernel modules do
 */
void show_stats(
	const struct toa_counters *counters, size_t count, const bool *online, enum format format, struct text *out);

/**
 * show_online() - read a list of processors such as "0-3,5\n"
 * @ret_online: receives a flag for each of @count processors
 *
 * Return: 0; -EINVAL.
 */
MUST_CHECK int show_online(const char *list, bool *ret_online, size_t count);
