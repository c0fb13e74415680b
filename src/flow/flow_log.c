/* SPDX-License-Identifier: Apache-2.0 */
#include "flow/flow_log.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	CLOSE_WAIT_MS = 2000,
	RETRY_MS = 200, /* after a failed write: the disk may have room again */
	GATHER_MS = 20, /* between two writes while there is traffic: fewer wake-ups for many short flows */
};

/* --- the worker's side: a line --- */

struct line {
	const struct flow *flow;
	const char *host;
	enum end_reason why;
	enum end_side side;
	nsec_t now;
	nsec_t wall;
	bool udp;
};

static void put_time(struct text *t, nsec_t wall)
{
	char time[CLOCK_TEXT_SIZE];

	clock_format(wall, time);
	text_put(t, "\"", 1);
	text_put(t, time, CLOCK_TEXT_SIZE - 1);
	text_put(t, "\"", 1);
}

static void put_addr(struct text *t, const struct addr *a)
{
	static const struct addr none;
	char addr[ADDR_TEXT_SIZE];

	if (addr_equal(a, &none)) {
		text_str(t, "null");
		return;
	}
	text_put(t, "\"", 1);
	text_put(t, addr, addr_format(a, addr));
	text_put(t, "\"", 1);
}

static void put_word(struct text *t, const char *word)
{
	text_put(t, "\"", 1);
	text_str(t, word);
	text_put(t, "\"", 1);
}

/* A function a field: the table gives their order, and a field without one does not compile. */
static void field_time(struct text *t, const struct line *l)
{
	put_time(t, l->wall);
}

static void field_start(struct text *t, const struct line *l)
{
	put_time(t, l->wall - (l->now - l->flow->start));
}

static void field_duration_ms(struct text *t, const struct line *l)
{
	text_u64(t, (uint64_t)((l->now - l->flow->start) / NSEC_PER_MSEC));
}

static void field_protocol(struct text *t, const struct line *l)
{
	put_word(t, l->udp ? "udp" : "tcp");
}

static void field_rule(struct text *t, const struct line *l)
{
	put_word(t, l->flow->rule->rule->id);
}

static void field_tag(struct text *t, const struct line *l)
{
	const char *tag = l->flow->rule->rule->tag;

	if (tag)
		text_json(t, tag, strlen(tag));
	else
		text_str(t, "null");
}

static void field_client(struct text *t, const struct line *l)
{
	put_addr(t, &l->flow->client);
}

static void field_edge(struct text *t, const struct line *l)
{
	put_addr(t, &l->flow->edge);
}

static void field_origin(struct text *t, const struct line *l)
{
	put_addr(t, &l->flow->origin);
}

static void field_bytes_in(struct text *t, const struct line *l)
{
	text_u64(t, counter_get(&l->flow->bytes_in));
}

static void field_bytes_out(struct text *t, const struct line *l)
{
	text_u64(t, counter_get(&l->flow->bytes_out));
}

static void field_datagrams_in(struct text *t, const struct line *l)
{
	text_u64(t, l->flow->datagrams_in);
}

static void field_datagrams_out(struct text *t, const struct line *l)
{
	text_u64(t, l->flow->datagrams_out);
}

static void field_connect_ms(struct text *t, const struct line *l)
{
	if (l->flow->connected)
		text_printf(t, "%u.%03u", l->flow->connect_us / 1000, l->flow->connect_us % 1000);
	else
		text_str(t, "null");
}

static void field_end(struct text *t, const struct line *l)
{
	put_word(t, end_rows[l->why].word);
}

static void field_end_side(struct text *t, const struct line *l)
{
	put_word(t, end_side_name(l->side));
}

static void field_flow(struct text *t, const struct line *l)
{
	text_printf(t, "\"flow-%x-%" PRIx64 "\"", l->flow->env->worker, l->flow->number);
}

static void field_node(struct text *t, const struct line *l)
{
	const char *name = l->flow->env->snapshot->config.node.name;

	if (!name[0])
		name = l->host;
	text_json(t, name, strlen(name));
}

static const struct {
	const char *key; /* with what stands in front of the value */
	void (*put)(struct text *t, const struct line *l);
} fields[] = {
#define FIELD(name, type, help) { "\"" #name "\":", field_##name },
#include "tables/flow_field.def"
};

void flow_log_write(struct flow_log *log, const struct flow *f, enum end_reason why, enum end_side side)
{
	char bytes[FLOW_LOG_LINE_MAX];
	struct text t = text_fixed(bytes, sizeof(bytes));
	struct line line = {
		.flow = f,
		.host = log->writer->host,
		.why = why,
		.side = side,
		.now = f->env->loop.now,
		.wall = clock_wall(),
		.udp = f->rule->rule->protocol == PROTOCOL_UDP,
	};

	if (!log->writer->path)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		text_put(&t, i ? "," : "{", 1);
		text_str(&t, fields[i].key);
		fields[i].put(&t, &line);
	}
	text_put(&t, "}\n", 2);
	ASSERT(t.ok); /* every field is bounded, and FLOW_LOG_LINE_MAX is their sum */
	if (ring_write(&log->ring, bytes, t.length))
		log->written = true;
	else
		env_count(f->env, COUNTER_LOG_LINES_DROPPED);
}

void flow_log_flush(struct flow_log *log)
{
	struct flow_log_writer *w = log->writer;

	if (!log->written)
		return;
	log->written = false;
	atomic_thread_fence(memory_order_seq_cst); /* the ring's head before the look at asleep */
	if (atomic_load_explicit(&w->asleep, memory_order_relaxed) && atomic_exchange(&w->asleep, false) &&
		write(w->wake_fd, &(uint64_t){ 1 }, sizeof(uint64_t)) < 0)
		ASSERT(errno == EAGAIN || errno == EINTR);
}

/* --- the writer's side --- */

static int open_file(struct flow_log_writer *w)
{
	bool standard_output = strcmp(w->path, "-") == 0;
	int fd;

	/* opened anew, because O_NONBLOCK on the old description would hit everyone who shares our standard output */
	fd = open(standard_output ? "/proc/self/fd/1" : w->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK,
		0640);
	if (fd < 0 && standard_output)
		fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? fault(-errno) : fd;
}

static void complain(struct flow_log_writer *w, const char *doing, int error)
{
	unsigned int suppressed;

	if (log_allowed(&w->complaint, clock_now(), &suppressed))
		log_error("flow log: %s %s: %s; lines are being lost", doing, w->path, strerror(error));
}

static void reopen(struct flow_log_writer *w)
{
	int fd = open_file(w);

	if (fd < 0) {
		complain(w, "opening", -fd);
		return; /* the old file goes on */
	}
	close(w->fd);
	w->fd = fd;
}

static uint64_t count_lines(const uint8_t *bytes, size_t length)
{
	uint64_t lines = 0;

	for (size_t i = 0; i < length; i++)
		lines += bytes[i] == '\n';
	return lines;
}

/* Waits until the writer is woken, for at most @ms; a pipe that is full wakes it when there is room. */
static void wait_for(struct flow_log_writer *w, bool for_room, int ms)
{
	struct pollfd fds[] = {
		{ .fd = w->wake_fd, .events = POLLIN },
		{ .fd = for_room ? w->fd : -1, .events = POLLOUT },
	};
	uint64_t count;

	if (poll(fds, ARRAY_SIZE(fds), ms) > 0 && fds[0].revents && read(w->wake_fd, &count, sizeof(count)) < 0)
		ASSERT(errno == EAGAIN || errno == EINTR);
}

/* Where a partly written line goes on: rings hold whole lines, but a write may end inside one. */
struct progress {
	bool blocked;	  /* the file takes nothing now */
	size_t line_from; /* the ring whose line was cut by a short write, or SIZE_MAX */
	size_t cut_bytes; /* how much of that line is in the file */
};

/* @bytes went into the file: do they end inside a line? */
static void note_cut_line(struct progress *p, size_t index, const uint8_t *bytes, size_t length)
{
	const uint8_t *newline = memrchr(bytes, '\n', length);
	size_t tail = newline ? (size_t)(bytes + length - newline - 1) : length;

	p->cut_bytes = newline ? tail : p->cut_bytes + tail;
	p->line_from = p->cut_bytes ? index : SIZE_MAX;
}

/* The rest of a line can't be written: a file is shortened by its beginning, so that it holds whole lines only. */
static void take_back_cut_line(struct flow_log_writer *w, struct progress *p)
{
	struct stat st;

	if (p->cut_bytes && fstat(w->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)p->cut_bytes &&
		ftruncate(w->fd, st.st_size - (off_t)p->cut_bytes) == 0)
		p->cut_bytes = 0;
}

/* Writes what one ring holds. Return: whether anything was taken out of it. */
static bool drain_ring(struct flow_log_writer *w, size_t index, struct progress *p)
{
	struct ring *ring = &w->logs[index].ring;
	const uint8_t *bytes;
	size_t length = ring_peek(ring, &bytes);
	ssize_t n;

	if (length == 0)
		return false;
	n = write(w->fd, bytes, length);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		p->blocked = true;
		return false;
	}
	if (n < 0) {
		/* a full disk: drop, so that the newest lines are there when it has room again */
		complain(w, "writing to", errno);
		take_back_cut_line(w, p);
		counter_add(&w->lines_lost, count_lines(bytes, length));
		ring_skip(ring, length);
		p->blocked = true;
		p->line_from = SIZE_MAX;
		p->cut_bytes = 0;
		return true;
	}
	note_cut_line(p, index, bytes, (size_t)n);
	p->blocked = (size_t)n < length;
	ring_skip(ring, (size_t)n);
	return true;
}

static bool drain_all(struct flow_log_writer *w, struct progress *p)
{
	bool any = false;

	p->blocked = false;
	/* the rest of a line goes out before anything of another ring */
	while (p->line_from != SIZE_MAX && !p->blocked && drain_ring(w, p->line_from, p))
		any = true;
	for (size_t i = 0; i < w->workers && !p->blocked && p->line_from == SIZE_MAX; i++)
		while (!p->blocked && drain_ring(w, i, p))
			any = true;
	return any;
}

static void *writer_main(void *arg)
{
	struct flow_log_writer *w = arg;
	struct progress p = { .line_from = SIZE_MAX };
	nsec_t give_up = 0;

	pthread_setname_np(pthread_self(), "flow-log");
	for (;;) {
		bool stop = atomic_load(&w->stop);
		bool any;

		if (atomic_exchange(&w->reopen, false))
			reopen(w);
		any = drain_all(w, &p);
		if (stop && !any && !p.blocked)
			return NULL;
		if (stop && give_up == 0)
			give_up = clock_now() + CLOSE_WAIT_MS * NSEC_PER_MSEC;
		if (stop && clock_now() >= give_up)
			return NULL;
		if (p.blocked) {
			wait_for(w, true, RETRY_MS);
			continue;
		}
		if (any) {
			wait_for(w, false, stop ? 0 : GATHER_MS);
			continue;
		}
		atomic_store(&w->asleep, true);
		atomic_thread_fence(memory_order_seq_cst); /* asleep before the look at the rings' heads */
		if (!drain_all(w, &p) && !atomic_load(&w->stop) && !atomic_load(&w->reopen) && !p.blocked)
			wait_for(w, false, -1);
		atomic_store(&w->asleep, false);
	}
}

int flow_log_open(struct flow_log_writer *w, const char *path, unsigned int workers)
{
	int r;

	*w = (struct flow_log_writer){ .path = path, .fd = -1, .wake_fd = -1 };
	if (gethostname(w->host, sizeof(w->host) - 1) < 0)
		memcpy(w->host, "node", sizeof("node"));
	w->logs = aligned_alloc(64, workers * sizeof(*w->logs)); /* rings keep their ends in cache lines of their own */
	if (!w->logs)
		return fault(-ENOMEM);
	memset(w->logs, 0, workers * sizeof(*w->logs));
	for (; w->workers < workers; w->workers++) {
		w->logs[w->workers].writer = w;
		r = ring_init(&w->logs[w->workers].ring, FLOW_LOG_RING_SIZE);
		if (r)
			return r;
	}
	if (!path)
		return 0;
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->wake_fd < 0)
		return fault(-errno);
	w->fd = open_file(w);
	return w->fd < 0 ? w->fd : 0;
}

int flow_log_start(struct flow_log_writer *w)
{
	int r;

	if (!w->path)
		return 0;
	r = pthread_create(&w->thread, NULL, writer_main, w);
	w->running = r == 0;
	return r ? fault(-r) : 0;
}

static void wake(struct flow_log_writer *w)
{
	if (write(w->wake_fd, &(uint64_t){ 1 }, sizeof(uint64_t)) < 0)
		ASSERT(errno == EAGAIN || errno == EINTR);
}

void flow_log_reopen(struct flow_log_writer *w)
{
	if (!w->running)
		return;
	atomic_store(&w->reopen, true);
	wake(w);
}

void flow_log_close(struct flow_log_writer *w)
{
	if (w->running) {
		atomic_store(&w->stop, true);
		wake(w);
		pthread_join(w->thread, NULL);
		w->running = false;
	}
	for (unsigned int i = 0; i < w->workers; i++)
		ring_deinit(&w->logs[i].ring);
	free(w->logs);
	w->logs = NULL;
	w->workers = 0;
	if (w->fd >= 0)
		close(w->fd);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	w->fd = w->wake_fd = -1;
}
