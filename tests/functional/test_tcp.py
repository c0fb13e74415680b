# SPDX-License-Identifier: Apache-2.0
"""Carrying TCP: every byte in its place, every way a connection can end, slow and silent peers, and the flow log line."""
import contextlib
import fcntl
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading

import pytest

from harness import (ROOT, Edge, TcpOrigin, accept, connect, echoes, free_port, free_ports, how_connecting_ends, how_it_ends,
                     listen, own_network, port_of, recv_all, recv_exactly, reset, wait_metric, wait_until)
from streams import PERIOD, Clients, Job, StreamOrigin, exchange, piece

MB = 1 << 20
CARRIERS = {
    "user space": "set node tcp_fast_path=off\n",
    "fast path": "set node tcp_fast_path_after=1\n",  # from the first byte on, whenever there is a quiet moment
}


@pytest.fixture(autouse=True, params=CARRIERS, ids=lambda name: name.replace(" ", "-"))
def carrier(request, monkeypatch):
    """Whoever carries a flow, nobody must be able to tell."""
    monkeypatch.setattr(Edge, "settings", CARRIERS[request.param])
    return request.param


@pytest.fixture
def relay(edge):
    """start(options="") -> (edge, port, listener): a rule whose origin the test itself plays."""
    listeners = []

    def start(options="", **kwargs):
        port, listener = free_port(), listen()
        listeners.append(listener)
        return edge(f"tcp:{port} 127.0.0.1 {port_of(listener)} off off {options}\n", **kwargs), port, listener

    yield start
    for listener in listeners:
        listener.close()


def pair(port, listener):
    """A flow: the client's end and the origin's."""
    client = connect(port)
    return client, accept(listener)


def of_side(side, client, origin):
    """The two ends, that of `side` first."""
    return (client, origin) if side == "client" else (origin, client)


SIDES = pytest.mark.parametrize("side", ["client", "origin"])


def split(total, largest, rng):
    """Random sizes that make up `total`."""
    while total:
        n = min(rng.randint(1, largest), total)
        total -= n
        yield n


# --- bytes ---

@pytest.mark.parametrize("chunk", [1000, 64 << 10, PERIOD], ids=["small", "medium", "large"])
def test_streams_of_random_sizes_arrive_intact_both_ways(edge, chunk):
    """200 connections at a time, from nothing to some MB each way, in pieces of any size up to `chunk`."""
    rng = random.Random(chunk)
    limit = 200 * chunk  # so that small pieces are as many calls as large ones

    def size():
        return min(rng.choice([0, 1, rng.randrange(2000), rng.randrange(200_000), rng.randrange(3 * MB)]), limit)

    with StreamOrigin(chunk=chunk) as origin:
        port = free_port()
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
        jobs = [Job(port, size(), size(), chunk) for _ in range(250)]
        exchange(jobs, at_once=200, seed=chunk)
        flows = e.wait_flows(len(jobs), end="done")
        assert sorted((f["bytes_in"], f["bytes_out"]) for f in flows) == sorted((24 + j.up, j.down) for j in jobs)
        assert origin.problems == []


@pytest.mark.slow
def test_2000_short_connections_leave_nothing_behind(edge):
    with StreamOrigin() as origin:
        port = free_port()
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
        exchange([Job(port, 10, 10)])
        e.wait_flows(1)
        fds = e.fds()
        rng = random.Random(2000)
        jobs = [Job(port, rng.randrange(500), rng.randrange(500)) for _ in range(2000)]
        exchange(jobs, at_once=150)
        assert len(e.wait_flows(2001, end="done")) == 2001
        assert e.metric("flows_total") == 2001
        assert e.metric("bytes_in_total") == 34 + sum(24 + j.up for j in jobs)
        assert e.metric("bytes_out_total") == 10 + sum(j.down for j in jobs)
        wait_metric(e, 0, "flows_active")
        wait_metric(e, 0, "node_flows")
        wait_until(lambda: e.fds() == fds, what="all descriptors closed")
        assert len({f["flow"] for f in e.flows()}) == 2001


@SIDES
def test_reader_of_a_few_bytes_at_a_time_gets_everything(relay, side):
    """The other side is far ahead: what the edge holds back comes out in order."""
    _, port, listener = relay()
    client, origin = pair(port, listener)
    reading, writing = of_side(side, client, origin)
    reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
    writer = threading.Thread(target=lambda: [writing.sendall(piece(1, at * PERIOD, PERIOD)) for at in range(6)])
    writer.start()
    rng = random.Random(5)
    with client, origin:
        for _ in range(6):
            assert b"".join(recv_exactly(reading, n) for n in split(PERIOD, 3000, rng)) == piece(1, 0, PERIOD)
        writer.join()


def test_a_server_may_speak_first(relay):
    _, port, listener = relay()
    client, origin = pair(port, listener)
    with client, origin:
        origin.sendall(b"220 ready\r\n")
        assert recv_exactly(client, 11) == b"220 ready\r\n"
        client.sendall(b"HELO\r\n")
        assert recv_exactly(origin, 6) == b"HELO\r\n"


@SIDES
@pytest.mark.parametrize("before,after", [(0, 0), (0, 10), (10, 0), (100_000, 100_000)])
def test_urgent_byte_is_not_lost(relay, side, before, after):
    _, port, listener = relay()
    client, origin = pair(port, listener)
    sender, receiver = of_side(side, client, origin)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    with client, origin:
        for _ in range(3):
            sender.sendall(b"a" * before)
            sender.send(b"!", socket.MSG_OOB)
            sender.sendall(b"z" * after)
            assert recv_exactly(receiver, before + 1 + after) == b"a" * before + b"!" + b"z" * after
        sender.send(b"!", socket.MSG_OOB)
        sender.shutdown(socket.SHUT_WR)
        assert recv_all(receiver) == b"!"


# --- ways to end ---

def test_client_may_close_its_direction_first_and_still_be_answered(relay):
    e, port, listener = relay()
    client, origin = pair(port, listener)
    with client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert recv_all(origin) == b"question"
        assert e.flows() == []
        answer = bytes(piece(3, 0, PERIOD))
        with origin:
            origin.sendall(answer)
        assert recv_all(client) == answer
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["bytes_in"], flow["bytes_out"]) == ("done", "client", 8, PERIOD)


def test_origin_may_close_its_direction_first_and_still_be_told_more(relay):
    e, port, listener = relay()
    client, origin = pair(port, listener)
    with origin:
        origin.sendall(b"banner")
        origin.shutdown(socket.SHUT_WR)
        assert recv_all(client) == b"banner"
        with client:
            client.sendall(bytes(piece(4, 0, PERIOD)))
        assert recv_all(origin) == piece(4, 0, PERIOD)
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["bytes_in"], flow["bytes_out"]) == ("done", "origin", PERIOD, 6)


def test_bytes_and_end_of_a_client_that_does_not_wait_reach_the_origin(relay):
    """Sent and closed before the edge has even connected."""
    _, port, listener = relay()
    for i in range(50):
        with connect(port) as client:
            client.sendall(b"fire and forget %d" % i)
        with accept(listener) as origin:
            assert recv_all(origin) == b"fire and forget %d" % i


@SIDES
@pytest.mark.parametrize("unread", [0, 10, 3 * MB], ids=["idle", "unread", "stalled"])
def test_reset_is_passed_on_as_reset(relay, side, unread):
    """Never as an end of stream, with which a stream that was cut would look whole."""
    e, port, listener = relay()
    for _ in range(5):
        client, origin = pair(port, listener)
        resetting, other = of_side(side, client, origin)
        with other:
            client.sendall(b"x")
            assert recv_exactly(origin, 1) == b"x"
            other.setblocking(False)
            sent = 0
            while sent < unread and select.select([], [other], [], 0.2)[1]:
                sent += other.send(bytes(min(unread - sent, 1 << 16)))
            other.settimeout(15)
            reset(resetting)
            assert how_it_ends(other) == "reset"
    for flow in e.wait_flows(5):
        assert (flow["end"], flow["end_side"]) == (f"{side}_reset", side)


@SIDES
def test_reset_right_behind_bytes_ends_in_a_reset(relay, side):
    _, port, listener = relay()
    for i in range(60):
        client, origin = pair(port, listener)
        resetting, other = of_side(side, client, origin)
        with other:
            resetting.sendall(b"b" * (i * 1000 + 1))
            reset(resetting)
            assert how_it_ends(other) == "reset"


@SIDES
def test_close_with_bytes_unread_is_passed_on_as_reset(relay, side):
    """close() in the middle of a stream that comes in: the kernel answers what follows with RST, and so does the edge."""
    e, port, listener = relay()
    client, origin = pair(port, listener)
    closing, pumping = of_side(side, client, origin)

    def pump():
        try:
            while True:
                pumping.sendall(bytes(MB))
        except (ConnectionResetError, BrokenPipeError) as error:
            return error

    with pumping:
        pumping.sendall(bytes(MB))
        recv_exactly(closing, MB)
        pumping.sendall(bytes(1000))
        closing.close()
        assert pump()
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"]) == (f"{side}_reset", side)


@SIDES
def test_everything_sent_before_a_close_arrives_at_a_slow_reader(relay, side):
    e, port, listener = relay()
    client, origin = pair(port, listener)
    closing, reading = of_side(side, client, origin)
    data = bytes(piece(9, 0, PERIOD)) * 8
    thread = threading.Thread(target=lambda: (closing.sendall(data), closing.close()))
    with reading:
        thread.start()
        got = recv_all(reading)
    thread.join()
    assert got == data
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"]) == ("done", side)


def test_any_mix_of_ends_frees_every_flow(edge):
    """Closed, half-closed and reset in every order, with bytes under way: each has one log line, none stays."""
    def behave(connection, peer):
        rng = random.Random(peer[1])
        how = rng.randrange(5)
        if how == 0:
            reset(connection)
        elif how == 1:
            connection.sendall(bytes(rng.randrange(300_000)))
        elif how == 2:
            recv_all(connection)
        elif how == 3:
            connection.shutdown(socket.SHUT_WR)
            recv_all(connection)
        else:
            TcpOrigin.echo(connection, peer)

    rng = random.Random(77)
    port = free_port()
    with TcpOrigin(behave) as origin:
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
        fds = e.fds()
        held = []
        for _ in range(300):
            with contextlib.suppress(OSError):  # it may be reset at any time
                held.append(connect(port))
                held[-1].setblocking(False)
                held[-1].send(bytes(rng.randrange(1, 200_000)))
                if rng.randrange(3) == 0:
                    held[-1].shutdown(socket.SHUT_WR)
            if len(held) >= 20:
                for client in held:
                    (reset if rng.randrange(2) else socket.socket.close)(client)
                held = []
        for client in held:
            client.close()
        wait_until(lambda: len(e.flows()) == 300, what="300 log lines")
        # a connection that is reset before the edge has seen it stand was refused
        assert {f["end"] for f in e.flows()} <= {"done", "client_reset", "origin_reset", "connect_refused"}
        wait_until(lambda: e.fds() == fds, what="all descriptors closed")
        wait_metric(e, 0, "flows_active")
        wait_metric(e, 0, "node_flows")


# --- connecting ---

def test_refused_origin_resets_the_client(edge):
    port, closed = free_port(), free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {closed} off off\n")
    assert how_connecting_ends(port) == "reset"
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["origin"]) == ("connect_refused", "origin", f"127.0.0.1:{closed}")
    assert (flow["connect_ms"], flow["bytes_in"], flow["bytes_out"]) == (None, 0, 0)
    assert e.metric("flows_ended_total", end="connect_refused") == 1
    assert e.metric("connect_seconds_count") == 0


@pytest.fixture
def blackhole():
    """The port of an origin that does not answer: its accept queue is full, so the kernel drops every SYN."""
    listener = listen(backlog=0)
    first = connect(port_of(listener))
    late = socket.socket()
    late.setblocking(False)
    late.connect_ex(listener.getsockname())
    assert not select.select([], [late], [], 0.1)[1], "the queue is not full"
    yield port_of(listener)
    for s in (first, late, listener):
        s.close()


def test_silent_origin_times_out(edge, blackhole):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {blackhole} off off connect_timeout=300ms\n")
    assert how_connecting_ends(port) == "reset"
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["connect_ms"]) == ("connect_timeout", "origin", None)
    assert 300 <= flow["duration_ms"] < 3000


def test_client_that_resets_while_connecting_ends_the_flow(edge, blackhole):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 {blackhole} off off connect_timeout=1m\n")
    client = connect(port)
    wait_metric(e, 1, "node_flows")
    reset(client)
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["end_side"], flow["connect_ms"]) == ("client_reset", "client", None)


# --- time ---

def test_idle_flow_ends_while_an_active_one_stays(relay):
    """The active flow is the clock: it goes on until the idle one is over."""
    e, port, listener = relay("idle_timeout=1s")
    idle, idle_origin = pair(port, listener)
    active, active_origin = pair(port, listener)
    with idle, idle_origin, active, active_origin:
        rounds = 0
        while not select.select([idle], [], [], 0.05)[0]:
            (active, active_origin)[rounds % 2].sendall(b".")
            recv_exactly((active_origin, active)[rounds % 2], 1)
            rounds += 1
        assert (how_it_ends(idle), how_it_ends(idle_origin)) == ("fin", "fin")
        active.sendall(b"still there")
        assert recv_exactly(active_origin, 11) == b"still there"
        flow, = e.wait_flows(1)
        assert (flow["end"], flow["end_side"], flow["bytes_in"]) == ("idle", "edge", 0)
        assert 1000 <= flow["duration_ms"] < 2500


def test_half_closed_flow_is_idle_too(relay):
    e, port, listener = relay("idle_timeout=1s")
    client, origin = pair(port, listener)
    with client, origin:
        client.shutdown(socket.SHUT_WR)
        assert recv_all(origin) == b""
        assert how_it_ends(client) == "fin"
        flow, = e.wait_flows(1)
        assert (flow["end"], flow["end_side"]) == ("idle", "edge")


@pytest.mark.slow
@own_network()
def test_keepalive_finds_peers_that_are_gone(edge, carrier):
    """Nothing that is sent to 127.0.0.5 and 127.0.0.6 arrives any more, without a word to anybody."""
    one, two = free_port(), free_port()
    with TcpOrigin() as origin, TcpOrigin(address="127.0.0.6") as far:
        e = edge(f"tcp:{one} 127.0.0.1 {origin.port} off off keepalive=1s\n"
                 f"tcp:{two} 127.0.0.6 {far.port} off off keepalive=1s\n")
        lost, left, stays = connect(one, source="127.0.0.5"), connect(two), connect(one)
        assert echoes(lost) and echoes(left) and echoes(stays)
        if carrier == "fast path":
            wait_until(lambda: all(map(echoes, (lost, left, stays))) and e.metric("tcp_fast_flows") == 3, what="carried flows")
        subprocess.run(["nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; "
                        "add rule ip t in ip daddr { 127.0.0.5, 127.0.0.6 } drop"], check=True)
        left.settimeout(40)
        assert how_it_ends(left) == "reset"
        flows = e.wait_flows(2)
        assert {(f["end"], f["end_side"], f["edge"].rpartition(":")[2]) for f in flows} == {
            ("client_lost", "client", str(one)), ("origin_lost", "origin", str(two))}
        assert echoes(stays)
        for s in (lost, left, stays):
            s.close()


# --- slow peers and memory ---

def pump_until_stuck(s, seed):
    """Sends a stream until nothing more is taken for a second. Returns how much was sent, and how much has left us."""
    sent = 0
    s.setblocking(False)
    while select.select([], [s], [], 1.0)[1]:
        sent += s.send(piece(seed, sent, 1 << 18))
    waiting, = struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))
    s.settimeout(15)
    return sent, sent - waiting


@SIDES
@pytest.mark.slow
def test_peer_that_never_reads_makes_the_other_wait_in_bounded_memory(relay, side):
    e, port, listener = relay(workers=1)
    client, origin = pair(port, listener)
    stuck, pumping = of_side(side, client, origin)
    with client, origin:
        before = e.rss_bytes()
        sent, taken = pump_until_stuck(pumping, seed=6)
        assert 1 * MB < taken < 20 * MB
        assert e.rss_bytes() - before < 16 * MB
        # what was taken is delivered, in order, when it is read at last
        pumping.shutdown(socket.SHUT_WR)
        got = 0
        while part := stuck.recv(PERIOD):
            assert part == piece(6, got, len(part))
            got += len(part)
        assert got == sent


@pytest.mark.slow
@own_network(ipv4__tcp_wmem="4096 16384 262144", ipv4__tcp_rmem="4096 2097152 33554432")
def test_600_stalled_readers_stop_nobody_and_lose_nothing(edge):
    """More than the buffers of a worker can keep: the edge stands still while its receive buffers fill, and then finds
    that no client reads. Who reads is served as ever, and all is delivered in the end."""
    port, echo_port = free_port(), free_port()
    with StreamOrigin(chunk=1 << 18, held=True) as origin, TcpOrigin() as echo:
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\ntcp:{echo_port} 127.0.0.1 {echo.port} off off\n",
                 workers=1)
        before = e.rss_bytes()
        clients = Clients()
        stalled = [clients.start(Job(port, 0, 2 * MB, 1 << 18, receive_buffer=1 << 16), paused=True) for _ in range(600)]
        clients.run()
        wait_until(lambda: sum(x.header is None for x in origin.ends) == 600, what="all headers at the origin")
        e.signal(signal.SIGSTOP)
        origin.release()
        wait_until(lambda: min(x.sent for x in origin.ends) > 600_000, what="the edge's receive buffers to fill")
        e.signal(signal.SIGCONT)
        wait_until(lambda: e.metric("relay_peeks_total") > 10, what="the buffers to be used up")
        with connect(echo_port) as c:
            for _ in range(10):
                assert echoes(c, bytes(piece(1, 0, 300_000)))
        exchange([Job(port, 100_000, 100_000) for _ in range(20)])
        assert e.rss_bytes() - before < 80 * MB
        for end in stalled:
            clients.resume(end)
        clients.run(timeout=90)
        assert clients.finished == 600 and origin.problems == []
        wait_until(lambda: e.rss_bytes() - before < 20 * MB, what="memory to be given back")


# --- ports and families ---

def test_ports_lists_and_ranges_go_where_the_rule_says(edge):
    """Each origin port answers with its own number."""
    first, origins = free_ports(5), free_ports(5)
    lone, low = free_port(), free_ports(2)

    def tell(connection, peer):
        connection.sendall(b"%d" % port_of(connection))

    def reached(port):
        with connect(port) as c:
            return int(recv_all(c))

    servers = [TcpOrigin(tell, port=origins + i) for i in range(5)]
    try:
        e = edge(f"tcp:{first}-{first + 4} 127.0.0.1 {origins}-{origins + 4} off off offset\n"
                 f"TCP:{lone};{low}-{low + 1}\t127.0.0.1 {origins + 3} OFF Off list\n")
        assert [reached(first + i) for i in range(5)] == [origins + i for i in range(5)]
        assert [reached(p) for p in (lone, low, low + 1)] == [origins + 3] * 3
        flows = e.wait_flows(8)
        assert {(f["tag"], f["edge"], f["origin"]) for f in flows} == (
            {("offset", f"127.0.0.1:{first + i}", f"127.0.0.1:{origins + i}") for i in range(5)} |
            {("list", f"127.0.0.1:{p}", f"127.0.0.1:{origins + 3}") for p in (lone, low, low + 1)})
    finally:
        for s in servers:
            s.close()


@pytest.mark.parametrize("client_address,origin_address", [("127.0.0.1", "::1"), ("::1", "127.0.0.1"), ("::1", "::1")])
def test_families_may_differ_between_client_and_origin(edge, client_address, origin_address):
    port = free_port()
    with TcpOrigin(address=origin_address) as origin:
        written = f"[{origin_address}]" if ":" in origin_address else origin_address
        e = edge(f"tcp:{port} {written} {origin.port} off off\n")
        with connect(port, client_address) as c:
            assert echoes(c, bytes(piece(2, 0, 500_000)))
            host = c.getsockname()[:2]
        flow, = e.wait_flows(1)

    def text(host, port):
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    assert (flow["client"], flow["edge"], flow["origin"]) == (
        text(*host), text(client_address, port), text(origin_address, origin.port))


# --- the log line ---

def test_flow_log_line_has_every_field_of_the_table(edge):
    with open(os.path.join(ROOT, "tables", "flow_field.def")) as f:
        names = re.findall(r"^FIELD\((\w+), ", f.read(), re.MULTILINE)
    port = free_port()
    with TcpOrigin() as origin:
        e = edge(f"set node name=node-7\ntcp:{port} 127.0.0.1 {origin.port} off off \"tag with \\\"quotes\\\" é\"\n")
        with connect(port, source="127.0.0.77") as c:
            assert echoes(c, b"12345")
            client_port = port_of(c)
            wait_metric(e, 5, "bytes_out_total")  # counted while the flow runs
        flow, = e.wait_flows(1)
    assert list(flow) == names
    rule, = re.findall(r'flows_total\{rule="(rule-[0-9a-z]{10})"', e.metrics_text())
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(shape, flow["time"]) and re.fullmatch(shape, flow["start"]) and flow["start"] <= flow["time"]
    assert re.fullmatch(r"flow-[0-9a-f]+-[0-9a-f]+", flow["flow"])
    assert 0 <= flow["duration_ms"] < 5000
    assert isinstance(flow["connect_ms"], float) and 0 < flow["connect_ms"] < 1000
    expected = {
        "protocol": "tcp", "rule": rule, "tag": 'tag with "quotes" é', "client": f"127.0.0.77:{client_port}",
        "edge": f"127.0.0.1:{port}", "origin": f"127.0.0.1:{origin.port}", "bytes_in": 5, "bytes_out": 5,
        "datagrams_in": 0, "datagrams_out": 0, "end": "done", "end_side": "client", "node": "node-7",
    }
    assert {k: flow[k] for k in expected} == expected


def test_an_early_answer_before_a_reset_reaches_the_client(edge):
    """The origin refuses an upload: it answers, and closes with bytes unread, which resets the connection."""
    answer = b"413 too much\n"

    def refuse(connection, peer):
        connection.recv(1000)
        connection.sendall(answer)

    port = free_port()
    with TcpOrigin(refuse) as origin:
        edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
        for _ in range(30):
            with connect(port) as client:
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    for _ in range(200):
                        client.sendall(bytes(50000))
                assert client.recv(100) == answer
