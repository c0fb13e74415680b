/* SPDX-License-Identifier: Apache-2.0 */
/* Time inside the program is nsec_t: nanoseconds of CLOCK_MONOTONIC, or of CLOCK_REALTIME where a name says wall. */
#pragma once

#include "base/macros.h"

typedef int64_t nsec_t;

#define NSEC_PER_SEC  INT64_C(1000000000)
#define NSEC_PER_MSEC INT64_C(1000000)
#define NSEC_PER_USEC INT64_C(1000)

/** clock_now() - monotonic time, ns */
nsec_t clock_now(void);

/** clock_wall() - wall-clock time, ns since 1970 UTC */
nsec_t clock_wall(void);

enum { CLOCK_TEXT_SIZE = sizeof("2026-01-01T00:00:00.000Z") };

/**
 * clock_format() - write a wall-clock time as RFC 3339 in UTC with milliseconds
 * @wall: ns since 1970
 * @out:  receives "2026-01-01T00:00:00.000Z" and a terminating NUL
 *
 * Remembers the last second it broke down (per thread), since log lines come many to the second.
 */
void clock_format(nsec_t wall, char out[static CLOCK_TEXT_SIZE]);
