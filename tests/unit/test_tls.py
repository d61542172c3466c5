"""Which certificate answers for which name."""

from pathlib import Path
from typing import Literal

import pytest

from sipward.certificates import Certificate
from sipward.settings import ProfileSettings, TlsSettings
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


PHONES = TlsSettings(client_ca=Path("/phones.pem"))


@pytest.mark.parametrize(("how", "verified"), [("optional", "optional"), ("required", "on")])
def test_phones_are_asked_for_certificates_under_every_name(
    how: Literal["optional", "required"], verified: str
) -> None:
    chosen = PHONES.model_copy(update={"client_certificates": how})
    text = profiles("x.example", map(certificate, ["a.example", "x.example"]), chosen)
    for section in sections(text)[:-1]:
        assert 'ca_list = "/phones.pem"' in section
        assert f"verify_client = {verified}" in section
    assert "verify_client" not in "".join(sections(text)[-1])


def test_without_their_ca_phones_are_asked_for_none() -> None:
    assert "verify" not in profiles("x.example", [certificate("x.example")])


def test_a_carrier_is_asked_by_the_cas_of_the_machine_or_by_those_of_its_profile_alone() -> None:
    profile = ProfileSettings(ca=Path("/a.pem"), certificate=Path("/b.pem"), key=Path("/c.pem"))
    chosen = TlsSettings(profiles={"telco": profile, "plain": ProfileSettings()})
    text = profiles("x.example", [certificate("x.example")], chosen, Path("/more.pem"))
    default, plain, telco = sections(text)[-3:]
    machine = ['ca_path = "/etc/ssl/certs"', 'ca_list = "/more.pem"']
    assert (default[0], default[-2:]) == ("[client:default]", machine)
    assert (plain[:2], plain[-2:]) == (["[client:any]", "server_id = plain"], machine)
    assert telco[1] == "server_id = telco"
    assert telco[-3:] == ['ca_list = "/a.pem"', 'certificate = "/b.pem"', 'private_key = "/c.pem"']
    assert "ca_path" not in "".join(telco)
