"""Session descriptions as text: found in a body, put back into it, cleared of what rtpengine leaves (RFC 8866)."""

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network

from sipward.model import Srtp

_BOUNDARY = re.compile(r'boundary\s*=\s*(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)
_CONNECTION = re.compile(r"^c=IN IP([46]) ([0-9A-Fa-f.:]+)", re.MULTILINE)
_INNER = [ip_network(each) for each in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
          "172.16.0.0/12", "192.168.0.0/16", "::/127", "fc00::/7", "fe80::/10")]  # fmt: skip
"""Private, shared, link-local and loopback addresses (RFC 1918, 6598, 3927, 4193, 4291)."""
_IS_SDP = re.compile(r"^content-type\s*:\s*application/sdp\b|^c\s*:\s*application/sdp\b", re.IGNORECASE | re.MULTILINE)


def find(content_type: str, body: str) -> str:
    """The description in a body: the body itself, or the first one of a multipart body; "" when there is none."""
    kind = content_type.lstrip().lower()
    if kind.startswith("application/sdp"):
        return body
    found = _part(content_type, body) if kind.startswith("multipart/") else None
    return body[found[0] : found[1]] if found else ""


def put(content_type: str, body: str, description: str) -> str:
    """The body with another description in the place of the one that `find` finds."""
    found = _part(content_type, body) if content_type.lstrip().lower().startswith("multipart/") else None
    return body[: found[0]] + description + body[found[1] :] if found else description


def cleared(description: str, is_inner: Callable[[str], bool]) -> str:
    """A description without the lines that name an inner address and that nobody can use: attributes and remarks.

    A connection that is left is one that rtpengine does not carry: its address becomes the one that says "none".
    """
    lines: list[str] = []
    for line in description.replace("\r\n", "\n").split("\n"):
        if not is_inner(line):
            lines.append(line)
        elif line.startswith("c="):
            lines.append("c=IN IP4 0.0.0.0")
        elif line.startswith("s="):
            lines.append("s=-")
        elif line.startswith("o="):
            lines.append("o=- 0 0 IN IP4 0.0.0.0")
    return "\r\n".join(lines)


def names_other_family(description: str, ipv6: bool) -> bool:
    """Whether the streams are all at addresses of the other IP family, and of those that a NAT need not translate.

    A stream's own `c=` line counts, the session's for streams without one.
    """
    session, *streams = re.split(r"^m=", description, flags=re.MULTILINE)
    default = _CONNECTION.search(session)
    found = [connection for text in streams if (connection := _CONNECTION.search(text) or default)]
    return bool(found) and all((c[1] == "6") is not ipv6 and _is_routed(c[2]) for c in found)


def _is_routed(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return not any(address in network for network in _INNER)


def _part(content_type: str, body: str) -> tuple[int, int] | None:
    """Where the description of a multipart body begins and ends (RFC 2046, 5.1)."""
    named = _BOUNDARY.search(content_type)
    if named is None:
        return None
    mark = "--" + (named[1] or named[2])
    start = body.find(mark)
    while start >= 0:
        end = body.find(mark, start + len(mark))
        head = body.find("\r\n\r\n", start, end if end >= 0 else len(body))
        if head >= 0 and end >= 0 and _IS_SDP.search(body[start:head].replace("\r\n", "\n")):
            # The line break before a boundary belongs to the boundary; a description ends with one of its own.
            return head + 4, end - 2 if body[end - 4 : end] == "\r\n\r\n" else end
        start = end
    return None


def srtp(description: str) -> Srtp:
    """How a description offers its media: as SRTP when any of it is, SDES before DTLS."""
    if "\na=crypto:" in description:
        return Srtp.SDES
    return Srtp.DTLS if "\na=fingerprint:" in description and "SAVP" in description else Srtp.OFF


def ordered(description: str, names: Sequence[str]) -> str:
    """A description whose audio has these codecs first, in this order (RFC 3264, 5.1: the first is preferred)."""
    places = {name.lower(): place for place, name in enumerate(names)}
    first, *sections = description.split("\nm=")
    return "\nm=".join([first, *(_ordered(section, places) for section in sections)])


def _ordered(section: str, places: Mapping[str, int]) -> str:
    """A media section, without its `m=`."""
    line = _AUDIO.match(section)
    if line is None:
        return section
    codecs = _STATIC | {number: name.lower() for number, name in _RTPMAP.findall(section)}
    types = sorted(line[2].split(), key=lambda number: places.get(codecs.get(number, ""), len(places)))
    return f"{line[1]}{' '.join(types)}{section[line.end() :]}"


_AUDIO = re.compile(r"(audio \S+ \S+ )(\d+(?: \d+)*)")
_RTPMAP = re.compile(r"^a=rtpmap:(\d+) ([^/\s]+)", re.MULTILINE)
_STATIC = {"0": "pcmu", "3": "gsm", "8": "pcma", "9": "g722", "18": "g729"}
"""Payload types that need no rtpmap (RFC 3551, 6)."""
