"""What a call's audio must be: who is told to listen where, who hears whom, and from when on."""

import math
import time
from collections import defaultdict

from lab.eventually import PATIENCE
from lab.network import Machine
from lab.packets import Address
from lab.rtp import AT_LEAST, PER_SECOND, Streams
from lab.sip import Message

_TELLING = 10
"""Packets from which on a share of them tells something."""


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
    """When the last 200 to an INVITE passed anywhere near this machine's lab; waits for one if there is none yet.

    A PBX has its channel, which a test can see, some time before it says so.
    """
    wire = machine.lab.wire
    wire.wait_for(lambda m: m.method == "INVITE" and m.status == 200, what="a call that is answered")
    return max(m.time for m in wire.messages(method="INVITE", status=200))


def expect_audio(
    *machines: Machine, since: float | None = None, within: float = 1.0, patience: float = PATIENCE
) -> None:
    """Each machine hears: from within 1 s of the 200 on at least 45 packets a second, and from nobody else.

    `since` is the time of the 200 (default: the last one seen). A sender that was kept from sending, on a busy machine,
    is not held against the node: what counts then is that nine tenths of what it did send are heard. Waits for what is
    still to come, until the call ends or `patience` does, in seconds.
    """
    start = answered(machines[0]) if since is None else since
    for machine in machines:
        deadline = time.time() + patience
        while (problem := _missing(machine, start, within)) and time.time() < min(deadline, _end(machine, start) + 1.0):
            time.sleep(0.05)  # packets come 20 ms apart; the tap, not this clock, decides
        if problem:
            raise AssertionError(f"{machine.name} {problem}; it was told {told(machine)} and heard\n{heard(machine)}")
        strangers = [s for s in heard(machine) if s.key.source != told(machine) and s.between(start, time.time())]
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


def expect_heard(machine: Machine, start: float, end: float) -> None:
    """The machine hears what it is sent in this stretch of time, during a call."""
    if problem := _lost(machine, heard(machine), start, end):
        raise AssertionError(f"{machine.name} {problem} from {start:.3f} on\n{heard(machine)}")


def _missing(machine: Machine, start: float, within: float) -> str:
    """What is wrong with the first second of audio; empty when nothing is."""
    source = told(machine)
    if source is None:
        return "was told no media address"
    streams = heard(machine).where(source=source)
    first = _next(streams, start)
    if first is None:
        return "heard nothing from where it should"
    # Nobody is heard before it speaks, and a NAT lets nobody in before the machine itself has spoken.
    spoken = (_next(said, start) for said in (_put_on_the_wire(machine), _said_by(machine)))
    began = max([start, *(moment for moment in spoken if moment is not None)])
    if first > began + within:
        return f"heard the first packet {first - began:.2f} s after it could"
    end = min(first + 1, _end(machine, first))
    if time.time() < end:
        return "has heard for less than a second"
    return _lost(machine, streams, first, end)


def _lost(machine: Machine, streams: Streams, start: float, end: float) -> str:
    """What is wrong with the audio of a second or less: at least nine in ten of what was sent must be heard.

    On a busy machine a packet may be late; it is not lost. A PBX may pass on what it gets under the same SSRC: the one
    that has sent most is where it began.
    """
    running = {stream.key.ssrc for stream in streams if stream.between(start, end)}
    sent: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for stream in _put_on_the_wire(machine):
        if stream.key.ssrc in running:
            sent[stream.key.ssrc][stream.key.machine] |= stream.numbers_between(start, end)
    if not sent:  # nothing, or by nobody we know
        packets = streams.between(start, end)
        return f"heard {packets} packets" if packets < AT_LEAST * (end - start) else ""
    began = {ssrc: max(senders.values(), key=len) for ssrc, senders in sent.items()}
    arrived: dict[int, set[int]] = defaultdict(set)
    for stream in streams:
        arrived[stream.key.ssrc] |= stream.numbers_between(start, math.inf)
    total = sum(map(len, began.values()))
    packets = sum(len(numbers & arrived[ssrc]) for ssrc, numbers in began.items())
    if total < _TELLING:
        return f"was sent {total} packets in {end - start:.2f} s, too few to tell"
    return f"heard {packets} of {total} packets" if packets < total * AT_LEAST / PER_SECOND else ""


def _put_on_the_wire(machine: Machine) -> Streams:
    """What the machine hears, as it left its senders: a media relay keeps the SSRC."""
    known = {stream.key.ssrc for stream in heard(machine)}
    senders = (sender for sender in machine.lab.machines.values() if sender is not machine)
    return Streams(s for sender in senders for s in _said_by(sender) if s.key.ssrc in known)


def _said_by(machine: Machine) -> Streams:
    """The streams of RTP that the machine's telephony sends."""
    ports = range(machine.rtp_ports[0], machine.rtp_ports[1] + 1)
    left = (s for s in machine.lab.wire.rtp(machine.tapped_as) if s.key.direction in ("out", "lo"))
    return Streams(s for s in left if s.key.source.host in machine.addresses and s.key.source.port in ports)


def _next(streams: Streams, start: float) -> float | None:
    """When the first packet passed from `start` on."""
    return min((t for s in streams for t in s.times if t >= start), default=None)


def _end(machine: Machine, start: float) -> float:
    """When the machine's call that was up at `start` ended by a BYE; infinity while it is up."""
    alone = machine.tapped_as == machine.name
    byes = machine.lab.wire.messages(machine=machine.tapped_as, method="BYE", requests=True)
    own = (m.time for m in byes if alone or machine.sip_port in (m.source.port, m.destination.port))
    return min((moment for moment in own if moment > start), default=math.inf)
