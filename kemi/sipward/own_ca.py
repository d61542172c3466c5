"""The node's own CA, for networks without Internet and until a better certificate comes.

Elliptic curves (P-256): a handshake costs a twentieth of RSA's.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sipward.certificate_names import OwnCa
from sipward.certificates import Certificate, Certificates, alone, write
from sipward.hosts import Address

_CA_DAYS = 7300
_DAYS = 398
"""What the strictest of common TLS clients takes."""
_SLACK = timedelta(hours=24)
"""A certificate begins in the past: clocks of phones are late."""


def issue(certificates: Certificates, name: str, fqdn: str, addresses: Iterable[Address] = ()) -> Certificate:
    """Make and use a certificate for a name (a host name, or `*.` and a domain), and the CA if there is none.

    `fqdn` is what the CA is called after; `addresses` are covered too, for phones that know no name.
    """
    addresses = tuple(addresses)
    ca, ca_key = _ca(certificates, fqdn)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(name), *map(x509.IPAddress, addresses)]
    built = (
        _begun(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]), key, _DAYS)
        .issuer_name(ca.subject)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    chain = built.public_bytes(serialization.Encoding.PEM) + ca.public_bytes(serialization.Encoding.PEM)
    return certificates.install(name, chain, _pem(key), OwnCa(addresses).origin)


def _ca(certificates: Certificates, fqdn: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    with alone(certificates.ca.parent):
        if not certificates.ca.exists():
            _make_ca(certificates, fqdn)
    key = serialization.load_pem_private_key(certificates.ca_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(certificates.ca.read_bytes()), key


def _make_ca(certificates: Certificates, fqdn: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sipward"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {fqdn}"[:64]),
        ]
    )
    built = (
        _begun(name, key, _CA_DAYS)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    # The certificate comes last: it says that all is there. A key without one is of a set-up that was broken off.
    certificates.ca_key.unlink(missing_ok=True)
    write(certificates.ca_key, _pem(key))
    write(certificates.ca, built.public_bytes(serialization.Encoding.PEM))


def _begun(subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
