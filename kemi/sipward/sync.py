"""Redis to the live table, in a Kamailio process of its own that may wait for Redis as no worker may.

The state it publishes, one JSON object: `ready`, `redis` ("ok" or "degraded: why"), `loading` (values still to be read:
how many), `tenants`, `domains`, `numbers`, `trunks`, `rejected` (key -> reason, fifty at most), `rejected_total`,
`unresolved` (host name of a trunk -> reason, fifty at most), `withheld` (how many), `detail` (what needs the
operator; empty: nothing); where registrations may have ports to themselves, `own_ports` (how many have one).
"""

import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from heapq import nsmallest
from typing import Protocol

from sipward import live, snapshot, trunks
from sipward.ability_keeper import AbilityKeeper
from sipward.entries import Change, Remove, Set
from sipward.port_keeper import PortKeeper
from sipward.prober import Prober
from sipward.records import Kind
from sipward.resolver import LookUp, Resolver
from sipward.routes import Routes
from sipward.rules import Rules
from sipward.settings import Settings
from sipward.snapshot import Snapshot, SnapshotError, Writer
from sipward.store import Accepted, Changed, Complete, Event, Found, Health, Listed, key, watch

_SHOWN = 50
_ROOM = 25_000
"""Bytes of JSON for those that are shown. Kamailio's RPC answers with a datagram of 128 KiB, and escapes them again."""
_TROUBLE_MAX = 500
_BACK_OFF = 0.5


class Table(Protocol):
    """Kamailio's shared memory."""

    def set(self, table: str, key: str, value: str) -> None:
        """Write an entry."""

    def remove(self, table: str, key: str) -> None:
        """Remove an entry, if it is there."""


class Sync:
    """The table that runs, its copy on disk and its copy in shared memory."""

    def __init__(
        self,
        table: Table,
        settings: Settings,
        rules: Rules,
        look_up: LookUp,
        prober: Prober | None = None,
        ports: PortKeeper | None = None,
        phones: AbilityKeeper | None = None,
    ) -> None:
        """Do nothing yet."""
        self._table = table
        self._ports = ports
        self._keepers = [keeper for keeper in (ports, phones) if keeper]
        self._prober = prober
        self._settings = settings
        self._resolver = Resolver(look_up, settings.answers_file, lambda end: trunks.refusal(end, rules))
        self._routes = Routes(rules, self._resolver.ends)
        self._writers = {kind: Writer(settings.table_file(kind)) for kind in Kind}
        self._owed: list[Change] = []
        self._secured: set[str] = set()
        self._published = ""
        self._rejected: dict[str, str] = {}
        self._is_stale = False
        self._asked = 0
        self._is_ready = False
        self._loading = 0
        self._is_complete = False
        self._redis = "not connected yet"
        self._trouble = ""

    def start(self) -> None:
        """Route by the last good table before anything is asked of Redis."""
        gc.disable()
        for keeper in self._keepers:
            keeper.resume()
        tables = {kind: last for kind in Kind if (last := self._last(kind)) is not None}
        self._loading = sum(len(last.lines) for last in tables.values())
        self._publish()
        for kind, last in tables.items():
            self._take(self._routes.resume(kind, last))
        self._is_ready, self._loading = Kind.TENANT in tables, 0
        self._settle()
        self._publish()

    def follow(self, stop: Callable[[], bool]) -> None:
        """Follow Redis until `stop` says so."""
        with closing(watch(self._settings.redis_url)) as events:
            for event in events:
                self._handle(event)
                if stop():
                    return

    def fail(self, error: Exception) -> None:
        """Say that something nobody thought of has happened; the caller goes on with a fresh load."""
        traceback.print_exception(error, file=sys.stderr)
        self._trouble = f"internal error: {error!r}"[:_TROUBLE_MAX]
        with suppress(Exception):
            self._publish()
        time.sleep(_BACK_OFF)

    def close(self) -> None:
        """Write the table once more, if it has changed."""
        self._resolver.close()
        for keeper in self._keepers:
            keeper.close()
        for kind, writer in self._writers.items():
            if self._is_complete and self._routes.keepers[kind].has_changed:
                writer.offer(self._routes.snapshot(kind))
        for writer in self._writers.values():
            writer.close()

    def _last(self, kind: Kind) -> Snapshot | None:
        try:
            return snapshot.load(self._writers[kind].path)
        except SnapshotError as error:
            self._trouble = str(error)
            return None

    def _handle(self, event: Event) -> None:
        match event:
            case Listed(names, accepted):
                gc.disable()
                self._is_complete = False
                self._loading = sum(map(len, names.values()))
                self._redis = "its values are being read"
                self._routes.expect(names, accepted)
            case Found(kind, values):
                # What was gone again when it was read is told as a change.
                self._loading = max(0, self._loading - len(values))
                self._take(self._routes.find(kind, values))
            case Complete():
                self._take(self._routes.complete())
                self._is_ready, self._is_complete, self._loading = True, True, 0
                self._redis = self._trouble = ""
                self._settle()
            case Changed(values):
                self._take(self._routes.edit(values))
            case Accepted():
                self._take(self._routes.accept())
            case Health(complaint):
                self._redis = complaint
                # A load may have been broken off.
                gc.enable()
        if news := self._resolver.news():
            self._take(self._routes.remake(news))
        for keeper in self._keepers:
            keeper.keep()
        self._publish()
        self._keep()

    def _take(self, changes: Iterable[Change]) -> None:
        asked = self._routes.keepers[Kind.TRUNK].asked.changes
        if asked != self._asked:
            self._asked = asked
            self._resolver.want(self._routes.asked)
        self._is_stale = True
        self._put(changes)

    def _settle(self) -> None:
        """End a load. What it made stays: the collector of garbage need not look at all of it, now or ever."""
        gc.freeze()
        gc.enable()

    def _put(self, changes: Iterable[Change]) -> None:
        """Write into shared memory, in order. What fails is owed, and tried again with the next event."""
        changes = [*self._owed, *changes]
        for done, change in enumerate(changes):
            try:
                self._write(change)
            except Exception:
                self._owed = list({(owed.table, owed.key): owed for owed in changes[done:]}.values())
                raise
        self._owed = []

    def _write(self, change: Change) -> None:
        match change:
            case Set(key, entry, table):
                self._table.set(table, key, entry)
                self._watch(key, entry)
            case Remove(key, table):
                self._table.remove(table, key)
                self._watch(key)

    def _watch(self, key: str, entry: str = "") -> None:
        """Tell the prober whose instances are where."""
        if key.startswith("%") and ":" not in key:
            self._secure(key[1:], bool(entry) and live.decode_trunk(entry).proof is not None)
        if self._prober and key.startswith("@"):
            self._prober.watch(key, (i.endpoint for i in live.decode(entry).instances) if entry else ())

    def _secure(self, trunk: str, is_secure: bool) -> None:
        """Tell who looks after the TLS connections which trunks there are."""
        if (trunk in self._secured) is not is_secure:
            self._secured ^= {trunk}
            self._table.set(live.STATE, live.PEERS_KEY, " ".join(sorted(self._secured)))

    def _keep(self) -> None:
        """Have what has changed written to disk, now or with a later event; not a table that is still being loaded."""
        for kind, writer in self._writers.items():
            keeper = self._routes.keepers[kind]
            is_due = keeper.has_changed or writer.complaint
            if self._is_complete and is_due and writer.is_free(urgent=keeper.has_lost):
                writer.offer(self._routes.snapshot(kind))

    def _publish(self) -> None:
        state = json.dumps(self._state())
        if state != self._published:
            self._table.set(live.STATE, live.STATE_KEY, state)
            self._published = state

    def _state(self) -> dict[str, object]:
        keepers = self._routes.keepers
        if self._is_stale and not self._loading:
            self._rejected, self._is_stale = self._first_rejected(), False
        complaints = [one.complaint for one in (*self._writers.values(), *self._keepers)]
        own_ports = {"own_ports": self._ports.taken} if self._ports else {}
        return {
            "ready": self._is_ready,
            "redis": f"degraded: {self._redis}" if self._redis else "ok",
            "loading": self._loading,
            "tenants": len(keepers[Kind.TENANT]),
            "domains": keepers[Kind.TENANT].claims,
            "numbers": len(keepers[Kind.NUMBER]),
            "trunks": len(keepers[Kind.TRUNK]),
            "rejected": self._rejected,
            "rejected_total": sum(len(keeper.rejected) for keeper in keepers.values()),
            "unresolved": _shown(self._resolver.complaints()),
            "withheld": self._routes.withheld,
            "detail": "; ".join(filter(None, (self._loss(), *complaints, self._resolver.complaint, self._trouble))),
            **own_ports,
        }

    def _first_rejected(self) -> dict[str, str]:
        found = {
            key(kind, name): keeper.rejected[name]
            for kind, keeper in self._routes.keepers.items()
            for name in nsmallest(_SHOWN, keeper.rejected)
        }
        return _shown(found)

    def _loss(self) -> str:
        lost = [
            f"{len(keeper.withheld)} of {len(keeper)} {kind}s"
            for kind, keeper in self._routes.keepers.items()
            if keeper.withheld
        ]
        if not lost:
            return ""
        return (
            f"Redis has lost {', '.join(lost)}, which go on as they were: "
            "`sipward route accept` removes them, `sipward route restore` writes them back"
        )


def _shown(reasons: Mapping[str, str]) -> dict[str, str]:
    """The first few, as far as there is room: a key may be as long as anyone likes."""
    found: dict[str, str] = {}
    room = _ROOM
    for name, reason in nsmallest(_SHOWN, reasons.items()):
        size = len(json.dumps([name, reason]))
        if size <= room:
            found[name] = reason
            room -= size
    return found


def run(
    table: Table,
    settings: Settings,
    rules: Rules,
    look_up: LookUp,
    prober: Prober | None = None,
    stop: Callable[[], bool] = lambda: False,
    ports: PortKeeper | None = None,
    phones: AbilityKeeper | None = None,
) -> None:
    """Keep the live table in step, and the prober at work, until `stop` says so. Raises nothing."""
    sync = Sync(table, settings, rules, look_up, prober, ports, phones)
    if prober:
        prober.start()
    _guarded(sync, sync.start)
    while not stop():
        _guarded(sync, lambda: sync.follow(stop))
    if prober:
        prober.stop()
    _guarded(sync, sync.close)


def _guarded(sync: Sync, step: Callable[[], None]) -> None:
    try:
        step()
    except Exception as error:
        sync.fail(error)
