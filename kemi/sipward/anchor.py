"""Media anchoring: which messages' SDP goes through rtpengine, as what, and what happens when it does not answer."""

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from sipward import media, screen, sdp
from sipward.decision import Answer, Relay, Request
from sipward.edge import CARRIER, Edge
from sipward.limits import Limiter
from sipward.live import Live
from sipward.media import OFFERING, Terms
from sipward.model import Endpoint, Side, Socket
from sipward.passage import Passage
from sipward.tokens import Dialog
from sipward.uri import parse

Log = Callable[[str, str, str], None]
"""Writes a line: event, reason, tenant."""

_OFFERED = "offered"
"""What a transaction remembers once a reply to an INVITE without an offer has made one."""
NO_MEDIA = Answer(503, "Service Unavailable", "media-unavailable", retry_after=5)
FOREIGN_ANSWER = Answer(0, "Ignored", "foreign-answer")
"""A reply's description that somebody else has sent: the reply goes on without it."""


class Body(NamedTuple):
    """A message's body: its Content-Type, all of it, the description in it, and what that asks for."""

    kind: str
    text: str
    description: str
    asked: screen.Asked


class Anchor:
    """The SDP changes of one worker."""

    def __init__(
        self, sip: ModuleType, edge: Edge, live: Live, limiter: Limiter,
        dialog_of: Callable[[Passage], Dialog | None], log: Log,
    ) -> None:  # fmt: skip
        """`sip`: the verbs of `sipward.kamailio`; `dialog_of`: the dialog that a request was sent on in."""
        self._sip = sip
        self._edge = edge
        self._live = live
        self._limiter = limiter
        self._dialog_of = dialog_of
        self._log = log

    def request(self, request: Request, relay: Relay, socket: Socket) -> Answer | None:
        """Take a request's SDP through rtpengine; what to answer when the request must not be sent on."""
        if not request.has_sdp or request.method not in OFFERING:
            return None
        answers = request.method == "ACK" or (request.method == "PRACK" and relay.dialog.late)
        refused = self._take_request(request, relay, socket, answers)
        if refused and answers:
            self._reject(relay.dialog.tenant, refused.why)
            return None
        return refused

    def _take_request(self, request: Request, relay: Relay, socket: Socket, answers: bool) -> Answer | None:
        dialog, body = relay.dialog, self._body(request.side, relay.dialog.trunk)
        if isinstance(body, Answer):
            return body
        call, fixed = name(request, relay), self._is_fixed(dialog.fixed, request.side, body, request.source)
        if answers:
            flags = media.answer(call, request.side, fixed, self._ice(dialog.tenant, relay.to))
            return self._take(self._sip.media_answer, flags, body, relay.to)
        begins, terms = not request.in_dialog, self._terms(dialog, relay.to, again=request.in_dialog)
        who = parties(request, relay) if begins else ""
        flags = media.offer(call, request.side, relay.to, socket.is_ipv6, fixed, terms, begins, who)
        return self._offer(call, flags, body, relay.to, terms)

    def offer_again(self, passage: Passage, dialog: Dialog, socket: Socket) -> bool:
        """Take the offer of a failed request through rtpengine once more, for whom `dialog` leads to now."""
        body = self._body(passage.origin, passage.trunk)
        if isinstance(body, Answer):
            return False
        terms, fixed = self._terms(dialog, passage.to), self._is_fixed(passage.fixed, passage.origin, body)
        flags = media.offer(passage.media, passage.origin, passage.to, socket.is_ipv6, fixed, terms)
        return self._offer(passage.media, flags, body, passage.to, terms) is None

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
        refused = self._take_reply(passage, back)
        if refused is None:
            return
        if status < 200:
            sip.count(refused.why)
            sip.remove_body()
        else:
            self._reject(passage.tenant, refused.why)

    def _take_reply(self, passage: Passage, back: Socket) -> Answer | None:
        if not self._is_of_target(passage):
            return FOREIGN_ANSWER
        body = self._body(passage.to, passage.trunk)
        if isinstance(body, Answer):
            return body
        fixed = self._is_fixed(passage.fixed, passage.to, body)
        if passage.has_offer:
            ice = self._ice(passage.tenant, passage.origin)
            flags = media.answer(passage.media, passage.to, fixed, ice, passage.begins)
            return self._take(self._sip.media_answer, flags, body, passage.origin)
        dialog = self._dialog_of(passage)
        terms = self._terms(dialog, passage.origin) if dialog else media.PLAIN
        begins = passage.begins and not self._sip.recall(_OFFERED)
        if begins:
            # Once: what an answer has opened stays open, though a later reply of the same INVITE has the offer again.
            self._sip.remember(_OFFERED, "1")
        flags = media.offer(passage.media, passage.to, passage.origin, back.is_ipv6, fixed, terms, begins)
        return self._offer(passage.media, flags, body, passage.origin, terms)

    def _is_of_target(self, passage: Passage) -> bool:
        """Whether a reply comes from where its request went: who has seen that could send one as well."""
        host = self._sip.source_host()
        if host == passage.target:
            return True
        trunk = self._live.trunk(passage.trunk) if passage.trunk else None
        return trunk is not None and any(target.host == host for target in trunk.targets)

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

    def _body(self, sender: Side, trunk: str) -> Body | Answer:
        """The message's body, or why it is refused."""
        kind, text = self._sip.content_type(), self._sip.body()
        description = sdp.find(kind, text)
        asked = screen.look(
            description, self._edge.may_have_media[CARRIER if trunk and sender is not Side.SERVICE else sender]
        )
        return asked if isinstance(asked, Answer) else Body(kind, text, description, asked)

    def _is_fixed(self, fixed: bool, side: Side, body: Body, source: Endpoint | None = None) -> bool:
        """Whether RTP comes from where the description says: `fixed` is a carrier, and else no NAT must be in between.

        That shows over UDP only: the port of a connection tells nothing about what is in between. A client that has
        asked a STUN server for its addresses behind a symmetric NAT does not say the port that its SIP comes from.
        """
        if fixed or side is Side.SERVICE or self._edge.learns_always:
            return fixed
        source = source or self._sip.source()
        if source.transport != "udp" or body.asked.addresses != {source.host}:
            return False
        contact = parse(self._sip.contact())
        return contact is not None and (contact.host, contact.port) == (source.host, source.port)

    def _offer(self, call: str, flags: str, body: Body, receiver: Side, terms: Terms) -> Answer | None:
        """Let rtpengine change an offer, if its streams have a place."""
        if body.asked.streams > 1 and (refused := self._limiter.widen(call, body.asked.streams)):
            return refused
        if terms.codecs.names:
            # Before rtpengine adds those that it would have to transcode: they come last.
            body = body._replace(description=sdp.ordered(body.description, terms.codecs.names))
        return self._take(self._sip.media_offer, flags, body, receiver)

    def _take(self, command: Callable[[str, str], str | None], flags: str, body: Body, receiver: Side) -> Answer | None:
        """Let rtpengine change the message's SDP; why not, when it is not."""
        sip, (kind, text, description, _) = self._sip, body
        taken = command(media.by_description(flags, description, ":" in sip.source_host()), description)
        if taken is None:
            return NO_MEDIA
        if receiver is not Side.SERVICE and self._edge.names_inside(taken):
            taken = sdp.cleared(taken, self._edge.names_inside)
        sip.set_body(sdp.put(kind, text, taken), kind)
        return None

    def _reject(self, tenant: str, why: str) -> None:
        self._sip.count(why)
        self._log("failed", why, tenant)
        self._sip.set_body(media.REJECTED, "application/sdp")


def parties(request: Request, relay: Relay) -> str:
    """Who calls whom, by the user parts of From and To."""
    caller, callee = (uri.user if uri else "" for uri in (request.caller, request.callee))
    return media.parties(caller, callee, relay.dialog.trunk)


def name(request: Request, relay: Relay) -> str:
    """What rtpengine knows the request's call as."""
    return media.call_name(relay.dialog.tenant, request.call_id, relay.dialog.media)
