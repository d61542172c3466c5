"""The lab's address plan. Documentation prefixes outside (RFC 5737, RFC 3849), private ones inside."""

from dataclasses import dataclass
from ipaddress import ip_interface


@dataclass(frozen=True, slots=True)
class Segment:
    """A network: `v4` and `v6` are its prefixes up to the host part; `v6` is empty where there is no IPv6."""

    name: str
    v4: str
    v6: str = ""

    def host(self, number: int) -> tuple[str, ...]:
        """The addresses of the host with this number, IPv4 first."""
        return (f"{self.v4}{number}", f"{self.v6}{number}") if self.v6 else (f"{self.v4}{number}",)

    def __contains__(self, address: str) -> bool:
        return address.startswith(self.v4) or (bool(self.v6) and address.startswith(self.v6))


INTERNET = Segment("internet", "203.0.113.", "2001:db8:1::")
SERVICE = Segment("service", "10.5.4.", "fd00:5:4::")
LOCAL = Segment("local", "192.168.10.")
LAN = Segment("lan", "192.168.1.")
"""Behind each NAT router, overlapping on purpose: two phones with one address is what the field has."""
HOME = Segment("home", "192.168.2.")
"""Behind a router that is itself behind the symmetric NAT."""
SITE = Segment("site", "192.168.100.")
"""Where the node lives when it is itself behind a router."""

NODE = 10
SECOND_NODE_ADDRESS = 11
CARRIER = 20
PHONES = 30
RESTRICTED_NAT = 40
SYMMETRIC_NAT = 41
CONE_NAT = 42
HOME_ROUTER = 250
"""Of the router of HOME, in LAN."""
DNS = 53
PEBBLE = 54
ATTACKER = 66
BORDERS = 80
"""The first of the carriers' session border controllers; 80 to 95 make a network of their own: BORDER_NETWORK."""
GATEWAY = 1
BORDER_NETWORK = f"{INTERNET.v4}{BORDERS}/28"
LAN_PHONES = 20
INSTANCES = 11


def with_prefix(address: str) -> str:
    """`address/length` as `ip address add` wants it."""
    return str(ip_interface(f"{address}/{64 if ':' in address else 24}"))
