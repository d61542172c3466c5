"""The live table's entries: how a tenant is written into Kamailio's shared memory and read back by the workers.

One entry a domain and one a tenant, each holding all that routing needs, so that a message costs one look-up. The text
is compact JSON: `["name", "domain", "redirect", [["udp", "10.5.4.1", 5080, weight, priority, drain], ...]]`.
"""

import json
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from sipward.model import Endpoint, Instance, Tenant

TABLE = "routes"
"""The htable that maps `domain_key`s and `tenant_key`s to tenants."""

STATE = "state"
"""The htable where the sync process says how it is doing."""

STATE_KEY = "routes"
"""The key in STATE; its value is the JSON object that `sync` describes."""


def domain_key(domain: str) -> str:
    """Fold a host name the way the table's keys are folded (RFC 3261, 19.1.4: hosts compare without case)."""
    folded = domain.rstrip(".").lower()
    return _ipv6_key(folded) if ":" in folded else folded


def tenant_key(name: str) -> str:
    """Make the key of a tenant's own entry: no host name has an `@`, so it is no domain's key. It folds to itself."""
    return f"@{name}"


def _ipv6_key(host: str) -> str:
    """Fold an IPv6 address, in brackets or not: its many spellings are one address (RFC 5954, 4.1)."""
    try:
        return f"[{IPv6Address(host.strip('[]'))}]"
    except AddressValueError:
        return host


def encode(tenant: Tenant) -> str:
    """Write a tenant as one entry's text."""
    instances = [
        [i.endpoint.transport, i.endpoint.host, i.endpoint.port, i.weight, i.priority, int(i.drain)]
        for i in tenant.instances
    ]
    return json.dumps([tenant.name, tenant.domain, tenant.redirect, instances], separators=(",", ":"))


@lru_cache(maxsize=4096)
def decode(entry: str) -> Tenant:
    """Read an entry's text. Cached by the text itself, so an edit needs no invalidation."""
    name, domain, redirect, instances = json.loads(entry)
    return Tenant(
        name,
        tuple(Instance(Endpoint(t, host, port), w, p, bool(drain)) for t, host, port, w, p, drain in instances),
        redirect,
        domain,
    )
