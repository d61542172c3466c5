"""Redis harmed in every way while calls are placed: none of them notices, the status tells, and what was edited counts.

A node of its own: its Redis would be a bad neighbour.
"""

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.calls import heard
from lab.eventually import eventually, seconds_until
from lab.network import Lab, Machine
from lab.node import Node
from lab.probe import Answerer, Asker
from lab.processes import paused
from lab.redis import Hand, Redis
from lab.sipp import sipp

from .conftest import Tenant, watched_lab

SECONDS = 2.5
"""How long a fault lasts: several beats of the node's watch on Redis."""
NO_PAUSE = 0.8 * SECONDS
"""Seconds from INVITE to 200 and between two packets, at most: who waits for Redis waits as long as the fault lasts."""
IN_STEP_WITHIN = 20.0
"""Seconds until an edit is live after Redis is back. The promise is 1 s; the figures are printed."""

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


@pytest.fixture
def hand(node: Node) -> Iterator[Hand]:
    """Opened while Redis is well and holds nothing but what runs."""
    eventually(lambda: redis_state(node) == ("ok", ""), 10, "Redis is well")
    with Hand(node.settings.redis_socket) as hand:
        yield hand


def redis_state(node: Node) -> tuple[str, str]:
    redis = node.status()["components"]["redis"]
    return redis["state"], redis["detail"]


def redis_pid(node: Node) -> int:
    """The id of the node's Redis; 0 while there is none."""
    return next((pid for pid, name in node.processes().items() if name == "redis-server"), 0)


def value(domain: str, instance: Machine) -> str:
    uri = f"sip:{instance.address}:{instance.sip_port}"
    return json.dumps({"domains": [domain], "instances": [{"uri": uri}]})


@contextmanager
def calls_go_on(node: Node, instance: Machine, domain: str) -> Iterator[None]:
    """One call is up all the while, ten new ones a second are placed; none of them is kept waiting."""
    lab, keys = node.lab, {"domain": domain}
    talker, caller = lab.phone("carol"), lab.phone("bob")
    callee = sipp(instance, "call-answered", "uas", calls=10000, timeout=60)
    long = sipp(talker, "call-answered", keys=keys, talk=SECONDS + 3, background=True)
    lab.wire.wait_for(lambda m: m.method == "ACK" and m.machine == instance.name, what="a call is up")
    with again_and_again(lambda: sipp(caller, "call-answered", keys=keys, talk=0.2, calls=10, rate=10)):
        yield
    long.wait()
    callee.stop()
    waits = seconds_to_answer(caller)
    assert len(waits) >= 10
    assert max(waits) < NO_PAUSE, f"a call waited {max(waits):.2f} s"
    gaps = [later - sooner for s in heard(talker) for sooner, later in zip(s.times, s.times[1:], strict=False)]
    assert len(gaps) > 45 * SECONDS, f"the long call heard {len(gaps)} packets"
    assert max(gaps) < NO_PAUSE, f"the long call heard nothing for {max(gaps):.2f} s"


@contextmanager
def again_and_again(action: Callable[[], object]) -> Iterator[None]:
    """Do something without a pause, each time to its end; raises what went wrong with it."""
    done, problems = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            while not done.is_set():
                action()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if problems:
        raise problems[0]


def seconds_to_answer(caller: Machine) -> list[float]:
    """From the first INVITE to the 200, of every call this machine placed."""
    wire = caller.lab.wire
    asked: dict[str, float] = {}
    for message in wire.messages(machine=caller.name, method="INVITE", requests=True):
        asked.setdefault(message.call_id, message.time)
    answered = {m.call_id: m.time for m in reversed(wire.messages(machine=caller.name, method="INVITE", status=200))}
    assert answered.keys() == asked.keys(), "every call is answered"
    return [answered[call_id] - asked[call_id] for call_id in asked]


# --- faults: each harms by a hand that was there before, and heals by another ---------------------------------------


@contextmanager
def hung(node: Node, hand: Hand) -> Iterator[None]:
    with paused(redis_pid(node)):
        yield


@contextmanager
def slow(node: Node, hand: Hand) -> Iterator[None]:
    """Redis works for a moment in every second."""
    pid = redis_pid(node)

    def hold_up() -> None:
        with paused(pid):
            time.sleep(0.8)
        time.sleep(0.1)

    with again_and_again(hold_up):
        yield


@contextmanager
def read_only(node: Node, hand: Hand) -> Iterator[None]:
    assert hand.call("REPLICAOF", "127.0.0.1", "1") == "+OK"
    yield
    with Hand(node.settings.redis_socket) as healer:
        assert healer.call("REPLICAOF", "NO", "ONE") == "+OK"


@contextmanager
def out_of_memory(node: Node, hand: Hand) -> Iterator[None]:
    assert hand.call("CONFIG", "SET", "maxmemory", "1") == "+OK"
    yield
    with Hand(node.settings.redis_socket) as healer:
        assert healer.call("CONFIG", "SET", "maxmemory", "0") == "+OK"


@contextmanager
def another_password(node: Node, hand: Hand) -> Iterator[None]:
    """Redis asks for a password that the node does not know, and has closed the node's connections."""
    assert hand.call("CONFIG", "SET", "requirepass", "changed") == "+OK"
    for kind in ("normal", "pubsub"):
        assert int(hand.call("CLIENT", "KILL", "TYPE", kind)[1:]) >= 1
    yield
    with Hand(node.settings.redis_socket) as healer:
        assert healer.call("AUTH", "changed") == "+OK"
        assert healer.call("CONFIG", "SET", "requirepass", "") == "+OK"


@contextmanager
def dead(node: Node, hand: Hand) -> Iterator[None]:
    """Killed as often as it is started again."""

    def kill() -> None:
        for pid, name in node.processes().items():
            if name == "redis-server":
                with suppress(ProcessLookupError):  # killed before, and gone by now
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)

    with again_and_again(kill):
        yield


@dataclass(frozen=True)
class Fault:
    """`complaint` is a part of what the status says; empty when it depends on the moment."""

    harmed: Callable[[Node, Hand], AbstractContextManager[None]]
    complaint: str


FAULTS = {
    "hung": Fault(hung, "does not answer in time"),
    "slow": Fault(slow, ""),
    "read-only": Fault(read_only, "takes no writes"),
    "out of memory": Fault(out_of_memory, "takes no writes"),
    "behind another password": Fault(another_password, "uthentication required"),
    "dead": Fault(dead, "Redis cannot be used"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_calls_go_on_without_a_pause_while_redis_is(
    what: str, node: Node, hand: Hand, pbx: Machine, tenant: Make
) -> None:
    fault, acme = FAULTS[what], tenant(pbx)
    late = f"late-{acme.domain}"
    edit = ("SET", "sipward:tenant:late", value(late, pbx))
    with calls_go_on(node, pbx, acme.domain):
        with fault.harmed(node, hand):
            start = time.monotonic()
            if fault.complaint:
                eventually(lambda: fault.complaint in redis_state(node)[1], IN_STEP_WITHIN, "the status tells")
                assert redis_state(node)[0] == "degraded"
                shown = node.sipward("status")
                assert (shown.code, "degraded" in shown.output) == (0, True), shown
            assert node.ready
            with suppress(OSError):
                hand.send(*edit)
            time.sleep(max(0.0, start + SECONDS - time.monotonic()))  # the fault lasts, calls are placed meanwhile
        healed = time.monotonic()
        if said_at_last(hand) != "+OK":
            eventually(lambda: said(node, *edit) == "+OK", 10, "Redis takes the edit")
            healed = time.monotonic()
        eventually(lambda: node.live(late), IN_STEP_WITHIN, "the edit is live")
        print(f"\nRedis was {what}: in step {time.monotonic() - healed:.2f} s after it was well")
    eventually(lambda: redis_state(node) == ("ok", ""), IN_STEP_WITHIN, "the status is clean again")
    node.route_remove("late")


def said_at_last(hand: Hand) -> str:
    """The answer to what was sent into the fault; empty when the connection is gone."""
    try:
        return hand.answer()
    except OSError:
        return ""


def said(node: Node, *command: str) -> str:
    """What the node's Redis says now; empty when it says nothing."""
    try:
        with Hand(node.settings.redis_socket) as hand:
            return hand.call(*command)
    except OSError:
        return ""


def test_a_killed_redis_is_started_again_with_all_it_held(node: Node, hand: Hand, pbx: Machine, tenant: Make) -> None:
    acme = tenant(pbx)
    eventually(lambda: "aof_buffer_length:0\r" in said(node, "INFO", "persistence"))
    before = redis_pid(node)
    with calls_go_on(node, pbx, acme.domain):
        os.kill(before, signal.SIGKILL)
        took = seconds_until(lambda: said(node, "PING") == "+PONG", 10)
        eventually(lambda: redis_state(node) == ("ok", ""), IN_STEP_WITHIN)
        assert redis_pid(node) != before
        assert node.redis("EXISTS", f"sipward:tenant:{acme.name}") == "1"
    print(f"\nRedis answers {took:.2f} s after it was killed")


# --- emptied ------------------------------------------------------------------------------------------------------


def restarted_empty(node: Node) -> None:
    """Redis loses its disk and starts again."""
    pid = redis_pid(node)
    shutil.rmtree(node.state_dir / "redis/appendonlydir")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: redis_pid(node) != pid and said(node, "DBSIZE") == ":0", 10, "Redis is back and empty")


def flushed(node: Node) -> None:
    node.redis("FLUSHALL")


@pytest.mark.parametrize("emptied", [restarted_empty, flushed])
def test_an_emptied_redis_empties_no_table_and_is_filled_again_on_command(
    emptied: Callable[[Node], None], node: Node, hand: Hand, pbx: Machine, tenant: Make
) -> None:
    acme, other = tenant(pbx), tenant(pbx)
    on_disk(node, other.domain)
    with calls_go_on(node, pbx, acme.domain):
        emptied(node)
        withheld(node, 2)
        shown = node.sipward("status")
        assert (shown.code, "route restore" in shown.output) == (0, True), shown
        answer = node.sipward("route", "restore")
        assert (answer.code, answer.output.split()[0]) == (0, "2"), answer
    assert node.redis("EXISTS", f"sipward:tenant:{acme.name}", f"sipward:tenant:{other.name}") == "2"
    withheld(node, 0)
    assert node.live(acme.domain)
    assert node.live(other.domain)


def test_an_emptied_redis_is_taken_as_it_is_on_command(
    node: Node, hand: Hand, bob: Machine, pbx: Machine, tenant: Make
) -> None:
    acme, new = tenant(pbx), tenant(pbx)
    node.route_remove(new.name)
    with Answerer(pbx), Asker(bob) as phone:
        node.redis("FLUSHALL")
        withheld(node, 1)
        assert phone.answered_by(f"sip:{acme.domain}") == "pbx"
        node.put(new.name, json.loads(value(new.domain, pbx)))
        assert phone.answered_by(f"sip:{new.domain}") == "pbx", "what is written now counts as usual"
        assert node.sipward("route", "accept").code == 0
        withheld(node, 0)
        assert phone.status(f"sip:{acme.domain}") == 404
        assert phone.answered_by(f"sip:{new.domain}") == "pbx"


def withheld(node: Node, count: int) -> None:
    """Wait until so many tenants run that Redis has lost, and the status says so."""
    routes = eventually(
        lambda: (r := node.status()["components"]["routes"])["withheld"] == count and r, 5, f"{count} are withheld"
    )
    assert routes["state"] == "ok"
    assert bool(routes["detail"]) == bool(count), routes


def on_disk(node: Node, domain: str) -> None:
    """Wait until the last good table has the domain."""
    path = node.settings.table_file("tenant")
    eventually(lambda: path.exists() and domain in path.read_text(), 10, f"{domain} is on disk")


# --- away from the start ------------------------------------------------------------------------------------------


def test_a_node_starts_and_routes_by_its_last_good_table_while_redis_is_away(own_lab: Lab) -> None:
    pbx, bob = own_lab.instance("pbx"), own_lab.phone("bob")
    with Node(own_lab) as node:
        node.route_add("acme", ["acme.example"], [pbx])
        on_disk(node, "acme.example")
    redis = Redis(node.machine)
    with Node(own_lab, settings={"redis": {"url": redis.url}}) as node, Answerer(pbx), Asker(bob) as phone:
        assert redis_state(node)[0] == "degraded"
        assert node.sipward("status").code == 0
        assert phone.answered_by("sip:acme.example") == "pbx"
        assert phone.status("sip:nobody.example") == 404
        assert node.sipward("route", "list").code == 1
        with redis:
            withheld(node, 1)
            assert node.sipward("route", "restore").code == 0
            withheld(node, 0)
            eventually(lambda: redis_state(node) == ("ok", ""), IN_STEP_WITHIN)
            with Hand(redis.socket) as hand:
                assert hand.call("SET", "sipward:tenant:late", value("late.example", pbx)) == "+OK"
            took = seconds_until(lambda: node.live("late.example"), IN_STEP_WITHIN)
        print(f"\nan edit in a Redis that came late: live after {took:.3f} s")
        assert node.stop() == 0


def test_a_node_with_neither_redis_nor_a_last_good_table_waits_for_redis_and_refuses_for_a_while(own_lab: Lab) -> None:
    pbx, bob = own_lab.instance("pbx"), own_lab.phone("bob")
    redis = Redis(own_lab.node())
    node = Node(own_lab, settings={"redis": {"url": redis.url}})
    with pytest.raises(RuntimeError, match="is not ready"):
        node.start(within=2.0)
    try:
        eventually(lambda: redis_state(node)[0] == "degraded", 10, "the status names Redis")
        shown = node.sipward("status")
        assert shown.code == 1, shown
        assert str(redis.socket) in shown.output
        with Answerer(pbx), Asker(bob) as phone:
            refused = eventually(lambda: phone.ask("sip:acme.example"))
            assert (refused.status, bool(refused.header("Retry-After"))) == (503, True)
            with redis, Hand(redis.socket) as hand:
                node.wait_ready(IN_STEP_WITHIN)
                assert phone.status("sip:acme.example") == 404
                assert hand.call("SET", "sipward:tenant:acme", value("acme.example", pbx)) == "+OK"
                eventually(lambda: phone.answered_by("sip:acme.example") == "pbx", IN_STEP_WITHIN)
    finally:
        assert node.stop() == 0


def test_a_wrong_password_is_told_and_not_shown_and_the_last_good_table_routes(own_lab: Lab) -> None:
    pbx, bob = own_lab.instance("pbx"), own_lab.phone("bob")
    with Redis(own_lab.node(), "guarded", "--requirepass", "open-sesame") as redis:
        right = redis.url.replace("unix://", "unix://:open-sesame@")
        with Node(own_lab, settings={"redis": {"url": right}}) as node:
            added = node.sipward(
                "route", "add", "acme", "--domain", "acme.example", "--instance", f"sip:{pbx.address}:{pbx.sip_port}"
            )
            assert added.code == 0, added
            on_disk(node, "acme.example")
            assert redis_state(node) == ("ok", "")
        wrong = right.replace("open-sesame", "closed-sesame")
        with Node(own_lab, settings={"redis": {"url": wrong}}) as node, Answerer(pbx), Asker(bob) as phone:
            assert phone.answered_by("sip:acme.example") == "pbx"
            eventually(lambda: "password" in redis_state(node)[1], 5, "the status names the password")
            shown, listed = node.sipward("status"), node.sipward("route", "list")
            assert (shown.code, listed.code) == (0, 1)
            said = shown.output + listed.output + listed.errors + node.log_tail(1000)
            assert not re.findall("(?:open|closed)-sesame", said)


# --- who speaks to Redis ------------------------------------------------------------------------------------------


def test_no_worker_holds_a_connection_to_redis_only_the_sync_process_does(
    node: Node, hand: Hand, bob: Machine, pbx: Machine, tenant: Make
) -> None:
    acme = tenant(pbx)
    with Answerer(pbx), Asker(bob) as phone:
        for _ in range(50):  # every worker has had something to route
            assert phone.answered_by(f"sip:{acme.domain}") == "pbx"
    kinds = {process["PID"]: str(process["DSC"]) for process in node.rpc("core.psx")}
    assert sum("receiver" in kind for kind in kinds.values()) >= 8
    holding = {kinds[pid] for pid in kinds if connections_of(pid) & redis_peers(node)}
    assert holding == {"RTIMER EXEC child=0 timer=sync"}


def redis_peers(node: Node) -> set[str]:
    """The inodes of the other ends of Redis' connections, from `ss`: local path, its inode, peer's path, its inode."""
    path = str(node.settings.redis_socket)
    lines = [line.split() for line in node.machine.run(["ss", "-xH"]).splitlines()]
    return {columns[7] for columns in lines if columns[4] == path}


def connections_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    targets = (os.readlink(handle) for handle in Path(f"/proc/{pid}/fd").iterdir())
    return {target[len("socket:[") : -1] for target in targets if target.startswith("socket:[")}
