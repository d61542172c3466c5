"""Nothing but real parts, with a carrier: Asterisk as the PBXs of two tenants, and as whom they call by."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from lab.asterisk import Asterisk, Carrier
from lab.calls import expect_audio, heard
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.rtp import AT_LEAST

from .conftest import Tenant

pytestmark = pytest.mark.usefixtures("no_media_left")

type Make = Callable[..., str]
NUMBERS = {"0721405201": "account-a", "0541201201": "account-b"}
ECHO_NUMBER = "0299000"


@dataclass
class Customers:
    """A carrier, and a PBX of each of two tenants, registered there."""

    carrier: Carrier
    acme: Asterisk
    initech: Asterisk

    def idle(self) -> None:
        """All hang up."""
        for one in (self.carrier, self.acme, self.initech):
            one.hang_up()
        for one in (self.carrier, self.acme, self.initech):
            eventually(lambda: one.channels == 0, what=f"{one.machine.name} has no call")  # noqa: B023


@pytest.fixture
def customers(
    tenant: Callable[..., Tenant], trunk: Make, pbx: Machine, pbx_on_node: Machine, telco: Machine, lab: Lab
) -> Iterator[Customers]:
    acme, initech = tenant(pbx), tenant(pbx_on_node)
    trunk(telco.address, tenants=[acme.name, initech.name])
    at = {"carrier": telco.address}
    with ExitStack() as running:
        carrier = running.enter_context(Carrier(telco, lab.edge(telco), NUMBERS))
        ours = running.enter_context(Asterisk(pbx, acme.domain, account="account-a", **at))
        theirs = running.enter_context(Asterisk(pbx_on_node, initech.domain, account="account-b", **at))
        for one in (ours, theirs):
            eventually(lambda: one.is_registered, what=f"{one.machine.name} is registered")  # noqa: B023
        both = Customers(carrier, ours, theirs)
        yield both
        both.idle()
        logs = [(one.errors, one.log_tail()) for one in (carrier, ours, theirs)]
    assert not any(errors for errors, _ in logs), "\n".join(log for _, log in logs)


def test_a_carrier_calls_where_a_pbx_has_registered(customers: Customers) -> None:
    for account, pbx in (("account-a", customers.acme), ("account-b", customers.initech)):
        customers.carrier.call_account(account)
        eventually(lambda: pbx.channels == 1, what=f"{account} is called")  # noqa: B023
        expect_audio(pbx.machine, customers.carrier.machine)
        customers.idle()
        customers.carrier.machine.lab.wire.clear()


def test_a_pbx_calls_out_by_its_account(customers: Customers) -> None:
    for pbx in (customers.acme, customers.initech):
        pbx.call_out(ECHO_NUMBER)
        eventually(lambda: customers.carrier.channels == 1, what="the carrier is called")
        expect_audio(pbx.machine, customers.carrier.machine)
        customers.idle()
        customers.carrier.machine.lab.wire.clear()


@pytest.mark.parametrize("hangs_up", ["caller", "callee"])
def test_two_tenants_talk_by_their_carrier(hangs_up: str, customers: Customers) -> None:
    customers.acme.call_out("0541201201")
    eventually(lambda: customers.initech.channels == 1, what="the other tenant is called")
    expect_audio(customers.acme.machine, customers.initech.machine)
    ends = {"caller": customers.acme, "callee": customers.initech}
    ends.pop(hangs_up).hang_up()
    for one in (*ends.values(), customers.carrier):
        eventually(lambda: one.channels == 0, what=f"{one.machine.name} has no call")  # noqa: B023


# --- two PBXs of one tenant ------------------------------------------------------------------------------------------


@dataclass
class Pair:
    """A carrier without accounts, and two PBXs of one tenant whose numbers begin with 0721405."""

    carrier: Carrier
    first: Asterisk
    second: Asterisk
    rewrite: Callable[..., None]


@pytest.fixture
def pair(
    tenant: Callable[..., Tenant], number: Make, trunk: Make, pbx: Machine, telco: Machine, lab: Lab, node: Node
) -> Iterator[Pair]:
    second = lab.instance("pbx2")
    acme = tenant(pbx, second)
    number("0721405", tenant=acme.name)
    trunk(telco.address, tenants=[acme.name])

    def rewrite(first: dict[str, object], second_one: dict[str, object], **fields: object) -> None:
        """Give both instances these fields."""
        instances = [
            {"uri": f"sip:{pbx.address}", **first},
            {"uri": f"sip:{second.address}", **second_one},
        ]
        node.put(acme.name, {"domains": [acme.domain], "instances": instances, **fields})

    with ExitStack() as running:
        daemons = (
            Carrier(telco, lab.edge(telco), {}),
            Asterisk(pbx, acme.domain, carrier=telco.address),
            Asterisk(second, acme.domain, carrier=telco.address),
        )
        both = Pair(*map(running.enter_context, daemons), rewrite)  # type: ignore[arg-type]
        yield both
        logs = []
        for one in daemons:
            one.hang_up()
            eventually(lambda: one.channels == 0, what=f"{one.machine.name} has no call")  # noqa: B023
            logs.append((one.errors, one.log_tail()))
    assert not any(errors for errors, _ in logs), "\n".join(log for _, log in logs)


def test_the_second_pbx_answers_when_the_first_is_dead(pair: Pair) -> None:
    pair.rewrite({"priority": 1}, {"priority": 2})
    pair.carrier.call_number("0721405201")
    eventually(lambda: pair.first.channels == 1, what="the first is called")
    expect_audio(pair.first.machine, pair.carrier.machine)
    pair.carrier.hang_up()
    eventually(lambda: pair.first.channels == 0)
    pair.first.stop()
    pair.carrier.machine.lab.wire.clear()
    pair.carrier.call_number("0721405201")
    eventually(lambda: pair.second.channels == 1, what="the second is called")
    expect_audio(pair.second.machine, pair.carrier.machine)
    pair.carrier.hang_up()
    eventually(lambda: pair.second.channels == 0)
    pair.first.start()


def test_a_drained_pbx_keeps_its_call_and_gets_no_other(pair: Pair) -> None:
    pair.rewrite({"priority": 1}, {"priority": 2})
    pair.carrier.call_number("0721405201")
    eventually(lambda: pair.first.channels == 1, what="the first is called")
    expect_audio(pair.first.machine, pair.carrier.machine)
    pair.rewrite({"priority": 1, "drain": True}, {"priority": 2})
    for _ in range(2):
        pair.carrier.call_number("0721405201")
    eventually(lambda: pair.second.channels == 2, what="the second gets what is new")
    assert pair.first.channels == 1
    start = pair.carrier.machine.lab.wire.messages(method="INVITE", status=200)[-1].time + 0.5
    eventually(lambda: heard(pair.first.machine).last > start + 1.0, what="a second of audio")
    assert heard(pair.first.machine).between(start, start + 1) >= AT_LEAST
    pair.first.hang_up()
    eventually(lambda: pair.carrier.channels == 2, what="the first call has ended")


def test_both_pbxs_share_the_calls_and_a_number_keeps_its_own(pair: Pair) -> None:
    pair.rewrite({}, {}, policy="balance")
    called = {}
    for number in [f"07214052{digits:02}" for digits in range(8)] * 2:
        pair.carrier.call_number(number)
        eventually(lambda: pair.first.channels + pair.second.channels == 1, what=f"{number} is answered")
        by_first = pair.first.channels == 1
        assert called.setdefault(number, by_first) == by_first
        pair.carrier.hang_up()
        eventually(lambda: pair.first.channels + pair.second.channels + pair.carrier.channels == 0)
    assert set(called.values()) == {True, False}
