"""Tenant routes in Redis. The only file that knows the keys, and the only one that speaks to Redis.

`Store` is for commands: one question, one answer, StoreError when there is none. `watch` is for the sync process: it
never ends and never raises; what is wrong with Redis comes as an event like everything else.
"""

import json
import time
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import batched
from types import TracebackType
from typing import Any, Self

from redis import ConnectionPool
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sipward.live import domain_key
from sipward.tenants import TenantRecord

PREFIX = "sipward:"
TENANT = f"{PREFIX}tenant:"
ACCEPT = f"{PREFIX}accept"
"""Set for a minute by `route accept`: take Redis as it is, whatever vanished."""
PROBE = f"{PREFIX}probe"
"""Never exists: setting it only if it does shows whether Redis takes writes, and writes nothing."""

_INVALIDATE = "__redis__:invalidate"
_ACCEPT_SECONDS = 60
_BATCH = 500
_MESSAGES = 64
_TIMEOUT = 0.5
_HEARTBEAT = 0.25
_BACK_OFF = 0.2


class StoreError(Exception):
    """Redis did not do what it was asked; the text says why, without any password."""


class ConflictError(StoreError):
    """The value may not be stored: a domain belongs to another tenant."""


class UnreachableError(StoreError):
    """There is no connection to Redis."""


class _RefusedError(StoreError):
    """Redis answered, with an error; the connection is fine."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands at a key is no text at all."""

    reason: str


type Value = bytes | Unreadable


@dataclass(frozen=True, slots=True)
class Everything:
    """All tenants as Redis has them, after a connect or a flush."""

    values: Mapping[str, Value]
    accepted: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """Tenants someone has just written; None means gone."""

    values: Mapping[str, Value | None]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The operator has said to take Redis as it is."""


@dataclass(frozen=True, slots=True)
class Health:
    """How Redis is doing, several times a second: empty when well."""

    complaint: str


type Event = Everything | Changed | Accepted | Health


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


class Store:
    """Routes for the command line. Raises StoreError."""

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

    def get(self, name: str) -> Value | None:
        """Read one tenant's value as it stands; None when there is none."""
        return _read(self._link, [name])[name]

    def list(self) -> dict[str, Value]:
        """Read all tenants' values, by name in order."""
        return dict(sorted(_read_all(self._link).items()))

    def put(self, record: TenantRecord) -> None:
        """Write a tenant. Raises ConflictError when another one has a domain of it."""
        self._refuse_conflict(record)
        self._link.call("SET", _key(record.name), record.to_json())

    def remove(self, name: str) -> bool:
        """Remove a tenant; False when there is none."""
        return bool(self._link.call("DEL", _key(name)))

    def accept(self) -> None:
        """Tell the nodes to take Redis as it is."""
        self._link.call("SET", ACCEPT, "", "EX", _ACCEPT_SECONDS)

    def fill(self, values: Mapping[str, str]) -> int:
        """Write back the tenants that are missing; those that are there stay. Returns how many were missing."""
        return sum(self._link.call("SET", _key(name), value, "NX") is not None for name, value in values.items())

    def _refuse_conflict(self, record: TenantRecord) -> None:
        wanted = set(record.domains)
        for name, value in self.list().items():
            taken = wanted & _domains(value) if name != record.name else set()
            if taken:
                raise ConflictError(f"domain {min(taken)} belongs to tenant {name}")


def watch(url: str) -> Generator[Event]:
    """Follow the tenants for ever, through every failure. Yields at least about once a second."""
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
        yield self._everything()
        while True:
            keys = self._heard()
            if keys is None:
                yield self._everything()
            elif keys:
                yield from self._changes(keys)
            if time.monotonic() >= self._next_beat:
                yield self._beat()

    def _listen(self) -> None:
        ear = self._ear.call("CLIENT", "ID")
        self._ear.call("SUBSCRIBE", _INVALIDATE)
        self._data.call("CLIENT", "TRACKING", "ON", "REDIRECT", ear, "BCAST", "PREFIX", PREFIX)

    def _everything(self) -> Everything:
        return Everything(_read_all(self._data), bool(self._data.call("EXISTS", ACCEPT)))

    def _heard(self) -> set[str] | None:
        """Keys written by anyone, as soon as there are some; empty at the next beat; None: all are gone."""
        keys: set[str] = set()
        patience = max(0.0, self._next_beat - time.monotonic())
        for _ in range(_MESSAGES):
            if not self._ear.has_news(0 if keys else patience):
                break
            news = self._ear.read()
            self._asked_at = None
            match news:
                case [b"message", _, None]:
                    return None
                case [b"message", _, list() as written]:
                    keys |= {_text(key) for key in written}
                case _:  # the answer to a beat's PING
                    break
        return keys

    def _changes(self, keys: set[str]) -> Iterator[Event]:
        names = sorted(key.removeprefix(TENANT) for key in keys if key.startswith(TENANT))
        for some in batched(names, _BATCH, strict=False):
            yield Changed(_read(self._data, some))
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


def _read_all(link: _Link) -> dict[str, Value]:
    names: set[str] = set()
    cursor = b"0"
    while True:
        cursor, keys = link.call("SCAN", cursor, "MATCH", f"{TENANT}*", "COUNT", 2 * _BATCH)
        names |= {_text(key).removeprefix(TENANT) for key in keys}
        if cursor == b"0":
            break
    found: dict[str, Value] = {}
    for some in batched(names, _BATCH, strict=False):
        found |= {name: value for name, value in _read(link, some).items() if value is not None}
    return found


def _read(link: _Link, names: Collection[str]) -> dict[str, Value | None]:
    values = link.call("MGET", *map(_key, names))
    return {
        name: _without_text(link, name) if value is None else value for name, value in zip(names, values, strict=True)
    }


def _without_text(link: _Link, name: str) -> Value | None:
    """Tell a key that is gone from one that holds a list or a hash: MGET says nothing for either."""
    match link.call("TYPE", _key(name)):
        case b"none":
            return None
        case b"string":  # written in between
            value: bytes | None = link.call("GET", _key(name))
            return value
        case kind:
            return Unreadable(f"key: holds a {_text(kind)}: must be a string (SET)")


def _domains(value: Value) -> set[str]:
    """The domains of a value that may be bad."""
    try:
        fields = json.loads(value) if isinstance(value, bytes) else {}
        return {domain_key(domain) for domain in fields["domains"] if isinstance(domain, str)}
    except (ValueError, LookupError, TypeError, RecursionError):
        return set()


def _key(name: str) -> bytes:
    return f"{TENANT}{name}".encode(errors="surrogateescape")


def _text(key: bytes) -> str:
    # A key of any bytes is named as it is, and refused by its name later.
    return key.decode(errors="surrogateescape")
