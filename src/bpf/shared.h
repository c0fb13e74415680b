/* SPDX-License-Identifier: Apache-2.0 */
/* What BPF programs and the code that loads them both know. Fixed widths, explicit padding, nothing else. */
#pragma once

#include <linux/bpf.h>
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

/* --- fastpath: long-lived TCP flows --- */

enum fast_tcp_state {
	FAST_TCP_NONE,
	FAST_TCP_WATCH, /* packets are looked at, and go on to the edge's sockets */
	FAST_TCP_CARRY, /* packets are translated */
};

/* Why FAST_TCP_WATCH could not become FAST_TCP_CARRY just now. */
enum fast_tcp_flip_result {
	FAST_TCP_FLIPPED,
	FAST_TCP_E_GONE,   /* not a session, or one of the sockets is not established any more */
	FAST_TCP_E_UNSEEN, /* no packet of one of the directions has come by */
	FAST_TCP_E_BUSY,   /* something is under way */
};

/* What the worker is told through its ring, and finds in the session's counters. */
enum {
	FAST_TCP_FIN = 1,    /* << direction: this end has closed its direction */
	FAST_TCP_RST = 4,    /* << direction: this end has reset the connection */
	FAST_TCP_ENDED = 16, /* both have closed, and each has confirmed the other's */
	FAST_TCP_FIRST = 32, /* << direction: its FIN came first */
	FAST_TCP_EVENT_RING = 256 << 10,
	FAST_TCP_WORKERS_MAX = 64,
	FAST_TCP_PROBE_MARK = 0x7464676b, /* of keep-alive probes, until they are carried */
};

/* What becomes of the packets of one direction. */
struct fast_tcp_target {
	struct fast_tuple to;
	__u32 slot;
	__u32 generation; /* of the slot: entries of a session that is over do not touch the next one's */
	__u32 direction;
	__u32 local; /* as in struct fast_target */
	__u32 ifindex;
	__u32 max_length;
};
_Static_assert(sizeof(struct fast_tcp_target) == 60, "no padding");

/* One direction. Sequence numbers and time stamps are the sender's own, as they arrive. */
struct fast_tcp_way {
	__u32 seen;	 /* the highest sequence number let through, and one */
	__u32 acked;	 /* up to here the other end has confirmed */
	__u32 limit;	 /* up to here it has offered room */
	__u32 fin_end;	 /* sequence number after its FIN */
	__u32 timestamp; /* the latest one that belongs to the stream */
	__u32 seq_delta; /* what is added on the way */
	__u32 timestamp_delta;
	__u8 scale_in;	/* shift of the window field as it arrives */
	__u8 scale_out; /* as the other end expects it */
	__u8 flags;	/* FAST_TCP_WAY_… */
	__u8 padding;
};
_Static_assert(sizeof(struct fast_tcp_way) == 32, "no padding");

enum {
	FAST_TCP_WAY_SEEN = 1,
	FAST_TCP_WAY_TIMESTAMP = 2,
	FAST_TCP_WAY_LIMIT = 4,
};

struct fast_tcp_session {
	struct bpf_spin_lock lock;
	__u32 state;
	__u32 generation;
	__u32 worker;
	__u32 told; /* FAST_TCP_FIN and so on: what has happened so far */
	__u32 padding;
	struct fast_tcp_way way[2];
};
_Static_assert(sizeof(struct fast_tcp_session) == 88, "no padding");

/* Written by the program, read by user space through the map's memory. */
struct fast_tcp_counters {
	__u64 bytes[2];
	__u64 packets[2];
	__u64 last_ns; /* CLOCK_MONOTONIC */
	__u64 told;
	__u64 padding[2];
};
_Static_assert(sizeof(struct fast_tcp_counters) == 64, "no padding");

struct fast_tcp_event {
	__u32 slot;
	__u32 generation;
};

/* Input of the flip program, as if it were a frame. */
struct fast_tcp_flip {
	__u8 ethernet[16];	      /* zero */
	struct fast_tuple arrives[2]; /* of each direction */
	__u32 slot;
	__u32 generation;
	__u64 received[2]; /* bytes that the socket which hears this direction has got, all of them passed on */
	__u32 now[2];	   /* time stamp clock of the socket which speaks in this direction; 0 without time stamps */
	__u8 scale_in[2];
	__u8 scale_out[2];
	__u32 padding;
};
_Static_assert(sizeof(struct fast_tcp_flip) == 128, "no padding");

/* --- toa_send: the client's address in a TCP option --- */

enum {
	TOA_V4 = 8, /* bytes of the option */
	TOA_V6 = 20,
	TOA_SYNS = 2, /* so many SYNs carry it, then one goes without */
	TOA_SLOTS = 1024,
	TOA_PROBES = 4, /* slots that a socket's address may stand in: from its cookie on, modulo TOA_SLOTS */
};

struct toa_address {
	__u8 option[TOA_V6]; /* as it goes on the wire */
	__u8 length;	     /* TOA_V4 or TOA_V6 */
	__u8 in_syn;
	__u8 syns; /* the program's: SYNs sent with it, and one more when one went without */
	__u8 zero;
};
_Static_assert(sizeof(struct toa_address) == 24, "no padding");

/* Where an address stands while it is handed over: around connect(), in which the program takes it. */
struct toa_slot {
	__u64 cookie; /* of the socket; 0: free */
	__u64 taken;  /* by the program: 1 */
	struct toa_address address;
};
_Static_assert(sizeof(struct toa_slot) == 40, "no padding");

/* Written by the program alone. */
struct toa_counts {
	__u64 no_room;	   /* segments whose header was full */
	__u64 syn_without; /* connections whose SYN had to go without */
};
_Static_assert(sizeof(struct toa_counts) == 16, "no padding");

/* --- toa_recv: the client's address of a TCP option, on origins --- */

enum {
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
struct toa_client {
	__u32 ip[4];  /* network order; IPv4 as ::ffff:a.b.c.d */
	__u16 port;   /* network order */
	__u8 counted; /* 1: to be counted as freed when the socket closes */
	__u8 zero;
};
_Static_assert(sizeof(struct toa_client) == 20, "no padding");

/* The option, with IPv4 only in its first address word. */
struct toa_option {
	__u8 kind;
	__u8 size;
	__u16 port; /* network order, as the address */
	__u32 ip[4];
};
_Static_assert(sizeof(struct toa_option) == TOA_V6, "as it is on the wire");

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
