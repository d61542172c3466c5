"""How soon an edit in Redis is live: from the command that is sent to the entry in the table that workers read."""

import json
import time

from bench.rig import Rig
from lab.redis import Hand
from sipward.settings import Settings

_GIVE_UP = 5.0


def milliseconds(rig: Rig, edits: int, tenants: int = 0) -> list[float]:
    """The times of single edits, with `tenants` other tenants loaded."""
    settings: Settings = rig.node.settings
    with Hand(settings.redis_socket) as hand:
        hand.pipeline(("SET", f"sipward:tenant:t{n}", _value(f"t{n}.example", 5060)) for n in range(tenants))
        if tenants:
            _until(rig, f"t{tenants - 1}.example", "5060", give_up=60.0)
        return [_edit(rig, hand, 20000 + n) for n in range(edits)]


def _edit(rig: Rig, hand: Hand, port: int) -> float:
    start = time.monotonic()
    hand.call("SET", "sipward:tenant:edited", _value("edited.example", port))
    _until(rig, "edited.example", str(port))
    return (time.monotonic() - start) * 1000


def _until(rig: Rig, domain: str, port: str, give_up: float = _GIVE_UP) -> None:
    deadline = time.monotonic() + give_up
    while port not in rig.node.live(domain):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the edit of {domain} is not live")


def _value(domain: str, port: int) -> str:
    # Ports of the node's own media range are refused: the instance is on another host.
    return json.dumps({"domains": [domain], "instances": [{"uri": f"sip:10.5.4.11:{port}"}]})
