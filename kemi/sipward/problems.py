"""What pydantic found wrong, as lines for people: `key = value: what is allowed`."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

_SHOWN = 80


def refuse(allowed: str, key: str = "") -> PydanticCustomError:
    """Make the error a validator raises; `key` (dotted, below the field validated) names what it is really about."""
    # Braces would be read as the template's fields: the text goes in as a value.
    return PydanticCustomError("refused", "{allowed}", {"allowed": allowed, "key": key})


def within[N: (int, float)](low: N, high: N) -> Callable[[N], N]:
    """Make the validator of a bounded number; both ends are named when it refuses."""

    def check(value: N) -> N:
        if not low <= value <= high:
            raise refuse(f"must be {low} to {high}")
        return value

    return check


def show(value: object) -> str:
    """Write a value on one line, shortened, with control characters escaped."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def lines(error: ValidationError, secret: Sequence[str] = ()) -> Iterator[str]:
    """One line a problem. Values at the keys `secret` and below them are not shown."""
    for detail in error.errors(include_url=False):
        key = _key(detail)
        hidden = any(f"{key}.".startswith(f"{one}.") for one in secret)
        yield _line(key, detail, None if hidden else show(detail["input"]))


def _key(detail: ErrorDetails) -> str:
    text = ""
    for part in detail["loc"]:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{printable(part)}" if text else printable(part)
    below = str(detail.get("ctx", {}).get("key", ""))
    return ".".join(part for part in (text, below) if part) or "value"


def reason(detail: ErrorDetails) -> str:
    """What is wrong with one field."""
    match detail["type"]:
        case "extra_forbidden":
            return "unknown, no such field"
        case "missing":
            return "missing, it must be given"
        case "model_type" | "dict_type":
            return "must be a table of fields"
        case _:
            return _message(detail)


def _line(key: str, detail: ErrorDetails, value: str | None) -> str:
    is_of_value = detail["type"] not in {"extra_forbidden", "missing", "model_type", "dict_type"}
    if value is None or not is_of_value or _is_container(detail["input"]):
        return f"{key}: {reason(detail)}"
    return f"{key} = {value}: {reason(detail)}"


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "tuple_type":
        return "must be a list"
    message = detail["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return message[:1].lower() + message[1:] if message.startswith(("Should", "String", "Tuple")) else message


def _is_container(value: Any) -> bool:
    return isinstance(value, dict)


def printable(text: str) -> str:
    """Write a name as it is, or quoted when it has characters that a line must not have."""
    return text if text.isprintable() and len(text) <= _SHOWN else show(text)
