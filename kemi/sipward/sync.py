"""Redis to the live table, in a Kamailio process of its own that may wait for Redis as no worker may.

The state it publishes, one JSON object: `ready`, `redis` ("ok" or "degraded: why"), `tenants`, `domains`, `rejected`
(key -> reason, the first fifty), `rejected_total`, `withheld`, `detail` (what needs the operator; empty: nothing).
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Protocol

from sipward import live, snapshot
from sipward.prober import Prober
from sipward.routes import Change, Remove, Routes, Set
from sipward.settings import Settings
from sipward.snapshot import SnapshotError, Writer
from sipward.store import TENANT, Accepted, Changed, Event, Everything, Health, watch
from sipward.tenants import Rules

# Kamailio's RPC answers with a datagram.
_REJECTED_SHOWN = 50
_BACK_OFF = 0.5


class Table(Protocol):
    """Kamailio's shared memory."""

    def set(self, table: str, key: str, value: str) -> None:
        """Write an entry."""

    def remove(self, table: str, key: str) -> None:
        """Remove an entry, if it is there."""


class Sync:
    """The table that runs, its copy on disk and its copy in shared memory."""

    def __init__(self, table: Table, settings: Settings, rules: Rules, prober: Prober | None) -> None:
        """Do nothing yet."""
        self._table = table
        self._prober = prober
        self._settings = settings
        self._routes = Routes(rules)
        self._writer = Writer(settings.routes_file)
        self._owed: dict[str, Change] = {}
        self._published = ""
        self._is_ready = False
        self._is_dirty = False
        self._redis = "not connected yet"
        self._trouble = ""

    def start(self) -> None:
        """Route by the last good table before anything is asked of Redis."""
        try:
            last = snapshot.load(self._settings.routes_file)
        except SnapshotError as error:
            last, self._trouble = None, str(error)
        if last is not None:
            self._put(self._routes.resume(last))
            self._is_ready = True
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
        self._trouble = f"internal error: {error!r}"
        with suppress(Exception):
            self._publish()
        time.sleep(_BACK_OFF)

    def close(self) -> None:
        """Write the table once more, if it has changed."""
        if self._is_dirty:
            self._writer.offer(self._routes.snapshot())
        self._writer.close()

    def _handle(self, event: Event) -> None:
        match event:
            case Everything(values, accepted):
                self._take(self._routes.load(values, accepted))
                self._is_ready, self._redis, self._trouble = True, "", ""
            case Changed(values):
                self._take(self._routes.edit(values))
            case Accepted():
                self._take(self._routes.accept())
            case Health(complaint):
                self._redis = complaint
        self._publish()
        self._keep()

    def _take(self, changes: Iterable[Change]) -> None:
        self._put(changes)
        self._is_dirty = True

    def _put(self, changes: Iterable[Change]) -> None:
        """Write into shared memory. What fails is owed, and tried again with the next event."""
        self._owed |= {change.key: change for change in changes}
        for key in list(self._owed):
            match self._owed[key]:
                case Set(_, entry):
                    self._table.set(live.TABLE, key, entry)
                    self._watch(key, entry)
                case Remove():
                    self._table.remove(live.TABLE, key)
                    self._watch(key)
            del self._owed[key]

    def _watch(self, key: str, entry: str = "") -> None:
        """Tell the prober whose instances are where."""
        if self._prober and key.startswith("@"):
            self._prober.watch(key, (i.endpoint for i in live.decode(entry).instances) if entry else ())

    def _keep(self) -> None:
        """Have the table written to disk, now or with a later event."""
        if (self._is_dirty or self._writer.complaint) and self._writer.is_free:
            self._is_dirty = False
            self._writer.offer(self._routes.snapshot())

    def _publish(self) -> None:
        state = json.dumps(self._state())
        if state != self._published:
            self._table.set(live.STATE, live.STATE_KEY, state)
            self._published = state

    def _state(self) -> dict[str, object]:
        routes = self._routes
        rejected = sorted(routes.rejected.items())
        return {
            "ready": self._is_ready,
            "redis": f"degraded: {self._redis}" if self._redis else "ok",
            "tenants": routes.tenants,
            "domains": routes.domains,
            "rejected": {f"{TENANT}{name}": reason for name, reason in rejected[:_REJECTED_SHOWN]},
            "rejected_total": len(rejected),
            "withheld": len(routes.withheld),
            "detail": "; ".join(filter(None, (self._loss(), self._writer.complaint, self._trouble))),
        }

    def _loss(self) -> str:
        lost = len(self._routes.withheld)
        if not lost:
            return ""
        return (
            f"Redis has lost {lost} of {self._routes.tenants} tenants, which go on as they were: "
            "`sipward route accept` removes them, `sipward route restore` writes them back"
        )


def run(
    table: Table,
    settings: Settings,
    rules: Rules,
    stop: Callable[[], bool] = lambda: False,
    prober: Prober | None = None,
) -> None:
    """Keep the live table in step, and the prober at work, until `stop` says so. Raises nothing."""
    sync = Sync(table, settings, rules, prober)
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
