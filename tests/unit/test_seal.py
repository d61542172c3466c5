"""Sealed texts: only who has the key can read or make one."""

import string
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest

from sipward.seal import TAG, Sealer

OLD, NEW = b"old" * 8, b"new" * 8
ALPHABET = string.ascii_letters + string.digits + "-_"
SEALER = Sealer([NEW])


@pytest.mark.parametrize("size", [0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 5000])
def test_what_was_sealed_opens_again_at_any_length(size: int) -> None:
    content = bytes(index * 7 & 0xFF for index in range(size))
    assert SEALER.open(b"kind", SEALER.seal(b"kind", content, b"call"), b"call") == content


def test_leading_zero_bytes_are_kept() -> None:
    assert SEALER.open(b"kind", SEALER.seal(b"kind", b"\0\0\1")) == b"\0\0\1"


def test_a_seal_is_a_word_that_a_uri_parameter_can_hold() -> None:
    for size in range(100):
        assert set(SEALER.seal(b"kind", bytes(size))) <= set(ALPHABET)


def test_the_same_content_has_the_same_seal_in_every_worker() -> None:
    assert Sealer([NEW]).seal(b"kind", b"x", b"y") == Sealer([NEW, OLD]).seal(b"kind", b"x", b"y")


def test_the_content_cannot_be_read_in_it() -> None:
    one, two = SEALER.seal(b"kind", b"\0" * 60), SEALER.seal(b"kind", b"\0" * 59 + b"\1")
    assert len(one) == len(two)
    assert sum(a == b for a, b in zip(one, two, strict=True)) < len(one) // 4


@pytest.mark.parametrize(
    ("kind", "bound"), [(b"other", b"call"), (b"kind", b"other"), (b"kind", b""), (b"kind", b"call "), (b"", b"call")]
)
def test_a_seal_of_another_kind_or_bound_to_another_context_stays_closed(kind: bytes, bound: bytes) -> None:
    assert SEALER.open(kind, SEALER.seal(b"kind", b"content", b"call"), bound) is None


def raw(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_content_and_context_cannot_be_shifted_into_each_other() -> None:
    shorter = urlsafe_b64encode(raw(SEALER.seal(b"kind", b"ab", b"c"))[:-1]).rstrip(b"=").decode()
    assert SEALER.open(b"kind", shorter, b"bc") is None


@pytest.mark.parametrize("size", [40, 64, 127, 200, 1000])
def test_all_of_a_long_content_is_hidden(size: int) -> None:
    masked = raw(SEALER.seal(b"kind", bytes(size)))[TAG:]
    assert bytes(4) not in masked
    assert len({masked[at : at + 8] for at in range(0, size - 8, 8)}) == len(range(0, size - 8, 8))


@pytest.mark.parametrize("content", [b"", b"a", b"ab", b"abc"])
def test_changing_any_one_character_closes_it(content: bytes) -> None:
    text = SEALER.seal(b"kind", content)
    for index in range(len(text)):
        for char in ALPHABET + "+/=. \n":
            if char != text[index]:
                assert SEALER.open(b"kind", text[:index] + char + text[index + 1 :]) is None


def test_cutting_or_lengthening_it_closes_it() -> None:
    text = SEALER.seal(b"kind", b"content")
    for length in range(len(text)):
        assert SEALER.open(b"kind", text[:length]) is None
        assert SEALER.open(b"kind", text[length + 1 :]) is None
    for more in ("A", "AA", "=", "==", "\n", " ", text):
        assert SEALER.open(b"kind", text + more) is None
        assert SEALER.open(b"kind", more + text) is None


@pytest.mark.parametrize("change", [str.upper, str.lower, str.swapcase])
def test_a_seal_in_another_case_stays_closed(change: "type[str]") -> None:
    text = SEALER.seal(b"kind", b"content")
    assert change(text) != text
    assert SEALER.open(b"kind", change(text)) is None


@pytest.mark.parametrize("text", ["", "A", "====", "é" * 20, "\ud800" * 20, "\0" * 20, "A" * (TAG - 1), "-" * 100_000])
def test_no_text_raises(text: str) -> None:
    assert SEALER.open(b"kind", text) is None


def test_two_keys_are_valid_while_they_are_rotated() -> None:
    before, during, after = Sealer([OLD]), Sealer([NEW, OLD]), Sealer([NEW])
    old = before.seal(b"kind", b"content")
    new = during.seal(b"kind", b"content")
    assert during.open(b"kind", old) == during.open(b"kind", new) == after.open(b"kind", new) == b"content"
    assert before.open(b"kind", new) is None
    assert after.open(b"kind", old) is None


@pytest.mark.parametrize("keys", [[], [b"short"], [NEW, b"short"]])
def test_weak_keys_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Sealer(keys)
