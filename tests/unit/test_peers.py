"""Whether a carrier over TLS is the one, and what follows from it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lab.pki import Authority
from sipward import live, x509
from sipward.edge import Edge
from sipward.live import PEERS, PEERS_KEY, STATE, TABLE, Live
from sipward.model import Endpoint, Proof, Side, Socket, Trunk
from sipward.peer_keeper import Keeper
from sipward.peers import KIND, Peers, doubt
from sipward.seal import Sealer
from sipward.tokens import MARK

NAME = "sbc.carrier.example"
PAIR = Authority().issue(NAME)
CERTIFICATE = x509.read(PAIR.chain.decode())
SEALER = Sealer([b"k" * 32])
END = Endpoint("tls", "203.0.113.80", 5061)
OWN = Socket(Side.OUTSIDE, Endpoint("tls", "203.0.113.10", 5061), "203.0.113.10")


@pytest.mark.parametrize(
    ("proof", "name", "is_trusted", "why"),
    [
        (Proof((NAME,)), NAME, True, ""),
        (Proof((NAME,)), NAME, False, "its certificate is not valid, or not signed by a CA that is known"),
        (Proof(("x.example",)), "x.example", True, f"its certificate is of {NAME}, not of x.example"),
        (Proof((NAME,), ("ab" * 32,)), NAME, True, "its certificate has the fingerprint "),
    ],
)
def test_a_certificate_is_doubted_for_a_reason(proof: Proof, name: str, is_trusted: bool, why: str) -> None:
    found = doubt(CERTIFICATE, is_trusted, proof, name)
    assert found.startswith(why)
    assert bool(found) is bool(why)


def test_a_fingerprint_that_is_known_is_all_that_is_asked() -> None:
    assert CERTIFICATE
    assert doubt(CERTIFICATE, False, Proof(("x.example",), (CERTIFICATE.fingerprint,)), "x.example") == ""


def test_who_shows_no_certificate_is_doubted() -> None:
    assert doubt(None, True, Proof((NAME,)), NAME) == "shows no certificate that can be read"


class Sip:
    """Kamailio with its shared memory and one message in it."""

    def __init__(self, *trunks: Trunk) -> None:
        self.tables: dict[str, dict[str, str]] = {TABLE: {}, STATE: {}, PEERS: {}}
        self.said: list[tuple[Endpoint, str, str, str]] = []
        self.hung_up: list[int] = []
        self.alive: set[int] = set()
        self.verbs: list[object] = []
        self.number, self.trusted, self.sender, self.answered = 7, True, END, END
        self.have(*trunks)

    def have(self, *trunks: Trunk) -> None:
        self.tables[TABLE] = {live.trunk_key(trunk.name): live.encode_trunk(trunk) for trunk in trunks}
        self.tables[STATE][PEERS_KEY] = " ".join(trunk.name for trunk in trunks)

    @property
    def module(self) -> Any:
        return SimpleNamespace(
            look_up=lambda table, key: self.tables[table].get(key),
            store=lambda table, key, value: self.tables[table].update({key: value}),
            erase=lambda table, key: self.tables[table].pop(key, None),
            log=lambda _: None,
            source=lambda: self.sender,
            call_id=lambda: f"{MARK}{SEALER.seal(KIND, str(self.answered).encode())}",
            peer_certificate=PAIR.chain.decode,
            is_peer_trusted=lambda: self.trusted,
            connection=lambda: self.number,
            is_alive=lambda number: number in self.alive,
            hang_up=self.hung_up.append,
            say=lambda *said: self.said.append(said),
            only_over=self._only_over,
            only_over_open_connection=lambda: self.verbs.append("open"),
        )

    def _only_over(self, number: int) -> bool:
        self.verbs.append(number)
        return number in self.alive

    @property
    def peers(self) -> Peers:
        return Peers(self.module, SEALER, Live(self.module.look_up))

    @property
    def known(self) -> dict[str, str]:
        return self.tables[PEERS]


def trunk(name: str = "carrier", host: str = NAME, **proof: Any) -> Trunk:
    return Trunk(name, ("*",), (END,), proof=Proof((host,), **proof))


# --- workers ------------------------------------------------------------------------------------------------------


def test_a_reply_to_our_options_tells_which_trunks_its_connection_is_for() -> None:
    sip = Sip(trunk(), trunk("other", "x.example"), trunk("third"))
    assert sip.peers.heard()
    assert sip.known[str(END)] == "7 carrier third"
    assert sip.known[f"!{END}"] == f"other: its certificate is of {NAME}, not of x.example"
    assert sip.hung_up == []


def test_a_connection_that_is_for_no_trunk_is_closed() -> None:
    sip = Sip(trunk(host="x.example"))
    assert sip.peers.heard()
    assert list(sip.known) == [f"!{END}"]
    assert sip.hung_up == [7]


def test_a_reply_from_elsewhere_tells_nothing() -> None:
    sip = Sip(trunk())
    sip.sender = END._replace(port=5062)
    assert sip.peers.heard()
    assert sip.known == {}


@pytest.mark.parametrize("call_id", ["x", MARK, f"{MARK}AAAA", f"{MARK}{SEALER.seal(b'call-id', b'tls:h:1')}"])
def test_any_other_reply_is_none_of_ours(call_id: str) -> None:
    module = Sip(trunk()).module
    module.call_id = lambda: call_id
    assert not Peers(module, SEALER, Live(module.look_up)).heard()


def test_a_request_goes_over_the_connection_that_is_the_trunks() -> None:
    sip = Sip(trunk())
    sip.peers.heard()
    assert not sip.peers.reach("carrier", END), "it does not stand any more"
    sip.alive = {7}
    assert sip.peers.reach("carrier", END)
    assert sip.verbs == [7, 7]


def test_no_request_goes_to_a_target_that_has_proven_nothing_to_its_trunk() -> None:
    sip = Sip(trunk(), trunk("other", "x.example"))
    sip.alive = {7}
    assert not sip.peers.reach("carrier", END)
    sip.peers.heard()
    assert not sip.peers.reach("other", END)
    assert sip.verbs == []


def test_what_the_carrier_has_opened_is_used_and_no_other_is_opened() -> None:
    sip = Sip(trunk())
    assert sip.peers.reach("carrier", END._replace(port=40000))
    assert sip.verbs == ["open"]


@pytest.mark.parametrize(("name", "end"), [("", END), ("carrier", END._replace(transport="tcp"))])
def test_all_else_is_none_of_this(name: str, end: Endpoint) -> None:
    sip = Sip(trunk())
    assert sip.peers.reach(name, end)
    assert sip.verbs == []


# --- the process that asks ----------------------------------------------------------------------------------------


@pytest.fixture
def look() -> Callable[[Sip], Callable[[float], None]]:
    return lambda sip: Keeper(sip.module, Edge([OWN], [], [], [], [], 0), SEALER, Live(sip.module.look_up)).look


type Look = Callable[[Sip], Callable[[float], None]]


def test_a_target_is_asked_until_it_answers_and_then_now_and_again(look: Look) -> None:
    sip = Sip(trunk(profile="own"))
    at = look(sip)
    for moment in (0.0, 1.0, 9.0):
        at(moment)
    assert [(end, name, profile) for end, _, name, profile in sip.said] == [(END, NAME, "own")]
    assert "Via: SIP/2.0/TLS 203.0.113.10:5061;rport" in sip.said[0][1]
    at(10.0)
    assert (len(sip.said), sip.known) == (2, {f"!{END}": "does not answer OPTIONS, or cannot be reached"})
    sip.peers.heard()
    sip.alive = {7}
    for moment in (20.0, 49.0):
        at(moment)
    assert len(sip.said) == 3
    at(50.0)
    assert (len(sip.said), sip.known) == (4, {str(END): "7 carrier"})


def test_a_connection_that_has_ended_is_opened_again_a_second_later(look: Look) -> None:
    sip = Sip(trunk())
    at = look(sip)
    at(0.0)
    sip.peers.heard()
    at(1.0)
    assert (sip.known, len(sip.said)) == ({}, 1)
    at(2.0)
    assert len(sip.said) == 2


@pytest.mark.parametrize("now", [(), (trunk(host="x.example"),), (trunk(profile="own"),)])
def test_a_connection_is_closed_when_less_or_something_else_is_asked_of_it(now: tuple[Trunk, ...], look: Look) -> None:
    sip = Sip(trunk())
    at = look(sip)
    at(0.0)
    sip.peers.heard()
    sip.alive = {7}
    sip.have(*now)
    at(1.0)
    assert (sip.known, sip.hung_up) == ({}, [7])
    assert len(sip.said) == 1 + len(now)
