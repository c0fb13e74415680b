/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of ports by protocol, and the plan which ports of a rule set this node serves. */
#pragma once

#include "edge/options.h"

struct port_map {
	uint64_t bits[PROTOCOL_N][(1 << 16) / 64];
};

static inline bool port_map_has(const struct port_map *m, enum protocol protocol, unsigned int port)
{
	return m->bits[protocol][port / 64] >> (port % 64) & 1;
}

static inline void port_map_add(struct port_map *m, enum protocol protocol, unsigned int port)
{
	m->bits[protocol][port / 64] |= UINT64_C(1) << (port % 64);
}

/** port_map_count() - how many ports of a protocol are in the set */
unsigned int port_map_count(const struct port_map *m, enum protocol protocol);

/**
 * port_plan() - which ports of @set to serve
 * @options:   which addresses we listen on, and where we serve metrics
 * @held:      ports that this process serves already: theirs are the sockets we would find there
 * @ret_serve: all ports of the set, less those inside ranges on which other programs listen (each is logged)
 * @problems:  a port that a rule names exactly and another program has
 *
 * Return: RULES_OK; RULES_E_WRONG; -errno.
 */
MUST_CHECK int port_plan(const struct config *set, const struct options *options, const struct port_map *held,
	struct port_map *ret_serve, struct problems *problems);
