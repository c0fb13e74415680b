# SPDX-License-Identifier: Apache-2.0
"""The steer program: its verdict for every kind of packet, and what that means for programs beside the edge."""
import ipaddress
import re
import socket
import subprocess

import pytest

from harness import (TcpOrigin, UdpOrigin, connect, echoes, free_port, free_ports, listen, own_network, refused, udp_client,
                     wait_until)
from program import Program, look_up_socket

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}


@pytest.fixture
def origin():
    with TcpOrigin() as o:
        yield o


def asker(e):
    """verdict(protocol, address, port) of the edge's steer program."""
    program = Program(e.pid, "steer")

    def verdict(protocol, address, port):
        return look_up_socket(program, PROTOCOLS[protocol], ipaddress.ip_address(address).packed, port)

    return program, verdict


def anchors(e):
    """The sockets that steered packets are given to: {(protocol, address): port}."""
    found = {}
    for protocol, flag in (("tcp", "-t"), ("udp", "-u")):
        out = subprocess.run(["ss", "-Hlnp", flag], capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            address, _, port = line.split()[3].rpartition(":")
            if f"pid={e.pid}," in line and int(port) != e.metrics_port:
                found[protocol, address.strip("[]")] = int(port)
    return found


# --- the verdict ---

def test_verdict_by_protocol_and_port(edge, origin):
    first = free_ports(70)  # a range over two words of the port map
    other = free_port()
    e = edge(f"tcp:{first}-{first + 66} 127.0.0.1 {origin.port} off off\nudp:{first + 1};{other} 127.0.0.1 53 off off\n",
             listen=None)
    program, verdict = asker(e)
    cases = [("tcp", first - 1, "pass"), ("tcp", first, "steered"), ("tcp", first + 33, "steered"),
             ("tcp", first + 66, "steered"), ("tcp", first + 67, "pass"), ("tcp", other, "pass"), ("udp", first, "pass"),
             ("udp", first + 1, "steered"), ("udp", first + 2, "pass"), ("udp", other, "steered"), ("sctp", first, "pass"),
             ("sctp", other, "pass"), ("tcp", 0, "pass"), ("tcp", 1, "pass"), ("tcp", 65535, "pass"), ("udp", 65535, "pass")]
    with program:
        for address in ("127.0.0.1", "192.0.2.7", "255.255.255.255", "::1", "2001:db8::1", "fe80::1"):
            for protocol, port, expected in cases:
                assert verdict(protocol, address, port) == expected, (protocol, address, port)


@own_network()
def test_all_ports_but_those_in_use_are_steered(edge):
    """The lowest and the highest port are as good as any."""
    with TcpOrigin(port=20000) as o:
        e = edge(f"tcp:1-65535 127.0.0.1 {o.port} off off\nudp:1-65535 127.0.0.1 {o.port} off off\n", listen=None,
                 metrics=False)
        program, verdict = asker(e)
        with program:
            for port in (1, 2, 63, 64, 65, 1023, 32767, 32768, 65534, 65535):
                assert [verdict(p, a, port) for p in ("tcp", "udp") for a in ("127.0.0.1", "::1")] == ["steered"] * 4
            assert verdict("tcp", "127.0.0.1", 20000) == "pass"
            assert verdict("udp", "127.0.0.1", 20000) == "steered"
            assert verdict("tcp", "127.0.0.1", 0) == verdict("sctp", "::1", 80) == "pass"


def test_only_the_addresses_of_listen_are_steered(edge, origin):
    port = free_port()
    mine = ["127.0.0.3", "192.0.2.1", "::1", "2001:db8:0:1::2"]
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\nudp:{port} 127.0.0.1 53 off off\n", listen=mine)
    program, verdict = asker(e)
    with program:
        for protocol in ("tcp", "udp"):
            assert [verdict(protocol, a, port) for a in mine] == ["steered"] * 4
            others = ["127.0.0.1", "127.0.0.2", "192.0.2.2", "3.0.0.127", "::", "::2", "2001:db8:0:1::3", "2001:db8:1::2",
                      "1::1", "fe80::1"]
            assert {a: verdict(protocol, a, port) for a in others} == {a: "pass" for a in others}


@pytest.mark.parametrize("addresses", [[], ["127.0.0.1", "::1"]], ids=["any address", "given addresses"])
def test_the_ports_of_the_sockets_themselves_are_closed(edge, origin, addresses):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\nudp:{port} 127.0.0.1 53 off off\n", listen=addresses)
    program, verdict = asker(e)
    with program:
        found = anchors(e)
        assert len(found) == 4
        for (protocol, address), own in found.items():
            assert verdict(protocol, address, own) == "drop"
            for other in {"127.0.0.1", "::1"} - {address}:  # it is closed in its own family only
                if found[protocol, other] != own:
                    assert verdict(protocol, other, own) == "pass"
    assert all(how_connecting_is_answered(*k, v) == "refused" for k, v in found.items())


def how_connecting_is_answered(protocol, address, port):
    try:
        with connect(port, address) if protocol == "tcp" else udp_client(port, address) as s:
            s.send(b"x")
            s.recv(1)
            return "answered"
    except ConnectionRefusedError:
        return "refused"


def test_a_reload_changes_the_verdict_at_once(edge, origin):
    ports = free_ports(3)
    rule = "tcp:{} 127.0.0.1 %d off off\nudp:{} 127.0.0.1 53 off off\n" % origin.port
    e = edge(rule.format(ports, ports))
    program, verdict = asker(e)
    with program:
        for n in (ports + 1, ports + 2, ports):
            e.reload(rule.format(n, n))
            assert [verdict("tcp", "::1", p) for p in range(ports, ports + 3)] == \
                ["steered" if p == n else "pass" for p in range(ports, ports + 3)]
            assert verdict("udp", "::1", n) == "steered"


def test_a_removed_udp_port_is_steered_until_its_sessions_have_drained(edge):
    ports = free_ports(2)
    with UdpOrigin() as origin:
        rule = f"udp:{{}} 127.0.0.1 {origin.port} off off\n"
        e = edge(rule.format(ports), drain=1)
        program, verdict = asker(e)
        with program, udp_client(ports) as client:
            client.send(b"x")
            assert client.recv(1) == b"x"
            e.reload(rule.format(ports + 1))
            assert verdict("udp", "127.0.0.1", ports) == "steered"
            e.wait_flows(1, end="rule_removed")
            wait_until(lambda: verdict("udp", "127.0.0.1", ports) == "pass", what="the port to be given back")


def test_the_program_goes_with_the_edge(edge, origin):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
    program, verdict = asker(e)
    with program:
        e.stop_clean()
        assert verdict("tcp", "127.0.0.1", port) == "pass"  # no socket, no port: whoever still has it does no harm
    assert refused(port)


# --- programs beside the edge ---

def test_connections_that_another_program_has_are_not_touched(edge, origin):
    """The kernel asks for packets of unknown connections only."""
    port = free_port()
    with listen(port=port) as other, connect(port) as client:
        server, _ = other.accept()
        other.close()
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
        client.sendall(b"to the old one")
        assert server.recv(100) == b"to the old one"
        with connect(port) as new:
            assert echoes(new)
        server.close()
        assert e.metric("flows_total") == 1


def test_a_connected_udp_socket_of_another_program_keeps_its_port(edge):
    """Such as a client whose source port lies in an edge range: answers to it are not ours."""
    first = free_ports(100)
    with UdpOrigin() as origin, UdpOrigin() as server:
        e = edge(f"udp:{first}-{first + 99} 127.0.0.1 {origin.port} off off\n")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.bind(("127.0.0.1", first + 50))
            client.connect(("127.0.0.1", server.port))
            client.send(b"mine")
            assert client.recv(10) == b"mine"
        assert e.metric("flows_total") == 0


def test_outgoing_tcp_from_a_port_of_the_edge_works(edge, origin):
    first = free_ports(50)
    edge(f"tcp:{first}-{first + 49} 127.0.0.1 {origin.port} off off\n")
    with socket.socket() as s:
        s.settimeout(5)
        s.bind(("127.0.0.1", first + 7))
        s.connect(("127.0.0.1", origin.port))
        assert echoes(s)


# --- without BPF ---

def without(*capabilities):
    return ("setpriv", "--bounding-set=" + ",".join("-" + c for c in capabilities), "--inh-caps=-all")


@pytest.mark.parametrize("capabilities", [("bpf", "sys_admin"), ("net_admin", "sys_admin"), ("bpf", "net_admin", "sys_admin")],
                         ids="+".join)
def test_where_bpf_is_refused_ports_are_bound_and_it_is_said_once(edge, origin, capabilities):
    port, udp_port = free_port(), free_port()
    with UdpOrigin() as udp:
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\nudp:{udp_port} 127.0.0.1 {udp.port} off off\n",
                 prefix=without(*capabilities))
        assert e.status()["steering"] == "off: BPF is refused" and e.metric("steering_bpf") == 0
        for address in ("127.0.0.1", "::1"):
            with connect(port, address) as c, udp_client(udp_port, address) as u:
                assert echoes(c)
                for _ in range(20):
                    u.send(b"x")
                    assert u.recv(1) == b"x"
        e.reload()
        said = [line for line in e.stderr().splitlines() if "is bound by itself" in line]
        assert len(said) == 1 and re.search(r" warning: .*steer program", said[0]), e.stderr()


