"""What phones show of their media: what counts, how long it is kept, and that it is on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sipward.abilities import LIFETIME, Abilities
from sipward.ability_keeper import AbilityKeeper
from sipward.live import CHANGED, SRTP, Live
from sipward.model import Endpoint, Srtp
from unit.messages import BOUND, answered, calling, failed, from_pbx, reply, request, routed
from unit.recorder import PHONE, PUBLIC, Recorder

OVER_TLS = PHONE._replace(transport="tls")
OFFER = "v=0\r\nc=IN IP4 192.168.1.20\r\nm=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n"
KEY = f"acme {PHONE}"


def phones(sip: Recorder) -> Abilities:
    return Abilities(sip.module, Live(sip.look_up))


@pytest.mark.parametrize(
    ("flow", "known", "offered", "news"),
    [
        (PHONE, None, Srtp.OFF, False),
        (PHONE, None, Srtp.SDES, True),
        (PHONE, None, Srtp.DTLS, True),
        (PHONE, Srtp.SDES, Srtp.SDES, False),
        (PHONE, Srtp.SDES, Srtp.DTLS, True),
        (PHONE, Srtp.SDES, Srtp.OFF, True),
        (OVER_TLS, None, Srtp.SDES, False),
        (OVER_TLS, None, Srtp.DTLS, True),
        (OVER_TLS, None, Srtp.OFF, False),
        (OVER_TLS, Srtp.OFF, Srtp.OFF, False),
        (OVER_TLS, Srtp.OFF, Srtp.SDES, True),
        (OVER_TLS, Srtp.DTLS, Srtp.OFF, False),
    ],
)
def test_what_a_phone_offers_is_news_when_it_is_not_what_is_expected_of_it(
    flow: Endpoint, known: Srtp | None, offered: Srtp, news: bool
) -> None:
    sip = Recorder(request("OPTIONS", "sip:x"))
    if known is not None:
        sip.memory[SRTP, f"acme {flow}"] = known
    assert phones(sip).is_news("acme", flow, offered) is news


@pytest.mark.parametrize("srtp", Srtp)
@pytest.mark.parametrize("flow", [PHONE, OVER_TLS])
def test_what_is_learned_is_what_is_offered_and_the_expected_takes_no_room(flow: Endpoint, srtp: Srtp) -> None:
    sip = Recorder(request("OPTIONS", "sip:x"))
    for before in Srtp:
        phones(sip).learn("acme", flow, before)
        phones(sip).learn("acme", flow, srtp)
        assert Live(sip.look_up).srtp("acme", flow) is srtp
        expected = Srtp.SDES if flow is OVER_TLS else Srtp.OFF
        assert phones(sip).knows("acme", flow) is (srtp is not expected)
        assert Live(sip.look_up).srtp("globex", flow) is expected


def test_it_is_kept_for_as_long_as_a_registration_says() -> None:
    sip = Recorder(request("OPTIONS", "sip:x"))
    phones(sip).learn("acme", PHONE, Srtp.SDES)
    assert sip.kept_for[SRTP, KEY] == LIFETIME
    phones(sip).keep("acme", PHONE, 600)
    assert sip.kept_for[SRTP, KEY] == 600
    mark = sip.memory[SRTP, CHANGED]
    phones(sip).keep("acme", PHONE, 0)
    assert not phones(sip).knows("acme", PHONE)
    assert sip.memory[SRTP, CHANGED] != mark


# --- in a call -------------------------------------------------------------------------------------------------------


def offering(**trouble: object) -> Recorder:
    text = request("INVITE", "sip:100@acme.example", "Content-Type: application/sdp")
    return routed(text + OFFER, **trouble)


@pytest.mark.parametrize(("status", "learned"), [(183, False), (200, True), (202, True), (403, False), (488, False)])
def test_only_an_answered_call_teaches(status: int, learned: bool) -> None:
    sip = answered(offering(), reply(status, "INVITE"))
    assert ((SRTP, KEY) in sip.memory) is learned


@pytest.mark.parametrize("expires", ["expires=60", "expires=0"])
def test_a_registrars_answer_says_for_how_long(expires: str) -> None:
    sip = routed(request("REGISTER", "sip:acme.example", "Contact: <sip:7@192.168.1.20:5062>"))
    sip.memory[SRTP, KEY] = Srtp.SDES
    bound = sip.contacts()[0].strip("<>")
    answered(sip, reply(200, "REGISTER", f"Contact: <{bound}>;{expires}"))
    assert sip.memory.get((SRTP, KEY)) == (Srtp.SDES if expires == "expires=60" else None)
    assert sip.kept_for.get((SRTP, KEY)) == (60 if expires == "expires=60" else None)


def test_a_registration_of_whom_nothing_is_known_writes_nothing() -> None:
    sip = routed(request("REGISTER", "sip:acme.example", "Contact: <sip:7@192.168.1.20:5062>"))
    answered(sip, reply(200, "REGISTER", f"Contact: {sip.contacts()[0]};expires=60"))
    assert not [key for key in sip.memory if SRTP in key]


# --- a 488 -----------------------------------------------------------------------------------------------------------


def refused(sip: Recorder) -> Recorder:
    return failed(sip, 488, False)


def test_a_phone_that_refuses_rtp_is_offered_sdes_once() -> None:
    sip = refused(calling())
    (offer,) = sip.did("media_offer")
    assert " RTP/SAVP " in f" {offer[0]} "
    assert sip.did("relay")
    assert sip.new_uri == "sip:7@192.168.1.20:5062"
    assert not sip.did("media_delete")
    assert not refused(sip).did("relay")


def test_a_phone_that_refuses_srtp_is_offered_rtp() -> None:
    sip = refused(calling(memory={(SRTP, KEY): Srtp.SDES}))
    (offer,) = sip.did("media_offer")
    assert " RTP/AVP " in f" {offer[0]} "
    answered(sip, reply(200, "INVITE"), PHONE, PUBLIC)
    assert (SRTP, KEY) not in sip.memory


def test_it_is_another_call_for_the_phone_and_the_same_for_the_instance() -> None:
    sip = refused(calling(call_id="plain"))
    shown = sip.call_id()
    assert shown != "plain"
    answered(sip, reply(200, "INVITE").replace("Call-ID: 1@h", f"Call-ID: {shown}"), PHONE, PUBLIC)
    assert sip.call_id() == "plain"
    assert sip.memory[SRTP, KEY] == Srtp.SDES


def no_offer() -> Recorder:
    return calling(sdp=False)


def to_an_instance() -> Recorder:
    return routed(request("INVITE", "sip:100@acme.example", sdp=True))


def a_message() -> Recorder:
    return from_pbx(request("MESSAGE", f"sip:7@10.5.4.1:5060;sw={BOUND}"))


@pytest.mark.parametrize("began", [no_offer, to_an_instance, a_message])
def test_nobody_else_is_asked_twice(began: Callable[[], Recorder]) -> None:
    assert not refused(began()).did("relay")


def test_without_rtpengine_the_refusal_goes_on() -> None:
    sip = failed(calling(), 488, False, media_works=False)
    assert not sip.did("relay")
    assert sip.did("media_delete")


# --- on disk ---------------------------------------------------------------------------------------------------------


class Memory:
    """Kamailio's shared memory."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.seconds: dict[str, int] = {}

    def get(self, table: str, key: str) -> str | None:
        return self.entries.get(key) if table == SRTP else None

    def set(self, table: str, key: str, value: str) -> None:
        self.entries[key] = value

    def set_for(self, table: str, key: str, value: str, seconds: int) -> None:
        self.set(table, key, value)
        self.seconds[key] = seconds

    def all(self, table: str) -> dict[str, str]:
        return dict(self.entries)


def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    memory, later = Memory(), Memory()
    keeper = AbilityKeeper(memory, tmp_path / "phones.jsonl")
    memory.entries |= {KEY: "sdes", CHANGED: "1"}
    keeper.keep()
    keeper.close()
    AbilityKeeper(later, tmp_path / "phones.jsonl").resume()
    assert later.entries == {KEY: "sdes"}
    assert later.seconds == {KEY: LIFETIME}


def test_a_file_that_cannot_be_used_is_said_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "phones.jsonl").write_bytes(b"rubbish")
    memory = Memory()
    keeper = AbilityKeeper(memory, tmp_path / "phones.jsonl")
    keeper.resume()
    assert not memory.entries
    assert "cannot be used" in keeper.complaint
