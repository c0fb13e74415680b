/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with a configuration: every fault with its place, so that all are reported at once. */
#pragma once

#include "base/text.h"

struct problem {
	unsigned int line;   /* from 1 */
	unsigned int column; /* in characters, from 1 */
	char *message;	     /* what was found, what was expected; printable UTF-8 whatever the file holds */
};

enum { PROBLEMS_MAX = 10000 };

struct problems {
	struct problem *items;
	size_t count;
	size_t left_out; /* found beyond PROBLEMS_MAX, or when memory ran out */
};

/** problem_add() - note a fault; beyond PROBLEMS_MAX it is only counted */
PRINTF(4, 5) void problem_add(struct problems *p, unsigned int line, unsigned int column, const char *format, ...);

/** problems_sort() - by line, then column */
void problems_sort(struct problems *p);

/** problems_format() - append a line "FILE:LINE:COLUMN: message" for each, and one that counts those left out */
void problems_format(const struct problems *p, const char *file, struct text *out);

/** problems_free() - an all-zero list is accepted, and is left behind */
void problems_free(struct problems *p);
