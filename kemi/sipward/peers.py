"""Carriers over TLS: nothing is said to one before its certificate has been looked at.

Kamailio checks who has signed a certificate, and not whose it is; and what is sent over a new connection leaves with
the handshake. So workers open none. A process of its own (`peer_keeper`) opens them and asks OPTIONS, which says
nothing about anybody; with the answer a worker looks at the certificate and notes the connection, by its number.
Requests
go over that connection, or not at all.
"""

from collections.abc import Iterator
from types import ModuleType

from sipward import x509
from sipward.live import PEERS, Live
from sipward.model import Endpoint, Proof
from sipward.seal import Sealer
from sipward.tokens import MARK

KIND = b"peer"
"""What is sealed into the Call-ID of an OPTIONS to a carrier: where it went."""


class Peers:
    """What one worker does about it."""

    def __init__(self, sip: ModuleType, sealer: Sealer, live: Live) -> None:
        """`sip`: the verbs of `sipward.kamailio`."""
        self._sip = sip
        self._sealer = sealer
        self._live = live

    def reach(self, trunk: str, end: Endpoint) -> bool:
        """Have the request to a trunk's target go over the connection that is the carrier's; False: there is none."""
        if end.transport != "tls" or not trunk:
            return True
        if connection := self._live.connection(trunk, end):
            return bool(self._sip.only_over(connection))
        now = self._live.trunk(trunk)
        if now and end in now.targets:
            return False
        # The carrier has opened it, and called over it: what belongs to that call goes back there.
        self._sip.only_over_open_connection()
        return True

    def heard(self) -> bool:
        """Take a reply that nobody waits for, if it answers an OPTIONS of ours: see who has sent it."""
        try:
            call_id = self._sip.call_id()
        except UnicodeDecodeError:
            return False
        content = self._sealer.open(KIND, call_id[len(MARK) :]) if call_id.startswith(MARK) else None
        if content is None:
            return False
        end = Endpoint.parse(content.decode())
        if self._sip.source() == end:
            self._judge(end)
        return True

    def _judge(self, end: Endpoint) -> None:
        certificate, is_trusted = x509.read(self._sip.peer_certificate()), self._sip.is_peer_trusted()
        doubts = {
            trunk: doubt(certificate, is_trusted, proof, name) for trunk, proof, name in asked_of(end, self._live)
        }
        proven = [name for name, why in doubts.items() if not why]
        complaints = [f"{name}: {why}" for name, why in doubts.items() if why]
        if proven:
            self._sip.store(PEERS, str(end), " ".join([str(self._sip.connection()), *proven]))
        else:
            self._sip.hang_up(self._sip.connection())
        if complaints:
            self._sip.log(f"event=trunk-unproven why={'; '.join(complaints)!r} to={end}")
            self._sip.store(PEERS, f"!{end}", "; ".join(complaints))
        else:
            self._sip.erase(PEERS, f"!{end}")


def doubt(certificate: x509.Certificate | None, is_trusted: bool, proof: Proof, name: str) -> str:
    """Why a certificate does not prove that its owner is the carrier; empty when it does."""
    if certificate is None:
        return "shows no certificate that can be read"
    if proof.fingerprints:
        known = certificate.fingerprint in proof.fingerprints
        return "" if known else f"its certificate has the fingerprint {certificate.fingerprint}"
    if not is_trusted:
        return "its certificate is not valid, or not signed by a CA that is known"
    # Whoever has made the certificate has written its names, and an operator's terminal will show them.
    names = ", ".join(one if one.isprintable() else ascii(one) for one in certificate.names)
    return "" if certificate.is_of(name) else f"its certificate is of {names}, not of {name}"


def asked_of(end: Endpoint, live: Live) -> Iterator[tuple[str, Proof, str]]:
    """The trunks that have a target, by name, with what each asks of it: the proof, and whose its certificate is."""
    return ((trunk, proof, name) for target, trunk, proof, name in asked(live) if target == end)


def asked(live: Live) -> Iterator[tuple[Endpoint, str, Proof, str]]:
    """All targets over TLS, of each trunk."""
    for trunk in live.secure_trunks():
        if trunk.proof:
            for target, name in zip(trunk.targets, trunk.proof.names, strict=True):
                yield target, trunk.name, trunk.proof, name
