/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SYN of a connection as the kernel keeps it: an IPv4 or IPv6 header, a TCP header, nothing else. Its source is who
 * really connected; its options may name a client.
 *
 * Pure: no I/O, no clock, no allocation.
 */
#pragma once

#include "base/addr.h"

enum { SYN_SIZE_MAX = 256 }; /* room for the longest that is looked at; the kernel cuts none */

enum {
	SYN_OK,
	SYN_E_NONE, /* no option of these kinds with the length of its family */
	SYN_E_BAD,  /* no IP and TCP header */
};

/**
 * syn_decode() - find the client that a SYN names
 * @kind_v4:    of an option of 8 bytes: kind, length, port, IPv4 address
 * @kind_v6:    of an option of 20 bytes; may be the same
 * @ret_source: where the SYN came from; untouched for SYN_E_BAD
 * @ret_client: whom the first such option names; untouched unless SYN_OK
 *
 * The search ends at the end of the options, or at one whose length is wrong.
 *
 * Return: SYN_OK, SYN_E_NONE or SYN_E_BAD.
 */
MUST_CHECK int syn_decode(const void *bytes, size_t length, uint8_t kind_v4, uint8_t kind_v6, struct addr *ret_source,
	struct addr *ret_client);
