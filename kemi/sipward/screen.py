"""What a session description may ask of the node: its size, its streams, its ports, its addresses. Pure.

A description that asks for more is refused before rtpengine sees it: each of its streams would take ports, each of its
candidates memory, and an address of its choice would get whatever its sender then says in RTP.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from sipward.decision import Answer

MOST_CHARACTERS = 16384
"""A browser's offer of audio and video has some 8,000."""
MOST_STREAMS = 16
MOST_CANDIDATES = 128

TOO_LARGE = Answer(413, "Request Entity Too Large", "sdp-too-large")
TOO_MANY_STREAMS = Answer(488, "Not Acceptable Here", "sdp-too-many-streams")
TOO_MANY_CANDIDATES = Answer(488, "Not Acceptable Here", "sdp-too-many-candidates")
BAD_PORT = Answer(488, "Not Acceptable Here", "sdp-bad-port")
BAD_ADDRESS = Answer(488, "Not Acceptable Here", "sdp-bad-address")

_TELLING = ("m=", "c=", "a=rtcp:", "a=candidate:")
"""How the lines that name ports and addresses begin."""
_MEDIA = re.compile(r"m=\S+ (\d{1,5})(?:/(\d{1,2}))? ")
"""The port, and how many of them (RFC 8866, 5.14)."""
_CONNECTION = re.compile(r"c=IN IP[46] ([^\s/]+)", re.IGNORECASE)
_RTCP = re.compile(r"a=rtcp:(\d{1,5})(?: IN IP[46] (\S+))?\s*$", re.IGNORECASE)
_CANDIDATE = re.compile(r"a=candidate:\S+ \S+ \S+ \S+ (\S+) (\d{1,5}) ")

_NO_PORT = 0
"""A stream that is refused or over (RFC 3264, 6)."""
_DISCARD = 9
"""Stands for a port that is told later: by ICE (RFC 8840, 4.1.1), or by who connects (RFC 4145, 4)."""

type Check = Callable[[str], bool]


class Asked(NamedTuple):
    """What a description asks for: so many streams, with media at these addresses."""

    streams: int
    addresses: set[str]


def look(description: str, may_have_media: Check) -> Asked | Answer:
    """What a description asks for, or why it is refused. `may_have_media`: whether RTP may go to an address."""
    if len(description) > MOST_CHARACTERS:
        return TOO_LARGE
    # Whatever ends a line for rtpengine does so here.
    lines = [line for line in description.splitlines() if line.startswith(_TELLING)]
    streams = sum(line[0] == "m" for line in lines)
    if streams > MOST_STREAMS:
        return TOO_MANY_STREAMS
    if sum(line.startswith("a=candidate") for line in lines) > MOST_CANDIDATES:
        return TOO_MANY_CANDIDATES
    for line in lines:
        if refused := _CHECKS[line[:3] if line[0] == "a" else line[0]](line, may_have_media):
            return refused
    return Asked(streams, {found[1] for line in lines if (found := _CONNECTION.match(line))})


def _media(line: str, _: Check) -> Answer | None:
    found = _MEDIA.match(line)
    if found is None or not _is_port(found[1]):
        return BAD_PORT
    return TOO_MANY_STREAMS if found[2] and int(found[2]) > 1 else None


def _connection(line: str, may_have_media: Check) -> Answer | None:
    found = _CONNECTION.match(line)
    return None if found and may_have_media(found[1]) else BAD_ADDRESS


def _rtcp(line: str, may_have_media: Check) -> Answer | None:
    found = _RTCP.match(line)
    if found is None or not _is_port(found[1]):
        return BAD_PORT
    return BAD_ADDRESS if found[2] and not may_have_media(found[2]) else None


def _candidate(line: str, may_have_media: Check) -> Answer | None:
    found = _CANDIDATE.match(line)
    if found is None:
        # rtpengine may read what we cannot.
        return BAD_ADDRESS
    # A browser's name for its own address is looked up by nobody (mDNS).
    return None if found[1].endswith(".local") or may_have_media(found[1]) else BAD_ADDRESS


_CHECKS = {"m": _media, "c": _connection, "a=r": _rtcp, "a=c": _candidate}


def _is_port(text: str) -> bool:
    """Whether RTP may go to a port: to none of those below 1024, where other services listen."""
    port = int(text)
    return 1024 <= port <= 65535 or port in (_NO_PORT, _DISCARD)
