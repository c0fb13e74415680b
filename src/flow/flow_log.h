/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flow log: one JSON line for each flow at its end. A worker makes the line and puts it into its ring; one writer
 * thread empties all rings into the file. When the writer can't keep up (full disk, slow pipe) the ring fills and
 * lines are dropped and counted; no worker ever waits.
 */
#pragma once

#include "base/log.h"
#include "base/ring.h"
#include "flow/flow.h"

#include <pthread.h>

enum {
	FLOW_LOG_RING_SIZE = 1 << 20,
	FLOW_LOG_LINE_MAX = 1500,
};

/* A worker's end of the log. */
struct flow_log {
	struct ring ring;
	struct flow_log_writer *writer;
	bool written; /* in this turn of the loop */
};

struct flow_log_writer {
	pthread_t thread;
	bool running;
	const char *path; /* NULL: no log; "-": standard output */
	int fd;
	int wake_fd;
	_Atomic bool asleep;
	_Atomic bool reopen;
	_Atomic bool stop;
	counter lines_lost; /* taken from the rings, but the file would not have them */
	struct log_limit complaint;
	char host[65]; /* the node's name unless it is configured */
	unsigned int workers;
	struct flow_log *logs; /* by worker */
};

/**
 * flow_log_open() - open the file and make the rings; the thread starts with flow_log_start()
 * @path: "-" for standard output; NULL for no log at all
 *
 * Return: 0; -errno.
 */
MUST_CHECK int flow_log_open(struct flow_log_writer *w, const char *path, unsigned int workers);

/** flow_log_start() - Return: 0; -errno. */
MUST_CHECK int flow_log_start(struct flow_log_writer *w);

/** flow_log_reopen() - from any thread: close the file and open its path again, after a rotation */
void flow_log_reopen(struct flow_log_writer *w);

/** flow_log_close() - write what the rings still hold (waiting at most 2 s for a slow reader), end the thread, free all
 */
void flow_log_close(struct flow_log_writer *w);

/** flow_log_write() - the line of a flow that ends now; drops and counts it when the ring is full */
void flow_log_write(struct flow_log *log, const struct flow *f, enum end_reason why, enum end_side side);

/** flow_log_flush() - at the end of a loop's turn: wake the writer if there is something new for it */
void flow_log_flush(struct flow_log *log);
