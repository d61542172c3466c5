"""What rtpengine is told about a call: pure functions from sides and tenant to the flags of one command.

The rules behind the flags: towards clients the source of RTP is learned, ranked by likeness to what signalling says,
and then pinned (`strict-source`); an instance's media addresses are known, so nothing is learned there. The Call-ID
that rtpengine sees carries the tenant's name, so that equal Call-IDs of two tenants never meet, and tells the INVITEs
of one Call-ID apart, so that the end of one does not end the media of another.
"""

import re

from sipward.model import Side

OFFERING = frozenset({"INVITE", "UPDATE", "PRACK", "ACK"})
"""Methods whose bodies take part in offer/answer (RFC 6337, table 1)."""

_SENDER = {
    # The SDP of a client behind a NAT names an address of the inside; where its SIP comes from its RTP will.
    Side.OUTSIDE: "SIP-source-address endpoint-learning=heuristic strict-source",
    Side.LOCAL: "endpoint-learning=heuristic strict-source",
    Side.SERVICE: "endpoint-learning=off strict-source",
}


def offer(
    call: str,
    sender: Side,
    receiver: Side,
    receiver_ipv6: bool,
    fixed: bool = False,
    begins: bool = False,
    parties: str = "",
) -> str:
    """Flags of an offer that `sender` made and `receiver` will get (RFC 3264). `fixed`: as in `answer`.

    `begins`: the call's first one. Until it is answered nobody's RTP passes: it could be anybody's.
    """
    family = "IP6" if receiver_ipv6 else "IP4"
    flags = f"direction={sender} direction={receiver} address-family={family} {_sender(sender, fixed)}"
    first = f" drop-traffic=start{_label(sender, fixed, parties)}" if begins else ""
    return f"call-id={call} {flags} {_COMMON}{first}"


def answer(call: str, sender: Side, fixed: bool = False, begins: bool = False) -> str:
    """Flags of an answer that `sender` made. `fixed`: RTP of the outer end comes from where its description says."""
    first = _label(sender, fixed) if begins else ""
    return f"call-id={call} {_sender(sender, fixed)} {_COMMON} drop-traffic=stop{first}"


def parties(caller: str, callee: str, trunk: str) -> str:
    """Who calls whom, by which trunk, for people who look at running calls (`call_facts`)."""
    names = [_ODD.sub(_percent, name) for name in (caller, callee, trunk)]
    return f"{names[0]}>{names[1]}" + (f"@{names[2]}" if trunk else "")


def _label(side: Side, fixed: bool, parties: str = "") -> str:
    """What rtpengine remembers for us of the sender."""
    text = f"{'' if fixed or side is Side.SERVICE else BEHIND_NAT}{parties}"
    return f" label={text}" if text else ""


def _sender(side: Side, fixed: bool) -> str:
    return _SENDER[Side.SERVICE if fixed else side]


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


BEHIND_NAT = "~"
"""Begins the label of a party whose RTP comes from where it has to be learned."""
_ODD = re.compile(r"[^A-Za-z0-9+._-]")
_UNSAFE = re.compile(r"[^!-~]|%")
"""All but visible ASCII, and the percent sign itself, so that no two Call-IDs become one."""

_COMMON = "replace-origin replace-session-connection RTP/AVP ICE=remove rtcp-mux-demux"

REJECTED = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n"
"""An SDP without media (port 0, RFC 3264, 6): stands in for an answer that rtpengine could not take, since an SDP
passed on unchanged would show addresses of the wrong side and carry no audio."""
