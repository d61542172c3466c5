"""Whether a certificate can be used for a name: asked before it is, so that what is bad never replaces what is good.

Every refusal is one line for people.
"""

import re
import ssl
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sipward.certificates import CertificateError, write

_LARGEST = 1 << 20
"""Bytes of a file: what is larger is no certificate."""
_BEGIN = re.compile(rb"^-----BEGIN ", re.MULTILINE)
_BLOCK = re.compile(rb"^-----BEGIN CERTIFICATE-----.*?^-----END CERTIFICATE-----", re.MULTILINE | re.DOTALL)
_END = re.compile(rb"^-----END .*-----\s*$", re.MULTILINE)


class Facts(NamedTuple):
    """What a certificate says of itself."""

    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    """UTC."""
    not_after: datetime
    """UTC; of the chain's certificates the first that expires."""
    serial: str
    """In hexadecimal, as openssl shows it."""
    sha256: str
    """The fingerprint, in the same way."""

    def is_due(self, now: datetime) -> bool:
        """Whether no more than a third of its life is left."""
        return self.not_after - now <= (self.not_after - self.not_before) / 3


def read(path: Path) -> bytes:
    """Read a file that somebody else may be writing. Raises CertificateError."""
    try:
        if not path.is_file():
            raise CertificateError(f"{path}: {'is no file' if path.exists() else 'is not there'}")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise CertificateError(f"{path}: is larger than {_LARGEST} bytes")
    return content


def facts(chain: bytes) -> Facts:
    """What a certificate says, good or bad. Raises CertificateError when it is none."""
    with _readable():
        return _facts(_certificates(chain))


@lru_cache(4096)
def installed(chain: Path) -> Facts:
    """What a certificate says that is in use: its file never changes."""
    return facts(chain.read_bytes())


def check(name: str, chain: bytes, key: bytes, roots: Sequence[Path] | None, now: datetime | None = None) -> Facts:
    """See whether a PEM chain and key serve a name (a host name, or `*.` and a domain). Raises CertificateError.

    `roots`: files of CA certificates that need not be in the chain; what the machine trusts is known anyway. None: the
    chain may lead to a root that nobody here knows.
    """
    with _readable():
        links = _certificates(chain)
        found = _facts(links)
        _check_key(links[0], key)
        _check_links(links)
        if roots is not None:
            _check_root(links[-1], roots)
        _check_time(links, now or datetime.now(UTC))
    if not covers(found.names, name):
        raise CertificateError(f"does not cover {name}: it is for {', '.join(found.names) or 'no host name'}")
    _check_openssl(chain, key)
    return found


def covers(names: Sequence[str], name: str) -> bool:
    """Whether a certificate's names cover one: a wildcard stands for one label (RFC 6125, 6.4.3)."""
    return name in names or f"*.{name.partition('.')[2]}" in names


@contextmanager
def _readable() -> Iterator[None]:
    """What is no certificate in some field shows only when that field is read."""
    try:
        yield
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise CertificateError(f"it has something that cannot be read: {' '.join(str(error).split())}") from None


def _facts(links: Sequence[x509.Certificate]) -> Facts:
    leaf = links[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        dns = ()
    expires = min(link.not_valid_after_utc for link in links)
    return Facts(
        dns,
        leaf.issuer.rfc4514_string(),
        leaf.not_valid_before_utc,
        expires,
        f"{leaf.serial_number:X}",
        leaf.fingerprint(SHA256()).hex(":").upper(),
    )


def _certificates(chain: bytes) -> list[x509.Certificate]:
    if not _is_whole(chain):
        raise CertificateError("the certificate's file is not whole")
    try:
        return x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise CertificateError("there is no PEM certificate in the file, or one that cannot be read") from None


def _is_whole(pem: bytes) -> bool:
    """Whether every block that begins also ends: what is cut off is no error to who reads block by block."""
    return len(_BEGIN.findall(pem)) == len(_END.findall(pem))


def _check_key(leaf: x509.Certificate, pem: bytes) -> None:
    if not _is_whole(pem):
        raise CertificateError("the key's file is not whole")
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise CertificateError("the key is encrypted: it must be readable without a password") from None
    except Exception:  # UnsupportedAlgorithm, ValueError and more: whatever it is, it is no key for us
        raise CertificateError("there is no PEM private key in the key's file, or one that cannot be read") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise CertificateError("the key is not the certificate's")


def _check_links(links: Sequence[x509.Certificate]) -> None:
    for number, (link, issuer) in enumerate(pairwise(links), start=1):
        if not _is_issued_by(link, issuer):
            raise CertificateError(
                f"the chain is out of order: certificate {number + 1} in the file "
                f"({issuer.subject.rfc4514_string()}) has not issued certificate {number}"
            )


def _check_root(last: x509.Certificate, roots: Sequence[Path]) -> None:
    if _is_issued_by(last, last):
        return
    known = [root for path in roots for root in _roots(read(path))] + _system_roots()
    if not any(_is_issued_by(last, root) for root in known if root.subject == last.issuer):
        raise CertificateError(
            f"the chain is not complete: {last.issuer.rfc4514_string()} is neither in the file nor a CA known here "
            "(certificates.ca_file)"
        )


def _is_issued_by(link: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        link.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


@cache
def _system_roots() -> list[x509.Certificate]:
    place = ssl.get_default_verify_paths().cafile
    return _roots(Path(place).read_bytes()) if place else []


def _roots(pem: bytes) -> list[x509.Certificate]:
    found = []
    with warnings.catch_warnings(action="ignore"):
        for block in _BLOCK.findall(pem):
            # Not all of the machine's keep to the rules of today; one that cannot be read is nobody's issuer.
            with suppress(ValueError):
                found.append(x509.load_pem_x509_certificate(block))
    return found


def _check_time(links: Sequence[x509.Certificate], now: datetime) -> None:
    for link in links:
        what = "it" if link is links[0] else f"{link.subject.rfc4514_string()}, which has issued it,"
        if now < link.not_valid_before_utc:
            raise CertificateError(f"{what} is not valid before {_shown(link.not_valid_before_utc)}")
        if now >= link.not_valid_after_utc:
            raise CertificateError(f"{what} has expired: {_shown(link.not_valid_after_utc)}")


def _shown(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _check_openssl(chain: bytes, key: bytes) -> None:
    """The same library serves it later, and refuses weak keys and digests by its own rules."""
    with TemporaryDirectory() as place:
        files = Path(place) / "chain.pem", Path(place) / "key.pem"
        for path, content in zip(files, (chain, key), strict=True):
            write(path, content)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(*files)
        except ssl.SSLError as error:
            raise CertificateError(f"OpenSSL does not take it: {error.reason or error}") from None
