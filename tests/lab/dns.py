"""The Internet's DNS server: dnsmasq with the names that a test gives it. It can be changed, hung and stopped."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from lab.network import Lab
from lab.processes import Process
from lab.wire import Wire

PORT = 53


class Dns:
    """Knows what `records` say and nothing else: other names do not exist. A context manager.

    Records are dnsmasq's own lines, made by `host`, `srv` and `naptr`. Answers may be kept for `ttl` seconds.
    """

    def __init__(self, lab: Lab, records: Sequence[str] = (), *, ttl: int = 1) -> None:
        self.machine = lab.name_server()
        self._directory = lab.directory / "dns"
        self._ttl = ttl
        self._records = records
        self._process: Process | None = None

    def __enter__(self) -> Self:
        return self.change(*self._records)

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        return self.machine.address

    @property
    def queries(self) -> list[str]:
        """What it was asked since it was last changed: `A sip.carrier.example`, in order."""
        words = (line.partition(" query[")[2].split() for line in self._log.splitlines() if " query[" in line)
        return [f"{found[0].rstrip(']')} {found[1]}" for found in words]

    def change(self, *records: str) -> Self:
        """From now on know these records instead; it comes back when they are served."""
        self.stop()
        self._directory.mkdir(exist_ok=True)
        config = self._directory / "dnsmasq.conf"
        lines = ["no-resolv", "no-hosts", "bind-interfaces", "user=root", "pid-file", "log-queries", "log-facility=-"]
        lines += [f"listen-address={self.address}", f"local-ttl={self._ttl}", "local=/#/", *records]
        config.write_text("".join(f"{line}\n" for line in lines))
        log = self._directory / "log"
        log.unlink(missing_ok=True)
        self._process = self.machine.popen(["dnsmasq", "-k", "-C", str(config)], log=log)
        deadline = time.monotonic() + 5
        while " started, " not in self._log:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dnsmasq does not start\n{self._log}")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """Nobody answers any more."""
        process, self._process = self._process, None
        if process:
            self.machine.lab.processes.stop(process)

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Inside, questions reach it and get no answer."""
        if self._process is None:
            raise RuntimeError("the DNS server does not run")
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    @property
    def _log(self) -> str:
        path = self._directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""


def asks(wire: Wire) -> int:
    """How many questions the node has asked, answered or not."""
    return sum(sent.destination.port == PORT for sent in wire.sent("node"))


def host(name: str, *addresses: str) -> str:
    """A and AAAA records of a name."""
    return f"host-record={','.join((name, *addresses))}"


def srv(name: str, target: str, port: int = 5060, priority: int = 0, weight: int = 0, transport: str = "udp") -> str:
    """An SRV record of the SIP service of `name` (RFC 3263)."""
    return f"srv-host=_sip._{transport}.{name},{target},{port},{priority},{weight}"


def naptr(name: str, replacement: str, order: int = 10, service: str = "SIP+D2U") -> str:
    """A NAPTR record that leads from a name to an SRV record's name (RFC 3263, 4.1)."""
    return f"naptr-record={name},{order},50,s,{service},,{replacement}"
