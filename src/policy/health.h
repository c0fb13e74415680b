/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The health of one origin: what probes and flows have found, made into up or down. A pure state machine; whoever
 * probes brings results and the time.
 *
 *   ASSUMED --- one good probe ---> UP         ASSUMED counts as up: without a check there is nothing better to know,
 *   ASSUMED, UP --- @fall failed probes in a row ---> DOWN                   and probes must not delay the start
 *   ASSUMED, UP --- @passive_fall failed flows in a row ---> DOWN
 *   DOWN --- @rise good probes in a row ---> UP, with a slow start
 *
 * Flows bring an origin down but never up: while it is down it gets none. So whoever sets passive_fall has to probe, if
 * only origins that are down. A probe that the edge could not send (HEALTH_FAULT) is noted and moves nothing: a node
 * without file descriptors must not declare its origins dead.
 */
#pragma once

#include "base/clock.h"

enum health_reason {
#define HEALTH(id, word, help) HEALTH_##id,
#include "tables/health_reason.def"
	HEALTH_REASONS,
};

enum health_state { HEALTH_ASSUMED, HEALTH_UP, HEALTH_DOWN };

struct health_policy {
	uint32_t rise;	       /* good probes in a row; 0 is taken for 1 */
	uint32_t fall;	       /* failed probes in a row; 0 is taken for 1 */
	uint32_t passive_fall; /* failed flows in a row; 0: flows say nothing */
	nsec_t slow_start;     /* how long a recovered origin gets less than its share; 0 = off */
};

struct health {
	enum health_state state;
	enum health_reason reason; /* why it is DOWN, the latest finding; HEALTH_OK while up */
	enum health_reason last;   /* what the last check has found, of probes and failed flows */
	nsec_t since;		   /* of being up or down; the start of the process for ASSUMED and what follows it */
	nsec_t checked;		   /* time of the last probe's end; valid when probes is not 0 */
	nsec_t latency;		   /* of the last good probe, ns; valid when probes_ok is not 0 */
	uint32_t good_row, failed_row; /* probes, one of them is 0 */
	uint32_t passive_row;	       /* failed flows since the last good one */
	bool recovered;		       /* was down before: slow start applies */
	uint64_t probes_ok, probes_failed, passive_failed, went_down, went_up;
};

/** health_init() - an origin of which nothing is known yet. @now: for since */
void health_init(struct health *h, nsec_t now);

/** health_is_up() - whether it may get new flows */
static inline bool health_is_up(const struct health *h)
{
	return h->state != HEALTH_DOWN;
}

/**
 * health_probe() - the result of a probe
 * @reason:  HEALTH_OK, or what went wrong
 * @latency: ns from its beginning to the answer; of good probes
 *
 * Return: whether the origin went from up to down or back.
 */
bool health_probe(
	struct health *h, const struct health_policy *policy, enum health_reason reason, nsec_t latency, nsec_t now);

/**
 * health_passive() - a flow found the origin failing
 * @reason: HEALTH_PASSIVE_CONNECT or HEALTH_PASSIVE_UNREACHABLE
 *
 * Return: whether the origin went down.
 */
bool health_passive(struct health *h, const struct health_policy *policy, enum health_reason reason, nsec_t now);

/** health_passive_ok() - a flow was connected, or a session answered: failed flows are counted from 0 again */
void health_passive_ok(struct health *h);

enum { HEALTH_SHARE_FULL = 256 };

/**
 * health_share() - which part of its weight an origin gets, in 1/HEALTH_SHARE_FULL
 *
 * Grows linearly over slow_start after a recovery. For weight * share with the integer
 * algorithms of balance.h, so weights have to be less than 2^24.
 *
 * Return: 0 when down; 1 to HEALTH_SHARE_FULL when up, HEALTH_SHARE_FULL if it never was down.
 */
uint32_t health_share(const struct health *h, const struct health_policy *policy, nsec_t now);

/**
 * health_next() - when to probe next
 * @interval: ns, at least 10
 * @seed:     hash of what is probed: the same for the life of the process
 * @now:      0 or more; if a timer can be early, the time it was set for
 *
 * Probes of an origin have fixed places on the time axis: k * @interval, plus an offset within the interval that @seed
 * gives, plus a jitter of up to a tenth of the interval either way that @seed and k give. So origins start spread over
 * an interval (the first probe is at most 1.2 intervals away), stay spread whatever probes last, since nothing adds up,
 * and two origins that meet part again. Between two probes lie 0.8 to 1.2 intervals. Nothing is remembered.
 *
 * Return: the first such time after @now.
 */
nsec_t health_next(nsec_t interval, uint64_t seed, nsec_t now);

/** health_reason_word() - as in messages and metrics */
const char *health_reason_word(enum health_reason reason);

/** health_reason_help() - a phrase that explains it */
const char *health_reason_help(enum health_reason reason);

/** health_state_word() - "assumed", "up" or "down" */
const char *health_state_word(enum health_state state);
