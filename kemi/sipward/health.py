"""The health of every instance: when it is asked, and what its answers, its silence and the workers' marks make of it.

Pure: time comes in as an argument, and shared memory is one. Health belongs to the endpoint. What tenants have it, and
how often they change, matters only to whether it is watched at all.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import nsmallest
from typing import NamedTuple, Protocol

from sipward.live import HEALTH, HEALTH_KEY, STATE
from sipward.model import Endpoint

MARKS = "instance-down", "counters"
"""Where workers count their marks, as key and htable: only when it moves must all endpoints be looked up."""

SLOT = 0.05
"""Seconds: what is due within one is done at once, so that the thread wakes twenty times a second at most."""

KEPT = 60.0
"""Seconds for which an endpoint that no tenant has any more is still known: a tenant removed and added is the same."""

ANSWERS = 2
"""In a row, from one that is down, and it is called again."""

AGAIN = 1.0
"""Seconds between two requests to one that is down ..."""

AGAIN_MAX = 1000
"""... but no more than so many a second to all of them: a network that is gone must not take the node's time."""

_SHOWN = 5
_NEVER = -1
_GOLDEN = 0.6180339887498949
"""Multiples of it, cut to 0..1, fall evenly however many there are (Weyl): no two endpoints begin together."""


class Memory(Protocol):
    """Kamailio's shared memory."""

    def get(self, table: str, key: str) -> str | None:
        """Read an entry."""

    def set(self, table: str, key: str, value: str) -> None:
        """Write an entry."""

    def remove(self, table: str, key: str) -> None:
        """Remove an entry, if it is there."""


class Probe(NamedTuple):
    """A request to be sent now. `mark` comes back with the answer: digits and a dot, another one each time."""

    end: Endpoint
    mark: str


@dataclass(slots=True, eq=False)
class _Watched:
    end: Endpoint
    key: str
    number: int
    owners: int = 0
    slot: int = _NEVER
    """When something is due: a request, or the end of the wait for its answer."""
    round: int = 0
    asked: int = 0
    is_awaited: bool = False
    missed: int = 0
    answered: int = 0
    down: str = ""
    """Why it must not be called; empty: it may be."""
    kept_until: float = 0.0


class Health:
    """All endpoints that tenants have, and those that they had a moment ago."""

    def __init__(
        self, memory: Memory, log: Callable[[str], None], interval: float, timeout: float, threshold: int, now: float
    ) -> None:
        """`interval`: seconds between two requests, 0: only those that are down are asked."""
        self._memory = memory
        self._log = log
        self._interval = round(interval / SLOT)
        self._timeout = max(1, round(timeout / SLOT))
        self._threshold = threshold
        self._slot = int(now / SLOT)
        self._due: dict[int, list[_Watched]] = {}
        self._known: dict[Endpoint, _Watched] = {}
        self._numbered: dict[int, _Watched] = {}
        self._owned: dict[str, tuple[Endpoint, ...]] = {}
        self._down: dict[str, _Watched] = {}
        self._leaving: set[_Watched] = set()
        self._marks: str | None = None
        self._numbers = 0
        self._published = ""

    # --- who is watched ------------------------------------------------------------------------------------------

    def watch(self, owner: str, ends: Iterable[Endpoint], now: float) -> None:
        """Say which endpoints a tenant has now; none when it is gone."""
        before, after = self._owned.pop(owner, ()), tuple(dict.fromkeys(ends))
        if after:
            self._owned[owner] = after
        for end in after:
            self._take(end)
        for end in before:
            self._give(self._known[end], now)

    def _take(self, end: Endpoint) -> None:
        watched = self._known.get(end)
        if watched is None:
            self._numbers += 1
            watched = self._known[end] = _Watched(end, str(end), self._numbers)
            self._numbered[watched.number] = watched
            self._see(watched)
            if not watched.down:
                self._wait(watched, self._phase(watched, self._interval))
        watched.owners += 1
        self._leaving.discard(watched)

    def _give(self, watched: _Watched, now: float) -> None:
        watched.owners -= 1
        if not watched.owners:
            watched.kept_until = now + KEPT
            self._leaving.add(watched)

    def _forget(self, watched: _Watched) -> None:
        self._leaving.discard(watched)
        del self._known[watched.end], self._numbered[watched.number]
        watched.slot = _NEVER
        if watched.down:
            del self._down[watched.key]
            self._memory.remove(HEALTH, watched.key)

    # --- what is due ---------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[Probe]:
        """What must be sent now. Whose time to answer is over has missed it: hand over the answers first."""
        probes: list[Probe] = []
        while self._slot < int(now / SLOT):
            self._slot += 1
            for watched in self._due.pop(self._slot, ()):
                if watched.slot != self._slot:
                    continue
                if watched.is_awaited:
                    self._miss(watched, "silent")
                elif not watched.down or self._see(watched):
                    probes.append(self._ask(watched))
        return probes

    def heard(self, mark: str, status: int) -> None:
        """Take a final answer. One that is late, or nobody's, says nothing."""
        number, _, count = mark.partition(".")
        watched = self._numbered.get(int(number))
        if watched is None or not watched.is_awaited or watched.round != int(count):
            return
        if status == 408 or 500 <= status < 600:
            self._miss(watched, str(status))
        else:
            self._hit(watched)

    def unsent(self, mark: str) -> None:
        """Try again in a moment what we could not send ourselves: it says nothing of the instance."""
        watched = self._numbered[int(mark.partition(".")[0])]
        watched.is_awaited = False
        self._wait(watched, self._phase(watched, round(AGAIN / SLOT)))

    def _ask(self, watched: _Watched) -> Probe:
        watched.round += 1
        watched.asked = self._slot
        watched.is_awaited = True
        self._wait(watched, self._slot + self._timeout)
        return Probe(watched.end, f"{watched.number}.{watched.round}")

    def _wait(self, watched: _Watched, slot: int | None) -> None:
        watched.slot = _NEVER if slot is None else slot
        if slot is not None:
            self._due.setdefault(slot, []).append(watched)

    def _wait_for_next(self, watched: _Watched) -> None:
        period = self._again if watched.down else self._interval
        self._wait(watched, max(watched.asked + period, self._slot + 1) if period else None)

    def _phase(self, watched: _Watched, slots: int) -> int | None:
        """A slot of the next so many, by the endpoint's number; None of none."""
        return self._slot + 1 + int(watched.number * _GOLDEN % 1 * slots) if slots else None

    @property
    def _again(self) -> int:
        return round(max(AGAIN, len(self._down) / AGAIN_MAX) / SLOT)

    # --- what comes of it ----------------------------------------------------------------------------------------

    def _miss(self, watched: _Watched, why: str) -> None:
        watched.is_awaited = False
        watched.answered = 0
        watched.missed += 1
        if not watched.down and watched.missed >= self._threshold:
            if self._memory.get(HEALTH, watched.key) is None:
                self._memory.set(HEALTH, watched.key, why)
                self._log(f"event=instance-down why={why} to={watched.key}")
            self._turn_down(watched, why)
        self._wait_for_next(watched)

    def _hit(self, watched: _Watched) -> None:
        watched.is_awaited = False
        watched.missed = 0
        watched.answered += 1
        if watched.down and watched.answered >= ANSWERS:
            self._memory.remove(HEALTH, watched.key)
            self._log(f"event=instance-up why=answers to={watched.key}")
            self._turn_up(watched)
        self._wait_for_next(watched)

    def _turn_down(self, watched: _Watched, why: str) -> None:
        watched.down, watched.answered = why or "?", 0
        self._down[watched.key] = watched

    def _turn_up(self, watched: _Watched) -> None:
        watched.down, watched.missed = "", 0
        del self._down[watched.key]

    # --- once a second -------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """See what workers have marked, forget whom nobody has any more, and say how it stands."""
        key, table = MARKS
        marks = self._memory.get(table, key)
        suspects = self._known if marks != self._marks else self._down
        self._marks = marks
        for watched in list(suspects.values()):
            self._see(watched)
        for watched in [watched for watched in self._leaving if watched.kept_until <= now]:
            self._forget(watched)
        self._publish()

    def _see(self, watched: _Watched) -> bool:
        """Take over what shared memory says, whoever wrote it; whether it is down."""
        why = self._memory.get(HEALTH, watched.key)
        if why is not None and not watched.down:
            self._turn_down(watched, why)
            watched.is_awaited = False
            self._wait(watched, self._phase(watched, self._again))
        elif why is None and watched.down:
            self._turn_up(watched)
            if not watched.is_awaited:
                self._wait(watched, self._phase(watched, self._interval))
        return why is not None

    def _publish(self) -> None:
        names = {key: self._down[key].down for key in nsmallest(_SHOWN, self._down)}
        said = json.dumps({"watched": len(self._known), "down": len(self._down), "names": names})
        if said != self._published:
            self._memory.set(STATE, HEALTH_KEY, said)
            self._published = said
