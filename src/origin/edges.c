/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/edges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIXES_MAX = 4096, KIND_DEFAULT = 200 };

static const char between[] = ", \t\r\n";

static size_t count_words(const char *text)
{
	size_t n = 0;

	for (text += strspn(text, between); *text; text += strspn(text, between)) {
		text += strcspn(text, between);
		n++;
	}
	return n;
}

int tgo_edges_new(const char *prefixes, struct tgo_edges **ret_edges)
{
	size_t count = count_words(prefixes);
	struct tgo_edges *e;

	if (count == 0)
		return -ENOENT;
	if (count > PREFIXES_MAX)
		return -E2BIG;
	e = malloc(sizeof(*e) + count * sizeof(e->prefixes[0]));
	if (!e)
		return -ENOMEM;
	*e = (struct tgo_edges){ .kind_v4 = KIND_DEFAULT, .kind_v6 = KIND_DEFAULT, .count = count };
	for (size_t i = 0; i < count; i++) {
		size_t length;

		prefixes += strspn(prefixes, between);
		length = strcspn(prefixes, between);
		if (prefix_parse(prefixes, length, &e->prefixes[i])) {
			free(e);
			return -EINVAL;
		}
		prefixes += length;
	}
	*ret_edges = e;
	return 0;
}

void tgo_edges_free(struct tgo_edges *edges)
{
	free(edges);
}

void tgo_edges_set_kinds(struct tgo_edges *edges, uint8_t kind_v4, uint8_t kind_v6)
{
	edges->kind_v4 = kind_v4;
	edges->kind_v6 = kind_v6;
}

bool edges_have(const struct tgo_edges *edges, const struct ip *ip)
{
	for (size_t i = 0; i < edges->count; i++)
		if (prefix_has(&edges->prefixes[i], ip))
			return true;
	return false;
}

int tgo_edges_has(const struct tgo_edges *edges, const struct sockaddr *addr, socklen_t length)
{
	union sockaddr_any sa = { 0 };
	struct addr a;

	if (length < sizeof(sa.in))
		return 0;
	memcpy(&sa, addr, MIN(length, sizeof(sa)));
	if (sa.sa.sa_family != AF_INET && (sa.sa.sa_family != AF_INET6 || length < sizeof(sa.in6)))
		return 0;
	a = addr_from_sockaddr(&sa);
	return edges_have(edges, &a.ip);
}

void addr_to_public(const struct addr *a, union tgo_addr *ret_addr)
{
	union sockaddr_any sa;

	memset(ret_addr, 0, sizeof(*ret_addr));
	memcpy(ret_addr, &sa, addr_to_sockaddr(a, &sa));
}

struct addr addr_from_public(const union tgo_addr *a)
{
	union sockaddr_any sa = { 0 };

	if (a->sa.sa_family != AF_INET && a->sa.sa_family != AF_INET6)
		return (struct addr){ 0 };
	memcpy(&sa, a, sizeof(sa));
	return addr_from_sockaddr(&sa);
}

const char *tgo_format(const union tgo_addr *addr, char *out)
{
	struct addr a = addr_from_public(addr);

	if (addr->sa.sa_family == AF_INET || addr->sa.sa_family == AF_INET6)
		addr_format(&a, out);
	else
		memcpy(out, "-", 2);
	return out;
}

const char *tgo_strerror(int error)
{
	const char *text;

	if (error == TGO_E_BAD)
		return "these bytes are no header of the kind that was expected";
	if (error == TGO_E_CLOSED)
		return "the stream ended before the header did";
	text = strerrordesc_np(error < 0 ? -error : error);
	return text ? text : "unknown error";
}

unsigned int tgo_version(void)
{
	return TGO_VERSION_MAJOR << 8 | TGO_VERSION_MINOR;
}
