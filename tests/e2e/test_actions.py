"""NethVoice's API on a node that runs: each action as a program, its JSON in and out, and what it does to calls."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from lab.addresses import INTERNET, LOCAL, NODE, SECOND_NODE_ADDRESS, SERVICE, SITE
from lab.agent import Agent, answered_call
from lab.calls import expect_audio
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Answer, Node
from lab.probe import Answerer, Asker
from lab.sipp import sipp
from sipward.live import Live
from sipward.model import Endpoint

from .conftest import watched_lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    with Node(lab) as node:
        yield node
        assert node.stop() == 0, node.log_tail()


def done(node: Node, name: str, value: object = None) -> Any:
    """What a good action prints, as JSON; None when it prints nothing."""
    answer = act(node, name, value)
    assert answer.code == 0, answer
    return json.loads(answer.output) if answer.output else None


def act(node: Node, name: str, value: object = None) -> Answer:
    return node.sipward("action", name, stdin="" if value is None else json.dumps(value))


def refused(node: Node, name: str, value: object) -> tuple[int, list[dict[str, Any]]]:
    answer = act(node, name, value)
    problems = json.loads(answer.output)
    assert all(problem.keys() == {"field", "parameter", "value", "error"} for problem in problems)
    return answer.code, problems


def addressed(instance: Machine, description: str = "nethvoice1") -> Mapping[str, str]:
    return {"uri": f"sip:{instance.address}:{instance.sip_port}", "description": description}


# --- routes -----------------------------------------------------------------------------------------------------------


def test_a_route_that_a_pbx_module_has_added_carries_its_calls_until_it_is_removed(
    node: Node, lab: Lab, bob: Machine, pbx_on_node: Machine
) -> None:
    """As NethVoice registers itself: at the node's service address, with a port of its own."""
    route = {"domain": "voice.example.org", "address": [addressed(pbx_on_node)]}
    assert done(node, "get-route", {"domain": "voice.example.org"}) == {}
    assert done(node, "add-route", route) is None
    eventually(lambda: node.live("voice.example.org"))
    assert done(node, "get-route", {"domain": "Voice.Example.ORG"}) == {"address": route["address"]}
    assert done(node, "list-routes", {}) == [route]
    callee = sipp(pbx_on_node, "call-answered", "uas")
    sipp(bob, "call-answered", keys={"domain": "voice.example.org"}, talk=1.1)
    callee.wait()
    expect_audio(bob, pbx_on_node)
    assert done(node, "remove-route", {"domain": "voice.example.org"}) is None
    assert done(node, "remove-route", {"domain": "voice.example.org"}) is None
    eventually(lambda: not node.live("voice.example.org"))
    with Asker(bob) as phone:
        assert phone.status("sip:voice.example.org") == 404
    assert done(node, "list-routes") == []


def test_a_route_that_is_added_again_leads_to_its_new_addresses_alone(
    node: Node, bob: Machine, pbx: Machine, pbx_on_node: Machine
) -> None:
    domain = "[2001:db8::77]"
    with Answerer(pbx), Answerer(pbx_on_node), Asker(bob) as phone:
        for instance in (pbx, pbx_on_node, pbx):
            done(node, "add-route", {"domain": domain, "address": [addressed(instance, instance.name)]})
            eventually(lambda: phone.answered_by(f"sip:{domain}", within=0.3) == instance.name)  # noqa: B023
    assert done(node, "get-route", {"domain": "2001:DB8::77"}) == {"address": [addressed(pbx, "pbx")]}
    done(node, "remove-route", {"domain": domain})


def test_an_operators_tenant_keeps_what_the_module_does_not_know(
    node: Node, pbx: Machine, pbx_on_node: Machine
) -> None:
    node.route_add("acme", ["acme.example", "voice.acme.example"], [pbx], redirect="refuse")
    done(node, "add-route", {"domain": "voice.acme.example", "address": [addressed(pbx_on_node)]})
    value = json.loads(node.redis("GET", "sipward:tenant:acme"))
    assert value["domains"] == ["acme.example", "voice.acme.example"]
    assert value["redirect"] == "refuse"
    assert [instance["uri"] for instance in value["instances"]] == [addressed(pbx_on_node)["uri"]]
    assert node.redis("--scan", "--pattern", "sipward:tenant:*") == "sipward:tenant:acme"
    done(node, "remove-route", {"domain": "voice.acme.example"})
    assert json.loads(node.redis("GET", "sipward:tenant:acme"))["domains"] == ["acme.example"]
    done(node, "remove-route", {"domain": "acme.example"})
    assert node.redis("GET", "sipward:tenant:acme") == ""


OUTSIDE = {"uri": "sip:198.51.100.7:5060", "description": ""}
BAD: dict[str, tuple[str, object, int, str, object]] = {
    "nothing": ("add-route", {}, 10, "domain", None),
    "no addresses": ("add-route", {"domain": "a.example", "address": []}, 10, "address", []),
    "no domain": ("get-route", {"domain": ""}, 10, "domain", ""),
    "an instance outside the service networks": (
        "add-route", {"domain": "a.example", "address": [OUTSIDE]}, 10, "address.0.uri", OUTSIDE["uri"]
    ),
    "a letter in a rule": ("add-trunk", {"rule": "12a", "destination": OUTSIDE}, 10, "rule", "12a"),
    "a trunk without description": (
        "add-trunk", {"rule": "12", "destination": OUTSIDE}, 10, "destination.description", ""
    ),
    "an empty rule": ("remove-trunk", {"rule": ""}, 10, "rule", ""),
    "a family": ("get-available-interfaces", {"excluded_families": ["x"]}, 10, "excluded_families.0", "x"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_refused_comes_back_with_its_field_its_value_and_the_reason(what: str, node: Node) -> None:
    name, value, code, field, given = BAD[what]
    ended, problems = refused(node, name, value)
    assert ended == code
    assert (problems[0]["field"], problems[0]["parameter"]) == (field, field.rpartition(".")[2])
    assert problems[0]["value"] == given
    assert problems[0]["error"]
    assert node.redis("--scan", "--pattern", "sipward:[tn]*") == ""


def test_what_is_no_json_and_what_is_no_action_are_said(node: Node) -> None:
    answer = node.sipward("action", "get-route", stdin="{")
    assert answer.code == 10
    assert json.loads(answer.output)[0]["field"] == "(root)"
    unknown = node.sipward("action", "get-rout", stdin="{}")
    assert unknown.code == 2
    assert 'there is no action "get-rout": there are add-route, ' in unknown.errors


# --- trunks -----------------------------------------------------------------------------------------------------------


def test_a_trunk_is_added_replaced_shown_and_removed(node: Node, pbx: Machine, pbx_on_node: Machine) -> None:
    first = {"rule": "05551594XX", "destination": addressed(pbx)}
    assert done(node, "get-trunk", {"rule": "05551594XX"}) == {}
    assert done(node, "add-trunk", first) is None
    eventually(lambda: node.live("#+3905551594XX"))
    assert done(node, "get-trunk", {"rule": "05551594XX"}) == {"destination": addressed(pbx)}
    second = {"rule": "05551594XX", "destination": addressed(pbx_on_node, "nethvoice2")}
    done(node, "add-trunk", second)
    assert done(node, "list-trunks", {}) == [second]
    eventually(
        lambda: number_leads_to(node, "+390555159412345") == Endpoint("udp", pbx_on_node.address, pbx_on_node.sip_port)
    )
    assert number_leads_to(node, "+390555159512345") is None
    assert done(node, "remove-trunk", {"rule": "05551594XX"}) is None
    assert done(node, "remove-trunk", {"rule": "05551594XX"}) is None
    eventually(lambda: not node.live("#+3905551594XX"))
    assert done(node, "list-trunks") == []


def test_a_carriers_call_to_a_number_of_a_trunk_that_was_added_reaches_its_pbx_until_it_is_removed(
    node: Node, lab: Lab, pbx_on_node: Machine
) -> None:
    carrier = lab.carrier()
    node.redis("SET", "sipward:trunk:carrier", json.dumps({"addresses": [carrier.address], "tenants": ["*"]}))
    done(node, "add-trunk", {"rule": "0721405XX", "destination": addressed(pbx_on_node)})
    eventually(lambda: node.live("%carrier") and node.live("#+390721405XX"))
    target = "sip:072140512@203.0.113.10"
    callee = sipp(pbx_on_node, "call-answered", "uas")
    sipp(carrier, "call-answered", keys={"target": target}, talk=1.1)
    callee.wait()
    expect_audio(carrier, pbx_on_node)
    done(node, "remove-trunk", {"rule": "0721405XX"})
    eventually(lambda: not node.live("#+390721405XX"))
    with Asker(carrier) as asker:
        assert asker.status(target) == 404
    node.redis("DEL", "sipward:trunk:carrier")
    eventually(lambda: not node.live("%carrier"))


def number_leads_to(node: Node, dialled: str) -> Endpoint | None:
    """Where the running node's table has the calls to a number go first."""

    def get(table: str, key: str) -> str | None:
        try:
            return str(node.rpc("htable.get", table, key)["item"]["value"])
        except ValueError:
            return None

    found = Live(get).number(dialled)
    return found.tenant.instances[0].endpoint if found and found.tenant else None


# --- the node ---------------------------------------------------------------------------------------------------------


def test_the_interfaces_are_those_of_the_machine(node: Node) -> None:
    v4, v6 = INTERNET.host(NODE)
    shown = done(node, "get-available-interfaces", {"excluded_interfaces": ["lo"]})
    found = {one["name"]: one["addresses"] for one in shown["data"]}
    assert found.keys() == {"eth0", "local", "service"}
    assert {"address": v4, "network": "203.0.113.0/24", "family": "inet"} in found["eth0"]
    assert {"address": v6, "network": "2001:db8:1::/64", "family": "inet6"} in found["eth0"]
    only6 = done(node, "get-available-interfaces", {"excluded_families": ["inet"]})
    assert {address["family"] for one in only6["data"] for address in one["addresses"]} == {"inet6"}


@pytest.mark.parametrize("hangs_up", ["phone", "instance"])
def test_a_call_that_is_up_goes_on_while_the_node_takes_other_local_networks(
    hangs_up: str, node: Node, phone: Agent, instance: Agent
) -> None:
    before = node.config.read_text()
    done(node, "add-route", {"domain": "up.example", "address": [addressed(instance.machine)]})
    eventually(lambda: node.live("up.example"))
    ours, theirs = answered_call(phone, instance, "sip:200@up.example", domain="up.example")
    media, pids = node.media_calls(), {name: pid for pid, name in node.processes().items()}
    assert len(media) == 1
    wanted = {
        "fqdn": "edge.example.net",
        "addresses": {"address": INTERNET.host(NODE)[0]},
        "local_networks": ["192.168.10.0/24", "192.168.77.0/24"],
    }
    answer = act(node, "configure-module", wanted)
    assert answer.code == 0, answer
    assert "started again: kamailio" in answer.errors
    assert node.ready, "the action comes back when calls are routed again"
    now = {name: pid for pid, name in node.processes().items()}
    assert now["kamailio"] != pids["kamailio"]
    assert (now["rtpengine"], now["redis-server"]) == (pids["rtpengine"], pids["redis-server"])
    assert node.media_calls() == media, "its audio goes on"
    assert "192.168.77.0/24" in (node.state_dir / "run" / "edge.json").read_text()
    for talk, peer in ((ours, instance), (theirs, phone)):
        talk.send("INFO")
        peer.reply(peer.expect("INFO"), 200)
        talk.agent.expect(200)
    if hangs_up == "phone":
        ours.hang_up(instance)
    else:
        theirs.hang_up(phone)
    assert node.media_calls() == [], "the BYE has ended the media"
    done(node, "remove-route", {"domain": "up.example"})
    node.config.write_text(before)
    assert "started again: kamailio" in reconfigured(node).errors


def reconfigured(node: Node) -> Answer:
    """Have the node take its file as it stands, by writing back what it shows."""
    answer = act(node, "configure-module", done(node, "get-configuration"))
    assert answer.code == 0, answer
    return answer


def test_what_is_written_back_as_it_was_shown_starts_nothing_again(node: Node) -> None:
    pids = node.processes()
    before = node.config.read_text()
    assert "nothing had to be started again" in reconfigured(node).errors
    assert node.config.read_text() == before
    assert node.processes() == pids


def test_a_file_that_is_edited_by_hand_is_taken_after_a_hangup_and_a_bad_one_refused(own_lab: Lab) -> None:
    with Node(own_lab) as node, Asker(own_lab.phone("bob"), port=5070) as phone:
        good, pids = node.config.read_text(), node.processes()
        node.config.write_text(good.replace("[sip]", "[sip]\nworkers = 0"))
        os.kill(node.pid, signal.SIGHUP)
        eventually(lambda: "goes on with the configuration it had: " in node.log("sipward"))
        assert "sip.workers = 0: must be 1 to 64" in node.log("sipward")
        assert node.processes() == pids
        node.config.write_text(good.replace("[network]", "[network]\nsip_port = 5070"))
        os.kill(node.pid, signal.SIGHUP)
        eventually(lambda: "took its configuration; started again: kamailio" in node.log("sipward"))
        assert phone.status("sip:203.0.113.10:5070") == 200
        node.config.write_text(good.replace(str(node.state_dir), f"{node.state_dir}2"))
        os.kill(node.pid, signal.SIGHUP)
        eventually(lambda: "state_dir: this node runs in " in node.log("sipward"))
        node.config.write_text(good)


def test_an_address_that_moves_is_said_to_cost_running_calls_their_audio(own_lab: Lab) -> None:
    with Node(own_lab) as node, Asker(own_lab.phone("bob"), to="203.0.113.11") as phone:
        assert phone.status("sip:203.0.113.11", within=0.3) == 0
        answer = act(node, "configure-module", {"fqdn": "edge.example.net", "addresses": {"address": "203.0.113.11"}})
        assert answer.code == 0, answer
        assert "started again: rtp-store, rtpengine, kamailio" in answer.errors
        assert "no audio any more" in answer.errors
        assert phone.status("sip:203.0.113.11") == 200
        assert done(node, "get-configuration")["addresses"] == {"address": "203.0.113.11"}


def test_a_node_may_be_given_an_ipv6_address(own_lab: Lab) -> None:
    address = INTERNET.host(SECOND_NODE_ADDRESS)[1]
    with Node(own_lab) as node:
        done(node, "configure-module", {"fqdn": "edge.example.net", "addresses": {"address": address}})
        target = f"[{address}]:5060"
        sipp(own_lab.phone("bob"), "options-200", ipv6=True, to=target, keys={"target": f"sip:{target}"})
        assert done(node, "get-configuration")["addresses"] == {"address": address}


def test_behind_a_router_the_network_of_the_node_is_shown_as_local(own_lab: Lab) -> None:
    site, outside = SITE.host(NODE)[0], INTERNET.host(NODE)[0]
    with Node(own_lab, "nat") as node:
        assert done(node, "get-configuration") == {
            "fqdn": "edge.example.net",
            "lets_encrypt": False,
            "addresses": {"address": site, "public_address": outside},
            "service_network": {"address": SERVICE.host(1)[0], "netmask": "10.5.4.0/24"},
            "local_networks": [f"{LOCAL.v4}0/24", f"{SITE.v4}0/24"],
        }
        wanted = {"fqdn": "new.example.net", "addresses": {"address": site}, "local_networks": []}
        done(node, "configure-module", wanted)
        shown = done(node, "get-configuration")
        assert (shown["fqdn"], shown["addresses"], shown["local_networks"]) == (
            "new.example.net",
            {"address": site},
            [],
        )


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"fqdn": ""}, 10, "fqdn"),
        ({"addresses": {"public_address": "203.0.113.10"}}, 10, "addresses.address"),
        ({"addresses": {"address": "198.18.0.1"}}, 10, "addresses.address"),
        ({"service_network": {"address": "10.5.4.1", "netmask": "A"}}, 2, "service_network.netmask"),
        ({"local_networks": ["A"]}, 3, "local_networks.0"),
        ({"lets_encrypt": True}, 3, "lets_encrypt"),
    ],
    ids=str,
)
def test_a_configuration_that_is_refused_changes_neither_the_file_nor_the_node(
    fields: Mapping[str, object], code: int, field: str, node: Node
) -> None:
    before, pids = node.config.read_text(), node.processes()
    good = {"fqdn": "edge.example.net", "addresses": {"address": INTERNET.host(NODE)[0]}}
    ended, problems = refused(node, "configure-module", {**good, **fields})
    assert (ended, problems[0]["field"]) == (code, field)
    assert node.config.read_text() == before
    assert node.processes() == pids
    assert node.ready


def test_what_the_running_node_cannot_take_is_taken_back_and_calls_go_on(own_lab: Lab) -> None:
    with Node(own_lab) as node, Agent(own_lab.phone("bob")) as phone:
        before, pids = node.config.read_text(), node.processes()
        with node.machine.socket() as taker:
            taker.bind(("203.0.113.11", 5060))
            wanted = {"fqdn": "edge.example.net", "addresses": {"address": "203.0.113.11"}}
            ended, problems = refused(node, "configure-module", wanted)
        assert ended == 1
        assert "udp 203.0.113.11:5060 is in use by another program" in problems[0]["error"]
        assert node.config.read_text() == before
        assert node.processes() == pids
        assert "goes on with the configuration it had" in node.log("sipward")
        phone.begin("OPTIONS", "sip:203.0.113.10")
        phone.expect(200)
