#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A bad wire between two network namespaces: loses, repeats, delays and reorders packets, as tc's netem does, but needs
no kernel module. Each end is a TUN device, or a TAP
device with `ethernet`, so the kernel has filled in all checksums and cut all segments.

usage: wire.py NETNS_A DEVICE_A NETNS_B DEVICE_B LOSS REPEAT DELAY_MS JITTER_MS SEED [ethernet]
(LOSS and REPEAT are parts of 1; packets whose jitter differs overtake each other). Says "ready" when both ends are there,
and at the end, by SIGTERM, what it did.
"""
import ctypes
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0001, 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
QUEUE_MAX = 2000  # packets on the way; one more is lost


def open_tun(netns, device, kind):
    ns = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(ns, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns {netns}")
    os.close(ns)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), kind | IFF_NO_PI))
    return fd


def main(netns_a, device_a, netns_b, device_b, *numbers):
    kind = IFF_TAP if numbers[5:] == ("ethernet",) else IFF_TUN
    loss, repeat, delay, jitter, seed = map(float, numbers[:5])
    a, b = open_tun(netns_a, device_a, kind), open_tun(netns_b, device_b, kind)
    other = {a: b, b: a}
    rng = random.Random(seed)
    poll = select.poll()
    for fd in other:
        poll.register(fd, select.POLLIN)
    queue, count, lost, repeated = [], 0, 0, 0

    def stop(*_):
        print(f"{count} passed, {lost} lost, {repeated} repeated", flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    while True:
        wait = (queue[0][0] - time.monotonic()) * 1000 if queue else None
        for fd, _ in poll.poll(None if wait is None else max(0, wait)):
            for _ in range(64):
                try:
                    packet = os.read(fd, 65536)
                except BlockingIOError:
                    break
                again = rng.random() < repeat
                repeated += again
                for _ in range(1 + again):
                    if rng.random() < loss or len(queue) == QUEUE_MAX:
                        lost += 1
                    else:
                        count += 1
                        due = time.monotonic() + (delay + jitter * rng.random()) / 1000
                        heapq.heappush(queue, (due, count, other[fd], packet))
        while queue and queue[0][0] <= time.monotonic():
            _, _, fd, packet = heapq.heappop(queue)
            try:
                os.write(fd, packet)
            except OSError:
                pass  # the other end is down, or has no room: lost


if __name__ == "__main__":
    main(*sys.argv[1:])
