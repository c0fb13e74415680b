# SPDX-License-Identifier: Apache-2.0
"""bench/run as such: every case makes its figures without errors, and nothing of a run stays behind. No speed is tested."""
import json
import os
import signal
import subprocess

import pytest

from harness import EDGE, ROOT, wait_until

RUN = os.path.join(ROOT, "bench", "run")
QUICK = ["--rounds", "1", "--seconds", "0.1", "--warm", "0.05", "--scale", "0.01", "--edge", EDGE]
LIMIT = 60


def cases(*names):
    return [word for name in names for word in ("--case", name)]


def bench(tmp_path, *arguments):
    """What a run with these arguments wrote: (JSON, markdown)."""
    result, tables = tmp_path / "bench.json", tmp_path / "bench.md"
    done = subprocess.run([RUN, *QUICK, *arguments, "--json", result, "--markdown", tables], capture_output=True, text=True,
                          timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(result.read_text()), tables.read_text()


def check(result, topology, expected):
    """Every contender has figures in every case of `expected`, and ours and the direct path have no errors."""
    assert result["left_out"] == []
    runs = {(r["case"], r["contender"]): r for r in result["runs"]}
    assert len(runs) == len(result["runs"])
    assert {case: {c for of, c in runs if of == case} for case, _ in runs} == expected
    for (case, contender), r in runs.items():
        assert r["failure"] is None and r["topology"] == topology
        if contender in ("direct", "tidegate", "tidegate-user"):
            assert r["errors"] == 0, r
    for table in result["summary"]:
        for row in table["rows"]:
            for column in table["columns"]:
                # the others' share of a run too short for the clock of CPU time cannot be told
                if column != "others" and (column, row["contender"]) != ("added_us", "direct"):
                    assert row[column]["min"] <= row[column]["median"] <= row[column]["max"]
    for origin in result["origins"]:
        assert [origin[k] for k in ("bad_first_bytes", "short_echoes", "truncated", "unsent")] == [0, 0, 0, 0]


PAIR, OURS = {"direct", "tidegate"}, {"tidegate"}
TRIO = PAIR | {"tidegate-user"}


def test_all_cases_on_loopback(tmp_path):
    names = ["tcp-bulk", "tcp-bulk-up", "tcp-rr", "tcp-crr", "udp", "ppv2", "mixed", "ports", "ports-udp", "rules",
             "idle"]
    result, tables = bench(tmp_path, "--topology", "loopback", *cases(*names), "--contenders", "direct,tidegate")
    check(result, "loopback", {
        **{case: PAIR for case in ("tcp-bulk-1", "tcp-bulk-8", "tcp-bulk-up", "tcp-rr", "tcp-rr-1000", "tcp-crr", "udp-rr",
                                   "udp-burst", "udp-new", "ppv2-tcp", "ppv2-udp", "mixed")},
        **{case: OURS for case in ("ports", "ports-udp", "ports-60000", "rules", "idle")},
    })
    for title in ("## Bars", "## tcp-rr, loopback", "## idle, loopback"):
        assert title in tables
    headers = {o["origin"]: o["headers"] for o in result["origins"]}
    assert headers["origin-of-direct"] == 0 and headers["origin-of-tidegate"] > 0


def test_all_contenders_between_namespaces(tmp_path):
    result, tables = bench(tmp_path, "--topology", "netns", *cases("udp-rr", "tcp-crr"))
    udp = TRIO | {"nginx", "nginx-tuned", "nft"}
    tcp = udp | {"haproxy", "haproxy-tuned", "haproxy-splice"}
    if not any(r["contender"] == "tidegate-user" for r in result["runs"] if r["case"] == "tcp-crr"):
        tcp.remove("tidegate-user")  # the edge has no fast path of TCP to switch off
    check(result, "netns", {"udp-rr": udp, "tcp-crr": tcp})
    for r in result["runs"]:
        assert r["errors"] == 0, r
    bars = {(b["case"], b["contender"], b["to"]): b for b in result["bars"]}
    assert ("udp-rr", "tidegate", "nft") in bars
    assert all(b["rounds"] == 1 for b in bars.values() if b["met"] is not None)
    assert "## udp-rr, netns" in tables


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_of_a_run_that_is_ended(tmp_path, number):
    started = []

    def begun():
        for path in tmp_path.glob("tidegate-bench-*/processes"):
            started[:] = [int(pid) for pid in path.read_text().split()]
        return len(started) >= 3  # origins and the edge

    def living():
        return [pid for pid in started if os.path.exists(f"/proc/{pid}/exe") and os.access(f"/proc/{pid}/exe", os.F_OK)]

    arguments = [RUN, *QUICK, *cases("tcp-rr"), "--seconds", "60", "--topology", "loopback", "--contenders", "tidegate"]
    run = subprocess.Popen(arguments, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    try:
        wait_until(begun, what="the run to start what it needs")
        run.send_signal(number)
        assert run.wait(15) == (130 if number == signal.SIGTERM else -number)
    finally:
        if run.poll() is None:
            run.kill()
            run.wait()
    wait_until(lambda: not living(), what="what the run started to end")
    if number == signal.SIGKILL:  # the folder of that run goes with the next one
        assert len(list(tmp_path.glob("tidegate-bench-*"))) == 1
        arguments[arguments.index("--seconds", arguments.index("--seconds") + 1) + 1] = "0.1"
        subprocess.run(arguments, env={**os.environ, "TMPDIR": str(tmp_path)}, check=True, capture_output=True, timeout=LIMIT)
    assert not list(tmp_path.glob("*tidegate-bench-*"))


def test_a_contender_that_does_not_start_is_left_out_and_the_rest_goes_on(tmp_path):
    broken, result = tmp_path / "edge", tmp_path / "bench.json"
    broken.write_text("#!/bin/sh\necho I do not start\nexit 3\n")
    broken.chmod(0o755)
    done = subprocess.run([RUN, *QUICK, *cases("udp-rr", "idle"), "--topology", "loopback", "--contenders", "tidegate,nginx",
                           "--edge", broken, "--json", result], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1
    found = json.loads(result.read_text())
    assert len(found["left_out"]) == 1 and "I do not start" in found["left_out"][0]
    assert {(r["case"], r["contender"], r["failure"] is None) for r in found["runs"]} == {
        ("udp-rr", "direct", True), ("udp-rr", "nginx", True), ("idle", "nginx", True), ("idle", "tidegate", False)}


@pytest.mark.parametrize("arguments, complaint", [
    (["--edge", "/nowhere"], "no such program"), (["--case", "udp-x"], "expected one of"),
    (["--contenders", "envoy"], "expected some of"), (["--case", "ports", "--contenders", "nft"], "nothing to measure")])
def test_a_run_that_cannot_begin_says_why(arguments, complaint):
    done = subprocess.run([RUN, *QUICK, *arguments], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2 and complaint in done.stderr
