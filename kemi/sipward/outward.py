"""Where a request from an instance goes: to a phone of its own tenant, or to a trunk that serves it. Pure."""

from collections.abc import Iterator

from sipward import ports
from sipward.decision import FORBIDDEN, NO_TARGET, NOT_PROVEN, Decision, Relay, Request, charges
from sipward.edge import Edge
from sipward.live import Live
from sipward.model import Endpoint, Srtp, Tenant, Trunk
from sipward.seal import Sealer
from sipward.tokens import SPARE, Binding, Dialog
from sipward.uri import Uri, name_addrs, parse


class Outward:
    """The rules for what goes out."""

    def __init__(self, edge: Edge, sealer: Sealer, live: Live) -> None:
        """Keep what every decision needs."""
        self._edge = edge
        self._sealer = sealer
        self._live = live

    def route(self, request: Request) -> Decision:
        """Decide where a request outside any dialog goes."""
        binding = Binding.of(self._sealer, request.uri)
        if binding is None:
            return self._to_trunk(request)
        tenant = self._live.named(binding.tenant)
        inner = self._instance_at(tenant, request) if tenant else None
        if tenant is None or inner is None:
            return FORBIDDEN
        dialog = self._dialog(request, tenant, binding.flow, inner)
        if request.method == "INVITE":
            dialog = dialog._replace(outer_srtp=self._allowed(request, self._live.srtp(tenant.name, binding.flow)))
        own = binding.own_contact(request.uri.user)
        side, charged = self._edge.network_of(binding.flow.host), charges(tenant)
        return Relay(side, (binding.flow,), dialog, own, asserts=True, charges=charged)

    def _to_trunk(self, request: Request) -> Decision:
        """To the first trunk of the Request-URI's host that serves the sender's tenant. The URI is the carrier's."""
        for trunk in self._live.trunks_to(request.uri.host):
            for tenant in self._tenants(request, trunk):
                if inner := self._instance_at(tenant, request):
                    return self._by_trunk(request, trunk, tenant, inner)
        return FORBIDDEN

    def _tenants(self, request: Request, trunk: Trunk) -> Iterator[Tenant]:
        """Whose instance has sent a request, as far as the trunk serves them."""
        host = request.source.host
        near = self._listening(request) if self._edge.is_self(host) else (0,)
        for name in (name for port in near for name in self._live.tenants_at(host, port)):
            if trunk.serves(name) and (tenant := self._live.named(name)):
                yield tenant

    def _by_trunk(self, request: Request, trunk: Trunk, tenant: Tenant, inner: Endpoint) -> Decision:
        if not trunk.targets:
            return NO_TARGET
        first = trunk.targets[0]
        # What rtpengine has made of an offer names addresses of one family.
        family = [target for target in trunk.targets if (":" in target.host) == (":" in first.host)]
        # Nobody asks a carrier whether it is there: one that has failed is the last choice, but one it is.
        if trunk.proof:
            family = [target for target in family if self._live.connection(trunk.name, target)]
            if not family:
                return NOT_PROVEN
        targets = tuple(sorted(family, key=self._live.is_resting)) if len(family) > 1 else tuple(family)
        dialog = self._dialog(request, tenant, targets[0], inner)
        dialog = dialog._replace(
            trunk=trunk.name,
            fixed=trunk.media == "fixed",
            others=targets[1 : 1 + SPARE],
            outer_srtp=self._allowed(request, trunk.srtp),
        )
        side = self._edge.network_of(targets[0].host)
        asserts, charged = tenant.identity == "pass", charges(tenant, trunk)
        relay = Relay(side, targets, dialog, None, tenant.redirect, asserts, charges=charged)
        return self._from_own_port(request, relay) if trunk.own_port else relay

    def _from_own_port(self, request: Request, relay: Relay) -> Relay:
        """By the port that the account has which the request is of: a REGISTER's To, any other's From.

        A call that hides its caller, or shows another number, says by RFC 3325 whose it is.
        """
        dialog = relay.dialog
        if request.method == "REGISTER":
            holder = ports.holder(dialog, request.callee) if request.callee else ""
            return relay._replace(dialog=dialog._replace(port=self._live.port(holder)), holder=holder)
        for uri in self._callers(request):
            holder = ports.holder(dialog, uri)
            if port := self._live.port(holder) or self._live.port(ports.short(holder)):
                return relay._replace(dialog=dialog._replace(port=port))
        return relay

    def _callers(self, request: Request) -> Iterator[Uri]:
        """Who calls, by all that the request says of it."""
        if request.caller:
            yield request.caller
        for name in ("p-preferred-identity", "p-asserted-identity"):
            for address in name_addrs(request.header(name)):
                if uri := parse(address.uri):
                    yield uri

    def _allowed(self, request: Request, srtp: Srtp) -> Srtp:
        """What the outer end is offered, unless the instance wants plain RTP on that leg."""
        return srtp if srtp is Srtp.OFF or request.header("isTrunk").strip() != "1" else Srtp.OFF

    def _dialog(self, request: Request, tenant: Tenant, outer: Endpoint, inner: Endpoint) -> Dialog:
        unhidden = request.header("topos").strip() == "0"
        renamed = not unhidden and self._edge.names_inside(request.call_id)
        srtp = request.srtp if request.has_sdp else tenant.srtp_of(inner)
        return Dialog(
            tenant.name,
            outer,
            inner,
            late=not request.has_sdp,
            renamed=renamed,
            media=request.media,
            unhidden=unhidden,
            inner_srtp=srtp,
        )

    def _instance_at(self, tenant: Tenant, request: Request) -> Endpoint | None:
        """The tenant's instance that sent the request; its listening port rather than a connection's passing one."""
        here = [i.endpoint for i in tenant.instances if i.endpoint.host == request.source.host]
        if self._edge.is_self(request.source.host):
            # On the node's own address live the instances of many tenants, told apart by their ports alone.
            near = self._listening(request)
            here = [end for end in here if end.port in near]
        if not here:
            return None

        def likeness(end: Endpoint) -> tuple[bool, bool, bool]:
            transport = end.transport == request.source.transport
            return (end.port == request.source.port, end.port == request.contact_port, transport)

        return max(here, key=likeness)

    def _listening(self, request: Request) -> tuple[int, ...]:
        """The ports where the sender may be listening: a connection's own port is a passing one."""
        if request.source.transport == "udp":
            return (request.source.port,)
        return (request.source.port, request.contact_port, request.via_port)
