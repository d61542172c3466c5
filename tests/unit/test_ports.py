"""Which registration at a carrier has which of our ports, in memory and on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

from sipward import ports, snapshot
from sipward.live import PORTS
from sipward.model import Endpoint
from sipward.port_keeper import PortKeeper
from sipward.ports import Ports, holder, is_removal, short
from sipward.tokens import Dialog
from sipward.uri import Uri

DAY = 86_400
NOW = 1_800_000_000
OWN = (5100, 5101, 5102)
DIALOG = Dialog("acme", Endpoint("udp", "198.51.100.50", 5060), Endpoint("udp", "10.5.4.11", 5080), trunk="carrier")


class Memory:
    """Shared memory as a worker and the sync process see it."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.is_locked = False
        self.now = NOW

    def look_up(self, table: str, key: str) -> str | None:
        assert table == PORTS
        return self.entries.get(key)

    get = look_up

    def store(self, table: str, key: str, value: str) -> None:
        assert self.is_locked
        self.set(table, key, value)

    def set(self, table: str, key: str, value: str) -> None:
        assert table == PORTS
        self.entries[key] = value

    def erase(self, table: str, key: str) -> None:
        assert self.is_locked
        self.entries.pop(key, None)

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        assert table == PORTS
        self.is_locked = True
        yield
        self.is_locked = False


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr("time.time", lambda: memory.now)
    monkeypatch.setattr("time.time_ns", lambda: len(memory.entries) + 10 * memory.now)
    return memory


def worker(memory: Memory) -> Ports:
    return Ports(cast("ModuleType", memory), OWN)


def who(user: str, host: str = "sip.carrier.example", dialog: Dialog = DIALOG) -> str:
    return holder(dialog, Uri("sip", user, host))


def registered(memory: Memory, user: str) -> int:
    port = worker(memory).take(who(user))
    worker(memory).answered(port, removed=False)
    return port


def removed(memory: Memory, user: str) -> None:
    worker(memory).answered(worker(memory).take(who(user)), removed=True)


def test_a_registration_is_a_trunks_a_tenants_an_instances_and_an_accounts() -> None:
    others = [
        who("202"),
        who("201", "other.example"),
        who("201", dialog=DIALOG._replace(trunk="other")),
        who("201", dialog=DIALOG._replace(tenant="globex")),
        who("201", dialog=DIALOG._replace(inner=Endpoint("udp", "10.5.4.12", 5080))),
    ]
    assert len({who("201"), *others}) == 6
    assert who("201", "SIP.Carrier.example.") == who("201")
    assert who("201", dialog=DIALOG._replace(outer=DIALOG.inner, port=5100)) == who("201")
    assert short(who("201")) == short(who("201", "other.example")) != short(who("202"))


def test_each_registration_has_a_port_of_its_own_and_keeps_it(memory: Memory) -> None:
    first = [registered(memory, user) for user in ("1", "2", "3")]
    assert sorted(first) == list(OWN)
    memory.now += 365 * DAY
    assert [registered(memory, user) for user in ("3", "2", "1")] == first[::-1]


def test_when_all_are_taken_there_is_none(memory: Memory) -> None:
    for user in ("1", "2", "3"):
        registered(memory, user)
    assert worker(memory).take(who("4")) == 0
    assert Ports(cast("ModuleType", memory), ()).take(who("4")) == 0
    assert short(who("4")) not in memory.entries


def test_a_port_that_was_removed_goes_only_when_none_is_left_that_nobody_had(memory: Memory) -> None:
    first = registered(memory, "1")
    removed(memory, "1")
    second = registered(memory, "2")
    assert second != first
    assert worker(memory).take(who("1")) == first
    third = registered(memory, "3")
    assert registered(memory, "4") == first
    assert worker(memory).take(who("1")) == 0
    assert [worker(memory).take(who(user)) for user in ("2", "3")] == [second, third]


def test_a_registration_that_comes_back_in_time_has_its_port_again(memory: Memory) -> None:
    first = registered(memory, "1")
    removed(memory, "1")
    assert registered(memory, "1") == first
    for user in ("2", "3"):
        registered(memory, user)
    assert worker(memory).take(who("4")) == 0


def test_a_port_goes_after_a_week_in_which_its_registration_was_not_seen(memory: Memory) -> None:
    first = {user: registered(memory, user) for user in ("1", "2", "3")}
    memory.now += 6 * DAY
    assert worker(memory).take(who("4")) == 0
    registered(memory, "2")
    memory.now += DAY
    assert registered(memory, "4") in {first["1"], first["3"]}
    assert worker(memory).take(who("2")) == first["2"]


def test_who_is_never_registered_has_a_port_for_minutes_only(memory: Memory) -> None:
    for user in ("1", "2", "3"):
        worker(memory).take(who(user))
    assert worker(memory).take(who("4")) == 0
    memory.now += 301
    assert registered(memory, "4") in OWN
    assert worker(memory).take(who("5")) in OWN


def test_nothing_is_written_while_nothing_changes(memory: Memory) -> None:
    registered(memory, "1")
    before = dict(memory.entries)
    memory.now += DAY - 1
    registered(memory, "1")
    assert memory.entries == before
    memory.now += 1
    registered(memory, "1")
    assert memory.entries != before


def test_the_short_name_is_the_first_ones_and_goes_with_it(memory: Memory) -> None:
    key, other = who("1"), who("1", "other.example")
    first, second = worker(memory).take(key), worker(memory).take(other)
    assert first != second
    assert memory.entries[short(key)] == str(first)
    worker(memory).answered(second, removed=True)
    registered(memory, "3")
    registered(memory, "4")
    assert other not in memory.entries
    assert memory.entries[short(key)] == str(first)


@pytest.mark.parametrize(
    ("contacts", "expires", "expected"),
    [
        (["<sip:1@h>;expires=0"], "", True),
        (["<sip:1@h>;q=0.5;Expires = 0"], "3600", True),
        (["<sip:1@h>"], " 0", True),
        (["*"], "0", True),
        (["<sip:1@h>;expires=0, <sip:2@h>;expires=00"], "", True),
        (["<sip:1@h>;expires=60"], "0", False),
        (["<sip:1@h>;expires=0, <sip:2@h>;expires=60"], "0", False),
        (["<sip:1@h>;expires=0", "<sip:2@h>"], "", False),
        (["<sip:1@h;expires=0>"], "60", False),
        ([], "0", False),
        (["<sip:1@h>"], "never", False),
    ],
)
def test_a_register_is_a_removal_when_all_its_contacts_go(contacts: list[str], expires: str, expected: bool) -> None:
    assert is_removal(contacts, expires) is expected


# On disk


def keeper(memory: Memory, directory: Path, own: tuple[int, ...] = OWN) -> PortKeeper:
    return PortKeeper(memory, own, directory / "ports.jsonl")


def after_a_restart(memory: Memory, directory: Path, own: tuple[int, ...] = OWN) -> tuple[Memory, PortKeeper]:
    writing = keeper(memory, directory)
    writing.keep()
    writing.close()
    fresh = Memory()
    fresh.now = memory.now
    found = keeper(fresh, directory, own)
    found.resume()
    return fresh, found


def test_after_a_restart_all_is_as_it_was(memory: Memory, tmp_path: Path) -> None:
    first = [registered(memory, user) for user in ("1", "città")]
    fresh, found = after_a_restart(memory, tmp_path)
    del memory.entries[ports.CHANGED]
    assert fresh.entries == memory.entries
    assert [worker(fresh).take(who(user)) for user in ("1", "città")] == first
    assert (found.taken, found.complaint) == (2, "")


def test_a_port_that_is_none_any_more_is_forgotten(memory: Memory, tmp_path: Path) -> None:
    first = [registered(memory, user) for user in ("1", "2", "3")]
    fresh, found = after_a_restart(memory, tmp_path, (first[0], first[2]))
    assert fresh.entries.keys() == {str(first[0]), who("1"), short(who("1")), str(first[2]), who("3"), short(who("3"))}
    assert found.taken == 2


def test_it_is_written_when_it_has_changed_and_not_before(memory: Memory, tmp_path: Path) -> None:
    file, found = tmp_path / "ports.jsonl", keeper(memory, tmp_path)
    found.resume()
    found.keep()
    found.close()
    assert not file.exists()
    registered(memory, "1")
    found.keep()
    found.close()
    assert len(saved(file)) == 1
    file.unlink()
    found.keep()
    found.close()
    assert not file.exists()
    registered(memory, "2")
    found.close()
    assert len(saved(file)) == 2


def saved(file: Path) -> list[str]:
    last = snapshot.load(file)
    assert last
    return list(last.lines)


def test_it_says_that_all_are_taken_until_one_is_not(memory: Memory, tmp_path: Path) -> None:
    found = keeper(memory, tmp_path)
    for user in ("1", "2", "3"):
        registered(memory, user)
    found.keep()
    assert found.complaint == "all 3 ports of trunks.own_ports are taken: an account that is new gets 503"
    removed(memory, "2")
    found.keep()
    assert (found.taken, found.complaint) == (2, "")
    found.close()


@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"version": 2, "made_under": "", "withheld": []}\n[1]\n0\n'])
def test_a_file_that_is_no_good_is_named_and_the_node_starts(memory: Memory, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ports.jsonl").write_bytes(content)
    found = keeper(memory, tmp_path)
    found.resume()
    assert f"{tmp_path}/ports.jsonl: cannot be used" in found.complaint
    assert memory.entries == {}
