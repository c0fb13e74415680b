/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tidegate-origin: attaches the receiver of the TCP option on an origin, and says how it does. Everything it knows
 * between two calls is what is pinned in the BPF file system: there is no daemon. `run` is for containers, where a
 * process has to stay.
 */
#include "base/error.h"
#include "base/log.h"
#include "bpf/toa_recv/toa_recv.h"
#include "origin/mounts.h"
#include "origin/options.h"
#include "origin/privilege.h"
#include "origin/show.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EXIT_NOT_STARTED = 3, OUTPUT_MAX = 4 << 20, WHY_SIZE = 1000 };

static int complain(const char *why, int r)
{
	fprintf(stderr, "tidegate-origin: %s\n", why);
	return r == TOA_RECV_E_NOT_STARTED ? EXIT_NOT_STARTED : EXIT_FAILURE;
}

/*
 * What the rest needs: BPF and NET_ADMIN to load and attach, PERFMON only for the kinds 253 and 254. Before Linux 5.11
 * maps count as locked memory.
 */
static void reduce(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	int r;

	(void)setrlimit(RLIMIT_MEMLOCK, &all);
	r = privilege_keep(UINT64_C(1) << CAP_BPF | UINT64_C(1) << CAP_NET_ADMIN | UINT64_C(1) << CAP_PERFMON);
	if (r)
		fprintf(stderr, "tidegate-origin: giving up capabilities: %s\n", fault_text(r));
}

static int find_cgroup(const struct options *o, char *path, struct text *why)
{
	int r;

	if (o->cgroup) {
		memccpy(path, o->cgroup, 0, TOA_CGROUP_SIZE);
		return 0;
	}
	r = mounts_find("cgroup2", path, TOA_CGROUP_SIZE);
	if (r == MOUNTS_E_NONE)
		text_printf(why, "no cgroup v2 file system is mounted (mount -t cgroup2 none /sys/fs/cgroup)");
	else if (r)
		text_printf(why, "/proc/mounts: %s", strerror(-r));
	return r;
}

static void warn_of_everybody(const struct options *o)
{
	for (size_t i = 0; i < o->trust_count; i++)
		if (o->trust[i].bits == (ip_is_v4(&o->trust[i].ip) ? 96 : 0))
			fprintf(stderr,
				"tidegate-origin: warning: everybody is trusted, so any client can name any address\n");
}

static int start(const struct options *o)
{
	char cgroup[TOA_CGROUP_SIZE] = "", bytes[WHY_SIZE];
	struct text why = text_fixed(bytes, sizeof(bytes));
	struct toa_recv_options options = {
		.state = o->state,
		.cgroup = cgroup,
		.trust = o->trust,
		.trust_count = o->trust_count,
		.kind_v4 = o->kind_v4,
		.kind_v6 = o->kind_v6,
		.save_syn = !o->no_save_syn,
		.lookup = !o->no_lookup,
	};
	int r = find_cgroup(o, cgroup, &why);

	warn_of_everybody(o);
	if (r == 0)
		r = toa_recv_start(&options, &why);
	return r ? complain(bytes, r) : EXIT_SUCCESS;
}

static int stop(const struct options *o)
{
	char bytes[WHY_SIZE];
	struct text why = text_fixed(bytes, sizeof(bytes));
	int r = toa_recv_stop(o->state, &why);

	return r ? complain(bytes, r) : EXIT_SUCCESS;
}

static int run(const struct options *o)
{
	sigset_t set;
	int status, number;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return complain(strerror(errno), -errno);
	status = start(o);
	if (status)
		return status;
	log_info("ready: attached until SIGTERM or SIGINT");
	while (sigwait(&set, &number))
		;
	return stop(o);
}

static int trust(const struct options *o)
{
	char bytes[WHY_SIZE];
	struct text why = text_fixed(bytes, sizeof(bytes));
	int r = toa_recv_set_trust(o->state, o->trust, o->trust_count, &why);

	warn_of_everybody(o);
	return r ? complain(bytes, r) : EXIT_SUCCESS;
}

static int print(struct text *out)
{
	bool done = out->ok && fwrite(out->bytes, 1, out->length, stdout) == out->length && fflush(stdout) == 0;

	text_free(out);
	return done ? EXIT_SUCCESS : complain("standard output cannot be written to", -EIO);
}

static int status(const struct options *o)
{
	char bytes[WHY_SIZE];
	struct text why = text_fixed(bytes, sizeof(bytes)), out = text_growing(OUTPUT_MAX);
	struct toa_recv_status s;
	int r = toa_recv_read_status(o->state, &s, &why), printed;
	bool attached;

	if (r)
		return complain(bytes, r);
	attached = show_is_attached(&s);
	show_status(&s, o->format, &out);
	free(s.trust);
	printed = print(&out);
	return attached ? printed : EXIT_FAILURE;
}

/* All that is possible when the list cannot be read. */
static void read_online(bool *online, size_t count)
{
	FILE *f = fopen("/sys/devices/system/cpu/online", "re");
	char list[1024];

	if (!f || !fgets(list, sizeof(list), f) || show_online(list, online, count))
		memset(online, true, count);
	if (f)
		fclose(f);
}

static int stats(const struct options *o)
{
	char bytes[WHY_SIZE];
	struct text why = text_fixed(bytes, sizeof(bytes)), out = text_growing(OUTPUT_MAX);
	struct toa_counters *counters;
	size_t count;
	bool *online;
	int r = toa_recv_read_counters(o->state, &counters, &count, &why);

	if (r)
		return complain(bytes, r);
	online = calloc(count, sizeof(*online));
	if (!online)
		abort();
	read_online(online, count);
	show_stats(counters, count, online, o->format, &out);
	free(online);
	free(counters);
	return print(&out);
}

int main(int argc, char **argv)
{
	static int (*const commands[COMMAND_N])(const struct options *) = {
		[COMMAND_START] = start,
		[COMMAND_RUN] = run,
		[COMMAND_STOP] = stop,
		[COMMAND_TRUST] = trust,
		[COMMAND_STATUS] = status,
		[COMMAND_STATS] = stats,
	};
	struct options o;
	int r;

	options_parse(argc, argv, &o);
	reduce();
	r = commands[o.command](&o);
	free(o.trust);
	return r;
}
