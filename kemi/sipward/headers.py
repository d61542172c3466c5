"""The header part of a message as lines, for changes that concern all of it (RFC 3261, 7.3)."""

import re
from collections.abc import Iterator

FORWARDED_FOR = "X-Forwarded-For"
"""Tells an instance where a request comes from: one IP address."""
TRUNK = "X-Sipward-Trunk"
"""Tells an instance by which trunk."""
INTERNAL = frozenset({"x-forwarded-for", "x-sipward-trunk", "istrunk", "topos"})
"""Header fields that only the node and its instances say to each other."""
ASSERTED = frozenset({"p-asserted-identity", "remote-party-id", "diversion", "history-info", "p-charging-vector"})
"""What is believed of a caller only from those who are trusted (RFC 3325, 5806, 7044, 7315)."""
IDENTITY = ASSERTED | {"p-preferred-identity", "privacy"}
"""What a PBX says of its caller beside the From."""
INTERNAL_AND_ASSERTED = INTERNAL | ASSERTED
INTERNAL_AND_IDENTITY = INTERNAL | IDENTITY

_FOLD = re.compile(r"\r?\n[ \t]+")
_LONG_NAMES = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
"""The compact forms (IANA, SIP header fields)."""


def lines(head: str) -> list[str]:
    """The start line and the header fields, each on one line."""
    return _FOLD.sub(" ", head).replace("\r\n", "\n").split("\n")


def field(line: str) -> tuple[str, str]:
    """A header field's name, in lower case and never in its compact form, and its value."""
    name, _, value = line.partition(":")
    name = name.strip().lower()
    return _LONG_NAMES.get(name, name), value.strip()


def places(head: str, wanted: str) -> Iterator[int]:
    """Where a text stands in the header part."""
    at = head.find(wanted)
    while at >= 0:
        yield at
        at = head.find(wanted, at + 1)


def name_at(head: str, at: int) -> str:
    """The name, as `field` gives it, of the header field that an index is in; "" for the start line."""
    start = head.rfind("\n", 0, at) + 1
    while start and head[start] in " \t":
        start = head.rfind("\n", 0, start - 1) + 1
    return field(head[start:at])[0] if start else ""
