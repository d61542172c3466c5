"""Waiting for what must become true: asked again and again, never slept for, and red when it takes too long."""

import time
from collections.abc import Callable

PATIENCE = 20.0
"""Seconds after which what should have come is given up. No test takes them but one that fails: they end a hang."""


def eventually[T](condition: Callable[[], T | None], within: float = PATIENCE, what: str = "") -> T:
    """The first true value of `condition`; AssertionError when there is none within so many seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or 'the condition'}; last seen: {value!r}")
        time.sleep(0.002)
    return value


def seconds_until(condition: Callable[[], object], within: float = PATIENCE, what: str = "") -> float:
    """How long it takes until `condition` is true."""
    start = time.monotonic()
    eventually(condition, within, what)
    return time.monotonic() - start
