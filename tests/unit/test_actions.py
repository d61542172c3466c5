"""Actions as they end: the exit code and the list of what is wrong."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer

from sipward import actions
from sipward.actions import Answer
from sipward.reload import Outcome
from sipward.settings import Settings
from sipward.store import Store, StoreError

ADDRESS = {"uri": "sip:127.0.1.1:5080", "description": "module1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sipward.toml"
    path.write_text(
        f"""\
fqdn = "sip.example.org"
state_dir = "{tmp_path}/state"
[network]
address = "127.0.0.1"
service_networks = ["127.0.1.0/24"]
[numbers]
country_code = "39"
"""
    )
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")).start() as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    server.call("FLUSHALL")
    return server


def act(path: Path, redis: RedisServer, name: str, value: object) -> Answer:
    return actions.run(name, json.dumps(value), path, lambda _: Store(redis.url))


def problem(answer: Answer) -> tuple[int, str, object, str]:
    assert isinstance(answer.output, list)
    first: dict[str, Any] = answer.output[0]
    assert list(first) == ["field", "parameter", "value", "error"]
    return answer.code, first["field"], first["value"], first["error"]


def test_a_route_and_a_trunk_are_values_that_a_node_can_use(path: Path, redis: RedisServer) -> None:
    assert act(path, redis, "add-route", {"domain": "a.example", "address": [ADDRESS]}) == Answer(0)
    assert act(path, redis, "add-trunk", {"rule": "0721X", "destination": ADDRESS}) == Answer(0)
    assert act(path, redis, "get-trunk", {"rule": "+390721X"}) == Answer(0, {"destination": ADDRESS})
    assert json.loads(redis.call("GET", "sipward:tenant:a.example"))["domains"] == ["a.example"]
    assert json.loads(redis.call("GET", "sipward:number:0721X"))["instances"][0]["uri"] == ADDRESS["uri"]
    assert act(path, redis, "list-routes", None) == Answer(0, [{"domain": "a.example", "address": [ADDRESS]}])
    assert act(path, redis, "list-trunks", {}) == Answer(0, [{"rule": "0721X", "destination": ADDRESS}])


def test_what_a_hand_has_broken_is_no_route_and_can_be_replaced(path: Path, redis: RedisServer) -> None:
    redis.put("a.example", "{")
    redis.put("list", "[]")
    assert act(path, redis, "list-routes", {}) == Answer(0, [])
    assert act(path, redis, "get-route", {"domain": "a.example"}) == Answer(0, {})
    assert act(path, redis, "add-route", {"domain": "a.example", "address": [ADDRESS]}) == Answer(0)
    assert act(path, redis, "get-route", {"domain": "a.example"}) == Answer(0, {"address": [ADDRESS]})


ELSEWHERE = {"uri": "sip:198.51.100.1", "description": "x"}
REFUSED: dict[str, tuple[str, object, str, object, str]] = {
    "no address": (
        "add-route",
        {"domain": "a.example", "address": [ADDRESS, {**ADDRESS, "uri": "sip:pbx.example"}]},
        "address.1.uri",
        "sip:pbx.example",
        "must be sip:ADDRESS",
    ),
    "twice": (
        "add-route",
        {"domain": "a.example", "address": [ADDRESS, ADDRESS]},
        "address",
        [ADDRESS, ADDRESS],
        "is there twice",
    ),
    "own address": (
        "add-route",
        {"domain": "127.0.0.1", "address": [ADDRESS]},
        "domain",
        "127.0.0.1",
        "is an address of the node itself",
    ),
    "a long description": (
        "add-route",
        {"domain": "a.example", "address": [{**ADDRESS, "description": "x" * 201}]},
        "address.0.description",
        "x" * 201,
        "at most 200",
    ),
    "outside": (
        "add-trunk",
        {"rule": "1", "destination": ELSEWHERE},
        "destination.uri",
        ELSEWHERE["uri"],
        "must be inside network.service_networks",
    ),
    "a long rule": (
        "add-trunk",
        {"rule": "1" * 32, "destination": ADDRESS},
        "rule",
        "1" * 32,
        "also behind the country code",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_value_may_not_be_is_said_in_the_words_of_the_action(what: str, path: Path, redis: RedisServer) -> None:
    name, value, field, given, error = REFUSED[what]
    code, found, shown, said = problem(act(path, redis, name, value))
    assert (code, found, shown) == (10, field, given)
    assert error in said
    assert redis.call("KEYS", "sipward:*") == ""


def test_without_redis_or_a_configuration_it_is_said_and_ends_with_1(path: Path) -> None:
    @contextmanager
    def closed(_: Settings) -> Iterator[Store]:
        raise StoreError("Redis cannot be used: is the node running?")
        yield

    answer = actions.run("list-routes", "", path, closed)
    assert problem(answer) == (1, "(root)", None, "Redis cannot be used: is the node running?")
    assert answer.notes == ("Redis cannot be used: is the node running?",)
    path.unlink()
    code, field, _, error = problem(actions.run("get-configuration", "{}", path, closed))
    assert (code, field) == (1, "(root)")
    assert error.endswith("cannot be read: No such file or directory")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "{} {}"])
def test_what_is_no_json_is_refused(text: str, path: Path, redis: RedisServer) -> None:
    code, field, _, error = problem(actions.run("get-route", text, path, lambda _: Store(redis.url)))
    assert (code, field) == (10, "(root)")
    assert error.startswith("not JSON: ")


@pytest.mark.parametrize("text", ["", "null", "{}"])
def test_an_action_that_takes_nothing_takes_it_in_any_way(text: str, path: Path, redis: RedisServer) -> None:
    assert actions.run("list-trunks", text, path, lambda _: Store(redis.url)) == Answer(0, [])


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (None, ["does not run"]),
        (Outcome("", ()), ["nothing had to be started"]),
        (Outcome("", ("kamailio",)), ["started again: kamailio", "calls that are up go on"]),
        (
            Outcome("", ("rtpengine", "kamailio")),
            ["rtpengine, kamailio", "calls that are up go on", "no audio any more"],
        ),
    ],
)
def test_what_a_change_costs_is_said(
    outcome: Outcome | None, words: list[str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions.action_node, "configure", lambda *_: outcome)
    value = {"fqdn": "a.example", "addresses": {"address": "127.0.0.1"}}
    answer = actions.run("configure-module", json.dumps(value), path, Store)  # type: ignore[arg-type]
    assert (answer.code, answer.output) == (0, None)
    assert [word in note for word, note in zip(words, answer.notes, strict=True)] == [True] * len(words)
