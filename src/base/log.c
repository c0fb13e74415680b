/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LINE_SIZE = 1100, LOG_MESSAGE_SIZE = 1000 };

void log_write(enum log_level level, const char *format, ...)
{
	static const char *const names[] = {
		[LOG_ERROR] = "error",
		[LOG_WARNING] = "warning",
		[LOG_INFO] = "info",
		[LOG_DEBUG] = "debug",
	};
	char line[LOG_LINE_SIZE], message[LOG_MESSAGE_SIZE], time[CLOCK_TEXT_SIZE];
	va_list args;
	int n;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	for (char *c = message; *c; c++)
		if ((unsigned char)*c < 0x20)
			*c = ' ';
	clock_format(clock_wall(), time);
	n = snprintf(line, sizeof(line), "%s %s: %s\n", time, names[level], message);
	/* one write, so that lines of several threads do not mix; there is nobody to tell when it fails */
	if (n > 0 && write(STDERR_FILENO, line, MIN((size_t)n, sizeof(line) - 1)) < 0)
		return;
}

bool log_allowed(struct log_limit *limit, nsec_t now, unsigned int *ret_suppressed)
{
	nsec_t next = atomic_load_explicit(&limit->next, memory_order_relaxed);

	if (now < next ||
		!atomic_compare_exchange_strong_explicit(&limit->next, &next, now + LOG_LIMIT_SECONDS * NSEC_PER_SEC,
			memory_order_relaxed, memory_order_relaxed)) {
		atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
		return false;
	}
	*ret_suppressed = atomic_exchange_explicit(&limit->suppressed, 0, memory_order_relaxed);
	return true;
}
