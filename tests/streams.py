# SPDX-License-Identifier: Apache-2.0
"""TCP streams whose every byte is checked at its place, thousands at a time.

A client's stream begins with a header that names both streams' seeds and lengths, so the origin needs to be told
nothing. Both ends send and read pieces of random sizes, both directions at once; who has sent everything closes its
direction; each must read exactly what the other sent, and then the end of the stream.
"""
import random
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass

from harness import free_port, resolve_family

PERIOD = 1_000_003  # prime, so that a stream shifted by any power of two differs from itself
_bytes = memoryview(random.Random(4711).randbytes(PERIOD) * 2)
HEADER = struct.Struct("!QQQ")  # seed, bytes to the origin, bytes to the client


def piece(seed, at, count):
    """`count` bytes (at most PERIOD) of the stream `seed`, from offset `at`."""
    start = (seed * 7919 + at) % PERIOD
    return _bytes[start:start + count]


@dataclass
class Job:
    """One connection to be made: its port, the bytes to the origin and back, the largest piece of a read or write."""
    port: int
    up: int
    down: int
    chunk: int = 1 << 16
    address: str = "127.0.0.1"
    receive_buffer: int = 0  # of the client, when it is not the system's


class _End:
    """One end of a connection, driven by a selector."""

    def __init__(self, sock, chunk, rng):
        self.sock = sock
        self.chunk = chunk
        self.rng = rng
        self.head = b""
        self.out_seed = self.out_total = self.sent = 0
        self.in_seed = self.in_total = self.got = 0
        self.header = None  # an origin's end, until the client's header is whole
        self.shut = self.eof = False
        self.paused = False  # does not read
        self.held = False  # does not send

    def write(self):
        if self.head:
            self.head = self.head[self.sock.send(self.head):]
        if not self.head and self.sent < self.out_total:
            count = min(self.rng.randint(1, self.chunk), self.out_total - self.sent)
            self.sent += self.sock.send(piece(self.out_seed, self.sent, count))
        if not self.head and self.sent == self.out_total and self.header is None:
            self.sock.shutdown(socket.SHUT_WR)
            self.shut = True

    def read(self):
        data = self.sock.recv(self.rng.randint(1, self.chunk))
        if self.header is not None:
            data = self._read_header(data)
            if data is None:
                return
        elif not data:
            assert self.got == self.in_total, f"the stream ended after {self.got} of {self.in_total} bytes"
            self.eof = True
        assert self.got + len(data) <= self.in_total, f"{self.got + len(data) - self.in_total} bytes too many"
        assert data == piece(self.in_seed, self.got, len(data)), f"wrong bytes from {self.got} on"
        self.got += len(data)

    def _read_header(self, data):
        assert data, "the stream ended inside its header"
        self.header += data
        if len(self.header) < HEADER.size:
            return None
        seed, up, down = HEADER.unpack(self.header[:HEADER.size])
        self.in_seed, self.in_total, self.out_seed, self.out_total = seed, up, seed + 1, down
        data, self.header = self.header[HEADER.size:], None
        return data

    def wants(self):
        return ((0 if self.shut or self.held or self.header is not None else selectors.EVENT_WRITE) |
                (0 if self.eof or self.paused else selectors.EVENT_READ))

    def done(self):
        return self.shut and self.eof


class _Ends:
    """A selector with ends in it."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.finished = 0
        self.problems = []

    def add(self, end):
        end.sock.setblocking(False)
        if end.wants():
            self.selector.register(end.sock, end.wants(), end)

    def _remove(self, end):
        self.selector.unregister(end.sock)
        end.sock.close()

    def step(self, key, events):
        end, before = key.data, key.events
        try:
            if events & selectors.EVENT_READ and not end.eof:
                end.read()
            if events & selectors.EVENT_WRITE and not end.shut:
                end.write()
        except BlockingIOError:
            pass
        except (OSError, AssertionError) as e:
            self.problems.append(f"{e} ({end.sent} of {end.out_total} bytes sent, {end.got} of {end.in_total} read)")
            self._remove(end)
            return
        if end.done():
            self.finished += 1
            self._remove(end)
        elif not end.wants():
            self.selector.unregister(end.sock)  # paused, and everything is sent
        elif end.wants() != before:
            self.selector.modify(end.sock, end.wants(), end)


class StreamOrigin(_Ends):
    """The origin's ends, in a thread of their own."""

    def __init__(self, address="127.0.0.1", port=None, chunk=1 << 16, held=False):
        super().__init__()
        self.address = address
        self.chunk = chunk
        self.held = held  # nothing is sent before release()
        self.ends = []
        self.rng = random.Random(1)
        self.listener = socket.socket(resolve_family(address), socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((address, port or free_port()))
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.selector.register(self.listener, selectors.EVENT_READ)
        self._stop, self._stopped = socket.socketpair()
        self.selector.register(self._stopped, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            for key, events in self.selector.select():
                if key.fileobj is self._stopped:
                    if self._stopped.recv(1) == b"x":
                        return
                    self._release()
                elif key.fileobj is self.listener:
                    self._accept()
                else:
                    self.step(key, events)

    def _accept(self):
        try:
            while True:
                end = _End(self.listener.accept()[0], self.chunk, self.rng)
                end.header = b""
                end.held = self.held
                self.ends.append(end)
                self.add(end)
        except BlockingIOError:
            pass

    def release(self):
        """All ends begin to send."""
        self._stop.send(b"r")

    def _release(self):
        self.held = False
        for end in self.ends:
            end.held = False
            if end.sock in self.selector.get_map():
                self.selector.modify(end.sock, end.wants(), end)
            elif end.sock.fileno() >= 0:
                self.add(end)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._stop.send(b"x")
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self._stop.close()


class Clients(_Ends):
    """The clients' ends. start() opens connections, run() drives all of them to their end."""

    def __init__(self, seed=0):
        super().__init__()
        self.rng = random.Random(seed)
        self.started = 0

    def start(self, job, paused=False):
        sock = socket.socket(resolve_family(job.address), socket.SOCK_STREAM)
        sock.setblocking(False)
        if job.receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, job.receive_buffer)
        sock.connect_ex((job.address, job.port))
        end = _End(sock, job.chunk, self.rng)
        seed = self.rng.getrandbits(60)
        end.head = HEADER.pack(seed, job.up, job.down)
        end.out_seed, end.out_total, end.in_seed, end.in_total = seed, job.up, seed + 1, job.down
        end.paused = paused
        self.started += 1
        self.add(end)
        return end

    def resume(self, end):
        """Lets an end read that was started with paused=True."""
        end.paused = False
        if end.sock in self.selector.get_map():
            self.selector.modify(end.sock, end.wants(), end)
        else:
            self.add(end)

    def run(self, timeout=60, until=None):
        """Until all that were started are done, and those that are paused have sent everything, or until until()."""
        deadline = time.monotonic() + timeout
        while self.selector.get_map() and not (until and until()):
            assert time.monotonic() < deadline, f"{self.finished} of {self.started} done after {timeout} s"
            for key, events in self.selector.select(0.2):
                self.step(key, events)
        assert not self.problems, f"{len(self.problems)} of {self.started}: {self.problems[:5]}"


def exchange(jobs, at_once=200, seed=0, timeout=60):
    """Runs all jobs, at most `at_once` at a time."""
    clients = Clients(seed)
    for job in jobs:
        clients.run(timeout, until=lambda: len(clients.selector.get_map()) < at_once)
        clients.start(job)
    clients.run(timeout)
    assert clients.finished == len(jobs)
