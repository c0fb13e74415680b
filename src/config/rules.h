/* SPDX-License-Identifier: Apache-2.0 */
/* Forwarding rules as text, a rule a line (docs/rules-file.md). */
#pragma once

#include "config/config.h"
#include "config/problem.h"

enum { RULES_TEXT_MAX = 16 << 20 /* bytes of a rules file */ };

enum { RULES_OK, RULES_E_WRONG };

/**
 * rules_parse() - read rules from text
 * @text, @length: the whole file
 * @base:          the configuration of a document, to which the rules are to be added; NULL: they stand alone. Its
 *                 groups may be named, and what its rules have is taken
 * @ret_set:       on RULES_OK, owned by the caller: config_free(). With a @base its rules refer to groups of that, so
 *                 it is good for config_join() only
 * @problems:      receives every fault, sorted, when the answer is RULES_E_WRONG
 *
 * Return: RULES_OK; RULES_E_WRONG; -ENOMEM.
 */
MUST_CHECK int rules_parse(const char *text, size_t length, const struct limits_profile *profile,
	const struct config *base, struct config *ret_set, struct problems *problems);

/** rules_format() - append the text of a rule set; rules_parse() makes an equal set of it, given the same groups */
void rules_format(const struct config *set, struct text *out);
