// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * toa_recv: on an origin, reads the client's address from the TCP option that an edge writes (kind, length, port,
 * address: 8 bytes for IPv4, 20 for IPv6) and answers with it when a program asks accept() or getpeername() for its
 * peer. Four hooks of one cgroup:
 *
 *   established   sockops: a connection was accepted: look for the option in the packet that completed the handshake,
 *                 then in the SYN if that was kept, and keep the address with the socket
 *   established_any_kind
 *                 the same for options of the kinds 253 and 254, which the kernel's own search does not find without a
 *                 magic behind them. Needs Linux 5.17 and CAP_PERFMON; the other needs 5.10. User space loads one of
 * the two name4, name6  cgroup/getpeername4 and 6: answer with the address that is kept lookup cgroup/getsockopt:
 * TOA_SO_GET_LOOKUP, for IPv6 clients of IPv4 sockets, as the kernel modules have it
 *
 * Only options from trusted prefixes count: everybody else could name any address they like. A socket keeps its address
 * for life, whatever becomes of the trusted prefixes later.
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/shared.h"

#define AF_INET	 2
#define AF_INET6 10

enum {
	TCP_HEADER_SIZE = 20,
	TCP_HEADER_MAX = 60,
	TCP_OPTIONS_MAX = TCP_HEADER_MAX - TCP_HEADER_SIZE,
	OPTION_END = 0,
	OPTION_NONE = 1,
	SOCKOPT_COPIED_MAX = 4096, /* the kernel shows no more of an option's value than a page */
};

/* The client of each accepted socket; goes with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct toa_client);
} clients SEC(".maps");

/* Prefixes of edges; user space writes them. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, TOA_TRUST_MAX);
	__type(key, struct toa_prefix);
	__type(value, __u8);
} trust SEC(".maps");

/* What was counted, for each processor. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct toa_counters);
} counters SEC(".maps");

/* Notes of user space to itself. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct toa_settings);
} settings SEC(".maps");

/* Set before loading. */
const volatile __u8 kind_v4 = 200;
const volatile __u8 kind_v6 = 200;
const volatile _Bool save_syn = 1;

static __always_inline void count(enum toa_counter which)
{
	__u32 zero = 0;
	struct toa_counters *c = bpf_map_lookup_elem(&counters, &zero);

	if (c)
		c->count[which]++;
}

/* The third word of ::ffff:a.b.c.d. */
static __always_inline __u32 mapped_word(void)
{
	return bpf_htonl(0xffff);
}

static __always_inline _Bool is_v4(const __u32 *ip)
{
	return ip[0] == 0 && ip[1] == 0 && ip[2] == mapped_word();
}

/* Return: whether an option of @size bytes is one of ours. */
static __always_inline _Bool take_option(const struct toa_option *option, long size, struct toa_client *a)
{
	__u8 kind = option->kind;
	_Bool v4 = size == TOA_V4 && kind == kind_v4;

	if (!v4 && !(size == TOA_V6 && kind == kind_v6))
		return 0;
	/* one way for both families: the verifier does not want fields selected by pointer */
	a->ip[0] = v4 ? 0 : option->ip[0];
	a->ip[1] = v4 ? 0 : option->ip[1];
	a->ip[2] = v4 ? mapped_word() : option->ip[2];
	a->ip[3] = v4 ? option->ip[0] : option->ip[3];
	a->port = option->port;
	return 1;
}

/* --- the kernel's search --- */

static __always_inline _Bool load_kind(struct bpf_sock_ops *ctx, __u8 kind, __u64 flags, struct toa_client *a)
{
	struct toa_option option = { .kind = kind };
	long size = bpf_load_hdr_opt(ctx, &option, sizeof(option), flags);

	return take_option(&option, size, a);
}

static __always_inline _Bool load_option(struct bpf_sock_ops *ctx, __u64 flags, struct toa_client *a)
{
	return load_kind(ctx, kind_v4, flags, a) || (kind_v6 != kind_v4 && load_kind(ctx, kind_v6, flags, a));
}

/* --- our own, for kinds that the kernel's does not find --- */

struct walk {
	/* a TCP header, and zeros, so that an option may be read from wherever one begins */
	__u8 header[TCP_HEADER_MAX + 4 + TOA_V6];
	__u32 at;
	__u32 end;
	__u32 found;
	struct toa_client address;
};

static long walk_step(__u32 index, void *data)
{
	struct walk *w = data;
	__u32 at = w->at, size;
	struct toa_option copy;
	const __u8 *option;

	(void)index;
	if (at >= w->end || at >= TCP_HEADER_MAX)
		return 1;
	option = w->header + (at & 63);
	if (option[0] == OPTION_END)
		return 1;
	if (option[0] == OPTION_NONE) {
		w->at = at + 1;
		return 0;
	}
	size = option[1];
	if (size < 2 || size > w->end - at)
		return 1;
	__builtin_memcpy(&copy, option, sizeof(copy));
	w->found = take_option(&copy, size, &w->address);
	w->at = at + size;
	return w->found;
}

static __always_inline _Bool walk(struct walk *w, struct toa_client *a)
{
	w->at = TCP_HEADER_SIZE;
	bpf_loop(TCP_OPTIONS_MAX, walk_step, w, 0);
	*a = w->address;
	return w->found;
}

static __always_inline _Bool walk_packet(struct bpf_sock_ops *ctx, struct toa_client *a)
{
	struct walk w = { .end = TCP_HEADER_SIZE };
	__u8 *data = ctx->skb_data, *end = ctx->skb_data_end;

#pragma unroll
	for (int i = TCP_HEADER_SIZE; i < TCP_HEADER_MAX; i += 4) {
		if (data + i + 4 > end)
			break;
		__builtin_memcpy(w.header + i, data + i, 4);
		w.end = i + 4;
	}
	return walk(&w, a);
}

static __always_inline _Bool walk_syn(struct bpf_sock_ops *ctx, struct toa_client *a)
{
	struct walk w = { 0 };
	long size = bpf_getsockopt(ctx, IPPROTO_TCP, TCP_BPF_SYN, w.header, TCP_HEADER_MAX);

	if (size < TCP_HEADER_SIZE || size > TCP_HEADER_MAX)
		return 0;
	w.end = size;
	return walk(&w, a);
}

/* --- connections --- */

static __always_inline _Bool is_trusted(struct bpf_sock_ops *ctx)
{
	/* volatile: the compiler would else select one of the fields by pointer, which the verifier forbids */
	volatile struct bpf_sock_ops *from = ctx;
	__u32 v4 = from->remote_ip4, family = from->family;
	__u32 v6[4] = { from->remote_ip6[0], from->remote_ip6[1], from->remote_ip6[2], from->remote_ip6[3] };
	_Bool inet = family == AF_INET;
	struct toa_prefix key = { .bits = 32 + 128 };

	key.ip[0] = inet ? 0 : v6[0];
	key.ip[1] = inet ? 0 : v6[1];
	key.ip[2] = inet ? mapped_word() : v6[2];
	key.ip[3] = inet ? v4 : v6[3];
	key.family = bpf_htonl(is_v4(key.ip) ? 4 : 6);
	return bpf_map_lookup_elem(&trust, &key) != 0;
}

static __always_inline void keep(struct bpf_sock_ops *ctx, const struct toa_client *found)
{
	_Bool ip6 = ctx->family == AF_INET6 || !is_v4(found->ip);
	__u32 flags = ctx->bpf_sock_ops_cb_flags;
	struct bpf_sock *sk = ctx->sk;
	struct toa_client *kept = sk ? bpf_sk_storage_get(&clients, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;

	if (!kept) {
		count(TOA_COUNTER_RECV_NO_TOA);
		return;
	}
	*kept = *found;
	kept->counted = ip6;
	count(TOA_COUNTER_RECV_TOA);
	if (!ip6)
		return;
	count(TOA_COUNTER_IP6_ALLOC);
	bpf_sock_ops_cb_flags_set(ctx, flags | BPF_SOCK_OPS_STATE_CB_FLAG); /* tells of the close */
}

static __always_inline void accepted(struct bpf_sock_ops *ctx, _Bool found, const struct toa_client *a)
{
	if (found && !is_trusted(ctx)) {
		count(TOA_COUNTER_UNTRUSTED);
		found = 0;
	}
	if (found)
		keep(ctx, a);
	else
		count(TOA_COUNTER_RECV_NO_TOA);
}

/* A listener that begins now keeps the SYN of each connection, unless it already does in its own way. */
static __always_inline void listening(struct bpf_sock_ops *ctx)
{
	int is = 0, one = 1;

	if (!save_syn || (bpf_getsockopt(ctx, IPPROTO_TCP, TCP_SAVE_SYN, &is, sizeof(is)) == 0 && is))
		return;
	bpf_setsockopt(ctx, IPPROTO_TCP, TCP_SAVE_SYN, &one, sizeof(one));
}

static __always_inline void state_changed(struct bpf_sock_ops *ctx)
{
	__u32 state = ctx->args[1];
	struct bpf_sock *sk = ctx->sk;
	struct toa_client *kept;

	if (state != BPF_TCP_CLOSE || !sk)
		return;
	kept = bpf_sk_storage_get(&clients, sk, 0, 0);
	if (!kept || !kept->counted)
		return;
	kept->counted = 0;
	count(TOA_COUNTER_IP6_FREE);
}

static __always_inline _Bool is_tcp(struct bpf_sock_ops *ctx)
{
	return ctx->family == AF_INET || ctx->family == AF_INET6;
}

SEC("sockops")
int established(struct bpf_sock_ops *ctx)
{
	struct toa_client a = { 0 };
	_Bool found;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		listening(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		if (!is_tcp(ctx))
			break;
		found = load_option(ctx, 0, &a) || load_option(ctx, BPF_LOAD_HDR_OPT_TCP_SYN, &a);
		accepted(ctx, found, &a);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		state_changed(ctx);
		break;
	}
	return 1;
}

SEC("sockops")
int established_any_kind(struct bpf_sock_ops *ctx)
{
	struct toa_client a = { 0 };
	_Bool found;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		listening(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		if (!is_tcp(ctx))
			break;
		found = walk_packet(ctx, &a) || walk_syn(ctx, &a);
		accepted(ctx, found, &a);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		state_changed(ctx);
		break;
	}
	return 1;
}

/* --- questions --- */

static __always_inline struct toa_client *client_of(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 protocol = ctx->protocol;
	struct toa_client *kept;

	if (!sk || protocol != IPPROTO_TCP)
		return 0;
	kept = bpf_sk_storage_get(&clients, sk, 0, 0);
	if (!kept)
		count(TOA_COUNTER_NAME_EMPTY);
	return kept;
}

SEC("cgroup/getpeername4")
int name4(struct bpf_sock_addr *ctx)
{
	struct toa_client *kept = client_of(ctx);

	if (!kept)
		return 1;
	if (!is_v4(kept->ip)) {
		count(TOA_COUNTER_NAME_MISMATCH);
		return 1;
	}
	ctx->user_ip4 = kept->ip[3];
	ctx->user_port = kept->port;
	count(TOA_COUNTER_NAME_OK);
	return 1;
}

SEC("cgroup/getpeername6")
int name6(struct bpf_sock_addr *ctx)
{
	struct toa_client *kept = client_of(ctx);

	if (!kept)
		return 1;
	ctx->user_ip6[0] = kept->ip[0];
	ctx->user_ip6[1] = kept->ip[1];
	ctx->user_ip6[2] = kept->ip[2];
	ctx->user_ip6[3] = kept->ip[3];
	ctx->user_port = kept->port;
	count(TOA_COUNTER_NAME_OK);
	return 1;
}

static __always_inline _Bool is_lookup(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return ctx->level == IPPROTO_IP && ctx->optname == TOA_SO_GET_LOOKUP && sk && sk->protocol == IPPROTO_TCP &&
		(sk->family == AF_INET || sk->family == AF_INET6);
}

/* What the kernel modules answer, in their order of checks. Return: 0; -errno. */
static __always_inline int look_up(struct bpf_sockopt *ctx, struct bpf_sock *sk)
{
	struct toa_lookup *out = ctx->optval;
	void *end = ctx->optval_end;
	struct toa_client *kept;

	if ((void *)(out + 1) > end)
		return -EINVAL;
	if (sk->dst_port == 0 || sk->state == BPF_TCP_CLOSE || sk->state == BPF_TCP_SYN_SENT)
		return -ENOTCONN;
	kept = bpf_sk_storage_get(&clients, sk, 0, 0);
	if (!kept) {
		count(TOA_COUNTER_NAME_EMPTY);
		return -EINVAL;
	}
	if (is_v4(kept->ip))
		return -EFAULT; /* getpeername() knows it */
	for (int i = 0; i < 4; i++)
		out->ip[i] = kept->ip[i];
	out->port = kept->port;
	out->zero = 0;
	count(TOA_COUNTER_NAME_OK);
	return 0;
}

SEC("cgroup/getsockopt")
int lookup(struct bpf_sockopt *ctx)
{
	/* volatile: the compiler would make one store of two neighbours, which the verifier refuses */
	volatile struct bpf_sockopt *out = ctx;
	struct bpf_sock *sk = ctx->sk;
	int error;

	if (!sk || !is_lookup(ctx)) {
		if (ctx->optlen > SOCKOPT_COPIED_MAX)
			out->optlen = 0; /* leave the long value as it is: older kernels refuse it else */
		return 1;
	}
	error = look_up(ctx, sk);
	if (error == 0)
		out->optlen = sizeof(struct toa_lookup);
	out->retval = error;
	return 1;
}

char _license[] SEC("license") = "GPL"; /* the kernel asks for the half of the choice that it knows */
