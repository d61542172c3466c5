"""A node in one file: what goes in comes out, and half a file is none."""

import json
from pathlib import Path

import pytest

from sipward import backup
from sipward.backup import Backup, BackupError
from sipward.records import Kind
from sipward.settings import Settings
from sipward.store import Unreadable, Value

TENANT = '{"domains": ["ä.example"], "instances": []}'
KEY = "ab" * 32
WHOLE = Backup('# mine\nfqdn = "a.example"\n', (KEY,), {Kind.TENANT: {"acme": TENANT}, Kind.NUMBER: {}, Kind.TRUNK: {}})


class Store:
    def list(self, kind: Kind) -> dict[str, Value]:
        values: dict[str, Value] = {"acme": TENANT.encode(), "bad": b"{", "list": Unreadable("a list"), "bin": b"\xff"}
        return values if kind is Kind.TENANT else {}


def test_a_node_is_read_with_its_comments_its_keys_and_its_values_good_or_bad(tmp_path: Path) -> None:
    path = tmp_path / "sipward.toml"
    path.write_text(WHOLE.configuration)
    (tmp_path / "keys").write_text(f"{KEY}\n{'cd' * 32}\n")
    node = Settings(fqdn="a.example", state_dir=tmp_path, network={"address": "192.0.2.1"})
    saved, left_out = backup.make(path, node, Store())  # type: ignore[arg-type]
    assert saved.configuration == WHOLE.configuration
    assert saved.keys == (KEY, "cd" * 32)
    assert saved.values == {Kind.TENANT: {"acme": TENANT, "bad": "{"}, Kind.NUMBER: {}, Kind.TRUNK: {}}
    assert left_out == ["tenant list", "tenant bin"]
    file = tmp_path / "node.backup"
    file.write_text(saved.to_json())
    assert backup.read(file) == saved


def test_a_node_that_never_ran_has_no_keys(tmp_path: Path) -> None:
    assert backup.read_keys(Settings(fqdn="a.example", state_dir=tmp_path, network={"address": "192.0.2.1"})) == ()


BROKEN = {
    "empty": "",
    "no json": "{",
    "cut": WHOLE.to_json()[:-9],
    "no object": "[]",
    "another version": json.dumps(json.loads(WHOLE.to_json()) | {"sipward": 2}),
    "no keys": json.dumps({k: v for k, v in json.loads(WHOLE.to_json()).items() if k != "keys"}),
    "a short key": json.dumps(json.loads(WHOLE.to_json()) | {"keys": ["abcd"]}),
    "a key of letters": json.dumps(json.loads(WHOLE.to_json()) | {"keys": ["x" * 64]}),
    "values that are no texts": json.dumps(
        json.loads(WHOLE.to_json()) | {"values": {"tenant": {"a": {}}, "number": {}, "trunk": {}}}
    ),
    "a kind missing": json.dumps(json.loads(WHOLE.to_json()) | {"values": {"tenant": {}}}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_is_no_whole_backup_is_named(what: str, tmp_path: Path) -> None:
    file = tmp_path / "node.backup"
    file.write_text(BROKEN[what])
    with pytest.raises(BackupError) as caught:
        backup.read(file)
    assert str(caught.value).startswith(f"{file}: is ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="nowhere: cannot be read: No such file"):
        backup.read(tmp_path / "nowhere")
