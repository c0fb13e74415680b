/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What unit tests share: cmocka with the headers it wants, and random numbers that are the same on every run.
 * For test_*.c only.
 */
#pragma once

#include "base/macros.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* A generator; the seed is its first value (splitmix64). */
struct test_random {
	uint64_t state;
};

/** test_random() - 64 random bits */
static inline uint64_t test_random(struct test_random *r)
{
	uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/** test_below() - a random number from 0 to @limit - 1 */
static inline uint32_t test_below(struct test_random *r, uint32_t limit)
{
	return (uint32_t)(test_random(r) % limit);
}
