/* SPDX-License-Identifier: Apache-2.0 */
#include "edge/checker.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "io/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	BUCKETS = 4096,
	ANSWER_MAX = 65536, /* of a udp check */
};

struct checker {
	struct loop *loop;
	struct node_state *node;
	void (*changed)(void *owner, struct target *target);
	void *owner;
	unsigned int under_way;
	struct list waiting; /* targets whose time has come while CHECKER_PROBES_MAX were under way */
	struct list buckets[BUCKETS];
	uint8_t answer[ANSWER_MAX];
};

static struct health_policy policy_of(const struct target *t)
{
	return (struct health_policy){
		.rise = t->check.rise,
		.fall = t->check.fall,
		.passive_fall = t->passive_fails ? 1 : 0, /* the workers have counted */
	};
}

/* --- what comes of a probe --- */

static void say_change(const struct target *t)
{
	char addr[ADDR_TEXT_SIZE];

	addr_format(&t->addr, addr);
	if (target_is_down(t))
		log_warning("origin %s is down: %s", addr, health_reason_help(t->health.reason));
	else
		log_info("origin %s is up again after %lld ms", addr,
			(long long)((t->health.since - t->down_since) / NSEC_PER_MSEC));
}

static void state_changed(struct target *t)
{
	if (target_is_down(t))
		t->down_since = t->health.since;
	say_change(t);
	t->checker->changed(t->checker->owner, t);
}

static void schedule(struct target *t)
{
	nsec_t interval = t->check.interval_ms * NSEC_PER_MSEC;

	timer_start(&t->checker->loop->timers, &t->timer, health_next(interval, t->seed, clock_now()));
}

static void probe_close(struct target *t)
{
	struct checker *c = t->checker;

	timer_stop(&t->timer);
	loop_forget(&t->source);
	/* a reset, so that no port waits for minutes after each probe */
	sock_close(t->fd, t->check.type == CHECK_TYPE_TCP);
	t->fd = -1;
	c->under_way--;
	atomic_fetch_sub_explicit(&c->node->fds, 1, memory_order_relaxed);
	if (!list_empty(&c->waiting)) {
		struct target *next = CONTAINER_OF(c->waiting.next, struct target, waiting);

		list_del(&next->waiting);
		timer_start(&c->loop->timers, &next->timer, 0);
	}
}

static void result(struct target *t, enum health_reason reason)
{
	const struct health_policy policy = policy_of(t);
	nsec_t now = clock_now();

	if (health_probe(&t->health, &policy, reason, now - t->began, now))
		state_changed(t);
	schedule(t);
}

static void probe_done(struct target *t, enum health_reason reason)
{
	probe_close(t);
	result(t, reason);
}

static enum health_reason reason_of(int error)
{
	switch (error) {
	case 0:
		return HEALTH_OK;
	case ECONNREFUSED:
	case ECONNRESET:
		return HEALTH_CONNECT_REFUSED;
	case ETIMEDOUT:
		return HEALTH_CONNECT_TIMEOUT;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
	case ENOBUFS:
		return HEALTH_FAULT;
	default:
		return HEALTH_UNREACHABLE;
	}
}

static bool answer_fits(const struct target *t, size_t length)
{
	const struct payload *expect = &t->check.expect;

	return length >= expect->length && memcmp(t->checker->answer, expect->bytes, expect->length) == 0;
}

static void udp_answered(struct target *t)
{
	ssize_t n = recv(t->fd, t->checker->answer, ANSWER_MAX, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n < 0)
		probe_done(t, reason_of(errno));
	else
		probe_done(t, answer_fits(t, (size_t)n) ? HEALTH_OK : HEALTH_WRONG_ANSWER);
}

static void ready(struct source *source, uint32_t events)
{
	struct target *t = CONTAINER_OF(source, struct target, source);

	if (t->fd < 0)
		return; /* still in the batch of events in which it ended */
	if (t->check.type == CHECK_TYPE_UDP)
		udp_answered(t);
	else if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		probe_done(t, reason_of(sock_error(t->fd)));
}

/* --- probing --- */

static int probe_open(struct target *t)
{
	bool udp = t->check.type == CHECK_TYPE_UDP;
	struct node_state *node = t->checker->node;
	union sockaddr_any sa;
	socklen_t length = addr_to_sockaddr(&t->addr, &sa);
	int r;

	if (atomic_fetch_add_explicit(&node->fds, 1, memory_order_relaxed) >= node->fd_max)
		t->fd = -EMFILE;
	else
		t->fd = sock_new(sa.sa.sa_family, udp ? SOCK_DGRAM : SOCK_STREAM);
	if (t->fd < 0) {
		atomic_fetch_sub_explicit(&node->fds, 1, memory_order_relaxed);
		return t->fd;
	}
	t->checker->under_way++;
	source_init(&t->source, ready);
	if (connect(t->fd, &sa.sa, length) < 0 && errno != EINPROGRESS)
		return -errno;
	r = loop_add(t->checker->loop, t->fd, &t->source, udp ? EPOLLIN : EPOLLOUT);
	if (r)
		return r;
	if (udp && send(t->fd, t->check.send.bytes, t->check.send.length, MSG_NOSIGNAL) < 0)
		return -errno;
	return 0;
}

static void probe_begin(struct target *t)
{
	int r;

	t->began = clock_now();
	r = probe_open(t);
	if (r == 0) {
		timer_start(&t->checker->loop->timers, &t->timer, t->began + t->check.timeout_ms * NSEC_PER_MSEC);
		return;
	}
	if (t->fd >= 0)
		probe_close(t);
	t->fd = -1;
	result(t, reason_of(-r));
}

/* The time of the next probe, or the end of the time that one has. */
static void timer_fired(struct timer *timer)
{
	struct target *t = CONTAINER_OF(timer, struct target, timer);

	if (t->fd < 0 && t->checker->under_way < CHECKER_PROBES_MAX)
		probe_begin(t);
	else if (t->fd < 0)
		list_add(&t->checker->waiting, &t->waiting);
	else if (t->check.type == CHECK_TYPE_TCP)
		probe_done(t, HEALTH_CONNECT_TIMEOUT);
	else /* no ICMP came, which is all that can be asked of an origin that need not answer */
		probe_done(t, t->check.expect.length ? HEALTH_NO_ANSWER : HEALTH_OK);
}

/* --- targets --- */

static uint64_t target_hash(const struct addr *addr)
{
	return hash_bytes(addr, sizeof(*addr), 0);
}

static bool same_check(const struct check_settings *a, const struct check_settings *b)
{
	for (unsigned int id = 0; id < setting_count(SETTING_SCOPE_CHECK); id++)
		if (id != CHECK_SETTING_port && !setting_equal(SETTING_SCOPE_CHECK, id, a, b))
			return false;
	return true;
}

struct target *checker_watch(
	struct checker *c, const struct addr *addr, const struct check_settings *check, uint32_t passive_fails)
{
	uint64_t hash = target_hash(addr);
	struct list *bucket = &c->buckets[hash % BUCKETS];
	struct target *t;

	list_for_each (node, bucket) {
		t = CONTAINER_OF(node, struct target, node);
		if (addr_equal(&t->addr, addr) && t->passive_fails == passive_fails && same_check(&t->check, check)) {
			t->references++;
			return t;
		}
	}
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->checker = c;
	t->addr = *addr;
	t->check = *check;
	t->passive_fails = passive_fails;
	t->references = 1;
	t->seed = hash;
	t->fd = -1;
	list_init(&t->users);
	list_init(&t->waiting);
	source_init(&t->source, ready);
	timer_init(&t->timer, timer_fired);
	health_init(&t->health, clock_now());
	list_add(bucket, &t->node);
	schedule(t);
	return t;
}

static void target_free(struct grave *grave)
{
	free(CONTAINER_OF(grave, struct target, grave));
}

void checker_unwatch(struct target *t)
{
	if (!t || --t->references)
		return;
	if (t->fd >= 0)
		probe_close(t);
	timer_stop(&t->timer);
	list_del(&t->waiting);
	list_del(&t->node);
	loop_bury(t->checker->loop, &t->grave, target_free);
}

void checker_failed(struct target *t, enum protocol protocol)
{
	const struct health_policy policy = policy_of(t);
	enum health_reason reason = protocol == PROTOCOL_TCP ? HEALTH_PASSIVE_CONNECT : HEALTH_PASSIVE_UNREACHABLE;

	if (health_passive(&t->health, &policy, reason, clock_now()))
		state_changed(t);
}

/* --- beginning and end --- */

int checker_new(struct loop *loop, struct node_state *node, void (*changed)(void *owner, struct target *target),
	void *owner, struct checker **ret_checker)
{
	struct checker *c = calloc(1, sizeof(*c));

	if (!c)
		return fault(-ENOMEM);
	c->loop = loop;
	c->node = node;
	c->changed = changed;
	c->owner = owner;
	list_init(&c->waiting);
	for (size_t i = 0; i < BUCKETS; i++)
		list_init(&c->buckets[i]);
	*ret_checker = c;
	return 0;
}

void checker_free(struct checker *c)
{
	free(c);
}
