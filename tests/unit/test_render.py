"""The configurations that the components read."""

import re
from pathlib import Path

import pytest

from sipward import addresses, render, settings
from sipward.model import Shares


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


@pytest.mark.parametrize(
    ("rest", "shares"),
    [
        ("", Shares(2500, 500)),
        ('[rtp]\nports = "20000-20999"\ntenant_share = 100\nsource_share = 1', Shares(0, 5)),
        ('[rtp]\nports = "20000-20099"\ntenant_share = 1\nsource_share = 100', Shares(1, 0)),
    ],
)
def test_shares_are_of_the_streams_that_there_are_ports_for(rest: str, shares: Shares, tmp_path: Path) -> None:
    config = tmp_path / "sipward.toml"
    for service, times in (("127.0.0.2", 1), ("127.0.0.1", 2)):
        config.write_text(
            f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\n[network]\naddress = "127.0.0.1"\n'
            f'service_address = "{service}"\nservice_networks = "10.5.4.0/24"\n{rest}'
        )
        node = settings.load(config)
        # Where both sides share an address, a stream takes four of its ports.
        assert render.edge(node, addresses.resolve(node)).shares == Shares(
            *(max(one // times, one > 0) for one in shares)
        )


def test_an_offer_outlives_its_call_but_not_for_long(tmp_path: Path) -> None:
    config = tmp_path / "sipward.toml"
    config.write_text(
        f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\n'
        '[network]\naddress = "127.0.0.1"\nservice_networks = "10.5.4.0/24"\n'
    )
    node = settings.load(config)
    render.write(node, addresses.resolve(node))
    assert _number("offer-timeout = ", render.run_dir(node) / "rtpengine.conf") == 88
    assert 'max_inv_lifetime", 85000' in (render.run_dir(node) / "kamailio.cfg").read_text()


def test_kamailio_knows_all_rtpengines_with_their_weights(tmp_path: Path) -> None:
    config = tmp_path / "sipward.toml"
    config.write_text(
        f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\n'
        '[network]\naddress = "127.0.0.1"\nservice_networks = "10.5.4.0/24"\n'
        '[rtp]\nweight = 0\nothers = ["192.0.2.2:2223=2", "[2001:db8::2]:2223"]\n'
    )
    node = settings.load(config)
    render.write(node, addresses.resolve(node))
    text = (render.run_dir(node) / "kamailio.cfg").read_text()
    assert '"udp:127.0.0.1:2223=0 udp:192.0.2.2:2223=2 udp6:[2001:db8::2]:2223=1"' in text


def test_the_password_of_the_kept_calls_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    config = tmp_path / "sipward.toml"
    head = f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\n[network]\naddress = "127.0.0.1"\n'
    config.write_text(head + 'service_networks = "10.5.4.0/24"\n')
    node = settings.load(config)
    run = render.run_dir(node)
    said = []
    for _ in range(2):
        render.write(node, addresses.resolve(node))
        said.append(((run / "rtpengine.conf").read_text(), (run / "rtp-store.conf").read_text()))
    password = node.store_password_file.read_text().strip()
    assert said[0] == said[1]
    assert f"redis = {password}@127.0.0.1:2224/0\n" in said[0][0]
    assert f"requirepass {password}\n" in said[0][1]
    for path in (node.store_password_file, run / "rtpengine.conf", run / "rtp-store.conf"):
        assert path.stat().st_mode & 0o077 == 0


def test_without_a_store_rtpengine_is_told_of_none(tmp_path: Path) -> None:
    config = tmp_path / "sipward.toml"
    head = f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}"\n[network]\naddress = "127.0.0.1"\n'
    config.write_text(head + 'service_networks = "10.5.4.0/24"\n[rtp]\nstore = ""\n')
    node = settings.load(config)
    render.write(node, addresses.resolve(node))
    assert "redis" not in (render.run_dir(node) / "rtpengine.conf").read_text()
    assert settings.restore(render.run_dir(node) / "settings.json") == node
