"""The words of the project as frozen values. Imports nothing of ours, so every other module may import it."""

from enum import StrEnum
from typing import NamedTuple, Self


class Side(StrEnum):
    """Where a message comes from or goes to."""

    OUTSIDE = "outside"
    """The Internet: phones, carriers, branch offices."""
    LOCAL = "local"
    """The site's own networks; the same sockets as OUTSIDE, but never shown the public address."""
    SERVICE = "service"
    """The network where the PBX instances live."""


class Srtp(StrEnum):
    """How a party's media is encrypted (RFC 3711), by where the keys come from."""

    OFF = "off"
    """Not at all: plain RTP."""
    SDES = "sdes"
    """They stand in the SDP (RFC 4568)."""
    DTLS = "dtls"
    """A handshake on the media's way makes them (RFC 5764)."""


class Endpoint(NamedTuple):
    """A transport address: `transport` is udp, tcp or tls; `host` an IP literal without brackets."""

    transport: str
    host: str
    port: int

    @property
    def hostport(self) -> str:
        """`host:port` as a SIP URI has it: IPv6 in brackets (RFC 3261, 25.1)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def uri(self) -> str:
        """The SIP URI that leads here, without a user part."""
        return f"sip:{self.hostport};transport={self.transport}"

    def __str__(self) -> str:
        """`transport:host:port`, as Kamailio names a socket; `parse` reads it."""
        return f"{self.transport}:{self.hostport}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `transport:host:port`."""
        transport, _, hostport = text.partition(":")
        host, _, port = hostport.rpartition(":")
        return cls(transport, host.strip("[]"), int(port))


class Socket(NamedTuple):
    """A listening address of the node. `public` is the address the outside knows it by."""

    side: Side
    local: Endpoint
    public: str

    @property
    def is_ipv6(self) -> bool:
        """Whether the socket speaks IPv6."""
        return ":" in self.local.host


class Instance(NamedTuple):
    """One PBX of a tenant. Lower `priority` is tried first; `weight` shares calls within one priority."""

    endpoint: Endpoint
    weight: int = 1
    priority: int = 1
    drain: bool = False
    srtp: Srtp = Srtp.OFF
    """What it is offered."""


class Limits(NamedTuple):
    """How much of the node a tenant or trunk may use; 0 is no limit."""

    calls: int = 0
    """At the same time."""
    calls_per_second: int = 0
    registrations_per_second: int = 0


NO_LIMITS = Limits()


class Shares(NamedTuple):
    """How many streams may have ports at once; 0 is no bound."""

    tenant: int = 0
    """Of one tenant."""
    source: int = 0
    """Of calls from one address outside, or from one IPv6 network of 64 bits."""


NO_SHARES = Shares()


class Codecs(NamedTuple):
    """Which codecs an offer has, by their names in SDP: those in `names` first, in this order."""

    names: tuple[str, ...] = ()
    only: bool = False
    """Whether it has no others."""
    transcode: bool = False
    """Whether those that it lacks are added, and media is transcoded when the answer takes one of them."""


ANY_CODECS = Codecs()


class Tenant(NamedTuple):
    """A customer as routing sees it.

    `domain` is the first of its domains, the one shown in place of inner addresses; `redirect` says what a 3xx of an
    instance becomes: pass or refuse. `policy`: failover goes by priority, balance by weight alone. `identity`: whether
    what its instances assert of the caller (RFC 3325) reaches a trunk: pass or remove. `ice`: what becomes of ICE (RFC
    8445) that a phone or trunk offers: answer or remove.
    """

    name: str
    instances: tuple[Instance, ...]
    redirect: str = "pass"
    domain: str = ""
    policy: str = "failover"
    identity: str = "pass"
    limits: Limits = NO_LIMITS
    ice: str = "remove"
    codecs: Codecs = ANY_CODECS

    def srtp_of(self, end: Endpoint) -> Srtp:
        """What the instance at `end` is offered."""
        return next((instance.srtp for instance in self.instances if instance.endpoint == end), Srtp.OFF)


class Proof(NamedTuple):
    """What a carrier must show over TLS before anything is said to it.

    `names`: for each target whose its certificate must be; `fingerprints`: certificates that are right, whoever's they
    are and whoever has signed them (SHA-256, in hexadecimal). `profile`: a table of `[tls.profiles]`, "" for none.
    """

    names: tuple[str, ...]
    fingerprints: tuple[str, ...] = ()
    profile: str = ""


class Trunk(NamedTuple):
    """A carrier connection as routing sees it.

    `tenants` are those it serves, `*` all. `targets` are tried in their order. `number` says where the carrier puts the
    dialled number: r-uri, or the name of a header field in lower case. `media`: fixed, when the carrier's SDP names the
    addresses its RTP comes from, or learned.
    """

    name: str
    tenants: tuple[str, ...]
    targets: tuple[Endpoint, ...]
    number: str = "r-uri"
    media: str = "fixed"
    identity: str = "remove"
    """Whether what the carrier asserts of the caller reaches an instance: pass or remove."""
    limits: Limits = NO_LIMITS
    own_port: bool = False
    """Whether each registration there has a port of ours to itself."""
    srtp: Srtp = Srtp.OFF
    """What the carrier is offered."""
    proof: Proof | None = None
    """Over TLS."""

    def serves(self, tenant: str) -> bool:
        """Whether calls may go between the trunk and a tenant."""
        return tenant in self.tenants or "*" in self.tenants
