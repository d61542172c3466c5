"""Single SIP requests and single answers, each a datagram: for what is asked hundreds of times, or timed.

`Asker` is a phone that asks, `Answerer` an instance that answers everything and says who it is. Both are UDP over IPv4.
"""

import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from lab.eventually import PATIENCE
from lab.network import Machine
from lab.packets import Address
from lab.sip import Message

_numbers = itertools.count(1)
_SAID_BY = "X-Answered-By"
_ECHOED = re.compile(r"^(?:via|record-route|from|to|call-id|cseq)[ \t]*:.*$", re.IGNORECASE | re.MULTILINE)
_REQUEST = """\
{method} {target} SIP/2.0
Via: SIP/2.0/UDP {here};rport;branch=z9hG4bK{mark}
Max-Forwards: 70
From: <sip:probe@{here}>;tag={mark}
To: <{target}>
Call-ID: {call_id}
CSeq: 1 {method}
Contact: <sip:probe@{here}>
Content-Length: 0

"""


class Asker:
    """A socket of a machine from which requests go to the node, or to the address `to`. A context manager."""

    def __init__(self, machine: Machine, to: str = "", port: int = 5060) -> None:
        self._machine = machine
        self._peer = Address(to or machine.lab.edge(machine), port)
        self._socket = machine.socket()
        self._socket.bind((machine.address, 0))
        self._own = Address(machine.address, self._socket.getsockname()[1])
        self._socket.connect((self._peer.host, self._peer.port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def ask(
        self, target: str, method: str = "OPTIONS", *, call_id: str = "", within: float = PATIENCE
    ) -> Message | None:
        """The final answer to a request; None when none came in time, or nobody listens there.

        The request is sent once: a lost one is not repeated.
        """
        return next(self.answers(target, method, call_id=call_id, within=within), None)

    def status(self, target: str, method: str = "OPTIONS", *, within: float = PATIENCE) -> int:
        """The status of the final answer; 0 for none."""
        answer = self.ask(target, method, within=within)
        return answer.status or 0 if answer else 0

    def answered_by(self, target: str, *, within: float = PATIENCE) -> str:
        """The name of the `Answerer` that an OPTIONS reached; empty when it reached none."""
        answer = self.ask(target, within=within)
        return answer.header(_SAID_BY) if answer else ""

    def answers(
        self, target: str, method: str = "OPTIONS", *, call_id: str = "", within: float = PATIENCE, more: float = 1.0
    ) -> Iterator[Message]:
        """All final answers to one request: the first that comes within the time, and what comes soon after it."""
        deadline = time.monotonic() + within
        mark = f"probe{next(_numbers)}x{time.monotonic_ns()}"
        text = _REQUEST.format(method=method, target=target, here=self._own, mark=mark, call_id=call_id or mark)
        with suppress(ConnectionRefusedError):
            self._socket.send(text.replace("\n", "\r\n").encode())
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                try:
                    data = self._socket.recv(65536)
                except TimeoutError:
                    return
                message = self._read(data)
                if mark in message.header("Via") and (message.status or 0) >= 200:
                    yield message
                    deadline = min(deadline, time.monotonic() + more)

    def _read(self, data: bytes) -> Message:
        return Message(time.time(), self._machine.name, "eth0", "in", "udp", self._peer, self._own, data.decode())


class Answerer:
    """An instance that answers each request but ACK with `status` and says its name. A context manager."""

    def __init__(self, machine: Machine, status: str = "200 OK", headers: str = "") -> None:
        """`headers`: whole lines added to the answer, each with its CRLF."""
        self.requests: list[str] = []
        self._name = machine.name
        self._head = f"SIP/2.0 {status}\r\n"
        self._tail = f"{headers}{_SAID_BY}: {machine.name}\r\nContent-Length: 0\r\n\r\n"
        self._socket = machine.socket()
        self._socket.bind((machine.address, machine.sip_port))
        self._thread = threading.Thread(target=self._answer, name=f"answerer {machine.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # Closing alone does not wake a thread that waits in recvfrom.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        with suppress(OSError):
            while True:
                data, sender = self._socket.recvfrom(65536)
                if not data:
                    return
                text = data.decode(errors="replace")
                self.requests.append(text)
                if text.startswith("ACK "):
                    continue
                lines = (f"{line.rstrip()}\r\n" for line in _ECHOED.findall(text.partition("\r\n\r\n")[0]))
                self._socket.sendto((self._head + "".join(map(self._tagged, lines)) + self._tail).encode(), sender)

    def _tagged(self, line: str) -> str:
        """The To with a tag (RFC 3261, 8.2.6.2)."""
        if line.lower().startswith("to:") and ";tag=" not in line:
            return f"{line.rstrip()};tag={self._name}\r\n"
        return line
