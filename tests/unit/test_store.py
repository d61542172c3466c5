"""Tenant routes in Redis: the answers to commands, and what `watch` hears. With a real redis-server."""

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer, Relay

from sipward import number_rules, trunks
from sipward.numbers import Plan
from sipward.records import Kind
from sipward.rules import Rules
from sipward.store import (
    Accepted,
    Changed,
    Complete,
    ConflictError,
    Event,
    Found,
    Health,
    Listed,
    Store,
    StoreError,
    Unreadable,
    redis_cli,
    watch,
)
from sipward.tenants import TenantRecord, parse

T = Kind.TENANT
KEY = "sipward:tenant:"
A_SECOND = 1.8
"""A second, and something for a busy machine."""


def value(*domains: str) -> str:
    return json.dumps({"domains": list(domains), "instances": [{"uri": "sip:10.5.4.1:5080"}]})


def record(name: str, *domains: str) -> TenantRecord:
    return parse(name, value(*domains), None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server.start()


@pytest.fixture
def store(server: RedisServer) -> Iterator[Store]:
    with Store(server.url) as store:
        yield store


@pytest.fixture
def events(server: RedisServer) -> Iterator[Generator[Event]]:
    with closing(watch(server.url)) as events:
        yield events


def until(events: Iterator[Event], wanted: Callable[[Event], bool], seconds: float = 5.0) -> Event:
    """The next event of that kind; whatever comes before is of no interest."""
    deadline = time.monotonic() + seconds
    for event in events:
        assert time.monotonic() < deadline, f"too late: {event}"
        if wanted(event):
            return event
    raise AssertionError("watch has ended")


def is_everything(event: Event) -> bool:
    return isinstance(event, Complete)


def loaded(events: Iterator[Event]) -> tuple[dict[Kind, dict[str, object]], bool]:
    """All there is, by kind, and whether it was accepted: of the next load."""
    listed = until(events, lambda e: isinstance(e, Listed))
    assert isinstance(listed, Listed)
    found: dict[Kind, dict[str, object]] = {}
    while not isinstance(event := until(events, lambda e: isinstance(e, Found | Complete)), Complete):
        assert isinstance(event, Found)
        found.setdefault(event.kind, {}).update(event.values)
    assert {kind: set(values) for kind, values in found.items()} == {k: set(v) for k, v in listed.names.items() if v}
    return found, listed.accepted


def is_well(event: Event) -> bool:
    return event == Health("")


def complains(event: Event) -> bool:
    return isinstance(event, Health) and event.complaint != ""


# Commands


def test_a_tenant_that_was_put_is_read_back_and_removed(store: Store) -> None:
    store.put(record("acme", "acme.example.org"))
    found = store.get(T, "acme")
    assert isinstance(found, bytes)
    assert parse("acme", found, None) == record("acme", "acme.example.org")
    assert store.remove(T, "acme") is True
    assert store.remove(T, "acme") is False
    assert store.get(T, "acme") is None


def test_a_tenant_may_be_put_again_with_its_own_domain(store: Store) -> None:
    store.put(record("acme", "acme.example.org"))
    store.put(record("acme", "acme.example.org", "more.example.org"))
    assert list(store.list(T)) == ["acme"]


def test_a_domain_that_another_tenant_has_is_refused_however_it_is_written(server: RedisServer, store: Store) -> None:
    server.put("acme", value("other.example.org", "ACME.example.org."))
    with pytest.raises(ConflictError, match=r"domains: acme\.example\.org belongs to tenant acme"):
        store.put(record("bulk", "bulk.example.org", "acme.example.org"))
    assert store.get(T, "bulk") is None


def test_a_number_that_is_there_in_another_spelling_is_refused(server: RedisServer, store: Store) -> None:
    rules = Rules((), (), (), plan=Plan("39", "00", ""))
    server.call("SET", "sipward:number:00390721", "{")
    for name in ("0721", "+390721"):
        with pytest.raises(ConflictError, match=r"^rule: \+390721 belongs to number 00390721$"):
            store.put(number_rules.parse(name, '{"tenant": "acme"}', rules))
    for name in ("00390721", "0721@carrier", "07211"):
        store.put(number_rules.parse(name, '{"tenant": "acme"}', rules))
    assert list(store.list(Kind.NUMBER)) == ["00390721", "07211", "0721@carrier"]
    assert store.list(Kind.TENANT) == store.list(Kind.TRUNK) == {}


def test_a_trunk_is_nobodys_rival(store: Store) -> None:
    for name in ("carrier", "other"):
        store.put(trunks.parse(name, '{"addresses": ["198.51.100.5"], "tenants": ["*"]}', None))
    assert list(store.list(Kind.TRUNK)) == ["carrier", "other"]
    assert store.remove(Kind.TRUNK, "carrier") is True
    assert store.remove(Kind.NUMBER, "other") is False


def test_filling_many_tells_a_refusal_and_leaves_the_connection_in_order(server: RedisServer, store: Store) -> None:
    assert store.fill(T, {f"t{n}": "x" for n in range(1203)}) == 1203
    server.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreError, match=r"Redis refuses: .*maxmemory"):
        store.fill(T, {f"u{n}": "x" for n in range(3)})
    assert store.get(T, "t7") == b"x"


@pytest.mark.parametrize("bad", ["{", "[]", '{"domains": 7}', '{"domains": [7, null]}', "[" * 5000, "\ufeff"])
def test_a_bad_value_of_another_tenant_hinders_nobody(server: RedisServer, store: Store, bad: str) -> None:
    server.put("bad", bad)
    server.call("LPUSH", f"{KEY}list", "x")
    store.put(record("acme", "acme.example.org"))
    assert store.get(T, "acme") is not None


def test_all_tenants_are_listed_in_order_and_nothing_else(server: RedisServer, store: Store) -> None:
    names = [f"t{number:04}" for number in range(1203)]
    store.fill(T, {name: value(f"{name}.example.org") for name in reversed(names)})
    server.call("SET", "other:key", "x")
    server.call("SET", "sipward:other", "x")
    server.call("HSET", f"{KEY}a-hash", "x", "y")
    found = store.list(T)
    assert list(found) == ["a-hash", *names]
    assert found["a-hash"] == Unreadable("key: holds a hash: must be a string (SET)")
    assert found["t0007"] == value("t0007.example.org").encode()


def test_filling_writes_only_what_is_missing(server: RedisServer, store: Store) -> None:
    server.put("acme", "newer")
    assert store.fill(T, {"acme": "older", "bulk": "kept"}) == 1
    assert store.list(T) == {"acme": b"newer", "bulk": b"kept"}


def test_an_acceptance_ends_by_itself(server: RedisServer, store: Store) -> None:
    store.accept()
    assert 0 < int(server.call("TTL", "sipward:accept")) <= 60


def test_a_store_out_of_reach_is_one_clear_error(tmp_path: Path) -> None:
    with Store(f"unix://{tmp_path}/none.sock") as store, pytest.raises(StoreError, match="Redis cannot be used"):
        store.list(T)


@pytest.mark.parametrize("url", ["redis://h?socket_timeout=soon", "redis://h?colour=red"])
def test_an_url_with_odd_options_is_one_clear_error(url: str) -> None:
    with pytest.raises(StoreError, match=r"redis\.url cannot be used"):
        Store(url)


def test_a_frozen_server_is_an_error_in_time(server: RedisServer) -> None:
    server.freeze()
    started = time.monotonic()
    with Store(server.url, timeout=0.2) as store, pytest.raises(StoreError, match="does not answer in time"):
        store.list(T)
    assert time.monotonic() - started < 1


def test_a_wrong_password_is_an_error_that_does_not_print_it(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.start("--requirepass", "right")
        with Store(f"{server.url}?password=s3cr3t") as store, pytest.raises(StoreError) as caught:
            store.list(T)
        assert "s3cr3t" not in str(caught.value)
        with Store(f"{server.url}?password=right") as store:
            assert store.list(T) == {}


# Watching


def test_everything_is_told_first(server: RedisServer, events: Generator[Event]) -> None:
    server.put("acme", "x")
    assert loaded(events) == ({T: {"acme": b"x"}}, False)


def test_an_edit_of_anyone_is_told_within_milliseconds(server: RedisServer, events: Generator[Event]) -> None:
    until(events, is_well)
    server.put("acme", "x")
    started = time.monotonic()
    assert until(events, lambda e: not is_well(e)) == Changed({T: {"acme": b"x"}})
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize(
    ("commands", "told"),
    [
        ([("DEL", f"{KEY}acme")], {"acme": None}),
        ([("UNLINK", f"{KEY}acme")], {"acme": None}),
        ([("APPEND", f"{KEY}acme", "y")], {"acme": b"xy"}),
        ([("PEXPIRE", f"{KEY}acme", "-1")], {"acme": None}),
        ([("RENAME", f"{KEY}acme", f"{KEY}bulk")], {"acme": None, "bulk": b"x"}),
        ([("SET", f"{KEY}acme", "")], {"acme": b""}),
        (
            [("DEL", f"{KEY}acme"), ("HSET", f"{KEY}acme", "a", "b")],
            {"acme": Unreadable("key: holds a hash: must be a string (SET)")},
        ),
    ],
)
def test_every_way_to_write_a_key_is_heard(
    server: RedisServer, events: Generator[Event], commands: list[tuple[str, ...]], told: dict[str, object]
) -> None:
    server.put("acme", "x")
    until(events, is_well)
    for command in commands:
        server.call(*command)
    found: dict[str, object] = {}
    while found != told:
        event = until(events, lambda e: isinstance(e, Changed))
        assert isinstance(event, Changed)
        found |= event.values[T]


def test_a_transaction_is_told_as_one_change(server: RedisServer, events: Generator[Event]) -> None:
    until(events, is_well)
    script = f"return {{redis.call('SET', '{KEY}a', '1'), redis.call('SET', '{KEY}b', '2')}}"
    server.call("EVAL", script, "0")
    assert until(events, lambda e: not is_well(e)) == Changed({T: {"a": b"1", "b": b"2"}})


def test_a_key_of_odd_bytes_is_told_as_it_is(server: RedisServer, events: Generator[Event]) -> None:
    until(events, is_well)
    server.call("EVAL", f"return redis.call('SET', '{KEY}\\255', 'x')", "0")
    assert until(events, lambda e: not is_well(e)) == Changed({T: {"\udcff": b"x"}})


def test_keys_of_others_are_not_told(server: RedisServer, events: Generator[Event]) -> None:
    until(events, is_well)
    server.call("SET", "other", "x")
    server.call("SET", "sipward:else", "x")
    server.put("acme", "x")
    assert until(events, lambda e: not is_well(e)) == Changed({T: {"acme": b"x"}})


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_a_flush_is_told_as_everything(server: RedisServer, events: Generator[Event], command: str) -> None:
    server.put("acme", "x")
    until(events, is_well)
    server.call(command)
    assert loaded(events) == ({}, False)


def test_an_acceptance_is_told_at_once_and_after_a_connect(server: RedisServer, events: Generator[Event]) -> None:
    until(events, is_well)
    server.call("SET", "sipward:accept", "", "EX", "60")
    assert until(events, lambda e: not is_well(e)) == Accepted()
    server.put("acme", "x")
    assert until(events, lambda e: not is_well(e)) == Changed({T: {"acme": b"x"}})
    assert is_well(next(events))
    with closing(watch(server.url)) as others:
        assert loaded(others) == ({T: {"acme": b"x"}}, True)


def test_an_edit_while_everything_is_being_read_is_told_in_between(server: RedisServer) -> None:
    server.call("EVAL", f"for i = 1, 1500 do redis.call('SET', '{KEY}' .. i, i) end", "0")
    with closing(watch(server.url)) as events:
        until(events, lambda e: isinstance(e, Found))
        server.put("acme", "x")
        assert until(events, lambda e: not isinstance(e, Found)) == Changed({T: {"acme": b"x"}})
        until(events, is_everything)


def test_values_are_told_by_name(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipward.store._PART", 100)
    server.call("EVAL", f"for i = 1, 2500 do redis.call('SET', '{KEY}' .. i, i) end", "0")
    with closing(watch(server.url)) as events:
        found, _ = loaded(events)
    assert list(found[T]) == sorted(str(i) for i in range(1, 2501))


def test_values_of_all_kinds_are_told_with_what_others_name_first(server: RedisServer) -> None:
    for kind in ("number", "tenant", "trunk", "other"):
        server.call("SET", f"sipward:{kind}:a:b", kind)
    with closing(watch(server.url)) as events:
        found, _ = loaded(events)
        assert list(found.items()) == [(kind, {"a:b": str(kind).encode()}) for kind in Kind]
        until(events, is_well)
        script = "return {redis.call('DEL', 'sipward:trunk:a:b'), redis.call('SET', 'sipward:number:1', 'x')}"
        server.call("EVAL", script, "0")
        assert until(events, lambda e: not is_well(e)) == Changed({Kind.TRUNK: {"a:b": None}, Kind.NUMBER: {"1": b"x"}})


def test_a_flood_of_edits_ends_with_the_last_values_and_without_a_complaint(
    server: RedisServer, events: Generator[Event]
) -> None:
    until(events, is_well)
    script = f"for i = 1, 20000 do redis.call('SET', '{KEY}' .. (i % 5000), i) end"
    server.call("EVAL", script, "0")
    found: dict[str, object] = {}
    while len(found) < 5000:
        event = until(events, lambda e: not is_well(e))
        assert isinstance(event, Changed)
        found |= event.values[T]
    assert found == {str(i % 5000): str(i).encode() for i in range(15001, 20001)}


# Faults


def test_a_server_that_is_not_there_is_told_until_it_is(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, closing(watch(server.url)) as events:
        assert complains(next(events))
        server.start()
        until(events, is_everything, seconds=A_SECOND)


def test_a_frozen_server_is_told_within_a_second_and_read_afresh_within_one(
    server: RedisServer, events: Generator[Event]
) -> None:
    until(events, is_well)
    server.freeze()
    assert until(events, complains, seconds=A_SECOND) == Health("Redis does not answer in time")
    server.thaw()
    until(events, is_everything, seconds=A_SECOND)
    until(events, is_well)


def test_a_server_that_was_restarted_is_read_afresh_within_a_second(
    server: RedisServer, events: Generator[Event]
) -> None:
    until(events, is_well)
    server.stop()
    until(events, complains, seconds=A_SECOND)
    server.start()
    until(events, is_everything, seconds=A_SECOND)
    server.put("acme", "x")
    assert until(events, lambda e: isinstance(e, Changed)) == Changed({T: {"acme": b"x"}})


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_a_lost_connection_is_noticed_whichever_of_the_two_it_is(
    server: RedisServer, events: Generator[Event], kind: str
) -> None:
    until(events, is_well)
    assert server.call("CLIENT", "KILL", "TYPE", kind) == "1"
    until(events, complains, seconds=A_SECOND)
    until(events, is_everything, seconds=A_SECOND)
    server.put("acme", "x")
    assert until(events, lambda e: isinstance(e, Changed)) == Changed({T: {"acme": b"x"}})


def test_a_listener_that_hears_nothing_any_more_is_noticed(server: RedisServer, tmp_path: Path) -> None:
    with Relay(tmp_path / "relay.sock", server.socket) as relay, closing(watch(relay.url)) as events:
        until(events, is_well)
        until(events, is_well)
        relay.is_deaf.set()
        assert until(events, complains, seconds=A_SECOND) == Health(
            "the connection that hears of edits does not answer"
        )
        relay.is_deaf.clear()
        until(events, is_everything, seconds=A_SECOND)


def test_a_server_that_is_loading_is_told_until_it_has_loaded(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        server.start()
        server.call("EVAL", f"for i = 1, 1500 do redis.call('SET', '{KEY}' .. i, i) end", "0")
        server.call("SAVE")
        server.stop()
        server.start("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
        with closing(watch(server.url)) as events:
            event = until(events, complains)
            assert isinstance(event, Health)
            assert "loading" in event.complaint
            found, _ = loaded(events)
            assert len(found[T]) == 1500


def test_a_full_memory_is_told_and_edits_that_still_work_are_followed(
    server: RedisServer, events: Generator[Event]
) -> None:
    server.put("acme", "x")
    until(events, is_well)
    server.call("CONFIG", "SET", "maxmemory", "1")
    event = until(events, complains)
    assert isinstance(event, Health)
    assert "takes no writes" in event.complaint
    assert "maxmemory" in event.complaint
    server.call("DEL", f"{KEY}acme")
    assert until(events, lambda e: isinstance(e, Changed)) == Changed({T: {"acme": None}})
    server.call("CONFIG", "SET", "maxmemory", "0")
    until(events, is_well)


def test_a_read_only_replica_is_told_and_read(server: RedisServer) -> None:
    server.put("acme", "x")
    server.call("REPLICAOF", "127.0.0.1", "1")
    with closing(watch(server.url)) as events:
        assert loaded(events) == ({T: {"acme": b"x"}}, False)
        event = until(events, complains)
        assert isinstance(event, Health)
        assert "read only" in event.complaint
        server.call("REPLICAOF", "NO", "ONE")
        until(events, is_well)


def test_a_wrong_password_is_told_until_it_is_right(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, closing(watch(f"{server.url}?password=s3cr3t")) as events:
        server.start("--requirepass", "other")
        event = next(events)
        assert complains(event)
        assert "s3cr3t" not in str(event)
        server.call("-a", "other", "CONFIG", "SET", "requirepass", "s3cr3t")
        until(events, is_everything, seconds=A_SECOND)


def test_probing_for_writes_writes_nothing(server: RedisServer, events: Generator[Event]) -> None:
    until(events, is_well)
    until(events, is_well)
    assert server.call("DBSIZE") == "0"


@pytest.mark.parametrize(
    ("url", "arguments", "password"),
    [
        ("unix:///a/b%20c.sock", ["-s", "/a/b c.sock", "-n", "0"], ""),
        ("unix:///a.sock?db=2", ["-s", "/a.sock", "-n", "2"], ""),
        ("redis://10.5.4.9", ["-h", "10.5.4.9", "-p", "6379", "-n", "0"], ""),
        ("redis://:p%40ss@10.5.4.9:6380/3", ["-h", "10.5.4.9", "-p", "6380", "-n", "3"], "p@ss"),
        ("rediss://me:s@r.example", ["-h", "r.example", "-p", "6379", "-n", "0", "--user", "me", "--tls"], "s"),
        ("redis://[fd00::9]/1", ["-h", "fd00::9", "-p", "6379", "-n", "1"], ""),
    ],
)
def test_redis_cli_connects_as_the_node_does(url: str, arguments: list[str], password: str) -> None:
    assert redis_cli(url) == (arguments, password)


# What commands ask and write


def test_some_values_are_read_and_those_that_are_not_there_left_out(server: RedisServer, store: Store) -> None:
    server.put("b", "2")
    server.put("a", "1")
    server.call("HSET", "sipward:tenant:hash", "x", "y")
    found = store.some(Kind.TENANT, ["b", "none", "a", "hash"])
    assert list(found) == ["b", "a", "hash"]
    assert (found["b"], found["a"]) == (b"2", b"1")
    assert isinstance(found["hash"], Unreadable)
    assert store.some(Kind.TENANT, []) == {}


def test_names_are_told_and_which_of_some_are_there(server: RedisServer, store: Store) -> None:
    server.put("a", "1")
    server.call("SET", "sipward:number:b", "1")
    assert store.names(Kind.TENANT) == {"a"}
    assert store.present(Kind.TENANT, ["a", "b"]) == {"a"}
    assert store.present(Kind.NUMBER, ["a", "b", *map(str, range(1200))]) == {"b"}
    assert store.present(Kind.TRUNK, ["a", "b"]) == set()


def test_all_values_are_read_by_name_some_at_a_time(server: RedisServer, store: Store) -> None:
    names = [f"{number:04}" for number in range(1200)]
    store.fill(Kind.NUMBER, dict.fromkeys(reversed(names), "x"))
    parts = [list(some) for some in store.each(Kind.NUMBER)]
    assert [name for some in parts for name in some] == names
    assert len(parts) > 1


def test_a_value_is_swapped_only_for_what_it_was(server: RedisServer, store: Store) -> None:
    server.put("a", "old")
    assert store.swap(Kind.TENANT, "a", b"old", "new")
    assert server.call("GET", "sipward:tenant:a") == "new"
    assert not store.swap(Kind.TENANT, "a", b"old", "newer")
    assert not store.swap(Kind.TENANT, "none", b"old", "newer")
    assert store.swap(Kind.TENANT, "a", b"new", "newest")
    assert server.call("MGET", "sipward:tenant:a", "sipward:tenant:none") == "newest"


def test_a_value_that_is_written_between_look_and_swap_is_left_alone(
    server: RedisServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("a", "old")
    call_all = store._link.call_all

    def late(commands: Any) -> list[Any]:
        server.put("a", "written by others")
        return call_all(commands)

    monkeypatch.setattr(store._link, "call_all", late)
    assert not store.swap(Kind.TENANT, "a", b"old", "new")
    assert server.call("GET", "sipward:tenant:a") == "written by others"
