"""What the actions of `sipward action` take: JSON in the words of NethServer's SIP proxy module.

Where that module takes fields it does not know, so do we; where it refuses them, so do we.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic_core import ErrorDetails

from sipward import numbers, problems
from sipward.hosts import is_host_name, parse_address
from sipward.live import domain_key
from sipward.problems import refuse

ROOT = "(root)"
"""The field of a problem that is no single field's."""


class Problem(NamedTuple):
    """What is wrong with one field: its path with dots, its last name, the value that was given, what is allowed."""

    field: str
    parameter: str
    value: object
    error: str

    @classmethod
    def at(cls, field: str, value: object, error: str) -> "Problem":
        """A problem of a field by its path."""
        return cls(field, field.rpartition(".")[2], value, error)


class InputError(Exception):
    """The input cannot be used."""

    def __init__(self, problems: Sequence[Problem], code: int = 10) -> None:
        """`code`: the exit code, which tells kinds of problems apart."""
        super().__init__("; ".join(f"{problem.field}: {problem.error}" for problem in problems))
        self.problems = tuple(problems)
        self.code = code


def _domain(text: str) -> str:
    """A domain as the live table has it; letters beyond ASCII as DNS has them (RFC 5890)."""
    folded = domain_key(text)
    try:
        named = folded if folded.isascii() else folded.encode("idna").decode()
        return named if is_host_name(named) else _address_domain(folded)
    except (UnicodeError, ValueError):
        raise refuse("must be a host name or an IP address, without a port") from None


def _address_domain(text: str) -> str:
    address = parse_address(text)
    return domain_key(f"[{address}]") if address.version == 6 else str(address)


def _host_name(text: str) -> str:
    folded = text.rstrip(".").lower()
    if not is_host_name(folded):
        raise refuse("must be a host name such as sip.example.org")
    return folded


def _address(text: str) -> str:
    try:
        return str(parse_address(text))
    except ValueError:
        raise refuse("must be an IPv4 or IPv6 address") from None


def _rule(text: str) -> str:
    if not numbers.RULE.fullmatch(text):
        raise refuse("must be 1 to 32 digits or X (any one digit), perhaps with a + before them")
    return text


_Text = Annotated[StrictStr, Field(min_length=1)]
_Domain = Annotated[_Text, AfterValidator(_domain)]
_Rule = Annotated[_Text, AfterValidator(_rule)]
_Address = Annotated[_Text, AfterValidator(_address)]


class Input(BaseModel):
    """An action's input; fields that it does not know are nothing to it."""

    model_config = ConfigDict(frozen=True)


class Nothing(Input):
    """No input at all."""


class Address(Input):
    """Where a route leads."""

    uri: _Text
    description: StrictStr


class AddRoute(Input):
    """A domain and all its addresses."""

    domain: _Domain
    address: Annotated[tuple[Address, ...], Field(min_length=1)]


class OneRoute(Input):
    """A domain."""

    domain: _Domain


class Destination(Input):
    """Where a number leads."""

    uri: _Text
    description: _Text


class AddTrunk(Input):
    """A rule and where its numbers lead."""

    rule: _Rule
    destination: Destination


class OneTrunk(Input):
    """A rule."""

    rule: _Rule


class _Closed(Input):
    """An input of which an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Addresses(_Closed):
    """Where the node listens, and what the outside knows it by."""

    address: _Address
    public_address: _Address | None = None


class ServiceNetwork(Input):
    """The address that instances use, and where they live: a network, or the netmask of that address."""

    address: _Address
    netmask: StrictStr


class ConfigureModule(_Closed):
    """The configuration. What is not given stays as it is."""

    fqdn: Annotated[_Text, AfterValidator(_host_name)]
    addresses: Addresses
    lets_encrypt: StrictBool | None = None
    local_networks: tuple[StrictStr, ...] | None = None
    service_network: ServiceNetwork | None = None


class AvailableInterfaces(_Closed):
    """What to leave out of the interfaces."""

    excluded_interfaces: tuple[StrictStr, ...] = ()
    excluded_families: tuple[Literal["inet", "inet6"], ...] = ()


class CertificateChanged(Input):
    """The names of a certificate that has changed; a wildcard as `*.example.org`."""

    names: tuple[Annotated[StrictStr, AfterValidator(str.lower)], ...]


def validated[I: Input](form: type[I], value: object) -> I:
    """Check an input. Raises InputError, a problem for each field."""
    try:
        return form.model_validate(value)
    except ValidationError as error:
        raise InputError([_problem(detail) for detail in error.errors(include_url=False)]) from None


def _problem(detail: ErrorDetails) -> Problem:
    path = ".".join(map(str, detail["loc"])) or ROOT
    is_missing = detail["type"] == "missing"
    return Problem.at(path, None if is_missing else detail["input"], problems.reason(detail))


def with_value(problem: Problem, given: Input) -> Problem:
    """The problem with the value that its field was given; for those who know the field alone."""
    value: Any = given.model_dump(mode="json", exclude_none=True)
    for part in problem.field.split("."):
        match value:
            case dict():
                value = value.get(part)
            case list() if part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            case _:
                value = None
    return problem if problem.value is not None else problem._replace(value=value)
