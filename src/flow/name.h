/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a domain name resolves to, as the workers see it. The resolver (edge/resolver.c) makes an answer and mails it
 * to every worker; each worker keeps its own pointer to the answer it was given last, so nothing here is locked.
 */
#pragma once

#include "base/addr.h"
#include "base/list.h"

#include <stdatomic.h>

/* The addresses of a name at one time. Never changes; freed with the last reference. */
struct name_answer {
	_Atomic uint32_t refs;
	unsigned int count; /* 1..PICK_MAX */
	struct ip ips[];
};

/* What one worker knows of a name. */
struct name_view {
	struct name_answer *answer; /* NULL until the first one has come */
	struct list waiting;	    /* TCP flows (tcp_flow.waiting) that wait for the first answer */
};

struct name {
	_Atomic uint32_t refs;
	unsigned int workers;
	const char *text;	  /* points behind views */
	struct name_view views[]; /* by worker; only that worker may touch it */
};

/** name_new() - with one reference, no answer yet. Return: NULL when memory is out. */
struct name *name_new(const char *text, unsigned int workers);

/** name_ref() - Return: @n. */
struct name *name_ref(struct name *n);

/** name_unref() - from any thread, NULL is accepted; the last one frees the name and its answers. Return: NULL. */
struct name *name_unref(struct name *n);

/** name_answer_new() - with one reference. Return: NULL when memory is out. */
struct name_answer *name_answer_new(const struct ip *ips, unsigned int count);

/** name_answer_ref() - Return: @a. */
struct name_answer *name_answer_ref(struct name_answer *a);

/** name_answer_unref() - from any thread; NULL is accepted. Return: NULL. */
struct name_answer *name_answer_unref(struct name_answer *a);
