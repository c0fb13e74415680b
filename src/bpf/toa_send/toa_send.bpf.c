// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * toa_send: puts a TCP option that names the client (TOA) on the edge's connections to origins.
 *
 * User space puts the finished option into a slot that is found by the socket's cookie, and calls connect(). There the
 * program takes it and keeps it with the socket until that is closed. The option goes on the SYN if it is asked for
 * there, and on every segment from the ACK that completes the handshake until the origin has acknowledged data or sent
 * some: by then it has looked at a segment with it, whichever were lost. A SYN that was sent twice in vain is sent
 * without, since some firewalls drop what they don't know. Sockets that were handed nothing are asked about once, at
 * connect().
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "bpf/shared.h"

#define TCP_FLAG_SYN 0x02

/* What is handed over, by socket; goes with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct toa_address);
} addresses SEC(".maps");

/* Addresses on their way to the program; user space writes them through the map's memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, TOA_SLOTS);
	__type(key, __u32);
	__type(value, struct toa_slot);
} slots SEC(".maps");

/* One struct toa_counts; user space reads it through its memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct toa_counts);
} counts SEC(".maps");

static struct toa_counts *count(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counts, &zero);
}

static void count_no_room(void)
{
	struct toa_counts *c = count();

	if (c)
		__sync_fetch_and_add(&c->no_room, 1);
}

static void count_syn_without(void)
{
	struct toa_counts *c = count();

	if (c)
		__sync_fetch_and_add(&c->syn_without, 1);
}

/* --- the hand-over --- */

/* In connect(), before the SYN is made. */
static void take(struct bpf_sock_ops *ctx, struct bpf_sock *socket)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct toa_address *kept;

	for (__u32 i = 0; i < TOA_PROBES; i++) {
		__u32 index = (cookie + i) % TOA_SLOTS;
		struct toa_slot *slot = bpf_map_lookup_elem(&slots, &index);

		if (!slot || slot->cookie != cookie)
			continue;
		kept = bpf_sk_storage_get(&addresses, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!kept)
			return;
		*kept = slot->address;
		if (kept->length != TOA_V4)
			kept->length = TOA_V6;
		if (!bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG))
			slot->taken = 1;
		return;
	}
}

/* --- sending --- */

/* The SYN carries it when that is wanted, the first times. */
static _Bool wanted_in_syn(struct toa_address *a)
{
	if (!a->in_syn)
		return 0;
	if (a->syns < TOA_SYNS)
		return 1;
	if (a->syns == TOA_SYNS) {
		a->syns++; /* counted once a connection */
		count_syn_without();
	}
	return 0;
}

/* How long the next segment's header will be; also asked for when the kernel computes how much data fits a segment. */
static void reserve(struct bpf_sock_ops *ctx, struct toa_address *a)
{
	_Bool is_segment = ctx->args[0] != BPF_WRITE_HDR_TCP_CURRENT_MSS;

	/* the SYN counts as one byte acknowledged */
	if (ctx->bytes_received > 0 || ctx->bytes_acked > 1) {
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		return;
	}
	if (is_segment && ctx->skb_tcp_flags & TCP_FLAG_SYN && !wanted_in_syn(a))
		return;
	if (bpf_reserve_hdr_opt(ctx, a->length, 0) && is_segment)
		count_no_room();
}

static void write(struct bpf_sock_ops *ctx, struct toa_address *a)
{
	long error = a->length == TOA_V4 ? bpf_store_hdr_opt(ctx, a->option, TOA_V4, 0)
					 : bpf_store_hdr_opt(ctx, a->option, TOA_V6, 0);

	if (error)
		count_no_room();
	else if (ctx->skb_tcp_flags & TCP_FLAG_SYN)
		a->syns++;
}

SEC("sockops")
int toa_send(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *socket = ctx->sk;
	__u32 op = ctx->op;
	struct toa_address *a;

	if (!socket)
		return 1;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		take(ctx, socket);
	if (op != BPF_SOCK_OPS_HDR_OPT_LEN_CB && op != BPF_SOCK_OPS_WRITE_HDR_OPT_CB)
		return 1;
	a = bpf_sk_storage_get(&addresses, socket, 0, 0);
	if (!a)
		return 1;
	if (op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		reserve(ctx, a);
	else
		write(ctx, a);
	return 1;
}

char _license[] SEC("license") = "GPL"; /* the kernel asks for the half of the choice that it knows */
