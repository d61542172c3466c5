"""Phones are reached over the flow that registered (RFC 5626), and keep it alive; nobody else reaches them."""

import os
import re
import socket
import time
from collections.abc import Callable

import pytest

from lab.agent import Agent, Talk, registered
from lab.eventually import PATIENCE, eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.packets import Address
from lab.sip import Message
from lab.sipp import Transport

from .conftest import Tenant

TRANSPORTS = pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
WHO = pytest.mark.parametrize("who", ["bob", "alice", "rob"])
ROUTES = pytest.mark.parametrize("routed", [True, False], ids=["outbound-proxy", "no-route"])


def contacts(message: Message) -> list[str]:
    """All Contact values."""
    return [value.strip() for text in message.headers("Contact") for value in text.split(",")]


def register(
    phone: Agent, registrar: Agent, domain: str, values: list[str], known: list[str] | None = None
) -> tuple[list[str], list[str]]:
    """Register with these Contact values: those the registrar got, and those the phone got back.

    `known`: what the registrar lists in its 200 beside the new ones.
    """
    phone.begin("REGISTER", f"sip:{domain}", domain=domain, contact=", ".join(values))
    request = registrar.expect("REGISTER")
    got = contacts(request)
    registrar.reply(request, 200, tag="r", contact=", ".join([*(known or []), *(c for c in got if c != "*")]) or "")
    return got, contacts(phone.expect(200))


# --- reached -----------------------------------------------------------------------------------------------------


@TRANSPORTS
@WHO
@ROUTES
def test_a_registered_phone_is_called_and_hung_up_from_either_side(
    routed: bool, who: str, transport: Transport, instance: Agent, acme: Tenant, request: pytest.FixtureRequest
) -> None:
    with Agent(request.getfixturevalue(who), transport) as phone:
        own = phone.contact("alice")
        bound = registered(phone, instance, acme.domain)
        for hangs_up in ("instance", "phone"):
            ours = instance.begin(
                "INVITE", bound, body=instance.sdp(), routes=[instance.route] if routed else [], domain=acme.domain
            )
            invite = phone.expect("INVITE")
            assert invite.uri == own
            theirs = Talk.answering(phone, invite, "phone")
            phone.reply(invite, 180, tag="phone")
            instance.expect(180)
            phone.reply(invite, 200, tag="phone", body=phone.sdp())
            ours.learn(instance.expect(200)).ack()
            assert phone.expect("ACK").uri == theirs.contact.strip("<>")
            if hangs_up == "instance":
                ours.hang_up(phone)
            else:
                theirs.hang_up(instance)


@TRANSPORTS
@WHO
@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "NOTIFY"])
def test_a_request_outside_a_dialog_reaches_the_phone(
    method: str, who: str, transport: Transport, instance: Agent, acme: Tenant, request: pytest.FixtureRequest
) -> None:
    with Agent(request.getfixturevalue(who), transport) as phone:
        bound = registered(phone, instance, acme.domain)
        instance.begin(method, bound, routes=[instance.route], domain=acme.domain)
        got = phone.expect(method)
        assert got.uri == phone.contact("alice")
        phone.reply(got, 200, tag="p")
        instance.expect(200)


@TRANSPORTS
def test_a_phone_that_answers_a_notify_after_four_seconds_is_not_a_408(
    transport: Transport, bob: Machine, instance: Agent, acme: Tenant
) -> None:
    with Agent(bob, transport) as phone:
        bound = registered(phone, instance, acme.domain)
        instance.begin("NOTIFY", bound, domain=acme.domain)
        notify = phone.expect("NOTIFY")
        time.sleep(4.0)
        phone.reply(notify, 200, tag="p")
        instance.expect(200)


def test_a_phone_behind_a_nat_is_answered_though_it_asks_for_no_rport(
    alice: Machine, instance: Agent, acme: Tenant
) -> None:
    with Agent(alice) as phone:
        fields = ["From: <sip:a@a.example>;tag=1", f"To: <sip:200@{acme.domain}>", f"Call-ID: rport-{time.time_ns():x}"]
        via = f"SIP/2.0/UDP {phone.hostport};branch=z9hG4bKnorport"
        phone.send(phone.compose(f"MESSAGE sip:200@{acme.domain}", [*fields, "CSeq: 1 MESSAGE"], via=via))
        instance.reply(instance.expect("MESSAGE"), 200, tag="i")
        phone.expect(200)
        phone.send(phone.compose("MESSAGE sip:200@nobody.example", [*fields, "CSeq: 2 MESSAGE"], via=f"{via}2"))
        phone.expect(404)


# --- registered ---------------------------------------------------------------------------------------------------


@TRANSPORTS
@WHO
def test_a_phone_gets_its_own_contacts_back(
    who: str, transport: Transport, instance: Agent, acme: Tenant, request: pytest.FixtureRequest
) -> None:
    with Agent(request.getfixturevalue(who), transport) as phone:
        first = f'"Al, ice" <{phone.contact("alice")};ob>;expires=60;+sip.instance="<urn:uuid:0-1>";reg-id=1'
        second = f"<sip:alice@{phone.hostport};line=2>;q=0.5;expires=60"
        third = f"<sips:{phone.hostport}>;expires=60"
        phone.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain, contact=f"{first}, {second}, {third}")
        wanted = instance.expect("REGISTER")
        inner = wanted.header("Contact")
        assert inner.count(";sw=") == 3
        assert inner.count(f"@{instance.node}") == 2
        assert phone.host not in inner
        assert '+sip.instance="<urn:uuid:0-1>";reg-id=1' in inner
        instance.reply(wanted, 200, tag="r", contact=inner)
        back = phone.expect(200).header("Contact")
        assert re.sub(r"\s", "", back) == re.sub(r"\s", "", f"{first}, {second}, {third}")
        for uri, own in zip(re.findall(r"<(sip:[^>]+)>", inner), (first, second, third), strict=True):
            instance.begin("OPTIONS", uri, domain=acme.domain)
            got = phone.expect("OPTIONS")
            assert f"<{got.uri}>" in own
            phone.reply(got, 200, tag="p")
            instance.expect(200)


def test_phones_of_one_user_each_get_their_own_contact_back(
    alice: Machine, rob: Machine, bob: Machine, instance: Agent, acme: Tenant
) -> None:
    # alice and rob have the same address in their networks, so the same Contact too.
    with Agent(alice) as first, Agent(rob) as second, Agent(bob) as third:
        known: list[str] = []
        for phone in (first, second, third, first, second):
            own = f"<{phone.contact('alice')}>;expires=60"
            got, back = register(phone, instance, acme.domain, [own], [])
            assert back == [own]
            known += [] if got[0] in known else got
        assert len(known) == 3
        for phone in (first, second, third):
            own = f"<{phone.contact('alice')}>;expires=60"
            phone.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain, contact=own)
            instance.reply(instance.expect("REGISTER"), 200, tag="r", contact=", ".join(known))
            assert contacts(phone.expect(200)) == [own]
        for phone, bound in zip((first, second, third), known, strict=True):
            instance.begin("MESSAGE", bound.partition(">")[0].strip("<"), domain=acme.domain)
            phone.reply(phone.expect("MESSAGE"), 200, tag="p")
            instance.expect(200)


def test_a_phone_registers_again_under_the_same_contact_and_unregisters(
    alice: Machine, instance: Agent, acme: Tenant
) -> None:
    with Agent(alice) as phone:
        uri = phone.contact("alice")
        first, back = register(phone, instance, acme.domain, [f"<{uri}>;expires=60"])
        assert back == [f"<{uri}>;expires=60"]
        # The registrar must see one binding and not two.
        again, _ = register(phone, instance, acme.domain, [f"<{uri}>;expires=90"])
        assert again == [first[0].replace("=60", "=90")]
        gone, _ = register(phone, instance, acme.domain, [f"<{uri}>;expires=0"])
        assert gone == [first[0].replace("=60", "=0")]


def test_a_phone_removes_all_its_contacts_by_a_star(phone: Agent, instance: Agent, acme: Tenant) -> None:
    phone.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain, contact="*", headers=["Expires: 0"])
    request = instance.expect("REGISTER")
    assert (request.header("Contact"), request.header("Expires")) == ("*", "0")
    instance.reply(request, 200, tag="r")
    assert not phone.expect(200).headers("Contact")


def test_a_phone_asks_for_its_contacts_without_one(phone: Agent, instance: Agent, acme: Tenant) -> None:
    own = f"<{phone.contact('alice')}>;expires=60"
    got, _ = register(phone, instance, acme.domain, [own])
    fields = [f"From: <sip:alice@{acme.domain}>;tag=1", f"To: <sip:alice@{acme.domain}>", "Call-ID: ask-1"]
    phone.send(phone.compose(f"REGISTER sip:{acme.domain}", [*fields, "CSeq: 1 REGISTER"]))
    request = instance.expect("REGISTER")
    assert not request.headers("Contact")
    instance.reply(request, 200, tag="r", contact=got[0])
    assert contacts(phone.expect(200)) == [own]


# --- not reached --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "OPTIONS", "NOTIFY"])
@pytest.mark.parametrize("end", ["closed", "reset"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_request_to_a_phone_whose_connection_is_gone_fails_at_once(
    transport: Transport, method: str, end: str, node: Node, alice: Machine, instance: Agent, acme: Tenant
) -> None:
    with Agent(alice, transport) as phone:
        bound = registered(phone, instance, acme.domain)
        place = _place(phone)
        if end == "reset":
            phone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: not node.is_connected(place))
    instance.begin(method, bound, body=instance.sdp() if method == "INVITE" else "", domain=acme.domain)
    refusal = instance.expect(430)
    # At once: what would have taken its time was not even tried.
    assert not _is_tried(alice.lab, place)
    if method == "INVITE":
        instance.acknowledge(refusal)
    instance.expect_silence(0.7)


def test_no_connection_is_opened_to_a_phone_whose_own_is_gone(
    node: Node, bob: Machine, instance: Agent, acme: Tenant
) -> None:
    with Agent(bob, "tcp") as phone:
        bound = registered(phone, instance, acme.domain)
        place = _place(phone)
        phone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: not node.is_connected(place))
    # Whoever has got the address by now is somebody else.
    with bob.socket(socket.AF_INET, socket.SOCK_STREAM) as stranger:
        stranger.bind(place)
        stranger.listen()
        instance.begin("MESSAGE", bound, domain=acme.domain)
        instance.expect(430)
        assert not _is_tried(bob.lab, place)


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "OPTIONS", "NOTIFY"])
@pytest.mark.parametrize("where", ["other-pbx", "pbx-on-node"])
def test_another_tenants_instance_cannot_use_a_phones_contact(
    method: str, where: str, lab: Lab, instance: Agent, phone: Agent, acme: Tenant, tenant: Callable[..., Tenant]
) -> None:
    machine = lab.instance_on_node(where) if where == "pbx-on-node" else lab.instance(where)
    tenant(machine)
    bound = registered(phone, instance, acme.domain)
    with Agent(machine) as foreign:
        foreign.begin(method, bound, routes=[foreign.route], body=foreign.sdp() if method == "INVITE" else "")
        refusal = foreign.expect(403)
        if method == "INVITE":
            foreign.acknowledge(refusal)
    phone.expect_silence(0.2)


@TRANSPORTS
@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_another_tenants_instance_on_the_same_machine_cannot_use_a_phones_contact(
    method: str, transport: Transport, lab: Lab, phone: Agent, tenant: Callable[..., Tenant]
) -> None:
    mine, theirs = lab.instance_on_node("pbx-on-node"), lab.instance_on_node("second-on-node")
    acme = tenant(mine)
    tenant(theirs)
    with Agent(mine) as instance, Agent(theirs, transport) as foreign:
        bound = registered(phone, instance, acme.domain)
        foreign.begin(
            method,
            bound,
            contact=f"<sip:x@{theirs.address}:{theirs.sip_port}>",
            body=foreign.sdp() if method == "INVITE" else "",
        )
        refusal = foreign.expect(403)
        if method == "INVITE":
            foreign.acknowledge(refusal)
    phone.expect_silence(0.2)


# --- kept alive ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_keepalive_over_a_connection_is_answered_by_one_crlf(
    transport: Transport, ipv6: bool, node: Node, bob: Machine
) -> None:
    with Agent(bob, transport, ipv6=ipv6) as phone:
        for _ in range(3):
            phone.send(b"\r\n\r\n")
            phone.socket.settimeout(PATIENCE)
            assert phone.socket.recv(100) == b"\r\n"
        phone.begin("OPTIONS", f"sip:{phone.node}")
        phone.expect(200)
        with pytest.raises(TimeoutError):
            phone.receive(0.2)


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"\r\n", b"\0", b"\0\0\0\0", b"", b"\xff" * 4, b"jaK"])
def test_a_keepalive_over_udp_is_passed_over(data: bytes, node: Node, bob: Machine) -> None:
    with Agent(bob) as phone:
        phone.send(data)
        phone.expect_silence(0.2)
        phone.begin("OPTIONS", f"sip:{phone.node}")
        phone.expect(200)


@pytest.mark.parametrize(("who", "ipv6"), [("bob", False), ("bob", True), ("alice", False)])
def test_a_stun_binding_request_is_answered_with_the_mapped_address(
    who: str, ipv6: bool, node: Node, request: pytest.FixtureRequest
) -> None:
    with Agent(request.getfixturevalue(who), ipv6=ipv6) as phone:
        transaction = os.urandom(12)
        phone.send(b"\0\1\0\0" + _COOKIE + transaction)
        phone.socket.settimeout(PATIENCE)
        answer = phone.socket.recv(1000)
        assert answer[:2] == b"\1\1"  # Binding success response (RFC 5389, 6)
        assert answer[4:20] == _COOKIE + transaction
        seen = phone.machine.lab.wire.sent("node", "eth0", "in")[-1].source
        assert _mapped(answer, transaction) == tuple(seen)
        phone.begin("OPTIONS", f"sip:{phone.node}")
        phone.expect(200)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\1\0\4" + bytes.fromhex("2112a442") + bytes(12),  # shorter than it says
        b"\0\1\0\0" + bytes(16),  # without the magic cookie
        b"\1\1\0\0" + bytes.fromhex("2112a442") + bytes(12),  # a response
        b"\0\1\xff\xfc" + bytes.fromhex("2112a442") + bytes(40),
        b"\0\1\0\x08" + bytes.fromhex("2112a442") + bytes(12) + b"\x80\x22\xff\xff" + bytes(4),  # an attribute too long
    ],
)
def test_bad_stun_does_no_harm(data: bytes, node: Node, bob: Machine) -> None:
    with Agent(bob) as phone:
        for _ in range(8):  # each worker
            phone.send(data)
        phone.begin("OPTIONS", f"sip:{phone.node}")
        phone.socket.settimeout(PATIENCE)
        while not phone.socket.recv(2000).startswith(b"SIP/2.0 200"):
            pass  # what bad STUN is answered with is its own affair


_COOKIE = bytes.fromhex("2112a442")


def _mapped(answer: bytes, transaction: bytes) -> tuple[str, int]:
    """The XOR-MAPPED-ADDRESS of a STUN response (RFC 5389, 15.2)."""
    at = 20
    while at < len(answer):
        kind, size = int.from_bytes(answer[at : at + 2]), int.from_bytes(answer[at + 2 : at + 4])
        value = answer[at + 4 : at + 4 + size]
        if kind == 0x0020:
            port = int.from_bytes(value[2:4]) ^ 0x2112
            host = bytes(a ^ b for a, b in zip(value[4:], _COOKIE + transaction, strict=False))
            return socket.inet_ntop(socket.AF_INET if value[1] == 1 else socket.AF_INET6, host), port
        at += 4 + size + -size % 4
    raise AssertionError(f"no XOR-MAPPED-ADDRESS in {answer.hex()}")


def _is_tried(lab: Lab, place: Address) -> bool:
    """Whether the node has asked for a connection to there, from where one had come."""
    assert place in {here for here, _ in lab.wire.attempts("node", "in")}
    return place in {there for _, there in lab.wire.attempts("node")}


def _place(phone: Agent) -> Address:
    """Where the node sees the phone's connection come from: its own address, or that of its router."""
    return phone.machine.lab.wire.attempts("node", "in")[-1][0]
