/* SPDX-License-Identifier: Apache-2.0 */
/* Which ports of this machine (of this network namespace) programs listen on, asked of the kernel by NETLINK_SOCK_DIAG.
 */
#pragma once

#include "base/addr.h"

struct sock_diag_entry {
	struct addr local; /* an unspecified address listens on all of its family */
	uint32_t inode;
	uint32_t uid;
};

/**
 * sock_diag_listeners() - call @each for every listening TCP socket or unconnected UDP socket that has a port
 * @tcp:  true for TCP, false for UDP
 *
 * Return: 0; -errno.
 */
MUST_CHECK int sock_diag_listeners(bool tcp, void (*each)(const struct sock_diag_entry *entry, void *arg), void *arg);

/**
 * sock_owner() - which program holds a socket, as far as we may look
 * @ret_text: receives "nginx (pid 4711)", or "another program (uid 33)" when it can't be told
 */
enum { SOCK_OWNER_SIZE = 64 };
void sock_owner(const struct sock_diag_entry *entry, char ret_text[static SOCK_OWNER_SIZE]);
