"""The door that is open for a CA: only while a challenge runs, and for nothing else."""

import os
from http.client import HTTPConnection
from ipaddress import ip_address

import pytest

from sipward.acme_client import PORT, answering
from sipward.addresses import Addresses
from sipward.certificates import CertificateError

HERE = f"127.{os.getpid() >> 16 & 0xFF}.{os.getpid() >> 8 & 0xFF}.{(os.getpid() & 0xFF) or 1}"
"""A loopback address that nobody else has."""
PATH = "/.well-known/acme-challenge/token"


def addresses(*outside: str) -> Addresses:
    own = tuple(map(ip_address, outside))
    return Addresses(outside=own, public=own, service=own, attached=())


def get(path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = HTTPConnection(HERE, PORT, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_answers_the_challenge_and_nothing_else() -> None:
    with answering(addresses(HERE), {PATH: "proof"}):
        assert get(PATH) == (200, b"proof")
        for other in ("/", "/.well-known/acme-challenge/", f"{PATH}x", "/../etc/passwd"):
            assert get(other) == (404, b"")
        assert get(PATH, "POST")[0] == 501
    with pytest.raises(ConnectionRefusedError):
        get(PATH)


def test_without_a_challenge_it_is_not_open_at_all() -> None:
    with answering(addresses(HERE), {}), pytest.raises(ConnectionRefusedError):
        get(PATH)


def test_it_is_closed_too_when_the_order_fails() -> None:
    with pytest.raises(ZeroDivisionError), answering(addresses(HERE), {PATH: "proof"}):
        _ = 1 / 0
    with pytest.raises(ConnectionRefusedError):
        get(PATH)


def test_an_address_that_cannot_be_listened_at_is_named_and_no_other_stays_open() -> None:
    with (
        pytest.raises(CertificateError, match=r"cannot listen on tcp 198\.18\.0\.1:80 for the CA: Cannot assign"),
        answering(addresses(HERE, "198.18.0.1"), {PATH: "proof"}),
    ):
        pass
    with pytest.raises(ConnectionRefusedError):
        get(PATH)
