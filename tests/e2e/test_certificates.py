"""Where certificates come from: the node's own CA, files, an ACME server; and that phones are shown the right one."""

import json
import os
import re
import signal
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SOCK_STREAM
from typing import Any

import pytest
from cryptography import x509

from lab.addresses import INTERNET, NODE
from lab.agent import Agent, answered_call
from lab.dns import Dns, host
from lab.eventually import eventually
from lab.network import Lab, Machine
from lab.node import FQDN, Answer, Node
from lab.pebble import DIRECTORY, Pebble
from lab.pki import AUTHORITY, Authority, Pair, served
from sipward import reload
from sipward.certificate_names import Acme, note
from sipward.certificates import Certificates

from .conftest import Tenant, watched_lab

PORT = 5061
ADDRESSES = INTERNET.host(NODE)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with watched_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    folder = lab.directory / "folder"
    folder.mkdir()
    with Node(lab, settings={"certificates": {"folder": str(folder)}}) as node:
        yield node
        assert node.stop() == 0, node.log_tail()


@pytest.fixture(scope="module")
def dns(lab: Lab) -> Iterator[Dns]:
    """The names of the Internet; all of them lead to the node, over IPv4 and IPv6."""
    with Dns(lab, [host(name, *ADDRESSES) for name in (FQDN, "a.example", "b.example")]) as dns:
        yield dns


@pytest.fixture
def pebble(lab: Lab, dns: Dns) -> Iterator[Pebble]:
    with Pebble(lab) as pebble:
        yield pebble


@pytest.fixture
def cert(node: Node) -> Iterator[Callable[..., Answer]]:
    """`sipward cert ...`; what is added goes with the test."""
    added: list[str] = []

    def run(command: str, *arguments: object) -> Answer:
        if command == "add":
            added.append(str(arguments[0]))
        return node.sipward("cert", command, *map(str, arguments))

    yield run
    for name in added:
        node.sipward("cert", "rm", name)


@pytest.fixture
def shown(node: Node, bob: Machine) -> Callable[[str], x509.Certificate]:
    """What a phone on the Internet is shown when it asks for a name."""
    return lambda name: served(bob, (node.machine.address, PORT), name)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Where another program writes a certificate and its key."""
    return tmp_path / "chain.pem", tmp_path / "key.pem"


@contextmanager
def configured(node: Node, line: str, instead: str) -> Iterator[None]:
    """Another configuration that the running node takes, inside the block."""
    before = node.config.read_text()
    assert line in before
    take(node, before.replace(line, instead))
    try:
        yield
    finally:
        take(node, before)


def take(node: Node, text: str) -> None:
    """Have the node take a configuration, for which no component is to be started again."""
    pids = node.processes()
    node.config.write_text(text)
    assert node.machine.inside(lambda: reload.request(node.settings)) == ("", ())
    assert node.processes() == pids


def done(answer: Answer) -> str:
    assert answer.code == 0, answer
    return answer.output


def act(node: Node, name: str, value: Mapping[str, object]) -> tuple[int, Any]:
    """An action's exit code and what it prints."""
    answer = node.sipward("action", name, stdin=json.dumps(value))
    return answer.code, json.loads(answer.output) if answer.output else None


def state(node: Node, name: str) -> dict[str, Any]:
    """What `status` says of a name."""
    return dict(node.status()["components"]["certificates"].get("names", {}).get(name, {}))


def problem(node: Node, name: str) -> str:
    """What is wrong with a name; "unknown" while `status` does not know it."""
    return str(state(node, name).get("problem", "unknown"))


def parts(pair: Pair) -> tuple[bytes, bytes]:
    return pair.chain, pair.key


def is_of_pebble(certificate: x509.Certificate) -> bool:
    return "Pebble" in certificate.issuer.rfc4514_string()


# --- the node's own CA ------------------------------------------------------------------------------------------------


def test_a_node_without_any_certificate_has_one_of_its_own_ca_by_name_and_address(node: Node, bob: Machine) -> None:
    shown = done(node.sipward("cert", "show", FQDN))
    found = re.search(r"^ca +(/.*)$", shown, re.MULTILINE)
    assert found
    trusting = ssl.create_default_context(cafile=found[1])
    eventually(lambda: problem(node, FQDN) == "")
    for name in (FQDN, *ADDRESSES):
        # Another one is on its way at first: which addresses it covers is only known to who runs.
        eventually(lambda: name in x509_names(bob, name))  # noqa: B023
        with Agent(bob, "tls", tls=trusting, asks_for=name) as phone:
            phone.begin("OPTIONS", f"sip:{FQDN};transport=tls")
            phone.expect(200)


def x509_names(machine: Machine, name: str) -> set[str]:
    found = served(machine, (ADDRESSES[0], PORT), name)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def test_a_further_name_may_be_of_the_own_ca_too_and_is_forgotten_again(
    cert: Callable[..., Answer], shown: Callable[[str], x509.Certificate]
) -> None:
    done(cert("add", "*.own.example", "--own-ca"))
    eventually(lambda: "*.own.example" in str(shown("pbx.own.example").subject))
    assert FQDN in str(shown("own.example").subject)
    done(cert("rm", "*.own.example"))
    eventually(lambda: FQDN in str(shown("pbx.own.example").subject))
    assert cert("rm", "*.own.example").code == 1


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_watched_what_is_good_is_taken_and_what_is_bad_is_refused(
    node: Node, cert: Callable[..., Answer], shown: Callable[[str], x509.Certificate], files: tuple[Path, Path]
) -> None:
    name = "files.example"
    first, second = AUTHORITY.issue(name), AUTHORITY.issue(name)
    first.put(*files)
    done(cert("add", name, "--certificate", files[0], "--key", files[1]))
    eventually(lambda: shown(name).serial_number == first.serial)
    now, day = datetime.now(UTC), timedelta(days=1)
    bad = {
        "the key is not the certificate's": (second.chain, first.key),
        "the certificate's file is not whole": (second.chain[:-40], second.key),
        "the chain is not complete": parts(Authority("Other").issue(name)),
        "it has expired": parts(AUTHORITY.issue(name, begins=now - 90 * day, life=89 * day)),
        "it is not valid before": parts(AUTHORITY.issue(name, begins=now + day)),
        f"does not cover {name}": parts(AUTHORITY.issue("other.example")),
    }
    for why, contents in bad.items():
        for path, content in zip(files, contents, strict=True):
            path.write_bytes(content)
        eventually(lambda: why in problem(node, name), what=why)  # noqa: B023
        assert node.status()["components"]["certificates"]["state"] == "degraded"
    assert shown(name).serial_number == first.serial
    assert cert("renew", name).errors.startswith(f"does not cover {name}: it is for other.example")
    said = done(node.sipward("status"))
    assert re.search(
        rf"certificate: {name}: until 20\d\d-\d\d-\d\d, 8\d days, from {files[0]}: refused: does not", said
    )
    second.put(*files)
    eventually(lambda: shown(name).serial_number == second.serial)
    eventually(lambda: problem(node, name) == "")
    files[1].unlink()
    eventually(lambda: f"{files[1]}: is not there" in problem(node, name))
    assert shown(name).serial_number == second.serial
    assert node.ready


def test_the_nodes_own_certificate_may_be_a_file(
    node: Node, shown: Callable[[str], x509.Certificate], files: tuple[Path, Path]
) -> None:
    pair = AUTHORITY.issue(FQDN)
    pair.put(*files)
    given = f'[certificates]\ncertificate = "{files[0]}"\nkey = "{files[1]}"\n'
    with configured(node, "[certificates]\n", given):
        for name in (FQDN, "unknown.example", ""):
            eventually(lambda: shown(name).serial_number == pair.serial)  # noqa: B023
        eventually(lambda: state(node, FQDN)["from"] == str(files[0]))
    eventually(lambda: state(node, FQDN)["from"].startswith("own CA"))


def test_nethservers_event_takes_the_files_of_its_folder(
    node: Node, lab: Lab, shown: Callable[[str], x509.Certificate]
) -> None:
    folder = lab.directory / "folder"
    plain, wild = AUTHORITY.issue("ns8.example"), AUTHORITY.issue("*.wild.example")
    plain.put(folder / "ns8.example.crt", folder / "ns8.example.key")
    wild.put(folder / "_.wild.example.crt", folder / "_.wild.example.key")
    (folder / "other file.crt").write_text("of another program")
    names = ["NS8.example", "*.wild.example", "somebody.else.example"]
    assert act(node, "certificate-changed", {"names": names, "node": 1}) == (0, None)
    eventually(lambda: shown("ns8.example").serial_number == plain.serial)
    eventually(lambda: shown("pbx.wild.example").serial_number == wild.serial)
    Pair(AUTHORITY.issue("ns8.example").links, plain.private_key).put(
        folder / "ns8.example.crt", folder / "ns8.example.key"
    )
    code, problems = act(node, "certificate-changed", {"names": ["ns8.example"]})
    assert (code, problems[0]["field"], problems[0]["value"]) == (3, "names", "ns8.example")
    assert problems[0]["error"] == "the key is not the certificate's"
    assert shown("ns8.example").serial_number == plain.serial
    assert act(node, "certificate-changed", {"names": [1]})[0] == 10
    for path in folder.iterdir():
        path.unlink()
    for name in ("ns8.example", "*.wild.example"):
        Certificates(node.state_dir).remove(name)


# --- ACME -------------------------------------------------------------------------------------------------------------


def test_a_further_name_comes_from_the_acme_server_in_spite_of_its_faults_and_to_an_account_that_it_knows(
    lab: Lab, dns: Dns, node: Node, cert: Callable[..., Answer], shown: Callable[[str], x509.Certificate]
) -> None:
    keys = {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
    settings = {"externalAccountBindingRequired": True, "externalAccountMACKeys": keys}
    before = node.config.read_text()
    with Pebble(lab, settings, {"PEBBLE_WFE_NONCEREJECT": "50"}) as pebble:
        refused = cert("add", "a.example", "--lets-encrypt")
        assert (refused.code, "externalAccountBinding" in refused.errors) == (1, True)
        bound = f'[acme]\neab_key_id = "kid-1"\neab_key = "{keys["kid-1"]}"\n'
        node.config.write_text(before.replace("[acme]\n", bound))
        try:
            done(cert("add", "a.example", "--lets-encrypt"))
        finally:
            node.config.write_text(before)
        assert "validate w/ HTTP: http://a.example:80/.well-known/acme-challenge/" in pebble.log
    eventually(lambda: is_of_pebble(shown("a.example")))
    assert not is_of_pebble(shown(FQDN))
    assert "a.example" in done(cert("list"))
    # What is kept is for the node alone: the account's key, certificates and notes.
    place = node.state_dir / "certificates"
    kept = {path: stat.S_IMODE(path.lstat().st_mode) for path in [place, *place.rglob("*")] if not path.is_symlink()}
    assert {"account.pem", "ca.key", "key.pem", "_names.json"} <= {path.name for path in kept}
    assert {path: oct(mode) for path, mode in kept.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    # Port 80 was open for the challenge alone.
    with pytest.raises(ConnectionRefusedError), lab.phone("bob").socket(kind=SOCK_STREAM) as asker:
        asker.connect((ADDRESSES[0], 80))


def test_what_the_acme_server_says_against_it_is_said_and_nothing_is_kept(
    node: Node, pebble: Pebble, cert: Callable[..., Answer]
) -> None:
    refused = cert("add", "nowhere.example", "--lets-encrypt")
    assert refused.code == 1
    assert "nowhere.example" in refused.errors
    assert len(refused.errors.splitlines()) == 1
    assert "nowhere.example" not in done(cert("list"))
    with node.machine.socket(kind=SOCK_STREAM) as taker:
        taker.bind((ADDRESSES[0], 80))
        taker.listen()
        refused = cert("add", "b.example", "--lets-encrypt")
    assert refused.errors == f"cannot listen on tcp {ADDRESSES[0]}:80 for the CA: Address already in use\n"
    wild = cert("add", "*.b.example", "--lets-encrypt")
    assert (wild.code, "a wildcard cannot be had" in wild.errors) == (2, True)


def test_a_certificate_is_renewed_with_a_third_of_its_life_left_and_asked_for_again_when_that_fails(
    lab: Lab, dns: Dns, node: Node, cert: Callable[..., Answer], shown: Callable[[str], x509.Certificate]
) -> None:
    name, days = "b.example", timedelta(days=1)
    old = AUTHORITY.issue(name, begins=datetime.now(UTC) - 61 * days, life=90 * days)
    source = Acme(DIRECTORY)
    # As it is two months after `cert add`.
    Certificates(node.state_dir).install(name, old.chain, old.key, source.origin)
    note(node.settings, name, source)
    try:
        eventually(lambda: "cannot be reached: Connection refused; asked again at" in problem(node, name))
        eventually(lambda: shown(name).serial_number == old.serial)
        with Pebble(lab):
            eventually(lambda: is_of_pebble(shown(name)))
        eventually(lambda: problem(node, name) == "")
        assert state(node, name)["days_left"] > 80
    finally:
        done(cert("rm", name))


def test_the_nodes_own_certificate_comes_by_configure_module_and_no_component_is_started_again(
    node: Node, pebble: Pebble, shown: Callable[[str], x509.Certificate]
) -> None:
    pids = node.processes()
    wanted = {"fqdn": FQDN, "addresses": {"address": ADDRESSES[0]}, "lets_encrypt": True}
    assert act(node, "configure-module", wanted) == (0, None)
    eventually(lambda: is_of_pebble(shown(FQDN)))
    assert act(node, "get-configuration", {})[1]["lets_encrypt"] is True
    assert act(node, "configure-module", wanted | {"lets_encrypt": False}) == (0, None)
    eventually(lambda: not is_of_pebble(shown(FQDN)))
    assert node.processes() == pids


def test_a_configuration_whose_certificate_cannot_be_had_is_refused_and_changes_nothing(
    node: Node, pebble: Pebble, dns: Dns
) -> None:
    before, pids = node.config.read_text(), node.processes()
    wanted = {"fqdn": "nowhere.example", "addresses": {"address": ADDRESSES[0]}, "lets_encrypt": True}
    code, problems = act(node, "configure-module", wanted)
    assert (code, problems[0]["field"], problems[0]["value"]) == (3, "lets_encrypt", True)
    assert "nowhere.example" in problems[0]["error"]
    assert (node.config.read_text(), node.processes()) == (before, pids)


# --- calls ------------------------------------------------------------------------------------------------------------


def test_renewals_change_nothing_for_calls_that_are_up(
    node: Node,
    lab: Lab,
    acme: Tenant,
    instance: Agent,
    cert: Callable[..., Answer],
    shown: Callable[[str], x509.Certificate],
    files: tuple[Path, Path],
) -> None:
    name = "calls.example"
    AUTHORITY.issue(name).put(*files)
    done(cert("add", name, "--certificate", files[0], "--key", files[1]))
    own = shown(FQDN).serial_number
    phones = [Agent(lab.phone("bob"), "tls", port=0) for _ in range(3)]
    calls = [answered_call(phone, instance, f"sip:200@{acme.domain};transport=tls") for phone in phones]
    for _ in range(3):
        pair = AUTHORITY.issue(name)
        pair.put(*files)
        eventually(lambda: shown(name).serial_number == pair.serial)  # noqa: B023
    assert shown(FQDN).serial_number == own
    for ours, _ in calls:
        ours.hang_up(instance)
    for phone in phones:
        phone.socket.close()


def test_the_keeper_is_back_when_it_was_killed(node: Node) -> None:
    def keeper() -> int:
        return next((pid for pid, name in node.processes().items() if name.startswith("python")), 0)

    old = keeper()
    os.kill(old, signal.SIGKILL)
    eventually(lambda: keeper() not in (0, old))
    assert node.ready


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_hundred_renewals_cost_no_call_and_little_memory(
    node: Node,
    lab: Lab,
    acme: Tenant,
    instance: Agent,
    cert: Callable[..., Answer],
    shown: Callable[[str], x509.Certificate],
    files: tuple[Path, Path],
) -> None:
    name = "calls.example"
    AUTHORITY.issue(name).put(*files)
    done(cert("add", name, "--certificate", files[0], "--key", files[1]))
    own = shown(FQDN).serial_number
    with ExitStack() as stack:
        phones = [stack.enter_context(Agent(lab.phone("bob"), "tls", port=0)) for _ in range(50)]
        calls = [answered_call(phone, instance, f"sip:200@{acme.domain};transport=tls") for phone in phones]

        def renew(times: int) -> int:
            """Renew so often; the bytes of shared memory in use then."""
            for _ in range(times):
                pair = AUTHORITY.issue(name)
                pair.put(*files)
                eventually(lambda: shown(name).serial_number == pair.serial)  # noqa: B023
            return int(node.rpc("core.shmmem")["real_used"])

        # The calls hold the certificates that they began with, and the last ones go with the next: three of each.
        before = renew(2)
        grown = renew(100) - before
        assert shown(FQDN).serial_number == own
        for ours, _ in calls:
            ours.hang_up(instance)
    assert grown < 2_000_000
