"""This machine's network interfaces, as the kernel names them."""

import json
import subprocess
from collections.abc import Collection
from ipaddress import ip_interface
from typing import Any

from sipward.settings import SettingsError


def links() -> list[dict[str, Any]]:
    """All interfaces as `ip -json addr` says them. Raises SettingsError."""
    try:
        answer = subprocess.run(["ip", "-json", "addr"], capture_output=True, text=True, timeout=5, check=True)
        return [link for link in json.loads(answer.stdout) if "ifname" in link]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SettingsError(f"cannot read this machine's addresses with `ip -json addr`: {error}") from None


def available(without: Collection[str] = (), without_families: Collection[str] = ()) -> list[dict[str, Any]]:
    """The interfaces that have addresses a node may listen on, with these.

    `without`: interface names to leave out; `without_families`: `inet`, `inet6`.
    """
    found = []
    for link in links():
        addresses = [_address(info) for info in link.get("addr_info", []) if _is_usable(info, without_families)]
        if addresses and link["ifname"] not in without:
            found.append({"name": link["ifname"], "addresses": addresses})
    return found


def _is_usable(info: dict[str, Any], without_families: Collection[str]) -> bool:
    # An IPv6 link-local address means nothing without its interface (RFC 4007): no setting takes one.
    is_link_local = info.get("family") == "inet6" and info.get("scope") == "link"
    return "local" in info and info.get("family") not in without_families and not is_link_local


def _address(info: dict[str, Any]) -> dict[str, str]:
    own = ip_interface(f"{info['local']}/{info['prefixlen']}")
    return {"address": str(own.ip), "network": str(own.network), "family": str(info["family"])}
