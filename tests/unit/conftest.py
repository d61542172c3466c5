"""What every unit test leaves as it found it."""

import os
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def own_process_untouched() -> Iterator[None]:
    """A command that runs in this process takes signals and a umask for its own, which later children would inherit."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)
