# SPDX-License-Identifier: Apache-2.0
"""Every limit: what it lets in, what it refuses, who counts it, and that there is room again afterwards."""
import contextlib
import os
import re
import select
import subprocess
import time

import pytest

from harness import (TcpOrigin, connect, echoes, free_port, how_connecting_ends, listen, port_of, recv_exactly, refused,
                     reset, wait_metric, wait_until)


@pytest.fixture
def origin():
    with TcpOrigin() as o:
        yield o


def held(port, count, address="127.0.0.1", source=None):
    """`count` flows that were let in."""
    flows = [connect(port, address, source) for _ in range(count)]
    assert all(echoes(f) for f in flows)
    return flows


def close(flows):
    for f in flows:
        f.close()


def warnings(e):
    return re.findall(r" warning: (.*)", e.stderr())


# --- concurrent flows ---

# lines before the rule, options of the rule, flows that fit, reason, metric
CONCURRENT = {
    "node": ("set node max_flows=5\n", "", 5, "limit_node_flows", "connections_refused_total"),
    "rule": ("", "max_flows=5", 5, "limit_rule_flows", "flows_ended_total"),
    "client": ("", "client_max_flows=5", 5, "limit_client_flows", "flows_ended_total"),
    "whole file": ("set rule client_max_flows=5\n", "", 5, "limit_client_flows", "flows_ended_total"),
}


@pytest.mark.parametrize("name", CONCURRENT)
def test_flows_up_to_the_limit_are_let_in_and_no_more(edge, origin, name):
    before, options, fit, reason, metric = CONCURRENT[name]
    port = free_port()
    e = edge(f"{before}tcp:{port} 127.0.0.1 {origin.port} off off {options}\n")
    flows = held(port, fit)
    for _ in range(10):
        assert how_connecting_ends(port) == "reset"
    wait_metric(e, 10, metric, end=reason)
    assert all(echoes(f) for f in flows), "nobody who was let in suffers"
    assert e.metric("flows_active") == fit and e.metric("flows_total") == fit
    flows.pop().close()
    wait_until(lambda: not refused(port), what="room")
    close(flows)
    wait_metric(e, 0, "node_flows")
    close(held(port, fit))
    assert {f["end"] for f in e.wait_flows(fit * 2)} == {"done"}, "refusals are counted, not logged"


def test_refusals_are_said_once_in_a_while(edge, origin):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off max_flows=1\n")
    flows = held(port, 1)
    for _ in range(20):
        assert how_connecting_ends(port) == "reset"
    wait_metric(e, 20, "flows_ended_total", end="limit_rule_flows")
    said, = [w for w in warnings(e) if "refused" in w]
    assert re.fullmatch(rf"connection refused from 127\.0\.0\.1 on rule-\w+ port {port}: the rule has max_flows flows "
                        r"\(0 more refused so since the last message\)", said)
    close(flows)


@pytest.mark.parametrize("node_option,prefix,words", [
    ("max_flows=1", (), "the node has max_flows flows"),
    ("max_flows=1000", ("prlimit", "--nofile=400:400"), "the process has as many file descriptors as it may"),
])
def test_refusals_of_the_node_are_said_too(edge, origin, node_option, prefix, words):
    port = free_port()
    e = edge(f"set node {node_option}\ntcp:{port} 127.0.0.1 {origin.port} off off\n", workers=1, prefix=prefix)
    flows = []
    with contextlib.suppress(ConnectionResetError):
        while True:
            flows += held(port, 1)
    for _ in range(20):
        assert how_connecting_ends(port) == "reset"
    assert len([w for w in warnings(e) if words in w]) == 1
    close(flows)


def test_a_client_s_limit_is_its_own(edge, origin):
    """Per address and per rule; an IPv6 client is its /64."""
    one, two = free_port(), free_port()
    e = edge("set rule client_max_flows=2\n" + "".join(
        f"tcp:{p} 127.0.0.1 {origin.port} off off\n" for p in (one, two)))
    flows = held(one, 2, source="127.0.0.5")
    assert refused(one, source="127.0.0.5")
    flows += held(one, 2, source="127.0.0.6") + held(two, 2, source="127.0.0.5") + held(one, 2, "::1")
    assert refused(one, "::1") and refused(one, source="127.0.0.6") and refused(two, source="127.0.0.5")
    wait_metric(e, 4, "flows_ended_total", end="limit_client_flows")
    close(flows)


def test_behind_a_balancer_the_client_of_the_header_is_limited(edge, origin):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off accept_proxy=127.0.0.1 client_max_flows=1\n")

    def through_balancer(client):
        c = connect(port)
        c.sendall(b"PROXY TCP6 %s ::1 1000 80\r\n" % client + b"hi")
        try:
            recv_exactly(c, 2)
        except ConnectionResetError:
            c.close()
            return None
        return c

    first = through_balancer(b"2001:db8::1")
    other = through_balancer(b"2001:db8:0:1::1")
    assert first and other
    assert through_balancer(b"2001:db8::ffff:2") is None, "the same /64"
    wait_metric(e, 1, "flows_ended_total", end="limit_client_flows")
    close([first, other])


@pytest.mark.parametrize("ending", ["client reset", "origin reset", "connect refused"])
def test_every_kind_of_end_makes_room(edge, ending):
    port = free_port()
    with listen() as listener:
        e = edge(f"tcp:{port} 127.0.0.1 {port_of(listener)} off off max_flows=2 client_max_flows=2\n")
        for _ in range(20):
            if ending == "connect refused":
                listener.close()
                assert how_connecting_ends(port) == "reset"
                continue
            client = connect(port)
            origin, _ = listener.accept()
            client.sendall(b"x")
            assert recv_exactly(origin, 1) == b"x"
            reset(client if ending == "client reset" else origin)
            wait_metric(e, 0, "flows_active")
            client.close()
            origin.close()
        flows = e.wait_flows(20)
        assert {f["end"] for f in flows} == {ending.replace(" ", "_")}
        assert e.metric("flows_total") == 20


# --- new flows a second ---

@pytest.mark.parametrize("option,reason", [("new_flows_per_s", "limit_rule_rate"),
                                           ("client_new_flows_per_s", "limit_client_rate")])
def test_a_burst_of_one_second_s_worth_is_let_in_and_then_the_rate(edge, origin, option, reason):
    """Time is only measured, so that a slow machine sees the same."""
    port, rate, asked = free_port(), 4, 40
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off {option}={rate}\n")
    began = time.monotonic()
    admitted = [not refused(port) for _ in range(asked)]
    took = time.monotonic() - began
    assert admitted[:rate] == [True] * rate
    assert sum(admitted) <= rate + rate * took
    assert sum(admitted) < asked
    wait_metric(e, asked - sum(admitted), "flows_ended_total", end=reason)
    assert e.metric("flows_total") == sum(admitted)
    wait_until(lambda: not refused(port), what="a new flow's time to come")
    assert time.monotonic() - began >= 1 / rate
    assert len([w for w in warnings(e) if "refused from" in w]) == 1


def test_what_one_client_is_refused_does_not_use_up_the_rule_s_rate(edge, origin):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off new_flows_per_s=20 client_max_flows=1\n")
    flows = held(port, 1)
    for _ in range(100):
        assert how_connecting_ends(port) == "reset"
    others = [connect(port, source=f"127.0.1.{i}") for i in range(1, 15)]
    assert all(echoes(c) for c in others)
    assert e.metric("flows_ended_total", end="limit_rule_rate") == 0
    close(flows + others)


# --- file descriptors ---

def cpu_seconds(e):
    with open(f"/proc/{e.pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_idle(e, flow):
    """For a second in which nothing arrives on a flow, the edge takes next to no time."""
    before = cpu_seconds(e)
    assert not select.select([flow], [], [], 1.0)[0]
    assert cpu_seconds(e) - before < 0.1, "it spins"


def test_connections_past_the_descriptor_limit_are_refused_cleanly(edge, origin):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n", prefix=("prlimit", "--nofile=400:400"))
    room = int(e.metric("fds_max") - e.metric("fds")) // 2
    assert 50 < room < 200
    flows = held(port, room)
    for _ in range(100):
        assert how_connecting_ends(port) == "reset"
    wait_metric(e, 100, "connections_refused_total", end="limit_fds")
    assert e.metric("fds") <= e.metric("fds_max")
    assert len(os.listdir(f"/proc/{e.pid}/fd")) < 400
    assert_idle(e, flows[0])
    assert all(echoes(f) for f in flows)
    assert e.status()["flows"] == room, "the control socket is served"
    close(flows)
    wait_metric(e, 0, "node_flows")
    close(held(port, room))


@pytest.mark.parametrize("left", [0, 1])
def test_accept_without_descriptors_refuses_and_does_not_spin(edge, origin, left):
    """The limit sinks while the edge runs: accept() fails, or the socket to the origin cannot be made."""
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n", workers=1)
    flows = held(port, 3)
    fds = sorted(int(n) for n in os.listdir(f"/proc/{e.pid}/fd"))
    assert fds == list(range(len(fds))), "no gaps, so that the limit is exact"
    subprocess.run(["prlimit", "--pid", str(e.pid), f"--nofile={len(fds) + left}:20000"], check=True)
    for _ in range(20):
        assert how_connecting_ends(port) == "reset"
    assert all(echoes(f) for f in flows)
    assert_idle(e, flows[0])
    subprocess.run(["prlimit", "--pid", str(e.pid), "--nofile=20000:20000"], check=True)
    if left:
        e.wait_flows(20, end="fault", end_side="edge")
    else:
        wait_metric(e, 20, "connections_refused_total", end="limit_fds")
        assert e.metric("accept_faults_total") >= 20
        assert len([w for w in warnings(e) if "the process has as many file descriptors as it may" in w]) == 1
    wait_until(lambda: not refused(port), what="it to work again")
    close(flows)


def test_rule_that_leads_back_to_itself_ends_at_the_limit(edge, origin):
    """Every connection makes the next, until there is no room; then all of them end."""
    loop, other = free_port(), free_port()
    e = edge(f"set node max_flows=50\ntcp:{loop} 127.0.0.1 {loop} off off\n"
             f"tcp:{other} 127.0.0.1 {origin.port} off off\n")
    for _ in range(3):
        assert how_connecting_ends(loop) == "reset"
        wait_metric(e, 0, "node_flows")
    assert e.metric("connections_refused_total", end="limit_node_flows") >= 3
    assert e.metric("flows_total") >= 150
    assert not refused(other)
