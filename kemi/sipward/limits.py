"""How much of the node a tenant or trunk uses at once, counted in shared memory and only where there is a limit."""

import time
from types import ModuleType

from sipward.decision import Answer, Charge

TOO_MANY_CALLS = Answer(503, "Service Unavailable", "calls-limit", retry_after=10)
TOO_FAST = Answer(503, "Service Unavailable", "calls-per-second-limit", retry_after=1)
TOO_MANY_REGISTRATIONS = Answer(503, "Service Unavailable", "registrations-per-second-limit", retry_after=1)


class Limiter:
    """The counting of one worker."""

    def __init__(self, sip: ModuleType) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip

    def refusal(self, method: str, charges: tuple[Charge, ...], call: str) -> Answer | None:
        """Count a new request; why it is too much, None when it is not. `call`: what `release` will be told."""
        if method == "REGISTER":
            rates = [(charge.name, charge.limits.registrations_per_second) for charge in charges]
            return TOO_MANY_REGISTRATIONS if self._is_too_fast(method, rates) else None
        if method != "INVITE":
            return None
        if self._is_too_fast(method, [(charge.name, charge.limits.calls_per_second) for charge in charges]):
            return TOO_FAST
        return self._enter([charge for charge in charges if charge.limits.calls], call)

    def withdraw(self, method: str, charges: tuple[Charge, ...]) -> None:
        """A request that was counted is one that had been counted before: it has one place, not two."""
        if method == "INVITE":
            for charge in charges:
                if charge.limits.calls:
                    self._sip.leave(charge.name)

    def release(self, call: str) -> None:
        """A call is over: whichever of its ends says so first counts."""
        names = self._sip.charged(call)
        if names and self._sip.tally(f"over {call}") == 1:
            self._sip.discharge(call)
            for name in names.split():
                self._sip.leave(name)

    def _is_too_fast(self, method: str, rates: list[tuple[str, int]]) -> bool:
        second = int(time.time())
        counted = [self._sip.tally(f"{second} {method} {name}") > most for name, most in rates if most]
        return any(counted)

    def _enter(self, charges: list[Charge], call: str) -> Answer | None:
        entered: list[str] = []
        for charge in charges:
            entered.append(charge.name)
            if self._sip.enter(charge.name) > charge.limits.calls:
                for name in entered:
                    self._sip.leave(name)
                return TOO_MANY_CALLS
        if entered:
            self._sip.charge(call, " ".join(entered))
        return None
