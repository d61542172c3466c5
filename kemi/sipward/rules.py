"""What the node's settings allow the values in Redis: where instances and carriers may be, how numbers are dialled."""

from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from typing import NamedTuple, Self

from sipward import numbers
from sipward.addresses import Addresses
from sipward.hosts import Address, Network
from sipward.live import domain_key, home_key
from sipward.model import Endpoint
from sipward.settings import Settings

_NO_PLAN = numbers.Plan()
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class Taken(NamedTuple):
    """Ports of an address that are the node's own: an instance there would be a loop, or worse."""

    address: Address
    low: int
    high: int
    what: str


@dataclass(frozen=True)
class Rules:
    """What the node's settings allow a value."""

    networks: tuple[Network, ...]
    """Where instances may live."""
    own: tuple[Address, ...]
    """The node's addresses: no tenant's domain. In a fixed order: the same rules are written the same way."""
    taken: tuple[Taken, ...]
    local: tuple[Network, ...] = ()
    """Where phones live; of these and `networks` the longest prefix decides."""
    fqdn: str = ""
    """The node's own name."""
    plan: numbers.Plan = _NO_PLAN
    """How numbers are dialled."""
    profiles: tuple[str, ...] = ()
    """The tables of `[tls.profiles]`."""

    def __hash__(self) -> int:
        """Cheap: values that were checked are looked up by it."""
        return hash(self.fqdn)

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
        if ports := settings.trunks.own_ports:
            what = "one of the node's ports for trunks (trunks.own_ports)"
            taken += [Taken(address, ports[0], ports[-1], what) for address in addresses.outside]
        plan = settings.numbers.plan
        profiles = tuple(sorted(settings.tls.profiles))
        return cls(network.service_networks, own, tuple(taken), network.local_networks, settings.fqdn, plan, profiles)

    def refusal(self, address: Address, port: int) -> str:
        """Why no instance may be there; empty when one may."""
        homes = [n for n in self.networks if address in n]
        if not self.networks:
            return "network.service_networks is empty, so that no instance is allowed"
        if not homes:
            return f"must be inside network.service_networks ({', '.join(map(str, self.networks))})"
        if phones := [n for n in self.local if address in n and all(n.prefixlen >= home.prefixlen for home in homes)]:
            return f"is in network.local_networks ({phones[0]}): list the host itself in network.service_networks"
        if address.is_loopback and not any(_is_within(n, home) for n in homes for home in _LOOPBACK):
            return "is a loopback address, and network.service_networks does not list one"
        if address.is_unspecified or address.is_multicast:
            return "must be the address of one machine"
        return next((f"is {t.what}" for t in self.taken if t.address == address and t.low <= port <= t.high), "")

    def carrier_refusal(self, network: Network) -> str:
        """Why no carrier may be there: the node would call itself, or an instance from outside; empty when one may."""
        if any(_overlap(network, loopback) for loopback in _LOOPBACK):
            return "must not reach into loopback"
        if network.is_unspecified or network.is_multicast:
            return "must be the address of one machine, or a network of such"
        if own := next((address for address in self.own if address in network), None):
            return f"must not hold the node's own address {own}"
        if service := next((home for home in self.networks if self._is_service(network, home)), None):
            return f"must not reach into network.service_networks ({service})"
        return ""

    def home(self, end: Endpoint) -> str:
        """The key of an instance's address: on the node's own one its port tells whose it is."""
        return home_key(end.host, end.port if end.host in self._own_hosts else 0)

    def is_own(self, host: str) -> bool:
        """Whether a folded host is the node itself, by name or address (IPv6 in brackets)."""
        return host == self.fqdn or host in self._own_domains

    def speaks(self, version: int) -> bool:
        """Whether the node has an address of that version of IP."""
        return any(address.version == version for address in self.own)

    def _is_service(self, network: Network, home: Network) -> bool:
        """Whether a service network is in a network, but for a local one between them: the longest prefix decides."""
        between = (n for n in self.local if _is_within(network, n) and n.prefixlen >= home.prefixlen)
        return _overlap(network, home) and not any(between)

    @cached_property
    def _own_hosts(self) -> frozenset[str]:
        return frozenset(map(str, self.own))

    @cached_property
    def _own_domains(self) -> frozenset[str]:
        return frozenset(domain_key(str(address)) for address in self.own)


def _is_within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _overlap(network: Network, other: Network) -> bool:
    return network.version == other.version and network.overlaps(other)
