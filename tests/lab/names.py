"""A name server of the lab's own: what it has can change, and it can fall silent."""

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

from dns import flags, rcode
from dns.exception import DNSException
from dns.message import QueryMessage, from_wire, make_response
from dns.rdatatype import to_text
from dns.rrset import from_text

from lab.network import Machine


class NameServer:
    """UDP, port 53 of a machine. A context manager.

    `records`: `name TYPE` -> the records' texts, as a zone file has them; what is not there does not exist.
    """

    def __init__(self, machine: Machine, records: Mapping[str, Sequence[str]], lifetime: int = 1) -> None:
        self.records = dict(records)
        self.is_silent = False
        self._lifetime = lifetime
        self._socket = machine.socket()
        self._socket.bind((machine.address, 53))
        self._thread = threading.Thread(target=self._serve, name="name server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                data, sender = self._socket.recvfrom(4096)
                if not data:
                    return
                with suppress(DNSException):
                    answer = self._answer(from_wire(data))
                    if not self.is_silent:
                        self._socket.sendto(answer, sender)

    def _answer(self, query: object) -> bytes:
        assert isinstance(query, QueryMessage)
        answer = make_response(query)
        answer.flags |= flags.AA | flags.RA
        asked = query.question[0]
        kind = to_text(asked.rdtype)
        name = asked.name.to_text(omit_final_dot=True)
        if texts := self.records.get(f"{name} {kind}"):
            answer.answer.append(from_text(asked.name, self._lifetime, "IN", kind, *texts))
        elif not any(known.startswith(f"{name} ") for known in self.records):
            answer.set_rcode(rcode.NXDOMAIN)
        return answer.to_wire()
