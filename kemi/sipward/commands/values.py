"""What the commands do alike with values of every kind: open Redis, add, show, remove, and tell which are used."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NoReturn

import typer

from sipward import addresses, number_rules, snapshot
from sipward.commands.terminal import fail
from sipward.records import Kind, Record, RecordError
from sipward.routes import Routes, parse
from sipward.rules import Rules
from sipward.settings import Settings, SettingsError
from sipward.snapshot import Snapshot, SnapshotError
from sipward.store import Store, StoreError, UnreachableError, Value


@contextmanager
def opened(node: Settings) -> Iterator[Store]:
    """The values in Redis. The node's own one runs only as long as the node does."""
    try:
        with Store(node.redis_url) as store:
            yield store
    except UnreachableError as error:
        raise error if node.redis.url else StoreError(f"{error}: is the node running?") from None


def rules_of(node: Settings) -> Rules:
    """What the node allows; for what is to be written. Raises SettingsError on a machine that is not the node."""
    return Rules.of(node, addresses.resolve(node))


def add(node: Settings, record: Record, replace: bool) -> None:
    """Write a value. Raises RecordError when there is one and it is not to be replaced."""
    with opened(node) as store:
        if not replace and store.get(record.kind, record.name) is not None:
            raise RecordError(f"{record.kind} {record.name} exists: --replace overwrites it")
        store.put(record)


def show(node: Settings, kind: Kind, name: str) -> None:
    """Print a value as it stands in Redis, and why it is not used."""
    with opened(node) as store:
        if (value := store.get(kind, name)) is None:
            _fail_for_want_of(node, store, kind, name)
        found = Usage(node, store, kind).of({name: value})[name]
    if isinstance(value, bytes):
        typer.echo(value.decode(errors="backslashreplace"))
    if isinstance(found, str):
        fail(f"this value is not used: {found}", 1)


def remove(node: Settings, kind: Kind, name: str) -> None:
    """Remove a value and say so."""
    with opened(node) as store:
        if not store.remove(kind, name):
            _fail_for_want_of(node, store, kind, name)
    typer.echo(f"{kind} {name} removed")


def _fail_for_want_of(node: Settings, store: Store, kind: Kind, name: str) -> NoReturn:
    others = number_rules.other_names(name, _rules(node)) if kind is Kind.NUMBER else ()
    same = "".join(f": {other} is the same rule" for other in sorted(store.present(kind, others)))
    fail(f"there is no {kind} {name}{same}", 1)


def checked(kind: Kind, name: str, value: Value, rules: Rules | None) -> Record | str:
    """A value as a record, or why it is bad in itself."""
    if not isinstance(value, bytes):
        return value.reason
    try:
        return parse(kind, name, value, rules)
    except RecordError as error:
        return "; ".join(str(error).splitlines())


def as_json(name: str, record: Record | str) -> dict[str, object]:
    """A value for programs, or why it is not used."""
    if isinstance(record, str):
        return {"name": name, "error": record}
    return {"name": name, **json.loads(record.to_json())}


class Usage:
    """Which values are used: by the running node's own word; without one, as a node would take them at its start."""

    def __init__(self, node: Settings, store: Store, kind: Kind) -> None:
        """Ask nothing yet."""
        self._node = node
        self._store = store
        self._kind = kind
        self.rules = _rules(node)
        self._last: Snapshot | None = None
        self._lines: dict[str, str] | None = None

    def of(self, values: Mapping[str, Value]) -> dict[str, Record | str]:
        """The values that are used as records, and why the others are not, in the same order."""
        found = {name: checked(self._kind, name, value, self.rules) for name, value in values.items()}
        unused = self.unused({name: one for name, one in found.items() if not isinstance(one, str)})
        return {name: one if isinstance(one, str) else unused.get(name, one) for name, one in found.items()}

    def unused(self, good: Mapping[str, Record]) -> Mapping[str, str]:
        """Why values that are good in themselves are not used all the same: most often for what others claim."""
        from sipward.node import rejected  # noqa: PLC0415 - not every command needs the processes

        contested = {} if self._kind is Kind.TENANT else self._contested(good)
        asked = good if self._kind is Kind.TENANT else {name: good[name] for name in contested if name in good}
        if (said := rejected(self._node, self._kind, asked)) is not None:
            return said
        if self._kind is Kind.TENANT:
            contested = self._store.list(Kind.TENANT)
        if not contested:
            return {}
        routes = Routes(self.rules)
        if last := self._last_of(contested):
            routes.resume(self._kind, last)
        routes.load({self._kind: contested})
        return routes.keepers[self._kind].rejected

    def _contested(self, good: Mapping[str, Record]) -> dict[str, Value]:
        """Values whose claim another one has by its name, with those others."""
        rivals = {name: record.rivals or () for name, record in good.items()}
        there = self._store.present(self._kind, {rival for some in rivals.values() for rival in some})
        names = {name for name, some in rivals.items() if not there.isdisjoint(some)} | there
        return self._store.some(self._kind, sorted(names))

    def _last_of(self, names: Mapping[str, Value]) -> Snapshot | None:
        """The last good table: all of it for tenants, of numbers those that matter."""
        with suppress(SnapshotError):
            self._last = self._last or snapshot.load(self._node.table_file(self._kind))
        if self._last is None or self._kind is Kind.TENANT:
            return self._last
        if self._lines is None:
            self._lines = {row.name: line for row, line in zip(self._last.rows, self._last.lines, strict=True)}
        lines = [self._lines[name] for name in names if name in self._lines]
        return Snapshot(self._last.made_under, lines, self._last.withheld)


def _rules(node: Settings) -> Rules | None:
    """The node's rules; None on a machine that is not the node, where only the form can be checked."""
    try:
        return rules_of(node)
    except SettingsError:
        return None
