/* SPDX-License-Identifier: Apache-2.0 */
#include "base/addr.h"
#include "base/error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct ip ip_from_v4(const void *v4)
{
	struct ip ip = { .bytes = { [10] = 0xff, [11] = 0xff } };

	memcpy(ip.bytes + 12, v4, 4);
	return ip;
}

struct addr addr_from_sockaddr(const union sockaddr_any *sa)
{
	struct addr a = { 0 };

	if (sa->sa.sa_family == AF_INET) {
		a.ip = ip_from_v4(&sa->in.sin_addr);
		a.port = ntohs(sa->in.sin_port);
		return a;
	}
	memcpy(a.ip.bytes, &sa->in6.sin6_addr, 16);
	a.port = ntohs(sa->in6.sin6_port);
	if (IN6_IS_ADDR_LINKLOCAL(&sa->in6.sin6_addr))
		a.scope_id = sa->in6.sin6_scope_id;
	return a;
}

socklen_t addr_to_sockaddr(const struct addr *a, union sockaddr_any *ret_sa)
{
	if (ip_is_v4(&a->ip)) {
		ret_sa->in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(a->port) };
		memcpy(&ret_sa->in.sin_addr, a->ip.bytes + 12, 4);
		return sizeof(ret_sa->in);
	}
	ret_sa->in6 = (struct sockaddr_in6){
		.sin6_family = AF_INET6,
		.sin6_port = htons(a->port),
		.sin6_scope_id = a->scope_id,
	};
	memcpy(&ret_sa->in6.sin6_addr, a->ip.bytes, 16);
	return sizeof(ret_sa->in6);
}

size_t ip_format(const struct ip *ip, char out[static ADDR_TEXT_SIZE])
{
	bool v4 = ip_is_v4(ip);

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip->bytes + 12 : ip->bytes, out, ADDR_TEXT_SIZE);
	return strlen(out);
}

size_t addr_format(const struct addr *a, char out[static ADDR_TEXT_SIZE])
{
	char ip[ADDR_TEXT_SIZE];
	int n;

	ip_format(&a->ip, ip);
	if (ip_is_v4(&a->ip))
		n = snprintf(out, ADDR_TEXT_SIZE, "%s:%u", ip, a->port);
	else if (a->scope_id)
		n = snprintf(out, ADDR_TEXT_SIZE, "[%.45s%%%u]:%u", ip, a->scope_id, a->port);
	else
		n = snprintf(out, ADDR_TEXT_SIZE, "[%.45s]:%u", ip, a->port);
	return (size_t)n;
}

int ip_parse(const char *text, size_t length, struct ip *ret_ip)
{
	char copy[INET6_ADDRSTRLEN];
	uint8_t bytes[16];

	if (length == 0 || length >= sizeof(copy) || memchr(text, 0, length))
		return -EINVAL;
	memcpy(copy, text, length);
	copy[length] = 0;
	if (inet_pton(AF_INET, copy, bytes) == 1) {
		*ret_ip = ip_from_v4(bytes);
		return 0;
	}
	if (inet_pton(AF_INET6, copy, bytes) == 1) {
		memcpy(ret_ip->bytes, bytes, 16);
		return 0;
	}
	return -EINVAL;
}

/* Decimal digits only, no sign, no blanks, at most @max. */
static int number_parse(const char *text, size_t length, unsigned int max, unsigned int *ret_number)
{
	unsigned int n = 0;

	if (length == 0 || length > 5)
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		n = n * 10 + (unsigned int)(text[i] - '0');
	}
	if (n > max)
		return -EINVAL;
	*ret_number = n;
	return 0;
}

int addr_parse(const char *text, size_t length, uint16_t default_port, struct addr *ret_addr)
{
	struct addr a = { .port = default_port };
	const char *end = text + length;
	const char *ip = text, *ip_end = end, *port = NULL;
	unsigned int n;

	if (length && text[0] == '[') {
		ip = text + 1;
		ip_end = memchr(text, ']', length);
		if (!ip_end)
			return -EINVAL;
		if (ip_end + 1 < end && ip_end[1] != ':')
			return -EINVAL;
		if (ip_end + 1 < end)
			port = ip_end + 2;
	} else {
		const char *colon = length ? memchr(text, ':', length) : NULL;

		if (colon && !memchr(colon + 1, ':', (size_t)(end - colon - 1))) {
			ip_end = colon;
			port = colon + 1;
		}
	}
	if (ip_parse(ip, (size_t)(ip_end - ip), &a.ip))
		return -EINVAL;
	if (port) {
		if (number_parse(port, (size_t)(end - port), UINT16_MAX, &n))
			return -EINVAL;
		a.port = (uint16_t)n;
	}
	*ret_addr = a;
	return 0;
}

struct ip ip_mask(const struct ip *ip, unsigned int bits)
{
	struct ip masked = { 0 };

	memcpy(masked.bytes, ip->bytes, bits / 8);
	if (bits % 8)
		masked.bytes[bits / 8] = (uint8_t)(ip->bytes[bits / 8] & (0xff00u >> (bits % 8)));
	return masked;
}

int prefix_parse(const char *text, size_t length, struct prefix *ret_prefix)
{
	const char *slash = length ? memchr(text, '/', length) : NULL;
	size_t ip_length = slash ? (size_t)(slash - text) : length;
	unsigned int bits, family_bits;
	struct ip ip, masked;

	if (ip_parse(text, ip_length, &ip))
		return -EINVAL;
	family_bits = ip_is_v4(&ip) ? 32 : 128;
	bits = family_bits;
	if (slash && number_parse(slash + 1, length - ip_length - 1, family_bits, &bits))
		return -EINVAL;
	bits += 128 - family_bits;
	masked = ip_mask(&ip, bits);
	if (!ip_equal(&masked, &ip))
		return -ERANGE;
	ret_prefix->ip = ip;
	ret_prefix->bits = (uint8_t)bits;
	return 0;
}

size_t prefix_format(const struct prefix *p, char out[static PREFIX_TEXT_SIZE])
{
	size_t n = ip_format(&p->ip, out);

	n += (size_t)snprintf(out + n, PREFIX_TEXT_SIZE - n, "/%u", p->bits - (ip_is_v4(&p->ip) ? 96u : 0u));
	return n;
}

bool prefix_has(const struct prefix *p, const struct ip *ip)
{
	struct ip masked = ip_mask(ip, p->bits);

	return ip_is_v4(ip) == ip_is_v4(&p->ip) && ip_equal(&masked, &p->ip);
}
