"""A certificate authority of the lab: a root, an intermediate, and what they issue for whoever needs it."""

import atexit
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from ipaddress import ip_address
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from lab.eventually import PATIENCE
from lab.network import Machine

_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, and those that lead to its root."""

    links: Sequence[x509.Certificate]
    private_key: CertificateIssuerPrivateKeyTypes

    @property
    def chain(self) -> bytes:
        """PEM, the certificate first; without the root."""
        return b"".join(link.public_bytes(Encoding.PEM) for link in self.links)

    @property
    def key(self) -> bytes:
        """PEM."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def serial(self) -> int:
        """The certificate's serial number: which one it is."""
        return self.links[0].serial_number

    def locked(self, password: bytes) -> bytes:
        """The key as PEM behind a password."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))

    def load(self, context: ssl.SSLContext) -> None:
        """Have a client or server show it; it reads files only."""
        with TemporaryDirectory() as folder:
            chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
            self.put(chain, key)
            context.load_cert_chain(chain, key)

    def put(self, chain: Path, key: Path) -> None:
        """Write both, as a program does that renews them: each file in one step."""
        for path, content in ((chain, self.chain), (key, self.key)):
            new = path.with_name(f".{path.name}.new")
            new.write_bytes(content)
            new.replace(path)


class Authority:
    """One CA with an intermediate below its root."""

    def __init__(self, name: str = "Lab") -> None:
        self.name = name

    @cached_property
    def root(self) -> Pair:
        return self._made(f"{self.name} root", (), None, is_ca=True, life=timedelta(days=3650))

    @cached_property
    def intermediate(self) -> Pair:
        return self._made(f"{self.name} intermediate", (), self.root, is_ca=True, life=timedelta(days=1000))

    def issue(
        self,
        *names: str,
        begins: datetime | None = None,
        life: timedelta = timedelta(days=90),
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> Pair:
        """A certificate for host names and addresses, from the intermediate; it begins an hour ago."""
        return self._made(names[0] if names else "nobody", names, self.intermediate, begins=begins, life=life, key=key)

    def trust(self, path: Path) -> Path:
        """Write the root for who trusts it."""
        path.write_bytes(self.root.chain)
        return path

    @staticmethod
    def _made(
        subject: str,
        names: Sequence[str],
        issuer: Pair | None,
        *,
        is_ca: bool = False,
        begins: datetime | None = None,
        life: timedelta,
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> Pair:
        own = key or ec.generate_private_key(ec.SECP256R1())
        signer = issuer.private_key if issuer else own
        begins = begins or datetime.now(UTC) - timedelta(hours=1)
        called = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(called)
            .issuer_name(issuer.links[0].subject if issuer else called)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + life)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if is_ca:
            usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True}
            builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(map(_name, names)), critical=False)
        made = builder.sign(signer, hashes.SHA256())
        above = [link for link in issuer.links if link.subject != link.issuer] if issuer else []
        return Pair([made, *above], own)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def trusting(roots: bytes) -> ssl.SSLContext:
    """A TLS client that trusts these roots (PEM) alone, and looks at the name it has asked for."""
    return ssl.create_default_context(cadata=roots.decode())


def names(peer: ssl.SSLSocket) -> set[str]:
    """The host names in the certificate that a peer has shown."""
    certificate = x509.load_der_x509_certificate(peer.getpeercert(binary_form=True) or b"")
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(alternatives.get_values_for_type(x509.DNSName))


AUTHORITY = Authority()
"""The one that nodes of the lab know, beyond those of the machine."""
PRIVATE = Authority("Private")
"""A carrier's own: it signs the carrier's certificate and, for mutual TLS, the node's."""


def served(machine: Machine, to: tuple[str, int], name: str = "") -> x509.Certificate:
    """The certificate that is shown to a machine which asks for a name, or for none."""

    def ask() -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(to, PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=name or None) as secured,
        ):
            return secured.getpeercert(binary_form=True)

    return x509.load_der_x509_certificate(machine.inside(ask) or b"")


@cache
def _folder() -> Path:
    """One for all nodes of a run: they are configured alike."""
    folder = Path(mkdtemp(prefix="sipward-pki-"))
    atexit.register(rmtree, folder, ignore_errors=True)
    return folder


@cache
def known() -> Path:
    """The file with the root that nodes know."""
    return AUTHORITY.trust(_folder() / "roots.pem")


@cache
def private_profile(name: str) -> dict[str, Path]:
    """The files of a node's profile for carriers with a CA of their own."""
    files = {what: _folder() / f"private-{what}.pem" for what in ("ca", "certificate", "key")}
    PRIVATE.trust(files["ca"])
    PRIVATE.issue(name).put(files["certificate"], files["key"])
    return files
