"""The node's own addresses: what the configuration means on this machine.

Asks `ip` once, before anything starts; the answer is a frozen value that is handed to whoever needs it.
"""

import json
import subprocess
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from sipward.hosts import Address, Network
from sipward.settings import Settings, SettingsError


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
    return Addresses(
        outside=outside,
        public=tuple(_public(address, network.public_address) for address in outside),
        service=network.service_address or outside,
        attached=tuple({i.network: None for interfaces in found.values() for i in interfaces}),
    )


def _public(address: Address, given: tuple[Address, ...]) -> Address:
    return next((p for p in given if p.version == address.version), address)


type _Found = dict[str, list[Any]]


def _interfaces() -> _Found:
    """Interface name -> its global addresses with their networks, in the kernel's order."""
    try:
        answer = subprocess.run(["ip", "-json", "addr"], capture_output=True, text=True, timeout=5, check=True)
        return {link["ifname"]: _globals(link) for link in json.loads(answer.stdout) if "ifname" in link}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise SettingsError(f"cannot read this machine's addresses with `ip -json addr`: {error}") from None


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
