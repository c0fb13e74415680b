/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel fast path of TCP flows. A flow that has carried enough is handed to the program of bpf/fastpath, which
 * translates the packets of its two connections into each other. From then on the ends talk to each other: user space
 * reads counters, hears of the end, and keeps both sockets, silent and deaf, so that nobody else gets their addresses.
 *
 *   (nothing) --enough carried--> WATCH --no quiet moment--> HOLD --in vain--> (nothing), again later
 *                                   |                         |
 *                                   +-----------------------> CARRY --end--> ENDED --2 s--> (nothing)
 *
 * WATCH: the program notes how far both directions are. The relay goes on; after each of its turns and at each tick we
 *        look whether nothing is under way: every byte received has been passed on, and every byte passed on has been
 *        confirmed. A peer that takes its time to confirm is asked once (poke()).
 * HOLD:  for flows that are never quiet. Nothing is taken out of the sockets any more, so that the windows which we
 *        offer close and the senders stop, without losing a byte; what is there is passed on with MSG_PEEK. So that
 * this takes little, the windows have been made small since WATCH. The readers are fed all the time; when they are not
 *        any more and there is still no quiet moment, it ends after HOLD_MS.
 * CARRY: nothing leads back. What the flow's sockets might say or hear now would be wrong: they hear nothing (a
 * filter), keep-alive is off, and they are closed under TCP_REPAIR, which sends nothing. ENDED: the flow is logged and
 * its sockets are closed; the program goes on answering retransmissions.
 *
 * Both ends are asked for a sign of life as the rule's keepalive says, each in the name of the other one.
 *
 * What can be carried: flows whose two connections have agreed on the same options, without ECN, both ends of one
 * family, both on this machine or neither, and segments that fit into the packets of the other side.
 */
#include "flow/tcp_fast.h"
#include "base/error.h"
#include "bpf/fastpath/fastpath.h"
#include "io/route.h"
#include "io/sock.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	TICK_MS = 8,
	SWEEP_MS = 1000,
	WATCH_TURNS = 16, /* so many turns of the relay a quiet moment is hoped for, */
	WATCH_MS = 500,	  /* and so long until the windows are small; */
	PAUSE_MS = 2000,  /* those that do not carry much are given so long to pause */
	BULK = 1 << 20,
	ROOM_MIN = 8192,
	HOLD_MS = 60,	    /* without anything passed on or confirmed, */
	HOLD_MAX_MS = 1000, /* and altogether */
	HOLD_WINDOW = 512 << 10,
	POKE_MS = 500,	  /* Linux answers a poke no more often than this */
	POKE_LOOKS = 50,  /* an answer from this machine comes within microseconds */
	ATTEMPTS_MAX = 8, /* each after four times as many bytes and twice as much time as the one before */
	RETRY_MS = 500,
	LINGER_MS = 2000,
	FIN_MS = 10000, /* both ends have closed, and one does not confirm it */
	PROBES_A_SWEEP = 512,
	CONFIRM_MS = 900000, /* without keep-alive: about as long as the kernel repeats what is not confirmed */
	CONFIRM_LOOK_MS = 60000,
};

enum slot_state { SLOT_FREE, SLOT_WATCH, SLOT_HOLD, SLOT_CARRY, SLOT_ENDED };

/* What is known of an end of a carried flow. */
struct life {
	uint64_t packets; /* that it has sent */
	nsec_t heard;	  /* when they became more, as seen by the sweep */
	nsec_t asked;	  /* the last probe after that */
	uint8_t probes;	  /* since then */
	bool lost;
};

/* A place on the fast path: an index that the program knows it by. */
struct tcp_fast_slot {
	struct list node; /* free, trying, carried or ended of the worker */
	struct tcp_flow *flow;
	struct fastpath_session session;
	struct fastpath_tcp_facts facts;
	uint32_t generation;
	uint32_t route_changes; /* of the worker, when the routes were looked at */
	enum slot_state state;
	uint32_t turns;
	uint64_t bytes;	 /* that the flow had carried when this began */
	nsec_t since;	 /* of this state */
	nsec_t progress; /* HOLD: when something moved */
	int unconfirmed; /* HOLD: bytes, when last looked at */
	nsec_t poked[SIDE_N];
	size_t ahead[SIDE_N]; /* bytes of a side that were passed on and are still in its socket */
	int clamp[SIDE_N];    /* window clamp of the socket before; 0: not changed */
	bool unseen;	      /* the last attempt failed because no packets come by */
	bool timestamps;
	uint64_t counted[2]; /* bytes taken over from the program's counters */
	struct life life[SIDE_N];
};

struct tcp_fast {
	struct flow_env *env;
	struct fastpath *fastpath;
	struct source ring;
	struct timer tick;  /* for those that try */
	struct timer sweep; /* for those that are carried or have ended */
	struct list free;   /* the longest unused first */
	struct list trying;
	struct list carried;
	struct list ended;
	uint32_t probes_left; /* in this sweep */
	uint32_t first;	      /* slot number of slots[0] */
	uint32_t count;
	uint32_t fresh; /* slots from here on were never used */
	struct tcp_fast_slot slots[];
};

/* struct tcp_info as of Linux 6.2 */
struct tcp_info_more {
	struct tcp_info info;
	uint32_t rcv_wnd;
	uint32_t more[15];
};

static enum side_id other(enum side_id id)
{
	return id == SIDE_CLIENT ? SIDE_ORIGIN : SIDE_CLIENT;
}

/* The direction in which a side's bytes go. */
static int direction_of(enum side_id from)
{
	return from == SIDE_CLIENT ? FAST_TO_ORIGIN : FAST_TO_CLIENT;
}

static uint32_t number_of(const struct tcp_fast *fast, const struct tcp_fast_slot *slot)
{
	return fast->first + (uint32_t)(slot - fast->slots);
}

static bool tcp_info(int fd, struct tcp_info_more *ret)
{
	socklen_t length = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret, &length) == 0;
}

static int get_int(int fd, int option)
{
	int value = 0;
	socklen_t length = sizeof(value);

	return getsockopt(fd, IPPROTO_TCP, option, &value, &length) < 0 ? 0 : value;
}

static void move(struct tcp_fast_slot *slot, struct list *to, enum slot_state state, nsec_t now)
{
	list_del(&slot->node);
	list_add(to, &slot->node);
	slot->state = state;
	slot->since = now;
}

static void start(struct flow_env *env, struct timer *timer, int64_t ms)
{
	if (!timer_running(timer))
		timer_start(&env->loop.timers, timer, env->loop.now + ms * NSEC_PER_MSEC);
}

/* --- whether it can be carried --- */

static bool find_routes(struct flow_env *env, struct fastpath_session *session)
{
	uint32_t mtu_to_origin, mtu_to_client;
	int to_origin = route_lookup(env->route_fd, &session->local.ip, &session->origin.ip, &mtu_to_origin);
	int to_client = route_lookup(env->route_fd, &session->edge.ip, &session->client.ip, &mtu_to_client);

	if (to_origin < 0 || to_client < 0 || (to_origin == 0) != (to_client == 0))
		return false;
	if (to_origin && mtu_to_origin == 0)
		mtu_to_origin = route_mtu(env->route_fd, to_origin);
	if (to_client && mtu_to_client == 0)
		mtu_to_client = route_mtu(env->route_fd, to_client);
	session->out_to_origin = (uint32_t)to_origin;
	session->out_to_client = (uint32_t)to_client;
	session->max_to_origin = mtu_to_origin;
	session->max_to_client = mtu_to_client;
	return true;
}

/* Whether a peer's largest segments, which our MSS allows on its side, fit into packets of the other side. */
static bool fits(const struct tcp_info *from, const struct tcp_info *to, uint32_t max_length, uint32_t headers)
{
	uint32_t longest = from->tcpi_advmss + headers;

	return longest <= max_length && longest <= to->tcpi_pmtu;
}

/*
 * Whether a peer's largest segments fit into the largest window of the other side. A sender halves its segments when it
 * sees windows that are too small for them, but by then it has seen ours. Matters on loopback, with segments of 64 KiB.
 */
static bool window_takes(const struct tcp_info *from, const struct tcp_info *to)
{
	/* segments are at most half of the largest window, so twice their size is a bound from below */
	return MAX(to->tcpi_snd_wnd, 2 * to->tcpi_snd_mss) + 128 >= from->tcpi_advmss; /* less options */
}

/* Addresses as they are in the packets; those of the flow may be what a balancer's header says. */
static bool find_addresses(const struct tcp_flow *f, struct fastpath_session *session)
{
	union sockaddr_any sa;
	socklen_t length = sizeof(sa);

	if (getpeername(f->side[SIDE_CLIENT].fd, &sa.sa, &length) < 0)
		return false;
	session->client = addr_from_sockaddr(&sa);
	session->origin = f->flow.origin;
	return sock_local(f->side[SIDE_CLIENT].fd, &session->edge) == 0 &&
		sock_local(f->side[SIDE_ORIGIN].fd, &session->local) == 0 && !session->client.scope_id &&
		!session->local.scope_id && addr_family(&session->client) == addr_family(&session->origin);
}

/* Return: true; otherwise @ret_why is the counter of the reason. */
static bool can_be_carried(const struct tcp_flow *f, struct tcp_fast_slot *slot, enum counter_id *ret_why)
{
	const uint8_t options = TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK;
	struct fastpath_session *session = &slot->session;
	struct tcp_info_more client, origin;
	uint32_t headers;

	*ret_why = COUNTER_TCP_FAST_ROUTE;
	if (!find_addresses(f, session) || !find_routes(f->flow.env, session))
		return false;
	*ret_why = COUNTER_TCP_FAST_OPTIONS;
	if (!tcp_info(f->side[SIDE_CLIENT].fd, &client) || !tcp_info(f->side[SIDE_ORIGIN].fd, &origin))
		return false;
	if ((client.info.tcpi_options & options) != (origin.info.tcpi_options & options) ||
		(client.info.tcpi_options | origin.info.tcpi_options) & TCPI_OPT_ECN)
		return false;
	*ret_why = COUNTER_TCP_FAST_MTU;
	if (!window_takes(&client.info, &origin.info) || !window_takes(&origin.info, &client.info))
		return false;
	slot->timestamps = client.info.tcpi_options & TCPI_OPT_TIMESTAMPS;
	slot->facts.scale_in[FAST_TO_ORIGIN] = client.info.tcpi_snd_wscale;
	slot->facts.scale_out[FAST_TO_ORIGIN] = origin.info.tcpi_rcv_wscale;
	slot->facts.scale_in[FAST_TO_CLIENT] = origin.info.tcpi_snd_wscale;
	slot->facts.scale_out[FAST_TO_CLIENT] = client.info.tcpi_rcv_wscale;
	headers = ip_is_v4(&session->client.ip) ? 40 : 60;
	return !session->out_to_origin ||
		(fits(&client.info, &origin.info, session->max_to_origin, headers) &&
			fits(&origin.info, &client.info, session->max_to_client, headers));
}

/* Nobody has said anything yet that ends a direction, or that needs its place in the stream. */
static bool is_whole(const struct tcp_flow *f)
{
	for (int i = 0; i < SIDE_N; i++) {
		const struct tcp_side *side = &f->side[i];

		if (side->half_closed || side->urgent || side->eof || side->shut || side->failed)
			return false;
	}
	return true;
}

/* --- trying --- */

static void small_windows(struct tcp_flow *f)
{
	struct tcp_fast_slot *slot = f->fast;

	for (int i = 0; i < SIDE_N; i++) {
		int fd = f->side[i].fd;

		if (!slot->clamp[i])
			slot->clamp[i] = get_int(fd, TCP_WINDOW_CLAMP);
		(void)!sock_set(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, HOLD_WINDOW); /* else HOLD finds too much */
	}
}

/* The bytes that were passed on already. @window: what may come instead of them. */
static void take_ahead(struct tcp_flow *f, enum side_id id, int window)
{
	struct tcp_fast_slot *slot = f->fast;
	struct tcp_side *side = &f->side[id];

	if (slot->clamp[id])
		(void)!sock_set(side->fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, window); /* no worse than without */
	if (slot->ahead[id])
		(void)!sock_set(side->fd, SOL_SOCKET, SO_PEEK_OFF, -1); /* unknown before Linux 6.9, and not set then */
	while (slot->ahead[id]) {
		ssize_t n = recv(side->fd, NULL, slot->ahead[id], MSG_TRUNC);

		if (n <= 0) {
			side->failed = true; /* the error is told only once: without this the relay would see an end */
			break;
		}
		slot->ahead[id] -= (size_t)n;
	}
}

/* Back to the relay, which goes on where HOLD has stopped. */
static void give_up(struct tcp_flow *f, enum counter_id why)
{
	struct flow_env *env = f->flow.env;
	struct tcp_fast *fast = env->tcp_fast;
	struct tcp_fast_slot *slot = f->fast;

	for (int i = 0; i < SIDE_N; i++) {
		take_ahead(f, (enum side_id)i, slot->clamp[i]);
		f->side[i].readable = true;
		loop_again(&env->loop, &f->side[i].source);
	}
	fastpath_tcp_remove(fast->fastpath, &slot->session, slot->generation);
	move(slot, &fast->free, SLOT_FREE, env->loop.now);
	f->fast = NULL;
	f->fast_not_before = env->loop.now + ((nsec_t)RETRY_MS << f->fast_attempts) * NSEC_PER_MSEC;
	f->fast_attempts++;
	f->fast_due = f->fast_attempts >= ATTEMPTS_MAX
		? UINT64_MAX
		: f->carried + ((uint64_t)env->snapshot->config.node.tcp_fast_path_after << 2 * f->fast_attempts);
	env_count(env, why);
}

static bool all_confirmed(const struct tcp_flow *f, enum side_id id)
{
	int queued;

	return ioctl(f->side[id].fd, SIOCOUTQ, &queued) == 0 && queued == 0;
}

/* Asks a peer how far it is: it confirms what it has got at once instead of a little later. Return: all_confirmed(). */
static bool poke(struct tcp_flow *f, enum side_id id)
{
	nsec_t now = clock_now();
	int fd = f->side[id].fd;

	if (f->fast->poked[id] && now - f->fast->poked[id] < POKE_MS * NSEC_PER_MSEC)
		return false;
	f->fast->poked[id] = now;
	/* leaving repair sends a window probe; it also forgets that the address may be used by others */
	if (sock_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON) == 0 &&
		sock_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF) == 0)
		(void)!sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1); /* it can't fail on a socket of ours */
	for (int i = 0; i < POKE_LOOKS; i++)
		if (all_confirmed(f, id))
			return true;
	return false;
}

/* All that a side has sent was passed on; @ret_received is how much that is. */
static bool all_passed_on(const struct tcp_flow *f, enum side_id id, struct tcp_info_more *ret)
{
	int waiting;

	/* in this order: what comes in between is waiting then, and if nothing is, the number was right */
	return tcp_info(f->side[id].fd, ret) && ioctl(f->side[id].fd, SIOCINQ, &waiting) == 0 &&
		(size_t)waiting == f->fast->ahead[id];
}

static void silence(struct tcp_flow *f)
{
	struct sock_filter nothing = { .code = BPF_RET | BPF_K, .k = 0 };
	struct sock_fprog deaf = { .len = 1, .filter = &nothing };

	for (int i = 0; i < SIDE_N; i++) {
		int fd = f->side[i].fd;

		/* all of them are safeguards: the program lets no packet of the flow through to the sockets */
		setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &deaf, sizeof(deaf));
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
		(void)!sock_set(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
	}
	f->keepalive_set = true;
}

static void carry(struct tcp_flow *f, const struct tcp_info_more *info)
{
	struct flow_env *env = f->flow.env;
	struct tcp_fast *fast = env->tcp_fast;

	silence(f);
	/*
	 * A sender that was stopped is told of the room that there is at the other end. Where there is hardly any, that
	 * end will tell it itself: a window of ours is never smaller than this, and what does not fit there would be
	 * lost, and a RST behind it not be believed.
	 */
	for (int i = 0; i < SIDE_N; i++) {
		uint32_t room = info[other((enum side_id)i)].info.tcpi_snd_wnd;

		if (room >= ROOM_MIN)
			take_ahead(f, (enum side_id)i, (int)MIN(room, 1u << 30));
	}
	move(f->fast, &fast->carried, SLOT_CARRY, env->loop.now);
	f->fast->route_changes = env->route_changes;
	for (int i = 0; i < SIDE_N; i++)
		f->fast->life[i].heard = env->loop.now;
	counter_add(&env->tcp_fast_flows, 1);
	env_count(env, COUNTER_TCP_FAST_FLOWS);
	start(env, &fast->sweep, SWEEP_MS);
}

/* One attempt. Return: whether the flow is carried now. */
static bool flip(struct tcp_flow *f)
{
	struct tcp_fast_slot *slot = f->fast;
	struct fastpath_tcp_facts *facts = &slot->facts;
	struct tcp_info_more info[SIDE_N];
	int r;

	for (int i = 0; i < SIDE_N; i++)
		if (f->side[i].pending || !all_passed_on(f, (enum side_id)i, &info[i]))
			return false;
	for (int i = 0; i < SIDE_N; i++) {
		enum side_id id = (enum side_id)i;

		if (!all_confirmed(f, id) && !poke(f, id))
			return false;
		facts->received[direction_of(id)] = info[i].info.tcpi_bytes_received;
		facts->now[direction_of(other(id))] =
			slot->timestamps ? (uint32_t)get_int(f->side[i].fd, TCP_TIMESTAMP) : 0;
	}
	r = fastpath_tcp_flip(f->flow.env->tcp_fast->fastpath, &slot->session, slot->generation, facts);
	slot->unseen = r == FAST_TCP_E_UNSEEN;
	if (r != FAST_TCP_FLIPPED)
		return false;
	carry(f, info);
	return true;
}

/* Looks at what has not been passed on yet. Return: its length, or as recv(). */
static ssize_t peek_new(struct tcp_flow *f, enum side_id from)
{
	size_t ahead = f->fast->ahead[from];
	int fd = f->side[from].fd;
	ssize_t n;

	if (ahead == 0 || sock_set(fd, SOL_SOCKET, SO_PEEK_OFF, (int)ahead) == 0)
		return recv(fd, f->flow.env->scratch, RELAY_BUFFER_SIZE, MSG_PEEK);
	/* before Linux 6.9: from the beginning, as far as the buffer goes */
	n = recv(fd, f->flow.env->scratch, RELAY_BUFFER_SIZE, MSG_PEEK);
	if (n <= 0)
		return n;
	if ((size_t)n <= ahead) {
		errno = EAGAIN;
		return -1;
	}
	n -= (ssize_t)ahead;
	memmove(f->flow.env->scratch, f->flow.env->scratch + ahead, (size_t)n);
	return n;
}

/* Passes on what is there without taking it. Return: false when that can't go on. */
static bool peek(struct tcp_flow *f, enum side_id from)
{
	struct tcp_fast_slot *slot = f->fast;
	struct tcp_side *to = &f->side[other(from)];
	ssize_t n, sent;

	if (relay_flush(f, other(from)))
		return !(to->failed = true); /* an error is told only once */
	if (to->pending || !to->writable)
		return true;
	n = peek_new(f, from);
	if (n < 0)
		return !(f->side[from].failed = errno != EAGAIN);
	if (n == 0)
		return false;
	sent = send(to->fd, f->flow.env->scratch, (size_t)n, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		return !(to->failed = true);
	to->writable = sent == n;
	if (sent > 0) {
		slot->ahead[from] += (size_t)sent;
		relay_count(f, from, (size_t)sent);
	}
	return true;
}

static int unconfirmed(const struct tcp_flow *f)
{
	int sum = 0, queued;

	for (int i = 0; i < SIDE_N; i++)
		if (ioctl(f->side[i].fd, SIOCOUTQ, &queued) == 0)
			sum += queued;
	return sum;
}

/* Whether it is no use to wait any longer. */
static bool held_in_vain(struct tcp_flow *f)
{
	struct tcp_fast_slot *slot = f->fast;
	nsec_t now = clock_now();
	int left = unconfirmed(f);

	if (left != slot->unconfirmed)
		slot->progress = now;
	slot->unconfirmed = left;
	return !is_whole(f) || now - slot->progress > HOLD_MS * NSEC_PER_MSEC ||
		now - slot->since > HOLD_MAX_MS * NSEC_PER_MSEC;
}

static void hold(struct tcp_flow *f)
{
	for (int i = 0; i < SIDE_N; i++)
		if (!peek(f, (enum side_id)i)) {
			give_up(f, COUNTER_TCP_FAST_BUSY);
			return;
		}
	if (!flip(f) && held_in_vain(f))
		give_up(f, f->fast->unseen ? COUNTER_TCP_FAST_UNSEEN : COUNTER_TCP_FAST_BUSY);
}

static bool windows_are_small(const struct tcp_flow *f)
{
	struct tcp_info_more info;

	for (int i = 0; i < SIDE_N; i++)
		if (!tcp_info(f->side[i].fd, &info) || info.rcv_wnd > HOLD_WINDOW + HOLD_WINDOW / 4)
			return false;
	return true;
}

static uint64_t bytes_of(const struct tcp_flow *f)
{
	return counter_get(&f->flow.bytes_in) + counter_get(&f->flow.bytes_out);
}

static bool is_bulk(const struct tcp_flow *f)
{
	return bytes_of(f) - f->fast->bytes >= BULK;
}

static void watch(struct tcp_flow *f)
{
	struct flow_env *env = f->flow.env;
	struct tcp_fast_slot *slot = f->fast;
	nsec_t since = env->loop.now - slot->since;

	if (!is_whole(f)) {
		give_up(f, COUNTER_TCP_FAST_BUSY);
		return;
	}
	if (flip(f))
		return;
	if (slot->turns++ < WATCH_TURNS && since < WATCH_MS * NSEC_PER_MSEC)
		return;
	if (!is_bulk(f) && since < PAUSE_MS * NSEC_PER_MSEC)
		return;
	if (!windows_are_small(f) && since < (PAUSE_MS + WATCH_MS) * NSEC_PER_MSEC) {
		small_windows(f);
		return;
	}
	if (slot->unseen || !windows_are_small(f)) {
		give_up(f, slot->unseen ? COUNTER_TCP_FAST_UNSEEN : COUNTER_TCP_FAST_BUSY);
		return;
	}
	small_windows(f); /* so that they are given back in any case */
	slot->state = SLOT_HOLD;
	slot->since = slot->progress = clock_now();
	hold(f);
}

/* One that is nobody's, and stays in its list until it is moved to another. */
static struct tcp_fast_slot *take_slot(struct tcp_fast *fast)
{
	if (list_empty(&fast->free) && fast->fresh < fast->count)
		list_add(&fast->free, &fast->slots[fast->fresh++].node);
	return list_empty(&fast->free) ? NULL : CONTAINER_OF(fast->free.next, struct tcp_fast_slot, node);
}

static void enter(struct tcp_flow *f)
{
	struct flow_env *env = f->flow.env;
	struct tcp_fast *fast = env->tcp_fast;
	struct tcp_fast_slot *slot;
	enum counter_id why;

	if (!is_whole(f)) {
		f->fast_due = UINT64_MAX; /* it is about to end */
		return;
	}
	slot = take_slot(fast);
	if (!slot) {
		f->fast_due = f->carried * 4;
		env_count(env, COUNTER_TCP_FAST_FULL);
		return;
	}
	*slot = (struct tcp_fast_slot){
		.node = slot->node, .flow = f, .generation = slot->generation + 1, .bytes = bytes_of(f)
	};
	slot->session.slot = number_of(fast, slot);
	if (!can_be_carried(f, slot, &why) ||
		fastpath_tcp_watch(fast->fastpath, &slot->session, slot->generation, env->worker)) {
		f->fast_due = UINT64_MAX;
		env_count(env, why);
		return;
	}
	f->fast = slot;
	move(slot, &fast->trying, SLOT_WATCH, env->loop.now);
	start(env, &fast->tick, TICK_MS);
}

void tcp_fast_begin(struct tcp_flow *f)
{
	f->carried = 0; /* the place was used for something else before */
	f->fast_not_before = 0;
	f->fast = NULL;
	f->fast_due = f->flow.env->tcp_fast ? f->flow.env->snapshot->config.node.tcp_fast_path_after : UINT64_MAX;
}

void tcp_fast_consider(struct tcp_flow *f)
{
	if (!f->fast && f->flow.env->loop.now >= f->fast_not_before)
		enter(f);
	else if (f->fast && f->fast->state == SLOT_WATCH && (f->fast->turns < WATCH_TURNS || is_bulk(f)))
		watch(f); /* else the tick does */
}

/* --- carried --- */

bool tcp_fast_owns(const struct tcp_flow *f)
{
	return f->fast && f->fast->state >= SLOT_HOLD;
}

static const struct fast_tcp_counters *counters_of(const struct tcp_flow *f)
{
	return fastpath_tcp_counters(f->flow.env->tcp_fast->fastpath, f->fast->session.slot);
}

/* What the program has counted since the last look. */
static void sync_counters(struct tcp_flow *f)
{
	const struct fast_tcp_counters *c = counters_of(f);
	uint64_t news[2];

	for (int i = 0; i < 2; i++) {
		uint64_t now = __atomic_load_n(&c->bytes[i], __ATOMIC_RELAXED);

		news[i] = now - f->fast->counted[i];
		f->fast->counted[i] = now;
	}
	flow_in(&f->flow, news[FAST_TO_ORIGIN]);
	flow_out(&f->flow, news[FAST_TO_CLIENT]);
	counter_add(&f->flow.env->counters[COUNTER_TCP_FAST_BYTES], news[0] + news[1]);
	f->last_activity = MAX(f->last_activity, (nsec_t)__atomic_load_n(&c->last_ns, __ATOMIC_RELAXED));
}

enum step tcp_fast_run(struct tcp_flow *f)
{
	uint64_t told, both = FAST_TCP_FIN << FAST_TO_ORIGIN | FAST_TCP_FIN << FAST_TO_CLIENT;

	if (f->fast->state == SLOT_HOLD) {
		hold(f);
		return STEP_NEXT;
	}
	told = __atomic_load_n(&counters_of(f)->told, __ATOMIC_RELAXED);
	sync_counters(f);
	if (told & FAST_TCP_RST << FAST_TO_ORIGIN)
		return tcp_end(f, END_CLIENT_RESET, END_SIDE_FIRST);
	if (told & FAST_TCP_RST << FAST_TO_CLIENT)
		return tcp_end(f, END_ORIGIN_RESET, END_SIDE_FIRST);
	if (told & FAST_TCP_ENDED ||
		((told & both) == both && f->flow.env->loop.now - f->last_activity > FIN_MS * NSEC_PER_MSEC))
		return tcp_end(
			f, END_DONE, told & FAST_TCP_FIRST << FAST_TO_ORIGIN ? END_SIDE_CLIENT : END_SIDE_ORIGIN);
	if (f->fast->life[SIDE_CLIENT].lost)
		return tcp_end(f, END_CLIENT_LOST, END_SIDE_FIRST);
	if (f->fast->life[SIDE_ORIGIN].lost)
		return tcp_end(f, END_ORIGIN_LOST, END_SIDE_FIRST);
	return STEP_NEXT;
}

/* The relay's stage looks at the flow in the next turn. */
static void wake(struct tcp_flow *f)
{
	loop_again(&f->flow.env->loop, &f->side[SIDE_CLIENT].source);
}

static void told(void *context, uint32_t number, uint32_t generation)
{
	struct tcp_fast *fast = context;
	struct tcp_fast_slot *slot = &fast->slots[number - fast->first];

	if (slot->state == SLOT_CARRY && slot->generation == generation)
		wake(slot->flow);
}

static void ring_ready(struct source *source, uint32_t events)
{
	struct tcp_fast *fast = CONTAINER_OF(source, struct tcp_fast, ring);

	(void)events;
	fastpath_tcp_events(fast->fastpath, fast->env->worker, told, fast);
}

static void tick(struct timer *timer)
{
	struct tcp_fast *fast = CONTAINER_OF(timer, struct tcp_fast, tick);

	list_for_each (node, &fast->trying) {
		struct tcp_fast_slot *slot = CONTAINER_OF(node, struct tcp_fast_slot, node);

		if (slot->state == SLOT_WATCH)
			watch(slot->flow);
		else
			hold(slot->flow);
	}
	if (!list_empty(&fast->trying))
		start(fast->env, &fast->tick, TICK_MS);
}

static void forget(struct tcp_fast *fast, struct tcp_fast_slot *slot)
{
	fastpath_tcp_remove(fast->fastpath, &slot->session, slot->generation);
	move(slot, &fast->free, SLOT_FREE, fast->env->loop.now);
}

/* Carried flows follow the routes. Without one, packets wait for a route to come back: their senders repeat them. */
static void follow_routes(struct tcp_fast *fast, struct tcp_fast_slot *slot)
{
	if (slot->route_changes == fast->env->route_changes)
		return;
	slot->route_changes = fast->env->route_changes;
	if (find_routes(fast->env, &slot->session) &&
		fastpath_tcp_update(fast->fastpath, &slot->session, slot->generation))
		slot->route_changes--; /* again in the next sweep */
}

/* Whether a time is over, to the nearest sweep. */
static bool over(const struct tcp_fast *fast, nsec_t since, int64_t ms)
{
	return fast->env->loop.now - since >= (ms - SWEEP_MS / 2) * NSEC_PER_MSEC;
}

/*
 * Without keep-alive only those are lost that leave something unconfirmed for long. The kernel's timer, which finds
 * them in user space, is the sender's now, and gives up without a word.
 */
static bool leaves_unconfirmed(struct tcp_fast *fast, struct tcp_fast_slot *slot, enum side_id id)
{
	struct life *life = &slot->life[id];

	if (!over(fast, life->heard, CONFIRM_MS) || !over(fast, life->asked, CONFIRM_LOOK_MS))
		return false;
	life->asked = fast->env->loop.now;
	return fastpath_tcp_unconfirmed(fast->fastpath, &slot->session, (uint32_t)direction_of(other(id))) == 1;
}

/* Keep-alive of one end, with the meaning that it has for sockets (set_keepalive() in relay.c). */
static void look_for_life(struct tcp_fast *fast, struct tcp_fast_slot *slot, enum side_id id)
{
	const struct fast_tcp_counters *c = counters_of(slot->flow);
	uint64_t packets = __atomic_load_n(&c->packets[direction_of(id)], __ATOMIC_RELAXED);
	int64_t first_ms = slot->flow->flow.rule->rule->settings.keepalive_ms;
	int64_t wait_ms = MAX(first_ms / KEEPALIVE_PART, (int64_t)1000);
	struct life *life = &slot->life[id];

	if (packets != life->packets) {
		*life = (struct life){ .packets = packets, .heard = fast->env->loop.now };
		return;
	}
	if (first_ms == 0) {
		life->lost |= leaves_unconfirmed(fast, slot, id);
		return;
	}
	if (!over(fast, life->heard, first_ms) || (life->probes && !over(fast, life->asked, wait_ms)))
		return;
	if (life->probes >= KEEPALIVE_PROBES) {
		life->lost = true;
		return;
	}
	if (fast->probes_left == 0 ||
		fastpath_tcp_probe(fast->fastpath, &slot->session, (uint32_t)direction_of(other(id))))
		return; /* not sent: again in the next sweep */
	fast->probes_left--;
	life->asked = fast->env->loop.now;
	life->probes++;
	env_count(fast->env, COUNTER_TCP_FAST_PROBES);
}

static void sweep(struct timer *timer)
{
	struct tcp_fast *fast = CONTAINER_OF(timer, struct tcp_fast, sweep);
	nsec_t now = fast->env->loop.now;

	fast->probes_left = PROBES_A_SWEEP;
	list_for_each (node, &fast->carried) {
		struct tcp_fast_slot *slot = CONTAINER_OF(node, struct tcp_fast_slot, node);

		follow_routes(fast, slot);
		sync_counters(slot->flow);
		for (int i = 0; i < SIDE_N; i++)
			look_for_life(fast, slot, (enum side_id)i);
		if (__atomic_load_n(&counters_of(slot->flow)->told, __ATOMIC_RELAXED) || slot->life[SIDE_CLIENT].lost ||
			slot->life[SIDE_ORIGIN].lost)
			wake(slot->flow); /* the ring may have been full */
	}
	list_for_each (node, &fast->ended) {
		struct tcp_fast_slot *slot = CONTAINER_OF(node, struct tcp_fast_slot, node);
		const struct fast_tcp_counters *c = fastpath_tcp_counters(fast->fastpath, slot->session.slot);
		nsec_t last = (nsec_t)__atomic_load_n(&c->last_ns, __ATOMIC_RELAXED);

		if (now - MAX(last, slot->since) > LINGER_MS * NSEC_PER_MSEC)
			forget(fast, slot);
	}
	if (!list_empty(&fast->carried) || !list_empty(&fast->ended))
		start(fast->env, &fast->sweep, SWEEP_MS);
}

/* --- ends --- */

/*
 * Says the last word to an end in the name of the other one: FIN or RST with the numbers that it expects, from a socket
 * that takes the place of the one which was closed.
 */
static void speak(const struct addr *from, const struct addr *to, const struct fastpath_tcp_position *at,
	bool timestamps, bool reset)
{
	int fd = sock_new(addr_family(from), SOCK_STREAM);
	struct tcp_repair_opt option = { .opt_code = 8 /* TCPOPT_TIMESTAMP */ };
	struct tcp_repair_window window = { /* room for a FIN */
		.snd_wl1 = at->ack,
		.snd_wnd = 1 << 14,
		.max_window = 1 << 14,
		.rcv_wnd = 1 << 14,
		.rcv_wup = at->ack
	};
	union sockaddr_any sa;
	bool ready;

	/* if anything fails the end hears of it when it speaks next: nobody is there */
	ready = fd >= 0 && sock_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON) == 0 && sock_bind(fd, from) == 0 &&
		sock_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE) == 0 &&
		sock_set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)at->seq) == 0 &&
		sock_set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE) == 0 &&
		sock_set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)at->ack) == 0 &&
		connect(fd, &sa.sa, addr_to_sockaddr(to, &sa)) == 0 &&
		setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof(window)) == 0;
	if (ready && timestamps)
		ready = setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &option, sizeof(option)) == 0 &&
			sock_set(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)at->timestamp) == 0;
	if (ready)
		(void)!sock_set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP); /* else close() says nothing */
	sock_close(fd, reset);
}

static void end_both(struct tcp_flow *f, bool reset)
{
	struct tcp_fast *fast = f->flow.env->tcp_fast;
	const struct fastpath_session *session = &f->fast->session;
	struct fastpath_tcp_position at[2];
	bool timestamps = f->fast->timestamps;
	int r = fastpath_tcp_position(fast->fastpath, session, at);

	forget(fast, f->fast);
	if (r)
		return;
	speak(&session->edge, &session->client, &at[FAST_TO_CLIENT], timestamps, reset);
	speak(&session->local, &session->origin, &at[FAST_TO_ORIGIN], timestamps, reset);
}

bool tcp_fast_close(struct tcp_flow *f)
{
	struct flow_env *env = f->flow.env;

	if (f->last_activity == 0 || !f->fast) /* the relay may not even have begun */
		return false;
	if (f->fast->state != SLOT_CARRY) {
		give_up(f, COUNTER_TCP_FAST_BUSY);
		return false;
	}
	sync_counters(f);
	for (int i = 0; i < SIDE_N; i++) {
		struct tcp_side *side = &f->side[i];

		if (sock_set(side->fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON))
			log_error("a carried connection could not be closed silently");
		loop_forget(&side->source);
		close(side->fd);
		side->fd = -1;
	}
	if (f->end == END_DONE || f->end == END_CLIENT_RESET || f->end == END_ORIGIN_RESET)
		move(f->fast, &env->tcp_fast->ended, SLOT_ENDED, env->loop.now);
	else
		end_both(f, end_rows[f->end].close == END_CLOSE_RST);
	f->fast->flow = NULL;
	f->fast = NULL;
	counter_add(&env->tcp_fast_flows, (uint64_t)-1);
	return true;
}

/* --- the worker's part --- */

int tcp_fast_new(struct flow_env *env, struct fastpath *fastpath)
{
	uint32_t count = FAST_SESSIONS_MAX / env->node->workers;
	struct tcp_fast *fast = calloc(1, sizeof(*fast) + count * sizeof(fast->slots[0]));

	if (!fast)
		return fault(-ENOMEM);
	fast->env = env;
	fast->fastpath = fastpath;
	fast->first = env->worker * count;
	fast->count = count;
	timer_init(&fast->tick, tick);
	timer_init(&fast->sweep, sweep);
	list_init(&fast->free);
	list_init(&fast->trying);
	list_init(&fast->carried);
	list_init(&fast->ended);
	source_init(&fast->ring, ring_ready);
	env->tcp_fast = fast;
	return loop_add_level(&env->loop, fastpath_tcp_ring(fastpath, env->worker), &fast->ring, EPOLLIN);
}

void tcp_fast_free(struct flow_env *env)
{
	free(env->tcp_fast);
	env->tcp_fast = NULL;
}
