/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/udp_flow.h"
#include "base/error.h"
#include "base/hash.h"
#include "flow/udp_session.h"
#include "io/sock.h"
#include "wire/proxy.h"
#include "wire/spp.h"

#include <errno.h>
#include <linux/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	BATCH = 64,
	DATAGRAM_MAX = 65507,	  /* payload: 65535 less IPv4 and UDP header */
	DATAGRAM_SLOT = 66 << 10, /* not a power of two, or all slots would share the same cache sets */
	GSO_BYTES_MAX = 65000,	  /* of one send, below what an IPv4 packet can be */
	LISTENER_ROUNDS = 4,	  /* batches before others get their turn */
	ORIGIN_READ_MAX = 32,
	HEADER_MAX = PROXY_V2_MAX,
	CONTROL_SIZE = 128,
	UDP_SESSION_FDS = 1,
};
_Static_assert((int)HEADER_MAX >= (int)SPP_SIZE, "room for either header");

/* A datagram from a client, in the batch of a listener. */
struct datagram_in {
	uint8_t *bytes;
	size_t length;
	uint8_t next; /* of the same session */
};

/* An answer that waits for udp_flush(). */
struct datagram_out {
	struct udp_session *session;
	uint8_t *bytes;
	size_t length;
};

/*
 * Datagrams that leave by one socket with one system call. Those of one session that follow each other with equal
 * length (the last may be shorter) share a message, which the kernel cuts again (GSO).
 */
struct send_batch {
	int fd;
	unsigned int messages;
	unsigned int datagrams;
	unsigned int iovs;
	struct mmsghdr message[BATCH];
	struct udp_session *session[BATCH];    /* by message */
	unsigned int first_datagram[BATCH];    /* by message */
	unsigned int message_datagrams[BATCH]; /* by message */
	size_t segment[BATCH];		       /* by message: length of all its datagrams but the last */
	size_t total[BATCH];		       /* by message */
	bool closed[BATCH];		       /* by message: its last datagram is shorter, nothing may follow */
	uint8_t datagram_iovs[BATCH];	       /* by datagram: 1 or, with a header, 2 */
	struct iovec iov[2 * BATCH];
	union sockaddr_any name[BATCH]; /* by message */
	_Alignas(struct cmsghdr) uint8_t control[BATCH][CONTROL_SIZE];
	uint8_t header[BATCH][HEADER_MAX]; /* by datagram */
};

struct udp_table {
	struct slab sessions;
	struct udp_session **heads;
	uint64_t mask;
	struct udp_replies replies;
	/* from clients */
	struct datagram_in in[BATCH];
	struct mmsghdr in_messages[BATCH];
	struct iovec in_iov[BATCH];
	union sockaddr_any in_names[BATCH];
	_Alignas(struct cmsghdr) uint8_t in_control[BATCH][CONTROL_SIZE];
	uint8_t *in_slots;
	/* to clients */
	struct datagram_out out[BATCH];
	unsigned int out_count;
	uint8_t *out_slots;
	struct send_batch send; /* used within one function at a time */
};

/* --- the table --- */

/* What recvmmsg() overwrites of the first @count messages, as it has to be before the next call. */
static void reset_messages(struct udp_table *t, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		t->in_iov[i] = (struct iovec){ t->in[i].bytes, DATAGRAM_SLOT };
		t->in_messages[i].msg_hdr = (struct msghdr){
			.msg_name = &t->in_names[i],
			.msg_namelen = sizeof(t->in_names[i]),
			.msg_iov = &t->in_iov[i],
			.msg_iovlen = 1,
			.msg_control = t->in_control[i],
			.msg_controllen = CONTROL_SIZE,
		};
	}
}

int udp_table_new(struct flow_env *env, uint32_t max_sessions)
{
	struct udp_table *t = calloc(1, sizeof(*t));
	size_t heads = 1024;
	int r;

	env->udp = t;
	if (!t)
		return fault(-ENOMEM);
	while (heads < max_sessions)
		heads *= 2;
	t->mask = heads - 1;
	t->heads = mmap(NULL, heads * sizeof(*t->heads), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->heads == MAP_FAILED) {
		t->heads = NULL;
		return fault(-ENOMEM);
	}
	t->in_slots = mmap(NULL, (size_t)2 * BATCH * DATAGRAM_SLOT, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->in_slots == MAP_FAILED) {
		t->in_slots = NULL;
		return fault(-ENOMEM);
	}
	t->out_slots = t->in_slots + (size_t)BATCH * DATAGRAM_SLOT;
	for (size_t i = 0; i < BATCH; i++) {
		t->in[i].bytes = t->in_slots + i * DATAGRAM_SLOT;
		t->out[i].bytes = t->out_slots + i * DATAGRAM_SLOT;
	}
	reset_messages(t, BATCH);
	r = udp_replies_init(&t->replies);
	return r ? r : slab_init(&t->sessions, sizeof(struct udp_session), max_sessions);
}

void udp_table_free(struct flow_env *env)
{
	struct udp_table *t = env->udp;

	if (!t)
		return;
	slab_deinit(&t->sessions);
	udp_replies_deinit(&t->replies);
	if (t->heads)
		munmap(t->heads, (t->mask + 1) * sizeof(*t->heads));
	if (t->in_slots)
		munmap(t->in_slots, (size_t)2 * BATCH * DATAGRAM_SLOT);
	free(t);
	env->udp = NULL;
}

static uint64_t session_hash(const struct flow_env *env, const struct addr *client, const struct addr *edge)
{
	struct addr pair[2] = { *client, *edge };

	return hash_bytes(pair, sizeof(pair), env->node->hash_key);
}

static struct udp_session *session_find(
	struct udp_table *t, uint64_t hash, const struct addr *client, const struct addr *edge)
{
	struct udp_session *s = t->heads[hash & t->mask];

	while (s && !(s->hash == hash && addr_equal(&s->flow.client, client) && addr_equal(&s->flow.edge, edge)))
		s = s->hash_next;
	return s;
}

static void session_unlink(struct udp_table *t, struct udp_session *s)
{
	struct udp_session **at = &t->heads[s->hash & t->mask];

	while (*at != s)
		at = &(*at)->hash_next;
	*at = s->hash_next;
}

static void drop(struct udp_session *s, enum drop_reason why, uint64_t datagrams)
{
	counter_add(&flow_stats(&s->flow)->dropped[why], datagrams);
}

uint32_t udp_session_index(const struct udp_session *s)
{
	const struct slab *slab = &s->flow.env->udp->sessions;

	return (uint32_t)((size_t)((const uint8_t *)s - slab->base) / slab->item_size);
}

/* --- end --- */

static void free_session(struct grave *grave)
{
	struct udp_session *s = CONTAINER_OF(grave, struct udp_session, grave);

	slab_give(&s->flow.env->udp->sessions, s);
}

static void session_end(struct udp_session *s, enum end_reason why)
{
	struct flow_env *env = s->flow.env;

	if (s->ended)
		return;
	s->ended = true;
	udp_flush(env); /* its last answers may still wait there */
	udp_fast_leave(s);
	timer_stop(&s->timer);
	loop_forget(&s->source);
	session_unlink(env->udp, s);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	if (s->reply) {
		unsigned int before = env->udp->replies.own_count;

		udp_reply_put(&env->udp->replies, s->reply);
		atomic_fetch_sub_explicit(&env->node->fds, before - env->udp->replies.own_count, memory_order_relaxed);
	}
	flow_finish(&s->flow, why, END_SIDE_FIRST);
	loop_bury(&env->loop, &s->grave, free_session);
}

static void session_end_now(struct flow *flow, enum end_reason why)
{
	session_end(CONTAINER_OF(flow, struct udp_session, flow), why);
}

static void look_at_time(struct flow *flow)
{
	struct udp_session *s = CONTAINER_OF(flow, struct udp_session, flow);

	if (flow->rule->rule->settings.answers)
		udp_fast_leave(s); /* answers are counted in user space */
	timer_start(&flow->env->loop.timers, &s->timer, flow->env->loop.now);
}

void udp_origin_down(struct flow_env *env, const struct endpoint *endpoint)
{
	list_for_each (node, &env->fast_sessions) {
		struct udp_session *s = CONTAINER_OF(node, struct udp_session, fast.node);

		if (s->flow.endpoint == endpoint)
			udp_fast_leave(s);
	}
}

static const struct flow_kind udp_kind = { .end_now = session_end_now, .look_at_time = look_at_time };

static nsec_t session_deadline(const struct udp_session *s)
{
	const struct rule_settings *settings = &s->flow.rule->rule->settings;
	int64_t idle_ms = settings->idle_timeout_ms;

	if (!s->answered)
		idle_ms = MIN(idle_ms, settings->unanswered_timeout_ms);
	return s->last_activity + idle_ms * NSEC_PER_MSEC;
}

/* The timer is set once and looks again when it fires: a datagram only notes the time. */
static void session_timer(struct timer *timer)
{
	struct udp_session *s = CONTAINER_OF(timer, struct udp_session, timer);
	nsec_t deadline;

	udp_fast_sync(s);
	deadline = session_deadline(s);
	if (deadline > s->flow.env->loop.now)
		timer_start(&s->flow.env->loop.timers, &s->timer, deadline);
	else
		session_end(s, s->unreachable ? END_ORIGIN_UNREACHABLE : s->answered ? END_IDLE : END_UNANSWERED);
}

/* --- the origin's socket --- */

static bool is_unreachable(int error)
{
	return error == ECONNREFUSED || error == EHOSTUNREACH || error == EACCES || error == ENETUNREACH ||
		error == EHOSTDOWN || error == ENOPROTOOPT || error == EPROTO;
}

static void note_unreachable(struct udp_session *s)
{
	env_count(s->flow.env, COUNTER_ICMP_ERRORS);
	s->unreachable = true;
	s->announced = false; /* what went there was lost, the header with it */
	pool_failed(&s->flow);
	udp_fast_leave(s);
}

/* ICMP from the origin or from on the way there. */
static void session_error(struct udp_session *s, int error)
{
	if (is_unreachable(error)) {
		note_unreachable(s);
	} else if (error == EMSGSIZE) {
		/* the kernel knows now how small the way is, and cuts what we send; the fast path would not */
		udp_fast_leave(s);
		s->fast.refused = true;
	}
}

static void session_ready(struct source *source, uint32_t events);

/* Puts a connected socket to flow.origin in place. Return: 0; -errno. */
static int session_connect(struct udp_session *s)
{
	union sockaddr_any sa;
	socklen_t length = addr_to_sockaddr(&s->flow.origin, &sa);
	int fd = sock_new(sa.sa.sa_family, SOCK_DGRAM);
	int r;

	if (fd < 0)
		return fd;
	r = connect(fd, &sa.sa, length) < 0 ? -errno : 0;
	if (r == 0)
		r = loop_add_level(&s->flow.env->loop, fd, &s->source, EPOLLIN);
	if (r) {
		close(fd);
		return r;
	}
	/* now that the kernel has chosen a port nobody has: it may be an edge port too, and answers have to leave from
	 * there */
	if (sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1)) {
		close(fd);
		return -EADDRINUSE;
	}
	if (s->fd >= 0)
		close(s->fd);
	s->fd = fd;
	s->fast.refused = false;
	s->answered = false;
	s->announced = false;
	s->unreachable = false;
	return 0;
}

/* Chooses an origin and connects to it, or to the first of the pool that can be. Return: whether there is one. */
static bool session_pick(struct udp_session *s)
{
	while (s->tried_count < ARRAY_SIZE(s->tried) &&
		pool_pick(&s->flow, (struct tried){ s->tried, s->tried_count }) == POOL_OK) {
		s->tried[s->tried_count++] = s->flow.endpoint->id;
		if (session_connect(s) == 0)
			return true;
	}
	return false;
}

/*
 * The origin was unreachable or is down, and the client goes on: take another one of the pool. With none left, all but
 * the present one are tried anew; with only one there is nothing to move to, and the socket is kept in case the origin
 * comes back.
 */
static void session_move(struct udp_session *s)
{
	struct endpoint *old = endpoint_ref(s->flow.endpoint);
	bool anew = s->answered, moved = false;

	if (pool_count(&s->flow) > 1)
		udp_fast_leave(s);
	for (int round = 0; round < 2 && !moved && pool_count(&s->flow) > 1; round++) {
		if (anew) {
			s->tried[0] = old->id;
			s->tried_count = 1;
		}
		moved = session_pick(s);
		anew = true;
	}
	if (moved)
		env_count(s->flow.env, COUNTER_SESSIONS_MOVED);
	else
		pool_use(&s->flow, old);
	endpoint_unref(old);
}

/* Whether another origin would do better. While all are down, none would. */
static bool should_move(const struct udp_session *s)
{
	return s->unreachable || (s->flow.endpoint && endpoint_is_down(s->flow.endpoint) && pool_has_up(&s->flow));
}

/* --- beginning --- */

static void say_no_reply_socket(struct flow_env *env, const struct addr *edge, int error)
{
	char text[ADDR_TEXT_SIZE];
	unsigned int suppressed;

	if (!log_allowed(&env->node->refusals[END_NO_SESSION], env->loop.now, &suppressed))
		return;
	addr_format(edge, text);
	log_error("udp %s: no socket to answer from: %s (%u more since the last message)", text, fault_text(error),
		suppressed);
}

static struct udp_session *session_new(struct flow_env *env, struct snapshot_rule *rule, uint64_t hash,
	const struct addr *client, const struct addr *edge)
{
	struct udp_table *t = env->udp;
	struct rule_stats *stats = &rule->state->stats[env->worker];
	unsigned int replies = t->replies.own_count;
	enum end_reason refused;
	struct udp_session *s;
	int r;

	if (!node_admit(env, UDP_SESSION_FDS, &refused)) {
		counter_add(&stats->ended[refused], 1);
		counter_add(&stats->dropped[DROP_REFUSED], 1);
		return NULL;
	}
	s = slab_take(&t->sessions);
	if (!s) {
		node_leave(env, UDP_SESSION_FDS);
		counter_add(&stats->ended[END_LIMIT_NODE_FLOWS], 1);
		counter_add(&stats->dropped[DROP_REFUSED], 1);
		return NULL;
	}
	memset((char *)s + sizeof(s->flow), 0, sizeof(*s) - sizeof(s->flow));
	flow_init(&s->flow, env, rule, client, edge, UDP_SESSION_FDS, &udp_kind);
	source_init(&s->source, session_ready);
	timer_init(&s->timer, session_timer);
	list_init(&s->fast.node);
	s->fd = -1;
	s->read_size = 1;
	s->hash = hash;
	s->hash_next = t->heads[hash & t->mask];
	t->heads[hash & t->mask] = s;
	if (!flow_admit(&s->flow, &refused)) {
		drop(s, DROP_REFUSED, 1);
		session_end(s, refused);
		return NULL;
	}
	if (!session_pick(s)) {
		drop(s, DROP_NO_ORIGIN, 1);
		session_end(s, END_NO_SESSION);
		return NULL;
	}
	r = udp_reply_get(&t->replies, edge, &s->reply);
	atomic_fetch_add_explicit(&env->node->fds, t->replies.own_count - replies, memory_order_relaxed);
	if (r) {
		drop(s, DROP_SEND_FAILED, 1);
		say_no_reply_socket(env, edge, r);
		session_end(s, END_NO_SESSION);
		return NULL;
	}
	s->last_activity = env->loop.now;
	timer_start(&env->loop.timers, &s->timer, session_deadline(s));
	return s;
}

/* The header in front of a datagram, if one is due. Return: its length; 0 for none. */
static size_t make_header(const struct udp_session *s, uint8_t out[static HEADER_MAX])
{
	const struct rule *rule = s->flow.rule->rule;
	bool due = false;
	int n;

	if (rule->pass == PASS_SPP) {
		spp_encode(&s->flow.client, &s->flow.edge, out);
		return SPP_SIZE;
	}
	if (rule->pass != PASS_PPV2)
		return 0;
	switch (rule->settings.ppv2_mode) {
	case PPV2_MODE_FIRST:
		due = !s->announced;
		break;
	case PPV2_MODE_UNTIL_REPLY:
		due = !s->answered;
		break;
	case PPV2_MODE_EVERY:
		due = true;
		break;
	}
	if (!due)
		return 0;
	n = proxy_v2_encode(PROXY_DGRAM, &s->flow.client, &s->flow.edge, out);
	ASSERT(n > 0); /* a client and the address it wrote to are of one family */
	return (size_t)n;
}

/* --- sending --- */

static void batch_begin(struct send_batch *b, int fd)
{
	b->fd = fd;
	b->messages = b->datagrams = b->iovs = 0;
}

/* The next free place in a message's control buffer, filled in. */
static void put_control(struct msghdr *m, uint8_t *control, int level, int type, const void *data, size_t size)
{
	struct cmsghdr *c = (struct cmsghdr *)(void *)(control + m->msg_controllen);

	m->msg_control = control;
	m->msg_controllen += CMSG_SPACE(size);
	ASSERT(m->msg_controllen <= CONTROL_SIZE);
	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(c), data, size);
}

/* To the client: its address, and the one it wrote to as the source. */
static void address_to_client(struct msghdr *m, union sockaddr_any *name, uint8_t *control, const struct flow *f)
{
	m->msg_name = name;
	m->msg_namelen = addr_to_sockaddr(&f->client, name);
	if (ip_is_v4(&f->edge.ip)) {
		struct in_pktinfo info = { 0 };

		memcpy(&info.ipi_spec_dst, f->edge.ip.bytes + 12, 4);
		put_control(m, control, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	} else {
		struct in6_pktinfo info = { .ipi6_ifindex = f->edge.scope_id };

		memcpy(&info.ipi6_addr, f->edge.ip.bytes, 16);
		put_control(m, control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	}
}

/* Whether a datagram may join the last message. */
static bool can_join(const struct send_batch *b, const struct udp_session *s, size_t length)
{
	unsigned int last = b->messages - 1;

	return b->messages && b->session[last] == s && !s->no_gso && !b->closed[last] && length > 0 &&
		length <= b->segment[last] && b->total[last] + length <= GSO_BYTES_MAX;
}

/* @bytes stay the caller's until batch_send(). The header is what make_header() put into b->header[b->datagrams]. */
static void batch_add(struct send_batch *b, struct udp_session *s, bool to_client, size_t header_length, uint8_t *bytes,
	size_t length)
{
	size_t total = header_length + length;
	struct iovec *iov = &b->iov[b->iovs];
	unsigned int m;

	if (!can_join(b, s, total)) {
		m = b->messages++;
		b->message[m] = (struct mmsghdr){ .msg_hdr = { .msg_iov = iov } };
		b->session[m] = s;
		b->first_datagram[m] = b->datagrams;
		b->message_datagrams[m] = 0;
		b->segment[m] = total;
		b->total[m] = 0;
		b->closed[m] = false;
		if (to_client)
			address_to_client(&b->message[m].msg_hdr, &b->name[m], b->control[m], &s->flow);
	}
	m = b->messages - 1;
	if (header_length)
		*iov++ = (struct iovec){ b->header[b->datagrams], header_length };
	*iov++ = (struct iovec){ bytes, length };
	b->datagram_iovs[b->datagrams++] = (uint8_t)(header_length ? 2 : 1);
	b->message[m].msg_hdr.msg_iovlen += header_length ? 2 : 1;
	b->iovs = (unsigned int)(iov - b->iov);
	b->message_datagrams[m]++;
	b->total[m] += total;
	b->closed[m] = total < b->segment[m];
}

/* The kernel or the path refuses segmentation: the datagrams of a message, one by one. */
static void send_singly(struct send_batch *b, unsigned int m, bool to_client)
{
	struct udp_session *s = b->session[m];
	struct iovec *iov = b->message[m].msg_hdr.msg_iov;

	s->no_gso = true;
	for (unsigned int i = 0; i < b->message_datagrams[m]; i++) {
		struct msghdr single = { .msg_iov = iov, .msg_iovlen = b->datagram_iovs[b->first_datagram[m] + i] };

		if (to_client)
			address_to_client(&single, &b->name[m], b->control[m], &s->flow);
		if (sendmsg(b->fd, &single, MSG_NOSIGNAL) < 0)
			drop(s, errno == EMSGSIZE ? DROP_TOO_BIG : DROP_SEND_FAILED, 1);
		iov += single.msg_iovlen;
	}
}

/* Message @m could not be sent. Return: whether to try it again. */
static bool send_failed(struct send_batch *b, unsigned int m, bool to_client, int error, bool tried_again)
{
	struct udp_session *s = b->session[m];
	unsigned int datagrams = b->message_datagrams[m];

	if (!to_client && (is_unreachable(error) || error == EMSGSIZE)) {
		session_error(s, error);
		/* ICMP brought the error of an earlier datagram, and taking it has cost this one its turn */
		if (!tried_again)
			return true;
	}
	if (datagrams > 1 && (error == EINVAL || error == EIO || error == EMSGSIZE)) {
		send_singly(b, m, to_client);
		return false;
	}
	if (!to_client && is_unreachable(error))
		drop(s, DROP_UNREACHABLE, datagrams);
	else
		drop(s, error == EMSGSIZE ? DROP_TOO_BIG : DROP_SEND_FAILED, datagrams);
	if (!to_client && s->flow.rule->rule->settings.ppv2_mode == PPV2_MODE_FIRST &&
		s->flow.datagrams_in == datagrams)
		s->announced = false; /* the header was lost with its datagram: the next one carries it */
	return false;
}

/* A single datagram without a header to a connected socket, the commonest case, has a cheaper system call. */
static int send_messages(struct send_batch *b, unsigned int at, bool to_client)
{
	if (!to_client && b->iovs == 1)
		return send(b->fd, b->iov[0].iov_base, b->iov[0].iov_len, MSG_NOSIGNAL) < 0 ? -1 : 1;
	return sendmmsg(b->fd, b->message + at, b->messages - at, MSG_NOSIGNAL);
}

static void batch_send(struct send_batch *b, bool to_client)
{
	bool tried_again = false;
	unsigned int at = 0;

	for (unsigned int m = 0; m < b->messages; m++)
		if (b->message_datagrams[m] > 1)
			put_control(&b->message[m].msg_hdr, b->control[m], IPPROTO_UDP, UDP_SEGMENT,
				&(uint16_t){ (uint16_t)b->segment[m] }, sizeof(uint16_t));
	while (at < b->messages) {
		int n = send_messages(b, at, to_client);

		if (n > 0) {
			at += (unsigned int)n;
			tried_again = false;
		} else if (send_failed(b, at, to_client, errno, tried_again)) {
			tried_again = true;
		} else {
			at++;
			tried_again = false;
		}
	}
}

/* --- from clients to origins --- */

/* The datagrams of one session out of a listener's batch. */
static void session_send(struct udp_session *s)
{
	struct udp_table *t = s->flow.env->udp;
	struct send_batch *b = &t->send;
	unsigned int at = s->batch_first, count = s->batch_count;
	nsec_t pause = s->flow.env->loop.now - s->last_activity;

	s->batch_count = 0;
	if (s->ended)
		return;
	if (should_move(s))
		session_move(s);
	s->unreachable = false;
	s->last_activity = s->flow.env->loop.now;
	batch_begin(b, s->fd);
	for (unsigned int i = 0; i < count; i++, at = t->in[at].next) {
		struct datagram_in *d = &t->in[at];
		size_t header = make_header(s, b->header[b->datagrams]);

		s->flow.datagrams_in++;
		counter_add(&flow_stats(&s->flow)->datagrams_in, 1);
		flow_in(&s->flow, d->length);
		if (header + d->length > DATAGRAM_MAX) {
			drop(s, DROP_TOO_BIG, 1);
			continue;
		}
		s->announced |= header > 0;
		batch_add(b, s, false, header, d->bytes, d->length);
	}
	batch_send(b, false);
	udp_fast_consider(s, pause);
}

/* Which address and port a datagram was sent to. */
static bool edge_of(struct msghdr *m, struct addr *ret_edge)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		union sockaddr_any sa;

		if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVORIGDSTADDR) ||
			(c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVORIGDSTADDR)) {
			memset(&sa, 0, sizeof(sa));
			memcpy(&sa, CMSG_DATA(c), MIN(sizeof(sa), (size_t)(c->cmsg_len - CMSG_LEN(0))));
			*ret_edge = addr_from_sockaddr(&sa);
			return true;
		}
	}
	return false;
}

/* The session of a datagram, made if there is none; NULL when it is refused (and counted). */
static struct udp_session *session_for(struct flow_env *env, const struct addr *client, const struct addr *edge)
{
	uint64_t hash = session_hash(env, client, edge);
	struct udp_session *s = session_find(env->udp, hash, client, edge);
	struct snapshot_rule *rule;

	if (s)
		return s;
	rule = env->stopping ? NULL : snapshot_find(env->snapshot, PROTOCOL_UDP, edge->port);
	if (!rule) {
		counter_add(&env->dropped[DROP_NO_RULE], 1);
		return NULL;
	}
	return session_new(env, rule, hash, client, edge);
}

/* Sorts one batch by session and sends each session's share. */
static void handle_batch(struct flow_env *env, unsigned int count)
{
	struct udp_table *t = env->udp;
	struct udp_session *touched = NULL, **tail = &touched;

	for (unsigned int i = 0; i < count; i++) {
		struct msghdr *m = &t->in_messages[i].msg_hdr;
		struct addr client, edge;
		struct udp_session *s;

		if (m->msg_flags & MSG_TRUNC || !edge_of(m, &edge)) {
			counter_add(&env->dropped[DROP_TRUNCATED], 1);
			continue;
		}
		client = addr_from_sockaddr(&t->in_names[i]);
		s = session_for(env, &client, &edge);
		if (!s)
			continue;
		t->in[i].length = t->in_messages[i].msg_len;
		if (s->batch_count == 0) {
			s->batch_first = (uint8_t)i;
			s->batch_next = NULL;
			*tail = s;
			tail = &s->batch_next;
		} else {
			t->in[s->batch_last].next = (uint8_t)i;
		}
		s->batch_last = (uint8_t)i;
		s->batch_count++;
	}
	for (struct udp_session *s = touched; s; s = s->batch_next)
		session_send(s);
}

void udp_listener_ready(struct source *source, uint32_t events)
{
	struct udp_listener *l = CONTAINER_OF(source, struct udp_listener, source);

	(void)events;
	if (l->fd < 0)
		return;
	for (int round = 0; round < LISTENER_ROUNDS; round++) {
		int n = recvmmsg(l->fd, l->env->udp->in_messages, BATCH, MSG_DONTWAIT, NULL);

		if (n <= 0)
			return; /* empty; or an error that belongs to one datagram and is gone with it */
		handle_batch(l->env, (unsigned int)n);
		reset_messages(l->env->udp, (unsigned int)n);
		if (n < BATCH)
			return;
	}
	loop_again(&l->env->loop, source);
}

/* --- from origins to clients --- */

/*
 * Takes the SPP header off an answer.
 * Return: false when the answer is to be dropped.
 */
static bool strip_spp(struct udp_session *s, uint8_t **bytes, size_t *length)
{
	struct addr client, edge;
	bool ours = spp_decode(*bytes, *length, &client, &edge) == SPP_OK && client.port == s->flow.client.port &&
		edge.port == s->flow.edge.port && ip_equal(&client.ip, &s->flow.client.ip) &&
		ip_equal(&edge.ip, &s->flow.edge.ip);
	size_t cut = ours ? SPP_SIZE : 0;

	if (!ours)
		env_count(s->flow.env, COUNTER_SPP_ANSWERS_BARE);
	switch (s->flow.rule->rule->settings.spp_answers) {
	case SPP_ANSWERS_LENIENT:
		break;
	case SPP_ANSWERS_STRICT:
		if (!ours) {
			drop(s, DROP_BAD_SPP, 1);
			return false;
		}
		break;
	case SPP_ANSWERS_EDGEONE:
		cut = MIN(*length, (size_t)SPP_SIZE);
		break;
	}
	*bytes += cut;
	*length -= cut;
	return true;
}

/* "answers=N": over when every datagram has had N of them. */
static bool all_answered(const struct udp_session *s)
{
	uint32_t answers = s->flow.rule->rule->settings.answers;

	return answers && s->flow.datagrams_out >= s->flow.datagrams_in * answers;
}

void udp_flush(struct flow_env *env)
{
	struct udp_table *t = env->udp;
	struct send_batch *b = &t->send;
	unsigned int count = t->out_count;

	if (count == 0)
		return;
	t->out_count = 0; /* ending a session below comes back here */
	batch_begin(b, t->out[0].session->reply->fd);
	for (unsigned int i = 0; i < count; i++) {
		struct udp_session *s = t->out[i].session;
		uint8_t *bytes = t->out[i].bytes;
		size_t length = t->out[i].length;

		if (s->flow.rule->rule->pass == PASS_SPP && !strip_spp(s, &bytes, &length))
			continue;
		if (s->reply->fd != b->fd) {
			batch_send(b, true);
			batch_begin(b, s->reply->fd);
		}
		s->flow.datagrams_out++;
		counter_add(&flow_stats(&s->flow)->datagrams_out, 1);
		flow_out(&s->flow, length);
		batch_add(b, s, true, 0, bytes, length);
	}
	batch_send(b, true);
	for (unsigned int i = 0; i < count; i++)
		if (all_answered(t->out[i].session))
			session_end(t->out[i].session, END_ANSWERED);
}

/* Reads up to read_size answers of a session into the out slots. Return: how many; 0 for none. */
static unsigned int read_answers(struct udp_session *s)
{
	struct udp_table *t = s->flow.env->udp;
	struct mmsghdr messages[ORIGIN_READ_MAX];
	struct iovec iov[ORIGIN_READ_MAX];
	ssize_t n;

	if (s->read_size == 1) {
		n = recv(s->fd, t->out[t->out_count].bytes, DATAGRAM_SLOT, MSG_DONTWAIT);
		messages[0].msg_len = (unsigned int)n;
		n = n < 0 ? n : 1;
	} else {
		for (unsigned int i = 0; i < s->read_size; i++) {
			iov[i] = (struct iovec){ t->out[t->out_count + i].bytes, DATAGRAM_SLOT };
			messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &iov[i], .msg_iovlen = 1 } };
		}
		n = recvmmsg(s->fd, messages, s->read_size, MSG_DONTWAIT, NULL);
	}
	if (n < 0) {
		if (is_unreachable(errno))
			note_unreachable(s);
		return 0;
	}
	for (ssize_t i = 0; i < n; i++) {
		t->out[t->out_count].session = s;
		t->out[t->out_count++].length = messages[i].msg_len;
	}
	return (unsigned int)n;
}

/* A socket that has had answers in two turns of the loop running, or as many as asked for, is asked for more at a time.
 */
static void adapt_read_size(struct udp_session *s, unsigned int n)
{
	uint32_t turn = s->flow.env->loop.turn;

	if (n == s->read_size && (n > 1 || turn == s->read_turn + 1))
		s->read_size = (uint8_t)MIN(n * 4, (unsigned int)ORIGIN_READ_MAX);
	else if (n < s->read_size)
		s->read_size = (uint8_t)MAX(n, 1u);
	s->read_turn = turn;
}

/* Level-triggered: what is left in the socket brings us here again in the next turn. */
static void session_ready(struct source *source, uint32_t events)
{
	struct udp_session *s = CONTAINER_OF(source, struct udp_session, source);
	struct flow_env *env = s->flow.env;
	unsigned int n;

	if (s->ended)
		return;
	if (events & EPOLLERR)
		session_error(s, sock_error(s->fd));
	if (BATCH - env->udp->out_count < s->read_size)
		udp_flush(env);
	if (s->ended)
		return;
	n = read_answers(s);
	if (n == 0)
		return;
	s->answered = true;
	s->unreachable = false;
	pool_worked(s->flow.endpoint);
	s->last_activity = env->loop.now;
	adapt_read_size(s, n);
}

/* --- reply sockets of plain binds --- */

void udp_reply_lend(struct flow_env *env, int family, uint16_t port, int fd)
{
	/* without memory for the entry, answers leave by a socket of their own: slower, but right */
	if (udp_reply_set_lent(&env->udp->replies, family == AF_INET, port, fd))
		return;
}

void udp_reply_revoke(struct flow_env *env, int family, uint16_t port, int fd)
{
	struct udp_reply *reply = env->udp->replies.by_port[family == AF_INET][port];

	if (reply && reply->fd == fd && udp_reply_set_lent(&env->udp->replies, family == AF_INET, port, -1))
		return;
}
