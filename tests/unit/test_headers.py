"""Header fields as lines."""

import pytest

from sipward.headers import field, lines, name_at, places


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


@pytest.mark.parametrize(
    ("head", "wanted", "expected"),
    [
        ("SIP/2.0 200 x\r\nA: x", "x", [12, 18]),
        ("aaa", "aa", [0, 1]),
        ("abc", "d", []),
        ("", "d", []),
        ("é 10.5.4.1 é", "10.5.4.", [2]),
    ],
)
def test_all_places_of_a_text_are_found(head: str, wanted: str, expected: list[int]) -> None:
    assert list(places(head, wanted)) == expected


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("SIP/2.0 200 HERE\r\nA: 1", ""),
        ("HERE", ""),
        ("X\r\nWarning: 399 HERE\r\nB: 1", "warning"),
        ("X\r\nA: 1\r\nWARNING : 399 HERE", "warning"),
        ("X\nA: 1\nWarning: HERE", "warning"),
        ("X\r\nv: SIP/2.0/UDP HERE", "via"),
        ("X\r\nm:<sip:HERE:5080>", "contact"),
        ("X\r\nr: <sip:HERE>", "refer-to"),
        ("X\r\nWarning: 399\r\n HERE", "warning"),
        ("X\r\nWarning: 399\r\n\tpbx\r\n  a: HERE", "warning"),
        ("X\r\nWarning:\r\n HERE\r\nVia: b", "warning"),
        ("X\nv: a,\n b\n c, HERE", "via"),
        ("X\r\nVia: a\r\n\r\nWarning: HERE", "warning"),
        ("X\r\nX-HERE: 1", "x-"),
    ],
)
def test_a_place_is_in_the_field_that_its_line_or_the_line_it_continues_begins_with(head: str, name: str) -> None:
    assert name_at(head, head.index("HERE")) == name


def test_the_name_at_each_place_is_that_of_the_fields_own_line() -> None:
    head = "SIP/2.0 200 x\r\nv: x\r\nWarning: 399\r\n x,\r\n\tx\r\nFrom: y\r\nm: x"
    assert [name_at(head, at) for at in places(head, "x")] == ["", "via", "warning", "warning", "contact"]
