"""The tap: what went over every cable of the lab, read by one thread from packet sockets.

RTP is counted and forgotten, since it is most of the packets; everything else is kept whole until `clear`.

A packet waits in its socket from the moment it passes, so whoever has heard a message can be sure that a question finds
it: every question first reads what waits, whether or not the thread has had its turn.
"""

import ctypes
import errno
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from lab.eventually import PATIENCE
from lab.packets import TCP, Address, Fragments, Packet, Stream, parse
from lab.rtp import Key, Streams
from lab.rtp import Stream as RtpStream
from lab.sip import Message, cut, looks_like_sip

_ALL = 0x0003  # ETH_P_ALL: the only way to see what leaves as well
_OUTGOING = 4  # PACKET_OUTGOING
_TIMESTAMP = 35  # SO_TIMESTAMPNS: the kernel's time of the packet, not that of our reading it
_ATTACH_FILTER = 26
_BUFFER = 8 << 20
_IPV4, _IPV6 = 0x0800, 0x86DD
_SYN, _ACK = 0x02, 0x10  # flags of TCP


@dataclass(eq=False)
class _Tap:
    """One cable's end."""

    machine: str
    interface: str
    socket: socket.socket
    fragments: dict[str, Fragments] = field(default_factory=dict)


@dataclass
class _Flow:
    """One direction of a TCP connection at one tap."""

    stream: Stream = field(default_factory=Stream)
    buffer: bytearray = field(default_factory=bytearray)
    all: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes seen at a tap that were not RTP: a datagram, or all of one direction of a TCP connection."""

    time: float
    machine: str
    interface: str
    direction: str
    source: Address
    destination: Address
    data: bytes


class Wire:
    """Everything that was seen. Methods may be called from any thread while packets come in."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._read, name="wire", daemon=True)
        self._changed = threading.Condition()
        self._taps: list[_Tap] = []
        self._names: dict[str, str] = {}
        self._forget()

    def _forget(self) -> None:
        self._messages: list[Message] = []
        self._datagrams: list[Sent] = []
        self._flows: dict[tuple[str, str, str, Address, Address], _Flow] = {}
        self._attempts: list[tuple[str, str, Address, Address]] = []
        self._rtp: dict[Key, RtpStream] = {}

    # --- taps -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop reading and close every tap."""
        if self._thread.is_alive():
            os.write(self._waker, b"x")
            self._thread.join()
        for tap in self._taps:
            tap.socket.close()
        self._taps.clear()
        self._selector.close()
        for handle in (self._wake, self._waker):
            with suppress(OSError):
                os.close(handle)

    def tap(self, machine: str, interface: str, inside: Callable[[Callable[[], socket.socket]], socket.socket]) -> None:
        """Listen at a machine's interface. `inside` runs a function in the machine's namespace."""
        tap = _Tap(machine, interface, inside(lambda: _packet_socket(interface)))
        self._taps.append(tap)
        self._selector.register(tap.socket, selectors.EVENT_READ, tap)

    def name(self, addresses: Iterable[str], name: str) -> None:
        """Say whose an address (or `address:port`) is, for the ladder."""
        self._names.update(dict.fromkeys(addresses, name))

    def who(self, address: Address) -> str:
        """The name of an address's machine, or the address itself. Machines behind NATs share addresses."""
        return self._names.get(str(address)) or self._names.get(address.host) or str(address)

    def clear(self) -> None:
        """Forget what has passed, as each test starts. Connections that go on are picked up where they are."""
        with self._changed:
            self._catch_up()
            flows = self._flows
            self._forget()
            # The order and rest of a stream are still needed by the bytes to come.
            self._flows = {key: _Flow(flow.stream, flow.buffer) for key, flow in flows.items()}

    def overhear(self, message: Message, interface: str) -> None:
        """Take a message that was encrypted on the wire from who could read it: at the node it passed `interface`."""
        way = "out" if message.direction == "in" else "in"
        there = replace(message, machine="node", interface=interface, direction=way)
        data = message.text.encode(errors="surrogateescape")
        with self._changed:
            self._messages += [message, there]
            self._datagrams.append(Sent(there.time, "node", interface, way, there.source, there.destination, data))
            self._changed.notify_all()

    # --- questions ------------------------------------------------------------------------------------------------

    def messages(
        self,
        *,
        machine: str = "",
        direction: str = "",
        method: str = "",
        status: int | None = None,
        requests: bool | None = None,
        call_id: str = "",
    ) -> list[Message]:
        """SIP messages, each machine's in the order they passed. `method` alone finds requests and their responses."""
        with self._changed:
            self._catch_up()
            found = list(self._messages)
        return [
            m
            for m in found
            if (not machine or m.machine == machine)
            and (not direction or m.direction == direction)
            and (not method or m.method == method)
            and (status is None or m.status == status)
            and (requests is None or (m.status is None) == requests)
            and (not call_id or m.call_id == call_id)
        ]

    def wait_for(self, wanted: Callable[[Message], bool], timeout: float = PATIENCE, what: str = "") -> Message:
        """The first message for which `wanted` holds, past ones included; TimeoutError with the ladder otherwise."""
        deadline = time.monotonic() + timeout
        position = 0
        with self._changed:
            self._catch_up()
            while True:
                for message in self._messages[position:]:
                    if wanted(message):
                        return message
                position = len(self._messages)
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise TimeoutError(f"not seen within {timeout} s: {what or 'a SIP message'}\n{self.ladder_text()}")

    def wait_until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> bool:
        """Whether `condition` becomes true in time; it is asked again at every packet."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.1))
        return True

    def rtp(self, machine: str = "") -> Streams:
        """The streams seen at a machine (everywhere, without a name)."""
        with self._changed:
            self._catch_up()
            return Streams(s for s in self._rtp.values() if not machine or s.key.machine == machine)

    def sent(self, machine: str = "", interface: str = "", direction: str = "out") -> list[Sent]:
        """What passed and was not RTP: datagrams one by one, TCP a connection and direction each."""
        with self._changed:
            self._catch_up()
            found = list(self._datagrams)
            found += [
                Sent(0.0, name, cable, way, source, destination, bytes(flow.all))
                for (name, cable, way, source, destination), flow in self._flows.items()
                if flow.all
            ]
        return [
            s
            for s in found
            if s.direction == direction and machine in ("", s.machine) and interface in ("", s.interface)
        ]

    def attempts(self, machine: str, direction: str = "out") -> list[tuple[Address, Address]]:
        """TCP connections that were asked for (a SYN) here: from where, to where."""
        with self._changed:
            self._catch_up()
            return [(here, there) for name, way, here, there in self._attempts if (name, way) == (machine, direction)]

    def leaks(
        self, needles: Sequence[str], shown: Mapping[str, str] | None = None, *, machine: str = "node",
        interface: str = "eth0",
    ) -> list[str]:  # fmt: skip
        """Every needle found in what left by this interface, with its lines. Empty is what promise 4 asks for.

        `shown`: needles that header fields of one name may have, by the name. Who is in a network may know of it.
        """
        shown = shown or {}

        def is_leak(line: bytes, wanted: Iterable[bytes]) -> bool:
            field = line.partition(b":")[0].decode(errors="replace")
            return any(needle in line and needle != shown.get(field, "").encode() for needle in wanted)

        found: list[str] = []
        for sent in self.sent(machine, interface):
            wanted = [needle.encode() for needle in needles if not sent.destination.host.startswith(needle)]
            lines = [line for line in sent.data.splitlines() if is_leak(line, wanted)]
            if lines:
                first = sent.data.partition(b"\r\n")[0].decode(errors="replace")
                text = "".join(f"\n    {line.decode(errors='replace')}" for line in lines)
                found.append(f"{sent.source} -> {sent.destination} {first}{text}")
        return found

    def ladder(self, machine: str = "node") -> list[Message]:
        """The messages of one machine, in order: with the node's, both legs of every call and nothing twice."""
        return sorted(self.messages(machine=machine), key=lambda m: m.time)

    def ladder_text(self, machine: str = "") -> str:
        """The ladder as lines: time, from, to, transport, first line."""
        machine = machine or ("node" if any(t.machine == "node" for t in self._taps) else "")
        messages = self.ladder(machine) if machine else [m for m in self.messages() if m.direction == "out"]
        if not messages:
            return "no SIP was seen"
        start = messages[0].time
        return "\n".join(
            f"{m.time - start:8.3f}  {self.who(m.source):>14} -> {self.who(m.destination):<14} "
            f"{m.transport} {m.first_line}"
            for m in messages
        )

    # --- the thread -----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        while True:
            ready = self._selector.select()
            with self._changed:
                for key, _ in ready:
                    if key.data is None:
                        return
                    self._drain(key.data)

    def _catch_up(self) -> None:
        """Read all that waits. The lock is held: two who read at once would change the order."""
        behind = list(self._taps)
        while behind:
            behind = [tap for tap in behind if self._drain(tap)]

    def _drain(self, tap: _Tap) -> bool:
        """Read some of what waits at a tap; whether more may wait."""
        for _ in range(256):  # other taps want their turn too
            try:
                frame, extra, _, where = tap.socket.recvmsg(65536, 64)
            except BlockingIOError:
                return False
            except OSError as problem:
                if problem.errno == errno.ENETDOWN:  # once, when the other end of the cable goes
                    continue
                return False
            stamp = time.time()
            for level, kind, data in extra:
                if level == socket.SOL_SOCKET and kind == _TIMESTAMP:
                    seconds, nanos = struct.unpack("=qq", data[:16])
                    stamp = seconds + nanos / 1e9
            direction = "out" if where[2] == _OUTGOING else "in"
            if tap.interface == "lo":  # everything passes a loopback twice
                if direction == "out":
                    continue
                direction = "lo"
            packet = parse(frame, tap.fragments.setdefault(direction, Fragments()))
            if packet:
                self._keep(tap, direction, stamp, packet)
                self._changed.notify_all()
        return True

    def _keep(self, tap: _Tap, direction: str, stamp: float, packet: Packet) -> None:
        data = packet.payload
        if packet.protocol == TCP:
            place = (tap.machine, tap.interface, direction, packet.source, packet.destination)
            flow = self._flows.get(place)
            if flow is None:
                flow = self._flows[place] = _Flow()
            if packet.flags & (_SYN | _ACK) == _SYN:
                self._attempts.append((tap.machine, direction, packet.source, packet.destination))
            fresh = flow.stream.add(packet)
            flow.all += fresh
            flow.buffer += fresh
            for text in cut(flow.buffer):
                self._message(tap, direction, stamp, "tcp", packet, text)
        elif len(data) >= 12 and 0x80 <= data[0] <= 0xBF and not 192 <= data[1] <= 223:
            key = Key(
                tap.machine, tap.interface, direction, packet.source, packet.destination,
                int.from_bytes(data[8:12]), data[1] & 0x7F,
            )  # fmt: skip
            stream = self._rtp.get(key)
            if stream is None:
                stream = self._rtp[key] = RtpStream(key)
            stream.times.append(stamp)
            stream.numbers.append(int.from_bytes(data[2:4]))
        else:
            self._datagrams.append(
                Sent(stamp, tap.machine, tap.interface, direction, packet.source, packet.destination, data)
            )
            if looks_like_sip(data):
                self._message(tap, direction, stamp, "udp", packet, data)

    def _message(self, tap: _Tap, direction: str, stamp: float, transport: str, packet: Packet, text: bytes) -> None:
        if looks_like_sip(text):
            self._messages.append(
                Message(
                    stamp, tap.machine, tap.interface, direction, transport, packet.source, packet.destination,
                    text.decode(errors="surrogateescape"),
                )
            )  # fmt: skip


def _packet_socket(interface: str) -> socket.socket:
    """A socket that gives the IP packets with UDP or TCP in them, both ways, without their link header."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # protocol 0: nothing comes before it is bound
    tap.setblocking(False)
    with suppress(OSError):
        tap.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
    tap.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FILTER))
    tap.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HxxxxxxQ", len(_FILTER), ctypes.addressof(code)))
    tap.bind((interface, _ALL))
    return tap


_FILTER = [
    (0x28, 0, 0, 0xFFFFF000),  # the packet's protocol
    (0x15, 0, 2, _IPV4),
    (0x30, 0, 0, 9),  # IPv4's protocol field
    (0x05, 0, 0, 2),
    (0x15, 0, 4, _IPV6),
    (0x30, 0, 0, 6),  # IPv6's next header
    (0x15, 3, 0, 17),
    (0x15, 2, 0, 6),
    (0x15, 1, 0, 44),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
]
"""Classic BPF: UDP, TCP and fragments of IPv6 pass; the rest never leaves the kernel."""
