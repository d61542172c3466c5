"""The last good table on disk."""

import json
import stat
from pathlib import Path
from zlib import crc32

import pytest

from sipward import snapshot
from sipward.snapshot import Row, Snapshot, SnapshotError, Writer

ROWS = [
    Row(f"t{n}", f'{{"a": "\u00fc{n}"}}', (f"t{n}.org", f"u{n}.org"), {f"t{n}.org": f"[{n}]"}, f"t{n}", ("^10.5.4.1",))
    for n in range(1201)
]
FULL = Snapshot("these rules", [row.line for row in ROWS], frozenset({"t1", "t2"}))


@pytest.mark.parametrize("kept", [FULL, Snapshot("no rows", []), Snapshot("one", FULL.lines[:1])])
def test_what_was_saved_is_loaded(tmp_path: Path, kept: Snapshot) -> None:
    snapshot.save(tmp_path / "new" / "tenants.jsonl", kept)
    assert snapshot.load(tmp_path / "new" / "tenants.jsonl") == kept


def test_the_file_is_json_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "tenants.jsonl"
    snapshot.save(file, FULL)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [json.loads(line)[0] for line in file.read_text().splitlines()[1:-1]] == [row.name for row in ROWS]
    assert [path.name for path in tmp_path.iterdir()] == ["tenants.jsonl"]


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert snapshot.load(tmp_path / "tenants.jsonl") is None


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tenants.jsonl"
    snapshot.save(file, FULL)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot.os, "fsync", full)
    writer = Writer(file)
    writer.offer(Snapshot("newer"))
    writer.close()
    assert "No space left on device" in writer.complaint
    assert snapshot.load(file) == FULL


def sealed(head: bytes) -> bytes:
    """A file of that head alone, with its checksum."""
    return head + b"\n%d\n" % crc32(head + b"\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\n\n",
        b"\0" * 100,
        b"{}\n",
        b"[" * 100000 + b"\n",
        sealed(b"{}"),
        sealed(b"[]"),
        sealed(b'{"version": 2}'),
        sealed(b'{"version": 99, "made_under": "", "withheld": []}'),
        sealed(b'{"version": 2, "made_under": "", "withheld": 7}'),
        sealed(b"\xff"),
        sealed(b"[" * 100000),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tenants.jsonl"
    file.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"tenants\.jsonl: "):
        snapshot.load(file)


def test_a_file_with_another_byte_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "tenants.jsonl"
    snapshot.save(file, FULL)
    file.write_bytes(file.read_bytes().replace(b"t700.org", b"t701.org", 1))
    with pytest.raises(SnapshotError, match="it is not what was written"):
        snapshot.load(file)


@pytest.mark.parametrize(
    "row",
    [
        Row("a", "{}", ("a.org",), {"a.org": "x", "@a": "x"}),
        Row("1", "{}", ("#1",), {"@#1": "y", "#1": "@#1"}, "#1", ("^10.5.4.1",)),
        Row("c", "{}", (), {"%c": "z"}, "c", (), ("udp:sip.c.example",)),
    ],
)
def test_a_row_is_one_line_that_reads_back(row: Row) -> None:
    assert Row.read(row.line) == row
    assert row.line.isascii()
    assert row.line.isprintable()


def test_a_line_is_known_by_its_name_and_text_without_being_read() -> None:
    row = Row('a"', "\u00fc\\\n\x7f", ("a.org",), {"a.org": "x"})
    assert Row.has_written(row.line, row.name, row.raw.encode())
    for name, raw in ((row.name, b"\xff"), (row.name, row.raw[:-1].encode()), ("a", row.raw.encode()), (row.name, b"")):
        assert not Row.has_written(row.line, name, raw)


def test_a_file_cut_short_anywhere_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "tenants.jsonl"
    snapshot.save(file, Snapshot("rules", FULL.lines[:2]))
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(SnapshotError):
            snapshot.load(file)


def test_a_writer_is_not_free_right_after_a_write(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "tenants.jsonl")
    assert writer.is_free()
    writer.offer(FULL)
    writer.close()
    assert not writer.is_free()
    assert writer.complaint == ""


def test_a_writer_waits_with_what_is_urgent_only_as_long_as_its_writes_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(snapshot.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(snapshot, "save", lambda *_: now.__setitem__(0, now[0] + 0.05))
    writer = Writer(tmp_path / "tenants.jsonl")
    writer.offer(FULL)
    writer.close()
    for passed, is_free in ((0.4, (False, False)), (0.2, (False, True)), (0.5, (True, True))):
        now[0] += passed
        assert (writer.is_free(), writer.is_free(urgent=True)) == is_free
