"""What a big table costs: the same call with a few tenants loaded, and with all that `lab.many` has."""

import time

from bench.figures import Cost, cost
from bench.rig import Rig
from lab import many
from lab.redis import Hand

_GIVE_UP = 300.0


def loaded(rig: Rig, rate: int, calls: int, pairs: int) -> Cost:
    """The cost of a call once all is loaded. The tenants stay."""
    with Hand(rig.node.settings.redis_socket) as hand:
        for commands in (many.tenants(), many.trunks(), many.numbers()):
            hand.pipeline(commands)
    deadline = time.monotonic() + _GIVE_UP
    while not _is_all_there(rig):
        if time.monotonic() > deadline:
            raise RuntimeError("the table is not live")
        time.sleep(0.5)
    return cost(rig, "call", rate, calls, pairs)


def _is_all_there(rig: Rig) -> bool:
    routes = rig.node.status()["components"]["routes"]
    return bool(routes["numbers"] >= many.NUMBERS and routes["tenants"] >= many.TENANTS and not routes["loading"])
