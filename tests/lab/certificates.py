"""Certificates for the lab: authorities that the machines trust or not, and what they sign."""

import ipaddress
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Pair(NamedTuple):
    """A certificate with its chain, and its key, both PEM."""

    chain: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Both as files, in a folder that is made."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("chain.pem", self.chain), ("key.pem", self.key)):
            (folder / name).write_bytes(content)
        return folder / "chain.pem", folder / "key.pem"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as openssl shows it."""
        return x509.load_pem_x509_certificate(self.chain).fingerprint(hashes.SHA256()).hex(":").upper()


class Authority:
    """A CA of its own."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = _certificate(self._name, self._name, self._key, self._key, is_ca=True)
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, *names: str, days: int = 30) -> Pair:
        """A certificate for host names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(_name(names[0]), self._name, key, self._key, names=names, days=days)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), private)


def trusting(pem: bytes | str) -> ssl.SSLContext:
    """A TLS client that trusts this CA alone, and looks at the name it has asked for."""
    return ssl.create_default_context(cadata=pem.decode() if isinstance(pem, bytes) else pem)


def shown(peer: ssl.SSLSocket) -> set[str]:
    """The names in the certificate that a peer has shown."""
    certificate = x509.load_der_x509_certificate(peer.getpeercert(binary_form=True) or b"")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    names: Iterable[str] = (),
    days: int = 30,
    is_ca: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=max(0, -days) + 1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if is_ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    alternatives = [_alternative(name) for name in names]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
