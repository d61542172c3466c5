"""The thread that keeps phones reachable: pings from our own socket, what a restart takes up, a disk that fails."""

import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.eventually import eventually
from sipward import flow_keeper
from sipward.flow_keeper import PING, FlowKeeper
from sipward.model import Endpoint
from sipward.registrations import Registration

INTERVAL = 0.1


class Memory:
    """Shared memory."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[str, int]] = {}
        self.said: dict[str, object] = {}
        self.removed: set[str] = set()
        self.queue: deque[tuple[str, str]] = deque()

    def set(self, table: str, key: str, value: str) -> None:
        assert (table, key) == ("state", "phones")
        self.said = json.loads(value)

    def remove(self, table: str, key: str) -> None:
        assert table == "flows"
        self.removed.add(key)

    def set_for(self, table: str, key: str, value: str, seconds: int) -> None:
        assert table == "flows"
        self.entries[key] = (value, seconds)

    def news(self, queue: str) -> Iterator[tuple[str, str]]:
        while self.queue:
            yield self.queue.popleft()


class Rig:
    """Our listening sockets, a phone's, and keepers between them."""

    def __init__(self, path: Path, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.own, self.phone = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        for each in (self.own, self.phone):
            each.bind((host, 0))
            each.settimeout(20.0)
        self.path, self.host = path, host
        self.memory = Memory()
        self.logged: list[str] = []

    def keeper(self, interval: float = INTERVAL) -> FlowKeeper:
        own = Endpoint("udp", self.host, self.own.getsockname()[1])
        return FlowKeeper(self.memory, self.logged.append, [own], interval, self.path)

    def registration(self, seconds: float = 600, pinged: bool = True, tenant: str = "acme") -> str:
        flow = Endpoint("udp", self.host, self.phone.getsockname()[1])
        return str(Registration(tenant, int(time.time() + seconds), pinged, flow, ("sip:7@10.5.4.1",)))

    def expect_ping(self) -> None:
        data, source = self.phone.recvfrom(100)
        assert (data, source[1]) == (PING, self.own.getsockname()[1])

    def is_quiet(self) -> bool:
        self.phone.settimeout(4 * INTERVAL)
        try:
            self.phone.recv(100)
        except TimeoutError:
            return True
        return False


@pytest.fixture(params=["127.0.0.1", "::1"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "table" / "flows", request.param)
    yield rig
    rig.own.close()
    rig.phone.close()


def test_a_flow_is_pinged_from_our_own_socket_until_it_ends(rig: Rig) -> None:
    keeper = rig.keeper()
    keeper.start()
    rig.memory.queue.append(("p", rig.registration()))
    for _ in range(3):
        rig.expect_ping()
    rig.memory.queue.append(("p", ""))
    eventually(rig.is_quiet)
    keeper.stop()
    assert rig.logged == []


def test_the_next_run_takes_up_what_lasts(rig: Rig) -> None:
    keeper = rig.keeper()
    keeper.start()
    lasting = rig.registration()
    rig.memory.queue += [("gone", lasting), ("over", rig.registration(-1)), ("lasts", lasting), ("gone", "")]
    rig.expect_ping()
    rig.memory.queue.append(("later", rig.registration(pinged=False)))
    eventually(lambda: "later" in rig.path.read_text())
    eventually(lambda: rig.memory.said.get("pinged") == 1)
    keeper.stop()
    with rig.path.open("a") as file:
        file.write("bad nonsense\n\nmore\n")
    rig.memory.entries.clear()
    keeper = rig.keeper()
    keeper.start()
    assert rig.memory.entries.keys() == {"lasts", "later"}
    assert 590 < rig.memory.entries["lasts"][1] <= 600
    rig.expect_ping()
    keeper.stop()
    assert sorted(line.partition(" ")[0] for line in rig.path.read_text().splitlines()) == ["lasts", "later"]


def test_without_an_interval_nobody_is_pinged_and_all_is_known(rig: Rig) -> None:
    keeper = rig.keeper(interval=0)
    keeper.start()
    rig.memory.queue.append(("p", rig.registration()))
    eventually(lambda: rig.path.exists() and "p " in rig.path.read_text())
    assert rig.is_quiet()
    keeper.stop()


def test_a_disk_that_fails_is_said_once_and_pings_go_on(rig: Rig) -> None:
    rig.path.parent.write_text("no directory")
    keeper = rig.keeper()
    keeper.start()
    for number in range(3):
        rig.memory.queue.append((f"p{number}", rig.registration()))
        rig.expect_ping()
    keeper.stop()
    assert rig.logged == []
    assert "cannot be kept on disk: " in str(rig.memory.said["complaint"])


def test_an_address_that_cannot_be_sent_to_costs_the_others_nothing(rig: Rig) -> None:
    keeper = rig.keeper()
    keeper.start()
    bad = Registration("acme", int(time.time()) + 600, True, Endpoint("udp", "255.255.255.255", 9), ())
    strange = Registration("acme", int(time.time()) + 600, True, Endpoint("udp", "fe80::1", 9), ())
    rig.memory.queue += [("bad", str(bad)), ("strange", str(strange)), ("p", rig.registration())]
    for _ in range(3):
        rig.expect_ping()
    keeper.stop()
    assert rig.logged == []


def test_a_tenant_has_no_more_than_its_share_of_phones(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_keeper, "PHONES_MAX", 2)
    keeper = rig.keeper()
    keeper.start()
    rig.memory.queue += [(f"a{n}", rig.registration()) for n in range(4)]
    rig.memory.queue += [("a1", rig.registration()), ("b", rig.registration(tenant="beta"))]
    eventually(lambda: rig.memory.said.get("registered") == 3 and rig.memory.said["complaint"])
    assert rig.memory.removed == {"a2", "a3"}
    assert str(rig.memory.said["complaint"]).startswith("more than 2 phones of acme: ")
    rig.memory.queue += [("a0", ""), ("a3", rig.registration())]
    eventually(lambda: "a3 acme" in rig.path.read_text())
    keeper.stop()
