"""A stand-in for `sipward.kamailio`: holds one message and its transaction, and records the verbs used on it."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import cast
from zlib import crc32

from sipward import sdp
from sipward.decision import Request
from sipward.edge import Edge
from sipward.live import HEALTH, TABLE, encode
from sipward.model import Endpoint, Instance, Side, Socket, Srtp, Tenant
from sipward.uri import Uri, parse, split_list

PUBLIC = Socket(Side.OUTSIDE, Endpoint("udp", "203.0.113.10", 5060), "203.0.113.10")
PUBLIC_TCP = Socket(Side.OUTSIDE, Endpoint("tcp", "203.0.113.10", 5060), "203.0.113.10")
INNER = Socket(Side.SERVICE, Endpoint("udp", "10.5.4.1", 5060), "10.5.4.1")
INNER_TCP = Socket(Side.SERVICE, Endpoint("tcp", "10.5.4.1", 5060), "10.5.4.1")
PUBLIC6 = Socket(Side.OUTSIDE, Endpoint("udp", "2001:db8::10", 5060), "2001:db8::10")
OWN = Socket(Side.OUTSIDE, Endpoint("udp", "203.0.113.10", 5100), "203.0.113.10")
"""For one registration at a carrier."""
SOCKETS = (PUBLIC, PUBLIC_TCP, INNER, INNER_TCP, PUBLIC6, OWN)
KEY = b"k" * 32
RELAY = "203.0.113.77"
"""Where rtpengine takes RTP, for either side."""

NEEDED = frozenset({"via", "from", "to", "call-id", "cseq", "max-forwards", "contact", "route", "record-route"}) | {
    "content-type", "content-length", "expires", "rseq", "retry-after", "www-authenticate", "proxy-authenticate"
}  # fmt: skip
"""What `keep_needed_headers` leaves of a reply: what Kamailio keeps by itself, and what the verb names."""

PHONE = Endpoint("udp", "198.51.100.7", 40123)
LAN_PHONE = Endpoint("udp", "192.168.1.20", 5060)
PBX = Endpoint("udp", "10.5.4.11", 5080)
PBX2 = Endpoint("udp", "10.5.4.12", 5080)
RIVAL = Endpoint("udp", "10.5.4.21", 5080)

ACME = Tenant("acme", (Instance(PBX),), domain="acme.example")
GLOBEX = Tenant("globex", (Instance(RIVAL),), domain="globex.example")


def edge(**changes: object) -> Edge:
    """A node with a public and a service address; `changes` replace arguments of `Edge`."""
    arguments: dict[str, object] = {
        "sockets": SOCKETS,
        "service_networks": ["10.5.4.0/24", "fd00:5:4::/64"],
        "local_networks": ["192.168.0.0/16"],
        "names": ["edge.example"],
        "keys": [KEY],
        "instance_timeout": 2000,
        "own_ports": [OWN.local.port],
    }
    return cast("Callable[..., Edge]", Edge)(**(arguments | changes))


def table(*tenants: Tenant) -> dict[str, str]:
    """The live table: each tenant by its domain and by its key."""
    return {key: encode(tenant) for tenant in tenants for key in (tenant.domain, f"@{tenant.name}")}


class Recorder:
    """One worker's Kamailio with one message in it. What a test wants to go wrong is an attribute to set."""

    def __init__(self, text: str, source: Endpoint = PHONE, on: Socket = PUBLIC) -> None:
        self.verbs: list[tuple[object, ...]] = []
        self.avps: dict[str, str] = {}
        self.table = table(ACME, GLOBEX)
        self.memory: dict[tuple[str, str], str] = {}
        self.kept_for: dict[tuple[str, str], int] = {}
        self.expired = ""
        self.counted: list[str] = []
        self.logged: list[str] = []
        self.sane = True
        self.loaded = True
        self.absorbed = -1
        self.prechecked = False
        self.known_transaction = True
        self.sendable = True
        self.refusing: frozenset[Endpoint] = frozenset()
        self.media_works = True
        self.rewritten = ""
        self.cancelled = False
        self.failed: tuple[int, bool] = (408, True)
        self.arrives(text, source, on)

    @property
    def module(self) -> ModuleType:
        """The recorder as what `Flow` and `Concealment` want."""
        return cast("ModuleType", self)

    def arrives(self, text: str, source: Endpoint, on: Socket) -> None:
        """Let another message of the same transaction arrive."""
        head, _, self.content = text.partition("\r\n\r\n" if "\r\n\r\n" in text else "\n\n")
        self.start, *lines = re.split(r"\n(?![ \t])", head.replace("\r\n", "\n"))
        self.fields = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.from_, self.on = source, on
        self.new_uri: str | None = None

    def did(self, verb: str) -> list[tuple[object, ...]]:
        """The arguments of each use of a verb."""
        return [arguments for name, *rest in self.verbs if name == verb for arguments in [tuple(rest)]]

    @property
    def down(self) -> dict[str, str]:
        """Which endpoints are marked, and why."""
        return {key: why for (table, key), why in self.memory.items() if table == HEALTH}

    @property
    def relayed(self) -> bool:
        """Whether the message was sent on."""
        return bool(self.did("relay"))

    # --- facts -------------------------------------------------------------------------------------------------

    def method(self) -> str:
        if self.start.startswith("SIP/2.0"):
            return self.header("CSeq").split()[1]
        return self.start.split(" ")[0]

    def call_id(self) -> str:
        return self.header("Call-ID")

    def source(self) -> Endpoint:
        return self.from_

    def received_on(self) -> int:
        return [socket.local for socket in SOCKETS].index(self.on.local)

    def request(self, side: Side, sender: Endpoint, own_route: Uri | None, call_id: str) -> Request | None:
        uri = parse(self.start.split(" ")[1], tel=True)
        if uri is None:
            return None
        in_dialog = ";tag=" in self.header("To")
        inner = side is Side.SERVICE
        return Request(
            self.method(),
            side,
            sender,
            call_id,
            uri,
            caller=None if in_dialog else self._address("From"),
            callee=None if in_dialog else self._address("To"),
            contact_port=self._port("Contact") if inner else 0,
            via_port=self._port("Via") if inner else 0,
            route=own_route,
            in_dialog=in_dialog,
            has_sdp=self.has_sdp(),
            media=crc32(self.header("Via").encode()) if self.method() == "INVITE" else 0,
            header=self.header,
            srtp=sdp.srtp(self.content) if self.method() == "INVITE" and not in_dialog and self.has_sdp() else Srtp.OFF,
        )

    def routes(self) -> list[str]:
        return [value for text in self.headers("Route") for value in split_list(text)]

    def record_routes(self) -> list[str]:
        return [value for text in self.headers("Record-Route") for value in split_list(text)]

    def contacts(self) -> list[str]:
        return self.headers("Contact")

    def source_host(self) -> str:
        return self.from_.host

    def contact(self) -> str:
        return self.contacts()[0].strip("<>") if self.contacts() else ""

    def buffer(self) -> str:
        head = "\r\n".join([self.start, *(f"{name}: {value}" for name, value in self.fields)])
        return f"{head}\r\n\r\n{self.content}"

    def has_sdp(self) -> bool:
        if self.content_type().startswith("multipart/"):
            return "application/sdp" in self.content
        return self.content_type().startswith("application/sdp") and bool(self.content)

    def content_type(self) -> str:
        return self.header("Content-Type")

    def body(self) -> str:
        return self.content

    def uri(self) -> str:
        return self.start.split(" ")[1]

    def status(self) -> int:
        return int(self.start.split(" ")[1])

    def is_sane(self) -> bool:
        return self.sane

    def has_bare_cr(self) -> bool:
        return "\r" in self.buffer().partition("\r\n\r\n")[0].replace("\r\n", "")

    def forwards_left(self) -> bool:
        return self.header("Max-Forwards") != "0"

    def is_cancelled(self) -> bool:
        return self.cancelled

    def failure(self) -> tuple[int, bool]:
        return self.failed

    # --- changes -----------------------------------------------------------------------------------------------

    def set_uri(self, uri: Uri) -> None:
        self.new_uri = str(uri)

    def set_routes(self, values: list[str]) -> None:
        self._set("Route", [", ".join(values)] if values else [])

    def set_call_id(self, value: str) -> None:
        self._set("Call-ID", [value])

    def set_record_routes(self, values: list[str]) -> None:
        self._set("Record-Route", [", ".join(values)] if values else [])

    def set_contacts(self, values: list[str]) -> None:
        self._set("Contact", [", ".join(values)] if values else [])

    def keep_needed_headers(self) -> None:
        self.fields = [(name, value) for name, value in self.fields if name.lower() in NEEDED]

    def remove_header(self, name: str) -> None:
        self._set(name, [])

    def add_headers(self, lines: str) -> None:
        fields = [line.partition(": ") for line in lines.split("\r\n") if line]
        self.fields += [(name, value) for name, _, value in fields]

    def replace_header(self, name: str, values: list[str]) -> None:
        self._set(name, values)

    def record_route(self, hostport: str, params: str) -> None:
        self.fields.insert(0, ("Record-Route", f"<sip:{hostport}{params};lr>"))

    def set_buffer(self, text: str) -> None:
        self.verbs.append(("set_buffer", text))
        self.arrives(text, self.from_, self.on)

    def mask_vias(self, only: str, count: int) -> None:
        vias = [index for index, (name, _) in enumerate(self.fields) if name == "Via"]
        assert len(vias) == count
        self.fields[vias[0]] = ("Via", only)
        for index in reversed(vias[1:]):
            del self.fields[index]

    def restore_vias(self, values: list[str]) -> None:
        self._set("Via", [self.header("Via"), *values])

    def set_body(self, text: str, kind: str) -> None:
        self.content = text
        self._set("Content-Type", [kind])

    def remove_body(self) -> None:
        self.content = ""

    def pretend_source(self, socket: Socket, shown: str) -> None:
        self.verbs.append(("pretend_source", shown))

    def renew_uri(self) -> None:
        self.verbs.append(("renew_uri",))

    def aim(self, target: Endpoint, socket: int, known_as: str = "") -> None:
        self.verbs.append(("aim", target, SOCKETS[socket], *([known_as] if known_as else [])))

    def answer_to_source(self) -> None:
        self.verbs.append(("answer_to_source",))

    def only_over_open_connection(self) -> None:
        self.verbs.append(("only_over_open_connection",))

    # --- transactions, media, shared memory --------------------------------------------------------------------

    def is_known_transaction(self) -> bool:
        return self.known_transaction

    def precheck_transaction(self) -> bool:
        return self.prechecked

    def absorb(self) -> int:
        self.verbs.append(("absorb",))
        return self.absorbed

    def new_transaction(self) -> bool:
        self.verbs.append(("new_transaction",))
        return True

    def relay(self, timeout: int = 0) -> bool:
        self.verbs.append(("relay", timeout))
        return self.sendable and not any(target in self.refusing for target, _ in self.did("aim")[-1:])

    def keep_unsent(self) -> None:
        self.verbs.append(("keep_unsent",))

    def mark_down(self, end: Endpoint, why: str) -> None:
        self.memory[HEALTH, str(end)] = why

    def wait_longer(self, timeout: int) -> None:
        self.verbs.append(("wait_longer", timeout))

    def watch(self, failures: bool) -> None:
        self.verbs.append(("watch", failures))

    def drop_reply(self) -> None:
        self.verbs.append(("drop_reply",))

    def answer(self, code: int, reason: str, headers: str = "") -> None:
        self.verbs.append(("answer", code, headers))

    def answer_failure(self, code: int, reason: str, headers: str = "") -> None:
        self.verbs.append(("answer_failure", code, headers))

    def remember(self, name: str, value: str) -> None:
        self.avps[name] = value

    def recall(self, name: str) -> str:
        return self.avps.get(name, "")

    def media_offer(self, flags: str, description: str) -> str | None:
        self.verbs.append(("media_offer", flags, description))
        return self._rewritten(description)

    def media_answer(self, flags: str, description: str) -> str | None:
        self.verbs.append(("media_answer", flags, description))
        return self._rewritten(description)

    def media_delete(self, flags: str) -> bool:
        self.verbs.append(("media_delete", flags))
        return self.media_works

    def look_up(self, table: str, key: str) -> str | None:
        return self.table.get(key) if table == TABLE else self.memory.get((table, key))

    def store(self, table: str, key: str, value: str) -> None:
        self.memory[table, key] = value

    def store_for(self, table: str, key: str, value: str, seconds: int) -> None:
        self.memory[table, key] = value
        self.kept_for[table, key] = seconds
        self.verbs.append(("store_for", table, key, value, seconds))

    def tell(self, queue: str, key: str, value: str) -> None:
        self.verbs.append(("tell", queue, key, value))

    def erase(self, table: str, key: str) -> None:
        self.memory.pop((table, key), None)

    def locked(self, table: str) -> AbstractContextManager[None]:
        return nullcontext()

    def tally(self, what: str) -> int:
        return self._add("rates", what, 1)

    def enter(self, name: str) -> int:
        return self._add("calls", name, 1)

    def leave(self, name: str) -> int:
        return self._add("calls", name, -1)

    def charge(self, call: str, names: str) -> None:
        self.memory["charges", call] = names

    def charged(self, call: str) -> str:
        return self.memory.get(("charges", call), "")

    def discharge(self, call: str) -> None:
        self.memory.pop(("charges", call), None)

    def forgotten(self) -> str:
        return self.expired

    def _add(self, table: str, key: str, much: int) -> int:
        value = int(self.memory.get((table, key), "0")) + much
        self.memory[table, key] = str(value)
        return value

    def has_routes(self) -> bool:
        return self.loaded

    def count(self, why: str) -> None:
        self.counted.append(why)

    def log(self, text: str) -> None:
        self.logged.append(text)

    def log_error(self, text: str) -> None:
        self.logged.append(text)

    # --- the message's header fields ---------------------------------------------------------------------------

    def headers(self, name: str) -> list[str]:
        """The values of all header fields of a name."""
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def header(self, name: str) -> str:
        """The first value of a header, "" when there is none."""
        return next(iter(self.headers(name)), "")

    def _rewritten(self, sdp: str) -> str | None:
        """What rtpengine makes of a description: `rewritten` if a test asks for it, else one with its own address."""
        taken = self.rewritten or re.sub(r"(?m)^c=IN IP4 [\d.]+", f"c=IN IP4 {RELAY}", sdp)
        return taken if self.media_works else None

    def _address(self, name: str) -> Uri | None:
        return parse(self.header(name).partition("<")[2].partition(">")[0])

    def _port(self, name: str) -> int:
        found = re.search(r":(\d+)[;>]?", self.header(name))
        return int(found[1]) if found else 5060

    def _set(self, name: str, values: list[str]) -> None:
        self.fields = [(field, value) for field, value in self.fields if field.lower() != name.lower()]
        self.fields += [(name, value) for value in values]
