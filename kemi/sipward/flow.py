"""A message's path, top to bottom: what happens to a request, a reply and a failure, in the order it happens.

`Flow` gets the SIP verbs as an argument (the module `sipward.kamailio`, or a recorder in a test) and decides nothing
about destinations: that is `routing`. What a message shows and carries is changed by `concealment`, `routeset` and
`anchor`.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import NamedTuple

from sipward import headers, sips
from sipward.abilities import Abilities
from sipward.anchor import Anchor, name
from sipward.concealment import Concealment
from sipward.decision import NO_DIALOG, Answer, Decision, Relay, Request
from sipward.edge import Edge
from sipward.failover import Failover
from sipward.limits import Limiter
from sipward.live import Live
from sipward.model import Endpoint, Side, Socket
from sipward.passage import Passage
from sipward.peers import Peers
from sipward.ports import Ports, is_removal
from sipward.registrations import Registrations
from sipward.routeset import Routes, RouteSet
from sipward.routing import Router
from sipward.seal import Sealer
from sipward.tokens import PARAM, Dialog

DONE = 1
"""What a callback returns to Kamailio: any integer does, None does not."""

DIALOG_FORMING = frozenset({"INVITE", "SUBSCRIBE", "REFER", "NOTIFY"})
"""Methods whose requests establish a dialog (RFC 3261, 6665, 3515), and so need our Record-Route."""

INTRODUCED = frozenset({"INVITE", "REGISTER"})
"""Methods by which a PBX learns who somebody is."""

COUNTED = frozenset({"INVITE", "REGISTER"})
"""Methods that there are limits for."""

TIMER_F = 32_000
"""Milliseconds that a request other than INVITE may take (RFC 3261, 17.1.2.2)."""

NOT_ACCEPTABLE = 488
"""What who is called says of an offer with nothing in it for it (RFC 3261, 21.4.26)."""

ENDED = frozenset({408, 481})
"""Refusals of a BYE after which there is no dialog either (RFC 3261, 12.2.1.2, 15.1.1)."""

BAD_LINE = Answer(400, "Bad Line Break", "malformed")
"""A PBX may read a line of its own behind a bare CR: one that nobody has looked at (RFC 3261, 7.3.1: CRLF ends one)."""
BAD_CALL_ID = Answer(400, "Bad Call-ID", "malformed")
FOREIGN_SCHEME = Answer(416, "Unsupported URI Scheme", "foreign-scheme")
FOREIGN_SOURCE = Answer(403, "Forbidden", "foreign-source")
LOOPED = Answer(482, "Loop Detected", "looped")
TOO_MANY_HOPS = Answer(483, "Too Many Hops", "too-many-hops")
NO_SOCKET = Answer(503, "Service Unavailable", "no-socket")
UNREACHABLE = Answer(503, "Service Unavailable", "instance-unreachable", retry_after=10)
FLOW_FAILED = Answer(430, "Flow Failed", "flow-failed")
"""The phone's connection is gone (RFC 5626, 5.3.1)."""
NO_PORT = Answer(503, "Service Unavailable", "no-port", retry_after=300)
"""All ports that registrations may have to themselves are taken."""
NOT_READY = Answer(503, "Service Unavailable", "not-ready", retry_after=2)
"""The live table has not been loaded yet: nobody can be told that a domain is unknown."""


class Seen(NamedTuple):
    """How a request came: its Call-ID, and the index of the socket that received it."""

    call_id: str
    back: int


class Flow:
    """The callbacks of one worker."""

    def __init__(self, sip: ModuleType, edge: Edge) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._edge = edge
        self._sealer = Sealer(edge.keys)
        self._live = Live(sip.look_up)
        self._router = Router(edge, self._sealer, self._live)
        self._conceal = Concealment(sip, edge, self._sealer, self._domain)
        self._routes = RouteSet(sip, edge, self._conceal, self._sealer)
        self._limiter = Limiter(sip, edge.shares)
        self._anchor = Anchor(sip, edge, self._live, self._limiter, self._dialog, self._log)
        self._ports = Ports(sip, edge.own_ports)
        self._registrations = Registrations(sip)
        self._abilities = Abilities(sip, self._live)
        self._peers = Peers(sip, self._sealer, self._live)
        self._failover = Failover(
            sip, edge, self._sealer, self._live, self._peers, self._conceal, self._anchor, self._log
        )

    # --- requests ------------------------------------------------------------------------------------------------

    def request(self) -> None:
        """Route one request."""
        sip = self._sip
        if not sip.is_sane():
            # The check has answered by itself, but for an ACK.
            sip.count("malformed")
            return None if word(sip.method) == "ACK" else self._log("refused", "malformed", "-")
        method = sip.method()
        if method == "CANCEL":
            return self._cancel()
        if method != "ACK" and sip.precheck_transaction():
            sip.absorb()
            return None
        # A retransmission, or the ACK of a refusal, which ends with its transaction (RFC 3261, 17.1.1.3).
        if sip.absorb() == 0:
            return None
        if not sip.forwards_left():
            return self._answer(TOO_MANY_HOPS)
        sender, back = sip.source(), sip.received_on()
        side = self._edge.side_of(self._edge.sockets[back], sender)
        if side is None:
            return self._answer(FOREIGN_SOURCE)
        if self._edge.is_own_socket(sender):
            return self._answer(LOOPED)
        if side is not Side.SERVICE:
            # The answer goes back through the NAT the request came through (RFC 3581), asked for or not.
            sip.answer_to_source()
        if sip.has_bare_cr():
            return self._answer(BAD_LINE)
        return self._route(side, sender, back)

    def _route(self, side: Side, sender: Endpoint, back: int) -> None:
        sip = self._sip
        call_id = sip.call_id()
        if not (call_id.isascii() and call_id.isprintable()) or " " in call_id:
            return self._answer(BAD_CALL_ID)
        routes = self._routes.read()
        request = sip.request(side, sender, routes.own, call_id)
        if request is None:
            return self._answer(FOREIGN_SCHEME)
        if port := self._edge.own_port(back):
            request = request._replace(port=port)
        decision = self._router.route(request)
        if decision is NO_DIALOG and request.in_dialog:
            request, routes, decision = self._reread(request, routes)
        match decision:
            case Relay(holder=holder) if holder:
                return self._register_from_own_port(request, decision, routes, Seen(call_id, back))
            case Relay():
                return self._relay(request, decision, routes, Seen(call_id, back))
            case Answer():
                if decision.code == 404 and not sip.has_routes():
                    decision = NOT_READY
                return self._answer(decision)

    def _reread(self, request: Request, routes: Routes) -> tuple[Request, Routes, Decision]:
        """Take a request of an unknown dialog as one whose Call-ID we have renamed, or that a strict router sent."""
        inner = self._conceal.inner_call_id(request.call_id)
        if inner != request.call_id:
            renamed = request._replace(call_id=inner)
            if (decision := self._router.route(renamed)) is not NO_DIALOG:
                return renamed, routes, decision
        if strict := self._routes.put_right(request.uri):
            uri, routes = strict
            for call_id in (request.call_id, inner):
                request = request._replace(uri=uri, call_id=call_id, route=routes.own, strict=True)
                if (decision := self._router.route(request)) is not NO_DIALOG:
                    return request, routes, decision
        return request, routes, NO_DIALOG

    def _register_from_own_port(self, request: Request, relay: Relay, routes: Routes, seen: Seen) -> None:
        port = self._ports.take(relay.holder)
        if not port:
            return self._answer(NO_PORT, relay.dialog.tenant)
        return self._relay(request, relay._replace(dialog=relay.dialog._replace(port=port)), routes, seen)

    def _relay(self, request: Request, relay: Relay, routes: Routes, seen: Seen) -> None:
        """Send the request on, if the node can and the limits allow it."""
        socket = self._edge.socket_for(relay.to, relay.targets[0], relay.dialog.port)
        if socket is None:
            return self._answer(NO_SOCKET, relay.dialog.tenant)
        if request.method in COUNTED and not request.in_dialog:
            refusal = self._limiter.refusal(request, relay, name(request, relay))
            if refusal:
                return self._answer(refusal, relay.dialog.tenant)
        try:
            self._forward(request, relay, routes, seen, socket)
        except BaseException:
            # The guard will refuse it: a request that cannot be read must not keep a place.
            self._release(request, relay)
            raise

    def _forward(self, request: Request, relay: Relay, routes: Routes, seen: Seen, socket: Socket) -> None:
        """Change a request that has its place, and send it from our `socket`."""
        sip, outwards = self._sip, relay.to is not Side.SERVICE
        target = relay.targets[0]
        shown = self._conceal.outer_call_id(request.call_id) if relay.dialog.renamed else request.call_id
        if not outwards:
            if seen.call_id != request.call_id:
                sip.set_call_id(request.call_id)
            self._conceal.reveal(request.method, relay.dialog.tenant)
            self._introduce(request, relay)
            if request.source.transport == "tls" and target.transport != "tls" and request.method != "REGISTER":
                self._conceal.mark_sips()
        elif relay.dialog.unhidden:
            self._strip(headers.INTERNAL if relay.asserts else headers.INTERNAL_AND_IDENTITY)
        elif not self._conceal.request(request, relay, socket, shown):
            return None
        onward = relay.uri or (sips.own(request.uri) if outwards else request.uri)
        if onward is not request.uri or request.strict:
            sip.set_uri(onward)
        if routes.present:
            self._routes.write(self._routes.onward(routes, request.side, relay), onward)
        if refusal := self._anchor.request(request, relay, socket):
            self._release(request, relay)
            return self._answer(refusal, relay.dialog.tenant)
        sealed = self._sealed(request, relay)
        self._change_for_method(request, relay, socket, sealed)
        if outwards and target.transport != "udp" and not relay.dialog.trunk:
            sip.only_over_open_connection()
        sip.aim(target, self._edge.index_of(socket), self._edge.translated(relay.to, socket))
        if request.method == "ACK":
            # The ACK of a 2xx has no transaction and no answer (RFC 3261, 13.2.2.4).
            if self._peers.reach(relay.dialog.trunk, target):
                sip.relay()
            return None
        self._remember(request, relay, sealed, shown if outwards else seen.call_id, seen.back)
        return self._send(request, relay)

    def _introduce(self, request: Request, relay: Relay) -> None:
        """Tell an instance where a request really comes from, and nothing that the sender made up."""
        self._strip(headers.INTERNAL if relay.asserts else headers.INTERNAL_AND_ASSERTED)
        if request.method == "REGISTER":
            # The way back is ours to say (RFC 3327): a registrar would send along any other one.
            self._sip.remove_header("path")
        if request.method in INTRODUCED:
            trunk = f"{headers.TRUNK}: {relay.dialog.trunk}\r\n" if relay.dialog.trunk else ""
            self._sip.add_headers(f"{headers.FORWARDED_FOR}: {request.source.host}\r\n{trunk}")

    def _strip(self, names: Iterable[str]) -> None:
        for each in names:
            self._sip.remove_header(each)

    def _change_for_method(self, request: Request, relay: Relay, socket: Socket, sealed: str) -> None:
        """What only some methods need."""
        if request.method == "REGISTER":
            if relay.to is Side.SERVICE:
                moved = self._registrations.begin(request, relay.dialog.tenant)
                self._conceal.register(relay.dialog, socket, moved)
        elif request.method in DIALOG_FORMING and not request.in_dialog:
            self._routes.record(relay.to, socket, sealed)

    def _send(self, request: Request, relay: Relay) -> None:
        """Send the changed request statefully."""
        starts, more = not request.in_dialog, len(relay.targets) > 1
        self._sip.watch(failures=starts or request.method == "BYE")
        fails_over = more or (starts and relay.to is Side.SERVICE)
        if fails_over:
            self._sip.keep_unsent()
        patience = self._failover.patience(request.method, relay.to, more) if starts else 0
        if self._peers.reach(relay.dialog.trunk, relay.targets[0]) and self._sip.relay(patience):
            return
        passage = Passage.recall(self._sip) if fails_over else None
        if passage and self._failover.go_on(passage, "unreachable"):
            return
        # It could not even be sent: the phone's connection is gone, or the instance refuses ours.
        if request.method == "BYE" or (starts and request.method == "INVITE"):
            self._end(name(request, relay))
        self._answer(
            UNREACHABLE if relay.to is Side.SERVICE or relay.dialog.trunk else FLOW_FAILED, relay.dialog.tenant
        )

    def _sealed(self, request: Request, relay: Relay) -> str:
        """The sealed text of both ends: in a dialog the one that came, which has been opened by now."""
        if request.in_dialog and request.route:
            return request.route.param(PARAM) or ""
        return relay.dialog.seal(self._sealer, request.call_id)

    def _remember(self, request: Request, relay: Relay, sealed: str, shown: str, back: int) -> None:
        Passage(
            origin=request.side,
            to=relay.to,
            back=back,
            has_offer=request.has_sdp,
            redirect=relay.redirect,
            tenant=relay.dialog.tenant,
            dialog=sealed,
            shown=sealed,
            call_id=request.call_id,
            renamed=shown if shown != request.call_id else "",
            media=name(request, relay),
            trunk=relay.dialog.trunk,
            fixed=relay.dialog.fixed,
            unhidden=relay.dialog.unhidden,
            next=relay.targets[1:],
            holds=bool(relay.holder),
            secure=relay.targets[0].transport == "tls",
            leaves=bool(relay.holder) and is_removal(self._sip.contacts(), self._sip.header("Expires")),
            target=relay.targets[0].host,
            begins=not request.in_dialog,
            teaches=self._abilities.teaches(request, relay.dialog),
        ).remember(self._sip)

    def _cancel(self) -> None:
        sip = self._sip
        if sip.is_known_transaction():
            sip.relay()
        else:
            self._answer(NO_DIALOG)

    def _answer(self, answer: Answer, tenant: str = "-") -> None:
        """Answer a request here; an ACK is never answered (RFC 3261, 17). `tenant`: whose it is, if that is known."""
        sip = self._sip
        sip.count(answer.why)
        if sip.method() == "ACK":
            return
        if answer.code >= 300:
            self._log("refused", answer.why, tenant, code=str(answer.code))
        sip.answer(answer.code, answer.reason, answer.headers)

    # --- replies and failures ------------------------------------------------------------------------------------

    def reply(self) -> None:
        """Change a reply on its way back."""
        sip = self._sip
        status = sip.status()
        if status == 100:
            return self._heard()
        passage = Passage.recall(sip)
        if passage is None:
            return None
        late = self._failover.set_apart(passage)
        passage = late or passage
        method, back = sip.method(), self._edge.sockets[passage.back]
        if passage.renamed:
            sip.set_call_id(passage.renamed if passage.to is Side.SERVICE else passage.call_id)
        if method == "BYE":
            self._ended(status, passage.media)
        dropped = self._unsaid(passage)
        self._strip(dropped)
        if late:
            self._anchor.keep_out()
        else:
            self._anchor.reply(method, status, passage, back)
            self._learn(status, passage)
        self._routes.turn(passage, back)
        if passage.holds and 200 <= status < 300 and (dialog := self._dialog(passage)):
            self._ports.answered(dialog.port, passage.leaves)
        if passage.unhidden:
            return None
        if passage.to is not Side.SERVICE:
            self._reply_from_outside(method, passage, back)
        elif method == "REGISTER":
            self._registered(status, passage, dropped)
        else:
            self._conceal.reply(status, passage.origin, passage.tenant, back, dropped)
        return None

    def _learn(self, status: int, passage: Passage) -> None:
        """What an answered call has shown of a phone: of its own offer, or of what it has taken from us."""
        if (passage.teaches or passage.again) and 200 <= status < 300 and (dialog := self._dialog(passage)):
            self._abilities.learn(dialog.tenant, dialog.outer, dialog.outer_srtp)

    def _registered(self, status: int, passage: Passage, dropped: frozenset[str]) -> None:
        """A registrar has answered a phone."""
        dialog = self._dialog(passage)
        flow = dialog.outer if dialog else None
        bound = self._conceal.registered(passage.tenant, flow, dropped)
        if flow and 200 <= status < 300:
            seconds = self._registrations.answered(passage.tenant, passage.origin, flow, bound)
            if self._abilities.knows(passage.tenant, flow):
                self._abilities.keep(passage.tenant, flow, seconds)

    def _reply_from_outside(self, method: str, passage: Passage, back: Socket) -> None:
        self._conceal.restore_vias()
        if passage.secure and back.local.transport != "tls":
            self._conceal.mark_sips()
        if method == "REGISTER":
            self._conceal.registered_outside(passage.tenant, passage.trunk)

    def _ended(self, status: int, call: str) -> None:
        """A BYE was answered."""
        if 200 <= status < 300:
            self._end(call)
        elif status in ENDED:
            # Perhaps of an instance that was given up for another one, and has answered too late: that call goes on.
            self._anchor.end_of_one(call)
            self._limiter.release(call)

    def _unsaid(self, passage: Passage) -> frozenset[str]:
        """The header fields that a reply loses: as a request of its sender would in this dialog."""
        if passage.to is Side.SERVICE:
            told = self._router.asserts_outside(passage.tenant, passage.trunk)
            return headers.INTERNAL if told else headers.INTERNAL_AND_IDENTITY
        return headers.INTERNAL if self._router.asserts_inside(passage.trunk) else headers.INTERNAL_AND_ASSERTED

    def _heard(self) -> None:
        """An instance that says 100 is not silent: from now on it has RFC 3261's time. To an INVITE tm gives it."""
        if self._sip.method() != "INVITE":
            self._sip.wait_longer(TIMER_F)

    def stray_reply(self) -> None:
        """Drop a reply that no transaction waits for: nobody knows any more how it would have to change."""
        # First of all: whatever is in it, it does not go on.
        self._sip.drop_reply()
        if not self._peers.heard():
            self._sip.count("stray-reply")

    def failure(self) -> None:
        """A request outside a dialog, or a BYE, failed for good: try the next instance, or let the caller know."""
        sip = self._sip
        passage = Passage.recall(sip)
        if passage is None:
            return
        status, silent = sip.failure()
        if sip.method() == "BYE":
            if silent:
                # The dialog is over all the same (RFC 3261, 15.1.1).
                self._end(passage.media)
            return
        if sip.is_cancelled():
            self._end_call(passage)
            return
        if status == NOT_ACCEPTABLE and self._failover.offer_otherwise(passage):
            return
        broken = self._failover.is_broken(passage, status, silent)
        if broken and self._failover.go_on(passage, "silent" if silent else str(status)):
            return
        self._end_call(passage)
        if broken:
            self._failover.give_up(passage, silent)
        elif 300 <= status < 400 and passage.redirect == "refuse":
            sip.count("redirect-refused")
            self._log("refused", "redirect-refused", passage.tenant, code="480")
            sip.answer_failure(480, "Temporarily Unavailable")

    def _end_call(self, passage: Passage) -> None:
        if self._sip.method() == "INVITE":
            self._end(passage.media)

    def _end(self, call: str) -> None:
        """A call is over, or has never begun: its media and its place are free."""
        self._anchor.end(call)
        self._limiter.release(call)

    def _release(self, request: Request, relay: Relay) -> None:
        """A call that does not begin keeps no place; one that goes on keeps its own."""
        if not request.in_dialog:
            self._limiter.release(name(request, relay))

    def forgotten(self) -> None:
        """A call that nobody has ended in hours counts no more."""
        self._limiter.forget(self._sip.forgotten())

    def _dialog(self, passage: Passage) -> Dialog | None:
        return Dialog.open(self._sealer, passage.shown, passage.call_id)

    # --- small things --------------------------------------------------------------------------------------------

    def _domain(self, name: str) -> str:
        """What the outside sees in place of an inner address. A tenant that is gone has no name left to show."""
        tenant = self._live.named(name)
        return tenant.domain if tenant else "invalid"

    def _log(self, event: str, why: str, tenant: str, **more: str) -> None:
        sip = self._sip
        extra = "".join(f" {name}={value}" for name, value in more.items())
        who = f"method={word(sip.method)} src_ip={sip.source().host} tenant={tenant}"
        sip.log(f"event={event} why={why} {who}{extra} callid={word(sip.call_id)}")


def word(read: Callable[[], str]) -> str:
    """A fact of the message as one word of a log line; "?" when it cannot be read."""
    try:
        return printable(read()) or "?"
    except Exception:
        return "?"


def printable(text: str) -> str:
    """A text from a message as one word of a log line."""
    return "".join(char if char.isascii() and char.isprintable() and char != " " else "?" for char in text)
