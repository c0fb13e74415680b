/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the counters. A total is the sum over the workers; each number is read once and may be a little older than
 * the next one.
 */
#include "edge/status.h"
#include "edge/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "flow/stats.h"

static uint64_t sum_rule(const struct rule_state *state, size_t offset)
{
	uint64_t sum = 0;

	for (unsigned int w = 0; w < state->workers; w++)
		sum += counter_get((const counter *)(const void *)((const char *)&state->stats[w] + offset));
	return sum;
}

static uint64_t sum_env(const struct edge *e, size_t offset)
{
	uint64_t sum = 0;

	for (unsigned int w = 0; w < e->options.workers; w++)
		if (e->workers[w])
			sum += counter_get((const counter *)(const void *)((const char *)&e->workers[w]->env + offset));
	return sum;
}

#define RULE_SUM(state, field) sum_rule((state), offsetof(struct rule_stats, field))
#define ENV_SUM(e, field)      sum_env((e), offsetof(struct flow_env, field))

/* --- Prometheus --- */

enum metric_id {
#define METRIC(id, ...) METRIC_##id,
#include "tables/metric.def"
	METRIC_N
};

static const struct metric_row {
	const char *name;
	const char *type;
	const char *help;
} metric_rows[METRIC_N] = {
#define METRIC(id, t, n, l, h) [METRIC_##id] = { .name = n, .type = #t, .help = h },
#include "tables/metric.def"
};

static void put_head(struct text *out, const char *name, const char *type, const char *help)
{
	text_printf(out, "# HELP tidegate_%s %s\n# TYPE tidegate_%s %s\n", name, help, name, type);
}

static void head(struct text *out, enum metric_id id)
{
	put_head(out, metric_rows[id].name, metric_rows[id].type, metric_rows[id].help);
}

/* A metric without labels. */
static void one(struct text *out, enum metric_id id, uint64_t value)
{
	head(out, id);
	text_printf(out, "tidegate_%s %" PRIu64 "\n", metric_rows[id].name, value);
}

/* {rule="…",tag="…"} without the closing brace, so that more labels can follow */
static void rule_labels(struct text *out, const struct snapshot_rule *rule)
{
	text_printf(out, "{rule=\"%s\",protocol=\"%s\",tag=", rule->rule->id, protocol_name(rule->rule->protocol));
	text_json(out, rule->rule->tag ? rule->rule->tag : "", rule->rule->tag ? strlen(rule->rule->tag) : 0);
}

/* The metrics that every rule has one number of. */
static const struct {
	enum metric_id id;
	size_t offset;
} rule_rows[] = {
	{ METRIC_FLOWS, offsetof(struct rule_stats, flows) },
	{ METRIC_FLOWS_ACTIVE, offsetof(struct rule_stats, active) },
	{ METRIC_BYTES_IN, offsetof(struct rule_stats, bytes_in) },
	{ METRIC_BYTES_OUT, offsetof(struct rule_stats, bytes_out) },
	{ METRIC_DATAGRAMS_IN, offsetof(struct rule_stats, datagrams_in) },
	{ METRIC_DATAGRAMS_OUT, offsetof(struct rule_stats, datagrams_out) },
};

static void put_rules(const struct snapshot *s, struct text *out)
{
	for (size_t row = 0; row < ARRAY_SIZE(rule_rows); row++) {
		head(out, rule_rows[row].id);
		for (size_t i = 0; i < s->config.rule_count; i++) {
			text_printf(out, "tidegate_%s", metric_rows[rule_rows[row].id].name);
			rule_labels(out, &s->rules[i]);
			text_printf(out, "} %" PRIu64 "\n", sum_rule(s->rules[i].state, rule_rows[row].offset));
		}
	}
}

static void put_ended(const struct snapshot *s, struct text *out)
{
	head(out, METRIC_FLOWS_ENDED);
	for (size_t i = 0; i < s->config.rule_count; i++) {
		for (int why = 0; why < END_N; why++) {
			uint64_t n = sum_rule(
				s->rules[i].state, offsetof(struct rule_stats, ended) + (size_t)why * sizeof(counter));

			if (n == 0)
				continue;
			text_str(out, "tidegate_flows_ended_total");
			rule_labels(out, &s->rules[i]);
			text_printf(out, ",end=\"%s\"} %" PRIu64 "\n", end_rows[why].word, n);
		}
	}
}

static void put_dropped(const struct edge *e, const struct snapshot *s, struct text *out)
{
	head(out, METRIC_DROPPED);
	for (int why = 0; why < DROP_N; why++) {
		size_t offset = (size_t)why * sizeof(counter);
		uint64_t n = sum_env(e, offsetof(struct flow_env, dropped) + offset);

		if (n)
			text_printf(out, "tidegate_datagrams_dropped_total{reason=\"%s\"} %" PRIu64 "\n",
				drop_rows[why].word, n);
		for (size_t i = 0; i < s->config.rule_count; i++) {
			n = sum_rule(s->rules[i].state, offsetof(struct rule_stats, dropped) + offset);
			if (n == 0)
				continue;
			text_str(out, "tidegate_datagrams_dropped_total");
			rule_labels(out, &s->rules[i]);
			text_printf(out, ",reason=\"%s\"} %" PRIu64 "\n", drop_rows[why].word, n);
		}
	}
}

static void put_refused(const struct edge *e, struct text *out)
{
	head(out, METRIC_REFUSED);
	for (int why = 0; why < END_N; why++) {
		uint64_t n = sum_env(e, offsetof(struct flow_env, refused) + (size_t)why * sizeof(counter));

		if (n)
			text_printf(out, "tidegate_connections_refused_total{end=\"%s\"} %" PRIu64 "\n",
				end_rows[why].word, n);
	}
}

static void put_histogram(const struct snapshot_rule *rule, struct text *out)
{
	uint64_t total = 0, sum_us;

	for (int b = 0; b <= CONNECT_BUCKETS; b++) {
		total += sum_rule(rule->state, offsetof(struct rule_stats, connects) + (size_t)b * sizeof(counter));
		text_str(out, "tidegate_connect_seconds_bucket");
		rule_labels(out, rule);
		if (b < CONNECT_BUCKETS)
			text_printf(out, ",le=\"%g\"} %" PRIu64 "\n", connect_bucket_us[b] / 1e6, total);
		else
			text_printf(out, ",le=\"+Inf\"} %" PRIu64 "\n", total);
	}
	sum_us = RULE_SUM(rule->state, connect_sum_us);
	text_str(out, "tidegate_connect_seconds_sum");
	rule_labels(out, rule);
	text_printf(out, "} %" PRIu64 ".%06" PRIu64 "\n", sum_us / 1000000, sum_us % 1000000);
	text_str(out, "tidegate_connect_seconds_count");
	rule_labels(out, rule);
	text_printf(out, "} %" PRIu64 "\n", total);
}

static void put_connects(const struct snapshot *s, struct text *out)
{
	head(out, METRIC_CONNECT);
	for (size_t i = 0; i < s->config.rule_count; i++)
		if (s->config.rules[i].protocol == PROTOCOL_TCP)
			put_histogram(&s->rules[i], out);
}

/* --- origins of groups --- */

static uint64_t origin_value(enum metric_id id, const struct origin_status *s)
{
	switch ((int)id) {
	case METRIC_ORIGIN_UP:
		return !s->down;
	case METRIC_ORIGIN_FLOWS:
		return s->flows_total;
	case METRIC_ORIGIN_FLOWS_ACTIVE:
		return s->flows;
	case METRIC_ORIGIN_CHECKS:
		return s->probes;
	case METRIC_ORIGIN_CHECKS_FAILED:
		return s->probes_failed;
	case METRIC_ORIGIN_CHANGES:
		return s->changes;
	default:
		return 0;
	}
}

/* "10.0.0.1:80", or "10.0.0.1" when the port is the rule's */
static void format_origin(const struct addr *addr, char out[static ADDR_TEXT_SIZE])
{
	if (addr->port)
		addr_format(addr, out);
	else
		ip_format(&addr->ip, out);
}

struct origin_sample {
	enum metric_id id;
	struct text *out;
};

static void put_origin(const struct origin_status *s, void *arg)
{
	const struct origin_sample *sample = arg;
	char origin[ADDR_TEXT_SIZE];

	format_origin(&s->addr, origin);
	text_printf(sample->out, "tidegate_%s{group=\"%s\",origin=\"%s\"} ", metric_rows[sample->id].name, s->group,
		origin);
	if (sample->id == METRIC_ORIGIN_CHECK)
		text_printf(sample->out, "%.6f\n", (double)s->latency / 1e9);
	else
		text_printf(sample->out, "%" PRIu64 "\n", origin_value(sample->id, s));
}

static void put_origins(struct edge *e, struct text *out)
{
	for (enum metric_id id = METRIC_ORIGIN_UP; id <= METRIC_ORIGIN_CHECK; id++) {
		struct origin_sample sample = { id, out };

		head(out, id);
		pools_each(e->pools, put_origin, &sample);
	}
}

struct json_origins {
	struct text *out;
	const char *separator;
};

static void json_origin(const struct origin_status *s, void *arg)
{
	struct json_origins *j = arg;
	char origin[ADDR_TEXT_SIZE];

	format_origin(&s->addr, origin);
	text_printf(j->out, "%s{\"group\":\"%s\",\"origin\":\"%s\",\"enabled\":%s,\"state\":\"%s\"", j->separator,
		s->group, origin, s->enabled ? "true" : "false",
		!s->checked	  ? "unchecked"
			: s->down ? "down"
				  : "up");
	if (s->checked)
		text_printf(j->out, ",\"reason\":\"%s\",\"check_ms\":%.3f", health_reason_word(s->reason),
			(double)s->latency / 1e6);
	text_printf(j->out, ",\"flows\":%u,\"flows_total\":%" PRIu64 "}", s->flows, s->flows_total);
	j->separator = ",";
}

static uint64_t resident_bytes(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f && fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void put_node(struct edge *e, const struct snapshot *s, struct text *out)
{
	struct toa_counts toa = toa_send_counts(e->toa);

	for (int i = 0; i < COUNTER_N; i++) {
		put_head(out, counter_rows[i].word, "counter", counter_rows[i].help);
		text_printf(out, "tidegate_%s %" PRIu64 "\n", counter_rows[i].word,
			sum_env(e, offsetof(struct flow_env, counters) + (size_t)i * sizeof(counter)));
	}
	one(out, METRIC_LOG_LINES_LOST, counter_get(&e->log.lines_lost));
	head(out, METRIC_RELOADS);
	text_printf(out, "tidegate_reloads_total{result=\"applied\"} %" PRIu64 "\n", counter_get(&e->reloads.applied));
	text_printf(out, "tidegate_reloads_total{result=\"refused\"} %" PRIu64 "\n", counter_get(&e->reloads.refused));
	head(out, METRIC_RELOAD);
	text_printf(out, "tidegate_reload_seconds %.6f\n", (double)counter_get(&e->reloads.last_apply_us) / 1e6);
	one(out, METRIC_CONFIG_VERSION, s->version);
	one(out, METRIC_NODE_FLOWS, atomic_load(&e->node.flows));
	one(out, METRIC_NODE_FLOWS_MAX, s->config.node.max_flows);
	one(out, METRIC_FDS, atomic_load(&e->node.fds));
	one(out, METRIC_FDS_MAX, e->node.fd_max);
	one(out, METRIC_RESIDENT_MEMORY, resident_bytes());
	one(out, METRIC_WORKERS, e->options.workers);
	one(out, METRIC_STEERING_BPF, e->steer != NULL);
	one(out, METRIC_TCP_FAST_NOW, ENV_SUM(e, tcp_fast_flows));
	one(out, METRIC_TOA, e->toa != NULL);
	one(out, METRIC_TOA_NO_ROOM, toa.no_room);
	one(out, METRIC_TOA_SYN_WITHOUT, toa.syn_without);
}

/* The snapshot, kept alive while it is read. */
static struct snapshot *current(struct edge *e)
{
	struct snapshot *s;

	pthread_mutex_lock(&e->snapshot_lock);
	s = snapshot_ref(e->snapshot);
	pthread_mutex_unlock(&e->snapshot_lock);
	return s;
}

void status_prometheus(struct edge *e, struct text *out)
{
	struct snapshot *s = current(e);

	put_rules(s, out);
	put_ended(s, out);
	put_connects(s, out);
	put_dropped(e, s, out);
	put_refused(e, out);
	put_origins(e, out);
	put_node(e, s, out);
	snapshot_unref(s);
}

/* --- JSON --- */

void status_json(struct edge *e, struct text *out)
{
	struct resolver_stats names = resolver_stats(e->resolver);
	const char *name = e->snapshot->config.node.name[0] ? e->snapshot->config.node.name : e->log.host;

	text_str(out, "{\"version\":");
	text_u64(out, e->version);
	text_str(out, ",\"source\":");
	text_json(out, source_name(&e->options), strlen(source_name(&e->options)));
	text_printf(out, ",\"last_good\":%s", e->from_state ? "true" : "false");
	text_str(out, ",\"node\":");
	text_json(out, name, strlen(name));
	text_printf(out, ",\"rules\":%zu,\"workers\":%u,\"uptime_s\":%" PRId64, e->snapshot->config.rule_count,
		e->options.workers, (clock_now() - e->started) / NSEC_PER_SEC);
	text_str(out, ",\"steering\":");
	text_json(out, e->steering, strlen(e->steering));
	text_str(out, ",\"udp_fast_path\":");
	text_json(out, e->fastpath_state, strlen(e->fastpath_state));
	text_str(out, ",\"tcp_fast_path\":");
	text_json(out, e->tcp_fastpath_state, strlen(e->tcp_fastpath_state));
	text_str(out, ",\"toa\":");
	text_json(out, e->toa_state, strlen(e->toa_state));
	text_printf(out, ",\"ports\":{\"tcp\":%u,\"udp\":%u}", port_map_count(&e->held, PROTOCOL_TCP),
		port_map_count(&e->held, PROTOCOL_UDP));
	text_printf(out, ",\"flows\":%u,\"flows_max\":%u,\"fds\":%u,\"fds_max\":%u", atomic_load(&e->node.flows),
		e->snapshot->config.node.max_flows, atomic_load(&e->node.fds), e->node.fd_max);
	text_printf(out, ",\"reloads\":{\"applied\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"last_ms\":%.3f}",
		counter_get(&e->reloads.applied), counter_get(&e->reloads.refused),
		(double)counter_get(&e->reloads.last_apply_us) / 1e3);
	text_printf(out,
		",\"names\":{\"in_use\":%u,\"unresolved\":%u,\"lookups\":%" PRIu64 ",\"failures\":%" PRIu64 "}",
		names.names, names.unresolved, names.lookups, names.failures);
	text_str(out, ",\"origins\":[");
	pools_each(e->pools, json_origin, &(struct json_origins){ out, "" });
	text_str(out, "]");
	text_printf(out, ",\"log_lines_dropped\":%" PRIu64, ENV_SUM(e, counters[COUNTER_LOG_LINES_DROPPED]));
	text_printf(out, ",\"resident_memory_bytes\":%" PRIu64 "}\n", resident_bytes());
}
