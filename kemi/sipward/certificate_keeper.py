"""The process that keeps a node's certificates: watches files, renews in time, gives Kamailio what is new.

It runs beside Kamailio, not in it: OpenSSL and the network must not come near the workers. `sipward cert` changes what
is below `state_dir`, and this process sees that like any other change. What it has found is `run/certificates.json`.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sipward import certificate_names, certificate_report, render, rpc, tls
from sipward.addresses import Addresses
from sipward.certificate_check import installed
from sipward.certificate_names import Acme, Files, OwnCa, Source
from sipward.certificate_report import Entry, Report
from sipward.certificate_sources import fetch, is_due
from sipward.certificate_tries import Tries
from sipward.certificates import Certificate, CertificateError, Certificates
from sipward.settings import Settings

_LOOK_EVERY = 0.5
"""Seconds."""
_AGAIN = timedelta(minutes=1)
"""After that a file that was refused is looked at again: it may be one of tomorrow."""


class _Node(NamedTuple):
    """What the node runs by now."""

    settings: Settings
    addresses: Addresses


class _Order(NamedTuple):
    """What an ACME server is being asked."""

    name: str
    source: Acme
    first_pause: timedelta
    answer: Future[Certificate]


class Keeper:
    """Keeps the certificates of the node that runs by what is rendered in `run`."""

    def __init__(self, run: Path, say: Callable[[str], None]) -> None:
        """Look at nothing yet. `say` gets a line for each thing that happens."""
        self._run = run
        self._say = say
        self._version = render.version(run)
        self._node = _Node(*render.read(run))
        self._certificates = Certificates(self._node.settings.state_dir)
        self._tries = Tries(self._certificates.tries)
        self._orders = ThreadPoolExecutor(1)
        self._order: _Order | None = None
        self._seen: dict[str, tuple[Files, object, datetime]] = {}
        self._problems: dict[str, str] = {}
        self._given = 0.0
        self._refused = ""

    def look(self, now: datetime) -> Report:
        """See what has changed, do what is due, and say how things are."""
        self._read_node()
        self._hear(now)
        try:
            wanted = certificate_names.wanted(*self._node)
        except CertificateError as error:
            return Report(self._entries({}), str(error))
        for name, source in wanted.items():
            self._look_at(name, source, now)
        return Report(self._entries(wanted), self._give(now))

    def _read_node(self) -> None:
        """Follow the node when it takes another configuration."""
        version = render.version(self._run)
        if version != self._version:
            self._node, self._version = _Node(*render.read(self._run)), version

    def _look_at(self, name: str, source: Source, now: datetime) -> None:
        match source:
            case Files():
                self._watch(name, source, now)
            case Acme():
                if not is_due(self._certificates.get(name), source, now):
                    self._tries.forget(name)
                elif self._order is None and self._tries.is_time(name, source.origin, now):
                    self._ask(name, source)
            case OwnCa():
                if is_due(self._certificates.get(name), source, now):
                    self._take(name, source)

    def _watch(self, name: str, source: Files, now: datetime) -> None:
        version = _version(source)
        seen = self._seen.get(name)
        if seen and seen[:2] == (source, version) and not (name in self._problems and now - seen[2] > _AGAIN):
            return
        self._take(name, source)
        # Somebody may be writing: the next look is at what it is then.
        if _version(source) == version:
            self._seen[name] = source, version, now

    def _take(self, name: str, source: Source) -> None:
        try:
            self._taken(name, self._certificates.get(name), fetch(*self._node, name, source))
        except (CertificateError, OSError) as error:
            self._refuse(name, f"refused: {error}")

    def _taken(self, name: str, old: Certificate | None, new: Certificate) -> None:
        self._problems.pop(name, None)
        if new != old:
            self._say(
                f"event=certificate-taken name={name} expires={installed(new.chain).not_after:%Y-%m-%dT%H:%M:%SZ}"
            )

    def _refuse(self, name: str, why: str) -> None:
        if self._problems.get(name) != why:
            self._problems[name] = why
            self._say(f"event=certificate-refused name={name} why={why!r}")

    # --- ACME ---------------------------------------------------------------------------------------------------------

    def _ask(self, name: str, source: Acme) -> None:
        """In a thread: a CA may take minutes, and files are watched meanwhile."""
        pause = timedelta(seconds=self._node.settings.acme.retry_interval)
        self._order = _Order(name, source, pause, self._orders.submit(fetch, *self._node, name, source))

    def _hear(self, now: datetime) -> None:
        """Hear what came of an order."""
        if self._order is None or not self._order.answer.done():
            return
        name, source, pause, answer = self._order
        self._order = None
        try:
            self._taken(name, None, answer.result())
            self._tries.forget(name)
        except (CertificateError, OSError) as error:
            wanted = timedelta(seconds=getattr(error, "retry_after", 0.0))
            self._tries.fail(name, source.origin, str(error), now, pause, wanted)
            self._say(f"event=certificate-refused name={name} why={str(error)!r}")

    # --- Kamailio -----------------------------------------------------------------------------------------------------

    def _give(self, now: datetime) -> str:
        """Give Kamailio what is new, seldom: each time costs it memory. Returns why it does not take it."""
        settings = self._node.settings
        if not tls.is_behind(settings):
            return ""
        since = now.timestamp() - max(self._given, tls.last_given(settings))
        if 0 <= since < settings.certificates.reload_interval:
            return self._refused
        self._given, self._refused = now.timestamp(), ""
        try:
            tls.reload(settings)
            self._say("event=certificates-given")
            self._certificates.tidy(tls.text_given(settings))
        except rpc.UnreachableError:
            pass  # it takes them when it starts
        except ValueError as error:
            self._refused = f"Kamailio goes on with the certificates it had: {error}"
            self._say(f"event=certificates-not-given why={str(error)!r}")
        return self._refused

    # --- What is said -------------------------------------------------------------------------------------------------

    def _entries(self, wanted: dict[str, Source]) -> dict[str, Entry]:
        usable = {one.name: one for one in self._certificates.usable()}
        return {name: self._entry(name, usable.get(name), wanted.get(name)) for name in sorted(usable | wanted)}

    def _entry(self, name: str, there: Certificate | None, source: Source | None) -> Entry:
        problem = self._problem(name, there, source)
        if there is None:
            return Entry("", "", "", problem)
        found = installed(there.chain)
        return Entry(there.origin, found.issuer, found.not_after.isoformat(), problem)

    def _problem(self, name: str, there: Certificate | None, source: Source | None) -> str:
        if source is None:
            return f"has no source any more: `sipward cert rm {name}` removes it"
        if name in self._problems:
            return self._problems[name]
        if failed := self._tries.get(name, source.origin):
            return f"{failed.why}; asked again at {failed.after}"
        if there is None or there.origin != source.origin:
            return f"waits for its certificate from {source.origin}"
        return ""


def _version(source: Files) -> object:
    """What changes when somebody writes the files."""
    try:
        found = source.chain.stat(), source.key.stat()
    except OSError:
        return None
    return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in found]


def main(run: Path) -> None:
    """Keep certificates until SIGTERM."""
    keeper, said = Keeper(run, _say), Report()
    while True:
        try:
            report = keeper.look(datetime.now(UTC))
        except OSError as error:
            report = Report(said.names, f"certificates cannot be kept: {error}")
        if report != said:
            render.write_file(certificate_report.file(run), report.to_json())
            said = report
        time.sleep(_LOOK_EVERY)


def _say(line: str) -> None:
    print(f"time={datetime.now(UTC):%Y-%m-%dT%H:%M:%S}Z {line}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
