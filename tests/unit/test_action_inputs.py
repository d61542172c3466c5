"""What the actions take, and the field that a refusal names."""

import pytest

from sipward import action_inputs as inputs
from sipward.action_inputs import Input, InputError, Problem, validated

ADDRESS = {"uri": "sip:10.5.4.1:5080", "description": "module1"}
NODE = {"fqdn": "sip.example.org", "addresses": {"address": "192.0.2.1"}}

BAD: dict[str, tuple[type[Input], object, str, object]] = {
    "no object": (inputs.AddRoute, [], "(root)", []),
    "domain missing": (inputs.AddRoute, {"address": [ADDRESS]}, "domain", None),
    "addresses of a route missing": (inputs.AddRoute, {"domain": "a.example"}, "address", None),
    "domain empty": (inputs.AddRoute, {"domain": "", "address": [ADDRESS]}, "domain", ""),
    "domain with a port": (
        inputs.AddRoute,
        {"domain": "a.example:5060", "address": [ADDRESS]},
        "domain",
        "a.example:5060",
    ),
    "domain of another type": (inputs.AddRoute, {"domain": 5, "address": [ADDRESS]}, "domain", 5),
    "domain of dots": (inputs.OneRoute, {"domain": "ä..example"}, "domain", "ä..example"),
    "no addresses": (inputs.AddRoute, {"domain": "a.example", "address": []}, "address", []),
    "addresses no list": (inputs.AddRoute, {"domain": "a.example", "address": ADDRESS}, "address", ADDRESS),
    "uri missing": (
        inputs.AddRoute,
        {"domain": "a.example", "address": [ADDRESS, {"description": ""}]},
        "address.1.uri",
        None,
    ),
    "uri empty": (inputs.AddRoute, {"domain": "a.example", "address": [{**ADDRESS, "uri": ""}]}, "address.0.uri", ""),
    "description missing": (
        inputs.AddRoute,
        {"domain": "a.example", "address": [{"uri": "sip:1"}]},
        "address.0.description",
        None,
    ),
    "domain to get": (inputs.OneRoute, {}, "domain", None),
    "rule missing": (inputs.AddTrunk, {"destination": ADDRESS}, "rule", None),
    "rule empty": (inputs.AddTrunk, {"rule": "", "destination": ADDRESS}, "rule", ""),
    "rule with letters": (inputs.AddTrunk, {"rule": "0721x", "destination": ADDRESS}, "rule", "0721x"),
    "destination missing": (inputs.AddTrunk, {"rule": "1"}, "destination", None),
    "destination empty": (inputs.AddTrunk, {"rule": "1", "destination": {}}, "destination.uri", None),
    "a trunk's description empty": (
        inputs.AddTrunk,
        {"rule": "1", "destination": {**ADDRESS, "description": ""}},
        "destination.description",
        "",
    ),
    "fqdn missing": (inputs.ConfigureModule, {"addresses": {"address": "192.0.2.1"}}, "fqdn", None),
    "fqdn empty": (inputs.ConfigureModule, {**NODE, "fqdn": ""}, "fqdn", ""),
    "fqdn no name": (inputs.ConfigureModule, {**NODE, "fqdn": "example@#$"}, "fqdn", "example@#$"),
    "addresses missing": (inputs.ConfigureModule, {"fqdn": "a.example"}, "addresses", None),
    "address missing": (
        inputs.ConfigureModule,
        {**NODE, "addresses": {"public_address": "192.0.2.1"}},
        "addresses.address",
        None,
    ),
    "address no address": (inputs.ConfigureModule, {**NODE, "addresses": {"address": "A"}}, "addresses.address", "A"),
    "public address no address": (
        inputs.ConfigureModule,
        {**NODE, "addresses": {"address": "::1", "public_address": "B"}},
        "addresses.public_address",
        "B",
    ),
    "service address missing": (
        inputs.ConfigureModule,
        {**NODE, "service_network": {"netmask": "10.5.4.0/24"}},
        "service_network.address",
        None,
    ),
    "netmask missing": (
        inputs.ConfigureModule,
        {**NODE, "service_network": {"address": "10.5.4.1"}},
        "service_network.netmask",
        None,
    ),
    "service address no address": (
        inputs.ConfigureModule,
        {**NODE, "service_network": {"address": "A", "netmask": ""}},
        "service_network.address",
        "A",
    ),
    "a certificate no boolean": (inputs.ConfigureModule, {**NODE, "lets_encrypt": "A"}, "lets_encrypt", "A"),
    "local networks no list": (inputs.ConfigureModule, {**NODE, "local_networks": "A"}, "local_networks", "A"),
    "unknown": (inputs.ConfigureModule, {**NODE, "public": 1}, "public", 1),
    "family": (inputs.AvailableInterfaces, {"excluded_families": ["ipx"]}, "excluded_families.0", "ipx"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_refusal_names_the_field_its_value_and_what_is_allowed(what: str) -> None:
    form, value, field, given = BAD[what]
    with pytest.raises(InputError) as caught:
        validated(form, value)
    assert caught.value.code == 10
    problem = next(problem for problem in caught.value.problems if problem.field == field)
    assert problem[:3] == (field, field.split(".")[-1], given)
    assert problem.error
    assert "\n" not in problem.error


def test_every_field_that_is_wrong_is_named() -> None:
    with pytest.raises(InputError) as caught:
        validated(inputs.AddTrunk, {"rule": "", "destination": {"uri": ""}})
    assert [problem.field for problem in caught.value.problems] == [
        "rule",
        "destination.uri",
        "destination.description",
    ]
    assert caught.value.problems[2] == Problem(
        "destination.description", "description", None, "missing, it must be given"
    )


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("Voice.Example.ORG.", "voice.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8::0:1", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
    ],
)
def test_a_domain_is_a_name_or_an_address_in_one_spelling(written: str, folded: str) -> None:
    assert validated(inputs.OneRoute, {"domain": written}).domain == folded


def test_fields_that_a_route_does_not_know_are_nothing_to_it_and_its_description_may_be_empty() -> None:
    route = validated(
        inputs.AddRoute, {"domain": "a.example", "address": [{**ADDRESS, "description": "", "x": 1}], "y": 2}
    )
    assert route.address[0].description == ""


def test_addresses_of_both_families_are_taken() -> None:
    given = {**NODE, "addresses": {"address": "2001:DB8::1", "public_address": "192.0.2.1"}}
    assert validated(inputs.ConfigureModule, given).addresses.model_dump() == {
        "address": "2001:db8::1",
        "public_address": "192.0.2.1",
    }
