/* SPDX-License-Identifier: Apache-2.0 */
/* What every file may need of the language: attributes, sizes, and the way from a member to its struct. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK			__attribute__((warn_unused_result))
#define PRINTF(fmt, arg)		__attribute__((format(printf, fmt, arg)))
#define NONNULL				__attribute__((nonnull))
#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define LIKELY(x)			__builtin_expect(!!(x), 1)
#define UNLIKELY(x)			__builtin_expect(!!(x), 0)
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b)			((a) < (b) ? (a) : (b))
#define MAX(a, b)			((a) > (b) ? (a) : (b))
