"""Asks the node that runs to take its configuration again, and hears what came of it.

The request is a SIGHUP, which a service manager may send as well; the answer is `reload.json` beside what the node has
rendered. The node writes its process id into the file that it keeps locked.
"""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sipward import render
from sipward.settings import Settings

WITHIN = 90.0
"""Seconds for all of it: components that do not start with the new configuration are started with the old one again."""
_AGAIN = 2.0
"""Seconds after which the signal is repeated: a node that is just starting does not hear it yet."""


class ReloadError(Exception):
    """The node goes on with what it had, or says nothing."""


class Outcome(NamedTuple):
    """What a node has made of a request."""

    refused: str
    """Why it goes on as before; empty when it took the configuration."""
    restarted: tuple[str, ...]
    """The components that read something else now and were started again."""


def lock_file(settings: Settings) -> Path:
    """The file that a running node keeps locked; it holds its process id."""
    return settings.state_dir / "lock"


def answer(settings: Settings, outcome: Outcome) -> None:
    """Say what came of a request; the node's side."""
    path = _answer_file(settings)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(outcome))
    temporary.replace(path)


def request(settings: Settings) -> Outcome | None:
    """Have the running node take its configuration; None when no node runs. Raises ReloadError.

    One request at a time: the caller sees to it.
    """
    path = _answer_file(settings)
    path.unlink(missing_ok=True)
    limit = time.monotonic() + WITHIN
    again = 0.0
    while not path.exists():
        now = time.monotonic()
        if now > limit:
            raise ReloadError(f"the node has not answered within {WITHIN:.0f} s whether it takes the configuration")
        if now > again:
            again = now + _AGAIN
            if not (pid := running(settings)):
                return None
            os.kill(pid, signal.SIGHUP)
        time.sleep(0.02)
    refused, restarted = json.loads(path.read_text())
    return Outcome(refused, tuple(restarted))


def running(settings: Settings) -> int:
    """The process id of `sipward up` in this `state_dir`; 0 when there is none."""
    lock = lock_file(settings)
    with suppress(OSError, ValueError):
        pid = int(lock.read_text())
        # Process ids are given away again: it is the node only if it has the file open.
        if any(os.path.samefile(handle, lock) for handle in _handles(pid)):
            return pid
    return 0


def _handles(pid: int) -> list[Path]:
    return [handle for handle in Path(f"/proc/{pid}/fd").iterdir() if handle.exists()]


def _answer_file(settings: Settings) -> Path:
    return render.run_dir(settings) / "reload.json"
