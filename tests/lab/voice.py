"""RTP of our own making: a voice, and a spray that speaks to every port of a range as a voice does to its own."""

import itertools
import struct
import threading
import time
from collections.abc import Iterable
from typing import Self

from lab.eventually import eventually
from lab.network import Machine
from lab.packets import Address

_PCMA = 8
_PACE = 0.02
_numbers = itertools.count(0x5A000000)


class Speaker:
    """A socket of a machine that sends the same stream of RTP to one or many places. A context manager.

    It speaks while it is open, from `port` (any, if 0) of the machine, with an SSRC of its own.
    """

    def __init__(self, machine: Machine, to: Iterable[Address], port: int = 0) -> None:
        self.machine = machine
        self.ssrc = next(_numbers)
        self.rounds = 0
        """How often it has spoken to all of them."""
        self._to = [tuple(place) for place in to]
        self._stop = threading.Event()
        self._socket = machine.socket()
        self._socket.bind((machine.address, port))
        self._socket.setblocking(False)
        self._thread = threading.Thread(target=self._speak, name=f"speaker {machine.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def go_on(self, rounds: int) -> None:
        """Come back when it has spoken so many times more."""
        enough = self.rounds + rounds
        eventually(lambda: self.rounds >= enough)

    def _speak(self) -> None:
        start = time.monotonic()
        for number in itertools.count():
            data = struct.pack("!BBHII", 0x80, _PCMA, number & 0xFFFF, number * 160, self.ssrc) + b"\xd5" * 160
            for place in self._to:
                try:
                    self._socket.sendto(data, place)
                except OSError:
                    # What a port that nobody listens at has answered to an earlier one.
                    continue
            self.rounds += 1
            if self._stop.wait(max(0.0, start + (number + 1) * _PACE - time.monotonic())):
                return


def heard_from(speaker: Speaker, listener: Machine, since: float = 0.0, until: float = float("inf")) -> int:
    """How many packets of a speaker have reached a machine in a stretch of time."""
    streams = listener.lab.wire.rtp(listener.name)
    return sum(s.between(since, until) for s in streams if s.key.ssrc == speaker.ssrc and s.key.direction == "in")
