"""The commands. Each says what it did, or in one line why not: exit 2 for bad input, 1 when it could not be done."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from sipward import addresses, settings, snapshot
from sipward.backup import BackupError
from sipward.problems import show
from sipward.records import Kind, RecordError, check_name
from sipward.reload import ReloadError
from sipward.routes import Routes
from sipward.rules import Rules
from sipward.settings import Settings, SettingsError
from sipward.snapshot import SnapshotError
from sipward.store import ConflictError, Store, StoreError, UnreachableError, Value, redis_cli
from sipward.supervisor import StartError
from sipward.tenants import TenantRecord, parse

_CHECKOUT = Path(__file__).resolve().parents[2]
_BAD_INPUT = (SettingsError, RecordError, ConflictError, BackupError)
_NOT_DONE = (StoreError, SnapshotError, ReloadError, StartError)


class _Commands(TyperGroup):
    """Turns the errors we expect into their line and exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _BAD_INPUT as error:
            _fail(str(error), 2)
        except _NOT_DONE as error:
            _fail(str(error), 1)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One front door for many PBXs.",
)
route = typer.Typer(no_args_is_help=True, help="Tenants: which domain leads to which PBX instances.")
app.add_typer(route, name="route")

Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The node's configuration.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant: a-z, 0-9, dot, hyphen, underscore.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
DEFAULT = Path("/etc/sipward/sipward.toml")


@app.command()
def up(config: Config = DEFAULT) -> None:
    """Run the node in the foreground until Ctrl-C or SIGTERM. SIGHUP has it take its configuration again."""
    from sipward import node  # noqa: PLC0415 - only this command needs the processes

    raise typer.Exit(node.run(lambda: settings.load(config)))


@app.command()
def status(config: Config = DEFAULT, as_json: AsJson = False) -> None:
    """Show whether calls can be routed, and how each component does. Exit 0 only when they can."""
    from sipward import node  # noqa: PLC0415 - as above

    found = node.status(settings.load(config))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _print_status(found)
    raise typer.Exit(0 if found["ready"] else 1)


@app.command("action")
def action_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="add-route, get-route, ... as docs/nethvoice.md lists.")],
    config: Config = DEFAULT,
) -> None:
    """Do what a PBX module of NethServer asks by name: JSON on standard input, JSON on standard output."""
    from sipward import actions  # noqa: PLC0415 - as above

    if name not in actions.ACTIONS:
        _fail(f"there is no action {show(name)}: there are {', '.join(sorted(actions.ACTIONS))}", 2)
    answer = actions.run(name, sys.stdin.read(), config, _store)
    for note in answer.notes:
        typer.echo(note, err=True)
    if answer.output is not None:
        typer.echo(json.dumps(answer.output))
    raise typer.Exit(answer.code)


@app.command("backup")
def backup_command(
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write it there.")] = None,
    config: Config = DEFAULT,
) -> None:
    """Write the node into one file: configuration, keys, tenants, numbers and trunks. It holds secrets."""
    from sipward import backup, configuration  # noqa: PLC0415 - as above

    node = settings.load(config)
    with _store(node) as store:
        saved, left_out = backup.make(config, node, store)
    if output is None:
        typer.echo(saved.to_json(), nl=False)
    else:
        configuration.write(output, saved.to_json())
    for what in left_out:
        typer.echo(f"{what} is left out: its value in Redis is no text", err=True)


@app.command("restore")
def restore_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `sipward backup` wrote.")],
    answers: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="network.address=192.0.2.1, for instance; may be repeated."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite what is here with another value.")] = False,
    config: Config = DEFAULT,
) -> None:
    """Bring a backup onto this machine. What does not fit it is asked; without a terminal --set answers."""
    from sipward import backup, node, restore  # noqa: PLC0415 - as above

    saved = backup.read(file)
    ask = _ask if sys.stdin.isatty() else None
    text, found = restore.settle(saved, config, _answers(answers or []), ask, replace)
    started = time.monotonic()
    with node.redis_at_hand(found), _store(found) as store:
        plan = restore.plan(saved, text, found, store, replace)
        restore.carry_out(plan, config, store)
    for warning in plan.warnings:
        typer.echo(warning, err=True)
    counts = ", ".join(f"{len(values)} of {len(saved.values[kind])} {kind}s" for kind, values in plan.values.items())
    typer.echo(f"{counts} written in {time.monotonic() - started:.2f} s; what was here already was left alone")


@app.command("explain")
def explain_call(
    source: Annotated[str, typer.Option("--from", metavar="ADDRESS[:PORT]", help="Where the request comes from.")],
    to: Annotated[str, typer.Option("--to", metavar="URI", help="Its Request-URI.")],
    transport: Annotated[str, typer.Option(help="udp or tcp.")] = "udp",
    method: Annotated[str, typer.Option(help="Its method.")] = "INVITE",
    caller: Annotated[str, typer.Option(metavar="URI", help="Its From.")] = "",
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A header field; may be repeated.")
    ] = None,
    sdp: Annotated[bool, typer.Option("--sdp/--no-sdp", help="Whether it brings an offer.")] = True,
    config: Config = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say what the running node would do with a request, and why."""
    from sipward import explain  # noqa: PLC0415 - only this command needs the routing

    try:
        asked = explain.read(
            source, to, transport=transport, method=method, caller=caller, headers=header or (), sdp=sdp
        )
        found = explain.explain(settings.load(config), asked)
    except explain.QuestionError as error:
        _fail(str(error), 2)
    except explain.NoNodeError as error:
        _fail(str(error), 1)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            typer.echo(f"{name:<12}{', '.join(value) if isinstance(value, list) else value}".rstrip())


@app.command()
def demo() -> None:
    """Play a registration and a call with audio through a node, in networks of its own."""
    sys.path.insert(0, str(_CHECKOUT / "tests"))
    # Part of the checkout, not of the package.
    raise typer.Exit(import_module("lab.demo").main() or 0)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer runs, in some three minutes.")] = False,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.")] = None,
) -> None:
    """Measure what a message costs against a native configuration of Kamailio that does the same and no more."""
    sys.path[:0] = [str(_CHECKOUT), str(_CHECKOUT / "tests")]
    raise typer.Exit(import_module("bench.main").main(quick, output))


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def test() -> None:
    """Run the tests; all arguments go to pytest."""
    os.chdir(_CHECKOUT)
    # Untouched: what the parser makes of them lacks a `--`, for instance.
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[2:]])


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def redis() -> None:
    """Run redis-cli on the node's Redis; all arguments go to it. Only a leading --config FILE is ours."""
    config, words = DEFAULT, sys.argv[2:]
    if words[:1] == ["--config"] and len(words) > 1:
        config, words = Path(words[1]), words[2:]
    elif words and words[0].startswith("--config="):
        config, words = Path(words[0].removeprefix("--config=")), words[1:]
    where, password = redis_cli(settings.load(config).redis_url)
    if password:
        os.environ["REDISCLI_AUTH"] = password
    try:
        os.execvp("redis-cli", ["redis-cli", *where, *words])
    except FileNotFoundError:
        _fail("redis-cli is not installed", 1)


@route.command("add")
def add(
    name: Name,
    domain: Annotated[list[str], typer.Option("--domain", help="A domain of the tenant; may be repeated.")],
    instance: Annotated[
        list[str],
        typer.Option("--instance", metavar="URI[,FIELD=VALUE]...", help="sip:10.5.4.1:5080,weight=2; may be repeated."),
    ],
    redirect: Annotated[str, typer.Option(help="What a 3xx of an instance becomes: pass or refuse.")] = "pass",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a tenant that exists.")] = False,
    config: Config = DEFAULT,
) -> None:
    """Add a tenant. FIELD is weight, priority, description or drain."""
    node = settings.load(config)
    value = {"domains": domain, "instances": [_instance(text) for text in instance], "redirect": redirect}
    record = parse(name, json.dumps(value), Rules.of(node, addresses.resolve(node)))
    with _store(node) as store:
        if not replace and store.get(Kind.TENANT, name) is not None:
            raise RecordError(f"tenant {name} exists: --replace overwrites it")
        store.put(record)
    typer.echo(f"tenant {name}: {', '.join(record.domains)} -> {', '.join(i.uri for i in record.value.instances)}")


@route.command("show")
def show_route(name: Name, config: Config = DEFAULT) -> None:
    """Print a tenant's value as it stands in Redis."""
    check_name(name)
    node = settings.load(config)
    with _store(node) as store:
        value = store.get(Kind.TENANT, name)
        problem = _unused(node, store, {name: value}).get(name) if value is not None else None
    match value:
        case None:
            _fail(f"there is no tenant {name}", 1)
        case bytes():
            typer.echo(value.decode(errors="backslashreplace"))
    if problem:
        _fail(f"this value is not used: {problem}", 1)


@route.command("list")
def list_routes(config: Config = DEFAULT, as_json: AsJson = False) -> None:
    """List all tenants in Redis, the ones that are not used too."""
    node = settings.load(config)
    with _store(node) as store:
        values = store.list(Kind.TENANT)
        unused = _unused(node, store, values)
    found = {name: unused.get(name) or _record(name, value) for name, value in values.items()}
    if as_json:
        typer.echo(json.dumps([_as_json(name, record) for name, record in found.items()], indent=2))
    else:
        _print_routes(found)


@route.command("rm")
def remove(name: Name, config: Config = DEFAULT) -> None:
    """Remove a tenant; its next call is refused."""
    check_name(name)
    with _store(settings.load(config)) as store:
        if not store.remove(Kind.TENANT, name):
            _fail(f"there is no tenant {name}", 1)
    typer.echo(f"tenant {name} removed")


@route.command("accept")
def accept(config: Config = DEFAULT) -> None:
    """Take Redis as it is: tenants withheld because most of them vanished at once are removed."""
    with _store(settings.load(config)) as store:
        store.accept()
    typer.echo("every node on this Redis now takes it as it is; `sipward status` shows the outcome")


@route.command("restore")
def restore(config: Config = DEFAULT) -> None:
    """Write the node's last good table back into Redis; what is there already stays."""
    node = settings.load(config)
    tables = {kind: snapshot.load(node.table_file(kind)) for kind in Kind}
    if tables[Kind.TENANT] is None:
        raise SnapshotError(f"{node.table_file(Kind.TENANT)}: there is no last good table")
    with _store(node) as store:
        for kind, last in tables.items():
            values = {row.name: row.raw for row in last.rows} if last else {}
            if values or kind is Kind.TENANT:
                written = store.fill(kind, values)
                typer.echo(f"{written} of {len(values)} {kind}s were missing in Redis and are written back")


def main() -> None:
    """Run a command."""
    app(prog_name="sipward")


def _fail(text: str, code: Literal[1, 2]) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(code)


def _instance(text: str) -> dict[str, object]:
    """Read `URI[,field=value]...`; what the values may be is not checked here."""
    uri, *fields = text.split(",")
    found: dict[str, object] = {"uri": uri}
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals or key == "uri":
            raise RecordError(
                f"--instance {show(text)}: must be URI[,weight=N][,priority=N][,description=TEXT][,drain=true]"
            )
        found[key] = _plain(value)
    return found


def _answers(texts: list[str]) -> dict[str, str]:
    """Read `--set KEY=VALUE`."""
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise SettingsError(f"--set {show(text)}: must be KEY=VALUE, such as network.address=192.0.2.1")
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def _ask(key: str, why: str, offer: str) -> str:
    typer.echo(f"{key} = {why}")
    return str(typer.prompt(key, default=offer or None))


def _plain(value: str) -> object:
    if value in {"true", "false"}:
        return value == "true"
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else value


def _rules(node: Settings) -> Rules | None:
    """The node's rules; None on a machine that is not the node, where only the form can be checked."""
    try:
        return Rules.of(node, addresses.resolve(node))
    except SettingsError:
        return None


def _unused(node: Settings, store: Store, values: Mapping[str, Value]) -> dict[str, str]:
    """Why values are not used: by the running node's own word; without one, as a node would take them at its start."""
    from sipward.node import rejected  # noqa: PLC0415 - as above

    rules = _rules(node)
    records = {name: _record(name, value, rules) for name, value in values.items()}
    bad = {name: record for name, record in records.items() if isinstance(record, str)}
    good = {name: record for name, record in records.items() if not isinstance(record, str)}
    if (said := rejected(node, Kind.TENANT, good)) is not None:
        return bad | said
    routes = Routes(rules)
    with suppress(SnapshotError):
        if last := snapshot.load(node.table_file(Kind.TENANT)):
            routes.resume(Kind.TENANT, last)
    routes.load({Kind.TENANT: store.list(Kind.TENANT)})
    return routes.keepers[Kind.TENANT].rejected


def _record(name: str, value: Value, rules: Rules | None = None) -> TenantRecord | str:
    """A tenant, or why its value is bad."""
    if not isinstance(value, bytes):
        return value.reason
    try:
        return parse(name, value, rules)
    except RecordError as error:
        return "; ".join(str(error).splitlines())


@contextmanager
def _store(node: Settings) -> Iterator[Store]:
    """The routes in Redis. The node's own one runs only as long as the node does."""
    try:
        with Store(node.redis_url) as store:
            yield store
    except UnreachableError as error:
        raise error if node.redis.url else StoreError(f"{error}: is the node running?") from None


def _as_json(name: str, record: TenantRecord | str) -> dict[str, object]:
    return {"name": name, "error": record} if isinstance(record, str) else {"name": name, **record.value.model_dump()}


def _print_routes(found: dict[str, TenantRecord | str]) -> None:
    table = Table("tenant", "domains", "instances", "3xx")
    for name, record in found.items():
        label = name if name.isprintable() else show(name)
        if isinstance(record, str):
            table.add_row(Text(label), Text(f"not used: {record}", style="red"), "", "")
        else:
            instances = "\n".join(i.uri + (" (drained)" if i.drain else "") for i in record.value.instances)
            table.add_row(Text(label), Text("\n".join(record.domains)), Text(instances), record.value.redirect)
    Console().print(table)


def _print_status(found: dict[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text("ready" if found["ready"] else "NOT ready: calls cannot be routed", style="bold"))
    colours = {"ok": "green", "degraded": "yellow", "down": "red"}
    for name, component in found["components"].items():
        state, detail = component["state"], component.get("detail") or _count(component)
        console.print(f"  {name:<10}", Text(f"{state:<9}", style=colours.get(state, "red")), Text(detail))
    routes = found["components"].get("routes", {})
    rejected = routes.get("rejected", {})
    for key, reason in rejected.items():
        console.print(Text(f"  not used: {key}: {reason}", style="red"))
    for name, reason in routes.get("unresolved", {}).items():
        console.print(Text(f"  not resolved: {name}: {reason}", style="yellow"))
    if (more := routes.get("rejected_total", 0) - len(rejected)) > 0:
        console.print(f"  not used: {more} more; `sipward route list` shows all")
    if counters := found.get("counters"):
        counted = ", ".join(f"{name} {count}" for name, count in counters.items())
        console.print(Text(f"  counted since the start: {counted}"))


def _count(component: dict[str, Any]) -> str:
    kinds = ("tenants", "domains", "numbers", "trunks")
    return ", ".join(f"{component[kind]} {kind}" for kind in kinds if kind in component)
