# SPDX-License-Identifier: Apache-2.0
"""tidegate-origin: what unmodified programs on an origin see of the clients that edges name in a TCP option."""
import functools
import json
import os
import re
import resource
import sys

import pytest

from harness import BUILD, TIMEOUT, connect, free_port, own_network, recv_exactly, wait_until
from origin_kit import (CLIENT_V4, CLIENT_V6, EDGE, IN_REST, IN_SYN, KIT, PRELOAD, SERVER, STRANGER, TRUST, Toa, cgroup_root, no_rights,
                 option, run)

COUNTERS = ["syn_recv_sock_toa", "syn_recv_sock_no_toa", "getname_toa_ok", "getname_toa_mismatch", "getname_toa_bypass",
            "getname_toa_empty", "ip6_address_alloc", "ip6_address_free"]


@pytest.fixture
def toa(tmp_path):
    os.chmod(tmp_path, 0o755)
    t = Toa(tmp_path)
    yield t
    t.remove()


def origin_network(test):
    """As own_network, with the addresses of the edge, a stranger and the server."""
    @own_network()
    @functools.wraps(test)
    def inside(toa, *args, **kwargs):
        toa.addresses()
        test(toa, *args, **kwargs)

    @functools.wraps(test)
    def outside(*args, **kwargs):
        inside(*args, **kwargs)
    return outside


def mapped(client):
    return client if ":" in client[0] else ("::ffff:" + client[0], client[1])


# --- whom programs see ---

@pytest.mark.parametrize("listener, family, client, seen, lookup", [
    ("0.0.0.0", 4, CLIENT_V4, CLIENT_V4, "EFAULT"),
    ("::", 6, CLIENT_V6, CLIENT_V6, CLIENT_V6),
    ("dual", 4, CLIENT_V4, mapped(CLIENT_V4), "EFAULT"),
    ("dual", 4, CLIENT_V6, CLIENT_V6, CLIENT_V6),
    ("dual", 6, CLIENT_V6, CLIENT_V6, CLIENT_V6),
    ("dual", 6, CLIENT_V4, mapped(CLIENT_V4), "EFAULT"),
    ("0.0.0.0", 4, CLIENT_V6, None, CLIENT_V6),  # a hook cannot change the family
    ("0.0.0.0", 4, None, None, "EINVAL"),
    ("dual", 4, None, None, "EINVAL"),
    ("dual", 6, None, None, "EINVAL"),
], ids=lambda x: x if isinstance(x, str) else x[0] if isinstance(x, tuple) else str(x))
@origin_network
def test_whom_a_program_sees(toa, listener, family, client, seen, lookup):
    toa.start()
    port = toa.serve(listener)
    told = toa.told(port, client, family)
    expected = seen or (mapped(told["edge"]) if listener == "dual" else told["edge"])
    assert told["accept"] == told["peer"] == list(expected)
    assert told["lookup"] == told["long"] == ([*lookup, 20] if isinstance(lookup, tuple) else lookup)
    assert told["short"] == "EINVAL"
    counts = toa.stats()
    assert counts["syn_recv_sock_toa"] == (client is not None) and counts["syn_recv_sock_no_toa"] == (client is None)
    ip6 = client is not None and (listener != "0.0.0.0" or ":" in client[0])
    assert counts["ip6_address_alloc"] == ip6
    wait_until(lambda: toa.stats()["ip6_address_free"] == ip6, what="the address to be counted as freed")
    assert counts["getname_toa_mismatch"] == (2 if client and not seen else 0)
    assert counts["getname_toa_bypass"] == counts["untrusted_toa"] == 0


@pytest.mark.parametrize("flags", [IN_SYN | IN_REST, IN_REST, IN_SYN], ids=["everywhere", "not in the SYN", "in the SYN only"])
@pytest.mark.parametrize("client", [CLIENT_V4, CLIENT_V6], ids=["IPv4", "IPv6"])
@origin_network
def test_packets_that_the_option_is_taken_from(toa, client, flags):
    toa.start()
    port = toa.serve("dual")
    assert toa.told(port, client, flags=flags)["peer"] == list(mapped(client))


@origin_network
def test_the_syn_is_not_kept_when_that_is_not_wanted(toa):
    toa.start("--no-save-syn", "--no-getsockopt")
    port = toa.serve("0.0.0.0")
    told = toa.told(port, CLIENT_V4, flags=IN_SYN)
    assert told["peer"] == told["edge"] and told["lookup"] == "ENOPROTOOPT"
    assert toa.told(port, CLIENT_V4)["peer"] == list(CLIENT_V4)


@pytest.mark.parametrize("kind_v4, kind_v6", [(254, 253), (254, 254), (200, 253), (28, 77)])
@pytest.mark.parametrize("flags", [IN_REST, IN_SYN], ids=["ACK", "SYN"])
@origin_network
def test_other_kinds(toa, kind_v4, kind_v6, flags):
    toa.start("--kind-v4", kind_v4, "--kind-v6", kind_v6)
    port = toa.serve("dual")
    assert toa.told(port, CLIENT_V4, kind=kind_v4, flags=flags)["peer"] == list(mapped(CLIENT_V4))
    assert toa.told(port, CLIENT_V6, kind=kind_v6, flags=flags)["peer"] == list(CLIENT_V6)
    for kind, client in ((201, CLIENT_V4), (201, CLIENT_V6), (kind_v4 if kind_v4 != kind_v6 else 201, CLIENT_V6)):
        told = toa.told(port, client, kind=kind, flags=flags)
        assert told["peer"] == list(mapped(told["edge"]))


@pytest.mark.parametrize("kinds", [(200, 200), (254, 254)], ids=str)
@origin_network
def test_options_of_a_wrong_length_are_none(toa, kinds):
    toa.start("--kind-v4", kinds[0], "--kind-v6", kinds[1])
    port = toa.serve("0.0.0.0")
    for size in (2, 3, 4, 6, 7, 9, 10, 12, 16, 19):
        told = toa.told(port, data=bytes([kinds[0], size]) + bytes(size - 2), flags=IN_REST)
        assert told["peer"] == told["edge"], size


@origin_network
def test_http_server_logs_the_client_wherever_tidegate_origin_was_started(toa):
    """The listener that was there before, and the one that came later."""
    servers = []

    def serve():
        port = free_port()
        p = toa.spawn([sys.executable, "-u", "-m", "http.server", "--bind", "::", port], cwd=toa.tmp_path)
        wait_until(lambda: "Serving HTTP" in p.output(), what="http.server")
        servers.append((port, p))

    serve()
    toa.start()
    serve()
    for port, p in servers:
        for family, client in ((4, ("198.51.100.9", 1000)), (6, ("2001:db8:1::9", 1001)), (4, ("2001:db8:1::10", 1002))):
            with toa.connect(port, client, family, send=b"GET / HTTP/1.0\r\n\r\n") as s:
                assert s.makefile("rb").readline().startswith(b"HTTP/1.0 200")
            wait_until(lambda: f"{mapped(client)[0]} - - " in p.output(), what=f"{client} in the log:\n{p.output()}")


@origin_network
def test_it_goes_on_without_the_loader_and_ends_with_stop(toa):
    port = toa.serve("0.0.0.0")
    told = toa.told(port, CLIENT_V4)
    assert told["peer"] == told["edge"] and told["lookup"] == "ENOPROTOOPT"
    toa.start()
    with toa.connect(port, CLIENT_V4) as kept:
        lines = kept.makefile()
        assert json.loads(lines.readline())["peer"] == list(CLIENT_V4)
        toa.kit("stop")
        kept.sendall(b"whom now?\n")
        assert json.loads(lines.readline()) == list(kept.getsockname())
    told = toa.told(port, CLIENT_V4)
    assert told["peer"] == told["edge"] and told["lookup"] == "ENOPROTOOPT"


@pytest.mark.parametrize("kinds", [(), ("--kind-v4", 254, "--kind-v6", 253)], ids=["200", "other kinds"])
@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("origin", ["127.0.0.1", "[::1]"])
def test_an_edge_in_front(toa, edge, origin, client, kinds):
    """The whole way: client, tidegate-edge with pass mode toa, a server that knows nothing."""
    toa.start(*kinds, trust="127.0.0.0/8,::1")
    port, inside = free_port(), toa.serve("dual")
    edge(f"tcp:{port} {origin} {inside} off toa\n")
    for _ in range(20):
        with connect(port, client) as s:
            own = s.getsockname()[:2]
            told = json.loads(s.makefile().readline())
        assert (told["accept"] == told["peer"] == list(mapped(own))) == (not kinds)
    assert toa.stats()["syn_recv_sock_no_toa" if kinds else "syn_recv_sock_toa"] == 20


# --- trust ---

@pytest.mark.parametrize("kinds", [(200, 200), (254, 253)], ids=str)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("flags", [IN_SYN | IN_REST, IN_SYN], ids=["everywhere", "SYN"])
@origin_network
def test_options_of_strangers_are_ignored_and_counted(toa, family, kinds, flags):
    toa.start("--kind-v4", kinds[0], "--kind-v6", kinds[1])
    port = toa.serve("dual")
    for count, client in enumerate((CLIENT_V4, CLIENT_V6), 1):
        kind = kinds[0] if client is CLIENT_V4 else kinds[1]
        told = toa.told(port, client, family, source=STRANGER[family], kind=kind, flags=flags)
        assert told["accept"] == told["peer"] == list(mapped(told["edge"])) and told["lookup"] == "EINVAL"
        assert toa.stats()["untrusted_toa"] == toa.stats()["syn_recv_sock_no_toa"] == count
    assert toa.stats()["syn_recv_sock_toa"] == 0
    assert toa.told(port, CLIENT_V4, family, kind=kinds[0], flags=flags)["peer"] == list(mapped(CLIENT_V4))


@origin_network
def test_trust_is_changed_while_it_runs(toa):
    toa.start(trust=STRANGER[4])
    port = toa.serve("dual")
    assert toa.told(port, CLIENT_V4)["peer"] != list(mapped(CLIENT_V4))
    with toa.connect(port, CLIENT_V4, source=STRANGER[4]) as old:
        lines = old.makefile()
        lines.readline()
        toa.kit("trust", "--trust", TRUST)
        assert sorted(json.loads(toa.kit("status", "-o", "json").stdout)["trust"]) == sorted(TRUST.split(","))
        assert toa.told(port, CLIENT_V4)["peer"] == list(mapped(CLIENT_V4))
        told = toa.told(port, CLIENT_V4, source=STRANGER[4])
        assert told["peer"] == list(mapped(told["edge"]))
        old.sendall(b"?\n")  # keeps what it was given when it was trusted
        assert json.loads(lines.readline()) == list(mapped(CLIENT_V4))


@origin_network
def test_everybody_of_ipv6_is_nobody_of_ipv4(toa):
    assert "everybody is trusted" in toa.start(trust="::/0").stderr
    port = toa.serve("dual")
    told = toa.told(port, CLIENT_V4, 4)
    assert told["peer"] == list(mapped(told["edge"]))
    assert toa.told(port, CLIENT_V4, 6, source=STRANGER[6])["peer"] == list(mapped(CLIENT_V4))


# --- bad networks ---

@pytest.mark.parametrize("listener, family, client", [("0.0.0.0", 4, CLIENT_V4), ("::", 6, CLIENT_V6), ("dual", 4, CLIENT_V6)])
@pytest.mark.parametrize("words", [(), ("defer",)], ids=["", "defer"])
@origin_network
def test_syncookies(toa, listener, family, client, words):
    with open("/proc/sys/net/ipv4/tcp_syncookies", "w") as f:
        f.write("2")
    toa.start()
    port = toa.serve(listener, *words)
    for flags in (IN_SYN | IN_REST, IN_REST):
        assert toa.told(port, client, family, flags=flags, send=b"first")["peer"] == list(client)
    assert re.search(r"TcpExtSyncookiesRecv\s+2", run("nstat", "-az", "TcpExtSyncookiesRecv").stdout)


@origin_network
def test_deferred_accept(toa):
    toa.start()
    port = toa.serve("0.0.0.0", "defer")
    assert toa.told(port, CLIENT_V4, flags=IN_REST, send=b"first")["peer"] == list(CLIENT_V4)


@origin_network
def test_a_lost_ack_of_the_handshake(toa):
    toa.start()
    port = toa.serve("dual")
    run("nft", "-f", "-", input=f"""
        table inet t {{
            chain c {{
                type filter hook input priority 0;
                tcp dport {port} tcp flags & (syn|psh|ack|fin|rst) == ack counter drop
            }}
        }}""")
    for client in (CLIENT_V4, CLIENT_V6):
        with toa.connect(port, client, flags=IN_REST, send=b"first") as s:
            wait_until(lambda: toa.stats()["syn_recv_sock_toa"] == (1 if client is CLIENT_V4 else 2), what="the connection")
            assert json.loads(s.makefile().readline())["peer"] == list(mapped(client))
    dropped = re.search(r"counter packets (\d+)", run("nft", "list", "ruleset").stdout).group(1)
    assert int(dropped) >= 2


@origin_network
def test_mptcp_listeners(toa):
    """Such as those of Go since 1.24."""
    toa.start()
    port = toa.serve("dual", "mptcp")
    assert toa.told(port, CLIENT_V4)["peer"] == list(mapped(CLIENT_V4))
    assert toa.told(port, CLIENT_V6, 6)["peer"] == list(CLIENT_V6)


@origin_network
def test_other_socket_options_are_as_they_were(toa):
    """Those with long values too, which hooks are shown a page of."""
    script = """
import errno, socket
def ask(s, level, name, size):
    try: return s.getsockopt(level, name, size) and "ok"
    except OSError as e: return errno.errorcode[e.errno]
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        print([ask(s, *a) for a in ((6, 11, 1000), (6, 9999, 1000), (6, 9999, 1024), (0, 4095, 64), (0, 4097, 64),
            (1, 3, 4), (0, 4096, 20))])
u = socket.socket(socket.AF_UNIX)
print(ask(u, 0, 4096, 20), ask(u, 1, 17, 12))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket()
for size in (4096, 4097, 65536):
    b, n = ctypes.create_string_buffer(size), ctypes.c_uint32(size)
    print(libc.getsockopt(s.fileno(), 6, 9999, b, ctypes.byref(n)), ctypes.get_errno(), n.value)
    print(libc.getsockopt(s.fileno(), 1, 7, b, ctypes.byref(n)), n.value)
"""
    def output():
        p = toa.spawn([sys.executable, "-c", script])
        assert p.process.wait(TIMEOUT) == 0, p.output()
        return p.output()
    before = output()
    toa.start()
    after = output()
    assert "ENOTCONN" in after
    assert after.replace("ENOTCONN", "ENOPROTOOPT") == before


# --- many at once ---

@origin_network
def test_ten_thousand_connections_at_once(toa):
    """All of them open, each with a client of its own, all asked again at the end."""
    count = 10000
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] != resource.RLIM_INFINITY and limit[1] < count + 500:
        pytest.fail(f"needs {count + 500} descriptors, the limit is {limit[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    toa.start()
    port = toa.serve("dual")
    clients = [(f"100.64.{n >> 8}.{n & 255}" if n % 2 else f"2001:db8:7::{n + 1:x}", 1 + n) for n in range(count)]
    open_ones = []
    try:
        for n, client in enumerate(clients):
            open_ones.append(toa.connect(port, client, 4 if n % 3 else 6, own_port=40000 + n))
        for s, client in zip(open_ones, clients):
            told = json.loads(s.recv(4096))
            assert told["accept"] == told["peer"] == list(mapped(client))
        for s, client in zip(open_ones, clients):
            s.sendall(b"?\n")
            assert json.loads(s.recv(4096)) == list(mapped(client))
        counts = toa.stats()
        assert counts["syn_recv_sock_toa"] == counts["ip6_address_alloc"] == count and counts["syn_recv_sock_no_toa"] == 0
    finally:
        for s in open_ones:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    wait_until(lambda: toa.stats()["ip6_address_free"] == count, what="all addresses to be freed")


@origin_network
def test_many_threads_accept_from_one_listener(toa):
    toa.start()
    port = toa.serve("dual", "threads=8")
    threads = set()
    for batch in range(20):
        clients = [(f"100.64.{batch}.{n}", 1000 + n) for n in range(100)]
        sockets = [toa.connect(port, client) for client in clients]
        for s, client in zip(sockets, clients):
            told = json.loads(s.makefile().readline())
            assert told["accept"] == told["peer"] == list(mapped(client))
            threads.add(told["thread"])
            s.close()
    assert len(threads) > 1
    assert toa.stats()["syn_recv_sock_toa"] == 2000


# --- the command ---

def test_stats_have_the_layout_of_the_kernel_modules(toa):
    toa.start()
    with open("/sys/devices/system/cpu/online") as f:
        ranges = [part.split("-") for part in f.read().strip().split(",")]
    cpus = [n for r in ranges for n in range(int(r[0]), int(r[-1]) + 1)]
    lines = [" " * 34 + "".join(f"CPU{n}       " for n in cpus)]
    lines += [f"{name:<25}:" + f"{0:>10} " * len(cpus) for name in COUNTERS]
    assert toa.kit("stats").stdout == "\n".join(lines) + "\n"
    assert list(json.loads(toa.kit("stats", "-o", "json").stdout)) == [*COUNTERS, "untrusted_toa"]
    samples = [line for line in toa.kit("stats", "-o", "prometheus").stdout.splitlines() if line[0] != "#"]
    assert samples == [f"tidegate_origin_{name}_total 0" for name in [*COUNTERS, "untrusted_toa"]]


def hooks(cgroup):
    return sorted(h["attach_type"] for h in json.loads(run("bpftool", "-j", "cgroup", "show", cgroup).stdout.strip() or "[]"))


def test_start_stop_and_status(toa):
    not_started = toa.kit("status", check=False)
    assert not_started.returncode == 3 and "not started" in not_started.stderr
    assert toa.kit("stats", check=False).returncode == toa.kit("trust", "--trust", TRUST, check=False).returncode == 3
    toa.start("--kind-v6", 77)
    assert len(hooks(toa.server)) == 4
    again = toa.start("--kind-v4", 254, check=False)
    assert again.returncode == 1 and "already started" in again.stderr and "kinds 200 and 77" in again.stderr
    assert len(hooks(toa.server)) == 4
    status = json.loads(toa.kit("status", "-o", "json").stdout)
    assert status["attached"] is True and all(status["hooks"].values()) and len(status["hooks"]) == 4
    assert (status["cgroup"], status["cgroup_id"]) == (toa.server, os.stat(toa.server).st_ino)
    assert (status["kind_v4"], status["kind_v6"], status["save_syn"]) == (200, 77, True)
    assert sorted(status["trust"]) == sorted(TRUST.split(","))
    text = toa.kit("status").stdout
    assert text.startswith("attached since 20") and toa.server in text and "200 for IPv4, 77 for IPv6" in text
    toa.kit("stop")
    assert hooks(toa.server) == [] and not os.path.exists(toa.state)
    again = toa.kit("stop", check=False)
    assert again.returncode == 3 and "not started" in again.stderr


def test_run_removes_everything_at_its_end(toa):
    p = toa.spawn([KIT, "run", "--cgroup", toa.server, "--trust", TRUST, "--state", toa.state])
    wait_until(lambda: "ready" in p.output(), what="ready")
    assert len(hooks(toa.server)) == 4 and json.loads(toa.kit("status", "-o", "json").stdout)["attached"]
    p.process.terminate()
    assert p.process.wait(TIMEOUT) == 0, p.output()
    assert hooks(toa.server) == [] and not os.path.exists(toa.state)


def test_the_default_cgroup_is_the_root(toa):
    """With prefixes that nobody has, for the sake of everything else on this machine."""
    toa.kit("start", "--trust", "2001:db8:ffff::/48", "--no-save-syn", "--no-getsockopt")
    status = json.loads(toa.kit("status", "-o", "json").stdout)
    assert status["cgroup"] == cgroup_root() and status["attached"] and not status["hooks"]["getsockopt"]


def test_a_removed_cgroup_is_noticed_and_cleaned_up_after(toa):
    toa.start()
    os.rmdir(toa.server)
    wait_until(lambda: toa.kit("status", check=False).returncode == 1, what="the hooks to be gone")
    assert "NOT ATTACHED" in toa.kit("status", check=False).stdout
    toa.kit("stop")
    assert not os.path.exists(toa.state)


def test_a_start_that_was_killed_half_way_can_be_stopped(toa):
    os.mkdir(toa.state)
    broken = toa.kit("status", check=False)
    assert broken.returncode == 1 and "not whole" in broken.stderr
    assert toa.start(check=False).returncode == 1
    toa.kit("stop")
    toa.start()


@pytest.mark.parametrize("arguments, said", [
    (["start"], "without --trust"), (["run"], "without --trust"), (["start", "--trust", ""], "without a prefix"),
    (["start", "--trust", "10.0.0.1/8"], "without bits behind"), (["start", "--trust", "edge.example"], "expected a prefix"),
    (["start", "--trust", "10.0.0.0/33"], "expected a prefix"), (["stop", "--trust", "10.0.0.0/8"], "with --trust"),
    (["start", "--trust", "10.0.0.1", "--kind-v4", "1"], "expected a number from 2 to 254"),
    (["start", "--trust", "10.0.0.1", "--kind-v6", "255"], "expected a number from 2 to 254"), ([], "no command"),
    (["go"], "expected start, stop"), (["stop", "stop"], "expected one command"), (["stats", "-o", "xml"], "expected text"),
    (["status", "-o", "prometheus"], "with stats only"),
])
def test_wrong_command_lines(arguments, said):
    done = run(KIT, *arguments, check=False)
    assert done.returncode == 2 and said in " ".join(done.stderr.split())


def test_what_is_missing_is_said(toa, tmp_path):
    def why(*arguments, **kwargs):
        done = run(*kwargs.get("prefix", ()), KIT, "start", "--trust", TRUST, *arguments, check=False)
        assert done.returncode == 1 and not os.path.exists(toa.state)
        return done.stderr
    state = ("--state", toa.state)
    assert "not a folder of a cgroup v2" in why("--cgroup", tmp_path, *state)
    assert "does not lie in a BPF file system" in why("--cgroup", toa.server, "--state", tmp_path / "state")
    assert "Operation not permitted" in why("--cgroup", toa.server, *state, prefix=no_rights("net_admin"))
    assert "CAP_BPF" in why("--cgroup", toa.server, *state, prefix=no_rights("bpf"))
    assert "CAP_PERFMON" in why("--cgroup", toa.server, *state, "--kind-v4", "254", prefix=no_rights("bpf", "net_admin"))
    without = "umount -l $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts); exec \"$@\""
    assert "no cgroup v2" in why(*state, prefix=("unshare", "-m", "sh", "-c", without, "sh"))


@origin_network
def test_two_capabilities_are_enough(toa):
    toa.start(prefix=no_rights("bpf", "net_admin"))
    port = toa.serve("dual")
    assert toa.told(port, CLIENT_V6)["peer"] == list(CLIENT_V6)
    toa.kit("stop", prefix=no_rights("bpf", "net_admin"))


# --- the library to preload ---

@origin_network
def test_preloaded_an_ipv4_listener_is_told_of_ipv6_clients(toa):
    toa.start()
    port = toa.serve("0.0.0.0", "ctypes", env={"LD_PRELOAD": PRELOAD})
    told = toa.told(port, CLIENT_V6)
    assert told["accept"] == told["peer"] == ["AF_INET6", *CLIENT_V6]
    told = toa.told(port, CLIENT_V4)
    assert told["accept"] == told["peer"] == ["AF_INET", *CLIENT_V4]
    told = toa.told(port)
    assert told["accept"] == told["peer"] == ["AF_INET", *told["edge"]]
    told = toa.told(port, CLIENT_V6, source=STRANGER[4])
    assert told["accept"] == told["peer"] == ["AF_INET", *told["edge"]]
    small = toa.serve("0.0.0.0", env={"LD_PRELOAD": PRELOAD})  # Python gives room for an IPv4 address
    told = toa.told(small, CLIENT_V6)
    assert told["accept"] == told["peer"] == told["edge"]


@pytest.mark.parametrize("kinds", [(200, 200), (254, 253)], ids=str)
@origin_network
def test_preloaded_without_any_right_the_syn_names_the_client(toa, kinds):
    env = {"LD_PRELOAD": PRELOAD, "TIDEGATE_ORIGIN_TRUST": TRUST, "TIDEGATE_ORIGIN_KIND_V4": str(kinds[0]),
           "TIDEGATE_ORIGIN_KIND_V6": str(kinds[1])}
    for listener in ("0.0.0.0", "dual"):
        port = toa.serve(listener, "ctypes", prefix=no_rights(), env=env)
        for client, kind in ((CLIENT_V4, kinds[0]), (CLIENT_V6, kinds[1])):
            with toa.connect(port, client, kind=kind) as s:
                lines = s.makefile()
                told = json.loads(lines.readline())
                family = "AF_INET6" if listener == "dual" or client is CLIENT_V6 else "AF_INET"
                expected = [family, *(mapped(client) if family == "AF_INET6" else client)]
                assert told["accept"] == told["peer"] == expected
                s.sendall(b"again?\n")
                assert json.loads(lines.readline()) == expected
        stranger = toa.told(port, CLIENT_V4, kind=kinds[0], source=STRANGER[4])
        assert stranger["peer"][1:] == list(mapped(stranger["edge"]) if listener == "dual" else stranger["edge"])
        silent = toa.told(port, CLIENT_V4, kind=kinds[0], flags=IN_REST)
        assert silent["peer"][1:] == list(mapped(silent["edge"]) if listener == "dual" else silent["edge"])


# --- the library's tgo_peer() ---

def hello(toa, port, *args, **kwargs):
    with toa.connect(port, *args, **kwargs) as s:
        line = s.makefile().readline()
        s.sendall(b"echo?")
        assert recv_exactly(s, 5) == b"echo?"
        return line.strip(), "%s:%s" % s.getsockname()[:2] if ":" not in s.getsockname()[0] else "[%s]:%s" % s.getsockname()[:2]


def example(toa, *arguments, prefix=()):
    port = free_port()
    toa.spawn([*prefix, os.path.join(BUILD, "debug", "example-toa"), arguments[0], port, *arguments[1:]])
    wait_until(lambda: run("ss", "-Hltn", f"sport = {port}").stdout, what="the example")
    return port


@origin_network
def test_the_example_server_knows_the_client_from_the_kernel(toa):
    toa.start()
    port, edges = example(toa, "0.0.0.0"), TRUST
    believing = example(toa, "::", edges)
    assert hello(toa, port, CLIENT_V4)[0] == "hello 203.0.113.77:54321 (from the kernel)"
    assert hello(toa, port, CLIENT_V6)[0] == "hello [2001:db8::dead:beef]:44444 (from the kernel)"
    assert hello(toa, believing, CLIENT_V4)[0] == "hello 203.0.113.77:54321 (from the kernel)"
    assert hello(toa, believing, CLIENT_V6, 6)[0] == "hello [2001:db8::dead:beef]:44444 (from the kernel)"
    for kwargs in ({}, {"client": CLIENT_V4, "source": STRANGER[4]}):  # nor is the SYN believed then
        said, own = hello(toa, believing, **kwargs)
        assert said == f"hello {own} (from the connection)"


@origin_network
def test_the_example_server_knows_the_client_from_the_syn_without_any_right(toa):
    port = example(toa, "::", TRUST, prefix=no_rights())
    assert hello(toa, port, CLIENT_V4)[0] == "hello 203.0.113.77:54321 (from the SYN)"
    assert hello(toa, port, CLIENT_V6, 6)[0] == "hello [2001:db8::dead:beef]:44444 (from the SYN)"
    for kwargs in ({}, {"client": CLIENT_V4, "source": STRANGER[4]}, {"client": CLIENT_V4, "flags": IN_REST}):
        said, own = hello(toa, port, **kwargs)
        assert said == f"hello {own} (from the connection)"
    port = example(toa, "0.0.0.0", prefix=no_rights())  # believes nobody
    said, own = hello(toa, port, CLIENT_V4)
    assert said == f"hello {own} (from the connection)"
