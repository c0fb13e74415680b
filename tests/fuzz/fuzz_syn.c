/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes into syn_decode(). What must hold:
 *   - an outcome sets what it promises and nothing else
 *   - a client is found where its option stands in the bytes, and nothing behind the TCP header changes it
 *   - a SYN that is cut short is none
 */
#include "base/error.h"
#include "origin/syn.h"

#include <string.h>

enum { KIND_V4 = 200, KIND_V6 = 253 };

static const struct addr before = { .port = 4711 };

static void check_client(const uint8_t *bytes, size_t length, const struct addr *client)
{
	uint8_t option[20] = { KIND_V6, 20, (uint8_t)(client->port >> 8), (uint8_t)client->port };
	size_t size = 20;

	ASSERT(client->zero == 0 && client->scope_id == 0);
	memcpy(option + 4, client->ip.bytes, 16);
	if (memmem(bytes, length, option, size))
		return;
	ASSERT(ip_is_v4(&client->ip));
	option[0] = KIND_V4;
	option[1] = 8;
	memcpy(option + 4, client->ip.bytes + 12, 4);
	ASSERT(memmem(bytes, length, option, 8));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct addr source = before, client = before, again = before;
	int outcome = syn_decode(bytes, length, KIND_V4, KIND_V6, &source, &client);
	size_t ip, tcp;

	ASSERT(outcome == SYN_OK || outcome == SYN_E_NONE || outcome == SYN_E_BAD);
	ASSERT(outcome != SYN_E_BAD || addr_equal(&source, &before));
	if (outcome != SYN_OK)
		ASSERT(addr_equal(&client, &before));
	else
		check_client(bytes, length, &client);
	if (outcome == SYN_E_BAD)
		return 0;
	ip = bytes[0] >> 4 == 4 ? (bytes[0] & 15u) * 4u : 40;
	tcp = (bytes[ip + 12] >> 4) * 4u;
	ASSERT(ip + tcp <= length);
	for (size_t n = 0; n < ip + tcp; n++)
		ASSERT(syn_decode(bytes, n, KIND_V4, KIND_V6, &source, &again) == SYN_E_BAD);
	ASSERT(syn_decode(bytes, ip + tcp, KIND_V4, KIND_V6, &source, &again) == outcome);
	ASSERT(addr_equal(&client, &again));
	return 0;
}
