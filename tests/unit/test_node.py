"""A node that takes another configuration: whole, or not at all."""

import json
from collections.abc import Sequence
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket

import pytest

from sipward import node, render
from sipward.addresses import resolve
from sipward.settings import Settings, SettingsError
from sipward.supervisor import Component, StartError


class Supervisor:
    """Notes what it is to run; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.adopted: list[dict[str, str]] = []

    def adopt(self, wanted: Sequence[Component]) -> tuple[str, ...]:
        self.adopted.append({component.name: component.reads for component in wanted})
        if self.failures:
            self.failures -= 1
            raise StartError("kamailio ended at once")
        return ("kamailio",)


def settings(state: Path, **fields: object) -> Settings:
    # An address of its own and a port that nobody has: what is held now is not asked for.
    network = {"address": "127.0.0.7", "sip_port": 45060}
    known = {"fqdn": "old.example.org", "network": network, "rtp": {"control": "127.0.0.7:45061"}}
    return Settings(state_dir=state, **{**known, **fields})


class Scene:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.wanted: Settings | Exception = settings(state)
        old = settings(state)
        node._certify(old, resolve(old))
        render.write(old, resolve(old))
        self.running = node._Running(self.load, old, resolve(old))

    def load(self) -> Settings:
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return self.wanted

    def reload(self, wanted: Settings | Exception, failures: int = 0) -> tuple[list[object], list[dict[str, str]]]:
        """What is answered, and what was to be run."""
        self.wanted = wanted
        supervisor = Supervisor(failures)
        self.running.reload(supervisor)  # type: ignore[arg-type]
        return json.loads((self.state / "run" / "reload.json").read_text()), supervisor.adopted

    @property
    def rendered(self) -> str:
        return str(json.loads((self.state / "run" / "settings.json").read_text())["fqdn"])


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_good_configuration_is_rendered_and_run(scene: Scene) -> None:
    answer, adopted = scene.reload(settings(scene.state, fqdn="new.example.org"))
    assert answer == ["", ["kamailio"]]
    assert scene.rendered == "new.example.org"
    assert "new.example.org" in adopted[0]["kamailio"]
    assert "new.example.org" not in adopted[0]["rtpengine"] + adopted[0]["redis"]


@pytest.mark.parametrize("failures", [1, 2])
def test_one_that_does_not_start_gives_way_to_the_old_one(scene: Scene, failures: int) -> None:
    (reason, restarted), adopted = scene.reload(settings(scene.state, fqdn="new.example.org"), failures)
    assert (reason, restarted) == ("kamailio ended at once", [])
    assert scene.rendered == "old.example.org"
    assert ["new.example.org" in one["kamailio"] for one in adopted] == [True, False]
    answer, _ = scene.reload(settings(scene.state, fqdn="newer.example.org"))
    assert answer == ["", ["kamailio"]]


def test_one_that_is_refused_touches_nothing(scene: Scene, tmp_path: Path) -> None:
    for wanted, line in (
        (SettingsError("fqdn: missing"), "fqdn: missing"),
        (settings(tmp_path / "elsewhere"), "state_dir: this node runs in "),
        (settings(scene.state, network={"address": "198.18.0.1"}), "network.address: 198.18.0.1 is not an address of"),
    ):
        (reason, restarted), adopted = scene.reload(wanted)
        assert str(reason).startswith(line)
        assert (restarted, adopted) == ([], [])
        assert scene.rendered == "old.example.org"


def test_new_keys_are_news_to_kamailio_alone(scene: Scene) -> None:
    _, (before,) = scene.reload(settings(scene.state))
    keys = scene.state / "keys"
    keys.write_text(keys.read_text() + "ab" * 32 + "\n")
    _, (after,) = scene.reload(settings(scene.state))
    assert {name for name in before if before[name] != after[name]} == {"kamailio"}


def test_a_port_for_registrations_that_another_has_is_refused_in_one_line(scene: Scene, tmp_path: Path) -> None:
    with socket(AF_INET, SOCK_DGRAM) as other:
        other.bind(("127.0.0.7", 45071))
        answer, adopted = scene.reload(settings(tmp_path, trunks={"own_ports": "45070-45071"}))
    assert (answer[0], adopted) == ("udp 127.0.0.7:45071 is in use by another program", [])
