"""`sipward trunk`: what it says and writes."""

import json

import pytest
from redis_server import RedisServer
from shell import Shell

from sipward import live
from sipward.model import Endpoint, Trunk

ADD = (
    "trunk",
    "add",
    "carrier",
    "--address",
    "198.51.100.0/24",
    "--address",
    "sip.carrier.example",
    "--tenant",
    "acme",
)


def test_a_trunk_is_added_shown_listed_and_removed(server: RedisServer, shell: Shell) -> None:
    assert shell.ok(*ADD) == "trunk carrier: 198.51.100.0/24, sip.carrier.example <-> acme\n"
    assert json.loads(shell.ok("trunk", "show", "carrier"))["tenants"] == ["acme"]
    assert "198.51.100.0/24" in shell.ok("trunk", "list")
    (listed,) = json.loads(shell.ok("trunk", "list", "--json"))
    assert (listed["name"], listed["targets"], listed["unresolved"]) == ("carrier", None, {})
    assert shell.ok("trunk", "rm", "carrier") == "trunk carrier removed\n"
    assert json.loads(shell.ok("trunk", "list", "--json")) == []


def test_every_field_of_a_trunk_is_an_option(server: RedisServer, shell: Shell) -> None:
    shell.ok(
        *("trunk", "add", "carrier", "--address", "198.51.100.7", "--tenant", "*", "--transport", "tcp"),
        *("--number", "p-called-party-id", "--media", "learned", "--identity", "pass", "--host", "Sip.Other.example"),
        *(
            "--calls",
            "30",
            "--calls-per-second",
            "5",
            "--registrations-per-second",
            "2",
            "--description",
            "main",
            "--srtp",
            "sdes",
        ),
    )
    assert json.loads(server.call("GET", "sipward:trunk:carrier")) == {
        "addresses": ["198.51.100.7"],
        "tenants": ["*"],
        "transport": "tcp",
        "number": "p-called-party-id",
        "media": "learned",
        "identity": "pass",
        "limits": {"calls": 30, "calls_per_second": 5, "registrations_per_second": 2},
        "own_port": False,
        "srtp": "sdes",
        "hosts": ["sip.other.example"],
        "description": "main",
    }


def test_a_trunk_may_ask_for_a_port_for_each_registration(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ADD, "--own-port")
    assert json.loads(server.call("GET", "sipward:trunk:carrier"))["own_port"] is True
    assert "own_port = true: must be false" in shell.fails(2, *ADD, "--replace", "--own-port", "--transport", "tcp")


def test_a_trunk_that_exists_is_overwritten_only_when_asked(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ADD)
    assert "--replace overwrites it" in shell.fails(2, *ADD)
    shell.ok(*ADD, "--tenant", "bulk", "--replace")
    assert "bulk" in server.call("GET", "sipward:trunk:carrier")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trunk", "add", "A b", *ADD[3:]], 'name = "A b": must be'),
        ([*ADD, "--address", "10.5.4.9"], "network.service_networks"),
        ([*ADD, "--address", "a b"], 'address "a b" must be'),
        ([*ADD, "--tenant", "A"], "must be a tenant's name, or * for all"),
        ([*ADD, "--tenant", "*"], 'must be ["*"] alone'),
        ([*ADD, "--transport", "sctp"], 'transport = "sctp"'),
        ([*ADD, "--number", "from"], 'number = "from"'),
        ([*ADD, "--media", "any"], 'media = "any"'),
        ([*ADD, "--identity", "any"], 'identity = "any"'),
        ([*ADD, "--host", "sip.example.org"], "is the node itself"),
        ([*ADD, "--calls", "-1"], "limits.calls = -1: must be 0 to 100000"),
        (["trunk", "show", "A"], 'name = "A"'),
        (["trunk", "rm", "A"], 'name = "A"'),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    server: RedisServer, shell: Shell, words: list[str], told: str
) -> None:
    assert told in shell.fails(2, *words)
    assert server.call("DBSIZE") == "0"


@pytest.mark.parametrize("words", [("trunk", "show", "none"), ("trunk", "rm", "none")])
def test_a_trunk_there_is_not_is_told(server: RedisServer, shell: Shell, words: tuple[str, ...]) -> None:
    assert shell.fails(1, *words) == "there is no trunk none"


def test_a_bad_value_written_by_hand_is_shown_with_its_reason(server: RedisServer, shell: Shell) -> None:
    server.call("SET", "sipward:trunk:bad", "{")
    assert "this value is not used: value: not JSON" in shell.run("trunk", "show", "bad").stderr
    assert "not used" in shell.ok("trunk", "list")
    (listed,) = json.loads(shell.ok("trunk", "list", "--json"))
    assert listed.keys() == {"name", "error"}


def test_the_running_node_says_where_a_trunk_leads_and_which_names_lead_nowhere(
    server: RedisServer, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.ok(*ADD)
    shell.ok("trunk", "add", "other", "--address", "198.51.100.9", "--tenant", "acme")
    state = {"rejected": {}, "rejected_total": 0, "unresolved": {"sip.carrier.example": "the DNS is silent"}}
    entry = live.encode_trunk(Trunk("carrier", ("acme",), (Endpoint("udp", "198.51.100.7", 5060),)))

    def kamailio(run: object, method: str, *asked: str) -> object:
        if method == "core.uptime":
            return {"uptime": 1}
        if asked not in {("state", "routes"), ("routes", "%carrier")}:
            raise ValueError("no such key")
        return {"item": {"value": json.dumps(state) if asked[0] == "state" else entry}}

    monkeypatch.setattr("sipward.rpc.kamailio", kamailio)
    first, second = json.loads(shell.ok("trunk", "list", "--json"))
    assert first["targets"] == ["udp:198.51.100.7:5060"]
    assert first["unresolved"] == {"sip.carrier.example": "the DNS is silent"}
    assert (second["targets"], second["unresolved"]) == ([], {})
    shown = shell.ok("trunk", "list")
    assert "udp:198.51.100.7" in shown
    assert "silent" in shown
