"""Sealed texts: what a later message needs to know rides in an earlier one, unreadable and unforgeable.

A seal is deterministic authenticated encryption in the manner of SIV (RFC 5297): the tag is a keyed BLAKE2b (RFC 7693)
over what is sealed and what it is bound to; the tag then keys the stream that hides the content. No nonce, no state, no
clock: every worker, every restart and every node with the same key can open it. BLAKE2b and the comparison come from
CPython's own built-ins, since the OpenSSL behind `hashlib` and `hmac` must not run inside Kamailio's workers.
"""

from _blake2 import blake2b
from _operator import _compare_digest
from binascii import Error as BinasciiError
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence

TAG = 10
"""Bytes of the tag: 2^80 guesses to forge one, each of them a message on the wire."""
_BLOCK = 64
_TO_TEXT = bytes.maketrans(b"+/", b"-_")
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")


class Sealer:
    """Seals with the first key, opens with any of them: two keys are valid while they are rotated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys`: secrets of at least 16 bytes, the newest first."""
        if not keys or any(len(key) < 16 for key in keys):
            raise ValueError("keys: at least one secret of 16 bytes or more is needed")
        self._keys = [(_derive(key, b"tag"), _derive(key, b"stream")) for key in keys]

    def seal(self, kind: bytes, content: bytes, bound: bytes = b"") -> str:
        """Seal `content`, to be opened only as the same `kind` and bound to the same context, as base64url text."""
        tag_key, stream_key = self._keys[0]
        tag = _tag(tag_key, kind, content, bound)
        return _text(tag + _mask(stream_key, tag, content))

    def open(self, kind: bytes, text: str, bound: bytes = b"") -> bytes | None:
        """Open a seal; None when it is not ours, of another kind, or bound to another context."""
        try:
            raw = text.encode("ascii").translate(_TO_BASE64)
            sealed = a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
        except (BinasciiError, UnicodeEncodeError):
            return None
        # Base64 has several texts for one value: unused bits, and the letters of its other alphabet. Ours has one.
        if len(sealed) < TAG or _text(sealed) != text:
            return None
        tag, masked = sealed[:TAG], sealed[TAG:]
        for tag_key, stream_key in self._keys:
            content = _mask(stream_key, tag, masked)
            if _compare_digest(_tag(tag_key, kind, content, bound), tag):
                return content
        return None


def _text(sealed: bytes) -> str:
    return b2a_base64(sealed, newline=False).rstrip(b"=").translate(_TO_TEXT).decode()


def _derive(key: bytes, use: bytes) -> bytes:
    return blake2b(use, key=key[:64], digest_size=32).digest()


def _tag(key: bytes, kind: bytes, content: bytes, bound: bytes) -> bytes:
    length = len(content).to_bytes(4, "big")
    return blake2b(length + content + bound, key=key, person=kind, digest_size=TAG).digest()


def _mask(key: bytes, tag: bytes, content: bytes) -> bytes:
    size = len(content)
    stream = bytearray(blake2b(tag, key=key).digest())
    for block in range(1, -(-size // _BLOCK)):
        stream += blake2b(tag + block.to_bytes(4, "big"), key=key).digest()
    return (int.from_bytes(content, "big") ^ int.from_bytes(stream[:size], "big")).to_bytes(size, "big")
