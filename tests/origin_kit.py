# SPDX-License-Identifier: Apache-2.0
"""For tests of the origin kit: cgroups for clients and servers, an edge's side of the TCP option, and tidegate-origin.

    cgroup v2 root -- tg-toa-PID -- client    this process, and the BPF program that writes the option
                                 -- server    origins, and what tidegate-origin attaches

Both are in one network namespace whose loopback has the addresses below. tests/toa_server.py is the origin.
"""
import ctypes
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys

from harness import BUILD, TIMEOUT, Program, free_port, wait_until

KIT = os.path.join(BUILD, "debug", "tidegate-origin")
PRELOAD = os.path.join(BUILD, "debug", "src", "origin", "libtidegate-origin-preload.so")
SENDER = os.path.join(BUILD, "debug", "tests", "toa_sender.bpf.o")
HERE = os.path.dirname(os.path.abspath(__file__))

EDGE = {4: "192.0.2.1", 6: "2001:db8:e::1"}  # trusted
STRANGER = {4: "198.51.100.66", 6: "2001:db8:bad::66"}
SERVER = {4: "192.0.2.10", 6: "2001:db8:e::10"}
TRUST = "192.0.2.0/24,2001:db8:e::/48"
CLIENT_V4, CLIENT_V6 = ("203.0.113.77", 54321), ("2001:db8::dead:beef", 44444)

IN_SYN, IN_REST = 1, 2
SYS_BPF = 321 if os.uname().machine == "x86_64" else 280
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = _libc.syscall(SYS_BPF, command, buffer, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def run(*command, check=True, **kwargs):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, **kwargs)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def option(client, kind=200):
    """The option that names a client."""
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    packed = socket.inet_pton(family, client[0])
    return bytes([kind, 4 + len(packed)]) + struct.pack(">H", client[1]) + packed


def cgroup_root():
    with open("/proc/mounts") as f:
        return next(line.split()[1] for line in f if line.split()[2] == "cgroup2")


def no_rights(*keep):
    """A prefix that runs a program as nobody, or as root with these capabilities only."""
    if keep:
        return ("setpriv", "--bounding-set=-all," + ",".join("+" + c for c in keep), "--inh-caps=-all")
    return ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")


class Toa:
    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        root = cgroup_root()
        with open("/proc/self/cgroup") as f:
            self.home = root + re.search(r"^0::(.*)$", f.read(), re.MULTILINE).group(1)
        self.top = f"{root}/tg-toa-{os.getpid()}"
        self.client, self.server = self.top + "/client", self.top + "/server"
        for path in (self.top, self.client, self.server):
            os.mkdir(path)
        self.pins = f"/sys/fs/bpf/tg-toa-{os.getpid()}-sender"
        self.state = f"/sys/fs/bpf/tg-toa-{os.getpid()}"
        run("bpftool", "prog", "load", SENDER, self.pins, "type", "sockops", "pinmaps", self.pins + "-maps")
        run("bpftool", "cgroup", "attach", self.client, "sock_ops", "pinned", self.pins, "multi")
        path = ctypes.create_string_buffer((self.pins + "-maps/sent").encode())
        self.sent = _bpf(7, struct.pack("QII", ctypes.addressof(path), 0, 0))  # BPF_OBJ_GET
        self._enter(self.client)
        self.programs = []

    @staticmethod
    def _enter(path):
        with open(path + "/cgroup.procs", "w") as f:
            f.write(str(os.getpid()))

    @staticmethod
    def addresses():
        """For the namespace that the caller is in."""
        for family in (4, 6):
            for address in (EDGE[family], STRANGER[family], SERVER[family]):
                run("ip", "addr", "add", f"{address}/{32 if family == 4 else 128}", "dev", "lo",
                    *(["nodad"] if family == 6 else []))

    # --- tidegate-origin ---

    def kit(self, *arguments, check=True, prefix=()):
        return run(*prefix, KIT, *arguments, "--state", self.state, check=check)

    def start(self, *arguments, trust=TRUST, **kwargs):
        return self.kit("start", "--cgroup", self.server, "--trust", trust, *arguments, **kwargs)

    def stats(self):
        """Totals by name."""
        return {name: c["total"] for name, c in json.loads(self.kit("stats", "-o", "json").stdout).items()}

    # --- servers and clients ---

    def spawn(self, command, **kwargs):
        """A program in the servers' cgroup."""
        procs = self.server + "/cgroup.procs"
        command = ["sh", "-c", f'echo $$ >{procs} && exec "$@"', "sh", *command]
        p = Program(command, self.tmp_path / f"server{len(self.programs)}.out", **kwargs)
        self.programs.append(p)
        return p

    def serve(self, address, *words, prefix=(), env=None):
        """toa_server.py; returns its port."""
        port = free_port()
        p = self.spawn([*prefix, sys.executable, f"{HERE}/toa_server.py", address, port, *words],
                       env={**os.environ, **(env or {})})
        wait_until(lambda: "ready" in p.output() or p.process.poll() is not None, what="the server")
        assert p.process.poll() is None, p.output()
        return port

    def announce(self, port, data, flags=IN_SYN | IN_REST):
        """Connections from this local port carry these bytes."""
        key, value = struct.pack("I", port), data.ljust(32, b"\0") + struct.pack("II", len(data), flags)
        k, v = ctypes.create_string_buffer(key, 4), ctypes.create_string_buffer(value, 40)
        _bpf(2, struct.pack("IxxxxQQQ", self.sent, ctypes.addressof(k), ctypes.addressof(v), 0))

    def connect(self, port, client=None, family=4, kind=200, flags=IN_SYN | IN_REST, source=None, data=None, send=b"",
                own_port=0):
        """A connection from an edge that names a client."""
        s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
        s.settimeout(TIMEOUT)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((source or EDGE[family], own_port))
        if client or data:
            self.announce(s.getsockname()[1], data or option(client, kind), flags)
        s.connect((SERVER[family], port))
        if send:
            s.sendall(send)
        return s

    def told(self, *args, **kwargs):
        """What the server says of a connection(); it is closed then."""
        with self.connect(*args, **kwargs) as s:
            own = list(s.getsockname()[:2])
            told = json.loads(s.makefile().readline())
        told["edge"] = own
        return told

    def remove(self):
        for p in reversed(self.programs):
            p.stop()
        run(KIT, "stop", "--state", self.state, check=False)
        self._enter(self.home)
        os.close(self.sent)
        run("bpftool", "cgroup", "detach", self.client, "sock_ops", "pinned", self.pins)
        shutil.rmtree(self.pins + "-maps")
        os.unlink(self.pins)

        def gone():
            try:
                for path in (self.client, self.server, self.top):
                    if os.path.exists(path):
                        os.rmdir(path)
            except OSError:
                return False
            return True
        wait_until(gone, what="the cgroups to be empty")
