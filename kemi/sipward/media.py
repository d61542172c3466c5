"""What rtpengine is told about a call: pure functions from sides and tenant to the flags of one command.

The rules behind the flags: towards clients the source of RTP is learned, ranked by likeness to what signalling says,
and then pinned (`strict-source`); an instance's media addresses are known, so nothing is learned there. The Call-ID
that rtpengine sees carries the tenant's name, so that equal Call-IDs of two tenants never meet, and tells the INVITEs
of one Call-ID apart, so that the end of one does not end the media of another.
"""

import re

from sipward import sdp
from sipward.model import Side

OFFERING = frozenset({"INVITE", "UPDATE", "PRACK", "ACK"})
"""Methods whose bodies take part in offer/answer (RFC 6337, table 1)."""

_AT_SOURCE = "SIP-source-address"
_SENDER = {
    # A client's SDP may name an address behind a NAT; where its SIP comes from is where its RTP will come from.
    Side.OUTSIDE: f"{_AT_SOURCE} endpoint-learning=heuristic strict-source",
    Side.LOCAL: "endpoint-learning=heuristic strict-source",
    Side.SERVICE: "endpoint-learning=off strict-source",
}


def offer(call: str, sender: Side, receiver: Side, receiver_ipv6: bool, fixed: bool = False) -> str:
    """Flags of an offer that `sender` made and `receiver` will get (RFC 3264). `fixed`: as in `answer`."""
    family = "IP6" if receiver_ipv6 else "IP4"
    flags = f"direction={sender} direction={receiver} address-family={family} {_sender(sender, fixed)}"
    return f"call-id={call} {flags} {_COMMON}"


def answer(call: str, sender: Side, fixed: bool = False) -> str:
    """Flags of an answer that `sender` made. `fixed`: the outer end is a carrier whose media addresses are known."""
    return f"call-id={call} {_sender(sender, fixed)} {_COMMON}"


def _sender(side: Side, fixed: bool) -> str:
    return _SENDER[Side.SERVICE if fixed else side]


def by_description(flags: str, description: str, source_ipv6: bool) -> str:
    """The flags of an offer or answer of a phone that signals by one IP family and has its streams in the other."""
    at_source = f"{_AT_SOURCE} "
    if at_source in flags and sdp.names_other_family(description, source_ipv6):
        return flags.replace(at_source, "")
    return flags


def end(call: str) -> str:
    """Flags that end a call, with all that its forks have left: with a tag rtpengine would keep the others' parts."""
    return f"call-id={call} from-tag="


def end_of_one(call: str) -> str:
    """Flags that end what the sender of the running message has of a call."""
    return f"call-id={call}"


def call_name(tenant: str, call_id: str, media: int) -> str:
    """What rtpengine knows a call as. `media`: see `tokens.Dialog`."""
    # A blank would end a flag and begin one of the caller's choice: it is encoded.
    return f"{tenant}/{_UNSAFE.sub(_percent, call_id)}/{media:08x}"


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in match[0].encode())


_UNSAFE = re.compile(r"[^!-~]|%")
"""All but visible ASCII, and the percent sign itself, so that no two Call-IDs become one."""

_COMMON = "replace-origin replace-session-connection RTP/AVP ICE=remove rtcp-mux-demux"

REJECTED = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n"
"""An SDP without media (port 0, RFC 3264, 6): stands in for an answer that rtpengine could not take, since an SDP
passed on unchanged would show addresses of the wrong side and carry no audio."""
