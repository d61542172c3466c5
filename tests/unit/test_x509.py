"""Whose a certificate is."""

from contextlib import suppress

import pytest
from cryptography import x509 as reference
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from lab.pki import Authority
from sipward import x509

AUTHORITY = Authority()


def read(*names: str) -> x509.Certificate:
    certificate = x509.read(AUTHORITY.issue(*names).chain.decode())
    assert certificate
    return certificate


@pytest.mark.parametrize(
    ("names", "host", "is_its"),
    [
        (["sip.carrier.example"], "sip.carrier.example", True),
        (["sip.carrier.example"], "SIP.Carrier.Example.", True),
        (["SIP.carrier.example"], "sip.carrier.example", True),
        (["sip.carrier.example"], "carrier.example", False),
        (["sip.carrier.example"], "x.sip.carrier.example", False),
        (["a.example", "b.example"], "b.example", True),
        (["*.carrier.example"], "sip.carrier.example", True),
        (["*.carrier.example"], "carrier.example", False),
        (["*.carrier.example"], "a.sip.carrier.example", False),
        (["*.carrier.example"], "", False),
        (["203.0.113.80"], "203.0.113.80", True),
        (["203.0.113.80"], "203.0.113.81", False),
        (["2001:db8::80"], "2001:DB8:0::80", True),
        (["*.0.113.80"], "203.0.113.80", False),
        ([f"host{number}.carrier.example" for number in range(100)], "host99.carrier.example", True),
    ],
)
def test_a_certificate_is_of_the_names_in_it(names: list[str], host: str, is_its: bool) -> None:
    assert read(*names).is_of(host) is is_its


def test_a_common_name_is_no_name() -> None:
    """Also one of a certificate without alternative names: its subject is `nobody`."""
    assert read().names == ()
    assert not read().is_of("nobody")


def test_the_fingerprint_is_that_of_the_first_certificate() -> None:
    pair = AUTHORITY.issue("sip.carrier.example", key=rsa.generate_private_key(65537, 2048))
    certificate = x509.read(pair.chain.decode())
    assert certificate
    assert certificate.fingerprint == pair.links[0].fingerprint(hashes.SHA256()).hex()


def test_a_sip_domain_in_a_uri_is_a_name_and_nothing_else_is() -> None:
    uris = ["sip:carrier.example", "sip:user@other.example", "https://web.example", "sip:x.example;transport=tcp"]
    names = reference.SubjectAlternativeName(list(map(reference.UniformResourceIdentifier, uris)))
    found = [x509._name(tag, content) for tag, content in x509._elements(x509._first(names.public_bytes()))]
    assert found == ["carrier.example", "", "", ""]


@pytest.mark.parametrize("pem", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "x"])
def test_what_cannot_be_read_is_nobodys(pem: str) -> None:
    found = x509.read(pem)
    assert found is None or not found.names


def test_no_part_of_a_certificate_does_more_than_make_it_unreadable() -> None:
    """Whatever is changed or missing: never an exception but those that are taken for unreadable."""
    whole = AUTHORITY.issue("sip.carrier.example").links[0].public_bytes(Encoding.DER)
    for at in range(len(whole)):
        for der in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            with suppress(ValueError, IndexError):
                list(x509._names(der))
