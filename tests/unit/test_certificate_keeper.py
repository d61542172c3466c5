"""What the keeper does and when, by a clock of the test's own; its files, certificates and Kamailio's file are real."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.eventually import eventually
from lab.pki import AUTHORITY, Pair
from sipward import certificate_keeper, render, rpc, tls
from sipward.acme_client import OrderError
from sipward.addresses import Addresses, resolve
from sipward.certificate_keeper import Keeper
from sipward.certificate_names import Acme, Files, OwnCa, Source, note
from sipward.certificate_report import Report
from sipward.certificate_sources import fetch, prepare
from sipward.certificates import Certificates
from sipward.settings import Settings

SECOND = timedelta(seconds=1)
FQDN = "sip.example.org"


class Scene:
    """A node below a directory; Kamailio takes what it is given, or does not."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.refuses: Exception | None = None
        self.given: list[datetime] = []
        self.said: list[str] = []
        self.configure()
        prepare(self.settings, self.addresses)
        tls.write(self.settings)
        tls.note_given(self.settings)
        monkeypatch.setattr(tls, "reload", self._reload)
        self.start = self.now = datetime.now(UTC)
        self.keeper = Keeper(render.run_dir(self.settings), self.said.append)

    def configure(self, **fields: object) -> None:
        own = {"ca_file": str(AUTHORITY.trust(self.place / "roots.pem"))}
        known = {"fqdn": FQDN, "network": {"address": "127.0.0.7"}, "certificates": own}
        self.settings = Settings(state_dir=self.place / "state", **{**known, **fields})
        self.addresses: Addresses = resolve(self.settings)
        render.write(self.settings, self.addresses)

    def _reload(self, settings: Settings) -> None:
        if self.refuses:
            raise self.refuses
        tls.write(settings)
        tls.note_given(settings)
        os.utime(settings.state_dir / "run" / "tls.given", (self.now.timestamp() + 0.001,) * 2)
        self.given.append(self.now)

    def look(self, seconds: float = 0.0) -> Report:
        """So much later."""
        self.now += timedelta(seconds=seconds)
        return self.keeper.look(self.now)

    def problem(self, name: str = FQDN, seconds: float = 0.0) -> str:
        return self.look(seconds).names[name].problem

    def want(self, name: str, source: Source) -> None:
        note(self.settings, name, source)

    def files(self, pair: Pair) -> Files:
        source = Files(self.place / "chain.pem", self.place / "key.pem")
        pair.put(source.chain, source.key)
        return source

    def has(self, name: str) -> bytes:
        there = Certificates(self.settings.state_dir).get(name)
        return there.chain.read_bytes() if there else b""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_there_is_nothing_to_do_when_nothing_changes(scene: Scene) -> None:
    for _ in range(200):
        assert scene.problem(seconds=1) == ""
    assert (scene.given, scene.said) == ([], [])


def test_kamailio_is_given_what_is_new_at_most_once_a_minute_whatever_changes(scene: Scene) -> None:
    for number in range(600):
        match number % 30:
            case 0:
                scene.want("files.example", scene.files(AUTHORITY.issue("files.example")))
            case 10:
                fetch(scene.settings, scene.addresses, "own.example", OwnCa())
                scene.want("own.example", OwnCa())
            case 20:
                scene.configure(log_level="debug" if number % 60 else "info")
        scene.look(1)
    gaps = [later - earlier for earlier, later in zip(scene.given, scene.given[1:], strict=False)]
    assert len(scene.given) >= 8
    assert min(gaps) >= 60 * SECOND
    assert scene.given[0] - scene.start >= 60 * SECOND
    scene.look(60)
    scene.look(60)
    assert not tls.is_behind(scene.settings)


def test_what_was_replaced_is_removed_when_kamailio_has_the_new_one(scene: Scene) -> None:
    scene.want("files.example", scene.files(AUTHORITY.issue("files.example")))
    scene.look(61)
    scene.files(AUTHORITY.issue("files.example"))
    scene.look(1)
    folders = list((scene.place / "state" / "certificates").glob(".files.example.*"))
    assert len(folders) == 2
    scene.look(60)
    assert len(list((scene.place / "state" / "certificates").glob(".files.example.*"))) == 1


def test_what_kamailio_refuses_is_said_and_tried_again_a_minute_later(scene: Scene) -> None:
    scene.refuses = ValueError("cannot load")
    scene.want("own.example", OwnCa())
    assert scene.look(61).problem == "Kamailio goes on with the certificates it had: cannot load"
    assert scene.look(30).problem != ""
    scene.refuses = None
    assert scene.look(29).problem != ""
    assert scene.given == []
    assert scene.look(1).problem == ""
    assert len(scene.given) == 1


def test_a_kamailio_that_is_away_is_given_them_when_it_is_back(scene: Scene) -> None:
    scene.refuses = rpc.UnreachableError("kamailio: gone")
    scene.want("own.example", OwnCa())
    assert scene.look(61).problem == ""
    scene.refuses = None
    scene.look(60)
    assert len(scene.given) == 1


def test_one_of_the_own_ca_is_made_again_with_a_third_of_its_life_left_and_for_other_addresses(scene: Scene) -> None:
    first = scene.has(FQDN)
    scene.look(264 * 86400)
    assert scene.has(FQDN) == first
    scene.look(2 * 86400)
    second = scene.has(FQDN)
    assert second != first
    scene.configure(network={"address": "127.0.0.8"})
    scene.look(1)
    assert scene.has(FQDN) != second


def test_a_file_that_is_not_valid_yet_is_taken_when_it_is(scene: Scene) -> None:
    """It is looked at again, though nobody writes it."""
    pair = AUTHORITY.issue("files.example", begins=datetime.now(UTC) + 1.5 * SECOND)
    scene.want("files.example", scene.files(pair))
    assert "it is not valid before" in scene.problem("files.example")
    assert eventually(lambda: scene.problem("files.example", seconds=61) == "")
    assert scene.has("files.example") == pair.chain


def test_a_refusal_is_said_once(scene: Scene) -> None:
    scene.want("files.example", scene.files(AUTHORITY.issue("other.example")))
    for _ in range(300):
        assert scene.problem("files.example", seconds=1).startswith("refused: does not cover files.example")
    assert len(scene.said) == 1


def test_a_name_that_nobody_wants_any_more_is_named_and_goes_on(scene: Scene) -> None:
    scene.want("files.example", scene.files(AUTHORITY.issue("files.example")))
    scene.look(1)
    note(scene.settings, "files.example", None)
    assert "`sipward cert rm files.example` removes it" in scene.problem("files.example", seconds=1)
    assert scene.has("files.example")


def test_a_damaged_note_is_said_and_what_is_in_use_goes_on(scene: Scene) -> None:
    Certificates(scene.settings.state_dir).names.write_text("{")
    report = scene.look(1)
    assert "_names.json: cannot be read" in report.problem
    assert FQDN in report.names


# --- ACME -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ca(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator["Ca"]:
    ca = Ca(scene)
    monkeypatch.setattr(certificate_keeper, "fetch", ca.fetch)
    scene.configure(lets_encrypt=True, acme={"directory": "https://ca.example/dir", "retry_interval": 600})
    return ca


class Ca:
    """Issues or not, when the keeper asks."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.asked: list[datetime] = []
        self.answer: Callable[[], Pair] = lambda: AUTHORITY.issue(FQDN, begins=self.scene.now)

    def fetch(self, settings: Settings, addresses: Addresses, name: str, source: Source) -> object:
        assert isinstance(source, Acme)
        self.asked.append(self.scene.now)
        pair = self.answer()
        return Certificates(settings.state_dir).install(name, pair.chain, pair.key, source.origin)

    def refuse(self, retry_after: float = 0.0) -> None:
        def answer() -> Pair:
            raise OrderError("https://ca.example/dir: busy", retry_after)

        self.answer = answer

    def look(self, seconds: float) -> str:
        """Look until it has been asked and heard, if it is asked at all."""
        problem = self.scene.problem(seconds=seconds)
        while self.scene.keeper._order:
            eventually(self.scene.keeper._order.answer.done)
            problem = self.scene.problem()
        return problem


def test_an_acme_server_is_asked_once_and_again_with_a_third_of_its_life_left(scene: Scene, ca: "Ca") -> None:
    assert ca.look(0) == ""
    for _ in range(59):
        assert ca.look(86400) == ""
    assert len(ca.asked) == 1
    ca.look(86400)
    assert ca.asked == [scene.start, scene.start + timedelta(days=60)]


def test_after_an_error_the_pauses_grow_and_survive_a_restart(scene: Scene, ca: "Ca") -> None:
    ca.refuse()
    assert ca.look(0).startswith("https://ca.example/dir: busy; asked again at ")
    for number in range(4 * 60):
        if number == 45:
            scene.keeper = Keeper(render.run_dir(scene.settings), scene.said.append)
        ca.look(60)
    minutes = [(asked - scene.start) / timedelta(minutes=1) for asked in ca.asked]
    assert minutes == [0, 10, 30, 70, 150]
    ca.answer = lambda: AUTHORITY.issue(FQDN, begins=scene.now)
    assert ca.look(7200) == ""
    assert scene.look(60).names[FQDN].origin == "ACME https://ca.example/dir"


def test_a_ca_that_wants_to_be_left_alone_is(scene: Scene, ca: "Ca") -> None:
    ca.refuse(retry_after=3600)
    ca.look(0)
    for _ in range(59):
        ca.look(60)
    assert len(ca.asked) == 1
    ca.look(60)
    assert len(ca.asked) == 2


def test_what_stands_in_meanwhile_is_of_the_own_ca(scene: Scene, ca: "Ca") -> None:
    ca.refuse()
    ca.look(0)
    found = scene.look().names[FQDN]
    assert found.origin.startswith("own CA")
    assert b"BEGIN CERTIFICATE" in scene.has(FQDN)
