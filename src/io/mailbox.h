/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to the thread that runs a loop. Any thread may post; the loop's thread delivers them between two events,
 * in the order they were posted. So a message that every worker has delivered proves that none of them still uses
 * what it looked at before: this is how memory is taken back without locks.
 */
#pragma once

#include "io/loop.h"

#include <stdatomic.h>

struct mail {
	struct mail *next;
	void (*deliver)(struct mail *mail, void *to); /* in the receiving thread; owns the mail from then on */
};

struct mailbox {
	struct source source;
	int event_fd;
	_Atomic(struct mail *) newest;
	void *to; /* handed to deliver() */
};

/** mailbox_init() - @to is what deliver() gets. Return: 0; -errno. */
MUST_CHECK int mailbox_init(struct mailbox *mb, struct loop *loop, void *to);

/** mailbox_deinit() - undelivered mail is delivered first, so that nothing is lost */
void mailbox_deinit(struct mailbox *mb);

/** mailbox_post() - from any thread; @mail stays valid until its deliver() */
void mailbox_post(struct mailbox *mb, struct mail *mail);
