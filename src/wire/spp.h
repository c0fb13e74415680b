/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SPP, the Simple Proxy Protocol: 38 bytes in front of a UDP payload that name the client and the address the
 * client wrote to. On the way to the origin every datagram carries them; the origin puts the same bytes in
 * front of its answers.
 *
 *   0  magic 56 ec
 *   2  client address, 16 bytes (IPv4 as ::ffff:a.b.c.d)
 *  18  edge address, 16 bytes
 *  34  client port, 2 bytes, big-endian
 *  36  edge port, 2 bytes, big-endian
 *
 * Source: Cloudflare Spectrum, "Simple Proxy Protocol Header"; EdgeOne, "Passing Real Client IP Through SPP".
 * There is no version, no length and no checksum: payload can begin with the magic by chance, so whoever
 * takes a header off compares the addresses too. That is left to the caller, as is what to do with an answer
 * without a header.
 */
#pragma once

#include "base/addr.h"
#include "base/macros.h"

enum { SPP_SIZE = 38 };

enum {
	SPP_OK,
	SPP_E_SHORT, /* fewer than SPP_SIZE bytes, whatever they are */
	SPP_E_MAGIC, /* does not begin with 56 ec */
};

/**
 * spp_encode() - build the header that goes in front of a datagram's payload
 * @client: who sent the datagram
 * @edge:   which address they sent it to; may be of another family than @client
 * @out:    destination, uint8_t[static SPP_SIZE]; all of it is written
 *
 * A scope_id is not sent.
 *
 * Pure: no I/O, no clock, no allocation.
 */
void spp_encode(const struct addr *client, const struct addr *edge, uint8_t out[static SPP_SIZE]);

/**
 * spp_decode() - read the header at the front of a datagram
 * @bytes:      the datagram
 * @length:     its length; the payload begins at SPP_SIZE and is not looked at
 * @ret_client: who sent the datagram; scope_id 0; untouched unless SPP_OK
 * @ret_edge:   which address they sent it to; scope_id 0; untouched unless SPP_OK
 *
 * Any 36 bytes behind the magic are two addresses: spp_encode() of the result gives the same bytes again.
 *
 * Pure: no I/O, no clock, no allocation.
 *
 * Return: SPP_OK, SPP_E_SHORT or SPP_E_MAGIC.
 */
MUST_CHECK int spp_decode(const void *bytes, size_t length, struct addr *ret_client, struct addr *ret_edge);
