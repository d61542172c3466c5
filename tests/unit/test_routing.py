"""Where a request goes, for every side, target and method."""

import pytest

from sipward import routing
from sipward.live import HEALTH, TABLE, Live
from sipward.model import Endpoint, Instance, Side, Tenant
from sipward.routing import Answer, Decision, Relay, Request
from sipward.seal import Sealer
from sipward.tokens import Binding, Dialog, Hidden
from sipward.uri import Uri, parse
from unit.recorder import ACME, GLOBEX, KEY, LAN_PHONE, PBX, PBX2, PHONE, RIVAL, edge, table

METHODS = [
    "REGISTER",
    "INVITE",
    "SUBSCRIBE",
    "NOTIFY",
    "PUBLISH",
    "MESSAGE",
    "OPTIONS",
    "REFER",
    "INFO",
    "UPDATE",
    "PRACK",
]
SEALER, OTHER = Sealer([KEY]), Sealer([b"other" * 4])
EDGE = edge()
TWO = ACME._replace(instances=(Instance(PBX), Instance(PBX2)), redirect="refuse")
DIALOG = Dialog("acme", PHONE, PBX)
CALL_ID = "1@198.51.100.7"
BOUND = Binding("acme", PHONE, "sip:192.168.1.20:5062;transport=udp")
HIDDEN = Hidden("acme", "10.5.4.11:5080;x=1")


def uri(text: str) -> Uri:
    found = parse(text)
    assert found is not None
    return found


def request(target: str = "sip:100@acme.example", **changes: object) -> Request:
    plain = Request(
        "INVITE", Side.OUTSIDE, PHONE, CALL_ID, uri(target), uri("sip:7@x.example"), uri("sip:100@y"), 0, None,
        in_dialog=False, has_sdp=True,
    )  # fmt: skip
    return plain._replace(**changes)  # type: ignore[arg-type]


def look(*tenants: Tenant) -> Live:
    entries = table(*tenants)
    return Live(lambda table, key: entries.get(key) if table == TABLE else None)


def initial(wanted: Request, *tenants: Tenant) -> Decision:
    return routing.initial(wanted, EDGE, SEALER, look(*(tenants or (ACME, GLOBEX))))


def in_dialog(wanted: Request, *tenants: Tenant) -> Decision:
    return routing.in_dialog(wanted, EDGE, SEALER, look(*(tenants or (ACME, GLOBEX))))


def route(text: str) -> Uri:
    return uri(f"sip:203.0.113.10:5060;lr;sw={text}")


def from_instance(target: str, **changes: object) -> Request:
    return request(target, **({"side": Side.SERVICE, "source": PBX} | changes))


def bound(binding: Binding = BOUND, sealer: Sealer = SEALER) -> str:
    return f"sip:100@10.5.4.1:5060;sw={binding.seal(sealer)}"


# --- outside a dialog, from outside ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("side", "source"), [(Side.OUTSIDE, PHONE), (Side.LOCAL, LAN_PHONE)])
def test_every_method_from_outside_reaches_the_domains_tenant(method: str, side: Side, source: Endpoint) -> None:
    decision = initial(request(method=method, side=side, source=source))
    assert decision == Relay(Side.SERVICE, (PBX,), Dialog("acme", source, PBX), None, "pass")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "target", ["sip:100@unknown.example", "sip:1@198.51.100.99", "sip:100@10.5.4.11:5080", "sip:x@@acme"]
)
def test_every_method_to_an_unknown_domain_is_not_found_whatever_address_it_names(method: str, target: str) -> None:
    assert initial(request(target, method=method)) == routing.NOT_FOUND


@pytest.mark.parametrize(
    "target", ["sip:1@ACME.Example", "sip:1@acme.example.", "sip:1@acme.example:9;x", "sips:1@acme.example"]
)
def test_a_domain_is_found_whatever_its_case_dot_or_port(target: str) -> None:
    assert isinstance(initial(request(target)), Relay)


def test_the_dialog_remembers_whether_the_invite_had_an_offer() -> None:
    for has_sdp in (False, True):
        decision = initial(request(has_sdp=has_sdp))
        assert isinstance(decision, Relay)
        assert decision.dialog.late is not has_sdp
        assert not decision.dialog.renamed


def test_all_instances_are_targets_and_the_first_is_the_dialogs() -> None:
    decision = initial(request(), TWO)
    assert isinstance(decision, Relay)
    assert set(decision.targets) == {PBX, PBX2}
    assert decision.dialog.inner == decision.targets[0]
    assert decision.redirect == "refuse"


@pytest.mark.parametrize("user", [str(number) for number in range(20)])
def test_a_phones_calls_and_its_registration_meet_at_one_instance(user: str) -> None:
    own = uri(f"sip:{user}@acme.example")
    register = initial(request("sip:acme.example", method="REGISTER", caller=own, callee=own), TWO)
    call = initial(request("sip:999@acme.example", caller=own), TWO)
    called = initial(request(f"sip:{user}@acme.example", caller=uri("sip:999@elsewhere.example")), TWO)
    assert isinstance(register, Relay)
    assert isinstance(call, Relay)
    assert isinstance(called, Relay)
    assert register.targets == call.targets == called.targets


def test_a_callers_user_of_another_tenant_does_not_choose_the_instance() -> None:
    orders = {
        decision.targets
        for number in range(20)
        for decision in [initial(request(caller=uri(f"sip:{number}@globex.example")), TWO, GLOBEX)]
        if isinstance(decision, Relay)
    }
    assert len(orders) == 1


@pytest.mark.parametrize("missing", [{"caller": None}, {"callee": None}, {"caller": None, "callee": None}])
def test_a_request_without_readable_from_or_to_still_has_an_instance(missing: dict[str, None]) -> None:
    assert isinstance(initial(request("sip:acme.example", **missing), TWO), Relay)


@pytest.mark.parametrize("instances", [(), (Instance(PBX, drain=True),)])
def test_a_tenant_without_a_working_instance_is_unavailable(instances: tuple[Instance, ...]) -> None:
    assert initial(request(), ACME._replace(instances=instances)) == routing.NO_INSTANCE
    assert routing.NO_INSTANCE.retry_after > 0


# --- outside a dialog, to what we sealed -----------------------------------------------------------------------------


def test_a_hidden_contact_leads_back_to_its_tenant_and_shows_the_instance_its_own() -> None:
    decision = initial(request(f"sip:100@203.0.113.10;sw={HIDDEN.seal(SEALER)}"))
    assert isinstance(decision, Relay)
    assert decision.targets == (PBX,)
    assert decision.uri == uri("sip:100@10.5.4.11:5080;x=1")


def test_a_hidden_contact_leads_to_its_instance_while_that_drains_but_not_while_it_is_down() -> None:
    draining = ACME._replace(instances=(Instance(PBX, drain=True), Instance(PBX2)))
    entries, target = table(draining), request(f"sip:100@203.0.113.10;sw={HIDDEN.seal(SEALER)}")
    for down, targets in (((), (PBX, PBX2)), ((PBX,), (PBX2,))):
        memory = {(TABLE, key): entry for key, entry in entries.items()} | {(HEALTH, str(end)): "x" for end in down}
        found = routing.initial(target, EDGE, SEALER, Live(lambda *key, known=memory: known.get(key)))  # type: ignore[misc]
        assert isinstance(found, Relay)
        assert found.targets == targets


def test_a_hidden_contact_of_a_tenant_that_is_gone_is_not_found() -> None:
    assert initial(request(f"sip:1@203.0.113.10;sw={HIDDEN.seal(SEALER)}"), GLOBEX) == routing.NOT_FOUND


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "text",
    [
        BOUND.seal(SEALER),
        DIALOG.seal(SEALER, CALL_ID),
        HIDDEN.seal(OTHER),
        HIDDEN.seal(SEALER)[:-1],
        HIDDEN.seal(SEALER).upper(),
        "x",
        "",
    ],
)
@pytest.mark.parametrize("user", ["100@", ""])
def test_from_outside_no_other_text_leads_anywhere(method: str, text: str, user: str) -> None:
    decision = initial(request(f"sip:{user}203.0.113.10:5060;sw={text}", method=method))
    assert decision == routing.NOT_FOUND


def test_only_the_first_of_two_texts_counts() -> None:
    decision = initial(request(f"sip:1@203.0.113.10;sw=x;sw={HIDDEN.seal(SEALER)}"))
    assert decision == routing.NOT_FOUND


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("host", ["edge.example", "EDGE.EXAMPLE:5060", "203.0.113.10", "10.5.4.1", "[2001:db8::10]"])
def test_options_to_the_node_itself_is_answered_from_anywhere(side: Side, host: str) -> None:
    source = PBX if side is Side.SERVICE else PHONE
    assert initial(request(f"sip:{host}", method="OPTIONS", side=side, source=source)) == routing.ALIVE


def test_options_to_a_user_or_a_tenant_is_not_the_nodes() -> None:
    assert initial(request("sip:100@edge.example", method="OPTIONS")) == routing.NOT_FOUND
    assert isinstance(initial(request("sip:acme.example", method="OPTIONS")), Relay)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "OPTIONS"])
def test_nothing_else_to_the_node_itself_is_taken(method: str) -> None:
    assert initial(request("sip:edge.example", method=method)) == routing.NOT_FOUND


@pytest.mark.parametrize(
    "target", ["sip:100@acme.example", "sip:edge.example", f"sip:1@203.0.113.10;sw={HIDDEN.seal(SEALER)}"]
)
@pytest.mark.parametrize("side", Side)
def test_an_ack_that_belongs_to_no_dialog_goes_nowhere(target: str, side: Side) -> None:
    source = PBX if side is Side.SERVICE else PHONE
    assert initial(request(target, method="ACK", side=side, source=source)) is routing.NO_DIALOG


def test_an_ack_of_an_instance_to_a_binding_goes_nowhere() -> None:
    assert initial(from_instance(bound(), method="ACK")) is routing.NO_DIALOG


def test_a_caller_of_the_called_domain_is_not_looked_up_again() -> None:
    asked: list[str] = []
    entries = table(TWO)

    def get(table: str, key: str) -> str | None:
        if table != TABLE:
            return None
        asked.append(key)
        return entries.get(key)

    own = request("sip:999@acme.example", caller=uri("sip:7@acme.example"))
    assert isinstance(routing.initial(own, EDGE, SEALER, Live(get)), Relay)
    assert asked == ["acme.example"]


# --- outside a dialog, from an instance ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_an_instance_reaches_its_phones_flow_whatever_the_contact_says(method: str) -> None:
    decision = initial(from_instance(bound(), method=method))
    assert decision == Relay(
        Side.OUTSIDE, (PHONE,), Dialog("acme", PHONE, PBX), uri("sip:100@192.168.1.20:5062;transport=udp")
    )


def test_a_phone_of_the_site_is_on_the_local_side() -> None:
    decision = initial(from_instance(bound(BOUND._replace(flow=LAN_PHONE))))
    assert isinstance(decision, Relay)
    assert (decision.to, decision.targets) == (Side.LOCAL, (LAN_PHONE,))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "target",
    [
        "sip:100@globex.example",
        "sip:100@acme.example",
        "sip:100@198.51.100.99",
        "sip:100@10.5.4.21:5080",
        "sip:100@10.5.4.1:5060",
        bound(sealer=OTHER),
        bound()[:-1],
        bound().replace(";sw=", ";sw=x;sw="),
        f"sip:100@10.5.4.1;sw={HIDDEN.seal(SEALER)}",
        f"sip:100@10.5.4.1;sw={DIALOG.seal(SEALER, CALL_ID)}",
        bound(BOUND._replace(tenant="globex")),
        bound(BOUND._replace(tenant="nobody")),
    ],
)
def test_an_instance_reaches_nothing_but_its_own_tenants_flows(method: str, target: str) -> None:
    assert initial(from_instance(target, method=method)) == routing.FORBIDDEN


@pytest.mark.parametrize("source", [RIVAL, Endpoint("udp", "10.5.4.99", 5080)])
def test_another_host_of_the_service_network_cannot_use_a_binding(source: Endpoint) -> None:
    assert initial(from_instance(bound(), source=source)) == routing.FORBIDDEN


def test_a_binding_from_outside_is_no_way_to_a_phone() -> None:
    assert initial(request(bound())) == routing.NOT_FOUND


def test_a_draining_instance_still_reaches_its_phones() -> None:
    draining = ACME._replace(instances=(Instance(PBX, drain=True),))
    assert isinstance(initial(from_instance(bound()), draining), Relay)


@pytest.mark.parametrize(
    ("source", "contact_port", "inner"),
    [
        (Endpoint("udp", "10.5.4.11", 5080), 0, Endpoint("udp", "10.5.4.11", 5080)),
        (Endpoint("udp", "10.5.4.11", 5090), 5080, Endpoint("udp", "10.5.4.11", 5090)),
        (Endpoint("tcp", "10.5.4.11", 40000), 5090, Endpoint("udp", "10.5.4.11", 5090)),
        (Endpoint("tcp", "10.5.4.11", 40000), 0, Endpoint("tcp", "10.5.4.11", 5070)),
    ],
)
def test_of_several_instances_on_one_host_the_sender_is_known_by_its_port(
    source: Endpoint, contact_port: int, inner: Endpoint
) -> None:
    ends = [Endpoint("udp", "10.5.4.11", 5080), Endpoint("udp", "10.5.4.11", 5090), Endpoint("tcp", "10.5.4.11", 5070)]
    tenant = ACME._replace(instances=tuple(Instance(end) for end in ends))
    decision = initial(from_instance(bound(), source=source, contact_port=contact_port), tenant)
    assert isinstance(decision, Relay)
    assert decision.dialog.inner == inner


@pytest.mark.parametrize(
    ("port", "contact_port", "via_port", "inner"),
    [
        (5080, 0, 0, 5080),
        (5090, 5080, 5080, 5090),
        (40000, 5090, 0, 5090),
        (40000, 0, 5080, 5080),
        (6666, 6666, 6666, 0),
    ],
)
def test_on_the_nodes_own_address_an_instance_is_its_port(
    port: int, contact_port: int, via_port: int, inner: int
) -> None:
    ends = [Endpoint("udp", "10.5.4.1", 5080), Endpoint("udp", "10.5.4.1", 5090)]
    tenant = ACME._replace(instances=tuple(Instance(end) for end in ends))
    source = Endpoint("udp", "10.5.4.1", port)
    decision = initial(from_instance(bound(), source=source, contact_port=contact_port, via_port=via_port), tenant)
    if inner:
        assert isinstance(decision, Relay)
        assert decision.dialog.inner.port == inner
    else:
        assert decision == routing.FORBIDDEN


@pytest.mark.parametrize(("call_id", "renamed"), [("7@10.5.4.11", True), ("7@pbx", False), ("7@198.51.100.7", False)])
def test_a_call_id_that_shows_the_inside_is_renamed(call_id: str, renamed: bool) -> None:
    decision = initial(from_instance(bound(), call_id=call_id))
    assert isinstance(decision, Relay)
    assert decision.dialog.renamed is renamed


# --- inside a dialog -------------------------------------------------------------------------------------------------

IN_DIALOG = ["ACK", "BYE", "INVITE", "UPDATE", "PRACK", "INFO", "REFER", "NOTIFY", "MESSAGE", "OPTIONS", "SUBSCRIBE"]
SEALED = route(DIALOG.seal(SEALER, CALL_ID))


@pytest.mark.parametrize("method", IN_DIALOG)
def test_in_a_dialog_the_phone_reaches_the_instance_whatever_the_uri_says(method: str) -> None:
    decision = in_dialog(request("sip:1@198.51.100.99", method=method, route=SEALED))
    assert decision == Relay(Side.SERVICE, (PBX,), DIALOG)


@pytest.mark.parametrize("method", IN_DIALOG)
@pytest.mark.parametrize("outer", [PHONE, LAN_PHONE])
def test_in_a_dialog_the_instance_reaches_the_phone_whatever_the_uri_says(method: str, outer: Endpoint) -> None:
    dialog = DIALOG._replace(outer=outer)
    sealed = route(dialog.seal(SEALER, CALL_ID))
    decision = in_dialog(from_instance("sip:1@198.51.100.99", method=method, route=sealed))
    assert decision == Relay(Side.LOCAL if outer is LAN_PHONE else Side.OUTSIDE, (outer,), dialog)


def test_in_a_dialog_a_hidden_contact_is_the_instances_own_again() -> None:
    decision = in_dialog(request(f"sips:100@203.0.113.10;sw={HIDDEN.seal(SEALER)}", route=SEALED))
    assert isinstance(decision, Relay)
    assert decision.uri == uri("sips:100@10.5.4.11:5080;x=1")


@pytest.mark.parametrize("method", IN_DIALOG)
@pytest.mark.parametrize("hidden", [Hidden("globex", "10.5.4.21:5080"), Hidden("gone", "10.5.4.11:5080")])
def test_in_a_dialog_a_hidden_contact_of_another_tenant_stays_hidden(method: str, hidden: Hidden) -> None:
    target = f"sip:100@203.0.113.10;sw={hidden.seal(SEALER)}"
    assert in_dialog(request(target, method=method, route=SEALED)) == Relay(Side.SERVICE, (PBX,), DIALOG)


@pytest.mark.parametrize("text", [BOUND.seal(SEALER), DIALOG.seal(SEALER, CALL_ID), HIDDEN.seal(OTHER), "x"])
def test_in_a_dialog_no_other_text_changes_the_uri(text: str) -> None:
    assert in_dialog(request(f"sip:1@203.0.113.10;sw={text}", route=SEALED)) == Relay(Side.SERVICE, (PBX,), DIALOG)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    "way",
    [
        None,
        uri("sip:203.0.113.10;lr"),
        route(""),
        route("x"),
        route(DIALOG.seal(SEALER, "2@h")),
        route(DIALOG.seal(OTHER, CALL_ID)),
        route(DIALOG.seal(SEALER, CALL_ID)[:-1]),
        route(DIALOG.seal(SEALER, CALL_ID).upper()),
        route("x;sw=" + DIALOG.seal(SEALER, CALL_ID)),
        route(BOUND.seal(SEALER)),
        route(HIDDEN.seal(SEALER)),
    ],
)
def test_without_a_route_sealed_for_this_dialog_there_is_no_dialog(side: Side, way: Uri | None) -> None:
    source = PBX if side is Side.SERVICE else PHONE
    assert in_dialog(request(side=side, source=source, route=way)) == routing.NO_DIALOG


def test_a_hidden_contact_alone_is_no_way_into_a_dialog() -> None:
    assert in_dialog(request(f"sip:1@203.0.113.10;sw={HIDDEN.seal(SEALER)}")) == routing.NO_DIALOG


def test_the_text_may_be_of_the_older_of_two_keys() -> None:
    rotated = Sealer([b"new" * 8, KEY])
    wanted = request(route=SEALED)
    assert isinstance(routing.in_dialog(wanted, EDGE, rotated, look(ACME)), Relay)


@pytest.mark.parametrize("port", [1, 40124])
def test_the_phones_port_may_move_with_its_nat(port: int) -> None:
    assert isinstance(in_dialog(request(source=PHONE._replace(port=port), route=SEALED)), Relay)


@pytest.mark.parametrize("side", [Side.OUTSIDE, Side.LOCAL])
def test_who_learned_a_route_cannot_use_it_from_another_address(side: Side) -> None:
    stranger = Endpoint("udp", "198.51.100.66", 40123)
    assert in_dialog(request(side=side, source=stranger, route=SEALED)) == routing.NOT_YOURS


@pytest.mark.parametrize("source", [RIVAL, Endpoint("udp", "10.5.4.99", 5080)])
def test_another_tenants_instance_cannot_use_a_route(source: Endpoint) -> None:
    assert in_dialog(from_instance("sip:1@h", source=source, route=SEALED)) == routing.NOT_YOURS


def test_a_sibling_that_took_over_may_speak_for_the_dialog() -> None:
    assert isinstance(in_dialog(from_instance("sip:1@h", source=PBX2, route=SEALED), TWO), Relay)


def test_a_call_goes_on_when_its_tenant_is_taken_from_the_table() -> None:
    assert isinstance(in_dialog(request(route=SEALED), GLOBEX), Relay)
    assert isinstance(in_dialog(from_instance("sip:1@h", route=SEALED), GLOBEX), Relay)


def test_no_request_from_outside_is_sent_to_anyone_but_an_instance() -> None:
    texts = [HIDDEN.seal(SEALER), BOUND.seal(SEALER), DIALOG.seal(SEALER, CALL_ID), "x"]
    targets = ["sip:1@acme.example", "sip:1@198.51.100.99", *(f"sip:1@203.0.113.10;sw={text}" for text in texts)]
    ways = [None, *(route(text) for text in texts)]
    for decide in (initial, in_dialog):
        for wanted in (
            request(target, method=method, route=way) for target in targets for way in ways for method in METHODS
        ):
            decision = decide(wanted)
            assert isinstance(decision, Answer) or (decision.to, decision.targets) == (Side.SERVICE, (PBX,))
