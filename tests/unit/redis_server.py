"""A redis-server of a test's own, on a unix socket. What it can do to it is what an operator or a bad day would do."""

import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
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
        while not self.call("PING").startswith(("PONG", "NOAUTH", "LOADING")):
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


class Relay:
    """A way to the server that can forget the listening connection, as a firewall does: open, and nothing comes."""

    def __init__(self, path: Path, server: Path) -> None:
        self.url = f"unix://{path}"
        self.is_deaf = threading.Event()
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                listening = threading.Event()
                threading.Thread(target=self._pump, args=(client, server, listening, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, listening, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, listening: threading.Event, is_command: bool) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(65536):
                if is_command and b"SUBSCRIBE" in data:
                    listening.set()
                if not (listening.is_set() and self.is_deaf.is_set()):
                    sink.sendall(data)
