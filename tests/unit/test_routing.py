"""Where a request goes, for every side, target and method."""

from collections.abc import Mapping

import pytest

from sipward.decision import (
    ALIVE,
    FORBIDDEN,
    NO_DIALOG,
    NO_INSTANCE,
    NO_TARGET,
    NOT_FOUND,
    NOT_YOURS,
    UNKNOWN_NUMBER,
    Answer,
    Decision,
    Relay,
    Request,
)
from sipward.live import HEALTH, PORTS, STATE, TABLE, Live, encode, encode_trunk
from sipward.model import Endpoint, Instance, Side, Tenant, Trunk
from sipward.routing import Router
from sipward.seal import Sealer
from sipward.tokens import Account, Binding, Dialog, Hidden
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
    found = parse(text, tel=True)
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
    return Router(EDGE, SEALER, look(*(tenants or (ACME, GLOBEX)))).route(wanted)


def in_dialog(wanted: Request, *tenants: Tenant) -> Decision:
    return initial(wanted._replace(in_dialog=True), *tenants)


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
    assert initial(request(target, method=method)) == NOT_FOUND


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
    assert initial(request(), ACME._replace(instances=instances)) == NO_INSTANCE
    assert NO_INSTANCE.retry_after > 0


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
        found = Router(EDGE, SEALER, Live(lambda *key, known=memory: known.get(key))).route(target)  # type: ignore[misc]
        assert isinstance(found, Relay)
        assert found.targets == targets


def test_a_hidden_contact_of_a_tenant_that_is_gone_is_not_found() -> None:
    assert initial(request(f"sip:1@203.0.113.10;sw={HIDDEN.seal(SEALER)}"), GLOBEX) == NOT_FOUND


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
    assert decision == NOT_FOUND


def test_only_the_first_of_two_texts_counts() -> None:
    decision = initial(request(f"sip:1@203.0.113.10;sw=x;sw={HIDDEN.seal(SEALER)}"))
    assert decision == NOT_FOUND


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("host", ["edge.example", "EDGE.EXAMPLE:5060", "203.0.113.10", "10.5.4.1", "[2001:db8::10]"])
def test_options_to_the_node_itself_is_answered_from_anywhere(side: Side, host: str) -> None:
    source = PBX if side is Side.SERVICE else PHONE
    assert initial(request(f"sip:{host}", method="OPTIONS", side=side, source=source)) == ALIVE


def test_options_to_a_user_or_a_tenant_is_not_the_nodes() -> None:
    assert initial(request("sip:100@edge.example", method="OPTIONS")) == UNKNOWN_NUMBER
    assert isinstance(initial(request("sip:acme.example", method="OPTIONS")), Relay)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "OPTIONS"])
def test_nothing_else_to_the_node_itself_is_taken(method: str) -> None:
    assert initial(request("sip:edge.example", method=method)) == NOT_FOUND


@pytest.mark.parametrize(
    "target", ["sip:100@acme.example", "sip:edge.example", f"sip:1@203.0.113.10;sw={HIDDEN.seal(SEALER)}"]
)
@pytest.mark.parametrize("side", Side)
def test_an_ack_that_belongs_to_no_dialog_goes_nowhere(target: str, side: Side) -> None:
    source = PBX if side is Side.SERVICE else PHONE
    assert initial(request(target, method="ACK", side=side, source=source)) is NO_DIALOG


def test_an_ack_of_an_instance_to_a_binding_goes_nowhere() -> None:
    assert initial(from_instance(bound(), method="ACK")) is NO_DIALOG


def test_a_caller_of_the_called_domain_is_not_looked_up_again() -> None:
    asked: list[str] = []
    entries = table(TWO)

    def get(table: str, key: str) -> str | None:
        if table != TABLE:
            return None
        asked.append(key)
        return entries.get(key)

    own = request("sip:999@acme.example", caller=uri("sip:7@acme.example"))
    assert isinstance(Router(EDGE, SEALER, Live(get)).route(own), Relay)
    assert asked == ["acme.example"]


# --- outside a dialog, from an instance ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_an_instance_reaches_its_phones_flow_whatever_the_contact_says(method: str) -> None:
    decision = initial(from_instance(bound(), method=method))
    assert decision == Relay(
        Side.OUTSIDE, (PHONE,), Dialog("acme", PHONE, PBX), uri("sip:100@192.168.1.20:5062;transport=udp"), asserts=True
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
    assert initial(from_instance(target, method=method)) == FORBIDDEN


@pytest.mark.parametrize("source", [RIVAL, Endpoint("udp", "10.5.4.99", 5080)])
def test_another_host_of_the_service_network_cannot_use_a_binding(source: Endpoint) -> None:
    assert initial(from_instance(bound(), source=source)) == FORBIDDEN


def test_a_binding_from_outside_is_no_way_to_a_phone() -> None:
    assert initial(request(bound())) == NOT_FOUND


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
    ("transport", "port", "contact_port", "via_port", "inner"),
    [
        ("udp", 5080, 0, 0, 5080),
        ("udp", 5090, 5080, 5080, 5090),
        ("udp", 40000, 5090, 5080, 0),
        ("tcp", 40000, 5090, 0, 5090),
        ("tcp", 40000, 0, 5080, 5080),
        ("tcp", 6666, 6666, 6666, 0),
    ],
)
def test_on_the_nodes_own_address_an_instance_is_its_port(
    transport: str, port: int, contact_port: int, via_port: int, inner: int
) -> None:
    ends = [Endpoint("udp", "10.5.4.1", 5080), Endpoint("udp", "10.5.4.1", 5090)]
    tenant = ACME._replace(instances=tuple(Instance(end) for end in ends))
    source = Endpoint(transport, "10.5.4.1", port)
    decision = initial(from_instance(bound(), source=source, contact_port=contact_port, via_port=via_port), tenant)
    if inner:
        assert isinstance(decision, Relay)
        assert decision.dialog.inner.port == inner
    else:
        assert decision == FORBIDDEN


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
    assert decision == Relay(Side.LOCAL if outer is LAN_PHONE else Side.OUTSIDE, (outer,), dialog, asserts=True)


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
    assert in_dialog(request(side=side, source=source, route=way)) == NO_DIALOG


def test_a_hidden_contact_alone_is_no_way_into_a_dialog() -> None:
    assert in_dialog(request(f"sip:1@203.0.113.10;sw={HIDDEN.seal(SEALER)}")) == NO_DIALOG


def test_the_text_may_be_of_the_older_of_two_keys() -> None:
    rotated = Sealer([b"new" * 8, KEY])
    wanted = request(route=SEALED)
    assert isinstance(Router(EDGE, rotated, look(ACME)).route(wanted._replace(in_dialog=True)), Relay)


@pytest.mark.parametrize("port", [1, 40124])
def test_the_phones_port_may_move_with_its_nat(port: int) -> None:
    assert isinstance(in_dialog(request(source=PHONE._replace(port=port), route=SEALED)), Relay)


@pytest.mark.parametrize("side", [Side.OUTSIDE, Side.LOCAL])
def test_who_learned_a_route_cannot_use_it_from_another_address(side: Side) -> None:
    stranger = Endpoint("udp", "198.51.100.66", 40123)
    assert in_dialog(request(side=side, source=stranger, route=SEALED)) == NOT_YOURS


@pytest.mark.parametrize("source", [RIVAL, Endpoint("udp", "10.5.4.99", 5080)])
def test_another_tenants_instance_cannot_use_a_route(source: Endpoint) -> None:
    assert in_dialog(from_instance("sip:1@h", source=source, route=SEALED)) == NOT_YOURS


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


# --- numbers and trunks -----------------------------------------------------------------------------------------------

SBC, SBC2, STRANGER = (Endpoint("udp", f"198.51.100.{last}", 5060) for last in (50, 51, 99))
CARRIER = Trunk("carrier", ("acme",), (SBC, SBC2))
OWN = Tenant("#0722", (Instance(RIVAL),), domain="sip.example")
RULES = {"0721": "@acme", "07219": "@globex", "0722": "@#0722", "0723": "@gone", "100@carrier": "@acme"}


def trunked(*trunks: Trunk, asserted: str = "pass", given: Mapping[str, str] = {}) -> Router:
    """A node with two tenants, numbers, and trunks whose calls come from 198.51.100.48/28."""
    routes = table(ACME._replace(identity=asserted), GLOBEX) | {"@#0722": encode(OWN)}
    routes |= {f"#{rule}": entry for rule, entry in RULES.items()}
    routes |= {f"%{trunk.name}": encode_trunk(trunk) for trunk in trunks}
    names = " ".join(trunk.name for trunk in trunks)
    routes |= {"%udp:198.51.100.48/28": names, ">sip.carrier.example": names}
    routes |= {f"^{PBX.host}": "acme", f"^{RIVAL.host}": "globex"}
    tables: dict[str, Mapping[str, str]] = {TABLE: routes, STATE: {"shapes": "5 4 3", "prefixes": "28"}, PORTS: given}
    return Router(EDGE, SEALER, Live(lambda table, key: tables.get(table, {}).get(key)))


def from_carrier(target: str, router: Router | None = None, **changes: object) -> Decision:
    return (router or trunked(CARRIER)).route(request(target, **({"source": SBC} | changes)))


def led_to(decision: Decision) -> str:
    return decision.dialog.tenant if isinstance(decision, Relay) else decision.why


@pytest.mark.parametrize(
    ("target", "outcome"),
    [
        ("sip:0721405@198.51.100.1", "acme"),
        ("sip:0721405@203.0.113.10", "acme"),
        ("sip:0721405@globex.example", "acme"),
        ("sips:0721-405@anything.example;user=phone", "acme"),
        ("tel:0721405;phone-context=+39", "acme"),
        ("sip:0721@203.0.113.10", "acme"),
        ("sip:100@203.0.113.10", "acme"),
        ("sip:07219@203.0.113.10", "not-served"),
        ("sip:0722@203.0.113.10", "#0722"),
        ("sip:0723@203.0.113.10", "no-tenant"),
        ("sip:999@203.0.113.10", "unknown-number"),
        ("sip:bob@203.0.113.10", "unknown-number"),
        ("sip:bob@acme.example", "acme"),
        ("sip:999@acme.example", "acme"),
        ("sip:bob@globex.example", "unknown-number"),
    ],
)
def test_a_carriers_call_goes_by_number_to_whom_the_trunk_serves(target: str, outcome: str) -> None:
    assert led_to(from_carrier(target)) == outcome


@pytest.mark.parametrize(
    ("target", "outcome"),
    [
        ("sip:0721405@203.0.113.10", "acme"),
        ("sip:07219@203.0.113.10", "globex"),
        ("tel:0721-405", "acme"),
        ("sip:0721405@globex.example", "globex"),
        ("sip:0721405@elsewhere.example", "unknown-domain"),
        ("sip:0721405@198.51.100.1", "unknown-domain"),
        ("sip:100@203.0.113.10", "unknown-number"),
        ("sip:bob@203.0.113.10", "unknown-domain"),
        ("tel:100", "unknown-number"),
        ("sip:0723@203.0.113.10", "no-tenant"),
    ],
)
def test_anyone_elses_call_goes_by_domain_and_at_the_node_itself_by_number(target: str, outcome: str) -> None:
    assert led_to(trunked(CARRIER).route(request(target))) == outcome


def test_a_rule_and_a_trunk_are_kept_with_the_decision() -> None:
    decision = from_carrier("sip:100@203.0.113.10")
    assert isinstance(decision, Relay)
    assert (decision.rule, decision.dialog.trunk, decision.dialog.fixed) == ("100@carrier", "carrier", True)
    assert decision.uri is None
    learned = from_carrier("sip:100@203.0.113.10", trunked(CARRIER._replace(media="learned")))
    assert isinstance(learned, Relay)
    assert not learned.dialog.fixed


def test_a_tel_uri_becomes_the_number_at_the_tenants() -> None:
    decision = from_carrier("tel:0721-405;ext=7")
    assert isinstance(decision, Relay)
    assert str(decision.uri) == "sip:0721-405;ext=7@acme.example;user=phone"


@pytest.mark.parametrize("name", ["to", "p-called-party-id", "p-preferred-identity", "diversion"])
@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ('"x, y" <sip:0721405@carrier.example>;tag=1', "acme"),
        ("tel:0721405", "acme"),
        ("<tel:0722>, <tel:0721>", "#0722"),
        ("<sip:bob@x.example>", "unknown-number"),
        ("", "unknown-number"),
    ],
)
def test_the_number_stands_where_the_carrier_puts_it(name: str, value: str, outcome: str) -> None:
    router = trunked(CARRIER._replace(number=name))
    read = {name: value}
    assert led_to(from_carrier("sip:s@203.0.113.10", router, header=lambda n: read.get(n, ""))) == outcome


def test_of_several_trunks_at_one_address_the_one_that_serves_the_number_counts() -> None:
    both = trunked(CARRIER, Trunk("other", ("globex",), (SBC,)))
    for target, tenant, trunk in (("sip:0721@x", "acme", "carrier"), ("sip:07219@x", "globex", "other")):
        decision = from_carrier(target, both)
        assert isinstance(decision, Relay)
        assert (decision.dialog.tenant, decision.dialog.trunk) == (tenant, trunk)
    assert led_to(from_carrier("sip:07219@x", trunked(CARRIER, CARRIER._replace(name="third")))) == "not-served"
    assert led_to(from_carrier("sip:07219@x", trunked(CARRIER._replace(tenants=("*",))))) == "globex"


def test_a_carriers_identity_is_believed_as_the_trunk_says() -> None:
    believed = from_carrier("sip:0721@x", trunked(CARRIER._replace(identity="pass")))
    doubted = from_carrier("sip:0721@x")
    assert isinstance(believed, Relay)
    assert isinstance(doubted, Relay)
    assert (believed.asserts, doubted.asserts) == (True, False)
    phone = initial(request())
    assert isinstance(phone, Relay)
    assert not phone.asserts


ACCOUNT = Account("acme", f"sip:0721@{PBX2.hostport};line=1")


@pytest.mark.parametrize(
    "target",
    [
        f"sip:{ACCOUNT.seal(SEALER, 'carrier')}@203.0.113.10:5060",
        f"sip:{ACCOUNT.seal(SEALER, 'carrier')}@anything.example;transport=tcp;x=1",
    ],
)
def test_a_carriers_call_to_a_registered_contact_reaches_the_very_instance(target: str) -> None:
    router = trunked(CARRIER)
    router = Router(EDGE, SEALER, two_instances(router))
    decision = from_carrier(target, router)
    assert isinstance(decision, Relay)
    assert decision.targets[0] == PBX2
    assert str(decision.uri) == ACCOUNT.contact


def two_instances(router: Router) -> Live:
    """The live table of a router, with the tenant's second instance."""
    get = router._live._get
    return Live(lambda table, key: encode(TWO) if key == "@acme" else get(table, key))


@pytest.mark.parametrize(
    ("account", "trunk", "source"),
    [
        (ACCOUNT, "carrier", STRANGER),
        (ACCOUNT, "other", SBC),
        (ACCOUNT._replace(tenant="globex"), "carrier", SBC),
        (ACCOUNT._replace(tenant="gone"), "carrier", SBC),
    ],
)
def test_a_registered_contact_is_its_trunks_and_its_tenants_alone(
    account: Account, trunk: str, source: Endpoint
) -> None:
    decision = trunked(CARRIER).route(request(f"sip:{account.seal(SEALER, trunk)}@203.0.113.10", source=source))
    assert isinstance(decision, Answer)
    assert decision.code == 404


def test_a_hidden_contact_leads_a_trunk_to_those_it_serves_alone() -> None:
    shown = f"sip:7@203.0.113.10;sw={HIDDEN.seal(SEALER)}"
    rivals = f"sip:7@203.0.113.10;sw={HIDDEN._replace(tenant='globex').seal(SEALER)}"
    assert led_to(from_carrier(shown)) == "acme"
    assert led_to(from_carrier(rivals)) == "not-served"


# --- from an instance to a trunk --------------------------------------------------------------------------------------

TO_CARRIER = "sip:0049301@sip.carrier.example"


def outward(router: Router, target: str = TO_CARRIER, **changes: object) -> Decision:
    return router.route(from_instance(target, **changes))


def test_an_instances_call_goes_to_its_tenants_trunk_with_the_carriers_uri() -> None:
    decision = outward(trunked(CARRIER))
    assert isinstance(decision, Relay)
    assert decision == Relay(
        Side.OUTSIDE, (SBC, SBC2), Dialog("acme", SBC, PBX, trunk="carrier", fixed=True, others=(SBC2,)), asserts=True
    )
    assert outward(trunked(CARRIER, asserted="remove")) == decision._replace(asserts=False)


def test_a_call_is_not_taken_to_a_target_of_another_family() -> None:
    mixed = CARRIER._replace(targets=(SBC, Endpoint("udp", "2001:db8::50", 5060), SBC2))
    decision = outward(trunked(mixed))
    assert isinstance(decision, Relay)
    assert decision.targets == (SBC, SBC2)


@pytest.mark.parametrize(
    ("router", "changes"),
    [
        (trunked(CARRIER), {"source": RIVAL}),
        (trunked(CARRIER), {"source": PBX._replace(host="10.5.4.99")}),
        (trunked(CARRIER._replace(tenants=("globex",))), {}),
        (trunked(CARRIER), {"target": "sip:1@elsewhere.example"}),
        (trunked(CARRIER), {"target": "sip:1@203.0.113.10"}),
        (trunked(), {}),
    ],
)
def test_an_instance_reaches_no_trunk_that_does_not_serve_it(router: Router, changes: dict[str, object]) -> None:
    target = str(changes.get("target", TO_CARRIER))
    rest = {key: value for key, value in changes.items() if key != "target"}
    assert outward(router, target, **rest) is FORBIDDEN


def test_a_trunk_whose_names_lead_nowhere_yet_is_503() -> None:
    assert outward(trunked(CARRIER._replace(targets=()))) is NO_TARGET


def test_the_first_trunk_of_a_host_that_serves_the_tenant_is_taken() -> None:
    router = trunked(CARRIER._replace(tenants=("globex",)), CARRIER._replace(name="mine", targets=(SBC2,)))
    found = outward(router)
    assert isinstance(found, Relay)
    assert (found.dialog.trunk, found.targets) == ("mine", (SBC2,))


def test_an_instance_that_wants_to_be_seen_is() -> None:
    plain = {"call_id": "1@10.5.4.11"}
    hidden, shown = (outward(trunked(CARRIER), header={"topos": text}.get, **plain) for text in ("1", " 0"))
    assert isinstance(hidden, Relay)
    assert isinstance(shown, Relay)
    assert (hidden.dialog.renamed, hidden.dialog.unhidden) == (True, False)
    assert (shown.dialog.renamed, shown.dialog.unhidden) == (False, True)


# --- from a port of its own -------------------------------------------------------------------------------------------

ASKING = CARRIER._replace(own_port=True)
HOLDER = "carrier acme udp:10.5.4.11:5080 201"


GIVEN = {
    f"{HOLDER}@sip.carrier.example": "5100",
    HOLDER: "5100",
    "carrier globex udp:10.5.4.11:5080 202": "5101",
    "other acme udp:10.5.4.11:5080 202": "5101",
}


class Unread(dict[str, str]):
    """A table that nobody may look at."""

    def get(self, *key: object) -> str:  # type: ignore[override]
        raise AssertionError(key)


def from_own_port(asked: Request, trunk: Trunk = ASKING, given: Mapping[str, str] = GIVEN) -> Relay:
    """What becomes of a request while account 201 has port 5100, and others' 202 another."""
    decision = trunked(trunk, given=given).route(asked)
    assert isinstance(decision, Relay)
    return decision


def register(account: str) -> Request:
    return from_instance(TO_CARRIER, method="REGISTER", caller=uri("sip:9@x"), callee=uri(account))


def test_a_register_is_to_have_the_port_of_its_to() -> None:
    known, new = (from_own_port(register(f"sip:{user}@SIP.carrier.example")) for user in ("201", "202"))
    assert (known.holder, known.dialog.port) == (f"{HOLDER}@sip.carrier.example", 5100)
    assert (new.holder, new.dialog.port) == ("carrier acme udp:10.5.4.11:5080 202@sip.carrier.example", 0)
    assert from_own_port(register("sip:201@other.example")).dialog.port == 0


@pytest.mark.parametrize(
    ("caller", "headers", "port"),
    [
        ("sip:201@sip.carrier.example", {}, 5100),
        ("sip:201@10.5.4.11:5080", {}, 5100),
        ("sip:202@sip.carrier.example", {}, 0),
        ("sip:anonymous@anonymous.invalid", {"p-preferred-identity": "<sip:201@x>"}, 5100),
        ("sip:anonymous@anonymous.invalid", {"p-asserted-identity": '"A" <tel:+39>, <sip:201@x>'}, 5100),
        ("sip:anonymous@anonymous.invalid", {"p-asserted-identity": "<sip:202@x>"}, 0),
    ],
)
@pytest.mark.parametrize("method", ["INVITE", "SUBSCRIBE", "MESSAGE"])
def test_a_call_leaves_from_the_port_of_its_account_and_is_given_none(
    caller: str, headers: dict[str, str], port: int, method: str
) -> None:
    asked = from_instance(TO_CARRIER, method=method, caller=uri(caller), header=lambda name: headers.get(name, ""))
    decision = from_own_port(asked)
    assert (decision.dialog.port, decision.holder) == (port, "")


@pytest.mark.parametrize("asked", [register("sip:201@sip.carrier.example"), from_instance(TO_CARRIER)])
def test_a_trunk_that_does_not_ask_for_it_looks_for_no_port(asked: Request) -> None:
    decision = from_own_port(asked, CARRIER, Unread())
    assert (decision.dialog.port, decision.holder) == (0, "")


def test_a_call_that_comes_to_such_a_port_stays_there() -> None:
    decision = from_carrier("sip:0721405@h", trunked(ASKING), port=5100)
    assert isinstance(decision, Relay)
    assert decision.dialog.port == 5100


# --- in a trunk's dialog ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "outcome"), [(SBC, "acme"), (SBC2, "acme"), (PHONE, "foreign-dialog"), (STRANGER, "foreign-dialog")]
)
def test_any_address_of_the_carrier_may_speak_in_its_dialog_and_no_other(source: Endpoint, outcome: str) -> None:
    sealed = Dialog("acme", SBC, PBX, trunk="carrier").seal(SEALER, CALL_ID)
    found = trunked(CARRIER).route(request("sip:7@h", source=source, in_dialog=True, route=route(sealed), method="BYE"))
    assert led_to(found) == outcome


def test_a_carriers_connection_that_is_gone_is_no_reason_not_to_reach_it() -> None:
    listening = SBC._replace(transport="tcp")
    flow = listening._replace(port=40000)
    router = trunked(CARRIER._replace(targets=(SBC, listening)))
    for outer, ends in ((flow, (flow, listening)), (listening, (listening,)), (SBC, (SBC,))):
        sealed = route(Dialog("acme", outer, PBX, trunk="carrier").seal(SEALER, CALL_ID))
        found = router.route(from_instance("sip:7@h", in_dialog=True, route=sealed))
        assert isinstance(found, Relay)
        assert found.targets == ends


@pytest.mark.parametrize("call_goes_on", [True, False])
def test_a_target_that_took_over_may_speak_when_it_is_nobodys_any_more(call_goes_on: bool) -> None:
    dialog = Dialog("acme", PHONE, PBX, others=(RIVAL,) if call_goes_on else ())
    bye = from_instance("sip:7@h", source=RIVAL, in_dialog=True, route=route(dialog.seal(SEALER, CALL_ID)))
    assert isinstance(trunked(CARRIER).route(bye), Relay) is call_goes_on


@pytest.mark.parametrize("trusted", ["pass", "remove"])
def test_identity_in_a_trunks_dialog_goes_as_at_its_start(trusted: str) -> None:
    router = trunked(CARRIER._replace(identity=trusted), asserted=trusted)
    sealed = route(Dialog("acme", SBC, PBX, trunk="carrier").seal(SEALER, CALL_ID))
    inwards = router.route(request("sip:7@h", source=SBC, in_dialog=True, route=sealed))
    outwards = router.route(from_instance("sip:7@h", in_dialog=True, route=sealed))
    assert isinstance(inwards, Relay)
    assert isinstance(outwards, Relay)
    assert inwards.asserts is outwards.asserts is (trusted == "pass")


def test_of_a_tenant_that_is_gone_no_carrier_hears_what_its_instance_asserts() -> None:
    sealed = route(Dialog("gone", SBC, PBX, trunk="carrier").seal(SEALER, CALL_ID))
    found = trunked(CARRIER).route(from_instance("sip:7@h", in_dialog=True, route=sealed))
    assert isinstance(found, Relay)
    assert not found.asserts
