/* SPDX-License-Identifier: Apache-2.0 */
/* What BPF programs and the code that loads them both know. Fixed widths, explicit padding, nothing else. */
#pragma once

#include <linux/types.h>

enum {
	STEER_TCP,
	STEER_UDP,
	STEER_PROTOCOLS,
};

enum {
	STEER_V4,
	STEER_V6,
	STEER_FAMILIES,
};

enum {
	STEER_WORDS = 65536 / 64, /* words of one protocol's port bitmap */
	STEER_ADDRESSES_MAX = 1024,
};

/* A local address that is listened on; IPv4 as ::ffff:a.b.c.d. */
struct steer_address {
	__u8 ip[16];
};
_Static_assert(sizeof(struct steer_address) == 16, "no padding");

/* --- fastpath: established UDP sessions --- */

enum {
	FAST_SESSIONS_MAX = 32768,
	FAST_TO_ORIGIN = 0, /* directions: index into the arrays of struct fast_counters */
	FAST_TO_CLIENT = 1,
};

/* A packet's addresses and ports; IPv4 as ::ffff:a.b.c.d. Ports in network order. */
struct fast_tuple {
	__u8 saddr[16];
	__u8 daddr[16];
	__u16 sport;
	__u16 dport;
};
_Static_assert(sizeof(struct fast_tuple) == 36, "no padding: it is a key");

/* What becomes of the packets of one direction of a session. */
struct fast_target {
	struct fast_tuple to;
	__u32 slot;	 /* of the session's counters */
	__u32 direction; /* FAST_TO_ORIGIN or FAST_TO_CLIENT */
	__u32 local; /* 1: client and origin are on this machine: packets of the loopback interface, delivered there */
	__u32 ifindex;	  /* where they leave when not local */
	__u32 max_length; /* longer IP packets go to user space; of no matter when local */
	__u32 observe;	  /* 1: only note that its packets come by here, and leave them alone */
};
_Static_assert(sizeof(struct fast_target) == 60, "no padding");

/* Written by the program alone, read by user space through the map's memory. */
struct fast_counters {
	__u64 datagrams[2];
	__u64 bytes[2];	  /* payload */
	__u64 last_ns[2]; /* CLOCK_MONOTONIC */
	__u64 seen[2];	  /* packets while observing */
};
_Static_assert(sizeof(struct fast_counters) == 64, "no padding");

/* --- toa_recv: the client's address of a TCP option, on origins --- */

enum {
	TOA_SIZE_V4 = 8, /* bytes of the option: kind, length, port, address */
	TOA_SIZE_V6 = 20,
	TOA_KIND_EXPERIMENT_1 = 253, /* RFC 6994: the kernel's search wants a magic behind these two */
	TOA_KIND_EXPERIMENT_2 = 254,
	TOA_SO_GET_LOOKUP = 4096, /* getsockopt(IPPROTO_IP): the client's address when it is IPv6 */
	TOA_TRUST_MAX = 4096,	  /* prefixes */
	TOA_CGROUP_SIZE = 256,
};

/* A prefix of trusted edges. The family stands ahead of the address, so that ::/0 has no IPv4 address in it. */
struct toa_prefix {
	__u32 bits;   /* of family and address: 32 more than in the 128-bit form */
	__u32 family; /* network order: 4 or 6 */
	__u32 ip[4];  /* network order; IPv4 as ::ffff:a.b.c.d */
};
_Static_assert(sizeof(struct toa_prefix) == 24, "no padding: it is a key");

/* What a socket knows of its client. */
struct toa_address {
	__u32 ip[4];  /* network order; IPv4 as ::ffff:a.b.c.d */
	__u16 port;   /* network order */
	__u8 counted; /* 1: to be counted as freed when the socket closes */
	__u8 zero;
};
_Static_assert(sizeof(struct toa_address) == 20, "no padding");

/* The option, with IPv4 only in its first address word. */
struct toa_option {
	__u8 kind;
	__u8 size;
	__u16 port; /* network order, as the address */
	__u32 ip[4];
};
_Static_assert(sizeof(struct toa_option) == TOA_SIZE_V6, "as it is on the wire");

/* What getsockopt(TOA_SO_GET_LOOKUP) gives. */
struct toa_lookup {
	__u32 ip[4]; /* network order */
	__u16 port;  /* network order */
	__u16 zero;
};
_Static_assert(sizeof(struct toa_lookup) == 20, "as kernel modules have it");

/* In the order of tables/toa_counter.def. */
enum toa_counter {
#define TOA_COUNTER(id, name, help) TOA_COUNTER_##id,
#include "tables/toa_counter.def"
	TOA_COUNTER_N
};

/* Of one processor. */
struct toa_counters {
	__u64 count[TOA_COUNTER_N];
};

/* Written once by user space, for those who ask later; the program does not look at it. */
struct toa_settings {
	__u64 since_s; /* wall clock, seconds since 1970 */
	__u64 cgroup_id;
	__u32 version; /* TOA_SETTINGS_VERSION */
	__u8 kind_v4;
	__u8 kind_v6;
	__u8 save_syn; /* 1: listeners keep the SYN */
	__u8 lookup;   /* 1: TOA_SO_GET_LOOKUP is answered */
	char cgroup[TOA_CGROUP_SIZE];
};
_Static_assert(sizeof(struct toa_settings) == 24 + TOA_CGROUP_SIZE, "no padding");

enum { TOA_SETTINGS_VERSION = 1 };
