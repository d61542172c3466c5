"""An attacker who sprays the media ports hears nobody, and nobody hears him, once a party's true source is known.

Of a phone behind a NAT it is known when its first packet has come; of all others from the start. The figures of what
passes before that are in docs/media.md.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from lab.agent import Agent, Talk, answered_call, registered
from lab.calls import told
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.packets import Address
from lab.sip import Message
from lab.voice import Speaker, heard_from
from sipward import call_facts
from sipward.ng import Engine

from .conftest import Tenant, watched_lab

LOW, HIGH = 20000, 20099
"""Every port of them is hit as often as a voice hits its own."""
NAT = "phone behind a NAT"

pytestmark = pytest.mark.usefixtures("no_media_left")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    with Node(lab, settings={"rtp": {"ports": f"{LOW}-{HIGH}", "source_share": 100}}) as node:
        yield node
        assert node.stop() == 0, node.log_tail()


@dataclass
class Attack:
    """A call of which one party's side is sprayed."""

    party: Agent
    """Who is not to lose what it should hear to the attacker, nor its voice to his."""
    other: Agent
    """Who would hear the attacker, and be heard by him."""
    attacker: Machine
    is_known: bool
    """Whether it is known from the start where the party's RTP comes from."""
    uri: dict[str, str]
    """Whom each of the two calls, by the name of its machine."""

    def spray(self) -> Speaker:
        """RTP to every port where the party's would be taken."""
        here = self.party.machine.lab.edge(self.party.machine)
        return Speaker(self.attacker, [Address(here, port) for port in range(LOW, HIGH + 1)])

    def expect_nothing(self, spray: Speaker, voice: Speaker, since: float = 0.0) -> None:
        """The other party hears nothing of the spray, and the attacker nothing of the other party."""
        passed = heard_from(spray, self.other.machine, since), heard_from(voice, self.attacker, since)
        assert passed == (0, 0), "injected, bled"

    def expect_both_heard(self, ours: Speaker, theirs: Speaker) -> None:
        """Both parties hear each other."""
        now = time.time()
        eventually(
            lambda: heard_from(ours, self.other.machine, now) > 9 and heard_from(theirs, self.party.machine, now) > 9
        )


def speaking(agent: Agent) -> Speaker:
    """An agent's voice, to where it was told."""
    place = told(agent.machine)
    assert place
    return Speaker(agent.machine, [place], agent.machine.rtp_ports[0])


@pytest.fixture(params=["public phone", NAT, "instance", "carrier"])
def attack(
    request: pytest.FixtureRequest, lab: Lab, node: Node, instance: Agent, acme: Tenant,
    trunk: Callable[..., str], number: Callable[..., str],
) -> Iterator[Attack]:  # fmt: skip
    """Who is who. Of an instance the attacker is another one, for nobody else reaches that side."""
    machine = {NAT: lab.phone("alice", behind="symmetric"), "carrier": lab.borders("telco", 2)}.get(
        request.param, lab.phone("bob")
    )
    with Agent(machine) as outer:
        if request.param == "carrier":
            trunk(machine.address)
            number("0721405", tenant=acme.name)
            uri = {"pbx": f"sip:06@{outer.host}", machine.name: f"sip:0721405@{outer.node}"}
        else:
            uri = {"pbx": registered(outer, instance, acme.domain), machine.name: f"sip:200@{acme.domain}"}
        if request.param == "instance":
            yield Attack(instance, outer, lab.instance("rogue"), True, uri)
        else:
            yield Attack(outer, instance, lab.attacker(), request.param != NAT, uri)


def ringing(caller: Agent, callee: Agent, uri: str) -> tuple[Talk, Message]:
    """A call that rings: the caller's end of it, and the INVITE."""
    ours = caller.begin("INVITE", uri, body=caller.sdp())
    invite = callee.expect("INVITE")
    callee.reply(invite, 180, tag="c")
    caller.expect(180)
    return ours, invite


@pytest.mark.parametrize("role", ["calls", "is called"])
def test_a_spray_that_is_there_before_the_call_is_shut_out(role: str, attack: Attack) -> None:
    party, other = attack.party, attack.other
    caller, callee = (party, other) if role == "calls" else (other, party)
    with ExitStack() as stack:
        spray = stack.enter_context(attack.spray())
        ours, invite = ringing(caller, callee, attack.uri[caller.machine.name])
        spray.go_on(5)
        callee.reply(invite, 200, tag="c", body=callee.sdp())
        assert heard_from(spray, other.machine) == 0, "heard before the answer"
        ours.learn(caller.expect(200)).ack()
        callee.expect("ACK")

        # The party is late to speak: what is known of it is what it has said by SIP.
        voice = stack.enter_context(speaking(other))
        spray.go_on(10)
        if attack.is_known:
            attack.expect_nothing(spray, voice)
        own = stack.enter_context(speaking(party))
        eventually(lambda: heard_from(own, other.machine) >= 3)
        known = time.time()
        attack.expect_both_heard(own, voice)
        spray.go_on(10)
        attack.expect_nothing(spray, voice, known)
    ours.hang_up(callee)


def is_pinned(node: Node, call_id: str) -> bool:
    """Whether rtpengine has settled where all RTP comes from: behind a NAT three seconds after the last answer."""

    def streams() -> list[dict[str, Any]]:
        with Engine(node.settings.rtp.control) as engine:
            answers = [engine.query(name) for name in engine.calls() if call_facts.call_id_of(name) == call_id]
        tags = [tag for answer in answers if answer for tag in answer["tags"].values()]
        return [stream for tag in tags for media in tag["medias"] for stream in media["streams"]]

    return all("confirmed" in stream["flags"] for stream in node.machine.inside(streams) if "RTP" in stream["flags"])


def test_a_spray_during_the_call_is_shut_out_whatever_the_parties_renegotiate(attack: Attack, node: Node) -> None:
    party, other = attack.party, attack.other
    ours, theirs = answered_call(party, other, attack.uri[party.machine.name])
    with ExitStack() as stack:
        own, voice = stack.enter_context(speaking(party)), stack.enter_context(speaking(other))
        attack.expect_both_heard(own, voice)
        eventually(lambda: is_pinned(node, ours.call_id))
        spray = stack.enter_context(attack.spray())
        spray.go_on(10)
        attack.expect_nothing(spray, voice)
        for talk, peer in ((ours, other), (theirs, party)):
            talk.send("INVITE", body=talk.agent.sdp(2))
            peer.reply(peer.expect("INVITE"), 200, body=peer.sdp(2))
            talk.agent.expect(200)
            talk.ack()
            peer.expect("ACK")
            attack.expect_both_heard(own, voice)
            # What has to be learned has to be learned again then, from the party's next packet.
            known = 0.0 if attack.is_known else time.time()
            spray.go_on(10)
            attack.expect_nothing(spray, voice, known)
    ours.hang_up(other)


# --- by signalling ---------------------------------------------------------------------------------------------------


def final(caller: Agent) -> Message:
    """The callee's own 200, among whatever else."""
    while True:
        answer = caller.receive()
        if answer.status == 200 and "tag=c" in answer.header("To"):
            return answer


def hears_nothing(voice: Speaker, attacker: Agent) -> None:
    voice.go_on(10)
    assert heard_from(voice, attacker.machine) == 0


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "ACK"])
def test_a_request_of_a_third_party_in_the_dialog_moves_no_media(
    method: str, lab: Lab, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    """He knows all of the dialog, to the sealed route."""
    ours, _ = answered_call(phone, instance, f"sip:200@{acme.domain}")
    with Agent(lab.attacker()) as thief, speaking(phone) as own, speaking(instance) as voice:
        stolen = Talk(thief, ours.local, ours.remote, ours.call_id, ours.target, ours.routes, ours.contact, cseq=7)
        stolen.send(method, body=thief.sdp(2))
        if method != "ACK":
            assert thief.expect(403).status
        hears_nothing(voice, thief)
        assert not instance.has_something()
        assert heard_from(own, instance.machine)
        assert heard_from(voice, phone.machine)
    ours.hang_up(instance)


@pytest.mark.parametrize("side", ["phone", "instance"])
@pytest.mark.parametrize("status", [183, 200])
def test_a_reply_of_a_third_party_moves_no_media(
    status: int, side: str, lab: Lab, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    """He has seen the INVITE, and is faster than whom it was for."""
    bound = registered(phone, instance, acme.domain)
    caller, callee = (instance, phone) if side == "phone" else (phone, instance)
    uri = bound if side == "phone" else f"sip:200@{acme.domain}"
    thieves = lab.attacker(), lab.instance("rogue")
    ours, invite = ringing(caller, callee, uri)
    for machine in thieves:
        with Agent(machine) as thief:
            thief.reply(invite, status, tag=machine.name, body=thief.sdp())
        forged = caller.expect(status)
        assert forged.media in (None, ("0.0.0.0", 0))
    callee.reply(invite, 200, tag="c", body=callee.sdp())
    ours.learn(final(caller)).ack()
    callee.expect("ACK")
    with Agent(thieves[0]) as thief, Agent(thieves[1]) as rogue, speaking(caller) as own, speaking(callee) as voice:
        for each in (thief, rogue):
            hears_nothing(own, each)
        assert heard_from(own, callee.machine)
        assert heard_from(voice, caller.machine)
    ours.hang_up(callee)
