/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Headers off streams and datagrams. As long as a header is not whole, every byte that is there is the header's: the
 * decoder promises that. So a reader that may wait takes such bytes off at once and waits for more, which a poller can
 * tell it about; only of the last piece, behind which the client's bytes begin, it takes just as many as it needs.
 */
#include "origin/edges.h"
#include "wire/proxy.h"
#include "wire/spp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

_Static_assert((int)TGO_PROXY_HEADER_MAX == (int)PROXY_HEADER_MAX && (int)TGO_ANSWER_MAX == (int)SPP_SIZE,
	"the public header says the same");

enum { MS_PER_S = 1000, NS_PER_MS = 1000000, NS_PER_S = 1000000000 };

struct incoming {
	uint8_t bytes[PROXY_HEADER_MAX];
	size_t taken;  /* off the stream */
	size_t length; /* with those that were only looked at */
};

static void header_to_public(const struct proxy_header *h, struct tgo_header *ret_header)
{
	struct tgo_header out = {
		.format = h->version == 1 ? TGO_PROXY_V1 : TGO_PROXY_V2,
		.length = h->length,
	};

	if (h->has_addr) {
		out.type = h->dgram ? SOCK_DGRAM : SOCK_STREAM;
		addr_to_public(&h->client, &out.client);
		addr_to_public(&h->edge, &out.edge);
	}
	*ret_header = out;
}

/* --- streams --- */

struct timespec tgo_deadline(int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / MS_PER_S;
	t.tv_nsec += (long)(ms % MS_PER_S) * NS_PER_MS;
	if (t.tv_nsec >= NS_PER_S) {
		t.tv_sec++;
		t.tv_nsec -= NS_PER_S;
	}
	return t;
}

/* Return: 0 when there may be something to read; -ETIMEDOUT; -errno. */
static int wait_readable(int fd, const struct timespec *deadline)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct timespec now, left;
	int n;

	clock_gettime(CLOCK_MONOTONIC, &now);
	left.tv_sec = deadline->tv_sec - now.tv_sec;
	left.tv_nsec = deadline->tv_nsec - now.tv_nsec;
	if (left.tv_nsec < 0) {
		left.tv_sec--;
		left.tv_nsec += NS_PER_S;
	}
	if (left.tv_sec < 0)
		return -ETIMEDOUT;
	n = ppoll(&p, 1, &left, NULL);
	if (n == 0)
		return -ETIMEDOUT;
	return n < 0 && errno != EINTR ? -errno : 0;
}

/* Whether nothing follows what is there now. */
static bool has_ended(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* Looks at what is there behind what was taken. Return: 0; TGO_E_CLOSED; -EAGAIN; -errno. */
static int look(int fd, struct incoming *in)
{
	ssize_t n;

	do {
		n = recv(fd, in->bytes + in->taken, sizeof(in->bytes) - in->taken, MSG_PEEK | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return TGO_E_CLOSED;
	in->length = in->taken + (size_t)n;
	return 0;
}

/* Takes off what was looked at, up to @until. Nobody else reads, so it is there. */
static int take(int fd, struct incoming *in, size_t until)
{
	while (in->taken < until) {
		ssize_t n = recv(fd, in->bytes + in->taken, until - in->taken, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return TGO_E_CLOSED;
		in->taken += (size_t)n;
	}
	return 0;
}

int tgo_proxy_read(int fd, const struct timespec *deadline, struct tgo_header *ret_header)
{
	struct incoming in;
	struct proxy_header h;
	const char *why;
	bool ended;
	int r;

	in.taken = 0;
	for (;;) {
		ended = !deadline && has_ended(fd); /* with a deadline, a look after all was taken off tells */
		r = look(fd, &in);
		if (r == -EAGAIN && deadline) {
			r = wait_readable(fd, deadline);
			if (r)
				return r;
			continue;
		}
		if (r)
			return r;
		switch (proxy_decode(in.bytes, in.length, &h, &why)) {
		case PROXY_OK:
			r = take(fd, &in, h.length);
			if (r == 0)
				header_to_public(&h, ret_header);
			return r;
		case PROXY_E_MORE:
			if (!deadline)
				return ended ? TGO_E_CLOSED : -EAGAIN;
			r = take(fd, &in, in.length);
			if (r)
				return r;
			break;
		default:
			return TGO_E_BAD;
		}
	}
}

/* --- datagrams --- */

int tgo_datagram(const void *bytes, size_t length, enum tgo_format format, struct tgo_header *ret_header)
{
	struct tgo_header out = { .format = TGO_SPP, .length = SPP_SIZE, .type = SOCK_DGRAM };
	struct addr client, edge;
	struct proxy_header h;
	const char *why;

	if (format == TGO_SPP) {
		if (spp_decode(bytes, length, &client, &edge) != SPP_OK)
			return TGO_E_BAD;
		addr_to_public(&client, &out.client);
		addr_to_public(&edge, &out.edge);
		*ret_header = out;
		return 0;
	}
	if (format != TGO_PROXY_V2)
		return -EINVAL;
	if (proxy_v2_decode(bytes, length, &h, &why) != PROXY_OK)
		return TGO_E_BAD;
	header_to_public(&h, ret_header);
	return 0;
}

size_t tgo_answer(const struct tgo_header *header, void *out)
{
	struct addr client = addr_from_public(&header->client), edge = addr_from_public(&header->edge);

	if (header->format != TGO_SPP)
		return 0;
	spp_encode(&client, &edge, out);
	return SPP_SIZE;
}
