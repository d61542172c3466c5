"""A Redis of the lab's own, elsewhere than the node's; and a hand that writes into any Redis quickly."""

import socket
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from lab.eventually import PATIENCE
from lab.network import Machine
from lab.processes import Process


class Hand:
    """One connection to a Redis on a unix socket, for many commands without a process for each. A context manager."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._answers.close()
        self._socket.close()

    def send(self, *command: str) -> None:
        """Send a command and do not wait for what Redis says."""
        self._socket.sendall(_written(command))

    def answer(self) -> str:
        """The next answer's first line: `+OK`, `:1`, `-ERR ...`."""
        line = self._answers.readline()
        if not line:
            raise ConnectionError("Redis has closed the connection")
        if line.startswith(b"$") and (size := int(line[1:])) >= 0:
            return self._answers.read(size + 2)[:-2].decode()
        return line.rstrip().decode()

    def call(self, *command: str) -> str:
        """Send a command and return what Redis says."""
        self.send(*command)
        return self.answer()

    def pipeline(self, commands: Iterable[Sequence[str]], size: int = 500) -> None:
        """Send commands in bunches. Raises RuntimeError at the first refusal."""
        bunch: list[bytes] = []
        for command in commands:
            bunch.append(_written(command))
            if len(bunch) == size:
                self._flush(bunch)
        self._flush(bunch)

    def _flush(self, bunch: list[bytes]) -> None:
        self._socket.sendall(b"".join(bunch))
        for _ in bunch:
            if (said := self.answer()).startswith("-"):
                raise RuntimeError(f"Redis refuses: {said}")
        bunch.clear()


class Redis:
    """A redis-server on a unix socket, started on a machine. A context manager."""

    def __init__(self, machine: Machine, name: str = "other-redis", *arguments: str) -> None:
        self._machine = machine
        self._directory = machine.lab.directory / name
        self._arguments = arguments
        self._process: Process | None = None
        self.socket = self._directory / "redis.sock"

    @property
    def url(self) -> str:
        """What `[redis] url` says to use it."""
        return f"unix://{self.socket}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start it and come back when it answers."""
        self._directory.mkdir(exist_ok=True)
        where = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._directory)]
        argv = ["redis-server", *where, "--save", "", "--appendonly", "no", *self._arguments]
        self._process = self._machine.popen(argv, log=self._directory / "log")
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server does not start: {(self._directory / 'log').read_text()}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """End it; nothing it held is kept."""
        process, self._process = self._process, None
        if process:
            self._machine.lab.processes.stop(process)

    def _answers(self) -> bool:
        try:
            with Hand(self.socket) as hand:
                return hand.call("PING").startswith(("+PONG", "-NOAUTH"))
        except OSError:
            return False


def _written(command: Sequence[str]) -> bytes:
    """A command as Redis reads it: an array of bulk strings."""
    parts = [part.encode() for part in command]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)])
