"""Streams of RTP, counted by packet: who sends to whom, and whether that is what a call's audio must be."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from lab.packets import Address

PER_SECOND = 50
"""Packets of 20 ms."""
AT_LEAST = 45


class Key(NamedTuple):
    """What makes packets one stream at one place."""

    machine: str
    interface: str
    direction: str
    source: Address
    destination: Address
    ssrc: int
    payload_type: int


@dataclass(frozen=True)
class Stream:
    """When the packets of one stream passed, in order, and their sequence numbers. The payload is not kept."""

    key: Key
    times: "array[float]" = field(default_factory=lambda: array("d"))
    numbers: "array[int]" = field(default_factory=lambda: array("H"))

    def between(self, start: float, end: float) -> int:
        """How many packets passed in this stretch of time."""
        return bisect_left(self.times, end) - bisect_left(self.times, start)

    def numbers_between(self, start: float, end: float) -> set[int]:
        """The sequence numbers that passed in this stretch of time."""
        return set(self.numbers[bisect_left(self.times, start) : bisect_left(self.times, end)])

    def __str__(self) -> str:
        k = self.key
        span = self.times[-1] - self.times[0] if self.times else 0.0
        return (
            f"{k.machine}/{k.interface} {k.direction}: {k.source} -> {k.destination} ssrc {k.ssrc:08x} "
            f"pt {k.payload_type}: {len(self.times)} packets in {span:.2f} s"
        )


class Streams(list[Stream]):
    """Some streams, to be narrowed down and counted together."""

    def where(
        self,
        *,
        direction: str = "",
        source: str | Address = "",
        destination: str | Address = "",
        ports: Iterable[int] = (),
    ) -> Self:
        """Those that match. Source and destination are a host, or an Address where the port counts too."""

        def same(found: Address, wanted: str | Address) -> bool:
            return not wanted or (found.host == wanted if isinstance(wanted, str) else found == wanted)

        return type(self)(
            s
            for s in self
            if (not direction or s.key.direction == direction)
            and same(s.key.source, source)
            and same(s.key.destination, destination)
            and (not ports or s.key.destination.port in ports)
        )

    def between(self, start: float, end: float) -> int:
        """Packets of all of them in this stretch of time."""
        return sum(s.between(start, end) for s in self)

    def per_second(self, start: float, seconds: int = 1) -> list[int]:
        """Packets in each of the seconds that begin at `start`."""
        return [self.between(start + n, start + n + 1) for n in range(seconds)]

    @property
    def packets(self) -> int:
        return sum(len(s.times) for s in self)

    @property
    def last(self) -> float:
        """When the latest packet passed; 0 if none did."""
        return max((s.times[-1] for s in self), default=0.0)

    def __str__(self) -> str:
        return "\n".join(str(s) for s in self) or "no RTP"
