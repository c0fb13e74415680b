/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the PROXY header of a balancer in front of the edge, on rules with accept_proxy. The bytes are only looked
 * at until the header is whole, and then exactly the header is taken, so that what follows it is relayed like anything
 * else. From then on the client is the one that the header names.
 */
#include "base/error.h"
#include "flow/tcp_flow.h"
#include "wire/proxy.h"

#include <errno.h>
#include <sys/socket.h>

static bool trusted(const struct prefix_list *balancers, const struct ip *peer)
{
	for (size_t i = 0; i < balancers->count; i++)
		if (prefix_has(&balancers->items[i], peer))
			return true;
	return false;
}

static enum step take_header(struct tcp_flow *f, const struct proxy_header *header)
{
	struct tcp_side *client = &f->side[SIDE_CLIENT];

	if (recv(client->fd, NULL, header->length, MSG_TRUNC) != (ssize_t)header->length)
		return tcp_end(f, END_CLIENT_RESET, END_SIDE_FIRST);
	if (header->has_addr) {
		f->flow.client = header->client;
		f->flow.edge = header->edge;
	}
	timer_stop(&f->timer);
	return STEP_NEXT;
}

enum step tcp_receive(struct tcp_flow *f)
{
	const struct rule_settings *settings = &f->flow.rule->rule->settings;
	struct tcp_side *client = &f->side[SIDE_CLIENT];
	struct proxy_header header;
	const char *why;
	ssize_t n;

	if (settings->accept_proxy.count == 0)
		return STEP_NEXT;
	if (!trusted(&settings->accept_proxy, &f->flow.client.ip))
		return tcp_end(f, END_UNTRUSTED_BALANCER, END_SIDE_FIRST);
	if (client->failed)
		return tcp_end(f, END_CLIENT_RESET, END_SIDE_FIRST);
	if (f->timed_out)
		return tcp_end(f, END_PROXY_HEADER_TIMEOUT, END_SIDE_FIRST);
	if (!timer_running(&f->timer))
		tcp_timer(f, settings->accept_proxy_timeout_ms);
	n = recv(client->fd, f->flow.env->scratch, PROXY_HEADER_MAX, MSG_PEEK);
	if (n < 0 && errno == EAGAIN)
		return STEP_WAIT;
	if (n < 0)
		return tcp_end_of_error(f, SIDE_CLIENT, errno);
	switch (proxy_decode(f->flow.env->scratch, (size_t)n, &header, &why)) {
	case PROXY_OK:
		return take_header(f, &header);
	case PROXY_E_MORE:
		if (n > 0 && !client->half_closed)
			return STEP_WAIT;
		break;
	}
	return tcp_end(f, END_BAD_PROXY_HEADER, END_SIDE_FIRST);
}
