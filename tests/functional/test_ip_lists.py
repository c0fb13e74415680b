# SPDX-License-Identifier: Apache-2.0
"""IP lists as long as they may be."""
import socket
import time

import pytest

from harness import TcpOrigin, connect, free_ports, own_network, recv_exactly

ENTRIES = 1_000_000
RULES = 500  # that name the list
PATIENCE = 120  # seconds to load it with sanitizers on a busy machine


def entry(i):
    """Prefixes of four lengths, none within another, with holes between them, from 11.0.0.0 on."""
    address = 11 << 24 | i << 4
    bits = 29 + i % 4
    return f"{socket.inet_ntoa(address.to_bytes(4, 'big'))}/{bits}"


@pytest.fixture
def figure(record_property, capsys):
    def tell(name, value):
        record_property(name, value)
        with capsys.disabled():
            print(f"\n    {name}: {value}", end=" ")
    return tell


def long_list(*more):
    return '{"name": "long", "entries": [' + ", ".join(f'"{e}"' for e in [*map(entry, range(ENTRIES)), *more]) + "]}"


def document(first, port, long, version):
    """The text of it, which takes a while to make of objects."""
    rules = ", ".join(f'{{"protocol": "tcp", "edge_ports": [{first + i}], "origin": "127.0.0.1", "origin_port": {port}, '
                      f'"deny": ["long"]}}' for i in range(RULES))
    return f'{{"schema": 1, "version": {version}, "ip_lists": [{long}], "rules": [{rules}]}}'


def let_in(port, source):
    try:
        with connect(port, source=source) as c:
            c.sendall(b"hello")
            return recv_exactly(c, 5) == b"hello"
    except (ConnectionResetError, BrokenPipeError, AssertionError):
        return False


@pytest.mark.slow
@own_network()
def test_a_list_of_a_million_prefixes_is_served_and_not_built_anew_when_it_stays(edge, figure):
    first = free_ports(RULES)
    with TcpOrigin() as origin:
        began = time.monotonic()
        long = long_list("127.7.0.0/16", "127.8.9.10")
        e = edge(None, config=document(first, origin.port, long, 1), wait=False)
        e.wait_ready(PATIENCE)
        figure("start with a list of a million prefixes that 500 rules name, s", round(time.monotonic() - began, 2))
        memory = e.status()["resident_memory_bytes"]
        figure("resident memory, bytes", memory)
        for port in (first, first + RULES - 1):
            assert [let_in(port, s) for s in ("127.0.0.1", "127.7.0.0", "127.7.255.255", "127.8.9.10", "127.8.9.11",
                                              "127.6.255.255", "127.8.0.0")] == [True, False, False, False, True, True, True]
        with connect(first) as running:
            assert e.control("reload", PATIENCE).startswith("ok version 1")
            figure("reload with the same list, ms", e.status()["reloads"]["last_ms"])
            e.write_config(document(first, origin.port, long_list("127.7.0.0/16"), 2))
            assert e.control("reload", PATIENCE).startswith("ok version 2")
            figure("reload with one entry less, ms", e.status()["reloads"]["last_ms"])
            assert let_in(first, "127.8.9.10") and not let_in(first, "127.7.0.1")
            running.sendall(b"still")
            assert recv_exactly(running, 5) == b"still"
