"""Carriers by their names: NAPTR, SRV and addresses lead to the borders (RFC 3263), and no call waits for DNS."""

import json
from collections.abc import Callable, Iterator

import pytest

from lab.agent import Agent, answered_call, busy_call, refused_call
from lab.dns import Dns, asks, host, naptr, srv
from lab.eventually import eventually
from lab.network import Lab
from lab.node import Node

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left")

type Make = Callable[..., str]
NUMBER = "0721405123"
LOOKED_UP_WITHIN = 15.0
"""A name is asked for again when its answer is old, and not more often than the node thinks right."""


@pytest.fixture
def dns(lab: Lab) -> Iterator[Dns]:
    """A name server that knows nothing yet."""
    with Dns(lab) as server:
        yield server


@pytest.fixture
def two_borders(dns: Dns, carrier: Agent, second_border: Agent) -> Dns:
    """One name with two borders, the second one for when the first is dead."""
    return dns.change(
        host("b1.telco.example", carrier.host),
        host("b2.telco.example", second_border.host),
        srv("telco.example", "b2.telco.example", priority=20),
        srv("telco.example", "b1.telco.example", priority=10),
    )


def lead_to(node: Node, trunk: str, *agents: Agent) -> None:
    """Wait until a trunk's names lead to these, in this order."""
    wanted = [f"udp:{agent.hostport}" for agent in agents]
    eventually(lambda: node.targets(trunk) == wanted, LOOKED_UP_WITHIN, f"{trunk} leads to {wanted}")


# --- what names mean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("records", ["address", "srv", "naptr"])
def test_a_name_leads_to_its_carrier_and_says_who_calls(
    records: str, dns: Dns, acme: Tenant, number: Make, trunk: Make, carrier: Agent, other_carrier: Agent,
    instance: Agent, node: Node,
) -> None:  # fmt: skip
    number(NUMBER, tenant=acme.name)
    here = host("b1.telco.example", carrier.host)
    lines = {
        "address": [host("telco.example", carrier.host)],
        "srv": [here, srv("telco.example", "b1.telco.example")],
        "naptr": [here, naptr("telco.example", "_sip._udp.pool.example"), srv("pool.example", "b1.telco.example")],
    }
    dns.change(*lines[records])
    name = trunk("telco.example", tenants=[acme.name])
    lead_to(node, name, carrier)
    assert busy_call(instance, carrier, "sip:0541201123@telco.example").uri == "sip:0541201123@telco.example"
    invite = busy_call(carrier, instance, f"sip:{NUMBER}@sip.telco.example")
    assert invite.headers("X-Sipward-Trunk") == [name]
    refused_call(other_carrier, f"sip:{NUMBER}@sip.telco.example", 404)


def test_a_name_with_a_port_needs_no_srv(
    dns: Dns, acme: Tenant, trunk: Make, carrier: Agent, second_border: Agent, instance: Agent, node: Node
) -> None:
    """RFC 3263, 4.2: with a port it is an address that is looked for."""
    dns.change(
        host("telco.example", carrier.host), srv("telco.example", "b2.telco.example"),
        host("b2.telco.example", second_border.host),
    )  # fmt: skip
    with Agent(carrier.machine, port=5070) as border:
        lead_to(node, trunk("telco.example:5070", tenants=[acme.name]), border)
        busy_call(instance, border, "sip:0541201123@telco.example:5070")


def test_a_name_may_have_ipv6_addresses_alone(
    dns: Dns, acme: Tenant, number: Make, trunk: Make, carrier: Agent, instance: Agent, node: Node
) -> None:
    number(NUMBER, tenant=acme.name)
    with Agent(carrier.machine, ipv6=True) as border:
        dns.change(host("telco.example", border.host))
        name = trunk("telco.example", tenants=[acme.name])
        eventually(lambda: node.targets(name) == [f"udp:{border.hostport}"], LOOKED_UP_WITHIN)
        busy_call(instance, border, "sip:0541201123@telco.example")
        busy_call(border, instance, f"sip:{NUMBER}@{border.node}")


@pytest.mark.usefixtures("two_borders")
def test_the_order_of_srv_records_is_the_order_of_trying(
    acme: Tenant, trunk: Make, carrier: Agent, second_border: Agent, node: Node
) -> None:
    lead_to(node, trunk("telco.example", tenants=[acme.name]), carrier, second_border)


# --- when a border is dead -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_borders")
def test_when_the_first_border_is_silent_the_second_one_rings(
    acme: Tenant, trunk: Make, carrier: Agent, second_border: Agent, instance: Agent, node: Node
) -> None:
    lead_to(node, trunk("telco.example", tenants=[acme.name]), carrier, second_border)
    invite = busy_call(instance, second_border, "sip:0541201123@telco.example")
    assert invite.uri == "sip:0541201123@telco.example"
    assert carrier.expect("INVITE").call_id == invite.call_id, "the first one was asked first"


@pytest.mark.usefixtures("two_borders")
@pytest.mark.parametrize("status", [500, 503])
def test_when_the_first_border_is_broken_the_second_one_rings(
    status: int, acme: Tenant, trunk: Make, carrier: Agent, second_border: Agent, instance: Agent, node: Node
) -> None:
    lead_to(node, trunk("telco.example", tenants=[acme.name]), carrier, second_border)
    ours = instance.begin("INVITE", "sip:0541201123@telco.example", body=instance.sdp())
    carrier.reply(carrier.expect("INVITE"), status, tag="c")
    carrier.expect("ACK")
    second_border.reply(second_border.expect("INVITE"), 200, tag="callee", body=second_border.sdp())
    ours.learn(instance.expect(200)).ack()
    second_border.expect("ACK")
    ours.hang_up(second_border)


@pytest.mark.usefixtures("two_borders")
@pytest.mark.parametrize("status", [403, 404, 480, 486, 603])
def test_what_a_border_says_of_the_call_is_the_answer(
    status: int, acme: Tenant, trunk: Make, carrier: Agent, second_border: Agent, instance: Agent, node: Node
) -> None:
    lead_to(node, trunk("telco.example", tenants=[acme.name]), carrier, second_border)
    instance.begin("INVITE", "sip:0541201123@telco.example", body=instance.sdp())
    carrier.reply(carrier.expect("INVITE"), status, tag="c")
    carrier.expect("ACK")
    instance.acknowledge(instance.expect(status))
    assert not second_border.has_something()


# --- when DNS is ill -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_borders")
def test_while_dns_hangs_calls_go_on_and_new_ones_do_not_wait(
    dns: Dns, acme: Tenant, initech: Tenant, number: Make, trunk: Make, tenant: Callable[..., Tenant], carrier: Agent,
    second_border: Agent, other_carrier: Agent, instance: Agent, other_instance: Agent, phone: Agent, node: Node,
    lab: Lab,
) -> None:  # fmt: skip
    number(NUMBER, tenant=acme.name)
    name = trunk("telco.example", tenants=[acme.name])
    lead_to(node, name, carrier, second_border)
    up, _ = answered_call(instance, carrier, "sip:0541201123@telco.example")
    with dns.hung():
        lab.wire.clear()
        eventually(lambda: asks(lab.wire) > 0, LOOKED_UP_WITHIN, "the node asks a server that hangs")
        new = trunk("other.example", tenants=[initech.name], name="unheard")
        busy_call(instance, carrier, "sip:0541201123@telco.example")
        busy_call(carrier, instance, f"sip:{NUMBER}@{carrier.node}")
        busy_call(phone, instance, f"sip:200@{acme.domain}")
        assert refused_call(other_instance, "sip:0541201123@other.example", 503).header("Retry-After")
        # An edit is not behind it either: trunks and tenants that need no name.
        trunk(other_carrier.host, tenants=[initech.name])
        busy_call(other_instance, other_carrier, f"sip:0541201123@{other_carrier.host}")
        fresh = tenant(instance.machine)
        busy_call(phone, instance, f"sip:200@{fresh.domain}")
        up.send("INFO")
        carrier.reply(carrier.expect("INFO"), 200)
        instance.expect(200)
        assert node.targets(name) == [f"udp:{carrier.hostport}", f"udp:{second_border.hostport}"]
        assert node.targets(new) == []
    dns.change(host("other.example", other_carrier.host), host("telco.example", carrier.host))
    lead_to(node, new, other_carrier)
    up.hang_up(carrier)


def test_while_dns_is_away_a_name_keeps_its_last_addresses_and_status_says_so(
    dns: Dns, acme: Tenant, trunk: Make, carrier: Agent, instance: Agent, node: Node
) -> None:
    dns.change(host("telco.example", carrier.host))
    name = trunk("telco.example", tenants=[acme.name])
    lead_to(node, name, carrier)
    dns.stop()
    why = eventually(lambda: unresolved(node).get("telco.example"), what="the node has asked again")
    assert why.endswith("the last answer goes on"), why
    assert node.targets(name) == [f"udp:{carrier.hostport}"]
    busy_call(instance, carrier, "sip:0541201123@telco.example")
    assert f"not resolved: telco.example: {why}" in node.sipward("status").output
    assert node.ready


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.5.4.11", "must not reach into network.service_networks (10.5.4.0/24)"),
        ("127.0.0.1", "must not reach into loopback"),
    ],
)
def test_a_name_must_not_lead_inside(address: str, why: str, dns: Dns, trunk: Make, node: Node) -> None:
    name = f"{address.replace('.', '-')}.example"
    dns.change(host(name, address))
    carrier = trunk(name)
    told = eventually(lambda: unresolved(node).get(name), what="the answer is refused")
    assert told == f"{address} {why}; there is no older answer"
    assert node.targets(carrier) == []


def test_a_node_starts_without_dns_by_its_last_answers(own_lab: Lab) -> None:
    carrier = own_lab.carrier()
    with Dns(own_lab, [host("telco.example", carrier.address)]) as dns:
        node = Node(own_lab)
        with node:
            said = json.dumps({"addresses": ["telco.example"], "tenants": ["*"]})
            assert node.redis("SET", "sipward:trunk:telco", said) == "OK"
            found = eventually(lambda: node.targets("telco"), what="the name is resolved")
            assert found == [f"udp:{carrier.address}:5060"]
        dns.stop()
        with node:
            eventually(lambda: node.targets("telco") == found, what=f"its last answer: {unresolved(node)}")


def unresolved(node: Node) -> dict[str, str]:
    """The names that the node has no answer for, with the reason."""
    names: dict[str, str] = node.status()["components"]["routes"]["unresolved"]
    return names


def test_a_carrier_that_moves_is_followed(
    dns: Dns, acme: Tenant, number: Make, trunk: Make, carrier: Agent, other_carrier: Agent, instance: Agent, node: Node
) -> None:
    number(NUMBER, tenant=acme.name)
    dns.change(host("telco.example", carrier.host))
    name = trunk("telco.example", tenants=[acme.name])
    lead_to(node, name, carrier)
    ours, _ = answered_call(instance, carrier, "sip:0541201123@telco.example")
    dns.change(host("telco.example", other_carrier.host))
    lead_to(node, name, other_carrier)
    busy_call(instance, other_carrier, "sip:0541201123@telco.example")
    busy_call(other_carrier, instance, f"sip:{NUMBER}@telco.example")
    refused_call(carrier, f"sip:{NUMBER}@telco.example", 404)
    ours.hang_up(carrier)
