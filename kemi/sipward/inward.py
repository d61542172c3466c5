"""Where a request from outside or from a local network goes: always to an instance. Pure."""

from collections.abc import Iterable

from sipward import sips
from sipward.balance import ordered
from sipward.decision import (
    ALL_DOWN,
    NO_INSTANCE,
    NO_TENANT,
    NOT_FOUND,
    NOT_SERVED,
    UNKNOWN_NUMBER,
    Answer,
    Decision,
    Relay,
    Request,
    charges,
)
from sipward.edge import Edge
from sipward.live import Live
from sipward.model import Endpoint, Side, Srtp, Tenant, Trunk
from sipward.numbers import canonical, dialled
from sipward.seal import Sealer
from sipward.tokens import MARK, PARAM, SPARE, Account, Dialog, Hidden
from sipward.uri import Uri, name_addrs, parse


class Inward:
    """The rules for what comes in."""

    def __init__(self, edge: Edge, sealer: Sealer, live: Live) -> None:
        """Keep what every decision needs."""
        self._edge = edge
        self._sealer = sealer
        self._live = live

    def route(self, request: Request) -> Decision:
        """Decide where a request outside any dialog goes."""
        if trunks := self._live.trunks_from(request.source):
            return self._from_trunks(request, trunks)
        uri = request.uri
        if hidden := Hidden.of(self._sealer, uri):
            tenant = self._live.named(hidden.tenant)
            return self._to_hidden(request, tenant, hidden) if tenant else NOT_FOUND
        if tenant := self._live.tenant(uri.host):
            return self._to_tenant(request, tenant)
        if uri.scheme != "tel" and (not self._edge.is_self(uri.host) or uri.param(PARAM) is not None):
            # A foreign host, or one of our Contacts that is not for this sender: what is dialled there says nothing.
            return NOT_FOUND
        return self._to_number(request, self._number(uri)) or NOT_FOUND

    def _from_trunks(self, request: Request, trunks: Iterable[Trunk]) -> Decision:
        """To a tenant that one of the trunks at the request's source serves."""
        refusal = UNKNOWN_NUMBER
        for trunk in trunks:
            decision = self._from_trunk(request, trunk)
            if isinstance(decision, Relay):
                return decision
            if decision is not UNKNOWN_NUMBER:
                refusal = decision
        return refusal

    def _from_trunk(self, request: Request, trunk: Trunk) -> Decision:
        """By what we sealed for the carrier, by the number it has dialled, by the domain; whatever the host is."""
        uri = request.uri
        if uri.user.startswith(MARK) and (account := Account.open(self._sealer, uri.user, trunk.name)):
            return self._to_account(request, trunk, account)
        if hidden := Hidden.of(self._sealer, uri):
            tenant = self._live.named(hidden.tenant) if self._is_served(hidden.tenant, trunk) else None
            return self._to_hidden(request, tenant, hidden, trunk) if tenant else NOT_SERVED
        if decision := self._to_number(request, self.dialled(request, trunk), trunk):
            return decision
        tenant = self._live.tenant(uri.host)
        return self._to_tenant(request, tenant, trunk) if tenant and trunk.serves(tenant.name) else UNKNOWN_NUMBER

    def _to_number(self, request: Request, number: str, trunk: Trunk | None = None) -> Decision | None:
        """To whom a canonical number belongs; None when it is none, or nobody's and there may be another way."""
        found = self._live.number(number, trunk.name if trunk else "") if number else None
        if found is None:
            return UNKNOWN_NUMBER if number and not trunk else None
        if found.tenant is None:
            return NO_TENANT
        if trunk and not self._is_served(found.tenant.name, trunk):
            return NOT_SERVED
        return self._to_tenant(request, found.tenant, trunk, found.rule)

    def _is_served(self, tenant: str, trunk: Trunk) -> bool:
        """Whether a trunk's calls may go to a tenant; to the tenant of one number, if they may go to the number."""
        if tenant.startswith("#"):
            return tenant.partition("@")[2] in {"", trunk.name}
        return trunk.serves(tenant)

    def dialled(self, request: Request, trunk: Trunk) -> str:
        """The canonical number that a carrier has dialled, from where it puts it; "" when there is none."""
        if trunk.number == "r-uri":
            return self._number(request.uri)
        address = next(name_addrs(request.header(trunk.number)), None)
        uri = parse(address.uri, tel=True) if address else None
        return self._number(uri) if uri else ""

    def _number(self, uri: Uri) -> str:
        number = dialled(uri.user)
        return canonical(number, self._edge.plan) if number else ""

    def _to_account(self, request: Request, trunk: Trunk, account: Account) -> Decision:
        """To the instance that has registered at the carrier, under the Contact it gave."""
        tenant = self._live.named(account.tenant) if trunk.serves(account.tenant) else None
        own = parse(account.contact)
        if tenant is None or own is None:
            return NOT_SERVED
        return self._to_instance(request, tenant, self._nearest(request, tenant, own.rest), trunk, own)

    def _to_hidden(self, request: Request, tenant: Tenant, hidden: Hidden, trunk: Trunk | None = None) -> Decision:
        """To the instance that has shown a hidden Contact."""
        targets = self._nearest(request, tenant, hidden.contact)
        return self._to_instance(request, tenant, targets, trunk, hidden.revealed(request.uri))

    def _nearest(self, request: Request, tenant: Tenant, contact: str) -> tuple[Endpoint, ...]:
        """A tenant's instances, the one that a Contact is of first: which knows it, and while it drains."""
        there = Uri("sip", "", contact)
        ends = [instance.endpoint for instance in tenant.instances]
        own = [end for end in ends if (end.host, end.port) == (there.host, there.port)]
        return tuple(dict.fromkeys([*own, *self._ordered(request, tenant)]))

    def _to_tenant(self, request: Request, tenant: Tenant, trunk: Trunk | None = None, rule: str = "") -> Decision:
        """To any of a tenant's instances. A tel URI means the same number at the tenant's (RFC 3261, 19.1.6)."""
        uri = request.uri
        told = Uri("sip", uri.user, f"{tenant.domain};user=phone") if uri.scheme == "tel" else None
        return self._to_instance(request, tenant, self._ordered(request, tenant), trunk, told, rule)

    def _to_instance(
        self,
        request: Request,
        tenant: Tenant,
        targets: tuple[Endpoint, ...],
        trunk: Trunk | None,
        uri: Uri | None,
        rule: str = "",
    ) -> Relay | Answer:
        if not targets:
            return NO_INSTANCE
        targets = tuple(target for target in targets if not self._live.is_down(target))
        if not targets:
            return ALL_DOWN
        dialog = Dialog(
            tenant.name,
            request.source,
            targets[0],
            late=not request.has_sdp,
            media=request.media,
            others=targets[1 : 1 + SPARE],
            outer_srtp=self._outer_srtp(request, tenant, trunk),
            inner_srtp=tenant.srtp_of(targets[0]),
        )
        dialog = dialog._replace(port=request.port) if request.port else dialog
        charged, asserts = charges(tenant, trunk), False
        if trunk:
            dialog = dialog._replace(trunk=trunk.name, fixed=trunk.media == "fixed")
            asserts = trunk.identity == "pass"
        uri = uri or sips.plain(request.uri, targets[0])
        return Relay(Side.SERVICE, targets, dialog, uri, tenant.redirect, asserts, rule, charged)

    def _outer_srtp(self, request: Request, tenant: Tenant, trunk: Trunk | None) -> Srtp:
        """What the outer end is offered in this dialog: what it has offered itself, or else what is known of it."""
        if request.has_sdp or request.method != "INVITE":
            return request.srtp
        return trunk.srtp if trunk else self._live.srtp(tenant.name, request.source)

    def _ordered(self, request: Request, tenant: Tenant) -> tuple[Endpoint, ...]:
        return ordered(tenant, self._user(request, tenant))

    def _user(self, request: Request, tenant: Tenant) -> str:
        """Whose instance it is: the caller's, if the caller is of this tenant, so that a phone's calls and
        registrations meet; else the called user's."""
        caller = request.caller
        if caller and caller.user:
            home = tenant if caller.host == request.uri.host else self._live.tenant(caller.host)
            if home and home.name == tenant.name:
                return caller.user
        return request.uri.user or (request.callee.user if request.callee else "")
