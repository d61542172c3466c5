"""Where the host names of trunks lead, asked of the DNS in threads, so that nothing waits for an answer.

An answer holds as long as the DNS says, 5 seconds to an hour, and is asked for again before anyone misses it; when the
DNS fails, the last good one goes on. The answers are kept on disk, for a start while the DNS is down.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from sipward.model import Endpoint

_SHORTEST, _LONGEST = 5.0, 3600.0
_AFTER_A_FAILURE = 10.0
# One name server that hangs must not hold up the names of others.
_THREADS = 4


class Name(NamedTuple):
    """What is asked for: a folded host name and the transport; `port` 0 leaves port and server to the DNS."""

    transport: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        """`transport:host[:port]`; `parse` reads it."""
        return f"{self.transport}:{self.host}:{self.port}" if self.port else f"{self.transport}:{self.host}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `transport:host[:port]`."""
        transport, host, *port = text.split(":")
        return cls(transport, host, int(port[0]) if port else 0)


class Answer(NamedTuple):
    """Where a name leads, in order, and for how many seconds that holds."""

    ends: tuple[Endpoint, ...]
    seconds: float


class LookUpError(Exception):
    """The DNS has no answer; the text says why."""


type LookUp = Callable[[Name], Answer]
"""May take its time, and raise LookUpError."""


@dataclass(slots=True)
class _Known:
    """What is known of a name. `due`: when it is asked for, None while it is."""

    ends: tuple[Endpoint, ...] = ()
    due: float | None = 0.0
    complaint: str = ""


@dataclass(slots=True)
class _Shared:
    """What the threads share, under one lock."""

    lock: threading.Condition = field(default_factory=threading.Condition)
    names: dict[Name, _Known] = field(default_factory=dict)
    changed: set[Name] = field(default_factory=set)
    is_over: bool = False


class Resolver:
    """The answers by now. Its methods return at once, whatever the DNS does."""

    def __init__(self, look_up: LookUp, file: Path, refusal: Callable[[Endpoint], str] = lambda _: "") -> None:
        """Take over the answers that are on disk; threads begin with the first name, after the fork.

        `refusal`: why a name may not lead somewhere; empty when it may.
        """
        self._look_up = look_up
        self._refusal = refusal
        self._file = file
        self._shared = _Shared()
        self._threads: list[threading.Thread] = []
        self._kept = _load(file)
        self.complaint = ""
        """Why the answers cannot be kept on disk; empty when they can."""

    def want(self, names: Iterable[Name]) -> None:
        """Say which names are in use: new ones are asked for now, others no more."""
        wanted = set(names)
        shared = self._shared
        with shared.lock:
            for name in shared.names.keys() - wanted:
                del shared.names[name]
            for name in wanted - shared.names.keys():
                shared.names[name] = _Known(self._kept.get(name, ()))
            shared.lock.notify_all()
        if wanted and not self._threads:
            self._start()

    def ends(self, name: Name) -> tuple[Endpoint, ...]:
        """Where a name leads by now; empty while nobody knows."""
        with self._shared.lock:
            known = self._shared.names.get(name)
        return known.ends if known else self._kept.get(name, ())

    def news(self) -> set[Name]:
        """The names whose answer has changed since this was asked for the last time; they are then on disk, too."""
        shared = self._shared
        with shared.lock:
            changed, shared.changed = shared.changed, set()
            answers = {name: known.ends for name, known in shared.names.items() if known.ends}
        if changed:
            self._keep(answers)
        return changed

    def complaints(self) -> dict[str, str]:
        """The names that the DNS had no answer for the last time, with the reason."""
        with self._shared.lock:
            return {name.host: known.complaint for name, known in self._shared.names.items() if known.complaint}

    def close(self) -> None:
        """Ask no more. A question that is being asked ends with its thread, later."""
        with self._shared.lock:
            self._shared.is_over = True
            self._shared.lock.notify_all()

    def _start(self) -> None:
        self._threads = [threading.Thread(target=self._work, name="dns", daemon=True) for _ in range(_THREADS)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while name := self._next():
            try:
                answer = self._look_up(name)
            except Exception as error:  # whatever a stranger's answer does to the library
                self._failed(name, str(error) or repr(error))
            else:
                self._settled(name, answer)

    def _next(self) -> Name | None:
        """Wait for a name that is due, and take it; None when it is all over."""
        shared = self._shared
        with shared.lock:
            while not shared.is_over:
                waiting = [(known.due, name) for name, known in shared.names.items() if known.due is not None]
                due, name = min(waiting, default=(None, None))
                if due is None or name is None:
                    shared.lock.wait()
                elif (patience := due - time.monotonic()) > 0:
                    shared.lock.wait(patience)
                else:
                    shared.names[name].due = None
                    return name
        return None

    def _settled(self, name: Name, answer: Answer) -> None:
        # An answer is the word of whoever runs that name: it must not lead a call to ourselves or inside.
        refused = {end: why for end in answer.ends if (why := self._refusal(end))}
        complaint = "; ".join(f"{end.host} {why}" for end, why in refused.items())
        ends = tuple(end for end in answer.ends if end not in refused)
        if not ends:
            self._failed(name, complaint or "leads nowhere")
            return
        with self._shared.lock:
            # Nobody may want it any more.
            if known := self._shared.names.get(name):
                if ends != known.ends:
                    known.ends = ends
                    self._shared.changed.add(name)
                known.complaint = complaint
                known.due = time.monotonic() + min(max(answer.seconds, _SHORTEST), _LONGEST)

    def _failed(self, name: Name, why: str) -> None:
        with self._shared.lock:
            if known := self._shared.names.get(name):
                known.complaint = f"{why}; " + ("the last answer goes on" if known.ends else "there is no older answer")
                known.due = time.monotonic() + _AFTER_A_FAILURE

    def _keep(self, answers: Mapping[Name, tuple[Endpoint, ...]]) -> None:
        self._kept = dict(answers)
        try:
            _save(self._file, answers)
        except OSError as error:
            self.complaint = f"the answers of the DNS cannot be written to {self._file}: {error}"
        else:
            self.complaint = ""


def _load(file: Path) -> dict[Name, tuple[Endpoint, ...]]:
    """Read what `_save` wrote; nothing when there is none or it is broken: the DNS is asked at once anyway."""
    try:
        content = json.loads(file.read_bytes())
        return {Name.parse(name): tuple(map(Endpoint.parse, ends)) for name, ends in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _save(file: Path, answers: Mapping[Name, tuple[Endpoint, ...]]) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as text:
        json.dump({str(name): [str(end) for end in ends] for name, ends in answers.items()}, text, indent=1)
    temporary.replace(file)
