/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "origin/syn.h"

#include <stdlib.h>
#include <string.h>

#define V4_ADDRESSES "\xc0\x00\x02\x01\xc0\x00\x02\x0a"
#define V4_SYN(doff) "\x45\0\0\0\0\0\0\0\x40\x06\0\0" V4_ADDRESSES TCP(doff)
#define TCP(doff)    "\x9c\x40\0\x50\0\0\0\1\0\0\0\0" doff "\x02\xff\xff\0\0\0\0"
#define DB8(last)    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0" last
#define V6_SYN(doff) "\x60\0\0\0\0\0\x06\x40" DB8("\x01") DB8("\x02") TCP(doff)
#define TOA4(kind)   kind "\x08\xd4\x31\xcb\x00\x71\x4d" /* 203.0.113.77:54321 */
#define TOA6(kind)   kind "\x14\xad\x9c" DB8("\x07")	 /* [2001:db8::7]:44444 */

/* without the NUL at the end */
#define CASE(bytes, v4, v6, outcome, source, client)                                                                   \
	{                                                                                                              \
		bytes, sizeof(bytes) - 1, v4, v6, outcome, source, client                                              \
	}

static const struct {
	const char *bytes;
	size_t length;
	uint8_t kind_v4, kind_v6;
	int outcome;
	const char *source, *client;
} cases[] = {
	CASE(V4_SYN("\x50"), 200, 200, SYN_E_NONE, "192.0.2.1:40000", NULL),
	CASE(V4_SYN("\x70") TOA4("\xc8"), 200, 200, SYN_OK, "192.0.2.1:40000", "203.0.113.77:54321"),
	CASE(V4_SYN("\x70") TOA4("\xc8") "behind", 200, 200, SYN_OK, "192.0.2.1:40000", "203.0.113.77:54321"),
	CASE(V4_SYN("\xa0") TOA6("\xc8"), 200, 200, SYN_OK, "192.0.2.1:40000", "[2001:db8::7]:44444"),
	CASE(V6_SYN("\x70") TOA4("\xc8"), 200, 200, SYN_OK, "[2001:db8::1]:40000", "203.0.113.77:54321"),
	CASE(V6_SYN("\xa0") TOA6("\xfd"), 254, 253, SYN_OK, "[2001:db8::1]:40000", "[2001:db8::7]:44444"),
	/* kind and length are one pair */
	CASE(V4_SYN("\x70") TOA4("\xfd"), 254, 253, SYN_E_NONE, "192.0.2.1:40000", NULL),
	CASE(V4_SYN("\xc0") TOA4("\xfd") TOA6("\xfd"), 254, 253, SYN_OK, "192.0.2.1:40000", "[2001:db8::7]:44444"),
	/* IP options; NOPs; others before it; the first of two */
	CASE("\x46\0\0\0\0\0\0\0\x40\x06\0\0" V4_ADDRESSES "\1\1\1\1" TCP("\x70") TOA4("\xc8"), 200, 200, SYN_OK,
		"192.0.2.1:40000", "203.0.113.77:54321"),
	CASE(V4_SYN("\x80") "\1\1\1" TOA4("\xc8") "\1", 200, 200, SYN_OK, "192.0.2.1:40000", "203.0.113.77:54321"),
	CASE(V4_SYN("\x80") "\2\4\5\xb4" TOA4("\xc8"), 200, 200, SYN_OK, "192.0.2.1:40000", "203.0.113.77:54321"),
	CASE(V4_SYN("\xc0") TOA4("\xc8") TOA6("\xc8"), 200, 200, SYN_OK, "192.0.2.1:40000", "203.0.113.77:54321"),
	/* the search ends: end of options, lengths 0, 1 and beyond; a length of neither family is passed over */
	CASE(V4_SYN("\x80") "\0\1\1\1" TOA4("\xc8"), 200, 200, SYN_E_NONE, "192.0.2.1:40000", NULL),
	CASE(V4_SYN("\x80") "\1\1\x1e\0" TOA4("\xc8"), 200, 200, SYN_E_NONE, "192.0.2.1:40000", NULL),
	CASE(V4_SYN("\x80") "\1\1\x1e\1" TOA4("\xc8"), 200, 200, SYN_E_NONE, "192.0.2.1:40000", NULL),
	CASE(V4_SYN("\x60") "\1\1\xc8\x03", 200, 200, SYN_E_NONE, "192.0.2.1:40000", NULL),
	CASE(V4_SYN("\x60") "\1\1\1\xc8", 200, 200, SYN_E_NONE, "192.0.2.1:40000", NULL),
	CASE(V4_SYN("\x80") "\xc8\4\1\1" TOA4("\xc8"), 200, 200, SYN_OK, "192.0.2.1:40000", "203.0.113.77:54321"),
	/* no SYN */
	CASE("", 200, 200, SYN_E_BAD, NULL, NULL),
	CASE("\x35" V4_SYN("\x50"), 200, 200, SYN_E_BAD, NULL, NULL),
	CASE("\x44\0\0\0\0\0\0\0\x40\x06\0\0" V4_ADDRESSES TCP("\x50"), 200, 200, SYN_E_BAD, NULL, NULL),
	CASE("\x60\0\0\0\0\0\x11\x40" DB8("\x01") DB8("\x02") TCP("\x50"), 200, 200, SYN_E_BAD, NULL, NULL),
	CASE(V4_SYN("\x40"), 200, 200, SYN_E_BAD, NULL, NULL),
	CASE(V4_SYN("\x60"), 200, 200, SYN_E_BAD, NULL, NULL),
	CASE(V4_SYN("\xf0") TOA4("\xc8"), 200, 200, SYN_E_BAD, NULL, NULL),
};

static void assert_addr(const struct addr *a, const struct addr *before, const char *expected)
{
	struct addr e;

	if (!expected) {
		assert_true(addr_equal(a, before));
		return;
	}
	assert_int_equal(addr_parse(expected, strlen(expected), 0, &e), 0);
	assert_true(addr_equal(a, &e));
}

static void test_clients_that_syns_name(void **state)
{
	static const struct addr before = { .port = 4711 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr source = before, client = before;
		uint8_t *copy = malloc(MAX(cases[i].length, 1)); /* of its own size: a read behind the end is noticed */

		assert_non_null(copy);
		memcpy(copy, cases[i].bytes, cases[i].length);
		if (syn_decode(copy, cases[i].length, cases[i].kind_v4, cases[i].kind_v6, &source, &client) !=
			cases[i].outcome)
			fail_msg("case %zu", i);
		assert_addr(&source, &before, cases[i].source);
		assert_addr(&client, &before, cases[i].client);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_clients_that_syns_name) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
