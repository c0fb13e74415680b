/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of TCP flows: events and timers come in, the present stage runs until it waits. A flow is freed at the
 * end of the loop's turn in which it ended, since the kernel may still have events for it in the batch.
 */
#include "flow/tcp_flow.h"
#include "base/error.h"
#include "flow/tcp_fast.h"
#include "io/sock.h"

#include <errno.h>
#include <string.h>

static const struct {
	enum step (*run)(struct tcp_flow *f);
	const char *doing;
} stages[TCP_STAGE_N] = {
#define STAGE(id, function, doing) [TCP_STAGE_##id] = { function, doing },
#include "tables/stage.def"
};

/* A flow that the edge itself could not go on with: said once in a while, with what was being done. */
static void say_fault(struct tcp_flow *f)
{
	struct flow_env *env = f->flow.env;
	unsigned int suppressed;

	if (f->end == END_FAULT && log_allowed(&env->node->refusals[END_FAULT], env->loop.now, &suppressed))
		log_error("%s: a connection ended in a fault while %s (%u more since the last message)",
			f->flow.rule->rule->id, stages[f->stage].doing, suppressed);
}

static void flow_run(struct tcp_flow *f)
{
	for (;;) {
		switch (stages[f->stage].run(f)) {
		case STEP_NEXT:
			f->stage++;
			break;
		case STEP_REPICK:
			f->stage = TCP_STAGE_PICK;
			break;
		case STEP_END:
			say_fault(f);
			f->stage = TCP_STAGE_LOG;
			break;
		case STEP_WAIT:
		case STEP_GONE:
			return;
		}
	}
}

enum step tcp_end(struct tcp_flow *f, enum end_reason why, enum end_side side)
{
	f->end = (uint8_t)why;
	f->end_side = (uint8_t)side;
	return STEP_END;
}

enum step tcp_end_of_error(struct tcp_flow *f, enum side_id side, int error)
{
	bool lost = error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH;

	if (side == SIDE_CLIENT)
		return tcp_end(f, lost ? END_CLIENT_LOST : END_CLIENT_RESET, END_SIDE_FIRST);
	return tcp_end(f, lost ? END_ORIGIN_LOST : END_ORIGIN_RESET, END_SIDE_FIRST);
}

void tcp_timer(struct tcp_flow *f, int64_t ms)
{
	timer_start(&f->flow.env->loop.timers, &f->timer, f->flow.env->loop.now + ms * NSEC_PER_MSEC);
}

static void timer_fired(struct timer *timer)
{
	struct tcp_flow *f = CONTAINER_OF(timer, struct tcp_flow, timer);

	f->timed_out = true;
	flow_run(f);
}

/* --- events --- */

static void side_ready(struct tcp_flow *f, enum side_id id, uint32_t events)
{
	struct tcp_side *side = &f->side[id];

	if (f->stage > TCP_STAGE_LOG)
		return; /* buried, but still in this batch */
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		side->readable = true;
	if (events & EPOLLOUT)
		side->writable = true;
	if (events & EPOLLRDHUP) {
		side->half_closed = true;
		if (f->first_eof == SIDE_N)
			f->first_eof = (uint8_t)id;
	}
	if (events & EPOLLPRI)
		side->urgent = true;
	if (events & EPOLLERR)
		side->failed = true;
	flow_run(f);
}

static void client_ready(struct source *source, uint32_t events)
{
	side_ready(CONTAINER_OF(source, struct tcp_flow, side[SIDE_CLIENT].source), SIDE_CLIENT, events);
}

static void origin_ready(struct source *source, uint32_t events)
{
	side_ready(CONTAINER_OF(source, struct tcp_flow, side[SIDE_ORIGIN].source), SIDE_ORIGIN, events);
}

int side_watch(struct tcp_flow *f, enum side_id side, int fd)
{
	return loop_add(&f->flow.env->loop, fd, &f->side[side].source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI);
}

/* --- stages that have no file of their own --- */

enum step tcp_admit(struct tcp_flow *f)
{
	enum end_reason refused;

	if (!flow_admit(&f->flow, &refused))
		return tcp_end(f, refused, END_SIDE_FIRST);
	return STEP_NEXT;
}

static void free_flow(struct grave *grave)
{
	struct tcp_flow *f = CONTAINER_OF(grave, struct tcp_flow, grave);

	slab_give(&f->flow.env->tcp_flows, f);
}

enum step tcp_log(struct tcp_flow *f)
{
	bool reset = end_rows[f->end].close == END_CLOSE_RST;
	bool fast = tcp_fast_close(f);

	timer_stop(&f->timer);
	list_del(&f->waiting);
	for (int i = 0; i < SIDE_N && !fast; i++) {
		struct tcp_side *side = &f->side[i];
		bool cut = side->pending != NULL; /* a stream that misses its end must not look whole */
		bool gone = side->failed;	  /* the peer has reset it: there is nobody to tell */

		loop_forget(&side->source);
		side_drop_pending(f, (enum side_id)i);
		sock_close(side->fd, (reset || cut) && !gone);
		side->fd = -1;
	}
	flow_finish(&f->flow, (enum end_reason)f->end, (enum end_side)f->end_side);
	f->stage = TCP_STAGE_LOG + 1;
	loop_bury(&f->flow.env->loop, &f->grave, free_flow);
	return STEP_GONE;
}

/* --- beginning, and ends that come from outside --- */

static void end_now(struct flow *flow, enum end_reason why)
{
	struct tcp_flow *f = CONTAINER_OF(flow, struct tcp_flow, flow);

	tcp_end(f, why, END_SIDE_FIRST);
	f->stage = TCP_STAGE_LOG;
	flow_run(f);
}

static void look_at_time(struct flow *flow)
{
	struct tcp_flow *f = CONTAINER_OF(flow, struct tcp_flow, flow);

	if (f->stage == TCP_STAGE_RELAY)
		tcp_timer(f, 0);
}

static const struct flow_kind tcp_kind = { .end_now = end_now, .look_at_time = look_at_time };

void tcp_flow_wake(struct list *waiting)
{
	struct tcp_flow *f = CONTAINER_OF(waiting, struct tcp_flow, waiting);

	list_del(&f->waiting);
	flow_run(f);
}

void tcp_flow_start(
	struct flow_env *env, struct snapshot_rule *rule, int fd, const struct addr *client, const struct addr *edge)
{
	struct tcp_flow *f = slab_take(&env->tcp_flows);

	if (!f) {
		node_leave(env, TCP_FLOW_FDS);
		counter_add(&env->refused[END_LIMIT_NODE_FLOWS], 1);
		sock_close(fd, true);
		return;
	}
	memset((char *)f + sizeof(f->flow), 0, sizeof(*f) - sizeof(f->flow));
	flow_init(&f->flow, env, rule, client, edge, TCP_FLOW_FDS, &tcp_kind);
	f->first_eof = SIDE_N;
	f->side[SIDE_CLIENT].fd = fd;
	f->side[SIDE_ORIGIN].fd = -1;
	source_init(&f->side[SIDE_CLIENT].source, client_ready);
	source_init(&f->side[SIDE_ORIGIN].source, origin_ready);
	timer_init(&f->timer, timer_fired);
	list_init(&f->waiting);
	if (side_watch(f, SIDE_CLIENT, fd)) {
		end_now(&f->flow, END_FAULT);
		return;
	}
	flow_run(f);
}
