"""The live table: what the sync process writes into Kamailio's shared memory, and how the workers read it.

| key in `routes` | value | what it is |
| --- | --- | --- |
| `example.org` | a tenant | a domain (IPv6 in brackets) |
| `@acme` | a tenant | a tenant by name |
| `#+390721405XX`, `#100@carrier` | `@acme`; `=@acme`: for the whole number only | a number, perhaps of one trunk |
| `@#+390721405XX` | a tenant | the one that a number has of its own, named `#+390721405XX` |
| `^10.5.4.11`, `^10.5.4.1:5080` | `acme initech` | whose instances are there; on the node's own address by port |
| `%carrier` | a trunk | a trunk by name |
| `%udp:198.51.100.0/24` | `carrier other` | trunks by where their calls come from |
| `>sip.carrier.example` | `carrier other` | trunks by the host that a Request-URI to them has |

A tenant or trunk is compact JSON. `state` holds what is known of the whole: `shapes` of the numbers and `prefixes` of
the trunks' sources, so that a look-up tries only what there is. `health` has a key for each instance that is down,
`resting` one for each target of a trunk that has failed within the last half minute. `ports` is described in `ports`,
`flows` in `registrations`.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address, ip_network
from typing import NamedTuple

from sipward import numbers
from sipward.model import Codecs, Endpoint, Instance, Limits, Proof, Srtp, Tenant, Trunk

TABLE = "routes"
"""The htable with the keys above."""

STATE = "state"
"""The htable where the sync process says how it is doing, and what is known of the whole table."""

STATE_KEY = "routes"
"""The key in STATE; its value is the JSON object that `sync` describes."""

SHAPES_KEY = "shapes"
"""The key in STATE; its value is what `numbers.write_shapes` writes."""

PREFIXES_KEY = "prefixes"
"""The key in STATE; its value is the prefix lengths of all sources, longest first: `128 32 24`."""

HEALTH_KEY = "health"
"""The key in STATE; its value is the JSON object that `health` publishes."""

PHONES_KEY = "phones"
"""The key in STATE; its value is the JSON object that `flow_keeper` publishes."""
SRTP = "srtp"
"""The htable that says what phones have shown of their media, where it is not what their transport lets expect."""

HEALTH = "health"
"""The htable with the key `str(Endpoint)` for each instance that must not be called now."""

RESTING = "resting"
"""The htable with the key `str(Endpoint)` for each target of a trunk that has just failed. They expire."""


PEERS = "peers"
"""The htable with the key `str(Endpoint)` for each target that we have a TLS connection to: its id in Kamailio, and the
names of the trunks whose carrier it has proven to be; and `!` before that key for why it is none."""

PEERS_KEY = "peers"
"""The key in STATE; its value is the names of all trunks over TLS."""

PORTS = "ports"
"""The htable that says which registration at a carrier has which of our ports."""

FLOWS = "flows"
"""The htable that says at which flow each registered phone is, and the queue of what changes in it."""
CHANGED = "changed"
"""The key in PORTS and SRTP whose value is another text after each change that is worth keeping on disk."""


class Found(NamedTuple):
    """A number's rule as it stands in the table, and whose it is; the tenant None when that one is not there."""

    rule: str
    tenant: Tenant | None


class Live:
    """The live table as routing reads it, whoever holds the memory: a worker, or a command by RPC."""

    def __init__(self, get: Callable[[str, str], str | None]) -> None:
        """`get`: an entry by htable and key."""
        self._get = get

    def tenant(self, domain: str) -> Tenant | None:
        """The tenant of a domain."""
        return self._tenant(domain_key(domain))

    def named(self, name: str) -> Tenant | None:
        """The tenant of that name."""
        return self._tenant(tenant_key(name))

    def tenants_at(self, host: str, port: int = 0) -> tuple[str, ...]:
        """The names of those who have an instance there. `port`: only on the node's own address."""
        return tuple((self._get(TABLE, home_key(host, port)) or "").split())

    def number(self, number: str, trunk: str = "") -> Found | None:
        """The most specific rule for a canonical number; among equals one of the trunk it came by."""
        shapes = numbers.read_shapes(self._get(STATE, SHAPES_KEY) or "")
        for rule in numbers.candidates(number, shapes):
            for key in (number_key(rule, trunk), number_key(rule)) if trunk else (number_key(rule),):
                if (entry := self._get(TABLE, key)) and (len(rule) == len(number) or not entry.startswith("=")):
                    return Found(key[1:], self._tenant(entry.lstrip("=")))
        return None

    def trunk(self, name: str) -> Trunk | None:
        """The trunk of that name."""
        entry = self._get(TABLE, trunk_key(name))
        return decode_trunk(entry) if entry else None

    def trunks_from(self, source: Endpoint) -> tuple[Trunk, ...]:
        """The trunks that a message comes from; the smallest network that is anyone's decides."""
        for key in _source_keys(source.transport, source.host, self._get(STATE, PREFIXES_KEY) or ""):
            if trunks := self._trunks(key):
                return trunks
        return ()

    def trunks_to(self, host: str) -> tuple[Trunk, ...]:
        """The trunks that a Request-URI's host leads to."""
        return self._trunks(target_key(host))

    def is_down(self, end: Endpoint) -> bool:
        """Whether an instance must not be called now."""
        return self._get(HEALTH, str(end)) is not None

    def is_resting(self, end: Endpoint) -> bool:
        """Whether a trunk's target has just failed."""
        return self._get(RESTING, str(end)) is not None

    def srtp(self, tenant: str, flow: Endpoint) -> Srtp:
        """What the phone at the end of a flow is to be offered: what it has shown, else what its transport says."""
        shown = self._get(SRTP, flow_key(tenant, flow))
        return Srtp(shown) if shown else expected(flow)

    def connection(self, trunk: str, end: Endpoint) -> int:
        """The id of the TLS connection to a trunk's target that has proven to be the carrier; 0 when there is none."""
        number, *trunks = (self._get(PEERS, str(end)) or "0").split()
        return int(number) if trunk in trunks else 0

    def secure_trunks(self) -> Iterator[Trunk]:
        """All trunks over TLS."""
        for name in (self._get(STATE, PEERS_KEY) or "").split():
            if (trunk := self.trunk(name)) and trunk.proof:
                yield trunk

    def port(self, holder: str) -> int:
        """Our port that a registration (`ports.holder`) has to itself; 0 when it has none."""
        return int(self._get(PORTS, holder) or 0)

    def _trunks(self, key: str) -> tuple[Trunk, ...]:
        names = (self._get(TABLE, key) or "").split()
        return tuple(trunk for name in names if (trunk := self.trunk(name)))

    def _tenant(self, key: str) -> Tenant | None:
        entry = self._get(TABLE, key)
        return decode(entry) if entry else None


def domain_key(domain: str) -> str:
    """Fold a host name the way the table's keys are folded (RFC 3261, 19.1.4: hosts compare without case)."""
    folded = domain.rstrip(".").lower()
    return _ipv6_key(folded) if ":" in folded else folded


def tenant_key(name: str) -> str:
    """Make the key of a tenant's own entry: no host name has an `@`, so it is no domain's key. It folds to itself."""
    return f"@{name}"


def number_key(rule: str, trunk: str = "") -> str:
    """Make the key of a number rule in its canonical spelling."""
    return f"#{rule}@{trunk}" if trunk else f"#{rule}"


def home_key(host: str, port: int = 0) -> str:
    """Make the key of an instance's address: an IP literal without brackets."""
    return f"^{host}:{port}" if port else f"^{host}"


def trunk_key(name: str) -> str:
    """Make the key of a trunk's own entry."""
    return f"%{name}"


def flow_key(tenant: str, flow: Endpoint) -> str:
    """Make the key of a phone's flow."""
    return f"{tenant} {flow}"


def expected(flow: Endpoint) -> Srtp:
    """What a phone is taken to do that has shown nothing: keys in an SDP are safe where the signalling is."""
    return Srtp.SDES if flow.transport == "tls" else Srtp.OFF


def source_key(transport: str, network: str) -> str:
    """Make the key of a trunk's source: a network with its prefix length, in its shortest spelling."""
    return f"%{transport}:{network}"


def target_key(host: str) -> str:
    """Make the key of the host that a trunk's Request-URIs have."""
    return f">{domain_key(host)}"


def aspect(key: str) -> tuple[str, str] | None:
    """What a key in `routes` adds to `state`: the key there and a word of its value; None for most."""
    if key.startswith("#"):
        return SHAPES_KEY, key[1:].partition("@")[0]
    if key.startswith("%") and "/" in key:
        return PREFIXES_KEY, key.rpartition("/")[2]
    return None


def write_prefixes(lengths: Iterable[int]) -> str:
    """The prefix lengths in use as one text."""
    return " ".join(map(str, sorted(set(lengths), reverse=True)))


@lru_cache(maxsize=65536)
def _source_keys(transport: str, host: str, prefixes: str) -> tuple[str, ...]:
    longest = 128 if ":" in host else 32
    fitting = [length for length in map(int, prefixes.split()) if length <= longest]
    return tuple(source_key(transport, str(ip_network(f"{host}/{length}", strict=False))) for length in fitting)


def _ipv6_key(host: str) -> str:
    """Fold an IPv6 address, in brackets or not: its many spellings are one address (RFC 5954, 4.1)."""
    try:
        return f"[{IPv6Address(host.strip('[]'))}]"
    except AddressValueError:
        return host


def encode(tenant: Tenant) -> str:
    """Write a tenant as one entry's text."""
    instances = [
        [i.endpoint.transport, i.endpoint.host, i.endpoint.port, i.weight, i.priority, int(i.drain), i.srtp]
        for i in tenant.instances
    ]
    return _compact([*tenant._replace(instances=()), instances])


@lru_cache(maxsize=4096)
def decode(entry: str) -> Tenant:
    """Read a tenant's text. Cached by the text itself, so an edit needs no invalidation."""
    name, _, redirect, domain, policy, identity, limits, ice, codecs, instances = json.loads(entry)
    codec_names, *codec_marks = codecs
    return Tenant(
        name,
        tuple(
            Instance(Endpoint(t, host, port), w, p, bool(d), Srtp(srtp)) for t, host, port, w, p, d, srtp in instances
        ),
        redirect,
        domain,
        policy,
        identity,
        Limits(*limits),
        ice,
        Codecs(tuple(codec_names), *codec_marks),
    )


def encode_trunk(trunk: Trunk) -> str:
    """Write a trunk as one entry's text."""
    return _compact(trunk)


@lru_cache(maxsize=4096)
def decode_trunk(entry: str) -> Trunk:
    """Read a trunk's text."""
    name, tenants, targets, number, media, identity, limits, own_port, srtp, proof = json.loads(entry)
    ends = tuple(Endpoint(*target) for target in targets)
    trunk = Trunk(name, tuple(tenants), ends, number, media, identity, Limits(*limits), own_port, Srtp(srtp))
    if not proof:
        return trunk
    names, fingerprints, profile = proof
    return trunk._replace(proof=Proof(tuple(names), tuple(fingerprints), profile))


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
