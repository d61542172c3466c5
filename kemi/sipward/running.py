"""Running calls as all rtpengines of a node know them, looked at twice: what `sipward calls` is told."""

import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from sipward import call_facts, render
from sipward.call_facts import Call
from sipward.ng import Engine
from sipward.rpc import UnreachableError
from sipward.settings import Control, Settings


class Look(NamedTuple):
    """A call as it was seen twice, and the rtpengine that has it."""

    before: Call
    now: Call
    engine: Control

    @property
    def problem(self) -> str:
        """Why somebody hears nothing, empty when there is no sign of it."""
        return call_facts.problem(self.now, time.time())

    @property
    def losses(self) -> list[float]:
        """Of each party, which part of its packets was lost between the looks."""
        if len(self.before.parties) != len(self.now.parties):
            return [0.0 for _ in self.now.parties]
        return [call_facts.lost(*both) for both in zip(self.before.parties, self.now.parties, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        now = self.now
        return {
            "tenant": now.tenant,
            "call_id": now.call_id,
            "caller": now.caller,
            "callee": now.callee,
            "instance": now.instance,
            "age": round(time.time() - now.created),
            "answered": now.is_answered,
            "codec": now.codec,
            "rtpengine": str(self.engine),
            "parties": [
                {
                    "kind": party.kind,
                    "side": str(party.side),
                    "address": party.address,
                    "behind_nat": party.behind_nat,
                    "packets": party.packets,
                    "lost": round(loss, 3),
                    "refused": party.refused,
                    "packets_to": party.sent,
                    "silent": max(0, round(time.time() - party.last)),
                }
                for party, loss in zip(now.parties, self.losses, strict=True)
            ],
            "problem": self.problem,
        }


def look(node: Settings, call_id: str = "", between: float = 1.0) -> list[Look]:
    """Two looks at all calls, or at those of one Call-ID, so many seconds apart; the oldest first.

    Raises UnreachableError when the node's own rtpengine does not answer; of another one that is said.
    """
    first = dict(_once(node, call_id))
    if first and between:
        time.sleep(between)
    second = dict(_once(node, call_id)) if between else first
    looks = [Look(first[key], now, key[0]) for key, now in second.items() if key in first]
    return sorted(looks, key=lambda one: one.now.created)


def _once(node: Settings, call_id: str) -> Iterator[tuple[tuple[Control, str], Call]]:
    try:
        edge = render.edge(*render.read(render.run_dir(node)))
    except FileNotFoundError:
        raise UnreachableError("no node has run here yet") from None
    for control in (node.rtp.control, *(other.control for other in node.rtp.others)):
        try:
            with Engine(control) as engine:
                for name in engine.calls():
                    if call_id and call_facts.call_id_of(name) != call_id:
                        continue
                    if answer := engine.query(name):
                        yield (control, name), call_facts.read(name, answer, edge.network_of)
        except UnreachableError as error:
            if control == node.rtp.control:
                raise
            print(error, file=sys.stderr)
