/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TOA, the TCP option that names the client of a connection:
 *
 *   0  kind
 *   1  length: 8 with an IPv4 address, 20 with an IPv6 address
 *   2  client port, 2 bytes, big-endian
 *   4  client address, 4 or 16 bytes
 *
 * There is no magic and no checksum. Kinds differ between senders: 200 for both families here; 254 for both, or 254
 * and 253, elsewhere.
 */
#pragma once

#include "base/addr.h"
#include "base/macros.h"

enum {
	TOA_OPTION_MAX = 20,
	TOA_KIND_DEFAULT = 200,
};

/**
 * toa_encode() - build the option
 * @kind:   of the client's family
 * @client: who connected; a scope_id is not sent
 * @out:    destination, uint8_t[static TOA_OPTION_MAX]; bytes behind the returned length are untouched
 *
 * Pure: no I/O, no clock, no allocation.
 *
 * Return: bytes written, 8 or 20.
 */
size_t toa_encode(uint8_t kind, const struct addr *client, uint8_t out[static TOA_OPTION_MAX]);
