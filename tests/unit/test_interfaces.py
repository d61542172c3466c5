"""What of this machine's interfaces is told to those who choose an address."""

import pytest

from sipward import interfaces

LINKS = [
    {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
    {
        "ifname": "eth0",
        "addr_info": [
            {"family": "inet", "local": "192.168.1.10", "prefixlen": 24, "scope": "global"},
            {"family": "inet6", "local": "2001:db8::a", "prefixlen": 64, "scope": "global"},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ],
    },
    {"ifname": "eth1", "addr_info": []},
    {"ifname": "wg0", "addr_info": [{"family": "inet", "local": "10.5.4.1", "prefixlen": 32, "scope": "global"}]},
]
LO = {"address": "127.0.0.1", "network": "127.0.0.0/8", "family": "inet"}
V4 = {"address": "192.168.1.10", "network": "192.168.1.0/24", "family": "inet"}
V6 = {"address": "2001:db8::a", "network": "2001:db8::/64", "family": "inet6"}
WG = {"address": "10.5.4.1", "network": "10.5.4.1/32", "family": "inet"}


@pytest.mark.parametrize(
    ("without", "families", "found"),
    [
        ((), (), {"lo": [LO], "eth0": [V4, V6], "wg0": [WG]}),
        (("lo", "wg0"), (), {"eth0": [V4, V6]}),
        ((), ("inet6",), {"lo": [LO], "eth0": [V4], "wg0": [WG]}),
        ((), ("inet",), {"eth0": [V6]}),
        (("eth0",), ("inet",), {}),
    ],
)
def test_each_interface_is_shown_with_the_addresses_that_a_node_may_have(
    monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...], families: tuple[str, ...], found: dict[str, object]
) -> None:
    monkeypatch.setattr(interfaces, "links", lambda: LINKS)
    shown = interfaces.available(without, families)
    assert {one["name"]: one["addresses"] for one in shown} == found


def test_this_machine_has_a_loopback() -> None:
    assert "lo" in {link["ifname"] for link in interfaces.links()}
