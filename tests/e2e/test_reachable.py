"""A registered phone stays reachable: neither its NAT nor a restart forgets it, and when it moves it is followed."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lab.agent import Agent, busy_call
from lab.asterisk import Asterisk
from lab.digest import sign_on
from lab.eventually import eventually
from lab.network import Lab, Machine, Nat
from lab.node import Node
from lab.packets import Address
from lab.sipp import Transport

from .conftest import Tenant, watched_lab

PING = b"\r\n\r\n"
FORGETS = 4
"""Seconds until the NATs of these tests forget a flow that is silent. The node pings each second."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    with Node(lab, settings={"sip": {"keepalive": 1.0}}) as node:
        yield node
        assert node.stop() == 0, node.log_tail()


class Phone:
    """A phone that registers under one Call-ID wherever it is, as RFC 3261, 10.2.4 asks for."""

    def __init__(self, registrar: Agent, tenant: Tenant, call_id: str = "", params: str = "") -> None:
        self.registrar = registrar
        self.tenant = tenant
        self.call_id = call_id
        self.params = params

    def register(self, place: Agent, expires: int = 60, contact: str = "") -> list[str]:
        """Register from there; the Contact values that the registrar got."""
        value = contact or f"<{place.contact('alice')}>;expires={expires}{self.params}"
        talk = place.begin(
            "REGISTER", f"sip:{self.tenant.domain}", domain=self.tenant.domain, contact=value, call_id=self.call_id
        )
        self.call_id = talk.call_id
        request = self.registrar.expect("REGISTER")
        got = [value.strip() for text in request.headers("Contact") for value in text.split(",")]
        kept = [each for each in got if ";expires=0" not in each and each != "*"]
        self.registrar.reply(request, 200, tag="r", contact=", ".join(kept))
        place.expect(200)
        return got


def uri(contact: str) -> str:
    return contact.strip("<").partition(">")[0]


def pings(phone: Agent) -> int:
    """How many have left for the phone; all from the socket that it has registered at."""
    lab = phone.machine.lab
    place = _place(phone)
    sent = [each for each in lab.wire.sent("node", "eth0") if each.data == PING and each.destination == place]
    assert {each.source for each in sent} <= {phone.node}
    return len(sent)


def _place(phone: Agent) -> Address:
    """Where the node sees the phone's last REGISTER come from."""
    wire, name = phone.machine.lab.wire, phone.machine.name
    said = wire.messages(machine=name, direction="out", method="REGISTER", requests=True)
    via = next(m.header("Via") for m in reversed(said) if m.source == (phone.host, phone.port))
    heard = wire.messages(machine="node", direction="in", method="REGISTER", requests=True)
    return next(m.source for m in heard if m.header("Via") == via)


# --- kept alive -------------------------------------------------------------------------------------------------------


def test_phones_are_called_long_after_their_nats_would_have_forgotten_them(
    lab: Lab, instance: Agent, acme: Tenant
) -> None:
    kinds: tuple[Nat, ...] = ("restricted", "symmetric", "double")
    with ExitStack() as open_:
        for kind in kinds:
            open_.enter_context(lab.forgetful(kind, FORGETS))
        machines = [lab.phone(f"idle-{kind}", behind=kind) for kind in kinds]
        phones = [open_.enter_context(Agent(machine)) for machine in machines]
        silent = [open_.enter_context(Agent(machine, port=5070)) for machine in machines]
        bound = [Phone(instance, acme).register(phone, expires=3600)[0] for phone in phones]
        for _ in range(2):
            # What is not kept alive is forgotten meanwhile, by the same routers.
            for other in silent:
                other.begin("OPTIONS", f"sip:{other.node}")
                other.expect(200)
            for kind, other in zip(kinds, silent, strict=True):
                eventually(lambda: not lab.remembers(kind, (other.host, other.port)))  # noqa: B023
        for phone, contact in zip(phones, bound, strict=True):
            busy_call(instance, phone, uri(contact))


def test_only_phones_behind_a_nat_are_pinged_by_udp_and_as_long_as_they_are_registered(
    node: Node, lab: Lab, instance: Agent, acme: Tenant, alice: Machine, rob: Machine, bob: Machine
) -> None:
    with (
        Agent(alice) as natted, Agent(rob) as other, Agent(bob) as public, Agent(alice, "tcp") as connected,
        Agent(lab.phone("lan", "local")) as local, Agent(bob, port=5070, ipv6=True) as ipv6,
    ):  # fmt: skip
        phones = [Phone(instance, acme) for _ in range(6)]
        for phone, place in zip(phones, (natted, other, public, connected, local, ipv6), strict=True):
            phone.register(place)
        eventually(lambda: pings(natted) >= 2 and pings(other) >= 2)
        assert [pings(place) for place in (public, connected, local, ipv6)] == [0, 0, 0, 0]
        said = node.status()["components"]["phones"]
        assert said["state"] == "ok"
        assert said["registered"] >= 6
        assert said["pinged"] >= 2
        phones[0].register(natted, expires=0)
        phones[1].register(other, contact="*")
        # Two more are pinged, and what was under way to these has come by then.
        with Agent(alice, port=5071) as later:
            Phone(instance, acme).register(later)
            eventually(lambda: pings(later))
            before = pings(natted), pings(other)
            eventually(lambda: pings(later) >= 3)
            assert (pings(natted), pings(other)) == before


def test_a_phone_that_writes_its_public_address_itself_is_known_by_its_via(
    alice: Machine, instance: Agent, acme: Tenant
) -> None:
    with Agent(alice) as phone:
        registration = Phone(instance, acme)
        registration.register(phone)
        place = _place(phone)
        registration.register(phone, contact=f"<sip:alice@{place}>;expires=60")
        seen = pings(phone)
        eventually(lambda: pings(phone) >= seen + 2)


def test_the_lines_of_a_phone_are_one_flow(alice: Machine, instance: Agent, acme: Tenant) -> None:
    with Agent(alice) as phone, Agent(alice, port=5070) as single:
        lines = [Phone(instance, acme) for _ in range(5)]
        for line in [*lines, Phone(instance, acme)]:
            line.register(phone if line in lines else single)
        eventually(lambda: pings(single) >= 1)
        before = pings(phone), pings(single)
        eventually(lambda: pings(single) >= before[1] + 3)
        assert 1 <= pings(phone) - before[0] <= 6
        # One that leaves takes the others' flow with it not.
        lines[0].register(phone, expires=0)
        seen = pings(phone)
        eventually(lambda: pings(phone) >= seen + 2)


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_a_phone_is_kept_alive_by_the_next_kamailio(
    end: str, lab: Lab, node: Node, alice: Machine, instance: Agent, acme: Tenant
) -> None:
    with lab.forgetful("symmetric", FORGETS * 3), Agent(alice) as phone, Agent(alice, port=5070) as gone:
        [bound] = Phone(instance, acme).register(phone)
        left = Phone(instance, acme)
        left.register(gone)
        left.register(gone, expires=0)
        eventually(lambda: pings(phone))
        if end == "killed":
            main = next(pid for pid, name in node.processes().items() if name == "kamailio")
            os.kill(main, signal.SIGKILL)
            eventually(lambda: main not in node.processes())
            node.wait_ready()
        else:
            assert node.stop() == 0
            node.begin()
        lab.wire.clear()
        place = Address(*instance_flow(bound, node))
        eventually(lambda: [s for s in lab.wire.sent("node", "eth0") if s.data == PING and s.destination == place])
        busy_call(instance, phone, uri(bound))


def instance_flow(bound: str, node: Node) -> tuple[str, int]:
    """Where the node has a registered Contact lead, as it keeps it."""
    for slot in node.rpc("htable.dump", "flows"):
        for item in slot["slot"]:
            _, _, _, flow, *contacts = str(item["value"]).split(" ")
            if uri(bound) in contacts:
                host, _, port = flow.removeprefix("udp:").rpartition(":")
                return host, int(port)
    raise AssertionError(f"{bound} is not known")


# --- followed ---------------------------------------------------------------------------------------------------------


INSTANCE_ID = ';+sip.instance="<urn:uuid:00000000-0000-1000-8000-000a95a0e128>"'


@pytest.mark.parametrize("transports", [("udp", "udp"), ("tcp", "tcp")], ids=["udp", "tcp"])
@pytest.mark.parametrize("known_by", ["call-id", "instance"])
def test_a_phone_that_registers_from_elsewhere_takes_its_old_contact_back(
    known_by: str,
    transports: tuple[Transport, Transport],
    alice: Machine,
    rob: Machine,
    bob: Machine,
    instance: Agent,
    acme: Tenant,
) -> None:
    home, away = transports
    with Agent(alice, home) as first, Agent(rob, away) as second, Agent(bob) as others:
        phone = Phone(instance, acme, params=INSTANCE_ID if known_by == "instance" else "")
        # Another phone of the same user, in a place with the same addresses: it stays.
        twin = Phone(instance, acme, params=INSTANCE_ID.replace("e128", "e129") if known_by == "instance" else "")
        [kept] = twin.register(others)
        [at_home] = phone.register(first)
        assert phone.register(first) == [at_home]
        if known_by == "instance":
            phone.call_id = ""
        added, removed = phone.register(second)
        assert uri(removed) == uri(at_home)
        assert removed.endswith(";expires=0")
        assert uri(added) != uri(at_home)
        assert phone.register(second) == [added]
        assert twin.register(others) == [kept]
        # Back again, and signed off from a third place.
        assert [uri(each) for each in phone.register(first)] == [uri(at_home), uri(added)]
        assert len(phone.register(second, expires=0)) == 2
        assert len(phone.register(first, expires=0)) == 1


def test_a_registration_that_is_refused_moves_nothing(
    alice: Machine, rob: Machine, instance: Agent, acme: Tenant
) -> None:
    with Agent(alice) as phone, Agent(rob) as thief:
        registered = Phone(instance, acme)
        [bound] = registered.register(phone)
        for status in (401, 403):
            thief.begin("REGISTER", f"sip:{acme.domain}", domain=acme.domain, call_id=registered.call_id)
            instance.reply(instance.expect("REGISTER"), status, tag="r")
            thief.expect(status)
        assert registered.register(phone) == [bound]
        seen = pings(phone)
        eventually(lambda: pings(phone) >= seen + 2)
        assert not pings(thief)


def test_with_a_real_pbx_a_call_rings_only_where_the_phone_is_now(
    tenant: Callable[..., Tenant], pbx: Machine, alice: Machine, rob: Machine, bob: Machine
) -> None:
    domain = tenant(pbx).domain
    with ExitStack() as open_:
        asterisk = open_.enter_context(Asterisk(pbx, domain, ["201"]))
        first, second, twin = (open_.enter_context(Agent(place)) for place in (alice, rob, bob))
        call_id = sign_on(first, "201", domain)
        sign_on(twin, "201", domain)
        assert asterisk.contacts.count(";sw=") == 2
        sign_on(second, "201", domain, call_id)
        assert asterisk.contacts.count(";sw=") == 2
        asterisk.cli("channel originate Local/201@from-internal application Echo")
        for phone in (second, twin):
            phone.reply(phone.expect("INVITE"), 486, tag="busy")
            phone.expect("ACK")
        first.expect_silence(0.2)
    assert not asterisk.errors, asterisk.log_tail()
