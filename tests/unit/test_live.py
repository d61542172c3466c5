"""The live table's keys and entries."""

import json

import pytest

from sipward.live import decode, domain_key, encode, tenant_key
from sipward.model import Endpoint, Instance, Tenant

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


def test_a_tenants_own_key_is_no_domains_key_and_survives_folding() -> None:
    assert tenant_key("acme") != domain_key("acme")
    assert domain_key(tenant_key("acme")) == tenant_key("acme")
