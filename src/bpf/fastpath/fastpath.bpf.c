// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * fastpath: carries the packets of established UDP sessions and long-lived TCP flows (tcp.bpf.h) inside the kernel. It
 * sits at the ingress of the loopback interface and of every Ethernet device. A packet of a known session gets its
 * addresses and ports rewritten, its checksums corrected, and goes on: up the stack when client and origin are on this
 * machine, out of a device otherwise.
 *
 * At first a session is only observed: when packets of both directions have come by under the addresses that user space
 * knows, nothing on this machine translates them, and rewriting them here is safe. NAT by netfilter shows itself so.
 *
 * Whatever is unusual is left alone and so reaches user space, which still has the session's sockets: fragments, IP
 * options and extension headers, a hop limit that runs out, packets larger than the way out takes, no route, other
 * families.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/shared.h"

#define NEXT		 (-1)	/* TCX_NEXT, TC_ACT_UNSPEC: as if we had not been asked */
#define IP_FRAGMENT	 0x3fff /* more fragments, or an offset */
#define LOOPBACK_IFINDEX 1	/* of every network namespace */

/* Both directions of each session, by the packet as it arrives. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FAST_SESSIONS_MAX * 2);
	__type(key, struct fast_tuple);
	__type(value, struct fast_target);
} sessions SEC(".maps");

/* Counters of each session, by slot. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FAST_SESSIONS_MAX);
	__type(key, __u32);
	__type(value, struct fast_counters);
} counters SEC(".maps");

const volatile _Bool tcp_on = 1; /* set before loading */

/* A parsed packet. */
struct packet {
	struct fast_tuple tuple;
	_Bool v4;
	__u8 protocol;
	__u8 hops;	  /* TTL or hop limit */
	__u32 l4;	  /* offset of the UDP or TCP header */
	__u32 l4_length;  /* of that header */
	__u32 check;	  /* offset of its checksum */
	__u64 check_kind; /* BPF_F_MARK_MANGLED_0 where a checksum of 0 means that there is none */
	__u32 length;	  /* of the IP packet */
	__u32 payload;
};

static __always_inline _Bool parse_v4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(IP_FRAGMENT))
		return 0;
	p->tuple.saddr[10] = p->tuple.saddr[11] = p->tuple.daddr[10] = p->tuple.daddr[11] = 0xff;
	__builtin_memcpy(p->tuple.saddr + 12, &ip->saddr, 4);
	__builtin_memcpy(p->tuple.daddr + 12, &ip->daddr, 4);
	p->v4 = 1;
	p->protocol = ip->protocol;
	p->hops = ip->ttl;
	p->length = bpf_ntohs(ip->tot_len);
	p->l4 = ETH_HLEN + sizeof(*ip);
	return 1;
}

static __always_inline _Bool parse_v6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return 0;
	if (ip->version != 6)
		return 0;
	__builtin_memcpy(p->tuple.saddr, &ip->saddr, 16);
	__builtin_memcpy(p->tuple.daddr, &ip->daddr, 16);
	p->v4 = 0;
	p->protocol = ip->nexthdr;
	p->hops = ip->hop_limit;
	p->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	p->l4 = ETH_HLEN + sizeof(*ip);
	return 1;
}

static __always_inline _Bool parse_udp(struct __sk_buff *skb, struct packet *p)
{
	struct udphdr *udp =
		(void *)(long)skb->data + (p->v4 ? ETH_HLEN + sizeof(struct iphdr) : ETH_HLEN + sizeof(struct ipv6hdr));

	if ((void *)(udp + 1) > (void *)(long)skb->data_end)
		return 0;
	p->tuple.sport = udp->source;
	p->tuple.dport = udp->dest;
	p->l4_length = sizeof(*udp);
	p->check = p->l4 + offsetof(struct udphdr, check);
	p->check_kind = BPF_F_MARK_MANGLED_0;
	p->payload = bpf_ntohs(udp->len) - sizeof(*udp);
	return bpf_ntohs(udp->len) >= sizeof(*udp);
}

static __always_inline _Bool parse_ip(struct __sk_buff *skb, struct packet *p)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_v4(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return parse_v6(skb, p);
	return 0;
}

/* Whether the packet can leave as it is: user space sees to those that can't. */
static __always_inline _Bool can_leave(struct __sk_buff *skb, const struct packet *p, __u32 max_length)
{
	__u32 length = skb->gso_size ? skb->gso_size + p->l4 - ETH_HLEN + p->l4_length : p->length;

	return p->hops > 1 && length <= max_length;
}

static __always_inline void rewrite_v4(
	struct __sk_buff *skb, const struct packet *p, const struct fast_tuple *to, __u8 hops)
{
	__u32 from_addrs[2], to_addrs[2];
	__u16 hops_word[2];
	__s64 diff;

	__builtin_memcpy(&from_addrs[0], p->tuple.saddr + 12, 4);
	__builtin_memcpy(&from_addrs[1], p->tuple.daddr + 12, 4);
	__builtin_memcpy(&to_addrs[0], to->saddr + 12, 4);
	__builtin_memcpy(&to_addrs[1], to->daddr + 12, 4);
	diff = bpf_csum_diff(from_addrs, sizeof(from_addrs), to_addrs, sizeof(to_addrs), 0);
	bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), 0, diff, 0);
	bpf_l4_csum_replace(skb, p->check, 0, diff, BPF_F_PSEUDO_HDR | p->check_kind);
	bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), to_addrs, sizeof(to_addrs), 0);
	if (hops != p->hops) {
		hops_word[0] = bpf_htons((__u16)(p->hops << 8));
		hops_word[1] = bpf_htons((__u16)(hops << 8));
		bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), hops_word[0], hops_word[1], 2);
		bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, ttl), &hops, 1, 0);
	}
}

static __always_inline void rewrite_v6(
	struct __sk_buff *skb, const struct packet *p, const struct fast_tuple *to, __u8 hops)
{
	__u32 from_addrs[8], to_addrs[8];
	__s64 diff;

	__builtin_memcpy(from_addrs, p->tuple.saddr, 32);
	__builtin_memcpy(to_addrs, to->saddr, 32);
	diff = bpf_csum_diff(from_addrs, sizeof(from_addrs), to_addrs, sizeof(to_addrs), 0);
	bpf_l4_csum_replace(skb, p->check, 0, diff, BPF_F_PSEUDO_HDR | p->check_kind);
	bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), to_addrs, sizeof(to_addrs), 0);
	if (hops != p->hops)
		bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, hop_limit), &hops, 1, 0);
}

static __always_inline void rewrite_addresses(
	struct __sk_buff *skb, const struct packet *p, const struct fast_tuple *to, __u8 hops)
{
	if (p->v4)
		rewrite_v4(skb, p, to, hops);
	else
		rewrite_v6(skb, p, to, hops);
}

static __always_inline void rewrite(
	struct __sk_buff *skb, const struct packet *p, const struct fast_tuple *to, __u8 hops)
{
	__u32 from_ports, to_ports;
	__s64 diff;

	rewrite_addresses(skb, p, to, hops);
	__builtin_memcpy(&from_ports, &p->tuple.sport, 4);
	__builtin_memcpy(&to_ports, &to->sport, 4);
	diff = bpf_csum_diff(&from_ports, 4, &to_ports, 4, 0);
	bpf_l4_csum_replace(skb, p->check, 0, diff, p->check_kind);
	bpf_skb_store_bytes(skb, p->l4, &to_ports, sizeof(to_ports), 0);
}

static __always_inline void count(struct __sk_buff *skb, const struct packet *p, const struct fast_target *target)
{
	__u32 slot = target->slot, direction = target->direction & 1;
	struct fast_counters *c = bpf_map_lookup_elem(&counters, &slot);

	if (!c)
		return;
	/* a device may spread one flow over several CPUs */
	__sync_fetch_and_add(&c->datagrams[direction], skb->gso_segs > 1 ? skb->gso_segs : 1);
	__sync_fetch_and_add(&c->bytes[direction], p->payload);
	c->last_ns[direction] = bpf_ktime_get_ns();
}

static __always_inline void note_seen(const struct fast_target *target)
{
	__u32 slot = target->slot;
	struct fast_counters *c = bpf_map_lookup_elem(&counters, &slot);

	if (c)
		c->seen[target->direction & 1] = 1;
}

static __always_inline int carry_udp(struct __sk_buff *skb, struct packet *p)
{
	struct fast_target *target;

	if (!parse_udp(skb, p))
		return NEXT;
	target = bpf_map_lookup_elem(&sessions, &p->tuple);
	if (!target)
		return NEXT;
	if (target->local ? skb->ingress_ifindex != LOOPBACK_IFINDEX : !can_leave(skb, p, target->max_length))
		return NEXT;
	if (target->observe) {
		note_seen(target);
		return NEXT;
	}
	count(skb, p, target);
	rewrite(skb, p, &target->to, target->local ? p->hops : p->hops - 1);
	return target->local ? NEXT : bpf_redirect_neigh(target->ifindex, 0, 0, 0);
}

#include "bpf/fastpath/tcp.bpf.h"

SEC("tc")
int fastpath(struct __sk_buff *skb)
{
	struct packet p = {};

	/* a VLAN's tag would go along; what is not addressed to this machine is not for us, though it came by */
	if (skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return NEXT;
	if (!parse_ip(skb, &p))
		return NEXT;
	if (p.protocol == IPPROTO_UDP)
		return carry_udp(skb, &p);
	if (p.protocol == IPPROTO_TCP && tcp_on && tcp_sessions_now)
		return carry_tcp(skb, &p);
	return NEXT;
}

char _license[] SEC("license") = "GPL"; /* the kernel asks for the half of the choice that it knows */
