"""One tenant's value in Redis: JSON made to be edited by hand, checked in full before it may touch a call."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from sipward import problems
from sipward.addresses import Addresses
from sipward.hosts import Address, Network, is_host_name, parse_address
from sipward.live import domain_key
from sipward.model import Endpoint, Instance, Tenant
from sipward.problems import refuse, within
from sipward.settings import Settings

VALUE_MAX = 64 * 1024
"""Bytes of one value."""

# A dot at the end would be lost when the live table's keys are folded.
_NAME = re.compile(r"[a-z0-9_-](?:[a-z0-9._-]{0,62}[a-z0-9_-])?")
_URI = re.compile(r"sip:(\[[0-9a-f:.]+\]|[0-9.]+)(?::([0-9]{1,5}))?(?:;transport=(udp|tcp))?", re.IGNORECASE)
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class TenantError(Exception):
    """The value cannot be used; one line a problem, each naming the field, the value and what is allowed."""


class Taken(NamedTuple):
    """Ports of an address that are the node's own: an instance there would be a loop, or worse."""

    address: Address
    low: int
    high: int
    what: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What the node's settings allow a tenant."""

    networks: tuple[Network, ...]
    """Where instances may live."""
    own: tuple[Address, ...]
    """The node's addresses: no tenant's domain. In a fixed order: the same rules are written the same way."""
    taken: tuple[Taken, ...]
    local: tuple[Network, ...] = ()
    """Where phones live; of these and `networks` the longest prefix decides."""

    @classmethod
    def of(cls, settings: Settings, addresses: Addresses) -> Self:
        """Derive the rules of a node."""
        network, rtp = settings.network, settings.rtp
        control = rtp.control
        taken = [Taken(control.address, control.port, control.port, "rtpengine's control port (rtp.control)")]
        own = tuple(sorted(addresses.own, key=str))
        for address in own:
            taken += [
                Taken(address, network.sip_port, network.sip_port, "the node's own SIP port (network.sip_port)"),
                Taken(address, network.sips_port, network.sips_port, "the node's own SIP port (network.sips_port)"),
                Taken(address, rtp.ports.low, rtp.ports.high, "one of the node's media ports (rtp.ports)"),
            ]
        return cls(network.service_networks, own, tuple(taken), network.local_networks)

    def refusal(self, address: Address, port: int) -> str:
        """Why no instance may be there; empty when one may."""
        homes = [n for n in self.networks if address in n]
        if not self.networks:
            return "network.service_networks is empty, so that no instance is allowed"
        if not homes:
            return f"must be inside network.service_networks ({', '.join(map(str, self.networks))})"
        if phones := [n for n in self.local if address in n and all(n.prefixlen >= home.prefixlen for home in homes)]:
            return f"is in network.local_networks ({phones[0]}): list the host itself in network.service_networks"
        if address.is_loopback and not any(_is_loopback(n) for n in homes):
            return "is a loopback address, and network.service_networks does not list one"
        if address.is_unspecified or address.is_multicast:
            return "must be the address of one machine"
        return next((f"is {t.what}" for t in self.taken if t.address == address and t.low <= port <= t.high), "")


def _is_loopback(network: Network) -> bool:
    return any(network.version == home.version and network.subnet_of(home) for home in _LOOPBACK)  # type: ignore[arg-type]


def _printable(value: str) -> str:
    if not value.isprintable():
        raise refuse("must have no control characters")
    return value


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InstanceValue(_Value):
    """One PBX as written in the JSON."""

    uri: Annotated[StrictStr, Field(max_length=128)]
    weight: Annotated[StrictInt, AfterValidator(within(1, 1000))] = 1
    priority: Annotated[StrictInt, AfterValidator(within(1, 100))] = 1
    description: Annotated[StrictStr, Field(max_length=200), AfterValidator(_printable)] = ""
    drain: StrictBool = False

    @field_validator("uri")
    @classmethod
    def _reachable(cls, value: str, info: ValidationInfo) -> str:
        endpoint = parse_uri(value)
        rules: Rules | None = info.context
        refusal = rules.refusal(parse_address(endpoint.host), endpoint.port) if rules else ""
        if refusal:
            raise refuse(refusal)
        return value

    def to_instance(self) -> Instance:
        """The instance as routing sees it."""
        return Instance(parse_uri(self.uri), self.weight, self.priority, self.drain)


class TenantValue(_Value):
    """The whole JSON value."""

    domains: Annotated[tuple[StrictStr, ...], Field(max_length=1000)]
    instances: Annotated[tuple[InstanceValue, ...], Field(max_length=100)]
    redirect: Literal["pass", "refuse"] = "pass"

    @field_validator("domains")
    @classmethod
    def _folded(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return _distinct(tuple(_domain(domain, info.context) for domain in value))

    @field_validator("instances")
    @classmethod
    def _apart(cls, value: tuple[InstanceValue, ...]) -> tuple[InstanceValue, ...]:
        endpoints = [parse_uri(instance.uri) for instance in value]
        _distinct(tuple(endpoint.uri for endpoint in endpoints))
        # The other family would need another offer to rtpengine and another address of ours in what was already sent.
        if len({":" in endpoint.host for endpoint in endpoints}) > 1:
            raise refuse("must be all IPv4 or all IPv6: there is no failover from one to the other")
        return value


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant's name and its checked value."""

    name: str
    value: TenantValue

    @property
    def domains(self) -> tuple[str, ...]:
        """The folded domains, as the live table's keys."""
        return self.value.domains

    def to_tenant(self) -> Tenant:
        """The tenant as routing sees it."""
        instances = tuple(instance.to_instance() for instance in self.value.instances)
        return Tenant(self.name, instances, self.value.redirect, next(iter(self.domains), ""))

    def to_json(self) -> str:
        """The value as Redis holds it: every field on a line of its own, for the next hand that edits it."""
        return json.dumps(self.value.model_dump(), indent=2, ensure_ascii=False)


def parse(name: str, raw: bytes | str, rules: Rules | None) -> TenantRecord:
    """Check one tenant. Raises TenantError; `rules` None checks the form only."""
    check_name(name)
    try:
        return TenantRecord(name, TenantValue.model_validate(_read(raw), context=rules))
    except ValidationError as error:
        raise TenantError("\n".join(problems.lines(error))) from None


def check_name(name: str) -> None:
    """Check a tenant's name. Raises TenantError."""
    if not _NAME.fullmatch(name):
        raise TenantError(f"name = {problems.show(name)}: must be 1 to 64 of a-z, 0-9, _, - and (inside) dot")


@lru_cache(maxsize=4096)
def parse_uri(uri: str) -> Endpoint:
    """Read an instance's URI. Raises the error a validator raises."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise refuse("must be sip:ADDRESS[:PORT][;transport=udp|tcp] with an IP address, nothing else")
    host, port, transport = match[1], int(match[2] or 5060), (match[3] or "udp").lower()
    try:
        address = parse_address(host)
    except ValueError:
        raise refuse("must name an IP address (IPv6 in brackets)") from None
    if not 1 <= port <= 65535:
        raise refuse("must name a port, 1 to 65535")
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise refuse(f"is an IPv4 address in disguise: write {address.ipv4_mapped}")
    return Endpoint(transport, str(address), port)


def _domain(text: str, rules: Rules | None) -> str:
    allowed = f"domain {problems.show(text)} must be a host name or an IP address, without a port"
    folded = domain_key(text)
    if is_host_name(folded):
        return folded
    try:
        address = parse_address(folded)
    except ValueError:
        raise refuse(allowed) from None
    if rules and address in rules.own:
        raise refuse(f"domain {problems.show(text)} is an address of the node itself, which is no tenant's")
    return domain_key(f"[{address}]") if address.version == 6 else str(address)


def _distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(texts)) < len(texts):
        twice, _ = Counter(texts).most_common(1)[0]
        raise refuse(f"{problems.show(twice)} is there twice")
    return texts


def _read(raw: bytes | str) -> Any:
    size = len(raw)
    if size > VALUE_MAX:
        raise TenantError(f"value of {size} bytes: at most {VALUE_MAX} are allowed")
    try:
        text = raw if isinstance(raw, str) else raw.decode()
        return json.loads(text, object_pairs_hook=_without_repeats)
    except UnicodeDecodeError:
        raise TenantError("value: not UTF-8 text") from None
    except RecursionError:
        raise TenantError("value: not JSON: nested too deeply") from None
    except ValueError as error:
        raise TenantError(f"value: not JSON: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"field {problems.show(twice)} is there twice")
    return fields
