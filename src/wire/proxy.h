/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PROXY protocol, versions 1 (a line of text) and 2 (binary): a header that stands ahead of a
 * connection's first byte, or at the front of a datagram, and names the client and the address that the
 * client connected to.
 *
 * Source: haproxy proxy-protocol.txt, section 2.1 for version 1, 2.2 for version 2.
 *
 * Where the specification leaves a choice, or senders in the field stretch it, this is what decoding does:
 *   - An IPv6 field may hold an IPv4-mapped address, in both versions, at one end or at both: balancers
 *     that listen on dual-stack sockets send that, and it is how HAProxy and nginx name a client and an
 *     edge of different families. It is taken as the IPv4 address it names. So the families of client and
 *     edge may differ in a decoded header; encoding such a pair makes an IPv6 header again.
 *   - Version 1 takes the text of an IPv6 address as inet_pton() does (either case, a dotted IPv4 tail),
 *     up to the 39 characters of the specification's longest.
 *   - Version 1 UNKNOWN: anything but CRLF may follow it behind a space.
 *   - Version 2 LOCAL: the family byte and the block are skipped unread, as the specification demands. In
 *     every other header the bytes behind the addresses its family needs (none for UNSPEC) must be whole
 *     TLVs.
 *   - Version 2 knows the family bytes 00 11 12 21 22 31 32; UNSPEC and UNIX come without an address.
 *   - A CRC32C TLV is verified; two of them are refused, since each would be computed with itself as zero.
 *
 * Whether a peer may send a header at all is a setting and never guessed from the bytes: decode only what
 * comes from a trusted sender.
 *
 * Everything here is pure: no I/O, no clock, no allocation.
 */
#pragma once

#include "base/addr.h"
#include "base/macros.h"

enum {
	PROXY_V1_MAX = 107,	 /* bytes of the longest version 1 line, CRLF included */
	PROXY_V2_MAX = 52,	 /* bytes of the longest version 2 header that we send */
	PROXY_HEADER_MAX = 4096, /* bytes of the longest header, TLVs included, that we accept */
};

enum proxy_transport { PROXY_STREAM, PROXY_DGRAM };

struct proxy_header {
	size_t length;	      /* bytes that the header takes in the input */
	unsigned int version; /* 1 or 2 */
	bool has_addr;	      /* false: use the connection's own addresses; dgram, client and edge are zero */
	bool dgram;	      /* the client speaks UDP; always false in version 1 */
	struct addr client;   /* who connected; scope_id 0 */
	struct addr edge;     /* what they connected to; scope_id 0 */
};

enum {
	PROXY_OK,
	PROXY_E_MORE, /* a true beginning of a header: read on and ask again with all the bytes so far */
	PROXY_E_BAD,  /* no header begins like this, whatever follows */
};

/**
 * proxy_v1_encode() - build the line sent ahead of a TCP client's first byte
 * @client: who connected
 * @edge:   which address they connected to; of two families, the IPv4 address is sent as IPv4-mapped IPv6
 * @out:    destination, uint8_t[static PROXY_V1_MAX]; bytes behind the returned length may be overwritten
 *
 * "PROXY TCP4 192.0.2.1 198.51.100.2 40000 443\r\n", with addresses as ip_format() gives them. A scope_id is
 * not sent.
 *
 * Pure: no I/O, no clock, no allocation.  Source: haproxy proxy-protocol.txt, section 2.1.
 *
 * Return: bytes written, at most 104, without a NUL.
 */
MUST_CHECK int proxy_v1_encode(const struct addr *client, const struct addr *edge, uint8_t out[static PROXY_V1_MAX]);

/**
 * proxy_v2_encode() - build the header sent ahead of the client's bytes, or in front of a datagram's payload
 * @transport: how the client speaks: PROXY_STREAM for TCP, PROXY_DGRAM for UDP
 * @client:    who connected
 * @edge:      which address they connected to; of two families, the IPv4 address is sent as IPv4-mapped IPv6
 * @out:       destination, uint8_t[static PROXY_V2_MAX]
 *
 * Signature 0d0a0d0a000d0a515549540a, 21 (version 2, PROXY), 11 12 21 or 22 (family, transport), length,
 * client and edge address, client and edge port; numbers big-endian. No TLVs. A scope_id is not sent.
 *
 * Pure: no I/O, no clock, no allocation.  Source: haproxy proxy-protocol.txt, section 2.2.
 *
 * Return: bytes written (28 for IPv4, 52 for IPv6).
 */
MUST_CHECK int proxy_v2_encode(enum proxy_transport transport, const struct addr *client, const struct addr *edge,
	uint8_t out[static PROXY_V2_MAX]);

/**
 * proxy_decode() - read a header of either version from the front of what a trusted sender sent
 * @bytes:      all bytes received so far, from the connection's first or the datagram's first
 * @length:     their number; what stands behind the header is not looked at
 * @ret_header: the header, on PROXY_OK; else untouched
 * @ret_why:    on PROXY_E_BAD, static text that says what was found wrong; else untouched
 *
 * The first byte tells the version. Garbage is refused at its first wrong byte: for a stream, PROXY_E_MORE
 * promises that bytes exist which complete a header of at most PROXY_HEADER_MAX bytes. Only a checksum is
 * judged by the whole. For a datagram PROXY_E_MORE means that it was cut short.
 *
 * Pure: no I/O, no clock, no allocation.  Source: haproxy proxy-protocol.txt, section 2.
 *
 * Return: PROXY_OK, PROXY_E_MORE or PROXY_E_BAD.
 */
MUST_CHECK int proxy_decode(const void *bytes, size_t length, struct proxy_header *ret_header, const char **ret_why);

/** proxy_v1_decode() - as proxy_decode(), version 1 only; a line is refused when it exceeds PROXY_V1_MAX */
MUST_CHECK int proxy_v1_decode(const void *bytes, size_t length, struct proxy_header *ret_header, const char **ret_why);

/** proxy_v2_decode() - as proxy_decode(), version 2 only; a header is refused when it exceeds
 * PROXY_HEADER_MAX */
MUST_CHECK int proxy_v2_decode(const void *bytes, size_t length, struct proxy_header *ret_header, const char **ret_why);
