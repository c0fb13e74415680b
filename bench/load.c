/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench/load - both ends of a measurement: the origin behind a proxy and the clients in front of it.
 *
 * One program, so that the direct path and every proxy meet exactly the same traffic.  Each client is one
 * thread around one epoll set, runs for a bounded time, checks what it gets back and prints one JSON line.
 * What went wrong is counted in that line, never repaired in silence: "errors" is 0 in a good run, and for
 * UDP so is "lost".  The exit status says only whether there is a line to read.
 *
 *   origin   --port P [--address A] [--threads N]
 *   tcp-bulk --to ADDR:PORT --streams N --bytes B --direction up|down [--limit-s S] [--seconds S]
 *   tcp-rr   --to ADDR:PORT --connections N --seconds S [--warm-s S]
 *   tcp-crr  --to ADDR:PORT --concurrency N --seconds S
 *   tcp-idle --to ADDR:PORT --connections N
 *   udp-rr   --to ADDR:PORT --flows N --bytes B --seconds S [--window W] [--warm-s S]
 *   udp-new  --to ADDR:PORT --concurrency N --seconds S
 *
 * Each client prints {"measuring": true} on a line of its own when the measured part begins: when it has connected
 * and the warming up is over.  tcp-idle prints its result once all connections have had an answer, and holds them
 * until its standard input ends.  tcp-bulk with --seconds (down only) stops in the middle of its bytes when they are
 * over.  SIGUSR1 makes tcp-rr begin another part of its latencies ("parts" of its result lists them), and SIGTERM
 * makes it end as if --seconds were over.
 *
 * What the first byte of a TCP connection asks of the origin:
 *   'S'  sink: discard all until EOF, answer with one byte (verdict(), below), close
 *   'G'  generate: 8 bytes big-endian count follow; send that many bytes, close
 *   'E'  echo messages of MESSAGE_BYTES
 *   'H'  answer 'Y' if a PROXY v2 header came before, otherwise 'N'
 *   'W'  answer with the origin's port, 2 bytes big-endian
 * A UDP datagram is sent back as it came, without the PROXY v2 header if there was one; one that says "header?" is
 * answered with "yes" or "no".
 *
 * Bulk data is a pattern, byte i = i % PATTERN_PERIOD, and the first and the last byte of every read are
 * compared with it: that costs nothing and notices bytes left out, repeated or exchanged.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	MESSAGE_BYTES = 64,
	PATTERN_PERIOD = 251,	  /* a prime, so that no buffer size is a multiple of it */
	CHUNK_BYTES = 256 * 1024, /* of one read or write of bulk data */
	TURN_CHUNKS = 8,	  /* written to one connection before the others get their turn */
	DATAGRAM_MAX = 2048,
	BATCH = 64, /* datagrams a system call */
	EVENTS = 256,
	UDP_BUFFER_BYTES = 4 * 1024 * 1024,
	THREADS_MAX = 64,
	PARTS_MAX = 4, /* of the latencies of tcp-rr */
};

#define NSEC_PER_SEC  INT64_C(1000000000)
#define NSEC_PER_MSEC INT64_C(1000000)
#define DRAIN_NSEC    (3 * NSEC_PER_SEC)    /* how long a client waits for outstanding answers after --seconds */
#define RESEND_NSEC   (200 * NSEC_PER_MSEC) /* a datagram not answered by then is lost and sent again */
#define CONNECT_SEC   5
#define MB	      1e6

/* ---- small things ---- */

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	fputs("bench-load: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

static int64_t now_nsec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static void *allocate(size_t count, size_t bytes)
{
	void *p = calloc(count, bytes);

	if (!p)
		die("out of memory");
	return p;
}

/* ms for epoll_wait() until @until, rounded up so that the loop does not spin in the last ms */
static int wait_ms(int64_t until)
{
	int64_t left = until - now_nsec();

	return left <= 0 ? 0 : (int)((left + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

/* Room for one chunk from any position of the pattern. */
static uint8_t *pattern_new(void)
{
	uint8_t *pattern = allocate(1, CHUNK_BYTES + PATTERN_PERIOD);

	for (size_t i = 0; i < CHUNK_BYTES + PATTERN_PERIOD; i++)
		pattern[i] = (uint8_t)(i % PATTERN_PERIOD);
	return pattern;
}

static bool pattern_matches(const uint8_t *data, size_t bytes, uint64_t position)
{
	return data[0] == position % PATTERN_PERIOD && data[bytes - 1] == (position + bytes - 1) % PATTERN_PERIOD;
}

/* The sink's one byte: how much came, as far as a byte can tell, or 255 when it was not the pattern. */
static uint8_t verdict(uint64_t bytes, bool matched)
{
	return matched ? (uint8_t)(bytes % PATTERN_PERIOD) : 255;
}

/* ---- latency histogram: ns, 64 buckets to each power of two, so a quantile is right within 1.6 % ---- */

enum { SUB_BITS = 6, SUB = 1 << SUB_BITS, OCTAVES = 40 };

struct histogram {
	uint64_t count;
	uint64_t bucket[OCTAVES * SUB];
};

static void histogram_add(struct histogram *h, int64_t nsec)
{
	uint64_t v = nsec < 0 ? 0 : (uint64_t)nsec;
	size_t i = v;

	if (v >= SUB) {
		unsigned shift = 63 - SUB_BITS - (unsigned)__builtin_clzll(v);

		i = shift * SUB + (v >> shift);
	}
	if (i >= OCTAVES * SUB)
		i = OCTAVES * SUB - 1;
	h->bucket[i]++;
	h->count++;
}

static void histogram_merge(struct histogram *into, const struct histogram *from)
{
	for (size_t i = 0; i < OCTAVES * SUB; i++)
		into->bucket[i] += from->bucket[i];
	into->count += from->count;
}

static double histogram_quantile_us(const struct histogram *h, double quantile)
{
	uint64_t wanted = (uint64_t)(quantile * (double)h->count), seen = 0;

	for (size_t i = 0; i < OCTAVES * SUB; i++) {
		seen += h->bucket[i];
		if (seen > wanted) {
			unsigned shift = i < SUB ? 0 : (unsigned)(i / SUB - 1);

			return (double)((uint64_t)(i - shift * SUB) << shift) / 1e3;
		}
	}
	return 0;
}

/* ---- command line ---- */

struct options {
	struct sockaddr_storage to;
	socklen_t to_bytes;
	const char *address;
	bool up;
	double seconds, limit_s, warm_s;
	uint64_t port;
	uint64_t threads, streams, connections, concurrency, flows, window, bytes;
};

static void parse_address(const char *host, const char *port, struct options *o)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
	struct addrinfo *found;

	if (getaddrinfo(host, port, &hints, &found) != 0)
		die("%s port %s: expected a numeric address and port", host, port);
	memcpy(&o->to, found->ai_addr, found->ai_addrlen);
	o->to_bytes = found->ai_addrlen;
	freeaddrinfo(found);
}

/* ADDR:PORT or [ADDR]:PORT */
static void parse_target(const char *text, struct options *o)
{
	char host[64];
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;

	if (length == 0 || length >= sizeof(host))
		die("--to %s: expected ADDR:PORT", text);
	if (text[0] == '[' && text[length - 1] == ']') {
		text++;
		length -= 2;
	}
	memcpy(host, text, length);
	host[length] = '\0';
	parse_address(host, colon + 1, o);
}

static double parse_number(const char *name, const char *text, double min, double max)
{
	char *end;
	double value = strtod(text, &end);

	if (*text == '\0' || *end != '\0' || !(value >= min && value <= max))
		die("%s %s: expected a number from %.15g to %.15g", name, text, min, max);
	return value;
}

/* @allowed: the options of this command, each followed by a space */
static void parse_options(char **argv, const char *allowed, struct options *o)
{
	struct {
		const char *name;
		uint64_t *value;
		double min, max;
	} counts[] = {
		{ "--port", &o->port, 1, 65535 },
		{ "--threads", &o->threads, 1, THREADS_MAX },
		{ "--streams", &o->streams, 1, 10000 },
		{ "--connections", &o->connections, 1, 19000 },
		{ "--concurrency", &o->concurrency, 1, 19000 },
		{ "--flows", &o->flows, 1, 19000 },
		{ "--window", &o->window, 1, BATCH },
		{ "--bytes", &o->bytes, 1, 1e15 },
	};

	for (; argv[0]; argv += 2) {
		const char *name = argv[0], *value = argv[1];
		char word[32];
		bool found = false;

		snprintf(word, sizeof(word), "%s ", name);
		if (strncmp(name, "--", 2) != 0 || !strstr(allowed, word))
			die("%s: unknown here; the options of this command are %s", name, allowed);
		if (!value)
			die("%s: expected a value", name);
		for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
			if (strcmp(name, counts[i].name) == 0) {
				*counts[i].value = (uint64_t)parse_number(name, value, counts[i].min, counts[i].max);
				found = true;
			}
		}
		if (found)
			continue;
		if (strcmp(name, "--to") == 0) {
			parse_target(value, o);
		} else if (strcmp(name, "--address") == 0) {
			o->address = value;
		} else if (strcmp(name, "--seconds") == 0) {
			o->seconds = parse_number(name, value, 0.01, 3600);
		} else if (strcmp(name, "--limit-s") == 0) {
			o->limit_s = parse_number(name, value, 0.01, 3600);
		} else if (strcmp(name, "--warm-s") == 0) {
			o->warm_s = parse_number(name, value, 0, 3600);
		} else if (strcmp(name, "--direction") == 0) {
			if (strcmp(value, "up") != 0 && strcmp(value, "down") != 0)
				die("--direction %s: expected up or down", value);
			o->up = strcmp(value, "up") == 0;
		}
	}
}

/* ---- sockets ---- */

static void set_option(int fd, int level, int option, int value)
{
	if (setsockopt(fd, level, option, &value, sizeof(value)) < 0)
		die("socket option %d: %s", option, strerror(errno));
}

/* FORCE needs CAP_NET_ADMIN; without it the kernel's rmem_max is the limit. */
static void set_udp_buffers(int fd)
{
	int bytes = UDP_BUFFER_BYTES;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		set_option(fd, SOL_SOCKET, SO_RCVBUF, bytes);
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		set_option(fd, SOL_SOCKET, SO_SNDBUF, bytes);
}

static int tcp_socket(const struct options *o, int flags)
{
	int fd = socket(o->to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	return fd;
}

/*
 * tcp_connect() - a connection made before the measurement begins
 * Return: a connected socket (used with MSG_DONTWAIT), or -1: the caller counts an error.
 */
static int tcp_connect(const struct options *o)
{
	int fd = tcp_socket(o, 0);
	struct timeval limit = { .tv_sec = CONNECT_SEC };

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (const struct sockaddr *)&o->to, o->to_bytes) < 0) {
		fprintf(stderr, "bench-load: connect: %s\n", strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

static int epoll_new(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0)
		die("epoll_create1: %s", strerror(errno));
	return epoll;
}

static void epoll_set(int epoll, int operation, int fd, uint32_t events, void *object)
{
	struct epoll_event event = { .events = events, .data.ptr = object };

	if (epoll_ctl(epoll, operation, fd, &event) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

static int epoll_next(int epoll, struct epoll_event events[static EVENTS], int timeout_ms)
{
	int n = epoll_wait(epoll, events, EVENTS, timeout_ms);

	if (n < 0 && errno != EINTR)
		die("epoll_wait: %s", strerror(errno));
	return n < 0 ? 0 : n;
}

/* An answer that has not come yet is not an error. */
static bool is_wait(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

/* BATCH datagrams of up to DATAGRAM_MAX bytes for one recvmmsg() or sendmmsg() */
struct batch {
	struct mmsghdr message[BATCH];
	struct iovec vector[BATCH];
	struct sockaddr_storage peer[BATCH];
	uint8_t data[BATCH][DATAGRAM_MAX];
};

static struct batch *batch_new(bool with_peer)
{
	struct batch *b = allocate(1, sizeof(*b));

	for (size_t i = 0; i < BATCH; i++) {
		b->vector[i] = (struct iovec){ .iov_base = b->data[i], .iov_len = DATAGRAM_MAX };
		b->message[i].msg_hdr.msg_iov = &b->vector[i];
		b->message[i].msg_hdr.msg_iovlen = 1;
		if (with_peer) {
			b->message[i].msg_hdr.msg_name = &b->peer[i];
			b->message[i].msg_hdr.msg_namelen = sizeof(b->peer[i]);
		}
	}
	return b;
}

/* ---- origin ---- */

enum conn_mode { CONN_NEW, CONN_SINK, CONN_COUNT, CONN_GENERATE, CONN_ECHO };

struct conn {
	int fd;
	enum conn_mode mode;
	bool matched;	     /* sink: all of it was the pattern */
	bool header;	     /* a PROXY v2 header came first */
	uint32_t held_bytes; /* echo: the beginning of a message; count: of the count */
	uint8_t held[MESSAGE_BYTES];
	uint64_t position; /* sink: bytes received; generate: bytes sent */
	uint64_t count;	   /* generate: bytes wanted */
};

/* One thread of the origin. */
struct origin {
	int epoll, listener, udp, signals;
	uint16_t port; /* big-endian */
	uint8_t *buffer;
	uint8_t *pattern;
	struct batch *batch;
	/* what it did, printed at the end */
	uint64_t connections, datagrams;
	uint64_t headers;	    /* of PROXY v2 */
	uint64_t bad_first_bytes;   /* none that asks for anything, nor a whole header */
	uint64_t short_echoes;	    /* an answer did not fit into the socket: no client here lets that happen */
	uint64_t truncated, unsent; /* datagrams */
};

static void origin_close(struct conn *c)
{
	close(c->fd);
	free(c);
}

static void origin_generate(struct origin *o, struct conn *c)
{
	for (int i = 0; i < TURN_CHUNKS; i++) {
		uint64_t left = c->count - c->position;
		size_t wanted = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
		ssize_t n;

		if (left == 0) {
			origin_close(c);
			return;
		}
		n = send(c->fd, o->pattern + c->position % PATTERN_PERIOD, wanted, MSG_NOSIGNAL);
		if (is_wait(n))
			return;
		if (n < 0) {
			origin_close(c);
			return;
		}
		c->position += (uint64_t)n;
		if ((size_t)n < wanted)
			return;
	}
}

/* @bytes: of whole and begun messages at o->buffer + @skip */
static void origin_echo(struct origin *o, struct conn *c, size_t skip, size_t bytes)
{
	size_t whole = bytes / MESSAGE_BYTES * MESSAGE_BYTES;

	if (whole > 0 && send(c->fd, o->buffer + skip, whole, MSG_NOSIGNAL) != (ssize_t)whole) {
		o->short_echoes++;
		origin_close(c);
		return;
	}
	c->held_bytes = (uint32_t)(bytes - whole);
	memcpy(c->held, o->buffer + skip + whole, c->held_bytes);
}

static void origin_eof(struct conn *c)
{
	if (c->mode == CONN_SINK) {
		uint8_t answer = verdict(c->position, c->matched);

		/* one byte into an empty socket fits; if the client is gone already, it counts the error */
		(void)!send(c->fd, &answer, 1, MSG_NOSIGNAL);
	}
	if (c->mode == CONN_ECHO) {
		struct linger reset = { .l_onoff = 1, .l_linger = 0 };

		/*
		 * Whoever closed has had its answers.  A FIN would leave TIME_WAIT with it, and a proxy that
		 * passes on its client's reset as a FIN would run out of ports towards the one origin within
		 * a second.
		 */
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	}
	origin_close(c);
}

/*
 * proxy_header() - the PROXY v2 header that @data may begin with
 * Return: its length, 0 if there is none, -EAGAIN if it is not whole, -EPROTO if it is not one of IPv4 or IPv6.
 */
static int proxy_header(const uint8_t *data, size_t bytes)
{
	static const uint8_t signature[12] = "\r\n\r\n\0\r\nQUIT\n";
	int total;

	if (bytes == 0 || data[0] != signature[0])
		return 0;
	if (memcmp(data, signature, bytes < sizeof(signature) ? bytes : sizeof(signature)) != 0)
		return -EPROTO;
	if (bytes < 16)
		return -EAGAIN;
	total = 16 + data[14] * 256 + data[15];
	if (data[12] != 0x21 || data[13] < 0x11 || data[13] > 0x22 || total < 28 || total > MESSAGE_BYTES)
		return -EPROTO;
	return bytes < (size_t)total ? -EAGAIN : total;
}

/* Return: of @bytes in o->buffer, those before the first byte that asks for something, or all of them. */
static size_t origin_skip_header(struct origin *o, struct conn *c, size_t bytes)
{
	int n = proxy_header(o->buffer, bytes);

	if (n == -EAGAIN) {
		c->held_bytes = (uint32_t)bytes; /* less than MESSAGE_BYTES */
		memcpy(c->held, o->buffer, bytes);
		return bytes;
	}
	if (n <= 0)
		return 0; /* a wrong header is no first byte either */
	c->header = true;
	c->held_bytes = 0;
	o->headers++;
	return (size_t)n;
}

/* @bytes: up to 2; they always fit into an empty socket */
static void origin_answer(struct conn *c, const void *answer, size_t bytes)
{
	(void)!send(c->fd, answer, bytes, MSG_NOSIGNAL);
	c->mode = CONN_ECHO; /* nothing more is expected, and it ends in the same way */
}

static void origin_readable(struct origin *o, struct conn *c)
{
	size_t skip = 0, bytes = c->held_bytes;
	ssize_t n;

	memcpy(o->buffer, c->held, c->held_bytes);
	n = recv(c->fd, o->buffer + bytes, CHUNK_BYTES - bytes, 0);
	if (is_wait(n))
		return;
	if (n <= 0) {
		if (n == 0)
			origin_eof(c);
		else
			origin_close(c);
		return;
	}
	bytes += (size_t)n;
	if (c->mode == CONN_NEW) {
		uint8_t first;

		skip = c->header ? 0 : origin_skip_header(o, c, bytes);
		bytes -= skip;
		if (bytes == 0)
			return;
		first = o->buffer[skip++];
		bytes--;
		if (first == 'H') {
			origin_answer(c, c->header ? "Y" : "N", 1);
			return;
		}
		if (first == 'W') {
			origin_answer(c, &o->port, sizeof(o->port));
			return;
		}
		c->mode = first == 'S' ? CONN_SINK : first == 'G' ? CONN_COUNT : first == 'E' ? CONN_ECHO : CONN_NEW;
	}
	switch (c->mode) {
	case CONN_NEW:
		o->bad_first_bytes++;
		origin_close(c);
		break;
	case CONN_SINK:
		if (bytes > 0 && !pattern_matches(o->buffer + skip, bytes, c->position))
			c->matched = false;
		c->position += bytes;
		break;
	case CONN_COUNT:
		if (bytes >= sizeof(uint64_t)) {
			uint64_t count;

			memcpy(&count, o->buffer + skip, sizeof(count));
			c->count = be64toh(count);
			c->mode = CONN_GENERATE;
			epoll_set(o->epoll, EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
			origin_generate(o, c);
		} else {
			c->held_bytes = (uint32_t)bytes;
			memcpy(c->held, o->buffer + skip, bytes);
		}
		break;
	case CONN_ECHO:
		origin_echo(o, c, skip, bytes);
		break;
	case CONN_GENERATE:
		break; /* not polled for reading */
	}
}

static void origin_accept(struct origin *o)
{
	for (;;) {
		int fd = accept4(o->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct conn *c;

		if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
			continue;
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0)
			die("accept: %s", strerror(errno));
		set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		c = allocate(1, sizeof(*c));
		c->fd = fd;
		c->matched = true;
		o->connections++;
		epoll_set(o->epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
	}
}

static void origin_datagrams(struct origin *o)
{
	static const char question[] = "header?";
	static char yes[] = "yes", no[] = "no";
	struct batch *b = o->batch;
	int n, sent = 0;

	for (int i = 0; i < BATCH; i++) {
		b->vector[i] = (struct iovec){ .iov_base = b->data[i], .iov_len = DATAGRAM_MAX };
		b->message[i].msg_hdr.msg_namelen = sizeof(b->peer[i]);
	}
	n = recvmmsg(o->udp, b->message, BATCH, MSG_DONTWAIT, NULL);
	if (n < 0)
		return; /* nothing there, or an ICMP error about an earlier answer, which the client misses */
	for (int i = 0; i < n; i++) {
		struct iovec *v = &b->vector[i];
		int header = proxy_header(b->data[i], b->message[i].msg_len);

		v->iov_len = b->message[i].msg_len;
		if (header > 0) {
			v->iov_base = b->data[i] + header;
			v->iov_len -= (size_t)header;
			o->headers++;
		}
		if (v->iov_len == sizeof(question) - 1 && memcmp(v->iov_base, question, v->iov_len) == 0)
			*v = (struct iovec){ .iov_base = header > 0 ? yes : no, .iov_len = header > 0 ? 3 : 2 };
		if (b->message[i].msg_hdr.msg_flags & MSG_TRUNC)
			o->truncated++;
	}
	o->datagrams += (uint64_t)n;
	while (sent < n) {
		int done = sendmmsg(o->udp, b->message + sent, (unsigned)(n - sent), MSG_DONTWAIT);

		if (done < 0) {
			o->unsent++;
			done = 1;
		}
		sent += done;
	}
}

static void *origin_run(void *object)
{
	struct origin *o = object;
	struct epoll_event events[EVENTS];

	for (;;) {
		int n = epoll_next(o->epoll, events, -1);

		for (int i = 0; i < n; i++) {
			void *at = events[i].data.ptr;

			if (at == &o->signals)
				return NULL; /* left unread, so that every thread sees it */
			if (at == &o->listener)
				origin_accept(o);
			else if (at == &o->udp)
				origin_datagrams(o);
			else if (((struct conn *)at)->mode == CONN_GENERATE)
				origin_generate(o, at);
			else
				origin_readable(o, at);
		}
	}
}

static int origin_socket(const struct options *o, int type)
{
	int fd = socket(o->to.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, type == SOCK_STREAM);
	set_option(fd, SOL_SOCKET, SO_REUSEPORT, o->threads > 1);
	if (bind(fd, (const struct sockaddr *)&o->to, o->to_bytes) < 0)
		die("bind to port %" PRIu64 ": %s", o->port, strerror(errno));
	if (type == SOCK_DGRAM)
		set_udp_buffers(fd);
	else if (listen(fd, 4096) < 0)
		die("listen: %s", strerror(errno));
	return fd;
}

static int command_origin(struct options *o)
{
	struct origin *origins = allocate(o->threads, sizeof(*origins));
	struct origin sum = { 0 };
	pthread_t thread[THREADS_MAX];
	char port[24];
	sigset_t ends;
	int signals;

	if (o->port == 0)
		die("expected --port");
	snprintf(port, sizeof(port), "%" PRIu64, o->port);
	parse_address(o->address, port, o);
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	signals = signalfd(-1, &ends, SFD_CLOEXEC);
	if (signals < 0)
		die("signalfd: %s", strerror(errno));

	for (size_t i = 0; i < o->threads; i++) {
		struct origin *at = &origins[i];

		at->epoll = epoll_new();
		at->listener = origin_socket(o, SOCK_STREAM);
		at->udp = origin_socket(o, SOCK_DGRAM);
		at->signals = signals;
		at->port = htobe16((uint16_t)o->port);
		at->buffer = allocate(1, CHUNK_BYTES);
		at->pattern = pattern_new();
		at->batch = batch_new(true);
		epoll_set(at->epoll, EPOLL_CTL_ADD, at->listener, EPOLLIN, &at->listener);
		epoll_set(at->epoll, EPOLL_CTL_ADD, at->udp, EPOLLIN, &at->udp);
		epoll_set(at->epoll, EPOLL_CTL_ADD, at->signals, EPOLLIN, &at->signals);
	}
	for (size_t i = 1; i < o->threads; i++)
		if (pthread_create(&thread[i], NULL, origin_run, &origins[i]) != 0)
			die("cannot start a thread");
	origin_run(&origins[0]);
	for (size_t i = 1; i < o->threads; i++)
		pthread_join(thread[i], NULL);

	for (size_t i = 0; i < o->threads; i++) {
		sum.connections += origins[i].connections;
		sum.datagrams += origins[i].datagrams;
		sum.headers += origins[i].headers;
		sum.bad_first_bytes += origins[i].bad_first_bytes;
		sum.short_echoes += origins[i].short_echoes;
		sum.truncated += origins[i].truncated;
		sum.unsent += origins[i].unsent;
	}
	printf("{\"command\": \"origin\", \"connections\": %" PRIu64 ", \"datagrams\": %" PRIu64
	       ", \"headers\": %" PRIu64 ", \"bad_first_bytes\": %" PRIu64 ", \"short_echoes\": %" PRIu64
	       ", \"truncated\": %" PRIu64 ", \"unsent\": %" PRIu64 "}\n",
		sum.connections, sum.datagrams, sum.headers, sum.bad_first_bytes, sum.short_echoes, sum.truncated,
		sum.unsent);
	return 0;
}

static double cpu_s_before; /* the measured part */

static double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Tells who started this client that the measured part begins. */
static void print_measuring(void)
{
	cpu_s_before = cpu_s();
	puts("{\"measuring\": true}");
	fflush(stdout);
}

/* ---- tcp-bulk ---- */

enum stream_state { STREAM_SEND, STREAM_VERDICT, STREAM_RECEIVE, STREAM_DONE, STREAM_FAILED };

struct stream {
	int fd;
	enum stream_state state;
	bool answered; /* up: the verdict came, EOF is next */
	uint64_t position;
};

/* The buffers of a tcp-bulk run, and what all streams add to. */
struct bulk {
	const struct options *options;
	int epoll;
	uint8_t *buffer;
	uint8_t *pattern;
	uint64_t open, errors, bytes;
};

static void bulk_end(struct bulk *b, struct stream *s, const char *error)
{
	if (error) {
		fprintf(stderr, "bench-load: stream at byte %" PRIu64 ": %s\n", s->position, error);
		b->errors++;
	}
	s->state = error ? STREAM_FAILED : STREAM_DONE;
	close(s->fd);
	b->open--;
}

static void bulk_send(struct bulk *b, struct stream *s)
{
	for (int i = 0; i < TURN_CHUNKS; i++) {
		uint64_t left = b->options->bytes - s->position;
		size_t wanted = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
		ssize_t n = send(s->fd, b->pattern + s->position % PATTERN_PERIOD, wanted, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (is_wait(n))
			return;
		if (n < 0) {
			bulk_end(b, s, strerror(errno));
			return;
		}
		s->position += (uint64_t)n;
		b->bytes += (uint64_t)n;
		if (s->position == b->options->bytes) {
			s->state = STREAM_VERDICT;
			shutdown(s->fd, SHUT_WR);
			epoll_set(b->epoll, EPOLL_CTL_MOD, s->fd, EPOLLIN, s);
			return;
		}
		if ((size_t)n < wanted)
			return;
	}
}

static void bulk_verdict(struct bulk *b, struct stream *s)
{
	uint8_t answer[2];
	ssize_t n = recv(s->fd, answer, sizeof(answer), MSG_DONTWAIT);

	if (is_wait(n))
		return;
	if (n < 0)
		bulk_end(b, s, strerror(errno));
	else if (n == 0)
		bulk_end(b, s, s->answered ? NULL : "EOF before the origin's answer");
	else if (n > 1 || s->answered)
		bulk_end(b, s, "the origin's answer is longer than a byte");
	else if (answer[0] != verdict(s->position, true))
		bulk_end(b, s,
			answer[0] == 255 ? "the origin got other bytes" : "the origin got another number of bytes");
	else
		s->answered = true;
}

static void bulk_receive(struct bulk *b, struct stream *s)
{
	ssize_t n = recv(s->fd, b->buffer, CHUNK_BYTES, MSG_DONTWAIT);

	if (is_wait(n))
		return;
	if (n < 0) {
		bulk_end(b, s, strerror(errno));
	} else if (n == 0) {
		bulk_end(b, s, s->position == b->options->bytes ? NULL : "EOF too early");
	} else if (!pattern_matches(b->buffer, (size_t)n, s->position)) {
		bulk_end(b, s, "other bytes than the origin sent");
	} else {
		s->position += (uint64_t)n;
		b->bytes += (uint64_t)n;
		if (s->position > b->options->bytes)
			bulk_end(b, s, "more bytes than asked for");
	}
}

static int command_tcp_bulk(struct options *o)
{
	struct stream *streams = allocate(o->streams, sizeof(*streams));
	struct bulk b = {
		.options = o, .epoll = epoll_new(), .buffer = allocate(1, CHUNK_BYTES), .pattern = pattern_new()
	};
	struct epoll_event events[EVENTS];
	int64_t start, end, limit;

	for (size_t i = 0; i < o->streams; i++) {
		struct stream *s = &streams[i];

		s->fd = tcp_connect(o);
		s->state = s->fd < 0 ? STREAM_FAILED : o->up ? STREAM_SEND : STREAM_RECEIVE;
		if (s->fd < 0)
			b.errors++;
		else
			b.open++;
	}
	print_measuring();
	start = now_nsec();
	limit = start + (int64_t)((o->seconds > 0 ? o->seconds : o->limit_s) * 1e9);
	for (size_t i = 0; i < o->streams; i++) {
		struct stream *s = &streams[i];
		uint64_t count = htobe64(o->bytes);
		uint8_t ask[1 + sizeof(count)] = { o->up ? 'S' : 'G' };
		size_t ask_bytes = o->up ? 1 : sizeof(ask);

		if (s->state == STREAM_FAILED)
			continue;
		memcpy(ask + 1, &count, sizeof(count));
		epoll_set(b.epoll, EPOLL_CTL_ADD, s->fd, o->up ? EPOLLOUT : EPOLLIN, s);
		if (send(s->fd, ask, ask_bytes, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)ask_bytes)
			bulk_end(&b, s, "the first bytes could not be sent");
	}
	while (b.open > 0 && now_nsec() < limit) {
		int n = epoll_next(b.epoll, events, wait_ms(limit));

		for (int i = 0; i < n; i++) {
			struct stream *s = events[i].data.ptr;

			switch (s->state) {
			case STREAM_SEND:
				bulk_send(&b, s);
				break;
			case STREAM_VERDICT:
				bulk_verdict(&b, s);
				break;
			case STREAM_RECEIVE:
				bulk_receive(&b, s);
				break;
			case STREAM_DONE:
			case STREAM_FAILED:
				break; /* closed, so not polled */
			}
		}
	}
	end = now_nsec();
	for (size_t i = 0; i < o->streams; i++)
		if (streams[i].state < STREAM_DONE)
			bulk_end(&b, &streams[i], o->seconds > 0 ? NULL : "not finished within --limit-s");
	printf("{\"command\": \"tcp-bulk\", \"direction\": \"%s\", \"streams\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"seconds\": %.6f, \"mb_per_s\": %.1f, \"errors\": %" PRIu64 ", \"cpu_s\": %.6f}\n",
		o->up ? "up" : "down", o->streams, b.bytes, (double)(end - start) / 1e9,
		(double)b.bytes / MB / ((double)(end - start) / 1e9), b.errors, cpu_s() - cpu_s_before);
	return 0;
}

/* ---- request and response: what tcp-rr, tcp-crr and udp-rr count ---- */

struct tally {
	uint64_t done, errors;
	int64_t start, last; /* time of the first request and of the last answer */
	int64_t warm_until;  /* answers before that do not count; 0 when the measured part has begun */
	struct histogram *latency;
};

static void tally_begin(struct tally *t, int64_t now)
{
	t->warm_until = 0;
	t->start = t->last = now;
	print_measuring();
}

static struct tally tally_new(double warm_s)
{
	struct tally t = { .latency = allocate(1, sizeof(*t.latency)), .start = now_nsec() };

	t.last = t.start;
	if (warm_s > 0)
		t.warm_until = t.start + (int64_t)(warm_s * 1e9);
	else
		tally_begin(&t, t.start);
	return t;
}

static void tally_add(struct tally *t, int64_t sent_at, int64_t now)
{
	if (t->warm_until != 0) {
		t->last = now;
		if (now < t->warm_until)
			return;
		tally_begin(t, now);
	}
	t->done++;
	t->last = now;
	histogram_add(t->latency, now - sent_at);
}

static void tally_print(const struct tally *t, const char *command, const char *what, const char *more)
{
	double seconds = (double)(t->last - t->start) / 1e9;

	printf("{\"command\": \"%s\", \"%s\": %" PRIu64 ", \"seconds\": %.6f, \"per_s\": %.1f, \"errors\": %" PRIu64
	       "%s, \"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_s\": %.6f}\n",
		command, what, t->done, seconds, seconds > 0 ? (double)t->done / seconds : 0, t->errors, more,
		histogram_quantile_us(t->latency, 0.50), histogram_quantile_us(t->latency, 0.99),
		cpu_s() - cpu_s_before);
}

/* A request differs from every other in the run, so that an answer meant for another one is noticed. */
static void message_fill(uint8_t message[static MESSAGE_BYTES], uint64_t who, uint64_t sequence)
{
	memcpy(message, &who, sizeof(who));
	memcpy(message + sizeof(who), &sequence, sizeof(sequence));
	memset(message + sizeof(who) + sizeof(sequence), (int)(sequence & 0xff),
		MESSAGE_BYTES - sizeof(who) - sizeof(sequence));
}

/* A connection of tcp-rr or tcp-crr; one request at a time. */
struct asker {
	int fd;		/* -1: tcp-rr: failed, for good; tcp-crr: to be opened from retry_at on */
	bool waiting;	/* a request is out */
	bool connected; /* tcp-crr */
	uint64_t sequence;
	int64_t sent_at;
	int64_t retry_at; /* a ms after an error, so that a refusing proxy makes no spin */
	size_t received_bytes;
	uint8_t ask[1 + MESSAGE_BYTES];	   /* 'E' and the message */
	uint8_t answer[MESSAGE_BYTES + 1]; /* one more, to notice an answer that is too long */
};

static void asker_fail(struct asker *a, struct tally *t, const char *error)
{
	if (t->errors++ < 10)
		fprintf(stderr, "bench-load: connection: %s\n", error);
	close(a->fd);
	a->fd = -1;
	a->waiting = false;
	a->retry_at = now_nsec() + NSEC_PER_MSEC;
}

/* @first: the connection's first request carries the 'E' */
static bool asker_send(struct asker *a, struct tally *t, uint64_t who, bool first)
{
	const uint8_t *from = first ? a->ask : a->ask + 1;
	size_t bytes = first ? sizeof(a->ask) : MESSAGE_BYTES;

	a->ask[0] = 'E';
	message_fill(a->ask + 1, who, ++a->sequence);
	a->received_bytes = 0;
	a->waiting = true;
	if (send(a->fd, from, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)bytes)
		return true;
	asker_fail(a, t, "a request could not be sent whole");
	return false;
}

/* Return: true when the whole right answer is there, which is then counted; an error ends the connection. */
static bool asker_receive(struct asker *a, struct tally *t)
{
	ssize_t n = recv(a->fd, a->answer + a->received_bytes, sizeof(a->answer) - a->received_bytes, MSG_DONTWAIT);

	if (is_wait(n))
		return false;
	if (n <= 0) {
		asker_fail(a, t, n == 0 ? "EOF" : strerror(errno));
		return false;
	}
	a->received_bytes += (size_t)n;
	if (!a->waiting || a->received_bytes > MESSAGE_BYTES) {
		asker_fail(a, t, "bytes that nobody asked for");
		return false;
	}
	if (a->received_bytes < MESSAGE_BYTES)
		return false;
	if (memcmp(a->answer, a->ask + 1, MESSAGE_BYTES) != 0) {
		asker_fail(a, t, "another answer than the one expected");
		return false;
	}
	a->waiting = false;
	tally_add(t, a->sent_at, now_nsec());
	return true;
}

static volatile sig_atomic_t part_wanted; /* of tcp-rr's latencies: how many SIGUSR1 have come */
static volatile sig_atomic_t stop_wanted;

static void rr_signal(int number)
{
	if (number == SIGUSR1)
		part_wanted++;
	else
		stop_wanted = 1;
}

static int command_tcp_rr(struct options *o)
{
	struct asker *askers = allocate(o->connections, sizeof(*askers));
	struct histogram *parts = allocate(PARTS_MAX, sizeof(*parts)), *whole;
	struct sigaction action = { .sa_handler = rr_signal };
	struct epoll_event events[EVENTS];
	char more[64 * PARTS_MAX + 32];
	int used, epoll = epoll_new();
	uint64_t waiting = 0, failed = 0;
	struct tally t;
	int64_t end;

	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	for (size_t i = 0; i < o->connections; i++) {
		askers[i].fd = tcp_connect(o);
		if (askers[i].fd < 0)
			failed++;
		else
			epoll_set(epoll, EPOLL_CTL_ADD, askers[i].fd, EPOLLIN, &askers[i]);
	}
	t = tally_new(o->warm_s);
	t.errors = failed;
	whole = t.latency;
	t.latency = parts;
	end = t.start + (int64_t)((o->warm_s + o->seconds) * 1e9);
	for (size_t i = 0; i < o->connections; i++) {
		askers[i].sent_at = now_nsec();
		if (askers[i].fd >= 0 && asker_send(&askers[i], &t, i, true))
			waiting++;
	}
	/* what is out when the time is over still gets its answer */
	while (waiting > 0 && now_nsec() < end + DRAIN_NSEC) {
		int n = epoll_next(epoll, events, wait_ms(end + DRAIN_NSEC));

		if (stop_wanted && t.last < end)
			end = t.last;
		t.latency = &parts[part_wanted < PARTS_MAX ? part_wanted : PARTS_MAX - 1];
		for (int i = 0; i < n; i++) {
			struct asker *a = events[i].data.ptr;
			bool was_waiting = a->waiting;

			if (asker_receive(a, &t) && t.last < end) {
				a->sent_at = t.last;
				asker_send(a, &t, (uint64_t)(a - askers), false);
			}
			waiting += (uint64_t)a->waiting - (uint64_t)was_waiting;
		}
	}
	for (size_t i = 0; i < o->connections; i++)
		if (askers[i].waiting)
			asker_fail(&askers[i], &t, "no answer");
	used = snprintf(more, sizeof(more), ", \"parts\": [");
	for (int i = 0; i < PARTS_MAX && i <= part_wanted; i++) {
		histogram_merge(whole, &parts[i]);
		used += snprintf(more + used, sizeof(more) - (size_t)used,
			"%s{\"requests\": %" PRIu64 ", \"p99_us\": %.1f}", i > 0 ? ", " : "", parts[i].count,
			histogram_quantile_us(&parts[i], 0.99));
	}
	snprintf(more + used, sizeof(more) - (size_t)used, "]");
	t.latency = whole;
	tally_print(&t, "tcp-rr", "requests", more);
	return 0;
}

/* ---- tcp-crr ---- */

static void crr_open(const struct options *o, int epoll, struct asker *a, struct tally *t)
{
	a->sent_at = now_nsec();
	a->fd = tcp_socket(o, SOCK_NONBLOCK);
	a->connected = false;
	a->waiting = true;
	a->received_bytes = 0;
	if (connect(a->fd, (const struct sockaddr *)&o->to, o->to_bytes) < 0 && errno != EINPROGRESS)
		asker_fail(a, t, strerror(errno));
	else
		epoll_set(epoll, EPOLL_CTL_ADD, a->fd, EPOLLIN | EPOLLOUT | EPOLLET, a);
}

static void crr_event(struct asker *a, struct tally *t, uint64_t who, uint32_t events)
{
	if (!a->connected) {
		int error = 0;
		socklen_t length = sizeof(error);

		if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
			return;
		getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (error != 0) {
			asker_fail(a, t, strerror(error));
			return;
		}
		a->connected = true;
		asker_send(a, t, who, true);
		return;
	}
	if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) && asker_receive(a, t)) {
		struct linger reset = { .l_onoff = 1, .l_linger = 0 };

		/* the answer is read; a reset leaves no TIME_WAIT behind, so that ports do not run out */
		setsockopt(a->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(a->fd);
		a->fd = -1;
	}
}

static int command_tcp_crr(struct options *o)
{
	struct asker *askers = allocate(o->concurrency, sizeof(*askers));
	struct epoll_event events[EVENTS];
	struct tally t = tally_new(0);
	int epoll = epoll_new();
	int64_t now, end = t.start + (int64_t)(o->seconds * 1e9);
	uint64_t open;

	for (size_t i = 0; i < o->concurrency; i++)
		askers[i].fd = -1;
	do {
		int n;

		now = now_nsec();
		open = 0;
		for (size_t i = 0; i < o->concurrency; i++) {
			if (askers[i].fd < 0 && now < end && now >= askers[i].retry_at)
				crr_open(o, epoll, &askers[i], &t);
			open += askers[i].fd >= 0;
		}
		n = epoll_next(epoll, events, open < o->concurrency ? 1 : wait_ms(end + DRAIN_NSEC));
		for (int i = 0; i < n; i++) {
			struct asker *a = events[i].data.ptr;

			crr_event(a, &t, (uint64_t)(a - askers), events[i].events);
		}
	} while (now < end || (open > 0 && now < end + DRAIN_NSEC));
	for (size_t i = 0; i < o->concurrency; i++)
		if (askers[i].fd >= 0)
			asker_fail(&askers[i], &t, "no answer");
	tally_print(&t, "tcp-crr", "connections", "");
	return 0;
}

/* ---- udp-rr ---- */

/* What a datagram begins with, in the host's byte order: it comes back to this process. */
struct datagram_head {
	uint32_t magic;
	uint32_t flow;
	uint32_t slot;
	uint32_t bytes;
	uint64_t sequence;
};

enum { DATAGRAM_MAGIC = 0x54474c44 };
_Static_assert(sizeof(struct datagram_head) == 24, "no padding");

struct slot {
	bool waiting;
	uint64_t sequence;
	int64_t sent_at; /* first time */
	int64_t resend_at;
};

struct flow {
	int fd;
	struct slot *slots;
};

struct udp {
	const struct options *options;
	struct flow *flows;
	struct tally tally;
	struct batch *in, *out;
	int64_t end;
	uint64_t waiting, lost;
	uint64_t late; /* answers to a request that was sent again and has had its answer */
};

static void udp_error(struct udp *u, const char *error)
{
	if (u->tally.errors++ < 10)
		fprintf(stderr, "bench-load: flow: %s\n", error);
}

/* Put the request of a slot into u->out at @index. */
static void udp_fill(struct udp *u, uint32_t flow, uint32_t slot, int index)
{
	struct datagram_head head = {
		.magic = DATAGRAM_MAGIC,
		.flow = flow,
		.slot = slot,
		.bytes = (uint32_t)u->options->bytes,
		.sequence = u->flows[flow].slots[slot].sequence,
	};

	memcpy(u->out->data[index], &head, sizeof(head));
	u->out->vector[index].iov_len = u->options->bytes;
}

/* The rest of every datagram is the same, and is written once. */
static void udp_fill_rest(struct udp *u)
{
	for (size_t i = 0; i < BATCH; i++)
		for (size_t j = sizeof(struct datagram_head); j < DATAGRAM_MAX; j++)
			u->out->data[i][j] = (uint8_t)(j % PATTERN_PERIOD);
}

static void udp_send(struct udp *u, struct flow *f, int count)
{
	int sent = 0;

	while (sent < count) {
		int n = count == 1 ? (send(f->fd, u->out->data[0], u->options->bytes, MSG_DONTWAIT) < 0 ? -1 : 1)
				   : sendmmsg(f->fd, u->out->message + sent, (unsigned)(count - sent), MSG_DONTWAIT);

		if (n < 0) {
			udp_error(u, strerror(errno)); /* it will also be lost */
			n = 1;
		}
		sent += n;
	}
}

static void slot_next(struct slot *s, int64_t now)
{
	s->waiting = true;
	s->sequence++;
	s->sent_at = now;
	s->resend_at = now + RESEND_NSEC;
}

/* Return: the slot whose request the datagram answers, or NULL: counted as an error or as late. */
static struct slot *udp_check(struct udp *u, uint32_t flow, const uint8_t *data, size_t bytes)
{
	struct datagram_head head;
	struct slot *s;

	if (bytes < sizeof(head) || bytes != u->options->bytes) {
		udp_error(u, "a datagram of another length");
		return NULL;
	}
	memcpy(&head, data, sizeof(head));
	if (head.magic != DATAGRAM_MAGIC || head.bytes != bytes || head.slot >= u->options->window ||
		memcmp(data + sizeof(head), u->out->data[0] + sizeof(head), bytes - sizeof(head)) != 0) {
		udp_error(u, "a datagram of other bytes");
		return NULL;
	}
	if (head.flow != flow) {
		udp_error(u, "an answer for another flow");
		return NULL;
	}
	s = &u->flows[flow].slots[head.slot];
	if (head.sequence > s->sequence) {
		udp_error(u, "an answer to a request not sent yet");
		return NULL;
	}
	if (head.sequence < s->sequence || !s->waiting) {
		u->late++;
		return NULL;
	}
	return s;
}

static void udp_readable(struct udp *u, uint32_t flow)
{
	struct flow *f = &u->flows[flow];
	int64_t now;
	int n, count = 0;

	if (u->options->window == 1) {
		ssize_t bytes = recv(f->fd, u->in->data[0], DATAGRAM_MAX, MSG_DONTWAIT | MSG_TRUNC);

		n = bytes < 0 ? -1 : 1;
		u->in->message[0].msg_len = bytes < 0 ? 0 : (unsigned)bytes;
	} else {
		n = recvmmsg(f->fd, u->in->message, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
	}
	if (is_wait(n))
		return;
	if (n < 0) {
		udp_error(u, strerror(errno));
		return;
	}
	now = now_nsec();
	for (int i = 0; i < n; i++) {
		struct slot *s = udp_check(u, flow, u->in->data[i], u->in->message[i].msg_len);

		if (!s)
			continue;
		tally_add(&u->tally, s->sent_at, now);
		s->waiting = false;
		if (now < u->end) {
			slot_next(s, now);
			udp_fill(u, flow, (uint32_t)(s - f->slots), count++);
		} else {
			u->waiting--;
		}
	}
	udp_send(u, f, count);
}

static void udp_resend(struct udp *u, int64_t now)
{
	for (uint32_t i = 0; i < u->options->flows; i++) {
		int count = 0;

		for (uint32_t j = 0; j < u->options->window; j++) {
			struct slot *s = &u->flows[i].slots[j];

			if (!s->waiting || now < s->resend_at)
				continue;
			u->lost++;
			s->resend_at = now + RESEND_NSEC;
			udp_fill(u, i, j, count++);
		}
		udp_send(u, &u->flows[i], count);
	}
}

static int command_udp_rr(struct options *o)
{
	struct udp u = { .options = o,
		.flows = allocate(o->flows, sizeof(*u.flows)),
		.in = batch_new(false),
		.out = batch_new(false) };
	struct epoll_event events[EVENTS];
	int epoll = epoll_new();
	int64_t scan_at;
	char more[96];

	if (o->bytes < sizeof(struct datagram_head) || o->bytes > DATAGRAM_MAX)
		die("--bytes %" PRIu64 ": expected %zu to %d", o->bytes, sizeof(struct datagram_head), DATAGRAM_MAX);
	udp_fill_rest(&u);
	for (uint32_t i = 0; i < o->flows; i++) {
		struct flow *f = &u.flows[i];

		f->fd = socket(o->to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (f->fd < 0 || connect(f->fd, (const struct sockaddr *)&o->to, o->to_bytes) < 0)
			die("UDP socket: %s", strerror(errno));
		set_udp_buffers(f->fd);
		f->slots = allocate(o->window, sizeof(*f->slots));
		epoll_set(epoll, EPOLL_CTL_ADD, f->fd, EPOLLIN, f);
	}
	u.tally = tally_new(o->warm_s);
	u.end = u.tally.start + (int64_t)((o->warm_s + o->seconds) * 1e9);
	for (uint32_t i = 0; i < o->flows; i++) {
		for (uint32_t j = 0; j < o->window; j++) {
			slot_next(&u.flows[i].slots[j], now_nsec());
			udp_fill(&u, i, j, (int)j);
		}
		udp_send(&u, &u.flows[i], (int)o->window);
		u.waiting += o->window;
	}
	scan_at = now_nsec() + RESEND_NSEC;
	while (u.waiting > 0) {
		int64_t now = now_nsec();
		int n;

		if (now >= u.end + DRAIN_NSEC)
			break;
		if (now >= scan_at) {
			udp_resend(&u, now);
			scan_at = now + RESEND_NSEC / 10;
		}
		n = epoll_next(epoll, events, wait_ms(scan_at));
		for (int i = 0; i < n; i++)
			udp_readable(&u, (uint32_t)((struct flow *)events[i].data.ptr - u.flows));
	}
	for (uint64_t i = 0; i < u.waiting; i++)
		udp_error(&u, "no answer");
	/* beyond the requests sent twice, an answer that came twice was made on the way */
	for (uint64_t i = u.lost; i < u.late; i++)
		udp_error(&u, "an answer came twice");
	snprintf(more, sizeof(more), ", \"lost\": %" PRIu64 ", \"late\": %" PRIu64, u.lost, u.late);
	tally_print(&u.tally, "udp-rr", "requests", more);
	return 0;
}

/* ---- udp-new: a session for each datagram ---- */

struct newcomer {
	int fd; /* -1: to be opened from retry_at on */
	uint64_t sequence;
	int64_t sent_at, resend_at, retry_at;
	uint8_t ask[MESSAGE_BYTES];
};

struct newcomers {
	const struct options *options;
	struct newcomer *all;
	struct tally tally;
	int epoll;
	uint64_t open, lost;
};

static void newcomer_close(struct newcomers *all, struct newcomer *a, const char *error)
{
	if (error && all->tally.errors++ < 10)
		fprintf(stderr, "bench-load: session: %s\n", error);
	a->retry_at = error ? now_nsec() + NSEC_PER_MSEC : 0;
	close(a->fd);
	a->fd = -1;
	all->open--;
}

static void newcomer_send(struct newcomers *all, struct newcomer *a, int64_t now)
{
	a->resend_at = now + RESEND_NSEC;
	if (send(a->fd, a->ask, sizeof(a->ask), MSG_DONTWAIT) < 0)
		newcomer_close(all, a, strerror(errno));
}

static void newcomer_open(struct newcomers *all, struct newcomer *a, int64_t now)
{
	const struct options *o = all->options;

	a->fd = socket(o->to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (a->fd < 0)
		die("socket: %s", strerror(errno));
	all->open++;
	a->sent_at = now;
	message_fill(a->ask, (uint64_t)(a - all->all), ++a->sequence);
	if (connect(a->fd, (const struct sockaddr *)&o->to, o->to_bytes) < 0) {
		newcomer_close(all, a, strerror(errno));
		return;
	}
	epoll_set(all->epoll, EPOLL_CTL_ADD, a->fd, EPOLLIN, a);
	newcomer_send(all, a, now);
}

static void newcomer_readable(struct newcomers *all, struct newcomer *a)
{
	uint8_t answer[MESSAGE_BYTES + 1];
	ssize_t n = a->fd < 0 ? 0 : recv(a->fd, answer, sizeof(answer), MSG_DONTWAIT);

	if (a->fd < 0 || is_wait(n))
		return;
	if (n < 0) {
		newcomer_close(all, a, strerror(errno));
	} else if (n != MESSAGE_BYTES || memcmp(answer, a->ask, MESSAGE_BYTES) != 0) {
		/* a late answer may reach the next one that has the port */
		newcomer_close(all, a, all->lost > 0 ? NULL : "another answer than the one expected");
	} else {
		tally_add(&all->tally, a->sent_at, now_nsec());
		newcomer_close(all, a, NULL);
	}
}

static int command_udp_new(struct options *o)
{
	struct newcomers all = {
		.options = o, .all = allocate(o->concurrency, sizeof(*all.all)), .epoll = epoll_new()
	};
	struct epoll_event events[EVENTS];
	int64_t now, end, scan_at;
	char more[48];

	for (size_t i = 0; i < o->concurrency; i++)
		all.all[i].fd = -1;
	all.tally = tally_new(0);
	end = all.tally.start + (int64_t)(o->seconds * 1e9);
	scan_at = all.tally.start + RESEND_NSEC;
	do {
		int n;

		now = now_nsec();
		for (size_t i = 0; i < o->concurrency; i++) {
			struct newcomer *a = &all.all[i];

			if (a->fd < 0 && now < end && now >= a->retry_at) {
				newcomer_open(&all, a, now);
			} else if (a->fd >= 0 && now >= scan_at && now >= a->resend_at) {
				all.lost++;
				newcomer_send(&all, a, now);
			}
		}
		if (now >= scan_at)
			scan_at = now + RESEND_NSEC / 10;
		n = epoll_next(all.epoll, events, all.open < o->concurrency && now < end ? 1 : wait_ms(scan_at));
		for (int i = 0; i < n; i++)
			newcomer_readable(&all, events[i].data.ptr);
	} while (now < end || (all.open > 0 && now < end + DRAIN_NSEC));
	for (size_t i = 0; i < o->concurrency; i++)
		if (all.all[i].fd >= 0)
			newcomer_close(&all, &all.all[i], "no answer");
	snprintf(more, sizeof(more), ", \"lost\": %" PRIu64, all.lost);
	tally_print(&all.tally, "udp-new", "sessions", more);
	return 0;
}

/* ---- tcp-idle: connections that are held ---- */

static int command_tcp_idle(struct options *o)
{
	struct timeval limit = { .tv_sec = CONNECT_SEC };
	uint64_t open = 0;
	uint8_t rest;

	print_measuring();
	for (uint64_t i = 0; i < o->connections; i++) {
		uint8_t ask[1 + MESSAGE_BYTES] = { 'E' }, answer[MESSAGE_BYTES];
		int fd = tcp_connect(o);

		if (fd < 0)
			continue;
		message_fill(ask + 1, i, 1);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		if (send(fd, ask, sizeof(ask), MSG_NOSIGNAL) == (ssize_t)sizeof(ask) &&
			recv(fd, answer, sizeof(answer), MSG_WAITALL) == (ssize_t)sizeof(answer) &&
			memcmp(answer, ask + 1, sizeof(answer)) == 0)
			open++;
		else
			fprintf(stderr, "bench-load: connection %" PRIu64 ": no right answer\n", i);
	}
	printf("{\"command\": \"tcp-idle\", \"connections\": %" PRIu64 ", \"errors\": %" PRIu64 "}\n", open,
		o->connections - open);
	fflush(stdout);
	while (read(STDIN_FILENO, &rest, 1) > 0)
		;
	return 0;
}

/* ---- main ---- */

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		const char *options;
		int (*run)(struct options *o);
	} commands[] = {
		{ "origin", "--port --address --threads ", command_origin },
		{ "tcp-bulk", "--to --streams --bytes --direction --limit-s --seconds ", command_tcp_bulk },
		{ "tcp-rr", "--to --connections --seconds --warm-s ", command_tcp_rr },
		{ "tcp-crr", "--to --concurrency --seconds ", command_tcp_crr },
		{ "tcp-idle", "--to --connections ", command_tcp_idle },
		{ "udp-rr", "--to --flows --bytes --seconds --window --warm-s ", command_udp_rr },
		{ "udp-new", "--to --concurrency --seconds ", command_udp_new },
	};
	struct options o = {
		.address = "127.0.0.1",
		.threads = 1,
		.streams = 1,
		.connections = 64,
		.concurrency = 16,
		.flows = 64,
		.window = 1,
		.bytes = 64,
		.limit_s = 60,
	};

	if (argc >= 2) {
		for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
			if (strcmp(argv[1], commands[i].name) != 0)
				continue;
			o.seconds = commands[i].run == command_tcp_bulk ? 0 : 2;
			parse_options(argv + 2, commands[i].options, &o);
			if (commands[i].run != command_origin && o.to_bytes == 0)
				die("expected --to ADDR:PORT");
			return commands[i].run(&o);
		}
	}
	die("expected a command: origin, tcp-bulk, tcp-rr, tcp-crr, tcp-idle, udp-rr or udp-new");
}
