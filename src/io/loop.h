/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop of a thread: epoll, edge-triggered (but for sources that are read one piece at a time anyway).
 *
 * A source is added once with everything it will ever want to hear, and taken out by closing its fd: one epoll_ctl
 * for its life. So a source has to remember what the kernel said (readable until a read came back short, writable
 * until a write did), and one that stops early, to let others go first, asks with loop_again() to be called once more
 * in the next turn.
 *
 * The kernel may still have events in the current batch for a source that has just been closed. Memory that holds a
 * source is therefore never freed at once but given to loop_bury(), and freed at the end of the turn.
 */
#pragma once

#include "base/clock.h"
#include "base/list.h"
#include "io/timer.h"

#include <sys/epoll.h>

struct source {
	/* @events: EPOLLIN | EPOLLOUT …; 0 when called because of loop_again() */
	void (*ready)(struct source *source, uint32_t events);
	struct list again;
};

struct grave {
	struct grave *next;
	void (*bury)(struct grave *grave);
};

struct loop {
	int epoll_fd;
	bool stopped;
	nsec_t now;    /* when this turn began */
	uint32_t turn; /* its number */
	struct timers timers;
	struct list again;
	struct grave *graves;
	void (*turn_done)(struct loop *loop); /* NULL, or called at the end of each turn */
};

/** loop_init() - Return: 0; -errno. */
MUST_CHECK int loop_init(struct loop *l);

/** loop_deinit() - bury what is left, close epoll. Sources that are still open are the caller's. */
void loop_deinit(struct loop *l);

/** source_init() - before loop_add() */
void source_init(struct source *s, void (*ready)(struct source *source, uint32_t events));

/**
 * loop_add() - hear of events on @fd, edge-triggered, until it is closed
 * @events: EPOLLIN and so on, without EPOLLET
 *
 * Return: 0; -errno.
 */
MUST_CHECK int loop_add(struct loop *l, int fd, struct source *s, uint32_t events);

/** loop_add_level() - the same, level-triggered: events come as long as they hold. Return: 0; -errno. */
MUST_CHECK int loop_add_level(struct loop *l, int fd, struct source *s, uint32_t events);

/** loop_again() - call @s in the next turn, with events 0. Asking twice is asking once. */
void loop_again(struct loop *l, struct source *s);

/** loop_forget() - the source is about to be buried: take back its loop_again() */
void loop_forget(struct source *s);

/** loop_bury() - call @bury at the end of this turn */
void loop_bury(struct loop *l, struct grave *g, void (*bury)(struct grave *grave));

/** loop_turn() - wait at most @timeout_ms (-1: until something happens) and handle one batch. Return: 0; -errno. */
MUST_CHECK int loop_turn(struct loop *l, int timeout_ms);

/** loop_run() - turns until loop_stop(). Return: 0; -errno. */
MUST_CHECK int loop_run(struct loop *l);

/** loop_stop() - make loop_run() return after this turn */
static inline void loop_stop(struct loop *l)
{
	l->stopped = true;
}
