"""What the lab has started. All of it is stopped by its own id; what is left in our namespaces is found and named."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.eventually import eventually

Process = subprocess.Popen[bytes]


class Processes:
    """The processes of one lab, each in a session of its own so that its children can be reached with it."""

    def __init__(self) -> None:
        self._running: list[Process] = []

    @staticmethod
    def with_own(env: Mapping[str, str] | None) -> dict[str, str]:
        """Our environment, overlaid."""
        return {**os.environ, **(env or {})}

    def start(
        self,
        argv: Sequence[str],
        *,
        namespace: str,
        log: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start `argv` in a network namespace. Its output goes to `log`, its input is empty."""
        output = log.open("ab") if log else subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                # nsenter replaces itself, so the id is the program's own; `ip netns exec` would hide /sys as well.
                ["nsenter", f"--net=/run/netns/{namespace}", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if log else subprocess.DEVNULL,
                cwd=cwd,
                env=self.with_own(env),
                start_new_session=True,
            )
        finally:
            if not isinstance(output, int):
                output.close()
        self._running.append(process)
        return process

    def stop(self, process: Process, patience: float = 15.0) -> int:
        """Ask a process to end, then make it: SIGTERM, and SIGKILL to its whole group after `patience` seconds."""
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process in self._running:
            self._running.remove(process)
        return process.wait()

    def stop_all(self) -> None:
        """Stop everything, the last started first, all asked at once so that it takes as long as the slowest."""
        for process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self._running[:]):
            self.stop(process)


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile, from the first moment on: its threads take a while to stop."""
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: _states(pid) <= set("TtZX"), what=f"process {pid} has stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> set[str]:
    """The states of a process's threads (proc(5))."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            found.add((task / "stat").read_text().rpartition(") ")[2][0])
    return found


def living_in(namespaces: Sequence[str]) -> dict[int, str]:
    """Process ids and commands of all that runs in these network namespaces. Only ours can: the names are ours."""
    inodes = {os.stat(f"/run/netns/{name}").st_ino for name in namespaces}
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if (entry / "ns/net").stat().st_ino in inodes:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    found.pop(os.getpid(), None)
    return found


def end(pids: Sequence[int], patience: float = 10.0) -> None:
    """Kill these ids and wait until they are gone (they are not our children, so there is nothing to reap)."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.01)
