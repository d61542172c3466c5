"""Where a request goes: a pure function of the request and the live table. Nothing here knows Kamailio."""

from typing import NamedTuple

from sipward.balance import ordered
from sipward.edge import Edge
from sipward.live import Live
from sipward.model import Endpoint, Side, Tenant
from sipward.seal import Sealer
from sipward.tokens import PARAM, Binding, Dialog, Hidden
from sipward.uri import Uri


class Request(NamedTuple):
    """The facts of a request that routing looks at.

    `call_id` is the one the inner end knows; `route` is our own topmost Route's URI, if there is one; `strict`: the
    request came from a strict router and was put right, so that `uri` is not the one on the wire; `media`: the one of
    `tokens.Dialog`.
    """

    method: str
    side: Side
    source: Endpoint
    call_id: str
    uri: Uri
    caller: Uri | None
    callee: Uri | None
    contact_port: int
    route: Uri | None
    in_dialog: bool
    has_sdp: bool
    media: int = 0
    via_port: int = 0
    strict: bool = False


class Relay(NamedTuple):
    """Send it on: to the first of `targets`, to the next when one is silent or broken.

    `dialog` names both ends as the answer and later requests will need them; `uri` is the new Request-URI, None to
    leave it; `redirect` says what a 3xx becomes.
    """

    to: Side
    targets: tuple[Endpoint, ...]
    dialog: Dialog
    uri: Uri | None = None
    redirect: str = "pass"


class Answer(NamedTuple):
    """Answer it here. `why` names the counter; `retry_after` in seconds."""

    code: int
    reason: str
    why: str
    retry_after: int = 0


type Decision = Relay | Answer


NOT_FOUND = Answer(404, "Not Found", "unknown-domain")
NO_DIALOG = Answer(481, "Call/Transaction Does Not Exist", "unknown-dialog")
FORBIDDEN = Answer(403, "Forbidden", "forbidden")
NOT_YOURS = Answer(403, "Forbidden", "foreign-dialog")
NO_INSTANCE = Answer(503, "Service Unavailable", "no-instance", retry_after=10)
ALL_DOWN = Answer(503, "Service Unavailable", "all-down", retry_after=10)
ALIVE = Answer(200, "OK", "keepalive")


def initial(request: Request, edge: Edge, sealer: Sealer, live: Live) -> Decision:
    """Route a request that belongs to no dialog yet."""
    if request.method == "ACK":
        # No transaction knows it and no dialog either: nobody waits for it.
        return NO_DIALOG
    if request.method == "OPTIONS" and _is_for_us(request.uri, edge):
        return ALIVE
    if request.side is Side.SERVICE:
        return _from_instance(request, edge, sealer, live)
    return _to_tenant(request, edge, sealer, live)


def in_dialog(request: Request, edge: Edge, sealer: Sealer, live: Live) -> Decision:
    """Route a request with a To-tag: only along a Route that we sealed for this very dialog and its ends."""
    text = request.route.param(PARAM) if request.route else None
    dialog = Dialog.open(sealer, text, request.call_id) if text else None
    if dialog is None:
        return NO_DIALOG
    if request.side is Side.SERVICE:
        if not _is_instance_of(dialog.tenant, dialog.inner, request.source, live):
            return NOT_YOURS
        return Relay(edge.network_of(dialog.outer.host), (dialog.outer,), dialog)
    # The port may have moved with the NAT's binding or a new connection, the address is the party's own.
    if request.source.host != dialog.outer.host:
        return NOT_YOURS
    return Relay(Side.SERVICE, (dialog.inner,), dialog, _revealed(request.uri, dialog.tenant, sealer))


def _is_for_us(uri: Uri, edge: Edge) -> bool:
    """Whether a URI means the node itself, and nobody behind it."""
    return not uri.user and uri.param(PARAM) is None and edge.is_self(uri.host)


def _to_tenant(request: Request, edge: Edge, sealer: Sealer, live: Live) -> Decision:
    """From outside or a local network: to an instance of the tenant whose domain the Request-URI names."""
    hidden = _hidden(request.uri, sealer)
    tenant = live.named(hidden.tenant) if hidden else live.tenant(request.uri.host)
    if tenant is None:
        return NOT_FOUND
    targets = ordered(tenant, _user(request, tenant, live))
    if hidden:
        # The instance that showed this Contact knows what it is about, and has the call while it drains.
        own = [i.endpoint for i in tenant.instances if hidden.contact.startswith(i.endpoint.hostport)]
        targets = tuple(dict.fromkeys([*own, *targets]))
    if not targets:
        return NO_INSTANCE
    targets = tuple(end for end in targets if not live.is_down(end))
    if not targets:
        return ALL_DOWN
    dialog = Dialog(tenant.name, request.source, targets[0], late=not request.has_sdp, media=request.media)
    uri = _unhide(request.uri, hidden) if hidden else None
    return Relay(Side.SERVICE, targets, dialog, uri, tenant.redirect)


def _from_instance(request: Request, edge: Edge, sealer: Sealer, live: Live) -> Decision:
    """From an instance: to the flow of one of its own tenant's phones."""
    text = request.uri.param(PARAM)
    binding = Binding.open(sealer, text) if text else None
    if binding is None:
        return FORBIDDEN
    tenant = live.named(binding.tenant)
    inner = _instance_at(tenant, request, edge) if tenant else None
    if inner is None:
        return FORBIDDEN
    renamed = edge.names_inside(request.call_id)
    dialog = Dialog(binding.tenant, binding.flow, inner, not request.has_sdp, renamed, request.media)
    own = binding.own_contact(request.uri.user)
    return Relay(edge.network_of(binding.flow.host), (binding.flow,), dialog, own)


def _revealed(uri: Uri, tenant: str, sealer: Sealer) -> Uri | None:
    """The URI of the tenant's instance behind a hidden one; None when `uri` is none."""
    hidden = _hidden(uri, sealer)
    return _unhide(uri, hidden) if hidden and hidden.tenant == tenant else None


def _hidden(uri: Uri, sealer: Sealer) -> Hidden | None:
    text = uri.param(PARAM)
    return Hidden.open(sealer, text) if text else None


def _unhide(uri: Uri, hidden: Hidden) -> Uri:
    return Uri(uri.scheme, uri.user, hidden.contact)


def _user(request: Request, tenant: Tenant, live: Live) -> str:
    """Whose instance it is: the caller's, if the caller is of this tenant, so that a phone's calls and registrations
    meet; else the called user's."""
    caller = request.caller
    if caller and caller.user:
        home = tenant if caller.host == request.uri.host else live.tenant(caller.host)
        if home and home.name == tenant.name:
            return caller.user
    return request.uri.user or (request.callee.user if request.callee else "")


def _is_instance_of(tenant: str, known: Endpoint, source: Endpoint, live: Live) -> bool:
    """Whether `source` may speak for the inner end: the instance itself, or a sibling that took over from it."""
    if source.host == known.host:
        return True
    now = live.named(tenant)
    return now is not None and any(source.host == instance.endpoint.host for instance in now.instances)


def _instance_at(tenant: Tenant, request: Request, edge: Edge) -> Endpoint | None:
    """The tenant's instance that sent the request; its listening port rather than a connection's passing one."""
    here = [i.endpoint for i in tenant.instances if i.endpoint.host == request.source.host]
    if edge.is_self(request.source.host):
        # On the node's own address live the instances of many tenants, told apart by their ports alone.
        ports = (request.source.port, request.contact_port, request.via_port)
        here = [end for end in here if end.port in ports]
    if not here:
        return None

    def likeness(end: Endpoint) -> tuple[bool, bool, bool]:
        transport = end.transport == request.source.transport
        return (end.port == request.source.port, end.port == request.contact_port, transport)

    return max(here, key=likeness)
