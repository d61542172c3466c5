"""A carrier that takes one account an address: each registration has a port of ours to itself, for all that is its."""

import re
from collections.abc import Callable, Iterator

import pytest

from lab.agent import Agent, Talk
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.packets import Address
from lab.sip import Message
from sipward.live import PORTS

from .conftest import Tenant, watched_lab

OWN = range(5100, 5103)
SETTINGS = {"trunks": {"own_ports": f"{OWN[0]}-{OWN[-1]}"}}

type Make = Callable[..., str]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def running(lab: Lab) -> Iterator[Node]:
    with Node(lab, settings=SETTINGS) as node:
        yield node
        assert node.stop() == 0, node.log_tail()


@pytest.fixture
def node(running: Node) -> Node:
    """A node whose ports nobody has yet."""
    running.rpc("htable.flush", PORTS)
    return running


def register(instance: Agent, carrier: Agent, user: str, expires: int = 60, status: int = 200) -> Message:
    """Register an account at a carrier, or remove it; the REGISTER as the carrier got it."""
    contact = f"<sip:{user}@{instance.hostport}>;expires={expires}"
    ask(instance, carrier, user, contact)
    request = heard(carrier, "REGISTER")
    carrier.reply(request, status, tag="r")
    instance.expect(status)
    return request


def ask(instance: Agent, carrier: Agent, user: str, contact: str = "") -> None:
    """Send a REGISTER."""
    host = f"[{carrier.host}]" if ":" in carrier.host else carrier.host
    to = f"sip:{user}@{host}"
    instance.begin("REGISTER", f"sip:{host}", user=user, domain=host, to=to, contact=contact, headers=["Expires: 60"])


def heard(carrier: Agent, method: str) -> Message:
    """The next request at the carrier, which speaks to where it came from from now on."""
    request = carrier.expect(method)
    carrier.node = request.source
    return request


def port(request: Message) -> int:
    """Where a request came from, which is what it says of us."""
    shown = re.findall(rf"{request.source.host}:(\d+)", request.head)
    assert set(shown) <= {str(request.source.port)}, request.text
    return request.source.port


def call(instance: Agent, carrier: Agent, user: str, headers: tuple[str, ...] = ()) -> tuple[Talk, Talk, Message]:
    """An account's call that the carrier answers: both ends, and the INVITE as it got it."""
    ours = instance.begin(
        "INVITE", f"sip:0541201123@{carrier.host}", user=user, domain=carrier.host, headers=headers, body=instance.sdp()
    )
    invite = heard(carrier, "INVITE")
    theirs = Talk.answering(carrier, invite, "carrier")
    carrier.reply(invite, 200, tag="carrier", body=carrier.sdp())
    ours.learn(instance.expect(200)).ack()
    assert carrier.expect("ACK").source == invite.source
    return ours, theirs, invite


def hung_up(talk: Talk, peer: Agent) -> Message:
    """End a call; the BYE as the peer got it."""
    talk.send("BYE")
    bye = peer.expect("BYE")
    peer.reply(bye, 200)
    talk.agent.expect(200)
    return bye


def test_each_registration_registers_from_a_port_of_its_own(
    node: Node, trunk: Make, acme: Tenant, initech: Tenant, carrier: Agent, instance: Agent, other_instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name, initech.name], own_port=True)
    accounts = [(instance, "0721405123"), (instance, "0721405124"), (other_instance, "0721405123")]
    first = [port(register(agent, carrier, user)) for agent, user in accounts]
    assert sorted(first) == list(OWN)
    refreshed = [port(register(agent, carrier, user)) for agent, user in accounts]
    removed = [port(register(agent, carrier, user, expires=0)) for agent, user in accounts]
    again = [port(register(agent, carrier, user)) for agent, user in reversed(accounts)]
    assert first == refreshed == removed == again[::-1]


def test_registrations_that_come_at_once_have_ports_of_their_own(
    node: Node, trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name], own_port=True)
    for user in ("201", "202", "203") * 4:
        ask(instance, carrier, user)
    found: dict[str, set[int]] = {}
    for _ in range(12):
        request = heard(carrier, "REGISTER")
        found.setdefault(request.header("To"), set()).add(port(request))
        carrier.reply(request, 200, tag="r")
        instance.expect(200)
    assert sorted(min(each) for each in found.values()) == list(OWN)
    assert [len(each) for each in found.values()] == [1, 1, 1]


@pytest.mark.parametrize("whole", [False, True], ids=["Kamailio", "the node"])
def test_after_a_restart_each_registration_has_the_port_it_had(
    whole: bool, node: Node, trunk: Make, acme: Tenant, initech: Tenant, carrier: Agent, instance: Agent,
    other_instance: Agent,
) -> None:  # fmt: skip
    name = trunk(carrier.host, tenants=[acme.name, initech.name], own_port=True)
    accounts = [(instance, "201"), (instance, "202"), (other_instance, "201")]
    before = [port(register(agent, carrier, user)) for agent, user in accounts]
    file = node.state_dir / "table" / "ports.jsonl"
    eventually(lambda: file.exists() and file.read_text().count(f" {name} ") == 3, what="the ports are on the disk")
    if whole:
        assert node.stop() == 0
        node.begin()
        node.wait_in_step()
    else:
        node.kill_kamailio()
    for agent in (carrier, instance, other_instance):
        agent.node = Address(agent.node.host, 5060)
    # Called first: nothing but the disk says which port it is.
    ours, _, invite = call(instance, carrier, "202")
    assert port(invite) == before[1]
    hung_up(ours, carrier)
    assert [port(register(agent, carrier, user)) for agent, user in reversed(accounts)] == before[::-1]


def test_an_accounts_call_leaves_from_its_port_with_all_that_follows(
    node: Node, trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name], own_port=True)
    own = [port(register(instance, carrier, user)) for user in ("201", "202")]
    assert len({*own, 5060}) == 3
    for user, expected in zip(("201", "202"), own, strict=True):
        ours, theirs, invite = call(instance, carrier, user)
        assert port(invite) == expected
        assert theirs.target.partition(";")[0].endswith(f":{expected}")
        ours.send("INVITE", body=instance.sdp(2))
        again = carrier.expect("INVITE")
        assert port(again) == expected
        carrier.reply(again, 200, body=carrier.sdp(2))
        instance.expect(200)
        ours.ack()
        assert port(carrier.expect("ACK")) == expected
        theirs.send("INVITE", body=carrier.sdp(3))
        instance.reply(instance.expect("INVITE"), 200, body=instance.sdp(3))
        assert port(carrier.expect(200)) == expected
        theirs.ack()
        instance.expect("ACK")
        assert port(hung_up(ours, carrier)) == expected
        ours, theirs, invite = call(instance, carrier, user)
        hung_up(theirs, instance)


def test_a_call_to_the_contact_comes_by_its_port_and_stays_there(
    node: Node, trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    name = trunk(carrier.host, tenants=[acme.name], own_port=True)
    request = register(instance, carrier, "201")
    bound = re.findall(r"<([^>;]+)", request.header("Contact"))[0]
    assert bound.endswith(f":{request.source.port}")
    assert request.source.port in OWN
    for by_us in (True, False):
        theirs = carrier.begin("INVITE", bound, body=carrier.sdp())
        invite = instance.expect("INVITE")
        assert invite.source.port == 5060
        assert invite.uri.startswith(f"sip:201@{instance.hostport}")
        assert (invite.headers("X-Forwarded-For"), invite.headers("X-Sipward-Trunk")) == ([carrier.host], [name])
        ours = Talk.answering(instance, invite, "pbx")
        instance.reply(invite, 200, tag="pbx", body=instance.sdp())
        answer = carrier.expect(200)
        assert port(answer) == request.source.port
        theirs.learn(answer).ack()
        instance.expect("ACK")
        if by_us:
            assert port(hung_up(ours, carrier)) == request.source.port
        else:
            hung_up(theirs, instance)


def test_who_calls_at_such_a_port_is_nobody_more_than_elsewhere(
    node: Node, trunk: Make, acme: Tenant, carrier: Agent, instance: Agent, phone: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name], own_port=True)
    request = register(instance, carrier, "201")
    bound = re.findall(r"<([^>;]+)", request.header("Contact"))[0]
    phone.node = request.source
    phone.begin("INVITE", bound, body=phone.sdp())
    refusal = phone.expect(404)
    assert refusal.source == request.source
    phone.acknowledge(refusal)
    assert not instance.has_something()


@pytest.mark.parametrize(
    ("user", "domain", "headers", "own"),
    [
        ("201", "edge.example.net", (), True),
        ("anonymous", "anonymous.invalid", ("P-Preferred-Identity: <sip:201@{carrier}>",), True),
        ("0721405", "{carrier}", ("P-Asserted-Identity: <tel:+390721405>, <sip:201@{carrier}>",), True),
        ("203", "{carrier}", (), False),
    ],
    ids=["another host", "anonymous", "another number", "no account"],
)
def test_whose_call_it_is_is_said_by_its_from_or_by_its_identity(
    user: str, domain: str, headers: tuple[str, ...], own: bool, node: Node, trunk: Make, acme: Tenant,
    carrier: Agent, instance: Agent,
) -> None:  # fmt: skip
    trunk(carrier.host, tenants=[acme.name], own_port=True)
    request = register(instance, carrier, "201")
    said = [text.format(carrier=carrier.host) for text in headers]
    instance.begin(
        "INVITE", f"sip:1@{carrier.host}", user=user, domain=domain.format(carrier=carrier.host), headers=said,
        body=instance.sdp(),
    )  # fmt: skip
    invite = heard(carrier, "INVITE")
    carrier.reply(invite, 486, tag="busy")
    carrier.expect("ACK")
    instance.acknowledge(instance.expect(486))
    assert request.source.port in OWN
    assert port(invite) == (request.source.port if own else 5060)


def test_explain_says_from_which_port(node: Node, trunk: Make, acme: Tenant, carrier: Agent, instance: Agent) -> None:
    trunk(carrier.host, tenants=[acme.name], own_port=True)
    own = register(instance, carrier, "201").source
    to = ("explain", "--from", instance.hostport, "--to", f"sip:1@{carrier.host}", "--caller")
    assert f"udp:{own}\n" in node.sipward(*to, f"sip:201@{carrier.host}").output
    hidden = ("sip:anonymous@anonymous.invalid", "--header", f"P-Preferred-Identity=<sip:201@{carrier.host}>")
    assert f"udp:{own}\n" in node.sipward(*to, *hidden).output
    assert f"udp:{own.host}:5060\n" in node.sipward(*to, f"sip:202@{carrier.host}").output
    new = node.sipward(*to, f"sip:202@{carrier.host}", "--method", "REGISTER").output
    assert "a port of its own (trunks.own_ports)" in new


def test_the_second_border_is_tried_from_the_same_port(
    node: Node, trunk: Make, acme: Tenant, carrier: Agent, second_border: Agent, instance: Agent
) -> None:
    trunk(carrier.host, second_border.host, tenants=[acme.name], own_port=True)
    own = port(register(instance, carrier, "201"))
    assert own in OWN
    ours = instance.begin("INVITE", f"sip:1@{carrier.host}", user="201", domain=carrier.host, body=instance.sdp())
    carrier.reply(heard(carrier, "INVITE"), 503, tag="x")
    carrier.expect("ACK")
    invite = heard(second_border, "INVITE")
    assert port(invite) == own
    second_border.reply(invite, 200, tag="y", body=second_border.sdp())
    ours.learn(instance.expect(200)).ack()
    assert port(second_border.expect("ACK")) == own
    assert port(hung_up(ours, second_border)) == own


def test_by_a_trunk_that_does_not_ask_for_it_all_goes_from_the_ordinary_port(
    node: Node, trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name])
    assert port(register(instance, carrier, "201")) == 5060
    ours, _, invite = call(instance, carrier, "201")
    assert port(invite) == 5060
    hung_up(ours, carrier)
    assert node.rpc("htable.dump", PORTS) == []


def test_when_all_ports_are_taken_a_new_account_is_refused_until_one_is_removed(
    node: Node, trunk: Make, acme: Tenant, carrier: Agent, instance: Agent
) -> None:
    trunk(carrier.host, tenants=[acme.name], own_port=True)
    users = [str(201 + index) for index in range(len(OWN))]
    taken = {user: port(register(instance, carrier, user)) for user in users}
    refused = node.status()["counters"].get("no-port", 0)
    ask(instance, carrier, "300")
    assert instance.expect(503).header("Retry-After")
    assert node.status()["counters"]["no-port"] == refused + 1
    eventually(lambda: "all 3 ports of trunks.own_ports are taken" in node.status()["components"]["routes"]["detail"])
    # One that the carrier refuses to remove is not removed.
    register(instance, carrier, users[0], expires=0, status=403)
    ask(instance, carrier, "300")
    instance.expect(503)
    assert port(register(instance, carrier, users[1], expires=0)) == taken[users[1]]
    assert port(register(instance, carrier, "300")) == taken[users[1]]
    assert {user: port(register(instance, carrier, user)) for user in users if user != users[1]} == {
        user: own for user, own in taken.items() if user != users[1]
    }


def test_it_is_the_same_over_ipv6(node: Node, lab: Lab, trunk: Make, telco: Machine) -> None:
    with Agent(telco, ipv6=True) as carrier, Agent(lab.instance("pbx6"), ipv6=True) as instance:
        node.route_add("six", ["six.example"], [f"sip:{instance.hostport}"])
        trunk(carrier.host, tenants=["six"], own_port=True)
        ask(instance, carrier, "201")
        request = heard(carrier, "REGISTER")
        carrier.reply(request, 200, tag="r")
        instance.expect(200)
        node.route_remove("six")
    assert request.source.port in OWN
    assert f"@{request.source}" in request.header("Contact")
