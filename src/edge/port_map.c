/* SPDX-License-Identifier: Apache-2.0 */
#include "edge/port_map.h"
#include "base/log.h"
#include "io/sock_diag.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LEFT_LOG_MAX = 10 };

unsigned int port_map_count(const struct port_map *m, enum protocol protocol)
{
	unsigned int count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(m->bits[protocol]); i++)
		count += (unsigned int)__builtin_popcountll(m->bits[protocol][i]);
	return count;
}

struct plan {
	const struct config *set;
	const struct ip *listen;
	size_t listen_count;
	const struct port_map *held;
	struct port_map *serve;
	struct problems *problems;
	enum protocol protocol;
	unsigned int left; /* ports left to others */
	ino_t *own;	   /* inodes of our own sockets, once they are needed */
	size_t own_count;
	uint16_t metrics_port;
};

static bool is_any(const struct ip *ip)
{
	static const struct ip any_v6, any_v4 = { .bytes = { [10] = 0xff, [11] = 0xff } };

	return ip_equal(ip, &any_v6) || ip_equal(ip, &any_v4);
}

/* Whether a socket bound to @local and one of ours could be meant by the same packet. */
static bool addresses_meet(const struct plan *p, const struct ip *local)
{
	if (p->listen_count == 0 || is_any(local))
		return true;
	for (size_t i = 0; i < p->listen_count; i++)
		if (ip_equal(&p->listen[i], local))
			return true;
	return false;
}

/* The rule entry that has a port; the port is known to be in the set. */
static const struct rule *find_entry(const struct plan *p, unsigned int port, size_t *ret_entry)
{
	for (size_t i = 0; i < p->set->rule_count; i++) {
		const struct rule *rule = &p->set->rules[i];

		if (rule->protocol != p->protocol)
			continue;
		for (size_t e = 0; e < rule->edge_ports.count; e++) {
			if (port >= rule->edge_ports.items[e].first && port <= rule->edge_ports.items[e].last) {
				*ret_entry = e;
				return rule;
			}
		}
	}
	return NULL;
}

/* The inodes of all our sockets, once for a plan. */
static void collect_own(struct plan *p)
{
	DIR *fds = opendir("/proc/self/fd");
	struct dirent *d;
	size_t room = 0;
	struct stat st;

	while (fds && (d = readdir(fds))) {
		if (fstatat(dirfd(fds), d->d_name, &st, 0) < 0 || !S_ISSOCK(st.st_mode))
			continue;
		if (p->own_count == room) {
			ino_t *more = reallocarray(p->own, room ? room * 2 : 64, sizeof(*more));

			if (!more)
				break;
			p->own = more;
			room = room ? room * 2 : 64;
		}
		p->own[p->own_count++] = st.st_ino;
	}
	if (fds)
		closedir(fds);
}

/*
 * Our own sockets are no reason to refuse a port: the steered ones are bound somewhere, and those that answers have
 * left by (flow/udp_reply.h) stay open for a while. But for the one that serves metrics: its port is taken.
 */
static bool is_ours(struct plan *p, const struct sock_diag_entry *other)
{
	if (p->protocol == PROTOCOL_TCP && other->local.port == p->metrics_port)
		return false;
	if (!p->own)
		collect_own(p);
	for (size_t i = 0; i < p->own_count; i++)
		if (p->own[i] == other->inode)
			return true;
	return false;
}

/* A rule names exactly the port that another program has. */
static void port_taken(struct plan *p, const struct rule *rule, size_t entry, const char *owner)
{
	static const char message[] = "%s port %u is in use by %s, expected a port that no other program listens on";
	unsigned int port = rule->edge_ports.items[entry].first;
	char path[64];

	if (rule->line) {
		problem_add(p->problems, rule->line, rule->edge_columns[entry], message, protocol_name(p->protocol),
			port, owner);
		return;
	}
	snprintf(path, sizeof(path), "rules[%zu].edge_ports[%zu]", (size_t)(rule - p->set->rules), entry);
	problem_add_at(p->problems, path, message, protocol_name(p->protocol), port, owner);
}

static void other_listener(const struct sock_diag_entry *other, void *arg)
{
	struct plan *p = arg;
	unsigned int port = other->local.port;
	char owner[SOCK_OWNER_SIZE];
	const struct rule *rule;
	size_t entry;

	if (!port_map_has(p->serve, p->protocol, port) || port_map_has(p->held, p->protocol, port) ||
		!addresses_meet(p, &other->local.ip) || is_ours(p, other))
		return;
	rule = find_entry(p, port, &entry);
	p->serve->bits[p->protocol][port / 64] &= ~(UINT64_C(1) << (port % 64));
	if (rule && rule->edge_ports.items[entry].first == rule->edge_ports.items[entry].last) {
		sock_owner(other, owner);
		port_taken(p, rule, entry, owner);
		return;
	}
	if (p->left++ < LEFT_LOG_MAX) {
		sock_owner(other, owner);
		log_info("%s port %u is left to %s, which listens on it", protocol_name(p->protocol), port, owner);
	}
}

static void add_all(const struct config *set, struct port_map *serve)
{
	for (size_t i = 0; i < set->rule_count; i++) {
		const struct rule *rule = &set->rules[i];

		for (size_t e = 0; e < rule->edge_ports.count; e++)
			for (unsigned int port = rule->edge_ports.items[e].first;
				port <= rule->edge_ports.items[e].last; port++)
				port_map_add(serve, rule->protocol, port);
	}
}

int port_plan(const struct config *set, const struct options *options, const struct port_map *held,
	struct port_map *ret_serve, struct problems *problems)
{
	struct plan plan = {
		.set = set,
		.listen = options->listen,
		.listen_count = options->listen_count,
		.metrics_port = options->metrics.port,
		.held = held,
		.serve = ret_serve,
		.problems = problems,
	};

	memset(ret_serve, 0, sizeof(*ret_serve));
	add_all(set, ret_serve);
	for (int i = 0; i < PROTOCOL_N; i++) {
		int r;

		plan.protocol = (enum protocol)i;
		plan.left = 0;
		r = sock_diag_listeners(i == PROTOCOL_TCP, other_listener, &plan);
		if (r) {
			free(plan.own);
			return r;
		}
		if (plan.left > LEFT_LOG_MAX)
			log_info("%u more %s ports are left to other programs", plan.left - LEFT_LOG_MAX,
				protocol_name(plan.protocol));
	}
	free(plan.own);
	if (problems->count) {
		problems_sort(problems);
		return RULES_E_WRONG;
	}
	return RULES_OK;
}
