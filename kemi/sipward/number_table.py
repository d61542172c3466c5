"""Numbers as CSV (RFC 4180), as `sipward number` imports and exports them. What was exported is imported as it was."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from sipward import instance_words, number_rules
from sipward.number_rules import NumberRecord
from sipward.problems import show
from sipward.records import RecordError
from sipward.rules import Rules

COLUMNS = ("rule", "trunk", "tenant", "instances", "exact", "description")

_HEADER = f"header: must be {','.join(COLUMNS)}; all but rule may be left out"
_EXACT = {"true": True, "false": False}


def write(file: TextIO, records: Iterable[NumberRecord]) -> None:
    """Write the header and a line a number."""
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(map(_cells, records))


def read(lines: Iterable[str], rules: Rules) -> Iterator[tuple[int, NumberRecord | str]]:
    """Read and check a line after the other: its number, and the record or why it is bad.

    Raises RecordError when the header is bad.
    """
    table = csv.reader(lines, strict=True)
    columns = _header(table)
    while True:
        try:
            if cells := next(table):
                yield table.line_num, _record(columns, cells, rules)
        except StopIteration:
            return
        except csv.Error as error:
            yield table.line_num, f"not CSV: {error}"
        except RecordError as error:
            yield table.line_num, "; ".join(str(error).splitlines())


def _header(table: Iterator[list[str]]) -> list[str]:
    try:
        columns = [cell.strip() for cell in next(table, [])]
    except csv.Error as error:
        raise RecordError(f"{_HEADER}: {error}") from None
    if "rule" not in columns or len(set(columns)) < len(columns) or not set(columns) <= set(COLUMNS):
        raise RecordError(f"{_HEADER}: not {show(','.join(columns))}")
    return columns


def _record(columns: Sequence[str], cells: Sequence[str], rules: Rules) -> NumberRecord:
    if len(cells) != len(columns):
        raise RecordError(f"{len(cells)} fields: must be {len(columns)}, as many as the header has")
    texts = {
        column: cell if column == "description" else cell.strip() for column, cell in zip(columns, cells, strict=True)
    }
    fields: dict[str, object] = {key: text for key, text in texts.items() if text}
    rule, trunk = texts["rule"], texts.get("trunk", "")
    if "instances" in fields:
        fields["instances"] = instance_words.read_all(texts["instances"])
    if "exact" in fields:
        fields["exact"] = _EXACT.get(texts["exact"], texts["exact"])
    value = {key: field for key, field in fields.items() if key not in {"rule", "trunk"}}
    return number_rules.parse(f"{rule}@{trunk}" if trunk else rule, json.dumps(value), rules)


def _cells(record: NumberRecord) -> list[str]:
    value = record.value
    rule, _, trunk = record.name.partition("@")
    own = "" if value.instances is None else instance_words.write_all(value.instances)
    return [rule, trunk, value.tenant or "", own, "true" if value.exact else "", value.description]
