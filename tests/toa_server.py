#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An origin that knows nothing of TOA: tells each connection, in a line of JSON, whom it sees.

usage: toa_server.py ADDRESS PORT [threads=N] [defer] [mptcp] [ctypes]

ADDRESS "dual" is :: for both families. "ctypes" asks libc with room for an IPv6 address, as a C program does. A line that
the client sends is answered with whom getpeername() says by then.
"""
import ctypes
import errno
import json
import select
import socket
import struct
import sys
import threading

ADDRESS, PORT, WORDS = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
libc = ctypes.CDLL(None, use_errno=True)


def sockaddr_text(raw):
    family, = struct.unpack_from("=H", raw)
    if family == socket.AF_INET:
        return ["AF_INET", socket.inet_ntoa(raw[4:8]), struct.unpack_from(">H", raw, 2)[0]]
    return ["AF_INET6", socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack_from(">H", raw, 2)[0]]


def ask(function, fd):
    raw, length = ctypes.create_string_buffer(128), ctypes.c_uint32(128)
    result = function(fd, raw, ctypes.byref(length))
    if result < 0:
        raise OSError(ctypes.get_errno(), "ask")
    return result, sockaddr_text(raw.raw)


def look_up(s, size):
    try:
        found = s.getsockopt(socket.IPPROTO_IP, 4096, size)
    except OSError as e:
        return errno.errorcode[e.errno]
    return [socket.inet_ntop(socket.AF_INET6, found[:16]), struct.unpack(">H", found[16:18])[0], len(found)]


def accept():
    """(socket, whom accept() named)"""
    if "ctypes" in WORDS:
        fd, name = ask(libc.accept, listener.fileno())
        return socket.socket(fileno=fd), name
    s, name = listener.accept()
    return s, list(name[:2])


def peer(s):
    return ask(libc.getpeername, s.fileno())[1] if "ctypes" in WORDS else list(s.getpeername()[:2])


def tell(s, name):
    told = {"accept": name, "peer": peer(s), "lookup": look_up(s, 20), "short": look_up(s, 19), "long": look_up(s, 64),
            "thread": threading.get_ident()}
    s.sendall(json.dumps(told).encode() + b"\n")


def serve():
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_ones = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                try:
                    s, name = accept()
                except BlockingIOError:
                    continue
                s.setblocking(True)
                open_ones[s.fileno()] = s
                tell(s, name)
                poll.register(s, select.EPOLLIN)
                continue
            s = open_ones[fd]
            try:
                data = s.recv(4096)
                if data.endswith(b"\n"):
                    s.sendall(json.dumps(peer(s)).encode() + b"\n")
            except OSError:
                data = b""
            if not data:
                poll.unregister(fd)
                open_ones.pop(fd).close()


v4 = ADDRESS != "dual" and ":" not in ADDRESS
listener = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_STREAM, 262 if "mptcp" in WORDS else 0)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if not v4:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ADDRESS != "dual")
if "defer" in WORDS:
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
listener.bind(("::" if ADDRESS == "dual" else ADDRESS, PORT))
listener.listen(4096)
listener.setblocking(False)
threads = [threading.Thread(target=serve) for word in WORDS if word.startswith("threads=") for _ in range(int(word[8:]))]
for thread in threads:
    thread.start()
print("ready", flush=True)
if not threads:
    serve()
