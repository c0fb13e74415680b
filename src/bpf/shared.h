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
	STEER_WORDS = 65536 / 64,	  /* words of one protocol's port bitmap */
	STEER_ADDRESSES_MAX = 1024,
};

/* A local address that is listened on; IPv4 as ::ffff:a.b.c.d. */
struct steer_address {
	__u8 ip[16];
};
_Static_assert(sizeof(struct steer_address) == 16, "no padding");
