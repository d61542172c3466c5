"""What `sipward explain` says is what happens: a thousand random requests, told first and then put on the wire."""

import json
import random
import selectors
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from lab.addresses import BORDER_NETWORK
from lab.agent import Agent, Listener, Talk, registered
from lab.network import Lab, Machine
from lab.node import FQDN, Node
from lab.sip import Message
from sipward import explain
from sipward.uri import parse

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("no_media_left")

type Make = Callable[..., Any]
CALLS, SEED = 1000, 3261
REFUSALS = {"INVITE": 486, "OPTIONS": 480, "MESSAGE": 480}
"""What whoever is reached answers: it speaks of the call, so that nobody else is tried."""
NUMBERS = ("0721405", "072140512", "07214051234", "0541201", "06123", "0114444", "021", "031", "041", "100", "201",
           "0999")  # fmt: skip
SPELLINGS = ("{0}", "+39{0}", "0039{0}", "%2B39{0}", "{1}-{2}", "({1}){2}.", "{0};npdi",
             "{0};phone-context=+39", "+39{1}.{2}")  # fmt: skip

NAMES = ("sip.telco.example", "tcp.telco.example", "all.telco.example")
"""Of three trunks, in Request-URIs to them."""
VALUES = (
    "<sip:{0}@telco.example>",
    '"A, B" <sip:{0}@telco.example;user=phone>;x=1',
    "sip:{0}@telco.example",
    "<tel:{0}>",
    "<sip:{0}@telco.example>;reason=unknown, <sip:0999@telco.example>",
    "<sip:alice@telco.example>",
)
KINDS = {
    "to service", "to service by a trunk", "to outside", "to outside by a trunk", "forbidden", "keepalive", "all-down",
    "no-instance", "no-target", "no-tenant", "not-served", "unknown-domain", "unknown-number",
}  # fmt: skip
"""All that can become of a request outside a dialog, but for a loop."""

_numbers = count(1)


@dataclass(frozen=True)
class Asked:
    """A request: who sends it, and all that it says."""

    agent: Agent
    method: str
    uri: str
    caller: str
    to: str
    headers: dict[str, str]
    sdp: bool

    @property
    def question(self) -> explain.Question:
        """As it would be typed."""
        headers = {"To": f"<{self.to}>", **self.headers}
        return explain.read(
            self.agent.hostport, self.uri, transport=self.agent.transport, method=self.method, caller=self.caller,
            headers=[f"{name}={value}" for name, value in headers.items()], sdp=self.sdp,
        )  # fmt: skip

    def send(self) -> Talk:
        """Put it on the wire."""
        talk = Talk(
            self.agent, local=f"<{self.caller}>;tag=x", remote=f"<{self.to}>", call_id=f"random-{next(_numbers)}",
            target=self.uri, routes=[], contact=f"<{self.agent.contact('x')}>",
        )  # fmt: skip
        headers = [f"{name}: {value}" for name, value in self.headers.items()]
        talk.send(self.method, headers=headers, body=self.agent.sdp() if self.sdp else "")
        return talk


class Everybody:
    """All agents at once: whoever is asked refuses at once."""

    def __init__(self, agents: list[Agent]) -> None:
        self._agents = agents
        self._asked: dict[str, list[dict[str, object]]] = {}

    def place(self, asked: Asked) -> dict[str, object]:
        """Send a request; what came of it."""
        talk = asked.send()
        answer = next(message for message in self._messages(asked.agent) if message.call_id == talk.call_id)
        if asked.method == "INVITE":
            asked.agent.acknowledge(answer)
        if not (reached := self._asked.pop(talk.call_id, [])):
            return {"code": answer.status}
        assert answer.status == REFUSALS[asked.method], answer.text
        (first,) = reached
        return first

    def _messages(self, sender: Agent) -> Iterator[Message]:
        """Final answers as the sender gets them. What others are asked meanwhile is refused."""
        with selectors.DefaultSelector() as selector:
            while True:
                for agent in self._agents:  # a listener's socket is another one once it is connected to
                    selector.register(agent.socket, selectors.EVENT_READ, agent)
                ready = [key.data for key, _ in selector.select(timeout=10.0)]
                assert ready, f"{sender.machine.name} waits for an answer\n{sender.machine.lab.wire.ladder_text()}"
                for agent in self._agents:
                    selector.unregister(agent.socket)
                for agent in ready:
                    for message in _waiting(agent):
                        if message.status is None:
                            self._refuse(agent, message)
                        elif message.status >= 200 and agent is sender:
                            yield message

    def _refuse(self, agent: Agent, request: Message) -> None:
        if request.method in REFUSALS:
            agent.reply(request, REFUSALS[request.method], tag="busy")
            there = request.source if agent.transport == "udp" else agent.socket.getpeername()[0]
            reached = {"target": f"{agent.transport}:{agent.hostport}", "uri": request.uri, "socket": str(there)}
            self._asked.setdefault(request.call_id, []).append(reached)


def _waiting(agent: Agent) -> Iterator[Message]:
    try:
        while True:
            yield agent.receive(0.0005)
    except TimeoutError:
        pass


def expected(found: dict[str, Any]) -> dict[str, object]:
    """What an explanation says will be seen."""
    if found["decision"] == "answer":
        return {"code": found["code"]}
    transport, _, socket = found["socket"].partition(":")
    # A connection leaves by a port of its own.
    seen = socket if transport == "udp" else socket.rpartition(":")[0].strip("[]")
    return {"target": found["targets"][0], "uri": found["uri"], "socket": seen}


@dataclass
class World:
    """Who is there, and what may be dialled."""

    carriers: list[Agent] = field(default_factory=list)
    strangers: list[Agent] = field(default_factory=list)
    instances: list[Agent] = field(default_factory=list)
    silent: list[Agent] = field(default_factory=list)
    """Who sends nothing: the dead instance, and those that are connected to."""
    domains: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    """Of carriers."""
    contact: str = ""
    """A registered phone's, as its instance knows it."""

    @property
    def agents(self) -> list[Agent]:
        return [*self.carriers, *self.strangers, *self.instances, *self.silent]


def uri(agent: Agent) -> str:
    return f"sip:{agent.hostport}" + (";transport=tcp" if agent.transport == "tcp" else "")


@pytest.fixture
def world(lab: Lab, node: Node, tenant: Make, number: Make, trunk: Make) -> Iterator[World]:
    """Tenants, numbers and trunks of every kind, and somebody at each address."""
    with ExitStack() as stack:

        def agent(machine: Machine, *words: Any, **fields: Any) -> Agent:
            return stack.enter_context(Agent(machine, *words, **fields))

        telco, rival, third = lab.borders("telco", 2), lab.borders("rival"), lab.borders("third")
        one, two, by_tcp = agent(telco), agent(telco, host=telco.addresses[1]), agent(telco, "tcp")
        wide, other, six = agent(rival), agent(third), agent(rival, ipv6=True)
        bob, desk = lab.phone("bob"), lab.phone("desk", behind="local")
        phone, strangers = agent(bob), [agent(bob, ipv6=True), agent(bob, "tcp"), agent(desk)]
        first, second, third_pbx, own, stranger = (
            agent(machine)
            for machine in (
                *(lab.instance(name) for name in ("pbx", "pbx2", "other-pbx")),
                lab.instance_on_node("pbx-on-node"),
                lab.instance("stranger"),
            )
        )
        first6 = agent(lab.instance("pbx"), ipv6=True)
        for connected in (by_tcp, strangers[1]):
            connected.send("\r\n\r\n")  # a keep-alive (RFC 5626, 3.5.1)
        dead = agent(lab.instance("dead"))
        listener = stack.enter_context(Listener(lab.instance("tcp-pbx")))
        border = stack.enter_context(Listener(telco))

        acme: Tenant = tenant(
            {"uri": uri(first)}, {"uri": uri(second), "weight": 3}, {"uri": uri(third_pbx), "priority": 2},
            {"uri": uri(dead), "drain": True},
        )  # fmt: skip
        globex: Tenant = tenant(
            {"uri": uri(own)}, {"uri": uri(listener), "priority": 2}, {"uri": uri(first)}, policy="balance"
        )
        initech: Tenant = tenant({"uri": uri(third_pbx)})
        sleepy: Tenant = tenant({"uri": uri(dead)})
        half: Tenant = tenant({"uri": uri(dead)}, {"uri": uri(second), "priority": 2})
        empty: Tenant = tenant()
        drained: Tenant = tenant({"uri": uri(second), "drain": True})
        modern: Tenant = tenant({"uri": uri(first6)})
        node.rpc("htable.sets", "health", f"udp:{dead.hostport}", "silent")

        exact = trunk(one.host, two.host, tenants=[acme.name, globex.name, half.name], hosts=[NAMES[0]])
        trunk(one.host, tenants=[initech.name, sleepy.name, modern.name])
        # One address has two trunks; the second border is a trunk of its own as well.
        trunk(f"{wide.host}/32", tenants=["*"], number="p-called-party-id")
        trunk(BORDER_NETWORK, tenants=["*"], number="to", hosts=[NAMES[2]])
        tcp = {"transport": "tcp", "hosts": [NAMES[1]]}
        trunk(by_tcp.host, tenants=[acme.name, initech.name], number="diversion", **tcp)
        trunk(six.host, tenants=[acme.name, globex.name], number="p-preferred-identity")
        node.rpc("htable.setxs", "resting", f"udp:{one.hostport}", "503", 3600)

        number("0721405XX", tenant=acme.name)
        number("0721405", tenant=initech.name)
        number("072140512", tenant=globex.name, exact=True)
        number(f"0721405@{exact}", tenant=globex.name)
        number("+390541", instances=[{"uri": uri(third_pbx)}, {"uri": uri(own)}])
        number("06", tenant="nobody-there")
        number("0039011", tenant=drained.name)
        number("02", tenant=sleepy.name)
        number("03", tenant=half.name)
        number("04", tenant=empty.name)
        number("100", tenant=modern.name, exact=True)

        yield World(
            carriers=[one, two, by_tcp, wide, other, six],
            strangers=[phone, *strangers],
            instances=[first, second, third_pbx, own, first6, stranger],
            silent=[dead, listener, border],
            domains=[t.domain for t in (acme, globex, initech, sleepy, half, empty, drained, modern)],
            hosts=[*NAMES, one.host, f"[{six.host}]", wide.host],
            contact=registered(phone, third_pbx, initech.domain),
        )


class Dice:
    """What is asked at random."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)

    def asked(self) -> Asked:
        """One request."""
        world, pick = self._world, self._random.choice
        agent = pick(pick([world.carriers, world.strangers, world.instances]))
        method = pick(["INVITE", "INVITE", "OPTIONS", "MESSAGE"])
        target = self._target(agent)
        to = self._anything() if self._random.random() < 0.4 else target.partition(";sw=")[0]
        headers = {}
        for name in ("P-Called-Party-ID", "P-Preferred-Identity", "Diversion"):
            if self._random.random() < 0.4:
                headers[name] = self._value()
        sdp = method == "INVITE" and self._random.random() < 0.8
        return Asked(agent, method, target, self._caller(target), to, headers, sdp)

    def _target(self, agent: Agent) -> str:
        pick, world = self._random.choice, self._world
        if agent in world.instances:
            if self._random.random() < 0.2:
                return world.contact
            return self._sip(self._user(), pick([*world.hosts, *world.hosts, *world.domains, "other.example"]))
        if self._random.random() < 0.15:
            return f"tel:{self._spelled(pick(NUMBERS))}"
        ours = [FQDN, FQDN.upper(), str(agent.node).rpartition(":")[0]]
        foreign = [*world.hosts, "other.example", "198.51.100.9"]
        domain = pick(world.domains)
        return self._sip(self._user(), pick([*ours, domain, domain, f"{domain.title()}.", pick(foreign)]))

    def _sip(self, user: str, host: str) -> str:
        pick = self._random.choice
        rest = host + pick(["", "", ":5060", ":5099"]) + pick(["", "", ";user=phone", ";transport=udp", ";x=1;lr"])
        return f"{pick(['sip', 'sip', 'sip', 'sips'])}:{user}@{rest}" if user else f"sip:{rest}"

    def _anything(self) -> str:
        return self._sip(self._user(), self._random.choice([FQDN, *self._world.domains, "other.example"]))

    def _user(self) -> str:
        pick = self._random.choice
        return pick([*(self._spelled(pick(NUMBERS)) for _ in range(3)), "alice", "x.y", ""])

    def _spelled(self, digits: str) -> str:
        pick = self._random.choice
        return str(pick(SPELLINGS).format(digits, digits[:2], digits[2:]))

    def _value(self) -> str:
        pick = self._random.choice
        number = self._spelled(pick(NUMBERS))
        return str(pick(VALUES).format(number))

    def _caller(self, target: str) -> str:
        pick, world = self._random.choice, self._world
        user = pick([self._spelled(pick(NUMBERS)), "201", "202", "203", "204", "alice"])
        called = parse(target)
        home = called.host if called and called.host in world.domains else pick(world.domains)
        strange = [f"sip:{user}@{FQDN}", f"sips:{user}@telco.example", "tel:+390541", "sip:anonymous.invalid"]
        return str(pick([*[f"sip:{user}@{home}"] * 6, *strange]))


def test_a_thousand_random_requests_go_where_they_were_said_to_go(world: World, node: Node) -> None:
    dice, everybody, settings = Dice(world, SEED), Everybody(world.agents), node.settings
    differences: list[str] = []
    kinds, reached = Counter[str](), Counter[str]()
    for _ in range(CALLS):
        asked = dice.asked()
        told = explain.explain(settings, asked.question)
        seen = everybody.place(asked)
        kinds[told.get("why") or f"to {told['to']}{' by a trunk' if told['trunk'] else ''}"] += 1
        reached[str(seen.get("target"))] += 1
        if seen != expected(told) or told["on"] != f"{asked.agent.transport}:{asked.agent.node}":
            differences.append(f"{asked.question}\n  told: {told}\n  seen: {seen}")
    assert not differences, f"{len(differences)} of {CALLS}; the first:\n" + "\n".join(differences[:5])
    assert kinds.keys() == KINDS
    dead, stranger = world.silent[0], world.instances[-1]
    everyone = {f"{agent.transport}:{agent.hostport}" for agent in (*world.instances, *world.silent)}
    assert everyone - reached.keys() == {f"udp:{agent.hostport}" for agent in (dead, stranger)}


def test_the_command_says_the_same(world: World, node: Node) -> None:
    asked = ["--from", world.strangers[0].hostport, "--to", f"sip:alice@{world.domains[4]}"]
    found = explain.explain(node.settings, explain.read(asked[1], asked[3]))
    done = node.sipward("explain", *asked, "--json")
    assert (done.code, json.loads(done.output)) == (0, found)
    assert found["down"] == [f"udp:{world.silent[0].hostport} (silent)"]
    lines = dict(line.split(maxsplit=1) for line in node.sipward("explain", *asked).output.splitlines() if " " in line)
    assert lines["down"] == found["down"][0]
    assert [lines["targets"]] == found["targets"]
    done = node.sipward("explain", *asked[:3], "alice")
    assert (done.code, done.errors) == (2, '--to = "alice": must be a sip, sips or tel URI\n')
