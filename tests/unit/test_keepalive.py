"""Flows are pinged once an interval, as many in each moment as in any other, and as long as they are registered."""

from collections import Counter

import pytest

from sipward.keepalive import SLOT, Keepalive
from sipward.model import Endpoint
from sipward.registrations import Registration

INTERVAL = 2.0
SLOTS = 20
DATE = 1_764_000_000


def flow(number: int) -> Endpoint:
    return Endpoint("udp", "198.51.100.7", 10_000 + number)


def registration(number: int, until: int = DATE + 60, pinged: bool = True) -> Registration:
    return Registration("acme", until, pinged, flow(number), ("sip:1@10.5.4.1",))


@pytest.fixture
def flows() -> Keepalive:
    return Keepalive(INTERVAL, 100.0)


def due(flows: Keepalive, start: float, seconds: float, date: float = DATE) -> list[list[Endpoint]]:
    """What is pinged in each slot."""
    first = round(start / SLOT)
    return [list(flows.due((first + n + 0.5) * SLOT, date)) for n in range(round(seconds / SLOT))]


def test_each_flow_is_pinged_once_an_interval(flows: Keepalive) -> None:
    for number in range(100):
        flows.take(f"p{number}", registration(number))
    for round_ in range(3):
        seen = Counter(each for slot in due(flows, 100.0 + round_ * INTERVAL + SLOT, INTERVAL) for each in slot)
        assert seen == Counter(flow(number) for number in range(100))


def test_no_slot_has_more_than_its_share_whoever_comes_and_goes(flows: Keepalive) -> None:
    for number in range(1000):
        flows.take(f"p{number}", registration(number))
    for number in range(0, 1000, 3):
        flows.take(f"p{number}", None)
    due(flows, 100.0 + SLOT, INTERVAL)  # those that are over are let go
    for number in range(2000, 2334):
        flows.take(f"p{number}", registration(number))
    sizes = [len(slot) for slot in due(flows, 100.0 + INTERVAL + SLOT, INTERVAL)]
    assert sum(sizes) == 1000
    assert max(sizes) <= 1000 // SLOTS + 1


def test_a_flow_that_needs_none_is_not_pinged(flows: Keepalive) -> None:
    flows.take("p", registration(1, pinged=False))
    assert not any(due(flows, 100.0 + SLOT, INTERVAL))
    assert len(flows) == 0


def test_a_registration_ends_when_its_time_is_over(flows: Keepalive) -> None:
    flows.take("p", registration(1, until=DATE + 10))
    assert any(due(flows, 100.0 + SLOT, INTERVAL, DATE + 9))
    assert not any(due(flows, 102.0 + SLOT, INTERVAL, DATE + 10))
    assert len(flows) == 0


def test_a_flow_lives_as_long_as_one_of_its_registrations(flows: Keepalive) -> None:
    flows.take("line1", registration(1, until=DATE + 10))
    flows.take("line2", registration(1, until=DATE + 20))
    assert sum(map(len, due(flows, 100.0 + SLOT, INTERVAL, DATE))) == 1
    assert sum(map(len, due(flows, 102.0 + SLOT, INTERVAL, DATE + 15))) == 1
    flows.take("line2", None)
    assert not any(due(flows, 104.0 + SLOT, INTERVAL, DATE + 15))


def test_a_phone_that_has_moved_is_pinged_where_it_is(flows: Keepalive) -> None:
    flows.take("p", registration(1))
    flows.take("p", registration(2))
    assert [each for slot in due(flows, 100.0 + SLOT, INTERVAL) for each in slot] == [flow(2)]
    flows.take("p", registration(1))
    assert [each for slot in due(flows, 102.0 + SLOT, INTERVAL) for each in slot] == [flow(1)]


def test_after_a_standstill_each_is_pinged_once(flows: Keepalive) -> None:
    for number in range(10):
        flows.take(f"p{number}", registration(number))
    assert Counter(flows.due(1000.0, DATE)) == Counter(flow(number) for number in range(10))
    assert list(flows.due(1000.0, DATE)) == []
