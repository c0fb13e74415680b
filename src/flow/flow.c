/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/flow.h"
#include "flow/flow_log.h"

/* "Past a limit: refuse, count, say so once": one message in LOG_LIMIT_SECONDS for each kind of limit. */
static void say_refused(const struct flow *f, enum end_reason why)
{
	char client[ADDR_TEXT_SIZE];
	unsigned int suppressed;

	if (!log_allowed(&f->env->node->refusals[why], f->env->loop.now, &suppressed))
		return;
	ip_format(&f->client.ip, client);
	log_warning("%s refused from %s on %s port %u: %s (%u more refused so since the last message)",
		f->rule->rule->protocol == PROTOCOL_TCP ? "connection" : "session", client, f->rule->rule->id,
		f->rule_port, end_rows[why].help, suppressed);
}

void node_say_full(struct flow_env *env, enum end_reason why)
{
	unsigned int suppressed;

	if (log_allowed(&env->node->refusals[why], env->loop.now, &suppressed))
		log_warning("connection or session refused: %s (%u more refused so since the last message)",
			end_rows[why].help, suppressed);
}

bool node_admit(struct flow_env *env, uint32_t fds, enum end_reason *ret_refused)
{
	struct node_state *node = env->node;

	if (atomic_fetch_add_explicit(&node->flows, 1, memory_order_relaxed) >= env->snapshot->config.node.max_flows) {
		atomic_fetch_sub_explicit(&node->flows, 1, memory_order_relaxed);
		*ret_refused = END_LIMIT_NODE_FLOWS;
		node_say_full(env, *ret_refused);
		return false;
	}
	if (atomic_fetch_add_explicit(&node->fds, fds, memory_order_relaxed) + fds > node->fd_max) {
		node_leave(env, fds);
		*ret_refused = END_LIMIT_FDS;
		node_say_full(env, *ret_refused);
		return false;
	}
	return true;
}

void node_leave(struct flow_env *env, uint32_t fds)
{
	atomic_fetch_sub_explicit(&env->node->flows, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&env->node->fds, fds, memory_order_relaxed);
}

void flow_init(struct flow *f, struct flow_env *env, struct snapshot_rule *rule, const struct addr *client,
	const struct addr *edge, uint32_t fds, const struct flow_kind *kind)
{
	*f = (struct flow){
		.env = env,
		.rule = rule,
		.kind = kind,
		.client = *client,
		.edge = *edge,
		.start = env->loop.now,
		.number = env->next_number++,
		.client_slot = CLIENT_NONE,
		.persist_slot = PERSIST_NONE,
		.rule_port = edge->port,
		.fds = (uint8_t)fds,
	};
	list_add(&env->flows, &f->all);
}

bool flow_admit(struct flow *f, enum end_reason *ret_refused)
{
	static const enum end_reason of_limit[] = {
		[LIMIT_E_FLOWS] = END_LIMIT_CLIENT_FLOWS,
		[LIMIT_E_RATE] = END_LIMIT_CLIENT_RATE,
		[LIMIT_E_FULL] = END_LIMIT_CLIENT_TABLE,
	};
	const struct rule_settings *settings = &f->rule->rule->settings;
	struct rule_state *state = f->rule->state;
	struct node_state *node = f->env->node;
	nsec_t now = f->env->loop.now;
	uint32_t active;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(f->rule->access); i++) {
		if (access_allows(f->rule->access[i], &f->client.ip))
			continue;
		*ret_refused = END_DENIED;
		say_refused(f, END_DENIED);
		return false;
	}
	active = atomic_fetch_add_explicit(&state->active, 1, memory_order_relaxed);
	if (settings->max_flows && active >= settings->max_flows) {
		*ret_refused = END_LIMIT_RULE_FLOWS;
		goto refused;
	}
	r = client_acquire(&node->clients, client_key(&f->client.ip, state->key, node->hash_key),
		settings->client_max_flows, settings->client_new_flows_per_s, now, &f->client_slot);
	if (r != LIMIT_OK) {
		*ret_refused = of_limit[r];
		goto refused;
	}
	/* last, so that what one client is refused does not use up the rule's rate */
	if (!rate_take(&state->rate, settings->new_flows_per_s, now)) {
		client_release(&node->clients, f->client_slot);
		f->client_slot = CLIENT_NONE;
		*ret_refused = END_LIMIT_RULE_RATE;
		goto refused;
	}
	counter_add(&flow_stats(f)->flows, 1);
	counter_add(&flow_stats(f)->active, 1);
	return true;
refused:
	atomic_fetch_sub_explicit(&state->active, 1, memory_order_relaxed);
	say_refused(f, *ret_refused);
	return false;
}

void flow_finish(struct flow *f, enum end_reason why, enum end_side side)
{
	struct rule_stats *stats = flow_stats(f);

	pool_forget(f);
	counter_add(&stats->ended[why], 1);
	if (end_rows[why].logged)
		flow_log_write(f->env->log, f, why, side == END_SIDE_FIRST ? end_rows[why].side : side);
	if (f->client_slot != CLIENT_NONE) {
		client_release(&f->env->node->clients, f->client_slot);
		atomic_fetch_sub_explicit(&f->rule->state->active, 1, memory_order_relaxed);
		counter_add(&stats->active, (uint64_t)-1);
	}
	node_leave(f->env, f->fds);
	list_del(&f->all);
	if (f->draining)
		snapshot_unref(f->rule->snapshot);
}

/*
 * The state belongs to the rule's id. When ports moved between rules, the flow is counted on under its new rule; it
 * was admitted once, so no limit is asked again.
 */
static void change_rule(struct flow *f, struct snapshot_rule *rule)
{
	const struct rule_settings *old = &f->rule->rule->settings, *new = &rule->rule->settings;
	bool times_differ = old->idle_timeout_ms != new->idle_timeout_ms ||
		old->unanswered_timeout_ms != new->unanswered_timeout_ms || old->answers != new->answers;

	if (rule->state != f->rule->state && f->client_slot != CLIENT_NONE) {
		struct rule_stats *to = &rule->state->stats[f->env->worker];

		atomic_fetch_sub_explicit(&f->rule->state->active, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&rule->state->active, 1, memory_order_relaxed);
		counter_add(&flow_stats(f)->active, (uint64_t)-1);
		counter_add(&to->active, 1);
	}
	f->rule = rule;
	if (times_differ)
		f->kind->look_at_time(f);
}

bool flow_move(struct flow *f, struct snapshot *next)
{
	struct snapshot_rule *rule = snapshot_find(next, f->rule->rule->protocol, f->rule_port);

	if (f->draining)
		return true;
	if (rule && rule_same_forwarding(f->rule->rule, rule->rule, f->rule_port)) {
		change_rule(f, rule);
		return false;
	}
	f->draining = true;
	snapshot_ref(f->rule->snapshot);
	return true;
}
