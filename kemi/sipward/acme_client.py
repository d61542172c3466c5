"""Certificates by ACME (RFC 8555), from Let's Encrypt or any other CA. The only module that speaks it.

The domain is shown to be ours by HTTP-01 (8.3): port 80 is open while a challenge runs, and answers nothing else.
"""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY
from socketserver import TCPServer
from tempfile import NamedTemporaryFile
from typing import Any

import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from sipward.addresses import Addresses
from sipward.certificate_check import read
from sipward.certificates import CertificateError, Certificates, alone, replace
from sipward.hosts import Address, hostport
from sipward.settings import Settings

PORT = 80
"""RFC 8555, 8.3: no other."""
_WITHIN = timedelta(minutes=3)
"""For all of an order."""
_ANSWER_WITHIN = 20
"""Seconds that the CA may take for an answer."""
_NONCES = 10
"""A CA may refuse a nonce at any time (6.5); so often in a row it does not."""
_LONGEST = 500
"""Characters of a CA's words that are shown."""
_USER_AGENT = "sipward"


class OrderError(CertificateError):
    """The CA has not issued it, or could not be asked."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        """`retry_after`: seconds that the CA wants to be left alone; 0 when it does not say."""
        super().__init__(text)
        self.retry_after = retry_after


def order(settings: Settings, addresses: Addresses, name: str) -> tuple[bytes, bytes]:
    """Get a certificate for a host name: PEM, the chain and a new key. Raises CertificateError; takes minutes at most.

    One order at a time: there is one port 80.
    """
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    deadline = datetime.now() + _WITHIN
    account = Certificates(settings.state_dir).account_key
    with alone(account.parent), _network(settings, _account_key(account)) as network:
        try:
            ca = _account(settings, network)
            found = ca.new_order(crypto_util.make_csr(key, [name]))
            with answering(addresses, _tokens(found, network.key)):
                for challenge in _open_challenges(found):
                    ca.answer_challenge(challenge, challenge.chall.response(network.key))
                found = ca.poll_authorizations(found, deadline)
            found = ca.finalize_order(found, deadline)
        except CertificateError:
            raise
        except Exception as error:
            # The library takes a CA at its word: one that answers nonsense can raise anything.
            raise OrderError(f"{settings.acme.directory}: {_line(_reason(error))}", network.retry_after) from error
    return found.fullchain_pem.encode(), key


class _Network(client.ClientNetwork):
    """Remembers how long the CA wants to be left alone, and takes more than one refused nonce."""

    retry_after = 0.0

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for _ in range(_NONCES):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)

    def _send_request(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super()._send_request(*args, **kwargs)
        self.retry_after = 0.0 if response.ok else _seconds(response)
        return response


def _seconds(response: requests.Response) -> float:
    wait = client.ClientV2.retry_after(response, 0) - datetime.now()
    return max(0.0, wait.total_seconds())


@contextmanager
def _network(settings: Settings, account: ec.EllipticCurvePrivateKey) -> Iterator[_Network]:
    """The way to the CA, whose own certificate is checked by the machine's CAs and those of `[certificates]`."""
    with NamedTemporaryFile() as trusted:
        if path := ssl.get_default_verify_paths().cafile:
            trusted.write(Path(path).read_bytes())
        if settings.certificates.ca_file:
            trusted.write(b"\n" + read(settings.certificates.ca_file))
        trusted.flush()
        # Whatever the annotation says, it is handed to `requests`, which takes a file's path too.
        verify: Any = trusted.name
        key = JWKEC(key=account)
        yield _Network(key, alg=ES256, verify_ssl=verify, user_agent=_USER_AGENT, timeout=_ANSWER_WITHIN)


def _account_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The account's key: one for all CAs, made at the first order."""
    if not path.exists():
        new = ec.generate_private_key(ec.SECP256R1())
        replace(path, new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (TypeError, ValueError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{path}: is not the account's key any more: remove it, and a new one is made")
    return key


def _account(settings: Settings, network: _Network) -> client.ClientV2:
    """The CA as who has this account: made there if there is none yet (7.3 and 7.3.4)."""
    wanted = settings.acme
    ca = client.ClientV2(client.ClientV2.get_directory(wanted.directory, network), network)
    assert network.key
    binding = None
    if wanted.eab_key_id:
        public = network.key.public_key()
        binding = messages.ExternalAccountBinding.from_data(public, wanted.eab_key_id, wanted.eab_key, ca.directory)
    form = messages.NewRegistration.from_data(
        email=wanted.email or None, external_account_binding=binding, terms_of_service_agreed=True
    )
    try:
        ca.new_account(form)
    except errors.ConflictError as there:
        network.account = messages.RegistrationResource(uri=there.location, body=messages.Registration())
    return ca


def _open_challenges(order: messages.OrderResource) -> Iterator[messages.ChallengeBody]:
    """What has to be shown by HTTP: nothing for a domain that the CA still knows for ours."""
    for authorization in order.authorizations:
        if authorization.body.status == messages.STATUS_VALID:
            continue
        kinds = [one for one in authorization.body.challenges if isinstance(one.chall, challenges.HTTP01)]
        if not kinds:
            raise ValueError(f"offers no HTTP-01 challenge for {authorization.body.identifier.value}")
        yield kinds[0]


def _tokens(order: messages.OrderResource, key: JWK | None) -> dict[str, str]:
    """What to answer at which path."""
    return {one.chall.path: one.chall.validation(key) for one in _open_challenges(order)}


@contextmanager
def answering(addresses: Addresses, answers: Mapping[str, str]) -> Iterator[None]:
    """Answer at port 80 of the node's outer addresses, inside the block."""
    with ExitStack() as stack:
        for address in addresses.outside if answers else ():
            server = stack.enter_context(_server(address, answers))
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield


def _server(address: Address, answers: Mapping[str, str]) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = AF_INET6 if address.version == 6 else AF_INET

        def server_bind(self) -> None:
            if address.version == 6:
                self.socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
            # HTTPServer's own asks the DNS for the machine's name.
            TCPServer.server_bind(self)

        def handle_error(self, request: object, client_address: object) -> None:
            """Whoever asks for something else or goes away is nobody's concern."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5
        server_version = _USER_AGENT
        sys_version = ""

        def do_GET(self) -> None:
            answer = answers.get(self.path)
            self.send_response(HTTPStatus.OK if answer else HTTPStatus.NOT_FOUND)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(answer or "")))
            self.end_headers()
            self.wfile.write((answer or "").encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a scanner would fill the log."""

    try:
        return Server((str(address), PORT), Handler)
    except OSError as error:
        raise CertificateError(f"cannot listen on tcp {hostport(address, PORT)} for the CA: {error.strerror}") from None


def _reason(error: Exception) -> str:
    """What went wrong, in one line: the CA's own words where it has any."""
    match error:
        case messages.Error():
            return error.detail or error.description or error.typ
        case errors.ValidationError():
            return "; ".join(
                _reason(one.error) for authz in error.failed_authzrs for one in authz.body.challenges if one.error
            )
        case errors.IssuanceError():
            return _reason(error.error)
        case errors.TimeoutError():
            return f"did not get ready within {_WITHIN.seconds} s"
        case requests.exceptions.SSLError():
            return f"its own certificate is not trusted: {_innermost(error)}"
        case requests.RequestException():
            return f"cannot be reached: {_innermost(error)}"
        case errors.ClientError():
            return "does not answer as an ACME server does"
        case LookupError() | TypeError() | AttributeError():
            return f"answers what an ACME server does not: {error!r}"
        case _:
            return str(error)


def _line(text: str) -> str:
    """What somebody else has written, as one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))[:_LONGEST]


def _innermost(error: BaseException) -> str:
    """The words of who has met it; urllib3 puts its own around them, with objects in them."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
