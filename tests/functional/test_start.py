# SPDX-License-Identifier: Apache-2.0
"""Start, check and stop."""
import subprocess

from harness import EDGE, TcpOrigin, connect, free_port, recv_exactly


def check(tmp_path, rules, *args):
    path = tmp_path / "x.rules"
    path.write_text(rules)
    return path, subprocess.run([EDGE, "--rules", path, "--check", *args], capture_output=True, text=True, timeout=20)


def test_check_accepts_good_rules(tmp_path):
    path, done = check(tmp_path, "tcp:1-64999 127.0.0.1 80 off off\nudp:53 dns.example 53 on ppv2 tag\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}: 2 rules, no errors\n", "")


def test_check_reports_every_wrong_line(tmp_path):
    path, done = check(tmp_path, "tcp:70000 127.0.0.1 80 off off\n# fine\ntcp:80 127.0.0.1 80 off spp\n"
                                 "tcp:80 og:web 80 on off\ntcp:81 127.0.0.1 80 off off\ntcp:81 127.0.0.1 80 off off\n")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{path}:1:5: edge port 70000, expected 1-65535",
        f'{path}:3:25: pass mode "spp" carries udp only, expected off, ppv1, ppv2 or toa for tcp',
        f"{path}:4:5: tcp port 80 already belongs to the rule on line 3",
        f'{path}:4:8: origin "og:web", expected a group of the configuration document (there is none of that name)',
        f"{path}:6:5: tcp port 81 already belongs to the rule on line 5",
    ]


def test_starts_serves_and_stops_cleanly(edge):
    port = free_port()
    with TcpOrigin() as origin:
        e = edge(f"tcp:{port} 127.0.0.1 {origin.port} off off\n")
        with connect(port) as client:
            client.sendall(b"hello")
            assert recv_exactly(client, 5) == b"hello"
        flow, = e.wait_flows(1)
    assert (flow["bytes_in"], flow["bytes_out"], flow["end"]) == (5, 5, "done")
