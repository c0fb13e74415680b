/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/toa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define DB8(last) "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0" last

static void test_options_have_these_exact_bytes(void **state)
{
	static const struct {
		uint8_t kind;
		const char *client;
		size_t length;
		const char *bytes;
	} cases[] = {
		{ 200, "192.0.2.1:40000", 8, "\xc8\x08\x9c\x40\xc0\x00\x02\x01" },
		{ 254, "0.0.0.0:0", 8, "\xfe\x08\0\0\0\0\0\0" },
		{ 253, "255.255.255.255:65535", 8, "\xfd\x08\xff\xff\xff\xff\xff\xff" },
		{ 200, "[2001:db8::1]:40000", 20, "\xc8\x14\x9c\x40" DB8("\x01") },
		{ 253, "[::]:1", 20, "\xfd\x14\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t out[TOA_OPTION_MAX];
		struct addr client;

		memset(out, 0xaa, sizeof(out));
		assert_int_equal(addr_parse(cases[i].client, strlen(cases[i].client), 0, &client), 0);
		assert_int_equal(toa_encode(cases[i].kind, &client, out), cases[i].length);
		assert_memory_equal(out, cases[i].bytes, cases[i].length);
		for (size_t at = cases[i].length; at < sizeof(out); at++)
			assert_int_equal(out[at], 0xaa);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_have_these_exact_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
