"""The last good table on disk, so that a node starts and routes without Redis.

`routes.json`: a line for what it was made under, then one line a tenant. Written to a temporary file first and renamed,
so that it is whole or not there; in a thread of its own, so that no edit waits for the disk.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import batched
from pathlib import Path
from typing import NamedTuple

_VERSION = 1
_CHUNK = 500
_PAUSE = 1.0


class SnapshotError(Exception):
    """The file is there and cannot be used."""


class Row(NamedTuple):
    """A tenant that runs: its value in Redis, its domains and its entry in the live table."""

    raw: str
    domains: tuple[str, ...]
    entry: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table at one moment. `made_under` names the rules its rows were checked by."""

    made_under: str
    rows: Mapping[str, Row] = field(default_factory=dict)
    withheld: Set[str] = frozenset()


def load(path: Path) -> Snapshot | None:
    """Read the file; None when there is none. Raises SnapshotError when it cannot be used."""
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != _VERSION:
            raise SnapshotError(f"{path}: of another version")
        rows = {name: Row(raw, tuple(domains), entry) for name, (raw, domains, entry) in content["tenants"].items()}
        return Snapshot(content["made_under"], rows, frozenset(content["withheld"]) & rows.keys())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"{path}: cannot be used: {error}") from None


def save(path: Path, snapshot: Snapshot) -> None:
    """Write the file. Raises OSError, and then leaves the old one as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    # The values may hold what customers keep to themselves: for the node's own user only.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.writelines(_text(snapshot))
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    _sync_directory(path.parent)


def _text(snapshot: Snapshot) -> Iterator[str]:
    """The file's text in chunks: one big `dumps` would hold up the other thread, and with it the edits."""
    head = {"version": _VERSION, "made_under": snapshot.made_under, "withheld": sorted(snapshot.withheld)}
    yield f'{json.dumps(head)[:-1]}, "tenants": {{'
    separator = "\n"
    for some in batched(snapshot.rows.items(), _CHUNK, strict=False):
        yield separator + ",\n".join(f"{json.dumps(name)}: {json.dumps(_listed(row))}" for name, row in some)
        separator = ",\n"
    yield "\n}}\n"


def _listed(row: Row) -> list[object]:
    return [row.raw, row.domains, row.entry]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Writer:
    """Writes one snapshot at a time behind the back of the one that offers it."""

    def __init__(self, path: Path) -> None:
        """Start nothing yet: threads begin with an offer, after the fork."""
        self._path = path
        self._thread = threading.Thread()
        self._rested_at = 0.0
        self.complaint = ""
        """Why the last write failed; empty when it did not."""

    @property
    def is_free(self) -> bool:
        """Whether the last write is done, and long enough ago."""
        return not self._thread.is_alive() and time.monotonic() >= self._rested_at

    def offer(self, snapshot: Snapshot) -> None:
        """Write a table, which must not change any more; after the write that runs, if one does."""
        self.close()
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="snapshot", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until the disk has what was offered."""
        if self._thread.is_alive():
            self._thread.join()

    def _write(self, snapshot: Snapshot) -> None:
        started = time.monotonic()
        self.complaint = self._saved(snapshot)
        ended = time.monotonic()
        # A big table takes longer to write: it is written more seldom, a tenth of the time at most.
        self._rested_at = ended + max(_PAUSE, 10 * (ended - started))

    def _saved(self, snapshot: Snapshot) -> str:
        try:
            save(self._path, snapshot)
        except (OSError, ValueError) as error:
            return f"the last good table cannot be written to {self._path}: {error}"
        return ""
