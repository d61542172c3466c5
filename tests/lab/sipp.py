"""SIPp as phone, carrier or PBX: runs a folder of sipp-scenarios on a machine. No exit code but 0 is a success."""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from lab.audio import write_alaw
from lab.eventually import PATIENCE
from lab.network import Machine
from lab.packets import Address
from lab.sip import Message

SCENARIOS = Path(__file__).resolve().parents[2] / "sipp-scenarios"
Role = Literal["uac", "uas"]
Transport = Literal["udp", "tcp", "tls"]

_SOCKETS = {"udp": "u1", "tcp": "t1", "tls": "l1"}
_ENCRYPTED = re.compile(
    r"^-{47} (\S+)\nTLS message (received|sent) \[\d+\] bytes:\n\n(.*?)\n(?=-{47} |\Z)", re.M | re.S
)
"""A message in SIPp's trace."""
_EXIT_CODES = {
    1: "a call failed",
    97: "stopped by its time limit, calls may have succeeded",
    99: "no call was processed, or its arguments are wrong",
    255: "fatal error, or the time limit",
    254: "could not bind its port",
    253: "RTP check failed",
}


class SippError(AssertionError):
    """A scenario did not go as it is written. The text shows SIPp's messages, errors and screen."""


class Sipp:
    """One running SIPp. Whoever starts one waits for it or stops it; the tests check that."""

    def __init__(
        self, machine: Machine, name: str, role: Role, files: Path, process: "subprocess.Popen[bytes]", limit: float
    ) -> None:
        self.machine = machine
        self.name = name
        self.role = role
        self._files = files
        self._process = process
        self._limit = limit
        self.done = False

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def messages(self) -> str:
        """SIPp's own trace of what it sent and received."""
        return self._read("messages")

    @property
    def saved(self) -> dict[str, str]:
        """What the scenario saved by `<log message="name=value"/>`; the last value of each name."""
        pairs = (line.partition("=") for line in self._read("log").splitlines())
        return {name: value.strip() for name, sign, value in pairs if sign}

    def wait(self, timeout: float | None = None) -> "Sipp":
        """Wait until all calls are done and check how they went."""
        self.done = True
        try:
            code = self._process.wait(self._limit + 5 if timeout is None else timeout)
        except subprocess.TimeoutExpired:
            self.machine.lab.processes.stop(self._process)
            raise SippError(self.report("still running")) from None
        self.machine.lab.processes.stop(self._process)
        self._tell()
        problems = [line for line in self._read("errors").splitlines() if "Aborting call" in line or "Aborted" in line]
        if code or problems:
            raise SippError(self.report(f"exit {code}: {_EXIT_CODES.get(code, 'failed')}" if code else problems[0]))
        return self

    def wait_for(self, name: str, timeout: float = PATIENCE) -> str:
        """Wait until the scenario has saved a value under this name; return it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if name in self.saved:
                return self.saved[name]
            if not self.running:
                self.wait()
            time.sleep(0.01)
        raise SippError(self.report(f"{name!r} was not saved within {timeout} s"))

    def stop(self) -> "Sipp":
        """End a scenario that goes on for as long as it is let: a registered phone. Failed calls are red here too."""
        if self.running:
            self.machine.lab.processes.stop(self._process)
        return self.wait()

    def abandon(self) -> None:
        """End it without asking how it went."""
        self.machine.lab.processes.stop(self._process)
        self.done = True

    def report(self, reason: str) -> str:
        """All that SIPp can say about a failure."""
        parts = [f"SIPp {self.name}/{self.role} on {self.machine.name}: {reason}"]
        for part, limit in (("errors", 4000), ("messages", 12000), ("screen", 4000), ("output", 2000)):
            text = self._read(part).strip()
            if text and not (part == "output" and len(parts) > 3):
                parts.append(f"--- {part}\n{text[-limit:]}")
        return "\n".join(parts)

    def _tell(self) -> None:
        """Tell the wire what was encrypted on it."""
        for stamp, way, text in _ENCRYPTED.findall(self._read("messages")):
            direction = "in" if way == "received" else "out"
            here, node = Address(self.machine.address, 0), Address(self.machine.lab.edge(self.machine), 5061)
            ends = (node, here) if direction == "in" else (here, node)
            when = datetime.fromisoformat(stamp).timestamp()
            message = Message(when, self.machine.name, "eth0", direction, "tls", *ends, text.replace("\n", "\r\n"))
            self.machine.lab.wire.overhear(message, self.machine.lab.side(self.machine.address))

    def _read(self, part: str) -> str:
        path = self._files / part
        return path.read_text(errors="replace") if path.exists() else ""


def sipp(
    machine: Machine,
    name: str,
    role: Role = "uac",
    *,
    to: str = "",
    transport: Transport = "udp",
    ipv6: bool = False,
    port: int | None = None,
    calls: int = 1,
    rate: float | None = None,
    talk: float = 1.0,
    keys: Mapping[str, str] | None = None,
    headers: Iterable[str] = (),
    answers: str = "",
    options: Sequence[str] = (),
    timeout: float = 40.0,
    background: bool = False,
) -> Sipp:
    """Run `sipp-scenarios/<name>/<role>.xml` on a machine.

    A uas returns when its port is bound; a uac when all its calls are done and good, unless `background`.
    `to` is the host or host:port requests are sent to (default: the node as this machine sees it). `talk` is the
    length of the scenario's pauses in seconds. `headers` are whole header lines added to the requests. `answers`
    names a scenario whose uas side takes the calls that come in meanwhile, on the same socket: a registered phone.
    `timeout` is SIPp's limit for all calls together, in seconds.
    """
    lab = machine.lab
    to = to or lab.edge(machine, ipv6=ipv6)
    ipv6 = ipv6 or to.startswith("[") or to.count(":") > 1
    if transport == "tls" and role == "uac" and ":5" not in to:
        to = str(Address(to, 5061))
    address = machine.address6 if ipv6 else machine.address
    port = machine.sip_port if port is None else port
    files = lab.directory / "sipp" / f"{lab.next_number()}-{machine.name}-{name}-{role}"
    files.mkdir(parents=True)
    tone = write_alaw(lab.directory / "audio" / "tone.alaw")
    known = {
        "domain": "acme.example", "user": "alice", "callee": "200", "password": "secret", "expires": "3600",
        "headers": "\r\n".join(headers) or "User-Agent: lab",
    } | dict(keys or {})  # fmt: skip
    known.setdefault("target", f"sip:{known['callee']}@{known['domain']}")
    known.setdefault("method", "OPTIONS")
    # SIPp wants the method written out at the start of a message, or a key that holds more than the method.
    known.setdefault("request", f"{known['method']} {known['target']}")
    argv = ["sipp", "-sf", str(SCENARIOS / name / f"{role}.xml")]
    if answers:
        argv += ["-rxsf", str(SCENARIOS / answers / "uas.xml")]
    if role == "uac":
        argv += [f"[{to}]" if to.count(":") > 1 and not to.startswith("[") else to]
    argv += ["-t", _SOCKETS[transport], "-i", address, "-p", str(port), "-bind_local", "-nostdin"]
    argv += ["-mi", address, "-min_rtp_port", str(machine.rtp_ports[0]), "-max_rtp_port", str(machine.rtp_ports[1])]
    argv += ["-m", str(calls), "-d", str(round(talk * 1000)), "-timeout", f"{timeout}s", "-timeout_error"]
    argv += ["-r", str(rate or 100), "-random_base_ssrc", "-max_reconnect", "0"]
    # SIPp's own kind of Call-ID has its address in it, which a PBX's has not.
    argv += ["-cid_str", f"%u-%p-{os.urandom(8).hex()}"]
    for option, file in (("msg", "message"), ("err", "error"), ("screen", "screen"), ("logs", "log")):
        part = {"message": "messages", "error": "errors"}.get(file, file)
        argv += [f"-trace_{option}", f"-{file}_file", str(files / part)]
    for key, value in known.items():
        argv += ["-key", key, value]
    argv += options
    process = machine.popen(argv, log=files / "output", cwd=tone.parent, env={"TERM": "dumb"})
    running = Sipp(machine, name, role, files, process, timeout)
    lab.scenarios.append(running)
    if role == "uas":
        _until_bound(running, process, transport, port)
    elif not background:
        running.wait()
    return running


def _until_bound(running: Sipp, process: "subprocess.Popen[bytes]", transport: Transport, port: int) -> None:
    """Wait until the process itself owns a socket on this port: bound for UDP, listening for TCP."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            running.wait()
        if _owns(process.pid, transport, port):
            return
        time.sleep(0.005)
    running.done = True
    raise SippError(running.report(f"did not bind {transport} port {port}"))


def _owns(pid: int, transport: Transport, port: int) -> bool:
    bound = set()
    for table in (transport, f"{transport}6"):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                columns = line.split()
                # A listening TCP socket is in state 0A; UDP has no such state.
                if int(columns[1].rpartition(":")[2], 16) == port and (transport == "udp" or columns[3] == "0A"):
                    bound.add(f"socket:[{columns[9]}]")
    with suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(handle.readlink()) in bound:
                    return True
    return False
