# SPDX-License-Identifier: Apache-2.0
"""Pass mode toa on loopback: which segments to the origin carry which option, whose sockets, and what is left behind."""
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile

import pytest

import cgroups
from harness import ROOT, TcpOrigin, connect, free_port, free_ports, recv_exactly, wait_until
from segments import ACK, FIN, Capture, toa

NOBODY = 65534
RIGHTS = "bpf,net_admin,net_bind_service"


@pytest.fixture
def capture():
    with Capture("lo") as c:
        yield c


def written(address):
    return f"[{address}]" if ":" in address else address


def say(client, data=b"hello"):
    client.sendall(data)
    assert recv_exactly(client, len(data)) == data


def kinds(segment):
    return {k for k in segment.options if k >= 128}


def segments_of_one(capture, port):
    """Those of a connection that has ended, retransmissions left out."""
    wait_until(lambda: any(s.flags & FIN for s in capture.segments(port)), what="the connection's end")
    return capture.segments(port)


# --- what is on the wire ---

@pytest.mark.parametrize("client_address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("origin_address", ["127.0.0.1", "::1"])
def test_the_option_is_on_every_segment_until_the_origin_has_answered(edge, capture, client_address, origin_address):
    port = free_port()
    with TcpOrigin(address=origin_address) as origin:
        e = edge(f"tcp:{port} {written(origin_address)} {origin.port} off toa\n")
        with connect(port, client_address) as client:
            name = client.getsockname()[:2]
            say(client)
            say(client)
        e.wait_flows(1)
        found = segments_of_one(capture, origin.port)
    option = toa(*name)
    syn, ack, data, *rest = found
    assert syn.is_syn and syn.options[200] == option and not syn.payload
    assert ack.flags == ACK and ack.options[200] == option and not ack.payload
    assert data.payload == b"hello" and data.options[200] == option
    assert rest and all(not kinds(s) for s in rest) and any(s.payload for s in rest)
    assert [s.header_length for s in (syn, ack)] == [40 + len(option), 32 + len(option)]
    assert e.status()["toa"] == "on" and e.metric("toa_bpf") == 1
    assert e.metric("toa_connections_total") == 1
    assert all(e.metric(n) == 0 for n in ("toa_without_total", "toa_hand_over_faults_total", "toa_no_room_total",
                                          "toa_syn_without_total"))


def test_a_server_that_speaks_first_ends_it_with_its_first_bytes(edge, capture):
    def greet(connection, peer):
        connection.sendall(b"220 ready\r\n")
        connection.recv(100)

    port = free_port()
    with TcpOrigin(greet) as origin:
        edge(f"tcp:{port} 127.0.0.1 {origin.port} off toa\n")
        with connect(port) as client:
            option = toa(*client.getsockname())
            assert recv_exactly(client, 11) == b"220 ready\r\n"
            client.sendall(b"EHLO\r\n")
            client.recv(1)
        syn, ack, *rest = segments_of_one(capture, origin.port)
    assert syn.options[200] == ack.options[200] == option
    assert rest and all(not kinds(s) for s in rest)


def test_a_client_that_says_nothing_is_named_on_the_fin_too(edge, capture):
    port = free_port()
    with TcpOrigin() as origin:
        edge(f"tcp:{port} 127.0.0.1 {origin.port} off toa\n")
        with connect(port) as client:
            option = toa(*client.getsockname())
        syn, ack, fin, *_ = segments_of_one(capture, origin.port)
    assert fin.flags & FIN and syn.options[200] == ack.options[200] == fin.options[200] == option


def test_the_option_in_the_syn_is_a_setting(edge, capture):
    port = free_port()
    with TcpOrigin() as origin:
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off toa toa_in_syn=off\n")
        with connect(port) as client:
            option = toa(*client.getsockname())
            say(client)
        syn, ack, data, *_ = segments_of_one(capture, origin.port)
    assert syn.is_syn and not kinds(syn) and ack.options[200] == data.options[200] == option
    assert e.metric("toa_syn_without_total") == 0


@pytest.mark.parametrize("address, kind", [("127.0.0.1", 254), ("::1", 253)])
def test_the_kind_is_a_setting_of_each_family(edge, capture, address, kind):
    port = free_port()
    with TcpOrigin() as origin:
        edge(f"set rule toa_kind_v4=254\ntcp:{port} 127.0.0.1 {origin.port} off toa toa_kind_v6=253\n")
        with connect(port, address) as client:
            option = toa(*client.getsockname()[:2], kind)
            say(client)
        for segment in segments_of_one(capture, origin.port)[:3]:
            assert kinds(segment) == {kind} and segment.options[kind] == option


@pytest.mark.parametrize("header, option", [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 80\r\n", toa("203.0.113.9", 4711)),
    (b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 80\r\n", toa("2001:db8::9", 4711))], ids=["v4", "v6"])
def test_behind_a_balancer_the_client_of_its_header_is_passed(edge, capture, header, option):
    port = free_port()
    with TcpOrigin() as origin:
        edge(f"tcp:{port} 127.0.0.1 {origin.port} off toa accept_proxy=127.0.0.0/8\n")
        with connect(port) as client:
            client.sendall(header)
            say(client)
        syn, ack, data, *_ = segments_of_one(capture, origin.port)
    assert syn.options[200] == ack.options[200] == data.options[200] == option


def test_every_attempt_at_an_origin_carries_it(edge, capture):
    port, refusing = free_port(), free_port()
    with TcpOrigin() as origin:
        e = edge(None, config={
            "origin_groups": [{"name": "g", "origins": [{"address": "127.0.0.1", "port": refusing},
                                                        {"address": "127.0.0.1", "port": origin.port}]}],
            "proxies": [{"name": "p"}],
            "rules": [{"proxy": "p", "protocol": "tcp", "edge_ports": [port], "origin": "og:g", "origin_port": 1,
                       "pass": "toa"}]})
        for _ in range(4):
            with connect(port) as client:
                option = toa(*client.getsockname())
                say(client)
            if capture.segments(refusing):
                break
        e.wait_flows(1)
        syn, = [s for s in capture.segments(refusing) if s.options.get(200) == option]
        assert syn.is_syn
        wait_until(lambda: any(s.payload for s in capture.segments(origin.port) if s.options.get(200) == option),
                   what="the data")
        found = [s for s in capture.segments(origin.port) if s.options.get(200) == option]
    assert [s.payload for s in found] == [b"", b"", b"hello"] and found[0].is_syn
    assert e.metric("connect_retries_total") >= 1 and e.metric("toa_hand_over_faults_total") == 0


def test_a_hundred_connections_at_once_carry_each_its_own(edge, capture):
    port = free_port()
    with TcpOrigin() as origin, contextlib.ExitStack() as open_ones:
        edge(f"tcp:{port} 127.0.0.1 {origin.port} off toa\n", workers=4)
        clients = [open_ones.enter_context(connect(port)) for _ in range(100)]
        for i, client in enumerate(clients):
            say(client, b"%03d" % i)
        def named():
            return {s.payload: s.options[200] for s in capture.segments(origin.port) if s.payload and 200 in s.options}
        wait_until(lambda: len(named()) == 100, what="a hundred segments")
        assert named() == {b"%03d" % i: toa(*c.getsockname()) for i, c in enumerate(clients)}


# --- whose sockets ---

def test_other_sockets_carry_nothing(edge, capture):
    """Those of other rules of the edge, its health checks, and those of other programs, to the same origin."""
    port = free_ports(2)
    with TcpOrigin() as origin:
        edge(f"tcp:{port} 127.0.0.1 {origin.port} off toa\ntcp:{port + 1} 127.0.0.1 {origin.port} off off\n")
        with connect(port) as client:
            say(client)
        with connect(port + 1) as client, connect(origin.port) as other:
            say(client, b"a rule with pass mode off")
            say(other, b"another program")
        wait_until(lambda: len([s for s in capture.segments(origin.port) if s.flags & FIN]) >= 3, what="all to end")
        found = capture.segments(origin.port)
    carriers = {s.source for s in found if kinds(s)}
    assert len(carriers) == 1
    for data in (b"a rule with pass mode off", b"another program"):
        source, = {s.source for s in found if s.payload == data}
        assert source not in carriers and not any(kinds(s) for s in found if s.source == source)


def test_only_the_edge_is_in_its_cgroup(edge):
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 1 off toa\n")
    assert cgroups.of(e.pid) == f"{cgroups.own()}/tidegate-edge-{e.pid}"
    with open(cgroups.of(e.pid) + "/cgroup.procs") as f:
        assert f.read().split() == [str(e.pid)]
    shown = subprocess.run(["bpftool", "-j", "cgroup", "show", cgroups.of(e.pid)], capture_output=True, text=True, check=True)
    assert sorted(p["name"] for p in json.loads(shown.stdout)) == ["toa_send"]


# --- what is left behind ---

def programs(pinned=False):
    shown = subprocess.run(["bpftool", "-jf", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return {p["id"] for p in json.loads(shown)
            if p.get("name") == "toa_send" and (p.get("pinned") or not pinned)}


def test_nothing_is_left_after_a_stop(edge):
    before, mode = programs(), os.stat(cgroups.own()).st_mode
    port = free_port()
    e = edge(f"tcp:{port} 127.0.0.1 1 off toa\n")
    assert cgroups.exists(e.pid) and programs() - before and not programs(pinned=True) - before
    e.stop_clean()
    assert not cgroups.exists(e.pid) and "left behind" not in e.stderr() and os.stat(cgroups.own()).st_mode == mode
    wait_until(lambda: not programs() - before, what="the programs to be gone")


def test_what_a_killed_edge_leaves_is_removed_by_the_next(edge):
    before = programs()
    port = free_ports(2)
    with TcpOrigin() as origin:
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off toa\n")
        other = edge(f"tcp:{port + 1} 127.0.0.1 {origin.port} off toa\n")
        others = programs()
        e.signal(signal.SIGKILL)
        e.process.wait()
        wait_until(lambda: len(others & programs()) < len(others), what="its programs to be gone")
        assert cgroups.exists(e.pid)  # an empty folder
        third = edge(f"tcp:{port} 127.0.0.1 {origin.port} off toa\n")
        assert not cgroups.exists(e.pid) and cgroups.exists(other.pid) and cgroups.exists(third.pid)
        for p in (port, port + 1):
            with connect(p) as client:
                say(client)
        assert third.metric("toa_connections_total") == other.metric("toa_connections_total") == 1
        other.stop_clean()
        third.stop_clean()
    e.process.returncode = 0  # as meant
    wait_until(lambda: not programs() - before, what="the programs to be gone")
    assert not any(cgroups.exists(x.pid) for x in (e, other, third))


def test_an_edge_that_does_not_start_leaves_nothing(edge):
    with TcpOrigin() as origin:
        e = edge(f"tcp:{origin.port} 127.0.0.1 1 off toa\n", wait=False)
        assert e.process.wait(15) == 1
        assert "is in use by" in e.stderr() and not cgroups.exists(e.pid)
        e.process.returncode = 0  # as meant


# --- rights ---

@pytest.fixture
def as_nobody(edge, tmp_path):
    """start(rules, cgroup): an edge of an ordinary user with few capabilities, started in that cgroup."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)

    def start(rules, cgroup, **kwargs):
        path = os.path.join(folder, "toa.rules")
        with open(path, "w") as f:
            f.write(rules)
        rights = ",".join("+" + r for r in RIGHTS.split(","))
        prefix = ["sh", "-c", f'echo $$ >{cgroup}/cgroup.procs && exec "$@"', "sh", "setpriv", "--reuid", str(NOBODY),
                  "--regid", str(NOBODY), "--clear-groups", "--inh-caps=-all," + rights, "--ambient-caps=-all," + rights,
                  "--bounding-set=-all," + rights, "--no-new-privs"]
        return edge(None, "--rules", path, prefix=prefix, log=False, control=False, **kwargs)

    yield start
    shutil.rmtree(folder)


def capabilities(pid):
    with open(f"/proc/{pid}/status") as f:
        return {int(v, 16) for v in re.findall(r"^Cap(?:Prm|Eff|Inh|Amb):\s+(\w+)", f.read(), re.MULTILINE)}


def test_an_ordinary_user_with_a_cgroup_of_its_own_needs_two_capabilities_and_drops_them(as_nobody, capture):
    port = free_port()
    with cgroups.delegated(NOBODY) as cgroup, TcpOrigin() as origin:
        e = as_nobody(f"tcp:{port} 127.0.0.1 {origin.port} off toa\n", cgroup)
        assert cgroups.of(e.pid) == f"{cgroup}/tidegate-edge-{e.pid}"
        for task in os.listdir(f"/proc/{e.pid}/task"):
            assert capabilities(f"{e.pid}/task/{task}") <= {0, 1 << 10}  # CAP_NET_BIND_SERVICE
        with connect(port) as client:
            option = toa(*client.getsockname())
            say(client)
        syn, ack, *_ = segments_of_one(capture, origin.port)
        assert syn.options[200] == ack.options[200] == option
        e.stop_clean()
        assert os.listdir(cgroup) and not [n for n in os.listdir(cgroup) if n.startswith("tidegate")]


def test_without_a_cgroup_of_its_own_an_ordinary_user_is_told(as_nobody):
    e = as_nobody(f"tcp:{free_port()} 127.0.0.1 1 off toa\n", cgroups.own(), wait=False)
    assert e.process.wait(15) == 1
    assert re.search(r"toa\.rules:1:\d+: pass mode \"toa\" cannot be sent here \(\S+/cgroup\.procs: Permission denied\), "
                     r"expected another pass mode, toa_required=off, or the rights of docs/operation\.md\n", e.stderr())
    e.process.returncode = 0  # as meant


READ_ONLY = ("unshare", "-m", "sh", "-c", f'mount -o remount,bind,ro {cgroups.mount()} && exec "$@"', "sh")
UNMOUNTED = ("unshare", "-m", "sh", "-c", f'umount {cgroups.mount()} && exec "$@"', "sh")


@pytest.mark.parametrize("prefix, why", [
    (("setpriv", "--bounding-set=-sys_admin,-bpf", "--inh-caps=-all"), "loading the toa_send program: Operation not permitted"),
    (("setpriv", "--bounding-set=-sys_admin,-net_admin", "--inh-caps=-all"),
     "loading the toa_send program: Operation not permitted"),
    (READ_ONLY, f"{cgroups.own()}/cgroup.procs: Read-only file system"),
    (UNMOUNTED, "no cgroup v2 is mounted where the process sees it")], ids=["no bpf", "no net_admin", "read-only", "unmounted"])
def test_where_it_is_refused_rules_are_refused_or_go_without_as_they_say(edge, capture, prefix, why):
    port = free_ports(2)
    with TcpOrigin() as origin:
        rule = f"tcp:{port} 127.0.0.1 {origin.port} off toa toa_required=off\n"
        insists = f"tcp:{port + 1} 127.0.0.1 {origin.port} off toa\n"
        e = edge("# a line\n" + rule + insists, prefix=prefix, wait=False)
        assert e.process.wait(15) == 1
        column = insists.index("toa") + 1
        message = (f'{e.rules_path}:3:{column}: pass mode "toa" cannot be sent here ({why}), expected another pass mode, '
                   "toa_required=off, or the rights of docs/operation.md\n")
        assert message in e.stderr() and not os.path.isdir(f"{cgroups.own()}/tidegate-edge-{e.pid}")
        e.process.returncode = 0  # as meant
        e = edge(rule, prefix=prefix)
        assert e.status()["toa"] == f"off: {why}" and e.metric("toa_bpf") == 0
        assert f"warning: pass mode toa: {why}; with toa_required=off, 1 rules pass no client address" in e.stderr()
        answer = e.reload("# a line\n" + rule + insists)
        assert answer.startswith("error") and f":3:{column}: pass mode \"toa\" cannot be sent here" in answer
        with connect(port) as client:
            say(client)
        e.wait_flows(1, end="done")
        assert e.metric("toa_without_total") == 1 and e.metric("toa_connections_total") == 0
        assert not any(kinds(s) for s in capture.segments(origin.port))


def test_a_reload_brings_the_first_rule_with_toa_only_where_it_is_kept_ready(edge):
    port = free_port()
    with TcpOrigin() as origin:
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
        assert not cgroups.exists(e.pid)  # without a use for it nobody pays for it
        answer = e.reload(f"tcp:{port} 127.0.0.1 {origin.port} off toa\n")
        assert answer.startswith("error") and "no rule had pass mode toa at the start" in answer


def test_a_reload_may_bring_the_first_rule_with_toa(edge, capture):
    port = free_port()
    with TcpOrigin() as origin:
        e = edge(f"set node toa=on\ntcp:{port} 127.0.0.1 {origin.port} off off\n")
        with connect(port) as client:
            say(client)
        segments_of_one(capture, origin.port)
        assert e.reload(f"set node toa=on\ntcp:{port} 127.0.0.1 {origin.port} off toa\n").startswith("ok")
        with connect(port) as client:
            option = toa(*client.getsockname())
            say(client)
        first, = {s.source for s in capture.segments(origin.port) if not kinds(s) and s.is_syn}
        wait_until(lambda: any(s.flags & FIN and s.source != first for s in capture.segments(origin.port)), what="the end")
        assert [s.options[200] for s in capture.segments(origin.port) if kinds(s)] == [option] * 3


def test_it_can_be_switched_off(edge):
    e = edge("set node toa=off\n")
    assert e.status()["toa"] == "off: toa=off" and cgroups.of(e.pid) == cgroups.of("self")
    answer = e.reload(f"set node toa=off\ntcp:{free_port()} 127.0.0.1 1 off toa\n")
    assert 'pass mode "toa" cannot be sent here (toa=off)' in answer
    e = edge("", "--no-bpf")
    assert e.status()["toa"] == "off: --no-bpf" and not cgroups.exists(e.pid)


def test_a_rule_of_a_document_is_refused_by_its_path(edge):
    rule = {"proxy": "p", "protocol": "tcp", "edge_ports": [free_port()], "origin": "127.0.0.1", "origin_port": 1, "pass": "toa"}
    e = edge(None, "--no-bpf", config={"proxies": [{"name": "p"}], "rules": [rule]}, wait=False)
    assert e.process.wait(15) == 1
    assert e.stderr() == (f'{e.config_path}: rules[0].pass: "toa" cannot be sent here (--no-bpf): expected another pass mode, '
                          "toa_required=off, or the rights of docs/operation.md\n")
    e.process.returncode = 0  # as meant


# --- when something goes wrong later ---

def detach(pid, program):
    """As somebody else may do it: the link stays, the program is not called any more."""
    shown = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True).stdout
    ids = {p["id"] for p in json.loads(shown) if p.get("name") == program}
    for n in os.listdir(f"/proc/{pid}/fdinfo"):
        with open(f"/proc/{pid}/fdinfo/{n}") as f:
            text = f.read()
        link = re.search(r"^link_id:\s+(\d+)", text, re.MULTILINE)
        if link and int(re.search(r"^prog_id:\s+(\d+)", text, re.MULTILINE)[1]) in ids:
            subprocess.run(["bpftool", "link", "detach", "id", link[1]], check=True)


def test_an_address_that_the_kernel_does_not_take_ends_the_connection_or_is_counted(edge, capture):
    ports = free_ports(2)
    with TcpOrigin() as origin:
        e = edge(f"tcp:{ports} 127.0.0.1 {origin.port} off toa\n"
                 f"tcp:{ports + 1} 127.0.0.1 {origin.port} off toa toa_required=off\n")
        detach(e.pid, "toa_send")
        with pytest.raises(ConnectionResetError), connect(ports) as client:
            client.recv(1)
        flow, = e.wait_flows(1, end="toa_failed")
        assert flow["end_side"] == "edge" and not any(s.payload for s in capture.segments(origin.port))
        with connect(ports + 1) as client:
            say(client)
        e.wait_flows(1, end="done")
        assert e.metric("toa_hand_over_faults_total") == 2
        assert (e.metric("toa_without_total"), e.metric("toa_connections_total")) == (1, 0)
        assert not any(kinds(s) for s in segments_of_one(capture, origin.port))


def test_many_that_start_at_once_do_not_take_each_other_s_cgroup(edge):
    started = [edge(f"tcp:{free_port()} 127.0.0.1 1 off toa\n", wait=False, log=False) for _ in range(8)]
    for e in started:
        e.wait_ready()
        assert re.fullmatch(rf"{cgroups.own()}/tidegate-edge-{e.pid}(\.\d)?", cgroups.of(e.pid))
    for e in started:
        e.stop_clean()
    assert not any(cgroups.exists(e.pid) for e in started)


# --- the program ---

@pytest.mark.parametrize("clang", [c for c in sorted(glob.glob("/usr/bin/clang-*") + ["/usr/bin/clang"])
                                   if re.search(r"/clang(-\d+)?$", c)], ids=os.path.basename)
def test_the_verifier_accepts_it_from_every_clang_of_this_machine(clang, tmp_path):
    """With the rights of the service unit, for which it is stricter than for root."""
    built, pinned = tmp_path / "toa_send.o", f"/sys/fs/bpf/test-toa-{os.getpid()}"
    machine = subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([clang, "-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing",
                    f"-I{ROOT}/src", "-I" + ROOT, f"-I/usr/include/{machine}", "-c", f"{ROOT}/src/bpf/toa_send/toa_send.bpf.c", "-o", built],
                   check=True)
    rights = "-all,+bpf,+net_admin"
    done = subprocess.run(["setpriv", "--bounding-set=" + rights, "--inh-caps=-all", "bpftool", "prog", "loadall", built, pinned],
                          capture_output=True, text=True)
    try:
        assert done.returncode == 0, done.stderr
        assert sorted(os.listdir(pinned)) == ["toa_send"]
    finally:
        shutil.rmtree(pinned, ignore_errors=True)
