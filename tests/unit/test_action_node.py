"""The configuration in the words of the interface, both ways."""

from pathlib import Path
from typing import Any

import pytest

from sipward import action_node, interfaces, settings
from sipward.action_inputs import ConfigureModule, InputError, validated

TEXT = """\
fqdn = "SIP.Example.org."
state_dir = "{state}"

[network]
address = ["127.0.0.1", "::1"]   # both
service_address = "127.0.0.5"
service_networks = ["127.0.1.0/24", "127.0.2.0/24"]
local_networks = ["192.168.2.0/24"]
"""
LINK = {
    "ifname": "eth0",
    "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 24, "scope": "global"}],
}
NODE: dict[str, Any] = {"fqdn": "sip.example.org", "addresses": {"address": "127.0.0.1"}}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(interfaces, "links", lambda: [LINK])
    path = tmp_path / "sipward.toml"
    path.write_text(TEXT.format(state=tmp_path / "state"))
    return path


def configure(path: Path, **fields: Any) -> None:
    action_node.configure(validated(ConfigureModule, {**NODE, **fields}), path)


def test_what_is_shown_can_be_written_back_and_changes_nothing(path: Path) -> None:
    shown = action_node.get_configuration(path)
    assert shown == {
        "fqdn": "sip.example.org",
        "lets_encrypt": False,
        "addresses": {"address": "127.0.0.1"},
        "service_network": {"address": "127.0.0.5", "netmask": "127.0.1.0/24"},
        "local_networks": [],
    }
    before = path.read_text()
    configure(path, **shown)
    assert path.read_text() == before
    configure(path)
    assert path.read_text() == before


def test_behind_a_router_the_network_that_the_node_is_in_is_shown_with_the_configured_ones(path: Path) -> None:
    configure(path, addresses={"address": "127.0.0.1", "public_address": "203.0.113.10"})
    shown = action_node.get_configuration(path)
    assert shown["addresses"] == {"address": "127.0.0.1", "public_address": "203.0.113.10"}
    assert shown["local_networks"] == ["192.168.2.0/24", "127.0.0.0/24"]
    before = path.read_text()
    configure(path, **shown)
    assert path.read_text() == before
    configure(path)
    assert action_node.get_configuration(path)["addresses"] == {"address": "127.0.0.1"}


def test_each_field_is_written_where_the_node_reads_it(path: Path) -> None:
    configure(
        path,
        fqdn="Other.Example.org",
        addresses={"address": "127.0.0.2"},
        service_network={"address": "127.0.0.6", "netmask": "255.255.255.0"},
        local_networks=["192.168.7.0/24", "2001:db8::/64"],
        lets_encrypt=False,
    )
    found = settings.load(path)
    network = found.network
    assert found.fqdn == "other.example.org"
    assert list(map(str, network.address)) == ["127.0.0.2"]
    assert list(map(str, network.service_address)) == ["127.0.0.6"]
    assert list(map(str, network.service_networks)) == ["127.0.0.0/24"]
    assert list(map(str, network.local_networks)) == ["192.168.7.0/24", "2001:db8::/64"]


def test_an_interface_gives_way_to_an_address_that_is_another(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace('address = ["127.0.0.1", "::1"]   # both', 'interface = "eth0"'))
    configure(path)
    assert 'interface = "eth0"' in path.read_text()
    configure(path, addresses={"address": "127.0.0.2"})
    assert "interface =" not in path.read_text()
    assert list(map(str, settings.load(path).network.address)) == ["127.0.0.2"]


def test_a_node_that_has_no_configuration_yet_gets_one(path: Path) -> None:
    path.unlink()
    configure(path, service_network={"address": "127.0.0.1", "netmask": "127.0.1.0/24"})
    assert list(map(str, settings.load(path).network.service_networks)) == ["127.0.1.0/24"]


def service(address: str, netmask: str) -> dict[str, str]:
    return {"address": address, "netmask": netmask}


BAD: dict[str, tuple[dict[str, Any], int, str, object]] = {
    "a local network": ({"local_networks": ["192.168.1.0/24", "A"]}, 3, "local_networks.1", "A"),
    "host bits in a local network": ({"local_networks": ["192.168.1.1/24"]}, 3, "local_networks.0", "192.168.1.1/24"),
    "a netmask": ({"service_network": service("127.0.0.1", "A")}, 2, "service_network.netmask", "A"),
    "an empty netmask": ({"service_network": service("127.0.0.1", "")}, 2, "service_network.netmask", ""),
    "a netmask with gaps": (
        {"service_network": service("127.0.0.1", "255.0.255.0")}, 2, "service_network.netmask", "255.0.255.0"
    ),
    "a netmask that is a number": ({"service_network": service("127.0.0.1", "24")}, 2, "service_network.netmask", "24"),
    "both": (
        {"local_networks": ["A"], "service_network": service("127.0.0.1", "A")}, 3, "local_networks.0", "A"
    ),
    "a certificate": ({"lets_encrypt": True}, 3, "lets_encrypt", True),
    "an address elsewhere": ({"addresses": {"address": "198.18.0.1"}}, 10, "addresses.address", "198.18.0.1"),
    "a service address elsewhere": (
        {"service_network": service("198.18.0.1", "127.0.1.0/24")}, 10, "service_network.address", "198.18.0.1"
    ),
    "the other family": (
        {"addresses": {"address": "127.0.0.1", "public_address": "2001:db8::1"}},
        10,
        "addresses.public_address",
        "2001:db8::1",
    ),
    "a network of both sides": (
        {"local_networks": ["127.0.1.0/24"]}, 2, "service_network.netmask", None
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_refusal_names_the_field_ends_with_its_code_and_changes_nothing(what: str, path: Path) -> None:
    fields, code, field, value = BAD[what]
    before = path.read_text()
    with pytest.raises(InputError) as caught:
        configure(path, **fields)
    assert caught.value.code == code
    problem = caught.value.problems[0]
    assert (problem.field, problem.value) == (field, value)
    assert problem.parameter in field.split(".")
    assert path.read_text() == before


def test_what_is_wrong_with_the_file_itself_is_no_fields_fault(path: Path) -> None:
    path.write_text(path.read_text() + "\n[sip]\nwrokers = 3\n")
    with pytest.raises(InputError) as caught:
        configure(path, fqdn="other.example.org")
    assert caught.value.code == 1
    assert caught.value.problems[0].field == "(root)"
    assert "sip.wrokers: unknown" in caught.value.problems[0].error
