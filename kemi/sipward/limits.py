"""How much of the node a tenant, trunk or source address uses at once, counted in shared memory.

Calls are counted where there is a limit; the streams that have ports everywhere, so that nobody can take all ports: a
tenant's behind a `=`, those of calls from one address outside behind an `@`.
"""

import time
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Network
from types import ModuleType

from sipward.decision import Answer, Relay, Request
from sipward.model import NO_SHARES, Shares, Side

TOO_MANY_CALLS = Answer(503, "Service Unavailable", "calls-limit", retry_after=10)
TOO_MANY_PORTS = Answer(503, "Service Unavailable", "ports-limit", retry_after=10)
TOO_FAST = Answer(503, "Service Unavailable", "calls-per-second-limit", retry_after=1)
TOO_MANY_REGISTRATIONS = Answer(503, "Service Unavailable", "registrations-per-second-limit", retry_after=1)

TENANT, SOURCE = "=", "@"


class Limiter:
    """The counting of one worker."""

    def __init__(self, sip: ModuleType, shares: Shares = NO_SHARES) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._shares = shares

    def refusal(self, request: Request, relay: Relay, call: str) -> Answer | None:
        """Count an INVITE or REGISTER outside a dialog; why it is too much, or None. `call`: for `release`."""
        method, charges = request.method, relay.charges
        if method == "REGISTER":
            rates = [(charge.name, charge.limits.registrations_per_second) for charge in charges]
            return TOO_MANY_REGISTRATIONS if self._is_too_fast(method, rates) else None
        if charges and self._is_too_fast(method, [(charge.name, charge.limits.calls_per_second) for charge in charges]):
            return TOO_FAST
        return self._enter(self._bounds(request, relay), call)

    def widen(self, call: str, streams: int) -> Answer | None:
        """Count the streams of an offer to a call, of which the first has been counted with the call."""
        if not (self._sip.charged(call) and any(self._shares)):
            return None
        with self._sip.locked("charges"):
            names = self._sip.charged(call).split()
            shared = dict.fromkeys(name for name in names if name[0] in (TENANT, SOURCE))
            more = [name for name in shared for _ in range(streams - names.count(name))]
            over = [name for name in more if self._sip.enter(name) > self._most(name)]
            if over:
                self._leave(more)
                return TOO_MANY_PORTS
            if more:
                self._sip.charge(call, " ".join([*names, *more]))
        return None

    def release(self, call: str) -> None:
        """A call is over: whichever of its ends says so first counts."""
        if not self._sip.charged(call):
            return
        with self._sip.locked("charges"):
            names = self._sip.charged(call).split()
            self._sip.discharge(call)
        self._leave(names)

    def forget(self, names: str) -> None:
        """A call that nobody has ended counts no more. `names`: those it was charged to."""
        self._leave(names.split())

    def _is_too_fast(self, method: str, rates: list[tuple[str, int]]) -> bool:
        second = int(time.time())
        counted = [self._sip.tally(f"{second} {method} {name}") > most for name, most in rates if most]
        return any(counted)

    def _bounds(self, request: Request, relay: Relay) -> list[tuple[str, int]]:
        """What a call counts against, and how many of it there may be."""
        bounds = [(charge.name, charge.limits.calls) for charge in relay.charges if charge.limits.calls]
        if self._shares.tenant:
            bounds.append((TENANT + relay.dialog.tenant, self._shares.tenant))
        # A carrier is one address for the calls of many.
        if self._shares.source and request.side is not Side.SERVICE and not relay.dialog.trunk:
            bounds.append((SOURCE + network(request.source.host), self._shares.source))
        return bounds

    def _most(self, name: str) -> int:
        return self._shares.tenant if name[0] == TENANT else self._shares.source

    def _enter(self, bounds: list[tuple[str, int]], call: str) -> Answer | None:
        if not bounds:
            return None
        with self._sip.locked("charges"):
            if self._sip.charged(call):
                # The same request once more, whoever sends it: it has its place.
                return None
            for at, (name, most) in enumerate(bounds, 1):
                if self._sip.enter(name) > most:
                    self._leave(each for each, _ in bounds[:at])
                    return TOO_MANY_PORTS if name[0] in (TENANT, SOURCE) else TOO_MANY_CALLS
            self._sip.charge(call, " ".join(name for name, _ in bounds))
        return None

    def _leave(self, names: Iterable[str]) -> None:
        for name in names:
            if self._sip.leave(name) <= 0 and name[0] == SOURCE:
                # There are as many addresses as somebody likes to come from.
                self._sip.erase("calls", name)


@lru_cache(maxsize=65536)
def network(host: str) -> str:
    """Who an address belongs to: itself, or the IPv6 network that one customer has at least (RFC 6177)."""
    return str(IPv6Network((host, 64), strict=False)) if ":" in host else host
