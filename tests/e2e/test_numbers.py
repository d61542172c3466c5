"""A dialled number finds its rule, whatever way it is written, and its rule leads to the tenant whose number it is."""

from collections.abc import Callable, Sequence

import pytest

from lab.agent import Agent, answered_call, busy_call, refused_call, registered
from lab.node import FQDN, Node

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left")

type Make = Callable[..., str]
ACME, INITECH, NOBODY = "acme", "initech", "nobody"

SPECIFICITY: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "the number itself before a prefix": (
        {"0721405": ACME, "072140512": INITECH},
        {"072140512": INITECH, "072140513": ACME, "0721405": ACME, "072140": NOBODY},
    ),
    "an X is one digit, and a rule is a prefix": (
        {"0721405XX": ACME},
        {"072140500": ACME, "072140599": ACME, "0721405001": ACME, "07214050": NOBODY},
    ),
    "the longer before the shorter": (
        {"07214": ACME, "0721405": INITECH, "072": INITECH},
        {"0721405": INITECH, "0721499": ACME, "0729": INITECH},
    ),
    "the longer before the one with fewer X": (
        {"07214": ACME, "0721XXXX": INITECH},
        {"07214055": INITECH, "0721405": ACME},
    ),
    "of equal length the one with fewer X": (
        {"07214XX": ACME, "072140X": INITECH, "0721409": ACME},
        {"0721405": INITECH, "0721455": ACME, "0721409": ACME},
    ),
    "the number itself before all": (
        {"07214055": ACME, "0721405X": INITECH, "0721": INITECH},
        {"07214055": ACME, "07214056": INITECH},
    ),
    "numbers of other countries": (
        {"+44": ACME, "0044207": INITECH, "+4420794600XX": ACME},
        {"+442071": INITECH, "00441": ACME, "+442079460012": ACME, "+49221": NOBODY},
    ),
}


@pytest.mark.parametrize(("rules", "dialled"), SPECIFICITY.values(), ids=SPECIFICITY)
def test_the_most_specific_rule_wins(
    rules: dict[str, str], dialled: dict[str, str], number: Make, trunk: Make, carrier: Agent, acme: Tenant,
    initech: Tenant, instance: Agent, other_instance: Agent,
) -> None:  # fmt: skip
    trunk(carrier.host)
    names, agents = {ACME: acme.name, INITECH: initech.name}, {ACME: instance, INITECH: other_instance}
    for rule, owner in rules.items():
        number(rule, tenant=names[owner])
    for called, owner in dialled.items():
        if owner == NOBODY:
            refused_call(carrier, f"sip:{called}@{carrier.node}", 404)
        else:
            busy_call(carrier, agents[owner], f"sip:{called}@{carrier.node}")


SPELLINGS = (
    "+390721405123", "00390721405123", "0721405123", "+39-0721-405.123", "(0721)405-123", "+39%200721%20405%20123",
    "0721.405.123", "%2B390721405123",
)  # fmt: skip


@pytest.mark.parametrize("rule", ["+390721405123", "00390721405123", "0721405123"])
def test_one_number_has_many_spellings(
    rule: str, number: Make, trunk: Make, carrier: Agent, acme: Tenant, instance: Agent
) -> None:
    trunk(carrier.host)
    number(rule, tenant=acme.name)
    for spelling in SPELLINGS:
        invite = busy_call(carrier, instance, f"sip:{spelling}@{carrier.node}")
        assert invite.uri == f"sip:{spelling}@{carrier.node}", "it arrives as it was dialled"
    refused_call(carrier, f"sip:+380721405123@{carrier.node}", 404)


@pytest.mark.parametrize(
    "uri",
    [
        "sip:{number}@{node}",
        "sips:{number}@{node}",
        "SIP:{number}@{node}",
        "sip:{number}@{node};user=phone",
        "sip:{number}@{node};user=phone;transport=udp",
        "sip:{number};npdi;rn=+390721@{node}",
        "sip:{number};phone-context=example.org@{node};user=phone",
        "sip:{number}:secret@{node}",
        "tel:{number}",
        "tel:{number};phone-context=+39",
    ],
)
@pytest.mark.parametrize("dialled", ["+390721405123", "0721405123"])
def test_a_number_is_read_from_any_uri(
    uri: str, dialled: str, number: Make, trunk: Make, carrier: Agent, acme: Tenant, instance: Agent
) -> None:
    trunk(carrier.host)
    number("0721405123", tenant=acme.name)
    whole = uri.format(number=dialled, node=carrier.node)
    invite = busy_call(carrier, instance, whole, to=f"sip:{dialled}@{carrier.node}")
    assert dialled in invite.uri


def hosts(carrier: Agent, *tenants: Tenant) -> list[str]:
    return [str(carrier.node), carrier.node.host, FQDN, "203.0.113.11", *(tenant.domain for tenant in tenants)]


def test_a_trunk_reaches_a_number_whatever_the_host_is(
    number: Make, trunk: Make, carrier: Agent, acme: Tenant, initech: Tenant, instance: Agent
) -> None:
    trunk(carrier.host)
    number("0721405123", tenant=acme.name)
    for host in (*hosts(carrier, acme, initech), "sip.telco.example", "198.51.100.7", f"[{carrier.machine.address6}]"):
        busy_call(carrier, instance, f"sip:0721405123@{host}")


def test_a_foreign_host_from_anyone_else_is_not_found(
    number: Make, phone: Agent, acme: Tenant, initech: Tenant, instance: Agent, other_instance: Agent
) -> None:
    number("0721405123", tenant=acme.name)
    for host in ("sip.telco.example", "198.51.100.7", "203.0.113.20", "[2001:db8:1::99]"):
        refused_call(phone, f"sip:0721405123@{host}", 404)
    busy_call(phone, other_instance, f"sip:0721405123@{initech.domain}")  # a call to a tenant's domain is the tenant's
    busy_call(phone, instance, f"sip:0721405123@{acme.domain}")
    assert not instance.has_something()


def test_a_rule_may_lead_to_instances_without_a_tenant(
    number: Make, trunk: Make, carrier: Agent, instance: Agent, other_instance: Agent, node: Node
) -> None:
    trunk(carrier.host)
    number("0721405123", instances=[{"uri": f"sip:{instance.hostport}", "description": "the lift"}])
    number("0721405", instances=[{"uri": f"sip:{other_instance.hostport}"}])
    busy_call(carrier, instance, f"sip:0721405123@{carrier.node}")
    busy_call(carrier, other_instance, f"sip:0721405124@{carrier.node}")


def test_a_contact_of_an_instance_without_a_tenant_is_called_by_those_who_may_call_the_number(
    number: Make, trunk: Make, carrier: Agent, other_carrier: Agent, instance: Agent, initech: Tenant
) -> None:
    name = trunk(carrier.host, tenants=[initech.name])
    trunk(other_carrier.host, tenants=[initech.name])
    for rule in ("0721405123", f"0721405124@{name}"):
        number(rule, instances=[{"uri": f"sip:{instance.hostport}"}])
        ours, _ = answered_call(carrier, instance, f"sip:{rule.partition('@')[0]}@{carrier.node}")
        for caller in (carrier, other_carrier):
            caller.begin("MESSAGE", ours.target)
            if caller is other_carrier and "@" in rule:
                caller.expect(404)
            else:
                instance.reply(instance.expect("MESSAGE"), 200, tag="i")
                caller.expect(200)
        ours.hang_up(instance)


def test_an_exact_rule_is_for_the_whole_number_only(
    number: Make, trunk: Make, carrier: Agent, acme: Tenant, initech: Tenant, instance: Agent, other_instance: Agent
) -> None:
    trunk(carrier.host)
    number("0721405", tenant=acme.name, exact=True)
    busy_call(carrier, instance, f"sip:0721405@{carrier.node}")
    refused_call(carrier, f"sip:07214051@{carrier.node}", 404)
    number("0721", tenant=initech.name)
    busy_call(carrier, other_instance, f"sip:07214051@{carrier.node}")


def test_an_unknown_number_is_not_found(
    number: Make, trunk: Make, carrier: Agent, acme: Tenant, instance: Agent
) -> None:
    trunk(carrier.host)
    number("0721405123", tenant=acme.name)
    for user in ("0721405124", "07214051", "+440721405123", "*0721405123", "alice", "0721405l23", "%00", "+", "0x1"):
        refused_call(carrier, f"sip:{user}@{carrier.node}", 404)
    refused_call(carrier, f"sip:{carrier.node}", 404, to=f"sip:0721405123@{carrier.node}")
    busy_call(carrier, instance, f"sip:0721405123@{carrier.node}")


def test_a_rule_may_be_for_one_trunk_alone(
    number: Make, trunk: Make, carrier: Agent, other_carrier: Agent, acme: Tenant, initech: Tenant, instance: Agent,
    other_instance: Agent,
) -> None:  # fmt: skip
    """Carriers hand out short numbers, the same ones as others."""
    first, second = trunk(carrier.host), trunk(other_carrier.host)
    number(f"100@{first}", tenant=acme.name)
    refused_call(other_carrier, f"sip:100@{carrier.node}", 404)
    number(f"100@{second}", tenant=initech.name)
    for _ in range(2):
        busy_call(carrier, instance, f"sip:100@{carrier.node}")
        busy_call(other_carrier, other_instance, f"sip:100@{carrier.node}")


def test_of_equal_rules_the_trunks_own_comes_first(
    number: Make, trunk: Make, carrier: Agent, other_carrier: Agent, acme: Tenant, initech: Tenant, instance: Agent,
    other_instance: Agent,
) -> None:  # fmt: skip
    first, _ = trunk(carrier.host), trunk(other_carrier.host)
    number("100", tenant=initech.name)
    number(f"100@{first}", tenant=acme.name)
    busy_call(carrier, instance, f"sip:100@{carrier.node}")
    busy_call(other_carrier, other_instance, f"sip:100@{carrier.node}")


def test_a_number_of_a_tenant_that_the_trunk_does_not_serve_is_not_found(
    number: Make, trunk: Make, carrier: Agent, other_carrier: Agent, acme: Tenant, initech: Tenant, instance: Agent,
    other_instance: Agent,
) -> None:  # fmt: skip
    trunk(carrier.host, tenants=[acme.name])
    trunk(other_carrier.host, tenants=[initech.name])
    number("0721405123", tenant=acme.name)
    number("0721405456", tenant=initech.name)
    busy_call(carrier, instance, f"sip:0721405123@{carrier.node}")
    busy_call(other_carrier, other_instance, f"sip:0721405456@{carrier.node}")
    for caller, called in ((carrier, "0721405456"), (other_carrier, "0721405123")):
        for host in hosts(carrier, acme, initech):
            refused_call(caller, f"sip:{called}@{host}", 404)
    assert not instance.has_something()
    assert not other_instance.has_something()


def test_a_number_whose_tenant_is_gone_is_unavailable_until_it_is_back(
    number: Make, trunk: Make, carrier: Agent, acme: Tenant, instance: Agent, node: Node
) -> None:
    trunk(carrier.host)
    number("0721405123", tenant=acme.name)
    busy_call(carrier, instance, f"sip:0721405123@{carrier.node}")
    node.route_remove(acme.name)
    answer = refused_call(carrier, f"sip:0721405123@{carrier.node}", 503)
    assert answer.header("Retry-After")
    node.route_add(acme.name, [acme.domain], acme.instances)
    busy_call(carrier, instance, f"sip:0721405123@{carrier.node}")


def test_an_edit_is_live_with_the_next_call(
    number: Make, trunk: Make, carrier: Agent, acme: Tenant, initech: Tenant, instance: Agent, other_instance: Agent,
    node: Node,
) -> None:  # fmt: skip
    trunk(carrier.host)
    number("0721405123", tenant=acme.name)
    for owner, agent in ((initech, other_instance), (acme, instance)):
        node.number_put("0721405123", {"tenant": owner.name})
        busy_call(carrier, agent, f"sip:0721405123@{carrier.node}")
    node.number_remove("0721405123")
    refused_call(carrier, f"sip:0721405123@{carrier.node}", 404)


def test_extension_201_of_two_tenants_never_mixes(
    trunk: Make, phone: Agent, carrier: Agent, acme: Tenant, initech: Tenant, instance: Agent, other_instance: Agent,
    number: Make,
) -> None:  # fmt: skip
    """By the domain of each, and by a number of each that the carrier knows under one more name."""
    trunk(carrier.host, tenants=[acme.name, initech.name])
    number("0721405201", tenant=acme.name)
    number("0541201201", tenant=initech.name)
    sides: Sequence[tuple[Tenant, Agent, str]] = (
        (acme, instance, "0721405201"), (initech, other_instance, "0541201201"),
    )  # fmt: skip
    for owner, agent, called in sides * 2:
        assert registered(phone, agent, owner.domain, user="201").startswith("sip:201@")
        assert busy_call(phone, agent, f"sip:201@{owner.domain}").uri == f"sip:201@{owner.domain}"
        busy_call(carrier, agent, f"sip:201@{owner.domain}")
        busy_call(carrier, agent, f"sip:{called}@{carrier.node}")
    refused_call(carrier, f"sip:201@{carrier.node}", 404)
    assert not instance.has_something()
    assert not other_instance.has_something()
