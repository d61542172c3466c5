"""Our place in the route set (RFC 3261, 12 and 16): whose Route is ours, what is left of it, what a Record-Route shows.

There is one Record-Route of ours in a dialog. Each side sees it with the address that side knows, and with both ends of
the dialog sealed into it. Routes of proxies behind us are hidden from the outside like a Contact.
"""

from types import ModuleType
from typing import NamedTuple

from sipward.concealment import Concealment, transport_param
from sipward.decision import Relay
from sipward.edge import Edge
from sipward.model import Side, Socket
from sipward.passage import Passage
from sipward.seal import Sealer
from sipward.tokens import PARAM, Dialog
from sipward.uri import Uri, name_addrs, parse


class Routes(NamedTuple):
    """The Route headers of a request: our own sealed one, if there is one, and what remains after it."""

    own: Uri | None
    others: tuple[str, ...]
    present: bool


_NONE = Routes(None, (), present=False)


class RouteSet:
    """The Route and Record-Route changes of one worker."""

    def __init__(self, sip: ModuleType, edge: Edge, conceal: Concealment, sealer: Sealer) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._edge = edge
        self._conceal = conceal
        self._sealer = sealer

    def read(self) -> Routes:
        """The running request's Routes. Those that only say "us", as an outbound proxy setting does, are gone."""
        values = self._sip.routes()
        if not values:
            return _NONE
        for index, value in enumerate(values):
            uri = _uri(value)
            if uri is None or not (self._edge.is_self(uri.host) or self._was_ours(uri)):
                return Routes(None, tuple(values[index:]), present=True)
            if uri.param(PARAM):
                return Routes(uri, tuple(values[index + 1 :]), present=True)
        return Routes(None, (), present=True)

    def _was_ours(self, uri: Uri) -> bool:
        """Whether a Route to an address that is not ours is one of ours: the node has had it when the call began."""
        text, call_id = uri.param(PARAM), self._sip.call_id()
        if not text:
            return False
        ids = dict.fromkeys((call_id, self._conceal.inner_call_id(call_id)))
        return any(Dialog.open(self._sealer, text, each) for each in ids)

    def put_right(self, uri: Uri) -> tuple[Uri, Routes] | None:
        """What a strict router sent, as a loose one would have: we are in its Request-URI (RFC 3261, 16.4).

        Returns the true Request-URI and the Routes, None when `uri` is not ours.
        """
        values = self._sip.routes()
        target = _uri(values[-1]) if values else None
        if target is None or uri.param(PARAM) is None or not self._edge.is_self(uri.host):
            return None
        return target, Routes(uri, tuple(values[:-1]), present=True)

    def onward(self, routes: Routes, side: Side, relay: Relay) -> list[str]:
        """The Routes that a request keeps: from outside only those that we hid, to outside none that is inside."""
        if side is Side.SERVICE:
            return [value for value in routes.others if not self._edge.names_inside(value)]
        tenant = relay.dialog.tenant
        return [inner for value in routes.others if (inner := self._conceal.inner_route(value, tenant))]

    def write(self, others: list[str], target: Uri) -> None:
        """Replace the Routes; a strict router is to find itself in the Request-URI (RFC 3261, 16.6, 6)."""
        strict = _uri(others[0]) if others else None
        if strict and strict.param("lr") is None:
            self._sip.set_uri(strict)
            others = [*others[1:], f"<{target}>"]
        self._sip.set_routes(others)

    def record(self, to: Side, socket: Socket, sealed: str) -> None:
        """Put ourselves on top of the Record-Routes, as `to` knows us."""
        self._sip.record_route(self._edge.shown_to(to, socket), _params(socket, sealed))

    def turn(self, passage: Passage, back: Socket) -> None:
        """Show our Record-Route to the side a reply goes to as the address that side knows (RFC 3261, 16.7, 8).

        Those above it are of proxies behind us, in the reply of an instance inner ones: they are hidden. What was
        hidden in an instance's request comes back.
        """
        values = self._sip.record_routes()
        ours = self._place(values, passage)
        turned = [self._turned(value, index - ours, passage, back) for index, value in enumerate(values)]
        if turned != values:
            self._sip.set_record_routes(turned)

    def _place(self, values: list[str], passage: Passage) -> int:
        """Where the Record-Route of this very passage stands; a spiral may have put us in twice with the same text."""
        mark = f";{PARAM}={passage.dialog}"
        marked = [index for index, value in enumerate(values) if mark in value]
        if len(marked) < 2:
            return marked[0] if marked else len(values)
        shown = {self._edge.shown_to(passage.to, socket) for socket in self._edge.sockets_of(passage.to)}
        return max((i for i in marked if any(f":{end}" in values[i] for end in shown)), default=marked[-1])

    def _turned(self, value: str, below: int, passage: Passage, back: Socket) -> str:
        """A Record-Route as the reply shows it; `below` is how far below ours it stands, negative above."""
        if below == 0:
            shown = self._edge.shown_to(passage.origin, back)
            return f"<sip:{shown}{_params(back, passage.shown)};lr>"
        if passage.to is not Side.SERVICE:
            return self._conceal.inner_route(value, passage.tenant) or value
        return self._conceal.record_route(value, passage.origin, passage.tenant, back) if below < 0 else value


def _uri(value: str) -> Uri | None:
    address = next(name_addrs(value), None)
    return parse(address.uri) if address else None


def _params(socket: Socket, sealed: str) -> str:
    return f"{transport_param(socket)};{PARAM}={sealed}"
