"""Questions to rtpengine in its ng protocol: bencoded, over TCP, for an answer may be larger than a datagram."""

import os
import socket
from types import TracebackType
from typing import Any, Self

from sipward.rpc import UnreachableError
from sipward.settings import Control

type Value = dict[str, Any] | list[Any] | int | str


class Engine:
    """A connection to one rtpengine. A context manager; all it does may raise UnreachableError."""

    def __init__(self, control: Control, timeout: float = 2.0) -> None:
        """`timeout`: in seconds, of each answer."""
        self._control = control
        try:
            self._socket = socket.create_connection((str(control.address), control.port), timeout)
        except OSError as error:
            raise self._unreachable(error) from None

    def __enter__(self) -> Self:
        """Go on with the connection."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self._socket.close()

    def calls(self) -> list[str]:
        """The names of all calls (`media.call_name`)."""
        return list(self._ask({"command": "list", "limit": 1_000_000})["calls"])

    def query(self, call: str) -> dict[str, Any] | None:
        """All that it knows of a call; None when it has ended meanwhile."""
        answer = self._ask({"command": "query", "call-id": call})
        return answer if answer["result"] == "ok" else None

    def _ask(self, question: dict[str, Value]) -> dict[str, Any]:
        cookie = os.urandom(4).hex().encode()
        answer = b""
        try:
            self._socket.sendall(cookie + b" " + encode(question))
            while True:
                data = self._socket.recv(65536)
                if not data:
                    raise OSError("it has closed the connection")
                answer += data
                found = decoded(answer.partition(b" ")[2])
                if found is not None:
                    return found
        except OSError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: OSError) -> UnreachableError:
        return UnreachableError(f"rtpengine at {self._control}: {error}")


def encode(value: Value) -> bytes:
    """A value as bencode."""
    match value:
        case dict():
            return b"d" + b"".join(encode(key) + encode(value[key]) for key in sorted(value)) + b"e"
        case list():
            return b"l" + b"".join(map(encode, value)) + b"e"
        case int():
            return b"i%de" % value
        case str():
            data = value.encode()
            return b"%d:%b" % (len(data), data)


def decoded(text: bytes) -> dict[str, Any] | None:
    """A dictionary from bencode; None while there is more of it to come."""
    try:
        value, _ = _decode(text, 0)
    except (IndexError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _decode(text: bytes, at: int) -> tuple[Any, int]:
    """The value that begins there, and where it ends. Raises IndexError or ValueError when it does not end."""
    match text[at]:
        case 0x64 | 0x6C:  # d, l
            values, place = [], at + 1
            while text[place] != 0x65:
                value, place = _decode(text, place)
                values.append(value)
            if text[at] == 0x6C:
                return values, place + 1
            return dict(zip(values[::2], values[1::2], strict=True)), place + 1
        case 0x69:  # i
            end = text.index(b"e", at)
            return int(text[at + 1 : end]), end + 1
        case _:
            colon = text.index(b":", at)
            end = colon + 1 + int(text[at:colon])
            if end > len(text):
                raise IndexError
            return text[colon + 1 : end].decode(errors="replace"), end
