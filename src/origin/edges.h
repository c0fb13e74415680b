/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the library know of each other. */
#pragma once

#include "base/addr.h"
#include "origin/tidegate-origin.h"

struct tgo_edges {
	uint8_t kind_v4;
	uint8_t kind_v6;
	size_t count;
	struct prefix prefixes[];
};

/** edges_have() - tgo_edges_has() for our own form of addresses */
bool edges_have(const struct tgo_edges *edges, const struct ip *ip);

/**
 * peer_of() - tgo_peer() with another getpeername(), for who replaces that one
 *
 * Return: as tgo_peer().
 */
MUST_CHECK int peer_of(int fd, const struct tgo_edges *edges, int (*name)(int, struct sockaddr *, socklen_t *),
	struct tgo_peer *ret_peer);

/** addr_to_public() - our form to the public one */
void addr_to_public(const struct addr *a, union tgo_addr *ret_addr);

/** addr_from_public() - and back; no address gives zeros */
struct addr addr_from_public(const union tgo_addr *a);
