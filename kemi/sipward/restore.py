"""A backup onto this machine: all is checked and asked before anything is written, and nothing here is lost.

What does not fit the machine (an interface or address that it has not) is asked. What is here already and says
something else stays, and is named, unless it may be replaced. Keys are only ever added.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.exceptions import ParseError

from sipward import addresses, backup, configuration, interfaces, node
from sipward.backup import Backup, BackupError
from sipward.hosts import parse_address
from sipward.problems import show
from sipward.records import Kind, RecordError
from sipward.reload import Outcome
from sipward.routes import parse
from sipward.rules import Rules
from sipward.settings import Settings, SettingsError
from sipward.store import Store, Value, taken_by

type Ask = Callable[[str, str, str], str]
"""Ask a person: a key, why its value does not fit, and what to offer instead."""

_WHERE = ("network.interface", "network.address")
"""Two ways of saying one thing."""
_OF_THE_MACHINE = "state_dir"
"""Where a node keeps its files is each machine's own affair."""
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written: nothing stands against it."""

    settings: Settings
    text: str
    """The configuration."""
    keys: tuple[str, ...]
    values: dict[Kind, dict[str, str]]
    """Those that are not here already."""
    warnings: list[str] = field(default_factory=list)


def settle(
    saved: Backup, path: Path, answers: Mapping[str, str], ask: Ask | None, replace: bool
) -> tuple[str, Settings]:
    """The configuration that this machine will have, with what it means. Raises BackupError, SettingsError."""
    document = _merged(saved, path, answers, replace)
    while True:
        text = configuration.dumps(document)
        misfits = _misfits(document)
        if not misfits:
            return text, configuration.check(path.resolve(), text)
        if ask is None:
            raise BackupError(_unanswered(misfits))
        here = _flat(_existing(path))
        for key, why in misfits.items():
            answer = ask(key, why, _as_text(here.get(key, "")))
            # Where there is no such interface, an address says it as well.
            _set(document, _WHERE[1] if key in _WHERE and _listed_addresses(answer) else key, answer)


def plan(saved: Backup, text: str, node_settings: Settings, store: Store, replace: bool) -> Plan:
    """Compare a backup with what is here. Raises BackupError, a line for each thing that stands against it."""
    rules = Rules.of(node_settings, addresses.resolve(node_settings))
    found = Plan(node_settings, text, _keys(saved, node_settings), {kind: {} for kind in Kind})
    problems: list[str] = []
    for kind in Kind:
        here = store.list(kind)
        fresh = {name: raw for name, raw in saved.values[kind].items() if not _is_same(here.get(name), raw)}
        problems += [f"{kind} {name} is here with another value" for name in fresh if name in here and not replace]
        problems += _refusals(kind, fresh, rules, found.warnings)
        problems += _claimed(kind, fresh, here)
        found.values[kind].update(fresh)
    if problems:
        raise BackupError(_listed(problems))
    return found


def carry_out(found: Plan, path: Path, store: Store) -> Outcome | None:
    """Write it: keys and configuration first, for the running node to take them, then the values."""
    if found.keys != backup.read_keys(found.settings):
        configuration.write(backup.keys_file(found.settings), "\n".join(found.keys) + "\n")
    outcome = configuration.put(path, found.text)
    for kind in Kind:
        store.fill(kind, found.values[kind], replace=True)
    return outcome


# --- the configuration ------------------------------------------------------------------------------------------------


def _merged(saved: Backup, path: Path, answers: Mapping[str, str], replace: bool) -> TOMLDocument:
    """What is here with what the backup adds; a file that is not here is the backup's, comments and all."""
    wanted = configuration.parse(saved.configuration, path)
    document = _existing(path)
    if document is None:
        document = wanted
    else:
        here, there = _flat(document), _flat(wanted)
        there.pop(_OF_THE_MACHINE, None)
        misfits = _misfits(wanted)
        if not replace and (against := list(_differences(here, there, {*answers, *misfits}))):
            raise BackupError(_listed(against))
        for key, value in there.items():
            if here.get(key) != value:
                _set(document, key, value)
    for key, value in answers.items():
        _set(document, key, _typed(value))
    return document


def _differences(here: Mapping[str, Any], there: Mapping[str, Any], settled: Iterable[str]) -> Iterator[str]:
    """What the configuration here says otherwise than the backup, but for what is answered or has to be."""
    is_settled = set(settled)
    if is_settled & set(_WHERE):
        is_settled |= set(_WHERE)
    for key, value in there.items():
        twin = next((other for other in _WHERE if key in _WHERE and other != key and other in here), key)
        if key not in is_settled and twin in here and (twin != key or here[key] != value):
            yield f"{twin} = {show(here[twin])} is here, and {key} = {show(value)} in the backup"


def _misfits(document: TOMLDocument) -> dict[str, str]:
    """Keys whose values this machine does not have, with the reason."""
    network = _flat(document)
    found = {}
    links = {str(link["ifname"]) for link in interfaces.links()}
    name = network.get("network.interface")
    if name and name not in links:
        found["network.interface"] = f"{show(name)}: there is no such interface; there are {', '.join(sorted(links))}"
    for key in ("network.address", "network.service_address"):
        if strange := [text for text in _listed_addresses(network.get(key, ())) if not node.has_address(text)]:
            found[key] = f"{', '.join(strange)}: is not an address of this machine"
    return found


def _listed_addresses(value: Any) -> list[str]:
    """The addresses that a value names; what is none is refused by the settings, not here."""
    texts = value.split(",") if isinstance(value, str) else value
    found = []
    for text in texts:
        try:
            found.append(str(parse_address(str(text).strip())))
        except ValueError:
            continue
    return found


def _unanswered(misfits: Mapping[str, str]) -> str:
    lines = [f"{key}: {why}: answer with --set {key}=VALUE" for key, why in misfits.items()]
    return "\n".join(["this machine is another one than the backup's, and nothing was written:", *lines])


def _existing(path: Path) -> TOMLDocument | None:
    try:
        return configuration.parse(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None


def _flat(document: TOMLDocument | None) -> dict[str, Any]:
    """The keys with their tables' names before them."""
    found: dict[str, Any] = {}
    for key, value in (document.unwrap() if document else {}).items():
        if isinstance(value, dict):
            found |= {f"{key}.{below}": item for below, item in value.items()}
        else:
            found[key] = value
    return found


def _set(document: TOMLDocument, key: str, value: Any) -> None:
    name, dot, below = key.partition(".")
    if not dot:
        document[key] = value
        return
    table = configuration.table(document, name)
    for other in _WHERE:
        if key in _WHERE and other != key:
            table.pop(other.partition(".")[2], None)
    table[below] = value


def _typed(text: str) -> Any:
    """An answer as TOML, or as plain text when it is none."""
    try:
        return tomlkit.parse(f"value = {text}")["value"]
    except ParseError:
        return text


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


# --- keys and values --------------------------------------------------------------------------------------------------


def _keys(saved: Backup, node_settings: Settings) -> tuple[str, ...]:
    """The keys here and those of the backup: all of them open seals, the first makes them."""
    here = backup.read_keys(node_settings)
    return tuple(dict.fromkeys((*here, *saved.keys)))


def _refusals(kind: Kind, values: Mapping[str, str], rules: Rules, warnings: list[str]) -> Iterator[str]:
    """What this machine's settings refuse. What is bad in itself was not used before either, and comes along."""
    for name, raw in values.items():
        try:
            parse(kind, name, raw, None)
        except RecordError as error:
            warnings.append(f"{kind} {name} is not used: {'; '.join(str(error).splitlines())}")
            continue
        try:
            parse(kind, name, raw, rules)
        except RecordError as error:
            yield f"{kind} {name}: {'; '.join(str(error).splitlines())}"


def _claimed(kind: Kind, values: Mapping[str, str], here: Mapping[str, Value]) -> Iterator[str]:
    """What only one may have and another has here."""
    owners = {claim: name for name, raw in here.items() for claim in _claims(kind, name, raw)}
    for name, raw in values.items():
        for claim in _claims(kind, name, raw):
            owner = owners.get(claim, name)
            if owner != name and owner not in values:
                yield f"{kind} {name}: {taken_by(kind, claim, owner)} here"


def _claims(kind: Kind, name: str, raw: Value | str) -> tuple[str, ...]:
    try:
        return parse(kind, name, raw, None).claims if isinstance(raw, str | bytes) else ()
    except RecordError:
        return ()


def _is_same(here: Value | None, raw: str) -> bool:
    """Whether two texts say the same."""
    if not isinstance(here, bytes):
        return False
    try:
        return bool(here == raw.encode() or json.loads(here) == json.loads(raw))
    except (ValueError, RecursionError):
        return False


def _listed(lines: list[str]) -> str:
    shown = lines[:_SHOWN]
    if more := len(lines) - len(shown):
        shown.append(f"and {more} more")
    return "\n".join(
        ["nothing was written; --replace takes the backup's word for what is here with another one:", *shown]
    )
