"""What a node starts with, and what is fetched."""

from pathlib import Path

import pytest

from lab.pki import AUTHORITY
from sipward import acme_client
from sipward.addresses import Addresses, resolve
from sipward.certificate_names import Acme, Files
from sipward.certificate_sources import fetch, prepare
from sipward.certificates import CertificateError, Certificates
from sipward.settings import Settings

FQDN = "sip.example.org"


def node(place: Path, lets_encrypt: bool = False, **certificates: object) -> tuple[Settings, Addresses]:
    known = {"ca_file": str(AUTHORITY.trust(place / "roots.pem")), **certificates}
    settings = Settings(
        fqdn=FQDN,
        state_dir=place / "state",
        network={"address": "203.0.113.5"},
        lets_encrypt=lets_encrypt,
        certificates=known,
    )
    return settings, resolve(settings)


def origin(place: Path) -> str:
    there = Certificates(place / "state").get(FQDN)
    return there.origin if there else ""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {"certificate": tmp_path / "chain.pem", "key": tmp_path / "key.pem"}
    AUTHORITY.issue(FQDN).put(*found.values())
    return found


def test_a_node_starts_with_one_of_its_own_ca(tmp_path: Path) -> None:
    prepare(*node(tmp_path))
    assert origin(tmp_path) == "own CA 203.0.113.5"


def test_a_node_starts_with_its_file_if_that_is_good(tmp_path: Path, files: dict[str, Path]) -> None:
    prepare(*node(tmp_path, **files))
    assert origin(tmp_path) == str(files["certificate"])


@pytest.mark.parametrize("what", ["bad", "missing"])
def test_for_a_bad_file_another_one_stands_in(what: str, tmp_path: Path, files: dict[str, Path]) -> None:
    if what == "bad":
        files["key"].write_bytes(AUTHORITY.issue(FQDN).key)
    else:
        files["key"].unlink()
    prepare(*node(tmp_path, **files))
    assert origin(tmp_path) == "own CA"


def test_a_start_does_not_wait_for_a_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acme_client, "order", lambda *_: pytest.fail("asked"))
    prepare(*node(tmp_path, lets_encrypt=True))
    assert origin(tmp_path) == "own CA"


def test_what_is_there_stays_whatever_is_wanted(tmp_path: Path, files: dict[str, Path]) -> None:
    prepare(*node(tmp_path))
    prepare(*node(tmp_path, **files))
    assert origin(tmp_path) == "own CA 203.0.113.5"


def test_what_has_not_changed_is_not_new(tmp_path: Path, files: dict[str, Path]) -> None:
    source = Files(files["certificate"], files["key"])
    first = fetch(*node(tmp_path), FQDN, source)
    assert fetch(*node(tmp_path), FQDN, source) == first
    AUTHORITY.issue(FQDN).put(*files.values())
    assert fetch(*node(tmp_path), FQDN, source) != first


def test_what_a_ca_issues_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Acme("https://ca.example/dir")
    other = AUTHORITY.issue("other.example")
    monkeypatch.setattr(acme_client, "order", lambda *_: (other.chain, other.key))
    with pytest.raises(CertificateError, match=f"does not cover {FQDN}"):
        fetch(*node(tmp_path), FQDN, source)
    assert origin(tmp_path) == ""
