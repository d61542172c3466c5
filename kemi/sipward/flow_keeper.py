"""Keeps phones reachable: pings their flows through NATs, and has the registrations on disk for the next start.

A thread of the sync process. Workers tell it of each registration by a queue in shared memory. The ping is four bytes,
which no phone answers, from the very socket that the flow came to: only that one passes a NAT (RFC 5626, 4.4).
"""

import json
import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import MSG_DONTWAIT, SO_TYPE, SOCK_DGRAM, SOL_SOCKET, socket
from typing import Protocol

from sipward.journal import Journal
from sipward.keepalive import SLOT, Keepalive
from sipward.live import FLOWS, PHONES_KEY, STATE
from sipward.model import Endpoint
from sipward.registrations import Registration

PING = b"\r\n\r\n"
PHONES_MAX = 20_000
"""Of one tenant: what its PBX accepts takes the memory of all."""
_REST = 1.0
_LOOK_EVERY = 1.0
_TIDY_EVERY = 60.0


class Memory(Protocol):
    """Kamailio's shared memory."""

    def set(self, table: str, key: str, value: str) -> None:
        """Write an entry."""

    def remove(self, table: str, key: str) -> None:
        """Remove an entry, if it is there."""

    def set_for(self, table: str, key: str, value: str, seconds: int) -> None:
        """Write an entry that is forgotten after a time."""

    def news(self, queue: str) -> Iterator[tuple[str, str]]:
        """Take what workers have told, in order: keys and values."""


class FlowKeeper:
    """The thread."""

    def __init__(
        self, memory: Memory, log: Callable[[str], None], sockets: Iterable[Endpoint], interval: float, path: Path
    ) -> None:
        """Do nothing yet. `sockets`: where phones reach us by UDP; `interval`: seconds, 0: no flow is pinged."""
        self._memory = memory
        self._log = log
        self._sockets = tuple(sockets)
        self._interval = interval
        self._journal = Journal(path)
        self._complaint = ""
        self._published = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flow keeper", daemon=True)
        self._flows = Keepalive(interval or 1.0, time.monotonic())
        self._tenant_of: dict[str, str] = {}
        self._phones: Counter[str] = Counter()
        self._crowded = ""

    def start(self) -> None:
        """Take up the registrations of the last run, and begin."""
        self._on_disk(self._journal.read)
        self._tidy()
        self._on_disk(self._journal.renew)
        for key, text in self._journal.entries.items():
            registration = Registration.read(text)
            self._memory.set_for(FLOWS, key, text, registration.until - int(time.time()))
            self._knows(key, registration)
        self._thread.start()

    def stop(self) -> None:
        """Ping no more; comes back when the thread has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._journal.close()

    def _run(self) -> None:
        own = dict(_own_sockets(self._sockets))
        look_at = tidy_at = 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            try:
                if now >= tidy_at:
                    self._tidy()
                    tidy_at = now + _TIDY_EVERY
                self._learn()
                self._ping(own, now)
                if now >= look_at:
                    self._publish()
                    look_at = now + _LOOK_EVERY
            except Exception:
                for line in traceback.format_exc().splitlines():
                    self._log(f"event=exception callid=? {line}")
                self._stopping.wait(_REST)
            self._stopping.wait(SLOT - (time.monotonic() - now))
        for each in own.values():
            each.close()

    def _learn(self) -> None:
        news = dict(self._memory.news(FLOWS))
        for key, text in news.items():
            if not self._knows(key, Registration.read(text) if text else None):
                self._memory.remove(FLOWS, key)
                news[key] = ""
        if news:
            self._on_disk(lambda: self._journal.add(news))

    def _knows(self, key: str, registration: Registration | None) -> bool:
        """Take a registration, or let it go; False when the tenant has too many."""
        if tenant := self._tenant_of.pop(key, ""):
            self._phones[tenant] -= 1
        if registration:
            if self._phones[registration.tenant] >= PHONES_MAX:
                self._crowded = registration.tenant
                self._flows.take(key, None)
                return False
            self._tenant_of[key] = registration.tenant
            self._phones[registration.tenant] += 1
        if self._interval:
            self._flows.take(key, registration)
        return True

    def _ping(self, own: dict[bool, socket], now: float) -> None:
        for flow in self._flows.due(now, time.time()):
            if sender := own.get(":" in flow.host):
                with suppress(OSError):  # a network that is away, a full buffer: the next one counts
                    sender.sendto(PING, MSG_DONTWAIT, (flow.host, flow.port))

    def _tidy(self) -> None:
        """Forget what has ended by itself or cannot be read; on disk it is gone when that is written anew."""
        now, entries = time.time(), self._journal.entries
        for key in [key for key, text in entries.items() if not _lasts(text, now)]:
            del entries[key]
            self._knows(key, None)
        self._phones = +self._phones  # without those that have none
        self._crowded = ""

    def _publish(self) -> None:
        """Say how it stands."""
        crowd = (
            f"more than {PHONES_MAX} phones of {self._crowded}: the others are not followed" if self._crowded else ""
        )
        said = json.dumps(
            {
                "registered": len(self._journal.entries),
                "pinged": len(self._flows),
                "complaint": "; ".join(filter(None, (self._complaint, crowd))),
            }
        )
        if said != self._published:
            self._memory.set(STATE, PHONES_KEY, said)
            self._published = said

    def _on_disk(self, action: Callable[[], None]) -> None:
        """Do it, and say so for as long as that fails."""
        try:
            action()
            self._complaint = ""
        except OSError as error:
            self._complaint = f"where phones are cannot be kept on disk: {error}"


def _lasts(text: str, now: float) -> bool:
    try:
        return Registration.read(text).until > now + 1
    except ValueError:
        return False


def _own_sockets(wanted: Iterable[Endpoint]) -> Iterator[tuple[bool, socket]]:
    """Kamailio's listening UDP sockets, which every process of it has; by whether they speak IPv6."""
    places = {(end.host, end.port) for end in wanted}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # what is no socket, or is closed by now
            found = socket(fileno=int(name))
            try:
                place = found.getsockname()[:2]
                if found.getsockopt(SOL_SOCKET, SO_TYPE) == SOCK_DGRAM and place in places:
                    yield ":" in place[0], found.dup()
            finally:
                found.detach()  # it is not ours to close
