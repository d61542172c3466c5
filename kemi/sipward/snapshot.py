"""The last good table on disk, so that a node starts and routes without Redis.

A file for each kind of value: a line for what it was made under, one line a row, a line with the checksum of it all.
Written to a temporary file first and renamed, so that it is whole or not there; in a thread of its own, so that no edit
waits for the disk. A row is that line in memory, too: a million of them are small, and ready to be written.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

from pydantic_core import from_json, to_json

from sipward.records import Record

_VERSION = 2
_CHUNK = 500
_PAUSE = 1.0


class SnapshotError(Exception):
    """The file is there and cannot be used."""


class Row(NamedTuple):
    """A value that runs: its name and text in Redis, and what it is in the live table."""

    name: str
    raw: str
    claims: tuple[str, ...]
    entries: dict[str, str]
    member: str = ""
    shares: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: Record, raw: str) -> Self:
        """Make the row of a checked value."""
        shares = record.shares
        return cls(
            record.name, raw, record.claims, dict(record.entries), record.member if shares else "", shares, record.asks
        )

    @classmethod
    def read(cls, line: str) -> Self:
        """Read what `line` wrote."""
        name, raw, claims, texts, *rest = from_json(line)
        entries = {key: text for text, *keys in texts for key in keys}
        if not rest:
            return cls(name, raw, tuple(claims), entries)
        member, shares, asks = rest
        return cls(name, raw, tuple(claims), entries, member, tuple(shares), tuple(asks))

    @staticmethod
    def has_written(line: str, name: str, raw: bytes) -> bool:
        """Whether a line is that of a row with this name and text: far cheaper than to read it."""
        try:
            return line.startswith(f"{to_json((name, raw), ensure_ascii=True).decode()[:-1]},")
        except ValueError:
            return False

    @property
    def line(self) -> str:
        """The row as one line; a text that is at several keys is there once."""
        keys: dict[str, list[str]] = {}
        for key, text in self.entries.items():
            keys.setdefault(text, [text]).append(key)
        found: list[object] = [self.name, self.raw, self.claims, list(keys.values())]
        if self.shares or self.asks:
            found += [self.member, self.shares, self.asks]
        return to_json(found, ensure_ascii=True).decode()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of one kind at one moment. `made_under` names the rules they were checked by."""

    made_under: str
    lines: Sequence[str] = ()
    withheld: Set[str] = frozenset()

    @property
    def rows(self) -> Iterator[Row]:
        """The rows, read one after the other."""
        return map(Row.read, self.lines)


def load(path: Path) -> Snapshot | None:
    """Read the file; None when there is none. Raises SnapshotError when it cannot be used."""
    try:
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            raise SnapshotError(f"{path}: cannot be used: it is cut short")
        end = content.rindex(b"\n", 0, len(content) - 1) + 1
        if json.loads(content[end:]) != crc32(memoryview(content)[:end]):
            raise SnapshotError(f"{path}: cannot be used: it is not what was written")
        head, *lines = content[: end - 1].decode("ascii").split("\n")
        made = json.loads(head)
        if made["version"] != _VERSION:
            raise SnapshotError(f"{path}: of another version")
        return Snapshot(str(made["made_under"]), lines, frozenset(made["withheld"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"{path}: cannot be used: {error}") from None


def save(path: Path, snapshot: Snapshot) -> None:
    """Write the file. Raises OSError, and then leaves the old one as it was."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    # The values may hold what customers keep to themselves: for the node's own user only.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.writelines(_parts(snapshot))
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    _sync_directory(path.parent)


def _parts(snapshot: Snapshot) -> Iterator[bytes]:
    """The file in chunks, the checksum of all others last."""
    checksum = 0
    for chunk in _chunks(snapshot):
        checksum = crc32(chunk, checksum)
        yield chunk
    yield b"%d\n" % checksum


def _chunks(snapshot: Snapshot) -> Iterator[bytes]:
    """Small ones: a big one would hold up the other thread, and with it the edits."""
    head = {"version": _VERSION, "made_under": snapshot.made_under, "withheld": sorted(snapshot.withheld)}
    yield json.dumps(head).encode() + b"\n"
    for some in batched(snapshot.lines, _CHUNK, strict=False):
        yield "\n".join(some).encode() + b"\n"


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
        self.path = path
        self._thread = threading.Thread()
        self._ended_at = self._took = 0.0
        self.complaint = ""
        """Why the last write failed; empty when it did not."""

    def is_free(self, urgent: bool = False) -> bool:
        """Whether the last write is done, and long enough ago: a second, but for what is `urgent`.

        A big table takes longer to write: it is written more seldom, a tenth of the time at most.
        """
        rest = max(0.0 if urgent else _PAUSE, 10 * self._took)
        return not self._thread.is_alive() and time.monotonic() >= self._ended_at + rest

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
        self._ended_at = time.monotonic()
        self._took = self._ended_at - started

    def _saved(self, snapshot: Snapshot) -> str:
        try:
            save(self.path, snapshot)
        except (OSError, ValueError) as error:
            return f"the last good table cannot be written to {self.path}: {error}"
        return ""
