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
