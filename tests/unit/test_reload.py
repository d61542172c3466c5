"""A request to a node that runs: who is asked, and what is made of the answer."""

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipward import reload
from sipward.reload import Outcome, ReloadError
from sipward.settings import Settings


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    (tmp_path / "run").mkdir()
    return Settings(fqdn="sip.example.org", state_dir=tmp_path, network={"address": "192.0.2.1"})


@pytest.fixture
def node_runs(node: Settings) -> Iterator[None]:
    """This very process is the node: it holds the lock and takes the signal."""
    before = signal.signal(signal.SIGHUP, lambda *_: reload.answer(node, Outcome("", ("kamailio",))))
    with reload.lock_file(node).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
    signal.signal(signal.SIGHUP, before)


def test_nobody_is_asked_where_no_node_runs(node: Settings) -> None:
    assert reload.request(node) is None


@pytest.mark.parametrize(
    "text", ["", "nobody", "1", "999999999", str(os.getpid())], ids=["", "word", "1", "none", "own"]
)
def test_a_process_id_of_a_node_that_has_ended_is_nobodys(node: Settings, text: str) -> None:
    reload.lock_file(node).write_text(text)
    assert reload.running(node) == 0
    assert reload.request(node) is None


@pytest.mark.usefixtures("node_runs")
def test_the_answer_to_this_request_counts_and_not_an_older_one(node: Settings) -> None:
    reload.answer(node, Outcome("an older one", ()))
    assert reload.running(node) == os.getpid()
    assert reload.request(node) == Outcome("", ("kamailio",))


@pytest.mark.usefixtures("node_runs")
def test_a_signal_that_came_too_early_is_repeated(node: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "_AGAIN", 0.01)
    heard: list[int] = []

    def at_the_third(number: int, _: object) -> None:
        heard.append(number)
        if len(heard) == 3:
            reload.answer(node, Outcome("busy", ()))

    signal.signal(signal.SIGHUP, at_the_third)
    assert reload.request(node) == Outcome("busy", ())


@pytest.mark.usefixtures("node_runs")
def test_a_node_that_says_nothing_is_an_error(node: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "WITHIN", 0.05)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with pytest.raises(ReloadError, match="has not answered"):
        reload.request(node)
