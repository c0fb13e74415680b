# SPDX-License-Identifier: Apache-2.0
"""PROXY headers on TCP: those sent to the origin, byte for byte and as nginx and HAProxy read them; and those accepted
from a balancer in front of the edge."""
import contextlib
import ipaddress
import socket
import struct

import pytest

from harness import (TcpOrigin, accept, connect, free_port, how_connecting_ends, how_it_ends, listen, port_of, recv_all,
                     recv_exactly)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def v1(client, edge, cport, eport):
    family = 6 if ":" in client + edge else 4
    return f"PROXY TCP{family} {client} {edge} {cport} {eport}\r\n".encode()


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def v2(client=None, edge=None, cport=0, eport=0, tlvs=b"", family=None, command=1):
    """A version 2 header; without a client, an UNSPEC one."""
    block = b""
    if client:
        c, e = ipaddress.ip_address(client), ipaddress.ip_address(edge)
        block = c.packed + e.packed + struct.pack("!HH", cport, eport)
        family = family or {4: 0x11, 6: 0x21}[c.version]
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family or 0, len(block + tlvs)) + block + tlvs


def mapped(v4):
    return "::ffff:" + v4


def text(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def rule(edge, pass_mode, options="", origin_address="127.0.0.1"):
    """A rule to an origin that the test plays: (edge, port, listener)."""
    port = free_port()
    with listen(origin_address) as listener:
        host = f"[{origin_address}]" if ":" in origin_address else origin_address
        yield edge(f"tcp:{port} {host} {port_of(listener)} off {pass_mode} {options}\n"), port, listener


def read_v1(origin):
    line = b""
    while not line.endswith(b"\r\n"):
        line += recv_exactly(origin, 1)
    return line


def read_v2(origin):
    head = recv_exactly(origin, 16)
    return head + recv_exactly(origin, struct.unpack("!H", head[14:])[0])


# --- to the origin ---

CASES = [("ppv1", read_v1, v1), ("ppv2", read_v2, v2)]


@pytest.mark.parametrize("pass_mode,read,expected", CASES, ids=["ppv1", "ppv2"])
@pytest.mark.parametrize("edge_address,source", [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.11.22.33"),
                                                 ("::1", "::1")])
@pytest.mark.parametrize("origin_address", ["127.0.0.1", "::1"])
def test_header_names_client_and_edge_before_the_first_byte(edge, pass_mode, read, expected, edge_address, source,
                                                            origin_address):
    with rule(edge, pass_mode, origin_address=origin_address) as (e, port, listener):
        with connect(port, edge_address, source) as client:
            client.sendall(b"first bytes")
            client.shutdown(socket.SHUT_WR)
            with accept(listener) as origin:
                assert read(origin) == expected(source, edge_address, port_of(client), port)
                assert recv_all(origin) == b"first bytes"
        flow, = e.wait_flows(1)
        assert (flow["bytes_in"], flow["bytes_out"]) == (11, 0), "headers are not payload"


@pytest.mark.parametrize("pass_mode,read,expected", CASES, ids=["ppv1", "ppv2"])
def test_header_does_not_wait_for_the_client(edge, pass_mode, read, expected):
    """An origin that speaks first knows at once to whom; and the header comes only once."""
    with rule(edge, pass_mode) as (_, port, listener):
        with connect(port) as client, accept(listener) as origin:
            assert read(origin) == expected("127.0.0.1", "127.0.0.1", port_of(client), port)
            origin.sendall(b"welcome")
            assert recv_exactly(client, 7) == b"welcome"
            client.sendall(b"1")
            assert recv_exactly(origin, 1) == b"1"
            client.sendall(b"2")
            client.shutdown(socket.SHUT_WR)
            assert recv_all(origin) == b"2"


def test_header_precedes_a_large_first_read(edge):
    data = bytes(range(256)) * 8000
    with rule(edge, "ppv2") as (_, port, listener):
        with connect(port) as client:
            client.settimeout(15)
            client.send(data[:60000])
            with accept(listener) as origin:
                client.sendall(data[60000:])
                client.shutdown(socket.SHUT_WR)
                assert len(read_v2(origin)) == 28
                assert recv_all(origin) == data


@pytest.fixture
def nginx(program, tmp_path):
    """start(server_lines) -> port of an nginx stream server with these lines."""
    def start(lines):
        port = free_port()
        conf = tmp_path / "nginx.conf"
        conf.write_text(f"""load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log stderr info;
events {{ worker_connections 64; }}
stream {{ server {{ listen 127.0.0.1:{port} proxy_protocol; {lines} }} }}
""")
        program(["/usr/sbin/nginx", "-p", tmp_path, "-c", conf]).wait_port(port)
        return port
    return start


@pytest.fixture
def haproxy(program, tmp_path):
    """start(sections) -> the running HAProxy."""
    def start(sections, port):
        conf = tmp_path / "haproxy.cfg"
        conf.write_text(f"""global
    maxconn 100
defaults
    timeout connect 5s
    timeout client 20s
    timeout server 20s
{sections}
""")
        return program(["/usr/sbin/haproxy", "-db", "-f", conf]).wait_port(port)
    return start


def edge_to(edge, pass_mode, origin_port, options=""):
    port = free_port()
    edge(f"tcp:{port} 127.0.0.1 {origin_port} off {pass_mode} {options}\n")
    return port


CLIENTS = pytest.mark.parametrize("address,source", [("127.0.0.1", "127.44.0.9"), ("::1", "::1")])
PASS_MODES = pytest.mark.parametrize("pass_mode", ["ppv1", "ppv2"])


@PASS_MODES
@CLIENTS
def test_nginx_reads_the_header(edge, nginx, pass_mode, address, source):
    port = edge_to(edge, pass_mode, nginx('return "$proxy_protocol_addr $proxy_protocol_port '
                                          '$proxy_protocol_server_addr $proxy_protocol_server_port";'))
    with connect(port, address, source) as client:
        assert recv_all(client).decode() == f"{source} {port_of(client)} {address} {port}"


@PASS_MODES
@CLIENTS
def test_haproxy_reads_the_header(edge, haproxy, pass_mode, address, source):
    inside = free_port()
    haproxy(f"""listen in
    mode http
    bind 127.0.0.1:{inside} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
""", inside)
    port = edge_to(edge, pass_mode, inside)
    with connect(port, address, source) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        body = recv_all(client).decode().partition("\r\n\r\n")[2]
        assert body == f"{source} {port_of(client)} {address} {port}"


# --- from a balancer ---

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82f63b78 * (crc & 1)
    return crc ^ 0xffffffff


def with_crc(header):
    """The header with a CRC32C TLV of zeros at its end, filled in."""
    return header[:-4] + struct.pack("!I", crc32c(header))


A, B = ("203.0.113.7", 40000), ("198.51.100.2", 443)
A6, B6 = ("2001:db8::7", 40000), ("2001:db8:ffff::2", 443)
V4 = (A[0], B[0], A[1], B[1])
V6 = (A6[0], B6[0], A6[1], B6[1])
OWN = None  # the header names nobody: the connection's own addresses hold

ACCEPTED = {
    "v1 TCP4": (v1(*V4), A, B),
    "v1 TCP6": (v1(*V6), A6, B6),
    "v1 TCP6, client mapped": (v1(mapped(A[0]), B6[0], A[1], B6[1]), A, B6),
    "v1 ports 0": (v1(A[0], B[0], 0, 0), (A[0], 0), (B[0], 0)),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", OWN, OWN),
    "v1 UNKNOWN with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", OWN, OWN),
    "v2 TCP4": (v2(*V4), A, B),
    "v2 TCP6": (v2(*V6), A6, B6),
    "v2 TCP6, client v6 and edge v4": (v2(A6[0], mapped(B[0]), A6[1], B[1]), A6, B),
    "v2 TLVs": (v2(*V4, tlvs=tlv(1, b"h2") + tlv(2, b"host.example") + tlv(0x20, bytes(5)) + tlv(4, b"")), A, B),
    "v2 CRC32C": (with_crc(v2(*V4, tlvs=tlv(0xee, b"x" * 40) + tlv(3, bytes(4)))), A, B),
    "v2 of 4096 bytes": (v2(*V4, tlvs=tlv(4, bytes(4096 - 28 - 3))), A, B),
    "v2 LOCAL": (v2(command=0), OWN, OWN),
    "v2 LOCAL with addresses": (v2(*V4, command=0), OWN, OWN),
    "v2 UNSPEC": (v2(tlvs=tlv(4, b"123")), OWN, OWN),
    "v2 UNIX": (v2(family=0x31, tlvs=bytes(216)), OWN, OWN),
}


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize("pieces", ["one segment", "byte by byte"])
def test_balancer_names_the_client(edge, name, pieces):
    header, client_address, edge_address = ACCEPTED[name]
    with rule(edge, "ppv2", "accept_proxy=10.0.0.0/8,127.0.0.0/8") as (e, port, listener):
        with connect(port) as balancer:
            balancer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if pieces == "one segment":
                balancer.sendall(header + b"payload")
            else:
                for i in range(len(header)):
                    balancer.sendall(header[i:i + 1])
                balancer.sendall(b"payload")
            client_address = client_address or balancer.getsockname()
            edge_address = edge_address or ("127.0.0.1", port)
            with accept(listener) as origin:
                hosts = client_address[0], edge_address[0]
                if len({":" in h for h in hosts}) == 2:
                    hosts = tuple(h if ":" in h else mapped(h) for h in hosts)
                assert read_v2(origin) == v2(*hosts, client_address[1], edge_address[1])
                assert recv_exactly(origin, 7) == b"payload"
                origin.sendall(b"answer")
            assert recv_all(balancer) == b"answer"
        flow, = e.wait_flows(1)
        assert (flow["client"], flow["edge"]) == (text(*client_address), text(*edge_address))
        assert (flow["bytes_in"], flow["bytes_out"]) == (7, 6)


MALFORMED = {
    "no header": b"GET / HTTP/1.0\r\n\r\n",
    "TLS": bytes.fromhex("160301020001"),
    "v1 port": b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n",
    "v1 address": b"PROXY TCP4 1.2.3.256 5.6.7.8 1 80\r\n",
    "v1 families": b"PROXY TCP4 2001:db8::1 5.6.7.8 1 80\r\n",
    "v1 word": b"PROXY UDP4 1.2.3.4 5.6.7.8 1 80\r\n",
    "v1 without CR": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 80\n",
    "v1 too long": b"PROXY UNKNOWN " + b"x" * 94,
    "v1 cut": (b"PROXY TCP4 1.2.3.4", "eof"),
    "v2 cut": (v2(*V4)[:20], "eof"),
    "nothing": (b"", "eof"),
    "v2 version": SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
    "v2 command": SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),
    "v2 family": SIGNATURE + b"\x21\x41\0\x0c" + bytes(12),
    "v2 too short": SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
    "v2 too long": SIGNATURE + b"\x21\x11" + struct.pack("!H", 4081),
    "v2 TLV cut": v2(*V4, tlvs=b"\x04\x00\x05abcd"),
    "v2 CRC32C wrong": v2(*V4, tlvs=tlv(3, b"\1\2\3\4")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_header_is_refused(edge, name):
    data, at_end = MALFORMED[name] if isinstance(MALFORMED[name], tuple) else (MALFORMED[name], None)
    with rule(edge, "off", "accept_proxy=127.0.0.1") as (e, port, listener):
        with connect(port) as balancer:
            balancer.sendall(data)
            if at_end == "eof":
                balancer.shutdown(socket.SHUT_WR)
            assert how_it_ends(balancer) == "reset"
        flow, = e.wait_flows(1)
        assert (flow["end"], flow["end_side"], flow["origin"]) == ("bad_proxy_header", "client", None)
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("sent", [b"", b"PROXY TCP4 1.", v2(*V4)[:-1]], ids=["nothing", "v1 begun", "v2 begun"])
def test_balancer_has_a_limited_time_for_its_header(edge, sent):
    with rule(edge, "off", "accept_proxy=127.0.0.1 accept_proxy_timeout=300ms") as (e, port, listener):
        with connect(port) as balancer:
            balancer.sendall(sent)
            assert how_it_ends(balancer) == "reset"
        flow, = e.wait_flows(1)
        assert (flow["end"], flow["end_side"]) == ("proxy_header_timeout", "client")
        assert 300 <= flow["duration_ms"] < 3000


@pytest.mark.parametrize("trusted,source,address,accepted", [
    ("127.0.0.1", "127.0.0.1", "127.0.0.1", True),
    ("127.0.0.1", "127.0.0.2", "127.0.0.1", False),
    ("127.0.4.0/22", "127.0.7.255", "127.0.0.1", True),
    ("127.0.4.0/22", "127.0.8.0", "127.0.0.1", False),
    ("10.0.0.0/8,::1", "::1", "::1", True),
    ("::/0", "127.0.0.1", "127.0.0.1", False),
    ("0.0.0.0/0", "::1", "::1", False),
])
def test_only_trusted_balancers_are_let_in(edge, trusted, source, address, accepted):
    port = free_port()
    with TcpOrigin(lambda connection, peer: None) as origin:
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off accept_proxy={trusted}\n")
        assert how_connecting_ends(port, address, source, v2(*V4)) == ("fin" if accepted else "reset")
        flow, = e.wait_flows(1)
        assert flow["end"] == ("done" if accepted else "untrusted_balancer")
        assert flow["client"] == (text(*A) if accepted else text(source, int(flow["client"].rpartition(":")[2])))
        assert origin.connections == int(accepted)


@pytest.mark.parametrize("send,tlvs", [
    ("send-proxy", False), ("send-proxy-v2", False),
    ("send-proxy-v2 proxy-v2-options crc32c,unique-id", True)])
@CLIENTS
def test_haproxy_in_front_names_the_client_through_to_nginx(edge, haproxy, nginx, send, tlvs, address, source):
    """HAProxy -> edge (accept_proxy, ppv2) -> nginx."""
    port = edge_to(edge, "ppv2", nginx('return "$proxy_protocol_addr $proxy_protocol_port";'), "accept_proxy=127.0.0.1")
    front = free_port()
    unique_id = "unique-id-format %{+X}o\\ %ci:%cp" if tlvs else ""
    haproxy(f"""frontend in
    mode tcp
    {unique_id}
    bind 127.0.0.1:{front}
    bind [::1]:{front}
    default_backend edge
backend edge
    mode tcp
    server edge 127.0.0.1:{port} {send}
""", front)
    with connect(front, address, source) as client:
        assert recv_all(client).decode() == f"{source} {port_of(client)}"
