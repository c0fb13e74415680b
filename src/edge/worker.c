/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's whole life. Its timers: accept_retry (descriptors ran out), stop_timer (end of the drain time at a stop),
 * and one in each struct drain (end of the drain time after a change of rules).
 */
#include "edge/worker.h"
#include "base/error.h"
#include "base/log.h"
#include "flow/tcp_fast.h"
#include "flow/tcp_flow.h"
#include "flow/udp_flow.h"
#include "io/route.h"
#include "io/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ACCEPT_BATCH = 64, ACCEPT_RETRY_MS = 100 };

struct listener {
	struct list node; /* worker.listeners */
	struct worker *worker;
	struct grave grave;
	struct bound_socket socket;
	struct source source;	 /* TCP */
	struct udp_listener udp; /* UDP */
};

/* Flows that still run under a snapshot which was replaced. */
struct drain {
	struct list node; /* worker.drains */
	struct timer timer;
	struct worker *worker;
	struct snapshot *snapshot; /* a reference */
};

/* --- accepting --- */

static void refuse(struct flow_env *env, int fd, enum end_reason why)
{
	counter_add(&env->refused[why], 1);
	sock_close(fd, true);
}

static void accepted(struct worker *w, int fd, const struct addr *client)
{
	struct flow_env *env = &w->env;
	struct snapshot_rule *rule;
	enum end_reason refused;
	struct addr edge;

	if (sock_local(fd, &edge)) {
		refuse(env, fd, END_FAULT);
		return;
	}
	rule = snapshot_find(env->snapshot, PROTOCOL_TCP, edge.port);
	if (!rule)
		refuse(env, fd, END_NO_RULE);
	else if (!node_admit(env, TCP_FLOW_FDS, &refused))
		refuse(env, fd, refused);
	else
		tcp_flow_start(env, rule, fd, client, &edge);
}

/* No descriptor for a connection that waits: use the spare one to refuse it. Return: whether that worked. */
static bool refuse_with_spare(struct worker *w, int listen_fd)
{
	int fd;

	if (w->spare_fd < 0)
		return false;
	close(w->spare_fd);
	fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		node_say_full(&w->env, END_LIMIT_FDS);
		refuse(&w->env, fd, END_LIMIT_FDS);
	}
	w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return fd >= 0;
}

static void tcp_listener_ready(struct source *source, uint32_t events)
{
	struct listener *l = CONTAINER_OF(source, struct listener, source);
	struct worker *w = l->worker;

	(void)events;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		union sockaddr_any sa;
		socklen_t length = sizeof(sa);
		struct addr client;
		int fd;

		if (l->socket.fd < 0)
			return;
		fd = accept4(l->socket.fd, &sa.sa, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			client = addr_from_sockaddr(&sa);
			accepted(w, fd, &client);
			continue;
		}
		switch (errno) {
		case EAGAIN:
			return;
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
			env_count(&w->env, COUNTER_ACCEPT_FAULTS);
			if (refuse_with_spare(w, l->socket.fd))
				continue;
			/* asking again at once would spin: the connections wait in the kernel */
			timer_start(&w->env.loop.timers, &w->accept_retry,
				w->env.loop.now + ACCEPT_RETRY_MS * NSEC_PER_MSEC);
			return;
		default:
			continue; /* the connection was gone before it was accepted */
		}
	}
	loop_again(&w->env.loop, source);
}

static void accept_retry(struct timer *timer)
{
	struct worker *w = CONTAINER_OF(timer, struct worker, accept_retry);

	list_for_each (node, &w->listeners) {
		struct listener *l = CONTAINER_OF(node, struct listener, node);

		if (l->socket.protocol == PROTOCOL_TCP)
			loop_again(&w->env.loop, &l->source);
	}
}

/* --- listeners --- */

static int listener_add(struct worker *w, const struct bound_socket *socket)
{
	struct listener *l = calloc(1, sizeof(*l));
	struct source *source;

	if (!l)
		return fault(-ENOMEM);
	l->worker = w;
	l->socket = *socket;
	list_add(&w->listeners, &l->node);
	if (socket->protocol == PROTOCOL_TCP) {
		source = &l->source;
		source_init(source, tcp_listener_ready);
	} else {
		l->udp = (struct udp_listener){ .env = &w->env, .fd = socket->fd };
		source = &l->udp.source;
		source_init(source, udp_listener_ready);
		if (socket->port)
			udp_reply_lend(&w->env, socket->v4 ? AF_INET : AF_INET6, socket->port, socket->fd);
	}
	return loop_add(&w->env.loop, socket->fd, source, EPOLLIN);
}

static void bury_listener(struct grave *grave)
{
	free(CONTAINER_OF(grave, struct listener, grave));
}

static void listener_close(struct listener *l)
{
	struct worker *w = l->worker;

	list_del(&l->node);
	loop_forget(l->socket.protocol == PROTOCOL_TCP ? &l->source : &l->udp.source);
	if (l->socket.protocol == PROTOCOL_UDP && l->socket.port)
		udp_reply_revoke(&w->env, l->socket.v4 ? AF_INET : AF_INET6, l->socket.port, l->socket.fd);
	close(l->socket.fd);
	l->socket.fd = -1;
	l->udp.fd = -1;
	loop_bury(&w->env.loop, &l->grave, bury_listener);
}

/* Plain binds: closes the listeners of ports that no rule has any more. */
static void close_unused(struct worker *w, enum protocol protocol)
{
	list_for_each (node, &w->listeners) {
		struct listener *l = CONTAINER_OF(node, struct listener, node);

		if (l->socket.port == 0 || l->socket.protocol != protocol ||
			snapshot_find(w->env.snapshot, protocol, l->socket.port))
			continue;
		atomic_fetch_sub_explicit(&w->env.node->fds, 1, memory_order_relaxed);
		listener_close(l);
	}
}

/* --- ends that come from outside --- */

static bool every_flow(const struct flow *f, const void *arg)
{
	(void)f;
	(void)arg;
	return true;
}

static bool runs_under(const struct flow *f, const void *snapshot)
{
	return f->rule->snapshot == snapshot;
}

/* Ends all flows that @choose says yes to. */
static void end_flows(
	struct worker *w, bool (*choose)(const struct flow *f, const void *arg), const void *arg, enum end_reason why)
{
	struct list chosen;

	/* ending one flow may end another, so they are taken off a list of their own, from its front */
	list_init(&chosen);
	list_for_each (node, &w->env.flows) {
		struct flow *f = CONTAINER_OF(node, struct flow, all);

		if (!choose(f, arg))
			continue;
		list_del(&f->all);
		list_add(&chosen, &f->all);
	}
	while (!list_empty(&chosen)) {
		struct flow *f = CONTAINER_OF(chosen.next, struct flow, all);

		f->kind->end_now(f, why);
	}
}

static void drain_free(struct drain *d)
{
	timer_stop(&d->timer);
	list_del(&d->node);
	snapshot_unref(d->snapshot);
	free(d);
}

static void drain_over(struct timer *timer)
{
	struct drain *d = CONTAINER_OF(timer, struct drain, timer);
	struct worker *w = d->worker;

	end_flows(w, runs_under, d->snapshot, END_RULE_REMOVED);
	drain_free(d);
}

static void drain_begin(struct worker *w, struct snapshot *old, nsec_t drain)
{
	struct drain *d = calloc(1, sizeof(*d));

	if (!d) {
		end_flows(w, runs_under, old, END_RULE_REMOVED);
		return;
	}
	d->worker = w;
	d->snapshot = snapshot_ref(old);
	timer_init(&d->timer, drain_over);
	list_add(&w->drains, &d->node);
	timer_start(&w->env.loop.timers, &d->timer, w->env.loop.now + drain);
}

/* --- mail --- */

void worker_apply(struct mail *mail, void *to)
{
	struct mail_apply *m = CONTAINER_OF(mail, struct mail_apply, mail);
	struct worker *w = to;
	struct snapshot *old = w->env.snapshot;
	bool draining = false;

	w->env.snapshot = m->snapshot;
	m->snapshot = NULL;
	list_for_each (node, &w->env.flows) {
		struct flow *f = CONTAINER_OF(node, struct flow, all);

		if (flow_move(f, w->env.snapshot) && f->rule->snapshot == old)
			draining = true;
	}
	if (draining)
		drain_begin(w, old, m->drain);
	close_unused(w, PROTOCOL_TCP); /* those of UDP still hear the sessions that drain */
	for (size_t i = 0; i < m->sockets.count; i++)
		if (listener_add(w, &m->sockets.items[i]))
			log_error("worker %u: port %u: out of memory for its listener", w->env.worker,
				m->sockets.items[i].port);
	bound_sockets_free(&m->sockets);
	snapshot_unref(old);
	m->mail.deliver = m->acknowledge;
	mailbox_post(w->main, &m->mail);
}

void worker_close_unused_udp(struct mail *mail, void *to)
{
	close_unused(to, PROTOCOL_UDP);
	free(mail);
}

void worker_view(struct mail *mail, void *to)
{
	struct mail_view *m = CONTAINER_OF(mail, struct mail_view, mail);
	struct worker *w = to;

	pool_take_news(&m->news, w->env.worker);
	free(m);
}

void worker_origin_down(struct mail *mail, void *to)
{
	struct mail_origin_down *m = CONTAINER_OF(mail, struct mail_origin_down, mail);
	struct worker *w = to;

	udp_origin_down(&w->env, m->endpoint);
	endpoint_unref(m->endpoint);
	free(m);
}

static bool origin_has_left(const struct flow *f, const void *now)
{
	nsec_t leaves = f->endpoint ? atomic_load(&f->endpoint->leaves) : 0;

	return leaves && leaves <= *(const nsec_t *)now;
}

void worker_end_left(struct mail *mail, void *to)
{
	nsec_t now = clock_now();

	end_flows(to, origin_has_left, &now, END_ORIGIN_REMOVED);
	free(mail);
}

static void stop_now(struct timer *timer)
{
	struct worker *w = CONTAINER_OF(timer, struct worker, stop_timer);

	end_flows(w, every_flow, NULL, END_SHUTDOWN);
}

void worker_stop(struct mail *mail, void *to)
{
	struct mail_stop *m = CONTAINER_OF(mail, struct mail_stop, mail);
	struct worker *w = to;

	if (!w->env.stopping) {
		w->env.stopping = true;
		list_for_each (node, &w->listeners) {
			struct listener *l = CONTAINER_OF(node, struct listener, node);

			if (l->socket.protocol != PROTOCOL_TCP)
				continue; /* sessions that drain still hear by it */
			/* whom the kernel has greeted is not turned away */
			do {
				loop_forget(&l->source);
				tcp_listener_ready(&l->source, 0);
			} while (!list_empty(&l->source.again));
			listener_close(l);
		}
	}
	if (m->drain == 0)
		end_flows(w, every_flow, NULL, END_SHUTDOWN);
	else
		timer_start(&w->env.loop.timers, &w->stop_timer, w->env.loop.now + m->drain);
	free(m);
}

/* --- the thread --- */

static void turn_done(struct loop *loop)
{
	struct worker *w = CONTAINER_OF(loop, struct worker, env.loop);

	udp_flush(&w->env);
	flow_log_flush(w->env.log);
	if (w->env.stopping && list_empty(&w->env.flows))
		loop_stop(loop);
}

static void pin(const struct worker *w)
{
	cpu_set_t set;

	if (w->core < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((unsigned int)w->core, &set);
	/* a cgroup may not allow it; then the scheduler decides, which works as well */
	(void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	char name[16] = "worker-";
	int r;

	name[7] = (char)('0' + w->env.worker / 10);
	name[8] = (char)('0' + w->env.worker % 10);
	pthread_setname_np(pthread_self(), name);
	pin(w);
	r = loop_run(&w->env.loop);
	if (r)
		log_error("worker %u: waiting for events: %s", w->env.worker, fault_text(r));
	mailbox_post(w->main, &w->done);
	return NULL;
}

/* For the fast path, which has to follow the routes. */
static int watch_routes(struct worker *w)
{
	w->env.route_fd = route_open();
	w->env.route_watch_fd = route_watch();
	if (w->env.route_fd < 0)
		return w->env.route_fd;
	if (w->env.route_watch_fd < 0)
		return w->env.route_watch_fd;
	source_init(&w->env.routes, udp_fast_routes_ready);
	return loop_add(&w->env.loop, w->env.route_watch_fd, &w->env.routes, EPOLLIN);
}

int worker_new(struct worker **ret_worker, unsigned int index, struct node_state *node, struct flow_log *log,
	struct snapshot *snapshot, struct bound_sockets *sockets, uint32_t max_flows, struct fastpath *udp_fast,
	struct fastpath *tcp_fast, struct mailbox *main, int core)
{
	struct worker *w = aligned_alloc(64, (sizeof(*w) + 63) / 64 * 64);
	int r;

	*ret_worker = w;
	if (!w)
		return fault(-ENOMEM);
	memset(w, 0, sizeof(*w));
	list_init(&w->listeners);
	list_init(&w->drains);
	list_init(&w->env.flows);
	list_init(&w->env.fast_sessions);
	timer_init(&w->env.fast_timer, udp_fast_sweep);
	w->env.fastpath = udp_fast;
	w->env.route_fd = w->env.route_watch_fd = -1;
	w->env.loop.epoll_fd = -1;
	w->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	w->main = main;
	w->core = core;
	w->env.worker = index;
	w->env.node = node;
	w->env.log = log;
	w->env.snapshot = snapshot_ref(snapshot);
	w->env.next_number = (uint64_t)clock_wall() / (uint64_t)NSEC_PER_MSEC
		<< 20; /* ids differ from those of the last run */
	w->env.scratch = mmap(NULL, RELAY_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->env.scratch == MAP_FAILED) {
		w->env.scratch = NULL;
		return fault(-ENOMEM);
	}
	r = loop_init(&w->env.loop);
	if (r)
		return r;
	w->env.loop.turn_done = turn_done;
	timer_init(&w->accept_retry, accept_retry);
	timer_init(&w->stop_timer, stop_now);
	r = slab_init(&w->env.tcp_flows, sizeof(struct tcp_flow), max_flows);
	if (r == 0)
		r = slab_init(&w->env.chunks, CHUNK_SIZE, CHUNK_POOL_BYTES / CHUNK_SIZE);
	if (r == 0)
		r = udp_table_new(&w->env, max_flows);
	if (r == 0 && (udp_fast || tcp_fast))
		r = watch_routes(w);
	if (r == 0 && tcp_fast)
		r = tcp_fast_new(&w->env, tcp_fast);
	if (r == 0)
		r = mailbox_init(&w->mailbox, &w->env.loop, w);
	for (size_t i = 0; i < sockets->count && r == 0; i++)
		r = listener_add(w, &sockets->items[i]);
	if (r == 0)
		bound_sockets_free(sockets);
	return r;
}

int worker_start(struct worker *w, void (*done)(struct mail *mail, void *to))
{
	int r;

	w->done.deliver = done;
	r = pthread_create(&w->thread, NULL, worker_main, w);
	return r ? fault(-r) : 0;
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	while (!list_empty(&w->drains))
		drain_free(CONTAINER_OF(w->drains.next, struct drain, node));
	while (!list_empty(&w->listeners))
		listener_close(CONTAINER_OF(w->listeners.next, struct listener, node));
	if (w->mailbox.event_fd > 0)
		mailbox_deinit(&w->mailbox);
	loop_deinit(&w->env.loop);
	udp_table_free(&w->env);
	tcp_fast_free(&w->env);
	slab_deinit(&w->env.tcp_flows);
	slab_deinit(&w->env.chunks);
	if (w->env.scratch)
		munmap(w->env.scratch, RELAY_BUFFER_SIZE);
	if (w->env.route_fd >= 0)
		close(w->env.route_fd);
	if (w->env.route_watch_fd >= 0)
		close(w->env.route_watch_fd);
	if (w->spare_fd >= 0)
		close(w->spare_fd);
	snapshot_unref(w->env.snapshot);
	free(w);
}
