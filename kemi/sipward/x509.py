"""A peer's certificate, read just as far as its names go (RFC 5280): OpenSSL stays out of workers' Python.

OpenSSL has parsed it before and has checked its chain; whose it is, is asked here.
"""

import binascii
from _sha2 import sha256  # type: ignore[import-not-found]  # hashlib would bring OpenSSL
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

_EXTENSIONS, _OCTETS = 0xA3, 0x04
_DNS, _URI, _IP = 0x82, 0x86, 0x87
_SUBJECT_ALT_NAME = bytes.fromhex("0603551d11")
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Certificate(NamedTuple):
    """Whose it is. `names` are host names and addresses, `fingerprint` is SHA-256 in hexadecimal."""

    names: tuple[str, ...]
    fingerprint: str

    def is_of(self, host: str) -> bool:
        """Whether it is a host's, or an address's. A wildcard stands for one whole label (RFC 9525, 6.3)."""
        host = _folded(host)
        below = host.partition(".")[2]
        return host in self.names or (f"*.{below}" in self.names and not _is_address(host))


def read(pem: str) -> Certificate | None:
    """Read a certificate; None when it cannot be read."""
    try:
        der = binascii.a2b_base64(pem.partition(_BEGIN)[2].partition(_END)[0])
        return Certificate(tuple(map(_folded, _names(der))), sha256(der).hexdigest())
    except (IndexError, ValueError):
        return None


def _names(der: bytes) -> Iterator[str]:
    """The subject's alternative names; its common name is none (RFC 9525, 6.3)."""
    for extensions in _tagged(_EXTENSIONS, _first(_first(der))):
        for _, extension in _elements(_first(extensions)):
            if extension.startswith(_SUBJECT_ALT_NAME):
                for value in _tagged(_OCTETS, extension):
                    yield from filter(None, (_name(tag, name) for tag, name in _elements(_first(value))))


def _name(tag: int, content: bytes) -> str:
    if tag == _DNS:
        return content.decode("ascii")
    if tag == _IP:
        return str(ip_address(content))
    if tag == _URI:
        # A SIP domain's certificate (RFC 5922, 7.1): a URI of a domain and nothing else.
        scheme, _, domain = content.decode("ascii").partition(":")
        return domain if scheme.lower() == "sip" and not set(domain) & set("@;:?") else ""
    return ""


def _first(der: bytes) -> bytes:
    """The content of the first element."""
    for _, content in _elements(der):
        return content
    raise ValueError("empty")


def _tagged(wanted: int, der: bytes) -> Iterator[bytes]:
    return (content for tag, content in _elements(der) if tag == wanted)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of one element after the other. All tags in a certificate are of one byte."""
    at = 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            octets = size & 0x7F
            size, at = int.from_bytes(der[at : at + octets], "big"), at + octets
        if at + size > len(der):
            raise ValueError("too short")
        yield tag, der[at : at + size]
        at += size


def _folded(host: str) -> str:
    host = host.lower().rstrip(".")
    return str(ip_address(host)) if _is_address(host) else host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
