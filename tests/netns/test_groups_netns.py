# SPDX-License-Identifier: Apache-2.0
"""Groups whose origins are on hosts of their own, which are unplugged, slow, lossy, or refuse.

    client namespace          edge namespace                       origin namespace

    c0 10.77.1.2 ------------ e0 10.77.1.1
                              e1 10.77.2.1 ----------------------- o0 10.77.2.2
                              eo 10.77.4.1 - - (a bad wire) - - -  ot 10.77.4.2    only in tests that ask for it

                                                                   far namespace
                              e2 10.77.5.1 ----------------------- f0 10.77.5.2

The group has the origin on o0 (or ot) and the spare one on f0. The links are those of test_netns.py.
"""
import contextlib
import subprocess
import threading

import pytest

from harness import TcpOrigin, UdpOrigin, connect, free_port, wait_until
from test_netns import (FAST, ENTER, ask, eventually_answered, net, network, reject, tcp_from, udp_from,  # noqa: F401
                        wires)

FIRST, SPARE, WIRED = "10.77.2.2", "10.77.5.2", "10.77.4.2"
EDGE = "10.77.1.1"
CHECK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 2}
UDP_CHECK = {**CHECK, "type": "udp", "send": "who?", "expect": "10.77."}


class Pair:
    """An origin of TCP and UDP that says its address to who asks, on each of two hosts."""

    def __init__(self, net, addresses):
        self.port, self.servers, self.addresses = free_port(), [], addresses
        for address, name in zip(addresses, ("origin", "far")):
            with net.inside(name):
                self.servers += [TcpOrigin(lambda c, peer, a=address: self.tell(c, a), address, self.port),
                                 UdpOrigin(lambda data, peer, a=address: [a.encode()], address, self.port)]

    @staticmethod
    def tell(connection, address):
        while connection.recv(4096):
            connection.sendall(address.encode())

    def document(self, port, check, node=None, **settings):
        group = {"name": "hosts", "health_check": check, "passive_fails": 0, **settings,
                 "origins": [{"address": a, "port": self.port} for a in self.addresses]}
        return {"node": node or {}, "origin_groups": [group], "rule_defaults": {"connect_timeout": "300ms"},
                "rules": [{"protocol": p, "edge_ports": [port], "origin": "og:hosts", "origin_port": 1}
                          for p in ("tcp", "udp")]}

    def close(self):
        for s in self.servers:
            s.close()


@pytest.fixture
def spare_link(net):  # noqa: F811
    net.link("edge e2 10.77.5.1/24", f"far f0 {SPARE}/24")


@pytest.fixture
def pair(net, spare_link):  # noqa: F811
    p = Pair(net, (FIRST, SPARE))
    yield p
    p.close()


@pytest.fixture
def wired_pair(net, spare_link, wires):  # noqa: F811
    made = []

    def make(**wire):
        wires("origin", **wire)
        made.append(Pair(net, (WIRED, SPARE)))
        return made[0]
    yield make
    for p in made:
        p.close()


def state(e, pair, address):
    return e.origins()[f"{address}:{pair.port}"]


def wait_state(e, pair, address, what):
    wait_until(lambda: state(e, pair, address)["state"] == what, what=f"{address} to be {what}")


def wait_checked(net, e, times=1):  # noqa: F811
    """Until each origin was checked so often from now on."""
    def checks():
        return {o: net.metric(e, "origin_checks_total", origin=o) for o in e.origins()}
    before = checks()
    wait_until(lambda: all(n >= before[o] + times for o, n in checks().items()), 60, "checks")


def ask_new(net, port):  # noqa: F811
    with tcp_from(net, port, EDGE) as c:
        return ask(c).decode()


class Clients:
    """Threads that open connections all the time; each has to be answered."""

    def __init__(self, net, port):  # noqa: F811
        self.port, self.failures, self.done, self.stop = port, [], [], threading.Event()
        with net.inside("client"):
            self.threads = [threading.Thread(target=self.run) for _ in range(3)]
            for t in self.threads:
                t.start()

    def run(self):
        try:
            while not self.stop.is_set():
                with connect(self.port, EDGE) as c:
                    self.done.append(ask(c).decode())
        except (OSError, AssertionError) as e:
            self.failures.append(repr(e))

    def more(self, count=20):
        """Where the next connections go."""
        start = len(self.done)
        wait_until(lambda: len(self.done) >= start + count or self.failures, what="more connections")
        assert self.failures == []
        return set(self.done[start:])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop.set()
        for t in self.threads:
            t.join()


@pytest.mark.parametrize("namespace, device, reasons", [
    ("origin", "o0", {"connect_timeout", "unreachable"}),  # nobody answers, or ARP says so
    ("edge", "e1", {"unreachable"}),  # no route any more
])
def test_an_unplugged_origin_is_taken_out_and_comes_back_and_no_client_notices(net, pair, namespace, device, reasons):  # noqa: F811
    port = free_port()
    e = net.start(None, config=pair.document(port, CHECK))
    wait_checked(net, e)
    with Clients(net, port) as clients:
        assert clients.more() == {FIRST, SPARE}
        with net.inside(namespace):
            net.ip(f"link set {device} down")
        wait_state(e, pair, FIRST, "down")
        assert state(e, pair, FIRST)["reason"] in reasons and state(e, pair, SPARE)["state"] == "up"
        clients.more()  # those that were on the way
        assert clients.more(60) == {SPARE}
        with net.inside(namespace):
            net.ip(f"link set {device} up")
        wait_state(e, pair, FIRST, "up")
        wait_until(lambda: clients.more() == {FIRST, SPARE}, what="flows to it again")
    assert clients.failures == []
    assert f"origin {FIRST}:{pair.port} is up again" in e.stderr()
    assert net.metric(e, "origin_changes_total", origin=f"{FIRST}:{pair.port}") == 2
    assert net.metric(e, "origin_changes_total", origin=f"{SPARE}:{pair.port}") == 0


@pytest.mark.parametrize("check, reason", [(CHECK, "connect_timeout"), (UDP_CHECK, "no_answer")], ids=["tcp", "udp"])
def test_an_origin_that_is_farther_than_the_timeout_is_down_until_it_is_given_more_time(net, wired_pair, check, reason):  # noqa: F811
    port, pair = free_port(), wired_pair(delay_ms=200)
    e = net.start(None, config=pair.document(port, check))
    wait_state(e, pair, WIRED, "down")
    assert state(e, pair, WIRED)["reason"] == reason
    assert state(e, pair, SPARE)["state"] == "up" and state(e, pair, SPARE)["check_ms"] < 150
    assert {ask_new(net, port) for _ in range(8)} == {SPARE}
    assert e.reload(config=pair.document(port, {**check, "timeout": "3s"})).startswith("ok")
    wait_checked(net, e, 3)
    far = state(e, pair, WIRED)
    assert far["state"] == "up" and far["check_ms"] >= 400  # there and back


@pytest.mark.parametrize("fall, flaps", [(3, False), (1, True)])
def test_every_fifth_probe_lost_brings_an_origin_down_with_fall_1_only(net, pair, fall, flaps):  # noqa: F811
    """Lost by count, not by chance: a fifth of all SYNs, and none of them is repeated before the check's time is over."""
    port = free_port()
    with net.inside("origin"):
        subprocess.run(["nft", "-f", "-"], check=True, text=True, input=f"""
            table inet t {{
                chain c {{
                    type filter hook input priority 0;
                    tcp dport {pair.port} tcp flags & (syn | ack) == syn numgen inc mod 5 == 4 drop
                }}
            }}""")
    e = net.start(None, config=pair.document(port, {**CHECK, "interval": "100ms", "timeout": "80ms", "fall": fall, "rise": 1}))
    wait_checked(net, e, 60)
    first = {"origin": f"{FIRST}:{pair.port}"}
    lost = net.metric(e, "origin_checks_failed_total", **first) / net.metric(e, "origin_checks_total", **first)
    assert 0.15 <= lost <= 0.25
    assert (net.metric(e, "origin_changes_total", **first) > 0) == flaps
    assert net.metric(e, "origin_changes_total", origin=f"{SPARE}:{pair.port}") == 0


@pytest.mark.parametrize("how, reason", [
    ("reject with tcp reset", "connect_refused"), ("reject with icmpx type port-unreachable", "connect_refused"),
    ("reject with icmpx type host-unreachable", "unreachable"), ("reject with icmpx type admin-prohibited", "unreachable"),
    ("drop", "connect_timeout"),
], ids=lambda x: x.replace("reject with ", "").replace(" type", ""))
def test_why_a_host_is_down_is_told(net, pair, how, reason):  # noqa: F811
    port = free_port()
    e = net.start(None, config=pair.document(port, CHECK))
    wait_checked(net, e)
    with Clients(net, port) as clients:
        assert clients.more() == {FIRST, SPARE}
        reject(net, "ipv4", how, "tcp")
        wait_state(e, pair, FIRST, "down")
        assert state(e, pair, FIRST)["reason"] == reason
        assert f"origin {FIRST}:{pair.port} is down" in e.stderr()
        with net.inside("origin"):
            subprocess.run(["nft", "flush", "ruleset"], check=True)
        wait_state(e, pair, FIRST, "up")
        wait_until(lambda: FIRST in clients.more(), what="flows to it again")
    # a connection that the filter cut is the only one that may have failed
    assert all("reset" in f.lower() or "timed out" in f for f in clients.failures)
    assert len(clients.failures) <= len(clients.threads)


@FAST
@pytest.mark.parametrize("namespace, device", [("origin", "o0"), ("edge", "e1")])
def test_a_session_moves_when_the_host_of_its_origin_is_unplugged(net, pair, namespace, device, fast):  # noqa: F811
    port = free_port()
    e = net.start(None, config=pair.document(port, UDP_CHECK, node={"udp_fast_path": bool(fast)}), workers=1)
    wait_checked(net, e)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(udp_from(net, port, EDGE, "10.77.1.2")) for _ in range(6)]
        homes = [ask(c).decode() for c in clients]
        assert set(homes) == {FIRST, SPARE}
        for c, home in zip(clients, homes):
            assert {ask(c).decode() for _ in range(ENTER + 2)} == {home}
        assert net.metric(e, "udp_fast_sessions_total") == (len(clients) if fast else 0)
        with net.inside(namespace):
            net.ip(f"link set {device} down")
        wait_state(e, pair, FIRST, "down")
        for c in clients:
            assert eventually_answered(c, SPARE.encode(), 5)  # what it asks is what it is answered with
        assert all(ask(c).decode() == SPARE for c in clients for _ in range(3))
        with net.inside(namespace):
            net.ip(f"link set {device} up")
        wait_state(e, pair, FIRST, "up")
        assert all(ask(c).decode() == SPARE for c in clients)  # a session keeps its origin
    assert net.metric(e, "udp_sessions_moved_total") == homes.count(FIRST)
    assert net.metric(e, "flows_total", protocol="udp") == len(clients)
