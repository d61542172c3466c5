"""A table as a big node has it: 100,000 tenants, 200,000 instances, a million numbers, a thousand trunks."""

import json
from collections.abc import Iterator

TENANTS = 100_000
NUMBERS = 1_000_000
TRUNKS = 1000
SERVICE_NETWORKS = ("10.5.4.0/24", "10.64.0.0/10")
"""What a node must be told for these instances."""

type Command = tuple[str, str, str]


def tenants(instances: int = 2) -> Iterator[Command]:
    """Commands for all tenants with so many instances each, none of them at an address of another."""
    for n in range(TENANTS):
        hosts = [f"10.{64 + (one >> 16)}.{one >> 8 & 255}.{one & 255}" for one in range(2 * n, 2 * n + instances)]
        value = {"domains": [f"t{n}.example"], "instances": [{"uri": f"sip:{host}"} for host in hosts]}
        yield "SET", f"sipward:tenant:t{n}", json.dumps(value)


def numbers() -> Iterator[Command]:
    """Commands for all numbers of these tenants."""
    for n in range(NUMBERS):
        yield "SET", f"sipward:number:+39072{n:07}", json.dumps({"tenant": f"t{n // 10}"})


def trunks() -> Iterator[Command]:
    """Commands for all trunks."""
    for n in range(TRUNKS):
        addresses = [f"198.51.{n >> 8}.{n & 255}", f"192.0.{n >> 8}.{n & 255}:5070"]
        yield "SET", f"sipward:trunk:c{n}", json.dumps({"addresses": addresses, "tenants": [f"t{n}"]})
