/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_store FOLDER [COUNT] - what the store costs on the disk of FOLDER: commits of one key and of a hundred, compare
 * and swap by four threads, reads, a list, watching, opening. It makes FOLDER/bench.db and removes it. Use the release
 * build; a commit waits for the disk, so FOLDER decides.
 */
#include "base/clock.h"
#include "base/error.h"
#include "control/store_sqlite.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COUNT = 2000, WRITES = 100, THREADS = 4, KEYS = 2000, VALUE_BYTES = 500 };

static char value[VALUE_BYTES];

static struct store *open_bench(const char *path)
{
	char reason[STORE_REASON_SIZE];
	struct store *store;

	if (store_sqlite_open(&(struct store_sqlite_options){ .path = path }, &store, reason)) {
		fprintf(stderr, "bench_store: %s\n", reason);
		exit(1);
	}
	return store;
}

static int compare_numbers(const void *a, const void *b)
{
	nsec_t x = *(const nsec_t *)a, y = *(const nsec_t *)b;

	return (x > y) - (x < y);
}

static void report(const char *what, nsec_t *times, size_t count, nsec_t all)
{
	qsort(times, count, sizeof(*times), compare_numbers);
	printf("%-34s %8.0f/s   p50 %8.3f ms   p99 %8.3f ms   max %8.3f ms\n", what,
		(double)count * (double)NSEC_PER_SEC / (double)all, (double)times[count / 2] / 1e6,
		(double)times[count * 99 / 100] / 1e6, (double)times[count - 1] / 1e6);
}

static void commit(struct store *store, size_t first, size_t writes)
{
	struct store_write w[WRITES];
	char keys[WRITES][48];
	uint64_t revision;

	for (size_t i = 0; i < writes; i++) {
		snprintf(keys[i], sizeof(keys[i]), "/sites/zone-1/rules/rule-%06zu", (first + i) % KEYS);
		w[i] = (struct store_write){ keys[i], value, sizeof(value) };
	}
	ASSERT(store_commit(
		       store, &(struct store_transaction){ .writes = w, .write_count = writes }, &revision, NULL) == 0);
}

static void bench_commits(struct store *store, const char *what, size_t count, size_t writes)
{
	nsec_t *times = calloc(count, sizeof(*times)), begin = clock_now();

	for (size_t i = 0; i < count; i++) {
		nsec_t at = clock_now();

		commit(store, i * writes, writes);
		times[i] = clock_now() - at;
	}
	report(what, times, count, clock_now() - begin);
	free(times);
}

static void bench_gets(struct store *store, size_t count)
{
	nsec_t *times = calloc(count, sizeof(*times)), begin = clock_now();

	for (size_t i = 0; i < count; i++) {
		nsec_t at = clock_now();
		struct store_page page;
		char key[48];

		snprintf(key, sizeof(key), "/sites/zone-1/rules/rule-%06zu", i * 7 % KEYS);
		ASSERT(store_get(store, key, &page) == 0);
		store_page_free(&page);
		times[i] = clock_now() - at;
	}
	report("get", times, count, clock_now() - begin);
	free(times);
}

static void bench_lists(struct store *store, size_t count)
{
	nsec_t *times = calloc(count, sizeof(*times)), begin = clock_now();

	for (size_t i = 0; i < count; i++) {
		nsec_t at = clock_now();
		struct store_page page;

		ASSERT(store_list(store, &(struct store_query){ .prefix = "/" }, &page) == 0);
		store_page_free(&page);
		times[i] = clock_now() - at;
	}
	report("list, page of 1000", times, count, clock_now() - begin);
	free(times);
}

struct racer {
	struct store *store;
	size_t count;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	for (size_t i = 0; i < r->count; i++)
		commit(r->store, i, 1);
	return NULL;
}

static void bench_threads(struct store *store, size_t count)
{
	struct racer racer = { store, count / THREADS };
	pthread_t threads[THREADS];
	nsec_t begin = clock_now();

	for (size_t i = 0; i < THREADS; i++)
		ASSERT(pthread_create(&threads[i], NULL, race, &racer) == 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("%-34s %8.0f/s\n", "commit of 1 key by 4 threads",
		(double)(racer.count * THREADS) * (double)NSEC_PER_SEC / (double)(clock_now() - begin));
}

static void bench_watch(struct store *store, uint64_t since)
{
	struct store_changes changes;
	struct store_watch *watch;
	nsec_t begin = clock_now();
	size_t count = 0;

	ASSERT(store_watch_open(store, "/", since, &watch) == 0);
	while (store_watch_next(watch, &changes) == 0) {
		count += changes.count;
		store_changes_free(&changes);
	}
	store_watch_close(watch);
	printf("%-34s %8.0f/s\n", "changes told by a watch",
		(double)count * (double)NSEC_PER_SEC / (double)(clock_now() - begin));
}

static void remove_files(const char *path)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", ".lock" };

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char name[4200];

		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		unlink(name);
	}
}

int main(int argc, char **argv)
{
	size_t count = argc > 2 ? strtoul(argv[2], NULL, 10) : COUNT;
	struct store_status status;
	struct store *store;
	char path[4096];
	nsec_t begin;

	if (argc < 2 || count < 100) {
		fprintf(stderr, "usage: bench_store FOLDER [COUNT]   COUNT: commits, from 100, default %d\n", COUNT);
		return 2;
	}
	memset(value, 'x', sizeof(value));
	snprintf(path, sizeof(path), "%s/bench.db", argv[1]);
	remove_files(path);
	store = open_bench(path);
	bench_commits(store, "commit of 1 key", count, 1);
	bench_commits(store, "commit of 100 keys", count / 10, WRITES);
	bench_threads(store, count);
	bench_gets(store, count * 10);
	bench_lists(store, count / 10);
	ASSERT(store_status(store, &status) == 0);
	bench_watch(store, status.compacted);
	store_close(store);
	begin = clock_now();
	store = open_bench(path);
	printf("%-34s %10.1f ms (%" PRIu64 " kB live, %" PRIu64 " kB history)\n", "open, everything checked",
		(double)(clock_now() - begin) / 1e6, status.live_bytes / 1024, status.superseded_bytes / 1024);
	store_close(store);
	remove_files(path);
	return 0;
}
