"""One captured packet taken apart, fragments joined, and a TCP connection's bytes put in order. No sockets in here."""

import socket
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

UDP = 17
TCP = 6
FRAGMENT6 = 44


class Address(NamedTuple):
    """A transport address as it was in the packet."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Packet(NamedTuple):
    """UDP or TCP in one IP packet. `sequence` and `flags` are TCP's and zero for UDP."""

    protocol: int
    source: Address
    destination: Address
    payload: bytes
    sequence: int = 0
    flags: int = 0


@dataclass
class Fragments:
    """IP fragments waiting for the rest of their datagram. One of these a cable and direction."""

    _waiting: dict[tuple[bytes, bytes, int], dict[int, tuple[bytes, bool]]] = field(default_factory=dict)

    def add(self, key: tuple[bytes, bytes, int], offset: int, more: bool, data: bytes) -> bytes | None:
        """Keep a fragment; return the whole datagram when this one completes it."""
        parts = self._waiting.setdefault(key, {})
        parts[offset] = (data, more)
        whole = b""
        while len(whole) in parts:
            data, more = parts[len(whole)]
            whole += data
            if not more:
                del self._waiting[key]
                return whole
        return None


def parse(frame: bytes, fragments: Fragments) -> Packet | None:
    """Read an IP packet (no link header). None for what is neither UDP nor TCP, and for an incomplete datagram."""
    version = frame[0] >> 4
    if version == 4:
        length, ident, place = struct.unpack_from("!HHH", frame, 2)
        protocol, source, destination = frame[9], frame[12:16], frame[16:20]
        data = frame[(frame[0] & 15) * 4 : length]
        offset, more = (place & 0x1FFF) * 8, bool(place & 0x2000)
        family = socket.AF_INET
    elif version == 6:
        protocol, source, destination = frame[6], frame[8:24], frame[24:40]
        data = frame[40 : 40 + int.from_bytes(frame[4:6])]
        ident, offset, more = 0, 0, False
        family = socket.AF_INET6
        if protocol == FRAGMENT6:
            protocol, _, place, ident = struct.unpack_from("!BBHI", data)
            offset, more, data = place & 0xFFF8, bool(place & 1), data[8:]
    else:
        return None
    if offset or more:
        whole = fragments.add((source, destination, ident), offset, more, data)
        if whole is None:
            return None
        data = whole
    if protocol not in (UDP, TCP) or len(data) < 8:
        return None
    sport, dport = struct.unpack_from("!HH", data)
    here = Address(socket.inet_ntop(family, source), sport)
    there = Address(socket.inet_ntop(family, destination), dport)
    if protocol == UDP:
        return Packet(UDP, here, there, data[8 : int.from_bytes(data[4:6])])
    if len(data) < 20:
        return None
    return Packet(TCP, here, there, data[(data[12] >> 4) * 4 :], int.from_bytes(data[4:8]), data[13])


@dataclass
class Stream:
    """One direction of a TCP connection: segments in, bytes in order out, retransmissions dropped."""

    _expected: int | None = None
    _early: dict[int, bytes] = field(default_factory=dict)

    def add(self, packet: Packet) -> bytes:
        """Take a segment; return what has become readable by it."""
        if packet.flags & 0x02:  # SYN: it takes one number of its own
            self._expected = (packet.sequence + 1) & 0xFFFFFFFF
            self._early.clear()
            return b""
        if self._expected is None:
            self._expected = packet.sequence
        if packet.payload:
            self._early[packet.sequence] = packet.payload
        ready = b""
        moved = True
        while moved:
            moved = False
            for sequence, payload in list(self._early.items()):
                known = (self._expected - sequence) & 0xFFFFFFFF
                if known < 0x80000000:  # begins at or before what we expect
                    del self._early[sequence]
                    fresh = payload[known:]
                    ready += fresh
                    self._expected = (self._expected + len(fresh)) & 0xFFFFFFFF
                    moved = True
        return ready
