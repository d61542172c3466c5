"""Topology hiding: what is inside stays inside, and what must come back comes back sealed.

Towards the outside a Contact of an instance shows our address, with its own host part sealed into it; the instance's
Via headers wait in the transaction for the reply. Towards an instance the Contact of a REGISTER shows our service
address, with the phone's flow sealed into it, so that an instance reaches the phone through us whether it knows Path
(RFC 3327) or not; the phone gets its own Contact back.
"""

from collections.abc import Callable
from types import ModuleType

from sipward.edge import Edge
from sipward.model import Side, Socket
from sipward.seal import Sealer
from sipward.tokens import PARAM, Binding, Dialog, Hidden
from sipward.uri import NameAddr, Uri, name_addrs, parse

_VIAS = "vias"


class Concealment:
    """The header changes of one worker."""

    def __init__(self, sip: ModuleType, edge: Edge, sealer: Sealer) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._edge = edge
        self._sealer = sealer

    def register(self, dialog: Dialog, socket: Socket) -> None:
        """Let the registrar see each Contact at our service address, with the phone's flow sealed in."""
        shown = self._edge.shown_to(Side.SERVICE, socket)

        def bind(uri: Uri) -> Uri:
            text = Binding(dialog.tenant, dialog.outer, f"{uri.scheme}:{uri.rest}").seal(self._sealer)
            return Uri("sip", uri.user, f"{shown}{transport_param(socket)};{PARAM}={text}")

        self._rewrite_contacts(bind)

    def contacts(self, to: Side, tenant: str, socket: Socket) -> None:
        """Hide the Contacts of an instance from `to`."""
        self._rewrite_contacts(lambda uri: self._hide(uri, to, tenant, socket))

    def request(self, to: Side, tenant: str, socket: Socket) -> None:
        """Hide what an instance's request says of the inside; creates the transaction, which keeps the Via headers."""
        sip = self._sip
        self.contacts(to, tenant, socket)
        vias = sip.vias()
        sip.new_transaction()
        sip.remember(_VIAS, "\n".join(vias))
        shown = self._edge.shown_to(to, socket)
        transport = socket.local.transport.upper()
        sip.replace_vias(f"SIP/2.0/{transport} {shown};branch=z9hG4bK{vias[0].rpartition('branch=')[2][-6:]}")
        sip.pretend_source(socket, shown)

    def restore_vias(self) -> None:
        """Give a reply to an instance the Via headers of its request back."""
        self._sip.restore_vias(self._sip.recall(_VIAS).split("\n"))

    def reply(self, method: str, status: int, to: Side, tenant: str, socket: Socket) -> None:
        """Hide what an instance's reply says of the inside."""
        if method == "REGISTER":
            self._rewrite_contacts(self._unbind)
        elif 300 <= status < 400:
            self._rewrite_contacts(lambda uri: self._hide_inner(uri, to, tenant, socket))
        else:
            self.contacts(to, tenant, socket)

    def _hide(self, uri: Uri, to: Side, tenant: str, socket: Socket) -> Uri:
        text = Hidden(tenant, uri.rest).seal(self._sealer)
        return Uri(uri.scheme, uri.user, f"{self._edge.shown_to(to, socket)}{transport_param(socket)};{PARAM}={text}")

    def _hide_inner(self, uri: Uri, to: Side, tenant: str, socket: Socket) -> Uri:
        """Hide a redirection's target inside; one outside is what the caller is meant to see."""
        try:
            inside = self._edge.is_self(uri.host) or self._edge.network_of(uri.host) is Side.SERVICE
        except ValueError:
            inside = False
        return self._hide(uri, to, tenant, socket) if inside else uri

    def _unbind(self, uri: Uri) -> Uri | None:
        """The phone's own Contact; a binding that is not ours is the registrar's own affair and stays inside."""
        text = uri.param(PARAM)
        binding = Binding.open(self._sealer, text) if text else None
        return binding.own_contact(uri.user) if binding else None

    def _rewrite_contacts(self, change: Callable[[Uri], Uri | None]) -> None:
        texts = self._sip.contacts()
        if not texts:
            return
        values: list[str] = []
        for value in (value for text in texts for value in name_addrs(text)):
            if value.uri == "*":
                values.append("*")
            elif (uri := parse(value.uri)) and (changed := change(uri)):
                values.append(str(NameAddr(value.display, str(changed), value.params)))
        self._sip.set_contacts(values)


def transport_param(socket: Socket) -> str:
    """The URI parameter that leads to a socket; UDP is what a URI without one means (RFC 3263, 4.1)."""
    transport = socket.local.transport
    return "" if transport == "udp" else f";transport={transport}"
