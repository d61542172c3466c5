"""What there is to say of a running call, from what rtpengine knows of it. Pure.

Times are in seconds; packets are those of RTP, of all streams of a party together.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from sipward.media import BEHIND_NAT
from sipward.model import Side

SILENT_AFTER = 5
"""Seconds after the last answer, or the last packet, from which on a party that is to speak and does not is flagged."""

_LABEL = re.compile(rf"{BEHIND_NAT}?(?P<caller>[^>]*)>(?P<callee>[^@]*)(?:@(?P<trunk>.*))?$")


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a call as rtpengine meets it."""

    side: Side
    trunk: str
    """The carrier's name, empty when it is none."""
    address: str
    """Where its RTP goes to, `host:port`."""
    behind_nat: bool
    """Whether where its RTP comes from had to be learned."""
    speaks: bool
    """Whether it is to send: not on hold."""
    packets: int
    """That came from it."""
    last_seq: int
    """Of its stream with the most packets: the extended sequence number."""
    seq_packets: int
    """Packets of that stream."""
    refused: int
    """Packets that came from elsewhere than they should, and were dropped."""
    sent: int
    """Packets that went to it."""
    last: int
    """When its last packet came; when its ports were opened, before there was one."""

    @property
    def kind(self) -> str:
        """What it is, for people."""
        if self.side is Side.SERVICE:
            return "instance"
        return f"carrier {self.trunk}" if self.trunk else "phone"


@dataclass(frozen=True, slots=True)
class Call:
    """A running call. `parties`: who has called first."""

    name: str
    tenant: str
    call_id: str
    caller: str
    callee: str
    codec: str
    created: int
    signalled: int
    """When the last offer or answer came."""
    parties: tuple[Party, ...]

    @property
    def instance(self) -> str:
        """Where the instance's RTP goes, empty when there is none yet."""
        return next((party.address for party in self.parties if party.side is Side.SERVICE), "")

    @property
    def is_answered(self) -> bool:
        """Whether both parties are known."""
        return len(self.parties) > 1 and all(party.address for party in self.parties)


def call_id_of(name: str) -> str:
    """The Call-ID in what rtpengine knows a call as (`media.call_name`)."""
    return unquote(name.partition("/")[2].rpartition("/")[0])


def read(name: str, answer: dict[str, Any], side_of: Callable[[str], Side]) -> Call:
    """A call from rtpengine's answer to `query`. `side_of`: whose network holds an address."""
    tags = sorted(answer["tags"].values(), key=lambda tag: (">" not in tag.get("label", ""), tag["created"]))
    found = next((found for tag in tags if (found := _LABEL.match(tag.get("label", "")))), None)
    words = {key: unquote(value or "") for key, value in found.groupdict().items()} if found else {}
    parties = tuple(_party(tag, words.get("trunk", ""), side_of) for tag in tags if _streams(tag))
    codecs = [media.get("codec", "") for tag in tags for media in tag["medias"] if media.get("codec")]
    return Call(
        name,
        name.partition("/")[0],
        call_id_of(name),
        words.get("caller", ""),
        words.get("callee", ""),
        ", ".join(dict.fromkeys(codecs)),
        answer["created"],
        answer["last signal"],
        parties,
    )


def lost(before: Party, now: Party) -> float:
    """Which part of a party's packets was lost on the way here between two looks, 0 to 1."""
    expected, came = now.last_seq - before.last_seq, now.seq_packets - before.seq_packets
    return max(0.0, 1 - came / expected) if 0 < expected < 0x8000 else 0.0


def problem(call: Call, now: float) -> str:
    """Why somebody hears nothing, empty when there is no sign of it."""
    if not call.is_answered or now - call.signalled < SILENT_AFTER:
        return ""
    return "; ".join(why for party in call.parties if (why := _silence(party, call, now)))


def _silence(party: Party, call: Call, now: float) -> str:
    if not party.speaks or now - max(party.last, call.signalled) < SILENT_AFTER:
        return ""
    if party.refused:
        return f"{party.refused} packets for the {party.kind} came from an unexpected source"
    if party.packets:
        return f"no packets from the {party.kind} for {round(now - party.last)} s"
    if party.behind_nat:
        return f"the NAT of the {party.kind} was never opened: nothing has come from it"
    return f"no packets from the {party.kind}"


def _party(tag: dict[str, Any], trunk: str, side_of: Callable[[str], Side]) -> Party:
    streams = _streams(tag)
    end, stats = streams[0]["endpoint"], [stream["stats"] for stream in streams]
    side = side_of(end["address"])
    most = max(
        (ssrc for media in tag["medias"] for ssrc in media.get("ingress SSRCs", [])),
        key=lambda ssrc: int(ssrc["packets"]),
        default={"last RTP seq": 0, "packets": 0},
    )
    return Party(
        side,
        "" if side is Side.SERVICE else trunk,
        f"[{end['address']}]:{end['port']}" if ":" in end["address"] else f"{end['address']}:{end['port']}",
        str(tag.get("label", "")).startswith(BEHIND_NAT),
        any({"send", "recv"} <= set(media["flags"]) for media in tag["medias"]),
        sum(one["packets"] for one in stats),
        most["last RTP seq"],
        most["packets"],
        sum(one["errors"] for one in stats),
        sum(stream["stats_out"]["packets"] for stream in streams),
        max(stream["last packet"] for stream in streams),
    )


def _streams(tag: dict[str, Any]) -> list[dict[str, Any]]:
    """The streams of RTP that have an end."""
    streams = [stream for media in tag["medias"] for stream in media["streams"]]
    return [stream for stream in streams if "RTP" in stream["flags"] and stream.get("endpoint", {}).get("address")]
