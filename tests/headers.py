# SPDX-License-Identifier: Apache-2.0
"""The headers that tell an origin who the client is, built without a line of the product's code. Ends are (address, port)."""
import socket
import struct

SPP_SIZE = 38


def packed(address, size):
    """An address without scope as 4 or 16 bytes, IPv4 in 16 as ::ffff:a.b.c.d."""
    address = address.partition("%")[0]
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    v4 = socket.inet_aton(address)
    return v4 if size == 4 else b"\0" * 10 + b"\xff\xff" + v4


def ppv1(client, edge):
    kind = "TCP6" if ":" in client[0] else "TCP4"
    return f"PROXY {kind} {client[0]} {edge[0]} {client[1]} {edge[1]}\r\n".encode()


def ppv2(client, edge, kind=socket.SOCK_DGRAM):
    size, family = (16, 0x20) if ":" in client[0] else (4, 0x10)
    body = packed(client[0], size) + packed(edge[0], size) + struct.pack(">HH", client[1], edge[1])
    return bytes.fromhex("0d0a0d0a000d0a515549540a") + \
        bytes([0x21, family | (2 if kind == socket.SOCK_DGRAM else 1)]) + struct.pack(">H", len(body)) + body


def spp(client, edge):
    return b"\x56\xec" + packed(client[0], 16) + packed(edge[0], 16) + struct.pack(">HH", client[1], edge[1])


def both_ends(client):
    """Both ends of a connected client's traffic."""
    return client.getsockname()[:2], client.getpeername()[:2]
