"""Trunks over TLS: nothing is said to a carrier that has not shown that it is the one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes

from lab.agent import Agent, Talk, answered_call, busy_call, refused_call, registered
from lab.eventually import eventually
from lab.network import Machine
from lab.node import FQDN, Node
from lab.pki import AUTHORITY, PRIVATE, Authority, Pair, names
from lab.secure import SecureCarrier
from sipward.live import PEERS

from .conftest import Tenant

type Make = Callable[..., str]
type Secure = Callable[..., SecureCarrier]
type Check = Callable[[SecureCarrier], None]
NAME = "sbc.telco.example"


def peers(node: Node) -> dict[str, str]:
    """What is known of the targets over TLS."""
    slots = node.rpc("htable.dump", PEERS) or []
    return {item["name"]: str(item["value"]) for slot in slots for item in slot["slot"]}


def is_proven(node: Node, carrier: Agent, trunk: str) -> bool:
    return trunk in peers(node).get(f"tls:{carrier.hostport}", "").split()[1:]


def doubt(node: Node, carrier: Agent) -> str:
    return peers(node).get(f"!tls:{carrier.hostport}", "")


@pytest.fixture
def secure(telco: Machine) -> Iterator[Callable[..., SecureCarrier]]:
    """The carrier, showing a certificate."""
    with ExitStack() as running:
        yield lambda pair, **how: running.enter_context(SecureCarrier(telco, pair, **how))


@pytest.fixture
def nothing_is_said(acme: Tenant, instance: Agent) -> Callable[[SecureCarrier], None]:
    """A call to the carrier is refused at once, and the carrier hears nothing of it."""

    def check(carrier: SecureCarrier) -> None:
        refused_call(instance, f"sip:0541201123@{carrier.host}", 503)
        carrier.expect_silence(0.1)

    return check


# --- the carrier itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_a_call_goes_out_over_tls_and_all_that_belongs_to_it(
    ipv6: bool, node: Node, telco: Machine, secure: Secure, trunk: Make, acme: Tenant, instance: Agent
) -> None:
    carrier = secure(AUTHORITY.issue(NAME), host=telco.address6 if ipv6 else "")
    name = trunk(carrier.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
    eventually(lambda: is_proven(node, carrier, name), what="the carrier is known")
    host = f"[{carrier.host}]" if ipv6 else carrier.host
    ours, theirs = answered_call(instance, carrier, f"sip:0541201123@{host}", domain=acme.domain)
    for talk, peer in ((ours, carrier), (theirs, instance)):
        talk.send("INFO")
        peer.reply(peer.expect("INFO"), 200)
        talk.agent.expect(200)
    ours.hang_up(carrier)
    assert len(carrier.connections) == 1
    assert carrier.names_asked_for == [NAME]


def test_an_instance_registers_and_is_called_by_the_connection_that_the_node_has_opened(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, instance: Agent
) -> None:
    carrier = secure(AUTHORITY.issue(NAME))
    name = trunk(carrier.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
    eventually(lambda: is_proven(node, carrier, name))
    bound = registered(instance, carrier, carrier.host)
    assert bound.endswith("@203.0.113.10:5061;transport=tls")
    ours = carrier.begin("INVITE", bound, body=carrier.sdp())
    invite = instance.expect("INVITE")
    assert invite.uri == instance.contact("alice")
    theirs = Talk.answering(instance, invite, "i")
    instance.reply(invite, 200, tag="i", body=instance.sdp())
    ours.learn(carrier.expect(200)).ack()
    instance.expect("ACK")
    theirs.hang_up(carrier)


def test_a_call_of_a_carrier_that_connects_goes_both_ways_over_its_connection(
    node: Node, telco: Machine, trunk: Make, number: Make, acme: Tenant, instance: Agent
) -> None:
    """It is known by its address, as over UDP; nobody listens where the trunk says."""
    trunk(telco.address, transport="tls", tls={"name": NAME}, tenants=[acme.name])
    number("0721405XX", tenant=acme.name)
    with Agent(telco, "tls") as carrier:
        ours, theirs = answered_call(carrier, instance, f"sip:072140512@{carrier.node}")
        theirs.send("INFO")
        carrier.reply(carrier.expect("INFO"), 200)
        instance.expect(200)
        ours.hang_up(instance)


def test_a_connection_that_the_carrier_closes_is_opened_again_and_calls_that_were_up_go_on(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, instance: Agent
) -> None:
    carrier = secure(AUTHORITY.issue(NAME))
    name = trunk(carrier.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
    eventually(lambda: is_proven(node, carrier, name))
    ours, _ = answered_call(instance, carrier, f"sip:0541201123@{carrier.host}", domain=acme.domain)
    first = peers(node)[f"tls:{carrier.hostport}"]
    carrier.hang_up()
    eventually(lambda: peers(node).get(f"tls:{carrier.hostport}", first) != first)
    ours.send("INFO")
    carrier.reply(carrier.expect("INFO"), 200)
    instance.expect(200)
    ours.hang_up(carrier)


# --- nobody else --------------------------------------------------------------------------------------------------


SHOWN: dict[str, tuple[Callable[[], Pair], str]] = {
    "of another name": (lambda: AUTHORITY.issue("other.example"), "of other.example, not of sbc.telco.example"),
    "of a name below": (lambda: AUTHORITY.issue(f"x.{NAME}"), "not of sbc.telco.example"),
    "of an unknown CA": (lambda: Authority().issue(NAME), "not signed by a CA that is known"),
    "of a CA for others": (lambda: PRIVATE.issue(NAME), "not signed by a CA that is known"),
    "expired": (lambda: AUTHORITY.issue(NAME, begins=LONG_AGO, life=timedelta(days=1)), "is not valid"),
}
LONG_AGO = datetime.now(UTC) - timedelta(days=10)


@pytest.mark.parametrize("shown", SHOWN)
def test_nothing_is_said_to_who_shows_a_certificate(
    shown: str, node: Node, secure: Secure, trunk: Make, acme: Tenant, nothing_is_said: Check
) -> None:
    pair, why = SHOWN[shown]
    carrier = secure(pair())
    trunk(carrier.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
    eventually(lambda: why in doubt(node, carrier), what=why)
    nothing_is_said(carrier)
    carriers = eventually(lambda: (part := node.status()["components"]["carriers"])["state"] == "degraded" and part)
    assert why in carriers["detail"]


def test_nothing_is_said_to_who_does_not_answer(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, nothing_is_said: Check
) -> None:
    carrier = secure(AUTHORITY.issue(NAME), answers=False)
    trunk(carrier.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
    eventually(lambda: carrier.asked)
    nothing_is_said(carrier)


def test_nothing_more_is_said_to_who_has_taken_a_carriers_place(
    node: Node, telco: Machine, trunk: Make, acme: Tenant, instance: Agent, nothing_is_said: Check
) -> None:
    with SecureCarrier(telco, AUTHORITY.issue(NAME)) as carrier:
        name = trunk(carrier.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
        eventually(lambda: is_proven(node, carrier, name))
        ours, _ = answered_call(instance, carrier, f"sip:0541201123@{carrier.host}", domain=acme.domain)
    with SecureCarrier(telco, AUTHORITY.issue("impostor.example")) as impostor:
        eventually(lambda: "impostor.example" in doubt(node, impostor))
        nothing_is_said(impostor)
        ours.send("BYE")
        instance.expect(503)
        impostor.expect_silence(0.1)


# --- exceptions, in so many words ---------------------------------------------------------------------------------


def test_a_certificate_is_right_by_its_fingerprint_whoever_has_signed_it(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, instance: Agent, nothing_is_said: Check
) -> None:
    pair = Authority().issue("whatever.example")
    carrier = secure(pair)
    fingerprint = pair.links[0].fingerprint(hashes.SHA256()).hex(":").upper()
    wrong = {"fingerprints": [fingerprint[:-2] + ("00" if fingerprint[-2:] != "00" else "01")]}
    trunk(carrier.host, name="pinned", transport="tls", tls=wrong, tenants=[acme.name])
    eventually(lambda: "fingerprint" in doubt(node, carrier))
    nothing_is_said(carrier)
    trunk(carrier.host, name="pinned", transport="tls", tls={"fingerprints": [fingerprint]}, tenants=[acme.name])
    eventually(lambda: is_proven(node, carrier, "pinned"))
    busy_call(instance, carrier, f"sip:0541201123@{carrier.host}")


def test_a_carriers_own_ca_counts_for_it_and_so_does_its_name(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, instance: Agent
) -> None:
    carrier = secure(PRIVATE.issue(NAME))
    own = {"name": NAME, "profile": "private"}
    name = trunk(carrier.host, transport="tls", tls=own, tenants=[acme.name])
    eventually(lambda: is_proven(node, carrier, name))
    busy_call(instance, carrier, f"sip:0541201123@{carrier.host}")


def test_a_carriers_own_ca_is_the_only_one_that_counts_for_it(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, nothing_is_said: Check
) -> None:
    carrier = secure(AUTHORITY.issue(NAME))
    trunk(carrier.host, transport="tls", tls={"name": NAME, "profile": "private"}, tenants=[acme.name])
    eventually(lambda: "not signed by a CA" in doubt(node, carrier))
    nothing_is_said(carrier)


def test_a_carrier_that_wants_a_certificate_gets_the_profiles(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, instance: Agent
) -> None:
    carrier = secure(PRIVATE.issue(NAME), roots=PRIVATE.root.chain)
    own = {"name": NAME, "profile": "private"}
    name = trunk(carrier.host, transport="tls", tls=own, tenants=[acme.name])
    eventually(lambda: is_proven(node, carrier, name))
    busy_call(instance, carrier, f"sip:0541201123@{carrier.host}")
    assert names(carrier.connections[-1]) == {FQDN}


def test_an_address_is_a_name_too_and_the_one_that_counts_when_no_other_is_given(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, instance: Agent
) -> None:
    carrier = secure(AUTHORITY.issue("203.0.113.80", "203.0.113.81", "203.0.113.82", "203.0.113.83", "203.0.113.84"))
    name = trunk(carrier.host, transport="tls", tenants=[acme.name])
    eventually(lambda: is_proven(node, carrier, name))
    busy_call(instance, carrier, f"sip:0541201123@{carrier.host}")
    assert carrier.names_asked_for == [""]


def test_of_two_trunks_to_one_carrier_only_the_one_that_it_proves_is_used(
    node: Node, secure: Secure, trunk: Make, acme: Tenant, initech: Tenant, instance: Agent, other_instance: Agent
) -> None:
    carrier = secure(AUTHORITY.issue(NAME))
    right = trunk(carrier.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
    wrong = trunk(carrier.host, transport="tls", tls={"name": "other.example"}, tenants=[initech.name])
    eventually(lambda: is_proven(node, carrier, right) and "not of other.example" in doubt(node, carrier))
    assert not is_proven(node, carrier, wrong)
    busy_call(instance, carrier, f"sip:0541201123@{carrier.host}")
    refused_call(other_instance, f"sip:0541201123@{carrier.host}", 503)
    carrier.expect_silence(0.1)


def test_a_carrier_whose_first_border_is_somebody_else_is_reached_by_the_second(
    node: Node, telco: Machine, secure: Secure, trunk: Make, acme: Tenant, instance: Agent
) -> None:
    first = secure(Authority().issue(NAME))
    second = secure(AUTHORITY.issue(NAME), host=telco.addresses[1])
    name = trunk(first.host, second.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
    eventually(lambda: is_proven(node, second, name) and doubt(node, first))
    busy_call(instance, second, f"sip:0541201123@{first.host}")
    first.expect_silence(0.1)
