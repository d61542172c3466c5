"""A carrier that the node connects to over TLS: every connection is taken, and the node's own OPTIONS are answered."""

import queue
import socket
import ssl
import threading
from contextlib import suppress

from lab.agent import PROBE, Agent
from lab.network import Machine
from lab.packets import Address
from lab.pki import Pair
from lab.sip import Message, cut


class SecureCarrier(Agent):
    """An agent that speaks on the connection that came last. A context manager.

    `pair` is what it shows; `roots`, if they are given, must have signed what the node shows it.
    """

    def __init__(
        self, machine: Machine, pair: Pair, *, host: str = "", roots: bytes = b"", answers: bool = True
    ) -> None:
        super().__init__(machine, "tls", host=host, port=5061)
        self.connections: list[ssl.SSLSocket] = []
        self.asked = 0
        """How many OPTIONS have come."""
        self.names_asked_for: list[str] = []
        self._answers = answers
        self._heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._context = _serving(pair, roots)
        self._context.sni_callback = lambda _, name, __: self.names_asked_for.append(name or "")
        self._listening = self.socket
        self._listening.listen(16)
        self._changed = threading.Condition()
        threading.Thread(target=self._accept, name=f"carrier {machine.name}", daemon=True).start()

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close all connections."""
        with self._changed:
            for connection in self.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self.connections.clear()

    def connect(self) -> None:
        """The node does."""

    def send(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        with self._changed:
            self.connections[-1].sendall(data)

    def _hear(self, timeout: float) -> Message:
        try:
            return self._heard.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, peer = self._listening.accept()
                threading.Thread(target=self._serve, args=(plain, Address(*peer[:2])), daemon=True).start()

    def _serve(self, plain: socket.socket, peer: Address) -> None:
        buffer = bytearray()
        with suppress(OSError), self._context.wrap_socket(plain, server_side=True) as connection:
            with self._changed:
                self.connections.append(connection)
            while data := connection.recv(65536):
                buffer += data
                for text in cut(buffer):
                    self._take(self._message(text, peer))

    def _take(self, message: Message) -> None:
        self.machine.lab.wire.overhear(message, self.machine.lab.side(self.host))
        if PROBE not in message.header("From"):
            self._heard.put(message)
            return
        self.asked += 1
        if self._answers:
            self.reply(message, 200, tag="h")


def _serving(pair: Pair, roots: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair.load(context)
    if roots:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=roots.decode())
    return context
