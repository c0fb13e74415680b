# SPDX-License-Identifier: Apache-2.0
"""What the tests of whole programs are written with: the edge, origins, clients, and ways to wait for events.

Nothing here sleeps in place of an event: wait_until() polls a condition with a deadline, everything else blocks on
sockets or pipes with timeouts. Every process that is started is ended by its own pid.
"""
import ctypes
import functools
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("TIDEGATE_BUILD", "build"))
EDGE = os.path.join(ROOT, os.environ.get("TIDEGATE_EDGE", os.path.join(BUILD, "debug", "tidegate-edge")))
TIMEOUT = 15.0  # for things that take milliseconds on an idle machine


def wait_until(condition, timeout=TIMEOUT, what="condition"):
    """Calls condition() until it returns something true; returns that. Fails the test after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout} s waiting for {what}; last value {value!r}")
        time.sleep(0.005)


_ports = iter(())


def free_port():
    """A port on which nobody listens, TCP or UDP, below the ephemeral range so that no client takes it meanwhile."""
    global _ports
    while True:
        port = next(_ports, None)
        if port is None:
            start = 10000 + os.getpid() * 37 % 15000
            _ports = iter(range(start, start + 7000))
            continue
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                    with socket.socket(family, kind) as s:
                        if family == socket.AF_INET6:
                            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                        s.bind((address, port))
        except OSError:
            continue
        return port


def free_ports(count):
    """`count` free ports in a row; the first one."""
    while True:
        first = free_port()
        if all(free_port() == first + i for i in range(1, count)):
            return first


class Edge:
    """A running tidegate-edge. `rules` is the text of the rules file, `config` the configuration document (an object, or
    text as it is); use as a context manager or through the `edge` fixture, which checks at the end that it stopped
    cleanly and that no sanitizer complained."""

    settings = ""  # lines in front of all rules, for tests that run in several modes

    def __init__(self, tmp_path, rules, *args, config=None, workers=2, listen=("127.0.0.1", "::1"), log=True, metrics=True,
                 control=True, drain=None, wait=True, prefix=(), env=None):
        self.dir = tmp_path
        self.rules_path = tmp_path / "edge.rules"
        self.config_path = tmp_path / "edge.json"
        self.log_path = tmp_path / "flows.log"
        self.socket_path = tmp_path / "edge.sock"
        self.metrics_port = free_port() if metrics else None
        self.stderr_path = tmp_path / "edge.err"
        command = [*prefix, EDGE, "--workers", str(workers)]
        if rules is not None:
            self.rules_path.write_text(self.settings + rules)
            command += ["--rules", str(self.rules_path)]
        if config is not None:
            self.write_config(config)
            command += ["--config", str(self.config_path)]
        for address in listen or ():
            command += ["--listen", address]
        if log:
            command += ["--log", str(self.log_path)]
        if metrics:
            command += ["--metrics", f"127.0.0.1:{self.metrics_port}"]
        if control:
            command += ["--socket", str(self.socket_path)]
        if drain is not None:
            command += ["--drain", str(drain)]
        if os.environ.get("TIDEGATE_NO_BPF"):
            command += ["--no-bpf"]
        command += [str(a) for a in args]
        self.command = command
        self._log_read = 0
        with open(self.stderr_path, "wb") as err:
            self.process = subprocess.Popen(command, stderr=err, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                            env={**os.environ, **(env or {})})
        if wait:
            self.wait_ready()

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def wait_ready(self, timeout=TIMEOUT):
        wait_until(lambda: " info: ready: " in self.stderr() or self.process.poll() is not None, timeout, "ready")
        if self.process.poll() is not None:
            raise AssertionError(f"the edge ended with {self.process.returncode}:\n{self.stderr()}")

    def control(self, command, timeout=TIMEOUT):
        """One command on the control socket; the whole answer as text."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(str(self.socket_path))
            s.sendall(command.encode() + b"\n")
            parts = []
            while True:
                part = s.recv(65536)
                if not part:
                    return b"".join(parts).decode()
                parts.append(part)

    def status(self):
        return json.loads(self.control("status"))

    def write_config(self, config):
        self.config_path.write_text(config if isinstance(config, str) else json.dumps({"schema": 1, **config}))

    def reload(self, rules=None, config=None):
        """Writes new rules and a new document, if given, and reloads by the control socket. Returns the answer."""
        if rules is not None:
            self.rules_path.write_text(self.settings + rules)
        if config is not None:
            self.write_config(config)
        return self.control("reload")

    def origins(self, group=None):
        """The origins of groups by their address, as `status` shows them."""
        return {o["origin"]: o for o in self.status()["origins"] if group in (None, o["group"])}

    def metrics_text(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=TIMEOUT) as r:
            return r.read().decode()

    def metric(self, name, **labels):
        """Sum of all samples of a metric (without the prefix tidegate_) whose labels include those given."""
        total = 0.0
        for line in self.metrics_text().splitlines():
            if line.startswith("#"):
                continue
            key, value = line.rsplit(" ", 1)
            base, _, rest = key.partition("{")
            if base == "tidegate_" + name and all(f'{k}="{v}"' in rest for k, v in labels.items()):
                total += float(value)
        return total

    def flows(self):
        """All flow log lines so far, as dicts. Every line must be JSON."""
        if not self.log_path.exists():
            return []
        text = self.log_path.read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def wait_flows(self, count, timeout=TIMEOUT, **match):
        """Waits until at least `count` flow log lines match the given fields; returns those."""
        def matching():
            found = [f for f in self.flows() if all(f[k] == v for k, v in match.items())]
            return found if len(found) >= count else None
        return wait_until(matching, timeout, f"{count} flow log lines with {match}")

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/smaps_rollup") as f:
            for line in f:
                if line.startswith("Private_Dirty:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no Private_Dirty")

    def signal(self, number):
        os.kill(self.pid, number)

    def stop(self, timeout=TIMEOUT):
        """SIGTERM twice (so that no drain time passes), unless it has ended; returns the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(0.2)
            except subprocess.TimeoutExpired:
                if self.process.poll() is None:
                    self.signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the edge did not stop within {timeout} s:\n{self.stderr()}") from None
        finally:
            self.process.stdout.close()

    def stop_clean(self):
        status = self.stop()
        text = self.stderr()
        assert "Sanitizer" not in text and "runtime error" not in text, text
        assert "assertion failed" not in text, text
        assert status == 0, f"exit status {status}:\n{text}"

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.stop_clean()
        else:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


def resolve_family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class TcpOrigin:
    """A listening TCP server; `handle(connection, peer)` runs in a thread for each connection (echo unless given).
    Connections are closed when handle returns."""

    def __init__(self, handle=None, address="127.0.0.1", port=None, backlog=1024):
        self.address = address
        self.handle = handle or self.echo
        self.listener = socket.socket(resolve_family(address), socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port or free_port()))
        self.listener.listen(backlog)
        self.port = self.listener.getsockname()[1]
        self.errors = queue.Queue()
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @staticmethod
    def echo(connection, peer):
        while True:
            data = connection.recv(65536)
            if not data:
                return
            connection.sendall(data)

    def _accept(self):
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(connection, peer), daemon=True).start()

    def _run(self, connection, peer):
        with connection:
            connection.settimeout(60)
            try:
                self.handle(connection, peer)
            except OSError as e:
                self.errors.put(e)

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class UdpOrigin:
    """A UDP server. `answer(data, peer)` gives a list of datagrams to send back (echo unless given). Everything that
    came is in `received`, a queue of (data, peer)."""

    def __init__(self, answer=None, address="127.0.0.1", port=None):
        self.address = address
        self.answer = answer or (lambda data, peer: [data])
        self.received = queue.Queue()
        self.socket = socket.socket(resolve_family(address), socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((address, port or free_port()))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                data, peer = self.socket.recvfrom(65535)
                if peer is None:  # shut down by close()
                    return
                self.received.put((data, peer))
                for reply in self.answer(data, peer):
                    self.socket.sendto(reply, peer)
            except ConnectionRefusedError:
                continue
            except OSError:
                return

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(TIMEOUT)  # the kernel keeps the socket as long as a call on it runs
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def connect(port, address="127.0.0.1", source=None, timeout=TIMEOUT):
    """A TCP connection to an edge port."""
    s = socket.socket(resolve_family(address), socket.SOCK_STREAM)
    s.settimeout(timeout)
    if source:
        s.bind((source, 0))
    s.connect((address, port))
    return s


def udp_client(port, address="127.0.0.1", source=None, timeout=TIMEOUT, connected=True):
    """A UDP socket; connected, so that it only hears answers from the address and port it writes to."""
    s = socket.socket(resolve_family(address), socket.SOCK_DGRAM)
    s.settimeout(timeout)
    s.bind((source or ("::1" if ":" in address else "127.0.0.1"), 0))
    if connected:
        s.connect((address, port))
    return s


def recv_exactly(s, count):
    data = bytearray()
    while len(data) < count:
        part = s.recv(min(65536, count - len(data)))
        if not part:
            raise AssertionError(f"the stream ended after {len(data)} of {count} bytes")
        data += part
    return bytes(data)


def recv_all(s):
    parts = []
    while True:
        part = s.recv(65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


def reset(s):
    """Closes a TCP socket with RST."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


class Program:
    """Any program, its output in a file, ended by its pid at the end of the test."""

    def __init__(self, command, out_path, **kwargs):
        self.out_path = out_path
        with open(out_path, "wb") as out:
            self.process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL, **kwargs)

    def output(self):
        with open(self.out_path, errors="replace") as f:
            return f.read()

    def wait_port(self, port, address="127.0.0.1", timeout=TIMEOUT):
        """Waits until it listens on a TCP port."""
        def listening():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.process.args[0]} ended with {self.process.returncode}:\n{self.output()}")
            try:
                socket.create_connection((address, port), 1).close()
                return True
            except OSError:
                return False
        wait_until(listening, timeout, f"{self.process.args[0]} to listen on {port}")
        return self

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


# --- TCP, for tests that hold both ends in one thread ---

def listen(address="127.0.0.1", port=None, backlog=1024):
    """A listening TCP socket; accept() gives up after TIMEOUT."""
    s = socket.socket(resolve_family(address), socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port or free_port()))
    s.listen(backlog)
    s.settimeout(TIMEOUT)
    return s


def accept(listener):
    """The next connection of a listen() socket, with the usual timeout."""
    s, _ = listener.accept()
    s.settimeout(TIMEOUT)
    return s


def port_of(s):
    return s.getsockname()[1]


def how_it_ends(s):
    """Reads a connection to its end: "fin" or "reset"."""
    try:
        while s.recv(65536):
            pass
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
    return "fin"


def echoes(s, data=b"echo?"):
    """Whether what is sent comes back."""
    s.sendall(data)
    return recv_exactly(s, len(data)) == data


def refused(port, address="127.0.0.1", source=None):
    """Whether a new connection is refused, in the handshake or with RST right after it; False when it is echoed."""
    try:
        with connect(port, address, source) as s:
            return not echoes(s)
    except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        return True


def how_connecting_ends(port, address="127.0.0.1", source=None, send=b""):
    """Connects, sends and reads to the end: "refused" in the handshake, "reset" after it, or "fin"."""
    try:
        with connect(port, address, source) as s:
            if send:
                s.sendall(send)
            return how_it_ends(s)
    except ConnectionRefusedError:
        return "refused"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


# --- a network of one's own ---

def own_network(**sysctls):
    """Runs a test in a network namespace of its own with nothing but loopback, for what would get into the way of other
    programs. Threads and programs that it starts are in there too. Sysctls are those below net/, with '__' for '/'."""
    def decorate(test):
        @functools.wraps(test)
        def run(*args, **kwargs):
            failed = []

            def body():
                try:
                    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):  # CLONE_NEWNET
                        raise OSError(ctypes.get_errno(), "unshare: a network namespace needs root")
                    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
                    for name, value in sysctls.items():
                        with open("/proc/sys/net/" + name.replace("__", "/"), "w") as f:
                            f.write(str(value))
                    test(*args, **kwargs)
                except BaseException as e:  # pytest's own outcomes are no Exceptions
                    failed.append(e)

            thread = threading.Thread(target=body)
            thread.start()
            thread.join()
            if failed:
                raise failed[0]
        return run
    return decorate


def wait_metric(e, value, name, **labels):
    """Waits until a metric has a value: peers may see the end of a flow a moment before it is counted."""
    wait_until(lambda: e.metric(name, **labels) == value, what=f"{name} {labels} to be {value}, not "
               f"{e.metric(name, **labels)}")


class stopped:  # noqa: N801 (reads as a statement)
    """with stopped(edge): no thread of it runs inside, so that it finds all that was sent meanwhile at once."""

    def __init__(self, edge):
        self.pid = edge.pid

    def _state(self):
        states = set()
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/stat") as f:
                states.add(f.read().rpartition(")")[2].split()[0])
        return states

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: self._state() == {"T"}, what="the edge to stop")

    def __exit__(self, *exc):
        os.kill(self.pid, signal.SIGCONT)
