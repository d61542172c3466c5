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
_RTCP = re.compile(r"(\d{1,5})(?: IN IP[46] (\S+))?\s*$", re.IGNORECASE)
_CONNECTION = re.compile(r"IN IP[46] ([^\s/]+)", re.IGNORECASE)
_CANDIDATE = re.compile(r"\S+ \S+ \S+ \S+ (\S+) (\d{1,5}) ")

_NO_PORT = 0
"""A stream that is refused or over (RFC 3264, 6)."""
_DISCARD = 9
"""Stands for a port that is told later: by ICE (RFC 8840, 4.1.1), or by who connects (RFC 4145, 4)."""


def refusal(description: str, may_have_media: Callable[[str], bool]) -> Answer | None:
    """Why a description is refused, None when it is not. `may_have_media`: whether RTP may go to an address."""
    if len(description) > MOST_CHARACTERS:
        return TOO_LARGE
    streams = candidates = 0
    for kind, value in _LINE.findall(description):
        match kind:
            case "m":
                media = _MEDIA.match(value)
                if media is None or not _is_port(media[1]):
                    return BAD_PORT
                streams += int(media[2] or 1)
            case "c":
                connection = _CONNECTION.match(value)
                if connection is None or not may_have_media(connection[1]):
                    return BAD_ADDRESS
            case "a=rtcp":
                rtcp = _RTCP.match(value)
                if rtcp is None or not _is_port(rtcp[1]):
                    return BAD_PORT
                if rtcp[2] and not may_have_media(rtcp[2]):
                    return BAD_ADDRESS
            case _:
                candidate = _CANDIDATE.match(value)
                if candidate and not (_is_name(candidate[1]) or may_have_media(candidate[1])):
                    return BAD_ADDRESS
                candidates += 1
    if streams > MOST_STREAMS:
        return TOO_MANY_STREAMS
    return TOO_MANY_CANDIDATES if candidates > MOST_CANDIDATES else None


def _is_port(text: str) -> bool:
    """Whether RTP may go to a port: to none of those below 1024, where other services listen."""
    port = int(text)
    return 1024 <= port <= 65535 or port in (_NO_PORT, _DISCARD)


def _is_name(host: str) -> bool:
    """Whether it is a browser's name for its own address, which nobody looks up (mDNS)."""
    return host.endswith(".local")
