/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kills a process that commits, at random moments: while it opens the store, commits, moves the log into the database,
 * compacts, or closes. Afterwards every transaction that it acknowledged must be there, and at most one that it did
 * not.
 *
 * usage: test_store_kill [KILLS [SEED]]; or TIDEGATE_STORE_KILLS in the environment. The unit suite kills 200 times, a
 * thorough run is test_store_kill 2000.
 */
#include "numbered.h"
#include "place.h"
#include "control/store_sqlite.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KILLS = 200, WAIT_MAX_US = 3000, BEFORE_REOPEN = 60 };

static unsigned int kills = KILLS;
static uint64_t seed;

static struct store *open_store(const char *path)
{
	/* small bounds, so that checkpoints and compactions are among the moments */
	struct store_sqlite_options options = {
		.path = path, .checkpoint_pages = 20, .history_revisions = 30, .history_bytes = 1 << 20
	};
	char reason[STORE_REASON_SIZE] = "";
	struct store *store = NULL;
	int r = store_sqlite_open(&options, &store, reason);

	if (r) {
		fprintf(stderr, "seed %" PRIu64 ": open: %d: %s\n", seed, r, reason);
		abort();
	}
	return store;
}

/* Commit until killed; each acknowledged number goes into the pipe. */
_Noreturn static void child(const char *path, int pipe_fd)
{
	struct store *store = open_store(path);
	uint64_t n = numbered_last(store);

	for (;;) {
		n++;
		if (numbered_commit(store, n) != 0)
			_exit(3);
		if (write(pipe_fd, &n, sizeof(n)) != sizeof(n))
			_exit(4);
		/* it also closes and opens, as at a restart */
		if (n % BEFORE_REOPEN == 0) {
			store_close(store);
			store = open_store(path);
		}
	}
}

static void kill_once(const struct place *place, struct test_random *random, uint64_t *acknowledged)
{
	int fds[2], status;
	uint64_t n, newest = *acknowledged;
	struct timespec wait = { .tv_nsec = (long)test_below(random, WAIT_MAX_US) * 1000 };
	bool begun = test_below(random, 10) != 0; /* else it may be killed while it opens the store */
	struct store *store;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(fds[0]);
		child(place->path, fds[1]);
	}
	close(fds[1]);
	for (uint32_t i = test_below(random, 12); begun && i < 12; i++) {
		assert_int_equal(read(fds[0], &n, sizeof(n)), sizeof(n));
		newest = n;
	}
	nanosleep(&wait, NULL);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	while (read(fds[0], &n, sizeof(n)) == sizeof(n))
		newest = n;
	close(fds[0]);

	store = open_store(place->path);
	n = numbered_last(store);
	if (n < newest || n > newest + 1)
		fail_msg("seed %" PRIu64 ": %" PRIu64 " is there, %" PRIu64 " was acknowledged", seed, n, newest);
	store_close(store);
	*acknowledged = n;
}

static void test_killed_process_loses_nothing_that_it_acknowledged(void **state)
{
	struct test_random random = { seed };
	struct place place;
	uint64_t acknowledged = 0;

	(void)state;
	place_make(&place);
	for (unsigned int i = 0; i < kills; i++)
		kill_once(&place, &random, &acknowledged);
	printf("%u kills, %" PRIu64 " transactions, seed %" PRIu64 "\n", kills, acknowledged, seed);
	place_remove(&place);
}

int main(int argc, char **argv)
{
	const char *count = argc > 1 ? argv[1] : getenv("TIDEGATE_STORE_KILLS");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_process_loses_nothing_that_it_acknowledged),
	};

	if (count)
		kills = (unsigned int)strtoul(count, NULL, 10);
	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
