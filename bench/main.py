"""`sipward bench`: prints each figure of Sipward beside the yardstick's, and their ratio."""

import json
import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.edits import milliseconds
from bench.figures import SCENARIOS, Cost, cost, percentiles
from bench.keepalive import keepalive
from bench.rig import rig
from bench.scale import Rows, loaded, starts_and_edits


def main(quick: bool = False, output: Path | None = None) -> int:
    """Run the bench; `output` is where the figures go as JSON. Returns the exit code: 1 when a call failed."""
    console = Console()
    pairs, calls, rate = (2, 600, 150) if quick else (6, 5000, 150)
    costs: list[Cost] = []
    edits: dict[str, tuple[float, float]] = {}
    with rig() as machines:
        for scenario, (per_call, name) in SCENARIOS.items():
            console.print(f"measuring: {name} ...")
            costs.append(cost(machines, scenario, max(rate // per_call, 20), calls // per_call, pairs))
        for others in (0, 10_000 if quick else 100_000):
            console.print(f"measuring: edits, with {others} other tenants ...")
            edits[str(others)] = percentiles(milliseconds(machines, 200 if quick else 1000, others))
        if not quick:
            console.print("measuring: a call, with 100,000 tenants, 200,000 instances and 1,000,000 numbers ...")
            big = loaded(machines, rate, calls, pairs)
            costs.append(replace(big, name=f"{big.name}, all loaded"))
    scale: Rows = []
    if not quick:
        console.print("measuring: starts, edits and memory with all of that ...")
        scale = starts_and_edits()
        # Each beside the yardstick of its own time: the machine has changed between them.
        more = costs[-1].ratio / costs[0].ratio
        scale.append(("a call costs, against one with one tenant", f"{more:.2f}"))
    console.print("measuring: flows that are kept alive ...")
    kept = keepalive(10 if quick else 60)
    console.print(_table(costs))
    for what, figure in scale:
        console.print(f"with 100,000 tenants, 200,000 instances, 1,000,000 numbers: {what}: {figure}")
    for tenants, (p50, p99) in edits.items():
        console.print(f"an edit in Redis is live, with {tenants} other tenants: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    console.print(kept.text)
    console.print(f"load average {os.getloadavg()[0]:.1f}; steal {_steal():.1f} % since the machine started")
    if output:
        output.write_text(
            json.dumps(
                {
                    "cost": [_as_json(c) for c in costs],
                    "edit_ms": edits,
                    "scale": dict(scale),
                    "keepalive": kept.shares,
                },
                indent=2,
            )
            + "\n"
        )
    return 1 if any(c.failed for c in costs) else 0


def _table(costs: list[Cost]) -> Table:
    table = Table(
        "CPU of all Kamailio processes, us for each",
        "yardstick",
        "Sipward",
        "ratio",
        "noise",
        "failed",
        "setup p50/p99",
    )
    for c in costs:
        setup = " ".join(f"{who[0]} {p50:.1f}/{p99:.1f} ms" for who, (p50, p99) in c.setup.items())
        table.add_row(
            c.name,
            f"{statistics.median(c.yardstick):.0f}",
            f"{statistics.median(c.sipward):.0f}",
            f"{c.ratio:.2f}",
            f"{c.spread:.0%}",
            str(c.failed),
            setup,
        )
    return table


def _as_json(c: Cost) -> dict[str, Any]:
    return {"name": c.name, "yardstick_us": c.yardstick, "sipward_us": c.sipward, "ratio": c.ratio,
            "failed": c.failed, "setup_ms": c.setup}  # fmt: skip


def _steal() -> float:
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return 100 * fields[7] / sum(fields)
