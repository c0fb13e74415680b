/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Active health checks. A target is an address that is checked in one way; however many groups have it so, it is
 * probed once. Lives in the main thread: a probe is a socket in its loop, never a thread that waits.
 *
 * Timers: one a target, for the next probe, and while a probe is under way for its time-out.
 */
#pragma once

#include "flow/flow.h"
#include "policy/health.h"

struct checker;

enum { CHECKER_PROBES_MAX = 1024 }; /* under way at one time; a file descriptor each, out of those for flows */

struct target {
	struct list node;  /* in its bucket */
	struct list users; /* what the owner has put there */
	struct checker *checker;
	struct addr addr;
	struct check_settings check;
	uint32_t passive_fails;
	unsigned int references;
	struct health health;
	uint64_t seed; /* of its place in the interval */
	struct timer timer;
	struct source source;
	struct list waiting; /* in checker.waiting: too many probes are under way */
	struct grave grave;
	nsec_t began;
	nsec_t down_since;
	int fd; /* -1: no probe is under way */
};

/** checker_new() - @changed is told when a target went down or came up. Return: 0; -ENOMEM. */
MUST_CHECK int checker_new(struct loop *loop, struct node_state *node,
	void (*changed)(void *owner, struct target *target), void *owner, struct checker **ret_checker);

/** checker_free() - all targets were let go of; NULL is accepted */
void checker_free(struct checker *c);

/**
 * checker_watch() - the target of an address, made if there is none
 * @addr: with the port that is to be checked
 *
 * Return: a reference for checker_unwatch(); NULL when memory is out.
 */
struct target *checker_watch(
	struct checker *c, const struct addr *addr, const struct check_settings *check, uint32_t passive_fails);

/** checker_unwatch() - with the last reference the checks end; NULL is accepted */
void checker_unwatch(struct target *t);

/** checker_failed() - flows to the target fail: it is down until a probe succeeds */
void checker_failed(struct target *t, enum protocol protocol);

/** target_is_down() - its present state */
static inline bool target_is_down(const struct target *t)
{
	return !health_is_up(&t->health);
}
