/* SPDX-License-Identifier: Apache-2.0 */
/* Giving up rights that are not needed after start. */
#pragma once

#include "base/macros.h"

/**
 * privilege_drop() - keep CAP_NET_BIND_SERVICE (reply sockets and new rules on ports below 1024) if we have it, and
 * nothing else
 * @net_admin: keep CAP_NET_ADMIN, too (TCP_REPAIR, for flows on the kernel's fast path)
 *
 * For the calling thread, before others are started. New privileges can't be gained by exec either.
 *
 * Return: 0; -errno.
 */
MUST_CHECK int privilege_drop(bool net_admin);

/** privilege_raise_fd_limit() - soft limit of file descriptors up to the hard one. Return: the limit. */
uint32_t privilege_raise_fd_limit(void);
