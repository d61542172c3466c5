"""What a session description may ask of the node: its size, its streams, its ports, its addresses. Pure.

A description that asks for more is refused before rtpengine sees it: each of its streams would take ports, each of its
candidates memory, and an address of its choice would get whatever its sender then says in RTP.
"""

import re
from collections.abc import Callable

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

_LINE = re.compile(r"(?<![^\r\n])(m|c|a=rtcp|a=candidate)[=:]([^\r\n]*)")
"""The lines that name ports and addresses; whatever ends a line, as rtpengine reads it."""
_MEDIA = re.compile(r"\S+ (\d{1,5})(?:/(\d{1,2}))? ")
"""Of an m= line: the port, and how many of them (RFC 8866, 5.14)."""
_STREAM = re.compile(r"(?<![^\r\n])m=")
_RTCP = re.compile(r"(\d{1,5})(?: IN IP[46] (\S+))?\s*$", re.IGNORECASE)
_CONNECTION = re.compile(r"IN IP[46] ([^\s/]+)", re.IGNORECASE)
_CANDIDATE = re.compile(r"\S+ \S+ \S+ \S+ (\S+) (\d{1,5}) ")

_NO_PORT = 0
"""A stream that is refused or over (RFC 3264, 6)."""
_DISCARD = 9
"""Stands for a port that is told later: by ICE (RFC 8840, 4.1.1), or by who connects (RFC 4145, 4)."""


type Check = Callable[[str], bool]


def refusal(description: str, may_have_media: Check) -> Answer | None:
    """Why a description is refused, None when it is not. `may_have_media`: whether RTP may go to an address."""
    if len(description) > MOST_CHARACTERS:
        return TOO_LARGE
    lines = _LINE.findall(description)
    if sum(kind == "m" for kind, _ in lines) > MOST_STREAMS:
        return TOO_MANY_STREAMS
    if sum(kind == "a=candidate" for kind, _ in lines) > MOST_CANDIDATES:
        return TOO_MANY_CANDIDATES
    for kind, value in lines:
        if refused := _CHECKS[kind](value, may_have_media):
            return refused
    return None


def _media(value: str, _: Check) -> Answer | None:
    found = _MEDIA.match(value)
    if found is None or not _is_port(found[1]):
        return BAD_PORT
    return TOO_MANY_STREAMS if found[2] and int(found[2]) > 1 else None


def _connection(value: str, may_have_media: Check) -> Answer | None:
    found = _CONNECTION.match(value)
    return None if found and may_have_media(found[1]) else BAD_ADDRESS


def _rtcp(value: str, may_have_media: Check) -> Answer | None:
    found = _RTCP.match(value)
    if found is None or not _is_port(found[1]):
        return BAD_PORT
    return BAD_ADDRESS if found[2] and not may_have_media(found[2]) else None


def _candidate(value: str, may_have_media: Check) -> Answer | None:
    found = _CANDIDATE.match(value)
    # A browser's name for its own address is looked up by nobody (mDNS).
    return BAD_ADDRESS if found and not (found[1].endswith(".local") or may_have_media(found[1])) else None


_CHECKS = {"m": _media, "c": _connection, "a=rtcp": _rtcp, "a=candidate": _candidate}


def streams(description: str) -> int:
    """How many streams a description has."""
    return len(_STREAM.findall(description))


def _is_port(text: str) -> bool:
    """Whether RTP may go to a port: to none of those below 1024, where other services listen."""
    port = int(text)
    return 1024 <= port <= 65535 or port in (_NO_PORT, _DISCARD)
