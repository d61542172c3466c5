"""What a call's audio must be: who is told to listen where, who hears whom, and from when on."""

import time

from lab.network import Machine
from lab.packets import Address
from lab.rtp import AT_LEAST, Streams
from lab.sip import Message


def received(machine: Machine) -> list[Message]:
    """The SIP messages that reached this machine. A PBX on the node gets its own by the loopback, at its own port."""
    lab = machine.lab
    found = lab.wire.messages(machine=machine.tapped_as)
    if machine.tapped_as == machine.name:
        return [m for m in found if m.direction == "in"]
    return [m for m in found if m.direction == "lo" and m.destination.port == machine.sip_port]


def told(machine: Machine) -> Address | None:
    """Where the machine was last told, by SDP, to send its audio: also where it must hear from (RFC 4961)."""
    return next((m.media for m in reversed(received(machine)) if m.media), None)


def heard(machine: Machine) -> Streams:
    """The streams of RTP that reached the machine's telephony."""
    ports = range(machine.rtp_ports[0], machine.rtp_ports[1] + 1)
    arrived = Streams(s for s in machine.lab.wire.rtp(machine.tapped_as) if s.key.direction in ("in", "lo"))
    return Streams(s for s in arrived.where(ports=ports) if s.key.destination.host in machine.addresses)


def answered(machine: Machine) -> float:
    """When the last 200 to an INVITE passed anywhere near this machine's lab."""
    times = [m.time for m in machine.lab.wire.messages(method="INVITE", status=200)]
    if not times:
        raise AssertionError(f"no call was answered\n{machine.lab.wire.ladder_text()}")
    return max(times)


def expect_audio(*machines: Machine, since: float | None = None, within: float = 1.0) -> None:
    """Each machine hears: from within 1 s of the 200 on at least 45 packets a second, and from nobody else.

    `since` is the time of the 200 (default: the last one seen). Waits for what is still to come.
    """
    start = answered(machines[0]) if since is None else since
    deadline = start + within + 1.5
    for machine in machines:
        while (problem := _missing(machine, start, within)) and time.time() < deadline:
            time.sleep(0.05)  # packets come 20 ms apart; the tap, not this clock, decides
        if problem:
            raise AssertionError(f"{machine.name} {problem}; it was told {told(machine)} and heard\n{heard(machine)}")
        strangers = [s for s in heard(machine) if s.key.source != told(machine) and s.between(start, deadline)]
        if strangers:
            raise AssertionError(
                f"{machine.name} was told {told(machine)} and heard from elsewhere\n{Streams(strangers)}"
            )


def expect_silence(*machines: Machine, since: float, seconds: float = 1.0, at_most: int = 2) -> None:
    """No machine hears anything from `since` on; a packet or two may have been under way."""
    time.sleep(max(0.0, since + seconds - time.time()))
    for machine in machines:
        packets = heard(machine).between(since, since + seconds)
        if packets > at_most:
            raise AssertionError(f"{machine.name} heard {packets} packets, it should hear nothing\n{heard(machine)}")


def _missing(machine: Machine, start: float, within: float) -> str:
    """What is wrong with the first second of audio; empty when nothing is."""
    source = told(machine)
    if source is None:
        return "was told no media address"
    streams = heard(machine).where(source=source)
    times = [t for s in streams for t in s.times if t >= start]
    if not times:
        return "heard nothing from where it should"
    first = min(times)
    if first > start + within:
        return f"heard the first packet {first - start:.2f} s after the 200"
    packets = streams.between(first, first + 1)
    return f"heard {packets} packets in the first second" if packets < AT_LEAST else ""
