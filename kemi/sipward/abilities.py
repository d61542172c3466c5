"""What phones have shown of their media: kept for each flow of a tenant, for as long as the phone is registered.

The htable `srtp` has `acme udp:198.51.100.7:40123` -> `sdes` for a phone that does something else than its transport
lets expect (`live.expected`).
"""

import time
from types import ModuleType

from sipward.decision import Request
from sipward.live import CHANGED, SRTP, Live, expected, flow_key
from sipward.model import Endpoint, Side, Srtp
from sipward.tokens import Dialog

LIFETIME = 7200
"""Seconds that something is kept which no registration has confirmed: it may have been made just before."""


class Abilities:
    """What one worker learns."""

    def __init__(self, sip: ModuleType, live: Live) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._live = live

    def teaches(self, request: Request, dialog: Dialog) -> bool:
        """Whether a request, once it is answered, has shown something new of the phone that it is from."""
        if request.method != "INVITE" or request.in_dialog or not request.has_sdp:
            return False
        if request.side is Side.SERVICE or dialog.trunk:
            return False
        return self.is_news(dialog.tenant, dialog.outer, request.srtp)

    def is_news(self, tenant: str, flow: Endpoint, offered: Srtp) -> bool:
        """Whether a phone's own offer shows something else than is known of it.

        Plain RTP over TLS does not: such a phone may well do both, and says so when it does not.
        """
        known = self._live.srtp(tenant, flow)
        return offered is not known and (offered is not Srtp.OFF or expected(flow) is Srtp.OFF)

    def learn(self, tenant: str, flow: Endpoint, srtp: Srtp) -> None:
        """Keep what a phone does, which the answer to its call, or its own to ours, has confirmed."""
        if srtp is expected(flow):
            self._sip.erase(SRTP, flow_key(tenant, flow))
        else:
            self._sip.store_for(SRTP, flow_key(tenant, flow), srtp, LIFETIME)
        self._note()

    def knows(self, tenant: str, flow: Endpoint) -> bool:
        """Whether a phone has shown anything."""
        return self._sip.look_up(SRTP, flow_key(tenant, flow)) is not None

    def keep(self, tenant: str, flow: Endpoint, seconds: int) -> None:
        """A phone that has shown something is registered for so long from now on, 0: not any more."""
        key = flow_key(tenant, flow)
        if (shown := self._sip.look_up(SRTP, key)) and seconds:
            self._sip.store_for(SRTP, key, shown, seconds)
        else:
            self._sip.erase(SRTP, key)
            self._note()

    def _note(self) -> None:
        self._sip.store(SRTP, CHANGED, str(time.time_ns()))
