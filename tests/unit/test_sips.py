"""sips URIs for who does not speak TLS."""

import pytest

from sipward.model import Endpoint
from sipward.sips import marked, own, plain
from sipward.uri import parse

UDP, TLS = Endpoint("udp", "10.5.4.11", 5060), Endpoint("tls", "10.5.4.11", 5061)


@pytest.mark.parametrize(
    ("contact", "shown"),
    [
        ("sips:alice@192.168.1.20:5061", "sip:alice@192.168.1.20:5061;sw-sips"),
        ("sips:[fe80::1];ob", "sip:[fe80::1];ob;sw-sips"),
        ("sips:alice@h;x=1?Subject=a", "sip:alice@h;x=1;sw-sips?Subject=a"),
        ("sip:alice@h;transport=tls", "sip:alice@h;transport=tls"),
    ],
)
def test_a_marked_contact_comes_back_as_it_was(contact: str, shown: str) -> None:
    uri = parse(contact)
    assert uri
    assert str(marked(uri)) == shown
    assert str(own(marked(uri))) == contact


def test_a_request_uri_is_plain_for_all_but_tls() -> None:
    uri = parse("sips:200@acme.example;user=phone")
    assert uri
    assert str(plain(uri, UDP)) == "sip:200@acme.example;user=phone"
    assert plain(uri, TLS) is None


def test_what_was_never_a_sips_uri_stays_the_very_same() -> None:
    uri = parse("sip:200@acme.example")
    assert uri
    assert plain(uri, UDP) is None
    assert own(uri) is uri
