/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "io/mailbox.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

/* What a receiver is told: the letters in their order. */
struct receiver {
	struct loop loop;
	struct mailbox mailbox;
	uint32_t got[64];
	size_t count;
};

struct letter {
	struct mail mail;
	uint32_t number;
	struct receiver *reply_to; /* posts itself again, once */
};

static void receiver_init(struct receiver *r)
{
	memset(r, 0, sizeof(*r));
	assert_int_equal(loop_init(&r->loop), 0);
	assert_int_equal(mailbox_init(&r->mailbox, &r->loop, r), 0);
}

static void receiver_deinit(struct receiver *r)
{
	mailbox_deinit(&r->mailbox);
	loop_deinit(&r->loop);
}

static void deliver(struct mail *mail, void *to)
{
	struct letter *l = CONTAINER_OF(mail, struct letter, mail);
	struct receiver *r = to, *reply_to = l->reply_to;

	r->got[r->count++] = l->number;
	if (reply_to) {
		l->reply_to = NULL;
		l->number += 100;
		mailbox_post(&reply_to->mailbox, mail);
	}
}

static void post(struct receiver *r, struct letter *letters, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		letters[i].mail.deliver = deliver;
		letters[i].number = (uint32_t)i;
		mailbox_post(&r->mailbox, &letters[i].mail);
	}
}

static bool awake(const struct receiver *r)
{
	return poll(&(struct pollfd){ .fd = r->mailbox.event_fd, .events = POLLIN }, 1, 0) == 1;
}

static void test_mail_is_delivered_in_the_order_it_was_posted(void **state)
{
	struct letter letters[20] = { 0 };
	struct receiver r;

	(void)state;
	receiver_init(&r);
	for (int round = 0; round < 3; round++) {
		r.count = 0;
		post(&r, letters, ARRAY_SIZE(letters));
		assert_int_equal(r.count, 0); /* not in the poster's hands */
		assert_int_equal(loop_turn(&r.loop, 0), 0);
		assert_int_equal(r.count, ARRAY_SIZE(letters));
		for (uint32_t i = 0; i < r.count; i++)
			assert_int_equal(r.got[i], i);
	}
	receiver_deinit(&r);
}

static void test_an_empty_mailbox_is_quiet(void **state)
{
	struct letter letter = { 0 };
	struct receiver r;

	(void)state;
	receiver_init(&r);
	assert_false(awake(&r));
	post(&r, &letter, 1);
	assert_true(awake(&r));
	assert_int_equal(loop_turn(&r.loop, 0), 0);
	assert_false(awake(&r));
	assert_int_equal(loop_turn(&r.loop, 0), 0);
	assert_int_equal(r.count, 1);
	receiver_deinit(&r);
}

static void test_mail_posted_during_a_delivery_comes_with_the_next_turn(void **state)
{
	struct letter letter = { 0 };
	struct receiver r;

	(void)state;
	receiver_init(&r);
	letter.reply_to = &r;
	post(&r, &letter, 1);
	assert_int_equal(loop_turn(&r.loop, 0), 0);
	assert_int_equal(r.count, 1);
	assert_int_equal(loop_turn(&r.loop, 0), 0);
	assert_int_equal(r.count, 2);
	assert_int_equal(r.got[1], 100);
	receiver_deinit(&r);
}

static void test_mail_goes_from_loop_to_loop(void **state)
{
	struct letter letter = { 0 };
	struct receiver a, b;

	(void)state;
	receiver_init(&a);
	receiver_init(&b);
	letter.reply_to = &b;
	post(&a, &letter, 1);
	assert_int_equal(loop_turn(&a.loop, 0), 0);
	assert_int_equal(loop_turn(&b.loop, 0), 0);
	assert_int_equal(a.count, 1);
	assert_int_equal(b.count, 1);
	assert_int_equal(b.got[0], 100);
	receiver_deinit(&a);
	receiver_deinit(&b);
}

static void test_undelivered_mail_is_delivered_at_the_end(void **state)
{
	struct letter letters[3] = { 0 };
	struct receiver r;

	(void)state;
	receiver_init(&r);
	post(&r, letters, 3);
	mailbox_deinit(&r.mailbox);
	assert_int_equal(r.count, 3);
	assert_int_equal(r.got[2], 2);
	loop_deinit(&r.loop);
}

/* --- many posting threads --- */

enum { POSTERS = 4, LETTERS = 20000 };

struct poster {
	pthread_t thread;
	struct mailbox *mailbox;
	struct post_letter {
		struct mail mail;
		unsigned int poster, number;
	} letters[LETTERS];
};

struct office {
	struct loop loop;
	unsigned int next[POSTERS]; /* number of the next letter of each */
	unsigned int delivered;
	bool out_of_order;
};

static void sort_mail(struct mail *mail, void *to)
{
	struct post_letter *l = CONTAINER_OF(mail, struct post_letter, mail);
	struct office *o = to;

	o->out_of_order |= l->number != o->next[l->poster]++;
	memset(l, 0xff, sizeof(*l)); /* it is the receiver's now: nobody else may look at it */
	if (++o->delivered == POSTERS * LETTERS)
		loop_stop(&o->loop);
}

static void *post_all(void *arg)
{
	struct poster *p = arg;

	for (size_t i = 0; i < LETTERS; i++)
		mailbox_post(p->mailbox, &p->letters[i].mail);
	return NULL;
}

static void test_many_threads_post_and_each_ones_order_is_kept(void **state)
{
	static struct poster posters[POSTERS];
	struct mailbox mailbox;
	struct office o = { 0 };

	(void)state;
	assert_int_equal(loop_init(&o.loop), 0);
	assert_int_equal(mailbox_init(&mailbox, &o.loop, &o), 0);
	for (unsigned int p = 0; p < POSTERS; p++) {
		posters[p].mailbox = &mailbox;
		for (unsigned int i = 0; i < LETTERS; i++)
			posters[p].letters[i] =
				(struct post_letter){ .mail.deliver = sort_mail, .poster = p, .number = i };
	}
	for (unsigned int p = 0; p < POSTERS; p++)
		assert_int_equal(pthread_create(&posters[p].thread, NULL, post_all, &posters[p]), 0);
	assert_int_equal(loop_run(&o.loop), 0); /* hangs if a wake-up is lost */
	for (unsigned int p = 0; p < POSTERS; p++)
		assert_int_equal(pthread_join(posters[p].thread, NULL), 0);
	assert_false(o.out_of_order);
	assert_int_equal(o.delivered, POSTERS * LETTERS);
	mailbox_deinit(&mailbox);
	loop_deinit(&o.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mail_is_delivered_in_the_order_it_was_posted),
		cmocka_unit_test(test_an_empty_mailbox_is_quiet),
		cmocka_unit_test(test_mail_posted_during_a_delivery_comes_with_the_next_turn),
		cmocka_unit_test(test_mail_goes_from_loop_to_loop),
		cmocka_unit_test(test_undelivered_mail_is_delivered_at_the_end),
		cmocka_unit_test(test_many_threads_post_and_each_ones_order_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
