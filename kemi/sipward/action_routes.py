"""Routes and trunks as NethServer's PBX modules see them: a domain and its addresses, a rule and its destination.

A domain is a tenant in Redis, a rule a number with an instance of its own. What an operator has added to either by hand
stays: other domains, weights, limits.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Protocol

from sipward import numbers
from sipward.action_inputs import Address, AddRoute, AddTrunk, Destination, OneRoute, OneTrunk
from sipward.live import domain_key
from sipward.records import Kind

type Value = Mapping[str, Any]
"""One value in Redis, an object."""

_NAME_MAX = 64


class Values(Protocol):
    """The values in Redis."""

    plan: numbers.Plan
    """How numbers are dialled where the node stands."""

    def get(self, kind: Kind, name: str) -> Value | None:
        """One value; None when there is none that can be read."""

    def all(self, kind: Kind) -> Mapping[str, Value]:
        """All that can be read, by name."""

    def put(self, kind: Kind, name: str, value: Value) -> None:
        """Check a value and write it. Raises InputError, in the words of the value's fields."""

    def remove(self, kind: Kind, name: str) -> None:
        """Remove a value, if it is there."""


# --- routes -----------------------------------------------------------------------------------------------------------


def add_route(values: Values, route: AddRoute) -> None:
    """Have a domain lead to these addresses and no others."""
    name, old = _owner(values, route.domain) or (_free_name(values, route.domain), {"domains": [route.domain]})
    values.put(Kind.TENANT, name, {**old, "instances": _instances(old, route.address)})


def get_route(values: Values, route: OneRoute) -> Value:
    """Where a domain leads; empty when nobody knows it."""
    owner = _owner(values, route.domain)
    return {"address": _addresses(owner[1])} if owner else {}


def remove_route(values: Values, route: OneRoute) -> None:
    """Forget a domain; a tenant with others keeps those."""
    if (owner := _owner(values, route.domain)) is None:
        return
    name, value = owner
    if rest := [domain for domain in value["domains"] if domain_key(domain) != route.domain]:
        values.put(Kind.TENANT, name, {**value, "domains": rest})
    else:
        values.remove(Kind.TENANT, name)


def list_routes(values: Values) -> list[Value]:
    """All domains, each with where it leads."""
    routes = {domain: _addresses(value) for value in values.all(Kind.TENANT).values() for domain in _domains(value)}
    return [{"domain": domain, "address": routes[domain]} for domain in sorted(routes)]


def tenant_name(domain: str) -> str:
    """The name of a domain's tenant: the domain itself, or one made of it where names do not allow it."""
    if len(domain) <= _NAME_MAX and not set(domain) & set("[:]"):
        return domain
    return _made_name(domain)


def _made_name(domain: str) -> str:
    mark = blake2b(domain.encode(), digest_size=5).hexdigest()
    readable = re.sub(r"[^a-z0-9.-]+", "-", domain).strip(".-")
    return f"{readable[: _NAME_MAX - len(mark) - 1]}-{mark}"


def _free_name(values: Values, domain: str) -> str:
    """Another's tenant may have the name already."""
    name = tenant_name(domain)
    return name if values.get(Kind.TENANT, name) is None else _made_name(domain)


def _owner(values: Values, domain: str) -> tuple[str, Value] | None:
    """The tenant that has a domain, with its value. It is mostly the one of that name: not all need be read."""
    name = tenant_name(domain)
    likely = values.get(Kind.TENANT, name)
    if likely is not None and domain in _domains(likely):
        return name, likely
    return next(((name, value) for name, value in values.all(Kind.TENANT).items() if domain in _domains(value)), None)


def _domains(value: Value) -> list[str]:
    return [domain_key(domain) for domain in value.get("domains", ()) if isinstance(domain, str)]


# --- trunks -----------------------------------------------------------------------------------------------------------


def add_trunk(values: Values, trunk: AddTrunk) -> None:
    """Have the numbers of a rule lead to this destination and no other."""
    name, old = _number(values, trunk.rule) or (trunk.rule, {})
    kept = {field: value for field, value in old.items() if field not in ("tenant", "instances", "exact")}
    values.put(Kind.NUMBER, name, {**kept, "instances": _instances(old, (trunk.destination,))})


def get_trunk(values: Values, trunk: OneTrunk) -> Value:
    """Where a rule's numbers lead; empty when nobody knows it."""
    found = _number(values, trunk.rule)
    destination = _destination(values, found[1]) if found else None
    return {"destination": destination} if destination else {}


def remove_trunk(values: Values, trunk: OneTrunk) -> None:
    """Forget a rule."""
    if found := _number(values, trunk.rule):
        values.remove(Kind.NUMBER, found[0])


def list_trunks(values: Values) -> list[Value]:
    """All rules, each with where its numbers lead; not those that count for one carrier alone."""
    found = {rule: _destination(values, value) for rule, value in values.all(Kind.NUMBER).items() if "@" not in rule}
    return [{"rule": rule, "destination": destination} for rule, destination in sorted(found.items()) if destination]


def _number(values: Values, rule: str) -> tuple[str, Value] | None:
    """The number with this rule in any of its spellings: `+39...` and `0039...` are one rule."""
    if (value := values.get(Kind.NUMBER, rule)) is not None:
        return rule, value
    wanted = numbers.canonical(rule, values.plan)
    all_numbers = values.all(Kind.NUMBER).items()
    return next(((name, value) for name, value in all_numbers if numbers.canonical(name, values.plan) == wanted), None)


def _destination(values: Values, value: Value) -> Value | None:
    """The first instance of a number's own, or of the tenant that an operator leads it to."""
    holder = values.get(Kind.TENANT, str(value["tenant"])) if value.get("tenant") else value
    return next(iter(_addresses(holder or {})), None)


# --- addresses --------------------------------------------------------------------------------------------------------


def _instances(old: Value, wanted: Iterable[Address | Destination]) -> list[Value]:
    """The instances for these addresses; one that was there keeps what else an operator has said of it."""
    known = {instance["uri"]: instance for instance in old.get("instances") or ()}
    return [{**known.get(one.uri, {}), "uri": one.uri, "description": one.description} for one in wanted]


def _addresses(value: Value) -> list[Value]:
    return [
        {"uri": instance["uri"], "description": instance.get("description", "")}
        for instance in value.get("instances") or ()
    ]
