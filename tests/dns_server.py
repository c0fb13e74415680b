# SPDX-License-Identifier: Apache-2.0
"""A DNS server whose answers the test decides: addresses, TTLs, CNAMEs, errors, silence, and answers held back.

It speaks UDP and TCP on one port, compresses nothing, and sets TC on UDP answers longer than 512 bytes, so that the
client comes again by TCP. Names are compared in lower case without the trailing dot.
"""
import ipaddress
import socket
import struct
import threading
import time

from harness import free_port, wait_until

A, CNAME, SOA, AAAA = 1, 5, 6, 28
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
UDP_MAX = 512


def encode_name(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def record(name, kind, ttl, data):
    return encode_name(name) + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


class Zone:
    """What one name answers with: addresses of both families; or an error; or nothing at all."""

    def __init__(self, addresses=(), ttl=1, cname=None, cname_ttl=None, code=NOERROR, codes=None):
        self.addresses = [ipaddress.ip_address(a) for a in addresses]
        self.ttl = ttl
        self.cname = cname  # the addresses then belong to that name
        self.cname_ttl = ttl if cname_ttl is None else cname_ttl
        self.codes = {A: code, AAAA: code, **(codes or {})}  # by type of the question


class DnsServer:
    """set() decides what a name answers from now on. silence() answers nothing more, hold() keeps the questions,
    speak() answers those that were held and all that come. `queries` lists (time, name, type, transport)."""

    def __init__(self, address="127.0.0.1", port=None):
        self.zones = {}
        self.queries = []
        self.lock = threading.Lock()
        self.mode = "speak"
        self.held = []
        self.address = address
        self.port = port or free_port()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, self.port))
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((address, self.port))
        self.tcp.listen(16)
        threading.Thread(target=self._serve_udp, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()

    @property
    def setting(self):
        return f"resolvers={self.address}:{self.port}"

    def set(self, name, *addresses, **kwargs):
        with self.lock:
            self.zones[name.lower()] = Zone(addresses, **kwargs)

    def silence(self):
        with self.lock:
            self.mode = "silent"

    def hold(self):
        with self.lock:
            self.mode = "hold"

    def speak(self):
        with self.lock:
            self.mode = "speak"
            held, self.held = self.held, []
        for question, send, limit in held:
            self._answer(question, send, limit)

    def count(self, name=None):
        """Questions so far, those for A and AAAA counted once."""
        return sum(1 for q in list(self.queries) if q[2] == A and name in (None, q[1]))

    def wait_queries(self, more, name=None, timeout=15):
        """Waits until `more` further lookups of a name have begun."""
        goal = self.count(name) + more
        wait_until(lambda: self.count(name) >= goal, timeout, f"{more} more lookups of {name}")

    # --- inside ---

    def _reply(self, question):
        number, flags = struct.unpack_from(">HH", question)
        at, labels = 12, []
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        name = ".".join(labels).lower()
        kind, = struct.unpack_from(">H", question, at + 1)
        zone = self.zones.get(name, Zone(code=NXDOMAIN))
        code, answers, owner = zone.codes.get(kind, NOERROR), [], name
        if code == NOERROR and zone.cname:
            owner = zone.cname
            answers.append(record(name, CNAME, zone.cname_ttl, encode_name(owner)))
        if code == NOERROR:
            answers += [record(owner, kind, zone.ttl, a.packed) for a in zone.addresses
                        if kind == (A if a.version == 4 else AAAA)]
        header = struct.pack(">HHHHHH", number, 0x8480 | flags & 0x0100 | code, 1, len(answers), 0, 0)
        return name, kind, header + question[12:at + 5] + b"".join(answers)

    def _take(self, question, send, limit, transport):
        name, kind, _ = self._reply(question)
        with self.lock:
            self.queries.append((time.monotonic(), name, kind, transport))
            mode = self.mode
            if mode == "hold":
                self.held.append((question, send, limit))
        if mode == "speak":
            self._answer(question, send, limit)

    def _answer(self, question, send, limit):
        with self.lock:
            _, _, reply = self._reply(question)
        if len(reply) > limit:
            length = 12 + question[12:].index(b"\0") + 5
            reply = reply[:2] + struct.pack(">H", struct.unpack_from(">H", reply, 2)[0] | 0x0200) + \
                struct.pack(">HHHH", 1, 0, 0, 0) + reply[12:length]
        try:
            send(reply)
        except OSError:
            pass  # who asked has gone

    def _serve_udp(self):
        while True:
            try:
                question, peer = self.udp.recvfrom(4096)
            except ConnectionRefusedError:
                continue
            except OSError:
                return
            if not peer:
                return  # closed
            self._take(question, lambda reply, peer=peer: self.udp.sendto(reply, peer), UDP_MAX, "udp")

    def _serve_tcp(self):
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_connection, args=(connection,), daemon=True).start()

    def _serve_connection(self, connection):
        def send(reply):
            connection.sendall(struct.pack(">H", len(reply)) + reply)

        with connection:
            stream = connection.makefile("rb")
            while True:
                try:
                    head = stream.read(2)
                    if len(head) < 2:
                        return
                    question = stream.read(struct.unpack(">H", head)[0])
                except OSError:
                    return
                self._take(question, send, 65535, "tcp")

    def close(self):
        for s in (self.udp, self.tcp):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
