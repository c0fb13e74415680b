/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gen_docs DIRECTORY - writes the documents that are made from tables/ into docs/reference: settings.md,
 * snapshot.md, flow-log.md, metrics.md. `make docs` runs it, tools/check_tables compares.
 */
#include "config/schema.h"
#include "config/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DOCUMENT_MAX = 1 << 20 };

/* "rule protocol tag" as "rule, protocol, tag" */
static void put_labels(struct text *out, const char *labels)
{
	for (; *labels; labels++)
		text_put(out, *labels == ' ' ? ", " : labels, *labels == ' ' ? 2 : 1);
}

/* --- the flow log --- */

static const struct {
	const char *name, *type, *help;
} fields[] = {
#define FIELD(n, t, h) { #n, #t, h },
#include "tables/flow_field.def"
};

static const struct {
	const char *word, *side, *close, *help;
	bool logged;
} ends[] = {
#define END(id, w, s, c, l, h) { w, #s, #c, h, l },
#include "tables/end_reason.def"
};

static const char *side_text(const char *side)
{
	static const char *const texts[][2] = {
		{ "CLIENT", "client" },
		{ "ORIGIN", "origin" },
		{ "EDGE", "edge" },
		{ "FIRST", "who closed first" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (strcmp(side, texts[i][0]) == 0)
			return texts[i][1];
	abort();
}

static void document_flow_log(struct text *out)
{
	text_str(out,
		"# Flow log\n\nMade from tables/flow_field.def and tables/end_reason.def by `make docs`.\n\n"
		"One line of JSON for each flow, written at its end.\n\n"
		"## Fields\n\n| field | type | what it is |\n| --- | --- | --- |\n");
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		text_printf(out, "| `%s` | %s | %s |\n", fields[i].name,
			strcmp(fields[i].type, "STRING") == 0 ? "string" : "number", fields[i].help);
	text_str(out,
		"\n## Ends\n\nThe words of the field `end`. A TCP peer that did not cause the end sees FIN, "
		"or RST where a "
		"stream that was cut could be taken for a whole one.\n\n"
		"| end | end_side | TCP peers see | why |\n| --- | --- | --- | --- |\n");
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (ends[i].logged)
			text_printf(out, "| `%s` | %s | %s | %s |\n", ends[i].word, side_text(ends[i].side),
				ends[i].close, ends[i].help);
	text_str(out,
		"\nRefusals that are counted (`flows_ended_total`, `connections_refused_total`) but have no "
		"line in the "
		"log:\n\n| end | why |\n| --- | --- |\n");
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (!ends[i].logged)
			text_printf(out, "| `%s` | %s |\n", ends[i].word, ends[i].help);
}

/* --- metrics --- */

static const struct {
	const char *name, *type, *labels, *help;
} metrics[] = {
#define METRIC(id, t, n, l, h) { n, #t, l, h },
#include "tables/metric.def"
};

static const struct {
	const char *name, *help;
} counters[] = {
#define COUNTER(id, n, h) { n, h },
#include "tables/counter.def"
};

static const struct {
	const char *word, *help;
} drops[] = {
#define DROP(id, w, h) { w, h },
#include "tables/drop.def"
};

static void document_metrics(struct text *out)
{
	text_str(out,
		"# Metrics\n\nMade from tables/metric.def, tables/counter.def and tables/drop.def by `make "
		"docs`.\n\n"
		"Served as Prometheus text at `/metrics`. Every name begins with `tidegate_`. A sample with "
		"a reason "
		"(`end`, `reason`) appears when it has been counted for the first time.\n\n"
		"| metric | type | labels | what it is |\n| --- | --- | --- | --- |\n");
	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
		text_printf(out, "| `%s` | %s | ", metrics[i].name, metrics[i].type);
		put_labels(out, metrics[i].labels);
		text_printf(out, "%s| %s |\n", *metrics[i].labels ? " " : "", metrics[i].help);
	}
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		text_printf(out, "| `%s` | counter | | %s |\n", counters[i].name, counters[i].help);
	text_str(out,
		"\n## Labels\n\n| label | is |\n| --- | --- |\n"
		"| `rule` | id of the rule; the same as long as its protocol and edge ports are |\n"
		"| `protocol` | `tcp` or `udp` |\n"
		"| `tag` | the rule's tag, or empty |\n"
		"| `end` | why a flow ended: a word of [flow-log.md](flow-log.md#ends) |\n"
		"| `end_side` | who caused the end: `client`, `origin` or `edge`; `both` for `done` |\n"
		"| `result` | `applied` or `refused` |\n"
		"| `reason` | why a datagram was dropped: a word of the table below |\n");
	text_str(out, "\n## Reasons of datagrams_dropped_total\n\n| reason | why |\n| --- | --- |\n");
	for (size_t i = 0; i < ARRAY_SIZE(drops); i++)
		text_printf(out, "| `%s` | %s |\n", drops[i].word, drops[i].help);
}

/* --- files --- */

static bool write_document(const char *directory, const char *name, void (*document)(struct text *out))
{
	struct text text = text_growing(DOCUMENT_MAX);
	char path[4096];
	bool ok;
	FILE *f;

	document(&text);
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	f = fopen(path, "we");
	ok = f && text.ok && fwrite(text.bytes, 1, text.length, f) == text.length;
	if (f && fclose(f))
		ok = false;
	if (!ok)
		perror(path);
	text_free(&text);
	return ok;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*document)(struct text *out);
	} documents[] = {
		{ "settings.md", settings_document },
		{ "snapshot.md", schema_document },
		{ "flow-log.md", document_flow_log },
		{ "metrics.md", document_metrics },
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
		return 2;
	}
	for (size_t i = 0; i < ARRAY_SIZE(documents); i++)
		if (!write_document(argv[1], documents[i].name, documents[i].document))
			return 1;
	return 0;
}
