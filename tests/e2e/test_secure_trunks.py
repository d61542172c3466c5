"""Trunks over TLS: nothing is said to a carrier that has not shown that it is the one."""

from collections.abc import Callable

from lab.agent import Agent, answered_call
from lab.eventually import eventually
from lab.network import Machine
from lab.node import Node
from lab.pki import AUTHORITY
from lab.secure import SecureCarrier
from sipward.live import PEERS

from .conftest import Tenant

type Make = Callable[..., str]
NAME = "sbc.telco.example"


def peers(node: Node) -> dict[str, str]:
    """What is known of the targets over TLS."""
    slots = node.rpc("htable.dump", PEERS) or []
    return {item["name"]: str(item["value"]) for slot in slots for item in slot["slot"]}


def is_proven(node: Node, carrier: Agent, trunk: str) -> bool:
    return trunk in peers(node).get(f"tls:{carrier.hostport}", "").split()[1:]


def doubt(node: Node, carrier: Agent) -> str:
    return peers(node).get(f"!tls:{carrier.hostport}", "")


def test_a_call_goes_out_and_one_comes_in_over_tls(
    node: Node, telco: Machine, trunk: Make, number: Make, acme: Tenant, instance: Agent
) -> None:
    with SecureCarrier(telco, AUTHORITY.issue(NAME)) as carrier:
        name = trunk(carrier.host, transport="tls", tls={"name": NAME}, tenants=[acme.name])
        eventually(lambda: is_proven(node, carrier, name), what="the carrier is known")
        ours, theirs = answered_call(instance, carrier, f"sip:0541201123@{carrier.host}", domain=acme.domain)
        for talk, peer in ((ours, carrier), (theirs, instance)):
            talk.send("INFO")
            peer.reply(peer.expect("INFO"), 200)
            talk.agent.expect(200)
        ours.hang_up(carrier)
        assert len(carrier.connections) == 1
