/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "wire/proxy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define BYTES(s) .bytes = s, .length = sizeof(s) - 1

/* The fixed bytes of version 2, up to the length. */
#define V2_LOCAL  "\r\n\r\n\0\r\nQUIT\n\x20"
#define V2_PROXY  "\r\n\r\n\0\r\nQUIT\n\x21"
#define INET_PAIR "\xc0\x00\x02\x01\xc6\x33\x64\x02\x9c\x40\x01\xbb" /* 192.0.2.1:40000 198.51.100.2:443 */
#define DB8(last) "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0" last
#define MAPPED	  "\0\0\0\0\0\0\0\0\0\0\xff\xff"
#define ZERO_9	  "\0\0\0\0\0\0\0\0\0"
#define ZERO_36	  ZERO_9 ZERO_9 ZERO_9 ZERO_9
#define ZERO_108  ZERO_36 ZERO_36 ZERO_36

struct addr_pair {
	const char *client;
	const char *edge;
};

static struct addr addr_of(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, strlen(text), 0, &a), 0);
	return a;
}

static void assert_addr(const struct addr *a, const char *text)
{
	char got[ADDR_TEXT_SIZE];

	addr_format(a, got);
	assert_string_equal(got, text);
	assert_int_equal(a->zero, 0);
}

static void assert_ok(const void *bytes, size_t length, struct proxy_header *ret_header)
{
	const char *why = NULL;
	int outcome = proxy_decode(bytes, length, ret_header, &why);

	if (outcome != PROXY_OK)
		fail_msg("outcome %d at %zu bytes: %s", outcome, length, why ? why : "no reason");
	assert_null(why);
}

/* Asserts the outcome, and that what it does not set is left alone. */
static void assert_refused(const void *bytes, size_t length, int outcome, const char *why)
{
	static const char untouched[] = "untouched";
	struct proxy_header h = { .length = 4711 };
	const char *got = untouched;
	int result = proxy_decode(bytes, length, &h, &got);

	if (result != outcome)
		fail_msg("outcome %d, expected %d, at %zu bytes (%s)", result, outcome, length, got);
	assert_int_equal(h.length, 4711);
	assert_string_equal(got, outcome == PROXY_E_BAD ? why : untouched);
}

/* In memory of its own size, so that a read behind the end is noticed. */
static void assert_every_prefix_asks_for_more(const void *bytes, size_t length)
{
	for (size_t n = 0; n < length; n++) {
		uint8_t *copy = malloc(n ? n : 1);

		assert_non_null(copy);
		memcpy(copy, bytes, n);
		assert_refused(copy, n, PROXY_E_MORE, NULL);
		free(copy);
	}
}

static void test_version_1_lines_have_these_exact_bytes(void **state)
{
	static const struct {
		struct addr_pair pair;
		const char *line;
	} cases[] = {
		{ { "192.0.2.1:40000", "198.51.100.2:443" }, "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n" },
		{ { "255.255.255.255:65535", "255.255.255.255:65535" },
			"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n" },
		{ { "0.0.0.0:0", "0.0.0.0:0" }, "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n" },
		{ { "[2001:DB8:0::1]:40000", "[2001:db8::2]:443" },
			"PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n" },
		{ { "[::]:0", "[::1]:1" }, "PROXY TCP6 :: ::1 0 1\r\n" },
		{ { "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
			  "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535" },
			"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n" },
		{ { "[::ffff:192.0.2.1]:1", "192.0.2.2:2" }, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr client = addr_of(cases[i].pair.client), edge = addr_of(cases[i].pair.edge);
		uint8_t out[PROXY_V1_MAX];
		int n = proxy_v1_encode(&client, &edge, out);

		assert_int_equal(n, strlen(cases[i].line));
		assert_memory_equal(out, cases[i].line, (size_t)n);
	}
}

static void test_version_2_headers_have_these_exact_bytes(void **state)
{
	static const struct {
		enum proxy_transport transport;
		struct addr_pair pair;
		const char *bytes;
		size_t length;
	} cases[] = {
		{ PROXY_STREAM, { "192.0.2.1:40000", "198.51.100.2:443" }, BYTES(V2_PROXY "\x11\x00\x0c" INET_PAIR) },
		{ PROXY_DGRAM, { "192.0.2.1:40000", "198.51.100.2:443" }, BYTES(V2_PROXY "\x12\x00\x0c" INET_PAIR) },
		{ PROXY_STREAM, { "[2001:db8::1]:40000", "[2001:db8::2]:443" },
			BYTES(V2_PROXY "\x21\x00\x24" DB8("\x01") DB8("\x02") "\x9c\x40\x01\xbb") },
		{ PROXY_DGRAM, { "[2001:db8::1]:40000", "[2001:db8::2]:443" },
			BYTES(V2_PROXY "\x22\x00\x24" DB8("\x01") DB8("\x02") "\x9c\x40\x01\xbb") },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr client = addr_of(cases[i].pair.client), edge = addr_of(cases[i].pair.edge);
		uint8_t out[PROXY_V2_MAX];
		int n = proxy_v2_encode(cases[i].transport, &client, &edge, out);

		assert_int_equal(n, cases[i].length);
		assert_memory_equal(out, cases[i].bytes, (size_t)n);
	}
}

static void test_beside_ipv6_an_ipv4_address_is_sent_mapped(void **state)
{
	static const char line[] = "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 40000 443\r\n";
	struct addr v4 = addr_of("192.0.2.1:40000"), v6 = addr_of("[2001:db8::2]:443");
	uint8_t v1[PROXY_V1_MAX], v2[PROXY_V2_MAX];
	struct proxy_header h;

	(void)state;
	assert_int_equal(proxy_v1_encode(&v4, &v6, v1), sizeof(line) - 1);
	assert_memory_equal(v1, line, sizeof(line) - 1);
	assert_int_equal(proxy_v2_encode(PROXY_STREAM, &v4, &v6, v2), 52);
	assert_int_equal(v2[13], 0x21);
	assert_ok(v2, 52, &h);
	assert_true(addr_equal(&h.client, &v4));
	assert_true(addr_equal(&h.edge, &v6));
}

static void assert_round_trip(const struct addr *client, const struct addr *edge)
{
	struct proxy_header h;
	uint8_t out[PROXY_V1_MAX];
	int n = proxy_v1_encode(client, edge, out);

	assert_true(n > 0);
	assert_ok(out, (size_t)n, &h);
	assert_int_equal(h.length, n);
	assert_int_equal(h.version, 1);
	assert_true(h.has_addr && !h.dgram);
	assert_true(addr_equal(&h.client, client) && addr_equal(&h.edge, edge));

	for (enum proxy_transport t = PROXY_STREAM; t <= PROXY_DGRAM; t++) {
		n = proxy_v2_encode(t, client, edge, out);
		assert_true(n > 0);
		assert_ok(out, (size_t)n, &h);
		assert_int_equal(h.length, n);
		assert_int_equal(h.version, 2);
		assert_true(h.has_addr && h.dgram == (t == PROXY_DGRAM));
		assert_true(addr_equal(&h.client, client) && addr_equal(&h.edge, edge));
	}
}

static void test_an_encoded_header_decodes_to_the_same_addresses(void **state)
{
	static const char *const v4[] = { "0.0.0.0:0", "127.0.0.1:9", "192.0.2.200:10000", "255.255.255.255:65535" };
	static const char *const v6[] = { "[::]:0", "[::1]:9", "[fe80::1]:65535", "[2001:db8:0:1:1:1:1:1]:443",
		"[1:2:3:4:5:6:7:0]:1", "[::192.0.2.1]:1", "[64:ff9b::192.0.2.1]:1",
		"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(v4); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(v4); j++) {
			struct addr client = addr_of(v4[i]), edge = addr_of(v4[j]);

			assert_round_trip(&client, &edge);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(v6); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(v6); j++) {
			struct addr client = addr_of(v6[i]), edge = addr_of(v6[j]);

			assert_round_trip(&client, &edge);
		}
	}
}

static void test_a_scope_does_not_travel(void **state)
{
	struct addr client = addr_of("[fe80::1]:1"), edge = addr_of("[fe80::2]:2");
	uint8_t out[PROXY_V1_MAX];
	struct proxy_header h;
	int n;

	(void)state;
	client.scope_id = 7;
	n = proxy_v1_encode(&client, &edge, out);
	assert_true(n > 0);
	assert_ok(out, (size_t)n, &h);
	assert_int_equal(h.client.scope_id, 0);
	n = proxy_v2_encode(PROXY_STREAM, &client, &edge, out);
	assert_true(n > 0);
	assert_ok(out, (size_t)n, &h);
	assert_int_equal(h.client.scope_id, 0);
}

/* Every shape of header that is accepted. No client: the header has no addresses. */
static const struct valid_case {
	const char *name;
	const char *bytes;
	size_t length;
	unsigned int version;
	bool dgram;
	struct addr_pair pair;
} valid_cases[] = {
	{ "v1 TCP4", BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n"), 1, false,
		{ "192.0.2.1:40000", "198.51.100.2:443" } },
	{ "v1 TCP4, smallest", BYTES("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), 1, false, { "0.0.0.0:0", "0.0.0.0:0" } },
	{ "v1 TCP6", BYTES("PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n"), 1, false,
		{ "[2001:db8::1]:40000", "[2001:db8::2]:443" } },
	{ "v1 TCP6, upper case and leading zeros", BYTES("PROXY TCP6 2001:0DB8::000A ::B 1 2\r\n"), 1, false,
		{ "[2001:db8::a]:1", "[::b]:2" } },
	{ "v1 TCP6, longest",
		BYTES("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		      "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		      "65535 65535\r\n"),
		1, false,
		{ "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
			"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535" } },
	{ "v1 TCP6, double colon anywhere", BYTES("PROXY TCP6 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1 2\r\n"), 1, false,
		{ "[1:2:3:4:5:6:7:0]:1", "[0:2:3:4:5:6:7:8]:2" } },
	{ "v1 TCP6, both ends IPv4-mapped", BYTES("PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c633:6402 1 2\r\n"), 1, false,
		{ "192.0.2.1:1", "198.51.100.2:2" } },
	{ "v1 TCP6, client IPv4-mapped", BYTES("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"), 1, false,
		{ "192.0.2.1:1", "[2001:db8::2]:2" } },
	{ "v1 UNKNOWN", BYTES("PROXY UNKNOWN\r\n"), 1, false, { 0 } },
	{ "v1 UNKNOWN with addresses", BYTES("PROXY UNKNOWN ::1 ::2 3 4\r\n"), 1, false, { 0 } },
	{ "v1 UNKNOWN with anything", BYTES("PROXY UNKNOWN  \0\xff\r\r \n\n x\r\r\n"), 1, false, { 0 } },
	{ "v2 TCP over IPv4", BYTES(V2_PROXY "\x11\x00\x0c" INET_PAIR), 2, false,
		{ "192.0.2.1:40000", "198.51.100.2:443" } },
	{ "v2 UDP over IPv4", BYTES(V2_PROXY "\x12\x00\x0c" INET_PAIR), 2, true,
		{ "192.0.2.1:40000", "198.51.100.2:443" } },
	{ "v2 TCP over IPv6", BYTES(V2_PROXY "\x21\x00\x24" DB8("\x01") DB8("\x02") "\x9c\x40\x01\xbb"), 2, false,
		{ "[2001:db8::1]:40000", "[2001:db8::2]:443" } },
	{ "v2 UDP over IPv6", BYTES(V2_PROXY "\x22\x00\x24" DB8("\x01") DB8("\x02") "\x9c\x40\x01\xbb"), 2, true,
		{ "[2001:db8::1]:40000", "[2001:db8::2]:443" } },
	{ "v2 IPv6, both ends IPv4-mapped",
		BYTES(V2_PROXY "\x21\x00\x24" MAPPED "\xc0\x00\x02\x01" MAPPED "\xc6\x33\x64\x02\x00\x01\x00\x02"), 2,
		false, { "192.0.2.1:1", "198.51.100.2:2" } },
	{ "v2 IPv6, edge IPv4-mapped",
		BYTES(V2_PROXY "\x22\x00\x24" DB8("\x01") MAPPED "\xc6\x33\x64\x02\x00\x01\x00\x02"), 2, true,
		{ "[2001:db8::1]:1", "198.51.100.2:2" } },
	{ "v2 UNSPEC", BYTES(V2_PROXY "\x00\x00\x00"), 2, false, { 0 } },
	{ "v2 UNSPEC with a TLV", BYTES(V2_PROXY "\x00\x00\x04\x04\x00\x01x"), 2, false, { 0 } },
	{ "v2 UNIX stream", BYTES(V2_PROXY "\x31\x00\xd8" ZERO_108 ZERO_108), 2, false, { 0 } },
	{ "v2 UNIX datagram", BYTES(V2_PROXY "\x32\x00\xd8" ZERO_108 ZERO_108), 2, false, { 0 } },
	{ "v2 UNIX with a TLV", BYTES(V2_PROXY "\x31\x00\xdb" ZERO_108 ZERO_108 "\x04\x00\x00"), 2, false, { 0 } },
	{ "v2 LOCAL", BYTES(V2_LOCAL "\x00\x00\x00"), 2, false, { 0 } },
	{ "v2 LOCAL with addresses", BYTES(V2_LOCAL "\x11\x00\x0c" INET_PAIR), 2, false, { 0 } },
	{ "v2 LOCAL, family ignored", BYTES(V2_LOCAL "\xff\x00\x00"), 2, false, { 0 } },
	{ "v2 LOCAL, block unread", BYTES(V2_LOCAL "\x21\x00\x05\x03\xff\xff\xff\xff"), 2, false, { 0 } },
	{ "v2 an empty TLV", BYTES(V2_PROXY "\x11\x00\x0f" INET_PAIR "\x04\x00\x00"), 2, false,
		{ "192.0.2.1:40000", "198.51.100.2:443" } },
	{ "v2 three TLVs, one of a type not registered",
		BYTES(V2_PROXY "\x11\x00\x1a" INET_PAIR "\x01\x00\x02h2"
			       "\xe7\x00\x00"
			       "\x02\x00\x03"
			       "a.b"),
		2, false, { "192.0.2.1:40000", "198.51.100.2:443" } },
	{ "v2 checksum", BYTES(V2_PROXY "\x11\x00\x13" INET_PAIR "\x03\x00\x04\x4d\x20\xd6\x09"), 2, false,
		{ "192.0.2.1:40000", "198.51.100.2:443" } },
	{ "v2 checksum before a TLV",
		BYTES(V2_PROXY "\x22\x00\x33" DB8("\x01") DB8("\x02") "\x9c\x40\x01\xbb"
								      "\x03\x00\x04\x68\x8f\xd7\x61"
								      "\x02\x00\x05"
								      "edge1"),
		2, true, { "[2001:db8::1]:40000", "[2001:db8::2]:443" } },
	{ "v2 checksum behind a TLV",
		BYTES(V2_PROXY "\x11\x00\x18" INET_PAIR "\x04\x00\x02\x01\xff\x03\x00\x04\x21\x48\xa3\x8b"), 2, false,
		{ "192.0.2.1:40000", "198.51.100.2:443" } },
	{ "v2 checksum, UNSPEC", BYTES(V2_PROXY "\x00\x00\x07\x03\x00\x04\x3e\xc9\x89\x4e"), 2, false, { 0 } },
};

static void assert_header(const struct proxy_header *h, const struct valid_case *c)
{
	static const struct addr none;

	assert_int_equal(h->length, c->length);
	assert_int_equal(h->version, c->version);
	assert_int_equal(h->dgram, c->dgram);
	assert_int_equal(h->has_addr, c->pair.client != NULL);
	if (h->has_addr) {
		assert_addr(&h->client, c->pair.client);
		assert_addr(&h->edge, c->pair.edge);
	} else {
		assert_true(addr_equal(&h->client, &none) && addr_equal(&h->edge, &none));
	}
}

static void test_every_valid_shape_is_accepted_and_nothing_behind_it_is_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(valid_cases); i++) {
		const struct valid_case *c = &valid_cases[i];
		struct proxy_header h;
		uint8_t longer[512];

		print_message("  %s\n", c->name);
		assert_ok(c->bytes, c->length, &h);
		assert_header(&h, c);
		memset(longer, 0xff, sizeof(longer));
		memcpy(longer, c->bytes, c->length);
		assert_ok(longer, sizeof(longer), &h);
		assert_header(&h, c);
	}
}

static void test_every_prefix_of_a_valid_header_asks_for_more(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(valid_cases); i++) {
		print_message("  %s\n", valid_cases[i].name);
		assert_every_prefix_asks_for_more(valid_cases[i].bytes, valid_cases[i].length);
	}
}

static void test_each_version_is_decoded_alone_too(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(valid_cases); i++) {
		const struct valid_case *c = &valid_cases[i];
		const char *why = NULL;
		struct proxy_header h;

		assert_int_equal(
			proxy_v1_decode(c->bytes, c->length, &h, &why), c->version == 1 ? PROXY_OK : PROXY_E_BAD);
		assert_int_equal(
			proxy_v2_decode(c->bytes, c->length, &h, &why), c->version == 2 ? PROXY_OK : PROXY_E_BAD);
		assert_non_null(why);
		assert_header(&h, c);
	}
}

#define WHY_BEGIN     "PROXY: begins like neither version of the header"
#define WHY_WORD      "PROXY v1: does not begin with \"PROXY \""
#define WHY_PROTOCOL  "PROXY v1: protocol is none of TCP4, TCP6 and UNKNOWN"
#define WHY_CLIENT    "PROXY v1: client is not an address of the family named"
#define WHY_EDGE      "PROXY v1: edge is not an address of the family named"
#define WHY_EMPTY     "PROXY v1: an empty field"
#define WHY_NUMBER    "PROXY v1: port is not a decimal number"
#define WHY_ZERO      "PROXY v1: port with a leading zero"
#define WHY_PORT_MAX  "PROXY v1: port above 65535"
#define WHY_LF	      "PROXY v1: CR without LF"
#define WHY_LINE      "PROXY v1: no CRLF within 107 bytes"
#define WHY_SIGNATURE "PROXY v2: wrong signature"
#define WHY_VERSION   "PROXY v2: version is not 2"
#define WHY_COMMAND   "PROXY v2: command is neither LOCAL nor PROXY"
#define WHY_FAMILY    "PROXY v2: unknown address family or transport"
#define WHY_LENGTH    "PROXY v2: header longer than 4096 bytes"
#define WHY_SHORT     "PROXY v2: address block shorter than its family needs"
#define WHY_TLV_FIRST "PROXY v2: too few bytes for a TLV behind the addresses"
#define WHY_TLV_LAST  "PROXY v2: too few bytes for a TLV behind the last one"
#define WHY_TLV_LONG  "PROXY v2: TLV reaches beyond the header"
#define WHY_CRC_SIZE  "PROXY v2: CRC32C TLV is not 4 bytes long"
#define WHY_CRC_TWICE "PROXY v2: more than one CRC32C TLV"
#define WHY_CRC	      "PROXY v2: CRC32C does not match"

/* Every malformed shape. at: the first wrong byte, counted from 1. */
static const struct bad_case {
	const char *name;
	const char *bytes;
	size_t length;
	size_t at;
	const char *why;
} bad_cases[] = {
	{ "HTTP", BYTES("GET / HTTP/1.1\r\n"), 1, WHY_BEGIN },
	{ "TLS", BYTES("\x16\x03\x01\x02"), 1, WHY_BEGIN },
	{ "a NUL", BYTES("\0"), 1, WHY_BEGIN },
	{ "a blank before PROXY", BYTES(" PROXY UNKNOWN\r\n"), 1, WHY_BEGIN },
	{ "lower case proxy", BYTES("proxy UNKNOWN\r\n"), 1, WHY_BEGIN },
	{ "another word with P", BYTES("POST / HTTP/1.1\r\n"), 2, WHY_WORD },
	{ "mixed case", BYTES("PROXy UNKNOWN\r\n"), 5, WHY_WORD },
	{ "no space after PROXY", BYTES("PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n"), 6, WHY_WORD },
	{ "tab after PROXY", BYTES("PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n"), 6, WHY_WORD },
	{ "PROXY alone", BYTES("PROXY\r\n"), 6, WHY_WORD },

	{ "two spaces after PROXY", BYTES("PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), 7, WHY_PROTOCOL },
	{ "no protocol", BYTES("PROXY \r\n"), 7, WHY_PROTOCOL },
	{ "lower case protocol", BYTES("PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n"), 7, WHY_PROTOCOL },
	{ "UDP4", BYTES("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n"), 8, WHY_PROTOCOL },
	{ "TCP", BYTES("PROXY TCP 1.2.3.4 5.6.7.8 1 2\r\n"), 10, WHY_PROTOCOL },
	{ "TCP5", BYTES("PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n"), 10, WHY_PROTOCOL },
	{ "TCP4 and no more", BYTES("PROXY TCP4\r\n"), 11, WHY_PROTOCOL },
	{ "TCP46", BYTES("PROXY TCP46 1.2.3.4 5.6.7.8 1 2\r\n"), 11, WHY_PROTOCOL },
	{ "a longer word than UNKNOWN", BYTES("PROXY UNKNOWNS\r\n"), 14, WHY_PROTOCOL },
	{ "UNKNOWN and LF", BYTES("PROXY UNKNOWN\n"), 14, WHY_PROTOCOL },
	{ "UNKNOWN, CR without LF", BYTES("PROXY UNKNOWN\rX\n"), 15, WHY_PROTOCOL },

	{ "two spaces before the client", BYTES("PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n"), 12, WHY_EMPTY },
	{ "no client", BYTES("PROXY TCP4 \r\n"), 12, WHY_CLIENT },
	{ "three numbers", BYTES("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"), 17, WHY_CLIENT },
	{ "five numbers", BYTES("PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n"), 19, WHY_CLIENT },
	{ "number above 255", BYTES("PROXY TCP4 1.256.3.4 5.6.7.8 1 2\r\n"), 16, WHY_CLIENT },
	{ "leading zero", BYTES("PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n"), 13, WHY_CLIENT },
	{ "two leading zeros", BYTES("PROXY TCP4 1.2.3.00 5.6.7.8 1 2\r\n"), 19, WHY_CLIENT },
	{ "hexadecimal number", BYTES("PROXY TCP4 0x1.2.3.4 5.6.7.8 1 2\r\n"), 13, WHY_CLIENT },
	{ "two dots", BYTES("PROXY TCP4 1..3.4 5.6.7.8 1 2\r\n"), 14, WHY_CLIENT },
	{ "dot first", BYTES("PROXY TCP4 .2.3.4 5.6.7.8 1 2\r\n"), 12, WHY_CLIENT },
	{ "dot last", BYTES("PROXY TCP4 1.2.3.4. 5.6.7.8 1 2\r\n"), 19, WHY_CLIENT },
	{ "NUL in an address", BYTES("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n"), 19, WHY_CLIENT },
	{ "negative number", BYTES("PROXY TCP4 -1.2.3.4 5.6.7.8 1 2\r\n"), 12, WHY_CLIENT },
	{ "a name", BYTES("PROXY TCP4 localhost 5.6.7.8 1 2\r\n"), 12, WHY_CLIENT },
	{ "tab behind the client", BYTES("PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n"), 19, WHY_CLIENT },
	{ "line ends behind the client", BYTES("PROXY TCP4 1.2.3.4\r\n"), 19, WHY_CLIENT },
	{ "IPv6 client in TCP4", BYTES("PROXY TCP4 ::1 ::2 1 2\r\n"), 12, WHY_CLIENT },
	{ "mapped client in TCP4", BYTES("PROXY TCP4 ::ffff:1.2.3.4 5.6.7.8 1 2\r\n"), 12, WHY_CLIENT },
	{ "address and port in one", BYTES("PROXY TCP4 1.2.3.4:80 5.6.7.8 1 2\r\n"), 19, WHY_CLIENT },
	{ "two spaces before the edge", BYTES("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n"), 20, WHY_EMPTY },
	{ "IPv6 edge in TCP4", BYTES("PROXY TCP4 1.2.3.4 a::1 1 2\r\n"), 20, WHY_EDGE },
	{ "line ends behind the edge", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8\r\n"), 27, WHY_EDGE },

	{ "IPv4 client in TCP6", BYTES("PROXY TCP6 192.0.2.1 ::2 1 2\r\n"), 15, WHY_CLIENT },
	{ "IPv4 edge in TCP6", BYTES("PROXY TCP6 ::1 192.0.2.1 1 2\r\n"), 19, WHY_EDGE },
	{ "brackets", BYTES("PROXY TCP6 [::1] ::2 1 2\r\n"), 12, WHY_CLIENT },
	{ "a scope", BYTES("PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n"), 19, WHY_CLIENT },
	{ "a prefix", BYTES("PROXY TCP6 fe80::/64 ::2 1 2\r\n"), 18, WHY_CLIENT },
	{ "double colon twice", BYTES("PROXY TCP6 1::2::3 ::2 1 2\r\n"), 17, WHY_CLIENT },
	{ "three colons", BYTES("PROXY TCP6 1:::2 ::2 1 2\r\n"), 15, WHY_CLIENT },
	{ "one colon first", BYTES("PROXY TCP6 :1:2:3:4:5:6:7 ::2 1 2\r\n"), 13, WHY_CLIENT },
	{ "one colon last", BYTES("PROXY TCP6 1:2:3:4:5:6:7: ::2 1 2\r\n"), 26, WHY_CLIENT },
	{ "seven groups", BYTES("PROXY TCP6 1:2:3:4:5:6:7 ::2 1 2\r\n"), 25, WHY_CLIENT },
	{ "nine groups", BYTES("PROXY TCP6 1:2:3:4:5:6:7:8:9 ::2 1 2\r\n"), 27, WHY_CLIENT },
	{ "nine groups by double colon", BYTES("PROXY TCP6 1:2:3:4:5:6:7::9 ::2 1 2\r\n"), 27, WHY_CLIENT },
	{ "five digits in a group", BYTES("PROXY TCP6 12345:: ::2 1 2\r\n"), 16, WHY_CLIENT },
	{ "not a hexadecimal digit", BYTES("PROXY TCP6 1:g:: ::2 1 2\r\n"), 14, WHY_CLIENT },
	{ "dotted tail too early", BYTES("PROXY TCP6 1:2:3:4:5:1.2.3.4 ::2 1 2\r\n"), 23, WHY_CLIENT },
	{ "dotted tail with a leading zero", BYTES("PROXY TCP6 ::ffff:1.02.3.4 ::2 1 2\r\n"), 22, WHY_CLIENT },
	{ "longer than 39 characters", BYTES("PROXY TCP6 0000:0000:0000:0000:0000:ffff:255.255.255.255 ::2 1 2\r\n"),
		47, WHY_CLIENT },

	{ "two spaces before the first port", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n"), 28, WHY_EMPTY },
	{ "two spaces before the second port", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1  2\r\n"), 30, WHY_NUMBER },
	{ "one port", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), 29, WHY_NUMBER },
	{ "second port empty", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n"), 30, WHY_EMPTY },
	{ "first port above 65535", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n"), 32, WHY_PORT_MAX },
	{ "second port above 65535", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n"), 34, WHY_PORT_MAX },
	{ "port that overflows", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 4294967297 2\r\n"), 33, WHY_PORT_MAX },
	{ "port with a leading zero", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"), 29, WHY_ZERO },
	{ "port 00", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 00\r\n"), 31, WHY_ZERO },
	{ "port with a plus", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"), 28, WHY_NUMBER },
	{ "port with a minus", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 -2\r\n"), 30, WHY_NUMBER },
	{ "hexadecimal port", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 0x1 2\r\n"), 29, WHY_NUMBER },
	{ "port with a letter", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2x\r\n"), 31, WHY_NUMBER },
	{ "space before CRLF", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"), 31, WHY_NUMBER },
	{ "a field too many", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"), 31, WHY_NUMBER },
	{ "LF alone", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), 31, WHY_NUMBER },
	{ "NUL instead of CRLF", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\0"), 31, WHY_NUMBER },
	{ "CR alone", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rGET"), 32, WHY_LF },
	{ "CR CR LF", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n"), 32, WHY_LF },

	{ "v2 signature of something else", BYTES("\r\n\r\n\r\n"), 5, WHY_SIGNATURE },
	{ "v2 signature with a wrong end", BYTES("\r\n\r\n\0\r\nQUIT\r"), 12, WHY_SIGNATURE },
	{ "v2 version 0", BYTES("\r\n\r\n\0\r\nQUIT\n\x01"), 13, WHY_VERSION },
	{ "v2 version 1", BYTES("\r\n\r\n\0\r\nQUIT\n\x11"), 13, WHY_VERSION },
	{ "v2 version 3", BYTES("\r\n\r\n\0\r\nQUIT\n\x31"), 13, WHY_VERSION },
	{ "v2 command 2", BYTES("\r\n\r\n\0\r\nQUIT\n\x22"), 13, WHY_COMMAND },
	{ "v2 command 15", BYTES("\r\n\r\n\0\r\nQUIT\n\x2f"), 13, WHY_COMMAND },
	{ "v2 transport without a family", BYTES(V2_PROXY "\x01\x00\x00"), 14, WHY_FAMILY },
	{ "v2 family without a transport", BYTES(V2_PROXY "\x10\x00\x0c" INET_PAIR), 14, WHY_FAMILY },
	{ "v2 unknown transport", BYTES(V2_PROXY "\x13\x00\x0c" INET_PAIR), 14, WHY_FAMILY },
	{ "v2 unknown family", BYTES(V2_PROXY "\x41\x00\x0c" INET_PAIR), 14, WHY_FAMILY },
	{ "v2 INET without addresses", BYTES(V2_PROXY "\x11\x00\x00"), 16, WHY_SHORT },
	{ "v2 INET one byte short", BYTES(V2_PROXY "\x12\x00\x0b" INET_PAIR), 16, WHY_SHORT },
	{ "v2 INET6 one byte short", BYTES(V2_PROXY "\x21\x00\x23" DB8("\x01") DB8("\x02") "\0\0\0\0"), 16, WHY_SHORT },
	{ "v2 UNIX one byte short", BYTES(V2_PROXY "\x31\x00\xd7" ZERO_108 ZERO_108), 16, WHY_SHORT },
	{ "v2 LOCAL of 4097 bytes", BYTES(V2_LOCAL "\x00\x0f\xf1"), 16, WHY_LENGTH },
	{ "v2 PROXY of 4112 bytes", BYTES(V2_PROXY "\x11\x10\x00"), 15, WHY_LENGTH },
	{ "v2 length of 65535", BYTES(V2_PROXY "\x11\xff\xff"), 15, WHY_LENGTH },
	{ "v2 one byte behind the addresses", BYTES(V2_PROXY "\x11\x00\x0d" INET_PAIR "\x04"), 16, WHY_TLV_FIRST },
	{ "v2 two bytes behind the addresses", BYTES(V2_PROXY "\x11\x00\x0e" INET_PAIR "\x04\x00"), 16, WHY_TLV_FIRST },
	{ "v2 two bytes of UNSPEC", BYTES(V2_PROXY "\x00\x00\x02\x04\x00"), 16, WHY_TLV_FIRST },
	{ "v2 TLV one byte too long", BYTES(V2_PROXY "\x11\x00\x10" INET_PAIR "\x04\x00\x02xx"), 31, WHY_TLV_LONG },
	{ "v2 TLV of 65535 bytes", BYTES(V2_PROXY "\x11\x00\x10" INET_PAIR "\x04\xff\xffx"), 30, WHY_TLV_LONG },
	{ "v2 second TLV too long", BYTES(V2_PROXY "\x00\x00\x07\x04\x00\x01x\x04\x00\x01"), 23, WHY_TLV_LONG },
	{ "v2 one byte behind a TLV", BYTES(V2_PROXY "\x00\x00\x05\x04\x00\x01xx"), 19, WHY_TLV_LAST },
	{ "v2 two bytes behind a TLV", BYTES(V2_PROXY "\x00\x00\x05\x04\x00\x00xx"), 19, WHY_TLV_LAST },
	{ "v2 checksum of 3 bytes", BYTES(V2_PROXY "\x00\x00\x07\x03\x00\x03\0\0\0\0"), 19, WHY_CRC_SIZE },
	{ "v2 checksum of 5 bytes", BYTES(V2_PROXY "\x00\x00\x0b\x03\x00\x05\0\0\0\0\0\x04\0\0"), 19, WHY_CRC_SIZE },
	{ "v2 checksum that leaves a byte over", BYTES(V2_PROXY "\x00\x00\x08\x03\x00\x04\0\0\0\0x"), 17,
		WHY_TLV_LAST },
	{ "v2 checksum of 260 bytes", BYTES(V2_PROXY "\x00\x00\x07\x03\x01\x04\0\0\0\0"), 18, WHY_CRC_SIZE },
	{ "v2 checksum with no room", BYTES(V2_PROXY "\x00\x00\x06\x03\x00\x04\0\0\0"), 17, WHY_TLV_LONG },
	{ "v2 two checksums", BYTES(V2_PROXY "\x00\x00\x0e\x03\x00\x04\0\0\0\0\x03\x00\x04\0\0\0\0"), 24,
		WHY_CRC_TWICE },
	{ "v2 checksum wrong", BYTES(V2_PROXY "\x00\x00\x07\x03\x00\x04\x3e\xc9\x89\x4f"), 23, WHY_CRC },
	{ "v2 checksum in the other byte order", BYTES(V2_PROXY "\x00\x00\x07\x03\x00\x04\x4e\x89\xc9\x3e"), 23,
		WHY_CRC },
};

static void test_a_malformed_header_is_refused_at_its_first_wrong_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_cases); i++) {
		const struct bad_case *c = &bad_cases[i];

		print_message("  %s\n", c->name);
		assert_every_prefix_asks_for_more(c->bytes, c->at);
		for (size_t n = c->at; n <= c->length; n++)
			assert_refused(c->bytes, n, PROXY_E_BAD, c->why);
	}
}

static void test_only_two_first_bytes_begin_a_header(void **state)
{
	(void)state;
	for (int b = 0; b < 256; b++) {
		uint8_t byte = (uint8_t)b;

		assert_refused(&byte, 1, b == 'P' || b == '\r' ? PROXY_E_MORE : PROXY_E_BAD, WHY_BEGIN);
	}
}

static void test_only_these_commands_and_families_of_version_2_are_known(void **state)
{
	static const uint8_t families[] = { 0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32 };
	uint8_t bytes[] = V2_PROXY "\x11";

	(void)state;
	for (int b = 0; b < 256; b++) {
		bool command = b == 0x20 || b == 0x21;
		bool family = memchr(families, b, sizeof(families)) != NULL;

		bytes[12] = (uint8_t)b;
		assert_refused(
			bytes, 13, command ? PROXY_E_MORE : PROXY_E_BAD, b >> 4 == 2 ? WHY_COMMAND : WHY_VERSION);
		bytes[12] = 0x21;
		bytes[13] = (uint8_t)b;
		assert_refused(bytes, 14, family ? PROXY_E_MORE : PROXY_E_BAD, WHY_FAMILY);
	}
}

static void test_a_version_1_line_has_at_most_107_bytes(void **state)
{
	char line[PROXY_V1_MAX + 1];
	struct proxy_header h;

	(void)state;
	memset(line, 'x', sizeof(line));
	memcpy(line, "PROXY UNKNOWN ", 14);
	memcpy(line + PROXY_V1_MAX - 2, "\r\n", 2);
	assert_ok(line, sizeof(line), &h);
	assert_int_equal(h.length, PROXY_V1_MAX);
	assert_every_prefix_asks_for_more(line, PROXY_V1_MAX);

	memcpy(line + PROXY_V1_MAX - 2, "x\r\n", 3);
	assert_every_prefix_asks_for_more(line, PROXY_V1_MAX - 2);
	assert_refused(line, PROXY_V1_MAX - 1, PROXY_E_BAD, WHY_LINE);
	assert_refused(line, PROXY_V1_MAX, PROXY_E_BAD, WHY_LINE);
	assert_refused(line, PROXY_V1_MAX + 1, PROXY_E_BAD, WHY_LINE);
}

/* A header for TCP over IPv4 with @room bytes for TLVs, the last one of which says to have @tlv bytes. */
static size_t header_with_tlv(uint8_t *out, size_t size, size_t room, size_t tlv)
{
	struct buf_writer w = buf_writer(out, size);

	memset(out, 'x', size);
	buf_put(&w, V2_PROXY "\x11", 14);
	buf_put_be16(&w, (uint16_t)(12 + room));
	buf_put(&w, INET_PAIR, 12);
	buf_put_u8(&w, 0xe0);
	buf_put_be16(&w, (uint16_t)tlv);
	assert_true(w.ok && size >= 28 + room);
	return 28 + room;
}

static void test_a_tlv_ends_where_its_two_length_bytes_say(void **state)
{
	static const size_t sizes[] = { 0, 1, 255, 256, 257, 4065 };
	uint8_t header[PROXY_HEADER_MAX + 16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct proxy_header h;
		size_t n = header_with_tlv(header, sizeof(header), 3 + sizes[i], sizes[i]);

		assert_ok(header, n, &h);
		assert_int_equal(h.length, n);
		assert_every_prefix_asks_for_more(header, n);

		n = header_with_tlv(header, sizeof(header), 3 + sizes[i], sizes[i] + 1);
		assert_refused(header, n, PROXY_E_BAD, WHY_TLV_LONG);
		n = header_with_tlv(header, sizeof(header), 3 + sizes[i], sizes[i] + 256);
		assert_refused(header, n, PROXY_E_BAD, WHY_TLV_LONG);
		if (sizes[i] == 0)
			continue;
		n = header_with_tlv(header, sizeof(header), 3 + sizes[i], sizes[i] - 1);
		assert_refused(header, n, PROXY_E_BAD, WHY_TLV_LAST);
	}
}

static void test_a_version_2_header_has_at_most_4096_bytes(void **state)
{
	uint8_t header[PROXY_HEADER_MAX + 1];
	struct proxy_header h;
	size_t room = PROXY_HEADER_MAX - 28;

	(void)state;
	assert_int_equal(header_with_tlv(header, sizeof(header), room, room - 3), PROXY_HEADER_MAX);
	assert_ok(header, PROXY_HEADER_MAX, &h);
	assert_int_equal(h.length, PROXY_HEADER_MAX);
	assert_every_prefix_asks_for_more(header, PROXY_HEADER_MAX);

	assert_int_equal(header_with_tlv(header, sizeof(header), room + 1, room - 2), PROXY_HEADER_MAX + 1);
	assert_every_prefix_asks_for_more(header, 15);
	assert_refused(header, 16, PROXY_E_BAD, WHY_LENGTH);
	assert_refused(header, PROXY_HEADER_MAX + 1, PROXY_E_BAD, WHY_LENGTH);
}

static void test_a_header_full_of_empty_tlvs_is_accepted(void **state)
{
	uint8_t header[PROXY_HEADER_MAX] = V2_PROXY "\x00\x0f\xf0"; /* 4080 bytes, 1360 TLVs */
	struct proxy_header h;

	(void)state;
	assert_ok(header, sizeof(header), &h);
	assert_int_equal(h.length, sizeof(header));
	assert_false(h.has_addr);
}

static void test_a_checksum_notices_every_flipped_bit(void **state)
{
	static const char good[] = V2_PROXY "\x11\x00\x18" INET_PAIR "\x04\x00\x02\x01\xff\x03\x00\x04\x21\x48\xa3\x8b";
	uint8_t header[sizeof(good) - 1];
	struct proxy_header h;

	(void)state;
	assert_ok(good, sizeof(header), &h);
	for (size_t bit = 16 * 8; bit < sizeof(header) * 8; bit++) {
		bool in_tlv_start = bit / 8 >= 28 && bit / 8 < 31;
		bool in_checksum_start = bit / 8 >= 33 && bit / 8 < 36;

		if (in_tlv_start || in_checksum_start)
			continue;
		memcpy(header, good, sizeof(header));
		header[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_refused(header, sizeof(header), PROXY_E_BAD, WHY_CRC);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version_1_lines_have_these_exact_bytes),
		cmocka_unit_test(test_version_2_headers_have_these_exact_bytes),
		cmocka_unit_test(test_beside_ipv6_an_ipv4_address_is_sent_mapped),
		cmocka_unit_test(test_an_encoded_header_decodes_to_the_same_addresses),
		cmocka_unit_test(test_a_scope_does_not_travel),
		cmocka_unit_test(test_every_valid_shape_is_accepted_and_nothing_behind_it_is_read),
		cmocka_unit_test(test_every_prefix_of_a_valid_header_asks_for_more),
		cmocka_unit_test(test_each_version_is_decoded_alone_too),
		cmocka_unit_test(test_a_malformed_header_is_refused_at_its_first_wrong_byte),
		cmocka_unit_test(test_only_two_first_bytes_begin_a_header),
		cmocka_unit_test(test_only_these_commands_and_families_of_version_2_are_known),
		cmocka_unit_test(test_a_version_1_line_has_at_most_107_bytes),
		cmocka_unit_test(test_a_tlv_ends_where_its_two_length_bytes_say),
		cmocka_unit_test(test_a_version_2_header_has_at_most_4096_bytes),
		cmocka_unit_test(test_a_header_full_of_empty_tlvs_is_accepted),
		cmocka_unit_test(test_a_checksum_notices_every_flipped_bit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
