"""Routes on the wire: what is written into Redis, by the command or by hand, is what the next call does."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.agent import Agent, answered_call
from lab.calls import expect_audio
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.probe import Answerer, Asker
from lab.redis import Hand
from lab.sipp import sipp
from sipward.live import decode, decode_trunk

from .conftest import Tenant

LIVE_WITHIN = 20.0
"""Seconds. A generous deadline for an edit; the figures are printed."""

METHODS = [
    *("INVITE", "REGISTER", "OPTIONS", "MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH", "REFER", "INFO", "UPDATE", "PRACK"),
    *("BYE", "WHATEVER"),
]

type Make = Callable[..., Tenant]


@pytest.fixture
def pbx2(lab: Lab) -> Machine:
    """A second instance on another host."""
    return lab.instance("pbx2")


@pytest.fixture
def hand(node: Node) -> Iterator[Hand]:
    with Hand(node.settings.redis_socket) as hand:
        yield hand


def uri(machine: Machine) -> str:
    return f"sip:{machine.address}:{machine.sip_port}"


def value(domain: str, *instances: str, **fields: object) -> str:
    return json.dumps({"domains": [domain], "instances": [{"uri": one} for one in instances], **fields})


def call(phone: Machine, instance: Machine, domain: str) -> None:
    """A call to the domain that this instance must take, with audio."""
    callee = sipp(instance, "call-answered", "uas")
    sipp(phone, "call-answered", keys={"domain": domain}, talk=1.1)
    callee.wait()
    expect_audio(phone, instance)


class ByCommand:
    """Edits with `sipward route`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def put(self, name: str, domain: str, *instances: Machine) -> None:
        chosen = [part for one in instances for part in ("--instance", uri(one))]
        self._done("route", "add", name, "--domain", domain, *chosen, "--replace")

    def remove(self, name: str) -> None:
        self._done("route", "rm", name)

    def _done(self, *arguments: str) -> None:
        answer = self._node.sipward(*arguments)
        assert answer.code == 0, answer


class ByHand:
    """Edits with redis-cli."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def put(self, name: str, domain: str, *instances: Machine) -> None:
        assert self._node.redis("SET", f"sipward:tenant:{name}", value(domain, *map(uri, instances))) == "OK"

    def remove(self, name: str) -> None:
        assert self._node.redis("DEL", f"sipward:tenant:{name}") == "1"


# --- an edit is live ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["pbx", "pbx_on_node"])
@pytest.mark.parametrize("edits", [ByCommand, ByHand])
def test_calls_follow_a_tenant_that_is_added_edited_and_removed(
    edits: type[ByCommand | ByHand],
    where: str,
    node: Node,
    bob: Machine,
    pbx2: Machine,
    request: pytest.FixtureRequest,
) -> None:
    first: Machine = request.getfixturevalue(where)
    name = f"{edits.__name__}-{where}".lower()
    domain = f"{edits.__name__}.{where.replace('_', '-')}.example".lower()
    edit = edits(node)
    sipp(bob, "unknown-tenant-404", keys={"domain": domain, "method": "INVITE"})
    edit.put(name, domain, first)
    eventually(lambda: node.live(domain), LIVE_WITHIN, "the tenant is live")
    call(bob, first, domain)
    edit.put(name, domain, pbx2)
    eventually(lambda: pbx2.address in node.live(domain), LIVE_WITHIN, "the new instance is live")
    call(bob, pbx2, domain)
    edit.remove(name)
    eventually(lambda: not node.live(domain), LIVE_WITHIN, "the tenant is gone")
    for method in ("INVITE", "REGISTER", "OPTIONS"):
        sipp(bob, "unknown-tenant-404", keys={"domain": domain, "method": method})


def test_a_running_call_stays_with_its_instance_when_the_tenant_moves_to_another(
    node: Node, phone: Agent, instance: Agent, pbx2: Machine, tenant: Make
) -> None:
    acme = tenant(instance.machine)
    target = f"sip:200@{acme.domain}"
    with Agent(pbx2) as other:
        running, _ = answered_call(phone, instance, target)
        node.put(acme.name, {"domains": [acme.domain], "instances": [{"uri": uri(pbx2)}]})
        new, _ = answered_call(phone, other, target)
        running.hang_up(instance)
        new.hang_up(other)


@pytest.mark.parametrize("hangs_up", ["caller", "callee"])
def test_a_running_call_ends_as_it_should_after_its_tenant_is_removed(
    hangs_up: str, node: Node, phone: Agent, instance: Agent, tenant: Make
) -> None:
    acme = tenant(instance.machine)
    ours, theirs = answered_call(phone, instance, f"sip:200@{acme.domain}")
    node.route_remove(acme.name)
    if hangs_up == "caller":
        ours.hang_up(instance)
    else:
        theirs.hang_up(phone)


def test_no_call_fails_while_routes_are_edited(
    node: Node, hand: Hand, bob: Machine, pbx: Machine, pbx2: Machine, tenant: Make
) -> None:
    acme = tenant(pbx)
    callees = [sipp(machine, "call-answered", "uas", calls=1000, timeout=60) for machine in (pbx, pbx2)]
    calls = sipp(bob, "call-answered", keys=acme.keys, calls=100, rate=20, talk=0.3, timeout=40, background=True)
    turns = itertools.cycle((pbx2, pbx))
    while calls.running:
        # Its own value changes all the time, and so do its neighbours.
        instance = next(turns)
        edit = ("SET", f"sipward:tenant:{acme.name}", value(acme.domain, uri(instance), redirect="pass"))
        assert hand.call(*edit) == "+OK"
        eventually(lambda: f'"{instance.address}"' in node.live(acme.domain), LIVE_WITHIN)  # noqa: B023
        assert hand.call("SET", "sipward:tenant:neighbour", value("neighbour.example", uri(instance))) == "+OK"
        assert hand.call("DEL", "sipward:tenant:neighbour")[0] == ":"
    calls.wait()
    taken = [len({m.call_id for m in bob.lab.wire.messages(machine=m.name, method="INVITE")}) for m in (pbx, pbx2)]
    assert sum(taken) == 100
    assert all(taken), f"both instances take calls in turn: {taken}"
    for callee in callees:
        callee.stop()


def test_every_edit_is_live_for_the_requests_that_follow(
    hand: Hand, bob: Machine, pbx: Machine, pbx2: Machine, tenant: Make
) -> None:
    acme = tenant(pbx)
    with Answerer(pbx), Answerer(pbx2), Asker(bob) as phone:
        for instance in (pbx2, pbx) * 20:
            assert hand.call("SET", f"sipward:tenant:{acme.name}", value(acme.domain, uri(instance))) == "+OK"
            eventually(lambda: phone.answered_by(f"sip:{acme.domain}") == instance.name, LIVE_WITHIN)  # noqa: B023


# --- finding the tenant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        "{0}",
        "{1}",
        "{0}.",
        "{0}:5060",
        "{0}:16060",
        "{1}.:5099",
        "{0};transport=udp",
        "200@{1}",
        "200@{0}.:5060;user=phone",
    ],
)
def test_a_domain_is_found_whatever_its_case_trailing_dot_and_port(
    written: str, bob: Machine, pbx: Machine, tenant: Make
) -> None:
    acme = tenant(pbx)
    with Answerer(pbx), Asker(bob) as phone:
        assert phone.answered_by("sip:" + written.format(acme.domain, acme.domain.upper())) == "pbx"


@pytest.mark.parametrize("written", ["FOLDED.Example.", "folded.example", "FOLDED.EXAMPLE"])
def test_a_domain_is_found_however_redis_writes_it(written: str, node: Node, bob: Machine, pbx: Machine) -> None:
    node.put("folded", {"domains": [written], "instances": [{"uri": uri(pbx)}]})
    with Answerer(pbx), Asker(bob) as phone:
        assert phone.answered_by("sip:folded.example") == "pbx"
    node.route_remove("folded")


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_domain_is_one_404_of_the_nodes_own_for_every_method(method: str, node: Node, bob: Machine) -> None:
    with Asker(bob) as phone:
        answers = list(phone.answers("sip:200@nobody.example", method, more=0.5))
        assert [answer.status for answer in answers] == [404]
    assert not bob.lab.wire.messages(machine="node", direction="out", requests=True)


# --- what is refused ----------------------------------------------------------------------------------------------

BAD_URIS = {
    "the node's own SIP port": ("sip:10.5.4.1:5060", "the node's own SIP port"),
    "the node's own SIP port over TCP": ("sip:10.5.4.1;transport=tcp", "the node's own SIP port"),
    "the node's own SIPS port": ("sip:10.5.4.1:5061", "the node's own SIP port"),
    "a media port of the node": ("sip:10.5.4.1:20001", "media ports"),
    "the control port": ("sip:127.0.0.1:2223", "must be inside network.service_networks"),
    "a public address of the node": ("sip:203.0.113.10:5080", "must be inside network.service_networks"),
    "a host outside the service networks": ("sip:192.0.2.1", "must be inside network.service_networks"),
    "loopback": ("sip:127.0.0.1:5080", "must be inside network.service_networks"),
    "loopback, IPv6": ("sip:[::1]:5080", "must be inside network.service_networks"),
    "everybody": ("sip:0.0.0.0:5080", "must be inside network.service_networks"),
    "a name": ("sip:pbx.example:5080", "must be sip:ADDRESS"),
    "a user": ("sip:200@10.5.4.11", "must be sip:ADDRESS"),
    "control characters": ("sip:10.5.4.11\r\nX: y", "must be sip:ADDRESS"),
}

BAD_VALUES = {
    "no JSON": ("{", "not JSON"),
    "nothing": ("", "not JSON"),
    "no table": ("[]", "table"),
    "an unknown field": (value("{domain}", "sip:10.5.4.11", colour="red"), "colour"),
    "a field twice": ('{"domains": [], "domains": [], "instances": []}', "twice"),
    "no instances": ('{"domains": ["{domain}"]}', "instances: missing"),
    "a number as text": (
        '{"domains": ["{domain}"], "instances": [{"uri": "sip:10.5.4.11", "weight": "5"}]}',
        "weight",
    ),
    "control characters": (
        '{"domains": ["{domain}"], "instances": [{"uri": "sip:10.5.4.11", "description": "a\\u0007b"}]}',
        "control characters",
    ),
    "control characters in a domain": ('{"domains": ["a\\nb.example"], "instances": []}', "host name"),
    "the node's own address as a domain": (value("203.0.113.10", "sip:10.5.4.11"), "an address of the node itself"),
    **{what: (value("{domain}", bad), reason) for what, (bad, reason) in BAD_URIS.items()},
}


class Spoilt:
    """A tenant that works, whose value in Redis is then spoilt by hand, and mended."""

    def __init__(self, node: Node, hand: Hand, acme: Tenant, phone: Asker) -> None:
        self._node, self._hand, self._acme, self._phone = node, hand, acme, phone
        self.key = f"sipward:tenant:{acme.name}"
        self._good = hand.call("GET", self.key)

    def expect_refused(self, reason: str) -> None:
        """The status names key and reason, and the last good value still routes."""
        eventually(lambda: reason in self._rejected().get(self.key, ""), LIVE_WITHIN, f"{self.key}: {reason}")
        assert self._node.ready
        assert self._phone.answered_by(f"sip:{self._acme.domain}") == "pbx"

    def mend(self) -> None:
        assert self._hand.call("DEL", self.key) == ":1"
        assert self._hand.call("SET", self.key, self._good) == "+OK"
        eventually(lambda: self.key not in self._rejected(), LIVE_WITHIN, "the status is clean again")
        eventually(lambda: self._phone.answered_by(f"sip:{self._acme.domain}") == "pbx", LIVE_WITHIN)

    def _rejected(self) -> dict[str, str]:
        return dict(self._node.status()["components"]["routes"]["rejected"])


@pytest.fixture
def spoilt(node: Node, hand: Hand, bob: Machine, pbx: Machine, tenant: Make) -> Iterator[Spoilt]:
    acme = tenant(pbx)
    with Answerer(pbx), Asker(bob) as phone:
        yield Spoilt(node, hand, acme, phone)


@pytest.mark.parametrize("what", BAD_VALUES)
def test_a_bad_value_by_hand_is_skipped_and_the_last_good_one_stays(what: str, spoilt: Spoilt, hand: Hand) -> None:
    bad, reason = BAD_VALUES[what]
    assert hand.call("SET", spoilt.key, bad.replace("{domain}", "spoilt.example")) == "+OK"
    spoilt.expect_refused(reason)
    spoilt.mend()


KINDS = {
    "a list": (("RPUSH", "{}"), "holds a list"),
    "a hash": (("HSET", "domains", "acme.example"), "holds a hash"),
    "a set": (("SADD", "{}"), "holds a set"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_the_wrong_type_is_skipped_and_the_last_good_value_stays(
    kind: str, spoilt: Spoilt, hand: Hand
) -> None:
    (command, *rest), reason = KINDS[kind]
    hand.pipeline([("MULTI",), ("DEL", spoilt.key), (command, spoilt.key, *rest), ("EXEC",)])
    for _ in range(2):  # what EXEC says of either
        hand.answer()
    spoilt.expect_refused(reason)
    spoilt.mend()


def test_a_value_of_a_megabyte_is_skipped_and_the_last_good_one_stays(spoilt: Spoilt, hand: Hand) -> None:
    huge = value("spoilt.example", "sip:10.5.4.11", redirect="x" * (1 << 20))
    assert hand.call("SET", spoilt.key, huge) == "+OK"
    spoilt.expect_refused("at most 65536")
    spoilt.mend()


def test_a_tenant_whose_first_value_is_bad_reaches_nobody_and_is_named(node: Node, hand: Hand, bob: Machine) -> None:
    key = "sipward:tenant:newcomer"
    assert hand.call("SET", key, value("newcomer.example", "sip:192.0.2.1")) == "+OK"
    eventually(lambda: key in node.status()["components"]["routes"]["rejected"], LIVE_WITHIN)
    with Asker(bob) as phone:
        assert phone.status("sip:newcomer.example") == 404
    assert key in node.sipward("status").output
    assert hand.call("DEL", key) == ":1"
    eventually(lambda: not node.status()["components"]["routes"]["rejected"], LIVE_WITHIN)


def test_a_bad_name_is_named_in_the_status(node: Node, hand: Hand, pbx: Machine) -> None:
    key = "sipward:tenant:No Such\x07Name"
    assert hand.call("SET", key, value("bad-name.example", uri(pbx))) == "+OK"
    eventually(lambda: key in node.status()["components"]["routes"]["rejected"], LIVE_WITHIN)
    assert not node.live("bad-name.example")
    assert "\x07" not in node.sipward("status").output
    assert hand.call("DEL", key) == ":1"
    eventually(lambda: not node.status()["components"]["routes"]["rejected"], LIVE_WITHIN)


REFUSED = {
    **{
        what: (["--domain", "new.example", "--instance", bad], reason)
        for what, (bad, reason) in BAD_URIS.items()
        if what in {"the node's own SIP port", "a media port of the node", "loopback", "control characters",
                    "a host outside the service networks"}
    },
    "an unknown field": (["--domain", "new.example", "--instance", "sip:10.5.4.11,colour=red"], "colour"),
    "a weight of nothing": (["--domain", "new.example", "--instance", "sip:10.5.4.11,weight=0"], "1 to 1000"),
    "control characters in a domain": (["--domain", "a\nb.example", "--instance", "sip:10.5.4.11"], "host name"),
    "another's domain": (["--domain", "TAKEN.example.", "--instance", "sip:10.5.4.11"], "belongs to tenant taken"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_the_command_refuses_a_bad_value_with_the_reason_and_writes_nothing(
    what: str, node: Node, hand: Hand, pbx: Machine
) -> None:
    arguments, reason = REFUSED[what]
    node.route_add("taken", ["taken.example"], [pbx])
    answer = node.sipward("route", "add", "newcomer", *arguments)
    assert answer.code == 2, answer
    assert reason in answer.errors
    assert "Traceback" not in answer.errors
    assert hand.call("EXISTS", "sipward:tenant:newcomer") == ":0"
    node.route_remove("taken")


def test_the_command_refuses_a_bad_name(node: Node, hand: Hand) -> None:
    answer = node.sipward("route", "add", "No Name", "--domain", "new.example", "--instance", "sip:10.5.4.11")
    assert (answer.code, hand.call("EXISTS", "sipward:tenant:No Name")) == (2, ":0"), answer
    assert "name" in answer.errors


def said_of(node: Node, name: str) -> str:
    """Why `route list` and `route show` say that a tenant's value is not used; empty when it is."""
    (listed,) = [one for one in json.loads(node.sipward("route", "list", "--json").output) if one["name"] == name]
    shown, reason = node.sipward("route", "show", name), str(listed.get("error", ""))
    assert (shown.code, shown.errors) == ((1, f"this value is not used: {reason}\n") if reason else (0, ""))
    return reason


def test_what_status_has_no_room_for_is_in_the_list(node: Node, hand: Hand, tenant: Make, pbx: Machine) -> None:
    acme = tenant(pbx)
    claimants = [f"crowd{number:02}" for number in range(60)]
    for name in claimants:
        assert hand.call("SET", f"sipward:tenant:{name}", value(acme.domain, uri(pbx))) == "+OK"
    eventually(lambda: node.status()["components"]["routes"]["rejected_total"] == len(claimants), LIVE_WITHIN)
    listed = json.loads(node.sipward("route", "list", "--json").output)
    reason = f"domains: {acme.domain} belongs to tenant {acme.name}"
    assert {one["name"]: one["error"] for one in listed if "error" in one} == dict.fromkeys(claimants, reason)
    assert "10 more; `sipward route list`, " in node.sipward("status").output
    assert said_of(node, claimants[-1]) == reason
    for name in claimants:
        assert hand.call("DEL", f"sipward:tenant:{name}") == ":1"
    eventually(lambda: not node.status()["components"]["routes"]["rejected_total"], LIVE_WITHIN)


def test_of_two_tenants_that_claim_a_domain_the_first_keeps_it_until_it_lets_go(
    node: Node, hand: Hand, bob: Machine, pbx: Machine, pbx2: Machine, tenant: Make
) -> None:
    first = tenant(pbx)
    key = "sipward:tenant:claimant"
    with Answerer(pbx), Answerer(pbx2), Asker(bob) as phone:
        assert hand.call("SET", key, value(first.domain, uri(pbx2))) == "+OK"
        rejected = eventually(lambda: node.status()["components"]["routes"]["rejected"].get(key), LIVE_WITHIN)
        assert rejected == f"domains: {first.domain} belongs to tenant {first.name}"
        assert said_of(node, "claimant") == rejected
        # The one that has it keeps it, whatever stands in Redis by now.
        assert hand.call("SET", f"sipward:tenant:{first.name}", "{") == "+OK"
        eventually(lambda: said_of(node, first.name).startswith("value: not JSON"), LIVE_WITHIN)
        assert said_of(node, "claimant") == rejected
        assert phone.answered_by(f"sip:{first.domain}") == "pbx"
        assert hand.call("DEL", f"sipward:tenant:{first.name}") == ":1"
        eventually(lambda: phone.answered_by(f"sip:{first.domain}") == "pbx2", LIVE_WITHIN, "the claimant has it")
        eventually(lambda: not node.status()["components"]["routes"]["rejected"], LIVE_WITHIN)
    node.route_remove("claimant")


def test_a_domain_moves_between_tenants_without_a_gap(
    node: Node, hand: Hand, bob: Machine, pbx: Machine, pbx2: Machine, tenant: Make
) -> None:
    old, new = tenant(pbx), tenant(pbx2)
    domain, statuses, done = old.domain, set[int](), threading.Event()

    def ask() -> None:
        with Asker(bob) as phone:
            while not done.is_set():
                statuses.add(phone.status(f"sip:{domain}"))

    with Answerer(pbx), Answerer(pbx2), Asker(bob) as phone:
        asking = threading.Thread(target=ask)
        asking.start()
        for taker, giver, instance in [(new, old, pbx2), (old, new, pbx)] * 5:
            both = json.dumps({"domains": [f"{taker.name}.own.example", domain], "instances": [{"uri": uri(instance)}]})
            rest = value(f"{giver.name}.own.example", uri(pbx))
            keys = [f"sipward:tenant:{one.name}" for one in (taker, giver)]
            hand.pipeline([("MULTI",), ("SET", keys[0], both), ("SET", keys[1], rest), ("EXEC",)])
            assert [hand.answer(), hand.answer()] == ["+OK", "+OK"]
            eventually(lambda: phone.answered_by(f"sip:{domain}") == instance.name, LIVE_WITHIN)  # noqa: B023
        done.set()
        asking.join()
    assert statuses == {200}


# --- where instances may live -------------------------------------------------------------------------------------


def test_an_instance_on_loopback_takes_calls_where_the_service_networks_list_it(own_lab: Lab) -> None:
    with Node(own_lab, settings={"network": {"service_networks": ["10.5.4.0/24", "127.0.0.0/8"]}}) as node:
        beside = Machine(
            "pbx-on-loopback", node.machine.namespace, ("127.0.0.1",), own_lab, (), (40000, 40999), 5080, "node"
        )
        refused = node.sipward("route", "add", "acme", "--domain", "acme.example", "--instance", "sip:127.0.0.1:2223")
        assert refused.code == 2, refused
        assert "control port" in refused.errors
        ByCommand(node).put("acme", "acme.example", beside)
        eventually(lambda: node.live("acme.example"), LIVE_WITHIN)
        call(own_lab.phone("bob"), beside, "acme.example")


def test_a_change_of_the_service_networks_ends_what_they_no_longer_allow(own_lab: Lab) -> None:
    pbx, phone = own_lab.instance("pbx"), own_lab.phone("bob")
    with Answerer(pbx), Asker(phone) as bob:
        with Node(own_lab) as node:
            node.route_add("acme", ["acme.example"], [pbx])
            assert bob.answered_by("sip:acme.example") == "pbx"
        with Node(own_lab, settings={"network": {"service_networks": ["10.5.5.0/24"]}}) as node:
            assert bob.status("sip:acme.example") == 404
            # It runs by the last good table at first, and has read Redis a moment later.
            routes = eventually(lambda: (r := node.status()["components"]["routes"])["rejected"] and r)
            assert "must be inside network.service_networks" in routes["rejected"]["sipward:tenant:acme"]


# --- numbers and trunks -------------------------------------------------------------------------------------------


def routes_of(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.status()["components"]["routes"]
    return found


def test_numbers_and_trunks_written_by_hand_are_live_and_counted_and_bad_ones_are_named(
    node: Node, hand: Hand, acme: Tenant, pbx: Machine
) -> None:
    block, own, carrier = "sipward:number:+390721405XX", "sipward:number:100@carrier", "sipward:trunk:carrier"
    instances = [{"uri": uri(pbx)}]
    hand.pipeline(
        [
            ("SET", block, json.dumps({"tenant": acme.name})),
            ("SET", own, json.dumps({"instances": instances, "exact": True})),
            ("SET", carrier, json.dumps({"addresses": ["198.51.100.0/24", "192.0.2.7:5070"], "tenants": [acme.name]})),
        ]
    )
    eventually(lambda: (routes_of(node)["numbers"], routes_of(node)["trunks"]) == (2, 1), LIVE_WITHIN)
    assert node.live("#+390721405XX") == f"@{acme.name}"
    assert node.live("#+39100@carrier") == "=@#+39100@carrier"
    assert pbx.address in node.live("@#+39100@carrier")
    assert {"#+39100@carrier", acme.name} <= set(node.live(f"^{pbx.address}").split())
    assert node.live("%udp:198.51.100.0/24") == node.live(">192.0.2.7") == "carrier"
    assert '["udp","192.0.2.7",5070]' in node.live("%carrier")
    assert "2 numbers, 1 trunks" in node.sipward("status").output
    hand.pipeline(
        [
            ("SET", block, json.dumps({"tenant": "A"})),
            ("SET", "sipward:number:07-21", json.dumps({"tenant": acme.name})),
            ("SET", carrier, json.dumps({"addresses": [pbx.address], "tenants": ["*"]})),
        ]
    )
    eventually(lambda: routes_of(node)["rejected_total"] == 3, LIVE_WITHIN)
    rejected = routes_of(node)["rejected"]
    assert "must be a tenant's name" in rejected[block]
    assert "must be 1 to 32 digits or X" in rejected["sipward:number:07-21"]
    assert "must not reach into network.service_networks" in rejected[carrier]
    assert f"not used: {carrier}: " in node.sipward("status").output
    assert node.live("#+390721405XX") == f"@{acme.name}"
    assert '["udp","192.0.2.7",5070]' in node.live("%carrier")
    assert hand.call("DEL", block, own, carrier, "sipward:number:07-21") == ":4"
    eventually(lambda: not routes_of(node)["numbers"] and not routes_of(node)["rejected_total"], LIVE_WITHIN)
    assert node.live(f"^{pbx.address}") == acme.name
    assert not any(
        map(node.live, ("#+390721405XX", "@#+39100@carrier", "%carrier", "%udp:198.51.100.0/24", ">192.0.2.7"))
    )


# --- large --------------------------------------------------------------------------------------------------------

LONG = "n" * 64
LONG_DOMAIN = f"{'.'.join(['d' * 60] * 4)}.example"


def far_instances(count: int = 100) -> list[dict[str, object]]:
    hosts = (f"2001:db8:ffff:ffff:ffff:ffff:ffff:{n + 0x1000:x}" for n in range(count))
    return [
        {"uri": f"sip:[{host}]:65535;transport=tcp", "weight": 1000, "priority": 100, "description": "\u00fc" * 200}
        for host in hosts
    ]


def test_the_largest_values_are_whole_in_the_live_table_and_in_its_answers(own_lab: Lab) -> None:
    networks = {"service_networks": ["10.5.4.0/24", "2001:db8:ffff::/48"]}
    limits = dict.fromkeys(("calls", "calls_per_second", "registrations_per_second"), 100_000)
    names = [f"{n:03}{'n' * 61}" for n in range(960)]
    addresses = [f"[2001:db8:eeee:eeee:eeee:eeee:eeee:{n + 0x1000:x}]:65535" for n in range(20)]
    last = {"uri": "sip:10.5.4.11", "priority": 100}
    hosts = [f"{n:02}.{'h' * 63}.example" for n in range(100)]
    values = {
        f"tenant:{LONG}": {"domains": [LONG_DOMAIN], "instances": far_instances(), "limits": limits},
        "tenant:all": {"domains": [f"d{n:03}.example" for n in range(1000)], "instances": [
            *({"uri": f"sip:10.5.4.12:{10000 + n}", "drain": True} for n in range(99)), last,
        ]},
        f"number:+{'1' * 32}@{LONG}": {"instances": far_instances()},
        f"trunk:{LONG}": {"addresses": addresses[:1], "tenants": names, "limits": limits},
        "trunk:all": {"addresses": addresses, "tenants": ["*"], "hosts": hosts},
    }  # fmt: skip
    pbx, bob = own_lab.instance("pbx"), own_lab.phone("bob")
    with Node(own_lab, settings={"network": networks}) as node, Hand(node.settings.redis_socket) as hand:
        for name, fields in values.items():
            raw = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
            assert hand.call("SET", f"sipward:{name}", raw) == "+OK"
        for n in range(60):
            key = f"{n:02}" + '\\"' * 500
            assert hand.call("SET", f"sipward:tenant:{key}", json.dumps({"\u00fc" * 200: 1})) == "+OK"
        routes = eventually(lambda: (found := routes_of(node))["rejected_total"] >= 60 and found, LIVE_WITHIN)
        assert (routes["tenants"], routes["numbers"], routes["trunks"]) == (2, 1, 2), routes
        assert 0 < len(routes["rejected"]) < 60
        for key in (f"@{LONG}", LONG_DOMAIN, f"@#+{'1' * 32}@{LONG}"):
            assert len(decode(node.live(key)).instances) == 100
        assert decode_trunk(node.live(f"%{LONG}")).tenants == tuple(names)
        assert len(decode_trunk(node.live("%all")).targets) == 20
        with Answerer(pbx), Asker(bob) as phone:
            assert phone.answered_by("sip:d999.example") == "pbx"
