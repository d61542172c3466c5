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


def test_a_port_for_one_registration_is_outside_over_udp_and_has_one_process(tmp_path: Path) -> None:
    config = tmp_path / "sipward.toml"
    config.write_text(
        f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\n[trunks]\nown_ports = "5100-5101"\n'
        '[network]\naddress = "127.0.0.1"\npublic_address = "203.0.113.5"\n'
        'service_address = "127.0.0.2"\nservice_networks = "10.5.4.0/24"\n'
    )
    node = settings.load(config)
    render.write(node, addresses.resolve(node))
    lines = (render.run_dir(node) / "kamailio.cfg").read_text().splitlines()
    found = [(lines[at - 1], line) for at, line in enumerate(lines) if ":510" in line]
    assert found == [
        ("socket_workers=1", 'listen=udp:127.0.0.1:5100 name "6"'),
        ("socket_workers=1", 'listen=udp:127.0.0.1:5101 name "7"'),
    ]
    assert sum(line.startswith("listen=") for line in lines) == 8
    assert sum(line.startswith("socket_workers") for line in lines) == 2


def test_tls_has_a_port_of_its_own_on_either_side(tmp_path: Path) -> None:
    config = tmp_path / "sipward.toml"
    config.write_text(
        f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\n'
        '[network]\naddress = ["127.0.0.1", "::1"]\npublic_address = "203.0.113.5"\nsips_port = 6061\n'
        'service_address = "127.0.0.2"\nservice_networks = "10.5.4.0/24"\n'
    )
    node = settings.load(config)
    render.write(node, addresses.resolve(node))
    lines = (render.run_dir(node) / "kamailio.cfg").read_text().splitlines()
    assert [line for line in lines if line.startswith("listen=tls")] == [
        'listen=tls:127.0.0.1:6061 name "2"',
        'listen=tls:[::1]:6061 name "5"',
        'listen=tls:127.0.0.2:6061 name "8"',
    ]


def _number(key: str, path: Path) -> int:
    (number,) = re.findall(rf"^{key}(-?\d+)$", path.read_text(), re.MULTILINE)
    return int(number)
