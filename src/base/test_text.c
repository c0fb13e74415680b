/* SPDX-License-Identifier: Apache-2.0 */
#include "base/test.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

#define BYTES(s) .bytes = s, .length = sizeof(s) - 1
#define REPLACED "\xef\xbf\xbd" /* U+FFFD */

static void test_pieces_are_appended(void **state)
{
	char bytes[64];
	struct text texts[] = { text_fixed(bytes, sizeof(bytes)), text_growing(1000) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct text *t = &texts[i];

		text_str(t, "a");
		text_put(t, "bcd", 2);
		text_u64(t, 0);
		text_u64(t, UINT64_MAX);
		text_printf(t, "[%s %d]", "x", -7);
		assert_true(t->ok);
		assert_string_equal(t->bytes, "abc018446744073709551615[x -7]");
		assert_int_equal(t->length, strlen(t->bytes));
		text_free(t);
	}
}

static void test_a_fixed_text_takes_what_fits_with_its_nul(void **state)
{
	char bytes[5] = "zzzz";
	struct text t = text_fixed(bytes, 4);

	(void)state;
	assert_string_equal(bytes, "");
	text_str(&t, "abc");
	assert_true(t.ok);
	text_str(&t, "d");
	assert_false(t.ok);
	assert_string_equal(bytes, "abc");
	assert_int_equal(bytes[4], 0); /* the array's own last byte, beyond the text */
}

static void test_what_does_not_fit_fails_for_good_and_keeps_what_was_there(void **state)
{
	char bytes[8];
	struct text texts[] = { text_fixed(bytes, sizeof(bytes)), text_growing(8) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct text *t = &texts[i];

		text_str(t, "abc");
		text_str(t, "defgh"); /* 8 bytes and a NUL */
		assert_false(t->ok);
		text_str(t, "d"); /* would fit, but something before it is missing */
		text_printf(t, "%s", "e");
		text_u64(t, 1);
		assert_false(t->ok);
		assert_string_equal(t->bytes, "abc");
		assert_int_equal(t->length, 3);
		text_free(t);
	}
}

static void test_a_growing_text_grows_to_its_ceiling_and_not_beyond(void **state)
{
	enum { CEILING = 100000 };
	struct text t = text_growing(CEILING);

	(void)state;
	for (size_t i = 0; i < CEILING - 1; i++)
		text_put(&t, "x", 1);
	assert_true(t.ok);
	assert_int_equal(t.length, CEILING - 1);
	assert_int_equal(t.size, CEILING);
	text_put(&t, "x", 1);
	assert_false(t.ok);
	assert_int_equal(strlen(t.bytes), CEILING - 1);
	text_free(&t);
	assert_null(t.bytes);
}

static void test_a_ceiling_may_be_reached_in_one_step(void **state)
{
	struct text t = text_growing(8);

	(void)state;
	text_str(&t, "1234567"); /* and a NUL */
	assert_true(t.ok);
	assert_string_equal(t.bytes, "1234567");
	text_free(&t);
}

static void test_long_formatted_text_is_written_whole(void **state)
{
	static const int lengths[] = { 0, 1, 510, 511, 512, 513, 2000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct text t = text_growing(10000);

		text_str(&t, "<");
		text_printf(&t, "%*d", lengths[i], 7);
		text_str(&t, ">");
		assert_true(t.ok);
		assert_int_equal(t.length, MAX(lengths[i], 1) + 2);
		assert_int_equal(t.bytes[t.length - 2], '7');
		assert_int_equal(t.bytes[t.length - 1], '>');
		text_free(&t);
	}
}

static void test_json_strings_escape_what_json_forbids(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
		const char *json;
	} cases[] = {
		{ BYTES(""), "\"\"" },
		{ BYTES("plain text"), "\"plain text\"" },
		{ BYTES("say \"hi\" \\ /"), "\"say \\\"hi\\\" \\\\ /\"" },
		{ BYTES("a\nb\tc\r\x01\x1f\x7f"), "\"a\\u000ab\\u0009c\\u000d\\u0001\\u001f\x7f\"" },
		{ BYTES("nul\0nul"), "\"nul\\u0000nul\"" },
		{ BYTES("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x8c\x8a"),
			"\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x8c\x8a\"" },
		{ BYTES("\xff"), "\"" REPLACED "\"" },
		{ BYTES("a\xc3"), "\"a" REPLACED "\"" },
		{ BYTES("\xc3\x28"), "\"" REPLACED "(\"" },
		{ BYTES("\xed\xa0\x80"), "\"" REPLACED REPLACED REPLACED "\"" },
		{ BYTES("\xc0\xaf"), "\"" REPLACED REPLACED "\"" },
		{ BYTES("\xf0\x9f\x8c\"x"), "\"" REPLACED REPLACED REPLACED "\\\"x\"" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char out[128];
		struct text t = text_fixed(out, sizeof(out));

		text_json(&t, cases[i].bytes, cases[i].length);
		assert_true(t.ok);
		assert_string_equal(out, cases[i].json);
	}
}

/* --- UTF-8 --- */

/* The bytes of a code point (RFC 3629, section 3), surrogates too. */
static size_t utf8_of(uint32_t point, char out[static 4])
{
	if (point < 0x80) {
		out[0] = (char)point;
		return 1;
	}
	if (point < 0x800) {
		out[0] = (char)(0xc0 | point >> 6);
		out[1] = (char)(0x80 | (point & 0x3f));
		return 2;
	}
	if (point < 0x10000) {
		out[0] = (char)(0xe0 | point >> 12);
		out[1] = (char)(0x80 | (point >> 6 & 0x3f));
		out[2] = (char)(0x80 | (point & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | point >> 18);
	out[1] = (char)(0x80 | (point >> 12 & 0x3f));
	out[2] = (char)(0x80 | (point >> 6 & 0x3f));
	out[3] = (char)(0x80 | (point & 0x3f));
	return 4;
}

static void test_every_character_is_known_and_every_shorter_prefix_is_not(void **state)
{
	(void)state;
	for (uint32_t point = 0; point < 0x110000; point++) {
		bool surrogate = point >= 0xd800 && point < 0xe000;
		char bytes[4];
		size_t n = utf8_of(point, bytes);

		if (utf8_next(bytes, n) != (surrogate ? 0 : n) || utf8_next(bytes, n - 1) != 0)
			fail_msg("U+%04X", point);
	}
}

static void test_malformed_bytes_are_no_character(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
	} cases[] = {
		{ BYTES("") },
		{ BYTES("\x80") }, /* a continuation alone */
		{ BYTES("\xbf\x80") },
		{ BYTES("\xc0\x80") }, /* overlong NUL */
		{ BYTES("\xc1\xbf") },
		{ BYTES("\xe0\x9f\xbf") }, /* overlong */
		{ BYTES("\xf0\x8f\xbf\xbf") },
		{ BYTES("\xed\xa0\x80") }, /* surrogates */
		{ BYTES("\xed\xbf\xbf") },
		{ BYTES("\xf4\x90\x80\x80") }, /* beyond U+10FFFF */
		{ BYTES("\xf5\x80\x80\x80") },
		{ BYTES("\xf8\x88\x80\x80\x80") }, /* five bytes */
		{ BYTES("\xfe") },
		{ BYTES("\xff") },
		{ BYTES("\xc3\x28") }, /* what follows does not continue */
		{ BYTES("\xe2\x28\xa1") },
		{ BYTES("\xe2\x82\x28") },
		{ BYTES("\xf0\x9f\x8c\x28") },
		{ BYTES("\xe2\x82\xc0") },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (utf8_next(cases[i].bytes, cases[i].length) != 0)
			fail_msg("case %zu is taken for a character", i);
}

static void test_only_the_first_character_is_looked_at(void **state)
{
	(void)state;
	assert_int_equal(utf8_next("a\xff", 2), 1);
	assert_int_equal(utf8_next("\xc3\xbc\xff", 3), 2);
}

static void test_control_characters_are_not_printable(void **state)
{
	(void)state;
	for (uint32_t point = 0; point < 0x110000; point++) {
		bool control = point < 0x20 || (point >= 0x7f && point < 0xa0);
		char bytes[4];
		size_t n = utf8_of(point, bytes);

		if (utf8_printable(bytes, n) != (control ? 0 : utf8_next(bytes, n)))
			fail_msg("U+%04X", point);
	}
	assert_int_equal(utf8_printable("\xc2", 1), 0);
	assert_int_equal(utf8_printable("", 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pieces_are_appended),
		cmocka_unit_test(test_a_fixed_text_takes_what_fits_with_its_nul),
		cmocka_unit_test(test_what_does_not_fit_fails_for_good_and_keeps_what_was_there),
		cmocka_unit_test(test_a_growing_text_grows_to_its_ceiling_and_not_beyond),
		cmocka_unit_test(test_a_ceiling_may_be_reached_in_one_step),
		cmocka_unit_test(test_long_formatted_text_is_written_whole),
		cmocka_unit_test(test_json_strings_escape_what_json_forbids),
		cmocka_unit_test(test_every_character_is_known_and_every_shorter_prefix_is_not),
		cmocka_unit_test(test_malformed_bytes_are_no_character),
		cmocka_unit_test(test_only_the_first_character_is_looked_at),
		cmocka_unit_test(test_control_characters_are_not_printable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
