# SPDX-License-Identifier: Apache-2.0
"""What this machine and its processes have spent, and what they hold."""
import glob
import os
import pathlib
import time


def read_text(path):
    return pathlib.Path(path).read_text()


def cpu_seconds():
    """(busy, idle, stolen) seconds of all CPUs since boot.  Busy: user, nice, system, irq, softirq."""
    fields = read_text("/proc/stat").splitlines()[0].split()[1:]
    user, nice, system, idle, iowait, irq, softirq, stolen = (int(f) / os.sysconf("SC_CLK_TCK") for f in fields[:8])
    return user + nice + system + irq + softirq, idle + iowait, stolen


def idle_busy():
    """The busy part of the machine while we do nothing."""
    before = cpu_seconds()
    time.sleep(0.5)
    after = cpu_seconds()
    busy, idle = after[0] - before[0], after[1] - before[1]
    return busy / (busy + idle) if busy + idle else 0.0


def process_seconds(pids):
    """CPU time of all threads of `pids`, to the nanosecond where the kernel tells it."""
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            try:
                total += int(read_text(path).split()[0])
            except (OSError, IndexError):
                pass  # the thread has ended
    return total / 1e9


def process_seconds_with_children(pids):
    """The same in steps of 10 ms, with children that have ended and been waited for."""
    total = 0
    for pid in pids:
        try:
            total += sum(int(f) for f in read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[11:15])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


def softirq_threads():
    found = []
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            if read_text(path).startswith("ksoftirqd/"):
                found.append(int(path.split("/")[2]))
        except OSError:
            pass
    return found


def pids_of_group(group):
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            fields = read_text(path).rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if fields[0] != "Z" and int(fields[2]) == group:
            found.append(int(path.split("/")[2]))
    return found


def pss_bytes(pids):
    """Memory of the processes, what they share with others divided among all that have it."""
    total = 0
    for pid in pids:
        for line in read_text(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def slab_bytes():
    """Of the kernel, for everything on this machine."""
    for line in read_text("/proc/meminfo").splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    return 0


def settled_slab_bytes(limit_s=2.0):
    """The same once what was freed before has gone: sockets are freed after a while."""
    end, last = time.monotonic() + limit_s, slab_bytes()
    while time.monotonic() < end:
        time.sleep(0.2)
        now = slab_bytes()
        if abs(now - last) < 200_000:
            return now
        last = now
    return last


def descriptors(pids):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
