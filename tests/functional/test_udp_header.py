# SPDX-License-Identifier: Apache-2.0
"""The client's address in front of datagrams: PROXY v2 and SPP, to the byte."""
import pytest

from harness import TIMEOUT, UdpOrigin, free_port, stopped, udp_client, wait_until
from headers import SPP_SIZE, both_ends, ppv2, spp


@pytest.fixture(params=["steered", "bound"])
def start(request, edge):
    """As the fixture edge, once with steering and once with a socket for every port."""
    def run(rules, *args, **kwargs):
        return edge(rules, *args, *(["--no-bpf"] if request.param == "bound" else []), **kwargs)
    return run


def heard(origin):
    return origin.received.get(timeout=TIMEOUT)[0]


# --- PROXY v2 ---

@pytest.mark.parametrize("edge_address, source", [("127.0.0.1", "127.0.0.1"), ("127.0.0.3", "127.0.0.77"), ("::1", "::1")])
@pytest.mark.parametrize("mode, with_header", [
    ("first", [True, False, False, False, False]),
    ("until_reply", [True, True, True, False, False]),  # the origin answers the third
    ("every", [True, True, True, True, True]),
])
def test_ppv2_header_stands_before_the_payload_of_the_right_datagrams(start, mode, with_header, edge_address, source):
    port = free_port()
    with UdpOrigin(lambda data, peer: [b"answer"] if data[-1:] in b"234" else []) as origin:
        start(f"udp:{port} 127.0.0.1 {origin.port} off ppv2 ppv2_mode={mode}\n", listen=["127.0.0.1", "127.0.0.3", "::1"])
        with udp_client(port, edge_address, source=source) as client:
            header = ppv2(*both_ends(client))
            for n, has_header in enumerate(with_header):
                client.send(b"payload %d" % n)
                assert heard(origin) == (header if has_header else b"") + b"payload %d" % n
                if n >= 2:
                    assert client.recv(100) == b"answer"


def test_ppv2_first_is_the_default_and_zero_length_datagrams_carry_it_too(start):
    port = free_port()
    with UdpOrigin() as origin:
        start(f"udp:{port} 127.0.0.1 {origin.port} off ppv2\n")
        with udp_client(port) as client:
            for payload in (b"", b"", b"x"):
                client.send(payload)
            assert [heard(origin) for _ in range(3)] == [ppv2(*both_ends(client)), b"", b"x"]


@pytest.mark.parametrize("mode, with_header", [("first", 1), ("until_reply", 40), ("every", 40)])
def test_ppv2_in_one_batch(start, mode, with_header):
    """All is there before the edge looks, so that the datagrams of a session leave in one segmented send."""
    port = free_port()
    with UdpOrigin(lambda data, peer: []) as origin:
        e = start(f"udp:{port} 127.0.0.1 {origin.port} off ppv2 ppv2_mode={mode}\n")
        with udp_client(port) as a, udp_client(port) as b, stopped(e):
            names = {c: both_ends(c) for c in (a, b)}
            for n in range(40):
                for c in (a, b):
                    c.send(bytes([n]) * (1200 if n % 10 else 600))
        by_peer = {}
        for _ in range(80):
            data, peer = origin.received.get(timeout=TIMEOUT)
            by_peer.setdefault(peer, []).append(data)
        expected = []
        for c in (a, b):
            expected.append([(ppv2(*names[c]) if n < with_header else b"") + bytes([n]) * (1200 if n % 10 else 600)
                             for n in range(40)])
        assert sorted(by_peer.values()) == sorted(expected)


def test_ppv2_header_comes_again_with_a_new_session(edge):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off ppv2 idle_timeout=1s\n")
        with udp_client(port) as client:
            header = ppv2(*both_ends(client))
            for n in range(1, 3):
                client.send(b"x")
                assert heard(origin) == header + b"x"
                client.send(b"y")
                assert heard(origin) == b"y"
                e.wait_flows(n)


def test_payload_counts_in_the_log_leave_headers_out(edge):
    port = free_port()
    with UdpOrigin(lambda data, peer: [data]) as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off spp\n")
        with udp_client(port) as client:
            for size in (0, 1, 1000):
                client.send(bytes(size))
                assert len(client.recv(2000)) == size
        e.stop_clean()
        flow, = e.flows()
    assert [flow[k] for k in ("bytes_in", "bytes_out", "datagrams_in", "datagrams_out")] == [1001, 1001, 3, 3]


# --- too long with the header ---

@pytest.mark.parametrize("pass_mode, edge_address, header_size", [
    ("ppv2 ppv2_mode=first", "127.0.0.1", 28), ("ppv2 ppv2_mode=every", "127.0.0.1", 28),
    ("ppv2 ppv2_mode=first", "::1", 52), ("spp", "127.0.0.1", SPP_SIZE), ("spp", "::1", SPP_SIZE)])
def test_a_datagram_too_long_with_its_header_is_dropped_and_counted(start, pass_mode, edge_address, header_size):
    port, fits = free_port(), 65507 - header_size
    with UdpOrigin(lambda data, peer: []) as origin:
        e = start(f"udp:{port} 127.0.0.1 {origin.port} off {pass_mode}\n")
        with udp_client(port, edge_address) as client:
            pair = both_ends(client)
            header = spp(*pair) if pass_mode == "spp" else ppv2(*pair)
            client.send(bytes(65507))
            client.send(bytes(fits + 1))
            client.send(b"\1" * fits)
            assert heard(origin) == header + b"\1" * fits  # and the header was not lost with those before
        assert e.metric("datagrams_dropped_total", reason="too_big", protocol="udp") == 2
        assert e.metric("datagrams_in_total") == 3


# --- SPP ---

@pytest.mark.parametrize("edge_address, source", [("127.0.0.1", "127.0.0.1"), ("127.0.0.3", "127.0.0.77"), ("::1", "::1")])
def test_spp_header_stands_before_every_datagram_and_is_taken_off_every_answer(start, edge_address, source):
    port = free_port()
    with UdpOrigin() as origin:  # echoes, header and all
        e = start(f"udp:{port} 127.0.0.1 {origin.port} off spp\n", listen=["127.0.0.1", "127.0.0.3", "::1"])
        with udp_client(port, edge_address, source=source) as client:
            header = spp(*both_ends(client))
            assert len(header) == SPP_SIZE
            for payload in (b"hello", b"", bytes(1472), bytes(65507 - SPP_SIZE), b"\x56\xec", header):
                client.send(payload)
                assert heard(origin) == header + payload
                assert client.recv(65535) == payload
        assert e.metric("spp_answers_bare_total") == 0


ANSWERS = ["header", "header alone", "bare", "bare short", "empty", "magic alone", "other client", "other edge",
           "other client port", "other edge port", "other magic"]


def make_answer(kind, client, edge):
    good, payload = spp(client, edge), b"payload of some length, longer than a header is"
    return {
        "header": good + payload,
        "header alone": good,
        "bare": payload,
        "bare short": b"short",
        "empty": b"",
        "magic alone": b"\x56\xec",
        "other client": spp(("127.0.0.2", client[1]), edge) + payload,
        "other edge": spp(client, ("127.0.0.2", edge[1])) + payload,
        "other client port": spp((client[0], client[1] ^ 1), edge) + payload,
        "other edge port": spp(client, (edge[0], edge[1] ^ 1)) + payload,
        "other magic": b"\x56\xed" + good[2:] + payload,
    }[kind]


@pytest.mark.parametrize("mode", ["lenient", "strict", "edgeone"])
def test_answers_with_and_without_their_spp_header(start, mode):
    port = free_port()
    answers = []
    with UdpOrigin(lambda data, peer: answers.pop(0)) as origin:
        e = start(f"udp:{port} 127.0.0.1 {origin.port} off spp {'' if mode == 'lenient' else 'spp_answers=' + mode}\n")
        with udp_client(port) as client:
            pair = both_ends(client)
            for n, kind in enumerate(ANSWERS):
                answer, good = make_answer(kind, *pair), kind.startswith("header")
                answers.append([answer, spp(*pair) + b"end %d" % n])
                client.send(b"ask")
                expected = {
                    "lenient": [answer[SPP_SIZE:] if good else answer],
                    "strict": [answer[SPP_SIZE:]] if good else [],
                    "edgeone": [answer[SPP_SIZE:]],
                }[mode] + [b"end %d" % n]
                assert [client.recv(65535) for _ in expected] == expected, kind
        bad = len(ANSWERS) - 2
        assert e.metric("spp_answers_bare_total") == bad
        assert e.metric("datagrams_dropped_total", reason="bad_spp") == (bad if mode == "strict" else 0)
        assert e.metric("datagrams_out_total") == len(ANSWERS) * 2 - (bad if mode == "strict" else 0)


def test_spp_bursts_keep_each_header_both_ways(start):
    """Segmented sends: every datagram of a batch has its own header, for every session, in order."""
    port = free_port()
    with UdpOrigin() as origin:
        e = start(f"udp:{port} 127.0.0.1 {origin.port} off spp\n")
        clients = [udp_client(port) for _ in range(3)]
        payloads = [bytes([n]) * (1162 if n % 7 else n) for n in range(50)]
        with stopped(e):
            for payload in payloads:
                for client in clients:
                    client.send(payload)
        for client in clients:
            assert [client.recv(65535) for _ in payloads] == payloads
        seen = {}
        for _ in range(150):
            data, peer = origin.received.get(timeout=TIMEOUT)
            seen.setdefault(peer, []).append(data)
        expected = [[spp(*both_ends(c)) + p for p in payloads] for c in clients]
        assert sorted(seen.values()) == sorted(expected)
        assert e.metric("spp_answers_bare_total") == e.metric("datagrams_dropped_total") == 0
        for client in clients:
            client.close()


def test_an_answer_of_full_length_with_its_spp_header_reaches_the_client(start):
    port = free_port()
    with UdpOrigin() as origin:
        start(f"udp:{port} 127.0.0.1 {origin.port} off spp\n")
        with udp_client(port) as client:
            client.send(b"")
            header, peer = origin.received.get(timeout=TIMEOUT)
            assert client.recv(1) == b""
            origin.socket.sendto(header + b"\2" * (65507 - SPP_SIZE), peer)
            assert client.recv(65535) == b"\2" * (65507 - SPP_SIZE)


def test_spp_answers_from_the_origin_end_a_session_by_count(edge):
    """answers=1 counts what is delivered: an answer dropped for its header is none."""
    port = free_port()
    bare = [True]

    def answer(data, peer):
        return [b"no header"] if bare.pop() else [data]

    with UdpOrigin(answer) as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off spp spp_answers=strict answers=1 idle_timeout=1s\n")
        with udp_client(port) as client:
            client.send(b"one")
            wait_until(lambda: e.metric("datagrams_dropped_total", reason="bad_spp") == 1, what="the drop")
            assert e.metric("flows_active") == 1
            flow, = e.wait_flows(1)
    assert flow["end"] == "idle"


def test_ppv2_header_comes_again_when_icmp_says_that_the_first_was_lost(edge):
    port, to = free_port(), free_port()
    e = edge(f"udp:{port} 127.0.0.1 {to} off ppv2\n")
    with udp_client(port) as client:
        for n in range(1, 3):
            client.send(b"nobody")
            wait_until(lambda n=n: e.metric("icmp_errors_total") >= n, what="the ICMP error")
        with UdpOrigin(port=to) as origin:
            client.send(b"somebody")
            assert heard(origin) == ppv2(*both_ends(client)) + b"somebody"
