"""A SIP user agent that says exactly what a test writes: forged, odd or rare, where SIPp is too well-bred."""

import itertools
import re
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from lab.eventually import PATIENCE, eventually
from lab.network import Machine
from lab.packets import Address
from lab.sip import Message, cut
from lab.sipp import Transport

_numbers = itertools.count(1)
_BRANCH = "z9hG4bK"
_PING = b"\r\n\r\n"
"""What keeps a NAT's flow alive."""
PROBE = "<sip:health@"
"""In the From of the node's own OPTIONS to an instance."""
_ROUTE = re.compile(r"<[^>]+>[^,<]*")


class Agent:
    """One socket of a machine that speaks SIP to the node. A context manager.

    Over TCP and TLS it connects with its first message. `to` is the node as this machine sees it, unless it is named;
    `host` is the one of the machine's addresses to use, its first unless it is named. `tls` says whom it trusts over
    TLS, anybody unless it is given; `asks_for` is the server name that it asks for.
    """

    def __init__(
        self,
        machine: Machine,
        transport: Transport = "udp",
        *,
        ipv6: bool = False,
        port: int | None = None,
        to: Address | None = None,
        host: str = "",
        tls: ssl.SSLContext | None = None,
        asks_for: str = "",
    ) -> None:
        self.machine = machine
        self.transport = transport
        self.host = host or (machine.address6 if ipv6 else machine.address)
        ipv6 = ":" in self.host
        self.node = to or Address(machine.lab.edge(machine, ipv6=ipv6), 5061 if transport == "tls" else 5060)
        self._tls = tls or (trusting_all() if transport == "tls" else None)
        self._asks_for = asks_for
        self._early: list[Message] = []
        self._probes: list[Message] = []
        self._seen: set[str] = set()
        self._buffer = bytearray()
        self._connected = False
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self.socket = machine.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, kind)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        default = machine.sip_port if transport == "udp" else 0
        self.socket.bind((self.host, default if port is None else port))
        self.port: int = self.socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    @property
    def hostport(self) -> str:
        return str(Address(self.host, self.port))

    @property
    def route(self) -> str:
        """A Route that names the node: a PBX's or phone's outbound proxy setting."""
        return f"<sip:{self.node};transport={self.transport};lr>"

    def contact(self, user: str) -> str:
        """Its Contact URI."""
        return f"sip:{user}@{self.hostport};transport={self.transport}"

    # --- words ----------------------------------------------------------------------------------------------------

    def send(self, text: str | bytes) -> None:
        """Send bytes as they are."""
        data = text.encode() if isinstance(text, str) else text
        if self.transport == "udp":
            self.socket.sendto(data, tuple(self.node))
            return
        self.connect()
        self.socket.sendall(data)

    def connect(self) -> None:
        """Open the connection, unless it is open. Raises ssl.SSLError when the node is not who it should be."""
        if self._connected:
            return
        self.socket.settimeout(PATIENCE)
        self.socket.connect(tuple(self.node))
        if self._tls:
            self.socket = self._tls.wrap_socket(self.socket, server_hostname=self._asks_for or None)
        self._connected = True

    def compose(self, first: str, fields: Sequence[str], body: str = "", via: str = "") -> str:
        """A request: its first line's method and URI, our Via, and the rest as given."""
        via = via or f"SIP/2.0/{self.transport.upper()} {self.hostport};rport;branch={_BRANCH}{next(_numbers)}x"
        kind = ["Content-Type: application/sdp"] if body else []
        lines = [f"{first} SIP/2.0", f"Via: {via}", "Max-Forwards: 70", *fields, *kind, f"Content-Length: {len(body)}"]
        return "\r\n".join(lines) + "\r\n\r\n" + body

    def begin(
        self,
        method: str,
        uri: str,
        *,
        user: str = "alice",
        domain: str = "acme.example",
        headers: Sequence[str] = (),
        body: str = "",
        call_id: str = "",
        routes: Sequence[str] = (),
        contact: str = "",
        to: str = "",
        tag: str = "",
    ) -> "Talk":
        """Send a request outside a dialog; the talk that may come of it. `to`: another URI, or all of To's value."""
        number = next(_numbers)
        talk = Talk(
            self,
            local=f"<sip:{user}@{domain}>;tag={tag or f'l{number}'}",
            remote=to if "<" in to else f"<{to or uri.partition(';')[0]}>",
            call_id=call_id or f"{number}-{time.time_ns():x}",
            target=uri,
            routes=list(routes),
            contact=contact or f"<{self.contact(user)}>",
        )
        talk.send(method, headers=headers, body=body)
        return talk

    def reply(
        self, request: Message, status: int, *, tag: str = "", headers: Sequence[str] = (), body: str = "",
        contact: str = "", routes: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Answer a request. `contact` is a whole Contact value; `routes` replace the Record-Route it came with."""
        self.send(self._answer(request, status, tag, headers, body, contact, routes))

    def _answer(
        self, request: Message, status: int, tag: str, headers: Sequence[str], body: str, contact: str,
        routes: Sequence[str] | None,
    ) -> str:  # fmt: skip
        lines = [f"SIP/2.0 {status} Whatever", *(f"Via: {v}" for v in request.headers("Via"))]
        kept = request.headers("Record-Route") if routes is None else routes
        lines += [f"Record-Route: {value}" for value in kept]
        to = request.header("To")
        lines += [f"From: {request.header('From')}", f"To: {to}" if ";tag=" in to or not tag else f"To: {to};tag={tag}"]
        lines += [f"Call-ID: {request.call_id}", f"CSeq: {request.header('CSeq')}"]
        if contact or (request.method in ("INVITE", "SUBSCRIBE", "UPDATE") and status < 300):
            lines.append(f"Contact: {contact or f'<{self.contact("")}>'.replace('sip:@', 'sip:')}")
        lines += headers
        if body:
            lines.append("Content-Type: application/sdp")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n" + body

    def answer_probe(self, status: int = 200, timeout: float = 5.0) -> None:
        """Answer the node's last OPTIONS that asks whether we are there. They pass unseen by all other words."""
        deadline = time.monotonic() + timeout
        while (message := self._datagram(0.001)) or not self._probes:
            if message:
                self._early.append(message)
            assert time.monotonic() < deadline, f"{self.machine.name} was not asked"
        probe = self._probes[-1]
        self._probes.clear()
        self.socket.sendto(self._answer(probe, status, "h", (), "", "", None).encode(), tuple(probe.source))

    def acknowledge(self, refusal: Message) -> None:
        """ACK a refused INVITE: in its transaction, so with its branch (RFC 3261, 17.1.1.3)."""
        branch = refusal.header("Via").partition("branch=")[2].partition(";")[0]
        fields = [f"{name}: {refusal.header(name)}" for name in ("From", "To", "Call-ID")]
        fields.append(f"CSeq: {refusal.header('CSeq').split()[0]} ACK")
        via = f"SIP/2.0/{self.transport.upper()} {self.hostport};rport;branch={branch}"
        self.send(self.compose(f"ACK {_uri(refusal.header('To'))}", fields, via=via))

    # --- ears -----------------------------------------------------------------------------------------------------

    def receive(self, timeout: float = PATIENCE) -> Message:
        """The next message, whatever it is. TimeoutError when none comes."""
        message = self._early.pop(0) if self._early else self._hear(timeout)
        self._seen.add(message.text)
        return message

    def expect(self, wanted: int | str, timeout: float = PATIENCE) -> Message:
        """The next message that is not a 100 and no retransmission: it must have this status, or this method."""
        message = self._fresh(timeout)
        if message is None:
            ladder = self.machine.lab.wire.ladder_text()
            raise AssertionError(f"{self.machine.name} waits for {wanted}, nothing came\n{ladder}")
        assert _what(message) == wanted, f"{self.machine.name} waits for {wanted}\n{message.text}"
        return message

    def expect_again(self, wanted: int | str, timeout: float = PATIENCE) -> Message:
        """The next message with this status or method, a retransmission or not; others come by themselves meanwhile."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.001, deadline - time.monotonic()))
            if _what(message) == wanted:
                return message

    def has_something(self) -> bool:
        """Whether something new but a 100 has come that was not taken yet."""
        message = self._fresh(0.001)
        if message is None:
            return False
        self._seen.discard(message.text)
        self._early.insert(0, message)
        return True

    def expect_silence(self, seconds: float = 0.3) -> None:
        """Nothing new may come for so long. What has come before may come again: timers repeat what nobody answered."""
        message = self._fresh(seconds)
        assert message is None, f"{self.machine.name} should hear nothing\n{message.text}"

    def _fresh(self, timeout: float) -> Message | None:
        """The next message that is not a 100 and no retransmission; None when there is none in time."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                message = self._early.pop(0) if self._early else self._hear(max(0.001, deadline - time.monotonic()))
            except TimeoutError:
                return None
            if message.status != 100 and message.text not in self._seen:
                self._seen.add(message.text)
                return message

    def _hear(self, timeout: float) -> Message:
        deadline = time.monotonic() + timeout
        while True:
            left = max(0.001, deadline - time.monotonic())
            if self.transport == "udp":
                if message := self._datagram(left):
                    return message
                raise TimeoutError
            self.socket.settimeout(left)
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError("the node has closed the connection")
            self._buffer += data
            heard = [self._message(text, self.node) for text in cut(self._buffer)]
            if self._tls:
                for message in heard:
                    self.machine.lab.wire.overhear(message, self.machine.lab.side(self.host))
            self._early += heard
            if self._early:
                return self._early.pop(0)

    def _datagram(self, timeout: float) -> Message | None:
        """The next datagram that is no probe; those are set aside."""
        deadline = time.monotonic() + timeout
        while True:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data, source = self.socket.recvfrom(65536)
            except TimeoutError:
                return None
            if data == _PING:
                continue
            message = self._message(data, Address(*source[:2]))
            if PROBE not in message.header("From"):
                return message
            self._probes.append(message)

    def _message(self, data: bytes, source: Address) -> Message:
        here = Address(self.host, self.port)
        text = data.decode(errors="surrogateescape")
        return Message(time.time(), self.machine.name, "eth0", "in", self.transport, source, here, text)

    # --- SDP ------------------------------------------------------------------------------------------------------

    def sdp(self, version: int = 1, media: Address | None = None, direction: str = "sendrecv") -> str:
        """A plain SDP with PCMA and DTMF (RFC 4733). Nobody listens at its port, unless `media` is somebody's."""
        media = media or Address(self.host, self.machine.rtp_ports[0])
        family, its = ("IP6" if ":" in host else "IP4" for host in (self.host, media.host))
        return (
            f"v=0\r\no=- 1 {version} IN {family} {self.host}\r\ns=-\r\nc=IN {its} {media.host}\r\nt=0 0\r\n"
            f"m=audio {media.port} RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
            f"a=fmtp:101 0-16\r\na={direction}\r\n"
        )


def trusting_all() -> ssl.SSLContext:
    """A TLS client that looks at nobody's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Listener(Agent):
    """An agent that the node connects to over TCP: a carrier or a PBX. It speaks on the first connection that comes."""

    def __init__(self, machine: Machine, *, host: str = "", port: int | None = None) -> None:
        super().__init__(machine, "tcp", host=host, port=machine.sip_port if port is None else port)
        self._waiting = self.socket
        self._waiting.listen()

    def __exit__(self, *error: object) -> None:
        self._waiting.close()
        super().__exit__(*error)

    def _hear(self, timeout: float) -> Message:
        if not self._connected:
            self._waiting.settimeout(timeout)
            self.socket = self._waiting.accept()[0]
            self._connected = True
        return super()._hear(timeout)


@dataclass
class Talk:
    """A dialog, or what may become one, as one agent keeps it (RFC 3261, 12): tags, route set, remote target."""

    agent: Agent
    local: str
    remote: str
    call_id: str
    target: str
    routes: list[str]
    contact: str
    cseq: int = 0
    branches: dict[str, str] = field(default_factory=dict)

    @classmethod
    def answering(cls, agent: Agent, request: Message, tag: str, contact: str = "") -> "Talk":
        """The callee's end of a dialog that a request begins."""
        return cls(
            agent,
            local=f"{request.header('To')};tag={tag}",
            remote=request.header("From"),
            call_id=request.call_id,
            target=_uri(request.header("Contact")),
            routes=_values(request.headers("Record-Route")),
            contact=contact or f"<{agent.contact('')}>".replace("sip:@", "sip:"),
        )

    def learn(self, reply: Message) -> "Talk":
        """Take the dialog's other half from a reply to the request that began it."""
        self.remote = reply.header("To")
        self.routes = _values(reply.headers("Record-Route"))[::-1]
        self.target = _uri(reply.header("Contact")) or self.target
        return self

    def send(
        self, method: str, *, headers: Sequence[str] = (), body: str = "", cseq: int | None = None, repeat: bool = False
    ) -> None:
        """Send a request of this dialog, routed as RFC 3261, 12.2.1.1 says. `repeat`: with the branch used before."""
        if cseq is None and method not in ("ACK", "CANCEL"):
            self.cseq += 1
        number = self.cseq if cseq is None else cseq
        uri, routes = self.target, self.routes
        if routes and ";lr" not in routes[0]:
            # The next hop is a strict router: it finds itself in the Request-URI.
            uri, routes = _uri(routes[0]), [*routes[1:], f"<{self.target}>"]
        like = "INVITE" if method == "CANCEL" else method
        branch = self.branches.get(like, "") if method == "CANCEL" or repeat else ""
        branch = self.branches[like] = branch or f"{_BRANCH}{next(_numbers)}t"
        fields = [*(f"Route: {route}" for route in routes), f"From: {self.local}", f"To: {self.remote}"]
        fields += [f"Call-ID: {self.call_id}", f"CSeq: {number} {method}"]
        if method not in ("ACK", "BYE", "CANCEL", "PRACK", "MESSAGE"):
            fields.append(f"Contact: {self.contact}")
        via = f"SIP/2.0/{self.agent.transport.upper()} {self.agent.hostport};rport;branch={branch}"
        self.agent.send(self.agent.compose(f"{method} {uri}", [*fields, *headers], body, via))

    def ack(self, body: str = "", cseq: int | None = None, repeat: bool = False) -> None:
        """Acknowledge a 2xx."""
        self.send("ACK", body=body, cseq=cseq, repeat=repeat)

    def hang_up(self, peer: Agent) -> None:
        """BYE, answered by the peer, and its answer taken."""
        self.send("BYE")
        peer.reply(peer.expect("BYE"), 200)
        self.agent.expect(200)


def _what(message: Message) -> int | str:
    """A reply's status, a request's method."""
    return message.method if message.status is None else message.status


def _uri(value: str) -> str:
    """The URI of a name-addr."""
    value = re.sub(r'"(?:\\.|[^"\\])*"', "", value)
    inner = re.search(r"<([^>]+)>", value)
    return inner[1] if inner else value.partition(";")[0].strip()


def _values(headers: Sequence[str]) -> list[str]:
    """The values of a Record-Route, one each."""
    return [value.strip() for text in headers for value in _ROUTE.findall(text)]


def answered_call(
    caller: Agent, callee: Agent, uri: str, *, domain: str = "acme.example", call_id: str = ""
) -> tuple[Talk, Talk]:
    """A call from INVITE to ACK; both ends of it."""
    ours = caller.begin("INVITE", uri, body=caller.sdp(), domain=domain, call_id=call_id)
    invite = callee.expect("INVITE")
    theirs = Talk.answering(callee, invite, "callee")
    callee.reply(invite, 200, tag="callee", body=callee.sdp())
    ours.learn(caller.expect(200)).ack()
    callee.expect("ACK")
    return ours, theirs


def busy_call(
    caller: Agent, callee: Agent, uri: str, *, headers: Sequence[str] = (), to: str = "", routes: Sequence[str] = ()
) -> Message:
    """A call that the callee refuses as busy: the INVITE as it arrived there."""
    caller.begin("INVITE", uri, headers=headers, body=caller.sdp(), to=to, routes=routes)
    invite = callee.expect("INVITE")
    callee.reply(invite, 486, tag="busy")
    callee.expect("ACK")
    caller.acknowledge(caller.expect(486))
    return invite


def refused_call(
    caller: Agent, uri: str, status: int, *, headers: Sequence[str] = (), to: str = "", routes: Sequence[str] = ()
) -> Message:
    """A call that the node refuses: its answer."""
    caller.begin("INVITE", uri, headers=headers, body=caller.sdp(), to=to, routes=routes)
    answer = caller.expect(status)
    caller.acknowledge(answer)
    return answer


def who_got(*agents: Agent) -> tuple[Agent, Agent]:
    """The one of two agents that a message has reached, and the other; waits for one."""
    took = eventually(lambda: next((agent for agent in agents if agent.has_something()), None), what="a message")
    (idle,) = (agent for agent in agents if agent is not took)
    return took, idle


def registered(phone: Agent, registrar: Agent, domain: str, user: str = "alice", contact: str = "") -> str:
    """Register a phone; the Contact under which its PBX knows it."""
    phone.begin(
        "REGISTER", f"sip:{domain}", user=user, domain=domain, contact=contact or f"<{phone.contact(user)}>;expires=60"
    )
    request = registrar.expect("REGISTER")
    registrar.reply(request, 200, tag="r", contact=request.header("Contact"))
    phone.expect(200)
    return _uri(request.header("Contact"))
