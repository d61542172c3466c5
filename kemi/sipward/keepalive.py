"""When which flow is to be kept alive: each once in an interval, and in each moment as many as in any other. Pure."""

from collections.abc import Iterator

from sipward.model import Endpoint
from sipward.registrations import Registration

SLOT = 0.1
"""Seconds: the flows of one slot are pinged together."""


class Keepalive:
    """The flows, spread over the slots of an interval. A flow may have several registrations: the lines of a phone."""

    def __init__(self, interval: float, now: float) -> None:
        """`interval`: seconds between two pings of a flow; `now`: of a clock that never jumps, as all of them here."""
        self._slots: list[dict[Endpoint, None]] = [{} for _ in range(max(1, round(interval / SLOT)))]
        self._until: dict[Endpoint, dict[str, int]] = {}
        self._flow_of: dict[str, Endpoint] = {}
        self._slot = int(now / SLOT)

    def __len__(self) -> int:
        """How many flows there are."""
        return len(self._until)

    def take(self, key: str, registration: Registration | None) -> None:
        """Know a phone's registration; None when it has ended."""
        if (before := self._flow_of.pop(key, None)) is not None:
            self._until[before].pop(key)
        if registration is None or not registration.is_pinged:
            return
        flow = self._flow_of[key] = registration.flow
        if flow not in self._until:
            self._until[flow] = {}
            min(self._slots, key=len)[flow] = None
        self._until[flow][key] = registration.until

    def due(self, now: float, date: float) -> Iterator[Endpoint]:
        """The flows to be pinged now. `date`: seconds since 1970, by which registrations end."""
        last = int(now / SLOT)
        # After a standstill each is pinged once.
        for number in range(max(self._slot, last - len(self._slots)) + 1, last + 1):
            slot = self._slots[number % len(self._slots)]
            for flow in list(slot):
                if self._is_over(flow, date):
                    del slot[flow], self._until[flow]
                else:
                    yield flow
        self._slot = last

    def _is_over(self, flow: Endpoint, date: float) -> bool:
        registrations = self._until[flow]
        for key in [key for key, until in registrations.items() if until <= date]:
            del registrations[key], self._flow_of[key]
        return not registrations
