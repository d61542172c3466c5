"""What it costs to ask 20,000 instances every 30 s: the prober's thread, its CPU, and how evenly it asks.

Run in a network namespace of its own, for the instances are all of 127.0.0.0/8:
`unshare --net sh -c 'ip link set lo up; python -m bench.health'`, with `kemi` on the PYTHONPATH.
"""

import multiprocessing
import resource
import socket
import sys
import threading
import time
from collections import Counter
from ipaddress import ip_address

from sipward.model import Endpoint
from sipward.prober import Prober
from sipward.settings import HealthSettings

INSTANCES = 20_000
PORT = 5060
SECONDS = 60


class Memory:
    """Shared memory, as a dictionary."""

    def __init__(self) -> None:
        """Be empty."""
        self.entries: dict[tuple[str, str], str] = {}

    def get(self, table: str, key: str) -> str | None:
        """Read an entry."""
        return self.entries.get((table, key))

    def set(self, table: str, key: str, value: str) -> None:
        """Write an entry."""
        self.entries[table, key] = value

    def remove(self, table: str, key: str) -> None:
        """Remove an entry."""
        self.entries.pop((table, key), None)


def answer(ready: threading.Event, seen: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    """All instances at once: answer each OPTIONS 200, and count them by the tenth of a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: answer from the address that was asked
        own.bind(("", PORT))
        own.settimeout(2.0)
        ready.set()
        counts: Counter[int] = Counter()
        while True:
            try:
                data, extra, _, source = own.recvmsg(4096, 64)
            except TimeoutError:
                break
            counts[int(time.monotonic() * 10)] += 1
            said = b"SIP/2.0 200 OK\r\n" + data.partition(b"\r\n")[2]
            info = [(socket.IPPROTO_IP, 8, b"\0\0\0\0" + value[8:12] + b"\0\0\0\0") for _, _, value in extra]
            own.sendmsg([said], info, 0, source)
        seen.put(counts)


def main() -> int:
    """Ask for a while and print what it took."""
    ready, seen = multiprocessing.Event(), multiprocessing.Queue()
    answering = multiprocessing.Process(target=answer, args=(ready, seen))
    answering.start()
    ready.wait(5)
    memory = Memory()
    prober = Prober(memory, print, [ip_address("127.0.0.1")], HealthSettings())
    for n in range(INSTANCES):
        prober.watch(f"@t{n}", [Endpoint("udp", f"127.{1 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", PORT)])
    prober.start()
    time.sleep(5)  # all are taken in
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(SECONDS)
    after = resource.getrusage(resource.RUSAGE_SELF)
    prober.stop()
    counts = seen.get()
    answering.join()
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    steady = sorted(counts.values())[len(counts) // 100 : -len(counts) // 100]
    print(f"{INSTANCES} instances, each asked every 30 s: {100 * spent / SECONDS:.1f} % of one core")
    print(f"asked in a tenth of a second: {steady[0]} to {steady[-1]}, due {INSTANCES / 300:.0f}")
    print(f"memory at most {after.ru_maxrss / 1024:.0f} MB; {memory.entries}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
