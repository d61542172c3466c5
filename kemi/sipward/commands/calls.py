"""`sipward calls` and `sipward call`: what runs now, and what is wrong with it."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.text import Text

from sipward import running, settings
from sipward.commands.options import DEFAULT, AsJson, Config
from sipward.commands.terminal import fail, print_table
from sipward.problems import printable
from sipward.running import Look


def calls(config: Config = DEFAULT, as_json: AsJson = False) -> None:
    """List running calls: tenant, parties, instance, age, codec, packets and loss each way, and what is wrong."""
    found = running.look(settings.load(config))
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found], indent=2))
        return
    columns = ["tenant", "call-id", "caller", "callee", "instance", "age", "codec", "sent: packets, lost", "problem"]
    print_table(columns, map(_row, found))


def call(
    call_id: Annotated[str, typer.Argument(metavar="CALL-ID", help="As the tenant's PBX knows it.")],
    config: Config = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Explain one running call."""
    found = running.look(settings.load(config), call_id)
    if not found:
        fail(f"no call with Call-ID {call_id} runs here", 1)
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found], indent=2))
        return
    for one in found:
        for name, value in _lines(one):
            typer.echo(f"{name:<12}{value}")


def _row(look: Look) -> Sequence[str | Text]:
    now = look.now
    sent = [f"{party.kind} {party.packets}, {loss:.1%}" for party, loss in zip(now.parties, look.losses, strict=True)]
    words = (now.tenant, now.call_id, now.caller, now.callee, now.instance)
    age = f"{round(time.time() - now.created)} s"
    return [*map(printable, words), age, now.codec, "\n".join(sent), Text(look.problem, style="red")]


def _lines(look: Look) -> Iterator[tuple[str, str]]:
    found = look.as_json()
    for name in ("tenant", "call_id", "caller", "callee", "instance", "codec", "rtpengine"):
        yield name.replace("_", "-"), printable(str(found[name])) or "-"
    yield "age", f"{found['age']} s, {'answered' if found['answered'] else 'not answered yet'}"
    for party in found["parties"]:
        nat = ", behind a NAT" if party["behind_nat"] else ""
        refused = f", {party['refused']} from elsewhere refused" if party["refused"] else ""
        last = f"last {party['silent']} s ago" if party["packets"] else "none yet"
        yield (
            printable(party["kind"]),
            (
                f"{party['address']}{nat}: {party['packets']} packets from it ({last}), "
                f"{party['lost']:.1%} lost in the last second{refused}; {party['packets_to']} to it"
            ),
        )
    yield "problem", found["problem"] or "none seen"
