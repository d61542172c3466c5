"""Media anchoring: which SDP goes through rtpengine, and what becomes of it when it does not."""

import pytest

from sipward import media
from sipward.flow import Flow
from sipward.model import Endpoint, Side
from unit.messages import (
    ANCHORED,
    CALL,
    DIALOG,
    SDP,
    answered,
    called,
    calling,
    failed,
    from_pbx,
    reply,
    request,
    routed,
    within,
)
from unit.recorder import INNER, PBX, PHONE, PUBLIC, RELAY, RIVAL, Recorder, edge

CLEAN = f"v=0\r\nc=IN IP4 {RELAY}\r\nm=audio 4000 RTP/AVP 0\r\n"
NAMING = CLEAN.replace("m=", "a=x-nat:10.5.4.11\r\nm=")
TEXT_ONLY = "--a b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--a b--\r\n"
PARTS = 'multipart/mixed; boundary="a b"'


def in_parts(description: str) -> str:
    other = "--a b\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    return f"{other}--a b\r\nContent-Type: application/sdp\r\n\r\n{description}\r\n--a b--\r\n"


def multipart(text: str) -> str:
    return text.replace("Content-Type: application/sdp", f"Content-Type: {PARTS}").replace(SDP, in_parts(SDP))


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


def test_the_second_invite_of_a_call_id_has_media_of_its_own() -> None:
    text = request("INVITE", "sip:100@acme.example", sdp=True)
    first, second = routed(text), routed(text.replace("branch=z9hG4bK-1", "branch=z9hG4bK-2"))
    again = routed(text)
    assert first.did("media_offer") != second.did("media_offer")
    assert first.did("media_offer") == again.did("media_offer")
    ended = [failed(sip, 486, False).did("media_delete") for sip in (first, second)]
    assert ended[0] == [(media.end(CALL),)]
    assert ended[0] != ended[1]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "PRACK"])
def test_in_a_dialog_the_media_is_the_one_of_the_invite_that_began_it(method: str) -> None:
    text = within(method, "sip:100@x", sdp=True).replace("branch=z9hG4bK-1", "branch=z9hG4bK-2")
    sip = routed(text)
    assert sip.did("media_offer") == [(media.offer(CALL, Side.OUTSIDE, Side.SERVICE, False), SDP)]
    answered(sip, reply(200, method, sdp=True))
    assert sip.did("media_answer") == [(media.answer(CALL, Side.SERVICE), SDP)]


def byes() -> list[Recorder]:
    """A BYE of either side that has been sent on."""
    return [routed(within("BYE", "sip:100@x")), from_pbx(within("BYE", "sip:7@x"))]


def test_a_bye_alone_ends_no_media() -> None:
    for sip in byes():
        assert sip.relayed
        assert not sip.did("media_delete")


@pytest.mark.parametrize(
    ("status", "flags"),
    [*((status, media.end(CALL)) for status in (200, 202, 299)), *((s, media.end_of_one(CALL)) for s in (408, 481))],
)
def test_the_answer_to_a_bye_ends_the_calls_media_and_of_a_dead_dialog_the_senders_part(
    status: int, flags: str
) -> None:
    for sip, source, on in zip(byes(), (PBX, PHONE), (INNER, PUBLIC), strict=True):
        assert answered(sip, reply(status, "BYE"), source, on).did("media_delete") == [(flags,)]


@pytest.mark.parametrize("status", [100, 183, 300, 401, 407, 403, 480, 482, 500, 503, 603])
def test_after_any_other_answer_to_a_bye_the_media_goes_on(status: int) -> None:
    for sip, source, on in zip(byes(), (PBX, PHONE), (INNER, PUBLIC), strict=True):
        assert not answered(sip, reply(status, "BYE"), source, on).did("media_delete")
        assert not failed(sip, status, False).did("media_delete")


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO", "REFER"])
@pytest.mark.parametrize("status", [200, 408, 481])
def test_no_other_answer_in_a_dialog_ends_the_media(method: str, status: int) -> None:
    assert not answered(routed(within(method, "sip:100@x")), reply(status, method)).did("media_delete")


def test_a_bye_that_nobody_answers_ends_the_calls_media() -> None:
    for sip in byes():
        assert failed(sip, 408, True).did("media_delete") == [(media.end(CALL),)]
        assert not sip.did("answer_failure")


def test_a_bye_that_cannot_be_sent_ends_the_calls_media() -> None:
    for sip, code in (
        (routed(within("BYE", "sip:100@x"), sendable=False), 503),
        (from_pbx(within("BYE", "sip:7@x"), sendable=False), 430),
    ):
        assert [answer[0] for answer in sip.did("answer")] == [code]
        assert sip.did("media_delete") == [(media.end(CALL),)]


@pytest.mark.parametrize("method", ["INVITE", "UPDATE", "INFO"])
def test_what_else_cannot_be_sent_in_a_dialog_leaves_the_media(method: str) -> None:
    sip = routed(within(method, "sip:100@x"), sendable=False)
    assert sip.did("answer")
    assert not sip.did("media_delete")


def test_a_bye_of_one_invite_ends_no_other_invites_media() -> None:
    other = DIALOG._replace(media=DIALOG.media + 1)
    sip = answered(routed(within("BYE", "sip:100@x", dialog=other)), reply(200, "BYE"))
    assert sip.did("media_delete") == [(media.end(media.call_name("acme", "1@h", other.media)),)]


def test_a_byes_answer_is_passed_on_when_rtpengine_does_not_answer() -> None:
    sip = routed(within("BYE", "sip:100@x"), media_works=False)
    assert sip.relayed
    assert not sip.counted
    assert answered(sip, reply(200, "BYE")).counted == ["media-delete-failed"]
    assert not sip.did("drop_reply")


def test_what_rtpengine_made_of_a_description_takes_its_place() -> None:
    assert routed(request("INVITE", "sip:100@acme.example", sdp=True)).body() == ANCHORED
    assert calling().body() == ANCHORED
    sip, way = called()
    assert answered(sip, reply(200, "INVITE", way, sdp=True)).body() == ANCHORED
    assert sip.content_type() == "application/sdp"


def test_a_description_among_other_parts_is_taken_and_put_back() -> None:
    sip = routed(multipart(request("INVITE", "sip:100@acme.example", sdp=True)))
    assert sip.did("media_offer") == [
        (media.offer(CALL, Side.OUTSIDE, Side.SERVICE, False, begins=True, parties="7>100"), SDP)
    ]
    assert sip.body() == in_parts(ANCHORED)
    answered(sip, multipart(reply(200, "INVITE", sdp=True)))
    assert sip.did("media_answer") == [(media.answer(CALL, Side.SERVICE), SDP)]
    assert sip.body() == in_parts(ANCHORED)
    assert sip.content_type() == PARTS


def test_parts_of_which_none_is_a_description_need_no_rtpengine() -> None:
    text = request("INVITE", "sip:100@acme.example", f"Content-Type: {PARTS}") + TEXT_ONLY
    sip = routed(text, media_works=False)
    assert sip.relayed
    assert sip.body() == TEXT_ONLY


def test_an_answer_among_other_parts_that_is_not_taken_has_no_media_in_it() -> None:
    sip, _ = called()
    sip.media_works = False
    answered(sip, multipart(reply(200, "INVITE", sdp=True)))
    assert sip.body() == media.REJECTED
    assert sip.content_type() == "application/sdp"


def test_what_rtpengine_leaves_of_the_inside_is_shown_to_no_phone() -> None:
    assert calling(rewritten=NAMING).body() == CLEAN
    sip, way = called()
    sip.rewritten = NAMING
    assert answered(sip, reply(200, "INVITE", way, sdp=True)).body() == CLEAN


def test_an_instance_sees_what_rtpengine_leaves() -> None:
    assert routed(request("INVITE", "sip:100@acme.example", sdp=True), rewritten=NAMING).body() == NAMING


def test_a_lost_answer_is_counted_and_logged_with_its_tenant() -> None:
    sip, way = called()
    sip.media_works = False
    answered(sip, reply(200, "INVITE", way, sdp=True))
    assert sip.logged == [
        "event=failed why=media-unavailable method=INVITE src_ip=10.5.4.11 tenant=acme callid=1@h",
    ]


def test_a_late_offers_answer_is_in_the_ack() -> None:
    sip = routed(within("ACK", "sip:100@x", sdp=True))
    assert sip.did("media_answer") == [(media.answer(CALL, Side.OUTSIDE), SDP)]
    assert sip.relayed


def test_an_ack_whose_answer_is_not_taken_has_no_media_in_it() -> None:
    sip = routed(within("ACK", "sip:100@x", sdp=True), media_works=False)
    assert sip.body() == media.REJECTED
    assert sip.relayed


@pytest.mark.parametrize(("late", "verb"), [(False, "media_offer"), (True, "media_answer")])
def test_a_prack_answers_a_late_offer_and_offers_otherwise(late: bool, verb: str) -> None:
    sip = routed(within("PRACK", "sip:100@x", sdp=True, dialog=DIALOG._replace(late=late)))
    assert len(sip.did(verb)) == 1


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 200), ("INVITE", 488), ("INVITE", 606), ("MESSAGE", 200)])
def test_what_an_instance_says_of_its_abilities_has_no_sdp(method: str, status: int) -> None:
    sip = answered(routed(request(method, "sip:100@acme.example")), reply(status, method, sdp=True))
    assert sip.body() == ""
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
    assert answered(sip, reply(183, "INVITE", way, sdp=True)).body() == ""
    assert answered(sip, reply(200, "INVITE", way, sdp=True)).body() == media.REJECTED
    assert sip.counted == ["media-unavailable"] * 2


def test_the_offer_of_a_late_offer_is_in_the_200() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"))
    answered(sip, reply(200, "INVITE", sdp=True))
    assert sip.did("media_offer") == [(media.offer(CALL, Side.SERVICE, Side.OUTSIDE, False, begins=True), SDP)]


def test_a_late_offer_that_is_said_again_closes_nothing() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"))
    for status, begins in ((183, True), (200, False)):
        answered(sip, reply(status, "INVITE", sdp=True))
        assert sip.did("media_offer")[-1][0] == media.offer(CALL, Side.SERVICE, Side.OUTSIDE, False, begins=begins)


def test_an_answer_in_a_phones_ack_or_prack_is_the_outsides_and_an_instances_is_the_services() -> None:
    late = DIALOG._replace(late=True)
    for method in ("ACK", "PRACK"):
        outer = routed(within(method, "sip:100@x", sdp=True, dialog=late))
        inner = from_pbx(within(method, "sip:7@x", sdp=True, dialog=late))
        assert outer.did("media_answer") == [(media.answer(CALL, Side.OUTSIDE), SDP)]
        assert inner.did("media_answer") == [(media.answer(CALL, Side.SERVICE), SDP)]


@pytest.mark.parametrize("method", ["MESSAGE", "OPTIONS", "INFO", "PUBLISH", "REGISTER"])
def test_a_body_that_takes_no_part_in_offer_and_answer_is_left_alone(method: str) -> None:
    sip = routed(request(method, "sip:100@acme.example", sdp=True), media_works=False)
    assert sip.relayed
    assert sip.body().startswith("v=0")


def test_a_phones_refusal_keeps_its_sdp_and_a_phones_abilities_too() -> None:
    sip = answered(calling(), reply(488, "INVITE", sdp=True), PHONE, PUBLIC)
    assert sip.body().startswith("v=0")
    assert not sip.did("media_answer")


def test_a_reply_to_an_update_answers_the_new_offer() -> None:
    sip = answered(routed(within("UPDATE", "sip:100@x", sdp=True)), reply(200, "UPDATE", sdp=True))
    assert sip.did("media_answer") == [(media.answer(CALL, Side.SERVICE), SDP)]


def test_a_refused_call_gives_its_ports_back_once() -> None:
    sip = failed(routed(request("INVITE", "sip:100@acme.example", sdp=True)), 486, False)
    assert sip.did("media_delete") == [(media.end(CALL),)]


# --- where RTP comes from --------------------------------------------------------------------------------------------

HERE = SDP.replace("192.168.1.20", PHONE.host)
SEEN = f"Contact: <sip:a@{PHONE.hostport}>"


def learns(contact: str, description: str, source: Endpoint = PHONE, **node: object) -> bool:
    """Whether rtpengine is to learn where the sender's RTP comes from."""
    text = request("INVITE", "sip:100@acme.example", contact, sdp=True).replace(SDP, description)
    sip = Recorder(text, source)
    Flow(sip.module, edge(**node)).request()
    flags = str(sip.did("media_offer")[0][0])
    assert ("SIP-source-address" in flags) == ("endpoint-learning=heuristic" in flags)
    return "endpoint-learning=off" not in flags


def test_of_a_phone_that_is_seen_where_it_says_nothing_is_learned() -> None:
    assert not learns(SEEN, HERE)
    assert learns(SEEN, HERE, learns_always=True)
    assert learns(SEEN, SDP)
    assert learns(SEEN, HERE + f"c=IN IP4 {RELAY}\r\n")
    assert learns(SEEN, HERE, source=PHONE._replace(transport="tcp"))
    assert learns(SEEN, HERE, source=PHONE._replace(port=PHONE.port + 1))
    assert learns("Contact: <sip:a@192.168.1.20>", HERE)
    assert learns("Contact: <tel:+39>", HERE)
    assert learns("Subject: none", HERE)


# --- whose answer it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "left"), [(183, ""), (200, media.REJECTED)])
def test_an_answer_of_who_was_not_asked_is_taken_off(status: int, left: str) -> None:
    sip = answered(called()[0], reply(status, "INVITE", sdp=True), RIVAL, INNER)
    assert not sip.did("media_answer")
    assert sip.counted[-1] == "foreign-answer"
    assert sip.body() == left
