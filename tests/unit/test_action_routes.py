"""Routes and trunks of the actions, on values that are plain objects."""

from collections.abc import Mapping
from typing import Any

import pytest

from sipward import action_routes as routes
from sipward.action_inputs import AddRoute, AddTrunk, OneRoute, OneTrunk, validated
from sipward.action_routes import Value
from sipward.numbers import Plan
from sipward.records import Kind

ONE = {"uri": "sip:10.5.4.1:5080", "description": "module1"}
TWO = {"uri": "sip:10.5.4.1:5081", "description": ""}


class Values:
    """Redis as a dictionary by kind and name."""

    plan = Plan(country="39")

    def __init__(self, tenants: Mapping[str, Value] | None = None, numbers: Mapping[str, Value] | None = None) -> None:
        # A kind of values is its word in the keys.
        self.found: dict[str, dict[str, Value]] = {"tenant": dict(tenants or {}), "number": dict(numbers or {})}

    def get(self, kind: Kind, name: str) -> Value | None:
        return self.found[kind].get(name)

    def all(self, kind: Kind) -> Mapping[str, Value]:
        return self.found[kind]

    def put(self, kind: Kind, name: str, value: Value) -> None:
        self.found[kind][name] = dict(value)

    def remove(self, kind: Kind, name: str) -> None:
        self.found[kind].pop(name, None)


def add(values: Values, domain: str, *address: Mapping[str, Any]) -> None:
    routes.add_route(values, validated(AddRoute, {"domain": domain, "address": list(address)}))


def get(values: Values, domain: str) -> Value:
    return routes.get_route(values, validated(OneRoute, {"domain": domain}))


def remove(values: Values, domain: str) -> None:
    routes.remove_route(values, validated(OneRoute, {"domain": domain}))


def test_a_route_is_a_tenant_named_after_its_domain() -> None:
    values = Values()
    add(values, "Voice.Example.org", ONE)
    assert values.found["tenant"] == {"voice.example.org": {"domains": ["voice.example.org"], "instances": [ONE]}}
    assert get(values, "voice.example.ORG") == {"address": [ONE]}


def test_a_route_that_is_there_gets_exactly_these_addresses() -> None:
    values = Values()
    add(values, "a.example", ONE)
    add(values, "a.example", ONE, TWO)
    assert get(values, "a.example") == {"address": [ONE, TWO]}
    add(values, "a.example", TWO)
    assert get(values, "a.example") == {"address": [TWO]}
    assert len(values.found["tenant"]) == 1


def test_what_an_operator_has_added_to_a_route_stays() -> None:
    by_hand = {"domains": ["a.example"], "instances": [{**ONE, "weight": 3, "drain": True}, TWO], "policy": "balance"}
    values = Values({"a.example": by_hand})
    add(values, "a.example", {**ONE, "description": "new"})
    assert values.found["tenant"]["a.example"] == {
        "domains": ["a.example"],
        "instances": [{**ONE, "description": "new", "weight": 3, "drain": True}],
        "policy": "balance",
    }


def test_a_domain_that_a_tenant_made_by_hand_has_among_others_stays_its_own() -> None:
    acme = {"domains": ["acme.example", "Voice.Acme.Example"], "instances": [ONE], "redirect": "refuse"}
    values = Values({"acme": acme})
    add(values, "voice.acme.example", TWO)
    assert values.found["tenant"] == {"acme": {**acme, "instances": [TWO]}}
    assert get(values, "acme.example") == {"address": [TWO]}
    remove(values, "voice.acme.example")
    assert values.found["tenant"]["acme"]["domains"] == ["acme.example"]
    remove(values, "acme.example")
    assert values.found["tenant"] == {}


def test_a_name_that_another_tenant_has_is_not_taken() -> None:
    values = Values({"a.example": {"domains": ["other.example"], "instances": [ONE]}})
    add(values, "a.example", TWO)
    add(values, "a.example", TWO, ONE)
    assert values.found["tenant"]["a.example"] == {"domains": ["other.example"], "instances": [ONE]}
    assert len(values.found["tenant"]) == 2
    assert get(values, "a.example") == {"address": [TWO, ONE]}


@pytest.mark.parametrize("domain", ["[2001:db8::1]", f"{'a' * 60}.example", "[2001:db8::2]"])
def test_a_domain_that_is_no_tenants_name_gets_one_that_is_always_the_same(domain: str) -> None:
    name = routes.tenant_name(domain)
    assert name == routes.tenant_name(domain)
    assert len(name) <= 64
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert name[0] not in ".-"
    assert len({routes.tenant_name(one) for one in (domain, f"{domain}x", "[2001:db8::3]")}) == 3


def test_an_unknown_route_is_empty_and_its_removal_nothing() -> None:
    values = Values({"acme": {"domains": ["acme.example"], "instances": [ONE]}})
    assert get(values, "a.example") == {}
    remove(values, "a.example")
    assert len(values.found["tenant"]) == 1


def test_routes_are_listed_a_domain_at_a_time() -> None:
    values = Values({"acme": {"domains": ["b.example", "a.example"], "instances": [{"uri": "sip:10.5.4.2"}]}})
    add(values, "c.example", ONE, TWO)
    addresses = [{"uri": "sip:10.5.4.2", "description": ""}]
    assert routes.list_routes(values) == [
        {"domain": "a.example", "address": addresses},
        {"domain": "b.example", "address": addresses},
        {"domain": "c.example", "address": [ONE, TWO]},
    ]
    assert routes.list_routes(Values()) == []


# --- trunks -----------------------------------------------------------------------------------------------------------


def add_trunk(values: Values, rule: str, destination: Mapping[str, str] = ONE) -> None:
    routes.add_trunk(values, validated(AddTrunk, {"rule": rule, "destination": destination}))


def get_trunk(values: Values, rule: str) -> Value:
    return routes.get_trunk(values, validated(OneTrunk, {"rule": rule}))


def test_a_trunk_is_a_number_with_an_instance_of_its_own() -> None:
    values = Values()
    add_trunk(values, "05551594XX")
    assert values.found["number"] == {"05551594XX": {"instances": [ONE]}}
    assert get_trunk(values, "05551594XX") == {"destination": ONE}
    other = {"uri": "sip:10.5.4.9", "description": "module3"}
    add_trunk(values, "05551594XX", other)
    assert get_trunk(values, "05551594XX") == {"destination": other}
    assert routes.list_trunks(values) == [{"rule": "05551594XX", "destination": other}]


def test_the_spellings_of_a_rule_are_one_trunk() -> None:
    values = Values()
    add_trunk(values, "+390721")
    add_trunk(values, "00390721", {**ONE, "description": "second"})
    assert values.found["number"].keys() == {"+390721"}
    assert get_trunk(values, "0721") == {"destination": {**ONE, "description": "second"}}
    routes.remove_trunk(values, validated(OneTrunk, {"rule": "0721"}))
    assert values.found["number"] == {}


def test_a_number_that_leads_to_a_tenant_shows_its_first_instance_and_is_replaced() -> None:
    acme = {"domains": [], "instances": [TWO, ONE]}
    values = Values({"acme": acme}, {"0721": {"tenant": "acme", "exact": True, "description": "by hand"}})
    assert get_trunk(values, "0721") == {"destination": TWO}
    add_trunk(values, "0721", ONE)
    assert values.found["number"] == {"0721": {"description": "by hand", "instances": [ONE]}}
    assert values.found["tenant"] == {"acme": acme}


def test_numbers_of_one_carrier_alone_are_no_trunks_here() -> None:
    values = Values(numbers={"0721@carrier": {"instances": [ONE]}, "0722": {"tenant": "nobody"}})
    assert routes.list_trunks(values) == []
    assert get_trunk(values, "0721") == {}
    routes.remove_trunk(values, validated(OneTrunk, {"rule": "0721"}))
    assert values.found["number"].keys() == {"0721@carrier", "0722"}
