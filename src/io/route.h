/* SPDX-License-Identifier: Apache-2.0 */
/* Asking the kernel how it would route (RTNETLINK). */
#pragma once

#include "base/addr.h"

/**
 * route_open() - a socket for route_lookup()
 *
 * Return: the fd; -errno.
 */
MUST_CHECK int route_open(void);

/** route_watch() - a socket that becomes readable when routes or interfaces change. Return: the fd; -errno. */
MUST_CHECK int route_watch(void);

/** route_watch_drain() - read all that it has to say */
void route_watch_drain(int fd);

/** route_mtu() - the longest packet that leaves whole by an interface; 0 when it is gone. @fd: from route_open() */
uint32_t route_mtu(int fd, int ifindex);

/**
 * route_lookup() - the interface by which packets of ours to @to leave
 * @fd: from route_open(); one thread at a time
 * @from:    our source address
 * @ret_mtu: the longest packet that the route takes, if it has a limit of its own; else 0
 *
 * Return: its index; 0 when @to is an address of this machine; -errno (-ENETUNREACH …).
 */
MUST_CHECK int route_lookup(int fd, const struct ip *from, const struct ip *to, uint32_t *ret_mtu);
