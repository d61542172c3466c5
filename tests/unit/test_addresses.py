"""The node's own addresses: what `ip` says, and what becomes of it."""

import json
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from sipward import addresses, settings
from sipward.addresses import Addresses
from sipward.settings import SettingsError

LINKS = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
    {
        "ifname": "eth0",
        "addr_info": [
            {"local": "192.168.1.10", "prefixlen": 24, "scope": "global"},
            {"local": "192.168.1.11", "prefixlen": 24, "scope": "global"},
            {"local": "2001:db8::99", "prefixlen": 64, "scope": "global", "temporary": True},
            {"local": "2001:db8::10", "prefixlen": 64, "scope": "global"},
            {"local": "fe80::10", "prefixlen": 64, "scope": "link"},
        ],
    },
    {"ifname": "svc", "addr_info": [{"local": "10.5.4.1", "prefixlen": 24, "scope": "global"}]},
    {"ifname": "bare", "addr_info": []},
    {"ifname": "rented", "addr_info": [{"local": "198.51.100.9", "prefixlen": 32, "scope": "global"}]},
    {},
]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command == ["ip", "-json", "addr"]
        return subprocess.CompletedProcess(command, 0, json.dumps(LINKS), "")

    monkeypatch.setattr(subprocess, "run", answer)


def resolve(tmp_path: Path, network: str) -> Addresses:
    file = tmp_path / "sipward.toml"
    file.write_text(f'fqdn = "sip.example.org"\n[network]\n{network}\n')
    return addresses.resolve(settings.load(file))


def ips(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_address, texts))


def test_an_interface_gives_its_first_lasting_global_address_of_each_family(tmp_path: Path) -> None:
    found = resolve(tmp_path, 'interface = "eth0"')
    assert found.outside == found.public == found.service == ips("192.168.1.10", "2001:db8::10")


def test_a_public_address_stands_for_the_address_of_its_family_only(tmp_path: Path) -> None:
    found = resolve(tmp_path, 'interface = "eth0"\npublic_address = "203.0.113.10"\nservice_address = "10.5.4.1"')
    assert found.public == ips("203.0.113.10", "2001:db8::10")
    assert found.service == ips("10.5.4.1")
    assert found.own == set(ips("192.168.1.10", "2001:db8::10", "203.0.113.10", "10.5.4.1"))


def test_a_given_address_is_taken_without_an_interface(tmp_path: Path) -> None:
    found = resolve(tmp_path, 'address = "203.0.113.5"')
    assert found.outside == found.public == found.service == ips("203.0.113.5")


def test_attached_networks_are_each_named_once(tmp_path: Path) -> None:
    found = resolve(tmp_path, 'interface = "eth0"')
    networks = ("192.168.1.0/24", "2001:db8::/64", "10.5.4.0/24", "198.51.100.9/32")
    assert found.attached == tuple(map(ip_network, networks))


ETH0 = 'address = "192.168.1.10"\n'
SVC = 'interface = "svc"\n'


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (f'{ETH0}service_networks = "192.168.1.0/24"', r'such as "192\.168\.1\.5/32", or give the node'),
        (f'{ETH0}service_networks = "192.168.0.0/16"', r"192\.168\.0\.0/16 holds 192\.168\.1\.0/24"),
        (f'{ETH0}service_networks = "0.0.0.0/0"\nlocal_networks = "192.168.0.0/16"', None),
        (f'{ETH0}service_networks = "192.168.0.0/16"\nlocal_networks = "0.0.0.0/0"', "every phone there"),
        (f'{ETH0}service_networks = "192.168.0.0/16"\nlocal_networks = "192.168.1.0/24"', None),
        (f'{ETH0}service_networks = "192.168.1.5/32"\nlocal_networks = "192.168.1.0/24"', None),
        (f'{ETH0}service_networks = ["192.168.1.5/32", "192.168.1.0/25"]', None),
        (f'{ETH0}public_address = "203.0.113.10"\nservice_networks = "192.168.1.0/24"', "every phone there"),
        (f'{ETH0}public_address = "203.0.113.10"\nservice_networks = "192.168.1.5/32"', None),
        (f'{ETH0}service_address = "192.168.1.11"\nservice_networks = "192.168.1.0/24"', None),
        (f'{ETH0}service_networks = "10.5.4.0/24"', None),
        (f'{ETH0}service_address = "10.5.4.1"\nservice_networks = "10.5.4.0/24"', None),
        (f'{SVC}service_networks = "10.0.0.0/8"', r"10\.0\.0\.0/8 holds 10\.5\.4\.0/24"),
        ('address = "2001:db8::10"\nservice_networks = "2001:db8::/64"', r'such as "2001:db8::5/128"'),
        ('address = "2001:db8::10"\nservice_networks = "0.0.0.0/0"', None),
        ('address = "198.51.100.9"\nservice_networks = "198.51.100.9"', None),
    ],
)
def test_phones_beside_the_node_are_not_taken_for_instances_on_its_one_address(
    tmp_path: Path, network: str, told: str | None
) -> None:
    if told is None:
        assert resolve(tmp_path, network)
        return
    with pytest.raises(SettingsError, match=told) as caught:
        resolve(tmp_path, network)
    assert str(caught.value).startswith("network.service_networks: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("network", "local"),
    [
        ("", []),
        ('public_address = "203.0.113.10"', ["192.168.1.0/24"]),
        ('public_address = "203.0.113.10"\nservice_networks = "192.168.1.5/32"', ["192.168.1.0/24"]),
        ('public_address = "203.0.113.10"\nlocal_networks = "10.1.0.0/16"', ["10.1.0.0/16", "192.168.1.0/24"]),
        (
            'public_address = "203.0.113.10"\nservice_address = "192.168.1.11"\nservice_networks = "192.168.1.0/24"',
            [],
        ),
    ],
)
def test_behind_a_router_the_nodes_own_network_is_local_unless_it_is_the_instances(
    tmp_path: Path, network: str, local: list[str]
) -> None:
    file = tmp_path / "sipward.toml"
    file.write_text(f'fqdn = "sip.example.org"\n[network]\n{ETH0}{network}\n')
    found = settings.load(file)
    assert addresses.local_networks(found, addresses.resolve(found)) == [ip_network(text) for text in local]


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ('interface = "eth7"', r'network.interface = "eth7": no such interface; there are bare, eth0, lo, rented, svc'),
        ('interface = "bare"', r'network.interface = "bare": has no global IPv4 or IPv6 address'),
        ('interface = "svc"\npublic_address = "2001:db8::1"', r"network.public_address names IPv6, and svc has no"),
    ],
)
def test_what_the_machine_does_not_have_is_one_clear_line(tmp_path: Path, network: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        resolve(tmp_path, network)


def test_a_machine_without_ip_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("no ip here")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(SettingsError, match="cannot read this machine's addresses"):
        resolve(tmp_path, 'interface = "eth0"')
