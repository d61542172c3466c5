"""Numbers as CSV: what is written is read as it was, and a line that is bad says what is allowed."""

import io
import json
from ipaddress import ip_network

import pytest

from sipward import number_rules, number_table
from sipward.number_rules import NumberRecord
from sipward.numbers import Plan
from sipward.records import RecordError
from sipward.rules import Rules

RULES = Rules((ip_network("10.5.4.0/24"),), (), (), plan=Plan("39"))
OWN = [
    {"uri": "sip:10.5.4.1:5080"},
    {
        "uri": "sip:10.5.4.2;transport=tcp",
        "weight": 3,
        "priority": 2,
        "drain": True,
        "description": "a, b  50% 'ü' \"x\"",
    },
    {"uri": "sip:10.5.4.3", "description": "123"},
    {"uri": "sip:10.5.4.4", "description": "%20true "},
]
VALUES: dict[str, dict[str, object]] = {
    "+39072140": {"tenant": "acme"},
    "0721405XX": {"tenant": "acme", "exact": True, "description": ' with, "commas" and ü '},
    "100@carrier": {"tenant": "initech"},
    "112": {"instances": OWN},
    "113": {"instances": []},
}


def record(name: str, value: dict[str, object]) -> NumberRecord:
    return number_rules.parse(name, json.dumps(value), RULES)


def read(text: str) -> dict[int, NumberRecord | str]:
    return dict(number_table.read(io.StringIO(text, newline=""), RULES))


def test_what_is_written_is_read_as_it_was() -> None:
    records = [record(name, value) for name, value in VALUES.items()]
    file = io.StringIO(newline="")
    number_table.write(file, records)
    assert file.getvalue().splitlines()[:3] == [
        "rule,trunk,tenant,instances,exact,description",
        "+39072140,,acme,,,",
        '0721405XX,,acme,,true," with, ""commas"" and ü "',
    ]
    assert list(read(file.getvalue()).values()) == records


@pytest.mark.parametrize("header", ["rule,tenant", "tenant,rule", " rule , tenant ", "rule,tenant,exact"])
def test_columns_may_stand_in_any_order_and_all_but_the_rule_be_left_out(header: str) -> None:
    cells = {"rule": "100", "tenant": " acme ", "exact": "false"}
    line = ",".join(cells[column.strip()] for column in header.split(","))
    assert read(f"{header}\r\n\r\n{line}\r\n") == {3: record("100", {"tenant": "acme"})}


@pytest.mark.parametrize("header", ["", "tenant", "rule,colour", "rule,rule,tenant", '"rule'])
def test_a_bad_header_says_what_it_must_be(header: str) -> None:
    with pytest.raises(RecordError, match="header: must be rule,trunk,tenant,instances,exact,description"):
        read(header)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1-2,,acme,,,", 'rule = "1-2": must be 1 to 32 digits or X'),
        (",,acme,,,", 'rule = "": must be 1 to 32 digits or X'),
        ("1,Carrier,acme,,,", 'trunk = "Carrier": must be a trunk\'s name'),
        ("1,,A,,,", 'tenant = "A": must be a tenant\'s name'),
        ("1,,,,,", "exactly one of tenant and instances must be given"),
        ("1,,acme,sip:10.5.4.1:5080,,", "exactly one of tenant and instances must be given"),
        ("1,,,sip:10.9.9.9,,", 'instances[0].uri = "sip:10.9.9.9": must be inside network.service_networks'),
        ('1,,,"sip:10.5.4.1,weight",,', "must be URI[,weight=N]"),
        ("1,,acme,,yes,", 'exact = "yes": '),
        ("1,,acme,,,\x1b", 'description = "\\u001b": must have no control characters'),
        ("1,,acme", "3 fields: must be 6"),
        ('1,,acme,,,"a"b', "not CSV: "),
    ],
)
def test_a_bad_line_is_told_by_its_number_and_the_next_one_is_read(line: str, told: str) -> None:
    found = read(f"{','.join(number_table.COLUMNS)}\n{line}\n2,,acme,,,\n")
    assert found[3] == record("2", {"tenant": "acme"})
    assert told in str(found[2])
    assert isinstance(found[2], str)
