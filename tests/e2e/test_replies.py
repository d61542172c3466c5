"""What a reply may not say: what only the node and its instances say to each other, and whom nobody believes."""

from collections.abc import Callable

import pytest

from lab.agent import Agent, registered
from lab.network import Machine
from lab.sip import Message

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control")

type Make = Callable[..., str]

LIE = "6.6.6.6"
INTERNAL = [
    f"X-Forwarded-For: {LIE}", f"x-sipward-trunk : {LIE}", f"ISTRUNK:\r\n {LIE}", f"Topos\t:{LIE}", f"topos: {LIE}",
]  # fmt: skip
NAME = "sip:201@telco.example"
ASSERTED = [
    f"P-Asserted-Identity: <{NAME}>", f"REMOTE-PARTY-ID:\r\n <{NAME}>", f"Diversion : <{NAME}>",
    f"History-Info: <{NAME}>", f"P-Charging-Vector: icid-value={NAME}",
]  # fmt: skip


def says(answer: Message) -> int:
    """How many lines of a reply assert who answers. Of the node's own words there may be none."""
    lowered = answer.head.lower()
    assert LIE not in lowered, answer.text
    assert not any(name in lowered for name in ("x-forwarded-for", "x-sipward-trunk", "istrunk", "topos")), answer.text
    return lowered.count(NAME)


def answers(caller: Agent, callee: Agent, invite: Message, lines: list[str]) -> list[int]:
    """What a caller is told in a 180 and in a refusal that have these lines."""
    callee.reply(invite, 180, tag="a", headers=lines)
    ringing = caller.expect(180)
    callee.reply(invite, 486, tag="a", headers=lines)
    callee.expect("ACK")
    refusal = caller.expect(486)
    caller.acknowledge(refusal)
    return [says(ringing), says(refusal)]


def test_a_phones_reply_asserts_nothing(acme: Tenant, phone: Agent, instance: Agent) -> None:
    bound = registered(phone, instance, acme.domain)
    instance.begin("INVITE", bound, body=instance.sdp(), domain=acme.domain, routes=[instance.route])
    invite = phone.expect("INVITE")
    assert answers(instance, phone, invite, [*INTERNAL, *ASSERTED]) == [0, 0]


@pytest.mark.parametrize("identity", ["pass", "remove"])
def test_a_carriers_reply_asserts_what_its_trunk_allows(
    identity: str, acme: Tenant, trunk: Make, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name], identity=identity)
    instance.begin("INVITE", f"sip:0541201123@{carrier.host}", body=instance.sdp())
    told = answers(instance, carrier, carrier.expect("INVITE"), [*INTERNAL, *ASSERTED])
    assert told == ([5, 5] if identity == "pass" else [0, 0])


@pytest.mark.parametrize("identity", ["pass", "remove"])
def test_an_instances_reply_to_a_carrier_asserts_what_its_tenant_allows(
    identity: str, tenant: Callable[..., Tenant], pbx: Machine, number: Make, trunk: Make, carrier: Agent,
    instance: Agent,
) -> None:  # fmt: skip
    trunk(carrier.host)
    number("0721405123", tenant=tenant(pbx, identity=identity).name)
    carrier.begin("INVITE", f"sip:0721405123@{carrier.node}", body=carrier.sdp())
    inner = f"P-Preferred-Identity: <sip:201@{instance.host}>;x={NAME}"
    told = answers(carrier, instance, instance.expect("INVITE"), [*INTERNAL, *ASSERTED, inner])
    assert told == ([6, 6] if identity == "pass" else [0, 0])


def test_an_instances_reply_to_a_phone_asserts_who_answers(acme: Tenant, phone: Agent, instance: Agent) -> None:
    phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    assert answers(phone, instance, instance.expect("INVITE"), [*INTERNAL, *ASSERTED]) == [5, 5]
