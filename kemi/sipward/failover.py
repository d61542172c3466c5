"""What happens to a request whose target is silent, broken or cannot be reached: the next one, or an answer of ours."""

from collections.abc import Callable
from types import ModuleType

from sipward.anchor import Anchor
from sipward.balance import serving
from sipward.concealment import Concealment
from sipward.decision import ALL_DOWN, Answer
from sipward.edge import Edge
from sipward.live import Live
from sipward.model import Endpoint, Side, Socket, Srtp
from sipward.passage import Passage
from sipward.peers import Peers
from sipward.seal import Sealer
from sipward.tokens import Binding, Dialog
from sipward.uri import parse

ANSWERED_AT_ONCE = frozenset({"INVITE", "REGISTER", "OPTIONS", "SUBSCRIBE", "PUBLISH"})
"""What an instance itself answers at once (an INVITE with 100). Others it may pass on to a phone, and wait for it."""

BROKEN = frozenset({500, 502, 503, 504})
"""Answers that speak of the target, not of the call."""

INSTANCE_SILENT = Answer(503, "Service Unavailable", "instance-silent", retry_after=10)
TRUNK_SILENT = Answer(503, "Service Unavailable", "trunk-silent", retry_after=10)

Log = Callable[..., None]
"""Writes a line: event, reason, tenant, and more by name."""


class Failover:
    """The second chances of one worker."""

    def __init__(
        self,
        sip: ModuleType,
        edge: Edge,
        sealer: Sealer,
        live: Live,
        peers: Peers,
        conceal: Concealment,
        anchor: Anchor,
        log: Log,
    ) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._edge = edge
        self._sealer = sealer
        self._live = live
        self._peers = peers
        self._conceal = conceal
        self._anchor = anchor
        self._log = log

    def patience(self, method: str, to: Side, more: bool) -> int:
        """Milliseconds after which a silent target is given up; 0 for RFC 3261's. A carrier's, if there are more."""
        at_once = method in ANSWERED_AT_ONCE and (to is Side.SERVICE or more)
        return self._edge.instance_timeout if at_once else 0

    def is_broken(self, passage: Passage, status: int, silent: bool) -> bool:
        """Whether a failed request is its target's fault: a phone has no other one to go to."""
        return (passage.to is Side.SERVICE or bool(passage.trunk)) and (silent or status in BROKEN)

    def set_apart(self, passage: Passage) -> Passage | None:
        """The passage for a reply of the target that was tried first and given up; None for any other reply.

        Its 2xx goes on like a fork's (RFC 3261, 16.7, 5), for the caller to end: a dialog of its own, which leads to
        that target and has no part in the media of the call that another one has taken.
        """
        if passage.shown == passage.dialog or passage.again:
            return None
        dialog = Dialog.open(self._sealer, passage.dialog, passage.call_id)
        if dialog is None or self._sip.source() != (dialog.inner if passage.to is Side.SERVICE else dialog.outer):
            return None
        return passage._replace(shown=dialog._replace(media=dialog.media ^ 1).seal(self._sealer, passage.call_id))

    def go_on(self, passage: Passage, why: str) -> bool:
        """Leave the target that has failed out, and send to the next that can be sent to; False when there is none."""
        # Alone it would be left out for nothing: its 5xx is an answer, and the caller's.
        if passage.next or not why.isdigit():
            self._leave_out(passage, why)
        passage = passage._replace(next=tuple(end for end in passage.next if not self._live.is_down(end)))
        while passage.next:
            passage, sent = self._try_next(passage, why)
            if sent:
                return True
            why = "unreachable"
            self._leave_out(passage, why)
        return False

    def offer_otherwise(self, passage: Passage) -> bool:
        """Offer a phone that has refused SRTP plain RTP, or the other way round; False when that cannot help.

        Once: what it refuses then, it refuses for another reason. What a carrier or an instance gets is a setting.
        """
        if passage.to is Side.SERVICE or passage.trunk or passage.again or not passage.has_offer:
            return False
        dialog = Dialog.open(self._sealer, passage.dialog, passage.call_id)
        socket = self._edge.socket_for(passage.to, dialog.outer, dialog.port) if dialog else None
        if dialog is None or socket is None or self._sip.method() != "INVITE":
            return False
        dialog = dialog._replace(outer_srtp=Srtp.SDES if dialog.outer_srtp is Srtp.OFF else Srtp.OFF)
        if not self._anchor.offer_again(passage, dialog, socket):
            return False
        self._sip.count("offered-otherwise")
        self._log("offered-otherwise", "488", passage.tenant, srtp=dialog.outer_srtp)
        if dialog.outer.transport != "udp":
            self._sip.only_over_open_connection()
        # What has become of the Request-URI did so after its transaction was made, and is not there any more.
        uri = parse(self._sip.uri())
        if uri and (binding := Binding.of(self._sealer, uri)):
            self._sip.set_uri(binding.own_contact(uri.user))
        if not passage.renamed:
            # With Call-ID, From tag and CSeq as before it would be the first one by another way (RFC 3261, 8.2.2.2).
            # One that is not the instance's own any more cannot be replaced once more.
            dialog = dialog._replace(renamed=True)
            passage = passage._replace(renamed=self._conceal.outer_call_id(passage.call_id))
            self._sip.set_call_id(passage.renamed)
        shown = dialog.seal(self._sealer, passage.call_id)
        return self._send(passage._replace(shown=shown, again=True), dialog.outer, socket)

    def give_up(self, passage: Passage, silent: bool) -> None:
        """Answer for targets that have all failed, unless the only one's own words are the answer.

        The last one's 503 would pass for the node's and become a 500 (RFC 3261, 16.7, 6).
        """
        if silent:
            answer = INSTANCE_SILENT if passage.to is Side.SERVICE else TRUNK_SILENT
        elif self._is_alone(passage):
            return
        else:
            answer = ALL_DOWN
        self._sip.count(answer.why)
        self._log("failed", answer.why, passage.tenant, code=str(answer.code))
        self._sip.answer_failure(answer.code, answer.reason, answer.headers)

    def _leave_out(self, passage: Passage, why: str) -> None:
        """Let no new call go to the passage's target: to an instance until it has answered again."""
        dialog = Dialog.open(self._sealer, passage.shown, passage.call_id)
        if dialog is None:
            return
        if passage.to is not Side.SERVICE:
            self._sip.let_rest(dialog.outer, why)
            self._log("target-rests", why, passage.tenant, to=str(dialog.outer), trunk=passage.trunk)
        elif self._is_asked(passage.tenant, dialog.inner) and not self._live.is_down(dialog.inner):
            self._sip.mark_down(dialog.inner, why)
            self._sip.count("instance-down")
            self._log("instance-down", why, passage.tenant, to=str(dialog.inner))

    def _is_asked(self, tenant: str, end: Endpoint) -> bool:
        """Whether the prober asks for an instance: one that is no tenant's any more would stay marked."""
        now = self._live.named(tenant)
        return now is not None and any(instance.endpoint == end for instance in now.instances)

    def _is_alone(self, passage: Passage) -> bool:
        """Whether there is but one target for new calls."""
        if passage.to is not Side.SERVICE:
            trunk = self._live.trunk(passage.trunk)
            return trunk is None or len(trunk.targets) < 2
        tenant = self._live.named(passage.tenant)
        return tenant is None or len(serving(tenant)) < 2

    def _try_next(self, passage: Passage, why: str) -> tuple[Passage, bool]:
        """Send the failed request to the next target; what is known of it then, and whether it was sent."""
        sip, target = self._sip, passage.next[0]
        dialog = self._moved(passage, target)
        passage = passage.moved(dialog.seal(self._sealer, passage.call_id) if dialog else passage.shown)
        socket = self._edge.socket_for(passage.to, target, dialog.port if dialog else 0)
        if socket is None or (dialog and not self._has_offer_for(passage, dialog, socket)):
            return passage, False
        sip.count("failover")
        self._log("failover", why, passage.tenant, to=target.hostport)
        sip.renew_uri()
        return passage, self._send(passage, target, socket)

    def _send(self, passage: Passage, target: Endpoint, socket: Socket) -> bool:
        """Send the failed request once more."""
        sip = self._sip
        passage.remember(sip)
        sip.watch(failures=True)
        if passage.to is not Side.SERVICE and not passage.unhidden:
            sip.pretend_source(socket, self._edge.shown_to(passage.to, socket))
        sip.aim(target, self._edge.index_of(socket), self._edge.translated(passage.to, socket))
        if not self._peers.reach(passage.trunk, target):
            return False
        return bool(sip.relay(self.patience(sip.method(), passage.to, bool(passage.next))))

    def _moved(self, passage: Passage, target: Endpoint) -> Dialog | None:
        """The dialog whose target is another one than it began with."""
        dialog = Dialog.open(self._sealer, passage.dialog, passage.call_id)
        if dialog is None or passage.to is not Side.SERVICE:
            return dialog and dialog._replace(outer=target)
        tenant = self._live.named(passage.tenant)
        kind = tenant.srtp_of(target) if tenant else dialog.inner_srtp
        return dialog._replace(inner=target, inner_srtp=kind)

    def _has_offer_for(self, passage: Passage, dialog: Dialog, socket: Socket) -> bool:
        """Whether the failed request's offer is one for the next instance, or becomes one."""
        if passage.to is not Side.SERVICE or not passage.has_offer or self._sip.method() != "INVITE":
            return True
        tenant = self._live.named(passage.tenant)
        alike = tenant is None or len({instance.srtp for instance in tenant.instances}) < 2
        return alike or self._anchor.offer_again(passage, dialog, socket)
