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

void problem_add(struct problems *p, unsigned int line, unsigned int column, const char *format, ...)
{
	struct problem *items;
	char *message;
	va_list args;
	int n;

	if (p->count == PROBLEMS_MAX) {
		p->left_out++;
		return;
	}
	va_start(args, format);
	n = vasprintf(&message, format, args);
	va_end(args);
	if (n < 0) {
		p->left_out++;
		return;
	}
	make_printable(message);
	if ((p->count & (p->count - 1)) == 0) { /* room doubles at each power of two */
		items = reallocarray(p->items, p->count ? p->count * 2 : 1, sizeof(*items));
		if (!items) {
			free(message);
			p->left_out++;
			return;
		}
		p->items = items;
	}
	p->items[p->count++] = (struct problem){ .line = line, .column = column, .message = message };
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
	for (size_t i = 0; i < p->count; i++)
		text_printf(out, "%s:%u:%u: %s\n", file, p->items[i].line, p->items[i].column, p->items[i].message);
	if (p->left_out)
		text_printf(out, "%s: and %zu more errors\n", file, p->left_out);
}

void problems_free(struct problems *p)
{
	for (size_t i = 0; i < p->count; i++)
		free(p->items[i].message);
	free(p->items);
	*p = (struct problems){ 0 };
}
