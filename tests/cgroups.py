# SPDX-License-Identifier: Apache-2.0
"""Where cgroup v2 is mounted, what is left in it of edges, and a cgroup that an ordinary user may divide."""
import contextlib
import os


def mount():
    with open("/proc/mounts") as mounts:
        for line in mounts:
            _, point, kind, *_ = line.split()
            if kind == "cgroup2":
                return point
    raise AssertionError("no cgroup v2 is mounted")


def own():
    """The directory of the cgroup that this process is in."""
    with open("/proc/self/cgroup") as f:
        path, = [line[3:].strip() for line in f if line.startswith("0::")]
    return mount() + path.rstrip("/")


def of(pid):
    with open(f"/proc/{pid}/cgroup") as f:
        path, = [line[3:].strip() for line in f if line.startswith("0::")]
    return mount() + path


def exists(pid):
    """Whether an edge's cgroup is there beside us."""
    return os.path.isdir(f"{own()}/tidegate-edge-{pid}")


@contextlib.contextmanager
def delegated(user):
    """A cgroup that belongs to a user, as a service manager would make it."""
    path = f"{own()}/test-{os.getpid()}"
    os.mkdir(path)
    try:
        for name in ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"):
            os.chown(path + name, user, user)
        yield path
    finally:
        os.rmdir(path)
