/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PROXY protocol version 1: a line of text. And proxy_decode(), which picks the version by the first byte.
 *
 * The line is read in one pass by steps that each take a field. The first step to find the line wrong, or the
 * input at its end, settles the outcome, and the later steps do nothing. A field that is cut off by the end
 * of the input still has to be the beginning of a valid one, so a wrong byte is noticed when it arrives. No
 * field can grow without bound: an address has at most 39 characters and a port 5, which makes a TCP line 104
 * bytes at most; only UNKNOWN can reach the limit of 107.
 */
#include "base/buf.h"
#include "base/error.h"
#include "wire/proxy.h"

#include <stdio.h>

enum { ADDRESS_MAX = 39 }; /* "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" */

enum protocol { PROTOCOL_TCP4, PROTOCOL_TCP6, PROTOCOL_UNKNOWN, PROTOCOL_UNKNOWN_TEXT };

static const char *const protocol_words[] = {
	[PROTOCOL_TCP4] = "TCP4 ",
	[PROTOCOL_TCP6] = "TCP6 ",
	[PROTOCOL_UNKNOWN] = "UNKNOWN\r\n",
	[PROTOCOL_UNKNOWN_TEXT] = "UNKNOWN ",
};

struct line {
	const uint8_t *start;
	struct buf_reader in;
	int outcome; /* PROXY_OK while nothing is wrong and nothing is missing */
	const char *why;
};

struct field {
	const char *text;
	size_t length;
	bool whole; /* false: the input ends here, before the field's end */
};

/* As text of the family that the line is of: beside an IPv6 address, IPv4 stands as ::ffff:a.b.c.d. */
static void format_ip(const struct ip *ip, bool v4, char out[static ADDR_TEXT_SIZE])
{
	static const char mapped[] = "::ffff:";
	size_t skip = !v4 && ip_is_v4(ip) ? sizeof(mapped) - 1 : 0;
	char text[ADDR_TEXT_SIZE];
	size_t length = ip_format(ip, text);

	memcpy(out, mapped, skip);
	memcpy(out + skip, text, length + 1);
}

int proxy_v1_encode(const struct addr *client, const struct addr *edge, uint8_t out[static PROXY_V1_MAX])
{
	bool v4 = ip_is_v4(&client->ip) && ip_is_v4(&edge->ip);
	char client_text[ADDR_TEXT_SIZE], edge_text[ADDR_TEXT_SIZE];

	format_ip(&client->ip, v4, client_text);
	format_ip(&edge->ip, v4, edge_text);
	return snprintf((char *)out, PROXY_V1_MAX, "PROXY TCP%d %.39s %.39s %u %u\r\n", v4 ? 4 : 6, client_text,
		edge_text, client->port, edge->port);
}

static void line_stop(struct line *l, int outcome, const char *why)
{
	if (l->outcome != PROXY_OK)
		return;
	l->outcome = outcome;
	l->why = why;
}

/* Takes the next word; none of @words is the beginning of another. Return: its index; 0 if stopped. */
static size_t line_word(struct line *l, const char *const *words, size_t count, const char *why)
{
	size_t left = buf_left(&l->in);

	for (size_t i = 0; l->outcome == PROXY_OK && i < count; i++) {
		size_t length = strlen(words[i]);

		if (memcmp(l->in.pos, words[i], MIN(left, length)) != 0)
			continue;
		if (!buf_take(&l->in, length))
			line_stop(l, PROXY_E_MORE, NULL);
		return i;
	}
	line_stop(l, PROXY_E_BAD, why);
	return 0;
}

/* Takes what stands before the next @end, and @end; or all the rest of the input when there is none. */
static struct field line_field(struct line *l, char end)
{
	struct field f = { .text = (const char *)l->in.pos, .length = buf_left(&l->in) };
	const char *at = memchr(f.text, end, f.length);

	if (at) {
		f.whole = true;
		f.length = (size_t)(at - f.text);
		if (f.length == 0)
			line_stop(l, PROXY_E_BAD, "PROXY v1: an empty field");
	}
	buf_take(&l->in, f.length + f.whole);
	return f;
}

static void line_settle(struct line *l, const struct field *f, const char *why)
{
	if (why)
		line_stop(l, PROXY_E_BAD, why);
	else if (!f->whole)
		line_stop(l, PROXY_E_MORE, NULL);
}

static bool address_parse(const char *text, size_t length, enum protocol protocol, struct ip *ret_ip)
{
	bool colon = memchr(text, ':', length) != NULL;

	return length <= ADDRESS_MAX && colon == (protocol == PROTOCOL_TCP6) && ip_parse(text, length, ret_ip) == 0;
}

/* Whether an address begins like this. If one does, one of these tails completes it; none is shorter. */
static bool address_begins(const char *text, size_t length, enum protocol protocol)
{
	static const char tails[][8] = { "", "0", "0.0", "0.0.0", "0.0.0.0", ".0", ".0.0", ".0.0.0", ":", "::" };
	char whole[ADDRESS_MAX];
	struct ip ip;

	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		size_t n = strlen(tails[i]);

		if (length + n > sizeof(whole))
			continue;
		memcpy(whole, text, length);
		memcpy(whole + length, tails[i], n);
		if (address_parse(whole, length + n, protocol, &ip))
			return true;
	}
	return false;
}

static struct ip line_address(struct line *l, enum protocol protocol, const char *why)
{
	struct ip ip = { 0 };
	struct field f;
	bool fine;

	if (l->outcome != PROXY_OK)
		return ip;
	f = line_field(l, ' ');
	fine = f.whole ? address_parse(f.text, f.length, protocol, &ip) : address_begins(f.text, f.length, protocol);
	line_settle(l, &f, fine ? NULL : why);
	return ip;
}

/* Every beginning of a port but the empty one is a port itself. Return: NULL, or what is wrong. */
static const char *port_parse(const char *text, size_t length, uint16_t *ret_port)
{
	unsigned int port = 0;

	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return "PROXY v1: port is not a decimal number";
		if (i > 0 && text[0] == '0')
			return "PROXY v1: port with a leading zero";
		port = port * 10 + (unsigned int)(text[i] - '0');
		if (port > UINT16_MAX)
			return "PROXY v1: port above 65535";
	}
	*ret_port = (uint16_t)port;
	return NULL;
}

static uint16_t line_port(struct line *l, char end)
{
	uint16_t port = 0;
	struct field f;

	if (l->outcome != PROXY_OK)
		return 0;
	f = line_field(l, end);
	line_settle(l, &f, port_parse(f.text, f.length, &port));
	return port;
}

static void line_endpoints(struct line *l, enum protocol protocol, struct proxy_header *h)
{
	h->has_addr = true;
	h->client.ip = line_address(l, protocol, "PROXY v1: client is not an address of the family named");
	h->edge.ip = line_address(l, protocol, "PROXY v1: edge is not an address of the family named");
	h->client.port = line_port(l, ' ');
	h->edge.port = line_port(l, '\r');
	line_word(l, (const char *const[]){ "\n" }, 1, "PROXY v1: CR without LF");
}

/* Anything may stand behind UNKNOWN; a CR or LF alone does not end it. */
static void line_skip(struct line *l)
{
	const uint8_t *at = l->in.pos, *end = l->in.end;
	size_t missing = end[-1] == '\r' ? 1 : 2;

	while (at + 1 < end && !(at[0] == '\r' && at[1] == '\n'))
		at++;
	if (at + 1 < end)
		buf_take(&l->in, (size_t)(at + 2 - l->in.pos));
	else if ((size_t)(end - l->start) + missing <= PROXY_V1_MAX)
		line_stop(l, PROXY_E_MORE, NULL);
	else
		line_stop(l, PROXY_E_BAD, "PROXY v1: no CRLF within 107 bytes");
}

int proxy_v1_decode(const void *bytes, size_t length, struct proxy_header *ret_header, const char **ret_why)
{
	struct line l = { .start = bytes, .in = buf_reader(bytes, MIN(length, PROXY_V1_MAX)) };
	struct proxy_header h = { .version = 1 };
	enum protocol protocol;

	line_word(&l, (const char *const[]){ "PROXY " }, 1, "PROXY v1: does not begin with \"PROXY \"");
	protocol = (enum protocol)line_word(
		&l, protocol_words, ARRAY_SIZE(protocol_words), "PROXY v1: protocol is none of TCP4, TCP6 and UNKNOWN");
	if (protocol == PROTOCOL_UNKNOWN_TEXT)
		line_skip(&l);
	else if (protocol != PROTOCOL_UNKNOWN)
		line_endpoints(&l, protocol, &h);

	if (l.outcome == PROXY_E_BAD)
		*ret_why = l.why;
	if (l.outcome != PROXY_OK)
		return l.outcome;
	h.length = (size_t)(l.in.pos - l.start);
	*ret_header = h;
	return PROXY_OK;
}

int proxy_decode(const void *bytes, size_t length, struct proxy_header *ret_header, const char **ret_why)
{
	struct buf_reader r = buf_reader(bytes, length);

	if (length == 0)
		return PROXY_E_MORE;
	switch (buf_u8(&r)) {
	case 'P':
		return proxy_v1_decode(bytes, length, ret_header, ret_why);
	case '\r':
		return proxy_v2_decode(bytes, length, ret_header, ret_why);
	}
	*ret_why = "PROXY: begins like neither version of the header";
	return PROXY_E_BAD;
}
