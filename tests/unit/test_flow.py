"""A message's path: what is done to it, in which order, for each side."""

import ast
import inspect
from dataclasses import replace
from pathlib import Path

import pytest

import sipward
from sipward import media
from sipward.flow import Flow, printable
from sipward.model import Endpoint, Instance, Side, Socket
from sipward.seal import Sealer
from sipward.tokens import Binding, Dialog, Hidden
from sipward.uri import split_list
from unit.recorder import ACME, GLOBEX, INNER, KEY, PBX, PBX2, PHONE, PUBLIC, PUBLIC_TCP, RIVAL, Recorder, edge, table

SEALER = Sealer([KEY])
DIALOG = Dialog("acme", PHONE, PBX)
BOUND = Binding("acme", PHONE, "sip:192.168.1.20:5062").seal(SEALER)
SDP = "v=0\r\nc=IN IP4 192.168.1.20\r\nm=audio 4000 RTP/AVP 0\r\n"
TWO = replace(ACME, instances=(Instance(PBX, priority=1), Instance(PBX2, priority=2)))


def message(
    start: str, *fields: str, sdp: bool = False, call_id: str = "1@h", to: str = "<sip:100@acme.example>"
) -> str:
    method = start.partition(" ")[0]
    lines = [start, "Via: SIP/2.0/UDP 192.168.1.20;branch=z9hG4bK-1", "From: <sip:7@acme.example>;tag=a", f"To: {to}"]
    lines += [f"Call-ID: {call_id}", f"CSeq: 1 {method}", "Max-Forwards: 70", *fields]
    lines += ["Content-Type: application/sdp"] if sdp else []
    return "\r\n".join(lines) + "\r\n\r\n" + (SDP if sdp else "")


def request(method: str, target: str, *fields: str, sdp: bool = False, call_id: str = "1@h") -> str:
    return message(f"{method} {target} SIP/2.0", *fields, sdp=sdp, call_id=call_id)


def within(
    method: str, target: str, *fields: str, sdp: bool = False, dialog: Dialog = DIALOG, call_id: str = "1@h"
) -> str:
    way = f"Route: <sip:203.0.113.10:5060;sw={dialog.seal(SEALER, call_id)};lr>"
    to = "<sip:100@acme.example>;tag=b"
    return message(f"{method} {target} SIP/2.0", way, *fields, sdp=sdp, call_id=call_id, to=to)


def reply(status: int, method: str, *fields: str, sdp: bool = False) -> str:
    text = message(f"{method} x SIP/2.0", *fields, sdp=sdp, to="<sip:100@acme.example>;tag=b")
    return f"SIP/2.0 {status} X\r\n" + text.partition("\r\n")[2]


def routed(text: str, source: Endpoint = PHONE, on: Socket = PUBLIC, /, **trouble: object) -> Recorder:
    sip = Recorder(text, source, on)
    for name, value in trouble.items():
        setattr(sip, name, value)
    Flow(sip.module, edge()).request()
    return sip


def from_pbx(text: str, **trouble: object) -> Recorder:
    return routed(text, PBX, INNER, **trouble)


def answered(sip: Recorder, text: str, source: Endpoint = PBX, on: Socket = INNER) -> Recorder:
    """Let a reply to a relayed request arrive."""
    sip.verbs.clear()
    sip.arrives(text, source, on)
    Flow(sip.module, edge()).reply()
    return sip


def failed(sip: Recorder, status: int, silent: bool, **trouble: object) -> Recorder:
    """Let a relayed request fail."""
    sip.verbs.clear()
    sip.failed = (status, silent)
    for name, value in trouble.items():
        setattr(sip, name, value)
    Flow(sip.module, edge()).failure()
    return sip


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
        for name in ("flow", "concealment", "passage", "guard")
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


def test_a_uri_that_is_not_sip_is_416() -> None:
    assert routed(request("INVITE", "tel:+39072140")).did("answer") == [(416, "")]


def test_an_answer_goes_back_through_the_nat_and_to_an_instances_via_inside() -> None:
    assert routed(request("INVITE", "sip:100@acme.example")).did("answer_to_source")
    assert routed(request("INVITE", "sip:100@unknown.example")).did("answer_to_source")
    assert not from_pbx(request("OPTIONS", "sip:10.5.4.1:5060")).did("answer_to_source")


@pytest.mark.parametrize("method", ["REGISTER", "INVITE", "MESSAGE", "OPTIONS", "SUBSCRIBE"])
def test_an_unknown_domain_is_404_and_the_log_says_who_and_why(method: str) -> None:
    sip = routed(request(method, "sip:100@unknown.example"))
    assert sip.did("answer") == [(404, "")]
    assert sip.counted == ["unknown-domain"]
    assert sip.logged == [f"event=refused why=unknown-domain method={method} src_ip=198.51.100.7 code=404 callid=1@h"]


def test_before_the_table_is_loaded_nobody_is_told_that_a_domain_is_unknown() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), table={}, loaded=False)
    assert sip.did("answer") == [(503, "Retry-After: 2\r\n")]


def test_an_ack_is_never_answered() -> None:
    for text in (within("ACK", "sip:x", dialog=replace(DIALOG, outer=PBX)), request("ACK", "sip:100@unknown.example")):
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
    assert sip.did("media_offer") == [(media.offer("acme", "1@h", Side.OUTSIDE, Side.SERVICE, False),)]
    [value] = sip.record_routes()
    assert value == f"<sip:10.5.4.1:5060;sw={DIALOG.seal(SEALER, '1@h')};lr>"
    assert sip.new_uri is None


@pytest.mark.parametrize("method", ["INVITE", "SUBSCRIBE", "REFER", "NOTIFY"])
def test_what_forms_a_dialog_gets_our_record_route(method: str) -> None:
    assert len(routed(request(method, "sip:100@acme.example")).record_routes()) == 1


@pytest.mark.parametrize("method", ["REGISTER", "MESSAGE", "OPTIONS", "PUBLISH", "INFO"])
def test_what_forms_none_does_not(method: str) -> None:
    sip = routed(request(method, "sip:100@acme.example"))
    assert sip.relayed
    assert not sip.record_routes()


def test_what_a_stranger_says_about_the_way_is_not_followed() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example", "Route: <sip:203.0.113.10;lr>, <sip:evil.example;lr>"))
    assert sip.did("aim") == [(PBX, INNER)]
    assert sip.routes() == []
    sip = routed(request("INVITE", "sip:100@acme.example", "Route: <sip:evil.example;lr>"))
    assert sip.routes() == []


def test_a_registration_shows_the_instance_our_address() -> None:
    sip = routed(request("REGISTER", "sip:acme.example", "Contact: <sip:7@192.168.1.20:5062>;expires=60"))
    assert sip.contacts() == [f"<sip:7@10.5.4.1:5060;sw={BOUND}>;expires=60"]


def test_without_rtpengine_no_call_is_sent_on_with_its_sdp() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example", sdp=True), media_works=False)
    assert sip.did("answer") == [(503, "Retry-After: 5\r\n")]
    assert not sip.relayed


def test_an_invite_without_an_offer_needs_no_rtpengine() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example"), media_works=False)
    assert sip.relayed


def test_an_instance_that_cannot_be_reached_at_all_is_503_and_its_media_is_deleted() -> None:
    sip = routed(request("INVITE", "sip:100@acme.example", sdp=True), sendable=False)
    assert sip.did("answer") == [(503, "Retry-After: 10\r\n")]
    assert sip.did("media_delete") == [("call-id=acme/1@h",)]


def test_two_tenants_with_one_call_id_are_two_calls_to_rtpengine() -> None:
    mine = routed(request("INVITE", "sip:100@acme.example", sdp=True))
    theirs = routed(request("INVITE", "sip:100@globex.example", sdp=True))
    assert theirs.did("aim") == [(RIVAL, INNER)]
    assert mine.did("media_offer") != theirs.did("media_offer")


# --- instance to phone -----------------------------------------------------------------------------------------------


def calling(sdp: bool = True, call_id: str = "9@pbx", flow: Endpoint = PHONE, **trouble: object) -> Recorder:
    bound = Binding("acme", flow, "sip:192.168.1.20:5062").seal(SEALER)
    way = "Route: <sip:10.5.4.1:5060;lr>"
    contact = "Contact: <sip:7@10.5.4.11:5080>"
    return from_pbx(
        request("INVITE", f"sip:7@10.5.4.1:5060;sw={bound}", way, contact, sdp=sdp, call_id=call_id), **trouble
    )


def test_a_call_to_a_phone_goes_to_its_flow_with_its_own_contact() -> None:
    sip = calling()
    assert sip.did("aim") == [(PHONE, PUBLIC)]
    assert sip.did("relay") == [(0,)]
    assert sip.new_uri == "sip:7@192.168.1.20:5062"
    assert sip.routes() == []
    assert sip.did("media_offer") == [(media.offer("acme", "9@pbx", Side.SERVICE, Side.OUTSIDE, False),)]
    assert not sip.did("only_over_open_connection")


def test_a_call_to_a_phone_shows_nothing_of_the_inside() -> None:
    sip = calling(call_id="9@10.5.4.11")
    assert "10.5.4." not in sip.buffer().partition("\r\n")[2]
    assert sip.call_id().startswith("sw-")
    assert sip.did("media_offer")[0][0] == media.offer("acme", "9@10.5.4.11", Side.SERVICE, Side.OUTSIDE, False)


def test_a_phone_on_tcp_is_reached_over_its_own_connection_only() -> None:
    sip = calling(flow=replace(PHONE, transport="tcp"))
    assert sip.did("aim") == [(replace(PHONE, transport="tcp"), PUBLIC_TCP)]
    assert sip.did("only_over_open_connection")


def test_a_phone_whose_connection_is_gone_is_430() -> None:
    sip = calling(sendable=False)
    assert sip.did("answer") == [(430, "")]
    assert sip.did("media_delete") == [("call-id=acme/9@pbx",)]


def test_a_flow_without_a_socket_of_ours_is_503() -> None:
    sip = calling(flow=replace(PHONE, transport="tls"))
    assert sip.did("answer") == [(503, "")]
    assert not sip.relayed


def test_an_instances_path_is_gone_on_with() -> None:
    way = "Route: <sip:10.5.4.1:5060;lr>, <sip:far@198.51.100.9;lr>"
    sip = from_pbx(request("INVITE", f"sip:7@10.5.4.1;sw={BOUND}", way))
    assert sip.routes() == ["<sip:far@198.51.100.9;lr>"]
    assert sip.did("aim") == [(PHONE, PUBLIC)]


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
    assert sip.did("watch") == [(False,)]
    assert sip.new_uri == "sip:100@10.5.4.11:5080"
    assert sip.routes() == []
    assert not sip.record_routes()


def test_in_a_dialog_only_the_routes_that_we_hid_for_this_tenant_are_gone_on_with() -> None:
    shown = [
        f"<sip:203.0.113.10:5060;sw={Hidden(tenant, '10.5.4.12:5060;lr').seal(SEALER)};lr>"
        for tenant in ("acme", "globex")
    ]
    sip = routed(within("BYE", "sip:100@x", f"Route: {', '.join([*shown, '<sip:far.example;lr>'])}"))
    assert sip.routes() == ["<sip:10.5.4.12:5060;lr>"]
    assert sip.did("aim") == [(PBX, INNER)]


def test_a_record_route_of_a_proxy_inside_is_hidden() -> None:
    sip, way = called()
    answered(sip, reply(200, "INVITE", "Record-Route: <sip:10.5.4.12:5060;lr>", way))
    assert "10.5.4." not in sip.buffer()
    assert len(sip.record_routes()) == 2


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


@pytest.mark.parametrize("method", ["BYE", "INVITE", "INFO"])
def test_a_request_in_a_dialog_without_our_route_is_481(method: str) -> None:
    text = message(f"{method} sip:100@acme.example SIP/2.0", to="<sip:100@acme.example>;tag=b")
    sip = routed(text)
    assert sip.did("answer") == [(481, "")]
    assert not sip.relayed


def test_a_route_of_another_call_is_481() -> None:
    text = within("BYE", "sip:100@x").replace("Call-ID: 1@h", "Call-ID: 2@h")
    assert routed(text).did("answer") == [(481, "")]


def test_a_bye_deletes_the_calls_media() -> None:
    assert routed(within("BYE", "sip:100@x")).did("media_delete") == [("call-id=acme/1@h",)]
    assert from_pbx(within("BYE", "sip:7@x")).did("media_delete") == [("call-id=acme/1@h",)]


def test_a_bye_is_sent_on_when_rtpengine_does_not_answer() -> None:
    sip = routed(within("BYE", "sip:100@x"), media_works=False)
    assert sip.relayed
    assert sip.counted == ["media-delete-failed"]


def test_a_call_under_two_call_ids_has_one_inside() -> None:
    shown = calling(call_id="9@10.5.4.11").call_id()
    dialog = replace(DIALOG, renamed=True)
    way = f"Route: <sip:203.0.113.10:5060;sw={dialog.seal(SEALER, '9@10.5.4.11')};lr>"
    text = message("BYE sip:100@x SIP/2.0", way, call_id=shown, to="<sip:100@acme.example>;tag=b")
    sip = routed(text)
    assert sip.relayed
    assert sip.call_id() == "9@10.5.4.11"
    assert sip.did("media_delete") == [("call-id=acme/9@10.5.4.11",)]
    back = from_pbx(within("BYE", "sip:7@x", dialog=dialog, call_id="9@10.5.4.11"))
    assert back.call_id() == shown


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
    sip = routed(within("PRACK", "sip:100@x", sdp=True, dialog=replace(DIALOG, late=late)))
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


def called(**trouble: object) -> tuple[Recorder, str]:
    """A call from outside that has been relayed, and the Record-Route it got."""
    sip = routed(request("INVITE", "sip:100@acme.example", sdp=True), **trouble)
    return sip, f"Record-Route: {sip.record_routes()[0]}"


def test_a_200_shows_the_caller_our_outer_address_and_nothing_inside() -> None:
    sip, way = called()
    answered(sip, reply(200, "INVITE", way, "Contact: <sip:100@10.5.4.11:5080>", sdp=True))
    assert sip.record_routes() == [f"<sip:203.0.113.10:5060;sw={DIALOG.seal(SEALER, '1@h')};lr>"]
    assert sip.did("media_answer") == [(media.answer("acme", "1@h", Side.SERVICE),)]
    assert "10.5.4." not in sip.buffer()


def test_other_record_routes_keep_their_place() -> None:
    sip, way = called()
    ours = way.partition(": ")[2]
    answered(sip, reply(200, "INVITE", f"Record-Route: <sip:a.example;lr>, {ours}, <sip:b.example;lr>"))
    first, middle, last = sip.record_routes()
    assert last == "<sip:b.example;lr>"
    assert middle.startswith("<sip:203.0.113.10:5060;sw=")
    # A proxy behind us is hidden, and comes back with the caller's next request.
    hidden = Hidden("acme", "a.example;lr").seal(SEALER)
    assert first == f"<sip:203.0.113.10:5060;sw={hidden};lr>"


def test_forked_replies_are_each_answers() -> None:
    sip, way = called()
    for tag, status in (("b", 183), ("c", 183), ("c", 200)):
        answered(sip, reply(status, "INVITE", way, sdp=True).replace(";tag=b", f";tag={tag}"))
        assert len(sip.did("media_answer")) == 1


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


def test_a_phones_answer_reaches_the_instance_under_its_own_vias_and_call_id() -> None:
    sip = calling(call_id="9@10.5.4.11")
    way, shown = f"Record-Route: {sip.record_routes()[0]}", sip.call_id()
    text = reply(200, "INVITE", way, "Contact: <sip:7@192.168.1.20>", sdp=True).replace("1@h", shown)
    answered(sip, text, PHONE, PUBLIC)
    assert sip.call_id() == "9@10.5.4.11"
    assert sip.headers("Via")[1:] == ["SIP/2.0/UDP 192.168.1.20;branch=z9hG4bK-1"]
    assert sip.contacts() == ["<sip:7@192.168.1.20>"]
    assert sip.record_routes()[0].startswith("<sip:10.5.4.1:5060;sw=")
    assert sip.did("media_answer") == [(media.answer("acme", "9@10.5.4.11", Side.OUTSIDE),)]


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


def test_after_the_last_instance_the_caller_gets_503_and_the_media_is_deleted() -> None:
    sip = failed(failed(doubled(), 408, True), 408, True)
    assert sip.did("answer_failure") == [(503, "Retry-After: 10\r\n")]
    assert sip.did("media_delete") == [("call-id=acme/1@h",)]
    assert not sip.relayed


@pytest.mark.parametrize("status", [302, 401, 404, 407, 408, 480, 486, 487, 488, 501, 603])
def test_what_speaks_of_the_call_is_passed_on_and_its_media_is_deleted(status: int) -> None:
    sip = failed(doubled(), status, False)
    assert not sip.relayed
    assert not sip.did("answer_failure")
    assert sip.did("media_delete") == [("call-id=acme/1@h",)]


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
    tenant = replace(TWO, redirect=redirect)
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
    assert sip.did("media_delete") == [("call-id=acme/9@pbx",)]


def test_who_took_over_is_the_inner_end_from_then_on() -> None:
    sip = doubled()
    way = f"Record-Route: {sip.record_routes()[0]}"
    failed(sip, 408, True)
    answered(sip, reply(200, "INVITE", way), PBX2)
    text = sip.record_routes()[0].partition(";sw=")[2].partition(";")[0]
    assert Dialog.open(SEALER, text, "1@h") == replace(DIALOG, inner=PBX2, late=False)


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "word"), [("1@h", "1@h"), ("a b\r\nc", "a?b??c"), ("zoë", "zo?"), ("\x1b[2J\0", "?[2J?"), ("", "")]
)
def test_a_text_from_a_message_is_one_word_of_the_log(text: str, word: str) -> None:
    assert printable(text) == word
