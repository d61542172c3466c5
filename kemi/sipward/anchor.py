"""Media anchoring: which messages' SDP goes through rtpengine, as what, and what happens when it does not answer."""

from types import ModuleType

from sipward import media
from sipward.model import Side, Socket
from sipward.passage import Passage
from sipward.routing import Relay, Request

OFFERING = frozenset({"INVITE", "UPDATE", "PRACK", "ACK"})
"""Methods whose bodies take part in offer/answer (RFC 6337, table 1)."""


class Anchor:
    """The SDP changes of one worker."""

    def __init__(self, sip: ModuleType) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip

    def request(self, request: Request, relay: Relay, socket: Socket) -> bool:
        """Take a request's SDP through rtpengine; False when the request must not be sent on."""
        if not request.has_sdp or request.method not in OFFERING:
            return True
        sip, tenant = self._sip, relay.dialog.tenant
        if request.method == "ACK" or (request.method == "PRACK" and relay.dialog.late):
            if not sip.media_answer(media.answer(tenant, request.call_id, request.side)):
                self._reject()
            return True
        return bool(sip.media_offer(media.offer(tenant, request.call_id, request.side, relay.to, socket.is_ipv6)))

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
            taken = sip.media_answer(media.answer(passage.tenant, passage.call_id, passage.to))
        else:
            flags = media.offer(passage.tenant, passage.call_id, passage.to, passage.origin, back.is_ipv6)
            taken = sip.media_offer(flags)
        if taken:
            return
        if status < 200:
            sip.count("media-unavailable")
            sip.remove_body()
        else:
            self._reject()

    def end(self, tenant: str, call_id: str) -> None:
        """Give a call's ports back."""
        if not self._sip.media_delete(media.call(tenant, call_id)):
            self._sip.count("media-delete-failed")

    def _reject(self) -> None:
        self._sip.count("media-unavailable")
        self._sip.set_body(media.REJECTED)
