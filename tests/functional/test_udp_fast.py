# SPDX-License-Identifier: Apache-2.0
"""UDP sessions on the kernel's fast path: the same as in user space, and back whenever that is needed."""
import json
import random
import subprocess

import pytest

from harness import UdpOrigin, free_port, udp_client, wait_until

ENTER = 8  # datagrams of the client after which a session is handed over (src/flow/udp_fast.c)


def programs():
    """The ids of all BPF programs of ours that are loaded, by name."""
    shown = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return {(p["id"], p["name"]) for p in json.loads(shown) if p.get("name") in ("steer", "fastpath")}


def exchange(client, payload, timeout=5):
    client.settimeout(timeout)
    client.send(payload)
    assert client.recv(65535) == payload


def enter(edge, client, sessions=1):
    """Sends until the session has been handed over."""
    for i in range(ENTER + 2):
        exchange(client, b"warm %d" % i)
    wait_until(lambda: edge.metric("udp_fast_sessions_total") >= sessions, what="a session on the fast path")


@pytest.mark.parametrize("address,origin_address", [("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_kernel_carries_a_session_and_its_counts_are_complete(edge, address, origin_address):
    port = free_port()
    with UdpOrigin(address=origin_address) as origin:
        host = f"[{origin_address}]" if ":" in origin_address else origin_address
        e = edge(f"udp:{port} {host} {origin.port} off off idle_timeout=2s\n")
        assert e.status()["udp_fast_path"] == "on"
        client = udp_client(port, address)
        enter(e, client)
        sent = sum(len(b"warm %d" % i) for i in range(ENTER + 2))
        for i in range(200):
            payload = random.randbytes(random.choice([0, 1, 64, 1200, 9000]))
            exchange(client, payload)
            sent += len(payload)
        flow, = e.wait_flows(1)
        assert flow["datagrams_in"] == flow["datagrams_out"] == 200 + ENTER + 2
        assert flow["bytes_in"] == flow["bytes_out"] == sent
        assert flow["end"] == "idle" and flow["duration_ms"] >= 2000
        assert e.metric("udp_fast_datagrams_total") >= 300
        assert e.metric("datagrams_in_total") == 200 + ENTER + 2
        peers = {peer for _, peer in list(origin.received.queue)}
        assert len(peers) == 1  # one session, one source address, whoever carries it


def test_all_sizes_arrive_whole_while_the_session_is_fast(edge):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off\n")
        client = udp_client(port)
        enter(e, client)
        for size in (0, 1, 2, 1199, 1472, 1473, 8972, 16000, 40000, 65506, 65507):
            exchange(client, random.randbytes(size))


def test_dead_origin_is_noticed_and_its_return_too(edge):
    port, origin_port = free_port(), free_port()
    e = edge(f"udp:{port} 127.0.0.1 {origin_port} off off\n")
    client = udp_client(port)
    with UdpOrigin(port=origin_port):
        enter(e, client)
    client.send(b"nobody there")
    wait_until(lambda: e.metric("icmp_errors_total") >= 1, what="the ICMP error")
    with UdpOrigin(port=origin_port):
        exchange(client, b"back again")

        def handed_over_again():
            exchange(client, b"and on")
            return e.metric("udp_fast_sessions_total") >= 2
        wait_until(handed_over_again, what="being handed over again")
        exchange(client, b"fast again")


def test_removed_rule_ends_a_fast_session_after_the_drain_time(edge):
    port, other = free_port(), free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off\n", drain=1)
        client = udp_client(port)
        enter(e, client)
        assert e.reload(f"udp:{other} 127.0.0.1 {origin.port} off off\n").startswith("ok")
        exchange(client, b"draining")
        flow, = e.wait_flows(1)
        assert flow["end"] == "rule_removed"
        assert flow["datagrams_in"] == ENTER + 3
        client.send(b"too late")
        client.settimeout(0.3)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            client.recv(100)


def test_unrelated_reloads_leave_a_fast_session_alone(edge):
    port, other = free_port(), free_port()
    with UdpOrigin() as origin:
        rule = f"udp:{port} 127.0.0.1 {origin.port} off off\n"
        e = edge(rule)
        client = udp_client(port)
        enter(e, client)
        for i in range(10):
            extra = f"udp:{other} 127.0.0.1 {origin.port} off off\n" if i % 2 else ""
            assert e.reload(rule + extra).startswith("ok")
            exchange(client, b"reload %d" % i)
        assert e.metric("udp_fast_sessions_total") == 1
        assert len({peer for _, peer in list(origin.received.queue)}) == 1


@pytest.mark.parametrize("rules,args,state", [
    ("set node udp_fast_path=off\n", (), "off: udp_fast_path=off"),
    ("", ("--no-bpf",), "off: --no-bpf"),
])
def test_it_can_be_turned_off(edge, rules, args, state):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"{rules}udp:{port} 127.0.0.1 {origin.port} off off\n", *args)
        client = udp_client(port)
        for i in range(3 * ENTER):
            exchange(client, b"%d" % i)
        assert e.status()["udp_fast_path"] == state
        assert e.metric("udp_fast_sessions_total") == 0


@pytest.mark.parametrize("options", ["off ppv2", "off spp", "off off answers=1000"])
def test_sessions_that_need_user_space_stay_there(edge, options):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} {options}\n")
        client = udp_client(port)
        for i in range(3 * ENTER):
            client.send(b"x")
            client.recv(100)
        assert e.metric("udp_fast_sessions_total") == 0


def test_many_fast_sessions_do_not_mix(edge):
    port = free_port()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off\n")
        clients = [udp_client(port) for _ in range(50)]
        for n, client in enumerate(clients):
            enter(e, client, n + 1)
        for i in range(20):
            for n, client in enumerate(clients):
                client.send(b"%d %d" % (n, i))
            for n, client in enumerate(clients):
                assert client.recv(100) == b"%d %d" % (n, i)
        assert e.metric("udp_fast_sessions_total") == 50


def test_nothing_is_left_in_the_kernel_after_the_end(edge):
    port = free_port()
    before = programs()
    with UdpOrigin() as origin:
        e = edge(f"udp:{port} 127.0.0.1 {origin.port} off off\n")
        client = udp_client(port)
        enter(e, client)
        ours = programs() - before
        assert {name for _, name in ours} == {"steer", "fastpath"}
        e.stop_clean()
        wait_until(lambda: not ours & programs(), what="the programs to go")
