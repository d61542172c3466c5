"""Which of a tenant's instances, and in which order: priority first, weighted rendezvous hashing within it.

With the policy `balance` priorities do not count: all instances share the users by weight.
"""

from _blake2 import blake2b
from math import log

from sipward.model import Endpoint, Instance, Tenant

_BITS = 52
"""Of the hash: as many as a float holds exactly, so that no point rounds up to 1, whose logarithm is 0."""


def ordered(tenant: Tenant, user: str) -> tuple[Endpoint, ...]:
    """The tenant's instances in the order in which they are tried for `user` (an address of record's user part).

    The same user gets the same order while the instances stay the same; adding or losing one moves only its share
    (weighted rendezvous hashing, Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005 for the weights).
    """
    instances = serving(tenant)
    if len(instances) > 1:
        by_priority = tenant.policy != "balance"
        instances.sort(key=lambda instance: (by_priority and instance.priority, -_score(instance, tenant.name, user)))
    return tuple(instance.endpoint for instance in instances)


def serving(tenant: Tenant) -> list[Instance]:
    """The instances that take new calls and registrations while they are well."""
    return [instance for instance in tenant.instances if not instance.drain]


def _score(instance: Instance, tenant: str, user: str) -> float:
    end = instance.endpoint
    text = f"{tenant}\0{user}\0{end.transport}\0{end.hostport}"
    point = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> (64 - _BITS)
    return -instance.weight / log((point + 0.5) / (1 << _BITS))
