"""Calls from a carrier: known by where they come from, led by their number, and told apart for the instance."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lab.addresses import BORDER_NETWORK
from lab.agent import Agent, Listener, Talk, answered_call, busy_call, refused_call, registered
from lab.calls import expect_audio
from lab.network import Machine
from lab.node import Node
from lab.sip import Message
from lab.sipp import sipp

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left")

type Make = Callable[..., str]
NUMBER = "0721405123"


@pytest.fixture
def called(acme: Tenant, number: Make) -> str:
    """A number of acme's."""
    return number(NUMBER, tenant=acme.name)


def marks(message: Message) -> tuple[list[str], list[str]]:
    """What the node tells an instance of a request's origin: X-Forwarded-For and X-Sipward-Trunk."""
    return message.headers("X-Forwarded-For"), message.headers("X-Sipward-Trunk")


@pytest.fixture(params=["udp", "tcp"])
def border(request: pytest.FixtureRequest, telco: Machine) -> Iterator[Agent]:
    """The carrier's first border, by either transport."""
    with Agent(telco, request.param) as agent:
        yield agent


# --- who is a carrier ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["pbx", "pbx_on_node"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_a_carriers_call_is_answered_and_heard_both_ways(
    where: str, ipv6: bool, tenant: Callable[..., Tenant], number: Make, trunk: Make, telco: Machine,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    instance: Machine = request.getfixturevalue(where)
    host = telco.address6 if ipv6 else telco.address
    name = trunk(host)
    number(NUMBER, tenant=tenant(instance).name)
    callee = sipp(instance, "trunk-call-answered", "uas")
    ours = f"[{telco.lab.edge(telco, ipv6=True)}]" if ipv6 else telco.lab.edge(telco)
    keys = {"callee": NUMBER, "domain": ours, "target": f"sip:{NUMBER}@{ours}"}
    sipp(telco, "trunk-call-answered", ipv6=ipv6, keys=keys, talk=1.3)
    callee.wait()
    assert callee.saved == {"uri": f"sip:{NUMBER}@{ours}", "forwarded_for": host, "trunk": name}
    expect_audio(telco, instance)


def test_a_carrier_is_known_by_any_of_its_addresses(
    called: str, trunk: Make, carrier: Agent, second_border: Agent, other_carrier: Agent, instance: Agent
) -> None:
    name = trunk(carrier.host, second_border.host)
    for border in (carrier, second_border):
        invite = busy_call(border, instance, f"sip:{called}@sip.telco.example")
        assert marks(invite) == ([border.host], [name])
    refused_call(other_carrier, f"sip:{called}@sip.telco.example", 404)


def test_a_carrier_is_known_by_its_network(
    called: str, trunk: Make, carrier: Agent, second_border: Agent, other_carrier: Agent, instance: Agent
) -> None:
    name = trunk(f"{carrier.host}/31")
    for border in (carrier, second_border):
        assert marks(busy_call(border, instance, f"sip:{called}@sip.telco.example")) == ([border.host], [name])
    refused_call(other_carrier, f"sip:{called}@sip.telco.example", 404)


def test_the_smallest_network_says_who_a_carrier_is(
    called: str, trunk: Make, carrier: Agent, second_border: Agent, other_carrier: Agent, instance: Agent
) -> None:
    wide, narrow, single = trunk(BORDER_NETWORK), trunk(f"{carrier.host}/31"), trunk(second_border.host)
    for border, name in ((other_carrier, wide), (carrier, narrow), (second_border, single)):
        assert marks(busy_call(border, instance, f"sip:{called}@{border.node}")) == ([border.host], [name])


def test_a_carrier_is_known_on_its_own_transport_only(called: str, trunk: Make, border: Agent, instance: Agent) -> None:
    name = trunk(border.host, transport=border.transport)
    assert marks(busy_call(border, instance, f"sip:{called}@sip.telco.example"))[1] == [name]
    with Agent(border.machine, "tcp" if border.transport == "udp" else "udp") as stranger:
        refused_call(stranger, f"sip:{called}@sip.telco.example", 404)


def test_of_several_trunks_of_one_carrier_the_one_that_serves_the_tenant_counts(
    called: str, acme: Tenant, initech: Tenant, number: Make, trunk: Make, carrier: Agent, instance: Agent,
    other_instance: Agent,
) -> None:  # fmt: skip
    """One border of a carrier serves customers with contracts of their own."""
    theirs, ours = trunk(carrier.host, tenants=[initech.name]), trunk(carrier.host, tenants=[acme.name])
    number("0541201123", tenant=initech.name)
    assert marks(busy_call(carrier, instance, f"sip:{called}@{carrier.node}"))[1] == [ours]
    assert marks(busy_call(carrier, other_instance, f"sip:0541201123@{carrier.node}"))[1] == [theirs]


def test_a_carrier_that_is_no_trunk_any_more_is_a_stranger(
    called: str, trunk: Make, carrier: Agent, instance: Agent, node: Node
) -> None:
    name = trunk(carrier.host)
    ours, _ = answered_call(carrier, instance, f"sip:{called}@sip.telco.example")
    node.trunk_remove(name)
    refused_call(carrier, f"sip:{called}@sip.telco.example", 404)
    ours.hang_up(instance)


# --- what the instance learns ----------------------------------------------------------------------------------------


def test_the_first_request_and_those_in_the_dialog_say_where_they_are_from(
    called: str, trunk: Make, border: Agent, second_border: Agent, instance: Agent
) -> None:
    name = trunk(border.host, second_border.host, transport=border.transport)
    ours = border.begin("INVITE", f"sip:{called}@{border.node}", body=border.sdp())
    invite = instance.expect("INVITE")
    assert marks(invite) == ([border.host], [name])
    theirs = Talk.answering(instance, invite, "callee")
    instance.reply(invite, 200, tag="callee", body=instance.sdp())
    ours.learn(border.expect(200)).ack()
    instance.expect("ACK")
    ours.send("INVITE", body=border.sdp(2))
    again = instance.expect("INVITE")
    assert marks(again) == ([border.host], [name])
    instance.reply(again, 200, body=instance.sdp(2))
    border.expect(200)
    ours.ack()
    instance.expect("ACK")
    theirs.hang_up(border)


def test_what_a_phone_sends_says_its_address_and_no_trunk(
    trunk: Make, acme: Tenant, phone: Agent, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host)
    phone.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain)
    request = instance.expect("REGISTER")
    assert marks(request) == ([phone.host], [])
    instance.reply(request, 200, tag="r")
    phone.expect(200)
    assert marks(busy_call(phone, instance, f"sip:200@{acme.domain}")) == ([phone.host], [])


def test_behind_a_nat_it_is_the_nats_address(acme: Tenant, alice: Machine, instance: Agent) -> None:
    with Agent(alice, port=0) as phone:
        assert marks(busy_call(phone, instance, f"sip:200@{acme.domain}")) == (["203.0.113.41"], [])


def test_a_registration_that_a_carrier_brings_says_so(
    trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    name = trunk(carrier.host)
    carrier.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain)
    request = instance.expect("REGISTER")
    assert marks(request) == ([carrier.host], [name])
    instance.reply(request, 200, tag="r")
    carrier.expect(200)


# --- what the outside may not say ------------------------------------------------------------------------------------

LIE = "6.6.6.6"
FORGED = [
    line.format(name=name)
    for name in ("X-Forwarded-For", "X-Sipward-Trunk", "isTrunk", "topos")
    for line in (
        f"{{name}}: {LIE}",
        f"{{name}}:{LIE}",
        f"{{name}} : {LIE}",
        f"{{name}}\t \t:\t{LIE}",
        f"{{name}}:\r\n {LIE}",
        f"{{name}} :\r\n\t{LIE},\r\n {LIE}",
        f"{{name}}: {LIE}, {LIE}",
    )
]
FORGED += [line.swapcase() for line in FORGED[::2]] + [line.upper() for line in FORGED]


def is_clean(message: Message, sender: str, trunk: str) -> None:
    """Nothing of the forged lines is left, and the node's own are there, once, where they belong."""
    head = message.head.lower()
    assert LIE not in head, message.text
    assert "istrunk" not in head, message.text
    assert "topos" not in head, message.text
    marked = message.method in ("INVITE", "REGISTER")
    assert marks(message) == ([sender] if marked else [], [trunk] if marked and trunk else []), message.text


@pytest.mark.parametrize("sender", ["carrier", "phone"])
@pytest.mark.parametrize(
    "method",
    ["INVITE", "REGISTER", "MESSAGE", "OPTIONS", "SUBSCRIBE", "NOTIFY", "PUBLISH", "INFO", "UPDATE", "REFER", "FOO"],
)
def test_what_the_outside_says_of_its_origin_is_taken_off_any_request(
    method: str, sender: str, trunk: Make, acme: Tenant, instance: Agent, request: pytest.FixtureRequest
) -> None:
    agent: Agent = request.getfixturevalue(sender)
    name = trunk(agent.host) if sender == "carrier" else ""
    agent.begin(method, f"sip:200@{acme.domain}", headers=FORGED, body=agent.sdp() if method == "INVITE" else "")
    got = instance.expect(method)
    is_clean(got, agent.host, name)
    instance.reply(got, 480, tag="i")
    if method == "INVITE":
        instance.expect("ACK")
    answer = agent.expect(480)
    if method == "INVITE":
        agent.acknowledge(answer)


@pytest.mark.parametrize("sender", ["carrier", "phone"])
def test_what_the_outside_says_of_its_origin_is_taken_off_inside_a_dialog(
    sender: str, trunk: Make, acme: Tenant, instance: Agent, request: pytest.FixtureRequest
) -> None:
    agent: Agent = request.getfixturevalue(sender)
    name = trunk(agent.host) if sender == "carrier" else ""
    ours, _ = answered_call(agent, instance, f"sip:200@{acme.domain}")
    for method in ("INVITE", "UPDATE", "INFO", "REFER", "NOTIFY", "MESSAGE", "OPTIONS", "BYE"):
        headers = [*FORGED, *(["Refer-To: <sip:300@acme.example>"] if method == "REFER" else [])]
        ours.send(method, headers=headers, body=agent.sdp(2) if method == "INVITE" else "")
        got = instance.expect(method)
        is_clean(got, agent.host, name)
        instance.reply(got, 200, body=instance.sdp(2) if method == "INVITE" else "")
        agent.expect(200)
        if method == "INVITE":
            ours.send("ACK", headers=FORGED)
            is_clean(instance.expect("ACK"), agent.host, name)


def test_a_cancel_says_nothing_of_its_origin(acme: Tenant, phone: Agent, instance: Agent) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    invite = instance.expect("INVITE")
    instance.reply(invite, 180, tag="i")
    phone.expect(180)
    ours.send("CANCEL", cseq=1, headers=FORGED)
    cancel = instance.expect("CANCEL")
    is_clean(cancel, phone.host, "")
    instance.reply(cancel, 200)
    phone.expect(200)
    instance.reply(invite, 487, tag="i")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(487))


# --- where the number is ---------------------------------------------------------------------------------------------

PLACES = {
    "to": "To",
    "p-called-party-id": "P-Called-Party-ID",
    "p-preferred-identity": "P-Preferred-Identity",
    "diversion": "Diversion",
}
VALUES = {
    "bare": "sip:{number}@sip.telco.example",
    "with brackets": "<sip:{number}@sip.telco.example;user=phone>",
    "with a name": '"The, <Lift>" <sip:{number}@sip.telco.example>;reason=unconditional;counter=1',
    "as tel": "<tel:{number}>",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("place", PLACES)
def test_a_carrier_puts_the_number_where_its_trunk_says(
    place: str, value: str, called: str, initech: Tenant, number: Make, trunk: Make, carrier: Agent,
    other_carrier: Agent, instance: Agent, other_instance: Agent,
) -> None:  # fmt: skip
    number("0541201123", tenant=initech.name)
    trunk(carrier.host, number=place)
    trunk(other_carrier.host)
    text = value.format(number=called)
    to = text if place == "to" else ""
    headers = [] if place == "to" else [f"{PLACES[place]}: {text}"]
    for user in ("account-17", "0541201123", ""):
        uri = f"sip:{user}@{carrier.node}" if user else f"sip:{carrier.node}"
        invite = busy_call(carrier, instance, uri, headers=headers, to=to)
        assert invite.uri == uri
    # Another carrier's number stays the one in its Request-URI, and without the header there is none.
    busy_call(other_carrier, other_instance, f"sip:0541201123@{carrier.node}", headers=headers, to=to)
    refused_call(carrier, f"sip:{called}@{carrier.node}", 404, to="sip:account-17@sip.telco.example")


def test_of_several_diversions_the_last_one_before_us_counts(
    called: str, initech: Tenant, number: Make, trunk: Make, carrier: Agent, instance: Agent
) -> None:
    """The topmost is the latest (RFC 5806, 5)."""
    number("0541201123", tenant=initech.name)
    trunk(carrier.host, number="diversion")
    values = [f"<sip:{called}@telco.example>;reason=no-answer", "<sip:0541201123@telco.example>;reason=user-busy"]
    busy_call(carrier, instance, f"sip:x@{carrier.node}", headers=[f"Diversion: {value}" for value in values])
    busy_call(carrier, instance, f"sip:x@{carrier.node}", headers=[f"Diversion: {', '.join(values)}"])


# --- who is calling --------------------------------------------------------------------------------------------------

ASSERTED = ['P-Asserted-Identity: "Ms. Due" <sip:+390541201123@telco.example>', "P-Asserted-Identity: <tel:+39054>"]


def test_what_a_carrier_asserts_reaches_an_instance_if_its_trunk_says_so(
    called: str, trunk: Make, carrier: Agent, other_carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, identity="pass")
    trunk(other_carrier.host)
    invite = busy_call(carrier, instance, f"sip:{called}@{carrier.node}", headers=[*ASSERTED, "Privacy: id"])
    assert [f"P-Asserted-Identity: {value}" for value in invite.headers("P-Asserted-Identity")] == ASSERTED
    assert invite.header("Privacy") == "id"
    invite = busy_call(other_carrier, instance, f"sip:{called}@{carrier.node}", headers=ASSERTED)
    assert not invite.headers("P-Asserted-Identity")


def test_a_phone_asserts_nothing(acme: Tenant, phone: Agent, instance: Agent) -> None:
    """RFC 3325, 5: from a node that is not trusted."""
    invite = busy_call(phone, instance, f"sip:200@{acme.domain}", headers=ASSERTED)
    assert not invite.headers("P-Asserted-Identity")


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_a_call_goes_on_and_ends_by_the_carriers_second_border(
    called: str, trunk: Make, carrier: Agent, second_border: Agent, other_carrier: Agent, instance: Agent
) -> None:
    name = trunk(carrier.host, second_border.host)
    trunk(other_carrier.host)
    ours, _ = answered_call(carrier, instance, f"sip:{called}@{carrier.node}")
    stolen = replace(ours, agent=other_carrier, branches={})
    stolen.send("BYE", cseq=9)
    other_carrier.expect(403)
    moved = replace(ours, agent=second_border, branches={})
    moved.send("INVITE", body=second_border.sdp(2))
    again = instance.expect("INVITE")
    assert marks(again) == ([second_border.host], [name])
    instance.reply(again, 200, body=instance.sdp(2))
    second_border.expect(200)
    moved.ack()
    instance.expect("ACK")
    moved.hang_up(instance)


def test_either_end_hangs_up(called: str, trunk: Make, border: Agent, instance: Agent) -> None:
    trunk(border.host, transport=border.transport)
    ours, theirs = answered_call(border, instance, f"sip:{called}@{border.node}")
    ours.hang_up(instance)
    ours, theirs = answered_call(border, instance, f"sip:{called}@{border.node}")
    theirs.hang_up(border)


def test_a_phone_of_the_carriers_network_still_registers_and_is_called(
    trunk: Make, acme: Tenant, telco: Machine, instance: Agent
) -> None:
    """An operator may have written a whole access network as a trunk's address."""
    trunk(f"{telco.address}/31")
    with Agent(telco, port=5075) as customer:
        bound = registered(customer, instance, acme.domain)
        ours, _ = answered_call(instance, customer, bound)
        ours.hang_up(customer)


def test_a_carrier_that_has_closed_its_connection_is_called_where_it_listens(
    acme: Tenant, number: Make, trunk: Make, carrier: Agent, instance: Agent
) -> None:
    telco = carrier.machine
    trunk(telco.address, transport="tcp")
    number("0721405123", tenant=acme.name)
    with Agent(telco, "tcp") as border, Listener(telco) as listener:
        contact = f"<sip:{listener.hostport};transport=tcp>"
        ours = border.begin("INVITE", f"sip:0721405123@{border.node}", body=border.sdp(), contact=contact)
        invite = instance.expect("INVITE")
        theirs = Talk.answering(instance, invite, "c")
        instance.reply(invite, 200, tag="c", body=instance.sdp())
        ours.learn(border.expect(200)).ack()
        instance.expect("ACK")
        border.socket.close()
        theirs.send("BYE")
        listener.reply(listener.expect("BYE"), 200)
        instance.expect(200)


def test_a_path_that_a_phone_writes_reaches_no_registrar(acme: Tenant, phone: Agent, instance: Agent) -> None:
    path = "Path: <sip:198.51.100.9;lr>"
    phone.begin("REGISTER", f"sip:{acme.domain}", headers=[path, f"Contact: <sip:7@{phone.hostport}>"])
    asked = instance.expect("REGISTER")
    assert not asked.headers("Path")
    instance.reply(asked, 401)
    phone.expect(401)
