"""Nobody relays through us: what comes from outside reaches an instance of its own tenant, or nobody at all.

Every attack has its control: a call of another tenant before and after it. Nothing but the answer may leave the node.
"""

import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from lab.agent import Agent, Talk, answered_call, registered
from lab.network import Lab
from lab.node import Node
from lab.packets import Address

from .conftest import Tenant

METHODS = pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "BYE"])


@pytest.fixture
def mallory(lab: Lab) -> Iterator[Agent]:
    """Somebody who should not get anywhere."""
    with Agent(lab.attacker()) as agent:
        yield agent


@pytest.fixture
def victim(lab: Lab) -> Iterator[Agent]:
    """Somebody outside who would have to pay for the call."""
    with Agent(lab.carrier()) as agent:
        yield agent


@pytest.fixture(autouse=True)
def control(lab: Lab, node: Node, tenant: Callable[..., Tenant], clean_wire: None) -> Iterator[None]:
    """A legitimate call of another tenant, before and after."""
    other = tenant(lab.instance("other-pbx"))

    def call() -> None:
        with Agent(lab.phone("control")) as caller, Agent(lab.instance("other-pbx")) as callee:
            ours, _ = answered_call(caller, callee, f"sip:200@{other.domain}")
            ours.hang_up(callee)

    call()
    yield
    call()


class Watch:
    """What the node sends from a moment on."""

    def __init__(self, lab: Lab) -> None:
        self._wire = lab.wire
        self.begin()

    def begin(self) -> None:
        """From now on."""
        self._wire.clear()

    def elsewhere(self, *allowed: Agent) -> list[str]:
        """What went to anybody but these, on any cable and on the node's loopback."""
        hosts = {agent.host for agent in allowed}
        sent = [s for s in self._wire.sent("node") if s.destination.host not in hosts]
        looped = self._wire.messages(machine="node", direction="lo")
        return [f"{s.destination}: {s.data[:60]!r}" for s in sent] + [str(m) for m in looped]

    def refused(self, agent: Agent, *allowed: Agent, by: tuple[int, ...] = (404,)) -> None:
        """The agent is refused, once, and nobody else hears anything."""
        answer = agent.receive()
        while answer.status == 100:
            answer = agent.receive()
        assert answer.status in by, answer.text
        if answer.method == "INVITE":
            agent.acknowledge(answer)
        agent.expect_silence(0.1)
        assert not self.elsewhere(agent, *allowed)


@pytest.fixture
def watch(lab: Lab, control: None) -> Watch:
    return Watch(lab)


def in_dialog(talk: Talk, agent: Agent, **changes: object) -> Talk:
    """The same dialog, claimed by another agent."""
    return replace(talk, agent=agent, contact=f"<{agent.contact('x')}>", branches={}, **changes)  # type: ignore[arg-type]


def mangled(route: str) -> str:
    """A Route of ours with one character of its sealed parameter changed."""
    return re.sub(r"(;sw=.{9})(.)", lambda m: m[1] + ("A" if m[2] != "A" else "B"), route)


# --- without a dialog ------------------------------------------------------------------------------------------------


@METHODS
@pytest.mark.parametrize(
    "uri",
    [
        "sip:0900@203.0.113.20",
        "sip:0900@carrier.example",
        "sip:0900@203.0.113.20;maddr=203.0.113.20",
        "sip:0900@nobody.example;received=sip:203.0.113.20:5060",
        "sip:0900@nobody.example;alias=203.0.113.20~5060~1",
        "sip:0900@nobody.example;maddr=10.5.4.11",
        "sip:200@10.5.4.11",
        "sip:200@10.5.4.11:5060;transport=udp",
        "sip:200@10.5.4.1:5080",
        "sip:200@127.0.0.1:2223",
        "sip:200@[::1]:5060",
        "sip:200@localhost",
        "sip:200@203.0.113.10:5060",
        "sip:200@edge.example.net",
        "sip:200@203.0.113.10;maddr=203.0.113.20",
        "sip:200%4010.5.4.11@203.0.113.20",
    ],
)
@pytest.mark.usefixtures("acme", "instance", "victim")
@pytest.mark.may_show("10.5.4.")
def test_a_request_uri_of_nobodys_leads_nowhere(method: str, uri: str, mallory: Agent, watch: Watch) -> None:
    mallory.begin(method, uri, body=mallory.sdp() if method == "INVITE" else "")
    watch.refused(mallory)


@METHODS
@pytest.mark.parametrize(
    "routes",
    [
        ["<sip:203.0.113.20;lr>"],
        ["<sip:127.0.0.1:2223;lr>"],
        ["<sip:10.5.4.11:5060;lr>"],
        ["<sip:203.0.113.10:5060;lr>", "<sip:203.0.113.20;lr>"],
        ["<sip:203.0.113.10:5060;lr>", "<sip:10.5.4.12:5060;lr>", "<sip:203.0.113.20;lr>"],
        ["<sip:edge.example.net;lr>", "<sip:127.0.0.1:6379;transport=tcp;lr>"],
        ["<sip:203.0.113.10:5060>", "<sip:203.0.113.20>"],
        ["<sip:203.0.113.10:5060;lr;sw=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA>", "<sip:203.0.113.20;lr>"],
    ],
)
@pytest.mark.usefixtures("acme", "instance", "victim")
@pytest.mark.may_show("10.5.4.")
def test_preloaded_routes_lead_nowhere(method: str, routes: list[str], mallory: Agent, watch: Watch) -> None:
    mallory.begin(method, "sip:0900@carrier.example", routes=routes)
    watch.refused(mallory)


@pytest.mark.parametrize(
    "routes",
    [
        ["<sip:203.0.113.20;lr>"],
        ["<sip:127.0.0.1:2223;lr>"],
        ["<sip:203.0.113.10:5060;lr>", "<sip:10.5.4.12:5060;lr>"],
        ["<sip:203.0.113.10:5060;lr>", "<sip:203.0.113.20;lr>", "<sip:203.0.113.20:5061>"],
    ],
)
@pytest.mark.parametrize(
    "params", ["", ";maddr=203.0.113.20", ";received=sip:203.0.113.20", ";alias=203.0.113.20~5060~1"]
)
@pytest.mark.usefixtures("victim")
def test_a_request_for_a_tenant_goes_to_its_instance_whatever_its_routes_say(
    routes: list[str], params: str, mallory: Agent, instance: Agent, acme: Tenant, watch: Watch
) -> None:
    mallory.begin("MESSAGE", f"sip:200@{acme.domain}{params}", routes=routes)
    request = instance.expect("MESSAGE")
    assert not request.headers("Route")
    instance.reply(request, 200, tag="i")
    mallory.expect(200)
    assert not watch.elsewhere(mallory, instance)


def test_a_phones_registered_contact_cannot_be_called_from_outside(
    mallory: Agent, phone: Agent, instance: Agent, acme: Tenant, watch: Watch
) -> None:
    bound = registered(phone, instance, acme.domain)
    outer = re.sub(r"@[^;]+", f"@{mallory.node}", bound)
    for uri in (bound, outer, re.sub(r"@[^;]+", f"@{acme.domain}", bound)):
        watch.begin()
        mallory.begin("INVITE", uri, body=mallory.sdp())
        if acme.domain in uri:  # that is a call to the tenant, and the parameter says nothing
            request = instance.expect("INVITE")
            instance.reply(request, 404, tag="i")
            instance.expect("ACK")
        watch.refused(mallory, instance, by=(404,))
        phone.expect_silence(0.1)


def test_hops_run_out(mallory: Agent, acme: Tenant, watch: Watch) -> None:
    request = mallory.compose(
        f"OPTIONS sip:200@{acme.domain}",
        ["From: <sip:x@x.example>;tag=1", f"To: <sip:200@{acme.domain}>", "Call-ID: hops", "CSeq: 1 OPTIONS"],
    )
    mallory.send(request.replace("Max-Forwards: 70", "Max-Forwards: 0"))
    watch.refused(mallory, by=(483,))


# --- with a forged or stolen dialog ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["INVITE", "BYE", "INFO", "MESSAGE", "REFER", "ACK"])
@pytest.mark.parametrize(
    "routes",
    [
        [],
        ["<sip:203.0.113.10:5060;lr>"],
        ["<sip:203.0.113.10:5060;lr;sw=>"],
        ["<sip:203.0.113.10:5060;lr;sw=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA>"],
        ["<sip:203.0.113.10:5060;lr>", "<sip:203.0.113.20;lr>"],
        ["<sip:203.0.113.20;lr>"],
        ["<sip:10.5.4.11;lr>"],
    ],
)
@pytest.mark.usefixtures("instance", "victim")
@pytest.mark.may_show("10.5.4.")
def test_a_forged_to_tag_opens_nothing(
    method: str, routes: list[str], mallory: Agent, acme: Tenant, watch: Watch
) -> None:
    talk = Talk(
        mallory, "<sip:x@x.example>;tag=1", "<sip:0900@carrier.example>;tag=2", f"forged-{method}-{len(routes)}",
        f"sip:0900@{acme.domain if len(routes) % 2 else '203.0.113.20'}", routes, "<sip:x@203.0.113.66>",
    )  # fmt: skip
    talk.send(method, cseq=1)
    if method == "ACK":
        mallory.expect_silence()
        assert not watch.elsewhere()
    else:
        watch.refused(mallory, by=(481,))


@pytest.mark.parametrize("method", ["BYE", "INVITE", "INFO", "ACK"])
def test_a_stolen_route_is_of_no_use(
    method: str, mallory: Agent, phone: Agent, instance: Agent, acme: Tenant, watch: Watch
) -> None:
    ours, theirs = answered_call(phone, instance, f"sip:200@{acme.domain}")
    attempts = {
        "from another address": (in_dialog(ours, mallory), 403),
        "for another call": (in_dialog(ours, mallory, call_id="another"), 481),
        "from the phone for another call": (in_dialog(ours, phone, call_id="another"), 481),
        "altered": (in_dialog(ours, phone, routes=[mangled(ours.routes[0])]), 481),
        "cut off": (in_dialog(ours, phone, routes=[ours.routes[0].split(";sw=")[0] + ";lr>"]), 481),
        "the other side's, from outside": (in_dialog(theirs, mallory), 403),
    }
    for what, (talk, code) in attempts.items():
        watch.begin()
        talk.send(method, cseq=7)
        if method == "ACK":
            talk.agent.expect_silence(0.15)
            assert not watch.elsewhere(), what
        else:
            watch.refused(talk.agent, by=(code,))
    instance.expect_silence(0.1)
    theirs.hang_up(phone)


def test_a_dialogs_route_leads_to_its_ends_whatever_the_request_uri_says(
    phone: Agent, instance: Agent, victim: Agent, acme: Tenant, watch: Watch
) -> None:
    ours, theirs = answered_call(phone, instance, f"sip:200@{acme.domain}")
    watch.begin()
    for uri in ("sip:0900@203.0.113.20", "sip:200@127.0.0.1:2223", "sip:200@10.5.4.12;maddr=203.0.113.20"):
        claimed = replace(ours, target=uri, routes=[*ours.routes, "<sip:203.0.113.20;lr>"])
        claimed.send("INFO", cseq=ours.cseq + 1)
        ours.cseq += 1
        info = instance.expect("INFO")
        assert not info.headers("Route")
        instance.reply(info, 200)
        phone.expect(200)
    victim.expect_silence(0.1)
    assert not watch.elsewhere(phone, instance)
    theirs.hang_up(phone)


def test_a_cancel_of_anothers_call_ends_nothing(
    mallory: Agent, phone: Agent, instance: Agent, acme: Tenant, watch: Watch
) -> None:
    ours = phone.begin("INVITE", f"sip:200@{acme.domain}", body=phone.sdp())
    invite = instance.expect("INVITE")
    instance.reply(invite, 180, tag="i")  # one that has rung is not asked again by a timer
    phone.expect(180)
    watch.begin()
    in_dialog(ours, mallory).send("CANCEL", cseq=1)
    watch.refused(mallory, phone, by=(481,))
    instance.reply(invite, 486, tag="i")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(486))


# --- from where nobody may speak -------------------------------------------------------------------------------------


@METHODS
def test_a_forged_service_address_on_the_outside_socket_is_nobody(
    method: str, mallory: Agent, phone: Agent, instance: Agent, acme: Tenant, watch: Watch, lab: Lab
) -> None:
    bound = registered(phone, instance, acme.domain)
    watch.begin()
    forger = lab.attacker().socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for uri in (bound, f"sip:200@{acme.domain}", "sip:0900@203.0.113.20"):
        fields = ["From: <sip:x@x.example>;tag=1", f"To: <{uri.partition(';')[0]}>", f"Call-ID: spoof-{len(uri)}"]
        via = f"SIP/2.0/UDP {instance.hostport};branch=z9hG4bKspoof{len(uri)}{method}"
        text = mallory.compose(f"{method} {uri}", [*fields, f"CSeq: 1 {method}"], via=via)
        forger.sendto(_datagram(Address(instance.host, 5060), mallory.node, text.encode()), (mallory.node.host, 0))
        instance.expect(403)
    forger.close()
    phone.expect_silence(0.1)
    assert not watch.elsewhere(instance)


@METHODS
@pytest.mark.may_show("10.5.4.")
def test_an_outsider_on_the_service_socket_is_nobody(
    method: str, phone: Agent, instance: Agent, acme: Tenant, watch: Watch, lab: Lab
) -> None:
    bound = registered(phone, instance, acme.domain)
    watch.begin()
    lab.attacker().run(["ip", "route", "replace", "10.5.4.1", "via", "203.0.113.10"])
    with Agent(lab.attacker(), port=5070, to=Address("10.5.4.1", 5060)) as intruder:
        for uri in (bound, f"sip:200@{acme.domain}", "sip:0900@203.0.113.20"):
            intruder.begin(method, uri)
            watch.refused(intruder, by=(403,))
        intruder.begin("OPTIONS", f"sip:{intruder.node}")
        watch.refused(intruder, by=(403,))
    phone.expect_silence(0.1)


@METHODS
def test_an_unknown_host_of_the_service_network_is_nobody(
    method: str, phone: Agent, instance: Agent, victim: Agent, acme: Tenant, watch: Watch, lab: Lab
) -> None:
    bound = registered(phone, instance, acme.domain)
    watch.begin()
    with Agent(lab.instance("stranger")) as stranger:
        for uri in (bound, f"sip:200@{acme.domain}", "sip:0900@203.0.113.20", "sip:200@127.0.0.1:2223"):
            stranger.begin(method, uri, routes=[stranger.route])
            watch.refused(stranger, by=(403,))
    phone.expect_silence(0.1)
    victim.expect_silence(0.1)


@METHODS
@pytest.mark.parametrize("uri", ["sip:0900@203.0.113.20", "sip:0900@carrier.example;maddr=203.0.113.20"])
@pytest.mark.usefixtures("acme")
def test_an_instance_reaches_nobody_outside_but_its_phones(
    method: str, uri: str, instance: Agent, victim: Agent, watch: Watch
) -> None:
    instance.begin(method, uri, routes=[instance.route, "<sip:203.0.113.20;lr>"])
    watch.refused(instance, by=(403,))
    victim.expect_silence(0.1)


def _datagram(source: Address, destination: Address, data: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram in it, from whomever; the kernel fills in the checksum of the header."""
    udp = struct.pack("!HHHH", source.port, destination.port, 8 + len(data), 0) + data
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    return head + socket.inet_aton(source.host) + socket.inet_aton(destination.host) + udp
