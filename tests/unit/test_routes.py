"""What may change the running table, as tables: values in, entries set and removed out."""

import json
from collections.abc import Iterable, Mapping
from ipaddress import ip_network

import pytest

from sipward import live as live_table
from sipward.entries import Change, Remove, Set
from sipward.keeper import is_suspicious
from sipward.live import decode, tenant_key
from sipward.model import Endpoint
from sipward.numbers import Plan, read_shapes, shape
from sipward.records import Kind
from sipward.resolver import Name
from sipward.routes import Routes
from sipward.rules import Rules
from sipward.snapshot import Snapshot
from sipward.store import Unreadable, Value

T = Kind.TENANT
RULES = Rules((ip_network("10.5.4.0/24"),), (), ())
OTHER_RULES = Rules((ip_network("10.5.5.0/24"), ip_network("10.5.4.16/28")), (), ())


def value(*domains: str, host: str = "10.5.4.1") -> bytes:
    return json.dumps({"domains": domains, "instances": [{"uri": f"sip:{host}:5080"}]}).encode()


def many(count: int) -> dict[str, bytes]:
    return {f"t{number:02}": value(f"t{number:02}.org") for number in range(count)}


type Edit = Mapping[Kind, Mapping[str, Value | None]]


class Live:
    """The live table as the changes make it: key -> the tenant's name."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def take(self, changes: Iterable[Change]) -> dict[str, str]:
        for change in changes:
            match change:
                case Set(key, entry) if key[0] != "^":
                    self.names[key] = decode(entry).name
                case Remove(key) if key[0] != "^":
                    del self.names[key]
        return self.names


def live(**domains: str) -> dict[str, str]:
    """`a="one two"`: tenant a has these domains, and its own entry."""
    found = {tenant_key(name): name for name in domains}
    return found | {domain: name for name, names in domains.items() for domain in names.split()}


def edit(routes: Routes, values: Mapping[str, Value | None]) -> list[Change]:
    return routes.edit({T: values})


def load(routes: Routes, values: Mapping[str, Value], accepted: bool = False) -> list[Change]:
    return routes.load({T: values}, accepted)


def running(values: Mapping[str, bytes]) -> tuple[Routes, Live]:
    routes, table = Routes(RULES), Live()
    table.take(load(routes, values))
    return routes, table


# Single edits


@pytest.mark.parametrize(
    ("written", "after"),
    [
        ({}, live(a="a.org", b="b.org")),
        ({"a": value("a.org")}, live(a="a.org", b="b.org")),
        ({"a": value("A.ORG.", "more.org")}, live(a="a.org more.org", b="b.org")),
        ({"a": value("new.org")}, live(a="new.org", b="b.org")),
        ({"a": value()}, live(a="", b="b.org")),
        ({"a": None}, live(b="b.org")),
        ({"a": None, "b": None}, {}),
        ({"none": None}, live(a="a.org", b="b.org")),
        ({"c": value("c.org")}, live(a="a.org", b="b.org", c="c.org")),
        ({"a": None, "c": value("a.org")}, live(b="b.org", c="a.org")),
        ({"c": value("a.org"), "a": None}, live(b="b.org", c="a.org")),
        ({"b": value("a.org", "b.org"), "a": value("new.org")}, live(a="new.org", b="a.org b.org")),
    ],
)
def test_an_edit_makes_the_table_what_redis_says(written: dict[str, bytes | None], after: dict[str, str]) -> None:
    routes, table = running({"a": value("a.org"), "b": value("b.org")})
    assert table.take(edit(routes, written)) == after
    assert not routes.keepers[T].rejected
    assert (len(routes.keepers[T]), routes.keepers[T].claims) == (
        sum(key.startswith("@") for key in after),
        sum(not key.startswith("@") for key in after),
    )


def test_an_edit_that_changes_nothing_writes_nothing() -> None:
    routes, _ = running({"a": value("a.org")})
    assert edit(routes, {"a": value("a.org")}) == []


def test_a_domain_that_moves_is_set_and_never_removed() -> None:
    routes, _ = running({"a": value("a.org")})
    changes = edit(routes, {"a": None, "b": value("a.org")})
    assert [c.key for c in changes if isinstance(c, Set)] == ["@b", "a.org", "^10.5.4.1"]
    assert [c.key for c in changes if isinstance(c, Remove)] == ["@a"]


def test_a_domain_that_stays_is_set_and_never_removed() -> None:
    routes, _ = running({"a": value("a.org", "old.org")})
    changes = edit(routes, {"a": value("a.org", host="10.5.4.2")})
    assert [c.key for c in changes if isinstance(c, Remove)] == ["old.org", "^10.5.4.1"]


# Bad values


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (value("a.org", host="10.9.9.9"), "must be inside network.service_networks"),
        (value("a.org") + b" " * 70000, "at most 65536"),
        (Unreadable("key: holds a list"), "key: holds a list"),
    ],
)
def test_a_bad_value_is_named_and_the_last_good_one_stays(bad: bytes | Unreadable, told: str) -> None:
    routes, table = running({"a": value("a.org")})
    assert edit(routes, {"a": bad, "b": value("b.org")}) != []
    assert table.names == live(a="a.org")
    assert told in routes.keepers[T].rejected["a"]
    assert edit(routes, {"a": bad}) == []


def test_a_bad_value_of_a_new_tenant_is_named_and_runs_nowhere() -> None:
    routes, table = running({})
    assert table.take(edit(routes, {"a": b"{"})) == {}
    assert "not JSON" in routes.keepers[T].rejected["a"]
    assert len(routes.keepers[T]) == 0


@pytest.mark.parametrize("good", [value("a.org"), value("new.org"), None])
def test_a_bad_value_is_forgotten_when_it_is_good_or_gone(good: bytes | None) -> None:
    routes, _ = running({"a": value("a.org")})
    edit(routes, {"a": b"{"})
    edit(routes, {"a": good})
    assert routes.keepers[T].rejected == {}


def test_a_bad_value_that_vanished_unseen_is_forgotten() -> None:
    routes, _ = running({"b": value("b.org")})
    edit(routes, {"a": b"{"})
    load(routes, {"b": value("b.org")})
    assert routes.keepers[T].rejected == {}


def test_a_withheld_tenant_does_not_get_what_it_waited_for() -> None:
    routes, table = running({"a": value("a.org"), "b": value("b.org")})
    edit(routes, {"a": value("a.org", "b.org")})
    load(routes, {"c": value("c.org")})
    assert routes.keepers[T].withheld == {"a", "b"}
    assert routes.keepers[T].rejected == {}
    assert table.take(edit(routes, {"b": None}))["a.org"] == "a"
    assert "b.org" not in table.names


def test_a_removed_tenant_is_gone_even_with_a_bad_value() -> None:
    routes, table = running({"a": value("a.org"), "b": value("b.org")})
    edit(routes, {"a": b"{"})
    assert table.take(edit(routes, {"a": None})) == live(b="b.org")


def test_a_bad_name_is_named() -> None:
    routes, _ = running({"A b": value("a.org"), "\udcff": value("b.org")})
    assert len(routes.keepers[T]) == 0
    assert routes.keepers[T].rejected.keys() == {"A b", "\udcff"}


def test_several_problems_are_one_line_of_bounded_length() -> None:
    routes, _ = running({})
    edit(routes, {"a": json.dumps({f"field{n}": 1 for n in range(200)}).encode()})
    assert "; " in routes.keepers[T].rejected["a"]
    assert len(routes.keepers[T].rejected["a"]) <= 500
    assert routes.keepers[T].rejected["a"].isprintable()


# Whose domain it is


def test_a_domain_stays_with_the_tenant_that_has_it() -> None:
    routes, table = running({"b": value("b.org")})
    assert table.take(edit(routes, {"a": value("a.org", "b.org")})) == live(b="b.org")
    assert routes.keepers[T].rejected == {"a": "domains: b.org belongs to tenant b"}


def test_two_that_claim_a_domain_at_once_are_told_apart_by_name() -> None:
    _, table = running({"b": value("same.org"), "a": value("same.org")})
    assert table.names == live(a="same.org")


def test_a_tenant_with_a_conflict_keeps_what_it_had() -> None:
    routes, table = running({"a": value("a.org"), "b": value("b.org")})
    assert table.take(edit(routes, {"a": value("b.org")})) == live(a="a.org", b="b.org")


@pytest.mark.parametrize("release", [None, value("new.org")])
def test_a_waiting_tenant_gets_the_domain_when_it_is_free(release: bytes | None) -> None:
    routes, table = running({"a": value("a.org"), "b": value("b.org")})
    table.take(edit(routes, {"c": value("a.org", "b.org")}))
    assert "c" in routes.keepers[T].rejected
    table.take(edit(routes, {"a": release}))
    assert routes.keepers[T].rejected == {"c": "domains: b.org belongs to tenant b"}
    table.take(edit(routes, {"b": None}))
    assert table.names["a.org"] == table.names["b.org"] == "c"
    assert routes.keepers[T].rejected == {}


def test_only_one_of_two_that_wait_gets_the_domain() -> None:
    routes, table = running({"a": value("a.org")})
    edit(routes, {"c": value("a.org")})
    edit(routes, {"b": value("a.org")})
    assert table.take(edit(routes, {"a": None})) == live(c="a.org")
    assert routes.keepers[T].rejected == {"b": "domains: a.org belongs to tenant c"}


def test_a_tenant_that_waits_no_more_does_not_get_the_domain() -> None:
    routes, table = running({"a": value("a.org")})
    table.take(edit(routes, {"b": value("a.org")}))
    table.take(edit(routes, {"b": value("b.org")}))
    assert table.take(edit(routes, {"a": None})) == live(b="b.org")


def test_a_chain_of_waiting_tenants_moves_on_at_once() -> None:
    routes, table = running({"a": value("a.org"), "b": value("b.org")})
    table.take(edit(routes, {"c": value("b.org")}))
    table.take(edit(routes, {"b": value("a.org")}))
    assert table.take(edit(routes, {"a": None})) == live(b="a.org", c="b.org")


# All of Redis


@pytest.mark.parametrize(
    ("had", "lost", "answer"),
    [
        (0, 0, False),
        (1, 0, False),
        (2, 1, False),
        (9, 9, True),
        (9, 8, False),
        (10, 5, False),
        (10, 6, True),
        (11, 5, False),
        (11, 6, True),
        (100, 50, False),
        (100, 51, True),
    ],
)
def test_a_loss_of_everything_or_of_more_than_half_of_ten_is_suspicious(had: int, lost: int, answer: bool) -> None:
    assert is_suspicious(had, lost, is_empty=True) is is_suspicious(had, lost, is_empty=False) is answer


def test_the_loss_of_the_only_one_is_suspicious_where_nothing_is_left() -> None:
    assert is_suspicious(1, 1, is_empty=True)
    assert not is_suspicious(1, 1, is_empty=False)


def test_a_load_removes_what_vanished_and_adds_what_is_new() -> None:
    routes, table = running({"a": value("a.org"), "b": value("b.org")})
    assert table.take(load(routes, {"b": value("b2.org"), "c": value("c.org")})) == live(b="b2.org", c="c.org")


def test_a_load_of_what_runs_writes_nothing() -> None:
    routes, _ = running(many(20))
    assert load(routes, many(20)) == []


def test_a_suspicious_loss_is_withheld_and_the_rest_counts() -> None:
    routes, table = running(many(10))
    left = dict(list(many(10).items())[:4])
    table.take(load(routes, {**left, "t00": value("changed.org"), "new": value("new.org")}))
    assert routes.keepers[T].withheld == {f"t{n:02}" for n in range(4, 10)}
    assert table.names["t09.org"] == "t09"
    assert table.names["changed.org"] == "t00"
    assert "t00.org" not in table.names
    assert table.names["new.org"] == "new"


def test_an_accepted_loss_is_removed() -> None:
    routes, table = running(many(3))
    load(routes, {})
    assert len(routes.keepers[T].withheld) == 3
    assert table.take(routes.accept()) == {}
    assert routes.keepers[T].withheld == set()


def test_a_loss_that_was_accepted_beforehand_is_never_withheld() -> None:
    routes, table = running(many(3))
    assert table.take(load(routes, {}, accepted=True)) == {}
    assert routes.keepers[T].withheld == set()


def test_a_tenant_that_comes_back_is_withheld_no_more() -> None:
    routes, table = running(many(3))
    load(routes, {})
    table.take(edit(routes, {"t00": value("t00.org"), "t01": value("new.org")}))
    assert routes.keepers[T].withheld == {"t02"}
    assert table.take(routes.accept()) == live(t00="t00.org", t01="new.org")


def test_what_is_withheld_stays_so_when_another_load_looks_harmless() -> None:
    routes, _ = running(many(12))
    kept = dict(list(many(12).items())[:5])
    load(routes, kept)
    assert len(routes.keepers[T].withheld) == 7
    for name in ("t05", "t06"):
        edit(routes, {name: many(12)[name]})
    assert load(routes, {**kept, "t05": many(12)["t05"], "t06": many(12)["t06"]}) == []
    assert routes.keepers[T].withheld == {f"t{n:02}" for n in range(7, 12)}


def test_a_single_removal_counts_while_others_are_withheld() -> None:
    routes, table = running(many(10))
    load(routes, {"t00": many(10)["t00"]})
    table.take(edit(routes, {"t00": None}))
    assert "t00.org" not in table.names
    assert len(routes.keepers[T].withheld) == 9


def test_a_withheld_tenant_keeps_its_domain() -> None:
    routes, table = running(many(3))
    load(routes, {"new": value("t00.org")})
    assert routes.keepers[T].rejected == {"new": "domains: t00.org belongs to tenant t00"}
    assert table.take(routes.accept()) == live(new="t00.org")


# The last good table


def test_a_table_is_resumed_as_it_was() -> None:
    routes, table = running(many(10))
    load(routes, {})
    again, resumed = Routes(RULES), Live()
    assert resumed.take(again.resume(T, routes.snapshot(T))) == table.names
    assert again.keepers[T].withheld == routes.keepers[T].withheld
    assert load(again, {}) == []
    assert again.snapshot(T) == routes.snapshot(T)


def test_a_snapshot_does_not_change_with_the_table() -> None:
    routes, _ = running(many(2))
    kept = routes.snapshot(T)
    edit(routes, {"t00": None})
    assert [row.name for row in kept.rows] == ["t00", "t01"]


def test_a_resumed_table_gives_up_what_vanished_meanwhile() -> None:
    routes, _ = running(many(10))
    again, table = Routes(RULES), Live()
    table.take(again.resume(T, routes.snapshot(T)))
    assert table.take(load(again, many(6))) == live(**{name: f"{name}.org" for name in many(6)})


def test_under_other_settings_a_table_is_checked_again() -> None:
    routes, _ = running({"in": value("in.org", host="10.5.4.17"), "out": value("out.org", host="10.5.4.1")})
    again, table = Routes(OTHER_RULES), Live()
    assert table.take(again.resume(T, routes.snapshot(T))) == {"@in": "in", "in.org": "in"}
    assert "must be inside" in again.keepers[T].rejected["out"]


def test_a_table_made_by_another_version_is_made_anew() -> None:
    routes, table = running(many(3))
    kept = routes.snapshot(T)
    lines = [row._replace(entries=dict.fromkeys(row.entries, "an older form")).line for row in kept.rows]
    again, resumed = Routes(RULES), Live()
    assert resumed.take(again.resume(T, Snapshot("another version", lines))) == table.names


@pytest.mark.parametrize(
    ("left", "changes"),
    [({}, True), (many(10), False), ({**many(10), "t00": b"{"}, False), ({**many(10), "t00": value("new.org")}, True)],
)
def test_a_table_is_to_be_kept_anew_only_when_it_has_changed(left: dict[str, bytes], changes: bool) -> None:
    routes, _ = running(many(10))
    assert routes.keepers[T].has_changed
    routes.snapshot(T)
    load(routes, left)
    assert routes.keepers[T].has_changed is changes


def test_a_resumed_table_is_not_to_be_kept_anew_unless_it_was_made_anew() -> None:
    routes, _ = running(many(3))
    for again, changes in ((Routes(RULES), False), (Routes(OTHER_RULES), True)):
        again.resume(T, routes.snapshot(T))
        assert again.keepers[T].has_changed is changes


# Numbers and trunks


def number(tenant: str = "", host: str = "", **fields: object) -> bytes:
    to = {"instances": [{"uri": f"sip:{host}"}]} if host else {"tenant": tenant}
    return json.dumps({**to, **fields}).encode()


def trunk(*addresses: str) -> bytes:
    return json.dumps({"addresses": addresses, "tenants": ["*"]}).encode()


class Memory:
    """Shared memory as the changes make it, which must be whole after each of them."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, str]] = {live_table.TABLE: {}, live_table.STATE: {}}

    def take(self, changes: Iterable[Change]) -> dict[str, str]:
        for change in changes:
            match change:
                case Set(key, entry, table):
                    self.tables[table][key] = entry
                case Remove(key, table):
                    del self.tables[table][key]
            self._expect_whole()
        return self.tables[live_table.TABLE]

    @property
    def live(self) -> live_table.Live:
        return live_table.Live(lambda table, key: self.tables[table].get(key))

    def _expect_whole(self) -> None:
        """Nothing points at what is not there, and what is known of the whole holds for each entry."""
        table, state = self.tables[live_table.TABLE], self.tables[live_table.STATE]
        for key, entry in table.items():
            if key[0] == "#" and entry.lstrip("=").startswith("@#"):
                assert entry.lstrip("=") in table
            if key[0] == "^" or (key[0] == "%" and "/" in key):
                assert all(f"{'@' if key[0] == '^' else '%'}{name}" in table for name in entry.split())
            if found := live_table.aspect(key):
                where, word = found
                known = state.get(where, "")
                if where == live_table.SHAPES_KEY:
                    assert shape(word) in read_shapes(known)
                else:
                    assert word in known.split()


def whole(values: Mapping[Kind, Mapping[str, bytes]]) -> tuple[Routes, Memory]:
    routes, memory = Routes(RULES), Memory()
    memory.take(routes.load(values))
    return routes, memory


def names_of(table: Mapping[str, str], first: str) -> dict[str, str]:
    return {key: text for key, text in table.items() if key[0] == first}


ALL = {
    Kind.TENANT: {"acme": value("acme.org", host="10.5.4.7"), "globex": value("globex.org", host="10.5.4.7")},
    Kind.TRUNK: {"carrier": trunk("198.51.100.0/24", "192.0.2.1"), "other": trunk("198.51.100.0/24")},
    Kind.NUMBER: {"+39072": number("acme"), "+390721XX": number(host="10.5.4.7"), "100@carrier": number("globex")},
}


def test_numbers_and_trunks_are_live_beside_tenants() -> None:
    _, memory = whole(ALL)
    table = memory.tables[live_table.TABLE]
    assert names_of(table, "#") == {"#+39072": "@acme", "#+390721XX": "@#+390721XX", "#100@carrier": "@globex"}
    assert names_of(table, "^") == {"^10.5.4.7": "#+390721XX acme globex"}
    assert names_of(table, ">") == {">192.0.2.1": "carrier"}
    assert table["%udp:198.51.100.0/24"] == "carrier other"
    assert memory.tables[live_table.STATE] == {"shapes": "9:7,8 6 3", "prefixes": "32 24"}
    found = memory.live.number("+390721234")
    assert found is not None
    assert found.tenant is not None
    assert (found.rule, found.tenant.instances[0].endpoint.host) == ("+390721XX", "10.5.4.7")
    assert [one.name for one in memory.live.trunks_from(Endpoint("udp", "198.51.100.9", 5060))] == ["carrier", "other"]


def test_what_goes_takes_all_it_had_along() -> None:
    routes, memory = whole(ALL)
    assert memory.take(routes.edit({kind: dict.fromkeys(values) for kind, values in ALL.items()})) == {}
    assert memory.tables[live_table.STATE] == {"shapes": "", "prefixes": ""}
    assert not any(map(len, routes.keepers.values()))


@pytest.mark.parametrize(
    ("edit", "key", "expected"),
    [
        ({Kind.TENANT: {"acme": value("acme.org", host="10.5.4.8")}}, "^10.5.4.7", "#+390721XX globex"),
        ({Kind.TENANT: {"acme": value("acme.org", host="10.5.4.8")}}, "^10.5.4.8", "acme"),
        ({Kind.TENANT: {"new": value("new.org", host="10.5.4.7")}}, "^10.5.4.7", "#+390721XX acme globex new"),
        ({Kind.NUMBER: {"+390721XX": number("acme")}}, "@#+390721XX", None),
        ({Kind.NUMBER: {"+390721XX": number("acme")}}, "^10.5.4.7", "acme globex"),
        ({Kind.NUMBER: {"+39072": number(host="10.5.4.7", exact=True)}}, "#+39072", "=@#+39072"),
        ({Kind.NUMBER: {"+39072": number(host="10.5.4.7")}}, "^10.5.4.7", "#+39072 #+390721XX acme globex"),
        ({Kind.TRUNK: {"carrier": trunk("198.51.100.0/24")}}, "%udp:192.0.2.1/32", None),
        ({Kind.TRUNK: {"carrier": trunk("192.0.2.1")}}, "%udp:198.51.100.0/24", "other"),
        ({Kind.TRUNK: {"carrier": None, "other": None}}, "%udp:198.51.100.0/24", None),
    ],
)
def test_an_edit_moves_what_is_shared(
    edit: dict[Kind, dict[str, bytes | None]], key: str, expected: str | None
) -> None:
    routes, memory = whole(ALL)
    assert memory.take(routes.edit(edit)).get(key) == expected


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({Kind.NUMBER: {"+390721XX": None}}, {"shapes": "6 3", "prefixes": "32 24"}),
        ({Kind.NUMBER: {"+39072": None, "+39073": number("acme")}}, {"shapes": "9:7,8 6 3", "prefixes": "32 24"}),
        ({Kind.NUMBER: {"1X@carrier": number("acme")}}, {"shapes": "9:7,8 6 3 2:1", "prefixes": "32 24"}),
        ({Kind.TRUNK: {"carrier": trunk("2001:db8::/48")}}, {"shapes": "9:7,8 6 3", "prefixes": "48 24"}),
    ],
)
def test_what_is_known_of_the_whole_follows(
    edit: dict[Kind, dict[str, bytes | None]], expected: dict[str, str]
) -> None:
    routes, memory = whole(ALL)
    memory.take(routes.edit(edit))
    assert memory.tables[live_table.STATE] == expected


def test_an_edit_that_moves_nothing_shared_writes_nothing_shared() -> None:
    routes, memory = whole(ALL)
    changes = routes.edit({Kind.TENANT: {"acme": value("acme.org", "more.org", host="10.5.4.7")}})
    assert {change.key for change in changes} == {"@acme", "acme.org", "more.org"}
    memory.take(changes)


def test_two_spellings_of_a_rule_conflict_and_the_first_keeps_it() -> None:
    plan = Rules(RULES.networks, (), (), plan=Plan("39", "00", ""))
    routes, memory = Routes(plan), Memory()
    memory.take(routes.edit({Kind.NUMBER: {"0721": number("first")}}))
    memory.take(routes.edit({Kind.NUMBER: {"+390721": number("second"), "+390721@carrier": number("third")}}))
    assert routes.keepers[Kind.NUMBER].rejected == {"+390721": "rule: +390721 belongs to number 0721"}
    assert names_of(memory.tables[live_table.TABLE], "#") == {"#+390721": "@first", "#+390721@carrier": "@third"}
    assert memory.take(routes.edit({Kind.NUMBER: {"0721": None}}))["#+390721"] == "@second"
    assert routes.keepers[Kind.NUMBER].rejected == {}


@pytest.mark.parametrize("kind", Kind)
def test_a_bad_value_of_any_kind_is_named_and_the_last_good_one_stays(kind: Kind) -> None:
    routes, memory = whole(ALL)
    before = dict(memory.tables[live_table.TABLE])
    name = next(iter(ALL[kind]))
    assert memory.take(routes.edit({kind: {name: b"{"}})) == before
    assert "not JSON" in routes.keepers[kind].rejected[name]


def test_a_loss_is_judged_for_each_kind_alone() -> None:
    routes, memory = whole(ALL)
    before = dict(memory.tables[live_table.TABLE])
    left = {Kind.TENANT: ALL[Kind.TENANT], Kind.TRUNK: {"other": ALL[Kind.TRUNK]["other"]}}
    after = memory.take(routes.load(left))
    assert routes.keepers[Kind.NUMBER].withheld == set(ALL[Kind.NUMBER])
    assert before.keys() - after.keys() == {"%carrier", "%udp:192.0.2.1/32", ">192.0.2.1"}
    assert names_of(memory.take(routes.accept()), "#") == {}


@pytest.mark.parametrize("kind", Kind)
def test_the_only_one_of_a_kind_goes_when_redis_has_others_and_stays_when_it_is_empty(kind: Kind) -> None:
    name, raw = next(iter(ALL[kind].items()))
    other = next(one for one in Kind if one is not kind)
    routes, memory = whole({kind: {name: raw}})
    before = dict(memory.tables[live_table.TABLE])
    assert memory.take(routes.load({})) == before
    assert routes.keepers[kind].withheld == {name}
    again, table = Routes(RULES), Memory()
    table.take(again.resume(kind, whole({kind: {name: raw}})[0].snapshot(kind)))
    table.take(again.load({other: ALL[other]}))
    assert len(again.keepers[kind]) == again.withheld == 0


def test_a_removal_is_known_until_a_snapshot_is_without_it() -> None:
    routes, _ = running(many(3))
    edit(routes, {"t00": value("new.org"), "none": None})
    assert not routes.keepers[T].has_lost
    edit(routes, {"t00": None})
    assert routes.keepers[T].has_lost
    routes.snapshot(T)
    assert not routes.keepers[T].has_lost


def whose(memory: Memory, name: str) -> str:
    tenant = memory.live.named(name)
    assert tenant
    return live_table.encode(tenant)


def test_in_a_load_what_moves_between_its_parts_is_never_missing() -> None:
    routes, memory = whole({T: {"a": value("a.org"), "z": value("z.org")}})
    routes.expect({T: {"a", "z"}})
    assert memory.take(routes.find(T, {"a": value("new.org")}))["a.org"]
    assert memory.take(routes.edit({Kind.NUMBER: {"1": number("a")}}))["a.org"]
    assert "#1" not in memory.take(routes.edit({Kind.NUMBER: {"1": None}}))
    assert memory.take(routes.find(T, {"z": value("a.org")}))["a.org"] == whose(memory, "z")
    assert memory.take(routes.complete()).keys() == {"@a", "@z", "new.org", "a.org", "^10.5.4.1"}


def test_in_a_load_what_is_still_there_is_still_found() -> None:
    routes, memory = whole({Kind.TRUNK: {"carrier": trunk("198.51.100.0/24")}})
    routes.expect({Kind.TRUNK: {"carrier"}})
    memory.take(routes.find(Kind.TRUNK, {"carrier": trunk("192.0.2.1")}))
    memory.take(routes.edit({Kind.NUMBER: {"1": number("a")}}))
    assert memory.tables[live_table.STATE]["prefixes"] == "32 24"
    memory.take(routes.complete())
    assert memory.tables[live_table.STATE]["prefixes"] == "32"


def test_in_a_load_an_edit_counts_at_once() -> None:
    routes, memory = whole({T: many(3)})
    routes.expect({T: many(3).keys() - {"t02"}})
    assert "t01.org" not in memory.take(edit(routes, {"t01": None}))
    memory.take(edit(routes, {"t02": value("t02.org", host="10.5.4.9")}))
    memory.take(routes.find(T, {"t00": value("t00.org")}))
    assert names_of(memory.take(routes.complete()), "@").keys() == {"@t00", "@t02"}


@pytest.mark.parametrize("kind", Kind)
def test_rows_of_any_kind_are_resumed_as_they_were(kind: Kind) -> None:
    routes, memory = whole({kind: ALL[kind]})
    again, resumed = Routes(RULES), Memory()
    assert resumed.take(again.resume(kind, routes.snapshot(kind))) == memory.tables[live_table.TABLE]
    assert resumed.tables == memory.tables
    assert again.snapshot(kind) == routes.snapshot(kind)
    assert resumed.take(again.edit({kind: dict.fromkeys(ALL[kind])})) == {}


# Names of trunks

HOST = Name("udp", "sip.carrier.example")


def test_a_trunk_follows_where_its_name_leads() -> None:
    answers: dict[Name, tuple[Endpoint, ...]] = {}
    routes, memory = Routes(RULES, lambda name: answers.get(name, ())), Memory()
    memory.take(routes.edit({Kind.TRUNK: {"carrier": trunk("sip.carrier.example"), "other": trunk("192.0.2.1")}}))
    assert routes.asked == {HOST}
    answers[HOST] = (Endpoint("udp", "198.51.100.7", 5062),)
    memory.take(routes.remake([HOST]))
    assert memory.live.trunks_to("sip.carrier.example")[0].targets == answers[HOST]
    assert memory.tables[live_table.TABLE]["%udp:198.51.100.7/32"] == "carrier"
    answers[HOST] = (Endpoint("udp", "198.51.100.8", 5062),)
    changes = routes.remake([HOST])
    assert {change.key for change in changes} == {"%carrier", "%udp:198.51.100.7/32", "%udp:198.51.100.8/32"}
    memory.take(changes)
    assert routes.remake([Name("udp", "else.example")]) == []
    memory.take(routes.edit({Kind.TRUNK: {"carrier": trunk("192.0.2.2")}}))
    assert routes.asked == set()


def test_a_resumed_trunk_leads_where_it_did_until_there_is_another_answer() -> None:
    answers = {HOST: (Endpoint("udp", "198.51.100.7", 5062),)}
    routes = Routes(RULES, lambda name: answers[name])
    routes.edit({Kind.TRUNK: {"carrier": trunk("sip.carrier.example")}})
    again, resumed = Routes(RULES), Memory()
    resumed.take(again.resume(Kind.TRUNK, routes.snapshot(Kind.TRUNK)))
    assert resumed.live.trunks_to("sip.carrier.example")[0].targets == answers[HOST]
    assert again.asked == {HOST}
