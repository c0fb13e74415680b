/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading the toa_recv programs onto a cgroup. What is loaded is pinned in a folder of the BPF file system, the state,
 * so that it outlives whoever loaded it; each function here finds it there. A state has these files:
 *
 *   established, name4, name6, lookup   links: while they are there, the programs are attached
 *   trust, counters, settings           maps
 */
#pragma once

#include "base/addr.h"
#include "base/text.h"
#include "bpf/shared.h"

struct toa_recv_options {
	const char *state;  /* folder to be made; its parent is in the BPF file system */
	const char *cgroup; /* folder of a cgroup v2 file system */
	const struct prefix *trust;
	size_t trust_count; /* 1 to TOA_TRUST_MAX */
	uint8_t kind_v4;
	uint8_t kind_v6;
	bool save_syn; /* listeners that begin later keep the SYN of their connections */
	bool lookup;   /* answer TOA_SO_GET_LOOKUP; costs each getsockopt() of the cgroup a little */
};

/* What becomes of the hooks, in the order of the file names above. */
enum toa_recv_hook { TOA_RECV_ESTABLISHED, TOA_RECV_NAME4, TOA_RECV_NAME6, TOA_RECV_LOOKUP, TOA_RECV_HOOK_N };

struct toa_recv_status {
	struct toa_settings settings;
	uint64_t cgroup_ids[TOA_RECV_HOOK_N]; /* where each hook is attached now; 0: it is not */
	struct prefix *trust;		      /* in no special order; free() it */
	size_t trust_count;
};

enum {
	TOA_RECV_OK,
	TOA_RECV_E_STARTED,	/* there is a state in this folder already */
	TOA_RECV_E_NOT_STARTED, /* there is none */
	TOA_RECV_E_BROKEN,	/* there is one, but not all of it, or it is another version's */
};

/**
 * toa_recv_start() - load, attach and pin; of what was done before a failure nothing is left
 * @ret_why: unless it worked, one line for people
 *
 * Return: TOA_RECV_OK; TOA_RECV_E_STARTED; -errno.
 */
MUST_CHECK int toa_recv_start(const struct toa_recv_options *options, struct text *ret_why);

/**
 * toa_recv_stop() - detach and remove the state; on return no hook runs for new calls any more
 * @ret_why: unless it worked, one line for people
 *
 * Also removes what a start that was killed has left. Whatever else is in the folder stays, and is a fault.
 *
 * Return: TOA_RECV_OK; TOA_RECV_E_NOT_STARTED; -errno.
 */
MUST_CHECK int toa_recv_stop(const char *state, struct text *ret_why);

/**
 * toa_recv_set_trust() - other prefixes than those of the start; those that stay are trusted all the time
 *
 * Return: as toa_recv_read_status().
 */
MUST_CHECK int toa_recv_set_trust(const char *state, const struct prefix *trust, size_t count, struct text *ret_why);

/**
 * toa_recv_read_status() - what is attached, where, since when
 * @ret_why: unless it worked, one line for people
 *
 * Return: TOA_RECV_OK; TOA_RECV_E_NOT_STARTED; TOA_RECV_E_BROKEN; -errno.
 */
MUST_CHECK int toa_recv_read_status(const char *state, struct toa_recv_status *ret_status, struct text *ret_why);

/**
 * toa_recv_read_counters() - what each possible processor has counted
 * @ret_counters: an array for free(), one element for each processor
 *
 * Return: as toa_recv_read_status().
 */
MUST_CHECK int toa_recv_read_counters(
	const char *state, struct toa_counters **ret_counters, size_t *ret_count, struct text *ret_why);
