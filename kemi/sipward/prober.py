"""Asks every instance by OPTIONS whether it is there: a thread of the sync process, with sockets of its own.

What the answers mean is `health`'s. UDP: one socket a family for all of them. TCP: a short connection each time, and
only so many at once.
"""

import errno
import re
import secrets
import selectors
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_IP,
    SO_RCVBUF,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    AddressFamily,
    SocketKind,
    socket,
)

from sipward.health import SLOT, Health, Memory, Probe
from sipward.hosts import Address
from sipward.model import Endpoint
from sipward.settings import HealthSettings

CONNECTIONS = 256
"""TCP, at the same time. Those that are due meanwhile are asked a moment later."""

_LOOK_EVERY = 1.0
_REST = 1.0
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
_IP_BIND_ADDRESS_NO_PORT = 24
_ANSWER_MAX = 65536
_OWN_FAULT = frozenset(
    {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EADDRINUSE, errno.EADDRNOTAVAIL}
)
"""Errors of a socket that say something of us, and nothing of the instance."""
_ANSWER = re.compile(rb"SIP/2\.0 ([2-6][0-9][0-9]) .*?;branch=z9hG4bK([0-9a-f]{16})-([0-9]+\.[0-9]+)", re.DOTALL)
_REQUEST = (
    "OPTIONS {uri} SIP/2.0\r\n"
    "Via: SIP/2.0/{transport} {own};rport;branch=z9hG4bK{secret}-{mark}\r\n"
    "Max-Forwards: 70\r\n"
    "From: <sip:health@{host}>;tag={mark}\r\n"
    "To: <{uri}>\r\n"
    "Call-ID: {secret}-{mark}\r\n"
    "CSeq: 1 OPTIONS\r\n"
    "Accept: application/sdp\r\n"
    "User-Agent: Sipward\r\n"
    "Content-Length: 0\r\n\r\n"
)


class Prober:
    """The thread. `watch` may be called from any other one, at any time."""

    def __init__(
        self, memory: Memory, log: Callable[[str], None], service: Iterable[Address], settings: HealthSettings
    ) -> None:
        """Start nothing yet. `service`: the addresses to ask from, those that instances know us by."""
        self._memory = memory
        self._log = log
        self._service = {AF_INET6 if address.version == 6 else AF_INET: str(address) for address in service}
        self._settings = settings
        self._news: deque[tuple[str, tuple[Endpoint, ...]]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; comes back when the thread has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def watch(self, owner: str, endpoints: Iterable[Endpoint]) -> None:
        """Say which instances a tenant has now; none when it is gone."""
        self._news.append((owner, tuple(endpoints)))

    def _run(self) -> None:
        chosen = self._settings
        health = Health(self._memory, self._log, chosen.interval, chosen.timeout, chosen.threshold, time.monotonic())
        with closing(Asker(self._service)) as asker:
            while not self._stopping.is_set():
                try:
                    self._ask(health, asker)
                except Exception:
                    for line in traceback.format_exc().splitlines():
                        self._log(f"event=exception callid=? {line}")
                    self._stopping.wait(_REST)

    def _ask(self, health: Health, asker: "Asker") -> None:
        """Send what is due and hear what comes back, until the end."""
        look_at = 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            # An answer that has arrived counts, however late it is read.
            for mark, status in asker.answers():
                health.heard(mark, status)
            while self._news:
                health.watch(*self._news.popleft(), now)
            if now >= look_at:
                health.look(now)
                look_at = now + _LOOK_EVERY
            for probe in health.due(now):
                if not asker.send(probe, now):
                    health.unsent(probe.mark)
            asker.close_before(now - self._settings.timeout)
            self._stopping.wait(SLOT - (time.monotonic() - now))


class Asker:
    """The sockets."""

    def __init__(self, service: Mapping[AddressFamily, str]) -> None:
        """`service`: our address by family."""
        self._service = service
        self._secret = secrets.token_hex(8)
        self._datagrams: dict[AddressFamily, socket] = {}
        self._connections: dict[socket, _Connection] = {}
        self._selector = selectors.DefaultSelector()

    def close(self) -> None:
        """Close all."""
        for own in [*self._connections, *self._datagrams.values()]:
            own.close()
        self._selector.close()

    def send(self, probe: Probe, now: float) -> bool:
        """Send a request; False when that failed for a reason of our own."""
        try:
            if probe.end.transport == "udp":
                return self._datagram(probe)
            return self._connect(probe, now)
        except OSError as error:
            return error.errno not in _OWN_FAULT

    def answers(self) -> Iterator[tuple[str, int]]:
        """Mark and status of each final answer that has come since the last time."""
        for own in self._datagrams.values():
            with suppress(BlockingIOError):
                while True:
                    if answer := self._read(own.recv(_ANSWER_MAX)):
                        yield answer
        for key, _ in self._selector.select(0):
            if answer := self._go_on(self._connections[key.fileobj]):  # type: ignore[index]
                yield answer

    def close_before(self, moment: float) -> None:
        """Close what was opened before that and is not done."""
        for connection in [open for open in self._connections.values() if open.since < moment]:
            self._close(connection)

    def _datagram(self, probe: Probe) -> bool:
        end, family = probe.end, _family(probe.end)
        own = self._datagrams.get(family)
        if own is None:
            own = self._datagrams[family] = self._socket(family, SOCK_DGRAM)
            _enlarge(own)
        via = Endpoint("udp", *own.getsockname()[:2]).hostport
        own.sendto(self._text(probe, via), (end.host, end.port))
        return True

    def _connect(self, probe: Probe, now: float) -> bool:
        if len(self._connections) >= CONNECTIONS:
            return False
        family = _family(probe.end)
        own = self._socket(family, SOCK_STREAM)
        try:
            own.connect_ex((probe.end.host, probe.end.port))
            text = self._text(probe, Endpoint("tcp", self._service[family], 0).hostport.removesuffix(":0"))
            self._selector.register(own, selectors.EVENT_WRITE)
        except OSError:
            own.close()
            raise
        self._connections[own] = _Connection(own, text, now)
        return True

    def _go_on(self, connection: "_Connection") -> tuple[str, int] | None:
        """Send the request over a connection that stands, or read what has come."""
        try:
            if connection.request:
                connection.own.sendall(connection.request)
                connection.request = b""
                self._selector.modify(connection.own, selectors.EVENT_READ)
                return None
            data = connection.own.recv(_ANSWER_MAX)
        except OSError:
            # Refused or reset: silence is what comes of it.
            data = b""
        connection.answer += data
        answer = self._read(connection.answer)
        if answer or not data or len(connection.answer) > _ANSWER_MAX:
            self._close(connection)
        return answer

    def _close(self, connection: "_Connection") -> None:
        self._selector.unregister(connection.own)
        del self._connections[connection.own]
        connection.own.close()

    def _socket(self, family: AddressFamily, kind: SocketKind) -> socket:
        own = socket(family, kind)
        try:
            own.setblocking(False)
            if kind is SOCK_STREAM:
                # Else each port would be taken for all targets.
                own.setsockopt(IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            own.bind((self._service[family], 0))
        except OSError:
            own.close()
            raise
        return own

    def _text(self, probe: Probe, via: str) -> bytes:
        end = probe.end
        uri = f"sip:{end.hostport}" if end.transport == "udp" else end.uri
        host = via.rpartition(":")[0] if end.transport == "udp" else via
        return _REQUEST.format(
            uri=uri, transport=end.transport.upper(), own=via, host=host, secret=self._secret, mark=probe.mark
        ).encode()

    def _read(self, data: bytes | bytearray) -> tuple[str, int] | None:
        match = _ANSWER.search(data)
        if match is None or match[2].decode() != self._secret:
            return None
        return match[3].decode(), int(match[1])


@dataclass(slots=True, eq=False)
class _Connection:
    own: socket
    request: bytes
    since: float
    answer: bytearray = field(default_factory=bytearray)


def _family(end: Endpoint) -> AddressFamily:
    return AF_INET6 if ":" in end.host else AF_INET


def _enlarge(own: socket) -> None:
    """Make room for the answers that come while the other thread is busy."""
    own.setsockopt(SOL_SOCKET, SO_RCVBUF, _RECEIVE_BUFFER)
    with suppress(OSError):
        own.setsockopt(SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
