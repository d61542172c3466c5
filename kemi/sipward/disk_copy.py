"""A table of shared memory that workers write, and its copy on disk: for what must outlive Kamailio."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from sipward import snapshot
from sipward.live import CHANGED
from sipward.snapshot import Snapshot, SnapshotError, Writer


class Memory(Protocol):
    """Kamailio's shared memory."""

    def get(self, table: str, key: str) -> str | None:
        """Read an entry."""

    def set(self, table: str, key: str, value: str) -> None:
        """Write an entry."""


class DiskCopy:
    """Written when the table has changed, read at the start."""

    def __init__(self, memory: Memory, table: str, path: Path, entries: Callable[[], Mapping[str, str]]) -> None:
        """Do nothing yet. `entries`: what the table has now."""
        self._memory = memory
        self._table = table
        self._entries = entries
        self._writer = Writer(path)
        self._written: str | None = None
        self._trouble = ""

    @property
    def complaint(self) -> str:
        """What needs the operator; empty: nothing."""
        return "; ".join(filter(None, (self._trouble, self._writer.complaint)))

    def load(self) -> dict[str, str]:
        """What is on disk; nothing when it cannot be used."""
        try:
            last = snapshot.load(self._writer.path)
            return dict(map(json.loads, last.lines)) if last else {}
        except (SnapshotError, ValueError, TypeError) as error:
            self._trouble = str(error)
            return {}

    def keep(self) -> None:
        """Have what has changed written to disk, now or the next time."""
        # The mark before what it marks: what changes in between is written twice rather than missed.
        mark = self._memory.get(self._table, CHANGED)
        if self._writer.is_free(urgent=True) and (mark != self._written or self._writer.complaint):
            self._write(mark)

    def close(self) -> None:
        """Write it once more, if it has changed."""
        mark = self._memory.get(self._table, CHANGED)
        if mark != self._written:
            self._write(mark)
        self._writer.close()

    def _write(self, mark: str | None) -> None:
        self._writer.offer(Snapshot(self._table, [json.dumps(pair) for pair in self._entries().items()]))
        self._written, self._trouble = mark, ""
