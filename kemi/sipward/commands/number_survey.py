"""What `sipward number check` looks at: all numbers, and the tenants and trunks that they name."""

from collections import Counter
from collections.abc import Iterator

from sipward.commands.values import Usage, checked
from sipward.number_check import Entry, NumberCheck
from sipward.number_rules import NumberRecord
from sipward.problems import printable
from sipward.records import Kind, Record
from sipward.settings import Settings
from sipward.store import Store, taken_by
from sipward.trunks import TrunkRecord

_OWN = "instances of its own"


class Survey:
    """All that is to be said of the numbers in Redis. Go through `lines` first."""

    def __init__(self, node: Settings, store: Store) -> None:
        """Read the names of the tenants, and the trunks."""
        self._store = store
        self._usage = Usage(node, store, Kind.NUMBER)
        self._tenants = store.names(Kind.TENANT)
        rules = self._usage.rules
        self._trunks = {name: checked(Kind.TRUNK, name, one, rules) for name, one in store.list(Kind.TRUNK).items()}
        self._check = NumberCheck()
        self._owners: dict[str, str] = {}
        self._contested: dict[str, None] = {}
        self._bad: set[str] = set()
        self._numbers = 0
        self._count: Counter[str] = Counter()

    @property
    def lines(self) -> Iterator[str]:
        """A line a finding."""
        for what, text in self._findings():
            self._count[what] += 1
            yield f"{what}: {text}"

    @property
    def is_wrong(self) -> bool:
        """Whether there was anything but overlaps."""
        return bool(self._count.keys() - {"overlap"})

    @property
    def summary(self) -> str:
        """How many numbers there are, and how many findings of each sort."""
        found = ", ".join(f"{what}: {count}" for what, count in self._count.items())
        return f"{self._numbers} numbers; {found or 'nothing to be said'}"

    def _findings(self) -> Iterator[tuple[str, str]]:
        """What is wrong first, then what may be meant so."""
        for some in self._store.each(Kind.NUMBER):
            for name, value in some.items():
                yield from self._seen(name, checked(Kind.NUMBER, name, value, self._usage.rules))
        yield from self._unused()
        for loser in self._check.losers():
            yield "never wins", f"{loser.name} ({loser.owner}): each number that it matches has a more specific rule"
        for inner, outer in self._check.overlaps():
            yield "overlap", f"{inner.name} ({inner.owner}) is inside {outer.name} ({outer.owner})"

    def _seen(self, name: str, record: Record | str) -> Iterator[tuple[str, str]]:
        self._numbers += 1
        if isinstance(record, NumberRecord):
            yield from self._named(record)
            if (there := self._take(record)).name != name:
                self._contested |= {there.name: None, name: None}
        else:
            self._bad.add(name)
            yield "not used", f"number {printable(name)}: {record}"

    def _named(self, record: NumberRecord) -> Iterator[tuple[str, str]]:
        """Whether there are the tenant and the trunk that a number names, and the one serves the other."""
        tenant = record.value.tenant
        if tenant and tenant not in self._tenants:
            yield "no such tenant", f"{record.name} leads to {tenant}"
        if not record.trunk:
            return
        trunk = self._trunks.get(record.trunk)
        if trunk is None:
            yield "no such trunk", record.name
        elif not isinstance(trunk, TrunkRecord):
            yield "trunk not used", f"{record.name}: {trunk}"
        elif tenant and not trunk.to_trunk().serves(tenant):
            yield "not served", f"{record.name} leads to {tenant}, which trunk {record.trunk} does not serve"

    def _take(self, record: NumberRecord) -> Entry:
        """Count a rule in, unless there is another spelling of it; returns what is there."""
        # A text an owner, not a text a number.
        owner = self._owners.setdefault(record.value.tenant or _OWN, record.value.tenant or _OWN)
        return self._check.add(record.rule, record.trunk, Entry(record.name, owner, record.value.exact))

    def _unused(self) -> Iterator[tuple[str, str]]:
        """Which of several spellings of a rule are not used, and what else the running node says; the used count."""
        values = self._store.some(Kind.NUMBER, sorted(self._contested))
        found = {name: checked(Kind.NUMBER, name, value, self._usage.rules) for name, value in values.items()}
        good = {name: one for name, one in found.items() if isinstance(one, NumberRecord)}
        unused = dict(self._usage.unused(good))
        for record in good.values():
            self._check.drop(record.rule, record.trunk)
        for record in good.values():
            if record.name not in unused and (there := self._take(record)).name != record.name:
                unused[record.name] = taken_by(Kind.NUMBER, record.claims[0], there.name)
        for name, why in unused.items():
            if name not in self._bad:
                yield "not used", f"number {printable(name)}: {why}"
