"""A figure is made of runs in turns, A B B A, so that a machine whose speed drifts drifts for both."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.rig import Proxy, Rig


@dataclass(frozen=True)
class Cost:
    """CPU per call of one scenario: microseconds of all Kamailio processes, a value for each run."""

    name: str
    yardstick: tuple[float, ...]
    sipward: tuple[float, ...]
    failed: int
    setup: dict[str, tuple[float, float]]

    @property
    def ratio(self) -> float:
        """The median of the ratios pair by pair."""
        return statistics.median(s / y for s, y in zip(self.sipward, self.yardstick, strict=True))

    @property
    def spread(self) -> float:
        """How far the yardstick's runs lie apart, against their median: the machine's noise."""
        return (max(self.yardstick) - min(self.yardstick)) / statistics.median(self.yardstick)


SCENARIOS = {
    "call": (1, "INVITE 100 180 200 ACK BYE 200"),
    "register": (1, "REGISTER with one challenge"),
    "options": (1, "OPTIONS to an instance"),
    "reinvite": (10, "re-INVITE, of a call with ten"),
}
"""Scenario -> how many of the thing that is counted one call holds, and its name."""


def cost(rig: Rig, scenario: str, rate: int, calls: int, pairs: int, transport: str = "udp") -> Cost:
    """Measure a scenario on both proxies."""
    per_call, name = SCENARIOS[scenario]
    spent: dict[str, list[float]] = {"yardstick": [], "sipward": []}
    setup: dict[str, list[float]] = {"yardstick": [], "sipward": []}
    failed = 0
    for proxy in _turns(rig, pairs):
        before = proxy.cpu()
        load = rig.load(proxy, scenario, rate, calls, transport)
        spent[proxy.name].append((proxy.cpu() - before) / (calls * per_call) * 1e6)
        setup[proxy.name] += load.setup
        failed += load.failed
    return Cost(
        f"{name}, {transport.upper()}",
        tuple(spent["yardstick"]),
        tuple(spent["sipward"]),
        failed,
        {who: percentiles(times) for who, times in setup.items() if times},
    )


def _turns(rig: Rig, pairs: int) -> Iterator[Proxy]:
    for number in range(pairs):
        yield from (rig.yardstick, rig.sipward) if number % 2 == 0 else (rig.sipward, rig.yardstick)


def percentiles(times: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(times)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
