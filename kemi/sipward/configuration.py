"""The node's TOML file as a program changes it: what people wrote stays, comments and order too.

A change is checked whole before it is written, taken by the node that runs, and taken back when that refuses it.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.exceptions import ParseError
from tomlkit.items import AbstractTable

from sipward import addresses, node, reload, settings
from sipward.reload import Outcome, ReloadError
from sipward.settings import Settings, SettingsError

_MODE = 0o600
"""Of a file that was not there: it may hold Redis' password."""


def change(
    path: Path, edit: Callable[[TOMLDocument], None], prepare: Callable[[Settings], None] = lambda _: None
) -> Outcome | None:
    """Edit the file, which need not exist yet, and have the node take it; None when no node runs.

    `prepare` gets the new configuration before it is written. Raises SettingsError when the result is no configuration
    for this machine, ReloadError when the running node refuses it; the file is then as it was. What `edit` and
    `prepare` raise passes.
    """

    def edited(before: str) -> str:
        document = parse(before, path)
        edit(document)
        return dumps(document)

    return _replace(path.resolve(), edited, prepare)


def put(path: Path, text: str) -> Outcome | None:
    """Write the whole file, as `change` does."""
    return _replace(path.resolve(), lambda _: text, lambda _: None)


def _replace(path: Path, make: Callable[[str], str], prepare: Callable[[Settings], None]) -> Outcome | None:
    with _alone(path):
        before = _text(path)
        text = make(before or "")
        checked = check(path, text)
        prepare(checked)
        write(path, text)
        try:
            return _taken(checked)
        except (ReloadError, OSError):
            if before is None:
                path.unlink()
            else:
                write(path, before)
            raise


def parse(text: str, path: Path) -> TOMLDocument:
    """Read TOML for a change. Raises SettingsError."""
    try:
        return tomlkit.parse(text)
    except ParseError as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None


def dumps(document: TOMLDocument) -> str:
    """Write TOML; with an end of line behind a table that was added."""
    return tomlkit.dumps(document).rstrip("\n") + "\n"


def table(document: TOMLDocument, name: str) -> AbstractTable:
    """The table of that name, made at the end if there is none."""
    if name not in document:
        document[name] = tomlkit.table()
    found = document[name]
    if not isinstance(found, AbstractTable):
        raise SettingsError(f"{name}: must be a table of fields")
    return found


def check(path: Path, text: str) -> Settings:
    """See whether this would be the configuration of this machine, before it stands at `path`. Raises SettingsError."""
    with NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as trial:
        trial.write(text)
        trial.flush()
        try:
            found = settings.load(Path(trial.name))
        except SettingsError as error:
            raise SettingsError(str(error).replace(trial.name, str(path))) from None
    node.check_addresses(found, addresses.resolve(found))
    return found


def write(path: Path, text: str) -> None:
    """Replace a file in one step, with the mode and owner it has. Raises SettingsError."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with open(descriptor, "w", encoding="utf-8") as file:
            with suppress(FileNotFoundError):
                was = path.stat()
                os.fchmod(descriptor, was.st_mode & 0o7777)
                os.fchown(descriptor, was.st_uid, was.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        new.unlink(missing_ok=True)


def _taken(checked: Settings) -> Outcome | None:
    outcome = reload.request(checked)
    if outcome and outcome.refused:
        raise ReloadError(f"the running node refuses it: {outcome.refused}")
    return outcome


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One change at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
