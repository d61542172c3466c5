"""What the certificate keeper says of itself, and what `sipward status` makes of it: pure but for the file between."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WARN_DAYS = 14
"""With so many left an expiry is a warning."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One name."""

    origin: str
    """Where the certificate in use is from; empty when there is none."""
    issuer: str
    not_after: str
    """ISO 8601, UTC; empty when there is none."""
    problem: str
    """Why it is not as it should be, in a line; empty when it is."""


@dataclass(frozen=True, slots=True)
class Report:
    """All names."""

    names: Mapping[str, Entry] = field(default_factory=dict)
    problem: str = ""
    """What keeps all of them from being given to Kamailio."""

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1)


def file(run: Path) -> Path:
    """Where it is said."""
    return run / "certificates.json"


def read(run: Path) -> Report | None:
    """Read what was said; None when nothing was yet."""
    try:
        found = json.loads(file(run).read_text())
        return Report({name: Entry(**entry) for name, entry in found["names"].items()}, found["problem"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def state(report: Report | None, now: datetime | None = None) -> dict[str, Any]:
    """The component of `status`."""
    if report is None:
        return {"state": "down", "detail": "not looked at yet"}
    now = now or datetime.now(UTC)
    names = {name: _shown(entry, now) for name, entry in report.names.items()}
    problems = [report.problem] if report.problem else []
    problems += [f"{name}: {said['problem']}" for name, said in names.items() if said["problem"]]
    more = [f"{len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    first = min((said["days_left"] for said in names.values() if said["expires"]), default=0)
    detail = "; ".join([*problems[:_SHOWN], *more]) or f"{_counted(len(names))}, the first expires in {first} days"
    return {"state": "degraded" if problems else "ok", "detail": detail, "names": names}


def _counted(number: int) -> str:
    return "1 name" if number == 1 else f"{number} names"


def _shown(entry: Entry, now: datetime) -> dict[str, Any]:
    days = (datetime.fromisoformat(entry.not_after) - now).days if entry.not_after else 0
    problem = "; ".join(_problems(entry, days))
    return {"expires": entry.not_after, "days_left": days, "from": entry.origin, "problem": problem}


def _problems(entry: Entry, days: int) -> Iterator[str]:
    if entry.not_after and days <= WARN_DAYS:
        yield f"expires in {days} days" if days >= 0 else f"has expired: {entry.not_after}"
    if entry.problem:
        yield entry.problem
