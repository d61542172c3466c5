"""What `sipward status` says of certificates."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sipward.certificate_report import Entry, Report, file, read, state

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def entry(days: float, problem: str = "") -> Entry:
    return Entry("own CA", "CN=CA", (NOW + timedelta(days=days)).isoformat(), problem)


def test_it_says_when_each_name_expires() -> None:
    found = state(Report({"a.example": entry(90), "b.example": entry(60.5)}), NOW)
    assert (found["state"], found["detail"]) == ("ok", "2 names, the first expires in 60 days")
    assert found["names"]["b.example"] == {
        "expires": "2026-05-01T00:00:00+00:00",
        "days_left": 60,
        "from": "own CA",
        "problem": "",
    }


@pytest.mark.parametrize(
    ("days", "problem", "said"),
    [
        (15, "", ""),
        (14.9, "", "expires in 14 days"),
        (0.5, "", "expires in 0 days"),
        (-0.5, "", "has expired: 2026-03-01T00:00:00+00:00"),
        (90, "refused: the key is not the certificate's", "refused: the key is not the certificate's"),
        (3, "refused: no", "expires in 3 days; refused: no"),
    ],
)
def test_it_warns_from_two_weeks_on_and_says_what_is_wrong(days: float, problem: str, said: str) -> None:
    found = state(Report({"a.example": entry(days, problem)}), NOW)
    assert found["names"]["a.example"]["problem"] == said
    assert found["state"] == ("degraded" if said else "ok")
    assert (f"a.example: {said}" == found["detail"]) is bool(said)


def test_the_first_few_problems_are_named() -> None:
    found = state(Report({f"{n}.example": entry(90, "refused") for n in range(5)}, "Kamailio refuses"), NOW)
    assert found["detail"] == "Kamailio refuses; 0.example: refused; 1.example: refused; 3 more"


def test_a_name_without_a_certificate_has_no_expiry() -> None:
    found = state(Report({"a.example": Entry("", "", "", "waits")}), NOW)
    assert found["names"]["a.example"]["expires"] == ""
    assert (found["state"], found["detail"]) == ("degraded", "a.example: waits")


def test_what_was_said_is_read_and_nothing_said_yet_is_down(tmp_path: Path) -> None:
    assert state(read(tmp_path))["state"] == "down"
    report = Report({"a.example": entry(90)}, "a problem")
    file(tmp_path).write_text(report.to_json())
    assert read(tmp_path) == report
