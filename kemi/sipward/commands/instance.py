"""`sipward instance`: the PBXs of all tenants, how they do, and taking one out of service without losing a call."""

import json
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import typer
from pydantic_core import PydanticCustomError

from sipward import render, rpc, settings
from sipward.commands import values
from sipward.commands.options import DEFAULT, AsJson, Config
from sipward.commands.terminal import fail, print_table
from sipward.drain import with_drain
from sipward.live import HEALTH
from sipward.model import Endpoint
from sipward.number_rules import NumberRecord
from sipward.problems import show
from sipward.records import Kind, RecordError, check_name
from sipward.settings import Settings
from sipward.store import Store, Value
from sipward.tenants import InstanceValue, TenantRecord, parse_uri

app = typer.Typer(no_args_is_help=True, help="Instances: how they do, and taking one out of service.")

Uri = Annotated[str, typer.Argument(metavar="URI", help="sip:10.5.4.1:5080")]
Of = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")]


class _Owner(NamedTuple):
    """A value that has instances, as it stands in Redis."""

    kind: Kind
    name: str
    text: bytes
    instances: tuple[InstanceValue, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@app.command("list")
def list_(config: Config = DEFAULT, as_json: AsJson = False, tenant: Of = "") -> None:
    """List the instances of tenants and numbers, with what the running node knows of their health."""
    node = settings.load(config)
    health = _Health(node)
    with values.opened(node) as store:
        found = [(owner, one) for owner in _owners(store, tenant) for one in owner.instances]
    if as_json:
        typer.echo(json.dumps([_as_json(owner, one, health) for owner, one in found], indent=2))
    else:
        rows = [[str(owner), *_cells(one, health)] for owner, one in found]
        print_table(["of", "instance", "weight", "priority", "drained", "health"], rows)


@app.command()
def drain(uri: Uri, tenant: Of = "", config: Config = DEFAULT) -> None:
    """Give an instance no new calls and registrations; those that run go on."""
    _set(settings.load(config), uri, tenant, True)


@app.command()
def undrain(uri: Uri, tenant: Of = "", config: Config = DEFAULT) -> None:
    """Give an instance new calls again."""
    _set(settings.load(config), uri, tenant, False)


def _set(node: Settings, uri: str, tenant: str, is_drained: bool) -> None:
    end = _endpoint(uri)
    with values.opened(node) as store:
        having = [owner for owner in _owners(store, tenant) if any(parse_uri(i.uri) == end for i in owner.instances)]
        if not having:
            fail(f"{f'tenant {tenant} has no' if tenant else 'no tenant or number has an'} instance {uri}", 1)
        for owner in having:
            new = with_drain(owner.text.decode(), end, is_drained)
            if not store.swap(owner.kind, owner.name, owner.text, new):
                fail(f"{owner}: its value changed meanwhile, and was left as it is now: try again", 1)
            typer.echo(f"{owner}: {uri} {'gets no new calls' if is_drained else 'gets calls'}")


def _endpoint(uri: str) -> Endpoint:
    try:
        return parse_uri(uri)
    except PydanticCustomError as error:
        raise RecordError(f"uri = {show(uri)}: {error}") from None


def _owners(store: Store, tenant: str) -> Iterator[_Owner]:
    """The good values that have instances: of one tenant, or of all and of numbers."""
    for kind, some in _stored(store, tenant):
        for name, value in some.items():
            record = values.checked(kind, name, value, None)
            if isinstance(value, bytes) and isinstance(record, TenantRecord | NumberRecord) and record.value.instances:
                yield _Owner(kind, name, value, record.value.instances)


def _stored(store: Store, tenant: str) -> Iterator[tuple[Kind, dict[str, Value]]]:
    if tenant:
        yield Kind.TENANT, store.some(Kind.TENANT, [check_name(tenant)])
        return
    for kind in (Kind.TENANT, Kind.NUMBER):
        for some in store.each(kind):
            yield kind, some


class _Health:
    """What the running node knows of instances."""

    def __init__(self, node: Settings) -> None:
        self._get = rpc.memory(render.run_dir(node))
        self._known: dict[Endpoint, str | None] = {}

    def of(self, uri: str) -> tuple[str, str]:
        """`up`, `down` or, when no node runs, `unknown`; and why it is down."""
        if self._get is None:
            return "unknown", ""
        end = parse_uri(uri)
        if end not in self._known:
            self._known[end] = self._get(HEALTH, str(end))
        why = self._known[end]
        return ("up", "") if why is None else ("down", why)


def _as_json(owner: _Owner, one: InstanceValue, health: _Health) -> dict[str, object]:
    state, why = health.of(one.uri)
    return {"kind": owner.kind, "name": owner.name, **one.model_dump(), "health": state, "why": why}


def _cells(one: InstanceValue, health: _Health) -> list[str]:
    state, why = health.of(one.uri)
    shown = f"{state}: {why}" if why else state
    return [one.uri, str(one.weight), str(one.priority), "yes" if one.drain else "", shown]
