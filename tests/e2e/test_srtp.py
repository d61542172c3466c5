"""Each leg gets what its end can do: RTP, SDES-SRTP or DTLS-SRTP, between real phones and a real PBX."""

import re
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

from lab.asterisk import ECHO, Asterisk
from lab.baresip import Baresip, Srtp
from lab.calls import expect_audio, heard, received
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.sipp import sipp
from sipward.certificates import Certificates

from .conftest import Tenant

BOTH, CALLER = "201", "202"
HERTZ, SDES_HERTZ, RTP_HERTZ = 425, 500, 600
PROFILES = {"off": "RTP/AVP", "optional": "RTP/AVP", "sdes": "RTP/SAVP", "dtls": "UDP/TLS/RTP/SAVPF"}
"""What baresip offers, and gets answered."""


@pytest.fixture
def office(acme: Tenant, pbx: Machine) -> Iterator[Asterisk]:
    """A PBX that does plain RTP."""
    with Asterisk(pbx, acme.domain, [BOTH, CALLER]) as asterisk:
        yield asterisk
    assert not asterisk.errors, asterisk.log_tail()


def profiles(machine: Machine) -> set[str]:
    """The RTP profiles of all descriptions that this machine has been sent (RFC 8866, 5.14)."""
    return {found for m in received(machine) for found in re.findall(r"^m=audio \d+ (\S+)", m.body, re.MULTILINE)}


def has_keys(machine: Machine) -> bool:
    """Whether a machine has been sent keys for SDES."""
    return any("a=crypto:" in m.body for m in received(machine))


def refusals(lab: Lab) -> int:
    """How many 488 have been seen anywhere."""
    return len(lab.wire.messages(machine="node", method="INVITE", status=488))


@pytest.mark.parametrize("srtp", PROFILES)
@pytest.mark.parametrize("who", ["bob", "alice"])
@pytest.mark.usefixtures("no_media_left")
def test_a_phones_call_is_answered_as_it_offers_and_the_pbx_gets_rtp(
    who: str, srtp: Srtp, office: Asterisk, request: pytest.FixtureRequest
) -> None:
    machine: Machine = request.getfixturevalue(who)
    with Baresip(machine, BOTH, office.domain, srtp=srtp) as phone:
        phone.dial(ECHO)
        expect_audio(machine, office.machine)
        eventually(lambda: phone.hears(HERTZ))
        assert profiles(machine) == {PROFILES[srtp]}
        assert has_keys(machine) is (srtp in {"optional", "sdes"})
        assert profiles(office.machine) == {"RTP/AVP"}
        phone.hangup()


@pytest.mark.parametrize("answers", ["sdes", "rtp"])
@pytest.mark.usefixtures("no_media_left")
def test_of_two_phones_of_one_extension_each_is_offered_what_it_can_do_and_either_can_answer(
    answers: str, office: Asterisk, lab: Lab, bob: Machine, alice: Machine, rob: Machine
) -> None:
    with (
        Baresip(bob, BOTH, office.domain, srtp="sdes", hertz=SDES_HERTZ) as encrypting,
        Baresip(alice, BOTH, office.domain, hertz=RTP_HERTZ) as plain,
        Baresip(rob, CALLER, office.domain) as caller,
    ):
        encrypting.dial(ECHO)
        encrypting.hangup()
        marks = {phone: phone.mark() for phone in (encrypting, plain)}
        caller.command("dial", f"sip:{BOTH}@{office.domain}")
        for phone, mark in marks.items():
            phone.wait_for("CALL_INCOMING", since=mark)
        taken, lost = (encrypting, plain) if answers == "sdes" else (plain, encrypting)
        taken.accept()
        lost.wait_for("CALL_CLOSED", since=marks[lost])
        caller.wait_for("CALL_ESTABLISHED")
        expect_audio(caller.machine, taken.machine)
        eventually(lambda: taken.hears(HERTZ))
        eventually(lambda: caller.hears(SDES_HERTZ if answers == "sdes" else RTP_HERTZ))
        assert refusals(lab) == 0
        assert profiles(bob) == {"RTP/SAVP"}
        assert profiles(alice) == profiles(rob) == profiles(office.machine) == {"RTP/AVP"}
        caller.hangup()


def test_a_phone_that_has_shown_nothing_and_wants_srtp_gets_it_when_it_refuses_rtp(
    office: Asterisk, lab: Lab, node: Node, bob: Machine, rob: Machine
) -> None:
    with (
        Baresip(bob, BOTH, office.domain, srtp="sdes", hertz=SDES_HERTZ, answers=True) as phone,
        Baresip(rob, CALLER, office.domain) as caller,
    ):
        for _ in range(2):
            caller.dial(BOTH)
            expect_audio(bob, rob)
            eventually(lambda: phone.hears(HERTZ))
            eventually(lambda: caller.hears(SDES_HERTZ))
            mark = phone.mark()
            caller.hangup()
            phone.wait_for("CALL_CLOSED", since=mark)
        # One from the phone to us, and none after the first call.
        assert refusals(lab) == 1
    assert not node.media_calls()


@pytest.mark.usefixtures("no_media_left")
def test_a_phone_that_is_registered_over_tls_is_offered_srtp_before_it_has_shown_anything(
    office: Asterisk, lab: Lab, node: Node, alice: Machine, rob: Machine
) -> None:
    ca = Certificates(node.state_dir).ca
    with (
        Baresip(
            alice, BOTH, office.domain, transport="tls", ca=ca, srtp="sdes", hertz=SDES_HERTZ, answers=True
        ) as phone,
        Baresip(rob, CALLER, office.domain) as caller,
    ):
        caller.dial(BOTH)
        expect_audio(alice, rob)
        eventually(lambda: phone.hears(HERTZ))
        eventually(lambda: caller.hears(SDES_HERTZ))
        mark = phone.mark()
        caller.hangup()
        phone.wait_for("CALL_CLOSED", since=mark)
        # And the other way round.
        phone.dial(ECHO)
        expect_audio(alice, office.machine)
        eventually(lambda: phone.hears(SDES_HERTZ))
        phone.hangup()
        assert refusals(lab) == 0
        assert profiles(alice) == {"RTP/SAVP"}
        assert profiles(rob) == profiles(office.machine) == {"RTP/AVP"}


@pytest.mark.usefixtures("no_media_left")
@pytest.mark.parametrize("of_pbx", ["sdes", "dtls"])
@pytest.mark.parametrize("of_phone", ["off", "sdes"])
def test_a_pbx_with_srtp_gets_it_whatever_its_phones_do(
    of_phone: Srtp,
    of_pbx: Literal["sdes", "dtls"],
    tenant: Callable[..., Tenant],
    lab: Lab,
    pbx: Machine,
    bob: Machine,
    rob: Machine,
) -> None:
    domain = tenant({"uri": f"sip:{pbx.address}:{pbx.sip_port}", "srtp": of_pbx}).domain
    with (
        Asterisk(pbx, domain, [BOTH, CALLER], srtp=of_pbx) as asterisk,
        Baresip(bob, BOTH, domain, srtp=of_phone, hertz=SDES_HERTZ) as callee,
        Baresip(rob, CALLER, domain) as caller,
    ):
        callee.dial(ECHO)
        eventually(lambda: callee.hears(SDES_HERTZ))
        mark = callee.mark()
        callee.hangup()
        caller.command("dial", f"sip:{BOTH}@{domain}")
        callee.wait_for("CALL_INCOMING", since=mark)
        callee.accept()
        expect_audio(bob, rob)
        eventually(lambda: callee.hears(HERTZ))
        eventually(lambda: caller.hears(SDES_HERTZ))
        assert profiles(pbx) == {"RTP/SAVP" if of_pbx == "sdes" else "UDP/TLS/RTP/SAVP"}
        assert profiles(bob) == {PROFILES[of_phone]}
        assert profiles(rob) == {"RTP/AVP"}
        assert refusals(lab) == 0
        caller.hangup()
        assert not asterisk.errors, asterisk.log_tail()


@pytest.mark.usefixtures("no_media_left")
@pytest.mark.parametrize("who", ["bob", "alice"])
def test_ice_that_a_phone_offers_is_answered_where_the_tenant_has_it_so(
    who: str, tenant: Callable[..., Tenant], pbx: Machine, lab: Lab, request: pytest.FixtureRequest
) -> None:
    machine: Machine = request.getfixturevalue(who)
    domain = tenant(pbx, ice="answer").domain
    with Asterisk(pbx, domain, [BOTH]) as asterisk, Baresip(machine, BOTH, domain, ice=True) as phone:
        phone.dial(ECHO)
        expect_audio(machine, pbx)
        eventually(lambda: phone.hears(HERTZ))
        # A re-INVITE goes on with it.
        phone.hold()
        phone.resume()
        answers = [m.body for m in received(machine) if m.status == 200 and "m=audio" in m.body]
        assert len(answers) >= 3
        for answer in answers:
            assert all(f"a={name}:" in answer for name in ("ice-ufrag", "ice-pwd", "candidate")), answer
            hosts = re.findall(r"^a=candidate:\S+ \d \S+ \d+ (\S+)", answer, re.MULTILINE)
            assert lab.edge(machine) in hosts
            assert set(hosts) <= {lab.edge(machine), lab.edge(machine, ipv6=True)}
        assert not [m for m in received(pbx) if "a=ice" in m.body or "a=candidate" in m.body]
        phone.hangup()
        assert not asterisk.errors, asterisk.log_tail()


@pytest.mark.usefixtures("no_media_left")
@pytest.mark.parametrize("who", ["bob", "alice"])
def test_else_ice_is_removed_and_audio_flows_without(
    who: str, acme: Tenant, pbx: Machine, request: pytest.FixtureRequest
) -> None:
    machine: Machine = request.getfixturevalue(who)
    callee = sipp(pbx, "call-answered", "uas")
    sipp(machine, "ice-offered", keys=acme.keys, talk=1.3)
    callee.wait()
    expect_audio(machine, pbx)
    assert not [m for m in (*received(machine), *received(pbx)) if "a=ice" in m.body or "a=candidate" in m.body]


@pytest.mark.usefixtures("no_media_left")
def test_a_phone_with_opus_and_a_pbx_with_g711_hear_each_other_where_the_tenant_has_it_transcoded(
    tenant: Callable[..., Tenant], pbx: Machine, bob: Machine, rob: Machine
) -> None:
    domain = tenant(pbx, codecs={"names": ["PCMA", "opus"], "transcode": True}).domain
    with (
        Asterisk(pbx, domain, [BOTH, CALLER]) as asterisk,
        Baresip(bob, BOTH, domain, codec="opus/48000/2", hertz=SDES_HERTZ) as opus,
        Baresip(rob, CALLER, domain) as g711,
    ):
        opus.command("dial", f"sip:{CALLER}@{domain}")
        g711.wait_for("CALL_INCOMING")
        g711.accept()
        opus.wait_for("CALL_ESTABLISHED")
        eventually(lambda: g711.hears(SDES_HERTZ))
        eventually(lambda: opus.hears(HERTZ))
        expect_audio(bob, rob)
        assert payload_types(bob) == {96}
        assert payload_types(rob) == payload_types(pbx) == {8}
        mark = opus.mark()
        g711.hangup()
        opus.wait_for("CALL_CLOSED", since=mark)
        # And the other way round: the PBX, which has no opus, offers.
        g711.command("dial", f"sip:{BOTH}@{domain}")
        opus.wait_for("CALL_INCOMING", since=mark)
        opus.accept()
        eventually(lambda: g711.hears(SDES_HERTZ))
        eventually(lambda: opus.hears(HERTZ))
        g711.hangup()
        assert not asterisk.errors, asterisk.log_tail()


def payload_types(machine: Machine) -> set[int]:
    """The RTP payload types that a machine has heard, DTMF and comfort noise aside."""
    return {stream.key.payload_type for stream in heard(machine)} - {13, 101}
