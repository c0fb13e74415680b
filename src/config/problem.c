/* SPDX-License-Identifier: Apache-2.0 */
#include "config/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A message quotes what a file holds, which may be anything; what can't be shown becomes '?'. */
static void make_printable(char *message)
{
	size_t left = strlen(message);

	while (left) {
		size_t n = utf8_printable(message, left);

		if (n == 0) {
			*message = '?';
			n = 1;
		}
		message += n;
		left -= n;
	}
}

/* Takes over @path, which may be NULL. False when there is no room. */
static bool add(struct problems *p, struct problem problem, const char *format, va_list args)
{
	struct problem *items;

	if (vasprintf(&problem.message, format, args) < 0)
		return false;
	make_printable(problem.message);
	if (problem.path)
		make_printable(problem.path);
	if ((p->count & (p->count - 1)) == 0) { /* room doubles at each power of two */
		items = reallocarray(p->items, p->count ? p->count * 2 : 1, sizeof(*items));
		if (!items) {
			free(problem.message);
			return false;
		}
		p->items = items;
	}
	p->items[p->count++] = problem;
	return true;
}

void problem_add(struct problems *p, unsigned int line, unsigned int column, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (p->count == PROBLEMS_MAX || !add(p, (struct problem){ .line = line, .column = column }, format, args))
		p->left_out++;
	va_end(args);
}

void problem_add_at(struct problems *p, const char *path, const char *format, ...)
{
	char *copy = p->count == PROBLEMS_MAX ? NULL : strdup(path);
	va_list args;

	va_start(args, format);
	if (!copy || !add(p, (struct problem){ .path = copy }, format, args)) {
		free(copy);
		p->left_out++;
	}
	va_end(args);
}

static int compare(const void *a, const void *b)
{
	const struct problem *pa = a, *pb = b;

	if (pa->line != pb->line)
		return pa->line < pb->line ? -1 : 1;
	if (pa->column != pb->column)
		return pa->column < pb->column ? -1 : 1;
	return 0;
}

void problems_sort(struct problems *p)
{
	if (p->count)
		qsort(p->items, p->count, sizeof(*p->items), compare);
}

void problems_format(const struct problems *p, const char *file, struct text *out)
{
	for (size_t i = 0; i < p->count; i++) {
		const struct problem *problem = &p->items[i];

		if (!problem->path)
			text_printf(out, "%s:%u:%u: %s\n", file, problem->line, problem->column, problem->message);
		else
			text_printf(
				out, "%s: %s%s%s\n", file, problem->path, *problem->path ? ": " : "", problem->message);
	}
	if (p->left_out)
		text_printf(out, "%s: and %zu more errors\n", file, p->left_out);
}

void problems_free(struct problems *p)
{
	for (size_t i = 0; i < p->count; i++) {
		free(p->items[i].path);
		free(p->items[i].message);
	}
	free(p->items);
	*p = (struct problems){ 0 };
}
