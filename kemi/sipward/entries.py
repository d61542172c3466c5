"""The live table as the rows make it, and the changes that lead there, in an order in which no call sees a hole."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sipward import live, numbers
from sipward.snapshot import Row


@dataclass(frozen=True, slots=True)
class Set:
    """Write an entry of the live table."""

    key: str
    entry: str
    table: str = live.TABLE


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove an entry of the live table."""

    key: str
    table: str = live.TABLE


type Change = Set | Remove


class Lists:
    """Keys that list all who have them: the names at each, in order."""

    def __init__(self) -> None:
        """Start with none."""
        self._names: dict[str, list[str]] = {}

    def __iter__(self) -> Iterator[str]:
        """The keys that anyone has."""
        return iter(self._names)

    def __getitem__(self, key: str) -> list[str]:
        """The names at a key; they must not be changed."""
        return self._names.get(key, [])

    def add(self, keys: Iterable[str], name: str) -> None:
        """List a name at keys."""
        for key in keys:
            insort(self._names.setdefault(key, []), name)

    def drop(self, keys: Iterable[str], name: str) -> None:
        """List a name at keys no more."""
        for key in keys:
            names = self._names[key]
            del names[bisect_left(names, name)]
            if not names:
                del self._names[key]


class Aspect:
    """One value of `state` that says what is known of the whole: shapes or prefixes. Counts who has each."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._count: Counter[Any] = Counter()
        self._written: frozenset[Any] = frozenset()

    def count(self, word: Any, step: int) -> None:
        """Add one who has it, or take one away."""
        self._count[word] += step
        if not self._count[word]:
            del self._count[word]

    def grown(self) -> frozenset[Any] | None:
        """What must be written before the entries are: the old and the new; None when there is nothing new."""
        now = self._written | self._count.keys()
        return self._write(now) if now != self._written else None

    def shrunk(self) -> frozenset[Any] | None:
        """What may be written after the entries; None when there is nothing less."""
        now = frozenset(self._count)
        return self._write(now) if now != self._written else None

    def _write(self, now: frozenset[Any]) -> frozenset[Any]:
        self._written = now
        return now


class Entries:
    """What the rows of all kinds add up to, and what has changed since somebody asked."""

    def __init__(self) -> None:
        """Start empty."""
        self._changed: dict[str, str | None] = {}
        self._lists = Lists()
        self._before: dict[str, list[str]] = {}
        self._aspects = {live.SHAPES_KEY: Aspect(), live.PREFIXES_KEY: Aspect()}
        self._held: dict[str, None] = {}

    def add(self, row: Row) -> None:
        """Count a row in."""
        for key, text in row.entries.items():
            self._changed[key] = text
            self._held.pop(key, None)
        self._remember(row)
        self._lists.add(row.shares, row.member)
        self._count(row, 1)

    def drop(self, row: Row) -> None:
        """Count a row out."""
        self._changed |= dict.fromkeys(row.entries)
        self._remember(row)
        self._lists.drop(row.shares, row.member)
        self._count(row, -1)

    def changes(self, hold: bool = False) -> list[Change]:
        """What to write, in order. `hold`: keep back what goes, for it may come back with the rest of a load.

        What others point at is set first and removed last; what is known of the whole is never less than what is there.
        """
        lists = self._changed_lists()
        gone = {key: None for key, text in self._changed.items() if text is None}
        gone |= {key: None for key, text in lists.items() if text is None}
        sets = [Set(key, text) for key, text in self._changed.items() if text is not None]
        own = [change for change in sets if _is_own(change.key)]
        claimed = [change for change in sets if not _is_own(change.key)]
        listed = [Set(key, text) for key, text in lists.items() if text is not None]
        self._changed, self._before = {}, {}
        for change in listed:
            self._held.pop(change.key, None)
        if hold:
            self._held |= gone
            return [*self._grown(), *own, *claimed, *listed]
        gone, self._held = self._held | gone, {}
        removed = [Remove(key) for key in sorted(gone, key=_is_own)]
        return [*self._grown(), *own, *claimed, *listed, *removed, *self._shrunk()]

    def _remember(self, row: Row) -> None:
        for key in row.shares:
            if key not in self._before:
                self._before[key] = list(self._lists[key])

    def _changed_lists(self) -> dict[str, str | None]:
        now = {key: self._lists[key] for key, before in self._before.items() if self._lists[key] != before}
        return {key: " ".join(names) or None for key, names in now.items()}

    def _count(self, row: Row, step: int) -> None:
        for key in (*row.claims, *row.shares):
            if found := live.aspect(key):
                where, word = found
                self._aspects[where].count(numbers.shape(word) if where == live.SHAPES_KEY else int(word), step)

    def _grown(self) -> list[Change]:
        return [
            Set(where, _text(where, words), live.STATE)
            for where, aspect in self._aspects.items()
            if (words := aspect.grown()) is not None
        ]

    def _shrunk(self) -> list[Change]:
        return [
            Set(where, _text(where, words), live.STATE)
            for where, aspect in self._aspects.items()
            if (words := aspect.shrunk()) is not None
        ]


def _is_own(key: str) -> bool:
    """Whether other entries point at this one."""
    return key[0] in "@%" and "/" not in key


def _text(where: str, words: Iterable[Any]) -> str:
    return numbers.write_shapes(words) if where == live.SHAPES_KEY else live.write_prefixes(words)
