"""A small table on disk that changes all the time: a line for each change, written anew when most lines are old.

Each line is `key value`, a value of nothing removes the key. A line that was cut short by a sudden end is passed over.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_SPARE = 1000
"""Lines of no use any more that a file may have, beside as many as it has of use."""


class Journal:
    """The file, and what is in it. Writing raises OSError; what could not be written is in memory all the same."""

    def __init__(self, path: Path) -> None:
        """Do nothing yet."""
        self._path = path
        self._lines = 0
        self._descriptor = -1
        self.entries: dict[str, str] = {}

    def read(self) -> None:
        """Take what the file says. Raises OSError; no file is an empty one."""
        try:
            text = self._path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return
        lines = text.split("\n")[:-1]
        self._apply(line.partition(" ")[::2] for line in lines)

    def add(self, changes: Mapping[str, str]) -> None:
        """Write changes."""
        self._apply(changes.items())
        self._lines += len(changes)
        if self._descriptor < 0 or self._lines > 2 * len(self.entries) + _SPARE:
            self.renew()
        else:
            os.write(self._descriptor, _text(changes))

    def renew(self) -> None:
        """Write all of it anew: whole, or not at all."""
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(temporary, flags, 0o600)
        os.write(self._descriptor, _text(self.entries))
        temporary.replace(self._path)
        self._lines = len(self.entries)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _apply(self, changes: Iterable[tuple[str, str]]) -> None:
        for key, value in changes:
            if value:
                self.entries[key] = value
            else:
                self.entries.pop(key, None)


def _text(entries: Mapping[str, str]) -> bytes:
    return "".join(f"{key} {value}\n" for key, value in entries.items()).encode()
