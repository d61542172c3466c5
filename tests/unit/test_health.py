"""The health of endpoints: who is asked when, and what answers, silence and the workers' marks make of it."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest

from sipward.health import AGAIN_MAX, KEPT, MARKS, SLOT, Health, Probe
from sipward.live import HEALTH, HEALTH_KEY, STATE
from sipward.model import Endpoint

A, B = Endpoint("udp", "10.5.4.11", 5060), Endpoint("tcp", "fd00:5:4::12", 5080)
WELL, BROKEN, SILENT = 200, 503, 0


class Memory:
    """Shared memory; `mark` is a worker that has found an endpoint silent."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.read: Counter[str] = Counter()

    def get(self, table: str, key: str) -> str | None:
        self.read[table] += 1
        return self.entries.get((table, key))

    def set(self, table: str, key: str, value: str) -> None:
        self.entries[table, key] = value

    def remove(self, table: str, key: str) -> None:
        self.entries.pop((table, key), None)

    def mark(self, *ends: Endpoint) -> None:
        key, table = MARKS
        for end in ends:
            self.entries[HEALTH, str(end)] = "silent"
            self.entries[table, key] = str(int(self.entries.get((table, key), "0")) + 1)

    @property
    def down(self) -> dict[str, str]:
        return {key: why for (table, key), why in self.entries.items() if table == HEALTH}


class World:
    """A clock, and instances that answer as they are told: by status, SILENT for nothing."""

    def __init__(self, interval: float = 30.0, threshold: int = 2) -> None:
        self.memory = Memory()
        self.logged: list[str] = []
        self._slots = 20_000
        self.health = Health(self.memory, self.logged.append, interval, 2.0, threshold, self.now)
        self.answer: Callable[[Endpoint], int] = lambda end: WELL
        self.asked: list[tuple[float, Endpoint]] = []
        self._look_at = self.now

    @property
    def now(self) -> float:
        """Amid a slot: no rounding moves it into another."""
        return (self._slots + 0.5) * SLOT

    def due(self) -> list[Probe]:
        """What is due in the next slot."""
        self._slots += 1
        return self.health.due(self.now)

    def watch(self, owner: str, *ends: Endpoint) -> None:
        self.health.watch(owner, ends, self.now)

    def run(self, seconds: float) -> None:
        """Let time pass as the prober does."""
        for _ in range(round(seconds / SLOT)):
            probes = self.due()
            if self.now >= self._look_at:
                self.health.look(self.now)
                self._look_at = self.now + 1.0
            for probe in probes:
                self.asked.append((self.now, probe.end))
                if status := self.answer(probe.end):
                    self.health.heard(probe.mark, status)

    def times(self, end: Endpoint) -> list[float]:
        return [when for when, asked in self.asked if asked == end]

    @property
    def said(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.memory.entries[STATE, HEALTH_KEY])
        return found


def ends(count: int) -> Iterable[Endpoint]:
    return (Endpoint("udp", f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 5060) for n in range(count))


# --- who is asked, and when --------------------------------------------------------------------------------------


def test_each_endpoint_is_asked_once_an_interval() -> None:
    world = World()
    world.watch("acme", A, B)
    world.run(300)
    for end in (A, B):
        times = world.times(end)
        assert len(times) == 10
        assert {round(after - before, 2) for before, after in pairwise(times)} == {30.0}


def test_twenty_thousand_that_are_loaded_at_once_are_asked_evenly_over_the_interval() -> None:
    world = World()
    for number, end in enumerate(ends(20_000)):
        world.watch(f"t{number}", end)
    world.run(30)
    assert len(world.asked) == len(set(world.asked)) == 20_000
    each_second = Counter(int(when) for when, _ in world.asked)
    assert max(each_second.values()) < 1.02 * 20_000 / 30
    assert max(Counter(when for when, _ in world.asked).values()) < 1.2 * 20_000 / 30 * SLOT


def test_with_an_interval_of_nothing_only_those_that_are_down_are_asked() -> None:
    world = World(interval=0)
    world.watch("acme", A, B)
    world.run(100)
    assert not world.asked
    world.memory.mark(A)
    world.run(10)
    assert not world.memory.down
    assert len(world.times(A)) == 2
    assert not world.times(B)


@pytest.mark.parametrize("status", [100, 180, 200, 302, 401, 404, 405, 481, 483, 486, 600, 603])
def test_whoever_answers_is_alive(status: int) -> None:
    world = World()
    world.answer = lambda end: status
    world.watch("acme", A)
    world.run(200)
    assert not world.memory.down


@pytest.mark.parametrize(
    ("status", "why"), [(SILENT, "silent"), (408, "408"), (500, "500"), (501, "501"), (503, "503"), (599, "599")]
)
@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_what_misses_as_often_as_the_threshold_says_is_down_and_one_line_says_so(
    status: int, why: str, threshold: int
) -> None:
    world = World(threshold=threshold)
    world.answer = lambda end: status
    world.watch("acme", A)
    while len(world.asked) < threshold:
        assert not world.memory.down
        world.run(SLOT)
    world.run(2.1)
    assert world.memory.down == {str(A): why}
    assert world.logged == [f"event=instance-down why={why} to={A}"]
    world.run(100)
    assert len(world.logged) == 1


def test_one_answer_between_two_silences_keeps_it_up() -> None:
    world = World()
    world.watch("acme", A)
    world.answer = lambda end: SILENT if len(world.asked) % 2 else WELL
    world.run(600)
    assert len(world.asked) == 20
    assert not world.logged


def test_late_answers_and_those_to_nobodys_question_say_nothing() -> None:
    world = World(threshold=1)
    world.watch("acme", A)
    world.answer = lambda end: SILENT
    probes: list[Probe] = []
    while not probes:
        probes = world.due()
    while not world.memory.down:
        assert not world.due()
    for mark in (probes[0].mark, "999.1", "1.999"):
        world.health.heard(mark, WELL)
        world.health.heard(mark, WELL)
    assert world.memory.down


def test_what_could_not_be_sent_says_nothing_and_is_sent_a_moment_later() -> None:
    world = World(threshold=1)
    world.watch("acme", A)
    sent = 0
    for _ in range(int(120 / SLOT)):
        for probe in world.due():
            sent += 1
            world.health.unsent(probe.mark)
    assert sent > 60
    assert not world.memory.down


# --- down, and up again ------------------------------------------------------------------------------------------


def test_what_is_down_is_asked_every_second_and_comes_back_after_two_answers_in_a_row() -> None:
    world = World()
    world.watch("acme", A, B)
    world.run(40)
    world.memory.mark(A)
    said = iter([WELL, BROKEN, WELL, SILENT, WELL])
    world.answer = lambda end: next(said, WELL) if end == A else WELL
    world.asked.clear()
    while len(world.times(A)) < 6:
        assert world.memory.down == {str(A): "silent"}
        world.run(SLOT)
    assert not world.memory.down
    assert world.logged == [f"event=instance-up why=answers to={A}"]
    gaps = [after - before for before, after in pairwise(world.times(A))]
    # A silence takes its two seconds.
    assert [round(gap, 1) for gap in gaps] == pytest.approx([1, 1, 1, 2, 1], abs=0.11)
    world.asked.clear()
    world.run(29)
    assert len(world.asked) <= 2


def test_what_was_asked_before_a_worker_marked_it_does_not_count_for_it() -> None:
    world = World()
    world.watch("acme", A)
    probes: list[Probe] = []
    while not probes:
        probes = world.due()
    world.memory.mark(A)
    world.health.look(world.now)
    world.health.heard(probes[0].mark, WELL)
    world.answer = lambda end: SILENT if len(world.asked) > 1 else WELL
    world.run(5)
    assert world.memory.down


def test_what_is_marked_when_it_is_watched_for_the_first_time_is_down() -> None:
    world = World()
    world.memory.mark(A)
    world.watch("acme", A)
    world.run(1.0)
    assert world.said == {"watched": 1, "down": 1, "names": {str(A): "silent"}}
    world.run(2.0)
    assert world.said == {"watched": 1, "down": 0, "names": {}}


def test_a_mark_that_somebody_else_has_removed_is_gone() -> None:
    world = World()
    world.watch("acme", A)
    world.memory.mark(A)
    world.answer = lambda end: SILENT
    world.run(2)
    assert world.said["down"] == 1
    world.memory.remove(HEALTH, str(A))
    world.run(1.1)
    assert world.said["down"] == 0
    world.asked.clear()
    world.run(25)
    assert len(world.asked) <= 1


def test_a_whole_network_that_is_down_is_asked_at_a_rate_that_the_node_can_bear() -> None:
    world = World()
    many = list(ends(5 * AGAIN_MAX))
    world.watch("acme", *many)
    world.answer = lambda end: SILENT
    world.memory.mark(*many)
    world.run(10)
    world.asked.clear()
    world.run(10)
    assert len(world.asked) == pytest.approx(10 * AGAIN_MAX, rel=0.1)


def test_as_long_as_no_worker_marks_anything_nothing_is_looked_up_for_those_that_are_well() -> None:
    world = World()
    world.watch("acme", *ends(100))
    world.run(2)
    world.memory.read.clear()
    world.run(60)
    assert not world.memory.read[HEALTH]


def test_the_first_few_names_are_said_of_many_that_are_down() -> None:
    world = World()
    many = list(ends(100))
    world.watch("acme", *many)
    world.memory.mark(*many[10:])
    world.answer = lambda end: SILENT
    world.run(1.1)
    assert (world.said["watched"], world.said["down"]) == (100, 90)
    assert world.said["names"] == dict.fromkeys(sorted(map(str, many[10:]))[:5], "silent")


# --- health belongs to the endpoint ------------------------------------------------------------------------------


def down(*owners: str) -> World:
    """A world in which A is down and stays so, B is well."""
    world = World()
    world.answer = lambda end: SILENT if end == A else WELL
    for owner in owners:
        world.watch(owner, A, B)
    world.memory.mark(A)
    world.run(5)
    return world


@pytest.mark.parametrize(
    "edit",
    [
        lambda world: world.watch("acme", B, A),
        lambda world: (world.watch("acme"), world.watch("acme", A, B)),
        lambda world: (world.watch("acme"), world.run(KEPT - 1), world.watch("acme", A, B)),
        lambda world: (world.watch("globex", A), world.watch("acme", B)),
        lambda world: (world.watch("globex", A), world.watch("acme"), world.run(3 * KEPT)),
        lambda world: world.watch("acme", A),
    ],
    ids=["edited", "removed-and-added", "added-later", "moved", "one-of-two", "sibling-gone"],
)
def test_no_edit_forgets_or_invents_health(edit: Callable[[World], object]) -> None:
    world = down("acme")
    edit(world)
    world.run(5)
    assert world.memory.down == {str(A): "silent"}
    world.answer = lambda end: WELL
    world.run(5)
    assert not world.memory.down


def test_an_endpoint_that_no_tenant_has_any_more_is_forgotten() -> None:
    world = down("acme", "globex")
    world.watch("acme")
    world.run(2 * KEPT)
    assert world.memory.down
    world.watch("globex")
    world.run(KEPT + 2)
    assert not world.memory.down
    assert world.said == {"watched": 0, "down": 0, "names": {}}
    world.asked.clear()
    world.run(100)
    assert not world.asked
    world.watch("acme", A)
    world.run(1)
    assert not world.memory.down


def test_an_edit_does_not_ask_anyone_earlier_or_later() -> None:
    world, edited = World(), World()
    for each in (world, edited):
        each.watch("acme", A, B)
    for _ in range(60):
        world.run(1)
        edited.run(1)
        edited.watch("acme", A, B)
    assert edited.asked == world.asked
