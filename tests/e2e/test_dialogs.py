"""What goes on inside a dialog, and how one begins and ends: from either side, by every way the RFCs allow."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from lab.agent import Agent, Talk, answered_call, registered, who_got
from lab.calls import answered, expect_audio, expect_heard, expect_silence
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.sip import Message
from lab.sipp import Transport, sipp

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("no_media_left")

TRANSPORTS = pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])


@dataclass(frozen=True)
class Line:
    """Who calls whom, and by which Request-URI."""

    caller: Agent
    callee: Agent
    uri: str
    domain: str

    def call(self) -> tuple[Talk, Talk]:
        """A call from INVITE to ACK; both ends of it."""
        return answered_call(self.caller, self.callee, self.uri, domain=self.domain)

    def invite(self, *, sdp: bool = True, headers: tuple[str, ...] = ()) -> tuple[Talk, Message]:
        """An INVITE, and how it arrived."""
        body = self.caller.sdp() if sdp else ""
        talk = self.caller.begin("INVITE", self.uri, domain=self.domain, headers=headers, body=body)
        return talk, self.callee.expect("INVITE")


@pytest.fixture(params=["from-the-phone", "from-the-instance"])
def line(request: pytest.FixtureRequest, phone: Agent, instance: Agent, acme: Tenant) -> Line:
    """The two directions of a call."""
    if request.param == "from-the-phone":
        return Line(phone, instance, f"sip:200@{acme.domain}", acme.domain)
    bound = registered(phone, instance, acme.domain)
    return Line(instance, phone, bound, acme.domain)


def is_ours(message: Message, hearer: Agent) -> bool:
    """Whether an SDP names the node, as this agent knows it, and nobody else."""
    own = re.findall(r"IN IP[46] (\S+)", message.body)
    return bool(own) and set(own) == {hearer.node.host}


# --- every method, from either side ----------------------------------------------------------------------------------


@TRANSPORTS
@pytest.mark.parametrize("hangs_up", ["caller", "callee"])
@pytest.mark.usefixtures("transport")
def test_every_request_inside_a_call_passes_from_either_side(hangs_up: str, line: Line) -> None:
    ours, theirs = line.call()
    for talk, peer in ((ours, theirs), (theirs, ours)):
        for method in ("INVITE", "UPDATE", "INFO", "REFER", "NOTIFY", "MESSAGE", "OPTIONS"):
            offers = method in ("INVITE", "UPDATE")
            extra = {
                "REFER": ["Refer-To: <sip:300@acme.example>"],
                "NOTIFY": ["Event: refer", "Subscription-State: active"],
            }
            talk.send(method, headers=extra.get(method, []), body=talk.agent.sdp(2) if offers else "")
            got = peer.agent.expect(method)
            assert f"<{got.uri}>" == peer.contact
            assert not got.headers("Route")
            assert not offers or is_ours(got, peer.agent)
            peer.agent.reply(got, 202 if method == "REFER" else 200, body=peer.agent.sdp(2) if offers else "")
            answer = talk.agent.expect(202 if method == "REFER" else 200)
            assert not offers or is_ours(answer, talk.agent)
            if method == "INVITE":
                talk.ack()
                peer.agent.expect("ACK")
    if hangs_up == "caller":
        ours.hang_up(line.callee)
    else:
        theirs.hang_up(line.caller)


def test_a_refused_change_leaves_the_call_as_it_was(line: Line) -> None:
    ours, theirs = line.call()
    for talk, peer in ((ours, line.callee), (theirs, line.caller)):
        talk.send("INVITE", body=talk.agent.sdp(2))
        peer.reply(peer.expect("INVITE"), 488)
        talk.agent.acknowledge(talk.agent.expect(488))
        peer.expect("ACK")
    ours.hang_up(line.callee)


def test_a_request_of_no_known_dialog_is_a_481(line: Line) -> None:
    ours, _ = line.call()
    ours.hang_up(line.callee)
    lost = Talk(line.caller, ours.local, ours.remote, "lost", ours.target, ours.routes, ours.contact, 5)
    lost.send("BYE")
    line.caller.expect(481)


# --- reliable provisional responses (RFC 3262) ------------------------------------------------------------------------


@pytest.mark.parametrize("new_offer", [False, True], ids=["plain", "with-sdp"])
def test_a_reliable_183_is_acknowledged_by_a_prack(new_offer: bool, line: Line) -> None:
    ours, invite = line.invite(headers=("Supported: 100rel",))
    theirs = Talk.answering(line.callee, invite, "callee")
    line.callee.reply(invite, 183, tag="callee", headers=["Require: 100rel", "RSeq: 7"], body=line.callee.sdp(),
                      contact=theirs.contact)  # fmt: skip
    early = line.caller.expect(183)
    assert early.header("RSeq") == "7"
    assert is_ours(early, line.caller)
    ours.learn(early).send("PRACK", headers=["RAck: 7 1 INVITE"], body=line.caller.sdp(2) if new_offer else "")
    prack = line.callee.expect("PRACK")
    assert f"<{prack.uri}>" == theirs.contact
    assert not new_offer or is_ours(prack, line.callee)
    line.callee.reply(prack, 200, body=line.callee.sdp(2) if new_offer else "")
    answer = line.caller.expect(200)
    assert not new_offer or is_ours(answer, line.caller)
    line.callee.reply(invite, 200, tag="callee")
    line.caller.expect(200)
    ours.ack(cseq=1)
    line.callee.expect("ACK")
    theirs.hang_up(line.caller)


# --- late offer (RFC 3264, 4) -----------------------------------------------------------------------------------------


def test_an_offer_in_the_200_is_answered_in_the_ack(line: Line) -> None:
    ours, invite = line.invite(sdp=False)
    line.callee.reply(invite, 200, tag="callee", body=line.callee.sdp())
    offer = line.caller.expect(200)
    assert is_ours(offer, line.caller)
    ours.learn(offer).ack(line.caller.sdp())
    assert is_ours(line.callee.expect("ACK"), line.callee)
    Talk.answering(line.callee, invite, "callee").hang_up(line.caller)


def test_an_offer_in_a_reliable_183_is_answered_in_the_prack(line: Line) -> None:
    ours, invite = line.invite(sdp=False, headers=("Supported: 100rel",))
    theirs = Talk.answering(line.callee, invite, "callee")
    line.callee.reply(invite, 183, tag="callee", headers=["Require: 100rel", "RSeq: 1"], body=line.callee.sdp(),
                      contact=theirs.contact)  # fmt: skip
    offer = line.caller.expect(183)
    assert is_ours(offer, line.caller)
    ours.learn(offer).send("PRACK", headers=["RAck: 1 1 INVITE"], body=line.caller.sdp())
    prack = line.callee.expect("PRACK")
    assert is_ours(prack, line.callee)
    line.callee.reply(prack, 200)
    line.caller.expect(200)
    line.callee.reply(invite, 200, tag="callee")
    line.caller.expect(200)
    ours.ack(cseq=1)
    line.callee.expect("ACK")
    ours.hang_up(line.callee)


def test_an_offer_in_the_200_of_a_later_invite_is_answered_in_its_ack(line: Line) -> None:
    ours, theirs = line.call()
    for talk, peer in ((ours, line.callee), (theirs, line.caller)):
        talk.send("INVITE")
        again = peer.expect("INVITE")
        peer.reply(again, 200, body=peer.sdp(2))
        assert is_ours(talk.agent.expect(200), talk.agent)
        talk.ack(talk.agent.sdp(2))
        assert is_ours(peer.expect("ACK"), peer)
    ours.hang_up(line.callee)


# --- SUBSCRIBE (RFC 6665) ---------------------------------------------------------------------------------------------


@TRANSPORTS
@pytest.mark.usefixtures("transport")
def test_a_subscription_is_notified_and_refreshed(line: Line) -> None:
    event = ["Event: dialog", "Expires: 60"]
    ours = line.caller.begin("SUBSCRIBE", line.uri, domain=line.domain, headers=event)
    subscribe = line.callee.expect("SUBSCRIBE")
    theirs = Talk.answering(line.callee, subscribe, "notifier")
    line.callee.reply(subscribe, 200, tag="notifier", headers=["Expires: 60"])
    ours.learn(line.caller.expect(200))
    for state in ("active;expires=60", "active;expires=55", "terminated"):
        theirs.send("NOTIFY", headers=["Event: dialog", f"Subscription-State: {state}"])
        notify = line.caller.expect("NOTIFY")
        assert f"<{notify.uri}>" == ours.contact
        line.caller.reply(notify, 200)
        line.callee.expect(200)
        if state == "active;expires=60":
            ours.send("SUBSCRIBE", headers=event)
            refresh = line.callee.expect("SUBSCRIBE")
            assert f"<{refresh.uri}>" == theirs.contact
            line.callee.reply(refresh, 200, headers=["Expires: 60"])
            line.caller.expect(200)


# --- routes and Contacts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [";lr", ""], ids=["loose", "strict"])
@pytest.mark.parametrize("whose", ["callee", "caller"])
def test_another_proxys_record_route_keeps_its_place(whose: str, lr: str, line: Line) -> None:
    far = line.callee if whose == "callee" else line.caller
    extra = f"<sip:{'10.5.4.99' if far.host.startswith('10.') else '203.0.113.99'}:5070{lr}>"
    ours = line.caller.begin(
        "INVITE",
        line.uri,
        domain=line.domain,
        body=line.caller.sdp(),
        headers=[f"Record-Route: {extra}"] if whose == "caller" else [],
    )
    invite = line.callee.expect("INVITE")
    theirs = Talk.answering(line.callee, invite, "callee")
    added = [extra] if whose == "callee" else []
    line.callee.reply(
        invite, 200, tag="callee", body=line.callee.sdp(), routes=[*added, *invite.headers("Record-Route")]
    )
    ok = line.caller.expect(200)
    ours.learn(ok)
    if whose == "caller":  # its own proxy is the first to get what it sends, and takes itself off
        assert ours.routes.pop(0) == extra
    assert len(ours.routes) == (2 if whose == "callee" else 1)
    ours.ack()
    _expect_behind(line.callee, "ACK", theirs.contact, extra if whose == "callee" else "")
    for talk, peer, other in ((ours, line.callee, theirs), (theirs, line.caller, ours)):
        for method in ("INFO", "BYE") if talk is theirs else ("INFO", "UPDATE"):
            talk.send(method)
            got = _expect_behind(peer, method, other.contact, extra if far is peer else "")
            peer.reply(got, 200)
            talk.agent.expect(200)


def _expect_behind(agent: Agent, method: str, contact: str, extra: str) -> Message:
    """A request to `contact` by way of the proxy `extra`, which our agent stands for."""
    got = agent.expect(method)
    if extra and ";lr" not in extra:  # RFC 3261, 16.6, 6: a strict router finds itself in the Request-URI
        assert (f"<{got.uri}>", got.headers("Route")) == (extra, [contact])
    else:
        assert (f"<{got.uri}>", got.headers("Route")) == (contact, [extra] if extra else [])
    return got


def test_a_strict_router_next_to_us_is_understood(line: Line) -> None:
    ours, theirs = line.call()
    for talk, peer, other in ((ours, line.callee, theirs), (theirs, line.caller, ours)):
        # It has put us into the Request-URI, and the target behind all Routes (RFC 3261, 16.4).
        strict = Talk(
            talk.agent, talk.local, talk.remote, talk.call_id, talk.routes[0].strip("<>"), [f"<{talk.target}>;lr"],
            talk.contact, talk.cseq,
        )  # fmt: skip
        strict.send("INFO")
        talk.cseq = strict.cseq
        got = peer.expect("INFO")
        assert (f"<{got.uri}>", got.headers("Route")) == (other.contact, [])
        peer.reply(got, 200)
        talk.agent.expect(200)
    ours.hang_up(line.callee)


@pytest.mark.parametrize("whose", ["caller", "callee"])
@pytest.mark.parametrize(
    "contact",
    [
        "<sips:bob@{hostport}>",
        "<sip:{hostport}>",
        "<sip:bob@{host};ob;transport=udp>",
        '<sip:bob@{hostport};x-a=1;b;c=%3b>;expires=60;+sip.instance="<urn:uuid:1,2>"',
        '"Bob, \\"the\\" <b>" <sip:bob;phone-context=x@{hostport}>',
        "<sip:%62ob:pw@{hostport}?Subject=x>",
        "sip:bob@{hostport}",
        "<sip:bob@bob-desk.invalid:5070>",
    ],
)
@pytest.mark.usefixtures("instance")
def test_an_odd_contact_comes_back_as_it_was(whose: str, contact: str, line: Line) -> None:
    far = line.caller if whose == "caller" else line.callee
    odd = contact.format(host=far.host, hostport=far.hostport)
    plain = re.search(r"<?(sips?:[^>]+)", odd.rpartition(" ")[2] if "the" in odd else odd)
    assert plain
    uri = plain[1]
    mine = odd if whose == "caller" else ""
    ours = line.caller.begin("INVITE", line.uri, domain=line.domain, body=line.caller.sdp(), contact=mine)
    invite = line.callee.expect("INVITE")
    theirs = Talk.answering(line.callee, invite, "callee")
    line.callee.reply(invite, 200, tag="callee", body=line.callee.sdp(), contact=odd if whose == "callee" else "")
    ours.learn(line.caller.expect(200)).ack()
    ack = line.callee.expect("ACK")
    if whose == "callee":
        assert ack.uri == uri
        ours.hang_up(line.callee)
    else:
        theirs.send("BYE")
        bye = line.caller.expect("BYE")
        assert bye.uri == uri
        line.caller.reply(bye, 200)
        line.callee.expect(200)


# --- CANCEL -----------------------------------------------------------------------------------------------------------


@TRANSPORTS
@pytest.mark.usefixtures("transport")
def test_a_ringing_call_is_cancelled(line: Line) -> None:
    ours, invite = line.invite()
    line.callee.reply(invite, 180, tag="callee")
    line.caller.expect(180)
    ours.send("CANCEL")
    line.caller.expect(200)
    line.callee.reply(line.callee.expect("CANCEL"), 200)
    line.callee.reply(invite, 487, tag="callee")
    line.callee.expect("ACK")
    line.caller.acknowledge(line.caller.expect(487))
    line.caller.expect_silence()
    line.callee.expect_silence(0.1)


def test_a_call_cancelled_before_it_rings_is_cancelled_as_soon_as_it_does(line: Line) -> None:
    ours, invite = line.invite()
    ours.send("CANCEL")
    line.caller.expect(200)
    line.callee.reply(invite, 180, tag="callee")
    line.callee.reply(line.callee.expect("CANCEL"), 200)
    line.callee.reply(invite, 487, tag="callee")
    line.callee.expect("ACK")
    message = line.caller.expect(487)
    line.caller.acknowledge(message)


@pytest.mark.parametrize("ringing", [True, False])
def test_a_cancel_that_comes_after_the_200_is_too_late(ringing: bool, line: Line) -> None:
    ours, invite = line.invite()
    if ringing:
        line.callee.reply(invite, 180, tag="callee")
        line.caller.expect(180)
    line.callee.reply(invite, 200, tag="callee", body=line.callee.sdp())
    ours.learn(line.caller.expect(200))
    ours.send("CANCEL")
    assert line.caller.expect(200).method == "CANCEL"
    ours.ack()
    line.callee.expect("ACK")
    ours.hang_up(line.callee)


@pytest.mark.parametrize("ringing", [True, False])
def test_a_200_that_crosses_a_cancel_wins(ringing: bool, line: Line) -> None:
    ours, invite = line.invite()
    if ringing:
        line.callee.reply(invite, 180, tag="callee")
        line.caller.expect(180)
    ours.send("CANCEL")
    assert line.caller.expect(200).method == "CANCEL"
    cancel = line.callee.expect("CANCEL") if ringing else None
    line.callee.reply(invite, 200, tag="callee", body=line.callee.sdp())
    answer = line.caller.expect(200)
    assert answer.method == "INVITE"
    assert is_ours(answer, line.caller)
    ours.learn(answer).ack()
    if cancel:
        line.callee.reply(cancel, 481)
    line.callee.expect("ACK")
    ours.hang_up(line.callee)


# --- early media and forks --------------------------------------------------------------------------------------------


def test_early_media_is_heard_before_the_call_is_answered(bob: Machine, pbx: Machine, acme: Tenant) -> None:
    callee = sipp(pbx, "early-media", "uas", talk=1.3)
    sipp(bob, "early-media", keys=acme.keys, talk=1.3)
    callee.wait()
    early = min(m.time for m in bob.lab.wire.messages(machine="node", method="INVITE", status=183))
    assert answered(bob) > early + 1.2
    expect_audio(bob, pbx, since=early)


def test_a_fork_behind_us_may_answer_with_any_of_its_tags(line: Line) -> None:
    ours, invite = line.invite()
    line.callee.reply(invite, 180, tag="a")
    assert ";tag=a" in line.caller.expect(180).header("To")
    line.callee.reply(invite, 183, tag="b", body=line.callee.sdp())
    early = line.caller.expect(183)
    assert ";tag=b" in early.header("To")
    assert is_ours(early, line.caller)
    line.callee.reply(invite, 200, tag="b", body=line.callee.sdp())
    ok = line.caller.expect(200)
    assert ";tag=b" in ok.header("To")
    assert ok.media == early.media
    ours.learn(ok).ack()
    line.callee.expect("ACK")
    Talk.answering(line.callee, invite, "b").hang_up(line.caller)


# --- redirection ------------------------------------------------------------------------------------------------------

OUTER = "<sip:300@198.51.100.77:5070;transport=tcp>;q=0.7"


@pytest.mark.parametrize("status", [300, 301, 302, 305, 380])
def test_a_redirection_is_passed_with_its_inside_hidden(
    status: int, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    invite = instance.expect("INVITE")
    inner = "<sip:300@10.5.4.11:5060>;q=0.9"
    instance.reply(invite, status, tag="i", contact=f"{OUTER}, {inner}")
    instance.expect("ACK")
    answer = phone.expect(status)
    phone.acknowledge(answer)
    first, second = (value.strip() for value in answer.header("Contact").split(","))
    assert first == OUTER
    assert re.fullmatch(r"<sip:300@203\.0\.113\.10:5060;sw=[\w-]+>;q=0\.9", second)
    # The caller follows it, through us again, to the same instance.
    phone.begin("INVITE", second.partition(">")[0].strip("<"), body=phone.sdp())
    again = instance.expect("INVITE")
    assert again.uri == "sip:300@10.5.4.11:5060"
    instance.reply(again, 486, tag="i")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(486))


@pytest.mark.parametrize("contact", [OUTER, "<sip:300@10.5.4.12:5060>", "<sip:300@203.0.113.20>"])
def test_a_refused_redirection_is_a_480_and_followed_by_nobody(
    contact: str, phone: Agent, instance: Agent, lab: Lab, tenant: Callable[..., Tenant]
) -> None:
    acme = tenant(instance.machine, lab.instance("other-pbx"), redirect="refuse")
    with Agent(lab.instance("other-pbx")) as other, Agent(lab.carrier()) as carrier:
        phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
        took, idle = who_got(instance, other)
        took.reply(took.expect("INVITE"), 302, tag="i", contact=contact)
        took.expect("ACK")
        answer = phone.expect(480)
        assert not answer.headers("Contact")
        phone.acknowledge(answer)
        for nobody in (idle, carrier, phone):
            nobody.expect_silence(0.2)


# --- hold -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["hold-resume", "hold-inactive", "hold-zero-address"])
@pytest.mark.parametrize("who", ["bob", "alice"])
def test_a_call_on_hold_is_silent_and_comes_back(
    way: str, who: str, pbx: Machine, acme: Tenant, request: pytest.FixtureRequest
) -> None:
    caller = request.getfixturevalue(who)
    callee = sipp(pbx, way, "uas", talk=1.3)
    sipp(caller, way, keys=acme.keys, talk=1.3)
    callee.wait()
    answers = caller.lab.wire.messages(machine="node", direction="out", method="INVITE", status=200)
    first, held, resumed = sorted({m.header("CSeq"): m.time for m in reversed(answers)}.values())
    for machine in (caller, pbx):
        expect_heard(machine, first + 0.2, first + 1.2)
        expect_heard(machine, resumed + 0.2, resumed + 1.2)
    # What was under way may take a moment; the caller goes on 1.3 s after it has held, or later.
    expect_silence(caller, since=held + 0.3, seconds=0.9)
    if way == "hold-resume":  # sendonly: the caller's music goes on
        expect_heard(pbx, held + 0.1, held + 1.1)
    else:
        expect_silence(pbx, since=held + 0.3, seconds=0.9)


# --- hidden -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bye_from", ["instance", "phone"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@TRANSPORTS
def test_a_call_full_of_inner_addresses_shows_none_and_works(
    ipv6: bool, bye_from: str, transport: Transport, phone: Agent, acme: Tenant, instance: Agent
) -> None:
    bound = registered(phone, instance, acme.domain)
    inner = f"[{instance.machine.address6}]" if ipv6 else instance.host
    call_id = f"77-{time.time_ns():x}@{instance.machine.address6 if ipv6 else instance.host}"
    headers = [
        f"P-Asserted-Identity: <sip:100@{inner}>",
        f'Remote-Party-ID: "100" <sip:100@{inner}:5060>;party=calling',
        f"Diversion: <sip:200@{inner}>;reason=unconditional",
        f"Warning: 399 {inner} \"from {inner}\"",
        f"Server: PBX at {inner}",
        f"User-Agent: PBX {inner}:5060",
        f"Call-Info: <http://{inner}/ring.wav>",
        f"History-Info: <sip:{inner}>;index=1",
        f"X-Asterisk-Host: sip:{inner}",
    ]  # fmt: skip
    ours = Talk(
        instance, f"<sip:100@{inner}>;tag=l", f"<sip:alice@{inner}>", call_id, bound, [instance.route],
        f"<sip:100@{instance.hostport}>",
    )  # fmt: skip
    ours.send("INVITE", headers=headers, body=instance.sdp())
    invite = phone.expect("INVITE")
    assert invite.call_id != call_id
    assert acme.domain in invite.header("P-Asserted-Identity")
    assert acme.domain in invite.header("From")
    theirs = Talk.answering(phone, invite, "phone")
    phone.reply(invite, 200, tag="phone", body=phone.sdp())
    ok = instance.expect(200)
    assert (ok.call_id, ok.header("Via")) == (call_id, ok.header("Via"))
    assert len(ok.headers("Via")) == 1
    ours.learn(ok).ack()
    assert phone.expect("ACK").call_id == invite.call_id
    for talk, peer in ((ours, phone), (theirs, instance)):
        for method in ("INFO", "REFER", "NOTIFY", "INVITE"):
            body = talk.agent.sdp(2) if method == "INVITE" else ""
            talk.send(method, headers=[f"Refer-To: <sip:300@{inner}>", *headers] if talk is ours else [], body=body)
            got = peer.expect(method)
            assert got.call_id == (invite.call_id if talk is ours else call_id)
            peer.reply(got, 200, headers=headers if talk is theirs else [], body=peer.sdp(2) if body else "")
            assert talk.agent.expect(200).call_id == (call_id if talk is ours else invite.call_id)
            if method == "INVITE":
                talk.ack()
                peer.expect("ACK")
    if bye_from == "instance":
        ours.hang_up(phone)
    else:
        theirs.hang_up(instance)


def test_an_instances_answers_show_nothing_inside(phone: Agent, instance: Agent, acme: Tenant) -> None:
    words = [
        "Warning: 399 10.5.4.11:5060 \"no 10.5.4.11\"",
        "Server: PBX at 10.5.4.11",
        "P-Asserted-Identity: <sip:200@10.5.4.11>",
        "Remote-Party-ID: <sip:200@10.5.4.11>",
        "Error-Info: <http://10.5.4.11/busy.wav>",
        "X-Host: sip:10.5.4.11",
    ]  # fmt: skip
    for status in (180, 486):
        phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
        invite = instance.expect("INVITE")
        instance.reply(invite, 180, tag="i", headers=words)
        phone.expect(180)
        final = 488 if status == 180 else status
        instance.reply(invite, final, tag="i", headers=words, body=instance.sdp() if final == 488 else "")
        instance.expect("ACK")
        phone.acknowledge(phone.expect(final))


def test_a_cancelled_or_refused_call_with_an_inner_call_id_ends_well(
    phone: Agent, instance: Agent, acme: Tenant
) -> None:
    bound = registered(phone, instance, acme.domain)
    for end in ("CANCEL", "486"):
        ours = instance.begin("INVITE", bound, body=instance.sdp(), call_id=f"{end}-{time.time_ns():x}@10.5.4.11")
        invite = phone.expect("INVITE")
        phone.reply(invite, 180, tag="p")
        instance.expect(180)
        if end == "CANCEL":
            ours.send("CANCEL")
            instance.expect(200)
            cancel = phone.expect("CANCEL")
            assert cancel.call_id == invite.call_id
            phone.reply(cancel, 200)
        phone.reply(invite, 487 if end == "CANCEL" else 486, tag="p")
        assert phone.expect("ACK").call_id == invite.call_id
        final = instance.expect(487 if end == "CANCEL" else 486)
        assert final.call_id == ours.call_id
        instance.acknowledge(final)


# --- retransmissions --------------------------------------------------------------------------------------------------


def test_a_repeated_request_is_absorbed(line: Line) -> None:
    ours, invite = line.invite()
    for _ in range(2):
        ours.send("INVITE", body=line.caller.sdp(), cseq=1, repeat=True)
    line.callee.expect_silence(0.2)
    line.callee.reply(invite, 486, tag="callee")
    line.callee.expect("ACK")
    line.caller.acknowledge(line.caller.expect(486))
    ours.send("INVITE", body=line.caller.sdp(), cseq=1, repeat=True)
    line.callee.expect_silence(0.2)


def test_a_lost_200_and_a_lost_ack_are_made_good(line: Line) -> None:
    ours, invite = line.invite()
    theirs = Talk.answering(line.callee, invite, "callee")
    line.callee.reply(invite, 200, tag="callee", body=line.callee.sdp())
    first = line.caller.expect(200)  # it may be lost after us, and so may the caller's ACK
    for _ in range(2):
        line.callee.reply(invite, 200, tag="callee", body=line.callee.sdp())
        again = line.caller.expect_again(200)
        assert (again.status, again.header("Contact")) == (200, first.header("Contact"))
        assert (again.headers("Record-Route"), again.media) == (first.headers("Record-Route"), first.media)
    ours.learn(again)
    for _ in range(3):
        ours.ack(cseq=1, repeat=True)
        line.callee.expect_again("ACK")
    theirs.send("BYE")
    bye = line.caller.expect("BYE")
    theirs.send("BYE", cseq=theirs.cseq, repeat=True)
    line.caller.expect_silence(0.2)
    line.caller.reply(bye, 200)
    line.callee.expect(200)
    theirs.send("BYE", cseq=theirs.cseq, repeat=True)
    line.callee.expect_again(200)
    line.caller.expect_silence(0.2)


def test_a_200_repeated_when_its_transaction_is_gone_is_dropped_and_shows_nothing(line: Line, node: Node) -> None:
    ours, invite = line.invite()
    line.callee.reply(invite, 200, tag="callee", body=line.callee.sdp())
    ours.learn(line.caller.expect(200))
    # tm keeps it for 5 s; what earlier tests left unanswered may take longer.
    eventually(lambda: node.rpc("tm.stats")["current"] == 0, 60)
    line.callee.reply(invite, 200, tag="callee", body=line.callee.sdp())
    with pytest.raises(TimeoutError):
        line.caller.receive(0.3)
    ours.ack()
    line.callee.expect("ACK")
    ours.hang_up(line.callee)


# --- silent and broken instances --------------------------------------------------------------------------------------

AT_LEAST_SILENT = 1.5
"""Seconds that an instance has, at least, before it is given up; it is 2 s, and a busy machine's may be longer."""
LONG_BEFORE_TIMER_B = 20.0
"""Seconds. Timers B and F, which would be the end of it otherwise, run out after 32 (RFC 3261, 17.1)."""


@pytest.fixture
def second(lab: Lab) -> Iterator[Agent]:
    with Agent(lab.instance("other-pbx")) as agent:
        yield agent


@pytest.fixture
def pair(tenant: Callable[..., Tenant], instance: Agent, second: Agent) -> Tenant:
    """A tenant with a first and a second instance."""
    return tenant(*({"uri": f"sip:{agent.hostport}", "priority": n} for n, agent in enumerate((instance, second), 1)))


@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "SUBSCRIBE"])
def test_a_silent_instance_is_given_up_for_the_next(
    method: str, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    start = time.monotonic()
    ours = phone.begin(method, f"sip:200@{pair.domain}", body=phone.sdp() if method == "INVITE" else "")
    instance.expect(method)
    request = second.expect(method, timeout=LONG_BEFORE_TIMER_B)
    assert time.monotonic() - start > AT_LEAST_SILENT
    second.reply(request, 200, tag="s", body=second.sdp() if method == "INVITE" else "")
    ok = phone.expect(200)
    if method == "INVITE":
        assert is_ours(ok, phone)
        ours.learn(ok).ack()
        second.expect("ACK")
        ours.send("INFO")
        second.reply(second.expect("INFO"), 200)
        phone.expect(200)
        Talk.answering(second, request, "s").hang_up(phone)


@pytest.mark.parametrize("method", ["INVITE", "REGISTER"])
def test_a_single_silent_instance_is_a_503(method: str, phone: Agent, instance: Agent, acme: Tenant) -> None:
    start = time.monotonic()
    phone.begin(method, f"sip:200@{acme.domain}", body=phone.sdp() if method == "INVITE" else "")
    instance.expect(method)
    answer = phone.expect(503, timeout=LONG_BEFORE_TIMER_B)
    assert time.monotonic() - start > AT_LEAST_SILENT
    assert int(answer.header("Retry-After")) > 0
    if method == "INVITE":
        phone.acknowledge(answer)


@pytest.mark.parametrize("method", ["INVITE", "REGISTER"])
def test_an_instance_that_has_said_something_is_not_given_up(
    method: str, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    phone.begin(method, f"sip:200@{pair.domain}", body=phone.sdp() if method == "INVITE" else "")
    request = instance.expect(method)
    instance.reply(request, 100)
    second.expect_silence(3.0)
    instance.reply(request, 404, tag="i")
    answer = phone.expect(404)
    if method == "INVITE":
        instance.expect("ACK")
        phone.acknowledge(answer)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_broken_instance_is_followed_by_the_next(
    status: int, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{pair.domain}", body=phone.sdp())
    invite = instance.expect("INVITE")
    instance.reply(invite, status, tag="i")
    instance.expect("ACK")
    again = second.expect("INVITE")
    assert is_ours(again, second)
    second.reply(again, 200, tag="s", body=second.sdp())
    ours.learn(phone.expect(200)).ack()
    second.expect("ACK")
    ours.hang_up(second)
    instance.expect_silence(0.1)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 407, 480, 486, 487, 488, 600, 603])
def test_an_answer_that_speaks_of_the_call_is_passed(
    status: int, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    phone.begin("INVITE", f"sip:200@{pair.domain}", body=phone.sdp())
    instance.reply(instance.expect("INVITE"), status, tag="i")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(status))
    second.expect_silence(0.2)
    phone.expect_silence(0.1)


def test_a_draining_instance_keeps_its_calls_and_gets_no_new_ones(
    node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    uri = f"sip:200@{pair.domain}"
    running, _ = answered_call(phone, instance, uri)
    values = [{"uri": f"sip:{a.hostport}", "priority": n, "drain": n == 1} for n, a in enumerate((instance, second), 1)]
    node.put(pair.name, {"domains": [pair.domain], "instances": values})
    new, _ = answered_call(phone, second, uri)
    running.send("INFO")
    instance.reply(instance.expect("INFO"), 200)
    phone.expect(200)
    running.hang_up(instance)
    new.hang_up(second)
    node.put(pair.name, {"domains": [pair.domain], "instances": [value | {"drain": True} for value in values]})
    phone.begin("INVITE", uri, body=phone.sdp())
    answer = phone.expect(503)
    assert answer.headers("Retry-After")
    phone.acknowledge(answer)
