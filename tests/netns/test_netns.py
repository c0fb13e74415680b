# SPDX-License-Identifier: Apache-2.0
"""The edge between two networks, with real addresses on real links.

    client namespace              edge namespace                         origin namespace

    c0 10.77.1.2, .3    ------- e0 10.77.1.1, .11, .12     (no
       fd77:1::2, ::3              fd77:1::1, ::11, ::12   forwarding)
       fe80::c, fe80::77           fe80::e
                                e1 10.77.2.1, .11        ------- o0 10.77.2.2, .3
                                   fd77:2::1, ::11                  fd77:2::2, ::3
                                   fe80::e                          fe80::77
    ct 10.77.3.2        - - - - et 10.77.3.1                     bad wires, only in tests that ask for them
                                eo 10.77.4.1             - - - - ot 10.77.4.2

The client reaches 10.77.2.0/24 and fd77:2::/64 by way of the edge, but nothing behind it: there is no forwarding.
Tests that need one lay more links: net.link().
"""
import contextlib
import ctypes
import fcntl
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading

import pytest

from harness import (TIMEOUT, TcpOrigin, UdpOrigin, accept, connect, how_it_ends, listen, port_of, free_port, free_ports, recv_exactly, reset, stopped, udp_client,
                     wait_until)
from headers import both_ends, ppv1, ppv2, spp
from streams import PERIOD, Job, StreamOrigin, exchange, piece

CLONE_NEWNET = 0x40000000
NAMESPACES = ("client", "edge", "origin", "far")
LINK_LOCAL = "fe80::e"
ADDRESSES = {
    ("client", "c0"): ["10.77.1.2/24", "10.77.1.3/24", "fd77:1::2/64", "fd77:1::3/64", "fe80::c/64", "fe80::77/64"],
    ("edge", "e0"): ["10.77.1.1/24", "10.77.1.11/24", "10.77.1.12/24", "fd77:1::1/64", "fd77:1::11/64", "fd77:1::12/64",
                     "fe80::e/64"],
    ("edge", "e1"): ["10.77.2.1/24", "10.77.2.11/24", "fd77:2::1/64", "fd77:2::11/64", "fe80::e/64"],
    ("origin", "o0"): ["10.77.2.2/24", "10.77.2.3/24", "fd77:2::2/64", "fd77:2::3/64", "fe80::77/64"],
}
EDGE_V4 = ["10.77.1.1", "10.77.1.11", "10.77.1.12", "10.77.2.1", "10.77.2.11"]
EDGE_V6 = ["fd77:1::1", "fd77:1::11", "fd77:1::12", "fd77:2::1", "fd77:2::11"]


class Network:
    def __init__(self):
        self.names = {name: f"tg-{name}-{os.getpid()}" for name in NAMESPACES}
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.handles = {}
        self.links = []
        for name, real in self.names.items():
            self.ip(f"netns add {real}")
            self.handles[name] = os.open(f"/run/netns/{real}", os.O_RDONLY)
            with self.inside(name):
                for path, value in {"ipv6/conf/all/accept_dad": 0, "ipv6/conf/default/accept_dad": 0,
                                    "ipv6/conf/default/keep_addr_on_down": 1, "ipv6/conf/all/keep_addr_on_down": 1,
                                    "ipv4/icmp_ratelimit": 0, "ipv6/icmp/ratelimit": 0,
                                    "ipv4/ip_local_port_range": "40000 60999"}.items():
                    with open(f"/proc/sys/net/{path}", "w") as f:
                        f.write(str(value))
                self.ip("link set lo up")
        for (a, device_a), (b, device_b) in ((("client", "c0"), ("edge", "e0")), (("edge", "e1"), ("origin", "o0"))):
            self.ip(f"link add {device_a} netns {self.names[a]} type veth peer name {device_b} netns {self.names[b]}")
        for (name, device), addresses in ADDRESSES.items():
            with self.inside(name):
                self.ip(f"link set {device} addrgenmode none")
                for address in addresses:
                    self.ip(f"addr add {address} dev {device}" + (" nodad" if ":" in address else ""))
                self.ip(f"link set {device} up")
        self.restore()

    def link(self, end_a, end_b):
        """One more link, which goes with the test. An end is "NAMESPACE DEVICE ADDRESS [MTU]"."""
        ends = [(*end.split(), 1500)[:4] for end in (end_a, end_b)]
        (a, device_a, *_), (b, device_b, *_) = ends
        self.ip(f"link add {device_a} netns {self.names[a]} type veth peer name {device_b} netns {self.names[b]}")
        self.links.append((a, device_a))
        for name, device, address, mtu in ends:
            with self.inside(name):
                self.ip(f"addr add {address} dev {device}")
                self.ip(f"link set {device} up mtu {mtu}")

    def forward(self, name):
        """Makes a namespace a router until the end of the test."""
        with self.inside(name), open("/proc/sys/net/ipv4/ip_forward", "w") as f:
            f.write("1")

    def restore(self):
        """Everything that a test may have changed, as it was: links up, routes, no filters, no routers."""
        while self.links:
            name, device = self.links.pop()
            with self.inside(name):
                self.ip(f"link del {device}")
        for name in NAMESPACES:
            with self.inside(name), open("/proc/sys/net/ipv4/ip_forward", "w") as f:
                f.write("0")
        for name, device in ADDRESSES:
            with self.inside(name):
                self.ip(f"link set {device} up mtu 1500")
                subprocess.run(["nft", "flush", "ruleset"], check=True)
        with self.inside("client"):
            self.ip("route replace 10.77.2.0/24 via 10.77.1.1")
            self.ip("-6 route replace fd77:2::/64 via fd77:1::1")

    @staticmethod
    def ip(arguments):
        done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True)
        assert done.returncode == 0, f"ip {arguments}: {done.stderr}"

    def _enter(self, handle):
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns: needs root")

    @contextlib.contextmanager
    def inside(self, name):
        """This thread, and the threads and programs it starts, are in a namespace; sockets stay where they were made."""
        self._enter(self.handles[name])
        try:
            yield
        finally:
            self._enter(self.home)

    def remove(self):
        for name, real in self.names.items():
            os.close(self.handles[name])
            self.ip(f"netns del {real}")
        os.close(self.home)


@pytest.fixture(scope="module")
def network():
    n = Network()
    yield n
    n.remove()


@pytest.fixture
def net(network, edge):
    """The network, and net.start(rules): an edge in its middle, whose metrics net.metric() reads."""
    def start(rules, *args, **kwargs):
        kwargs = {"listen": None, "prefix": ["nsenter", f"--net=/run/netns/{network.names['edge']}"], **kwargs}
        return edge(rules, *args, **kwargs)

    def metric(e, name, **labels):
        with network.inside("edge"):
            return e.metric(name, **labels)

    network.start, network.metric = start, metric
    yield network
    network.restore()


def ask(client, data=b"ping"):
    client.send(data)
    return client.recv(65535)


def origin_of(net, kind, *args, **kwargs):
    with net.inside("origin"):
        return kind(*args, **kwargs)


def udp_from(net, port, address, source, **kwargs):
    with net.inside("client"):
        return udp_client(port, address, source=source, **kwargs)


def tcp_from(net, port, address, source=None):
    with net.inside("client"):
        return connect(port, address, source=source)


ENTER = 8  # datagrams of the client after which the kernel may take a session over (src/flow/udp_fast.c)


def warm(net, e, client, fast):
    """Takes a session to where it can be taken over by the kernel, and sees to it that it was, or was not."""
    for _ in range(ENTER + 2):
        assert ask(client, b"warm") == b"warm"
    assert net.metric(e, "udp_fast_sessions_total") == fast


def eventually_answered(client, data, seconds):
    """Sends until it is answered: what is on the way while a path changes may be lost."""
    client.settimeout(0.2)
    for _ in range(int(seconds / 0.2)):
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            client.send(data)
            while client.recv(65535) != data:
                pass
            return True
    return False


FAST = pytest.mark.parametrize("fast", [1, 0], ids=["fast", "user space"])


def fast_setting(fast):
    return "" if fast else "set node udp_fast_path=off\n"


# --- who the client is, who answers ---

@pytest.mark.parametrize("source, to, origin_address", [
    ("10.77.1.2", "10.77.1.11", "10.77.2.2"), ("10.77.1.3", "10.77.2.1", "fd77:2::3"),
    ("fd77:1::3", "fd77:1::12", "10.77.2.3"), ("fd77:1::2", "fd77:1::1", "fd77:2::2")])
@pytest.mark.parametrize("protocol, mode", [("tcp", "ppv1"), ("tcp", "ppv2"), ("udp", "ppv2"), ("udp", "spp")])
def test_the_origin_learns_the_real_client_and_the_address_it_wrote_to(net, protocol, mode, source, to, origin_address):
    port, heard = free_port(), []

    def read(connection, peer):
        data = b""
        while not data.endswith(b"hello"):
            data += connection.recv(1000)
        heard.append(data)
        connection.sendall(b"thanks")

    if protocol == "tcp":
        origin = origin_of(net, TcpOrigin, read, origin_address)
    else:
        origin = origin_of(net, UdpOrigin, lambda data, peer: [data], origin_address)
    with origin:
        where = f"[{origin_address}]" if ":" in origin_address else origin_address
        e = net.start(f"{protocol}:{port} {where} {origin.port} off {mode}\n")
        if protocol == "tcp":
            with tcp_from(net, port, to, source) as client:
                pair = both_ends(client)
                client.sendall(b"hello")
                assert recv_exactly(client, 6) == b"thanks"
            assert heard == [(ppv1(*pair) if mode == "ppv1" else ppv2(*pair, socket.SOCK_STREAM)) + b"hello"]
        else:
            with udp_from(net, port, to, source) as client:
                pair = both_ends(client)
                header = (spp if mode == "spp" else ppv2)(*pair)
                assert ask(client, b"hello") == (b"" if mode == "spp" else header) + b"hello"
                assert origin.received.get(timeout=TIMEOUT)[0] == header + b"hello"
        e.stop_clean()
    flow, = e.flows()
    written = [f"[{a}]:{p}" if ":" in a else f"{a}:{p}" for a, p in pair]
    assert pair[0][0] == source and [flow["client"], flow["edge"]] == written


@pytest.mark.parametrize("options", [[], ["--no-bpf"]], ids=["steered", "bound"])
def test_udp_answers_leave_from_the_address_written_to(net, options):
    first = free_ports(20)
    with origin_of(net, UdpOrigin, address="10.77.2.2") as origin:
        net.start(f"udp:{first}-{first + 19} 10.77.2.2 {origin.port} off off\n", *options)
        for to, source in [(a, "10.77.1.3") for a in EDGE_V4] + [(a, "fd77:1::3") for a in EDGE_V6]:
            for port in (first, first + 19):
                with udp_from(net, port, to, source) as client:
                    assert ask(client, f"{to} {port}".encode()) == f"{to} {port}".encode()


def test_only_the_addresses_of_listen_are_served(net):
    port = free_port()
    with origin_of(net, TcpOrigin, address="10.77.2.2") as origin:
        net.start(f"tcp:{port} 10.77.2.2 {origin.port} off off\nudp:{port} 10.77.2.2 {origin.port} off off\n",
                  listen=["10.77.1.11", "fd77:1::11"])
        for to in EDGE_V4 + EDGE_V6:
            if to in ("10.77.1.11", "fd77:1::11"):
                tcp_from(net, port, to).close()
                continue
            with pytest.raises(ConnectionRefusedError):
                tcp_from(net, port, to)
            with udp_from(net, port, to, "::" if ":" in to else "0.0.0.0") as client:
                client.send(b"x")
                with pytest.raises(ConnectionRefusedError):
                    client.recv(1)


def test_steering_is_the_namespaces_own(net):
    ports = free_ports(50)
    with origin_of(net, TcpOrigin, address="10.77.2.2") as origin:
        e = net.start(f"tcp:{ports}-{ports + 49} 10.77.2.2 {origin.port} off off\n")
        assert e.status()["steering"] == "bpf"
        for port in (ports, ports + 49):
            with tcp_from(net, port, "10.77.1.1") as client:
                client.sendall(b"here")
                assert recv_exactly(client, 4) == b"here"
            with pytest.raises(ConnectionRefusedError):
                connect(port)  # our own namespace
            with net.inside("origin"), pytest.raises(ConnectionRefusedError):
                connect(port, "10.77.2.2")


@pytest.mark.parametrize("sources, allowed", [(["10.77.1.2", "10.77.1.3"], 2), (["fd77:1::2", "fd77:1::3"], 1)])
def test_an_ipv6_client_is_counted_by_its_64(net, sources, allowed):
    port, to = free_port(), "fd77:1::1" if ":" in sources[0] else "10.77.1.1"
    with origin_of(net, UdpOrigin, address="10.77.2.2") as origin:
        e = net.start(f"udp:{port} 10.77.2.2 {origin.port} off off client_max_flows=1\n")
        for source in sources:
            with udp_from(net, port, to, source) as client:
                client.send(b"x")
        wait_until(lambda: net.metric(e, "flows_total") + net.metric(e, "datagrams_dropped_total") == 2, what="both")
        assert net.metric(e, "flows_total") == allowed


# --- link-local ---

@pytest.mark.parametrize("options", [[], ["--no-bpf"]], ids=["steered", "bound"])
def test_link_local_clients(net, options):
    port = free_port()
    with origin_of(net, UdpOrigin, address="fd77:2::2") as udp, origin_of(net, TcpOrigin, address="fd77:2::2") as tcp:
        e = net.start(f"udp:{port} [fd77:2::2] {udp.port} off spp\ntcp:{port} [fd77:2::2] {tcp.port} off off\n", *options)
        with net.inside("edge"):
            e0 = socket.if_nametoindex("e0")
        with net.inside("client"), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as u, socket.socket(socket.AF_INET6) as t:
            scope = socket.if_nametoindex("c0")
            for s in (u, t):
                s.settimeout(TIMEOUT)
                s.bind(("fe80::c", 0, 0, scope))
                s.connect((LINK_LOCAL, port, 0, scope))
                for n in range(3):
                    assert ask(s, b"hello %d" % n) == b"hello %d" % n
            header, _ = udp.received.get(timeout=TIMEOUT)
            assert header == spp(*both_ends(u)) + b"hello 0"
            names = {"udp": u.getsockname()[1], "tcp": t.getsockname()[1]}
        e.stop_clean()
    for flow in e.flows():
        assert flow["client"] == f"[fe80::c%{e0}]:{names[flow['protocol']]}"
        assert flow["edge"] == f"[{LINK_LOCAL}%{e0}]:{port}"
    assert len(e.flows()) == 2


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("source, to", [("fd77:1::2", LINK_LOCAL), ("fe80::c", "fd77:1::11")])
def test_only_one_end_is_link_local(net, protocol, source, to):
    port = free_port()
    kind = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}[protocol]
    with origin_of(net, UdpOrigin if protocol == "udp" else TcpOrigin, address="10.77.2.2") as origin:
        e = net.start(f"{protocol}:{port} 10.77.2.2 {origin.port} off off\n")
        with net.inside("client"), socket.socket(socket.AF_INET6, kind) as s:
            scope = socket.if_nametoindex("c0")
            s.settimeout(2)
            s.bind((source, 0, 0, scope if source.startswith("fe80") else 0))
            s.connect((to, port, 0, scope if to.startswith("fe80") else 0))
            assert ask(s) == b"ping"
        assert net.metric(e, "datagrams_dropped_total") == 0


@pytest.mark.parametrize("options", [[], ["--no-bpf"]], ids=["steered", "bound"])
def test_one_worker_answers_clients_of_every_link_and_scope_from_one_port(net, options):
    """The same link-local client on two links is two; and link-local clients do not stand in the way of others."""
    port, to = free_port(), free_port()
    with net.inside("edge"):
        origin = UdpOrigin(address="127.0.0.1", port=to)
    with origin, contextlib.ExitStack() as stack:
        e = net.start(f"udp:{port} 127.0.0.1 {to} off off\n", *options, workers=1)
        clients = []
        for name, device, source, target in (("client", "c0", "fe80::77", LINK_LOCAL), ("origin", "o0", "fe80::77", LINK_LOCAL),
                                             ("origin", "o0", "fd77:2::2", "fd77:2::1"), ("client", "c0", "fd77:1::2", "fd77:1::1"),
                                             ("client", "c0", "fd77:1::2", "fd77:2::1")):
            with net.inside(name):
                s = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                scope = socket.if_nametoindex(device) if source.startswith("fe80") else 0
                s.settimeout(3)
                s.bind((source, 39000 + len(clients) // 2, 0, scope))
                s.connect((target, port, 0, scope))
                clients.append(s)
        for _ in range(3):
            for i, s in enumerate(clients):
                assert ask(s, b"%d" % i) == b"%d" % i
        assert net.metric(e, "flows_total") == len(clients)
        assert net.metric(e, "datagrams_dropped_total") == 0


# --- paths that are not perfect ---

@pytest.fixture
def wires(net, program):
    """lay(side, loss=…, …) -> Program: a bad wire on the client's or the origin's side."""
    def lay(side, loss=0.0, repeat=0.0, delay_ms=0.0, jitter_ms=0.0, kind=()):
        ends = {"client": [("client", "ct", "10.77.3.2/24"), ("edge", "et", "10.77.3.1/24")],
                "origin": [("edge", "eo", "10.77.4.1/24"), ("origin", "ot", "10.77.4.2/24")]}[side]
        wire = program([sys.executable, os.path.join(os.path.dirname(__file__), "wire.py"),
                        *(x for name, device, _ in ends for x in (net.names[name], device)),
                        loss, repeat, delay_ms, jitter_ms, 7, *kind])
        wait_until(lambda: "ready" in wire.output() or wire.process.poll() is not None, what="the wire")
        assert wire.process.poll() is None, wire.output()
        for name, device, address in ends:
            with net.inside(name):
                net.ip(f"addr add {address} dev {device}")
                if kind:
                    net.ip(f"addr add {address.replace('10.77.', 'fd77:').replace('.', '::').replace('/24', '/64')} "
                           f"dev {device} nodad")
                net.ip(f"link set {device} up")
        return wire
    return lay


@pytest.mark.parametrize("sides", [["client"], ["origin"], ["client", "origin"]], ids="+".join)
def test_tcp_streams_are_intact_over_wires_that_lose_repeat_delay_and_reorder(net, wires, sides):
    port = free_port()
    laid = [wires(side, loss=0.02, repeat=0.01, delay_ms=1, jitter_ms=3) for side in sides]
    origin_address = "10.77.4.2" if "origin" in sides else "10.77.2.2"
    with origin_of(net, StreamOrigin, origin_address) as origin:
        e = net.start(f"tcp:{port} {origin_address} {origin.port} off off\n")
        sizes = [(0, 0), (1, 1), (300000, 0), (0, 300000), (1000000, 20), (20, 1000000)] + [(300000, 300000)] * 4
        with net.inside("client"):
            exchange([Job(port, up, down, address="10.77.3.1" if "client" in sides else "10.77.1.1") for up, down in sizes])
        flows = e.wait_flows(len(sizes))
    assert {f["end"] for f in flows} == {"done"}
    assert sum(f["bytes_out"] for f in flows) == sum(down for _, down in sizes)
    for wire in laid:
        wire.stop()
        lost, repeated = map(int, re.search(r"(\d+) lost, (\d+) repeated", wire.output()).groups())
        assert lost > 20 and repeated > 10  # it was as bad as it was meant to be


@pytest.mark.parametrize("pass_mode", ["off", "spp"])
@pytest.mark.parametrize("side", ["client", "origin"])
def test_udp_datagrams_over_a_bad_wire_are_whole(net, wires, side, pass_mode):
    port = free_port()
    origin_address, to = ("10.77.4.2", "10.77.1.1") if side == "origin" else ("10.77.2.2", "10.77.3.1")
    wires(side, loss=0.05, repeat=0.05, delay_ms=1, jitter_ms=3)
    sent = {random.Random(n).randbytes(n * 16 % 4000 + 8) for n in range(400)}
    with origin_of(net, UdpOrigin, address=origin_address) as origin:
        net.start(f"udp:{port} {origin_address} {origin.port} off {pass_mode}\n")
        with udp_from(net, port, to, "0.0.0.0") as client:
            heard = []

            def hear(timeout):
                client.settimeout(timeout)
                with contextlib.suppress(TimeoutError):
                    while True:
                        heard.append(client.recv(65535))

            for data in sent:
                client.send(data)
                hear(0.002)  # so that no queue runs over
            hear(0.5)
    assert set(heard) <= sent and len(set(heard)) > 300


SIZES = [0, 1, 1252, 1253, 1472, 1473, 2000, 8972, 9000, 65506, 65507]


@pytest.mark.parametrize("to, origin_address", [("10.77.1.1", "10.77.2.2"), ("fd77:1::1", "fd77:2::2"),
                                                ("fd77:1::1", "10.77.2.2"), ("10.77.1.1", "fd77:2::2")])
@pytest.mark.parametrize("mtu", [1500, 1280])
def test_datagrams_of_all_sizes_pass_links_of_ordinary_size(net, to, origin_address, mtu):
    """And in one batch, which is cut by the kernel where the link allows it and one by one where it does not."""
    port = free_port()
    where = f"[{origin_address}]" if ":" in origin_address else origin_address
    with net.inside("edge"):
        net.ip(f"link set e1 mtu {mtu}")
    with net.inside("origin"):
        net.ip(f"link set o0 mtu {mtu}")
    with origin_of(net, UdpOrigin, address=origin_address) as origin:
        e = net.start(f"udp:{port} {where} {origin.port} off off\n")
        with udp_from(net, port, to, "fd77:1::2" if ":" in to else "10.77.1.2") as client:
            for size in SIZES:
                data = random.Random(size).randbytes(size)
                assert ask(client, data) == data
            for size in (1200, 1472, 1473, 4000):
                datagrams = [bytes([n]) * size for n in range(20)]
                with stopped(e):
                    for data in datagrams:
                        client.send(data)
                assert [client.recv(65535) for _ in datagrams] == datagrams
        assert net.metric(e, "datagrams_dropped_total") == 0


def retransmitted(net, namespace, port):
    """Whether TCP in a namespace has sent something again to a port and waits for its acknowledgement."""
    with net.inside(namespace):
        out = subprocess.run(["ss", "-tinH", "state", "established", "dport", "=", str(port)], capture_output=True, text=True)
    return re.search(r"unacked:[1-9].*|backoff:[1-9]", out.stdout) and re.search(r"retrans:\d+/[1-9]|backoff:[1-9]", out.stdout)


@pytest.mark.parametrize("namespace, device", [("origin", "o0"), ("edge", "e1"), ("edge", "e0"), ("client", "c0")])
def test_a_tcp_flow_survives_a_link_that_goes_down_and_comes_back(net, namespace, device):
    port = free_port()
    with origin_of(net, TcpOrigin, address="10.77.2.2") as origin:
        e = net.start(f"tcp:{port} 10.77.2.2 {origin.port} off off\n")
        with tcp_from(net, port, "10.77.1.1") as client:
            assert ask(client, b"before") == b"before"
            with net.inside(namespace):
                net.ip(f"link set {device} down")
            client.send(b"during")
            sender = ("edge", origin.port) if device in ("o0", "e1") else ("client", port)
            wait_until(lambda: retransmitted(net, *sender), what="a retransmission")
            net.restore()
            assert recv_exactly(client, 6) == b"during"
            assert ask(client, b"after") == b"after"
        flow, = e.wait_flows(1)
    assert (flow["end"], flow["bytes_in"], flow["bytes_out"]) == ("done", 17, 17)


@FAST
@pytest.mark.parametrize("device", ["e1", "o0"])
def test_a_udp_session_survives_a_link_that_goes_down_and_comes_back(net, device, fast):
    port = free_port()
    with origin_of(net, UdpOrigin, address="10.77.2.2") as origin:
        e = net.start(f"{fast_setting(fast)}udp:{port} 10.77.2.2 {origin.port} off off\n")
        with udp_from(net, port, "10.77.1.1", "10.77.1.2") as client:
            warm(net, e, client, fast)
            with net.inside("edge" if device == "e1" else "origin"):
                net.ip(f"link set {device} down")
            client.send(b"lost")
            wait_until(lambda: net.metric(e, "datagrams_in_total") == ENTER + 3, what="the datagram to be counted")
            if device == "e1" and not fast:
                assert net.metric(e, "datagrams_dropped_total") == 1
            net.restore()
            assert eventually_answered(client, b"back", 5)  # the neighbour may have to be found again
            assert net.metric(e, "flows_total") == 1
        assert len({peer for _, peer in list(origin.received.queue)}) == 1


@FAST
@pytest.mark.parametrize("side", ["origin", "client"])
def test_datagrams_pass_a_router_with_a_smaller_link(net, side, fast):
    """The router says that they are too long. The one it said so for may be lost, later ones must arrive."""
    port, origin_address = free_port(), "10.77.2.2"
    if side == "origin":
        origin_address = "10.77.5.2"
        net.link("origin r0 10.77.5.1/24 1300", "far f0 10.77.5.2/24 1300")
        with net.inside("edge"):
            net.ip("route add 10.77.5.0/24 via 10.77.2.2")
    else:
        net.link("client r0 10.77.5.1/24 1300", "far f0 10.77.5.2/24 1300")
        with net.inside("edge"):
            net.ip("route add 10.77.5.0/24 via 10.77.1.2")
    net.forward(side)
    with net.inside("far"):
        net.ip("route add default via 10.77.5.1")
        origin = UdpOrigin(address=origin_address) if side == "origin" else None
    origin = origin or origin_of(net, UdpOrigin, lambda data, peer: [data * 350], origin_address)
    try:
        with origin:
            e = net.start(f"{fast_setting(fast)}udp:{port} {origin_address} {origin.port} off off\n")
            if side == "origin":
                with udp_from(net, port, "10.77.1.1", "10.77.1.2") as client:
                    warm(net, e, client, fast)
                    assert eventually_answered(client, b"long" * 350, 4)
            else:
                with net.inside("far"):
                    client = udp_client(port, "10.77.1.1", source="10.77.5.2", timeout=0.2)
                for _ in range(ENTER + 12):
                    client.send(b"long")
                    with contextlib.suppress(TimeoutError):
                        assert client.recv(65535) == b"long" * 350
                client.settimeout(TIMEOUT)
                client.send(b"long")
                assert client.recv(65535) == b"long" * 350
                client.close()
    finally:
        with net.inside("edge"):
            net.ip("route del 10.77.5.0/24")


def test_the_news_that_one_datagram_was_too_long_costs_no_other(net):
    """The error waits in the session's socket, where the next send finds it instead of being sent."""
    port = free_port()
    net.link("origin r0 10.77.5.1/24 1300", "far f0 10.77.5.2/24 1300")
    net.forward("origin")
    with net.inside("edge"):
        net.ip("route add 10.77.5.0/24 via 10.77.2.2")
    with net.inside("far"):
        net.ip("route add default via 10.77.5.1")
        origin = UdpOrigin(address="10.77.5.2")
    try:
        with origin:
            e = net.start(f"udp:{port} 10.77.5.2 {origin.port} off off\n")
            with udp_from(net, port, "10.77.1.1", "10.77.1.2", timeout=3) as client:
                assert ask(client, b"first") == b"first"
                with stopped(e):
                    for data in [b"short"] * 63 + [b"long" * 350, b"last"]:  # what is read at once, and one more
                        client.send(data)
                assert [client.recv(65535) for _ in range(64)] == [b"short"] * 63 + [b"last"]
                assert ask(client, b"long" * 350) == b"long" * 350
            assert net.metric(e, "datagrams_dropped_total") == 0
    finally:
        with net.inside("edge"):
            net.ip("route del 10.77.5.0/24")


@FAST
@pytest.mark.parametrize("side", ["origin", "client"])
def test_a_route_with_a_length_of_its_own_is_respected(net, side, fast):
    """As one is given where routers behind it keep quiet about what is too long for them."""
    port = free_port()
    address, device, edge_device, receiver = ("10.77.2.2", "o0", "e1", "origin") if side == "origin" else \
        ("10.77.1.2", "c0", "e0", "client")
    with net.inside("edge"):
        net.ip(f"route add {address}/32 dev {edge_device} mtu 1200")
    try:
        with net.inside(receiver):
            subprocess.run(["nft", "-f", "-"], check=True, text=True, input=f"""
                table netdev t {{
                    chain c {{
                        type filter hook ingress device {device} priority 0;
                        ip length > 1200 drop
                    }}
                }}""")
        with origin_of(net, UdpOrigin, address="10.77.2.2") as origin:
            e = net.start(f"{fast_setting(fast)}udp:{port} 10.77.2.2 {origin.port} off off\n")
            with udp_from(net, port, "10.77.1.1", "10.77.1.2", timeout=3) as client:
                warm(net, e, client, fast)
                for size in (1172, 1173, 1220, 1400):
                    assert ask(client, bytes(size)) == bytes(size)
    finally:
        with net.inside("edge"):
            net.ip(f"route del {address}/32 dev {edge_device}")


@FAST
def test_a_udp_session_follows_a_changed_route(net, fast):
    port = free_port()
    net.link("edge e3 10.77.7.1/24", "origin o3 10.77.7.2/24")
    with net.inside("origin"):
        net.ip("addr add 10.77.9.9/32 dev lo")
    try:
        with net.inside("edge"):
            net.ip("route add 10.77.9.9 via 10.77.2.2 src 10.77.2.1")
        with origin_of(net, UdpOrigin, address="10.77.9.9") as origin:
            e = net.start(f"{fast_setting(fast)}udp:{port} 10.77.9.9 {origin.port} off off\n")
            with udp_from(net, port, "10.77.1.1", "10.77.1.2") as client:
                warm(net, e, client, fast)
                with net.inside("edge"):
                    net.ip("route replace 10.77.9.9 via 10.77.7.2 src 10.77.2.1")
                with net.inside("origin"):
                    net.ip("route add 10.77.2.1/32 via 10.77.7.1")
                    net.ip("link set o0 down")
                assert eventually_answered(client, b"by the other way", 5)
                assert net.metric(e, "flows_total") == 1
    finally:
        with net.inside("origin"):
            net.ip("addr del 10.77.9.9/32 dev lo")


@FAST
def test_frames_of_another_vlan_are_not_of_a_session(net, fast):
    """The same addresses and ports in a VLAN are another network's; what is forwarded must not carry the tag on either."""
    port = free_port()
    with origin_of(net, UdpOrigin, address="10.77.2.2") as origin:
        e = net.start(f"{fast_setting(fast)}udp:{port} 10.77.2.2 {origin.port} off off\n")
        with net.inside("origin"):
            sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            sniffer.bind(("o0", 3))  # ETH_P_ALL
            sniffer.settimeout(TIMEOUT)
        with net.inside("edge"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind(("e0", 0))
            target = s.getsockname()[4]
        with net.inside("client"):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            wire.bind(("c0", 0))
        with udp_from(net, port, "10.77.1.1", "10.77.1.2") as client, sniffer, wire:
            warm(net, e, client, fast)
            payload = b"of another vlan"
            udp = struct.pack(">HHHH", *(end[1] for end in both_ends(client)), 8 + len(payload), 0) + payload
            head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                               *(socket.inet_aton(end[0]) for end in both_ends(client)))
            words = sum(struct.unpack(">10H", head))
            head = head[:10] + struct.pack(">H", 0xFFFF - (words % 0xFFFF)) + head[12:]
            for tag in (b"\x81\x00\x00\x0a", b""):  # in VLAN 10, and as it should be
                wire.send(target + wire.getsockname()[4] + tag + b"\x08\x00" + head + udp)
                if not tag:
                    assert client.recv(100) == payload
            assert ask(client, b"the end") == b"the end"
            seen = []
            while not seen or b"the end" not in seen[-1]:
                seen.append(sniffer.recv(2000))
        assert sum(payload in frame for frame in seen) == 2  # the good one and its echo
        assert net.metric(e, "flows_total") == 1


def test_a_link_that_was_not_there_at_the_start_carries_sessions_too(net):
    port = free_port()
    e = net.start(f"udp:{port} 10.77.7.2 {port} off off\n")
    net.link("edge e3 10.77.7.1/24", "origin o3 10.77.7.2/24")
    with origin_of(net, UdpOrigin, address="10.77.7.2", port=port), udp_from(net, port, "10.77.1.1", "10.77.1.2") as client:
        for n in range(3 * ENTER):
            assert ask(client, b"%d" % n) == b"%d" % n
    e.stop_clean()
    flow, = e.flows()
    assert flow["datagrams_in"] == flow["datagrams_out"] == 3 * ENTER


@FAST
@pytest.mark.parametrize("mtu", [1500, 1280])
def test_clients_that_let_the_kernel_cut_their_datagrams(net, mtu, fast):
    """UDP_SEGMENT: over veth a whole train of them arrives as one packet."""
    port, count, size = free_port(), 40, 1400
    with net.inside("edge"):
        net.ip(f"link set e1 mtu {mtu}")
    with net.inside("origin"):
        net.ip(f"link set o0 mtu {mtu}")
    with origin_of(net, UdpOrigin, address="10.77.2.2") as origin:
        e = net.start(f"{fast_setting(fast)}udp:{port} 10.77.2.2 {origin.port} off off\n")
        with udp_from(net, port, "10.77.1.1", "10.77.1.2") as client:
            warm(net, e, client, fast)
            for n in range(5):
                train = b"".join(bytes([n, i]) * (size // 2) for i in range(count))
                client.sendmsg([train], [(socket.IPPROTO_UDP, 103, size.to_bytes(2, sys.byteorder))])  # UDP_SEGMENT
                assert [client.recv(65535) for _ in range(count)] == [train[i * size:][:size] for i in range(count)]
            expected = {f"{what}_{way}_total": value for way in ("in", "out") for what, value in
                        {"datagrams": ENTER + 2 + 5 * count, "bytes": 4 * (ENTER + 2) + 5 * count * size}.items()}
            wait_until(lambda: {k: net.metric(e, k) for k in expected} == expected, 3, f"the counts to be {expected}")


@FAST
@pytest.mark.parametrize("to, origin_address", [("10.77.1.12", "10.77.2.3"), ("fd77:1::12", "fd77:2::3")])
def test_long_udp_sessions_over_two_links(net, to, origin_address, fast):
    """Sizes around what a link carries, those above it in fragments, many sessions at once; all counted."""
    port = free_port()
    where = f"[{origin_address}]" if ":" in origin_address else origin_address
    sizes = [0, 1, 1200, 1452, 1453, 1472, 1473, 4000]
    with origin_of(net, UdpOrigin, address=origin_address) as origin:
        e = net.start(f"{fast_setting(fast)}udp:{port} {where} {origin.port} off off\n")
        clients = [udp_from(net, port, to, "fd77:1::3" if ":" in to else "10.77.1.3") for _ in range(20)]
        for n in range(64):
            for i, client in enumerate(clients):
                client.send(bytes([i]) * sizes[n % 8])
            for i, client in enumerate(clients):
                assert client.recv(65535) == bytes([i]) * sizes[n % 8]
        assert net.metric(e, "udp_fast_sessions_total") == (20 if fast else 0)
        for client in clients:
            client.close()
        e.stop_clean()
        assert len({peer for _, peer in list(origin.received.queue)}) == 20
    flows = e.flows()
    assert {(f["datagrams_in"], f["datagrams_out"], f["bytes_in"], f["bytes_out"]) for f in flows} == \
        {(64, 64, 8 * sum(sizes), 8 * sum(sizes))}


# --- ICMP ---

def reject(net, family, how, protocol):
    """The origin's host answers everything to it with an error."""
    with net.inside("origin"):
        subprocess.run(["nft", "-f", "-"], check=True, text=True, input=f"""
            table inet t {{
                chain c {{
                    type filter hook input priority 0;
                    meta nfproto {family} meta l4proto {protocol} {how}
                }}
            }}""")


@pytest.mark.parametrize("family, how", [
    ("ipv4", None), ("ipv6", None),
    ("ipv4", "reject with icmp type port-unreachable"), ("ipv4", "reject with icmp type admin-prohibited"),
    ("ipv4", "reject with icmp type prot-unreachable"),
    ("ipv6", "reject with icmpv6 type port-unreachable"), ("ipv6", "reject with icmpv6 type admin-prohibited"),
], ids=lambda x: (x or "nothing listens").replace("reject with ", "").replace(" type", ""))
def test_icmp_errors_from_a_remote_origin_are_noticed(net, family, how):
    port, address = free_port(), "10.77.2.2" if family == "ipv4" else "fd77:2::2"
    where = address if family == "ipv4" else f"[{address}]"
    if how:
        reject(net, family, how, "udp")
        origin = origin_of(net, UdpOrigin, address=address)
    else:
        origin = contextlib.nullcontext()
    with origin:
        to = origin.port if how else free_port()
        e = net.start(f"udp:{port} {where} {to} off off unanswered_timeout=1s\n")
        with udp_from(net, port, "10.77.1.1", "10.77.1.2") as client:
            client.send(b"one")
            wait_until(lambda: net.metric(e, "icmp_errors_total") >= 1, 3, "the ICMP error")
            client.send(b"two")
            wait_until(lambda: net.metric(e, "icmp_errors_total") >= 2, 3, "the ICMP error")
            flow, = e.wait_flows(1)
            assert (flow["end"], flow["end_side"], flow["datagrams_in"]) == ("origin_unreachable", "origin", 2)
            assert net.metric(e, "datagrams_dropped_total") == 0  # both were sent


@FAST
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_an_icmp_error_in_the_middle_of_a_session_is_noticed(net, family, fast):
    port, address = free_port(), "10.77.2.2" if family == "ipv4" else "fd77:2::2"
    where, to = (address, "10.77.1.1") if family == "ipv4" else (f"[{address}]", "fd77:1::1")
    with origin_of(net, UdpOrigin, address=address) as origin:
        origin_port = origin.port
        e = net.start(f"{fast_setting(fast)}udp:{port} {where} {origin_port} off off idle_timeout=2s\n")
        client = udp_from(net, port, to, "10.77.1.2" if family == "ipv4" else "fd77:1::2")
        warm(net, e, client, fast)
    client.send(b"anybody?")
    wait_until(lambda: net.metric(e, "icmp_errors_total") >= 1, 3, "the ICMP error")
    with origin_of(net, UdpOrigin, address=address, port=origin_port):
        assert eventually_answered(client, b"back again", 3)
    client.close()
    assert net.metric(e, "flows_total") == 1


@pytest.mark.parametrize("how, end", [
    ("reject with tcp reset", "connect_refused"), ("reject with icmpx type port-unreachable", "connect_refused"),
    ("reject with icmpx type host-unreachable", "connect_failed"), ("reject with icmpx type no-route", "connect_failed"),
    ("reject with icmpx type admin-prohibited", "connect_failed"), ("drop", "connect_timeout"),
], ids=lambda x: x.replace("reject with ", "").replace(" type", ""))
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_why_a_tcp_origin_could_not_be_reached_is_told(net, family, how, end):
    port, address = free_port(), "10.77.2.2" if family == "ipv4" else "fd77:2::2"
    where = address if family == "ipv4" else f"[{address}]"
    reject(net, family, how, "tcp")
    # over veth the answer to a SYN comes within connect(), where IPv6 takes errors only from the second one, after 1 s
    e = net.start(f"tcp:{port} {where} 80 off off connect_timeout={'300ms' if how == 'drop' else '2s'}\n")
    with pytest.raises(ConnectionResetError), tcp_from(net, port, "10.77.1.1") as client:
        client.recv(1)
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["connect_ms"]) == (end, "origin", None)
    assert flow["origin"].rpartition(":")[0] == where


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_origin_without_a_route_ends_the_flow_at_once(net, protocol, kind):
    port = free_port()
    with net.inside("edge"):
        net.ip(f"route add {kind} 10.78.0.0/16")
    try:
        e = net.start(f"{protocol}:{port} 10.78.0.1 80 off off\n")
        if protocol == "tcp":
            with pytest.raises(ConnectionResetError), tcp_from(net, port, "10.77.1.1") as client:
                client.recv(1)
        else:
            with udp_from(net, port, "10.77.1.1", "10.77.1.2") as client:
                client.send(b"x")
                wait_until(lambda: net.metric(e, "datagrams_dropped_total", reason="no_origin") == 1, what="the drop")
            assert net.metric(e, "flows_ended_total", end="no_session") == 1
            return
        flow, = e.wait_flows(1)
        assert flow["end"] == "connect_failed" and flow["duration_ms"] < 500
    finally:
        with net.inside("edge"):
            net.ip(f"route del {kind} 10.78.0.0/16")


# --- TCP on the fast path ---

V4_WAY, V6_WAY = ("10.77.1.1", "10.77.2.2"), ("fd77:1::1", "fd77:2::2")
WAYS = pytest.mark.parametrize("way", [V4_WAY, V6_WAY], ids=["IPv4", "IPv6"])
OFFLOADS = {"TSO": 0x1F, "GSO": 0x24, "GRO": 0x2C}  # ETHTOOL_STSO and so on


def tcp_pair(net, way, options="", count=1):
    """An edge that hands TCP flows over early, and (client, origin) of `count` flows through it."""
    to, origin_address = way
    port, listener = free_port(), origin_of(net, listen, origin_address)
    where = f"[{origin_address}]" if ":" in origin_address else origin_address
    e = net.start(f"set node tcp_fast_path_after=1\ntcp:{port} {where} {port_of(listener)} off off {options}\n", drain=1)
    assert e.status()["tcp_fast_path"] == "on"
    with listener:
        return (e, *[(tcp_from(net, port, to), accept(listener)) for _ in range(count)])


def talk(client, origin, count=30):
    for n in range(count):
        for one, other in ((client, origin), (origin, client)):
            one.sendall(b"message %d" % n)
            assert recv_exactly(other, len(b"message %d" % n)) == b"message %d" % n


def until_carried(net, e, pair, count=1):
    for _ in range(20):
        talk(*pair)
        with contextlib.suppress(AssertionError):  # a flow that pauses is handed over, if it was not before
            wait_until(lambda: net.metric(e, "tcp_fast_flows") >= count, 0.5, "the flow to be carried")
            return
    with net.inside("edge"):
        raise AssertionError([line for line in e.metrics_text().splitlines() if line.startswith("tidegate_tcp_fast")])


def pump(sending, reading, size=PERIOD):
    """Every byte at its place."""
    writer = threading.Thread(target=lambda: [sending.sendall(piece(5, at, min(PERIOD, size - at)))
                                              for at in range(0, size, PERIOD)])
    writer.start()
    for at in range(0, size, PERIOD):
        assert recv_exactly(reading, min(PERIOD, size - at)) == piece(5, at, min(PERIOD, size - at))
    writer.join()


def both_ways(client, origin, size):
    other = threading.Thread(target=pump, args=(origin, client, size))
    other.start()
    pump(client, origin, size)
    other.join()


def offloads(net, on):
    for name, device in ADDRESSES:
        with net.inside(name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for command in OFFLOADS.values():
                value = ctypes.create_string_buffer(struct.pack("II", command, on))
                ifreq = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
                fcntl.ioctl(s, 0x8946, ifreq)  # SIOCETHTOOL


@WAYS
@pytest.mark.parametrize("offload", [True, False], ids=["offloads", "no offloads"])
def test_tcp_flows_are_carried_between_networks(net, way, offload):
    offloads(net, offload)
    try:
        e, (client, origin) = tcp_pair(net, way)
        with client, origin:
            until_carried(net, e, (client, origin))
            before = net.metric(e, "tcp_fast_bytes_total")
            pump(client, origin, 40 * PERIOD)
            pump(origin, client, 40 * PERIOD)
            both_ways(client, origin, 20 * PERIOD)
            client.shutdown(socket.SHUT_WR)
            assert origin.recv(1) == b""
            pump(origin, client, PERIOD)
            wait_until(lambda: net.metric(e, "tcp_fast_bytes_total") - before >= 121 * PERIOD, what="the counters")
        flow, = e.wait_flows(1)
        assert (flow["end"], flow["end_side"]) == ("done", "client")
        assert flow["bytes_out"] - flow["bytes_in"] == PERIOD
    finally:
        offloads(net, True)


@WAYS
def test_a_stream_without_pause_is_handed_over_between_networks(net, way):
    e, (client, origin) = tcp_pair(net, way)
    with client, origin:
        pump(origin, client, 200 * PERIOD)
        assert net.metric(e, "tcp_fast_flows") == 1
        pump(client, origin, 200 * PERIOD)
    flow, = e.wait_flows(1, end="done")
    assert flow["bytes_in"] == flow["bytes_out"] == 200 * PERIOD


@pytest.mark.parametrize("way", [("10.77.3.1", "10.77.4.2"), ("fd77:3::1", "fd77:4::2")], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_carried_tcp_flows_are_intact_over_bad_wires(net, wires, way, loss):
    laid = [wires(side, loss=loss, repeat=0.02, delay_ms=1, jitter_ms=2, kind=["ethernet"]) for side in ("client", "origin")]
    e, *pairs = tcp_pair(net, way, count=6)
    with contextlib.ExitStack() as stack:
        for pair in pairs:
            stack.enter_context(pair[0])
            stack.enter_context(pair[1])
        for n, pair in enumerate(pairs):
            until_carried(net, e, pair, n + 1)
        flows = [threading.Thread(target=both_ways, args=(*pair, 400_000)) for pair in pairs]
        failed = []
        threading.excepthook, hook = lambda args: failed.append(args.exc_value), threading.excepthook
        for f in flows:
            f.start()
        for f in flows:
            f.join()
        threading.excepthook = hook
        assert failed == []
    done = e.wait_flows(len(pairs), timeout=60)
    assert [f["end"] for f in done] == ["done"] * len(pairs)
    assert [(f["bytes_in"], f["bytes_out"]) for f in done if not f["bytes_in"] == f["bytes_out"] > 400_000] == []
    for wire in laid:
        wire.stop()


@pytest.mark.parametrize("name, device", [("edge", "e1"), ("edge", "e0")])
def test_tcp_segments_that_do_not_fit_the_other_side_keep_a_flow_in_user_space(net, name, device):
    """One link of the edge takes longer packets than the other."""
    for end, other in ((("client", "c0"), ("edge", "e0")) if device == "e0" else (("edge", "e1"), ("origin", "o0")),):
        for owner, link in (end, other):
            with net.inside(owner):
                net.ip(f"link set {link} mtu 9000")
    e, (client, origin) = tcp_pair(net, V4_WAY)
    with client, origin:
        talk(client, origin, 50)
        both_ways(client, origin, 5 * PERIOD)
        assert (net.metric(e, "tcp_fast_flows_total"), net.metric(e, "tcp_fast_mtu_total")) == (0, 1)


@contextlib.contextmanager
def sysctl(net, name, **values):
    """Values below net/ipv4 of a namespace while inside."""
    with net.inside(name):
        before = {}
        for key, value in values.items():
            with open(f"/proc/sys/net/ipv4/{key}") as f:
                before[key] = f.read()
            with open(f"/proc/sys/net/ipv4/{key}", "w") as f:
                f.write(value)
    try:
        yield
    finally:
        with net.inside(name):
            for key, value in before.items():
                with open(f"/proc/sys/net/ipv4/{key}", "w") as f:
                    f.write(value)


@pytest.mark.parametrize("name", ["client", "origin"])
@pytest.mark.parametrize("option", ["tcp_timestamps", "tcp_sack"])
def test_an_option_that_one_end_has_not_got_keeps_a_flow_in_user_space(net, name, option):
    with sysctl(net, name, **{option: "0"}):
        e, (client, origin) = tcp_pair(net, V4_WAY)
        with client, origin:
            talk(client, origin, 50)
            both_ways(client, origin, 5 * PERIOD)
            assert (net.metric(e, "tcp_fast_flows_total"), net.metric(e, "tcp_fast_options_total")) == (0, 1)


@pytest.mark.parametrize("name", ["client", "origin"])
def test_ecn_of_one_side_keeps_a_flow_in_user_space(net, name):
    with sysctl(net, "client" if name == "client" else "edge", tcp_ecn="1"):
        e, (client, origin) = tcp_pair(net, V4_WAY)
        with client, origin:
            talk(client, origin, 50)
            assert (net.metric(e, "tcp_fast_flows_total"), net.metric(e, "tcp_fast_options_total")) == (0, 1)


@pytest.mark.parametrize("name", ["client", "origin"])
@pytest.mark.parametrize("values", [{"tcp_rmem": "4096 65536 65536"}, {"tcp_rmem": "4096 131072 900000000"},
                                    {"tcp_window_scaling": "0"}], ids=["scale 0", "scale 14", "no scale"])
def test_window_scales_may_differ(net, name, values):
    with sysctl(net, name, **values):
        e, (client, origin) = tcp_pair(net, V6_WAY)
        with client, origin:
            until_carried(net, e, (client, origin))
            pump(client, origin, 20 * PERIOD)
            pump(origin, client, 20 * PERIOD)
            both_ways(client, origin, 5 * PERIOD)


@WAYS
@pytest.mark.parametrize("side", ["client", "origin"])
def test_a_reset_crosses_between_networks(net, way, side):
    e, (client, origin) = tcp_pair(net, way)
    until_carried(net, e, (client, origin))
    resetting, other = (client, origin) if side == "client" else (origin, client)
    with other:
        reset(resetting)
        assert how_it_ends(other) == "reset"
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"]) == (f"{side}_reset", side)


@WAYS
@pytest.mark.parametrize("why", ["idle", "rule_removed"])
def test_ends_by_the_edge_reach_both_networks(net, way, why):
    e, (client, origin) = tcp_pair(net, way, "idle_timeout=1s" if why == "idle" else "")
    until_carried(net, e, (client, origin))
    if why == "rule_removed":
        assert e.reload("").startswith("ok")
    how = "fin" if why == "idle" else "reset"
    with client, origin:
        assert (how_it_ends(client), how_it_ends(origin)) == (how, how)
    flow, = e.wait_flows(1)
    assert flow["end"] == why


@WAYS
def test_death_of_the_edge_resets_both_ends(net, way):
    e, (client, origin) = tcp_pair(net, way)
    until_carried(net, e, (client, origin))
    e.process.kill()
    e.process.wait()
    e.stop_clean = lambda: None
    for end in (client, origin):
        with end, pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                end.sendall(b"anybody?")
                end.recv(1)


@WAYS
@pytest.mark.parametrize("name, device", [("client", "c0"), ("origin", "o0")])
@pytest.mark.parametrize("sending", [False, True], ids=["idle", "while the other sends"])
def test_a_carried_peer_that_is_cut_off_is_lost(net, way, name, device, sending):
    e, (client, origin) = tcp_pair(net, way, "keepalive=1s")
    until_carried(net, e, (client, origin))
    other = origin if name == "client" else client
    with client, origin:
        with net.inside(name):
            net.ip(f"link set {device} down")
        if sending:
            other.sendall(b"anybody?")
        assert how_it_ends(other) == "reset"
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"]) == (f"{name}_lost", name)
    assert flow["duration_ms"] < 15000


@contextlib.contextmanager
def frames_at(net, name, device):
    """What arrives at a device from now on: gives a function that takes the next frame."""
    with net.inside(name):
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind((device, 0))
        s.settimeout(TIMEOUT)
    with s:
        yield lambda: s.recvfrom(2000)


@WAYS
@pytest.mark.parametrize("stamps", ["1", "0"], ids=["time stamps", "no time stamps"])
@pytest.mark.parametrize("name, device", [("client", "c0"), ("origin", "o0")])
def test_keep_alive_of_a_carried_flow_repeats_what_is_known(net, way, stamps, name, device):
    """What an end hears: one below what it expects, all else as in the last packet before. Both ends then go on."""
    with contextlib.ExitStack() as stack:
        for owner in ("client", "origin"):
            stack.enter_context(sysctl(net, owner, tcp_timestamps=stamps))
        e, (client, origin) = tcp_pair(net, way, "keepalive=1s")
        until_carried(net, e, (client, origin))
        next_frame = stack.enter_context(frames_at(net, name, device))
        talk(client, origin)
        port = port_of(client if name == "client" else origin)
        seen, probes, answers = None, 0, 0
        while probes < 4:
            frame, (*_, kind, _, _) = next_frame()
            head = 54 if ":" in way[0] else 34
            if len(frame) < head + 20 or frame[12:14] != (b"\x86\xdd" if ":" in way[0] else b"\x08\x00"):
                continue
            sport, dport, seq, ack, offset, flags, window = struct.unpack(">HHIIBBH", frame[head:head + 16])
            length = (int.from_bytes(frame[18:20], "big") + 54 if ":" in way[0] else int.from_bytes(frame[16:18], "big") + 14)
            payload = length - head - (offset >> 4) * 4
            options = frame[head + 20:head + (offset >> 4) * 4]
            assert len(options) == (12 if stamps == "1" else 0)
            if kind == 4 and sport == port:  # PACKET_OUTGOING
                answers += probes > 0
                sent = (seq + payload) % (1 << 32)
            elif kind == 0 and dport == port:
                stamp = int.from_bytes(options[4:8], "big")
                if seen and not payload and seq == (seen[0] - 1) % (1 << 32):
                    assert (ack, window, flags) == (sent, seen[1], 0x10)
                    assert stamp >= seen[2]
                    probes += 1
                else:
                    seen = ((seq + payload) % (1 << 32), window, stamp)
        assert answers >= 3
        assert net.metric(e, "tcp_fast_flows") == 1
        talk(client, origin)
        both_ways(client, origin, 5 * PERIOD)
        client.close()
        origin.close()
