"""A node in one file: its configuration, its keys, and all values in Redis as they stand, good or bad."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipward.records import Kind
from sipward.settings import Settings, SettingsError
from sipward.store import Store

_VERSION = 1
_KEY_DIGITS = 32
"""At least that many hexadecimal digits: what `seal.Sealer` takes."""


class BackupError(Exception):
    """A backup cannot be used here; one line a problem."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a file holds."""

    configuration: str
    """The TOML text, with its comments."""
    keys: tuple[str, ...]
    """What seals were made with, in hexadecimal, the newest first: with them registered phones stay reachable."""
    values: Mapping[Kind, Mapping[str, str]]
    """The JSON texts in Redis by kind and name."""

    def to_json(self) -> str:
        """The file's text."""
        content = {
            "sipward": _VERSION,
            "configuration": self.configuration,
            "keys": self.keys,
            "values": {str(kind): self.values.get(kind, {}) for kind in Kind},
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def make(path: Path, node: Settings, store: Store) -> tuple[Backup, list[str]]:
    """Read the node whose configuration is at `path`; also the keys in Redis whose values are no texts."""
    found: dict[Kind, dict[str, str]] = {kind: {} for kind in Kind}
    left_out: list[str] = []
    for kind in Kind:
        for name, value in store.list(kind).items():
            try:
                found[kind][name] = value.decode() if isinstance(value, bytes) else _refuse()
            except ValueError:
                left_out.append(f"{kind} {name}")
    return Backup(path.read_text(encoding="utf-8"), read_keys(node), found), left_out


def read(path: Path) -> Backup:
    """Read a file. Raises BackupError."""
    try:
        content = json.loads(path.read_bytes())
        if content["sipward"] != _VERSION:
            raise BackupError(f"{path}: is a backup of another version")
        values = {kind: _texts(content["values"][kind]) for kind in Kind}
        return Backup(_text(content["configuration"]), tuple(map(_key, content["keys"])), values)
    except OSError as error:
        raise BackupError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BackupError(f"{path}: is not a whole backup of Sipward's") from None


def keys_file(node: Settings) -> Path:
    """Where a node has its keys."""
    return node.state_dir / "keys"


def read_keys(node: Settings) -> tuple[str, ...]:
    """A node's keys; none when it never ran."""
    try:
        return tuple(keys_file(node).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{keys_file(node)}: cannot be read: {error}") from None


def _refuse() -> str:
    raise ValueError("no text")


def _texts(values: Any) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _key(value: Any) -> str:
    if len(bytes.fromhex(_text(value))) * 2 < _KEY_DIGITS:
        raise ValueError("too short")
    return str(value)
