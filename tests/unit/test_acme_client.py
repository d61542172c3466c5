"""The door that is open for a CA: only while a challenge runs, and for nothing else."""

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest

from lab.pki import AUTHORITY, Authority
from sipward.acme_client import PORT, OrderError, answering, order
from sipward.addresses import Addresses
from sipward.certificates import CertificateError
from sipward.settings import Settings

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


# --- a CA that is none ------------------------------------------------------------------------------------------------


@contextmanager
def somebody(place: Path, answer: bytes) -> Iterator[str]:
    """An HTTPS server that says the same to everything; its URL."""
    files = place / "chain.pem", place / "key.pem"
    AUTHORITY.issue(HERE).put(*files)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(answer)

    with ThreadingHTTPServer((HERE, 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"https://{HERE}:{server.server_port}/dir"
        finally:
            server.shutdown()
            thread.join()


def said(body: str, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    return f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}".encode()


NONSENSE = {
    "a page": said("<html>", kind="text/html"),
    "nothing": b"",
    "no HTTP": b"\x00\x01\x02\r\n\r\n",
    "an empty object": said("{}"),
    "a list": said("[]"),
    "a number": said("1"),
    "no addresses": said('{"newNonce": 1, "newAccount": {}, "newOrder": []}'),
    "an error": said("oops", "500 Internal Server Error"),
    "an error with nothing in it": said("{}", "400 Bad Request", "application/problem+json"),
    "itself again and again": said("", "302 Found", more="Location: /dir\r\n"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_who_is_no_acme_server_is_named_in_one_line(what: str, tmp_path: Path) -> None:
    with somebody(tmp_path, NONSENSE[what]) as url, pytest.raises(OrderError) as refusal:
        order(node(tmp_path, url), addresses(HERE), "sip.example.org")
    assert str(refusal.value).startswith(f"{url}: ")
    assert "\n" not in str(refusal.value)
    assert " object at 0x" not in str(refusal.value)


def test_a_ca_that_is_busy_says_for_how_long(tmp_path: Path) -> None:
    problem = '{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates"}'
    answer = said(problem, "429 Too Many Requests", "application/problem+json", "Retry-After: 3600\r\n")
    with somebody(tmp_path, answer) as url, pytest.raises(OrderError, match="too many certificates") as refusal:
        order(node(tmp_path, url), addresses(HERE), "sip.example.org")
    assert 3500 < refusal.value.retry_after <= 3600


def test_a_ca_that_is_not_trusted_is_not_asked(tmp_path: Path) -> None:
    with somebody(tmp_path, said("{}")) as url, pytest.raises(OrderError, match="its own certificate is not trusted"):
        order(node(tmp_path, url, Authority("Other")), addresses(HERE), "sip.example.org")


def node(place: Path, url: str, trusted: Authority = AUTHORITY) -> Settings:
    return Settings(
        fqdn="sip.example.org",
        state_dir=place / "state",
        network={"address": HERE},
        certificates={"ca_file": str(trusted.trust(place / "roots.pem"))},
        acme={"directory": url},
    )
