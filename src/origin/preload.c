/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libtidegate-origin-preload.so: for programs that cannot be changed, where the kernel side is not enough:
 *
 *   - an IPv6 client of an IPv4 listener: accept(), accept4() and getpeername() answer with an AF_INET6 address, to
 *     programs that leave room for one. Who gives only as much room as an IPv4 address needs is told the edge's, as
 *     without this library
 *   - no right to attach anything: with TIDEGATE_ORIGIN_TRUST="PREFIX,..." in the environment, listen() makes the
 * kernel keep the SYN of each connection, and the option in it is believed when it came from one of these prefixes.
 *     TIDEGATE_ORIGIN_KIND_V4 and _V6 are the kinds of the option, 200 unless set
 *
 * The kernel gives a kept SYN away once, so its answer is kept for later getpeername() calls: by descriptor, with the
 * socket's cookie, which no other socket ever has. There are no locks; every function here may be called from signal
 * handlers if the one that it replaces may. Programs that do not call libc (Go, static ones) are not reached.
 */
#include "base/addr.h"
#include "origin/edges.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT_MAX = 1 << 18 }; /* descriptors; memory is used as far as they go */

/* The client of a descriptor's socket, as long as the cookie is this. */
struct kept {
	_Atomic uint64_t cookie; /* 0: nothing */
	_Atomic uint64_t words[3];
};
_Static_assert(sizeof(struct addr) == sizeof(uint64_t[3]), "an address is kept as words");

static struct kept kept[KEPT_MAX];
static struct tgo_edges *edges;
static int (*real_accept)(int, struct sockaddr *, socklen_t *);
static int (*real_accept4)(int, struct sockaddr *, socklen_t *, int);
static int (*real_getpeername)(int, struct sockaddr *, socklen_t *);
static int (*real_listen)(int, int);

/* --- start --- */

static uint8_t read_kind(const char *name)
{
	const char *text = secure_getenv(name);
	long kind = text ? strtol(text, NULL, 10) : 0;

	return kind >= 2 && kind <= 254 ? (uint8_t)kind : 200;
}

static void read_edges(void)
{
	const char *text = secure_getenv("TIDEGATE_ORIGIN_TRUST");
	int r;

	if (!text)
		return;
	r = tgo_edges_new(text, &edges);
	if (r)
		fprintf(stderr, "tidegate-origin: TIDEGATE_ORIGIN_TRUST=\"%s\": %s; nobody is trusted\n", text,
			tgo_strerror(r));
	else
		tgo_edges_set_kinds(edges, read_kind("TIDEGATE_ORIGIN_KIND_V4"), read_kind("TIDEGATE_ORIGIN_KIND_V6"));
}

/* Functions and objects are of different kinds in C, so no cast leads from one to the other. */
static void find(const char *name, void *ret_function)
{
	void *at = dlsym(RTLD_NEXT, name);

	memcpy(ret_function, &at, sizeof(at));
}

__attribute__((constructor)) static void begin(void)
{
	if (real_accept)
		return;
	find("accept4", &real_accept4);
	find("getpeername", &real_getpeername);
	find("listen", &real_listen);
	find("accept", &real_accept);
	read_edges();
}

/* --- answers of SYNs --- */

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t length = sizeof(cookie);

	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) < 0)
		return 0;
	return cookie;
}

static void keep(int fd, const struct addr *client)
{
	uint64_t words[3], cookie = cookie_of(fd);
	struct kept *k;

	if (fd >= KEPT_MAX || cookie == 0)
		return;
	k = &kept[fd];
	memcpy(words, client, sizeof(words));
	atomic_store(&k->cookie, 0);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		atomic_store(&k->words[i], words[i]);
	atomic_store(&k->cookie, cookie);
}

static bool find_kept(int fd, struct addr *ret_client)
{
	uint64_t words[3], cookie;
	struct kept *k;

	if (fd < 0 || fd >= KEPT_MAX)
		return false;
	k = &kept[fd];
	cookie = atomic_load(&k->cookie);
	if (cookie == 0 || cookie != cookie_of(fd))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = atomic_load(&k->words[i]);
	if (atomic_load(&k->cookie) != cookie)
		return false;
	memcpy(ret_client, words, sizeof(words));
	return true;
}

/* --- answers --- */

/* Whether the client has to be said in place of what the kernel answered in @family. */
static bool find_client(int fd, sa_family_t family, struct addr *ret_client)
{
	struct tgo_peer peer;

	if (find_kept(fd, ret_client))
		return true;
	if (peer_of(fd, edges, real_getpeername, &peer))
		return false;
	*ret_client = addr_from_public(&peer.addr);
	switch (peer.source) {
	case TGO_SOURCE_CONNECTION:
		return false;
	case TGO_SOURCE_KERNEL:
		return family == AF_INET && !ip_is_v4(&ret_client->ip);
	case TGO_SOURCE_SYN:
		keep(fd, ret_client);
		return true;
	}
	return false;
}

/* An IPv4 client keeps the family of its socket. */
static socklen_t client_name(const struct addr *client, sa_family_t family, union sockaddr_any *ret_sa)
{
	if (family == AF_INET || !ip_is_v4(&client->ip))
		return addr_to_sockaddr(client, ret_sa);
	ret_sa->in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(client->port) };
	memcpy(&ret_sa->in6.sin6_addr, client->ip.bytes, 16);
	return sizeof(ret_sa->in6);
}

/* @room: what the caller gave; *length: what the kernel made of it */
static void rename_peer(int fd, struct sockaddr *addr, socklen_t *length, socklen_t room)
{
	int error = errno;
	union sockaddr_any sa;
	struct addr client;
	sa_family_t family;
	socklen_t size;

	if (!addr || !length || room < sizeof(struct sockaddr_in))
		return;
	memcpy(&family, addr, sizeof(family));
	if ((family == AF_INET || family == AF_INET6) && find_client(fd, family, &client)) {
		size = client_name(&client, family, &sa);
		if (size <= room) {
			memcpy(addr, &sa, size);
			*length = size;
		}
	}
	errno = error;
}

#define EXPORT __attribute__((visibility("default")))

EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *restrict length)
{
	socklen_t room = addr && length ? *length : 0;
	int s;

	begin();
	s = real_accept(fd, addr, length);
	if (s >= 0)
		rename_peer(s, addr, length, room);
	return s;
}

EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *restrict length, int flags)
{
	socklen_t room = addr && length ? *length : 0;
	int s;

	begin();
	s = real_accept4(fd, addr, length, flags);
	if (s >= 0)
		rename_peer(s, addr, length, room);
	return s;
}

EXPORT int getpeername(int fd, struct sockaddr *addr, socklen_t *restrict length)
{
	socklen_t room = addr && length ? *length : 0;
	int r;

	begin();
	r = real_getpeername(fd, addr, length);
	if (r == 0)
		rename_peer(fd, addr, length, room);
	return r;
}

EXPORT int listen(int fd, int backlog)
{
	int error = errno;

	begin();
	if (edges && tgo_save_syn(fd))
		errno = error; /* not TCP, or an old kernel: as without us */
	return real_listen(fd, backlog);
}
