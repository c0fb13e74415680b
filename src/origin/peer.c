/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of an accepted connection. The kernel side answers getsockopt(LOOKUP) in three ways that matter: an IPv6
 * client; EFAULT, when there is a client and getpeername() knows it; EINVAL, when there is none. Anything else means
 * that there is no kernel side, or that it was told not to answer.
 */
#include "origin/edges.h"
#include "origin/syn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <string.h>

enum { LOOKUP = 4096 };

struct lookup {
	struct in6_addr addr;
	uint16_t port;
};
_Static_assert(sizeof(struct lookup) == 20, "as the kernel side has it");

static int from_lookup(int fd, struct addr *ret_addr)
{
	struct lookup found = { 0 };
	socklen_t length = sizeof(found);
	struct addr a = { 0 };

	if (getsockopt(fd, IPPROTO_IP, LOOKUP, &found, &length) < 0)
		return -errno;
	if (length != sizeof(found))
		return -ENOPROTOOPT;
	memcpy(a.ip.bytes, &found.addr, 16);
	a.port = ntohs(found.port);
	*ret_addr = a;
	return 0;
}

static int from_name(int fd, int (*name)(int, struct sockaddr *, socklen_t *), struct addr *ret_addr)
{
	union sockaddr_any sa = { 0 };
	socklen_t length = sizeof(sa);

	if (name(fd, &sa.sa, &length) < 0)
		return -errno;
	if (sa.sa.sa_family != AF_INET && sa.sa.sa_family != AF_INET6)
		return -EAFNOSUPPORT;
	*ret_addr = addr_from_sockaddr(&sa);
	return 0;
}

/* Whom the SYN names, if it came from an edge. */
static bool from_syn(int fd, const struct tgo_edges *edges, struct addr *ret_addr)
{
	uint8_t syn[SYN_SIZE_MAX];
	socklen_t length = sizeof(syn);
	struct addr source, client;

	if (getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, syn, &length) < 0 || length == 0 || length > sizeof(syn))
		return false;
	if (syn_decode(syn, length, edges->kind_v4, edges->kind_v6, &source, &client) != SYN_OK)
		return false;
	if (!edges_have(edges, &source.ip))
		return false;
	*ret_addr = client;
	return true;
}

int peer_of(int fd, const struct tgo_edges *edges, int (*name)(int, struct sockaddr *, socklen_t *),
	struct tgo_peer *ret_peer)
{
	enum tgo_source source = TGO_SOURCE_CONNECTION;
	struct addr a, client;
	int r = from_name(fd, name, &a), kernel;

	if (r)
		return r;
	kernel = from_lookup(fd, &client);
	if (kernel == 0 || kernel == -EFAULT)
		source = TGO_SOURCE_KERNEL;
	else if (kernel != -EINVAL && edges && from_syn(fd, edges, &client))
		source = TGO_SOURCE_SYN;
	if (kernel == 0 || source == TGO_SOURCE_SYN)
		a = client;
	addr_to_public(&a, &ret_peer->addr);
	ret_peer->source = source;
	return 0;
}

int tgo_peer(int fd, const struct tgo_edges *edges, struct tgo_peer *ret_peer)
{
	return peer_of(fd, edges, getpeername, ret_peer);
}

int tgo_save_syn(int fd)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_SAVE_SYN, &(int){ 1 }, sizeof(int)) < 0 ? -errno : 0;
}
