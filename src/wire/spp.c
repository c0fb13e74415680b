/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/spp.h"

#include "base/buf.h"
#include "base/error.h"

enum { SPP_MAGIC = 0x56ec };

void spp_encode(const struct addr *client, const struct addr *edge, uint8_t out[static SPP_SIZE])
{
	struct buf_writer w = buf_writer(out, SPP_SIZE);

	buf_put_be16(&w, SPP_MAGIC);
	buf_put(&w, client->ip.bytes, sizeof(client->ip.bytes));
	buf_put(&w, edge->ip.bytes, sizeof(edge->ip.bytes));
	buf_put_be16(&w, client->port);
	buf_put_be16(&w, edge->port);
	ASSERT(w.ok && w.pos == w.end);
}

int spp_decode(const void *bytes, size_t length, struct addr *ret_client, struct addr *ret_edge)
{
	struct buf_reader r = buf_reader(bytes, length);
	struct addr client = { 0 }, edge = { 0 };
	uint16_t magic = buf_be16(&r);

	buf_bytes(&r, client.ip.bytes, sizeof(client.ip.bytes));
	buf_bytes(&r, edge.ip.bytes, sizeof(edge.ip.bytes));
	client.port = buf_be16(&r);
	edge.port = buf_be16(&r);
	if (!r.ok)
		return SPP_E_SHORT;
	if (magic != SPP_MAGIC)
		return SPP_E_MAGIC;
	*ret_client = client;
	*ret_edge = edge;
	return SPP_OK;
}
