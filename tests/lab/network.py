"""A lab of machines. Each is a network namespace; cables, bridges and NAT routers are made when they are asked for."""

import itertools
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from lab import addresses
from lab.addresses import HOME, INTERNET, LAN, LOCAL, SERVICE, SITE, Segment, with_prefix
from lab.processes import Process, Processes, end, living_in
from lab.wire import Wire

if TYPE_CHECKING:
    from lab.sipp import Sipp

Nat = Literal["cone", "restricted", "symmetric", "double"]
Behind = Literal["public", "local", "site", "cone", "restricted", "symmetric", "double"]
Place = Literal["public", "nat", "local"]

_labs = itertools.count(1)


@dataclass(eq=False)
class Machine:
    """A computer of the lab. `addresses` are IPv4 first; `rtp_ports` are what its telephony uses for audio.

    Two machines may share one namespace: a PBX on the node itself. They differ in their ports.
    """

    name: str
    namespace: str
    addresses: tuple[str, ...]
    lab: "Lab" = field(repr=False)
    wires: tuple[str, ...] = ("eth0",)
    rtp_ports: tuple[int, int] = (30000, 30999)
    sip_port: int = 5060
    tapped_as: str = ""

    def __post_init__(self) -> None:
        self.tapped_as = self.tapped_as or self.name

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return self.addresses[0]

    @property
    def address6(self) -> str:
        """Its IPv6 address. Asking for one where there is none is a mistake of the test."""
        return next(a for a in self.addresses if ":" in a)

    def like(self, address: str) -> str:
        """Its address of the same family as `address`."""
        return self.address6 if ":" in address else self.address

    def popen(
        self,
        argv: Sequence[str],
        *,
        log: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program here. It is stopped with the lab at the latest."""
        return self.lab.processes.start(argv, namespace=self.namespace, log=log, cwd=cwd, env=env)

    def run(self, argv: Sequence[str], *, timeout: float = 20.0, check: bool = True) -> str:
        """Run a program here to its end and return what it printed."""
        argv = ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *argv]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def inside[T](self, action: Callable[[], T]) -> T:
        """Run a Python function here: in a thread of its own, which is all that changes the namespace."""
        return in_namespace(self.namespace, action)

    def socket(
        self,
        family: socket.AddressFamily = socket.AF_INET,
        kind: socket.SocketKind = socket.SOCK_DGRAM,
        protocol: int = 0,
    ) -> socket.socket:
        """A socket of this machine. It stays here whatever thread uses it."""
        return self.inside(lambda: socket.socket(family, kind, protocol))


def in_namespace[T](namespace: str, action: Callable[[], T]) -> T:
    """Call `action` in a short-lived thread that has entered the namespace, and return or raise what it does."""
    result: list[T] = []
    error: list[BaseException] = []

    def work() -> None:
        try:
            handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                os.setns(handle, os.CLONE_NEWNET)
            finally:
                os.close(handle)
            result.append(action())
        except BaseException as problem:
            error.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]


class Lab:
    """Machines that see each other as the Internet, a site and a service network would. A context manager.

    Names carry our process id, so two labs run side by side. `directory` holds every file the lab writes and goes
    with it, unless `keep` is set.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self._prefix = f"lab{os.getpid()}{chr(96 + next(_labs))}"
        self._keep = keep
        self._namespaces: list[str] = []
        self._numbers: dict[str, itertools.count[int]] = {}
        self._bridges: dict[str, str] = {}
        self._node: Machine | None = None
        self.machines: dict[str, Machine] = {}
        self.directory = Path(tempfile.mkdtemp(prefix="sipward-lab-"))
        self.processes = Processes()
        self.wire = Wire()
        self.scenarios: list[Sipp] = []

    def __enter__(self) -> Self:
        self.wire.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what runs, take the machines down, delete the files. What outlived its parent is killed by id."""
        self.processes.stop_all()
        end(list(living_in(self._namespaces)))
        self.wire.stop()
        _ip([f"netns delete {name}" for name in self._namespaces])
        self._namespaces.clear()
        if not self._keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def left_behind(self) -> dict[int, str]:
        """Ids and commands of what runs in the lab now: after a stop there must be none."""
        return living_in(self._namespaces)

    # --- machines -------------------------------------------------------------------------------------------------

    def node(self, place: Place = "public") -> Machine:
        """The machine Sipward runs on: `eth0` outside (or to its router), bridges `local` and `service` inside.

        Places: `public` has two addresses on the Internet; `nat` is behind a router that owns the first of them
        and forwards all to it; `local` has no Internet.
        """
        if self._node:
            return self._node
        space = self._namespace("node")
        outside: tuple[str, ...] = ()
        if place == "public":
            outside = INTERNET.host(addresses.NODE)
            self._cable(space, "eth0", self._internet())
            self._configure(space, "eth0", *outside, *INTERNET.host(addresses.SECOND_NODE_ADDRESS))
        elif place == "nat":
            outside = SITE.host(addresses.NODE)
            router = self._router("gateway", INTERNET.host(addresses.NODE)[0], SITE, _FORWARDING)
            self._cable(space, "eth0", router)
            self._configure(space, "eth0", *outside, gateway=f"{SITE.v4}{addresses.GATEWAY}")
        for segment in (LOCAL, SERVICE):
            self._bridge(space, segment)
            self._configure(space, segment.name, *segment.host(addresses.GATEWAY))
        wires = (*(("eth0",) if outside else ()), LOCAL.name, SERVICE.name, "lo")
        self._node = Machine("node", space, outside or LOCAL.host(addresses.GATEWAY), self, wires)
        self._add(self._node)
        for segment in (LOCAL, SERVICE):
            self.wire.name(segment.host(addresses.GATEWAY), "node")
        return self._node

    def phone(self, name: str, behind: Behind = "public") -> Machine:
        """A telephone's machine: on the Internet, behind one of the NAT routers, or in the node's local network.

        Like all machines it is made when it is first asked for, and found by its name from then on.
        """
        if name in self.machines:
            return self.machines[name]
        match behind:
            case "public":
                return self._outsider(name, "phone", addresses.PHONES)
            case "local":
                self.node()
                number = self._number("local", addresses.PHONES)
                # The node is the site's gateway, so its outside address is reached here as well.
                return self._host(name, self._bridges["local"], LOCAL, number, gateway=f"{LOCAL.v4}{addresses.GATEWAY}")
            case "site":
                # Beside the node, behind the node's own router.
                self.node("nat")
                number = self._number("site", addresses.PHONES)
                return self._host(name, self._bridges["gateway"], SITE, number, gateway=f"{SITE.v4}{addresses.GATEWAY}")
            case _:
                bridge, inner = self.nat(behind), HOME if behind == "double" else LAN
                number = self._number(behind, addresses.LAN_PHONES)
                return self._host(name, bridge, inner, number, gateway=f"{inner.v4}{addresses.GATEWAY}")

    def carrier(self, name: str = "carrier") -> Machine:
        """A carrier's machine on the Internet."""
        return self._outsider(name, "carrier", addresses.CARRIER)

    def borders(self, name: str, count: int = 1) -> Machine:
        """A carrier with so many session border controllers: one machine, with an IPv4 and an IPv6 address for each."""
        if name in self.machines:
            return self.machines[name]
        numbers = [self._number("border", addresses.BORDERS) for _ in range(count)]
        hosts = [INTERNET.host(number) for number in numbers]
        here = tuple(host[0] for host in hosts) + tuple(host[1] for host in hosts)
        return self._machine(name, self._internet(), here)

    def name_server(self) -> Machine:
        """Where the DNS server of the Internet runs: on no cable of its own, so it is not tapped."""
        if "dns" not in self.machines:
            space, _, bridge = self._internet().partition("/")
            address = f"{INTERNET.v4}{addresses.DNS}"
            self._configure(space, bridge, address)
            self.machines["dns"] = Machine("dns", space, (address,), self, ())
        return self.machines["dns"]

    def host_of_internet(self, name: str, number: int) -> Machine:
        """Somebody on the Internet at an address that others must know beforehand."""
        if name in self.machines:
            return self.machines[name]
        return self._host(name, self._internet(), INTERNET, number)

    def attacker(self, name: str = "attacker") -> Machine:
        """Somebody on the Internet who should not get anywhere."""
        return self._outsider(name, "attacker", addresses.ATTACKER)

    def instance(self, name: str) -> Machine:
        """A PBX's machine: another host of the service network (10.5.4.11, .12, ...)."""
        if name in self.machines:
            return self.machines[name]
        self.node()
        number = self._number("instance", addresses.INSTANCES)
        return self._host(name, self._bridges["service"], SERVICE, number)

    def instance_on_node(self, name: str) -> Machine:
        """A PBX on the node's very machine, at the service address itself: SIP on 5080, 5081, ..., RTP of its own."""
        if name in self.machines:
            return self.machines[name]
        node = self.node()
        number = self._number("co-located", 0)
        ports = (40000 + 1000 * number, 40999 + 1000 * number)
        machine = Machine(
            name, node.namespace, SERVICE.host(addresses.GATEWAY), self, (), ports, 5080 + number, tapped_as="node"
        )
        self.machines[name] = machine
        for address in machine.addresses:
            self.wire.name((f"{address}:{machine.sip_port}",), name)
        return machine

    def edge(self, machine: Machine, *, ipv6: bool = False) -> str:
        """The address at which this machine meets the node: service address, its own, or the one it is known by."""
        if any(a in SERVICE for a in machine.addresses):
            return SERVICE.host(addresses.GATEWAY)[-1 if ipv6 else 0]
        if machine.address in LOCAL or machine.address in SITE:
            return self.node().address
        return INTERNET.host(addresses.NODE)[-1 if ipv6 else 0]

    def side(self, address: str) -> str:
        """The node's interface that leads to an address."""
        return next((segment.name for segment in (LOCAL, SERVICE) if address in segment), "eth0")

    def nat(self, kind: Nat) -> str:
        """The NAT router of this kind; returns its LAN's bridge. Phones behind it ask for it by themselves.

        `double`: a router of a home whose other side is the LAN behind the symmetric NAT.
        """
        rules = _MASQUERADE[kind]
        if kind == "double":
            lan, gateway = self.nat("symmetric"), f"{LAN.v4}{addresses.GATEWAY}"
            return self._router(kind, f"{LAN.v4}{addresses.HOME_ROUTER}", HOME, rules, lan, gateway)
        return self._router(kind, f"{INTERNET.v4}{_NAT_NUMBERS[kind]}", LAN, rules)

    @contextmanager
    def forgetful(self, kind: Nat, seconds: int) -> Iterator[None]:
        """The NAT router forgets a UDP flow after so many seconds of silence, as long as this lasts."""
        space = self.nat(kind).partition("/")[0]
        names = [f"netfilter/nf_conntrack_udp_timeout{each}" for each in ("", "_stream")]
        before = in_namespace(space, lambda: {name: _read(name) for name in names})
        in_namespace(space, lambda: _write_all(dict.fromkeys(names, str(seconds))))
        try:
            yield
        finally:
            in_namespace(space, lambda: _write_all(before))

    def remembers(self, kind: Nat, inner: tuple[str, int]) -> bool:
        """Whether the NAT router still knows a UDP flow that began at this address inside."""
        space = self.nat(kind).partition("/")[0]
        flows = in_namespace(space, lambda: Path("/proc/thread-self/net/nf_conntrack").read_text())
        host, port = inner
        return re.search(rf" udp .* src={re.escape(host)} dst=\S+ sport={port} dport=", flows) is not None

    def second_public_address(self) -> str:
        """Another address on the Internet that the node's router forwards from."""
        address, space = INTERNET.host(addresses.SECOND_NODE_ADDRESS)[0], self._bridges["gateway"].partition("/")[0]
        self._configure(space, "wan", address)
        return address

    @property
    def internet(self) -> str:
        """The namespace with the bridge that is the Internet, for rules on what crosses it."""
        return self._internet().partition("/")[0]

    # --- cables ---------------------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """A number no other has, for the names of files."""
        return self._number("file", 1)

    def _number(self, kind: str, start: int) -> int:
        return next(self._numbers.setdefault(kind, itertools.count(start)))

    def _add(self, machine: Machine) -> None:
        self.machines[machine.name] = machine
        self.wire.name(machine.addresses, machine.name)
        for cable in machine.wires:
            self.wire.tap(machine.name, cable, machine.inside)

    def _host(self, name: str, bridge: str, segment: Segment, number: int, gateway: str = "") -> Machine:
        return self._machine(name, bridge, segment.host(number), gateway)

    def _machine(self, name: str, bridge: str, here: tuple[str, ...], gateway: str = "") -> Machine:
        space = self._namespace(name)
        self._cable(space, "eth0", bridge)
        self._configure(space, "eth0", *here, gateway=gateway)
        machine = Machine(name, space, here, self)
        self._add(machine)
        return machine

    def _outsider(self, name: str, kind: str, start: int) -> Machine:
        if name in self.machines:
            return self.machines[name]
        return self._host(name, self._internet(), INTERNET, self._number(kind, start))

    def _namespace(self, name: str) -> str:
        space = f"{self._prefix}-{name}"
        _ip([f"netns add {space}"])
        self._namespaces.append(space)
        in_namespace(space, _sysctls)
        _ip(["link set lo up"], space)
        return space

    def _internet(self) -> str:
        if INTERNET.name not in self._bridges:
            self._bridge(self._namespace(INTERNET.name), INTERNET)
        return self._bridges[INTERNET.name]

    def _bridge(self, space: str, segment: Segment, key: str = "") -> None:
        # An address of its own, which stays: else a bridge has its lowest port's, another one with each machine that
        # comes, and who knows the old one for the node's sends to nobody.
        address = f"02:00:00:00:00:{len(self._bridges):02x}"
        # Multicast snooping would hold back the first neighbour solicitations of IPv6.
        made = f"link add {segment.name} address {address} type bridge mcast_snooping 0"
        _ip([made, f"link set {segment.name} up"], space)
        self._bridges[key or segment.name] = f"{space}/{segment.name}"

    def _cable(self, space: str, interface: str, bridge: str) -> None:
        """Plug an interface into a bridge, given as `namespace/bridge`."""
        there, _, name = bridge.partition("/")
        port = f"port{self._number(there, 1)}"
        _ip([f"link add {interface} netns {space} type veth peer name {port} netns {there}"])
        _ip([f"link set {port} master {name} up"], there)

    def _configure(self, space: str, interface: str, *hosts: str, gateway: str = "") -> None:
        # nodad: without it an IPv6 address is not usable for a second.
        lines = [f"address add {with_prefix(a)} dev {interface}{' nodad' if ':' in a else ''}" for a in hosts]
        lines.append(f"link set {interface} up")
        if gateway:
            lines.append(f"route add default via {gateway}")
        _ip(lines, space)

    def _router(self, name: str, public: str, inner: Segment, rules: str, outer: str = "", gateway: str = "") -> str:
        """A router, by its address on the bridge `outer`, which is the Internet unless it is named."""
        if name not in self._bridges:
            space = self._namespace(name)
            self._cable(space, "wan", outer or self._internet())
            self._configure(space, "wan", public, gateway=gateway)
            self._bridge(space, inner, name)
            self._configure(space, inner.name, *inner.host(addresses.GATEWAY))
            in_namespace(space, _forward)
            argv = ["nsenter", f"--net=/run/netns/{space}", "nft", "-f", "-"]
            subprocess.run(argv, input=rules, text=True, check=True, timeout=10)
            self.wire.name((public,), name)
        return self._bridges[name]


_NAT = """\
table ip nat {{
  map cone {{ type inet_service : ipv4_addr; flags dynamic; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    oifname "wan" {out}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    {in_}
  }}
  chain forward {{
    type filter hook forward priority filter
    iifname "wan" ct status dnat accept
    iifname "wan" ct state new drop
  }}
}}
"""

_MASQUERADE: dict[Nat, str] = {
    # Keeps the source port where it can: the mapping is the same for every peer, only the filter is per peer.
    "restricted": _NAT.format(out="masquerade", in_=""),
    # A new port for every peer: what a signalling address tells about the media address is nothing.
    "symmetric": _NAT.format(out="masquerade random,fully-random", in_=""),
    # The mapping is for everybody: who sends to it from anywhere is let in.
    "cone": _NAT.format(
        out='meta l4proto udp update @cone { udp sport : ip saddr }\n    oifname "wan" masquerade',
        in_='iifname "wan" dnat to udp dport map @cone',
    ),
    "double": _NAT.format(out="masquerade", in_=""),
}
_NAT_NUMBERS: dict[Nat, int] = {
    "cone": addresses.CONE_NAT,
    "restricted": addresses.RESTRICTED_NAT,
    "symmetric": addresses.SYMMETRIC_NAT,
}
_FORWARDING = _NAT.format(
    out=f"snat to {INTERNET.v4}{addresses.NODE}",
    in_=f'iifname "wan" meta l4proto {{ tcp, udp }} dnat to {SITE.v4}{addresses.NODE}',
)


def _ip(lines: Sequence[str], namespace: str = "") -> None:
    """Run lines of `ip` in one process."""
    where = ["-n", namespace] if namespace else []
    done = subprocess.run(
        ["ip", *where, "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise RuntimeError(f"ip {namespace}: {done.stderr.strip()} in {list(lines)}")


def _sysctls() -> None:
    """Settings of a fresh namespace: answers may leave by another interface than their question came in by."""
    _write("ipv4/conf/all/rp_filter", "0")
    _write("ipv4/conf/default/rp_filter", "0")
    _write("ipv6/conf/default/accept_dad", "0")
    _write("ipv6/conf/default/accept_ra", "0")


def _forward() -> None:
    _write("ipv4/ip_forward", "1")


def _read(name: str) -> str:
    return (Path("/proc/sys/net") / name).read_text()


def _write_all(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        _write(name, value)


def _write(name: str, value: str) -> None:
    path = Path("/proc/sys/net") / name
    if path.exists():
        path.write_text(value)
