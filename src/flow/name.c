/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/name.h"

#include <stdlib.h>
#include <string.h>

struct name *name_new(const char *text, unsigned int workers)
{
	size_t views = workers * sizeof(struct name_view), length = strlen(text) + 1;
	struct name *n = calloc(1, sizeof(*n) + views + length);

	if (!n)
		return NULL;
	atomic_init(&n->refs, 1);
	n->workers = workers;
	n->text = memcpy((char *)n->views + views, text, length);
	for (unsigned int i = 0; i < workers; i++)
		list_init(&n->views[i].waiting);
	return n;
}

struct name *name_ref(struct name *n)
{
	atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	return n;
}

struct name *name_unref(struct name *n)
{
	if (!n || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (unsigned int i = 0; i < n->workers; i++)
		name_answer_unref(n->views[i].answer);
	free(n);
	return NULL;
}

struct name_answer *name_answer_new(const struct ip *ips, unsigned int count)
{
	struct name_answer *a = malloc(sizeof(*a) + count * sizeof(*ips));

	if (!a)
		return NULL;
	atomic_init(&a->refs, 1);
	a->count = count;
	memcpy(a->ips, ips, count * sizeof(*ips));
	return a;
}

struct name_answer *name_answer_ref(struct name_answer *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	return a;
}

struct name_answer *name_answer_unref(struct name_answer *a)
{
	if (a && atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) == 1)
		free(a);
	return NULL;
}
