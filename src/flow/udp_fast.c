/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel fast path of UDP sessions. A session that has been answered and goes on is handed to the program of
 * bpf/fastpath; from then on user space hears of it only what the program leaves alone, and reads its counters.
 *
 * It is taken back when the session ends, when its origin becomes unreachable (the ICMP error still reaches the
 * session's socket), and when its routes, looked at again after every change and every FAST_TERM, are not there any
 * more. Its sockets stay open all the time, so nothing is lost in either direction.
 *
 * At the hand-over, datagrams that wait in a socket would be overtaken by those that come after them. So it is done
 * when nothing seems to be under way; a session that is never quiet is handed over all the same, and its datagrams may
 * be out of order once.
 *
 * A session is handed over in two steps, since netfilter may translate addresses on the way to or from this machine,
 * and the program comes before it: first it only notes whether packets of both directions come by as user space knows
 * them.
 *
 * What can be carried: sessions of rules with pass mode off that do not count answers, both ends of one family, both
 * on this machine or neither.
 */
#include "base/error.h"
#include "flow/udp_flow.h"
#include "flow/udp_session.h"
#include "io/route.h"
#include "io/sock.h"

#define FAST_TERM (30 * NSEC_PER_SEC)

enum {
	FAST_AFTER_DATAGRAMS = 8,  /* of the client: shorter sessions are not worth two map entries */
	FAST_WAIT_DATAGRAMS = 256, /* so many are waited for a quiet moment */
	FAST_PAUSE_MS = 5,
	/*
	 * When a router on the way finds a packet too long, its ICMP message reaches the session's socket if it went to
	 * the origin, but nobody if it went to the client. No link is narrower than this (RFC 8200, section 5).
	 */
	FAST_MAX_TO_CLIENT = 1280,
	FAST_OBSERVE_DATAGRAMS = 64, /* without packets of both directions: something translates them */
	SWEEP_MS = 1000,
};

static bool is_fast(const struct udp_session *s)
{
	return !list_empty(&s->fast.node);
}

/* Each worker has its own part of the slots; sessions beyond it stay in user space. */
static bool slot_of(const struct udp_session *s, uint32_t *ret_slot)
{
	const struct flow_env *env = s->flow.env;
	uint32_t share = FAST_SESSIONS_MAX / env->node->workers;
	uint32_t index = udp_session_index(s);

	*ret_slot = env->worker * share + index;
	return index < share;
}

static bool describe(const struct udp_session *s, struct fastpath_session *ret)
{
	*ret = (struct fastpath_session){
		.client = s->flow.client,
		.edge = s->flow.edge,
		.local = s->fast.local,
		.origin = s->flow.origin,
	};
	return slot_of(s, &ret->slot);
}

/* Where the two directions leave. Return: whether the program can do that. */
static bool find_routes(struct udp_session *s, struct fastpath_session *session)
{
	int fd = s->flow.env->route_fd;
	uint32_t mtu_to_origin, mtu_to_client;
	int to_origin = route_lookup(fd, &session->local.ip, &session->origin.ip, &mtu_to_origin);
	int to_client = route_lookup(fd, &session->edge.ip, &session->client.ip, &mtu_to_client);

	if (to_origin < 0 || to_client < 0 || (to_origin == 0) != (to_client == 0))
		return false;
	if (to_origin && mtu_to_origin == 0)
		mtu_to_origin = route_mtu(fd, to_origin);
	session->out_to_origin = (uint32_t)to_origin;
	session->out_to_client = (uint32_t)to_client;
	session->max_to_origin = mtu_to_origin;
	session->max_to_client = mtu_to_client ? MIN(mtu_to_client, (uint32_t)FAST_MAX_TO_CLIENT) : FAST_MAX_TO_CLIENT;
	return true;
}

/* First step: the program notes whether packets of both directions come by. */
static void observe(struct udp_session *s)
{
	struct fastpath_session session;

	s->fast.refused = true;
	if (sock_local(s->fd, &s->fast.local) || s->flow.client.scope_id || s->fast.local.scope_id ||
		addr_family(&s->flow.client) != addr_family(&s->flow.origin))
		return;
	if (!describe(s, &session) || !find_routes(s, &session))
		return;
	session.observe = true;
	if (fastpath_add(s->flow.env->fastpath, &session))
		return;
	s->fast.refused = false;
	s->fast.observed = true;
	s->fast.observed_from = s->flow.datagrams_in;
}

static bool both_seen(const struct udp_session *s)
{
	const struct fast_counters *c;
	uint32_t slot;

	if (!slot_of(s, &slot))
		return false;
	c = fastpath_counters(s->flow.env->fastpath, slot);
	return __atomic_load_n(&c->seen[FAST_TO_ORIGIN], __ATOMIC_RELAXED) &&
		__atomic_load_n(&c->seen[FAST_TO_CLIENT], __ATOMIC_RELAXED);
}

/* Second step: the program carries them. */
static void enter(struct udp_session *s)
{
	struct flow_env *env = s->flow.env;
	struct fastpath_session session;

	if (!describe(s, &session) || !find_routes(s, &session) || fastpath_update(env->fastpath, &session)) {
		udp_fast_leave(s);
		s->fast.refused = true;
		return;
	}
	s->fast.observed = false;
	s->fast.seen = (struct fast_counters){ 0 };
	s->fast.since = env->loop.now;
	env_count(env, COUNTER_FAST_SESSIONS);
	if (list_empty(&env->fast_sessions))
		timer_start(&env->loop.timers, &env->fast_timer, env->loop.now + SWEEP_MS * NSEC_PER_MSEC);
	list_add(&env->fast_sessions, &s->fast.node);
}

/* The datagram that has just gone to the origin is the only one without an answer, or nothing moved for a while before
 * it. */
static bool is_quiet(const struct udp_session *s, nsec_t pause)
{
	return s->flow.datagrams_in <= s->flow.datagrams_out + 1 || pause >= FAST_PAUSE_MS * NSEC_PER_MSEC;
}

void udp_fast_consider(struct udp_session *s, nsec_t pause)
{
	const struct rule *rule = s->flow.rule->rule;

	if (!s->flow.env->fastpath || is_fast(s) || s->fast.refused || !s->answered || s->unreachable || s->ended ||
		s->flow.datagrams_in < FAST_AFTER_DATAGRAMS || rule->pass != PASS_OFF || rule->settings.answers)
		return;
	if (!s->fast.observed) {
		observe(s);
	} else if (both_seen(s)) {
		if (is_quiet(s, pause) || s->flow.datagrams_in >= FAST_WAIT_DATAGRAMS)
			enter(s);
	} else if (s->flow.datagrams_in - s->fast.observed_from >= FAST_OBSERVE_DATAGRAMS) {
		udp_fast_leave(s);
		s->fast.refused = true;
	}
}

/* What the program has counted since the last look. */
static uint64_t news(const __u64 *counted, __u64 *seen)
{
	__u64 now = __atomic_load_n(counted, __ATOMIC_RELAXED), more = now - *seen;

	*seen = now;
	return more;
}

void udp_fast_sync(struct udp_session *s)
{
	struct rule_stats *stats = flow_stats(&s->flow);
	const struct fast_counters *c;
	uint64_t in, out;
	uint32_t slot;

	if (!is_fast(s) || !slot_of(s, &slot))
		return;
	c = fastpath_counters(s->flow.env->fastpath, slot);
	in = news(&c->datagrams[FAST_TO_ORIGIN], &s->fast.seen.datagrams[FAST_TO_ORIGIN]);
	out = news(&c->datagrams[FAST_TO_CLIENT], &s->fast.seen.datagrams[FAST_TO_CLIENT]);
	s->flow.datagrams_in += in;
	s->flow.datagrams_out += out;
	counter_add(&stats->datagrams_in, in);
	counter_add(&stats->datagrams_out, out);
	counter_add(&s->flow.env->counters[COUNTER_FAST_DATAGRAMS], in + out);
	flow_in(&s->flow, news(&c->bytes[FAST_TO_ORIGIN], &s->fast.seen.bytes[FAST_TO_ORIGIN]));
	flow_out(&s->flow, news(&c->bytes[FAST_TO_CLIENT], &s->fast.seen.bytes[FAST_TO_CLIENT]));
	for (int i = 0; i < 2; i++)
		s->last_activity = MAX(s->last_activity, (nsec_t)__atomic_load_n(&c->last_ns[i], __ATOMIC_RELAXED));
}

void udp_fast_leave(struct udp_session *s)
{
	struct fastpath_session session;

	if (!is_fast(s) && !s->fast.observed)
		return;
	s->fast.observed = false;
	if (describe(s, &session))
		fastpath_remove(s->flow.env->fastpath, &session);
	udp_fast_sync(s); /* nothing is counted any more, so this is the last of it */
	list_del(&s->fast.node);
}

/* Routes change: a session that can still leave by some way goes on, by the way that is right now. */
static void refresh(struct udp_session *s)
{
	struct fastpath_session session;

	s->fast.since = s->flow.env->loop.now;
	if (!describe(s, &session) || !find_routes(s, &session) || fastpath_update(s->flow.env->fastpath, &session))
		udp_fast_leave(s);
	else
		udp_fast_sync(s);
}

void udp_fast_sweep(struct timer *timer)
{
	struct flow_env *env = CONTAINER_OF(timer, struct flow_env, fast_timer);

	list_for_each (node, &env->fast_sessions) {
		struct udp_session *s = CONTAINER_OF(node, struct udp_session, fast.node);

		if (env->routes_changed || env->loop.now - s->fast.since > FAST_TERM)
			refresh(s);
		else
			udp_fast_sync(s);
	}
	env->routes_changed = false;
	if (!list_empty(&env->fast_sessions))
		timer_start(&env->loop.timers, &env->fast_timer, env->loop.now + SWEEP_MS * NSEC_PER_MSEC);
}

void udp_fast_routes_ready(struct source *source, uint32_t events)
{
	struct flow_env *env = CONTAINER_OF(source, struct flow_env, routes);

	(void)events;
	route_watch_drain(env->route_watch_fd);
	env->route_changes++;
	env->routes_changed = true; /* the next sweep looks at all of them: changes often come many at once */
}
