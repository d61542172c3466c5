"""Keeps on disk which registration has which of our ports, so that it has the same one after a restart."""

import time
from collections.abc import Sequence
from pathlib import Path

from sipward import ports
from sipward.disk_copy import DiskCopy, Memory
from sipward.live import PORTS


class PortKeeper:
    """The table that the workers write, and its copy on disk."""

    def __init__(self, memory: Memory, own_ports: Sequence[int], path: Path) -> None:
        """Do nothing yet. `own_ports`: all there are now; those on disk that are none any more are forgotten."""
        self._memory = memory
        self._ports = [str(port) for port in own_ports]
        self._copy = DiskCopy(memory, PORTS, path, self._counted)
        self.taken = 0
        """How many are taken."""

    @property
    def complaint(self) -> str:
        """What needs the operator; empty: nothing."""
        full = ""
        if self._ports and self.taken == len(self._ports):
            full = f"all {self.taken} ports of trunks.own_ports are taken: an account that is new gets 503"
        return "; ".join(filter(None, (self._copy.complaint, full)))

    def resume(self) -> None:
        """Give each registration the port it had."""
        found = self._copy.load()
        for port in filter(found.__contains__, self._ports):
            for key, value in ports.entries(port, found[port]).items():
                self._memory.set(PORTS, key, value)
        self._counted()

    def keep(self) -> None:
        """Have what has changed written to disk, now or the next time."""
        if self.taken == len(self._ports):
            self._counted()
        self._copy.keep()

    def close(self) -> None:
        """Write it once more, if it has changed."""
        self._copy.close()

    def _counted(self) -> dict[str, str]:
        """Each port that is or was anybody's, with its entry."""
        found = {port: entry for port in self._ports if (entry := self._memory.get(PORTS, port))}
        now = time.time()
        self.taken = sum(ports.is_taken(entry, now) for entry in found.values())
        return found
