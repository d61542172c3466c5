"""Media anchoring: which messages' SDP goes through rtpengine, as what, and what happens when it does not answer."""

from collections.abc import Callable
from types import ModuleType

from sipward import media, sdp
from sipward.decision import Relay, Request
from sipward.edge import Edge
from sipward.live import Live
from sipward.media import OFFERING, Terms
from sipward.model import ANY_CODECS, Codecs, Side, Socket
from sipward.passage import Passage
from sipward.tokens import Dialog

Log = Callable[[str, str, str], None]
"""Writes a line: event, reason, tenant."""


class Anchor:
    """The SDP changes of one worker."""

    def __init__(
        self, sip: ModuleType, edge: Edge, live: Live, dialog_of: Callable[[Passage], Dialog | None], log: Log
    ) -> None:
        """`sip`: the verbs of `sipward.kamailio`; `dialog_of`: the dialog that a request was sent on in."""
        self._sip = sip
        self._edge = edge
        self._live = live
        self._dialog_of = dialog_of
        self._log = log

    def request(self, request: Request, relay: Relay, socket: Socket) -> bool:
        """Take a request's SDP through rtpengine; False when the request must not be sent on."""
        if not request.has_sdp or request.method not in OFFERING:
            return True
        call, dialog = name(request, relay), relay.dialog
        if request.method == "ACK" or (request.method == "PRACK" and dialog.late):
            flags = media.answer(call, request.side, dialog.fixed, self._ice(dialog.tenant, relay.to))
            if not self._take(self._sip.media_answer, flags, relay.to):
                self._reject(dialog.tenant)
            return True
        terms = self._terms(dialog, relay.to, again=request.in_dialog)
        flags = media.offer(call, request.side, relay.to, socket.is_ipv6, dialog.fixed, terms)
        return self._take(self._sip.media_offer, flags, relay.to, terms.codecs)

    def offer_again(self, passage: Passage, dialog: Dialog, socket: Socket) -> bool:
        """Take the offer of a failed request through rtpengine once more, for whom `dialog` leads to now."""
        terms = self._terms(dialog, passage.to)
        flags = media.offer(passage.media, passage.origin, passage.to, socket.is_ipv6, passage.fixed, terms)
        return self._take(self._sip.media_offer, flags, passage.to, terms.codecs)

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
            ice = self._ice(passage.tenant, passage.origin)
            flags = media.answer(passage.media, passage.to, passage.fixed, ice)
            taken = self._take(sip.media_answer, flags, passage.origin)
        else:
            dialog = self._dialog_of(passage)
            terms = self._terms(dialog, passage.origin) if dialog else media.PLAIN
            flags = media.offer(passage.media, passage.to, passage.origin, back.is_ipv6, passage.fixed, terms)
            taken = self._take(sip.media_offer, flags, passage.origin, terms.codecs)
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

    def _terms(self, dialog: Dialog, receiver: Side, again: bool = False) -> Terms:
        """What an offer to one end of a dialog is to be; `again`: it has had one."""
        return media.terms(dialog, self._live.named(dialog.tenant), receiver, again)

    def _ice(self, name: str, receiver: Side) -> bool:
        """Whether ICE that an end of a tenant's call has offered is answered."""
        return receiver is not Side.SERVICE and media.does_ice(self._live.named(name))

    def _take(
        self, command: Callable[[str, str], str | None], flags: str, receiver: Side, codecs: Codecs = ANY_CODECS
    ) -> bool:
        sip = self._sip
        kind, body = sip.content_type(), sip.body()
        description = sdp.find(kind, body)
        if codecs.names:
            # Before rtpengine adds those that it would have to transcode: they come last.
            description = sdp.ordered(description, codecs.names)
        taken = command(flags, description)
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
