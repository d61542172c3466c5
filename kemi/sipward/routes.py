"""The table that runs, and what may change it. Decides only: what to set and remove comes back to the caller.

A bad value never replaces a good one. A domain stays with the tenant that has it. One removal counts at once; most of
the table gone at once is withheld until the operator says which side is right.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sipward import live
from sipward.snapshot import Row, Snapshot
from sipward.store import Unreadable, Value
from sipward.tenants import Rules, TenantError, parse

_MANY = 10
_REASON_MAX = 500
_SAMPLE = '{"domains": ["example.org"], "instances": [{"uri": "sip:192.0.2.1"}]}'


@dataclass(frozen=True, slots=True)
class Set:
    """Write an entry of the live table."""

    key: str
    entry: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove an entry of the live table."""

    key: str


type Change = Set | Remove


def is_suspicious(had: int, lost: int) -> bool:
    """Whether a loss looks like an accident: everything, or more than half of ten tenants and more."""
    return 0 < had == lost or (had >= _MANY and 2 * lost > had)


class _News:
    """Changes being gathered: the last word on a key counts."""

    def __init__(self) -> None:
        self._entries: dict[str, str | None] = {}
        self.freed: set[str] = set()

    def set(self, key: str, entry: str) -> None:
        self._entries[key] = entry
        self.freed.discard(key)

    def remove(self, key: str) -> None:
        self._entries[key] = None

    def free(self, domain: str) -> None:
        self.remove(domain)
        self.freed.add(domain)

    def changes(self) -> list[Change]:
        """What is set first, so that a name is never without an answer for longer than need be."""
        found: list[Change] = [Set(key, entry) for key, entry in self._entries.items() if entry is not None]
        return found + [Remove(key) for key, entry in self._entries.items() if entry is None]


class Routes:
    """Tenants by name, who owns which domain, and what was refused."""

    def __init__(self, rules: Rules | None) -> None:
        """Start empty. Without rules only the form of a value is checked."""
        self._rules = rules
        # What the code makes of a value belongs to it: after an upgrade, too, the entries on disk are made anew.
        self._made_under = f"{live.encode(parse('sample', _SAMPLE, None).to_tenant())} {rules!r}"
        self._rows: dict[str, Row] = {}
        self._owners: dict[str, str] = {}
        self._waiting: dict[str, bytes] = {}
        self._waiters: dict[str, dict[str, None]] = {}
        self.rejected: dict[str, str] = {}
        """Tenants whose value in Redis is not used, with the reason. An older good one may run."""
        self.withheld: set[str] = set()
        """Tenants that run although Redis has lost them."""

    @property
    def tenants(self) -> int:
        """How many tenants run."""
        return len(self._rows)

    @property
    def domains(self) -> int:
        """How many domains lead to one."""
        return len(self._owners)

    def snapshot(self) -> Snapshot:
        """The table as it runs."""
        return Snapshot(self._made_under, dict(self._rows), frozenset(self.withheld))

    def resume(self, snapshot: Snapshot) -> list[Change]:
        """Take over the last good table. Rows made under other settings are checked again, by these."""
        changes = self._trust(snapshot.rows) if snapshot.made_under == self._made_under else self._check(snapshot.rows)
        self.withheld = set(snapshot.withheld) & self._rows.keys()
        return changes

    def load(self, values: Mapping[str, Value], accepted: bool = False) -> list[Change]:
        """Take over all of Redis. What vanished is removed, unless that is suspicious and not `accepted`."""
        vanished = self._rows.keys() - values.keys()
        if accepted:
            self.withheld = set()
        elif is_suspicious(len(self._rows), len(vanished)):
            self.withheld = set(vanished)
        else:
            self.withheld &= vanished
        for name in self.rejected.keys() - values.keys():
            self._forget_value(name)
        gone = dict.fromkeys(sorted(vanished - self.withheld))
        # By name: two that claim a domain for the first time are told apart the same way at every start.
        fresh = {name: values[name] for name in sorted(values) if not self._is_settled(name, values[name])}
        return self.edit({**gone, **fresh})

    def accept(self) -> list[Change]:
        """Remove what was withheld."""
        return self.edit(dict.fromkeys(sorted(self.withheld)))

    def edit(self, values: Mapping[str, Value | None]) -> list[Change]:
        """Take over single values; None means removed. A domain that moves within one call is never missing."""
        news = _News()
        for name, value in values.items():
            self._take(name, value, news)
        while news.freed:
            self._retry(news.freed.pop(), news)
        return news.changes()

    def _trust(self, rows: Mapping[str, Row]) -> list[Change]:
        news = _News()
        for name, row in rows.items():
            self._install(name, row, news)
        return news.changes()

    def _check(self, rows: Mapping[str, Row]) -> list[Change]:
        return self.edit({name: row.raw.encode() for name, row in rows.items()})

    def _take(self, name: str, value: Value | None, news: _News) -> None:
        self._forget_value(name)
        self.withheld.discard(name)
        match value:
            case None:
                self._uninstall(name, news)
            case Unreadable(reason):
                self.rejected[name] = reason
            case bytes() if not self._is_running(name, value):
                self._read(name, value, news)

    def _forget_value(self, name: str) -> None:
        """Forget a value that was refused or waits."""
        self.rejected.pop(name, None)
        self._waiting.pop(name, None)

    def _is_settled(self, name: str, value: Value) -> bool:
        """Whether there is nothing to do for a tenant: this is what runs, and nothing else is known of it."""
        return self._is_running(name, value) and name not in self.rejected

    def _is_running(self, name: str, value: Value) -> bool:
        row = self._rows.get(name)
        return row is not None and row.raw.encode() == value

    def _read(self, name: str, value: bytes, news: _News) -> None:
        try:
            record = parse(name, value, self._rules)
        except TenantError as error:
            self.rejected[name] = "; ".join(str(error).splitlines())[:_REASON_MAX]
            return
        taken = [domain for domain in record.domains if self._owners.get(domain, name) != name]
        if taken:
            self._wait(name, value, taken)
        else:
            self._install(name, Row(value.decode(), record.domains, live.encode(record.to_tenant())), news)

    def _wait(self, name: str, value: bytes, taken: Iterable[str]) -> None:
        """Set a value aside until the domains it claims are free."""
        for domain in taken:
            self._waiters.setdefault(domain, {})[name] = None
            self.rejected[name] = f"domains: {domain} belongs to tenant {self._owners[domain]}"
        self._waiting[name] = value

    def _retry(self, domain: str, news: _News) -> None:
        for name in self._waiters.pop(domain, ()):
            if name in self._waiting:
                self._take(name, self._waiting[name], news)

    def _install(self, name: str, row: Row, news: _News) -> None:
        self._uninstall(name, news)
        self._rows[name] = row
        for domain in row.domains:
            self._owners[domain] = name
            news.set(domain, row.entry)
        news.set(live.tenant_key(name), row.entry)

    def _uninstall(self, name: str, news: _News) -> None:
        row = self._rows.pop(name, None)
        if row is None:
            return
        for domain in row.domains:
            del self._owners[domain]
            news.free(domain)
        news.remove(live.tenant_key(name))
