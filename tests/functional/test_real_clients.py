# SPDX-License-Identifier: Apache-2.0
"""Programs that people run behind such a proxy, each with its own client, checked by what the client says and by the
flow log. The 1 GB download runs with the release build when there is one."""
import json
import os
import random
import re
import shutil
import subprocess

import pytest

import harness
from harness import BUILD, free_port, free_ports, wait_until

LOOPBACK = "127.0.0.1"


def run(*command, timeout=60, check=True, **kwargs):
    done = subprocess.run([str(c) for c in command], capture_output=True, timeout=timeout, **kwargs)
    if check and done.returncode:
        raise AssertionError(f"{command[0]} ended with {done.returncode}:\n{done.stderr.decode()}\n{done.stdout.decode()}")
    return done


@pytest.fixture
def nginx(tmp_path, program):
    """serve(directory) -> port"""
    def serve(directory):
        port = free_port()
        conf = tmp_path / "nginx.conf"
        tmp_path.chmod(0o755)
        conf.write_text(f"""
            daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/nginx.err;
            events {{ }}
            http {{
                access_log off; sendfile on;
                client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p; fastcgi_temp_path {tmp_path}/f;
                uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
                server {{ listen {LOOPBACK}:{port}; root {directory}; }}
            }}""")
        program(["/usr/sbin/nginx", "-p", tmp_path, "-c", conf]).wait_port(port)
        return port
    return serve


def test_curl_gets_many_files_over_kept_http_1_1_connections(edge, nginx, tmp_path):
    port = free_port()
    www = tmp_path / "www"
    www.mkdir()
    contents = {f"f{size}": random.Random(size).randbytes(size) for size in (0, 1, 1000, 65536, 3 << 20)}
    for name, content in contents.items():
        (www / name).write_bytes(content)
    e = edge(f"tcp:{port} {LOOPBACK} {nginx(www)} off off web\n")
    out = tmp_path / "out"
    out.mkdir()
    url = f"http://{LOOPBACK}:{port}/{{{','.join(contents)}}}"
    done = run("curl", "-sS", "--fail", "--http1.1", url, "-o", f"{out}/#1",
               "-w", "%{http_version} %{response_code} %{num_connects}\n")
    assert [line.split() for line in done.stdout.decode().splitlines()] == \
        [["1.1", "200", str(int(n == 0))] for n in range(len(contents))]  # one connection for all
    assert {name: (out / name).read_bytes() for name in contents} == contents
    flow, = e.wait_flows(1)
    assert (flow["end"], flow["tag"], flow["end_side"]) == ("done", "web", "client")
    assert flow["bytes_out"] > sum(map(len, contents.values())) and flow["bytes_in"] > 100 * len(contents) / 2
    missing = run("curl", "-s", "-o", os.devnull, "-w", "%{response_code}", f"http://{LOOPBACK}:{port}/none")
    assert missing.stdout == b"404"


@pytest.mark.slow
def test_curl_downloads_a_gigabyte_unchanged(edge, nginx, tmp_path, monkeypatch):
    release = os.path.join(BUILD, "release", "tidegate-edge")
    if os.path.exists(release) and "TIDEGATE_EDGE" not in os.environ:
        monkeypatch.setattr(harness, "EDGE", release)
    port, size = free_port(), 1 << 30
    www = tmp_path / "www"
    www.mkdir()
    rng = random.Random(1)
    with open(www / "big", "wb") as f:  # sparse, with something else every 64 KiB
        f.truncate(size)
        for at in range(0, size, 1 << 16):
            f.seek(at)
            f.write(rng.randbytes(64))
    e = edge(f"tcp:{port} {LOOPBACK} {nginx(www)} off off\n")
    with subprocess.Popen(["curl", "-sS", "--fail", f"http://{LOOPBACK}:{port}/big"], stdout=subprocess.PIPE) as curl:
        run("cmp", "-", www / "big", stdin=curl.stdout)
    os.unlink(www / "big")
    assert curl.returncode == 0
    flow, = e.wait_flows(1)
    assert flow["end"] == "done" and size < flow["bytes_out"] < size + 1000
    print(f"1 GiB in {flow['duration_ms']} ms")


@pytest.fixture
def redis(tmp_path, program):
    port = free_port()
    program(["redis-server", "--port", port, "--bind", LOOPBACK, "--save", "", "--dir", tmp_path]).wait_port(port)
    return port


def test_redis_benchmark(edge, redis):
    port = free_port()
    e = edge(f"tcp:{port} {LOOPBACK} {redis} off off\n")
    tests = "ping,set,get,incr,lpush,lpop,mset"
    done = run("redis-benchmark", "-h", LOOPBACK, "-p", port, "-n", 4000, "-c", 50, "-P", 4, "-r", 1000, "-d", 512, "--csv",
               "-t", tests)
    rates = re.findall(r'^"(\w+).*?","([\d.]+)"', done.stdout.decode(), re.M)
    assert {name for name, _ in rates} >= {"SET", "GET", "INCR", "LPUSH", "LPOP", "MSET"}
    assert all(float(rate) > 0 for _, rate in rates)
    assert done.stderr == b""
    cli = ["redis-cli", "-h", LOOPBACK, "-p", port]
    value = "x" * 200000
    assert run(*cli, "-x", "set", "k", input=value.encode()).stdout == b"OK\n"
    assert run(*cli, "get", "k").stdout.decode().strip() == value
    stats = run(*cli, "info", "commandstats").stdout.decode()
    assert "cmdstat_lpop:calls=4000," in stats and "cmdstat_mset:calls=4000," in stats
    assert set(re.findall(r"(?:rejected|failed)_calls=(\d+)", stats)) == {"0"}
    flows = e.wait_flows(50 * len(rates) + 3)
    assert {f["end"] for f in flows} == {"done"}


def iperf3(port, *args):
    done = run("iperf3", "-c", LOOPBACK, "-p", port, "-J", "-t", 1, *args)
    return json.loads(done.stdout)["end"]


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["up", "down"])
def test_iperf3_tcp(edge, program, direction):
    port, to = free_ports(2), free_port()
    program(["iperf3", "-s", "-B", LOOPBACK, "-p", to]).wait_port(to)
    e = edge(f"tcp:{port} {LOOPBACK} {to} off off\n")
    end = iperf3(port, "-P", 2, *direction)
    assert end["sum_received"]["bytes"] > 10 << 20
    assert end["sum_sent"]["bytes"] >= end["sum_received"]["bytes"]
    flows = e.wait_flows(3)  # two streams and the control connection
    field = "bytes_in" if not direction else "bytes_out"
    assert sum(f[field] for f in flows) >= end["sum_received"]["bytes"]
    assert {f["end"] for f in flows} <= {"done", "client_reset", "origin_reset"}
    print(f"{end['sum_received']['bits_per_second'] / 1e9:.1f} Gbit/s")


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["up", "down"])
def test_iperf3_udp_loses_nothing(edge, program, direction):
    port, to = free_port(), free_port()
    program(["iperf3", "-s", "-B", LOOPBACK, "-p", to]).wait_port(to)
    e = edge(f"tcp:{port} {LOOPBACK} {to} off off\nudp:{port} {LOOPBACK} {to} off off\n")
    end = iperf3(port, "-u", "-b", "40M", "-l", 1200, "-w", "2M", *direction)  # its usual buffer is short on a busy machine
    assert end["sum"]["packets"] > 3500 and end["sum"]["lost_packets"] == 0
    assert e.metric("datagrams_dropped_total") == 0
    e.stop_clean()
    flow, = [f for f in e.flows() if f["protocol"] == "udp"]
    assert flow["datagrams_in" if not direction else "datagrams_out"] >= end["sum"]["packets"]


@pytest.fixture
def knot(tmp_path, program):
    """A DNS server with a small zone; its port."""
    port = free_port()
    (tmp_path / "example.zone").write_text("""$ORIGIN example.test.
@ 3600 SOA ns hostmaster 1 3600 600 86400 60
@ 3600 NS ns
ns 3600 A 192.0.2.1
* 60 A 192.0.2.7
txt 60 TXT "%s"
""" % ("t" * 250))
    for directory in ("run", "db"):
        (tmp_path / directory).mkdir()
    conf = tmp_path / "knot.conf"
    conf.write_text(f"""
server:
    rundir: "{tmp_path}/run"
    listen: {LOOPBACK}@{port}
database:
    storage: "{tmp_path}/db"
log:
  - target: stderr
    any: info
zone:
  - domain: example.test
    storage: "{tmp_path}"
    file: "example.zone"
""")
    program(["/usr/sbin/knotd", "-c", conf]).wait_port(port)
    return port


@pytest.mark.parametrize("mode", ["udp", "tcp"])
def test_dnsperf_loses_no_query(edge, knot, tmp_path, mode):
    port = free_port()
    e = edge(f"tcp:{port} {LOOPBACK} {knot} off off\nudp:{port} {LOOPBACK} {knot} off off answers=1\n")
    queries = tmp_path / "queries"
    queries.write_text("".join(f"host{n}.example.test A\ntxt.example.test TXT\nhost{n}.example.test AAAA\n" for n in range(500)))
    done = run("dnsperf", "-s", LOOPBACK, "-p", port, "-d", queries, "-m", mode, "-c", 10, "-n", 2, "-q", 50, "-S", 0)
    text = done.stdout.decode()
    count = {k: int(v) for k, v in re.findall(r"Queries (sent|completed|lost):\s+(\d+)", text)}
    assert count == {"sent": 3000, "completed": 3000, "lost": 0}, text
    assert re.search(r"Response codes:\s+NOERROR 3000 ", text), text
    if mode == "tcp":
        flows = e.wait_flows(10, protocol="tcp")
        assert {f["end"] for f in flows} <= {"done", "client_reset"}
    else:
        # a session ends whenever all its queries are answered, so there are more of them than clients
        wait_until(lambda: sum(f["datagrams_in"] for f in e.flows()) == 3000, what="all sessions to end")
        flows = e.flows()
        assert {f["end"] for f in flows} == {"answered"} and len(flows) >= 10
        assert sum(f["datagrams_out"] for f in flows) == 3000
        assert e.metric("datagrams_dropped_total") == 0


@pytest.fixture
def sshd(tmp_path, program):
    """A server with keys of its own; (port, the client's options)."""
    port = free_port()
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # where it locks itself in before login
    for key in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    conf = tmp_path / "sshd_config"
    conf.write_text(f"ListenAddress {LOOPBACK}:{port}\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\n"
                    f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n")
    program(["/usr/sbin/sshd", "-D", "-e", "-f", conf]).wait_port(port)
    return port, ["-F", "none", "-i", tmp_path / "user", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                  "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "LogLevel=ERROR"]


def test_ssh_runs_a_command_and_carries_data_both_ways(edge, sshd, tmp_path):
    port = free_port()
    to, options = sshd
    e = edge(f"tcp:{port} {LOOPBACK} {to} off off\n")
    ssh = ["ssh", *options, "-p", port, LOOPBACK]
    done = run(*ssh, "echo $SSH_CONNECTION; echo to stderr >&2; exit 7", check=False)
    assert done.returncode == 7 and done.stderr == b"to stderr\n"
    assert done.stdout.decode().split()[2:] == [LOOPBACK, str(to)]  # the origin sees the edge, not the client
    data = random.Random(5).randbytes(20 << 20)
    file = tmp_path / "sent"
    run(*ssh, f"cat > {file}", input=data)
    assert file.read_bytes() == data
    assert run(*ssh, f"cat {file}").stdout == data
    assert run(*ssh, "cat", input=data).stdout == data  # both ways at once
    flows = e.wait_flows(4)
    assert {f["end"] for f in flows} == {"done"}
    assert flows[1]["bytes_in"] > len(data) > flows[1]["bytes_out"]
    assert flows[2]["bytes_out"] > len(data) > flows[2]["bytes_in"]
    assert min(flows[3]["bytes_in"], flows[3]["bytes_out"]) > len(data)


def test_openssl_dtls(edge, tmp_path):
    port, to = free_port(), free_port()
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2,
        "-keyout", tmp_path / "key", "-out", tmp_path / "cert", "-subj", "/CN=origin.test", "-addext",
        "subjectAltName=DNS:origin.test")
    def openssl(*command):
        return subprocess.Popen(["openssl", *map(str, command), "-quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL)

    e = edge(f"udp:{port} {LOOPBACK} {to} off off\n")
    server = openssl("s_server", "-dtls", "-accept", f"{LOOPBACK}:{to}", "-key", tmp_path / "key", "-cert", tmp_path / "cert")
    wait_until(lambda: f":{to:04X} " in open("/proc/net/udp").read(), what="the DTLS server")
    client = openssl("s_client", "-dtls", "-connect", f"{LOOPBACK}:{port}", "-CAfile", tmp_path / "cert",
                     "-verify_return_error", "-verify_hostname", "origin.test")
    try:
        lines = [f"line {n} through the edge ".encode() + b"x" * n * 10 + b"\n" for n in range(50)]
        for line in lines:
            for a, b in ((client, server), (server, client)):
                a.stdin.write(line)
                a.stdin.flush()
                assert b.stdout.readline() == line
    finally:
        for p in (client, server):
            p.kill()
            p.communicate()
    e.stop_clean()
    flow, = e.flows()
    assert flow["protocol"] == "udp"
    for way in ("in", "out"):
        assert flow[f"datagrams_{way}"] > len(lines) and flow[f"bytes_{way}"] > sum(map(len, lines))
