"""The commands: what they say, what they write, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis_server import RedisServer
from shell import ACME, INSTANCE, Shell

import sipward
from sipward import live, snapshot
from sipward.model import Tenant
from sipward.snapshot import Row, Snapshot

CHECKOUT = Path(__file__).resolve().parents[2]


# Routes


def test_a_tenant_is_added_shown_listed_and_removed(server: RedisServer, shell: Shell) -> None:
    assert shell.ok(*ACME) == f"tenant acme: acme.example.org -> {INSTANCE}\n"
    assert json.loads(shell.ok("route", "show", "acme"))["domains"] == ["acme.example.org"]
    assert "acme.example.org" in shell.ok("route", "list")
    (listed,) = json.loads(shell.ok("route", "list", "--json"))
    assert listed["name"] == "acme"
    assert listed["instances"][0]["uri"] == INSTANCE
    assert shell.ok("route", "rm", "acme") == "tenant acme removed\n"
    assert json.loads(shell.ok("route", "list", "--json")) == []


def test_fields_of_an_instance_are_written_after_its_uri(server: RedisServer, shell: Shell) -> None:
    second = "sip:10.5.4.7;transport=tcp,weight=2,priority=3,description=the second,drain=true,srtp=sdes"
    shell.ok(*ACME, "--instance", second, "--domain", "b.example.org", "--redirect", "refuse")
    assert json.loads(server.call("GET", "sipward:tenant:acme")) == {
        "domains": ["acme.example.org", "b.example.org"],
        "instances": [
            {"uri": INSTANCE, "weight": 1, "priority": 1, "description": "", "drain": False, "srtp": "off"},
            {
                "uri": "sip:10.5.4.7;transport=tcp",
                "weight": 2,
                "priority": 3,
                "description": "the second",
                "drain": True,
                "srtp": "sdes",
            },
        ],
        "policy": "failover",
        "identity": "pass",
        "limits": {"calls": 0, "calls_per_second": 0, "registrations_per_second": 0},
        "redirect": "refuse",
        "ice": "remove",
        "codecs": {"names": [], "only": False, "transcode": False},
    }


def test_a_tenants_policy_identity_and_limits_are_options(server: RedisServer, shell: Shell) -> None:
    rates = ("--calls", "5", "--calls-per-second", "3", "--registrations-per-second", "2")
    shell.ok(*ACME, "--policy", "balance", "--identity", "remove", *rates)
    value = json.loads(server.call("GET", "sipward:tenant:acme"))
    assert (value["policy"], value["identity"]) == ("balance", "remove")
    assert value["limits"] == {"calls": 5, "calls_per_second": 3, "registrations_per_second": 2}


def test_what_a_tenants_media_is_to_be_are_options(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ACME, "--ice", "answer", "--codec", "opus", "--codec", "PCMA", "--only-codecs", "--transcode")
    value = json.loads(server.call("GET", "sipward:tenant:acme"))
    assert value["ice"] == "answer"
    assert value["codecs"] == {"names": ["opus", "PCMA"], "only": True, "transcode": True}


def test_a_description_is_text_whatever_it_looks_like(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ACME[:5], "--instance", f"{INSTANCE},description=12", "--instance", "sip:10.5.4.2,description=true")
    value = json.loads(server.call("GET", "sipward:tenant:acme"))
    assert [instance["description"] for instance in value["instances"]] == ["12", "true"]


def test_a_tenant_that_exists_is_overwritten_only_when_asked(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ACME)
    assert "--replace overwrites it" in shell.fails(2, *ACME)
    other = [word.replace("5080", "5090") for word in ACME]
    shell.ok(*other, "--replace")
    assert "5090" in server.call("GET", "sipward:tenant:acme")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["route", "add", "A b", *ACME[3:]], 'name = "A b": must be'),
        ([*ACME[:3], "--domain", "a:5060", "--instance", INSTANCE], "must be a host name or an IP address"),
        ([*ACME[:5], "--instance", "sip:pbx.org"], "instances[0].uri = "),
        ([*ACME[:5], "--instance", "sip:10.9.9.9"], "must be inside network.service_networks (10.5.4.0/24)"),
        ([*ACME[:5], "--instance", "sip:10.5.4.1"], "is the node's own SIP port"),
        ([*ACME[:5], "--instance", "sip:127.0.0.1:5080"], "service_networks"),
        ([*ACME, "--instance", INSTANCE], "is there twice"),
        ([*ACME[:5], "--instance", f"{INSTANCE},weight=0"], "instances[0].weight = 0: must be 1 to 1000"),
        ([*ACME[:5], "--instance", f"{INSTANCE},weight=two"], 'instances[0].weight = "two"'),
        ([*ACME[:5], "--instance", f"{INSTANCE},weight"], "must be URI[,weight=N]"),
        ([*ACME[:5], "--instance", f"{INSTANCE},uri=x"], "must be URI[,weight=N]"),
        ([*ACME[:5], "--instance", f"{INSTANCE},colour=red"], "instances[0].colour: unknown"),
        ([*ACME, "--redirect", "follow"], 'redirect = "follow"'),
        ([*ACME, "--policy", "luck"], 'policy = "luck"'),
        ([*ACME, "--identity", "invent"], 'identity = "invent"'),
        ([*ACME, "--calls", "-1"], "limits.calls = -1: must be 0 to 100000"),
        ([*ACME, "--calls-per-second", "100001"], "limits.calls_per_second = 100001: must be 0 to 100000"),
        ([*ACME, "--registrations-per-second", "-1"], "limits.registrations_per_second = -1: must be 0 to 100000"),
        (["route", "show", "A"], 'name = "A"'),
        (["route", "rm", "A"], 'name = "A"'),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    server: RedisServer, shell: Shell, words: list[str], told: str
) -> None:
    assert told in shell.fails(2, *words)
    assert server.call("DBSIZE") == "0"


def test_a_domain_of_another_tenant_is_refused(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ACME)
    line = shell.fails(2, "route", "add", "bulk", *ACME[3:])
    assert line == "domains: acme.example.org belongs to tenant acme"


@pytest.mark.parametrize("words", [("route", "show", "none"), ("route", "rm", "none")])
def test_a_tenant_there_is_not_is_told(server: RedisServer, shell: Shell, words: tuple[str, ...]) -> None:
    assert shell.fails(1, *words) == "there is no tenant none"


@pytest.mark.parametrize(
    "words", [ACME, ("route", "show", "a"), ("route", "list"), ("route", "rm", "a"), ("route", "accept")]
)
def test_a_redis_out_of_reach_is_one_line(shell: Shell, words: tuple[str, ...]) -> None:
    line = shell.fails(1, *words)
    assert line.startswith("Redis cannot be used: ")
    assert "is the node running" not in line
    text = shell.config.read_text()
    shell.config.write_text(text[: text.index("[redis]")])
    line = shell.fails(1, *words)
    assert line.startswith("Redis cannot be used: ")
    assert line.endswith(": is the node running?")


def test_what_the_nodes_own_redis_refuses_is_not_blamed_on_the_node(server: RedisServer, shell: Shell) -> None:
    own = server.socket.parent / "redis" / "redis.sock"
    own.parent.mkdir()
    own.symlink_to(server.socket)
    text = shell.config.read_text()
    shell.config.write_text(text[: text.index("[redis]")])
    shell.ok(*ACME)
    assert shell.fails(2, "route", "add", "bulk", *ACME[3:]) == "domains: acme.example.org belongs to tenant acme"
    server.call("CONFIG", "SET", "maxmemory", "1")
    line = shell.fails(1, *ACME, "--replace")
    assert line.startswith("Redis refuses: ")
    assert "is the node running" not in line


def test_a_bad_value_written_by_hand_is_shown_with_its_reason(server: RedisServer, shell: Shell) -> None:
    server.put("bad", "{\x1b")
    server.call("HSET", "sipward:tenant:hash", "a", "b")
    result = shell.run("route", "show", "bad")
    assert result.exit_code == 1
    assert "this value is not used: value: not JSON" in result.stderr
    assert "holds a hash" in shell.fails(1, "route", "show", "hash")
    listed = {entry["name"]: entry["error"] for entry in json.loads(shell.ok("route", "list", "--json"))}
    assert listed.keys() == {"bad", "hash"}
    assert "not used" in shell.ok("route", "list")


VALUE = json.dumps({"domains": ["a.example.org"], "instances": [{"uri": INSTANCE}]})
BELONGS = "domains: a.example.org belongs to tenant {}"


def unused(shell: Shell) -> dict[str, str]:
    """What `list` says of the tenants that are not used; `show` says the same of each."""
    listed = {entry["name"]: entry.get("error", "") for entry in json.loads(shell.ok("route", "list", "--json"))}
    for name, reason in listed.items():
        result = shell.run("route", "show", name)
        told = f"this value is not used: {reason}\n" if reason else ""
        assert (result.exit_code, result.stderr) == (int(bool(reason)), told)
    return {name: reason for name, reason in listed.items() if reason}


def test_without_a_node_a_domain_is_its_first_tenants(server: RedisServer, shell: Shell) -> None:
    for name in ("zulu", "bulk", "acme"):
        server.put(name, VALUE)
    assert unused(shell) == {"bulk": BELONGS.format("acme"), "zulu": BELONGS.format("acme")}
    assert shell.ok("route", "list").count("not used") == 2


def test_without_a_node_a_domain_stays_with_the_tenant_that_had_it(
    server: RedisServer, shell: Shell, tmp_path: Path
) -> None:
    table = tmp_path / "table" / "tenants.jsonl"
    snapshot.save(table, Snapshot("", [Row("bulk", VALUE, ("a.example.org",), {}).line]))
    for name in ("acme", "bulk"):
        server.put(name, VALUE)
    assert unused(shell) == {"acme": BELONGS.format("bulk")}
    server.put("bulk", "{")
    assert unused(shell).keys() == {"acme", "bulk"}
    table.write_text("{")
    server.put("bulk", VALUE)
    assert unused(shell) == {"bulk": BELONGS.format("acme")}


@pytest.mark.parametrize(
    ("said", "total", "expected"),
    [
        ({}, 0, {}),
        ({"acme": "by the node's word"}, 1, {"acme": "by the node's word"}),
        ({"acme": "by the node's word"}, 2, {"acme": "by the node's word", "bulk": BELONGS.format("zulu")}),
    ],
)
def test_what_the_running_node_says_counts(
    server: RedisServer,
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, str],
    total: int,
    expected: dict[str, str],
) -> None:
    state = {"rejected": {f"sipward:tenant:{name}": why for name, why in said.items()}, "rejected_total": total}
    table = {"a.example.org": live.encode(Tenant("zulu", ())), "routes": json.dumps(state)}
    monkeypatch.setattr("sipward.rpc.kamailio", lambda run, method, table_, key: {"item": {"value": table[key]}})
    for name in ("acme", "bulk"):
        server.put(name, VALUE)
    assert unused(shell) == expected


def test_a_value_may_say_nothing_to_the_terminal(server: RedisServer, shell: Shell) -> None:
    server.put("[red]a", json.dumps({"\x1b[31m": 1}))
    server.put("acme", json.dumps({"domains": ["a.org"], "instances": [], "\x1b[2J": 1}))
    assert "\x1b" not in shell.run("route", "list").output
    assert shell.ok("route", "list").count("[red]a") == 2


def test_accepting_leaves_word_for_the_nodes(server: RedisServer, shell: Shell) -> None:
    assert "sipward status" in shell.ok("route", "accept")
    assert server.call("EXISTS", "sipward:accept") == "1"


def test_restoring_writes_back_what_is_missing_of_every_kind(server: RedisServer, shell: Shell, tmp_path: Path) -> None:
    for kind, names in (("tenants", ("acme", "bulk")), ("numbers", ("100", "100@carrier")), ("trunks", ("carrier",))):
        lines = [Row(name, f"old {name}", (), {}).line for name in names]
        snapshot.save(tmp_path / "table" / f"{kind}.jsonl", Snapshot("", lines))
    server.put("acme", "new acme")
    assert shell.ok("route", "restore").splitlines() == [
        "1 of 2 tenants were missing in Redis and are written back",
        "1 of 1 trunks were missing in Redis and are written back",
        "2 of 2 numbers were missing in Redis and are written back",
    ]
    assert server.call("MGET", "sipward:tenant:acme", "sipward:tenant:bulk") == "new acme\nold bulk"
    found = server.call("MGET", "sipward:number:100", "sipward:number:100@carrier", "sipward:trunk:carrier")
    assert found == "old 100\nold 100@carrier\nold carrier"


def test_restoring_takes_what_tables_there_are(server: RedisServer, shell: Shell, tmp_path: Path) -> None:
    snapshot.save(tmp_path / "table" / "trunks.jsonl", Snapshot("", [Row("carrier", "old", (), {}).line]))
    assert shell.ok("route", "restore") == "1 of 1 trunks were missing in Redis and are written back\n"


@pytest.mark.parametrize(("content", "told"), [(None, "there is no last good table"), ("{", "cannot be used")])
def test_restoring_from_nothing_is_told(shell: Shell, tmp_path: Path, content: str | None, told: str) -> None:
    if content:
        (tmp_path / "table").mkdir()
        (tmp_path / "table" / "tenants.jsonl").write_text(content)
    assert told in shell.fails(1, "route", "restore")


# The node


@pytest.mark.parametrize("words", [("up",), ("status",), ("route", "list"), ACME, ("route", "restore")])
def test_a_bad_configuration_is_one_line_and_exit_2(shell: Shell, words: tuple[str, ...]) -> None:
    shell.config.write_text(shell.config.read_text().replace("[redis]", "[reddish]"))
    assert "reddish" in shell.fails(2, *words)


def test_an_interface_that_is_not_there_is_one_line_and_exit_2(server: RedisServer, shell: Shell) -> None:
    shell.config.write_text(shell.config.read_text().replace('address = "203.0.113.5"', 'interface = "no-such"', 1))
    assert "no such interface" in shell.fails(2, *ACME)
    assert shell.ok("route", "list")


def test_a_configuration_that_is_not_there_is_one_line_and_exit_2(shell: Shell) -> None:
    shell.config.unlink()
    assert "cannot be read" in shell.fails(2, "status")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A node as the commands see it, without its processes."""
    found = SimpleNamespace(run=lambda settings: 0, status=lambda settings: {})
    monkeypatch.setattr(sipward, "node", found, raising=False)
    monkeypatch.setitem(sys.modules, "sipward.node", found)
    return found


STATUS: dict[str, Any] = {
    "ready": True,
    "components": {
        "redis": {"state": "degraded", "detail": "takes no writes"},
        "routes": {
            "state": "ok",
            "detail": "",
            "tenants": 7,
            "domains": 9,
            "numbers": 5,
            "trunks": 2,
            "unresolved": {"sip.[b].example": "has no address"},
            "rejected_total": 3,
            "rejected": {"sipward:tenant:[b]x": "value: not JSON"},
        },
    },
}


@pytest.mark.parametrize(("ready", "code"), [(True, 0), (False, 1)])
def test_status_ends_with_0_only_when_calls_can_be_routed(
    shell: Shell, node: SimpleNamespace, ready: bool, code: int
) -> None:
    node.status = lambda settings: {**STATUS, "ready": ready}
    result = shell.run("status", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout) == {**STATUS, "ready": ready}
    assert shell.run("status").exit_code == code


def test_status_names_each_component_and_each_value_not_used(shell: Shell, node: SimpleNamespace) -> None:
    node.status = lambda settings: STATUS
    lines = shell.ok("status").splitlines()
    assert lines[0] == "ready"
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "redis degraded takes no writes",
        "routes ok 7 tenants, 9 domains, 5 numbers, 2 trunks",
        "not used: sipward:tenant:[b]x: value: not JSON",
        "not resolved: sip.[b].example: has no address",
        "not used: 2 more; `sipward route list`, `trunk list` and `number check` show all",
    ]


def test_status_that_is_not_ready_says_so(shell: Shell, node: SimpleNamespace) -> None:
    node.status = lambda settings: {**STATUS, "ready": False}
    assert shell.run("status").stdout.startswith("NOT ready")


@pytest.mark.parametrize("code", [0, 1, 3])
def test_up_ends_as_the_node_ends(shell: Shell, node: SimpleNamespace, code: int) -> None:
    seen: list[str] = []
    node.run = lambda load: seen.append(load().fqdn) or code
    assert shell.run("up").exit_code == code
    assert seen == ["sip.example.org"]


# Backups and actions


def test_an_answer_to_a_restore_has_a_key_and_a_value(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "node.backup"
    values = {"tenant": {}, "number": {}, "trunk": {}}
    file.write_text(json.dumps({"sipward": 1, "configuration": "", "keys": [], "values": values}))
    for wrong in ("network.address", "=192.0.2.1", ""):
        assert shell.fails(2, "restore", str(file), "--set", wrong).startswith(f'--set "{wrong}": must be KEY=VALUE, ')


def test_a_backup_needs_redis_and_a_restore_its_file(shell: Shell, tmp_path: Path) -> None:
    output = tmp_path / "node.backup"
    assert "Redis cannot be used" in shell.fails(1, "backup", "--output", str(output))
    assert not output.exists()
    assert shell.fails(2, "restore", str(output)).endswith("node.backup: cannot be read: No such file or directory")


def test_an_action_that_is_not_there_is_one_line(shell: Shell) -> None:
    assert shell.fails(2, "action", "add-rute").startswith('there is no action "add-rute": there are add-route, ')


# The program itself


def program(
    *words: str, module: str = "sipward", directory: Path = CHECKOUT, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables, "PYTHONPATH": str(CHECKOUT / "kemi"), "COLUMNS": "100"}
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=directory, check=False, input=stdin
    )


@pytest.mark.parametrize("words", [(), ("--help",), ("route", "--help"), ("route", "add", "--help"), ("up", "--help")])
def test_help_is_there_without_a_configuration(words: tuple[str, ...]) -> None:
    done = program(*words)
    assert "Usage: sipward" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_names_every_command() -> None:
    groups = ("route", "number", "trunk", "instance")
    commands = {
        "": ["up", "status", "calls", "call", "demo", "test", "redis", *groups],
        "route": ["add", "show", "list", "rm", "accept", "restore"],
        "number": ["add", "show", "list", "rm", "check", "import", "export"],
        "trunk": ["add", "show", "list", "rm"],
        "instance": ["list", "drain", "undrain"],
    }
    for group, expected in commands.items():
        text = program(*group.split(), "--help").stdout
        assert [command for command in expected if f" {command} " not in text] == []


def test_a_command_there_is_not_is_exit_2() -> None:
    assert program("go").returncode == 2


@pytest.mark.parametrize(
    "words", [["--help"], ["--collect-only", "-q", "-k", "fold or key", "--", "tests/unit/test_live.py"]]
)
def test_arguments_of_test_go_to_pytest_untouched_from_the_checkout(words: list[str], tmp_path: Path) -> None:
    ours = program("test", "-p", "no:cacheprovider", *words, directory=tmp_path)
    theirs = program("-p", "no:cacheprovider", *words, module="pytest")
    assert ours.returncode == theirs.returncode == 0
    assert ours.stdout.splitlines()[:-1] == theirs.stdout.splitlines()[:-1]


def test_test_ends_as_pytest_ends(tmp_path: Path) -> None:
    assert program("test", "--no-such-option", directory=tmp_path).returncode == 4


@pytest.mark.parametrize("option", [["--config", "{config}"], ["--config={config}"]])
def test_arguments_of_redis_go_to_redis_cli_untouched(server: RedisServer, shell: Shell, option: list[str]) -> None:
    ours = [word.format(config=shell.config) for word in option]
    assert program("redis", *ours, "SET", "a b", '{"x": "--config"}').stdout == "OK\n"
    assert server.call("GET", "a b") == '{"x": "--config"}'
    assert program("redis", *ours, "-x", "SET", "piped", stdin="from a file").stdout == "OK\n"
    assert server.call("GET", "piped") == "from a file"
    assert program("redis", *ours, "--scan", "--pattern", "pip*").stdout == "piped\n"
    assert program("redis", *ours, "-e", "NONSENSE").returncode == 1


def test_redis_takes_the_configuration_from_the_environment_too(shell: Shell, server: RedisServer) -> None:
    done = program("redis", "--config", str(shell.config), "PING", SIPWARD_REDIS__URL=f"unix://{server.socket}-not")
    assert done.returncode == 1
    assert f"{server.socket}-not" in done.stderr


def test_redis_without_a_configuration_says_so_in_one_line(tmp_path: Path) -> None:
    done = program("redis", "--config", str(tmp_path / "none.toml"), "PING")
    assert (done.returncode, done.stderr) == (2, f"{tmp_path}/none.toml: cannot be read: No such file or directory\n")


def test_redis_where_redis_cli_is_missing_says_so_in_one_line(shell: Shell, tmp_path: Path) -> None:
    done = program("redis", "--config", str(shell.config), "PING", PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "redis-cli is not installed\n")


def test_redis_is_asked_with_the_password_that_no_list_of_processes_shows(tmp_path: Path, shell: Shell) -> None:
    with RedisServer(tmp_path) as server:
        server.start("--requirepass", "open sesame")
        url = f"unix://:open%20sesame@{server.socket}?db=3"
        done = program("redis", "--config", str(shell.config), "SET", "a", "b", SIPWARD_REDIS__URL=url)
        assert (done.stdout, done.stderr) == ("OK\n", "")
        told = program("redis", "--config", str(shell.config), "INFO", "keyspace", SIPWARD_REDIS__URL=url)
        assert "db3:keys=1" in told.stdout
