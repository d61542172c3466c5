"""Which registration at a carrier has which of our ports to itself, for carriers that take one account an address.

| key in `ports` | value | what it is |
| --- | --- | --- |
| `5100` | `1764000000 carrier acme udp:10.5.4.11:5080 201@sip.example` | when its holder was last seen, and who it is |
| `carrier acme udp:10.5.4.11:5080 201@sip.example` | `5100` | a registration's port |
| `carrier acme udp:10.5.4.11:5080 201` | `5100` | the same, for calls whose From has another host |
| `changed` | any | another text after each change |

A port stays with its holder, also after the registration was removed, for as long as there is one that nobody has had.
Then goes first the one whose registration was removed, or else has not been seen for longest, and for a week at least:
seen is what the carrier has answered 200. So one that it refuses has its port for a few minutes only.
"""

import time
from collections.abc import Iterable, Sequence
from types import ModuleType
from zlib import crc32

from sipward.live import CHANGED, PORTS, domain_key
from sipward.tokens import Dialog
from sipward.uri import Uri, name_addrs

_DAY = 86_400
_WEEK = 7 * _DAY
_A_WHILE = 300
"""Seconds that a port is kept for who has not been registered yet."""
_NOBODY = -1
_REMOVED = 0


def holder(dialog: Dialog, account: Uri) -> str:
    """The key of an instance's account at a carrier."""
    return f"{dialog.trunk} {dialog.tenant} {dialog.inner} {account.user}@{domain_key(account.host)}"


def short(key: str) -> str:
    """A holder's key without the account's host."""
    return key.rpartition("@")[0]


def entries(port: str, entry: str) -> dict[str, str]:
    """All entries that belong to a port's own."""
    key = entry.partition(" ")[2]
    return {port: entry, key: port, short(key): port}


def seen(entry: str | None) -> int:
    """When the holder in a port's entry was last seen, in seconds; less than any time when it may go."""
    return int(entry.partition(" ")[0]) if entry else _NOBODY


def is_taken(entry: str | None, now: float) -> bool:
    """Whether a port's entry keeps others from it."""
    return seen(entry) > now - _WEEK


def is_removal(contacts: Iterable[str], expires: str) -> bool:
    """Whether a REGISTER with these Contacts, and this Expires, removes all of them (RFC 3261, 10.2.2)."""
    values = [value for text in contacts for value in name_addrs(text)]
    return bool(values) and all(value.expires(expires) == 0 for value in values)


class Ports:
    """The ports as one worker gives them out."""

    def __init__(self, sip: ModuleType, ports: Sequence[int]) -> None:
        """`sip`: the verbs of `sipward.kamailio`; `ports`: all there are."""
        self._sip = sip
        self._ports = tuple(map(str, ports))

    def take(self, key: str) -> int:
        """The port of a registration, which gets one for a while if it has none; 0 when all are taken."""
        if port := self._sip.look_up(PORTS, key):
            return int(port)
        now = int(time.time())
        with self._sip.locked(PORTS):
            port = self._sip.look_up(PORTS, key)
            if not port and (port := self._free(key, now)):
                self._give(port, key, now - _WEEK + _A_WHILE)
            return int(port or 0)

    def answered(self, port: int, removed: bool) -> None:
        """Let the holder of a port keep it, which the carrier has registered, or let it go to the next without one."""
        now = int(time.time())
        # Seen once a day is often enough: each change is written to disk.
        if not removed and seen(self._sip.look_up(PORTS, str(port))) > now - _DAY:
            return
        with self._sip.locked(PORTS):
            if entry := self._sip.look_up(PORTS, str(port)):
                self._put(str(port), f"{_REMOVED if removed else now} {entry.partition(' ')[2]}")

    def _free(self, key: str, now: int) -> str:
        """The port that may go, taken from who had it; "" when there is none.

        One that was forgotten, for a sudden end came before it was on disk, is likely to be the same one again.
        """
        start = crc32(key.encode()) % max(1, len(self._ports))
        had = {port: self._sip.look_up(PORTS, port) for port in (*self._ports[start:], *self._ports[:start])}
        port = min(had, key=lambda port: seen(had[port]), default="")
        if not port or is_taken(had[port], now):
            return ""
        if entry := had[port]:
            for each in (each for each, value in entries(port, entry).items() if value == port):
                if self._sip.look_up(PORTS, each) == port:
                    self._sip.erase(PORTS, each)
        return port

    def _give(self, port: str, key: str, seen_at: int) -> None:
        if not self._sip.look_up(PORTS, short(key)):
            self._sip.store(PORTS, short(key), port)
        self._sip.store(PORTS, key, port)
        self._put(port, f"{seen_at} {key}")

    def _put(self, port: str, entry: str) -> None:
        self._sip.store(PORTS, port, entry)
        self._sip.store(PORTS, CHANGED, str(time.time_ns()))
