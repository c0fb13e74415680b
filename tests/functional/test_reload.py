# SPDX-License-Identifier: Apache-2.0
"""Changes of configuration, and stopping: what they must not touch, and what they end. With both ways of listening."""
import signal
import socket
import threading
import time

import pytest

from harness import (TcpOrigin, UdpOrigin, connect, echoes, free_port, free_ports, how_connecting_ends, how_it_ends,
                     port_of, recv_all, recv_exactly, refused, udp_client, wait_metric, wait_until)
from streams import Job, StreamOrigin, exchange


@pytest.fixture(params=["steered", "no-bpf"])
def start(request, edge):
    def start(rules, *args, **kwargs):
        return edge(rules, *args, *(["--no-bpf"] if request.param == "no-bpf" else []), **kwargs)
    return start


@pytest.fixture
def origin():
    with TcpOrigin() as o:
        yield o


def rule(port, origin, more="", protocol="tcp"):
    return f"{protocol}:{port} {origin.address} {origin.port} off off {more}\n"


def named(name):
    """An origin that says its name, and then echoes."""
    def handle(connection, peer):
        connection.sendall(name)
        TcpOrigin.echo(connection, peer)
    return TcpOrigin(handle)


# --- refusals ---

BAD = "tcp:70000 127.0.0.1 80 off off\ntcp:81 127.0.0.1 80 maybe off\n"


def errors(path):
    return (f"{path}:1:5: edge port 70000, expected 1-65535\n"
            f'{path}:2:21: session persistence "maybe", expected on or off\n')


def test_bad_file_is_refused_with_every_error_and_the_old_rules_serve_on(start, origin):
    port = free_port()
    good = rule(port, origin)
    e = start(good)
    with connect(port) as running:
        assert echoes(running)
        assert e.reload(BAD) == "error refused, the old rules stay in force\n" + errors(e.rules_path)
        assert echoes(running) and not refused(port)
    status = e.status()
    assert (status["version"], status["reloads"]["applied"], status["reloads"]["refused"]) == (1, 0, 1)
    assert e.control("rules") == good.replace(" \n", "\n")
    e.rules_path.unlink()
    assert e.reload() == f"error refused, the old rules stay in force\n{e.rules_path}: No such file or directory\n"
    assert e.reload(good).startswith("ok version 2 applied: 1 rules, ")
    assert not refused(port)


def test_sighup_reloads_or_says_why_not(start, origin):
    one, two = free_port(), free_port()
    e = start(rule(one, origin))
    e.rules_path.write_text(BAD)
    e.signal(signal.SIGHUP)
    wait_until(lambda: "reload refused, version 1 stays in force" in e.stderr(), what="the refusal")
    assert all(line in e.stderr() for line in errors(e.rules_path).splitlines())
    assert e.metric("reloads_total", result="refused") == 1
    assert not refused(one)
    e.rules_path.write_text(rule(two, origin))
    e.signal(signal.SIGHUP)
    wait_until(lambda: e.metric("reloads_total", result="applied") == 1, what="the reload")
    assert how_connecting_ends(one) == "refused" and not refused(two)
    assert e.metric("config_version") == 2


# --- what does not change is not touched ---

@pytest.mark.slow
def test_flows_of_unchanged_rules_go_on_over_20_reloads_under_traffic(start, origin):
    """A TCP stream and an echo, and a UDP session, while other rules come, go and change place in the file."""
    tcp, echo, udp, other = free_port(), free_port(), free_port(), free_ports(20)
    with StreamOrigin() as streams, UdpOrigin() as udp_origin:
        kept = [rule(tcp, streams), rule(echo, origin), rule(udp, udp_origin, protocol="udp")]
        e = start("".join(kept), drain=1)
        stop = threading.Event()
        failures, rounds = [], []

        def traffic():
            try:
                while not stop.is_set():
                    exchange([Job(tcp, 1 << 20, 1 << 20) for _ in range(4)])
                    rounds.append(4)
            except AssertionError as failure:
                failures.append(failure)

        thread = threading.Thread(target=traffic)
        with connect(echo) as flow, udp_client(udp) as session:
            thread.start()
            for i in range(20):
                answer = e.reload("".join([rule(other + i, origin)] * (i % 3 > 0) + (kept[::-1] if i % 2 else kept)))
                assert answer.startswith(f"ok version {i + 2} applied"), answer
                assert echoes(flow, b"%d" % i * 1000)
                session.send(b"datagram %d" % i)
                assert session.recv(100) == b"datagram %d" % i
            stop.set()
            thread.join()
        assert failures == [] and streams.problems == []
        assert len({udp_origin.received.get_nowait()[1] for _ in range(20)}) == 1, "one session"
        done = e.wait_flows(1 + sum(rounds), protocol="tcp", end="done")  # the origin may still be reading
    assert sum(f["bytes_in"] for f in done) == e.metric("bytes_in_total", protocol="tcp")
    assert {f["end"] for f in e.flows()} == {"done"}


def test_counters_of_a_rule_survive(start, origin):
    port, other = free_port(), free_port()
    e = start(rule(port, origin))
    with connect(port) as flow:
        assert echoes(flow, b"12345")
        assert e.reload(rule(other, origin) + rule(port, origin, "idle_timeout=10m new tag")).startswith("ok")
        assert echoes(flow, b"678")
        assert (e.metric("flows_total", tag="new tag"), e.metric("flows_active", tag="new tag")) == (1, 1)
    e.wait_flows(1, tag="new tag", bytes_in=8)
    assert e.metric("bytes_in_total", tag="new tag") == 8
    wait_metric(e, 0, "flows_active")


def test_changed_options_keep_the_flow_and_hold_for_it(start, origin):
    port = free_port()
    e = start(rule(port, origin))
    with connect(port) as flow:
        assert echoes(flow)
        assert e.reload(rule(port, origin, "max_flows=1 idle_timeout=1s")).startswith("ok")
        assert echoes(flow)
        assert how_connecting_ends(port) == "reset", "the running flow counts"
        assert e.reload(rule(port, origin, "max_flows=2 idle_timeout=1h")).startswith("ok")
        assert not refused(port)
        assert echoes(flow)


def test_settings_of_the_node_change_too(start, origin):
    port = free_port()
    e = start("set node name=before max_flows=1\n" + rule(port, origin))
    with connect(port) as flow:
        assert echoes(flow)
        assert how_connecting_ends(port) == "reset"
        assert e.reload("set node name=after max_flows=2\n" + rule(port, origin)).startswith("ok")
        assert not refused(port)
    assert e.metric("node_flows_max") == 2
    assert {f["node"] for f in e.wait_flows(2)} == {"after"}


@pytest.mark.slow
def test_shorter_idle_timeout_holds_for_running_flows(start, origin):
    port = free_port()
    e = start(rule(port, origin))
    with connect(port) as flow:
        assert echoes(flow)
        assert e.reload(rule(port, origin, "idle_timeout=1s")).startswith("ok")
        began = time.monotonic()
        assert how_it_ends(flow) == "fin"
        assert time.monotonic() - began < 5


# --- what changes ---

def test_removed_rule_refuses_at_once_and_its_flows_end_after_the_drain_time(start, origin):
    gone, stays = free_port(), free_port()
    e = start(rule(gone, origin) + rule(stays, origin), drain=1)
    with connect(gone) as old, connect(stays) as kept:
        assert echoes(old) and echoes(kept)
        assert e.reload(rule(stays, origin)).startswith("ok")
        assert how_connecting_ends(gone) == "refused"
        assert echoes(old)
        assert how_it_ends(old) == "reset"
        assert echoes(kept) and not refused(stays)
    flow, = e.wait_flows(1, end="rule_removed")
    assert flow["end_side"] == "edge" and flow["edge"].endswith(f":{gone}")
    assert 1000 <= flow["duration_ms"] < 3000


def test_flow_that_ends_while_it_drains_ends_as_ever(start, origin):
    port = free_port()
    e = start(rule(port, origin), drain=60)
    with connect(port) as old:
        assert echoes(old)
        assert e.reload("").startswith("ok")
        assert echoes(old)
    e.wait_flows(1, end="done", end_side="client")


def test_changed_origin_is_for_new_flows_and_the_old_ones_drain(start):
    port = free_port()
    with named(b"one") as one, named(b"two") as two:
        e = start(rule(port, one), drain=1)
        with connect(port) as old:
            assert recv_exactly(old, 3) == b"one"
            assert e.reload(rule(port, two)).startswith("ok")
            assert echoes(old)
            with connect(port) as new:
                assert recv_exactly(new, 3) == b"two"
                assert how_it_ends(old) == "reset"
                assert echoes(new)
        assert {(f["end"], f["origin"]) for f in e.wait_flows(2)} == {
            ("rule_removed", f"127.0.0.1:{one.port}"), ("done", f"127.0.0.1:{two.port}")}


@pytest.mark.parametrize("change", ["ppv1", "ppv2"])
def test_changed_pass_mode_is_a_changed_rule(start, origin, change):
    port = free_port()
    e = start(rule(port, origin), drain=1)
    with connect(port) as old:
        assert echoes(old)
        assert e.reload(f"tcp:{port} 127.0.0.1 {origin.port} off {change}\n").startswith("ok")
        with connect(port) as new:
            assert recv_exactly(new, 5) in (b"PROXY", b"\r\n\r\n\0")
        assert echoes(old)
        assert how_it_ends(old) == "reset"
    e.wait_flows(1, end="rule_removed")


def test_port_that_moves_to_another_rule_keeps_its_flow(start, origin):
    """Same origin: nothing changes for the flow, which is counted under its new rule from then on."""
    first = free_ports(3)
    e = start(f"tcp:{first} 127.0.0.1 {origin.port} off off alone\n", drain=0)
    with connect(first) as flow:
        assert echoes(flow)
        assert e.reload(f"tcp:{first}-{first + 2} 127.0.0.1 {origin.port} off off together\n").startswith("ok")
        assert echoes(flow)
        assert e.metric("flows_active", tag="together") == 1
        assert not refused(first + 2)
    e.wait_flows(1, tag="together", edge=f"127.0.0.1:{first}", end="done")
    wait_metric(e, 0, "flows_active")


def test_rules_come_and_go_on_the_same_ports(start, origin):
    first = free_ports(2)
    e = start("", drain=0)
    for i in range(10):
        assert refused(first) and refused(first + 1)
        assert e.reload(rule(f"{first}-{first + 1}", origin)).startswith("ok")
        assert not refused(first) and not refused(first + 1)
        assert e.reload(rule(first + 1, origin)).startswith("ok")
        assert refused(first) and not refused(first + 1)
        assert e.reload("").startswith("ok")


def test_2000_rules_are_changed_within_a_second(start, origin):
    first = free_ports(2100)

    def rules(base):
        return "".join(rule(base + i, origin, f"idle_timeout={60 + i}s rule {i}") for i in range(2000))

    e = start(rules(first))
    with connect(first + 1500) as flow:
        assert echoes(flow)
        assert e.reload(rules(first + 100)).startswith("ok version 2 applied: 2000 rules")
        assert echoes(flow)
        assert refused(first + 99) and not refused(first + 100) and not refused(first + 2099)
    ms = e.status()["reloads"]["last_ms"]
    print(f"2000 rules changed in {ms} ms")
    assert ms < 1000
    assert e.metric("reload_seconds") == pytest.approx(ms / 1000, abs=1e-3)


def test_reloads_asked_for_at_once_are_all_answered(start, origin):
    port = free_port()
    e = start(rule(port, origin))
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(e.control("reload"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12 and all(a.startswith("ok version ") for a in answers), answers
    assert not refused(port)


def test_who_asks_for_a_reload_and_leaves_does_no_harm(start, origin):
    port = free_port()
    e = start(rule(port, origin))
    for _ in range(5):
        for _ in range(10):  # as many as may wait to be accepted
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(e.socket_path))
                s.send(b"reload\n")
        assert e.reload().startswith("ok version ")
    assert not refused(port)


def test_metrics_may_be_read_while_the_rules_change(start, origin):
    """They are read by a thread of their own."""
    first = free_ports(300)
    e = start(rule(first, origin))
    done, texts = threading.Event(), []

    def scrape():
        while not done.is_set():
            texts.append(e.metrics_text())

    thread = threading.Thread(target=scrape)
    thread.start()
    for i in range(40):
        assert e.reload("".join(rule(first + j, origin, f"tag {j}") for j in range(i * 7))).startswith("ok")
    done.set()
    thread.join()
    assert len(texts) > 5 and all(t.endswith("\n") and "tidegate_config_version" in t for t in texts)


# --- stopping ---

def end_of(e, flow_port):
    """How the log says that the flow of a client port ended."""
    flow, = e.wait_flows(1, client=f"127.0.0.1:{flow_port}")
    return flow["end"], flow["end_side"], flow["bytes_in"]


def test_sigterm_lets_flows_finish_and_refuses_new_ones(start, origin):
    port = free_port()
    e = start(rule(port, origin), drain=60)
    with connect(port) as flow:
        assert echoes(flow)
        e.signal(signal.SIGTERM)
        wait_until(lambda: refused(port), what="the port to close")
        assert echoes(flow, b"x" * 100000)
        assert e.process.poll() is None
        flow.shutdown(socket.SHUT_WR)
        assert recv_all(flow) == b""
        client = port_of(flow)
    assert e.process.wait(10) == 0
    assert end_of(e, client) == ("done", "client", 100005)


@pytest.mark.parametrize("drain", [0, 1])
def test_sigterm_ends_flows_after_the_drain_time(start, origin, drain):
    port = free_port()
    e = start(rule(port, origin), drain=drain)
    with connect(port) as flow:
        assert echoes(flow)
        e.signal(signal.SIGTERM)
        assert how_it_ends(flow) == "reset"
        client = port_of(flow)
    assert e.process.wait(10) == 0
    assert end_of(e, client) == ("shutdown", "edge", 5)


def test_second_sigterm_ends_at_once(start, origin):
    port = free_port()
    e = start(rule(port, origin), drain=600)
    with connect(port) as flow:
        assert echoes(flow)
        e.signal(signal.SIGTERM)
        wait_until(lambda: refused(port), what="the port to close")
        assert echoes(flow)
        e.signal(signal.SIGTERM)
        assert how_it_ends(flow) == "reset"
        client = port_of(flow)
    assert e.process.wait(10) == 0
    assert end_of(e, client) == ("shutdown", "edge", 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_at_once_when_there_is_nothing_to_drain(start, origin, number):
    e = start(rule(free_port(), origin), drain=600)
    e.signal(number)
    assert e.process.wait(5) == 0
    assert not e.socket_path.exists()


def test_stopping_does_not_lose_connections_that_were_greeted(start, origin):
    """Whoever the kernel has greeted before the signal is served, also when the edge has not looked yet."""
    port = free_port()
    e = start(rule(port, origin), drain=60)
    e.signal(signal.SIGSTOP)
    clients = [connect(port) for _ in range(500)]
    e.signal(signal.SIGTERM)
    e.signal(signal.SIGCONT)
    for client in clients:
        with client:
            assert echoes(client)
    assert e.process.wait(10) == 0


@pytest.mark.parametrize("again", ["socket", "sighup"])
def test_reload_while_stopping_changes_nothing(start, origin, again):
    """Answered at once, and the ports stay closed."""
    port = free_port()
    e = start(rule(port, origin), drain=60)
    with connect(port) as flow:
        assert echoes(flow)
        e.signal(signal.SIGTERM)
        wait_until(lambda: refused(port), what="the port to close")
        if again == "socket":
            assert e.control("reload", timeout=5).startswith("error ")
        else:
            e.signal(signal.SIGHUP)
        assert echoes(flow)
        assert how_connecting_ends(port) == "refused"
    assert e.process.wait(10) == 0


@pytest.mark.parametrize("first", ["reload", "stop"])
def test_reload_and_stop_at_the_same_moment(start, origin, first):
    port = free_ports(100)
    rules = "".join(rule(port + i, origin) for i in range(100))
    for _ in range(5):
        e = start(rules, drain=0)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(e.socket_path))
            if first == "reload":
                s.send(b"reload\n")
            e.signal(signal.SIGTERM)
            if first == "stop":
                s.send(b"reload\n")
            assert e.process.wait(10) == 0
        e.stop_clean()
