"""The values of one kind that run, and what may change them. Decides only: what that means is for `Entries` to say.

A bad value never replaces a good one. A claim (a tenant's domain, a number's rule) stays with the one that has it. One
removal counts at once; most of the kind gone at once is withheld until the operator says which side is right.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from sipward.entries import Entries, Lists
from sipward.records import Kind, Record, RecordError
from sipward.snapshot import Row, Snapshot
from sipward.store import Unreadable, Value, taken_by

_MANY = 10
_REASON_MAX = 500

type Parse = Callable[[str, bytes], Record]
"""Check a value by its name. Raises RecordError."""


def is_suspicious(had: int, lost: int, is_empty: bool) -> bool:
    """Whether a loss looks like an accident: everything, or more than half of ten values and more.

    `is_empty`: Redis has no value of any kind. Beside others the only one of its kind may well have been removed.
    """
    return (0 < had == lost and (lost > 1 or is_empty)) or (had >= _MANY and 2 * lost > had)


class Keeper:
    """Rows by name, who owns which claim, and what was refused."""

    def __init__(self, kind: Kind, parse: Parse, made_under: str, entries: Entries) -> None:
        """Start empty. `made_under` names what `parse` makes of values, in one text."""
        self._kind = kind
        self._parse = parse
        self._made_under = made_under
        self._entries = entries
        self._lines: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self._waiting: dict[str, bytes] = {}
        self._waiters: dict[str, dict[str, None]] = {}
        self._freed: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self.has_changed = True
        """Whether `snapshot` would be another one than the last, or is the first."""
        self.has_lost = False
        """Whether the last snapshot has a value that was removed since: a start by it would bring that back."""
        self.asked = Lists()
        """The host names that rows depend on, and the names of the rows."""
        self.rejected: dict[str, str] = {}
        """Values in Redis that are not used, by name, with the reason. An older good one may run."""
        self.withheld: set[str] = set()
        """Values that run although Redis has lost them."""

    def __len__(self) -> int:
        """How many run."""
        return len(self._lines)

    @property
    def claims(self) -> int:
        """How many claims they have."""
        return len(self._owners)

    def snapshot(self) -> Snapshot:
        """The rows as they run."""
        self.has_changed = self.has_lost = False
        return Snapshot(self._made_under, list(self._lines.values()), frozenset(self.withheld))

    def resume(self, snapshot: Snapshot) -> None:
        """Take over the last good table. Rows made under other settings are checked again, by these."""
        is_good = snapshot.made_under == self._made_under
        if is_good:
            for line in snapshot.lines:
                self._install(Row.read(line), line)
        else:
            self.edit({row.name: row.raw.encode() for row in snapshot.rows})
        self.withheld = set(snapshot.withheld) & self._lines.keys()
        self.has_changed = not is_good

    def expect(self, names: Collection[str], accepted: bool, is_empty: bool) -> None:
        """Hear which values there are, before they come: what vanished goes at the end of the load.

        It stays when its loss is suspicious, and not `accepted`. `is_empty`: there are none of any kind.
        """
        vanished = {name for name in self._lines if name not in names}
        before = self.withheld
        if accepted:
            self.withheld = set()
        elif is_suspicious(len(self._lines), len(vanished), is_empty):
            self.withheld = set(vanished)
        else:
            self.withheld = before & vanished
        self.has_changed |= self.withheld != before
        for name in self.rejected.keys() - names:
            self._forget_value(name)
        self._gone = dict.fromkeys(sorted(vanished - self.withheld))

    def complete(self) -> None:
        """End a load: remove what vanished."""
        gone, self._gone = self._gone, {}
        self.edit(dict.fromkeys(gone))

    def accept(self) -> None:
        """Remove what was withheld."""
        self.edit(dict.fromkeys(sorted(self.withheld)))

    def edit(self, values: Mapping[str, Value | None]) -> None:
        """Take over single values; None means removed. A claim that moves within one call is never missing."""
        for name, value in values.items():
            if not self._is_settled(name, value):
                self._take(name, value)
        while self._freed:
            claim, _ = self._freed.popitem()
            self._retry(claim)

    def remake(self, hosts: Iterable[str]) -> bool:
        """Make the rows anew that depend on these host names. Returns whether there were any."""
        names = {name for host in hosts for name in self.asked[host]}
        for name in sorted(names):
            row = Row.read(self._lines[name])
            # The rules have not changed: what was good for them is good.
            self._install(Row.of(self._parse(name, row.raw.encode()), row.raw))
        return bool(names)

    def _take(self, name: str, value: Value | None) -> None:
        self._forget_value(name)
        if name in self.withheld:
            self.withheld.discard(name)
            self.has_changed = True
        self._gone.pop(name, None)
        match value:
            case None:
                self.has_lost |= name in self._lines
                self._uninstall(name)
            case Unreadable(reason):
                self.rejected[name] = reason
            case bytes() if not self._is_running(name, value):
                self._read(name, value)

    def _forget_value(self, name: str) -> None:
        """Forget a value that was refused or waits."""
        self.rejected.pop(name, None)
        self._waiting.pop(name, None)

    def _is_settled(self, name: str, value: Value | None) -> bool:
        """Whether there is nothing to do: this is what runs, and nothing else is known of it."""
        return (
            name not in self.rejected
            and name not in self.withheld
            and name not in self._gone
            and self._is_running(name, value)
        )

    def _is_running(self, name: str, value: Value | None) -> bool:
        line = self._lines.get(name)
        return line is not None and isinstance(value, bytes) and Row.has_written(line, name, value)

    def _read(self, name: str, value: bytes) -> None:
        try:
            record = self._parse(name, value)
        except RecordError as error:
            self.rejected[name] = "; ".join(str(error).splitlines())[:_REASON_MAX]
            return
        taken = [claim for claim in record.claims if self._owners.get(claim, name) != name]
        if taken:
            self._wait(name, value, taken)
        else:
            self._install(Row.of(record, value.decode()))

    def _wait(self, name: str, value: bytes, taken: Iterable[str]) -> None:
        """Set a value aside until what it claims is free."""
        for claim in taken:
            self._waiters.setdefault(claim, {})[name] = None
            self.rejected[name] = taken_by(self._kind, claim, self._owners[claim])
        self._waiting[name] = value

    def _retry(self, claim: str) -> None:
        for name in self._waiters.pop(claim, ()):
            if name in self._waiting:
                self._take(name, self._waiting[name])

    def _install(self, row: Row, line: str = "") -> None:
        self._uninstall(row.name)
        self.has_changed = True
        self._lines[row.name] = line or row.line
        for claim in row.claims:
            self._owners[claim] = row.name
            self._freed.pop(claim, None)
        self.asked.add(row.asks, row.name)
        self._entries.add(row)

    def _uninstall(self, name: str) -> None:
        line = self._lines.pop(name, None)
        if line is None:
            return
        self.has_changed = True
        row = Row.read(line)
        for claim in row.claims:
            del self._owners[claim]
            self._freed[claim] = None
        self.asked.drop(row.asks, name)
        self._entries.drop(row)
