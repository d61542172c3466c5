"""The actions that NethServer's PBX modules and interface call by name: JSON in, JSON out, an exit code.

A refused input comes back as `[{"field", "parameter", "value", "error"}]`, as does what could not be done.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from sipward import action_inputs, action_node, action_routes, addresses, settings
from sipward.action_inputs import ROOT, Input, InputError, Problem, with_value
from sipward.action_node import BAD_INPUT, NOT_DONE
from sipward.action_routes import Value
from sipward.certificates import CertificateError
from sipward.records import Kind, RecordError
from sipward.reload import Outcome
from sipward.routes import parse
from sipward.rules import Rules
from sipward.settings import Settings, SettingsError
from sipward.store import ConflictError, Store, StoreError

type OpenStore = Callable[[Settings], AbstractContextManager[Store]]

_LINE = re.compile(r'([\w.\[\]]+)(?: = (?:"(?:[^"\\]|\\.)*"?(?:\.\.\.)?|[^"][^:]*))?: (.*)')


class Answer(NamedTuple):
    """How an action ends: its exit code and what it prints, None for nothing."""

    code: int
    output: object = None
    notes: tuple[str, ...] = ()
    """For people."""


class _Call(NamedTuple):
    """What an action is called with."""

    input: Any
    config: Path
    open_store: OpenStore


class Action(NamedTuple):
    """An action: what it takes, and what it does."""

    form: type[Input]
    do: Callable[[_Call], Answer]


def run(name: str, text: str, config: Path, open_store: OpenStore) -> Answer:
    """Do an action; `text` is its input, `config` the node's configuration."""
    action = ACTIONS[name]
    checked = Input()
    try:
        checked = action_inputs.validated(action.form, _read(text, action.form))
        return action.do(_Call(checked, config, open_store))
    except InputError as error:
        return Answer(error.code, [with_value(problem, checked)._asdict() for problem in error.problems])
    except (SettingsError, StoreError, CertificateError) as error:
        lines = str(error).splitlines()
        return Answer(NOT_DONE, [Problem.at(ROOT, None, line)._asdict() for line in lines], tuple(lines))


def _read(text: str, form: type[Input]) -> Any:
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InputError([Problem.at(ROOT, text[:80], f"not JSON: {error}")]) from None
    return {} if value is None and form is action_inputs.Nothing else value


class _Values:
    """The values in Redis, for `action_routes`."""

    def __init__(self, store: Store, node: Settings) -> None:
        self._store = store
        self._rules = Rules.of(node, addresses.resolve(node))
        self.plan = self._rules.plan

    def get(self, kind: Kind, name: str) -> Value | None:
        return _object(self._store.get(kind, name))

    def all(self, kind: Kind) -> Mapping[str, Value]:
        found = {name: _object(raw) for name, raw in self._store.list(kind).items()}
        return {name: value for name, value in found.items() if value is not None}

    def put(self, kind: Kind, name: str, value: Value) -> None:
        try:
            self._store.put(parse(kind, name, json.dumps(value), self._rules))
        except (RecordError, ConflictError) as error:
            raise InputError([_problem(kind, line) for line in str(error).splitlines()], BAD_INPUT) from None

    def remove(self, kind: Kind, name: str) -> None:
        self._store.remove(kind, name)


def _object(raw: object) -> Value | None:
    """A value that is an object; what else a hand may have written is nobody's route."""
    try:
        value = json.loads(raw) if isinstance(raw, bytes) else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _problem(kind: Kind, line: str) -> Problem:
    """A refusal of a value, in the words of the action's input."""
    match = _LINE.fullmatch(line)
    key, error = (match[1], match[2]) if match else (ROOT, line)
    if kind is Kind.TENANT:
        key = re.sub(r"^instances\[(\d+)\]", r"address.\1", key).replace("domains", "domain")
        key = re.sub(r"^instances$", "address", key)
    else:
        key = re.sub(r"^instances(\[0\])?", "destination", key)
    return Problem.at(key, None, error)


# --- the actions ------------------------------------------------------------------------------------------------------


def _on_values(do: Callable[..., object], *, silent: bool = False) -> Callable[[_Call], Answer]:
    """An action on the routes; a silent one prints nothing."""

    def act(call: _Call) -> Answer:
        node = settings.load(call.config)
        with call.open_store(node) as store:
            values = _Values(store, node)
            arguments = () if isinstance(call.input, action_inputs.Nothing) else (call.input,)
            answer = do(values, *arguments)
        return Answer(0, None if silent else answer)

    return act


def _configure(call: _Call) -> Answer:
    return Answer(0, None, _told(action_node.configure(call.input, call.config)))


def _told(outcome: Outcome | None) -> tuple[str, ...]:
    """What a change means for the calls that are up."""
    if outcome is None:
        return ("the node does not run: the configuration counts from its start on",)
    if not outcome.restarted:
        return ("the running node has taken it; nothing had to be started again",)
    notes = [f"the running node has taken it; started again: {', '.join(outcome.restarted)}"]
    if "kamailio" in outcome.restarted:
        notes.append("kamailio: calls that are up go on; what was being set up at that moment is tried again")
    if "rtpengine" in outcome.restarted:
        notes.append("rtpengine: calls that are up have no audio any more until they offer media again")
    return tuple(notes)


ACTIONS = {
    "add-route": Action(action_inputs.AddRoute, _on_values(action_routes.add_route, silent=True)),
    "get-route": Action(action_inputs.OneRoute, _on_values(action_routes.get_route)),
    "remove-route": Action(action_inputs.OneRoute, _on_values(action_routes.remove_route, silent=True)),
    "list-routes": Action(action_inputs.Nothing, _on_values(action_routes.list_routes)),
    "add-trunk": Action(action_inputs.AddTrunk, _on_values(action_routes.add_trunk, silent=True)),
    "get-trunk": Action(action_inputs.OneTrunk, _on_values(action_routes.get_trunk)),
    "remove-trunk": Action(action_inputs.OneTrunk, _on_values(action_routes.remove_trunk, silent=True)),
    "list-trunks": Action(action_inputs.Nothing, _on_values(action_routes.list_trunks)),
    "configure-module": Action(action_inputs.ConfigureModule, _configure),
    "certificate-changed": Action(
        action_inputs.CertificateChanged,
        lambda call: Answer(0, None, action_node.certificate_changed(call.input, call.config)),
    ),
    "get-configuration": Action(
        action_inputs.Nothing, lambda call: Answer(0, action_node.get_configuration(call.config))
    ),
    "get-available-interfaces": Action(
        action_inputs.AvailableInterfaces, lambda call: Answer(0, action_node.available_interfaces(call.input))
    ),
}
"""By name."""
