/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker: one thread, pinned to a core, with its own loop, listeners, flows, slabs and counters. Everything it is
 * told comes as mail, and everything it has to say goes as mail to the main thread.
 */
#pragma once

#include "edge/listener.h"
#include "flow/flow.h"
#include "flow/flow_log.h"
#include "io/mailbox.h"

#include <pthread.h>

struct worker;

/* main -> worker: serve this snapshot from now on. It comes back to `acknowledge` when that is so. */
struct mail_apply {
	struct mail mail;
	struct worker *worker;
	struct snapshot *snapshot;			  /* a reference, taken over */
	struct bound_sockets sockets;			  /* listeners to add, taken over */
	nsec_t drain;					  /* how long flows whose rule is gone may go on */
	void (*acknowledge)(struct mail *mail, void *to); /* delivered to the main thread's mailbox; frees the mail */
};

/* main -> worker: no new flows; be done when the last one has ended, at @drain at the latest. Freed by the worker. */
struct mail_stop {
	struct mail mail;
	nsec_t drain; /* from now */
};

/* main -> worker: a pool has a new view. Freed by the worker. */
struct mail_view {
	struct mail mail;
	struct pool_news news;
};

/* main -> worker: an origin is down, sessions on the fast path should notice. Freed by the worker. */
struct mail_origin_down {
	struct mail mail;
	struct endpoint *endpoint; /* a reference */
};

struct worker {
	struct flow_env env;
	struct mailbox mailbox;
	pthread_t thread;
	struct list listeners;
	struct list drains;
	int spare_fd; /* given up for a moment to refuse a connection when there are no descriptors left */
	struct timer accept_retry;
	struct timer stop_timer;
	struct mailbox *main;
	struct mail done; /* to the main thread: this worker has ended */
	int core;	  /* to be pinned to; -1: not pinned */
};

/**
 * worker_new() - everything but the thread
 * @snapshot:  a reference is taken
 * @sockets:   its first listeners; taken over, the list left empty
 * @max_flows: room for TCP flows and for UDP sessions, each
 * @udp_fast:  for UDP sessions; shared by all workers, or NULL
 * @tcp_fast:  the same for TCP flows
 * @core:      to be pinned to, or -1
 *
 * Return: 0; -errno.
 */
MUST_CHECK int worker_new(struct worker **ret_worker, unsigned int index, struct node_state *node, struct flow_log *log,
	struct snapshot *snapshot, struct bound_sockets *sockets, uint32_t max_flows, struct fastpath *udp_fast,
	struct fastpath *tcp_fast, struct mailbox *main, int core);

/** worker_start() - @done is delivered to the main thread when the worker has ended. Return: 0; -errno. */
MUST_CHECK int worker_start(struct worker *w, void (*done)(struct mail *mail, void *to));

/** worker_free() - after its end; NULL is accepted */
void worker_free(struct worker *w);

/* mail.deliver of the messages above */
void worker_apply(struct mail *mail, void *to);
void worker_stop(struct mail *mail, void *to);
void worker_view(struct mail *mail, void *to);
void worker_origin_down(struct mail *mail, void *to);

/** worker_end_left() - deliver of a bare struct mail: the drain time of some origins that were taken out is over. Freed
 * by the worker. */
void worker_end_left(struct mail *mail, void *to);

/** worker_close_unused_udp() - deliver of a bare struct mail: UDP ports without a rule have drained. Freed by the
 * worker. */
void worker_close_unused_udp(struct mail *mail, void *to);
