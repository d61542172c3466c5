"""The end-to-end tests' common ground: one lab and one node for the run, and what is true after every test.

Tests share the node and not their tenants: each takes its own from `tenant`, so their order does not matter. A test
that needs another node (`Node(lab, "nat", {...})`) makes a lab of its own.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lab.agent import Agent, answered_call
from lab.network import Lab, Machine
from lab.node import Node
from lab.sipp import Transport

INNER = ("10.5.4.", "fd00:5:4", "192.168.10.", "192.168.100.")
"""What must never leave to the outside: addresses of the service network, of the site, of a node behind a router."""

_numbers = itertools.count(1)
_labs: list[Lab] = []


@dataclass(frozen=True)
class Tenant:
    """A tenant made for one test; its name and domain are nobody else's."""

    name: str
    domain: str
    instances: Sequence[Machine]

    @property
    def keys(self) -> dict[str, str]:
        """Its domain, for a scenario's keys."""
        return {"domain": self.domain}


@contextmanager
def watched_lab() -> Iterator[Lab]:
    """A lab that the checks after every test look at, and that a failure's report shows."""
    with Lab() as lab:
        _labs.append(lab)
        try:
            yield lab
        finally:
            _labs.remove(lab)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """A lab for one test, for what the shared one cannot be used for: another place for the node, a node that dies."""
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def node(lab: Lab) -> Iterator[Node]:
    """The node of the run, at a public address."""
    with Node(lab) as node:
        yield node
        assert node.stop() == 0, node.log_tail()
    assert not lab.left_behind(), "the node has left processes behind"


@pytest.fixture
def bob(lab: Lab) -> Machine:
    """A phone on the Internet."""
    return lab.phone("bob")


@pytest.fixture
def alice(lab: Lab) -> Machine:
    """A phone behind the symmetric NAT."""
    return lab.phone("alice", behind="symmetric")


@pytest.fixture
def rob(lab: Lab) -> Machine:
    """A phone behind the port-restricted NAT, at the same address in its LAN as alice in hers."""
    return lab.phone("rob", behind="restricted")


@pytest.fixture
def pbx(lab: Lab) -> Machine:
    """An instance on another host of the service network."""
    return lab.instance("pbx")


@pytest.fixture
def pbx_on_node(lab: Lab) -> Machine:
    """An instance on the node itself, at the service address, with ports of its own."""
    return lab.instance_on_node("pbx-on-node")


@pytest.fixture
def tenant(node: Node) -> Iterator[Callable[..., Tenant]]:
    """Make tenants: `tenant(pbx)`, `tenant(pbx, pbx_on_node, redirect="refuse")`. They go with the test."""
    made: list[Tenant] = []

    def make(*instances: Machine, **fields: object) -> Tenant:
        number = next(_numbers)
        new = Tenant(f"tenant{number}", f"tenant{number}.example", instances)
        node.route_add(new.name, [new.domain], list(instances), **fields)
        made.append(new)
        return new

    yield make
    for old in made:
        node.route_remove(old.name)
    # The instances are others' in the next test, and well.
    node.forget_health()


@pytest.fixture
def acme(tenant: Callable[..., Tenant], pbx: Machine) -> Tenant:
    """A tenant with one instance."""
    return tenant(pbx)


@pytest.fixture
def number(node: Node) -> Iterator[Callable[..., str]]:
    """Make number rules: `number("0721405XX", tenant=acme.name)`; the rule. They go with the test."""
    made: list[str] = []

    def make(rule: str, **fields: object) -> str:
        node.number_put(rule, fields)
        made.append(rule)
        return rule

    yield make
    for rule in made:
        node.number_remove(rule)


@pytest.fixture
def trunk(node: Node) -> Iterator[Callable[..., str]]:
    """Make trunks: `trunk("203.0.113.80", tenants=[acme.name])`; the trunk's name. They go with the test."""
    made: list[str] = []

    def make(*addresses: str, tenants: Sequence[str] = ("*",), name: str = "", **fields: object) -> str:
        name = name or f"carrier{next(_numbers)}"
        node.trunk_put(name, {"addresses": addresses, "tenants": tenants, **fields})
        made.append(name)
        return name

    yield make
    for name in made:
        node.trunk_remove(name)
    node.forget_resting()


@pytest.fixture
def telco(lab: Lab) -> Machine:
    """A carrier with two session border controllers."""
    return lab.borders("telco", 2)


@pytest.fixture
def rival(lab: Lab) -> Machine:
    """Another carrier."""
    return lab.borders("rival")


@pytest.fixture
def carrier(telco: Machine) -> Iterator[Agent]:
    """The first border of the carrier, played message by message."""
    with Agent(telco) as agent:
        yield agent


@pytest.fixture
def second_border(telco: Machine) -> Iterator[Agent]:
    """The carrier's second border."""
    with Agent(telco, host=telco.addresses[1]) as agent:
        yield agent


@pytest.fixture
def other_carrier(rival: Machine) -> Iterator[Agent]:
    """Another carrier, played message by message."""
    with Agent(rival) as agent:
        yield agent


@pytest.fixture
def initech(tenant: Callable[..., Tenant], lab: Lab) -> Tenant:
    """Another tenant with an instance of its own."""
    return tenant(lab.instance("pbx2"))


@pytest.fixture
def other_instance(lab: Lab) -> Iterator[Agent]:
    """The other tenant's instance, played message by message."""
    with Agent(lab.instance("pbx2")) as agent:
        yield agent


@pytest.fixture
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


@pytest.fixture
def no_media_left(node: Node) -> Iterator[None]:
    """The test leaves no call in rtpengine."""
    before = set(node.media_calls())
    yield
    assert not set(node.media_calls()) - before


@pytest.fixture
def transport() -> Transport:
    """The phone's transport; a test that wants another parametrizes it."""
    return "udp"


@pytest.fixture
def phone(bob: Machine, transport: Transport) -> Iterator[Agent]:
    """A phone on the Internet, played message by message."""
    with Agent(bob, transport) as agent:
        yield agent


@pytest.fixture
def instance(pbx: Machine) -> Iterator[Agent]:
    """An instance, played message by message."""
    with Agent(pbx) as agent:
        yield agent


@pytest.fixture(autouse=True)
def clean_wire(request: pytest.FixtureRequest) -> Iterator[None]:
    """Before each test nothing was seen; after it every scenario was waited for, and nothing inner went outside.

    `@pytest.mark.may_show("10.5.4.1")` lets an address pass that the outside itself wrote;
    `@pytest.mark.may_show_in("10.5.4.", "Contact")` one in header fields where an instance wants to be seen.
    """
    if "own_lab" in request.fixturenames:
        request.getfixturevalue("own_lab")  # made first, and so still there when it is looked at below
    for lab in _labs:
        lab.wire.clear()
        lab.scenarios.clear()
    yield
    allowed = [text for mark in request.node.iter_markers("may_show") for text in mark.args]
    problems: list[str] = []
    for lab in _labs:
        if "node" in lab.machines:
            shown = {
                field: mark.args[0] for mark in request.node.iter_markers("may_show_in") for field in mark.args[1:]
            }
            leaks = lab.wire.leaks([needle for needle in INNER if needle not in allowed], shown)
            problems += [f"an inner address went outside: {leak}" for leak in leaks]
        for scenario in lab.scenarios:
            if not scenario.done:
                scenario.abandon()
                problems.append(scenario.report("nobody waited for it"))
    assert not problems, "\n".join(problems)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what went over the wire and the end of every log. SIPp's own words are in its exception."""
    report = yield
    if report.failed:
        for lab in _labs:
            report.sections.append(("the ladder", lab.wire.ladder_text()))
            report.sections.append(("RTP", str(lab.wire.rtp("node"))))
        node = getattr(item, "funcargs", {}).get("node")
        if isinstance(node, Node):
            report.sections.append(("the node's logs", node.log_tail()))
    return report


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "may_show(text): an inner address that this test's outside side wrote itself")
    config.addinivalue_line("markers", "may_show_in(text, fields): an inner address an instance wants seen there")
