/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes into spp_decode(). What must hold:
 *   - the length decides about short, then the magic; an outcome other than OK sets nothing
 *   - every header is what encoding its addresses gives, and what stands behind it changes nothing
 */
#include "base/error.h"
#include "wire/spp.h"

#include <string.h>

static void check_header(const uint8_t *bytes, const struct addr *client, const struct addr *edge)
{
	uint8_t out[SPP_SIZE];
	struct addr client_again, edge_again;

	ASSERT(client->zero == 0 && client->scope_id == 0);
	ASSERT(edge->zero == 0 && edge->scope_id == 0);
	spp_encode(client, edge, out);
	ASSERT(memcmp(out, bytes, SPP_SIZE) == 0);
	ASSERT(spp_decode(out, SPP_SIZE, &client_again, &edge_again) == SPP_OK);
	ASSERT(addr_equal(client, &client_again) && addr_equal(edge, &edge_again));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static const struct addr before = { .port = 4711 };
	struct addr client = before, edge = before;
	int outcome = spp_decode(bytes, length, &client, &edge);

	if (length < SPP_SIZE)
		ASSERT(outcome == SPP_E_SHORT);
	else if (bytes[0] != 0x56 || bytes[1] != 0xec)
		ASSERT(outcome == SPP_E_MAGIC);
	else
		ASSERT(outcome == SPP_OK);
	if (outcome == SPP_OK)
		check_header(bytes, &client, &edge);
	else
		ASSERT(addr_equal(&client, &before) && addr_equal(&edge, &before));
	return 0;
}
