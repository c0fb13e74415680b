/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses. One form for both families: 16 bytes, IPv4 as ::ffff:a.b.c.d (as SPP writes it), so that keys are
 * compared, hashed and stored without a case on the family. A real IPv6 peer cannot have such an address: the kernel
 * delivers IPv4-mapped packets to IPv4 sockets only. Ports are in host order here and in network order in sockaddrs.
 */
#pragma once

#include "base/macros.h"

#include <netinet/in.h>
#include <sys/socket.h>

struct ip {
	uint8_t bytes[16];
};

struct addr {
	struct ip ip;
	uint32_t scope_id; /* interface of a link-local IPv6 address, else 0 */
	uint16_t port;
	uint16_t zero; /* keeps the struct free of padding: addresses are compared and hashed as bytes */
};
_Static_assert(sizeof(struct addr) == 24, "struct addr has no padding");

/* A prefix: @bits counts in the 128-bit form, so an IPv4 /24 has 120. Bits behind the prefix are zero. */
struct prefix {
	struct ip ip;
	uint8_t bits;
};

union sockaddr_any {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

enum {
	/* "[" 39 characters "%" 10 digits "]:" 5 digits NUL */
	ADDR_TEXT_SIZE = 64,
	PREFIX_TEXT_SIZE = 64,
};

/** ip_is_v4() - true for ::ffff:a.b.c.d */
static inline bool ip_is_v4(const struct ip *ip)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return __builtin_memcmp(ip->bytes, mapped, sizeof(mapped)) == 0;
}

static inline bool ip_equal(const struct ip *a, const struct ip *b)
{
	return __builtin_memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	return __builtin_memcmp(a, b, sizeof(*a)) == 0;
}

static inline int addr_family(const struct addr *a)
{
	return ip_is_v4(&a->ip) ? AF_INET : AF_INET6;
}

/** ip_from_v4() - the 16-byte form of an IPv4 address; @v4 in network order */
struct ip ip_from_v4(const void *v4);

/** addr_from_sockaddr() - @sa must be of AF_INET or AF_INET6; an IPv4-mapped AF_INET6 becomes plain IPv4 */
struct addr addr_from_sockaddr(const union sockaddr_any *sa);

/**
 * addr_to_sockaddr() - for socket calls
 * @ret_sa: receives an AF_INET sockaddr for IPv4, AF_INET6 otherwise
 *
 * Return: the length to pass with it.
 */
socklen_t addr_to_sockaddr(const struct addr *a, union sockaddr_any *ret_sa);

/** ip_format() - "192.0.2.1" or "2001:db8::1" (RFC 5952), NUL-terminated. Return: its length. */
size_t ip_format(const struct ip *ip, char out[static ADDR_TEXT_SIZE]);

/** addr_format() - "192.0.2.1:80" or "[2001:db8::1]:80", NUL-terminated. Return: its length. */
size_t addr_format(const struct addr *a, char out[static ADDR_TEXT_SIZE]);

/**
 * ip_parse() - an IPv4 address in dotted form, or an IPv6 address without brackets
 * @text, @length: need not be NUL-terminated; must be the address and nothing else
 *
 * Return: 0; -EINVAL if it is neither (@ret_ip is untouched).
 */
MUST_CHECK int ip_parse(const char *text, size_t length, struct ip *ret_ip);

/**
 * addr_parse() - "1.2.3.4", "1.2.3.4:80", "::1", "[::1]" or "[::1]:80"
 * @default_port: the port when the text has none
 *
 * Return: 0; -EINVAL.
 */
MUST_CHECK int addr_parse(const char *text, size_t length, uint16_t default_port, struct addr *ret_addr);

/**
 * prefix_parse() - a CIDR such as "10.0.0.0/8" or "2001:db8::/32"; an address alone is its own prefix
 *
 * Return: 0; -EINVAL if it is none; -ERANGE if bits are set behind the prefix (10.0.0.1/8).
 */
MUST_CHECK int prefix_parse(const char *text, size_t length, struct prefix *ret_prefix);

/** prefix_format() - as prefix_parse() reads it, always with "/bits". Return: its length. */
size_t prefix_format(const struct prefix *p, char out[static PREFIX_TEXT_SIZE]);

/** prefix_has() - whether @ip lies in @p; an IPv4 address lies in IPv4 prefixes only, so not in ::/0 */
bool prefix_has(const struct prefix *p, const struct ip *ip);

/** ip_mask() - @ip with all but its first @bits bits cleared; @bits 0-128 */
struct ip ip_mask(const struct ip *ip, unsigned int bits);
