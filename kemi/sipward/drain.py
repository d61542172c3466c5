"""Draining an instance in a value's text: one field of one object changes, every other character stays. Pure."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from sipward.model import Endpoint
from sipward.tenants import parse_uri

_decode = json.JSONDecoder().raw_decode
_GAP = re.compile(r"[ \t\n\r,:]*")


class _Member(NamedTuple):
    """One value in an object or list: its key in an object, and where it stands in the text."""

    key: str
    at: int
    """Where its key begins; in a list, where it begins itself."""
    start: int
    end: int
    value: object


def with_drain(text: str, end: Endpoint, drain: bool) -> str:
    """A value's text in which the instance at `end` is drained, or is not any more.

    `text` is a good value of a tenant, or of a number with instances of its own.
    """
    listed = next(member for member in _members(text, _after_gap(text, 0)) if member.key == "instances")
    for instance in _members(text, listed.start):
        fields = {member.key: member for member in _members(text, instance.start)}
        if parse_uri(str(fields["uri"].value)) == end:
            return _changed(text, list(fields.values()), drain)
    return text


def _changed(text: str, fields: list[_Member], drain: bool) -> str:
    word = "true" if drain else "false"
    if there := next((field for field in fields if field.key == "drain"), None):
        return text[: there.start] + word + text[there.end :]
    if not drain:
        return text
    # As the last two stand apart, so does the new one.
    gap = text[fields[-2].end : fields[-1].at] if len(fields) > 1 else ", "
    return f'{text[: fields[-1].end]}{gap}"drain": {word}{text[fields[-1].end :]}'


def _members(text: str, at: int) -> Iterator[_Member]:
    """What the object or list that begins at `at` holds."""
    is_object = text[at] == "{"
    at = _after_gap(text, at + 1)
    while text[at] not in "]}":
        begin, key = at, ""
        if is_object:
            key, at = _decode(text, at)
            at = _after_gap(text, at)
        value, end = _decode(text, at)
        yield _Member(key, begin, at, end, value)
        at = _after_gap(text, end)


def _after_gap(text: str, at: int) -> int:
    found = _GAP.match(text, at)
    return found.end() if found else at
