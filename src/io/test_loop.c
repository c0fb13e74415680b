/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PEERS = 400 };

/* One end of a socket pair that the loop listens to; the test holds the other. */
struct peer {
	struct source source;
	struct loop *loop;
	int fd, other;
	unsigned int calls, again_calls;
	uint32_t events;      /* of the last call */
	unsigned int again;   /* asks so many times more */
	struct peer *forgets; /* takes back its loop_again() */
	struct grave grave;
	unsigned int buried;
	unsigned int calls_when_buried;
};

static void note(struct source *source, uint32_t events)
{
	struct peer *p = CONTAINER_OF(source, struct peer, source);

	p->calls++;
	p->again_calls += events == 0;
	p->events = events;
	if (p->forgets)
		loop_forget(&p->forgets->source);
	if (p->again) {
		p->again--;
		loop_again(p->loop, source);
	}
}

static void peer_open(struct peer *p, struct loop *loop, void (*ready)(struct source *source, uint32_t events))
{
	int fds[2];

	*p = (struct peer){ .loop = loop };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	p->fd = fds[0];
	p->other = fds[1];
	source_init(&p->source, ready);
	assert_int_equal(loop_add(loop, p->fd, &p->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP), 0);
}

static void peer_close(struct peer *p)
{
	loop_forget(&p->source);
	if (p->fd >= 0)
		close(p->fd);
	if (p->other >= 0)
		close(p->other);
	p->fd = p->other = -1;
}

static void put(const struct peer *p, const char *text)
{
	assert_int_equal(write(p->other, text, strlen(text)), strlen(text));
}

static void turn(struct loop *l)
{
	assert_int_equal(loop_turn(l, 0), 0);
}

struct fixture {
	struct loop loop;
	struct peer peers[PEERS];
};

static int setup(void **state)
{
	static struct fixture f;

	*state = &f;
	return loop_init(&f.loop);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	loop_deinit(&f->loop);
	return 0;
}

/* --- events --- */

static void test_an_event_is_said_once_until_there_is_a_new_one(void **state)
{
	struct fixture *f = *state;
	struct peer *p = &f->peers[0];
	char bytes[16];

	peer_open(p, &f->loop, note);
	turn(&f->loop);
	assert_int_equal(p->calls, 1);
	assert_int_equal(p->events, EPOLLOUT); /* writable from the beginning */
	turn(&f->loop);
	assert_int_equal(p->calls, 1);

	put(p, "hello");
	turn(&f->loop);
	assert_int_equal(p->calls, 2);
	assert_int_equal(p->events, EPOLLIN | EPOLLOUT);
	for (int i = 0; i < 5; i++) /* not read, and not said again */
		turn(&f->loop);
	assert_int_equal(p->calls, 2);

	put(p, " world");
	turn(&f->loop);
	assert_int_equal(p->calls, 3);
	assert_int_equal(read(p->fd, bytes, sizeof(bytes)), 11);
	peer_close(p);
}

static void test_the_other_sides_end_is_an_event(void **state)
{
	struct fixture *f = *state;
	struct peer *p = &f->peers[0];

	peer_open(p, &f->loop, note);
	turn(&f->loop);
	assert_int_equal(shutdown(p->other, SHUT_WR), 0);
	turn(&f->loop);
	assert_int_equal(p->events, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
	close(p->other);
	p->other = -1;
	turn(&f->loop);
	assert_int_equal(p->events & EPOLLHUP, EPOLLHUP);
	peer_close(p);
}

static void test_a_closed_fd_is_heard_of_no_more(void **state)
{
	struct fixture *f = *state;
	struct peer *p = &f->peers[0];

	peer_open(p, &f->loop, note);
	turn(&f->loop);
	put(p, "x");
	close(p->fd);
	p->fd = -1;
	turn(&f->loop);
	assert_int_equal(p->calls, 1);
	peer_close(p);
}

static void test_an_fd_that_can_not_be_polled_is_a_fault(void **state)
{
	struct fixture *f = *state;
	struct peer *p = &f->peers[0];
	int closed = fcntl(0, F_DUPFD_CLOEXEC, 900);

	peer_open(p, &f->loop, note);
	assert_int_equal(loop_add(&f->loop, p->fd, &p->source, EPOLLIN), -EEXIST);
	assert_true(closed >= 0);
	close(closed);
	assert_int_equal(loop_add(&f->loop, closed, &p->source, EPOLLIN), -EBADF);
	peer_close(p);
}

/* More sources than one batch of epoll takes. */
static void test_with_many_ready_sources_none_starves(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < PEERS; i++)
		peer_open(&f->peers[i], &f->loop, note);
	for (int i = 0; i < 2; i++)
		turn(&f->loop);
	for (size_t i = 0; i < PEERS; i++)
		assert_int_equal(f->peers[i].calls, 1);
	for (size_t i = 0; i < PEERS; i++)
		peer_close(&f->peers[i]);
}

/* --- once more --- */

static void test_who_asks_again_is_called_once_in_the_next_turn(void **state)
{
	struct fixture *f = *state;
	struct peer *p = f->peers;

	for (size_t i = 0; i < 3; i++)
		peer_open(&p[i], &f->loop, note);
	turn(&f->loop);
	for (size_t i = 0; i < 4; i++) /* the first one twice */
		loop_again(&f->loop, &p[i % 3].source);
	turn(&f->loop);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(p[i].again_calls, 1);
		assert_int_equal(p[i].events, 0);
	}
	turn(&f->loop);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(p[i].again_calls, 1);
		peer_close(&p[i]);
	}
}

/* Also those that always ask again: each is called once a turn, in turn with the others, and events still
 * come through. */
static void test_who_always_asks_again_does_not_starve_others(void **state)
{
	struct fixture *f = *state;
	struct peer *quiet = &f->peers[9];

	for (size_t i = 0; i < 10; i++)
		peer_open(&f->peers[i], &f->loop, note);
	turn(&f->loop);
	for (size_t i = 0; i < 9; i++) {
		f->peers[i].again = 1000;
		loop_again(&f->loop, &f->peers[i].source);
	}
	for (unsigned int turns = 1; turns <= 100; turns++) {
		put(quiet, "x");
		turn(&f->loop);
		for (size_t i = 0; i < 9; i++)
			assert_int_equal(f->peers[i].again_calls, turns);
		assert_int_equal(quiet->calls, turns + 1);
	}
	for (size_t i = 0; i < 10; i++)
		peer_close(&f->peers[i]);
}

static void test_the_loop_does_not_wait_while_somebody_asked_again(void **state)
{
	struct fixture *f = *state;
	struct peer *p = &f->peers[0];

	peer_open(p, &f->loop, note);
	turn(&f->loop);
	loop_again(&f->loop, &p->source);
	assert_int_equal(loop_turn(&f->loop, -1), 0); /* would never return */
	assert_int_equal(p->again_calls, 1);
	peer_close(p);
}

static void test_what_is_forgotten_is_not_called(void **state)
{
	struct fixture *f = *state;
	struct peer *p = f->peers;

	for (size_t i = 0; i < 3; i++)
		peer_open(&p[i], &f->loop, note);
	turn(&f->loop);
	for (size_t i = 0; i < 3; i++)
		loop_again(&f->loop, &p[i].source);
	loop_forget(&p[0].source);
	p[1].forgets = &p[2]; /* which waits for the same turn */
	turn(&f->loop);
	assert_int_equal(p[0].again_calls, 0);
	assert_int_equal(p[1].again_calls, 1);
	assert_int_equal(p[2].again_calls, 0);
	for (size_t i = 0; i < 3; i++)
		peer_close(&p[i]);
}

/* --- graves --- */

static void bury(struct grave *grave)
{
	struct peer *p = CONTAINER_OF(grave, struct peer, grave);

	p->buried++;
	p->calls_when_buried = p->calls;
}

/* Closes itself and its neighbour, as a flow does whose other side failed. */
static void close_both(struct source *source, uint32_t events)
{
	struct peer *p = CONTAINER_OF(source, struct peer, source);
	struct peer *other = p->forgets;

	note(source, events);
	if (p->fd < 0)
		return;
	peer_close(p);
	peer_close(other);
	loop_bury(p->loop, &p->grave, bury);
	loop_bury(p->loop, &other->grave, bury);
}

static void test_the_dead_are_buried_at_the_end_of_the_turn(void **state)
{
	struct fixture *f = *state;
	struct peer *p = f->peers;

	for (size_t i = 0; i < 2; i++)
		peer_open(&p[i], &f->loop, close_both);
	p[0].forgets = &p[1];
	p[1].forgets = &p[0];
	turn(&f->loop);
	/* both were ready in the one batch, so both were called, though the first had closed them */
	assert_int_equal(p[0].calls + p[1].calls, 2);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(p[i].buried, 1);
		assert_int_equal(p[i].calls_when_buried, p[i].calls);
	}
	turn(&f->loop);
	assert_int_equal(p[0].buried + p[1].buried, 2);
}

static void test_what_is_left_is_buried_with_the_loop(void **state)
{
	static struct peer p;
	struct loop loop;

	(void)state;
	assert_int_equal(loop_init(&loop), 0);
	p = (struct peer){ 0 };
	loop_bury(&loop, &p.grave, bury);
	loop_deinit(&loop);
	assert_int_equal(p.buried, 1);
}

static void bury_another(struct grave *grave)
{
	struct peer *p = CONTAINER_OF(grave, struct peer, grave);

	bury(grave);
	loop_bury(p->loop, &p[1].grave, bury);
}

static void test_a_burial_may_cause_another(void **state)
{
	struct fixture *f = *state;
	struct peer *p = f->peers;

	p[0] = p[1] = (struct peer){ .loop = &f->loop };
	loop_bury(&f->loop, &p[0].grave, bury_another);
	turn(&f->loop);
	assert_int_equal(p[0].buried, 1);
	assert_int_equal(p[1].buried, 1);
}

/* --- timers and turns --- */

struct alarm {
	struct timer timer;
	struct loop *loop;
	nsec_t fired_at;
};

static void ring(struct timer *timer)
{
	struct alarm *a = CONTAINER_OF(timer, struct alarm, timer);

	a->fired_at = a->loop->now;
	loop_stop(a->loop);
}

static void test_the_loop_wakes_for_a_timer(void **state)
{
	struct fixture *f = *state;
	struct alarm a = { .loop = &f->loop };
	nsec_t at = clock_now() + 20 * NSEC_PER_MSEC;

	timer_init(&a.timer, ring);
	timer_start(&f->loop.timers, &a.timer, at);
	assert_int_equal(loop_run(&f->loop), 0);
	assert_true(a.fired_at >= at);
}

static void test_a_turn_waits_no_longer_than_asked(void **state)
{
	struct fixture *f = *state;
	struct alarm a = { .loop = &f->loop };
	nsec_t begin = clock_now();

	timer_init(&a.timer, ring);
	timer_start(&f->loop.timers, &a.timer, begin + 3600 * NSEC_PER_SEC);
	assert_int_equal(loop_turn(&f->loop, 10), 0);
	assert_true(clock_now() - begin >= 10 * NSEC_PER_MSEC);
	assert_int_equal(a.fired_at, 0);
	timer_stop(&a.timer);
}

static void test_the_time_of_a_turn_does_not_run_backwards(void **state)
{
	struct fixture *f = *state;
	nsec_t before = f->loop.now;

	for (int i = 0; i < 100; i++) {
		turn(&f->loop);
		assert_true(f->loop.now >= before && f->loop.now <= clock_now());
		before = f->loop.now;
	}
}

static unsigned int turns_done;

static void count_and_stop(struct loop *loop)
{
	if (++turns_done == 3)
		loop_stop(loop);
}

static void test_the_end_of_each_turn_is_told_and_a_stop_ends_the_run(void **state)
{
	struct fixture *f = *state;
	struct peer *p = &f->peers[0];

	turns_done = 0;
	peer_open(p, &f->loop, note);
	p->again = 100;
	f->loop.turn_done = count_and_stop;
	loop_again(&f->loop, &p->source);
	assert_int_equal(loop_run(&f->loop), 0);
	assert_int_equal(turns_done, 3);
	assert_int_equal(p->again_calls, 3);
	peer_close(p);
}

static void ignore_signal(int number)
{
	(void)number;
}

static void test_a_signal_is_no_fault(void **state)
{
	struct fixture *f = *state;
	struct sigaction action = { .sa_handler = ignore_signal }, before;

	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	ualarm(5000, 0);
	assert_int_equal(loop_turn(&f->loop, 2000), 0);
	assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_an_event_is_said_once_until_there_is_a_new_one),
		TEST(test_the_other_sides_end_is_an_event),
		TEST(test_a_closed_fd_is_heard_of_no_more),
		TEST(test_an_fd_that_can_not_be_polled_is_a_fault),
		TEST(test_with_many_ready_sources_none_starves),
		TEST(test_who_asks_again_is_called_once_in_the_next_turn),
		TEST(test_who_always_asks_again_does_not_starve_others),
		TEST(test_the_loop_does_not_wait_while_somebody_asked_again),
		TEST(test_what_is_forgotten_is_not_called),
		TEST(test_the_dead_are_buried_at_the_end_of_the_turn),
		TEST(test_what_is_left_is_buried_with_the_loop),
		TEST(test_a_burial_may_cause_another),
		TEST(test_the_loop_wakes_for_a_timer),
		TEST(test_a_turn_waits_no_longer_than_asked),
		TEST(test_the_time_of_a_turn_does_not_run_backwards),
		TEST(test_the_end_of_each_turn_is_told_and_a_stop_ends_the_run),
		TEST(test_a_signal_is_no_fault),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
