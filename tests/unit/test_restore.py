"""A backup onto a machine: what is asked, what is refused, what is left alone."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sipward import backup, interfaces, restore
from sipward.backup import Backup, BackupError
from sipward.records import Kind
from sipward.settings import Settings, SettingsError
from sipward.store import Value

LINKS = [
    {"ifname": "ens3", "addr_info": [{"family": "inet", "local": "127.0.0.9", "prefixlen": 32, "scope": "global"}]},
    {"ifname": "lo", "addr_info": []},
]
OLD, NEW = "ab" * 32, "cd" * 32


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interface is ens3; its addresses are those of loopback."""
    monkeypatch.setattr(interfaces, "links", lambda: LINKS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sipward.toml"


def configuration(state: str, network: str = 'address = "127.0.0.1"') -> str:
    return f"""\
# Ours.
fqdn = "sip.example.org"
state_dir = "{state}"

[network]
{network}   # the old machine's
service_networks = ["127.0.1.0/24"]
"""


def saved(
    network: str = 'address = "127.0.0.1"',
    tenants: Mapping[str, str] | None = None,
    numbers: Mapping[str, str] | None = None,
) -> Backup:
    values = {Kind.TENANT: dict(tenants or {}), Kind.NUMBER: dict(numbers or {}), Kind.TRUNK: {}}
    return Backup(configuration("/tmp/old", network), (OLD,), values)


def settled(
    one: Backup, path: Path, *, answers: Mapping[str, str] | None = None, replace: bool = False
) -> tuple[str, Settings]:
    return restore.settle(one, path, answers or {}, None, replace)


# --- the configuration ------------------------------------------------------------------------------------------------


def test_on_a_machine_without_a_configuration_it_is_the_backups_to_the_letter(path: Path) -> None:
    text, found = settled(saved(), path)
    assert text == configuration("/tmp/old")
    assert found.fqdn == "sip.example.org"
    assert not path.exists()


MISFITS = {
    'interface = "eth0"': ('network.interface: "eth0": there is no such interface; there are ens3, lo: answer',),
    'address = "198.18.0.1"': ("network.address: 198.18.0.1: is not an address of this machine: answer",),
    'address = ["127.0.0.1", "2001:db8::7"]': ("network.address: 2001:db8::7: is not an address of this ",),
    'address = "198.18.0.1"\nservice_address = "198.18.0.2, 127.0.0.1"': (
        "network.address: 198.18.0.1: ",
        "network.service_address: 198.18.0.2: ",
    ),
}


@pytest.mark.parametrize("network", MISFITS)
def test_without_a_terminal_all_that_does_not_fit_is_named_with_how_to_answer(network: str, path: Path) -> None:
    with pytest.raises(BackupError) as caught:
        settled(saved(network), path)
    head, *lines = str(caught.value).splitlines()
    assert "nothing was written" in head
    assert len(lines) == len(MISFITS[network])
    for line, start in zip(lines, MISFITS[network], strict=True):
        assert line.startswith(start)
        assert line.endswith(f"--set {start.split(':')[0]}=VALUE")


@pytest.mark.parametrize(
    ("answers", "shown"),
    [
        ({"network.interface": "ens3"}, 'interface = "ens3"   # the old'),
        ({"network.address": "127.0.0.3", "sip.workers": "2"}, 'address = "127.0.0.3"\n\n[sip]\nworkers = 2\n'),
    ],
)
def test_an_answer_is_what_the_configuration_says(answers: Mapping[str, str], shown: str, path: Path) -> None:
    text, _ = settled(saved('interface = "eth0"'), path, answers=answers)
    assert shown in text
    assert ("interface =" in text) != ("address =" in text)


def test_an_answer_that_does_not_fit_either_is_no_answer(path: Path) -> None:
    with pytest.raises(BackupError, match=r"network\.address: 198\.18\.0\.2: is not an address"):
        settled(saved('address = "198.18.0.1"'), path, answers={"network.address": "198.18.0.2"})


def test_what_else_is_wrong_is_said_as_of_any_configuration(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sip\.workers = 0: must be 1 to 64"):
        settled(saved(), path, answers={"sip.workers": "0"})


def test_a_person_is_asked_until_it_fits_with_what_is_here_on_offer(path: Path) -> None:
    path.write_text(configuration("/tmp/new", 'address = "127.0.0.4"'))
    asked: list[tuple[str, str]] = []
    replies = iter(["eth1", "127.0.0.4"])

    def ask(key: str, why: str, offer: str) -> str:
        assert "no such interface" in why
        asked.append((key, offer))
        return next(replies)

    text, found = restore.settle(saved('interface = "eth0"'), path, {}, ask, False)
    assert asked == [("network.interface", ""), ("network.interface", "")]
    assert list(map(str, found.network.address)) == ["127.0.0.4"]
    assert "interface =" not in text


def test_what_is_here_and_says_something_else_is_named_and_stays(path: Path) -> None:
    before = configuration("/tmp/new", 'address = "127.0.0.2"').replace("sip.example.org", "other.example.org")
    path.write_text(before)
    with pytest.raises(BackupError) as caught:
        settled(saved(), path)
    assert str(caught.value).splitlines()[1:] == [
        'fqdn = "other.example.org" is here, and fqdn = "sip.example.org" in the backup',
        'network.address = "127.0.0.2" is here, and network.address = "127.0.0.1" in the backup',
    ]
    assert "--replace" in str(caught.value)
    assert path.read_text() == before


def test_an_interface_and_an_address_are_two_words_for_one_thing(path: Path) -> None:
    path.write_text(configuration("/tmp/old", 'interface = "ens3"'))
    with pytest.raises(BackupError, match='interface = "ens3" is here, and network'):
        settled(saved(), path)
    text, _ = settled(saved(), path, replace=True)
    assert "interface =" not in text


def test_the_backups_word_is_taken_when_it_may_but_for_where_files_are_and_what_it_does_not_know(path: Path) -> None:
    path.write_text(configuration("/tmp/new", 'sip_port = 5070\naddress = "127.0.0.2"').replace("Ours", "Mine"))
    text, found = settled(saved(), path, replace=True)
    assert text.startswith("# Mine.")
    assert (str(found.state_dir), found.network.sip_port) == ("/tmp/new", 5070)
    assert list(map(str, found.network.address)) == ["127.0.0.1"]


def test_what_is_answered_is_no_conflict(path: Path) -> None:
    path.write_text(configuration("/tmp/new", 'address = "127.0.0.2"'))
    _, found = settled(saved(), path, answers={"network.address": "127.0.0.2"})
    assert list(map(str, found.network.address)) == ["127.0.0.2"]


# --- values and keys --------------------------------------------------------------------------------------------------


class Store:
    def __init__(self, tenants: Mapping[str, str] | None = None) -> None:
        self.values = {kind: {} for kind in Kind} | {Kind.TENANT: dict(tenants or {})}

    def list(self, kind: Kind) -> dict[str, Value]:
        return {name: raw.encode() for name, raw in self.values[kind].items()}

    def fill(self, kind: Kind, values: Mapping[str, str], *, replace: bool = False) -> int:
        assert replace
        self.values[kind] |= values
        return len(values)


def tenant(domain: str, uri: str = "sip:127.0.1.1:5080") -> str:
    return json.dumps({"domains": [domain], "instances": [{"uri": uri}]})


def planned(one: Backup, path: Path, store: Store, replace: bool = False) -> restore.Plan:
    text, found = settled(one, path, answers={"state_dir": str(path.parent / "state")})
    return restore.plan(one, text, found, store, replace)  # type: ignore[arg-type]


def test_what_is_missing_is_written_and_what_is_the_same_left_alone(path: Path) -> None:
    one = saved(
        tenants={"acme": tenant("acme.example"), "beta": tenant("beta.example")}, numbers={"1": '{"tenant": "acme"}'}
    )
    store = Store({"acme": json.dumps(json.loads(tenant("acme.example")), indent=2), "mine": tenant("mine.example")})
    plan = planned(one, path, store)
    assert plan.values == {
        Kind.TENANT: {"beta": tenant("beta.example")},
        Kind.NUMBER: {"1": '{"tenant": "acme"}'},
        Kind.TRUNK: {},
    }
    (path.parent / "state").mkdir()
    assert restore.carry_out(plan, path, store) is None  # type: ignore[arg-type]
    assert store.values[Kind.TENANT].keys() == {"acme", "beta", "mine"}
    assert store.values[Kind.NUMBER] == {"1": '{"tenant": "acme"}'}
    assert path.read_text() == plan.text
    assert backup.read_keys(plan.settings) == (OLD,)
    assert (path.parent / "state" / "keys").stat().st_mode & 0o777 == 0o600


def test_the_keys_that_are_here_go_on_sealing(path: Path) -> None:
    state = path.parent / "state"
    state.mkdir()
    (state / "keys").write_text(f"{NEW}\n")
    assert planned(saved(), path, Store()).keys == (NEW, OLD)


REFUSED = {
    "another value": (
        tenant("acme.example", "sip:127.0.1.2"),
        {"acme": tenant("acme.example")},
        "tenant acme is here with another value",
    ),
    "outside": (
        tenant("acme.example", "sip:127.0.7.1"),
        {},
        'tenant acme: instances[0].uri = "sip:127.0.7.1": must be inside',
    ),
    "another's domain": (
        tenant("acme.example"),
        {"mine": tenant("acme.example")},
        "tenant acme: domains: acme.example belongs to tenant mine here",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_stands_against_it_is_named_before_anything_is_written(what: str, path: Path) -> None:
    value, here, line = REFUSED[what]
    with pytest.raises(BackupError) as caught:
        planned(saved(tenants={"acme": value}), path, Store(here))
    head, *lines = str(caught.value).splitlines()
    assert "nothing was written" in head
    assert [one.startswith(line) for one in lines] == [True]


def test_another_value_is_replaced_when_it_may_be(path: Path) -> None:
    value = tenant("acme.example", "sip:127.0.1.2")
    plan = planned(saved(tenants={"acme": value}), path, Store({"acme": tenant("acme.example")}), replace=True)
    assert plan.values[Kind.TENANT] == {"acme": value}


def test_a_domain_that_moves_from_a_tenant_that_is_replaced_too_is_free(path: Path) -> None:
    one = saved(tenants={"acme": tenant("new.example"), "beta": tenant("acme.example")})
    plan = planned(one, path, Store({"acme": tenant("acme.example")}), replace=True)
    assert plan.values[Kind.TENANT].keys() == {"acme", "beta"}


def test_what_was_broken_before_comes_along_and_is_named(path: Path) -> None:
    plan = planned(saved(tenants={"acme": "{", "beta": tenant("b.example")}), path, Store())
    assert plan.values[Kind.TENANT].keys() == {"acme", "beta"}
    assert [line.partition(":")[0] for line in plan.warnings] == ["tenant acme is not used"]


def test_of_very_much_that_stands_against_it_the_first_is_named(path: Path) -> None:
    tenants = {f"t{number}": tenant(f"t{number}.example", "sip:10.9.9.9") for number in range(50)}
    with pytest.raises(BackupError) as caught:
        planned(saved(tenants=tenants), path, Store())
    assert len(str(caught.value).splitlines()) == 22
    assert str(caught.value).endswith("and 30 more")
