"""SIP URIs and name-addr lists, taken apart just as far as routing needs (RFC 3261, 19.1 and 25.1)."""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Uri(NamedTuple):
    """`scheme:user@rest`, where `rest` is the host, port, parameters and headers as they were written."""

    scheme: str
    user: str
    rest: str

    @property
    def host(self) -> str:
        """The host, without port and brackets."""
        hostport = self.rest.partition(";")[0].partition("?")[0]
        if hostport.startswith("["):
            return hostport[1:].partition("]")[0]
        return hostport.partition(":")[0]

    @property
    def port(self) -> int:
        """The port, 5060 when there is none or it is no number."""
        digits = self.rest.partition(";")[0].partition("?")[0].rpartition("]")[2].partition(":")[2]
        return int(digits) if digits.isascii() and digits.isdigit() else 5060

    def param(self, name: str) -> str | None:
        """The value of a URI parameter, "" for one without a value, None for one that is not there."""
        for param in self.rest.partition("?")[0].split(";")[1:]:
            key, _, value = param.partition("=")
            if key.strip().lower() == name:
                return value.strip()
        return None

    def __str__(self) -> str:
        """The URI as text."""
        if self.scheme == "tel":
            return f"tel:{self.user}"
        return f"{self.scheme}:{self.user}@{self.rest}" if self.user else f"{self.scheme}:{self.rest}"


def parse(text: str, tel: bool = False) -> Uri | None:
    """Take a sip or sips URI apart, with `tel` also a tel URI, which is all user (RFC 3966); None for anything else.

    A tel URI has no `@` (RFC 3966, 3): as the user part of a SIP URI it would make one that nobody can read.
    """
    scheme, colon, after = text.partition(":")
    scheme = scheme.strip().lower()
    if tel and scheme == "tel" and after.strip() and "@" not in after:
        return Uri("tel", after.strip(), "")
    if not colon or scheme not in {"sip", "sips"}:
        return None
    user, at, rest = after.rpartition("@")
    if not at:
        rest = after
    rest = rest.strip()
    return Uri(scheme, user, rest) if rest else None


_EXPIRES = re.compile(r";\s*expires\s*=\s*(\d+)", re.IGNORECASE)


class NameAddr(NamedTuple):
    """One value of a Contact-like header: `display <uri>params`. `params` keeps its leading semicolon."""

    display: str
    uri: str
    params: str

    def __str__(self) -> str:
        """The value as text, always with angle brackets, so that URI parameters stay inside (RFC 3261, 20.10)."""
        return f"{self.display}<{self.uri}>{self.params}"

    def expires(self, default: str) -> int | None:
        """Seconds that a Contact is for: its own, or else those of the Expires header; None when that says nothing."""
        match = _EXPIRES.search(self.params)
        text = match[1] if match else default.strip()
        return int(text) if text.isdecimal() else None


def name_addrs(header: str) -> Iterator[NameAddr]:
    """The values of a Contact-like header's text, `*` included as the URI `*`."""
    for value in split_list(header):
        opening = _outside_quotes(value, "<")
        if opening >= 0:
            closing = value.find(">", opening)
            if closing < 0:
                continue
            yield NameAddr(value[:opening], value[opening + 1 : closing].strip(), value[closing + 1 :].strip())
        else:
            uri, semicolon, params = value.partition(";")
            yield NameAddr("", uri.strip(), semicolon + params)


def split_list(header: str) -> Iterator[str]:
    """Split a header's text at the commas that are neither quoted nor inside angle brackets."""
    if "," not in header:
        if header.strip():
            yield header.strip()
        return
    start, angle = 0, False
    for index, char in _unquoted(header):
        if char == "<":
            angle = True
        elif char == ">":
            angle = False
        elif char == "," and not angle:
            if value := header[start:index].strip():
                yield value
            start = index + 1
    if value := header[start:].strip():
        yield value


def _outside_quotes(text: str, wanted: str) -> int:
    """The index of the first `wanted` outside quotes, or -1."""
    if '"' not in text:
        return text.find(wanted)
    return next((index for index, char in _unquoted(text) if char == wanted), -1)


def _unquoted(text: str) -> Iterator[tuple[int, str]]:
    """The characters outside quoted strings, with their indexes (RFC 3261, 25.1: a backslash escapes in a string)."""
    quoted, escaped = False, False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped = char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        else:
            yield index, char
