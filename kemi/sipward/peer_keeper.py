"""Keeps a TLS connection open to each carrier that is reached over TLS, and asks over it; a process of its own."""

import os
import time
from types import ModuleType
from typing import NamedTuple

from sipward.edge import Edge
from sipward.live import PEERS, Live
from sipward.model import Endpoint, Proof
from sipward.peers import KIND, asked
from sipward.seal import Sealer
from sipward.tokens import MARK

_ALIVE = 30.0
"""Seconds between two OPTIONS to one that has answered."""
_AGAIN = 10.0
"""Seconds until one is asked again that has not."""
_REST = 1.0
"""Seconds from the end of a connection to the next one: who has read its number by then has used it."""
_OPTIONS = (
    "OPTIONS {uri} SIP/2.0\r\n"
    "Via: SIP/2.0/TLS {own};rport;branch=z9hG4bK{mark}\r\n"
    "Max-Forwards: 70\r\n"
    "From: <sip:health@{own}>;tag={mark}\r\n"
    "To: <{uri}>\r\n"
    "Call-ID: {call_id}\r\n"
    "CSeq: 1 OPTIONS\r\n"
    "Accept: application/sdp\r\n"
    "User-Agent: Sipward\r\n"
    "Content-Length: 0\r\n\r\n"
)


class _Asked(NamedTuple):
    """What the trunks ask of a target, by their names, and when it is asked itself the next time."""

    proofs: dict[str, tuple[Proof, str]]
    due: float
    is_asked: bool = False


class Keeper:
    """The connections."""

    def __init__(self, sip: ModuleType, edge: Edge, sealer: Sealer, live: Live) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._edge = edge
        self._sealer = sealer
        self._live = live
        self._known: dict[Endpoint, _Asked] = {}

    def look(self, now: float | None = None) -> None:
        """Do what is due; to be called each second."""
        now = time.monotonic() if now is None else now
        wanted = self._wanted()
        for end in self._known.keys() - wanted.keys():
            self._forget(end)
            del self._known[end]
        for end, proofs in wanted.items():
            known = self._known.get(end)
            if known and known.proofs != proofs:
                self._forget(end)
                known = None
            self._known[end] = self._looked_at(end, known or _Asked(proofs, now), now)

    def _wanted(self) -> dict[Endpoint, dict[str, tuple[Proof, str]]]:
        wanted: dict[Endpoint, dict[str, tuple[Proof, str]]] = {}
        for end, trunk, proof, name in asked(self._live):
            wanted.setdefault(end, {})[trunk] = (proof, name)
        return wanted

    def _looked_at(self, end: Endpoint, known: _Asked, now: float) -> _Asked:
        entry = self._sip.look_up(PEERS, str(end))
        if entry and not self._sip.is_alive(_number(entry)):
            self._sip.erase(PEERS, str(end))
            return known._replace(due=now + _REST)
        if now < known.due:
            return known
        if not entry and known.is_asked and not self._sip.look_up(PEERS, f"!{end}"):
            self._sip.store(PEERS, f"!{end}", "does not answer OPTIONS, or cannot be reached")
        self._ask(end, *next(iter(known.proofs.values())))
        return known._replace(due=now + (_ALIVE if entry else _AGAIN), is_asked=True)

    def _ask(self, end: Endpoint, proof: Proof, name: str) -> None:
        socket = self._edge.socket_for(self._edge.network_of(end.host), end)
        if socket is None:
            return
        mark = os.urandom(8).hex()
        text = _OPTIONS.format(
            uri=end.uri,
            own=self._edge.shown_to(self._edge.network_of(end.host), socket),
            mark=mark,
            call_id=f"{MARK}{self._sealer.seal(KIND, str(end).encode())}",
        )
        self._sip.say(end, text, name, proof.profile)

    def _forget(self, end: Endpoint) -> None:
        """End a connection: it has shown less than is asked by now, or nobody asks for it any more."""
        entry = self._sip.look_up(PEERS, str(end))
        self._sip.erase(PEERS, str(end))
        self._sip.erase(PEERS, f"!{end}")
        if entry:
            self._sip.hang_up(_number(entry))


def _number(entry: str) -> int:
    return int(entry.partition(" ")[0])
