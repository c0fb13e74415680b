/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A change comes in two steps. pools_prepare() notes for each pool what the new configuration says (struct wish), and
 * pools_commit() makes it so; in between everything else that can fail is done. A pool that no rule has any more is let
 * go of when the last flow under its old rules has ended.
 *
 * The endpoints of a pool are kept while they are in its view or have flows, so that an origin that is taken out and
 * put back, or that DNS leaves out for a while, goes on with its counts.
 *
 * The lock is for the metrics thread, which reads while the main thread changes things; workers never take it.
 */
#include "edge/pools.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "edge/checker.h"
#include "edge/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

/* One origin as configured. */
struct wish_origin {
	struct name *name; /* a reference; NULL when it is an address */
	struct addr addr;  /* with a name, only the port; port 0: the rule's */
	uint32_t weight;   /* 0: takes no new flow */
};

/* What a configuration says of a pool. */
struct wish {
	struct group_settings settings;
	struct check_settings check;
	size_t count;
	struct wish_origin origins[];
};

/* An address of a pool: what only the main thread knows of it. */
struct place {
	struct list node;      /* pool_main.places */
	struct list of_target; /* target.users */
	struct pool_main *pool;
	struct endpoint *endpoint; /* a reference */
	struct target *target;	   /* a reference; NULL: not checked */
	const struct name *name;   /* the name that it came from last; for comparing only */
	uint32_t weight;	   /* 0: not in the view */
};

struct pool_main {
	struct list node;   /* pools.all */
	struct list bucket; /* pools.buckets */
	struct pools *pools;
	struct pool *pool;	  /* a reference */
	enum algorithm algorithm; /* of an origin without a group */
	struct wish *wish;	  /* NULL: the configuration has it no more */
	struct wish *next;	  /* between prepare and commit: when it differs */
	bool wanted;		  /* between prepare and commit: the configuration has it */
	struct list places;
	unsigned int place_count;
	unsigned int member_count; /* places in the view */
	unsigned int left_out;	   /* addresses that found no room in it */
	struct log_limit complaint;
	bool behind;		/* memory was out when it was rebuilt last */
	struct pool_view *view; /* a reference; NULL: the workers have none yet */
};

struct pools {
	pthread_mutex_t lock;
	struct loop *loop;
	struct resolver *resolver;
	struct checker *checker;
	struct worker **workers; /* NULL: they don't run yet */
	unsigned int worker_count;
	struct list all;
	struct list buckets[BUCKETS]; /* by key */
	struct timer leave_timer;     /* the drain time of an endpoint is over */
};

/* --- wishes --- */

static void wish_free(struct wish *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->count; i++)
		name_unref(w->origins[i].name);
	free(w);
}

static struct wish *wish_new(size_t count)
{
	struct wish *w = calloc(1, sizeof(*w) + count * sizeof(w->origins[0]));

	if (w)
		setting_defaults(SETTING_SCOPE_GROUP, PROTOCOL_TCP, &w->settings);
	return w;
}

static bool wish_add(struct pools *p, struct wish *w, const struct host *host, uint16_t port, uint32_t weight)
{
	struct wish_origin *o = &w->origins[w->count];

	*o = (struct wish_origin){ .addr = { .ip = host->ip, .port = port }, .weight = weight };
	if (host->name) {
		o->name = resolver_name(p->resolver, host->name);
		if (!o->name)
			return false;
	}
	w->count++;
	return true;
}

static struct wish *wish_of_group(struct pools *p, const struct origin_group *group)
{
	struct wish *w = wish_new(group->origin_count);

	if (!w)
		return NULL;
	w->settings = group->settings;
	w->check = group->check;
	for (size_t i = 0; i < group->origin_count; i++) {
		const struct origin *o = &group->origins[i];

		if (!wish_add(p, w, &o->host, o->port, o->settings.enabled ? o->settings.weight : 0)) {
			wish_free(w);
			return NULL;
		}
	}
	return w;
}

/* An origin that a rule names itself: a group of one, whose algorithm follows from session persistence. */
static struct wish *wish_of_rule(struct pools *p, const struct rule *rule)
{
	struct wish *w = wish_new(1);

	if (w && !wish_add(p, w, &rule->origin, 0, 1)) {
		wish_free(w);
		return NULL;
	}
	return w;
}

static bool same_settings(enum setting_scope scope, const void *a, const void *b)
{
	for (unsigned int id = 0; id < setting_count(scope); id++)
		if (!setting_equal(scope, id, a, b))
			return false;
	return true;
}

static bool same_wish(const struct wish *a, const struct wish *b)
{
	if (a->count != b->count || !same_settings(SETTING_SCOPE_GROUP, &a->settings, &b->settings) ||
		!same_settings(SETTING_SCOPE_CHECK, &a->check, &b->check))
		return false;
	for (size_t i = 0; i < a->count; i++) {
		const struct wish_origin *x = &a->origins[i], *y = &b->origins[i];

		if (x->name != y->name || x->weight != y->weight || !addr_equal(&x->addr, &y->addr))
			return false;
	}
	return true;
}

/* --- keys --- */

static uint64_t group_key(const char *name)
{
	return hash_bytes(name, strlen(name), 1);
}

static uint64_t rule_key(const struct rule *rule)
{
	uint64_t seed = rule->persistence ? 2 : 3;

	if (rule->group)
		return group_key(rule->group->name);
	if (rule->origin.name)
		return hash_bytes(rule->origin.name, strlen(rule->origin.name), seed);
	return hash_bytes(&rule->origin.ip, sizeof(rule->origin.ip), seed);
}

static struct pool_main *find(struct pools *p, uint64_t key)
{
	list_for_each (node, &p->buckets[key % BUCKETS]) {
		struct pool_main *m = CONTAINER_OF(node, struct pool_main, bucket);

		if (m->pool->key == key)
			return m;
	}
	return NULL;
}

/* --- places --- */

static void place_free(struct place *place)
{
	list_del(&place->of_target);
	checker_unwatch(place->target);
	endpoint_unref(place->endpoint);
	list_del(&place->node);
	place->pool->place_count--;
	free(place);
}

static struct place *place_find(struct pool_main *m, const struct addr *addr)
{
	list_for_each (node, &m->places) {
		struct place *place = CONTAINER_OF(node, struct place, node);

		if (addr_equal(&place->endpoint->addr, addr))
			return place;
	}
	return NULL;
}

static struct place *place_new(struct pool_main *m, const struct addr *addr)
{
	struct place *place = calloc(1, sizeof(*place));

	if (!place)
		return NULL;
	place->pool = m;
	place->endpoint = endpoint_new(addr);
	if (!place->endpoint) {
		free(place);
		return NULL;
	}
	list_init(&place->of_target);
	list_add(&m->places, &place->node);
	m->place_count++;
	return place;
}

/* False when memory is out; an address beyond POOL_MEMBERS_MAX is only counted. */
static bool place_add(struct pool_main *m, const struct addr *addr, const struct wish_origin *o, uint32_t weight)
{
	struct place *place = place_find(m, addr);

	if (!place || place->weight == 0) {
		if (m->member_count == POOL_MEMBERS_MAX) {
			m->left_out++;
			return true;
		}
		if (!place)
			place = place_new(m, addr);
		if (!place)
			return false;
		m->member_count++;
	}
	place->weight += weight;
	place->name = o->name;
	return true;
}

static void say_left_out(struct pool_main *m)
{
	unsigned int suppressed;

	if (m->left_out && log_allowed(&m->complaint, clock_now(), &suppressed))
		log_warning(
			"group %s: its names have more addresses than the %d that a group may have, %u are not used",
			m->pool->group, POOL_MEMBERS_MAX, m->left_out);
}

/*
 * All addresses that the wish gives now, with their weights; those of the others become 0. DNS may give more than a
 * pool can have: those that the configuration gives itself come first, then the first of each name, and so on.
 */
static bool place_all(struct pool_main *m)
{
	bool more = true;

	list_for_each (node, &m->places)
		CONTAINER_OF(node, struct place, node)->weight = 0;
	m->member_count = m->left_out = 0;
	for (size_t i = 0; i < m->wish->count; i++) {
		const struct wish_origin *o = &m->wish->origins[i];

		if (!o->name && o->weight && !place_add(m, &o->addr, o, o->weight * NAME_ADDRESSES_MAX))
			return false;
	}
	for (unsigned int a = 0; more; a++) {
		more = false;
		for (size_t i = 0; i < m->wish->count; i++) {
			const struct wish_origin *o = &m->wish->origins[i];
			const struct name_answer *answer = o->name && o->weight ? o->name->answer : NULL;

			if (!answer || a >= answer->count)
				continue;
			more = true;
			/* a name's addresses share its weight */
			if (!place_add(m, &(struct addr){ .ip = answer->ips[a], .port = o->addr.port }, o,
				    MAX(o->weight * NAME_ADDRESSES_MAX / answer->count, 1u)))
				return false;
		}
	}
	say_left_out(m);
	return true;
}

/* Whether the configuration still has the name that an address came from: then it is DNS that left it out. */
static bool name_is_wished(const struct pool_main *m, const struct place *place)
{
	for (size_t i = 0; place->name && i < m->wish->count; i++)
		if (m->wish->origins[i].name == place->name && m->wish->origins[i].weight)
			return true;
	return false;
}

static void set_down(struct place *place, const struct target *target)
{
	struct endpoint *e = place->endpoint;
	bool down = target && target_is_down(target);

	if (target && !down && endpoint_is_down(e))
		atomic_store(&e->recovered, target->health.since);
	atomic_store(&e->down, down);
	atomic_store(&e->failures, 0);
	atomic_store(&e->reported, false);
}

/* The place is checked as the wish says. */
static bool watch(struct pool_main *m, struct place *place)
{
	struct target *target = NULL;
	struct addr addr = place->endpoint->addr;

	if (place->weight && m->wish->check.type != CHECK_TYPE_OFF) {
		if (m->wish->check.port)
			addr.port = (uint16_t)m->wish->check.port;
		target = checker_watch(m->pools->checker, &addr, &m->wish->check, m->wish->settings.passive_fails);
		if (!target)
			return false;
	}
	checker_unwatch(place->target); /* after the new one was taken, so that the same one goes on */
	list_del(&place->of_target);
	place->target = target;
	if (target)
		list_add(&target->users, &place->of_target);
	set_down(place, target);
	return true;
}

/* --- leaving --- */

static void arm_leave_timer(struct pools *p, nsec_t at)
{
	if (!timer_running(&p->leave_timer))
		timer_start(&p->loop->timers, &p->leave_timer, at);
}

/* Places that are in no view: those without flows go; those that the configuration has left out get their time. */
static void sweep(struct pool_main *m, nsec_t drain)
{
	list_for_each (node, &m->places) {
		struct place *place = CONTAINER_OF(node, struct place, node);
		struct endpoint *e = place->endpoint;

		if (place->weight) {
			atomic_store(&e->leaves, 0);
		} else if (atomic_load(&e->refs) == 1) {
			place_free(place);
		} else if (drain >= 0 && atomic_load(&e->leaves) == 0 && !name_is_wished(m, place)) {
			atomic_store(&e->leaves, clock_now() + drain);
			arm_leave_timer(m->pools, clock_now() + drain);
		}
	}
}

static void pool_main_free(struct pool_main *m)
{
	while (!list_empty(&m->places))
		place_free(CONTAINER_OF(m->places.next, struct place, node));
	wish_free(m->wish);
	wish_free(m->next);
	list_del(&m->node);
	list_del(&m->bucket);
	pool_view_unref(m->view);
	pool_unref(m->pool);
	free(m);
}

/* Pools that no configuration has and nothing refers to but this file. */
static void drop_unused(struct pools *p)
{
	list_for_each (node, &p->all) {
		struct pool_main *m = CONTAINER_OF(node, struct pool_main, node);

		if (!m->wish && atomic_load(&m->pool->refs) == 1)
			pool_main_free(m);
	}
}

/* The drain time of some endpoint may be over: the workers look which. */
static void leave_over(struct timer *timer)
{
	struct pools *p = CONTAINER_OF(timer, struct pools, leave_timer);
	nsec_t now = clock_now(), next = 0;

	pthread_mutex_lock(&p->lock);
	list_for_each (node, &p->all) {
		struct pool_main *m = CONTAINER_OF(node, struct pool_main, node);

		if (m->wish)
			sweep(m, -1);
		list_for_each (inner, &m->places) {
			nsec_t at = atomic_load(&CONTAINER_OF(inner, struct place, node)->endpoint->leaves);

			if (at > now && (next == 0 || at < next))
				next = at;
		}
	}
	drop_unused(p);
	pthread_mutex_unlock(&p->lock);
	for (unsigned int w = 0; p->workers && w < p->worker_count; w++) {
		struct mail *mail = calloc(1, sizeof(*mail));

		if (!mail) {
			next = now + NSEC_PER_SEC; /* try again */
			break;
		}
		mail->deliver = worker_end_left;
		mailbox_post(&p->workers[w]->mailbox, mail);
	}
	if (next)
		timer_start(&p->loop->timers, &p->leave_timer, next);
}

/* --- views --- */

static bool publish(struct pools *p, struct pool *pool, struct pool_view *view)
{
	for (unsigned int w = 0; w < p->worker_count; w++) {
		struct mail_view *m = calloc(1, sizeof(*m));

		if (!m || pool_news_init(&m->news, pool, view)) {
			free(m);
			return false;
		}
		m->mail.deliver = worker_view;
		if (p->workers) {
			mailbox_post(&p->workers[w]->mailbox, &m->mail);
		} else {
			pool_take_news(&m->news, w);
			free(m);
		}
	}
	return true;
}

static bool still_resolving(const struct pool_main *m)
{
	for (size_t i = 0; i < m->wish->count; i++)
		if (m->wish->origins[i].name && m->wish->origins[i].weight && !m->wish->origins[i].name->answer)
			return true;
	return false;
}

static bool make_view(struct pool_main *m)
{
	const struct origin_group settings = { .settings = m->wish->settings, .check = m->wish->check };
	const struct origin_group *group = m->pool->group ? &settings : NULL;
	struct pool_member *members = calloc(MAX(m->place_count, 1u), sizeof(*members));
	struct pool_view *view = NULL;
	unsigned int count = 0;
	bool ok = false;

	if (!members)
		return false;
	list_for_each (node, &m->places) {
		struct place *place = CONTAINER_OF(node, struct place, node);

		if (place->weight)
			members[count++] = (struct pool_member){ place->endpoint, place->weight };
	}
	if (m->view ? pool_view_same(m->view, group, m->algorithm, members, count) : count == 0 && still_resolving(m)) {
		free(members);
		return true; /* nothing new; or flows wait for the first answer */
	}
	if (pool_view_new(group, m->algorithm, members, count, &view) == 0)
		ok = publish(m->pools, m->pool, view);
	free(members);
	if (!ok) {
		pool_view_unref(view);
		return false;
	}
	pool_view_unref(m->view);
	m->view = view;
	return true;
}

/* Everything anew from the wish and the names' answers. @drain: -1 when the configuration has not changed. */
static void rebuild(struct pool_main *m, nsec_t drain)
{
	bool ok = place_all(m);

	list_for_each (node, &m->places)
		ok &= watch(m, CONTAINER_OF(node, struct place, node));
	ok &= make_view(m);
	m->behind = !ok;
	if (!ok)
		log_error("%s%s: out of memory, the workers keep the origins they know",
			m->pool->group ? "group " : "origin", m->pool->group ? m->pool->group : "");
	sweep(m, drain);
}

/* A name has a new answer. */
static void name_changed(void *owner, struct name *name)
{
	struct pools *p = owner;

	pthread_mutex_lock(&p->lock);
	list_for_each (node, &p->all) {
		struct pool_main *m = CONTAINER_OF(node, struct pool_main, node);
		bool has = false;

		for (size_t i = 0; m->wish && i < m->wish->count; i++)
			has |= m->wish->origins[i].name == name;
		if (has)
			rebuild(m, -1);
	}
	pthread_mutex_unlock(&p->lock);
}

/* --- changes --- */

static struct pool_main *pool_main_new(struct pools *p, uint64_t key, const char *group, enum algorithm algorithm)
{
	struct pool_main *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->pools = p;
	m->algorithm = algorithm;
	m->pool = pool_new(group, key, p->worker_count);
	if (!m->pool) {
		free(m);
		return NULL;
	}
	list_init(&m->places);
	list_add(&p->all, &m->node);
	list_add(&p->buckets[key % BUCKETS], &m->bucket);
	return m;
}

static int prepare_one(struct pools *p, const struct origin_group *group, const struct rule *rule)
{
	uint64_t key = group ? group_key(group->name) : rule_key(rule);
	struct pool_main *m = find(p, key);

	if (!m)
		m = pool_main_new(p, key, group ? group->name : NULL,
			!group && rule->persistence ? ALGORITHM_SOURCE_HASH : ALGORITHM_ROUND_ROBIN);
	if (!m)
		return fault(-ENOMEM);
	if (m->wanted)
		return 0;
	m->wanted = true;
	if (m->wish && !group)
		return 0; /* of an origin that a rule names, nothing can change */
	m->next = group ? wish_of_group(p, group) : wish_of_rule(p, rule);
	if (!m->next)
		return fault(-ENOMEM);
	if (m->wish && !m->behind && same_wish(m->wish, m->next)) {
		wish_free(m->next);
		m->next = NULL;
	}
	return 0;
}

int pools_prepare(struct pools *p, const struct config *config)
{
	int r = 0;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < config->group_count && r == 0; i++)
		r = prepare_one(p, &config->groups[i], NULL);
	for (size_t i = 0; i < config->rule_count && r == 0; i++)
		if (!config->rules[i].group)
			r = prepare_one(p, NULL, &config->rules[i]);
	pthread_mutex_unlock(&p->lock);
	if (r)
		pools_abort(p);
	return r;
}

struct pool *pools_of(struct pools *p, const struct rule *rule)
{
	return pool_ref(find(p, rule_key(rule))->pool);
}

/* The configuration has the pool no more: flows that drain keep it, but nothing is looked up or checked for it. */
static void retire(struct pool_main *m)
{
	wish_free(m->wish);
	m->wish = NULL;
	list_for_each (node, &m->places) {
		struct place *place = CONTAINER_OF(node, struct place, node);

		list_del(&place->of_target);
		checker_unwatch(place->target);
		place->target = NULL;
		set_down(place, NULL);
	}
}

void pools_commit(struct pools *p, nsec_t drain)
{
	pthread_mutex_lock(&p->lock);
	list_for_each (node, &p->all) {
		struct pool_main *m = CONTAINER_OF(node, struct pool_main, node);

		if (!m->wanted) {
			retire(m);
		} else if (m->next) {
			wish_free(m->wish);
			m->wish = m->next;
			m->next = NULL;
			rebuild(m, drain);
		}
		m->wanted = false;
	}
	drop_unused(p);
	pthread_mutex_unlock(&p->lock);
}

void pools_abort(struct pools *p)
{
	pthread_mutex_lock(&p->lock);
	list_for_each (node, &p->all) {
		struct pool_main *m = CONTAINER_OF(node, struct pool_main, node);

		wish_free(m->next);
		m->next = NULL;
		m->wanted = false;
	}
	drop_unused(p);
	pthread_mutex_unlock(&p->lock);
}

/* --- health --- */

static void target_changed(void *owner, struct target *target)
{
	struct pools *p = owner;

	/* the lock is held when the change comes out of rebuild(), never otherwise; the list is the main thread's own
	 */
	list_for_each (node, &target->users) {
		struct place *place = CONTAINER_OF(node, struct place, of_target);

		set_down(place, target);
		for (unsigned int w = 0; target_is_down(target) && p->workers && w < p->worker_count; w++) {
			struct mail_origin_down *m = calloc(1, sizeof(*m));

			if (!m)
				break; /* sessions on the fast path find out by their next ICMP error */
			m->mail.deliver = worker_origin_down;
			m->endpoint = endpoint_ref(place->endpoint);
			mailbox_post(&p->workers[w]->mailbox, &m->mail);
		}
	}
}

static struct place *place_with(struct pools *p, const struct endpoint *e)
{
	list_for_each (node, &p->all) {
		list_for_each (inner, &CONTAINER_OF(node, struct pool_main, node)->places) {
			struct place *place = CONTAINER_OF(inner, struct place, node);

			if (place->endpoint == e)
				return place;
		}
	}
	return NULL;
}

void pools_origin_failed(struct pools *p, struct mail_failed *m)
{
	struct place *place = place_with(p, m->endpoint);

	if (place && place->target)
		checker_failed(place->target, m->protocol);
	if (place && !endpoint_is_down(place->endpoint))
		set_down(place, place->target); /* it was up again meanwhile: let failures be counted anew */
	endpoint_unref(m->endpoint);
	free(m);
}

/* --- what is to be seen of them --- */

void pools_each(struct pools *p, void (*each)(const struct origin_status *s, void *arg), void *arg)
{
	pthread_mutex_lock(&p->lock);
	list_for_each (node, &p->all) {
		struct pool_main *m = CONTAINER_OF(node, struct pool_main, node);

		if (!m->pool->group || !m->wish)
			continue;
		list_for_each (inner, &m->places) {
			const struct place *place = CONTAINER_OF(inner, struct place, node);
			const struct target *t = place->target;

			each(
				&(struct origin_status){
					.group = m->pool->group,
					.addr = place->endpoint->addr,
					.enabled = place->weight != 0,
					.checked = t != NULL,
					.down = endpoint_is_down(place->endpoint),
					.reason = t ? t->health.reason : HEALTH_OK,
					.since = t ? t->health.since : 0,
					.latency = t && t->health.probes_ok ? t->health.latency : 0,
					.probes = t ? t->health.probes_ok + t->health.probes_failed : 0,
					.probes_failed = t ? t->health.probes_failed : 0,
					.changes = t ? t->health.went_down + t->health.went_up : 0,
					.flows = atomic_load(&place->endpoint->flows),
					.flows_total = atomic_load(&place->endpoint->flows_total),
				},
				arg);
		}
	}
	pthread_mutex_unlock(&p->lock);
}

/* --- beginning and end --- */

int pools_new(struct loop *loop, struct node_state *node, struct resolver *resolver, struct pools **ret_pools)
{
	struct pools *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return fault(-ENOMEM);
	pthread_mutex_init(&p->lock, NULL);
	p->loop = loop;
	p->resolver = resolver;
	p->worker_count = node->workers;
	list_init(&p->all);
	for (size_t i = 0; i < BUCKETS; i++)
		list_init(&p->buckets[i]);
	timer_init(&p->leave_timer, leave_over);
	r = checker_new(loop, node, target_changed, p, &p->checker);
	if (r) {
		pools_free(p);
		return r;
	}
	resolver_tell(resolver, name_changed, p);
	*ret_pools = p;
	return 0;
}

void pools_workers(struct pools *p, struct worker **workers)
{
	p->workers = workers;
}

void pools_free(struct pools *p)
{
	if (!p)
		return;
	timer_stop(&p->leave_timer);
	while (!list_empty(&p->all))
		pool_main_free(CONTAINER_OF(p->all.next, struct pool_main, node));
	checker_free(p->checker);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
