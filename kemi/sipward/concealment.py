"""Topology hiding: what is inside stays inside, and what must come back comes back sealed.

Towards the outside, a Contact of an instance shows our address, with its own host part sealed into it; the instance's
Via headers wait in the transaction for the reply; an inner address in any other header becomes the tenant's domain.
Towards an instance, the Contact of a REGISTER shows our service address, with the phone's flow sealed into it, so that
an instance reaches the phone through us whether it knows Path (RFC 3327) or not; the phone gets its own Contact back.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple
from urllib.parse import quote, unquote

from sipward import headers, sips
from sipward.decision import Relay, Request
from sipward.edge import ADDRESS, Edge
from sipward.media import OFFERING
from sipward.model import Endpoint, Side, Socket
from sipward.seal import Sealer
from sipward.tokens import MARK, PARAM, Account, Binding, Dialog, Hidden
from sipward.uri import NameAddr, Uri, name_addrs, parse, split_list

_VIAS = "vias"
_CALL_ID_KIND = b"call-id"
_BRANCH = re.compile(r";\s*branch\s*=\s*([^;,\s]+)", re.IGNORECASE)
_SEALED = re.compile(rf";{PARAM}=[\w-]+")
_HANDLED = frozenset({"via", "contact", "record-route", "route", "content-length", "call-id", "cseq"})
"""Header fields that have a rule of their own, or that other messages are matched by."""
_REFERRING = ("refer-to", "replaces")
"""Header fields that name another dialog, and a Contact of it."""
_REPLACES = re.compile(r"(Replaces(?:=|\s*:\s*))((?:[^;,?&>%\s]|%(?!3[Bb]))+)", re.IGNORECASE)
_OUTER_CALL_ID = re.compile(rf"{PARAM}-[\w-]+")
_ENDS = frozenset({"from", "to"})
_ECHOED = _HANDLED | _ENDS
_UNSWEPT = _ECHOED | {""}


class Bound(NamedTuple):
    """One of a phone's own Contacts, as its registrar lists it and as the phone gave it."""

    inner: NameAddr
    own: Uri


class Concealment:
    """The header changes of one worker."""

    def __init__(self, sip: ModuleType, edge: Edge, sealer: Sealer, domain_of: Callable[[str], str]) -> None:
        """`sip`: the verbs of `sipward.kamailio`; `domain_of`: a tenant's domain by its name."""
        self._sip = sip
        self._edge = edge
        self._sealer = sealer
        self._domain_of = domain_of
        # An instance shows the same Contact in every message, and a seal is always the same for the same text.
        self._hidden = lru_cache(maxsize=4096)(self._hidden_contacts)

    def register(self, dialog: Dialog, socket: Socket, more: Iterable[str] = ()) -> None:
        """Let the registrar see each Contact at our service address, with the phone's flow sealed in.

        `more`: values that it is to see as well, as they are.
        """
        shown = self._edge.shown_to(Side.SERVICE, socket)

        def bind(uri: Uri) -> Uri:
            text = Binding(dialog.tenant, dialog.outer, f"{uri.scheme}:{uri.rest}").seal(self._sealer)
            return Uri("sip", uri.user, f"{shown}{transport_param(socket)};{PARAM}={text}")

        if texts := self._sip.contacts():
            self._sip.set_contacts([*_contacts(texts, bind), *more])

    def outer_call_id(self, call_id: str) -> str:
        """Another Call-ID, shown outside for one that holds an inner address; always the same for the same one."""
        return f"{MARK}{self._sealer.seal(_CALL_ID_KIND, call_id.encode())}"

    def inner_call_id(self, call_id: str) -> str:
        """The Call-ID inside for any that comes from outside: most are the same on both sides."""
        if not call_id.startswith(MARK):
            return call_id
        content = self._sealer.open(_CALL_ID_KIND, call_id[len(MARK) :])
        return call_id if content is None else content.decode()

    def request(self, request: Request, relay: Relay, socket: Socket, call_id: str) -> bool:
        """Make an instance's request one that shows nothing of the inside; to be done before any other change.

        Creates the transaction with the Via headers and the Call-ID as they came, by which what belongs to it is found,
        and keeps the Via headers there; but for an ACK, which has no reply. All else is changed before: only what is
        changed after it is changed again for the next target. False when the request turns out to be a retransmission
        that another worker is handling. `call_id`: what the outside sees as such.
        """
        sip, tenant = self._sip, relay.dialog.tenant
        head, _, body = sip.buffer().partition("\r\n\r\n")
        vias: list[str] = []
        lines = headers.lines(head)
        changed = list(self._concealed(lines, vias, request.method, relay, socket))
        changed[1:1] = [*(f"Via: {via}" for via in vias), f"Call-ID: {request.call_id}"]
        rewritten = request.has_sdp and request.method in OFFERING
        if not rewritten and (swept := self._swept(body, self._domain_of(tenant))) != body:
            body = swept
            size = f"Content-Length: {len(body.encode())}"
            changed = [size if headers.field(line)[0] == "content-length" else line for line in changed]
        sip.set_buffer("\r\n".join(changed) + "\r\n\r\n" + body)
        if request.method != "ACK":
            if not sip.new_transaction():
                return False
            sip.remember(_VIAS, "\n".join(vias))
        shown = self._edge.shown_to(relay.to, socket)
        branch = _BRANCH.search(vias[0]) if vias else None
        only = f"SIP/2.0/{socket.local.transport.upper()} {shown};branch={branch[1] if branch else 'z9hG4bK'}"
        sip.mask_vias(only, len(vias))
        if request.call_id != call_id:
            sip.set_call_id(call_id)
        # The core writes a `received` with the true source behind any Via that does not name it.
        sip.pretend_source(socket, shown)
        return True

    def reveal(self, method: str, tenant: str) -> None:
        """Let an instance see its own Contacts and Call-IDs in what a phone says of another call (RFC 3515, 3891)."""
        if method not in {"REFER", "INVITE"}:
            return
        for name in _REFERRING:
            value = shown = self._sip.header(name)
            if MARK in value:
                value = self._inner_call_ids(value, in_uri=name == "refer-to")
            if f";{PARAM}=" in value:
                value = self._revealed(value, tenant)
            if value != shown:
                self._sip.replace_header(name, [value])

    def _inner_call_ids(self, value: str, in_uri: bool) -> str:
        """A value with the Call-ID inside: escaped in a URI (RFC 3261, 19.1.1), else as it is (RFC 3891, 6.1)."""

        def inner(match: re.Match[str]) -> str:
            call_id = self.inner_call_id(match[0])
            return quote(call_id, safe="") if in_uri else call_id

        return _OUTER_CALL_ID.sub(inner, value)

    def _revealed(self, value: str, tenant: str) -> str:
        """A Refer-To value with the Contact of the tenant's own instance in the place of the hidden one."""
        address = next(name_addrs(value), None)
        uri = parse(address.uri) if address else None
        hidden = Hidden.open(self._sealer, uri.param(PARAM) or "") if uri else None
        if address is None or uri is None or hidden is None or hidden.tenant != tenant:
            return value
        _, mark, query = uri.rest.partition("?")
        return str(address._replace(uri=str(uri._replace(rest=hidden.contact + mark + query))))

    def _outer_call_ids(self, line: str) -> str:
        """A line in which the Call-ID of another dialog is the one that the outside knows."""

        def outer(match: re.Match[str]) -> str:
            call_id = unquote(match[2]) if match[1].endswith("=") else match[2]
            return match[1] + (self.outer_call_id(call_id) if self._edge.names_inside(call_id) else match[2])

        return _REPLACES.sub(outer, line)

    def restore_vias(self) -> None:
        """Give a reply to an instance the Via headers of its request back."""
        if kept := self._sip.recall(_VIAS):
            self._sip.restore_vias(kept.split("\n"))

    def mark_sips(self) -> None:
        """Let an instance see a phone's sips Contacts as sip ones."""
        texts = self._sip.contacts()
        if any("sips:" in text.lower() for text in texts):
            self._sip.set_contacts(_contacts(texts, sips.marked, lambda _: True))

    def registered(self, tenant: str, flow: Endpoint | None, dropped: frozenset[str] = frozenset()) -> list[Bound]:
        """Hide what a registrar's reply says of the inside, and give the phone at `flow` its own Contacts back.

        Returns those.
        """
        texts = self._sip.contacts()
        bound = list(self._bound(texts, flow))
        if texts:
            self._sip.set_contacts([str(inner._replace(uri=str(own))) for inner, own in bound])
        self._sweep_reply(tenant, dropped)
        return bound

    def registered_outside(self, tenant: str, trunk: str) -> None:
        """Give an instance that has registered at a carrier its own Contacts back, and nobody else's."""

        def own(uri: Uri) -> Uri | None:
            account = Account.open(self._sealer, uri.user, trunk)
            return parse(account.contact) if account and account.tenant == tenant else None

        self._replace_contacts(own)

    def record_route(self, value: str, to: Side, tenant: str, socket: Socket) -> str:
        """A Record-Route of a proxy behind us: our address, with the proxy's own sealed in."""
        address = next(name_addrs(value), None)
        uri = parse(address.uri) if address else None
        return f"<{self._hide(uri, to, tenant, socket)};lr>" if uri else value

    def inner_route(self, value: str, tenant: str) -> str | None:
        """The Route or Record-Route of a proxy behind us that `record_route` hid; None for any other."""
        if f";{PARAM}=" not in value:
            return None
        address = next(name_addrs(value), None)
        uri = parse(address.uri) if address else None
        hidden = Hidden.open(self._sealer, uri.param(PARAM) or "") if uri else None
        if uri is None or hidden is None or hidden.tenant != tenant:
            return None
        return f"<{Uri(uri.scheme, uri.user, hidden.contact)}>"

    def reply(self, status: int, to: Side, tenant: str, socket: Socket, dropped: frozenset[str] = frozenset()) -> None:
        """Hide what an instance's reply says of the inside. `dropped`: fields that it has lost already."""
        redirects = 300 <= status < 400
        if texts := self._sip.contacts():
            shown = [self._hidden(text, to, tenant, socket, redirects) for text in texts]
            self._sip.set_contacts([text for text in shown if text])
        self._sweep_reply(tenant, dropped)

    def _concealed(self, lines: list[str], vias: list[str], method: str, relay: Relay, socket: Socket) -> Iterator[str]:
        """The lines without anything inner and without the Call-ID; the values of Via go to `vias` instead."""
        to, tenant = relay.to, relay.dialog.tenant
        domain = self._domain_of(tenant)
        dropped = headers.INTERNAL if relay.asserts else headers.INTERNAL_AND_IDENTITY
        registers = method == "REGISTER"
        yield lines[0]
        if not any(headers.field(line)[0] == "max-forwards" for line in lines[1:]):
            yield "Max-Forwards: 70"
        for line in lines[1:]:
            name, value = headers.field(line)
            if name == "via":
                vias.extend(split_list(value))
            elif name == "contact":
                account = self._account(value, relay, socket) if registers else ""
                if shown := account or self._hidden(value, to, tenant, socket, False):
                    yield f"Contact: {shown}"
            elif name == "record-route":
                hidden = [self.record_route(route, to, tenant, socket) for route in split_list(value)]
                yield f"Record-Route: {', '.join(hidden)}"
            elif name in _HANDLED:
                if name != "call-id":
                    yield line
            elif name in _REFERRING:
                yield self._swept(self._outer_call_ids(line), domain)
            elif name not in dropped:
                yield self._swept(line, domain)

    def _account(self, text: str, relay: Relay, socket: Socket) -> str:
        """The Contact of an instance's REGISTER as the carrier sees it: ours, whatever the carrier forgets of it."""
        shown = f"{self._edge.shown_to(relay.to, socket)}{transport_param(socket)}"

        def own(uri: Uri) -> Uri:
            return Uri(uri.scheme, Account(relay.dialog.tenant, str(uri)).seal(self._sealer, relay.dialog.trunk), shown)

        return ", ".join(_contacts([text], own))

    def _sweep_reply(self, tenant: str, dropped: frozenset[str]) -> None:
        """Clear a reply's header fields of inner addresses; From and To are the caller's own words."""
        try:
            head = self._sip.buffer().partition("\r\n\r\n")[0]
        except UnicodeDecodeError:
            # What cannot be read cannot be cleared: only the fields that a reply needs go on.
            self._sip.keep_needed_headers()
            return
        suspects = {headers.name_at(head, at) for mark in self._edge.marks for at in headers.places(head, mark)}
        if suspects <= _UNSWEPT:
            return
        fields = [headers.field(line) for line in headers.lines(head)[1:]]
        kept = _ECHOED | dropped
        inner = {name for name, value in fields if name not in kept and self._edge.names_inside(value)}
        for name in inner:
            swept = [self._swept(value, self._domain_of(tenant)) for n, value in fields if n == name]
            self._sip.replace_header(name, swept)

    def _swept(self, line: str, domain: str) -> str:
        """A line in which the tenant's domain stands for each inner address."""
        swept = ADDRESS.sub(
            lambda match: domain if self._edge.is_inside(match[1] or match[2] or match[3]) else match[0], line
        )
        return _SEALED.sub("", swept) if PARAM in swept else swept

    def _hidden_contacts(self, text: str, to: Side, tenant: str, socket: Socket, redirects: bool) -> str:
        """A Contact header's text with the instance hidden; of a redirection only what is inside."""
        hide = self._hide_inner if redirects else self._hide
        keep = self._shows_nothing if redirects else None
        return ", ".join(_contacts([text], lambda uri: hide(uri, to, tenant, socket), keep))

    def _shows_nothing(self, uri: str) -> bool:
        return not self._edge.names_inside(uri)

    def _hide(self, uri: Uri, to: Side, tenant: str, socket: Socket) -> Uri:
        text = Hidden(tenant, uri.rest).seal(self._sealer)
        return Uri(uri.scheme, uri.user, f"{self._edge.shown_to(to, socket)}{transport_param(socket)};{PARAM}={text}")

    def _hide_inner(self, uri: Uri, to: Side, tenant: str, socket: Socket) -> Uri:
        """Hide a redirection's target inside; one outside is what the caller is meant to see."""
        inside = self._edge.is_self(uri.host) or self._edge.is_inside(uri.host)
        return self._hide(uri, to, tenant, socket) if inside else uri

    def _bound(self, texts: Iterable[str], flow: Endpoint | None) -> Iterator[Bound]:
        """The Contacts of the phone at `flow`, and no other binding.

        Behind two NATs two phones of one user may well have the same Contact: of both, neither would know its own.
        """
        for value in (value for text in texts for value in name_addrs(text)):
            uri = parse(value.uri)
            binding = Binding.of(self._sealer, uri) if uri else None
            if uri and binding and binding.flow == flow:
                yield Bound(value, binding.own_contact(uri.user))

    def _replace_contacts(self, change: Callable[[Uri], Uri | None]) -> None:
        if texts := self._sip.contacts():
            self._sip.set_contacts(_contacts(texts, change))


def _contacts(
    texts: Iterable[str], change: Callable[[Uri], Uri | None], keep: Callable[[str], bool] | None = None
) -> list[str]:
    """Contact values with each SIP URI changed; those that `change` gives up are left out.

    `keep`: which URIs of other schemes stay as they are; without it none does.
    """
    values: list[str] = []
    for value in (value for text in texts for value in name_addrs(text)):
        if value.uri == "*":
            values.append("*")
        elif keep and parse(value.uri) is None and keep(value.uri):
            values.append(str(value))
        elif (uri := parse(value.uri)) and (changed := change(uri)):
            values.append(str(NameAddr(value.display, str(changed), value.params)))
    return values


def transport_param(socket: Socket) -> str:
    """The URI parameter that leads to a socket; UDP is what a URI without one means (RFC 3263, 4.1)."""
    transport = socket.local.transport
    return "" if transport == "udp" else f";transport={transport}"
