/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_document - how long it takes to read, write and compare large configuration documents. Prints milliseconds, the
 * best of several rounds; use the release build.
 */
#include "base/error.h"
#include "config/diff.h"
#include "config/document.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 10 };

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* 2000 rules with 20 edge port entries each, 200 groups with 100 origins each. */
static struct text many_rules(int weight)
{
	struct text t = text_growing(DOCUMENT_MAX);

	text_str(&t, "{\"schema\": 1, \"version\": 1, \"origin_groups\": [");
	for (int group = 0; group < 200; group++) {
		text_printf(&t,
			"%s\n{\"name\": \"group-%d\", \"algorithm\": \"source_hash\", \"health_check\": {\"type\": "
			"\"tcp\"}, "
			"\"origins\": [",
			group ? "," : "", group);
		for (int i = 0; i < 100; i++)
			text_printf(&t,
				"%s\n{\"address\": \"10.%d.0.%d\", \"port\": 8080, \"weight\": %d, \"enabled\": true}",
				i ? "," : "", group, i + 1, weight);
		text_str(&t, "]}");
	}
	text_str(&t, "], \"proxies\": [{\"name\": \"login\"}], \"rules\": [");
	for (int rule = 0; rule < 2000; rule++) {
		text_printf(&t, "%s\n{\"proxy\": \"login\", \"protocol\": \"tcp\", \"edge_ports\": [", rule ? "," : "");
		for (int i = 1; i <= 20; i++)
			text_printf(&t, "%s%d", i > 1 ? ", " : "", rule * 20 + i);
		text_printf(&t,
			"], \"origin\": \"og:group-%d\", \"origin_port\": 8080, \"persistence\": true, \"pass\": "
			"\"ppv2\", "
			"\"tag\": \"rule %d\", \"settings\": {\"idle_timeout\": \"5m\", \"max_flows\": 1000}}",
			rule % 200, rule);
	}
	text_str(&t, "]}\n");
	return t;
}

static struct text many_entries(void)
{
	struct text t = text_growing(DOCUMENT_MAX);

	text_str(&t, "{\"schema\": 1, \"ip_lists\": [{\"name\": \"l\", \"entries\": [");
	for (unsigned int i = 0; i < 1000000; i++)
		text_printf(&t, "%s\"%u.%u.%u.0/24\"", i ? ", " : "", 11 + (i >> 16), i >> 8 & 255, i & 255);
	text_str(&t, "]}]}\n");
	return t;
}

static struct config parse(const struct text *json)
{
	struct problems problems = { 0 };
	struct config config;

	ASSERT(json->ok);
	ASSERT(document_parse(json->bytes, json->length, limits_profile_find("open"), &config, &problems) ==
		DOCUMENT_OK);
	return config;
}

/* Every round begins with the text that a program would have written, checksum included. */
static void measure(const char *what, const struct text *json, int rounds)
{
	double best_parse = 1e9, best_format = 1e9, best_free = 1e9;
	struct config config = parse(json);
	struct text written = text_growing(DOCUMENT_MAX);

	document_format(&config, &written);
	config_free(&config);
	for (int i = 0; i < rounds; i++) {
		struct text again = text_growing(DOCUMENT_MAX);
		double start = now_ms(), parsed, formatted;

		config = parse(&written);
		parsed = now_ms();
		document_format(&config, &again);
		formatted = now_ms();
		config_free(&config);
		best_free = MIN(best_free, now_ms() - formatted);
		best_parse = MIN(best_parse, parsed - start);
		best_format = MIN(best_format, formatted - parsed);
		text_free(&again);
	}
	printf("%-40s %9zu bytes  parse, check, checksum %7.1f ms  format %7.1f ms  free %5.1f ms\n", what,
		written.length, best_parse, best_format, best_free);
	text_free(&written);
}

static void measure_diff(void)
{
	struct text old_json = many_rules(10), new_json = many_rules(20), lines = text_growing(1 << 20);
	struct config old = parse(&old_json), new = parse(&new_json);
	double best = 1e9;

	for (int i = 0; i < ROUNDS; i++) {
		double start = now_ms();

		lines.length = 0;
		ASSERT(config_diff(&old, &new, &lines) == 0);
		best = MIN(best, now_ms() - start);
	}
	printf("%-40s %9zu bytes  diff                   %7.1f ms\n", "the same, all 20000 weights changed",
		lines.length, best);
	config_free(&old);
	config_free(&new);
	text_free(&old_json);
	text_free(&new_json);
	text_free(&lines);
}

int main(void)
{
	struct text rules = many_rules(10), entries = many_entries();

	measure("2000 rules x 20 ports, 200 x 100 origins", &rules, ROUNDS);
	measure_diff();
	measure("1000000 entries of an IP list", &entries, 3);
	text_free(&rules);
	text_free(&entries);
	return 0;
}
