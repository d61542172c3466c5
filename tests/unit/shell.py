"""Runs commands in the test's own process, with a configuration."""

from pathlib import Path

from typer.testing import CliRunner, Result

from sipward.cli import app

INSTANCE = "sip:10.5.4.1:5080"
ACME = ("route", "add", "acme", "--domain", "ACME.example.org", "--instance", INSTANCE)


class Shell:
    """A configuration, and the commands run with it."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(self.config)])

    def ok(self, *words: str) -> str:
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def fails(self, code: int, *words: str) -> str:
        """The one line said on standard error."""
        result = self.run(*words)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        return line
