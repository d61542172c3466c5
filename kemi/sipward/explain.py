"""What the running node would do with a request: the very decision, made from the very table, told in words.

Limits are left out: whether one is reached is a matter of the moment.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sipward import edge, media, render, rpc
from sipward.decision import Answer, Relay, Request
from sipward.edge import Edge
from sipward.flow import LOOPED, NO_SOCKET
from sipward.hosts import parse_address
from sipward.inward import Inward
from sipward.live import HEALTH, RESTING, Live
from sipward.media import OFFERING
from sipward.model import Endpoint, Side, Socket
from sipward.problems import show
from sipward.routing import Router
from sipward.seal import Sealer
from sipward.settings import Settings
from sipward.uri import Uri, name_addrs, parse

type Get = Callable[[str, str], str | None]
"""Reads an entry of the node's shared memory, by htable and key."""

_PLACE = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_TOKEN = re.compile(r"[A-Za-z0-9.!%*_+`'~-]+")
_SIP_PORT = 5060


class QuestionError(Exception):
    """The question cannot be understood: one line that names the field, its value and what is allowed."""


class NoNodeError(Exception):
    """There is no running node to answer."""


class Question(NamedTuple):
    """A request outside any dialog. `headers`: values by name in lower case."""

    source: Endpoint
    uri: Uri
    method: str = "INVITE"
    caller: Uri | None = None
    headers: Mapping[str, str] = {}
    has_sdp: bool = True


def read(
    source: str,
    to: str,
    *,
    transport: str = "udp",
    method: str = "INVITE",
    caller: str = "",
    headers: Iterable[str] = (),
    sdp: bool = True,
) -> Question:
    """Understand a question as it is typed; a header is `NAME=VALUE`. Raises QuestionError."""
    uri, sender = parse(to, tel=True), parse(caller, tel=True)
    if uri is None:
        raise QuestionError(f"--to = {show(to)}: must be a sip, sips or tel URI")
    if caller and sender is None:
        raise QuestionError(f"--caller = {show(caller)}: must be a sip, sips or tel URI")
    if transport not in {"udp", "tcp", "tls"}:
        raise QuestionError(f"--transport = {show(transport)}: must be udp, tcp or tls")
    if not _TOKEN.fullmatch(method):
        raise QuestionError(f"--method = {show(method)}: must be a SIP method, such as INVITE")
    # Nobody's instance is found by a telephone number as the caller.
    of = sender if sender and sender.scheme != "tel" else None
    return Question(_endpoint(source, transport), uri, method.upper(), of, dict(map(_header, headers)), sdp)


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not _TOKEN.fullmatch(name):
        raise QuestionError(f"--header = {show(text)}: must be NAME=VALUE")
    return name.lower(), value


def _endpoint(text: str, transport: str) -> Endpoint:
    match = _PLACE.fullmatch(text)
    host = (match["bracketed"] or match["plain"]) if match else text
    port = int((match and match["port"]) or _SIP_PORT)
    try:
        address = str(parse_address(host))
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        allowed = "ADDRESS or ADDRESS:PORT (IPv6 with a port in brackets)"
        raise QuestionError(f"--from = {show(text)}: must be {allowed}")
    return Endpoint(transport, address, port)


def explain(settings: Settings, question: Question) -> dict[str, Any]:
    """What the running node would do: see `told`. Raises NoNodeError."""
    run = render.run_dir(settings)
    memory = rpc.memory(run)
    if memory is None:
        raise NoNodeError(f"no node runs in {settings.state_dir} (state_dir)")
    try:
        return told(edge.load(run / "edge.json", settings.state_dir / "keys"), memory, question)
    except rpc.UnreachableError:
        raise NoNodeError(f"no node runs in {settings.state_dir} (state_dir) any more") from None


def told(node: Edge, get: Get, question: Question) -> dict[str, Any]:
    """What a node with this shared memory does: the side, and the way a request goes or the answer it gets.

    `trunks` names those that it comes by, each with the number that it is taken to have dialled; `down` the instances
    that are left out and the targets that are the last choice, each with the reason.
    """
    on = node.socket_for(node.network_of(question.source.host), question.source)
    side = node.side_of(on, question.source) if on else None
    if on is None or side is None:
        return {"side": "none", "decision": "the node has no address of this family and transport there"}
    down: list[str] = []

    def watched(table: str, key: str) -> str | None:
        value = get(table, key)
        if value is not None and table in {HEALTH, RESTING}:
            down.append(f"{key} ({value})")
        return value

    live, sealer, request = Live(watched), Sealer(node.keys), _request(question, side)
    decision = LOOPED if node.is_own_socket(request.source) else Router(node, sealer, live).route(request)
    found = {"side": str(side), "on": str(on.local), "trunks": _trunks(Inward(node, sealer, live), live, request)}
    return found | _outcome(node, live, request, decision) | {"down": down}


def _request(question: Question, side: Side) -> Request:
    """As it would arrive: what a header does not say is as most would write it."""
    headers = {"to": f"<{question.uri}>", **question.headers}
    callee, contact = _address(headers["to"]), _address(headers.get("contact", ""))
    return Request(
        method=question.method,
        side=side,
        source=question.source,
        call_id="explain",
        uri=question.uri,
        caller=question.caller,
        callee=callee,
        contact_port=contact.port if contact else question.source.port,
        route=None,
        in_dialog=False,
        has_sdp=question.has_sdp and question.method in OFFERING,
        via_port=question.source.port,
        header=lambda name: headers.get(name, ""),
    )


def _address(value: str) -> Uri | None:
    address = next(name_addrs(value), None)
    return parse(address.uri) if address else None


def _trunks(inward: Inward, live: Live, request: Request) -> list[str]:
    if request.side is Side.SERVICE:
        return []
    return [f"{trunk.name} ({inward.dialled(request, trunk) or '-'})" for trunk in live.trunks_from(request.source)]


def _outcome(node: Edge, live: Live, request: Request, decision: Answer | Relay) -> dict[str, Any]:
    if isinstance(decision, Relay):
        if socket := node.socket_for(decision.to, decision.targets[0], decision.dialog.port):
            terms = media.terms(decision.dialog, live.named(decision.dialog.tenant), decision.to)
            return _way(request, decision, _shown(decision, socket), socket.is_ipv6, terms)
        decision = NO_SOCKET
    return {"decision": "answer", **decision._asdict()}


def _shown(relay: Relay, socket: Socket) -> str:
    if relay.holder and not relay.dialog.port:
        return "a port of its own (trunks.own_ports) that it has not been given yet"
    return str(socket.local)


def _way(request: Request, relay: Relay, socket: str, ipv6: bool, terms: media.Terms) -> dict[str, Any]:
    dialog, profile = relay.dialog, ""
    if request.has_sdp:
        # What rtpengine is told of an offer, but for the call's name.
        profile = media.offer("", request.side, relay.to, ipv6, dialog.fixed, terms).partition(" ")[2]
    return {
        "decision": "relay",
        "to": str(relay.to),
        "tenant": dialog.tenant,
        "trunk": dialog.trunk,
        "rule": relay.rule,
        "targets": list(map(str, relay.targets)),
        "uri": str(relay.uri or request.uri),
        "socket": socket,
        "media": profile,
    }
