"""A SIP message read from the wire, and a TCP stream cut into messages."""

import re
from dataclasses import dataclass
from functools import cached_property

from lab.packets import Address

_START = re.compile(rb"(SIP/2\.0 \d{3}|[A-Z]{3,12} \S+ SIP/2\.0\r?$)", re.MULTILINE)
_COMPACT = {"via": "v", "from": "f", "to": "t", "call-id": "i", "contact": "m", "content-length": "l",
            "content-type": "c", "supported": "k", "refer-to": "r", "event": "o"}  # fmt: skip


@dataclass(frozen=True)
class Message:
    """A SIP message at one place: `machine` and `direction` (in, out, or lo for the loopback) say where it was seen.

    `time` is the kernel's clock at the cable, in seconds of `time.time()`.
    """

    time: float
    machine: str
    interface: str
    direction: str
    transport: str
    source: Address
    destination: Address
    text: str

    @cached_property
    def first_line(self) -> str:
        return self.text.partition("\r\n")[0]

    @cached_property
    def status(self) -> int | None:
        """The status code, or None for a request."""
        return int(self.first_line[8:11]) if self.first_line.startswith("SIP/2.0 ") else None

    @cached_property
    def method(self) -> str:
        """The method of the request, or of the request this answers (from its CSeq)."""
        return self.first_line.split(" ")[0] if self.status is None else self.header("CSeq").split()[-1]

    @property
    def uri(self) -> str:
        """The request URI; empty for a response."""
        return "" if self.status else self.first_line.split(" ")[1]

    @cached_property
    def head(self) -> str:
        return self.text.partition("\r\n\r\n")[0]

    @cached_property
    def body(self) -> str:
        return self.text.partition("\r\n\r\n")[2]

    def headers(self, name: str) -> list[str]:
        """All values of a header, in order, compact forms included; several in one line stay together."""
        names = "|".join(re.escape(n) for n in (name, _COMPACT.get(name.lower(), "")) if n)
        return re.findall(rf"^(?:{names})[ \t]*:[ \t]*(.*?)\r?$", self.head, re.MULTILINE | re.IGNORECASE)

    def header(self, name: str) -> str:
        """The first value of a header; empty when there is none."""
        return next(iter(self.headers(name)), "")

    @property
    def call_id(self) -> str:
        return self.header("Call-ID")

    @property
    def media(self) -> Address | None:
        """Where the SDP wants the first audio stream; None without SDP."""
        line = re.search(r"^m=audio (\d+)", self.body, re.MULTILINE)
        if not line:
            return None
        addresses: list[str] = re.findall(r"^c=IN IP[46] (\S+)", self.body, re.MULTILINE)
        _, _, media = self.body.partition("m=audio")
        own = re.search(r"^c=IN IP[46] (\S+)", media, re.MULTILINE)
        return Address(own[1] if own else addresses[0], int(line[1]))

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination} {self.transport} {self.first_line}"


def looks_like_sip(data: bytes) -> bool:
    """Whether bytes begin as a SIP request or response does."""
    return bool(_START.match(data))


def cut(buffer: bytearray) -> list[bytes]:
    """Take the complete messages off the front of a TCP stream (RFC 3261, 18.3); keep-alive CRLFs are passed over."""
    messages: list[bytes] = []
    while True:
        while buffer.startswith((b"\r", b"\n")):
            del buffer[:1]
        head = buffer.find(b"\r\n\r\n")
        if head < 0:
            return messages
        length = re.search(rb"^(?:content-length|l)[ \t]*:[ \t]*(\d+)", buffer[:head], re.MULTILINE | re.IGNORECASE)
        size = head + 4 + (int(length[1]) if length else 0)
        if len(buffer) < size:
            return messages
        messages.append(bytes(buffer[:size]))
        del buffer[:size]
