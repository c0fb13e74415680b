# SPDX-License-Identifier: Apache-2.0
"""The fastpath program: packet in, verdict and bytes out. Sessions are put into its map by hand."""
import contextlib
import ipaddress
import random
import socket
import struct
import subprocess

import pytest

from harness import UdpOrigin, accept, connect, free_port, listen, own_network, port_of, recv_exactly, wait_until
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


# --- TCP ---

TCP_SLOT, GENERATION, CARRY, WATCH = 9, 3, 2, 1
DELTA, BACK_DELTA, TS_DELTA, TS_BACK = 0x10203040, 0xFFFF0001, 1000, 0xFFFFFF00  # so that sums overflow, too
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TIMESTAMPS = b"\1\1\x08\x0a" + struct.pack(">II", 0xFFFFFE00, 77)


def segment(pair, payload=b"", flags=ACK, seq=0xFFFFFF00, ack=500, window=1000, options=TIMESTAMPS, urgent=0, **ip):
    """A frame with TCP; `packet()` makes what is around it."""
    (source, sport), (target, dport) = pair
    tcp = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, (20 + len(options)) // 4 << 4, flags, window, 0, urgent) + options
    pseudo = raw(source) + raw(target) + struct.pack(">IHBB", len(tcp) + len(payload), 0, 0, 6)
    tcp = tcp[:16] + struct.pack(">H", checksum(pseudo + tcp + payload)) + tcp[18:]
    head_length = 14 + (40 if ":" in source else 20)
    # the 8 bytes that packet() takes for UDP's header are replaced by those of TCP
    frame = packet(pair, (tcp + payload)[8:], protocol=6, check=0, **ip)
    return frame[:head_length] + tcp + payload


def expected(leaves, payload=b"", flags=ACK, seq=0xFFFFFF00, ack=500, window=1000, options=TIMESTAMPS, sack=(), **more):
    out = b""
    if options:
        value, echo = struct.unpack(">II", options[4:12])
        out = options[:4] + struct.pack(">II", (value + TS_DELTA) % 2**32, (echo - TS_BACK) % 2**32 if flags & ACK else echo)
        out += options[12:]
    return segment(leaves, payload, flags, (seq + DELTA) % 2**32, (ack - BACK_DELTA) % 2**32 if flags & ACK else ack, window,
                   out, **more)


class TcpFastpath(Fastpath):
    @contextlib.contextmanager
    def flow(self, arrives, leaves, state=CARRY, told=0, scales=(0, 0), seen=0xFFFFFF00, back_seen=2000, ifindex=0, fin_end=0):
        """A flow's direction to the origin while inside."""
        value = self.tuple(leaves) + struct.pack("IIIIII", TCP_SLOT, GENERATION, TO_ORIGIN, ifindex == 0, ifindex, 1500)
        way = struct.pack("7I4B", seen, (seen - 100) % 2**32, (seen + 2**30) % 2**32, fin_end, 0, DELTA, TS_DELTA, *scales, 0, 0)
        back = struct.pack("7I4B", back_seen, 0, 0, 0, 0, BACK_DELTA, TS_BACK, 0, 0, 0, 0)
        session = struct.pack("6I", 0, state, GENERATION, 0, told, 0) + way + back
        self.update("tcp_sessions", struct.pack("I", TCP_SLOT), session)
        self.update("tcp_counters", struct.pack("I", TCP_SLOT), bytes(64))
        self.update("tcp_targets", self.tuple(arrives), value)
        yield
        with contextlib.suppress(OSError):
            self.delete("tcp_targets", self.tuple(arrives))

    def state(self):
        """(told, bytes to the origin, seen) of the flow."""
        session = struct.unpack("6I7I", self.lookup("tcp_sessions", struct.pack("I", TCP_SLOT), 88)[:52])
        counted, = struct.unpack("Q", self.lookup("tcp_counters", struct.pack("I", TCP_SLOT), 64)[:8])
        return session[4], counted, session[6]


@pytest.fixture
def tcp_fastpath(edge):
    """The program, awake: it looks at TCP only while the edge has a flow there."""
    listener = listen()
    port = free_port()
    e = edge(f"set node tcp_fast_path_after=1\ntcp:{port} 127.0.0.1 {port_of(listener)} off off\n")
    with listener, connect(port) as client, accept(listener) as origin:
        def carried():
            client.sendall(b"x")
            origin.sendall(recv_exactly(origin, 1))
            recv_exactly(client, 1)
            return e.metric("tcp_fast_flows") == 1
        wait_until(carried, what="a carried flow")
        with TcpFastpath(e) as program:
            yield program


@FAMILIES
@pytest.mark.parametrize("case", [
    {}, {"payload": b"x"}, {"payload": b"odd"}, {"payload": bytes(range(256)) * 4}, {"options": b""}, {"flags": ACK | PSH},
    {"flags": 0}, {"urgent": 7, "flags": ACK | 32}, {"seq": 1, "ack": 0xFFFFFFFF}, {"hops": 1}], ids=str)
def test_tcp_numbers_are_translated(tcp_fastpath, arrives, leaves, case):
    with tcp_fastpath.flow(arrives, leaves):
        assert tcp_fastpath.run(segment(arrives, **case), skb()) == (NEXT, expected(leaves, **case))


@FAMILIES
def test_tcp_sack_blocks_and_odd_places_of_options_are_translated(tcp_fastpath, arrives, leaves):
    def options(value, echo, edges):
        return (b"\x08\x0a" + struct.pack(">II", value, echo) + b"\1\1\1\x05" +
                bytes([2 + 4 * len(edges)]) + struct.pack(f">{len(edges)}I", *edges) + b"\1")
    edges = [5, 0xFFFFFFF0, 7, 90000]
    moved = [(edge - BACK_DELTA) % 2**32 for edge in edges]
    before, after = options(9, 0, edges), options(9 + TS_DELTA, (0 - TS_BACK) % 2**32, moved)
    assert len(before) % 4 == 0
    with tcp_fastpath.flow(arrives, leaves):
        packet_before = segment(arrives, b"data", options=before)
        packet_after = segment(leaves, b"data", seq=(0xFFFFFF00 + DELTA) % 2**32, ack=(500 - BACK_DELTA) % 2**32, options=after)
        assert tcp_fastpath.run(packet_before, skb()) == (NEXT, packet_after)


@pytest.mark.parametrize("scales, before, after", [
    ((0, 0), 1234, 1234), ((7, 0), 100, 12800), ((7, 0), 1000, 65535), ((0, 7), 65535, 511), ((3, 7), 160, 10), ((14, 14), 9, 9)])
def test_tcp_windows_are_scaled(tcp_fastpath, scales, before, after):
    arrives, leaves = V4
    with tcp_fastpath.flow(arrives, leaves, scales=scales):
        want = struct.unpack(">H", expected(leaves, window=after)[14 + 20 + 14:][:2])
        verdict, out = tcp_fastpath.run(segment(arrives, window=before), skb())
        assert (verdict, struct.unpack(">H", out[14 + 20 + 14:][:2])) == (NEXT, want)
        assert out == expected(leaves, window=after)


def test_tcp_bytes_are_counted_once(tcp_fastpath):
    arrives, leaves = V4
    with tcp_fastpath.flow(arrives, leaves, seen=1000):
        for seq, length, total in ((1000, 10, 10), (1000, 10, 10), (1005, 10, 15), (900, 20, 15), (1015, 0, 15)):
            tcp_fastpath.run(segment(arrives, bytes(length), seq=seq), skb())
            assert tcp_fastpath.state()[1] == total
        tcp_fastpath.run(segment(arrives, b"end", FIN | ACK, seq=1015), skb())
        tcp_fastpath.run(segment(arrives, b"end", FIN | ACK, seq=1015), skb())
        told, counted, seen = tcp_fastpath.state()
        assert (told, counted, seen) == (1 | 32, 18, 1019)


def test_tcp_fin_that_comes_after_an_ack_from_behind_it_is_no_byte(tcp_fastpath):
    arrives, leaves = V4
    with tcp_fastpath.flow(arrives, leaves, seen=1000):
        tcp_fastpath.run(segment(arrives, bytes(10), seq=1000), skb())
        tcp_fastpath.run(segment(arrives, seq=1011), skb())  # its FIN at 1010 was lost on the way here
        tcp_fastpath.run(segment(arrives, b"", FIN | ACK, seq=1010), skb())
        assert tcp_fastpath.state() == (1 | 32, 10, 1011)


@pytest.mark.parametrize("seq, ends", [(1000, True), (950, True), (5000, True), (100, False), (1000 + 2**31, False)])
def test_tcp_reset_ends_a_flow_only_inside_the_window(tcp_fastpath, seq, ends):
    arrives, leaves = V4
    with tcp_fastpath.flow(arrives, leaves, seen=1000):
        case = {"flags": RST | ACK, "seq": seq}
        assert tcp_fastpath.run(segment(arrives, **case), skb()) == (NEXT, expected(leaves, **case))
        assert tcp_fastpath.state()[0] == (4 if ends else 0)


def test_tcp_syn_takes_the_entry_of_a_flow_that_is_over(tcp_fastpath):
    arrives, leaves = V4
    syn = segment(arrives, flags=SYN)
    with tcp_fastpath.flow(arrives, leaves, told=16):
        assert tcp_fastpath.run(syn, skb()) == (NEXT, syn)
        with pytest.raises(OSError):
            tcp_fastpath.lookup("tcp_targets", tcp_fastpath.tuple(arrives), 60)


def test_tcp_syn_inside_a_flow_is_for_its_other_end_to_answer(tcp_fastpath):
    arrives, leaves = V4
    with tcp_fastpath.flow(arrives, leaves):
        assert tcp_fastpath.run(segment(arrives, flags=SYN), skb()) == (NEXT, expected(leaves, flags=SYN))
        assert tcp_fastpath.state()[0] == 0


@FAMILIES
def test_watched_tcp_flows_are_noted_and_left_alone(tcp_fastpath, arrives, leaves):
    with tcp_fastpath.flow(arrives, leaves, state=WATCH, seen=0):
        frame = segment(arrives, b"12345", seq=100)
        assert tcp_fastpath.run(frame, skb()) == (NEXT, frame)
        assert tcp_fastpath.state() == (0, 0, 105)


@pytest.mark.parametrize("options", [b"\x08\x00\1\1", b"\x05\x0a\1\1", b"\x08\x29\1\1"])
def test_malformed_tcp_options_are_left_alone(tcp_fastpath, options):
    arrives, leaves = V4
    with tcp_fastpath.flow(arrives, leaves):
        frame = segment(arrives, options=options)
        assert tcp_fastpath.run(frame, skb()) == (NEXT, frame)


@FAMILIES
def test_tcp_packets_leave_by_a_device_with_one_hop_less(tcp_fastpath, arrives, leaves):
    with tcp_fastpath.flow(arrives, leaves, ifindex=LOOPBACK):
        verdict, out = tcp_fastpath.run(segment(arrives, b"x"), skb())
        assert (verdict, out) == (REDIRECT, expected(leaves, b"x", hops=63))
        for left in (segment(arrives, bytes(1500)), segment(arrives, hops=1)):
            assert tcp_fastpath.run(left, skb()) == (NEXT, left)


def stamped(value):
    return b"\1\1\x08\x0a" + struct.pack(">II", value, 77)


def test_tcp_time_stamps_of_the_stream_are_kept(tcp_fastpath):
    """The latest one; a packet that confirms less than is known, or what was never sent, says nothing."""
    arrives, leaves = V4
    with tcp_fastpath.flow(arrives, leaves):
        for value, confirms, kept in ((5, 100, 5), (9, 200, 9), (7, 200, 9), (20, 199, 9), (30, 2001, 9), (40, 2000, 40)):
            tcp_fastpath.run(segment(arrives, ack=(confirms + BACK_DELTA) % 2**32, options=stamped(value)), skb())
            assert tcp_fastpath.lookup("tcp_sessions", struct.pack("I", TCP_SLOT), 88)[40:44] == struct.pack("I", kept)


@FAMILIES
def test_a_tcp_probe_is_carried_and_is_no_sign_of_life(tcp_fastpath, arrives, leaves):
    def all_of_it():
        return [tcp_fastpath.lookup(name, struct.pack("I", TCP_SLOT), size) for name, size in
                (("tcp_sessions", 88), ("tcp_counters", 64))]
    marked = bytearray(skb())
    struct.pack_into("I", marked, 8, 0x7464676B)  # FAST_TCP_PROBE_MARK
    with tcp_fastpath.flow(arrives, leaves):
        before, case = all_of_it(), {"ack": (1500 + BACK_DELTA) % 2**32, "options": stamped(9)}
        assert tcp_fastpath.run(segment(arrives, **case), bytes(marked)) == (NEXT, expected(leaves, **case))
        assert all_of_it() == before
        tcp_fastpath.run(segment(arrives, **case), skb())
        assert all_of_it() != before
