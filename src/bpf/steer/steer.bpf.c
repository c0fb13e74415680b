// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * steer: gives new TCP connections and UDP datagrams for the edge's ports to its listening sockets, whatever port
 * these are bound to. The kernel asks when no connected socket matches, and before it looks for a bound one.
 *
 * A port that is not ours is left alone. The port that our sockets are bound to is closed, unless it is an edge port:
 * nobody is meant to reach them there.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/shared.h"

#define AF_INET 2

/* Bitmap of edge ports, one of STEER_WORDS words per protocol; user space writes it through its memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, STEER_WORDS *STEER_PROTOCOLS);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

/* Local addresses that are listened on, unless any_address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STEER_ADDRESSES_MAX);
	__type(key, struct steer_address);
	__type(value, __u8);
} addresses SEC(".maps");

/* One socket of the SO_REUSEPORT group for each protocol and family; the kernel then chooses within the group. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, STEER_PROTOCOLS *STEER_FAMILIES);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

/* Set before loading. */
const volatile _Bool any_address = 1;
const volatile __u16 bound_port[STEER_PROTOCOLS][STEER_FAMILIES];

static _Bool is_edge_port(__u32 protocol, __u32 port)
{
	__u32 index = protocol * STEER_WORDS + port / 64;
	__u64 *word = bpf_map_lookup_elem(&ports, &index);

	return word && (*word >> (port % 64) & 1);
}

static _Bool is_edge_address(const struct bpf_sk_lookup *ctx)
{
	/* both families are read, so that the compiler has no reason to select a field by pointer: the verifier forbids
	 * that */
	__u32 v4 = ctx->local_ip4;
	__u32 v6[4] = { ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2], ctx->local_ip6[3] };
	struct steer_address a = { .ip = { [10] = 0xff, [11] = 0xff } };

	if (any_address)
		return 1;
	if (ctx->family == AF_INET)
		__builtin_memcpy(a.ip + 12, &v4, sizeof(v4));
	else
		__builtin_memcpy(a.ip, v6, sizeof(v6));
	return bpf_map_lookup_elem(&addresses, &a) != 0;
}

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	__u32 protocol = ctx->protocol == IPPROTO_TCP ? STEER_TCP : STEER_UDP;
	__u32 family = ctx->family == AF_INET ? STEER_V4 : STEER_V6;
	__u32 index = protocol * STEER_FAMILIES + family;
	struct bpf_sock *socket;
	long error;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return SK_PASS;
	if (!is_edge_port(protocol, ctx->local_port) || !is_edge_address(ctx))
		return ctx->local_port == bound_port[protocol & 1][family & 1] ? SK_DROP : SK_PASS;
	socket = bpf_map_lookup_elem(&sockets, &index);
	if (!socket)
		return SK_DROP; /* never on to some other service */
	error = bpf_sk_assign(ctx, socket, 0);
	bpf_sk_release(socket);
	return error ? SK_DROP : SK_PASS;
}

char _license[] SEC("license") = "GPL"; /* the kernel asks for the half of the choice that it knows */
