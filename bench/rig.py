"""Two proxies on one machine, Sipward and the yardstick, with one rtpengine, one instance and one caller."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from lab import many
from lab.addresses import GATEWAY, INTERNET, SECOND_NODE_ADDRESS, SERVICE
from lab.network import Lab, Machine
from lab.node import Node
from lab.wire import Wire
from sipward import node as product
from sipward import rpc

_HERE = Path(__file__).resolve().parent
WORKERS = 2
_YARDSTICK_INNER_PORT = 5070


class _At(Template):
    delimiter = "@"


class _Deaf(Wire):
    """Listens to no cable: hearing costs the very CPU that is measured."""

    def tap(self, *cable: object) -> None:
        pass


@dataclass(frozen=True)
class Proxy:
    """A running proxy: where callers reach it, and where its RPC is."""

    name: str
    address: str
    run: Path

    def pids(self) -> list[int]:
        """The ids of all its Kamailio processes."""
        return [row["PID"] for row in rpc.kamailio(self.run, "core.psx")]

    def cpu(self) -> float:
        """Seconds of CPU that its Kamailio processes have used so far (/proc/PID/schedstat, nanoseconds)."""
        return sum(used(pid) for pid in self.pids())


def used(pid: int) -> float:
    """Seconds of CPU that all threads of a process have used so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@dataclass(frozen=True)
class Load:
    """What one run of SIPp did: calls made and failed, and the set-up times in milliseconds, sorted."""

    calls: int
    failed: int
    setup: tuple[float, ...]


class Rig:
    """The lab with both proxies running."""

    def __init__(self, lab: Lab, node: Node, yardstick: Proxy) -> None:
        """`node` and `yardstick` run already."""
        self.lab = lab
        self.node = node
        self.sipward = Proxy("sipward", INTERNET.host(10)[0], node.state_dir / "run")
        self.yardstick = yardstick
        self.caller = lab.phone("caller")
        self.pbx = lab.instance("pbx")
        node.route_add("bench", ["bench.example"], [self.pbx])

    def load(self, proxy: Proxy, scenario: str, rate: int, calls: int, transport: str = "udp") -> Load:
        """Run a scenario through a proxy at a steady rate and say how it went."""
        folder = self.lab.directory / "bench" / f"{scenario}-{proxy.name}-{self.lab.next_number()}"
        folder.mkdir(parents=True)
        limit = f"{calls // rate + 30}s"
        callee = self.pbx.popen(self._sipp(scenario, "uas", self.pbx, "udp", limit), log=folder / "uas", cwd=folder)
        try:
            _until_listening(self.pbx)
            caller = [
                *self._sipp(scenario, "uac", self.caller, transport, limit),
                *(f"{proxy.address}:5060", "-r", str(rate), "-m", str(calls), "-timeout_error"),
                *("-trace_rtt", "-rtt_freq", "1", "-trace_stat", "-stf", str(folder / "stat.csv"), "-fd", "1"),
            ]
            self.caller.popen(caller, log=folder / "uac", cwd=folder, env={"TERM": "dumb"}).wait()
        finally:
            self.lab.processes.stop(callee)
        return Load(calls, calls - _successful(folder / "stat.csv"), _setup_times(folder))

    def _sipp(self, scenario: str, role: str, machine: Machine, transport: str, limit: str) -> list[str]:
        file = _HERE / "scenarios" / scenario / f"{role}.xml"
        argv = ["sipp", "-sf", str(file), "-i", machine.address, "-mi", machine.address, "-p", "5060", "-nostdin"]
        return [*argv, "-t", f"{transport[0]}1", "-timeout", limit, "-l", "20000", "-d", "0", "-buff_size", "8388608"]


def deaf(lab: Lab) -> Lab:
    """The lab, not entered yet, with no ear at its cables."""
    lab.wire = _Deaf()
    return lab


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    """Set everything up, and take it down."""
    with deaf(Lab()) as lab:
        settings = {
            "sip": {"workers": WORKERS},
            "network": {"service_networks": list(many.SERVICE_NETWORKS)},
            # One caller makes all the calls. They are counted all the same.
            "rtp": {"source_share": 99, "tenant_share": 99},
        }
        with Node(lab, settings=settings) as node:
            yield Rig(lab, node, _start_yardstick(lab, node))


def _start_yardstick(lab: Lab, node: Node) -> Proxy:
    run = lab.directory / "yardstick"
    run.mkdir()
    outer = INTERNET.host(SECOND_NODE_ADDRESS)[0]
    inner = SERVICE.host(GATEWAY)[0]
    text = _At((_HERE / "yardstick.cfg").read_text()).substitute(
        workers=WORKERS,
        listeners="\n".join(
            f"listen={transport}:{end}"
            for transport in ("udp", "tcp")
            for end in (f"{outer}:5060", f"{inner}:{_YARDSTICK_INNER_PORT}")
        ),
        run=run,
        rtpengine=node.settings.rtp.control,
        inner=f"{inner}:{_YARDSTICK_INNER_PORT}",
        instance=f"{SERVICE.host(11)[0]}:5060",
    )
    (run / "kamailio.cfg").write_text(text)
    memory = ("-m", str(product.SHARED_MEMORY), "-M", str(product.PRIVATE_MEMORY), "-x", "fm", "-X", "fm")
    argv = ["/usr/sbin/kamailio", "-DD", "-E", "-f", str(run / "kamailio.cfg"), "-Y", str(run), *memory]
    process = lab.node().popen(argv, log=run / "log")
    proxy = Proxy("yardstick", outer, run)
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(rpc.UnreachableError):
            proxy.pids()
            return proxy
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the yardstick does not run:\n{(run / 'log').read_text()}")
        time.sleep(0.05)


def _until_listening(machine: Machine) -> None:
    deadline = time.monotonic() + 5
    while ":5060" not in machine.run(["ss", "-Hlun"]):
        if time.monotonic() > deadline:
            raise RuntimeError(f"SIPp does not listen on {machine.name}")
        time.sleep(0.01)


def _successful(path: Path) -> int:
    """How many calls went as they should, from SIPp's last line of statistics."""
    lines = path.read_text().splitlines()
    row = dict(zip(lines[0].split(";"), lines[-1].split(";"), strict=False))
    return int(row["SuccessfulCall(C)"])


def _setup_times(folder: Path) -> tuple[float, ...]:
    times = [
        float(columns[1])
        for path in folder.glob("*_rtt.csv")
        for columns in (line.split(";") for line in path.read_text().splitlines()[1:])
        if len(columns) > 1 and columns[1]
    ]
    return tuple(sorted(times))
