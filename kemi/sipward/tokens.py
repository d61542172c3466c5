"""The sealed texts of the node, carried as the URI parameter `sw`: what is in them and what they are bound to.

| text | rides in | says | bound to |
| --- | --- | --- | --- |
| Dialog | Record-Route, comes back as Route | tenant, trunk, the outer and the inner end | the Call-ID |
| Binding | the Contact of a REGISTER, comes back as Request-URI | tenant, the phone's flow and its own Contact | - |
| Hidden | the Contact of an instance, comes back as Request-URI | tenant, the instance's own Contact | - |
| Account | the user part of an instance's REGISTER to a carrier | tenant, the instance's own Contact | the trunk |

The outer end is the flow to a phone or carrier: its real address and transport (RFC 5626, 3.3 knows the idea as a flow
token). Our socket follows from it: there is one socket for each side, transport and family, but for registrations that
have a port of ours to themselves.
"""

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple, Self

from sipward.model import Endpoint, Srtp
from sipward.seal import Sealer
from sipward.uri import Uri

PARAM = "sw"
"""The URI parameter that holds a sealed text."""
MARK = f"{PARAM}-"
"""What a sealed text begins with where it stands alone: as a user part, or as a Call-ID."""

SPARE = 8
"""How many further targets a dialog knows: its text rides in every message of it."""

_KINDS = tuple(Srtp)
_TRANSPORTS = ("udp", "tcp", "tls")
_MALFORMED = (IndexError, ValueError)
"""What reading raises when the content was sealed by a release that wrote it otherwise."""


class Dialog(NamedTuple):
    """Both ends of a dialog, bound to the Call-ID that the inner end knows.

    `late`: the INVITE came without an offer (RFC 3264, 4). `renamed`: the outer end knows another Call-ID. `media`:
    what tells the media of this INVITE from that of another one with the same Call-ID (forked, or merged: RFC 3261,
    8.2.2.2). `trunk`: the outer end is a carrier, any of that trunk's addresses. `fixed`: its SDP says where its RTP
    comes from. `unhidden`: its instance wants to be seen as it is. `others`: the targets that were to be tried after
    the first: one may have become the end that it was meant to be, and be nobody's any more when it speaks. `port`: our
    own one towards the outer end, 0 for the ordinary one. `outer_srtp`, `inner_srtp`: what each end is offered.
    """

    tenant: str
    outer: Endpoint
    inner: Endpoint
    late: bool = False
    renamed: bool = False
    media: int = 0
    trunk: str = ""
    fixed: bool = False
    unhidden: bool = False
    others: tuple[Endpoint, ...] = ()
    port: int = 0
    outer_srtp: Srtp = Srtp.OFF
    inner_srtp: Srtp = Srtp.OFF

    def may_be(self, end: Endpoint, source: Endpoint) -> bool:
        """Whether `source` may speak for an end, as far as the dialog knows.

        The port may have moved with a NAT's binding or a new connection, the address is the party's own.
        """
        return source.host == end.host or any(source.host == other.host for other in self.others)

    def seal(self, sealer: Sealer, call_id: str) -> str:
        """The text for a Record-Route of the dialog `call_id`."""
        flags = self.late | self.renamed << 1 | self.fixed << 2 | self.unhidden << 3
        kinds = _KINDS.index(self.outer_srtp) | _KINDS.index(self.inner_srtp) << 2
        flags |= bool(self.others) << 4 | bool(self.port) << 5 | bool(kinds) << 6
        head = flags.to_bytes() + self.media.to_bytes(4, "big")
        names = f"{self.tenant}\0{self.trunk}" if self.trunk else self.tenant
        ends = _pack(self.outer) + _pack(self.inner)
        if self.others:
            ends += bytes((len(self.others),)) + b"".join(map(_pack, self.others))
        if self.port:
            ends += self.port.to_bytes(2, "big")
        if kinds:
            ends += kinds.to_bytes()
        content = head + ends + names.encode()
        return sealer.seal(b"dialog", content, call_id.encode())

    @classmethod
    def open(cls, sealer: Sealer, text: str, call_id: str) -> Self | None:
        """Read a Route's text; None when it was not sealed by us for this dialog."""
        content = sealer.open(b"dialog", text, call_id.encode())
        if content is None:
            return None
        try:
            outer, at = _unpack(content, 5)
            inner, at = _unpack(content, at)
            flags, media = content[0], int.from_bytes(content[1:5], "big")
            others, at = _unpack_several(content, at) if flags & 16 else ((), at)
            late, renamed, fixed, unhidden = (bool(flags & bit) for bit in (1, 2, 4, 8))
            kinds_at = at + 2 if flags & 32 else at
            names_at = kinds_at + 1 if flags & 64 else kinds_at
            port, kinds = (int.from_bytes(part, "big") for part in (content[at:kinds_at], content[kinds_at:names_at]))
            tenant, _, trunk = content[names_at:].decode().partition("\0")
            kind = _KINDS[kinds & 3], _KINDS[kinds >> 2]
            return cls(tenant, outer, inner, late, renamed, media, trunk, fixed, unhidden, others, port, *kind)
        except _MALFORMED:
            return None


class Binding(NamedTuple):
    """A registered phone: where it really is, and the Contact it gave as `scheme:rest`, without its user part."""

    tenant: str
    flow: Endpoint
    contact: str

    def seal(self, sealer: Sealer) -> str:
        """The text for a registered Contact."""
        tenant = self.tenant.encode()
        return sealer.seal(b"binding", _pack(self.flow) + bytes((len(tenant),)) + tenant + self.contact.encode())

    @classmethod
    def open(cls, sealer: Sealer, text: str) -> Self | None:
        """Read a Request-URI's text; None when it was not sealed by us as a binding."""
        content = sealer.open(b"binding", text)
        if content is None:
            return None
        try:
            flow, at = _unpack(content, 0)
            tenant, contact = _split(content, at)
            return cls(tenant, flow, contact)
        except _MALFORMED:
            return None

    @classmethod
    def of(cls, sealer: Sealer, uri: Uri) -> Self | None:
        """The one that a URI carries."""
        text = uri.param(PARAM)
        return cls.open(sealer, text) if text else None

    def own_contact(self, user: str) -> Uri:
        """The Contact as the phone gave it."""
        scheme, _, rest = self.contact.partition(":")
        return Uri(scheme, user, rest)


class Hidden(NamedTuple):
    """The host part and parameters of a URI inside that the outside must not see."""

    tenant: str
    contact: str

    def seal(self, sealer: Sealer) -> str:
        """The text for a Contact that leaves to the outside."""
        tenant = self.tenant.encode()
        return sealer.seal(b"hidden", bytes((len(tenant),)) + tenant + self.contact.encode())

    @classmethod
    def open(cls, sealer: Sealer, text: str) -> Self | None:
        """Read a URI's text; None when it was not sealed by us as a hidden one."""
        content = sealer.open(b"hidden", text)
        if content is None:
            return None
        try:
            return cls(*_split(content, 0))
        except _MALFORMED:
            return None

    @classmethod
    def of(cls, sealer: Sealer, uri: Uri) -> Self | None:
        """The one that a URI carries."""
        text = uri.param(PARAM)
        return cls.open(sealer, text) if text else None

    def revealed(self, uri: Uri) -> Uri:
        """A URI that carries it, as the instance wrote it."""
        return Uri(uri.scheme, uri.user, self.contact)


class Account(NamedTuple):
    """An instance that has registered at a carrier, and its own Contact URI."""

    tenant: str
    contact: str

    def seal(self, sealer: Sealer, trunk: str) -> str:
        """The user part of the Contact that the carrier sees: a carrier may forget all but that."""
        tenant = self.tenant.encode()
        content = bytes((len(tenant),)) + tenant + self.contact.encode()
        return MARK + sealer.seal(b"account", content, trunk.encode())

    @classmethod
    def open(cls, sealer: Sealer, user: str, trunk: str) -> Self | None:
        """Read a user part; None when it was not sealed by us for this trunk."""
        content = sealer.open(b"account", user.removeprefix(MARK), trunk.encode()) if user.startswith(MARK) else None
        if content is None:
            return None
        try:
            return cls(*_split(content, 0))
        except _MALFORMED:
            return None


@lru_cache(maxsize=8192)
def _pack(end: Endpoint) -> bytes:
    ipv6 = ":" in end.host
    kind = _TRANSPORTS.index(end.transport) | (0x80 if ipv6 else 0)
    return bytes((kind,)) + inet_pton(AF_INET6 if ipv6 else AF_INET, end.host) + end.port.to_bytes(2, "big")


def _unpack(content: bytes, at: int) -> tuple[Endpoint, int]:
    kind = content[at]
    size = 16 if kind & 0x80 else 4
    port = at + 1 + size
    if len(content) < port + 2:
        raise ValueError("too short")
    host = inet_ntop(AF_INET6 if kind & 0x80 else AF_INET, content[at + 1 : port])
    return Endpoint(_TRANSPORTS[kind & 0x7F], host, int.from_bytes(content[port : port + 2], "big")), port + 2


def _unpack_several(content: bytes, at: int) -> tuple[tuple[Endpoint, ...], int]:
    """Endpoints, whose number stands at `at`."""
    found: list[Endpoint] = []
    count, at = content[at], at + 1
    for _ in range(count):
        end, at = _unpack(content, at)
        found.append(end)
    return tuple(found), at


def _split(content: bytes, at: int) -> tuple[str, str]:
    """The tenant, whose length in bytes stands at `at`, and the text after it."""
    end = at + 1 + content[at]
    if end > len(content):
        raise ValueError("too short")
    return content[at + 1 : end].decode(), content[end:].decode()
