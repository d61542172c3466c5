"""Instances as one word each, on the command line and in tables: `URI[,FIELD=VALUE]...`. Pure."""

from collections.abc import Iterator
from urllib.parse import unquote

from sipward.problems import show
from sipward.records import RecordError
from sipward.tenants import InstanceValue

_ALLOWED = "must be URI[,weight=N][,priority=N][,description=TEXT][,drain=true][,srtp=off|sdes|dtls]"
_NONE = "-"
_QUOTED = str.maketrans({char: f"%{ord(char):02X}" for char in "%, "})


def read(word: str, what: str = "--instance") -> dict[str, object]:
    """Read one; what the values may be is not checked here. Raises RecordError, in which `what` names it."""
    uri, *fields = word.split(",")
    found: dict[str, object] = {"uri": uri}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals or key == "uri":
            raise RecordError(f"{what} {show(word)}: {_ALLOWED}")
        found[key] = value if key == "description" else _plain(value)
    return found


def read_all(text: str) -> list[dict[str, object]]:
    """Read what `write_all` wrote. Raises RecordError."""
    return [] if text == _NONE else [_unquoted(read(word, "instances =")) for word in text.split(" ") if word]


def write_all(instances: tuple[InstanceValue, ...]) -> str:
    """Write instances with a blank between them, `-` for none.

    In a description `%20` stands for a blank, `%2C` for a comma, `%25` for a percent sign.
    """
    return " ".join(",".join(_words(instance)) for instance in instances) or _NONE


def _words(instance: InstanceValue) -> Iterator[str]:
    yield instance.uri
    for key, value in instance.model_dump(exclude={"uri"}, exclude_defaults=True).items():
        yield f"{key}={str(value).lower() if isinstance(value, bool) else str(value).translate(_QUOTED)}"


def _unquoted(fields: dict[str, object]) -> dict[str, object]:
    return {key: unquote(str(value)) if key == "description" else value for key, value in fields.items()}


def _plain(value: str) -> object:
    if value in {"true", "false"}:
        return value == "true"
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value
