"""One trunk's value in Redis, `sipward:trunk:NAME`: a carrier's addresses, whom it serves and what it may do."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StrictBool, StrictStr, ValidationInfo, field_validator

from sipward import live, problems
from sipward.hosts import Network, is_host_name, parse_address
from sipward.live import domain_key
from sipward.model import Endpoint, Proof, Srtp, Trunk
from sipward.problems import refuse
from sipward.records import (
    NO_LIMITS,
    Description,
    Kind,
    LimitsValue,
    SrtpName,
    Value,
    check_name,
    distinct,
    is_name,
    validated,
)
from sipward.resolver import Name
from sipward.rules import Rules

_PORT = {"udp": 5060, "tcp": 5060, "tls": 5061}
_TARGETS_MAX = 100
_NAME_AND_PORT = re.compile(r"([^:\[\]/]+)(?::([0-9]{1,5}))?")
_ADDRESS_AND_PORT = re.compile(r"([0-9.]+|\[[0-9a-f:.]+\]):([0-9]{1,5})", re.IGNORECASE)

type Answers = Callable[[Name], Iterable[Endpoint]]
"""Where a name leads by now; nowhere while nobody knows."""


class Place(NamedTuple):
    """One of a trunk's addresses as read: a network (perhaps of one address) or a folded host name; port 0: none."""

    network: Network | None
    host: str
    port: int


class TlsValue(Value):
    """What the carrier must show over TLS; nothing given: a certificate of its host name from a CA of the machine's."""

    name: Annotated[StrictStr, Field(max_length=260)] = ""
    """Whose its certificate is, when that is not the host name in `addresses`."""
    fingerprints: Annotated[tuple[StrictStr, ...], Field(max_length=10)] = ()
    """SHA-256 of certificates that are right whoever has signed them."""
    profile: Annotated[StrictStr, Field(max_length=64)] = ""
    """A table of `[tls.profiles]`: another CA, our own certificate."""

    @field_validator("name")
    @classmethod
    def _one_host(cls, value: str) -> str:
        return _host(value, None) if value else value

    @field_validator("fingerprints")
    @classmethod
    def _sha256(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(text.replace(":", "").lower() for text in value)
        for text, digits in zip(value, found, strict=True):
            if not re.fullmatch(r"[0-9a-f]{64}", digits):
                raise refuse(
                    f"{problems.show(text)} must be SHA-256: 64 hexadecimal digits, colons between them or not"
                )
        return distinct(found)

    @field_validator("profile")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        rules: Rules | None = info.context
        if value and rules and value not in rules.profiles:
            there = ", ".join(rules.profiles) or "there is none"
            raise refuse(f"must be a table of [tls.profiles] in the configuration ({there})")
        return value


class TrunkValue(Value):
    """The whole JSON value."""

    addresses: Annotated[tuple[Annotated[StrictStr, Field(max_length=260)], ...], Field(max_length=100)]
    tenants: Annotated[tuple[StrictStr, ...], Field(max_length=1000)]
    transport: Literal["udp", "tcp", "tls"] = "udp"
    tls: TlsValue | None = None
    number: Literal["r-uri", "to", "p-called-party-id", "p-preferred-identity", "diversion"] = "r-uri"
    media: Literal["fixed", "learned"] = "fixed"
    identity: Literal["pass", "remove"] = "remove"
    limits: LimitsValue = NO_LIMITS
    own_port: StrictBool = False
    srtp: SrtpName = "off"
    hosts: Annotated[tuple[StrictStr, ...], Field(max_length=100)] = ()
    description: Description = ""

    @field_validator("addresses")
    @classmethod
    def _of_carriers(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        rules: Rules | None = info.context
        for text in value:
            place = parse_place(text)
            if rules and (refusal := _refusal(place, rules)):
                raise refuse(f"address {problems.show(text)} {refusal}")
        return distinct(value)

    @field_validator("tenants")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "*" and not is_name(name):
                raise refuse(f"{problems.show(name)} must be a tenant's name, or * for all tenants")
        if "*" in value and len(value) > 1:
            raise refuse('must be ["*"] alone, for all tenants, or names')
        return distinct(value)

    @field_validator("tls")
    @classmethod
    def _of_tls(cls, value: TlsValue | None, info: ValidationInfo) -> TlsValue | None:
        if value and info.data.get("transport") != "tls":
            raise refuse('may be given with transport "tls" only')
        return value

    @field_validator("own_port")
    @classmethod
    def _of_datagrams(cls, value: bool, info: ValidationInfo) -> bool:
        transport = info.data.get("transport")
        if value and transport in {"tcp", "tls"}:
            raise refuse(f'must be false with transport "{transport}", where each connection has a port of its own')
        return value

    @field_validator("hosts")
    @classmethod
    def _folded(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return distinct(tuple(_host(text, info.context) for text in value))


@dataclass(frozen=True, slots=True)
class TrunkRecord:
    """A trunk's name, its checked value, and where the names in it lead by now."""

    name: str
    value: TrunkValue
    found: tuple[tuple[Endpoint, ...], ...] = ()
    """For each of its addresses the endpoints that calls to the carrier go to."""

    kind = Kind.TRUNK
    claims = ()
    rivals = ()

    @property
    def entries(self) -> dict[str, str]:
        """The trunk, at its name."""
        return {live.trunk_key(self.name): live.encode_trunk(self.to_trunk())}

    @property
    def member(self) -> str:
        """Its name."""
        return self.name

    @property
    def shares(self) -> tuple[str, ...]:
        """The networks that its calls come from, and the hosts that its Request-URIs have."""
        sources = (live.source_key(self.value.transport, network) for network in self._sources())
        hosts = (live.target_key(host) for host in (*self._named(), *self.value.hosts))
        return tuple(dict.fromkeys((*sources, *hosts)))

    @property
    def asks(self) -> tuple[str, ...]:
        """The host names among its addresses."""
        return tuple(dict.fromkeys(str(name) for name in _names(self.value)))

    def to_trunk(self) -> Trunk:
        """The trunk as routing sees it."""
        value = self.value
        # A name may lead to dozens: nobody tries so many, and an entry has to fit into an answer of Kamailio's RPC.
        targets = tuple(dict.fromkeys(end for ends in self.found for end in ends))[:_TARGETS_MAX]
        limits = value.limits.to_limits()
        proof = self._proof(targets) if value.transport == "tls" else None
        return Trunk(
            self.name,
            value.tenants,
            targets,
            value.number,
            value.media,
            value.identity,
            limits,
            value.own_port,
            Srtp(value.srtp),
            proof,
        )

    def to_json(self) -> str:
        """The value as Redis holds it."""
        return self.value.to_json()

    def _proof(self, targets: Iterable[Endpoint]) -> Proof:
        """Whose the certificate must be is what the operator has written: what the DNS says may be anybody's word."""
        tls, host_of = self.value.tls or TlsValue(), dict[Endpoint, str]()
        for place, ends in zip(map(parse_place, self.value.addresses), self.found, strict=True):
            for end in ends:
                host_of.setdefault(end, place.host if place.network is None else end.host)
        return Proof(tuple(tls.name or host_of[target] for target in targets), tls.fingerprints, tls.profile)

    def _sources(self) -> Iterator[str]:
        for place, ends in zip(map(parse_place, self.value.addresses), self.found, strict=True):
            if place.network:
                yield str(place.network)
            else:
                yield from (str(ip_network(end.host)) for end in ends)

    def _named(self) -> Iterator[str]:
        for place in map(parse_place, self.value.addresses):
            if place.host:
                yield place.host


def parse(name: str, raw: bytes | str, rules: Rules | None, answers: Answers = lambda _: ()) -> TrunkRecord:
    """Check one trunk. Raises RecordError; `rules` None checks the form only."""
    value = validated(TrunkValue, check_name(name) and raw, rules)
    places = [(place, parse_place(place)) for place in value.addresses]
    found = tuple(tuple(_ends(place, value.transport, rules, answers)) for _, place in places)
    return TrunkRecord(name, value, found)


def parse_place(text: str) -> Place:
    """Read one of a trunk's addresses. Raises the error a validator raises."""
    allowed = (
        f"address {problems.show(text)} must be an address, a network, or a host name, all but a network with a port"
    )
    if match := _ADDRESS_AND_PORT.fullmatch(text):
        return _literal(match[1], allowed)._replace(port=_port(match[2], allowed))
    if (match := _NAME_AND_PORT.fullmatch(text)) and is_host_name(host := domain_key(match[1])):
        return Place(None, host, _port(match[2], allowed) if match[2] else 0)
    return _literal(text, allowed)


def _literal(text: str, allowed: str) -> Place:
    try:
        network = ip_network(text) if "/" in text else ip_network(parse_address(text))
    except ValueError as error:
        hint = f", such as {ip_network(text, strict=False)}" if "has host bits set" in str(error) else ""
        raise refuse(f"{allowed}{hint}") from None
    if mapped := getattr(network.network_address, "ipv4_mapped", None):
        raise refuse(f"address {problems.show(text)} is an IPv4 address in disguise: write {mapped}")
    is_one = network.num_addresses == 1
    return Place(network, domain_key(str(network.network_address)) if is_one else "", 0)


def _port(text: str, allowed: str) -> int:
    if not 1 <= int(text) <= 65535:
        raise refuse(f"{allowed}, 1 to 65535")
    return int(text)


def _refusal(place: Place, rules: Rules) -> str:
    if place.network:
        return rules.carrier_refusal(place.network)
    return "is the node's own name" if rules.is_own(place.host) else ""


def _host(text: str, rules: Rules | None) -> str:
    folded = domain_key(text)
    if not is_host_name(folded):
        try:
            folded = domain_key(str(parse_address(folded)))
        except ValueError:
            raise refuse(f"host {problems.show(text)} must be a host name or an IP address, without a port") from None
    if rules and rules.is_own(folded):
        raise refuse(f"host {problems.show(text)} is the node itself")
    return folded


def _names(value: TrunkValue) -> Iterator[Name]:
    for place in map(parse_place, value.addresses):
        if place.network is None:
            yield Name(value.transport, place.host, place.port)


def _ends(place: Place, transport: str, rules: Rules | None, answers: Answers) -> Iterator[Endpoint]:
    """Where calls to one of the addresses go. A network is a source only."""
    if place.network is None:
        # Refused when it was answered; but perhaps by other rules, before a restart.
        yield from (
            end for end in answers(Name(transport, place.host, place.port)) if not rules or not refusal(end, rules)
        )
    elif place.host:
        yield Endpoint(transport, str(place.network.network_address), place.port or _PORT[transport])


def refusal(end: Endpoint, rules: Rules) -> str:
    """Why a name may not lead there; empty when it may."""
    return rules.carrier_refusal(ip_network(end.host))
