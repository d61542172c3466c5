"""Our place in the route set: what is read, hidden, written and turned."""

import pytest

from sipward.concealment import Concealment
from sipward.model import Endpoint, Side, Socket
from sipward.passage import Passage
from sipward.routeset import Routes, RouteSet
from sipward.tokens import Binding, Dialog, Hidden
from sipward.uri import parse
from unit.messages import BOUND, DIALOG, SEALER, answered, called, from_pbx, message, reply, request, routed, within
from unit.recorder import INNER, PBX, PHONE, PUBLIC, Recorder, edge

SEALED = DIALOG.seal(SEALER, "1@h")
OUTER, INSIDE = f"<sip:203.0.113.10:5060;sw={SEALED};lr>", f"<sip:10.5.4.1:5060;sw={SEALED};lr>"
TAGGED = "<sip:100@acme.example>;tag=b"
SIBLING = PHONE._replace(host="198.51.100.8")


def hidden(contact: str, tenant: str = "acme") -> str:
    return Hidden(tenant, contact).seal(SEALER)


def route_set(*routes: str) -> RouteSet:
    sip = Recorder(message("BYE sip:x SIP/2.0", *(f"Route: {route}" for route in routes)))
    return RouteSet(sip.module, edge(), Concealment(sip.module, edge(), SEALER, lambda name: name), SEALER)


# --- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routes", "own", "others"),
    [
        ([], None, ()),
        ([OUTER], OUTER, ()),
        ([f"{OUTER}, <sip:a;lr>", "<sip:b;lr>"], OUTER, ("<sip:a;lr>", "<sip:b;lr>")),
        (["<sip:edge.example;lr>"], None, ()),
        (["<sip:edge.example;lr>", OUTER], OUTER, ()),
        ([f"<sip:EDGE.example.:5060;lr>, sip:203.0.113.10;lr, {OUTER}, <sip:a;lr>"], OUTER, ("<sip:a;lr>",)),
        (["<sip:a;lr>", OUTER], None, ("<sip:a;lr>", OUTER)),
        (["<sip:edge.example;lr>, <sip:a;lr>", OUTER], None, ("<sip:a;lr>", OUTER)),
        (["<tel:+39>", OUTER], None, ("<tel:+39>", OUTER)),
        ([f"{OUTER}, {INSIDE}"], OUTER, (INSIDE,)),
    ],
)
def test_our_own_route_is_the_first_sealed_one_behind_those_that_only_say_us(
    routes: list[str], own: str | None, others: tuple[str, ...]
) -> None:
    expected = parse(own[1:-1]) if own else None
    assert route_set(*routes).read() == Routes(expected, others, present=bool(routes))


@pytest.mark.parametrize("proxy", ["<sip:edge.example;lr>", "<sip:203.0.113.10:5060;lr>, <sip:203.0.113.10;lr>"])
def test_an_outbound_proxys_route_may_stand_before_the_sealed_one(proxy: str) -> None:
    sip = routed(within("BYE", "sip:100@x").replace("Route: ", f"Route: {proxy}\r\nRoute: "))
    assert sip.did("aim") == [(PBX, INNER)]
    assert sip.routes() == []


def test_our_own_route_is_known_by_its_seal_when_the_node_has_another_address_by_now() -> None:
    former = OUTER.replace("203.0.113.10", "203.0.113.11")
    assert route_set(former, "<sip:a;lr>").read().own == parse(former[1:-1])
    other = DIALOG.seal(SEALER, "another@h")
    assert route_set(former.replace(SEALED, other)).read().own is None


def test_a_strangers_route_before_the_sealed_one_is_no_dialog() -> None:
    sip = routed(within("BYE", "sip:100@x").replace("Route: ", "Route: <sip:far.example;lr>, "))
    assert sip.did("answer") == [(481, "")]


# --- strict routers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "routes", "found"),
    [
        (OUTER, ["<sip:7@far>"], ("sip:7@far", ())),
        (INSIDE, ["<sip:a;lr>, <sip:b;lr>", "<sip:7@far;x=1>"], ("sip:7@far;x=1", ("<sip:a;lr>", "<sip:b;lr>"))),
        (OUTER, [], None),
        (OUTER, ["<tel:+39>"], None),
        ("<sip:203.0.113.10:5060;lr>", ["<sip:7@far>"], None),
        (f"<sip:far.example;sw={SEALED};lr>", ["<sip:7@far>"], None),
    ],
)
def test_what_a_strict_router_sent_is_put_right(
    target: str, routes: list[str], found: tuple[str, tuple[str, ...]] | None
) -> None:
    own = parse(target[1:-1])
    assert own
    expected = (parse(found[0]), Routes(own, found[1], present=True)) if found else None
    assert route_set(*routes).put_right(own) == expected


def test_a_strict_router_outside_reaches_the_instance() -> None:
    proxy, contact = hidden("10.5.4.12:5060;lr"), hidden("10.5.4.11:5080")
    way = f"Route: <sip:203.0.113.10;sw={proxy};lr>, <sip:100@203.0.113.10;sw={contact}>"
    sip = routed(message(f"BYE {OUTER[1:-1]} SIP/2.0", way, to=TAGGED))
    assert sip.did("aim") == [(PBX, INNER)]
    assert sip.new_uri == "sip:100@10.5.4.11:5080"
    assert sip.routes() == ["<sip:10.5.4.12:5060;lr>"]


def test_a_strict_router_inside_reaches_the_phone() -> None:
    sip = from_pbx(message(f"BYE {INSIDE[1:-1]} SIP/2.0", "Route: <sip:7@192.168.1.20:5062>", to=TAGGED))
    assert sip.did("aim") == [(PHONE, PUBLIC)]
    assert sip.new_uri == "sip:7@192.168.1.20:5062"
    assert sip.routes() == []


@pytest.mark.parametrize(
    ("target", "call_id"), [(OUTER.replace(";sw=", ";sw=x"), "1@h"), (OUTER, "2@h"), ("<sip:203.0.113.10;lr>", "1@h")]
)
def test_a_strict_router_needs_the_text_of_this_dialog_too(target: str, call_id: str) -> None:
    sip = routed(message(f"BYE {target[1:-1]} SIP/2.0", "Route: <sip:7@far>", to=TAGGED, call_id=call_id))
    assert sip.did("answer") == [(481, "")]
    assert not sip.relayed


def test_a_strict_router_inside_finds_itself_in_the_request_uri() -> None:
    first, second = hidden("10.5.4.12:5060"), hidden("10.5.4.13;lr")
    way = f"Route: <sip:203.0.113.10;sw={first};lr>, <sip:203.0.113.10;sw={second};lr>"
    sip = routed(within("BYE", f"sip:100@203.0.113.10;sw={hidden('10.5.4.11:5080')}", way))
    assert sip.new_uri == "sip:10.5.4.12:5060"
    assert sip.routes() == ["<sip:10.5.4.13;lr>", "<sip:100@10.5.4.11:5080>"]


# --- what is written -------------------------------------------------------------------------------------------------


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


def test_an_instances_path_is_gone_on_with() -> None:
    way = "Route: <sip:10.5.4.1:5060;lr>, <sip:far@198.51.100.9;lr>"
    sip = from_pbx(request("INVITE", f"sip:7@10.5.4.1;sw={BOUND}", way))
    assert sip.routes() == ["<sip:far@198.51.100.9;lr>"]
    assert sip.did("aim") == [(PHONE, PUBLIC)]


def test_an_instances_path_goes_on_without_what_is_inside() -> None:
    way = "Route: <sip:far.example;lr>, <sip:10.5.4.12;lr>, <sip:[fd00:5:4::12];lr>, <sip:x@198.51.100.9;lr>"
    sip = from_pbx(within("BYE", "sip:7@192.168.1.20", way))
    assert sip.routes() == ["<sip:far.example;lr>", "<sip:x@198.51.100.9;lr>"]


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


def test_other_record_routes_keep_their_place() -> None:
    sip, way = called()
    ours = way.partition(": ")[2]
    answered(sip, reply(200, "INVITE", f"Record-Route: <sip:a.example;lr>, {ours}, <sip:b.example;lr>"))
    first, middle, last = sip.record_routes()
    assert last == "<sip:b.example;lr>"
    assert middle.startswith("<sip:203.0.113.10:5060;sw=")
    # A proxy behind us is hidden, and comes back with the caller's next request.
    assert first == f"<sip:203.0.113.10:5060;sw={hidden('a.example;lr')};lr>"


@pytest.mark.parametrize("dialog", [DIALOG, Dialog("acme", SIBLING, PBX)])
def test_of_two_own_record_routes_the_lower_is_left_alone(dialog: Dialog) -> None:
    sip, way = called()
    other = f"<sip:203.0.113.10:5060;sw={dialog.seal(SEALER, '1@h')};lr>"
    answered(sip, reply(200, "INVITE", f"{way}, {other}"))
    assert sip.record_routes() == [OUTER, other]


def test_an_own_record_route_of_another_passage_is_hidden_above_and_left_alone_below() -> None:
    sip, way = called()
    other = f"<sip:10.5.4.1:5060;sw={Dialog('acme', SIBLING, PBX).seal(SEALER, '1@h')};lr>"
    answered(sip, reply(200, "INVITE", f"Record-Route: {other}", way))
    above, ours = sip.record_routes()
    assert above == f"<sip:203.0.113.10:5060;sw={hidden(other.partition(':')[2][:-1])};lr>"
    assert ours == OUTER


@pytest.mark.parametrize(
    ("origin", "host"), [(Side.OUTSIDE, "198.18.0.1"), (Side.LOCAL, "192.168.1.1"), (Side.SERVICE, "192.168.1.1")]
)
def test_our_record_route_is_turned_to_the_address_that_who_asked_knows(origin: Side, host: str) -> None:
    back = Socket(Side.OUTSIDE, Endpoint("tcp", "192.168.1.1", 5060), "198.18.0.1")
    to = Side.OUTSIDE if origin is Side.SERVICE else Side.SERVICE
    sip = Recorder(reply(200, "INVITE", f"Record-Route: {INSIDE}"))
    words = ("acme", SEALED, "other", "1@h", "", "acme/1@h/0", "")
    passage = Passage(origin, to, 0, True, "pass", *words, fixed=False, unhidden=False, next=())
    RouteSet(sip.module, edge(), Concealment(sip.module, edge(), SEALER, lambda name: name), SEALER).turn(passage, back)
    assert sip.record_routes() == [f"<sip:{host}:5060;transport=tcp;sw=other;lr>"]


def test_a_reply_without_our_record_route_shows_nothing_inside() -> None:
    sip, _ = called()
    answered(sip, reply(200, "INVITE", "Record-Route: <sip:10.5.4.12;lr>"))
    assert "10.5.4." not in sip.buffer()


def test_a_phones_proxies_are_seen_inside_as_they_are() -> None:
    sip = from_pbx(request("INVITE", f"sip:7@10.5.4.1;sw={BOUND}", "Record-Route: <sip:10.5.4.12;lr>"))
    ours, below = sip.record_routes()
    text = reply(200, "INVITE", f"Record-Route: <sip:far.example;lr>, {ours}, {below}")
    answered(sip, text, PHONE, PUBLIC)
    assert [value.partition(";sw=")[0] for value in sip.record_routes()] == [
        "<sip:far.example;lr>",
        "<sip:10.5.4.1:5060",
        "<sip:10.5.4.12;lr>",
    ]


def test_of_two_equal_record_routes_of_a_spiral_the_lower_one_is_this_passages() -> None:
    first, _ = called()
    answered(first, reply(200, "INVITE", f"Record-Route: {INSIDE}, {INSIDE}", sdp=True))
    assert "10.5.4." not in first.buffer()
    assert first.record_routes()[1] == OUTER


def test_a_call_that_spirals_through_an_instance_has_two_ways_and_keeps_both() -> None:
    first, way = called()
    bound = Binding("acme", SIBLING, "sip:8@192.168.1.21").seal(SEALER)
    second = from_pbx(request("INVITE", f"sip:8@10.5.4.1;sw={bound}", way, sdp=True))
    assert "10.5.4." not in second.buffer().partition("\r\n")[2]
    text = reply(200, "INVITE", f"Record-Route: {', '.join(second.record_routes())}", sdp=True)
    inner = answered(second, text, SIBLING, PUBLIC).record_routes()
    assert [value.partition(";sw=")[0] for value in inner] == ["<sip:10.5.4.1:5060"] * 2
    assert inner[1] == INSIDE
    answered(first, reply(200, "INVITE", f"Record-Route: {', '.join(inner)}", sdp=True))
    assert "10.5.4." not in first.buffer()
    outer = first.record_routes()
    assert outer[1] == OUTER
    sip = routed(message("BYE sip:8@x SIP/2.0", f"Route: {outer[1]}, {outer[0]}", to=TAGGED))
    assert sip.did("aim") == [(PBX, INNER)]
    assert sip.routes() == [inner[0]]
