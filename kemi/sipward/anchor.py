"""Media anchoring: which messages' SDP goes through rtpengine, as what, and what happens when it does not answer."""

from collections.abc import Callable
from types import ModuleType

from sipward import media, sdp
from sipward.decision import Relay, Request
from sipward.edge import Edge
from sipward.media import OFFERING
from sipward.model import Side, Socket
from sipward.passage import Passage

Log = Callable[[str, str, str], None]
"""Writes a line: event, reason, tenant."""


class Anchor:
    """The SDP changes of one worker."""

    def __init__(self, sip: ModuleType, edge: Edge, log: Log) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._edge = edge
        self._log = log

    def request(self, request: Request, relay: Relay, socket: Socket) -> bool:
        """Take a request's SDP through rtpengine; False when the request must not be sent on."""
        if not request.has_sdp or request.method not in OFFERING:
            return True
        call, dialog = name(request, relay), relay.dialog
        if request.method == "ACK" or (request.method == "PRACK" and dialog.late):
            if not self._take(self._sip.media_answer, media.answer(call, request.side, dialog.fixed), relay.to):
                self._reject(dialog.tenant)
            return True
        flags = media.offer(call, request.side, relay.to, socket.is_ipv6, dialog.fixed)
        return self._take(self._sip.media_offer, flags, relay.to)

    def reply(self, method: str, status: int, passage: Passage, back: Socket) -> None:
        """Take a reply's SDP through rtpengine, or off."""
        sip = self._sip
        if not sip.has_sdp():
            return
        if method not in OFFERING or status >= 300:
            if passage.to is Side.SERVICE:
                # What an instance says of its abilities (in a 488, to OPTIONS) names its inner address.
                sip.remove_body()
            return
        if passage.has_offer:
            taken = self._take(sip.media_answer, media.answer(passage.media, passage.to, passage.fixed), passage.origin)
        else:
            flags = media.offer(passage.media, passage.to, passage.origin, back.is_ipv6, passage.fixed)
            taken = self._take(sip.media_offer, flags, passage.origin)
        if taken:
            return
        if status < 200:
            sip.count("media-unavailable")
            sip.remove_body()
        else:
            self._reject(passage.tenant)

    def keep_out(self) -> None:
        """Let a reply's SDP have no media."""
        if self._sip.has_sdp():
            self._sip.set_body(media.REJECTED, "application/sdp")

    def end(self, call: str) -> None:
        """Give a call's ports back."""
        if not self._sip.media_delete(media.end(call)):
            self._sip.count("media-delete-failed")

    def end_of_one(self, call: str) -> None:
        """Give back the ports that the sender of the running BYE has in a call; it may have none."""
        self._sip.media_delete(media.end_of_one(call))

    def _take(self, command: Callable[[str, str], str | None], flags: str, receiver: Side) -> bool:
        sip = self._sip
        kind, body = sip.content_type(), sip.body()
        description = sdp.find(kind, body)
        taken = command(media.by_description(flags, description, sip.is_from_ipv6()), description)
        if taken is None:
            return False
        if receiver is not Side.SERVICE and self._edge.names_inside(taken):
            taken = sdp.cleared(taken, self._edge.names_inside)
        sip.set_body(sdp.put(kind, body, taken), kind)
        return True

    def _reject(self, tenant: str) -> None:
        self._sip.count("media-unavailable")
        self._log("failed", "media-unavailable", tenant)
        self._sip.set_body(media.REJECTED, "application/sdp")


def name(request: Request, relay: Relay) -> str:
    """What rtpengine knows the request's call as."""
    return media.call_name(relay.dialog.tenant, request.call_id, relay.dialog.media)
