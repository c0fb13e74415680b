# SPDX-License-Identifier: Apache-2.0
"""TCP flows on the kernel's fast path: handed over, carried, and ended in every way there is. What every relay must do is in
test_tcp.py, which runs on the fast path too."""
import contextlib
import fcntl
import os
import random
import select
import signal
import socket
import struct
import subprocess
import termios
import threading

import pytest

from harness import (TcpOrigin, accept, connect, free_port, how_it_ends, listen, own_network, port_of, recv_all, recv_exactly,
                     reset, wait_metric, wait_until)
from streams import PERIOD, Job, StreamOrigin, exchange, piece

MB = 1 << 20
EARLY = "set node tcp_fast_path_after=1\n"
SIDES = pytest.mark.parametrize("side", ["client", "origin"])
ADDRESSES = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])


def of_side(side, client, origin):
    """The two ends, that of `side` first."""
    return (client, origin) if side == "client" else (origin, client)


def ping(client, origin, count=1):
    for _ in range(count):
        client.sendall(b"question")
        assert recv_exactly(origin, 8) == b"question"
        origin.sendall(b"answer")
        assert recv_exactly(client, 6) == b"answer"


@pytest.fixture
def fast(edge):
    """start(options="") -> (edge, client, origin, pings): a flow that the kernel carries; more=n for n more of them."""
    opened = []

    def start(options="", address="127.0.0.1", settings=EARLY, more=0, **kwargs):
        port, listener = free_port(), listen(address)
        opened.append(listener)
        host = f"[{address}]" if ":" in address else address
        e = edge(f"{settings}tcp:{port} {host} {port_of(listener)} off off {options}\n", **kwargs)
        pairs = []
        for n in range(more + 1):
            client = connect(port, address)
            origin = accept(listener)
            opened.extend((client, origin))
            pings = 0
            while e.metric("tcp_fast_flows") <= n:
                pings += 1
                assert pings < 1000, "never handed over"
                ping(client, origin)
            pairs.append((client, origin, pings))
        if more:
            return e, pairs
        return e, *pairs[0]

    yield start
    for s in opened:
        s.close()


def last_flow(e, **expected):
    flow = e.wait_flows(1)[-1]
    assert {k: flow[k] for k in expected} == expected, flow
    return flow


# --- handing over ---

@ADDRESSES
def test_requests_and_answers_are_carried_and_counted(fast, address):
    e, client, origin, pings = fast(address=address)
    assert e.status()["tcp_fast_path"] == "on"
    ping(client, origin, 500)
    wait_until(lambda: e.metric("tcp_fast_bytes_total") >= 500 * 14 - 100, what="the counters to be read")
    assert e.metric("bytes_in_total") >= (pings + 500) * 8 - 100  # while the flow runs
    client.close()
    assert recv_all(origin) == b""
    origin.close()
    last_flow(e, end="done", end_side="client", bytes_in=(pings + 500) * 8, bytes_out=(pings + 500) * 6)
    wait_metric(e, 0, "tcp_fast_flows")
    wait_metric(e, 0, "flows_active")
    wait_metric(e, 0, "node_flows")


def pump(sending, reading, size):
    """Sends `size` bytes without a pause and checks each at its place."""
    writer = threading.Thread(target=lambda: [sending.sendall(piece(1, 0, PERIOD)) for _ in range(size // PERIOD)])
    writer.start()
    for _ in range(size // PERIOD):
        assert recv_exactly(reading, PERIOD) == piece(1, 0, PERIOD)
    writer.join()


@SIDES
@ADDRESSES
def test_a_stream_that_never_pauses_is_handed_over(edge, side, address):
    """Hundreds of megabytes in one direction, and every byte in its place."""
    size = 600 * PERIOD
    port, listener = free_port(), listen(address)
    host = f"[{address}]" if ":" in address else address
    e = edge(f"tcp:{port} {host} {port_of(listener)} off off\n")
    with listener, connect(port, address) as client, accept(listener) as origin:
        pump(*of_side(side, client, origin), size)
    last_flow(e, end="done", bytes_in=size if side == "client" else 0, bytes_out=size if side == "origin" else 0)
    assert e.metric("tcp_fast_flows_total") == 1
    assert e.metric("tcp_fast_bytes_total") > size / 2


def test_short_flows_are_left_alone(edge):
    with TcpOrigin() as origin:
        port = free_port()
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
        for _ in range(50):
            with connect(port) as client:
                client.sendall(b"x" * 1000)
                assert recv_exactly(client, 1000)
        e.wait_flows(50)
        for name in ("flows_total", "busy_total", "unseen_total", "options_total", "full_total"):
            assert e.metric("tcp_fast_" + name) == 0


@pytest.mark.parametrize("rules,args,state", [
    ("set node tcp_fast_path=off\n", (), "off: tcp_fast_path=off"),
    ("", ("--no-bpf",), "off: --no-bpf"),
])
def test_it_can_be_turned_off(edge, rules, args, state):
    with StreamOrigin() as origin:
        port = free_port()
        e = edge(f"{EARLY}{rules}tcp:{port} 127.0.0.1 {origin.port} off off\n", *args)
        exchange([Job(port, 5 * MB, 5 * MB)])
        assert e.status()["tcp_fast_path"] == state
        assert e.metric("tcp_fast_flows_total") == 0


def test_udp_and_tcp_are_switched_separately(edge):
    with TcpOrigin() as origin:
        e = edge(f"set node udp_fast_path=off\ntcp:{free_port()} 127.0.0.1 {origin.port} off off\n")
        assert (e.status()["udp_fast_path"], e.status()["tcp_fast_path"]) == ("off: udp_fast_path=off", "on")


def test_families_that_differ_stay_in_user_space(edge):
    with StreamOrigin(address="::1") as origin:
        port = free_port()
        e = edge(f"{EARLY}tcp:{port} [::1] {origin.port} off off\n")
        exchange([Job(port, 5 * MB, 5 * MB)])
        assert (e.metric("tcp_fast_flows_total"), e.metric("tcp_fast_route_total")) == (0, 1)


def sysctl(name, value):
    with open(f"/proc/sys/net/ipv4/{name}", "w") as f:
        f.write(str(value))


@pytest.mark.parametrize("option", ["tcp_timestamps", "tcp_sack", "tcp_window_scaling"])
@own_network()
def test_flows_without_an_option_are_carried(edge, option):
    sysctl(option, 0)
    port, listener = free_port(), listen()
    e = edge(f"{EARLY}tcp:{port} 127.0.0.1 {port_of(listener)} off off\n")
    with listener, connect(port) as client, accept(listener) as origin:
        ping(client, origin, 50)
        wait_metric(e, 1, "tcp_fast_flows")
        pump(client, origin, 30 * PERIOD)
        pump(origin, client, 30 * PERIOD)


@pytest.fixture
def small_buffer(edge):
    """start(side, bytes) -> (edge, client, origin): that side has a small receive buffer, and so another window scale than
    the edge."""
    @contextlib.contextmanager
    def start(side, size):
        port, listener = free_port(), listen()
        client = socket.socket()
        client.settimeout(15)
        of_side(side, client, listener)[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        e = edge(f"{EARLY}tcp:{port} 127.0.0.1 {port_of(listener)} off off\n")
        client.connect(("127.0.0.1", port))
        with listener, client, accept(listener) as origin:
            ping(client, origin, 50)
            yield e, client, origin
    return start


@SIDES
@own_network()
def test_window_scales_are_translated(small_buffer, side):
    with small_buffer(side, 128 << 10) as (e, client, origin):
        wait_metric(e, 1, "tcp_fast_flows")
        pump(client, origin, 50 * PERIOD)
        pump(origin, client, 50 * PERIOD)


@SIDES
@own_network()
def test_windows_smaller_than_a_segment_of_loopback_stay_in_user_space(small_buffer, side):
    """The sender would wait for room that never comes, and send on by its timer only."""
    with small_buffer(side, 16 << 10) as (e, client, origin):
        pump(client, origin, 2 * PERIOD)
        pump(origin, client, 2 * PERIOD)
        assert (e.metric("tcp_fast_flows_total"), e.metric("tcp_fast_mtu_total")) == (0, 1)


# --- carried ---

@SIDES
def test_back_pressure_reaches_from_end_to_end(fast, side):
    """Nobody reads: the sender is stopped by the reader's window, and goes on when it reads again."""
    e, client, origin, _ = fast()
    sending, reading = of_side(side, client, origin)
    sending.setblocking(False)
    sent = 0
    while select.select([], [sending], [], 0.3)[1]:
        sent += sending.send(piece(1, sent % PERIOD, min(PERIOD - sent % PERIOD, 1 << 16)))
    assert 0 < sent < 200 * MB
    assert recv_exactly(reading, sent) == (bytes(piece(1, 0, PERIOD)) * (sent // PERIOD + 1))[:sent]
    sending.settimeout(15)
    ping(client, origin, 10)


@SIDES
def test_half_close_is_carried(fast, side):
    e, client, origin, pings = fast()
    closing, other = of_side(side, client, origin)
    closing.sendall(b"last words")
    closing.shutdown(socket.SHUT_WR)
    assert recv_all(other) == b"last words"
    assert e.metric("tcp_fast_flows") == 1
    data = bytes(piece(3, 0, PERIOD))
    other.sendall(data)
    other.close()
    assert recv_all(closing) == data
    closing.close()
    up, down = (10, PERIOD) if side == "client" else (PERIOD, 10)
    last_flow(e, end="done", end_side=side, bytes_in=pings * 8 + up, bytes_out=pings * 6 + down)


@SIDES
@pytest.mark.parametrize("unread", [0, 3 * MB], ids=["idle", "stalled"])
def test_reset_is_carried(fast, side, unread):
    e, client, origin, _ = fast()
    resetting, other = of_side(side, client, origin)
    other.setblocking(False)
    sent = 0
    while sent < unread and select.select([], [other], [], 0.2)[1]:
        sent += other.send(bytes(min(unread - sent, 1 << 16)))
    other.settimeout(15)
    reset(resetting)
    assert how_it_ends(other) == "reset"
    last_flow(e, end=f"{side}_reset", end_side=side)
    wait_metric(e, 0, "tcp_fast_flows")


@SIDES
def test_urgent_byte_is_carried(fast, side):
    _, client, origin, _ = fast()
    sender, receiver = of_side(side, client, origin)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    for _ in range(3):
        sender.sendall(b"a" * 1000)
        sender.send(b"!", socket.MSG_OOB)
        sender.sendall(b"z" * 1000)
        assert recv_exactly(receiver, 2001) == b"a" * 1000 + b"!" + b"z" * 1000


def test_reload_and_other_rules_leave_a_carried_flow_alone(fast, edge):
    e, client, origin, _ = fast()
    rules = e.rules_path.read_text()
    for i in range(5):
        assert e.reload(rules + f"tcp:{free_port()} 127.0.0.1 9 off off\n" * (i % 2)).startswith("ok")
        ping(client, origin, 5)
    assert e.metric("tcp_fast_flows") == 1


def test_ports_are_used_again_at_once(edge):
    """The same client port, again and again: what is left of a flow must not touch the next one."""
    with TcpOrigin() as origin:
        port, mine = free_port(), free_port()
        e = edge(f"{EARLY}tcp:{port} 127.0.0.1 {origin.port} off off\n")
        for n in range(20):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.settimeout(15)
            s.bind(("127.0.0.1", mine))
            s.connect(("127.0.0.1", port))
            for i in range(60):
                data = b"%d %d" % (n, i)
                s.sendall(data)
                assert recv_exactly(s, len(data)) == data
            reset(s)
        e.wait_flows(20, end="client_reset")
        assert e.metric("tcp_fast_flows_total") >= 15


# --- keep-alive ---

def after_probes(e, count):
    """Waits until so many more probes are sent; what is not answered four times is over."""
    before = e.metric("tcp_fast_probes_total")
    wait_until(lambda: e.metric("tcp_fast_probes_total") >= before + count or e.metric("tcp_fast_flows") == 0, 30, "probes")
    assert e.metric("tcp_fast_flows") == 1, e.flows()


@pytest.mark.slow
@ADDRESSES
def test_ends_that_are_there_answer_keep_alive(fast, address):
    e, client, origin, _ = fast("keepalive=1s", address=address)
    after_probes(e, 12)
    ping(client, origin, 100)
    after_probes(e, 4)
    client.close()
    assert recv_all(origin) == b""


@pytest.mark.slow
@own_network()
def test_keep_alive_without_time_stamps(fast):
    sysctl("tcp_timestamps", 0)
    e, client, origin, _ = fast("keepalive=1s")
    after_probes(e, 12)
    ping(client, origin, 100)


@SIDES
@pytest.mark.slow
def test_keep_alive_of_a_half_closed_flow(fast, side):
    e, client, origin, _ = fast("keepalive=1s")
    closing, other = of_side(side, client, origin)
    closing.shutdown(socket.SHUT_WR)
    assert recv_all(other) == b""
    after_probes(e, 12)
    other.sendall(b"still here")
    other.close()
    assert recv_all(closing) == b"still here"
    closing.close()
    last_flow(e, end="done", end_side=side)


@SIDES
@pytest.mark.slow
def test_keep_alive_leaves_a_stopped_stream_alone(fast, side):
    """An end that reads nothing is there all the same, and its window is what it says."""
    e, client, origin, _ = fast("keepalive=1s")
    sending, reading = of_side(side, client, origin)
    sending.setblocking(False)
    sent = 0
    while select.select([], [sending], [], 0.3)[1]:
        sent += sending.send(piece(1, sent % PERIOD, min(PERIOD - sent % PERIOD, 1 << 16)))
    after_probes(e, 6)
    assert not select.select([], [sending], [], 0)[1]
    assert recv_exactly(reading, sent) == (bytes(piece(1, 0, PERIOD)) * (sent // PERIOD + 1))[:sent]
    sending.settimeout(15)
    ping(client, origin, 10)


def test_keep_alive_can_be_off_and_comes_with_a_reload(fast):
    e, client, origin, _ = fast("keepalive=0")
    assert not select.select([client], [], [], 2.5)[0]
    assert e.metric("tcp_fast_probes_total") == 0
    assert e.reload(e.rules_path.read_text().replace("keepalive=0", "keepalive=1s")).startswith("ok")
    after_probes(e, 1)


TCP_REPAIR = 19


@SIDES
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_end_that_has_forgotten_the_flow_is_found(fast, side, address):
    """As after a restart of its machine: it answers a probe with a reset."""
    e, client, origin, _ = fast("keepalive=1s", address=address)
    forgetting, other = of_side(side, client, origin)
    forgetting.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    forgetting.close()
    assert how_it_ends(other) == "reset"
    last_flow(e, end=f"{side}_reset", end_side=side)


def unconfirmed(s):
    return struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]


@SIDES
@pytest.mark.slow
@pytest.mark.parametrize("sending", [False, True], ids=["idle", "while the other sends"])
@own_network()
def test_an_end_that_is_gone_is_lost(edge, side, sending):
    """Also when the other end goes on sending, again and again."""
    port, listener = free_port(), listen("127.0.0.6")
    e = edge(f"{EARLY}tcp:{port} 127.0.0.6 {port_of(listener)} off off keepalive=1s\n")
    with listener, connect(port, source="127.0.0.5") as client, accept(listener) as origin:
        ping(client, origin, 50)
        wait_metric(e, 1, "tcp_fast_flows")
        gone, other = of_side(side, client, origin)
        wait_until(lambda: unconfirmed(gone) == 0, what="the last confirmation: it would be repeated")
        to, port = ("127.0.0.5" if side == "client" else "127.0.0.6"), port_of(gone)
        subprocess.run(["nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; "
                        f"add rule ip t in ip daddr {to} tcp dport {port} drop"], check=True)
        if sending:
            other.sendall(b"anybody?")
        assert how_it_ends(other) == "reset"
        assert last_flow(e, end=f"{side}_lost", end_side=side)["duration_ms"] < 10000


# --- ends that come from the edge ---

def test_idle_flow_ends_like_one_in_user_space(fast):
    e, client, origin, _ = fast("idle_timeout=1s")
    assert (how_it_ends(client), how_it_ends(origin)) == ("fin", "fin")
    last_flow(e, end="idle", end_side="edge")


def test_activity_in_the_kernel_is_no_idleness(fast):
    """The idle time of the carried flow is over long before that of the pinging ends."""
    e, pairs = fast("idle_timeout=1s", more=1)
    (client, origin, _), (idle, idle_origin, _) = pairs
    while not select.select([idle], [], [], 0.05)[0]:
        ping(client, origin)
    ping(client, origin)
    flow, = e.wait_flows(1)
    assert flow["end"] == "idle" and flow["duration_ms"] < 4000


def test_removed_rule_resets_a_carried_flow_after_the_drain_time(fast):
    e, client, origin, _ = fast(drain=1)
    assert e.reload(f"tcp:{free_port()} 127.0.0.1 {free_port()} off off\n").startswith("ok")
    ping(client, origin, 3)
    assert (how_it_ends(client), how_it_ends(origin)) == ("reset", "reset")
    last_flow(e, end="rule_removed", end_side="edge")


def test_stop_waits_for_carried_flows(fast):
    e, client, origin, pings = fast()
    os.kill(e.pid, signal.SIGTERM)
    wait_until(lambda: "stopping" in e.stderr(), what="the stop to begin")
    ping(client, origin, 10)
    client.close()
    assert recv_all(origin) == b""
    origin.close()
    assert e.process.wait(15) == 0
    flow, = e.flows()
    assert (flow["end"], flow["bytes_in"]) == ("done", (pings + 10) * 8)


def test_second_signal_resets_carried_flows(fast):
    e, client, origin, _ = fast()
    os.kill(e.pid, signal.SIGTERM)
    wait_until(lambda: "stopping" in e.stderr(), what="the stop to begin")
    os.kill(e.pid, signal.SIGTERM)
    assert (how_it_ends(client), how_it_ends(origin)) == ("reset", "reset")
    assert e.process.wait(15) == 0
    flow, = e.flows()
    assert (flow["end"], flow["end_side"]) == ("shutdown", "edge")


def test_death_of_the_edge_resets_carried_flows(fast):
    e, client, origin, _ = fast()
    e.process.kill()
    e.process.wait()
    for end in (client, origin):
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                end.sendall(b"anybody?")
                end.recv(1)
    e.stop_clean = lambda: None  # it did not stop cleanly, which was the point


def test_death_of_the_origin_ends_the_flow(edge, program):
    """The kernel closes what a killed process had open: here with bytes unread, so with a reset."""
    port, origin_port = free_port(), free_port()
    code = ("import socket, time; l = socket.create_server(('127.0.0.1', %d)); c = l.accept()[0]\n"
            "for i in range(200): c.sendall(c.recv(100))\n"
            "print('stopped', flush=True); time.sleep(100)" % origin_port)
    server = program(["/usr/bin/python3", "-c", code])
    e = edge(f"{EARLY}tcp:{port} 127.0.0.1 {origin_port} off off\n")
    wait_until(lambda: listening(origin_port), what="the origin")
    with connect(port) as client:
        for i in range(200):
            client.sendall(b"x" * 100)
            recv_exactly(client, 100)
        wait_metric(e, 1, "tcp_fast_flows")
        client.sendall(b"unread")
        server.process.kill()
        assert how_it_ends(client) == "reset"
    last_flow(e, end="origin_reset", end_side="origin")


def listening(port):
    with open("/proc/net/tcp") as f:
        return f":{port:04X} 00000000:0000 0A" in f.read()


# --- many ---

@pytest.mark.slow
@ADDRESSES
def test_thousands_of_flows_arrive_intact_while_they_are_handed_over(edge, address):
    """Random sizes both ways at once, handed over whenever there is a moment for it."""
    rng = random.Random(99)

    def size():
        return rng.choice([0, 1, rng.randrange(2000), rng.randrange(200_000), rng.randrange(2 * MB)])

    with StreamOrigin(address=address) as origin:
        port = free_port()
        host = f"[{address}]" if ":" in address else address
        e = edge(f"{EARLY}tcp:{port} {host} {origin.port} off off\n")
        jobs = [Job(port, size(), size(), rng.choice([1000, 65536, PERIOD]), address) for _ in range(1500)]
        exchange(jobs, at_once=60, seed=99, timeout=180)
        flows = e.wait_flows(len(jobs), end="done")
        assert sorted((f["bytes_in"], f["bytes_out"]) for f in flows) == sorted((24 + j.up, j.down) for j in jobs)
        assert origin.problems == []
        assert e.metric("tcp_fast_flows_total") > 100
        wait_metric(e, 0, "tcp_fast_flows")
        wait_metric(e, 0, "node_flows")
