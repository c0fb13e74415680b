# SPDX-License-Identifier: Apache-2.0
"""The fastpath program: packet in, verdict and bytes out. Sessions are put into its map by hand."""
import contextlib
import ipaddress
import random
import socket
import struct
import subprocess

import pytest

from harness import UdpOrigin, free_port, own_network
from program import Program

NEXT, REDIRECT = 0xFFFFFFFF, 7  # TCX_NEXT, TC_ACT_REDIRECT
LOOPBACK = 1
TO_ORIGIN, TO_CLIENT = 0, 1
MACS = bytes(6) + b"\x06\x07\x08\t\n\x0b"  # to the address of loopback, which the packets of a test run arrive at
V4 = (("192.0.2.1", 1111), ("198.51.100.2", 22)), (("203.0.113.3", 3333), ("10.0.0.4", 4444))
V6 = (("2001:db8::1", 1111), ("2001:db8:2::2", 22)), (("2001:db8:3::3", 3333), ("fd00::4", 4444))


# --- packets ---

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def raw(address):
    return ipaddress.ip_address(address).packed


def packet(pair, payload, hops=64, options=b"", fragment=0x4000, protocol=17, version=None, udp_length=None, check=None, tos=0):
    """An Ethernet frame with UDP from pair[0] to pair[1]; all of it right unless told otherwise."""
    (source, sport), (target, dport) = pair
    source, target = raw(source), raw(target)
    length = 8 + len(payload)
    udp = struct.pack(">HHHH", sport, dport, length if udp_length is None else udp_length, 0)
    if check is None:
        check = checksum(source + target + struct.pack(">IHBB", length, 0, 0, 17) + udp + payload) or 0xFFFF
    udp = udp[:6] + struct.pack(">H", check) + payload
    if len(source) == 4:
        head = struct.pack(">BBHHHBBH4s4s", (version or 4) << 4 | (5 + len(options) // 4), tos, 20 + len(options) + length, 77,
                           fragment, hops, protocol, 0, source, target) + options
        head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
        return MACS + b"\x08\x00" + head + udp
    body = options + udp
    head = struct.pack(">IHBB16s16s", (version or 6) << 28 | tos << 20, len(body), 0 if options else protocol, hops, source, target)
    return MACS + b"\x86\xdd" + head + body


def skb(ingress=LOOPBACK, gso_segs=0, gso_size=0):
    """struct __sk_buff for a test run: ingress_ifindex at 36, gso_segs at 164, gso_size at 176."""
    context = bytearray(192)
    struct.pack_into("I", context, 36, ingress)
    struct.pack_into("I", context, 164, gso_segs)
    struct.pack_into("I", context, 176, gso_size)
    return bytes(context)


# --- the program of a running edge ---

class Fastpath(Program):
    def __init__(self, e):
        super().__init__(e.pid, "fastpath")

    @staticmethod
    def tuple(pair):
        (source, sport), (target, dport) = pair
        sixteen = [raw(a) if ":" in a else b"\0" * 10 + b"\xff\xff" + raw(a) for a in (source, target)]
        return b"".join(sixteen) + struct.pack(">HH", sport, dport)

    @contextlib.contextmanager
    def session(self, arrives, leaves, direction=TO_ORIGIN, slot=5, ifindex=0, max_length=1500, observe=0):
        """A session's direction while inside. ifindex 0: client and origin are on this machine."""
        value = self.tuple(leaves) + struct.pack("IIIIII", slot, direction, ifindex == 0, ifindex, max_length, observe)
        self.update("counters", struct.pack("I", slot), bytes(64))
        self.update("sessions", self.tuple(arrives), value)
        yield
        self.delete("sessions", self.tuple(arrives))

    def counted(self, slot=5):
        """(datagrams, bytes) of both directions."""
        v = struct.unpack("8Q", self.lookup("counters", struct.pack("I", slot), 64))
        return (v[0], v[2]), (v[1], v[3])


@pytest.fixture
def fastpath(edge):
    with UdpOrigin() as origin:
        e = edge(f"udp:{free_port()} 127.0.0.1 {origin.port} off off\n")
        with Fastpath(e) as program:
            yield program


FAMILIES = pytest.mark.parametrize("arrives, leaves", [V4, V6], ids=["IPv4", "IPv6"])


@FAMILIES
@pytest.mark.parametrize("direction", [TO_ORIGIN, TO_CLIENT])
def test_a_packet_of_a_session_gets_its_new_addresses_and_right_checksums(fastpath, arrives, leaves, direction):
    total = 0
    with fastpath.session(arrives, leaves, direction):
        for size in [0, 1, 2, 3, 8, 511, 1472, 3000]:
            payload = random.Random(size).randbytes(size)
            verdict, out = fastpath.run(packet(arrives, payload, tos=0xB8), skb())
            assert (verdict, out) == (NEXT, packet(leaves, payload, tos=0xB8)), size
            total += size
        assert fastpath.counted()[direction] == (8, total)
        assert fastpath.counted()[1 - direction] == (0, 0)


@pytest.mark.parametrize("v4", [True, False], ids=["IPv4", "IPv6"])
def test_checksums_are_right_for_any_addresses_and_payload(fastpath, v4):
    rng = random.Random(6)

    def pair():
        size = 4 if v4 else 16
        extreme = [b"\0" * size, b"\xff" * size, rng.randbytes(size)]
        return tuple((str(ipaddress.ip_address(rng.choice(extreme) if rng.random() < 0.3 else rng.randbytes(size))),
                      rng.choice([1, 255, 256, 65535, rng.randrange(1, 65536)])) for _ in range(2))

    for _ in range(300):
        arrives, leaves = pair(), pair()
        payload = rng.choice([b"\0" * 8, b"\xff" * 8, rng.randbytes(rng.randrange(60))])
        with fastpath.session(arrives, leaves):
            verdict, out = fastpath.run(packet(arrives, payload), skb())
            assert verdict == NEXT
            expected = packet(leaves, payload)
            # what is right: 0 and 0xffff are the same sum, but 0 means "none" in UDP and must not come out
            if v4:
                assert checksum(out[14:34]) == 0
                out = out[:24] + expected[24:26] + out[26:]
            at = 40 if v4 else 60
            source, target = raw(leaves[0][0]), raw(leaves[1][0])
            udp = out[at - 6:]
            assert checksum(source + target + struct.pack(">IHBB", len(udp), 0, 0, 17) + udp) == 0
            assert out[at:at + 2] != b"\0\0"
            assert out[:at] + out[at + 2:] == expected[:at] + expected[at + 2:]


def test_no_udp_checksum_stays_none(fastpath):
    with fastpath.session(*V4):
        verdict, out = fastpath.run(packet(V4[0], b"plain", check=0), skb())
    assert (verdict, out) == (NEXT, packet(V4[1], b"plain", check=0))


@FAMILIES
def test_a_wrong_checksum_stays_wrong(fastpath, arrives, leaves):
    """So that whoever is at the end still sees it."""
    with fastpath.session(arrives, leaves):
        right = packet(arrives, b"payload")
        at = len(right) - 9
        wrong = right[:at] + bytes([right[at] ^ 0x10]) + right[at + 1:]
        _, out = fastpath.run(wrong, skb())
        expected = packet(leaves, b"payload")
        assert out[at:at + 2] != expected[at:at + 2]
        assert out[:at] + out[at + 2:] == expected[:at] + expected[at + 2:]


@own_network()
@FAMILIES
def test_what_leaves_by_a_device_loses_a_hop(edge, arrives, leaves):
    subprocess.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"], check=True)
    v0 = socket.if_nametoindex("v0")
    e = edge("udp:9999 127.0.0.1 53 off off\n", metrics=False)
    head = 28 if arrives == V4[0] else 48
    with Fastpath(e) as program, program.session(arrives, leaves, ifindex=v0):
        for hops in (2, 3, 64, 255):
            for ingress in (LOOPBACK, v0):
                assert program.run(packet(arrives, b"on its way", hops), skb(ingress)) == \
                    (REDIRECT, packet(leaves, b"on its way", hops - 1))
        fits = 1500 - head
        counted = program.counted()
        for hops, size in ((0, 5), (1, 5), (64, fits + 1), (64, 3000)):  # user space sees to it, and to the error
            data = packet(arrives, bytes(size), hops)
            assert program.run(data, skb(v0)) == (NEXT, data)
        assert program.counted() == counted
        assert program.run(packet(arrives, bytes(fits)), skb(v0))[0] == REDIRECT


@FAMILIES
def test_local_sessions_are_those_of_loopback_only(fastpath, arrives, leaves):
    """A packet from outside with the addresses of a local session is not one of it."""
    with fastpath.session(arrives, leaves):
        data = packet(arrives, b"from outside")
        for ingress in (0, 2, 3):
            assert fastpath.run(data, skb(ingress)) == (NEXT, data)
        assert fastpath.counted() == ((0, 0), (0, 0))


@FAMILIES
def test_packets_of_no_session_are_left_alone(fastpath, arrives, leaves):
    (client, edge_end) = arrives
    others = [((client[0], client[1] + 1), edge_end), (client, (edge_end[0], edge_end[1] + 1)), (edge_end, client), leaves,
              ((leaves[0][0], client[1]), edge_end), (client, (leaves[1][0], edge_end[1]))]
    with fastpath.session(arrives, leaves):
        for pair in others:
            data = packet(pair, b"somebody else's")
            assert fastpath.run(data, skb()) == (NEXT, data)
        assert fastpath.counted() == ((0, 0), (0, 0))


UNUSUAL = {
    "first fragment": (V4, dict(fragment=0x2000)),
    "fragment in the middle": (V4, dict(fragment=0x2010)),
    "last fragment": (V4, dict(fragment=0x0010)),
    "IP options": (V4, dict(options=b"\x01" * 4)),
    "most IP options": (V4, dict(options=b"\x01" * 40)),
    "tcp": (V4, dict(protocol=6)),
    "udp-lite": (V4, dict(protocol=136)),
    "version 5": (V4, dict(version=5)),
    "version 6 in an IPv4 frame": (V4, dict(version=6)),
    "udp length 0": (V4, dict(udp_length=0)),
    "udp length 7": (V4, dict(udp_length=7)),
    "v6 hop-by-hop options": (V6, dict(options=b"\x11\0\1\4\0\0\0\0")),
    "v6 tcp": (V6, dict(protocol=6)),
    "v6 fragment": (V6, dict(protocol=44)),
    "v6 version 4": (V6, dict(version=4)),
    "v6 udp length 7": (V6, dict(udp_length=7)),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_what_is_unusual_is_left_to_user_space(fastpath, what):
    (arrives, leaves), kwargs = UNUSUAL[what]
    data = packet(arrives, b"unusual payload", **kwargs)
    with fastpath.session(arrives, leaves):
        assert fastpath.run(data, skb()) == (NEXT, data)
        assert fastpath.counted() == ((0, 0), (0, 0))
        assert fastpath.run(packet(arrives, b"ordinary"), skb())[1] == packet(leaves, b"ordinary")


@FAMILIES
def test_packets_cut_at_any_place_are_left_alone(fastpath, arrives, leaves):
    whole = packet(arrives, b"")
    with fastpath.session(arrives, leaves):
        for length in range(len(whole) - 8, len(whole)):  # the kernel tries no packet without a whole IP header
            assert fastpath.run(whole[:length], skb()) == (NEXT, whole[:length]), length
        assert fastpath.run(whole, skb()) == (NEXT, packet(leaves, b""))


@pytest.mark.parametrize("ethertype", ["0806", "8100", "0000", "88cc", "86dd", "ffff"])
def test_other_kinds_of_frames_are_left_alone(fastpath, ethertype):
    data = packet(V4[0], bytes(40))
    data = data[:12] + bytes.fromhex(ethertype) + data[14:]
    with fastpath.session(*V4), fastpath.session(*V6):
        assert fastpath.run(data, skb()) == (NEXT, data)


def test_a_packet_of_many_segments_counts_as_many_datagrams(fastpath):
    with fastpath.session(*V4):
        fastpath.run(packet(V4[0], bytes(3000)), skb(gso_segs=3, gso_size=1000))
        assert fastpath.counted()[TO_ORIGIN] == (3, 3000)


def test_garbage_is_left_alone(fastpath):
    rng = random.Random(8)
    with fastpath.session(*V4), fastpath.session(*V6, slot=6):
        for n in range(3000):
            data = bytearray(packet(rng.choice([V4, V6])[0], bytes(40)))
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(12, len(data))] = rng.randrange(256)
            data = bytes(data[:rng.randrange(14 + 40, len(data) + 1)])
            verdict, out = fastpath.run(data, skb())
            assert verdict == NEXT and len(out) == len(data)


@FAMILIES
def test_an_observed_session_is_seen_and_left_alone(fastpath, arrives, leaves):
    """User space hands a session over only when packets of both directions have come by."""
    with fastpath.session(arrives, leaves, observe=1):
        data = packet(arrives, b"on its way")
        assert fastpath.run(data, skb()) == (NEXT, data)
        assert fastpath.counted() == ((0, 0), (0, 0))
        assert struct.unpack("8Q", fastpath.lookup("counters", struct.pack("I", 5), 64))[6:] == (1, 0)


@FAMILIES
def test_what_is_not_addressed_to_this_machine_is_left_alone(fastpath, arrives, leaves):
    with fastpath.session(arrives, leaves):
        data = b"\x02" + packet(arrives, b"for a neighbour")[1:]
        assert fastpath.run(data, skb()) == (NEXT, data)
        assert fastpath.counted() == ((0, 0), (0, 0))
