"""The code as the linters, the type checker and the shell's checker see it."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        [sys.executable, "-m", "mypy"],
        ["shellcheck", "sipward", ".ci/run"],
    ],
    ids=["ruff-check", "ruff-format", "mypy", "shellcheck"],
)
def test_the_checker_has_nothing_to_say(command: list[str]) -> None:
    checked = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
