"""What the replies and the failure of a request need to know of it, kept with its transaction."""

from types import ModuleType
from typing import NamedTuple, Self

from sipward.model import Endpoint, Side

_NAME = "passage"


class Passage(NamedTuple):
    """A request's way through the node.

    `back` is the index of the socket that received it; `dialog` the sealed text of both ends that the request carries,
    `shown` the one the reply shows (another one after a second try); `call_id` the one the inner end knows, `renamed`
    the one the outer end knows if that is another; `media` what rtpengine knows the call as; `trunk`, `fixed` and
    `unhidden` are the dialog's (`tokens.Dialog`); `next` the targets to try after this one; `holds`: it is a
    REGISTER of who has a port of ours to itself; `leaves`: one that removes what it registers; `secure`: it went over
    TLS; `teaches`: the phone's offer shows something new of its media; `again`: it is offered otherwise than at first;
    `target`: the host it was sent to; `begins`: it is outside a dialog.
    """

    origin: Side
    to: Side
    back: int
    has_offer: bool
    redirect: str
    tenant: str
    dialog: str
    shown: str
    call_id: str
    renamed: str
    media: str
    trunk: str
    fixed: bool
    unhidden: bool
    next: tuple[Endpoint, ...]
    holds: bool = False
    leaves: bool = False
    secure: bool = False
    teaches: bool = False
    again: bool = False
    target: str = ""
    begins: bool = False

    def remember(self, sip: ModuleType) -> None:
        """Keep it with the running request's transaction."""
        targets = ",".join(map(str, self.next))
        flags = self.has_offer | self.fixed << 1 | self.unhidden << 2 | self.holds << 3 | self.leaves << 4
        flags |= self.secure << 5 | self.teaches << 6 | self.again << 7 | self.begins << 8
        first = f"{self.origin} {self.to} {self.back} {flags} {self.redirect} {self.tenant} {self.trunk} {self.target}"
        sip.remember(_NAME, f"{first} {self.dialog} {self.shown} {targets} {self.call_id} {self.renamed} {self.media}")

    @classmethod
    def recall(cls, sip: ModuleType) -> Self | None:
        """The passage of the running reply's or failure's request, None when it has none."""
        text = sip.recall(_NAME)
        if not text:
            return None
        origin, to, back, bits, redirect, *words = text.split(" ")
        tenant, trunk, target, dialog, shown, targets, call_id, renamed, media = words
        flags = int(bits)
        following = tuple(map(Endpoint.parse, targets.split(","))) if targets else ()
        return cls(
            Side(origin),
            Side(to),
            int(back),
            bool(flags & 1),
            redirect,
            tenant,
            dialog,
            shown,
            call_id,
            renamed,
            media,
            trunk,
            bool(flags & 2),
            bool(flags & 4),
            following,
            bool(flags & 8),
            bool(flags & 16),
            bool(flags & 32),
            bool(flags & 64),
            bool(flags & 128),
            target,
            bool(flags & 256),
        )

    def moved(self, shown: str) -> Self:
        """The passage once the first of the following instances is tried."""
        return self._replace(shown=shown, next=self.next[1:], target=self.next[0].host)
