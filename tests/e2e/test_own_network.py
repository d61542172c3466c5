"""The site's own network: the node is behind a router that refuses hairpins, and its phones are on both sides of it.

Each phone sees the address of its own side and no other, in every header and every SDP line of every message.
"""

import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from lab.addresses import GATEWAY, INTERNET, LOCAL, NODE, SECOND_NODE_ADDRESS, SERVICE, SITE
from lab.agent import Agent, Talk, answered_call, registered
from lab.asterisk import ECHO, Asterisk
from lab.baresip import Baresip
from lab.calls import expect_audio, received
from lab.eventually import eventually
from lab.network import Behind, Lab, Machine
from lab.node import Node
from lab.packets import Address
from lab.probe import Asker
from lab.sipp import Transport
from lab.talker import Talker

from .conftest import watched_lab

PUBLIC, PRIVATE = INTERNET.host(NODE)[0], SITE.host(NODE)[0]
PHONES: Mapping[str, tuple[Behind, Transport, str]] = {
    "201": ("site", "udp", PRIVATE),  # beside the node: its network is found
    "202": ("local", "tcp", PRIVATE),  # in another network of the site: it is configured
    "203": ("public", "udp", PUBLIC),
    "204": ("symmetric", "tcp", PUBLIC),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    with Node(lab, "nat") as node:
        yield node
        assert node.stop() == 0, node.log_tail()


@dataclass
class Site:
    """Phones on each side, and a PBX for them."""

    pbx: Asterisk
    phones: Mapping[str, Baresip]

    def call(self, caller: str, number: str, hangs_up: str = "") -> None:
        """A call that is heard both ways; one of the two ends it."""
        first, machines = self.phones[caller], [self.phones[caller].machine, self.pbx.machine]
        ended = [self.phones[one].mark() for one in (caller, number) if one in self.phones]
        first.dial(number)
        if number in self.phones:
            machines[1] = self.phones[number].machine
        expect_audio(*machines)
        self.phones[hangs_up or caller].hangup()
        for one, mark in zip((one for one in (caller, number) if one in self.phones), ended, strict=True):
            self.phones[one].wait_for("CALL_CLOSED", since=mark)


@pytest.fixture(scope="module")
def site(lab: Lab, node: Node) -> Iterator[Site]:
    pbx = lab.instance("pbx")
    node.route_add("acme", ["acme.example"], [pbx])
    with ExitStack() as running:
        asterisk = running.enter_context(Asterisk(pbx, "acme.example", PHONES))
        phones = {
            number: running.enter_context(
                Baresip(lab.phone(f"phone{number}", behind), number, "acme.example", transport=transport, answers=True)
            )
            for number, (behind, transport, _) in PHONES.items()
        }
        yield Site(asterisk, phones)
        assert not asterisk.errors, asterisk.log_tail()


def expect_only(address: str, phone: Machine, others: Iterable[str] = (PUBLIC, PRIVATE)) -> None:
    """All that the phone was told names this address of the node's, and none of the other sides or of former ones."""
    inside = re.compile(rf"{re.escape(SERVICE.v4)}\d+|{re.escape(LOCAL.v4)}{GATEWAY}\b")
    others = [each for each in others if each != address]
    messages = received(phone)
    assert {address} == {found for m in messages for found in re.findall(r"IN IP4 (\S+)", m.body)}
    assert any(address in m.text for m in messages)
    wrong = [(m.first_line, other) for m in messages for other in others if re.search(rf"\b{other}\b", m.text)]
    assert wrong + [(m.first_line, found[0]) for m in messages if (found := inside.search(m.text))] == []


CALLS = {
    "local-to-local": ("201", "202", "202"),
    "local-to-remote": ("202", "203", "203"),
    "remote-to-local": ("204", "201", ""),
    "remote-to-remote": ("203", "204", ""),
    "local-to-instance": ("201", ECHO, ""),
}


@pytest.mark.parametrize("way", CALLS)
def test_each_phone_sees_the_address_of_its_own_side_alone(way: str, site: Site) -> None:
    caller, number, hangs_up = CALLS[way]
    site.call(caller, number, hangs_up)
    for one in (caller, number):
        if one in PHONES:
            expect_only(PHONES[one][2], site.phones[one].machine)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("behind", ["site", "local", "public"])
def test_every_message_of_every_kind_shows_a_phone_its_own_side(
    behind: Behind, transport: Transport, lab: Lab, node: Node
) -> None:
    machine = lab.phone(f"agent-{behind}", behind)
    pbx2 = lab.instance("pbx2")
    node.route_add("globex", ["globex.example"], [pbx2])
    with Agent(machine, transport) as phone, Agent(pbx2) as instance:
        bound = registered(phone, instance, "globex.example")
        for caller, callee, uri in ((phone, instance, "sip:200@globex.example"), (instance, phone, bound)):
            ours, theirs = answered_call(caller, callee, uri, domain="globex.example")
            for talk, peer in ((ours, callee), (theirs, caller)):
                for method in ("INVITE", "UPDATE", "INFO"):
                    body = "" if method == "INFO" else talk.agent.sdp(2)
                    talk.send(method, body=body)
                    peer.reply(peer.expect(method), 200, body=peer.sdp(2) if body else "")
                    talk.agent.expect(200)
                    if method == "INVITE":
                        talk.ack()
                        peer.expect("ACK")
            theirs.hang_up(caller)
            talk = caller.begin("INVITE", uri, domain="globex.example", body=caller.sdp())
            callee.reply(callee.expect("INVITE"), 486, tag="busy")
            callee.expect("ACK")
            caller.acknowledge(caller.expect(486))
            talk = caller.begin("INVITE", uri, domain="globex.example", body=caller.sdp())
            invite = callee.expect("INVITE")
            callee.reply(invite, 180, tag="rings")
            caller.expect(180)
            talk.send("CANCEL")
            caller.expect(200)
            callee.reply(callee.expect("CANCEL"), 200)
            callee.reply(invite, 487, tag="rings")
            callee.expect("ACK")
            caller.acknowledge(caller.expect(487))
        expect_only(PUBLIC if behind == "public" else PRIVATE, machine)


def test_the_router_refuses_hairpins(lab: Lab, node: Node) -> None:
    with Asker(lab.phone("prober", "site"), to=PUBLIC) as inside, Asker(lab.phone("outsider")) as outside:
        assert inside.status(f"sip:{PUBLIC}", within=0.3) == 0
        assert outside.status(f"sip:{PUBLIC}") == 200


# --- changed while it runs --------------------------------------------------------------------------------------------


def take(node: Node, **network: object) -> None:
    """Have a running node take another `[network]`."""
    log = node.log("sipward").count("took its configuration")
    node.reconfigure({"network": network})
    os.kill(node.pid, signal.SIGHUP)
    eventually(lambda: node.log("sipward").count("took its configuration") > log and node.ready)


def test_another_public_address_keeps_the_calls_and_leaves_nothing_stale(own_lab: Lab) -> None:
    with Node(own_lab, "nat") as node, ExitStack() as open_:
        new, pbx = own_lab.second_public_address(), own_lab.instance("pbx")
        node.route_add("acme", ["acme.example"], [pbx])
        instance = open_.enter_context(Agent(pbx))
        phones = [open_.enter_context(Agent(own_lab.phone(where, where))) for where in ("public", "site")]
        running = [answered_call(each, instance, "sip:200@acme.example") for each in phones]
        take(node, public_address=new)
        own_lab.wire.clear()
        for (ours, theirs), phone, port in zip(running, phones, (30100, 30102), strict=True):
            ears = [open_.enter_context(Talker(each.machine, port)) for each in (phone, instance)]
            renewed(ours, theirs, *ears)
            renewed(theirs, ours, *ears[::-1])
            ours.hang_up(instance)
        assert not node.media_calls()
        bound = registered(phones[0], instance, "acme.example")
        ours, _ = answered_call(instance, phones[0], bound)
        ours.hang_up(phones[0])
        expect_only(new, phones[0].machine, {PUBLIC, PRIVATE})
        expect_only(PRIVATE, phones[1].machine, {PUBLIC, new})


def test_another_address_of_the_node_leaves_running_calls_to_their_pbx(own_lab: Lab) -> None:
    with Node(own_lab) as node, ExitStack() as open_:
        new, pbx = INTERNET.host(SECOND_NODE_ADDRESS)[0], own_lab.instance("pbx")
        node.route_add("acme", ["acme.example"], [pbx])
        instance, phone = (open_.enter_context(Agent(each)) for each in (pbx, own_lab.phone("bob")))
        ours, theirs = answered_call(phone, instance, "sip:200@acme.example")
        take(node, address=new)
        phone.node = Address(new, 5060)
        renewed(theirs, ours, *(open_.enter_context(Talker(each.machine, 30100)) for each in (instance, phone)))
        theirs.hang_up(phone)
        assert not node.media_calls()
        own_lab.wire.clear()
        answered_call(phone, instance, "sip:200@acme.example")[0].hang_up(instance)
        expect_only(new, phone.machine, {PUBLIC})


def renewed(talk: Talk, peer: Talk, own: Talker, other: Talker) -> None:
    """A re-INVITE in a call that was up before, which has audio from then on."""
    talk.send("INVITE", body=talk.agent.sdp(2, own.place))
    change = peer.agent.expect("INVITE")
    peer.agent.reply(change, 200, body=peer.agent.sdp(2, other.place))
    ok = talk.agent.expect(200)
    talk.ack()
    peer.agent.expect("ACK")
    own.to(ok.media)
    other.to(change.media)
    now = time.time()
    eventually(lambda: own.hears(other, now) > 10 and other.hears(own, now) > 10, what="the call has audio")


def test_a_network_that_becomes_local_is_local_from_then_on(own_lab: Lab) -> None:
    with Node(own_lab, "nat", {"network": {"local_networks": []}}) as node, ExitStack() as open_:
        pbx = own_lab.instance("pbx")
        node.route_add("acme", ["acme.example"], [pbx])
        instance, phone = (open_.enter_context(Agent(each)) for each in (pbx, own_lab.phone("desk", "local")))
        early, _ = answered_call(phone, instance, "sip:200@acme.example")
        expect_only(PUBLIC, phone.machine, {PRIVATE})
        media = node.media_calls()
        take(node, local_networks=[f"{LOCAL.v4}0/24"])
        own_lab.wire.clear()
        assert node.media_calls() == media
        later, _ = answered_call(phone, instance, "sip:200@acme.example")
        expect_only(PRIVATE, phone.machine, {PUBLIC})
        later.hang_up(instance)
        early.hang_up(instance)
        assert not node.media_calls()
