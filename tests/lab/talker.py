"""Audio without a telephone: a socket that sends RTP steadily where it is told to, and counts what reaches it."""

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Self

from lab.network import Machine
from lab.packets import Address
from lab.rtp import Streams

_FRAME = 0.02
_SILENCE = b"\xd5" * 160
_PCMA = 8


class Talker:
    """20 ms of PCMA after the other, from the moment that `to` says where. A context manager."""

    def __init__(self, machine: Machine, port: int | None = None, *, host: str = "") -> None:
        self.machine = machine
        self.place = Address(host or machine.address, machine.rtp_ports[0] if port is None else port)
        self.ssrc = int.from_bytes(os.urandom(4))
        self._socket = machine.socket(socket.AF_INET6 if ":" in self.place.host else socket.AF_INET)
        self._socket.bind(tuple(self.place))
        self._target: Address | None = None
        self._is_mute = False
        self._number = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._talk, name=f"talker {self.place}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def to(self, target: Address | None, *, mute: bool = False) -> None:
        """Send there from now on; None: nowhere. `mute`: only what is sent on purpose."""
        self._target, self._is_mute = target, mute

    def say(self, payload: bytes, payload_type: int, *, marker: bool = False, timestamp: int = 0) -> None:
        """One packet of another kind, between the others."""
        assert self._target
        self._socket.sendto(self._packet(payload, payload_type | marker << 7, timestamp), tuple(self._target))

    def receive(self, payload_type: int) -> tuple[int, bytes]:
        """The next packet of a kind: its timestamp and payload. TimeoutError when none comes."""
        self._socket.settimeout(20.0)
        while True:
            data = self._socket.recv(2000)
            if len(data) >= 12 and data[1] & 0x7F == payload_type:
                return int.from_bytes(data[4:8]), data[12:]

    def reaches(self, other: Self, data: bytes) -> bool:
        """Whether a datagram of any kind gets through to another's socket just now."""
        if self._target is None:
            return False
        self._socket.sendto(data, tuple(self._target))
        other._socket.settimeout(0.2)
        with suppress(TimeoutError):
            while other._socket.recv(2000) != data:
                pass
            return True
        return False

    def hears(self, other: Self, since: float = 0.0) -> int:
        """How many packets of another talker have reached its place from a moment on."""
        here = Streams(s for s in self.machine.lab.wire.rtp(self.machine.tapped_as) if s.key.direction in ("in", "lo"))
        there = here.where(destination=self.place)
        return Streams(s for s in there if s.key.ssrc == other.ssrc).between(since, time.time())

    def misses(self, other: Self) -> set[int]:
        """Numbers of another talker's packets that have not reached this place, of those before the last that has."""
        wire = self.machine.lab.wire
        said = [n for s in wire.rtp(other.machine.tapped_as) if s.key.ssrc == other.ssrc and
                s.key.direction in ("out", "lo") and s.key.source == other.place for n in s.numbers]  # fmt: skip
        got = {n for s in wire.rtp(self.machine.tapped_as) if s.key.ssrc == other.ssrc and
               s.key.destination == self.place for n in s.numbers}  # fmt: skip
        return {n for n in said if n < max(got, default=0)} - got

    def _talk(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due += _FRAME
            if (target := self._target) and not self._is_mute:
                self._socket.sendto(self._packet(_SILENCE, _PCMA, self._number * 160), tuple(target))

    def _packet(self, payload: bytes, kind: int, timestamp: int) -> bytes:
        self._number += 1
        return struct.pack("!BBHII", 0x80, kind, self._number & 0xFFFF, timestamp, self.ssrc) + payload
