/* SPDX-License-Identifier: Apache-2.0 */
#include "base/addr.h"
#include "base/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

static struct ip ip_of(const char *text)
{
	struct ip ip;

	if (ip_parse(text, strlen(text), &ip))
		fail_msg("%s is not an address", text);
	return ip;
}

static void test_addresses_are_written_in_their_shortest_form(void **state)
{
	static const struct {
		const char *text, *written;
	} cases[] = {
		{ "0.0.0.0", "0.0.0.0" },
		{ "192.0.2.1", "192.0.2.1" },
		{ "255.255.255.255", "255.255.255.255" },
		{ "::", "::" },
		{ "::1", "::1" },
		{ "2001:DB8:0:0:0:0:0:1", "2001:db8::1" },
		{ "2001:db8:0:1:0:0:0:1", "2001:db8:0:1::1" },
		{ "1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8" },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" },
		{ "::ffff:192.0.2.1", "192.0.2.1" },
		{ "::ffff:c000:201", "192.0.2.1" },
		{ "64:ff9b::192.0.2.1", "64:ff9b::c000:201" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ip ip = ip_of(cases[i].text);
		char out[ADDR_TEXT_SIZE];

		assert_int_equal(ip_format(&ip, out), strlen(cases[i].written));
		assert_string_equal(out, cases[i].written);
	}
}

static void test_an_ipv4_address_is_its_mapped_ipv6_address(void **state)
{
	static const uint8_t bytes[16] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1 };
	struct ip plain = ip_of("192.0.2.1"), mapped = ip_of("::ffff:192.0.2.1");
	struct ip made = ip_from_v4((uint8_t[]){ 192, 0, 2, 1 });

	(void)state;
	assert_memory_equal(plain.bytes, bytes, 16);
	assert_true(ip_equal(&plain, &mapped) && ip_equal(&plain, &made));
	assert_true(ip_is_v4(&mapped));
}

static void test_only_mapped_addresses_are_ipv4(void **state)
{
	static const char *const others[] = { "::", "::1", "::192.0.2.1", "::fffe:192.0.2.1", "1::ffff:192.0.2.1",
		"::ffff:0:192.0.2.1", "64:ff9b::192.0.2.1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct addr a = { .ip = ip_of(others[i]) };

		assert_false(ip_is_v4(&a.ip));
		assert_int_equal(addr_family(&a), AF_INET6);
	}
}

static void test_what_is_no_address_is_refused(void **state)
{
	static const char *const wrong[] = { "", " ", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ",
		" 1.2.3.4", "1.2.3.4/8", "1.2.3.-4", "0x1.2.3.4", ":", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
		"::12345", "::g", "1::2::3", "fe80::1%eth0", "fe80::1%1", "[::1]", "::1.2.3", "localhost",
		"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct ip ip = { .bytes = { 47, 11 } };

		if (ip_parse(wrong[i], strlen(wrong[i]), &ip) != -EINVAL)
			fail_msg("\"%s\" is taken for an address", wrong[i]);
		assert_int_equal(ip.bytes[0] << 8 | ip.bytes[1], 47 << 8 | 11);
	}
}

static void test_an_address_ends_where_its_length_says(void **state)
{
	struct ip ip, expected = ip_of("1.2.3.4");

	(void)state;
	assert_int_equal(ip_parse("1.2.3.45", 7, &ip), 0);
	assert_true(ip_equal(&ip, &expected));
	assert_int_equal(ip_parse("1.2.3.4\0", 8, &ip), -EINVAL);
	assert_int_equal(ip_parse("1.2\0.3.4", 8, &ip), -EINVAL);
}

static void test_an_address_may_have_a_port(void **state)
{
	static const struct {
		const char *text, *written;
	} cases[] = {
		{ "1.2.3.4", "1.2.3.4:53" },
		{ "1.2.3.4:80", "1.2.3.4:80" },
		{ "1.2.3.4:0", "1.2.3.4:0" },
		{ "1.2.3.4:65535", "1.2.3.4:65535" },
		{ "1.2.3.4:00080", "1.2.3.4:80" },
		{ "::1", "[::1]:53" },
		{ "[::1]", "[::1]:53" },
		{ "[::1]:80", "[::1]:80" },
		{ "2001:db8::1:80", "[2001:db8::1:80]:53" },
		{ "[::ffff:1.2.3.4]:80", "1.2.3.4:80" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char out[ADDR_TEXT_SIZE];
		struct addr a;

		if (addr_parse(cases[i].text, strlen(cases[i].text), 53, &a))
			fail_msg("%s is refused", cases[i].text);
		assert_int_equal(addr_format(&a, out), strlen(cases[i].written));
		assert_string_equal(out, cases[i].written);
		assert_int_equal(a.scope_id, 0);
		assert_int_equal(a.zero, 0);
	}
}

static void test_a_wrong_address_or_port_is_refused(void **state)
{
	static const char *const wrong[] = { "", "[", "]", "[]", "[]:1", "[::1", "::1]", "[::1]80", "[::1]:", "[::1]:a",
		"[::1]]:1", "[[::1]]:1", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:000080", "1.2.3.4:-1", "1.2.3.4:+1",
		"1.2.3.4: 1", "1.2.3.4:1 ", "1.2.3.4:1:2", ":80", "host:80", "1.2.3:80", "[1.2.3]:80" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct addr a = { .port = 4711 };

		if (addr_parse(wrong[i], strlen(wrong[i]), 53, &a) != -EINVAL)
			fail_msg("\"%s\" is taken for an address", wrong[i]);
		assert_int_equal(a.port, 4711);
	}
}

static void test_addresses_survive_the_way_through_a_sockaddr(void **state)
{
	static const struct {
		const char *text;
		sa_family_t family;
		socklen_t length;
	} cases[] = {
		{ "192.0.2.1:443", AF_INET, sizeof(struct sockaddr_in) },
		{ "0.0.0.0:0", AF_INET, sizeof(struct sockaddr_in) },
		{ "[2001:db8::1]:65535", AF_INET6, sizeof(struct sockaddr_in6) },
		{ "[::]:0", AF_INET6, sizeof(struct sockaddr_in6) },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		union sockaddr_any sa;
		struct addr a, b;

		assert_int_equal(addr_parse(cases[i].text, strlen(cases[i].text), 0, &a), 0);
		assert_int_equal(addr_to_sockaddr(&a, &sa), cases[i].length);
		assert_int_equal(sa.sa.sa_family, cases[i].family);
		b = addr_from_sockaddr(&sa);
		assert_true(addr_equal(&a, &b));
	}
}

static void test_a_sockaddr_has_its_port_in_network_order(void **state)
{
	struct addr a = { .ip = ip_of("192.0.2.1"), .port = 0x1234 };
	union sockaddr_any sa;

	(void)state;
	addr_to_sockaddr(&a, &sa);
	assert_memory_equal(&sa.in.sin_port, "\x12\x34", 2);
	assert_memory_equal(&sa.in.sin_addr, "\xc0\x00\x02\x01", 4);
}

static void test_a_mapped_sockaddr_becomes_ipv4(void **state)
{
	union sockaddr_any sa = { .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(80) } };
	struct addr a, expected = { .ip = ip_of("192.0.2.1"), .port = 80 };

	(void)state;
	assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.1", &sa.in6.sin6_addr), 1);
	a = addr_from_sockaddr(&sa);
	assert_true(addr_equal(&a, &expected));
}

static void test_only_link_local_addresses_keep_their_scope(void **state)
{
	static const struct {
		const char *ip;
		uint32_t scope_id;
		const char *written;
	} cases[] = {
		{ "fe80::1", 3, "[fe80::1%3]:80" },
		{ "2001:db8::1", 0, "[2001:db8::1]:80" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		union sockaddr_any sa = {
			.in6 = { .sin6_family = AF_INET6, .sin6_port = htons(80), .sin6_scope_id = 3 }
		};
		char out[ADDR_TEXT_SIZE];
		struct addr a;

		assert_int_equal(inet_pton(AF_INET6, cases[i].ip, &sa.in6.sin6_addr), 1);
		a = addr_from_sockaddr(&sa);
		assert_int_equal(a.scope_id, cases[i].scope_id);
		addr_format(&a, out);
		assert_string_equal(out, cases[i].written);
		assert_int_equal(addr_to_sockaddr(&a, &sa), sizeof(sa.in6));
		assert_int_equal(sa.in6.sin6_scope_id, cases[i].scope_id);
	}
}

static void test_the_longest_address_fits(void **state)
{
	struct addr a = {
		.ip = ip_of("feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), .scope_id = UINT32_MAX, .port = UINT16_MAX
	};
	char out[ADDR_TEXT_SIZE];

	(void)state;
	assert_int_equal(addr_format(&a, out), 58);
	assert_string_equal(out, "[feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535");
}

static void test_prefixes_are_written_as_they_are_read(void **state)
{
	static const struct {
		const char *text, *written;
		unsigned int bits;
	} cases[] = {
		{ "10.0.0.0/8", "10.0.0.0/8", 104 },
		{ "0.0.0.0/0", "0.0.0.0/0", 96 },
		{ "192.0.2.1", "192.0.2.1/32", 128 },
		{ "192.0.2.128/25", "192.0.2.128/25", 121 },
		{ "::/0", "::/0", 0 },
		{ "2001:DB8::/32", "2001:db8::/32", 32 },
		{ "2001:db8::1", "2001:db8::1/128", 128 },
		{ "8000::/1", "8000::/1", 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char out[PREFIX_TEXT_SIZE];
		struct prefix p;

		if (prefix_parse(cases[i].text, strlen(cases[i].text), &p))
			fail_msg("%s is refused", cases[i].text);
		assert_int_equal(p.bits, cases[i].bits);
		assert_int_equal(prefix_format(&p, out), strlen(cases[i].written));
		assert_string_equal(out, cases[i].written);
	}
}

static void test_what_is_no_prefix_is_refused(void **state)
{
	static const struct {
		const char *text;
		int result;
	} cases[] = {
		{ "", -EINVAL },
		{ "/", -EINVAL },
		{ "/8", -EINVAL },
		{ "10.0.0.0/", -EINVAL },
		{ "10.0.0.0/33", -EINVAL },
		{ "10.0.0.0/-1", -EINVAL },
		{ "10.0.0.0/ 8", -EINVAL },
		{ "10.0.0.0/8/8", -EINVAL },
		{ "10.0.0/8", -EINVAL },
		{ "::/129", -EINVAL },
		{ "::/4294967296", -EINVAL },
		{ "[::]/0", -EINVAL },
		{ "10.0.0.1/8", -ERANGE },
		{ "10.0.0.0/6", -ERANGE },
		{ "0.0.0.1/31", -ERANGE },
		{ "2001:db8::1/127", -ERANGE },
		{ "ffff::/15", -ERANGE },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct prefix p = { .bits = 47 };
		int r = prefix_parse(cases[i].text, strlen(cases[i].text), &p);

		if (r != cases[i].result)
			fail_msg("\"%s\" gives %d, expected %d", cases[i].text, r, cases[i].result);
		assert_int_equal(p.bits, 47);
	}
}

static void test_a_prefix_has_its_own_addresses_only(void **state)
{
	static const struct {
		const char *prefix, *ip;
		bool has;
	} cases[] = {
		{ "10.0.0.0/8", "10.0.0.0", true },
		{ "10.0.0.0/8", "10.255.255.255", true },
		{ "10.0.0.0/8", "11.0.0.0", false },
		{ "10.0.0.0/8", "9.255.255.255", false },
		{ "192.0.2.128/25", "192.0.2.128", true },
		{ "192.0.2.128/25", "192.0.2.127", false },
		{ "192.0.2.1/32", "192.0.2.1", true },
		{ "192.0.2.1/32", "192.0.2.0", false },
		{ "0.0.0.0/0", "255.255.255.255", true },
		{ "2001:db8::/32", "2001:db8:ffff::", true },
		{ "2001:db8::/32", "2001:db9::", false },
		{ "2001:db8::1/128", "2001:db8::1", true },
		{ "2001:db8::1/128", "2001:db8::", false },
		{ "::/0", "ffff::", true },
		{ "::/0", "::", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ip ip = ip_of(cases[i].ip);
		struct prefix p;

		assert_int_equal(prefix_parse(cases[i].prefix, strlen(cases[i].prefix), &p), 0);
		if (prefix_has(&p, &ip) != cases[i].has)
			fail_msg("%s in %s: expected %d", cases[i].ip, cases[i].prefix, cases[i].has);
	}
}

/* "::/0" is all of IPv6: whoever trusts it does not mean every IPv4 address. */
static void test_a_prefix_has_no_addresses_of_the_other_family(void **state)
{
	static const char *const v6[] = { "::/0", "::/1", "::/64", "::/80" };
	struct ip v4_client = ip_of("192.0.2.1"), v6_client = ip_of("2001:db8::1"), low = ip_of("::1");
	struct prefix p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(v6); i++) {
		assert_int_equal(prefix_parse(v6[i], strlen(v6[i]), &p), 0);
		assert_false(prefix_has(&p, &v4_client));
		assert_true(prefix_has(&p, &low));
	}
	assert_int_equal(prefix_parse("0.0.0.0/0", 9, &p), 0);
	assert_true(prefix_has(&p, &v4_client));
	assert_false(prefix_has(&p, &v6_client));
	assert_false(prefix_has(&p, &low));
}

static void test_a_mask_clears_every_bit_behind_it(void **state)
{
	struct ip ones = ip_of("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");

	(void)state;
	for (unsigned int bits = 0; bits <= 128; bits++) {
		struct ip masked = ip_mask(&ones, bits);

		for (unsigned int bit = 0; bit < 128; bit++)
			assert_int_equal(masked.bytes[bit / 8] >> (7 - bit % 8) & 1, bit < bits);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses_are_written_in_their_shortest_form),
		cmocka_unit_test(test_an_ipv4_address_is_its_mapped_ipv6_address),
		cmocka_unit_test(test_only_mapped_addresses_are_ipv4),
		cmocka_unit_test(test_what_is_no_address_is_refused),
		cmocka_unit_test(test_an_address_ends_where_its_length_says),
		cmocka_unit_test(test_an_address_may_have_a_port),
		cmocka_unit_test(test_a_wrong_address_or_port_is_refused),
		cmocka_unit_test(test_addresses_survive_the_way_through_a_sockaddr),
		cmocka_unit_test(test_a_sockaddr_has_its_port_in_network_order),
		cmocka_unit_test(test_a_mapped_sockaddr_becomes_ipv4),
		cmocka_unit_test(test_only_link_local_addresses_keep_their_scope),
		cmocka_unit_test(test_the_longest_address_fits),
		cmocka_unit_test(test_prefixes_are_written_as_they_are_read),
		cmocka_unit_test(test_what_is_no_prefix_is_refused),
		cmocka_unit_test(test_a_prefix_has_its_own_addresses_only),
		cmocka_unit_test(test_a_prefix_has_no_addresses_of_the_other_family),
		cmocka_unit_test(test_a_mask_clears_every_bit_behind_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
