/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file layer for SQLite that fails as asked: the n-th operation, or for want of room; and that knows what would be on
 * the disk if the power were cut now. It never waits for the disk. For one thread.
 */
#pragma once

#include "base/test.h"

#define FAULT_VFS "fault"

enum fault_operation {
	FAULT_READ = 1 << 0,
	FAULT_WRITE = 1 << 1,
	FAULT_SYNC = 1 << 2,
	FAULT_TRUNCATE = 1 << 3,
	FAULT_OPEN = 1 << 4, /* and delete, and access */
	FAULT_SHM = 1 << 5,
	FAULT_CHANGES = FAULT_WRITE | FAULT_SYNC | FAULT_TRUNCATE,
	FAULT_ALL = (1 << 6) - 1,
};

/* What is to happen; zeros for nothing. */
struct fault_plan {
	unsigned int operations; /* which count and may fail */
	uint64_t at;		 /* the number of the first that fails, from 1; 0: none */
	uint64_t count;		 /* how many fail from there on */
	bool full;		 /* a write fails for want of room, not by an I/O error */
	bool torn;		 /* half of a write that fails is written */
	bool bounded;		 /* files may grow together by */
	uint64_t room_bytes;
	void (*before)(void *arg); /* NULL, or called before each write, sync and truncation */
	void *arg;
};

extern struct fault_plan fault_plan;

/** fault_vfs_register() - make it known to SQLite; may be called again */
void fault_vfs_register(void);

/** fault_set() - from now on */
void fault_set(const struct fault_plan *plan);

/** fault_counted() - how many operations have counted since fault_set() */
uint64_t fault_counted(void);

/** fault_record() - keep what fault_power_cut() needs of the stores in @folder, none of which is open; "" ends it */
void fault_record(const char *folder);

/**
 * fault_power_cut() - write the files as a disk may have them when the power is cut now: of what was written since the
 * last sync of its file, sectors are there or not, at random
 */
void fault_power_cut(const char *folder, struct test_random *random);
