"""TLS as a phone meets it: who the node says it is, on what terms it speaks, and what a reload changes."""

import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.agent import Agent, Talk, answered_call, trusting_all
from lab.eventually import PATIENCE
from lab.network import Lab, Machine
from lab.node import FQDN, Node
from lab.pki import Authority, Pair, names, trusting
from lab.sipp import Transport
from sipward import tls
from sipward.certificates import Certificates

from .conftest import Tenant

TENANT, WILD, BELOW = "sip.acme.example", "*.pbx.example", "one.pbx.example"


@pytest.fixture
def transport() -> Transport:
    return "tls"


@pytest.fixture
def own_ca(node: Node) -> bytes:
    """The CA that phones are given."""
    return Certificates(node.state_dir).ca.read_bytes()


@pytest.fixture
def install(node: Node) -> Iterator[Callable[..., None]]:
    """Have the node use a certificate for a name, until the test is over."""
    certificates, made = Certificates(node.state_dir), set[str]()

    def use(name: str, authority: Authority) -> None:
        pair = authority.issue(name)
        certificates.install(name, pair.chain, pair.key, "test")
        made.add(name)
        tls.reload(node.settings)

    yield use
    for name in made:
        certificates.remove(name)
    tls.reload(node.settings)


def connected(machine: Machine, name: str = "", context: ssl.SSLContext | None = None) -> set[str]:
    """The names in the certificate that a phone is shown."""
    with Agent(machine, "tls", tls=context, asks_for=name) as phone:
        phone.connect()
        assert isinstance(phone.socket, ssl.SSLSocket)
        return names(phone.socket)


# --- who it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("by", ["name", "address"])
def test_a_phone_that_has_the_nodes_ca_trusts_it(by: str, ipv6: bool, bob: Machine, own_ca: bytes) -> None:
    asks_for = FQDN if by == "name" else bob.lab.edge(bob, ipv6=ipv6)
    with Agent(bob, "tls", ipv6=ipv6, tls=trusting(own_ca), asks_for=asks_for) as phone:
        phone.begin("OPTIONS", f"sip:{FQDN}")
        phone.expect(200)


def test_a_phone_with_another_ca_does_not(bob: Machine, own_ca: bytes) -> None:
    stranger = trusting(Authority("another").root.chain)
    with Agent(bob, "tls", tls=stranger, asks_for=FQDN) as phone, pytest.raises(ssl.SSLCertVerificationError):
        phone.connect()


def test_each_name_is_answered_by_its_own_certificate_and_any_other_by_the_nodes(
    bob: Machine, own_ca: bytes, install: Callable[..., None]
) -> None:
    authority = Authority("lab")
    install(WILD, authority)
    install(TENANT, authority)
    install(f"special.{WILD[2:]}", authority)
    trusted = trusting(authority.root.chain)
    assert connected(bob, TENANT, trusted) == {TENANT}
    assert connected(bob, TENANT.upper(), trusted) == {TENANT}
    assert connected(bob, BELOW, trusted) == {WILD}
    assert connected(bob, f"special.{WILD[2:]}", trusted) == {f"special.{WILD[2:]}"}
    for name in ("", FQDN, "unknown.example", WILD[2:], f"x{WILD[2:]}", "a" * 63):
        assert connected(bob, name) == {FQDN}, name
    with Agent(bob, "tls", tls=trusting(own_ca), asks_for=FQDN) as phone:
        phone.begin("OPTIONS", f"sip:{FQDN}")
        phone.expect(200)


def test_a_reload_touches_no_connection_and_new_ones_get_the_new_certificate(
    bob: Machine, alice: Machine, instance: Agent, acme: Tenant, install: Callable[..., None]
) -> None:
    old, new = Authority("old"), Authority("new")
    install(TENANT, old)
    with Agent(bob, "tls", tls=trusting(old.root.chain), asks_for=TENANT) as phone:
        ours, theirs = answered_call(phone, instance, f"sip:200@{acme.domain}")
        install(TENANT, new)
        assert connected(alice, TENANT, trusting(new.root.chain)) == {TENANT}
        with pytest.raises(ssl.SSLCertVerificationError):
            connected(alice, TENANT, trusting(old.root.chain))
        theirs.send("INFO")
        phone.reply(phone.expect("INFO"), 200)
        instance.expect(200)
        ours.hang_up(instance)


def test_a_certificate_that_kamailio_refuses_changes_nothing_not_even_a_start(
    node: Node, bob: Machine, install: Callable[..., None]
) -> None:
    authority = Authority("lab")
    install(TENANT, authority)
    profiles = node.state_dir / "run" / "tls.cfg"
    before = profiles.read_text()
    certificates = Certificates(node.state_dir)
    certificates.install("broken.example", b"no certificate", b"no key", "test")
    try:
        with pytest.raises(ValueError, match="TLS configuration"):
            tls.reload(node.settings)
        assert profiles.read_text() == before
        assert connected(bob, TENANT, trusting(authority.root.chain)) == {TENANT}
    finally:
        certificates.remove("broken.example")
    assert connected(bob, "broken.example") == {FQDN}


# --- certificates of phones ---------------------------------------------------------------------------------------


def test_a_phone_may_show_a_certificate_of_its_own_and_a_strangers_is_refused(own_lab: Lab) -> None:
    phones, file = Authority("phones"), own_lab.directory / "phones.pem"
    phones.trust(file)
    with Node(own_lab, settings={"tls": {"client_ca": str(file)}}):
        bob = own_lab.phone("bob")
        assert is_served(bob, phones.issue("bob.example"))
        assert not is_served(bob, Authority("strangers").issue("bob.example"))
        assert not is_served(bob, phones.issue("bob.example", begins=LONG_AGO, life=timedelta(days=1)))
        assert is_served(bob, None)


LONG_AGO = datetime.now(UTC) - timedelta(days=10)


def is_served(phone: Machine, pair: Pair | None) -> bool:
    """Whether a phone that shows this certificate is answered."""
    context = trusting_all()
    if pair:
        pair.load(context)
    with Agent(phone, "tls", tls=context) as agent:
        try:
            agent.begin("OPTIONS", f"sip:{FQDN}")
            agent.expect(200)
        except (ssl.SSLError, ConnectionError):
            return False
        return True


# --- sips URIs ----------------------------------------------------------------------------------------------------


def test_an_instance_without_tls_is_asked_for_sip_uris_and_a_phone_for_its_own(
    phone: Agent, instance: Agent, acme: Tenant
) -> None:
    """RFC 3261, 26.2.2: a sips URI would have the instance speak TLS."""
    contact = f"<sips:alice@{phone.hostport};line=2>"
    ours = phone.begin("INVITE", f"sips:200@{acme.domain}", contact=contact, body=phone.sdp(), domain=acme.domain)
    invite = instance.expect("INVITE")
    assert invite.uri == f"sip:200@{acme.domain}"
    assert invite.header("Contact") == f"<sip:alice@{phone.hostport};line=2;sw-sips>"
    theirs = Talk.answering(instance, invite, "callee")
    instance.reply(invite, 200, tag="callee", body=instance.sdp())
    ours.learn(phone.expect(200)).ack()
    assert instance.expect("ACK").uri.startswith("sip:")
    theirs.send("INVITE", body=instance.sdp(2))
    again = phone.expect("INVITE")
    assert f"<{again.uri}>" == contact
    phone.reply(again, 200, contact=contact, body=phone.sdp(2))
    assert instance.expect(200).header("Contact") == f"<sip:alice@{phone.hostport};line=2;sw-sips>"
    theirs.ack()
    phone.expect("ACK")
    theirs.send("BYE")
    bye = phone.expect("BYE")
    assert f"<{bye.uri}>" == contact
    phone.reply(bye, 200)
    instance.expect(200)


# --- on what terms ------------------------------------------------------------------------------------------------


def speaking(version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    """A client of one version, which takes any cipher suite, weak or strong."""
    context = trusting_all()
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_with_authenticated_encryption(
    version: ssl.TLSVersion, node: Node, bob: Machine
) -> None:
    with Agent(bob, "tls", tls=speaking(version)) as phone:
        phone.begin("OPTIONS", f"sip:{FQDN}")
        phone.expect(200)
        assert isinstance(phone.socket, ssl.SSLSocket)
        suite, _, _ = phone.socket.cipher() or ("", "", 0)
        assert "GCM" in suite or "POLY1305" in suite
        assert suite.startswith(("ECDHE-", "TLS_"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_are_refused(version: ssl.TLSVersion, node: Node, bob: Machine) -> None:
    with Agent(bob, "tls", tls=speaking(version)) as phone, pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        phone.connect()


@pytest.mark.parametrize("ciphers", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"])
def test_suites_without_forward_secrecy_or_authenticated_encryption_are_refused(
    ciphers: str, node: Node, bob: Machine
) -> None:
    terms = speaking(ssl.TLSVersion.TLSv1_2, ciphers)
    with Agent(bob, "tls", tls=terms) as phone, pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        phone.connect()


def test_a_client_cannot_renegotiate(node: Node, bob: Machine, lab: Lab) -> None:
    argv = ["nsenter", f"--net=/run/netns/{bob.namespace}", "openssl", "s_client", "-tls1_2"]
    with subprocess.Popen(
        [*argv, "-connect", f"{lab.edge(bob)}:5061"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as client:
        assert client.stdin
        assert client.stdout
        client.stdin.write("R\n")
        client.stdin.flush()
        # It ends by itself, for the node closes the connection; else it would go on.
        assert client.wait(PATIENCE) != 0
        assert "RENEGOTIATING" in client.stdout.read()


def test_openssl_is_made_ready_for_several_processes(node: Node) -> None:
    config = Path(node.state_dir, "run", "kamailio.cfg").read_text()
    assert "\ntls_threads_mode=2\n" in config
    assert re.findall(r'loadmodule "(\w+)', config)[0] == "tls"
