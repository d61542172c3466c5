"""The live table's keys and entries."""

import json

import pytest

from sipward.live import (
    Found,
    Live,
    aspect,
    decode,
    decode_trunk,
    domain_key,
    encode,
    encode_trunk,
    number_key,
    tenant_key,
    write_prefixes,
)
from sipward.model import Endpoint, Instance, Limits, Tenant, Trunk
from sipward.numbers import shape, write_shapes

TENANT = Tenant(
    "acme",
    (
        Instance(Endpoint("udp", "10.5.4.1", 5080), weight=3, priority=2, drain=True),
        Instance(Endpoint("tcp", "2001:db8::7", 5060)),
    ),
    "refuse",
    "acme.example.org",
)


@pytest.mark.parametrize("tenant", [TENANT, Tenant("empty", ())])
def test_an_entry_reads_back_as_the_tenant_it_was_made_of(tenant: Tenant) -> None:
    assert decode(encode(tenant)) == tenant


def test_an_entry_is_compact_text_of_one_line() -> None:
    entry = encode(TENANT)
    assert entry.isascii()
    assert entry.isprintable()
    assert " " not in entry
    assert json.loads(entry)[0] == "acme"


def test_another_entry_for_the_same_tenant_is_not_taken_from_the_cache() -> None:
    before = Tenant("acme", (Instance(Endpoint("udp", "10.5.4.1", 5080)),))
    assert decode(encode(TENANT)) != decode(encode(before))


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("acme.example.org", "acme.example.org"),
        ("ACME.Example.ORG", "acme.example.org"),
        ("acme.example.org.", "acme.example.org"),
        ("10.5.4.9", "10.5.4.9"),
        ("[2001:DB8:0:0::9]", "[2001:db8::9]"),
        ("[not an address]", "[not an address]"),
        ("[", "["),
        ("", ""),
    ],
)
def test_all_ways_to_write_a_host_have_one_key(written: str, key: str) -> None:
    assert domain_key(written) == key


def test_a_tenants_own_key_is_no_domains_key() -> None:
    assert tenant_key("acme") != domain_key("acme")


TARGET = Endpoint("udp", "198.51.100.5", 5060)
CARRIER = Trunk("carrier", ("acme",), (TARGET,), "to", "learned", "pass", Limits(9, 2, 1))


def live(**tables: dict[str, str]) -> Live:
    return Live(lambda table, key: tables.get(table, {}).get(key))


def numbered(rules: dict[str, str]) -> Live:
    """A table of rules (perhaps with the trunk behind an `@`) and the tenants they name."""
    tenants = {entry.lstrip("="): encode(Tenant(entry.lstrip("=@"), ())) for entry in rules.values()}
    shapes = write_shapes(shape(rule.partition("@")[0]) for rule in rules)
    return live(routes={number_key(rule): entry for rule, entry in rules.items()} | tenants, state={"shapes": shapes})


def whose(found: Found | None) -> str:
    return found.tenant.name if found and found.tenant else ""


def test_the_most_specific_rule_has_the_number() -> None:
    table = numbered({"+39": "@wide", "+390721": "@town", "+390721405XX": "@block", "+39072140512": "@one"})
    assert [whose(table.number(f"+39{rest}")) for rest in ("072140512", "072140513", "0721999", "06", "")] == [
        "one", "block", "town", "wide", "wide",
    ]  # fmt: skip
    assert table.number("+49301") is None


def test_a_rule_for_the_whole_number_leaves_longer_ones_alone() -> None:
    table = numbered({"+39072": "=@one", "+39": "@wide"})
    assert whose(table.number("+39072")) == "one"
    assert whose(table.number("+390721")) == "wide"


def test_a_rule_of_the_trunk_wins_among_equals_and_only_there() -> None:
    table = numbered({"100": "@all", "100@carrier": "@its", "1@carrier": "@rest"})
    assert whose(table.number("100", "carrier")) == "its"
    assert whose(table.number("100")) == "all"
    assert whose(table.number("101", "carrier")) == "rest"
    assert table.number("101") is None


def test_a_rule_names_its_tenant_even_when_that_is_gone() -> None:
    found = live(routes={"#12": "@gone"}, state={"shapes": "2"}).number("123")
    assert found == Found("12", None)


@pytest.mark.parametrize("own_port", [False, True])
def test_a_trunk_reads_back_as_it_was(own_port: bool) -> None:
    trunk = CARRIER._replace(own_port=own_port)
    assert decode_trunk(encode_trunk(trunk)) == trunk


def test_the_smallest_network_tells_whose_call_it_is() -> None:
    other = CARRIER._replace(name="other")
    table = live(
        routes={
            "%carrier": encode_trunk(CARRIER),
            "%other": encode_trunk(other),
            "%udp:198.51.100.0/24": "carrier",
            "%udp:198.51.100.5/32": "other carrier",
            "%udp:2001:db8::/64": "other",
            "%tcp:192.0.2.0/24": "gone",
        },
        state={"prefixes": "64 32 24"},
    )
    assert table.trunks_from(Endpoint("udp", "198.51.100.9", 5060)) == (CARRIER,)
    assert table.trunks_from(Endpoint("udp", "198.51.100.5", 1)) == (other, CARRIER)
    assert table.trunks_from(Endpoint("udp", "2001:db8::9", 5060)) == (other,)
    assert table.trunks_from(Endpoint("tcp", "198.51.100.5", 5060)) == ()
    assert table.trunks_from(Endpoint("tcp", "192.0.2.1", 5060)) == ()
    assert table.trunks_from(Endpoint("udp", "203.0.113.1", 5060)) == ()


def test_a_trunk_is_found_by_the_host_of_its_uris_and_serves_who_it_says() -> None:
    table = live(routes={">sip.carrier.example": "carrier", "%carrier": encode_trunk(CARRIER)})
    assert table.trunks_to("SIP.Carrier.example.") == (CARRIER,)
    assert table.trunks_to("other.example") == ()
    assert [CARRIER.serves(name) for name in ("acme", "globex")] == [True, False]
    assert CARRIER._replace(tenants=("*",)).serves("globex")


def test_an_address_tells_whose_instances_are_there() -> None:
    table = live(routes={"^10.5.4.11": "acme initech", "^10.5.4.1:5080": "globex"})
    assert table.tenants_at("10.5.4.11") == ("acme", "initech")
    assert table.tenants_at("10.5.4.1", 5080) == ("globex",)
    assert table.tenants_at("10.5.4.1") == ()


def test_what_is_down_has_a_key() -> None:
    table = live(health={"udp:10.5.4.11:5060": "1"})
    assert table.is_down(Endpoint("udp", "10.5.4.11", 5060))
    assert not table.is_down(Endpoint("tcp", "10.5.4.11", 5060))


def test_a_key_says_what_it_adds_to_what_is_known_of_the_whole() -> None:
    assert aspect("#+39XX@carrier") == ("shapes", "+39XX")
    assert aspect("%udp:198.51.100.0/24") == ("prefixes", "24")
    assert [aspect(key) for key in ("acme.example", "@acme", "%carrier", ">host", "^10.5.4.1:5060")] == [None] * 5
    assert write_prefixes([24, 32, 128, 24]) == "128 32 24"
