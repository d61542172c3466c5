"""The live table as the rows make it, and the changes that lead there, in an order in which no call sees a hole."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sipward import live, numbers
from sipward.snapshot import Row

_ANY_DIGIT = str.maketrans("123456789", "000000000")


class Set(NamedTuple):
    """Write an entry of the live table."""

    key: str
    entry: str
    table: str = live.TABLE


class Remove(NamedTuple):
    """Remove an entry of the live table."""

    key: str
    table: str = live.TABLE


type Change = Set | Remove


class Lists:
    """Keys that list all who have them: the names at each, in order."""

    def __init__(self) -> None:
        """Start with none."""
        self._names: dict[str, list[str]] = {}
        self.changes = 0
        """How often a name was listed, or no more."""

    def __iter__(self) -> Iterator[str]:
        """The keys that anyone has."""
        return iter(self._names)

    def __getitem__(self, key: str) -> list[str]:
        """The names at a key; they must not be changed."""
        return self._names.get(key, [])

    def add(self, keys: Iterable[str], name: str) -> None:
        """List a name at keys."""
        for key in keys:
            self.changes += 1
            insort(self._names.setdefault(key, []), name)

    def drop(self, keys: Iterable[str], name: str) -> None:
        """List a name at keys no more."""
        for key in keys:
            self.changes += 1
            names = self._names[key]
            del names[bisect_left(names, name)]
            if not names:
                del self._names[key]


class Aspect:
    """One value of `state` that says what is known of the whole: shapes or prefixes. Counts the words for each."""

    def __init__(self, key: str) -> None:
        """Start with nothing."""
        self._key = key
        self._count: dict[str, int] = {}
        self._written: frozenset[str] = frozenset()

    def count(self, word: str, step: int) -> None:
        """Add one who has it, or take one away."""
        left = self._count[word] = self._count.get(word, 0) + step
        if not left:
            del self._count[word]

    def grown(self) -> list[Change]:
        """What must be written before the entries are: the old and the new, if there is anything new."""
        return self._write(self._written | self._count.keys())

    def shrunk(self) -> list[Change]:
        """What may be written after the entries, if there is anything less."""
        return self._write(frozenset(self._count))

    def _write(self, now: frozenset[str]) -> list[Change]:
        if now == self._written:
            return []
        self._written = now
        return [Set(self._key, _text(self._key, now), live.STATE)]


class Entries:
    """What the rows of all kinds add up to, and what has changed since somebody asked."""

    def __init__(self) -> None:
        """Start empty."""
        self._changed: dict[str, str | None] = {}
        self._lists = Lists()
        self._before: dict[str, list[str]] = {}
        self._aspects = {where: Aspect(where) for where in (live.SHAPES_KEY, live.PREFIXES_KEY)}
        self._held: dict[str, None] = {}

    def add(self, row: Row) -> None:
        """Count a row in."""
        self._changed |= row.entries
        if self._held:
            for key in row.entries:
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

    def changes(self, hold: bool = False, let_go: bool = False) -> list[Change]:
        """What to write, in order. `hold`: keep back what goes, for it may come back with the rest of a load.

        `let_go`: the load is over. What others point at is set first and removed last; what is known of the whole is
        never less than what is there.
        """
        lists = self._changed_lists()
        gone = {key: None for key, text in self._changed.items() if text is None}
        gone |= {key: None for key, text in lists.items() if text is None}
        own: list[Change] = []
        claimed: list[Change] = []
        for key, text in self._changed.items():
            if text is not None:
                (own if _is_own(key) else claimed).append(Set(key, text))
        listed = [Set(key, text) for key, text in lists.items() if text is not None]
        self._changed, self._before = {}, {}
        grown = [change for aspect in self._aspects.values() for change in aspect.grown()]
        for change in listed:
            self._held.pop(change.key, None)
        if hold:
            self._held, gone = self._held | gone, {}
        elif let_go:
            self._held, gone = {}, self._held | gone
        removed = [Remove(key) for key in sorted(gone, key=_is_own)]
        # What is held is still there to be found.
        shrunk = [change for aspect in self._aspects.values() for change in aspect.shrunk()] if not self._held else []
        return [*grown, *own, *claimed, *listed, *removed, *shrunk]

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
                # Which digit it is does not matter to the shape.
                self._aspects[where].count(word.translate(_ANY_DIGIT) if where == live.SHAPES_KEY else word, step)


def _is_own(key: str) -> bool:
    """Whether other entries point at this one."""
    return key[0] in "@%" and "/" not in key


def _text(where: str, words: Iterable[str]) -> str:
    if where == live.SHAPES_KEY:
        return numbers.write_shapes(map(numbers.shape, words))
    return live.write_prefixes(map(int, words))
