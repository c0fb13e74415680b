/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects are found in the other configuration by a map of keys. What differs within one object stands in one line:
 * "~ rule rule-x: idle_timeout 1m → 5m, tag a → b".
 */
#include "config/diff.h"
#include "base/error.h"
#include "base/key_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_SHOWN_MAX = 120 };

struct diff {
	const struct config *old, *new;
	struct text *out;
	size_t lines;
	const char *separator; /* before the next change in a line; NULL: the line has not begun */
	bool skip;	       /* the line is only counted */
};

/* --- lines --- */

static bool line_begin(struct diff *d)
{
	d->skip = d->lines++ >= DIFF_LINES_MAX;
	return !d->skip;
}

/* A value, cut when it is long. */
static void put_value(struct diff *d, const struct text *value)
{
	size_t length = value->length;

	if (length > VALUE_SHOWN_MAX) {
		for (length = VALUE_SHOWN_MAX; length && ((unsigned char)value->bytes[length] & 0xc0) == 0x80; length--)
			;
	}
	if (length == 0)
		text_str(d->out, "none");
	else
		text_put(d->out, value->bytes, length);
	if (length < value->length)
		text_str(d->out, "…");
}

/* "~ KIND NAME: " before the first change of an object, ", " before the others. Line ends are object_end()'s. */
static bool change_begin(struct diff *d, const char *kind, const char *name)
{
	if (!d->separator) {
		if (line_begin(d))
			text_printf(d->out, "~ %s%s%s: ", kind, *name ? " " : "", name);
	} else if (!d->skip) {
		text_str(d->out, d->separator);
	}
	d->separator = ", ";
	return !d->skip;
}

static void object_end(struct diff *d)
{
	if (d->separator && !d->skip)
		text_str(d->out, "\n");
	d->separator = NULL;
}

typedef void (*put_fn)(const void *object, struct text *out);

/* A change of a field that @put writes. */
static void change(struct diff *d, const char *kind, const char *name, const char *field, put_fn put, const void *old,
	const void *new)
{
	char old_bytes[4096], new_bytes[4096];
	struct text old_value = text_fixed(old_bytes, sizeof(old_bytes));
	struct text new_value = text_fixed(new_bytes, sizeof(new_bytes));

	if (!change_begin(d, kind, name))
		return;
	put(old, &old_value);
	put(new, &new_value);
	text_printf(d->out, "%s ", field);
	put_value(d, &old_value);
	text_str(d->out, " → ");
	put_value(d, &new_value);
}

/* Settings in @which that differ. */
static void change_settings(struct diff *d, const char *kind, const char *name, enum setting_scope scope,
	setting_mask which, const void *old, const void *new)
{
	for (unsigned int id = 0; id < setting_count(scope); id++) {
		char old_bytes[8192], new_bytes[8192];
		struct text old_value = text_fixed(old_bytes, sizeof(old_bytes));
		struct text new_value = text_fixed(new_bytes, sizeof(new_bytes));

		if (!(which & 1u << id) || setting_equal(scope, id, old, new) || !change_begin(d, kind, name))
			continue;
		setting_format(scope, id, old, &old_value);
		setting_format(scope, id, new, &new_value);
		text_printf(d->out, "%s ", setting_name(scope, id));
		put_value(d, &old_value);
		text_str(d->out, " → ");
		put_value(d, &new_value);
	}
}

/* --- values --- */

static void put_range(struct port_range range, struct text *out)
{
	text_u64(out, range.first);
	if (range.last != range.first)
		text_printf(out, "-%u", range.last);
}

static void put_edge_ports(const void *object, struct text *out)
{
	const struct rule *rule = object;

	text_printf(out, "%s:", protocol_name(rule->protocol));
	for (size_t i = 0; i < rule->edge_ports.count && out->ok; i++) {
		text_str(out, i ? ";" : "");
		put_range(rule->edge_ports.items[i], out);
	}
}

static void put_host(const struct host *host, bool brackets, struct text *out)
{
	char ip[ADDR_TEXT_SIZE];

	if (host->name) {
		text_str(out, host->name);
		return;
	}
	ip_format(&host->ip, ip);
	text_printf(out, brackets && !ip_is_v4(&host->ip) ? "[%s]" : "%s", ip);
}

static void put_rule_origin(const void *object, struct text *out)
{
	const struct rule *rule = object;

	if (rule->group)
		text_printf(out, "og:%s", rule->group->name);
	else
		put_host(&rule->origin, true, out);
	text_str(out, ":");
	put_range(rule->origin_ports, out);
}

static void put_origin(const void *object, struct text *out)
{
	const struct origin *origin = object;

	put_host(&origin->host, origin->port != 0, out);
	if (origin->port)
		text_printf(out, ":%u", origin->port);
}

static void put_persistence(const void *object, struct text *out)
{
	text_str(out, ((const struct rule *)object)->persistence ? "on" : "off");
}

static void put_pass(const void *object, struct text *out)
{
	text_str(out, pass_mode_name(((const struct rule *)object)->pass));
}

static void put_tag(const void *object, struct text *out)
{
	const struct rule *rule = object;

	text_str(out, rule->tag ? rule->tag : "");
}

static void put_proxy(const void *object, struct text *out)
{
	const struct rule *rule = object;

	text_str(out, rule->proxy ? rule->proxy->name : "");
}

static void put_lists(const struct ip_list *const *lists, size_t count, struct text *out)
{
	for (size_t i = 0; i < count; i++)
		text_printf(out, "%s%s", i ? ";" : "", lists[i]->name);
}

static void put_allow(const void *object, struct text *out)
{
	const struct access *access = object;

	put_lists(access->allow, access->allow_count, out);
}

static void put_deny(const void *object, struct text *out)
{
	const struct access *access = object;

	put_lists(access->deny, access->deny_count, out);
}

/* --- equality --- */

static bool ports_equal(const struct rule *a, const struct rule *b)
{
	return a->protocol == b->protocol && a->edge_ports.count == b->edge_ports.count &&
		(a->edge_ports.count == 0 ||
			memcmp(a->edge_ports.items, b->edge_ports.items,
				a->edge_ports.count * sizeof(struct port_range)) == 0);
}

static bool rule_origin_equal(const struct rule *a, const struct rule *b)
{
	if (memcmp(&a->origin_ports, &b->origin_ports, sizeof(a->origin_ports)) != 0 || !a->group != !b->group)
		return false;
	return a->group ? strcmp(a->group->name, b->group->name) == 0 : host_equal(&a->origin, &b->origin);
}

static bool text_equal(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool lists_equal(const struct ip_list *const *a, size_t a_count, const struct ip_list *const *b, size_t b_count)
{
	if (a_count != b_count)
		return false;
	for (size_t i = 0; i < a_count; i++)
		if (strcmp(a[i]->name, b[i]->name) != 0)
			return false;
	return true;
}

static void change_access(
	struct diff *d, const char *kind, const char *name, const struct access *old, const struct access *new)
{
	if (!lists_equal(old->allow, old->allow_count, new->allow, new->allow_count))
		change(d, kind, name, "allow", put_allow, old, new);
	if (!lists_equal(old->deny, old->deny_count, new->deny, new->deny_count))
		change(d, kind, name, "deny", put_deny, old, new);
}

/* --- keys --- */

/* The key by which an object is the same in both configurations. */
struct key {
	char bytes[8 + NAME_MAX_LENGTH];
	size_t length;
};

static struct key name_key(const char *name)
{
	struct key key = { .length = strlen(name) };

	config_fold_name(name, key.length, key.bytes);
	return key;
}

static struct key origin_key(const struct origin *origin)
{
	struct key key = { .length = origin->host.name ? strlen(origin->host.name) : sizeof(origin->host.ip) };

	memcpy(key.bytes + 3, origin->host.name ? origin->host.name : (const char *)origin->host.ip.bytes, key.length);
	memcpy(key.bytes, &origin->port, sizeof(origin->port));
	key.bytes[2] = origin->host.name != NULL;
	key.length += 3;
	return key;
}

/* How objects of a kind are found and told about. */
struct kind {
	size_t size; /* of an object */
	struct key (*key)(const void *object);
	void (*tell)(struct diff *d, const void *context, const void *object, char sign);
	int (*compare)(struct diff *d, const void *context, const void *old, const void *new);
};

static const void *item(const void *items, size_t size, size_t index)
{
	return (const char *)items + size * index;
}

/* Whether the objects stand in the same order on both sides, so that none came and none is gone: the usual case. */
static bool same_order(const struct kind *kind, const void *old, size_t old_count, const void *new, size_t new_count)
{
	if (old_count != new_count)
		return false;
	for (size_t i = 0; i < old_count; i++) {
		struct key a = kind->key(item(old, kind->size, i)), b = kind->key(item(new, kind->size, i));

		if (a.length != b.length || memcmp(a.bytes, b.bytes, a.length) != 0)
			return false;
	}
	return true;
}

/* Those that are gone, in the order of @old; then those that changed or came, in the order of @new. */
static int compare_objects(struct diff *d, const struct kind *kind, const void *context, const void *old,
	size_t old_count, const void *new, size_t new_count)
{
	struct key_map old_keys = { 0 }, new_keys = { 0 };
	uint32_t index;
	int r = 0;

	if (same_order(kind, old, old_count, new, new_count)) {
		for (size_t i = 0; i < new_count && r == 0; i++)
			r = kind->compare(d, context, item(old, kind->size, i), item(new, kind->size, i));
		return r;
	}
	for (size_t i = 0; i < old_count && r >= 0; i++) {
		struct key key = kind->key(item(old, kind->size, i));

		r = key_map_put(&old_keys, key.bytes, key.length, (uint32_t)i, &index);
	}
	for (size_t i = 0; i < new_count && r >= 0; i++) {
		struct key key = kind->key(item(new, kind->size, i));

		r = key_map_put(&new_keys, key.bytes, key.length, (uint32_t)i, &index);
	}
	for (size_t i = 0; i < old_count && r >= 0; i++) {
		const void *object = item(old, kind->size, i);
		struct key key = kind->key(object);

		if (!key_map_get(&new_keys, key.bytes, key.length, &index))
			kind->tell(d, context, object, '-');
	}
	for (size_t i = 0; i < new_count && r >= 0; i++) {
		const void *object = item(new, kind->size, i);
		struct key key = kind->key(object);

		if (!key_map_get(&old_keys, key.bytes, key.length, &index))
			kind->tell(d, context, object, '+');
		else
			r = kind->compare(d, context, item(old, kind->size, index), object);
	}
	key_map_free(&old_keys);
	key_map_free(&new_keys);
	return r < 0 ? r : 0;
}

/* --- IP lists --- */

static struct key ip_list_key(const void *object)
{
	return name_key(((const struct ip_list *)object)->name);
}

static void tell_ip_list(struct diff *d, const void *context, const void *object, char sign)
{
	const struct ip_list *list = object;

	(void)context;
	if (line_begin(d))
		text_printf(d->out, "%c ip list %s: %zu %s\n", sign, list->name, list->count,
			list->count == 1 ? "entry" : "entries");
}

static int compare_prefixes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct prefix));
}

/* The entries of a list in an order of their own; free(). */
enum { LIST_COMPARE_MAX = 100000 }; /* entries that differ in their order, beyond which only their number is told */

static struct prefix *sorted(const struct ip_list *list)
{
	struct prefix *items = calloc(MAX(list->count, (size_t)1), sizeof(*items));

	if (!items || list->count == 0)
		return items;
	memcpy(items, list->items, list->count * sizeof(*items));
	qsort(items, list->count, sizeof(*items), compare_prefixes);
	return items;
}

/* How many entries of @a are not in @b, both being sorted; one that is there twice is missing twice. */
static size_t missing_from(const struct prefix *a, size_t a_count, const struct prefix *b, size_t b_count)
{
	size_t missing = 0;

	for (size_t i = 0, k = 0; i < a_count; i++) {
		while (k < b_count && compare_prefixes(&b[k], &a[i]) < 0)
			k++;
		missing += k == b_count || compare_prefixes(&b[k], &a[i]) != 0;
	}
	return missing;
}

/* What is left of two lists without the entries at the beginning and the end that both have: most changes are small. */
static void trim_same(struct ip_list *a, struct ip_list *b)
{
	while (a->count && b->count && compare_prefixes(&a->items[0], &b->items[0]) == 0) {
		a->items++;
		b->items++;
		a->count--;
		b->count--;
	}
	while (a->count && b->count && compare_prefixes(&a->items[a->count - 1], &b->items[b->count - 1]) == 0) {
		a->count--;
		b->count--;
	}
}

static int compare_ip_lists(struct diff *d, const void *context, const void *old_object, const void *new_object)
{
	const struct ip_list *old = old_object, *new = new_object;
	struct ip_list old_rest = *old, new_rest = *new;
	struct prefix *old_items, *new_items;
	size_t came, gone;
	int r = 0;

	(void)context;
	if (old->count == new->count && old->hash == new->hash)
		return 0;
	trim_same(&old_rest, &new_rest);
	if (MAX(old_rest.count, new_rest.count) > LIST_COMPARE_MAX) {
		if (line_begin(d))
			text_printf(d->out, "~ ip list %s: %zu → %zu entries\n", new->name, old->count, new->count);
		return 0;
	}
	old_items = sorted(&old_rest);
	new_items = sorted(&new_rest);
	if (old_items && new_items) {
		came = missing_from(new_items, new_rest.count, old_items, old_rest.count);
		gone = missing_from(old_items, old_rest.count, new_items, new_rest.count);
		if ((came || gone || old->count != new->count) && line_begin(d))
			text_printf(d->out, "~ ip list %s: %zu → %zu entries (%zu added, %zu removed)\n", new->name,
				old->count, new->count, came, gone);
	} else {
		r = fault(-ENOMEM);
	}
	free(old_items);
	free(new_items);
	return r;
}

/* --- groups --- */

static struct key origin_object_key(const void *object)
{
	return origin_key(object);
}

static void tell_origin(struct diff *d, const void *context, const void *object, char sign)
{
	const struct origin_group *group = context;

	if (!line_begin(d))
		return;
	text_printf(d->out, "%c origin ", sign);
	put_origin(object, d->out);
	text_printf(d->out, " of group %s\n", group->name);
}

static int compare_origins(struct diff *d, const void *context, const void *old_object, const void *new_object)
{
	const struct origin *old = old_object, *new = new_object;
	const struct origin_group *group = context;
	char bytes[NAME_MAX_LENGTH + OBJECT_NAME_MAX + 32];
	struct text name = text_fixed(bytes, sizeof(bytes));

	if (setting_equal(SETTING_SCOPE_ORIGIN, ORIGIN_SETTING_weight, &old->settings, &new->settings) &&
		setting_equal(SETTING_SCOPE_ORIGIN, ORIGIN_SETTING_enabled, &old->settings, &new->settings))
		return 0;
	put_origin(new, &name);
	text_printf(&name, " of group %s", group->name);
	change_settings(d, "origin", bytes, SETTING_SCOPE_ORIGIN, ~0u, &old->settings, &new->settings);
	object_end(d);
	return 0;
}

static struct key group_key(const void *object)
{
	return name_key(((const struct origin_group *)object)->name);
}

static void tell_group(struct diff *d, const void *context, const void *object, char sign)
{
	const struct origin_group *group = object;

	(void)context;
	if (line_begin(d))
		text_printf(d->out, "%c group %s: %zu %s\n", sign, group->name, group->origin_count,
			group->origin_count == 1 ? "origin" : "origins");
}

static int compare_groups(struct diff *d, const void *context, const void *old_object, const void *new_object)
{
	static const struct kind origins = { sizeof(struct origin), origin_object_key, tell_origin, compare_origins };
	const struct origin_group *old = old_object, *new = new_object;

	(void)context;
	change_settings(d, "group", new->name, SETTING_SCOPE_GROUP, ~0u, &old->settings, &new->settings);
	object_end(d);
	change_settings(d, "health check of group", new->name, SETTING_SCOPE_CHECK, ~0u, &old->check, &new->check);
	object_end(d);
	return compare_objects(d, &origins, new, old->origins, old->origin_count, new->origins, new->origin_count);
}

/* --- proxies --- */

static struct key proxy_key(const void *object)
{
	return name_key(((const struct proxy *)object)->name);
}

static void tell_proxy(struct diff *d, const void *context, const void *object, char sign)
{
	(void)context;
	if (line_begin(d))
		text_printf(d->out, "%c proxy %s\n", sign, ((const struct proxy *)object)->name);
}

static int compare_proxies(struct diff *d, const void *context, const void *old_object, const void *new_object)
{
	const struct proxy *old = old_object, *new = new_object;

	(void)context;
	change_access(d, "proxy", new->name, &old->access, &new->access);
	object_end(d);
	return 0;
}

/* --- rules --- */

static struct key rule_key(const void *object)
{
	const struct rule *rule = object;
	struct key key = { .length = strlen(rule->id) };

	memcpy(key.bytes, rule->id, key.length);
	return key;
}

static void tell_rule(struct diff *d, const void *context, const void *object, char sign)
{
	char bytes[4096];
	struct text ports = text_fixed(bytes, sizeof(bytes));
	const struct rule *rule = object;

	(void)context;
	if (!line_begin(d))
		return;
	text_printf(d->out, "%c rule %s ", sign, rule->id);
	put_edge_ports(rule, &ports);
	put_value(d, &ports);
	text_str(d->out, " → ");
	put_rule_origin(rule, d->out);
	text_str(d->out, "\n");
}

/* Settings that neither rule gives itself are told of the defaults, once. */
static int compare_rules(struct diff *d, const void *context, const void *old_object, const void *new_object)
{
	const struct rule *old = old_object, *new = new_object;

	(void)context;
	if (!ports_equal(old, new))
		change(d, "rule", new->id, "edge ports", put_edge_ports, old, new);
	if (!rule_origin_equal(old, new))
		change(d, "rule", new->id, "origin", put_rule_origin, old, new);
	if (old->persistence != new->persistence)
		change(d, "rule", new->id, "persistence", put_persistence, old, new);
	if (old->pass != new->pass)
		change(d, "rule", new->id, "pass", put_pass, old, new);
	if (!text_equal(old->tag, new->tag))
		change(d, "rule", new->id, "tag", put_tag, old, new);
	if (!text_equal(old->proxy ? old->proxy->name : NULL, new->proxy ? new->proxy->name : NULL))
		change(d, "rule", new->id, "proxy", put_proxy, old, new);
	change_access(d, "rule", new->id, &old->access, &new->access);
	change_settings(
		d, "rule", new->id, SETTING_SCOPE_RULE, old->given | new->given, &old->settings, &new->settings);
	object_end(d);
	return 0;
}

/* --- the whole --- */

/* Defaults for rules of one protocol: the table's where the configuration gives none. */
static void defaults_of(const struct config *config, enum protocol protocol, struct rule_settings *ret)
{
	setting_defaults(SETTING_SCOPE_RULE, protocol, ret);
	for (unsigned int id = 0; id < RULE_SETTING_N; id++)
		if (config->rule_defaults_given & 1u << id)
			setting_copy(SETTING_SCOPE_RULE, id, &config->rule_defaults, ret);
}

/* tcp and udp may differ in a default of the table, but then both are given or neither is. */
static void compare_settings(struct diff *d)
{
	struct rule_settings old, new;
	setting_mask given = d->old->rule_defaults_given | d->new->rule_defaults_given;
	setting_mask udp_only = 0;

	change_settings(d, "node", "", SETTING_SCOPE_NODE, ~0u, &d->old->node, &d->new->node);
	object_end(d);
	for (unsigned int id = 0; id < RULE_SETTING_N; id++)
		if (!setting_carried_by(id, PROTOCOL_TCP))
			udp_only |= 1u << id;
	defaults_of(d->old, PROTOCOL_TCP, &old);
	defaults_of(d->new, PROTOCOL_TCP, &new);
	change_settings(d, "rule defaults", "", SETTING_SCOPE_RULE, given & ~udp_only, &old, &new);
	defaults_of(d->old, PROTOCOL_UDP, &old);
	defaults_of(d->new, PROTOCOL_UDP, &new);
	change_settings(d, "rule defaults", "", SETTING_SCOPE_RULE, given & udp_only, &old, &new);
	object_end(d);
}

int config_diff(const struct config *old, const struct config *new, struct text *out)
{
	static const struct kind ip_lists = { sizeof(struct ip_list), ip_list_key, tell_ip_list, compare_ip_lists };
	static const struct kind groups = { sizeof(struct origin_group), group_key, tell_group, compare_groups };
	static const struct kind proxies = { sizeof(struct proxy), proxy_key, tell_proxy, compare_proxies };
	static const struct kind rules = { sizeof(struct rule), rule_key, tell_rule, compare_rules };
	struct diff d = { .old = old, .new = new, .out = out };
	int r;

	compare_settings(&d);
	r = compare_objects(&d, &ip_lists, NULL, old->ip_lists, old->ip_list_count, new->ip_lists, new->ip_list_count);
	if (r == 0)
		r = compare_objects(&d, &groups, NULL, old->groups, old->group_count, new->groups, new->group_count);
	if (r == 0)
		r = compare_objects(&d, &proxies, NULL, old->proxies, old->proxy_count, new->proxies, new->proxy_count);
	if (r == 0)
		r = compare_objects(&d, &rules, NULL, old->rules, old->rule_count, new->rules, new->rule_count);
	if (r == 0 && d.lines > DIFF_LINES_MAX)
		text_printf(out, "… and %zu more\n", d.lines - DIFF_LINES_MAX);
	return r;
}
