"""The header part of a message as lines, for changes that concern all of it (RFC 3261, 7.3)."""

import re

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
