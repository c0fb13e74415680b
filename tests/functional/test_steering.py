# SPDX-License-Identifier: Apache-2.0
"""Which ports are served and how: ranges of any size by BPF steering, other programs' ports, plain binds."""
import os
import random
import re
import socket
import subprocess
import time

import pytest

from harness import (EDGE, TIMEOUT, TcpOrigin, UdpOrigin, connect, echoes, free_port, free_ports, how_connecting_ends,
                     listen, own_network, recv_exactly, refused, udp_client, wait_until)


@pytest.fixture
def origin():
    with TcpOrigin() as o:
        yield o


def sockets_of(pid):
    """(protocol, address, port) of every listening or unconnected socket of a process."""
    found = set()
    for protocol, flag in (("tcp", "-t"), ("udp", "-u")):
        out = subprocess.run(["ss", "-Hlnp", flag], capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            if f"pid={pid}," in line:
                address, _, port = line.split()[3].rpartition(":")
                found.add((protocol, address, int(port)))
    return found


def anchors(e):
    """The sockets that steered traffic is given to: those of the edge beside the metrics port."""
    return {s for s in sockets_of(e.pid) if s[2] != e.metrics_port}


def links_of(pid):
    """Ids of the BPF links of a process."""
    ids = set()
    for n in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{n}") as f:
                ids |= {int(i) for i in re.findall(r"^link_id:\s+(\d+)", f.read(), re.MULTILINE)}
        except FileNotFoundError:
            pass
    return ids


def link_exists(link):
    return subprocess.run(["bpftool", "link", "show", "id", str(link)], capture_output=True).returncode == 0


# --- ranges ---

@own_network()
def test_all_ports_cost_the_same_as_one(edge):
    """Every port but those of the origins and the edge itself, for both protocols."""
    with TcpOrigin(port=65000) as tcp, UdpOrigin(port=65000) as udp:
        one = edge(f"tcp:7 127.0.0.1 {tcp.port} off off\nudp:7 127.0.0.1 {udp.port} off off\n", listen=(),
                   metrics=False)
        one_fds, one_sockets = one.fds(), len(sockets_of(one.pid))
        one.stop_clean()
        began = time.monotonic()
        e = edge(f"tcp:1-64999 127.0.0.1 {tcp.port} off off\nudp:1-64999 127.0.0.1 {udp.port} off off\n", listen=(),
                 metrics=False)
        assert time.monotonic() - began < 3
        assert (e.fds(), len(sockets_of(e.pid))) == (one_fds, one_sockets)
        assert e.status()["ports"] == {"tcp": 64999, "udp": 64999}
        rng = random.Random(3)
        ports = [1, 2, 64998, 64999] + [rng.randint(1, 32767) for _ in range(60)]
        for port in set(ports):
            for address in ("127.0.0.1", "::1"):
                with connect(port, address) as c:
                    assert echoes(c), port
                with udp_client(port, address) as c:
                    c.send(b"datagram")
                    assert c.recv(100) == b"datagram"
        assert how_connecting_ends(65001) == "refused"
        edges = {f["edge"] for f in e.wait_flows(2 * len(set(ports)), protocol="tcp")}
        assert edges == {f"{a}:{p}" for a in ("127.0.0.1", "[::1]") for p in ports}


@own_network()
def test_the_edge_s_own_metrics_port_inside_a_range_is_left_to_it(edge):
    with TcpOrigin(port=65000) as origin:
        whole = f"tcp:1-64999 127.0.0.1 {origin.port} off off\n"
        e = edge(whole, listen=())
        assert e.metric("config_version") == 1
        assert e.reload(whole).startswith("ok") and e.metric("config_version") == 2


@own_network()
def test_ports_of_other_programs_inside_a_range_are_left_to_them(edge, origin):
    """A listener on one address, on all addresses, on IPv6 only; and a UDP socket."""
    first = 20000
    others = [listen("127.0.0.1", first + 1), listen("0.0.0.0", first + 2), listen("::", first + 3)]
    others[2].close()
    v6 = socket.socket(socket.AF_INET6)
    v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    v6.bind(("::1", first + 3))
    v6.listen()
    others[2] = v6
    with TcpOrigin() as tcp, UdpOrigin(port=first + 5) as program, UdpOrigin() as udp:
        e = edge(f"tcp:{first}-{first + 9} 127.0.0.1 {tcp.port} off off\n"
                 f"udp:{first}-{first + 9} 127.0.0.1 {udp.port} off off\n", listen=())
        for i, address in ((1, "127.0.0.1"), (2, "127.0.0.1"), (3, "::1")):
            with connect(first + i, address) as c:
                c.sendall(b"who is there?")
                there, _ = others[i - 1].accept()
                there.sendall(b"me")
                there.close()
                assert recv_exactly(c, 2) == b"me"
        with udp_client(first + 5) as c:
            c.send(b"x")
            assert program.received.get(timeout=TIMEOUT)[0] == b"x"
        assert all(not refused(first + i) for i in (0, 4, 5, 9))
        said = re.findall(r"info: (\w+) port (\d+) is left to (\S+) \(pid (\d+)\), which listens on it", e.stderr())
        assert sorted((p, int(n)) for p, n, _, _ in said) == [
            ("tcp", first + 1), ("tcp", first + 2), ("tcp", first + 3), ("udp", first + 5)]
        assert {int(pid) for _, _, _, pid in said} == {os.getpid()}
        assert e.status()["ports"] == {"tcp": 7, "udp": 9}
    for s in others:
        s.close()


@own_network()
def test_more_than_ten_ports_left_to_others_are_summed_up(edge, origin):
    others = [listen(port=20000 + i) for i in range(15)]
    with TcpOrigin(port=19000) as tcp:
        e = edge(f"tcp:20000-20100 127.0.0.1 {tcp.port} off off\n")
        assert e.stderr().count("is left to") == 10
        assert "5 more tcp ports are left to other programs" in e.stderr()
    for s in others:
        s.close()


def run_to_its_end(tmp_path, rules, *args, prefix=()):
    path = tmp_path / "x.rules"
    path.write_text(rules)
    done = subprocess.run([*prefix, EDGE, "--rules", path, *args], capture_output=True, text=True, timeout=TIMEOUT)
    return path, done


MODES = pytest.mark.parametrize("mode", [[], ["--no-bpf"]], ids=["steered", "no-bpf"])


@MODES
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_port_that_another_program_has_fails_the_start_with_its_name(tmp_path, mode, protocol):
    free, taken = free_port(), free_port()
    other = listen(port=taken) if protocol == "tcp" else UdpOrigin(port=taken)
    with other if protocol == "tcp" else other:
        path, done = run_to_its_end(tmp_path, f"# first line\n  {protocol}:{free};{taken} 127.0.0.1 80 off off\n",
                                    "--listen", "127.0.0.1", *mode)
    with open("/proc/self/comm") as f:
        name = f.read().strip()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{path}:2:{7 + len(str(free)) + 1}: {protocol} port {taken} is in use by {name} (pid {os.getpid()}), "
        "expected a port that no other program listens on"]


@MODES
def test_reload_is_refused_for_a_port_that_another_program_has_taken(edge, origin, mode):
    one, taken = free_port(), free_ports(3)
    e = edge(f"tcp:{one} 127.0.0.1 {origin.port} off off\n", *mode)
    with listen(port=taken + 1) as other:
        answer = e.reload(f"tcp:{one};{taken + 1} 127.0.0.1 {origin.port} off off\n")
        # its name can't be told any more: the edge has dropped the privilege to look
        assert answer == (f"error refused, the old rules stay in force\n{e.rules_path}:1:{6 + len(str(one))}: tcp port "
                          f"{taken + 1} is in use by another program (uid 0), expected a port that no other program "
                          "listens on\n")
        assert not refused(one)
        # inside a range it is left out
        assert e.reload(f"tcp:{one};{taken}-{taken + 2} 127.0.0.1 {origin.port} off off\n").startswith("ok")
        assert not refused(taken) and not refused(taken + 2)
        with connect(taken + 1):
            other.accept()[0].close()
    # and when that program has gone, the next reload takes it
    assert e.reload().startswith("ok")
    assert not refused(taken + 1)


@MODES
def test_two_edges_do_not_share_a_port(edge, tmp_path, origin, mode):
    """SO_REUSEPORT would let them, when their sockets are bound to it."""
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n", "--no-bpf")
    path, done = run_to_its_end(tmp_path, f"tcp:{port} 127.0.0.1 80 off off\n", "--listen", "127.0.0.1", *mode)
    assert (done.returncode, done.stderr) == (
        1, f"{path}:1:5: tcp port {port} is in use by tidegate-edge (pid {e.pid}), expected a port that no other program "
        "listens on\n")


@own_network()
def test_udp_port_that_the_edge_itself_sends_from_is_served(edge):
    """The kernel gives the socket of a session to its origin a local port, which may be an edge port too."""
    with UdpOrigin(port=65000) as origin:
        e = edge(f"udp:1-64999 127.0.0.1 {origin.port} off off\n", listen=())
        with udp_client(7) as first:
            first.send(b"one")
            assert first.recv(100) == b"one"
            ours = subprocess.run(["ss", "-Hunp", "dport", "=", f":{origin.port}"], capture_output=True, text=True,
                                  check=True).stdout
            local, = re.findall(rf"127\.0\.0\.1:(\d+) .*pid={e.pid},", ours)
            with udp_client(int(local), timeout=3) as second:
                second.send(b"two")
                assert second.recv(100) == b"two"


# --- what is not served ---

@MODES
def test_port_without_a_rule_is_refused(edge, origin, mode):
    first = free_ports(3)
    edge(f"tcp:{first + 1} 127.0.0.1 {origin.port} off off\nudp:{first} 127.0.0.1 53 off off\n", *mode)
    assert [how_connecting_ends(first), how_connecting_ends(first + 2)] == ["refused", "refused"]
    assert not refused(first + 1)


@MODES
def test_only_the_addresses_given_are_listened_on(edge, origin, mode):
    port = free_port()
    edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\nudp:{port} 127.0.0.1 53 off off\n", *mode,
         listen=("127.0.0.55", "::1"))
    assert not refused(port, "127.0.0.55") and not refused(port, "::1")
    for address in ("127.0.0.1", "127.0.0.56"):
        assert how_connecting_ends(port, address) == "refused"
        with udp_client(port, address) as c, pytest.raises(ConnectionRefusedError):
            c.send(b"x")
            c.recv(10)


@MODES
def test_without_listen_all_addresses_are_listened_on(edge, origin, mode):
    port = free_port()
    edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n", *mode, listen=())
    for address in ("127.0.0.1", "127.200.3.4", "::1"):
        assert not refused(port, address)


def test_the_steered_sockets_own_ports_are_closed(edge, origin):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
    found = anchors(e)
    assert len(found) == 4, found
    for protocol, address, anchor in found:
        assert address in ("127.0.0.1", "[::1]")
        host = address.strip("[]")
        if protocol == "tcp":
            assert how_connecting_ends(anchor, host) == "refused"
        else:
            with udp_client(anchor, host) as c, pytest.raises(ConnectionRefusedError):
                c.send(b"x")
                c.recv(10)
    assert not refused(port)


@own_network()
def test_the_steered_sockets_own_ports_are_served_when_a_rule_has_them(edge):
    """At the start, when the kernel chooses one inside the range, and when a reload brings a range or that very port."""
    with TcpOrigin(port=65000) as origin:
        whole = f"tcp:1-64999 127.0.0.1 {origin.port} off off\n"
        e = edge(whole, listen=())
        own, = [s[2] for s in anchors(e) if s[:2] == ("tcp", "127.0.0.1")]
        assert not refused(own)
        assert e.reload(whole).startswith("ok") and not refused(own)
        e.stop_clean()
        e = edge(f"tcp:7 127.0.0.1 {origin.port} off off\n", listen=())
        own, = [s[2] for s in anchors(e) if s[:2] == ("tcp", "127.0.0.1")]
        assert refused(own)
        assert e.reload(whole).startswith("ok")
        assert not refused(own)
        assert e.reload(f"tcp:{own} 127.0.0.1 {origin.port} off off\n").startswith("ok")
        assert not refused(own)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_nothing_is_left_behind(edge, origin, how):
    port = free_port()
    e = edge(f"tcp:{port}-{port + 3} 127.0.0.1 {origin.port} off off\nudp:{port} 127.0.0.1 53 off off\n")
    links = links_of(e.pid)
    assert links and all(link_exists(i) for i in links)
    held = anchors(e)
    if how == "stopped":
        e.stop_clean()
    else:
        e.process.kill()
        e.process.wait()
        e.process.returncode = 0  # it was us
    wait_until(lambda: not any(link_exists(i) for i in links), what="the BPF links to go")
    assert sockets_of(e.pid) == set()
    assert how_connecting_ends(port) == "refused"
    for protocol, address, anchor in held:
        if protocol == "tcp":
            listen(address.strip("[]"), anchor).close()
    with listen(port=port) as other, connect(port):
        other.accept()[0].close()


def test_edges_beside_each_other_serve_their_own_ports(edge, origin):
    first = free_ports(3)
    for i in range(3):
        edge(f"tcp:{first + i} 127.0.0.1 {origin.port} off off\n", *(["--no-bpf"] if i == 2 else []))
    assert not any(refused(first + i) for i in range(3))


# --- plain binds ---

def test_without_bpf_every_port_is_bound(edge, origin):
    first = free_ports(20)
    e = edge(f"tcp:{first}-{first + 9} 127.0.0.1 {origin.port} off off\nudp:{first + 10} 127.0.0.1 53 off off\n",
             "--no-bpf")
    assert (e.status()["steering"], e.metric("steering_bpf")) == ("off: --no-bpf", 0)
    assert {s for s in sockets_of(e.pid) if s[2] != e.metrics_port} == {
        ("tcp", a, first + i) for a in ("127.0.0.1", "[::1]") for i in range(10)} | {
        ("udp", a, first + 10) for a in ("127.0.0.1", "[::1]")}
    assert not any(refused(first + i, a) for i in range(10) for a in ("127.0.0.1", "::1"))
    assert links_of(e.pid) == set()


@pytest.mark.parametrize("ports,limit", [(1000, 400), (64000, 20000)])
def test_more_ports_than_can_be_bound_without_bpf_is_a_clear_error(tmp_path, ports, limit):
    path, done = run_to_its_end(tmp_path, f"tcp:1000-{1000 + ports - 1} 127.0.0.1 80 off off\n", "--no-bpf", "--listen",
                                "127.0.0.99", "--workers", "2", prefix=("prlimit", f"--nofile={limit}:{limit}"))
    assert done.returncode == 1
    line, = [x for x in done.stderr.splitlines() if " info: " not in x]
    assert re.fullmatch(r"tcp 127\.0\.0\.99:\d+: Too many open files; without BPF every port takes file descriptors for "
                        r"every worker, address and family: use fewer ports or workers, or raise the limit", line)


def test_reload_with_more_ports_than_can_be_bound_leaves_the_old_ones(edge, origin):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n", "--no-bpf", prefix=("prlimit", "--nofile=400:400"),
             listen=("127.0.0.99", "127.0.0.1"))
    fds = e.fds()
    answer = e.reload(f"tcp:{port};10000-12000 127.0.0.1 {origin.port} off off\n")
    assert answer.startswith("error refused, the old rules stay in force\ntcp 127.0.0.") and "without BPF" in answer
    assert not refused(port)
    wait_until(lambda: e.fds() == fds, what="what was bound to be given back")
    assert e.metric("fds") == 4
    assert e.reload(f"tcp:{port}-{port + 1} 127.0.0.1 {origin.port} off off\n").startswith("ok")


def test_without_permission_for_bpf_ports_are_bound_and_it_is_said(edge, origin):
    """As an ordinary user in a namespace of mounts only: everything works, but BPF."""
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n",
             prefix=("setpriv", "--bounding-set=-sys_admin,-bpf,-net_admin", "--inh-caps=-all"))
    assert e.status()["steering"] == "off: BPF is refused"
    assert re.search(r"warning: loading the steer program: .*; every port is bound by itself instead, which takes a file "
                     r"descriptor for each port, worker and address family \(about \d+ ports here\)", e.stderr())
    assert not refused(port)
