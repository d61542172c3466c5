"""Questions to the running components: Kamailio's JSON-RPC and rtpengine's ng protocol, each one datagram and back."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sipward.settings import Control

_ANSWER_MAX = 1 << 20


class UnreachableError(Exception):
    """The component did not answer."""


def kamailio(run: Path, method: str, *params: object, timeout: float = 1.0) -> Any:
    """Call a Kamailio RPC command; returns its result. Raises UnreachableError, or ValueError when refused."""
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    with _own_address(run) as own, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asker:
        try:
            asker.bind(own)
            asker.settimeout(timeout)
            asker.sendto(request.encode(), str(run / "kamailio.rpc"))
            answer = json.loads(asker.recv(_ANSWER_MAX))
        except OSError as error:
            raise UnreachableError(f"kamailio: {error}") from None
    if "error" in answer:
        raise ValueError(answer["error"]["message"])
    return answer["result"]


def memory(run: Path) -> Callable[[str, str], str | None] | None:
    """Read the running node's shared memory: an entry by htable and key, as `live.Live` wants it; None: no node runs.

    What is returned raises UnreachableError when the node has ended meanwhile.
    """

    def get(table: str, key: str) -> str | None:
        try:
            return str(kamailio(run, "htable.get", table, key)["item"]["value"])
        except ValueError:
            return None

    try:
        kamailio(run, "core.uptime")
    except UnreachableError:
        return None
    return get


def rtpengine_is_alive(control: Control, timeout: float = 0.5) -> bool:
    """Ping rtpengine."""
    family = socket.AF_INET6 if control.address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        try:
            asker.settimeout(timeout)
            asker.connect((str(control.address), control.port))
            asker.send(b"sipward d7:command4:pinge")
            return b"pong" in asker.recv(1024)
        except OSError:
            return False


def listens(place: Control, timeout: float = 0.5) -> bool:
    """Whether somebody takes TCP connections there."""
    try:
        with socket.create_connection((str(place.address), place.port), timeout):
            return True
    except OSError:
        return False


@contextmanager
def _own_address(run: Path) -> Iterator[str]:
    own = run / f"ask-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        yield str(own)
    finally:
        own.unlink(missing_ok=True)
