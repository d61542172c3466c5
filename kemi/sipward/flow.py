"""A message's path, top to bottom: what happens to a request, a reply and a failure, in the order it happens.

`Flow` gets the SIP verbs as an argument (the module `sipward.kamailio`, or a recorder in a test) and decides nothing
about destinations: that is `routing`. It lists how a message changes on its way to each side.
"""

from dataclasses import replace
from types import ModuleType

from sipward import live, media, routing
from sipward.concealment import Concealment, transport_param
from sipward.edge import Edge
from sipward.model import Endpoint, Side, Socket, Tenant
from sipward.passage import Passage
from sipward.routing import Answer, Relay, Request
from sipward.seal import Sealer
from sipward.tokens import PARAM, Dialog
from sipward.uri import Uri

DONE = 1
"""What a callback returns to Kamailio: any integer does, None does not."""

DIALOG_FORMING = frozenset({"INVITE", "SUBSCRIBE", "REFER", "NOTIFY"})
"""Methods whose requests establish a dialog (RFC 3261, 6665, 3515), and so need our Record-Route."""

OFFERING = frozenset({"INVITE", "UPDATE", "PRACK", "ACK"})
"""Methods whose bodies take part in offer/answer (RFC 6337, table 1)."""

TRY_NEXT = frozenset({500, 502, 503, 504})
"""Answers that speak of the instance, not of the call."""

FOREIGN_SCHEME = Answer(416, "Unsupported URI Scheme", "foreign-scheme")
FOREIGN_SOURCE = Answer(403, "Forbidden", "foreign-source")
LOOPED = Answer(482, "Loop Detected", "looped")
TOO_MANY_HOPS = Answer(483, "Too Many Hops", "too-many-hops")
NO_SOCKET = Answer(503, "Service Unavailable", "no-socket")
NO_MEDIA = Answer(503, "Service Unavailable", "media-unavailable", retry_after=5)
UNREACHABLE = Answer(503, "Service Unavailable", "instance-unreachable", retry_after=10)
FLOW_FAILED = Answer(430, "Flow Failed", "flow-failed")
"""The phone's connection is gone (RFC 5626, 5.3.1)."""
NOT_READY = Answer(503, "Service Unavailable", "not-ready", retry_after=2)
"""The live table has not been loaded yet: nobody can be told that a domain is unknown."""


class Flow:
    """The callbacks of one worker."""

    def __init__(self, sip: ModuleType, edge: Edge) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._edge = edge
        self._sealer = Sealer(edge.keys)
        self._conceal = Concealment(sip, edge, self._sealer, self._domain)

    # --- requests ------------------------------------------------------------------------------------------------

    def request(self) -> None:
        """Route one request."""
        sip = self._sip
        if not sip.is_sane():
            return self._count("malformed")
        method = sip.method()
        if method == "CANCEL":
            return self._cancel()
        if method != "ACK":
            if sip.precheck_transaction():
                sip.absorb()
                return None
            if sip.absorb() == 0:
                return None
        if not sip.forwards_left():
            return self._answer(TOO_MANY_HOPS)
        sender = sip.source()
        side = self._edge.side_of(sip.received_on(), sender)
        if side is None:
            return self._answer(FOREIGN_SOURCE)
        if self._edge.is_own_socket(sender):
            return self._answer(LOOPED)
        if side is not Side.SERVICE:
            # The answer goes back through the NAT the request came through (RFC 3581), asked for or not.
            sip.answer_to_source()
        return self._route(method, side, sender)

    def _route(self, method: str, side: Side, sender: Endpoint) -> None:
        sip = self._sip
        own, others = self._own_route()
        request = sip.request(side, sender, own, self._conceal.inner_call_id(sip.call_id()))
        if request is None:
            return self._answer(FOREIGN_SCHEME)
        if sip.has_to_tag():
            # The ACK of a refusal ends with the transaction it belongs to (RFC 3261, 17.1.1.3).
            if own is None and method == "ACK" and sip.absorb() == 0:
                return None
            decision = routing.in_dialog(request, self._edge, self._sealer, self.tenant)
        else:
            decision = routing.initial(request, self._edge, self._sealer, self.tenant)
            # What the outside says about the way before there is a dialog is not followed (RFC 3261, 16.4 names the
            # danger); an instance may have a route to go on with (a Path, RFC 3327).
            others = others if side is Side.SERVICE else []
        match decision:
            case Relay():
                return self._relay(request, decision, others)
            case Answer():
                if decision is routing.NOT_FOUND and not self._sip.has_routes():
                    decision = NOT_READY
                return self._answer(decision)

    def _relay(self, request: Request, relay: Relay, others: list[str]) -> None:
        sip = self._sip
        target = relay.targets[0]
        socket = self._edge.socket_for(relay.to, target)
        if socket is None:
            return self._answer(NO_SOCKET)
        outwards = relay.to is not Side.SERVICE
        seen = sip.call_id()
        shown = self._conceal.outer_call_id(request.call_id) if relay.dialog.renamed else request.call_id
        if outwards:
            keep = request.method != "ACK"
            self._conceal.request(relay.to, relay.dialog.tenant, socket, shown, keep)
        elif seen != request.call_id:
            sip.set_call_id(request.call_id)
        if sip.routes():
            sip.set_routes(others)
        if relay.uri:
            sip.set_uri(relay.uri)
        known = request.route.param(PARAM) if request.route else None
        starts = known is None
        sealed = known or relay.dialog.seal(self._sealer, request.call_id)
        if not self._media_of_request(request, relay, socket):
            return self._answer(NO_MEDIA)
        if request.method == "BYE":
            self._end_media(relay.dialog.tenant, request.call_id)
        if starts and request.method in DIALOG_FORMING:
            sip.record_route(self._edge.shown_to(relay.to, socket), _route_params(socket, sealed))
        if request.method == "REGISTER":
            self._conceal.register(relay.dialog, socket)
        if outwards and target.transport != "udp":
            sip.only_over_open_connection()
        sip.aim(target, socket)
        if request.method == "ACK":
            # The ACK of a 2xx has no transaction and no answer (RFC 3261, 13.2.2.4).
            sip.relay()
            return None
        self._remember(request, relay, sealed, shown if outwards else seen)
        sip.watch(replies=True, failures=starts)
        if not sip.relay(self._edge.instance_timeout if starts and not outwards else 0):
            self._undeliverable(request, relay)
        return None

    def _remember(self, request: Request, relay: Relay, sealed: str, shown: str) -> None:
        sip = self._sip
        dialog = relay.dialog
        back = self._edge.sockets.index(self._edge.socket_at(sip.received_on()))
        renamed = shown if shown != request.call_id else ""
        Passage(
            origin=request.side,
            to=relay.to,
            back=back,
            has_offer=request.has_sdp,
            redirect=relay.redirect,
            tenant=dialog.tenant,
            inner=str(dialog.inner),
            dialog=sealed,
            call_id=request.call_id,
            renamed=renamed,
        ).remember(sip)
        if len(relay.targets) > 1:
            sip.remember("next", " ".join(str(target) for target in relay.targets[1:]))

    def _cancel(self) -> None:
        sip = self._sip
        if sip.is_known_transaction():
            sip.relay()
        else:
            self._answer(routing.NO_DIALOG)

    def _undeliverable(self, request: Request, relay: Relay) -> None:
        """The request could not even be sent: the phone's connection is gone, or the instance refuses ours."""
        if request.method == "INVITE" and request.route is None:
            self._end_media(relay.dialog.tenant, request.call_id)
        if relay.to is Side.SERVICE:
            return self._answer(UNREACHABLE)
        return self._answer(FLOW_FAILED)

    def _answer(self, answer: Answer) -> None:
        """Answer a request here; an ACK is never answered (RFC 3261, 17)."""
        sip = self._sip
        sip.count(answer.why)
        if sip.method() == "ACK":
            return
        if answer.code >= 300:
            self._log("refused", answer.why, code=str(answer.code))
        headers = f"Retry-After: {answer.retry_after}\r\n" if answer.retry_after else ""
        sip.answer(answer.code, answer.reason, headers)

    # --- replies and failures ------------------------------------------------------------------------------------

    def reply(self) -> None:
        """Change a reply on its way back."""
        sip = self._sip
        status = sip.status()
        if status == 100:
            return
        passage = Passage.recall(sip)
        if passage is None:
            return
        method = sip.method()
        back = self._edge.sockets[passage.back]
        if sip.has_sdp():
            if method in OFFERING and status < 300:
                self._media_of_reply(passage, back, status)
            elif passage.to is Side.SERVICE:
                # What an instance says of its abilities (in a 488, to OPTIONS) names its inner address.
                sip.remove_body()
        self._turn_record_route(passage, back)
        if passage.to is Side.SERVICE:
            self._conceal.reply(method, status, passage.origin, passage.tenant, back)
        else:
            self._conceal.restore_vias()
        if passage.renamed:
            sip.set_call_id(passage.renamed if passage.to is Side.SERVICE else passage.call_id)

    def failure(self) -> None:
        """A request outside a dialog failed for good: try the next instance, or let the caller know."""
        sip = self._sip
        passage = Passage.recall(sip)
        if passage is None:
            return
        if sip.is_cancelled():
            self._forget_call(passage)
            return
        status, silent = sip.failure()
        broken = silent or status in TRY_NEXT
        if passage.to is Side.SERVICE and broken and self._try_next(status, silent):
            return
        self._forget_call(passage)
        if passage.to is Side.SERVICE and silent:
            sip.count("instance-silent")
            self._log("failed", "instance-silent", code="503")
            sip.answer_failure(503, "Service Unavailable", "Retry-After: 10\r\n")
        elif 300 <= status < 400 and passage.redirect == "refuse":
            sip.count("redirect-refused")
            sip.answer_failure(480, "Temporarily Unavailable")

    def _try_next(self, status: int, silent: bool) -> bool:
        sip = self._sip
        first, _, rest = sip.recall("next").partition(" ")
        if not first:
            return False
        target = Endpoint.parse(first)
        socket = self._edge.socket_for(Side.SERVICE, target)
        if socket is None:
            return False
        sip.count("failover")
        self._log("failover", "silent" if silent else str(status), to=target.hostport)
        sip.remember("next", rest)
        sip.watch(replies=True, failures=True)
        sip.aim(target, socket)
        return bool(sip.relay(self._edge.instance_timeout))

    # --- media ---------------------------------------------------------------------------------------------------

    def _media_of_request(self, request: Request, relay: Relay, socket: Socket) -> bool:
        """Take the request's SDP through rtpengine; False when it must not be sent on."""
        sip = self._sip
        if not request.has_sdp or request.method not in OFFERING:
            return True
        tenant = relay.dialog.tenant
        answers = request.method == "ACK" or (request.method == "PRACK" and relay.dialog.late)
        if not answers:
            return bool(sip.media_offer(media.offer(tenant, request.call_id, request.side, relay.to, socket.is_ipv6)))
        if not sip.media_answer(media.answer(tenant, request.call_id, request.side)):
            self._reject_media()
        return True

    def _media_of_reply(self, passage: Passage, back: Socket, status: int) -> None:
        sip = self._sip
        tenant, call_id = passage.tenant, passage.call_id
        if passage.has_offer:
            taken = sip.media_answer(media.answer(tenant, call_id, passage.to))
        else:
            taken = sip.media_offer(media.offer(tenant, call_id, passage.to, passage.origin, back.is_ipv6))
        if taken:
            return
        if status < 200:
            sip.count("media-unavailable")
            sip.remove_body()
        else:
            self._reject_media()

    def _reject_media(self) -> None:
        self._sip.count("media-unavailable")
        self._log("failed", "media-unavailable")
        self._sip.set_body(media.REJECTED)

    def _end_media(self, tenant: str, call_id: str) -> None:
        if not self._sip.media_delete(media.call(tenant, call_id)):
            self._sip.count("media-delete-failed")

    def _forget_call(self, passage: Passage) -> None:
        if self._sip.method() == "INVITE":
            self._end_media(passage.tenant, passage.call_id)

    # --- our place in the route set ------------------------------------------------------------------------------

    def _own_route(self) -> tuple[Uri | None, list[str]]:
        """Our own topmost Route, and those that remain after it."""
        routes = self._sip.routes()
        own = self._sip.own_uri(routes[0], self._edge) if routes else None
        if own is None:
            return None, routes
        # A Route without a sealed text is a phone's or an instance's outbound proxy setting: it only says "us".
        return (own if own.param(PARAM) else None), routes[1:]

    def _turn_record_route(self, passage: Passage, back: Socket) -> None:
        """Show our Record-Route to the side the reply goes to as the address that side knows (RFC 3261, 16.7, 8)."""
        sip = self._sip
        values = sip.record_routes()
        for index, value in enumerate(values):
            if f";{PARAM}=" not in value or sip.own_uri(value, self._edge) is None:
                continue
            shown = self._edge.shown_to(passage.origin, back)
            values[index] = f"<sip:{shown}{_route_params(back, self._sealed_for_reply(passage))};lr>"
            sip.set_record_routes(values)
            return

    def _sealed_for_reply(self, passage: Passage) -> str:
        """The dialog's text with the instance that really answered, which after a failover is not the first one."""
        sip = self._sip
        answered = sip.source()
        if passage.to is not Side.SERVICE or str(answered) == passage.inner:
            return passage.dialog
        dialog = Dialog.open(self._sealer, passage.dialog, passage.call_id)
        if dialog is None:
            return passage.dialog
        return replace(dialog, inner=answered).seal(self._sealer, passage.call_id)

    # --- small things --------------------------------------------------------------------------------------------

    def tenant(self, domain: str) -> Tenant | None:
        """The live table's tenant of a domain or tenant key."""
        entry = self._sip.look_up(live.domain_key(domain))
        return live.decode(entry) if entry else None

    def _domain(self, name: str) -> str:
        """What the outside sees in place of an inner address. A tenant that is gone has no name left to show."""
        tenant = self.tenant(live.tenant_key(name))
        return tenant.domain if tenant else "invalid"

    def _count(self, why: str) -> None:
        self._sip.count(why)

    def _log(self, event: str, why: str, **more: str) -> None:
        sip = self._sip
        extra = "".join(f" {name}={value}" for name, value in more.items())
        src = sip.source().host
        sip.log(f"event={event} why={why} method={sip.method()} src_ip={src}{extra} callid={printable(sip.call_id())}")


def printable(text: str) -> str:
    """A text from a message as one word of a log line."""
    return "".join(char if char.isascii() and char.isprintable() and char != " " else "?" for char in text)


def _route_params(socket: Socket, text: str) -> str:
    return f"{transport_param(socket)};{PARAM}={text}"
