"""A redis-server of a test's own, on a unix socket. What it can do to it is what an operator or a bad day would do."""

import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 10.0


class RedisServer:
    """One server; started, stopped, frozen and emptied by the object that owns its process."""

    def __init__(self, directory: Path, name: str = "redis") -> None:
        self.socket = directory / f"{name}.sock"
        self.url = f"unix://{self.socket}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> Self:
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed"
        where = ("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._directory))
        self._process = subprocess.Popen(
            [program, *where, "--save", "", "--appendonly", "no", *arguments], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE
        while not self.call("PING").startswith(("PONG", "NOAUTH")):
            assert time.monotonic() < deadline, "redis-server does not answer"
            assert self._process.poll() is None, "redis-server has ended"
        return self

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(PATIENCE)
            self.socket.unlink(missing_ok=True)
            self._process = None

    def freeze(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def call(self, *command: str, stdin: str | None = None) -> str:
        """Run redis-cli, as a hand would; with `stdin` as the last argument."""
        done = subprocess.run(
            ["redis-cli", "-s", str(self.socket), *(["-x"] if stdin is not None else []), *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return (done.stdout + done.stderr).strip()

    def put(self, name: str, value: str) -> None:
        assert self.call("SET", f"sipward:tenant:{name}", stdin=value) == "OK"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
