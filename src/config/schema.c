/* SPDX-License-Identifier: Apache-2.0 */
#include "config/schema.h"
#include "base/error.h"
#include "config/document.h"

#include <string.h>

const struct schema_object schema_objects[SCHEMA_N] = {
#define OBJECT(id, p, s, h) [SCHEMA_##id] = { .path = p, .scope = SETTING_SCOPE_##s, .help = h },
#include "tables/schema.def"
};

const struct schema_member schema_members[MEMBER_N] = {
#define MEMBER(o, m, t, d, h)                                                                                          \
	[MEMBER_##o##_##m] = { .name = #m,                                                                             \
		.name_length = sizeof(#m) - 1,                                                                         \
		.object = SCHEMA_##o,                                                                                  \
		.type = MEMBER_##t,                                                                                    \
		.default_text = d,                                                                                     \
		.help = h },
#include "tables/schema.def"
};

const char *schema_type_text(enum member_type type)
{
	static const char *const texts[] = {
		[MEMBER_NUMBER] = "a whole number",
		[MEMBER_TEXT] = "text",
		[MEMBER_LIST] = "a list",
		[MEMBER_OBJECT] = "an object",
		[MEMBER_SWITCH] = "true, false, \"on\" or \"off\"",
		[MEMBER_PORTS] = "a port, or a range as text",
	};

	return texts[type];
}

const char *schema_example(void)
{
	return "{\"schema\": 1, \"version\": 12,\n"
	       " \"node\": {\"max_flows\": 200000, \"resolvers\": [\"127.0.0.1\", \"[2001:db8::53]:5353\"]},\n"
	       " \"rule_defaults\": {\"idle_timeout\": \"5m\", \"client_max_flows\": 200},\n"
	       " \"ip_lists\": [\n"
	       "  {\"name\": \"office\", \"entries\": [\"10.0.0.0/8\", \"2001:db8::/32\"]},\n"
	       "  {\"name\": \"abusers\", \"entries\": [\"192.0.2.7\"]}],\n"
	       " \"origin_groups\": [\n"
	       "  {\"name\": \"game\", \"algorithm\": \"source_hash\", \"slow_start\": \"30s\", \"passive_fails\": 5,\n"
	       "   \"health_check\": {\"type\": \"udp\", \"interval\": \"2s\", \"send\": \"ping\", \"expect\": "
	       "\"pong\"},\n"
	       "   \"origins\": [{\"address\": \"10.0.0.1\", \"port\": 7000, \"weight\": 10},\n"
	       "    {\"address\": \"10.0.0.2\", \"port\": 7000, \"weight\": 10, \"enabled\": false},\n"
	       "    {\"address\": \"spare.example.net\", \"port\": 7001, \"weight\": 1}]},\n"
	       "  {\"name\": \"web\", \"health_check\": {\"type\": \"tcp\", \"port\": 8080},\n"
	       "   \"origins\": [{\"address\": \"10.0.1.1\"}, {\"address\": \"2001:db8::7\"}]}],\n"
	       " \"proxies\": [{\"name\": \"login\", \"deny\": [\"abusers\"]}],\n"
	       " \"rules\": [\n"
	       "  {\"id\": \"rule-game\", \"protocol\": \"udp\", \"edge_ports\": [\"7000-7010\"], \"origin\": "
	       "\"og:game\",\n"
	       "   \"origin_port\": 7000, \"persistence\": true, \"pass\": \"spp\", \"tag\": \"the game\"},\n"
	       "  {\"proxy\": \"login\", \"protocol\": \"tcp\", \"edge_ports\": [80, 443, \"8000-8010\"],\n"
	       "   \"origin\": \"og:web\", \"origin_port\": 8080, \"pass\": \"ppv2\"},\n"
	       "  {\"protocol\": \"tcp\", \"edge_ports\": [22], \"origin\": \"10.0.0.5\", \"origin_port\": 22,\n"
	       "   \"allow\": [\"office\"], \"settings\": {\"idle_timeout\": \"12h\", \"max_flows\": 20}}]}\n";
}

static void document_object(enum schema_object_id object, struct text *out)
{
	static const char *const scopes[] = {
		[SETTING_SCOPE_RULE] = "of-a-rule",
		[SETTING_SCOPE_NODE] = "of-the-node",
		[SETTING_SCOPE_GROUP] = "of-an-origin-group",
		[SETTING_SCOPE_CHECK] = "of-a-groups-health-check",
		[SETTING_SCOPE_ORIGIN] = "of-an-origin-of-a-group",
	};
	const struct schema_object *row = &schema_objects[object];
	bool any = false;

	if (*row->path)
		text_printf(out, "\n## `%s`\n\n%s\n\n", row->path, row->help);
	else
		text_printf(out, "\n## The document\n\n%s\n\n", row->help);
	for (size_t i = 0; i < MEMBER_N; i++) {
		const struct schema_member *member = &schema_members[i];

		if (member->object != object)
			continue;
		if (!any)
			text_str(out, "| member | value | without it | what it is |\n| --- | --- | --- | --- |\n");
		any = true;
		text_printf(out, "| `%s` | %s | %s | %s |\n", member->name, schema_type_text(member->type),
			member->default_text ? member->default_text : "*refused*", member->help);
	}
	if (row->scope == SETTING_SCOPE_N)
		return;
	text_printf(out, "%s%s: ", any ? "\nAnd settings" : "Settings", "");
	for (unsigned int id = 0; id < setting_count(row->scope); id++)
		text_printf(out, "%s`%s`", id ? ", " : "", setting_name(row->scope, id));
	text_printf(out, ". Values and defaults: [settings.md](settings.md#%s).\n", scopes[row->scope]);
}

/* The example as a program would write it: its checksum is right. */
static void document_example(struct text *out)
{
	const char *example = schema_example();
	struct problems problems = { 0 };
	struct config config;

	ASSERT(document_parse(example, strlen(example), limits_profile_find("open"), &config, &problems) ==
		DOCUMENT_OK);
	document_format(&config, out);
	config_free(&config);
}

void schema_document(struct text *out)
{
	text_str(out,
		"# Configuration document\n\n"
		"Made from tables/schema.def and tables/setting.def by `make docs`. How to write one: "
		"[configuration.md](../configuration.md).\n\n"
		"One JSON object (RFC 8259, UTF-8) holds a whole configuration. Members are named exactly as below, "
		"each "
		"once; others are refused. A document has at most 64 MiB.\n");
	for (unsigned int object = 0; object < SCHEMA_N; object++)
		document_object(object, out);
	text_str(out,
		"\n## Values of settings\n\n"
		"| setting | value |\n| --- | --- |\n"
		"| a time | text with its unit: `\"500ms\"`, `\"3s\"`, `\"5m\"`, `\"1h\"`; a number is refused, except "
		"0 where 0 "
		"has a meaning |\n"
		"| a number | `200`, or the text `\"200\"` |\n"
		"| on or off | `true`, `false`, `\"on\"`, `\"off\"` |\n"
		"| prefixes, addresses | a list of texts, or one text with commas between: "
		"`\"10.0.0.0/8,2001:db8::/32\"` |\n"
		"| anything else | text |\n"
		"\n## Checksum\n\n"
		"`checksum` is the 128-bit XXH3 hash (seed 0; 32 lower-case hexadecimal digits, the most significant "
		"first) over "
		"what the document says, so that spaces and line breaks make no difference. It tells an accident, not "
		"an "
		"attacker. Without it nothing is checked; documents written by programs always have it. Hashed are, in "
		"the order "
		"of the document and without the member `checksum` itself:\n\n"
		"| value | bytes |\n| --- | --- |\n"
		"| object | `{`, then name (as text) and value of each member, `}` |\n"
		"| list | `[`, each value, `]` |\n"
		"| text | `s`, the number of its UTF-8 bytes (8 bytes, little-endian), the bytes after JSON's escapes "
		"are "
		"resolved |\n"
		"| whole number | `i`, 8 bytes, little-endian, two's complement |\n"
		"| number with a fraction or an exponent | `r`, 8 bytes, little-endian, IEEE 754 |\n"
		"| `true`, `false`, `null` | `t`, `f`, `n` |\n"
		"\n## Example\n\n```json\n");
	document_example(out);
	text_str(out, "```\n");
}
