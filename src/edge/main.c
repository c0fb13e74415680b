/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tidegate-edge: starts, waits for signals, stops.
 *
 * Order of the start: rules checked, sockets and BPF made, flow log, control socket and metrics opened; then privileges
 * are dropped; then the threads start; then the ports are opened. Signals: SIGHUP reads the rules again, SIGUSR1 opens
 * the flow log again, SIGTERM and SIGINT drain and stop, a second one stops at once.
 */
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "edge/apply.h"
#include "edge/control_socket.h"
#include "edge/metrics.h"
#include "edge/privilege.h"
#include "edge/source.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
	FD_RESERVE = 160, /* beside flows: logs, control clients, metrics, resolver, a reload's file */
	ERRORS_MAX = 8 << 20,
	CLIENT_SLOTS_A_FLOW = 4,
};

struct signals {
	struct source source;
	int fd;
	struct edge *edge;
};

/* --- signals --- */

static void stop_workers(struct edge *e, nsec_t drain)
{
	for (unsigned int w = 0; w < e->options.workers; w++) {
		struct mail_stop *m = calloc(1, sizeof(*m));

		ASSERT(m);
		m->mail.deliver = worker_stop;
		m->drain = drain;
		mailbox_post(&e->workers[w]->mailbox, &m->mail);
	}
}

static void stop(struct edge *e)
{
	if (e->stops++ == 0) {
		log_info("stopping: no new flows, those that run have %u s (a second signal ends them at once)",
			e->options.drain_s);
		apply_close_ports(e);
		stop_workers(e, (nsec_t)e->options.drain_s * NSEC_PER_SEC);
	} else {
		stop_workers(e, 0);
	}
}

static void signals_ready(struct source *source, uint32_t events)
{
	struct signals *s = CONTAINER_OF(source, struct signals, source);
	struct signalfd_siginfo info;

	(void)events;
	while (read(s->fd, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGHUP:
			if (s->edge->stops == 0)
				apply_reload(s->edge, NULL);
			break;
		case SIGUSR1:
			flow_log_reopen(&s->edge->log);
			break;
		default:
			stop(s->edge);
		}
	}
}

static int signals_open(struct signals *s, struct edge *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* inherited by every thread */
	signal(SIGPIPE, SIG_IGN);
	s->edge = e;
	s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->fd < 0)
		return fault(-errno);
	source_init(&s->source, signals_ready);
	return loop_add(&e->loop, s->fd, &s->source, EPOLLIN);
}

/* --- start --- */

static int check_only(const struct options *options)
{
	struct text out = text_growing(ERRORS_MAX);
	struct config set = { 0 };
	int r = source_read(options, &set, &out);

	if (r)
		fputs(out.bytes ? out.bytes : "out of memory\n", stderr);
	else
		printf("%s: %zu rules, no errors\n", source_name(options), set.rule_count);
	config_free(&set);
	text_free(&out);
	return r ? 1 : 0;
}

/* The smallest power of two that is at least @n and CLIENT_WINDOW. */
static uint32_t power_of_two(uint32_t n)
{
	uint32_t power = CLIENT_WINDOW;

	while (power < n)
		power *= 2;
	return power;
}

static int node_init(struct node_state *node, unsigned int workers)
{
	uint32_t fds = privilege_raise_fd_limit();

	node->hash_key = hash_new_key();
	node->workers = workers;
	node->fd_max = fds > 2 * FD_RESERVE ? fds - FD_RESERVE : fds / 2;
	return client_table_init(&node->clients, power_of_two(node->fd_max * CLIENT_SLOTS_A_FLOW));
}

static bool is_on(const char *state)
{
	return strcmp(state, "on") == 0;
}

/* Faster where it can be had; everything works without. */
static void open_fastpath(struct edge *e)
{
	const struct node_settings *settings = &e->snapshot->config.node;
	struct text udp = text_fixed(e->fastpath_state, sizeof(e->fastpath_state));
	struct text tcp = text_fixed(e->tcp_fastpath_state, sizeof(e->tcp_fastpath_state));
	char reason_bytes[128] = "";
	struct text reason = text_fixed(reason_bytes, sizeof(reason_bytes));
	const char *tcp_why = reason_bytes;

	if (!e->options.no_bpf && (settings->udp_fast_path || settings->tcp_fast_path) &&
		fastpath_open(settings->tcp_fast_path ? e->options.workers : 0, &reason, &e->fastpath) == 0)
		tcp_why = fastpath_tcp_state(e->fastpath);
	if (e->options.no_bpf)
		text_str(&udp, "off: --no-bpf");
	else if (!settings->udp_fast_path)
		text_str(&udp, "off: udp_fast_path=off");
	else if (e->fastpath)
		text_str(&udp, "on");
	else
		text_printf(&udp, "off: %s", reason_bytes);
	if (e->options.no_bpf)
		text_str(&tcp, "off: --no-bpf");
	else if (!settings->tcp_fast_path)
		text_str(&tcp, "off: tcp_fast_path=off");
	else
		text_printf(&tcp, "%s%s", e->fastpath ? "" : "off: ", tcp_why);
	if (reason.length)
		log_warning("%s; established UDP sessions and TCP flows stay in user space", reason_bytes);
	else if (e->fastpath && settings->tcp_fast_path && !is_on(e->tcp_fastpath_state))
		log_warning("TCP fast path %s; TCP flows stay in user space", e->tcp_fastpath_state);
}

static void origin_failed(struct mail *mail, void *to)
{
	struct edge *e = to;

	pools_origin_failed(e->pools, CONTAINER_OF(mail, struct mail_failed, mail));
}

/* What needs privileges, or may fail for reasons to be told at the prompt. */
static int prepare(struct edge *e, struct bound_sockets *sockets, struct signals *signals, struct text *out)
{
	char metrics[ADDR_TEXT_SIZE];
	int r;

	/* first what deinit() looks at, however far we come */
	e->loop.epoll_fd = e->mailbox.event_fd = e->log.fd = e->log.wake_fd = -1;
	source_init(&e->mailbox.source, NULL);
	timer_init(&e->drain_timer, NULL);
	e->started = clock_now();
	list_init(&e->reload_waiters);
	list_init(&e->reload_waiters_next);
	pthread_mutex_init(&e->snapshot_lock, NULL);
	r = loop_init(&e->loop);
	if (r == 0)
		r = mailbox_init(&e->mailbox, &e->loop, e);
	if (r == 0)
		r = signals_open(signals, e);
	if (r == 0)
		r = node_init(&e->node, e->options.workers);
	if (r == 0)
		r = resolver_new(&e->loop, &e->resolver);
	if (r == 0)
		r = pools_new(&e->loop, &e->node, e->resolver, &e->pools);
	e->node.main = &e->mailbox;
	e->node.origin_failed = origin_failed;
	if (r) {
		text_printf(out, "starting: %s\n", fault_text(r));
		return r;
	}
	/* before the ports are planned, so that a range of steered ports leaves ours alone like anybody else's */
	if (e->options.metrics.port) {
		r = metrics_open(e, &e->options.metrics, &e->metrics);
		if (r) {
			addr_format(&e->options.metrics, metrics);
			text_printf(out, "--metrics %s: %s\n", metrics, strerror(-r));
			return r;
		}
	}
	r = apply_first(e, sockets, out);
	if (r)
		return r;
	r = persist_init(&e->node.persist, power_of_two(2 * e->snapshot->config.node.persistence_clients));
	if (r) {
		text_printf(out, "starting: %s\n", fault_text(r));
		return r;
	}
	r = flow_log_open(&e->log, e->options.log_path, e->options.workers);
	if (r) {
		text_printf(out, "--log %s: %s\n", e->options.log_path ? e->options.log_path : "", strerror(-r));
		return r;
	}
	if (e->options.socket_path) {
		r = control_socket_open(e, e->options.socket_path, &e->control);
		if (r) {
			text_printf(out, "--socket %s: %s\n", e->options.socket_path, strerror(-r));
			return r;
		}
	}
	open_fastpath(e);
	for (unsigned int w = 0; w < e->options.workers && r == 0; w++) {
		long cores = sysconf(_SC_NPROCESSORS_ONLN);
		int core = e->options.workers > 1 && cores >= (long)e->options.workers ? (int)w : -1;

		atomic_fetch_add(&e->node.fds, (uint32_t)sockets[w].count);
		r = worker_new(&e->workers[w], w, &e->node, &e->log.logs[w], e->snapshot, &sockets[w], e->node.fd_max,
			is_on(e->fastpath_state) ? e->fastpath : NULL,
			is_on(e->tcp_fastpath_state) ? e->fastpath : NULL, &e->mailbox, core);
	}
	if (r == 0)
		r = privilege_drop(is_on(e->tcp_fastpath_state));
	if (r) {
		text_printf(out, "starting: %s\n", fault_text(r));
		return r;
	}
	if (e->metrics)
		r = metrics_start(e->metrics);
	if (r)
		text_printf(out, "starting the metrics server: %s\n", fault_text(r));
	return r;
}

static void worker_ended(struct mail *mail, void *to)
{
	struct edge *e = to;

	(void)mail;
	if (--e->workers_running == 0)
		loop_stop(&e->loop);
}

static int start_threads(struct edge *e)
{
	int r = flow_log_start(&e->log);

	for (unsigned int w = 0; w < e->options.workers && r == 0; w++) {
		r = worker_start(e->workers[w], worker_ended);
		if (r == 0)
			e->workers_running++;
	}
	return r;
}

static void say_ready(const struct edge *e)
{
	log_info("ready: %zu rules, %u tcp and %u udp ports, %u workers, steering %s, UDP fast path %s, "
		 "TCP fast path %s, TOA %s",
		e->snapshot->config.rule_count, port_map_count(&e->held, PROTOCOL_TCP),
		port_map_count(&e->held, PROTOCOL_UDP), e->options.workers, e->steering, e->fastpath_state,
		e->tcp_fastpath_state, e->toa_state);
}

static void deinit(struct edge *e, struct bound_sockets *sockets, struct signals *signals)
{
	metrics_close(e->metrics);
	control_socket_close(e->control);
	for (unsigned int w = 0; w < e->options.workers; w++) {
		bound_sockets_close(&sockets[w]);
		worker_free(e->workers[w]);
	}
	fastpath_close(e->fastpath);
	toa_send_close(e->toa);
	flow_log_close(&e->log);
	apply_deinit(e);
	pools_free(e->pools);
	resolver_free(e->resolver);
	persist_deinit(&e->node.persist);
	client_table_deinit(&e->node.clients);
	if (signals->fd >= 0)
		close(signals->fd);
	mailbox_deinit(&e->mailbox);
	loop_deinit(&e->loop);
	pthread_mutex_destroy(&e->snapshot_lock);
}

static int serve(struct edge *e)
{
	struct bound_sockets sockets[OPTIONS_WORKERS_MAX] = { 0 };
	struct text out = text_growing(ERRORS_MAX);
	struct signals signals = { .fd = -1 };
	int r;

	r = prepare(e, sockets, &signals, &out);
	if (r)
		fputs(out.bytes ? out.bytes : "out of memory\n", stderr);
	text_free(&out);
	if (r == 0) {
		r = start_threads(e);
		if (r)
			log_error("starting threads: %s", fault_text(r));
	}
	if (r == 0) {
		pools_workers(e->pools, e->workers);
		apply_open_ports(e);
		say_ready(e);
		r = loop_run(&e->loop);
	}
	if (e->workers_running) {
		stop_workers(e, 0);
		while (e->workers_running && loop_turn(&e->loop, -1) == 0)
			;
	}
	for (unsigned int w = 0; w < e->options.workers; w++)
		if (e->workers[w] && e->workers[w]->thread)
			pthread_join(e->workers[w]->thread, NULL);
	deinit(e, sockets, &signals);
	if (r == 0)
		log_info("stopped");
	return r ? 1 : 0;
}

int main(int argc, char **argv)
{
	static struct edge edge;

	options_parse(argc, argv, &edge.options);
	return edge.options.check ? check_only(&edge.options) : serve(&edge);
}
