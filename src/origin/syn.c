/* SPDX-License-Identifier: Apache-2.0 */
#include "origin/syn.h"
#include "base/buf.h"

enum {
	VERSION_MASK = 0xf0,
	VERSION_4 = 0x40,
	VERSION_6 = 0x60,
	IPV4_SIZE = 20,
	TCP_SIZE = 20,
	OPTION_END = 0,
	OPTION_NONE = 1,
	TOA_V4 = 8, /* lengths of the option */
	TOA_V6 = 20,
};

/* Return: whether the reader stands at the TCP header now. */
static bool take_ip_header(struct buf_reader *r, struct addr *ret_source)
{
	uint8_t first = buf_u8(r);
	const uint8_t *at;

	switch (first & VERSION_MASK) {
	case VERSION_4:
		buf_take(r, 11);
		at = buf_take(r, 4);
		buf_take(r, 4);
		if ((first & 0x0f) < IPV4_SIZE / 4)
			return false;
		buf_take(r, (size_t)(first & 0x0f) * 4 - IPV4_SIZE);
		if (at)
			ret_source->ip = ip_from_v4(at);
		return r->ok;
	case VERSION_6: /* the kernel keeps what stands between this header and TCP's, but TCP never comes with it */
		buf_take(r, 5);
		if (buf_u8(r) != IPPROTO_TCP)
			return false;
		buf_take(r, 1);
		buf_bytes(r, ret_source->ip.bytes, 16);
		buf_take(r, 16);
		return r->ok;
	}
	return false;
}

static void take_client(struct buf_reader *r, uint8_t size, struct addr *ret_client)
{
	const uint8_t *at;

	*ret_client = (struct addr){ .port = buf_be16(r) };
	at = buf_take(r, size - 4u);
	if (!at)
		return;
	if (size == TOA_V4)
		ret_client->ip = ip_from_v4(at);
	else
		memcpy(ret_client->ip.bytes, at, 16);
}

static int take_options(struct buf_reader *r, uint8_t kind_v4, uint8_t kind_v6, struct addr *ret_client)
{
	while (buf_left(r) > 0) {
		uint8_t kind = buf_u8(r), size;

		if (kind == OPTION_END)
			return SYN_E_NONE;
		if (kind == OPTION_NONE)
			continue;
		size = buf_u8(r);
		if (size < 2 || size - 2u > buf_left(r))
			return SYN_E_NONE;
		if ((kind == kind_v4 && size == TOA_V4) || (kind == kind_v6 && size == TOA_V6)) {
			take_client(r, size, ret_client);
			return SYN_OK;
		}
		buf_take(r, size - 2u);
	}
	return SYN_E_NONE;
}

int syn_decode(const void *bytes, size_t length, uint8_t kind_v4, uint8_t kind_v6, struct addr *ret_source,
	struct addr *ret_client)
{
	struct buf_reader r = buf_reader(bytes, length);
	struct addr source = { 0 };
	size_t header;

	if (!take_ip_header(&r, &source))
		return SYN_E_BAD;
	source.port = buf_be16(&r);
	buf_take(&r, 10);
	header = (size_t)(buf_u8(&r) >> 4) * 4;
	buf_take(&r, 7);
	if (!r.ok || header < TCP_SIZE || header - TCP_SIZE > buf_left(&r))
		return SYN_E_BAD;
	*ret_source = source;
	r.end = r.pos + (header - TCP_SIZE);
	return take_options(&r, kind_v4, kind_v6, ret_client);
}
