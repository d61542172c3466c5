"""The node as an operator meets it: it starts, stops, outlives what dies, says what is wrong, keeps to its files."""

import json
import os
import re
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab.agent import Agent
from lab.calls import expect_audio, received, told
from lab.eventually import eventually, seconds_until
from lab.network import Lab, Machine
from lab.node import CHECKOUT, FQDN, Node
from lab.probe import Answerer, Asker
from lab.processes import paused
from lab.sipp import SippError, sipp
from sipward import rpc, settings

from .conftest import Tenant, watched_lab

BACK_WITHIN = 30.0
"""Seconds until the node serves again after something of it was killed. The promise is 2 s; the figures are printed."""
TALK = 4.0
"""Seconds of a call that is to outlive a restart, with room for a busy machine."""

type Make = Callable[..., Tenant]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    with Node(lab) as node:
        yield node
        assert node.stop() == 0, node.log_tail()


def call(phone: Machine, instance: Machine, domain: str) -> None:
    """A call that is answered and heard both ways."""
    callee = sipp(instance, "call-answered", "uas")
    sipp(phone, "call-answered", keys={"domain": domain}, talk=1.1)
    callee.wait()
    expect_audio(phone, instance)


# --- killed -------------------------------------------------------------------------------------------------------


def main_process(name: str) -> Callable[[Node], int]:
    return lambda node: next(pid for pid, found in node.processes().items() if found == name)


def a_worker(node: Node) -> int:
    return next(int(p["PID"]) for p in node.rpc("core.psx") if str(p["DSC"]).startswith("udp receiver"))


def the_sync_process(node: Node) -> int:
    return next(int(p["PID"]) for p in node.rpc("core.psx") if "timer=sync" in str(p["DSC"]))


VICTIMS = {
    "redis": main_process("redis-server"),
    "rtpengine": main_process("rtpengine"),
    "kamailio": main_process("kamailio"),
    "a kamailio worker": a_worker,
    "the sync process": the_sync_process,
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_after_a_kill_the_node_serves_again_and_calls_that_were_up_end_as_they_should(
    victim: str, node: Node, lab: Lab, bob: Machine, pbx: Machine, pbx_on_node: Machine, tenant: Make
) -> None:
    pbx2, carol, dave = lab.instance("pbx2"), lab.phone("carol"), lab.phone("dave")
    acme, beta, probed = tenant(pbx), tenant(pbx2), tenant(pbx_on_node)
    up = [
        sipp(pbx, "call-answered", "uas", timeout=60),
        sipp(bob, "call-answered", keys=acme.keys, talk=TALK, timeout=60, background=True),
        sipp(pbx2, "callee-hangs-up", "uas", talk=TALK, timeout=60),
        sipp(carol, "callee-hangs-up", keys=beta.keys, timeout=60, background=True),
    ]
    for instance in (pbx, pbx2):
        lab.wire.wait_for(lambda m: (m.method, m.machine) == ("ACK", instance.name), what="a call is up")  # noqa: B023
    before = VICTIMS[victim](node)
    with Answerer(pbx_on_node), Asker(dave) as phone:
        os.kill(before, signal.SIGKILL)
        took = seconds_until(
            lambda: (
                is_replaced(node, victim, before)
                and phone.answered_by(f"sip:{probed.domain}", within=0.5) == pbx_on_node.name
            ),
            BACK_WITHIN,
            "the node serves again",
        )
    print(f"\n{victim}: serves again {took:.2f} s after kill -9")
    successor = VICTIMS[victim](node)
    call_once_served(dave, pbx_on_node, probed.domain)
    for scenario in up:
        scenario.wait()
    assert VICTIMS[victim](node) == successor, "what took its place stays"


def call_once_served(phone: Machine, instance: Machine, domain: str) -> None:
    """A call, tried again while it is refused: Kamailio asks an rtpengine that was away again within 2 s."""
    deadline = time.monotonic() + BACK_WITHIN
    while True:
        callee = sipp(instance, "call-answered", "uas")
        try:
            sipp(phone, "call-answered", keys={"domain": domain}, talk=1.1)
        except SippError:
            callee.abandon()
            if time.monotonic() > deadline:
                raise
        else:
            callee.wait()
            return expect_audio(phone, instance)


def is_replaced(node: Node, victim: str, before: int) -> bool:
    """Whether another process has taken the victim's place, and every component is well."""
    try:
        now = VICTIMS[victim](node)
    except (StopIteration, ValueError, rpc.UnreachableError):
        return False
    return now != before and all(part["state"] == "ok" for part in node.status()["components"].values())


# --- started and stopped ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_stops_cleanly_and_starts_again_with_its_keys_and_tenants(number: signal.Signals, own_lab: Lab) -> None:
    pbx, bob = own_lab.instance("pbx"), own_lab.phone("bob")
    node = Node(own_lab).configure()
    never = node.sipward("status")
    assert (never.code, "NOT ready" in never.output, "does not run" in never.output) == (1, True, True), never
    node.start()
    node.route_add("acme", ["acme.example"], [pbx])
    keys = (node.state_dir / "keys").read_bytes()
    end(node, number)
    assert node.stop() == 0
    assert not own_lab.left_behind()
    assert [path for path in node.state_dir.rglob("*") if path.is_socket()] == []
    stopped = node.sipward("status", "--json")
    assert (stopped.code, json.loads(stopped.output)["ready"]) == (1, False), stopped
    with Answerer(pbx), Asker(bob) as phone:
        assert phone.status("sip:acme.example", within=0.3) == 0
        node.start()
        # It may be ready by an older table of its disk a moment before it has read Redis.
        eventually(lambda: phone.answered_by("sip:acme.example") == "pbx")
    assert (node.state_dir / "keys").read_bytes() == keys
    assert node.stop() == 0


def end(node: Node, number: signal.Signals) -> None:
    """Send a signal to `sipward up` and wait until it has ended; who started it can still ask for its exit code."""
    status = Path(f"/proc/{node.pid}/status")
    os.kill(node.pid, number)
    eventually(lambda: "\nState:\tZ" in status.read_text(), 40, "sipward up has ended")


def test_when_the_node_itself_is_killed_nothing_goes_on_and_a_new_one_starts(own_lab: Lab) -> None:
    pbx, bob = own_lab.instance("pbx"), own_lab.phone("bob")
    node = Node(own_lab).start()
    node.route_add("acme", ["acme.example"], [pbx])
    end(node, signal.SIGKILL)
    eventually(lambda: len(own_lab.left_behind()) <= 1, BACK_WITHIN, "the components have ended")
    node.stop()
    eventually(lambda: not own_lab.left_behind(), BACK_WITHIN)
    with node, Answerer(pbx), Asker(bob) as phone:
        eventually(lambda: phone.answered_by("sip:acme.example") == "pbx")


def test_a_second_node_in_the_same_place_is_refused_and_the_first_goes_on(node: Node, bob: Machine) -> None:
    second = node.sipward("up")
    assert second.code == 1, second
    assert f"already runs in {node.state_dir}" in second.errors
    assert node.redis("PING") == "PONG"
    assert node.ready
    with Asker(bob) as phone:
        assert phone.status("sip:203.0.113.10") == 200


PORTS = {
    "SIP over UDP": (socket.SOCK_DGRAM, "203.0.113.10", 5060),
    "SIP over TCP": (socket.SOCK_STREAM, "203.0.113.10", 5060),
    "SIP over TLS": (socket.SOCK_STREAM, "203.0.113.10", 5061),
    "SIP inside": (socket.SOCK_DGRAM, "10.5.4.1", 5060),
    "control": (socket.SOCK_DGRAM, "127.0.0.1", 2223),
}


@pytest.mark.parametrize("what", PORTS)
def test_a_port_that_is_taken_ends_the_start_with_a_line_that_names_it(what: str, own_lab: Lab) -> None:
    kind, address, port = PORTS[what]
    transport = "udp" if kind is socket.SOCK_DGRAM else "tcp"
    node = Node(own_lab)
    with node.machine.socket(kind=kind) as taker:
        taker.bind((address, port))
        if kind == socket.SOCK_STREAM:
            taker.listen()
        with pytest.raises(RuntimeError, match="ended while starting"):
            node.start(BACK_WITHIN)
        assert node.stop() == 1
        assert node.log("sipward") == f"sipward: {transport} {address}:{port} is in use by another program\n"
    assert not own_lab.left_behind()


# --- two nodes ----------------------------------------------------------------------------------------------------


def test_two_nodes_with_the_same_values_run_side_by_side(own_lab: Lab, node: Node, lab: Lab, tenant: Make) -> None:
    with Node(own_lab) as other:
        assert other.state_dir != node.state_dir
        here, there = lab.instance("pbx"), own_lab.instance("pbx")
        acme = tenant(here)
        other.route_add("there", ["there.example"], [there])
        call(lab.phone("bob"), here, acme.domain)
        call(own_lab.phone("bob"), there, "there.example")
        with Asker(lab.phone("bob")) as phone, Asker(own_lab.phone("bob")) as other_phone:
            assert phone.status("sip:there.example") == 404
            assert other_phone.status(f"sip:{acme.domain}") == 404
        assert other.stop() == 0
    assert node.ready


# --- places -------------------------------------------------------------------------------------------------------


def test_behind_a_router_the_outside_sees_the_public_address_alone_and_the_site_the_private_one(own_lab: Lab) -> None:
    with Node(own_lab, "nat") as node:
        pbx, bob, desk = own_lab.instance("pbx"), own_lab.phone("bob"), own_lab.phone("desk", "local")
        node.route_add("acme", ["acme.example"], [pbx])
        call(bob, pbx, "acme.example")
        expect_known_as("203.0.113.10", bob)
        call(desk, pbx, "acme.example")
        expect_known_as("192.168.100.10", desk)
        with Asker(bob) as phone:
            assert phone.status("sip:203.0.113.10") == 200


def test_a_phone_behind_a_router_of_its_own_is_called_through_the_nodes_router(own_lab: Lab) -> None:
    with Node(own_lab, "nat") as node:
        pbx, alice = own_lab.instance("pbx"), own_lab.phone("alice", "symmetric")
        node.route_add("acme", ["acme.example"], [pbx])
        call_registered(alice, pbx)
        expect_known_as("203.0.113.10", alice)


def test_without_internet_the_phones_of_the_site_call_and_are_called(own_lab: Lab) -> None:
    with Node(own_lab, "local") as node:
        pbx, desk = own_lab.instance("pbx"), own_lab.phone("desk", "local")
        node.route_add("acme", ["acme.example"], [pbx])
        call(desk, pbx, "acme.example")
        expect_known_as("192.168.10.1", desk)
        call_registered(desk, pbx)
        with Asker(desk) as phone:
            assert phone.status(f"sip:{FQDN}") == 200


def expect_known_as(address: str, phone: Machine) -> None:
    """All the phone was told, by headers and by SDP, names this address of the node's and no other."""
    others = {"203.0.113.10", "192.168.100.10", "192.168.10.1", "10.5.4.1", "10.5.4.11"} - {address}
    messages = received(phone)
    assert messages
    media = told(phone)
    assert media
    assert media.host == address
    assert [(m.first_line, other) for m in messages for other in others if re.search(rf"\b{other}\b", m.text)] == []


def call_registered(phone: Machine, pbx: Machine) -> None:
    """The phone registers and is called by its PBX."""
    registrar = sipp(pbx, "register", "uas")
    registered = sipp(phone, "register", answers="call-answered", talk=30, background=True)
    registrar.wait()
    registered.wait_for("registered")
    sipp(pbx, "call-from-instance", keys={"target": registrar.saved["contact"]}, talk=1.1)
    registered.stop()
    expect_audio(phone, pbx)


# --- configuration ------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, object], str]] = {
    "name": ({"fqdn": "not a name"}, 'fqdn = "not a name": must be a host name such as sip.example.org'),
    "port": ({"network": {"sip_port": 0}}, "network.sip_port = 0: must be 1 to 65535"),
    "media": ({"rtp": {"ports": "5-1"}}, 'rtp.ports = "5-1": must be a range like "20000-29999"'),
    "network": (
        {"network": {"service_networks": ["10.5.4.1/24"]}},
        'network.service_networks[0] = "10.5.4.1/24": must be a network such as 10.5.4.0/24',
    ),
    "unknown": ({"sip": {"wrokers": 4}}, "sip.wrokers: unknown"),
    "level": ({"log_level": "loud"}, 'log_level = "loud": '),
    "redis": ({"redis": {"url": "http://:secret@host"}}, "redis.url: must be empty"),
    "interface": ({"network": {"interface": "eth9", "address": []}}, 'network.interface = "eth9": '),
    "address": (
        {"network": {"address": "198.18.0.1"}},
        "network.address: 198.18.0.1 is not an address of this machine",
    ),
    "sides": (
        {"network": {"local_networks": ["10.5.4.0/24"]}},
        "network.service_networks: 10.5.4.0/24 is in network.local_networks too: write the PBX hosts themselves, "
        'such as "10.5.4.5/32"',
    ),
    "phones": (
        {"network": {"service_address": [], "service_networks": ["203.0.113.0/24"]}},
        "network.service_networks: 203.0.113.0/24 holds 203.0.113.0/24, ",
    ),
    "certificate": (
        {"lets_encrypt": True, "certificates": {"certificate": "/a.pem", "key": "/a.key"}},
        "certificates.certificate: must be empty with lets_encrypt = true",
    ),
    "service": (
        {"network": {"sip_port": 5070, "service_address": "198.18.0.1"}},
        "network.service_address: 198.18.0.1 is not an address of this machine",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_is_one_line_with_key_value_and_what_is_allowed_and_nothing_starts(what: str, lab: Lab) -> None:
    table, line = WRONG[what]
    wrong = Node(lab, settings=table, name=f"wrong-{what}").configure()
    answer = wrong.sipward("up")
    assert answer.code == 2, answer
    assert line in answer.errors
    assert len(answer.errors.splitlines()) == 1, answer.errors
    assert "secret" not in answer.errors
    assert not wrong.state_dir.exists()


@pytest.mark.parametrize("command", [("status",), ("route", "list"), ("route", "rm", "acme")], ids=" ".join)
def test_every_command_names_all_that_is_wrong_a_line_each(command: tuple[str, ...], lab: Lab) -> None:
    wrong = Node(lab, settings={"fqdn": "-", "rtp": {"control": "0.0.0.0:1"}}, name="wrong-twice").configure()
    answer = wrong.sipward(*command)
    assert answer.code == 2, answer
    assert sorted(line.split(": ")[1].split(" ")[0] for line in answer.errors.splitlines()) == ["fqdn", "rtp.control"]
    assert all(line.startswith(str(wrong.config)) for line in answer.errors.splitlines())


def test_a_configuration_that_is_not_there_is_one_line(lab: Lab) -> None:
    answer = Node(lab, name="nowhere").sipward("status")
    assert (answer.code, len(answer.errors.splitlines())) == (2, 1), answer
    assert "sipward.toml: cannot be read" in answer.errors


def test_the_environment_wins_over_the_file(own_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIPWARD_NETWORK__SIP_PORT", "5070")
    monkeypatch.setenv("SIPWARD_FQDN", "other.example.net")
    with Node(own_lab) as node, Asker(own_lab.phone("bob"), port=5070) as phone, Asker(own_lab.phone("bob")) as old:
        assert phone.status("sip:203.0.113.10:5070") == 200
        assert phone.status("sip:other.example.net:5070") == 200
        assert phone.status(f"sip:{FQDN}") == 404
        assert old.status("sip:203.0.113.10", within=0.3) == 0
        monkeypatch.setenv("SIPWARD_NETWORK__SIP_PORT", "many")
        answer = node.sipward("status")
        assert answer.code == 2, answer
        assert answer.errors.startswith('SIPWARD_NETWORK__SIP_PORT: network.sip_port = "many": '), answer.errors
        monkeypatch.setenv("SIPWARD_NETWORK__SIP_PORT", "5070")


EXAMPLES = sorted((CHECKOUT / "docs/examples").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_configuration(path: Path) -> None:
    assert settings.load(path).network.service_networks


def test_what_the_full_example_shows_commented_out_is_the_default(tmp_path: Path) -> None:
    example = CHECKOUT / "docs/examples/public.toml"
    shown = re.sub(r"^# (\w+ = )", r"\1", example.read_text(), flags=re.MULTILINE)
    assert len(shown.splitlines()) == len(example.read_text().splitlines())
    (tmp_path / "shown.toml").write_text(shown)
    assert settings.load(tmp_path / "shown.toml") == settings.load(example)
    found = set(re.findall(r"^(\w+) = |^\[(\w+)\]", shown, re.MULTILINE))
    assert {key or table for key, table in found} >= settings.Settings.model_fields.keys()


# --- what it shows and what it keeps ------------------------------------------------------------------------------


def test_the_status_of_a_node_that_is_ready_is_told_to_people_and_to_programs(node: Node) -> None:
    shown = node.sipward("status")
    assert shown.code == 0, shown
    lines = shown.output.splitlines()
    assert lines[0] == "ready"
    assert [line.split()[:2] for line in lines[1:5]] == [
        [name, "ok"] for name in ("redis", "rtpengine", "kamailio", "routes")
    ]
    told_to_programs = node.sipward("status", "--json")
    assert told_to_programs.code == 0
    assert json.loads(told_to_programs.output)["ready"] is True


def test_the_status_of_a_node_whose_media_is_hung_is_not_ready_and_names_it(node: Node) -> None:
    with paused(main_process("rtpengine")(node)):
        shown = node.sipward("status")
        assert (shown.code, shown.output.splitlines()[0].startswith("NOT ready")) == (1, True), shown
        assert re.search(r"^ *rtpengine +down +does not answer at 127.0.0.1:2223$", shown.output, re.MULTILINE)
        # Kamailio too: a question of its own that is still under way would count against rtpengine later.
        eventually(lambda: not all(engine["active"] for engine in node.rpc("rtpengine.show", "all")))
    eventually(lambda: node.ready, BACK_WITHIN)


def test_everything_lies_under_the_state_directory_for_its_owner_alone(node: Node, tenant: Make, pbx: Machine) -> None:
    tenant(pbx)
    eventually(node.settings.table_file("tenant").exists)
    found = [node.state_dir, *node.state_dir.rglob("*")]
    modes = {}
    for path in found:
        if path.is_symlink():
            continue  # which has no mode of its own
        with suppress(FileNotFoundError):  # a question's socket, a file that has got its own name by now
            if path.is_symlink():  # to a program; it has no mode of its own
                continue
            modes[path] = stat.S_IMODE(path.lstat().st_mode)
    assert len(modes) > 15
    assert {path: oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    strangers = {path for path in written_by(node) if not path.is_relative_to(node.directory)}
    assert strangers == set()


def written_by(node: Node) -> set[Path]:
    """Files that the node's processes have open for writing, and paths of their unix sockets."""
    found = {Path(line.split()[4]) for line in node.machine.run(["ss", "-xaH"]).splitlines() if "/" in line.split()[4]}
    for pid in node.lab.left_behind():
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed by now
                info = Path(f"/proc/{pid}/fdinfo/{handle.name}").read_text()
                flags = int(re.findall(r"^flags:\s*([0-7]+)", info, re.MULTILINE)[0], 8)
                target = handle.resolve()
                if flags & (os.O_WRONLY | os.O_RDWR) and target.is_file():
                    found.add(target)
    return found


def test_a_refusal_is_counted_and_said_once_in_the_log(node: Node, lab: Lab) -> None:
    before = node.status()["counters"].get("unknown-domain", 0)
    with Agent(lab.phone("lost")) as phone:
        phone.begin("MESSAGE", "sip:1@nobody.example", call_id="lost-and-found")
        phone.expect(404)
    assert node.status()["counters"]["unknown-domain"] == before + 1
    (line,) = [line for line in node.log("kamailio").splitlines() if "callid=lost-and-found" in line]
    assert "event=refused why=unknown-domain method=MESSAGE src_ip=203.0.113." in line
    assert " tenant=- code=404 " in line
