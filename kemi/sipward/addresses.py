"""The node's own addresses: what the configuration means on this machine.

Asks `ip` once, before anything starts; the answer is a frozen value that is handed to whoever needs it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from sipward import interfaces
from sipward.hosts import Address, Network
from sipward.settings import Settings, SettingsError, instead_of


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of one node; at most one of each family in `outside`, `public` and `service`."""

    outside: tuple[Address, ...]
    """What phones and carriers reach us on: the listening addresses."""
    public: tuple[Address, ...]
    """What the outside knows us by, one for each of `outside`, in its order."""
    service: tuple[Address, ...]
    """What instances reach us on; may be the same as `outside`."""
    attached: tuple[Network, ...]
    """Networks this machine has an interface in, whichever that is."""

    @property
    def own(self) -> frozenset[Address]:
        """Every address that means this node."""
        return frozenset(self.outside + self.public + self.service)


def resolve(settings: Settings) -> Addresses:
    """Find the node's addresses. Raises SettingsError when the interface is not on this machine or has none."""
    found = _interfaces()
    network = settings.network
    outside = network.address or _of_interface(network.interface or "", found)
    strange = {a.version for a in network.public_address} - {a.version for a in outside}
    if strange:
        raise SettingsError(
            f"network.public_address names IPv{strange.pop()}, and {network.interface} has no address of that family"
        )
    addresses = Addresses(
        outside=outside,
        public=tuple(_public(address, network.public_address) for address in outside),
        service=network.service_address or outside,
        attached=tuple({i.network: None for interfaces in found.values() for i in interfaces}),
    )
    _refuse_phones_as_instances(settings, addresses)
    return addresses


def local_networks(settings: Settings, addresses: Addresses) -> list[Network]:
    """The networks of the site; behind a router also the one the node itself is in, which needs no translation.

    Not when that is a service network by the operator's own word: then its hosts are instances.
    """
    network = settings.network
    behind = [own for own, public in zip(addresses.outside, addresses.public, strict=True) if own != public]
    attached = [near for near in addresses.attached if any(own in near for own in behind)]
    return [*network.local_networks, *(near for near in attached if not _around(near, network.service_networks))]


def _refuse_phones_as_instances(settings: Settings, addresses: Addresses) -> None:
    """On an address of both sides the source alone decides: the phones beside the node must not count as instances."""
    network = settings.network
    shared = set(addresses.outside) & set(addresses.service)
    for near in addresses.attached:
        # A network of one address is the node alone, as on many rented machines.
        if near.num_addresses == 1 or not any(own in near for own in shared):
            continue
        service, local = _around(near, network.service_networks), _around(near, network.local_networks)
        if service and (not local or local.prefixlen < service.prefixlen):
            raise SettingsError(
                f"network.service_networks: {service} holds {near}, the network of the node's one address for both "
                f"sides, so that every phone there counts as an instance: {instead_of(near)}, or give the node a "
                "network.service_address of its own"
            )


def _around(network: Network, networks: Iterable[Network]) -> Network | None:
    """The smallest of the networks that hold a network, or are it."""
    holding = [n for n in networks if n.version == network.version and network.subnet_of(n)]  # type: ignore[arg-type]
    return max(holding, key=lambda n: n.prefixlen, default=None)


def _public(address: Address, given: tuple[Address, ...]) -> Address:
    return next((p for p in given if p.version == address.version), address)


type _Found = dict[str, list[Any]]


def _interfaces() -> _Found:
    """Interface name -> its global addresses with their networks, in the kernel's order."""
    return {link["ifname"]: _globals(link) for link in interfaces.links()}


def _globals(link: dict[str, Any]) -> list[Any]:
    # A temporary IPv6 address (RFC 8981) is none to listen on: it goes away.
    return [
        ip_interface(f"{a['local']}/{a['prefixlen']}")
        for a in link.get("addr_info", [])
        if a.get("scope") == "global" and "local" in a and not (a.get("temporary") or a.get("deprecated"))
    ]


def _of_interface(name: str, found: _Found) -> tuple[Address, ...]:
    if name not in found:
        raise SettingsError(f'network.interface = "{name}": no such interface; there are {", ".join(sorted(found))}')
    first: dict[int, Address] = {}
    for interface in found[name]:
        first.setdefault(interface.version, interface.ip)
    if not first:
        raise SettingsError(f'network.interface = "{name}": has no global IPv4 or IPv6 address')
    return tuple(first[version] for version in sorted(first))
