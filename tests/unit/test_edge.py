"""The node as its workers see it: sides, sockets, names, inner addresses."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from sipward.edge import load
from sipward.model import Endpoint, Side, Socket
from unit.recorder import (
    INNER,
    INNER_TCP,
    KEY,
    LAN_PHONE,
    OWN,
    PBX,
    PHONE,
    PUBLIC,
    PUBLIC6,
    PUBLIC_TCP,
    SOCKETS,
    edge,
)

INNER6 = Socket(Side.SERVICE, Endpoint("udp", "fd77::1", 5060), "fd77::1")
SHARED = Socket(Side.OUTSIDE, Endpoint("udp", "10.5.4.1", 5060), "203.0.113.10")


@pytest.mark.parametrize(
    ("on", "source", "side"),
    [
        (PUBLIC, "198.51.100.7", Side.OUTSIDE),
        (PUBLIC, "192.168.1.20", Side.LOCAL),
        (PUBLIC, "10.5.4.11", None),
        (INNER, "10.5.4.11", Side.SERVICE),
        (INNER, "198.51.100.7", None),
        (INNER, "192.168.1.20", None),
        (PUBLIC6, "2001:db8::99", Side.OUTSIDE),
        (PUBLIC6, "fd00:5:4::11", None),
        (PUBLIC6, "fd00:5:5::11", Side.OUTSIDE),
        (PUBLIC, "10.5.5.11", Side.OUTSIDE),
    ],
)
def test_a_messages_side_needs_its_socket_and_its_source(on: Socket, source: str, side: Side | None) -> None:
    assert edge().side_of(on, Endpoint("udp", source, 5060)) is side


@pytest.mark.parametrize(
    ("source", "side"), [("10.5.4.11", Side.SERVICE), ("198.51.100.7", Side.OUTSIDE), ("192.168.1.1", Side.LOCAL)]
)
def test_on_a_socket_of_both_sides_the_source_decides(source: str, side: Side) -> None:
    node = edge(sockets=(SHARED, INNER))
    assert node.side_of(SHARED, Endpoint("udp", source, 5060)) is side


def test_the_service_network_comes_before_a_local_one_that_holds_it() -> None:
    node = edge(local_networks=["10.0.0.0/8"])
    assert node.network_of("10.5.4.11") is Side.SERVICE
    assert node.network_of("10.5.5.11") is Side.LOCAL


@pytest.mark.parametrize(
    ("service", "local", "sides"),
    [
        (["192.168.1.5/32"], ["192.168.1.0/24"], {"192.168.1.5": "service", "192.168.1.6": "local"}),
        (["192.168.0.0/16"], ["192.168.1.0/24"], {"192.168.1.5": "local", "192.168.2.5": "service"}),
        (["192.168.0.0/16", "192.168.1.5/32"], ["192.168.1.0/24"], {"192.168.1.5": "service", "192.168.1.6": "local"}),
        (["192.168.1.5/32"], [], {"192.168.1.5": "service", "::ffff:192.168.1.5": "service", "192.168.1.6": "outside"}),
        (["192.168.1.0/24"], ["192.168.1.0/24"], {"192.168.1.5": "local"}),
        (["0.0.0.0/0"], [], {"198.51.100.7": "service", "2001:db8::7": "outside"}),
        ([], ["0.0.0.0/0"], {"198.51.100.7": "local"}),
        (["2001:db8::5/128"], ["2001:db8::/64"], {"2001:db8::5": "service", "2001:db8::6": "local"}),
    ],
)
def test_of_overlapping_networks_the_longest_prefix_decides(
    service: list[str], local: list[str], sides: dict[str, str]
) -> None:
    node = edge(service_networks=service, local_networks=local)
    assert {host: node.network_of(host).value for host in sides} == sides


def test_a_pbx_among_the_phones_of_a_site_is_an_instance_and_hidden_and_they_are_not() -> None:
    shared = Socket(Side.OUTSIDE, Endpoint("udp", "192.168.1.10", 5060), "192.168.1.10")
    node = edge(
        sockets=(shared, Socket(Side.SERVICE, shared.local, "192.168.1.10")),
        service_networks=["192.168.1.5/32"],
        local_networks=["192.168.1.0/24"],
    )
    assert node.side_of(shared, Endpoint("udp", "192.168.1.5", 5060)) is Side.SERVICE
    assert node.side_of(shared, Endpoint("udp", "192.168.1.20", 5060)) is Side.LOCAL
    assert node.names_inside("<sip:100@192.168.1.5>")
    assert not node.names_inside("<sip:100@192.168.1.20>, <sip:192.168.1.10>")


@pytest.mark.parametrize(
    ("side", "peer", "socket"),
    [
        (Side.SERVICE, PBX, INNER),
        (Side.SERVICE, Endpoint("tcp", "10.5.4.11", 5080), INNER_TCP),
        (Side.OUTSIDE, PHONE, PUBLIC),
        (Side.LOCAL, LAN_PHONE, PUBLIC),
        (Side.OUTSIDE, Endpoint("tcp", "198.51.100.7", 5), PUBLIC_TCP),
        (Side.OUTSIDE, Endpoint("udp", "2001:db8::7", 5060), PUBLIC6),
        (Side.OUTSIDE, Endpoint("tls", "198.51.100.7", 5061), None),
        (Side.SERVICE, Endpoint("udp", "fd00:5:4::11", 5060), None),
    ],
)
def test_the_socket_follows_from_side_transport_and_family(side: Side, peer: Endpoint, socket: Socket | None) -> None:
    assert edge().socket_for(side, peer) is socket


def test_a_registrations_own_port_is_spoken_from_to_the_outside_alone() -> None:
    own6 = Socket(Side.OUTSIDE, Endpoint("udp", "2001:db8::10", 5100), "2001:db8::10")
    node = edge(sockets=(*SOCKETS, own6))
    peer6 = Endpoint("udp", "2001:db8::99", 5060)
    assert [node.socket_for(side, PHONE, 5100) for side in (Side.OUTSIDE, Side.LOCAL)] == [OWN, OWN]
    assert node.socket_for(Side.OUTSIDE, peer6, 5100) is own6
    assert node.socket_for(Side.SERVICE, PBX, 5100) is INNER
    assert node.socket_for(Side.OUTSIDE, PHONE) is PUBLIC


def test_a_port_that_is_none_any_more_is_the_ordinary_one() -> None:
    assert edge().socket_for(Side.OUTSIDE, PHONE, 5101) is PUBLIC
    assert edge(own_ports=()).socket_for(Side.OUTSIDE, PHONE, 5100) is PUBLIC


def test_the_own_port_that_a_message_came_to_is_known() -> None:
    assert [edge().own_port(index) for index in range(len(SOCKETS))] == [0, 0, 0, 0, 0, 5100]


def test_the_first_of_several_sockets_of_a_kind_is_taken() -> None:
    second = Socket(Side.OUTSIDE, Endpoint("udp", "203.0.113.11", 5060), "203.0.113.11")
    assert edge(sockets=(PUBLIC, second)).socket_for(Side.OUTSIDE, PHONE) is PUBLIC


INSIDE = [
    "10.5.4.11",
    "10.5.4.11:5080",
    "[fd00:5:4::11]",
    "[fd00:5:4::11]:5060",
    "[FD00:5:4:0:0:0:0:11]",
    "<sip:100@10.5.4.11:5080;transport=udp>",
    "<sip:100@[fd00:5:4::11]>",
    '"100 at 10.5.4.11" <sip:100@acme.example>',
    "SIP/2.0/UDP 198.51.100.7;received=10.5.4.11",
    "1.2.3.4, 10.5.4.11",
    "10.5.4.11-b, c@10.5.4.11",
    "http://10.5.4.11/ring.wav",
    "10.5.4.1",
    "<sip:10.5.4.11:5080>",
    "udp:10.5.4.11:5080",
    "é 10.5.4.11 é",
]
NOT_INSIDE = [
    "",
    "198.51.100.7",
    "10.5.5.11",
    "<sip:100@acme.example>",
    "110.5.4.11",
    "10.5.4.1100",
    "10.5.4.256",
    "10.5.4",
    "10.5.4.",
    "[2001:db8::1]",
    "[:]",
    "[fd00:5:4:::11]",
    "[fd00]",
    "0x0a05040b",
    "168100875",
    "999.5.4.11",
]


@pytest.mark.parametrize("text", INSIDE)
def test_an_inner_address_is_found(text: str) -> None:
    assert edge().names_inside(text)


@pytest.mark.parametrize("text", NOT_INSIDE)
def test_what_is_no_inner_address_is_left_alone(text: str) -> None:
    assert not edge().names_inside(text)


@pytest.mark.parametrize(("text", "inside"), [("10.5.4.11", True), ("10.5.4.111", False), ("10.5.4.1", True)])
def test_an_address_is_all_of_its_digits(text: str, inside: bool) -> None:
    assert edge(service_networks=["10.5.4.11/32"]).names_inside(text) is inside


@pytest.mark.parametrize(
    ("network", "marks"),
    [
        ("0.0.0.0/0", [""]),
        ("10.0.0.0/8", ["10."]),
        ("172.16.0.0/12", ["172."]),
        ("10.5.0.0/16", ["10.5."]),
        ("10.5.4.0/23", ["10.5."]),
        ("10.5.4.0/24", ["10.5.4."]),
        ("10.5.4.8/30", ["10.5.4."]),
        ("10.5.4.11/32", ["10.5.4.11"]),
        ("1234:5::/32", ["1234"]),
        ("64:ff9b::/96", ["64"]),
        ("2000::/15", [":"]),
        ("::/0", [":"]),
        ("::ffff:0:0/96", [""]),
    ],
)
def test_a_mark_is_how_the_addresses_of_a_network_begin(network: str, marks: list[str]) -> None:
    assert list(edge(sockets=(PUBLIC,), service_networks=[network]).marks) == marks


def test_the_marks_of_an_ipv6_network_are_in_every_case() -> None:
    assert set(edge(sockets=(PUBLIC,), service_networks=["fd00:5:4::/64"]).marks) == {"fd00", "Fd00", "fD00", "FD00"}


def test_our_own_inner_address_has_its_mark_too() -> None:
    node = edge(sockets=(PUBLIC, INNER, INNER6), service_networks=["10.9.0.0/24"])
    assert set(node.marks) == {"10.9.0.", "10.5.4.1", "fd77", "FD77", "Fd77", "fD77"}
    for text in ("<sip:10.5.4.1:5060>", "<sip:[fd77::1]>", "<sip:[FD77::1]:5060>", "fD77:0:0:0:0:0:0:1"):
        assert node.names_inside(text)
    for text in ("10.5.4.11", "10.5.4.2", "[fd77::2]", "fd77", "fd00::1"):
        assert not node.names_inside(text)


@pytest.mark.parametrize(
    "network", ["10.0.0.0/8", "172.16.0.0/12", "10.5.0.0/16", "10.5.4.0/24", "10.5.4.11/32", "10.5.4.128/25"]
)
def test_no_ipv4_address_inside_is_without_a_mark(network: str) -> None:
    node, inside = edge(sockets=(PUBLIC,), service_networks=[network]), ip_network(network)
    for address in {inside[0], inside[-1], inside[inside.num_addresses // 2]}:
        assert node.names_inside(f"<sip:100@{address}:5080>")


@pytest.mark.parametrize("network", ["fd00:5:4::/64", "fc00::/7", "64:ff9b::/96", "a:b::/32", "0:5::/32"])
def test_no_ipv6_address_inside_is_without_a_mark_however_it_is_written(network: str) -> None:
    node, inside = edge(sockets=(PUBLIC,), service_networks=[network]), ip_network(network)
    for address in {inside[0], inside[-1], inside[inside.num_addresses // 2]}:
        spellings = (str(address), address.exploded)
        for text in (form for spelling in spellings for form in (spelling, spelling.upper(), spelling.title())):
            assert node.names_inside(f"<sip:100@[{text}]:5080>")


@pytest.mark.parametrize("network", ["10.5.4.0/24", "10.5.4.11/32"])
def test_without_its_mark_a_text_costs_no_second_look(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = edge(sockets=(PUBLIC,), service_networks=[network])
    monkeypatch.setattr(node, "is_inside", pytest.fail)
    assert not node.names_inside("<sip:100@198.51.100.7:5060>")


def test_sockets_are_named_by_their_place_and_one_of_two_sides_by_its_first() -> None:
    node = edge()
    assert [node.sockets[node.index_of(socket)] for socket in node.sockets] == list(node.sockets)
    service = Socket(Side.SERVICE, SHARED.local, "10.5.4.1")
    shared = edge(sockets=(PUBLIC, SHARED, service))
    assert shared.index_of(SHARED) == shared.index_of(service) == 1


def test_our_address_of_both_sides_is_no_secret() -> None:
    node = edge(sockets=(SHARED, INNER), service_networks=["10.9.0.0/24"])
    assert not node.is_inside("10.5.4.1")


@pytest.mark.parametrize("host", ["acme.example", "", "10.5.4", "fd00:5:4::11%eth0x/", "[10.5.4.11]"])
def test_a_name_is_never_inside(host: str) -> None:
    assert not edge().is_inside(host)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("edge.example", True),
        ("EDGE.example.", True),
        ("203.0.113.10", True),
        ("10.5.4.1", True),
        ("2001:db8::10", True),
        ("2001:DB8::10", True),
        ("acme.example", False),
        ("10.5.4.11", False),
        ("edge.example.evil", False),
        ("", False),
    ],
)
def test_the_node_knows_its_names_and_addresses(host: str, ours: bool) -> None:
    assert edge().is_self(host) is ours


@pytest.mark.parametrize(
    ("side", "shown"),
    [(Side.OUTSIDE, "198.18.0.1:5060"), (Side.LOCAL, "192.168.1.1:5060"), (Side.SERVICE, "192.168.1.1:5060")],
)
def test_only_the_outside_is_shown_the_public_address(side: Side, shown: str) -> None:
    socket = Socket(Side.OUTSIDE, Endpoint("udp", "192.168.1.1", 5060), "198.18.0.1")
    assert edge().shown_to(side, socket) == shown


def test_an_ipv6_socket_is_shown_in_brackets() -> None:
    assert edge().shown_to(Side.OUTSIDE, PUBLIC6) == "[2001:db8::10]:5060"


def test_a_message_from_our_own_socket_has_looped() -> None:
    assert edge().is_own_socket(INNER.local)
    assert not edge().is_own_socket(Endpoint("udp", "10.5.4.1", 5080))


def test_a_node_reads_back_as_it_was_written(tmp_path: Path) -> None:
    node = edge(keys=[KEY, b"old" * 8])
    (tmp_path / "edge.json").write_text(node.to_json())
    (tmp_path / "keys").write_text(f"{KEY.hex()}\n{(b'old' * 8).hex()}\n")
    read = load(tmp_path / "edge.json", tmp_path / "keys")
    assert (read.sockets, read.keys, read.instance_timeout) == (node.sockets, node.keys, 2000)
    assert read.own_ports == (5100,)
    assert read.to_json() == node.to_json()
    assert read.names_inside("10.5.4.11")


def test_the_keys_are_not_in_the_nodes_description() -> None:
    assert KEY.hex() not in edge().to_json()
    assert KEY.decode() not in edge().to_json()


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("<sip:3@h?Replaces=9%4010.5.4.11%3Bto-tag%3Da>", True),
        ("9%4010.5.4.11", True),
        ("9%4010.5.4.11%3A5060", True),
        ("9%3a10.5.4.11", True),
        ("9%5B10.5.4.11%5D", True),
        ("9%40[fd00:5:4::11]", True),
        ("9%4010.5.4.11.1", False),
        ("9%40110.5.4.11", False),
        ("9%40198.51.100.7", False),
        ("94010.5.4.11", False),
        ("9%4G10.5.4.11", True),
        ("9%4110", False),
    ],
)
def test_an_inner_address_may_stand_behind_an_escape(text: str, inside: bool) -> None:
    assert edge().names_inside(text) is inside


def test_only_the_outside_knows_a_socket_by_what_its_router_calls_it() -> None:
    behind = Socket(Side.OUTSIDE, Endpoint("udp", "192.168.100.10", 5060), "203.0.113.10")
    behind6 = Socket(Side.OUTSIDE, Endpoint("udp", "fd00::1", 5060), "2001:db8::10")
    node = edge(sockets=[behind, behind6, INNER])
    assert [node.translated(side, behind) for side in Side] == ["203.0.113.10", "", ""]
    assert node.translated(Side.OUTSIDE, behind6) == "[2001:db8::10]"
    assert node.translated(Side.OUTSIDE, PUBLIC) == ""
    assert node.phone_sockets == [behind.local, behind6.local]
