"""What a value in Redis is, whatever its kind: JSON made to be edited by hand, checked before it may touch a call.

A kind of value has a module of its own: `tenants`, `number_rules`, `trunks`; `routes.parse` knows them.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from sipward import problems
from sipward.model import Limits
from sipward.problems import refuse, within

VALUE_MAX = 64 * 1024
"""Bytes of one value."""

_LIMIT_MAX = 100_000
# A dot at the end would be lost when the live table's keys are folded.
_NAME = re.compile(r"[a-z0-9_-](?:[a-z0-9._-]{0,62}[a-z0-9_-])?")


class RecordError(Exception):
    """The value cannot be used; one line a problem, each naming the field, the value and what is allowed."""


class Kind(StrEnum):
    """The kinds of values, in the order in which they are read: what others name comes first."""

    TENANT = "tenant"
    TRUNK = "trunk"
    NUMBER = "number"

    @property
    def claim(self) -> str:
        """The field that says what only one record may have."""
        return "rule" if self is Kind.NUMBER else "domains"


class Record(Protocol):
    """A checked value."""

    @property
    def kind(self) -> Kind:
        """Its kind."""

    @property
    def name(self) -> str:
        """The last part of its key in Redis."""

    @property
    def claims(self) -> tuple[str, ...]:
        """Keys of the live table that only one record may have."""

    @property
    def entries(self) -> Mapping[str, str]:
        """What it writes into the live table: its claims and keys of its own."""

    @property
    def member(self) -> str:
        """Its name in the lists at `shares`."""

    @property
    def shares(self) -> tuple[str, ...]:
        """Keys of the live table that list all who have them."""

    @property
    def asks(self) -> tuple[str, ...]:
        """Host names that its entries and shares depend on, as `resolver.Name` writes them."""

    @property
    def rivals(self) -> tuple[str, ...] | None:
        """Other names under which a record would have one of these claims; None: any."""

    def to_json(self) -> str:
        """The value as Redis holds it."""


class Value(BaseModel):
    """A table of fields in a value. An unknown field is an error: a typing mistake must not become a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """Every field on a line of its own, for the next hand that edits it."""
        return json.dumps(self.model_dump(exclude_none=True), indent=2, ensure_ascii=False)


def _printable(value: str) -> str:
    if not value.isprintable():
        raise refuse("must have no control characters")
    return value


Description = Annotated[StrictStr, Field(max_length=200), AfterValidator(_printable)]
_Limit = Annotated[StrictInt, AfterValidator(within(0, _LIMIT_MAX))]


SrtpName = Literal["off", "sdes", "dtls"]
"""Srtp as it is written in the JSON."""


class LimitsValue(Value):
    """How much of the node a tenant or trunk may use; 0 is no limit."""

    calls: _Limit = 0
    calls_per_second: _Limit = 0
    registrations_per_second: _Limit = 0

    def to_limits(self) -> Limits:
        """The limits as routing sees them."""
        return Limits(self.calls, self.calls_per_second, self.registrations_per_second)


NO_LIMITS = LimitsValue()


def validated[V: Value](form: type[V], raw: bytes | str, context: object) -> V:
    """Check a value's JSON. Raises RecordError."""
    try:
        return form.model_validate(_read(raw), context=context)
    except ValidationError as error:
        raise RecordError("\n".join(problems.lines(error))) from None


def check_name(name: str) -> str:
    """Check the name of a tenant or trunk, and return it. Raises RecordError."""
    if not is_name(name):
        raise RecordError(f"name = {problems.show(name)}: must be 1 to 64 of a-z, 0-9, _, - and (inside) dot")
    return name


def is_name(text: str) -> bool:
    """Whether a tenant or trunk may have this name."""
    return _NAME.fullmatch(text) is not None


def distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts, unless one is there twice. Raises the error a validator raises."""
    if len(set(texts)) < len(texts):
        twice, _ = Counter(texts).most_common(1)[0]
        raise refuse(f"{problems.show(twice)} is there twice")
    return texts


def _read(raw: bytes | str) -> Any:
    size = len(raw)
    if size > VALUE_MAX:
        raise RecordError(f"value of {size} bytes: at most {VALUE_MAX} are allowed")
    try:
        text = raw if isinstance(raw, str) else raw.decode()
        return _decode(text)
    except UnicodeDecodeError:
        raise RecordError("value: not UTF-8 text") from None
    except RecursionError:
        raise RecordError("value: not JSON: nested too deeply") from None
    except ValueError as error:
        raise RecordError(f"value: not JSON: {error}") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"field {problems.show(twice)} is there twice")
    return fields


# Made once: `json.loads` with a hook makes a decoder for each of a million values.
_decode = json.JSONDecoder(object_pairs_hook=_without_repeats).decode
