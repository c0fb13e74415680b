/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes into proxy_decode(). What must hold:
 *   - an outcome sets what it promises and nothing else
 *   - a header ends within the input and within the limits, and what stands behind it changes nothing
 *   - every truncation of a header asks for more
 *   - bytes that ask for more can be completed to a header, byte by byte
 *   - refused bytes are refused whatever follows
 *   - the addresses of a header can be encoded, unless their families differ, and decode to the same; a
 * header that only has addresses gives the same bytes again
 */
#include "base/error.h"
#include "wire/proxy.h"

#include <string.h>

static const char untouched[] = "untouched";

struct result {
	int outcome;
	struct proxy_header header;
	const char *why;
};

static struct result decode(const uint8_t *bytes, size_t length)
{
	struct result r = { .header.length = SIZE_MAX, .why = untouched };

	r.outcome = proxy_decode(bytes, length, &r.header, &r.why);
	ASSERT(r.outcome == PROXY_OK || r.outcome == PROXY_E_MORE || r.outcome == PROXY_E_BAD);
	ASSERT((r.outcome == PROXY_OK) == (r.header.length != SIZE_MAX));
	ASSERT((r.outcome == PROXY_E_BAD) == (r.why != untouched));
	ASSERT(r.why && *r.why);
	return r;
}

static bool header_equal(const struct proxy_header *a, const struct proxy_header *b)
{
	return a->length == b->length && a->version == b->version && a->has_addr == b->has_addr &&
		a->dgram == b->dgram && addr_equal(&a->client, &b->client) && addr_equal(&a->edge, &b->edge);
}

static void check_limits(const struct proxy_header *h, size_t length)
{
	static const struct addr none;

	ASSERT(h->length > 0 && h->length <= length);
	ASSERT(h->version == 1 || h->version == 2);
	ASSERT(h->length <= (h->version == 1 ? PROXY_V1_MAX : PROXY_HEADER_MAX));
	ASSERT(h->client.zero == 0 && h->client.scope_id == 0);
	ASSERT(h->edge.zero == 0 && h->edge.scope_id == 0);
	if (!h->has_addr)
		ASSERT(!h->dgram && addr_equal(&h->client, &none) && addr_equal(&h->edge, &none));
}

static void check_truncations(const struct proxy_header *h, const uint8_t *bytes)
{
	struct result r = decode(bytes, h->length);

	ASSERT(r.outcome == PROXY_OK && header_equal(&r.header, h));
	for (size_t n = 0; n < h->length; n++)
		ASSERT(decode(bytes, n).outcome == PROXY_E_MORE);
}

static int encode(const struct proxy_header *h, uint8_t out[static PROXY_V1_MAX])
{
	if (h->version == 1)
		return proxy_v1_encode(&h->client, &h->edge, out);
	return proxy_v2_encode(h->dgram ? PROXY_DGRAM : PROXY_STREAM, &h->client, &h->edge, out);
}

static void check_round_trip(const struct proxy_header *h, const uint8_t *bytes)
{
	uint8_t out[PROXY_V1_MAX];
	int n = encode(h, out);
	struct result again;

	ASSERT(n > 0);
	again = decode(out, (size_t)n);
	ASSERT(again.outcome == PROXY_OK && again.header.length == (size_t)n);
	if (h->version == 2 && h->length == (size_t)n)
		ASSERT(memcmp(out, bytes, (size_t)n) == 0);
	again.header.length = h->length; /* TLVs and other spellings of an address are not encoded again */
	ASSERT(header_equal(&again.header, h));
}

/* Appends one byte that is not refused. Returns false if there is none, which only a checksum may cause. */
static bool append(uint8_t *bytes, size_t length)
{
	static const char text[] = "\n\r .:0PROXYUNKNOWNTC46"; /* what ends a line comes first */
	bool checksum = false;

	for (unsigned int i = 0; i < sizeof(text) + 256; i++) {
		struct result r;

		bytes[length] = i < sizeof(text) ? (uint8_t)text[i] : (uint8_t)(i - sizeof(text));
		r = decode(bytes, length + 1);
		if (r.outcome != PROXY_E_BAD)
			return true;
		checksum |= strstr(r.why, "does not match") != NULL;
	}
	ASSERT(checksum);
	return false;
}

static void check_completion(const uint8_t *start, size_t length)
{
	uint8_t bytes[PROXY_HEADER_MAX];

	ASSERT(length < sizeof(bytes));
	memcpy(bytes, start, length);
	while (decode(bytes, length).outcome == PROXY_E_MORE) {
		ASSERT(length < sizeof(bytes));
		if (!append(bytes, length))
			return;
		length++;
	}
}

static void check_refusal_stands(const uint8_t *start, size_t length)
{
	uint8_t bytes[256] = { 0 };

	if (length >= sizeof(bytes))
		return;
	memcpy(bytes, start, length);
	for (size_t n = length; n <= sizeof(bytes); n += 7)
		ASSERT(decode(bytes, n).outcome == PROXY_E_BAD);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct result r = decode(bytes, length);

	switch (r.outcome) {
	case PROXY_OK:
		check_limits(&r.header, length);
		check_truncations(&r.header, bytes);
		if (r.header.has_addr)
			check_round_trip(&r.header, bytes);
		break;
	case PROXY_E_MORE:
		check_completion(bytes, length);
		break;
	case PROXY_E_BAD:
		check_refusal_stands(bytes, length);
		break;
	}
	return 0;
}
