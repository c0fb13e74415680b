/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store on one machine: a SQLite database, used by one process at a time. Beside the file PATH stand SQLite's
 * PATH-wal and PATH-shm, and PATH.lock, which says who has the store open and up to which revision transactions have
 * been acknowledged.
 */
#pragma once

#include "control/store.h"

enum {
	STORE_REASON_SIZE = 512,
	/* what an option of 0 stands for */
	STORE_SQLITE_HISTORY_REVISIONS = 10000,
	STORE_SQLITE_CHECKPOINT_PAGES = 1000,
	STORE_SQLITE_BUSY_TIMEOUT_MS = 5000,
};
#define STORE_SQLITE_HISTORY_BYTES (UINT64_C(64) << 20)
#define STORE_SQLITE_LIVE_BYTES	   (UINT64_C(1) << 30)

/* All but path may be 0. */
struct store_sqlite_options {
	const char *path;
	const char *vfs;	    /* SQLite's name of the file layer; for tests */
	uint64_t history_revisions; /* kept at least, unless their bytes are too many; at most 256 more */
	uint64_t history_bytes;	    /* of superseded values, beyond which the oldest history goes */
	uint64_t live_bytes;	    /* keys and values that the store holds at most: STORE_E_FULL */
	int checkpoint_pages;	    /* pages in the write-ahead log from which on they are moved to the database */
	int busy_timeout_ms;	    /* how long to wait when another program has locked the database: -EBUSY */
};

/**
 * store_sqlite_open() - open a store, or make a new one where there is none
 * @ret_store:  store_close()
 * @ret_reason: what was found and what to do, unless the answer is 0; untouched then
 *
 * Reads and checks everything that is stored. A store that is damaged is not opened, nor one that misses transactions
 * which had been acknowledged.
 *
 * Return: 0; -errno; STORE_E_LOCKED; STORE_E_NEWER; STORE_E_FOREIGN; STORE_E_CORRUPT.
 */
MUST_CHECK int store_sqlite_open(const struct store_sqlite_options *options, struct store **ret_store,
	char ret_reason[static STORE_REASON_SIZE]);
