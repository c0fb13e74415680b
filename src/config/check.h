/* SPDX-License-Identifier: Apache-2.0 */
/* What is settled when all rules are known: ports and ids that several have, and the settings they don't give. */
#pragma once

#include "config/config.h"
#include "config/problem.h"

/**
 * check_rules() - that no two rules have a port or an id in common
 * @base: rules that stand in a document and are right in themselves, or NULL
 *
 * A rule that was read from a line is at fault by that line, any other by its path: rules[INDEX]. An edge port range
 * of 0 and a rule without an id are left out.
 *
 * Return: 0, the faults being in @problems; -ENOMEM.
 */
MUST_CHECK int check_rules(const struct config *base, const struct config *config, struct problems *problems);

/**
 * check_toa() - that no rule has pass mode toa, where the option cannot be sent, unless it has toa_required=off
 * @why: why it cannot be sent, for people
 *
 * The faults are in @problems, by line or by path as those of check_rules().
 */
void check_toa(const struct config *config, const char *why, struct problems *problems);

/** rule_make_id() - the id of a rule that is given none, from its protocol and edge ports */
void rule_make_id(const struct rule *rule, char ret_id[static RULE_ID_SIZE]);

/** rules_apply_defaults() - fill in what rules don't give, from rule_defaults and then from the table */
void rules_apply_defaults(struct config *config);
