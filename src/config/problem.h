/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wrong with a configuration: every fault with its place, so that all are reported at once. A place is a line
 * and a column of a text, or the path of a member of a document, such as rules[3].edge_ports[0].
 */
#pragma once

#include "base/text.h"

struct problem {
	unsigned int line;   /* from 1; 0 when the place is a path */
	unsigned int column; /* in characters, from 1 */
	char *path;	     /* NULL when the place is a line */
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

/** problem_add_at() - as problem_add(), with the path of a member as the place; "" stands for the whole document */
PRINTF(3, 4) void problem_add_at(struct problems *p, const char *path, const char *format, ...);

/** problems_sort() - by line, then column; for places that are lines */
void problems_sort(struct problems *p);

/**
 * problems_format() - append a line "FILE:LINE:COLUMN: message" or "FILE: PATH: message" for each, and one that counts
 * those left out
 */
void problems_format(const struct problems *p, const char *file, struct text *out);

/** problems_free() - an all-zero list is accepted, and is left behind */
void problems_free(struct problems *p);
