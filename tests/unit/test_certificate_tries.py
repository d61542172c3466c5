"""When a certificate that could not be had is asked for again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sipward.certificate_tries import Tries, pause

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST, NOTHING, HOUR = timedelta(minutes=10), timedelta(), timedelta(hours=1)
NAME, CA = "sip.example.org", "ACME https://ca.example/dir"


@pytest.mark.parametrize(
    ("failed", "wanted", "found"),
    [
        (1, NOTHING, FIRST),
        (2, NOTHING, 2 * FIRST),
        (5, NOTHING, 16 * FIRST),
        (9, NOTHING, timedelta(days=1)),
        (10**6, NOTHING, timedelta(days=1)),
        (1, HOUR, HOUR),
        (5, HOUR, 16 * FIRST),
        (10**6, timedelta(days=7), timedelta(days=7)),
    ],
)
def test_each_pause_is_twice_the_last_and_as_long_as_the_ca_wants(
    failed: int, wanted: timedelta, found: timedelta
) -> None:
    assert pause(failed, FIRST, wanted) == found


def test_what_failed_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "tries.json"
    tries = Tries(path)
    assert tries.is_time(NAME, CA, NOW)
    tries.fail(NAME, CA, "busy", NOW, FIRST, NOTHING)
    tries.fail(NAME, CA, "busy", NOW, FIRST, NOTHING)
    again = Tries(path)
    found = again.get(NAME, CA)
    assert found
    assert (found.failed, found.why, found.after) == (2, "busy", "2026-03-01T12:20:00+00:00")
    assert not again.is_time(NAME, CA, NOW + timedelta(minutes=19))
    assert again.is_time(NAME, CA, NOW + timedelta(minutes=20))


def test_another_ca_is_asked_at_once(tmp_path: Path) -> None:
    tries = Tries(tmp_path / "tries.json")
    tries.fail(NAME, CA, "busy", NOW, FIRST, NOTHING)
    assert tries.is_time(NAME, "ACME https://other.example/dir", NOW)
    tries.fail(NAME, "ACME https://other.example/dir", "busy", NOW, FIRST, NOTHING)
    found = tries.get(NAME, "ACME https://other.example/dir")
    assert found
    assert found.failed == 1


def test_what_was_had_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "tries.json"
    tries = Tries(path)
    tries.fail(NAME, CA, "busy", NOW, FIRST, NOTHING)
    tries.forget(NAME)
    tries.forget("never.example.org")
    assert Tries(path).get(NAME, CA) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"why": "x"}}'])
def test_a_file_that_cannot_be_read_counts_for_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tries.json"
    path.write_text(text)
    assert Tries(path).is_time("a", CA, NOW)
