/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carrying bytes both ways. The two directions are independent: each has its own end of stream, passed on as a FIN
 * when everything before it was delivered.
 *
 * Back-pressure stands in pump() alone. Bytes are read into the worker's scratch buffer and written at once. What the
 * other side does not take is kept in chunks, and that direction is not read again until they are gone. The chunks of
 * all flows come from one bounded pool: the less of it is free, the less is read at a time, so that no set of slow
 * readers can use it up; and when it is empty, bytes are only looked at (MSG_PEEK), written, and then taken as far as
 * they were written. So a flow always goes on, and memory stays bounded.
 */
#include "base/error.h"
#include "flow/tcp_fast.h"
#include "flow/tcp_flow.h"
#include "io/sock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
	POOL_SHARE = 16, /* a read may leave behind at most this fraction of the free pool */
	PEEK_SIZE = 64 << 10,
	SETTLE_MS = 10000, /* flows that live longer get keep-alive; the short ones save the system calls */
	FLUSH_CHUNKS = 64,
};

struct chunk {
	struct chunk *next;
	uint32_t from; /* the bytes [from, to) are still to be written */
	uint32_t to;
	uint8_t bytes[CHUNK_SIZE - 16];
};
_Static_assert(sizeof(struct chunk) == CHUNK_SIZE, "a chunk fills its slab item");

enum pump_result { PUMP_DONE, PUMP_AGAIN, PUMP_ENDED };

bool side_keep(struct tcp_flow *f, enum side_id id, const uint8_t *bytes, size_t length)
{
	struct tcp_side *side = &f->side[id];

	while (length) {
		struct chunk *chunk = slab_take(&f->flow.env->chunks);
		size_t n = MIN(length, sizeof(chunk->bytes));

		if (!chunk)
			return false;
		memcpy(chunk->bytes, bytes, n);
		chunk->next = NULL;
		chunk->from = 0;
		chunk->to = (uint32_t)n;
		if (side->pending)
			side->pending_last->next = chunk;
		else
			side->pending = chunk;
		side->pending_last = chunk;
		bytes += n;
		length -= n;
	}
	return true;
}

static void drop_first(struct tcp_flow *f, struct tcp_side *side)
{
	struct chunk *chunk = side->pending;

	side->pending = chunk->next;
	slab_give(&f->flow.env->chunks, chunk);
}

void side_drop_pending(struct tcp_flow *f, enum side_id id)
{
	while (f->side[id].pending)
		drop_first(f, &f->side[id]);
}

/* Writes what is kept for a side. Return: 0, also when some is left (the side is not writable then); -errno. */
static int flush(struct tcp_flow *f, struct tcp_side *side)
{
	while (side->pending && side->writable) {
		struct iovec iov[FLUSH_CHUNKS];
		struct msghdr message = { .msg_iov = iov };
		size_t length = 0, left;
		ssize_t n;

		for (struct chunk *c = side->pending; c && message.msg_iovlen < FLUSH_CHUNKS; c = c->next) {
			iov[message.msg_iovlen++] = (struct iovec){ c->bytes + c->from, c->to - c->from };
			length += c->to - c->from;
		}
		n = sendmsg(side->fd, &message, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return -errno;
		left = n < 0 ? 0 : (size_t)n;
		side->writable = left == length;
		if (left)
			f->last_activity = f->flow.env->loop.now;
		while (left) {
			struct chunk *c = side->pending;
			size_t step = MIN(left, (size_t)(c->to - c->from));

			c->from += (uint32_t)step;
			left -= step;
			if (c->from == c->to)
				drop_first(f, side);
		}
	}
	return 0;
}

int relay_flush(struct tcp_flow *f, enum side_id id)
{
	return flush(f, &f->side[id]);
}

/* How much may be read so that the pool can keep all of it; 0 when only looking is safe. */
static size_t read_size(const struct flow_env *env)
{
	size_t chunks = slab_left(&env->chunks);

	if (chunks < POOL_SHARE)
		return 0;
	return MIN(chunks / POOL_SHARE * sizeof(((struct chunk *)0)->bytes), (size_t)RELAY_BUFFER_SIZE);
}

void relay_count(struct tcp_flow *f, enum side_id from, size_t bytes)
{
	if (from == SIDE_CLIENT)
		flow_in(&f->flow, bytes);
	else
		flow_out(&f->flow, bytes);
	tcp_fast_count(f, bytes);
	f->last_activity = f->flow.env->loop.now;
}

static enum pump_result pump_error(struct tcp_flow *f, enum side_id side, int error)
{
	/* a failed write says EPIPE when the RST came earlier; the reason is the same */
	tcp_end_of_error(f, side, error);
	f->side[side].failed = true;
	return PUMP_ENDED;
}

/* A read has come back: learn from it what the kernel will not say again. */
static void after_read(struct tcp_side *from, size_t got, size_t wanted)
{
	if (got == wanted || from->urgent)
		return;
	from->readable = false;
	from->eof = from->half_closed;
}

/* Takes and writes one bufferful. Return: PUMP_AGAIN when there may be more. */
static enum pump_result pump_once(struct tcp_flow *f, enum side_id from_id, struct tcp_side *from, struct tcp_side *to)
{
	size_t size = read_size(f->flow.env);
	bool peek = size == 0;
	ssize_t n, sent;

	if (peek) {
		size = PEEK_SIZE;
		env_count(f->flow.env, COUNTER_RELAY_PEEKS);
	}
	n = recv(from->fd, f->flow.env->scratch, size, peek ? MSG_PEEK : 0);
	if (n < 0 && errno == EAGAIN) {
		from->readable = false;
		return PUMP_DONE;
	}
	if (n < 0)
		return pump_error(f, from_id, errno);
	if (n == 0) {
		from->eof = true;
		return PUMP_DONE;
	}
	sent = send(to->fd, f->flow.env->scratch, (size_t)n, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		return pump_error(f, from_id == SIDE_CLIENT ? SIDE_ORIGIN : SIDE_CLIENT, errno);
	sent = MAX(sent, 0);
	to->writable = sent == n;
	if (peek) {
		if (sent && recv(from->fd, NULL, (size_t)sent, MSG_TRUNC) != sent)
			return pump_error(f, from_id, ECONNRESET);
		relay_count(f, from_id, (size_t)sent);
		if (sent == n)
			after_read(from, (size_t)n, size);
	} else {
		bool kept = side_keep(f, from_id == SIDE_CLIENT ? SIDE_ORIGIN : SIDE_CLIENT,
			f->flow.env->scratch + sent, (size_t)(n - sent));

		ASSERT(kept); /* read_size() left room for all of it */
		relay_count(f, from_id, (size_t)n);
		after_read(from, (size_t)n, size);
	}
	return from->readable && to->writable ? PUMP_AGAIN : PUMP_DONE;
}

/* One direction: what is kept first, then a bufferful, then the end of stream. */
static enum pump_result pump(struct tcp_flow *f, enum side_id from_id)
{
	enum side_id to_id = from_id == SIDE_CLIENT ? SIDE_ORIGIN : SIDE_CLIENT;
	struct tcp_side *from = &f->side[from_id], *to = &f->side[to_id];
	enum pump_result result = PUMP_DONE;
	int r;

	if (to->shut)
		return PUMP_DONE;
	r = flush(f, to);
	if (r)
		return pump_error(f, to_id, -r);
	if (to->pending)
		return PUMP_DONE;
	if (!from->eof && from->readable && to->writable) {
		result = pump_once(f, from_id, from, to);
		if (result == PUMP_ENDED)
			return result;
	}
	if (from->eof && f->first_eof == SIDE_N)
		f->first_eof = (uint8_t)from_id;
	if (from->eof && !to->pending) {
		if (!to->eof || from->pending) {
			/* half-close; when the other direction is over and delivered, close() says the same without
			 * this call */
			shutdown(to->fd, SHUT_WR);
		}
		to->shut = true;
		f->last_activity = f->flow.env->loop.now;
		return PUMP_DONE;
	}
	return result;
}

/*
 * The kernel reports an error on a side. What it still holds of that side's bytes is passed on as far as the other side
 * takes it, then the flow ends; the end itself is passed on as RST, never as a FIN.
 */
static void pass_on_rest(struct tcp_flow *f, enum side_id id)
{
	struct tcp_side *from = &f->side[id], *to = &f->side[id == SIDE_CLIENT ? SIDE_ORIGIN : SIDE_CLIENT];

	from->readable = true;
	if (!to->shut && !to->failed && flush(f, to) == 0 && !to->pending)
		while (!from->eof && to->writable && pump_once(f, id, from, to) == PUMP_AGAIN)
			;
}

static enum step side_failed(struct tcp_flow *f, enum side_id id)
{
	int error = sock_error(f->side[id].fd);

	pass_on_rest(f, id);
	return tcp_end_of_error(f, id, error);
}

/* A read or a write has failed and tcp_end() was told why; the side may have sent something before. */
static enum step pump_failed(struct tcp_flow *f)
{
	uint8_t why = f->end, side = f->end_side;

	for (int i = 0; i < SIDE_N; i++)
		if (f->side[i].failed)
			pass_on_rest(f, (enum side_id)i);
	return tcp_end(f, (enum end_reason)why, (enum end_side)side);
}

static void set_keepalive(struct tcp_flow *f)
{
	int seconds = (int)(f->flow.rule->rule->settings.keepalive_ms / 1000);

	f->keepalive_set = true;
	for (int i = 0; i < SIDE_N && seconds; i++) {
		int fd = f->side[i].fd;

		/* these can't fail on a TCP socket, and a flow without probes is still a flow */
		if (sock_set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) || sock_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds) ||
			sock_set(fd, IPPROTO_TCP, TCP_KEEPINTVL, MAX(seconds / KEEPALIVE_PART, 1)) ||
			sock_set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES))
			return;
	}
}

/* The timer fires at the earliest time something could be due; activity since then only moves it on. */
static enum step on_timer(struct tcp_flow *f)
{
	int64_t idle_ms = (f->flow.env->loop.now - f->last_activity) / NSEC_PER_MSEC;
	int64_t left_ms = f->flow.rule->rule->settings.idle_timeout_ms - idle_ms;

	f->timed_out = false;
	if (left_ms <= 0)
		return tcp_end(f, END_IDLE, END_SIDE_FIRST);
	if (!f->keepalive_set)
		set_keepalive(f);
	tcp_timer(f, left_ms);
	return STEP_WAIT;
}

enum step tcp_relay(struct tcp_flow *f)
{
	bool begins = f->last_activity == 0;

	if (begins) {
		f->last_activity = f->flow.env->loop.now;
		tcp_timer(f, MIN(f->flow.rule->rule->settings.idle_timeout_ms, (int64_t)SETTLE_MS));
		tcp_fast_begin(f);
	}
	if (tcp_fast_owns(f)) {
		enum step step = tcp_fast_run(f);

		if (step != STEP_NEXT)
			return step;
		if (tcp_fast_owns(f))
			return f->timed_out ? on_timer(f) : STEP_WAIT;
	}
	for (int i = 0; i < SIDE_N; i++)
		if (f->side[i].failed)
			return side_failed(f, (enum side_id)i);
	for (int i = 0; i < SIDE_N; i++) {
		enum side_id id = (enum side_id)i;

		switch (pump(f, id)) {
		case PUMP_DONE:
			break;
		case PUMP_AGAIN:
			loop_again(&f->flow.env->loop, &f->side[id].source);
			break;
		case PUMP_ENDED:
			return pump_failed(f);
		}
	}
	if (f->side[SIDE_CLIENT].shut && f->side[SIDE_ORIGIN].shut)
		return tcp_end(f, END_DONE, f->first_eof == SIDE_CLIENT ? END_SIDE_CLIENT : END_SIDE_ORIGIN);
	if (tcp_fast_due(f))
		tcp_fast_consider(f);
	return f->timed_out ? on_timer(f) : STEP_WAIT;
}
