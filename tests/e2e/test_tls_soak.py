"""For the record: how TLS does for long, with many, and by testssl.sh's judgement. `sipward test -m soak`."""

import itertools
import json
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.agent import Agent, answered_call, trusting_all
from lab.eventually import PATIENCE, eventually
from lab.network import Lab, Machine
from lab.node import FQDN, Node
from sipward.certificates import Certificates

from .conftest import Tenant
from .test_tls_hostile import memory, open_connections, processes

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

HARMLESS = {"OK", "INFO", "DEBUG", "WARN"}
"""Of testssl.sh: WARN is a problem of its own, of the client that it runs on."""
IDLE, MACHINES = 5_000, 10
_OPTIONS = """\
OPTIONS sip:{name} SIP/2.0
Via: SIP/2.0/TLS idle.invalid;rport;branch=z9hG4bK{number}
Max-Forwards: 70
From: <sip:idle@{name}>;tag={number}
To: <sip:{name}>
Call-ID: idle-{number}
CSeq: 1 OPTIONS
Content-Length: 0

"""
_numbers = itertools.count()
CALLS, HANDSHAKES_PER_SECOND, SECONDS = 50, 200, 600


def test_testssl_finds_nothing_in_the_servers_settings(node: Node, bob: Machine, lab: Lab, tmp_path: Path) -> None:
    """What it says of the certificate is about who has issued it: here the node's own CA, which revokes nothing."""
    found, ca = tmp_path / "found.json", Certificates(node.state_dir).ca
    argv = ["nsenter", f"--net=/run/netns/{bob.namespace}", "testssl", "--warnings", "off", "--nodns", "none"]
    argv += ["--color", "0", "--ip", lab.edge(bob), "--add-ca", str(ca), "--jsonfile", str(found), f"{FQDN}:5061"]
    subprocess.run(argv, capture_output=True, timeout=900, check=False)
    findings = json.loads(found.read_text())
    assert any(one["id"] == "overall_grade" for one in findings), "it has come to its end"
    bad = [one for one in findings if one["severity"] not in HARMLESS and not one["id"].startswith("cert_")]
    assert not bad, bad


def test_idle_phones_cost_memory_and_give_it_back(node: Node, lab: Lab) -> None:
    many_files()
    phones = [lab.phone(f"crowd{number}") for number in range(MACHINES)]
    before, running = memory(node), processes(node)
    with ExitStack() as held, ThreadPoolExecutor(50) as pool:
        connected = pool.map(lambda number: connect(phones[number % MACHINES]), range(IDLE))
        for connection in connected:
            held.enter_context(connection)
        assert open_connections(node) >= IDLE
        print(f"\n{(memory(node) - before) / IDLE / 1024:.1f} KB of shared memory for each of {IDLE} idle connections")
    eventually(lambda: open_connections(node) == 0)
    after = memory(node)
    print(f"{after - before} bytes more than before")
    assert after - before < 1 << 20
    assert processes(node) == running


def test_calls_go_on_for_ten_minutes_of_handshakes(node: Node, lab: Lab, acme: Tenant, instance: Agent) -> None:
    many_files()
    callers = [lab.phone(f"caller{number}") for number in range(5)]
    running, before = processes(node), memory(node)
    with handshakes(lab.phone("crowd0")) as done, ExitStack() as phones:
        agents = [phones.enter_context(Agent(callers[n % 5], "tls", port=0)) for n in range(CALLS)]
        deadline, rounds = time.monotonic() + SECONDS, 0
        while time.monotonic() < deadline:
            calls = [answered_call(agent, instance, f"sip:200@{acme.domain}") for agent in agents]
            for ours, _ in calls:
                ours.hang_up(instance)
            rounds += 1
    print(
        f"\n{done()} handshakes in {SECONDS} s, {rounds * CALLS} calls; {memory(node) - before} bytes more than before"
    )
    assert processes(node) == running


def connect(phone: Machine) -> socket.socket:
    """A connection that has asked once: one that says nothing is closed within half a minute."""
    plain = phone.socket(socket.AF_INET, socket.SOCK_STREAM)
    plain.settimeout(PATIENCE)
    plain.connect((phone.lab.edge(phone), 5061))
    secure = trusting_all().wrap_socket(plain)
    secure.sendall(_OPTIONS.format(name=FQDN, number=next(_numbers)).replace("\n", "\r\n").encode())
    assert secure.recv(4096).startswith(b"SIP/2.0 200 ")
    return secure


@contextmanager
def handshakes(phone: Machine) -> Iterator[Callable[[], int]]:
    """So many a second, until the block ends; how many it were."""
    stopping, counted, lock = threading.Event(), 0, threading.Lock()

    def one() -> None:
        nonlocal counted
        connect(phone).close()
        with lock:
            counted += 1

    def run() -> None:
        with ThreadPoolExecutor(20) as pool:
            due = time.monotonic()
            while not stopping.is_set():
                pool.submit(one)
                due += 1 / HANDSHAKES_PER_SECOND
                time.sleep(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: counted
    finally:
        stopping.set()
        thread.join()


def many_files() -> None:
    """Each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
