"""A message's path: what is done to it, in which order, for each side."""

import ast
import inspect
from pathlib import Path

import pytest

import sipward
from sipward import media
from sipward.flow import Flow, printable
from sipward.live import HEALTH
from sipward.model import Endpoint, Instance, Side, Socket
from sipward.tokens import Dialog, Hidden
from sipward.uri import split_list
from unit.messages import (
    BOUND,
    CALL,
    DIALOG,
    SDP,
    SEALER,
    TWO,
    answered,
    called,
    calling,
    failed,
    from_pbx,
    message,
    reply,
    request,
    routed,
    within,
)
from unit.recorder import GLOBEX, INNER, PBX, PBX2, PHONE, PUBLIC, PUBLIC_TCP, Recorder, edge, table


def call(call_id: str) -> str:
    """What rtpengine knows an INVITE with that Call-ID as."""
    return media.call_name("acme", call_id, DIALOG.media)


# --- the stand-in is like the real one -------------------------------------------------------------------------------


def test_the_recorder_has_every_verb_that_is_used_with_its_parameters() -> None:
    folder = Path(sipward.__file__).parent
    real = {
        node.name: [argument.arg for argument in node.args.args]
        for node in ast.parse((folder / "kamailio.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    used = {
        node.attr
        for name in ("flow", "concealment", "routeset", "anchor", "passage", "registrations", "guard")
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text()))
        if isinstance(node, ast.Attribute)
        and (getattr(node.value, "id", "") == "sip" or getattr(node.value, "attr", "") == "_sip")
    }
    assert used <= set(real)
    for verb in used:
        assert list(inspect.signature(getattr(Recorder, verb)).parameters)[1:] == real[verb]


# --- what is refused first -------------------------------------------------------------------------------------------


def test_a_malformed_request_was_answered_already_and_is_counted() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), sane=False)
    assert sip.counted == ["malformed"]
    assert sip.logged == ["event=refused why=malformed method=INVITE src_ip=198.51.100.7 tenant=- callid=1@h"]
    assert not sip.verbs


def test_a_malformed_ack_is_counted_and_not_logged() -> None:
    sip = routed(within("ACK", "sip:100@x"), sane=False)
    assert sip.counted == ["malformed"]
    assert not sip.logged
    assert not sip.verbs


@pytest.mark.parametrize("trouble", [{"absorbed": 0}, {"prechecked": True}])
def test_a_retransmission_is_absorbed_and_goes_nowhere(trouble: dict[str, object]) -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), **trouble)
    assert sip.verbs == [("absorb",)]


def test_a_request_out_of_hops_is_483() -> None:
    text = request("INVITE", "sip:100@acme.example").replace("Max-Forwards: 70", "Max-Forwards: 0")
    assert routed(text).did("answer") == [(483, "")]


@pytest.mark.parametrize(
    ("source", "on", "code", "why"),
    [
        (PBX, PUBLIC, 403, "foreign-source"),
        (PHONE, INNER, 403, "foreign-source"),
        (INNER.local, INNER, 482, "looped"),
    ],
)
def test_who_has_no_business_on_a_socket_is_refused(source: Endpoint, on: Socket, code: int, why: str) -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), source, on)
    assert sip.did("answer") == [(code, "")]
    assert sip.counted == [why]


@pytest.mark.parametrize("uri", ["http://acme.example", "im:100@acme.example", "tel:", "tel:0721;x=a@h"])
def test_a_uri_that_is_neither_sip_nor_tel_is_416(uri: str) -> None:
    assert routed(request("INVITE", uri)).did("answer") == [(416, "")]


@pytest.mark.parametrize("call_id", ["1 @h", "1@h via-branch=x", "1\t@h", "zoë@h", "1\x1b@h"])
@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "BYE"])
def test_a_call_id_that_is_not_one_word_of_visible_ascii_is_400(method: str, call_id: str) -> None:
    sip = routed(request(method, "sip:100@acme.example", sdp=True, call_id=call_id))
    assert sip.did("answer") == [(400, "")]
    assert sip.counted == ["malformed"]
    assert not sip.relayed
    assert not sip.did("media_offer")


@pytest.mark.parametrize("method", ["INVITE", "BYE", "ACK"])
def test_a_cr_that_ends_no_line_is_400(method: str) -> None:
    sip = routed(request(method, "sip:100@acme.example", "Subject: x\rX-Forwarded-For: 6.6.6.6"))
    assert sip.did("answer") == ([] if method == "ACK" else [(400, "")])
    assert sip.counted == ["malformed"]
    assert not sip.relayed


@pytest.mark.parametrize("call_id", ["1@h", 'a.b%c*d!e(f)<g>:\\"/[h]?{i}@h'])
def test_any_word_is_a_call_id(call_id: str) -> None:
    assert routed(request("INVITE", "sip:100@acme.example", call_id=call_id)).relayed


def test_an_answer_goes_back_through_the_nat_and_to_an_instances_via_inside() -> None:
    assert routed(request("INVITE", "sip:100@acme.example")).did("answer_to_source")
    assert routed(request("INVITE", "sip:100@unknown.example")).did("answer_to_source")
    assert not from_pbx(request("OPTIONS", "sip:10.5.4.1:5060")).did("answer_to_source")


@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "MESSAGE", "OPTIONS", "SUBSCRIBE"])
def test_an_unknown_domain_is_404_and_the_log_says_who_and_why(method: str) -> None:
    sip = routed(request(method, "sip:100@unknown.example"))
    assert sip.did("answer") == [(404, "")]
    assert sip.counted == ["unknown-domain"]
    assert sip.logged == [
        f"event=refused why=unknown-domain method={method} src_ip=198.51.100.7 tenant=- code=404 callid=1@h"
    ]


def test_before_the_table_is_loaded_nobody_is_told_that_a_domain_is_unknown() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), table={}, loaded=False)
    assert sip.did("answer") == [(503, "Retry-After: 2\r\n")]


def test_an_ack_is_never_answered() -> None:
    for text in (within("ACK", "sip:x", dialog=DIALOG._replace(outer=PBX)), request("ACK", "sip:100@unknown.example")):
        assert not routed(text).did("answer")


def test_options_to_the_node_is_200_and_is_not_logged() -> None:
    sip = routed(request("OPTIONS", "sip:edge.example"))
    assert sip.did("answer") == [(200, "")]
    assert not sip.logged


# --- outside to instance ---------------------------------------------------------------------------------------------


def test_an_invite_from_outside_reaches_the_instance_with_audio_and_our_record_route() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example", sdp=True))
    assert sip.did("aim") == [(PBX, INNER)]
    assert sip.did("relay") == [(2000,)]
    assert sip.did("watch") == [(True,)]
    assert sip.did("media_offer") == [
        (media.offer(CALL, Side.OUTSIDE, Side.SERVICE, False, begins=True, parties="7>100"), SDP)
    ]
    [value] = sip.record_routes()
    assert value == f"<sip:10.5.4.1:5060;sw={DIALOG.seal(SEALER, '1@h')};lr>"
    assert sip.new_uri is None


def test_a_registration_shows_the_instance_our_address() -> None:
    sip = routed(request("REGISTER", "sip:acme.example", "Contact: <sip:7@192.168.1.20:5062>;expires=60"))
    assert sip.contacts() == [f"<sip:7@10.5.4.1:5060;sw={BOUND}>;expires=60"]


def test_an_instance_that_cannot_be_reached_at_all_is_503_and_its_media_is_deleted() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example", sdp=True), sendable=False)
    assert sip.did("answer") == [(503, "Retry-After: 10\r\n")]
    assert sip.did("media_delete") == [(media.end(CALL),)]


# --- instance to phone -----------------------------------------------------------------------------------------------


def test_a_call_to_a_phone_goes_to_its_flow_with_its_own_contact() -> None:
    sip = calling()
    assert sip.did("aim") == [(PHONE, PUBLIC)]
    assert sip.did("relay") == [(0,)]
    assert sip.new_uri == "sip:7@192.168.1.20:5062"
    assert sip.routes() == []
    assert sip.did("media_offer") == [
        (media.offer(call("9@pbx"), Side.SERVICE, Side.OUTSIDE, False, begins=True, parties="7>100"), SDP)
    ]
    assert not sip.did("only_over_open_connection")


def test_a_call_to_a_phone_shows_nothing_of_the_inside() -> None:
    sip = calling(call_id="9@10.5.4.11")
    assert "10.5.4." not in sip.buffer().partition("\r\n")[2]
    assert sip.call_id().startswith("sw-")
    assert sip.did("media_offer")[0][0] == media.offer(
        call("9@10.5.4.11"), Side.SERVICE, Side.OUTSIDE, False, begins=True, parties="7>100"
    )


def test_a_phone_on_tcp_is_reached_over_its_own_connection_only() -> None:
    sip = calling(flow=PHONE._replace(transport="tcp"))
    assert sip.did("aim") == [(PHONE._replace(transport="tcp"), PUBLIC_TCP)]
    assert sip.did("only_over_open_connection")


def test_a_phone_whose_connection_is_gone_is_430() -> None:
    sip = calling(sendable=False)
    assert sip.did("answer") == [(430, "")]
    assert sip.did("media_delete") == [(media.end(call("9@pbx")),)]


def test_a_flow_without_a_socket_of_ours_is_503() -> None:
    sip = calling(flow=PHONE._replace(transport="tls"))
    assert sip.did("answer") == [(503, "")]
    assert not sip.relayed


@pytest.mark.parametrize("target", ["sip:100@globex.example", "sip:1@198.51.100.99", "sip:1@10.5.4.21:5080"])
def test_an_instance_goes_nowhere_else(target: str) -> None:
    sip = from_pbx(request("INVITE", target, "Route: <sip:10.5.4.1:5060;lr>"))
    assert sip.did("answer") == [(403, "")]
    assert not sip.relayed


# --- inside a dialog -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "PRACK", "INFO", "REFER", "NOTIFY"])
def test_in_a_dialog_a_phones_request_reaches_the_instance_with_rfc_timers(method: str) -> None:
    hidden = Hidden("acme", "10.5.4.11:5080").seal(SEALER)
    sip = routed(within(method, f"sip:100@203.0.113.10:5060;sw={hidden}", "Route: <sip:far.example;lr>"))
    assert sip.did("aim") == [(PBX, INNER)]
    assert sip.did("relay") == [(0,)]
    assert sip.did("watch") == [(method == "BYE",)]
    assert sip.new_uri == "sip:100@10.5.4.11:5080"
    assert sip.routes() == []
    assert not sip.record_routes()


@pytest.mark.parametrize("method", ["BYE", "INVITE", "UPDATE", "INFO", "NOTIFY"])
def test_in_a_dialog_an_instances_request_reaches_the_phone(method: str) -> None:
    sip = from_pbx(within(method, "sip:7@192.168.1.20:5062"))
    assert sip.did("aim") == [(PHONE, PUBLIC)]
    assert sip.new_uri is None


def test_the_ack_of_a_200_is_sent_on_without_a_transaction_or_callbacks() -> None:
    for sip in (routed(within("ACK", "sip:100@x")), from_pbx(within("ACK", "sip:7@192.168.1.20"))):
        assert sip.relayed
        assert not sip.did("watch")
        assert not sip.did("new_transaction")
        assert not sip.avps


def test_the_ack_of_a_refusal_ends_here() -> None:
    text = message("ACK sip:100@acme.example SIP/2.0", to="<sip:100@acme.example>;tag=b")
    sip = routed(text, absorbed=0)
    assert len(sip.did("absorb")) == 1
    assert not sip.relayed
    assert not sip.counted


def test_an_ack_of_no_dialog_ends_here_and_is_counted() -> None:
    for sip in (routed(request("ACK", "sip:100@acme.example")), from_pbx(request("ACK", f"sip:7@10.5.4.1;sw={BOUND}"))):
        assert sip.counted == ["unknown-dialog"]
        assert not sip.relayed
        assert not sip.did("answer")


def test_a_hidden_contact_of_another_tenant_is_not_revealed_in_a_dialog() -> None:
    hidden = Hidden("globex", "10.5.4.21:5080").seal(SEALER)
    sip = routed(within("INVITE", f"sip:100@203.0.113.10:5060;sw={hidden}"))
    assert sip.did("aim") == [(PBX, INNER)]
    assert sip.new_uri is None


@pytest.mark.parametrize("method", ["BYE", "INVITE", "INFO"])
def test_a_request_in_a_dialog_without_our_route_is_481(method: str) -> None:
    text = message(f"{method} sip:100@acme.example SIP/2.0", to="<sip:100@acme.example>;tag=b")
    sip = routed(text)
    assert sip.did("answer") == [(481, "")]
    assert not sip.relayed


def test_an_unanswered_bye_is_tried_nowhere_else_and_its_answer_is_left_to_tm() -> None:
    for sip in (routed(within("BYE", "sip:100@x"), table=table(TWO)), from_pbx(within("BYE", "sip:7@x"))):
        failed(sip, 408, True)
        assert [verb for verb, *_ in sip.verbs] == ["media_delete"]


@pytest.mark.parametrize("status", [401, 407, 500, 503])
def test_a_refused_bye_is_tried_nowhere_else_and_ends_nothing(status: int) -> None:
    sip = routed(within("BYE", "sip:100@x"), table=table(TWO))
    answered(sip, reply(status, "BYE"))
    assert not sip.did("media_delete")
    assert not failed(sip, status, False).verbs


def test_a_phones_word_of_another_call_reaches_the_instance_as_the_instance_knows_it() -> None:
    shown = calling(call_id="9@10.5.4.11").call_id()
    hidden = Hidden("acme", "10.5.4.11:5080").seal(SEALER)
    target = f"sip:8@203.0.113.10:5060;sw={hidden}"
    sip = routed(within("REFER", "sip:100@x", f"Refer-To: <{target}?Replaces={shown}%3Bto-tag%3Da>"))
    assert sip.header("Refer-To") == "<sip:8@10.5.4.11:5080?Replaces=9%4010.5.4.11%3Bto-tag%3Da>"
    sip = routed(request("INVITE", "sip:100@acme.example", f"Replaces: {shown};to-tag=a;from-tag=b"))
    assert sip.header("Replaces") == "9@10.5.4.11;to-tag=a;from-tag=b"
    sip = routed(within("REFER", "sip:100@x", f"Refer-To: <{target}>", dialog=DIALOG._replace(tenant="globex")))
    assert sip.header("Refer-To") == f"<{target}>"


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE", "NOTIFY", "OPTIONS"])
def test_a_body_of_an_instance_that_is_no_description_shows_nothing_of_the_inside(method: str) -> None:
    target, way = f"sip:7@10.5.4.1:5060;sw={BOUND}", "Route: <sip:10.5.4.1:5060;lr>"
    text = request(method, target, way, "Content-Type: text/plain", "Content-Length: 14")
    sip = from_pbx(f"{text}from 10.5.4.11")
    assert sip.relayed
    assert sip.body() == "from acme.example"
    assert sip.header("Content-Length") == "17"


def test_a_route_of_another_call_is_481() -> None:
    text = within("BYE", "sip:100@x").replace("Call-ID: 1@h", "Call-ID: 2@h")
    assert routed(text).did("answer") == [(481, "")]


def test_a_call_under_two_call_ids_has_one_inside() -> None:
    shown = calling(call_id="9@10.5.4.11").call_id()
    dialog = DIALOG._replace(renamed=True)
    way = f"Route: <sip:203.0.113.10:5060;sw={dialog.seal(SEALER, '9@10.5.4.11')};lr>"
    text = message("BYE sip:100@x SIP/2.0", way, call_id=shown, to="<sip:100@acme.example>;tag=b")
    sip = routed(text)
    assert sip.relayed
    assert sip.call_id() == "9@10.5.4.11"
    answered(sip, reply(200, "BYE"))
    assert sip.did("media_delete") == [(media.end(call("9@10.5.4.11")),)]
    back = from_pbx(within("BYE", "sip:7@x", dialog=dialog, call_id="9@10.5.4.11"))
    assert back.call_id() == shown


# --- CANCEL ----------------------------------------------------------------------------------------------------------


def test_a_cancel_follows_its_invite() -> None:
    sip = routed(request("CANCEL", "sip:100@acme.example"))
    assert sip.did("relay") == [(0,)]
    assert not sip.did("aim")


def test_a_cancel_of_nothing_is_481_and_is_not_sent_on() -> None:
    sip = routed(request("CANCEL", "sip:100@acme.example"), known_transaction=False)
    assert sip.did("answer") == [(481, "")]
    assert not sip.relayed


# --- replies ---------------------------------------------------------------------------------------------------------


def test_a_200_shows_the_caller_our_outer_address_and_nothing_inside() -> None:
    sip, way = called()
    answered(sip, reply(200, "INVITE", way, "Contact: <sip:100@10.5.4.11:5080>", sdp=True))
    assert sip.record_routes() == [f"<sip:203.0.113.10:5060;sw={DIALOG.seal(SEALER, '1@h')};lr>"]
    assert sip.did("media_answer") == [(media.answer(CALL, Side.SERVICE), SDP)]
    assert "10.5.4." not in sip.buffer()


@pytest.mark.parametrize(("method", "longer"), [("INVITE", []), ("REGISTER", [(32_000,)]), ("MESSAGE", [(32_000,)])])
def test_an_instance_that_says_100_is_not_silent(method: str, longer: list[tuple[int]]) -> None:
    sip = routed(request(method, "sip:100@acme.example"))
    assert answered(sip, reply(100, method)).did("wait_longer") == longer


def test_a_100_is_left_alone() -> None:
    sip, _ = called()
    before = answered(sip, reply(100, "INVITE", "Contact: <sip:10.5.4.11>"))
    assert before.contacts() == ["<sip:10.5.4.11>"]


def test_a_reply_to_no_request_of_ours_is_left_alone() -> None:
    sip = Recorder(reply(200, "INVITE"), PBX, INNER)
    before = sip.buffer()
    Flow(sip.module, edge()).reply()
    assert sip.buffer() == before


def test_a_phones_answer_reaches_the_instance_under_its_own_vias_and_call_id() -> None:
    sip = calling(call_id="9@10.5.4.11")
    way, shown = f"Record-Route: {sip.record_routes()[0]}", sip.call_id()
    text = reply(200, "INVITE", way, "Contact: <sip:7@192.168.1.20>", sdp=True).replace("1@h", shown)
    answered(sip, text, PHONE, PUBLIC)
    assert sip.call_id() == "9@10.5.4.11"
    assert sip.headers("Via")[1:] == ["SIP/2.0/UDP 192.168.1.20;branch=z9hG4bK-1"]
    assert sip.contacts() == ["<sip:7@192.168.1.20>"]
    assert sip.record_routes()[0].startswith("<sip:10.5.4.1:5060;sw=")
    assert sip.did("media_answer") == [(media.answer(call("9@10.5.4.11"), Side.OUTSIDE, begins=True), SDP)]


def test_a_reply_goes_back_through_the_socket_that_the_request_came_on() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), PHONE._replace(transport="tcp"), PUBLIC_TCP)
    answered(sip, reply(200, "INVITE", f"Record-Route: {sip.record_routes()[0]}", "Contact: <sip:100@10.5.4.11>"))
    assert sip.record_routes()[0].startswith("<sip:203.0.113.10:5060;transport=tcp;sw=")
    assert "@203.0.113.10:5060;transport=tcp;sw=" in sip.contacts()[0]


def test_a_reply_that_nobody_waits_for_is_dropped() -> None:
    sip = Recorder(reply(200, "INVITE", "Contact: <sip:100@10.5.4.11>"), PBX, INNER)
    Flow(sip.module, edge()).stray_reply()
    assert sip.did("drop_reply")
    assert sip.counted == ["stray-reply"]


def test_a_reply_that_nobody_waits_for_is_dropped_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    sip = Recorder(reply(200, "INVITE"), PBX, INNER)
    monkeypatch.setattr(sip, "call_id", unreadable)
    Flow(sip.module, edge()).stray_reply()
    assert sip.did("drop_reply")
    assert sip.counted == ["stray-reply"]


def test_a_registrations_reply_gives_the_phone_its_contact_back() -> None:
    sip = routed(request("REGISTER", "sip:acme.example", "Contact: <sip:7@192.168.1.20:5062>;expires=60"))
    answered(sip, reply(200, "REGISTER", f"Contact: {sip.contacts()[0]}, <sip:7@10.5.4.99>"))
    assert list(split_list(sip.header("Contact"))) == ["<sip:7@192.168.1.20:5062>;expires=60"]


# --- failures --------------------------------------------------------------------------------------------------------


def doubled() -> Recorder:
    return routed(request("INVITE", "sip:100@acme.example", sdp=True), table=table(TWO, GLOBEX))


@pytest.mark.parametrize(("status", "silent"), [(408, True), (500, False), (502, False), (503, False), (504, False)])
def test_a_silent_or_broken_instance_is_followed_by_the_next(status: int, silent: bool) -> None:
    sip = failed(doubled(), status, silent)
    assert sip.did("aim") == [(PBX2, INNER)]
    assert sip.did("relay") == [(2000,)]
    assert sip.did("watch") == [(True,)]
    assert not sip.did("media_delete")


@pytest.mark.parametrize(
    ("status", "silent", "why"),
    [(408, True, "silent"), (500, False, "500"), (502, False, "502"), (503, False, "503"), (504, False, "504")],
)
def test_a_silent_or_broken_instance_is_marked_once_and_a_line_says_so(status: int, silent: bool, why: str) -> None:
    sip = failed(doubled(), status, silent)
    assert sip.down == {str(PBX): why}
    assert sip.counted == ["instance-down", "failover"]
    assert sip.logged[0] == (
        f"event=instance-down why={why} method=INVITE src_ip={PHONE.host} tenant=acme to={PBX} callid=1@h"
    )
    other = doubled()
    other.memory[HEALTH, str(PBX)] = "before"
    assert failed(other, status, silent).down == {str(PBX): "before"}
    assert other.counted == ["failover"]


@pytest.mark.parametrize("status", [302, 401, 404, 408, 480, 486, 501, 603])
def test_what_speaks_of_the_call_marks_nobody(status: int) -> None:
    assert not failed(doubled(), status, False).down


def test_a_silent_phone_and_a_cancelled_call_mark_nobody() -> None:
    assert not failed(calling(), 408, True).down
    assert not failed(doubled(), 408, True, cancelled=True).down


def test_an_instance_that_is_no_tenants_any_more_is_not_marked() -> None:
    fewer = TWO._replace(instances=TWO.instances[1:])
    assert not failed(doubled(), 408, True, table=table(fewer)).down
    assert not failed(doubled(), 408, True, table={}).down


def test_a_following_instance_that_is_down_by_now_is_passed_over() -> None:
    third = Endpoint("udp", "10.5.4.13", 5080)
    three = TWO._replace(instances=(*TWO.instances, Instance(third, priority=3)))
    sip = routed(request("INVITE", "sip:100@acme.example"), table=table(three))
    sip.memory[HEALTH, str(PBX2)] = "silent"
    assert failed(sip, 408, True).did("aim") == [(third, INNER)]


@pytest.mark.parametrize("method", ["INVITE", "REGISTER", "MESSAGE"])
def test_an_instance_that_cannot_be_sent_to_is_marked_and_followed_by_the_next_in_the_same_breath(method: str) -> None:
    sip = routed(request(method, "sip:100@acme.example"), table=table(TWO), refusing=frozenset({PBX}))
    assert [target for target, _ in sip.did("aim")] == [PBX, PBX2]
    assert sip.down == {str(PBX): "unreachable"}
    assert not sip.did("answer")
    again = failed(sip, 408, True)
    assert again.down == {str(PBX): "unreachable", str(PBX2): "silent"}


def test_when_none_can_be_sent_to_the_caller_gets_503_once() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), table=table(TWO), sendable=False)
    assert sip.did("answer") == [(503, "Retry-After: 10\r\n")]
    assert sip.down == {str(PBX): "unreachable", str(PBX2): "unreachable"}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_when_the_last_of_several_is_broken_the_caller_gets_503_and_it_is_not_marked(status: int) -> None:
    sip = failed(failed(doubled(), 408, True), status, False)
    assert sip.did("answer_failure") == [(503, "Retry-After: 10\r\n")]
    assert sip.counted[-1] == "all-down"
    assert sip.down == {str(PBX): "silent"}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("sibling", [(), (Instance(PBX2, drain=True),)], ids=["alone", "beside-a-draining-one"])
def test_the_5xx_of_a_sole_instance_is_passed_and_does_not_mark_it(status: int, sibling: tuple[Instance, ...]) -> None:
    sole = TWO._replace(instances=(Instance(PBX), *sibling))
    sip = failed(routed(request("INVITE", "sip:100@acme.example"), table=table(sole)), status, False)
    assert not sip.did("answer_failure")
    assert not sip.down


def test_when_all_are_down_the_caller_is_told_at_once() -> None:
    down = {(HEALTH, str(PBX)): "silent", (HEALTH, str(PBX2)): "503"}
    sip = routed(request("INVITE", "sip:100@acme.example"), table=table(TWO), memory=down)
    assert sip.did("answer") == [(503, "Retry-After: 10\r\n")]
    assert sip.counted == ["all-down"]
    assert not sip.relayed


def test_after_the_last_instance_the_caller_gets_503_and_the_media_is_deleted() -> None:
    sip = failed(failed(doubled(), 408, True), 408, True)
    assert sip.did("answer_failure") == [(503, "Retry-After: 10\r\n")]
    assert sip.did("media_delete") == [(media.end(CALL),)]
    assert not sip.relayed


@pytest.mark.parametrize("status", [302, 401, 404, 407, 408, 480, 486, 487, 488, 501, 603])
def test_what_speaks_of_the_call_is_passed_on_and_its_media_is_deleted(status: int) -> None:
    sip = failed(doubled(), status, False)
    assert not sip.relayed
    assert not sip.did("answer_failure")
    assert sip.did("media_delete") == [(media.end(CALL),)]


@pytest.mark.parametrize(("status", "silent"), [(487, False), (408, True), (503, False)])
def test_a_cancelled_call_is_not_tried_elsewhere(status: int, silent: bool) -> None:
    sip = failed(doubled(), status, silent, cancelled=True)
    assert not sip.relayed
    assert sip.did("media_delete")


@pytest.mark.parametrize(("redirect", "answers"), [("pass", []), ("refuse", [(480, "")])])
@pytest.mark.parametrize("status", [300, 302, 399])
def test_a_redirection_is_passed_or_refused_and_never_followed(
    redirect: str, answers: list[object], status: int
) -> None:
    tenant = TWO._replace(redirect=redirect)
    sip = routed(request("INVITE", "sip:100@acme.example"), table=table(tenant))
    failed(sip, status, False)
    assert sip.did("answer_failure") == answers
    assert not sip.relayed


def test_an_unanswered_registration_is_503_without_a_word_to_rtpengine() -> None:
    sip = failed(routed(request("REGISTER", "sip:acme.example")), 408, True)
    assert sip.did("answer_failure") == [(503, "Retry-After: 10\r\n")]
    assert not sip.did("media_delete")


def test_a_silent_phone_is_no_silent_instance() -> None:
    sip = failed(calling(), 408, True)
    assert not sip.did("answer_failure")
    assert sip.did("media_delete") == [(media.end(call("9@pbx")),)]


def test_who_took_over_is_the_inner_end_from_then_on() -> None:
    sip = doubled()
    way = f"Record-Route: {sip.record_routes()[0]}"
    failed(sip, 408, True)
    answered(sip, reply(200, "INVITE", way), PBX2)
    text = sip.record_routes()[0].partition(";sw=")[2].partition(";")[0]
    assert Dialog.open(SEALER, text, "1@h") == DIALOG._replace(inner=PBX2, late=False, others=(PBX2,))


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"), [("1@h", "1@h"), ("a b\r\nc", "a?b??c"), ("zoë", "zo?"), ("\x1b[2J\0", "?[2J?"), ("", "")]
)
def test_a_text_from_a_message_is_one_word_of_the_log(text: str, word: str) -> None:
    assert printable(text) == word
