"""What a big table costs, all that `lab.many` has: starts, edits and memory, and the same call with and without it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.figures import Cost, cost, percentiles
from bench.rig import Rig
from lab import many
from lab.eventually import eventually, seconds_until
from lab.network import Lab
from lab.node import Node
from lab.redis import Hand, Redis

_GIVE_UP = 300.0
_EDITS = 200
_LEAST = (30 << 20, 80 << 20, 1 << 16)
"""Bytes of the tables of tenants, numbers and trunks once all is on disk."""


class Start(NamedTuple):
    """What a start has taken and what it has left: seconds, of them CPU of the thread that loads; MB."""

    seconds: float
    cpu: float
    own: float
    shared: float

    def __str__(self) -> str:
        """For people."""
        return f"{self.seconds:.1f} s, of them {self.cpu:.1f} s CPU of the process that loads"


type Rows = list[tuple[str, str]]


def starts_and_edits() -> Rows:
    """Fill a Redis step by step, start a node on it each time, edit, and start it from its last good table."""
    with Lab() as lab:
        node = Node(lab)
        with Redis(node.machine) as redis, Hand(redis.socket) as hand:
            networks = {"service_networks": list(many.SERVICE_NETWORKS)}
            node = Node(lab, settings={"redis": {"url": redis.url}, "network": networks})
            sizes = [_start_afresh(node)]
            for commands in (many.tenants(1), many.tenants(2), many.numbers()):
                hand.pipeline(commands)
                sizes.append(_start_afresh(node))
            hand.pipeline(many.trunks())
            from_redis = _start(node)
            _expect_all(node)
            rows = [
                ("a start from Redis", str(from_redis)),
                ("an edit of a tenant is live", _live(_tenant_edits(node, hand))),
                ("an edit of a number is live", _live(_number_edits(node, hand))),
            ]
            eventually(lambda: all(path.exists() for path in _tables(node)), _GIVE_UP)
            node.stop()
        from_disk = _start(node)
        _expect_all(node)
        on_disk = [path.stat().st_size >> 20 for path in _tables(node)]
        node.stop()
    rows.append(("a start from the last good table", str(from_disk)))
    rows += _memory(sizes, from_redis)
    rows.append(("on disk: tenants, numbers, trunks", f"{on_disk} MB"))
    return rows


def loaded(rig: Rig, rate: int, calls: int, pairs: int) -> Cost:
    """The cost of a call once all is loaded. The tenants stay."""
    with Hand(rig.node.settings.redis_socket) as hand:
        for commands in (many.tenants(), many.trunks(), many.numbers()):
            hand.pipeline(commands)
    eventually(lambda: _is_all_there(rig.node), _GIVE_UP, "all is live")
    # Writing the last good table is the load's work, and no call's.
    eventually(lambda: _is_on_disk(rig.node), _GIVE_UP, "all is on disk")
    return cost(rig, "call", rate, calls, pairs)


def _start(node: Node) -> Start:
    seconds = seconds_until(lambda: (node.start(within=_GIVE_UP), True), _GIVE_UP)
    pid = next(process["PID"] for process in node.rpc("core.psx") if "sync" in process["DSC"])
    # Its first thread; another one asks the instances.
    user, system = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    cpu = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return Start(seconds, cpu, _own_memory(pid), node.rpc("core.shmmem")["used"] / (1 << 20))


def _start_afresh(node: Node) -> Start:
    """Start from Redis alone, and stop."""
    found = _start(node)
    node.stop()
    for path in _tables(node):
        path.unlink(missing_ok=True)
    return found


def _own_memory(pid: int) -> float:
    """MB of a process that it shares with none."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def _tables(node: Node) -> list[Path]:
    return [node.settings.table_file(kind) for kind in ("tenant", "number", "trunk")]


def _expect_all(node: Node) -> None:
    if not _is_all_there(node) or node.live("#+390720999999") != "@t99999":
        raise RuntimeError(f"not all is live: {node.status()['components']['routes']}")


def _is_all_there(node: Node) -> bool:
    routes = node.status()["components"]["routes"]
    return bool(routes["numbers"] >= many.NUMBERS and routes["tenants"] >= many.TENANTS and not routes["loading"])


def _is_on_disk(node: Node) -> bool:
    time.sleep(1.0)
    return all(path.exists() and path.stat().st_size > least for path, least in zip(_tables(node), _LEAST, strict=True))


def _tenant_edits(node: Node, hand: Hand) -> list[float]:
    def edit(n: int) -> tuple[str, str, Callable[[], bool]]:
        value = {"domains": ["t50000.example"], "instances": [{"uri": f"sip:10.5.4.99:{6000 + n}"}]}
        is_live = lambda: f'"10.5.4.99",{6000 + n},' in node.live("t50000.example")  # noqa: E731
        return "sipward:tenant:t50000", json.dumps(value), is_live

    return [_edit(hand, *edit(n)) for n in range(_EDITS)]


def _number_edits(node: Node, hand: Hand) -> list[float]:
    def edit(n: int) -> tuple[str, str, Callable[[], bool]]:
        is_live = lambda: node.live("#+390720500000") == f"@e{n}"  # noqa: E731
        return "sipward:number:+390720500000", json.dumps({"tenant": f"e{n}"}), is_live

    return [_edit(hand, *edit(n)) for n in range(_EDITS)]


def _edit(hand: Hand, key: str, value: str, is_live: Callable[[], bool]) -> float:
    """Milliseconds from a SET to its effect in the table that workers read."""
    start = time.monotonic()
    hand.call("SET", key, value)
    eventually(is_live, _GIVE_UP, f"the edit of {key}")
    return (time.monotonic() - start) * 1000


def _live(times: list[float]) -> str:
    p50, p99 = percentiles(times)
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _memory(sizes: list[Start], everything: Start) -> Rows:
    rows = [(f"memory, {what}", f"{start.own:.0f} MB of the sync process, {start.shared:.0f} MB shared")
            for what, start in (("nothing loaded", sizes[0]), ("all loaded", everything))]  # fmt: skip
    steps = zip(
        ("tenants with an instance", "further instances", "numbers"), (1, 1, 10), sizes, sizes[1:], strict=False
    )
    for what, times, before, after in steps:
        own, shared = (after.own - before.own) / times, (after.shared - before.shared) / times
        rows.append((f"memory, 100,000 {what}", f"{own:.0f} MB of the sync process, {shared:.0f} MB shared"))
    return rows
