# SPDX-License-Identifier: Apache-2.0
"""Many flows at once, and many one after the other. Meant for the release build: TIDEGATE_EDGE=build/release/tidegate-edge.
Figures are printed (-s shows them) and kept in the junit file as properties."""
import json
import os
import subprocess
import sys

import pytest

from harness import BUILD, ROOT, free_port, wait_until

PEERS = os.path.join(os.path.dirname(__file__), "peers.py")
LOAD, LOAD_SOURCE = os.path.join(BUILD, "bench-load"), os.path.join(ROOT, "bench", "load.c")
FLOWS = 5000
IDLE_TCP_FLOW_BYTES = 512
GROWTH_BYTES = 2 << 20  # of a process that has done the same before


class Clients:
    """peers.py clients; each command waits for its answer."""

    def __init__(self, port):
        self.process = subprocess.Popen([sys.executable, PEERS, "clients", str(port)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "ok"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def origin(program):
    port = free_port()
    p = program([sys.executable, PEERS, "origin", port])
    wait_until(lambda: "ready" in p.output(), what="the origin")
    return port


@pytest.fixture
def figure(record_property, capsys):
    def tell(name, value):
        record_property(name, value)
        with capsys.disabled():
            print(f"\n    {name}: {value}", end=" ")
    return tell


def rules(port, origin, udp=""):
    # one client address stands for all of them, so its limits are those of the node
    return (f"set rule client_max_flows=0 client_new_flows_per_s=0\ntcp:{port} 127.0.0.1 {origin} off off\n"
            f"udp:{port} 127.0.0.1 {origin} off off {udp}\n")


def sanitized(e):
    """A build with the address sanitizer keeps what is freed for a while: its memory says nothing."""
    with open(f"/proc/{e.pid}/maps") as f:
        return "libasan" in f.read()


def wait_quiet(e):
    wait_until(lambda: e.metric("flows_active") == 0, 30, "all flows to end")


@pytest.mark.slow
def test_5000_connections_and_5000_sessions_at_once_are_all_answered(edge, origin, figure):
    port = free_port()
    e = edge(rules(port, origin))
    assert e.metric("fds_max") >= 3 * FLOWS
    before = e.fds()
    with Clients(port) as clients:
        clients(f"open tcp {FLOWS}")
        clients(f"open udp {FLOWS}")
        clients("ask 3")
        assert (e.metric("flows_active", protocol="tcp"), e.metric("flows_active", protocol="udp")) == (FLOWS, FLOWS)
        assert 3 * FLOWS <= e.fds() - before <= 3 * FLOWS + 10
        figure("memory with all of them, bytes", e.rss_bytes())
        clients("ask 8")  # by now the kernel may carry the sessions
        figure("sessions on the fast path", int(e.metric("udp_fast_sessions_total")))
        clients("close tcp")
        clients("ask 2")  # the sessions are still there
        flows = e.wait_flows(FLOWS, timeout=30, protocol="tcp")
        assert {f["end"] for f in flows} == {"done"}
        assert {(f["bytes_in"], f["bytes_out"]) for f in flows} <= {(n, n) for n in range(11 * 10, 11 * 16)}
        assert e.metric("datagrams_dropped_total") == 0
    e.stop_clean()
    sessions = [f for f in e.flows() if f["protocol"] == "udp"]
    assert len(sessions) == FLOWS
    assert {(f["datagrams_in"], f["datagrams_out"], f["end"]) for f in sessions} == {(13, 13, "shutdown")}


@pytest.mark.slow
@pytest.mark.parametrize("kind, bound", [("tcp", IDLE_TCP_FLOW_BYTES), ("udp", 1024)])
def test_an_idle_flow_takes_little_memory(edge, origin, figure, kind, bound):
    port = free_port()
    e = edge(rules(port, origin))
    with Clients(port) as clients:
        clients(f"open {kind} 50")
        clients("ask 1")
        before = e.rss_bytes()
        clients(f"open {kind} {FLOWS}")
        clients("ask 1")
        wait_until(lambda: e.metric("flows_active", protocol=kind) == FLOWS + 50, what="all flows")
        each = (e.rss_bytes() - before) / FLOWS
        figure(f"an idle {kind} flow, bytes", round(each))
        assert each <= bound or sanitized(e)


@pytest.fixture
def load():
    """The load generator of the benchmark."""
    if not os.path.exists(LOAD) or os.path.getmtime(LOAD) < os.path.getmtime(LOAD_SOURCE):
        subprocess.run(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-o", LOAD, LOAD_SOURCE, "-pthread"], check=True)

    def run(port, seconds):
        out = subprocess.check_output([LOAD, "tcp-crr", "--to", f"127.0.0.1:{port}", "--concurrency", "32", "--seconds",
                                       str(seconds)])
        return json.loads(out.splitlines()[-1])
    return run


@pytest.mark.slow
def test_100000_short_connections_leave_nothing_behind(edge, program, load, figure):
    port, to, goal = free_port(), free_port(), 100_000
    program([LOAD, "origin", "--port", to]).wait_port(to)
    e = edge(f"set rule client_max_flows=0 client_new_flows_per_s=0\ntcp:{port} 127.0.0.1 {to} off off\n")
    start_fds = e.fds()

    def connections(count):
        goal = e.metric("flows_total") + count
        while e.metric("flows_total") < goal:
            assert load(port, 1)["errors"] == 0
        wait_quiet(e)

    connections(1)  # one second of them
    before = e.rss_bytes()
    connections(goal)
    growth = e.rss_bytes() - before
    figure("connections", int(e.metric("flows_total")))
    figure("memory grown by, bytes", growth)
    assert growth < GROWTH_BYTES or sanitized(e)
    wait_until(lambda: e.fds() == start_fds, what="the descriptors to be closed")
    assert e.metric("node_flows") == 0
    assert e.metric("flows_ended_total") == e.metric("flows_total")


@pytest.mark.slow
@pytest.mark.parametrize("option, end", [("answers=1", "answered"), ("idle_timeout=1s", "idle")])
def test_100000_udp_sessions_leave_nothing_behind(edge, origin, figure, option, end):
    port, at_once, waves = free_port(), 10_000, 10
    e = edge(rules(port, origin, option))
    start_fds = e.fds()
    with Clients(port) as clients:
        clients(f"open udp {at_once}")
        clients("ask 1")
        wait_quiet(e)
        before = e.rss_bytes()
        for _ in range(waves):
            clients("ask 1")
            wait_quiet(e)
        growth = e.rss_bytes() - before
        figure("memory grown by, bytes", growth)
        assert growth < GROWTH_BYTES or sanitized(e)
    assert e.metric("flows_total") == e.metric("flows_ended_total", end=end) == (waves + 1) * at_once
    assert e.metric("datagrams_dropped_total") == 0
    # answers leave by one socket for the port in each of the two workers, which stays open for the next session
    wait_until(lambda: e.fds() - start_fds <= 2, what="all other descriptors to be closed")
    assert e.metric("node_flows") == 0
