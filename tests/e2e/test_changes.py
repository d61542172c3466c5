"""What changes in mid-call while real audio flows: media addresses, early media, music on hold, DTMF, fax."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from lab.agent import Agent, Talk
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.packets import Address
from lab.sip import Message
from lab.talker import Talker

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("no_media_left")

HALF_A_SECOND = 25
"""Packets."""


@dataclass
class Call:
    """A call with a talker at each end, and what may be called from elsewhere."""

    ours: Talk
    theirs: Talk
    caller: Talker
    callee: Talker

    def check(self, since: float = 0.0, packets: int = HALF_A_SECOND) -> None:
        """Both ends hear each other, from a moment on."""
        eventually(lambda: self.callee.hears(self.caller, since) > packets, what="the callee hears the caller")
        eventually(lambda: self.caller.hears(self.callee, since) > packets, what="the caller hears the callee")

    def hang_up(self) -> None:
        self.ours.hang_up(self.theirs.agent)


@pytest.fixture
def talker() -> Iterator[Callable[..., Talker]]:
    """Make talkers; they fall silent with the test."""
    with ExitStack() as open_:
        yield lambda *place, **more: open_.enter_context(Talker(*place, **more))


def where(message: Message) -> Address:
    assert message.media
    return message.media


def call(caller: Agent, callee: Agent, uri: str, talker: Callable[..., Talker]) -> Call:
    """A call with audio both ways."""
    ear, mouth = (talker(agent.machine, host=agent.host) for agent in (caller, callee))
    ours = caller.begin("INVITE", uri, body=caller.sdp(media=ear.place))
    invite = callee.expect("INVITE")
    theirs = Talk.answering(callee, invite, "callee")
    callee.reply(invite, 200, tag="callee", body=callee.sdp(media=mouth.place))
    ok = caller.expect(200)
    ours.learn(ok).ack()
    callee.expect("ACK")
    ear.to(where(ok))
    mouth.to(where(invite))
    found = Call(ours, theirs, ear, mouth)
    found.check()
    return found


def offer(talk: Talk, peer: Talk, method: str, body: str, answer: str) -> tuple[Message, Message]:
    """A change by re-INVITE or UPDATE: how it reached the peer, and what came back."""
    talk.send(method, body=body)
    change = peer.agent.expect(method)
    peer.agent.reply(change, 200, body=answer)
    ok = talk.agent.expect(200)
    if method == "INVITE":
        talk.ack()
        peer.agent.expect("ACK")
    return change, ok


# --- media addresses --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["instance", "carrier", "phone", "phone-behind-nat"])
def moving(
    request: pytest.FixtureRequest,
    lab: Lab,
    instance: Agent,
    acme: Tenant,
    talker: Callable[..., Talker],
    trunk: Callable[..., str],
    number: Callable[..., str],
) -> Iterator[tuple[Call, Talk, Callable[[], Talker]]]:
    """A call, who will move in it, and whereto."""
    with ExitStack() as open_:
        match request.param:
            case "carrier":
                telco: Machine = request.getfixturevalue("telco")
                border = open_.enter_context(Agent(telco))
                trunk(*telco.addresses[:2])
                number("0721405124", tenant=acme.name)
                talking = call(border, instance, "sip:0721405124@sip.telco.example", talker)
                yield talking, talking.ours, lambda: talker(telco, host=telco.addresses[1])
            case "instance":
                phone = open_.enter_context(Agent(request.getfixturevalue("bob")))
                talking = call(phone, instance, f"sip:200@{acme.domain}", talker)
                yield talking, talking.theirs, lambda: talker(lab.instance("pbx2"))
            case _:
                who = "bob" if request.param == "phone" else "alice"
                phone = open_.enter_context(Agent(request.getfixturevalue(who)))
                talking = call(phone, instance, f"sip:200@{acme.domain}", talker)
                yield talking, talking.ours, lambda: talker(phone.machine, phone.machine.rtp_ports[0] + 100)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_who_moves_its_media_in_mid_call_hears_and_is_heard_there(
    method: str, moving: tuple[Call, Talk, Callable[[], Talker]]
) -> None:
    talking, mover, elsewhere = moving
    stays = talking.theirs if mover is talking.ours else talking.ours
    left, other = (talking.caller, talking.callee) if mover is talking.ours else (talking.callee, talking.caller)
    new = elsewhere()
    change, ok = offer(
        mover, stays, method, mover.agent.sdp(2, new.place), stays.agent.sdp(2, other.place)
    )  # fmt: skip
    # The node stays where it is: nobody has to follow it.
    other.to(where(change))
    new.to(where(ok))
    left.to(None)
    now = time.time()
    eventually(lambda: new.hears(other, now) > HALF_A_SECOND, what="it hears where it is now")
    eventually(lambda: other.hears(new, now) > HALF_A_SECOND, what="it is heard from there")
    later = time.time()
    eventually(lambda: new.hears(other, later) > HALF_A_SECOND)
    assert left.hears(other, later) == 0
    talking.hang_up()


@pytest.mark.parametrize("tags", [("a", "a"), ("a", "b")], ids=["same-tag", "fork"])
@pytest.mark.parametrize("callee", ["instance", "phone", "carrier"])
def test_early_media_may_come_from_another_address_than_the_final_one(
    callee: str, tags: tuple[str, str], lab: Lab, phone: Agent, instance: Agent, acme: Tenant,
    talker: Callable[..., Talker], carrier: Agent, trunk: Callable[..., str],
) -> None:  # fmt: skip
    caller, called, uri = phone, instance, f"sip:200@{acme.domain}"
    if callee == "phone":
        caller, called, uri = instance, phone, bound(phone, instance, acme)
    elif callee == "carrier":
        trunk(*carrier.machine.addresses[:2])
        caller, called, uri = instance, carrier, f"sip:0541201123@{carrier.host}"
    elsewhere = lab.instance("pbx2") if callee == "instance" else called.machine
    ear = talker(caller.machine)
    announcement = talker(elsewhere, elsewhere.rtp_ports[0] + 100, host=elsewhere.addresses[callee == "carrier"])
    final = talker(called.machine)
    ours = caller.begin("INVITE", uri, body=caller.sdp(media=ear.place))
    invite = called.expect("INVITE")
    theirs = Talk.answering(called, invite, tags[1])
    called.reply(invite, 183, tag=tags[0], body=called.sdp(media=announcement.place), contact=theirs.contact)
    early = caller.expect(183)
    announcement.to(where(invite))
    ear.to(where(early))
    eventually(lambda: ear.hears(announcement) > HALF_A_SECOND, what="the announcement is heard")
    announcement.to(None)
    called.reply(invite, 200, tag=tags[1], body=called.sdp(2, final.place))
    ok = caller.expect(200)
    ours.learn(ok).ack()
    called.expect("ACK")
    ear.to(where(ok))
    final.to(where(invite))
    now = time.time()
    Call(ours, theirs, ear, final).check(now)
    later = time.time()
    eventually(lambda: final.hears(ear, later) > HALF_A_SECOND)
    assert announcement.hears(ear, later) == 0
    ours.hang_up(called)


def bound(phone: Agent, instance: Agent, acme: Tenant) -> str:
    """Register a phone; the Contact that its instance calls."""
    phone.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain)
    request = instance.expect("REGISTER")
    instance.reply(request, 200, tag="r", contact=request.header("Contact"))
    phone.expect(200)
    return request.header("Contact").strip("<").partition(">")[0]


def test_a_change_each_moment_loses_no_audio(
    phone: Agent, instance: Agent, acme: Tenant, talker: Callable[..., Talker]
) -> None:
    talking = call(phone, instance, f"sip:200@{acme.domain}", talker)
    for version in range(2, 32):
        mover, stays = (talking.ours, talking.theirs) if version % 2 else (talking.theirs, talking.ours)
        places = talking.caller.place, talking.callee.place
        bodies = [
            talk.agent.sdp(version, place) for talk, place in zip((talking.ours, talking.theirs), places, strict=True)
        ]
        own, answer = bodies if mover is talking.ours else bodies[::-1]
        offer(mover, stays, "INVITE", own, answer)
        talking.check(time.time(), 3)
    assert talking.callee.misses(talking.caller) == set()
    assert talking.caller.misses(talking.callee) == set()
    talking.hang_up()


# --- music, DTMF, fax -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", ["instance", "phone"])
def test_music_on_hold_is_heard_and_the_held_one_is_not(
    holder: str, phone: Agent, instance: Agent, acme: Tenant, talker: Callable[..., Talker]
) -> None:
    talking = call(phone, instance, f"sip:200@{acme.domain}", talker)
    holds, held = (talking.theirs, talking.ours) if holder == "instance" else (talking.ours, talking.theirs)
    music, listener = (talking.callee, talking.caller) if holder == "instance" else (talking.caller, talking.callee)
    # The music is played from a place of its own.
    player = talker(music.machine, music.machine.rtp_ports[0] + 200)
    change, ok = offer(
        holds, held, "INVITE", holds.agent.sdp(2, player.place, "sendonly"),
        held.agent.sdp(2, listener.place, "recvonly"),
    )  # fmt: skip
    assert "a=sendonly" in change.body
    assert "a=recvonly" in ok.body
    player.to(where(ok))
    now = time.time()
    eventually(lambda: listener.hears(player, now) > HALF_A_SECOND, what="the music is heard")
    later = time.time()
    eventually(lambda: listener.hears(player, later) > HALF_A_SECOND)
    assert player.hears(listener, later) == music.hears(listener, later) == 0
    player.to(None)
    offer(holds, held, "INVITE", holds.agent.sdp(3, music.place), held.agent.sdp(3, listener.place))
    talking.check(time.time())
    talking.hang_up()


def test_a_call_that_was_on_hold_for_longer_than_its_nat_remembers_is_heard_again(
    lab: Lab, instance: Agent, acme: Tenant, talker: Callable[..., Talker]
) -> None:
    machine = lab.phone("holding", "symmetric")
    with lab.forgetful("symmetric", 2), Agent(machine, "tcp") as phone:
        talking = call(phone, instance, f"sip:200@{acme.domain}", talker)
        places = talking.caller.place, talking.callee.place
        for one in (talking.caller, talking.callee):
            one.to(None)
        offer(talking.ours, talking.theirs, "INVITE", phone.sdp(2, places[0], "inactive"),
              instance.sdp(2, places[1], "inactive"))  # fmt: skip
        eventually(lambda: not lab.remembers("symmetric", places[0]), what="the NAT has forgotten the audio")
        change, ok = offer(talking.ours, talking.theirs, "INVITE", phone.sdp(3, places[0]), instance.sdp(3, places[1]))
        talking.caller.to(where(ok))
        talking.callee.to(where(change))
        talking.check(time.time())
        talking.hang_up()


@pytest.mark.parametrize("way", ["to-the-instance", "to-the-phone"])
def test_dtmf_passes_unchanged(
    way: str, phone: Agent, instance: Agent, acme: Tenant, talker: Callable[..., Talker]
) -> None:
    talking = call(phone, instance, f"sip:200@{acme.domain}", talker)
    presses, listener = (
        (talking.caller, talking.callee) if way == "to-the-instance" else (talking.callee, talking.caller)
    )
    # A key that is held for 100 ms, its end said three times (RFC 4733, 2.5.1).
    events = [bytes((5, end << 7 | 10)) + (160 * n).to_bytes(2) for n, end in ((1, 0), (2, 0), (5, 1), (5, 1), (5, 1))]
    for number, event in enumerate(events):
        presses.say(event, 101, marker=number == 0, timestamp=4711)
    assert [listener.receive(101) for _ in events] == [(4711, event) for event in events]
    talking.hang_up()


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("side", ["instance", "phone"])
def test_a_call_becomes_a_fax(
    side: str, method: str, phone: Agent, instance: Agent, acme: Tenant, talker: Callable[..., Talker]
) -> None:
    talking = call(phone, instance, f"sip:200@{acme.domain}", talker)
    faxes, answers = (talking.theirs, talking.ours) if side == "instance" else (talking.ours, talking.theirs)
    here, there = (talking.callee, talking.caller) if side == "instance" else (talking.caller, talking.callee)
    for one in (here, there):
        one.to(None)
    change, ok = offer(faxes, answers, method, t38(faxes.agent, here.place), t38(answers.agent, there.place))
    for message, agent in ((change, answers.agent), (ok, faxes.agent)):
        image = re.search(r"^m=image (\d+) udptl t38\r?$", message.body, re.MULTILINE)
        assert image, message.body
        assert "a=T38MaxBitRate:14400" in message.body
        assert set(re.findall(r"IN IP4 (\S+)", message.body)) == {agent.node.host}
        (here if agent is faxes.agent else there).to(Address(agent.node.host, int(image[1])), mute=True)
    eventually(lambda: passes(here, there) and passes(there, here), what="UDPTL passes both ways")
    talking.hang_up()


def t38(agent: Agent, place: Address) -> str:
    """An SDP of T.38 over UDPTL (ITU-T T.38, annex D)."""
    return (
        f"v=0\r\no=- 1 2 IN IP4 {agent.host}\r\ns=-\r\nc=IN IP4 {place.host}\r\nt=0 0\r\n"
        f"m=image {place.port} udptl t38\r\na=T38FaxVersion:0\r\na=T38MaxBitRate:14400\r\n"
        "a=T38FaxRateManagement:transferredTCF\r\na=T38FaxUdpEC:t38UDPRedundancy\r\n"
    )


def passes(sender: Talker, receiver: Talker) -> bool:
    """Whether a datagram of T.38 gets through."""
    return sender.reaches(receiver, b"\x00\x00\x01\x20fax")
