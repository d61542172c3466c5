"""Certificates brought from where they come from: fetched, checked, and only then used."""

from contextlib import suppress
from datetime import datetime

from sipward import own_ca
from sipward.addresses import Addresses
from sipward.certificate_check import check, installed, read
from sipward.certificate_names import Acme, Files, OwnCa, Source, wanted
from sipward.certificates import Certificate, CertificateError, Certificates
from sipward.settings import Settings


def prepare(settings: Settings, addresses: Addresses) -> None:
    """See to it that the node's own name has a certificate: of its own CA, when no better one can be had at once."""
    certificates, name = Certificates(settings.state_dir), settings.fqdn
    if certificates.get(name) is None:
        with suppress(CertificateError):
            source = wanted(settings, addresses)[name]
            if not isinstance(source, Acme):
                fetch(settings, addresses, name, source)
    if certificates.get(name) is None:
        own_ca.issue(certificates, name, name)


def fetch(settings: Settings, addresses: Addresses, name: str, source: Source) -> Certificate:
    """Bring a name's certificate from its source now, and use it. Raises CertificateError: what was there goes on."""
    certificates = Certificates(settings.state_dir)
    match source:
        case OwnCa(own):
            return own_ca.issue(certificates, name, settings.fqdn, own)
        case Files():
            chain, key = read(source.chain), read(source.key)
            check(name, chain, key, [ca] if (ca := settings.certificates.ca_file) else [])
        case Acme():
            from sipward import acme_client  # noqa: PLC0415 - it brings much that nobody else needs

            chain, key = acme_client.order(settings, addresses, name)
            # What a CA issues leads to its own root (RFC 8555, 9.1), be that known here or not.
            check(name, chain, key, None)
    there = certificates.get(name)
    if there and there.is_same(chain, key, source.origin):
        return there
    return certificates.install(name, chain, key, source.origin)


def is_due(certificate: Certificate | None, source: Source, now: datetime) -> bool:
    """Whether another one is wanted in its place: it comes from elsewhere, or a third of its life is left."""
    if certificate is None or certificate.origin != source.origin:
        return True
    return installed(certificate.chain).is_due(now)
