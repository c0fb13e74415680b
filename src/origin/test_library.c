/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "origin/tidegate-origin.h"
#include "wire/proxy.h"
#include "wire/spp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct addr addr_of(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, strlen(text), 0, &a), 0);
	return a;
}

static void assert_text(const union tgo_addr *addr, const char *expected)
{
	char text[TGO_TEXT_SIZE];

	assert_string_equal(tgo_format(addr, text), expected);
}

/* --- edges --- */

static void test_lists_of_edges(void **state)
{
	static const struct {
		const char *text;
		int result;
	} cases[] = {
		{ "192.0.2.0/24", 0 },
		{ " 192.0.2.0/24,2001:db8::/32\n10.0.0.1, ", 0 },
		{ "::/0", 0 },
		{ "", -ENOENT },
		{ " , \n", -ENOENT },
		{ "192.0.2.1/24", -EINVAL },
		{ "192.0.2.0/33", -EINVAL },
		{ "edge.example", -EINVAL },
		{ "192.0.2.0/24;10.0.0.1", -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct tgo_edges *e = NULL;

		assert_int_equal(tgo_edges_new(cases[i].text, &e), cases[i].result);
		assert_int_equal(e != NULL, cases[i].result == 0);
		tgo_edges_free(e);
	}
}

static void test_the_list_of_edges_is_limited(void **state)
{
	static char text[4097 * 8 + 1];
	struct tgo_edges *e;

	(void)state;
	for (size_t i = 0; i < 4097; i++)
		memcpy(text + i * 8, "1.2.3.4 ", 8);
	assert_int_equal(tgo_edges_new(text, &e), -E2BIG);
	text[4096 * 8] = 0;
	assert_int_equal(tgo_edges_new(text, &e), 0);
	tgo_edges_free(e);
}

static int has(const struct tgo_edges *e, const char *text)
{
	struct addr a = addr_of(text);
	union sockaddr_any sa = { 0 };
	socklen_t length = addr_to_sockaddr(&a, &sa);

	return tgo_edges_has(e, &sa.sa, length);
}

static void test_who_is_an_edge(void **state)
{
	union sockaddr_any mapped = { .in6 = { .sin6_family = AF_INET6 } };
	struct sockaddr unix_socket = { .sa_family = AF_UNIX };
	struct tgo_edges *e;

	(void)state;
	assert_int_equal(tgo_edges_new("192.0.2.0/24,::/0", &e), 0);
	assert_int_equal(has(e, "192.0.2.255:1"), 1);
	assert_int_equal(has(e, "192.0.3.0:1"), 0);
	assert_int_equal(has(e, "[2001:db8::1]:1"), 1);
	inet_pton(AF_INET6, "::ffff:192.0.2.7", &mapped.in6.sin6_addr);
	assert_int_equal(tgo_edges_has(e, &mapped.sa, sizeof(mapped.in6)), 1);
	inet_pton(AF_INET6, "::ffff:192.0.3.7", &mapped.in6.sin6_addr);
	assert_int_equal(tgo_edges_has(e, &mapped.sa, sizeof(mapped.in6)), 0);
	assert_int_equal(tgo_edges_has(e, &mapped.sa, sizeof(mapped.in)), 0);
	assert_int_equal(tgo_edges_has(e, &mapped.sa, 2), 0);
	assert_int_equal(tgo_edges_has(e, &unix_socket, sizeof(unix_socket)), 0);
	tgo_edges_free(e);
}

/* --- streams --- */

struct stream {
	int near, far;
};

static struct stream stream_open(void)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	return (struct stream){ fds[0], fds[1] };
}

static void stream_close(struct stream *s)
{
	close(s->near);
	if (s->far >= 0)
		close(s->far);
}

static size_t header_bytes(int version, uint8_t out[static PROXY_V1_MAX])
{
	struct addr client = addr_of("203.0.113.7:40000"), edge = addr_of("198.51.100.2:443");

	return (size_t)(version == 1 ? proxy_v1_encode(&client, &edge, out)
				     : proxy_v2_encode(PROXY_STREAM, &client, &edge, out));
}

static void assert_next(int fd, const char *expected)
{
	char bytes[64] = "";

	assert_int_equal(recv(fd, bytes, sizeof(bytes) - 1, MSG_DONTWAIT), strlen(expected));
	assert_string_equal(bytes, expected);
}

static void assert_header(const struct tgo_header *h, int version, size_t length)
{
	assert_int_equal(h->format, version == 1 ? TGO_PROXY_V1 : TGO_PROXY_V2);
	assert_int_equal(h->length, length);
	assert_int_equal(h->type, SOCK_STREAM);
	assert_text(&h->client, "203.0.113.7:40000");
	assert_text(&h->edge, "198.51.100.2:443");
}

static void test_a_header_is_taken_and_not_a_byte_more(void **state)
{
	(void)state;
	for (int version = 1; version <= 2; version++) {
		for (int waits = 0; waits < 2; waits++) {
			struct stream s = stream_open();
			struct timespec deadline = tgo_deadline(5000);
			uint8_t bytes[PROXY_V1_MAX];
			size_t n = header_bytes(version, bytes);
			struct tgo_header h;

			assert_int_equal(write(s.far, bytes, n), n);
			assert_int_equal(write(s.far, "PROXY hello", 11), 11);
			assert_int_equal(tgo_proxy_read(s.near, waits ? &deadline : NULL, &h), 0);
			assert_header(&h, version, n);
			assert_next(s.near, "PROXY hello");
			stream_close(&s);
		}
	}
}

static void test_a_look_takes_nothing_before_the_header_is_whole(void **state)
{
	(void)state;
	for (int version = 1; version <= 2; version++) {
		struct stream s = stream_open();
		uint8_t bytes[PROXY_V1_MAX];
		size_t n = header_bytes(version, bytes);
		struct tgo_header h = { .length = 4711 };

		for (size_t i = 0; i < n; i++) {
			assert_int_equal(tgo_proxy_read(s.near, NULL, &h), -EAGAIN);
			assert_int_equal(h.length, 4711);
			assert_int_equal(write(s.far, bytes + i, 1), 1);
		}
		assert_int_equal(tgo_proxy_read(s.near, NULL, &h), 0);
		assert_header(&h, version, n);
		stream_close(&s);
	}
}

static void *write_slowly(void *far)
{
	uint8_t bytes[PROXY_V1_MAX];
	size_t n = header_bytes(1, bytes);

	for (size_t i = 0; i < n; i++) {
		if (write(*(int *)far, bytes + i, 1) != 1)
			return NULL;
		sched_yield();
	}
	return write(*(int *)far, "tail", 4) == 4 ? far : NULL;
}

static void test_a_header_may_come_byte_by_byte(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) {
		struct stream s = stream_open();
		struct timespec deadline = tgo_deadline(5000);
		struct tgo_header h;
		pthread_t thread;
		void *done;

		assert_int_equal(pthread_create(&thread, NULL, write_slowly, &s.far), 0);
		assert_int_equal(tgo_proxy_read(s.near, &deadline, &h), 0);
		assert_text(&h.client, "203.0.113.7:40000");
		assert_int_equal(pthread_join(thread, &done), 0);
		assert_non_null(done);
		assert_next(s.near, "tail");
		stream_close(&s);
	}
}

static void test_what_is_missing_is_waited_for_until_the_deadline(void **state)
{
	uint8_t bytes[PROXY_V1_MAX];
	size_t n = header_bytes(2, bytes);

	(void)state;
	for (size_t i = 0; i < n; i += 9) {
		struct stream s = stream_open();
		struct timespec soon = tgo_deadline(5), past = tgo_deadline(0);
		struct tgo_header h;

		assert_int_equal(write(s.far, bytes, i), i);
		assert_int_equal(tgo_proxy_read(s.near, &soon, &h), -ETIMEDOUT);
		assert_int_equal(tgo_proxy_read(s.near, &past, &h), -ETIMEDOUT);
		stream_close(&s);
	}
}

static void test_streams_that_end_early(void **state)
{
	uint8_t bytes[PROXY_V1_MAX];
	size_t n = header_bytes(1, bytes);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		struct stream s = stream_open();
		struct timespec deadline = tgo_deadline(5000);
		struct tgo_header h;

		assert_int_equal(write(s.far, bytes, i), i);
		close(s.far);
		s.far = -1;
		assert_int_equal(tgo_proxy_read(s.near, NULL, &h), TGO_E_CLOSED);
		assert_int_equal(tgo_proxy_read(s.near, &deadline, &h), TGO_E_CLOSED);
		stream_close(&s);
	}
}

static void test_what_is_no_header_is_refused_and_stays(void **state)
{
	static const char *const texts[] = { "GET / HTTP/1.0\r\n", "PROXY TCP5 ", "\r\n\r\n", "\x16\x03\x01",
		"PROXY TCP4 1.2.3.4 x" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct stream s = stream_open();
		struct timespec deadline = tgo_deadline(5000);
		struct tgo_header h;

		assert_int_equal(write(s.far, texts[i], strlen(texts[i])), strlen(texts[i]));
		if (strcmp(texts[i], "\r\n\r\n") == 0) { /* the beginning of version 2 */
			assert_int_equal(tgo_proxy_read(s.near, NULL, &h), -EAGAIN);
		} else {
			assert_int_equal(tgo_proxy_read(s.near, &deadline, &h), TGO_E_BAD);
			assert_next(s.near, texts[i]);
		}
		stream_close(&s);
	}
	struct tgo_header h;

	assert_int_equal(tgo_proxy_read(-1, NULL, &h), -EBADF);
}

static void test_proxies_that_speak_for_themselves(void **state)
{
	static const char local[16] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", unknown[] = "PROXY UNKNOWN ffff::1\r\n";
	struct stream s = stream_open();
	struct tgo_header h;

	(void)state;
	assert_int_equal(write(s.far, local, 16), 16);
	assert_int_equal(write(s.far, unknown, strlen(unknown)), strlen(unknown));
	assert_int_equal(tgo_proxy_read(s.near, NULL, &h), 0);
	assert_int_equal(h.client.sa.sa_family, AF_UNSPEC);
	assert_int_equal(h.type, 0);
	assert_text(&h.client, "-");
	assert_int_equal(tgo_proxy_read(s.near, NULL, &h), 0);
	assert_int_equal(h.format, TGO_PROXY_V1);
	assert_int_equal(h.client.sa.sa_family, AF_UNSPEC);
	stream_close(&s);
}

static void test_the_longest_header(void **state)
{
	static uint8_t bytes[TGO_PROXY_HEADER_MAX + 1] = "\r\n\r\n\0\r\nQUIT\n\x20";
	struct timespec deadline = tgo_deadline(5000);
	struct stream s = stream_open();
	struct tgo_header h;

	(void)state;
	bytes[14] = (TGO_PROXY_HEADER_MAX - 16) >> 8;
	bytes[15] = (TGO_PROXY_HEADER_MAX - 16) & 255;
	bytes[TGO_PROXY_HEADER_MAX] = 'x';
	assert_int_equal(write(s.far, bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(tgo_proxy_read(s.near, &deadline, &h), 0);
	assert_int_equal(h.length, TGO_PROXY_HEADER_MAX);
	assert_next(s.near, "x");
	bytes[15]++;
	assert_int_equal(write(s.far, bytes, sizeof(bytes)), sizeof(bytes));
	assert_int_equal(tgo_proxy_read(s.near, &deadline, &h), TGO_E_BAD);
	stream_close(&s);
}

/* --- datagrams --- */

static void test_datagrams_and_their_answers(void **state)
{
	static const char *const pairs[][2] = {
		{ "203.0.113.7:40000", "198.51.100.2:443" },
		{ "[2001:db8::7]:1", "[2001:db8::2]:65535" },
		{ "203.0.113.7:40000", "[2001:db8::2]:443" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct addr client = addr_of(pairs[i][0]), edge = addr_of(pairs[i][1]);
		uint8_t bytes[100] = { 0 }, answer[TGO_ANSWER_MAX];
		struct tgo_header h;
		int n;

		spp_encode(&client, &edge, bytes);
		assert_int_equal(tgo_datagram(bytes, SPP_SIZE + 3, TGO_SPP, &h), 0);
		assert_int_equal(h.length, SPP_SIZE);
		assert_text(&h.client, pairs[i][0]);
		assert_text(&h.edge, pairs[i][1]);
		assert_int_equal(tgo_answer(&h, answer), SPP_SIZE);
		assert_memory_equal(answer, bytes, SPP_SIZE);
		for (size_t cut = 0; cut < SPP_SIZE; cut++)
			assert_int_equal(tgo_datagram(bytes, cut, TGO_SPP, &h), TGO_E_BAD);
		assert_int_equal(tgo_datagram(bytes, SPP_SIZE, TGO_PROXY_V2, &h), TGO_E_BAD);

		n = proxy_v2_encode(PROXY_DGRAM, &client, &edge, bytes);
		assert_int_equal(tgo_datagram(bytes, (size_t)n, TGO_PROXY_V2, &h), 0);
		assert_int_equal(h.length, n);
		assert_int_equal(h.type, SOCK_DGRAM);
		assert_text(&h.client, pairs[i][0]);
		assert_int_equal(tgo_answer(&h, answer), 0);
		for (size_t cut = 0; cut < (size_t)n; cut++)
			assert_int_equal(tgo_datagram(bytes, cut, TGO_PROXY_V2, &h), TGO_E_BAD);
		assert_int_equal(tgo_datagram(bytes, (size_t)n, TGO_SPP, &h), TGO_E_BAD);
		assert_int_equal(tgo_datagram(bytes, (size_t)n, TGO_PROXY_V1, &h), -EINVAL);
		assert_int_equal(tgo_datagram(bytes, (size_t)n, TGO_SPP | TGO_PROXY_V2, &h), -EINVAL);
	}
}

static void test_peers_that_are_no_tcp(void **state)
{
	struct stream s = stream_open();
	struct tgo_peer peer;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	(void)state;
	assert_int_equal(tgo_peer(s.near, NULL, &peer), -EAFNOSUPPORT);
	assert_int_equal(tgo_peer(fd, NULL, &peer), -ENOTCONN);
	assert_int_equal(tgo_peer(-1, NULL, &peer), -EBADF);
	assert_int_equal(tgo_save_syn(s.near), -EOPNOTSUPP);
	close(fd);
	stream_close(&s);
}

static void test_errors_have_texts(void **state)
{
	static const int errors[] = { 0, TGO_E_BAD, TGO_E_CLOSED, -ETIMEDOUT, EPERM, -4711, 1 << 30 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		assert_true(strlen(tgo_strerror(errors[i])) > 0);
	assert_int_equal(tgo_version(), 0x100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists_of_edges),
		cmocka_unit_test(test_the_list_of_edges_is_limited),
		cmocka_unit_test(test_who_is_an_edge),
		cmocka_unit_test(test_a_header_is_taken_and_not_a_byte_more),
		cmocka_unit_test(test_a_look_takes_nothing_before_the_header_is_whole),
		cmocka_unit_test(test_a_header_may_come_byte_by_byte),
		cmocka_unit_test(test_what_is_missing_is_waited_for_until_the_deadline),
		cmocka_unit_test(test_streams_that_end_early),
		cmocka_unit_test(test_what_is_no_header_is_refused_and_stays),
		cmocka_unit_test(test_proxies_that_speak_for_themselves),
		cmocka_unit_test(test_the_longest_header),
		cmocka_unit_test(test_datagrams_and_their_answers),
		cmocka_unit_test(test_peers_that_are_no_tcp),
		cmocka_unit_test(test_errors_have_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
