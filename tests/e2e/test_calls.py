"""Calls from outside to a tenant's instance, and from the instance to its phones, with audio both ways."""

from collections.abc import Callable

import pytest

from lab.calls import expect_audio
from lab.network import Machine
from lab.node import Node
from lab.sipp import Transport, sipp

from .conftest import Tenant

TRANSPORTS = pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
FAMILIES = pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])


@TRANSPORTS
@FAMILIES
def test_a_call_is_answered_and_heard_both_ways(
    transport: Transport, ipv6: bool, bob: Machine, pbx: Machine, tenant: Callable[..., Tenant]
) -> None:
    acme = tenant(pbx)
    callee = sipp(pbx, "call-answered", "uas")
    sipp(bob, "call-answered", transport=transport, ipv6=ipv6, keys=acme.keys, talk=1.3)
    callee.wait()
    expect_audio(bob, pbx)


@TRANSPORTS
def test_a_call_from_behind_the_symmetric_nat_is_heard_both_ways(
    transport: Transport, alice: Machine, pbx_on_node: Machine, tenant: Callable[..., Tenant]
) -> None:
    acme = tenant(pbx_on_node)
    callee = sipp(pbx_on_node, "call-answered", "uas")
    sipp(alice, "call-answered", transport=transport, keys=acme.keys, talk=1.3)
    callee.wait()
    expect_audio(alice, pbx_on_node)


@pytest.mark.parametrize("scenario", ["callee-hangs-up", "call-cancelled", "busy-486", "hold-resume", "late-offer"])
@TRANSPORTS
def test_a_call_goes_as_the_scenario_says(
    scenario: str, transport: Transport, bob: Machine, pbx: Machine, tenant: Callable[..., Tenant]
) -> None:
    acme = tenant(pbx)
    callee = sipp(pbx, scenario, "uas", talk=0.5)
    sipp(bob, scenario, transport=transport, keys=acme.keys, talk=0.5)
    callee.wait()


def test_a_repeated_200_goes_the_way_of_the_first(bob: Machine, pbx: Machine, tenant: Callable[..., Tenant]) -> None:
    """SIPp takes a repeated reply over TCP, where nothing repeats by itself, for a mistake; so UDP it is."""
    acme = tenant(pbx)
    callee = sipp(pbx, "late-ack", "uas", talk=0.5)
    sipp(bob, "late-ack", keys=acme.keys, talk=0.5)
    callee.wait()


@pytest.mark.parametrize("where", ["pbx", "pbx_on_node"])
@pytest.mark.parametrize("who", ["bob", "alice", "rob"])
@TRANSPORTS
def test_a_registered_phone_is_called_by_its_pbx(
    where: str, who: str, transport: Transport, tenant: Callable[..., Tenant], request: pytest.FixtureRequest
) -> None:
    instance, phone = request.getfixturevalue(where), request.getfixturevalue(who)
    acme = tenant(instance)
    registrar = sipp(instance, "register", "uas", keys=acme.keys)
    registered = sipp(
        phone, "register", transport=transport, keys=acme.keys, answers="call-answered", talk=30, background=True
    )
    registrar.wait()
    registered.wait_for("registered")
    sipp(instance, "call-from-instance", keys=acme.keys | {"target": registrar.saved["contact"]}, talk=1.3)
    registered.stop()
    expect_audio(phone, instance)


@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "OPTIONS", "MESSAGE", "SUBSCRIBE", "BYE"])
@TRANSPORTS
def test_an_unknown_domain_is_not_found(method: str, transport: Transport, node: Node, bob: Machine) -> None:
    sipp(bob, "unknown-tenant-404", transport=transport, keys={"domain": "nobody.example", "method": method})


@TRANSPORTS
@FAMILIES
def test_the_node_answers_options_itself(transport: Transport, ipv6: bool, node: Node, bob: Machine) -> None:
    host = node.machine.like(bob.address6 if ipv6 else bob.address)
    port = 5061 if transport == "tls" else 5060
    target = f"sip:[{host}]:{port}" if ipv6 else f"sip:{host}:{port}"
    sipp(bob, "options-200", transport=transport, ipv6=ipv6, keys={"target": target})


@pytest.mark.parametrize("method", ["MESSAGE", "SUBSCRIBE", "PUBLISH", "NOTIFY", "REFER", "INFO", "UPDATE", "OPTIONS"])
def test_a_request_of_any_method_reaches_the_instance(
    method: str, bob: Machine, pbx: Machine, tenant: Callable[..., Tenant]
) -> None:
    acme = tenant(pbx)
    instance = sipp(pbx, "request-200", "uas")
    sipp(bob, "request-200", keys=acme.keys | {"method": method})
    instance.wait()
