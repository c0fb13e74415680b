/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/show.h"
#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LEGACY_N = TOA_COUNTER_UNTRUSTED }; /* those that kernel modules have come first */

static const char *const hook_words[TOA_RECV_HOOK_N] = {
	[TOA_RECV_ESTABLISHED] = "sock_ops",
	[TOA_RECV_NAME4] = "getpeername4",
	[TOA_RECV_NAME6] = "getpeername6",
	[TOA_RECV_LOOKUP] = "getsockopt",
};

static const struct {
	const char *name, *help;
} rows[TOA_COUNTER_N] = {
#define TOA_COUNTER(id, n, h) [TOA_COUNTER_##id] = { n, h },
#include "tables/toa_counter.def"
};

/* --- status --- */

static bool is_wanted(const struct toa_recv_status *s, int hook)
{
	return hook != TOA_RECV_LOOKUP || s->settings.lookup;
}

static bool is_in_place(const struct toa_recv_status *s, int hook)
{
	return s->cgroup_ids[hook] == s->settings.cgroup_id;
}

bool show_is_attached(const struct toa_recv_status *status)
{
	for (int i = 0; i < TOA_RECV_HOOK_N; i++)
		if (is_wanted(status, i) && !is_in_place(status, i))
			return false;
	return true;
}

static void status_text(const struct toa_recv_status *s, const char *since, struct text *out)
{
	char prefix[PREFIX_TEXT_SIZE];

	text_printf(out, "%s since %s\n", show_is_attached(s) ? "attached" : "NOT ATTACHED", since);
	text_printf(out, "cgroup     %s (id %llu)\n", s->settings.cgroup, (unsigned long long)s->settings.cgroup_id);
	for (int i = 0; i < TOA_RECV_HOOK_N; i++)
		if (is_wanted(s, i))
			text_printf(out, "%-10s %s%s\n", i == 0 ? "hooks" : "", hook_words[i],
				is_in_place(s, i)
					? ""
					: ": NOT ATTACHED, the cgroup was removed or it was detached by hand");
	text_printf(out, "kinds      %u for IPv4, %u for IPv6\n", s->settings.kind_v4, s->settings.kind_v6);
	text_printf(out, "saved SYN  %s\n",
		s->settings.save_syn ? "looked at, kept by new listeners" : "looked at if kept");
	for (size_t i = 0; i < s->trust_count; i++) {
		prefix_format(&s->trust[i], prefix);
		text_printf(out, "%-10s %s\n", i == 0 ? "trust" : "", prefix);
	}
}

static void status_json(const struct toa_recv_status *s, const char *since, struct text *out)
{
	char prefix[PREFIX_TEXT_SIZE];

	text_printf(
		out, "{\"attached\":%s,\"since\":\"%s\",\"cgroup\":", show_is_attached(s) ? "true" : "false", since);
	text_json(out, s->settings.cgroup, strlen(s->settings.cgroup));
	text_printf(out, ",\"cgroup_id\":%llu,\"hooks\":{", (unsigned long long)s->settings.cgroup_id);
	for (int i = 0; i < TOA_RECV_HOOK_N; i++)
		text_printf(out, "%s\"%s\":%s", i ? "," : "", hook_words[i],
			is_in_place(s, i) && is_wanted(s, i) ? "true" : "false");
	text_printf(out, "},\"kind_v4\":%u,\"kind_v6\":%u,\"save_syn\":%s,\"trust\":[", s->settings.kind_v4,
		s->settings.kind_v6, s->settings.save_syn ? "true" : "false");
	for (size_t i = 0; i < s->trust_count; i++) {
		prefix_format(&s->trust[i], prefix);
		text_printf(out, "%s\"%s\"", i ? "," : "", prefix);
	}
	text_str(out, "]}\n");
}

void show_status(const struct toa_recv_status *status, enum format format, struct text *out)
{
	char since[CLOCK_TEXT_SIZE];

	clock_format((nsec_t)status->settings.since_s * NSEC_PER_SEC, since);
	if (format == FORMAT_JSON)
		status_json(status, since, out);
	else
		status_text(status, since, out);
}

/* --- stats --- */

int show_online(const char *list, bool *ret_online, size_t count)
{
	memset(ret_online, 0, count * sizeof(*ret_online));
	while (*list && *list != '\n') {
		char *end;
		unsigned long first = strtoul(list, &end, 10), last = first;

		if (end == list)
			return fault(-EINVAL);
		if (*end == '-') {
			list = end + 1;
			last = strtoul(list, &end, 10);
			if (end == list)
				return fault(-EINVAL);
		}
		for (; first <= last && first < count; first++)
			ret_online[first] = true;
		list = *end == ',' ? end + 1 : end;
		if (*end && *end != ',' && *end != '\n')
			return fault(-EINVAL);
	}
	return 0;
}

/* Byte for byte what the kernel modules print; the counter that they do not have stands in the other formats. */
static void stats_text(const struct toa_counters *counters, size_t count, const bool *online, struct text *out)
{
	text_printf(out, "%34s", "");
	for (size_t cpu = 0; cpu < count; cpu++)
		if (online[cpu])
			text_printf(out, "CPU%zu       ", cpu);
	text_str(out, "\n");
	for (size_t i = 0; i < LEGACY_N; i++) {
		text_printf(out, "%-25s:", rows[i].name);
		for (size_t cpu = 0; cpu < count; cpu++)
			if (online[cpu])
				text_printf(out, "%10llu ", (unsigned long long)counters[cpu].count[i]);
		text_str(out, "\n");
	}
}

static uint64_t total(const struct toa_counters *counters, size_t count, size_t which)
{
	uint64_t sum = 0;

	for (size_t cpu = 0; cpu < count; cpu++)
		sum += counters[cpu].count[which];
	return sum;
}

static void stats_json(const struct toa_counters *counters, size_t count, struct text *out)
{
	text_str(out, "{");
	for (size_t i = 0; i < TOA_COUNTER_N; i++) {
		text_printf(out, "%s\"%s\":{\"total\":%llu,\"cpu\":[", i ? "," : "", rows[i].name,
			(unsigned long long)total(counters, count, i));
		for (size_t cpu = 0; cpu < count; cpu++)
			text_printf(out, "%s%llu", cpu ? "," : "", (unsigned long long)counters[cpu].count[i]);
		text_str(out, "]}");
	}
	text_str(out, "}\n");
}

static void stats_prometheus(const struct toa_counters *counters, size_t count, struct text *out)
{
	for (size_t i = 0; i < TOA_COUNTER_N; i++) {
		text_printf(out, "# HELP tidegate_origin_%s_total %s\n# TYPE tidegate_origin_%s_total counter\n",
			rows[i].name, rows[i].help, rows[i].name);
		text_printf(out, "tidegate_origin_%s_total %llu\n", rows[i].name,
			(unsigned long long)total(counters, count, i));
	}
}

void show_stats(
	const struct toa_counters *counters, size_t count, const bool *online, enum format format, struct text *out)
{
	switch (format) {
	case FORMAT_TEXT:
		stats_text(counters, count, online, out);
		break;
	case FORMAT_JSON:
		stats_json(counters, count, out);
		break;
	case FORMAT_PROMETHEUS:
		stats_prometheus(counters, count, out);
		break;
	}
}
