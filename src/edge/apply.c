/* SPDX-License-Identifier: Apache-2.0 */
#include "edge/apply.h"
#include "edge/source.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "config/check.h"
#include "config/diff.h"
#include "flow/rule_state.h"
#include "io/sock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ERRORS_TEXT_MAX = 8 << 20 };

/* --- the snapshot --- */

static void release_rule(struct snapshot_rule *rule)
{
	rule_state_unref(rule->state);
	pool_unref(rule->pool);
	for (size_t i = 0; i < ARRAY_SIZE(rule->access); i++)
		access_set_unref(rule->access[i]);
}

/* A rule of the same id goes on with its counters and limits. */
static struct rule_state *state_for(const struct edge *e, const struct rule *rule)
{
	const struct snapshot_rule *old = NULL;

	/* most rules keep their ports, so there is seldom a need to search */
	if (e->snapshot)
		old = snapshot_find(e->snapshot, rule->protocol, rule->edge_ports.items[0].first);
	if (old && strcmp(old->rule->id, rule->id) == 0)
		return rule_state_ref(old->state);
	for (size_t i = 0; e->snapshot && i < e->snapshot->config.rule_count; i++)
		if (strcmp(e->snapshot->rules[i].rule->id, rule->id) == 0)
			return rule_state_ref(e->snapshot->rules[i].state);
	return rule_state_new(rule->id, e->options.workers);
}

static int make_rule(struct edge *e, struct snapshot_rule *rule)
{
	const struct proxy *proxy = rule->rule->proxy;
	int r = 0;

	rule->state = state_for(e, rule->rule);
	rule->pool = pools_of(e->pools, rule->rule);
	if (proxy) {
		rule->proxy_key = hash_bytes(proxy->name, strlen(proxy->name), 0);
		r = access_set_get(&e->access, &proxy->access, &rule->access[0]);
	}
	if (r == 0)
		r = access_set_get(&e->access, &rule->rule->access, &rule->access[1]);
	return rule->state ? r : fault(-ENOMEM);
}

/* Also the first step of a change of pools. */
static int make_snapshot(struct edge *e, struct config *config, struct snapshot **ret_snapshot)
{
	struct snapshot *s;
	int r;

	r = pools_prepare(e->pools, config);
	if (r)
		return r;
	if (config->version == 0)
		config->version = e->version + 1;
	r = snapshot_new(config, config->version, release_rule, &s);
	if (r) {
		pools_abort(e->pools);
		return r;
	}
	for (size_t i = 0; i < s->config.rule_count && r == 0; i++)
		r = make_rule(e, &s->rules[i]);
	if (r) {
		snapshot_unref(s);
		pools_abort(e->pools);
		return r;
	}
	*ret_snapshot = s;
	return 0;
}

enum { DIFF_TEXT_MAX = 64 << 10 };

static void log_lines(void (*log)(const char *line, int length), const char *text)
{
	while (*text) {
		size_t length = strcspn(text, "\n");

		log(text, (int)length);
		text += length + (text[length] == '\n');
	}
}

static void log_info_line(const char *line, int length)
{
	log_info("%.*s", length, line);
}

static void log_error_line(const char *line, int length)
{
	log_error("%.*s", length, line);
}

static void say_difference(const struct config *old, const struct config *new)
{
	struct text text = text_growing(DIFF_TEXT_MAX);

	if (config_diff(old, new, &text))
		log_warning("out of memory, not all that has changed is said");
	if (text.bytes)
		log_lines(log_info_line, text.bytes);
	text_free(&text);
}

static void set_snapshot(struct edge *e, struct snapshot *next)
{
	struct snapshot *old = e->snapshot;

	if (old)
		say_difference(&old->config, &next->config);
	pthread_mutex_lock(&e->snapshot_lock);
	e->snapshot = next;
	pthread_mutex_unlock(&e->snapshot_lock);
	e->version = next->version;
	resolver_configure(e->resolver, &next->config.node);
	snapshot_unref(old);
	access_cache_sweep(&e->access);
}

/* --- sockets --- */

static struct ip any_ip(bool v4)
{
	return v4 ? ip_from_v4((uint8_t[4]){ 0 }) : (struct ip){ 0 };
}

static bool family_missing(int error)
{
	return error == -EAFNOSUPPORT || error == -EADDRNOTAVAIL || error == -ENOPROTOOPT;
}

static int add_socket(struct bound_sockets *sockets, int fd, enum protocol protocol, bool v4, uint16_t port)
{
	int r = bound_sockets_add(
		sockets, (struct bound_socket){ .fd = fd, .protocol = protocol, .v4 = v4, .port = port });

	if (r)
		close(fd);
	return r;
}

/* Sockets for steering: bound to loopback, since where they are bound does not matter. */
static int open_steered(struct edge *e, struct bound_sockets *sockets, struct steer_sockets *ret_steer)
{
	static const uint8_t loopback_v4[4] = { 127, 0, 0, 1 };
	static const struct ip loopback_v6 = { .bytes = { [15] = 1 } };

	for (int i = 0; i < PROTOCOL_N * 2; i++) {
		enum protocol protocol = (enum protocol)(i / 2);
		bool v4 = i % 2 == 0;
		struct addr local = { .ip = v4 ? ip_from_v4(loopback_v4) : loopback_v6 };
		int *first = &ret_steer->fd[protocol][!v4];

		*first = -1;
		for (unsigned int w = 0; w < e->options.workers; w++) {
			int fd = listener_open(protocol, &local);
			int r = fd;

			if (fd < 0 && w == 0 && !v4 && family_missing(fd))
				break; /* a machine without IPv6 */
			if (fd >= 0)
				r = add_socket(&sockets[w], fd, protocol, v4, 0);
			if (r == 0 && w == 0)
				r = sock_local(fd, &local); /* the others join the first one's port */
			if (r)
				return r;
			if (w == 0)
				*first = fd;
		}
		ret_steer->port[protocol][!v4] = local.port;
	}
	return 0;
}

static void close_all(struct edge *e, struct bound_sockets *sockets)
{
	for (unsigned int w = 0; w < e->options.workers; w++)
		bound_sockets_close(&sockets[w]);
}

/* One address and port, for every worker. */
static int bind_port(struct edge *e, struct bound_sockets *sockets, enum protocol protocol, const struct addr *local)
{
	for (unsigned int w = 0; w < e->options.workers; w++) {
		int fd = listener_open(protocol, local);
		int r = fd;

		if (fd >= 0)
			r = add_socket(&sockets[w], fd, protocol, ip_is_v4(&local->ip), local->port);
		if (r)
			return r;
	}
	return 0;
}

static int bind_port_everywhere(
	struct edge *e, struct bound_sockets *sockets, enum protocol protocol, unsigned int port, struct text *out)
{
	char address[ADDR_TEXT_SIZE];
	struct addr local = { .port = (uint16_t)port };
	size_t count = e->options.listen_count;

	for (size_t i = 0; i < (count ? count : 2); i++) {
		int r;

		local.ip = count ? e->options.listen[i] : any_ip(i == 0);
		r = bind_port(e, sockets, protocol, &local);
		if (r && !(count == 0 && i == 1 && family_missing(r))) {
			addr_format(&local, address);
			text_printf(out, "%s %s: %s%s\n", protocol_name(protocol), address, strerror(-r),
				r == -EMFILE ? "; without BPF every port takes file descriptors for every worker, "
					       "address and family: "
					       "use fewer ports or workers, or raise the limit"
					     : "");
			return r;
		}
	}
	return 0;
}

/* Plain binds: a socket for every worker, address and port that is served now and was not before. */
static int bind_new_ports(struct edge *e, const struct port_map *serve, struct bound_sockets *sockets, struct text *out)
{
	for (int p = 0; p < PROTOCOL_N; p++) {
		for (unsigned int port = 1; port < 1 << 16; port++) {
			enum protocol protocol = (enum protocol)p;
			int r;

			if (!port_map_has(serve, protocol, port) || port_map_has(&e->held, protocol, port))
				continue;
			r = bind_port_everywhere(e, sockets, protocol, port, out);
			if (r)
				return r;
		}
	}
	return 0;
}

/* --- ports --- */

static void steer_change(struct edge *e, enum protocol protocol, unsigned int port, bool ours)
{
	if (e->steer)
		steer_set(e->steer, protocol, (uint16_t)port, ours);
}

/* Ports that are not served any more: TCP at once; UDP when the drain time is over. */
static void let_go(struct edge *e, const struct port_map *serve, enum protocol protocol)
{
	for (unsigned int port = 1; port < 1 << 16; port++) {
		if (!port_map_has(&e->held, protocol, port) || port_map_has(serve, protocol, port))
			continue;
		steer_change(e, protocol, port, false);
		e->held.bits[protocol][port / 64] &= ~(UINT64_C(1) << (port % 64));
	}
}

static void take_up(struct edge *e, const struct port_map *serve)
{
	for (int p = 0; p < PROTOCOL_N; p++) {
		for (unsigned int port = 1; port < 1 << 16; port++) {
			if (!port_map_has(serve, (enum protocol)p, port) ||
				port_map_has(&e->held, (enum protocol)p, port))
				continue;
			steer_change(e, (enum protocol)p, port, true);
			port_map_add(&e->held, (enum protocol)p, port);
		}
	}
}

static void drain_over(struct timer *timer)
{
	struct edge *e = CONTAINER_OF(timer, struct edge, drain_timer);

	let_go(e, &e->serve_next, PROTOCOL_UDP);
	for (unsigned int w = 0; w < e->options.workers && !e->steer; w++) {
		struct mail *mail = calloc(1, sizeof(*mail));

		if (!mail) {
			log_error("worker %u: out of memory, it keeps listening on UDP ports that were removed", w);
			continue;
		}
		mail->deliver = worker_close_unused_udp;
		mailbox_post(&e->workers[w]->mailbox, mail);
	}
}

/* --- at start --- */

static int steer_or_bind(struct edge *e, struct bound_sockets *sockets, struct text *out)
{
	struct steer_sockets steered = { 0 };
	char why_bytes[256];
	struct text why = text_fixed(why_bytes, sizeof(why_bytes));
	int r;

	if (e->options.no_bpf) {
		e->steering = "off: --no-bpf";
		return bind_new_ports(e, &e->serve_next, sockets, out);
	}
	r = open_steered(e, sockets, &steered);
	if (r) {
		text_printf(out, "listening sockets: %s\n", fault_text(r));
		return r;
	}
	r = steer_open(&steered, e->options.listen, e->options.listen_count, &why, &e->steer);
	if (r == 0) {
		e->steering = "bpf";
		return 0;
	}
	e->steering = "off: BPF is refused";
	log_warning("%s; every port is bound by itself instead, which takes a file descriptor for each port, worker "
		    "and address "
		    "family (about %u ports here)",
		why.bytes, e->node.fd_max / (e->options.workers * 2));
	close_all(e, sockets);
	return bind_new_ports(e, &e->serve_next, sockets, out);
}

/* What the options name or, when that is wrong, the last good configuration. */
static int read_first(struct edge *e, struct config *ret_config, struct text *out)
{
	struct text why_not = text_growing(ERRORS_TEXT_MAX);
	int r = source_read(&e->options, ret_config, out);

	if (r == SOURCE_OK || !e->options.state_path) {
		text_free(&why_not);
		return r;
	}
	r = source_read_kept(&e->options, ret_config, &why_not);
	if (r == SOURCE_OK) {
		log_lines(log_error_line, out->bytes ? out->bytes : "out of memory\n");
		log_warning("the last good configuration, version %llu, is served instead, from --state %s",
			(unsigned long long)ret_config->version, e->options.state_path);
		text_free(out);
		*out = text_growing(ERRORS_TEXT_MAX); /* what is wrong from now on */
		e->from_state = true;
	} else {
		text_str(out, why_not.bytes ? why_not.bytes : "out of memory\n");
	}
	text_free(&why_not);
	return r;
}

/* Every connection of the process would meet the program, so it is loaded for those who have a use for it. */
static bool toa_is_wanted(const struct config *set)
{
	for (size_t i = 0; i < set->rule_count; i++)
		if (set->rules[i].pass == PASS_TOA)
			return true;
	return set->node_given & 1u << NODE_SETTING_toa;
}

/* Before ports are planned, since without it some rules are refused. Later the rights are gone. */
static void open_toa(struct edge *e, const struct config *set)
{
	struct text state = text_fixed(e->toa_state, sizeof(e->toa_state));
	char why_bytes[PATH_MAX - 16];
	struct text why = text_fixed(why_bytes, sizeof(why_bytes));

	if (e->options.no_bpf)
		text_str(&state, "off: --no-bpf");
	else if (!set->node.toa)
		text_str(&state, "off: toa=off");
	else if (!toa_is_wanted(set))
		text_str(&state,
			"off: no rule had pass mode toa at the start; \"set node toa=on\" and a restart bring it");
	else if (toa_send_open(&why, &e->toa) == 0)
		text_str(&state, "on");
	else
		text_printf(&state, "off: %s", why_bytes);
	e->node.toa = e->toa;
}

static const char *toa_why_not(const struct edge *e)
{
	return e->toa_state + strlen("off: ");
}

/* Rules that would have the option, and go without. */
static void say_toa_is_off(const struct edge *e, const struct config *set)
{
	size_t without = 0;

	for (size_t i = 0; i < set->rule_count && !e->toa; i++)
		without += set->rules[i].pass == PASS_TOA;
	if (without)
		log_warning("pass mode toa: %s; with toa_required=off, %zu rules pass no client address",
			toa_why_not(e), without);
}

/* Which ports the rules of a configuration take, if everything about them can be had here. */
static int plan(struct edge *e, const struct config *set, bool from_state, struct port_map *ret_serve, struct text *out)
{
	struct problems problems = { 0 };
	int r;

	if (!e->toa)
		check_toa(set, toa_why_not(e), &problems);
	r = port_plan(set, &e->options, &e->held, ret_serve, &problems);
	source_problems(&e->options, from_state, &problems, out);
	problems_free(&problems);
	if (r == 0)
		say_toa_is_off(e, set);
	return r;
}

int apply_first(struct edge *e, struct bound_sockets *ret_sockets, struct text *out)
{
	struct config set = { 0 };
	struct snapshot *snapshot;
	int r;

	timer_init(&e->drain_timer, drain_over);
	r = read_first(e, &set, out);
	if (r)
		return r;
	open_toa(e, &set);
	r = plan(e, &set, e->from_state, &e->serve_next, out);
	if (r == 0)
		r = make_snapshot(e, &set, &snapshot);
	if (r) {
		if (r < 0)
			text_printf(out, "%s: %s\n", source_name(&e->options), fault_text(r));
		config_free(&set);
		return r;
	}
	set_snapshot(e, snapshot);
	pools_commit(e->pools, 0);
	r = steer_or_bind(e, ret_sockets, out);
	if (r)
		close_all(e, ret_sockets);
	return r;
}

void apply_open_ports(struct edge *e)
{
	take_up(e, &e->serve_next);
	if (!e->from_state)
		source_keep(&e->options, &e->snapshot->config);
}

/* --- reload --- */

static void tell(struct list *waiters, bool applied, const char *text)
{
	while (!list_empty(waiters)) {
		struct reload_waiter *w = CONTAINER_OF(waiters->next, struct reload_waiter, node);

		list_del(&w->node);
		w->told(w, applied, text);
	}
}

static void refused(struct edge *e, const struct text *errors)
{
	const char *text = errors->bytes ? errors->bytes : "out of memory\n";

	counter_add(&e->reloads.refused, 1);
	log_lines(log_error_line, text);
	log_error("reload refused, version %llu stays in force", (unsigned long long)e->version);
	tell(&e->reload_waiters, false, text);
}

static void reload_begin(struct edge *e);

/* Every worker serves the new snapshot. */
static void reload_done(struct edge *e)
{
	nsec_t took = clock_now() - e->reload_began;
	char line[128];
	struct text text = text_fixed(line, sizeof(line));

	take_up(e, &e->serve_next);
	source_keep(&e->options, &e->snapshot->config);
	timer_start(&e->loop.timers, &e->drain_timer, clock_now() + (nsec_t)e->options.drain_s * NSEC_PER_SEC);
	counter_add(&e->reloads.applied, 1);
	e->from_state = false;
	atomic_store(&e->reloads.last_apply_us, (uint64_t)(took / NSEC_PER_USEC));
	text_printf(&text, "version %llu applied: %zu rules, %.1f ms\n", (unsigned long long)e->version,
		e->snapshot->config.rule_count, (double)took / (double)NSEC_PER_MSEC);
	log_info("%.*s", (int)text.length - 1, text.bytes);
	tell(&e->reload_waiters, true, text.bytes);
	if (e->reload_again)
		reload_begin(e);
}

static void acknowledged(struct mail *mail, void *to)
{
	struct edge *e = to;

	free(CONTAINER_OF(mail, struct mail_apply, mail));
	if (--e->unacknowledged == 0 && e->stops == 0)
		reload_done(e);
}

static struct mail_apply *make_mail(
	struct edge *e, struct worker *worker, struct snapshot *snapshot, struct bound_sockets *sockets)
{
	struct mail_apply *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	*m = (struct mail_apply){
		.mail = { .deliver = worker_apply },
		.worker = worker,
		.snapshot = snapshot_ref(snapshot),
		.sockets = *sockets,
		.drain = (nsec_t)e->options.drain_s * NSEC_PER_SEC,
		.acknowledge = acknowledged,
	};
	return m;
}

/* Everything that can fail is done before the first worker hears of it. */
static int prepare(struct edge *e, struct text *out, struct snapshot **ret_snapshot, struct mail_apply **mails)
{
	struct bound_sockets sockets[OPTIONS_WORKERS_MAX] = { 0 };
	struct config set = { 0 };
	struct port_map serve;
	int r;

	r = source_read(&e->options, &set, out);
	if (r)
		return r;
	r = plan(e, &set, false, &serve, out);
	if (r == 0 && !e->steer)
		r = bind_new_ports(e, &serve, sockets, out);
	if (r == 0)
		r = make_snapshot(e, &set, ret_snapshot);
	for (unsigned int w = 0; w < e->options.workers && r == 0; w++) {
		mails[w] = make_mail(e, e->workers[w], *ret_snapshot, &sockets[w]);
		if (!mails[w])
			r = fault(-ENOMEM);
	}
	if (r == 0) {
		e->serve_next = serve;
		return 0;
	}
	if (r < 0)
		text_printf(out, "%s: %s\n", source_name(&e->options), fault_text(r));
	for (unsigned int w = 0; w < e->options.workers; w++) {
		if (mails[w])
			snapshot_unref(mails[w]->snapshot);
		free(mails[w]);
	}
	close_all(e, sockets);
	config_free(&set);
	if (*ret_snapshot)
		pools_abort(e->pools);
	snapshot_unref(*ret_snapshot);
	return r;
}

static void reload_begin(struct edge *e)
{
	struct mail_apply *mails[OPTIONS_WORKERS_MAX] = { 0 };
	struct text errors = text_growing(ERRORS_TEXT_MAX);
	struct snapshot *snapshot = NULL;

	e->reload_again = false;
	e->reload_began = clock_now();
	while (!list_empty(&e->reload_waiters_next)) {
		struct list *node = e->reload_waiters_next.next;

		list_del(node);
		list_add(&e->reload_waiters, node);
	}
	if (prepare(e, &errors, &snapshot, mails)) {
		refused(e, &errors);
	} else {
		timer_stop(&e->drain_timer);
		let_go(e, &e->serve_next, PROTOCOL_TCP);
		set_snapshot(e, snapshot);
		pools_commit(e->pools, (nsec_t)e->options.drain_s * NSEC_PER_SEC); /* mailed before the snapshot is */
		e->unacknowledged = e->options.workers;
		for (unsigned int w = 0; w < e->options.workers; w++) {
			atomic_fetch_add(&e->node.fds, (uint32_t)mails[w]->sockets.count);
			mailbox_post(&e->workers[w]->mailbox, &mails[w]->mail);
		}
	}
	text_free(&errors);
}

void apply_reload(struct edge *e, struct reload_waiter *waiter)
{
	if (e->stops) {
		if (waiter)
			waiter->told(waiter, false, "the edge is stopping\n");
		return;
	}
	if (waiter)
		list_add(&e->reload_waiters_next, &waiter->node);
	if (e->unacknowledged)
		e->reload_again = true;
	else
		reload_begin(e);
}

void apply_close_ports(struct edge *e)
{
	static const struct port_map none;

	if (e->steer)
		let_go(e, &none, PROTOCOL_TCP);
}

void apply_deinit(struct edge *e)
{
	timer_stop(&e->drain_timer);
	steer_close(e->steer);
	e->steer = NULL;
	snapshot_unref(e->snapshot);
	e->snapshot = NULL;
	access_cache_deinit(&e->access);
}
