"""Which flow each registered phone is at, so that one that has moved is at one place, and its NAT keeps it reachable.

| key in `flows` | value: a `Registration` |
| --- | --- |
| a hash of tenant, AoR and phone | `acme 1764000000 1 udp:198.51.100.7:40123 sip:201@10.5.4.1:5060;sw=...` |

A phone is known by its `+sip.instance` (RFC 5626, 4.1), or else by the Call-ID that it keeps for all its registrations
(RFC 3261, 10.2.4): two phones of one user, behind two NATs with the same addresses inside, are still two. Nothing is
kept before the registrar has answered 2xx.
"""

import re
import time
from _blake2 import blake2b
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import NamedTuple, Self

from sipward.concealment import Bound
from sipward.decision import Request
from sipward.live import FLOWS, domain_key
from sipward.model import Endpoint, Side

_NAME = "registration"
_NEEDS_PING = "!"
_CONTACTS_MAX = 8
"""Of one phone: a REGISTER may have any number."""
_CONTACT_MAX = 512
"""Characters of a Contact that is kept: ours are some 150 and what the phone has made of its own."""
_LONGEST = 7 * 86_400
_DEFAULT = 3600
"""Seconds, when a registrar does not say how long (RFC 3261, 10.2.1.1 leaves it to us)."""
_INSTANCE = re.compile(r'\+sip\.instance\s*=\s*("[^"]*")', re.IGNORECASE)
_FLOW_OF_INSTANCE = re.compile(r";\s*reg-id\s*=\s*(\d+)", re.IGNORECASE)
_SENT_BY = re.compile(r"SIP\s*/\s*2\.0\s*/\s*\w+\s+(\[[^\]]+\]|[^\s:;,]+)(?:\s*:\s*(\d+))?", re.IGNORECASE)


class Registration(NamedTuple):
    """A phone as its registrar knows it.

    `until`: when it ends, in seconds since 1970; `is_pinged`: the flow is through a NAT that would forget it;
    `contacts`: the URIs that the registrar has.
    """

    tenant: str
    until: int
    is_pinged: bool
    flow: Endpoint
    contacts: tuple[str, ...]

    def __str__(self) -> str:
        """One line, which `read` reads."""
        return f"{self.tenant} {self.until} {int(self.is_pinged)} {self.flow} {' '.join(self.contacts)}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a line. Raises ValueError."""
        tenant, until, pinged, flow, *contacts = text.split(" ")
        return cls(tenant, int(until), pinged == "1", Endpoint.parse(flow), tuple(contacts))


class Registrations:
    """The registrations as one worker sees them come and go."""

    def __init__(self, sip: ModuleType) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip

    def begin(self, request: Request, tenant: str) -> list[str]:
        """Note whose REGISTER it is; Contact values that remove what the phone has left at its registrar elsewhere.

        RFC 3261, 10.2.2: a binding is removed by its Contact with `expires=0`, beside others that are added.
        """
        sip = self._sip
        contacts = sip.contacts()
        if not contacts or request.callee is None:
            return []
        key = _key(request, tenant, contacts)
        pinged = _NEEDS_PING if _is_translated(request, sip.header("Via")) else ""
        sip.remember(_NAME, f"{key}{pinged}")
        if contacts[0].strip() == "*" or not (entry := sip.look_up(FLOWS, key)):
            return []
        last = Registration.read(entry)
        return [] if last.flow == request.source else [f"<{uri}>;expires=0" for uri in last.contacts]

    def answered(self, tenant: str, side: Side, flow: Endpoint, bound: Sequence[Bound]) -> int:
        """Keep what the registrar has answered 2xx: the phone's Contacts at this flow, or that it has none any more.

        Returns for how many seconds it is registered there; 0 when it is not.
        """
        noted, seconds = self._sip.recall(_NAME), self._seconds(bound)
        if not noted:
            return seconds
        key, now = noted.removesuffix(_NEEDS_PING), int(time.time())
        if not seconds:
            self._sip.erase(FLOWS, key)
            self._sip.tell(FLOWS, key, "")
            return 0
        seen = noted.endswith(_NEEDS_PING) or any((b.own.host, b.own.port) != (flow.host, flow.port) for b in bound)
        pinged = seen and side is Side.OUTSIDE and flow.transport == "udp"
        contacts = tuple(each.inner.uri for each in bound[:_CONTACTS_MAX] if len(each.inner.uri) <= _CONTACT_MAX)
        text = str(Registration(tenant, now + seconds, pinged, flow, contacts))
        self._sip.store_for(FLOWS, key, text, seconds)
        self._sip.tell(FLOWS, key, text)
        return seconds

    def _seconds(self, bound: Sequence[Bound]) -> int:
        """How long the longest of them lasts; 0 when there is none."""
        said = self._sip.header("Expires") if bound else ""
        times = [each.inner.expires(said) for each in bound]
        return min(max((_DEFAULT if seconds is None else seconds for seconds in times), default=0), _LONGEST)


def _key(request: Request, tenant: str, contacts: Iterable[str]) -> str:
    """Who registers. Hashed, for a phone may give itself a name of any length."""
    for text in contacts:
        if found := _INSTANCE.search(text):
            number = _FLOW_OF_INSTANCE.search(text)
            phone = f"{found[1]} {number[1] if number else ''}"
            break
    else:
        phone = f"{request.source.transport} {request.call_id}"
    user = request.callee
    aor = f"{user.user}@{domain_key(user.host)}" if user else ""
    return blake2b(f"{tenant}\0{aor}\0{phone}".encode(), digest_size=16).hexdigest()


def _is_translated(request: Request, via: str) -> bool:
    """Whether a Via says another address than the one it came from (RFC 3581): a NAT is between."""
    match = _SENT_BY.match(via.strip())
    if match is None:
        return True
    return (match[1].strip("[]"), int(match[2] or 5060)) != (request.source.host, request.source.port)
