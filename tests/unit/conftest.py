"""What unit tests need, and what every one of them leaves as it found it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer
from shell import Shell


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


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell with the configuration of a node whose Redis is `server`."""
    config = tmp_path / "sipward.toml"
    config.write_text(
        f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\n'
        '[network]\naddress = "203.0.113.5"\nservice_address = "10.5.4.1"\nservice_networks = "10.5.4.0/24"\n'
        f'[redis]\nurl = "unix://{tmp_path}/redis.sock"\n'
    )
    return Shell(config)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server.start()
