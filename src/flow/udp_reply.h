/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sockets that answers leave by, one for each edge port in use. With steering, the listener is bound to some other
 * port, so these are made when the first session of a port begins; they hear nothing, since sk_lookup comes first, and
 * what might slip through in between is filtered out. Some stay open when their last session ends, since the next one
 * often follows. With plain binds the listeners themselves are lent.
 */
#pragma once

#include "base/addr.h"
#include "base/list.h"
#include "base/macros.h"

struct udp_reply {
	struct list idle; /* in udp_replies.idle while no session uses it */
	int fd;
	uint32_t sessions;
	uint16_t port;
	bool v4;
	bool lent;
};

struct udp_replies {
	struct udp_reply **by_port[2]; /* IPv6, IPv4; each 65536 pointers */
	struct list idle;	       /* oldest first */
	unsigned int idle_count;
	unsigned int own_count; /* sockets that are ours, in use or idle */
};

enum { UDP_REPLIES_IDLE_MAX = 64 };

/** udp_replies_init() - Return: 0; -ENOMEM. */
MUST_CHECK int udp_replies_init(struct udp_replies *r);

/** udp_replies_deinit() - close all that are ours */
void udp_replies_deinit(struct udp_replies *r);

/**
 * udp_reply_get() - the socket for a port, for one more session
 * @edge: address and port; a new socket is bound to just this address, since another program may have the port on
 * others. IP_PKTINFO lets it send from any other of our addresses.
 *
 * Return: 0; -errno of making or binding it (-EADDRINUSE: another program has the port).
 */
MUST_CHECK int udp_reply_get(struct udp_replies *r, const struct addr *edge, struct udp_reply **ret_reply);

/** udp_reply_put() - a session has ended */
void udp_reply_put(struct udp_replies *r, struct udp_reply *reply);

/** udp_reply_set_lent() - @fd, which stays the caller's, is the socket for a port; -1 takes it back. Return: 0;
 * -ENOMEM. */
MUST_CHECK int udp_reply_set_lent(struct udp_replies *r, bool v4, uint16_t port, int fd);
