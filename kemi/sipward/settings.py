"""The configuration of a node: one TOML file, each key overridable by environment, validated before anything starts.

`SIPWARD_FQDN`, `SIPWARD_NETWORK__ADDRESS` and so on win over the file; lists are written with commas there. Nothing
here looks at the machine: what an interface name means is answered by `addresses`.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import quote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sipward import problems
from sipward.hosts import Address, Network, hostport, is_host_name, parse_address
from sipward.numbers import Plan
from sipward.problems import refuse, within

PREFIX = "SIPWARD_"
NESTED = "__"
_UNIX_PATH_MAX = 107
_RTP_NARROWEST = 100
_OWN_PORTS_MAX = 100
_PREFIX_MAX = 8
_WEIGHT_MAX = 100
_PROFILE = re.compile(r"[a-z0-9_-]{1,64}")
_LAUNCHERS = frozenset({"ROOT", "MIRROR", "RUN"})
"""What else is told by variables with our prefix: to the launcher, and to the components by the node."""


class SettingsError(Exception):
    """The configuration cannot be used; the text has one line a problem."""


class PortRange(NamedTuple):
    """UDP ports, both ends included."""

    low: int
    high: int


class Control(NamedTuple):
    """Where rtpengine listens for commands."""

    address: Address
    port: int

    def __str__(self) -> str:
        """`host:port`, as rtpengine and Kamailio write it."""
        return hostport(self.address, self.port)


class Engine(NamedTuple):
    """Where an rtpengine takes commands, and how many of the new calls it takes among others."""

    control: Control
    weight: int

    def __str__(self) -> str:
        """`host:port=weight`, as Kamailio writes it."""
        return f"{self.control}={self.weight}"


def _listed(value: Any) -> Any:
    """Take one text for a list of one; commas separate (the environment knows no lists)."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _address(value: Any) -> Address:
    if isinstance(value, Address):
        return value
    try:
        return parse_address(_string(value))
    except ValueError:
        raise refuse("must be an IPv4 or IPv6 address") from None


def _usable(value: Address) -> Address:
    if value.is_unspecified or value.is_multicast or (value.version == 6 and value.is_link_local):
        raise refuse("must be an address of one machine: not a wildcard, multicast or IPv6 link-local one")
    return value


def _one_a_family(value: tuple[Address, ...]) -> tuple[Address, ...]:
    if len({a.version for a in value}) < len(value):
        raise refuse("may name at most one IPv4 and one IPv6 address")
    return tuple(sorted(value, key=lambda a: a.version))


def _network(value: Any) -> Network:
    if isinstance(value, Network):
        return value
    try:
        return ip_network(_string(value))
    except ValueError as error:
        hint = f": write {ip_network(value, strict=False)}" if "has host bits set" in str(error) else ""
        raise refuse(f"must be a network such as 10.5.4.0/24 or 2001:db8::/64{hint}") from None


def _string(value: Any) -> str:
    # `ipaddress` would take a number for an address.
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


def _table(value: Any) -> Any:
    """Read a table from the environment, where it is JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise refuse("must be a table; as a variable of the environment in JSON") from None


def _no_bool(value: Any) -> Any:
    # pydantic would take `true` for 1.
    if isinstance(value, bool):
        raise refuse("must be a number")
    return value


def _none_or(low: float, high: float) -> Callable[[float], float]:
    def check(value: float) -> float:
        if value != 0 and not low <= value <= high:
            raise refuse(f"must be 0 (none) or {low} to {high}")
        return value

    return check


def _path(value: Any) -> Path | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str | Path) or not Path(value).is_absolute() or not str(value).isprintable():
        raise refuse("must be empty or an absolute path")
    return Path(value)


def _https(value: str) -> str:
    try:
        url = urlsplit(value)
        good = url.scheme == "https" and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        good = False
    if not good:
        raise refuse("must be an https:// URL")
    return value


def _mail(value: str) -> str:
    if value and not re.fullmatch(r"[!-?A-~]+@[!-?A-~]+", value):
        raise refuse("must be empty or a mail address such as admin@example.org")
    return value


def _base64url(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]*=*", value):
        raise refuse("must be the key as the CA gives it: base64url")
    return value


def _interface(value: str | None) -> str | None:
    # 15 characters is the kernel's IFNAMSIZ; the text is handed to `ip`.
    if value and (len(value) > 15 or value.startswith("-") or not value.isprintable() or set(value) & set("/ ")):
        raise refuse("must be the name of a network interface, such as eth0")
    return value or None


def _own_ports(value: Any) -> Any:
    if isinstance(value, range):
        return value
    if value == "":
        return range(0)
    ports = _range(str(value))
    if ports is None or not 1024 <= ports.low <= ports.high <= 65535 or ports.high - ports.low >= _OWN_PORTS_MAX:
        raise refuse(f'must be empty, or a range like "5100-5115" of 1024 to 65535: at most {_OWN_PORTS_MAX} ports')
    return range(ports.low, ports.high + 1)


def _range(text: str) -> PortRange | None:
    low, dash, high = text.replace(" ", "").partition("-")
    return PortRange(int(low), int(high)) if dash and _is_decimal(low) and _is_decimal(high) else None


def _control(text: str) -> Control | None:
    host, _, port = text.rpartition(":")
    try:
        control = Control(parse_address(host), int(port) if _is_decimal(port) else 0)
    except ValueError:
        return None
    return control if 1 <= control.port <= 65535 else None


def _engine(value: Any) -> Engine:
    if isinstance(value, Engine):
        return value
    where, _, weight = str(value).partition("=")
    control = _control(where)
    if control is None or not _is_decimal(weight or "1") or int(weight or "1") > _WEIGHT_MAX:
        raise refuse(f"must be an address and port such as 192.0.2.2:2223, or 192.0.2.2:2223=2: up to {_WEIGHT_MAX}")
    return Engine(control, int(weight or "1"))


def _digits(value: str) -> str:
    if value and not (value.isascii() and value.isdigit() and len(value) <= _PREFIX_MAX):
        raise refuse(f"must be at most {_PREFIX_MAX} digits, or empty")
    return value


OneAddress = Annotated[Address, BeforeValidator(_address), AfterValidator(_usable)]
Addresses = Annotated[tuple[OneAddress, ...], BeforeValidator(_listed), AfterValidator(_one_a_family)]
OneNetwork = Annotated[Network, BeforeValidator(_network)]
Networks = Annotated[tuple[OneNetwork, ...], BeforeValidator(_listed)]
FilePath = Annotated[Path | None, BeforeValidator(_path)]
Port = Annotated[int, BeforeValidator(_no_bool), AfterValidator(within(1, 65535))]

Weight = Annotated[int, BeforeValidator(_no_bool), AfterValidator(within(0, _WEIGHT_MAX))]
OneEngine = Annotated[Engine, BeforeValidator(_engine)]
Percent = Annotated[int, BeforeValidator(_no_bool), AfterValidator(within(1, 100))]


class Section(BaseModel):
    """A table of the file. An unknown key is an error: a typing mistake must not become a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class NetworkSettings(Section):
    """`[network]`: where the node listens and what lies on each side of it."""

    interface: Annotated[str | None, AfterValidator(_interface)] = None
    """Listen on the addresses of this interface ..."""
    address: Addresses = ()
    """... or on these: one IPv4, one IPv6 or one of each."""
    public_address: Addresses = ()
    """What the outside knows us by when a router translates; empty when `address` is public itself."""
    service_address: Addresses = ()
    """The address instances use; `address` when not given (empty while only `interface` is known)."""
    service_networks: Networks = ()
    """Where instances may live. Nothing else is ever an instance."""
    local_networks: Networks = ()
    """Networks of the site whose phones reach us without translation. Of both lists, the longest prefix decides."""
    sip_port: Port = 5060
    """UDP and TCP."""
    sips_port: Port = 5061
    """TLS."""

    @model_validator(mode="after")
    def _one_way_to_listen(self) -> Self:
        if (self.interface is None) == (not self.address):
            raise refuse("exactly one of interface and address must be given", key="address")
        return self

    @model_validator(mode="after")
    def _of_one_side(self) -> Self:
        for network in self.service_networks:
            if network in self.local_networks:
                raise refuse(f"{network} is in network.local_networks too: {instead_of(network)}", "service_networks")
        return self

    @field_validator("public_address", "service_address")
    @classmethod
    def _families_of_address(cls, value: tuple[Address, ...], info: ValidationInfo) -> tuple[Address, ...]:
        own = info.data.get("address", ())
        strange = {a.version for a in value} - {a.version for a in own}
        if info.field_name == "public_address" and own and strange:
            raise refuse(f"names IPv{strange.pop()}, and network.address has no address of that family")
        return value or (own if info.field_name == "service_address" else ())

    @field_validator("sips_port")
    @classmethod
    def _two_ports(cls, value: int, info: ValidationInfo) -> int:
        if value == info.data.get("sip_port"):
            raise refuse("must differ from network.sip_port")
        return value


class RtpSettings(Section):
    """`[rtp]`: media."""

    ports: PortRange = PortRange(20000, 29999)
    """Where media is received, on every address of the node."""
    control: Control = Control(parse_address("127.0.0.1"), 2223)
    """Where rtpengine takes commands: on loopback, for it asks no password."""
    store: Control | None = Control(parse_address("127.0.0.1"), 2224)
    """Where the Redis listens that keeps running calls for rtpengine's next start: TCP on loopback; empty: none."""
    weight: Weight = 1
    """How many of the new calls the node's own rtpengine takes, among `others`; 0: none."""
    others: Annotated[tuple[OneEngine, ...], BeforeValidator(_listed)] = ()
    """Further rtpengines, somebody else's to run: `192.0.2.2:2223`, or with a weight `192.0.2.2:2223=2`."""
    learning: Literal["behind-nat", "always"] = "behind-nat"
    """Whose RTP may come from elsewhere than they say: that of clients behind a NAT, or of all clients."""
    tenant_share: Percent = 50
    """Percent of the ports that calls of one tenant may have; 100: all."""
    source_share: Percent = 10
    """Percent of the ports that calls from one address outside may have, but for a carrier's; 100: all."""

    @field_serializer("ports")
    def _ports_text(self, value: PortRange) -> str:
        return f"{value.low}-{value.high}"

    @field_serializer("control", "store")
    def _control_text(self, value: Control | None) -> str:
        return str(value) if value else ""

    @field_serializer("others")
    def _others_text(self, value: tuple[Engine, ...]) -> list[str]:
        return list(map(str, value))

    @field_validator("ports", mode="before")
    @classmethod
    def _even_range(cls, value: Any) -> PortRange:
        allowed = f'must be a range like "20000-29999" of 1024 to 65535: from an even port, {_RTP_NARROWEST} or more'
        if isinstance(value, PortRange):
            return value
        ports = _range(str(value))
        if ports is None or ports.low % 2 or ports.low < 1024 or ports.high > 65535:
            raise refuse(allowed)
        if ports.high - ports.low + 1 < _RTP_NARROWEST:
            raise refuse(allowed)
        return ports

    @field_validator("control", "store", mode="before")
    @classmethod
    def _loopback(cls, value: Any, info: ValidationInfo) -> Control | None:
        if info.field_name == "store" and value in ("", None):
            return None
        control = value if isinstance(value, Control) else _control(str(value))
        if control is None or not control.address.is_loopback:
            raise refuse("must be a loopback address and port such as 127.0.0.1:2223")
        return control

    @model_validator(mode="after")
    def _somebody_takes_calls(self) -> Self:
        if not self.weight and not any(engine.weight for engine in self.others):
            raise refuse("may be 0 only beside others that take calls", key="weight")
        return self


class RedisSettings(Section):
    """`[redis]`: where the routes are kept."""

    url: str = Field(default="", repr=False)
    """Empty: a redis-server of the node's own, on a unix socket under `state_dir`. It may hold a password."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        if value and not _is_redis_url(value):
            raise refuse("must be empty (the node's own Redis) or a redis://, rediss:// or unix:// URL")
        return value


class SipSettings(Section):
    """`[sip]`: signalling."""

    workers: Annotated[int, BeforeValidator(_no_bool), AfterValidator(within(1, 64))] = 4
    """Kamailio processes for each socket."""
    instance_timeout: Annotated[float, BeforeValidator(_no_bool), AfterValidator(within(0.2, 30.0))] = 2.0
    """Seconds after which an instance that says nothing at all is given up."""
    ring_timeout: Annotated[float, BeforeValidator(_no_bool), AfterValidator(within(1.0, 600.0))] = 85.0
    """Seconds after which a call that nobody has answered is cancelled, so that its ports are free."""
    keepalive: Annotated[float, BeforeValidator(_no_bool), AfterValidator(_none_or(1.0, 120.0))] = 14.0
    """Seconds between two pings of a phone behind a NAT, by UDP; 0: none."""


class NumbersSettings(Section):
    """`[numbers]`: how numbers are dialled where the node stands."""

    country_code: Annotated[str, AfterValidator(_digits)] = ""
    """Without `+`: `39`. Empty: a number without `+` is of no country."""
    international_prefix: Annotated[str, AfterValidator(_digits)] = "00"
    """What is dialled before a country code."""
    national_prefix: Annotated[str, AfterValidator(_digits)] = ""
    """What is dialled before an area code and falls away behind the country code: `0` in Germany, nothing in Italy."""

    @property
    def plan(self) -> Plan:
        """The settings as numbers are read by them."""
        return Plan(self.country_code, self.international_prefix, self.national_prefix)


class DnsSettings(Section):
    """`[dns]`: who is asked where the host names of trunks lead."""

    servers: Annotated[tuple[OneAddress, ...], BeforeValidator(_listed)] = ()
    """Name servers; empty: those of the machine."""


class TrunksSettings(Section):
    """`[trunks]`: what carriers see of the node."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    own_ports: Annotated[range, BeforeValidator(_own_ports)] = range(0)
    """UDP ports that registrations at trunks with `own_port` have to themselves; empty: none."""

    @field_serializer("own_ports")
    def _own_ports_text(self, value: range) -> str:
        return f"{value[0]}-{value[-1]}" if value else ""


class HealthSettings(Section):
    """`[health]`: the OPTIONS that each instance is asked by."""

    interval: Annotated[float, BeforeValidator(_no_bool), AfterValidator(_none_or(1.0, 3600.0))] = 30.0
    """Seconds between two to one instance. 0: only instances that calls have found silent or broken are asked."""
    timeout: Annotated[float, BeforeValidator(_no_bool), AfterValidator(within(0.2, 30.0))] = 2.0
    """Seconds that an answer may take."""
    threshold: Annotated[int, BeforeValidator(_no_bool), AfterValidator(within(1, 10))] = 2
    """How many in a row must be missed until calls leave the instance out."""


class CertificatesSettings(Section):
    """`[certificates]`: where certificates come from that no ACME server issues."""

    certificate: FilePath = None
    """The PEM file with the node's certificate and what leads to its root; it is watched ..."""
    key: FilePath = None
    """... with the one of its private key."""
    folder: FilePath = None
    """Where another program puts certificates for any names, as NAME.crt and NAME.key; it is watched."""
    ca_file: FilePath = None
    """PEM file of CAs that are known beyond those of the machine."""
    reload_interval: Annotated[int, BeforeValidator(_no_bool), AfterValidator(within(1, 86400))] = 60
    """Seconds between two times that Kamailio is given new certificates; less than the default is for tests."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise refuse("must be given with certificates.certificate, and only with it", key="key")
        return self


class AcmeSettings(Section):
    """`[acme]`: who issues certificates (RFC 8555)."""

    directory: Annotated[str, AfterValidator(_https)] = "https://acme-v02.api.letsencrypt.org/directory"
    """The CA's directory; Let's Encrypt's unless told otherwise."""
    email: Annotated[str, AfterValidator(_mail)] = ""
    """Whom the CA may write to."""
    eab_key_id: str = ""
    """External account binding, for CAs that want it: the key's id ..."""
    eab_key: Annotated[str, AfterValidator(_base64url)] = Field(default="", repr=False)
    """... and the key itself, in base64url."""
    retry_interval: Annotated[int, BeforeValidator(_no_bool), AfterValidator(within(1, 86400))] = 600
    """Seconds until the second try; each further one comes after twice the time, up to a day."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.eab_key_id) != bool(self.eab_key):
            raise refuse("must be given with acme.eab_key_id, and only with it", key="eab_key")
        return self


class ProfileSettings(Section):
    """`[tls.profiles.NAME]`: what is different with carriers whose trunks name it."""

    ca: FilePath = None
    """PEM file of the CAs that sign the carrier's certificate; without it those of the machine."""
    certificate: FilePath = None
    """PEM file of the certificate that the node shows the carrier ..."""
    key: FilePath = None
    """... and of its private key."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise refuse("must be given with its certificate, and only with it", key="key")
        return self


class TlsSettings(Section):
    """`[tls]`: what is asked of others, and shown to carriers."""

    client_ca: FilePath = None
    """PEM file of the CAs that sign the certificates of phones; without it no phone is asked for one."""
    client_certificates: Literal["optional", "required"] = "optional"
    """Whether whoever connects may go without a certificate; a bad one is refused in any case."""
    profiles: Annotated[dict[str, ProfileSettings], BeforeValidator(_table)] = {}

    @field_validator("profiles")
    @classmethod
    def _names(cls, value: dict[str, ProfileSettings]) -> dict[str, ProfileSettings]:
        for name in value:
            if not _PROFILE.fullmatch(name):
                raise refuse(f"{problems.show(name)} must be 1 to 64 of a-z, 0-9, _ and -")
        return value

    @model_validator(mode="after")
    def _somebodys(self) -> Self:
        if self.client_certificates == "required" and self.client_ca is None:
            raise refuse("needs tls.client_ca", key="client_certificates")
        return self


class Settings(BaseSettings):
    """Everything a node is told. Frozen; make one with `load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        enable_decoding=False,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    fqdn: str
    """The name phones and carriers reach this node by; also the name of its certificate."""
    state_dir: Path = Path("/var/lib/sipward/node")
    """Everything the node writes: sockets, process ids, rendered configurations, data."""
    lets_encrypt: bool = False
    """Whether the node's certificate comes from the CA of `[acme]`, Let's Encrypt unless told otherwise."""
    log_level: Literal["error", "warning", "info", "debug"] = "info"
    network: NetworkSettings
    rtp: RtpSettings = RtpSettings()
    redis: RedisSettings = RedisSettings()
    sip: SipSettings = SipSettings()
    numbers: NumbersSettings = NumbersSettings()
    dns: DnsSettings = DnsSettings()
    health: HealthSettings = HealthSettings()
    trunks: TrunksSettings = TrunksSettings()
    tls: TlsSettings = TlsSettings()
    certificates: CertificatesSettings = CertificatesSettings()
    acme: AcmeSettings = AcmeSettings()

    @property
    def redis_url(self) -> str:
        """The URL to connect to, with the embedded default filled in."""
        return self.redis.url or f"unix://{quote(str(self.redis_socket))}"

    @property
    def store_password_file(self) -> Path:
        """What rtpengine says to the Redis that keeps its calls."""
        return self.state_dir / "rtp-store.key"

    @property
    def redis_socket(self) -> Path:
        """Where the node's own Redis listens."""
        return self.state_dir / "redis" / "redis.sock"

    def table_file(self, kind: str) -> Path:
        """The last good table of a kind of values."""
        return self.state_dir / "table" / f"{kind}s.jsonl"

    @property
    def answers_file(self) -> Path:
        """Where the host names of trunks have led."""
        return self.state_dir / "table" / "answers.json"

    @property
    def ports_file(self) -> Path:
        """Which registration has which port to itself."""
        return self.state_dir / "table" / "ports.jsonl"

    @property
    def flows_file(self) -> Path:
        """Where the registered phones are."""
        return self.state_dir / "table" / "flows"

    @property
    def phones_file(self) -> Path:
        """What phones have shown of their media."""
        return self.state_dir / "table" / "phones.jsonl"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; nothing else is read."""
        return env_settings, init_settings

    @field_validator("fqdn")
    @classmethod
    def _host_name(cls, value: str) -> str:
        folded = value.rstrip(".").lower()
        if not is_host_name(folded):
            raise refuse("must be a host name such as sip.example.org")
        return folded

    @field_validator("state_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute() or not str(value).isprintable():
            raise refuse("must be an absolute path")
        if len(os.fsencode(value / "redis" / "redis.sock")) > _UNIX_PATH_MAX:
            raise refuse("is too long: the path of a unix socket below it may have 107 bytes")
        return value

    @field_validator("certificates")
    @classmethod
    def _one_certificate(cls, value: CertificatesSettings, info: ValidationInfo) -> CertificatesSettings:
        if value.certificate and info.data.get("lets_encrypt"):
            raise refuse("must be empty with lets_encrypt = true", key="certificate")
        return value

    @field_validator("rtp")
    @classmethod
    def _ports_apart(cls, value: RtpSettings, info: ValidationInfo) -> RtpSettings:
        network = info.data.get("network")
        if network is None:
            return value
        for port, owner in (
            (network.sip_port, "network.sip_port"),
            (network.sips_port, "network.sips_port"),
            (value.control.port, "rtp.control"),
        ):
            if value.ports.low <= port <= value.ports.high:
                raise refuse(f"{value.ports.low}-{value.ports.high} must not contain {owner} ({port})", key="ports")
        return value

    @field_validator("trunks")
    @classmethod
    def _own_ports_apart(cls, value: TrunksSettings, info: ValidationInfo) -> TrunksSettings:
        network, rtp, own = info.data.get("network"), info.data.get("rtp"), value.own_ports
        if not own or network is None or rtp is None:
            return value
        for low, high, owner in (
            (network.sip_port, network.sip_port, "network.sip_port"),
            (network.sips_port, network.sips_port, "network.sips_port"),
            (rtp.control.port, rtp.control.port, "rtp.control"),
            (rtp.ports.low, rtp.ports.high, "rtp.ports"),
        ):
            if low <= own[-1] and own[0] <= high:
                there = f"{low}" if low == high else f"{low}-{high}"
                raise refuse(f"{own[0]}-{own[-1]} must not contain {owner} ({there})", key="own_ports")
        return value


def load(path: Path) -> Settings:
    """Read and validate the file and the environment. Raises SettingsError, one line a problem."""
    table = _read(path)
    unknown = [key for key in table if key not in Settings.model_fields]
    found = [f"{path}: {problems.show(key)}: unknown, no such field" for key in unknown]
    found += [f"{problems.printable(name)}: unknown, no such variable" for name in _unknown_variables()]
    try:
        settings = Settings(**{key: value for key, value in table.items() if key not in unknown})
    except ValidationError as error:
        found += [f"{_origin(line, path)}: {line}" for line in problems.lines(error, secret=("redis", "acme.eab_key"))]
        raise SettingsError("\n".join(found)) from None
    if found:
        raise SettingsError("\n".join(found))
    return settings


def instead_of(network: Network) -> str:
    """What to write for a service network that phones live in as well."""
    if network.num_addresses == 1:
        return "it must be in one of the two"
    host = network[min(5, network.num_addresses - 1)]
    return f'write the PBX hosts themselves, such as "{host}/{network.max_prefixlen}"'


def restore(path: Path) -> Settings:
    """Read what `model_dump_json` wrote: the settings a running node was started with."""
    return Settings(**json.loads(path.read_text()))


def _unknown_variables() -> list[str]:
    """Variables that look like ours and are not; what is wrong below a table is said with its value."""
    known = _LAUNCHERS | {key.upper() for key in Settings.model_fields}
    ours = [name for name in os.environ if name.upper().startswith(PREFIX)]
    return sorted(name for name in ours if name.upper().removeprefix(PREFIX).partition(NESTED)[0] not in known)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None


def _origin(line: str, path: Path) -> str:
    """Who said it: the variable of the environment that names the key, else the file."""
    key = re.split(r"[ :\[]", line, maxsplit=1)[0]
    variable = PREFIX + key.upper().replace(".", NESTED)
    return variable if variable in {name.upper() for name in os.environ} else str(path)


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _is_redis_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        has_port = url.port is None or 1 <= url.port <= 65535
    except ValueError:
        return False
    match url.scheme:
        case "redis" | "rediss":
            return bool(url.hostname) and has_port
        case "unix":
            return url.path.startswith("/")
        case _:
            return False
