"""What commands print, and how they end."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipward import problems


def fail(text: str, code: Literal[1, 2]) -> NoReturn:
    """Say why not, and end: 2 for bad input, 1 when it could not be done."""
    typer.echo(text, err=True)
    raise typer.Exit(code)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows below the names of their columns."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    Console().print(table)


def print_values(columns: Sequence[str], values: Mapping[str, Sequence[str] | str]) -> None:
    """Print a row a value, its name first; a text in place of the cells says why it is not used."""
    rows = {name: [_not_used(cells)] if isinstance(cells, str) else cells for name, cells in values.items()}
    print_table(columns, [[problems.printable(name), *cells] for name, cells in rows.items()])


def _not_used(why: str) -> Text:
    return Text(f"not used: {why}", style="red")
