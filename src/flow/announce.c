/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling a TCP origin who the client is: the PROXY header goes out before the first byte of the client, in one
 * segment with it when that byte is already here. The option of pass mode toa is given to the socket before it
 * connects: connect.c.
 */
#include "flow/tcp_flow.h"
#include "wire/proxy.h"

#include <errno.h>
#include <sys/socket.h>

enum { FIRST_READ_SIZE = 16 << 10 };
_Static_assert(FIRST_READ_SIZE + PROXY_V1_MAX <= RELAY_BUFFER_SIZE && PROXY_V2_MAX <= PROXY_V1_MAX,
	"header and first bytes fit into the scratch buffer");

static int make_header(const struct tcp_flow *f, uint8_t *out)
{
	switch (f->flow.rule->rule->pass) {
	case PASS_PPV1:
		return proxy_v1_encode(&f->flow.client, &f->flow.edge, out);
	case PASS_PPV2:
		return proxy_v2_encode(PROXY_STREAM, &f->flow.client, &f->flow.edge, out);
	case PASS_OFF:
	case PASS_TOA:
	case PASS_SPP:
	case PASS_N:
		break;
	}
	return 0;
}

enum step tcp_announce(struct tcp_flow *f)
{
	struct tcp_side *client = &f->side[SIDE_CLIENT], *origin = &f->side[SIDE_ORIGIN];
	uint8_t *scratch = f->flow.env->scratch;
	int header = make_header(f, scratch);
	ssize_t n = 0, sent;
	size_t length;

	if (header == 0)
		return STEP_NEXT;
	if (header < 0)
		return tcp_end(f, END_FAULT, END_SIDE_FIRST);
	if (client->readable)
		n = recv(client->fd, scratch + header, FIRST_READ_SIZE, 0);
	if (n < 0 && errno != EAGAIN)
		return tcp_end_of_error(f, SIDE_CLIENT, errno);
	n = MAX(n, 0); /* an end of stream shows itself again when the relay reads */
	length = (size_t)header + (size_t)n;
	sent = send(origin->fd, scratch, length, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		return tcp_end_of_error(f, SIDE_ORIGIN, errno);
	sent = MAX(sent, 0);
	if ((size_t)sent < length) {
		origin->writable = false;
		if (!side_keep(f, SIDE_ORIGIN, scratch + sent, length - (size_t)sent))
			return tcp_end(f, END_FAULT, END_SIDE_FIRST);
	}
	flow_in(&f->flow, (uint64_t)n);
	return STEP_NEXT;
}
