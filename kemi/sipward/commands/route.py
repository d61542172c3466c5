"""`sipward route`: tenants, and what concerns all that is in Redis."""

import json
from typing import Annotated

import typer

from sipward import instance_words, settings, snapshot, tenants
from sipward.commands import values
from sipward.commands.options import (
    DEFAULT,
    AsJson,
    CallRate,
    Calls,
    Config,
    Instances,
    RegistrationRate,
    Replace,
    limits,
)
from sipward.commands.terminal import print_values
from sipward.records import Kind, Record, check_name
from sipward.snapshot import SnapshotError
from sipward.tenants import TenantRecord

app = typer.Typer(no_args_is_help=True, help="Tenants: which domain leads to which PBX instances.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant: a-z, 0-9, dot, hyphen, underscore.")]


@app.command()
def add(
    name: Name,
    domain: Annotated[list[str], typer.Option("--domain", help="A domain of the tenant; may be repeated.")],
    instance: Instances,
    redirect: Annotated[str, typer.Option(help="What a 3xx of an instance becomes: pass or refuse.")] = "pass",
    policy: Annotated[
        str, typer.Option(help="How calls find an instance: failover (by priority) or balance (by weight alone).")
    ] = "failover",
    identity: Annotated[
        str, typer.Option(help="What instances assert of the caller, towards a trunk: pass or remove.")
    ] = "pass",
    ice: Annotated[str, typer.Option(help="What becomes of ICE that a phone offers: answer or remove.")] = "remove",
    codec: Annotated[
        list[str] | None,
        typer.Option("--codec", metavar="NAME", help="A codec that offers begin with: PCMA, opus; may be repeated."),
    ] = None,
    only_codecs: Annotated[bool, typer.Option("--only-codecs", help="Offers have no other codecs.")] = False,
    transcode: Annotated[
        bool, typer.Option("--transcode", help="Offers have all these codecs; media is transcoded where it must be.")
    ] = False,
    calls: Calls = 0,
    call_rate: CallRate = 0,
    registration_rate: RegistrationRate = 0,
    replace: Replace = False,
    config: Config = DEFAULT,
) -> None:
    """Add a tenant."""
    node = settings.load(config)
    value = {
        "domains": domain,
        "instances": [instance_words.read(text) for text in instance],
        "redirect": redirect,
        "policy": policy,
        "identity": identity,
        "ice": ice,
        "codecs": {"names": codec or [], "only": only_codecs, "transcode": transcode},
        "limits": limits(calls, call_rate, registration_rate),
    }
    record = tenants.parse(name, json.dumps(value), values.rules_of(node))
    values.add(node, record, replace)
    typer.echo(f"tenant {name}: {', '.join(record.domains)} -> {', '.join(i.uri for i in record.value.instances)}")


@app.command()
def show(name: Name, config: Config = DEFAULT) -> None:
    """Print a tenant's value as it stands in Redis."""
    values.show(settings.load(config), Kind.TENANT, check_name(name))


@app.command("list")
def list_(config: Config = DEFAULT, as_json: AsJson = False) -> None:
    """List all tenants in Redis, the ones that are not used too."""
    node = settings.load(config)
    with values.opened(node) as store:
        found = values.Usage(node, store, Kind.TENANT).of(store.list(Kind.TENANT))
    if as_json:
        typer.echo(json.dumps([values.as_json(name, record) for name, record in found.items()], indent=2))
    else:
        print_values(["tenant", "domains", "instances", "3xx"], {name: _cells(one) for name, one in found.items()})


@app.command()
def rm(name: Name, config: Config = DEFAULT) -> None:
    """Remove a tenant; its next call is refused."""
    values.remove(settings.load(config), Kind.TENANT, check_name(name))


@app.command()
def accept(config: Config = DEFAULT) -> None:
    """Take Redis as it is: tenants, trunks and numbers withheld because most of them vanished at once are removed."""
    with values.opened(settings.load(config)) as store:
        store.accept()
    typer.echo(
        "every node on this Redis now takes its tenants, trunks and numbers as they are; "
        "`sipward status` shows the outcome"
    )


@app.command()
def restore(config: Config = DEFAULT) -> None:
    """Write the node's last good tables of tenants, trunks and numbers back into Redis; what is there already stays."""
    node = settings.load(config)
    tables = {kind: last for kind in Kind if (last := snapshot.load(node.table_file(kind)))}
    if not tables:
        raise SnapshotError(f"{node.table_file(Kind.TENANT).parent}: there is no last good table")
    with values.opened(node) as store:
        for kind, last in tables.items():
            rows = {row.name: row.raw for row in last.rows}
            if rows or kind is Kind.TENANT:
                written = store.fill(kind, rows)
                typer.echo(f"{written} of {len(rows)} {kind}s were missing in Redis and are written back")


def _cells(record: Record | str) -> list[str] | str:
    if not isinstance(record, TenantRecord):
        return str(record)
    shown = "\n".join(i.uri + (" (drained)" if i.drain else "") for i in record.value.instances)
    return ["\n".join(record.domains), shown, record.value.redirect]
