"""What is odd about all numbers together: rules inside wider ones, and rules that no number ever reaches. Pure.

A million rules take some hundred bytes each, and a few look-ups for each shape that there is.
"""

from collections.abc import Iterator
from string import digits
from typing import NamedTuple

from sipward.numbers import Shape, shape

STEPS = 11_111
"""How many patterns a rule is taken apart into at most: so many has one with four `X`."""


class Entry(NamedTuple):
    """A rule as it was written, and to whom it leads."""

    name: str
    owner: str
    exact: bool


class Overlap(NamedTuple):
    """A rule, and the most specific one of those that it takes numbers away from: all that it matches is in there."""

    inner: Entry
    outer: Entry


class NumberCheck:
    """All rules in their canonical spelling. Look-ups are as in `live`: of two equal rules that of the trunk wins."""

    def __init__(self) -> None:
        """Start with none."""
        self._rules: dict[str, Entry] = {}
        self._scoped: dict[str, dict[str, Entry]] = {}

    def add(self, rule: str, trunk: str, entry: Entry) -> Entry:
        """Take a rule in, unless there is one of that spelling already; returns the one that is there then."""
        if trunk:
            return self._scoped.setdefault(rule, {}).setdefault(trunk, entry)
        return self._rules.setdefault(rule, entry)

    def drop(self, rule: str, trunk: str) -> None:
        """Take a rule out again, if it is in."""
        if trunk:
            self._scoped.get(rule, {}).pop(trunk, None)
        else:
            self._rules.pop(rule, None)

    def overlaps(self) -> Iterator[Overlap]:
        """The rules that are inside wider ones."""
        shapes = self._shapes()
        wider = {one: [other for other in shapes[at:] if _is_within(one, other)] for at, one in enumerate(shapes)}
        for rule, trunk, entry in self._all():
            if outer := self._outer(rule, trunk, entry, wider[shape(rule)]):
                yield Overlap(entry, outer)

    def losers(self) -> Iterator[Entry]:
        """The rules that never win: every number that they match is another one's.

        All with up to four `X` are found. One with more, or one that is covered by exact rules and longer ones
        together, is passed over when that takes too many steps.
        """
        shapes = self._shapes()
        narrower = {one: shapes[:at] for at, one in enumerate(shapes)}
        longest = max((one.length for one in shapes), default=0)
        for rule, trunk, entry in self._all():
            if "X" in rule and _Cover(self, trunk, narrower[shape(rule)], longest).is_whole(rule, entry.exact):
                yield entry

    def at(self, rule: str, trunk: str) -> Iterator[Entry]:
        """The rules of a spelling that calls by a trunk meet; `trunk` empty: by none."""
        if trunk and (found := self._scoped.get(rule, {}).get(trunk)):
            yield found
        if found := self._rules.get(rule):
            yield found

    def _shapes(self) -> list[Shape]:
        found = {shape(rule) for rules in (self._rules, self._scoped) for rule in rules}
        return sorted(found, key=lambda one: one.rank)

    def _all(self) -> Iterator[tuple[str, str, Entry]]:
        for rule, entry in self._rules.items():
            yield rule, "", entry
        for rule, entries in self._scoped.items():
            for trunk, entry in entries.items():
                yield rule, trunk, entry

    def _outer(self, rule: str, trunk: str, inner: Entry, wider: list[Shape]) -> Entry | None:
        if trunk and (plain := self._rules.get(rule)) and plain.exact <= inner.exact:
            return plain
        for one in wider:
            for outer in self._meeting(one.cut(rule), trunk):
                if not outer.exact or (inner.exact and one.length == len(rule)):
                    return outer
        return None

    def _meeting(self, rule: str, trunk: str) -> Iterator[Entry]:
        """The rules of a spelling that meet calls of a rule of that trunk; one of no trunk meets all calls."""
        yield from self.at(rule, trunk)
        if not trunk:
            yield from self._scoped.get(rule, {}).values()


class _Cover:
    """Whether more specific rules take every number of a pattern, by taking the pattern apart."""

    def __init__(self, check: NumberCheck, trunk: str, shapes: list[Shape], longest: int) -> None:
        self._check = check
        self._trunk = trunk
        self._shapes = shapes
        self._longest = longest
        self._steps = STEPS

    def is_whole(self, pattern: str, exact: bool) -> bool:
        """`exact`: only the numbers of the pattern's own length matter."""
        self._steps -= 1
        if self._steps < 0:
            return False
        if self._is_taken(pattern, exact):
            return True
        at = pattern.find("X")
        if at >= 0:
            return all(self.is_whole(pattern[:at] + digit + pattern[at + 1 :], exact) for digit in digits)
        if exact:
            # Alone it is no number.
            return pattern == "+"
        # What is left: the number itself, and all that begin with it.
        return (
            len(pattern) < self._longest
            and self.is_whole(pattern, True)
            and all(self.is_whole(pattern + digit, False) for digit in digits)
        )

    def _is_taken(self, pattern: str, exact: bool) -> bool:
        """Whether one rule takes them all."""
        for one in self._shapes:
            if one.length <= len(pattern) and (rule := one.cut(pattern)).count("X") == len(one.wild):
                whole = exact and one.length == len(pattern)
                if any(whole or not entry.exact for entry in self._check.at(rule, self._trunk)):
                    return True
        return False


def _is_within(one: Shape, other: Shape) -> bool:
    """Whether a rule of a shape may be inside another rule of another one, which is less specific."""
    return one != other and {at for at in one.wild if at < other.length} <= set(other.wild)
