/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/toa.h"

#include "base/buf.h"
#include "base/error.h"

enum { TOA_HEAD = 4 };

size_t toa_encode(uint8_t kind, const struct addr *client, uint8_t out[static TOA_OPTION_MAX])
{
	size_t skip = ip_is_v4(&client->ip) ? 12 : 0, length = TOA_HEAD + sizeof(client->ip.bytes) - skip;
	struct buf_writer w = buf_writer(out, length);

	buf_put_u8(&w, kind);
	buf_put_u8(&w, (uint8_t)length);
	buf_put_be16(&w, client->port);
	buf_put(&w, client->ip.bytes + skip, length - TOA_HEAD);
	ASSERT(w.ok && w.pos == w.end);
	return length;
}
