"""The sockets that ask, on loopback; and the thread."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, AddressFamily

import pytest

from sipward import prober
from sipward.health import Probe
from sipward.live import HEALTH, HEALTH_KEY, STATE
from sipward.model import Endpoint
from sipward.prober import Asker, Prober
from sipward.settings import HealthSettings

HOSTS = {AF_INET: "127.0.0.1", AF_INET6: "::1"}
FAMILIES = pytest.mark.parametrize("family", [AF_INET, AF_INET6], ids=["ipv4", "ipv6"])
PATIENCE = 5.0


@pytest.fixture
def asker() -> Iterator[Asker]:
    with closing(Asker(HOSTS)) as asker:
        yield asker


def bound(family: AddressFamily = AF_INET, kind: socket.SocketKind = SOCK_DGRAM) -> tuple[socket.socket, Endpoint]:
    """A socket of an instance, and where it is."""
    own = socket.socket(family, kind)
    own.settimeout(PATIENCE)
    own.bind((HOSTS[family], 0))
    if kind is SOCK_STREAM:
        own.listen()
    return own, Endpoint("udp" if kind is SOCK_DGRAM else "tcp", HOSTS[family], own.getsockname()[1])


def answer(request: bytes, status: str = "200 OK") -> bytes:
    """What an instance says to a request."""
    kept = re.findall(rb"^(?:Via|From|To|Call-ID|CSeq): .*\r\n", request, re.MULTILINE)
    return b"".join([f"SIP/2.0 {status}\r\n".encode(), *kept, b"Content-Length: 0\r\n\r\n"])


def heard(asker: Asker) -> tuple[str, int]:
    """The first answer that comes."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for found in asker.answers():
            return found
        time.sleep(0.001)
    raise AssertionError("no answer was heard")


@FAMILIES
def test_the_request_is_sip_and_names_both_ends(family: AddressFamily, asker: Asker) -> None:
    instance, end = bound(family)
    with instance:
        assert asker.send(Probe(end, "7.1"), 0.0)
        data, source = instance.recvfrom(65536)
    here = Endpoint("udp", *source[:2]).hostport
    host = here.rpartition(":")[0]
    first, *lines = data.decode().removesuffix("\r\n\r\n").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert first == f"OPTIONS sip:{end.hostport} SIP/2.0"
    assert re.fullmatch(rf"SIP/2\.0/UDP {re.escape(here)};rport;branch=z9hG4bK[0-9a-f]{{16}}-7\.1", fields["Via"])
    assert (fields["From"], fields["To"]) == (f"<sip:health@{host}>;tag=7.1", f"<sip:{end.hostport}>")
    assert (fields["CSeq"], fields["Max-Forwards"], fields["Content-Length"]) == ("1 OPTIONS", "70", "0")
    assert fields["Call-ID"]


@FAMILIES
@pytest.mark.parametrize("kind", [SOCK_DGRAM, SOCK_STREAM], ids=["udp", "tcp"])
def test_the_answer_is_heard_over_either_transport(
    family: AddressFamily, kind: socket.SocketKind, asker: Asker
) -> None:
    instance, end = bound(family, kind)
    with instance:
        assert asker.send(Probe(end, "12.34"), 0.0)
        if kind is SOCK_DGRAM:
            data, source = instance.recvfrom(65536)
            instance.sendto(answer(data, "404 Not Found"), source)
            assert heard(asker) == ("12.34", 404)
            return
        peer = accepted(instance, asker)
        with peer:
            said = answer(received(peer, asker), "404 Not Found")
            peer.sendall(answer(said, "100 Trying") + said[:20])
            assert not list(asker.answers())
            peer.sendall(said[20:])
            assert heard(asker) == ("12.34", 404)
            assert peer.recv(100) == b""


def accepted(listener: socket.socket, asker: Asker) -> socket.socket:
    list(asker.answers())
    peer, _ = listener.accept()
    peer.settimeout(PATIENCE)
    return peer


def received(peer: socket.socket, asker: Asker) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        list(asker.answers())
        data += peer.recv(65536)
    return data


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.replace(b"SIP/2.0 200", b"SIP/2.0 100", 1),
        lambda said: re.sub(rb"z9hG4bK[0-9a-f]{16}", b"z9hG4bK" + b"0" * 16, said),
        lambda said: b"OPTIONS sip:x SIP/2.0\r\n" + said.partition(b"\r\n")[2],
        lambda said: said.replace(b"branch=", b"twig="),
        lambda said: b"\xff\0" * 10,
        lambda said: b"",
    ],
    ids=["provisional", "forged", "request", "no-branch", "noise", "empty"],
)
def test_what_is_no_answer_to_our_question_is_passed_over(change: Callable[[bytes], bytes], asker: Asker) -> None:
    instance, end = bound()
    with instance:
        asker.send(Probe(end, "1.1"), 0.0)
        data, source = instance.recvfrom(65536)
        instance.sendto(change(answer(data)), source)
        instance.sendto(answer(data, "486 Busy"), source)
        assert heard(asker) == ("1.1", 486)


def test_who_refuses_a_connection_or_closes_it_says_nothing(asker: Asker) -> None:
    instance, end = bound(kind=SOCK_STREAM)
    with instance:
        assert asker.send(Probe(end, "1.1"), 0.0)
        accepted(instance, asker).close()
    assert asker.send(Probe(end, "1.2"), 0.0)
    for _ in range(20):
        assert not list(asker.answers())


def test_connections_are_bounded_and_closed_when_their_time_is_over(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prober, "CONNECTIONS", 3)
    instance, end = bound(kind=SOCK_STREAM)
    with instance:
        sent = [asker.send(Probe(end, f"1.{n}"), float(n)) for n in range(5)]
        assert sent == [True, True, True, False, False]
        peers = [accepted(instance, asker) for _ in range(3)]
        asker.close_before(1.0)
        assert asker.send(Probe(end, "1.9"), 9.0)
        assert not asker.send(Probe(end, "1.10"), 9.0)
        received(peers[1], asker)
        assert b"OPTIONS" in peers[0].recv(65536) + b"OPTIONS"
        for peer in peers:
            peer.close()


def test_an_address_that_is_not_ours_is_our_own_fault() -> None:
    with closing(Asker({AF_INET: "203.0.113.77"})) as elsewhere:
        for transport in ("udp", "tcp"):
            assert not elsewhere.send(Probe(Endpoint(transport, "127.0.0.1", 5060), "1.1"), 0.0)


# --- the thread --------------------------------------------------------------------------------------------------


class Memory:
    """Shared memory."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.breaks = False

    def get(self, table: str, key: str) -> str | None:
        return self.entries.get((table, key))

    def set(self, table: str, key: str, value: str) -> None:
        if self.breaks:
            self.breaks = False
            raise MemoryError("once")
        self.entries[table, key] = value

    def remove(self, table: str, key: str) -> None:
        self.entries.pop((table, key), None)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_thread_asks_whom_it_was_told_of_and_outlives_a_fault() -> None:
    memory, logged = Memory(), list[str]()
    instance, end = bound()
    memory.entries[HEALTH, str(end)] = "silent"
    memory.breaks = True
    running = Prober(memory, logged.append, [ip_address("127.0.0.1")], HealthSettings(interval=0))
    running.start()
    try:
        with instance:
            running.watch("@acme", (end,))
            for _ in range(2):
                data, source = instance.recvfrom(65536)
                instance.sendto(answer(data), source)
            until(lambda: (HEALTH, str(end)) not in memory.entries)
        until(lambda: '"watched": 1, "down": 0' in memory.entries[STATE, HEALTH_KEY])
    finally:
        running.stop()
    assert any("MemoryError" in line for line in logged)
    assert logged[-1] == f"event=instance-up why=answers to={end}"
