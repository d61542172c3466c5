"""`sipward instance`: what it says and writes."""

import json

import pytest
from redis_server import RedisServer
from shell import ACME, INSTANCE, Shell

from sipward.store import Store

BULK = ("route", "add", "bulk", "--domain", "bulk.example.org")
OTHER = "sip:10.5.4.2:5080"


def drained(server: RedisServer, key: str) -> dict[str, bool]:
    value = json.loads(server.call("GET", f"sipward:{key}"))
    return {instance["uri"]: instance.get("drain", False) for instance in value["instances"]}


@pytest.fixture
def loaded(server: RedisServer, shell: Shell) -> Shell:
    """Two tenants and a number share an instance; a tenant and a number do without."""
    shell.ok(*ACME, "--instance", f"{OTHER},weight=2,priority=3,description=second")
    shell.ok(*BULK, "--instance", INSTANCE)
    shell.ok("number", "add", "100", "--instance", INSTANCE)
    shell.ok("number", "add", "200", "--tenant", "acme")
    server.put("bad", "{")
    return shell


def test_instances_of_tenants_and_numbers_are_listed(loaded: Shell) -> None:
    assert json.loads(loaded.ok("instance", "list", "--json"))[1] == {
        "kind": "tenant",
        "name": "acme",
        "uri": OTHER,
        "weight": 2,
        "priority": 3,
        "description": "second",
        "drain": False,
        "srtp": "off",
        "health": "unknown",
        "why": "",
    }
    listed = json.loads(loaded.ok("instance", "list", "--json"))
    assert [(one["kind"], one["name"], one["uri"]) for one in listed] == [
        ("tenant", "acme", INSTANCE),
        ("tenant", "acme", OTHER),
        ("tenant", "bulk", INSTANCE),
        ("number", "100", INSTANCE),
    ]
    assert loaded.ok("instance", "list").count("unknown") == 4
    assert [one["name"] for one in json.loads(loaded.ok("instance", "list", "--json", "--tenant", "bulk"))] == ["bulk"]


def test_the_running_node_says_which_instances_are_down(loaded: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def kamailio(run: object, method: str, *asked: str) -> object:
        if method == "core.uptime":
            return {"uptime": 1}
        if asked != ("health", "udp:10.5.4.2:5080"):
            raise ValueError("no such key")
        return {"item": {"value": "silent"}}

    monkeypatch.setattr("sipward.rpc.kamailio", kamailio)
    listed = json.loads(loaded.ok("instance", "list", "--json"))
    assert {(one["uri"], one["health"], one["why"]) for one in listed} == {
        (INSTANCE, "up", ""),
        (OTHER, "down", "silent"),
    }
    assert "down: silent" in loaded.ok("instance", "list")


def test_an_instance_is_drained_wherever_it_is_and_undrained(server: RedisServer, loaded: Shell) -> None:
    keys = ("tenant:acme", "tenant:bulk", "number:100")
    assert loaded.ok("instance", "drain", f"{INSTANCE};transport=udp").splitlines() == [
        f"{key.replace(':', ' ')}: {INSTANCE};transport=udp gets no new calls" for key in keys
    ]
    assert [drained(server, key)[INSTANCE] for key in keys] == [True] * 3
    assert not drained(server, "tenant:acme")[OTHER]
    assert loaded.ok("instance", "list").count("yes") == 3
    loaded.ok("instance", "drain", INSTANCE)
    assert loaded.ok("instance", "undrain", INSTANCE).count("gets calls") == 3
    assert [drained(server, key)[INSTANCE] for key in keys] == [False] * 3


def test_an_instance_is_drained_of_one_tenant_only(server: RedisServer, loaded: Shell) -> None:
    loaded.ok("instance", "drain", INSTANCE, "--tenant", "bulk")
    keys = ("tenant:acme", "tenant:bulk", "number:100")
    assert [drained(server, key)[INSTANCE] for key in keys] == [False, True, False]


def test_a_value_keeps_its_form_when_an_instance_is_drained(server: RedisServer, shell: Shell) -> None:
    text = '{ "instances":[{"uri" : "sip:10.5.4.1:5080"}],\n\t"domains": ["A.example.org"]}'
    server.put("acme", text)
    shell.ok("instance", "drain", INSTANCE)
    assert server.call("GET", "sipward:tenant:acme") == text.replace('5080"', '5080", "drain": true')


@pytest.mark.parametrize("command", ["drain", "undrain"])
def test_a_value_that_changed_meanwhile_is_left_as_it_is(
    server: RedisServer, shell: Shell, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shell.ok(*ACME)
    swap = Store.swap

    def late(self: Store, *arguments: object) -> bool:
        server.put("acme", "written by others")
        return swap(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "swap", late)
    told = "tenant acme: its value changed meanwhile, and was left as it is now: try again"
    assert shell.fails(1, "instance", command, INSTANCE) == told
    assert server.call("GET", "sipward:tenant:acme") == "written by others"


@pytest.mark.parametrize(
    ("code", "words", "told"),
    [
        (2, ("drain", "sip:pbx.example"), 'uri = "sip:pbx.example": must be sip:ADDRESS'),
        (2, ("drain", INSTANCE, "--tenant", "A"), 'name = "A": must be'),
        (2, ("list", "--tenant", "A"), 'name = "A": must be'),
        (1, ("undrain", "sip:10.5.4.9"), "no tenant or number has an instance sip:10.5.4.9"),
        (1, ("drain", OTHER, "--tenant", "bulk"), f"tenant bulk has no instance {OTHER}"),
        (1, ("drain", OTHER, "--tenant", "none"), f"tenant none has no instance {OTHER}"),
    ],
)
def test_what_cannot_be_done_is_one_line(loaded: Shell, code: int, words: tuple[str, ...], told: str) -> None:
    assert told in loaded.fails(code, "instance", *words)
