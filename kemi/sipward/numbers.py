"""Dialled numbers: the many spellings of one number, and the rules that numbers are looked up by. Pure.

A rule is digits, `+` and `X`, which stands for any one digit; it matches every number that begins with it. Of all that
match, the most specific wins: the number itself, then the longest, then the one with fewer `X`, then the one whose `X`
come later. A rule's *shape* is its length and where its `X` stand: a number is looked up once a shape, so that a
million rules cost no more than the few shapes they have.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

RULE = re.compile(r"\+?[0-9X]{1,32}")
"""What a rule's text may be (ITU-T E.164 has 15 digits; carriers put routing prefixes before them)."""

_SEPARATORS = str.maketrans("", "", "-.() ")
"""Visual separators (RFC 3966, 5.1.1), and the blank that people type."""
_NUMBER = re.compile(r"\+?[0-9]{1,32}")


class Plan(NamedTuple):
    """How numbers are dialled where the node stands; all empty but `international`: only `00` and `+` are one."""

    country: str = ""
    """The country code without `+`: `39`."""
    international: str = "00"
    """What is dialled before a country code."""
    national: str = ""
    """What is dialled before an area code and falls away behind the country code: `0` in Germany, nothing in Italy."""


NO_PLAN = Plan()


class Shape(NamedTuple):
    """The length of a rule and the positions of its `X`. Shapes sort from the most specific to the least."""

    length: int
    wild: tuple[int, ...]

    @property
    def rank(self) -> tuple[int, int, tuple[int, ...]]:
        """Sorts the most specific first."""
        return (-self.length, len(self.wild), tuple(-position for position in self.wild))

    def cut(self, number: str) -> str:
        """The one rule of this shape that `number` could match; "": it is too short, or X stands for `+`."""
        if len(number) < self.length or (self.wild[:1] == (0,) and number[0] == "+"):
            return ""
        if not self.wild:
            return number[: self.length]
        digits = list(number[: self.length])
        for position in self.wild:
            digits[position] = "X"
        return "".join(digits)


def dialled(user: str) -> str:
    """The number in a URI's user part or a tel URI's subscriber: digits, perhaps with a leading `+`; "" for a name.

    Parameters (RFC 3261, 19.1.6; RFC 3966), a password (25.1) and visual separators fall away.
    """
    text = user.partition(":")[0].partition(";")[0]
    if "%" in text:
        text = unquote(text)
    text = text.translate(_SEPARATORS)
    return text if _NUMBER.fullmatch(text) else ""


def canonical(number: str, plan: Plan) -> str:
    """The one spelling of a number or rule: with `+` when the country is known, else as it was dialled."""
    if number.startswith("+"):
        return number
    if plan.international and number.startswith(plan.international):
        return f"+{number[len(plan.international) :]}"
    if plan.country and number.startswith(plan.national):
        return f"+{plan.country}{number[len(plan.national) :]}"
    return number


def shape(rule: str) -> Shape:
    """The shape of a rule in its canonical spelling."""
    return Shape(len(rule), tuple(position for position, char in enumerate(rule) if char == "X"))


def write_shapes(shapes: Iterable[Shape]) -> str:
    """The shapes in use as one text, the most specific first: `13 12:10,11`."""
    ordered = sorted(set(shapes), key=lambda one: one.rank)
    return " ".join(f"{one.length}:{','.join(map(str, one.wild))}".rstrip(":") for one in ordered)


@lru_cache(maxsize=16)
def read_shapes(text: str) -> tuple[Shape, ...]:
    """What `write_shapes` wrote."""
    found: list[Shape] = []
    for one in text.split():
        length, _, wild = one.partition(":")
        found.append(Shape(int(length), tuple(map(int, wild.split(","))) if wild else ()))
    return tuple(found)


def candidates(number: str, shapes: Iterable[Shape]) -> Iterator[str]:
    """The rules that `number` could match, the most specific first."""
    for one in shapes:
        if rule := one.cut(number):
            yield rule
