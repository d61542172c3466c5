"""What several unit tests need: a redis-server, and a shell whose commands use it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer
from shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
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
