"""Topology hiding: nothing inner leaves, and what must come back comes back."""

import re
from urllib.parse import quote

import pytest

from sipward import headers
from sipward.concealment import Concealment
from sipward.decision import Relay, Request
from sipward.model import Endpoint, Side, Socket
from sipward.seal import Sealer
from sipward.tokens import Account, Binding, Dialog, Hidden
from sipward.uri import Uri, parse, split_list
from unit.recorder import INNER, INNER_TCP, KEY, PBX, PHONE, PUBLIC, PUBLIC_TCP, Recorder, edge

SEALER = Sealer([KEY])
DIALOG = Dialog("acme", PHONE, PBX)
INVITE = """INVITE sip:100@10.5.4.1:5060;sw=x SIP/2.0
Via: SIP/2.0/UDP 10.5.4.11:5080;branch=z9hG4bK-1;rport
v: SIP/2.0/TCP 10.5.4.12;branch=z9hG4bK-2
From: "7" <sip:7@10.5.4.11>;tag=a
To: <sip:100@10.5.4.1:5060;sw=abc-_1>
Call-ID: 1@10.5.4.11
CSeq: 1 INVITE
m: "Pbx, main" <sip:7@10.5.4.11:5080;transport=udp>;expires=5
P-Asserted-Identity: "7"
 <sip:7@10.5.4.11>
Content-Length: 9

c=IN IP4 """


def concealed(sip: Recorder) -> Concealment:
    domains = {"acme": "acme.example"}
    return Concealment(sip.module, edge(), SEALER, lambda name: domains.get(name, "invalid"))


def asked(method: str = "INVITE", has_sdp: bool = True) -> Request:
    uri = Uri("sip", "7", "h")
    return Request(method, Side.SERVICE, PBX, "1", uri, None, None, 0, None, in_dialog=False, has_sdp=has_sdp)


def relay(to: Side = Side.OUTSIDE, tenant: str = "acme", trunk: str = "", asserts: bool = True) -> Relay:
    return Relay(to, (PHONE,), Dialog(tenant, PHONE, PBX, trunk=trunk), asserts=asserts)


def request(
    sip: Recorder, to: Side = Side.OUTSIDE, keep: bool = True, call_id: str = "sw-1", sweep_body: bool = False
) -> str:
    concealed(sip).request(asked("INVITE" if keep else "ACK", has_sdp=not sweep_body), relay(to), PUBLIC, call_id)
    return sip.buffer()


def token(text: str) -> str:
    found = re.search(r";sw=([\w-]+)", text)
    assert found
    return found[1]


# --- requests of an instance -----------------------------------------------------------------------------------------


def test_no_header_of_an_instances_request_shows_the_inside() -> None:
    head = request(Recorder(INVITE, PBX, INNER)).partition("\r\n\r\n")[0]
    assert "10.5.4." not in head.partition("\r\n")[2]


def test_the_start_line_and_the_body_are_left_to_others() -> None:
    text = request(Recorder(INVITE, PBX, INNER))
    assert text.startswith("INVITE sip:100@10.5.4.1:5060;sw=x SIP/2.0\r\n")
    assert text.endswith("\r\n\r\nc=IN IP4 ")


def test_an_instances_vias_become_one_of_ours_with_its_branch() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    request(sip)
    assert sip.headers("Via") == ["SIP/2.0/UDP 203.0.113.10:5060;branch=z9hG4bK-1"]
    assert sip.fields[0][0] == "Via"


def test_an_instances_vias_are_kept_for_the_reply_and_given_back() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    kept = sip.headers("Via") + sip.headers("v")
    request(sip)
    sip.arrives("SIP/2.0 200 OK\nVia: ours\nVia: shown\nCSeq: 1 INVITE\n\n", PHONE, PUBLIC)
    concealed(sip).restore_vias()
    assert sip.headers("Via") == ["ours", *kept]


def test_a_reply_without_kept_vias_keeps_its_own() -> None:
    sip = Recorder("SIP/2.0 200 OK\nVia: ours\nVia: phone\nCSeq: 1 INVITE\n\n")
    concealed(sip).restore_vias()
    assert sip.headers("Via") == ["ours", "phone"]


def test_the_transaction_is_made_of_the_changed_request_with_the_vias_and_the_call_id_it_came_with() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    request(sip)
    assert [verb for verb, *_ in sip.verbs] == ["set_buffer", "new_transaction", "pretend_source"]
    kept = str(sip.did("set_buffer")[0][0]).partition("\r\n\r\n")[0].split("\r\n")[1:]
    inner = [line for line in kept if "10.5.4." in line]
    assert inner == [
        "Via: SIP/2.0/UDP 10.5.4.11:5080;branch=z9hG4bK-1;rport",
        "Via: SIP/2.0/TCP 10.5.4.12;branch=z9hG4bK-2",
    ]
    assert "Call-ID: 1" in kept
    assert sip.headers("Call-ID") == ["sw-1"]
    assert sip.did("pretend_source") == [("203.0.113.10:5060",)]


def test_several_vias_in_one_line_are_kept_and_masked_as_several() -> None:
    joined = "Via: SIP/2.0/UDP 10.5.4.11:5080;branch=z9hG4bK-1, SIP/2.0/TCP 10.5.4.12;branch=z9hG4bK-2"
    text = INVITE.replace("v: SIP/2.0/TCP 10.5.4.12;branch=z9hG4bK-2\n", "")
    sip = Recorder(text.replace("Via: SIP/2.0/UDP 10.5.4.11:5080;branch=z9hG4bK-1;rport", joined), PBX, INNER)
    request(sip)
    assert sip.headers("Via") == ["SIP/2.0/UDP 203.0.113.10:5060;branch=z9hG4bK-1"]
    assert sip.recall("vias").split("\n") == joined.removeprefix("Via: ").split(", ")


def test_an_ack_has_no_transaction() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    request(sip, keep=False)
    assert not sip.did("new_transaction")
    assert not sip.avps


def test_the_instances_contact_is_hidden_with_everything_around_it_kept() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    request(sip)
    [contact] = sip.headers("Contact")
    assert contact == f'"Pbx, main" <sip:7@203.0.113.10:5060;sw={token(contact)}>;expires=5'
    assert Hidden.open(SEALER, token(contact)) == Hidden("acme", "10.5.4.11:5080;transport=udp")


def test_a_contact_over_tcp_says_so() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    concealed(sip).request(asked(), relay(), PUBLIC_TCP, "1")
    assert "@203.0.113.10:5060;transport=tcp;sw=" in sip.header("Contact")
    assert sip.header("Via").startswith("SIP/2.0/TCP 203.0.113.10:5060;")


def test_the_call_id_is_the_one_asked_for() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    request(sip, call_id="sw-renamed")
    assert sip.headers("Call-ID") == ["sw-renamed"]


def test_a_sealed_text_of_the_inside_is_taken_from_the_to_header() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    request(sip)
    assert sip.header("To") == "<sip:100@acme.example>"


def test_a_folded_field_is_swept_as_well() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    request(sip)
    assert sip.header("P-Asserted-Identity") == '"7" <sip:7@acme.example>'


@pytest.mark.parametrize(
    ("line", "swept"),
    [
        ("Referred-By: <sip:7@10.5.4.11:5080>", "<sip:7@acme.example>"),
        ("Warning: 399 10.5.4.11 x", "399 acme.example x"),
        ("X: 198.51.100.7 10.5.4.11,10.5.4.12", "198.51.100.7 acme.example,acme.example"),
        ("X: [fd00:5:4::11]:5060", "acme.example"),
        ("X: 110.5.4.11", "110.5.4.11"),
        ("X: swim", "swim"),
        ("X: zoë", "zoë"),
        ("Content-Length: 10", "10"),
    ],
)
def test_an_inner_address_in_any_field_becomes_the_tenants_domain(line: str, swept: str) -> None:
    sip = Recorder(INVITE.replace("CSeq: 1 INVITE", f"CSeq: 1 INVITE\n{line}"), PBX, INNER)
    request(sip)
    assert swept in sip.headers(line.partition(":")[0])


def test_a_tenant_that_is_gone_has_no_domain_to_show() -> None:
    sip = Recorder(INVITE, PBX, INNER)
    concealed(sip).request(asked(), relay(tenant="gone"), PUBLIC, "1")
    assert "<sip:7@invalid>" in sip.header("From")


def test_the_local_side_sees_our_own_address_and_not_the_public_one() -> None:
    socket = Socket(Side.OUTSIDE, Endpoint("udp", "192.168.1.1", 5060), "198.18.0.1")
    sip = Recorder(INVITE, PBX, INNER)
    concealed(sip).request(asked(), relay(Side.LOCAL), socket, "1")
    assert "@192.168.1.1:5060;" in sip.header("Contact")
    assert "198.18.0.1" not in sip.buffer()


# --- Call-ID ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call_id", ["1@10.5.4.11", "", "zoë@[fd00:5:4::11]", "sw-x@10.5.4.11"])
def test_a_renamed_call_id_comes_back_and_is_always_the_same(call_id: str) -> None:
    hiding = concealed(Recorder(INVITE))
    shown = hiding.outer_call_id(call_id)
    assert shown == concealed(Recorder(INVITE)).outer_call_id(call_id)
    assert "10.5" not in shown
    assert hiding.inner_call_id(shown) == call_id


@pytest.mark.parametrize("call_id", ["1@198.51.100.7", "", "sw-", "sw-forged", "sw-é", "SW-1"])
def test_any_other_call_id_is_the_same_on_both_sides(call_id: str) -> None:
    assert concealed(Recorder(INVITE)).inner_call_id(call_id) == call_id


# --- another call ----------------------------------------------------------------------------------------------------

INNER_ID = "9@10.5.4.11"


def outer(call_id: str = INNER_ID) -> str:
    return concealed(Recorder(INVITE)).outer_call_id(call_id)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Refer-To: <sip:3@h?Replaces=9%4010.5.4.11%3Bto-tag%3Da>", "<sip:3@h?Replaces={}%3Bto-tag%3Da>"),
        ("Refer-To: <sip:3@h?Replaces=9%4010.5.4.11%3bto-tag%3da>", "<sip:3@h?Replaces={}%3bto-tag%3da>"),
        ("refer-to: <sip:3@h?replaces=9@10.5.4.11&X=1>", "<sip:3@h?replaces={}&X=1>"),
        ("Refer-To: <sip:3@h?X=1&Replaces=9%4010.5.4.11>;p=1", "<sip:3@h?X=1&Replaces={}>;p=1"),
        ("Refer-To: <sip:3@10.5.4.11?Replaces=9%4010.5.4.11>", "<sip:3@acme.example?Replaces={}>"),
        ("Refer-To: <sip:3@h?Replaces=9%40h%3Bto-tag%3Da>", "<sip:3@h?Replaces=9%40h%3Bto-tag%3Da>"),
        ("Refer-To: <sip:3@10.5.4.11:5080>", "<sip:3@acme.example>"),
        ("Replaces: 9@10.5.4.11;to-tag=a;from-tag=b", "{};to-tag=a;from-tag=b"),
        ("Replaces : 9@10.5.4.11 ;to-tag=a", "{} ;to-tag=a"),
        ("Replaces: 9@h;to-tag=a", "9@h;to-tag=a"),
        ("Replaces: 9%40h;to-tag=a", "9%40h;to-tag=a"),
    ],
)
def test_an_instances_word_of_another_call_names_it_as_the_outside_knows_it(line: str, shown: str) -> None:
    sip = Recorder(INVITE.replace("CSeq: 1 INVITE", f"CSeq: 1 INVITE\n{line}"), PBX, INNER)
    request(sip)
    assert sip.header(line.partition(":")[0].strip()) == shown.format(outer())


def test_the_compact_form_of_refer_to_names_it_so_too() -> None:
    line = "r: <sip:3@10.5.4.11?Replaces=9%4010.5.4.11%3Bto-tag%3Da>"
    sip = Recorder(INVITE.replace("CSeq: 1 INVITE", f"CSeq: 1 INVITE\n{line}"), PBX, INNER)
    request(sip)
    assert sip.header("r") == f"<sip:3@acme.example?Replaces={outer()}%3Bto-tag%3Da>"


def test_an_escape_in_a_call_id_is_one_in_a_uri_only() -> None:
    line = "Replaces: 9%40x@10.5.4.11;to-tag=a"
    sip = Recorder(INVITE.replace("CSeq: 1 INVITE", f"CSeq: 1 INVITE\n{line}"), PBX, INNER)
    request(sip)
    assert sip.header("Replaces") == f"{outer('9%40x@10.5.4.11')};to-tag=a"


def revealed(line: str, method: str = "REFER", tenant: str = "acme") -> str:
    sip = Recorder(f"{method} sip:100@x SIP/2.0\nVia: a\nCSeq: 1 {method}\n{line}\n\n")
    concealed(sip).reveal(method, tenant)
    return sip.header(line.partition(":")[0])


HIDDEN = Hidden("acme", "10.5.4.11:5080;transport=udp").seal(SEALER)


@pytest.mark.parametrize(
    ("value", "inner"),
    [
        ("<sip:3@h?Replaces={outer}%3Bto-tag%3Da>", "<sip:3@h?Replaces=9%4010.5.4.11%3Bto-tag%3Da>"),
        ("<sip:3@p;sw={hidden}>", "<sip:3@10.5.4.11:5080;transport=udp>"),
        ('"A, B" <sip:3@p;sw={hidden}>;q=1', '"A, B" <sip:3@10.5.4.11:5080;transport=udp>;q=1'),
        (
            "<sip:3@p;sw={hidden}?Replaces={outer}%3Bto-tag%3Da>",
            "<sip:3@10.5.4.11:5080;transport=udp?Replaces=9%4010.5.4.11%3Bto-tag%3Da>",
        ),
        ("<sip:3@h>", "<sip:3@h>"),
        ("<sip:3@h?Replaces=sw-forged%3Bto-tag%3Da>", "<sip:3@h?Replaces=sw-forged%3Bto-tag%3Da>"),
        ("<sip:3@p;sw=forged>", "<sip:3@p;sw=forged>"),
        ("<tel:+39;sw={hidden}>", "<tel:+39;sw={hidden}>"),
        ("<sip:3@p;sw={hidden}", "<sip:3@p;sw={hidden}"),
    ],
)
def test_a_phones_word_of_another_call_names_it_as_the_instance_knows_it(value: str, inner: str) -> None:
    texts = {"outer": outer(), "hidden": HIDDEN}
    assert revealed(f"Refer-To: {value.format(**texts)}") == inner.format(**texts)


def test_in_a_replaces_field_the_call_id_inside_is_not_escaped() -> None:
    assert revealed(f"Replaces: {outer()};to-tag=a;early-only", "INVITE") == "9@10.5.4.11;to-tag=a;early-only"


@pytest.mark.parametrize("call_id", [INNER_ID, "a%b@10.5.4.11", "a%40b@10.5.4.11", "a+b@[fd00:5:4::11]"])
@pytest.mark.parametrize(("method", "form"), [("REFER", "Refer-To: <sip:3@h?Replaces={}>"), ("INVITE", "Replaces: {}")])
def test_what_was_said_of_another_call_comes_back_as_it_was(method: str, form: str, call_id: str) -> None:
    in_uri = method == "REFER"
    line = form.format(quote(call_id, safe="") if in_uri else f"{call_id};to-tag=a")
    sip = Recorder(INVITE.replace("CSeq: 1 INVITE", f"CSeq: 1 INVITE\n{line}"), PBX, INNER)
    request(sip)
    name, _, said = line.partition(": ")
    assert "10.5.4." not in sip.header(name)
    assert "fd00:5:4" not in sip.header(name)
    assert revealed(f"{name}: {sip.header(name)}", method) == said


@pytest.mark.parametrize("method", ["BYE", "MESSAGE", "NOTIFY"])
def test_in_other_methods_nothing_is_revealed(method: str) -> None:
    value = f"<sip:3@p;sw={HIDDEN}?Replaces={outer()}>"
    assert revealed(f"Refer-To: {value}", method) == value


def test_the_hidden_contact_of_another_tenant_is_not_revealed() -> None:
    value = f"<sip:3@p;sw={HIDDEN}>"
    assert revealed(f"Refer-To: {value}", tenant="globex") == value


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "l"])
def test_a_body_that_is_no_description_is_swept_and_its_length_is_right(name: str) -> None:
    text = INVITE.replace("Content-Length: 9", f"{name}: 25").replace("c=IN IP4 ", "zoë at 10.5.4.11:5080, 110.5.4.11")
    head, _, body = request(Recorder(text, PBX, INNER), sweep_body=True).partition("\r\n\r\n")
    assert body == "zoë at acme.example, 110.5.4.11"
    assert [line for line in head.split("\r\n") if line.lower().startswith((name.lower(), "content-l"))] == [
        f"Content-Length: {len(body.encode())}"
    ]


def test_a_body_in_which_nothing_is_inside_is_left_as_it_is() -> None:
    text = request(Recorder(INVITE, PBX, INNER), sweep_body=True)
    assert "\r\nContent-Length: 9\r\n" in text
    assert text.endswith("\r\n\r\nc=IN IP4 ")


def test_a_body_that_rtpengine_will_rewrite_is_left_as_it_is() -> None:
    text = INVITE.replace("c=IN IP4 ", "c=IN IP4 10.5.4.11")
    assert request(Recorder(text, PBX, INNER)).endswith("\r\n\r\nc=IN IP4 10.5.4.11")


@pytest.mark.parametrize(("field", "shown"), [("", ["70"]), ("Max-Forwards: 12\n", ["12"])])
def test_a_request_without_a_limit_of_hops_gets_one(field: str, shown: list[str]) -> None:
    sip = Recorder(INVITE.replace("CSeq: 1", f"{field}CSeq: 1"), PBX, INNER)
    request(sip)
    assert sip.headers("Max-Forwards") == shown


# --- registrations ---------------------------------------------------------------------------------------------------

REGISTER = """REGISTER sip:acme.example SIP/2.0
Via: SIP/2.0/UDP 192.168.1.20;branch=z9hG4bK-1
Contact: {}
CSeq: 1 REGISTER

"""


def registered(contact: str, socket: Socket = INNER) -> list[str]:
    sip = Recorder(REGISTER.format(contact))
    concealed(sip).register(DIALOG, socket)
    return list(split_list(sip.header("Contact")))


@pytest.mark.parametrize(
    ("contact", "own", "around"),
    [
        ("<sip:100@192.168.1.20:5062>;expires=60", "sip:192.168.1.20:5062", ("<sip:100@", ">;expires=60")),
        ("sip:100@192.168.1.20;expires=60", "sip:192.168.1.20", ("<sip:100@", ">;expires=60")),
        ('"A, B" <sip:100@h;transport=tcp>;q=1', "sip:h;transport=tcp", ('"A, B" <sip:100@', ">;q=1")),
        ("<sips:[2001:db8::7]:5061>", "sips:[2001:db8::7]:5061", ("<sip:", ">")),
        ("<sip:zoë@höst>", "sip:höst", ("<sip:zoë@", ">")),
        ("<sip:100@h;sw=forged>", "sip:h;sw=forged", ("<sip:100@", ">")),
    ],
)
def test_the_registrar_sees_the_contact_at_our_address(contact: str, own: str, around: tuple[str, str]) -> None:
    [shown] = registered(contact)
    assert shown == f"{around[0]}10.5.4.1:5060;sw={token(shown)}{around[1]}"
    assert Binding.open(SEALER, token(shown)) == Binding("acme", PHONE, own)


def test_a_registration_over_tcp_asks_for_tcp() -> None:
    [shown] = registered("<sip:100@h>", INNER_TCP)
    assert "@10.5.4.1:5060;transport=tcp;sw=" in shown


def test_several_contacts_are_each_bound_and_the_star_stays() -> None:
    shown = registered("<sip:1@a>, <tel:+39>, <sip:2@b>;q=0.1")
    found = [Binding.open(SEALER, token(value)) for value in shown]
    assert [binding and binding.contact for binding in found] == ["sip:a", "sip:b"]
    assert registered("*") == ["*"]


def test_contacts_in_several_fields_are_all_bound() -> None:
    sip = Recorder(REGISTER.format("<sip:1@a>\nContact: <sip:2@b>"))
    concealed(sip).register(DIALOG, INNER)
    assert sip.header("Contact").count(";sw=") == 2


def test_a_query_has_no_contact_before_and_after() -> None:
    sip = Recorder(REGISTER.replace("Contact: {}\n", ""))
    concealed(sip).register(DIALOG, INNER)
    assert sip.headers("Contact") == []


def reply(contact: str, method: str = "REGISTER", status: int = 200) -> Recorder:
    sip = Recorder(f"SIP/2.0 {status} X\nVia: a\nContact: {contact}\nCSeq: 1 {method}\n\n", PBX, INNER)
    if method == "REGISTER":
        concealed(sip).registered("acme", PHONE)
    else:
        concealed(sip).reply(status, Side.OUTSIDE, "acme", PUBLIC)
    return sip


def test_the_phone_gets_its_own_contacts_back_and_no_others() -> None:
    shown = registered('"A" <sip:100@192.168.1.20:5062;transport=udp>, <sip:100@h>')
    foreign = f"<sip:100@10.5.4.1;sw={Binding('acme', PHONE, 'sip:x').seal(Sealer([b'other' * 4]))}>"
    text = f"{shown[0]};expires=60, <sip:100@10.5.4.99>, {foreign}, {shown[1]};expires=30"
    assert list(split_list(reply(text).header("Contact"))) == [
        '"A" <sip:100@192.168.1.20:5062;transport=udp>;expires=60',
        "<sip:100@h>;expires=30",
    ]


def test_a_reply_with_no_contact_of_the_phones_has_none() -> None:
    assert reply("<sip:100@10.5.4.99>").headers("Contact") == []


def test_a_phone_is_not_shown_the_contact_of_another_that_looks_the_same() -> None:
    others = [
        Binding("acme", flow, "sip:192.168.1.20:5062")
        for flow in (Endpoint("udp", "198.51.100.8", 40123), Endpoint("udp", PHONE.host, 40124))
    ]
    own = registered("<sip:100@192.168.1.20:5062>")[0]
    text = ", ".join(
        [*(f"<sip:100@10.5.4.1;sw={other.seal(SEALER)}>;expires=9" for other in others), f"{own};expires=60"]
    )
    assert reply(text).headers("Contact") == ["<sip:100@192.168.1.20:5062>;expires=60"]


def test_without_a_known_flow_no_contact_is_shown() -> None:
    sip = Recorder(f"SIP/2.0 200 X\nVia: a\nContact: {registered('<sip:1@h>')[0]}\nCSeq: 1 REGISTER\n\n", PBX, INNER)
    concealed(sip).registered("acme", None)
    assert sip.headers("Contact") == []


# --- replies of an instance ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "status"), [("INVITE", 183), ("INVITE", 200), ("SUBSCRIBE", 202), ("INVITE", 485)])
def test_the_contact_of_a_reply_is_hidden(method: str, status: int) -> None:
    contact = reply("<sip:100@10.5.4.11:5080>", method, status).header("Contact")
    assert contact == f"<sip:100@203.0.113.10:5060;sw={token(contact)}>"
    assert Hidden.open(SEALER, token(contact)) == Hidden("acme", "10.5.4.11:5080")


def contact(
    hiding: Concealment, sip: Recorder, status: int = 200, to: Side = Side.OUTSIDE, tenant: str = "acme",
    socket: Socket = PUBLIC,
) -> str:  # fmt: skip
    text = '"A" <sip:100@10.5.4.11:5080>;q=1, <sip:1@198.51.100.99>'
    sip.arrives(f"SIP/2.0 {status} X\nVia: a\nContact: {text}\nCSeq: 1 INVITE\n\n", PBX, INNER)
    hiding.reply(status, to, tenant, socket)
    return sip.header("Contact")


def test_a_contact_is_hidden_alike_in_every_message_and_worker() -> None:
    sip = Recorder(INVITE)
    hiding = concealed(sip)
    first = contact(hiding, sip)
    contact(hiding, sip, tenant="globex")
    assert contact(hiding, sip) == first == contact(concealed(sip), sip)


def test_a_contact_hidden_before_is_another_for_another_tenant_side_socket_or_kind_of_reply() -> None:
    sip = Recorder(INVITE)
    hiding = concealed(sip)
    behind = Socket(Side.OUTSIDE, Endpoint("udp", "192.168.1.1", 5060), "198.18.0.1")
    variants: list[dict[str, object]] = [
        {},
        {"tenant": "globex"},
        {"socket": PUBLIC_TCP},
        {"socket": behind},
        {"socket": behind, "to": Side.LOCAL},
        {"status": 302},
    ]
    acme, globex = (f"sw={Hidden(tenant, '10.5.4.11:5080').seal(SEALER)}>;q=1" for tenant in ("acme", "globex"))
    for _ in range(2):
        shown = [contact(hiding, sip, **variant) for variant in variants]  # type: ignore[arg-type]
        assert len(set(shown)) == len(variants)
        assert [acme in text for text in shown] == [True, False, True, True, True, True]
        assert globex in shown[1]
        assert "@192.168.1.1:5060;" in shown[4]
        assert "198.18.0.1" not in shown[4]
        assert [value.endswith("<sip:1@198.51.100.99>") for value in shown] == [False] * 5 + [True]


@pytest.mark.parametrize("status", [183, 200, 485])
def test_a_reply_of_whose_contacts_none_can_be_shown_has_none(status: int) -> None:
    assert reply("<tel:+39072140>", "INVITE", status).headers("Contact") == []
    text = "<tel:+39072140>\nContact: <sip:100@10.5.4.11:5080>"
    assert reply(text, "INVITE", status).header("Contact").startswith("<sip:100@203.0.113.10:5060;sw=")


@pytest.mark.parametrize("status", [300, 302, 399])
@pytest.mark.parametrize("target", ['"A, B" <tel:+39072140>;q=1', "<mailto:a@h>", "<http://198.51.100.9/>"])
def test_a_redirections_target_of_another_scheme_stays(status: int, target: str) -> None:
    assert reply(target, "INVITE", status).headers("Contact") == [target]
    shown = reply(f"{target}\nContact: <sip:100@10.5.4.11:5080>", "INVITE", status).header("Contact")
    assert shown.startswith(f"{target}, <sip:100@203.0.113.10:5060;sw=")


@pytest.mark.parametrize("target", ["<http://10.5.4.11/>", "<im:1@[fd00:5:4::11]>"])
def test_a_redirections_target_of_another_scheme_names_nothing_inside(target: str) -> None:
    assert reply(target, "INVITE", 302).headers("Contact") == []


def test_a_request_whose_contact_cannot_be_shown_has_none() -> None:
    text = "\n".join("Contact: <tel:+39>" if line.startswith("m:") else line for line in INVITE.split("\n"))
    sip = Recorder(text, PBX, INNER)
    request(sip)
    assert sip.headers("Contact") == []


def test_of_a_redirections_targets_only_the_inner_ones_are_hidden() -> None:
    text = "<sip:1@198.51.100.99>;q=1, <sip:2@10.5.4.12:5080>, <sip:3@10.5.4.1:5060>, <sip:4@elsewhere.example>"
    shown = list(split_list(reply(text, "INVITE", 302).header("Contact")))
    assert shown[0] == "<sip:1@198.51.100.99>;q=1"
    assert shown[3] == "<sip:4@elsewhere.example>"
    for value, user in ((shown[1], "2"), (shown[2], "3")):
        uri = parse(value[1:-1])
        assert uri
        assert (uri.user, uri.host) == (user, "203.0.113.10")


def test_other_fields_of_a_reply_are_swept_and_what_matches_messages_is_not() -> None:
    sip = Recorder(
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 203.0.113.10;received=10.5.4.1\nFrom: <sip:7@10.5.4.9>;tag=a\n"
        "To: <sip:8@10.5.4.9>;tag=b\nCall-ID: 1@10.5.4.9\nCSeq: 1 INVITE\nRecord-Route: <sip:x@10.5.4.1;lr>\n"
        "Warning: 399 10.5.4.11 a\nwarning: 399 pbx b\nServer: pbx\n\n10.5.4.11",
        PBX,
        INNER,
    )
    concealed(sip).reply(200, Side.OUTSIDE, "acme", PUBLIC)
    assert sip.headers("Warning") == ["399 acme.example a", "399 pbx b"]
    assert sip.header("Call-ID") == "1@10.5.4.9"
    assert sip.header("From") == "<sip:7@10.5.4.9>;tag=a"
    assert sip.header("Server") == "pbx"


@pytest.mark.parametrize(
    ("field", "swept"),
    [
        ("Warning: 399\n 10.5.4.11 a", "399 acme.example a"),
        ("Warning:\n\t399\n\t10.5.4.11", "399 acme.example"),
        ("Warning: 399 [FD00:5:4::11]", "399 acme.example"),
        ("Warning: 399 Fd00:5:4::11", "399 acme.example"),
        ("Warning: 399 10.5.4.1:5060", "399 acme.example"),
        ("Warning: 399 110.5.4.11", "399 110.5.4.11"),
        ("Warning: 399 10.5.40.11", "399 10.5.40.11"),
    ],
)
def test_an_inner_address_in_a_reply_is_found_wherever_its_field_goes_on(field: str, swept: str) -> None:
    text = f"SIP/2.0 200 OK 10.5.4.11\nVia: a;received=10.5.4.1\n{field}\nFrom: <sip:7@10.5.4.9>\nCSeq: 1 INVITE\n\n"
    sip = Recorder(text, PBX, INNER)
    concealed(sip).reply(200, Side.OUTSIDE, "acme", PUBLIC)
    assert " ".join(sip.header("Warning").split()) == swept


def test_a_reply_in_which_nothing_is_suspect_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "SIP/2.0 200 10.5.4.11\nVia: 10.5.4.1\nv: 10.5.4.2\nf: 10.5.4.3\nTo: 10.5.4.4\ni: 10.5.4.5\nServer: a\n\n"
    sip = Recorder(text, PBX, INNER)
    monkeypatch.setattr(headers, "lines", pytest.fail)
    before = sip.buffer()
    concealed(sip).reply(200, Side.OUTSIDE, "acme", PUBLIC)
    assert sip.buffer() == before


def test_of_a_reply_that_is_not_utf8_only_the_needed_fields_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sip = Recorder("SIP/2.0 200 OK\nVia: a\nContact: <sip:1@10.5.4.11>\nX: 10.5.4.11\nExpires: 5\nCSeq: 1 INVITE\n\n")

    def unreadable() -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(sip, "buffer", unreadable)
    concealed(sip).reply(200, Side.OUTSIDE, "acme", PUBLIC)
    assert [name for name, _ in sip.fields] == ["Via", "Expires", "CSeq", "Contact"]
    assert "10.5.4.11" not in sip.header("Contact")


# --- trunks -----------------------------------------------------------------------------------------------------------

AT_CARRIER = """REGISTER sip:sip.carrier.example SIP/2.0
Via: SIP/2.0/UDP 10.5.4.11:5080;branch=z9hG4bK-1
From: <sip:0721@sip.carrier.example>;tag=a
To: <sip:0721@sip.carrier.example>
Call-ID: 1@10.5.4.11
CSeq: 1 REGISTER
Contact: <sip:0721@10.5.4.11:5080;line=a1>;expires=600, <sip:0722@10.5.4.11:5080>
isTrunk: 1
TOPOS : 0
P-Asserted-Identity: <sip:7@10.5.4.11>
Privacy: id
Content-Length: 0

"""


def at_carrier(text: str = AT_CARRIER, asserts: bool = True) -> Recorder:
    sip = Recorder(text, PBX, INNER)
    concealed(sip).request(asked("REGISTER"), relay(trunk="carrier", asserts=asserts), PUBLIC, "sw-1")
    return sip


def test_a_carrier_sees_a_contact_whose_user_part_says_all_that_is_needed() -> None:
    users = re.findall(r"<sip:(sw-[\w-]+)@203\.0\.113\.10:5060>", at_carrier().header("Contact"))
    assert [Account.open(SEALER, user, "carrier") for user in users] == [
        Account("acme", "sip:0721@10.5.4.11:5080;line=a1"),
        Account("acme", "sip:0722@10.5.4.11:5080"),
    ]
    assert Account.open(SEALER, users[0], "other") is None


def test_a_carriers_registration_is_removed_as_a_whole() -> None:
    contacts = "<sip:0721@10.5.4.11:5080;line=a1>;expires=600, <sip:0722@10.5.4.11:5080>"
    assert at_carrier(AT_CARRIER.replace(contacts, "*")).header("Contact") == "*"


def test_an_instance_that_registers_gets_its_own_contacts_back_and_nobody_elses() -> None:
    ours = at_carrier().header("Contact")
    rival = Account("globex", "sip:9@10.5.4.12").seal(SEALER, "carrier")
    other = Account("acme", "sip:0721@10.5.4.11:5080").seal(SEALER, "other")
    foreign = f"<sip:{rival}@203.0.113.10:5060>, <sip:{other}@203.0.113.10:5060>, <sip:0721@198.51.100.9>"
    sip = Recorder(f"SIP/2.0 200 OK\nCSeq: 1 REGISTER\nContact: {ours}, {foreign}\n\n", PHONE, PUBLIC)
    concealed(sip).registered_outside("acme", "carrier")
    assert sip.header("Contact") == "<sip:0721@10.5.4.11:5080;line=a1>;expires=600, <sip:0722@10.5.4.11:5080>"


@pytest.mark.parametrize("asserts", [True, False])
def test_what_a_pbx_asserts_goes_out_as_its_tenant_says_and_its_notes_to_us_never(asserts: bool) -> None:
    sip = at_carrier(asserts=asserts)
    names = {headers.field(line)[0] for line in headers.lines(sip.buffer())}
    assert not names & {"istrunk", "topos"}
    assert ({"p-asserted-identity", "privacy"} <= names) is asserts
    assert {"from", "to", "cseq"} <= names
