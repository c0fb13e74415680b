# SPDX-License-Identifier: Apache-2.0
"""Health checks of many origins: what they cost, how they are spread, and that they stay bounded when nobody answers.
For the release build."""
import collections
import os
import subprocess
import sys
import time

import pytest

from harness import free_port, own_network, wait_until

ORIGINS = 1000  # in each of two groups: as many as one group may have
GROUPS = 2
ALL = ORIGINS * GROUPS
PROBES_MAX = 1024  # under way at one time (src/edge/checker.h)
CPU_PERCENT = 2.0
BUCKET_S, BUCKET_SHARE = 0.010, 0.03

LISTENER = """
import socket, sys, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", int(sys.argv[1])))
s.listen(4096)
print("ready", flush=True)
while True:
    try:
        connection, _ = s.accept()
        now = time.monotonic()
        connection.close()
        print(f"{now:.4f}", flush=True)
    except ConnectionError:
        pass
"""


@pytest.fixture
def figure(record_property, capsys):
    def tell(name, value):
        record_property(name, value)
        with capsys.disabled():
            print(f"\n    {name}: {value}", end=" ")
    return tell


def sanitized(e):
    with open(f"/proc/{e.pid}/maps") as f:
        return "libasan" in f.read()


def document(port, **check):
    check = {"type": "tcp", "interval": "5s", "timeout": "2s", **check}
    return {"origin_groups": [
        {"name": f"group-{g}", "health_check": check,
         "origins": [{"address": f"127.{10 + g}.{i // 250}.{i % 250 + 1}", "port": port} for i in range(ORIGINS)]}
        for g in range(GROUPS)],
        "rules": [{"protocol": "tcp", "edge_ports": [free_port()], "origin": f"og:group-{g}", "origin_port": 1}
                  for g in range(GROUPS)]}


def cpu_s(e):
    """User and system time of all threads so far."""
    with open(f"/proc/{e.pid}/stat") as f:
        user, system = f.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Probes:
    """When the listener accepted each."""

    def __init__(self, listener):
        self.listener = listener

    def times(self):
        return [float(line) for line in self.listener.output().split("\n")[1:-1]]


@pytest.fixture
def listener(program):
    def start(port):
        p = program([sys.executable, "-c", LISTENER, port])
        wait_until(lambda: "ready" in p.output(), what="the listener")
        return Probes(p)
    return start


@pytest.mark.slow
def test_2000_origins_are_checked_cheaply_and_one_after_the_other(edge, listener, figure):
    port, interval, measured = free_port(), 5.0, 15.0
    probes = listener(port)
    e = edge(None, config=document(port))
    wait_until(lambda: e.metric("origin_checks_total") >= ALL * 1.2, 20, "the first checks")
    before, began, checks = cpu_s(e), time.monotonic(), e.metric("origin_checks_total")
    wait_until(lambda: time.monotonic() >= began + measured, measured + 5, "the time of the measurement")
    used, ended = cpu_s(e) - before, time.monotonic()
    percent = 100 * used / (ended - began)
    checks = e.metric("origin_checks_total") - checks
    figure("CPU of checks of 2000 origins each 5 s, % of a core", round(percent, 2))
    figure("CPU of one check, us", round(used / checks * 1e6, 1))
    times = [t for t in probes.times() if began <= t < ended]
    figure("probes in that time", len(times))
    assert 0.9 <= len(times) / (ALL * measured / interval) <= 1.1
    buckets = collections.Counter(int(t / BUCKET_S) for t in times)
    figure("most probes in 10 ms", max(buckets.values()))
    assert max(buckets.values()) <= BUCKET_SHARE * ALL
    seconds = collections.Counter(int(t - began) for t in times)
    figure("probes in each second", sorted(seconds[s] for s in range(int(measured))))
    assert all(0.5 <= seconds[s] * interval / ALL <= 1.5 for s in range(int(measured)))
    assert e.metric("origin_up") == ALL and e.metric("origin_checks_failed_total") == 0
    assert percent < CPU_PERCENT or sanitized(e)


@pytest.mark.slow
def test_when_nobody_listens_all_are_down_soon_and_no_descriptor_stays_open(edge, listener, figure):
    port = free_port()
    e = edge(None, config=document(port, interval="1s", rise=1, fall=2))
    fds, most = e.fds(), 0

    def down():
        nonlocal most
        most = max(most, e.fds())
        return e.metric("origin_up") == 0
    wait_until(down, 20, "all to be down")
    figure("descriptors at most, beside those at rest", most - fds)
    assert most <= fds + 100  # a refusal comes at once
    assert {o["reason"] for o in e.status()["origins"]} == {"connect_refused"}
    listener(port)
    wait_until(lambda: e.metric("origin_up") == ALL, 20, "all to be up again")
    wait_until(lambda: e.fds() <= fds + 100, what="the descriptors to be closed")


def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


@pytest.mark.slow
@own_network()
def test_when_nobody_answers_no_more_probes_wait_than_there_may_be(edge, program, figure):
    """All SYNs are lost, and time-outs are longer than intervals: more probes would be under way than there may be."""
    port = free_port()
    p = program([sys.executable, "-c", LISTENER, port])
    wait_until(lambda: "ready" in p.output(), what="the listener")
    nft(f"table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {port} drop; }}; }};")
    e = edge(None, config=document(port, interval="1s", timeout="1500ms", rise=1, fall=2))
    fds, most = e.fds(), 0

    def down():
        nonlocal most
        most = max(most, e.fds())
        return e.metric("origin_up") == 0
    wait_until(down, 30, "all to be down")
    figure("descriptors at most, beside those at rest", most - fds)
    assert PROBES_MAX - 150 <= most - fds <= PROBES_MAX + 10
    assert {o["reason"] for o in e.status()["origins"]} == {"connect_timeout"}
    rounds = e.metric("origin_checks_total")
    wait_until(lambda: e.metric("origin_checks_total") >= rounds + 2 * ALL, 30, "two more rounds")
    assert e.fds() - fds <= PROBES_MAX + 10
    nft("flush ruleset")
    wait_until(lambda: e.metric("origin_up") == ALL, 20, "all to be up again")
    wait_until(lambda: e.fds() <= fds + 100, what="the descriptors to be closed")
