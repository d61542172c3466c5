"""What rtpengine is told about a call: pure functions from sides and tenant to the flags of one command.

The rules behind the flags: towards clients the source of RTP is learned, ranked by likeness to what signalling says,
and then pinned (`strict-source`); an instance's media addresses are known, so nothing is learned there. The Call-ID
that rtpengine sees carries the tenant's name, so that equal Call-IDs of two tenants never meet, and tells the INVITEs
of one Call-ID apart, so that the end of one does not end the media of another. docs/media.md has the rules in words.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from sipward import sdp
from sipward.model import ANY_CODECS, Codecs, Side, Srtp, Tenant
from sipward.tokens import Dialog

OFFERING = frozenset({"INVITE", "UPDATE", "PRACK", "ACK"})
"""Methods whose bodies take part in offer/answer (RFC 6337, table 1)."""

_AT_SOURCE = "SIP-source-address"
_SENDER = {
    # The SDP of a client behind a NAT names an address of the inside; where its SIP comes from its RTP will.
    Side.OUTSIDE: f"{_AT_SOURCE} endpoint-learning=heuristic strict-source",
    Side.LOCAL: "endpoint-learning=heuristic strict-source",
    Side.SERVICE: "endpoint-learning=off strict-source",
}


_RECEIVER = {
    Srtp.OFF: "RTP/AVP",
    # Of the keys' suites those that encrypt, and that anybody has: an offer should fit into a datagram.
    Srtp.SDES: "RTP/SAVP DTLS=off SDES-only-AES_CM_128_HMAC_SHA1_80 SDES-only-AES_CM_128_HMAC_SHA1_32"
    " SDES-only-AEAD_AES_128_GCM SDES-only-AEAD_AES_256_GCM SDES-only-AES_256_CM_HMAC_SHA1_80",
    Srtp.DTLS: "UDP/TLS/RTP/SAVP SDES-off",
}


class Terms(NamedTuple):
    """What an offer is to be for who gets it.

    `ice`: whether one that does ICE goes on with it; `answers_ice`: whether the ICE of who has made the offer is
    answered.
    """

    srtp: Srtp = Srtp.OFF
    ice: bool = False
    answers_ice: bool = False
    codecs: Codecs = ANY_CODECS


PLAIN = Terms()


def offer(
    call: str,
    sender: Side,
    receiver: Side,
    receiver_ipv6: bool,
    fixed: bool = False,
    terms: Terms = PLAIN,
    begins: bool = False,
    parties: str = "",
) -> str:
    """Flags of an offer that `sender` made and `receiver` will get (RFC 3264). `fixed`: as in `answer`.

    `begins`: it is the call's first one. Until it is answered nobody's RTP passes: it could be anybody's.
    """
    family = "IP6" if receiver_ipv6 else "IP4"
    flags = f"direction={sender} direction={receiver} address-family={family} {_sender(sender, fixed)}"
    # Not answered it must be refused at once: rtpengine would begin with its checks before there is an answer.
    ice = _ice(terms.ice) if terms.answers_ice else f"{_ice(terms.ice)} reject-ICE"
    first = f" drop-traffic=start{_label(sender, fixed, parties)}" if begins else ""
    return f"call-id={call} {flags} {_COMMON} {_RECEIVER[terms.srtp]}{ice}{_codecs(terms.codecs)}{first}"


def answer(call: str, sender: Side, fixed: bool = False, ice: bool = False, begins: bool = False) -> str:
    """Flags of an answer that `sender` made: it comes as SRTP or RTP, whatever was offered.

    `fixed`: RTP of the outer end comes from where its description says. `ice`: who has offered ICE gets an answer to
    it. `begins`: it is to the call's first offer.
    """
    label = _label(sender, fixed) if begins else ""
    return f"call-id={call} {_sender(sender, fixed)} {_COMMON}{_ice(ice)} drop-traffic=stop{label}"


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


def by_description(flags: str, description: str, source_ipv6: bool) -> str:
    """The flags of an offer or answer of a phone that signals by one IP family and has its streams in the other."""
    at_source = f"{_AT_SOURCE} "
    if at_source in flags and sdp.names_other_family(description, source_ipv6):
        return flags.replace(at_source, "")
    return flags


def _ice(keeps: bool) -> str:
    # Without a word rtpengine speaks ICE with who has offered it, as the only candidate, and with nobody else.
    return "" if keeps else " ICE=remove"


@lru_cache(maxsize=1024)
def _codecs(codecs: Codecs) -> str:
    """Flags for a tenant's codecs, none for most tenants. The order of those that stay is `sdp.ordered`'s."""
    flags: list[str] = []
    if codecs.only:
        # What is masked is still taken from who has offered it, and transcoded.
        flags += [f"codec-{'mask' if codecs.transcode else 'strip'}-all", *(f"codec-except-{name}" for name in _BESIDE)]
    if codecs.only or codecs.transcode:
        flags += [f"codec-{'transcode' if codecs.transcode else 'offer'}-{name}" for name in codecs.names]
    return "".join(f" {flag}" for flag in flags)


_BESIDE = ("telephone-event", "CN")
"""Digits and silence go with any codec."""


def terms(dialog: Dialog, tenant: Tenant | None, receiver: Side, again: bool = False) -> Terms:
    """What an offer to one end of a tenant's dialog is to be; `again`: it has had one."""
    srtp = dialog.inner_srtp if receiver is Side.SERVICE else dialog.outer_srtp
    inwards, codecs = receiver is Side.SERVICE, tenant.codecs if tenant else ANY_CODECS
    return Terms(srtp, again and not inwards and does_ice(tenant), inwards and does_ice(tenant), codecs)


def does_ice(tenant: Tenant | None) -> bool:
    """Whether ICE that the outer end of a tenant's call has offered is answered. Nobody needs it inside."""
    return tenant is not None and tenant.ice == "answer"


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

_COMMON = "replace-origin replace-session-connection rtcp-mux-demux OSRTP-accept SDES-pad"

REJECTED = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n"
"""An SDP without media (port 0, RFC 3264, 6): stands in for an answer that rtpengine could not take, since an SDP
passed on unchanged would show addresses of the wrong side and carry no audio."""
