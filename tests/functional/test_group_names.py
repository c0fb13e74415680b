# SPDX-License-Identifier: Apache-2.0
"""Groups whose origins are names: answers that change under load, that fail, that meet, and that are very long."""
import collections
import threading
import time

import pytest

from dns_server import NXDOMAIN, SERVFAIL, DnsServer
from harness import TcpOrigin, UdpOrigin, connect, free_port, recv_exactly, udp_client, wait_metric, wait_until

NAME = "origin.test"
CHECK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 2}
ADDRESSES = [f"127.0.3.{i}" for i in range(1, 5)]


@pytest.fixture
def dns():
    with DnsServer() as server:
        yield server


class Origins:
    """TCP and UDP servers on one port of several addresses, each telling its address to whoever asks."""

    def __init__(self, addresses):
        self.port = free_port()
        self.servers = {a: [TcpOrigin(lambda c, peer, a=a: self.tell(c, a), a, self.port),
                            UdpOrigin(lambda data, peer, a=a: [a.encode()], a, self.port)] for a in addresses}

    @staticmethod
    def tell(connection, address):
        while connection.recv(4096):
            connection.sendall(address.encode().ljust(16))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for pair in self.servers.values():
            for server in pair:
                server.close()


@pytest.fixture
def origins():
    with Origins(ADDRESSES) as o:
        yield o


def ask_tcp(client):
    client.sendall(b"who?")
    return recv_exactly(client, 16).decode().strip()


def ask_udp(client):
    client.send(b"who?")
    return client.recv(100).decode()


def ask_new(port):
    with connect(port) as client:
        return ask_tcp(client)


def asked_new(port):
    try:
        return ask_new(port)
    except OSError:
        return None


def config_of(dns, port, members, check=None, **settings):
    """One group under a TCP and a UDP rule of one port. Members are origins, with at least an address."""
    group = {"name": "named", **({"health_check": check} if check else {}), **settings, "origins": members}
    return {"node": {"resolvers": [f"{dns.address}:{dns.port}"], "resolve_min": "100ms"}, "origin_groups": [group],
            "rules": [{"protocol": p, "edge_ports": [port], "origin": "og:named", "origin_port": 1} for p in ("tcp", "udp")]}


def wait_resolved(e):
    wait_until(lambda: e.status()["names"]["unresolved"] == 0, what="the names' first answers")


class Load:
    """Threads that open connections all the time, and UDP sessions that ask all the time."""

    def __init__(self, port, threads=8, sessions=8):
        self.port, self.failures, self.done = port, [], collections.Counter()
        self.stop = threading.Event()
        self.udp = [udp_client(port) for _ in range(sessions)]
        self.homes = [ask_udp(c) for c in self.udp]
        self.sessions_asked = 0
        self.threads = [threading.Thread(target=self.guard, args=(self.connections,)) for _ in range(threads)]
        self.threads.append(threading.Thread(target=self.guard, args=(self.sessions,)))
        for t in self.threads:
            t.start()

    def guard(self, work):
        try:
            while not self.stop.is_set() and not self.failures:
                work()
        except (OSError, AssertionError) as e:
            self.failures.append(repr(e))

    def connections(self):
        with connect(self.port) as c:
            names = {ask_tcp(c) for _ in range(3)}
            assert len(names) == 1, f"a connection that changed its origin: {names}"
        self.done[names.pop()] += 1

    def sessions(self):
        homes = [ask_udp(c) for c in self.udp]
        assert homes == self.homes, f"sessions that changed their origin: {homes} instead of {self.homes}"
        self.sessions_asked += 1
        self.stop.wait(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop.set()
        for t in self.threads:
            t.join()
        for c in self.udp:
            c.close()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["round_robin", "source_hash", "least_connections"])
@pytest.mark.parametrize("check", [None, CHECK], ids=["unchecked", "checked"])
def test_an_answer_that_changes_under_load_costs_no_connection_and_moves_no_session(edge, dns, origins, check, algorithm):
    port = free_port()
    sets = [ADDRESSES[0:2], ADDRESSES[1:3], ADDRESSES[2:4]]
    dns.set(NAME, *sets[0], ttl=0)
    e = edge(None, config=config_of(dns, port, [{"address": NAME, "port": origins.port}], check, algorithm=algorithm))
    wait_resolved(e)
    with Load(port) as load:
        for i in range(1, 13):
            addresses = sets[i % 3]
            changed = time.monotonic()
            dns.set(NAME, *addresses, ttl=0)
            wait_until(lambda: load.failures or {o for o, s in e.origins().items() if s["enabled"]} ==
                       {f"{a}:{origins.port}" for a in addresses}, what="the new answer")
            assert time.monotonic() - changed < 2  # resolve_min, and a busy machine
            before = collections.Counter(load.done)
            wait_until(lambda: load.failures or sum((load.done - before).values()) > 3 * 8, what="more connections")
            since = collections.Counter(load.done)
            wait_until(lambda: load.failures or (sum((load.done - since).values()) > 20 and
                                                 time.monotonic() - changed > 0.5), what="more connections")
            assert load.failures == []
            assert set(load.done - since) <= set(addresses)  # flows from before the change have ended
    assert load.failures == []
    assert set(load.done) == set(ADDRESSES) or algorithm == "source_hash"
    assert load.sessions_asked > 100
    wait_metric(e, 0, "flows_active", protocol="tcp")
    assert {f["end"] for f in e.flows() if f["protocol"] == "tcp"} == {"done"}
    assert e.metric("udp_sessions_moved_total") == 0
    assert e.metric("flows_total", protocol="udp") == 8


@pytest.mark.parametrize("failure", ["NXDOMAIN", "SERVFAIL", "no address", "silent"])
def test_a_name_that_stops_resolving_keeps_its_last_answer(edge, dns, origins, failure):
    port = free_port()
    dns.set(NAME, *ADDRESSES[:2], ttl=0)
    config = config_of(dns, port, [{"address": NAME, "port": origins.port}, {"address": ADDRESSES[3], "port": origins.port}],
                       CHECK)
    e = edge(None, config=config)
    wait_resolved(e)
    with udp_client(port) as session:
        home = ask_udp(session)
        if failure == "silent":
            dns.silence()
            dns.wait_queries(1, NAME)
        else:
            dns.set(NAME, code={"NXDOMAIN": NXDOMAIN, "SERVFAIL": SERVFAIL, "no address": 0}[failure])
            wait_until(lambda: e.status()["names"]["failures"] >= 2, what="failed lookups")
        everybody = {*ADDRESSES[:2], ADDRESSES[3]}
        assert {ask_new(port) for _ in range(12)} == everybody
        config["rules"][0]["tag"] = "reloaded"
        assert e.reload(config=config).startswith("ok")
        assert {ask_new(port) for _ in range(12)} == everybody
        assert {s["state"] for s in e.origins().values()} == {"up"} and len(e.origins()) == 3
        assert ask_udp(session) == home
        dns.speak()
        dns.set(NAME, ADDRESSES[2], ttl=0)
        wait_until(lambda: set(e.origins()) >= {f"{ADDRESSES[2]}:{origins.port}"}, what="the next answer")
        wait_until(lambda: {ask_new(port) for _ in range(6)} == set(ADDRESSES[2:]), what="it on all workers")
        assert ask_udp(session) == home


def test_origins_that_resolve_to_one_address_are_one_with_the_weight_of_all(edge, dns, origins):
    port = free_port()
    dns.set("one.test", ADDRESSES[0], ttl=0)
    dns.set("two.test", ADDRESSES[0], ADDRESSES[1], ttl=0)
    members = [{"address": "one.test", "port": origins.port, "weight": 20},
               {"address": "two.test", "port": origins.port, "weight": 20},  # shared by its two addresses
               {"address": ADDRESSES[0], "port": origins.port, "weight": 20},
               {"address": ADDRESSES[2], "port": origins.port, "weight": 40}]
    e = edge(None, config=config_of(dns, port, members, CHECK), workers=1)
    wait_resolved(e)
    assert sorted(e.origins()) == [f"{a}:{origins.port}" for a in ADDRESSES[:3]] and len(e.status()["origins"]) == 3
    seen = collections.Counter(ask_new(port) for _ in range(100))
    assert seen == {ADDRESSES[0]: 50, ADDRESSES[1]: 10, ADDRESSES[2]: 40}
    with connect(port) as c:
        while ask_tcp(c) != ADDRESSES[0]:
            c.close()
            c = connect(port)
        dns.set("one.test", ADDRESSES[3], ttl=0)  # one of the three leaves: the address stays
        wait_until(lambda: len(e.origins()) == 4, what="the new answer")
        seen = collections.Counter(ask_new(port) for _ in range(100))
        assert seen == {ADDRESSES[0]: 30, ADDRESSES[1]: 10, ADDRESSES[2]: 40, ADDRESSES[3]: 20}
        assert ask_tcp(c) == ADDRESSES[0]
        c.close()


@pytest.mark.parametrize("algorithm", ["round_robin", "source_hash", "least_connections"])
def test_answers_may_be_longer_than_a_group(edge, dns, origins, algorithm):
    """Far more addresses than there may be origins: as many as are allowed are used."""
    port, names = free_port(), 40
    for i in range(names):
        dns.set(f"n{i}.test", *ADDRESSES, *(f"127.9.{i}.{j}" for j in range(1, 61)), ttl=0)
    members = [{"address": f"n{i}.test", "port": origins.port} for i in range(names)]
    members.append({"address": "127.0.3.99", "port": origins.port})
    config = config_of(dns, port, members, algorithm=algorithm)
    config["rule_defaults"] = {"connect_tries": 16}
    e = edge(None, config=config)
    wait_resolved(e)
    used = {o["origin"] for o in e.status()["origins"] if o["enabled"]}
    assert len(used) == 1024 and f"127.0.3.99:{origins.port}" in used  # what the configuration gives itself always is
    assert all(any(o.startswith(f"127.9.{i}.") for o in used) for i in range(names))  # and something of every name
    assert "group named: its names have more addresses than the 1024 that a group may have" in e.stderr()
    ended = e.metric("flows_ended_total")
    for i in range(8):
        connect(port, source=f"127.44.0.{i + 1}").close()
    wait_until(lambda: e.metric("flows_ended_total") >= ended + 8, what="the flows to end")
    for i in range(names):
        dns.set(f"n{i}.test", ADDRESSES[i % 4], ttl=0)
    wait_until(lambda: {o["origin"] for o in e.status()["origins"] if o["enabled"]} ==
               {f"{a}:{origins.port}" for a in [*ADDRESSES, "127.0.3.99"]}, what="the short answers")
    wait_until(lambda: asked_new(port) in ADDRESSES, what="the short answers on the workers")
    assert {ask_new(port) for _ in range(8)} <= set(ADDRESSES)
