"""The configurations that the components read."""

import re
from pathlib import Path

import pytest

from sipward import addresses, render, settings


@pytest.mark.parametrize(("level", "kamailio", "rtpengine"), [
    ("error", 1, 3), ("warning", 1, 4), ("info", 1, 5), ("debug", 3, 7)
])  # fmt: skip
def test_kamailio_says_refusals_at_every_log_level(level: str, kamailio: int, rtpengine: int, tmp_path: Path) -> None:
    """They are notices, whose level is 1."""
    config = tmp_path / "sipward.toml"
    config.write_text(
        f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\nlog_level = "{level}"\n'
        '[network]\naddress = "127.0.0.1"\nservice_networks = "10.5.4.0/24"\n'
    )
    node = settings.load(config)
    render.write(node, addresses.resolve(node))
    assert _number("debug=", render.run_dir(node) / "kamailio.cfg") == kamailio
    assert _number("log-level = ", render.run_dir(node) / "rtpengine.conf") == rtpengine


def _number(key: str, path: Path) -> int:
    (number,) = re.findall(rf"^{key}(-?\d+)$", path.read_text(), re.MULTILINE)
    return int(number)
