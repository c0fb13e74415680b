/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PROXY protocol version 2: sixteen fixed bytes, which end in the length of what follows; then addresses;
 * then TLVs.
 *
 * Decoding looks at whatever is there already, so a wrong byte is noticed when it arrives: the reader ends at
 * the end of the header or of the input, whichever comes first, and numbers of which a byte is missing are
 * taken as the least they can be. What is wrong comes back as text; what is missing shows in the reader's ok.
 */
#include "base/buf.h"
#include "base/error.h"
#include "wire/proxy.h"

enum {
	FIXED_SIZE = 16,
	TRANSPORT_STREAM = 0x01,
	TRANSPORT_DGRAM = 0x02,
	FAMILY_INET = 0x10,
	FAMILY_INET6 = 0x20,
	FAMILY_MASK = 0xf0,
	COMMAND_LOCAL = 0x20, /* with the version in the high half */
	COMMAND_PROXY = 0x21,
	VERSION_2 = 0x20,
	VERSION_MASK = 0xf0,
	TLV_START = 3, /* type, length */
	TLV_CRC32C = 0x03,
	CRC32C_SIZE = 4,
};

static const uint8_t signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 'Q', 'U', 'I', 'T', 0x0a };

struct fixed {
	bool local;
	uint8_t family;	  /* with the transport in the low half; meaningless if local */
	size_t addresses; /* bytes that the addresses of this family take, ports included; 0 if local */
	size_t rest;	  /* bytes of the header that follow, addresses included */
};

struct tlv {
	uint8_t type;
	size_t size;
	bool sized; /* false: size is only the least it can be */
};

/* As bytes of the family that the header is of: beside an IPv6 address, IPv4 stands as ::ffff:a.b.c.d. */
static void put_ip(struct buf_writer *w, const struct ip *ip, bool v4)
{
	size_t skip = v4 ? 12 : 0;

	buf_put(w, ip->bytes + skip, sizeof(ip->bytes) - skip);
}

int proxy_v2_encode(enum proxy_transport transport, const struct addr *client, const struct addr *edge,
	uint8_t out[static PROXY_V2_MAX])
{
	bool v4 = ip_is_v4(&client->ip) && ip_is_v4(&edge->ip);
	int low = transport == PROXY_DGRAM ? TRANSPORT_DGRAM : TRANSPORT_STREAM;
	struct buf_writer w = buf_writer(out, PROXY_V2_MAX);

	buf_put(&w, signature, sizeof(signature));
	buf_put_u8(&w, COMMAND_PROXY);
	buf_put_u8(&w, (uint8_t)((v4 ? FAMILY_INET : FAMILY_INET6) | low));
	buf_put_be16(&w, v4 ? 12 : 36);
	put_ip(&w, &client->ip, v4);
	put_ip(&w, &edge->ip, v4);
	buf_put_be16(&w, client->port);
	buf_put_be16(&w, edge->port);
	ASSERT(w.ok);
	return (int)(w.pos - out);
}

static bool family_addresses(uint8_t family, size_t *ret_size)
{
	static const struct {
		uint8_t family;
		uint8_t size;
	} rows[] = {
		{ 0x00, 0 },		      /* UNSPEC */
		{ 0x11, 12 }, { 0x12, 12 },   /* INET stream, dgram */
		{ 0x21, 36 }, { 0x22, 36 },   /* INET6 */
		{ 0x31, 216 }, { 0x32, 216 }, /* UNIX */
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].family == family) {
			*ret_size = rows[i].size;
			return true;
		}
	}
	return false;
}

/* Fixed bytes that are not here yet count as those of the shortest header. Return: NULL, or what is wrong. */
static const char *fixed_parse(const void *bytes, size_t length, struct fixed *ret_fixed)
{
	struct fixed fixed = { 0 };
	uint8_t copy[FIXED_SIZE] = { 0 };
	struct buf_reader r = buf_reader(copy, sizeof(copy));
	uint8_t command;

	memcpy(copy, signature, sizeof(signature));
	copy[sizeof(signature)] = COMMAND_LOCAL;
	memcpy(copy, bytes, MIN(length, sizeof(copy)));

	if (memcmp(buf_take(&r, sizeof(signature)), signature, sizeof(signature)) != 0)
		return "PROXY v2: wrong signature";
	command = buf_u8(&r);
	if ((command & VERSION_MASK) != VERSION_2)
		return "PROXY v2: version is not 2";
	if (command != COMMAND_LOCAL && command != COMMAND_PROXY)
		return "PROXY v2: command is neither LOCAL nor PROXY";
	fixed.local = command == COMMAND_LOCAL;
	fixed.family = buf_u8(&r);
	if (!fixed.local && !family_addresses(fixed.family, &fixed.addresses))
		return "PROXY v2: unknown address family or transport";
	fixed.rest = buf_be16(&r);
	if (FIXED_SIZE + fixed.rest > PROXY_HEADER_MAX)
		return "PROXY v2: header longer than 4096 bytes";
	if (length >= FIXED_SIZE && fixed.rest < fixed.addresses)
		return "PROXY v2: address block shorter than its family needs";
	*ret_fixed = fixed;
	return NULL;
}

static struct ip take_ip(struct buf_reader *r, uint8_t family)
{
	bool v4 = (family & FAMILY_MASK) == FAMILY_INET;
	const uint8_t *at = buf_take(r, v4 ? 4 : 16);
	struct ip ip = { 0 };

	if (at && v4)
		return ip_from_v4(at);
	if (at)
		memcpy(ip.bytes, at, sizeof(ip.bytes));
	return ip;
}

static void take_addresses(struct buf_reader *r, const struct fixed *fixed, struct proxy_header *h)
{
	uint8_t family = fixed->family & FAMILY_MASK;

	if (family != FAMILY_INET && family != FAMILY_INET6) {
		buf_take(r, fixed->addresses);
		return;
	}
	h->has_addr = true;
	h->dgram = (fixed->family & ~FAMILY_MASK) == TRANSPORT_DGRAM;
	h->client.ip = take_ip(r, family);
	h->edge.ip = take_ip(r, family);
	h->client.port = buf_be16(r);
	h->edge.port = buf_be16(r);
}

/* Type and length. A checksum's length is known from its type on: any other is wrong. */
static struct tlv take_tlv_start(struct buf_reader *r)
{
	uint8_t type = buf_u8(r), high = buf_u8(r), low = buf_u8(r);
	struct tlv tlv = { .type = type, .size = 256u * high + low, .sized = r->ok };

	if (type == TLV_CRC32C && !tlv.sized) {
		tlv.size = MAX(tlv.size, CRC32C_SIZE);
		tlv.sized = true;
	}
	return tlv;
}

/* @left: bytes from the TLV's type to the header's end. Return: NULL, or what is wrong. */
static const char *tlv_wrong(const struct tlv *tlv, size_t left)
{
	size_t behind;

	if (left < TLV_START)
		return "PROXY v2: too few bytes for a TLV behind the addresses";
	if (tlv->type == TLV_CRC32C && tlv->size != CRC32C_SIZE)
		return "PROXY v2: CRC32C TLV is not 4 bytes long";
	if (tlv->size > left - TLV_START)
		return "PROXY v2: TLV reaches beyond the header";
	behind = left - TLV_START - tlv->size;
	if (tlv->sized && behind > 0 && behind < TLV_START)
		return "PROXY v2: too few bytes for a TLV behind the last one";
	return NULL;
}

/*
 * @left:         bytes from here to the end of the header
 * @ret_checksum: where the checksum is, NULL if the header has none; untouched while TLVs are missing
 *
 * Return: NULL, or what is wrong.
 */
static const char *take_tlvs(struct buf_reader *r, size_t left, const uint8_t **ret_checksum)
{
	const uint8_t *checksum = NULL;

	while (left > 0) {
		struct tlv tlv = take_tlv_start(r);
		const char *why = tlv_wrong(&tlv, left);
		const uint8_t *value;

		if (why)
			return why;
		if (tlv.type == TLV_CRC32C && checksum)
			return "PROXY v2: more than one CRC32C TLV";
		value = buf_take(r, tlv.size);
		if (!r->ok)
			return NULL;
		if (tlv.type == TLV_CRC32C)
			checksum = value;
		left -= TLV_START + tlv.size;
	}
	*ret_checksum = checksum;
	return NULL;
}

/* CRC32c as in RFC 4960, appendix B: reflected polynomial 0x1edc6f41. Start and end by inverting all bits. */
static uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return crc;
}

/* Section 2.2.3: over the whole header, with the checksum's own bytes as zero. */
static bool checksum_is_right(const uint8_t *header, size_t length, const uint8_t *checksum)
{
	static const uint8_t zero[CRC32C_SIZE];
	const uint8_t *behind = checksum + CRC32C_SIZE;
	struct buf_reader r = buf_reader(checksum, CRC32C_SIZE);
	uint16_t high = buf_be16(&r), low = buf_be16(&r);
	uint32_t crc = UINT32_MAX;

	crc = crc32c(crc, header, (size_t)(checksum - header));
	crc = crc32c(crc, zero, sizeof(zero));
	crc = ~crc32c(crc, behind, (size_t)(header + length - behind));
	return crc == UINT32_C(65536) * high + low;
}

/* What follows the fixed bytes. Return: NULL, or what is wrong. */
static const char *take_block(
	struct buf_reader *r, const struct fixed *fixed, struct proxy_header *h, const uint8_t **ret_checksum)
{
	if (fixed->local) {
		buf_take(r, fixed->rest);
		return NULL;
	}
	take_addresses(r, fixed, h);
	return take_tlvs(r, fixed->rest - fixed->addresses, ret_checksum);
}

static int refuse(const char **ret_why, const char *why)
{
	*ret_why = why;
	return PROXY_E_BAD;
}

int proxy_v2_decode(const void *bytes, size_t length, struct proxy_header *ret_header, const char **ret_why)
{
	struct proxy_header h = { .version = 2 };
	const uint8_t *checksum = NULL;
	struct buf_reader r;
	struct fixed fixed;
	const char *why;

	why = fixed_parse(bytes, length, &fixed);
	if (why)
		return refuse(ret_why, why);
	if (length < FIXED_SIZE)
		return PROXY_E_MORE;
	h.length = FIXED_SIZE + fixed.rest;
	r = buf_reader(bytes, MIN(length, h.length));
	buf_take(&r, FIXED_SIZE);
	why = take_block(&r, &fixed, &h, &checksum);
	if (why)
		return refuse(ret_why, why);
	if (!r.ok)
		return PROXY_E_MORE;
	if (checksum && !checksum_is_right(bytes, h.length, checksum))
		return refuse(ret_why, "PROXY v2: CRC32C does not match");
	*ret_header = h;
	return PROXY_OK;
}
