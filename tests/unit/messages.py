"""Messages, and what happens to them in one worker."""

from zlib import crc32

from sipward import media
from sipward.flow import Flow
from sipward.model import Endpoint, Instance, Socket
from sipward.seal import Sealer
from sipward.tokens import Binding, Dialog
from unit.recorder import ACME, INNER, KEY, PBX, PBX2, PHONE, PUBLIC, RELAY, Recorder, edge

SEALER = Sealer([KEY])
VIA = "SIP/2.0/UDP 192.168.1.20;branch=z9hG4bK-1"
DIALOG = Dialog("acme", PHONE, PBX, media=crc32(VIA.encode()))
CALL = media.call_name("acme", "1@h", DIALOG.media)
"""What rtpengine knows the call of `DIALOG` as."""
BOUND = Binding("acme", PHONE, "sip:192.168.1.20:5062").seal(SEALER)
SDP = "v=0\r\nc=IN IP4 192.168.1.20\r\nm=audio 4000 RTP/AVP 0\r\n"
ANCHORED = SDP.replace("192.168.1.20", RELAY)
"""What rtpengine makes of it."""
TWO = ACME._replace(instances=(Instance(PBX, priority=1), Instance(PBX2, priority=2)))


def message(
    start: str, *fields: str, sdp: bool = False, call_id: str = "1@h", to: str = "<sip:100@acme.example>"
) -> str:
    method = start.partition(" ")[0]
    lines = [start, f"Via: {VIA}", "From: <sip:7@acme.example>;tag=a", f"To: {to}"]
    lines += [f"Call-ID: {call_id}", f"CSeq: 1 {method}", "Max-Forwards: 70", *fields]
    lines += ["Content-Type: application/sdp"] if sdp else []
    return "\r\n".join(lines) + "\r\n\r\n" + (SDP if sdp else "")


def request(method: str, target: str, *fields: str, sdp: bool = False, call_id: str = "1@h") -> str:
    return message(f"{method} {target} SIP/2.0", *fields, sdp=sdp, call_id=call_id)


def within(
    method: str, target: str, *fields: str, sdp: bool = False, dialog: Dialog = DIALOG, call_id: str = "1@h"
) -> str:
    way = f"Route: <sip:203.0.113.10:5060;sw={dialog.seal(SEALER, call_id)};lr>"
    to = "<sip:100@acme.example>;tag=b"
    return message(f"{method} {target} SIP/2.0", way, *fields, sdp=sdp, call_id=call_id, to=to)


def reply(status: int, method: str, *fields: str, sdp: bool = False) -> str:
    text = message(f"{method} x SIP/2.0", *fields, sdp=sdp, to="<sip:100@acme.example>;tag=b")
    return f"SIP/2.0 {status} X\r\n" + text.partition("\r\n")[2]


def routed(text: str, source: Endpoint = PHONE, on: Socket = PUBLIC, /, **trouble: object) -> Recorder:
    sip = Recorder(text, source, on)
    for name, value in trouble.items():
        setattr(sip, name, value)
    Flow(sip.module, edge()).request()
    return sip


def from_pbx(text: str, **trouble: object) -> Recorder:
    return routed(text, PBX, INNER, **trouble)


def answered(sip: Recorder, text: str, source: Endpoint = PBX, on: Socket = INNER) -> Recorder:
    """Let a reply to a relayed request arrive."""
    sip.verbs.clear()
    sip.arrives(text, source, on)
    Flow(sip.module, edge()).reply()
    return sip


def failed(sip: Recorder, status: int, silent: bool, **trouble: object) -> Recorder:
    """Let a relayed request fail."""
    sip.verbs.clear()
    sip.failed = (status, silent)
    for name, value in trouble.items():
        setattr(sip, name, value)
    Flow(sip.module, edge()).failure()
    return sip


def calling(sdp: bool = True, call_id: str = "9@pbx", flow: Endpoint = PHONE, **trouble: object) -> Recorder:
    bound = Binding("acme", flow, "sip:192.168.1.20:5062").seal(SEALER)
    way = "Route: <sip:10.5.4.1:5060;lr>"
    contact = "Contact: <sip:7@10.5.4.11:5080>"
    return from_pbx(
        request("INVITE", f"sip:7@10.5.4.1:5060;sw={bound}", way, contact, sdp=sdp, call_id=call_id), **trouble
    )


def called(**trouble: object) -> tuple[Recorder, str]:
    """A call from outside that has been relayed, and the Record-Route it got."""
    sip = routed(request("INVITE", "sip:100@acme.example", sdp=True), **trouble)
    return sip, f"Record-Route: {sip.record_routes()[0]}"
