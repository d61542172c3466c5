"""One number's value in Redis, `sipward:number:RULE[@TRUNK]`: the tenant it leads to, or instances of its own."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Self

from pydantic import AfterValidator, StrictBool, StrictStr, model_validator

from sipward import live, numbers, problems
from sipward.model import Tenant
from sipward.problems import refuse
from sipward.records import Description, Kind, RecordError, Value, is_name, validated
from sipward.rules import Rules
from sipward.tenants import Instances, homes

_ANYWHERE = numbers.Plan()


def _tenant_name(value: str) -> str:
    if not is_name(value):
        raise refuse("must be a tenant's name: 1 to 64 of a-z, 0-9, _, - and (inside) dot")
    return value


class NumberValue(Value):
    """The whole JSON value."""

    tenant: Annotated[StrictStr, AfterValidator(_tenant_name)] | None = None
    instances: Instances | None = None
    exact: StrictBool = False
    description: Description = ""

    @model_validator(mode="after")
    def _one_way_on(self) -> Self:
        if (self.tenant is None) == (self.instances is None):
            raise refuse("exactly one of tenant and instances must be given", key="tenant")
        return self


@dataclass(frozen=True, slots=True)
class NumberRecord:
    """A rule in its canonical spelling, perhaps of one trunk, and its checked value."""

    name: str
    rule: str
    trunk: str
    value: NumberValue
    rules: Rules | None = None

    kind = Kind.NUMBER
    asks = ()

    @property
    def claims(self) -> tuple[str, ...]:
        """The rule."""
        return (live.number_key(self.rule, self.trunk),)

    @property
    def entries(self) -> dict[str, str]:
        """Which tenant the rule leads to, and the one that it has of its own."""
        key = live.number_key(self.rule, self.trunk)
        whole = "=" if self.value.exact else ""
        if self.value.tenant is not None:
            return {key: f"{whole}{live.tenant_key(self.value.tenant)}"}
        own = live.tenant_key(self.member)
        return {own: live.encode(self.to_tenant()), key: f"{whole}{own}"}

    @property
    def member(self) -> str:
        """The name of the tenant that it has of its own."""
        return live.number_key(self.rule, self.trunk)

    @property
    def shares(self) -> tuple[str, ...]:
        """The addresses where its own instances are."""
        return homes(self.value.instances, self.rules) if self.value.instances else ()

    @property
    def rivals(self) -> tuple[str, ...]:
        """The other spellings of the rule."""
        return other_names(self.name, self.rules)

    def to_tenant(self) -> Tenant:
        """The tenant that its own instances make."""
        instances = tuple(instance.to_instance() for instance in self.value.instances or ())
        return Tenant(self.member, instances, domain=self.rules.fqdn if self.rules else "")

    def to_json(self) -> str:
        """The value as Redis holds it."""
        return self.value.to_json()


def parse(name: str, raw: bytes | str, rules: Rules | None) -> NumberRecord:
    """Check one number. Raises RecordError; `rules` None checks the form only."""
    rule, trunk = check_rule(name)
    canonical = numbers.canonical(rule, rules.plan if rules else _ANYWHERE)
    if not numbers.RULE.fullmatch(canonical):
        raise RecordError(f"rule = {problems.show(rule)}: {_ALLOWED}, also behind the country code")
    return NumberRecord(name, canonical, trunk, _value(raw, rules), rules)


@lru_cache(maxsize=1024)
def _value(raw: bytes | str, rules: Rules | None) -> NumberValue:
    """Check a value. The numbers of one tenant stand one after the other, and have the same."""
    return validated(NumberValue, raw, rules)


def check_rule(name: str) -> tuple[str, str]:
    """Read `RULE[@TRUNK]`. Raises RecordError."""
    rule, at, trunk = name.partition("@")
    if not numbers.RULE.fullmatch(rule):
        raise RecordError(f"rule = {problems.show(rule)}: {_ALLOWED}")
    if at and not is_name(trunk):
        raise RecordError(f"trunk = {problems.show(trunk)}: must be a trunk's name behind the @ of a rule")
    return rule, trunk


def other_names(name: str, rules: Rules | None) -> tuple[str, ...]:
    """The names that mean the same rule in another spelling. Raises RecordError."""
    rule, trunk = check_rule(name)
    plan = rules.plan if rules else _ANYWHERE
    spelt = _spellings(numbers.canonical(rule, plan), plan)
    return tuple(other for one in spelt if (other := _name(one, trunk)) != name)


_ALLOWED = "must be 1 to 32 digits or X (any one digit), perhaps with a + before them"


def _name(rule: str, trunk: str) -> str:
    return f"{rule}@{trunk}" if trunk else rule


def _spellings(rule: str, plan: numbers.Plan) -> list[str]:
    """All that is the same as a canonical rule."""
    digits = rule.removeprefix("+")
    spelt = [rule, plan.international + digits, plan.national + digits.removeprefix(plan.country)]
    return [one for one in dict.fromkeys(spelt) if one and numbers.canonical(one, plan) == rule]
