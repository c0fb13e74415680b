/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's own messages, for the person who runs it: one line each on standard error, with time and level. They
 * are rare; what happens to each flow goes to the flow log instead. Code in base, wire, config and policy never logs.
 */
#pragma once

#include "base/clock.h"

#include <stdatomic.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/** log_write() - one line; at most 1000 bytes, cut beyond */
PRINTF(2, 3) void log_write(enum log_level level, const char *format, ...);

#define log_error(...)	 log_write(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_info(...)	 log_write(LOG_INFO, __VA_ARGS__)

/* For messages that a stranger can cause: at most one per interval, the number left out said with the next. */
struct log_limit {
	_Atomic nsec_t next;
	_Atomic unsigned int suppressed;
};

enum { LOG_LIMIT_SECONDS = 10 };

/**
 * log_allowed() - whether a repeating message may be written now
 * @ret_suppressed: when it may, how many were not since the last one
 */
bool log_allowed(struct log_limit *limit, nsec_t now, unsigned int *ret_suppressed);
