/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a configuration document. What is written is fed to the checksum as it goes, and the checksum, which stands
 * near the beginning, is filled in at the end. Blanks and line feeds are the only white space: no single wrong bit
 * makes another white space of them, so every such bit is found when the document is read.
 */
#include "config/check.h"
#include "config/document.h"
#include "config/json.h"

#include <string.h>

struct writer {
	struct text *out;
	struct json_sum sum;
	bool comma;	 /* the next value or member stands behind another */
	bool after_name; /* the next value belongs to a name */
};

/* --- JSON --- */

/* What stands between a value and the one before it. */
static void put_separator(struct writer *w)
{
	if (w->after_name)
		w->after_name = false;
	else if (w->comma)
		text_str(w->out, ", ");
	w->comma = true;
}

static void put_open(struct writer *w, char mark)
{
	put_separator(w);
	text_put(w->out, &mark, 1);
	json_sum_mark(&w->sum, mark);
	w->comma = false;
}

static void put_close(struct writer *w, char mark)
{
	text_put(w->out, &mark, 1);
	json_sum_mark(&w->sum, mark);
	w->comma = true;
}

static void put_text(struct writer *w, const char *text, size_t length)
{
	put_separator(w);
	text_json(w->out, text, length);
	json_sum_text(&w->sum, text, length);
}

static void put_string(struct writer *w, const char *string)
{
	put_text(w, string, strlen(string));
}

static void put_number(struct writer *w, uint64_t number)
{
	put_separator(w);
	text_u64(w->out, number);
	json_sum_number(&w->sum, (int64_t)number);
}

static void put_switch(struct writer *w, bool on)
{
	put_separator(w);
	text_str(w->out, on ? "true" : "false");
	json_sum_mark(&w->sum, on ? 't' : 'f');
}

static void put_name(struct writer *w, const char *name)
{
	put_string(w, name);
	text_str(w->out, ": ");
	w->after_name = true;
}

/* The next member or element begins a line. */
static void put_line(struct writer *w, const char *indent)
{
	text_printf(w->out, "%s\n%s", w->comma ? "," : "", indent);
	w->comma = false;
}

/* --- settings --- */

static void put_parts(struct writer *w, const char *list, size_t length)
{
	put_open(w, '[');
	for (;;) {
		const char *comma = memchr(list, ',', length);
		size_t part = comma ? (size_t)(comma - list) : length;

		put_text(w, list, part);
		if (!comma)
			break;
		list += part + 1;
		length -= part + 1;
	}
	put_close(w, ']');
}

static void put_setting(struct writer *w, enum setting_scope scope, unsigned int id, const void *settings)
{
	char bytes[8192];
	struct text value = text_fixed(bytes, sizeof(bytes));
	uint64_t number = 0;

	setting_format(scope, id, settings, &value);
	put_name(w, setting_name(scope, id));
	switch (setting_form(scope, id)) {
	case SETTING_FORM_NUMBER:
		for (size_t i = 0; i < value.length; i++)
			number = number * 10 + (uint64_t)(bytes[i] - '0');
		put_number(w, number);
		break;
	case SETTING_FORM_SWITCH:
		put_switch(w, strcmp(bytes, "on") == 0);
		break;
	case SETTING_FORM_LIST:
		put_parts(w, value.bytes, value.length);
		break;
	case SETTING_FORM_TEXT:
	case SETTING_FORM_TIME:
		put_text(w, value.bytes, value.length);
		break;
	}
}

static void put_settings(struct writer *w, enum setting_scope scope, setting_mask given, const void *settings)
{
	for (unsigned int id = 0; id < setting_count(scope); id++)
		if (given & 1u << id)
			put_setting(w, scope, id, settings);
}

static void put_settings_object(
	struct writer *w, const char *name, enum setting_scope scope, setting_mask given, const void *settings)
{
	put_name(w, name);
	put_open(w, '{');
	put_settings(w, scope, given, settings);
	put_close(w, '}');
}

/* --- objects --- */

static void put_host(struct writer *w, const struct host *host)
{
	char ip[ADDR_TEXT_SIZE];

	if (!host->name)
		ip_format(&host->ip, ip);
	put_string(w, host->name ? host->name : ip);
}

static void put_range(struct writer *w, struct port_range range)
{
	char bytes[16];
	struct text t = text_fixed(bytes, sizeof(bytes));

	if (range.first == range.last) {
		put_number(w, range.first);
		return;
	}
	text_printf(&t, "%u-%u", range.first, range.last);
	put_text(w, t.bytes, t.length);
}

static void put_access_list(struct writer *w, const char *name, const struct ip_list *const *lists, size_t count)
{
	if (count == 0)
		return;
	put_name(w, name);
	put_open(w, '[');
	for (size_t i = 0; i < count; i++)
		put_string(w, lists[i]->name);
	put_close(w, ']');
}

static void put_access(struct writer *w, const struct access *access)
{
	put_access_list(w, "allow", access->allow, access->allow_count);
	put_access_list(w, "deny", access->deny, access->deny_count);
}

/* As people write it: a host alone has no "/32". */
static void put_prefix(struct writer *w, const struct prefix *prefix)
{
	char text[PREFIX_TEXT_SIZE];
	size_t length = prefix->bits == 128 ? ip_format(&prefix->ip, text) : prefix_format(prefix, text);

	put_text(w, text, length);
}

static void put_ip_list(struct writer *w, const struct ip_list *list)
{
	put_name(w, "name");
	put_string(w, list->name);
	put_name(w, "entries");
	put_open(w, '[');
	for (size_t i = 0; i < list->count; i++)
		put_prefix(w, &list->items[i]);
	put_close(w, ']');
}

static void put_origin(struct writer *w, const struct origin *origin)
{
	put_open(w, '{');
	put_name(w, "address");
	put_host(w, &origin->host);
	if (origin->port) {
		put_name(w, "port");
		put_number(w, origin->port);
	}
	put_settings(w, SETTING_SCOPE_ORIGIN, origin->given, &origin->settings);
	put_close(w, '}');
}

static void put_group(struct writer *w, const struct origin_group *group)
{
	put_name(w, "name");
	put_string(w, group->name);
	put_settings(w, SETTING_SCOPE_GROUP, group->given, &group->settings);
	if (group->check_given)
		put_settings_object(w, "health_check", SETTING_SCOPE_CHECK, group->check_given, &group->check);
	put_name(w, "origins");
	put_open(w, '[');
	for (size_t i = 0; i < group->origin_count; i++) {
		put_line(w, "      ");
		put_origin(w, &group->origins[i]);
	}
	put_close(w, ']');
}

static void put_proxy(struct writer *w, const struct proxy *proxy)
{
	put_name(w, "name");
	put_string(w, proxy->name);
	put_access(w, &proxy->access);
}

static void put_origin_of_rule(struct writer *w, const struct rule *rule)
{
	char name[3 + OBJECT_NAME_MAX + 1];
	struct text t = text_fixed(name, sizeof(name));

	put_name(w, "origin");
	if (!rule->group) {
		put_host(w, &rule->origin);
		return;
	}
	text_printf(&t, "og:%s", rule->group->name);
	put_text(w, t.bytes, t.length);
}

static void put_rule(struct writer *w, const struct rule *rule)
{
	char made[RULE_ID_SIZE];

	rule_make_id(rule, made);
	if (strcmp(rule->id, made) != 0) {
		put_name(w, "id");
		put_string(w, rule->id);
	}
	if (rule->proxy) {
		put_name(w, "proxy");
		put_string(w, rule->proxy->name);
	}
	put_name(w, "protocol");
	put_string(w, protocol_name(rule->protocol));
	put_name(w, "edge_ports");
	put_open(w, '[');
	for (size_t i = 0; i < rule->edge_ports.count; i++)
		put_range(w, rule->edge_ports.items[i]);
	put_close(w, ']');
	put_origin_of_rule(w, rule);
	put_name(w, "origin_port");
	put_range(w, rule->origin_ports);
	put_name(w, "persistence");
	put_switch(w, rule->persistence);
	put_name(w, "pass");
	put_string(w, pass_mode_name(rule->pass));
	if (rule->tag) {
		put_name(w, "tag");
		put_string(w, rule->tag);
	}
	put_access(w, &rule->access);
	if (rule->given)
		put_settings_object(w, "settings", SETTING_SCOPE_RULE, rule->given, &rule->settings);
}

/* --- the document --- */

/* A list with an object on each line. */
static void put_objects(struct writer *w, const struct config *config, const char *name, size_t count,
	void (*put)(struct writer *w, const struct config *config, size_t index))
{
	if (count == 0)
		return;
	put_line(w, "  ");
	put_name(w, name);
	put_open(w, '[');
	for (size_t i = 0; i < count; i++) {
		put_line(w, "    ");
		put_open(w, '{');
		put(w, config, i);
		put_close(w, '}');
	}
	put_close(w, ']');
}

static void put_ip_list_at(struct writer *w, const struct config *config, size_t index)
{
	put_ip_list(w, &config->ip_lists[index]);
}

static void put_group_at(struct writer *w, const struct config *config, size_t index)
{
	put_group(w, &config->groups[index]);
}

static void put_proxy_at(struct writer *w, const struct config *config, size_t index)
{
	put_proxy(w, &config->proxies[index]);
}

static void put_rule_at(struct writer *w, const struct config *config, size_t index)
{
	put_rule(w, &config->rules[index]);
}

/* Room for the checksum, which is no part of itself. Return: where its digits begin. */
static size_t put_checksum_place(struct writer *w)
{
	text_printf(w->out, ",\n  \"checksum\": \"");
	text_printf(w->out, "%0*d\"", DOCUMENT_CHECKSUM_SIZE - 1, 0);
	return w->out->length - DOCUMENT_CHECKSUM_SIZE;
}

void document_format(const struct config *config, struct text *out)
{
	struct writer w = { .out = out };
	char checksum[DOCUMENT_CHECKSUM_SIZE];
	size_t checksum_at;

	json_sum_init(&w.sum);
	put_open(&w, '{');
	put_line(&w, "  ");
	put_name(&w, "schema");
	put_number(&w, DOCUMENT_SCHEMA);
	if (config->version) {
		put_line(&w, "  ");
		put_name(&w, "version");
		put_number(&w, config->version);
	}
	checksum_at = put_checksum_place(&w);
	if (config->node_given) {
		put_line(&w, "  ");
		put_settings_object(&w, "node", SETTING_SCOPE_NODE, config->node_given, &config->node);
	}
	if (config->rule_defaults_given) {
		put_line(&w, "  ");
		put_settings_object(
			&w, "rule_defaults", SETTING_SCOPE_RULE, config->rule_defaults_given, &config->rule_defaults);
	}
	put_objects(&w, config, "ip_lists", config->ip_list_count, put_ip_list_at);
	put_objects(&w, config, "origin_groups", config->group_count, put_group_at);
	put_objects(&w, config, "proxies", config->proxy_count, put_proxy_at);
	put_objects(&w, config, "rules", config->rule_count, put_rule_at);
	text_put(out, "\n", 1);
	put_close(&w, '}');
	text_put(out, "\n", 1);
	json_sum_final(&w.sum, checksum);
	if (out->ok)
		memcpy(out->bytes + checksum_at, checksum, DOCUMENT_CHECKSUM_SIZE - 1);
}
