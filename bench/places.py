# SPDX-License-Identifier: Apache-2.0
"""Where contenders work: network namespaces and the links between them, and the processes in them.

Every contender has a namespace of its own, so that neither rules nor programs in the kernel of one are in the way of
another one's packets.

    loopback                                   netns

    [ client, contender, origin on lo ]        client --- contender 1 --- origin
      one for each contender                      \\------ contender 2 -----/
                                                   \\------- direct --------/

Namespaces have no name: they are held by descriptors of this process and go with it, and the links with them.
"""
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import machine

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
READY_S = 10  # for a contender to pass the first message
STOP_S = 3  # between SIGTERM and SIGKILL
FOLDER = "tidegate-bench-"


class Failure(Exception):
    """Ends what is being tried; the text says why."""


class Space:
    """A network namespace; the one we are in if it is not `private`."""

    def __init__(self, private):
        self.fd = self.home = -1
        if not private:
            return
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if LIBC.unshare(CLONE_NEWNET):
            os.close(self.home)
            raise Failure(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            run("ip", "link", "set", "lo", "up")
        finally:
            self._set(self.home)

    @staticmethod
    def _set(fd):
        if LIBC.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def enter(self):
        if self.fd >= 0:
            self._set(self.fd)

    @contextlib.contextmanager
    def inside(self):
        """Programs started and sockets opened here are in the namespace."""
        self.enter()
        try:
            yield
        finally:
            if self.fd >= 0:
                self._set(self.home)

    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self):
        for fd in (self.fd, self.home):
            if fd >= 0:
                os.close(fd)
        self.fd = self.home = -1


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Place:
    """Where one contender works.  Ports by name: those of PORTS, and "origin"."""

    def __init__(self, client, edge, origin, edge_address, origin_address, ports):
        self.client, self.edge, self.origin = client, edge, origin
        self.edge_address, self.origin_address = edge_address, origin_address
        self.ports = ports
        self.private = edge is None or edge.fd >= 0
        self.forwards = edge is not client and edge is not None  # between links, not on loopback
        self.origin_server = None


PORTS = ("plain", "once", "header", "toa")
FIXED_PORTS = {"plain": 7000, "once": 7001, "header": 7002, "toa": 7003, "origin": 9000, "other": 9001}


def free_ports(count):
    """Ports free for TCP and UDP, below those the kernel gives to clients."""
    first_of_clients = int(machine.read_text("/proc/sys/net/ipv4/ip_local_port_range").split()[0])
    ports, port = [], min(first_of_clients, 32768) - 1 - os.getpid() % 4000
    while len(ports) < count and port > 1024:
        try:
            with socket.socket(type=socket.SOCK_STREAM) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            ports.append(port)
        except OSError:
            pass  # taken
        port -= 1
    if len(ports) < count:
        raise Failure("not enough free ports on 127.0.0.1")
    return ports


class Loopback:
    name = "loopback"

    def __init__(self, contenders, load, work):
        self.places, self.spaces, self.servers = {}, [], []
        private = os.geteuid() == 0
        spare = iter([] if private else free_ports(len(contenders) * len(FIXED_PORTS)))
        try:
            for name in contenders:
                space = Space(private)
                self.spaces.append(space)
                ports = FIXED_PORTS if private else {what: next(spare) for what in FIXED_PORTS}
                place = Place(space, space, space, "127.0.0.1", "127.0.0.1", ports)
                place.origin_server = start_origin(load, work, space, f"origin-of-{name}", "127.0.0.1", ports["origin"])
                self.servers.append(place.origin_server)
                wait_ready("the origin", place.origin_server, place, ports["origin"], True)
                self.places[name] = place
        except BaseException:
            self.close()
            raise

    def stop_origins(self):
        """What each of them says that it did, and what it should not have seen."""
        for server in self.servers:
            server.stop()
        said, self.servers = [origin_result(s) for s in self.servers], []
        return said

    def close(self):
        self.stop_origins()
        for space in self.spaces:
            space.close()
        self.spaces = []


class Netns(Loopback):
    name = "netns"

    def __init__(self, contenders, load, work):  # pylint: disable=super-init-not-called
        self.places, self.spaces, self.servers = {}, [], []
        try:
            client, origin = self._space(), self._space()
            server = start_origin(load, work, origin, "origin", "0.0.0.0", FIXED_PORTS["origin"])
            self.servers.append(server)
            for i, name in enumerate(contenders):
                near, far = f"10.78.{i}", f"10.79.{i}"
                if name == "direct":
                    self._link(client, f"c{i}", f"{near}.2", origin, f"o{i}", f"{near}.1")
                    place = Place(client, None, origin, f"{near}.1", f"{near}.1", FIXED_PORTS)
                else:
                    edge = self._space()
                    self._link(client, f"c{i}", f"{near}.2", edge, "e0", f"{near}.1")
                    self._link(edge, "e1", f"{far}.1", origin, f"o{i}", f"{far}.2")
                    place = Place(client, edge, origin, f"{near}.1", f"{far}.2", FIXED_PORTS)
                place.origin_server = server
                self.places[name] = place
            direct = self.places["direct"]
            wait_ready("the origin", server, direct, FIXED_PORTS["origin"], True)
        except BaseException:
            self.close()
            raise

    def _space(self):
        self.spaces.append(Space(True))
        return self.spaces[-1]

    @staticmethod
    def _link(a, device_a, address_a, b, device_b, address_b):
        with a.inside():
            run("ip", "link", "add", device_a, "type", "veth", "peer", "name", device_b, "netns", b.path())
        for space, device, address in ((a, device_a, address_a), (b, device_b, address_b)):
            with space.inside():
                run("ip", "addr", "add", f"{address}/24", "dev", device)
                run("ip", "link", "set", device, "up")


TOPOLOGIES = {"loopback": Loopback, "netns": Netns}


# ---- processes ----


class Work:
    """The folder of a run.  Says in it which processes it started, for the next run in case this one has no end."""

    def __init__(self):
        new = pathlib.Path(tempfile.mkdtemp(prefix="new-" + FOLDER))
        os.chmod(new, 0o755)  # nginx's worker is another user
        self.lock = open(new / "lock", "w", encoding="ascii")  # pylint: disable=consider-using-with
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        # clean_leftovers() of another run takes what has its proper name and no lock
        self.path = new.rename(new.with_name(new.name.removeprefix("new-")))
        self.count = 0

    def folder(self, name):
        self.count += 1
        path = self.path / f"{self.count}-{name}"
        path.mkdir()
        return path

    def note(self, pid):
        with open(self.path / "processes", "a", encoding="ascii") as f:
            f.write(f"{pid}\n")

    def empty_logs(self):
        """Flow logs grow by hundreds of megabytes in a whole run; they are open for appending."""
        for path in self.path.glob("*/flow.log"):
            os.truncate(path, 0)

    def close(self):
        self.lock.close()
        shutil.rmtree(self.path, ignore_errors=True)


def clean_leftovers():
    """Processes and folders of runs that were killed.  A folder whose lock is held belongs to a run that goes on."""
    for path in pathlib.Path(tempfile.gettempdir()).glob(FOLDER + "*"):
        try:
            if path.stat().st_uid != os.geteuid():
                continue
            with open(path / "lock", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for pid in left_in(path):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                shutil.rmtree(path, ignore_errors=True)
            print(f"removed what is left of a run that did not end: {path}")
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            pass


def left_in(path):
    """Members of the groups of processes that were started for a folder, and still work in it."""
    try:
        groups = machine.read_text(path / "processes").split()
    except OSError:
        return []
    found = []
    for group in groups:
        for pid in machine.pids_of_group(int(group)):
            with contextlib.suppress(OSError):
                if pathlib.Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(path):
                    found.append(pid)
    return found


def in_space(space):
    def prepare():
        """In the child, before exec: SIGTERM when this program ends in a way that leaves it no time to stop it."""
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        space.enter()

    return prepare


class Server:
    """A process (and its children) started here, in a process group of its own."""

    def __init__(self, name, command, folder, space, work):
        self.name = name
        self.output = folder / "output"
        with open(self.output, "wb") as out:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with,subprocess-popen-preexec-fn
                [str(word) for word in command], cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=in_space(space))
        work.note(self.process.pid)

    def running(self):
        return self.process.poll() is None

    def pids(self):
        return machine.pids_of_group(self.process.pid)

    def signal(self, number):
        self.process.send_signal(number)

    def last_words(self):
        text = self.output.read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-8:]) or "(it printed nothing)"

    def stop(self):
        for number, seconds in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            end = time.monotonic() + seconds
            if not self.pids():
                break
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            while time.monotonic() < end and (self.running() or self.pids()):
                time.sleep(0.01)
        self.process.poll()


def start_origin(load, work, space, name, address, port):
    return Server(name, [load, "origin", "--address", address, "--port", port], work.folder(name), space, work)


def origin_result(server):
    try:
        return {"origin": server.name, **json.loads(server.output.read_text().splitlines()[-1])}
    except (OSError, ValueError, IndexError):
        return {"origin": server.name}


class Client:
    """A bench-load client, whose lines of JSON come when it has them."""

    def __init__(self, load, place, port, words, work):
        self.words = [str(word) for word in words]
        self.errors = tempfile.TemporaryFile(dir=work.path)  # pylint: disable=consider-using-with
        command = [str(load), self.words[0], "--to", f"{place.edge_address}:{port}", *self.words[1:]]
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with,subprocess-popen-preexec-fn
            command, cwd=work.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, start_new_session=True,
            preexec_fn=in_space(place.client))
        work.note(self.process.pid)
        self.buffer = b""

    def line(self, until):
        """The next line; Failure if there is none by then."""
        while b"\n" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failure(f"the client did not end in time ({self.words[0]})")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise Failure(f"the client failed: {self.complaint() or 'it said nothing'}")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def complaint(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip().partition("\n")[0]

    def end(self):
        """It has given its result, or is not wanted any more."""
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


# ---- is it there? ----


def tcp_question(place, port, question, answer_bytes, timeout=1.0):
    with place.client.inside():
        s = socket.create_connection((place.edge_address, port), timeout=timeout)
    with s:
        s.sendall(question)
        answer = b""
        while len(answer) < answer_bytes:
            more = s.recv(answer_bytes - len(answer))
            if not more:
                break
            answer += more
        return answer


def udp_question(place, port, question):
    with place.client.inside():
        s = socket.socket(type=socket.SOCK_DGRAM)
    with s:
        s.settimeout(0.2)
        s.connect((place.edge_address, port))
        s.send(question)
        return s.recv(64)


def passes(place, port, udp, header):
    if udp:
        return udp_question(place, port, b"header?") == (b"yes" if header else b"no")
    return tcp_question(place, port, b"H", 1) == (b"Y" if header else b"N")


def wait_ready(name, server, place, port, udp_too=False, header=False, tcp_too=True, limit_s=READY_S):
    """Until a message has come back from the origin by way of `port`, with a PROXY header or without."""
    end = time.monotonic() + limit_s
    for udp in [False] * tcp_too + [True] * udp_too:
        while True:
            if not server.running():
                raise Failure(f"{name} ended with status {server.process.returncode} before it was ready:\n"
                              + server.last_words())
            with contextlib.suppress(OSError):  # not listening yet, or no answer yet
                if passes(place, port, udp, header):
                    break
            if time.monotonic() > end:
                raise Failure(f"{name} passed no {'UDP' if udp else 'TCP'} message on port {port} within {limit_s} s:\n"
                              + server.last_words())
            time.sleep(0.005)
