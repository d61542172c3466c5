"""Nothing but real parts: Asterisk as the instance, baresip as the phones, one of them behind the symmetric NAT."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from lab.agent import Agent, Talk
from lab.asterisk import ECHO, MAX_CONTACTS, Asterisk
from lab.baresip import Baresip
from lab.calls import expect_audio, expect_silence
from lab.digest import dial, sign_on
from lab.network import Lab, Machine
from lab.node import Node
from lab.sipp import Transport
from sipward.certificates import Certificates

from .conftest import Tenant

BOB, ALICE, ROB = "201", "202", "203"


@dataclass
class Office:
    """A tenant with its PBX and three phones: bob's in public, alice's and rob's behind the two NATs."""

    pbx: Asterisk
    bob: Baresip
    alice: Baresip
    rob: Baresip

    def alice_answers_bob(self) -> None:
        rings, answered = self.alice.mark(), self.bob.mark()
        self.bob.command("dial", f"sip:{ALICE}@{self.bob.domain}")
        self.alice.wait_for("CALL_INCOMING", since=rings)
        self.alice.accept()
        self.bob.wait_for("CALL_ESTABLISHED", since=answered)


LAYOUTS = {
    "pbx elsewhere, udp": ("pbx", "udp", False),
    "pbx on the node, tcp, path": ("pbx_on_node", "tcp", True),
    "pbx elsewhere, tls": ("pbx", "tls", False),
}


@pytest.fixture(params=list(LAYOUTS.values()), ids=list(LAYOUTS))
def office(
    request: pytest.FixtureRequest,
    lab: Lab,
    tenant: Callable[..., Tenant],
    bob: Machine,
    alice: Machine,
    rob: Machine,
    node: Node,
) -> Iterator[Office]:
    where, transport, path = request.param
    ca = Certificates(node.state_dir).ca if transport == "tls" else None
    machine: Machine = request.getfixturevalue(where)
    domain = tenant(machine).domain
    with ExitStack() as running:
        pbx = running.enter_context(Asterisk(machine, domain, [BOB, ALICE, ROB], support_path=path))
        phones = (
            Baresip(bob, BOB, domain, transport=transport, ca=ca),
            Baresip(alice, ALICE, domain, transport=transport, ca=ca),
            Baresip(rob, ROB, domain, transport=transport, answers=True, ca=ca),
        )
        yield Office(pbx, *map(running.enter_context, phones))
    assert not pbx.errors, pbx.log_tail()


def test_the_echo_comes_back(office: Office) -> None:
    office.bob.dial(ECHO)
    expect_audio(office.bob.machine, office.pbx.machine)
    office.bob.hangup()


def test_two_phones_talk_and_the_caller_hangs_up(office: Office) -> None:
    office.alice_answers_bob()
    expect_audio(office.bob.machine, office.alice.machine)
    mark = office.alice.mark()
    office.bob.hangup()
    office.alice.wait_for("CALL_CLOSED", since=mark)


def test_two_phones_talk_and_the_callee_hangs_up(office: Office) -> None:
    office.alice_answers_bob()
    expect_audio(office.bob.machine, office.alice.machine)
    mark = office.bob.mark()
    office.alice.hangup()
    office.bob.wait_for("CALL_CLOSED", since=mark)


def test_a_call_is_held_and_taken_back(office: Office) -> None:
    office.alice_answers_bob()
    expect_audio(office.bob.machine, office.alice.machine)
    office.alice.hold()
    expect_silence(office.bob.machine, since=time.time() + 0.5)  # what was under way has come by then
    office.alice.resume()
    expect_audio(office.bob.machine, office.alice.machine, since=time.time())
    office.bob.hangup()


def test_a_call_is_transferred(office: Office) -> None:
    office.alice_answers_bob()
    taken, ended = office.rob.mark(), office.alice.mark()
    office.bob.transfer(ROB)
    office.rob.wait_for("CALL_ESTABLISHED", since=taken)
    expect_audio(office.alice.machine, office.rob.machine)
    office.rob.hangup()
    office.alice.wait_for("CALL_CLOSED", since=ended)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_phone_connects_its_two_calls_with_each_other_and_leaves(
    transport: Transport, tenant: Callable[..., Tenant], pbx: Machine, alice: Machine, bob: Machine, rob: Machine
) -> None:
    """Attended transfer (RFC 5589, 7): a REFER with Replaces in one call names the other."""
    domain = tenant(pbx).domain
    with ExitStack() as running:
        asterisk = running.enter_context(Asterisk(pbx, domain, [BOB, ALICE, ROB]))
        first, second = (
            running.enter_context(Baresip(machine, user, domain, transport=transport, answers=True))
            for machine, user in ((bob, BOB), (rob, ROB))
        )
        phone = running.enter_context(Agent(alice, transport))
        sign_on(phone, ALICE, domain)
        to_first, to_second = (dial(phone, ALICE, number, domain, phone.sdp()) for number in (BOB, ROB))
        theirs, ours = (tag.partition(";tag=")[2] for tag in (to_second.remote, to_second.local))
        replaces = quote(f"{to_second.call_id};to-tag={theirs};from-tag={ours}", safe="")
        connected = time.time()
        to_first.send("REFER", headers=[f"Refer-To: <{to_second.target}?Replaces={replaces}>"])
        ended, accepted = "", False
        while not (ended and accepted):  # the BYE may overtake the 202
            message = phone.receive()
            accepted = accepted or (message.method, message.status) == ("REFER", 202)
            if message.status is None:
                phone.reply(message, 200)
                ended = message.call_id if message.method == "BYE" else ended
        left = to_second if ended == to_first.call_id else to_first
        left.send("BYE")
        phone.expect_again(200)
        expect_audio(bob, rob, since=connected)
        first.hangup()
        second.wait_for("CALL_CLOSED")
    assert not asterisk.errors, asterisk.log_tail()


def test_a_phone_that_comes_back_more_often_than_its_pbx_keeps_contacts_is_registered_and_reached(
    tenant: Callable[..., Tenant], pbx: Machine, bob: Machine, alice: Machine
) -> None:
    """Each new connection is another Contact for the PBX, and nobody has taken the old ones back."""
    domain = tenant(pbx).domain
    with Asterisk(pbx, domain, [BOB, ALICE]) as asterisk, Baresip(alice, ALICE, domain) as caller:
        for _ in range(MAX_CONTACTS + 2):
            with Agent(bob, "tcp") as gone:
                sign_on(gone, BOB, domain)
        with Agent(bob, "tcp") as phone:
            sign_on(phone, BOB, domain)
            ended = caller.mark()
            caller.command("dial", f"sip:{BOB}@{domain}")
            phone.reply(phone.expect("INVITE"), 486, tag="busy")
            phone.expect("ACK")
            caller.wait_for("CALL_CLOSED", since=ended)
    assert not asterisk.errors, asterisk.log_tail()


def test_a_phone_that_writes_sips_everywhere_is_called_and_hung_up_from_either_side(
    tenant: Callable[..., Tenant], pbx: Machine, bob: Machine, alice: Machine
) -> None:
    domain = tenant(pbx).domain
    with (
        Asterisk(pbx, domain, [BOB, ALICE]) as asterisk,
        Baresip(alice, ALICE, domain) as caller,
        Agent(bob, "tls") as phone,
    ):
        own = f"<sips:{BOB}@{phone.hostport}>"
        sign_on(phone, BOB, domain, scheme="sips", contact=own)
        for hangs_up in ("caller", "phone"):
            ended = caller.mark()
            caller.command("dial", f"sip:{BOB}@{domain}")
            invite = phone.expect("INVITE")
            assert f"<{invite.uri}>" == own
            theirs = Talk.answering(phone, invite, "phone", contact=own)
            phone.reply(invite, 200, tag="phone", body=phone.sdp(), contact=own)
            assert f"<{phone.expect('ACK').uri}>" == own
            caller.wait_for("CALL_ESTABLISHED", since=ended)
            if hangs_up == "caller":
                caller.hangup()
                bye = phone.expect("BYE")
                assert f"<{bye.uri}>" == own
                phone.reply(bye, 200)
            else:
                theirs.send("BYE")
                phone.expect(200)
                caller.wait_for("CALL_CLOSED", since=ended)
    assert not asterisk.errors, asterisk.log_tail()
