"""A configuration that a program changes: what people wrote stays, and a bad change leaves no trace."""

import stat
from pathlib import Path

import pytest
from tomlkit import TOMLDocument

from sipward import configuration, reload
from sipward.reload import Outcome, ReloadError
from sipward.settings import Settings, SettingsError

TEXT = """\
# The name that phones use.
fqdn = "sip.example.org"   # since 2019
state_dir = "{state}"

[network]   # where
service_networks = ["10.5.4.0/24"]
# Loopback, for a try.
address = "127.0.0.1"

[sip]
workers = 2
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sipward.toml"
    path.write_text(TEXT.format(state=tmp_path / "state"))
    path.chmod(0o640)
    return path


def rename(document: TOMLDocument) -> None:
    document["fqdn"] = "other.example.org"
    configuration.table(document, "network")["local_networks"] = ["192.168.1.0/24"]


def misname(document: TOMLDocument) -> None:
    document["fqdn"] = "no name"


def test_comments_order_and_mode_stay(path: Path) -> None:
    before = path.read_text()
    assert configuration.change(path, rename) is None
    after = path.read_text()
    assert after != before
    expected = before.replace('"sip.example.org"', '"other.example.org"').replace(
        '"127.0.0.1"\n', '"127.0.0.1"\nlocal_networks = ["192.168.1.0/24"]\n'
    )
    assert after == expected
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [one.name for one in path.parent.iterdir()] == ["sipward.toml"]


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sipward.toml"

    def fill(document: TOMLDocument) -> None:
        configuration.table(document, "network")["address"] = "127.0.0.1"
        document["fqdn"] = "sip.example.org"
        document["state_dir"] = str(tmp_path / "state")

    assert configuration.change(path, fill) is None
    assert path.read_text() == (
        f'fqdn = "sip.example.org"\nstate_dir = "{tmp_path}/state"\n\n[network]\naddress = "127.0.0.1"\n'
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_behind_a_link_is_changed_where_it_is(path: Path) -> None:
    link = path.with_name("link.toml")
    link.symlink_to(path)
    configuration.change(link, rename)
    assert link.is_symlink()
    assert "other.example.org" in path.read_text()


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("198.18.0.1", "network.address: 198.18.0.1 is not an address of this machine"),
        ("no", 'sipward.toml: network.address[0] = "no": must be an IPv4 or IPv6 address'),
    ],
)
def test_what_is_no_configuration_of_this_machine_is_refused_and_not_written(
    path: Path, address: str, line: str
) -> None:
    before = path.read_text()

    def move(document: TOMLDocument) -> None:
        configuration.table(document, "network")["address"] = address

    with pytest.raises(SettingsError) as caught:
        configuration.change(path, move)
    assert str(caught.value).endswith(line)
    assert path.read_text() == before
    assert [one.name for one in path.parent.iterdir()] == ["sipward.toml"]


def test_a_refusal_names_the_file_and_not_the_trial(path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        configuration.change(path, misname)
    assert str(caught.value).startswith(f"{path}: fqdn = ")


@pytest.mark.parametrize("is_there", [True, False])
def test_what_the_running_node_refuses_is_taken_back(
    path: Path, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_text()
    if not is_there:
        path.unlink()

    def edit(document: TOMLDocument) -> None:
        document.update(configuration.parse(before, path))
        rename(document)

    def refuse(settings: Settings) -> Outcome:
        assert settings.fqdn == "other.example.org"
        assert "other.example.org" in path.read_text()
        return Outcome("udp 127.0.0.1:5060 is in use by another program", ())

    monkeypatch.setattr(reload, "request", refuse)
    with pytest.raises(ReloadError, match="refuses it: udp 127"):
        configuration.change(path, edit)
    assert (path.read_text() == before) if is_there else not path.exists()


def test_a_running_node_says_what_it_started_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "request", lambda _: Outcome("", ("kamailio",)))
    assert configuration.change(path, rename) == Outcome("", ("kamailio",))


@pytest.mark.parametrize("text", ["fqdn = ", "network = 5"])
def test_a_file_that_is_broken_is_named(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError):
        configuration.change(path, rename)
    assert path.read_text() == text
