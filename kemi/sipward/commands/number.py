"""`sipward number`: which dialled number leads to which tenant, or to instances of its own."""

import json
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer

from sipward import instance_words, number_rules, number_table, settings
from sipward.commands import values
from sipward.commands.number_survey import Survey
from sipward.commands.options import DEFAULT, AsJson, Config, Description, OwnInstances, Replace
from sipward.commands.terminal import fail, print_values
from sipward.number_rules import NumberRecord
from sipward.problems import printable
from sipward.records import Kind, Record, RecordError, check_name
from sipward.rules import Rules
from sipward.settings import Settings
from sipward.store import Store, Value, taken_by

app = typer.Typer(no_args_is_help=True, help="Numbers: which dialled number leads to which tenant.")

_PRINTED = 10_000
_ERRORS = 20

Rule = Annotated[str, typer.Argument(metavar="RULE", help="Digits, + and X for any one digit: 0721405XX.")]
Trunk = Annotated[str, typer.Option(metavar="NAME", help="Only for calls that come by this trunk.")]


@app.command()
def add(
    rule: Rule,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Whose number it is.")] = None,
    instance: OwnInstances = None,
    trunk: Trunk = "",
    exact: Annotated[bool, typer.Option("--exact", help="For this number only, not for longer ones.")] = False,
    description: Description = "",
    replace: Replace = False,
    config: Config = DEFAULT,
) -> None:
    """Add a number: of a tenant, or with instances of its own."""
    node = settings.load(config)
    own = [instance_words.read(text) for text in instance] if instance else None
    value = {"tenant": tenant, "instances": own, "exact": exact, "description": description}
    text = json.dumps({key: field for key, field in value.items() if field is not None})
    record = number_rules.parse(_name(rule, trunk), text, values.rules_of(node))
    values.add(node, record, replace)
    typer.echo(f"number {record.name} -> {_owner(record)}")


@app.command()
def show(rule: Rule, trunk: Trunk = "", config: Config = DEFAULT) -> None:
    """Print a number's value as it stands in Redis."""
    values.show(settings.load(config), Kind.NUMBER, _name(rule, trunk))


@app.command("list")
def list_(
    config: Config = DEFAULT,
    as_json: AsJson = False,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Only those of this tenant.")] = "",
) -> None:
    """List the numbers in Redis, the ones that are not used too."""
    node = settings.load(config)
    with values.opened(node) as store:
        found = _listed(node, store, check_name(tenant) if tenant else "")
        if as_json:
            _print_json(found)
        else:
            _print_table(found)


@app.command()
def rm(rule: Rule, trunk: Trunk = "", config: Config = DEFAULT) -> None:
    """Remove a number."""
    values.remove(settings.load(config), Kind.NUMBER, _name(rule, trunk))


@app.command()
def check(config: Config = DEFAULT) -> None:
    """Say what is wrong with the numbers, and which rules are inside wider ones. Exit 0 when nothing is wrong."""
    node = settings.load(config)
    with values.opened(node) as store:
        found = Survey(node, store)
        sys.stdout.writelines(f"{line}\n" for line in found.lines)
    typer.echo(found.summary)
    raise typer.Exit(1 if found.is_wrong else 0)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=f"CSV: {','.join(number_table.COLUMNS)}")],
    replace: Replace = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all lines and write nothing.")] = False,
    config: Config = DEFAULT,
) -> None:
    """Add the numbers of a CSV file: all of them, or none when a line is bad."""
    node = settings.load(config)
    lines = dict(_read(file, values.rules_of(node)))
    with values.opened(node) as store:
        records = _good(store, lines, replace)
        if dry_run:
            typer.echo(f"{len(records)} numbers are good; nothing was written")
            return
        written = store.fill(Kind.NUMBER, {record.name: record.to_json() for record in records}, replace=replace)
    typer.echo(f"{written} numbers written")
    if written < len(records):
        fail(f"{len(records) - written} numbers were written by others meanwhile, and stay as they are", 1)


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Standard output unless given.")] = None,
    config: Config = DEFAULT,
) -> None:
    """Write the numbers as CSV, as `import` reads it."""
    bad: list[str] = []
    table = StringIO(newline="")
    with values.opened(settings.load(config)) as store:
        number_table.write(table, _exported(store, bad))
    # Only now: when Redis fails, an older file stays.
    if file is None:
        sys.stdout.write(table.getvalue())
    else:
        try:
            file.write_text(table.getvalue(), encoding="utf-8", newline="")
        except OSError as error:
            fail(f"{file}: cannot be written: {error.strerror}", 1)
    if bad:
        fail("\n".join(f"number {line}" for line in bad), 1)


def _name(rule: str, trunk: str) -> str:
    """The name of a number's value. Raises RecordError."""
    name = f"{rule}@{trunk}" if trunk else rule
    number_rules.check_rule(name)
    return name


def _owner(record: NumberRecord) -> str:
    own = record.value.instances or ()
    return f"tenant {record.value.tenant}" if record.value.tenant else ", ".join(one.uri for one in own) or "nowhere"


# --- list ---------------------------------------------------------------------------------------------------------


def _listed(node: Settings, store: Store, tenant: str) -> Iterator[tuple[str, Record | str]]:
    usage = values.Usage(node, store, Kind.NUMBER)
    for some in store.each(Kind.NUMBER):
        yield from usage.of(
            {name: one for name, one in some.items() if not tenant or _is_of(name, one, tenant)}
        ).items()


def _is_of(name: str, value: Value, tenant: str) -> bool:
    record = values.checked(Kind.NUMBER, name, value, None)
    return isinstance(record, NumberRecord) and record.value.tenant == tenant


def _print_json(found: Iterator[tuple[str, Record | str]]) -> None:
    """A list, written as it comes: a million are many."""
    gap = "[\n"
    for name, record in found:
        sys.stdout.write(f"{gap}  {json.dumps(values.as_json(name, record))}")
        gap = ",\n"
    sys.stdout.write("[]\n" if gap == "[\n" else "\n]\n")


def _print_table(found: Iterator[tuple[str, Record | str]]) -> None:
    rows: dict[str, list[str] | str] = {}
    for name, record in found:
        rows[name] = _cells(record) if isinstance(record, NumberRecord) else str(record)
        if len(rows) > _PRINTED:
            fail(f"more than {_PRINTED} numbers: --tenant NAME lists one's, --json and `sipward number export` all", 1)
    print_values(["number", "leads to", "whole number only", "description"], rows)


def _cells(record: NumberRecord) -> list[str]:
    return [_owner(record), "yes" if record.value.exact else "", record.value.description]


# --- import and export --------------------------------------------------------------------------------------------


def _read(file: Path, rules: Rules) -> Iterator[tuple[int, NumberRecord | str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            yield from number_table.read(lines, rules)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{file}: cannot be read: {error}") from None


def _good(store: Store, lines: dict[int, NumberRecord | str], replace: bool) -> list[NumberRecord]:
    """The records of all lines. Raises RecordError when one is bad, or does not go with another one or with Redis."""
    records = {line: record for line, record in lines.items() if not isinstance(record, str)}
    errors = {line: record for line, record in lines.items() if isinstance(record, str)}
    errors |= _repeated(records)
    errors |= _taken(store, {line: record for line, record in records.items() if line not in errors}, replace)
    if errors:
        told = [f"line {line}: {errors[line]}" for line in sorted(errors)]
        more = [f"and {len(told) - _ERRORS} more"] if len(told) > _ERRORS else []
        raise RecordError("\n".join([*told[:_ERRORS], *more]))
    return list(records.values())


def _repeated(records: dict[int, NumberRecord]) -> dict[int, str]:
    first: dict[tuple[str, ...], int] = {}
    return {
        line: f"rule: {record.name} is the same as line {before}"
        for line, record in records.items()
        if (before := first.setdefault(record.claims, line)) != line
    }


def _taken(store: Store, records: dict[int, NumberRecord], replace: bool) -> dict[int, str]:
    """What cannot be written because of what is in Redis: the same rule, or another spelling of it."""
    rivals = {line: record.rivals for line, record in records.items()}
    asked = {name for some in rivals.values() for name in some}
    if not replace:
        asked |= {record.name for record in records.values()}
    there = store.present(Kind.NUMBER, sorted(asked))
    errors: dict[int, str] = {}
    for line, record in records.items():
        if not replace and record.name in there:
            errors[line] = f"number {record.name} exists: --replace overwrites it"
        if owner := next((name for name in rivals[line] if name in there), None):
            errors[line] = taken_by(Kind.NUMBER, record.claims[0], owner)
    return errors


def _exported(store: Store, bad: list[str]) -> Iterator[NumberRecord]:
    """All numbers that can be put into a table; what cannot goes into `bad`."""
    for some in store.each(Kind.NUMBER):
        for name, value in some.items():
            record = values.checked(Kind.NUMBER, name, value, None)
            if isinstance(record, NumberRecord):
                yield record
            else:
                bad.append(f"{printable(name)} is left out: {record}")
