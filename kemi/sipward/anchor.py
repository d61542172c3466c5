"""Media anchoring: which messages' SDP goes through rtpengine, as what, and what happens when it does not answer."""

from collections.abc import Callable
from types import ModuleType

from sipward import media, screen, sdp
from sipward.decision import Answer, Relay, Request
from sipward.edge import Edge
from sipward.limits import Limiter
from sipward.media import OFFERING
from sipward.model import Side, Socket
from sipward.passage import Passage

Log = Callable[[str, str, str], None]
"""Writes a line: event, reason, tenant."""

NO_MEDIA = Answer(503, "Service Unavailable", "media-unavailable", retry_after=5)


class Anchor:
    """The SDP changes of one worker."""

    def __init__(self, sip: ModuleType, edge: Edge, limiter: Limiter, log: Log) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._edge = edge
        self._limiter = limiter
        self._log = log

    def request(self, request: Request, relay: Relay, socket: Socket) -> Answer | None:
        """Take a request's SDP through rtpengine; what to answer when the request must not be sent on."""
        if not request.has_sdp or request.method not in OFFERING:
            return None
        call, dialog = name(request, relay), relay.dialog
        if request.method == "ACK" or (request.method == "PRACK" and dialog.late):
            flags = media.answer(call, request.side, dialog.fixed)
            if refused := self._take(self._sip.media_answer, flags, request.side, relay.to):
                self._reject(dialog.tenant, refused.why)
            return None
        flags = media.offer(call, request.side, relay.to, socket.is_ipv6, dialog.fixed)
        return self._take(self._sip.media_offer, flags, request.side, relay.to, call)

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
            flags = media.answer(passage.media, passage.to, passage.fixed)
            refused = self._take(sip.media_answer, flags, passage.to, passage.origin)
        else:
            flags = media.offer(passage.media, passage.to, passage.origin, back.is_ipv6, passage.fixed)
            refused = self._take(sip.media_offer, flags, passage.to, passage.origin, passage.media)
        if refused is None:
            return
        if status < 200:
            sip.count(refused.why)
            sip.remove_body()
        else:
            self._reject(passage.tenant, refused.why)

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

    def _take(
        self, command: Callable[[str, str], str | None], flags: str, sender: Side, receiver: Side, offers: str = ""
    ) -> Answer | None:
        """Let rtpengine change the message's SDP; why not, when it is not. `offers`: the call that an offer is for."""
        sip = self._sip
        kind, body = sip.content_type(), sip.body()
        description = sdp.find(kind, body)
        if refused := screen.refusal(description, self._edge.may_have_media[sender]):
            return refused
        if offers and (streams := screen.streams(description)) > 1:
            refused = self._limiter.widen(offers, streams)
            if refused:
                return refused
        taken = command(flags, description)
        if taken is None:
            return NO_MEDIA
        if receiver is not Side.SERVICE and self._edge.names_inside(taken):
            taken = sdp.cleared(taken, self._edge.names_inside)
        sip.set_body(sdp.put(kind, body, taken), kind)
        return None

    def _reject(self, tenant: str, why: str) -> None:
        self._sip.count(why)
        self._log("failed", why, tenant)
        self._sip.set_body(media.REJECTED, "application/sdp")


def name(request: Request, relay: Relay) -> str:
    """What rtpengine knows the request's call as."""
    return media.call_name(relay.dialog.tenant, request.call_id, relay.dialog.media)
