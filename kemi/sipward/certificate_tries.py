"""When a certificate that could not be had is asked for again: later each time, also after a restart."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sipward.certificates import replace

_LONGEST = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Try:
    """What came of the last one."""

    origin: str
    """Who was asked."""
    failed: int
    """How many in a row."""
    after: str
    """When the next one may be: ISO 8601."""
    why: str


def pause(failed: int, first: timedelta, wanted: timedelta) -> timedelta:
    """How long to wait after so many failures: twice as long each time, and as long as the CA wants."""
    doubled: int = 1 << min(failed - 1, 20)
    return max(wanted, min(_LONGEST, first * doubled))


class Tries:
    """The names whose last try has failed."""

    def __init__(self, path: Path) -> None:
        """`path`: the file that they are kept in; one that cannot be read counts for none."""
        self._path = path
        try:
            self._failed = {name: Try(**found) for name, found in json.loads(path.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._failed = {}

    def get(self, name: str, origin: str) -> Try | None:
        """What came of the last try of a name there, when it has failed."""
        found = self._failed.get(name)
        return found if found and found.origin == origin else None

    def is_time(self, name: str, origin: str, now: datetime) -> bool:
        """Whether it may be tried."""
        found = self.get(name, origin)
        return found is None or now >= datetime.fromisoformat(found.after)

    def fail(self, name: str, origin: str, why: str, now: datetime, first: timedelta, wanted: timedelta) -> None:
        """Note a failure."""
        last = self.get(name, origin)
        failed = last.failed + 1 if last else 1
        after = now + pause(failed, first, wanted)
        self._keep({**self._failed, name: Try(origin, failed, after.isoformat(timespec="seconds"), why)})

    def forget(self, name: str) -> None:
        """Note that it was had, or is not wanted any more."""
        if name in self._failed:
            self._keep({one: found for one, found in self._failed.items() if one != name})

    def _keep(self, failed: dict[str, Try]) -> None:
        self._failed = failed
        replace(self._path, json.dumps({name: asdict(found) for name, found in failed.items()}, indent=1).encode())
