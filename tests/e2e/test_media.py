"""Audio flows both ways, only through us, and only while there is a call; without rtpengine there is no half a call."""

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from lab.agent import Agent, Talk, answered_call, registered
from lab.calls import expect_audio, received
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.packets import Address
from lab.processes import paused
from lab.sipp import Transport, sipp
from sipward.settings import Control

from .conftest import Tenant

TRANSPORTS = pytest.mark.parametrize("transport", ["udp", "tcp"])
PLACES = pytest.mark.parametrize(
    ("who", "ipv6"), [("bob", False), ("bob", True), ("alice", False), ("rob", False), ("lan", False)]
)


@pytest.fixture(autouse=True)
def no_media_left(node: Node, request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a call in rtpengine.

    Except for one that does not answer: the offer that waits in its socket is a call when it goes on, and is gone after
    its `offer-timeout`.
    """
    before = set(node.media_calls())
    yield
    if "hung" not in request.fixturenames:
        assert not set(node.media_calls()) - before


@pytest.fixture
def lan(lab: Lab) -> Machine:
    """A phone in the node's local network."""
    return lab.phone("lan", behind="local")


type Hung = Callable[[], AbstractContextManager[None]]


def shown(machine: Machine) -> set[str]:
    """Every address that an SDP has shown to this machine, in o= and c= lines."""
    return {address for m in received(machine) for address in re.findall(r"IN IP[46] (\S+)", m.body)}


# --- audio -----------------------------------------------------------------------------------------------------------


@PLACES
@TRANSPORTS
@pytest.mark.parametrize("instance_ipv6", [False, True], ids=["instance-ipv4", "instance-ipv6"])
def test_a_call_is_heard_both_ways_and_each_side_is_shown_its_own_address(
    who: str,
    ipv6: bool,
    transport: Transport,
    instance_ipv6: bool,
    lab: Lab,
    pbx: Machine,
    tenant: Callable[..., Tenant],
    request: pytest.FixtureRequest,
) -> None:
    caller: Machine = request.getfixturevalue(who)
    acme = tenant({"uri": f"sip:[{pbx.address6}]:5060" if instance_ipv6 else f"sip:{pbx.address}:5060"})
    callee = sipp(pbx, "call-answered", "uas", ipv6=instance_ipv6)
    sipp(caller, "call-answered", transport=transport, ipv6=ipv6, keys=acme.keys, talk=1.3)
    callee.wait()
    expect_audio(caller, pbx)
    assert shown(caller) == {lab.edge(caller, ipv6=ipv6)}
    assert shown(pbx) == {lab.edge(pbx, ipv6=instance_ipv6)}


@PLACES
@TRANSPORTS
@pytest.mark.parametrize("instance_ipv6", [False, True], ids=["instance-ipv4", "instance-ipv6"])
def test_a_call_from_the_instance_is_heard_both_ways_and_each_side_is_shown_its_own_address(
    who: str,
    ipv6: bool,
    transport: Transport,
    instance_ipv6: bool,
    lab: Lab,
    pbx: Machine,
    tenant: Callable[..., Tenant],
    request: pytest.FixtureRequest,
) -> None:
    callee: Machine = request.getfixturevalue(who)
    acme = tenant({"uri": f"sip:[{pbx.address6}]:5060" if instance_ipv6 else f"sip:{pbx.address}:5060"})
    registrar = sipp(pbx, "register", "uas", ipv6=instance_ipv6, keys=acme.keys)
    registration = sipp(
        callee, "register", transport=transport, ipv6=ipv6, keys=acme.keys, answers="call-answered", talk=30,
        background=True,
    )  # fmt: skip
    registrar.wait()
    registration.wait_for("registered")
    keys = acme.keys | {"target": registrar.saved["contact"]}
    sipp(pbx, "call-from-instance", ipv6=instance_ipv6, keys=keys, talk=1.3)
    registration.stop()
    expect_audio(callee, pbx)
    assert shown(callee) == {lab.edge(callee, ipv6=ipv6)}
    assert shown(pbx) == {lab.edge(pbx, ipv6=instance_ipv6)}


# --- as long as there is a call --------------------------------------------------------------------------------------


def test_a_call_is_in_rtpengine_until_it_ends(node: Node, phone: Agent, instance: Agent, acme: Tenant) -> None:
    ours, theirs = answered_call(phone, instance, f"sip:200@{acme.domain}")
    assert called(node) == [f"{acme.name}/{ours.call_id}"]
    theirs.send("BYE")
    phone.reply(phone.expect("BYE"), 200)
    instance.expect(200)
    # At once: before the answer to the BYE has gone on.
    assert not node.media_calls()


def called(node: Node) -> list[str]:
    """The calls in rtpengine, as tenant and Call-ID; what tells INVITEs of one Call-ID apart is left out."""
    return [name.rpartition("/")[0] for name in node.media_calls()]


@pytest.mark.parametrize("end", ["busy", "declined", "redirected", "cancelled", "silent", "not-found"])
def test_a_call_that_comes_to_nothing_leaves_rtpengine_at_once(
    end: str, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    invite = instance.expect("INVITE")
    assert called(node) == [f"{acme.name}/{ours.call_id}"]
    if end == "cancelled":
        instance.reply(invite, 183, tag="i", body=instance.sdp())
        phone.expect(183)
        ours.send("CANCEL")
        phone.expect(200)
        instance.reply(instance.expect("CANCEL"), 200)
    status = {"busy": 486, "declined": 603, "redirected": 302, "cancelled": 487, "silent": 503, "not-found": 404}[end]
    if end != "silent":
        instance.reply(invite, status, tag="i")
        instance.expect("ACK")
    phone.acknowledge(phone.expect(status))
    assert not node.media_calls()


def test_a_call_to_a_phone_that_is_gone_leaves_nothing(node: Node, bob: Machine, instance: Agent, acme: Tenant) -> None:
    with Agent(bob, "tcp") as gone:
        bound = registered(gone, instance, acme.domain)
        gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: not node.is_connected(Address(gone.host, gone.port)))
    instance.begin("INVITE", bound, body=instance.sdp())
    instance.acknowledge(instance.expect(430))
    assert not node.media_calls()


def test_equal_call_ids_of_two_tenants_are_two_calls(
    node: Node, lab: Lab, phone: Agent, instance: Agent, acme: Tenant, tenant: Callable[..., Tenant]
) -> None:
    other = tenant(lab.instance("other-pbx"))
    with Agent(lab.phone("control")) as caller, Agent(lab.instance("other-pbx")) as callee:
        first, _ = answered_call(phone, instance, f"sip:200@{acme.domain}", call_id="the-same")
        second, _ = answered_call(caller, callee, f"sip:200@{other.domain}", call_id="the-same")
        assert sorted(called(node)) == sorted(f"{t.name}/the-same" for t in (acme, other))
        first.hang_up(instance)
        assert called(node) == [f"{other.name}/the-same"]
        second.hang_up(callee)


# --- without rtpengine -----------------------------------------------------------------------------------------------


@pytest.fixture
def hung(node: Node) -> Iterator[Hung]:
    """`with hung():` rtpengine does not answer."""
    yield lambda: paused(rtpengine(node))
    eventually(lambda: is_used(node))


def is_used(node: Node) -> bool:
    """Whether Kamailio takes rtpengine for alive."""
    return all(engine["active"] for engine in node.rpc("rtpengine.show", "all"))


def rtpengine(node: Node) -> int:
    """Its process id."""
    return next(pid for pid, name in node.processes().items() if name.startswith("rtpengine"))


def refused_for_media(caller: Agent, uri: str) -> None:
    """A call that cannot have audio is refused, with a time to try again."""
    caller.begin("INVITE", uri, body=caller.sdp())
    answer = caller.expect(503)
    assert 0 < int(answer.header("Retry-After")) <= 10
    caller.acknowledge(answer)


def call_works(caller: Agent, callee: Agent, uri: str) -> bool:
    """Whether a call has audio right now; it is hung up again."""
    ours = caller.begin("INVITE", uri, body=caller.sdp())
    eventually(lambda: callee.has_something() or caller.has_something())
    if not callee.has_something():
        caller.acknowledge(caller.expect(503))
        return False
    invite = callee.expect("INVITE")
    assert set(re.findall(r"IN IP4 (\S+)", invite.body)) == {callee.node.host}
    callee.reply(invite, 200, tag="c", body=callee.sdp())
    ours.learn(caller.expect(200)).ack()
    callee.expect("ACK")
    ours.hang_up(callee)
    return True


def test_without_an_answer_from_rtpengine_a_call_is_a_503(
    hung: Hung, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    uri = f"sip:200@{acme.domain}"
    with hung():
        for _ in range(3):
            refused_for_media(phone, uri)
        # What needs no audio goes on.
        phone.begin("MESSAGE", uri)
        instance.reply(instance.expect("MESSAGE"), 200, tag="i")
        phone.expect(200)
    eventually(lambda: call_works(phone, instance, uri))
    instance.expect_silence(0.1)


def test_while_rtpengine_is_dead_a_call_is_a_503_and_then_works_again(
    node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    uri = f"sip:200@{acme.domain}"
    victim = rtpengine(node)
    with paused(node.pid):  # nobody starts it again
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: node.machine.inside(lambda: is_closed(node.settings.rtp.control)))
        for _ in range(3):
            refused_for_media(phone, uri)
    eventually(lambda: rtpengine_is_new(node, victim) and node.ready)
    for _ in range(30):  # every worker, those too that have met it dead
        assert call_works(phone, instance, uri)
    instance.expect_silence(0.1)


def is_closed(control: Control) -> bool:
    """Whether nobody listens there any more: a process that was killed takes a moment to go."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect((str(control.address), control.port))
        asker.send(b"anybody d7:command4:pinge")
        asker.settimeout(0.1)
        try:
            asker.recv(100)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            pass
        return False


def rtpengine_is_new(node: Node, old: int) -> bool:
    """Whether another rtpengine runs by now."""
    return any(name.startswith("rtpengine") and pid != old for pid, name in node.processes().items())


@pytest.mark.parametrize("status", [183, 200])
@pytest.mark.parametrize("late", [False, True], ids=["answer", "late-offer"])
def test_an_sdp_that_rtpengine_cannot_take_is_not_passed_on(
    status: int, late: bool, hung: Hung, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body="" if late else phone.sdp())
    invite = instance.expect("INVITE")
    with hung():
        instance.reply(invite, status, tag="i", body=instance.sdp())
        answer = phone.expect(status)
        assert instance.host not in answer.text
        if status == 183:
            assert not answer.body
        else:
            assert answer.media == ("0.0.0.0", 0)
    if status == 183:
        eventually(lambda: is_used(node))
        ours.send("CANCEL")
        phone.expect(200)
        instance.reply(instance.expect("CANCEL"), 200)
        instance.reply(invite, 487, tag="i")
        instance.expect("ACK")
        phone.acknowledge(phone.expect(487))
    else:
        ours.learn(answer).ack()
        instance.expect("ACK")
        Talk.answering(instance, invite, "i").hang_up(phone)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("side", ["phone", "instance"])
def test_a_change_that_rtpengine_cannot_take_is_a_503_and_the_call_goes_on(
    method: str, side: str, hung: Hung, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours, theirs = answered_call(phone, instance, f"sip:200@{acme.domain}")
    talk, peer = (ours, instance) if side == "phone" else (theirs, phone)
    with hung():
        talk.send(method, body=talk.agent.sdp(2))
        answer = talk.agent.expect(503)
        assert answer.headers("Retry-After")
        if method == "INVITE":
            talk.agent.acknowledge(answer)
    peer.expect_silence(0.2)
    eventually(lambda: _changed(talk, peer))
    ours.hang_up(instance)


def _changed(talk: Talk, peer: Agent) -> bool:
    """Whether an UPDATE passes again: for a second after it was silent, rtpengine is not asked."""
    talk.send("UPDATE", body=talk.agent.sdp(3))
    eventually(lambda: peer.has_something() or talk.agent.has_something())
    if not peer.has_something():
        talk.agent.expect(503)
        return False
    peer.reply(peer.expect("UPDATE"), 200, body=peer.sdp(3))
    talk.agent.expect(200)
    return True


def test_when_all_ports_are_taken_a_call_is_a_503_until_one_ends(own_lab: Lab) -> None:
    with (
        Node(own_lab, settings={"rtp": {"ports": "20000-20099", "tenant_share": 100, "source_share": 100}}) as node,
        Agent(own_lab.phone("bob")) as phone,
        Agent(own_lab.instance("pbx")) as instance,
    ):
        node.route_add("acme", ["acme.example"], [instance.machine])
        running: list[tuple[Talk, Talk]] = []
        for number in range(60):
            ours = phone.begin("INVITE", "sip:200@acme.example", body=phone.sdp(), call_id=f"full-{number}")
            eventually(lambda: instance.has_something() or phone.has_something())
            if not instance.has_something():
                break
            invite = instance.expect("INVITE")
            assert set(re.findall(r"IN IP4 (\S+)", invite.body)) == {instance.node.host}
            instance.reply(invite, 200, tag=f"i{number}", body=instance.sdp())
            ours.learn(phone.expect(200)).ack()
            instance.expect("ACK")
            running.append((ours, Talk.answering(instance, invite, f"i{number}")))
        answer = phone.expect(503)
        assert answer.headers("Retry-After")
        phone.acknowledge(answer)
        assert len(running) >= 10
        assert len(node.media_calls()) == len(running)
        running.pop()[0].hang_up(instance)
        eventually(lambda: call_works(phone, instance, "sip:200@acme.example"))  # a port takes a moment to be free
        ours, theirs = answered_call(phone, instance, "sip:200@acme.example")
        running.append((ours, theirs))
        for ours, _ in running:
            ours.hang_up(instance)
        assert not node.media_calls()
