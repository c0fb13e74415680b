/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between two configurations, for people's logs. */
#pragma once

#include "config/config.h"

enum { DIFF_LINES_MAX = 100 };

/**
 * config_diff() - append a line for each difference, as far as they are told
 * @old, @new: rules are the same by their id; groups, IP lists and proxies by name; origins by address and port
 *
 * Lines begin with "+ ", "- " or "~ "; after DIFF_LINES_MAX of them "… and M more" follows. Nothing is appended when
 * both say the same. The time is linear in their size.
 *
 * Return: 0; -ENOMEM, with some lines appended.
 */
MUST_CHECK int config_diff(const struct config *old, const struct config *new, struct text *out);
