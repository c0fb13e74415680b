# SPDX-License-Identifier: Apache-2.0
"""A large configuration document is loaded and swapped while flows run. For the release build."""
import threading
import time

import pytest

from harness import TcpOrigin, UdpOrigin, connect, echoes, own_network, udp_client

RULES, ENTRIES, GROUPS, ORIGINS = 2000, 20, 200, 100
APPLY_MS = 500  # generous; the aim is 100
PAUSE_S = 1.0   # likewise: the longest that a flow may wait for an answer
TCP, UDP, ORIGIN = 1500, 1501, 1502  # everything else has ports from 2000 on


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


def document(version, shift=0, weight=100, groups="group"):
    """As many rules of each protocol, each with edge ports that lie nowhere together. The last of each is for our flows."""
    half = RULES // 2
    rules = []
    for protocol, ours in (("tcp", TCP), ("udp", UDP)):
        for i in range(half - 1):
            at = 2000 + (i * ENTRIES) * 2 + shift
            rules.append({"protocol": protocol, "edge_ports": [at + 2 * j for j in range(ENTRIES)],
                          "origin": f"og:{groups}-{i % GROUPS}", "origin_port": 1})
        rules.append({"protocol": protocol, "edge_ports": [ours], "origin": "127.0.0.1", "origin_port": ORIGIN})
    return {"version": version, "rules": rules, "origin_groups": [
        {"name": f"{groups}-{g}", "origins": [{"address": f"127.{1 + g}.1.{1 + o}", "port": ORIGIN, "weight": weight}
                                            for o in range(ORIGINS)]} for g in range(GROUPS)]}


def hashed(config):
    for group in config["origin_groups"]:
        group["algorithm"] = "source_hash"
    return config


class Watch:
    """A TCP flow and a UDP session that ask all the time; the longest that an answer took, in seconds."""

    def __init__(self):
        self.flows = [connect(TCP), udp_client(UDP)]
        self.stop = threading.Event()
        self.longest, self.asked, self.failures = 0.0, 0, []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.stop.is_set():
                for s in self.flows:
                    began = time.monotonic()
                    s.send(b"still there?")
                    assert s.recv(100) == b"still there?"
                    self.longest = max(self.longest, time.monotonic() - began)
                    self.asked += 1
                self.stop.wait(0.001)  # the edge needs the cores too
        except (OSError, AssertionError) as e:
            self.failures.append(repr(e))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join()
        for s in self.flows:
            s.close()


@pytest.mark.slow
@own_network()
def test_2000_rules_and_20000_origins_are_loaded_and_swapped_and_no_flow_notices(edge, figure):
    with TcpOrigin(address="0.0.0.0", port=ORIGIN), UdpOrigin(port=ORIGIN):
        began = time.monotonic()
        e = edge(None, config=document(1), metrics=False, wait=False)
        e.wait_ready(60)
        figure("start, ms", round((time.monotonic() - began) * 1000))
        figure("size of the document, bytes", len(e.control("config")))
        assert e.status()["ports"] == {"tcp": 999 * ENTRIES + 1, "udp": 999 * ENTRIES + 1}
        with Watch() as watch:
            changes = {"nothing": document(2), "all weights": document(3, weight=50),
                       "all edge ports": document(4, shift=1), "all groups": document(5, shift=1, groups="other"),
                       "the algorithm of all groups": hashed(document(6, shift=1, groups="other")),
                       "the order of all rules": (lambda d: {**d, "rules": d["rules"][::-1]})(
                           hashed(document(7, shift=1, groups="other")))}
            took = {}
            for what, config in changes.items():
                asked = watch.asked
                assert e.reload(config=config).startswith("ok")
                took[what] = e.status()["reloads"]["last_ms"]
                figure(f"reload that changes {what}, ms", took[what])
                assert watch.asked > asked or watch.failures
                with connect(2000 + (config["version"] >= 4)) as new:
                    assert echoes(new)
        figure("longest that a flow waited, ms", round(watch.longest * 1000, 1))
        assert watch.failures == []
        if not sanitized(e):
            assert max(took.values()) < APPLY_MS
            assert watch.longest < PAUSE_S
    assert {f["end"] for f in e.flows() if f["protocol"] == "tcp"} <= {"done"}
    assert e.status()["flows"] <= 2
