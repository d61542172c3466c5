"""Media anchoring: which SDP goes through rtpengine, and what becomes of it when it does not."""

import pytest

from sipward import media
from sipward.model import Side
from unit.messages import DIALOG, answered, called, calling, failed, from_pbx, reply, request, routed, within
from unit.recorder import INNER, PHONE, PUBLIC, RIVAL


def test_without_rtpengine_no_call_is_sent_on_with_its_sdp() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example", sdp=True), media_works=False)
    assert sip.did("answer") == [(503, "Retry-After: 5\r\n")]
    assert not sip.relayed


def test_an_invite_without_an_offer_needs_no_rtpengine() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), media_works=False)
    assert sip.relayed


def test_two_tenants_with_one_call_id_are_two_calls_to_rtpengine() -> None:
    mine = routed(request("INVITE", "sip:100@acme.example", sdp=True))
    theirs = routed(request("INVITE", "sip:100@globex.example", sdp=True))
    assert theirs.did("aim") == [(RIVAL, INNER)]
    assert mine.did("media_offer") != theirs.did("media_offer")


def test_a_bye_deletes_the_calls_media() -> None:
    assert routed(within("BYE", "sip:100@x")).did("media_delete") == [("call-id=acme/1@h",)]
    assert from_pbx(within("BYE", "sip:7@x")).did("media_delete") == [("call-id=acme/1@h",)]


def test_a_bye_is_sent_on_when_rtpengine_does_not_answer() -> None:
    sip = routed(within("BYE", "sip:100@x"), media_works=False)
    assert sip.relayed
    assert sip.counted == ["media-delete-failed"]


def test_a_late_offers_answer_is_in_the_ack() -> None:
    sip = routed(within("ACK", "sip:100@x", sdp=True))
    assert sip.did("media_answer") == [(media.answer("acme", "1@h", Side.OUTSIDE),)]
    assert sip.relayed


def test_an_ack_whose_answer_is_not_taken_has_no_media_in_it() -> None:
    sip = routed(within("ACK", "sip:100@x", sdp=True), media_works=False)
    assert sip.body == media.REJECTED
    assert sip.relayed


@pytest.mark.parametrize(("late", "verb"), [(False, "media_offer"), (True, "media_answer")])
def test_a_prack_answers_a_late_offer_and_offers_otherwise(late: bool, verb: str) -> None:
    sip = routed(within("PRACK", "sip:100@x", sdp=True, dialog=DIALOG._replace(late=late)))
    assert len(sip.did(verb)) == 1


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 200), ("INVITE", 488), ("INVITE", 606), ("MESSAGE", 200)])
def test_what_an_instance_says_of_its_abilities_has_no_sdp(method: str, status: int) -> None:
    sip = answered(routed(request(method, "sip:100@acme.example")), reply(status, method, sdp=True))
    assert sip.body == ""
    assert not sip.did("media_offer")
    assert not sip.did("media_answer")


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_a_new_offer_in_a_dialog_goes_through_rtpengine_or_nowhere(method: str) -> None:
    assert routed(within(method, "sip:100@x", sdp=True)).did("media_offer")
    sip = routed(within(method, "sip:100@x", sdp=True), media_works=False)
    assert sip.did("answer") == [(503, "Retry-After: 5\r\n")]
    assert not sip.relayed


def test_forked_replies_are_each_answers() -> None:
    sip, way = called()
    for tag, status in (("b", 183), ("c", 183), ("c", 200)):
        answered(sip, reply(status, "INVITE", way, sdp=True).replace(";tag=b", f";tag={tag}"))
        assert len(sip.did("media_answer")) == 1


def test_early_media_that_rtpengine_does_not_take_is_no_sdp() -> None:
    sip, way = called()
    sip.media_works = False
    assert answered(sip, reply(183, "INVITE", way, sdp=True)).body == ""
    assert answered(sip, reply(200, "INVITE", way, sdp=True)).body == media.REJECTED
    assert sip.counted == ["media-unavailable"] * 2


def test_the_offer_of_a_late_offer_is_in_the_200() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"))
    answered(sip, reply(200, "INVITE", sdp=True))
    assert sip.did("media_offer") == [(media.offer("acme", "1@h", Side.SERVICE, Side.OUTSIDE, False),)]


def test_an_answer_in_a_phones_ack_or_prack_is_the_outsides_and_an_instances_is_the_services() -> None:
    late = DIALOG._replace(late=True)
    for method in ("ACK", "PRACK"):
        outer = routed(within(method, "sip:100@x", sdp=True, dialog=late))
        inner = from_pbx(within(method, "sip:7@x", sdp=True, dialog=late))
        assert outer.did("media_answer") == [(media.answer("acme", "1@h", Side.OUTSIDE),)]
        assert inner.did("media_answer") == [(media.answer("acme", "1@h", Side.SERVICE),)]


@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INFO", "PUBLISH", "REGISTER"])
def test_a_body_that_takes_no_part_in_offer_and_answer_is_left_alone(method: str) -> None:
    sip = routed(request(method, "sip:100@acme.example", sdp=True), media_works=False)
    assert sip.relayed
    assert sip.body.startswith("v=0")


def test_a_phones_refusal_keeps_its_sdp_and_a_phones_abilities_too() -> None:
    sip = answered(calling(), reply(488, "INVITE", sdp=True), PHONE, PUBLIC)
    assert sip.body.startswith("v=0")
    assert not sip.did("media_answer")


def test_a_reply_to_an_update_answers_the_new_offer() -> None:
    sip = answered(routed(within("UPDATE", "sip:100@x", sdp=True)), reply(200, "UPDATE", sdp=True))
    assert sip.did("media_answer") == [(media.answer("acme", "1@h", Side.SERVICE),)]


def test_a_refused_call_gives_its_ports_back_once() -> None:
    sip = failed(routed(request("INVITE", "sip:100@acme.example", sdp=True)), 486, False)
    assert sip.did("media_delete") == [("call-id=acme/1@h",)]
