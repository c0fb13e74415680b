# SPDX-License-Identifier: Apache-2.0
"""The BPF programs of a running edge, run by hand: BPF_PROG_TEST_RUN, with the maps that the edge has filled."""
import contextlib
import ctypes
import errno
import json
import os
import re
import struct
import subprocess

SYS_BPF = 321 if os.uname().machine == "x86_64" else 280
MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, TEST_RUN, PROG_BY_ID, MAP_BY_ID = 1, 2, 3, 10, 13, 14
_libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = _libc.syscall(SYS_BPF, command, buffer, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result, buffer.raw


class Program:
    """The program `name` of a process, and its maps by name. Use as a context manager."""

    def __init__(self, pid, name):
        ids = set()
        for n in os.listdir(f"/proc/{pid}/fdinfo"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/fdinfo/{n}") as f:  # closed meanwhile
                ids |= set(re.findall(r"^prog_id:\s+(\d+)", f.read(), re.MULTILINE))
        shown = (json.loads(subprocess.check_output(["bpftool", "-j", "prog", "show", "id", i])) for i in ids)
        info = next(i for i in shown if i.get("name") == name)
        self.fds = [bpf(PROG_BY_ID, struct.pack("I", info["id"]))[0]]
        self.maps = {}
        for i in info["map_ids"]:
            fd = bpf(MAP_BY_ID, struct.pack("I", i))[0]
            self.fds.append(fd)
            name = json.loads(subprocess.check_output(["bpftool", "-j", "map", "show", "id", str(i)]))["name"]
            self.maps[name] = fd

    def _map(self, command, name, key, value):
        k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        bpf(command, struct.pack("IxxxxQQQ", self.maps[name], ctypes.addressof(k), ctypes.addressof(v) if value else 0, 0))
        return v.raw

    def lookup(self, name, key, size):
        return self._map(MAP_LOOKUP, name, key, bytes(size))

    def update(self, name, key, value):
        self._map(MAP_UPDATE, name, key, value)

    def delete(self, name, key):
        self._map(MAP_DELETE, name, key, b"")

    def run(self, packet=None, context=b""):
        """Return: (the program's verdict, the packet as it is afterwards). A packet must fit into one page."""
        out = ctypes.create_string_buffer(70000 if packet is not None else 1)
        data = ctypes.create_string_buffer(packet or b"", len(packet or b""))
        ctx = ctypes.create_string_buffer(context, len(context))
        some = packet is not None
        attributes = struct.pack("IIIIQQIIIIQQ", self.fds[0], 0, len(packet) if some else 0, len(out) if some else 0,
                                 ctypes.addressof(data) if some else 0, ctypes.addressof(out) if some else 0, 1, 0,
                                 len(context), 0, ctypes.addressof(ctx) if context else 0, 0)
        _, after = bpf(TEST_RUN, attributes)
        _, verdict, _, size = struct.unpack_from("IIII", after)
        return verdict, out.raw[:size] if some else None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for fd in self.fds:
            os.close(fd)


def look_up_socket(program, protocol, packed, port):
    """Asks an sk_lookup program about a packet to an address (4 or 16 bytes) and port: "steered", "pass" or "drop"."""
    v4 = len(packed) == 4
    context = struct.pack("QIII16sHxxI16sII", 0, 2 if v4 else 10, protocol, 0x0100007F, bytes(16), 0x3930,
                          int.from_bytes(packed, "little") if v4 else 0, bytes(16) if v4 else packed, port, 0)
    try:
        verdict, _ = program.run(context=context + bytes(4))
    except OSError as e:
        # a test run refuses to name a socket of an SO_REUSEPORT group, which is what the edge's sockets are in
        if e.errno == errno.EOPNOTSUPP:
            return "steered"
        raise
    return {0: "drop", 1: "pass"}[verdict]
