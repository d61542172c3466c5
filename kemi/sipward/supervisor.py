"""Keeps processes running: starts them in order, starts again what ends, stops all in reverse; caps their logs.

SIGTERM and SIGINT ask to stop, SIGHUP asks to take a new configuration.
"""

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True, eq=False)
class Component:
    """One process. `ready` is asked until it says yes before the next component starts."""

    name: str
    argv: Sequence[str]
    log: Path
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    waits_for: Callable[[], str] = str
    """What it says it is waiting for, when it does not get ready; empty when it does not say."""
    is_busy: Callable[[], bool] = bool
    """Whether it is getting ready as fast as it can: then it has all the time that takes."""
    reads: str = ""
    """What its configuration files say: it must be started again for another text."""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0


class StartError(Exception):
    """A component ended, or did not get ready in time, while the node was starting."""


class Supervisor:
    """Runs components until a signal asks to stop."""

    READY_WITHIN = 90.0
    """Seconds; only ends a start that hangs: with 100,000 tenants a busy machine takes more than 20."""
    SETTLED_AFTER = 5.0
    """Seconds after which an end is no longer a failed start, and is answered by an immediate new start."""
    PAUSE = 0.5
    """Seconds between two starts of what does not stay up."""
    STOP_WITHIN = 5.0
    """Seconds a component gets to stop by itself."""
    CLEARED_WITHIN = 1.0
    """Seconds its killed processes are waited for; who should reap them may be slow."""
    LOG_CAP = 50_000_000
    """Bytes after which a log is copied to NAME.log.1 and begins again."""
    LOOK_EVERY = 10.0
    """Seconds between two looks at the logs, at most."""

    def __init__(
        self,
        components: Sequence[Component],
        say: Callable[[str], None],
        reload: Callable[["Supervisor"], None] = lambda _: None,
    ) -> None:
        """`say` gets one line for each thing that happens; `reload` is called after a SIGHUP and may `adopt`."""
        self._components = components
        self._say = say
        self._reload = reload
        self._wake, self._poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._has_terminal = os.isatty(0)
        self._stopping = False
        self._reloading = False

    def run(self) -> None:
        """Start all, keep them running, return after SIGTERM or SIGINT. Raises StartError."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        signal.set_wakeup_fd(self._poke, warn_on_full_buffer=False)
        with self.held():
            if not self._stopping:
                self._say("ready")
            while not self._stopping:
                if self._reloading:
                    self._reloading = False
                    self._reload(self)
                self._watch()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Start all in order, and stop them at the end of the block. Raises StartError."""
        try:
            for component in self._components:
                self._start(component)
                self._await(component)
                self._cap(component)
            yield
        finally:
            for component in reversed(self._components):
                self._end(component)

    def adopt(self, wanted: Sequence[Component]) -> tuple[str, ...]:
        """Run these instead; one that reads the same as before runs on. Returns the names of those started.

        Raises StartError, and then has not started those that come after it.
        """
        running = {component.name: component for component in self._components if component.process}
        kept = [one if (one := running.get(new.name)) and one.reads == new.reads else new for new in wanted]
        for component in reversed(self._components):
            if component not in kept:
                self._end(component)
        self._components = kept
        fresh = [component for component in kept if component.process is None]
        for component in fresh:
            self._start(component)
            self._await(component)
        return tuple(component.name for component in fresh)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _hang_up(self, number: int, frame: object) -> None:
        """A terminal that is closed sends the same signal, and is none any more."""
        if self._has_terminal and not os.isatty(0):
            self._stopping = True
        self._reloading = True

    def _start(self, component: Component) -> None:
        with component.log.open("ab") as log:
            component.process = subprocess.Popen(
                # Whatever ends this process ends its components: nobody is left holding the ports.
                ["setpriv", "--pdeathsig", "TERM", "--", *component.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **component.env},
                # A Ctrl-C is ours alone, so that the components stop in order.
                start_new_session=True,
            )
        component.started = time.monotonic()

    def _await(self, component: Component) -> None:
        limit = time.monotonic() + self.READY_WITHIN
        while not self._stopping and not component.ready():
            if component.process is None or component.process.poll() is not None:
                raise StartError(f"{component.name} ended at once; its log {component.log} ends:\n{_tail(component)}")
            if component.is_busy():
                limit = time.monotonic() + self.READY_WITHIN
            if time.monotonic() > limit:
                reason = component.waits_for() or "it does not say why"
                raise StartError(f"{component.name} did not get ready: {reason}; its log is {component.log}")
            self._sleep(0.02)

    def _watch(self) -> None:
        """Wait until a component ends, a signal comes or the logs are due; start again what ended."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        watched = [os.pidfd_open(c.process.pid) for c in self._components if c.process]
        try:
            for descriptor in watched:
                poll.register(descriptor, select.POLLIN)
            self._hear()
            if not (self._stopping or self._reloading):
                poll.poll(self.LOOK_EVERY * 1000)
        finally:
            for descriptor in watched:
                os.close(descriptor)
        for component in self._components:
            self._cap(component)
            if not self._stopping and (component.process is None or component.process.poll() is not None):
                self._restart(component)

    def _restart(self, component: Component) -> None:
        how = f"ended with {component.process.returncode}" if component.process else "does not run"
        self._say(f"{component.name} {how}: starting it again")
        self._clear(component)
        if time.monotonic() - component.started < self.SETTLED_AFTER:
            self._sleep(self.PAUSE)
        if not self._stopping:
            self._start(component)

    def _cap(self, component: Component) -> None:
        """Keep a log small. Components write into the file itself, at its end: a pipe that nobody reads stops them."""
        log = component.log
        try:
            if log.stat().st_size <= self.LOG_CAP:
                return
            try:
                shutil.copyfile(log, f"{log}.1")
            finally:
                # Also when the disk is full, and then all the more.
                os.truncate(log, 0)
        except FileNotFoundError:
            return  # somebody has removed it
        except OSError as error:
            self._say(f"{log} could not be kept as {log.name}.1: {error.strerror}")

    def _sleep(self, seconds: float) -> None:
        select.select([self._wake], [], [], seconds)
        self._hear()

    def _hear(self) -> None:
        """Forget what has woken us. What a signal says is known by then: its byte comes before its handler's call."""
        with suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def _end(self, component: Component) -> None:
        process = component.process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(self.STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self._say(f"{component.name} does not stop: killing it")
        self._clear(component)
        process.wait()

    def _clear(self, component: Component) -> None:
        """Kill what is left of a component: Kamailio's workers outlive a killed main process, and hold its ports."""
        if component.process is None:
            return
        limit = time.monotonic() + self.CLEARED_WITHIN
        with suppress(ProcessLookupError):
            while time.monotonic() < limit:
                # Its session is its process group, and the group's number is not given away while it has a member.
                os.killpg(component.process.pid, signal.SIGKILL)
                time.sleep(0.01)


def _tail(component: Component, lines: int = 8) -> str:
    return "\n".join(component.log.read_text(errors="replace").splitlines()[-lines:])
