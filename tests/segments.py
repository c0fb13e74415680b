# SPDX-License-Identifier: Apache-2.0
"""TCP segments as they come by on a device: Capture, and what a test wants to know of each."""
import dataclasses
import ipaddress
import socket
import struct
import threading

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, 0x0800, 0x86DD
PACKET_OUTGOING = 4
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


@dataclasses.dataclass
class Segment:
    source: tuple
    to: tuple
    flags: int
    sequence: int
    acknowledged: int
    options: dict  # kind: its bytes, kind and length included
    payload: bytes
    ip_length: int
    header_length: int

    @property
    def is_syn(self):
        return self.flags & (SYN | ACK) == SYN


def options_of(data):
    found = {}
    while data and data[0] != 0:
        if data[0] == 1:
            data = data[1:]
            continue
        assert len(data) >= 2 and 2 <= data[1] <= len(data), f"malformed options {data.hex()}"
        assert data[0] not in found, f"option {data[0]} twice"
        found[data[0]] = data[:data[1]]
        data = data[data[1]:]
    return found


def segment_of(protocol, packet):
    """None for what is no TCP."""
    if protocol == ETH_P_IP:
        length, tcp = struct.unpack("!H", packet[2:4])[0], (packet[0] & 15) * 4
        if packet[9] != socket.IPPROTO_TCP:
            return None
        addresses = packet[12:16], packet[16:20]
    elif protocol == ETH_P_IPV6:
        length, tcp = 40 + struct.unpack("!H", packet[4:6])[0], 40
        if packet[6] != socket.IPPROTO_TCP:
            return None
        addresses = packet[8:24], packet[24:40]
    else:
        return None
    ports = struct.unpack("!HH", packet[tcp:tcp + 4])
    sequence, acknowledged, offset, flags = struct.unpack("!IIBB", packet[tcp + 4:tcp + 14])
    end = tcp + (offset >> 4) * 4
    ends = [(str(ipaddress.ip_address(a)), p) for a, p in zip(addresses, ports)]
    return Segment(*ends, flags & 63, sequence, acknowledged, options_of(packet[tcp + 20:end]), packet[end:length],
                   length, end - tcp)


class Capture:
    """Everything that comes in on a device of the namespace that this thread is in, from the beginning to the end of
    the `with` block, and segments(port) of it afterwards or meanwhile."""

    def __init__(self, device):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        self.socket.bind((device, ETH_P_ALL))
        self.socket.settimeout(0.05)
        self.packets = []
        self.done = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while True:
            try:
                packet, (_, protocol, kind, *_) = self.socket.recvfrom(1 << 17)
            except TimeoutError:
                if self.done:
                    return
                continue
            if kind != PACKET_OUTGOING:
                self.packets.append((protocol, packet))

    def segments(self, port):
        """Those to a TCP port, in the order they came."""
        found = (segment_of(*p) for p in list(self.packets))
        return [s for s in found if s and s.to[1] == port]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.done = True
        self.thread.join()
        self.socket.close()


def toa(address, port, kind=200):
    """The option that names a client."""
    packed = ipaddress.ip_address(address).packed
    return struct.pack("!BBH", kind, 4 + len(packed), port) + packed
