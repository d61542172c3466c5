"""A trunk's value: what a hand may write, and what each mistake is told."""

import json
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from sipward import live
from sipward.model import Endpoint, Limits, Srtp, Trunk
from sipward.records import RecordError
from sipward.resolver import Name
from sipward.rules import Rules
from sipward.trunks import TrunkRecord, parse

RULES = Rules(
    (ip_network("10.5.4.0/24"), ip_network("192.168.0.0/16")),
    (ip_address("203.0.113.10"), ip_address("10.5.4.1"), ip_address("2001:db8:1::10")),
    (),
    (ip_network("192.168.1.0/24"),),
    "edge.example.net",
)


def value(*addresses: str, **fields: Any) -> str:
    return json.dumps({"addresses": addresses or ["198.51.100.5"], "tenants": ["acme"], **fields})


def answering(answers: Mapping[str, list[str]], raw: str, rules: Rules | None = RULES) -> TrunkRecord:
    """A trunk whose names lead where `answers` says: `udp:host[:port]` to endpoints."""
    ends = {Name.parse(name): tuple(map(Endpoint.parse, texts)) for name, texts in answers.items()}
    return parse("carrier", raw, rules, lambda name: ends.get(name, ()))


def targets(record: TrunkRecord) -> list[str]:
    return [str(end) for end in record.to_trunk().targets]


def test_a_full_value_becomes_a_trunk() -> None:
    record = parse(
        "carrier",
        value(
            "198.51.100.5",
            transport="tcp",
            tenants=["acme", "globex"],
            number="p-called-party-id",
            media="learned",
            identity="pass",
            limits={"calls": 30, "calls_per_second": 5, "registrations_per_second": 1},
            description="Büro",
        ),
        RULES,
    )
    trunk = Trunk(
        "carrier",
        ("acme", "globex"),
        (Endpoint("tcp", "198.51.100.5", 5060),),
        "p-called-party-id",
        "learned",
        "pass",
        Limits(30, 5, 1),
    )
    assert live.decode_trunk(record.entries["%carrier"]) == record.to_trunk() == trunk
    assert (record.claims, record.rivals, record.member) == ((), (), "carrier")


def test_what_is_left_out_has_the_documented_default() -> None:
    trunk = parse("carrier", value(), RULES).to_trunk()
    assert trunk == Trunk("carrier", ("acme",), (Endpoint("udp", "198.51.100.5", 5060),))


@pytest.mark.parametrize("srtp", Srtp)
def test_what_a_carrier_is_offered_comes_through_the_live_table(srtp: Srtp) -> None:
    assert live.decode_trunk(parse("carrier", value(srtp=srtp), RULES).entries["%carrier"]).srtp is srtp


def test_a_trunk_asks_for_own_ports_over_udp_alone() -> None:
    assert live.decode_trunk(parse("carrier", value(own_port=True), RULES).entries["%carrier"]).own_port
    with pytest.raises(RecordError, match='own_port = true: must be false with transport "tcp"'):
        parse("carrier", value(own_port=True, transport="tcp"), RULES)


def test_a_trunk_may_have_nothing_yet() -> None:
    record = parse("carrier", json.dumps({"addresses": [], "tenants": []}), RULES)
    assert (record.to_trunk(), record.shares) == (Trunk("carrier", (), ()), ())


def test_addresses_are_targets_in_their_order_and_networks_are_sources_only() -> None:
    record = parse(
        "carrier",
        value("198.51.100.0/24", "203.0.113.5:5070", "2001:DB8:0::5", "[2001:db8::6]:5071", "192.0.2.1/32"),
        RULES,
    )
    assert targets(record) == [
        "udp:203.0.113.5:5070", "udp:[2001:db8::5]:5060", "udp:[2001:db8::6]:5071", "udp:192.0.2.1:5060",
    ]  # fmt: skip
    assert record.shares == (
        "%udp:198.51.100.0/24",
        "%udp:203.0.113.5/32",
        "%udp:2001:db8::5/128",
        "%udp:2001:db8::6/128",
        "%udp:192.0.2.1/32",
        ">203.0.113.5",
        ">[2001:db8::5]",
        ">[2001:db8::6]",
        ">192.0.2.1",
    )


def test_of_very_many_targets_the_first_hundred_are_called_and_all_are_sources() -> None:
    names = {f"udp:c{n}.example": [f"udp:198.51.{n}.{m}:5060" for m in range(1, 33)] for n in range(100)}
    record = answering(names, value(*(f"c{n}.example" for n in range(100))))
    assert targets(record) == [one for texts in names.values() for one in texts][:100]
    assert sum(share.startswith("%") for share in record.shares) == 3200


def test_names_are_targets_and_sources_where_they_lead() -> None:
    answers = {
        "tcp:sip.carrier.example": ["tcp:198.51.100.7:5062", "tcp:198.51.100.8:5060"],
        "tcp:other.example:5070": ["tcp:198.51.100.8:5060", "tcp:198.51.100.9:5070"],
    }
    raw = value("192.0.2.1", "SIP.Carrier.example.", "other.example:5070", transport="tcp", hosts=["More.example"])
    record = answering(answers, raw)
    assert record.asks == ("tcp:sip.carrier.example", "tcp:other.example:5070")
    assert targets(record) == [
        "tcp:192.0.2.1:5060", "tcp:198.51.100.7:5062", "tcp:198.51.100.8:5060", "tcp:198.51.100.9:5070",
    ]  # fmt: skip
    assert record.shares == (
        "%tcp:192.0.2.1/32",
        "%tcp:198.51.100.7/32",
        "%tcp:198.51.100.8/32",
        "%tcp:198.51.100.9/32",
        ">192.0.2.1",
        ">sip.carrier.example",
        ">other.example",
        ">more.example",
    )


def test_a_name_that_nobody_knows_yet_leads_nowhere() -> None:
    record = answering({}, value("sip.carrier.example"))
    assert (targets(record), record.shares) == ([], (">sip.carrier.example",))


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.10", "10.5.4.9", "192.168.2.5", "::1"])
def test_a_name_that_leads_inside_or_to_the_node_is_no_target(address: str) -> None:
    end = Endpoint("udp", address, 5060)
    record = answering({"udp:sip.carrier.example": [str(end), "udp:198.51.100.7:5060"]}, value("sip.carrier.example"))
    assert targets(record) == ["udp:198.51.100.7:5060"]
    assert f"%udp:{address}/32" not in record.shares


def test_a_carrier_may_be_among_the_phones_of_the_site() -> None:
    assert targets(parse("carrier", value("192.168.1.5"), RULES)) == ["udp:192.168.1.5:5060"]


@pytest.mark.parametrize("name", ["", "A", "a/b", "a:b", "a@b", ".a", "%a", "a" * 65])
def test_a_name_may_not_be(name: str) -> None:
    with pytest.raises(RecordError, match="name = "):
        parse(name, value(), RULES)


FORM = "must be an address, a network, or a host name"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("", FORM),
        ("a b", FORM),
        ("a_b.example", FORM),
        ("sip:198.51.100.5", FORM),
        ("198.51.100", FORM),
        ("198.51.100.5:", FORM),
        ("198.51.100.5:0", FORM),
        ("198.51.100.5:65536", FORM),
        ("198.51.100.5/33", FORM),
        ("198.51.100.0/24:5060", FORM),
        ("198.51.100.5/24", "such as 198.51.100.0/24"),
        ("sip.carrier.example:0", FORM),
        ("sip.carrier.example:65536", FORM),
        ("sip.carrier.example:x", FORM),
        ("[2001:db8::5", FORM),
        ("fe80::1%eth0", FORM),
        ("::ffff:198.51.100.5", "is an IPv4 address in disguise: write 198.51.100.5"),
        ("carrier.example\n", FORM),
        ("127.0.0.1", "must not reach into loopback"),
        ("::/0", "must not reach into loopback"),
        ("0.0.0.0", "must be the address of one machine"),
        ("224.0.0.1", "must be the address of one machine"),
        ("203.0.113.10:5070", "must not hold the node's own address 203.0.113.10"),
        ("203.0.113.0/24", "must not hold the node's own address 203.0.113.10"),
        ("10.5.4.9", "must not reach into network.service_networks (10.5.4.0/24)"),
        ("10.0.0.0/8", "must not hold the node's own address 10.5.4.1"),
        ("192.168.2.5", "must not reach into network.service_networks (192.168.0.0/16)"),
        ("192.168.0.0/15", "must not reach into network.service_networks (192.168.0.0/16)"),
        ("Edge.example.net", "is the node's own name"),
    ],
)
def test_an_address_may_not_be(address: str, told: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse("carrier", value(address), RULES)
    text = str(caught.value)
    assert told in text
    assert text.startswith("addresses = ")
    assert len(text.splitlines()) == 1
    assert text.isprintable()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"colour": 1}, "colour: unknown"),
        ({"addresses": "198.51.100.5"}, 'addresses = "198.51.100.5": must be a list'),
        ({"addresses": [1]}, "addresses[0] = 1: should be a valid string"),
        ({"addresses": ["198.51.100.5"] * 2}, '"198.51.100.5" is there twice'),
        ({"addresses": [f"198.51.100.{i}" for i in range(101)]}, "100"),
        ({"tenants": "acme"}, "must be a list"),
        ({"tenants": ["A"]}, '"A" must be a tenant\'s name, or * for all tenants'),
        ({"tenants": [""]}, "or * for all tenants"),
        ({"tenants": ["*", "acme"]}, 'must be ["*"] alone, for all tenants, or names'),
        ({"tenants": ["acme", "acme"]}, '"acme" is there twice'),
        ({"transport": "sctp"}, "transport = \"sctp\": should be 'udp', 'tcp' or 'tls'"),
        ({"tls": {"name": "x.example"}}, 'tls: may be given with transport "tls" only'),
        ({"transport": "tls", "own_port": True}, 'own_port = true: must be false with transport "tls"'),
        ({"transport": "tls", "tls": {"name": "a b"}}, "must be a host name or an IP address"),
        ({"transport": "tls", "tls": {"fingerprints": ["ab:cd"]}}, "must be SHA-256: 64 hexadecimal digits"),
        ({"transport": "tls", "tls": {"fingerprints": ["ab" * 32, "AB:" * 31 + "AB"]}}, "is there twice"),
        ({"transport": "tls", "tls": {"profile": "lab"}}, "must be a table of [tls.profiles] in the configuration"),
        ({"transport": "tls", "tls": {"ca": "/x"}}, "tls.ca: unknown, no such field"),
        ({"number": "From"}, 'number = "From"'),
        ({"media": "none"}, 'media = "none"'),
        ({"srtp": "on"}, 'srtp = "on"'),
        ({"identity": "keep"}, 'identity = "keep"'),
        ({"limits": {"calls": -1}}, "limits.calls = -1: must be 0 to 100000"),
        ({"limits": {"calls_per_second": 100001}}, "limits.calls_per_second = 100001: must be 0 to 100000"),
        ({"limits": {"registrations_per_second": "1"}}, 'limits.registrations_per_second = "1"'),
        ({"limits": {"calls": True}}, "limits.calls = true"),
        ({"limits": {"call": 1}}, "limits.call: unknown"),
        ({"limits": []}, "limits: must be a table of fields"),
        ({"hosts": ["a:5060"]}, 'host "a:5060" must be a host name or an IP address, without a port'),
        ({"hosts": ["a.example", "A.example."]}, '"a.example" is there twice'),
        ({"hosts": ["edge.example.net"]}, 'host "edge.example.net" is the node itself'),
        ({"hosts": ["[2001:DB8:1:0::10]"]}, "is the node itself"),
        ({"description": "a\nb"}, "must have no control characters"),
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse("carrier", value(**fields), RULES)
    text = str(caught.value)
    assert told in text
    assert len(text.splitlines()) == 1
    assert text.isprintable()


@pytest.mark.parametrize("field", ["addresses", "tenants"])
def test_addresses_and_tenants_must_be_given(field: str) -> None:
    raw = json.dumps({key: [] for key in ("addresses", "tenants") if key != field})
    with pytest.raises(RecordError, match=f"{field}: missing"):
        parse("carrier", raw, RULES)


def test_what_is_written_back_is_the_same_trunk() -> None:
    record = parse(
        "carrier", value("198.51.100.0/24", "a.example:5070", limits={"calls": 3}, description="Büro"), RULES
    )
    assert parse("carrier", record.to_json(), RULES) == record


def test_without_rules_only_the_form_is_checked() -> None:
    assert targets(parse("carrier", value("127.0.0.1"), None)) == ["udp:127.0.0.1:5060"]
