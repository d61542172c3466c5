"""What the running node would do with a request: the very decision, made from the very table, told in words.

Limits are left out: whether one is reached is a matter of the moment.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sipward import edge, media, render, rpc
from sipward.decision import Answer, Relay, Request
from sipward.edge import Edge
from sipward.hosts import parse_address
from sipward.live import Live
from sipward.model import Endpoint, Side, Socket
from sipward.routing import Router
from sipward.seal import Sealer
from sipward.settings import Settings
from sipward.uri import Uri, parse


class ExplainError(Exception):
    """The question cannot be understood, or there is no running node to answer it."""


class Question(NamedTuple):
    """A request outside any dialog. `headers`: values by name in lower case."""

    source: Endpoint
    uri: Uri
    method: str = "INVITE"
    caller: Uri | None = None
    headers: Mapping[str, str] = {}


def read(source: str, transport: str, to: str, method: str, caller: str, headers: Mapping[str, str]) -> Question:
    """Understand a question as it is typed. Raises ExplainError."""
    uri = parse(to, tel=True)
    if uri is None:
        raise ExplainError(f"--to = {to}: must be a sip, sips or tel URI")
    sender = parse(caller) if caller else None
    if caller and sender is None:
        raise ExplainError(f"--caller = {caller}: must be a sip or sips URI")
    if transport not in {"udp", "tcp"}:
        raise ExplainError(f"--transport = {transport}: must be udp or tcp")
    return Question(_endpoint(source, transport), uri, method.upper(), sender, headers)


def _endpoint(text: str, transport: str) -> Endpoint:
    there = Uri("sip", "", text if text.count(":") < 2 or text.startswith("[") else f"[{text}]")
    try:
        return Endpoint(transport, str(parse_address(there.host)), there.port)
    except ValueError:
        raise ExplainError(f"--from = {text}: must be ADDRESS or ADDRESS:PORT (IPv6 with a port in brackets)") from None


def explain(settings: Settings, question: Question) -> dict[str, Any]:
    """Side, and either where it would go and how, or the answer it would get. Raises ExplainError."""
    run = render.run_dir(settings)
    try:
        node = edge.load(run / "edge.json", settings.state_dir / "keys")
    except OSError:
        raise ExplainError(f"no node runs in {settings.state_dir} (state_dir)") from None
    memory = rpc.memory(run)
    if memory is None:
        raise ExplainError(f"no node runs in {settings.state_dir} (state_dir)")

    return told(node, Live(memory), question)


def told(node: Edge, live: Live, question: Question) -> dict[str, Any]:
    """What a node with this table does."""
    on = node.socket_for(node.network_of(question.source.host), question.source)
    side = node.side_of(on, question.source) if on else None
    if on is None or side is None:
        return {"side": "none", "decision": "the node has no address of this family and transport there"}
    request = _request(question, side)
    decision = Router(node, Sealer(node.keys), live).route(request)
    found: dict[str, Any] = {"side": str(side), "on": str(on.local)}
    match decision:
        case Answer(code, reason, why, retry_after):
            return found | {
                "decision": "answer",
                "code": code,
                "reason": reason,
                "why": why,
                "retry_after": retry_after,
            }
        case Relay():
            return found | _way(node, request, decision)


def _request(question: Question, side: Side) -> Request:
    return Request(
        method=question.method,
        side=side,
        source=question.source,
        call_id="explain",
        uri=question.uri,
        caller=question.caller,
        callee=question.uri,
        contact_port=question.source.port,
        route=None,
        in_dialog=False,
        has_sdp=question.method == "INVITE",
        via_port=question.source.port,
        header=lambda name: question.headers.get(name, ""),
    )


def _way(node: Edge, request: Request, relay: Relay) -> dict[str, Any]:
    socket = node.socket_for(relay.to, relay.targets[0], relay.dialog.port)
    return {
        "decision": "relay",
        "to": str(relay.to),
        "tenant": relay.dialog.tenant,
        "trunk": relay.dialog.trunk,
        "rule": relay.rule,
        "targets": [str(target) for target in relay.targets],
        "uri": str(relay.uri or request.uri),
        "socket": _socket(relay, socket),
        "media": _profile(request, relay, socket) if request.has_sdp and socket else "",
    }


def _socket(relay: Relay, socket: Socket | None) -> str:
    if relay.holder and not relay.dialog.port:
        return "a port of its own (trunks.own_ports) that it has not been given yet"
    return str(socket.local) if socket else "none of this family and transport"


def _profile(request: Request, relay: Relay, socket: Socket) -> str:
    """What rtpengine is told of an offer, but for the call's name."""
    flags = media.offer("", request.side, relay.to, socket.is_ipv6, relay.dialog.fixed)
    return flags.partition(" ")[2]
