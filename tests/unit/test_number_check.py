"""Rules inside wider ones and rules that never win, against what the live table says of every number there is."""

import itertools
import random

import pytest

from sipward import live, numbers
from sipward.live import Live
from sipward.number_check import Entry, NumberCheck

CHARS = "0123456789"
EVERY_NUMBER = [
    sign + "".join(digits)
    for sign in ("", "+")
    for length in range(1, 5 - len(sign))
    for digits in itertools.product(CHARS, repeat=length)
]
"""Up to one digit longer than any rule below, which stands for all that are longer still."""

type Rules = dict[str, bool]
"""`RULE[@TRUNK]` and whether it is exact."""


def rules(*names: str) -> Rules:
    """`0721=` is exact."""
    return {name.replace("=", ""): "=" in name for name in names}


def check(some: Rules) -> NumberCheck:
    found = NumberCheck()
    for name, exact in some.items():
        rule, _, trunk = name.partition("@")
        found.add(rule, trunk, Entry(name, "acme", exact))
    return found


def losers(some: Rules) -> set[str]:
    return {entry.name for entry in check(some).losers()}


def overlaps(some: Rules) -> set[tuple[str, str]]:
    return {(inner.name, outer.name) for inner, outer in check(some).overlaps()}


def winners(some: Rules) -> set[str]:
    """The rules that some number finds, by the very look-up that calls go by."""
    table = {f"#{name}": f"{'=' if exact else ''}@acme" for name, exact in some.items()}
    shapes = numbers.write_shapes(numbers.shape(name.partition("@")[0]) for name in some)
    found = Live(lambda where, key: shapes if where == live.STATE else table.get(key))
    trunks = {name.partition("@")[2] for name in some} | {""}
    every = (found.number(number, trunk) for number in EVERY_NUMBER for trunk in trunks)
    return {one.rule for one in every if one}


def all_of(pattern: str) -> list[str]:
    """The rules that a rule's last X stands for."""
    head, _, tail = pattern.rpartition("X")
    return [f"{head}{digit}{tail}" for digit in CHARS]


@pytest.mark.parametrize(
    "some",
    [
        rules("12X", *all_of("12X")),
        rules("12X", *all_of("12X")[1:]),
        rules("1XX", *all_of("1XX")),
        rules("1XX", *all_of("1XX")[1:], *all_of("1X0")),
        rules("1XX", *all_of("1XX")[1:], *all_of("1X0")[1:]),
        rules("1XX", "1X0", *all_of("10X"), *(f"1{d}X" for d in CHARS[1:])),
        rules("1X", *(f"{rule}=" for rule in all_of("1X"))),
        rules("1X=", *(f"{rule}=" for rule in all_of("1X"))),
        rules("1X", *(f"{rule}=" for rule in all_of("1X")), *(f"1{d}X" for d in CHARS)),
        rules("1X", *(f"{rule}=" for rule in all_of("1X")), *(f"1{number:03}" for number in range(1000))),
        rules("1X", *(f"1{d}X" for d in CHARS)),
        rules("1X", *(f"{rule}@carrier" for rule in all_of("1X"))),
        rules("1X@carrier", *all_of("1X")),
        rules("1X@carrier", *(f"{rule}@other" for rule in all_of("1X"))),
        rules("1X@carrier", "1X", *all_of("1X")[1:], "10@carrier"),
        rules("X", *all_of("X")),
        rules("X", "+", *all_of("X")),
        rules("X=", *all_of("X")),
        rules("XX", *all_of("XX")),
        rules("1", "1", "1@carrier"),
    ],
    ids=lambda some: " ".join(some)[:40],
)
def test_a_rule_never_wins_when_no_number_finds_it(some: Rules) -> None:
    assert losers(some) == some.keys() - winners(some)


def by_chance(seed: int) -> Rules:
    """Some wide rules, and most or all of the narrower ones that each of them stands for."""
    chance = random.Random(seed)
    some: Rules = {}
    for _ in range(4):
        pattern = "".join(chance.choice("01XXX") for _ in range(chance.randint(1, 3)))
        some.setdefault(pattern, chance.random() < 0.3)
        scope, exact = chance.choice(("", "", "@carrier")), chance.random() < 0.3
        for part in all_of(pattern)[chance.random() < 0.3 :] if "X" in pattern else []:
            deeper = all_of(part) if "X" in part and chance.random() < 0.5 else [part]
            some |= {f"{one}{scope}": exact for one in deeper}
    return some


@pytest.mark.parametrize("seed", range(20))
def test_rules_by_chance_are_judged_as_the_look_up_judges_them(seed: int) -> None:
    some = by_chance(seed)
    assert losers(some) == some.keys() - winners(some)


def test_chance_makes_rules_that_never_win() -> None:
    assert sum(bool(losers(by_chance(seed))) for seed in range(20)) > 5


def test_a_rule_with_four_x_is_decided_whatever_stands_before_it() -> None:
    narrow = [f"9{a}{b}{c}{d}" for a, b, c, d in itertools.product(CHARS, repeat=4)]
    assert losers(rules("9XXXX", *narrow)) == {"9XXXX"}
    assert losers(rules("9XXXX", *narrow[:-1])) == set()


def test_what_takes_too_many_steps_is_passed_over() -> None:
    wide = "9" + "X" * 6
    assert losers(rules(wide, *(f"9{d}XXXXX" for d in CHARS))) == {wide}
    assert losers(rules(wide, *(f"9XXXXX{d}" for d in CHARS))) == set()


@pytest.mark.parametrize(
    ("some", "expected"),
    [
        (rules("0721", "07"), {("0721", "07")}),
        (rules("0721", "07", "0"), {("0721", "07"), ("07", "0")}),
        (rules("0721", "07="), set()),
        (rules("072=", "07X="), {("072", "07X")}),
        (rules("072", "07X="), set()),
        (rules("0721X", "07X1", "07X"), {("0721X", "07X1"), ("07X1", "07X")}),
        (rules("07X1", "0X21"), set()),
        (rules("072X", "0721"), {("0721", "072X")}),
        (rules("100@carrier", "100"), {("100@carrier", "100")}),
        (rules("100@carrier", "10@other", "1"), {("100@carrier", "1"), ("10@other", "1")}),
        (rules("100", "10@carrier"), {("100", "10@carrier")}),
        (rules("100@carrier", "10@carrier", "10"), {("100@carrier", "10@carrier"), ("10@carrier", "10")}),
        (rules("100@carrier", "100="), set()),
        (rules("0721", "0722"), set()),
        ({}, set()),
    ],
)
def test_a_rule_is_inside_the_most_specific_one_that_has_all_its_numbers(
    some: Rules, expected: set[tuple[str, str]]
) -> None:
    assert overlaps(some) == expected


def test_of_two_that_are_the_same_the_first_one_stays() -> None:
    found = NumberCheck()
    first, second = Entry("0721", "acme", False), Entry("00390721", "bulk", False)
    assert found.add("+390721", "", first) is first
    assert found.add("+390721", "", second) is first
    assert found.add("+390721", "carrier", second) is second
    found.drop("+390721", "")
    assert found.add("+390721", "", second) is second
