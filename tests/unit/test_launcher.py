"""The launcher: what it decides, what it refuses, and how it runs a command. Nothing is installed here."""

import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LAUNCHER = CHECKOUT / "sipward"

type Fake = Callable[[str, str], None]
type Call = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Puts a command of our own, NAME with a shell script as its body, before the machine's."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Runs shell code with the launcher's functions, on a machine where nothing is set up."""
    places = f"SIPWARD_ROOT={tmp_path}/place; locate; LIB={tmp_path}/lib"

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return _run(["bash", "-c", f". {LAUNCHER}; {places}; {code}"])

    return run


def _run(command: list[str], **changes: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | changes
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def test_who_is_not_root_and_has_no_sudo_is_told_so_in_one_line(fake: Fake) -> None:
    fake("id", "echo 1000")
    assert shutil.which("sudo") is None, "this test needs a machine without sudo, as the root is"

    refused = _run([str(LAUNCHER), "status"])

    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.fullmatch(r"sipward: must be root .* sudo is missing\n", refused.stderr)


def test_who_is_not_root_goes_on_through_sudo_with_the_settings_kept(fake: Fake, tmp_path: Path) -> None:
    fake("id", "echo 1000")
    fake("sudo", 'printf "%s\\n" "$@"')
    (tmp_path / "link").symlink_to(LAUNCHER)

    asked = _run([str(tmp_path / "link"), "up", "--config", "a b.toml"], SIPWARD_FQDN="x")

    kept, *command = asked.stdout.splitlines()
    assert "SIPWARD_FQDN" in kept.removeprefix("--preserve-env=").split(",")
    assert command == ["--", str(LAUNCHER), "up", "--config", "a b.toml"]


@pytest.mark.parametrize(
    ("on_offer", "inside"), [("5.6.3-2", True), ("6.0.1-1+b2", True), ("6.1.1-1", False), ("6.1.5-1", False)]
)
def test_packages_go_onto_the_machine_only_where_its_archive_has_a_kamailio_that_is_new_enough(
    fake: Fake,
    call: Call,
    tmp_path: Path,
    on_offer: str,
    inside: bool,
) -> None:
    fake("apt-cache", f"echo '  Candidate: {on_offer}'")
    assert call('choose_root; echo "$root"').stdout == f"{tmp_path / 'place' if inside else ''}\n"


def test_a_root_that_stands_is_used_without_asking_apt(fake: Fake, call: Call, tmp_path: Path) -> None:
    fake("apt-cache", "echo asked >&2")
    chosen = call('stamp "$place" root forky; choose_root; echo "$root"')
    assert (chosen.stdout, chosen.stderr) == (f"{tmp_path / 'place'}\n", "")


def test_an_older_kamailio_is_refused_with_the_reason(fake: Fake) -> None:
    fake("dpkg-query", "echo 6.0.1-1+b2")
    refused = _run([str(LAUNCHER), "status"])
    assert refused.returncode == 2
    assert "Kamailio 6.0.1-1+b2 is refused: before 6.1.1 one TCP message of 33 bytes kills it" in refused.stderr


def test_a_step_is_done_once_for_what_goes_into_it(call: Call) -> None:
    done = call('for key in a a b b a; do do_step brew "$key" Brewing echo "$key"; done')
    assert done.stdout.split() == ["a", "b", "a"]
    assert len(re.findall(r"sipward: Brewing \.\.\. \d+ s\n", done.stderr)) == 3


def test_a_step_that_failed_shows_the_end_of_the_log_and_is_done_again(
    call: Call,
) -> None:
    failed = call('brew() { echo "no water" >>"$log"; return 3; }; do_step brew a Brewing brew')
    assert failed.returncode == 3
    assert failed.stderr.startswith("sipward: Brewing ... failed\n")
    assert failed.stderr.endswith("    no water\n")
    assert call("do_step brew a Brewing echo tea").stdout == "tea\n"


def test_two_set_ups_at_once_do_the_work_once(call: Call) -> None:
    both = call("brew() { sleep 0.3; echo tea; }; for i in 1 2; do do_step brew a Brewing brew & done; wait")
    assert both.stdout == "tea\n"


def test_a_folder_that_is_not_ours_is_never_taken_for_the_root(call: Call, tmp_path: Path) -> None:
    precious = tmp_path / "place/precious"
    precious.parent.mkdir()
    precious.touch()
    refused = call("root=$place; do_step root forky Root make_root")
    assert refused.returncode == 2
    assert "neither empty nor made by Sipward" in refused.stderr
    assert precious.exists()


def test_a_mirror_out_of_reach_is_one_line_that_names_it(call: Call) -> None:
    refused = call("SIPWARD_MIRROR=http://127.0.0.1:9/debian/; reach forky")
    assert refused.returncode == 2
    assert re.fullmatch(
        r"sipward: no network\? Cannot fetch forky from the Debian mirror http://127.0.0.1:9/debian: .+\n",
        refused.stderr,
    )


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_its_exit_code_comes_back(sent: signal.Signals) -> None:
    command = "trap 'echo bye; exit 7' TERM INT; echo ready; while :; do sleep 0.05; done"
    launched = subprocess.Popen(
        ["env", "--default-signal", "bash", "-c", f'. {LAUNCHER}; supervise "$@"', "launcher", "bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert launched.stdout is not None
    assert launched.stdout.readline() == "ready\n"
    launched.send_signal(sent)
    try:
        assert launched.communicate(timeout=60)[0] == "bye\n"
    except subprocess.TimeoutExpired:
        pytest.fail(f"the command goes on:\n{_run(['ps', '-eo', 'pid,ppid,stat,ignored,blocked,caught,args']).stdout}")
    assert launched.returncode == 7


LEAVES_THINGS_BEHIND = """
import subprocess
def test_it():
    subprocess.run(["ip", "netns", "add", "sipward-left-behind"], check=True)
    subprocess.Popen(["sleep", "{seconds}"], start_new_session=True)
    assert False
"""


def test_nothing_that_a_test_leaves_behind_outlives_it(tmp_path: Path) -> None:
    mark = f"3{time.time_ns()}"
    (tmp_path / "test_it.py").write_text(LEAVES_THINGS_BEHIND.format(seconds=mark))

    left = _run([str(LAUNCHER), "test", "-p", "no:cacheprovider", str(tmp_path / "test_it.py")])

    assert left.returncode == 1, left.stderr
    assert "1 failed" in left.stdout
    assert not Path("/run/netns/sipward-left-behind").exists()
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert [command for command in commands if mark.encode() in command and b"sleep" in command] == []


def test_the_lock_file_pins_what_the_project_asks_for_by_hash() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    asked = project["project"]["dependencies"] + project["dependency-groups"]["test"]
    pinned = re.findall(
        r"^(\S+==\S+) .*\\\n    --hash=sha256:", (CHECKOUT / "requirements.lock").read_text(), re.MULTILINE
    )
    assert set(asked) <= set(pinned)


def test_only_tests_ask_for_the_packages_of_tests(call: Call) -> None:
    runtime, tests = (call(f"package_names {section}").stdout.split() for section in ("runtime", "test"))
    assert {"kamailio", "kamailio-python3-modules", "rtpengine-daemon", "redis-server"} <= set(runtime)
    assert {"sip-tester", "asterisk", "baresip-core"} <= set(tests)
    assert not set(runtime) & set(tests)
