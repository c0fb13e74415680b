/* SPDX-License-Identifier: Apache-2.0 */
/* A doubly linked ring through the objects themselves; the head is a node of its own. */
#pragma once

#include "base/macros.h"

struct list {
	struct list *next;
	struct list *prev;
};

static inline void list_init(struct list *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

/** list_add() - put @node at the tail */
static inline void list_add(struct list *head, struct list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/** list_del() - take @node out; it may be taken out again harmlessly */
static inline void list_del(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

/* The body may take out the current node, but no other. */
#define list_for_each(node, head)                                                                                      \
	for (struct list *node = (head)->next, *node##_next = node->next; node != (head);                              \
		node = node##_next, node##_next = node->next)
