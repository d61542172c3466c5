"""What is bad is refused, and said in one line."""

import os
import random
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.pki import Authority, Pair
from sipward import own_ca
from sipward.certificate_check import check, covers, facts, read
from sipward.certificates import CertificateError, Certificates

CA = Authority()
OTHER = Authority("Other")
NAME = "sip.example.org"
GOOD = CA.issue(NAME, "www.example.org")
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CA.trust(tmp_path_factory.mktemp("ca") / "root.pem")


def test_a_good_one_is_taken(root: Path) -> None:
    found = check(NAME, GOOD.chain, GOOD.key, [root])
    assert found.names == (NAME, "www.example.org")
    assert (found.issuer, found.not_after - found.not_before) == ("CN=Lab intermediate", timedelta(days=90))


def test_the_root_may_be_in_the_file() -> None:
    check(NAME, GOOD.chain + CA.root.chain, GOOD.key, [])


def test_one_of_the_nodes_own_ca_is_taken(tmp_path: Path) -> None:
    issued = own_ca.issue(Certificates(tmp_path), NAME, NAME)
    check(NAME, issued.chain.read_bytes(), issued.key.read_bytes(), [])


def test_a_wildcard_covers_one_label() -> None:
    wild = CA.issue("*.example.org")
    chain = wild.chain + CA.root.chain
    for name in ("sip.example.org", "*.example.org"):
        check(name, chain, wild.key, [])
    for name in ("example.org", "a.b.example.org"):
        with pytest.raises(CertificateError, match=f"does not cover {name}: it is for "):
            check(name, chain, wild.key, [])
    assert not covers(("www.example.org",), "*.example.org")


def of(pair: Pair) -> tuple[bytes, bytes]:
    return pair.chain, pair.key


BAD: dict[str, tuple[Callable[[], tuple[bytes, bytes]], str]] = {
    "another's key": (lambda: (GOOD.chain, CA.issue(NAME).key), "the key is not the certificate's"),
    "a locked key": (lambda: (GOOD.chain, GOOD.locked(b"secret")), "the key is encrypted"),
    "no key": (lambda: (GOOD.chain, GOOD.chain), "there is no PEM private key"),
    "an empty key": (lambda: (GOOD.chain, b""), "there is no PEM private key"),
    "half a key": (lambda: (GOOD.chain, GOOD.key[:-40]), "the key's file is not whole"),
    "no certificate": (lambda: (GOOD.key, GOOD.key), "there is no PEM certificate"),
    "an empty file": (lambda: (b"", GOOD.key), "there is no PEM certificate"),
    "binary": (lambda: (bytes(range(256)), GOOD.key), "there is no PEM certificate"),
    "half a chain": (lambda: (GOOD.chain[:-40], GOOD.key), "the certificate's file is not whole"),
    "a damaged one": (
        lambda: (GOOD.chain.replace(GOOD.chain[100:110], b"AAAAAAAAAA"), GOOD.key),
        "certificate",
    ),
    "no intermediate": (
        lambda: (Pair(GOOD.links[:1], GOOD.private_key).chain, GOOD.key),
        "the chain is not complete: CN=Lab intermediate is neither in the file nor a CA known here",
    ),
    "an unknown root": (lambda: of(OTHER.issue(NAME)), "the chain is not complete: CN=Other root is neither"),
    "another's intermediate": (
        lambda: (Pair([GOOD.links[0], *OTHER.intermediate.links], GOOD.private_key).chain, GOOD.key),
        "the chain is out of order: certificate 2 in the file .CN=Other intermediate. has not issued certificate 1",
    ),
    "upside down": (
        lambda: (Pair([*reversed(GOOD.links)], GOOD.private_key).chain, CA.intermediate.key),
        "the chain is out of order",
    ),
    "another name": (lambda: of(CA.issue("www.example.org")), f"does not cover {NAME}: it is for www.example.org"),
    "no name": (lambda: of(CA.issue()), f"does not cover {NAME}: it is for no host name"),
    "an expired one": (lambda: of(CA.issue(NAME, begins=NOW - 90 * DAY, life=89 * DAY)), "it has expired: "),
    "one of tomorrow": (lambda: of(CA.issue(NAME, begins=NOW + DAY)), "it is not valid before "),
    "a weak key": (
        lambda: of(CA.issue(NAME, key=rsa.generate_private_key(65537, 1024))),
        "OpenSSL does not take it: EE_KEY_TOO_SMALL",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_bad_is_refused(case: str, root: Path) -> None:
    make, why = BAD[case]
    with pytest.raises(CertificateError, match=why) as refusal:
        check(NAME, *make(), [root])
    assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("which", ["certificate", "key"])
def test_whatever_is_in_a_file_it_is_taken_or_refused(which: str, root: Path) -> None:
    dice = random.Random(5)
    chain, key = GOOD.chain, GOOD.key
    pem = chain if which == "certificate" else key
    inner = pem.partition(b"-----\n")[2].partition(b"\n-----")[0]
    for _ in range(400):
        der = bytearray(b64decode(inner))
        for _ in range(dice.choice((1, 1, 2, 8))):
            der[dice.randrange(len(der))] = dice.randrange(256)
        broken = pem.replace(inner, b64encode(der))
        with suppress(CertificateError):
            check(NAME, *((broken, key) if which == "certificate" else (chain, broken)), [root])


def test_an_intermediate_that_has_expired_is_refused(root: Path) -> None:
    later = CA.intermediate.links[0].not_valid_after_utc + DAY
    with pytest.raises(CertificateError, match="CN=Lab intermediate, which has issued it, has expired"):
        check(NAME, *of(CA.issue(NAME, begins=NOW, life=2000 * DAY)), [root], later)


def test_a_file_of_cas_that_has_changed_is_read_again(tmp_path: Path) -> None:
    roots = OTHER.trust(tmp_path / "roots.pem")
    with pytest.raises(CertificateError, match="not complete"):
        check(NAME, *of(GOOD), [roots])
    CA.trust(roots)
    check(NAME, *of(GOOD), [roots])


@pytest.mark.parametrize("what", ["missing", "a folder", "a device", "too large"])
def test_a_file_that_cannot_be_read_is_named(what: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    match what:
        case "a folder":
            path.mkdir()
        case "a device":
            path = Path("/dev/zero")
        case "too large":
            path.touch()
            os.truncate(path, 1 << 30)
    with pytest.raises(CertificateError, match=f"{path}: is "):
        read(path)


def test_it_is_due_with_a_third_of_its_life_left() -> None:
    begins = NOW - 10 * DAY
    found = facts(CA.issue(NAME, begins=begins, life=90 * DAY).chain)
    assert not found.is_due(begins + 60 * DAY - DAY)
    assert found.is_due(begins + 60 * DAY)
