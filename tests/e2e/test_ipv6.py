"""IPv6: a node that has nothing else, literal addresses in brackets, phones of both families at once.

Which phone meets which instance, in either family, is in `test_media`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lab.addresses import GATEWAY, INTERNET, NODE, SERVICE
from lab.agent import Agent, Talk, answered_call, registered
from lab.calls import expect_audio, received
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.packets import Address
from lab.sip import Message
from lab.sipp import Transport, sipp
from lab.talker import Talker

from .conftest import Tenant

TRANSPORTS = pytest.mark.parametrize("transport", ["udp", "tcp"])
V6 = re.compile(r"(?:2001:db8:1|fd00:5:4)::[0-9a-f]+")


def bare(message: Message) -> list[str]:
    """Where a message's start line, URIs and Via addresses have an IPv6 address without brackets (RFC 3261, 25.1)."""
    sent_by = [text.partition(";")[0] for text in message.headers("Via")]
    uris = re.findall(r"sips?:[^>\s,]+", message.head)
    return [text for text in [*sent_by, *uris] for found in V6.finditer(text) if text[found.start() - 1] != "["]


def bracketed_in_sdp(message: Message) -> list[str]:
    """Lines of an SDP with brackets, which has none (RFC 8866, 9)."""
    return [line for line in message.body.splitlines() if "[" in line]


# --- a node without IPv4 ----------------------------------------------------------------------------------------------


def test_a_node_may_have_ipv6_alone(own_lab: Lab) -> None:
    network = {
        "address": INTERNET.host(NODE)[1],
        "service_address": SERVICE.host(GATEWAY)[1],
        "service_networks": [f"{SERVICE.v6}/64"],
        "local_networks": [],
    }
    with Node(own_lab, settings={"network": network}) as node:
        bob, pbx = own_lab.phone("bob"), own_lab.instance("pbx")
        node.route_add("acme", ["acme.example"], [{"uri": f"sip:[{pbx.address6}]:5060"}])
        for transport in ("udp", "tcp"):
            callee = sipp(pbx, "call-answered", "uas", ipv6=True)
            sipp(bob, "call-answered", transport=transport, ipv6=True, talk=1.3)
            callee.wait()
            expect_audio(bob, pbx)
            registrar = sipp(pbx, "register", "uas", ipv6=True)
            registered = sipp(
                bob, "register", transport=transport, ipv6=True, answers="call-answered", talk=30, background=True
            )
            registrar.wait()
            registered.wait_for("registered")
            sipp(pbx, "call-from-instance", ipv6=True, keys={"target": registrar.saved["contact"]}, talk=1.3)
            registered.stop()
            expect_audio(bob, pbx)
        assert [m for m in own_lab.wire.messages(machine="node") if ":" not in m.destination.host] == []


# --- literal addresses ------------------------------------------------------------------------------------------------


@TRANSPORTS
@pytest.mark.parametrize("instance6", [True, False], ids=["instance-ipv6", "instance-ipv4"])
@pytest.mark.parametrize("phone6", [True, False], ids=["phone-ipv6", "phone-ipv4"])
def test_literal_addresses_are_in_brackets_wherever_a_uri_has_one(
    phone6: bool, instance6: bool, transport: Transport, bob: Machine, pbx: Machine, tenant: Callable[..., Tenant]
) -> None:
    uri = f"sip:[{pbx.address6}]:5060" if instance6 else f"sip:{pbx.address}:5060"
    acme = tenant({"uri": uri})
    with Agent(bob, transport, ipv6=phone6) as phone, Agent(pbx, ipv6=instance6) as instance:
        bound = registered(phone, instance, acme.domain)
        for caller, callee, target in ((phone, instance, f"sip:200@{acme.domain}"), (instance, phone, bound)):
            ours, theirs = answered_call(caller, callee, target, domain=acme.domain)
            for talk, peer in ((ours, callee), (theirs, caller)):
                talk.send("UPDATE", body=talk.agent.sdp(2))
                peer.reply(peer.expect("UPDATE"), 200, body=peer.sdp(2))
                talk.agent.expect(200)
            theirs.hang_up(caller)
    for machine, own in ((bob, phone6), (pbx, instance6)):
        messages = received(machine)
        assert [found for m in messages for found in (*bare(m), *bracketed_in_sdp(m))] == []
        families = {family for m in messages for family in re.findall(r"IN (IP[46]) ", m.body)}
        assert families == {"IP6" if own else "IP4"}
        assert any(V6.search(m.head) for m in messages) is own or own is False


# --- both at once -----------------------------------------------------------------------------------------------------


def described(own: Address, session: str, media: str, more: str = "") -> str:
    """An SDP whose session and whose stream name addresses of their own."""

    def connection(host: str) -> str:
        return f"c=IN {'IP6' if ':' in host else 'IP4'} {host}\r\n"

    return (
        f"v=0\r\no=- 1 1 IN {'IP6' if ':' in session else 'IP4'} {session}\r\ns=-\r\n{connection(session)}t=0 0\r\n"
        f"m=audio {own.port} RTP/AVP 8\r\n{connection(media) if media != session else ''}a=rtpmap:8 PCMA/8000\r\n{more}"
    )


@pytest.fixture
def talker() -> Iterator[Callable[..., Talker]]:
    """Make talkers; they fall silent with the test."""
    with ExitStack() as open_:
        yield lambda *place, **more: open_.enter_context(Talker(*place, **more))


@pytest.mark.parametrize("session", ["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("role", "media", "signals"),
    [
        *(("caller", media, signals) for media in ("ipv4", "ipv6") for signals in ("ipv4", "ipv6")),
        # An answer is of its offer's family, and the offer of the flow's.
        *(("callee", family, family) for family in ("ipv4", "ipv6")),
    ],
)
def test_a_phone_of_both_families_has_audio_in_the_one_its_stream_names(
    role: str, media: str, session: str, signals: str, bob: Machine, instance: Agent, acme: Tenant,
    talker: Callable[..., Talker],
) -> None:  # fmt: skip
    of = {"ipv4": bob.address, "ipv6": bob.address6}
    ear, other = talker(bob, host=of[media]), talker(instance.machine)
    both = "".join(
        f"a=candidate:{n} 1 UDP {2130706431 - n} {host} {ear.place.port} typ host\r\n"
        for n, host in enumerate(of.values())
    )
    body = described(ear.place, of[session], of[media], both)
    with Agent(bob, ipv6=signals == "ipv6") as phone:
        caller, callee, uri = phone, instance, f"sip:200@{acme.domain}"
        bodies = body, instance.sdp(media=other.place)
        if role == "callee":
            caller, callee, uri, bodies = instance, phone, registered(phone, instance, acme.domain), bodies[::-1]
        ours = caller.begin("INVITE", uri, body=bodies[0], domain=acme.domain)
        invite = callee.expect("INVITE")
        theirs = Talk.answering(callee, invite, "callee")
        callee.reply(invite, 200, tag="callee", body=bodies[1])
        ok = caller.expect(200)
        ours.learn(ok).ack()
        callee.expect("ACK")
        told = ok.media if role == "caller" else invite.media
        heard = invite.media if role == "caller" else ok.media
        assert told
        assert heard
        ear.to(Address(*told))
        other.to(Address(*heard))
        eventually(lambda: ear.hears(other) > 10 and other.hears(ear) > 10, what="audio flows both ways")
        # The description that it got is of the family of its own.
        assert (":" in told.host) is (media == "ipv6")
        theirs.hang_up(caller)
