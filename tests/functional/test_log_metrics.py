# SPDX-License-Identifier: Apache-2.0
"""What can be seen of an edge: the flow log and what happens when its file will not take it, metrics, control socket."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections import defaultdict

import pytest

from harness import (EDGE, TIMEOUT, TcpOrigin, connect, echoes, free_port, free_ports, how_connecting_ends, recv_all,
                     refused, wait_metric, wait_until)
from streams import Job, StreamOrigin, exchange

FLOWS = 12_000  # more log lines than both workers' rings and a pipe hold


@pytest.fixture
def origin():
    with TcpOrigin() as o:
        yield o


def rule(port, origin, more=""):
    return f"tcp:{port} 127.0.0.1 {origin.port} off off {more}\n"


def run_flows(port, count):
    """That many short connections, as fast as one thread can."""
    for _ in range(count):
        with connect(port) as c:
            c.shutdown(socket.SHUT_WR)
            assert recv_all(c) == b""


# --- the flow log ---

def test_log_file_is_appended_to_and_private(edge, origin, tmp_path):
    port, log = free_port(), tmp_path / "flows.json"
    log.write_text("what was there\n")
    for _ in range(2):
        e = edge(rule(port, origin), "--log", log, log=False)
        run_flows(port, 1)
        e.stop_clean()
    first, *lines = log.read_text().splitlines()
    assert first == "what was there" and [json.loads(line)["end"] for line in lines] == ["done", "done"]
    log.unlink()
    edge(rule(port, origin), "--log", log, log=False)
    assert oct(log.stat().st_mode & 0o777) == oct(0o640)


def test_no_log_is_written_unless_asked_for(edge, origin):
    port = free_port()
    e = edge(rule(port, origin), log=False)
    run_flows(port, 3)
    e.stop()
    assert e.metrics_port and sorted(p.name for p in e.dir.iterdir()) == ["edge.err", "edge.rules"]


def test_log_that_cannot_be_opened_fails_the_start(tmp_path, origin):
    rules = tmp_path / "x.rules"
    rules.write_text(rule(free_port(), origin))
    done = subprocess.run([EDGE, "--rules", rules, "--log", tmp_path / "no" / "dir"], capture_output=True, text=True,
                          timeout=TIMEOUT)
    assert (done.returncode, done.stderr) == (1, f"--log {tmp_path}/no/dir: No such file or directory\n")


def test_sigusr1_opens_the_renamed_log_again_and_loses_no_line(edge, origin):
    port = free_port()
    e = edge(rule(port, origin))
    old = e.log_path.with_suffix(".1")
    run_flows(port, 50)
    e.wait_flows(50)
    e.log_path.rename(old)
    run_flows(port, 50)
    e.signal(signal.SIGUSR1)
    wait_until(e.log_path.exists, what="the new file")
    run_flows(port, 50)
    e.wait_flows(50)
    e.stop_clean()
    lines = [json.loads(line) for path in (old, e.log_path) for line in path.read_text().splitlines()]
    assert len(old.read_text().splitlines()) >= 50
    assert len({line["flow"] for line in lines}) == len(lines) == 150


def test_log_on_standard_output(edge, origin):
    port = free_port()
    e = edge(rule(port, origin), "--log", "-", log=False)
    run_flows(port, 2)
    lines = [json.loads(e.process.stdout.readline()) for _ in range(2)]
    assert [line["end"] for line in lines] == ["done", "done"]


@pytest.mark.slow
def test_pipe_that_nobody_reads_stops_no_traffic_and_dropped_lines_are_counted(edge, origin):
    port = free_port()
    with StreamOrigin() as streams:
        e = edge(rule(port, streams), "--log", "-", log=False)
        exchange([Job(port, 1, 1) for _ in range(FLOWS)], at_once=100)
        wait_metric(e, 0, "flows_active")
        dropped = e.metric("log_lines_dropped_total")
        assert 0 < dropped < FLOWS
        assert e.status()["log_lines_dropped"] == dropped
        exchange([Job(port, 100_000, 100_000) for _ in range(20)])
        # what is read at last is whole lines, and all that were not dropped
        wait_metric(e, 0, "flows_active")
        written = FLOWS + 20 - int(e.metric("log_lines_dropped_total"))
        lines = [json.loads(e.process.stdout.readline()) for _ in range(written)]
        assert len({line["flow"] for line in lines}) == written
        exchange([Job(port, 2, 2)])
        assert json.loads(e.process.stdout.readline())["bytes_in"] == 26


def test_stops_in_time_although_nobody_reads_the_log(edge, origin):
    port = free_port()
    e = edge(rule(port, origin), "--log", "-", log=False)
    run_flows(port, 400)  # more than the pipe holds
    e.signal(signal.SIGTERM)
    assert e.process.wait(5) == 0


def test_full_disk_stops_no_traffic_and_lost_lines_are_counted(edge, origin):
    port = free_port()
    e = edge(rule(port, origin), "--log", "/dev/full", log=False)
    run_flows(port, 100)
    wait_metric(e, 100, "log_lines_lost_total")
    assert e.stderr().count("flow log: writing to /dev/full: No space left on device; lines are being lost") == 1
    assert not refused(port)


def test_disk_that_has_room_again_gets_whole_lines(edge, origin, tmp_path):
    """A small file system fills up in the middle of a line; then there is room again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
    try:
        port, log, filler = free_port(), disk / "flows.json", disk / "filler"
        filler.write_bytes(bytes(40 << 10))
        e = edge(rule(port, origin), "--log", log, log=False)
        run_flows(port, 300)
        wait_until(lambda: e.metric("log_lines_lost_total") > 0, what="the disk to be full")
        full = log.stat().st_size
        filler.unlink()
        wait_until(lambda: run_flows(port, 1) or log.stat().st_size > full, what="lines again")
        wait_metric(e, 0, "flows_active")
        flows, lost = e.metric("flows_total"), e.metric("log_lines_lost_total")
        e.stop_clean()
        whole = 0
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                whole += bool(json.loads(line))
        assert whole + lost == flows, "each line is in the file, whole, or counted as lost"
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# --- metrics ---

def get(e, path, method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{e.metrics_port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as r:
            return r.status, r.headers["Content-Type"], r.read().decode()
    except urllib.error.HTTPError as r:
        return r.code, r.headers["Content-Type"], r.read().decode()


@pytest.mark.parametrize("method,path,status,body", [
    ("GET", "/healthz", 200, "ok\n"), ("GET", "/", 404, "expected /metrics or /healthz\n"),
    ("GET", "/metrics/", 404, "expected /metrics or /healthz\n"), ("GET", "/../etc/passwd", 404, None),
    ("POST", "/metrics", 405, "expected GET\n"), ("DELETE", "/healthz", 405, "expected GET\n"),
    ("HEAD", "/healthz", 200, ""),
])
def test_http_of_the_metrics_port(edge, method, path, status, body):
    answer = get(edge(""), path, method)
    assert answer[0] == status and (body is None or answer[2] == body)


def test_metrics_port_stands_wrong_and_endless_requests(edge):
    e = edge("")
    for data in (b"\x00\xff\r\n\r\n", b"GET /" + b"a" * 100_000, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, b""):
        with socket.create_connection(("127.0.0.1", e.metrics_port), TIMEOUT) as s:
            try:
                s.sendall(data)
            except OSError:
                pass
    assert get(e, "/healthz")[2] == "ok\n"


SAMPLE = re.compile(r'^(tidegate_[a-z0-9_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (\d+(?:\.\d+)?)$')


def parse_metrics(text):
    """Checks the text format; returns {name: {labels: value}}."""
    types, samples = {}, defaultdict(dict)
    for line in text.splitlines():
        if line.startswith("#"):
            _, what, name, rest = line.split(" ", 3)
            if what == "TYPE":
                assert name not in types and rest in ("counter", "gauge", "histogram")
                types[name] = rest
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, labels, value = match.groups()
        base = re.sub("_(bucket|sum|count)$", "", name)
        assert types.get(name, types.get(base)), f"{name} without TYPE"
        assert labels not in samples[name], f"{line} twice"
        samples[name][labels] = float(value)
    return samples


def test_metrics_are_well_formed_and_every_rule_has_its_series(edge, origin):
    first, closed = free_ports(3), free_port()
    tag = r'"say \"hi\" \\ é"'
    e = edge(rule(first, origin, tag) + rule(first + 1, origin) + f"tcp:{first + 2} 127.0.0.1 {closed} off off\n"
             + f"udp:{first} 127.0.0.1 53 off off\n")
    with connect(first) as c:
        assert echoes(c, b"12345")
        samples = parse_metrics(e.metrics_text())
        ids = [re.search(r'rule="(rule-[0-9a-z]{10})"', labels).group(1) for labels in samples["tidegate_flows_total"]]
        assert len(set(ids)) == 4
        for name in ("flows_total", "flows_active", "bytes_in_total", "bytes_out_total", "datagrams_in_total",
                     "datagrams_out_total"):
            assert len(samples[f"tidegate_{name}"]) == 4
        assert samples["tidegate_flows_active"][f'rule="{ids[0]}",protocol="tcp",tag="say \\"hi\\" \\\\ é"'] == 1
    for _ in range(3):
        how_connecting_ends(first + 2)
    e.wait_flows(4)
    samples = parse_metrics(e.metrics_text())
    plain = f'rule="{ids[2]}",protocol="tcp",tag=""'
    assert samples["tidegate_flows_ended_total"][f'{plain},end="connect_refused"'] == 3
    assert samples["tidegate_bytes_in_total"][f'rule="{ids[0]}",protocol="tcp",tag="say \\"hi\\" \\\\ é"'] == 5


def test_metrics_agree_with_the_flow_log_and_histograms_with_their_counts(edge, origin):
    ports = free_ports(3)
    e = edge("".join(rule(ports + i, origin, f"rule {i}") for i in range(3)))
    for i in range(3):
        run_flows(ports + i, 10 * (i + 1))
    flows = e.wait_flows(60)
    samples = parse_metrics(e.metrics_text())
    for i in range(3):
        mine = [f for f in flows if f["tag"] == f"rule {i}"]
        labels = f'rule="{mine[0]["rule"]}",protocol="tcp",tag="rule {i}"'
        count = 10 * (i + 1)
        buckets = [v for k, v in samples["tidegate_connect_seconds_bucket"].items() if k.startswith(labels)]
        assert buckets == sorted(buckets) and len(buckets) == 11, "cumulative"
        assert buckets[-1] == samples["tidegate_connect_seconds_count"][labels] == count == len(mine)
        assert samples["tidegate_connect_seconds_sum"][labels] == pytest.approx(
            sum(f["connect_ms"] for f in mine) / 1000, abs=1e-6)
        assert samples["tidegate_flows_total"][labels] == count
        assert samples["tidegate_flows_ended_total"][f'{labels},end="done"'] == count
    node = {k.removeprefix("tidegate_"): v[None] for k, v in samples.items() if None in v}
    assert (node["node_flows"], node["workers"], node["config_version"], node["steering_bpf"]) == (
        0, 2, 1, 0 if os.environ.get("TIDEGATE_NO_BPF") else 1)
    assert node["resident_memory_bytes"] > 1 << 20


# --- the control socket ---

def ask(e, data):
    """Raw bytes to the control socket, and its whole answer."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(TIMEOUT)
        s.connect(str(e.socket_path))
        s.sendall(data)
        return recv_all(s).decode()


@pytest.mark.parametrize("data,answer", [
    (b"nonsense\n", 'error command "nonsense", expected reload, status, rules or config\n'),
    (b"\n", 'error command "", expected reload, status, rules or config\n'),
    (b"status now\n", 'error command "status now", expected reload, status, rules or config\n'),
    (b"x" * 126 + b"\n", f'error command "{"x" * 126}", expected reload, status, rules or config\n'),
    (b"x" * 127, "error a line of 127 bytes or more, expected a command\n"),
    (b"x" * 5000, "error a line of 127 bytes or more, expected a command\n"),
])
def test_wrong_command_is_told_what_is_expected(edge, data, answer):
    e = edge("")
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(TIMEOUT)
        s.connect(str(e.socket_path))
        s.sendall(data)
        got = b""
        while not got.endswith(b"\n"):
            got += s.recv(1000)
        assert got.decode() == answer
    assert e.status()["rules"] == 0


def test_command_is_any_case_byte_by_byte_with_cr(edge):
    e = edge("")
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(TIMEOUT)
        s.connect(str(e.socket_path))
        for byte in b"STaTus\r\n":
            s.send(bytes([byte]))
        assert json.loads(recv_all(s))["version"] == 1


def test_control_socket_is_for_its_owner_only(edge):
    assert oct(edge("").socket_path.stat().st_mode & 0o777) == oct(0o600)


def test_status_says_what_is_in_force(edge, origin):
    ports = free_ports(3)
    e = edge(f"set node name=n1 max_flows=77\ntcp:{ports}-{ports + 2} 127.0.0.1 {origin.port} off off\n"
             f"udp:{ports} 127.0.0.1 53 off off\n")
    with connect(ports) as c:
        assert echoes(c)
        status = e.status()
    expected = {"version": 1, "source": str(e.rules_path), "last_good": False, "node": "n1", "rules": 2, "workers": 2,
                "ports": {"tcp": 3, "udp": 1}, "flows": 1, "flows_max": 77, "log_lines_dropped": 0}
    assert {k: status[k] for k in expected} == expected
    assert status["fds"] < status["fds_max"] and status["resident_memory_bytes"] > 1 << 20


RULES = r"""set node name=edge-1 max_flows=5000 resolvers=127.0.0.1,[::1]:5353 resolve_min=200ms resolve_max=1m
set rule connect_timeout=1500ms client_max_flows=0 unanswered_timeout=10s
# a comment
tcp:@0 10.0.0.5 22 off off admin   ssh   # not a comment
TCP:@1;@2,@3-@5	Web.Example.NET. 8080 ON PPv2 web
udp:@0-@5 [2001:0db8::0007] 5000-5005 off spp spp_answers=strict idle_timeout=300s answers=3 "# game"
tcp:@6 [FE80::1] 1 off ppv1 accept_proxy=10.0.0.0/8,2001:db8::/32 accept_proxy_timeout=1s "idle_timeout=1s"
tcp:@7 1.2.3.4 1 off off max_flows=9 "two  blanks \"and\" \\quotes" # comment
udp:@6 h 1 on ppv2 ppv2_mode=every new_flows_per_s=5 client_new_flows_per_s=6 Schlüssel 鍵
"""


def test_rules_answer_is_the_rules_file_again(edge):
    """import(export(x)) = x: what is exported reads as the same rules, and exports as the same text."""
    first = free_ports(8)
    e = edge(re.sub("@(\\d)", lambda m: str(first + int(m.group(1))), RULES))
    exported = e.control("rules")
    assert len(exported.splitlines()) == 8
    assert f"tcp:{first + 1};{first + 2};{first + 3}-{first + 5} web.example.net 8080 on ppv2 web\n" in exported
    assert " idle_timeout=5m " in exported and ' "# game"\n' in exported
    before = e.metrics_text()
    assert e.reload(exported).startswith("ok version 2 applied: 6 rules")
    assert e.control("rules") == exported

    def series(text):
        return sorted(re.findall(r"^tidegate_flows_total(\{.*\})", text, re.MULTILINE))

    assert series(e.metrics_text()) == series(before), "the same ids, protocols and tags"


def test_17th_control_client_is_turned_away_and_the_16_do_no_harm(edge, origin):
    port = free_port()
    e = edge(rule(port, origin))
    idle = []
    for _ in range(16):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(TIMEOUT)
        s.connect(str(e.socket_path))
        s.send(b"sta")
        idle.append(s)
    assert ask(e, b"") == ""
    assert not refused(port) and get(e, "/healthz")[0] == 200
    idle.pop().close()
    wait_until(lambda: ask(e, b"status\n"), what="a free place")
    idle[0].sendall(b"tus\n")
    assert json.loads(recv_all(idle[0]))["rules"] == 1
    for s in idle:
        s.close()


@pytest.mark.slow
def test_idle_control_client_is_closed_after_10_seconds(edge):
    assert ask(edge(""), b"sta") == ""


def test_client_that_does_not_read_a_long_answer_holds_up_nobody(edge, origin):
    first = free_ports(1000)
    e = edge("".join(rule(first + i, origin, "x" * 50) for i in range(1000)) + "".join(
        f"udp:{first + i} 127.0.0.1 53 off off {'y' * 50}\n" for i in range(1000)))
    with socket.socket(socket.AF_UNIX) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(TIMEOUT)
        slow.connect(str(e.socket_path))
        slow.sendall(b"rules\n")
        whole = e.control("rules")
        assert len(whole.splitlines()) == 2000
        assert recv_all(slow).decode() == whole


def test_socket_left_by_a_dead_edge_is_taken_over_and_that_of_a_live_one_is_not(edge, tmp_path):
    path = tmp_path / "x.sock"
    first = edge("", "--socket", path, control=False)
    rules = tmp_path / "x.rules"
    rules.write_text("")
    second = subprocess.run([EDGE, "--rules", rules, "--socket", path], capture_output=True, text=True, timeout=TIMEOUT)
    assert (second.returncode, second.stderr) == (1, f"--socket {path}: Address already in use\n")
    first.process.kill()
    first.process.wait()
    with open(first.stderr_path, "w"):
        first.process.returncode = 0  # it was us
    assert path.exists()
    edge("", "--socket", path, control=False)
