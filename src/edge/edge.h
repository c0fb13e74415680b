/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process: what the main thread owns. Signals, the control socket, names, and changes of configuration are its
 * work; it never touches a flow.
 */
#pragma once

#include "bpf/fastpath/fastpath.h"
#include "bpf/steer/steer.h"
#include "bpf/toa_send/toa_send.h"
#include "edge/options.h"
#include "edge/port_map.h"
#include "edge/pools.h"
#include "edge/worker.h"

#include <limits.h>
#include <pthread.h>

struct control_socket;
struct metrics;

struct reload_stats {
	counter applied;
	counter refused;
	counter last_apply_us; /* from the text being read to the last worker serving it */
};

/* What a reload was asked for by, to be told how it went. */
struct reload_waiter {
	struct list node;
	void (*told)(struct reload_waiter *waiter, bool applied, const char *text);
};

struct edge {
	struct options options;
	struct loop loop;
	struct mailbox mailbox;
	struct node_state node;
	struct flow_log_writer log;
	struct resolver *resolver;
	struct pools *pools;
	struct steer *steer;	   /* NULL: plain binds */
	const char *steering;	   /* "bpf", or why not */
	struct fastpath *fastpath; /* NULL: everything stays in user space */
	char fastpath_state[160];  /* of UDP: "on", or why not */
	char tcp_fastpath_state[160];
	struct toa_send *toa;	  /* NULL: pass mode toa can't be had */
	char toa_state[PATH_MAX]; /* "on", or why not */
	struct worker *workers[OPTIONS_WORKERS_MAX];
	unsigned int workers_running;
	struct control_socket *control;
	struct metrics *metrics;
	nsec_t started;

	/* configuration, changed by apply.c only */
	pthread_mutex_t snapshot_lock; /* the pointer: the metrics thread takes a reference under it */
	struct snapshot *snapshot;
	struct access_cache access;
	uint64_t version;
	struct port_map held;	     /* ports that are steered or bound now */
	struct port_map serve_next;  /* of the snapshot being applied */
	struct timer drain_timer;    /* ports of removed UDP rules are let go when it fires */
	unsigned int unacknowledged; /* workers that have not taken the new snapshot yet */
	bool from_state;   /* the last good configuration is served, since the present one was wrong at the start */
	bool reload_again; /* asked for while another one was under way */
	nsec_t reload_began;
	struct list reload_waiters; /* of the reload under way */
	struct list reload_waiters_next;
	struct reload_stats reloads;
	unsigned int stops; /* SIGTERMs seen */
};
