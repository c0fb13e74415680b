/* SPDX-License-Identifier: Apache-2.0 */
#include "io/mailbox.h"
#include "base/error.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void deliver_all(struct mailbox *mb)
{
	struct mail *newest = atomic_exchange_explicit(&mb->newest, NULL, memory_order_acquire);
	struct mail *oldest = NULL;

	while (newest) { /* posted as a stack: turn it round */
		struct mail *next = newest->next;

		newest->next = oldest;
		oldest = newest;
		newest = next;
	}
	while (oldest) {
		struct mail *next = oldest->next;

		oldest->deliver(oldest, mb->to);
		oldest = next;
	}
}

static void mailbox_ready(struct source *source, uint32_t events)
{
	struct mailbox *mb = CONTAINER_OF(source, struct mailbox, source);
	uint64_t count;

	(void)events;
	/* the counter only wakes; the stack says what there is, even when the read finds nothing */
	if (read(mb->event_fd, &count, sizeof(count)) < 0)
		ASSERT(errno == EAGAIN || errno == EINTR);
	deliver_all(mb);
}

int mailbox_init(struct mailbox *mb, struct loop *loop, void *to)
{
	*mb = (struct mailbox){ .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .to = to };
	if (mb->event_fd < 0)
		return fault(-errno);
	source_init(&mb->source, mailbox_ready);
	return loop_add(loop, mb->event_fd, &mb->source, EPOLLIN);
}

void mailbox_deinit(struct mailbox *mb)
{
	deliver_all(mb);
	loop_forget(&mb->source);
	if (mb->event_fd >= 0)
		close(mb->event_fd);
	mb->event_fd = -1;
}

void mailbox_post(struct mailbox *mb, struct mail *mail)
{
	struct mail *newest = atomic_load_explicit(&mb->newest, memory_order_relaxed);

	do
		mail->next = newest;
	while (!atomic_compare_exchange_weak_explicit(
		&mb->newest, &newest, mail, memory_order_release, memory_order_relaxed));
	/* @mail is the reader's now. Only the first of a pile has to wake it; a full counter (EAGAIN) wakes it just as
	 * well. */
	if (!newest && write(mb->event_fd, &(uint64_t){ 1 }, sizeof(uint64_t)) < 0)
		ASSERT(errno == EAGAIN || errno == EINTR);
}
