"""Which certificate answers for which name."""

from pathlib import Path

import pytest

from sipward.certificates import Certificate
from sipward.tls import profiles


def certificate(name: str, folder: str = "/state") -> Certificate:
    place = Path(folder) / name.replace("*", "_")
    return Certificate(name, place / "fullchain.pem", place / "key.pem")


def sections(text: str) -> list[list[str]]:
    return [part.strip().splitlines() for part in text.split("\n\n")]


def test_who_asks_for_no_known_name_gets_the_nodes_own() -> None:
    default, named, client = sections(profiles("sip.example.org", [certificate("sip.example.org")]))
    served = ['certificate = "/state/sip.example.org/fullchain.pem"', 'private_key = "/state/sip.example.org/key.pem"']
    assert (default[0], default[-2:]) == ("[server:default]", served)
    assert (named[:2], named[-2:]) == (["[server:any]", "server_name = sip.example.org"], served)
    assert client[0] == "[client:default]"


def test_each_profile_says_what_may_be_agreed_upon() -> None:
    for section in sections(profiles("sip.example.org", map(certificate, ["a.example", "sip.example.org"]))):
        assert "method = TLSv1.2+" in section
        assert any(line.startswith("cipher_list = ") for line in section)


def test_a_name_comes_before_its_wildcard_and_a_long_one_before_a_short_one() -> None:
    """Kamailio takes the last section that fits."""
    names = ["*.b.example.org", "*.example.org", "a.b.example.org", "sip.example.org", "z.example"]
    found = sections(profiles("sip.example.org", map(certificate, names)))[1:-1]
    order = [line.removeprefix("server_name = ") for section in found for line in section if "server_name =" in line]
    assert order == ["example.org", "b.example.org", "z.example", "sip.example.org", "a.b.example.org"]
    assert ["server_name_mode = 2" in section for section in found] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("folder", "written"), [("/a b", "/a b"), ('/a"b', r"/a\"b"), ("/a\\b", r"/a\\b"), ("/a#b", "/a#b")]
)
def test_a_path_is_written_as_kamailio_reads_it(folder: str, written: str) -> None:
    text = profiles("x.example", [certificate("x.example", folder)])
    assert f'certificate = "{written}/x.example/fullchain.pem"' in text
