"""Keeps on disk what phones have shown of their media, so that they are offered the same after a restart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from sipward.abilities import LIFETIME
from sipward.disk_copy import DiskCopy, Memory
from sipward.live import CHANGED, SRTP
from sipward.model import Srtp


class PhoneMemory(Memory, Protocol):
    """Kamailio's shared memory, whose entries may end by themselves."""

    def set_for(self, table: str, key: str, value: str, seconds: int) -> None:
        """Write an entry that is gone after so many seconds."""

    def all(self, table: str) -> Mapping[str, str]:
        """Read a whole table."""


class AbilityKeeper:
    """The table that the workers write, and its copy on disk."""

    def __init__(self, memory: PhoneMemory, path: Path) -> None:
        """Do nothing yet."""
        self._memory = memory
        self._copy = DiskCopy(memory, SRTP, path, self._entries)

    @property
    def complaint(self) -> str:
        """What needs the operator; empty: nothing."""
        return self._copy.complaint

    def resume(self) -> None:
        """Let phones be what they were: for as long as one may be registered, the next registration will tell."""
        for key, shown in self._copy.load().items():
            if shown in set(Srtp):
                self._memory.set_for(SRTP, key, shown, LIFETIME)

    def keep(self) -> None:
        """Have what has changed written to disk, now or the next time."""
        self._copy.keep()

    def close(self) -> None:
        """Write it once more, if it has changed."""
        self._copy.close()

    def _entries(self) -> dict[str, str]:
        return {key: shown for key, shown in self._memory.all(SRTP).items() if key != CHANGED}
