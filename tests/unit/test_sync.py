"""Redis to the live table, through every bad day of Redis. With a real redis-server and a table that remembers."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self

import pytest
from redis_server import PATIENCE, RedisServer

from sipward import live, resolver, snapshot, store, sync
from sipward.model import Endpoint
from sipward.port_keeper import PortKeeper
from sipward.prober import Prober
from sipward.records import Kind
from sipward.resolver import Answer, LookUp, LookUpError, Name
from sipward.routes import Routes
from sipward.rules import Rules
from sipward.settings import Settings
from sipward.snapshot import Row, Snapshot
from sipward.store import Event, Found, Health, Listed, Store

KEY = "sipward:tenant:"
A_SECOND = 1.8
"""A second, and something for a busy machine."""
AT_ONCE = 0.5
RULES = Rules((ip_network("10.5.4.0/24"),), (), ())


class Memory:
    """Kamailio's shared memory: remembers, and wakes who waits for something in it."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, str]] = {live.TABLE: {}, live.STATE: {}, live.PORTS: {}}
        self.published: list[str] = []
        self.written: list[str] = []
        self.failures = 0
        self._changed = threading.Condition()

    def set(self, table: str, key: str, value: str) -> None:
        with self._changed:
            if table == live.TABLE and self.failures:
                self.failures -= 1
                raise MemoryError("no shared memory left")
            self.tables[table][key] = value
            self.written.append(key)
            if table == live.STATE:
                self.published.append(value)
            self._changed.notify_all()

    def get(self, table: str, key: str) -> str | None:
        return self.tables[table].get(key)

    def remove(self, table: str, key: str) -> None:
        with self._changed:
            self.tables[table].pop(key, None)
            self._changed.notify_all()

    def wait(self, wanted: Callable[[], bool], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(wanted, seconds)


class Node:
    """What a caller and an operator see of the sync process."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    @property
    def domains(self) -> set[str]:
        return {key for key in self.memory.tables[live.TABLE] if key[0] not in "@^#%>"}

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.memory.tables[live.STATE].get(live.STATE_KEY, "{}"))
        return found

    def port(self, domain: str) -> int:
        return live.decode(self.memory.tables[live.TABLE][domain]).instances[0].endpoint.port

    def until(self, wanted: Callable[[Self], bool], seconds: float = PATIENCE) -> None:
        assert self.memory.wait(lambda: wanted(self), seconds), f"{self.state} {sorted(self.domains)[:20]}"

    def until_ok(self, seconds: float = PATIENCE) -> None:
        self.until(lambda n: n.state.get("redis") == "ok", seconds)

    def until_degraded(self, reason: str, seconds: float = PATIENCE) -> None:
        self.until(lambda n: n.state["redis"].startswith("degraded: ") and reason in n.state["redis"], seconds)


def value(*domains: str, port: int = 5080) -> str:
    return json.dumps({"domains": list(domains), "instances": [{"uri": f"sip:10.5.4.1:{port}"}]})


def on_disk(directory: Path, wanted: Callable[[Mapping[str, Row]], bool]) -> Mapping[str, Row]:
    """The rows of the last good table, as soon as they are as wanted."""
    deadline = time.monotonic() + PATIENCE
    while True:
        last = snapshot.load(directory / "table" / "tenants.jsonl")
        if last and wanted(rows := {row.name: row for row in last.rows}):
            return rows
        assert time.monotonic() < deadline
        time.sleep(0.02)


def settings(directory: Path, url: str) -> Settings:
    return Settings(fqdn="sip.example.org", state_dir=directory, network={"address": "203.0.113.5"}, redis={"url": url})  # type: ignore[arg-type]


def nothing(name: Name) -> Answer:
    raise LookUpError("nobody is asked")


@contextmanager
def node(
    directory: Path,
    url: str,
    memory: Memory | None = None,
    rules: Rules = RULES,
    look_up: LookUp = nothing,
    prober: Prober | None = None,
) -> Iterator[Node]:
    memory, stop = memory or Memory(), threading.Event()
    crashed: list[BaseException] = []

    def run() -> None:
        try:
            sync.run(memory, settings(directory, url), rules, look_up, prober, stop.is_set)
        except BaseException as error:
            crashed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield Node(memory)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not crashed


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is stopped at its next event: let them come faster, for the tests' time alone."""
    monkeypatch.setattr(store, "_HEARTBEAT", 0.05)


@pytest.fixture
def short_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of the DNS are asked for again at once."""
    monkeypatch.setattr(resolver, "_SHORTEST", 0.01)
    monkeypatch.setattr(resolver, "_AFTER_A_FAILURE", 0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server.start()


@pytest.fixture
def running(server: RedisServer, tmp_path: Path) -> Iterator[Node]:
    """A node with ten tenants, in step."""
    with Store(server.url) as redis:
        redis.fill(Kind.TENANT, {f"t{n}": value(f"t{n}.org") for n in range(10)})
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.state.get("tenants") == 10 and n.state["redis"] == "ok")
        yield found


TEN = {f"t{n}.org" for n in range(10)}


# Every day


def test_an_edit_is_live_within_milliseconds(server: RedisServer, running: Node) -> None:
    server.put("t0", value("t0.org", port=5090))
    running.until(lambda n: n.port("t0.org") == 5090, seconds=AT_ONCE)
    server.put("new", value("new.org"))
    running.until(lambda n: n.domains == TEN | {"new.org"}, seconds=AT_ONCE)
    server.call("DEL", f"{KEY}new")
    running.until(lambda n: n.domains == TEN, seconds=AT_ONCE)


def test_an_edit_writes_its_own_entries_only(server: RedisServer, running: Node) -> None:
    running.memory.written.clear()
    server.put("t0", value("t0.org", port=5090))
    running.until(lambda n: n.port("t0.org") == 5090)
    server.put("t1", value("t1.org", port=5090))
    running.until(lambda n: n.port("t1.org") == 5090)
    running.until(lambda n: len(n.memory.written) >= 4)
    assert [key for key in running.memory.written if key != live.STATE_KEY] == ["@t0", "t0.org", "@t1", "t1.org"]


def test_a_tenant_is_also_found_by_its_name(running: Node) -> None:
    table = running.memory.tables[live.TABLE]
    assert table[live.tenant_key("t0")] == table["t0.org"]


def test_removing_one_after_the_other_leaves_none(server: RedisServer, running: Node) -> None:
    for n in range(10):
        server.call("DEL", f"{KEY}t{n}")
    running.until(lambda n: not n.memory.tables[live.TABLE], seconds=A_SECOND)
    running.until(lambda n: n.state["tenants"] == n.state["domains"] == n.state["withheld"] == 0)


def test_the_state_says_what_there_is(server: RedisServer, running: Node) -> None:
    assert running.state == {
        "ready": True,
        "redis": "ok",
        "loading": 0,
        "tenants": 10,
        "domains": 10,
        "numbers": 0,
        "trunks": 0,
        "rejected": {},
        "rejected_total": 0,
        "unresolved": {},
        "withheld": 0,
        "detail": "",
    }


def test_the_state_is_published_only_when_it_changes(server: RedisServer, running: Node) -> None:
    server.put("t0", value("t0.org", port=5090))
    running.until(lambda n: n.port("t0.org") == 5090)
    server.put("new", value("new.org"))
    running.until(lambda n: n.state["tenants"] == 11)
    assert len(running.memory.published) == len(set(running.memory.published))


def test_a_table_without_tenants_is_ready(server: RedisServer, tmp_path: Path) -> None:
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.state.get("ready", False) and n.state["tenants"] == 0)


# Values that are no good


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("SET", f"{KEY}t0", "{"), "not JSON"),
        (("SET", f"{KEY}t0", '{"domains": [], "instances": [], "x": 1}'), "x: unknown"),
        (("SET", f"{KEY}t0", value("t0.org", "t1.org")), "t1.org belongs to tenant t1"),
        (("SET", f"{KEY}t0", value("t0.org").replace("10.5.4.1", "10.9.9.9")), "service_networks"),
        (("EVAL", f"return redis.call('SET', '{KEY}t0', string.rep('x', 1000000))", "0"), "1000000 bytes"),
        (("EVAL", f"redis.call('DEL', '{KEY}t0') return redis.call('RPUSH', '{KEY}t0', 'x')", "0"), "holds a list"),
        (("EVAL", f"return redis.call('SET', '{KEY}t0', '\\0\\255')", "0"), "not UTF-8"),
    ],
)
def test_a_bad_value_is_skipped_and_named_until_it_is_good(
    server: RedisServer, running: Node, command: tuple[str, ...], reason: str
) -> None:
    server.call(*command)
    running.until(lambda n: reason in n.state["rejected"].get(f"{KEY}t0", ""))
    assert running.domains == TEN
    assert running.state["rejected_total"] == 1
    server.put("t0", value("good.org"))
    running.until(lambda n: "good.org" in n.domains and n.state["rejected"] == {})


def test_a_bad_value_at_the_first_load_hinders_nobody(server: RedisServer, tmp_path: Path) -> None:
    server.put("good", value("good.org"))
    server.put("Bad Name", value("bad.org"))
    server.call("HSET", f"{KEY}hash", "x", "y")
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.state.get("rejected", {}).keys() == {f"{KEY}Bad Name", f"{KEY}hash"})
        assert found.domains == {"good.org"}


def test_a_flood_of_bad_values_is_counted_and_shown_in_part(server: RedisServer, tmp_path: Path) -> None:
    with Store(server.url) as redis:
        redis.fill(Kind.TENANT, {f"bad{n}": "{" for n in range(150)})
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.state.get("rejected_total") == 150)
        assert len(found.state["rejected"]) == 50


def test_what_is_said_of_bad_values_fits_into_an_answer_whatever_their_keys_are(
    server: RedisServer, tmp_path: Path
) -> None:
    names = [f"{n:02}{text}" for n in range(0, 40, 2) for text in ('\\"' * 300, "\udcff" * 100)]
    with Store(server.url) as redis:
        redis.fill(Kind.TENANT, dict.fromkeys(names, json.dumps({"\u00fc" * 200: 1})) | {"00" + "x" * 100_000: "{"})
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.state.get("rejected_total") == 41)
        # The answer is JSON in JSON, and 128 KiB at most.
        assert 10 < len(found.state["rejected"]) < 41
        assert len(json.dumps(found.memory.tables[live.STATE][live.STATE_KEY])) < 100_000


# Redis is not well


def test_a_frozen_redis_is_degraded_and_in_step_within_a_second_of_its_thaw(server: RedisServer, running: Node) -> None:
    server.freeze()
    running.until_degraded("does not answer in time", seconds=A_SECOND)
    assert running.domains == TEN
    assert running.state["ready"] is True
    # Written to the socket while the server sleeps: served the moment it wakes.
    edit = threading.Thread(target=server.put, args=("new", value("new.org")))
    edit.start()
    server.thaw()
    running.until(lambda n: n.domains == TEN | {"new.org"}, seconds=A_SECOND)
    running.until_ok(seconds=A_SECOND)
    edit.join()


def test_a_redis_that_was_restarted_empty_empties_nothing(server: RedisServer, running: Node) -> None:
    server.stop()
    running.until_degraded("Redis cannot be used", seconds=A_SECOND)
    server.start()
    running.until(lambda n: n.state["withheld"] == 10, seconds=A_SECOND)
    assert running.domains == TEN
    assert "Redis has lost 10 of 10 tenants" in running.state["detail"]
    assert "sipward route accept" in running.state["detail"]
    assert "sipward route restore" in running.state["detail"]


def test_a_lost_table_is_removed_once_that_is_accepted(server: RedisServer, running: Node) -> None:
    server.call("FLUSHALL")
    running.until(lambda n: n.state["withheld"] == 10, seconds=A_SECOND)
    server.put("t3", value("t3.org"))
    running.until(lambda n: n.state["withheld"] == 9, seconds=A_SECOND)
    with Store(server.url) as redis:
        redis.accept()
    running.until(lambda n: n.domains == {"t3.org"}, seconds=A_SECOND)
    running.until(lambda n: n.state["withheld"] == 0 and n.state["detail"] == "")


def test_a_lost_table_is_written_back_from_disk(server: RedisServer, running: Node, tmp_path: Path) -> None:
    server.call("FLUSHALL")
    running.until(lambda n: n.state["withheld"] == 10, seconds=A_SECOND)
    rows = on_disk(tmp_path, lambda rows: len(rows) == 10)
    with Store(server.url) as redis:
        assert redis.fill(Kind.TENANT, {name: row.raw for name, row in rows.items()}) == 10
    running.until(lambda n: n.state["withheld"] == 0 and n.state["tenants"] == 10, seconds=A_SECOND)
    assert running.domains == TEN


def test_a_loss_stays_withheld_over_a_restart_of_the_node(server: RedisServer, tmp_path: Path) -> None:
    with Store(server.url) as redis:
        redis.fill(Kind.TENANT, {f"t{n}": value(f"t{n}.org") for n in range(10)})
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.state.get("tenants") == 10)
        server.call("FLUSHALL")
        found.until(lambda n: n.state["withheld"] == 10)
        for n in range(5):
            server.put(f"t{n}", value(f"t{n}.org"))
        found.until(lambda n: n.state["withheld"] == 5)
    with node(tmp_path, server.url) as again:
        again.until(lambda n: n.state.get("redis") == "ok")
        assert again.state["withheld"] == 5
        assert again.domains == TEN


def test_a_full_redis_is_degraded_and_still_followed(server: RedisServer, running: Node) -> None:
    server.call("CONFIG", "SET", "maxmemory", "1")
    running.until_degraded("maxmemory")
    server.call("DEL", f"{KEY}t0")
    running.until(lambda n: n.domains == TEN - {"t0.org"}, seconds=A_SECOND)
    server.call("CONFIG", "SET", "maxmemory", "0")
    running.until_ok(seconds=A_SECOND)


def test_a_read_only_redis_is_degraded_and_routes_go_on(server: RedisServer, running: Node) -> None:
    server.call("REPLICAOF", "127.0.0.1", "1")
    running.until_degraded("read only")
    assert running.domains == TEN
    assert running.state["ready"] is True
    server.call("REPLICAOF", "NO", "ONE")
    running.until_ok(seconds=A_SECOND)


def test_a_changed_password_is_degraded_and_routes_go_on(server: RedisServer, running: Node) -> None:
    server.call("CONFIG", "SET", "requirepass", "changed")
    server.call("-a", "changed", "CLIENT", "KILL", "TYPE", "pubsub")
    running.until_degraded("Authentication required", seconds=A_SECOND)
    assert running.domains == TEN
    server.call("-a", "changed", "CONFIG", "SET", "requirepass", "")
    running.until_ok(seconds=A_SECOND)


# Starting


def test_without_redis_a_node_routes_by_its_last_good_table(server: RedisServer, tmp_path: Path) -> None:
    server.put("acme", value("acme.org"))
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.domains == {"acme.org"})
    server.stop()
    with node(tmp_path, server.url) as again:
        again.until(lambda n: n.state.get("ready", False), seconds=AT_ONCE)
        assert again.domains == {"acme.org"}
        assert again.state["redis"].startswith("degraded: ")
        server.start()
        server.put("acme", value("new.org"))
        again.until(lambda n: n.domains == {"new.org"}, seconds=A_SECOND)


def test_with_neither_redis_nor_a_table_a_node_is_not_ready(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, node(tmp_path, server.url) as found:
        found.until(lambda n: n.state.get("ready") is False)
        found.until_degraded("Redis cannot be used")
        server.start()
        found.until(lambda n: n.state["ready"] and n.state["redis"] == "ok", seconds=A_SECOND)


def test_a_broken_table_on_disk_is_named_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "table" / "tenants.jsonl"
    file.parent.mkdir()
    file.write_text('{"version": 2, "tena')
    with RedisServer(tmp_path) as server:
        with node(tmp_path, server.url) as found:
            found.until(lambda n: "tenants.jsonl: cannot be used" in n.state.get("detail", ""))
            assert found.state["ready"] is False
            assert "internal error" not in found.state["detail"]
            server.start()
            server.put("acme", value("acme.org"))
            found.until(
                lambda n: n.state["ready"] and n.state["detail"] == "" and n.domains == {"acme.org"}, seconds=A_SECOND
            )
        last = snapshot.load(file)
        assert last is not None
        assert [row.name for row in last.rows] == ["acme"]


def test_what_other_settings_forbid_does_not_run_even_from_disk(server: RedisServer, tmp_path: Path) -> None:
    server.put("acme", value("acme.org"))
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.domains == {"acme.org"})
    elsewhere = Rules((ip_network("10.6.0.0/16"),), (), ())
    with node(tmp_path, server.url, rules=elsewhere) as again:
        again.until_ok()
        assert again.domains == set()
        assert "service_networks" in again.state["rejected"][f"{KEY}acme"]


def test_the_table_on_disk_follows_edits_while_the_node_runs(
    server: RedisServer, running: Node, tmp_path: Path
) -> None:
    server.put("late", value("late.org"))
    running.until(lambda n: "late.org" in n.domains)
    on_disk(tmp_path, lambda rows: "late" in rows)


def test_a_removal_is_on_disk_without_the_rest_between_two_writes(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_PAUSE", 10 * PATIENCE)
    server.put("a", value("a.org"))
    server.put("b", value("b.org"))
    with node(tmp_path, server.url) as found:
        found.until_ok()
        on_disk(tmp_path, lambda rows: rows.keys() == {"a", "b"})
        server.call("DEL", f"{KEY}b")
        on_disk(tmp_path, lambda rows: rows.keys() == {"a"})


def test_the_only_one_that_was_removed_before_a_kill_runs_only_until_redis_is_read(
    server: RedisServer, tmp_path: Path
) -> None:
    for key, raw in ((f"{KEY}a", value("a.org")), ("sipward:number:1", '{"tenant": "a"}')):
        server.call("SET", key, raw)
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.state.get("redis") == "ok" and n.state["numbers"] == 1)
    # As if the node had been killed before it heard of that.
    server.call("DEL", "sipward:number:1")
    with node(tmp_path, server.url) as again:
        again.until(lambda n: n.state.get("redis") == "ok")
        assert (again.state["numbers"], again.state["withheld"], again.state["tenants"]) == (0, 0, 1)


def test_a_disk_that_takes_nothing_is_named_until_it_does(server: RedisServer, tmp_path: Path) -> None:
    in_the_way = tmp_path / "table" / "tenants.jsonl.tmp"
    in_the_way.mkdir(parents=True)
    with node(tmp_path, server.url) as found:
        found.until(lambda n: "the last good table cannot be written" in n.state.get("detail", ""))
        in_the_way.rmdir()
        found.until(lambda n: n.state["detail"] == "")


def test_a_table_that_is_half_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_off(url: str) -> Iterator[Event]:
        yield Listed({Kind.TENANT: {"a", "b"}}, False)
        yield Found(Kind.TENANT, {"a": value("a.org").encode()})
        while True:
            yield Health("Redis does not answer in time")

    monkeypatch.setattr(sync, "watch", breaks_off)
    with node(tmp_path, "unix:///none.sock") as found:
        found.until(lambda n: n.domains == {"a.org"})
        found.until_degraded("does not answer in time")
        assert found.state["ready"] is False
    assert not (tmp_path / "table").exists()


# Numbers, trunks and where their names lead

CARRIER = json.dumps({"addresses": ["sip.carrier.example"], "tenants": ["*"]})


class Dns:
    """A DNS that says what it is told to, and can hang."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.is_answering = threading.Event()
        self.is_answering.set()

    def __call__(self, name: Name) -> Answer:
        self.is_answering.wait(PATIENCE)
        if not self.hosts:
            raise LookUpError("the DNS is down")
        return Answer(tuple(Endpoint(name.transport, host, 5060) for host in self.hosts), 0.0)


def target(found: Node) -> str:
    trunk = live.decode_trunk(
        found.memory.tables[live.TABLE].get("%carrier", '["",[],[],"","","",[],false,"off",null]')
    )
    return " ".join(end.host for end in trunk.targets)


def test_numbers_and_trunks_are_followed_as_tenants_are(server: RedisServer, running: Node) -> None:
    table = running.memory.tables[live.TABLE]
    server.call("SET", "sipward:number:+39072XX", '{"tenant": "t0"}')
    server.call("SET", "sipward:trunk:carrier", '{"addresses": ["198.51.100.0/24"], "tenants": ["t0"]}')
    running.until(lambda n: (n.state["numbers"], n.state["trunks"]) == (1, 1))
    assert (table["#+39072XX"], table["%udp:198.51.100.0/24"]) == ("@t0", "carrier")
    assert running.memory.tables[live.STATE]["shapes"] == "8:6,7"
    server.call("DEL", "sipward:number:+39072XX", "sipward:trunk:carrier")
    running.until(lambda n: (n.state["numbers"], n.state["trunks"]) == (0, 0))
    assert {key[0] for key in table} == {"@", "^", "t"}


def test_bad_values_of_all_kinds_are_named_by_their_keys(server: RedisServer, running: Node) -> None:
    server.call("SET", "sipward:number:07-21", '{"tenant": "t0"}')
    server.call("SET", "sipward:trunk:carrier", '{"addresses": ["127.0.0.1"], "tenants": []}')
    server.put("bad", "{")
    running.until(lambda n: n.state["rejected_total"] == 3)
    assert {key: reason.partition(":")[0].partition(" ")[0] for key, reason in running.state["rejected"].items()} == {
        "sipward:number:07-21": "rule",
        "sipward:tenant:bad": "value",
        "sipward:trunk:carrier": "addresses",
    }


def test_a_loss_of_several_kinds_is_told_for_each(server: RedisServer, running: Node) -> None:
    server.call("SET", "sipward:number:1", '{"tenant": "t0"}')
    running.until(lambda n: n.state["numbers"] == 1)
    server.call("FLUSHALL")
    running.until(lambda n: n.state["withheld"] == 11, seconds=A_SECOND)
    assert "Redis has lost 10 of 10 tenants, 1 of 1 numbers, which go on" in running.state["detail"]


def test_each_kind_has_a_file_that_is_written_when_it_changes(server: RedisServer, tmp_path: Path) -> None:
    server.put("acme", value("acme.org"))
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.domains == {"acme.org"})
        on_disk(tmp_path, lambda rows: "acme" in rows)
        before = (tmp_path / "table" / "tenants.jsonl").stat().st_ino
        server.call("SET", "sipward:number:1", '{"tenant": "acme"}')
        found.until(lambda n: n.state["numbers"] == 1)
    assert (tmp_path / "table" / "tenants.jsonl").stat().st_ino == before
    server.stop()
    with node(tmp_path, server.url) as again:
        again.until(lambda n: n.state.get("ready", False))
        assert again.memory.tables[live.TABLE]["#1"] == "@acme"


def test_a_trunk_goes_where_the_dns_says_by_now(server: RedisServer, tmp_path: Path, short_lived: None) -> None:
    dns = Dns("198.51.100.7")
    server.call("SET", "sipward:trunk:carrier", CARRIER)
    with node(tmp_path, server.url, look_up=dns) as found:
        found.until(lambda n: target(n) == "198.51.100.7")
        dns.hosts = ("198.51.100.8", "198.51.100.9")
        found.until(lambda n: target(n) == "198.51.100.8 198.51.100.9")
        found.until(lambda n: "%udp:198.51.100.7/32" not in n.memory.tables[live.TABLE])
        dns.hosts = ()
        found.until(lambda n: "the DNS is down; the last answer goes on" in str(n.state["unresolved"]))
        assert target(found) == "198.51.100.8 198.51.100.9"
        dns.hosts = ("10.5.4.9",)
        found.until(lambda n: "must not reach into network.service_networks" in str(n.state["unresolved"]))
        assert target(found) == "198.51.100.8 198.51.100.9"


def test_a_dns_that_hangs_stops_nothing(server: RedisServer, tmp_path: Path) -> None:
    dns = Dns("198.51.100.7")
    dns.is_answering.clear()
    server.call("SET", "sipward:trunk:carrier", CARRIER)
    with node(tmp_path, server.url, look_up=dns) as found:
        found.until(lambda n: n.state.get("trunks") == 1)
        server.put("acme", value("acme.org"))
        found.until(lambda n: n.domains == {"acme.org"}, seconds=AT_ONCE)
        assert target(found) == ""
        dns.is_answering.set()
        found.until(lambda n: target(n) == "198.51.100.7")


def test_a_trunk_goes_where_it_did_when_a_node_starts_without_dns(server: RedisServer, tmp_path: Path) -> None:
    server.call("SET", "sipward:trunk:carrier", CARRIER)
    with node(tmp_path, server.url, look_up=Dns("198.51.100.7")) as found:
        found.until(lambda n: target(n) == "198.51.100.7")
    with node(tmp_path, server.url, look_up=Dns()) as again:
        again.until_ok()
        assert target(again) == "198.51.100.7"
        server.call("SET", "sipward:trunk:carrier", CARRIER.replace("[", "[ "))
        again.until(lambda n: "goes on" in str(n.state["unresolved"]))
        assert target(again) == "198.51.100.7"


# What nobody thought of


def test_shared_memory_that_fails_for_a_while_gets_everything_in_the_end(
    server: RedisServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.put("acme", value("acme.org"))
    memory = Memory()
    memory.failures = 2
    with node(tmp_path, server.url, memory) as found:
        found.until(lambda n: "no shared memory left" in n.state.get("detail", ""))
        found.until(lambda n: n.domains == {"acme.org"} and n.state["detail"] == "")
        assert "MemoryError: no shared memory left" in capfd.readouterr().err


def test_an_error_in_the_watch_itself_ends_nothing(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[str] = []

    def broken(url: str) -> Iterator[object]:
        attempts.append(url)
        if len(attempts) == 1:
            raise IndexError("a parser's bad day")
        return watch(url)

    watch = sync.watch
    monkeypatch.setattr(sync, "watch", broken)
    server.put("acme", value("acme.org"))
    with node(tmp_path, server.url) as found:
        found.until(lambda n: n.domains == {"acme.org"})


# Size


def test_a_hundred_thousand_tenants_start_from_disk_at_once(tmp_path: Path) -> None:
    lines = [
        Row(f"t{n}", value(f"t{n}.example.org"), (f"t{n}.example.org",), {f"t{n}.example.org": f'["t{n}"]'}).line
        for n in range(100_000)
    ]
    made_under = Routes(RULES).snapshot(Kind.TENANT).made_under
    snapshot.save(tmp_path / "table" / "tenants.jsonl", snapshot.Snapshot(made_under, lines))
    with node(tmp_path, f"unix://{tmp_path}/none.sock") as found:
        found.until(lambda n: n.state.get("ready", False))
        assert found.state["tenants"] == 100_000


# --- who is where ----------------------------------------------------------------------------------------------------


class Told(Prober):
    """A prober that notes what it is told, and asks nobody."""

    def __init__(self) -> None:
        self.where: dict[str, tuple[Endpoint, ...]] = {}
        self.runs = False

    def start(self) -> None:
        self.runs = True

    def stop(self) -> None:
        self.runs = False

    def watch(self, owner: str, endpoints: Iterable[Endpoint]) -> None:
        self.where[owner] = tuple(endpoints)


def test_the_prober_is_told_whose_instances_are_where_and_stops_with_the_rest(
    server: RedisServer, tmp_path: Path
) -> None:
    told, at = Told(), "10.5.4.1"
    server.put("t1", value("t1.org"))
    server.put("t2", value("t2.org", "t3.org", port=5090))
    with node(tmp_path, server.url, prober=told) as running:
        running.until(lambda n: n.state.get("tenants") == 2)
        assert told.runs
        assert told.where == {"@t1": (Endpoint("udp", at, 5080),), "@t2": (Endpoint("udp", at, 5090),)}
        server.put("t1", value("t1.org", port=5081))
        running.until(lambda n: n.port("t1.org") == 5081)
        server.call("DEL", f"{KEY}t2")
        running.until(lambda n: n.state["tenants"] == 1)
    assert told.where == {"@t1": (Endpoint("udp", at, 5081),), "@t2": ()}
    assert not told.runs


# Registrations' own ports


def test_registrations_have_their_ports_again_before_the_node_is_ready(tmp_path: Path) -> None:
    found, memory = settings(tmp_path, "unix:///nowhere"), Memory()
    snapshot.save(found.ports_file, Snapshot("ports", ['["5100", "1 carrier acme udp:10.5.4.1:5080 201@h"]']))
    snapshot.save(found.table_file(Kind.TENANT), Snapshot(""))
    ports = PortKeeper(memory, (5100,), found.ports_file)
    starting = sync.Sync(memory, found, RULES, nothing, ports=ports)
    starting.start()
    assert memory.tables[live.PORTS]["carrier acme udp:10.5.4.1:5080 201@h"] == "5100"
    assert [json.loads(said)["ready"] for said in memory.published][-1]
    assert memory.written.index("5100") < memory.written.index(live.STATE_KEY)
    assert Node(memory).state["own_ports"] == 0
    memory.tables[live.PORTS] |= {"5100": f"{int(time.time())} carrier acme 201@h", "changed": "1"}
    starting.close()
    assert "all 1 ports of trunks.own_ports are taken" in ports.complaint
    last = snapshot.load(found.ports_file)
    assert last
    assert [json.loads(line)[1].partition(" ")[2] for line in last.lines] == ["carrier acme 201@h"]
