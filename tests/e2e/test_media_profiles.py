"""What each leg is offered, message by message: what a phone has shown, what settings say, and one second try."""

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest

from lab.agent import Agent, Talk, registered
from lab.eventually import eventually
from lab.network import Machine
from lab.node import Node
from lab.sip import Message
from sipward.live import tenant_key

from .conftest import Tenant

RTP, SDES, DTLS = "RTP/AVP", "RTP/SAVP", "UDP/TLS/RTP/SAVP"
KINDS = [RTP, SDES, DTLS]
SECRETS = {
    RTP: "",
    SDES: "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj\r\n",
    DTLS: "a=setup:active\r\na=fingerprint:sha-256 " + ":".join(["4A"] * 32) + "\r\n",
}
NAMES = {RTP: "off", SDES: "sdes", DTLS: "dtls"}


@pytest.fixture(autouse=True)
def leaves_no_media(no_media_left: None) -> None:
    """No test leaves a call in rtpengine."""


@pytest.fixture
def bound(phone: Agent, instance: Agent, acme: Tenant) -> Iterator[str]:
    """The phone is registered: the Contact under which its PBX knows it."""
    yield registered(phone, instance, acme.domain)
    unregister(phone, instance, acme.domain)


def unregister(phone: Agent, instance: Agent, domain: str) -> None:
    phone.begin("REGISTER", f"sip:{domain}", domain=domain, contact=f"<{phone.contact('alice')}>;expires=0")
    instance.reply(instance.expect("REGISTER"), 200, tag="u")
    phone.expect(200)


def sdp(agent: Agent, kind: str, version: int = 1) -> str:
    """A description of that kind, an offer or an answer."""
    return agent.sdp(version).replace(RTP, kind) + SECRETS[kind]


def kind(message: Message) -> str:
    """Of which kind a description is; it has all that belongs to that, and nothing of another one."""
    found = re.search(r"^m=audio [1-9]\d* (\S+)", message.body, re.MULTILINE)
    assert found, message.text
    assert ("a=crypto:" in message.body) is (found[1] == SDES), message.body
    assert ("a=fingerprint:" in message.body) is (found[1] == DTLS), message.body
    return found[1]


class Legs(NamedTuple):
    """A call's two ends, what the callee was offered and what the caller was answered."""

    ours: Talk
    theirs: Talk
    offered: str
    answered: str

    def end(self) -> "Legs":
        self.ours.hang_up(self.theirs.agent)
        return self


def call(caller: Agent, callee: Agent, uri: str, offer: str, *, headers: Sequence[str] = (), domain: str = "") -> Legs:
    """A call that is answered as it is offered. `offer`: the kind of the caller's, "" for none."""
    routes = [caller.route] if domain else []
    ours = caller.begin(
        "INVITE", uri, body=sdp(caller, offer) if offer else "", headers=headers, routes=routes,
        domain=domain or "acme.example",
    )  # fmt: skip
    invite = callee.expect("INVITE")
    return finished(ours, callee, invite, late=not offer)


def finished(ours: Talk, callee: Agent, invite: Message, late: bool = False, answer: str = "") -> Legs:
    theirs = Talk.answering(callee, invite, "callee")
    offered = answer or kind(invite)
    callee.reply(invite, 200, tag="callee", body=sdp(callee, offered))
    reply = ours.agent.expect(200)
    ours.learn(reply).ack(sdp(ours.agent, kind(reply)) if late else "")
    callee.expect("ACK")
    return Legs(ours, theirs, offered, kind(reply))


def changed(talk: Talk, peer: Agent, offer: str) -> tuple[str, str]:
    """A re-INVITE that is answered as it is offered: what the peer was offered, and the answer."""
    talk.send("INVITE", body=sdp(talk.agent, offer, 2))
    invite = peer.expect("INVITE")
    peer.reply(invite, 200, body=sdp(peer, kind(invite), 2))
    reply = talk.agent.expect(200)
    talk.ack()
    peer.expect("ACK")
    return kind(invite), kind(reply)


# --- a phone ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", KINDS)
def test_a_phone_is_answered_as_it_offers_and_offered_the_same_from_then_on(
    offer: str, phone: Agent, instance: Agent, acme: Tenant, bound: str
) -> None:
    first = call(phone, instance, f"sip:200@{acme.domain}", offer)
    assert (first.offered, first.answered) == (RTP, offer)
    # A re-INVITE of either side keeps both kinds.
    assert changed(first.theirs, phone, RTP) == (offer, RTP)
    assert changed(first.ours, instance, offer) == (RTP, offer)
    first.end()
    second = call(instance, phone, bound, RTP, domain=acme.domain)
    assert (second.offered, second.answered) == (offer, RTP)
    assert changed(second.ours, phone, RTP) == (offer, RTP)
    assert changed(second.theirs, instance, offer) == (RTP, offer)
    second.end()


def test_a_phone_that_has_offered_nothing_gets_rtp(phone: Agent, instance: Agent, acme: Tenant, bound: str) -> None:
    assert call(instance, phone, bound, RTP, domain=acme.domain).end().offered == RTP


@pytest.mark.parametrize("shown", [RTP, SDES])
def test_an_invite_without_an_offer_is_answered_with_an_offer_of_the_callers_kind(
    shown: str, phone: Agent, instance: Agent, acme: Tenant, bound: str
) -> None:
    call(phone, instance, f"sip:200@{acme.domain}", shown).end()
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}")
    invite = instance.expect("INVITE")
    legs = finished(ours, instance, invite, late=True, answer=RTP)
    assert legs.answered == shown
    legs.end()


def test_what_another_tenants_phone_or_an_unanswered_call_shows_is_not_learned(
    phone: Agent, instance: Agent, other_instance: Agent, acme: Tenant, initech: Tenant, bound: str
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=sdp(phone, SDES))
    instance.reply(instance.expect("INVITE"), 403, tag="no")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(403))
    call(phone, other_instance, f"sip:200@{initech.domain}", SDES).end()
    assert ours.call_id
    assert call(instance, phone, bound, RTP, domain=acme.domain).end().offered == RTP


def test_a_phone_that_goes_back_to_rtp_gets_rtp(phone: Agent, instance: Agent, acme: Tenant, bound: str) -> None:
    for offer in (SDES, RTP):
        call(phone, instance, f"sip:200@{acme.domain}", offer).end()
        assert call(instance, phone, bound, RTP, domain=acme.domain).end().offered == offer


def test_what_was_learned_outlives_kamailio_and_ends_with_the_registration(
    node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    bound = registered(phone, instance, acme.domain)
    call(phone, instance, f"sip:200@{acme.domain}", SDES).end()
    file = node.state_dir / "table" / "phones.jsonl"
    eventually(lambda: f"{acme.name} udp:{phone.hostport}" in (file.read_text() if file.exists() else ""))
    kamailio = next(pid for pid, name in node.processes().items() if name == "kamailio")
    os.kill(kamailio, signal.SIGKILL)
    eventually(lambda: kamailio not in node.processes() and node.ready and node.live(tenant_key(acme.name)))
    assert call(instance, phone, bound, RTP, domain=acme.domain).end().offered == SDES
    registered(phone, instance, acme.domain)
    assert call(instance, phone, bound, RTP, domain=acme.domain).end().offered == SDES
    unregister(phone, instance, acme.domain)
    assert call(instance, phone, bound, RTP, domain=acme.domain).end().offered == RTP
    eventually(lambda: acme.name not in file.read_text())


# --- a second try ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [RTP, SDES])
@pytest.mark.parametrize("call_id", ["", "1@10.5.4.11"], ids=["plain-call-id", "inner-call-id"])
def test_a_phone_that_refuses_one_kind_is_offered_the_other_once_and_then_at_once(
    call_id: str, shown: str, phone: Agent, instance: Agent, acme: Tenant, bound: str
) -> None:
    call(phone, instance, f"sip:200@{acme.domain}", shown).end()
    other = RTP if shown == SDES else SDES
    ours = instance.begin("INVITE", bound, body=sdp(instance, RTP), domain=acme.domain, call_id=call_id)
    refused = phone.expect("INVITE")
    assert kind(refused) == shown
    phone.reply(refused, 488, tag="no")
    phone.expect("ACK")
    invite = phone.expect("INVITE")
    assert kind(invite) == other
    # With the same Call-ID, From-tag and CSeq it would be the same request by another way (RFC 3261, 8.2.2.2).
    assert (invite.call_id != refused.call_id) is (not call_id)
    assert len(invite.headers("Call-ID")) == 1
    assert invite.first_line == refused.first_line
    legs = finished(ours, phone, invite)
    assert legs.answered == RTP
    assert changed(legs.ours, phone, RTP) == (other, RTP)
    assert changed(legs.theirs, instance, other) == (RTP, other)
    legs.theirs.hang_up(instance)
    assert call(instance, phone, bound, RTP, domain=acme.domain).end().offered == other


def test_a_phone_that_refuses_for_another_reason_is_asked_twice_and_no_more(
    node: Node, phone: Agent, instance: Agent, acme: Tenant, bound: str
) -> None:
    instance.begin("INVITE", bound, body=sdp(instance, RTP), domain=acme.domain, routes=[instance.route])
    for expected in (RTP, SDES):
        invite = phone.expect("INVITE")
        assert kind(invite) == expected
        phone.reply(invite, 488, tag=expected[4:5])
        phone.expect("ACK")
    instance.acknowledge(instance.expect(488))
    phone.expect_silence()
    assert call(instance, phone, bound, RTP, domain=acme.domain).end().offered == RTP


def test_a_call_that_is_cancelled_while_it_is_offered_otherwise_is_over(
    phone: Agent, instance: Agent, acme: Tenant, bound: str
) -> None:
    ours = instance.begin("INVITE", bound, body=sdp(instance, RTP), domain=acme.domain, routes=[instance.route])
    phone.reply(phone.expect("INVITE"), 488, tag="no")
    phone.expect("ACK")
    invite = phone.expect("INVITE")
    phone.reply(invite, 180, tag="ring")
    instance.expect(180)
    ours.send("CANCEL")
    instance.expect(200)
    cancel = phone.expect("CANCEL")
    assert cancel.call_id == invite.call_id
    phone.reply(cancel, 200)
    phone.reply(invite, 487, tag="ring")
    phone.expect("ACK")
    instance.acknowledge(instance.expect(487))


# --- by setting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("srtp", KINDS)
def test_an_instance_is_offered_what_its_setting_says(
    srtp: str, phone: Agent, instance: Agent, tenant: Callable[..., Tenant], pbx: Machine
) -> None:
    acme = tenant({"uri": f"sip:{pbx.address}:{pbx.sip_port}", "srtp": NAMES[srtp]})
    legs = call(phone, instance, f"sip:200@{acme.domain}", RTP)
    assert (legs.offered, legs.answered) == (srtp, RTP)
    assert changed(legs.ours, instance, RTP) == (srtp, RTP)
    legs.end()


def test_of_two_instances_each_is_offered_its_own_kind(
    phone: Agent, instance: Agent, other_instance: Agent, tenant: Callable[..., Tenant], node: Node
) -> None:
    uris = [f"sip:{agent.host}:{agent.port}" for agent in (instance, other_instance)]
    acme = tenant({"uri": uris[0], "srtp": "sdes"}, {"uri": uris[1], "priority": 2})
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=sdp(phone, RTP))
    broken = instance.expect("INVITE")
    assert kind(broken) == SDES
    instance.reply(broken, 503, tag="broken")
    instance.expect("ACK")
    invite = other_instance.expect("INVITE")
    assert kind(invite) == RTP
    legs = finished(ours, other_instance, invite)
    assert changed(legs.ours, other_instance, RTP) == (RTP, RTP)
    legs.end()
    node.forget_health()


@pytest.mark.parametrize("srtp", KINDS)
@pytest.mark.parametrize("plain", [False, True], ids=["", "isTrunk"])
def test_a_trunk_is_offered_what_its_setting_says_unless_the_instance_wants_plain_rtp(
    plain: bool, srtp: str, instance: Agent, carrier: Agent, acme: Tenant, trunk: Callable[..., str]
) -> None:
    trunk(carrier.host, tenants=[acme.name], srtp=NAMES[srtp])
    headers = ["isTrunk: 1"] if plain else []
    legs = call(instance, carrier, f"sip:0721@{carrier.host}", RTP, headers=headers, domain=acme.domain)
    assert (legs.offered, legs.answered) == (RTP if plain else srtp, RTP)
    assert changed(legs.ours, carrier, RTP) == (legs.offered, RTP)
    legs.end()


def test_a_phones_leg_is_plain_rtp_where_the_instance_wants_it(
    phone: Agent, instance: Agent, acme: Tenant, bound: str
) -> None:
    call(phone, instance, f"sip:200@{acme.domain}", SDES).end()
    legs = call(instance, phone, bound, RTP, headers=["isTrunk: 1"], domain=acme.domain)
    assert changed(legs.ours, phone, RTP) == (RTP, RTP)
    assert legs.end().offered == RTP


@pytest.mark.parametrize("offer", KINDS)
def test_a_carriers_call_is_answered_as_it_offers_and_keeps_its_kind(
    offer: str, instance: Agent, carrier: Agent, acme: Tenant, trunk: Callable[..., str]
) -> None:
    trunk(carrier.host, tenants=[acme.name])
    legs = call(carrier, instance, f"sip:200@{acme.domain}", offer)
    assert (legs.offered, legs.answered) == (RTP, offer)
    assert changed(legs.theirs, carrier, RTP) == (offer, RTP)
    legs.end()


# --- codecs ----------------------------------------------------------------------------------------------------------

OFFER = ["PCMU/8000", "G722/8000", "PCMA/8000", "telephone-event/8000"]
PAYLOAD_TYPES = {"PCMU/8000": 0, "PCMA/8000": 8, "G722/8000": 9, "opus/48000/2": 96, "telephone-event/8000": 101}


def with_codecs(agent: Agent, codecs: Sequence[str]) -> str:
    """A description with these codecs."""
    head, _, _ = agent.sdp().partition("m=audio")
    types = [PAYLOAD_TYPES[codec] for codec in codecs]
    media = f"m=audio {agent.machine.rtp_ports[0]} RTP/AVP {' '.join(map(str, types))}\r\n"
    return head + media + "".join(f"a=rtpmap:{n} {codec}\r\n" for n, codec in zip(types, codecs, strict=True))


def codecs_of(message: Message) -> list[str]:
    """The codecs of a description, in its order."""
    line = re.search(r"^m=audio \d+ \S+ (.*)", message.body, re.MULTILINE)
    names = dict(re.findall(r"^a=rtpmap:(\d+) (\S+)", message.body, re.MULTILINE))
    assert line, message.text
    return [names[number] for number in line[1].split()]


@pytest.mark.parametrize(
    ("setting", "offered", "expected"),
    [
        ({}, OFFER, OFFER),
        ({"names": ["PCMA"]}, OFFER, ["PCMA/8000", "PCMU/8000", "G722/8000", "telephone-event/8000"]),
        ({"names": ["opus", "G722"]}, OFFER, ["G722/8000", "PCMU/8000", "PCMA/8000", "telephone-event/8000"]),
        ({"names": ["PCMA", "G722"], "only": True}, OFFER, ["PCMA/8000", "G722/8000", "telephone-event/8000"]),
        ({"names": ["PCMA"], "transcode": True}, ["opus/48000/2"], ["opus/48000/2", "PCMA/8000"]),
        (
            {"names": ["PCMA"], "transcode": True},
            OFFER,
            ["PCMA/8000", "PCMU/8000", "G722/8000", "telephone-event/8000"],
        ),
        ({"names": ["PCMA"], "only": True, "transcode": True}, ["opus/48000/2"], ["PCMA/8000"]),
        ({"names": ["opus"], "only": True}, ["PCMA/8000"], ["PCMA/8000"]),
    ],
)
def test_an_offer_has_the_codecs_that_the_tenants_setting_says(
    setting: dict[str, object],
    offered: list[str],
    expected: list[str],
    phone: Agent,
    instance: Agent,
    tenant: Callable[..., Tenant],
    pbx: Machine,
) -> None:
    acme = tenant(pbx, codecs=setting)
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=with_codecs(phone, offered))
    invite = instance.expect("INVITE")
    assert codecs_of(invite) == expected
    instance.reply(invite, 200, tag="callee", body=with_codecs(instance, expected[:1]))
    answer = phone.expect(200)
    # What is answered is of what was offered.
    assert set(codecs_of(answer)) <= set(offered)
    ours.learn(answer).ack()
    instance.expect("ACK")
    ours.hang_up(instance)


# --- ICE -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ice", ["answer", "remove"])
def test_ice_that_is_not_answered_is_not_begun_either(
    ice: str, phone: Agent, instance: Agent, tenant: Callable[..., Tenant], pbx: Machine
) -> None:
    acme, port = tenant(pbx, ice=ice), phone.machine.rtp_ports[0]
    secrets = "a=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n"
    candidate = f"a=candidate:1 1 UDP 2130706431 {phone.host} {port} typ host\r\n"
    with phone.machine.socket(kind=socket.SOCK_DGRAM) as media:
        media.bind((phone.host, port))
        media.setblocking(False)
        ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp() + secrets + candidate)
        invite = instance.expect("INVITE")
        theirs = Talk.answering(instance, invite, "callee")
        instance.reply(invite, 200, tag="callee", body=instance.sdp())
        answer = phone.expect(200)
        ours.learn(answer).ack()
        instance.expect("ACK")
        if ice == "answer":
            eventually(lambda: has_come(media))
        theirs.hang_up(phone)
        assert has_come(media) is (ice == "answer")
    assert "a=ice" not in invite.body
    assert "a=candidate" not in invite.body
    assert ("a=candidate:" in answer.body) is ("a=ice-ufrag:" in answer.body) is (ice == "answer")


def has_come(media: socket.socket) -> bool:
    """Whether a packet is waiting; it stays."""
    try:
        return bool(media.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
