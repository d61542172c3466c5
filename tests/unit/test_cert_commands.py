"""`sipward cert`: what it says, keeps and forgets, without a node that runs."""

import json
from pathlib import Path

import pytest
from shell import Shell

from lab.pki import AUTHORITY, Pair
from sipward.certificates import Certificates

FQDN = "sip.example.org"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A certificate for two names from a CA that is known here, and its key."""
    monkeypatch.setenv("SIPWARD_CERTIFICATES__CA_FILE", str(AUTHORITY.trust(tmp_path / "roots.pem")))
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    AUTHORITY.issue("a.example", "*.b.example").put(chain, key)
    return str(chain), str(key)


def listed(shell: Shell) -> dict[str, dict[str, str]]:
    return {one["name"]: one for one in json.loads(shell.ok("cert", "list", "--json"))}


def test_a_name_is_added_shown_listed_renewed_and_removed(shell: Shell, files: tuple[str, str]) -> None:
    added = shell.ok("cert", "add", "A.example.", "--certificate", files[0], "--key", files[1])
    assert added.startswith(f"certificate for a.example from {files[0]} taken; it expires 20")
    shown = json.loads(shell.ok("cert", "show", "a.example", "--json"))
    assert (shown["from"], shown["issuer"]) == (files[0], "CN=Lab intermediate")
    assert shown["names"] == ["a.example", "*.b.example"]
    assert f"issuer      {shown['issuer']}\n" in shell.ok("cert", "show", "a.example")
    assert "a.example" in shell.ok("cert", "list")
    assert "is the one that is in use" in shell.ok("cert", "renew", "a.example")
    AUTHORITY.issue("a.example").put(*map(Path, files))
    assert "taken" in shell.ok("cert", "renew", "a.example")
    assert listed(shell)["a.example"]["sha256"] != shown["sha256"]
    assert shell.ok("cert", "rm", "a.example") == "certificate for a.example removed\n"
    assert shell.fails(1, "cert", "show", "a.example") == "there is no certificate for a.example"
    assert shell.fails(1, "cert", "renew", "a.example") == "there is no certificate for a.example"
    assert shell.fails(1, "cert", "rm", "a.example") == "there is no certificate for a.example"


def test_the_nodes_own_name_is_listed_before_it_has_one(shell: Shell) -> None:
    assert listed(shell) == {FQDN: {"name": FQDN, "problem": "there is none yet"}}
    shell.ok("cert", "renew", FQDN)
    shown = json.loads(shell.ok("cert", "show", FQDN, "--json"))
    assert shown["from"] == "own CA 203.0.113.5"
    assert Path(shown["ca"]).read_text().startswith("-----BEGIN CERTIFICATE-----")


def test_another_source_must_be_meant(shell: Shell, files: tuple[str, str]) -> None:
    shell.ok("cert", "add", "*.b.example", "--own-ca")
    by_file = ("cert", "add", "*.b.example", "--certificate", files[0], "--key", files[1])
    assert shell.fails(2, *by_file) == "the certificate for *.b.example exists: --replace gets another one"
    assert listed(shell)["*.b.example"]["from"] == "own CA"
    shell.ok(*by_file, "--replace")
    assert listed(shell)["*.b.example"]["from"] == files[0]


def test_what_cannot_be_used_is_not_kept(shell: Shell, files: tuple[str, str], tmp_path: Path) -> None:
    by_file = ("--certificate", files[0], "--key", files[1])
    assert "does not cover c.example" in shell.fails(1, "cert", "add", "c.example", *by_file)
    Pair(AUTHORITY.issue("a.example").links, AUTHORITY.issue("a.example").private_key).put(*map(Path, files))
    assert shell.fails(1, "cert", "add", "a.example", *by_file) == "the key is not the certificate's"
    assert listed(shell).keys() == {FQDN}
    assert Certificates(tmp_path).usable() == []


WRONG = {
    "no source": (("add", "a.example"), "give one of --lets-encrypt, --own-ca, or --certificate and --key"),
    "two sources": (("add", "a.example", "--own-ca", "--lets-encrypt"), "give one of --lets-encrypt"),
    "half a source": (("add", "a.example", "--certificate", "/a"), "give one of --lets-encrypt"),
    "no name": (("add", "a b", "--own-ca"), "'a b': must be a host name such as pbx.example.org"),
    "its own name": (("add", FQDN, "--own-ca"), f"{FQDN} is the node's own name"),
    "its own name goes": (("rm", FQDN), f"{FQDN} is the node's own name"),
    "a wildcard by HTTP": (("add", "*.a.example", "--lets-encrypt"), "a wildcard cannot be had by HTTP-01"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_one_line(what: str, shell: Shell) -> None:
    words, line = WRONG[what]
    assert line in shell.fails(2, "cert", *words)


def test_a_name_of_the_folder_goes_with_its_files(
    shell: Shell, files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setenv("SIPWARD_CERTIFICATES__FOLDER", str(folder))
    AUTHORITY.issue("ns8.example").put(folder / "ns8.example.crt", folder / "ns8.example.key")
    shell.ok("cert", "renew", "ns8.example")
    assert f"ns8.example has its files in {folder}" in shell.fails(1, "cert", "rm", "ns8.example")
    (folder / "ns8.example.crt").unlink()
    shell.ok("cert", "rm", "ns8.example")
