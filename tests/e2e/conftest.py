"""The end-to-end tests' common ground: one lab and one node for the run, and what is true after every test.

Tests share the node and not their tenants: each takes its own from `tenant`, so their order does not matter. A test
that needs another node (`Node(lab, "nat", {...})`) makes a lab of its own.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lab.agent import Agent
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

    `@pytest.mark.may_show("10.5.4.1")` lets an address pass that the outside itself wrote.
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
            leaks = lab.wire.leaks([needle for needle in INNER if needle not in allowed])
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
    config.addinivalue_line("markers", "many_tenants: with 100,000 tenants loaded")
