/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

nsec_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

nsec_t clock_wall(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

void clock_format(nsec_t wall, char out[static CLOCK_TEXT_SIZE])
{
	static _Thread_local time_t last_second = -1;
	static _Thread_local char last_text[32];
	time_t second = wall / NSEC_PER_SEC;
	unsigned int msec = (unsigned int)(wall % NSEC_PER_SEC / NSEC_PER_MSEC);

	if (second != last_second) {
		struct tm tm;

		if (!gmtime_r(&second, &tm) || strftime(last_text, sizeof(last_text), "%Y-%m-%dT%H:%M:%S", &tm) != 19)
			memcpy(last_text, "0000-00-00T00:00:00", 20);
		last_second = second;
	}
	memcpy(out, last_text, 19);
	out[19] = '.';
	out[20] = (char)('0' + msec / 100);
	out[21] = (char)('0' + msec / 10 % 10);
	out[22] = (char)('0' + msec % 10);
	out[23] = 'Z';
	out[24] = 0;
}
