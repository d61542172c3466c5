"""Instances: who gets the calls, what is left out and when it comes back, what the caller sees meanwhile."""

import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from lab.agent import Agent, Talk, answered_call, who_got
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.probe import Answerer, Asker

from .conftest import Tenant

type Make = Callable[..., Tenant]
BROKEN = pytest.mark.parametrize("status", [500, 502, 503, 504])


@pytest.fixture
def second(lab: Lab) -> Iterator[Agent]:
    with Agent(lab.instance("pbx2")) as agent:
        yield agent


@pytest.fixture
def pair(tenant: Make, instance: Agent, second: Agent) -> Tenant:
    """A tenant with a first and a second instance."""
    return tenant(*values(instance, second))


def values(*agents: Agent) -> list[dict[str, object]]:
    """Agents as instances, the first one first."""
    return [{"uri": f"sip:{agent.hostport}", "priority": n} for n, agent in enumerate(agents, 1)]


def key(agent: Agent) -> str:
    return f"udp:{agent.hostport}"


def call(phone: Agent, callee: Agent, tenant: Tenant) -> None:
    """A call that this instance, and no other, is asked to take; and does."""
    ours, _ = answered_call(phone, callee, f"sip:200@{tenant.domain}")
    ours.hang_up(callee)


def refused(phone: Agent, tenant: Tenant, status: int, timeout: float = 3.0, user: str = "200") -> Agent:
    """A call that ends so."""
    phone.begin("INVITE", f"sip:{user}@{tenant.domain}", body=phone.sdp())
    answer = phone.expect(status, timeout)
    phone.acknowledge(answer)
    if status == 503:
        assert int(answer.header("Retry-After")) > 0
    return phone


def break_with(status: int, phone: Agent, first: Agent, second: Agent, tenant: Tenant) -> None:
    """A call that the first instance answers with a 5xx, and the second takes."""
    ours = phone.begin("INVITE", f"sip:200@{tenant.domain}", body=phone.sdp())
    first.reply(first.expect("INVITE"), status, tag="i")
    first.expect("ACK")
    second.reply(second.expect("INVITE"), 200, tag="s", body=second.sdp())
    ours.learn(phone.expect(200)).ack()
    second.expect("ACK")
    ours.hang_up(second)


def fall_silent(phone: Agent, first: Agent, second: Agent, tenant: Tenant) -> None:
    """A call to which the first instance says nothing, so that the second takes it."""
    ours = phone.begin("INVITE", f"sip:200@{tenant.domain}", body=phone.sdp())
    first.expect("INVITE")
    second.reply(second.expect("INVITE", timeout=4), 200, tag="s", body=second.sdp())
    ours.learn(phone.expect(200)).ack()
    second.expect("ACK")
    ours.hang_up(second)


def lines(node: Node, event: str, end: str) -> list[str]:
    """The log's lines of an event about an endpoint."""
    return [line for line in node.log("kamailio").splitlines() if f"event={event} " in line and f" to={end}" in line]


# --- found out by a call -----------------------------------------------------------------------------------------


def test_a_silent_instance_costs_one_call_its_timeout_and_the_next_ones_nothing(
    node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    before = len(lines(node, "instance-down", key(instance)))
    fall_silent(phone, instance, second, pair)
    assert node.down() == {key(instance): "silent"}
    call(phone, second, pair)
    phone.begin("REGISTER", f"sip:{pair.domain}", domain=pair.domain)
    second.reply(second.expect("REGISTER"), 200, tag="r")
    phone.expect(200)
    # What a user agent sends again to the first call is the only thing that it hears.
    assert all(m.method in {"INVITE", "CANCEL"} for m in heard(instance))
    told = eventually(lambda: lines(node, "instance-down", key(instance))[before:])
    assert len(told) == 1
    assert f"why=silent method=INVITE src_ip={phone.host} tenant={pair.name}" in told[0]


def heard(agent: Agent) -> list[object]:
    found: list[object] = []
    while agent.has_something():
        found.append(agent.receive(0.001))
    return found


def test_one_that_is_left_out_is_asked_and_called_again_after_two_answers_in_a_row(
    node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    before = len(lines(node, "instance-up", key(instance)))
    break_with(503, phone, instance, second, pair)
    for status in (200, 500, 200, 408, 200):
        instance.answer_probe(status)
        call(phone, second, pair)
    instance.answer_probe(404)  # the second in a row that says that somebody is there
    eventually(lambda: not node.down())
    assert len(eventually(lambda: lines(node, "instance-up", key(instance))[before:])) == 1
    call(phone, instance, pair)


@BROKEN
def test_a_broken_instance_is_left_out_for_new_calls_and_registrations_at_once(
    status: int, node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    break_with(status, phone, instance, second, pair)
    assert node.down() == {key(instance): str(status)}
    call(phone, second, pair)
    phone.begin("REGISTER", f"sip:{pair.domain}", domain=pair.domain)
    second.reply(second.expect("REGISTER"), 200, tag="r")
    phone.expect(200)
    assert not instance.has_something()


@pytest.mark.parametrize("status", [403, 404, 480, 486, 600, 603])
def test_an_answer_that_speaks_of_the_call_is_passed_and_no_second_instance_rung(
    status: int, node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    phone.begin("INVITE", f"sip:200@{pair.domain}", body=phone.sdp())
    instance.reply(instance.expect("INVITE"), status, tag="i")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(status))
    assert not node.down()
    call(phone, instance, pair)
    assert not second.has_something()


def test_what_the_second_instance_says_of_the_call_reaches_the_caller_when_the_first_is_silent(
    node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    phone.begin("INVITE", f"sip:200@{pair.domain}", body=phone.sdp())
    instance.expect("INVITE")
    second.reply(second.expect("INVITE", timeout=4), 486, tag="s")
    second.expect("ACK")
    phone.acknowledge(phone.expect(486))
    assert node.down() == {key(instance): "silent"}


@pytest.mark.parametrize(("status", "seen"), [(500, 500), (502, 502), (503, 500), (504, 504)])
def test_the_5xx_of_a_sole_instance_is_the_callers_and_does_not_leave_it_out(
    status: int, seen: int, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    # A proxy passes no 503 on (RFC 3261, 16.7, 6): it would speak of the whole node.
    phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    instance.reply(instance.expect("INVITE"), status, tag="i")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(seen))
    assert not node.down()
    call(phone, instance, acme)


def test_a_sole_instance_that_is_silent_is_left_out_and_callers_are_told_at_once(
    node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    instance.expect("INVITE")
    phone.acknowledge(phone.expect(503, timeout=4))
    assert node.down() == {key(instance): "silent"}
    heard(instance)
    before = node.status()["counters"].get("all-down", 0)
    refused(phone, acme, 503)
    phone.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain)
    assert int(phone.expect(503).header("Retry-After")) > 0
    assert node.status()["counters"]["all-down"] == before + 2
    assert not instance.has_something()


@pytest.mark.parametrize("first", [500, 503, None], ids=["500", "503", "silent"])
@pytest.mark.parametrize("last", [500, 503, None], ids=["500", "503", "silent"])
def test_when_all_are_dead_the_caller_gets_503_with_retry_after(
    first: int | None, last: int | None, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    phone.begin("INVITE", f"sip:200@{pair.domain}", body=phone.sdp())
    for agent, status in ((instance, first), (second, last)):
        invite = agent.expect("INVITE", timeout=4)
        if status:
            agent.reply(invite, status, tag="i", headers=["Retry-After: 7777"])
            agent.expect("ACK")
    answer = phone.expect(503, timeout=4)
    assert 0 < int(answer.header("Retry-After")) < 60
    phone.acknowledge(answer)
    phone.expect_silence(0.1)


def test_an_instance_that_refuses_the_connection_is_followed_by_the_next_at_once_and_left_out(
    node: Node, phone: Agent, second: Agent, tenant: Make, pbx_on_node: Machine
) -> None:
    uri = f"sip:{pbx_on_node.address}:{pbx_on_node.sip_port};transport=tcp"
    acme = tenant({"uri": uri, "priority": 1}, {"uri": f"sip:{second.hostport}", "priority": 2})
    for _ in range(2):
        ours, theirs = answered_call(phone, second, f"sip:200@{acme.domain}")
        ours.send("INFO")
        second.reply(second.expect("INFO"), 200)
        phone.expect(200)
        theirs.hang_up(phone)
        assert list(node.down()) == [f"tcp:{pbx_on_node.address}:{pbx_on_node.sip_port}"]


@pytest.mark.parametrize("hangs_up", ["caller", "callee"])
def test_an_instance_that_answers_after_it_was_given_up_takes_no_call_and_ends_none(
    hangs_up: str, node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{pair.domain}", body=phone.sdp())
    invite = instance.expect("INVITE")
    theirs = Talk.answering(instance, invite, "late")
    second.reply(second.expect("INVITE", timeout=4), 200, tag="s", body=second.sdp())
    fork = replace(ours.learn(phone.expect(200)), branches={})
    ours.ack()
    second.expect("ACK")
    before = node.media_calls()
    instance.reply(invite, 200, tag="late", body=instance.sdp())
    late = phone.expect(200)
    assert "m=audio 0 " in late.text
    if hangs_up == "caller":
        fork.learn(late).ack()
        instance.expect_again("ACK")
        fork.hang_up(instance)
    else:  # the caller has ignored its 200
        theirs.send("BYE")
        phone.reply(phone.expect("BYE"), 481)
        instance.expect_again(481)
    assert node.media_calls() == before
    ours.hang_up(second)
    assert not [name for name in node.media_calls() if name.startswith(f"{pair.name}/")]


# --- found out by asking -----------------------------------------------------------------------------------------


@pytest.fixture
def asking(own_lab: Lab) -> Iterator[Node]:
    """A node that asks each instance every second."""
    with Node(own_lab, settings={"health": {"interval": 1}}) as node:
        yield node


def asked_and_called(node: Node, instance: Agent, second: Agent, phone: Agent, make_it_miss: Callable[[], None]) -> str:
    """Let the first of two instances miss two OPTIONS, and answer two; why it was down, by the way calls went."""
    node.route_add("acme", ["acme.example"], values(instance, second))
    acme = Tenant("acme", "acme.example", ())
    while not node.down():
        call(phone, instance, acme)
        second.answer_probe(404)
        make_it_miss()
    (why,) = node.down().values()
    assert list(node.down()) == [key(instance)]
    call(phone, second, acme)
    found = eventually(lambda: (part := node.status()["components"]["instances"])["down"] and part)
    assert (found["state"], found["watched"], found["down"]) == ("degraded", 2, 1)
    assert found["names"] == {key(instance): why}
    assert key(instance) in node.sipward("status").output
    assert node.ready
    instance.answer_probe(200)
    assert node.down()
    answer_until_up(node, instance)
    call(phone, instance, acme)
    assert len(eventually(lambda: lines(node, "instance-down", key(instance)))) == 1
    assert len(lines(node, "instance-up", key(instance))) == 1
    assert eventually(lambda: node.status()["components"]["instances"]["state"] == "ok")
    return why


def answer_until_up(node: Node, instance: Agent) -> None:
    """Answer every OPTIONS. The one that waits to be read may be too late to count."""
    for _ in range(4):
        instance.answer_probe(603)
        if not node.down():
            return
    eventually(lambda: not node.down())


@pytest.mark.parametrize("status", [408, 500, 503])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_an_instance_that_answers_options_by_408_or_5xx_is_left_out_before_any_call_finds_out(
    ipv6: bool, status: int, own_lab: Lab, asking: Node
) -> None:
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(Agent(own_lab.instance(name), ipv6=ipv6, port=5060)) for name in ("pbx", "pbx2")
        )
        phone = stack.enter_context(Agent(own_lab.phone("bob"), ipv6=ipv6))
        assert asked_and_called(asking, first, second, phone, lambda: first.answer_probe(status)) == str(status)


def test_an_instance_that_does_not_answer_options_is_left_out_before_any_call_finds_out(
    own_lab: Lab, asking: Node
) -> None:
    with (
        Agent(own_lab.instance("pbx")) as first,
        Agent(own_lab.instance("pbx2")) as second,
        Agent(own_lab.phone("bob")) as phone,
    ):
        assert asked_and_called(asking, first, second, phone, lambda: None) == "silent"


def test_any_other_answer_is_a_sign_of_life_and_options_come_from_the_service_address(
    own_lab: Lab, asking: Node
) -> None:
    with Agent(own_lab.instance("pbx")) as instance:
        asking.route_add("acme", ["acme.example"], values(instance))
        for status in (200, 404, 401, 405, 486, 603, 302):
            instance.answer_probe(status)
            assert not asking.down()
    seen = own_lab.wire.messages(machine="pbx", direction="in", method="OPTIONS", requests=True)
    assert len(seen) >= 7
    assert {message.source.host for message in seen} == {instance.node.host}
    assert {message.uri for message in seen} == {f"sip:{instance.hostport}"}


def test_an_instance_that_is_reached_by_tcp_is_asked_over_tcp(own_lab: Lab, asking: Node) -> None:
    pbx = own_lab.instance("pbx")
    asking.route_add("acme", ["acme.example"], [f"sip:{pbx.address}:5060;transport=tcp"])
    end = f"tcp:{pbx.address}:5060"
    eventually(lambda: asking.down() == {end: "silent"}, 15)
    with pbx.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((pbx.address, 5060))
        listener.listen()
        listener.settimeout(5.0)
        for _ in range(2):
            assert asking.down()
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(5.0)
                kept = re.findall(r"(?m)^(?:Via|From|To|Call-ID|CSeq): .*\r\n", peer.recv(65536).decode())
                peer.sendall(f"SIP/2.0 200 OK\r\n{''.join(kept)}Content-Length: 0\r\n\r\n".encode())
                assert peer.recv(100) == b""
        eventually(lambda: not asking.down())


def test_health_is_asked_for_while_redis_is_dead(own_lab: Lab, asking: Node) -> None:
    with Agent(own_lab.instance("pbx")) as instance:
        asking.route_add("acme", ["acme.example"], values(instance))
        redis = next(pid for pid, name in asking.processes().items() if name.startswith("redis"))
        os.kill(redis, signal.SIGSTOP)
        try:
            eventually(asking.down, 15)
            answer_until_up(asking, instance)
        finally:
            os.kill(redis, signal.SIGCONT)


# --- health belongs to the endpoint ------------------------------------------------------------------------------


def test_no_edit_of_a_tenant_forgets_or_invents_health(
    node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant, tenant: Make
) -> None:
    break_with(500, phone, instance, second, pair)
    down = {key(instance): "500"}
    node.put(pair.name, {"domains": [pair.domain], "instances": [v | {"weight": 7} for v in values(instance, second)]})
    call(phone, second, pair)
    node.route_remove(pair.name)
    for _ in range(3):  # it is asked even now, and that it is nobody's has been seen
        instance.answer_probe(500)
    node.put(pair.name, {"domains": [pair.domain], "instances": values(instance, second)})
    call(phone, second, pair)
    other = tenant(*values(instance, second))
    call(phone, second, other)
    # Its sibling, and another port of its host, are others.
    with Agent(instance.machine, port=5099) as sibling:
        third = tenant(*values(sibling, instance))
        call(phone, sibling, third)
    assert node.down() == down
    assert not instance.has_something()


# --- balance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["failover", "balance"])
def test_users_are_shared_among_instances_as_the_policy_says_and_stay_with_theirs(
    policy: str, lab: Lab, bob: Machine, tenant: Make
) -> None:
    machines = [lab.instance(name) for name in ("pbx", "pbx2", "pbx3")]
    shared = [
        {"uri": f"sip:{m.address}:{m.sip_port}", "priority": n, "weight": w}
        for n, (m, w) in enumerate(zip(machines, (1, 2, 1), strict=True), 1)
    ]
    acme = tenant(*shared, policy=policy)
    with ExitStack() as stack:
        for machine in machines:
            stack.enter_context(Answerer(machine))
        asker = stack.enter_context(Asker(bob))
        users = [f"sip:{user}@{acme.domain}" for user in range(100, 200)]
        homes = {user: asker.answered_by(user) for user in users}
        assert homes == {user: asker.answered_by(user) for user in users}
    shares = Counter(homes.values())
    if policy == "failover":
        assert shares == {"pbx": 100}
    else:
        assert set(shares) == {"pbx", "pbx2", "pbx3"}
        assert shares["pbx2"] > max(shares["pbx"], shares["pbx3"])


def test_calls_and_registrations_of_one_user_meet_at_one_instance_until_it_fails_and_then_at_another(
    phone: Agent, instance: Agent, second: Agent, tenant: Make
) -> None:
    acme = tenant(*(value | {"priority": 1} for value in values(instance, second)), policy="balance")
    phone.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain)
    home, other = who_got(instance, second)
    home.reply(home.expect("REGISTER"), 200, tag="r")
    phone.expect(200)
    ours, _ = answered_call(phone, home, f"sip:300@{acme.domain}", domain=acme.domain)
    ours.hang_up(home)
    phone.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain)
    home.reply(home.expect("REGISTER"), 503, tag="r")
    other.reply(other.expect("REGISTER"), 200, tag="r")
    phone.expect(200)
    ours, _ = answered_call(phone, other, f"sip:300@{acme.domain}", domain=acme.domain)
    ours.hang_up(other)


# --- drain, and what is removed ----------------------------------------------------------------------------------


def test_a_draining_instance_gets_no_new_registration(
    node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    first, other = values(instance, second)
    node.put(pair.name, {"domains": [pair.domain], "instances": [first | {"drain": True}, other]})
    phone.begin("REGISTER", f"sip:{pair.domain}", domain=pair.domain)
    second.reply(second.expect("REGISTER"), 200, tag="r")
    phone.expect(200)
    node.put(pair.name, {"domains": [pair.domain], "instances": [first, other]})
    phone.begin("REGISTER", f"sip:{pair.domain}", domain=pair.domain)
    instance.reply(instance.expect("REGISTER"), 200, tag="r")
    phone.expect(200)


@pytest.mark.parametrize("removed", ["tenant", "instance", "drained", "down"])
@pytest.mark.parametrize("hangs_up", ["phone", "instance"])
def test_a_call_goes_on_and_ends_when_its_instance_is_gone_from_the_routes(
    hangs_up: str, removed: str, node: Node, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    ours, theirs = answered_call(phone, instance, f"sip:200@{pair.domain}")
    first, other = values(instance, second)
    match removed:
        case "tenant":
            node.route_remove(pair.name)
        case "instance":
            node.put(pair.name, {"domains": [pair.domain], "instances": [other]})
        case "drained":
            node.put(pair.name, {"domains": [pair.domain], "instances": [first | {"drain": True}, other]})
        case "down":
            break_with(503, phone, instance, second, pair)
    changed(ours, instance)
    changed(theirs, phone)
    if hangs_up == "phone":
        ours.hang_up(instance)
    else:
        theirs.hang_up(phone)
    assert not [name for name in node.media_calls() if name.startswith(f"{pair.name}/")]


def changed(talk: Talk, peer: Agent) -> None:
    """A re-INVITE, answered."""
    talk.send("INVITE", body=talk.agent.sdp(version=2))
    peer.reply(peer.expect("INVITE"), 200, body=peer.sdp(version=2))
    talk.agent.expect(200)
    talk.ack()
    peer.expect("ACK")


def test_a_call_that_a_second_instance_took_goes_on_when_that_one_is_removed(
    node: Node, tenant: Make, phone: Agent, instance: Agent, second: Agent
) -> None:
    pair = tenant(*values(instance, second))
    ours = phone.begin("INVITE", f"sip:200@{pair.domain}", body=phone.sdp())
    instance.reply(instance.expect("INVITE"), 503, tag="i")
    instance.expect("ACK")
    invite = second.expect("INVITE")
    theirs = Talk.answering(second, invite, "s")
    second.reply(invite, 200, tag="s", body=second.sdp())
    ours.learn(phone.expect(200)).ack()
    second.expect("ACK")
    node.route_add(pair.name, [pair.domain], values(instance))
    theirs.send("INFO")
    phone.reply(phone.expect("INFO"), 200)
    second.expect(200)
    ours.hang_up(second)
