/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/pool.h"
#include "base/error.h"
#include "base/hash.h"
#include "flow/flow.h"
#include "flow/tcp_flow.h"
#include "policy/balance.h"
#include "policy/health.h"
#include "policy/persist.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Weights in a choice are the configured ones times this, so that slow start has room below a weight of 1. */
enum { WEIGHT_UNIT = HEALTH_SHARE_FULL };
_Static_assert((int)POOL_MEMBERS_MAX <= (int)MAGLEV_MEMBERS_MAX, "a table can be built for every view");

/* --- objects --- */

struct pool *pool_new(const char *group, uint64_t key, unsigned int workers)
{
	size_t slots = workers * sizeof(struct pool_slot), length = group ? strlen(group) + 1 : 0;
	struct pool *p = calloc(1, sizeof(*p) + slots + length);

	if (!p)
		return NULL;
	atomic_init(&p->refs, 1);
	p->workers = workers;
	p->key = key;
	if (group)
		p->group = memcpy((char *)p->slots + slots, group, length);
	for (unsigned int i = 0; i < workers; i++)
		list_init(&p->slots[i].waiting);
	return p;
}

struct pool *pool_ref(struct pool *p)
{
	atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
	return p;
}

struct pool *pool_unref(struct pool *p)
{
	if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (unsigned int i = 0; i < p->workers; i++) {
		pool_view_unref(p->slots[i].view);
		free(p->slots[i].turns);
		free(p->slots[i].weights);
	}
	free(p);
	return NULL;
}

struct endpoint *endpoint_new(const struct addr *addr)
{
	struct endpoint *e = aligned_alloc(64, sizeof(*e));

	if (!e)
		return NULL;
	memset(e, 0, sizeof(*e));
	atomic_init(&e->refs, 1);
	e->addr = *addr;
	e->id = (uint32_t)hash_bytes(addr, sizeof(*addr), 0);
	return e;
}

struct endpoint *endpoint_ref(struct endpoint *e)
{
	atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	return e;
}

struct endpoint *endpoint_unref(struct endpoint *e)
{
	if (e && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1)
		free(e);
	return NULL;
}

static bool build_maglev(struct pool_view *v)
{
	uint64_t *ids = calloc(v->count, sizeof(*ids));
	uint32_t *weights = calloc(v->count, sizeof(*weights));

	v->maglev_size = maglev_size(v->count);
	v->maglev = malloc(v->maglev_size * sizeof(*v->maglev));
	if (ids && weights && v->maglev) {
		for (unsigned int i = 0; i < v->count; i++) {
			const struct addr *addr = &v->members[i].endpoint->addr;

			ids[i] = hash_bytes(addr, sizeof(*addr), 0);
			weights[i] = v->members[i].weight;
		}
		maglev_build(v->maglev, v->maglev_size, ids, weights, v->count);
	}
	free(ids);
	free(weights);
	return ids && weights && v->maglev;
}

static void set_manner(struct pool_view *v, const struct origin_group *group, enum algorithm algorithm)
{
	v->algorithm = algorithm;
	if (!group)
		return;
	v->algorithm = group->settings.algorithm;
	v->all_down = group->settings.all_down;
	v->slow_start = group->settings.slow_start_ms * NSEC_PER_MSEC;
	v->passive_fails = group->check.type == CHECK_TYPE_OFF ? 0 : group->settings.passive_fails;
}

bool pool_view_same(const struct pool_view *v, const struct origin_group *group, enum algorithm algorithm,
	const struct pool_member *members, unsigned int count)
{
	struct pool_view other = { 0 };

	set_manner(&other, group, algorithm);
	if (v->count != count || v->algorithm != other.algorithm || v->all_down != other.all_down ||
		v->slow_start != other.slow_start || v->passive_fails != other.passive_fails)
		return false;
	for (unsigned int i = 0; i < count; i++)
		if (v->members[i].endpoint != members[i].endpoint || v->members[i].weight != members[i].weight)
			return false;
	return true;
}

int pool_view_new(const struct origin_group *group, enum algorithm algorithm, const struct pool_member *members,
	unsigned int count, struct pool_view **ret_view)
{
	struct pool_view *v = calloc(1, sizeof(*v) + count * sizeof(*members));

	if (!v)
		return fault(-ENOMEM);
	atomic_init(&v->refs, 1);
	set_manner(v, group, algorithm);
	for (v->count = 0; v->count < count; v->count++)
		v->members[v->count] = (struct pool_member){
			.endpoint = endpoint_ref(members[v->count].endpoint),
			.weight = members[v->count].weight,
		};
	if (v->algorithm == ALGORITHM_SOURCE_HASH && count && !build_maglev(v)) {
		pool_view_unref(v);
		return fault(-ENOMEM);
	}
	*ret_view = v;
	return 0;
}

struct pool_view *pool_view_ref(struct pool_view *v)
{
	atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
	return v;
}

struct pool_view *pool_view_unref(struct pool_view *v)
{
	if (!v || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (unsigned int i = 0; i < v->count; i++)
		endpoint_unref(v->members[i].endpoint);
	free(v->maglev);
	free(v);
	return NULL;
}

/* --- news --- */

int pool_news_init(struct pool_news *n, struct pool *pool, struct pool_view *view)
{
	*n = (struct pool_news){
		.turns = calloc(MAX(view->count, 1u), sizeof(*n->turns)),
		.weights = calloc(MAX(view->count, 1u), sizeof(*n->weights)),
	};
	if (!n->turns || !n->weights) {
		pool_news_deinit(n);
		return fault(-ENOMEM);
	}
	n->pool = pool_ref(pool);
	n->view = pool_view_ref(view);
	return 0;
}

/* Each worker begins the round somewhere else, or the first flows would all go to the heaviest member. */
static void begin_turns(struct pool_slot *slot, unsigned int worker)
{
	unsigned int index;

	for (unsigned int i = 0; i < slot->view->count; i++)
		slot->weights[i] = slot->view->members[i].weight;
	for (unsigned int i = 0; i < worker; i++)
		if (balance_round_robin(slot->turns, slot->weights, slot->view->count, &index) != BALANCE_OK)
			return;
}

void pool_take_news(struct pool_news *n, unsigned int worker)
{
	struct pool_slot *slot = &n->pool->slots[worker];

	pool_view_unref(slot->view);
	free(slot->turns);
	free(slot->weights);
	slot->view = n->view;
	slot->turns = n->turns;
	slot->weights = n->weights;
	begin_turns(slot, worker);
	while (!list_empty(&slot->waiting))
		tcp_flow_wake(slot->waiting.next);
	pool_unref(n->pool);
	*n = (struct pool_news){ 0 };
}

void pool_news_deinit(struct pool_news *n)
{
	pool_unref(n->pool);
	pool_view_unref(n->view);
	free(n->turns);
	free(n->weights);
	*n = (struct pool_news){ 0 };
}

/* --- choosing --- */

static bool was_tried(struct tried tried, uint32_t id)
{
	for (unsigned int i = 0; i < tried.count; i++)
		if (tried.ids[i] == id)
			return true;
	return false;
}

/* What part of its weight a member counts with now: 0 for none. @panic: as if all were up. */
static uint32_t share_of(const struct pool_view *v, const struct endpoint *e, nsec_t now, bool panic)
{
	nsec_t recovered;

	if (panic)
		return WEIGHT_UNIT;
	if (endpoint_is_down(e))
		return 0;
	recovered = atomic_load_explicit(&e->recovered, memory_order_relaxed);
	return health_share(&(struct health){ .state = HEALTH_UP, .since = recovered, .recovered = recovered != 0 },
		&(struct health_policy){ .slow_start = v->slow_start }, now);
}

/* Fills in slot->weights. Return: whether any is not 0. */
static bool weigh(struct pool_slot *slot, struct tried tried, nsec_t now, bool panic)
{
	const struct pool_view *v = slot->view;
	bool any = false;

	for (unsigned int i = 0; i < v->count; i++) {
		const struct endpoint *e = v->members[i].endpoint;

		slot->weights[i] = was_tried(tried, e->id) ? 0 : v->members[i].weight * share_of(v, e, now, panic);
		any |= slot->weights[i] != 0;
	}
	return any;
}

static bool all_down(const struct pool_view *v)
{
	for (unsigned int i = 0; i < v->count; i++)
		if (!endpoint_is_down(v->members[i].endpoint))
			return false;
	return true;
}

static int pick_least(struct pool_slot *slot, unsigned int *ret_index)
{
	const struct pool_view *v = slot->view;
	uint32_t flows[POOL_MEMBERS_MAX];

	for (unsigned int i = 0; i < v->count; i++)
		flows[i] = atomic_load_explicit(&v->members[i].endpoint->flows, memory_order_relaxed);
	return balance_least(flows, slot->weights, v->count, slot->turn++, ret_index);
}

/*
 * By the client's address. A member that can't be used is passed over, so only its own clients go elsewhere. During
 * slow start a member gets back its clients little by little: each has its own place in the ramp.
 */
static int pick_hash(struct pool_slot *slot, const struct ip *client, unsigned int *ret_index)
{
	const struct pool_view *v = slot->view;
	uint64_t key = hash_bytes(client, sizeof(*client), 0);
	bool any = v->slow_start == 0;

	for (unsigned int i = 0; i < v->count && v->slow_start; i++) {
		if (slot->weights[i] && (key >> 32) % WEIGHT_UNIT >= slot->weights[i] / v->members[i].weight)
			slot->weights[i] = 0;
		any |= slot->weights[i] != 0;
	}
	return any ? maglev_pick(v->maglev, v->maglev_size, key, slot->weights, ret_index) : BALANCE_E_NONE;
}

static int pick_member(struct pool_slot *slot, const struct ip *client, unsigned int *ret_index)
{
	switch (slot->view->algorithm) {
	case ALGORITHM_ROUND_ROBIN:
		return balance_round_robin(slot->turns, slot->weights, slot->view->count, ret_index);
	case ALGORITHM_LEAST_CONNECTIONS:
		return pick_least(slot, ret_index);
	case ALGORITHM_SOURCE_HASH:
		return pick_hash(slot, client, ret_index);
	}
	return BALANCE_E_NONE;
}

static uint64_t persist_key(const struct flow *f)
{
	const struct snapshot_rule *rule = f->rule;
	struct {
		struct ip client;
		uint64_t proxy;
		uint64_t pool;
	} key = { .client = f->client.ip, .proxy = rule->proxy_key, .pool = rule->pool->key };

	return hash_bytes(&key, sizeof(key), f->env->node->hash_key);
}

/* The member that the client is remembered with, when it can be used. */
static bool remembered(struct flow *f, struct pool_slot *slot, unsigned int *ret_index)
{
	struct persist_table *t = &f->env->node->persist;
	uint32_t origin = 0;
	int r;

	if (f->persist_slot != PERSIST_NONE)
		r = persist_origin(t, f->persist_slot, &origin);
	else
		r = persist_acquire(t, persist_key(f), f->env->loop.now, &origin, &f->persist_slot);
	if (r == PERSIST_EVICTED)
		env_count(f->env, COUNTER_PERSIST_EVICTIONS);
	if (r == PERSIST_E_FULL)
		env_count(f->env, COUNTER_PERSIST_FULL);
	for (unsigned int i = 0; r == PERSIST_OK && i < slot->view->count; i++) {
		if (slot->view->members[i].endpoint->id == origin && slot->weights[i]) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

int pool_pick(struct flow *f, struct tried tried)
{
	struct pool_slot *slot = &f->rule->pool->slots[f->env->worker];
	const struct pool_view *v = slot->view;
	bool persistent = f->rule->rule->persistence;
	unsigned int index;

	pool_leave(f);
	if (!v)
		return POOL_E_WAIT;
	if (v->count == 0)
		return POOL_E_EMPTY;
	if (!weigh(slot, tried, f->env->loop.now, false)) {
		if (v->all_down == ALL_DOWN_REFUSE)
			return all_down(v) ? POOL_E_ALL_DOWN : POOL_E_ALL_TRIED;
		if (!weigh(slot, tried, f->env->loop.now, true))
			return POOL_E_ALL_TRIED;
	}
	if (!(persistent && remembered(f, slot, &index))) {
		if (pick_member(slot, &f->client.ip, &index) != BALANCE_OK &&
			(!weigh(slot, tried, f->env->loop.now, true) ||
				balance_round_robin(slot->turns, slot->weights, v->count, &index) != BALANCE_OK))
			return POOL_E_ALL_TRIED;
		if (f->persist_slot != PERSIST_NONE)
			persist_set(&f->env->node->persist, f->persist_slot, v->members[index].endpoint->id);
	}
	pool_use(f, v->members[index].endpoint);
	atomic_fetch_add_explicit(&f->endpoint->flows_total, 1, memory_order_relaxed);
	return POOL_OK;
}

void pool_use(struct flow *f, struct endpoint *e)
{
	pool_leave(f);
	f->endpoint = endpoint_ref(e);
	atomic_fetch_add_explicit(&e->flows, 1, memory_order_relaxed);
	f->origin = e->addr;
	if (f->origin.port == 0)
		f->origin.port = rule_origin_port(f->rule->rule, f->rule_port);
}

void pool_leave(struct flow *f)
{
	if (!f->endpoint)
		return;
	atomic_fetch_sub_explicit(&f->endpoint->flows, 1, memory_order_relaxed);
	f->endpoint = endpoint_unref(f->endpoint);
}

void pool_forget(struct flow *f)
{
	pool_leave(f);
	if (f->persist_slot == PERSIST_NONE)
		return;
	persist_release(&f->env->node->persist, f->persist_slot, f->env->loop.now,
		f->rule->rule->settings.persistence_time_ms * NSEC_PER_MSEC);
	f->persist_slot = PERSIST_NONE;
}

void pool_failed(struct flow *f)
{
	const struct pool_view *v = f->rule->pool->slots[f->env->worker].view;
	struct endpoint *e = f->endpoint;
	struct mail_failed *m;

	if (!e || !v || v->passive_fails == 0)
		return;
	if (atomic_fetch_add_explicit(&e->failures, 1, memory_order_relaxed) + 1 < v->passive_fails)
		return;
	if (endpoint_is_down(e) || atomic_exchange_explicit(&e->reported, true, memory_order_relaxed))
		return;
	m = calloc(1, sizeof(*m));
	if (!m) {
		atomic_store_explicit(&e->reported, false, memory_order_relaxed); /* the next failure tells it */
		return;
	}
	m->mail.deliver = f->env->node->origin_failed;
	m->endpoint = endpoint_ref(e);
	m->protocol = f->rule->rule->protocol;
	mailbox_post(f->env->node->main, &m->mail);
}

unsigned int pool_count(const struct flow *f)
{
	const struct pool_view *v = f->rule->pool->slots[f->env->worker].view;

	return v ? v->count : 0;
}

bool pool_has_up(const struct flow *f)
{
	const struct pool_view *v = f->rule->pool->slots[f->env->worker].view;

	return v && v->count && !all_down(v);
}
