"""What rtpengine is told."""

import pytest

from sipward import media
from sipward.media import Terms
from sipward.model import Codecs, Side, Srtp, Tenant
from sipward.tokens import Dialog
from unit.recorder import PBX, PHONE

CALL = media.call_name("acme", "1@h", 42)


@pytest.mark.parametrize("receiver", Side)
@pytest.mark.parametrize(("ipv6", "family"), [(False, "IP4"), (True, "IP6")])
@pytest.mark.parametrize(
    ("sender", "learning", "believes_signalling"),
    [(Side.OUTSIDE, "heuristic", True), (Side.LOCAL, "heuristic", False), (Side.SERVICE, "off", False)],
)
def test_an_offer_names_both_sides_and_how_its_sender_is_learned(
    sender: Side, learning: str, believes_signalling: bool, receiver: Side, ipv6: bool, family: str
) -> None:
    flags = media.offer(CALL, sender, receiver, ipv6).split(" ")
    assert [flag for flag in flags if flag.startswith("direction=")] == [f"direction={sender}", f"direction={receiver}"]
    assert f"address-family={family}" in flags
    assert f"endpoint-learning={learning}" in flags
    assert ("SIP-source-address" in flags) is believes_signalling
    assert "call-id=acme/1@h/0000002a" in flags
    assert {"replace-origin", "replace-session-connection", "RTP/AVP", "ICE=remove", "strict-source"} <= set(flags)


@pytest.mark.parametrize("sender", Side)
def test_an_answer_has_no_direction_and_the_learning_of_its_sender(sender: Side) -> None:
    flags = media.answer(CALL, sender).split(" ")
    assert not [flag for flag in flags if flag.startswith(("direction=", "address-family="))]
    assert ("endpoint-learning=off" in flags) is (sender is Side.SERVICE)
    assert flags[0] == media.end_of_one(CALL)


@pytest.mark.parametrize("sender", Side)
@pytest.mark.parametrize("receiver", Side)
def test_the_source_is_pinned_and_never_handed_over(sender: Side, receiver: Side) -> None:
    flags = media.offer(CALL, sender, receiver, False)
    assert "strict-source" in flags
    assert "media-handover" not in flags
    assert "immediate" not in flags


def test_equal_call_ids_of_two_tenants_are_two_calls() -> None:
    assert media.call_name("acme", "1@h", 42) != media.call_name("globex", "1@h", 42)


def test_equal_call_ids_of_two_invites_are_two_calls() -> None:
    marks = [0, 1, 0x10, 0xFFFFFFFF]
    assert len({media.call_name("acme", "1@h", mark) for mark in marks}) == len(marks)
    assert len({media.call_name("acme", call_id, 1) for call_id in ("1@h", "1@h/00000001", "1@h/1")}) == 3


@pytest.mark.parametrize(
    "call_id", ["1 direction=service x", "1\tmedia-handover", "1\r\nx", "1\0x", "zoë", "", 'a"b<>[]{}()=,;', "\u00a0"]
)
def test_a_call_id_adds_no_flag_of_its_own(call_id: str) -> None:
    flags = media.offer(media.call_name("acme", call_id, 42), Side.OUTSIDE, Side.SERVICE, False)
    assert len(flags.split()) == len(media.offer(CALL, Side.OUTSIDE, Side.SERVICE, False).split())
    assert flags.isascii()
    assert flags.isprintable()


def test_no_two_call_ids_are_one_call() -> None:
    call_ids = ["1 2", "1%202", "1%2", "12", "1%25202", "1  2", "1\t2", "é", "%c3%a9"]
    assert len({media.call_name("acme", call_id, 42) for call_id in call_ids}) == len(call_ids)


def test_the_call_ids_of_the_field_are_readable_in_rtpengines_log() -> None:
    assert media.call_name("acme", "f81d4fae-7dec-11d0~a!*+`'@[2001:db8::1]:5060", 42) == (
        "acme/f81d4fae-7dec-11d0~a!*+`'@[2001:db8::1]:5060/0000002a"
    )


def test_the_stand_in_for_a_lost_answer_has_no_media_and_no_address() -> None:
    assert "m=audio 0 " in media.REJECTED
    assert "IN IP4 0.0.0.0" in media.REJECTED
    assert media.REJECTED.endswith("\r\n")


def test_a_phone_whose_streams_are_of_the_other_family_is_where_its_description_says() -> None:
    description = "v=0\r\nc=IN IP4 203.0.113.30\r\nm=audio 4000 RTP/AVP 8\r\n"
    for flags in (media.offer("c", Side.OUTSIDE, Side.SERVICE, False), media.answer("c", Side.OUTSIDE)):
        assert media.by_description(flags, description, source_ipv6=False) == flags
        assert media.by_description(flags, description, source_ipv6=True) == flags.replace("SIP-source-address ", "")
    inner = media.answer("c", Side.SERVICE)
    assert media.by_description(inner, description, source_ipv6=True) == inner


KINDS = {Srtp.OFF: "RTP/AVP", Srtp.SDES: "RTP/SAVP", Srtp.DTLS: "UDP/TLS/RTP/SAVP"}
DIALOG = Dialog("acme", PHONE, PBX, outer_srtp=Srtp.SDES, inner_srtp=Srtp.DTLS)


def flags(terms: Terms) -> list[str]:
    return media.offer(CALL, Side.SERVICE, Side.OUTSIDE, False, terms=terms).split(" ")


@pytest.mark.parametrize("srtp", Srtp)
def test_an_offer_is_of_one_kind_and_an_answer_of_the_one_that_was_offered(srtp: Srtp) -> None:
    assert [flag for flag in flags(Terms(srtp)) if flag in KINDS.values()] == [KINDS[srtp]]
    assert ("DTLS=off" in flags(Terms(srtp))) is (srtp is Srtp.SDES)
    assert ("SDES-off" in flags(Terms(srtp))) is (srtp is Srtp.DTLS)
    assert not set(media.answer(CALL, Side.OUTSIDE).split(" ")) & set(KINDS.values())


def test_no_key_is_offered_that_leaves_the_media_readable() -> None:
    suites = [flag for flag in flags(Terms(Srtp.SDES)) if flag.startswith("SDES-only-")]
    assert suites
    assert not [suite for suite in suites if "NULL" in suite or "F8" in suite]


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("answers", [False, True])
def test_ice_is_passed_on_to_nobody_and_refused_at_once_unless_it_is_answered(keeps: bool, answers: bool) -> None:
    assert ("ICE=remove" in flags(Terms(ice=keeps, answers_ice=answers))) is not keeps
    assert ("reject-ICE" in flags(Terms(ice=keeps, answers_ice=answers))) is not answers
    assert ("ICE=remove" in media.answer(CALL, Side.SERVICE, ice=keeps)) is not keeps


@pytest.mark.parametrize("setting", ["answer", "remove"])
@pytest.mark.parametrize("again", [False, True])
def test_the_terms_of_an_offer_are_its_receivers(again: bool, setting: str) -> None:
    codecs, answers = Codecs(("PCMA",)), setting == "answer"
    tenant = Tenant("acme", (), ice=setting, codecs=codecs)
    for side in (Side.OUTSIDE, Side.LOCAL):
        assert media.terms(DIALOG, tenant, side, again) == Terms(Srtp.SDES, again and answers, False, codecs)
    assert media.terms(DIALOG, tenant, Side.SERVICE, again) == Terms(Srtp.DTLS, False, answers, codecs)
    assert media.terms(DIALOG, None, Side.SERVICE) == Terms(Srtp.DTLS)


@pytest.mark.parametrize(
    ("codecs", "expected"),
    [
        (Codecs(), []),
        (Codecs(("PCMA", "opus")), []),
        (
            Codecs(("PCMA", "opus"), only=True),
            [
                *("codec-strip-all", "codec-except-telephone-event", "codec-except-CN"),
                "codec-offer-PCMA",
                "codec-offer-opus",
            ],
        ),
        (Codecs(("opus",), transcode=True), ["codec-transcode-opus"]),
        (
            Codecs(("opus",), only=True, transcode=True),
            ["codec-mask-all", "codec-except-telephone-event", "codec-except-CN", "codec-transcode-opus"],
        ),
    ],
)
def test_a_tenants_codecs_are_flags_where_order_alone_does_not_do(codecs: Codecs, expected: list[str]) -> None:
    assert [flag for flag in flags(Terms(codecs=codecs)) if flag.startswith("codec-")] == expected


def test_until_the_answer_nobodys_rtp_passes() -> None:
    first = media.offer(CALL, Side.OUTSIDE, Side.SERVICE, False, begins=True)
    again = media.offer(CALL, Side.OUTSIDE, Side.SERVICE, False)
    assert "drop-traffic=start" in first.split()
    assert "drop-traffic" not in again
    assert "drop-traffic=stop" in media.answer(CALL, Side.SERVICE).split()


def test_a_party_is_remembered_by_name_and_by_whether_its_rtp_is_learned() -> None:
    who = media.parties("al ice", "+39>@06", "te lco")
    assert who == "al%20ice>+39%3e%4006@te%20lco"

    def label(flags: str) -> list[str]:
        return [word for word in flags.split() if word.startswith("label=")]

    for side, fixed, mark in (
        (Side.OUTSIDE, False, "~"), (Side.LOCAL, False, "~"), (Side.OUTSIDE, True, ""), (Side.SERVICE, False, ""),
    ):  # fmt: skip
        offer = media.offer(CALL, side, Side.SERVICE, False, fixed, begins=True, parties=who)
        assert label(offer) == [f"label={mark}{who}"]
        assert label(media.answer(CALL, side, fixed, begins=True)) == ([f"label={mark}"] if mark else [])
        assert label(media.answer(CALL, side, fixed)) == label(media.offer(CALL, side, Side.SERVICE, False)) == []
