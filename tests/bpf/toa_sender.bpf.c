// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * What an edge does, for tests of the origin kit alone: connections from the local ports in a map carry the bytes that
 * stand there as a TCP option, in the packets that the flags say, until the other side has sent something.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum { IN_SYN = 1, IN_REST = 2, SYN = 0x02, OPTION_MAX = 20 };

struct sent {
	__u8 bytes[32];
	__u32 size;
	__u32 flags;
};

/* What connections from a local port carry. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct sent);
} sent SEC(".maps");

static __always_inline struct sent *find(struct bpf_sock_ops *ctx)
{
	__u32 port = ctx->local_port;

	return bpf_map_lookup_elem(&sent, &port);
}

static __always_inline _Bool is_for(struct bpf_sock_ops *ctx, const struct sent *s)
{
	if (ctx->args[0] == BPF_WRITE_HDR_TCP_CURRENT_MSS && ctx->op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		return s->flags & IN_REST;
	if (ctx->skb_tcp_flags & SYN)
		return s->flags & IN_SYN;
	return s->flags & IN_REST && ctx->bytes_received == 0;
}

SEC("sockops")
int toa_sender(struct bpf_sock_ops *ctx)
{
	struct sent *s;
	__u32 size;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		if (find(ctx))
			bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		s = find(ctx);
		if (s && is_for(ctx, s) && s->size <= OPTION_MAX)
			bpf_reserve_hdr_opt(ctx, s->size, 0);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		s = find(ctx);
		size = s ? s->size : 0;
		if (s && is_for(ctx, s) && size >= 2 && size <= OPTION_MAX)
			bpf_store_hdr_opt(ctx, s->bytes, size, 0);
		break;
	}
	return 1;
}

char _license[] SEC("license") = "GPL";
