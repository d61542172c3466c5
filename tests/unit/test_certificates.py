"""Where certificates are kept: whole pairs, for this user only, and nothing that is read vanishes."""

import stat
from pathlib import Path

from sipward.certificates import Certificates


def modes(place: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in place.rglob("*")}


def test_there_are_none_at_first(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    assert (certificates.usable(), certificates.get("sip.example.org")) == ([], None)


def test_names_and_wildcards_are_found_by_the_names_they_are_for(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    for name in ("sip.example.org", "*.example.org", "a.example.com"):
        installed = certificates.install(name, b"chain of " + name.encode(), b"key", "a test")
        assert installed == certificates.get(name)
    found = certificates.usable()
    assert [one.name for one in found] == ["*.example.org", "a.example.com", "sip.example.org"]
    assert [one.chain.read_text() for one in found] == [f"chain of {one.name}" for one in found]
    assert {one.key.read_text() for one in found} == {"key"}
    assert {one.origin for one in found} == {"a test"}


def test_they_are_at_their_names_paths(tmp_path: Path) -> None:
    Certificates(tmp_path).install("*.example.org", b"chain", b"key", "a test")
    place = tmp_path / "certificates" / "_.example.org"
    assert ((place / "fullchain.pem").read_text(), (place / "key.pem").read_text()) == ("chain", "key")


def test_files_are_for_this_user_only(tmp_path: Path) -> None:
    Certificates(tmp_path).install("sip.example.org", b"chain", b"key", "a test")
    assert modes(tmp_path) == {(True, 0o700), (False, 0o600)}


def test_a_new_one_leaves_the_files_of_the_old_one_until_it_is_tidied_up(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    old = certificates.install("sip.example.org", b"old", b"old key", "a test")
    new = certificates.install("sip.example.org", b"new", b"new key", "a test")
    assert certificates.usable() == [new]
    assert (old.chain.read_text(), old.key.read_text()) == ("old", "old key")
    certificates.tidy(f"certificate = {old.chain}")
    assert old.chain.exists()
    certificates.tidy("")
    assert not old.chain.parent.exists()
    assert (new.chain.read_text(), new.key.read_text()) == ("new", "new key")


def test_what_is_removed_is_not_used(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificates.install("*.example.org", b"chain", b"key", "a test")
    certificates.remove("*.example.org")
    # As an installation leaves it that was broken off.
    (tmp_path / "certificates" / ".a.example.org.1.link").symlink_to(".a.example.org.1")
    certificates.remove("never.example.org")
    assert certificates.usable() == []
    certificates.tidy("")
    assert list((tmp_path / "certificates").iterdir()) == []
