"""The last good table on disk."""

import json
import stat
from pathlib import Path

import pytest

from sipward import snapshot
from sipward.snapshot import Row, Snapshot, SnapshotError, Writer

ROWS = {f"t{n}": Row(f'{{"a": "\u00fc{n}"}}', (f"t{n}.org", f"u{n}.org"), f"[{n}]") for n in range(1201)}
FULL = Snapshot("these rules", ROWS, frozenset({"t1", "t2"}))


@pytest.mark.parametrize("kept", [FULL, Snapshot("no rows"), Snapshot("one", {"t1": ROWS["t1"]})])
def test_what_was_saved_is_loaded(tmp_path: Path, kept: Snapshot) -> None:
    snapshot.save(tmp_path / "new" / "routes.json", kept)
    assert snapshot.load(tmp_path / "new" / "routes.json") == kept


def test_the_file_is_json_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    snapshot.save(file, FULL)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["tenants"].keys() == ROWS.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["routes.json"]


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert snapshot.load(tmp_path / "routes.json") is None


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "routes.json"
    snapshot.save(file, FULL)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot.os, "fsync", full)
    writer = Writer(file)
    writer.offer(Snapshot("newer"))
    writer.close()
    assert "No space left on device" in writer.complaint
    assert snapshot.load(file) == FULL


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"{}",
        b"[]",
        b'{"version": 1}',
        b'{"version": 99, "made_under": "", "withheld": [], "tenants": {}}',
        b'{"version": 1, "made_under": "", "withheld": [], "tenants": []}',
        b'{"version": 1, "made_under": "", "withheld": [], "tenants": {"a": ["raw"]}}',
        b'{"version": 1, "made_under": "", "withheld": [], "tenants": {"a": 7}}',
        b'{"version": 1, "made_under": "", "withheld": 7, "tenants": {}}',
        b"[" * 100000,
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "routes.json"
    file.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"routes\.json: "):
        snapshot.load(file)


def test_a_file_cut_short_anywhere_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    snapshot.save(file, Snapshot("rules", {"t1": ROWS["t1"], "t2": ROWS["t2"]}))
    whole = file.read_bytes().rstrip()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(SnapshotError):
            snapshot.load(file)


def test_a_writer_is_not_free_right_after_a_write(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "routes.json")
    assert writer.is_free
    writer.offer(FULL)
    writer.close()
    assert not writer.is_free
    assert writer.complaint == ""
