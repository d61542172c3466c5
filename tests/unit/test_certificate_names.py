"""Which names have a certificate, and where it comes from."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from sipward.addresses import Addresses, resolve
from sipward.certificate_names import Acme, Files, OwnCa, folded, note, noted, source_of, wanted
from sipward.certificates import CertificateError, Certificates
from sipward.settings import Settings

OWN = OwnCa((ip_address("203.0.113.5"),))
FILES = Files(Path("/etc/a.pem"), Path("/etc/a.key"))


def node(state: Path, **fields: object) -> tuple[Settings, Addresses]:
    settings = Settings(fqdn="sip.example.org", state_dir=state, network={"address": "203.0.113.5"}, **fields)
    return settings, resolve(settings)


@pytest.mark.parametrize(
    ("text", "name"),
    [("PBX.Example.org.", "pbx.example.org"), ("*.example.org", "*.example.org"), ("localhost", "localhost")],
)
def test_a_name_is_folded(text: str, name: str) -> None:
    assert folded(text) == name


@pytest.mark.parametrize("text", ["", "*", "*.", "*.org", "a.*.example", "../a", "a/b", ".hidden", "_acme", "1.2.3.4"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(CertificateError, match="must be a host name such as"):
        folded(text)


def test_the_nodes_own_certificate_is_of_its_own_ca_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    in_folder = {"folder": str(folder)}
    assert wanted(*node(tmp_path)) == {"sip.example.org": OWN}
    (folder / "sip.example.org.crt").touch()
    file = Files(folder / "sip.example.org.crt", folder / "sip.example.org.key")
    assert wanted(*node(tmp_path, certificates=in_folder)) == {"sip.example.org": file}
    given = {"certificate": "/etc/a.pem", "key": "/etc/a.key"}
    assert wanted(*node(tmp_path, certificates=in_folder | given)) == {"sip.example.org": FILES}
    assert wanted(*node(tmp_path, certificates=in_folder, lets_encrypt=True)) == {
        "sip.example.org": Acme("https://acme-v02.api.letsencrypt.org/directory")
    }


def test_the_folder_holds_names_and_whatever_else_somebody_puts_there(tmp_path: Path) -> None:
    for name in ("a.example.crt", "a.example.key", "_.b.example.crt", "not a name.crt", "_bad.crt", "c.example.pem"):
        (tmp_path / name).touch()
    found = wanted(*node(tmp_path, certificates={"folder": str(tmp_path)}))
    assert found == {
        "a.example": Files(tmp_path / "a.example.crt", tmp_path / "a.example.key"),
        "*.b.example": Files(tmp_path / "_.b.example.crt", tmp_path / "_.b.example.key"),
        "sip.example.org": OWN,
    }


def test_what_was_asked_for_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    settings, own = node(tmp_path, acme={"directory": "https://ca.example/dir"})
    assert noted(settings) == {}
    sources = {"a.example": Acme("https://ca.example/dir"), "*.b.example": FILES, "c.example": OwnCa()}
    for name, source in sources.items():
        note(settings, name, source)
    assert noted(settings) == sources
    note(settings, "a.example", None)
    note(settings, "never.example", None)
    assert wanted(settings, own) == {"*.b.example": FILES, "c.example": OwnCa(), "sip.example.org": OWN}
    assert source_of(settings, own, "c.example") == OwnCa()
    with pytest.raises(CertificateError, match=r"there is no certificate for a\.example"):
        source_of(settings, own, "a.example")


@pytest.mark.parametrize("text", ["{", "[]", '{"a.example": {"from": "thin air"}}', '{"a.example": {}}'])
def test_a_file_that_was_damaged_is_named(text: str, tmp_path: Path) -> None:
    settings, _ = node(tmp_path)
    path = Certificates(tmp_path).names
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CertificateError, match=f"{path}: cannot be read"):
        noted(settings)
