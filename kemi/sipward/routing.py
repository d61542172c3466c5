"""Where a request goes: a pure function of the request and the live table. Nothing here knows Kamailio."""

from sipward.decision import ALIVE, NO_DIALOG, NOT_YOURS, Decision, Relay, Request
from sipward.edge import Edge
from sipward.inward import Inward
from sipward.live import Live
from sipward.model import Endpoint, Side
from sipward.outward import Outward
from sipward.seal import Sealer
from sipward.tokens import PARAM, Dialog, Hidden
from sipward.uri import Uri


class Router:
    """Routing by one node's edge and keys, and the live table."""

    def __init__(self, edge: Edge, sealer: Sealer, live: Live) -> None:
        """Keep what every decision needs."""
        self._edge = edge
        self._sealer = sealer
        self._live = live
        self._inward = Inward(edge, sealer, live)
        self._outward = Outward(edge, sealer, live)

    def route(self, request: Request) -> Decision:
        """Decide where a request goes."""
        if request.in_dialog:
            return self._in_dialog(request)
        if request.method == "ACK":
            # No transaction knows it and no dialog either: nobody waits for it.
            return NO_DIALOG
        if request.method == "OPTIONS" and self._is_for_us(request.uri):
            return ALIVE
        return (self._outward if request.side is Side.SERVICE else self._inward).route(request)

    def _is_for_us(self, uri: Uri) -> bool:
        """Whether a URI means the node itself, and nobody behind it."""
        return not uri.user and uri.param(PARAM) is None and self._edge.is_self(uri.host)

    def _in_dialog(self, request: Request) -> Decision:
        """Route a request with a To-tag: only along a Route that we sealed for this very dialog and its ends."""
        text = request.route.param(PARAM) if request.route else None
        dialog = Dialog.open(self._sealer, text, request.call_id) if text else None
        if dialog is None:
            return NO_DIALOG
        if request.side is Side.SERVICE:
            if not self._is_inner_end(dialog, request.source):
                return NOT_YOURS
            side = self._edge.network_of(dialog.outer.host)
            return Relay(side, (dialog.outer,), dialog, asserts=self.asserts_outside(dialog.tenant, dialog.trunk))
        if not self._is_outer_end(dialog, request.source):
            return NOT_YOURS
        hidden = Hidden.of(self._sealer, request.uri)
        own = hidden.revealed(request.uri) if hidden and hidden.tenant == dialog.tenant else None
        return Relay(Side.SERVICE, (dialog.inner,), dialog, own, asserts=self.asserts_inside(dialog.trunk))

    def _is_inner_end(self, dialog: Dialog, source: Endpoint) -> bool:
        """Whether `source` may speak for the inner end: the instance itself, or a sibling that took over from it."""
        if source.host == dialog.inner.host:
            return True
        now = self._live.named(dialog.tenant)
        return now is not None and any(source.host == instance.endpoint.host for instance in now.instances)

    def _is_outer_end(self, dialog: Dialog, source: Endpoint) -> bool:
        """Whether `source` may speak for the outer end: its own address, or any other one of the carrier.

        The port may have moved with the NAT's binding or a new connection, the address is the party's own.
        """
        if source.host == dialog.outer.host:
            return True
        return bool(dialog.trunk) and any(trunk.name == dialog.trunk for trunk in self._live.trunks_from(source))

    def asserts_outside(self, tenant: str, trunk: str) -> bool:
        """Whether the outer end may hear what an instance asserts; of a tenant that is gone no carrier may."""
        if not trunk:
            return True
        now = self._live.named(tenant)
        return now is not None and now.identity == "pass"

    def asserts_inside(self, trunk: str) -> bool:
        """Whether an instance may hear what the outer end asserts: only a carrier's word counts."""
        now = self._live.trunk(trunk) if trunk else None
        return now is not None and now.identity == "pass"
