"""What people are told of running calls, by `sipward calls` and `sipward call`, and why somebody hears nothing."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from lab.agent import Agent, Talk, answered_call, registered
from lab.calls import told
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.packets import Address
from lab.voice import Speaker
from sipward import running

from .conftest import Tenant
from .test_media_failures import heard_both_ways

pytestmark = pytest.mark.usefixtures("no_media_left")


def calls(node: Node, call_id: str = "") -> list[dict[str, Any]]:
    """What `sipward calls`, or `sipward call`, says, at one look."""
    return node.machine.inside(lambda: [one.as_json() for one in running.look(node.settings, call_id, between=0)])


def problem(node: Node, talk: Talk) -> str:
    (found,) = calls(node, talk.call_id)
    return str(found["problem"])


def test_running_calls_are_listed_with_their_parties_and_packets(
    node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    ours, _ = answered_call(phone, instance, f"sip:200@{acme.domain}", call_id="a%1/2@pbx")
    with heard_both_ways(phone, instance):
        answer = node.sipward("calls", "--json")
        assert answer.code == 0, answer.errors
        (found,) = (one for one in json.loads(answer.output) if one["call_id"] == ours.call_id)
        who = (found["tenant"], found["call_id"], found["caller"], found["callee"])
        assert who == (acme.name, ours.call_id, "alice", "200")
        assert found["instance"] == f"{instance.host}:{instance.machine.rtp_ports[0]}"
        assert (found["answered"], found["codec"], found["problem"]) == (True, "PCMA/8000", "")
        assert [party["kind"] for party in found["parties"]] == ["phone", "instance"]
        for party in found["parties"]:
            assert party["packets"] > 9
            assert party["packets_to"] > 9
            assert party["refused"] == 0
        text = node.sipward("call", ours.call_id).output
    for word in (acme.name, ours.call_id, "alice", "200", "PCMA/8000", "phone", "instance", "none seen"):
        assert word in text
    ours.hang_up(instance)
    assert node.sipward("call", ours.call_id).code == 1


@contextmanager
def dropped(machine: Machine) -> Iterator[None]:
    """Let nftables drop a machine's RTP on its way out."""
    rule = f"udp sport {machine.rtp_ports[0]}"
    lines = f"table inet deaf {{\n chain out {{\n type filter hook output priority 0\n {rule} drop\n }}\n}}"
    nft = ["nsenter", f"--net=/run/netns/{machine.namespace}", "nft", "-f", "-"]
    subprocess.run(nft, input=f"{lines}\n", text=True, check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(nft, input="delete table inet deaf\n", text=True, check=True, timeout=20)


def test_who_is_not_heard_is_named_with_the_cause(
    node: Node, lab: Lab, alice: Machine, instance: Agent, other_instance: Agent, acme: Tenant, initech: Tenant
) -> None:
    """Six calls at once, for it takes five seconds to be sure. All that is to be heard of the rest flows."""
    with ExitStack() as stack:

        def phone(machine: Machine) -> Agent:
            return stack.enter_context(Agent(machine))

        def speak(agent: Agent, *to: Address, port: int = 0) -> Speaker:
            return stack.enter_context(Speaker(agent.machine, to, port or agent.machine.rtp_ports[0]))

        phones = {name: phone(lab.phone(name)) for name in ("bob", "odd", "quiet", "held", "well")}
        phones["alice"] = phone(alice)
        talks: dict[str, Talk] = {}
        heard: list[Address] = []
        for name, agent in phones.items():
            callee, tenant = (other_instance, initech) if name == "well" else (instance, acme)
            talks[name], _ = answered_call(agent, callee, f"sip:200@{tenant.domain}")
            if name != "well":
                heard.append(at(callee))
        stack.enter_context(dropped(phones["bob"].machine))
        stack.enter_context(dropped(alice))
        stack.enter_context(dropped(other_instance.machine))
        speak(instance, *heard)
        speak(other_instance, at(other_instance))
        for name in ("bob", "alice", "well"):
            speak(phones[name], at(phones[name]))
        speak(phones["odd"], at(phones["odd"]), port=30002)
        with Speaker(phones["quiet"].machine, [at(phones["quiet"])], 30000):
            eventually(lambda: all(party["packets"] for party in calls(node, talks["quiet"].call_id)[0]["parties"]))
        hold(talks["held"], instance)

        causes = {
            "bob": "no packets from the phone",
            "alice": "the NAT of the phone was never opened: nothing has come from it",
            "odd": "packets for the phone came from an unexpected source",
            "quiet": "no packets from the phone for ",
            "well": "no packets from the instance",
        }
        for name, cause in causes.items():
            eventually(lambda: cause in problem(node, talks[name]), what=name)  # noqa: B023 - called at once
            assert ";" not in problem(node, talks[name])
        assert problem(node, talks["held"]) == ""
        for name, talk in talks.items():
            talk.hang_up(other_instance if name == "well" else instance)


def at(agent: Agent) -> Address:
    """Where it was told to send its audio."""
    place = told(agent.machine)
    assert place
    return place


def hold(talk: Talk, peer: Agent) -> None:
    talk.send("INVITE", body=talk.agent.sdp(2).replace("sendrecv", "inactive"))
    peer.reply(peer.expect("INVITE"), 200, body=peer.sdp(2).replace("sendrecv", "inactive"))
    talk.agent.expect(200)
    talk.ack()
    peer.expect("ACK")


def test_a_call_to_a_phone_by_its_pbx_is_told_from_one_by_the_phone(
    lab: Lab, node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    bound = registered(phone, instance, acme.domain)
    ours = instance.begin("INVITE", bound, body=instance.sdp(), user="200", to=f"sip:alice@{acme.domain}")
    invite = phone.expect("INVITE")
    (found,) = calls(node, ours.call_id)
    assert (found["caller"], found["callee"], found["answered"]) == ("200", "alice", False)
    phone.reply(invite, 486, tag="p")
    instance.acknowledge(instance.expect(486))
