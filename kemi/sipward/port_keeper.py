"""Keeps on disk which registration has which of our ports, so that it has the same one after a restart."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sipward import ports, snapshot
from sipward.live import PORTS
from sipward.snapshot import Snapshot, SnapshotError, Writer

_MADE_UNDER = "ports"


class Memory(Protocol):
    """Kamailio's shared memory."""

    def get(self, table: str, key: str) -> str | None:
        """Read an entry."""

    def set(self, table: str, key: str, value: str) -> None:
        """Write an entry."""


class PortKeeper:
    """The table that the workers write, and its copy on disk."""

    def __init__(self, memory: Memory, own_ports: Sequence[int], path: Path) -> None:
        """Do nothing yet. `own_ports`: all there are now; those on disk that are none any more are forgotten."""
        self._memory = memory
        self._ports = [str(port) for port in own_ports]
        self._writer = Writer(path)
        self._written: str | None = None
        self._trouble = ""
        self.taken = 0
        """How many are taken."""

    @property
    def complaint(self) -> str:
        """What needs the operator; empty: nothing."""
        full = ""
        if self._ports and self.taken == len(self._ports):
            full = f"all {self.taken} ports of trunks.own_ports are taken: an account that is new gets 503"
        return "; ".join(filter(None, (self._trouble, self._writer.complaint, full)))

    def resume(self) -> None:
        """Give each registration the port it had."""
        try:
            last = snapshot.load(self._writer.path)
            found = dict(map(json.loads, last.lines)) if last else {}
        except (SnapshotError, ValueError, TypeError) as error:
            self._trouble = str(error)
            return
        for port in filter(found.__contains__, self._ports):
            for key, value in ports.entries(port, found[port]).items():
                self._memory.set(PORTS, key, value)
        self._count(self._entries())

    def keep(self) -> None:
        """Have what has changed written to disk, now or the next time."""
        # The mark before what it marks: what changes in between is written twice rather than missed.
        mark = self._memory.get(PORTS, ports.CHANGED)
        if self.taken == len(self._ports):
            self._count(self._entries())
        if self._writer.is_free(urgent=True) and (mark != self._written or self._writer.complaint):
            self._write(mark)

    def close(self) -> None:
        """Write it once more, if it has changed."""
        mark = self._memory.get(PORTS, ports.CHANGED)
        if mark != self._written:
            self._write(mark)
        self._writer.close()

    def _write(self, mark: str | None) -> None:
        found = self._entries()
        self._count(found)
        self._writer.offer(Snapshot(_MADE_UNDER, [json.dumps(pair) for pair in found.items()]))
        self._written, self._trouble = mark, ""

    def _entries(self) -> dict[str, str]:
        return {port: entry for port in self._ports if (entry := self._memory.get(PORTS, port))}

    def _count(self, found: dict[str, str]) -> None:
        now = time.time()
        self.taken = sum(ports.is_taken(entry, now) for entry in found.values())
