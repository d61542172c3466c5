"""`sipward number`: what it says and writes."""

import json
from pathlib import Path

import pytest
from redis_server import RedisServer
from shell import ACME, INSTANCE, Shell

from sipward import snapshot
from sipward.snapshot import Row, Snapshot

ADD = ("number", "add", "0721405XX", "--tenant", "acme")
CARRIER = ("trunk", "add", "carrier", "--address", "198.51.100.7", "--tenant", "acme")
HEADER = "rule,trunk,tenant,instances,exact,description"


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """Its node is in Italy."""
    shell.config.write_text(shell.config.read_text() + '[numbers]\ncountry_code = "39"\n')
    return shell


def number(server: RedisServer, name: str) -> dict[str, object]:
    value: dict[str, object] = json.loads(server.call("GET", f"sipward:number:{name}"))
    return value


def put(server: RedisServer, name: str, **value: object) -> None:
    assert server.call("SET", f"sipward:number:{name}", stdin=json.dumps(value)) == "OK"


def test_a_number_is_added_shown_listed_and_removed(server: RedisServer, shell: Shell) -> None:
    assert shell.ok(*ADD) == "number 0721405XX -> tenant acme\n"
    assert json.loads(shell.ok("number", "show", "0721405XX"))["tenant"] == "acme"
    assert "0721405XX" in shell.ok("number", "list")
    (listed,) = json.loads(shell.ok("number", "list", "--json"))
    assert listed == {"name": "0721405XX", "tenant": "acme", "exact": False, "description": ""}
    assert shell.ok("number", "rm", "0721405XX") == "number 0721405XX removed\n"
    assert json.loads(shell.ok("number", "list", "--json")) == []


def test_a_number_may_have_instances_of_its_own_and_a_trunk(server: RedisServer, shell: Shell) -> None:
    shell.ok(*CARRIER)
    own = ("--instance", f"{INSTANCE},weight=2", "--instance", "sip:10.5.4.2")
    told = shell.ok("number", "add", "100", *own, "--trunk", "carrier", "--exact", "--description", "the desk")
    assert told == f"number 100@carrier -> {INSTANCE}, sip:10.5.4.2\n"
    value = number(server, "100@carrier")
    assert [one["weight"] for one in value["instances"]] == [2, 1]  # type: ignore[attr-defined]
    assert (value["exact"], value["description"]) == (True, "the desk")
    assert shell.ok("number", "show", "100", "--trunk", "carrier") == shell.ok("number", "show", "100@carrier")
    assert shell.fails(1, "number", "show", "100") == "there is no number 100"
    assert shell.ok("number", "rm", "100", "--trunk", "carrier") == "number 100@carrier removed\n"


def test_a_number_that_exists_is_overwritten_only_when_asked(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ADD)
    assert "--replace overwrites it" in shell.fails(2, *ADD)
    shell.ok(*ADD[:4], "bulk", "--replace")
    assert number(server, "0721405XX")["tenant"] == "bulk"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*ADD[:2], "07-21", *ADD[3:]], 'rule = "07-21": must be 1 to 32 digits or X'),
        ([*ADD[:3]], "exactly one of tenant and instances must be given"),
        ([*ADD, "--instance", INSTANCE], "exactly one of tenant and instances must be given"),
        ([*ADD[:3], "--tenant", "A"], 'tenant = "A": must be a tenant\'s name'),
        ([*ADD[:3], "--instance", "sip:10.9.9.9"], "must be inside network.service_networks (10.5.4.0/24)"),
        ([*ADD[:3], "--instance", f"{INSTANCE},weight"], "must be URI[,weight=N]"),
        ([*ADD, "--trunk", "A"], 'trunk = "A": must be a trunk\'s name'),
        ([*ADD, "--description", "\x1b"], 'description = "\\u001b": must have no control characters'),
        (["number", "show", "a"], 'rule = "a": must be'),
        (["number", "rm", "1", "--trunk", "A"], 'trunk = "A": must be'),
        (["number", "list", "--tenant", "A"], 'name = "A": must be'),
        (["number", "import", "/no/such/file"], "/no/such/file: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    server: RedisServer, shell: Shell, words: list[str], told: str
) -> None:
    assert told in shell.fails(2, *words)
    assert server.call("DBSIZE") == "0"


@pytest.mark.parametrize("command", ["show", "rm"])
def test_a_number_there_is_only_in_another_spelling_is_told_as_it_is_spelt(
    server: RedisServer, shell: Shell, command: str
) -> None:
    assert shell.fails(1, "number", command, "+390721405XX") == "there is no number +390721405XX"
    shell.ok(*ADD)
    told = "there is no number +390721405XX: 0721405XX is the same rule"
    assert shell.fails(1, "number", command, "+390721405XX") == told


def test_another_spelling_of_a_rule_is_refused(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ADD)
    told = "rule: +390721405XX belongs to number 0721405XX"
    assert shell.fails(2, "number", "add", "00390721405XX", "--tenant", "bulk", "--replace") == told


@pytest.mark.parametrize("kept", [None, "00390721"])
def test_of_two_spellings_in_redis_one_is_not_used(
    server: RedisServer, shell: Shell, tmp_path: Path, kept: str | None
) -> None:
    if kept:
        row = Row(kept, '{"tenant": "acme"}', ("#+390721",), {})
        snapshot.save(tmp_path / "table" / "numbers.jsonl", Snapshot("", [row.line]))
    for name in ("+390721", "00390721"):
        put(server, name, tenant="acme")
    used, unused = ("00390721", "+390721") if kept else ("+390721", "00390721")
    told = f"rule: +390721 belongs to number {used}"
    listed = {entry["name"]: entry.get("error") for entry in json.loads(shell.ok("number", "list", "--json"))}
    assert listed == {used: None, unused: told}
    assert shell.run("number", "show", unused).stderr == f"this value is not used: {told}\n"
    shell.ok("number", "show", used)
    shell.ok(*ACME)
    assert shell.run("number", "check").stdout == f"not used: number {unused}: {told}\n2 numbers; not used: 1\n"


def test_numbers_of_one_tenant_are_listed(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ADD)
    shell.ok("number", "add", "100", "--tenant", "bulk")
    put(server, "bad", tenant="acme")
    assert [entry["name"] for entry in json.loads(shell.ok("number", "list", "--json", "--tenant", "acme"))] == [ADD[2]]
    assert "bulk" not in shell.ok("number", "list", "--tenant", "acme")


def test_a_bad_value_written_by_hand_is_shown_with_its_reason(server: RedisServer, shell: Shell) -> None:
    put(server, "[red]1", tenant="acme")
    put(server, "2", tenant="acme", colour="\x1b")
    output = shell.ok("number", "list")
    assert output.count("not used") == 2
    assert "[red]1" in output
    assert "\x1b" not in output
    assert "colour: unknown" in shell.run("number", "show", "2").stderr


# check


def check(shell: Shell, code: int) -> list[str]:
    result = shell.run("number", "check")
    assert (result.exit_code, result.stderr) == (code, "")
    return result.stdout.splitlines()


def test_where_nothing_is_wrong_there_is_nothing_to_be_said(server: RedisServer, shell: Shell) -> None:
    assert check(shell, 0) == ["0 numbers; nothing to be said"]
    shell.ok(*ACME)
    shell.ok(*CARRIER)
    shell.ok(*ADD)
    shell.ok("number", "add", "100", "--tenant", "acme", "--trunk", "carrier")
    assert check(shell, 0) == ["2 numbers; nothing to be said"]


def test_overlaps_are_told_with_both_owners_and_are_nothing_wrong(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ACME)
    shell.ok(*ADD)
    shell.ok("number", "add", "+39072140512", "--instance", INSTANCE)
    assert check(shell, 0) == [
        "overlap: +39072140512 (instances of its own) is inside 0721405XX (acme)",
        "2 numbers; overlap: 1",
    ]


def test_a_rule_that_never_wins_is_told(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ACME)
    for rule in ("0721X", *(f"0721{digit}" for digit in range(10))):
        put(server, rule, tenant="acme")
    lines = check(shell, 1)
    assert lines[0] == "never wins: 0721X (acme): each number that it matches has a more specific rule"
    assert lines[-1] == "11 numbers; never wins: 1, overlap: 10"


def test_what_a_number_names_and_is_not_there_is_told(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ACME)
    shell.ok(*CARRIER)
    server.put("bulk", "{")
    server.call("SET", "sipward:trunk:broken", "{")
    put(server, "1", tenant="none")
    put(server, "2@none", tenant="acme")
    put(server, "3@carrier", tenant="bulk")
    put(server, "4@broken", tenant="acme")
    put(server, "5@none", instances=[])
    put(server, "x", tenant="acme")
    put(server, "6@carrier", instances=[])
    assert sorted(check(shell, 1)) == [
        "7 numbers; no such tenant: 1, no such trunk: 2, not served: 1, trunk not used: 1, not used: 1",
        "no such tenant: 1 leads to none",
        "no such trunk: 2@none",
        "no such trunk: 5@none",
        "not served: 3@carrier leads to bulk, which trunk carrier does not serve",
        'not used: number x: rule = "x": must be 1 to 32 digits or X (any one digit), perhaps with a + before them',
        "trunk not used: 4@broken: value: not JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)",
    ]


def test_what_the_running_node_does_not_use_is_told(
    server: RedisServer, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"sipward:number:1": "by the node's word", "sipward:number:2": "of this, too"}
    state = {"rejected": said, "rejected_total": 2}
    monkeypatch.setattr("sipward.rpc.kamailio", lambda *asked: {"item": {"value": json.dumps(state)}})
    shell.ok(*ACME)
    put(server, "1", tenant="acme")
    put(server, "2", tenant="acme", colour="red")
    assert check(shell, 1) == [
        "not used: number 2: colour: unknown, no such field",
        "not used: number 1: by the node's word",
        "2 numbers; not used: 2",
    ]


# import and export


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "numbers.csv"


def test_what_was_exported_is_imported_as_it_was(server: RedisServer, shell: Shell, table: Path) -> None:
    shell.ok(*ADD, "--exact", "--description", "ü, and 'more'")
    own = f"{INSTANCE},weight=2,description=50% of all, if ever".replace(", ", " ")
    shell.ok("number", "add", "100", "--instance", own, "--instance", "sip:10.5.4.2,drain=true", "--trunk", "carrier")
    put(server, "112", instances=[])
    names = ("0721405XX", "100@carrier", "112")
    before = [number(server, name) for name in names]
    shell.ok("number", "export", str(table))
    assert table.read_text() == shell.ok("number", "export")
    server.call("FLUSHALL")
    assert shell.ok("number", "import", str(table)) == "3 numbers written\n"
    after = [number(server, name) for name in names]
    assert after[:2] == before[:2]
    assert after[2]["instances"] == []
    exported = table.read_text()
    assert shell.ok("number", "export") == exported


def test_what_cannot_be_exported_is_told(server: RedisServer, shell: Shell) -> None:
    shell.ok(*ADD)
    put(server, "1", colour="red")
    result = shell.run("number", "export")
    assert result.exit_code == 1
    assert result.stdout == f"{HEADER}\n0721405XX,,acme,,,\n"
    assert result.stderr.startswith("number 1 is left out: ")


def test_a_file_that_cannot_be_written_is_one_line(server: RedisServer, shell: Shell, tmp_path: Path) -> None:
    assert "cannot be written" in shell.fails(1, "number", "export", str(tmp_path / "none" / "x.csv"))


def test_an_older_file_stays_when_redis_fails(server: RedisServer, shell: Shell, table: Path) -> None:
    shell.ok(*ADD)
    shell.ok("number", "export", str(table))
    before = table.read_text()
    server.stop()
    assert "Redis cannot be used" in shell.fails(1, "number", "export", str(table))
    assert table.read_text() == before


def test_a_file_is_only_checked_when_asked(server: RedisServer, shell: Shell, table: Path) -> None:
    table.write_text(f"{HEADER}\n1,,acme,,,\n2,,acme,,,\n")
    assert shell.ok("number", "import", str(table), "--dry-run") == "2 numbers are good; nothing was written\n"
    assert server.call("DBSIZE") == "0"


def test_one_bad_line_keeps_all_others_out_and_every_error_is_told(
    server: RedisServer, shell: Shell, table: Path
) -> None:
    shell.ok(*ADD)
    put(server, "00390733", tenant="acme")
    table.write_text(f"{HEADER}\n1,,acme,,,\n+391,,bulk,,,\na,,acme,,,\n0721405XX,,acme,,,\n0733,,acme,,,\n2,,,,,\n")
    result = shell.run("number", "import", str(table))
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "line 3: rule: +391 is the same as line 2",
        'line 4: rule = "a": must be 1 to 32 digits or X (any one digit), perhaps with a + before them',
        "line 5: number 0721405XX exists: --replace overwrites it",
        "line 6: rule: +390733 belongs to number 00390733",
        "line 7: tenant: exactly one of tenant and instances must be given",
    ]
    assert server.call("DBSIZE") == "2"


def test_with_replace_rules_that_exist_are_overwritten_and_other_spellings_are_not(
    server: RedisServer, shell: Shell, table: Path
) -> None:
    shell.ok(*ADD)
    table.write_text(f"{HEADER}\n0721405XX,,bulk,,,\n1,,bulk,,,\n")
    assert shell.ok("number", "import", str(table), "--replace") == "2 numbers written\n"
    assert number(server, "0721405XX")["tenant"] == "bulk"
    table.write_text(f"{HEADER}\n00390721405XX,,bulk,,,\n")
    told = "line 2: rule: +390721405XX belongs to number 0721405XX"
    assert shell.fails(2, "number", "import", str(table), "--replace") == told


def test_twenty_errors_are_shown_and_the_others_counted(server: RedisServer, shell: Shell, table: Path) -> None:
    table.write_text("\n".join([HEADER, *(["a,,acme,,,"] * 25)]))
    lines = shell.run("number", "import", str(table)).stderr.splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("line 2: ")
    assert lines[-1] == "and 5 more"


@pytest.mark.parametrize("content", [b"", b"rule;tenant\n", b"\xff\xfe", b"rule,tenant\n\xff,acme\n"])
def test_what_is_no_such_table_is_one_line(server: RedisServer, shell: Shell, table: Path, content: bytes) -> None:
    table.write_bytes(content)
    shell.fails(2, "number", "import", str(table))


def test_more_than_one_batch_is_imported_exported_and_listed(server: RedisServer, shell: Shell, table: Path) -> None:
    text = f"{HEADER}\n" + "".join(f"{number},,acme,,,\n" for number in range(10000, 11234))
    table.write_text(text)
    assert shell.ok("number", "import", str(table)) == "1234 numbers written\n"
    assert shell.ok("number", "export") == text
    assert len(json.loads(shell.ok("number", "list", "--json"))) == 1234
