"""The show: a phone behind a NAT registers and calls a tenant's PBX through a node. All of it is real, and is seen."""

import signal
import time
from contextlib import ExitStack

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.asterisk import ECHO, Asterisk
from lab.baresip import Baresip
from lab.calls import expect_audio, received
from lab.ladder import Follower, Ladder
from lab.network import Lab, Machine
from lab.node import Node
from lab.sip import Message

DOMAIN = "acme.example"
ALICE, BOB = "202", "201"
_SECONDS = 3


def main() -> int:
    """Play the demo; 0 when every step went well and audio flowed both ways."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    console = Console(highlight=False, soft_wrap=True)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            Show(console, stack).play()
    except KeyboardInterrupt:
        console.print("[yellow]Stopped.[/]")
        return 130
    except (AssertionError, RuntimeError, OSError) as problem:
        console.print(Text(f"The demo failed: {problem}", style="red"))
        return 1
    console.print(f"[bold green]All went well[/], in {time.monotonic() - began:.0f} s. Everything is stopped again.")
    return 0


class Show:
    """One performance. What it starts goes onto `stack`, and so ends with it."""

    def __init__(self, console: Console, stack: ExitStack) -> None:
        self.console = console
        self.stack = stack

    def play(self) -> None:
        """The acts, in order."""
        lab = self.stack.enter_context(Lab())
        with self.console.status("Networks: the Internet, a NAT router with a phone behind it, a service network"):
            alice, bob = lab.phone("alice", behind="symmetric"), lab.phone("bob")
            machines = (lab.instance("pbx-1"), lab.instance_on_node("pbx-2"))
        self.did("Networks", "the Internet, a symmetric NAT with alice's phone behind it, bob's phone, two PBX hosts")
        with self.console.status("A node: Redis, rtpengine, Kamailio with all routing in Python"):
            node = self.stack.enter_context(Node(lab))
        self.did("Node", f"{node.machine.address}, {node.machine.address6}; service address 10.5.4.1")
        with self.console.status("Two Asterisk"):
            for machine in machines:
                self.stack.enter_context(Asterisk(machine, DOMAIN, [ALICE, BOB]))
        self.did("PBXs", "two Asterisk: pbx-1 on a host of its own, pbx-2 on the node itself")
        self.add_tenant(node, machines)
        try:
            self.registrations_and_call(lab, alice, bob, machines)
        except (AssertionError, RuntimeError):
            self.console.print(Text(node.log_tail(), style="dim"))
            raise

    def did(self, what: str, detail: str) -> None:
        self.console.print(Text.assemble(("✔ ", "green"), (f"{what:<10}", "bold"), detail))

    def add_tenant(self, node: Node, machines: tuple[Machine, ...]) -> None:
        """By the command that an operator uses."""
        command = ["route", "add", "acme", "--domain", DOMAIN]
        for machine in machines:
            command += ["--instance", f"sip:{machine.address}:{machine.sip_port}"]
        answer = node.sipward(*command)
        if answer.code:
            raise RuntimeError(f"sipward {' '.join(command)}: {answer.errors}")
        node.wait_live(lambda: bool(node.live(DOMAIN)), "acme")
        self.did("Tenant", f"sipward {' '.join(command)}")

    def registrations_and_call(self, lab: Lab, alice: Machine, bob: Machine, machines: tuple[Machine, ...]) -> None:
        """Two registrations and a call to the echo, with the ladder as it happens."""
        ladder = Ladder(
            lab.wire,
            ["symmetric", "bob", "node", *(m.name for m in machines)],
            {"symmetric": "alice behind NAT", "node": "Sipward"},
        )
        self.console.print(Text(f"\n{ladder.header()}", style="bold"))
        with Follower(lab.wire, lambda message: self.draw(ladder, message)):
            phone = self.stack.enter_context(Baresip(alice, ALICE, DOMAIN))
            self.stack.enter_context(Baresip(bob, BOB, DOMAIN))
            phone.dial(ECHO)
            instance = _who_took(machines, ECHO)
            expect_audio(alice, instance)
            time.sleep(_SECONDS)  # the audience listens
            rates = self.rates(lab, instance)
            phone.hangup()
            lab.wire.wait_for(lambda m: m.method == "BYE" and m.status == 200 and m.interface == "eth0", what="its end")
        self.console.print()
        self.did("Call", f"alice behind the NAT called {ECHO} at {DOMAIN}: {instance.name} took it")
        self.console.print(rates)

    def draw(self, ladder: Ladder, message: Message) -> None:
        style = "cyan" if message.status is None else "green" if message.status < 300 else "yellow"
        self.console.print(Text(ladder.line(message), style=style), soft_wrap=True)

    def rates(self, lab: Lab, instance: Machine) -> Table:
        """Packets a second on each of the call's four ways, as the node sees them."""
        node = lab.wire.rtp("node")
        ports = range(instance.rtp_ports[0], instance.rtp_ports[1] + 1)
        own = set(instance.addresses)
        ways = {
            "alice → Sipward": [s for s in node if s.key.interface == "eth0" and s.key.direction == "in"],
            f"Sipward → {instance.name}": [
                s for s in node if s.key.destination.host in own and s.key.destination.port in ports
            ],
            f"{instance.name} → Sipward": [s for s in node if s.key.source.host in own and s.key.source.port in ports],
            "Sipward → alice": [s for s in node if s.key.interface == "eth0" and s.key.direction == "out"],
        }
        table = Table("RTP packets a second", *(f"second {n + 1}" for n in range(_SECONDS)), title_justify="left")
        start = max(streams[0].times[0] for streams in ways.values())
        for way, streams in ways.items():
            counts = [sum(s.between(start + n, start + n + 1) for s in streams) for n in range(_SECONDS)]
            table.add_row(way, *map(str, counts))
        return table


def _who_took(machines: tuple[Machine, ...], number: str) -> Machine:
    for machine in machines:
        if any(m.method == "INVITE" and m.uri.startswith(f"sip:{number}@") for m in received(machine)):
            return machine
    raise AssertionError("no instance got the call")


def _end(number: int, frame: object) -> None:
    raise KeyboardInterrupt
