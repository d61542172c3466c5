"""What every worker knows about its node: sockets, networks, names, keys. Fixed from start to stop."""

import json
import re
from collections.abc import Iterable
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import product
from pathlib import Path
from typing import Any

from sipward.live import domain_key
from sipward.model import NO_SHARES, Endpoint, Shares, Side, Socket
from sipward.numbers import NO_PLAN, Plan

ADDRESS = re.compile(
    r"(?:(?<=%[0-9A-Fa-f][0-9A-Fa-f])|(?<![\d.]))(?:"
    r"\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\](?::\d+)?"
    r"|((?:\d{1,3}\.){3}\d{1,3})(?::\d+)?(?!\d|\.\d)"
    r"|(?<![0-9A-Za-z:])((?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.]{0,15})(?![0-9A-Za-z:]))"
)
"""An address in a text: IPv6 in brackets or IPv4, each with its port if it has one, or IPv6 alone; a group for each."""


CARRIER = None
"""In the place of a side: outside, and known."""


class Edge:
    """The node as its workers see it."""

    def __init__(
        self,
        sockets: Iterable[Socket],
        service_networks: Iterable[str],
        local_networks: Iterable[str],
        names: Iterable[str],
        keys: Iterable[bytes],
        instance_timeout: int,
        plan: Plan = NO_PLAN,
        own_ports: Iterable[int] = (),
        shares: Shares = NO_SHARES,
        learns_always: bool = False,
    ) -> None:
        """`names`: host names that are the node itself; `keys`: newest first; `instance_timeout`: milliseconds;
        `own_ports`: those of the sockets that are for one registration at a carrier each; `shares`: of the media ports;
        `learns_always`: whether to learn where RTP comes from though no NAT is in between.
        """
        self.plan = plan
        self.sockets = tuple(sockets)
        self.keys = tuple(keys)
        self.instance_timeout = instance_timeout
        self.own_ports = tuple(own_ports)
        self.shares = shares
        self.learns_always = learns_always
        self._service = [ip_network(network) for network in service_networks]
        self._local = [ip_network(network) for network in local_networks]

        self._own = {socket.local: index for index, socket in reversed(list(enumerate(self.sockets)))}
        self._by_side = {(s.side, s.local.transport, s.is_ipv6): s for s in reversed(self.sockets)}
        self._by_port = {(s.local.port, s.is_ipv6): s for s in self.sockets if s.local.port in self.own_ports}
        service = {s.local for s in self.sockets if s.side is Side.SERVICE}
        self._service_only = service - {s.local for s in self.sockets if s.side is not Side.SERVICE}
        self._service_any = service
        inner = {end.host for end in self._service_only}
        self._inner_hosts = frozenset(map(domain_key, inner))
        self.marks = _marks(self._service, inner)
        own, public = {s.local.host for s in self.sockets}, {s.public for s in self.sockets}
        # A phone of the site may take the site's public address for its own; what is sent there stays at the router.
        # A carrier may lead a call of one tenant back to another one of ours, with our description in it.
        nowhere: dict[Side | None, set[str]] = {Side.LOCAL: own, Side.SERVICE: set(), CARRIER: inner}
        self._no_media = nowhere | {Side.OUTSIDE: own | public}
        hosts = own | public | set(names)
        self._hosts = frozenset(domain_key(host) for host in hosts)
        self.network_of = lru_cache(maxsize=65536)(self._network_of)
        self.may_have_media = {
            side: lru_cache(maxsize=65536)(partial(self._may_have_media, side)) for side in (*Side, CARRIER)
        }

    def _network_of(self, host: str) -> Side:
        """The side whose networks hold an address (an IP literal without brackets): the longest prefix decides.

        So a PBX may live among the phones of a site: its host is the service network, the site's the local one.
        """
        address = ip_address(host)
        address = getattr(address, "ipv4_mapped", None) or address
        service, local = _longest(self._service, address), _longest(self._local, address)
        if service > local:
            return Side.SERVICE
        return Side.OUTSIDE if local < 0 else Side.LOCAL

    def _may_have_media(self, side: Side | None, host: str) -> bool:
        """Whether RTP may go where a description from `side` says: an IP literal, for nobody else is looked up.

        Not to what listens on the node itself, for whom the sender would write the datagrams: only a PBX may live here.
        """
        try:
            address = ip_address(host)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_multicast:
            return False
        if side is Side.SERVICE and self.network_of(host) is Side.SERVICE:
            return True
        return not address.is_loopback and str(address) not in self._no_media[side]

    def side_of(self, socket: Socket, source: Endpoint) -> Side | None:
        """The side a message comes from: socket and source together, since a source alone can be forged.

        None: the message is on a socket where its source has no business.
        """
        network = self.network_of(source.host)
        if socket.local in self._service_only:
            return Side.SERVICE if network is Side.SERVICE else None
        if network is Side.SERVICE:
            return Side.SERVICE if socket.local in self._service_any else None
        return network

    def socket_for(self, side: Side, peer: Endpoint, port: int = 0) -> Socket | None:
        """The socket that speaks to `peer` on `side`, None when the node has none of that transport and family.

        `port`: the own one to speak from, if it is (still) one.
        """
        if port and side is not Side.SERVICE and (own := self._by_port.get((port, ":" in peer.host))):
            return own
        group = Side.SERVICE if side is Side.SERVICE else Side.OUTSIDE
        return self._by_side.get((group, peer.transport, ":" in peer.host))

    def names_inside(self, text: str) -> bool:
        """Whether a text holds an inner address."""
        return any(mark in text for mark in self.marks) and any(
            self.is_inside(match[1] or match[2] or match[3]) for match in ADDRESS.finditer(text)
        )

    def is_inside(self, host: str) -> bool:
        """Whether an address must not be seen outside: in a service network, or ours on that side alone."""
        try:
            return self.network_of(host) is Side.SERVICE or domain_key(host) in self._inner_hosts
        except ValueError:
            return False

    def sockets_of(self, side: Side) -> list[Socket]:
        """Our sockets on a side; the local networks share those of the outside."""
        return [socket for socket in self.sockets if (socket.side is Side.SERVICE) is (side is Side.SERVICE)]

    @property
    def phone_sockets(self) -> list[Endpoint]:
        """Where phones reach us by UDP: our sockets outside that are not for one registration at a carrier each."""
        found = [socket.local for socket in self.sockets_of(Side.OUTSIDE) if socket.local.transport == "udp"]
        return [local for local in found if local.port not in self.own_ports]

    def own_port(self, index: int) -> int:
        """The port of the socket of that index, if it is for one registration; 0 for an ordinary one."""
        port = self.sockets[index].local.port
        return port if port in self.own_ports else 0

    def index_of(self, socket: Socket) -> int:
        """The name of a socket in the configuration; two sides may share one."""
        return self._own[socket.local]

    def shown_to(self, side: Side, socket: Socket) -> str:
        """`host:port` under which `side` knows a socket: the public address only outside."""
        host = socket.public if side is Side.OUTSIDE else socket.local.host
        return Endpoint(socket.local.transport, host, socket.local.port).hostport

    def translated(self, side: Side, socket: Socket) -> str:
        """The host of a socket as a URI has it, where a router gives it another one towards a side; else ""."""
        if side is not Side.OUTSIDE or socket.public == socket.local.host:
            return ""
        return f"[{socket.public}]" if socket.is_ipv6 else socket.public

    def is_self(self, host: str) -> bool:
        """Whether a URI's host is the node itself, by name or address."""
        return domain_key(host) in self._hosts

    def is_own_socket(self, peer: Endpoint) -> bool:
        """Whether an address is one of our own listening sockets: a message from there has looped."""
        return peer in self._own

    def to_json(self) -> str:
        """The text that `load` reads. The keys are not in it: they stay in a file of their own."""
        return json.dumps(
            {
                "sockets": [[s.side, s.local.transport, s.local.host, s.local.port, s.public] for s in self.sockets],
                "service_networks": [str(network) for network in self._service],
                "local_networks": [str(network) for network in self._local],
                "names": sorted(self._hosts),
                "instance_timeout": self.instance_timeout,
                "plan": self.plan,
                "own_ports": self.own_ports,
                "shares": self.shares,
                "learns_always": self.learns_always,
            }
        )


def _longest(networks: Iterable[IPv4Network | IPv6Network], address: IPv4Address | IPv6Address) -> int:
    """The longest prefix of those networks that hold an address; -1 when none does."""
    return max((network.prefixlen for network in networks if address in network), default=-1)


def _marks(networks: Iterable[IPv4Network | IPv6Network], hosts: Iterable[str]) -> tuple[str, ...]:
    """How the addresses of networks and hosts begin in a text: a cheap question that spares the exact one."""
    return tuple(sorted({mark for network in [*networks, *map(ip_network, hosts)] for mark in _beginnings(network)}))


def _beginnings(network: IPv4Network | IPv6Network) -> set[str]:
    """IPv4: the octets that the network fixes; IPv6: its first group without leading zeros, in any mix of cases."""
    if isinstance(network, IPv4Network):
        fixed = str(network.network_address).split(".")[: network.prefixlen // 8]
        return {"".join(f"{octet}." for octet in fixed)[: None if len(fixed) < 4 else -1]}
    if network.prefixlen < 16:
        return {":"}
    group = network.network_address.exploded[:4].lstrip("0")
    return {"".join(letters) for letters in product(*zip(group, group.upper(), strict=True))}


def load(path: Path, keys: Path) -> Edge:
    """Read the node's description and its keys (one in hexadecimal a line, the newest first)."""
    text: dict[str, Any] = json.loads(path.read_text())
    sockets = [Socket(Side(side), Endpoint(t, host, port), public) for side, t, host, port, public in text["sockets"]]
    secrets = [bytes.fromhex(line) for line in keys.read_text().split()]
    return Edge(
        sockets,
        text["service_networks"],
        text["local_networks"],
        text["names"],
        secrets,
        text["instance_timeout"],
        Plan(*text["plan"]),
        text["own_ports"],
        Shares(*text["shares"]),
        text["learns_always"],
    )
