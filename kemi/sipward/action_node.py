"""The node as NethServer's interface sees it: its configuration, and the interfaces that it may be given."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from tomlkit import TOMLDocument

from sipward import addresses, certificate_names, configuration, interfaces, settings
from sipward.action_inputs import (
    ROOT,
    AvailableInterfaces,
    CertificateChanged,
    ConfigureModule,
    InputError,
    Problem,
    ServiceNetwork,
    with_value,
)
from sipward.addresses import local_networks
from sipward.certificate_check import covers
from sipward.certificate_names import Files
from sipward.certificate_sources import fetch, is_due
from sipward.certificates import CertificateError, Certificates
from sipward.hosts import Network
from sipward.reload import Outcome, ReloadError
from sipward.settings import Settings, SettingsError

BAD_NETMASK, BAD_NETWORK, BAD_INPUT, NOT_DONE = 2, 3, 10, 1
"""Exit codes."""

_FIELDS = {
    "fqdn": ("fqdn", BAD_INPUT),
    "lets_encrypt": ("lets_encrypt", BAD_NETWORK),
    "network.address": ("addresses.address", BAD_INPUT),
    "network.interface": ("addresses.address", BAD_INPUT),
    "network.public_address": ("addresses.public_address", BAD_INPUT),
    "network.service_address": ("service_network.address", BAD_INPUT),
    "network.service_networks": ("service_network.netmask", BAD_NETMASK),
    "network.local_networks": ("local_networks", BAD_NETWORK),
}
"""Which field of the input a key of the configuration comes from, and how its refusal ends."""
_KEY = re.compile(rf"\b(?:{'|'.join(map(re.escape, _FIELDS))})\b")


def available_interfaces(wanted: AvailableInterfaces) -> dict[str, Any]:
    """The interfaces and their addresses."""
    return {"data": interfaces.available(wanted.excluded_interfaces, wanted.excluded_families)}


def get_configuration(path: Path) -> dict[str, Any]:
    """The configuration in the words of the interface. Raises SettingsError."""
    node = settings.load(path)
    own = addresses.resolve(node)
    address, public, service = own.outside[0], own.public[0], own.service[0]
    home = next((n for n in node.network.service_networks if n.version == service.version), None)
    behind_router = address != public
    return {
        "fqdn": node.fqdn,
        "lets_encrypt": node.lets_encrypt,
        "addresses": {"address": str(address)} | ({"public_address": str(public)} if behind_router else {}),
        "service_network": {"address": str(service), "netmask": str(home or ip_network(service))},
        "local_networks": list(dict.fromkeys(map(str, local_networks(node, own)))) if behind_router else [],
    }


def configure(wanted: ConfigureModule, path: Path) -> Outcome | None:
    """Write the configuration and have the running node take it; None when none runs. Raises InputError."""
    networks = _local_networks(wanted)
    home = _service_network(wanted.service_network) if wanted.service_network else None

    def edit(document: TOMLDocument) -> None:
        # What it says already stays as people wrote it: the words of the interface know less than the file's.
        shown = _shown(path)
        if wanted.fqdn != shown.get("fqdn"):
            document["fqdn"] = wanted.fqdn
        if wanted.lets_encrypt not in (None, shown.get("lets_encrypt", False)):
            document["lets_encrypt"] = wanted.lets_encrypt
        network = configuration.table(document, "network")
        if (given := wanted.addresses.model_dump(exclude_none=True)) != shown.get("addresses"):
            _say_addresses(network, given)
        if (
            home is not None
            and wanted.service_network
            and _as_shown(wanted.service_network, home) != shown.get("service_network")
        ):
            network["service_address"] = wanted.service_network.address
            network["service_networks"] = [str(home)]
        if networks is not None and set(networks) != set(shown.get("local_networks", [])):
            network["local_networks"] = networks

    try:
        return configuration.change(path, edit, _certify)
    except (SettingsError, ReloadError) as error:
        raise _in_words_of_the_input(str(error), wanted) from None
    except CertificateError as error:
        raise InputError([Problem.at("lets_encrypt", True, str(error))], BAD_NETWORK) from None


def certificate_changed(event: CertificateChanged, path: Path) -> tuple[str, ...]:
    """Take the certificates of these names again from their files; what was taken, for people. Raises InputError."""
    node = settings.load(path)
    own = addresses.resolve(node)
    problems, taken = [], []
    for name, source in certificate_names.wanted(node, own).items():
        if not isinstance(source, Files) or not covers(event.names, name):
            continue
        try:
            fetch(node, own, name, source)
            taken.append(f"the certificate for {name} is taken")
        except CertificateError as error:
            problems.append(Problem.at("names", name, str(error)))
    if problems:
        raise InputError(problems, BAD_NETWORK)
    return tuple(taken)


def _certify(node: Settings) -> None:
    """Have the certificate that the configuration wants from a CA before it is written. Raises CertificateError."""
    if not node.lets_encrypt:
        return
    own = addresses.resolve(node)
    source = certificate_names.source_of(node, own, node.fqdn)
    if is_due(Certificates(node.state_dir).get(node.fqdn), source, datetime.now(UTC)):
        fetch(node, own, node.fqdn, source)


def _say_addresses(network: Any, given: Mapping[str, str]) -> None:
    network.pop("interface", None)
    network["address"] = given["address"]
    if "public_address" in given:
        network["public_address"] = given["public_address"]
    else:
        network.pop("public_address", None)


def _as_shown(service: ServiceNetwork, home: Network) -> dict[str, str]:
    return {"address": service.address, "netmask": str(home)}


def _shown(path: Path) -> dict[str, Any]:
    """What the file says now; nothing when it is none yet, or a bad one."""
    try:
        return get_configuration(path)
    except SettingsError:
        return {}


def _local_networks(wanted: ConfigureModule) -> list[str] | None:
    problems, found = [], []
    for index, text in enumerate(wanted.local_networks or ()):
        try:
            found.append(str(ip_network(text)))
        except ValueError:
            allowed = "must be a network such as 192.168.1.0/24 or 2001:db8::/64"
            problems.append(Problem(f"local_networks.{index}", "local_networks", text, allowed))
    if problems:
        raise InputError(problems, BAD_NETWORK)
    return None if wanted.local_networks is None else list(dict.fromkeys(found))


def _service_network(service: ServiceNetwork) -> Network:
    """The network, written as such or by the netmask of the address."""
    try:
        if "/" in service.netmask:
            return ip_network(service.netmask)
        if "." not in service.netmask:
            raise ValueError("no netmask")
        return ip_interface(f"{service.address}/{service.netmask}").network
    except ValueError:
        allowed = "must be a network such as 10.5.4.0/24 or 2001:db8::/64, or a netmask such as 255.255.255.0"
        problem = Problem.at("service_network.netmask", service.netmask, allowed)
        raise InputError([problem], BAD_NETMASK) from None


def _in_words_of_the_input(text: str, wanted: ConfigureModule) -> InputError:
    """Refusals of the configuration, each with the field of the input that it is about."""
    found = [_refusal(line) for line in text.splitlines()]
    return InputError([with_value(problem, wanted) for problem, _ in found], found[0][1])


def _refusal(line: str) -> tuple[Problem, int]:
    key = _KEY.search(line)
    if key is None:
        return Problem.at(ROOT, None, line), NOT_DONE
    field, code = _FIELDS[key[0]]
    return Problem.at(field, None, line[key.start() :]), code
