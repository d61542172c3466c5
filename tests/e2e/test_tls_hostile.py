"""What strangers throw at the TLS port: the node goes on as it was, with the same processes and the same memory."""

import itertools
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from lab.agent import trusting_all
from lab.eventually import PATIENCE, eventually
from lab.network import Lab, Machine
from lab.node import Node
from lab.packets import Address

pytestmark = [
    pytest.mark.usefixtures("control"),
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning"),
]

IN_PARALLEL = 50
HERE = 1000
"""How many in every run; the soak throws 10,000."""

type Throw = Callable[[socket.socket], None]


def garbage(there: socket.socket) -> None:
    there.sendall(b"\xde\xad\xbe\xef" * 300)
    until_closed(there)


def plain_http(there: socket.socket) -> None:
    there.sendall(b"GET / HTTP/1.1\r\nHost: edge.example.net\r\n\r\n")
    until_closed(there)


def plain_sip(there: socket.socket) -> None:
    there.sendall(b"OPTIONS sip:edge.example.net SIP/2.0\r\n\r\n")
    until_closed(there)


def half_a_handshake(there: socket.socket) -> None:
    """Answers a ServerHello with nothing."""
    there.sendall(hello())
    assert there.recv(4096)


def aborted_hello(there: socket.socket) -> None:
    there.sendall(hello()[:60])


def reset_hello(there: socket.socket) -> None:
    there.sendall(hello()[:60])
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def nothing(there: socket.socket) -> None:
    """Comes and goes."""


def old_hello(there: socket.socket) -> None:
    """TLS 1.0."""
    context = trusting_all()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        context.wrap_socket(there)


def junk_inside(there: socket.socket) -> None:
    """A handshake that is right, and no SIP behind it."""
    with trusting_all().wrap_socket(there.dup()) as secure:
        secure.sendall(b"MSRP \r\n" + b"\0" * 2000)


def well_bred(there: socket.socket) -> None:
    """A whole handshake, and a proper end."""
    with trusting_all().wrap_socket(there.dup()) as secure:
        secure.sendall(b"\r\n\r\n")
        assert secure.recv(2) == b"\r\n"


THROWS: list[Throw] = [
    garbage, plain_http, plain_sip, half_a_handshake, aborted_hello, reset_hello, nothing, old_hello, junk_inside,
    well_bred,
]  # fmt: skip


def until_closed(there: socket.socket) -> None:
    with suppress(ConnectionError):
        while there.recv(4096):
            pass


def hello() -> bytes:
    """The first message of a TLS client."""
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        trusting_all().wrap_bio(coming, going).do_handshake()
    return going.read()


def throw(machine: Machine, count: int) -> None:
    """Each in its turn, so many in all, at so many in parallel."""
    node = tuple(Address(machine.lab.edge(machine), 5061))
    turns = itertools.cycle(THROWS)

    def one(there: socket.socket, act: Throw) -> None:
        with there:
            there.settimeout(PATIENCE)
            there.connect(node)
            act(there)

    with ThreadPoolExecutor(IN_PARALLEL) as pool:
        while count > 0:
            size = min(count, IN_PARALLEL * 4)
            sockets = machine.inside(lambda: [socket.socket() for _ in range(size)])  # noqa: B023
            list(pool.map(one, sockets, itertools.islice(turns, size)))
            count -= size


def processes(node: Node) -> set[int]:
    """Kamailio's processes."""
    return {int(process["PID"]) for process in node.rpc("core.psx")}


def memory(node: Node) -> int:
    """Bytes of shared memory in use."""
    return int(node.rpc("core.shmmem")["used"])


def open_connections(node: Node) -> int:
    """How many TLS connections there are."""
    return int(node.rpc("tls.info")["opened_connections"])


@pytest.fixture
def attacker(lab: Lab) -> Machine:
    return lab.attacker()


@pytest.mark.parametrize("count", [HERE, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_what_is_no_phone_leaves_nothing_behind(count: int, node: Node, attacker: Machine) -> None:
    throw(attacker, IN_PARALLEL)  # what is made once is made
    eventually(lambda: open_connections(node) == 0)
    before, running = memory(node), processes(node)
    throw(attacker, count)
    eventually(lambda: open_connections(node) == 0)
    after = memory(node)
    print(f"\n{count} connections: {after - before} bytes more")
    assert processes(node) == running
    assert after - before < 100_000
