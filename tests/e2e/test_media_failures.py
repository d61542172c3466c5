"""rtpengine killed, hung, or one of several gone: what becomes of running calls and of new ones."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.agent import Agent, Talk, answered_call, refused_call
from lab.calls import told
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.processes import Process, paused
from lab.voice import Speaker, heard_from
from sipward.hosts import parse_address
from sipward.settings import Control

from .conftest import Tenant

no_call_left = pytest.mark.usefixtures("no_media_left")


def process(node: Node, name: str) -> int:
    """The id of a component's process; 0 while there is none."""
    return next((pid for pid, found in node.processes().items() if found.startswith(name)), 0)


def is_used(node: Node) -> bool:
    """Whether Kamailio takes every rtpengine for alive."""
    return all(engine["active"] for engine in node.rpc("rtpengine.show", "all"))


@contextmanager
def heard_both_ways(*agents: Agent) -> Iterator[list[Speaker]]:
    """Both speak from here on; they have heard each other at the start, and do so again at the end."""
    first, second = agents
    with voice(first) as ours, voice(second) as theirs:
        heard(ours, second, theirs, first)
        yield [ours, theirs]
        heard(ours, second, theirs, first)


def voice(agent: Agent) -> Speaker:
    place = told(agent.machine)
    assert place
    return Speaker(agent.machine, [place], agent.machine.rtp_ports[0])


def heard(ours: Speaker, second: Agent, theirs: Speaker, first: Agent) -> None:
    now = time.time()
    eventually(lambda: heard_from(ours, second.machine, now) > 9 and heard_from(theirs, first.machine, now) > 9)


def kill(node: Node, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill rtpengine; come back when the next one is used."""
    old = process(node, "rtpengine")
    os.kill(old, number)
    eventually(lambda: process(node, "rtpengine") not in (0, old) and node.ready and is_used(node))


@no_call_left
@pytest.mark.parametrize("behind", ["public", "symmetric"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_running_call_gets_its_media_back(
    number: signal.Signals, behind: str, node: Node, bob: Machine, alice: Machine, instance: Agent, acme: Tenant
) -> None:
    """Behind the NAT too, where nobody but the old one had learned where the phone's RTP comes from."""
    with Agent(bob if behind == "public" else alice) as phone:
        ours, _ = answered_call(phone, instance, f"sip:200@{acme.domain}")
        with heard_both_ways(phone, instance):
            kill(node, number)
        # And it can be changed, and ended.
        ours.send("INVITE", body=phone.sdp(2))
        instance.reply(instance.expect("INVITE"), 200, body=instance.sdp(2))
        phone.expect(200)
        ours.ack()
        instance.expect("ACK")
        with heard_both_ways(phone, instance):
            pass
        ours.hang_up(instance)


@no_call_left
def test_a_call_that_rings_meanwhile_is_answered_with_audio(
    node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    invite = instance.expect("INVITE")
    instance.reply(invite, 180, tag="i")
    phone.expect(180)
    kill(node)
    instance.reply(invite, 200, tag="i", body=instance.sdp())
    ours.learn(phone.expect(200)).ack()
    instance.expect("ACK")
    with heard_both_ways(phone, instance):
        pass
    ours.hang_up(instance)


@no_call_left
@pytest.mark.parametrize("fate", ["hung", "killed"])
def test_calls_need_nothing_of_what_keeps_them(
    fate: str, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    store = process(node, "rtp-store")
    if fate == "killed":
        os.kill(store, signal.SIGKILL)
        eventually(lambda: process(node, "rtp-store") not in (0, store))
        calls_work(phone, instance, acme)
        return
    with paused(store):
        calls_work(phone, instance, acme)


def calls_work(phone: Agent, instance: Agent, acme: Tenant) -> None:
    for _ in range(3):
        ours, _ = answered_call(phone, instance, f"sip:200@{acme.domain}")
        with heard_both_ways(phone, instance):
            pass
        ours.hang_up(instance)


def test_one_that_hangs_is_waited_for_once_a_worker_and_by_nobody_after(
    node: Node, lab: Lab, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    """Every command that waits costs a worker 250 ms (`rtpengine_tout_ms`): they are counted on the wire.

    An offer that waits in its socket is a call when it goes on, for as long as its `offer-timeout`.
    """
    uri = f"sip:200@{acme.domain}"
    talks = [answered_call(phone, instance, uri)[0] for _ in range(12)]
    with paused(process(node, "rtpengine")):
        lab.wire.clear()
        refused_call(phone, uri, 503)
        for talk in talks:
            talk.send("BYE")
        for _ in talks:
            instance.reply(instance.expect("BYE"), 200)
        for _ in talks:
            phone.expect(200)
        asked = {cookie for cookie, command in commands(node, lab) if command != "ping"}
        assert len(asked) <= node.settings.sip.workers
        assert refused_call(phone, uri, 503).header("Retry-After")
    eventually(lambda: is_used(node))
    calls_work(phone, instance, acme)
    # It was not told of their end, and finds out by itself. The test does not wait for that.
    for talk in talks:
        talk.send("BYE")
        instance.reply(instance.expect("BYE"), 200)
        phone.expect(200)


def commands(node: Node, lab: Lab) -> list[tuple[bytes, str]]:
    """What rtpengine has been asked: the cookie, the same for a repetition, and the command."""
    port = node.settings.rtp.control.port
    asked = [s.data for s in lab.wire.sent("node", "lo", "lo") if s.destination.port == port]
    return [
        (data.partition(b" ")[0], data.partition(b"7:command")[2].partition(b":")[2][:4].decode()) for data in asked
    ]


# --- several ---------------------------------------------------------------------------------------------------------

OTHER = Control(parse_address("127.0.0.1"), 2225)


def second_rtpengine(node: Node) -> Process:
    """Another one, as another machine would run it: with ports of its own."""
    config = Path(node.state_dir / "run" / "rtpengine.conf").read_text()
    own = [line for line in config.splitlines() if not line.startswith("redis")]
    text = "\n".join(own).replace(":2223", ":2225").replace("= 20", "= 21")
    path = node.directory / "second.conf"
    path.write_text(text)
    return node.machine.popen(["rtpengine", "--config-file", str(path)], log=node.directory / "second.log")


def shares(node: Node) -> tuple[int, int]:
    """How many calls the node's own and the other one have."""
    try:
        others = len(node.media_calls(OTHER))
    except OSError:
        others = -1
    return len(node.media_calls()), others


def test_of_several_one_dies_and_the_other_takes_the_new_calls_and_keeps_its_own(own_lab: Lab) -> None:
    with (
        Node(own_lab, settings={"rtp": {"others": str(OTHER), "source_share": 100}}) as node,
        Agent(own_lab.phone("bob")) as phone,
        Agent(own_lab.instance("pbx")) as instance,
    ):
        node.route_add("acme", ["acme.example"], [instance.machine])

        def call() -> Talk:
            return answered_call(phone, instance, "sip:200@acme.example")[0]

        def enter() -> Process:
            other = second_rtpengine(node)
            eventually(lambda: is_used(node))
            return other

        def spread(least: int) -> list[Talk]:
            """Calls, until both have so many more."""
            before = shares(node)
            made: list[Talk] = []
            while min(now - then for now, then in zip(shares(node), before, strict=True)) < least:
                made.append(call())
            return made

        other = enter()
        running = spread(2)
        kept = shares(node)[0]
        own_lab.processes.stop(other)
        eventually(lambda: not is_used(node))
        running += [call() for _ in range(5)]
        assert len(node.media_calls()) == kept + 5
        # Each of them can be changed; those that have gone with the other one are told so, and go on.
        outcomes = []
        for talk in running:
            talk.send("UPDATE", body=phone.sdp(2))
            eventually(lambda: instance.has_something() or phone.has_something())
            if instance.has_something():
                instance.reply(instance.expect("UPDATE"), 200, body=instance.sdp(2))
            outcomes.append(phone.receive().status)
        assert outcomes.count(200) == kept + 5
        assert outcomes.count(503) == len(running) - kept - 5
        enter()
        running += spread(1)
        for talk in running:
            talk.hang_up(instance)
        assert shares(node) == (0, 0)
