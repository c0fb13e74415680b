# SPDX-License-Identifier: Apache-2.0
"""Pass mode toa over real links, seen from the origin's device: client and origin of either family, firewalls that drop
what carries the option, lost segments, and the length of packets. The network is that of test_netns.py.
"""
import array
import fcntl
import socket
import struct
import subprocess

import pytest

from harness import TcpOrigin, connect, free_port, recv_exactly, wait_until
from segments import ACK, FIN, SYN, Capture, toa
from streams import Job, StreamOrigin, exchange
from test_netns import net, network, origin_of, tcp_from, wires  # noqa: F401 (fixtures)

SIOCETHTOOL, ETHTOOL_STSO = 0x8946, 0x1F
TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28
CLIENTS = [("10.77.1.2", "10.77.1.1"), ("fd77:1::2", "fd77:1::1")]
ORIGINS = ["10.77.2.2", "fd77:2::2"]
FAMILIES = pytest.mark.parametrize("source, to, origin_address", [(*c, o) for c in CLIENTS for o in ORIGINS],
                                   ids=["v4-v4", "v4-v6", "v6-v4", "v6-v6"])
SAME = pytest.mark.parametrize("source, to, origin_address", [(*CLIENTS[0], ORIGINS[0]), (*CLIENTS[1], ORIGINS[1])],
                               ids=["v4", "v6"])


@pytest.fixture
def capture(net):  # noqa: F811
    with net.inside("origin"):
        c = Capture("o0")
    with c:
        yield c


def written(address):
    return f"[{address}]" if ":" in address else address


def say(client, data=b"hello"):
    client.sendall(data)
    assert recv_exactly(client, len(data)) == data


def wait_fin(capture, port):
    wait_until(lambda: any(s.flags & FIN for s in capture.segments(port)), what="the connection's end")
    return capture.segments(port)


def drop_at_origin(net, port, match):  # noqa: F811
    """The origin drops what matches (nftables), from now on."""
    with net.inside("origin"):
        subprocess.run(["nft", "-f", "-"], check=True, text=True,
                       input="table inet t {\ncounter dropped { }\nchain input {\ntype filter hook input priority 0\n"
                             f"tcp dport {port} {match} counter name dropped drop\n}}\n}}\n")


def dropped(net):  # noqa: F811
    with net.inside("origin"):
        out = subprocess.run(["nft", "list", "counter", "inet", "t", "dropped"], check=True, text=True, capture_output=True)
    return int(out.stdout.split("packets ")[1].split()[0])


def cut_segments_in_software(net, device):  # noqa: F811
    """As a device without segmentation offload: what arrives is what a wire would carry."""
    value = array.array("I", [ETHTOOL_STSO, 0])
    with net.inside("edge"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCETHTOOL, struct.pack("16sQ16x", device.encode(), value.buffer_info()[0]))


@FAMILIES
@pytest.mark.parametrize("in_syn", ["on", "off"], ids=["in SYN", "not in SYN"])
def test_the_origin_gets_the_client_s_address_and_port(net, capture, source, to, origin_address, in_syn):  # noqa: F811
    port = free_port()
    with origin_of(net, TcpOrigin, address=origin_address) as origin:
        e = net.start(f"tcp:{port} {written(origin_address)} {origin.port} off toa toa_in_syn={in_syn}\n")
        with tcp_from(net, port, to, source) as client:
            option = toa(*client.getsockname()[:2])
            say(client)
            say(client)
        syn, ack, data, *rest = wait_fin(capture, origin.port)
    assert syn.is_syn and syn.options.get(200) == (option if in_syn == "on" else None)
    assert ack.flags == ACK and not ack.payload and ack.options[200] == option
    assert data.payload == b"hello" and data.options[200] == option
    assert rest and not any(200 in s.options for s in rest)
    assert syn.header_length <= 60
    assert net.metric(e, "toa_no_room_total") == net.metric(e, "toa_syn_without_total") == 0


@SAME
def test_tshark_reads_it(net, tmp_path, source, to, origin_address):  # noqa: F811
    """Somebody else's eyes: kind 200 with the right bytes in the right packets."""
    port, out, err = free_port(), tmp_path / "tshark.out", tmp_path / "tshark.err"
    fields = [x for name in ("tcp.srcport", "tcp.flags.fin", "tcp.len", "tcp.option_kind", "tcp.options") for x in ("-e", name)]
    with origin_of(net, TcpOrigin, address=origin_address) as origin, open(out, "wb") as o, open(err, "wb") as e:
        with net.inside("origin"):
            tshark = subprocess.Popen(["tshark", "-l", "-n", "-i", "o0", "-f", f"tcp dst port {origin.port}", "-T", "fields",
                                       *fields], stdout=o, stderr=e)
        try:
            wait_until(lambda: "Capturing on" in err.read_text(), what="tshark to begin")
            net.start(f"tcp:{port} {written(origin_address)} {origin.port} off toa\n")
            with tcp_from(net, port, to, source) as first:
                while not out.read_text():  # it says that it begins a moment before it does
                    say(first)
            with tcp_from(net, port, to, source) as client:
                option = toa(*client.getsockname()[:2])
                say(client)
                say(client)

            def second():
                """The packets of the second connection, as tshark sees them, when its FIN is among them."""
                lines = [line.split("\t") for line in out.read_text().splitlines()]
                ports = list(dict.fromkeys(line[0] for line in lines))
                found = [line[1:] for line in lines if line[0] in ports[1:]]
                return found if any(line[0] in ("1", "True") for line in found) else None
            found = wait_until(second, what="both connections' ends")
        finally:
            tshark.terminate()
            tshark.wait()
    syn, ack, data, *rest = found
    for packet, length in ((syn, "0"), (ack, "0"), (data, "5")):
        assert packet[1] == length and "200" in packet[2].split(",") and option.hex() in packet[3], packet
    assert rest and not any("200" in packet[2].split(",") for packet in rest)


@FAMILIES
def test_an_origin_reads_it_from_the_syn_without_any_right(net, source, to, origin_address):  # noqa: F811
    """TCP_SAVE_SYN: as a program without BPF would."""
    port = free_port()
    with net.inside("origin"):
        listener = socket.create_server((origin_address, 0), family=socket.AF_INET6 if ":" in origin_address else socket.AF_INET)
    with listener:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
        net.start(f"tcp:{port} {written(origin_address)} {listener.getsockname()[1]} off toa\n")
        with tcp_from(net, port, to, source) as client:
            listener.settimeout(10)
            accepted, _ = listener.accept()
            with accepted:
                saved = accepted.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 200)
                assert toa(*client.getsockname()[:2]) in saved


@SAME
def test_a_firewall_that_drops_syns_with_it_costs_two_retransmissions(net, capture, source, to, origin_address):  # noqa: F811
    port = free_port()
    with origin_of(net, TcpOrigin, address=origin_address) as origin:
        drop_at_origin(net, origin.port, "tcp flags & (syn | ack) == syn tcp option 200 exists")
        e = net.start(f"tcp:{port} {written(origin_address)} {origin.port} off toa\n")
        with tcp_from(net, port, to, source) as client:
            option = toa(*client.getsockname()[:2])
            say(client)
        found = wait_fin(capture, origin.port)
        assert dropped(net) == 2
        flow, = e.wait_flows(1)
    syns = [s.options.get(200) for s in found if s.is_syn]
    assert syns == [option, option, None]
    ack, data, *_ = found[3:]
    assert ack.options[200] == data.options[200] == option and data.payload == b"hello"
    assert 1900 < flow["connect_ms"] < 4500
    assert net.metric(e, "toa_syn_without_total") == 1 and net.metric(e, "connect_retries_total") == 0


@SAME
def test_when_the_handshake_s_ack_is_lost_the_data_carries_it(net, capture, source, to, origin_address):  # noqa: F811
    port = free_port()
    length = "ip length 60" if ":" not in origin_address else "ip6 length 52"
    with origin_of(net, TcpOrigin, address=origin_address) as origin:
        drop_at_origin(net, origin.port, f"tcp flags & (syn | ack | psh | fin | rst) == ack tcp option 200 exists {length}")
        net.start(f"tcp:{port} {written(origin_address)} {origin.port} off toa toa_in_syn=off\n")
        with tcp_from(net, port, to, source) as client:
            option = toa(*client.getsockname()[:2])
            say(client)
            assert dropped(net) >= 1
            say(client)
        found = wait_fin(capture, origin.port)
    first = next(s for s in found if s.payload)
    assert first.payload == b"hello" and first.options[200] == option
    assert not any(200 in s.options for s in found if s.payload and s.sequence > first.sequence)


@FAMILIES
def test_no_packet_is_longer_than_the_link_allows(net, capture, source, to, origin_address):  # noqa: F811
    port = free_port()
    cut_segments_in_software(net, "e1")
    data = bytes(range(256)) * 160
    with origin_of(net, TcpOrigin, address=origin_address) as origin:
        net.start(f"tcp:{port} {written(origin_address)} {origin.port} off toa\n")
        with tcp_from(net, port, to, source) as client:
            option = toa(*client.getsockname()[:2])
            client.sendall(data)
            assert recv_exactly(client, len(data)) == data
        found = wait_fin(capture, origin.port)
    payloads = {s.sequence: s.payload for s in found if s.payload}
    assert b"".join(payloads[n] for n in sorted(payloads)) == data
    with_it = [s for s in found if s.payload and 200 in s.options]
    assert len(with_it) > 3 and {s.options[200] for s in with_it} == {option}
    assert max(s.ip_length for s in found) == 1500 == max(s.ip_length for s in with_it)


@SAME
def test_a_server_that_speaks_first(net, capture, source, to, origin_address):  # noqa: F811
    def greet(connection, peer):
        connection.sendall(b"220 ready\r\n")
        connection.recv(100)

    port = free_port()
    with origin_of(net, TcpOrigin, greet, address=origin_address) as origin:
        net.start(f"tcp:{port} {written(origin_address)} {origin.port} off toa toa_in_syn=off\n")
        with tcp_from(net, port, to, source) as client:
            option = toa(*client.getsockname()[:2])
            assert recv_exactly(client, 11) == b"220 ready\r\n"
            client.sendall(b"EHLO\r\n")
            client.recv(1)
        syn, ack, *rest = wait_fin(capture, origin.port)
    assert syn.is_syn and ack.options[200] == option and not any(200 in s.options for s in rest)


@pytest.mark.parametrize("source, to", CLIENTS, ids=["v4", "v6"])
def test_streams_are_intact_over_a_wire_that_loses_and_reorders(net, wires, source, to):  # noqa: F811
    """With SACK blocks, and lost segments at either end of the connection's beginning."""
    port = free_port()
    wires("origin", loss=0.03, repeat=0.01, delay_ms=1, jitter_ms=3)
    with net.inside("origin"):
        capture = Capture("ot")  # pylint: disable=redefined-outer-name
    with capture, origin_of(net, StreamOrigin, "10.77.4.2") as origin:
        e = net.start(f"tcp:{port} 10.77.4.2 {origin.port} off toa connect_timeout=20s\n")
        sizes = [(0, 0), (1, 1), (200000, 0), (0, 200000), (500000, 20), (20, 500000)] + [(100000, 100000)] * 14
        with net.inside("client"):
            exchange([Job(port, up, down, address=to) for up, down in sizes])
        flows = e.wait_flows(len(sizes))
        found = capture.segments(origin.port)
    assert {f["end"] for f in flows} == {"done"}
    assert sum(f["bytes_out"] for f in flows) == sum(down for _, down in sizes)
    clients = {toa(f["client"].rpartition(":")[0].strip("[]"), int(f["client"].rpartition(":")[2])) for f in flows}
    by_connection = {}
    for s in found:
        by_connection.setdefault(s.source, []).append(s)
    assert len(by_connection) == len(sizes)
    named = set()
    for segments in by_connection.values():
        completing = next(s for s in segments if not s.flags & SYN)  # whichever it is: the origin's kernel looks at it
        assert {s.options[200] for s in segments if 200 in s.options} == {completing.options[200]}
        named.add(completing.options[200])
    assert named == clients
    assert max(s.ip_length for s in found) <= 1500


def test_other_sockets_of_the_machine_carry_nothing(net, capture):  # noqa: F811
    port = free_port()
    with origin_of(net, TcpOrigin, address="10.77.2.2") as origin:
        net.start(f"tcp:{port} 10.77.2.2 {origin.port} off toa\n")
        with tcp_from(net, port, "10.77.1.1") as client:
            say(client)
            with net.inside("edge"):
                other = connect(origin.port, "10.77.2.2")
            with other:
                say(other, b"another program's")
                name = other.getsockname()
        found = wait_fin(capture, origin.port)
    assert any(200 in s.options for s in found)
    assert [s for s in found if s.source == name] and not any(200 in s.options for s in found if s.source == name)
