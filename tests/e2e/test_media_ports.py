"""Media ports: nobody gets more than their share, and what rings for too long gives its own back."""

from collections.abc import Callable, Iterator

import pytest

from lab.agent import Agent, Talk, answered_call, busy_call, refused_call
from lab.eventually import eventually
from lab.network import Lab
from lab.node import Node

from .conftest import Tenant, watched_lab

SOURCE, TENANT = 5, 10
"""Streams, of the 50 that 100 ports are enough for."""

pytestmark = pytest.mark.usefixtures("no_media_left", "no_share_left")

type Make = Callable[..., Tenant]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    settings = {
        "rtp": {"ports": "20000-20099", "source_share": 2 * SOURCE, "tenant_share": 2 * TENANT},
        "sip": {"ring_timeout": 3.0},
    }
    with Node(lab, settings=settings) as node:
        yield node
        assert node.stop() == 0, node.log_tail()


@pytest.fixture
def no_share_left(node: Node) -> Iterator[None]:
    """Afterwards nothing is counted."""
    yield
    assert not shares(node)


@pytest.fixture
def control(lab: Lab) -> Iterator[Agent]:
    """A phone that nobody has a quarrel with."""
    with Agent(lab.phone("control")) as agent:
        yield agent


def shares(node: Node) -> dict[str, int]:
    """Streams by whose they are."""
    slots = node.rpc("htable.dump", "calls") or []
    items = [item for slot in slots for item in slot["slot"]]
    return {item["name"]: int(item["value"]) for item in items if int(item["value"])}


def uri(tenant: Tenant) -> str:
    return f"sip:200@{tenant.domain}"


def test_a_source_gets_its_share_and_nobody_else_suffers(
    node: Node, phone: Agent, control: Agent, instance: Agent, other_instance: Agent, acme: Tenant, initech: Tenant
) -> None:
    talks = [answered_call(phone, instance, uri(acme))[0] for _ in range(SOURCE)]
    assert shares(node) == {f"={acme.name}": SOURCE, f"@{phone.host}": SOURCE}
    for tenant in (acme, initech):
        assert refused_call(phone, uri(tenant), 503).header("Retry-After") == "10"
    assert not instance.has_something()
    assert not other_instance.has_something()
    busy_call(control, instance, uri(acme))
    busy_call(control, other_instance, uri(initech))
    assert node.status()["counters"]["ports-limit"] == 2
    talks.pop().hang_up(instance)
    busy_call(phone, instance, uri(acme))
    for talk in talks:
        talk.hang_up(instance)


def test_a_tenant_gets_its_share_and_the_others_have_theirs(
    node: Node, control: Agent, instance: Agent, other_instance: Agent, acme: Tenant, initech: Tenant,
    carrier: Agent, trunk: Callable[..., str],
) -> None:  # fmt: skip
    """Its instance calls out, by a carrier, whose calls count against no source."""
    trunk(carrier.host)
    out = f"sip:06@{carrier.host}"
    talks = [answered_call(instance, carrier, out)[0] for _ in range(TENANT)]
    assert shares(node) == {f"={acme.name}": TENANT}
    assert refused_call(instance, out, 503).header("Retry-After") == "10"
    refused_call(control, uri(acme), 503)
    busy_call(other_instance, carrier, out)
    busy_call(control, other_instance, uri(initech))
    for talk in talks:
        talk.hang_up(carrier)


def many(agent: Agent, streams: int) -> str:
    """An offer or answer of so many streams."""
    head, line, rest = agent.sdp().partition("m=")
    return head + streams * (line + rest)


def test_each_stream_counts_in_a_first_offer_and_in_a_later_one(
    node: Node, phone: Agent, instance: Agent, acme: Tenant
) -> None:
    def change(streams: int) -> None:
        ours.send("INVITE", body=many(phone, streams))
        instance.reply(instance.expect("INVITE"), 200, body=many(instance, streams))
        phone.expect(200)
        ours.ack()
        instance.expect("ACK")

    phone.begin("INVITE", uri(acme), body=many(phone, SOURCE + 1))
    phone.acknowledge(phone.expect(503))
    assert not shares(node)

    ours, _ = answered_call(phone, instance, uri(acme))
    change(SOURCE)
    assert shares(node) == {f"={acme.name}": SOURCE, f"@{phone.host}": SOURCE}
    refused_call(phone, uri(acme), 503)
    ours.send("INVITE", body=many(phone, SOURCE + 1))
    phone.acknowledge(phone.expect(503))
    change(SOURCE)
    ours.hang_up(instance)


def test_calls_that_nobody_answers_give_their_ports_back(
    node: Node, phone: Agent, control: Agent, instance: Agent, other_instance: Agent, acme: Tenant, initech: Tenant
) -> None:
    """The instance keeps ringing, and says so in every way: nothing prolongs it."""
    rings: list[Talk] = []
    for status in (0, 180, 183):
        rings.append(phone.begin("INVITE", uri(acme), body=phone.sdp()))
        invite = instance.expect("INVITE")
        instance.reply(invite, 100)
        if status:
            instance.reply(invite, 180, tag="i")
            phone.expect(180)
        if status == 183:
            instance.reply(invite, 183, tag="i", body=instance.sdp())
            phone.expect(183)
    assert len(node.media_calls()) == len(rings)
    busy_call(control, other_instance, uri(initech))
    refused: set[str] = set()
    cancelled: set[str] = set()

    def all_over() -> bool:
        while phone.has_something():
            answer = phone.receive()
            if answer.status == 408:
                phone.acknowledge(answer)
                refused.add(answer.call_id)
        while instance.has_something():
            request = instance.receive()
            if request.method == "CANCEL":
                instance.reply(request, 200)
                cancelled.add(request.call_id)
        return len(refused) == len(cancelled) == len(rings)

    eventually(all_over)
    assert not node.media_calls()
    busy_call(control, other_instance, uri(initech))
