"""A number's value: what a hand may write, and what each mistake is told."""

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from sipward import live
from sipward.model import Endpoint, Instance, Tenant
from sipward.number_rules import NumberRecord, parse
from sipward.numbers import Plan
from sipward.records import RecordError
from sipward.rules import Rules

RULES = Rules((ip_network("10.5.4.0/24"),), (ip_address("10.5.4.1"),), (), (), "sip.example.org", Plan("39", "00", ""))
GERMAN = Rules((), (), (), (), "", Plan("49", "00", "0"))


def value(**fields: Any) -> str:
    return json.dumps(fields or {"tenant": "acme"})


def with_instance(**fields: Any) -> str:
    return value(instances=[{"uri": "sip:10.5.4.1:5080", **fields}])


def refusal(name: str, raw: bytes | str) -> str:
    with pytest.raises(RecordError) as caught:
        parse(name, raw, RULES)
    return str(caught.value)


def test_a_number_leads_to_a_tenant() -> None:
    record = parse("0721405XX", value(tenant="acme", description="the town"), RULES)
    assert record.claims == ("#+390721405XX",)
    assert record.entries == {"#+390721405XX": "@acme"}
    assert (record.shares, record.asks) == ((), ())


def test_a_number_of_one_trunk_is_another_number() -> None:
    assert parse("100@carrier", value(), RULES).entries == {"#+39100@carrier": "@acme"}


def test_a_number_may_be_for_the_whole_number_only() -> None:
    assert parse("+39072", value(tenant="acme", exact=True), RULES).entries == {"#+39072": "=@acme"}


def test_a_number_with_instances_has_a_tenant_of_its_own() -> None:
    raw = value(instances=[{"uri": "sip:10.5.4.1:5080"}, {"uri": "sip:10.5.4.7", "weight": 2}], exact=True)
    record = parse("072140@carrier", raw, RULES)
    ends = (Instance(Endpoint("udp", "10.5.4.1", 5080)), Instance(Endpoint("udp", "10.5.4.7", 5060), 2))
    name = "#+39072140@carrier"
    assert {key: text for key, text in record.entries.items() if key.startswith("#")} == {name: f"=@{name}"}
    assert live.decode(record.entries[f"@{name}"]) == Tenant(name, ends, domain="sip.example.org")
    assert (record.member, record.shares) == (name, ("^10.5.4.1:5080", "^10.5.4.7"))


@pytest.mark.parametrize("name", ["+390721405", "00390721405", "0721405"])
def test_all_spellings_of_a_rule_claim_the_same_and_know_each_other(name: str) -> None:
    record = parse(name, value(), RULES)
    assert record.claims == ("#+390721405",)
    assert {name, *record.rivals} == {"+390721405", "00390721405", "0721405"}


def test_a_national_prefix_falls_away_and_comes_back() -> None:
    record = parse("030123@carrier", value(), GERMAN)
    assert record.claims == ("#+4930123@carrier",)
    assert record.rivals == ("+4930123@carrier", "004930123@carrier")


def test_without_a_country_a_number_is_itself() -> None:
    record = parse("100", value(), None)
    assert (record.claims, record.rivals) == (("#100",), ())


@pytest.mark.parametrize("name", ["1", "X", "+X", "+39", "0" * 3, "12X45@a", "9" * 30])
def test_a_rule_may_be(name: str) -> None:
    assert isinstance(parse(name, value(), RULES), NumberRecord)


ALLOWED = "must be 1 to 32 digits or X (any one digit)"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", f'rule = "": {ALLOWED}'),
        ("+", ALLOWED),
        ("x", ALLOWED),
        ("07-21", f'rule = "07-21": {ALLOWED}'),
        ("07 21", ALLOWED),
        ("1+2", ALLOWED),
        ("++1", ALLOWED),
        ("1" * 33, ALLOWED),
        ("٣", ALLOWED),
        ("1\n", ALLOWED),
        ("\udcff", ALLOWED),
        ("00", "also behind the country code"),
        ("9" * 31, "also behind the country code"),
        ("1@", 'trunk = "": must be a trunk\'s name'),
        ("1@A", "must be a trunk's name"),
        ("1@a@b", "must be a trunk's name"),
        ("@a", ALLOWED),
    ],
)
def test_a_rule_may_not_be(name: str, told: str) -> None:
    text = refusal(name, value())
    assert told in text
    assert text.isprintable()


ONE_OF = "exactly one of tenant and instances must be given"


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("{", "value: not JSON"),
        (b"\xff", "value: not UTF-8"),
        ("[]", "value: must be a table of fields"),
        ("{}", f"tenant: {ONE_OF}"),
        ('{"tenant": "a", "tenant": "b"}', 'field "tenant" is there twice'),
        (value(tenant="a", instances=[]), ONE_OF),
        (value(tenant=None), ONE_OF),
        (value(tenant="A"), 'tenant = "A": must be a tenant\'s name'),
        (value(tenant="a b"), "must be a tenant's name"),
        (value(tenant=7), "tenant = 7: should be a valid string"),
        (value(tenant=""), "must be a tenant's name"),
        (value(tenant="#+39"), "must be a tenant's name"),
        (value(tenant="a", exact=1), "exact = 1"),
        (value(tenant="a", exact="true"), 'exact = "true"'),
        (value(tenant="a", colour=1), "colour: unknown"),
        (value(tenant="a", rule="1"), "rule: unknown"),
        (value(tenant="a", description="a\nb"), "must have no control characters"),
        (value(tenant="a", description="x" * 201), "200"),
        (value(instances={}), "instances: must be a list"),
        (with_instance(uri="sip:10.9.9.9"), "instances[0].uri = "),
        (with_instance(weight=0), "instances[0].weight = 0: must be 1 to 1000"),
        (value(instances=[{"uri": "sip:10.5.4.9"}] * 2), "is there twice"),
        (value(instances=[{"uri": f"sip:10.5.4.9:{6000 + i}"} for i in range(101)]), "100"),
    ],
)
def test_a_wrong_value_is_refused(raw: bytes | str, told: str) -> None:
    text = refusal("1", raw)
    assert told in text
    assert len(text.splitlines()) == 1
    assert text.isprintable()


def test_instances_of_both_families_are_refused() -> None:
    raw = value(instances=[{"uri": "sip:10.5.4.9"}, {"uri": "sip:[2001:db8::7]"}])
    with pytest.raises(RecordError, match="must be all IPv4 or all IPv6"):
        parse("1", raw, None)


@pytest.mark.parametrize("raw", [value(tenant="acme", exact=True), with_instance(description="Büro")])
def test_what_is_written_back_is_the_same_number(raw: str) -> None:
    record = parse("0721", raw, RULES)
    assert parse("0721", record.to_json(), RULES) == record
