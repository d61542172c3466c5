"""What it costs to keep 10,000 phones' flows alive: CPU of the process that does it, and how evenly it pings.

`python -m bench.keepalive` is this figure alone.
"""

import socket
import time
from collections import Counter
from dataclasses import dataclass

from bench.rig import deaf, used
from lab.network import Lab, Machine
from lab.node import Node
from sipward.model import Endpoint
from sipward.registrations import Registration

FLOWS = 10_000


@dataclass(frozen=True)
class Kept:
    """`share`: of one core; `pings`: in each tenth of a second."""

    share: float
    idle: float
    pings: tuple[int, ...]

    @property
    def text(self) -> str:
        """The figures for people."""
        return (
            f"{FLOWS} flows kept alive: {self.share:.2%} of a core, the same process without them {self.idle:.2%}; "
            f"pings in a tenth of a second: {self.pings[0]} to {self.pings[-1]}, "
            f"median {self.pings[len(self.pings) // 2]}"
        )

    @property
    def shares(self) -> dict[str, float]:
        """The figures for programs."""
        return {"share": self.share, "idle": self.idle, "most_pings": self.pings[-1]}


def keepalive(seconds: float) -> Kept:
    """Measure with no flow, and with all of them, so many seconds each."""
    idle, _ = _measured(0, seconds)
    share, pings = _measured(FLOWS, seconds)
    return Kept(share, idle, pings)


def _measured(flows: int, seconds: float) -> tuple[float, tuple[int, ...]]:
    with deaf(Lab()) as lab:
        node, phones = Node(lab, settings={"sip": {"keepalive": 14.0}}).configure(), lab.phone("phones")
        # As a start finds them: the next run takes up the registrations of the last one.
        path = node.settings.flows_file
        path.parent.mkdir(mode=0o700, parents=True)
        path.write_text("".join(f"phone{n} {_registration(phones, n)}\n" for n in range(flows)))
        with node.begin():
            process = next(int(p["PID"]) for p in node.rpc("core.psx") if "timer=sync" in str(p["DSC"]))
            time.sleep(3)  # all of the start is over
            before = used(process)
            pings = _listen(phones, seconds)
            return (used(process) - before) / seconds, pings


def _registration(phones: Machine, number: int) -> Registration:
    flow = Endpoint("udp", phones.address, 10_000 + number)
    return Registration("acme", int(time.time()) + 3600, True, flow, (f"sip:{number}@10.5.4.1:5060;sw={'x' * 80}",))


def _listen(phones: Machine, seconds: float) -> tuple[int, ...]:
    """Count what comes, by tenths of a second; least first."""
    counts: Counter[int] = Counter()
    with phones.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as tap:
        tap.settimeout(0.1)
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            try:
                if tap.recv(100).endswith(b"\r\n\r\n"):
                    counts[int(now * 10)] += 1
            except TimeoutError:
                pass
    return tuple(sorted(list(counts.values())[1:-1])) or (0,)


if __name__ == "__main__":
    print(keepalive(60).text)
