# SPDX-License-Identifier: Apache-2.0
"""Servers of libtidegate-origin behind an edge; the examples of docs/origin.md; what an origin server is given to install."""
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest

from harness import BUILD, ROOT, TIMEOUT, connect, free_port, recv_exactly, udp_client, wait_until
from headers import ppv1, ppv2, spp

LIBRARY = os.path.join(BUILD, "debug", "src", "origin", "libtidegate-origin.so")
CLIENT, EDGE = ("203.0.113.7", 40000), ("198.51.100.2", 443)


@pytest.fixture
def example(program):
    """start(name, address, *arguments) -> port"""
    def start(name, address, *arguments):
        port = free_port()
        tcp = name != "datagram"
        p = program([os.path.join(BUILD, "debug", "example-" + name), address, port, *arguments])
        listening = ["ss", "-Hn", "-tl" if tcp else "-ua", f"sport = {port}"]
        wait_until(lambda: subprocess.run(listening, capture_output=True, text=True, check=True).stdout or p.process.poll(),
                   what=f"example-{name}")
        assert p.process.poll() is None, p.output()
        return port
    return start


def hello(s):
    line = s.makefile("rb").readline().decode().strip()
    s.sendall(b"echo?")
    assert recv_exactly(s, 5) == b"echo?"
    return line


# --- behind an edge ---

@pytest.mark.parametrize("pass_mode", ["ppv1", "ppv2"])
@pytest.mark.parametrize("address, source", [("127.0.0.1", "127.44.0.9"), ("::1", "::1")])
def test_the_proxy_example_behind_an_edge(edge, example, pass_mode, address, source):
    port = free_port()
    edge(f"tcp:{port} 127.0.0.1 {example('proxy', '127.0.0.1', '127.0.0.0/8')} off {pass_mode}\n")
    with connect(port, address, source) as client:
        own = client.getsockname()
        assert hello(client) == (f"hello {own[0]}:{own[1]}" if own[0][0] == "1" else f"hello [{own[0]}]:{own[1]}")


@pytest.mark.parametrize("pass_mode", ["spp", "ppv2", "ppv2 ppv2_mode=every"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_datagram_example_behind_an_edge(edge, example, pass_mode, address):
    port = free_port()
    edge(f"udp:{port} 127.0.0.1 {example('datagram', '127.0.0.1', pass_mode.split()[0])} off {pass_mode}\n")
    with udp_client(port, address) as client:
        name = "{}:{}" if address == "127.0.0.1" else "[{}]:{}"
        for n in range(5):
            client.send(b"datagram %d" % n)
            assert client.recv(100).decode() == f"{name.format(*client.getsockname()[:2])}: datagram {n}"


# --- the examples by themselves ---

def test_the_proxy_example_takes_headers_of_its_edges_only(example):
    port = example("proxy", "::", "127.0.0.0/30,::1")
    for header in (ppv1(CLIENT, EDGE), ppv2(CLIENT, EDGE, socket.SOCK_STREAM)):
        with connect(port, source="127.0.0.3") as edge:
            edge.sendall(header)
            assert hello(edge) == "hello 203.0.113.7:40000"
        with connect(port, source="127.0.0.5") as stranger:
            line = stranger.makefile("rb").readline().decode().strip()
            assert line == "hello 127.0.0.5:%d" % stranger.getsockname()[1]
            stranger.sendall(header)
            assert recv_exactly(stranger, len(header)) == header
    with connect(port) as edge:
        edge.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            assert edge.recv(1) == b""
            raise ConnectionResetError
    with connect(port) as edge:  # a health check of the edge's own
        edge.sendall(bytes.fromhex("0d0a0d0a000d0a515549540a20000000"))
        assert hello(edge) == "hello 127.0.0.1:%d" % edge.getsockname()[1]


def test_the_datagram_example_puts_spp_back(example):
    port = example("datagram", "127.0.0.1", "spp")
    with udp_client(port) as edge:
        edge.send(b"no header")
        for client in (CLIENT, ("2001:db8::7", 9)):
            header = spp(client, EDGE)
            edge.send(header + b"payload")
            name = "203.0.113.7:40000" if client is CLIENT else "[2001:db8::7]:9"
            assert edge.recv(200) == header + name.encode() + b": payload"


# --- docs/origin.md ---

def snippet(language, containing):
    with open(os.path.join(ROOT, "docs", "origin.md"), encoding="utf-8") as f:
        found = [s for s in re.findall(rf"```{language}\n(.*?)```", f.read(), re.S) if containing in s]
    assert len(found) == 1, f"{len(found)} {language} snippets with {containing!r}"
    return found[0]


def test_the_python_snippet_of_the_documentation():
    names = {}
    os.environ["LIBTIDEGATE_ORIGIN"] = LIBRARY
    exec(snippet("python", "def client_of"), names)  # noqa: S102 (it is ours)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for header in (ppv1(CLIENT, EDGE), ppv2(CLIENT, EDGE, socket.SOCK_STREAM), ppv2(("2001:db8::7", 5), ("2001:db8::2", 6), 1)):
            with connect(listener.getsockname()[1]) as client:
                client.sendall(header + b"behind it")
                server, _ = listener.accept()
                with server:
                    expected = ("2001:db8::7", 5) if b"\x20\x01\x0d\xb8" in header else CLIENT
                    assert names["client_of"](server) == expected
                    assert server.recv(100) == b"behind it"
        with connect(listener.getsockname()[1]) as client:
            client.sendall(b"GET / HTTP/1.0\r\n")
            server, _ = listener.accept()
            with server, pytest.raises(ValueError):
                names["client_of"](server)


def test_the_python_snippet_for_ipv6_clients_of_ipv4_sockets():
    names = {}
    exec(snippet("python", "def toa_client"), names)  # noqa: S102
    with socket.create_server(("127.0.0.1", 0)) as listener, connect(listener.getsockname()[1]) as client:
        server, _ = listener.accept()
        with server:
            assert names["toa_client"](server) == client.getsockname()


@pytest.mark.parametrize("server", ["nginx", "haproxy"])
def test_the_configurations_of_the_documentation(edge, program, tmp_path, server):
    inside, port = free_port(), free_port()
    text = snippet(server, "proxy").replace("192.0.2.0/24", "127.0.0.0/8").replace("8080", str(inside))
    conf = tmp_path / "conf"
    if server == "nginx":
        conf.write_text(f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr;\nevents {{}}\nhttp {{\n"
                        f"access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path};\n"
                        f"fastcgi_temp_path {tmp_path}; uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};\n{text}\n}}\n")
        tmp_path.chmod(0o755)
        program(["/usr/sbin/nginx", "-p", tmp_path, "-c", conf]).wait_port(inside)
    else:
        conf.write_text("defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n" + text)
        program(["/usr/sbin/haproxy", "-db", "-f", conf]).wait_port(inside)
    edge(f"tcp:{port} 127.0.0.1 {inside} off ppv2\n")
    with connect(port, source="127.44.0.9") as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.rstrip().endswith(f"127.44.0.9 {client.getsockname()[1]}".encode()), answer


# --- what is installed ---

@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = tmp_path_factory.mktemp("installed")
    subprocess.run(["meson", "install", "-C", os.path.join(BUILD, "debug"), "--no-rebuild", "--quiet", "--destdir", root],
                   check=True, capture_output=True)
    return root


def find(root, name):
    found = [os.path.join(d, name) for d, _, files in os.walk(root) if name in files]
    assert len(found) == 1, (name, found)
    return found[0]


PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <tidegate-origin.h>
/* names that the library's own inside has too */
int addr_parse(void); int addr_parse(void) { return 7; }
int proxy_decode(void); int proxy_decode(void) { return 7; }
int main(void)
{
	struct tgo_edges *edges;
	struct tgo_header h;
	char text[TGO_TEXT_SIZE];
	const char spp[38] = "\x56\xec\0\0\0\0\0\0\0\0\0\0\xff\xff\1\2\3\4";
	if (tgo_edges_new("192.0.2.0/24", &edges) || tgo_datagram(spp, 38, TGO_SPP, &h))
		return 1;
	tgo_edges_free(edges);
	return puts(tgo_format(&h.client, text)) < 0 || addr_parse() + proxy_decode() != 14;
}
"""


@pytest.mark.parametrize("how", ["shared", "static", "c++"])
def test_a_program_is_built_with_what_is_installed(installed, tmp_path, how):
    source = tmp_path / ("program.cc" if how == "c++" else "program.c")
    source.write_text(PROGRAM)
    pc = find(installed, "tidegate-origin.pc")
    env = {**os.environ, "PKG_CONFIG_PATH": os.path.dirname(pc), "PKG_CONFIG_SYSROOT_DIR": str(installed)}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "tidegate-origin"], env=env, check=True, capture_output=True,
                           text=True).stdout.split()
    if how == "static":
        flags = [f for f in flags if not f.startswith("-l")] + [find(installed, "libtidegate-origin.a")]
    compiler = ["c++"] if how == "c++" else ["cc", "-std=c99", "-pedantic"]
    if how == "c++" and not shutil.which("c++"):
        compiler = ["clang++"]
    if not shutil.which(compiler[0]):
        pytest.skip("no C++ compiler")
    subprocess.run([*compiler, "-Wall", "-Wextra", "-Werror", source, "-o", tmp_path / "program", *flags], check=True)
    libdir = os.path.dirname(find(installed, "libtidegate-origin.so.1.0.0"))
    done = subprocess.run([tmp_path / "program"], env={**os.environ, "LD_LIBRARY_PATH": libdir if how != "static" else "/none"},
                          capture_output=True, text=True, check=True)
    assert done.stdout == "1.2.3.4:0\n"


def test_what_the_libraries_export_and_need(installed):
    def names(*command):
        return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())

    with open(os.path.join(ROOT, "src", "origin", "tidegate-origin.h"), encoding="utf-8") as f:
        declared = set(re.findall(r"^TGO_API .*?(tgo_\w+)\(", f.read(), re.M))
    shared, preload = find(installed, "libtidegate-origin.so.1.0.0"), find(installed, "libtidegate-origin-preload.so")
    exported = {n for n in names("nm", "-D", "--defined-only", shared) if n.startswith("tgo_")}
    assert exported == {f"{name}@@TIDEGATE_ORIGIN_1.0" for name in declared}
    listed = subprocess.run(["nm", "-g", "--defined-only", find(installed, "libtidegate-origin.a")], check=True,
                            capture_output=True, text=True).stdout
    assert set(re.findall(r" [A-Z] (\w+)$", listed, re.M)) == declared
    listed = subprocess.run(["nm", "-D", "--defined-only", preload], check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r" [A-Z] (\w+)", listed)) == {"accept", "accept4", "getpeername", "listen"}
    for library in (shared, preload):
        needed = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout
        assert set(re.findall(r"NEEDED.*\[(.*)\]", needed)) <= {"libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    page = find(installed, "libtidegate-origin.3")
    with open(page, encoding="utf-8") as f:
        text = f.read()
    assert all(name in text for name in declared)


def test_a_preloaded_program_is_otherwise_as_before():
    """With all that it makes of sockets, right and wrong."""
    script = """
import errno, socket, ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_UNIX, "\\0tg-preload-test")):
    with socket.socket(family) as l:
        l.bind(address if family == socket.AF_UNIX else (address, 0))
        l.listen()
        for _ in range(3):
            c = socket.socket(family)
            c.connect(l.getsockname())
            s, name = l.accept()
            assert name == s.getpeername() == c.getsockname() or family == socket.AF_UNIX, (name, c.getsockname())
            c.close()
for f, args in ((libc.accept, (-1, None, None)), (libc.getpeername, (-1, None, None)), (libc.listen, (-1, 0)),
                (libc.accept4, (0, None, None, -1))):
    print(f(*args), errno.errorcode[ctypes.get_errno()])
"""
    outputs = []
    preload = os.path.join(BUILD, "debug", "src", "origin", "libtidegate-origin-preload.so")
    for env in ({}, {"LD_PRELOAD": preload}, {"LD_PRELOAD": preload, "TIDEGATE_ORIGIN_TRUST": "127.0.0.0/8,::1"}):
        done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **env}, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=TIMEOUT)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] == outputs[2]
    wrong = {"LD_PRELOAD": preload, "TIDEGATE_ORIGIN_TRUST": "edge.example"}
    done = subprocess.run(["/bin/true"], env={**os.environ, **wrong}, capture_output=True, text=True)
    assert done.returncode == 0 and "nobody is trusted" in done.stderr
