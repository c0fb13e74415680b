/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing an origin and connecting to it. An attempt that is refused, times out or finds no route is followed by one
 * to another origin of the pool, up to connect_tries; until then not a byte of the client has been read, so nothing
 * can be lost or sent twice. A client that goes away meanwhile ends the flow. With pass mode toa each attempt's socket
 * is given the client's address first, since the connection carries it from its first segment on.
 */
#include "base/error.h"
#include "bpf/toa_send/toa_send.h"
#include "flow/tcp_flow.h"
#include "io/sock.h"
#include "wire/toa.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static const struct rule_settings *settings_of(const struct tcp_flow *f)
{
	return &f->flow.rule->rule->settings;
}

/* Before the origin is connected, the only thing to hear of the client is that it is gone. */
static bool client_gone(struct tcp_flow *f)
{
	return f->side[SIDE_CLIENT].failed;
}

/* No answer for the name yet: wait for it as long as for a connection. */
static enum step wait_for_name(struct tcp_flow *f)
{
	if (f->timed_out)
		return tcp_end(f, END_NO_ORIGIN, END_SIDE_FIRST);
	if (list_empty(&f->waiting)) {
		list_add(&f->flow.rule->pool->slots[f->flow.env->worker].waiting, &f->waiting);
		tcp_timer(f, settings_of(f)->connect_timeout_ms);
	}
	return STEP_WAIT;
}

enum step tcp_pick(struct tcp_flow *f)
{
	if (client_gone(f))
		return tcp_end(f, END_CLIENT_RESET, END_SIDE_FIRST);
	if (f->tries == settings_of(f)->connect_tries)
		return tcp_end(f, (enum end_reason)f->last_failure, END_SIDE_FIRST);
	switch (pool_pick(&f->flow, (struct tried){ f->tried, f->tries })) {
	case POOL_OK:
		break;
	case POOL_E_WAIT:
		return wait_for_name(f);
	case POOL_E_ALL_DOWN:
		return tcp_end(f, END_ALL_DOWN, END_SIDE_FIRST);
	case POOL_E_ALL_TRIED:
		return tcp_end(f, (enum end_reason)f->last_failure, END_SIDE_FIRST);
	default:
		return tcp_end(f, END_NO_ORIGIN, END_SIDE_FIRST);
	}
	timer_stop(&f->timer);
	f->timed_out = false;
	if (f->tries++)
		env_count(f->flow.env, COUNTER_CONNECT_RETRIES);
	return STEP_NEXT;
}

static enum step attempt_failed(struct tcp_flow *f, enum end_reason why)
{
	struct tcp_side *origin = &f->side[SIDE_ORIGIN];

	loop_forget(&origin->source);
	sock_close(origin->fd, true);
	*origin = (struct tcp_side){ .source = origin->source, .fd = -1 };
	source_init(&origin->source, origin->source.ready);
	f->last_failure = (uint8_t)why;
	if (f->tries < ARRAY_SIZE(f->tried) + 1)
		f->tried[f->tries - 1] = f->flow.endpoint->id;
	if (why != END_FAULT)
		pool_failed(&f->flow);
	return STEP_REPICK;
}

static enum step attempt_errno(struct tcp_flow *f, int error)
{
	switch (error) {
	case ECONNREFUSED:
	case ECONNRESET:
		return attempt_failed(f, END_CONNECT_REFUSED);
	case ETIMEDOUT:
		return attempt_failed(f, END_CONNECT_TIMEOUT);
	case EMFILE:
	case ENFILE:
	case ENOMEM:
	case ENOBUFS:
		return attempt_failed(f, END_FAULT);
	default:
		return attempt_failed(f, END_CONNECT_FAILED);
	}
}

/* With pass mode toa: lays the client's address out, to be taken by the kernel during connect(). NULL: it can't be. */
static struct toa_slot *give_toa(struct tcp_flow *f)
{
	const struct rule_settings *settings = settings_of(f);
	uint32_t kind = ip_is_v4(&f->flow.client.ip) ? settings->toa_kind_v4 : settings->toa_kind_v6;
	struct toa_send *toa = f->flow.env->node->toa;
	uint8_t option[TOA_OPTION_MAX];
	size_t length = toa_encode((uint8_t)kind, &f->flow.client, option);
	struct toa_slot *slot;

	if (!toa || toa_send_give(toa, f->side[SIDE_ORIGIN].fd, option, length, settings->toa_in_syn, &slot))
		return NULL;
	return slot;
}

/* The connection has not got it. Return: whether the rule insists on it. */
static bool toa_failed(struct tcp_flow *f)
{
	if (f->flow.env->node->toa)
		env_count(f->flow.env, COUNTER_TOA_HAND_OVER_FAULTS);
	return settings_of(f)->toa_required;
}

static void count_toa(struct tcp_flow *f)
{
	if (f->flow.rule->rule->pass == PASS_TOA)
		env_count(f->flow.env, f->toa ? COUNTER_TOA_CONNECTIONS : COUNTER_TOA_WITHOUT);
}

static enum step connect_begin(struct tcp_flow *f)
{
	struct tcp_side *origin = &f->side[SIDE_ORIGIN];
	struct toa_slot *slot = NULL;
	union sockaddr_any sa;
	socklen_t length = addr_to_sockaddr(&f->flow.origin, &sa);
	int r;

	r = sock_new(sa.sa.sa_family, SOCK_STREAM);
	if (r < 0)
		return attempt_errno(f, -r);
	origin->fd = r;
	r = sock_set(origin->fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (r)
		return attempt_errno(f, -r);
	/* urgent data stays in its place in the stream, so that no byte is lost */
	r = sock_set(origin->fd, SOL_SOCKET, SO_OOBINLINE, 1);
	if (r)
		return attempt_errno(f, -r);
	f->toa = false;
	if (f->flow.rule->rule->pass == PASS_TOA) {
		slot = give_toa(f);
		if (!slot && toa_failed(f))
			return tcp_end(f, END_TOA_FAILED, END_SIDE_FIRST);
	}
	f->connect_start = clock_now();
	r = connect(origin->fd, &sa.sa, length) < 0 && errno != EINPROGRESS ? -errno : 0;
	if (slot)
		f->toa = toa_send_taken(slot);
	if (r)
		return attempt_errno(f, -r);
	if (slot && !f->toa && toa_failed(f))
		return tcp_end(f, END_TOA_FAILED, END_SIDE_FIRST);
	r = side_watch(f, SIDE_ORIGIN, origin->fd);
	if (r)
		return attempt_errno(f, -r);
	tcp_timer(f, settings_of(f)->connect_timeout_ms);
	return STEP_WAIT;
}

enum step tcp_connect(struct tcp_flow *f)
{
	struct tcp_side *origin = &f->side[SIDE_ORIGIN];

	if (client_gone(f))
		return tcp_end(f, END_CLIENT_RESET, END_SIDE_FIRST);
	if (origin->fd < 0)
		return connect_begin(f);
	if (origin->failed)
		return attempt_errno(f, sock_error(origin->fd));
	if (f->timed_out)
		return attempt_failed(f, END_CONNECT_TIMEOUT);
	if (!origin->writable)
		return STEP_WAIT;
	timer_stop(&f->timer);
	f->flow.connect_us = (uint32_t)((clock_now() - f->connect_start) / NSEC_PER_USEC);
	f->flow.connected = true;
	pool_worked(f->flow.endpoint);
	count_toa(f);
	rule_stats_connected(flow_stats(&f->flow), f->flow.connect_us);
	return STEP_NEXT;
}
