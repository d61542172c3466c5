"""An instance registers at its carrier, and the carrier's calls find the way back to that very instance."""

import re
from collections.abc import Callable, Sequence

import pytest

from lab.agent import Agent, answered_call, busy_call, refused_call, registered
from lab.calls import expect_audio
from lab.network import Machine
from lab.node import Node
from lab.sip import Message
from lab.sipp import sipp

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left")

type Make = Callable[..., str]
ACCOUNT = "0721405123"


def own_contact(instance: Agent) -> str:
    """What a PBX registers: Asterisk puts a parameter of its own into it."""
    return f"sip:{ACCOUNT}@{instance.hostport};line=abcdefg"


def account(instance: Agent, carrier: Agent) -> str:
    """Register an instance at a carrier; the Contact that the carrier got."""
    return registered(instance, carrier, carrier.host, user=ACCOUNT, contact=f"<{own_contact(instance)}>;expires=60")


def without_parameters(contact: str) -> str:
    """A Contact as a carrier may keep it."""
    return contact.partition(";")[0]


@pytest.mark.parametrize("where", ["pbx", "pbx_on_node"])
def test_a_registered_instance_is_called_and_heard_both_ways(
    where: str, tenant: Callable[..., Tenant], trunk: Make, telco: Machine, request: pytest.FixtureRequest
) -> None:
    instance: Machine = request.getfixturevalue(where)
    name = trunk(telco.address, tenants=[tenant(instance).name])
    keys = {"user": ACCOUNT, "domain": telco.address, "password": "sesame"}
    registrar = sipp(telco, "register", "uas", keys=keys)
    service = instance.lab.edge(instance)
    pbx = sipp(
        instance, "register", keys=keys, headers=[f"Route: <sip:{service};lr>"], answers="trunk-call-answered",
        talk=30, background=True, options=["-auth_uri", telco.address],
    )  # fmt: skip
    registrar.wait()
    assert pbx.wait_for("registered") == f"sip:{ACCOUNT}@{instance.address}:{instance.sip_port}"
    target = without_parameters(registrar.saved["contact"])
    sipp(telco, "trunk-call-answered", keys=keys | {"callee": ACCOUNT, "target": target}, talk=1.3)
    pbx.stop()
    assert pbx.saved["uri"].startswith(f"sip:{ACCOUNT}@{instance.address}:{instance.sip_port}")
    assert (pbx.saved["forwarded_for"], pbx.saved["trunk"]) == (telco.address, name)
    expect_audio(telco, instance)


def test_the_carrier_sees_a_contact_of_ours_and_the_instance_its_own(
    trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name])
    said = f'Digest username="{ACCOUNT}", realm="telco.example", nonce="1f", uri="sip:{carrier.host}", response="00ff"'
    instance.begin(
        "REGISTER", f"sip:{carrier.host}", user=ACCOUNT, domain=carrier.host, routes=[instance.route],
        contact=f"<{own_contact(instance)}>;expires=60;q=0.5", headers=[f"Authorization: {said}"],
    )  # fmt: skip
    request = carrier.expect("REGISTER")
    assert request.uri == f"sip:{carrier.host}"
    assert request.headers("Authorization") == [said]
    assert not request.headers("Path")
    assert not request.headers("Route")
    (contact,) = request.headers("Contact")
    assert re.fullmatch(rf"<sip:sw-[\w-]+@{re.escape(carrier.node.host)}[^>]*>;expires=60;q=0\.5", contact)
    stranger = "<sip:other@198.51.100.1>;expires=9"
    carrier.reply(request, 200, tag="r", headers=[f"Contact: {contact.replace('60', '30')}, {stranger}"])
    answer = instance.expect(200)
    assert f"<{own_contact(instance)}>;expires=30;q=0.5" in ", ".join(answer.headers("Contact"))
    assert "sw-" not in answer.head


def test_a_refusal_of_the_registration_passes(trunk: Make, acme: Tenant, carrier: Agent, instance: Agent) -> None:
    trunk(carrier.host, tenants=[acme.name])
    for status, field in ((401, "WWW-Authenticate: Digest realm=x"), (423, "Min-Expires: 600"), (403, "Warning: no")):
        instance.begin("REGISTER", f"sip:{carrier.host}", user=ACCOUNT, domain=carrier.host)
        carrier.reply(carrier.expect("REGISTER"), status, tag="r", headers=[field])
        assert field in instance.expect(status).head


def test_a_registration_is_refreshed_and_removed_under_one_contact(
    trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name])
    first = account(instance, carrier)
    assert account(instance, carrier) == first
    own = f"<{own_contact(instance)}>"
    for contact, expected in ((f"{own};expires=0", f"<{first}>;expires=0"), ("*", "*")):
        instance.begin(
            "REGISTER",
            f"sip:{carrier.host}",
            user=ACCOUNT,
            domain=carrier.host,
            contact=contact,
            headers=["Expires: 0"],
        )
        request = carrier.expect("REGISTER")
        assert request.headers("Contact") == [expected]
        carrier.reply(request, 200, tag="r")
        instance.expect(200)


@pytest.mark.parametrize("kept", [str, without_parameters], ids=["whole", "without parameters"])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "after a restart"])
def test_the_carriers_calls_reach_the_very_instance_under_its_own_contact(
    kept: Callable[[str], str], restarted: bool, trunk: Make, tenant: Callable[..., Tenant], carrier: Agent,
    second_border: Agent, instance: Agent, other_instance: Agent, node: Node,
) -> None:  # fmt: skip
    """Both instances are of one tenant, which any of them could serve."""
    pair = tenant(instance.machine, other_instance.machine, policy="balance")
    trunk(carrier.host, second_border.host, tenants=[pair.name])
    bound = {agent: kept(account(agent, carrier)) for agent in (instance, other_instance)}
    if restarted:
        node.kill_kamailio()
    for border in (carrier, second_border):
        for agent, contact in bound.items():
            invite = busy_call(border, agent, contact, to=f"sip:{ACCOUNT}@sip.telco.example")
            assert invite.uri == own_contact(agent)
    ours, theirs = answered_call(carrier, other_instance, bound[other_instance])
    ours.hang_up(other_instance)
    ours, theirs = answered_call(carrier, instance, bound[instance])
    theirs.hang_up(carrier)


def test_a_contact_comes_back_with_what_a_carrier_adds(
    trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name])
    bound = without_parameters(account(instance, carrier))
    user, _, host = bound.partition("@")
    for uri in (f"{bound};transport=udp;x-a=1", f"{bound};user=phone", f"{user}@{host.partition(':')[0]}"):
        assert busy_call(carrier, instance, uri).uri == own_contact(instance)


def test_two_tenants_register_the_same_user_at_one_carrier(
    trunk: Make, acme: Tenant, initech: Tenant, carrier: Agent, instance: Agent, other_instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name, initech.name])
    ours, theirs = account(instance, carrier), account(other_instance, carrier)
    assert without_parameters(ours) != without_parameters(theirs)
    for agent, contact in ((instance, ours), (other_instance, theirs)) * 2:
        invite = busy_call(carrier, agent, without_parameters(contact))
        assert invite.uri == own_contact(agent)
    assert not instance.has_something()
    assert not other_instance.has_something()


def test_one_instance_has_an_account_at_each_of_two_carriers(
    trunk: Make, acme: Tenant, carrier: Agent, other_carrier: Agent, instance: Agent
) -> None:
    first, second = trunk(carrier.host, tenants=[acme.name]), trunk(other_carrier.host, tenants=[acme.name])
    for agent, name, bound in [
        (carrier, first, account(instance, carrier)),
        (other_carrier, second, account(instance, other_carrier)),
    ]:
        invite = busy_call(agent, instance, without_parameters(bound))
        assert invite.headers("X-Sipward-Trunk") == [name]


def test_an_instance_calls_out_by_its_account(trunk: Make, acme: Tenant, carrier: Agent, instance: Agent) -> None:
    trunk(carrier.host, tenants=[acme.name])
    account(instance, carrier)
    ours, theirs = answered_call(instance, carrier, f"sip:0541201123@{carrier.host}")
    ours.hang_up(carrier)
    ours, theirs = answered_call(instance, carrier, f"sip:0541201123@{carrier.host}")
    theirs.hang_up(instance)


def test_a_contact_of_ours_is_of_no_use_to_anyone_else(
    trunk: Make,
    acme: Tenant,
    carrier: Agent,
    other_carrier: Agent,
    phone: Agent,
    instance: Agent,
    other_instance: Agent,
) -> None:
    trunk(carrier.host, tenants=[acme.name])
    trunk(other_carrier.host)
    bound = account(instance, carrier)
    for uri in variants(bound, carrier):
        for stranger in (other_carrier, phone):
            refused_call(stranger, uri, 404)
        refused_call(other_instance, uri, 403)
    busy_call(carrier, instance, bound)
    assert not instance.has_something()


def variants(bound: str, carrier: Agent) -> Sequence[str]:
    """A Contact of ours as it is, without its parameters, and at other hosts that lead to us."""
    user = bound.partition("@")[0]
    return (bound, without_parameters(bound), f"{user}@edge.example.net", f"{user}@{carrier.host}")


def test_an_altered_contact_is_of_no_use_to_the_carrier_itself(
    trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name])
    bound = without_parameters(account(instance, carrier))
    user, _, host = bound.partition("@")
    other = "A" if user[-8] != "A" else "B"
    for altered in (f"{user[:-8]}{other}{user[-7:]}", user[:-1], f"{user}A", "sip:sw-", f"sip:sw-{'A' * 60}"):
        refused_call(carrier, f"{altered}@{host}", 404)
    busy_call(carrier, instance, bound)


def test_an_account_of_a_tenant_that_the_trunk_serves_no_more_is_not_found(
    trunk: Make, acme: Tenant, initech: Tenant, carrier: Agent, instance: Agent, other_instance: Agent, node: Node
) -> None:
    name = trunk(carrier.host, tenants=[acme.name, initech.name])
    bound, others = account(instance, carrier), account(other_instance, carrier)
    node.trunk_put(name, {"addresses": [carrier.host], "tenants": [initech.name]})
    refused_call(carrier, bound, 404)
    busy_call(carrier, other_instance, others)
    assert not instance.has_something()


def test_what_a_carrier_sends_into_a_registration_is_marked(
    trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    name = trunk(carrier.host, tenants=[acme.name])
    bound = without_parameters(account(instance, carrier))

    def marked(message: Message) -> bool:
        origin = message.headers("X-Forwarded-For"), message.headers("X-Sipward-Trunk")
        return origin == ([carrier.host], [name])

    forged = ["X-Forwarded-For: 6.6.6.6", "X-Sipward-Trunk: other", "isTrunk: 1", "topos: 0"]
    invite = busy_call(carrier, instance, bound, headers=forged)
    assert marked(invite)
    assert "topos" not in invite.head.lower()
    carrier.begin("OPTIONS", bound)
    instance.reply(instance.expect("OPTIONS"), 200, tag="i")
    carrier.expect(200)
