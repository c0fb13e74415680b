# SPDX-License-Identifier: Apache-2.0
"""UDP sessions: who hears what from whom, sizes, order, ends, unreachable origins, limits and counters."""
import collections
import random
import selectors
import socket
import time

import pytest

from dns_server import DnsServer
from harness import TIMEOUT, UdpOrigin, free_port, free_ports, stopped, udp_client, wait_until

# payload sizes around what links and headers make of them: nothing, Ethernet, jumbo frames, the largest datagram
SIZES = [0, 1, 2, 1199, 1200, 1472, 1473, 8972, 9000, 65506, 65507]
LOOPBACKS = [f"127.0.0.{i}" for i in range(1, 6)] + ["::1"]


MODES = {  # settings, options, what the status says about steering and the fast path
    "fast": ("", [], "bpf", "on"),
    "steered": ("set node udp_fast_path=off\n", [], "bpf", "off: udp_fast_path=off"),
    "bound": ("", ["--no-bpf"], "off: --no-bpf", "off: --no-bpf"),
}


@pytest.fixture(params=MODES)
def start(request, edge):
    """As the fixture edge, in each of the ways in which datagrams are carried. start.ordered: never out of order."""
    settings, options, steering, fast_path = MODES[request.param]

    def run(rules, *args, **kwargs):
        e = edge(settings + rules, *args, *options, **kwargs)
        status = e.status()
        assert (status["steering"], status["udp_fast_path"]) == (steering, fast_path)
        return e

    run.ordered = request.param != "fast"  # when the kernel takes a session over, datagrams may overtake each other once
    return run


def ask(client, data=b"ping"):
    client.send(data)
    return client.recv(65535)


def ask_new(port):
    with udp_client(port) as client:
        return ask(client)


def peers(origin):
    """Everything the origin has heard so far, as {peer: [data, ...]}."""
    heard = collections.defaultdict(list)
    while not origin.received.empty():
        data, peer = origin.received.get()
        heard[peer].append(data)
    return heard


def silent(data, peer):
    return []


# --- who hears what from whom ---

@pytest.mark.parametrize("listen", [LOOPBACKS, None], ids=["addresses", "any"])
def test_answers_come_from_the_address_and_port_the_client_wrote_to(start, listen):
    first = free_ports(300)
    with UdpOrigin() as origin:
        start(f"udp:{first}-{first + 299} 127.0.0.1 {origin.port} off off\n", listen=listen)
        for address in LOOPBACKS:
            for port in [first, first + 1, *range(first + 2, first + 298, 37), first + 298, first + 299]:
                data = f"{address} {port}".encode()
                with udp_client(port, address) as connected:
                    assert ask(connected, data) == data  # a connected socket hears nobody else
                with udp_client(port, address, connected=False) as unconnected:
                    unconnected.sendto(data, (address, port))
                    answer, peer = unconnected.recvfrom(65535)
                    assert (answer, peer[:2]) == (data, (address, port))


def test_each_pair_of_client_and_edge_address_and_port_is_a_session(start):
    ports = [free_port(), free_port()]
    with UdpOrigin() as origin:
        e = start(f"udp:{ports[0]};{ports[1]} 127.0.0.1 {origin.port} off off\n", listen=LOOPBACKS)
        with udp_client(0, connected=False) as client:
            for address in LOOPBACKS[:2]:
                for port in ports:
                    for _ in range(2):
                        client.sendto(f"{address} {port}".encode(), (address, port))
                        client.recvfrom(65535)
            heard = peers(origin)
        assert sorted(set(heard[p]) for p in heard) == sorted({f"{a} {p}".encode()} for a in LOOPBACKS[:2] for p in ports)
        assert [len(h) for h in heard.values()] == [2] * 4
        e.stop_clean()
        assert len({f["edge"] for f in e.flows()}) == 4


def test_a_range_is_mapped_by_offset(start):
    edge_port = free_ports(5)
    to = free_ports(5)
    origins = [UdpOrigin(lambda data, peer, i=i: [b"%d %s" % (i, data)], port=to + i) for i in range(5)]
    start(f"udp:{edge_port}-{edge_port + 4} 127.0.0.1 {to}-{to + 4} off off\n")
    for i in (0, 2, 4):
        with udp_client(edge_port + i) as client:
            assert ask(client) == b"%d ping" % i
    for origin in origins:
        origin.close()


def test_only_the_origin_can_answer(start):
    """A session's port towards the origin takes nothing from anybody else."""
    port = free_port()
    with UdpOrigin() as origin, UdpOrigin() as stranger:
        start(f"udp:{port} 127.0.0.1 {origin.port} off off\n")
        with udp_client(port) as client:
            assert ask(client, b"one") == b"one"
            _, session = origin.received.get(timeout=TIMEOUT)
            for _ in range(10):
                stranger.socket.sendto(b"forged", session)
            assert ask(client, b"two") == b"two"


def test_origin_may_answer_many_times_and_unasked(start):
    port = free_port()
    with UdpOrigin(lambda data, peer: [b"%d" % i for i in range(100)]) as origin:
        start(f"udp:{port} 127.0.0.1 {origin.port} off off\n")
        with udp_client(port) as client:
            client.send(b"go")
            assert [client.recv(100) for _ in range(100)] == [b"%d" % i for i in range(100)]
            _, session = origin.received.get(timeout=TIMEOUT)
            origin.socket.sendto(b"unasked", session)
            assert client.recv(100) == b"unasked"


# --- sizes, order ---

@pytest.mark.parametrize("client_side, origin_side", [("127.0.0.1", "127.0.0.1"), ("::1", "127.0.0.1"),
                                                      ("127.0.0.1", "::1"), ("::1", "::1")])
def test_sizes_and_contents_are_kept_both_ways(start, client_side, origin_side):
    port = free_port()
    origin_text = f"[{origin_side}]" if ":" in origin_side else origin_side
    with UdpOrigin(lambda data, peer: [data[::-1]], address=origin_side) as origin:
        e = start(f"udp:{port} {origin_text} {origin.port} off off\n")
        with udp_client(port, client_side) as client:
            for size in SIZES:
                data = random.Random(size).randbytes(size)
                assert ask(client, data) == data[::-1]
                assert origin.received.get(timeout=TIMEOUT)[0] == data
        e.stop_clean()
        flow, = e.flows()
    assert (flow["bytes_in"], flow["bytes_out"]) == (sum(SIZES), sum(SIZES))
    assert (flow["datagrams_in"], flow["datagrams_out"]) == (len(SIZES), len(SIZES))


def test_longer_than_65507_bytes_is_dropped_and_counted(start):
    """IPv6 carries 20 bytes more than the largest IPv4 datagram, and so than what is promised."""
    port = free_port()
    with UdpOrigin(lambda data, peer: [data, b"next"]) as origin:
        e = start(f"udp:{port} 127.0.0.1 {origin.port} off off\n")
        with udp_client(port, "::1") as client:
            for size in (65508, 65527):
                client.send(bytes(size))
            client.send(b"small")
            assert [client.recv(65535) for _ in range(2)] == [b"small", b"next"]
        assert e.metric("datagrams_dropped_total", reason="too_big") == 2


def test_an_answer_too_long_for_the_client_is_dropped_and_counted(start):
    port = free_port()
    with UdpOrigin(lambda data, peer: [bytes(65508), bytes(65507)], address="::1") as origin:
        e = start(f"udp:{port} [::1] {origin.port} off off\n")
        with udp_client(port) as client:
            client.send(b"x")
            assert len(client.recv(65535)) == 65507
        assert e.metric("datagrams_dropped_total", reason="too_big") == 1


def exchange(clients, sequences, window):
    """Every client sends its sequence with at most `window` datagrams unanswered; gives what each heard."""
    heard = [[] for _ in clients]
    sent = [0] * len(clients)
    selector = selectors.DefaultSelector()
    for i, client in enumerate(clients):
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        selector.register(client, selectors.EVENT_READ, i)
    for i, client in enumerate(clients):
        while sent[i] < min(window, len(sequences[i])):
            client.send(sequences[i][sent[i]])
            sent[i] += 1
    missing = sum(map(len, sequences))
    while missing:
        ready = selector.select(3)
        if not ready:
            break  # lost: the comparison says what
        for key, _ in ready:
            i = key.data
            try:
                while True:
                    heard[i].append(clients[i].recv(65535))
                    missing -= 1
                    if sent[i] < len(sequences[i]):
                        clients[i].send(sequences[i][sent[i]])
                        sent[i] += 1
            except BlockingIOError:
                pass
    return heard


@pytest.mark.parametrize("flows, window, count, sizes", [
    (1, 64, 2000, [1200]),                        # one stream of equal datagrams: all of it can be segmented
    (4, 32, 500, [1200, 1200, 1200, 700]),
    (32, 16, 100, [0, 1, 33, 512, 1472, 1473]),
    (200, 4, 20, [64, 0, 1200]),
    (8, 2, 50, [9000, 65507, 1, 0]),
], ids=["one flow", "video", "mixed", "many flows", "jumbo"])
def test_bursts_keep_content_and_order_and_lose_nothing(start, flows, window, count, sizes):
    ports = free_ports(4)
    rng = random.Random(f"{flows} {sizes}")
    sequences = []
    for i in range(flows):
        datagrams = [rng.randbytes(rng.choice(sizes)) for _ in range(count)]
        sequences.append([b"%d %d " % (i, n) + d if len(d) > 20 and len(d) < 65000 else d for n, d in enumerate(datagrams)])
    with UdpOrigin() as origin:
        e = start(f"udp:{ports}-{ports + 3} 127.0.0.1 {origin.port} off off idle_timeout=5s\n")
        clients = [udp_client(ports + i % 4) for i in range(flows)]
        heard = exchange(clients, sequences, window)
        for i in range(flows):
            assert sorted(heard[i]) == sorted(sequences[i]), f"flow {i}: {len(heard[i])} of {count}"
            assert heard[i] == sequences[i] or not start.ordered
        for way in ("in", "out"):  # the fast path's counts come once a second
            wait_until(lambda way=way: e.metric(f"datagrams_{way}_total") == flows * count, 3, f"the datagrams {way}")
            assert e.metric(f"bytes_{way}_total") == sum(len(d) for sequence in sequences for d in sequence)
        assert e.metric("datagrams_dropped_total") == 0
        assert e.metric("flows_total") == flows
        for client in clients:
            client.close()


def test_what_came_while_the_edge_was_busy_leaves_in_order(start):
    """Whole batches in both directions: everything is there before the edge is allowed to look."""
    port = free_port()
    datagrams = [random.Random(n).randbytes([1200, 1200, 700, 0, 1300][n % 5]) for n in range(60)]
    with UdpOrigin() as origin:
        e = start(f"udp:{port} 127.0.0.1 {origin.port} off off\n")
        clients = [udp_client(port) for _ in range(4)]
        for client in clients:
            assert ask(client) == b"ping"
        with stopped(e):
            for datagram in datagrams:
                for client in clients:
                    client.send(datagram)
        for client in clients:
            heard = [client.recv(65535) for _ in datagrams]
            assert sorted(heard) == sorted(datagrams) and (heard == datagrams or not start.ordered)
        assert e.metric("datagrams_dropped_total") == 0


# --- a session's origin ---

def test_a_session_keeps_its_origin_for_its_whole_life(start):
    port, to = free_port(), free_port()
    addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    origins = [UdpOrigin(lambda data, peer, a=a: [a.encode()], address=a, port=to) for a in addresses]
    with DnsServer() as dns:
        dns.set("game.test", *addresses)
        e = start(f"set node {dns.setting}\nudp:{port} game.test {to} off off\n")
        wait_until(lambda: e.status()["names"]["unresolved"] == 0, what="the name")
        clients = [udp_client(port) for _ in range(12)]
        answers = [{ask(client) for _ in range(5)} for client in clients]
        assert all(len(a) == 1 for a in answers)
        assert set.union(*answers) == {a.encode() for a in addresses}
        dns.set("game.test", "127.0.0.4")  # the sessions of the other two go on
        dns.wait_queries(1)
        wait_until(lambda: ask_new(port) == b"127.0.0.4", what="the new answer")
        assert [{ask(client)} for client in clients] == answers
        for client in clients:
            client.close()
    for origin in origins:
        origin.close()


def test_an_unreachable_origin_is_noticed_and_works_again_when_it_comes_back(start):
    port, to = free_port(), free_port()
    e = start(f"udp:{port} 127.0.0.1 {to} off off unanswered_timeout=2s\n")
    with udp_client(port) as client:
        for n in range(1, 4):
            client.send(b"nobody")
            wait_until(lambda n=n: e.metric("icmp_errors_total") >= n, what="the ICMP error")
        with UdpOrigin(port=to) as origin:
            assert ask(client, b"anybody") == b"anybody"  # the error that waited costs no datagram
            assert origin.received.qsize() == 1
            assert e.metric("flows_total") == 1


def test_a_session_whose_origin_is_unreachable_ends_so(edge):
    port, to = free_port(), free_port()
    e = edge(f"udp:{port} 127.0.0.1 {to} off off unanswered_timeout=1s\n")
    with udp_client(port) as client:
        client.send(b"nobody")
        flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["origin"]) == ("origin_unreachable", "origin", f"127.0.0.1:{to}")
    assert (flow["datagrams_in"], flow["bytes_in"], flow["datagrams_out"]) == (1, 6, 0)
    assert 1000 <= flow["duration_ms"] < 1600


def test_an_origin_that_goes_away_during_a_session_ends_it_as_unreachable(edge):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off idle_timeout=1s\n")
        client = udp_client(port)
        assert ask(client) == b"ping"
    client.send(b"anybody?")
    flow, = e.wait_flows(1)
    client.close()
    assert (flow["end"], flow["datagrams_in"], flow["datagrams_out"]) == ("origin_unreachable", 2, 1)


@pytest.mark.parametrize("persistence", ["on", "off"])
def test_a_session_moves_to_another_address_when_its_own_is_unreachable(start, persistence):
    port, to = free_port(), free_port()
    with DnsServer() as dns, UdpOrigin(address="127.0.0.4", port=to) as origin:
        dns.set("game.test", "127.0.0.2", "127.0.0.3", "127.0.0.4")
        e = start(f"set node {dns.setting}\nudp:{port} game.test {to} {persistence} ppv2\n", workers=1)
        wait_until(lambda: e.status()["names"]["unresolved"] == 0, what="the name")
        for _ in range(6):  # round robin begins at each of the three, twice
            with udp_client(port) as client:
                for _ in range(3):
                    errors = e.metric("icmp_errors_total")
                    client.send(b"who is there?")
                    wait_until(lambda: e.metric("icmp_errors_total") > errors or not origin.received.empty(),
                               what="an answer of either kind")
                    if not origin.received.empty():
                        break
                data, _ = origin.received.get(timeout=TIMEOUT)
                assert data[12:14] == b"\x21\x12" and data[28:] == b"who is there?"  # a new origin gets the header too
                assert client.recv(100) == data
        moved = e.metric("udp_sessions_moved_total")
        assert 0 < moved <= 12 if persistence == "off" else moved <= 2  # the address that answered is remembered
        e.stop_clean()
        assert [f["origin"] for f in e.flows()] == [f"127.0.0.4:{to}"] * 6


# --- ends ---

def test_idle_session_ends_after_idle_timeout(edge):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off idle_timeout=1s\n")
        with udp_client(port) as client:
            ask(client)
            flow, = e.wait_flows(1)
            assert (flow["end"], flow["end_side"]) == ("idle", "edge")
            assert 1000 <= flow["duration_ms"] < 1600
            assert ask(client) == b"ping"  # a new session
        assert e.wait_flows(2)[1]["flow"] != flow["flow"]
        assert len(peers(origin)) == 2


@pytest.mark.parametrize("who", ["client", "origin"])
def test_datagrams_of_either_side_keep_a_session(edge, who):
    port = free_port()
    with UdpOrigin(lambda data, peer: [data] if data == b"ping" else []) as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off idle_timeout=1s\n")
        with udp_client(port) as client:
            ask(client)
            _, session = origin.received.get(timeout=TIMEOUT)
            for _ in range(8):
                time.sleep(0.25)  # the pace of the traffic is what is tested
                if who == "client":
                    client.send(b"only one way")
                else:
                    origin.socket.sendto(b"only one way", session)
            flow, = e.wait_flows(1)
    assert flow["end"] == "idle"
    assert 3000 <= flow["duration_ms"] < 3800
    assert flow["datagrams_in" if who == "client" else "datagrams_out"] == 9


def test_unanswered_session_ends_after_unanswered_timeout(edge):
    port = free_port()
    with UdpOrigin(silent) as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off idle_timeout=30s unanswered_timeout=1s\n")
        with udp_client(port) as client:
            client.send(b"hello?")
            flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"]) == ("unanswered", "origin")
    assert (flow["datagrams_in"], flow["datagrams_out"]) == (1, 0)
    assert 1000 <= flow["duration_ms"] < 1600


def test_a_shorter_idle_timeout_holds_for_unanswered_sessions_too(edge):
    port = free_port()
    with UdpOrigin(silent) as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off idle_timeout=1s unanswered_timeout=30s\n")
        with udp_client(port) as client:
            client.send(b"hello?")
            flow, = e.wait_flows(1)
    assert 1000 <= flow["duration_ms"] < 1600


@pytest.mark.parametrize("answers, asked, given, end", [
    (1, 1, 1, "answered"),
    (1, 5, 1, "answered"),   # all five sent before the edge reads the first
    (3, 1, 3, "answered"),
    (3, 4, 3, "answered"),
    (1, 1, 2, "answered"),   # one more than promised: the session is over, the client does not care
    (3, 1, 2, "idle"),
    (2, 2, 1, "idle"),
])
def test_session_ends_when_every_datagram_has_its_answers(edge, answers, asked, given, end):
    port = free_port()
    with UdpOrigin(lambda data, peer: [data] * given) as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off idle_timeout=1s answers={answers}\n")
        with udp_client(port) as client:
            with stopped(e):
                for n in range(asked):
                    client.send(b"%d" % n)
            for n in range(asked * min(given, answers)):
                assert client.recv(100) == b"%d" % (n // given)
            flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["datagrams_in"]) == (end, "edge", asked)
    if end == "answered":
        assert flow["duration_ms"] < 900
        assert flow["datagrams_out"] >= asked * answers


def test_answers_set_by_a_reload_hold_for_running_sessions(start):
    port = free_port()
    with UdpOrigin() as origin:
        rule = f"udp:{port} 127.0.0.1 {origin.port} off off"
        e = start(rule + "\n")
        with udp_client(port) as client:
            for _ in range(20):
                ask(client)
            assert e.reload(e.rules_path.read_text().replace(rule, rule + " answers=1")).startswith("ok")
            assert ask(client, b"last") == b"last"
            flow, = e.wait_flows(1, timeout=3)
    assert (flow["end"], flow["datagrams_in"]) == ("answered", 21)


def test_sessions_end_when_the_edge_stops(edge):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off\n")
        with udp_client(port) as client:
            ask(client)
            e.stop_clean()
    assert [f["end"] for f in e.flows()] == ["shutdown"]


# --- limits and counters ---

def test_sessions_on_many_ports_give_their_descriptors_back(start):
    """Each port that answers leave from may take a socket. Some are kept for the next session, not all."""
    first, count = free_ports(400), 400
    with UdpOrigin() as origin:
        e = start(f"udp:{first}-{first + count - 1} 127.0.0.1 {origin.port} off off idle_timeout=1s\n")
        fds = e.fds()
        clients = [udp_client(first + i) for i in range(count)]
        for client in clients:
            assert ask(client) == b"ping"
            client.close()
        e.wait_flows(count)
        wait_until(lambda: e.fds() <= fds + 130, what="the descriptors to be given back")
        assert e.metric("node_flows") == 0


def test_sessions_stop_at_the_descriptor_limit(edge):
    """Every session on a port of its own takes two."""
    first, count = free_ports(300), 300
    with UdpOrigin() as origin:
        e = edge(f"udp:{first}-{first + count - 1} 127.0.0.1 {origin.port} off off idle_timeout=1s\n",
                 prefix=("prlimit", "--nofile=600:600"))
        clients = [udp_client(first + i) for i in range(count)]
        for client in clients:
            client.send(b"ping")
        wait_until(lambda: e.metric("flows_total") + e.metric("flows_ended_total", end="limit_fds") == count, what="all")
        assert 150 < e.metric("flows_total") < count
        assert e.metric("fds") <= e.metric("fds_max") + e.metric("workers")  # and yet it answers us
        assert e.metric("datagrams_dropped_total", reason="refused") == e.metric("flows_ended_total", end="limit_fds")
        e.wait_flows(int(e.metric("flows_total")))
        assert ask_new(first) == b"ping"
        for client in clients:
            client.close()


@pytest.mark.parametrize("limit, count, end", [
    ("client_max_flows", 3, "limit_client_flows"), ("max_flows", 3, "limit_rule_flows"),
    ("client_new_flows_per_s", 1, "limit_client_rate"), ("new_flows_per_s", 1, "limit_rule_rate")])
def test_a_session_over_the_limit_is_refused_and_counted(edge, limit, count, end):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off idle_timeout=1s {limit}={count}\n")
        within = [udp_client(port) for _ in range(count)]
        for client in within:
            assert ask(client) == b"ping"
        with udp_client(port) as over:
            over.send(b"one too many")
            wait_until(lambda: e.metric("flows_ended_total", end=end) == 1, what="the refusal")
            over.send(b"and again")
            wait_until(lambda: e.metric("flows_ended_total", end=end) == 2, what="the second refusal")
            assert e.metric("datagrams_dropped_total", reason="refused") == 2
            for client in within:
                assert ask(client) == b"ping"  # sessions that run are not touched
            assert len(peers(origin)) == count
            assert e.stderr().count("refused from 127.0.0.1") == 1  # said once
            e.wait_flows(count)
            wait_until(lambda: e.metric("flows_active") == 0, what="room")
            assert ask(over, b"now there is room") == b"now there is room"
        for client in within:
            client.close()
        assert all(f["end"] == "idle" for f in e.wait_flows(count + 1))  # refusals are counted, not logged


def test_another_client_has_limits_of_its_own(edge):
    port = free_port()
    with UdpOrigin() as origin:
        edge(f"udp:{port} 127.0.0.1 {origin.port} off off client_max_flows=1\n")
        for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            client = udp_client(port, source=source)
            assert ask(client) == b"ping"
            client.close()


def test_counters_and_log_tell_what_happened(edge):
    port = free_port()
    with UdpOrigin(lambda data, peer: [data, b"more"]) as origin:
        e = edge("set node name=edge-7\n"
                  f"udp:{port} 127.0.0.1 {origin.port} off off idle_timeout=1s voice \"and\" video\n", listen=["127.0.0.5"])
        with udp_client(port, "127.0.0.5", source="127.0.0.9") as client:
            client_port = client.getsockname()[1]
            for size in (10, 0, 300):
                client.send(bytes(size))
                assert [len(client.recv(1000)) for _ in range(2)] == [size, 4]
            rule = {"protocol": "udp"}
            expected = {"flows_total": 1, "flows_active": 1, "bytes_in_total": 310, "bytes_out_total": 322,
                        "datagrams_in_total": 3, "datagrams_out_total": 6}
            assert {name: e.metric(name, **rule) for name in expected} == expected
            flow, = e.wait_flows(1)
        wait_until(lambda: e.metric("flows_active") == 0, what="its end")
    assert e.metric("flows_ended_total", end="idle") == 1
    assert e.metric("node_flows") == 0
    variable = {k: flow.pop(k) for k in ("time", "start", "duration_ms", "flow")}
    assert flow == {
        "protocol": "udp", "rule": flow["rule"], "tag": 'voice "and" video', "client": f"127.0.0.9:{client_port}",
        "edge": f"127.0.0.5:{port}", "origin": f"127.0.0.1:{origin.port}", "bytes_in": 310, "bytes_out": 322,
        "datagrams_in": 3, "datagrams_out": 6, "connect_ms": None, "end": "idle", "end_side": "edge", "node": "edge-7"}
    assert flow["rule"].startswith("rule-") and variable["flow"].startswith("flow-")
    assert variable["start"] < variable["time"]
