"""What the replies and the failure of a request need to know of it, kept with its transaction."""

from dataclasses import dataclass
from types import ModuleType
from typing import Self

from sipward.model import Side

_NAME = "passage"


@dataclass(frozen=True, slots=True)
class Passage:
    """A request's way through the node.

    `back` is the index of the socket that received it, `inner` the instance as `transport:host:port`, `dialog` the
    sealed text of both ends, `call_id` the one the inner end knows, `renamed` the one the outer end knows if another.
    """

    origin: Side
    to: Side
    back: int
    has_offer: bool
    redirect: str
    tenant: str
    inner: str
    dialog: str
    call_id: str
    renamed: str

    def remember(self, sip: ModuleType) -> None:
        """Keep it with the running request's transaction."""
        first = f"{self.origin} {self.to} {self.back} {int(self.has_offer)} {self.redirect}"
        sip.remember(_NAME, f"{first} {self.tenant} {self.inner} {self.dialog} {self.call_id} {self.renamed}")

    @classmethod
    def recall(cls, sip: ModuleType) -> Self | None:
        """The passage of the running reply's or failure's request, None when it has none."""
        text = sip.recall(_NAME)
        if not text:
            return None
        origin, to, back, offer, redirect, tenant, inner, dialog, call_id, renamed = text.split(" ")
        return cls(Side(origin), Side(to), int(back), offer == "1", redirect, tenant, inner, dialog, call_id, renamed)
