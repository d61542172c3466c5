"""Tenants, numbers and trunks in Redis. The only file that knows the keys, and the only one that speaks to Redis.

`Store` is for commands: one question, one answer, StoreError when there is none. `watch` is for the sync process: it
never ends and never raises; what is wrong with Redis comes as an event like everything else.
"""

import json
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from heapq import merge
from itertools import batched
from types import TracebackType
from typing import Any, Self

from redis import ConnectionPool
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sipward.live import domain_key
from sipward.records import Kind, Record

PREFIX = "sipward:"
ACCEPT = f"{PREFIX}accept"
"""Set for a minute by `route accept`: take Redis as it is, whatever vanished."""
PROBE = f"{PREFIX}probe"
"""Never exists: setting it only if it does shows whether Redis takes writes, and writes nothing."""

_INVALIDATE = "__redis__:invalidate"
_ACCEPT_SECONDS = 60
_BATCH = 500
_PART = 32_000
_MESSAGES = 64
_TIMEOUT = 0.5
_HEARTBEAT = 0.25
_BACK_OFF = 0.2


class StoreError(Exception):
    """Redis did not do what it was asked; the text says why, without any password."""


class ConflictError(StoreError):
    """The value may not be stored: another one has its domain or rule."""


class UnreachableError(StoreError):
    """There is no connection to Redis."""


class _FlushedError(Exception):
    """All keys are gone at once."""


class _RefusedError(StoreError):
    """Redis answered, with an error; the connection is fine."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands at a key is no text at all."""

    reason: str


type Value = bytes | Unreadable


@dataclass(frozen=True, slots=True)
class Listed:
    """The names of all there is, after a connect or a flush. The values follow as `Found`, then `Complete`."""

    names: Mapping[Kind, Collection[str]]
    accepted: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Some of the values that are there."""

    kind: Kind
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Complete:
    """All values have come."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Values someone has just written; None means gone."""

    values: Mapping[Kind, Mapping[str, Value | None]]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The operator has said to take Redis as it is."""


@dataclass(frozen=True, slots=True)
class Health:
    """How Redis is doing, several times a second: empty when well."""

    complaint: str


type Event = Listed | Found | Complete | Changed | Accepted | Health


def redis_cli(url: str) -> tuple[list[str], str]:
    """How redis-cli connects as the node does: its arguments, and the password, which `ps` must not show."""
    found: dict[str, Any] = ConnectionPool.from_url(url).connection_kwargs
    if "path" in found:
        where = ["-s", str(found["path"])]
    else:
        where = ["-h", str(found["host"]), "-p", str(found.get("port", 6379))]
    where += ["-n", str(found.get("db", 0))]
    if user := found.get("username"):
        where += ["--user", user]
    if url.startswith("rediss:"):
        where.append("--tls")
    return where, str(found.get("password") or "")


def key(kind: Kind, name: str) -> str:
    """The key of a value."""
    return f"{PREFIX}{kind}:{name}"


class Store:
    """Values for the command line. Raises StoreError."""

    def __init__(self, url: str, timeout: float = 2.0) -> None:
        """Connect on first use; `timeout` in seconds for each answer."""
        self._link = _Link(url, timeout)

    def __enter__(self) -> Self:
        """Use it in `with`, so that the connection is closed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._link.close()

    def get(self, kind: Kind, name: str) -> Value | None:
        """Read one value as it stands; None when there is none."""
        return _read(self._link, kind, [name])[name]

    def some(self, kind: Kind, names: Iterable[str]) -> dict[str, Value]:
        """Read the values that are there of these names, in their order."""
        found: dict[str, Value] = {}
        for some in batched(names, _BATCH, strict=False):
            found |= _there(_read(self._link, kind, some))
        return found

    def present(self, kind: Kind, names: Iterable[str]) -> set[str]:
        """Which of these names have a value."""
        found: set[str] = set()
        for some in batched(names, _BATCH, strict=False):
            # Most often there is none, and one answer says so.
            if self._link.call("EXISTS", *(_key(kind, name) for name in some)):
                answers = self._link.call_all(("EXISTS", _key(kind, name)) for name in some)
                found |= {name for name, is_there in zip(some, answers, strict=True) if is_there}
        return found

    def names(self, kind: Kind) -> set[str]:
        """The names of all values of a kind."""
        return _names(self._link, key(kind, "*"))[kind]

    def each(self, kind: Kind) -> Iterator[dict[str, Value]]:
        """Read all values of a kind, by name in order, some at a time."""
        for some in batched(sorted(self.names(kind)), _BATCH, strict=False):
            yield _there(_read(self._link, kind, some))

    def list(self, kind: Kind) -> dict[str, Value]:
        """Read all values of a kind, by name in order."""
        return {name: value for some in self.each(kind) for name, value in some.items()}

    def put(self, record: Record) -> None:
        """Write a value. Raises ConflictError when another one has a claim of it."""
        self._refuse_conflict(record)
        self._link.call("SET", _key(record.kind, record.name), record.to_json())

    def swap(self, kind: Kind, name: str, old: bytes, new: str) -> bool:
        """Write a value in place of what it was; False, and nothing is written, when it is not that any more."""
        key = _key(kind, name)
        self._link.call("WATCH", key)
        if self._link.call("GET", key) != old:
            self._link.call("UNWATCH")
            return False
        *_, done = self._link.call_all((("MULTI",), ("SET", key, new), ("EXEC",)))
        return done is not None

    def remove(self, kind: Kind, name: str) -> bool:
        """Remove a value; False when there is none."""
        return bool(self._link.call("DEL", _key(kind, name)))

    def accept(self) -> None:
        """Tell the nodes to take Redis as it is."""
        self._link.call("SET", ACCEPT, "", "EX", _ACCEPT_SECONDS)

    def fill(self, kind: Kind, values: Mapping[str, str], *, replace: bool = False) -> int:
        """Write back the values that are missing; those that are there stay, unless `replace`. Returns how many."""
        written = 0
        how = () if replace else ("NX",)
        for some in batched(values.items(), _BATCH, strict=False):
            answers = self._link.call_all(("SET", _key(kind, name), value, *how) for name, value in some)
            written += sum(answer is not None for answer in answers)
        return written

    def _refuse_conflict(self, record: Record) -> None:
        """Look at those that may have the same claim: few where their names tell, else all."""
        kind, rivals = record.kind, record.rivals
        others = self.list(kind) if rivals is None else _there(_read(self._link, kind, rivals)) if rivals else {}
        for name, value in others.items():
            # A rival by name has the claim whatever its value.
            taken = set(record.claims) & _domains(value) if rivals is None else set(record.claims)
            if taken and name != record.name:
                raise ConflictError(taken_by(kind, min(taken), name))


def taken_by(kind: Kind, claim: str, owner: str) -> str:
    """Say that a claim is another's."""
    return f"{kind.claim}: {claim.removeprefix('#')} belongs to {kind} {owner}"


def watch(url: str) -> Generator[Event]:
    """Follow the values for ever, through every failure. Yields at least about once a second."""
    while True:
        try:
            with closing(_Session(url)) as session:
                yield from session.events()
        except StoreError as error:
            yield Health(str(error))
        time.sleep(_BACK_OFF)


class _Session:
    """One connection's life: a link for commands and one that hears which keys were written."""

    def __init__(self, url: str) -> None:
        self._data = _Link(url, _TIMEOUT)
        self._ear = _Link(url, _TIMEOUT)
        self._asked_at: float | None = None
        self._next_beat = 0.0

    def close(self) -> None:
        self._data.close()
        self._ear.close()

    def events(self) -> Iterator[Event]:
        """Listen first, then load: what is written in between is told twice rather than missed."""
        self._listen()
        while True:
            # Until all keys are gone at once: then there is everything to be read again.
            with suppress(_FlushedError):
                yield from self._load()
                while True:
                    yield from self._news(self._next_beat)
                    if time.monotonic() >= self._next_beat:
                        yield self._beat()

    def _listen(self) -> None:
        ear = self._ear.call("CLIENT", "ID")
        self._ear.call("SUBSCRIBE", _INVALIDATE)
        self._data.call("CLIENT", "TRACKING", "ON", "REDIRECT", ear, "BCAST", "PREFIX", PREFIX)

    def _load(self) -> Iterator[Event]:
        """Read all there is, and tell in between what is being written."""
        names = {kind: _Names() for kind in Kind}
        for some in _scan(self._data, f"{PREFIX}*"):
            for kind, found in some.items():
                names[kind].add(found)
            yield from self._news()
        yield Listed({kind: found.all for kind, found in names.items()}, bool(self._data.call("EXISTS", ACCEPT)))
        for kind in Kind:
            # By name: two that claim the same for the first time are told apart the same way at every start.
            for batch in batched(names[kind].in_order(), _BATCH, strict=False):
                yield Found(kind, _there(_read(self._data, kind, batch)))
                yield from self._news()
        yield Complete()

    def _news(self, until: float = 0.0) -> Iterator[Event]:
        """What anyone has written, as soon as there is some, or by then. Raises _FlushedError when all is gone."""
        if keys := self._heard(until):
            yield from self._changes(keys)

    def _heard(self, until: float) -> set[str]:
        keys: set[str] = set()
        patience = max(0.0, until - time.monotonic())
        for _ in range(_MESSAGES):
            if not self._ear.has_news(0 if keys else patience):
                break
            news = self._ear.read()
            self._asked_at = None
            match news:
                case [b"message", _, None]:
                    raise _FlushedError
                case [b"message", _, list() as written]:
                    keys |= {_text(key) for key in written}
                case _:  # the answer to a beat's PING
                    break
        return keys

    def _changes(self, keys: set[str]) -> Iterator[Event]:
        names = _sorted_out(keys)
        # In one event, for as long as it is not too many: what moves from one value to another is never missing.
        some = [(kind, name) for kind in Kind for name in sorted(names[kind])]
        for batch in batched(some, _BATCH, strict=False):
            found: dict[Kind, Mapping[str, Value | None]] = {}
            for kind in Kind:
                if wanted := [name for its, name in batch if its is kind]:
                    found[kind] = _read(self._data, kind, wanted)
            yield Changed(found)
        if ACCEPT in keys and self._data.call("EXISTS", ACCEPT):
            yield Accepted()

    def _beat(self) -> Health:
        """Ask both links for a sign of life, and Redis whether it takes writes."""
        now = time.monotonic()
        self._next_beat = now + _HEARTBEAT
        if self._asked_at is None:
            self._asked_at = now
            self._ear.send("PING")
        elif now - self._asked_at > _TIMEOUT:
            raise StoreError("the connection that hears of edits does not answer")
        try:
            self._data.call("SET", PROBE, "", "XX")
        except _RefusedError as error:
            return Health(f"takes no writes: {error}")
        return Health("")


class _Names:
    """Names as they are found; sorted in parts, for a million at once would hold up the edits for a second."""

    def __init__(self) -> None:
        self.all: set[str] = set()
        self._parts: list[list[str]] = [[]]

    def add(self, names: set[str]) -> None:
        """Add some; SCAN may tell a name twice."""
        self._parts[-1] += names - self.all
        self.all |= names
        if len(self._parts[-1]) >= _PART:
            self._parts[-1].sort()
            self._parts.append([])

    def in_order(self) -> Iterator[str]:
        """All of them by name, each made out when it is asked for."""
        self._parts[-1].sort()
        return merge(*self._parts)


class _Link:
    """One connection. It never reconnects by itself: a new one would not be listening."""

    def __init__(self, url: str, timeout: float) -> None:
        # With RESP3, redis-py's default, messages redirected to another connection do not arrive.
        limits = {"protocol": 2, "socket_timeout": timeout, "socket_connect_timeout": timeout, "driver_info": None}
        try:
            self._connection: Any = ConnectionPool.from_url(url, **limits).make_connection()
        except (ValueError, TypeError) as error:
            raise StoreError(f"redis.url cannot be used: {error}") from None

    def call(self, *command: Any) -> Any:
        self.send(*command)
        return self.read()

    def call_all(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Send commands together, and return the answers. A refusal is raised when all have been answered."""
        sent = list(commands)
        with _mapped():
            self._connection.send_packed_command(self._connection.pack_commands(sent))
        answers: list[Any] = []
        refusal: _RefusedError | None = None
        for _ in sent:
            try:
                answers.append(self.read())
            except _RefusedError as error:
                refusal = error
        if refusal:
            raise refusal
        return answers

    def send(self, *command: Any) -> None:
        with _mapped():
            self._connection.send_command(*command)

    def read(self) -> Any:
        with _mapped():
            return self._connection.read_response()

    def has_news(self, seconds: float) -> bool:
        with _mapped():
            return bool(self._connection.can_read(seconds))

    def close(self) -> None:
        with suppress(RedisError, OSError):
            self._connection.disconnect()


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except RedisTimeoutError:
        raise StoreError("Redis does not answer in time") from None
    except ResponseError as error:
        raise _RefusedError(f"Redis refuses: {error}") from None
    except (RedisError, OSError) as error:
        raise UnreachableError(f"Redis cannot be used: {error}") from None


def _names(link: _Link, pattern: str) -> dict[Kind, set[str]]:
    found: dict[Kind, set[str]] = {kind: set() for kind in Kind}
    for some in _scan(link, pattern):
        for kind, names in some.items():
            found[kind] |= names
    return found


def _scan(link: _Link, pattern: str) -> Iterator[dict[Kind, set[str]]]:
    """The names that there are, some at a time."""
    cursor = b"0"
    while True:
        cursor, keys = link.call("SCAN", cursor, "MATCH", pattern, "COUNT", 2 * _BATCH)
        yield _sorted_out(map(_text, keys))
        if cursor == b"0":
            return


def _sorted_out(keys: Iterable[str]) -> dict[Kind, set[str]]:
    """Names by kind; other keys are not ours to read."""
    found: dict[Kind, set[str]] = {kind: set() for kind in Kind}
    add = {str(kind): names.add for kind, names in found.items()}
    for text in keys:
        _, kind, name = (*text.split(":", 2), "", "")[:3]
        if kind in add:
            add[kind](name)
    return found


def _read(link: _Link, kind: Kind, names: Collection[str]) -> dict[str, Value | None]:
    start = key(kind, "")
    values = link.call("MGET", *(_bytes(start + name) for name in names))
    return {
        name: _without_text(link, kind, name) if value is None else value
        for name, value in zip(names, values, strict=True)
    }


def _there(values: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}


def _without_text(link: _Link, kind: Kind, name: str) -> Value | None:
    """Tell a key that is gone from one that holds a list or a hash: MGET says nothing for either."""
    match link.call("TYPE", _key(kind, name)):
        case b"none":
            return None
        case b"string":  # written in between
            value: bytes | None = link.call("GET", _key(kind, name))
            return value
        case other:
            return Unreadable(f"key: holds a {_text(other)}: must be a string (SET)")


def _domains(value: Value) -> set[str]:
    """The domains of a value that may be bad."""
    try:
        fields = json.loads(value) if isinstance(value, bytes) else {}
        return {domain_key(domain) for domain in fields["domains"] if isinstance(domain, str)}
    except (ValueError, LookupError, TypeError, RecursionError):
        return set()


def _key(kind: Kind, name: str) -> bytes:
    return _bytes(key(kind, name))


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _text(key: bytes) -> str:
    # A key of any bytes is named as it is, and refused by its name later.
    return key.decode(errors="surrogateescape")
