"""The table that runs: a keeper for each kind of value, and the entries that they make together."""

from collections.abc import Collection, Iterable, Mapping

from sipward import number_rules, tenants, trunks
from sipward.entries import Change, Entries
from sipward.keeper import Keeper
from sipward.records import Kind, Record
from sipward.resolver import Name
from sipward.rules import Rules
from sipward.snapshot import Row, Snapshot
from sipward.store import Value

_INSTANCES = '"instances": [{"uri": "sip:192.0.2.1"}]'
_SAMPLES = {
    Kind.TENANT: ("sample", f'{{"domains": ["example.org"], {_INSTANCES}}}'),
    Kind.TRUNK: ("sample", '{"addresses": ["192.0.2.0/24", "192.0.2.1:5070", "example.org"], "tenants": ["*"]}'),
    Kind.NUMBER: ("1", f"{{{_INSTANCES}}}"),
}


def parse(
    kind: Kind, name: str, raw: bytes | str, rules: Rules | None, answers: trunks.Answers = lambda _: ()
) -> Record:
    """Check one value. Raises RecordError; `rules` None checks the form only. `answers`: where host names lead."""
    match kind:
        case Kind.TENANT:
            return tenants.parse(name, raw, rules)
        case Kind.NUMBER:
            return number_rules.parse(name, raw, rules)
        case Kind.TRUNK:
            return trunks.parse(name, raw, rules, answers)


class Routes:
    """All kinds of values that run. Each step returns what is to be written into the live table, in order."""

    def __init__(self, rules: Rules | None, answers: trunks.Answers = lambda _: ()) -> None:
        """Start empty. Without rules only the form of a value is checked."""
        self._entries = Entries()
        self.keepers = {kind: self._keeper(kind, rules, answers) for kind in Kind}

    def _keeper(self, kind: Kind, rules: Rules | None, answers: trunks.Answers) -> Keeper:
        # What the code makes of a value belongs to it: after an upgrade, too, the entries on disk are made anew.
        sample = Row.of(parse(kind, *_SAMPLES[kind], None), "").line
        return Keeper(
            kind, lambda name, raw: parse(kind, name, raw, rules, answers), f"{sample} {rules!r}", self._entries
        )

    @property
    def asked(self) -> frozenset[Name]:
        """The host names that trunks depend on."""
        return frozenset(map(Name.parse, self.keepers[Kind.TRUNK].asked))

    @property
    def withheld(self) -> int:
        """How many values run although Redis has lost them."""
        return sum(len(keeper.withheld) for keeper in self.keepers.values())

    def snapshot(self, kind: Kind) -> Snapshot:
        """The rows of a kind as they run."""
        return self.keepers[kind].snapshot()

    def resume(self, kind: Kind, snapshot: Snapshot) -> list[Change]:
        """Take over the last good table of a kind."""
        self.keepers[kind].resume(snapshot)
        return self._entries.changes()

    def expect(self, names: Mapping[Kind, Collection[str]], accepted: bool = False) -> None:
        """Begin to take over all of Redis: hear what is there. Then it comes by `find`, then `complete` ends it."""
        is_empty = not any(names.values())
        for kind, keeper in self.keepers.items():
            keeper.expect(names.get(kind, ()), accepted, is_empty)

    def find(self, kind: Kind, values: Mapping[str, Value]) -> list[Change]:
        """Take over values that are there. Nothing goes before the load is complete: it may only have moved."""
        self.keepers[kind].edit(values)
        return self._entries.changes(hold=True)

    def complete(self) -> list[Change]:
        """End taking over all of Redis: what vanished is removed."""
        for keeper in self.keepers.values():
            keeper.complete()
        return self._entries.changes(let_go=True)

    def load(self, values: Mapping[Kind, Mapping[str, Value]], accepted: bool = False) -> list[Change]:
        """Take over all of Redis at once."""
        self.expect(values, accepted)
        # By name: two that claim the same for the first time are told apart the same way at every start.
        found = [self.find(kind, {name: values[kind][name] for name in sorted(values[kind])}) for kind in values]
        return [change for changes in (*found, self.complete()) for change in changes]

    def accept(self) -> list[Change]:
        """Remove what was withheld."""
        for keeper in self.keepers.values():
            keeper.accept()
        return self._entries.changes()

    def edit(self, values: Mapping[Kind, Mapping[str, Value | None]]) -> list[Change]:
        """Take over single values; None means removed. A claim that moves within one call is never missing."""
        for kind, some in values.items():
            self.keepers[kind].edit(some)
        return self._entries.changes()

    def remake(self, names: Iterable[Name]) -> list[Change]:
        """Make the trunks anew that depend on these host names."""
        self.keepers[Kind.TRUNK].remake(map(str, names))
        return self._entries.changes()
