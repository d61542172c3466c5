"""Descriptions that ask for too much, or for what is not theirs: refused before rtpengine sees them."""

from collections.abc import Callable

import pytest

from lab.agent import Agent, Talk, answered_call
from lab.network import Lab
from lab.node import Node
from lab.sipp import Transport

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left")

AUDIO = "m=audio 4000 RTP/AVP 8\r\n"
CANDIDATE = "a=candidate:1 1 UDP 2130706431 198.51.100.7 4000 typ host\r\n"

type Bomb = Callable[[str], str]


def at(address: str) -> Bomb:
    """A description whose media is at another address."""
    return lambda sdp: sdp.partition("c=IN")[0] + f"c=IN IP4 {address}\r\nt=0 0\r\n" + AUDIO


BOMBS: dict[str, tuple[Bomb, int]] = {
    "60 kB": (lambda sdp: sdp + 5000 * "a=x:123456\r\n", 413),
    "2,500 streams": (lambda sdp: sdp + 2500 * AUDIO, 413),
    "100 streams": (lambda sdp: sdp + 100 * AUDIO, 488),
    "one stream of 99 ports": (lambda sdp: sdp.replace(" RTP", "/99 RTP"), 488),
    "200 candidates": (lambda sdp: sdp + 200 * CANDIDATE, 488),
    "a port out of range": (lambda sdp: sdp.replace("m=audio ", "m=audio 9"), 488),
    "another service's port": (lambda sdp: sdp + "m=audio 53 RTP/AVP 8\r\n", 488),
    "loopback": (at("127.0.0.1"), 488),
    "RTCP to loopback": (lambda sdp: sdp + "a=rtcp:2223 IN IP4 127.0.0.1\r\n", 488),
    "multicast": (at("239.1.1.1"), 488),
    "ours": (at("203.0.113.10"), 488),
    "ours inside": (at("10.5.4.1"), 488),
}
FROM_ANYBODY = {name: bomb for name, bomb in BOMBS.items() if not name.startswith("ours")}


def asked_rtpengine(node: Node, lab: Lab, call_id: str) -> bool:
    """Whether rtpengine has been told of a call."""
    port = node.settings.rtp.control.port
    told = (s for s in lab.wire.sent("node", "lo", "lo") if s.destination.port == port)
    return any(call_id.encode() in datagram.data for datagram in told)


@pytest.mark.parametrize(("bomb", "status"), BOMBS.values(), ids=BOMBS)
def test_an_offer_is_refused_before_rtpengine_sees_it(
    bomb: Bomb, status: int, node: Node, lab: Lab, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=bomb(phone.sdp()))
    phone.acknowledge(phone.expect(status))
    assert not asked_rtpengine(node, lab, ours.call_id)
    assert not instance.has_something()
    # The same phone's next one is fine.
    ours, _ = answered_call(phone, instance, f"sip:200@{acme.domain}")
    assert asked_rtpengine(node, lab, ours.call_id)
    ours.hang_up(instance)


@pytest.mark.parametrize("transport", ["tcp"])
def test_over_tcp_a_message_that_is_too_large_ends_its_connection(
    node: Node, lab: Lab, phone: Agent, acme: Tenant, transport: Transport
) -> None:
    def ask() -> None:
        body = phone.sdp() + 5000 * "a=x:123456\r\n"
        phone.begin("INVITE", f"sip:200@{acme.domain}", body=body, call_id="too-large")
        phone.receive()

    with pytest.raises(ConnectionError):
        ask()
    assert not asked_rtpengine(node, lab, "too-large")


@pytest.mark.parametrize("side", ["phone", "instance"])
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a_change_is_refused_and_the_call_goes_on(
    method: str, side: str, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours, theirs = answered_call(phone, instance, f"sip:200@{acme.domain}")
    talk, peer = (ours, instance) if side == "phone" else (theirs, phone)
    talk.send(method, body=at("127.0.0.1")(talk.agent.sdp(2)))
    refusal = talk.agent.expect(488)
    if method == "INVITE":
        talk.agent.acknowledge(refusal)
    assert not peer.has_something()
    ours.hang_up(instance)


@pytest.mark.parametrize(("bomb", "_"), FROM_ANYBODY.values(), ids=FROM_ANYBODY)
def test_an_answer_that_is_one_gets_no_media(
    bomb: Bomb, _: int, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    invite = instance.expect("INVITE")
    instance.reply(invite, 183, tag="i", body=bomb(instance.sdp()))
    assert not phone.expect(183).body
    instance.reply(invite, 200, tag="i", body=bomb(instance.sdp()))
    answer = phone.expect(200)
    assert answer.media == ("0.0.0.0", 0)
    ours.learn(answer).ack()
    instance.expect("ACK")
    Talk.answering(instance, invite, "i").hang_up(phone)


def test_the_answer_in_an_ack_gets_no_media(phone: Agent, instance: Agent, acme: Tenant) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}")
    instance.reply(instance.expect("INVITE"), 200, tag="i", body=instance.sdp())
    ours.learn(phone.expect(200)).ack(at("127.0.0.1")(phone.sdp()))
    assert instance.expect("ACK").media == ("0.0.0.0", 0)
    ours.hang_up(instance)
