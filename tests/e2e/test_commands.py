"""The commands on a running node: what they write is what the next call does; what they say is what the node does."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lab.agent import Agent, answered_call, busy_call, refused_call
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node, number_key

from .conftest import Tenant

RULE = "072155XX"
NUMBER = "07215512"

type Run = Callable[..., str]


@pytest.fixture
def run(node: Node) -> Run:
    """Run a command that must succeed; what it says."""

    def run(*words: str) -> str:
        answer = node.sipward(*words)
        assert answer.code == 0, answer
        return answer.output

    return run


@pytest.fixture
def second(lab: Lab) -> Iterator[Agent]:
    with Agent(lab.instance("pbx2")) as agent:
        yield agent


@pytest.fixture
def pair(tenant: Callable[..., Tenant], instance: Agent, second: Agent) -> Tenant:
    """A tenant with a first and a second instance."""
    return tenant(*({"uri": f"sip:{agent.hostport}", "priority": n} for n, agent in enumerate((instance, second), 1)))


def count(node: Node, kind: str) -> int:
    return int(node.status()["components"]["routes"][kind])


def test_a_number_added_by_command_is_in_status_and_called(
    node: Node, run: Run, acme: Tenant, phone: Agent, instance: Agent, tmp_path: Path
) -> None:
    before = count(node, "numbers")
    refused_call(phone, f"sip:{NUMBER}@{phone.node}", 404)
    run("number", "add", RULE, "--tenant", acme.name)
    eventually(lambda: count(node, "numbers") == before + 1)
    assert f"{before + 1} numbers" in run("status")
    busy_call(phone, instance, f"sip:{NUMBER}@{phone.node}")
    table = tmp_path / "numbers.csv"
    run("number", "export", str(table))
    run("number", "rm", RULE)
    eventually(lambda: not node.live(number_key(RULE)))
    run("number", "import", str(table), "--replace")
    eventually(lambda: node.live(number_key(RULE)))
    assert RULE in run("number", "list", "--tenant", acme.name)
    assert run("number", "check").endswith("1 numbers; nothing to be said\n")
    run("number", "rm", RULE)
    eventually(lambda: count(node, "numbers") == before)
    refused_call(phone, f"sip:{NUMBER}@{phone.node}", 404)


def test_a_second_spelling_written_by_hand_is_named_by_the_commands(
    node: Node, run: Run, acme: Tenant, number: Callable[..., str]
) -> None:
    number(RULE, tenant=acme.name)
    other = f"0039{RULE}"
    node.redis("SET", f"sipward:number:{other}", json.dumps({"tenant": acme.name}))
    eventually(lambda: count(node, "rejected_total"))
    told = f"rule: +39{RULE} belongs to number {RULE}"
    checked = node.sipward("number", "check")
    assert (checked.code, checked.output) == (1, f"not used: number {other}: {told}\n2 numbers; not used: 1\n")
    assert node.sipward("number", "show", other).errors == f"this value is not used: {told}\n"
    run("number", "rm", other)
    eventually(lambda: not count(node, "rejected_total"))


def test_a_trunk_added_by_command_is_listed_with_its_targets_and_its_calls_come_in(
    node: Node, run: Run, acme: Tenant, carrier: Agent, instance: Agent, number: Callable[..., str]
) -> None:
    number(RULE, tenant=acme.name)
    refused_call(carrier, f"sip:{NUMBER}@sip.telco.example", 404)
    run("trunk", "add", "by-command", "--address", carrier.host, "--tenant", acme.name, "--address", "none.example")
    eventually(lambda: node.targets("by-command"))
    listed = eventually(lambda: [one for one in trunks(run) if one["unresolved"]])
    assert listed[0]["targets"] == [f"udp:{carrier.host}:5060"]
    assert listed[0]["unresolved"].keys() == {"none.example"}
    invite = busy_call(carrier, instance, f"sip:{NUMBER}@sip.telco.example")
    assert invite.headers("X-Sipward-Trunk") == ["by-command"]
    run("trunk", "rm", "by-command")
    eventually(lambda: not node.targets("by-command"))
    refused_call(carrier, f"sip:{NUMBER}@sip.telco.example", 404)


def trunks(run: Run) -> Sequence[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = json.loads(run("trunk", "list", "--json"))
    return found


def test_after_drain_by_command_the_next_call_goes_to_the_other_instance_and_the_running_one_goes_on(
    node: Node, run: Run, phone: Agent, instance: Agent, second: Agent, pair: Tenant
) -> None:
    target = f"sip:200@{pair.domain}"
    running, _ = answered_call(phone, instance, target)
    before = node.live(pair.domain)
    run("instance", "drain", f"sip:{instance.hostport}", "--tenant", pair.name)
    eventually(lambda: node.live(pair.domain) != before)
    new, _ = answered_call(phone, second, target)
    running.send("INFO")
    instance.reply(instance.expect("INFO"), 200)
    phone.expect(200)
    running.hang_up(instance)
    new.hang_up(second)
    run("instance", "undrain", f"sip:{instance.hostport}", "--tenant", pair.name)
    eventually(lambda: node.live(pair.domain) == before)
    again, _ = answered_call(phone, instance, target)
    again.hang_up(instance)


def test_an_instance_that_was_killed_is_listed_as_down(
    run: Run, phone: Agent, pbx: Machine, second: Agent, tenant: Callable[..., Tenant]
) -> None:
    with Agent(pbx) as first:
        uris = [f"sip:{agent.hostport}" for agent in (first, second)]
        acme = tenant(*({"uri": uri, "priority": n} for n, uri in enumerate(uris, 1)))
        busy_call(phone, first, f"sip:200@{acme.domain}")
        assert health(run, acme) == dict.fromkeys(uris, ("up", ""))
    phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    second.reply(second.expect("INVITE", timeout=4), 486, tag="busy")
    second.expect("ACK")
    phone.acknowledge(phone.expect(486))
    assert health(run, acme) == {uris[0]: ("down", "silent"), uris[1]: ("up", "")}


def health(run: Run, tenant: Tenant) -> dict[str, tuple[str, str]]:
    listed = json.loads(run("instance", "list", "--json"))
    return {one["uri"]: (one["health"], one["why"]) for one in listed if one["name"] == tenant.name}


def test_a_tenant_that_may_only_have_one_call_is_made_by_command(
    node: Node, run: Run, phone: Agent, instance: Agent
) -> None:
    words = ("--domain", "small.example", "--instance", f"sip:{instance.hostport}", "--policy", "balance")
    run("route", "add", "small", *words, "--calls", "1")
    eventually(lambda: node.live("small.example"))
    running, _ = answered_call(phone, instance, "sip:200@small.example")
    refused_call(phone, "sip:200@small.example", 503)
    running.hang_up(instance)
    run("route", "rm", "small")
    eventually(lambda: not node.live("small.example"))
