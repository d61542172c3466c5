"""Header fields as lines."""

import pytest

from sipward.headers import field, lines


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("INVITE x SIP/2.0\r\nA: 1\r\nB: 2", ["INVITE x SIP/2.0", "A: 1", "B: 2"]),
        ("X\nA: 1\nB: 2", ["X", "A: 1", "B: 2"]),
        ("X\r\nA: 1\r\n two\r\n\tthree\r\nB: 2", ["X", "A: 1 two three", "B: 2"]),
        ("X\r\nA:\r\n   1", ["X", "A: 1"]),
        ("X\r\nA: a\rb", ["X", "A: a\rb"]),
    ],
)
def test_a_folded_field_becomes_one_line(head: str, expected: list[str]) -> None:
    assert lines(head) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Contact: <sip:a@h:5060>", ("contact", "<sip:a@h:5060>")),
        ("m:<sip:a@h>", ("contact", "<sip:a@h>")),
        ("M : *", ("contact", "*")),
        ("v: SIP/2.0/UDP h", ("via", "SIP/2.0/UDP h")),
        ("i: 1@h", ("call-id", "1@h")),
        ("f: x", ("from", "x")),
        ("t: x", ("to", "x")),
        ("r: x", ("refer-to", "x")),
        ("b: x", ("referred-by", "x")),
        ("l: 0", ("content-length", "0")),
        ("c: application/sdp", ("content-type", "application/sdp")),
        ("X-Own: a", ("x-own", "a")),
        ("nonsense", ("nonsense", "")),
        ("", ("", "")),
    ],
)
def test_a_field_has_its_long_name_in_lower_case(line: str, expected: tuple[str, str]) -> None:
    assert field(line) == expected
