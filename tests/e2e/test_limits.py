"""What a tenant or trunk may use at once: refused above it, free again whatever ends a call, and nothing left over."""

from collections.abc import Callable, Iterator

import pytest

from lab.agent import Agent, Talk, answered_call, busy_call, refused_call
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.sip import Message

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("control", "no_media_left", "no_place_left")

type Make = Callable[..., Tenant]
type MakeName = Callable[..., str]


def held(node: Node) -> dict[str, int]:
    """How many calls of each tenant and trunk count now; those that have none are not named.

    What counts against a share of the ports is beside the point: its name begins with `=` or `@`.
    """
    found = entries(node, "calls").items()
    return {name: int(value) for name, value in found if int(value) and name[0] not in "=@"}


def entries(node: Node, table: str) -> dict[str, str]:
    return {item["name"]: str(item["value"]) for slot in node.rpc("htable.dump", table) or [] for item in slot["slot"]}


@pytest.fixture
def no_place_left(node: Node) -> Iterator[None]:
    """Afterwards all places are free, and no call is remembered."""
    yield
    left = held(node), entries(node, "charges")
    for table in ("calls", "charges"):
        node.rpc("htable.flush", table)
    assert left == ({}, {})


@pytest.fixture
def second(lab: Lab) -> Iterator[Agent]:
    with Agent(lab.instance("pbx2")) as agent:
        yield agent


@pytest.fixture
def one_call(tenant: Make, pbx: Machine) -> Tenant:
    """A tenant that may have one call at a time."""
    return tenant(pbx, limits={"calls": 1})


def uri(tenant: Tenant) -> str:
    return f"sip:200@{tenant.domain}"


def full(caller: Agent, target: str) -> None:
    """There is no place for a call."""
    assert refused_call(caller, target, 503).header("Retry-After") == "10"


# --- when a place is free again --------------------------------------------------------------------------------------


def test_so_many_calls_and_the_next_is_503_with_retry_after(
    node: Node, tenant: Make, pbx: Machine, phone: Agent, instance: Agent, other_instance: Agent, initech: Tenant
) -> None:
    acme = tenant(pbx, limits={"calls": 3})
    before = node.status()["counters"].get("calls-limit", 0)
    talks = [answered_call(phone, instance, uri(acme))[0] for _ in range(3)]
    full(phone, uri(acme))
    assert held(node) == {acme.name: 3}
    assert not instance.has_something()
    busy_call(phone, other_instance, uri(initech))
    assert node.status()["counters"]["calls-limit"] == before + 1
    talks.pop().hang_up(instance)
    talks.append(answered_call(phone, instance, uri(acme))[0])
    full(phone, uri(acme))
    for talk in talks:
        talk.hang_up(instance)


def caller_hangs_up(phone: Agent, instance: Agent, acme: Tenant) -> Iterator[None]:
    ours, _ = answered_call(phone, instance, uri(acme))
    yield
    ours.hang_up(instance)


def callee_hangs_up(phone: Agent, instance: Agent, acme: Tenant) -> Iterator[None]:
    _, theirs = answered_call(phone, instance, uri(acme))
    yield
    theirs.hang_up(phone)


def is_refused(phone: Agent, instance: Agent, acme: Tenant) -> Iterator[None]:
    phone.begin("INVITE", uri(acme), body=phone.sdp())
    invite = ringing(phone, instance)
    yield
    instance.reply(invite, 486, tag="i")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(486))


def is_cancelled(phone: Agent, instance: Agent, acme: Tenant) -> Iterator[None]:
    ours = phone.begin("INVITE", uri(acme), body=phone.sdp())
    invite = ringing(phone, instance)
    yield
    ours.send("CANCEL", cseq=1)
    instance.reply(instance.expect("CANCEL"), 200)
    phone.expect(200)
    instance.reply(invite, 487, tag="i")
    instance.expect("ACK")
    phone.acknowledge(phone.expect(487))


def is_over_already(status: int) -> Callable[[Agent, Agent, Tenant], Iterator[None]]:
    """The BYE of the other side is lost, and this one's is answered as one to no dialog."""

    def call(phone: Agent, instance: Agent, acme: Tenant) -> Iterator[None]:
        ours, _ = answered_call(phone, instance, uri(acme))
        yield
        ours.send("BYE")
        instance.reply(instance.expect("BYE"), status)
        phone.expect(status)

    return call


def is_challenged(phone: Agent, instance: Agent, acme: Tenant) -> Iterator[None]:
    """A BYE that is refused ends nothing."""
    ours, _ = answered_call(phone, instance, uri(acme))
    ours.send("BYE")
    instance.reply(instance.expect("BYE"), 401)
    phone.expect(401)
    yield
    ours.hang_up(instance)


def ringing(phone: Agent, instance: Agent) -> Message:
    invite = instance.expect("INVITE")
    instance.reply(invite, 180, tag="i")
    phone.expect(180)
    return invite


ENDS = {
    "the caller's BYE": caller_hangs_up,
    "the callee's BYE": callee_hangs_up,
    "a refusal": is_refused,
    "a CANCEL": is_cancelled,
    "a BYE that is answered 481": is_over_already(481),
    "a BYE that is answered 408": is_over_already(408),
    "the second BYE when the first is challenged": is_challenged,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_place_is_taken_until_the_call_ends(
    end: Callable[[Agent, Agent, Tenant], Iterator[None]], node: Node, phone: Agent, instance: Agent, one_call: Tenant,
    bob: Machine,
) -> None:  # fmt: skip
    with Agent(bob, port=0) as other:
        for _ in range(2):
            call = end(phone, instance, one_call)
            next(call)
            full(other, uri(one_call))
            assert next(call, "over") == "over"
            assert held(node) == {}
    assert entries(node, "calls")[one_call.name] == "0"


def test_a_call_of_which_all_instances_fail_keeps_no_place(
    node: Node, tenant: Make, phone: Agent, instance: Agent, second: Agent
) -> None:
    acme = tenant(
        *({"uri": f"sip:{agent.hostport}", "priority": n} for n, agent in enumerate((instance, second), 1)),
        limits={"calls": 1},
    )
    phone.begin("INVITE", uri(acme), body=phone.sdp())
    for agent in (instance, second):
        invite = agent.expect("INVITE")
        assert held(node) == {acme.name: 1}
        agent.reply(invite, 503, tag="i")
        agent.expect("ACK")
    phone.acknowledge(phone.expect(503))
    assert held(node) == {}
    node.forget_health()
    phone.begin("INVITE", uri(acme), body=phone.sdp())
    instance.reply(instance.expect("INVITE"), 500, tag="i")
    instance.expect("ACK")
    invite = second.expect("INVITE")
    theirs = Talk.answering(second, invite, "s")
    second.reply(invite, 200, tag="s", body=second.sdp())
    phone.expect(200)
    assert held(node) == {acme.name: 1}
    theirs.hang_up(phone)


def test_a_call_to_a_silent_instance_keeps_no_place(
    node: Node, phone: Agent, instance: Agent, one_call: Tenant
) -> None:
    phone.begin("INVITE", uri(one_call), body=phone.sdp())
    instance.expect("INVITE")
    phone.acknowledge(phone.expect(503))
    assert held(node) == {}


def test_a_call_that_the_node_cannot_read_keeps_no_place(
    node: Node, phone: Agent, instance: Agent, one_call: Tenant
) -> None:
    """A header that is read after the call was counted, and is not UTF-8."""
    for number in range(3):
        fields = [f"From: <sip:a@{one_call.domain}>;tag=1", f"To: <{uri(one_call)}>", f"Call-ID: unreadable-{number}"]
        fields += ["CSeq: 1 INVITE", f"Contact: <{phone.contact('a')}>", "Replaces: \xe9;to-tag=1;from-tag=2"]
        phone.send(phone.compose(f"INVITE {uri(one_call)}", fields).encode("latin-1"))
        phone.acknowledge(phone.expect(400))
        assert held(node) == {}
    busy_call(phone, instance, uri(one_call))


def test_byes_of_both_sides_that_cross_free_one_place_each(
    node: Node, tenant: Make, pbx: Machine, phone: Agent, instance: Agent
) -> None:
    """Many at once, so that all workers have their part in it."""
    acme = tenant(pbx, limits={"calls": 13})
    stays, _ = answered_call(phone, instance, uri(acme))
    talks = [answered_call(phone, instance, uri(acme)) for _ in range(12)]
    full(phone, uri(acme))
    for ours, theirs in talks:
        ours.send("BYE")
        theirs.send("BYE")
    ended: set[tuple[Agent, str]] = set()

    def have_ended() -> bool:
        for agent in (phone, instance):
            while agent.has_something():
                message = agent.receive()
                if message.status is None:
                    agent.reply(message, 200)
                elif message.status == 200:
                    ended.add((agent, message.call_id))
        return len(ended) == 2 * len(talks)

    eventually(have_ended)
    assert held(node) == {acme.name: 1}
    stays.hang_up(instance)
    assert entries(node, "calls")[acme.name] == "0"


# --- so many a second ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "limits", "other"),
    [
        ("INVITE", {"calls_per_second": 5}, "REGISTER"),
        ("REGISTER", {"registrations_per_second": 5}, "INVITE"),
    ],
)
def test_so_many_a_second(
    method: str, limits: dict[str, int], other: str, tenant: Make, pbx: Machine, initech: Tenant, phone: Agent,
    instance: Agent, other_instance: Agent,
) -> None:  # fmt: skip
    """All within two seconds of the clock: what one of them may have passes at least, and not more than two's."""
    acme = tenant(pbx, limits=limits)
    for what, home, callee, least, most in (
        (method, acme, instance, 5, 10),
        (method, initech, other_instance, 12, 12),
        (other, acme, instance, 12, 12),
    ):
        for number in range(12):
            target = f"sip:{home.domain}" if what == "REGISTER" else uri(home)
            body = phone.sdp() if what == "INVITE" else ""
            phone.begin(what, target, domain=home.domain, user=f"u{number}", body=body)
        answers = refusing(phone, callee, what, 12)
        passed = [answer for answer in answers if answer.status == 403]
        assert least <= len(passed) <= most
        assert {answer.header("Retry-After") for answer in answers if answer.status == 503} <= {"1"}


def refusing(phone: Agent, callee: Agent, method: str, calls: int) -> list[Message]:
    """The answers that come, while whoever is reached refuses."""
    answers: dict[str, Message] = {}

    def answered() -> bool:
        while callee.has_something():
            if (request := callee.receive()).method == method and request.status is None:
                callee.reply(request, 403, tag="i")
        while phone.has_something():
            if (answer := phone.receive()).call_id not in answers:
                answers[answer.call_id] = answer
                if method == "INVITE":
                    phone.acknowledge(answer)
        return len(answers) == calls

    eventually(answered)
    return list(answers.values())


# --- trunks ----------------------------------------------------------------------------------------------------------


def test_a_trunks_calls_count_in_and_out_and_for_all_its_tenants(
    node: Node, tenant: Make, pbx: Machine, initech: Tenant, number: MakeName, trunk: MakeName, carrier: Agent,
    phone: Agent, instance: Agent, other_instance: Agent, other_carrier: Agent,
) -> None:  # fmt: skip
    acme = tenant(pbx, limits={"calls": 4})
    name, free = trunk(carrier.host, limits={"calls": 2}), trunk(other_carrier.host)
    number("0721405", tenant=acme.name)
    into, out = f"sip:0721405@{carrier.node}", f"sip:06@{carrier.host}"
    incoming, _ = answered_call(carrier, instance, into)
    outgoing, _ = answered_call(other_instance, carrier, out)
    assert held(node) == {f"%{name}": 2, acme.name: 1}
    full(carrier, into)
    full(instance, out)
    full(other_instance, out)
    # A call that the trunk has no place for takes none of its tenant.
    assert held(node) == {f"%{name}": 2, acme.name: 1}
    busy_call(other_carrier, instance, f"sip:0721405@{carrier.node}")
    busy_call(instance, other_carrier, f"sip:06@{other_carrier.host}")
    busy_call(phone, instance, uri(acme))
    outgoing.hang_up(carrier)
    busy_call(instance, carrier, out)
    incoming.hang_up(instance)
    assert held(node) == {}
    assert free


def test_a_trunks_calls_a_second_count_out_too(acme: Tenant, instance: Agent, trunk: MakeName, carrier: Agent) -> None:
    trunk(carrier.host, limits={"calls_per_second": 3})
    for number in range(8):
        instance.begin("INVITE", f"sip:06{number}@{carrier.host}", body=instance.sdp())
    statuses = [answer.status for answer in refusing(instance, carrier, "INVITE", 8)]
    assert 3 <= statuses.count(403) <= 6
    assert statuses.count(503) == 8 - statuses.count(403)
    assert acme


def test_a_call_to_a_registered_phone_counts_for_its_tenant(
    node: Node, phone: Agent, instance: Agent, one_call: Tenant
) -> None:
    phone.begin("REGISTER", f"sip:{one_call.domain}", domain=one_call.domain)
    request = instance.expect("REGISTER")
    contact = request.header("Contact").partition("<")[2].partition(">")[0]
    instance.reply(request, 200, tag="r", contact=request.header("Contact"))
    phone.expect(200)
    ours, _ = answered_call(instance, phone, contact)
    assert held(node) == {one_call.name: 1}
    full(instance, contact)
    ours.hang_up(phone)


# --- edits, and calls that nobody ends -------------------------------------------------------------------------------


def test_an_edit_of_the_limits_is_live_at_once_and_leaves_running_calls_counted(
    node: Node, phone: Agent, instance: Agent, one_call: Tenant
) -> None:
    def edit(**limits: int) -> None:
        instances = [{"uri": f"sip:{instance.hostport}"}]
        node.put(one_call.name, {"domains": [one_call.domain], "instances": instances, "limits": limits})

    first, _ = answered_call(phone, instance, uri(one_call))
    full(phone, uri(one_call))
    edit(calls=2)
    second, _ = answered_call(phone, instance, uri(one_call))
    full(phone, uri(one_call))
    edit(calls=1)
    first.hang_up(instance)
    full(phone, uri(one_call))
    edit()
    third, _ = answered_call(phone, instance, uri(one_call))
    assert held(node) == {one_call.name: 1}
    second.hang_up(instance)
    assert held(node) == {}
    edit(calls=1)
    third.hang_up(instance)
    busy_call(phone, instance, uri(one_call))
    assert entries(node, "calls")[one_call.name] == "0"


def test_a_call_that_nobody_ends_is_forgotten_and_its_late_end_counts_no_more(
    node: Node, phone: Agent, instance: Agent, carrier: Agent, one_call: Tenant, number: MakeName, trunk: MakeName
) -> None:
    name = trunk(carrier.host, limits={"calls": 5})
    ours, _ = answered_call(carrier, instance, f"sip:200@{one_call.domain}")
    assert held(node) == {one_call.name: 1, f"%{name}": 1}
    (call,) = entries(node, "charges")
    node.rpc("htable.setex", "charges", call, 1)
    eventually(lambda: not held(node), within=60.0, what="the call is forgotten")
    again, _ = answered_call(phone, instance, uri(one_call))
    ours.hang_up(instance)
    assert held(node) == {one_call.name: 1}
    again.hang_up(instance)
    assert (entries(node, "calls")[one_call.name], entries(node, "calls")[f"%{name}"]) == ("0", "0")
