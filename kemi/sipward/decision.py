"""What routing is asked, and what it may answer."""

from collections.abc import Callable
from typing import NamedTuple

from sipward.model import NO_LIMITS, Endpoint, Limits, Side, Srtp, Tenant, Trunk
from sipward.tokens import Dialog
from sipward.uri import Uri


def _no_header(name: str) -> str:
    return ""


class Request(NamedTuple):
    """The facts of a request that routing looks at.

    `call_id` is the one the inner end knows; `route` is our own topmost Route's URI, if there is one; `strict`: the
    request came from a strict router and was put right, so that `uri` is not the one on the wire; `media`: the one of
    `tokens.Dialog`; `header` reads a header field's value by its name, "" when there is none; `port`: the
    own one of ours that it came to, 0 for the ordinary one; `srtp`: what it offers, of an INVITE outside any dialog.
    """

    method: str
    side: Side
    source: Endpoint
    call_id: str
    uri: Uri
    caller: Uri | None
    callee: Uri | None
    contact_port: int
    route: Uri | None
    in_dialog: bool
    has_sdp: bool
    media: int = 0
    via_port: int = 0
    strict: bool = False
    header: Callable[[str], str] = _no_header
    port: int = 0
    srtp: Srtp = Srtp.OFF


class Charge(NamedTuple):
    """Whose limits a request counts against: a tenant's by its name, a trunk's by its name behind a `%`."""

    name: str
    limits: Limits


class Relay(NamedTuple):
    """Send it on: to the first of `targets`, to the next when one is silent or broken.

    `dialog` names both ends as the answer and later requests will need them; `uri` is the new Request-URI, None to
    leave it; `redirect` says what a 3xx becomes; `asserts`: what the sender asserts of the caller (RFC 3325) may go on;
    `rule` is the number's that led here; `charges` are the limits it counts against; `holder` is the registration that
    is to have a port of ours to itself (`ports.holder`).
    """

    to: Side
    targets: tuple[Endpoint, ...]
    dialog: Dialog
    uri: Uri | None = None
    redirect: str = "pass"
    asserts: bool = False
    rule: str = ""
    charges: tuple[Charge, ...] = ()
    holder: str = ""


def charges(tenant: Tenant, trunk: Trunk | None = None) -> tuple[Charge, ...]:
    """What a request between the two counts against: nothing when neither has limits."""
    found = [Charge(tenant.name, tenant.limits)] if tenant.limits != NO_LIMITS else []
    if trunk and trunk.limits != NO_LIMITS:
        found.append(Charge(f"%{trunk.name}", trunk.limits))
    return tuple(found)


class Answer(NamedTuple):
    """Answer it here. `why` names the counter; `retry_after` in seconds."""

    code: int
    reason: str
    why: str
    retry_after: int = 0

    @property
    def headers(self) -> str:
        """The header lines that belong to it."""
        return f"Retry-After: {self.retry_after}\r\n" if self.retry_after else ""


type Decision = Relay | Answer


ALIVE = Answer(200, "OK", "keepalive")
FORBIDDEN = Answer(403, "Forbidden", "forbidden")
NOT_YOURS = Answer(403, "Forbidden", "foreign-dialog")
NOT_FOUND = Answer(404, "Not Found", "unknown-domain")
UNKNOWN_NUMBER = Answer(404, "Not Found", "unknown-number")
NOT_SERVED = Answer(404, "Not Found", "not-served")
"""Whose number, domain or Contact it is, the trunk does not serve."""
NO_DIALOG = Answer(481, "Call/Transaction Does Not Exist", "unknown-dialog")
NO_INSTANCE = Answer(503, "Service Unavailable", "no-instance", retry_after=10)
ALL_DOWN = Answer(503, "Service Unavailable", "all-down", retry_after=10)
NO_TENANT = Answer(503, "Service Unavailable", "no-tenant", retry_after=10)
"""A number's tenant is not there."""
NOT_PROVEN = Answer(503, "Service Unavailable", "trunk-unproven", retry_after=10)
"""A trunk over TLS none of whose targets has shown that it is the carrier."""
NO_TARGET = Answer(503, "Service Unavailable", "no-target", retry_after=10)
"""A trunk's names lead nowhere yet."""
