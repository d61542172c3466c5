"""Where host names lead: what is kept, what is asked again, and that nothing waits. The DNS is played by the test."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sipward import resolver
from sipward.model import Endpoint
from sipward.resolver import Answer, LookUpError, Name, Resolver

PATIENCE = 10.0
CARRIER = Name("udp", "sip.carrier.example")
OTHER = Name("tcp", "other.example", 5070)


class Dns:
    """A DNS that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: queue.Queue[Name] = queue.Queue()
        self._said: dict[Name, queue.Queue[Answer | Exception]] = {CARRIER: queue.Queue(), OTHER: queue.Queue()}

    def __call__(self, name: Name) -> Answer:
        self.asked.put(name)
        said = self._said[name].get(timeout=PATIENCE)
        if isinstance(said, Exception):
            raise said
        return said

    def say(self, name: Name, *hosts: str, seconds: float = 1e6) -> None:
        self._said[name].put(Answer(ends(*hosts), seconds))

    def fail(self, name: Name, error: Exception) -> None:
        self._said[name].put(error)


def ends(*hosts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint("udp", host, 5060) for host in hosts)


def never_here(end: Endpoint) -> str:
    return "is not allowed" if end.host.startswith("127.") else ""


def until(condition: Callable[[], object]) -> None:
    """Wait for the resolver's own thread, which has an answer and has yet to write it down."""
    deadline = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        deadline.wait(0.005)
    raise AssertionError("it does not come true")


@pytest.fixture
def dns() -> Dns:
    return Dns()


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short times, for the tests' time alone."""
    monkeypatch.setattr(resolver, "_SHORTEST", 0.01)
    monkeypatch.setattr(resolver, "_AFTER_A_FAILURE", 0.01)


@contextmanager
def running(dns: Dns, directory: Path) -> Iterator[Resolver]:
    with closing(Resolver(dns, directory / "answers.json", never_here)) as found:
        yield found


def news(found: Resolver) -> set[Name]:
    changed: set[Name] = set()
    until(lambda: changed.update(found.news()) or changed)
    return changed


def test_a_name_leads_nowhere_until_it_is_known(dns: Dns, tmp_path: Path) -> None:
    with running(dns, tmp_path) as found:
        found.want([CARRIER])
        assert dns.asked.get(timeout=PATIENCE) == CARRIER
        assert (found.ends(CARRIER), found.news()) == ((), set())
        dns.say(CARRIER, "198.51.100.7")
        assert news(found) == {CARRIER}
        assert found.ends(CARRIER) == ends("198.51.100.7")
        assert found.news() == set()


def test_a_name_that_is_not_answered_holds_up_no_other(dns: Dns, tmp_path: Path) -> None:
    with running(dns, tmp_path) as found:
        found.want([CARRIER, OTHER])
        dns.say(OTHER, "198.51.100.8")
        assert news(found) == {OTHER}
        dns.say(CARRIER, "198.51.100.7")
        assert news(found) == {CARRIER}


def test_an_answer_is_asked_for_again_when_its_time_is_over_and_only_a_change_is_news(dns: Dns, tmp_path: Path) -> None:
    with running(dns, tmp_path) as found:
        found.want([CARRIER])
        dns.say(CARRIER, "198.51.100.7", seconds=0)
        assert news(found) == {CARRIER}
        dns.say(CARRIER, "198.51.100.7", seconds=0)
        for _ in range(3):
            dns.asked.get(timeout=PATIENCE)
        assert found.news() == set()
        dns.say(CARRIER, "198.51.100.9")
        assert news(found) == {CARRIER}
        assert found.ends(CARRIER) == ends("198.51.100.9")


def test_an_answer_holds_an_hour_at_most_and_a_while_at_least(dns: Dns, tmp_path: Path) -> None:
    known = resolver._Known()
    with running(dns, tmp_path) as found:
        found._shared.names[CARRIER] = known
        for seconds, held in ((1e9, 3600.0), (0.0, 0.01), (60.0, 60.0)):
            found._settled(CARRIER, Answer(ends("198.51.100.7"), seconds))
            assert known.due is not None
            assert known.due - resolver.time.monotonic() == pytest.approx(held, abs=5.0)


def test_the_last_answer_goes_on_while_the_dns_fails_and_the_reason_is_told(dns: Dns, tmp_path: Path) -> None:
    with running(dns, tmp_path) as found:
        found.want([CARRIER])
        dns.say(CARRIER, "198.51.100.7", seconds=0)
        assert news(found) == {CARRIER}
        dns.fail(CARRIER, LookUpError("the DNS does not answer in time"))
        until(found.complaints)
        assert found.complaints() == {"sip.carrier.example": "the DNS does not answer in time; the last answer goes on"}
        assert (found.ends(CARRIER), found.news()) == (ends("198.51.100.7"), set())
        dns.say(CARRIER, "198.51.100.7")
        until(lambda: not found.complaints())


def test_an_error_that_nobody_thought_of_is_a_failure_like_others(dns: Dns, tmp_path: Path) -> None:
    with running(dns, tmp_path) as found:
        found.want([CARRIER])
        dns.fail(CARRIER, IndexError())
        until(found.complaints)
        assert found.complaints() == {"sip.carrier.example": "IndexError(); there is no older answer"}
        dns.say(CARRIER, "198.51.100.7")
        assert news(found) == {CARRIER}


def test_where_a_name_may_not_lead_is_left_out_and_told(dns: Dns, tmp_path: Path) -> None:
    with running(dns, tmp_path) as found:
        found.want([CARRIER])
        dns.say(CARRIER, "127.0.0.1", "198.51.100.7", seconds=0)
        assert news(found) == {CARRIER}
        assert found.ends(CARRIER) == ends("198.51.100.7")
        assert found.complaints() == {"sip.carrier.example": "127.0.0.1 is not allowed"}
        dns.say(CARRIER, "127.0.0.1")
        until(lambda: found.complaints()["sip.carrier.example"] != "127.0.0.1 is not allowed")
        assert found.complaints() == {"sip.carrier.example": "127.0.0.1 is not allowed; the last answer goes on"}
        assert found.ends(CARRIER) == ends("198.51.100.7")


def test_the_answers_outlive_a_restart_while_the_dns_is_down(dns: Dns, tmp_path: Path) -> None:
    with running(dns, tmp_path) as found:
        found.want([CARRIER, OTHER])
        dns.say(CARRIER, "198.51.100.7", "2001:db8::7")
        dns.say(OTHER, "198.51.100.8")
        changed: set[Name] = set()
        until(lambda: changed.update(found.news()) or changed == {CARRIER, OTHER})
    with running(Dns(), tmp_path) as again:
        assert again.ends(CARRIER) == ends("198.51.100.7", "2001:db8::7")
        again.want([CARRIER, OTHER])
        assert again.ends(OTHER) == ends("198.51.100.8")


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"udp:a": 7}', '{"udp:a": ["b"]}', '{"a": []}', "[" * 100000])
def test_broken_answers_on_disk_are_asked_for_anew(dns: Dns, tmp_path: Path, content: str) -> None:
    (tmp_path / "answers.json").write_text(content)
    with running(dns, tmp_path) as found:
        found.want([CARRIER])
        assert found.ends(CARRIER) == ()
        dns.say(CARRIER, "198.51.100.7")
        assert news(found) == {CARRIER}


def test_a_disk_that_takes_nothing_is_told(dns: Dns, tmp_path: Path) -> None:
    (tmp_path / "answers.json.tmp").mkdir()
    with running(dns, tmp_path) as found:
        found.want([CARRIER])
        dns.say(CARRIER, "198.51.100.7")
        assert news(found) == {CARRIER}
        assert "cannot be written" in found.complaint


def test_a_name_that_nobody_wants_any_more_is_neither_asked_for_nor_news(dns: Dns, tmp_path: Path) -> None:
    with running(dns, tmp_path) as found:
        found.want([CARRIER])
        assert dns.asked.get(timeout=PATIENCE) == CARRIER
        found.want([OTHER])
        dns.say(CARRIER, "198.51.100.7")
        dns.say(OTHER, "198.51.100.8")
        assert news(found) == {OTHER}
        assert dns.asked.get(timeout=PATIENCE) == OTHER
        assert dns.asked.empty()


@pytest.mark.parametrize("name", [CARRIER, OTHER])
def test_a_name_reads_back_as_it_was(name: Name) -> None:
    assert Name.parse(str(name)) == name
