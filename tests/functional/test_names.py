# SPDX-License-Identifier: Apache-2.0
"""Origins given by name: lookups, TTLs, failing resolvers, and how flows are spread over a name's addresses."""
import collections
import socket
import time

import pytest

from dns_server import NXDOMAIN, REFUSED, SERVFAIL, A, AAAA, DnsServer
from harness import TcpOrigin, UdpOrigin, connect, free_port, recv_exactly, reset, udp_client, wait_until

NAME = "origin.test"


@pytest.fixture
def dns():
    with DnsServer() as server:
        yield server


class Origins:
    """TCP and UDP servers on one port of several addresses, each telling its own address to whoever asks."""

    def __init__(self, *addresses):
        self.port = free_port()
        self.servers = []
        for a in addresses:
            self.servers.append(TcpOrigin(lambda c, peer, a=a: self.tell(c, a), a, self.port))
            self.servers.append(UdpOrigin(lambda data, peer, a=a: [a.encode()], a, self.port))

    @staticmethod
    def tell(connection, address):
        while connection.recv(4096):
            connection.sendall(address.encode().ljust(16))

    def close(self):
        for server in self.servers:
            server.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def ask(client):
    """Which origin a client is connected with."""
    client.send(b"who?")
    if client.type == socket.SOCK_STREAM:
        return recv_exactly(client, 16).decode().strip()
    return client.recv(100).decode()


def open_client(protocol, port, source=None):
    return (connect if protocol == "tcp" else udp_client)(port, source=source)


def ask_new(protocol, port, source=None):
    with open_client(protocol, port, source) as client:
        return ask(client)


def ask_many(protocol, port, count):
    """Which origins so many clients get. All are open at once: UDP clients must not use each other's ports and sessions."""
    clients = [open_client(protocol, port) for _ in range(count)]
    origins = [ask(c) for c in clients]
    for c in clients:
        c.close()
    return origins


def wait_resolved(e):
    wait_until(lambda: e.status()["names"]["unresolved"] == 0, what="the names' first answers")


def start(edge, dns, rules, *args, settings="resolve_min=100ms", **kwargs):
    return edge(f"set node {dns.setting} {settings}\n" + rules, *args, **kwargs)


# --- lookups ---

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_addresses_of_both_families_are_used(edge, dns, protocol):
    port = free_port()
    with Origins("127.0.0.1", "::1") as origins:
        dns.set(NAME, "127.0.0.1", "::1")
        e = start(edge, dns, f"{protocol}:{port} {NAME} {origins.port} off off\n")
        wait_resolved(e)
        assert {ask_new(protocol, port) for _ in range(8)} == {"127.0.0.1", "::1"}
    assert {q[2] for q in dns.queries} == {A, AAAA}


@pytest.mark.parametrize("missing, code", [(A, SERVFAIL), (AAAA, SERVFAIL), (AAAA, NXDOMAIN), (AAAA, REFUSED)])
def test_an_error_for_one_family_does_not_lose_the_other(edge, dns, missing, code):
    port = free_port()
    address = "::1" if missing == A else "127.0.0.1"
    with Origins(address) as origins:
        dns.set(NAME, address, codes={missing: code})
        start(edge, dns, f"tcp:{port} {NAME} {origins.port} off off\n")
        assert ask_new("tcp", port) == address


def test_a_new_answer_is_used_after_the_ttl_and_running_flows_are_not_touched(edge, dns):
    port = free_port()
    with Origins("127.0.0.2", "127.0.0.3") as origins:
        dns.set(NAME, "127.0.0.2", ttl=2)
        e = start(edge, dns, f"tcp:{port} {NAME} {origins.port} off off\nudp:{port} {NAME} {origins.port} off off\n")
        wait_resolved(e)
        running = [open_client("tcp", port), open_client("udp", port)]
        assert [ask(c) for c in running] == ["127.0.0.2"] * 2
        changed = time.monotonic()
        dns.set(NAME, "127.0.0.3", ttl=2)
        assert ask_new("tcp", port) == "127.0.0.2"  # not before
        wait_until(lambda: ask_new("tcp", port) == "127.0.0.3", what="the new address")
        wait_until(lambda: ask_new("udp", port) == "127.0.0.3", what="the new address")
        assert time.monotonic() - changed < 3.5
        assert [ask(c) for c in running] == ["127.0.0.2"] * 2
        for c in running:
            c.close()
    times = [q[0] for q in dns.queries if q[2] == A]
    assert times[1] - times[0] >= 1.9


@pytest.mark.parametrize("ttl, settings, low, high", [
    (3600, "resolve_max=1s", 0.95, 1.5),
    (1, "resolve_min=2s", 1.95, 2.5),
    (0, "resolve_min=200ms", 0.15, 0.7),  # "do not keep this": as often as is allowed
], ids=["not later than resolve_max", "not sooner than resolve_min", "TTL of zero"])
def test_the_ttl_is_kept_within_limits(edge, dns, ttl, settings, low, high):
    dns.set(NAME, "127.0.0.1", ttl=ttl)
    e = start(edge, dns, f"tcp:{free_port()} {NAME} 80 off off\n", settings=settings)
    wait_resolved(e)
    dns.wait_queries(1, NAME, timeout=4)
    times = [q[0] for q in dns.queries if q[2] == A]
    assert low <= times[1] - times[0] <= high


def test_a_cname_is_followed_and_its_ttl_counts_too(edge, dns):
    port = free_port()
    with Origins("127.0.0.2", "127.0.0.3") as origins:
        dns.set(NAME, "127.0.0.2", ttl=3600, cname="lb-1.cloud.test", cname_ttl=1)
        start(edge, dns, f"tcp:{port} {NAME} {origins.port} off off\n")
        assert ask_new("tcp", port) == "127.0.0.2"
        dns.set(NAME, "127.0.0.3", ttl=3600, cname="lb-2.cloud.test", cname_ttl=1)
        wait_until(lambda: ask_new("tcp", port) == "127.0.0.3", 4, "the new target of the CNAME")


def test_an_answer_too_long_for_udp_comes_by_tcp(edge, dns):
    port = free_port()
    addresses = [f"127.0.1.{i}" for i in range(1, 65)]
    with Origins(*addresses[:2]) as origins:
        dns.set(NAME, *addresses)
        e = start(edge, dns, f"tcp:{port} {NAME} {origins.port} off off connect_tries=16\n", workers=1)
        wait_resolved(e)
        assert "tcp" in {q[3] for q in dns.queries}
        assert [ask_new("tcp", port) for _ in range(2)] == addresses[:2]


@pytest.mark.parametrize("count", [64, 65, 200])
def test_of_very_many_addresses_64_are_used(edge, dns, count):
    port = free_port()
    addresses = [f"127.0.2.{i}" for i in range(1, count + 1)]
    with Origins(*addresses) as origins:
        dns.set(NAME, *addresses)
        e = start(edge, dns, f"udp:{port} {NAME} {origins.port} off off\n", workers=1)
        wait_resolved(e)
        assert len(set(ask_many("udp", port, count))) == min(count, 64)


@pytest.mark.parametrize("failure", ["silent", "NXDOMAIN", "SERVFAIL", "no address", "server gone"])
def test_the_last_good_answer_stays_when_lookups_fail(edge, dns, failure):
    port = free_port()
    with Origins("127.0.0.2") as origins:
        dns.set(NAME, "127.0.0.2", ttl=1)
        e = start(edge, dns, f"tcp:{port} {NAME} {origins.port} off off\n")
        assert ask_new("tcp", port) == "127.0.0.2"
        if failure == "silent":
            dns.silence()
            dns.wait_queries(1, NAME)
        elif failure == "server gone":
            dns.close()
            wait_until(lambda: e.status()["names"]["failures"] >= 1, what="failed lookups")
        else:
            code = {"NXDOMAIN": NXDOMAIN, "SERVFAIL": SERVFAIL, "no address": 0}[failure]
            dns.set(NAME, code=code)
            wait_until(lambda: e.status()["names"]["failures"] >= 2, what="failed lookups")
            assert f"name {NAME}: " in e.stderr() and "its last good answer stays" in e.stderr()
        assert [ask_new("tcp", port) for _ in range(4)] == ["127.0.0.2"] * 4


def test_lookups_go_on_after_failures_and_take_the_new_answer(edge, dns):
    port = free_port()
    with Origins("127.0.0.2", "127.0.0.3") as origins:
        dns.set(NAME, "127.0.0.2", ttl=1)
        e = start(edge, dns, f"tcp:{port} {NAME} {origins.port} off off\n")
        assert ask_new("tcp", port) == "127.0.0.2"
        dns.set(NAME, code=SERVFAIL)
        wait_until(lambda: e.status()["names"]["failures"] >= 2, what="failed lookups")
        dns.set(NAME, "127.0.0.3")
        wait_until(lambda: ask_new("tcp", port) == "127.0.0.3", what="the new answer")


def test_the_second_server_is_asked_when_the_first_is_silent(edge, dns):
    port = free_port()
    with Origins("127.0.0.2") as origins, DnsServer() as dead:
        dead.silence()
        dns.set(NAME, "127.0.0.2")
        edge(f"set node resolvers=127.0.0.1:{dead.port},127.0.0.1:{dns.port}\n"
             f"tcp:{port} {NAME} {origins.port} off off connect_timeout=10s\n")
        assert ask_new("tcp", port) == "127.0.0.2"
    assert dead.count(NAME) >= 1


def test_localhost_comes_from_etc_hosts_and_not_from_dns(edge, dns):
    port = free_port()
    with Origins("127.0.0.1", "::1") as origins:
        e = start(edge, dns, f"tcp:{port} localhost {origins.port} off off\nudp:{port} localhost {origins.port} off off\n")
        wait_resolved(e)
        assert ask_new("tcp", port) in ("127.0.0.1", "::1")
        assert ask_new("udp", port) in ("127.0.0.1", "::1")
    assert dns.queries == []


def test_one_name_in_many_rules_is_looked_up_once(edge, dns):
    dns.set(NAME, "127.0.0.1", ttl=3600)
    ports = [free_port() for _ in range(4)]
    e = start(edge, dns, f"tcp:{ports[0]} {NAME} 80 off off\ntcp:{ports[1]} {NAME.upper()} 80 off off\n"
              f"udp:{ports[2]} {NAME} 81 on off\nudp:{ports[3]} Origin.Test 82 off off\n")
    wait_resolved(e)
    assert e.status()["names"] == {"in_use": 1, "unresolved": 0, "lookups": 1, "failures": 0}
    assert dns.count() == 1


# --- before the first answer, and without any ---

def test_a_connection_before_the_first_answer_waits_for_it(edge, dns):
    port = free_port()
    with Origins("127.0.0.2") as origins:
        dns.hold()
        dns.set(NAME, "127.0.0.2")
        e = start(edge, dns, f"tcp:{port} {NAME} {origins.port} off ppv1\n")
        clients = [connect(port) for _ in range(8)]
        for c in clients:
            c.sendall(b"who?")
        wait_until(lambda: e.metric("flows_active") == 8 and dns.held, what="waiting flows")
        dns.speak()
        assert [recv_exactly(c, 16).strip() for c in clients] == [b"127.0.0.2"] * 8
        for c in clients:
            c.close()
        flows = e.wait_flows(8)
    assert {(f["end"], f["bytes_in"], f["bytes_out"]) for f in flows} <= {("done", 4, 16), ("done", 4, 32)}


def test_a_client_that_leaves_while_it_waits_ends_its_flow(edge, dns):
    port = free_port()
    dns.hold()
    e = start(edge, dns, f"tcp:{port} {NAME} 80 off off connect_timeout=60s\n")
    c = connect(port)
    wait_until(lambda: e.metric("flows_active") == 1, what="the flow")
    reset(c)
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["origin"]) == ("client_reset", None)


@pytest.mark.parametrize("failure", ["silent", "NXDOMAIN"])
def test_a_connection_for_a_name_without_address_ends_after_connect_timeout(edge, dns, failure):
    port = free_port()
    if failure == "silent":
        dns.silence()
    e = start(edge, dns, f"tcp:{port} {NAME} 80 off off connect_timeout=300ms\n")
    with pytest.raises(ConnectionResetError), connect(port) as c:
        c.recv(1)
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["origin"], flow["connect_ms"]) == ("no_origin", "origin", None, None)
    assert 300 <= flow["duration_ms"] < 800
    assert e.status()["names"]["unresolved"] == 1


def test_a_datagram_for_a_name_without_address_is_dropped_and_counted(edge, dns):
    port = free_port()
    dns.silence()
    with Origins("127.0.0.2") as origins:
        dns.set(NAME, "127.0.0.2")
        e = start(edge, dns, f"udp:{port} {NAME} {origins.port} off off\n")
        with udp_client(port) as c:
            c.send(b"too early")
            wait_until(lambda: e.metric("datagrams_dropped_total", reason="no_origin") == 1, what="the drop")
            assert e.metric("flows_ended_total", end="no_session") == 1 and e.metric("flows_active") == 0
            dns.speak()
            wait_resolved(e)
            assert ask(c) == "127.0.0.2"
        assert e.flows() == []  # no flow was begun, so none is logged


# --- spreading over the addresses ---

@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("workers", [1, 2])
def test_without_persistence_flows_go_round(edge, dns, protocol, workers):
    port, addresses = free_port(), ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    with Origins(*addresses) as origins:
        dns.set(NAME, *addresses)
        e = start(edge, dns, f"{protocol}:{port} {NAME} {origins.port} off off\n", workers=workers)
        wait_resolved(e)
        seen = collections.Counter(ask_many(protocol, port, 60))
    assert sorted(seen) == addresses
    assert max(seen.values()) - min(seen.values()) <= workers  # each worker goes round by itself


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_with_persistence_a_client_address_keeps_its_origin(edge, dns, protocol):
    port, addresses = free_port(), ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    clients = [f"127.{i % 5 + 1}.{i}.{i * 7 % 256}" for i in range(90)]
    with Origins(*addresses) as origins:
        dns.set(NAME, *addresses)
        e = start(edge, dns, f"{protocol}:{port} {NAME} {origins.port} on off\n")
        wait_resolved(e)
        homes = {c: ask_new(protocol, port, c) for c in clients}
        for _ in range(3):
            assert {c: ask_new(protocol, port, c) for c in clients} == homes
        spread = collections.Counter(homes.values())
        assert sorted(spread) == addresses and min(spread.values()) >= 15  # 30 each on average

        dns.set(NAME, *addresses[:2])  # losing an address moves its own clients only
        lost = next(c for c in clients if homes[c] == addresses[2])
        wait_until(lambda: ask_new(protocol, port, lost) != addresses[2], what="the shorter answer")
        wait_until(lambda: all(ask_new(protocol, port, lost) != addresses[2] for _ in range(8)), what="it on all workers")
        after = {c: ask_new(protocol, port, c) for c in clients}
        assert {c: o for c, o in after.items() if homes[c] != addresses[2]} == \
            {c: o for c, o in homes.items() if o != addresses[2]}
        moved = collections.Counter(after[c] for c in clients if homes[c] == addresses[2])
        assert sorted(moved) == addresses[:2]

        dns.set(NAME, *addresses)  # when it is back, new clients go there; who has moved stays where it is now
        new = (f"127.77.{i // 200}.{i % 200 + 1}" for i in range(2000))
        wait_until(lambda: ask_new(protocol, port, next(new)) == addresses[2], what="the longer answer")
        assert {c: ask_new(protocol, port, c) for c in clients} == after


def test_persistence_is_the_same_after_a_restart_and_for_every_rule(edge, dns):
    addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    clients = [f"127.9.0.{i}" for i in range(1, 20)]
    homes = []
    with Origins(*addresses) as origins:
        dns.set(NAME, *addresses)
        for protocol in ("tcp", "tcp", "udp"):
            port = free_port()
            e = start(edge, dns, f"{protocol}:{port} {NAME} {origins.port} on off\n")
            wait_resolved(e)
            homes.append([ask_new(protocol, port, c) for c in clients])
            e.stop_clean()
    assert homes[0] == homes[1] == homes[2]


@pytest.mark.parametrize("persistence", ["on", "off"])
def test_a_refused_address_is_followed_by_the_next(edge, dns, persistence):
    port = free_port()
    with Origins("127.0.0.4") as origins:
        dns.set(NAME, "127.0.0.2", "127.0.0.3", "127.0.0.4")
        e = start(edge, dns, f"tcp:{port} {NAME} {origins.port} {persistence} off\n", workers=1)
        wait_resolved(e)
        assert [ask_new("tcp", port, f"127.0.0.{i}") for i in range(10, 22)] == ["127.0.0.4"] * 12
        flows = e.wait_flows(12)
        retries = e.metric("connect_retries_total")
    assert {(f["origin"], f["end"]) for f in flows} == {(f"127.0.0.4:{origins.port}", "done")}
    assert 0 < retries < 24


@pytest.mark.parametrize("tries, works", [(1, False), (2, False), (3, True)])
def test_no_more_than_connect_tries_addresses_are_tried(edge, dns, tries, works):
    port = free_port()
    with Origins("127.0.0.4") as origins:
        dns.set(NAME, "127.0.0.2", "127.0.0.3", "127.0.0.4")
        e = start(edge, dns, f"tcp:{port} {NAME} {origins.port} off off connect_tries={tries}\n", workers=1)
        wait_resolved(e)
        if works:
            assert ask_new("tcp", port) == "127.0.0.4"
        else:
            with pytest.raises(ConnectionResetError), connect(port) as c:
                c.recv(1)
        flow, = e.wait_flows(1)
        assert e.metric("connect_retries_total") == tries - 1
    assert flow["end"] == ("done" if works else "connect_refused")
    assert flow["origin"] == f"127.0.0.{tries + 1}:{origins.port}"


# --- reload ---

def test_a_reload_that_drops_a_name_stops_its_lookups(edge, dns):
    ports = [free_port(), free_port()]
    dns.set("kept.test", "127.0.0.1", ttl=1)
    dns.set("dropped.test", "127.0.0.1", ttl=1)
    node = f"set node {dns.setting} resolve_min=100ms\n"
    kept = f"tcp:{ports[0]} kept.test 80 off off\n"
    e = edge(node + kept + f"tcp:{ports[1]} dropped.test 80 off off\n")
    wait_resolved(e)
    assert e.status()["names"]["in_use"] == 2
    assert "applied" in e.reload(node + kept)
    wait_until(lambda: e.status()["names"]["in_use"] == 1, what="the name to be forgotten")
    before = dns.count("dropped.test")
    dns.wait_queries(2, "kept.test")
    assert dns.count("dropped.test") == before


def test_lookups_of_a_dropped_name_stop_when_its_last_flow_has_ended(edge, dns):
    ports = [free_port(), free_port()]
    with Origins("127.0.0.1") as origins:
        dns.set("kept.test", "127.0.0.1", ttl=1)
        dns.set("dropped.test", "127.0.0.1", ttl=1)
        node = f"set node {dns.setting} resolve_min=100ms\n"
        kept = f"tcp:{ports[0]} kept.test 80 off off\n"
        e = edge(node + kept + f"tcp:{ports[1]} dropped.test {origins.port} off off\n", drain=1)
        with connect(ports[1]) as c:
            assert ask(c) == "127.0.0.1"
            e.reload(node + kept)
            flow, = e.wait_flows(1)
        assert flow["end"] == "rule_removed"
        wait_until(lambda: e.status()["names"]["in_use"] == 1, 5, "the name to be forgotten")


def test_a_reload_can_add_a_name_and_change_the_server(edge, dns):
    port = free_port()
    with Origins("127.0.0.2", "127.0.0.3") as origins, DnsServer() as other:
        dns.set(NAME, "127.0.0.2")
        other.set(NAME, "127.0.0.3")
        rule = f"tcp:{port} {NAME} {origins.port} off off\n"
        e = edge(f"set node {dns.setting} resolve_min=100ms\n")
        e.reload(f"set node {dns.setting} resolve_min=100ms\n" + rule)
        assert ask_new("tcp", port) == "127.0.0.2"
        e.reload(f"set node {other.setting} resolve_min=100ms\n" + rule)
        wait_until(lambda: ask_new("tcp", port) == "127.0.0.3", what="the other server's answer")


def test_a_reload_without_resolvers_goes_back_to_resolv_conf(edge, dns, tmp_path):
    """resolv.conf is ours for this edge only, in a mount namespace of its own."""
    port = free_port()
    with Origins("127.0.0.2", "127.0.0.3") as origins, DnsServer("127.7.7.7", 53) as system:
        dns.set(NAME, "127.0.0.2")
        system.set(NAME, "127.0.0.3")
        conf = tmp_path / "resolv.conf"
        conf.write_text(f"nameserver {system.address}\n")
        rule = f"tcp:{port} {NAME} {origins.port} off off\n"
        prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind {conf} /etc/resolv.conf && exec "$@"', "sh"]
        e = edge("set node resolve_min=100ms\n" + rule, prefix=prefix)
        assert ask_new("tcp", port) == "127.0.0.3"
        e.reload(f"set node {dns.setting} resolve_min=100ms\n" + rule)
        wait_until(lambda: ask_new("tcp", port) == "127.0.0.2", what="the answer of the server set")
        e.reload("set node resolve_min=100ms\n" + rule)
        wait_until(lambda: ask_new("tcp", port) == "127.0.0.3", 5, "the answer of the system's server")
