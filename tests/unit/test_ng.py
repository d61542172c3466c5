"""rtpengine's answers as values."""

import pytest

from sipward import ng

VALUE = {"calls": ["acme/1@h/0", "é"], "created": -3, "tags": {"a": {"medias": []}}}
TEXT = "d5:callsl10:acme/1@h/02:ée7:createdi-3e4:tagsd1:ad6:mediasleeee".encode()


def test_a_value_goes_there_and_comes_back() -> None:
    assert ng.encode(VALUE) == TEXT  # type: ignore[arg-type]
    assert ng.decoded(TEXT) == VALUE


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_of_a_part_of_an_answer_there_is_more_to_come(length: int) -> None:
    assert ng.decoded(TEXT[:length]) is None
