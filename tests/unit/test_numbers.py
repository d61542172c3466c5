"""The spellings of a number, the shapes of rules, and which rule a number may match."""

import pytest

from sipward.numbers import Plan, candidates, canonical, dialled, read_shapes, shape, write_shapes

ITALY, GERMANY, NOWHERE = Plan("39"), Plan("49", national="0"), Plan()


@pytest.mark.parametrize(
    ("user", "number"),
    [
        ("0721405", "0721405"),
        ("+390721405", "+390721405"),
        ("+39-(0721) 40.5", "+390721405"),
        ("%2B39%200721405", "+390721405"),
        ("+390721405;npdi;rn=+39072100", "+390721405"),
        ("+390721405;ext=7", "+390721405"),
        ("+390721405:secret", "+390721405"),
        ("", ""),
        ("bob", ""),
        ("0721bob", ""),
        ("++39", ""),
        ("39+0721", ""),
        ("0721X", ""),
        ("\u0660\u0661", ""),
        ("1" * 33, ""),
    ],
)
def test_a_number_is_read_out_of_a_user_part(user: str, number: str) -> None:
    assert dialled(user) == number


@pytest.mark.parametrize(
    ("plan", "number", "one"),
    [
        (ITALY, "+390721405", "+390721405"),
        (ITALY, "00390721405", "+390721405"),
        (ITALY, "0721405", "+390721405"),
        (ITALY, "0721405XX", "+390721405XX"),
        (ITALY, "0049301", "+49301"),
        (GERMANY, "030123", "+4930123"),
        (GERMANY, "004930123", "+4930123"),
        (GERMANY, "110", "110"),
        (GERMANY, "0039072", "+39072"),
        (NOWHERE, "0721405", "0721405"),
        (NOWHERE, "00390721405", "+390721405"),
        (Plan("1", "011", "1"), "011390721", "+390721"),
        (Plan("1", "011", "1"), "12125550100", "+12125550100"),
        (Plan("", "", ""), "0039", "0039"),
    ],
)
def test_all_spellings_of_a_number_are_one(plan: Plan, number: str, one: str) -> None:
    assert canonical(number, plan) == one


RULES = ["+39072140512", "+390721405XX", "+39072140XX2", "+3907214XX12", "+3907214051", "+390721", "+39X", "+"]


def test_the_candidates_come_the_most_specific_first() -> None:
    shapes = read_shapes(write_shapes(map(shape, RULES)))
    assert list(candidates("+39072140512", shapes)) == [
        "+39072140512", "+390721405XX", "+39072140XX2", "+3907214XX12", "+3907214051", "+390721", "+39X", "+",
    ]  # fmt: skip
    assert list(candidates("+3907", shapes)) == ["+39X", "+"]
    assert list(candidates("", shapes)) == []


def test_fewer_x_win_among_rules_of_one_length() -> None:
    shapes = read_shapes(write_shapes(map(shape, ["XX", "X2", "1X", "12"])))
    assert list(candidates("12", shapes)) == ["12", "1X", "X2", "XX"]


def test_an_x_is_a_digit_and_no_plus() -> None:
    shapes = read_shapes(write_shapes(map(shape, ["XX", "+X", "X"])))
    assert list(candidates("+3", shapes)) == ["+X"]
    assert list(candidates("33", shapes)) == ["3X", "XX", "X"]


def test_shapes_are_written_once_and_none_is_none() -> None:
    assert write_shapes(map(shape, ["12", "34", "5X"])) == "2 2:1"
    assert read_shapes("") == ()
