"""What counts as a host name, and how an address is written; one answer for settings, tenants and the command line."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# RFC 3261, 25.1: `toplabel` starts with a letter, so that 999.1.2.3 is no host name.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")


def is_host_name(text: str) -> bool:
    """Whether a folded text (lower case, no trailing dot) is a host name as RFC 3261 has it."""
    return len(text) <= 253 and _HOST_NAME.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address:
    """Read an IP literal, IPv6 with or without brackets. Raises ValueError; a zone (`%eth0`) is refused too."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") and ":" in text else text
    address = ip_address(inner)
    if "%" in inner:
        raise ValueError(f"{inner} carries a zone")
    return address


def hostport(address: Address, port: int) -> str:
    """`host:port` with IPv6 in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
