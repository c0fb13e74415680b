// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * toa_send: puts a TCP option that names the client (TOA) on the edge's connections to origins.
 *
 * User space hands the finished option over by a socket option of our own, before connect(); it stays with the socket
 * until that is closed. The option goes on the SYN if it is asked for there, and on every segment from the ACK that
 * completes the handshake until the origin has acknowledged data or sent some: by then it has looked at a segment with
 * it, whichever were lost. A SYN that was sent twice in vain is sent without, since some firewalls drop what they don't
 * know. Sockets that were handed nothing are asked about once, at connect().
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

SEC("cgroup/setsockopt")
int toa_hand_over(struct bpf_sockopt *ctx)
{
	struct toa_address *given = ctx->optval, *kept;

	if (ctx->level != TOA_SOCKET_LEVEL || ctx->optname != TOA_SOCKET_OPTION) {
		if (ctx->optlen > 4096)
			ctx->optlen = 0; /* more than we are shown: the kernel takes it as it is */
		return 1;
	}
	if ((void *)(given + 1) > ctx->optval_end || !ctx->sk || (given->length != TOA_V4 && given->length != TOA_V6))
		return 0;
	kept = bpf_sk_storage_get(&addresses, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return 0;
	*kept = *given;
	ctx->optlen = -1; /* done: the kernel itself knows no such option */
	return 1;
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

	if (!socket ||
		(op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_HDR_OPT_LEN_CB &&
			op != BPF_SOCK_OPS_WRITE_HDR_OPT_CB))
		return 1;
	a = bpf_sk_storage_get(&addresses, socket, 0, 0);
	if (!a)
		return 1;
	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	else if (op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		reserve(ctx, a);
	else
		write(ctx, a);
	return 1;
}

char _license[] SEC("license") = "GPL"; /* the kernel asks for the half of the choice that it knows */
