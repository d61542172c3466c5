"""A SIP ladder: who said what to whom, drawn line by line, after the fact or while it happens."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.sip import Message
from lab.wire import Wire

_STEP = 17
_MARGIN = 16


@dataclass
class Ladder:
    """Lifelines side by side. `names` are the wire's names in the order of the columns, `titles` what to call them."""

    wire: Wire
    names: Sequence[str]
    titles: dict[str, str] = field(default_factory=dict)
    start: float = 0.0

    def header(self) -> str:
        """The names above their lifelines."""
        line = " " * (_MARGIN + _STEP * len(self.names))
        for column, name in enumerate(self.names):
            title = self.titles.get(name, name)
            at = max(_MARGIN + column * _STEP - len(title) // 2, 0)
            line = line[:at] + title + line[at + len(title) :]
        return line.rstrip()

    def line(self, message: Message) -> str:
        """One message as an arrow between two lifelines; its time in seconds since the first."""
        self.start = self.start or message.time
        here, there = (self._column(message, end) for end in ("source", "destination"))
        line = list(" " * (_MARGIN + _STEP * (len(self.names) - 1) + 1))
        for column in range(len(self.names)):
            line[_MARGIN + column * _STEP] = "│"
        left, right = sorted((_MARGIN + here * _STEP, _MARGIN + there * _STEP))
        label = _label(message)
        if len(label) > right - left - 6:  # a lone status code says enough
            label = label.partition(" ")[0]
        arrow = f" {label} ".center(right - left - 2, "─")
        line[left + 1 : right] = f"{arrow}▶" if here < there else f"◀{arrow}"
        return f"{message.time - self.start:8.3f}" + "".join(line)[8:]

    def _column(self, message: Message, end: str) -> int:
        name = self.wire.who(getattr(message, end))
        return self.names.index(name) if name in self.names else 0


class Follower:
    """Hands every new message of the node to `show`, from a thread of its own. A context manager."""

    def __init__(self, wire: Wire, show: Callable[[Message], None]) -> None:
        self._wire = wire
        self._show = show
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="ladder", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _follow(self) -> None:
        shown = 0
        last = False
        while not last:
            last = self._end.wait(0.05)
            new = self._wire.messages(machine="node")[shown:]
            shown += len(new)
            for message in sorted(new, key=lambda m: m.time):
                self._show(message)


def _label(message: Message) -> str:
    if message.status is not None:
        return message.first_line.removeprefix("SIP/2.0 ")
    user = message.uri.partition("@")[0].removeprefix("sip:") if message.method == "INVITE" else ""
    # A Contact's user may be a long word of the phone's own.
    return f"{message.method} {user.partition('-')[0]}".rstrip()
