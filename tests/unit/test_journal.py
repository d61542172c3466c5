"""The journal: what was written is there again, whenever the end came, and the file does not grow for ever."""

from pathlib import Path

import pytest

from sipward.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table" / "flows"


def read(path: Path) -> dict[str, str]:
    journal = Journal(path)
    journal.read()
    return journal.entries


def test_what_was_added_is_read_again(path: Path) -> None:
    journal = Journal(path)
    journal.add({"a": "1 x", "b": "2 y"})
    journal.add({"a": "3 z"})
    journal.add({"b": "", "c": "4"})
    assert read(path) == journal.entries == {"a": "3 z", "c": "4"}
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_no_file_is_an_empty_one(path: Path) -> None:
    assert read(path) == {}


def test_a_line_that_was_cut_short_is_passed_over(path: Path) -> None:
    journal = Journal(path)
    journal.add({"a": "1", "b": "2"})
    path.write_bytes(path.read_bytes()[:-1])
    assert read(path) == {"a": "1"}


def test_a_file_of_old_lines_is_written_anew(path: Path) -> None:
    journal = Journal(path)
    for number in range(3000):
        journal.add({"a": str(number)})
    assert len(path.read_text().splitlines()) <= 1003
    assert read(path) == {"a": "2999"}


def test_what_cannot_be_written_is_kept_in_memory(path: Path) -> None:
    path.parent.parent.joinpath("table").write_text("no directory")
    journal = Journal(path)
    with pytest.raises(OSError, match="table"):
        journal.add({"a": "1"})
    assert journal.entries == {"a": "1"}
