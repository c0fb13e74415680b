/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/spp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MAPPED	  "\0\0\0\0\0\0\0\0\0\0\xff\xff"
#define DB8(last) "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0" last

static const struct {
	const char *client;
	const char *edge;
	const char *bytes;
} cases[] = {
	{ "192.0.2.1:40000", "198.51.100.2:443",
		"\x56\xec" MAPPED "\xc0\x00\x02\x01" MAPPED "\xc6\x33\x64\x02\x9c\x40\x01\xbb" },
	{ "[2001:db8::1]:40000", "[2001:db8::2]:443", "\x56\xec" DB8("\x01") DB8("\x02") "\x9c\x40\x01\xbb" },
	{ "192.0.2.1:1", "[2001:db8::2]:2", "\x56\xec" MAPPED "\xc0\x00\x02\x01" DB8("\x02") "\x00\x01\x00\x02" },
	{ "0.0.0.0:0", "255.255.255.255:65535", "\x56\xec" MAPPED "\0\0\0\0" MAPPED "\xff\xff\xff\xff\0\0\xff\xff" },
	{ "[::]:0", "[::1]:65535",
		"\x56\xec\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
		"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\xff\xff" },
};

static struct addr addr_of(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, strlen(text), 0, &a), 0);
	return a;
}

static void test_headers_have_these_exact_bytes(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr client = addr_of(cases[i].client), edge = addr_of(cases[i].edge);
		uint8_t out[SPP_SIZE];

		spp_encode(&client, &edge, out);
		assert_memory_equal(out, cases[i].bytes, SPP_SIZE);
	}
}

static void test_headers_decode_with_and_without_a_payload(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr client = addr_of(cases[i].client), edge = addr_of(cases[i].edge);
		uint8_t datagram[SPP_SIZE + 3] = { 0 };

		memcpy(datagram, cases[i].bytes, SPP_SIZE);
		for (size_t n = SPP_SIZE; n <= sizeof(datagram); n++) {
			struct addr got_client, got_edge;

			assert_int_equal(spp_decode(datagram, n, &got_client, &got_edge), SPP_OK);
			assert_true(addr_equal(&got_client, &client));
			assert_true(addr_equal(&got_edge, &edge));
		}
	}
}

static void assert_refused(const uint8_t *bytes, size_t length, int outcome)
{
	struct addr client = addr_of("192.0.2.9:9"), edge = client, before = client;
	uint8_t *copy = malloc(length ? length : 1); /* of its own size: a read behind the end is noticed */

	assert_non_null(copy);
	memcpy(copy, bytes, length);
	assert_int_equal(spp_decode(copy, length, &client, &edge), outcome);
	assert_true(addr_equal(&client, &before) && addr_equal(&edge, &before));
	free(copy);
}

static void test_a_datagram_shorter_than_the_header_is_short(void **state)
{
	static const uint8_t other[SPP_SIZE] = { 0 };

	(void)state;
	for (size_t n = 0; n < SPP_SIZE; n++) {
		assert_refused((const uint8_t *)cases[0].bytes, n, SPP_E_SHORT);
		assert_refused(other, n, SPP_E_SHORT);
	}
}

static void test_another_magic_is_refused(void **state)
{
	static const uint8_t magics[][2] = { { 0x00, 0x00 }, { 0xec, 0x56 }, { 0x56, 0xed }, { 0x57, 0xec },
		{ 0x56, 0x00 }, { 0xff, 0xff } };
	uint8_t bytes[SPP_SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
		memcpy(bytes, cases[0].bytes, SPP_SIZE);
		memcpy(bytes, magics[i], sizeof(magics[i]));
		assert_refused(bytes, sizeof(bytes), SPP_E_MAGIC);
	}
}

static void test_a_scope_does_not_travel(void **state)
{
	struct addr client = addr_of("[fe80::1]:1"), edge = addr_of("[fe80::2]:2"), got_client, got_edge;
	uint8_t out[SPP_SIZE];

	(void)state;
	client.scope_id = 7;
	edge.scope_id = 8;
	spp_encode(&client, &edge, out);
	assert_int_equal(spp_decode(out, sizeof(out), &got_client, &got_edge), SPP_OK);
	assert_int_equal(got_client.scope_id, 0);
	assert_int_equal(got_edge.scope_id, 0);
	assert_true(ip_equal(&got_client.ip, &client.ip) && got_client.port == 1);
	assert_true(ip_equal(&got_edge.ip, &edge.ip) && got_edge.port == 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers_have_these_exact_bytes),
		cmocka_unit_test(test_headers_decode_with_and_without_a_payload),
		cmocka_unit_test(test_a_datagram_shorter_than_the_header_is_short),
		cmocka_unit_test(test_another_magic_is_refused),
		cmocka_unit_test(test_a_scope_does_not_travel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
