"""The commands. Each says what it did, or in one line why not: exit 2 for bad input, 1 when it could not be done."""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from sipward import settings
from sipward.backup import BackupError
from sipward.certificates import CertificateError
from sipward.commands import calls, cert, instance, number, route, trunk
from sipward.commands.options import DEFAULT, AsJson, Config
from sipward.commands.terminal import fail
from sipward.commands.values import opened
from sipward.problems import show
from sipward.records import RecordError
from sipward.reload import ReloadError
from sipward.rpc import UnreachableError
from sipward.settings import SettingsError
from sipward.snapshot import SnapshotError
from sipward.store import ConflictError, StoreError, redis_cli
from sipward.supervisor import StartError

_NAMES_SHOWN = 20
_CHECKOUT = Path(__file__).resolve().parents[2]
_BAD_INPUT = (SettingsError, RecordError, ConflictError, BackupError)
_NOT_DONE = (StoreError, SnapshotError, ReloadError, StartError, UnreachableError, CertificateError)


class _Commands(TyperGroup):
    """Turns the errors we expect into their line and exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _BAD_INPUT as error:
            fail(str(error), 2)
        except _NOT_DONE as error:
            fail(str(error), 1)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One front door for many PBXs.",
)
for group in (route, number, trunk, instance, cert):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])
app.command()(calls.calls)
app.command()(calls.call)


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
        fail(f"there is no action {show(name)}: there are {', '.join(sorted(actions.ACTIONS))}", 2)
    answer = actions.run(name, sys.stdin.read(), config, opened)
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
    with opened(node) as store:
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
    with node.redis_at_hand(found), opened(found) as store:
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
    transport: Annotated[str, typer.Option(help="udp, tcp or tls.")] = "udp",
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
        fail(str(error), 2)
    except explain.NoNodeError as error:
        fail(str(error), 1)
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
        fail("redis-cli is not installed", 1)


def main() -> None:
    """Run a command."""
    app(prog_name="sipward")


def _answers(texts: list[str]) -> dict[str, str]:
    """Read `--set KEY=VALUE`."""
    for text in texts:
        if not text.partition("=")[0] or "=" not in text:
            raise SettingsError(f"--set {show(text)}: must be KEY=VALUE, such as network.address=192.0.2.1")
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def _ask(key: str, why: str, offer: str) -> str:
    typer.echo(f"{key} = {why}")
    return str(typer.prompt(key, default=offer or None))


def _print_status(found: dict[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text("ready" if found["ready"] else "NOT ready: calls cannot be routed", style="bold"))
    colours = {"ok": "green", "degraded": "yellow", "down": "red"}
    for name, component in found["components"].items():
        state, detail = component["state"], component.get("detail") or _count(component)
        console.print(f"  {name:<12}", Text(f"{state:<9}", style=colours.get(state, "red")), Text(detail))
    names = found["components"].get("certificates", {}).get("names", {})
    for name, said in list(names.items())[:_NAMES_SHOWN]:
        console.print(Text(f"  certificate: {name}: {_expiry(said)}", style="yellow" if said["problem"] else ""))
    if len(names) > _NAMES_SHOWN:
        console.print(f"  certificate: {len(names) - _NAMES_SHOWN} more; `sipward cert list` shows all")
    routes = found["components"].get("routes", {})
    rejected = routes.get("rejected", {})
    for key, reason in rejected.items():
        console.print(Text(f"  not used: {key}: {reason}", style="red"))
    for name, reason in routes.get("unresolved", {}).items():
        console.print(Text(f"  not resolved: {name}: {reason}", style="yellow"))
    if (more := routes.get("rejected_total", 0) - len(rejected)) > 0:
        console.print(f"  not used: {more} more; `sipward route list`, `trunk list` and `number check` show all")
    if counters := found.get("counters"):
        counted = ", ".join(f"{name} {count}" for name, count in counters.items())
        console.print(Text(f"  counted since the start: {counted}"))


def _expiry(said: dict[str, Any]) -> str:
    until = (
        f"until {said['expires'][:10]}, {said['days_left']} days, from {said['from']}" if said["expires"] else "none"
    )
    return f"{until}: {said['problem']}" if said["problem"] else until


def _count(component: dict[str, Any]) -> str:
    kinds = ("tenants", "domains", "numbers", "trunks")
    return ", ".join(f"{component[kind]} {kind}" for kind in kinds if kind in component)
