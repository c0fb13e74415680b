#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The two ends of many flows, each in a process of its own because of the limit of file descriptors.

usage: peers.py origin PORT             echoes TCP and UDP on 127.0.0.1:PORT; says "ready"
       peers.py clients PORT            takes commands from standard input and answers each with "ok" or what went wrong:
           open tcp|udp COUNT           so many more flows to 127.0.0.1:PORT
           ask ROUNDS                   every flow asks so many times, and must be answered with what it asked
           close tcp|udp                all of them
"""
import selectors
import socket
import sys
import time

AT_ONCE = 200  # questions without an answer, so that no buffer runs over
PATIENCE = 10


def origin(port):
    selector = selectors.EpollSelector()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(4096)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    udp.bind(("127.0.0.1", port))
    for s in (listener, udp):
        s.setblocking(False)
        selector.register(s, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            s = key.fileobj
            try:
                if s is udp:
                    while True:
                        udp.sendto(*udp.recvfrom(2048))
                elif s is listener:
                    while True:
                        connection, _ = listener.accept()
                        connection.setblocking(False)
                        selector.register(connection, selectors.EVENT_READ)
                elif data := s.recv(2048):
                    s.send(data)
                else:
                    selector.unregister(s)
                    s.close()
            except BlockingIOError:
                pass
            except OSError:
                if s not in (udp, listener):
                    selector.unregister(s)
                    s.close()


class Clients:
    def __init__(self, port):
        self.to = ("127.0.0.1", port)
        self.flows = {"tcp": [], "udp": []}
        self.number = 0

    def open(self, kind, count):
        for _ in range(int(count)):
            s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
            s.settimeout(PATIENCE)
            s.connect(self.to)
            s.setblocking(False)
            self.flows[kind].append(s)

    def ask(self, rounds):
        for _ in range(int(rounds)):
            self._round(self.flows["tcp"] + self.flows["udp"])

    def _round(self, flows):
        waiting, left = {}, list(flows)
        selector = selectors.EpollSelector()
        last = time.monotonic()
        while left or waiting:
            while left and len(waiting) < AT_ONCE:
                s = left.pop()
                self.number += 1
                waiting[s] = b"question %d" % self.number
                s.send(waiting[s])
                selector.register(s, selectors.EVENT_READ)
            for key, _ in selector.select(0.5):
                s = key.fileobj
                answer = s.recv(2048)
                if answer != waiting[s]:
                    raise AssertionError(f"{answer!r} instead of {waiting[s]!r}")
                del waiting[s]
                selector.unregister(s)
                last = time.monotonic()
            if time.monotonic() - last > PATIENCE:
                raise AssertionError(f"{len(waiting)} of {len(flows)} without an answer for {PATIENCE} s")
        selector.close()

    def close(self, kind):
        for s in self.flows[kind]:
            s.close()
        self.flows[kind] = []


def clients(port):
    c = Clients(port)
    for line in sys.stdin:
        command, *arguments = line.split()
        try:
            getattr(c, command)(*arguments)
            print("ok", flush=True)
        except (OSError, AssertionError) as e:
            print(f"{line.strip()}: {e!r}", flush=True)


if __name__ == "__main__":
    {"origin": origin, "clients": clients}[sys.argv[1]](int(sys.argv[2]))
