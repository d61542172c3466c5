"""One tenant's value in Redis, `sipward:tenant:NAME`: its domains, its instances and what it may do."""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sipward import live, problems
from sipward.hosts import is_host_name, parse_address
from sipward.live import domain_key
from sipward.model import Codecs, Endpoint, Instance, Srtp, Tenant
from sipward.problems import refuse, within
from sipward.records import NO_LIMITS, Description, Kind, LimitsValue, SrtpName, Value, check_name, distinct, validated
from sipward.rules import Rules

_URI = re.compile(r"sip:(\[[0-9a-f:.]+\]|[0-9.]+)(?::([0-9]{1,5}))?(?:;transport=(udp|tcp))?", re.IGNORECASE)
_CODEC = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


class InstanceValue(Value):
    """One PBX as written in the JSON."""

    uri: Annotated[StrictStr, Field(max_length=128)]
    weight: Annotated[StrictInt, AfterValidator(within(1, 1000))] = 1
    priority: Annotated[StrictInt, AfterValidator(within(1, 100))] = 1
    description: Description = ""
    drain: StrictBool = False
    srtp: SrtpName = "off"

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
        return Instance(parse_uri(self.uri), self.weight, self.priority, self.drain, Srtp(self.srtp))


def _apart(value: tuple[InstanceValue, ...]) -> tuple[InstanceValue, ...]:
    endpoints = [parse_uri(instance.uri) for instance in value]
    distinct(tuple(endpoint.uri for endpoint in endpoints))
    # The other family would need another offer to rtpengine and another address of ours in what was already sent.
    if len({":" in endpoint.host for endpoint in endpoints}) > 1:
        raise refuse("must be all IPv4 or all IPv6: there is no failover from one to the other")
    return value


Instances = Annotated[tuple[InstanceValue, ...], Field(max_length=100), AfterValidator(_apart)]
"""The PBXs of a tenant, or of a number that has its own."""


def _codec(value: str) -> str:
    # It becomes a word of what rtpengine is told.
    if not _CODEC.fullmatch(value):
        raise refuse("must be a codec's name in SDP, such as PCMA, G722 or opus")
    return value


class CodecsValue(Value):
    """Which codecs the offers to a tenant's instances, phones and trunks have."""

    names: Annotated[tuple[Annotated[StrictStr, AfterValidator(_codec)], ...], Field(max_length=20)] = ()
    only: StrictBool = False
    transcode: StrictBool = False

    @field_validator("names")
    @classmethod
    def _apart(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(value)

    @model_validator(mode="after")
    def _of_some(self) -> Self:
        if not self.names and (self.only or self.transcode):
            raise refuse("must name codecs, for only and transcode to speak of them", key="names")
        return self

    def to_codecs(self) -> Codecs:
        """The codecs as media sees them."""
        return Codecs(self.names, self.only, self.transcode)


class TenantValue(Value):
    """The whole JSON value."""

    domains: Annotated[tuple[StrictStr, ...], Field(max_length=1000)]
    instances: Instances
    redirect: Literal["pass", "refuse"] = "pass"
    policy: Literal["failover", "balance"] = "failover"
    identity: Literal["pass", "remove"] = "pass"
    limits: LimitsValue = NO_LIMITS
    ice: Literal["answer", "remove"] = "remove"
    codecs: CodecsValue = CodecsValue()

    @field_validator("domains")
    @classmethod
    def _folded(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return distinct(tuple(_domain(domain, info.context) for domain in value))


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant's name and its checked value."""

    name: str
    value: TenantValue
    rules: Rules | None = None

    kind = Kind.TENANT
    asks = ()
    rivals = None

    @property
    def domains(self) -> tuple[str, ...]:
        """The folded domains, as the live table's keys."""
        return self.value.domains

    @property
    def claims(self) -> tuple[str, ...]:
        """Its domains."""
        return self.domains

    @property
    def entries(self) -> dict[str, str]:
        """The tenant, at each of its domains and at its name."""
        return dict.fromkeys((*self.domains, live.tenant_key(self.name)), live.encode(self.to_tenant()))

    @property
    def member(self) -> str:
        """Its name."""
        return self.name

    @property
    def shares(self) -> tuple[str, ...]:
        """The addresses where its instances are."""
        return homes(self.value.instances, self.rules)

    def to_tenant(self) -> Tenant:
        """The tenant as routing sees it."""
        value = self.value
        instances = tuple(instance.to_instance() for instance in value.instances)
        domain = next(iter(self.domains), "")
        limits = value.limits.to_limits()
        codecs = value.codecs.to_codecs()
        return Tenant(
            self.name, instances, value.redirect, domain, value.policy, value.identity, limits, value.ice, codecs
        )

    def to_json(self) -> str:
        """The value as Redis holds it."""
        return self.value.to_json()


def parse(name: str, raw: bytes | str, rules: Rules | None) -> TenantRecord:
    """Check one tenant. Raises RecordError; `rules` None checks the form only."""
    return TenantRecord(check_name(name), validated(TenantValue, raw, rules), rules)


def homes(instances: tuple[InstanceValue, ...], rules: Rules | None) -> tuple[str, ...]:
    """The keys of the addresses where instances are."""
    ends = [parse_uri(instance.uri) for instance in instances]
    return tuple(dict.fromkeys(rules.home(end) if rules else live.home_key(end.host) for end in ends))


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
