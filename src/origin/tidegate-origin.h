/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libtidegate-origin: who the client of a connection or datagram is, for servers behind Tidegate or another proxy that
 * passes the client's address in the TCP option (TOA), in the PROXY protocol (v1, v2) or in the Simple Proxy Protocol
 * (SPP). Needs nothing but libc. See libtidegate-origin(3), and docs/origin.md for which of them to use.
 *
 * A return value below 0 is -errno, or one of the TGO_E values, which tgo_strerror() knows too. Outputs are untouched
 * then. Except for tgo_edges_set_kinds(), everything may be called from any number of threads; calls about one
 * descriptor or object are the caller's to order.
 *
 * None of these headers has a signature. Whoever may send one can name any client, so take them from your edges only:
 * tgo_edges_has() tells who is one.
 */
#ifndef TIDEGATE_ORIGIN_H
#define TIDEGATE_ORIGIN_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TGO_API __attribute__((visibility("default")))
#else
#define TGO_API
#endif

/** Version of this header; tgo_version() is that of the library. */
#define TGO_VERSION_MAJOR 1
#define TGO_VERSION_MINOR 0

/** An address with its port, in network order as everywhere in sockets. IPv4 is never IPv4-mapped IPv6 here. */
union tgo_addr {
	struct sockaddr sa; /**< sa_family is AF_INET, AF_INET6, or AF_UNSPEC when there is no address */
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/** Beside -errno: */
enum {
	TGO_E_BAD = -10001,    /**< these bytes are no header of the kind that was expected */
	TGO_E_CLOSED = -10002, /**< the stream ended before the header did */
};

/** TGO_TEXT_SIZE: room for any address as text, its port and a NUL */
enum { TGO_TEXT_SIZE = 64 };

/** tgo_version() - of the library: 256 * major + minor */
TGO_API unsigned int tgo_version(void);

/** tgo_strerror() - text for what a function returned; static, never NULL */
TGO_API const char *tgo_strerror(int error);

/**
 * tgo_format() - "192.0.2.1:80" or "[2001:db8::1]:80", or "-" for no address
 * @out: room for TGO_TEXT_SIZE bytes
 *
 * Return: @out.
 */
TGO_API const char *tgo_format(const union tgo_addr *addr, char *out);

/* --- trusted edges --- */

/** The edges of a server: prefixes, and the kinds of their TCP option. */
struct tgo_edges;

/**
 * tgo_edges_new() - make a list
 * @prefixes:  such as "192.0.2.0/24, 2001:db8::/32 10.0.0.1", separated by blanks or commas, at most 4096
 * @ret_edges: for tgo_edges_free()
 *
 * Return: 0; -EINVAL for a text that is no prefix, or that has bits behind its length; -ENOENT for no prefix at all;
 * -E2BIG; -ENOMEM.
 */
TGO_API int tgo_edges_new(const char *prefixes, struct tgo_edges **ret_edges);

/** tgo_edges_free() - NULL is accepted */
TGO_API void tgo_edges_free(struct tgo_edges *edges);

/** tgo_edges_set_kinds() - of the TCP option, for IPv4 and IPv6 clients; 200 and 200 unless set */
TGO_API void tgo_edges_set_kinds(struct tgo_edges *edges, uint8_t kind_v4, uint8_t kind_v6);

/**
 * tgo_edges_has() - whether an address is an edge's
 * @addr: AF_INET or AF_INET6; IPv4-mapped IPv6 counts as IPv4. Of any other family none is
 *
 * Return: 1 or 0.
 */
TGO_API int tgo_edges_has(const struct tgo_edges *edges, const struct sockaddr *addr, socklen_t length);

/* --- the TCP option (TOA) --- */

/** Where an answer of tgo_peer() comes from. */
enum tgo_source {
	TGO_SOURCE_CONNECTION, /**< nothing names a client: the other end of the connection, or whoever it is for a kit
				    that does not answer getsockopt */
	TGO_SOURCE_KERNEL,     /**< tidegate-origin or a kernel module, which had the option of a trusted edge */
	TGO_SOURCE_SYN,	       /**< the SYN that the listener has kept */
};

struct tgo_peer {
	union tgo_addr addr;
	enum tgo_source source;
};

/**
 * tgo_peer() - the client of an accepted connection, by any way that works here
 * @fd:       a connected TCP socket
 * @edges:    from whom the option in a kept SYN is believed; NULL: from nobody, the SYN is not asked for
 * @ret_peer: the client, or the other end of the connection when nothing names a client
 *
 * In this order: getsockopt(IPPROTO_IP, 4096), which tidegate-origin and kernel modules answer for IPv6 clients;
 * getpeername(), which they answer for all others; the SYN, if neither is there and the listener has kept it
 * (tgo_save_syn()). Where tidegate-origin is attached the SYN is not asked for: it already did, and knows whom to
 * trust.
 *
 * The kernel gives a kept SYN away once. Ask once for each connection, right after accept(), and keep the answer.
 *
 * Return: 0; -EAFNOSUPPORT for what is no TCP over IP; -errno of getpeername(), typically -ENOTCONN.
 */
TGO_API int tgo_peer(int fd, const struct tgo_edges *edges, struct tgo_peer *ret_peer);

/**
 * tgo_save_syn() - make a listener keep the SYN of its connections, for tgo_peer() without any right
 * @fd: call it before listen()
 *
 * Works for edges that write the option into the SYN. While the kernel sends SYN cookies nothing is kept.
 *
 * Return: 0; -errno.
 */
TGO_API int tgo_save_syn(int fd);

/* --- headers --- */

enum {
	TGO_PROXY_HEADER_MAX = 4096, /**< bytes of the longest PROXY header that is accepted */
	TGO_ANSWER_MAX = 38,	     /**< bytes that go in front of an answer at most */
};

/** What tgo_proxy_read() and tgo_datagram() may find. */
enum tgo_format {
	TGO_PROXY_V1 = 1,
	TGO_PROXY_V2 = 2,
	TGO_SPP = 4,
};

struct tgo_header {
	enum tgo_format format;
	size_t length;	       /**< bytes that it takes; in a datagram the payload follows there */
	int type;	       /**< SOCK_STREAM or SOCK_DGRAM: how the client speaks; 0 when no client is named */
	union tgo_addr client; /**< AF_UNSPEC: the proxy speaks for itself, such as a health check */
	union tgo_addr edge;   /**< which address the client wrote to */
};

/**
 * tgo_deadline() - a time for tgo_proxy_read()
 * @ms: from now, 0 or more
 */
TGO_API struct timespec tgo_deadline(int ms);

/**
 * tgo_proxy_read() - take a PROXY header of version 1 or 2 off a stream
 * @fd:         a connected stream socket, blocking or not, that nothing was read from yet; the peer must be trusted to
 *              send one (tgo_edges_has())
 * @deadline:   of CLOCK_MONOTONIC, see tgo_deadline(); NULL: look, but do not wait
 * @ret_header: what it says
 *
 * Never takes a byte that is not the header's: what the client sent comes with the next read(). The header must come:
 * its absence is not guessed from other bytes. With a deadline, after any failure close the connection, since parts of
 * a header may have been taken off. Without one nothing is taken off before the header is whole; wait with an
 * edge-triggered poller, or SO_RCVLOWAT.
 *
 * Return: 0; TGO_E_BAD; TGO_E_CLOSED; -ETIMEDOUT; -EAGAIN when @deadline is NULL and more bytes are needed; -errno of
 * recv().
 */
TGO_API int tgo_proxy_read(int fd, const struct timespec *deadline, struct tgo_header *ret_header);

/**
 * tgo_datagram() - find the header in front of a datagram
 * @bytes, @length: the datagram; its payload begins at ret_header->length
 * @format:         what this server's edges send: TGO_PROXY_V2 or TGO_SPP, exactly one of them
 * @ret_header:     what it says
 *
 * SPP has no checksum and two bytes of magic: any datagram may begin with them by chance.
 *
 * Return: 0; TGO_E_BAD: drop the datagram, or take it as one without a header, as your edges do; -EINVAL for another
 * @format.
 */
TGO_API int tgo_datagram(const void *bytes, size_t length, enum tgo_format format, struct tgo_header *ret_header);

/**
 * tgo_answer() - what has to go in front of an answer to a datagram
 * @header: of the datagram that is answered
 * @out:    room for TGO_ANSWER_MAX bytes
 *
 * Return: bytes written: 38 for SPP, 0 for PROXY v2, whose answers carry no header.
 */
TGO_API size_t tgo_answer(const struct tgo_header *header, void *out);

#ifdef __cplusplus
}
#endif

#endif
