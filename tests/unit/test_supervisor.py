"""The supervisor with small shell programs: what it starts again, what it leaves behind, what it says."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from sipward.supervisor import Component, StartError, Supervisor

PATIENCE = 10.0


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The supervisor takes the signals of the process; here they are given back."""
    monkeypatch.setattr(Supervisor, "PAUSE", 0.01)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def component(
    tmp_path: Path, script: str, ready: Callable[[], bool] = lambda: True, name: str = "part", reads: str = ""
) -> Component:
    return Component(name, ["sh", "-c", script], tmp_path / f"{name}.log", ready, reads=reads)


def run(
    components: Sequence[Component],
    meanwhile: Callable[[], None],
    reload: Callable[[Supervisor], None] = lambda _: None,
) -> list[str]:
    """Run until `meanwhile`, in a thread of its own, has come to its end; what was said."""
    said: list[str] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            wait_for(lambda: "ready" in said)
            meanwhile()
        except BaseException as problem:
            problems.append(problem)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=work)
    thread.start()
    Supervisor(components, said.append, reload).run()
    thread.join()
    if problems:
        raise problems[0]
    return said


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def pid_in(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_what_ends_is_started_again(tmp_path: Path) -> None:
    part = component(tmp_path, "exec sleep 100")

    def kill() -> None:
        assert part.process
        first = part.process.pid
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: part.process and part.process.pid != first)

    said = run([part], kill)
    assert said == ["ready", "part ended with -9: starting it again"]
    assert part.process
    assert not is_alive(part.process.pid)


def test_children_that_outlive_a_killed_component_are_gone_before_it_starts_again(tmp_path: Path) -> None:
    """Kamailio's workers do, and hold its ports."""
    child, second = tmp_path / "child", tmp_path / "second"
    script = f"""
        [ -e {child} ] && {{ kill -0 $(cat {child}) 2>/dev/null && echo alive >{second} || echo gone >{second}; }}
        sleep 100 & echo $! >{child}.new; mv {child}.new {child}; wait"""
    part = component(tmp_path, script, child.exists)

    def kill() -> None:
        assert part.process
        os.kill(part.process.pid, signal.SIGKILL)
        wait_for(second.exists)
        wait_for(second.read_text)

    run([part], kill)
    assert second.read_text() == "gone\n"
    assert not is_alive(pid_in(child)), "nor does one outlive the end"


def test_components_stop_in_reverse_order(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    parts = [
        component(
            tmp_path,
            f"trap 'echo {name} >>{ends}; exit' TERM; touch {tmp_path}/{name}; while :; do sleep 0.01; done",
            (tmp_path / name).exists,
            name,
        )
        for name in ("first", "second", "third")
    ]
    run(parts, lambda: None)
    assert ends.read_text().split() == ["third", "second", "first"]


def test_a_component_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "STOP_WITHIN", 0.1)
    deaf = tmp_path / "deaf"
    part = component(tmp_path, f"trap '' TERM; touch {deaf}; while :; do sleep 0.01; done", deaf.exists)
    assert run([part], lambda: None) == ["ready", "part does not stop: killing it"]
    assert part.process
    assert not is_alive(part.process.pid)


def test_a_component_that_ends_while_starting_ends_the_start_with_the_end_of_its_log(tmp_path: Path) -> None:
    first, second = component(tmp_path, "exec sleep 100", name="first"), component(tmp_path, "echo oh; exit 3", bool)
    with pytest.raises(StartError, match=r"part ended at once; its log .*part.log ends:\noh"):
        Supervisor([first, second], print).run()
    assert first.process
    assert not is_alive(first.process.pid)


def test_a_component_that_does_not_get_ready_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "READY_WITHIN", 0.1)
    part = component(tmp_path, "exec sleep 100", bool)
    part.waits_for = lambda: "degraded: Redis cannot be used"
    with pytest.raises(StartError, match=r"part did not get ready: degraded: Redis cannot be used; its log is "):
        Supervisor([part], print).run()
    assert part.process
    assert not is_alive(part.process.pid)


def test_a_component_that_is_at_work_gets_the_time_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "READY_WITHIN", 0.05)
    asked: list[float] = []

    def ready() -> bool:
        asked.append(time.monotonic())
        if asked[-1] - asked[0] < 0.3:
            return False
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    part = component(tmp_path, "exec sleep 100", ready)
    part.is_busy = lambda: True
    Supervisor([part], print).run()


def chatty(tmp_path: Path) -> Component:
    """A component whose log grows until it ends, a numbered line at a time."""
    return component(tmp_path, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.002; done")


def test_a_log_that_has_grown_is_kept_once_and_begins_again_while_its_component_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "LOG_CAP", 500)
    monkeypatch.setattr(Supervisor, "LOOK_EVERY", 0.05)
    part, kept, seen = chatty(tmp_path), tmp_path / "part.log.1", []

    def watch() -> None:
        wait_for(lambda: kept.exists() and kept.read_text().startswith("line 1\n"))
        wait_for(lambda: kept.read_text().startswith("line ") and not kept.read_text().startswith("line 1\n"))
        assert part.process
        seen.append(part.process.pid)

    assert run([part], watch) == ["ready"]
    assert part.process
    assert seen == [part.process.pid], "it was not started again for that"
    text = part.log.read_text()
    assert "\0" not in text, "it writes on at the new end, not where the old one was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.log", "part.log.1"]


def test_a_log_that_cannot_be_kept_begins_again_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "LOG_CAP", 500)
    monkeypatch.setattr(Supervisor, "LOOK_EVERY", 0.05)
    part = chatty(tmp_path)
    (tmp_path / "part.log.1").mkdir()

    def watch() -> None:
        wait_for(lambda: "line 100\n" in part.log.read_text())

    said = run([part], watch)
    assert f"{part.log} could not be kept as part.log.1: Is a directory" in said
    assert not part.log.read_text().startswith("line 1\n")


# --- another configuration ----------------------------------------------------------------------------------------


def test_only_what_reads_something_else_is_started_again_and_what_is_not_wanted_is_stopped(tmp_path: Path) -> None:
    sleeper = "exec sleep 100"
    first, second, third = (component(tmp_path, sleeper, name=name) for name in ("first", "second", "third"))
    changed, fourth = component(tmp_path, sleeper, name="second", reads="new"), component(tmp_path, sleeper, name="4th")
    before: list[int] = []
    taken: list[Sequence[str]] = []

    def reload(supervisor: Supervisor) -> None:
        taken.append(supervisor.adopt([component(tmp_path, sleeper, name="first"), changed, fourth]))

    def hang_up() -> None:
        before.extend(part.process.pid for part in (first, second, third) if part.process)
        os.kill(os.getpid(), signal.SIGHUP)
        wait_for(lambda: taken)
        assert [is_alive(pid) for pid in before] == [True, False, False]
        # What was taken over is watched as what was there before.
        assert fourth.process
        fourth.process.kill()
        wait_for(lambda: fourth.process and fourth.process.poll() is None and fourth.process.pid)

    run([first, second, third], hang_up, reload)
    assert taken == [("second", "4th")]
    assert [is_alive(part.process.pid) for part in (first, changed, fourth) if part.process] == [False] * 3


def test_what_does_not_start_with_the_new_configuration_is_said_and_the_old_one_can_be_taken_again(
    tmp_path: Path,
) -> None:
    good = component(tmp_path, "exec sleep 100", reads="good")
    again = component(tmp_path, "exec sleep 100", reads="good")
    problems: list[str] = []

    def reload(supervisor: Supervisor) -> None:
        try:
            supervisor.adopt([component(tmp_path, "echo oh; exit 3", bool, reads="bad")])
        except StartError as error:
            problems.append(str(error))
        assert supervisor.adopt([again]) == ("part",)

    def hang_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        wait_for(lambda: again.process and is_alive(again.process.pid))

    run([good], hang_up, reload)
    assert len(problems) == 1
    assert problems[0].endswith("ends:\noh")


def test_a_request_that_comes_while_the_node_starts_is_heard_when_it_runs(tmp_path: Path) -> None:
    heard: list[str] = []
    part = component(tmp_path, "exec sleep 100", lambda: os.kill(os.getpid(), signal.SIGHUP) or True)
    run([part], lambda: wait_for(lambda: heard), lambda _: heard.append("heard"))
    assert heard == ["heard"]


def test_a_terminal_that_is_closed_ends_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_open = [True]
    monkeypatch.setattr(os, "isatty", lambda _: is_open[0])
    part = component(tmp_path, "exec sleep 100")
    said: list[str] = []

    def close_it() -> None:
        wait_for(lambda: "ready" in said)
        is_open[0] = False
        os.kill(os.getpid(), signal.SIGHUP)

    closer = threading.Thread(target=close_it)
    closer.start()
    Supervisor([part], said.append).run()
    closer.join()
    assert part.process
    assert not is_alive(part.process.pid)
