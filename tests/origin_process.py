#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An origin of its own, to be killed, stopped and started again: origin_process.py ADDRESS PORT [--late SECONDS]

TCP: answers each line with its address and goes on. UDP: answers each datagram with its address; one that begins with a
PROXY v2 header with "ppv2 " before it. --late waits before each answer.
"""
import selectors
import socket
import sys
import time

ADDRESS, PORT = sys.argv[1], int(sys.argv[2])
LATE_S = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

family = socket.AF_INET6 if ":" in ADDRESS else socket.AF_INET
listener = socket.socket(family, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((ADDRESS, PORT))
listener.listen(4096)
datagrams = socket.socket(family, socket.SOCK_DGRAM)
datagrams.bind((ADDRESS, PORT))
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
selector.register(datagrams, selectors.EVENT_READ)
name = ADDRESS.encode()
while True:
    for key, _ in selector.select():
        s = key.fileobj
        try:
            if s is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ)
            elif s is datagrams:
                data, peer = datagrams.recvfrom(65535)
                time.sleep(LATE_S)
                datagrams.sendto(b"ppv2 " + name if data.startswith(SIGNATURE) else name, peer)
            else:
                data = s.recv(65536)
                time.sleep(LATE_S)
                if data:
                    s.sendall(name.ljust(16) * data.count(b"\n"))
                else:
                    selector.unregister(s)
                    s.close()
        except OSError:
            if s is not listener and s is not datagrams:
                selector.unregister(s)
                s.close()
