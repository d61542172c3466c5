"""Nothing but real parts: Asterisk as the instance, baresip as the phones, one of them behind the symmetric NAT."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from lab.agent import Agent, Talk
from lab.asterisk import ECHO, MAX_CONTACTS, PASSWORD, Asterisk
from lab.baresip import Baresip
from lab.calls import expect_audio, expect_silence
from lab.network import Lab, Machine
from lab.node import Node
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


def test_a_phone_that_comes_back_more_often_than_its_pbx_keeps_contacts_is_registered_and_reached(
    tenant: Callable[..., Tenant], pbx: Machine, bob: Machine, alice: Machine
) -> None:
    """Each new connection is another Contact for the PBX, and nobody has taken the old ones back."""
    domain = tenant(pbx).domain
    with Asterisk(pbx, domain, [BOB, ALICE]) as asterisk, Baresip(alice, ALICE, domain) as caller:
        for _ in range(MAX_CONTACTS + 2):
            with Agent(bob, "tcp") as gone:
                register(gone, BOB, domain)
        with Agent(bob, "tcp") as phone:
            register(phone, BOB, domain)
            ended = caller.mark()
            caller.command("dial", f"sip:{BOB}@{domain}")
            phone.reply(phone.expect("INVITE"), 486, tag="busy")
            phone.expect("ACK")
            caller.wait_for("CALL_CLOSED", since=ended)
    assert not asterisk.errors, asterisk.log_tail()


def register(phone: Agent, user: str, domain: str, scheme: str = "sip", contact: str = "") -> None:
    """Register, with the digest that the PBX asks for (RFC 2617)."""
    uri = f"{scheme}:{domain}"
    talk = phone.begin("REGISTER", uri, user=user, domain=domain, contact=contact)
    talk.remote = f"<{scheme}:{user}@{domain}>"
    challenge = dict(re.findall(r'(\w+)="?([^",]+)', phone.expect(401).header("WWW-Authenticate")))
    realm, nonce, count, own = challenge["realm"], challenge["nonce"], "00000001", "abc"
    secret, asked = md5(f"{user}:{realm}:{PASSWORD}"), md5(f"REGISTER:{uri}")
    response = md5(f"{secret}:{nonce}:{count}:{own}:auth:{asked}")
    talk.send("REGISTER", headers=[
        f'Authorization: Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", algorithm=MD5, '
        f'opaque="{challenge.get("opaque", "")}", qop=auth, nc={count}, cnonce="{own}", response="{response}"',
        "Expires: 600",
    ])  # fmt: skip
    phone.expect(200)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


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
        register(phone, BOB, domain, scheme="sips", contact=own)
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
